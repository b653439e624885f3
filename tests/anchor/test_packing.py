"""Claims that wait together travel together, in as many transactions as the limits of `[chain]` ask for."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from ledger.chain import transactions
from tests.conftest import Pair, permit


def prepare_deliveries(pair: Pair, count: int, *options: str) -> None:
    """That many deliveries, each of which died after its intent was written and before anything was signed."""

    def die(*told: Any, **named: Any) -> int:
        return 0

    with pytest.MonkeyPatch.context() as patch:
        # Neither the run itself nor the next one, which would finish what it left, comes to signing.
        patch.setattr("ledger.batch.job.anchor_open", die)
        for number in range(1, count + 1):
            path = pair.file(f"B{number}.csv", [permit(10 * number + n) for n in range(3)])
            ran = pair.province.run(
                "send", "permits", path, "--batch", f"B{number}", "--to", "guangzhou", *options, "--json"
            )
            assert (ran.code, ran.json["error"]["code"]) == (2, "chain.not_anchored")


def limit(pair: Pair, **bounds: int) -> None:
    config = pair.province.home / "duizhang.toml"
    text = config.read_text("utf-8")
    lines = "".join(f"{name} = {value}\n" for name, value in bounds.items())
    config.write_text(text.replace("[chain]\n", "[chain]\n" + lines), "utf-8")


def anchored(pair: Pair) -> list[int]:
    """Anchor what waits; how many claims each transaction carried, in order."""
    pair.province.ok("anchor")
    store = sqlite3.connect(pair.province.home / "store" / "ledger.db")
    try:
        rows = store.execute(
            "SELECT count(*) FROM claim WHERE state = 'confirmed' GROUP BY transaction_id ORDER BY transaction_id"
        ).fetchall()
        assert store.execute("SELECT count(*) FROM claim WHERE state <> 'confirmed'").fetchone() == (0,)
    finally:
        store.close()
    assert pair.province.run("fsck", "--json").code == 0
    return [count for (count,) in rows]


def test_what_waits_goes_in_one_transaction_sketches_and_all(pair: Pair) -> None:
    prepare_deliveries(pair, 5, "--cells", "256")
    assert anchored(pair) == [5]


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [({"most_claims": 2}, [2, 2, 1]), ({"most_bytes": 45_000}, [2, 2, 1]), ({"most_gas": 2_900_000}, [3, 2])],
)
def test_the_limits_of_the_workspace_are_kept(pair: Pair, bounds: dict[str, int], expected: list[int]) -> None:
    prepare_deliveries(pair, 5, "--cells", "256")
    limit(pair, **bounds)
    assert anchored(pair) == expected


def test_a_plan_that_was_too_low_is_cut_by_what_the_node_estimates(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions, "planned_gas", lambda *told: 0)
    prepare_deliveries(pair, 5, "--cells", "256")
    limit(pair, most_gas=1_900_000)
    assert anchored(pair) == [2, 1, 2]


def test_the_largest_sketch_there_is_travels_and_names_the_differences(pair: Pair) -> None:
    rows = [permit(n) for n in range(1, 7)]
    path = pair.file("B1.csv", rows)
    pair.province.ok("send", "permits", path, "--batch", "B1", "--to", "guangzhou", "--cells", "1800")
    pair.city.run(
        "receive", "permits", pair.file("landed.csv", rows[1:]), "--batch", "B1", "--from", "guangdong", "--load"
    )
    ran = pair.city.run("reconcile", "permits", "--with", "guangdong", "--json")
    assert (ran.code, ran.json["verdict"], len(ran.json["batches"][0]["findings"])) == (1, "differences", 1)
    store = sqlite3.connect(pair.province.home / "store" / "ledger.db")
    try:
        ((sketch,),) = store.execute("SELECT sketch FROM claim").fetchall()
    finally:
        store.close()
    assert len(sketch) == 1800 * 72
