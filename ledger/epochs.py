"""Epochs of exchange keys (密钥期): a new key for a stream to go on under, handed to the other party in a sealed file.

Batches stay under the key they were anchored with, so no key is ever removed here. A stream goes over to the newest one by a bridge.
"""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from ledger.config import check_party_name
from ledger.errors import InputError
from ledger.passphrase import make_passphrase, seal
from ledger.setup import passphrase_file, read_passphrase, unsealed
from ledger.store.files import write_atomic
from ledger.workspace import OWN, Workspace

FORMAT = "duizhang-key/1"
_SECRET = re.compile("[0-9a-f]{64}")
_MEMBERS = {"epoch", "format", "from", "key", "to"}


@dataclass(frozen=True)
class Epoch:
    """An epoch that is here now; `path` is its key file. Not `fresh`: it was here already."""

    party: str
    number: int
    key_id: str
    path: Path
    fresh: bool = True


def new_epoch(
    workspace: Workspace, party: str | None = None, *, out: Path | None = None, passphrase: str | None = None
) -> Epoch:
    """Make the next epoch of the key shared with `party`, or of the own sources' key, and write it sealed to `out` for that party.

    Without a `passphrase` one is made and written beside `out`, as for a join file. InputError `key.*`, `party.out_exists`.
    """
    with workspace.locked("key new"):
        name = OWN if party is None else party
        workspace.exchange_key(name)
        number = workspace.newest_epoch(name) + 1
        secret = secrets.token_hex(32)
        if party is not None:
            if out is None:
                raise InputError(
                    "key.out_missing",
                    "与他方共用的密钥须以 --out 写出，供其导入",
                    "a key shared with another party must be written with --out, for that party to take in",
                    "--out",
                )
            _hand_out(workspace.party, party, number, secret, out, passphrase)
        # Last: a file that nobody can use is less harm than a key that the other side never gets.
        return _keep(workspace, name, number, secret)


def take_epoch(workspace: Workspace, file: Path, *, passphrase: str | None = None) -> Epoch:
    """Take in the key that another party wrote with `new_epoch` for this one.

    InputError `join.*`, `passphrase.*` for a file that cannot be opened, `key.file` for one that is not for this party,
    `key.epoch_taken` if another key stands under that number; nothing is written then. Again: nothing happens.
    """
    told = _parse(unsealed(file, passphrase))
    if told is None:
        raise InputError("key.file", f"不是密钥文件（{FORMAT}）", f"this is no key file ({FORMAT})", str(file))
    sender, to, number, secret = told
    check_party_name(sender, str(file))
    if to != workspace.party or not workspace.has_key(sender):
        raise InputError(
            "key.file",
            f"该密钥文件由 {sender} 写给 {to}，不是给本方 {workspace.party} 的，或本方与 {sender} 并无密钥",
            f"this key file is from {sender} for {to}, not for {workspace.party}, or no key is shared with {sender}",
            str(file),
        )
    with workspace.locked("key take"):
        newest = workspace.newest_epoch(sender)
        path = workspace.epoch_path(sender, number)
        if path.exists():
            there = workspace.read_epoch(sender, number)
            if there.secret == bytes.fromhex(secret):
                return Epoch(sender, number, there.id.hex(), path, fresh=False)
        if number != newest + 1:
            raise InputError(
                "key.epoch_taken",
                f"该文件是与 {sender} 的第 {number} 期密钥，本方最新为第 {newest} 期：须依次导入，也不得以另一密钥替换已有的",
                f"the file holds epoch {number} of the key with {sender}, the newest here is {newest}: epochs are taken in one after the other, "
                "and none is replaced",
                str(file),
            )
        return _keep(workspace, sender, number, secret)


def _parse(data: bytes) -> tuple[str, str, int, str] | None:
    """From whom, for whom, the epoch and the secret; None for anything else."""
    try:
        told = json.loads(data)
    except ValueError:
        return None
    if not isinstance(told, dict) or set(told) != _MEMBERS or told["format"] != FORMAT:
        return None
    number, texts = told["epoch"], (told["from"], told["to"], told["key"])
    if type(number) is not int or number < 2 or not all(isinstance(text, str) for text in texts):
        return None
    sender, to, secret = texts
    return (sender, to, number, secret) if _SECRET.fullmatch(secret) else None


def _hand_out(sender: str, to: str, number: int, secret: str, out: Path, passphrase: str | None) -> None:
    if out.exists():
        raise InputError(
            "party.out_exists", "输出文件已存在，不予覆盖", "the output file exists and is not overwritten", str(out)
        )
    beside = passphrase_file(out)
    kept = passphrase is None and beside.exists()
    chosen = passphrase or (read_passphrase(beside) if kept else make_passphrase())
    told = {"epoch": number, "format": FORMAT, "from": sender, "key": secret, "to": to}
    sealed = seal(json.dumps(told).encode(), chosen)
    if passphrase is None and not kept:
        write_atomic(beside, chosen.encode() + b"\n", 0o600, overwrite=False)
    write_atomic(out, sealed, 0o600, overwrite=False)


def _keep(workspace: Workspace, party: str, number: int, secret: str) -> Epoch:
    path = workspace.epoch_path(party, number)
    write_atomic(path, f"{secret}\n".encode(), 0o600, overwrite=False)
    return Epoch(party, number, workspace.read_epoch(party, number).id.hex(), path)
