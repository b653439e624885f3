"""Bad input gets one clear message and exit 2; nothing is half done."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ledger.chain.account import load_account
from ledger.chain.contract import anchor_registry, name_to_word
from ledger.chain.identity import chain_id
from ledger.chain.local import LocalChain
from ledger.chain.rpc import Rpc
from ledger.chain.transactions import prepare, send_raw, wait_for_receipt
from ledger.store.files import WorkspaceLock
from tests.conftest import CATALOG, Pair, Party, Ran, permit, withdrawn

ROWS = [permit(n) for n in range(1, 5)]
HEADER = "no,uscc,holder,decided_on,fee\n"


def refused(ran: Ran, code: str) -> str:
    """The message of a run that must have been refused with exactly this code, in one document."""
    assert ran.code == 2, ran
    error = ran.json["error"]
    assert set(ran.json) == {"error"}
    assert error["code"] == code, error
    return str(error["message"])


def state(party: Party) -> tuple[object, ...]:
    """What must not change when a command is refused: the store's rows, entry files, archives."""
    with sqlite3.connect(party.home / "store" / "ledger.db") as connection:
        tables = [
            connection.execute(f"SELECT * FROM {name} ORDER BY 1").fetchall()
            for name in ("batch", "entry_set", "claim", "outbox", "consent")
        ]
    connection.close()
    files = sorted(path.name for folder in ("entries", "archive") for path in (party.home / folder).iterdir())
    return (*tables, files)


def send(pair: Pair, text: str | bytes, *more: str, number: str = "B1") -> Ran:
    """Send a file with this content."""
    path = pair.folder / "bad.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return pair.province.run(
        "send", "permits", str(path), "--batch", number, "--to", "guangzhou", "--json", "--lang", "en", *more
    )


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (CATALOG.replace('type = "date"', 'type = "day"'), "catalog.field_type"),
        (CATALOG.replace('key = ["no"]', 'key = ["number"]'), "catalog.key"),
        (CATALOG.replace('name = "fee"', 'name = "no"'), "catalog.field_repeated"),
        (CATALOG.replace("scale = 2", ""), "catalog.scale"),
        (CATALOG.replace("version = 1", "version = true"), "catalog.version"),
        (CATALOG.replace("9[13]", "9[31]*"), "catalog.public_pattern"),
    ],
)
def test_a_broken_catalog_names_its_rule(pair: Pair, wrong: str, code: str) -> None:
    (pair.province.home / "catalogs" / "permits.toml").write_text(wrong, encoding="utf-8")
    before = state(pair.province)
    refused(send(pair, HEADER), code)
    assert state(pair.province) == before


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("no,uscc,holder,decided_on\n", "csv.column_missing"),
        ("no,uscc,holder,holder,decided_on,fee\n", "csv.header_repeated"),
        ("no,文号,uscc,holder,decided_on,fee\n", "csv.column_twice"),
        ("", "csv.empty"),
        (HEADER + 'A-1,x,"never closed,2022-03-04,1\n', "csv.quote"),
        (HEADER.replace("holder", "名称").encode("gb18030"), "csv.encoding"),
        (HEADER + "A-1,x,甲,2022-03-04,1\nA-2,x,甲,2022-03-04,1\na-1,y,乙,2022-03-04,2\n", "batch.duplicate_key"),
    ],
)
def test_a_file_that_cannot_be_read_for_certain_is_refused_whole(pair: Pair, text: str | bytes, code: str) -> None:
    before = state(pair.province)
    message = refused(send(pair, text), code)
    assert state(pair.province) == before
    if code == "batch.duplicate_key":
        assert "2, 4 (A-1)" in message


BAD = (
    HEADER.encode()
    + "A-1,x,甲,2022-03-04,1\nA-2,x,甲,2022-02-30,1\nA-3,x,甲\nA-4,x,甲,2022-03-04,1.234\n".encode()
    + b"A-5,x,\xff\xfe,2022-03-04,1\n,x,y,2022-03-04,1\n"
)


