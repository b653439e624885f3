"""One answer of `doctor`: what was looked at, how it is, why that matters, and the command that mends it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Literal

from ledger.errors import LedgerError, NotBuiltError

Outcome = Literal["ok", "warning", "problem", "skipped"]


@dataclass(frozen=True)
class Diagnosis:
    """`mend_*` is empty only where nothing needs mending. A warning works today and may surprise tomorrow."""

    name: str
    result: Outcome
    zh: str
    en: str
    code: str = ""
    mend_zh: str = ""
    mend_en: str = ""
    where: str = ""


def fine(name: str, zh: str, en: str, where: str = "") -> Diagnosis:
    """All right."""
    return Diagnosis(name, "ok", zh, en, where=where)


def problem(name: str, code: str, zh: str, en: str, mend_zh: str, mend_en: str, where: str = "") -> Diagnosis:
    """Some command will fail because of this."""
    return Diagnosis(name, "problem", zh, en, code, mend_zh, mend_en, where)


def warning(name: str, code: str, zh: str, en: str, mend_zh: str = "", mend_en: str = "", where: str = "") -> Diagnosis:
    """Nothing fails, yet somebody should look."""
    return Diagnosis(name, "warning", zh, en, code, mend_zh, mend_en, where)


def skipped(name: str, code: str, zh: str, en: str, mend_zh: str, mend_en: str, where: str = "") -> Diagnosis:
    """Could not be looked at; `mend_*` says what makes it possible."""
    return Diagnosis(name, "skipped", zh, en, code, mend_zh, mend_en, where)


def wrong(name: str, error: LedgerError) -> Diagnosis:
    """The problem that an error tells of."""
    mend_zh, mend_en = mend_for(error)
    return problem(name, error.code, error.zh, error.en, mend_zh, mend_en, error.where)


def mend_for(error: LedgerError) -> tuple[str, str]:
    """How to mend what `error` is about: by its code, else by the family of its code."""
    if isinstance(error, NotBuiltError):
        return "改用本版本支持的配置（见 README）", "use what this version supports (see README)"
    where = shlex.quote(error.where.rpartition(":")[0] or error.where) if error.where else "…"
    exact = _MENDS.get(error.code)
    if exact is None:
        exact = _FAMILIES.get(error.code.partition(".")[0], ("按上面的说明处理", "do as the message says"))
    return exact[0].format(where=where), exact[1].format(where=where)


_BACKUP = ("从备份恢复 {where}", "restore {where} from a backup")
_RIGHTS = ("ls -l {where}；更改属主或权限", "ls -l {where}; change owner or mode")
_STORE_URL = ("改正 duizhang.toml 的 [store] url", "correct [store] url in duizhang.toml")
_ASK = ("请数据库管理员执行上述语句", "have the database's owner run the statement above")
_NODE = ("启动节点，或改正 duizhang.toml 的 [chain] rpc", "start the node, or correct [chain] rpc in duizhang.toml")
_OTHER = ("改正 duizhang.toml 的 [chain] rpc 或 home，使其指向建立工作区时的那条链", "make [chain] rpc or home name the chain this workspace was made on")  # fmt: skip
_LOST = ("停止所有作业，恢复链的存档（chain/dump.json），再运行 duizhang fsck", "stop all jobs, restore the chain's dump (chain/dump.json), then run duizhang fsck")  # fmt: skip

_MENDS: dict[str, tuple[str, str]] = {
    "key.permissions": ("chmod 600 {where}", "chmod 600 {where}"),
    "key.exposed": ("chmod 600 {where}", "chmod 600 {where}"),
    "key.permission_denied": _RIGHTS,
    "key.unreadable": _RIGHTS,
    "key.no_exchange_key": (
        "建链方：duizhang party add 名称 --out 文件；加入方：duizhang init --join 文件",
        "the founder: duizhang party add NAME --out FILE; the one who joins: duizhang init --join FILE",
    ),
    "key.wrong": ("向对方索取该密钥，放入 {where}", "ask the other party for that key and put it into {where}"),
    "account.password": (
        "放回 keys/account.password，或用 DUIZHANG_PASSWORD_FILE 指定口令文件",
        "put keys/account.password back, or name the password file in DUIZHANG_PASSWORD_FILE",
    ),
    "account.password_file": ("口令文件应恰为一行口令：编辑 {where}", "one line with the password: edit {where}"),
    "store.missing": (
        "改正 duizhang.toml 的 [store] url，或从备份恢复 {where}，再运行 duizhang fsck",
        "correct [store] url in duizhang.toml, or restore {where} from a backup, then run duizhang fsck",
    ),
    "store.older": ("duizhang anchor（会自动升级）", "duizhang anchor (it migrates the store)"),
    "store.newer": ("安装更新版本的 duizhang", "install the newer duizhang"),
    "store.url": _STORE_URL,
    "store.foreign": ("改正 duizhang.toml 的 [store] url", "correct [store] url in duizhang.toml"),
    "store.damaged": ("从备份恢复 {where}，再运行 duizhang fsck", "restore {where} from a backup, then run duizhang fsck"),
    "store.locked": ("等占用它的程序结束：fuser {where}", "wait for the program that holds it: fuser {where}"),
    "store.permission": _RIGHTS,
    "store.read_only": _RIGHTS,
    "store.unreachable": ("启动台账库服务器，或改正 duizhang.toml 的 [store] url", "start the store's server, or correct [store] url in duizhang.toml"),
    "store.login": (
        "改正 [store] url 的用户名，或 ~/.pgpass（0600）中的口令；必要时由管理员修改 pg_hba.conf",
        "correct the user in [store] url, or the password in ~/.pgpass (0600); else have pg_hba.conf changed",
    ),
    "store.no_database": _STORE_URL,
    "store.no_schema": _ASK,
    "store.rights": _ASK,
    "store.connections": ("稍后再试，或由管理员提高 max_connections", "try again later, or have max_connections raised"),
    "store.server_old": ("把台账库放到 PostgreSQL 15 或更高版本", "move the store to PostgreSQL 15 or newer"),
    "store.encoding": _ASK,
    "store.connection_lost": ("再运行一次；反复出现时检查网络与服务器日志", "run it again; if it comes back, look at the network and the server's log"),
    "source.missing": ("改正 duizhang.toml 中该数据源的 url（{where} 不存在）", "correct the source's url in duizhang.toml ({where} is not there)"),
    "source.permission": ("按上面的说明授权", "give the rights that the message names"),
    "source.locked": ("等占用它的程序结束：fuser {where}", "wait for the program that holds it: fuser {where}"),
    "source.table_missing": ("改正 duizhang.toml 中该数据源的 table", "correct the source's table in duizhang.toml"),
    "source.column_missing": (
        '在 [source.目录.columns] 中写明对应：字段 = "列名"，或在视图中补上该列',
        'map it in [source.CATALOG.columns]: field = "column", or add the column in a view',
    ),
    "catalog.unknown": (
        "改正 [source.…] 的目录名，或把目录文件放入 catalogs/",
        "correct the catalog's name in [source.…], or put its file into catalogs/",
    ),
    "chain.unreachable": _NODE,
    "chain.malformed_answer": _NODE,
    "chain.rpc_error": _NODE,
    "chain.url": _NODE,
    "chain.other_chain": _OTHER,
    "chain.empty": _OTHER,
    "chain.no_contract": _OTHER,
    "chain.other_code": _OTHER,
    "chain.not_created": _OTHER,
    "chain.dump_missing": _LOST,
    "chain.lost": _LOST,
    "chain.contradiction": ("duizhang fsck；换一个节点再试", "duizhang fsck; try another node"),
    "store.no_chain": ("在新目录重新运行 duizhang init", "run duizhang init again in a new folder"),
}  # fmt: skip

_FAMILIES: dict[str, tuple[str, str]] = {
    "config": ("编辑 {where}", "edit {where}"),
    "party": ("编辑 {where}", "edit {where}"),
    "workspace": ("duizhang init 目录", "duizhang init DIR"),
    "catalog": ("改正后运行 duizhang catalog check {where}", "correct it, then run duizhang catalog check {where}"),
    "key": _BACKUP,
    "account": _BACKUP,
    "store": _BACKUP,
    "source": ("改正 duizhang.toml 中该数据源的设置", "correct the source's settings in duizhang.toml"),
    "chain": _NODE,
}
