"""The same disputes over HTTP: two servers, one for each side, and everything on chain done by a process of its own."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from ledger.workspace import Workspace
from tests.api.conftest import Server, serving
from tests.conftest import FIELDS, Pair, paired, permit
from tests.disputes.conftest import ROWS, with_batches
from tests.twoparty.conftest import Channel


@pytest.fixture(scope="module")
def served(_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Channel, Server, Server]]:
    """Province and city with a server each; B1 lost A-1, A-2 and A-3."""
    with paired(_template, tmp_path_factory.mktemp("served")) as pair, ExitStack() as stack:
        channel = with_batches(pair)
        channel.send("B1", ROWS)
        channel.land("B1", ROWS[3:])
        channel.receive("B1")
        servers = [stack.enter_context(serving(party, workers=1)) for party in (pair.province, pair.city)]
        yield channel, servers[0], servers[1]


def done(answer: httpx.Response, status: int = 200) -> Any:
    assert answer.status_code == status, answer.text
    return answer.json()


def code(answer: httpx.Response, status: int) -> str:
    """The code of a problem of that status, which names no place of the server's."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert str(Path.cwd()) not in answer.text
    assert "/tmp" not in answer.text
    return str(answer.json()["code"])


OPENING = {"catalog": "permits", "counterparty": "guangdong", "batch": "B1"}


def test_the_story_over_http(served: tuple[Channel, Server, Server]) -> None:
    channel, at_province, at_city = served
    with at_province.client("admin") as province, at_city.client("admin") as city, at_city.client("read") as reader:
        one = done(
            province.post("/v1/catalogs/permits/attestations", json={"counterparty": "guangzhou", "batch": "B1"})
        )
        other = done(city.post("/v1/catalogs/permits/attestations", json={"counterparty": "guangdong", "batch": "B1"}))
        assert one["statement"] == other["statement"]
        assert (one["signed_by_both"], other["signed_by_both"]) == (False, True)
        told = reader.get("/v1/catalogs/permits/counterparts/guangdong/statement", params={"batch": "B1"})
        assert told.headers["x-statement-hash"] == one["statement"]
        listed = done(reader.get("/v1/attestations"))["items"]
        assert [(it["party"], it["statement"]) for it in listed] == [
            ("guangdong", one["statement"]), ("guangzhou", one["statement"]),
        ]  # fmt: skip
        case = done(city.post("/v1/disputes", json=OPENING), 201)
        assert (case["id"], case["state"], case["evidence"]) == (1, "open", one["statement"])
        assert code(city.post("/v1/disputes", json=OPENING), 409) == "dispute.already_open"
        assert code(city.post("/v1/disputes/1/answers", json={"answer": "concede"}), 409) == "dispute.not_respondent"
        again = done(province.post("/v1/disputes/1/answers", json={"answer": "resend", "batch": "C1"}))
        rows = list(csv.DictReader(io.StringIO(again["csv"])))
        assert sorted(row["no"] for row in rows) == ["A-1", "A-2", "A-3"]
        # Asked again, because the answer was lost on the way: nothing new on chain, the same rows.
        once_more = done(province.post("/v1/disputes/1/answers", json={"answer": "resend", "batch": "C1"}))
        assert (once_more["fresh"], once_more["csv"]) == (False, again["csv"])
        assert code(city.post("/v1/disputes/1/closing", json={"outcome": "settled", "batch": "C1"}), 409) in (
            "dispute.no_settling_batch",
        )
        channel.land("C1", [{name: row[name] for name in FIELDS} for row in rows])
        assert channel.receive("C1")[1]["verdict"] == "matched"
        ended = done(city.post("/v1/disputes/1/closing", json={"outcome": "settled", "batch": "C1"}))
        assert (ended["state"], set(ended["closing"]["anchors"])) == ("closed", {"guangdong", "guangzhou"})
        assert code(city.post("/v1/disputes/1/closing", json={"outcome": "withdrawn"}), 409) == "dispute.closed"
        shown = done(reader.get("/v1/disputes/1"))
        assert shown == channel.city.ok("dispute", "show", "1")
        assert [it["id"] for it in done(reader.get("/v1/disputes"))["items"]] == [1]
        assert done(reader.get("/v1/disputes", params={"closed": "false"}))["items"] == []


WRITES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/v1/disputes", OPENING),
    ("/v1/disputes/1/answers", {"answer": "reject"}),
    ("/v1/disputes/1/closing", {"outcome": "withdrawn"}),
    ("/v1/catalogs/permits/attestations", {"counterparty": "guangdong"}),
)


@pytest.mark.parametrize(("address", "body"), WRITES, ids=[address for address, _ in WRITES])
def test_only_an_administrator_puts_anything_on_chain(
    served: tuple[Channel, Server, Server], address: str, body: dict[str, Any]
) -> None:
    _, _, at_city = served
    with at_city.client("read", "reconcile", "verify") as worker, at_city.client() as nobody:
        assert worker.post(address, json=body).status_code == 403
        assert nobody.post(address, json=body).status_code == 401


def test_a_busy_workspace_is_a_conflict_and_says_so(served: tuple[Channel, Server, Server]) -> None:
    channel, _, at_city = served
    with Workspace(channel.city.home).locked("nightly"), at_city.client("admin") as city:
        for address, body in WRITES:
            assert code(city.post(address, json=body), 409) == "workspace.busy"
        assert city.get("/v1/disputes").status_code == 200


