"""duizhang.toml: what a workspace is told (design section 7).

Unknown members are refused, so that a typing error never becomes a default.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast
from urllib.parse import urlsplit

from ledger.chain.finality import parse_finality
from ledger.errors import InputError

PARTY_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}", re.ASCII)
_ADDRESS = re.compile(r"0x[0-9a-f]{40}", re.ASCII)

LIMIT_RATES = (10, 1_000_000_000)
"""Least and most rows a second: with fewer than the least the pause after a chunk would be taken for a lost connection."""
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", re.ASCII)

Origin = Literal["own", "delivery"]
Security = Literal["tls", "starttls", "none"]
Engine = Literal["local", "spark"]


@dataclass(frozen=True)
class FileDefaults:
    """`[source.<catalog id>.file]`: how files of the catalog that wait in the inbox are read; the same words as the
    options of `receive`."""

    encoding: str = "utf-8"
    operation_column: str | None = None
    sheet: str | None = None
    header_row: int = 1


@dataclass(frozen=True)
class SourceConfig:
    """Where a catalog's rows live: `[source.<catalog id>]`. `columns` maps field names to column names.

    `limit_rate` is how many rows a second may be read, `timeout_seconds` how long one reading may take; None: no limit.
    """

    url: str
    table: str
    origin: Origin
    columns: Mapping[str, str] = field(default_factory=dict)
    batch_column: str | None = None
    row_version_column: str | None = None
    file: FileDefaults = field(default_factory=FileDefaults)
    limit_rate: int | None = None
    timeout_seconds: int | None = None


@dataclass(frozen=True)
class WebhookConfig:
    """`[notify.webhook]`: where the night's outcome is posted; `secret_file` is relative to the workspace."""

    url: str
    secret_file: str
    timeout_seconds: int = 10


@dataclass(frozen=True)
class MailConfig:
    """`[notify.mail]`: the SMTP server and who is written to; `password_file` is relative to the workspace."""

    host: str
    sender: str
    recipients: tuple[str, ...]
    port: int = 587
    security: Security = "starttls"
    user: str | None = None
    password_file: str | None = None
    timeout_seconds: int = 10


@dataclass(frozen=True)
class NotifyConfig:
    """`[notify]`: nothing is ever sent to a host that is not in `hosts`."""

    hosts: tuple[str, ...] = ()
    webhook: WebhookConfig | None = None
    mail: MailConfig | None = None


@dataclass(frozen=True)
class ApiConfig:
    """`[api]`: `max_anchor_age_hours` is when `/health` turns bad; `verify_per_minute` is per address, all workers
    together; `max_body_bytes` bounds every request; `keep_reconciliations` a catalog, older ones are pruned."""

    host: str = "127.0.0.1"
    port: int = 8470
    workers: int = 1
    max_anchor_age_hours: int = 26
    verify_per_minute: int = 60
    max_body_bytes: int = 16 << 20
    keep_reconciliations: int = 30


@dataclass(frozen=True)
class ChainConfig:
    """`[chain]`: `rpc` is "embedded" (then `home` is the chain's folder) or an http(s) URL.

    `disputes` is the address of the dispute registry, None in a workspace that knows none. `most_*` bound what is packed into one
    transaction: claims, bytes of call data, gas.
    """

    rpc: str
    home: str
    contract: str
    account: str
    finality: str = "instant"
    disputes: str | None = None
    most_claims: int = 100
    most_bytes: int = 120_000
    most_gas: int = 16_000_000

    @property
    def embedded(self) -> bool:
        """True if the chain is the local development chain kept in `home`."""
        return self.rpc == "embedded"


@dataclass(frozen=True)
class DeadlinesConfig:
    """`[deadlines]`, in working days: until what was announced must have landed, until the other side must have anchored what it
    received, until a dispute must be answered."""

    land: int = 2
    receive: int = 2
    answer: int = 10


