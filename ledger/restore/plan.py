"""What `restore` would do: for each altered, stale, unreadable or missing row, the fields to set and the values they must still hold.

The archived record of the key's live version opens the anchored commitment, so what is put back is what was anchored. Only fields whose
normal form differs are set: delivered formatting that means the same stays, and so does every column outside the catalog.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ledger.batch.job import Job
from ledger.batch.keyarg import key_label, parse_key_argument
from ledger.catalog import Catalog
from ledger.errors import InputError
from ledger.kernel.chunk import Chunk
from ledger.kernel.entries import Kernel
from ledger.keys import CatalogKeys
from ledger.progress import watched
from ledger.reconcile.findings import Finding, Kind
from ledger.reconcile.source import Reading, Reconciliation, read_and_compare
from ledger.record import MASK, Refusal, normal, record_key

RESTORABLE = (Kind.ALTERED, Kind.STALE, Kind.UNREADABLE, Kind.MISSING)
"""Other findings are not a matter of values: which of two rows goes, or whether a row goes, is for a person to say."""


@dataclass(frozen=True)
class Change:
    """One field: what its column holds (as text, None for NULL) and the normal form it is to get."""

    field: str
    observed: str | None
    expected: str | None


@dataclass(frozen=True)
class Item:
    """One row to put right. `observed` holds all declared fields as they were read, None for a missing row; `changes` are the
    fields to set (all of them for a missing row). `entry` is what the row must give afterwards."""

    kind: Kind
    key_tag: bytes
    key: Mapping[str, str]
    batch: str
    expected: Mapping[str, str | None]
    observed: Mapping[str, str | None] | None
    changes: tuple[Change, ...]
    entry: bytes


@dataclass(frozen=True)
class LeftOut:
    """A finding that cannot be restored, and why."""

    finding: Finding
    zh: str
    en: str


@dataclass(frozen=True)
class Plan:
    """All of it, from one consistent read; `report` is the reconciliation it rests on, with the places of the table."""

    catalog: Catalog
    keys: CatalogKeys = field(repr=False)
    report: Reconciliation = field(repr=False)
    items: tuple[Item, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

    def shown(self, name: str, value: str | None) -> str | None:
        """A value for people: masked if the field is personal."""
        return MASK if value is not None and self.catalog.by_name[name].personal else value

    def label(self, item: Item) -> str:
        """The item's key for a message."""
        return key_label(self.catalog, item.key)


def make_plan(job: Job, catalog: Catalog, keys: Sequence[str] = ()) -> Plan:
    """Read the source, compare, and open the archive for every row that can be put right; `keys` (as on the command line) narrows it.

    InputError `restore.*` for a key that has no finding to restore, a catalog without archive, or batches whose content is not known
    here.
    """
    if not catalog.archive:
        raise InputError(
            "restore.no_archive",
            f"目录 {catalog.id} 关闭了归档（archive = false），没有可供恢复的内容",
            f"catalog {catalog.id} switches the archive off (archive = false): there is nothing to restore from",
            catalog.id,
        )
    with read_and_compare(job, catalog) as reading:
        _require_certain(reading, catalog)
        history = reading.ledger.history
        wanted = _wanted(reading, catalog, keys)
        observed = _observed(reading, wanted)
        items: list[Item] = []
        left_out: list[LeftOut] = []
        with job.book.opener(reading.ledger.known, catalog, reading.keys) as open_version:
            for finding in reading.comparison.findings:
                tag = bytes.fromhex(finding.key_tag) if finding.key_tag else b""
                if keys and tag not in wanted:
                    continue
                if tag not in wanted:
                    left_out.append(_not_restorable(finding))
                    continue
                key = history.find(tag)
                version = history.latest(key)
                canonical = open_version(version)
                row = observed.get(tag)
                if canonical is None:
                    left_out.append(LeftOut(finding, "归档中没有该版本", "the archive does not hold this version"))
                elif finding.kind is not Kind.MISSING and row is None:
                    left_out.append(
                        LeftOut(
                            finding,
                            "现值不是文字，无法确认写入前未变；请人工改正",
                            "what the row holds is no text, so nobody could tell whether it still holds it: mend it by hand",
                        )
                    )
                else:
                    expected: dict[str, str | None] = json.loads(canonical)["record"]
                    number = reading.ledger.numbers[version.batch]
                    items.append(_item(catalog, finding, tag, expected, row, number, version.entry))
        return Plan(catalog, reading.keys, reading.report, tuple(items), tuple(left_out))


