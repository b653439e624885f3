"""A draft as the TOML that a data steward edits, with a remark in both languages wherever something was guessed."""

from __future__ import annotations

import json
import re

from ledger.catalog import Field
from ledger.drafting.draft import Drafted
from ledger.drafting.guess import Column
from ledger.drafting.names import field_names

_KEY = {
    "primary_key": ("表声明的主键", "the table's primary key"),
    "unique": ("猜测：样本中非空且不重复", "guessed: not null and unique in the sample"),
    "pair": ("猜测：样本中合起来非空且不重复", "guessed: together not null and unique in the sample"),
    "none": (
        "猜测，未经证实：样本中没有非空且不重复的列或两列；请改为真正的主键",
        "guessed and NOT borne out: no column, and no two, are not null and unique in the sample; name the real key",
    ),
}
_LEFT = {
    "type": ("类型没有规范形式（浮点、布尔、字节等）", "its type has no normal form (floats, booleans, bytes …)"),
    "unnamed": ("没有列名", "it has no heading"),
    "values": ("样本中有值没有规范形式", "some value of the sample has no normal form"),
}


def toml_of(drafted: Drafted) -> str:
    """The file's text. It holds headings, types and counts; no value of the sample."""
    catalog = drafted.catalog
    lines = [
        f"# 草稿：据样本 {drafted.rows} 行猜测，请逐项核对后再使用；一经上链，字段、类型与主键不可再改。",
        f"# A draft, guessed from {drafted.rows} rows: check every line before use. Once anchored, fields, types and key are fixed.",
    ]
    if drafted.unreadable:
        lines += [
            f"# 样本中有 {drafted.unreadable} 行无法读取（列数不符、编码错误等），未参与猜测。",
            f"# {drafted.unreadable} rows of the sample cannot be read (wrong number of cells, bytes that are no text …) and did not count.",
        ]
    lines += [f"id = {_text(catalog.id)}", f"version = {catalog.version}", '# title = "…"']
    zh, en = _KEY[drafted.key_from]
    lines += [f"# 主键：{zh}。 Key: {en}.", f"key = [{', '.join(_text(name) for name in catalog.key)}]"]
    if catalog.subject is not None:
        subject = catalog.subject
        lines += [
            "# 主体：猜测。public 表示其标签可被任何人枚举；92 开头（个体工商户）与个人证件号不在其内。",
            "# Subject: guessed. public means that anyone can enumerate its tags; codes of natural persons are left out.",
            f"subject = {{ field = {_text(subject.field)}, visibility = {_text(subject.visibility)}, "
            f"public_pattern = {_text(subject.public_pattern or '')} }}",
        ]
    else:
        lines.append('# 主体未识别。 No subject was found: subject = { field = "…", visibility = "protected" }')
    for title, reason in drafted.left_out:
        zh, en = _LEFT[reason]
        lines.append(f"# 未采用的列 column left out: {_text(title)} — {zh}; {en}")
    mapped = {field.name: field.title for field in catalog.fields if field.title is not None}
    if mapped and any(column.declared is not None for column in drafted.columns):
        lines += [
            "# 表的列名与字段名不同，请在 duizhang.toml 中写明。 The table's columns have other names; say so in duizhang.toml:",
            f"# [source.{catalog.id}.columns]",
            *(f"# {name} = {_text(column)}" for name, column in mapped.items()),
        ]
    _, numbered = field_names([column.title for column in drafted.columns])
    for field, column, only_number in zip(catalog.fields, drafted.columns, numbered, strict=True):
        lines += ["", "[[field]]", *_field(field, column, drafted, unnamed=only_number)]
    return "\n".join(lines) + "\n"


def _field(field: Field, column: Column, drafted: Drafted, *, unnamed: bool) -> list[str]:
    lines = []
    if unnamed and re.fullmatch(r"field_[0-9]+(_[0-9]+)?", field.name):
        lines.append("# 字段名待定：请改为英文名。 Give it a name of your own.")
    lines.append(f"name = {_text(field.name)}")
    if field.title is not None:
        lines.append(f"title = {_text(field.title)}")
    if field.name in drafted.empty:
        lines.append("# 样本中没有值，类型未知。 No value in the sample: the type is not known.")
    elif column.declared is not None and column.declared == field.type:
        lines.append(f"# 表声明为此类型。 Declared so by the table{_scale_said(field, column)}.")
    else:
        lines.append("# 类型：猜测，样本中的值全部符合。 Type: guessed; every value of the sample fits.")
    lines.append(f"type = {_text(field.type)}")
    if field.scale is not None:
        lines.append(f"scale = {field.scale}")
        lines.append("# max_digits = 18")
    if field.name in drafted.catalog.key:
        lines.append("required = true")
    if field.personal:
        lines.append("# 像是个人信息：其值将被遮蔽。 Looks personal: its values will be masked.")
        lines.append("personal = true")
    return lines


def _scale_said(field: Field, column: Column) -> str:
    if field.scale is None or column.scale == field.scale:
        return ""
    return "; scale: guessed, the largest of the sample (小数位数为样本中的最大值)"


def _text(value: str) -> str:
    """A TOML basic string on one line; JSON's escapes are TOML's, but for DEL, which TOML wants escaped too."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
