"""catalog list, show, check: what there is, all of it, and what a data steward should look at."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from ledger.advice import advise
from ledger.catalog import parse_catalog

from .conftest import done, duizhang

GOOD = """
id = "licence"
version = 3
title = "行政许可"
key = ["licence_no"]
subject = { field = "uscc", visibility = "public", public_pattern = "9[13][0-9A-Z]{16}" }
issued_by = 2024-01-02

[[field]]
name = "licence_no"
title = "许可编号"
type = "code"
required = true

[[field]]
name = "uscc"
title = "统一社会信用代码"
type = "code"

[[field]]
name = "amount"
title = "金额"
type = "decimal"
scale = 2
max_digits = 12
"""


def advice(text: str) -> list[tuple[str, str]]:
    return [(it.code, it.field) for it in advise(parse_catalog(text.encode(), "test"))]


def write(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """As much of a workspace as these commands need; its settings are broken, which is of no concern here."""
    root = tmp_path / "workspace"
    write(root, "duizhang.toml", "= broken")
    write(root / "catalogs", "licence.toml", GOOD)
    return root


def test_list_shows_built_in_catalogs_and_the_workspaces(workspace: Path) -> None:
    found = {it["id"]: it for it in done("-C", workspace, "catalog", "list", "--json").json["catalogs"]}
    assert list(found) == ["licence", "registration"]
    assert found["registration"]["built_in"] is True
    licence = found["licence"]
    assert (licence["version"], licence["fields"], licence["key"], licence["built_in"]) == (3, 3, ["licence_no"], False)
    assert licence["file"].endswith("catalogs/licence.toml")
    assert licence["digest"][:16] in done("-C", workspace, "catalog", "list").out


def test_outside_a_workspace_the_built_in_ones_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DUIZHANG_HOME", raising=False)
    assert [it["id"] for it in done("catalog", "list", "--json").json["catalogs"]] == ["registration"]


def test_a_workspace_that_was_named_must_be_one(tmp_path: Path) -> None:
    answer = duizhang("-C", tmp_path, "catalog", "list", "--json")
    assert (answer.code, answer.json["error"]["code"]) == (2, "workspace.missing")


def test_show_has_everything_and_its_declaration_gives_the_digest(workspace: Path) -> None:
    shown = done("-C", workspace, "catalog", "show", "licence", "--json").json
    assert shown["name"] == "licence/3"
    assert hashlib.sha256(shown["declaration"].encode()).hexdigest() == shown["digest"]
    assert shown["subject"] == {"field": "uscc", "visibility": "public", "public_pattern": "9[13][0-9A-Z]{16}"}
    assert shown["other"] == {"issued_by": "2024-01-02"}
    assert (shown["utc_offset"], shown["archive"]) == ("+08:00", True)
    amount = shown["fields"][2]
    assert amount == {
        "name": "amount",
        "title": "金额",
        "type": "decimal",
        "scale": 2,
        "key": False,
        "personal": False,
        "rules": {"max_digits": 12},
    }
    assert [field["key"] for field in shown["fields"]] == [True, False, False]
    text = done("-C", workspace, "catalog", "show", "licence").out
    assert all(word in text for word in ("licence_no *", "许可编号", "decimal(2)", shown["digest"]))


def test_an_unknown_catalog_is_refused_with_those_there_are(workspace: Path) -> None:
    answer = duizhang("-C", workspace, "catalog", "show", "nothing", "--json")
    assert (answer.code, answer.json["error"]["code"]) == (2, "catalog.unknown")
    assert "licence" in answer.json["error"]["message"]


def test_check_of_everything_names_each_invalid_file_and_ends_with_2(workspace: Path) -> None:
    write(workspace / "catalogs", "a.toml", "id = 5")
    write(workspace / "catalogs", "b.toml", GOOD.replace('"decimal"', '"money"'))
    write(workspace / "catalogs", "licence2.toml", GOOD)
    answer = duizhang("-C", workspace, "catalog", "check", "--json")
    assert answer.code == 2
    found = {Path(it["file"]).name: it for it in answer.json["catalogs"]}
    assert {name: it.get("error", {}).get("code") for name, it in found.items()} == {
        "registration.toml": None,
        "a.toml": "catalog.field",
        "b.toml": "catalog.field_type",
        "licence.toml": None,
        "licence2.toml": "catalog.id_repeated",
    }
    assert answer.json["error"]["code"] == "catalog.field"
    assert found["licence.toml"]["valid"] is True


def test_check_of_one_file_or_one_catalog(workspace: Path, tmp_path: Path) -> None:
    (one,) = done("-C", workspace, "catalog", "check", "licence", "--json").json["catalogs"]
    assert (one["catalog"], one["valid"], one["advice"]) == ("licence/3", True, [])
    file = write(tmp_path, "new.toml", GOOD.replace("required = true", ""))
    (one,) = done("catalog", "check", file, "--json").json["catalogs"]
    assert [it["code"] for it in one["advice"]] == ["advice.key_required"]
    assert "advice.key_required" in done("catalog", "check", file).out
    answer = duizhang("catalog", "check", write(tmp_path, "bad.toml", "="), "--json")
    assert (answer.code, answer.json["error"]["code"]) == (2, "catalog.toml")
    answer = duizhang("catalog", "check", tmp_path / "none.toml", "--json")
    assert (answer.code, answer.json["error"]["code"]) == (2, "catalog.unreadable_file")


def test_the_built_in_catalogs_need_no_advice() -> None:
    built_in = Path(__file__).parents[2] / "ledger" / "catalogs"
    for path in built_in.glob("*.toml"):
        assert advice(path.read_text(encoding="utf-8")) == []


# ---- advice ----


def test_a_sound_catalog_gets_no_advice() -> None:
    assert advice(GOOD) == []


def test_missing_titles_and_unbounded_decimals_are_mentioned() -> None:
    text = GOOD.replace('title = "行政许可"\n', "").replace('title = "金额"\n', "").replace("max_digits = 12", "")
    assert advice(text) == [("advice.title", ""), ("advice.title", "amount"), ("advice.decimal_digits", "amount")]


@pytest.mark.parametrize(
    ("title", "looks"),
    [
        ("姓名", True),
        ("法定代表人姓名", True),
        ("法定代表人", True),
        ("证件号码", True),
        ("身份证号", True),
        ("联系电话", True),
        ("企业名称", False),
        ("许可编号", False),
    ],
)
def test_what_looks_personal_should_be_marked(title: str, looks: bool) -> None:
    text = GOOD.replace("金额", title)
    assert (("advice.personal", "amount") in advice(text)) is looks
    assert advice(text.replace("max_digits = 12", "max_digits = 12\npersonal = true")) == []


@pytest.mark.parametrize(
    ("pattern", "person"),
    [
        ("9[13][0-9A-Z]{16}", False),
        ("9[0-9A-Z]{17}", True),
        ("[0-9A-Z]{18}", True),
        ("92440[0-9A-Z]{13}", True),
        ("92[0-9]{16}", True),
        ("(91|92)[0-9A-Z]{16}", True),
        ("(91|93)[0-9A-Z]{16}", False),
        ("9[13][0-9A-Z]{16}|[0-9]{15}", True),
        ("9[13][0-9A-Z]{16}|44[0-9]{15}X", True),
        ("1[0-9]{10}", True),
        ("([0-9A-Z]{2,3}){6,9}", True),
        ("9[13][0-9A-Z]{15}", False),
        ("9[0-9]{18,20}", False),
    ],
)
def test_a_public_pattern_that_a_persons_number_would_match_is_mentioned(pattern: str, person: bool) -> None:
    found = advice(GOOD.replace("9[13][0-9A-Z]{16}", pattern))
    assert (("advice.public_subject", "uscc") in found) is person


def test_a_public_subject_without_a_pattern_is_mentioned() -> None:
    text = GOOD.replace(', public_pattern = "9[13][0-9A-Z]{16}"', "")
    assert advice(text) == [("advice.public_subject", "uscc")]
    assert advice(text.replace('"public"', '"protected"')) == []
