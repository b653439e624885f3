"""The command line of design section 7: every command, option and help text, in both languages; no work is done here."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NoReturn

from ledger.cli.speech import say
from ledger.errors import InputError

NOT_BUILT = ("report",)
"""Commands of the design that later versions bring; refused by name, with exit 2."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(
            "usage", f"命令行用法不对：{message}（{self.prog} --help 可看用法）", f"{message} (see {self.prog} --help)"
        )


def build_parser() -> argparse.ArgumentParser:
    """The parser; `args.module` names the module under ledger.cli that runs the command."""
    common = _common()
    parser = _Parser(
        prog="duizhang",
        description=say(
            "对账：证明省里发的就是市里收的。退出码：0 全部一致，1 有差异，2 无法判定。",
            "Proves that what the province sent is what the city holds. Exit: 0 matched, 1 differences, 2 could not tell.",
        ),
        parents=[common],
        allow_abbrev=False,
    )
    commands: argparse._SubParsersAction[argparse.ArgumentParser] = parser.add_subparsers(  # type: ignore[assignment]
        dest="command", metavar=say("命令", "COMMAND")
    )

    def add(name: str, module: str, zh: str, en: str) -> argparse.ArgumentParser:
        sub: argparse.ArgumentParser = commands.add_parser(
            name, help=say(zh, en), description=say(zh, en), parents=[common], allow_abbrev=False
        )
        sub.set_defaults(module=module)
        return sub

    def add_hidden(name: str, module: str) -> argparse.ArgumentParser:
        sub: argparse.ArgumentParser = commands.add_parser(name, parents=[common], allow_abbrev=False)
        sub.set_defaults(module=module)
        return sub

    init = add(
        "init",
        "setup",
        "建立工作区：配置、密钥、本地链、合约、台账库",
        "make a workspace: settings, keys, chain, store",
    )
    init.add_argument("dir", nargs="?", metavar="DIR", help=say("目录（须为空）", "folder (must be empty)"))
    init.add_argument("--party", help=say("本方名称（默认 local）", "this party's name (default local)"))
    init.add_argument("--join", metavar="FILE", help=say("由 party add 生成的加入文件", "join file made by party add"))
    _passphrase(init)
    init.add_argument(
        "--store",
        metavar="URL",
        help=say(
            "台账库（默认工作区内的 SQLite；或 postgresql://…）",
            "store (default SQLite in the workspace; or postgresql://…)",
        ),
    )

    party = add("party", "setup", "为另一参与方登记并生成加入文件", "register another party and write its join file")
    party_commands = _actions(party)
    party_add = _action(party_commands, common, "add", "登记参与方", "register a party")
    party_add.add_argument("name", metavar="NAME")
    party_add.add_argument(
        "--out",
        metavar="FILE",
        required=True,
        help=say("加入文件（加密，权限 0600）", "join file (encrypted, mode 0600)"),
    )
    _passphrase(party_add)

    chain = add("chain", "setup", "本地开发链：up、down、status", "the local development chain: up, down, status")
    chain_commands = _actions(chain)
    for name, zh, en in (("up", "启动", "start"), ("down", "停止", "stop"), ("status", "查看状态", "show its state")):
        _action(chain_commands, common, name, zh, en)

    add("status", "status", "已上链、待确认、逾期情况", "what is anchored, pending, overdue")
    add("doctor", "status", "检查配置与环境，并给出改正办法", "what is misconfigured and how to mend it")

    catalog = add("catalog", "catalogs", "目录：list、show、check、new", "catalogs: list, show, check, new")
    catalog_commands = _actions(catalog)
    _action(catalog_commands, common, "list", "列出目录", "list the catalogs")
    show = _action(catalog_commands, common, "show", "显示一个目录", "show one catalog")
    show.add_argument("catalog", metavar="CATALOG")
    check = _action(catalog_commands, common, "check", "检查目录文件", "check a catalog or a catalog file")
    check.add_argument("catalog", metavar="CATALOG|FILE", nargs="?")
    new = _action(catalog_commands, common, "new", "由表或文件生成目录草稿", "draft a catalog from a table or a file")
    new.add_argument("id", metavar="ID")
    new.add_argument("--file", metavar="FILE", help=say("CSV、XLSX 或 Parquet 样本", "a sample: CSV, XLSX or Parquet"))
    new.add_argument("--url", metavar="URL", help=say("数据库 URL（与 --table 同用）", "database URL (with --table)"))
    new.add_argument("--table", metavar="TABLE", help=say("表或视图", "table or view"))
    new.add_argument(
        "--encoding", default="utf-8", choices=("utf-8", "gb18030"), help=say("CSV 编码", "encoding of the CSV")
    )
    new.add_argument("--sheet", metavar="NAME", help=say("工作表", "sheet of a workbook"))
    new.add_argument("--header-row", metavar="N", type=int, default=1, help=say("表头所在行", "row of the header"))
    new.add_argument(
        "--out",
        metavar="FILE",
        help=say(
            "写到此文件（默认工作区 catalogs/ID.toml；- 为标准输出）",
            "write here (default catalogs/ID.toml; - is standard output)",
        ),
    )
    digest = add(
        "digest",
        "records",
        "计算文件或数据源的条数与根，不写任何东西",
        "size and root of a file or the source; writes nothing",
    )
    digest.add_argument("catalog", metavar="CATALOG")
    digest.add_argument("file", metavar="FILE", nargs="?")
    digest.add_argument(
        "--key",
        metavar="PARTY",
        help=say("使用与该方的交换密钥（默认本方密钥）", "use the key shared with PARTY (default: own)"),
    )
    digest.add_argument(
        "--cells",
        metavar="M",
        type=int,
        help=say("同时给出 M 个单元的差异摘要（明文）", "also the sketch of M cells, in clear"),
    )
    _file_options(digest)
    _limit_rate(digest)

    send = add("send", "delivery", "发送方：把一次下发登记上链", "the sender's side of a delivery")
    _delivery_options(send, "--to")
    send.add_argument(
        "--period",
        default="",
        help=say("数据所属日期或区间 YYYY-MM-DD[/YYYY-MM-DD]", "day or range the data belong to"),
    )
    send.add_argument(
        "--correction", action="store_true", help=say("这是更正批次（correction）", "this is a correction batch")
    )
    send.add_argument(
        "--cells",
        metavar="M",
        type=int,
        help=say(
            "差异摘要的单元数（4–1800，4 的倍数；0 为不带；默认按条数）",
            "cells of the sketch (4-1800, a multiple of 4; 0: none; default: by size)",
        ),
    )

    receive = add("receive", "delivery", "接收方：核对并登记收到的内容", "the receiver's side of a delivery")
    _delivery_options(receive, "--from")
    receive.add_argument(
        "--load", action="store_true", help=say("把文件中的行写入数据源", "write the file's rows into the source")
    )
    receive.add_argument(
        "--final",
        action="store_true",
        help=say("以此为终：此后入库的不再补登", "final: what lands later is not anchored any more"),
    )

    anchor = add(
        "anchor",
        "anchoring",
        "封存本方新行，上链一切待上链内容；可重复执行",
        "seal own new rows, anchor what is ready; idempotent",
    )
    anchor.add_argument("catalog", metavar="CATALOG", nargs="*")
    _limit_rate(anchor)

    reconcile = add(
        "reconcile",
        "reconciling",
        "数据源对链上存证：逐条找出差异",
        "the source against the chain: names each difference",
    )
    reconcile.add_argument("catalog", metavar="CATALOG")
    reconcile.add_argument("--format", choices=("table", "json", "jsonl", "csv", "xlsx", "html"), default=None)
    reconcile.add_argument("--out", metavar="FILE", help=say("把 xlsx 写到此文件", "write the xlsx to this file"))
    reconcile.add_argument(
        "--show-values",
        action="store_true",
        help=say("显示字段值（个人信息仍遮蔽）", "show field values (personal ones stay masked)"),
    )
    reconcile.add_argument(
        "--batch", metavar="NO", help=say("只核对此批次承载的主键", "only keys whose live version this batch carries")
    )
    for name, zh, en in (
        ("--since", "自该日起的批次", "batches of this day or later"),
        ("--until", "至该日止的批次", "batches of this day or earlier"),
    ):
        reconcile.add_argument(name, metavar="YYYY-MM-DD", help=say(zh, en))
    reconcile.add_argument(
        "--with",
        dest="counterpart",
        metavar="PARTY",
        help=say("与该方在链上的登记逐批核对", "batch by batch against what PARTY anchored"),
    )
    _limit_rate(reconcile)
    # What the API starts: a reconciliation that was asked for and stands in the store.
    add_hidden("run-reconciliation", "runs").add_argument("id", metavar="ID")

    finding = add(
        "finding", "findings", "处理差异：list、assign、explain", "work the differences: list, assign, explain"
    )
    finding_commands = _actions(finding)
    listed = _action(finding_commands, common, "list", "列出差异及其处理状态", "list findings and how they stand")
    listed.add_argument("catalog", metavar="CATALOG", nargs="?")
    listed.add_argument("--kind", metavar="KIND", action="append", help=say("只列此类", "only this kind"))
    listed.add_argument(
        "--state",
        action="append",
        choices=("new", "open", "assigned", "explained", "settled"),
        help=say("只列此状态（默认除 settled 外全部）", "only this state (default: all but settled)"),
    )
    assign = _action(finding_commands, common, "assign", "分派给某人", "assign to somebody")
    assign.add_argument("id", metavar="ID", nargs="+", type=int)
    assign.add_argument("--to", metavar="NAME", required=True, help=say("承办人", "who works it"))
    assign.add_argument("--by", metavar="NAME", required=True, help=say("经办人", "who says so"))
    explain = _action(
        finding_commands, common, "explain", "说明原因，至某日前不再提示", "give the reason; not news until a day"
    )
    explain.add_argument("id", metavar="ID", nargs="+", type=int)
    explain.add_argument(
        "--until", metavar="YYYY-MM-DD", required=True, help=say("有效至（含当日）", "valid until, that day included")
    )
    explain.add_argument("--reason", required=True, help=say("原因", "why, in your words"))
    explain.add_argument("--by", metavar="NAME", required=True, help=say("经办人", "who says so"))

    restore = add(
        "restore",
        "restoring",
        "从归档恢复被改动或缺失的行（默认只演练）",
        "put altered or missing rows back from the archive (dry run by default)",
    )
    restore.add_argument("catalog", metavar="CATALOG")
    restore.add_argument(
        "key", metavar="KEY", nargs="*", help=say("只恢复这些主键（默认全部）", "only these keys (default: all)")
    )
    restore.add_argument("--format", choices=("table", "json", "sql"), default=None)
    restore.add_argument("--apply", action="store_true", help=say("真正写入数据源", "write into the source"))
    restore.add_argument(
        "--by", metavar="NAME", help=say("经办人（--apply 必填）", "who says so (needed with --apply)")
    )

    for name, zh, en in (
        ("accept", "认可本方数据源中指名记录的改动", "make named changes of an own source lawful"),
        ("withdraw", "撤回本方数据源中指名的记录", "withdraw named records of an own source"),
    ):
        sub = add(name, "anchoring", zh, en)
        sub.add_argument("catalog", metavar="CATALOG")
        sub.add_argument(
            "key",
            metavar="KEY",
            nargs="+",
            help=say("键值；多字段键用 JSON 对象", "key value; a JSON object for a key of several fields"),
        )
        reasons = "repaired 已修复 | revoked 撤销 | expired 到期 | erased 删除 | error 差错"
        sub.add_argument(
            "--reason", required=True, help=reasons if name == "withdraw" else say("理由", "why, in your words")
        )
        sub.add_argument("--by", required=True, help=say("经办人", "who says so"))

    prove = add("prove", "proving", "生成存证文件", "make proof files")
    prove.add_argument("catalog", metavar="CATALOG")
    prove.add_argument("key", metavar="KEY", nargs="*")
    prove.add_argument(
        "--batch",
        metavar="NO",
        help=say("取该批次中的版本（默认最新）", "the version in this batch (default: the latest)"),
    )
    prove.add_argument(
        "--out", metavar="PATH", help=say("输出文件；多个键时为目录", "output file; a folder for several keys")
    )
    prove.add_argument(
        "--subject",
        metavar="CODE",
        help=say(
            "证明该主体在快照中的全部记录，或没有记录",
            "prove all records on this subject in a snapshot, or that there are none",
        ),
    )
    prove.add_argument(
        "--with", dest="counterpart", metavar="PARTY", help=say("取与该方的数据流", "of the stream shared with PARTY")
    )

    verify = add(
        "verify",
        "verifying",
        "用存证文件、信任文件和链核验一条记录",
        "check a proof file against a trust file and the chain",
    )
    verify.add_argument("file", metavar="FILE")
    verify.add_argument(
        "--trust", metavar="FILE", help=say("信任文件（自行取得）", "trust file (obtained by yourself)")
    )
    verify.add_argument("--rpc", metavar="URL", help=say("链的 RPC 地址", "RPC URL of the chain"))
    verify.add_argument(
        "--require",
        metavar="N",
        type=int,
        default=1,
        choices=(1, 2),
        help=say("须有几方作证（默认 1）", "how many parties must vouch (default 1)"),
    )
    verify.add_argument("--checkpoint", metavar="FILE", help=say("（后续版本）", "(later)"))

    trust = add("trust", "proving", "信任文件", "trust file")
    trust_export = _action(_actions(trust), common, "export", "导出信任文件", "write the trust file")
    trust_export.add_argument("--out", metavar="FILE")

    _two_parties(add, common)

    add("fsck", "checking", "台账自查：文件、归档、链上存证", "the store against itself and the chain")
    nightly = add(
        "nightly",
        "nightly",
        "夜间作业：续办、接收、对账、封存、上链、简报",
        "nightly job: resume, receive, reconcile, seal, anchor, brief",
    )
    _limit_rate(nightly)

    serve = add("serve", "serving", "对账接口服务（HTTP，/v1）", "the reconciliation API (HTTP, /v1)")
    serve.add_argument(
        "--host", metavar="HOST", help=say("监听地址（默认见 [api]）", "address to listen on (default: [api])")
    )
    serve.add_argument(
        "--port", metavar="PORT", type=int, help=say("端口；0 为任意空闲端口", "port; 0 is any free one")
    )
    serve.add_argument("--workers", metavar="N", type=int, help=say("工作进程数", "worker processes"))

    token = add("token", "tokens", "接口令牌：create、list、revoke", "tokens of the API: create, list, revoke")
    token_commands = _actions(token)
    token_new = _action(token_commands, common, "create", "新建令牌，只显示一次", "make a token; it is shown once")
    token_new.add_argument("name", metavar="NAME", help=say("给谁用", "who uses it"))
    token_new.add_argument(
        "--scope",
        action="append",
        required=True,
        choices=("read", "verify", "reconcile", "admin"),
        help=say("权限，可重复", "what it may do; repeat for several"),
    )
    token_new.add_argument(
        "--days", type=int, default=90, help=say("有效天数（默认 90）", "valid for so many days (default 90)")
    )
    _action(token_commands, common, "list", "列出令牌", "list the tokens")
    token_end = _action(token_commands, common, "revoke", "停用令牌", "revoke a token")
    token_end.add_argument("id", metavar="ID")

    demo = add("demo", "demo", "演示全过程", "the demonstration")
    demo.add_argument("--keep", metavar="DIR", help=say("在此目录中进行并保留", "work in this folder and keep it"))
    demo.add_argument(
        "--database",
        metavar="URL",
        help=say("用 postgresql:// 库（默认 SQLite 文件）", "in a postgresql:// database (default: an SQLite file)"),
    )
    demo.add_argument("--data", metavar="X", help=say("（后续版本）", "(later)"))

    for name in NOT_BUILT:
        add(name, "later", "（后续版本）", "(later)").add_argument("rest", nargs=argparse.REMAINDER)
    return parser


