"""The ledger's own tables and files (台账库): what was anchored, what is pending, and the bytes behind it.

`files` writes whole files or none, `db` opens the tables of `models`, `entryfile` keeps the entries of a batch,
`archive` the encrypted records. Nothing here decides what is lawful, and nothing here knows the chain or a source.
"""