WORDS = ("--out=stolen.json", "-h", "--json", "--", "$(id)", "../x")


@pytest.mark.parametrize("word", WORDS)
def test_what_is_sent_is_never_an_option_of_the_command(served: tuple[Channel, Server, Server], word: str) -> None:
    channel, _, at_city = served
    before = sorted(path.name for path in channel.city.home.rglob("*"))
    with at_city.client("admin") as city:
        for address, body in (
            ("/v1/disputes", {**OPENING, "batch": word}),
            ("/v1/disputes", {**OPENING, "catalog": word}),
            ("/v1/disputes", {**OPENING, "counterparty": word}),
            ("/v1/disputes", {**OPENING, "keys": [word]}),
            ("/v1/disputes/1/closing", {"outcome": "settled", "batch": word}),
            ("/v1/disputes/1/answers", {"answer": "resend", "batch": word}),
            ("/v1/catalogs/permits/attestations", {"counterparty": "guangdong", "batch": word}),
            ("/v1/catalogs/permits/attestations", {"counterparty": word}),
        ):
            answer = city.post(address, json=body)
            assert answer.status_code in (404, 409, 422), (address, body, answer.text)
            assert answer.json()["code"] != "usage", (address, body, answer.text)
            code(answer, answer.status_code)
    assert sorted(path.name for path in channel.city.home.rglob("*")) == before


def test_requests_of_another_form_are_refused_before_anything_is_started(
    served: tuple[Channel, Server, Server],
) -> None:
    _, _, at_city = served
    with at_city.client("admin") as city:
        for address, body in (
            ("/v1/disputes", {**OPENING, "other": 1}),
            ("/v1/disputes", {"catalog": "permits"}),
            ("/v1/disputes", {**OPENING, "keys": ["x"] * 1001}),
            ("/v1/disputes", {**OPENING, "batch": "a\nb"}),
            ("/v1/disputes/1/answers", {"answer": "resend"}),
            ("/v1/disputes/1/answers", {"answer": "concede", "batch": "C1"}),
            ("/v1/disputes/1/answers", {"answer": "maybe"}),
            ("/v1/disputes/1/closing", {"outcome": "settled"}),
            ("/v1/disputes/1/closing", {"outcome": "withdrawn", "batch": "C1"}),
            ("/v1/disputes/0/closing", {"outcome": "withdrawn"}),
            ("/v1/catalogs/permits/attestations", {}),
        ):
            assert city.post(address, json=body).status_code == 422, (address, body)
        assert city.post("/v1/disputes", content=b"{}", headers={"Content-Type": "text/plain"}).status_code == 415


def test_what_is_not_there_is_not_there(served: tuple[Channel, Server, Server]) -> None:
    _, _, at_city = served
    with at_city.client("admin") as city:
        assert code(city.get("/v1/disputes/77"), 404) == "dispute.unknown"
        assert code(city.post("/v1/disputes/77/closing", json={"outcome": "withdrawn"}), 404) == "dispute.unknown"
        assert code(city.post("/v1/disputes", json={**OPENING, "catalog": "none"}), 404) == "catalog.unknown"
        assert code(city.post("/v1/disputes", json={**OPENING, "counterparty": "nobody"}), 404) == "chain.no_party"
        assert code(city.post("/v1/disputes", json={**OPENING, "batch": "B9"}), 404) == "counterpart.nothing"


def test_errors_are_told_in_the_callers_language(served: tuple[Channel, Server, Server]) -> None:
    _, _, at_city = served
    with at_city.client("admin") as city:
        for language, word in (("zh", "没有"), ("en", "there is no")):
            headers = {"Accept-Language": language}
            told = city.post("/v1/disputes/77/closing", json={"outcome": "withdrawn"}, headers=headers).json()
            assert word in told["detail"]


def test_a_workspace_without_a_registry_is_its_operators_matter(pair: Pair) -> None:
    config = pair.city.home / "duizhang.toml"
    lines = config.read_text(encoding="utf-8").splitlines(keepends=True)
    config.write_text("".join(line for line in lines if not line.startswith("disputes")), encoding="utf-8")
    path = pair.file("B1.csv", [permit(1)])
    pair.province.ok("send", "permits", path, "--batch", "B1", "--to", "guangzhou")
    pair.city.ok("receive", "permits", path, "--batch", "B1", "--from", "guangdong", "--load")
    with serving(pair.city, workers=1) as server, server.client("admin") as city:
        for answer in (
            city.get("/v1/disputes"),
            city.get("/v1/attestations"),
            city.post("/v1/catalogs/permits/attestations", json={"counterparty": "guangdong"}),
        ):
            assert code(answer, 503) == "dispute.no_registry"


def test_the_document_of_the_api_shows_every_one_of_them(served: tuple[Channel, Server, Server]) -> None:
    told = httpx.get(f"{served[1].url}/openapi.json").json()
    for address, _ in WRITES:
        path = address.replace("/1/", "/{number}/").replace("permits", "{id}")
        assert "409" in told["paths"][path]["post"]["responses"], path
    assert json.dumps(told)