def _two_parties(add: Callable[[str, str, str, str], argparse.ArgumentParser], common: argparse.ArgumentParser) -> None:
    """What is between two parties: statements, disputes, snapshots, entry files, bridges, erasure."""
    by = say("经办人", "who says so")
    attest = add(
        "attest", "attesting", "对账单上链（双方各签一次）", "put the hash of the statement on chain; each side once"
    )
    attest.add_argument("catalog", metavar="CATALOG")
    _between(attest, "--with", required=True)
    attest.add_argument(
        "--batch", metavar="NO", help=say("只就此批次（默认全部）", "about this batch only (default: all)")
    )
    attest.add_argument("--out", metavar="FILE", help=say("另存对账单", "write the statement here as well"))
    attest.add_argument("--dry-run", action="store_true", help=say("只生成，不上链", "make it, put nothing on chain"))

    dispute = add(
        "dispute", "disputes", "争议：open、answer、close、list、show", "disputes: open, answer, close, list, show"
    )
    actions = _actions(dispute)
    opened = _action(actions, common, "open", "就一个批次的差异提出争议", "dispute the differences of a batch")
    opened.add_argument("catalog", metavar="CATALOG")
    opened.add_argument(
        "key",
        metavar="KEY",
        nargs="*",
        help=say("主键或 key_tag（默认全部差异）", "keys or key tags (default: all that differ)"),
    )
    _between(opened, "--with", required=True)
    opened.add_argument("--batch", metavar="NO", required=True, help=say("批次号", "batch number"))
    answer = _action(actions, common, "answer", "答复争议", "answer a dispute")
    answer.add_argument("id", metavar="ID", type=int)
    which = answer.add_mutually_exclusive_group(required=True)
    which.add_argument("--concede", action="store_true", help=say("承认", "they are right"))
    which.add_argument("--reject", action="store_true", help=say("不认可", "they are wrong"))
    which.add_argument(
        "--resend", metavar="NO", help=say("以此批次号重发有争议的记录", "send the disputed records again as batch NO")
    )
    answer.add_argument("--out", metavar="FILE", help=say("重发批次写到此 CSV", "the resent records as CSV"))
    answer.add_argument(
        "--evidence", metavar="FILE", help=say("证据文件（只上链其哈希）", "evidence (its hash goes on chain)")
    )
    close = _action(actions, common, "close", "了结争议", "close a dispute")
    close.add_argument("id", metavar="ID", type=int)
    how = close.add_mutually_exclusive_group(required=True)
    how.add_argument(
        "--settled-by",
        metavar="NO",
        help=say("由此批次了结（双方上链须一致）", "settled by batch NO, equal on both sides"),
    )
    how.add_argument("--withdrawn", action="store_true", help=say("撤回争议", "taken back"))
    how.add_argument("--accepted", action="store_true", help=say("接受对方的答复", "left at their answer"))
    disputes = _action(actions, common, "list", "列出争议", "list disputes")
    disputes.add_argument("--all", action="store_true", help=say("含已了结的", "closed ones too"))
    _action(actions, common, "show", "一项争议的全部经过", "the whole history of one").add_argument(
        "id", metavar="ID", type=int
    )

    snapshot = add(
        "snapshot", "snapshots", "快照：数据流至某批次的累积状态上链", "anchor the fold of a stream up to a batch"
    )
    snapshot.add_argument("catalog", metavar="CATALOG")
    sides = snapshot.add_mutually_exclusive_group()
    _between(sides, "--to")
    _between(sides, "--from")
    snapshot.add_argument(
        "--batch",
        metavar="NO",
        help=say(
            "截至此批次（默认最后一批）；与 --from 同用时为快照批次号",
            "up to this batch (default: the last); with --from, the snapshot's own number",
        ),
    )

    bridge = add(
        "bridge",
        "bridging",
        "衔接：目录换版或换密钥时开始新系列",
        "begin a new series: another catalog version or key epoch",
    )
    bridge.add_argument("catalog", metavar="CATALOG")
    across = bridge.add_mutually_exclusive_group()
    _between(across, "--to")
    _between(across, "--from")
    bridge.add_argument(
        "--entries",
        metavar="FILE",
        help=say(
            "与 --from 同用：对方新系列首批的条目文件（差异摘要解不开时）",
            "with --from: the sender's entry file of the new half, where its sketch does not suffice",
        ),
    )

    key = add("key", "keyring", "交换密钥：new（新一期）、take（导入对方写来的）", "exchange keys: new, take")
    keys = _actions(key)
    fresh = _action(keys, common, "new", "生成新一期密钥（不带 --with 为本方数据源的）", "make the next epoch of a key")
    _between(fresh, "--with")
    fresh.add_argument(
        "--out", metavar="FILE", help=say("供对方导入的密钥文件（加密）", "key file for that party (sealed)")
    )
    _passphrase(fresh)
    taken = _action(keys, common, "take", "导入对方生成的密钥", "take in a key that the other party made")
    taken.add_argument("file", metavar="FILE")
    _passphrase(taken)

    for name, zh, en in (
        ("export", "导出本方某批次的条目文件", "write the entries of a batch as this party anchored it"),
        (
            "import",
            "导入对方某批次的条目文件（按其上链的根核验）",
            "take in the other side's entries, checked against its root",
        ),
    ):
        entries = _action(_actions(add(name, "entryfiles", zh, en)), common, "entries", zh, en)
        entries.add_argument("catalog", metavar="CATALOG")
        if name == "import":
            entries.add_argument("file", metavar="FILE")
        _between(entries, "--with", required=True)
        entries.add_argument("--batch", metavar="NO", required=True, help=say("批次号", "batch number"))
        if name == "export":
            entries.add_argument("--out", metavar="FILE", required=True)

    erase = add(
        "erase", "erasing", "删除记录原文（链上承诺保留）", "remove a record's plaintext for good; its commitment stays"
    )
    erase.add_argument("catalog", metavar="CATALOG")
    erase.add_argument("key", metavar="KEY", nargs="+")
    erase.add_argument("--reason", required=True, help=say("理由", "why, in your words"))
    erase.add_argument("--by", required=True, help=by)


