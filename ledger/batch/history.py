"""The fold of a stream: every version of every key, and which of them is live (design section 4).

Later beats earlier, a withdrawal removes; only the order of the batches matters, never the order of arrival. Arrays, not objects: a
stream of a million versions takes about 150 bytes a version.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ledger.kernel.sorting import TAG, TagIndex, order_of
from ledger.store.entryfile import NO_VERSION

Bytes2D = npt.NDArray[np.uint8]

COMMITMENT = slice(32, 64)  # inside an entry (formats F4)


@dataclass(frozen=True)
class Version:
    """One entry of a key: in which batch (index into the history's batches), at which index of that batch's sorted entries."""

    batch: int
    index: int
    withdrawn: bool
    entry: bytes

    @property
    def subject_tag(self) -> bytes:
        """The first 16 bytes of the entry."""
        return self.entry[:16]

    @property
    def commitment(self) -> bytes:
        """The last 32 bytes of the entry."""
        return self.entry[COMMITMENT]


@dataclass(frozen=True)
class _Fold:
    """The versions in the order of their tags, those of one key together, oldest first; `first` and `end` are where each key's begin and end
    in `order`, `latest` its last one. `index` finds a key's number."""

    order: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]
    end: npt.NDArray[np.int64]
    latest: npt.NDArray[np.int64]
    live: npt.NDArray[np.bool_]
    index: TagIndex


class History:
    """Versions of a stream's keys, from its batches' entries in stream order.

    `batches` is a sequence of (entries (n,64) uint8, withdrawn (n,) bool), oldest batch first. Keys are numbered 0…len-1 in the
    order of their tags; `lookup` gives these numbers for tags, -1 for a tag no batch carries. `row_versions`, if given, runs along
    with `batches`: (n,) each, None for a batch that has none.

    The fold is made when it is first needed, or by `prepare`; `of_tag` does without.
    """

    def __init__(
        self,
        batches: Sequence[tuple[Bytes2D, npt.NDArray[np.bool_]]],
        row_versions: Sequence[npt.NDArray[np.int64] | None] = (),
    ) -> None:
        sizes = [len(entries) for entries, _ in batches]
        if len(batches) == 1:
            entries = batches[0][0]  # no copy: the usual stream of one large batch stays one array
        else:
            entries = np.concatenate([np.zeros((0, 64), np.uint8), *(e for e, _ in batches)])
        self._sizes = sizes
        self._offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self._entries = entries
        self._withdrawn = np.concatenate([w for _, w in batches]) if sizes else np.zeros(0, np.bool_)
        self._batch = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        self._row_versions = row_versions

    @cached_property
    def _fold(self) -> _Fold:
        # Equal tags keep the order of their batches.
        order = order_of(self._entries[:, TAG])
        tags = np.ascontiguousarray(self._entries[order, TAG])
        # Whether two are the same does not depend on the order of a word's bytes.
        words = tags.view(np.uint64)
        first = np.ones(len(order), np.bool_)
        first[1:] = np.any(words[1:] != words[:-1], axis=1)
        del words
        start = np.flatnonzero(first)
        end = np.append(start, len(order))[1:]
        latest = order[end - 1]
        index = TagIndex(tags if len(start) == len(order) else tags[first])
        return _Fold(order, start, end, latest, ~self._withdrawn[latest], index)

    def prepare(self) -> None:
        """Make the fold now, for a history that is asked many times or by several threads."""
        _ = self._fold

    @property
    def live(self) -> npt.NDArray[np.bool_]:
        """Which keys the fold leaves, by number."""
        return self._fold.live

    @cached_property
    def row_versions(self) -> npt.NDArray[np.int64] | None:
        """For each key the row version of its latest entry, `NO_VERSION` where that is not known; None if none is."""
        if all(versions is None for versions in self._row_versions):
            return None
        parts = (
            np.full(size, NO_VERSION, np.int64) if versions is None else versions
            for size, versions in zip(self._sizes, self._row_versions, strict=True)
        )
        return np.concatenate(list(parts))[self._fold.latest]

    def __len__(self) -> int:
        return len(self._fold.first)

    def lookup(self, tags: Bytes2D) -> npt.NDArray[np.int64]:
        """Key numbers of `tags` (n,16); -1 where no batch carries the tag."""
        return self._fold.index.lookup(tags)

    def find(self, tag: bytes) -> int:
        """Key number of one tag, -1 if no batch carries it."""
        return int(self.lookup(np.frombuffer(tag, np.uint8).reshape(1, 16))[0])

    def matches(self, keys: npt.NDArray[np.int64], commitments: Bytes2D) -> npt.NDArray[np.bool_]:
        """For each known key: is it live and is its latest version exactly this commitment?"""
        latest = self._fold.latest[keys]
        same: npt.NDArray[np.bool_] = np.all(self._entries[latest, COMMITMENT] == commitments, axis=1)
        return same & self.live[keys]

    def versions(self, key: int) -> list[Version]:
        """All versions of a key, oldest first."""
        return [self._version(int(at)) for at in self._fold.order[self._fold.first[key] : self._fold.end[key]]]

    def of_tag(self, tag: bytes) -> list[Version]:
        """All versions of the key with this tag, oldest first; none if no batch carries it. For one tag it is quicker to look through the
        entries than to fold them."""
        if "_fold" in self.__dict__:
            key = self.find(tag)
            return self.versions(key) if key >= 0 else []
        words = self._entries.view(np.uint64)
        wanted = np.frombuffer(tag, np.uint64)
        found = np.flatnonzero(words[:, TAG.start // 8] == wanted[0])
        return [self._version(int(at)) for at in found if words[at, TAG.start // 8 + 1] == wanted[1]]

    def latest(self, key: int) -> Version:
        """The version that the fold leaves: live, unless it is a withdrawal."""
        return self._version(int(self._fold.latest[key]))

    def latest_batches(self) -> npt.NDArray[np.int32]:
        """For each key, the index of the batch that carries its latest version."""
        batches: npt.NDArray[np.int32] = self._batch[self._fold.latest]
        return batches

    def tag(self, key: int) -> bytes:
        """The key's tag, 16 bytes."""
        return self._entries[self._fold.latest[key], TAG].tobytes()

    def tags(self, keys: npt.NDArray[np.int64]) -> Bytes2D:
        """The tags of some keys, (n,16)."""
        tags: Bytes2D = np.ascontiguousarray(self._entries[self._fold.latest[keys], TAG])
        return tags

    def entries(self, keys: npt.NDArray[np.int64]) -> Bytes2D:
        """The latest entries of some keys, (n,64)."""
        entries: Bytes2D = self._entries[self._fold.latest[keys]]
        return entries

    def places(self, keys: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """Where the latest entries of some keys stand: the index of the batch, and of the entry in that batch."""
        latest = self._fold.latest[keys]
        batches: npt.NDArray[np.int32] = self._batch[latest]
        rows: npt.NDArray[np.int64] = latest - self._offsets[batches]
        return batches, rows

    def tails(self, keys: npt.NDArray[np.int64]) -> Bytes2D:
        """Tag and commitment of the latest version of some keys, (n,48)."""
        tails: Bytes2D = np.ascontiguousarray(self._entries[self._fold.latest[keys], TAG.start :])
        return tails

    def _version(self, at: int) -> Version:
        batch = int(self._batch[at])
        return Version(batch, int(at - self._offsets[batch]), bool(self._withdrawn[at]), self._entries[at].tobytes())
