"""Two parties: a delivery that the transfer spoils, the chain that names what differs, the dispute, the proof of no penalty.

The city never gets the province's file: what it learns comes from the chain and from its own rows.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ledger import jcs
from ledger.demo import penalties
from ledger.demo.database import Database
from ledger.demo.penalties import CATALOG, COLUMNS, Transfer
from ledger.demo.rows import Row
from ledger.demo.stage import Stage

PENALTIES = 5000
_CLEAN, _FORGED, _TRUST = "no-penalty.json", "no-penalty-forged.json", "trust.json"


def tell(stage: Stage, database: Database, province: str, city: str, companies: Sequence[Row]) -> None:
    """The chapters; the workspaces are there, and their chain."""
    transfer = penalties.plan_transfer(companies, PENALTIES)
    _deliver(stage, database, province, city, transfer)
    _compare(stage, province, city, transfer)
    _dispute(stage, database, province, city, transfer)
    _prove(stage, province, city, transfer)


def _deliver(stage: Stage, database: Database, province: str, city: str, transfer: Transfer) -> None:
    with stage.chapter(
        "另一类数据：传输丢了、改了、多了", "another catalog: the transfer loses, alters, adds"
    ) as facts:
        for party in (province, city):
            Path(party, "catalogs", f"{CATALOG}.toml").write_text(penalties.DECLARATION, encoding="utf-8")
        _configure(database, city)
        stage.tell(
            f"省方下发 {len(transfer.sent)} 条行政处罚（P1.csv），上链的是承诺和加密的差异摘要；数据走原有交换通道，市方拿不到文件",
            f"The province sends {len(transfer.sent)} penalties (P1.csv): commitments and an encrypted sketch go on chain; the rows "
            "go through the exchange channel, the city never sees the file",
        )
        penalties.write_rows(Path("P1.csv"), transfer.sent)
        stage.command("-C", province, "send", CATALOG, "P1.csv", "--batch", "P1", "--to", city, show=1)
        database.execute([penalties.create_table(), *penalties.insert_rows(transfer.arrived, "P1")])
        stage.tell(
            f"通道写进市库的是 {len(transfer.arrived)} 条：丢 {len(transfer.lost)} 条，"
            f"改 {len(transfer.altered)} 条（罚款少一位），多 {len(transfer.added)} 条——市方此时并不知道",
            f"The channel wrote {len(transfer.arrived)} rows: {len(transfer.lost)} lost, {len(transfer.altered)} altered (a digit of the fine "
            f"is gone), {len(transfer.added)} added. The city knows nothing of it yet",
        )
        facts |= {"sent": len(transfer.sent), "arrived": len(transfer.arrived)}


def _configure(database: Database, city: str) -> None:
    lines = [
        "",
        f"[source.{CATALOG}]",
        f'url = "{database.source_url}"',
        f'table = "{CATALOG}"',
        'origin = "delivery"',
        f'batch_column = "{penalties.BATCH_COLUMN}"',
        f"[source.{CATALOG}.columns]",
        *(f'{field} = "{column}"' for field, column in COLUMNS.items()),
    ]
    with Path(city, "duizhang.toml").open("a", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")


def _compare(stage: Stage, province: str, city: str, transfer: Transfer) -> None:
    with stage.chapter(
        "只凭链和自己的库，双方点出同一份清单", "from the chain and one's own rows, both name the same list"
    ) as facts:
        stage.command("-C", city, "receive", CATALOG, "--batch", "P1", "--from", province, expect=1, show=3)
        stage.command("-C", city, "reconcile", CATALOG, "--with", province, expect=1, show=6)
        seen = _findings(stage, city, province)
        planted = {
            **dict.fromkeys(transfer.altered, "differs"),
            **dict.fromkeys(transfer.added, "only_ours"),
        }
        unnamed = sum(kind == "only_theirs" for _, kind in seen)
        named = {number: kind for number, kind in seen if number is not None}
        stage.expect(
            named == planted and unnamed == len(transfer.lost),
            f"市方应点出 {len(planted)} 条并知道缺 {len(transfer.lost)} 条，实为 {named}，缺 {unnamed}",
            f"the city should name {len(planted)} and miss {len(transfer.lost)}; it named {named} and misses {unnamed}",
        )
        theirs = dict(_findings(stage, province, city))
        stage.expect(
            all(theirs.get(number) == "only_ours" for number in transfer.lost),
            "省方应点出丢失的每一条",
            "the province should name every lost record",
        )
        stage.good(
            f"清单经链上的根证明完整：市方点出改动 {len(transfer.altered)} 条、多出 {len(transfer.added)} 条，知道缺 {len(transfer.lost)} 条；"
            "省方用自己的数据点出缺的是哪些",
            f"the list is proved complete by the anchored root: the city names {len(transfer.altered)} altered and {len(transfer.added)} "
            f"added and knows that {len(transfer.lost)} are missing; the province names those from its own rows",
        )
        stage.tell(
            "双方各自算出对账单，逐字节相同，各签一次：",
            "each derives the statement, byte for byte the same, and attests it:",
        )
        facts["statement"] = _attest_both(stage, province, city)


def _findings(stage: Stage, party: str, other: str) -> list[tuple[str | None, str]]:
    told = stage.document("-C", party, "reconcile", CATALOG, "--with", other, expect=1)
    stage.expect(told["verdict"] == "differences", f"结论是 {told['verdict']}", f"the verdict is {told['verdict']}")
    return [
        (None if f["key"] is None else str(f["key"]["document_no"]), str(f["kind"]))
        for batch in told["batches"]
        for f in batch["findings"]
    ]


def _attest_both(stage: Stage, province: str, city: str) -> str:
    stage.command("-C", province, "attest", CATALOG, "--with", city, "--out", "statement-province.json", show=2)
    stage.command("-C", city, "attest", CATALOG, "--with", province, "--out", "statement-city.json", show=4)
    one, other = (Path(name).read_bytes() for name in ("statement-province.json", "statement-city.json"))
    stage.expect(one == other, "两份对账单应逐字节相同", "the two statements should be the same bytes")
    for name in ("statement-province.json", "statement-city.json"):
        Path(name).unlink()
    stage.good("两份对账单相同，链上有双方的签认", "the same statement, attested by both on chain")
    return str(json.loads(one)["format"])


def _dispute(stage: Stage, database: Database, province: str, city: str, transfer: Transfer) -> None:
    with stage.chapter("争议、重发、了结", "the dispute, the correction, the end of it") as facts:
        stage.tell(
            f"多出的 {len(transfer.added)} 条没有人发过，市方删掉；丢的和改的，市方在链上提出争议",
            f"The {len(transfer.added)} added rows were sent by nobody: the city deletes them. About the lost and altered ones it opens a "
            "dispute on chain",
        )
        database.execute([penalties.delete_rows(transfer.added)])
        stage.command("-C", city, "receive", CATALOG, "--batch", "P1", "--from", province, expect=1, show=1)
        stage.command("-C", city, "dispute", "open", CATALOG, "--with", province, "--batch", "P1", show=3)
        number = str(_only(stage.document("-C", province, "dispute", "list"))["id"])
        resent = "C1.csv"
        stage.tell(
            "省方核实后按争议清单重发：更正批次 C1 上链，文件交给交换通道",
            "The province looks and sends those records again: correction batch C1 on chain, the file to the channel",
        )
        stage.command("-C", province, "dispute", "answer", number, "--resend", "C1", "--out", resent, show=3)
        rows = _resent(Path(resent))
        stage.expect(
            sorted(row["document_no"] for row in rows) == sorted([*transfer.lost, *transfer.altered]),
            "重发的应正是丢失和被改的记录",
            "just the lost and the altered records should be sent again",
        )
        database.execute(
            [penalties.delete_rows([row["document_no"] for row in rows]), *penalties.insert_rows(rows, "C1")]
        )
        stage.command("-C", city, "receive", CATALOG, "--batch", "C1", "--from", province, show=1)
        stage.command("-C", city, "reconcile", CATALOG, "--with", province, show=1)
        stage.command("-C", city, "dispute", "close", number, "--settled-by", "C1", show=2)
        stage.command("-C", province, "dispute", "show", number, show=-4)
        stage.command("-C", city, "reconcile", CATALOG, show=1)
        stage.good(
            "双方一致；争议由 C1 了结，链上引用双方对 C1 的上链，任何人可查全过程",
            "both agree; the dispute is settled by C1, with a reference to both parties' anchors of it, for everybody to read",
        )
        _attest_both(stage, province, city)
        facts |= {"dispute": int(number), "resent": len(rows)}


def _only(told: dict[str, Any]) -> dict[str, Any]:
    found: list[dict[str, Any]] = told["disputes"]
    return found[0]


def _resent(path: Path) -> list[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return [{name: row[name] for name in COLUMNS} for row in csv.DictReader(file)]


def _prove(stage: Stage, province: str, city: str, transfer: Transfer) -> None:
    company = transfer.clean
    with stage.chapter("信用报告代替无违法违规证明", "a proof that there is no penalty") as facts:
        stage.tell(
            f"{company['name']}（{company['uscc']}）要证明自己没有处罚记录：双方先对累积状态做快照，再由市方出证",
            f"{company['name']} ({company['uscc']}) wants it proved that it has no penalty: both anchor a snapshot, then the city makes the proof",
        )
        stage.command("-C", province, "snapshot", CATALOG, "--to", city, show=1)
        stage.command("-C", city, "snapshot", CATALOG, "--from", province, show=1)
        stage.command("-C", city, "prove", CATALOG, "--subject", company["uscc"], "--out", _CLEAN)
        rpc = str(stage.document("-C", province, "chain", "status")["rpc"])
        words = ("--trust", _TRUST, "--rpc", rpc, "--require", "2")
        stage.command("verify", _CLEAN, *words, show=-3)
        told = stage.document("verify", _CLEAN, *words)
        stage.expect(
            told["verdict"] == "proved" and len(told["vouched_by"]) == 2,
            f"应由双方作证，实为 {told['verdict']}、{told['vouched_by']}",
            f"both should vouch; the verdict is {told['verdict']} by {told['vouched_by']}",
        )
        stage.good(
            "退出码 0：快照中没有它的任何处罚记录，省、市都作证",
            "exit code 0: the snapshot has no penalty of it, both parties vouch",
        )
        fined = transfer.fined
        stage.tell(
            f"伪造：把文件里的主体改成有处罚的 {fined['name']}（{fined['uscc']}）",
            f"A forgery: the subject in the file is changed to {fined['name']} ({fined['uscc']}), which was fined",
        )
        document = json.loads(Path(_CLEAN).read_bytes())
        document["subject"] = fined["uscc"]
        Path(_FORGED).write_bytes(jcs.dump(document) + b"\n")
        stage.command("verify", _FORGED, *words, expect=1, show=-1)
        stage.good("退出码 1：相邻条目对不上，伪造不成立", "exit code 1: the neighbours do not fit, the forgery fails")
        facts |= {"no_penalty": company["uscc"], "vouched_by": told["vouched_by"]}
