"""What every source of rows gives, whatever it reads from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from ledger.kernel.chunk import Chunk


class Source(Protocol):
    """Rows of one catalog from one place, opened for one consistent read."""

    @property
    def where(self) -> str:
        """The place, for messages: a path, or a URL without secrets and a table."""

    @property
    def ignored(self) -> Sequence[str]:
        """Columns that the catalog does not declare and nobody asked for."""

    @property
    def notes(self) -> Sequence[tuple[str, str]]:
        """What limits an answer drawn from it, in Chinese and English: an untested kind of database, no snapshot …"""

    def about_rows(self) -> int | None:
        """About how many rows there are, as far as that costs next to nothing to find out; None if it does not. For progress alone.

        Not while a scan runs: a connection does one thing at a time.
        """

    def scan(self) -> Iterator[Chunk]:
        """All rows in bounded memory, in no order anyone may rely on; the same rows each time it is called."""
