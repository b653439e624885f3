"""What the batch column of a source says: which rows carry a batch number."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ledger.descriptor import batch_number
from ledger.errors import InputError
from ledger.kernel.chunk import Chunk


def batch_mask(chunk: Chunk, number: str) -> npt.NDArray[np.bool_]:
    """Which rows of `chunk` carry that batch number in the batch column, both in their `code` normal form."""
    coded = chunk.extra["batch"].dictionary_encode()
    named = np.array([_is_number(text, number) for text in coded.dictionary.to_pylist()] + [False], np.bool_)
    mask: npt.NDArray[np.bool_] = named[coded.indices.fill_null(len(named) - 1).to_numpy()]
    return mask


def _is_number(text: str | None, number: str) -> bool:
    if text is None:
        return False
    try:
        return batch_number(text) == number
    except InputError:
        return False
