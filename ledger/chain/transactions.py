"""Building, signing, sending and looking up transactions of the registry.

Fees, gas and nonce are decided here and in the caller's outbox, never by a library. The order is the caller's (design
section 6): `prepare` gives raw bytes and hash, which are stored; `send_raw` sends them and says what is known about the
outcome; `receipt` decides. The same raw bytes may be sent any number of times: they can take effect once.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from eth_hash.auto import keccak

from ledger.chain.contract import anchor_registry, name_to_word
from ledger.chain.reverts import Refused, Revert, explain
from ledger.chain.rpc import Rpc, RpcAnswered, RpcMalformed, RpcUnreachable, quantity
from ledger.errors import ChainError

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

GAS_CAP = 16_777_216
"""EIP-7825: no transaction may ask for more gas than this."""


@dataclass(frozen=True)
class Claim:
    """What a party says about a batch. `root` is 64 hex digits; `known_revisions` as the contract's anchor() wants it."""

    descriptor: bytes
    known_revisions: int
    size: int
    root: str
    sketch: bytes = b""


@dataclass(frozen=True)
class Fees:
    """What is paid for gas, in wei. `legacy` is a transaction with one gas price, which is then `most`."""

    legacy: bool
    most: int
    tip: int


@dataclass(frozen=True)
class Signed:
    """A signed transaction: the bytes to store and send, its hash (0x-hex), its nonce, its sender (lower case)."""

    raw: bytes
    hash: str
    nonce: int
    sender: str


class Outcome(Enum):
    """What is known after sending. Whatever is not recognised is UNKNOWN: ask for the receipt, then send the same again.

    REFUSED alone means that these bytes have no effect now. (A node may all the same have mined them as failed, which
    uses up the nonce: the receipt tells.)
    """

    ACCEPTED = "accepted"
    ALREADY_KNOWN = "already known"
    NONCE_TOO_LOW = "nonce too low"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Sent:
    """The outcome of sending, with the node's reason in both languages and the contract's refusal if it was one."""

    outcome: Outcome
    zh: str = ""
    en: str = ""
    revert: Revert | None = None


@dataclass(frozen=True)
class Receipt:
    """Ethereum's receipt. `ok` is false for a transaction that was mined and failed; `contract` is one it created."""

    transaction: str
    block: int
    block_hash: str
    ok: bool
    gas_used: int
    contract: str | None


# ---- what to call ----


def encode_anchor(claims: Sequence[Claim]) -> bytes:
    """Call data that anchors all of `claims` or none."""
    rows = [(c.descriptor, c.known_revisions, c.size, bytes.fromhex(c.root), c.sketch) for c in claims]
    return anchor_registry().functions["anchor"].encode(rows)


def encode_register(name: str, account: str) -> bytes:
    """Call data of the registrar: register `name` for `account`."""
    return anchor_registry().functions["register"].encode(name_to_word(name), account)


def encode_move(account: str) -> bytes:
    """Call data of a holder: move its name to `account`."""
    return anchor_registry().functions["move"].encode(account)


def deploy_data() -> bytes:
    """The data of the transaction, to nobody, that deploys the registry; its sender becomes the registrar."""
    return anchor_registry().bytecode


def packed(
    rpc: Rpc, sender: str, to: str, claims: Sequence[Claim], *, most_claims: int, most_bytes: int, most_gas: int
) -> Iterator[list[Claim]]:
    """`claims` in order, in lists for one transaction each (`groups`), which are halved until the node, too, says that they fit.

    The node is asked about a list when it is taken, that is, when those before it have been sent. What the contract refuses is not cut:
    `prepare` says why.
    """
    for group in groups(claims, most_claims=most_claims, most_bytes=most_bytes, most_gas=most_gas):
        yield from _halved(rpc, sender, to, group, most_gas)


def groups(claims: Sequence[Claim], *, most_claims: int, most_bytes: int, most_gas: int) -> Iterator[list[Claim]]:
    """`claims` in order, cut into lists within the three bounds, as far as can be planned; one too large for a bound goes alone."""
    group: list[Claim] = []
    length, content = _CALL_HEAD, 0
    for claim in claims:
        more, inside = _call_bytes(claim), len(claim.descriptor) + len(claim.sketch)
        gas = planned_gas(len(group) + 1, length + more, content + inside)
        if group and (len(group) >= most_claims or length + more > most_bytes or gas > most_gas):
            yield group
            group, length, content = [], _CALL_HEAD, 0
        group.append(claim)
        length, content = length + more, content + inside
    if group:
        yield group


def planned_gas(claims: int, length: int, content: int) -> int:
    """The gas to allow for so many claims in `length` bytes of call data, `content` of them descriptors and sketches.

    Measured, and a little above it: what writing costs, but at least what the data of a transaction cost by themselves (EIP-7623: 40 a
    byte), which counts where there are sketches. And a fifth, as in `estimate_gas`.
    """
    return max(38_000 + 54_500 * claims + 26 * content, 21_000 + 40 * length) * 6 // 5


