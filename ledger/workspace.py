"""A workspace: one party's folder with settings, catalogs, keys, store and (embedded) chain (design section 7).

Opens what a command needs and nothing else; the store and the chain are opened by the use cases that use them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path

from ledger.catalog import Catalog, parse_catalog
from ledger.config import Config, SourceConfig, load_config
from ledger.errors import InputError
from ledger.keys import ExchangeKey, parse_key
from ledger.pace import Pace
from ledger.source.paced import PacedSource
from ledger.source.source import Source
from ledger.source.table import open_table
from ledger.store.db import Mode, Store, open_store
from ledger.store.files import WorkspaceLock, os_errors, read_private, sweep_temporary

OWN = "own"
"""The name under keys/ of the key for this party's own sources."""
_EPOCH = re.compile(r"([1-9][0-9]{0,8})\.key", re.ASCII)


@dataclass(frozen=True)
class KnownCatalog:
    """A catalog and the file it comes from; `built_in` ones ship with the project."""

    catalog: Catalog
    path: Path
    built_in: bool


class Workspace:
    """The folder `root`; raises InputError `workspace.missing` if it holds no duizhang.toml.

    `limit_rate`, rows a second, goes before that of the settings.
    """

    def __init__(self, root: Path, *, limit_rate: int | None = None) -> None:
        self.root = root
        self._limit_rate = limit_rate
        self._paces: dict[str, Pace] = {}
        self.config: Config = load_config(root / "duizhang.toml")

    @property
    def party(self) -> str:
        """This workspace's party name."""
        return self.config.party

    @property
    def keystore(self) -> Path:
        """This party's account (keystore v3)."""
        return self.root / "keys" / "account.json"

    @property
    def password_file(self) -> Path:
        """The keystore's password: DUIZHANG_PASSWORD_FILE, or the file beside it."""
        named = os.environ.get("DUIZHANG_PASSWORD_FILE")
        return Path(named) if named else self.root / "keys" / "account.password"

    @property
    def chain_home(self) -> Path:
        """The folder of the embedded chain; it may belong to another party's workspace."""
        return self.root / self.config.chain.home

    @property
    def entries_folder(self) -> Path:
        """Immutable entry files."""
        return self.root / "entries"

    @property
    def archive_folder(self) -> Path:
        """Encrypted archives of anchored records."""
        return self.root / "archive"

    def open_store(self, mode: Mode) -> Store:
        """The ledger's own tables; a relative path in `[store] url` is relative to the workspace."""
        return open_store(_absolute(self.config.store_url, self.root), mode)

    @contextmanager
    def locked(self, command: str) -> Iterator[None]:
        """Hold the workspace's lock: one writing job at a time, a second one is refused (StoreError `workspace.busy`)."""
        with WorkspaceLock(self.root / "lock", command):
            for folder in (self.entries_folder, self.archive_folder, self.root):
                with os_errors(folder):
                    folder.mkdir(mode=0o700, exist_ok=True)
                sweep_temporary(folder)
            yield

    @cached_property
    def catalogs(self) -> Mapping[str, KnownCatalog]:
        """Catalogs by id: built-in ones, and the workspace's `catalogs/*.toml`, which win. A broken file refuses them all."""
        return known_catalogs(self.root / "catalogs")

    def catalog(self, catalog_id: str) -> Catalog:
        """The catalog of that id; InputError `catalog.unknown` names those there are."""
        return pick_catalog(self.catalogs, catalog_id).catalog

    def source(self, catalog: Catalog) -> SourceConfig:
        """The source configured for `catalog`; InputError `source.unconfigured` without one, `source.columns` for stray fields."""
        source = self.config.sources.get(catalog.id)
        if source is None:
            raise InputError(
                "source.unconfigured",
                f"目录 {catalog.id} 未配置数据源：请在 duizhang.toml 增加 [source.{catalog.id}]（url、table、origin）",
                f"catalog {catalog.id} has no source: add [source.{catalog.id}] with url, table and origin to duizhang.toml",
                str(self.root / "duizhang.toml"),
            )
        unknown = set(source.columns) - set(catalog.by_name)
        if unknown and catalog.id in self.catalogs:
            # An older version may lack fields that the present one has.
            unknown -= set(self.catalogs[catalog.id].catalog.by_name)
        if unknown:
            raise InputError(
                "source.columns",
                f"[source.{catalog.id}.columns] 中的字段 {'、'.join(sorted(unknown))} 不在目录内",
                f"[source.{catalog.id}.columns] names fields the catalog does not declare: {', '.join(sorted(unknown))}",
                str(self.root / "duizhang.toml"),
            )
        return source

    @contextmanager
    def open_source(self, catalog: Catalog) -> Iterator[Source]:
        """One consistent, read-only read of the catalog's source, as fast and as long as the operator allows."""
        source = self.source(catalog)
        with open_table(
            source.url,
            source.table,
            catalog,
            columns=source.columns,
            batch_column=source.batch_column,
            row_version_column=source.row_version_column,
            base=self.root,
            timeout_seconds=source.timeout_seconds,
        ) as table:
            rate = self._limit_rate or source.limit_rate
            if self.config.kernel.engine == "spark":
                _check_unpaced(catalog.id, rate, source.timeout_seconds)
                # What knows Spark is imported where it was asked for.
                from ledger.spark.source import spread  # noqa: PLC0415

                yield spread(table, catalog, self.config.kernel, self.root)
                return
            if rate is None and source.timeout_seconds is None:
                yield table
                return
            # One for all readings of a job: it reads a table more than once.
            pace = None if rate is None else self._paces.setdefault(catalog.id, Pace(rate))
            yield PacedSource(table, catalog.id, pace, source.timeout_seconds)

    def exchange_key(self, party: str = OWN) -> ExchangeKey:
        """The newest epoch of the key shared with `party`, or of the own sources' key."""
        epochs = self._epochs(party)
        if not epochs:
            raise InputError(
                "key.no_exchange_key",
                f"没有与 {party} 的交换密钥（应为 keys/{party}/1.key）；由建链一方用 party add 生成，经 init --join 导入",
                f"no exchange key for {party} (keys/{party}/1.key); party add creates it, init --join brings it",
                str(self.root / "keys" / party),
            )
        path = epochs[max(epochs)]
        return parse_key(read_private(path), str(path))

    def key_by_id(self, party: str, key_id: str) -> ExchangeKey:
        """The key of `party` with that id (16 hex digits); InputError `key.wrong` names the ids there are."""
        held: dict[str, ExchangeKey] = {}
        for path in self._epochs(party).values():
            key = parse_key(read_private(path), str(path))
            held[key.id.hex()] = key
        if key_id in held:
            return held[key_id]
        ids = ", ".join(sorted(held)) or "-"
        raise InputError(
            "key.wrong",
            f"批次使用交换密钥 {key_id}，keys/{party} 中只有：{ids}；请向 {party} 索取该密钥",
            f"the batch uses exchange key {key_id}; keys/{party} holds: {ids}; ask {party} for that key",
            str(self.root / "keys" / party),
        )

    def newest_epoch(self, party: str = OWN) -> int:
        """The number of the newest epoch of a key, 0 if there is none."""
        return max(self._epochs(party), default=0)

    def epoch_path(self, party: str, number: int) -> Path:
        """Where the key file of an epoch is, or would be."""
        return self.root / "keys" / party / f"{number}.key"

    def read_epoch(self, party: str, number: int) -> ExchangeKey:
        """The key of an epoch that is here."""
        path = self.epoch_path(party, number)
        return parse_key(read_private(path), str(path))

    def has_key(self, party: str) -> bool:
        """True if this workspace shares an exchange key with `party`."""
        return bool(self._epochs(party))

    def archive_key(self) -> bytes:
        """The 32-byte archive key of keys/archive.key."""
        path = self.root / "keys" / "archive.key"
        return parse_key(read_private(path), str(path)).secret

    def _epochs(self, party: str) -> dict[int, Path]:
        folder = self.root / "keys" / party
        if not folder.is_dir():
            return {}
        found = ((_EPOCH.fullmatch(path.name), path) for path in folder.iterdir())
        return {int(match[1]): path for match, path in found if match}


