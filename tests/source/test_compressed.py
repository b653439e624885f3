"""Compressed CSV, and what a file is by its content and its name."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from ledger.catalog import Catalog
from ledger.errors import InputError
from ledger.source import compressed
from ledger.source.csvfile import open_csv
from ledger.source.files import ReadOptions, bare_name, open_file
from tests.source.workbooks import row, sheet, text, workbook

HEADER = "no,holder,fee,decided\n"
ROW = "1,甲,2,2024-01-01\n"


def zstd(data: bytes) -> bytes:
    return pa.Codec("zstd").compress(data, asbytes=True)  # type: ignore[no-any-return]


PACK: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstd,
}  # fmt: skip
FORMATS = pytest.mark.parametrize("format", PACK)


def read(path: Path, catalog: Catalog, **options: int | str) -> list[tuple[str | None, ...]]:
    with open_file(path, catalog, ReadOptions(**options)) as file:  # type: ignore[arg-type]
        first = [
            row for chunk in file.scan() for row in zip(*(c.to_pylist() for c in chunk.fields.values()), strict=True)
        ]
        assert sum(len(chunk) for chunk in file.scan()) == len(first)
    return first


def refusal(path: Path, catalog: Catalog, data: bytes | None = None, **options: int | str) -> InputError:
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        read(path, catalog, **options)
    assert caught.value.zh
    assert str(path) in caught.value.where
    return caught.value


@FORMATS
def test_a_compressed_file_is_the_file(tmp_path: Path, fines: Catalog, format: str) -> None:
    path, pack = tmp_path / f"f.csv.{format}", PACK[format]
    data = (HEADER + "".join(f"{n},甲{n},2,2024-01-01\n" for n in range(50_000))).encode()
    path.write_bytes(pack(data))
    whole = read(path, fines)
    assert (len(whole), whole[-1]) == (50_000, ("49999", "甲49999", "2", "2024-01-01"))
    # Several streams one after the other, cut in the middle of a character, one of them empty.
    cut = data.index("甲".encode()) + 1
    path.write_bytes(pack(data[:cut]) + pack(b"") + pack(data[cut:]))
    assert read(path, fines) == whole
    path.write_bytes(pack((HEADER + ROW).encode("gb18030")))
    assert read(path, fines, encoding="gb18030") == [("1", "甲", "2", "2024-01-01")]


@FORMATS
def test_what_is_not_one_whole_stream_is_refused(tmp_path: Path, fines: Catalog, format: str) -> None:
    path, pack = tmp_path / f"f.csv.{format}", PACK[format]
    # Random digits, so that the packed data are long enough to be cut and damaged in the middle.
    data = (HEADER + "".join(f"{os.urandom(8).hex()},甲,2,2024-01-01\n" for _ in range(5_000))).encode()
    good = pack(data)
    for short in (good[:-1], good[:-4], good[: len(good) // 2], good + good[:9]):
        assert refusal(path, fines, short).code == (
            "compressed.trailing" if (format, len(short)) == ("bz2", len(good) + 9) else "compressed.truncated"
        )
    for more in (b"\n", b"\0" * 32, b"x" * 5_000, (HEADER + ROW).encode()):
        assert refusal(path, fines, good + more).code in ("compressed.trailing", "compressed.damaged")
    if format != "zst":
        # A frame of zstd need not bear a checksum; the root of the batch tells.
        middle = len(good) // 2
        bad = good[:middle] + bytes(byte ^ 0x5A for byte in good[middle : middle + 8]) + good[middle + 8 :]
        assert refusal(path, fines, bad).code == "compressed.damaged"


@FORMATS
def test_a_bomb_is_stopped_by_its_ratio_before_it_is_read(tmp_path: Path, fines: Catalog, format: str) -> None:
    bomb = PACK[format](HEADER.encode() + (b"x" * 1023 + b"\n") * (40 << 10))
    error = refusal(tmp_path / f"f.csv.{format}", fines, bomb)
    assert error.code == "compressed.ratio"
    assert "250" in error.zh


def test_the_greatest_size_is_named(tmp_path: Path, fines: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed, "MAX_UNPACKED", 10)
    error = refusal(tmp_path / "f.csv.gz", fines, gzip.compress((HEADER + ROW).encode()))
    assert error.code == "compressed.size"


def test_a_dictionary_past_the_memory_allowed_is_refused(tmp_path: Path, fines: Catalog) -> None:
    filters = [
        {"id": lzma.FILTER_LZMA2, "dict_size": 1 << 30, "mode": lzma.MODE_FAST, "mf": lzma.MF_HC3, "nice_len": 8}
    ]
    with io.BytesIO() as out:
        packer = lzma.LZMACompressor(lzma.FORMAT_XZ, filters=[{**filters[0], "dict_size": 1 << 12}])
        out.write(packer.compress((HEADER + ROW).encode()) + packer.flush())
        data = bytearray(out.getvalue())
    # The block header's property byte says how large the dictionary is, its CRC32 follows.
    at = 12
    size = (data[at] + 1) * 4
    data[at + 4] = 36
    data[at + size - 4 : at + size] = zlib.crc32(bytes(data[at : at + size - 4])).to_bytes(4, "little")
    assert refusal(tmp_path / "f.csv.xz", fines, bytes(data)).code == "compressed.memory"


def test_a_row_of_the_header_may_be_named(tmp_path: Path, fines: Catalog) -> None:
    path = tmp_path / "t.csv"
    for end in ("\n", "\r\n", "\r"):
        # A quote that never closes, above the header: nobody looks at it.
        path.write_bytes(f'行政处罚"台账,"x\n\n单位,元\n{HEADER}{ROW}'.replace("\n", end).encode())
        assert refusal(path, fines).code == "csv.quote"
        with open_file(path, fines, ReadOptions(header_row=4)) as file:
            assert [chunk.numbers.tolist() for chunk in file.scan()] == [[5]]
        with open_csv(path, fines, header_row=4, block_bytes=1) as csv:
            assert [chunk.numbers.tolist() for chunk in csv.scan()] == [[5]]
    path.write_text(f"行政处罚台账\n单位：元\n{HEADER}{ROW}", encoding="utf-8")
    error = refusal(path, fines)
    assert (error.code, "表头似乎在第 3 行：请加 --header-row 3" in error.zh) == ("csv.column_missing", True)
    with open_file(path, fines, ReadOptions(header_row=3)) as file:
        assert [chunk.numbers.tolist() for chunk in file.scan()] == [[4]]
    assert refusal(path, fines, header_row=99).code == "csv.empty"


OLE = bytes.fromhex("d0cf11e0a1b11ae1") + bytes(3000)
KINDS = {
    "old workbook": ("B1.xls", OLE + "Workbook".encode("utf-16-le"), "file.kind", ".xls"),
    "old workbook under a new name": ("B1.xlsx", OLE, "file.kind", "另存为 .xlsx"),
    "password": ("B1.xlsx", OLE + "EncryptedPackage".encode("utf-16-le"), "file.kind", "打开密码"),
    "HTML named xls": ("B1.xls", b"<html><body><table>", "file.kind", "网页"),
    "HTML with a mark": ("B1.csv", "\ufeff\n <!-- x --><TABLE>".encode(), "file.kind", "另存为 .xlsx"),
    "XML spreadsheet": ("B1.xls", b'<?xml version="1.0"?><Workbook xmlns="urn:schemas-microsoft-com:office:spreadsheet">',
                        "file.kind", "Excel 2003"),
    "text named xls": ("B1.xls", (HEADER + ROW).encode(), "file.ending", ".xls"),
    "text named xlsx": ("B1.xlsx", (HEADER + ROW).encode(), "file.ending", "文本"),
    "text named parquet": ("B1.parquet", (HEADER + ROW).encode(), "file.ending", "文本"),
    "text named gz": ("B1.csv.gz", (HEADER + ROW).encode(), "file.ending", "文本"),
    "gzip named csv": ("B1.csv", gzip.compress(b"x"), "file.ending", "gzip"),
    "Parquet named csv": ("B1.csv", b"PAR1....PAR1", "file.ending", "Parquet"),
    "encrypted Parquet": ("B1.parquet", b"PARE....PARE", "file.kind", "加密"),
    "ZIP named csv": ("B1.csv", b"PK\3\4", "file.ending", "ZIP"),
    "compressed Parquet": ("B1.csv.gz", gzip.compress(b"PAR1"), "file.kind", "先解压"),
    "compressed twice": ("B1.csv.gz", gzip.compress(gzip.compress(b"x")), "file.kind", "先解压"),
    "PDF": ("B1.csv", b"%PDF-1.7", "file.kind", "PDF"),
    "SQLite": ("B1", b"SQLite format 3\0", "file.kind", "SQLite"),
    "RAR": ("B1.csv", b"Rar!\x1a\x07\0", "file.kind", "解压"),
}  # fmt: skip


@pytest.mark.parametrize("case", KINDS)
def test_what_is_something_else_is_told_what_it_is(tmp_path: Path, fines: Catalog, case: str) -> None:
    name, data, code, told = KINDS[case]
    error = refusal(tmp_path / name, fines, data)
    assert error.code == code
    assert told in error.zh


def test_content_decides_where_the_name_says_nothing(tmp_path: Path, fines: Catalog) -> None:
    book = workbook(tmp_path / "delivery", sheet(row(*(text(t) for t in HEADER.strip().split(","))), row(text("1"))))
    assert read(book, fines) == [("1", None, None, None)]
    (tmp_path / "BZh91AY.dat").write_text(
        HEADER.replace("decided", "decided,BZh9") + "1,甲,2,2024-01-01,\n", encoding="utf-8"
    )
    assert len(read(tmp_path / "BZh91AY.dat", fines)) == 1
    assert refusal(tmp_path / "none.xlsx", fines).code == "csv.file"
    (tmp_path / "folder.csv").mkdir()
    assert refusal(tmp_path / "folder.csv", fines).code == "csv.file"


@pytest.mark.parametrize(
    ("name", "bare"),
    [("B1.csv", "B1"), ("B1.2.csv", "B1.2"), ("B1.CSV.GZ", "B1"), ("B1.xlsx", "B1"), ("B1.parquet", "B1"),
     ("B1.csv.zst", "B1"), ("B1.gz", None), ("B1.xls", None), (".csv", None), ("B1", None), ("B1.csv.received", None)],
)  # fmt: skip
def test_a_batch_number_is_the_name_without_its_ending(name: str, bare: str | None) -> None:
    assert bare_name(name) == bare
