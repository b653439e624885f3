"""A dispute between province and city, and ways to speak to the registry that no command offers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from ledger.batch.job import Job, open_job
from ledger.chain.disputes import DisputeView, encode_open, pack_findings
from ledger.dispute.desk import dispute_registry, send
from ledger.workspace import Workspace
from tests.conftest import Pair, Party, permit
from tests.twoparty.conftest import Channel, channel

__all__ = ["channel"]

ROWS = [permit(n) for n in range(1, 11)]
EVIDENCE = "ab" * 32


@contextmanager
def job_of(party: Party) -> Iterator[Job]:
    """A writing job in a party's workspace."""
    workspace = Workspace(party.home)
    with (
        workspace.locked("test"),
        closing(workspace.open_store("write")) as store,
        open_job(workspace, store) as job,
    ):
        yield job


def speak(party: Party, encode: Callable[[Job], bytes]) -> DisputeView:
    """Send a call to the dispute registry as `party`, past every use case; what it shows then."""
    with job_of(party) as job:
        return send(job, "dispute", encode(job), lambda _: True)


def open_raw(party: Party, batch_id: str, respondent: str, findings: list[tuple[str, str]]) -> DisputeView:
    """Open a dispute that no command would open."""
    return speak(party, lambda _: encode_open(batch_id, respondent, pack_findings(findings), EVIDENCE))


def seen(party: Party) -> DisputeView:
    """What the registry shows."""
    with job_of(party) as job:
        return dispute_registry(job).view()


def refused(party: Party, *words: str) -> str:
    """The code by which a command refuses."""
    ran = party.run(*words, "--json")
    assert ran.code == 2, ran
    return str(ran.json["error"]["code"])


def dispute(party: Party, *keys: str, batch: str = "B1") -> Any:
    """Open a dispute on the city's or the province's command line."""
    other = "guangdong" if party.home.name == "city" else "guangzhou"
    return party.ok("dispute", "open", "permits", *keys, "--with", other, "--batch", batch)


def with_batches(pair: Pair) -> Channel:
    """What the fixture `channel` makes, of a pair that outlives one test."""
    pair.sql("ALTER TABLE permits ADD COLUMN batch_no TEXT")
    config = pair.city.home / "duizhang.toml"
    config.write_text(config.read_text(encoding="utf-8") + 'batch_column = "batch_no"\n', encoding="utf-8")
    return Channel(pair)


@pytest.fixture
def lost(channel: Channel) -> Channel:
    """B1 of ten records, of which A-1, A-2 and A-3 were lost on the way."""
    channel.send("B1", ROWS)
    channel.land("B1", ROWS[3:])
    channel.receive("B1")
    return channel
