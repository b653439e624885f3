"""KEY on the command line: the bare value for a one-field key, else a JSON object; normalised first (design section 7)."""

from __future__ import annotations

import json
from collections.abc import Mapping

from ledger.catalog import Catalog
from ledger.errors import InputError
from ledger.record import Refusal, normal, shown


def parse_key_argument(catalog: Catalog, text: str) -> Mapping[str, str]:
    """The key fields of `text` in normal form; InputError `key.form` or `key.value`."""
    if len(catalog.key) == 1:
        given: object = {catalog.key[0]: text}
    else:
        try:
            given = json.loads(text)
        except ValueError:
            given = None
    if (
        not isinstance(given, dict)
        or set(given) != set(catalog.key)
        or not all(isinstance(v, str) for v in given.values())
    ):
        members = ", ".join(f'"{name}": "…"' for name in catalog.key)
        raise InputError(
            "key.form",
            f"目录 {catalog.id} 的主键有 {len(catalog.key)} 个字段，应写成 JSON 对象：{{{members}}}",
            f"the key of {catalog.id} has {len(catalog.key)} fields: write it as a JSON object {{{members}}}",
            "KEY",
        )
    values: dict[str, str] = {}
    for name in catalog.key:
        try:
            value = normal(given[name], catalog.by_name[name], catalog)
        except Refusal as refusal:
            raise InputError(
                "key.value", f"主键字段 {name}：{refusal.zh}", f"key field {name}: {refusal.en}", "KEY"
            ) from refusal
        if value is None:
            raise InputError("key.value", f"主键字段 {name} 为空", f"key field {name} is empty", "KEY")
        values[name] = value
    return values


def key_label(catalog: Catalog, values: Mapping[str, str]) -> str:
    """A key for a message: its values, personal ones masked; name=value pairs for a key of several fields."""
    told = [shown(catalog.by_name[name], value) for name, value in values.items()]
    return told[0] if len(told) == 1 else " ".join(f"{n}={v}" for n, v in zip(values, told, strict=True))
