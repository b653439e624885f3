"""A source read no faster than the operator allows, and no longer."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ledger.errors import SourceError
from ledger.kernel.chunk import Chunk
from ledger.pace import Pace
from ledger.source.source import Source


@dataclass(frozen=True)
class PacedSource:
    """`source`, with pauses after each chunk as `pace` demands; SourceError `source.timeout` for a reading that takes longer than
    `timeout_seconds`, pauses included: it is for so long that the database keeps an old state for us.

    Where the database can end a statement by itself it does (`open_table`); this ends a reading of any database between two chunks.
    """

    source: Source
    catalog_id: str
    pace: Pace | None
    timeout_seconds: int | None

    @property
    def where(self) -> str:
        """As the source says."""
        return self.source.where

    @property
    def ignored(self) -> Sequence[str]:
        """As the source says."""
        return self.source.ignored

    @property
    def notes(self) -> Sequence[tuple[str, str]]:
        """As the source says."""
        return self.source.notes

    def about_rows(self) -> int | None:
        """As the source says."""
        return self.source.about_rows()

    def scan(self) -> Iterator[Chunk]:
        """The source's rows. What two scans of one pace read counts together."""
        began = time.monotonic()
        if self.pace is not None:
            self.pace.begin()
        for chunk in self.source.scan():
            if self.timeout_seconds is not None and time.monotonic() - began > self.timeout_seconds:
                raise timed_out(self.catalog_id, self.timeout_seconds, self.where)
            yield chunk
            if self.pace is not None:
                self.pace.spend(len(chunk))


def timed_out(catalog_id: str, seconds: int, where: str, told: str = "") -> SourceError:
    """The refusal of a reading that took too long; `told` is what the database said."""
    end = f"（{told}）" if told else ""
    end_en = f" ({told})" if told else ""
    setting = f"[source.{catalog_id}] timeout_seconds"
    return SourceError(
        "source.timeout",
        f"读取超过 {setting} = {seconds} 秒，已中止，未写入任何内容；限速（limit_rate）造成的停顿也计在内。请放宽该值或限速，或在空闲时段运行{end}",
        f"the reading took longer than {setting} = {seconds} seconds and was given up; nothing was written. Pauses made by limit_rate "
        f"count: allow more seconds or more rows a second, or run it at a quieter time{end_en}",
        where,
    )
