"""Two people for one change: what one asked for and another must agree to (`[consent] approvers = 2`, design section 4).

A proposal is about one key and exactly what the first person saw: the row's commitment for `accept`, the reason for `withdraw`.
Anything else is another proposal, which takes its place. A name is all there is to tell people apart: this stops a slip and leaves a
trace; it cannot stop somebody who signs with another's name.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from ledger.batch.book import now
from ledger.errors import InputError
from ledger.store import models
from ledger.store.db import Store


@dataclass(frozen=True)
class Asked:
    """One key of a request: its tag, its label and values for people (personal ones masked), the row's commitment in hex (empty for
    `withdraw`)."""

    tag: bytes
    label: str
    key: Mapping[str, str]
    commitment: str = ""


@dataclass(frozen=True)
class Request:
    """What somebody asks for, under one reason and name."""

    catalog_id: str
    action: models.ConsentAction
    asked: Sequence[Asked]
    reason: str
    by: str


@dataclass(frozen=True)
class Proposed:
    """A request that now waits for a second person. `replaced` are those of its keys whose earlier proposal was about something else."""

    request: Request
    replaced: tuple[Asked, ...]

    def as_json(self) -> dict[str, object]:
        """The proposal in the words of the JSON output."""
        return {
            "action": self.request.action,
            "keys": [dict(asked.key) for asked in self.request.asked],
            "reason": self.request.reason,
            "proposed_by": self.request.by,
            "replaced": [dict(asked.key) for asked in self.replaced],
        }


Seconded = Mapping[bytes, models.Proposal]
"""The proposals by key tag that a second person agrees to; empty where one person is enough."""


def review(store: Store, request: Request) -> Proposed | Seconded:
    """All of the request is seconded, or all of it is to be proposed; nothing is written.

    InputError `consent.same_person` if `by` asked for one of the keys himself, `consent.mixed` if some keys can be seconded and
    others were never proposed, or not as they are now: each half would have to be done by another person.
    """
    with store.read() as session:
        waiting = {bytes.fromhex(row.key_tag): row for row in _open(session, request.catalog_id, request.action)}
    same = [asked for asked in request.asked if _is_about(waiting.get(asked.tag), asked, request)]
    for asked in same:
        first = waiting[asked.tag].proposed_by
        if person(first) == person(request.by):
            raise InputError(
                "consent.same_person",
                f"{asked.label} 已由 {first} 提出，须由另一人认可；{request.by} 不能认可自己提出的",
                f"{asked.label} was proposed by {first}: another person must agree, {request.by} cannot",
                "--by",
            )
    if len(same) == len(request.asked):
        return {asked.tag: waiting[asked.tag] for asked in same}
    if same:
        raise _mixed(request, same, waiting)
    return Proposed(request, tuple(asked for asked in request.asked if asked.tag in waiting))


def propose_all(store: Store, proposed: Proposed) -> None:
    """Record the proposals in place of those they replace, all or none."""
    request = proposed.request
    moment = now()
    with store.write() as session:
        close(session, request)
        # One open proposal a key and action: the old ones must be closed before the new ones stand.
        session.flush()
        session.add_all(
            models.Proposal(
                catalog_id=request.catalog_id,
                action=request.action,
                key_tag=asked.tag.hex(),
                commitment=asked.commitment,
                reason=request.reason,
                proposed_by=request.by,
                created_at=moment,
            )
            for asked in request.asked
        )


def close(session: Session, request: Request) -> None:
    """Whatever waits about these keys is decided: agreed to, replaced, or done by one person where one is enough."""
    tags = {asked.tag.hex() for asked in request.asked}
    for row in _open(session, request.catalog_id, request.action):
        if row.key_tag in tags:
            row.decided_at = now()


def lapse(store: Store, catalog_id: str, holds: Callable[[models.Proposal], bool]) -> None:
    """Close the catalog's proposals of which `holds` says that what they were about is no longer so."""
    with store.read() as session:
        gone = [row.id for row in _open(session, catalog_id) if not holds(row)]
    if not gone:
        return
    with store.write() as session:
        for row in session.scalars(select(models.Proposal).where(models.Proposal.id.in_(gone))):
            row.decided_at = now()


# Default_Ignorable_Code_Point (Unicode 15, DerivedCoreProperties) that are no format characters, and the braille blank.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


def person(name: str) -> str:
    """A name as names are compared: width, case, blanks and characters that do not show make no other person of it."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return "".join(
        c
        for c in folded
        if not c.isspace() and unicodedata.category(c) not in ("Cf", "Cc", "Cn") and not _UNSEEN.match(c)
    )


def _open(session: Session, catalog_id: str, action: models.ConsentAction | None = None) -> list[models.Proposal]:
    chosen = (
        select(models.Proposal)
        .where(models.Proposal.decided_at.is_(None), models.Proposal.catalog_id == catalog_id)
        .order_by(models.Proposal.id)
    )
    if action is not None:
        chosen = chosen.where(models.Proposal.action == action)
    return list(session.scalars(chosen))


def _is_about(proposal: models.Proposal | None, asked: Asked, request: Request) -> bool:
    if proposal is None or proposal.commitment != asked.commitment:
        return False
    # The reason of a withdrawal is anchored with it; that of an accepted change is only kept beside it.
    return request.action == "accept" or proposal.reason == request.reason


def _mixed(request: Request, same: Sequence[Asked], waiting: Mapping[bytes, models.Proposal]) -> InputError:
    seconded = {asked.tag for asked in same}
    ready = "、".join(f"{asked.label}（{waiting[asked.tag].proposed_by}）" for asked in same)
    ready_en = ", ".join(f"{asked.label} ({waiting[asked.tag].proposed_by})" for asked in same)
    others = [asked.label for asked in request.asked if asked.tag not in seconded]
    return InputError(
        "consent.mixed",
        f"{ready} 已有人提出、可由 {request.by} 认可；{'、'.join(others)} 尚未提出，或提出后已变。请分两次执行；本次未作任何更改",
        f"{ready_en} were proposed and {request.by} can agree; {', '.join(others)} were not proposed, or not as they are now. "
        "Run the command for each part; nothing was changed",
        "KEY",
    )
