"""Making workspaces: `init`, `party add`, `init --join` (design section 7).

Everything is built in a folder inside the target and moved into place when it is whole, duizhang.toml last: a folder without one is
not a workspace. A join that was interrupted is taken up again with the account it had made, because the name may have moved to it.

A store elsewhere (`--store`) is filled last: everything is done in a SQLite store inside that folder, whose rows are then copied over
in one transaction. So a failure leaves nothing of a half-made workspace there, and rows that are equal mean that only the moving is left.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from eth_account import Account
from eth_account.signers.local import LocalAccount

from ledger.anchor.claims import finish
from ledger.anchor.link import Link, open_link
from ledger.anchor.outbox import store_signed
from ledger.batch.book import now
from ledger.chain.account import create_account, load_account
from ledger.chain.disputes import DisputeRegistry, deploy_disputes
from ledger.chain.finality import Finality
from ledger.chain.identity import Block, Identity, block_at, chain_id, code_sha256
from ledger.chain.local import LocalChain
from ledger.chain.registry import Registry
from ledger.chain.rpc import Rpc
from ledger.chain.transactions import contract_address, deploy_data, encode_move, encode_register
from ledger.config import check_party_name, load_config
from ledger.descriptor import ADDRESS
from ledger.errors import ChainError, InputError, LedgerError, StoreError
from ledger.passphrase import is_sealed, make_passphrase, seal, unseal
from ledger.store import models
from ledger.store.db import Store, copy_rows, is_empty, open_store, same_rows
from ledger.store.files import os_errors, read_private, sync_folder, write_atomic
from ledger.workspace import OWN, Workspace

JOIN_FORMAT = "duizhang-join/1"
FOLDERS = ("keys", "store", "catalogs", "entries", "archive", "inbox", "briefs", "evidence")
_OWN_STORE = "sqlite:///store/ledger.db"
_STAGE = ".duizhang-init"
_JOIN_LIMIT = 1 << 16


@dataclass(frozen=True)
class Joining:
    """A join file: where the chain is, who the founder is, the pair's exchange key, and the one-time account's key."""

    party: str
    founder: str
    rpc: str
    home: str
    identity: Identity
    disputes: str | None
    exchange_key: str
    account_key: str


def init(target: Path, party: str, store: str | None = None) -> Path:
    """Make a workspace with a chain of its own and the registry deployed; returns its folder. The folder must be empty.

    `store` is the URL of a store elsewhere, which must not hold anything (InputError `init.store_used`).
    """
    check_party_name(party, "--party")
    if _half_published(target) or _moved(target / _STAGE, store):
        return _publish(target / _STAGE, target)
    _check_unused(store)
    stage = _stage(target, resume=False)
    try:
        _common(stage)
        chain = LocalChain.create(stage / "chain")
        with Rpc(chain.ensure_running()) as rpc:
            account = load_account(stage / "keys" / "account.json", stage / "keys" / "account.password")
            address = str(account.address).lower()
            contract = contract_address(address, 0)
            # The third transaction: after the registry's and the registration.
            disputes = contract_address(address, 2)
            _config(
                stage,
                party,
                store,
                rpc="embedded",
                home="chain",
                contract=contract,
                account=address,
                disputes=disputes,
            )
            _deploy(stage, rpc, chain, account, party)
        # Moved while it runs, it would be taken for another folder's chain.
        chain.down()
    except BaseException:
        _abandon(stage)
        raise
    try:
        _move_store(stage, store)
    except LedgerError as error:
        # Whether it was written shows the next time, by the rows in the stage.
        if error.code != "store.commit_unknown":
            _abandon(stage)
        raise
    return _publish(stage, target)


def join(
    target: Path, file: Path, party: str | None, store: str | None = None, *, passphrase: str | None = None
) -> Path:
    """Make a workspace on another party's chain from a join file, moving the name to an account of our own; `store` as for `init`.

    Without a `passphrase`, that of the file `<join file>.passphrase` is taken. InputError `passphrase.*`, `join.*`.
    """
    joining = parse_join(unsealed(file, passphrase), str(file))
    if party is not None and party != joining.party:
        raise InputError(
            "join.party",
            f"加入文件是为 {joining.party} 生成的，不是 {party}",
            f"the join file was made for {joining.party}, not for {party}",
            str(file),
        )
    if _half_published(target) or _moved(target / _STAGE, store):
        return _publish(target / _STAGE, target)
    _check_unused(store)
    stage = _stage(target, resume=True)
    _common(stage)
    _write_key(stage / "keys" / joining.founder / "1.key", joining.exchange_key)
    account = load_account(stage / "keys" / "account.json", stage / "keys" / "account.password")
    home = joining.home if joining.rpc == "embedded" else "chain"
    _config(
        stage,
        joining.party,
        store,
        rpc=joining.rpc,
        home=home,
        contract=joining.identity.contract,
        account=str(account.address).lower(),
        disputes=joining.disputes,
    )
    with closing(open_store(_store_url(stage), "create")) as staged:
        with staged.write() as session:
            if session.get(models.Chain, 1) is None:
                session.add(_chain_row(joining.identity, joining.identity.block))
        workspace = Workspace(stage)
        with open_link(workspace, staged) as link:
            _take_name(staged, link, joining, account)
    _move_store(stage, store)
    return _publish(stage, target)


def unsealed(file: Path, passphrase: str | None) -> bytes:
    """What a file sealed under a passphrase holds: that given, else that beside it. InputError `join.*`, `passphrase.*`, `key.permissions`."""
    data = read_private(file, _JOIN_LIMIT)
    if not is_sealed(data):
        raise InputError(
            "join.not_sealed",
            "不是以口令加密的文件（duizhang-join/2）；请对方用本版本重新生成",
            "this is no sealed file (duizhang-join/2): ask the other party for one made by this version",
            str(file),
        )
    beside = passphrase_file(file)
    if passphrase is None and not beside.exists():
        raise InputError(
            "passphrase.missing",
            f"文件以口令加密：请用 --passphrase-file 或 DUIZHANG_PASSPHRASE_FILE 给出口令文件，或放在 {beside.name}",
            f"the file is sealed: give its passphrase by --passphrase-file or DUIZHANG_PASSPHRASE_FILE, or put it into {beside.name}",
            str(file),
        )
    return unseal(data, read_passphrase(beside) if passphrase is None else passphrase, str(file))


def passphrase_file(file: Path) -> Path:
    """Where the passphrase of a join file is looked for, and written to if nobody chose one."""
    return file.with_name(f"{file.name}.passphrase")


def read_passphrase(path: Path) -> str:
    """The passphrase in a private file: its one line. InputError `passphrase.file`, `key.*`."""
    try:
        text = read_private(path, 4096).decode("utf-8")
    except UnicodeDecodeError as cause:
        raise InputError("passphrase.file", "口令文件须为 UTF-8", "a passphrase file is UTF-8", str(path)) from cause
    line = text.removesuffix("\n").removesuffix("\r")
    if not line or "\n" in line:
        raise InputError("passphrase.file", "口令文件须恰有一行", "a passphrase file has exactly one line", str(path))
    return line


def add_party(workspace: Workspace, name: str, out: Path, *, passphrase: str | None = None) -> Path:
    """Register `name` for a one-time account and write its join file (0600), sealed under the passphrase; run again, it writes the same
    content again.

    Without a `passphrase` a strong one is made and written beside it (`passphrase_file`, 0600).
    """
    check_party_name(name, "NAME")
    if name == workspace.party:
        raise InputError("party.self", f"{name} 就是本方", f"{name} is this party itself", "NAME")
    kept = workspace.root / "keys" / name / "join.json"
    if out.exists():
        raise InputError(
            "party.out_exists", "输出文件已存在，不予覆盖", "the output file exists and is not overwritten", str(out)
        )
    beside = passphrase_file(out)
    # A passphrase file without a join file is what an interrupted run left.
    kept_one = passphrase is None and beside.exists()
    chosen = passphrase or (read_passphrase(beside) if kept_one else make_passphrase())
    # Before anything is registered: a passphrase that is too short is refused here.
    seal(b"", chosen)
    with (
        workspace.locked("party add"),
        closing(workspace.open_store("write")) as store,
        open_link(workspace, store) as link,
    ):
        if not kept.exists():
            if name in link.registry.view().parties:
                raise InputError(
                    "party.taken",
                    f"链上已有参与方 {name}",
                    f"a party {name} is registered on the chain already",
                    "NAME",
                )
            _prepare_join(workspace, link, name, kept)
        joining = parse_join(read_private(kept, _JOIN_LIMIT), str(kept))
        address = str(Account.from_key(bytes.fromhex(joining.account_key)).address).lower()
        finish(store, link)
        if name not in link.registry.view().parties:
            account = load_account(workspace.keystore, workspace.password_file)
            _submit(
                store,
                link,
                account,
                "register",
                encode_register(name, address),
                to=link.identity.contract,
                done=lambda: _holds(link, name, address),
            )
        if passphrase is None and not kept_one:
            write_atomic(beside, chosen.encode() + b"\n", 0o600, overwrite=False)
        write_atomic(out, seal(kept.read_bytes(), chosen), overwrite=False)
    return out


def parse_join(data: bytes, where: str) -> Joining:
    """Read a join file; InputError `join.form` for anything but exactly its members."""
    try:
        doc = json.loads(data)
        if doc["format"] != JOIN_FORMAT or set(doc) != {
            "format",
            "party",
            "founder",
            "chain",
            "exchange_key",
            "account_key",
        }:
            raise KeyError("format")  # noqa: TRY301  one refusal for all that can be wrong
        chain = doc["chain"]
        joining = Joining(
            party=check_party_name(doc["party"], where),
            founder=check_party_name(doc["founder"], where),
            rpc=str(chain["rpc"]),
            home=str(chain["home"]),
            identity=Identity(
                int(chain["chain_id"]),
                str(chain["contract"]),
                str(chain["code_sha256"]),
                Block(int(chain["block"]["number"]), str(chain["block"]["hash"])),
            ),
            disputes=_disputes(chain.get("disputes")),
            exchange_key=str(doc["exchange_key"]),
            account_key=str(doc["account_key"]),
        )
        if len(bytes.fromhex(joining.exchange_key)) != 32 or len(bytes.fromhex(joining.account_key)) != 32:
            raise KeyError("key")  # noqa: TRY301
        return joining
    except (ValueError, KeyError, TypeError) as cause:
        raise InputError(
            "join.form",
            "加入文件不完整或不是本程序生成的",
            "the join file is cut off or was not made by party add",
            where,
        ) from cause


def _disputes(told: object) -> str | None:
    """The dispute registry's address in a join file; none in one of a founder that has none."""
    if told is None:
        return None
    if not isinstance(told, str) or not ADDRESS.fullmatch(told):
        raise KeyError("disputes")
    return told