def test_all_bad_rows_are_listed_with_line_field_value_and_rule(pair: Pair) -> None:
    before = state(pair.province)
    message = refused(send(pair, BAD), "file.bad_rows")
    for part in (
        "line 3 decided_on",
        "2022-02-30",
        "line 4",
        "line 5 fee",
        "1.234",
        "line 6",
        "line 7 no",
        "[key.null]",
    ):
        assert part in message, part
    assert "line 2" not in message
    assert state(pair.province) == before


def test_quarantine_takes_the_bad_rows_and_the_rest_goes_on_with_exit_1(pair: Pair) -> None:
    aside = pair.folder / "aside.csv"
    ran = send(pair, BAD, "--quarantine", str(aside))
    assert (ran.code, ran.json["size"], ran.json["set_aside"]) == (1, 1, 5)
    lines = aside.read_bytes().split(b"\r\n")
    assert len(lines) == 5 + 2
    assert lines[1].startswith(b"A-2,x,")
    assert b"2022-02-30" in lines[1]
    assert b"\xff\xfe" in lines[4]
    assert aside.stat().st_mode & 0o777 == 0o600
    refused(send(pair, BAD, "--quarantine", str(aside), number="B2"), "file.quarantine_exists")


def test_a_withdrawal_needs_an_earlier_live_version(pair: Pair) -> None:
    path = pair.file("w.csv", [withdrawn(1)])
    ran = pair.province.run("send", "permits", path, "--batch", "B1", "--to", "guangzhou", "--json", "--lang", "en")
    assert "withdrawal.no_earlier_version" in refused(ran, "file.bad_rows")


