"""`prove` and `trust export`: which version is proved, what is refused, and that files are whole, private and never replaced."""

from __future__ import annotations

import dataclasses
import json
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from eth_account.signers.local import LocalAccount

from ledger import jcs, merkle, prove
from ledger.anchor.link import Link
from ledger.chain.contract import anchor_registry
from ledger.chain.local import ChainStatus, LocalChain
from ledger.chain.registry import Registry
from ledger.chain.rpc import Rpc
from ledger.chain.transactions import Claim, encode_anchor
from ledger.proof import parse_proof, parse_trust
from ledger.store.files import WorkspaceLock
from tests.conftest import Party, permit
from tests.proof.conftest import Stage

ROOT = Path(__file__).parents[2]


def error(party: Party, *words: str) -> str:
    """The code of the error that the command ends with."""
    ran = party.run(*words, "--json")
    assert ran.code == 2, ran
    return str(ran.json["error"]["code"])


def test_both_sides_make_the_same_bytes_and_standard_output_has_exactly_them(stage: Stage, good: bytes) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "ledger.cli", "-C", str(stage.pair.province.home), "prove", "permits", " ａ-3 "],
        capture_output=True,
        cwd=stage.folder,
        # A terminal of another encoding must not change a byte of the Chinese text in it.
        env={"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "gb18030"},
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == good
    assert "甲公司".encode() in good


def test_the_proof_holds_the_tree_position_and_both_anchors(stage: Stage, good: bytes) -> None:
    proof = parse_proof(good)
    assert proof.descriptor.batch == "B1"
    assert [(hint.party, hint.sequence, hint.revision) for hint in proof.anchors] == [
        ("guangdong", 1, 1),
        ("guangzhou", 1, 1),
    ]
    assert proof.chain_id == json.loads(stage.trust)["chain_id"]
    assert len(proof.path) in (1, 3), "five leaves: the last has a path of one, the others of three"


def test_the_live_version_is_proved_and_an_earlier_one_only_by_its_batch(stage: Stage) -> None:
    assert "甲公司更名" in parse_proof(stage.prove("A-1")).record.decode()
    ran = stage.pair.city.run("prove", "permits", "A-1", "--batch", "b1")
    assert ran.code == 0
    assert "更名" not in parse_proof(ran.out.encode()).record.decode()
    assert "批次 B2 有其更新版本" in ran.err


def test_a_withdrawn_record_is_refused_by_default_and_its_withdrawal_proved_by_its_batch(stage: Stage) -> None:
    ran = stage.pair.city.run("prove", "permits", "A-5")
    assert ran.code == 2
    assert ran.out == ""
    assert "prove.withdrawn" in ran.err
    assert "批次 B2 撤回" in ran.err
    assert b'"withdrawn' in stage.prove("A-5", "--batch", "B2").replace(b"\\", b"")
    earlier = stage.pair.city.run("prove", "permits", "A-5", "--batch", "B1")
    assert earlier.code == 0
    assert "批次 B2 有其撤回" in earlier.err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("permits", "A-99"), "prove.unknown_key"),
        (("permits", "A-3", "--batch", "B2"), "prove.unknown_key"),
        (("permits", "A-3", "--batch", "NONE"), "prove.no_batch"),
        (("permits", "A-3", "--batch", "批"), "descriptor.batch"),
        (("permits",), "prove.no_key"),
        (("permits", "  "), "key.value"),
        (("permits", "A-3", "A-2"), "prove.out_needed"),
        (("nothing", "A-3"), "catalog.unknown"),
        (("inspections", "T-1"), "key.form"),
        (("inspections", '{"office":"T-1"}'), "key.form"),
        (("permits", "--subject", "914401001234500003"), "prove.no_snapshot"),
    ],
)
def test_what_cannot_be_proved_is_refused_by_name(words: tuple[str, ...], code: str, stage: Stage) -> None:
    assert error(stage.pair.city, "prove", *words) == code


def test_a_personal_key_is_masked_in_messages_names_and_json_and_the_file_comes_with_a_warning(
    stage: Stage, tmp_path: Path
) -> None:
    one, two = '{"office":"T-1","inspector":"张三"}', '{"office":"T-2","inspector":"李四"}'
    ran = stage.pair.city.run("prove", "inspections", one, two, "--out", str(tmp_path), "--json")
    assert ran.code == 0
    assert [told["key"] for told in ran.json["files"]] == [
        {"office": "T-1", "inspector": "***"},
        {"office": "T-2", "inspector": "***"},
    ]
    assert "张三" not in ran.out + ran.err
    assert "以明文含有个人信息（字段 inspector）" in ran.err
    name = re.compile(r"inspections-S\d{8}_1-[0-9a-f]{12}\.proof\.json")
    assert all(name.fullmatch(path.name) for path in tmp_path.iterdir())
    unknown = stage.pair.city.run("prove", "inspections", '{"office":"T-9","inspector":"王五"}')
    assert unknown.code == 2
    assert "王五" not in unknown.err


