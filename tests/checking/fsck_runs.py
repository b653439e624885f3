"""Runs fsck and reads its report; changes files and rows behind its back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ledger.batch.build import root_hex
from ledger.store.entryfile import Entries, read_entries, write_entries

from .conftest import duizhang, sql


def fsck(workspace: Path) -> tuple[int, dict[str, Any]]:
    answer = duizhang("-C", workspace, "fsck", "--json")
    assert answer.code == {"clean": 0, "damaged": 1, "undetermined": 2}[answer.json["verdict"]]
    return answer.code, answer.json


def codes(report: dict[str, Any], kind: str = "damage") -> set[str]:
    return {remark["code"] for remark in report[kind]}


def damaged(workspace: Path, *expected: str) -> list[dict[str, str]]:
    """fsck ends with 1 and names each code; the remarks with the first of them."""
    code, report = fsck(workspace)
    assert set(expected) <= codes(report), report["damage"]
    assert code == 1
    failed = [check["name"] for check in report["checks"] if check["result"] == "fail"]
    assert failed
    return [remark for remark in report["damage"] if remark["code"] == expected[0]]


def undetermined(workspace: Path, expected: str) -> list[dict[str, str]]:
    code, report = fsck(workspace)
    assert report["damage"] == []
    assert expected in codes(report, "undetermined"), report["undetermined"]
    assert code == 2
    return [remark for remark in report["undetermined"] if remark["code"] == expected]


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def entry_file(workspace: Path, number: str, role: str = "lawful") -> Path:
    return (
        workspace
        / sql(
            workspace,
            "SELECT entries_file FROM entry_set JOIN batch ON batch.id = batch_id WHERE number = ? AND role = ?",
            number,
            role,
        )[-1][0]
    )


def archive_file(workspace: Path, number: str) -> Path:
    return (
        workspace
        / sql(
            workspace,
            "SELECT archive_file FROM entry_set JOIN batch ON batch.id = batch_id WHERE number = ? AND role = 'lawful'",
            number,
        )[-1][0]
    )


def rewrite(workspace: Path, number: str, change: Any) -> None:
    """Put other rows into the lawful entry file of a batch, and make the store's own record agree with them."""
    path = entry_file(workspace, number)
    (digest,) = sql(workspace, "SELECT entries_sha256 FROM entry_set WHERE entries_file = ?", f"entries/{path.name}")[0]
    entries: Entries = change(read_entries(path, digest))
    path.unlink()
    digest = write_entries(path, entries.entries, entries.withdrawn, entries.frames, tiles=entries.tiles)
    sql(
        workspace,
        "UPDATE entry_set SET entries_sha256 = ?, size = ?, root = ? WHERE entries_file = ?",
        digest,
        len(entries.entries),
        root_hex(entries.entries),
        f"entries/{path.name}",
    )
