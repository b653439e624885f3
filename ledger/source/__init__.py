"""Rows out of files and databases, as chunks for the kernel; nothing is written but by `load.py`, for `receive --load`.

A source names what it lacks before the first row, gives rows in bounded memory, and carries rows that cannot be read
as refused rows: it never drops one.
"""
