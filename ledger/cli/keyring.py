"""`key`: new epochs of exchange keys."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ledger.cli.setup import passphrase_of
from ledger.cli.speech import print_json, say
from ledger.cli.workspace import here

if TYPE_CHECKING:
    from ledger.epochs import Epoch


def run(args: argparse.Namespace) -> int:
    """Make an epoch, or take one in."""
    from ledger.epochs import new_epoch, take_epoch
    from ledger.setup import passphrase_file

    passphrase = passphrase_of(args)
    beside: Path | None = None
    if args.action == "new":
        out = None if args.out is None else Path(args.out)
        made = new_epoch(here(args), args.counterpart, out=out, passphrase=passphrase)
        beside = None if out is None or passphrase is not None else passphrase_file(out)
    else:
        made = take_epoch(here(args), Path(args.file), passphrase=passphrase)
    if args.json:
        print_json({**_json(made), "passphrase_file": None if beside is None else str(beside)})
        return 0
    done = say("已有", "already here") if not made.fresh else say("已写入", "written")
    print(
        say(
            f"{done}：{made.path}，第 {made.number} 期，密钥标识 {made.key_id}。已有批次仍用原密钥；新批次须先 bridge 衔接",
            f"{done}: {made.path}, epoch {made.number}, key id {made.key_id}. Batches stay under the key they have; new ones need a bridge first",
        )
    )
    if beside is not None:
        print(
            say(
                f"口令在 {beside}：请与密钥文件经不同渠道交付，用后删除",
                f"the passphrase is in {beside}: hand it over by another way than the key file, delete both after use",
            )
        )
    return 0


def _json(made: Epoch) -> dict[str, object]:
    return {
        "party": made.party,
        "epoch": made.number,
        "key_id": made.key_id,
        "file": str(made.path),
        "fresh": made.fresh,
    }