def test_several_keys_give_one_private_file_each(stage: Stage, tmp_path: Path) -> None:
    out = tmp_path / "proofs"
    told = stage.pair.city.ok("prove", "permits", "A-2", "a-3", "A-4", "A-2", "--out", str(out))["files"]
    assert [one["key"] for one in told] == [{"no": "A-2"}, {"no": "A-3"}, {"no": "A-4"}]
    assert {Path(one["file"]) for one in told} == set(out.iterdir())
    assert sorted(one["index"] for one in told) == sorted({one["index"] for one in told})
    for one in told:
        path = Path(one["file"])
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        proof = parse_proof(path.read_bytes())
        assert (proof.descriptor.batch, proof.index, one["size"]) == (one["batch"], one["index"], 5)
        assert stage.verify(path.read_bytes()).verdict == "proved"


def test_an_existing_file_is_kept_and_of_several_none_is_written(stage: Stage, tmp_path: Path) -> None:
    city = stage.pair.city
    city.ok("prove", "permits", "A-3", "A-4", "--out", str(tmp_path))
    kept = next(path for path in tmp_path.iterdir() if "A_4" in path.name)
    kept.write_bytes(b"mine")
    next(path for path in tmp_path.iterdir() if "A_3" in path.name).unlink()
    assert error(city, "prove", "permits", "A-3", "A-4", "--out", str(tmp_path)) == "store.exists"
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"mine"]
    assert error(city, "prove", "permits", "A-3", "--out", str(kept)) == "store.exists"
    assert kept.read_bytes() == b"mine"
    assert error(city, "prove", "permits", "A-3", "--out", str(tmp_path / "none" / "x.json")) == "store.missing"


def test_a_key_cannot_lead_out_of_the_folder(stage: Stage, tmp_path: Path) -> None:
    path = stage.pair.file("P1.csv", [permit(51) | {"no": "../../etc/X"}, permit(52) | {"no": "中文/文号〔2022〕1号"}])
    stage.pair.province.ok("send", "permits", path, "--batch", "P1", "--to", "guangzhou")
    out = tmp_path / "in"
    told = stage.pair.province.ok("prove", "permits", "../../etc/x", "中文/文号〔2022〕1号", "--out", str(out))["files"]
    assert {Path(one["file"]).parent for one in told} == {out}
    assert len(list(out.iterdir())) == 2
    assert list(tmp_path.iterdir()) == [out]


def test_proving_runs_beside_a_writing_job_and_writes_nothing(stage: Stage, good: bytes) -> None:
    home = stage.pair.city.home
    folders = [home / name for name in ("entries", "archive", "keys", "store")]
    with WorkspaceLock(home / "lock", "nightly"):
        before = [sorted(path.name for path in folder.iterdir()) for folder in folders]
        assert stage.pair.city.run("prove", "permits", "A-3").out.encode() == good
        assert [sorted(path.name for path in folder.iterdir()) for folder in folders[:3]] == before[:3]


def test_entries_that_never_arrived_here_cannot_be_proved_and_are_named(stage: Stage) -> None:
    path = stage.pair.file("U1.csv", [permit(61)])
    stage.pair.province.ok("send", "permits", path, "--batch", "U1", "--to", "guangzhou")
    assert error(stage.pair.city, "prove", "permits", "A-61", "--batch", "U1") == "prove.entries_unknown"
    ran = stage.pair.city.run("prove", "permits", "A-61")
    assert ran.code == 2
    assert "U1" in ran.err
    ran = stage.pair.city.run("prove", "permits", "A-3")
    assert ran.code == 0
    assert "U1" in ran.err
    assert "可能有 A-3 的更新版本" in ran.err


def test_of_two_streams_the_one_anchored_last_is_taken_and_both_are_named(stage: Stage) -> None:
    path = stage.pair.file("D1.csv", [permit(71)])
    stage.pair.province.ok("send", "permits", path, "--batch", "D1", "--to", "guangzhou")
    stage.pair.city.ok("receive", "permits", path, "--batch", "D1", "--from", "guangdong", "--load")
    back = stage.pair.file("D2.csv", [permit(71, "回传")])
    stage.pair.city.ok("send", "permits", back, "--batch", "D2", "--to", "guangdong")
    ran = stage.pair.city.run("prove", "permits", "A-71")
    assert ran.code == 0
    assert parse_proof(ran.out.encode()).descriptor.batch == "D2"
    assert "取最后上链的 guangzhou→guangdong" in ran.err
    assert "guangdong→guangzhou 批次 D1" in ran.err
    named = stage.pair.city.run("prove", "permits", "A-71", "--batch", "D1")
    assert parse_proof(named.out.encode()).descriptor.batch == "D1"