def _common(stage: Path) -> None:
    """Folders, keys and account that every workspace has."""
    for name in FOLDERS:
        (stage / name).mkdir(mode=0o700, exist_ok=True)
    # What an interrupted join made is kept: the name may have moved to its account.
    for path in (stage / "keys" / OWN / "1.key", stage / "keys" / "archive.key"):
        if not path.exists():
            _write_key(path, secrets.token_hex(32))
    if not (stage / "keys" / "account.json").exists():
        create_account(stage / "keys" / "account.json", stage / "keys" / "account.password")


def _deploy(stage: Path, rpc: Rpc, chain: LocalChain, account: LocalAccount, party: str) -> None:
    """Deploy the registry and register this party, through the outbox like everything else that is sent."""
    address = str(account.address).lower()
    contract = contract_address(address, 0)
    unborn = Identity(chain_id(rpc), contract, "", Block(1, ""))
    link = Link(rpc, "", Registry(rpc, contract), unborn, Finality("instant"), address, chain)
    store = open_store(_store_url(stage), "create")
    try:
        _submit(
            store, link, account, "deploy", deploy_data(), to=None, done=lambda: code_sha256(rpc, contract) is not None
        )
        code, origin = code_sha256(rpc, contract), block_at(rpc, 1)
        if code is None or origin is None:
            raise ChainError("chain.no_contract", "合约未部署成功", "the contract was not deployed", rpc.where)
        with store.write() as session:
            session.add(_chain_row(Identity(unborn.chain_id, contract, code, origin), origin))
        _submit(
            store,
            link,
            account,
            "register",
            encode_register(party, address),
            to=contract,
            done=lambda: _holds(link, party, address),
        )
        disputes = DisputeRegistry(rpc, contract_address(address, 2))
        _submit(
            store,
            link,
            account,
            "deploy",
            deploy_disputes(contract),
            to=None,
            done=lambda: code_sha256(rpc, disputes.address) is not None,
        )
        disputes.check(contract)
    finally:
        store.close()


