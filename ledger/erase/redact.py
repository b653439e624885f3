"""What the store's own tables said of erased records, taken out: keys, values of unreadable fields, words of people that name a key.

Tags stay, so that what was said about the record can still be counted and told apart; nobody can make the record of them again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from ledger.catalog import Catalog
from ledger.erase.named import Named
from ledger.record import MASK
from ledger.store import models

_AT_ONCE = 500
_LISTS = ("accepted", "newly_seen", "updated")


def redact(session: Session, catalog: Catalog, wanted: Sequence[Named], tags: Collection[bytes]) -> None:
    """Take the named records out of every table; `tags` are theirs in all streams."""
    hexed = sorted(tag.hex() for tag in tags)
    for start in range(0, len(hexed), _AT_ONCE):
        some = hexed[start : start + _AT_ONCE]
        tracked = select(models.Tracked).where(
            models.Tracked.catalog_id == catalog.id, models.Tracked.key_tag.in_(some)
        )
        for finding in session.scalars(tracked):
            # `content` is a plain hash over what may be a value: whoever guesses it could tell.
            finding.key = finding.content = None
        for found in session.scalars(select(models.Found).where(models.Found.key_tag.in_(some))):
            found.document = _dump(_finding(json.loads(found.document), found.key_tag))
    names = _Names(catalog, wanted)
    for run in session.scalars(select(models.Reconciliation).where(models.Reconciliation.catalog_id == catalog.id)):
        _report(run, names)
    for restore in session.scalars(select(models.Restore).where(models.Restore.catalog_id == catalog.id)):
        _restore(restore, set(hexed))
    _words(session, names)


class _Names:
    """Recognises the named records in what was written about them."""

    def __init__(self, catalog: Catalog, wanted: Sequence[Named]) -> None:
        self.masked = dict.fromkeys(catalog.key, MASK)
        self._shown = [dict(named.shown) for named in wanted]
        self._values = [
            [re.compile(rf"(?<![0-9A-Za-z]){re.escape(value)}(?![0-9A-Za-z])") for value in named.values.values()]
            for named in wanted
        ]

    def key(self, key: object) -> object:
        """A key in a list: masked whole if it is one of them (or looks like one, where its personal fields are masked)."""
        return self.masked if key in self._shown else key

    def text(self, text: str) -> str:
        """Words: the values of a key that is named in full are masked."""
        for patterns in self._values:
            if all(pattern.search(text) for pattern in patterns):
                for pattern in patterns:
                    text = pattern.sub(MASK, text)
        return text

    def within(self, value: Any) -> Any:
        """The same for every text inside a JSON value."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.within(it) for it in value]
        return {name: self.within(it) for name, it in value.items()} if isinstance(value, dict) else value


def _finding(document: Mapping[str, Any], key_tag: str | None) -> dict[str, Any]:
    told = {**document, "key": None, "key_tag": key_tag}
    if told.get("reason") is not None and told["reason"].get("field"):
        told["reason"] = {**told["reason"], "value": MASK}
    return told


def _report(run: models.Reconciliation, names: _Names) -> None:
    if run.report is not None:
        document = json.loads(run.report)
        told = {
            name: [names.key(key) for key in value]
            if name in _LISTS
            else names.within(value)
            if name == "notes"
            else value
            for name, value in document.items()
        }
        if told != document:
            run.report = _dump(told)
    if run.error is not None:
        run.error = _dump(names.within(json.loads(run.error)))


def _restore(restore: models.Restore, tags: Collection[str]) -> None:
    document = json.loads(restore.document)
    for item in document["items"]:
        if item["key_tag"] in tags:
            item["key"] = dict.fromkeys(item["key"], MASK)
    restore.document = _dump(document)


def _words(session: Session, names: _Names) -> None:
    """Reasons that people gave, wherever they are kept: they may name the record."""
    rows: list[models.Consent | models.Proposal | models.Tracked | models.Erasure] = [
        *session.scalars(select(models.Consent)),
        *session.scalars(select(models.Proposal)),
        *session.scalars(select(models.Tracked).where(models.Tracked.reason.is_not(None))),
        *session.scalars(select(models.Erasure)),
    ]
    for row in rows:
        told = names.text(row.reason or "")
        if row.reason and told != row.reason:
            row.reason = told


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