def _between(parser: argparse._ActionsContainer, option: str, *, required: bool = False) -> None:
    # An argument of a group that excludes others cannot be required itself: the group is.
    added = parser.add_argument(
        option,
        dest={"--with": "counterpart", "--to": "to", "--from": "sender"}[option],
        metavar="PARTY",
        help=say("对方名称", "the other party"),
    )
    added.required = required


def _passphrase(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--passphrase-file",
        metavar="FILE",
        help=say(
            "加入文件的口令（默认 DUIZHANG_PASSPHRASE_FILE，或加入文件旁的 .passphrase）",
            "passphrase of the join file (default: DUIZHANG_PASSPHRASE_FILE, or FILE.passphrase beside it)",
        ),
    )


def _common() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "-C", dest="workspace", metavar="DIR", default=argparse.SUPPRESS,
        help=say("工作区目录（或 DUIZHANG_HOME；默认当前目录）", "workspace (or DUIZHANG_HOME; default: this folder)"),
    )  # fmt: skip
    common.add_argument(
        "--progress", action="store_true", default=argparse.SUPPRESS,
        help=say("不在终端时也在标准错误上每隔几秒报告进度", "tell progress on standard error every few seconds, also without a terminal"),
    )  # fmt: skip
    common.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=say("输出 JSON", "print JSON"))
    common.add_argument(
        "--lang", choices=("zh", "en"), default=argparse.SUPPRESS, help=say("语言", "language (or DUIZHANG_LANG)")
    )
    return common