def test_a_batch_number_is_not_used_again_under_another_descriptor(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    before = state(pair.province)
    refused(send(pair, HEADER, "--period", "2022-03-04"), "batch.number_taken")
    assert state(pair.province) == before


def test_the_same_content_again_changes_nothing_and_other_content_is_a_visible_revision(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    again = pair.province.ok("send", "permits", str(pair.folder / "B1.csv"), "--batch", "B1", "--to", "guangzhou")
    assert again["anchor"]["revision"] == 1
    changed = pair.province.ok("send", "permits", pair.file("c.csv", ROWS[:3]), "--batch", "B1", "--to", "guangzhou")
    assert (changed["anchor"]["revision"], changed["size"]) == (2, 3)
    told = pair.city.run("reconcile", "permits", "--json")
    assert told.json["batches"][0]["sender_revised_after_receipt"] is True
    assert told.json["verdict"] == "differences_partial" or told.code == 2


def test_a_wrong_or_missing_exchange_key_is_named_by_its_id(pair: Pair) -> None:
    path = pair.file("B1.csv", ROWS)
    pair.province.ok("send", "permits", path, "--batch", "B1", "--to", "guangzhou")
    receive = ("receive", "permits", path, "--batch", "B1", "--from", "guangdong", "--json", "--lang", "en")
    key = pair.city.home / "keys" / "guangdong" / "1.key"
    right = key.read_text()
    key.write_text("11" * 32 + "\n")
    assert "the batch uses exchange key" in refused(pair.city.run(*receive), "key.wrong")
    key.unlink()
    refused(pair.city.run(*receive), "key.wrong")
    key.write_text(right[:-3])
    key.chmod(0o600)
    refused(pair.city.run(*receive), "key.form")
    key.write_text(right)
    key.chmod(0o644)
    assert "chmod 600" in refused(pair.city.run(*receive), "key.permissions")
    key.chmod(0o600)
    assert pair.city.run(*receive).code == 1


def test_sending_under_another_key_or_catalog_version_needs_a_bridge(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    catalog = pair.province.home / "catalogs" / "permits.toml"
    catalog.write_text(CATALOG.replace("version = 1", "version = 2"), encoding="utf-8")
    assert "bridge permits --to guangzhou" in refused(send(pair, HEADER, number="B2"), "series.changed")


@contextmanager
def chain_at(party: Party, url: str) -> Iterator[None]:
    """The workspace with another RPC URL."""
    config = party.home / "duizhang.toml"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace('rpc = "embedded"', f'rpc = "{url}"'), encoding="utf-8")
    yield
    config.write_text(text, encoding="utf-8")


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_chain_that_is_down_empty_or_another_stops_the_job(pair: Pair) -> None:
    before = state(pair.city)
    with chain_at(pair.city, f"http://127.0.0.1:{free_port()}"):
        refused(pair.city.run("reconcile", "permits", "--json"), "chain.unreachable")
    other = LocalChain.create(pair.folder / "other")
    try:
        with chain_at(pair.city, other.ensure_running()):
            refused(pair.city.run("reconcile", "permits", "--json"), "chain.other_chain")
    finally:
        other.down()
    ours = LocalChain(pair.province.home / "chain")
    ours.down()
    port = free_port()
    empty = subprocess.Popen(
        [shutil.which("anvil") or str(Path(sys.prefix) / "bin" / "anvil"), "--port", str(port), "--silent", "--accounts", "0",
         "--chain-id", str(ours.chain_id)],
    )  # fmt: skip
    try:
        with Rpc(f"http://127.0.0.1:{port}") as rpc:
            for _ in range(200):
                try:
                    chain_id(rpc)
                    break
                except Exception:
                    rpc.close()
                    time.sleep(0.05)
        with chain_at(pair.city, f"http://127.0.0.1:{port}"):
            refused(pair.city.run("reconcile", "permits", "--json"), "chain.empty")
            with Rpc(f"http://127.0.0.1:{port}") as rpc:
                rpc.call("anvil_mine", "0x5")
            refused(pair.city.run("reconcile", "permits", "--json"), "chain.other_chain")
    finally:
        empty.kill()
        empty.wait()
    assert state(pair.city) == before


def test_a_lost_dump_is_never_replaced_by_an_empty_chain(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    home = pair.province.home / "chain"
    LocalChain(home).down()
    dump = home / "dump.json"
    kept = dump.read_bytes()
    dump.unlink()
    ran = pair.city.run("reconcile", "permits", "--json")
    assert ran.code == 2
    assert ran.json["error"]["code"].startswith("chain.")
    dump.write_bytes(kept)
    assert pair.city.reconcile()[0] == 0


def test_an_older_dump_is_noticed_by_the_remembered_block(pair: Pair) -> None:
    home = pair.province.home / "chain"
    pair.city.run("status")
    LocalChain(home).down()
    old = (home / "dump.json").read_bytes()
    pair.deliver("B1", ROWS)
    LocalChain(home).down()
    (home / "dump.json").write_bytes(old)
    refused(pair.city.run("reconcile", "permits", "--json"), "chain.lost")


def test_a_suspended_account_cannot_send(pair: Pair) -> None:
    chain = LocalChain(pair.province.home / "chain")
    keys = pair.province.home / "keys"
    account = load_account(keys / "account.json", keys / "account.password")
    contract = pair.province.ok("chain", "status")["contract"]
    with Rpc(chain.ensure_running()) as rpc:
        data = anchor_registry().functions["suspend"].encode(name_to_word("guangdong"))
        signed = prepare(rpc, account, chain_id=chain.chain_id, to=contract, data=data)
        send_raw(rpc, signed.raw)
        assert wait_for_receipt(rpc, signed.hash) is not None
    before = state(pair.province)[0]
    ran = pair.province.run("send", "permits", pair.file("x.csv", ROWS), "--batch", "B1", "--to", "guangzhou", "--json")
    assert ran.code == 2
    assert ran.json["error"]["code"] == "chain.no_role", ran.json
    # The intent is kept and goes out once the account is reinstated; nothing is on chain.
    assert before == []
    assert pair.city.run("reconcile", "permits", "--json").json["batches"] == []


def test_a_second_job_at_once_ends_with_2_and_touches_nothing(pair: Pair) -> None:
    before = state(pair.city)
    with WorkspaceLock(pair.city.home / "lock", "nightly"):
        for words in (("nightly",), ("anchor",), ("reconcile", "permits")):
            message = refused(pair.city.run(*words, "--json"), "workspace.busy")
            assert str(os.getpid()) in message
    assert state(pair.city) == before
    assert pair.city.run("nightly").code == 0


def test_what_is_not_built_is_refused_by_name(pair: Pair) -> None:
    for words in (
        ("report", "daily"),
        ("reconcile", "permits", "--format", "html"),
        ("verify", "x", "--checkpoint", "y"),
    ):
        refused(pair.city.run(*words, "--json"), "not_built")


def test_a_row_version_column_is_for_own_sources_only(pair: Pair) -> None:
    with (pair.city.home / "duizhang.toml").open("a", encoding="utf-8") as config:
        config.write('row_version_column = "v"\n')
    assert "row_version_column" in refused(pair.city.run("reconcile", "permits", "--json"), "config.row_version_column")


def test_a_column_that_holds_reals_or_blobs_is_unreadable_with_advice(pair: Pair) -> None:
    pair.deliver("B1", ROWS)
    pair.sql("UPDATE permits SET fee = CAST('12.5' AS BLOB) WHERE no = 'A-1'")
    ran = pair.city.run("reconcile", "permits", "--json")
    assert [f["kind"] for f in ran.json["findings"]] == ["unreadable"]
    assert "TEXT" in ran.json["findings"][0]["reason"]["en"]


def test_load_is_rolled_back_when_the_table_changes_a_value(pair: Pair) -> None:
    pair.sql("DROP TABLE permits")
    pair.sql("CREATE TABLE permits (no TEXT, uscc TEXT, holder TEXT, decided_on TEXT, fee REAL)")
    path = pair.file("B1.csv", ROWS)
    pair.province.ok("send", "permits", path, "--batch", "B1", "--to", "guangzhou")
    ran = pair.city.run(
        "receive", "permits", path, "--batch", "B1", "--from", "guangdong", "--load", "--json", "--lang", "en"
    )
    assert "fee" in refused(ran, "load.differs")
    with sqlite3.connect(pair.database) as connection:
        assert connection.execute("SELECT count(*) FROM permits").fetchone() == (0,)
    connection.close()


@pytest.fixture
def tiny(pair: Pair, tmp_path: Path) -> Iterator[Callable[[int], None]]:
    """The city's entries and archive folders on a tmpfs whose size can be set, in KiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root: the full-disk test did NOT run")
    mounts = [pair.city.home / "entries", pair.city.home / "archive"]

    def resize(kib: int) -> None:
        for mount in mounts:
            done = subprocess.run(["mount", "-o", f"remount,size={kib}k", str(mount)], check=False, capture_output=True)
            assert done.returncode == 0, done.stderr

    for mount in mounts:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(mount)], check=False, capture_output=True
        )
        if done.returncode != 0:
            pytest.skip(
                f"no tmpfs may be mounted here ({done.stderr.decode().strip()}): the full-disk test did NOT run"
            )
    yield resize
    for mount in mounts:
        subprocess.run(["umount", str(mount)], check=False)


def test_a_full_disk_is_named_and_the_same_command_works_once_there_is_room(
    pair: Pair, tiny: Callable[[int], None]
) -> None:
    rows = [permit(n, holder=os.urandom(20).hex()) for n in range(500)]
    path = pair.file("B1.csv", rows)
    pair.province.ok("send", "permits", path, "--batch", "B1", "--to", "guangzhou")
    before = state(pair.city)[:3]
    receive = ("receive", "permits", path, "--batch", "B1", "--from", "guangdong", "--load", "--json")
    refused(pair.city.run(*receive), "store.disk_full")
    assert state(pair.city)[:3] == before
    tiny(4096)
    assert pair.city.run(*receive).json["verdict"] == "matched"
    assert pair.city.reconcile()[:2] == (0, [])


def test_a_path_without_permission_is_named(pair: Pair) -> None:
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root: the permission test did NOT run")
    path = Path(pair.file("B1.csv", ROWS))
    path.chmod(0o600)
    pair.city.run("digest", "permits", str(path))  # everything a digest imports is imported
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        # A child that is nobody: it owns neither the file nor the workspace.
        try:
            os.setegid(65534)
            os.seteuid(65534)
            ran = pair.city.run("digest", "permits", str(path), "--json")
            os.write(writing, f"{ran.code} {ran.out}".encode()[:60_000])
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        text = told.read()
    os.waitpid(child, 0)
    assert text.startswith("2 "), text
    assert "ermission" in text or "权" in text, text
