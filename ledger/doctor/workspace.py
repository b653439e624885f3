"""The part of `doctor` that opens things: store, sources, chain, the keys its streams need, clocks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sqlalchemy import select

from ledger.anchor.link import known_chain
from ledger.batch.stream import read_streams
from ledger.catalog import UTC_OFFSET
from ledger.chain import dump as dumps
from ledger.chain.identity import Block, Identity, check_identity
from ledger.chain.local import LocalChain
from ledger.chain.registry import Registry, Roles
from ledger.chain.rpc import Rpc
from ledger.config import SourceConfig
from ledger.doctor.diagnosis import Diagnosis, fine, problem, skipped, warning, wrong
from ledger.errors import LedgerError
from ledger.store import models
from ledger.workspace import OWN, Workspace, pick_catalog

CLOCK_SECONDS = 120
"""A block this far ahead of our clock means that one of the two clocks is wrong."""
STALE_SECONDS = 3600
"""A network chain without a block for so long has probably stopped, or our clock runs ahead."""


@dataclass
class _Seen:
    """What one question found out and a later one needs. `needed` are key ids by the party they are shared with."""

    identity: Identity | None = None
    remembered: Block | None = None
    needed: dict[str, set[str]] = field(default_factory=dict)


def examine_workspace(workspace: Workspace) -> list[Diagnosis]:
    """Store, sources, chain, keys and clocks of a workspace whose settings can be read."""
    seen = _Seen()
    found = [*_store(workspace, seen), *_sources(workspace), *_chain(workspace, seen)]
    return [*found, *_keys(workspace, seen), *_zone(workspace)]


def _store(workspace: Workspace, seen: _Seen) -> Iterator[Diagnosis]:
    try:
        store = workspace.open_store("read")
    except LedgerError as error:
        yield wrong("store", error)
        return
    with closing(store):
        try:
            with store.read() as session:
                for batch in session.scalars(select(models.Batch)):
                    ours = batch.sender_party == workspace.party
                    other = (batch.receiver_party or OWN) if ours else batch.sender_party
                    seen.needed.setdefault(other, set())
                seen.identity, seen.remembered = known_chain(session, workspace)
            with store.read() as session:
                obstacles = store.database.obstacles(session.connection())
        except LedgerError as error:
            yield wrong("store", error)
            return
    for it in obstacles:
        told = (it.code, it.zh, it.en, it.mend_zh, it.mend_en, it.where)
        yield warning("store", *told) if it.warning else problem("store", *told)
    if all(it.warning for it in obstacles):
        yield fine("store", "台账库版本相符、可写", "the store is of this version and can be written", store.where)


def _sources(workspace: Workspace) -> Iterator[Diagnosis]:
    if not workspace.config.sources:
        yield warning(
            "sources",
            "doctor.no_sources",
            "未配置任何数据源",
            "no source is configured",
            f"在 {workspace.root / 'duizhang.toml'} 增加 [source.目录]（url、table、origin）",
            f"add [source.CATALOG] with url, table and origin to {workspace.root / 'duizhang.toml'}",
        )
    for catalog_id in workspace.config.sources:
        name = f"source {catalog_id}"
        try:
            catalog = pick_catalog(workspace.catalogs, catalog_id).catalog
            with workspace.open_source(catalog) as source:
                where, ignored, about = source.where, source.ignored, source.about_rows()
        except LedgerError as error:
            yield wrong(name, error)
            continue
        rest = f"；未采用的列：{', '.join(ignored)}" if ignored else ""
        rest_en = f"; columns ignored: {', '.join(ignored)}" if ignored else ""
        yield fine(name, f"可读，列齐全{rest}", f"readable, all columns there{rest_en}", where)
        yield from _too_slow(name, workspace.source(catalog), about, where)


def _too_slow(name: str, source: SourceConfig, about: int | None, where: str) -> Iterator[Diagnosis]:
    """A reading that its own limits will not let come to an end."""
    rate, seconds = source.limit_rate, source.timeout_seconds
    if rate is None or seconds is None or about is None or about <= rate * seconds:
        return
    yield warning(
        name,
        "doctor.source_too_slow",
        f"约 {about:,} 行，按 limit_rate = {rate} 至少要读 {about // rate:,} 秒，而 timeout_seconds = {seconds}：读不完就会中止",
        f"about {about:,} rows take at least {about // rate:,} seconds at limit_rate = {rate}, and timeout_seconds is {seconds}: a "
        "reading is given up before its end",
        f"在 duizhang.toml 的 [{name.replace(' ', '.')}] 放宽 timeout_seconds 或 limit_rate",
        f"allow more with timeout_seconds or limit_rate in [{name.replace(' ', '.')}] of duizhang.toml",
        where,
    )


# ---- the chain ----


def _chain(workspace: Workspace, seen: _Seen) -> Iterator[Diagnosis]:
    if seen.identity is None:
        yield _not_looked_at("chain", "台账库没有可用的链身份记录", "the store does not tell which chain is meant")
        return
    url: str | None = workspace.config.chain.rpc
    if workspace.config.chain.embedded:
        url = None
        try:
            local = LocalChain(workspace.chain_home)
            url = local.status().url
            yield _saved(local, seen)
        except LedgerError as error:
            yield wrong("chain", error)
            return
    if url is None:
        yield skipped(
            "chain",
            "doctor.chain_not_running",
            "本地链未运行（需要时会自动启动），链上的登记未检查",
            "the local chain is not running (it starts on demand); what is on it was not looked at",
            "duizhang chain up，再运行 duizhang doctor",
            "duizhang chain up, then run duizhang doctor again",
        )
        return
    try:
        with Rpc(url) as rpc:
            check_identity(rpc, seen.identity, seen.remembered)
            registry = Registry(rpc, seen.identity.contract)
            view = registry.view()
            events = registry.events(record for records in view.anchors.values() for record in records)
            streams = read_streams(view, {record.batch_id: event.descriptor for record, event in events.items()})
            roles = registry.roles(workspace.config.chain.account)
    except LedgerError as error:
        yield wrong("chain", error)
        return
    for stream, batches in streams.by_id.items():
        if workspace.party in (stream.sender, stream.receiver):
            other = stream.receiver if stream.sender == workspace.party else stream.sender
            ids = {batch.descriptor.key_id for batch in batches}
            seen.needed.setdefault(other or OWN, set()).update(ids)
    identity = seen.identity
    zh, en = f"链 {identity.chain_id}，区块 {view.block}", f"chain {identity.chain_id}, block {view.block}"
    yield fine("chain", zh, en, rpc.where)
    yield judge_roles(roles, workspace.party, workspace.config.chain.account)
    yield from judge_clock(view.time, time.time(), embedded=workspace.config.chain.embedded)


def _saved(local: LocalChain, seen: _Seen) -> Diagnosis:
    """The saved state of the embedded chain must reach at least as far as the block that the store remembers."""
    path = local.home / "dump.json"
    chain_id = local.chain_id
    dump = dumps.load(path)
    if dump is None:
        zh, en = "本地链的存档缺失或已损坏", "the local chain's dump is missing or damaged"
        return problem("chain dump", "chain.dump_missing", zh, en, *_RESTORE, str(path))
    if seen.identity is not None and chain_id != seen.identity.chain_id:
        zh = f"该目录是链 {chain_id}，台账登记的是链 {seen.identity.chain_id}"
        en = f"this folder has chain {chain_id}, the store was made for chain {seen.identity.chain_id}"
        mend = ("改正 duizhang.toml 的 [chain] home", "correct [chain] home in duizhang.toml")
        return problem("chain dump", "chain.other_chain", zh, en, *mend, str(local.home))
    block = dumps.number_of(dumps.head(dump))
    if seen.remembered is not None and block < seen.remembered.number:
        zh = f"存档只到区块 {block}，台账已确认到区块 {seen.remembered.number}：存档被换成旧备份"
        en = f"the dump ends at block {block}, the store has confirmed block {seen.remembered.number}: it is an old backup"
        return problem("chain dump", "chain.lost", zh, en, *_RESTORE, str(path))
    return fine("chain dump", f"已保存至区块 {block}", f"saved up to block {block}", str(path))


_RESTORE = (
    "停止所有作业，从备份恢复该文件，再运行 duizhang fsck",
    "stop all jobs, restore the file from a backup, then run duizhang fsck",
)


def judge_roles(roles: Roles, party: str, account: str) -> Diagnosis:
    """Does the account hold the workspace's name, and may it anchor?"""
    if roles.name != party:
        holds_zh = f"登记为 {roles.name}" if roles.name else "未登记"
        holds_en = f"is registered as {roles.name}" if roles.name else "is not registered"
        return problem(
            "role",
            "chain.not_a_party",
            f"账户 {account} 在链上{holds_zh}，本工作区是 {party}",
            f"account {account} {holds_en} on chain, this workspace is {party}",
            f"建链方：duizhang party add {party} --out 文件；本方：在新目录 duizhang init --join 文件",
            f"the founder: duizhang party add {party} --out FILE; here: duizhang init --join FILE in a new folder",
        )
    if not roles.party:
        return problem(
            "role",
            "chain.no_role",
            f"账户 {account} 已被登记方暂停，不能上链",
            f"the registrar suspended account {account}: it cannot anchor",
            "请建链方恢复（合约 reinstate）",
            "ask the founder to reinstate it (the contract's reinstate)",
        )
    return fine("role", f"账户登记为 {party}，可以上链", f"the account is registered as {party} and may anchor")


