"""Drafts a catalog from a table or a file (`catalog new`): reads a sample, guesses, writes TOML in which every guess is said.

Nothing of the data is written into a draft: names of columns, types and counts only.
"""
