"""Where the plaintext of a record stands that is not the ledger's to remove: the source, and files that lie in the workspace.

Delivered files, briefs, quarantine and proof files are looked through as text and, where they hold records of the catalog, row by row.
Nothing is changed. What could not be looked into is said, never taken for clean.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ledger.batch.job import Job
from ledger.catalog import Catalog
from ledger.erase.named import Named
from ledger.errors import InputError, LedgerError, SourceError, StoreError
from ledger.kernel.chunk import Chunk
from ledger.kernel.entries import Kernel
from ledger.progress import watched
from ledger.source.compressed import open_stream
from ledger.source.files import ReadOptions, open_file
from ledger.workspace import Workspace

_STEP = 8 << 20
_ENCODINGS = ("utf-8", "gb18030")


@dataclass(frozen=True)
class Traces:
    """`rows` counts each record's rows in the source by record key, empty where no source is configured, None where it could not be
    looked at (`why`, zh and en).

    `holding` are the workspace's files that hold a record (its key, as far as a text tells), `unread` those nobody could look into;
    relative to the workspace, sorted.
    """

    rows: Mapping[bytes, int] | None
    why: tuple[str, str] | None
    holding: tuple[str, ...]
    unread: tuple[str, ...]


def look(job: Job, catalog: Catalog, wanted: Sequence[Named]) -> Traces:
    """Read the catalog's source and every file of the workspace that could hold one of the records."""
    kernel = Kernel(catalog, job.workspace.exchange_key().for_catalog(catalog))
    rows: dict[bytes, int] | None = {}
    why = None
    try:
        if catalog.id in job.workspace.config.sources:
            rows = _in_source(job.workspace, catalog, kernel, wanted)
    except (InputError, SourceError) as error:
        rows, why = None, (error.zh, error.en)
    holding: list[str] = []
    unread: list[str] = []
    for (path,) in watched(
        "查看工作区文件", "looking at the workspace's files", ((it,) for it in _files(job, catalog))
    ):
        found = _holds(job.workspace, catalog, kernel, path, wanted)
        if found is not False:
            (unread if found is None else holding).append(str(path.relative_to(job.workspace.root)))
    return Traces(rows, why, tuple(sorted(holding)), tuple(sorted(unread)))


def _in_source(workspace: Workspace, catalog: Catalog, kernel: Kernel, wanted: Sequence[Named]) -> dict[bytes, int]:
    rows = {named.record_key: 0 for named in wanted}
    with workspace.open_source(catalog) as table:
        for chunk in watched("查看数据源", "looking at the source", table.scan(), table.about_rows):
            for key in _keys_of(kernel, chunk):
                if key in rows:
                    rows[key] += 1
    return rows


def _keys_of(kernel: Kernel, chunk: Chunk) -> list[bytes]:
    keys: list[bytes] = kernel.keys_of(chunk, range(len(chunk))).record_keys.to_pylist()
    return keys


def _files(job: Job, catalog: Catalog) -> Iterator[Path]:
    """Files that may hold records of the catalog: not the ledger's own, not deliveries of other catalogs."""
    workspace = job.workspace
    root = workspace.root
    own = {root / name for name in ("entries", "archive", "keys")} | {workspace.chain_home, root / "chain"}
    store = job.store.path
    files = set() if store is None else {store, *(store.with_name(store.name + end) for end in ("-wal", "-shm"))}

    def failed(error: OSError) -> None:
        raise StoreError(
            "erase.folder",
            f"无法查看文件夹 {error.filename}（{error.strerror}）；未删除任何内容",
            f"the folder {error.filename} cannot be looked at ({error.strerror}); nothing was erased",
            str(error.filename),
        )

    for folder, names, found in os.walk(root, onerror=failed):
        here = Path(folder)
        names[:] = sorted(
            name
            for name in names
            if here / name not in own and not (here.parent == root / "inbox" and name != catalog.id)
        )
        for name in sorted(found):
            path = here / name
            if path not in files and path != root / "lock" and path.is_file():
                yield path


