"""What a column of text looks like to numpy: its bytes and where each value starts and ends.

Everything here answers with a mask over the rows and never changes a value.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any
from unicodedata import is_normalized

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ledger.record import STRIPPED

Mask = NDArray[np.bool_]

# The characters F2 strips, as the bytes a value may start and end with.
_STRIPPED = tuple(char.encode() for char in STRIPPED)
# By first and second byte, and by last and last but one; the second plays no part where one byte is a whole character.
_CAN_START = np.zeros((256, 256), np.bool_)
_CAN_END = np.zeros((256, 256), np.bool_)
for _char in _STRIPPED:
    _CAN_START[_char[0], _char[1] if len(_char) > 1 else slice(None)] = True
    _CAN_END[_char[-1], _char[-2] if len(_char) > 1 else slice(None)] = True


class TextColumn:
    """A pa.string() array as bytes; rows that are null count as empty."""

    def __init__(self, array: Any) -> None:
        self.array = array
        self.size = len(array)
        buffers = array.buffers()
        if array.null_count:
            # A null may cover bytes; they are no part of any value.
            array = array.fill_null("")
            buffers = array.buffers()
        first = array.offset
        offsets = np.zeros(1, np.int32) if buffers[1] is None or not self.size else np.frombuffer(buffers[1], np.int32)
        offsets = offsets[first : first + self.size + 1] if self.size else offsets[:1]
        data = np.frombuffer(b"" if buffers[2] is None else buffers[2], np.uint8)
        self.offsets: NDArray[np.int64] = offsets.astype(np.int64) - int(offsets[0])
        self.data: NDArray[np.uint8] = data[int(offsets[0]) : int(offsets[-1])]

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Bytes of each value."""
        return self.offsets[1:] - self.offsets[:-1]

    @cached_property
    def empty(self) -> Mask:
        """Values that are empty or null."""
        return np.asarray(self.lengths == 0)

    @cached_property
    def nulls(self) -> Mask:
        """Values that are null."""
        if not self.array.null_count:
            return np.zeros(self.size, np.bool_)
        return np.asarray(self.array.is_null().to_numpy(zero_copy_only=False), np.bool_)

    @cached_property
    def bytes(self) -> bytes:
        """All values, one after the other."""
        return self.data.tobytes()

    @cached_property
    def all_ascii(self) -> bool:
        """Whether no value has a character beyond U+007F."""
        return self.bytes.isascii()

    @cached_property
    def ascii(self) -> Mask:
        """Values without a character beyond U+007F; empty ones are."""
        return np.ones(self.size, np.bool_) if self.all_ascii else ~self._holding(self.data >= 0x80)

    @cached_property
    def ideographic(self) -> Mask:
        """Values that hold a character of U+4000-9FFF.

        All of these are their own compatibility form and never combine, so neither NFC nor NFKC loses them.
        """
        return self._holding((self.data >= 0xE4) & (self.data <= 0xE9))

    def _holding(self, marked: Mask) -> Mask:
        count = np.zeros(len(marked) + 1, np.int32)
        np.cumsum(marked, out=count[1:])
        return np.asarray(count[self.offsets[1:]] > count[self.offsets[:-1]])

    def holding(self, byte: int) -> Mask:
        """Values that hold an ASCII character."""
        found = np.flatnonzero(self.data == byte)
        mask = np.zeros(self.size, np.bool_)
        mask[np.searchsorted(self.offsets, found, "right") - 1] = True
        return mask

    def strays(self) -> Mask:
        """Values that may differ from their own normal form as `text` (F2), or have none: none that does is left
        out."""
        mask = self._edges()
        for byte in (0x00, 0x0D):
            if bytes([byte]) in self.bytes:
                mask |= self.holding(byte)
        if not self.all_ascii and not is_normalized("NFC", self.bytes.decode()):
            # Every part of a text in NFC is in NFC, so one look at all values at once clears most columns.
            rows = np.flatnonzero(~self.ascii)
            values = self.array.take(pa.array(rows)).to_pylist()
            mask[rows] |= np.fromiter((not is_normalized("NFC", value) for value in values), np.bool_, len(rows))
        return mask

    def _edges(self) -> Mask:
        """Values that start or end with a character F2 strips."""
        mask = np.zeros(self.size, np.bool_)
        rows = np.flatnonzero(self.lengths)
        if not len(rows):
            return mask
        starts = self.offsets[:-1][rows]
        ends = self.offsets[1:][rows] - 1
        # The byte beside a value of one byte may be a neighbour's: that only sends the value to the closer look below.
        doubt = _CAN_START[self.data[starts], self.data[np.minimum(starts + 1, len(self.data) - 1)]]
        doubt |= _CAN_END[self.data[ends], self.data[np.maximum(ends - 1, 0)]]
        for row in rows[doubt].tolist():
            value = self.bytes[self.offsets[row] : self.offsets[row + 1]]
            mask[row] = value.startswith(_STRIPPED) or value.endswith(_STRIPPED)
        return mask

    def matrix(self, rows: NDArray[np.int64], width: int) -> NDArray[np.uint8]:
        """The values of `rows`, all `width` bytes long, as a matrix of bytes."""
        return np.asarray(self.data[self.offsets[:-1][rows][:, None] + np.arange(width)])
