"""`run-reconciliation`: what the API starts in a process of its own; nobody types it."""

from __future__ import annotations

import argparse
import os

from ledger.cli.workspace import here


def run(args: argparse.Namespace) -> int:
    """Do the reconciliation that DUIZHANG_WORKER has claimed; the outcome goes into the store."""
    from ledger.reconcile.runs import perform

    return perform(here(args), args.id, os.environ.get("DUIZHANG_WORKER", ""))