def _require_certain(reading: Reading, catalog: Catalog) -> None:
    """What looks altered or missing may be what an unknown batch brought: putting it back would undo a lawful delivery."""
    if reading.ledger.open:
        numbers = ", ".join(batch.descriptor.batch for batch in reading.ledger.open)
        raise InputError(
            "restore.open_batches",
            f"批次 {numbers} 已宣告而本方尚未接收，现有差异可能正是其内容；请先 receive，再恢复",
            f"batches {numbers} were announced and are not known here: what differs may be what they brought. Receive them first",
            catalog.id,
        )


def _wanted(reading: Reading, catalog: Catalog, keys: Sequence[str]) -> set[bytes]:
    live = {
        bytes.fromhex(finding.key_tag): finding
        for finding in reading.comparison.findings
        if finding.key_tag is not None and finding.kind in RESTORABLE
    }
    # An unreadable row of a key that no batch carries, or that was withdrawn, has no version to go back to.
    history = reading.ledger.history
    erased = reading.ledger.erased
    live = {
        tag: f for tag, f in live.items() if (key := history.find(tag)) >= 0 and history.live[key] and tag not in erased
    }
    if not keys:
        return set(live)
    chosen: set[bytes] = set()
    for text in keys:
        values = parse_key_argument(catalog, text)
        tag = reading.keys.key_tag(record_key(catalog, values))
        label = key_label(catalog, values)
        if tag in erased:
            raise InputError(
                "restore.erased",
                f"记录 {label} 的原文已在本方删除，不予恢复",
                f"record {label} was erased here: nothing brings it back",
                "KEY",
            )
        if tag not in live:
            raise InputError(
                "restore.nothing",
                f"记录 {label} 没有可恢复的差异（{'、'.join(RESTORABLE)}）",
                f"record {label} has no difference that can be restored ({', '.join(RESTORABLE)})",
                "KEY",
            )
        chosen.add(tag)
    return chosen


def _observed(reading: Reading, wanted: set[bytes]) -> dict[bytes, dict[str, str | None]]:
    """The rows of the wanted keys as text, field by field, from the same consistent read."""
    found: dict[bytes, dict[str, str | None]] = {}
    if not wanted:
        return found
    kernel = Kernel(reading.catalog, reading.keys)
    for chunk in watched(
        "查看要恢复的行", "looking at the rows to restore", reading.table.scan(), reading.table.about_rows
    ):
        for row, tag in rows_of(kernel, chunk, wanted):
            found[tag] = texts_of(chunk, row)
    return found


def rows_of(kernel: Kernel, chunk: Chunk, wanted: Collection[bytes]) -> Iterator[tuple[int, bytes]]:
    """(row, key tag) of the rows of a chunk whose key is wanted and whose values were all read as text."""
    keys = kernel.keys_of(chunk, range(len(chunk)))
    for row, tag in zip(keys.rows.tolist(), keys.key_tags, strict=True):
        if (data := tag.tobytes()) in wanted:
            yield row, data


def texts_of(chunk: Chunk, row: int) -> dict[str, str | None]:
    """The declared fields of a row as they were read, not yet in normal form."""
    return {name: column[row].as_py() for name, column in chunk.fields.items()}


def _item(
    catalog: Catalog,
    finding: Finding,
    tag: bytes,
    expected: Mapping[str, str | None],
    observed: Mapping[str, str | None] | None,
    batch: str,
    entry: bytes,
) -> Item:
    key = {name: str(expected[name]) for name in catalog.key}
    changes = tuple(
        Change(field.name, None if observed is None else observed[field.name], expected[field.name])
        for field in catalog.fields
        if observed is None or _normal(catalog, field.name, observed[field.name]) != expected[field.name]
    )
    return Item(finding.kind, tag, key, batch, dict(expected), observed, changes, entry)


def _normal(catalog: Catalog, name: str, text: str | None) -> str | Refusal | None:
    try:
        return normal(text, catalog.by_name[name], catalog)
    except Refusal as refusal:
        return refusal


def _not_restorable(finding: Finding) -> LeftOut:
    if finding.kind is Kind.NOT_WITHDRAWN and finding.reason is not None:
        return LeftOut(finding, finding.reason["zh"], finding.reason["en"])
    zh, en = {
        Kind.DUPLICATE: ("同一主键有多行：请人工删去多余的行", "several rows of one key: remove all but one by hand"),
        Kind.NOT_WITHDRAWN: ("已撤回：请人工删除该行", "it was withdrawn: delete the row by hand"),
        Kind.UNANCHORED: ("从未下发：没有可恢复的版本", "it was never sent: there is no version to go back to"),
    }.get(
        finding.kind,
        ("主键无法读取，或没有有效的上链版本", "its key cannot be read, or it has no live anchored version"),
    )
    return LeftOut(finding, zh, en)
