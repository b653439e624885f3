"""The batch path: Arrow chunks in, entries out, a column at a time.

`record.py` says what a value's normal form and a row's canonical bytes are; this package computes the same bytes
fast and is held byte-equal to it by property tests. No I/O, no state between chunks but bounded caches.
"""
