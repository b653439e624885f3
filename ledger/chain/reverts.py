"""What the contract refuses, in words: its named errors decoded and explained to the person who must act."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ledger.chain.abi import AbiError, Type, decode
from ledger.chain.contract import anchor_registry, word_to_name
from ledger.errors import ChainError

# keccak256("PARTY_ROLE"); the registrar's role is zero.
PARTY_ROLE = bytes.fromhex("b922200089753d631c36b6eac46c115660e057765c8df5c796796636265fc469")

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
        name, types = {**anchor_registry().errors, **_BUILT_IN}[raw[:4]]
        values = decode(types, raw[4:])
    except (ValueError, KeyError, AbiError):
        return None
    code, words = _WORDS.get(name, ("chain.refused", _unexplained(name)))
    zh, en = words(*values)
    return Revert(name, values, code, zh, en)


def _unexplained(name: str) -> Callable[..., tuple[str, str]]:
    return lambda *values: (f"合约拒绝：{name}{values}", f"the contract refused: {name}{values}")


def _no_role(account: str, role: bytes) -> tuple[str, str]:
    if role == PARTY_ROLE:
        return (
            f"账户 {account} 没有参与方角色：未登记、已被暂停，或名称已转给他人；请联系登记方",
            f"account {account} lacks the party role: it is not registered, is suspended, or its name has moved on; "
            "ask the registrar",
        )
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
    "AccessControlUnauthorizedAccount": ("chain.no_role", _no_role),
    "NoName": (
        "chain.no_name",
        lambda account: (
            f"账户 {account} 有参与方角色但未登记名称；请联系登记方",
            f"account {account} has the party role but no name; ask the registrar",
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
    "Error": ("chain.refused", lambda text: (f"合约拒绝：{_text(text)}", f"the contract refused: {_text(text)}")),
    "Panic": (
        "chain.refused",
        lambda number: (f"合约内部错误 0x{number:02x}", f"the contract failed inside (panic 0x{number:02x})"),
    ),
}


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")[:300]
