"""Erasing: the plaintext of named records goes for good, from archives and store; what was anchored stays as it is (design section 4).

named.py     which keys, under which tags, in which streams and archives
traces.py    where else their plaintext stands: the source, files of the workspace; named, never touched
redact.py    what the store's tables said of them
erase.py     the order of effects
"""
