"""The story: two workspaces, three deliveries, seven kinds of damage, the repair, a proof, two forgeries.

Every chapter says what must come out and stops the demonstration if it does not (ExpectationError).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from ledger.catalog import Catalog
from ledger.chain.local import LocalChain
from ledger.cli.speech import say
from ledger.demo import evidence, transfer
from ledger.demo.damage import Damage, Table, differences, plan_damage
from ledger.demo.database import Database
from ledger.demo.deliveries import Deliveries, plan_deliveries, write_upserts, write_withdrawals
from ledger.demo.rows import Row
from ledger.demo.stage import Stage
from ledger.errors import InputError, LedgerError
from ledger.reconcile.findings import CHINESE, Kind

CATALOG = "registration"
PROVINCE, CITY = "guangdong", "guangzhou"
DAMAGE_FILE, REPAIR_FILE = Path("damage.sql"), Path("repair.sql")
# Two folders side by side: each party has its own, and nothing of the other's but what a join file gives.
_ENVIRONMENT = ("DUIZHANG_HOME", "DUIZHANG_PASSWORD_FILE")


@dataclass(frozen=True)
class Cast:
    """What the story is told about; the current folder is the one it happens in."""

    catalog: Catalog
    database: Database
    table: Table
    deliveries: Deliveries


@contextlib.contextmanager
def workplace(keep: Path | None) -> Iterator[Path]:
    """The folder of the story as current folder, free of the caller's workspace: `keep`, which must be empty, or a new
    temporary one that is removed afterwards, however the story ends. InputError `demo.keep` if it cannot be used."""
    folder = _folder(keep)
    before = {name: os.environ.pop(name) for name in _ENVIRONMENT if name in os.environ}
    try:
        with contextlib.chdir(folder), _ended_by_signals():
            yield folder
    finally:
        os.environ.update(before)
        for party in (PROVINCE, evidence.FORGER):
            # Best effort: what ended the story is what the reader must hear of.
            with contextlib.suppress(LedgerError):
                LocalChain(folder / party / "chain").down()
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)


def _folder(keep: Path | None) -> Path:
    if keep is None:
        return Path(tempfile.mkdtemp(prefix="duizhang-demo-")).resolve()
    try:
        keep.mkdir(parents=True, exist_ok=True)
        empty = not any(keep.iterdir())
    except OSError as cause:
        raise InputError(
            "demo.keep", f"目录不可用：{cause}", f"the folder cannot be used: {cause}", str(keep)
        ) from cause
    if not empty:
        raise InputError("demo.keep", "目录须为空", "the folder must be empty", str(keep))
    return keep.resolve()


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP (a closed terminal) end the story as Ctrl-C does: chain stopped, folder removed."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def tell(
    stage: Stage, catalog: Catalog, rows: Sequence[Row], origin: tuple[str, str], database: Database, *, keep: bool
) -> None:
    """All chapters, in the current folder; `origin` says in both languages where the rows come from, `keep` whether the
    folder will still be there. ExpectationError at the first thing that comes out otherwise than it must."""
    cast = Cast(catalog, database, Table(catalog, CATALOG, database.row_id), plan_deliveries(rows))
    stage.tell(
        f"省（{PROVINCE}）向市（{CITY}）下发 {len(rows)} 家企业的登记信息；有人绕过台账改了市里的库；对账逐条找出，再改正、出证。",
        f"The province ({PROVINCE}) sends {len(rows)} company registrations to the city ({CITY}); somebody changes the city's "
        "database behind the ledger's back; reconciling names every row; it is put right, and one record is proved.",
    )
    stage.tell(*origin)
    stage.tell(
        f"每一步都是值班人员用的命令，可照抄重做：cd {Path.cwd()}",
        f"Every step is a command that operators use; to repeat it: cd {Path.cwd()}"
        + ("; export DUIZHANG_LANG=en" if say("zh", "en") == "en" else ""),
    )
    _workspaces(stage, cast)
    _deliver(stage, cast)
    planned = plan_damage(cast.deliveries, cast.table)
    _damage(stage, cast, planned)
    _find(stage, cast, planned)
    _repair(stage, cast, planned)
    evidence.prove(stage, catalog, PROVINCE, CITY, cast.deliveries.changed[-1])
    transfer.tell(stage, database, PROVINCE, CITY, rows)
    _end(stage, cast, keep)


def _workspaces(stage: Stage, cast: Cast) -> None:
    with stage.chapter("省、市各建一个工作区，共用一条链", "two workspaces, one chain") as facts:
        stage.command("init", PROVINCE, "--party", PROVINCE, *cast.database.store_options(PROVINCE), show=2)
        stage.command("-C", PROVINCE, "party", "add", CITY, "--out", "join.json")
        stage.command("init", CITY, "--join", "join.json", *cast.database.store_options(CITY), show=2)
        stage.remove("join.json")
        stage.remove("join.json.passphrase")
        stage.tell(
            f"市里的库（{cast.database.shell}）列名是中文；在 {CITY}/duizhang.toml 登记为“下发”来源：",
            f"The city's database ({cast.database.shell}) has Chinese column names; {CITY}/duizhang.toml names it as a source "
            "of origin delivery:",
        )
        stage.sql(cast.database, [("", cast.table.create())])
        settings = [
            f"[source.{CATALOG}]",
            f'url = "{cast.database.source_url}"',
            f'table = "{CATALOG}"',
            'origin = "delivery"',
            f"[source.{CATALOG}.columns]",
        ]
        columns = [f'{field} = "{column}"' for field, column in cast.table.columns.items()]
        stage.lines([*settings[1:4], " ".join([f"columns: {', '.join(columns)}"])])
        with Path(CITY, "duizhang.toml").open("a", encoding="utf-8") as file:
            file.write("\n".join(["", *settings, *columns]) + "\n")
        status = stage.document("-C", PROVINCE, "chain", "status")
        facts |= {"chain_id": status["chain_id"], "contract": status["contract"]}


def _deliver(stage: Stage, cast: Cast) -> None:
    deliveries, catalog = cast.deliveries, cast.catalog
    batches = (
        ("B1", len(deliveries.first), "新登记", "new rows"),
        ("B2", len(deliveries.changed), "新版本（注册资金变更）", "new versions (another capital)"),
        (
            "B3",
            len(deliveries.withdrawn),
            "撤回（operation、reason 两列）",
            "withdrawals (columns operation and reason)",
        ),
    )
    write_upserts(Path("B1.csv"), catalog, deliveries.first)
    write_upserts(Path("B2.csv"), catalog, deliveries.changed)
    write_withdrawals(Path("B3.csv"), catalog, deliveries.withdrawn)
    with stage.chapter("三次下发：省方上链，市方入库后上链", "three deliveries, anchored by both") as facts:
        for number, count, zh, en in batches:
            stage.tell(f"{number}.csv：{count} 条{zh}", f"{number}.csv: {count} {en}")
            file = f"{number}.csv"
            # Once in full; the later ones say the same.
            show = None if number == "B1" else 1
            stage.command("-C", PROVINCE, "send", CATALOG, file, "--batch", number, "--to", CITY, show=show)
            stage.command(
                "-C", CITY, "receive", CATALOG, file, "--batch", number, "--from", PROVINCE, "--load", show=show
            )
        stage.good("三个批次，双方上链的条数和根两两相同", "three batches; size and root are the same on both sides")
        stage.command("-C", CITY, "reconcile", CATALOG, show=1)
        facts["matched"] = _matched(stage, deliveries)


def _matched(stage: Stage, deliveries: Deliveries) -> int:
    """Every record that the city should hold matches, and it holds no other; returns their number."""
    report = stage.document("-C", CITY, "reconcile", CATALOG)
    counts = report["counts"]
    stage.expect(
        report["verdict"] == "matched"
        and counts["source"] == counts["ledger"] == counts["matched"] == deliveries.held
        and not report["findings"],
        f"应有 {deliveries.held} 条全部一致，实为 {report['verdict']}，{counts}",
        f"{deliveries.held} records should match; the verdict is {report['verdict']}, {counts}",
    )
    stage.good(
        f"退出码 0；市库 {deliveries.held} 行与链上存证逐条一致",
        f"exit code 0; all {deliveries.held} rows of the city match what is on the chain",
    )
    return deliveries.held


def _damage(stage: Stage, cast: Cast, planned: Sequence[Damage]) -> None:
    with stage.chapter("绕过台账改库：七种破坏", "behind the ledger's back: seven kinds of damage") as facts:
        stage.tell(
            f"有库权限的人直接写 SQL，台账毫不知情（{cast.database.shell}）：",
            f"Somebody with access to the database writes SQL, the ledger knows nothing of it ({cast.database.shell}):",
        )
        _write_sql(DAMAGE_FILE, [damage.sql for damage in planned])
        _write_sql(REPAIR_FILE, [damage.repair for damage in planned])
        stage.sql(
            cast.database,
            [(f"{_kind(damage)}{say('：', ': ')}{say(damage.zh, damage.en)}", damage.sql) for damage in planned],
        )
        facts["planted"] = [{"kind": damage.kind, "key": {"uscc": damage.key}} for damage in planned]


def _write_sql(file: Path, statements: Sequence[str]) -> None:
    file.write_text("".join(f"{statement};\n" for statement in statements), encoding="utf-8")


def _kind(damage: Damage) -> str:
    return say(CHINESE[Kind(damage.kind)], damage.kind)


def _find(stage: Stage, cast: Cast, planned: Sequence[Damage]) -> None:
    with stage.chapter("对账：逐条找出", "reconciling names every row") as facts:
        stage.command("-C", CITY, "reconcile", CATALOG, expect=1)
        report = stage.document("-C", CITY, "reconcile", CATALOG, expect=1, shown=True)
        unseen, unplanned = differences(planned, report["findings"])
        facts |= {"reported": len(report["findings"]), "not_reported": unseen, "not_planted": unplanned}
        stage.expect(
            not unseen and not unplanned and report["verdict"] == "differences",
            f"未报出：{'、'.join(unseen) or '无'}；多报：{'、'.join(unplanned) or '无'}；结论 {report['verdict']}",
            f"not reported: {', '.join(unseen) or 'none'}; reported but not planted: {', '.join(unplanned) or 'none'}; verdict "
            f"{report['verdict']}",
        )
        kinds = len({damage.kind for damage in planned})
        stage.good(
            f"退出码 1；种下 {len(planned)} 处（{kinds} 种），报出 {len(planned)} 处：类型和主键逐一相符，不漏不多",
            f"exit code 1; {len(planned)} planted in {kinds} kinds, {len(planned)} reported: kinds and keys agree, none is left "
            "out and none is too many",
        )


def _repair(stage: Stage, cast: Cast, planned: Sequence[Damage]) -> None:
    with stage.chapter("按下发内容改正，再对账", "put right from what was delivered") as facts:
        stage.sql(cast.database, [("", damage.repair) for damage in planned])
        stage.command("-C", CITY, "reconcile", CATALOG, show=1)
        facts["matched"] = _matched(stage, cast.deliveries)


def _end(stage: Stage, cast: Cast, keep: bool) -> None:
    with stage.chapter("收尾，以及接下来可以试什么", "the end, and what to try next"):
        for party in (evidence.FORGER, PROVINCE):
            stage.command("-C", party, "chain", "down", show=0)
        programs = Path(sys.executable).parent
        if keep:
            folder: Path | str = Path.cwd()
            stage.good(
                f"全部符合预期，共 {stage.seconds:.0f} 秒。文件保留在 {folder}",
                f"all came out as it must, in {stage.seconds:.0f} s. Everything is kept in {folder}",
            )
        else:
            folder = say("目录", "DIR")
            stage.good(
                f"全部符合预期，共 {stage.seconds:.0f} 秒。临时目录已删除；想自己动手：scripts/demo --keep {folder}",
                f"all came out as it must, in {stage.seconds:.0f} s. The temporary folder is removed; to go on by hand: "
                f"scripts/demo --keep {folder}",
            )
        stage.lines(
            [
                f"cd {folder}; export PATH={programs}:$PATH",
                *(
                    f"{line}  # {say(zh, en)}"
                    for line, zh, en in (
                        (f"{cast.database.shell} < {DAMAGE_FILE}", "再破坏一次", "do the damage again"),
                        (
                            f"duizhang -C {CITY} reconcile {CATALOG} --show-values",
                            "差异，带字段值",
                            "differences, with values",
                        ),
                        (f"{cast.database.shell} < {REPAIR_FILE}", "改正", "put it right"),
                        (f"duizhang -C {CITY} nightly", "夜间作业和简报", "the nightly job and its brief"),
                        (f"duizhang -C {CITY} fsck", "台账自查", "the store against itself and the chain"),
                    )
                ),
            ]
        )
