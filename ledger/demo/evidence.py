from __future__ import annotations

from ledger.demo.stage import Stage

FORGER = "forger"


def prove(stage: Stage, catalog, province, city, row) -> None: ...
