"""The descriptor of a batch: what it is, from whom, for whom (formats F7). Its SHA-256 is the batch id.

In goes what the sender says about a batch, out come at most 1,024 bytes; or bytes from the chain, taken apart. Both
ways every form of F7 is checked, so that nobody can anchor, or be shown, a descriptor that strays from it.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict, dataclass
from datetime import date

from ledger import jcs
from ledger.catalog import CATALOG_ID, MAX_VERSION
from ledger.errors import InputError
from ledger.record import code_form, tidy

KINDS = ("delivery", "sealed", "correction", "snapshot")
SUITE = "sha256"
ADDRESS = re.compile(r"0x[0-9a-f]{40}")
NO_ADDRESS = "0x" + "0" * 40
CATALOG_NAME = re.compile(rf"({CATALOG_ID.pattern})/([1-9][0-9]{{0,9}})")
BATCH = re.compile(r"[ -~]+")
DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
MEMBERS = ("batch", "catalog", "catalog_digest", "key_id", "kind", "period", "receiver", "sender", "suite")
KIND = jcs.Kind("descriptor", "批次描述", "descriptor", limit=1024)


@dataclass(frozen=True)
class Descriptor:
    """What a batch is. `receiver` is empty for a batch that goes to nobody, `period` if there is none."""

    batch: str
    catalog: str
    catalog_digest: str
    key_id: str
    kind: str
    period: str
    receiver: str
    sender: str
    suite: str = SUITE

    def encode(self) -> bytes:
        """The descriptor's bytes, RFC 8785. InputError `descriptor.<member>` or `.size` if a form of F7 is broken."""
        _check(self, "")
        data = jcs.dump(asdict(self))
        if len(data) > KIND.limit:
            raise KIND.refuse(
                "size", f"共 {len(data)} 字节，上限 {KIND.limit}", f"{len(data)} bytes, at most {KIND.limit}"
            )
        return data

    @property
    def batch_id(self) -> bytes:
        """SHA-256 of the descriptor's bytes, as the contract computes it; 32 bytes."""
        return hashlib.sha256(self.encode()).digest()

    @property
    def catalog_id(self) -> str:
        """The catalog's id, without its version."""
        return self.catalog.partition("/")[0]


def parse_descriptor(data: bytes, where: str = "") -> Descriptor:
    """The descriptor in `data`, every form of F7 checked.

    InputError `descriptor.size .encoding .depth .json .repeated_member .number .not_canonical .members` or, for a member that
    strays from its form, `descriptor.<member>`. `encode` of the result is `data`.
    """
    top = jcs.load(data, KIND, where)
    if not isinstance(top, dict) or set(top) != set(MEMBERS) or not all(isinstance(v, str) for v in top.values()):
        raise KIND.refuse(
            "members",
            f"须恰有文字成员 {' '.join(MEMBERS)}",
            f"has exactly the members {' '.join(MEMBERS)}, all strings",
            where,
        )
    descriptor = Descriptor(**top)
    _check(descriptor, where)
    return descriptor


def batch_number(text: str) -> str:
    """The batch number written as `text`, in normal form as a `code`; InputError `descriptor.batch` if it has none."""
    number = code_form(tidy(text))
    if number is None or not BATCH.fullmatch(number):
        raise KIND.refuse(
            "batch",
            f"批次号 {text[:80]!a} 须为可见的 ASCII 字符，且不为空",
            f"batch number {text[:80]!a} is not made of printable ASCII characters, or is empty",
        )
    return number


def _check(it: Descriptor, where: str) -> None:
    def refuse(member: str, zh: str, en: str) -> InputError:
        value = getattr(it, member)
        return KIND.refuse(member, f"{member} {value[:80]!a} {zh}", f"{member} {value[:80]!a} {en}", where)

    if not BATCH.fullmatch(it.batch) or it.batch != code_form(tidy(it.batch)):
        raise refuse("batch", "不是规范形式的批次号", "is not a batch number in normal form")
    named = CATALOG_NAME.fullmatch(it.catalog)
    if not named or int(named[2]) > MAX_VERSION:
        raise refuse("catalog", "须形如 <id>/<version>", "does not have the form <id>/<version>")
    if not re.fullmatch("[0-9a-f]{64}", it.catalog_digest):
        raise refuse("catalog_digest", "须为 64 位小写十六进制", "does not have 64 lower-case hex digits")
    if not re.fullmatch("[0-9a-f]{16}", it.key_id):
        raise refuse("key_id", "须为 16 位小写十六进制", "does not have 16 lower-case hex digits")
    if it.kind not in KINDS:
        raise refuse("kind", f"须为 {' '.join(KINDS)} 之一", f"is not one of {' '.join(KINDS)}")
    if not _is_period(it.period):
        raise refuse("period", "须为一天、起止两天（起不晚于止）或空", "is not a day, two days in order, or empty")
    if not ADDRESS.fullmatch(it.sender) or it.sender == NO_ADDRESS:
        raise refuse("sender", "须为小写的 0x 地址，且不为零", "is not a 0x-address in lower case other than zero")
    if it.receiver and (not ADDRESS.fullmatch(it.receiver) or it.receiver == NO_ADDRESS):
        raise refuse("receiver", "须为小写的 0x 地址，且不为零", "is not a 0x-address in lower case other than zero")
    if it.receiver == it.sender:
        raise refuse("receiver", "与发送方相同", "is the sender")
    if it.kind == "delivery" and not it.receiver:
        raise refuse("receiver", "为空，但 delivery 必须有接收方", "is empty, and a delivery has a receiver")
    if it.kind == "sealed" and it.receiver:
        raise refuse("receiver", "不为空，但 sealed 没有接收方", "is not empty, and a sealed batch has no receiver")
    if it.suite != SUITE:
        raise refuse("suite", f"未知，本版本只有 {SUITE}", f"is unknown; this version has {SUITE}")


def _is_period(text: str) -> bool:
    if not text:
        return True
    days = text.split("/")
    if len(days) > 2 or not all(DAY.fullmatch(day) for day in days):
        return False
    try:
        real = [date.fromisoformat(day) for day in days]
    except ValueError:
        return False
    return real[0] <= real[-1]