def _take_name(store: Store, link: Link, joining: Joining, account: LocalAccount) -> None:
    """Move the name from the one-time account to ours, if that was not done by an interrupted run."""
    one_time = Account.from_key(bytes.fromhex(joining.account_key))
    finish(store, link)
    ours = str(account.address).lower()
    holder = link.registry.view().address(joining.party)
    if holder == ours:
        return
    if holder != str(one_time.address).lower():
        raise ChainError(
            "join.used",
            f"参与方 {joining.party} 已转到账户 {holder}：该加入文件已被使用过",
            f"party {joining.party} has moved on to account {holder}: this join file was used before",
            link.rpc.where,
        )
    _submit(
        store,
        link,
        one_time,
        "move",
        encode_move(ours),
        to=link.identity.contract,
        done=lambda: _holds(link, joining.party, ours),
    )


def _submit(
    store: Store,
    link: Link,
    account: LocalAccount,
    purpose: models.Purpose,
    data: bytes,
    *,
    to: str | None,
    done: Callable[[], bool],
) -> None:
    """Send through the outbox; the caller has finished earlier runs. Whether it worked is decided by reading the chain: `done`."""
    with store.write() as session:
        row = store_signed(session, link, account, purpose, data, to=to, moment=now())
    finish(store, link)
    if not done():
        raise ChainError(
            "chain.reverted",
            f"交易 0x{row.hash}（{purpose}）没有生效",
            f"transaction 0x{row.hash} ({purpose}) had no effect",
            link.rpc.where,
        )


