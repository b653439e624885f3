"""Telling the night's outcome to people and programs elsewhere: webhook and mail (design section 6, the last step).

A notice holds counts, never a key or a value of a record. It is stored before it is sent, and told at least once, always
under the same id: whoever gets one id twice ignores the second.
"""
