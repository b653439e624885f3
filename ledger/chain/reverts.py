"""What the contract refuses, in words: its named errors decoded and explained to the person who must act."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ledger.chain.abi import AbiError, Type, decode
from ledger.chain.contract import anchor_registry, dispute_registry, word_to_name
from ledger.errors import ChainError

# The two errors of the language itself.
_BUILT_IN: dict[bytes, tuple[str, tuple[Type, ...]]] = {
    bytes.fromhex("08c379a0"): ("Error", (Type("bytes"),)),
    bytes.fromhex("4e487b71"): ("Panic", (Type("uint", 256),)),
}


@dataclass(frozen=True)
class Revert:
    """A refusal by the contract: the error's `name` and `values` as the source declares them, and what they mean."""

    name: str
    values: tuple[Any, ...]
    code: str
    zh: str
    en: str


class Refused(ChainError):
    """The contract refuses the transaction; nothing was changed by it. `revert` says why."""

    def __init__(self, revert: Revert, where: str = "") -> None:
        super().__init__(revert.code, revert.zh, revert.en, where)
        self.revert = revert


def explain(data: str) -> Revert | None:
    """The refusal in `data`, the 0x-hex of a revert; None if it is none that the registry or the language knows."""
    try:
        raw = bytes.fromhex(data.removeprefix("0x"))
        name, types = {**dispute_registry().errors, **anchor_registry().errors, **_BUILT_IN}[raw[:4]]
        values = decode(types, raw[4:])
    except (ValueError, KeyError, AbiError):
        return None
    code, words = _WORDS.get(name, ("chain.refused", _unexplained(name)))
    zh, en = words(*values)
    return Revert(name, values, code, zh, en)


def _unexplained(name: str) -> Callable[..., tuple[str, str]]:
    return lambda *values: (f"合约拒绝：{name}{values}", f"the contract refused: {name}{values}")


def _not_registrar(account: str, _: bytes) -> tuple[str, str]:
    return (
        f"账户 {account} 不是登记方，只有登记方可以登记或暂停参与方",
        f"account {account} is not the registrar, who alone registers and suspends parties",
    )


def _name_taken(name: bytes, holder: str) -> tuple[str, str]:
    shown = word_to_name(name)
    return f"参与方 {shown} 已登记，持有账户 {holder}", f"party {shown} is registered already, held by {holder}"


def _account_used(account: str, name: bytes) -> tuple[str, str]:
    shown = word_to_name(name)
    return (
        f"账户 {account} 现在或曾经代表参与方 {shown}，一个账户只能属于一个参与方；请换一个新账户",
        f"account {account} holds or once held the name {shown}; an account belongs to one name for ever: use a new one",
    )


def _not_holder(account: str, name: bytes, holder: str) -> tuple[str, str]:
    shown = word_to_name(name)
    return (
        f"账户 {account} 已不再代表参与方 {shown}，该名称现由 {holder} 持有",
        f"account {account} no longer holds the name {shown}; {holder} does",
    )


def _revision_mismatch(batch_id: bytes, known: int, actual: int) -> tuple[str, str]:
    return (
        f"批次 {batch_id.hex()} 在链上已有 {actual} 版，而本方只知道 {known} 版：请先查明是谁上的链",
        f"batch {batch_id.hex()} has {actual} revisions on chain, we know {known}: find out first who anchored",
    )


def _size_root(batch_id: bytes, size: int, root: bytes) -> tuple[str, str]:
    return (
        f"批次 {batch_id.hex()} 条数 {size} 与根 {root.hex()} 不符（条数为 0 当且仅当根为空树之根）",
        f"batch {batch_id.hex()}: size {size} and root {root.hex()} do not fit (0 entries iff the empty tree's root)",
    )


