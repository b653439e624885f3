"""The key that signs: protected, readable by its owner only, and never half-written."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ledger.chain.account import (
    account_address,
    create_account,
    load_account,
    read_password,
    read_secret,
    write_secret,
)
from ledger.errors import ChainError, LedgerError

CHEAP = 4096


def refused(code: str, action: Callable[[], Any]) -> LedgerError:
    with pytest.raises(LedgerError) as caught:
        action()
    assert caught.value.code == code, caught.value.en
    return caught.value


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    keystore, password = tmp_path / "account.json", tmp_path / "account.password"
    create_account(keystore, password, work_factor=CHEAP)
    return keystore, password


def test_a_new_account_is_stored_protected_and_comes_back(tmp_path: Path) -> None:
    keystore, password = tmp_path / "account.json", tmp_path / "account.password"
    address = create_account(keystore, password)
    assert address == address.lower()
    assert load_account(keystore, password).address.lower() == address == account_address(keystore)
    for file in (keystore, password):
        assert file.stat().st_mode & 0o777 == 0o600
    doc = json.loads(keystore.read_text())
    assert doc["version"] == 3
    # A password of 256 random bits is stretched for form's sake only; one that somebody chose, in full.
    assert (doc["crypto"]["kdf"], doc["crypto"]["kdfparams"]["n"]) == ("scrypt", 2**12)


def test_a_chosen_password_is_stretched_in_full(tmp_path: Path) -> None:
    keystore, password = tmp_path / "account.json", tmp_path / "account.password"
    write_secret(password, b"chosen by hand\n")
    create_account(keystore, password)
    assert json.loads(keystore.read_text())["crypto"]["kdfparams"]["n"] == 2**18


def test_a_password_that_exists_is_kept(tmp_path: Path) -> None:
    write_secret(tmp_path / "password", b"chosen by hand\n")
    create_account(tmp_path / "account.json", tmp_path / "password", work_factor=CHEAP)
    assert read_password(tmp_path / "password") == "chosen by hand"
    load_account(tmp_path / "account.json", tmp_path / "password")


def test_an_existing_account_is_never_overwritten(files: tuple[Path, Path]) -> None:
    before = files[0].read_bytes()
    refused("key.exists", lambda: create_account(*files, work_factor=CHEAP))
    assert files[0].read_bytes() == before


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610, 0o601])
def test_key_files_that_others_can_read_are_refused(files: tuple[Path, Path], which: int, mode: int) -> None:
    files[which].chmod(mode)
    error = refused("key.exposed", lambda: load_account(*files))
    assert "chmod 600" in error.zh
    assert error.where == str(files[which])


def test_a_wrong_password_is_named_without_showing_it(files: tuple[Path, Path]) -> None:
    files[1].write_text("geheim\n")
    error = refused("account.password", lambda: load_account(*files))
    assert "geheim" not in str(error) + error.zh + error.en


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '"text"', '{"version": 3}', '{"version": 1}', "5"])
def test_a_damaged_keystore_is_refused(files: tuple[Path, Path], text: str) -> None:
    files[0].write_text(text)
    refused("account.form", lambda: load_account(*files))
    refused("account.form", lambda: account_address(files[0]))


def test_a_keystore_changed_in_one_digit_is_refused(files: tuple[Path, Path]) -> None:
    doc = json.loads(files[0].read_text())
    text = doc["crypto"]["ciphertext"]
    doc["crypto"]["ciphertext"] = ("1" if text[0] == "0" else "0") + text[1:]
    files[0].write_text(json.dumps(doc))
    refused("account.password", lambda: load_account(*files))


@pytest.mark.parametrize("data", [b"", b"\n", b"two\nlines\n", b"\xff\xfe"])
def test_a_password_file_holds_exactly_one_line(files: tuple[Path, Path], data: bytes) -> None:
    files[1].write_bytes(data)
    refused("account.password_file", lambda: load_account(*files))


def test_a_missing_key_file_is_named(tmp_path: Path) -> None:
    assert refused("key.missing", lambda: read_secret(tmp_path / "nothing")).where.endswith("nothing")
    refused("key.unreadable", lambda: read_secret(tmp_path))


def test_a_full_disk_leaves_no_half_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ChainError) as caught:
        write_secret(tmp_path / "key", b"secret")
    assert caught.value.code == "key.not_written"
    assert not (tmp_path / "key").exists()
