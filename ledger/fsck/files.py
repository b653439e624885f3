"""Key files, entry files, archives: what lies in the workspace's folders, against the rows that name it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

from ledger.batch.book import Book
from ledger.chain.account import account_address, read_password
from ledger.errors import StoreError
from ledger.fsck.archives import Opener, check_archive, key_party
from ledger.fsck.report import Check, Remark, Report
from ledger.fsck.snapshots import Folds
from ledger.fsck.tables import Tables
from ledger.keys import parse_key
from ledger.progress import watched
from ledger.store import models
from ledger.store.files import TEMPORARY, os_errors, read_private
from ledger.workspace import OWN, Workspace

_KEY_NAME = re.compile(r"[1-9][0-9]{0,8}\.key", re.ASCII)


def check_keys(report: Report, workspace: Workspace) -> Check:
    """The keys every workspace has are there, each key file is in form, and nobody but its owner may touch one."""
    check = report.open("keys", "密钥文件（存在、格式、权限 0600）", "key files: there, in form, mode 0600")
    folder = workspace.root / "keys"
    keys = {folder / OWN / "1.key", folder / "archive.key"}
    with check.guard():
        keys |= {path for path in _files(folder) if _KEY_NAME.fullmatch(path.name)}
        for path in sorted(keys):
            with check.guard(str(path)):
                parse_key(read_private(path), str(path))
        with check.guard():
            account_address(workspace.keystore)
        with check.guard():
            read_password(workspace.password_file)
        for path in sorted(set(_files(folder)) - keys - {workspace.keystore, workspace.password_file}):
            with check.guard():
                read_private(path)
    check.seen(f"{len(keys) + 2} 个文件", f"{len(keys) + 2} files")
    return check


def check_counterparties(check: Check, workspace: Workspace, tables: Tables) -> None:
    """Every other party of a batch shares a key with us; without any, its commitments say nothing."""
    parties = {key_party(workspace.party, batch) for batch in tables.batches.values()}
    for party in sorted(parties):
        with check.guard():
            if not workspace.has_key(party):
                path = workspace.root / "keys" / party / "1.key"
                check.broken(
                    "key.missing",
                    f"台账中有与 {party} 的批次，却没有与其交换的密钥",
                    f"the store has batches with {party}, and there is no key shared with it",
                    str(path),
                )


def check_sets(report: Report, workspace: Workspace, book: Book, tables: Tables) -> None:
    """Each entry file: there, its SHA-256, order, size and root; each archive beside it: see `archives.check_archive`."""
    files = report.open("entries", "条目文件（哈希、次序、条数、根）", "entry files: SHA-256, order, size, root")
    archives = report.open("archives", "归档（可解密，逐条与承诺相符）", "archives: each record opens its commitment")
    consents = report.open("consents", "认可与撤回的登记", "accepted changes and withdrawals")
    folds = Folds(report, tables)
    opener = Opener(workspace, book, tables)
    waiting = {(row.batch_id, str(row.key_tag)): row for row in tables.consents}
    entries_seen = records_seen = 0
    unread: set[str] = set()
    for (entry_set,) in watched("核对条目集", "checking entry sets", ((row,) for row in tables.sets.values())):
        where = f"{entry_set.entries_file} · {tables.name(entry_set.batch_id)}"
        entries = None
        with files.guard(where):
            entries = book.read_set(entry_set)
        folds.add(entry_set, entries)
        if entries is None:
            unread.add(entry_set.batch_id)
            if entry_set.archive_file is not None:
                archives.cannot(
                    "archive.no_entries",
                    "条目文件读不出，归档无从核对",
                    "the entry file cannot be read, so the archive has nothing to be held against",
                    f"{entry_set.archive_file} · {tables.name(entry_set.batch_id)}",
                )
            continue
        entries_seen += entry_set.size
        records_seen += check_archive(archives, book, opener, entry_set, entries)
        if entry_set.role == "lawful":
            tags = {tag for batch_id, tag in waiting if batch_id == entry_set.batch_id}
            present = {row.tobytes().hex() for row in np.ascontiguousarray(entries.key_tags)} if tags else set()
            for tag in tags & present:
                del waiting[(entry_set.batch_id, tag)]
    folds.close()
    files.seen(f"{len(tables.sets)} 个条目集，{entries_seen} 条", f"{len(tables.sets)} sets, {entries_seen} entries")
    archives.seen(f"{records_seen} 条归档记录", f"{records_seen} archived records")
    for (batch_id, tag), consent in waiting.items():
        where = f"consent {consent.id} · {tables.name(batch_id)}"
        if batch_id in unread:
            consents.cannot("consent.unread", "该批次的条目读不出", "the entries of its batch cannot be read", where)
        else:
            consents.broken(
                "consent.no_entry",
                f"登记的 {consent.action}（key_tag {tag}）在该批次的条目中不存在",
                f"the recorded {consent.action} of key_tag {tag} has no entry in its batch",
                where,
            )
    consents.seen(f"{len(tables.consents)} 条", f"{len(tables.consents)} rows")


def check_leftovers(report: Report, workspace: Workspace, tables: Tables) -> None:
    """Two rows never name one file; files that no row names are remarks: the next writing job removes them."""
    check = report.open("files", "entries/ 与 archive/ 中的文件", "the files in entries/ and archive/")
    named: dict[str, models.EntrySet] = {}
    for entry_set in tables.sets.values():
        for name in (entry_set.entries_file, entry_set.archive_file):
            if name is None:
                continue
            other = named.setdefault(name, entry_set)
            if other is not entry_set:
                check.broken(
                    "file.shared",
                    f"条目集 {other.id} 与 {entry_set.id} 指向同一文件",
                    f"entry sets {other.id} and {entry_set.id} name one and the same file",
                    name,
                )
    _check_erasures(check, workspace, tables)
    count = 0
    for folder in (workspace.entries_folder, workspace.archive_folder, workspace.root):
        with check.guard(str(folder)):
            for path in _files(folder, deep=False):
                ours = folder != workspace.root
                count += ours
                if path.name.startswith(TEMPORARY) or (ours and f"{folder.name}/{path.name}" not in named):
                    check.notes.append(
                        Remark(
                            "leftover",
                            "没有条目集使用该文件（中断的作业所留）；下一次会写入的作业会删除它",
                            "no entry set names this file (an interrupted job left it); the next job that writes removes it",
                            str(path),
                        )
                    )
    check.seen(f"{count} 个文件", f"{count} files")


def _check_erasures(check: Check, workspace: Workspace, tables: Tables) -> None:
    """Files that held erased records are gone, or an erasure is not finished."""
    for row in tables.erasures:
        where = f"erasure {row.id} · {row.catalog_id} {row.key_tag}"
        if row.state == "intent":
            check.pending.append(
                Remark(
                    "erasure.unfinished",
                    "该记录的原文正在删除；下一次会写入的作业会办完",
                    "the erasure of this record is not finished; the next job that writes finishes it",
                    where,
                )
            )
            continue
        with check.guard(where):
            for name in _old_files(row):
                with os_errors(workspace.root / name):
                    there = (workspace.root / name).exists()
                if there:
                    check.broken(
                        "erasure.file_there",
                        f"曾含已删除记录的文件 {name} 仍在或又出现（从备份恢复？）；请删除该文件",
                        f"the file {name}, which held an erased record, is there (restored from a backup?); delete it",
                        where,
                    )


def _old_files(row: models.Erasure) -> list[str]:
    try:
        names = json.loads(row.files)
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise StoreError("store.row", "文件清单无法读取", "its list of files cannot be read", f"erasure {row.id}")
    return names


def _files(folder: Path, *, deep: bool = True) -> list[Path]:
    if not folder.is_dir():
        return []
    with os_errors(folder):
        found = folder.rglob("*") if deep else folder.iterdir()
        return sorted(path for path in found if path.is_file())