_WORDS: dict[str, tuple[str, Callable[..., tuple[str, str]]]] = {
    "AccessControlUnauthorizedAccount": ("chain.no_role", _not_registrar),
    "NoName": (
        "chain.no_name",
        lambda account: (
            f"账户 {account} 未登记为任何参与方；请联系登记方",
            f"account {account} is not registered as any party; ask the registrar",
        ),
    ),
    "NotHolder": ("chain.not_holder", _not_holder),
    "InvalidName": (
        "chain.party_name",
        lambda name: (
            f"参与方名称须为 [a-z][a-z0-9_-]{{0,31}}：{name!r}",
            f"a party's name must be [a-z][a-z0-9_-]{{0,31}}: {name!r}",
        ),
    ),
    "NameTaken": ("chain.name_taken", _name_taken),
    "UnknownName": (
        "chain.no_party",
        lambda name: (f"链上没有参与方 {word_to_name(name)}", f"no party {word_to_name(name)} is registered"),
    ),
    "AccountUsed": ("chain.account_used", _account_used),
    "ZeroAccount": ("chain.zero_account", lambda: ("账户不能为零地址", "the account must not be the zero address")),
    "RevisionMismatch": ("chain.revision_mismatch", _revision_mismatch),
    "SizeRootMismatch": ("chain.size_root", _size_root),
    "DescriptorLength": (
        "chain.descriptor_length",
        lambda claim, length: (
            f"第 {claim + 1} 个批次描述有 {length} 字节，应为 1 至 1024",
            f"the descriptor of claim {claim + 1} has {length} bytes, it must have 1 to 1024",
        ),
    ),
    "SketchLength": (
        "chain.sketch_length",
        lambda batch_id, length: (
            f"批次 {batch_id.hex()} 的差异摘要有 {length} 字节，应为 288 的倍数且不超过 129600",
            f"the sketch of batch {batch_id.hex()} has {length} bytes, it must be a multiple of 288 up to 129,600",
        ),
    ),
    "Suspended": (
        "chain.no_role",
        lambda account, name: (
            f"账户 {account}（{word_to_name(name)}）已被暂停；请联系登记方",
            f"account {account} ({word_to_name(name)}) is suspended; ask the registrar",
        ),
    ),
    "WithOneself": (
        "chain.with_oneself",
        lambda name: (
            f"{word_to_name(name)} 不能与自己对账或争议",
            f"{word_to_name(name)} cannot be its own other side",
        ),
    ),
    "ZeroHash": ("chain.zero_hash", lambda: ("哈希不能为零", "the hash must not be zero")),
    "PositionAhead": (
        "chain.position_ahead",
        lambda position, actual: (
            f"对账单依据位置 {position}，登记合约才到 {actual}：请重新读取后再签",
            f"the statement speaks of position {position}, the registry is at {actual}: read it again",
        ),
    ),
    "FindingsLength": (
        "chain.findings_length",
        lambda length: (
            f"争议须列 1 至 1000 处差异，每处 17 字节；现为 {length} 字节，请分几次提出",
            f"a dispute lists 1 to 1000 findings of 17 bytes, not {length} bytes: open several",
        ),
    ),
    "UnknownKind": (
        "chain.finding_kind",
        lambda finding, kind: (
            f"第 {finding + 1} 处差异的类型 {kind} 未知",
            f"finding {finding + 1} has the unknown kind {kind}",
        ),
    ),
    "NotAnchored": (
        "chain.not_anchored",
        lambda batch_id, party, other: (
            f"{word_to_name(party)} 和 {word_to_name(other)} 都未对批次 {batch_id.hex()} 上链",
            f"neither {word_to_name(party)} nor {word_to_name(other)} anchored batch {batch_id.hex()}",
        ),
    ),
    "UnknownDispute": (
        "dispute.unknown",
        lambda number: (f"链上没有争议 {number}", f"there is no dispute {number} on chain"),
    ),
    "AlreadyClosed": ("dispute.closed", lambda number: (f"争议 {number} 已了结", f"dispute {number} is closed")),
    "NotRespondent": (
        "dispute.not_respondent",
        lambda number, party, respondent: (
            f"争议 {number} 由 {word_to_name(respondent)} 答复，不是 {word_to_name(party)}",
            f"dispute {number} is answered by {word_to_name(respondent)}, not by {word_to_name(party)}",
        ),
    ),
    "NotOpener": (
        "dispute.not_opener",
        lambda number, party, opener: (
            f"争议 {number} 由提出方 {word_to_name(opener)} 了结，不是 {word_to_name(party)}",
            f"dispute {number} is closed by {word_to_name(opener)}, who opened it, not by {word_to_name(party)}",
        ),
    ),
    "UnknownChoice": ("dispute.choice", lambda choice: (f"选项 {choice} 未知", f"choice {choice} is unknown")),
    "BatchNotExpected": (
        "dispute.batch",
        lambda batch_id: (
            f"批次只属于“重发”的答复和“已了结”的结果（{batch_id.hex()}）",
            f"a batch belongs to the answer resend and the outcome settled only ({batch_id.hex()})",
        ),
    ),
    "NotSettled": (
        "dispute.not_settled",
        lambda batch_id: (
            f"双方对批次 {batch_id.hex()} 的上链不一致或不全，不能据此了结",
            f"the two have not both anchored batch {batch_id.hex()} with the same size and root: it settles nothing",
        ),
    ),
    "Error": ("chain.refused", lambda text: (f"合约拒绝：{_text(text)}", f"the contract refused: {_text(text)}")),
    "Panic": (
        "chain.refused",
        lambda number: (f"合约内部错误 0x{number:02x}", f"the contract failed inside (panic 0x{number:02x})"),
    ),
}


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")[:300]
