"""Commands that a later version brings: refused by name, never half there."""

from __future__ import annotations

import argparse

from ledger.errors import NotBuiltError


def run(args: argparse.Namespace) -> int:
    """Refuse `args.command`."""
    raise NotBuiltError(f"duizhang {args.command}")
