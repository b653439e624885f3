"""Catalogs: what is accepted, what is refused and under which name, and what does and does not move the digest."""

from __future__ import annotations

import hashlib
import pickle
from datetime import timedelta

import pytest

from ledger.catalog import Catalog, from_declaration, parse_catalog
from ledger.errors import InputError

GOOD = """
id = "permits"
version = 3
title = "许可"
key = ["no", "office"]
subject = { field = "holder", visibility = "protected" }
utc_offset = "-03:30"

[[field]]
name = "no"
type = "text"

[[field]]
name = "office"
type = "code"
title = "机关"

[[field]]
name = "holder"
type = "text"

[[field]]
name = "fee"
type = "decimal"
scale = 2
"""


def parse(text: str) -> Catalog:
    return parse_catalog(text.encode(), "permits.toml")


def changed(old: str, new: str) -> str:
    assert GOOD.count(old) == 1, old
    return GOOD.replace(old, new)


def test_a_catalog_says_what_the_file_says() -> None:
    catalog = parse(GOOD)
    assert (catalog.id, catalog.version, catalog.name, catalog.title) == ("permits", 3, "permits/3", "许可")
    assert catalog.key == ("no", "office")
    assert [(f.name, f.type, f.scale, f.title) for f in catalog.fields] == [
        ("no", "text", None, None),
        ("office", "code", None, "机关"),
        ("holder", "text", None, None),
        ("fee", "decimal", 2, None),
    ]
    assert catalog.offset == -timedelta(hours=3, minutes=30)
    assert list(catalog.by_name) == ["no", "office", "holder", "fee"]
    assert catalog.archive is True
    assert not any(f.personal for f in catalog.fields)


def test_the_declaration_is_the_one_of_the_formats_page() -> None:
    by_hand = (
        b'{"fields":[{"name":"no","type":"text"},{"name":"office","type":"code"},{"name":"holder","type":"text"},'
        b'{"name":"fee","scale":2,"type":"decimal"}],"id":"permits","key":["no","office"],'
        b'"subject":{"field":"holder","visibility":"protected"},"utc_offset":"-03:30","version":3}'
    )
    assert parse(GOOD).declaration == by_hand
    assert parse(GOOD).digest == hashlib.sha256(by_hand).digest()


def test_without_subject_and_offset_the_declaration_has_no_subject_and_the_default_offset() -> None:
    catalog = parse(
        changed('subject = { field = "holder", visibility = "protected" }', "").replace('utc_offset = "-03:30"', "")
    )
    assert catalog.subject is None
    assert catalog.offset == timedelta(hours=8)
    assert b'"key":["no","office"],"utc_offset":"+08:00","version":3}' in catalog.declaration


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('title = "许可"', ""),
        ('title = "机关"', 'title = "许可机关"'),
        ('title = "机关"', 'required = true\nmax_length = 9\nvalues = ["a"]\npattern = "(["'),
        ('title = "机关"', "personal = true"),
        ('title = "许可"', 'archive = false\nprovenance = "省标"\nrules = [{ a = 1 }]\nupdated = 2024-01-01'),
    ],
)
def test_what_is_for_display_never_moves_the_digest(old: str, new: str) -> None:
    assert parse(changed(old, new)).digest == parse(GOOD).digest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('id = "permits"', 'id = "permit"'),
        ("version = 3", "version = 4"),
        ('key = ["no", "office"]', 'key = ["office", "no"]'),
        ('name = "fee"', 'name = "fees"'),
        ("scale = 2", "scale = 3"),
        ('type = "code"', 'type = "enum"'),
        ('visibility = "protected"', 'visibility = "public"'),
        ('visibility = "protected"', 'visibility = "protected", public_pattern = "9"'),
        ('utc_offset = "-03:30"', 'utc_offset = "+03:30"'),
    ],
)
def test_what_decides_bytes_moves_the_digest(old: str, new: str) -> None:
    assert parse(changed(old, new)).digest != parse(GOOD).digest


def test_display_members_are_kept() -> None:
    catalog = parse(
        changed('title = "机关"', "personal = true\nmax_length = 9").replace('title = "许可"', "archive = false\nx = 1")
    )
    office = catalog.by_name["office"]
    assert office.personal is True
    assert office.rules == {"max_length": 9}
    assert catalog.archive is False
    assert catalog.extra == {"x": 1}


