"""`init`, `party add`, `chain up|down|status`."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from pathlib import Path

from ledger.cli.speech import compact, print_json, say, table
from ledger.cli.workspace import here


def run(args: argparse.Namespace) -> int:
    """Run the command; exit code 0, or 1 for `chain status` of a chain that is not running."""
    return {"init": _init, "party": _party, "chain": _chain}[args.command](args)


def _init(args: argparse.Namespace) -> int:
    from ledger import setup

    target = Path(args.dir if args.dir is not None else args.workspace or ".")
    if args.join is not None:
        made = setup.join(target, Path(args.join), args.party, args.store, passphrase=passphrase_of(args))
    else:
        made = setup.init(target, args.party or "local", args.store)
    from ledger.workspace import Workspace

    workspace = Workspace(made)
    chain = workspace.config.chain
    if args.json:
        print_json(
            {
                "workspace": str(made.resolve()),
                "party": workspace.party,
                "contract": chain.contract,
                "account": chain.account,
            }
        )
        return 0
    print(say(f"工作区已建立：{made}（参与方 {workspace.party}）", f"workspace made: {made} (party {workspace.party})"))
    print(say(f"合约 {chain.contract}，账户 {chain.account}", f"contract {chain.contract}, account {chain.account}"))
    if args.join is None:
        print(
            say(
                "下一步：在 duizhang.toml 配置数据源；登记对方：duizhang party add 名称 --out 文件",
                "next: configure a source in duizhang.toml; register the other side: duizhang party add NAME --out FILE",
            )
        )
    else:
        print(say("下一步：在 duizhang.toml 配置数据源", "next: configure a source in duizhang.toml"))
    return 0


def _party(args: argparse.Namespace) -> int:
    from ledger import setup

    passphrase = passphrase_of(args)
    out = setup.add_party(here(args), args.name, Path(args.out), passphrase=passphrase)
    beside = None if passphrase is not None else setup.passphrase_file(out)
    if args.json:
        print_json({"party": args.name, "file": str(out), "passphrase_file": None if beside is None else str(beside)})
        return 0
    print(
        say(
            f"已登记 {args.name}，加入文件：{out}（以口令加密，含交换密钥与一次性账户私钥，用后删除）",
            f"{args.name} is registered; join file: {out} (sealed under a passphrase; it holds the exchange key and a one-time account's "
            "key: delete it after use)",
        )
    )
    if beside is not None:
        print(
            say(
                f"口令在 {beside}：请与加入文件经不同渠道交付，用后删除",
                f"the passphrase is in {beside}: hand it over by another way than the join file, delete it after use",
            )
        )
    return 0


def passphrase_of(args: argparse.Namespace) -> str | None:
    """The passphrase of `--passphrase-file` or DUIZHANG_PASSPHRASE_FILE, or None; on a terminal it is asked for when a sealed file needs one."""
    from ledger.setup import passphrase_file, read_passphrase

    named = args.passphrase_file or os.environ.get("DUIZHANG_PASSPHRASE_FILE")
    if named:
        return read_passphrase(Path(named))
    sealed = {"init": "join", "key": "file"}.get(args.command)
    file = None if sealed is None else getattr(args, sealed, None)
    if file is not None and not passphrase_file(Path(file)).exists() and sys.stdin.isatty():
        return getpass.getpass(say(f"{file} 的口令：", f"passphrase of {file}: "))
    return None


def _chain(args: argparse.Namespace) -> int:
    from ledger.chain.local import LocalChain
    from ledger.errors import InputError

    workspace = here(args)
    if not workspace.config.chain.embedded:
        raise InputError(
            "chain.not_embedded",
            "本工作区使用外部链节点，没有可启停的本地链",
            "this workspace uses a node of its own RPC URL; there is no local chain to start or stop",
            str(workspace.root / "duizhang.toml"),
        )
    chain = LocalChain(workspace.chain_home)
    if args.action == "up":
        chain.ensure_running()
    elif args.action == "down":
        chain.down()
    status = chain.status()
    facts = {
        "running": status.url is not None,
        "rpc": status.url,
        "chain_id": status.chain_id,
        "contract": workspace.config.chain.contract,
        "block": status.block,
        "saved_block": status.saved_block,
        "home": str(status.home),
    }
    if args.json:
        print_json(facts)
    else:
        print(
            table(
                (say("项", "item"), say("值", "value")),
                [(name, compact({name: value})) for name, value in facts.items()],
            )
        )
    return 0
