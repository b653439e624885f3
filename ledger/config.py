"""duizhang.toml: what a workspace is told (design section 7).

Unknown members are refused, so that a typing error never becomes a default.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ledger.chain.finality import parse_finality
from ledger.errors import InputError, NotBuiltError

PARTY_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}", re.ASCII)
_ADDRESS = re.compile(r"0x[0-9a-f]{40}", re.ASCII)

Origin = Literal["own", "delivery"]


@dataclass(frozen=True)
class SourceConfig:
    """Where a catalog's rows live: `[source.<catalog id>]`. `columns` maps field names to column names."""

    url: str
    table: str
    origin: Origin
    columns: Mapping[str, str] = field(default_factory=dict)
    batch_column: str | None = None


@dataclass(frozen=True)
class ChainConfig:
    """`[chain]`: `rpc` is "embedded" (then `home` is the chain's folder) or an http(s) URL."""

    rpc: str
    home: str
    contract: str
    account: str
    finality: str = "instant"

    @property
    def embedded(self) -> bool:
        """True if the chain is the local development chain kept in `home`."""
        return self.rpc == "embedded"


@dataclass(frozen=True)
class Config:
    """One workspace's settings; `sources` by catalog id."""

    party: str
    store_url: str
    chain: ChainConfig
    sources: Mapping[str, SourceConfig]


def check_party_name(name: str, where: str = "") -> str:
    """Return `name` if it may name a party; `own` may not, because keys/own holds the keys of own sources."""
    if not PARTY_NAME.fullmatch(name) or name == "own":
        raise InputError(
            "party.name",
            f"参与方名称“{name}”不合规：小写字母开头，仅含小写字母、数字、下划线、连字符，至多 32 位，且不得为 own",
            f"party name {name!r} is not of the form [a-z][a-z0-9_-]{{0,31}} or is the reserved word own",
            where,
        )
    return name


def parse_config(data: bytes, where: str) -> Config:
    """Read duizhang.toml; raises InputError naming the member at fault."""
    try:
        doc = tomllib.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as cause:
        raise InputError("config.toml", f"不是有效的 TOML：{cause}", f"not valid TOML: {cause}", where) from cause
    _only(doc, {"party", "store", "chain", "source"}, "", where)
    store = _table(doc, "store", where)
    _only(store, {"url"}, "store.", where)
    chain = _table(doc, "chain", where)
    _only(chain, {"rpc", "home", "contract", "account", "finality"}, "chain.", where)
    parsed_chain = ChainConfig(
        rpc=_rpc(_text(chain, "rpc", "chain.", where, "embedded"), where),
        home=_text(chain, "home", "chain.", where, "chain"),
        contract=_matching(_text(chain, "contract", "chain.", where), _ADDRESS, "chain.contract", where),
        account=_matching(_text(chain, "account", "chain.", where), _ADDRESS, "chain.account", where),
        finality=str(parse_finality(_text(chain, "finality", "chain.", where, "instant"), where)),
    )
    sources = {
        catalog_id: _source(table, f"source.{catalog_id}.", where)
        for catalog_id, table in _table(doc, "source", where).items()
    }
    return Config(
        party=check_party_name(_text(doc, "party", "", where, "local"), where),
        store_url=_text(store, "url", "store.", where, "sqlite:///store/ledger.db"),
        chain=parsed_chain,
        sources=sources,
    )


def load_config(path: Path) -> Config:
    """Read the duizhang.toml of a workspace; a folder without one is not a workspace."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as cause:
        raise InputError(
            "workspace.missing",
            "这里不是工作区（没有 duizhang.toml）；请用 -C 指定，或先运行 duizhang init",
            "not a workspace (no duizhang.toml); name one with -C or DUIZHANG_HOME, or run duizhang init",
            str(path.parent),
        ) from cause
    except OSError as cause:
        raise InputError(
            "workspace.unreadable", f"无法读取：{cause.strerror}", f"cannot be read: {cause.strerror}", str(path)
        ) from cause
    return parse_config(data, str(path))


def _source(table: object, prefix: str, where: str) -> SourceConfig:
    if not isinstance(table, dict):
        raise _wrong(prefix.rstrip("."), "table", where)
    if "row_version_column" in table:
        raise NotBuiltError(f"row_version_column ({where}: {prefix}row_version_column)")
    _only(table, {"url", "table", "view", "origin", "columns", "batch_column"}, prefix, where)
    if ("table" in table) == ("view" in table):
        raise InputError(
            "config.source_table",
            f"{prefix}table 与 {prefix}view 须且只须填一个",
            f"exactly one of {prefix}table and {prefix}view is required",
            where,
        )
    origin = table.get("origin")
    if origin not in ("own", "delivery"):
        raise InputError(
            "config.source_origin",
            f"{prefix}origin 必填，取值 own（本方产生）或 delivery（他方下发），现为 {origin!r}",
            f'{prefix}origin is required: "own" or "delivery", not {origin!r}',
            where,
        )
    columns = _table(table, "columns", where, prefix)
    for name, column in columns.items():
        if not isinstance(column, str) or not column:
            raise _wrong(f"{prefix}columns.{name}", "string", where)
    batch_column = table.get("batch_column")
    if batch_column is not None and (not isinstance(batch_column, str) or not batch_column):
        raise _wrong(f"{prefix}batch_column", "string", where)
    name = "table" if "table" in table else "view"
    return SourceConfig(
        url=_text(table, "url", prefix, where),
        table=_text(table, name, prefix, where),
        origin="own" if origin == "own" else "delivery",
        columns={str(key): str(value) for key, value in columns.items()},
        batch_column=batch_column,
    )


def _rpc(rpc: str, where: str) -> str:
    if rpc != "embedded" and not rpc.startswith(("http://", "https://")):
        raise InputError(
            "config.rpc",
            "chain.rpc 应为 embedded 或 http(s) 地址",
            "chain.rpc must be embedded or an http(s) URL",
            where,
        )
    return rpc


def _only(table: Mapping[str, object], known: set[str], prefix: str, where: str) -> None:
    for name in table:
        if name not in known:
            raise InputError(
                "config.unknown_member",
                f"不认识的配置项 {prefix}{name}；此处可用：{'、'.join(sorted(known))}",
                f"unknown member {prefix}{name}; known here: {', '.join(sorted(known))}",
                where,
            )


def _table(table: Mapping[str, object], name: str, where: str, prefix: str = "") -> dict[str, object]:
    value = table.get(name, {})
    if not isinstance(value, dict):
        raise _wrong(f"{prefix}{name}", "table", where)
    return value


def _text(table: Mapping[str, object], name: str, prefix: str, where: str, default: str | None = None) -> str:
    value = table.get(name, default)
    if not isinstance(value, str) or not value:
        raise _wrong(f"{prefix}{name}", "string", where)
    return value


def _matching(value: str, pattern: re.Pattern[str], name: str, where: str) -> str:
    if not pattern.fullmatch(value):
        raise InputError(
            "config.form",
            f"{name} 的值“{value}”不合规（应符合 {pattern.pattern}）",
            f"{name} = {value!r} does not match {pattern.pattern}",
            where,
        )
    return value


def _wrong(name: str, wanted: str, where: str) -> InputError:
    return InputError(
        "config.type", f"{name} 缺失或类型不对（应为非空 {wanted}）", f"{name} is missing or not a {wanted}", where
    )