def _holds(link: Link, name: str, address: str) -> bool:
    view = link.registry.view()
    return name in view.parties and view.address(name) == address


def _prepare_join(workspace: Workspace, link: Link, name: str, kept: Path) -> None:
    """The join file is on disk before the name is registered: a name whose one-time key is lost could never be used."""
    with os_errors(kept):
        kept.parent.mkdir(mode=0o700, exist_ok=True)
    key_file = kept.parent / "1.key"
    if not key_file.exists():
        _write_key(key_file, secrets.token_hex(32))
    identity = link.identity
    doc = {
        "format": JOIN_FORMAT,
        "party": name,
        "founder": workspace.party,
        "chain": {
            "rpc": workspace.config.chain.rpc,
            "home": str(workspace.chain_home.resolve()),
            "chain_id": identity.chain_id,
            "contract": identity.contract,
            "code_sha256": identity.code_sha256,
            "disputes": workspace.config.chain.disputes,
            "block": {"number": identity.block.number, "hash": identity.block.hash},
        },
        "exchange_key": workspace.exchange_key(name).secret.hex(),
        "account_key": secrets.token_hex(32),
    }
    write_atomic(kept, json.dumps(doc, ensure_ascii=False, indent=1).encode() + b"\n", overwrite=False)


def _chain_row(identity: Identity, remembered: Block) -> models.Chain:
    return models.Chain(
        id=1,
        chain_id=identity.chain_id,
        contract=identity.contract,
        code_sha256=identity.code_sha256,
        origin_number=identity.block.number,
        origin_hash=identity.block.hash,
        block_number=remembered.number,
        block_hash=remembered.hash,
        updated_at=now(),
    )


def _config(
    stage: Path,
    party: str,
    store: str | None,
    *,
    rpc: str,
    home: str,
    contract: str,
    account: str,
    disputes: str | None,
) -> None:
    text = f"""# duizhang 工作区配置（说明见 docs/operations.md）。修改后可用 duizhang doctor 检查。
party = "{party}"

[store]
url = {json.dumps(store or _OWN_STORE, ensure_ascii=False)}

[chain]
rpc = "{rpc}"          # embedded：本机开发链；或链节点的 http(s) 地址
home = {json.dumps(home, ensure_ascii=False)}
contract = "{contract}"
{f'disputes = "{disputes}"' if disputes else '# disputes = "0x…"       # 争议合约，建链一方提供'}
account = "{account}"
finality = "instant"      # instant | depth:N | finalized

# 每个目录一个数据源，例如：
# [source.registration]
# url = "sqlite:////path/to/city.db"
# table = "registration"
# origin = "delivery"       # delivery：他方下发；own：本方产生
# batch_column = "batch_no"
# [source.registration.columns]
# uscc = "统一社会信用代码"
"""
    write_atomic(stage / "duizhang.toml", text.encode(), 0o600)


