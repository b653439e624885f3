"""Parts of a source that misbehave; executors import this module by its name."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ledger.kernel.chunk import Chunk
from ledger.spark.files import FileSplits


@dataclass(frozen=True)
class Odd:
    """The parts of `splits`, but: `marks` tells when a part is begun, `seconds` is how long each takes, `drop` loses the first row of part 0,
    `die` ends the process that reads part 1."""

    splits: FileSplits
    marks: Path | None = None
    seconds: float = 0.0
    drop: bool = False
    die: bool = False

    def __getattr__(self, name: str) -> Any:
        if name == "splits":
            raise AttributeError(name)
        return getattr(self.splits, name)

    def __len__(self) -> int:
        return len(self.splits)

    def frame(self, spark: Any) -> Any:
        """As that of the splits."""
        return self.splits.frame(spark)

    def chunks(self, split: int, batches: Any) -> Iterator[Chunk]:
        """The rows of one part."""
        if self.marks is not None:
            (self.marks / f"{split}-{os.getpid()}").touch()
        if self.die and split == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.seconds)
        for at, chunk in enumerate(self.splits.chunks(split, batches)):
            if self.drop and split == 0 and at == 0:
                fields = {name: column.slice(1) for name, column in chunk.fields.items()}
                extra = {name: column.slice(1) for name, column in chunk.extra.items()}
                yield replace(chunk, fields=fields, extra=extra, numbers=chunk.numbers[1:])
            else:
                yield chunk
