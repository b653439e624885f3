"""Bridges: a stream goes on under another catalog version or exchange key (design section 4)."""