def test_a_stranger_who_announces_under_an_unknown_key_does_not_stop_other_proofs(
    stage: Stage, forger: LocalAccount
) -> None:
    province = stage.pair.province
    another_catalog(stage, "strays")
    path = stage.pair.file("strays.csv", [permit(1)])
    province.ok("send", "strays", path, "--batch", "S1", "--to", "guangzhou")
    before = stage.prove("A-1", party="province", catalog="strays")
    told = json.loads(json.loads(before)["descriptor"])
    told |= {"receiver": told["sender"], "sender": str(forger.address).lower(), "key_id": "0123456789abcdef"}
    spam = Claim(jcs.dump(told), 0, 0, merkle.EMPTY_ROOT.hex())
    stage.act(forger, encode_anchor([spam]), json.loads(stage.trust)["contract"])
    ran = province.run("prove", "strays", "A-1")
    assert ran.out.encode() == before
    assert "foshan→guangdong 未查" in ran.err
    assert error(province, "prove", "strays", "A-99") == "key.wrong"


def another_catalog(stage: Stage, name: str, line: str = "") -> None:
    """The province gets the catalog of permits under another name."""
    folder = stage.pair.province.home / "catalogs"
    text = (folder / "permits.toml").read_text(encoding="utf-8").replace('id = "permits"', f'id = "{name}"\n{line}')
    (folder / f"{name}.toml").write_text(text, encoding="utf-8")


def test_what_the_archive_does_not_hold_cannot_be_proved(stage: Stage) -> None:
    another_catalog(stage, "bare", "archive = false")
    path = stage.pair.file("bare.csv", [permit(1)])
    stage.pair.province.ok("send", "bare", path, "--batch", "B1", "--to", "guangzhou")
    assert error(stage.pair.province, "prove", "bare", "A-1") == "prove.not_archived"


# ---- only confirmed anchors ----


def saved(height: int, patch: pytest.MonkeyPatch) -> None:
    """Make the dump on disk end at that block."""
    status = LocalChain.status

    def shorter(self: LocalChain) -> ChainStatus:
        return dataclasses.replace(status(self), saved_block=height)

    patch.setattr(LocalChain, "status", shorter)


def test_an_anchor_that_is_not_on_disk_yet_is_not_proved(
    stage: Stage, good: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent, received = (hint.block for hint in parse_proof(good).anchors)
    saved(sent - 1, monkeypatch)
    assert error(stage.pair.city, "prove", "permits", "A-3") == "prove.not_confirmed"
    saved(received - 1, monkeypatch)
    assert [hint.party for hint in parse_proof(stage.prove("A-3")).anchors] == ["guangdong"]


def test_what_is_proved_is_read_after_it_was_asked_what_is_confirmed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a node killed in between could give an anchor that its successor has in another block."""
    asked = prove.confirmed_height

    def meanwhile(link: Link) -> int:
        path = stage.pair.file("M1.csv", [permit(81)])
        stage.pair.city.ok("send", "permits", path, "--batch", "M1", "--to", "guangdong")
        return asked(link)

    monkeypatch.setattr(prove, "confirmed_height", meanwhile)
    assert parse_proof(stage.prove("A-81")).descriptor.batch == "M1"


@contextmanager
def finality(party: Party, policy: str) -> Iterator[None]:
    config = party.home / "duizhang.toml"
    before = config.read_text(encoding="utf-8")
    config.write_text(before.replace('finality = "instant"', f'finality = "{policy}"'), encoding="utf-8")
    try:
        yield
    finally:
        config.write_text(before, encoding="utf-8")


def test_an_anchor_that_is_not_final_yet_is_not_proved(stage: Stage) -> None:
    with finality(stage.pair.city, "depth:90000"):
        assert error(stage.pair.city, "prove", "permits", "A-3") == "prove.not_confirmed"


# ---- the trust file ----


def test_the_trust_file_is_the_checked_chain_and_the_parties_addresses_now(stage: Stage) -> None:
    trust = parse_trust(stage.trust)
    with Rpc(stage.rpc) as rpc:
        view = Registry(rpc, trust.contract).view()
        block = rpc.call("eth_getBlockByNumber", "0x1", False)
    assert trust.code_sha256 == anchor_registry().code_sha256
    assert (trust.block_number, "0x" + trust.block_hash) == (1, block["hash"])
    assert trust.parties["guangzhou"] == view.address("guangzhou") != view.parties["guangzhou"][0].account
    assert trust.parties["guangdong"] == view.address("guangdong")


def test_both_workspaces_export_the_same_trust_file_and_none_is_overwritten(stage: Stage, tmp_path: Path) -> None:
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    stage.pair.province.ok("trust", "export", "--out", str(one))
    stage.pair.city.ok("trust", "export", "--out", str(two))
    assert one.read_bytes() == two.read_bytes() == stage.pair.city.run("trust", "export").out.encode()
    assert error(stage.pair.city, "trust", "export", "--out", str(one)) == "store.exists"


def test_a_party_whose_registration_is_not_on_disk_yet_is_not_in_the_trust_file(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Rpc(stage.rpc) as rpc:
        holdings = Registry(rpc, parse_trust(stage.trust).contract).view().parties["guangzhou"]
    saved(holdings[1].block - 1, monkeypatch)
    trust = parse_trust(stage.pair.city.run("trust", "export").out.encode())
    assert trust.parties["guangzhou"] == holdings[0].account
    saved(holdings[0].block - 1, monkeypatch)
    assert set(parse_trust(stage.pair.city.run("trust", "export").out.encode()).parties) == {"guangdong"}
