"""What can go wrong, in words an operator can act on.

Every error carries a stable dotted `code` (for machines), a message in Chinese and in English, and `where` (file and line,
catalog and field, URL without secrets …; empty when there is no place). It ends the command with exit 2: "could not tell".
A difference that was found is never an error: it is a finding, returned as a value.
"""

from __future__ import annotations


class LedgerError(Exception):
    """Base of all errors of the ledger; `code` names the rule that was broken.

    `zh` and `en` say the same: what was wrong, which value, which rule, who must act. Neither may hold a secret, nor the
    value of a field marked `personal`.
    """

    def __init__(self, code: str, zh: str, en: str, where: str = "") -> None:
        super().__init__(f"{where}: {en}" if where else en)
        self.code = code
        self.zh = zh
        self.en = en
        self.where = where


class InputError(LedgerError):
    """What was handed in is malformed: a catalog, a file, a key, an argument."""


class NotBuiltError(LedgerError):
    """A documented capability that this version does not have yet; refused by name."""

    def __init__(self, what: str) -> None:
        super().__init__("not_built", f"本版本尚不支持：{what}", f"not built yet in this version: {what}")


class ChainError(LedgerError):
    """The chain could not be reached, is another chain, or contradicts what it confirmed."""


class StoreError(LedgerError):
    """The ledger's own store is damaged, locked or not writable."""


class SourceError(LedgerError):
    """The operator's source cannot be read, or lacks what the catalog declares."""
