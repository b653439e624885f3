"""What fsck says: numbered checks, each with its result, and the damage, pending work and remarks they came upon."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from ledger.errors import LedgerError

Result = Literal["pass", "fail", "undetermined"]
Verdict = Literal["clean", "damaged", "undetermined"]

DAMAGE_CODES = frozenset(
    {
        # the store's tables
        "store.damaged", "store.missing", "store.no_chain", "store.sql", "store.row",
        # entry files and archives
        "store.entries_missing", "store.entries_damaged", "store.entries_root", "store.entries_tiles", "store.archive_missing",
        "store.archive_damaged", "store.archive_key_damaged", "store.archive_record_missing",
        # what the store says of catalogs and erasures
        "store.declaration",
        # key files
        "key.missing", "key.form", "key.permissions", "key.exposed", "key.not_a_file", "key.too_long",
        "account.form", "account.password_file",
        # the chain serves our identity block, yet not what was anchored or deployed on it
        "chain.lost", "chain.no_contract", "chain.other_code", "chain.contradiction",
    }
)  # fmt: skip
"""Errors that say something is not as it was written. Every other error means that fsck could not tell."""

SHOWN = 50
"""Entries of one set that are named one by one; further ones are counted."""


@dataclass(frozen=True)
class Remark:
    """One thing fsck has to say: a code for machines, the same sentence twice, and where (file, batch, entry)."""

    code: str
    zh: str
    en: str
    where: str = ""


@dataclass
class Check:
    """One numbered check while it runs. It fails if there is damage; with an open question it is never a pass.

    `zh` and `en` name it; `seen_zh` and `seen_en` say what was examined.
    """

    number: int
    name: str
    zh: str
    en: str
    seen_zh: str = ""
    seen_en: str = ""
    damage: list[Remark] = field(default_factory=list)
    unknown: list[Remark] = field(default_factory=list)
    pending: list[Remark] = field(default_factory=list)
    notes: list[Remark] = field(default_factory=list)

    @property
    def result(self) -> Result:
        """`fail`, `undetermined` or `pass`, in this order of precedence."""
        return "fail" if self.damage else "undetermined" if self.unknown else "pass"

    def seen(self, zh: str, en: str) -> None:
        """Say what was examined."""
        self.seen_zh, self.seen_en = zh, en

    def broken(self, code: str, zh: str, en: str, where: str = "") -> None:
        """Report damage."""
        self.damage.append(Remark(code, zh, en, where))

    def cannot(self, code: str, zh: str, en: str, where: str = "") -> None:
        """Report a question that could not be answered."""
        self.unknown.append(Remark(code, zh, en, where))

    def take(self, error: LedgerError, where: str = "") -> None:
        """Report what an error says: damage if its code is among DAMAGE_CODES, else a question left open."""
        kind = self.damage if error.code in DAMAGE_CODES else self.unknown
        kind.append(Remark(error.code, error.zh, error.en, where or error.where))

    @contextmanager
    def guard(self, where: str = "") -> Iterator[None]:
        """Report a LedgerError raised inside, so that one broken thing does not hide the next."""
        try:
            yield
        except LedgerError as error:
            self.take(error, where)


@dataclass
class Report:
    """Everything fsck found, in the order of its checks."""

    party: str
    checks: list[Check] = field(default_factory=list)

    def open(self, name: str, zh: str, en: str) -> Check:
        """Begin the next check."""
        check = Check(len(self.checks) + 1, name, zh, en)
        self.checks.append(check)
        return check

    @property
    def verdict(self) -> Verdict:
        """`damaged` as soon as anything is, whatever else could not be told."""
        results = {check.result for check in self.checks}
        return "damaged" if "fail" in results else "undetermined" if "undetermined" in results else "clean"

    @property
    def exit_code(self) -> int:
        """0 clean, 1 damage found, 2 could not tell."""
        return {"clean": 0, "damaged": 1, "undetermined": 2}[self.verdict]

    def gather(self, kind: Literal["damage", "unknown", "pending", "notes"]) -> list[Remark]:
        """The remarks of one kind from all checks, in order."""
        return [remark for check in self.checks for remark in getattr(check, kind)]
