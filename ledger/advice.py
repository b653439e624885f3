"""What a data steward should look at in a catalog that is valid: advice, which changes no byte and refuses nothing."""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ledger import pattern
from ledger.catalog import Catalog, Field

_DIGITS = frozenset(string.digits)
_CODE = frozenset(string.digits + string.ascii_uppercase)
_AREA = frozenset("12345678")
"""First digits of the area codes that identity numbers begin with."""

Shape = Sequence[frozenset[str]]

PERSONS: tuple[tuple[str, str, Shape], ...] = (
    (
        "92 开头的统一社会信用代码（个体工商户，指向自然人）",
        "unified social credit codes beginning 92, which point to a natural person",
        [frozenset("9"), frozenset("2"), *[_DIGITS] * 6, *[_CODE] * 10],
    ),
    (
        "18 位公民身份号码",
        "identity numbers of 18 digits",
        [_AREA, *[_DIGITS] * 16, _DIGITS | {"X"}],
    ),
    ("15 位公民身份号码", "identity numbers of 15 digits", [_AREA, *[_DIGITS] * 14]),
    ("手机号码", "mobile telephone numbers", [frozenset("1"), frozenset("3456789"), *[_DIGITS] * 9]),
)
"""Identifiers of natural persons, each as the characters that may stand at each place."""

PERSONAL_TITLES = (
    "姓名", "身份证", "身份号码", "证件号", "法定代表人", "法人代表", "负责人", "联系人", "电话", "手机", "住址", "邮箱", "出生",
)  # fmt: skip
PERSONAL_NAMES = (
    "id_card",
    "idcard",
    "id_no",
    "id_number",
    "legal_rep",
    "phone",
    "mobile",
    "telephone",
    "email",
    "birth",
)


@dataclass(frozen=True)
class Advice:
    """One remark: a code, the same sentence twice, the field it is about ("" for the catalog)."""

    code: str
    zh: str
    en: str
    field: str = ""


def advise(catalog: Catalog) -> list[Advice]:
    """Everything worth a look, in the order of the file."""
    found = list(_about_catalog(catalog))
    for field in catalog.fields:
        found += _about_field(catalog, field)
    return found


def _about_catalog(catalog: Catalog) -> Iterator[Advice]:
    if catalog.title is None:
        yield Advice("advice.title", "目录没有 title", "the catalog has no title")
    subject = catalog.subject
    if subject is None or subject.visibility != "public":
        return
    if subject.public_pattern is None:
        yield Advice(
            "advice.public_subject",
            "主体公开且没有 public_pattern：任何取值（包括个人证件号码）的标签都可被任何人枚举",
            "the subject is public without a public_pattern: the tag of any value, identity numbers too, can be enumerated",
            subject.field,
        )
        return
    root = pattern.parse(subject.public_pattern).root
    for zh, en, shape in PERSONS:
        if len(shape) in _reach(root, {0}, shape):
            yield Advice(
                "advice.public_subject",
                f"public_pattern 会匹配{zh}：其标签可被任何人枚举，请排除",
                f"public_pattern matches {en}: anyone can enumerate their tags; leave them out",
                subject.field,
            )


def _about_field(catalog: Catalog, field: Field) -> Iterator[Advice]:
    if field.title is None:
        yield Advice(
            "advice.title",
            f"字段 {field.name} 没有 title：文件中只能按字段名找到它",
            f"field {field.name} has no title: a file can name it only as {field.name}",
            field.name,
        )
    if field.name in catalog.key and field.rules.get("required") is not True:
        yield Advice(
            "advice.key_required",
            f"主键字段 {field.name} 未标 required = true（主键为空的行一律无法读取）",
            f"key field {field.name} is not marked required = true (a row whose key is null is unreadable)",
            field.name,
        )
    if field.type == "decimal" and not {"max_digits", "max_length"} & set(field.rules):
        yield Advice(
            "advice.decimal_digits",
            f"小数字段 {field.name} 没有 max_digits：多敲几位数字也不会被质量检查发现",
            f"decimal {field.name} has no max_digits: quality checks will not notice a few digits too many",
            field.name,
        )
    if not field.personal and _looks_personal(field):
        yield Advice(
            "advice.personal",
            f"字段 {field.name}（{field.title or field.name}）像是个人信息，却未标 personal = true：其值会显示在差异和简报里",
            f"field {field.name} ({field.title or field.name}) looks personal and is not marked personal = true: its "
            "values are shown in findings and briefs",
            field.name,
        )


def _looks_personal(field: Field) -> bool:
    title = field.title or ""
    return any(word in title for word in PERSONAL_TITLES) or any(word in field.name for word in PERSONAL_NAMES)


def _reach(node: pattern.Node, starts: set[int], shape: Shape) -> set[int]:
    """The places that `node` can lead to from `starts`, along some value of the shape."""
    if isinstance(node, pattern.Chars):
        return {at + 1 for at in starts if at < len(shape) and shape[at] & node.members}
    if isinstance(node, pattern.Sequence):
        for part in node.parts:
            starts = _reach(part, starts, shape)
        return starts
    if isinstance(node, pattern.Either):
        return set().union(*(_reach(part, starts, shape) for part in node.parts))
    ends: set[int] = set()
    for times in range(1, node.most + 1):
        starts = _reach(node.part, starts, shape)
        if not starts:
            break
        if times >= node.least:
            ends |= starts
    return ends
