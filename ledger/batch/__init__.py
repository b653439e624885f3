"""Batches: from rows to entries, streams and their fold, sending, receiving, sealing."""