@dataclass(frozen=True)
class KernelConfig:
    """`[kernel]`: where rows become entries. `local`: in this process. `spark`: `master` is Spark's, `jars` go to the executors (a JDBC driver),
    `partitions` is how many tasks a source is cut for (default: the cluster's cores), `conf` are Spark's own settings."""

    engine: Engine = "local"
    master: str = "local[*]"
    jars: tuple[str, ...] = ()
    partitions: int | None = None
    conf: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Config:
    """One workspace's settings; `sources` by catalog id, `approvers` (1 or 2) is how many people `accept` and `withdraw` need."""

    party: str
    store_url: str
    chain: ChainConfig
    sources: Mapping[str, SourceConfig]
    approvers: int = 1
    notify: NotifyConfig = field(default_factory=NotifyConfig)
    api: ApiConfig = field(default_factory=ApiConfig)
    deadlines: DeadlinesConfig = field(default_factory=DeadlinesConfig)
    kernel: KernelConfig = field(default_factory=KernelConfig)


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
    _only(doc, {"party", "store", "chain", "source", "consent", "notify", "api", "deadlines", "kernel"}, "", where)
    store = _table(doc, "store", where)
    _only(store, {"url"}, "store.", where)
    chain = _table(doc, "chain", where)
    packing = {
        "most_claims": (100, 1, 1000),
        "most_bytes": (120_000, 2_000, 131_072),
        "most_gas": (16_000_000, 500_000, 1 << 40),
    }
    _only(chain, {"rpc", "home", "contract", "account", "finality", "disputes", *packing}, "chain.", where)
    disputes = _optional_text(chain, "disputes", "chain.", where)
    parsed_chain = ChainConfig(
        rpc=_rpc(_text(chain, "rpc", "chain.", where, "embedded"), where),
        home=_text(chain, "home", "chain.", where, "chain"),
        contract=_matching(_text(chain, "contract", "chain.", where), _ADDRESS, "chain.contract", where),
        account=_matching(_text(chain, "account", "chain.", where), _ADDRESS, "chain.account", where),
        finality=str(parse_finality(_text(chain, "finality", "chain.", where, "instant"), where)),
        disputes=None if disputes is None else _matching(disputes, _ADDRESS, "chain.disputes", where),
        **{name: _count(chain, name, "chain.", where, *bounds) for name, bounds in packing.items()},
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
        approvers=_approvers(_table(doc, "consent", where), where),
        notify=_notify(_table(doc, "notify", where), where),
        api=_api(_table(doc, "api", where), where),
        deadlines=_deadlines(_table(doc, "deadlines", where), where),
        kernel=_kernel(_table(doc, "kernel", where), where),
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
    known = {"url", "table", "view", "origin", "columns", "batch_column", "row_version_column", "file"}
    limits = {"limit_rate": LIMIT_RATES, "timeout_seconds": (1, 7 * 86_400)}
    _only(table, known | set(limits), prefix, where)
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
    version_column = _optional_text(table, "row_version_column", prefix, where)
    if version_column is not None and origin != "own":
        raise InputError(
            "config.row_version_column",
            f'{prefix}row_version_column 仅用于 origin = "own"：下发的行只有发送方能更新',
            f'{prefix}row_version_column is for origin "own" only: delivered rows are updated by their sender',
            where,
        )
    place = "table" if "table" in table else "view"
    return SourceConfig(
        url=_text(table, "url", prefix, where),
        table=_text(table, place, prefix, where),
        origin="own" if origin == "own" else "delivery",
        columns={str(key): str(value) for key, value in columns.items()},
        batch_column=_optional_text(table, "batch_column", prefix, where),
        row_version_column=version_column,
        file=_file(_table(table, "file", where, prefix), f"{prefix}file.", where),
        **{name: _count(table, name, prefix, where, 0, *bounds) for name, bounds in limits.items() if name in table},
    )


def _file(table: Mapping[str, object], prefix: str, where: str) -> FileDefaults:
    _only(table, {"encoding", "operation_column", "sheet", "header_row"}, prefix, where)
    operation = table.get("operation_column")
    if operation is not None and not isinstance(operation, str):
        raise _wrong(f"{prefix}operation_column", "string", where)
    return FileDefaults(
        encoding=_one_of(table, "encoding", ("utf-8", "gb18030"), prefix, where),
        operation_column=operation,
        sheet=_optional_text(table, "sheet", prefix, where),
        header_row=_count(table, "header_row", prefix, where, 1, 1, 1000),
    )


def _approvers(table: Mapping[str, object], where: str) -> int:
    _only(table, {"approvers"}, "consent.", where)
    return _count(table, "approvers", "consent.", where, 1, 1, 2)


def _notify(table: Mapping[str, object], where: str) -> NotifyConfig:
    _only(table, {"hosts", "webhook", "mail"}, "notify.", where)
    hosts = tuple(host.lower() for host in _texts(table, "hosts", "notify.", where, ()))
    for allowed in hosts:
        _matching(allowed, _HOST, "notify.hosts", where)
    webhook = _webhook(_table(table, "webhook", where, "notify."), where) if "webhook" in table else None
    mail = _mail(_table(table, "mail", where, "notify."), where) if "mail" in table else None
    wanted = (
        ("notify.webhook.url", None if webhook is None else urlsplit(webhook.url).hostname),
        ("notify.mail.host", None if mail is None else mail.host),
    )
    for name, host in wanted:
        if host is not None and host not in hosts:
            raise InputError(
                "config.notify_host",
                f'{name} 的主机 {host} 不在 notify.hosts 中；请确认后加入：hosts = ["{host}"]',
                f'the host {host} of {name} is not in notify.hosts; add it if that is meant: hosts = ["{host}"]',
                where,
            )
    return NotifyConfig(hosts, webhook, mail)


def _webhook(table: Mapping[str, object], where: str) -> WebhookConfig:
    prefix = "notify.webhook."
    _only(table, {"url", "secret_file", "timeout_seconds"}, prefix, where)
    url = _text(table, "url", prefix, where)
    if not url.startswith(("http://", "https://")) or not urlsplit(url).hostname or "@" in urlsplit(url).netloc:
        raise InputError(
            "config.webhook_url",
            f"{prefix}url 应为 http(s) 地址，且不含用户名和密码",
            f"{prefix}url must be an http(s) URL without user and password",
            where,
        )
    return WebhookConfig(
        url,
        _text(table, "secret_file", prefix, where, "keys/webhook.secret"),
        _count(table, "timeout_seconds", prefix, where, 10, 1, 120),
    )


def _mail(table: Mapping[str, object], where: str) -> MailConfig:
    prefix = "notify.mail."
    _only(
        table,
        {"host", "port", "security", "from", "to", "user", "password_file", "timeout_seconds"},
        prefix,
        where,
    )
    security = _one_of(table, "security", ("starttls", "tls", "none"), prefix, where)
    addresses = (_text(table, "from", prefix, where), *_texts(table, "to", prefix, where))
    for address in addresses:
        if not re.fullmatch(r"[^\s@<>,;\"]+@[^\s@<>,;\"]+", address):
            raise _wrong(f"{prefix}from / {prefix}to", "mail address (name@host)", where)
    user, password = (_optional_text(table, name, prefix, where) for name in ("user", "password_file"))
    if (user is None) != (password is None):
        raise InputError(
            "config.mail_login",
            f"{prefix}user 与 {prefix}password_file 须同时填写",
            f"{prefix}user and {prefix}password_file go together",
            where,
        )
    return MailConfig(
        host=_matching(_text(table, "host", prefix, where).lower(), _HOST, f"{prefix}host", where),
        sender=addresses[0],
        recipients=addresses[1:],
        port=_count(table, "port", prefix, where, {"tls": 465, "starttls": 587}.get(security, 25), 1, 65535),
        security=cast(Security, security),
        user=user,
        password_file=password,
        timeout_seconds=_count(table, "timeout_seconds", prefix, where, 10, 1, 120),
    )


def _api(table: Mapping[str, object], where: str) -> ApiConfig:
    limits = {
        "port": (8470, 1, 65535),
        "workers": (1, 1, 64),
        "max_anchor_age_hours": (26, 1, 24 * 366),
        "verify_per_minute": (60, 1, 1_000_000),
        "max_body_bytes": (16 << 20, 1 << 10, 256 << 20),
        "keep_reconciliations": (30, 1, 10_000),
    }
    _only(table, {"host", *limits}, "api.", where)
    counts = {name: _count(table, name, "api.", where, *bounds) for name, bounds in limits.items()}
    return ApiConfig(host=_text(table, "host", "api.", where, "127.0.0.1"), **counts)


def _deadlines(table: Mapping[str, object], where: str) -> DeadlinesConfig:
    days = {"land": (2, 0, 250), "receive": (2, 0, 250), "answer": (10, 1, 250)}
    _only(table, set(days), "deadlines.", where)
    return DeadlinesConfig(**{name: _count(table, name, "deadlines.", where, *bounds) for name, bounds in days.items()})


def _kernel(table: Mapping[str, object], where: str) -> KernelConfig:
    _only(table, {"engine", "master", "jars", "partitions", "conf"}, "kernel.", where)
    conf = _table(table, "conf", where, "kernel.")
    for name, value in conf.items():
        if not isinstance(value, str) or not re.fullmatch(r"spark\.[A-Za-z0-9._-]+", name):
            raise _wrong(f'kernel.conf."{name}"', "string, named spark.…", where)
    return KernelConfig(
        engine=cast(Engine, _one_of(table, "engine", ("local", "spark"), "kernel.", where)),
        master=_text(table, "master", "kernel.", where, "local[*]"),
        jars=_texts(table, "jars", "kernel.", where, ()),
        partitions=_count(table, "partitions", "kernel.", where, 1, 1, 100_000) if "partitions" in table else None,
        conf={name: str(value) for name, value in conf.items()},
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


def _optional_text(table: Mapping[str, object], name: str, prefix: str, where: str) -> str | None:
    return _text(table, name, prefix, where) if name in table else None


def _texts(
    table: Mapping[str, object], name: str, prefix: str, where: str, default: tuple[str, ...] | None = None
) -> tuple[str, ...]:
    value = table.get(name, default if default is None else list(default))
    if not isinstance(value, list) or (not value and default is None):
        raise _wrong(f"{prefix}{name}", "list of strings", where)
    if not all(isinstance(item, str) and item for item in value):
        raise _wrong(f"{prefix}{name}", "list of strings", where)
    return tuple(value)


def _count(table: Mapping[str, object], name: str, prefix: str, where: str, default: int, least: int, most: int) -> int:
    value = table.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise _wrong(f"{prefix}{name}", f"whole number {least}…{most}", where)
    return value


def _one_of(table: Mapping[str, object], name: str, values: tuple[str, ...], prefix: str, where: str) -> str:
    """The member's value, by default the first of `values`."""
    value = _text(table, name, prefix, where, values[0])
    if value not in values:
        raise _wrong(f"{prefix}{name}", " | ".join(values), where)
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
        "config.type", f"{name} 缺失或不对（应为：{wanted}）", f"{name} is missing or not a {wanted}", where
    )
