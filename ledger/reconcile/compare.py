"""Rows of a source against the fold of a stream, one chunk after another, in bounded memory (design sections 3 and 4).

Every row gets exactly one status and every key at most one finding, the first kind that fits. Rows may come in any order. Only rows
that do not match are kept, and of rows that no batch knows the tag, so an untouched table costs a few bytes a key.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from ledger.batch.build import result_of
from ledger.batch.history import COMMITMENT, History, Version
from ledger.catalog import Catalog
from ledger.config import Origin
from ledger.errors import StoreError
from ledger.kernel.entries import Result
from ledger.kernel.sorting import TAG, TagIndex
from ledger.reconcile.findings import GONE, Counts, Finding, Kind
from ledger.reconcile.strangers import Gathering, ShownKeys, Sighting, Strangers, tails_of
from ledger.record import MASK, Unreadable
from ledger.store.entryfile import NO_VERSION


class _Status(IntEnum):
    UNSEEN = 0
    MATCHED = 1
    ACCEPTED = 2
    ALTERED = 3
    STALE = 4
    NOT_WITHDRAWN = 5
    UNREADABLE = 6
    UPDATED = 7


_KINDS = {
    _Status.ALTERED: Kind.ALTERED,
    _Status.STALE: Kind.STALE,
    _Status.NOT_WITHDRAWN: Kind.NOT_WITHDRAWN,
    _Status.UNREADABLE: Kind.UNREADABLE,
}


@dataclass(frozen=True)
class Comparison:
    """The outcome: balanced counts, findings sorted by key, and what is listed without being a finding.

    Rows that may be anchored, of own sources only, are told as (n,48), tag and commitment: `newly_seen`, no batch knows them;
    `updated`, their row version says that they were changed lawfully since they were anchored; `unversioned`, they match and were
    anchored without their row version. `accepted`, `updated_keys` and `newly_seen_keys` are masked keys for the report. `rows_outside` and `keys_outside` count what is not of the scope. `erased` are the tags of live keys that were erased here and
    whose row is gone.
    """

    counts: Counts
    findings: tuple[Finding, ...]
    accepted: tuple[Mapping[str, str], ...]
    newly_seen_keys: Sequence[Mapping[str, str]]
    newly_seen: npt.NDArray[np.uint8]
    updated_keys: tuple[Mapping[str, str], ...]
    updated: npt.NDArray[np.uint8]
    unversioned: npt.NDArray[np.uint8]
    rows_outside: int
    keys_outside: int
    erased: tuple[bytes, ...] = ()


# Gives the canonical bytes of an anchored version, or None where the archive does not hold them.
OpenVersion = Callable[[Version], bytes | None]
# Does an earlier batch, one that the history does not hold, carry this commitment under this key tag?
WasEarlier = Callable[[bytes, bytes], bool]


class Comparer:
    """Compares chunk after chunk with `add`, then `finish`.

    `numbers` names the history's batches; `accepted` holds the key numbers whose live version was made lawful by `accept`;
    `removed` counts accepted removals. With `show_values`, expected and observed are field values instead of commitments.
    `scope` marks the keys that were asked for, by key number (default: all): others are left out of both sums. `was_earlier` knows
    the versions before the history's. `erased` are key tags of records that were erased here: whatever the history says, none of
    their versions is live.
    """

    def __init__(
        self,
        catalog: Catalog,
        origin: Origin,
        history: History,
        numbers: Sequence[str],
        open_version: OpenVersion,
        *,
        accepted: Iterable[int] = (),
        removed: int = 0,
        show_values: bool = False,
        scope: npt.NDArray[np.bool_] | None = None,
        was_earlier: WasEarlier | None = None,
        erased: frozenset[bytes] = frozenset(),
    ) -> None:
        self._catalog = catalog
        self._origin = origin
        self._history = history
        self._numbers = numbers
        self._open = open_version
        self._show_values = show_values
        self._removed = removed
        self._scope = scope
        self._was_earlier = was_earlier
        self._outside = 0
        self._erased = np.zeros(len(history), np.bool_)
        if erased:
            found = history.lookup(np.frombuffer(b"".join(sorted(erased)), np.uint8).reshape(-1, 16))
            self._erased[found[found >= 0]] = True
        self._live = history.live & ~self._erased
        self._accepted = np.zeros(len(history), np.bool_)
        self._accepted[list(accepted)] = True
        self._seen = np.zeros(len(history), np.uint32)
        self._status = np.zeros(len(history), np.uint8)
        self._unversioned = np.zeros(len(history), np.bool_)
        self._sightings: dict[int, Sighting] = {}
        self._strangers = Gathering(show_values=show_values)
        self._unreadable: list[tuple[bytes, Sighting]] = []  # of keys that no batch knows
        self._keyless: list[Sighting] = []
        self._rows = 0

    def add(
        self,
        total: int,
        numbers: npt.NDArray[np.int64],
        result: Result,
        *,
        row_versions: npt.NDArray[np.int64] | None = None,
        claimed: npt.NDArray[np.bool_] | None = None,
    ) -> npt.NDArray[np.int64]:
        """Take in one chunk of `total` rows; `numbers` are their line or row numbers, `result` the kernel's. Returns at which places of the
        result (of the rows of the scope) a row stands that may be anchored, now or once somebody accepts it.

        `row_versions` are those of the rows, if the source has them. `claimed` marks the rows that say they are of the scope: it
        decides where the key is unknown.
        """
        if self._scope is not None:
            keep = self._of_scope(self._scope, len(numbers), result, claimed)
            self._outside += total - int(keep.sum())
            total, result = int(keep.sum()), result_of(result, keep)
        self._rows += total
        tags = np.ascontiguousarray(result.entries[:, TAG])
        commitments = result.entries[:, COMMITMENT]
        keys = self._history.lookup(tags)
        known = keys >= 0
        changed = self._add_known(np.flatnonzero(known), keys, commitments, numbers, result, row_versions)
        unknown = np.flatnonzero(~known)
        if len(unknown):
            self._strangers.add(unknown, numbers, result)
        self._add_refused(numbers, result)
        return np.concatenate([changed, unknown])

    def expected(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
        """The keys of which one row with the live commitment matches and needs no further look; tag and commitment of each (n,48); and
        of which of them a row that has a row version needs one."""
        keys = np.flatnonzero(self._live & ~self._accepted)
        fresh = np.ones(len(keys), np.bool_)
        if self._history.row_versions is not None:
            fresh = self._history.row_versions[keys] == NO_VERSION
        return keys, self._history.tails(keys), fresh

    def add_matched(self, keys: npt.NDArray[np.int64]) -> None:
        """Take in one row of each of `keys`, that matches as `expected` says."""
        if self._scope is not None:
            asked = self._scope[keys]
            self._outside += int(np.count_nonzero(~asked))
            keys = keys[asked]
        self._rows += len(keys)
        self._seen[keys] += 1
        self._status[keys] = _Status.MATCHED

    def _of_scope(
        self, scope: npt.NDArray[np.bool_], size: int, result: Result, claimed: npt.NDArray[np.bool_] | None
    ) -> npt.NDArray[np.bool_]:
        """Which rows of a chunk are of the scope: by their key, if a batch knows it, else by what they say themselves."""
        keep = np.zeros(size, np.bool_) if claimed is None else claimed.copy()
        keys = self._history.lookup(np.ascontiguousarray(result.entries[:, TAG]))
        known = keys >= 0
        keep[result.rows[known]] = scope[keys[known]]
        for row, (tag, _) in result.refused_keys.items():
            key = self._history.find(tag)
            if key >= 0:
                keep[row] = scope[key]
        return keep

    def _add_known(
        self,
        rows: npt.NDArray[np.int64],
        keys: npt.NDArray[np.int64],
        commitments: npt.NDArray[np.uint8],
        numbers: npt.NDArray[np.int64],
        result: Result,
        row_versions: npt.NDArray[np.int64] | None,
    ) -> npt.NDArray[np.int64]:
        """Which of `rows` do not simply match, or match and are to be anchored again."""
        known = keys[rows]
        fresh = np.zeros(len(known), np.bool_)
        matches = self._history.matches(known, commitments[rows]) & ~self._erased[known]
        status = np.where(self._accepted[known], _Status.ACCEPTED, _Status.MATCHED).astype(np.uint8)
        if row_versions is not None:
            observed = row_versions[result.rows[rows]]
            anchored = np.full(len(known), NO_VERSION)
            if self._history.row_versions is not None:
                anchored = self._history.row_versions[known]
            # NO_VERSION is below every version: a row without one is never newer. Against an unknown version nothing is.
            newer = (anchored != NO_VERSION) & (observed > anchored)
            status[~matches & newer & self._live[known]] = _Status.UPDATED
            fresh = (status == _Status.MATCHED) & matches & (anchored == NO_VERSION) & (observed != NO_VERSION)
            self._unversioned[known[fresh]] = True
        for at in np.flatnonzero(~matches & (status != _Status.UPDATED)):
            status[at] = self._differing(int(known[at]), commitments[rows[at]].tobytes())
        first_time = self._seen[known] == 0
        self._status[known[first_time]] = status[first_time]
        # Of the array's own type: with a number of Python's each is converted first, at fifty times the cost.
        np.add.at(self._seen, known, np.uint32(1))
        kept = np.flatnonzero((status != _Status.MATCHED) | (self._seen[known] > 1))
        self._sightings.update(zip(known[kept].tolist(), self._sightings_of(rows[kept], numbers, result), strict=True))
        changed: npt.NDArray[np.int64] = rows[~matches | fresh]
        return changed

    def _differing(self, key: int, commitment: bytes) -> _Status:
        if not self._live[key]:
            return _Status.NOT_WITHDRAWN
        earlier = self._history.versions(key)[:-1]
        if any(not version.withdrawn and version.commitment == commitment for version in earlier):
            return _Status.STALE
        if self._was_earlier is not None and self._was_earlier(self._history.tag(key), commitment):
            return _Status.STALE
        return _Status.ALTERED

    def _add_refused(self, numbers: npt.NDArray[np.int64], result: Result) -> None:
        for row, unreadable in result.refused.items():
            tag, record_key = result.refused_keys.get(row, (None, b""))
            sighting = Sighting(int(numbers[row]), record_key, None, None, unreadable)
            if tag is None:
                self._keyless.append(sighting)
                continue
            key = self._history.find(tag)
            if key < 0:
                self._unreadable.append((tag, sighting))
                continue
            if self._seen[key] == 0:
                self._status[key] = _Status.UNREADABLE
            self._seen[key] += 1
            self._sightings[key] = sighting

    def _sightings_of(
        self, places: npt.NDArray[np.int64], numbers: npt.NDArray[np.int64], result: Result
    ) -> list[Sighting]:
        if not len(places):
            return []
        part = result.part(places)
        opened = part.canonical.to_pylist() if self._show_values else [None] * len(places)
        return [
            Sighting(number, record_key, entry[COMMITMENT].tobytes(), canonical, None)
            for number, record_key, entry, canonical in zip(
                numbers[part.rows].tolist(), part.record_keys.to_pylist(), part.entries, opened, strict=True
            )
        ]

    def finish(self) -> Comparison:
        """Findings and counts of everything added."""
        asked = np.ones(len(self._history), np.bool_) if self._scope is None else self._scope
        live = self._live & asked
        erased = self._history.live & self._erased & asked & (self._seen == 0)
        once = self._seen == 1
        several = self._seen > 1
        missing = live & (self._seen == 0)
        unknown = self._group_unknown()
        findings = [self._known_finding(int(key)) for key in np.flatnonzero(several | (once & self._has_finding()))]
        findings += [self._missing_finding(int(key)) for key in np.flatnonzero(missing)]
        findings += unknown.findings
        findings += [
            self._finding(Kind.UNREADABLE, s, key=None, row=s.number, reason=s.unreadable) for s in self._keyless
        ]
        status = {s: int(np.count_nonzero(once & (self._status == s))) for s in _Status}
        unseen_own = self._origin == "own"
        counts = Counts(
            source=self._rows,
            ledger=int(np.count_nonzero(live)),
            matched=status[_Status.MATCHED],
            accepted=status[_Status.ACCEPTED],
            updated=status[_Status.UPDATED],
            altered=status[_Status.ALTERED],
            stale=status[_Status.STALE],
            not_withdrawn=status[_Status.NOT_WITHDRAWN],
            missing=int(np.count_nonzero(missing)),
            unanchored=0 if unseen_own else len(unknown.single),
            newly_seen=len(unknown.single) if unseen_own else 0,
            unreadable=status[_Status.UNREADABLE] + len(self._keyless) + unknown.unreadable,
            duplicate=int(np.count_nonzero(several)) + unknown.duplicates,
            duplicate_rows=int(self._seen[several].sum()) + unknown.duplicate_rows,
            duplicate_anchored=int(np.count_nonzero(several & live)),
            unreadable_anchored=int(np.count_nonzero(once & live & (self._status == _Status.UNREADABLE))),
            accepted_removals=self._removed,
            erased=int(np.count_nonzero(erased)),
        )
        accepted = once & (self._status == _Status.ACCEPTED)
        updated = once & (self._status == _Status.UPDATED)
        changed = [self._sightings[int(key)] for key in np.flatnonzero(updated)]
        return Comparison(
            counts,
            tuple(sorted(findings, key=lambda f: (f.sort_key, f.row or 0, f.kind))),
            accepted=self._shown_keys(self._sightings[int(key)] for key in np.flatnonzero(accepted)),
            newly_seen_keys=ShownKeys(unknown.single.record_keys, self._masked) if unseen_own else (),
            newly_seen=unknown.single.tails if unseen_own else np.zeros((0, 48), np.uint8),
            updated_keys=self._shown_keys(changed),
            updated=tails_of(self._history.tags(np.flatnonzero(updated)), changed),
            unversioned=self._history.tails(
                np.flatnonzero(once & (self._status == _Status.MATCHED) & self._unversioned)
            ),
            rows_outside=self._outside,
            keys_outside=int(np.count_nonzero(self._live)) - int(np.count_nonzero(live)),
            erased=tuple(sorted(self._history.tag(int(key)) for key in np.flatnonzero(erased))),
        )

    def _has_finding(self) -> npt.NDArray[np.bool_]:
        found: npt.NDArray[np.bool_] = np.isin(self._status, [int(status) for status in _KINDS])
        return found

    def _known_finding(self, key: int) -> Finding:
        sighting = self._sightings[key]
        latest = self._history.latest(key)
        tag = self._history.tag(key).hex()
        expected = latest if self._live[key] else None
        if self._seen[key] > 1:
            return self._finding(
                Kind.DUPLICATE,
                sighting,
                expected=expected,
                batch=latest,
                rows=int(self._seen[key]),
                observed=False,
                tag=tag,
            )
        kind = _KINDS[_Status(int(self._status[key]))]
        finding = self._finding(kind, sighting, expected=expected, batch=latest, reason=sighting.unreadable, tag=tag)
        return replace(finding, reason=self._why_gone(key, latest)) if kind is Kind.NOT_WITHDRAWN else finding

    def _why_gone(self, key: int, latest: Version) -> Mapping[str, str] | None:
        """Why a row should not be there; None where the archive does not hold the withdrawal."""
        if self._erased[key]:
            return GONE["erased_here"]
        canonical = self._open(latest)
        return None if canonical is None else GONE.get(str(json.loads(canonical).get("withdrawn")))

    def _missing_finding(self, key: int) -> Finding:
        latest = self._history.latest(key)
        canonical = self._open(latest)
        shown: object = latest.commitment.hex()
        if self._show_values and canonical is not None:
            shown = self._shown_values(canonical)
        values = None if canonical is None else _record(canonical)
        names = self._catalog.key
        return Finding(
            Kind.MISSING,
            key=None if values is None else self._masked({name: values[name] for name in names}),
            key_tag=self._history.tag(key).hex(),
            expected=shown,
            batch=self._numbers[latest.batch],
            sort_key=("~", self._history.tag(key).hex()) if values is None else ("", *(str(values[n]) for n in names)),
        )

    def _finding(
        self,
        kind: Kind,
        sighting: Sighting,
        *,
        key: bool | None = True,
        expected: Version | None = None,
        batch: Version | None = None,
        row: int | None = None,
        rows: int = 1,
        observed: bool = True,
        reason: Unreadable | None = None,
        tag: str | None = None,
    ) -> Finding:
        shown_expected: object = None if expected is None else expected.commitment.hex()
        shown_observed: object = sighting.commitment.hex() if observed and sighting.commitment is not None else None
        if self._show_values:
            opened = None if expected is None else self._open(expected)
            shown_expected = shown_expected if opened is None else self._shown_values(opened)
            if observed and sighting.canonical is not None:
                shown_observed = self._shown_values(sighting.canonical)
        values = json.loads(sighting.record_key)["key"] if key else {}
        return Finding(
            kind,
            key=self._masked(values) if key else None,
            row=row,
            rows=rows,
            expected=shown_expected,
            observed=shown_observed,
            batch=None if batch is None else self._numbers[batch.batch],
            reason=None
            if reason is None
            else {"field": reason.field, "value": reason.value, "code": reason.code, "zh": reason.zh, "en": reason.en},
            key_tag=tag,
            sort_key=("", *(str(values[name]) for name in self._catalog.key)) if key else ("~~",),
        )

    def _group_unknown(self) -> _Unknown:
        strangers = self._strangers.finish()
        single, several = strangers.groups()
        spoilt: dict[bytes, list[Sighting]] = {}
        for tag, sighting in self._unreadable:
            spoilt.setdefault(tag, []).append(sighting)
        readable = {strangers.tails[group[0], :16].tobytes(): group for group in several}
        if spoilt:
            # A key that stands once as a row that can be read, and again as one that cannot, stands several times.
            index = TagIndex(np.ascontiguousarray(strangers.tails[single, :16]))
            found = index.lookup(np.frombuffer(b"".join(spoilt), np.uint8).reshape(-1, 16))
            for tag, at in zip(spoilt, found.tolist(), strict=True):
                if at >= 0:
                    readable[tag] = single[at : at + 1]
            single = np.delete(single, found[found >= 0])
        out = _Unknown(strangers.part(single), [], 0, 0, 0)
        for tag in sorted({*readable, *spoilt}):
            group, others = readable.get(tag, np.zeros(0, np.int64)), spoilt.get(tag, [])
            rows = len(group) + len(others)
            sighting = strangers.sighting(int(group[0])) if len(group) else others[0]
            if rows > 1:
                out.duplicates += 1
                out.duplicate_rows += rows
                finding = self._finding(Kind.DUPLICATE, sighting, rows=rows, observed=False, tag=tag.hex())
            else:
                out.unreadable += 1
                finding = self._finding(Kind.UNREADABLE, sighting, reason=sighting.unreadable, tag=tag.hex())
            out.findings.append(finding)
        if self._origin == "delivery":
            out.findings += [
                self._finding(Kind.UNANCHORED, out.single.sighting(at), tag=out.single.tails[at, :16].tobytes().hex())
                for at in range(len(out.single))
            ]
        return out

    def _shown_values(self, canonical: bytes) -> Mapping[str, str | None]:
        return self._masked(_record(canonical))

    def _shown_keys(self, sightings: Iterable[Sighting]) -> tuple[Mapping[str, str], ...]:
        ordered = sorted(sightings, key=lambda s: s.record_key)
        return tuple(self._masked(json.loads(s.record_key)["key"]) for s in ordered)

    def _masked(self, values: Mapping[str, str]) -> dict[str, str]:
        return {
            name: MASK if value is not None and self._catalog.by_name[name].personal else value
            for name, value in values.items()
        }


@dataclass
class _Unknown:
    """Rows whose tag no batch carries: those whose key stands once, and the findings of the others."""

    single: Strangers
    findings: list[Finding]
    duplicates: int
    duplicate_rows: int
    unreadable: int


def _record(canonical: bytes) -> Mapping[str, str]:
    document = json.loads(canonical)
    if "record" not in document:
        raise StoreError(
            "store.withdrawal_flag",
            "条目文件把一条撤回当作记录；请运行 duizhang fsck",
            "an entry file takes a withdrawal for a record; run duizhang fsck",
        )
    values: Mapping[str, str] = document["record"]
    return values
