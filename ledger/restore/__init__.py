"""Putting anchored rows back into a source from the archive: a plan that changes nothing, then its application."""
