"""Records whose sender says that they were erased (撤回原因 erased) and whose plaintext this workspace still keeps."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ledger.batch.book import StreamLedger
from ledger.catalog import Catalog
from ledger.reconcile.compare import OpenVersion
from ledger.record import MASK, open_canonical
from ledger.store.entryfile import NO_FRAME

_SHOWN = 20


def erased_by_sender(
    catalog: Catalog, ledger: StreamLedger, open_version: OpenVersion
) -> tuple[Mapping[str, str], ...]:
    """The keys (personal fields masked, sorted) whose latest entry is a withdrawal `erased` that the archive here still opens."""
    found: list[dict[str, str]] = []
    for place, batch in enumerate(ledger.known):
        marked = np.flatnonzero(batch.entries.withdrawn & (batch.entries.frames != NO_FRAME))
        # By frame: the reader keeps the frame it read last.
        for index in marked[np.argsort(batch.entries.frames[marked], kind="stable")].tolist():
            latest = ledger.history.latest(ledger.history.find(batch.entries.entries[index, 16:32].tobytes()))
            if (latest.batch, latest.index) != (place, index):
                continue
            data = open_version(latest)
            opened = None if data is None else open_canonical(catalog, data)
            if opened is not None and opened.reason == "erased":
                found.append({n: MASK if catalog.by_name[n].personal else str(v) for n, v in opened.values.items()})
    return tuple(sorted(found, key=lambda key: [key[name] for name in catalog.key]))


def erasable_notes(catalog: Catalog, keys: tuple[Mapping[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """What to do about them, in one remark; none without any."""
    if not keys:
        return ()
    labels = [" ".join(key[name] for name in catalog.key) for key in keys[:_SHOWN]]
    more = " …" if len(keys) > _SHOWN else ""
    return (
        (
            f"{len(keys)} 条记录已由其来源方以 erased（删除）撤回，本方归档仍存有原文：{'、'.join(labels)}{more}；"
            f"删除数据源中的行之后，请执行 duizhang erase {catalog.id} 主键 --reason … --by …",
            f"{len(keys)} record(s) were withdrawn as erased by whoever sent them, and the archive here still holds their plaintext: "
            f"{', '.join(labels)}{more}; once the rows are deleted run duizhang erase {catalog.id} KEY --reason … --by …",
        ),
    )