def _write_key(path: Path, secret: str) -> None:
    with os_errors(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.exists() and read_private(path).strip() == secret.encode():
        return
    write_atomic(path, f"{secret}\n".encode(), overwrite=False)


def _store_url(stage: Path) -> str:
    return f"sqlite:///{stage.resolve() / 'store' / 'ledger.db'}"


def _check_unused(store: str | None) -> None:
    """Before anything is made: what can be known to go wrong with a store elsewhere."""
    if store is None:
        return
    try:
        with closing(open_store(store, "read")) as there:
            if not is_empty(there):
                raise _store_used(there.where)
    except StoreError as error:
        if error.code == "store.older":
            raise _store_used(error.where) from error
        if error.code != "store.missing":
            raise


def _move_store(stage: Path, store: str | None) -> None:
    """Fill the store elsewhere; done again after an unknown outcome, it finds its own rows there."""
    if store is None:
        return
    with closing(open_store(_store_url(stage), "write")) as ours, closing(open_store(store, "create")) as there:
        if is_empty(there):
            copy_rows(ours, there)
        elif not same_rows(ours, there):
            raise _store_used(there.where)


def _moved(stage: Path, store: str | None) -> bool:
    """True if an earlier run was interrupted after it had filled the store elsewhere."""
    if store is None or not (stage / "duizhang.toml").exists() or not (stage / "store" / "ledger.db").exists():
        return False
    if load_config(stage / "duizhang.toml").store_url != store:
        return False
    try:
        with closing(open_store(_store_url(stage), "read")) as ours, closing(open_store(store, "read")) as there:
            return not is_empty(there) and same_rows(ours, there)
    except StoreError as error:
        if error.code in ("store.missing", "store.older"):
            return False
        raise


def _store_used(where: str) -> InputError:
    return InputError(
        "init.store_used",
        f"{where} 已是某个工作区的台账库，不予共用；请另建一个库或模式（search_path）",
        "this is the store of a workspace already and is not shared; make another database or schema (search_path)",
        where,
    )


def _half_published(target: Path) -> bool:
    """True if an earlier run was interrupted while it moved a finished workspace into place."""
    stage = target / _STAGE
    if not (stage / "duizhang.toml").exists():
        return False
    there = {path.name for path in target.iterdir()} - {_STAGE}
    return bool(there) and there <= {*FOLDERS, "chain", "lock"}


def _stage(target: Path, *, resume: bool) -> Path:
    """The folder everything is built in; what an interrupted init left there is removed, an interrupted join's is kept."""
    stage = target / _STAGE
    with os_errors(target):
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        there = sorted(path.name for path in target.iterdir())
        if there not in ([], [_STAGE]):
            raise InputError(
                "init.not_empty",
                f"目录不是空的（有 {there[0]} 等 {len(there)} 项），不在其中建立工作区",
                f"the folder is not empty ({there[0]} and {len(there) - 1} more); name an empty or new one",
                str(target),
            )
        if stage.exists() and not resume:
            _abandon(stage)
        stage.mkdir(mode=0o700, exist_ok=True)
    return stage


def _abandon(stage: Path) -> None:
    chain = stage / "chain"
    if chain.is_dir():
        # A node of a half-made chain would run on for ever.
        with contextlib.suppress(LedgerError):
            LocalChain(chain).down()
    shutil.rmtree(stage, ignore_errors=True)


def _publish(stage: Path, target: Path) -> Path:
    settings, copied = stage / "duizhang.toml", stage / "store"
    elsewhere = load_config(settings).store_url != _OWN_STORE
    with os_errors(target):
        for path in stage.iterdir():
            if path != settings and not (path == copied and elsewhere):
                os.replace(path, target / path.name)
        # Once anything has moved nobody asks any more whether the rows were copied.
        if copied.exists():
            shutil.rmtree(copied)
        os.replace(settings, target / settings.name)
        stage.rmdir()
        sync_folder(target)
    return target