def _holds(workspace: Workspace, catalog: Catalog, kernel: Kernel, path: Path, wanted: Sequence[Named]) -> bool | None:
    """True if a record stands in the file, None if nobody can tell."""
    packed = _is_packed(path)
    if packed is None:
        return None
    in_text = None if packed else _in_text(path, wanted)
    if in_text:
        return True
    in_rows = _in_rows(workspace, catalog, kernel, path, wanted)
    # A text that holds no rows of ours was looked through all the same; a workbook that cannot be read was not.
    return in_text if in_rows is None else in_rows


def _is_packed(path: Path) -> bool | None:
    """Whether a file keeps its text where a search does not find it (a ZIP, a Parquet file); None if it cannot be opened."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError:
        return None
    return start.startswith(
        (b"PK\x03\x04", b"PAR1", b"PARE", bytes.fromhex("d0cf11e0"), b"%PDF", b"7z\xbc\xaf", b"Rar!")
    )


def _in_rows(
    workspace: Workspace, catalog: Catalog, kernel: Kernel, path: Path, wanted: Sequence[Named]
) -> bool | None:
    """Whether the file, read as a delivery of the catalog, has a row of one of the records; None if it is none."""
    source = workspace.config.sources.get(catalog.id)
    told = None if source is None else source.file
    names = {named.record_key for named in wanted}
    options = [ReadOptions(encoding) for encoding in _ENCODINGS]
    if told is not None:
        options.insert(0, ReadOptions(told.encoding, told.operation_column, told.sheet, told.header_row))
    for option in options:
        try:
            with open_file(path, catalog, option) as file:
                return any(key in names for chunk in file.scan() for key in _keys_of(kernel, chunk))
        except LedgerError:
            continue
    return None


def _in_text(path: Path, wanted: Sequence[Named]) -> bool | None:
    """Whether all values of a record's key stand in the file's text, unpacked if it is compressed."""
    needles = {
        (at, name): list(_needles(value)) for at, named in enumerate(wanted) for name, value in named.values.items()
    }
    seen: set[tuple[int, str]] = set()
    overlap = 2 + max(
        len(needle) for named in wanted for value in named.values.values() for needle, _ in _needles(value)
    )
    kept = b""
    try:
        stream = open_stream(path)
        try:
            while data := stream.read(_STEP):
                data = kept + data
                # The bare search is many times faster, and nearly always the answer is no.
                seen |= {
                    it
                    for it, each in needles.items()
                    if it not in seen and any(n in data and p.search(data) for n, p in each)
                }
                kept = data[-overlap:]
        finally:
            stream.close()
    except (LedgerError, OSError):
        return None
    return any(all((at, name) in seen for name in named.values) for at, named in enumerate(wanted))


def _needles(value: str) -> Iterator[tuple[bytes, re.Pattern[bytes]]]:
    """The value as files write it, and what a place where it stands looks like."""
    forms = {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
    for form in sorted(forms):
        for encoding in _ENCODINGS:
            needle = form.encode(encoding, "surrogatepass")
            # Letters and digits beside it make it another value.
            yield needle, re.compile(rb"(?<![0-9A-Za-z])" + re.escape(needle) + rb"(?![0-9A-Za-z])")
    needle = value.encode("utf-16-le", "surrogatepass")
    yield needle, re.compile(re.escape(needle))
    needle = value.encode("utf-8", "surrogatepass").hex().encode()
    yield needle, re.compile(needle if len(needle) >= 2 * _LONG else _HEX_BEFORE + needle + _HEX_AFTER)


_LONG = 6
"""Bytes of a value whose hex no address or hash holds by chance. That of a shorter one counts where the value begins and ends there."""
# Nothing of the number, or what stands beside a value in JSON, CSV and the like: " , tab LF CR ; | '
_BESIDE = rb"22|2c|09|0a|0d|3b|7c|27"
_HEX_BEFORE = rb"(?:(?<![0-9a-f])|(?<=" + _BESIDE.replace(b"|", b")|(?<=") + rb"))"
_HEX_AFTER = rb"(?=" + _BESIDE + rb"|[^0-9a-f]|\Z)"