# ---- build and sign ----


def prepare(
    rpc: Rpc, account: LocalAccount, *, chain_id: int, to: str | None, data: bytes, nonce: int | None = None
) -> Signed:
    """A signed transaction, not yet sent, that the contract would accept now: tried, estimated, priced.

    `to` None deploys. Without `nonce`, the next one of the account's mined transactions. Refused if the contract would
    refuse it.
    """
    sender = str(account.address).lower()
    preflight(rpc, sender, to, data)
    # With a fifth on top it must still fit a block, else no block ever takes it.
    gas = min(estimate_gas(rpc, sender, to, data), block_gas(rpc))
    number = next_nonce(rpc, sender) if nonce is None else nonce
    return sign(account, chain_id=chain_id, nonce=number, to=to, data=data, gas=gas, fees=current_fees(rpc))


def preflight(rpc: Rpc, sender: str, to: str | None, data: bytes) -> None:
    """Return if the transaction would succeed at the latest block; Refused with the contract's reason if not."""
    try:
        rpc.newest("eth_call", _call(sender, to, data), "latest")
    except RpcAnswered as error:
        raise _refusal(error) from error


def estimate_gas(rpc: Rpc, sender: str, to: str | None, data: bytes) -> int:
    """The gas to allow: the node's estimate and a fifth, at most GAS_CAP. Refused, or ChainError `chain.gas`."""
    try:
        estimate = quantity(rpc.newest("eth_estimateGas", _call(sender, to, data)), "eth_estimateGas")
    except RpcAnswered as error:
        raise _refusal(error) from error
    if estimate > GAS_CAP:
        raise ChainError(
            "chain.gas",
            f"该交易需 {estimate} gas，超过单笔上限 {GAS_CAP}；请减少每笔交易的批次数（chain.most_gas）或差异摘要的单元数（--cells）",
            f"the transaction needs {estimate} gas, more than the {GAS_CAP} one may use; anchor fewer batches in each (chain.most_gas) or "
            "with smaller sketches (--cells)",
            rpc.where,
        )
    return min(estimate * 6 // 5, GAS_CAP)


def block_gas(rpc: Rpc) -> int:
    """The gas that a block, and so a transaction, may use at most, as far as the node says so; never more than GAS_CAP."""
    block = rpc.call("eth_getBlockByNumber", "latest", False)
    limit = block.get("gasLimit") if isinstance(block, dict) else None
    # Some chains count no gas and say 0.
    return min(quantity(limit, "gasLimit") or GAS_CAP, GAS_CAP) if limit is not None else GAS_CAP


def current_fees(rpc: Rpc) -> Fees:
    """The fees to offer now: none on a chain without fees, else twice the base fee and the tip the node suggests.

    A chain whose blocks have no base fee gets legacy transactions at the node's gas price.
    """
    block = rpc.call("eth_getBlockByNumber", "latest", False)
    base_hex = block.get("baseFeePerGas") if isinstance(block, dict) else None
    if base_hex is None:
        return Fees(True, quantity(rpc.call("eth_gasPrice"), "eth_gasPrice"), 0)
    base = quantity(base_hex, "baseFeePerGas")
    if base == 0:
        return Fees(False, 0, 0)
    tip = quantity(rpc.call("eth_maxPriorityFeePerGas"), "eth_maxPriorityFeePerGas")
    return Fees(False, 2 * base + tip, tip)


def next_nonce(rpc: Rpc, sender: str) -> int:
    """The nonce after the account's mined transactions. What waits in a pool is the outbox's to know, not the node's."""
    return quantity(rpc.newest("eth_getTransactionCount", sender, "latest"), "eth_getTransactionCount")


def sign(
    account: LocalAccount, *, chain_id: int, nonce: int, to: str | None, data: bytes, gas: int, fees: Fees
) -> Signed:
    """Sign locally; hash and raw bytes are known before anything is sent."""
    fields: dict[str, Any] = {"chainId": chain_id, "nonce": nonce, "value": 0, "gas": gas, "data": data}
    if fees.legacy:
        fields |= {"gasPrice": fees.most}
    else:
        fields |= {"type": 2, "maxFeePerGas": fees.most, "maxPriorityFeePerGas": fees.tip}
    if to is not None:
        fields["to"] = bytes.fromhex(to.removeprefix("0x"))
    signed = account.sign_transaction(fields)
    return Signed(bytes(signed.raw_transaction), "0x" + bytes(signed.hash).hex(), nonce, str(account.address).lower())


def contract_address(sender: str, nonce: int) -> str:
    """The address, lower case, of the contract that this sender creates with this nonce."""
    number = nonce.to_bytes((nonce.bit_length() + 7) // 8, "big")
    # RLP of [sender, nonce]: a single byte below 0x80 stands for itself, other strings follow 0x80 + length.
    item = number if len(number) == 1 and number[0] < 0x80 else bytes([0x80 + len(number)]) + number
    body = b"\x94" + bytes.fromhex(sender.removeprefix("0x")) + item
    return "0x" + keccak(bytes([0xC0 + len(body)]) + body)[12:].hex()


# ---- send and look up ----


def send_raw(rpc: Rpc, raw: bytes) -> Sent:
    """Send signed bytes; what is known about the outcome. Never raises for what the node or the network does."""
    try:
        told = rpc.call("eth_sendRawTransaction", "0x" + raw.hex())
    except RpcAnswered as error:
        return classify(error)
    except (RpcUnreachable, RpcMalformed) as error:
        return Sent(Outcome.UNKNOWN, error.zh, error.en)
    if told != "0x" + keccak(raw).hex():
        return Sent(Outcome.UNKNOWN, f"节点给出的交易哈希不符：{told}", f"the node named another hash: {told}")
    return Sent(Outcome.ACCEPTED)


def classify(error: RpcAnswered) -> Sent:
    """What a node's answer to eth_sendRawTransaction means."""
    revert = explain(error.data)
    if revert is not None:
        return Sent(Outcome.REFUSED, revert.zh, revert.en, revert)
    for pattern, outcome in _ANSWERS:
        if pattern.search(error.rpc_message):
            return Sent(outcome, error.zh, error.en)
    return Sent(Outcome.UNKNOWN, error.zh, error.en)


def receipt(rpc: Rpc, transaction: str) -> Receipt | None:
    """The receipt of a transaction hash, or None if it is not mined (yet)."""
    found = rpc.call("eth_getTransactionReceipt", transaction)
    if not isinstance(found, dict) or not found.get("blockHash"):
        return None
    created = found.get("contractAddress")
    return Receipt(
        transaction,
        quantity(found.get("blockNumber"), "blockNumber"),
        str(found["blockHash"]),
        quantity(found.get("status"), "status") == 1,
        quantity(found.get("gasUsed"), "gasUsed"),
        str(created).lower() if created else None,
    )


def wait_for_receipt(rpc: Rpc, transaction: str, timeout_seconds: float = 30.0) -> Receipt | None:
    """The receipt as soon as there is one; None when the time is over, which says nothing about the transaction."""
    deadline = time.monotonic() + timeout_seconds
    pause = 0.005
    while True:
        found = receipt(rpc, transaction)
        if found is not None or time.monotonic() >= deadline:
            return found
        time.sleep(pause)
        pause = min(pause * 1.5, 0.5)


# Messages differ by client and version (anvil, geth, hardhat, Besu, Nethermind). One that says the same for different
# cases (ganache: "transaction underpriced") is not here, and so stays UNKNOWN.
_ANSWERS = (
    (re.compile(r"already imported|already ?known|known transaction: 0x", re.IGNORECASE), Outcome.ALREADY_KNOWN),
    (re.compile(r"nonce (is )?too low", re.IGNORECASE), Outcome.NONCE_TOO_LOW),
    (
        re.compile(
            r"insufficient funds|intrinsic gas too low|exceeds block gas limit|invalid chain ?id|nonce too high"
            r"|replacement transaction underpriced|less than block base fee|max fee per gas less than",
            re.IGNORECASE,
        ),
        Outcome.REFUSED,
    ),
)


# A selector, where the list begins, how long it is.
_CALL_HEAD = 4 + 2 * 32


def _call_bytes(claim: Claim) -> int:
    """What a claim takes of the call data: eight words, and its two byte strings padded to words."""
    return 8 * 32 + sum(-(-len(data) // 32) * 32 for data in (claim.descriptor, claim.sketch))


def _halved(rpc: Rpc, sender: str, to: str, group: list[Claim], most_gas: int) -> Iterator[list[Claim]]:
    if len(group) == 1 or _affordable(rpc, sender, to, encode_anchor(group), most_gas):
        yield group
        return
    middle = len(group) // 2
    yield from _halved(rpc, sender, to, group[:middle], most_gas)
    yield from _halved(rpc, sender, to, group[middle:], most_gas)


def _affordable(rpc: Rpc, sender: str, to: str, data: bytes, most_gas: int) -> bool:
    try:
        return estimate_gas(rpc, sender, to, data) <= min(most_gas, block_gas(rpc))
    except Refused:
        return True
    except RpcAnswered:
        # Clients say in their own words that a block or a call has not so much gas. Whatever else it is, one claim alone will be told.
        return False
    except ChainError as error:
        if error.code == "chain.gas":
            return False
        raise


def _call(sender: str, to: str | None, data: bytes) -> dict[str, str]:
    call = {"from": sender, "data": "0x" + data.hex()}
    # Without a gas price of its own a call is free, whatever the sender owns.
    return call if to is None else {**call, "to": to}


def _refusal(error: RpcAnswered) -> ChainError:
    revert = explain(error.data)
    return error if revert is None else Refused(revert, error.where)
