"""The join file travels sealed; a third party with a key of its own learns nothing of the pair's (design section 4)."""

from __future__ import annotations

import json
import os
from contextlib import closing
from pathlib import Path

import pytest

from ledger import sketch as sketches
from ledger.batch.job import open_job
from ledger.cli import main
from ledger.counterpart.sketches import sketch_on_chain
from ledger.errors import InputError
from ledger.keys import ExchangeKey
from ledger.passphrase import seal, unseal
from ledger.record import canonical, record_key
from ledger.workspace import Workspace
from tests.conftest import CATALOG, Pair, Party, permit
from tests.twoparty.conftest import Channel, channel

__all__ = ["channel"]

ROWS = [permit(n) for n in range(1, 31)]


def private(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    os.chmod(path, 0o600)
    return str(path)


def refused(party: Party, *words: str) -> str:
    ran = party.run(*words, "--json")
    assert ran.code == 2, ran
    return str(ran.json["error"]["code"])


def join(folder: Path, file: Path, *options: str) -> tuple[int, str]:
    party = Party(folder)
    ran = party.run("init", str(folder), "--join", str(file), *options, "--json")
    return ran.code, "" if ran.code == 0 else ran.json["error"]["code"]


def test_the_join_file_holds_nothing_in_clear_and_opens_with_its_passphrase_only(pair: Pair) -> None:
    out = pair.folder / "sz.join"
    told = pair.province.ok("party", "add", "shenzhen", "--out", str(out))
    beside = Path(told["passphrase_file"])
    assert (out.stat().st_mode & 0o777, beside.stat().st_mode & 0o777) == (0o600, 0o600)
    document = json.loads((pair.province.home / "keys" / "shenzhen" / "join.json").read_bytes())
    sealed = out.read_bytes()
    for secret in (document["exchange_key"], document["account_key"], beside.read_text().strip(), "shenzhen"):
        assert secret.encode() not in sealed
    wrong = private(pair.folder / "wrong", "correct horse battery\n")
    assert join(pair.folder / "sz", out, "--passphrase-file", wrong) == (2, "passphrase.wrong")
    right = beside.rename(pair.folder / "elsewhere")
    assert join(pair.folder / "sz", out) == (2, "passphrase.missing")
    broken = pair.folder / "broken.join"
    private(broken, sealed.decode().replace('"sealed": "', '"sealed": "AAAA'))
    assert join(pair.folder / "sz", broken, "--passphrase-file", str(right)) == (2, "passphrase.wrong")
    private(broken, sealed.decode()[:-30])
    assert join(pair.folder / "sz", broken, "--passphrase-file", str(right)) == (2, "join.form")
    assert not (pair.folder / "sz" / "duizhang.toml").exists()
    assert join(pair.folder / "sz", out, "--passphrase-file", str(right)) == (0, "")
    config = Workspace(pair.folder / "sz").config
    assert config.chain.disputes == Workspace(pair.province.home).config.chain.disputes


def test_a_file_of_the_older_form_is_refused_by_name(pair: Pair) -> None:
    pair.province.ok("party", "add", "shenzhen", "--out", str(pair.folder / "sz.join"))
    plain = (pair.province.home / "keys" / "shenzhen" / "join.json").read_text(encoding="utf-8")
    old = pair.folder / "old.join"
    private(old, plain)
    assert join(pair.folder / "sz", old) == (2, "join.not_sealed")


def test_a_passphrase_of_ones_own(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    short = private(pair.folder / "short", "kurz\n")
    out = pair.folder / "sz.join"
    assert (
        refused(pair.province, "party", "add", "shenzhen", "--out", str(out), "--passphrase-file", short)
        == "passphrase.short"
    )
    assert not (pair.province.home / "keys" / "shenzhen").exists()
    open_one = pair.folder / "open"
    open_one.write_text("long enough, but for all to read\n", encoding="utf-8")
    assert (
        refused(pair.province, "party", "add", "shenzhen", "--out", str(out), "--passphrase-file", str(open_one))
        == "key.permissions"
    )
    own = private(pair.folder / "own", "穗深两地的共同口令一二三四\n")
    monkeypatch.setenv("DUIZHANG_PASSPHRASE_FILE", own)
    assert pair.province.ok("party", "add", "shenzhen", "--out", str(out))["passphrase_file"] is None
    again = pair.folder / "again.join"
    pair.province.ok("party", "add", "shenzhen", "--out", str(again))
    assert again.read_bytes() != out.read_bytes()
    assert join(pair.folder / "sz", again) == (0, "")


def test_a_sealed_document_is_bound_to_every_byte() -> None:
    data = seal(b"secret", "correct horse battery")
    assert unseal(data, "correct horse battery", "") == b"secret"
    told = json.loads(data)
    for name in ("nonce", "salt", "sealed"):
        changed = {**told, name: ("A" if told[name][0] != "A" else "B") + told[name][1:]}
        with pytest.raises(InputError) as refusal:
            unseal(json.dumps(changed).encode(), "correct horse battery", "")
        assert refusal.value.code == "passphrase.wrong"
    for changed in (
        {**told, "n": 1},
        {**told, "format": "duizhang-join/9"},
        {**told, "salt": "AA=="},
        {**told, "nonce": 7},
    ):
        with pytest.raises(InputError) as refusal:
            unseal(json.dumps(changed).encode(), "correct horse battery", "")
        assert refusal.value.code == "join.form"


def shenzhen(channel: Channel) -> Party:
    """A third party on the same chain, with a key of its own shared with the province."""
    folder = channel.pair.folder
    channel.province.ok("party", "add", "shenzhen", "--out", str(folder / "sz.join"))
    assert main(["init", str(folder / "sz"), "--join", str(folder / "sz.join"), "--json"]) == 0
    (folder / "sz" / "catalogs" / "permits.toml").write_text(CATALOG, encoding="utf-8")
    return Party(folder / "sz")


def test_a_third_partys_key_opens_guesses_and_decodes_nothing(channel: Channel) -> None:
    other = shenzhen(channel)
    channel.send("B1", ROWS)
    channel.land("B1", ROWS[3:])
    channel.receive("B1")
    guess = Workspace(other.home)
    theirs: ExchangeKey = guess.exchange_key("guangdong")
    true_key = Workspace(channel.city.home).exchange_key("guangdong")
    assert theirs.id != true_key.id
    with closing(guess.open_store("read")) as store, open_job(guess, store, resume=False) as job:
        (batch,) = (it for it in job.streams.by_batch.values() if it.descriptor.batch == "B1")
        # What everybody sees: who, when, how many, the roots, the descriptor. Told here, so that nobody takes it for hidden.
        assert (batch.stream.sender, batch.stream.receiver) == ("guangdong", "guangzhou")
        assert [record.size for record in (*batch.sent, *batch.received)] == [30, 27]
        for record in (batch.sent[-1], batch.received[-1]):
            sealed = sketch_on_chain(job, record)
            clear = sketches.encrypt(sealed, true_key, bytes.fromhex(batch.batch_id), bytes.fromhex(record.root))
            assert sketches.parse(clear, record.size)
            for key in (theirs, guess.exchange_key()):
                opened = sketches.encrypt(sealed, key, bytes.fromhex(batch.batch_id), bytes.fromhex(record.root))
                with pytest.raises(InputError) as malformed:
                    sketches.parse(opened, record.size)
                assert malformed.value.code == "sketch.malformed"
            # Nothing of an entry shows in the bytes on chain.
            catalog = guess.catalog("permits")
            right, wrong = true_key.for_catalog(catalog), theirs.for_catalog(catalog)
            for row in ROWS:
                data = canonical(catalog, row)
                name = record_key(catalog, row)
                # Somebody who knows every record in full, and lacks the key, can confirm none of them.
                assert right.commit(data)[2] != wrong.commit(data)[2]
                assert right.key_tag(name) != wrong.key_tag(name)
                assert right.commit(data)[2] not in sealed
                assert right.key_tag(name) not in sealed
    assert refused(other, "reconcile", "permits", "--with", "guangzhou") == "counterpart.nothing"


def test_a_third_partys_anchors_do_not_count(channel: Channel) -> None:
    other = shenzhen(channel)
    channel.send("B1", ROWS)
    path = channel.pair.file("sz.csv", ROWS[:2])
    # Under the same number, to the same receiver, in its own name: another stream, that the city has no key for.
    ran = other.run("send", "permits", path, "--batch", "B1", "--to", "guangzhou", "--json")
    assert (ran.code, ran.json["error"]["code"]) == (2, "key.no_exchange_key")
    channel.land("B1", ROWS)
    assert channel.receive("B1")[1]["verdict"] == "matched"
    assert channel.between(channel.city)[0] == 0
