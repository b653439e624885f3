"""`token create`, `token list`, `token revoke`: who may use the API."""

from __future__ import annotations

import argparse
from contextlib import closing

from ledger.cli.speech import note, print_json, say, table
from ledger.cli.workspace import here


def run(args: argparse.Namespace) -> int:
    """Run one of the actions; running servers heed it at once."""
    return {"create": _create, "list": _list, "revoke": _revoke}[args.action](args)


def _create(args: argparse.Namespace) -> int:
    from ledger.tokens import create, token_json

    with closing(here(args).open_store("update")) as store:
        made = create(store, args.name, args.scope, days=args.days)
    if args.json:
        print_json({**token_json(made.row), "token": made.text})
        return 0
    print(made.text)
    note(
        f"令牌 {made.row.id}（{made.row.name}；权限 {made.row.scopes}；至 {made.row.expires_at}）只显示这一次，请交付后妥善保管",
        f"token {made.row.id} ({made.row.name}; {made.row.scopes}; until {made.row.expires_at}) is shown this once: hand it over safely",
    )
    return 0


def _list(args: argparse.Namespace) -> int:
    from ledger.tokens import listed, state_of, token_json

    with closing(here(args).open_store("read")) as store:
        rows = listed(store)
    if args.json:
        print_json({"tokens": [token_json(row) for row in rows]})
        return 0
    words = {"valid": say("有效", "valid"), "expired": say("已到期", "expired"), "revoked": say("已停用", "revoked")}
    headers = (
        say("编号", "id"),
        say("名称", "name"),
        say("权限", "scopes"),
        say("状态", "state"),
        say("到期", "expires"),
        say("最近使用", "last used"),
    )
    print(
        table(
            headers,
            [(r.id, r.name, r.scopes, words[state_of(r)], r.expires_at, r.last_used_at or "-") for r in rows],
        )
    )
    return 0


def _revoke(args: argparse.Namespace) -> int:
    from ledger.tokens import revoke, token_json

    with closing(here(args).open_store("update")) as store:
        row = revoke(store, args.id)
    if args.json:
        print_json(token_json(row))
    else:
        print(say(f"令牌 {row.id}（{row.name}）已停用", f"token {row.id} ({row.name}) is revoked"))
    return 0
