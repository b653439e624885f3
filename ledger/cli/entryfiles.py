"""`export entries` and `import entries`: the entry file of a batch, given to and taken from the other party."""

from __future__ import annotations

import argparse
from pathlib import Path

from ledger.cli.speech import note, print_json, say
from ledger.cli.workspace import job


def run(args: argparse.Namespace) -> int:
    """Write or take in the entries of one batch."""
    from ledger.delivery.entries import export_entries, import_entries

    with job(args) as opened:
        catalog = opened.workspace.catalog(args.catalog)
        if args.command == "export":
            done = export_entries(opened, catalog, number=args.batch, party=args.counterpart, out=Path(args.out))
        else:
            done = import_entries(opened, catalog, Path(args.file), number=args.batch, party=args.counterpart)
    record = done.record
    if args.json:
        print_json(
            {
                "catalog": catalog.name,
                "batch": done.batch.descriptor.batch,
                "batch_id": done.batch.batch_id,
                "party": record.party,
                "revision": record.revision,
                "size": record.size,
                "root": record.root,
                "file": args.out if args.command == "export" else args.file,
            }
        )
        return 0
    told = f"{done.batch.descriptor.batch}，{record.size} 条，根 {record.root}"
    if args.command == "export":
        print(say(f"已写出本方批次 {told} → {args.out}", f"entries written: {told} → {args.out}"))
        note(
            "文件只含标签和承诺，不含原文；公开主体的标签可被枚举，请像下发文件一样保管和传递",
            "it holds tags and commitments, no plaintext; tags of public subjects can be enumerated: hand it over as you would a delivery",
        )
    else:
        print(
            say(f"已核验并导入 {record.party} 的批次 {told}", f"entries of {record.party} checked and taken in: {told}")
        )
    return 0