@pytest.mark.parametrize(
    ("rule", "old", "new"),
    [
        ("id", 'id = "permits"', ""),
        ("id", 'id = "permits"', "id = 1"),
        ("id", 'id = "permits"', 'id = ""'),
        ("id", 'id = "permits"', 'id = "Permits"'),
        ("id", 'id = "permits"', 'id = "1permits"'),
        ("id", 'id = "permits"', 'id = "per mits"'),
        ("id", 'id = "permits"', 'id = "permits\\n"'),
        ("id", 'id = "permits"', f'id = "{"p" * 33}"'),
        ("version", "version = 3", ""),
        ("version", "version = 3", "version = 0"),
        ("version", "version = 3", "version = -1"),
        ("version", "version = 3", "version = 2147483648"),
        ("version", "version = 3", "version = true"),
        ("version", "version = 3", "version = 3.0"),
        ("version", "version = 3", 'version = "3"'),
        ("key", 'key = ["no", "office"]', ""),
        ("key", 'key = ["no", "office"]', "key = []"),
        ("key", 'key = ["no", "office"]', 'key = "no"'),
        ("key", 'key = ["no", "office"]', 'key = ["no", "no"]'),
        ("key", 'key = ["no", "office"]', 'key = ["no", "nowhere"]'),
        ("key", 'key = ["no", "office"]', "key = [1]"),
        ("key", 'key = ["no", "office"]', 'key = [["no"]]'),
        ("title", 'title = "许可"', "title = 1"),
        ("field_title", 'title = "机关"', "title = 1"),
        ("field_name", 'name = "fee"', ""),
        ("field_name", 'name = "fee"', 'name = "Fee"'),
        ("field_name", 'name = "fee"', 'name = "fee-x"'),
        ("field_name", 'name = "fee"', 'name = "费用"'),
        ("field_name", 'name = "fee"', 'name = "fee\\n"'),
        ("field_name", 'name = "fee"', f'name = "{"f" * 65}"'),
        ("field_repeated", 'name = "fee"', 'name = "no"'),
        ("field_type", 'type = "code"', ""),
        ("field_type", 'type = "code"', 'type = "string"'),
        ("field_type", 'type = "code"', 'type = "Code"'),
        ("field_type", 'type = "code"', "type = 1"),
        ("field_type", 'type = "code"', 'type = ["code"]'),
        ("scale", "scale = 2", ""),
        ("scale", "scale = 2", "scale = 39"),
        ("scale", "scale = 2", "scale = -1"),
        ("scale", "scale = 2", "scale = true"),
        ("scale", "scale = 2", "scale = 2.0"),
        ("scale", "scale = 2", 'scale = "2"'),
        ("scale", 'title = "机关"', "scale = 0"),
        ("personal", 'title = "机关"', 'personal = "yes"'),
        ("archive", 'title = "许可"', "archive = 1"),
        ("subject", 'subject = { field = "holder", visibility = "protected" }', 'subject = "holder"'),
        ("subject", 'field = "holder", ', ""),
        ("subject", 'field = "holder"', 'field = "nobody"'),
        ("subject", 'field = "holder"', "field = 1"),
        ("subject", ', visibility = "protected"', ""),
        ("subject", 'visibility = "protected"', 'visibility = "secret"'),
        ("subject", 'visibility = "protected"', 'visibility = "protected", title = "x"'),
        ("public_pattern", 'visibility = "protected"', 'visibility = "protected", public_pattern = ""'),
        ("public_pattern", 'visibility = "protected"', 'visibility = "public", public_pattern = "9.*"'),
        ("public_pattern", 'visibility = "protected"', 'visibility = "public", public_pattern = 9'),
        ("utc_offset", 'utc_offset = "-03:30"', "utc_offset = 8"),
        ("utc_offset", 'utc_offset = "-03:30"', 'utc_offset = "Z"'),
        ("utc_offset", 'utc_offset = "-03:30"', 'utc_offset = "08:00"'),
        ("utc_offset", 'utc_offset = "-03:30"', 'utc_offset = "+24:00"'),
        ("utc_offset", 'utc_offset = "-03:30"', 'utc_offset = "+08:60"'),
        ("utc_offset", 'utc_offset = "-03:30"', 'utc_offset = "+0800"'),
        ("utc_offset", 'utc_offset = "-03:30"', 'utc_offset = "+08:00\\n"'),
        ("utc_offset", 'utc_offset = "-03:30"', 'utc_offset = "Asia/Shanghai"'),
        ("toml", "version = 3", "version = "),
        ("toml", "version = 3", "version = 3\nversion = 3"),
        ("toml", "version = 3", f"version = {'9' * 5000}"),
        ("toml", "version = 3", f"version = {'[' * 100_000}"),
    ],
)
def test_a_broken_rule_is_refused_by_name(rule: str, old: str, new: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(changed(old, new))
    assert (caught.value.code, caught.value.where) == (f"catalog.{rule}", "permits.toml")
    assert caught.value.zh


@pytest.mark.parametrize("tables", ["", "field = 1", "field = []", 'field = ["no"]', '[field]\nname = "no"'])
def test_a_catalog_without_fields_is_refused(tables: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(f'id = "a"\nversion = 1\nkey = ["no"]\n{tables}')
    assert caught.value.code == "catalog.field"


def test_the_bounds_themselves_are_accepted() -> None:
    assert parse(changed("version = 3", "version = 2147483647")).version == 2_147_483_647
    assert parse(changed("version = 3", "version = 1")).version == 1
    assert parse(changed("scale = 2", "scale = 38")).by_name["fee"].scale == 38
    assert parse(changed("scale = 2", "scale = 0")).by_name["fee"].scale == 0
    assert parse(changed('id = "permits"', f'id = "p{"_-9" * 10}x"')).id == "p" + "_-9" * 10 + "x"
    assert parse(changed('"-03:30"', '"+23:59"')).offset == timedelta(hours=23, minutes=59)
    assert parse(changed('name = "fee"', f'name = "{"f" * 64}"')).fields[-1].name == "f" * 64


def test_bytes_that_are_no_catalog_file_are_refused() -> None:
    for code, data in [
        ("catalog.encoding", GOOD.encode("gb18030")),
        ("catalog.size", GOOD.encode() + b"#" * (1 << 20)),
        ("catalog.toml", GOOD.encode() + b"\x00"),
    ]:
        with pytest.raises(InputError) as caught:
            parse_catalog(data, "x.toml")
        assert caught.value.code == code


def test_a_byte_order_mark_before_the_toml_is_ignored() -> None:
    assert parse("\ufeff" + GOOD) == parse(GOOD)


def test_fields_may_be_written_as_inline_tables() -> None:
    inline = 'id = "a"\nversion = 1\nkey = ["k"]\nfield = [{ name = "k", type = "text" }]'
    assert parse(inline).by_name["k"].type == "text"


def test_a_declaration_gives_the_catalog_back_without_its_titles() -> None:
    catalog = parse(GOOD)
    again = from_declaration(catalog.declaration, "proof.json")
    assert again.declaration == catalog.declaration
    assert again == from_declaration(again.declaration, "")
    assert (again.key, again.subject, again.utc_offset, again.title) == (
        catalog.key,
        catalog.subject,
        "-03:30",
        None,
    )
    assert [(f.name, f.type, f.scale) for f in again.fields] == [(f.name, f.type, f.scale) for f in catalog.fields]


@pytest.mark.parametrize(
    ("code", "old", "new"),
    [
        ("catalog.not_canonical", b'"version":3', b'"version": 3'),
        ("catalog.not_canonical", b'"no"', b'"\\u006eo"'),
        ("catalog.json", b'"version":3}', b'"version":3'),
        ("catalog.number", b'"version":3', b'"version":3.0'),
        ("catalog.number", b'"version":3', b'"version":9007199254740992'),
        ("catalog.number", b'"version":3', b'"version":NaN'),
        ("catalog.repeated_member", b'"version":3', b'"version":3,"version":3'),
        ("catalog.version", b'"version":3', b'"version":true'),
        ("catalog.members", b',"version":3', b""),
        ("catalog.members", b'"version":3', b'"version":3,"x":1'),
        ("catalog.members", b'"name":"office","type"', b'"name":"office","title":"x","type"'),
        ("catalog.members", b'"name":"office",', b""),
        ("catalog.scale", b'"scale":2,', b""),
        ("catalog.scale", b'"scale":2', b'"scale":null'),
        ("catalog.scale", b'"name":"office",', b'"name":"office","scale":null,'),
        ("catalog.subject", b'{"field":"holder","visibility":"protected"}', b"null"),
        ("catalog.public_pattern", b'"holder","vis', b'"holder","public_pattern":null,"vis'),
        ("catalog.utc_offset", b'"-03:30"', b"null"),
        ("catalog.key", b'["no","office"]', b'["no","nowhere"]'),
        ("catalog.encoding", b'"no"', b'"\xff"'),
    ],
)
def test_a_declaration_that_strays_is_refused(code: str, old: bytes, new: bytes) -> None:
    data = parse(GOOD).declaration
    assert old in data
    with pytest.raises(InputError) as caught:
        from_declaration(data.replace(old, new), "proof.json")
    assert caught.value.code == code


def test_a_declaration_is_an_object() -> None:
    for data in (b"[]", b"null", b'"x"', b'{"fields":[],"id":"a","key":[],"utc_offset":"+08:00","version":1}'):
        with pytest.raises(InputError):
            from_declaration(data, "")


def test_a_catalog_can_be_handed_to_another_process_and_stand_in_a_set() -> None:
    catalog = parse(GOOD)
    assert catalog.digest
    assert catalog.by_name
    assert pickle.loads(pickle.dumps(catalog)) == catalog
    assert len({catalog, parse(GOOD)}) == 1


def test_a_value_is_public_only_if_visibility_and_pattern_say_so() -> None:
    subject = 'subject = { field = "holder", visibility = "protected" }'
    pattern = ', public_pattern = "9[13]" }'
    protected = parse(changed(subject, subject.replace(" }", pattern)))
    patterned = parse(changed(subject, subject.replace("protected", "public").replace(" }", pattern)))
    public = parse(changed(subject, subject.replace("protected", "public")))
    without = parse(changed(subject, ""))
    assert [c.is_public("91") for c in (protected, patterned, public, without)] == [False, True, True, False]
    assert [c.is_public("92") for c in (protected, patterned, public, without)] == [False, False, True, False]
