"""The account that signs: one secp256k1 key in a keystore v3 file, its password in a file beside it or elsewhere.

Both files are readable by their owner only; files that others can read are refused, here and for every other key.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from ledger.errors import ChainError, InputError

if TYPE_CHECKING:
    # Imported where it is used: it takes most of a second, and only a job that signs needs it.
    from eth_account.signers.local import LocalAccount

# scrypt's N as geth uses it: about half a second. It protects passwords that people choose.
WORK_FACTOR = 2**18
# A password of 256 random bits cannot be guessed, stretched or not.
MADE_WORK_FACTOR = 2**12


def create_account(keystore: Path, password_file: Path, *, work_factor: int = WORK_FACTOR) -> str:
    """Make a new key and write both files (0600, neither may exist); its address, lower case.

    The password is kept if `password_file` exists, else made: 64 random hex digits, which `work_factor` is not needed for.
    """
    from eth_account import Account  # noqa: PLC0415

    if password_file.exists():
        password = read_password(password_file)
    else:
        password = secrets.token_hex(32)
        work_factor = min(work_factor, MADE_WORK_FACTOR)
        write_secret(password_file, password.encode() + b"\n")
    account: LocalAccount = Account.create()
    sealed = Account.encrypt(account.key, password, kdf="scrypt", iterations=work_factor)
    write_secret(keystore, json.dumps(sealed).encode() + b"\n")
    return str(account.address).lower()


def load_account(keystore: Path, password_file: Path) -> LocalAccount:
    """The account, ready to sign. InputError `account.*` for a wrong password, a damaged or an unprotected file."""
    from eth_account import Account  # noqa: PLC0415

    password = read_password(password_file)
    text = read_secret(keystore)
    try:
        account: LocalAccount = Account.from_key(Account.decrypt(json.loads(text), password))
    except (ValueError, KeyError, TypeError, NotImplementedError) as error:
        if "MAC mismatch" in str(error):
            raise InputError(
                "account.password",
                f"账户口令不对（口令文件 {password_file}）",
                f"the account's password is wrong (password file {password_file})",
                str(keystore),
            ) from None
        # The reason is not shown: a library's message may quote what it could not parse.
        raise InputError(
            "account.form",
            "账户文件不是有效的 keystore v3；请从备份恢复",
            "the account file is no valid keystore v3; restore it from a backup",
            str(keystore),
        ) from None
    return account


def account_address(keystore: Path) -> str:
    """The address that the keystore states in clear, lower case, without needing the password."""
    try:
        address = str(json.loads(read_secret(keystore))["address"]).lower().removeprefix("0x")
    except (ValueError, KeyError, TypeError):
        address = ""
    if not re.fullmatch("[0-9a-f]{40}", address):
        raise InputError("account.form", "账户文件中没有地址", "the account file states no address", str(keystore))
    return "0x" + address


def read_password(path: Path) -> str:
    """The password in a file: its first and only line, without the line end."""
    try:
        password = read_secret(path).decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        password = ""
    if not password or "\n" in password:
        raise InputError(
            "account.password_file", "口令文件应恰为一行口令", "a password file holds exactly one line", str(path)
        )
    return password


def read_secret(path: Path) -> bytes:
    """The bytes of a key file; InputError `key.missing`, `key.unreadable`, or `key.exposed` if others can read it."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & 0o077:
                raise InputError(
                    "key.exposed",
                    f"密钥文件可被他人读取（权限 {mode & 0o777:04o}）；请执行 chmod 600 {path}，并考虑更换密钥",
                    f"this key file is open to others (mode {mode & 0o777:04o}); run chmod 600 {path} and consider "
                    "replacing the key",
                    str(path),
                )
            return file.read()
    except FileNotFoundError:
        raise InputError("key.missing", "密钥文件不存在", "there is no such key file", str(path)) from None
    except OSError as error:
        raise InputError(
            "key.unreadable",
            f"无法读取密钥文件：{error.strerror}",
            f"the key file cannot be read: {error.strerror}",
            str(path),
        ) from error


def write_secret(path: Path, data: bytes) -> None:
    """Write a new key file, durable, mode 0600 from its first byte on; an existing one is never overwritten."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise InputError(
            "key.exists", "密钥文件已存在，不会覆盖", "the key file exists and is not overwritten", str(path)
        ) from None
    except OSError as error:
        # Half a key is worse than none: the next attempt would find it and refuse.
        path.unlink(missing_ok=True)
        raise ChainError(
            "key.not_written",
            f"无法写入密钥文件：{error.strerror}",
            f"the key file cannot be written: {error.strerror}",
            str(path),
        ) from error