def known_catalogs(folder: Path | None) -> dict[str, KnownCatalog]:
    """Built-in catalogs, overlaid with those of `folder` if it exists; two files of one id in a folder are refused."""
    built_in = Path(str(resources.files("ledger") / "catalogs"))
    catalogs = {known.catalog.id: known for known in _read_folder(built_in, built_in=True)}
    if folder is not None and folder.is_dir():
        own: dict[str, KnownCatalog] = {}
        for known in _read_folder(folder, built_in=False):
            first = own.setdefault(known.catalog.id, known)
            if first is not known:
                raise InputError(
                    "catalog.id_repeated",
                    f"目录 id {known.catalog.id} 在 {first.path.name} 与 {known.path.name} 中重复",
                    f"catalog id {known.catalog.id} stands in both {first.path.name} and {known.path.name}",
                    str(known.path),
                )
        catalogs.update(own)
    return dict(sorted(catalogs.items()))


def pick_catalog(catalogs: Mapping[str, KnownCatalog], catalog_id: str) -> KnownCatalog:
    """The catalog of that id out of `catalogs`; InputError `catalog.unknown` names those there are."""
    if catalog_id not in catalogs:
        raise InputError(
            "catalog.unknown",
            f"没有目录“{catalog_id}”；现有：{'、'.join(catalogs)}",
            f"no catalog {catalog_id!r}; there are: {', '.join(catalogs)}",
        )
    return catalogs[catalog_id]


def read_catalog(path: Path) -> Catalog:
    """The catalog in one TOML file."""
    try:
        data = path.read_bytes()
    except OSError as cause:
        raise InputError(
            "catalog.unreadable_file",
            f"无法读取目录文件：{cause.strerror}",
            f"the catalog file cannot be read: {cause.strerror}",
            str(path),
        ) from cause
    return parse_catalog(data, str(path))


def _absolute(url: str, root: Path) -> str:
    prefix = "sqlite:///"
    if not url.startswith(prefix) or url[len(prefix) :].startswith("/"):
        return url
    return f"{prefix}{(root / url[len(prefix) :]).resolve()}"


def _read_folder(folder: Path, *, built_in: bool) -> list[KnownCatalog]:
    return [KnownCatalog(read_catalog(path), path, built_in) for path in sorted(folder.glob("*.toml"))]


def _check_unpaced(catalog_id: str, rate: int | None, seconds: int | None) -> None:
    """Executors read beside each other, each at its own speed."""
    name = "limit_rate" if rate is not None else "timeout_seconds" if seconds is not None else None
    if name is not None:
        raise InputError(
            "kernel.unpaced",
            f'[kernel] engine = "spark" 时不支持 [source.{catalog_id}] {name}（或 --limit-rate）：各执行器并行读取；请去掉该项或改用 local',
            f'[source.{catalog_id}] {name} (or --limit-rate) does not go with [kernel] engine = "spark": executors read beside each other; '
            "leave it out, or use the local engine",
            f"[source.{catalog_id}]",
        )
