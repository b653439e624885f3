"""A catalog: what one kind of record consists of (formats F1).

In go the bytes of a TOML file, out comes a frozen `Catalog`, or an InputError that says which rule was broken. What
decides bytes under an anchored root is in `declaration`, whose SHA-256 is the catalog digest; the rest of the file
(titles, quality rules, provenance, `personal`, `archive`) is for display, masking and storage and changes no such byte.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import Any, Literal, get_args

from ledger import jcs, pattern
from ledger.errors import InputError

FieldType = Literal["text", "code", "enum", "integer", "decimal", "date", "datetime"]
Visibility = Literal["public", "protected"]

FIELD_TYPES: tuple[FieldType, ...] = get_args(FieldType)
MAX_VERSION = 2_147_483_647
MAX_SCALE = 38
DEFAULT_OFFSET = "+08:00"
CATALOG_ID = re.compile(r"[a-z][a-z0-9_-]{0,31}")
FIELD_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
UTC_OFFSET = re.compile(r"([+-])([01][0-9]|2[0-3]):([0-5][0-9])")

MAX_TOML = 1 << 20
"""Bytes of a catalog file: hundreds of fields with their rules take a tenth of it; a wrong file is often larger."""
DECLARATION = jcs.Kind("catalog", "目录声明", "catalog declaration", limit=1 << 20)


@dataclass(frozen=True)
class Field:
    """One declared field; `rules` are its other members, for quality and display only."""

    name: str
    type: FieldType
    scale: int | None = None
    title: str | None = None
    personal: bool = False
    rules: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Subject:
    """Whom a record is about: the field that names them, and how its tag may be computed (F4)."""

    field: str
    visibility: Visibility
    public_pattern: str | None = None


@dataclass(frozen=True)
class Catalog:
    """One version of a catalog; build it with `parse_catalog` or `from_declaration`, which check every rule of F1."""

    id: str
    version: int
    key: tuple[str, ...]
    fields: tuple[Field, ...]
    subject: Subject | None = None
    utc_offset: str = DEFAULT_OFFSET
    title: str | None = None
    archive: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def name(self) -> str:
        """`<id>/<version>`, as it stands in canonical bytes and descriptors."""
        return f"{self.id}/{self.version}"

    @cached_property
    def declaration(self) -> bytes:
        """The bytes whose SHA-256 is the catalog digest: RFC 8785 of what decides the bytes of records (F1)."""
        fields = [
            {"name": f.name, "type": f.type} if f.scale is None else {"name": f.name, "scale": f.scale, "type": f.type}
            for f in self.fields
        ]
        members: dict[str, Any] = {
            "fields": fields,
            "id": self.id,
            "key": list(self.key),
            "utc_offset": self.utc_offset,
            "version": self.version,
        }
        if self.subject is not None:
            subject = {"field": self.subject.field, "visibility": self.subject.visibility}
            if self.subject.public_pattern is not None:
                subject["public_pattern"] = self.subject.public_pattern
            members["subject"] = subject
        return jcs.dump(members)

    @cached_property
    def digest(self) -> bytes:
        """The catalog digest, 32 bytes."""
        return hashlib.sha256(self.declaration).digest()

    @cached_property
    def offset(self) -> timedelta:
        """What a local time without a zone is ahead of UTC."""
        found = UTC_OFFSET.fullmatch(self.utc_offset)
        if found is None:
            raise ValueError(f"utc_offset {self.utc_offset!r}")
        size = timedelta(hours=int(found[2]), minutes=int(found[3]))
        return -size if found[1] == "-" else size

    @cached_property
    def by_name(self) -> Mapping[str, Field]:
        """Declared fields by name, in declared order."""
        return {f.name: f for f in self.fields}

    @cached_property
    def _public_pattern(self) -> pattern.Pattern | None:
        if self.subject is None or self.subject.public_pattern is None:
            return None
        return pattern.parse(self.subject.public_pattern)

    def is_public(self, value: str) -> bool:
        """Whether the subject `value` (in normal form) is tagged without a key: visibility public, pattern met (F4)."""
        if self.subject is None or self.subject.visibility != "public":
            return False
        return self._public_pattern is None or self._public_pattern.matches(value)


def parse_catalog(data: bytes, where: str) -> Catalog:
    """The catalog written in the TOML file `data`; `where` (its path) goes into every message.

    InputError `catalog.<rule>` for the first rule broken: `size encoding toml id version title key field field_name
    field_type field_repeated field_title scale personal subject public_pattern utc_offset archive`.
    """
    if len(data) > MAX_TOML:
        raise _refuse("size", f"目录文件超过 {MAX_TOML} 字节", f"a catalog file has at most {MAX_TOML} bytes", where)
    try:
        # utf-8-sig: editors on Windows put a byte order mark first; it is no part of the TOML.
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _refuse(
            "encoding",
            f"第 {error.start} 字节处不是 UTF-8",
            f"not UTF-8 at byte {error.start}; save it as UTF-8",
            where,
        ) from error
    try:
        top = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise _refuse("toml", f"不是合法的 TOML：{reason}", f"not TOML: {reason}", where) from error
    tables = top.get("field")
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise _refuse("field", "缺少 [[field]] 字段声明", "declares no [[field]] tables", where)
    archive = top.get("archive", True)
    if not isinstance(archive, bool):
        raise _refuse(
            "archive",
            f"archive 须为 true 或 false，而不是 {archive!r}",
            f"archive is true or false, not {archive!r}",
            where,
        )
    return _checked(
        id_=top.get("id"),
        version=top.get("version"),
        key=top.get("key"),
        fields=tuple(_field(table, number, where) for number, table in enumerate(tables, 1)),
        subject=top.get("subject"),
        utc_offset=top.get("utc_offset", DEFAULT_OFFSET),
        title=_title(top, "title", where),
        archive=archive,
        extra={n: v for n, v in top.items() if n not in TOP_MEMBERS},
        where=where,
    )


TOP_MEMBERS = frozenset({"id", "version", "key", "title", "subject", "utc_offset", "field", "archive"})
FIELD_MEMBERS = frozenset({"name", "title", "type", "scale", "personal"})


def from_declaration(data: bytes, where: str) -> Catalog:
    """The catalog whose `declaration` is `data` (as found in a proof file): titles and rules are not in there.

    InputError `catalog.<rule>` unless `data` is its own RFC 8785 form, has exactly the members of F1 and obeys F1.
    """
    top = jcs.load(data, DECLARATION, where)
    members = {"fields", "id", "key", "utc_offset", "version"}
    if not isinstance(top, dict) or set(top) - {"subject"} != members:
        raise _refuse(
            "members",
            "目录声明的成员不符合 F1",
            f"a declaration has exactly {sorted(members)} and maybe subject",
            where,
        )
    tables = top["fields"]
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise _refuse("field", "缺少字段声明", "declares no fields", where)
    for table in tables:
        if set(table) - {"scale"} != {"name", "type"}:
            raise _refuse("members", "字段声明的成员不符合 F1", "a field has exactly name, type and maybe scale", where)
    return _checked(
        id_=top["id"],
        version=top["version"],
        key=top["key"],
        fields=tuple(_field(table, number, where) for number, table in enumerate(tables, 1)),
        subject=top.get("subject"),
        has_subject="subject" in top,
        utc_offset=top["utc_offset"],
        title=None,
        archive=True,
        extra={},
        where=where,
    )


def _refuse(rule: str, zh: str, en: str, where: str) -> InputError:
    return InputError(f"catalog.{rule}", zh, en, where)


def _title(table: Mapping[str, Any], rule: str, where: str) -> str | None:
    title = table.get("title")
    if title is not None and not isinstance(title, str):
        raise _refuse(rule, f"title 须为文字，而不是 {title!r}", f"title is a string, not {title!r}", where)
    return title


def _whole(value: object, low: int, high: int) -> bool:
    # bool is a kind of int in Python, never in a catalog.
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _field(table: Mapping[str, Any], number: int, where: str) -> Field:
    name, type_, scale = table.get("name"), table.get("type"), table.get("scale")
    if not isinstance(name, str) or not FIELD_NAME.fullmatch(name):
        raise _refuse(
            "field_name",
            f"第 {number} 个字段的 name {name!r} 须形如 [a-z][a-z0-9_]{{0,63}}",
            f"field {number}: name {name!r} does not have the form [a-z][a-z0-9_]{{0,63}}",
            where,
        )
    if not isinstance(type_, str) or type_ not in FIELD_TYPES:
        raise _refuse(
            "field_type",
            f"字段 {name} 的类型 {type_!r} 未知，只能是 {' '.join(FIELD_TYPES)}",
            f"field {name}: type {type_!r} is unknown; it is one of {' '.join(FIELD_TYPES)}",
            where,
        )
    if type_ == "decimal" and not _whole(scale, 0, MAX_SCALE):
        raise _refuse(
            "scale",
            f"字段 {name} 是 decimal，须声明 scale（0–{MAX_SCALE} 的整数），现为 {scale!r}",
            f"field {name} is a decimal and needs a scale, an integer 0-{MAX_SCALE}, not {scale!r}",
            where,
        )
    if type_ != "decimal" and "scale" in table:
        raise _refuse(
            "scale",
            f"字段 {name} 是 {type_}，只有 decimal 才有 scale",
            f"field {name} is {type_}; only a decimal has a scale",
            where,
        )
    personal = table.get("personal", False)
    if not isinstance(personal, bool):
        # Refused, not guessed: the value decides whether people's data is masked.
        raise _refuse(
            "personal",
            f"字段 {name} 的 personal 须为 true 或 false，而不是 {personal!r}",
            f"field {name}: personal is true or false, not {personal!r}",
            where,
        )
    rules = {n: v for n, v in table.items() if n not in FIELD_MEMBERS}
    return Field(name, type_, scale, _title(table, "field_title", where), personal, rules)


def _checked(
    *,
    id_: object,
    version: object,
    key: object,
    fields: tuple[Field, ...],
    subject: object,
    utc_offset: object,
    title: str | None,
    archive: bool,
    extra: Mapping[str, Any],
    where: str,
    has_subject: bool = False,
) -> Catalog:
    if not isinstance(id_, str) or not CATALOG_ID.fullmatch(id_):
        raise _refuse(
            "id",
            f"id {id_!r} 须形如 [a-z][a-z0-9_-]{{0,31}}",
            f"id {id_!r} does not have the form [a-z][a-z0-9_-]{{0,31}}",
            where,
        )
    if not isinstance(version, int) or not _whole(version, 1, MAX_VERSION):
        raise _refuse(
            "version",
            f"version {version!r} 须为 1–{MAX_VERSION} 的整数",
            f"version {version!r} is not an integer 1-{MAX_VERSION}",
            where,
        )
    names: set[str] = set()
    for name in (f.name for f in fields):
        if name in names:
            raise _refuse("field_repeated", f"字段 {name} 声明了两次", f"field {name} is declared twice", where)
        names.add(name)
    if not isinstance(key, list) or not key:
        raise _refuse(
            "key",
            f"key 须为非空的字段名列表，现为 {key!r}",
            f"key is a non-empty list of field names, not {key!r}",
            where,
        )
    for place, name in enumerate(key):
        if not isinstance(name, str) or name not in names:
            raise _refuse(
                "key",
                f"key 中的 {name!r} 不是已声明的字段",
                f"key names {name!r}, which is not a declared field",
                where,
            )
        if name in key[:place]:
            raise _refuse("key", f"key 中 {name} 重复", f"key names {name} twice", where)
    if not isinstance(utc_offset, str) or not UTC_OFFSET.fullmatch(utc_offset):
        raise _refuse(
            "utc_offset",
            f"utc_offset {utc_offset!r} 须形如 +08:00（±hh:mm，00–23，00–59）",
            f"utc_offset {utc_offset!r} does not have the form ±hh:mm, hours 00-23, minutes 00-59",
            where,
        )
    given = None if subject is None and not has_subject else _subject(subject, names, where)
    return Catalog(id_, version, tuple(key), fields, given, utc_offset, title, archive, dict(extra))


def _subject(table: object, names: set[str], where: str) -> Subject:
    if not isinstance(table, dict):
        raise _refuse("subject", f"subject 须为表，而不是 {table!r}", f"subject is a table, not {table!r}", where)
    for member in table:
        if member not in ("field", "visibility", "public_pattern"):
            raise _refuse(
                "subject",
                f"subject 中有未知成员 {member!r}，只能有 field、visibility、public_pattern",
                f"subject has the unknown member {member!r}; it has field, visibility and maybe public_pattern",
                where,
            )
    name, visibility = table.get("field"), table.get("visibility")
    if not isinstance(name, str) or name not in names:
        raise _refuse(
            "subject",
            f"subject.field {name!r} 不是已声明的字段",
            f"subject.field {name!r} is not a declared field",
            where,
        )
    if visibility not in ("public", "protected"):
        raise _refuse(
            "subject",
            f"subject.visibility {visibility!r} 须为 public 或 protected",
            f"subject.visibility {visibility!r} is neither public nor protected",
            where,
        )
    if "public_pattern" not in table:
        return Subject(name, visibility)
    text = table["public_pattern"]
    if not isinstance(text, str):
        raise _refuse(
            "public_pattern",
            f"public_pattern 须为文字，而不是 {text!r}",
            f"public_pattern is a string, not {text!r}",
            where,
        )
    try:
        pattern.parse(text)
    except pattern.PatternError as error:
        raise _refuse(
            "public_pattern",
            f"public_pattern {text[:80]!r}：{error.zh}",
            f"public_pattern {text[:80]!r}: {error.en}",
            where,
        ) from error
    return Subject(name, visibility, text)