# ---- keys for the streams, clocks ----


def _keys(workspace: Workspace, seen: _Seen) -> Iterator[Diagnosis]:
    for party, ids in sorted(seen.needed.items()):
        name = f"exchange key {party}"
        try:
            workspace.exchange_key(party)
            for key_id in sorted(ids):
                workspace.key_by_id(party, key_id)
        except LedgerError as error:
            yield wrong(name, error)
            continue
        yield fine(name, "密钥齐备", "the keys are there")


def judge_clock(block_time: int, now: float, *, embedded: bool) -> Iterator[Diagnosis]:
    """The chain's time against our clock. An embedded chain makes blocks only when somebody anchors: old ones say nothing."""
    seconds = block_time / 1000 if block_time > 10**11 else block_time
    ahead = seconds - now
    mend = ("校准本机时钟：timedatectl", "set this machine's clock: timedatectl")
    if ahead > CLOCK_SECONDS:
        zh = f"链上时间比本机快 {ahead:.0f} 秒：两者之一的时钟不准"
        en = f"the chain's time is {ahead:.0f} s ahead of this machine's: one of the two clocks is wrong"
        yield warning("clock", "doctor.clock", zh, en, *mend)
    elif not embedded and -ahead > STALE_SECONDS:
        zh = f"链上最新区块是 {-ahead:.0f} 秒以前的：链已停止出块，或本机时钟过快"
        en = f"the newest block is {-ahead:.0f} s old: the chain stopped, or this machine's clock is ahead"
        yield warning("clock", "doctor.clock", zh, en, *mend)
    else:
        yield fine("clock", "与链上时间相符", "agrees with the chain's time")


