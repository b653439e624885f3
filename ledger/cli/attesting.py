"""`attest`: the statement both parties derive, its hash on chain."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from ledger.chain.view import time_utc
from ledger.cli.speech import note, print_json, say
from ledger.cli.verdicts import verdict_words
from ledger.cli.workspace import job, reading
from ledger.errors import InputError

if TYPE_CHECKING:
    from ledger.dispute.attest import Attested


def run(args: argparse.Namespace) -> int:
    """Attest; exit 0 once it stands, also where nothing differs no more or still."""
    from ledger.dispute.attest import attest
    from ledger.store.files import write_atomic

    out = None if args.out is None else Path(args.out)
    if out is not None and out.exists():
        raise InputError("attest.out_exists", "输出文件已存在，不予覆盖", "the output file exists", str(out))
    with contextlib.ExitStack() as stack:
        opened = stack.enter_context(reading(args) if args.dry_run else job(args))
        catalog = opened.workspace.catalog(args.catalog)
        done = attest(opened, catalog, args.counterpart, number=args.batch, dry_run=args.dry_run)
        if out is not None:
            write_atomic(out, done.statement, 0o600, overwrite=False)
    if args.json:
        print_json(_as_json(done))
    else:
        _tell(done, dry_run=args.dry_run)
    return 0


def _as_json(done: Attested) -> dict[str, object]:
    return {
        "catalog": done.comparison.catalog,
        "with": done.comparison.them,
        "verdict": str(done.comparison.verdict),
        "statement": done.hash,
        "fresh": done.fresh,
        "signed_by_both": done.signed_by_both,
        "attestations": [
            {"party": it.party, "at": time_utc(it.time), "block": it.block, "position": it.position}
            for it in done.attestations
        ],
    }


def _tell(done: Attested, *, dry_run: bool) -> None:
    found = done.comparison
    print(
        say(
            f"与 {found.them} 的对账单（{found.catalog}，{len(found.batches)} 个批次，{verdict_words(found.verdict)}）：{done.hash}",
            f"statement with {found.them} ({found.catalog}, {len(found.batches)} batch(es), {verdict_words(found.verdict)}): {done.hash}",
        )
    )
    for it in done.attestations:
        print(
            say(
                f"{it.party} 已签认：区块 {it.block}，{time_utc(it.time)}",
                f"attested by {it.party}: block {it.block}, {time_utc(it.time)}",
            )
        )
    if done.signed_by_both:
        print(say("双方已签认同一份对账单", "both parties attested the same statement"))
    elif not dry_run:
        note(f"等待 {found.them} 签认", f"{found.them} has not attested it yet")