def _actions(parser: argparse.ArgumentParser) -> argparse._SubParsersAction[argparse.ArgumentParser]:
    return parser.add_subparsers(dest="action", required=True, metavar=say("动作", "ACTION"))


def _action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser],
    common: argparse.ArgumentParser,
    name: str,
    zh: str,
    en: str,
) -> argparse.ArgumentParser:
    return actions.add_parser(name, help=say(zh, en), description=say(zh, en), parents=[common], allow_abbrev=False)


def _limit_rate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--limit-rate",
        metavar="ROWS",
        type=int,
        help=say(
            "从数据库读取每秒至多这么多行（默认按 [source.<目录>] limit_rate）",
            "read at most so many rows a second from a database (default: limit_rate of [source.<catalog>])",
        ),
    )


def _file_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--encoding", default="utf-8", choices=("utf-8", "gb18030"), help=say("CSV 编码", "encoding of the CSV")
    )
    parser.add_argument("--sheet", metavar="NAME", help=say("XLSX 的工作表", "sheet of a workbook"))
    parser.add_argument(
        "--header-row",
        metavar="N",
        type=int,
        default=1,
        help=say("表头所在行（默认 1；标题行在其上时用）", "row of the header (default 1; with title lines above it)"),
    )
    parser.add_argument(
        "--quarantine",
        metavar="FILE",
        help=say("坏行另存到此文件，其余继续（退出码 1）", "set bad rows aside here and go on (exit 1)"),
    )
    parser.add_argument(
        "--operation-column",
        metavar="COLUMN",
        default=None,
        help=say("操作列（默认 operation）", "operation column (default operation)"),
    )


def _delivery_options(parser: argparse.ArgumentParser, direction: str) -> None:
    parser.add_argument("catalog", metavar="CATALOG")
    parser.add_argument("file", metavar="FILE", nargs="?")
    parser.add_argument("--batch", metavar="NO", required=True, help=say("批次号", "batch number"))
    parser.add_argument(
        direction, dest="party", metavar="PARTY", required=True, help=say("对方名称", "the other party")
    )
    _limit_rate(parser)
    _file_options(parser)