def _zone(workspace: Workspace) -> Iterator[Diagnosis]:
    here = datetime.now(UTC).astimezone().strftime("%z")
    local = f"{here[:3]}:{here[3:5]}"
    try:
        offsets = {name: known.catalog.utc_offset for name, known in workspace.catalogs.items()}
    except LedgerError:
        return
    yield from judge_zone(local, {name: offsets[name] for name in workspace.config.sources if name in offsets})


def judge_zone(local: str, offsets: Mapping[str, str]) -> Iterator[Diagnosis]:
    """This machine's offset from UTC against those of the catalogs whose sources are configured (`±hh:mm`)."""
    for name, offset in offsets.items():
        if UTC_OFFSET.fullmatch(offset) and offset != local:
            yield warning(
                "time zone",
                "doctor.time_zone",
                f"本机时区为 {local}，目录 {name} 的一天按 {offset} 计：定时任务的“夜间”与数据的日期可能错开",
                f"this machine runs at {local}, the day of catalog {name} at {offset}: a timer's night and the data's day differ",
                "timedatectl set-timezone Asia/Shanghai（或据此安排定时任务）",
                "timedatectl set-timezone Asia/Shanghai (or set the timer accordingly)",
            )


def _not_looked_at(name: str, zh: str, en: str) -> Diagnosis:
    return skipped(
        name, "doctor.not_reached", zh, en, "改正以上问题后再运行 duizhang doctor", "mend the above, then run it again"
    )
