"""What an operator's system does with the API, from asking for a reconciliation to the proof file; against real processes."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import openpyxl

from tests.api.conftest import Server
from tests.conftest import Pair

LATER = (datetime.now(UTC) + timedelta(days=30)).date().isoformat()


def test_a_reconciliation_asked_for_over_http_says_what_the_command_says(damaged: Pair, run: Any) -> None:
    code, found, counts = damaged.city.reconcile()
    assert run["state"] == "finished"
    assert run["verdict"] == "differences"
    assert run["exit_code"] == code == 1
    assert {kind for kind, _ in found} == {"altered", "missing", "unanchored"}
    assert run["counts"] == counts
    assert run["requested_by"] == "测试"
    assert run["progress"]["rows"] == counts["source"]


def test_it_is_asked_for_with_202_and_where_to_look(worker: httpx.Client) -> None:
    asked = worker.post("/v1/reconciliations", json={"catalog": "permits", "batch": "B2"})
    assert asked.status_code == 202
    assert asked.headers["retry-after"] == "2"
    assert asked.json()["scope"] == {"batch": "B2"}
    assert worker.get(asked.headers["location"]).json()["id"] == asked.json()["id"]


def test_findings_come_in_pages_in_the_reports_order(reader: httpx.Client, run: Any) -> None:
    whole = reader.get(f"/v1/reconciliations/{run['id']}/findings").json()
    assert whole["next"] is None
    assert [it["ordinal"] for it in whole["items"]] == [0, 1, 2, 3]
    told: list[Any] = []
    cursor: str | None = None
    for _ in range(4):
        params = {"limit": 1} | ({"cursor": cursor} if cursor else {})
        page = reader.get(f"/v1/reconciliations/{run['id']}/findings", params=params).json()
        told += page["items"]
        cursor = page["next"]
    assert told == whole["items"]
    assert cursor is None
    altered = reader.get(f"/v1/reconciliations/{run['id']}/findings", params={"kind": "altered"}).json()["items"]
    assert [it["key"] for it in altered] == [{"no": "A-2"}, {"no": "A-7"}]
    assert reader.get(f"/v1/reconciliations/{run['id']}/findings", params={"batch": "B2"}).json()["items"] == []


def test_exports_hold_every_finding_and_no_formula(reader: httpx.Client, run: Any) -> None:
    path = f"/v1/reconciliations/{run['id']}/findings/export"
    whole = reader.get(f"/v1/reconciliations/{run['id']}/findings").json()["items"]
    answer = reader.get(path)
    assert answer.headers["content-disposition"].endswith('.csv"')
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["kind"] for row in rows] == [it["kind"] for it in whole]
    assert "'=B3" in [row["batch"] for row in rows]
    assert not any(value.startswith(("=", "+", "-", "@", "\t", "\r")) for row in rows for value in row.values())
    lines = [json.loads(line) for line in reader.get(path, params={"format": "jsonl"}).text.splitlines()]
    assert lines == [{name: value for name, value in it.items() if name != "ordinal"} for it in whole]
    book = openpyxl.load_workbook(io.BytesIO(reader.get(path, params={"format": "xlsx"}).content))
    cells = [[cell for cell in row] for row in book.active.iter_rows()]  # type: ignore[union-attr]  # noqa: C416
    assert [row[0].value for row in cells] == ["kind", *(it["kind"] for it in whole)]
    assert {cell.data_type for row in cells for cell in row} <= {"s", "n", "inlineStr"}
    assert [cell.data_type for row in cells for cell in row if cell.value == "=B3"] == ["s"]


def test_the_stream_of_events_ends_with_the_answer_and_is_resumed(worker: httpx.Client) -> None:
    asked = worker.post("/v1/reconciliations", json={"catalog": "permits"}).json()
    events: list[dict[str, str]] = [{}]
    with worker.stream("GET", f"/v1/reconciliations/{asked['id']}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            name, _, value = line.partition(": ")
            if line:
                events[-1][name] = value
            else:
                events.append({})
    told = [it for it in events if "data" in it]
    assert [it["event"] for it in told][-1] == "final"
    assert {it["event"] for it in told[:-1]} <= {"progress"}
    last = json.loads(told[-1]["data"])
    assert last["state"] == "finished"
    assert last["counts"]["altered"] == 2
    again = worker.get(f"/v1/reconciliations/{asked['id']}/events", headers={"Last-Event-ID": told[-1]["id"]})
    assert again.status_code == 204
    behind = worker.get(f"/v1/reconciliations/{asked['id']}/events", headers={"Last-Event-ID": "1.0.running"})
    assert behind.text.count("event: final") == 1


def test_findings_are_worked_under_the_tokens_name(worker: httpx.Client, run: Any) -> None:
    listed = worker.get("/v1/findings", params={"catalog": "permits", "kind": "missing"}).json()["items"]
    assert [it["key"] for it in listed] == [{"no": "A-3"}]
    number = listed[0]["id"]
    given = worker.post(f"/v1/findings/{number}/assign", json={"to": "李四", "by": "王五"}).json()
    assert (given["state"], given["assigned_to"], given["changed_by"]) == ("assigned", "李四", "测试: 王五")
    body = {"until": LATER, "reason": "迁移"}
    told = worker.post(f"/v1/findings/{number}/explain", json=body).json()
    assert (told["state"], told["explained_until"], told["changed_by"]) == ("explained", LATER, "测试")
    assert [it["id"] for it in worker.get("/v1/findings", params={"state": "explained"}).json()["items"]] == [number]
    past = worker.post(f"/v1/findings/{number}/explain", json={"until": "2001-01-01", "reason": "x"})
    assert (past.status_code, past.json()["code"]) == (422, "finding.until_past")
    nobody = worker.post("/v1/findings/999999/assign", json={"to": "x"})
    assert (nobody.status_code, nobody.json()["code"]) == (404, "finding.unknown")


def test_batches_show_both_sides_and_every_revision(reader: httpx.Client) -> None:
    (stream,) = reader.get("/v1/streams").json()["items"]
    assert (stream["catalog"], stream["sender"], stream["receiver"], stream["batches"]) == (
        "permits",
        "guangdong",
        "guangzhou",
        3,
    )
    listed = reader.get("/v1/batches").json()["items"]
    assert [it["number"] for it in listed] == ["=B3", "B2", "B1"]
    equal = reader.get("/v1/batches", params={"state": "roots_equal", "sender": "guangdong"}).json()["items"]
    assert {it["number"] for it in equal} == {it["number"] for it in listed if it["state"] == "roots_equal"} != set()
    assert reader.get("/v1/batches", params={"sender": "guangzhou"}).json()["items"] == []
    whole = reader.get(f"/v1/batches/{listed[-1]['id']}").json()
    assert whole["descriptor"]["batch"] == "B1"
    assert [it["party"] for it in (*whole["sent"], *whole["received"])] == ["guangdong", "guangzhou"]
    assert whole["announced_late"] is False
    anchors = reader.get("/v1/anchors", params={"limit": 4}).json()
    rest = reader.get("/v1/anchors", params={"limit": 400, "cursor": anchors["next"]}).json()
    positions = [it["position"] for it in anchors["items"] + rest["items"]]
    assert positions == sorted(positions, reverse=True)
    assert len(positions) == len(set(positions)) == 6


def test_a_record_is_told_with_its_history(reader: httpx.Client) -> None:
    told = reader.get("/v1/catalogs/permits/records/A-1", params={"values": "true"}).json()
    assert (told["state"], told["complete"]) == ("live", True)
    versions = told["streams"][0]["versions"]
    assert [(it["batch"], it["values"]["holder"]) for it in versions] == [("B1", "甲公司"), ("B2", "乙公司")]
    assert versions[0]["anchors"][0]["party"] == "guangdong"
    gone = reader.get("/v1/catalogs/permits/records", params={"key": "A-5", "values": "true"}).json()
    assert gone["state"] == "withdrawn"
    assert gone["streams"][0]["versions"][-1]["reason"] == "revoked"
    assert gone["streams"][0]["versions"][-1]["withdrawn"] is True
    never = reader.get("/v1/catalogs/permits/records/A-77").json()
    assert (never["state"], never["complete"], never["streams"][0]["versions"]) == ("unknown", True, [])
    plain = reader.get("/v1/catalogs/permits/records/A-1").json()["streams"][0]["versions"]
    assert [it["values"] for it in plain] == [None, None]


def test_a_key_with_a_slash_is_one_segment(reader: httpx.Client) -> None:
    for path, key in (("A%2FB", "A/B"), ("A%252FB", "A%2FB"), ("%E5%B9%BF", "广"), ("100%25", "100%")):
        told = reader.get(f"{reader.base_url}/v1/catalogs/permits/records/{path}")
        assert (told.status_code, told.json()["key"]) == (200, {"no": key}), path
    assert reader.get("/v1/catalogs/permits/records/a/b").status_code == 404


def test_a_proof_handed_out_is_the_commands_bytes_and_verifies(
    damaged: Pair, server: Server, reader: httpx.Client
) -> None:
    file = damaged.folder / "proof.json"
    damaged.city.ok("prove", "permits", "A-1", "--out", str(file))
    got = reader.get("/v1/catalogs/permits/records/A-1/proof")
    assert got.headers["content-type"] == "application/json"
    assert "attachment" in got.headers["content-disposition"]
    assert got.content == file.read_bytes()
    assert reader.get("/v1/catalogs/permits/proof", params={"key": "A-1"}).content == got.content
    earlier = reader.get("/v1/catalogs/permits/records/A-1/proof", params={"batch": "B1"}).content
    assert earlier != got.content
    with server.client() as anybody:
        told = anybody.post("/v1/verify", content=got.content, headers={"Content-Type": "application/json"}).json()
        assert told["verdict"] == "proved"
        assert {it["party"] for it in told["vouched_by"]} == {"guangdong", "guangzhou"}
        assert told["proved"]["values"]["holder"] == "乙公司"
        assert "并非独立核验" in told["caution"]
        bent = got.content.replace("乙公司".encode(), "丙公司".encode())
        kind = {"Content-Type": "application/octet-stream", "Accept-Language": "en"}
        told = anybody.post("/v1/verify", content=bent, headers=kind).json()
        assert told["verdict"] == "contradicted"
        assert told["sentence"].startswith("Contradicted")
        assert told["steps"][4]["result"] == "fail"
        assert told["proved"] is None
        broken = anybody.post("/v1/verify", content=b"{}\n", headers=kind).json()
        assert (broken["verdict"], broken["error"]["code"]) == ("undetermined", "proof.format")


def test_what_cannot_be_proved_says_why(reader: httpx.Client) -> None:
    for path, status, code in (
        ("records/A-5/proof", 409, "prove.withdrawn"),
        ("records/A-77/proof", 404, "prove.unknown_key"),
        ("records/A-1/proof?batch=B9", 404, "prove.no_batch"),
    ):
        got = reader.get(f"/v1/catalogs/permits/{path}")
        assert (got.status_code, got.json()["code"]) == (status, code)
        assert got.headers["content-type"] == "application/problem+json"


def test_health_status_and_metrics(server: Server, reader: httpx.Client) -> None:
    with server.client() as anybody:
        health = anybody.get("/health")
    assert (health.status_code, health.json()["status"]) == (200, "ok")
    assert health.json()["anchor_age_seconds"] < 3600
    status = reader.get("/v1/status").json()
    assert (status["party"], status["error"]) == ("guangzhou", None)
    assert "home" not in status["chain"]
    for _ in range(2):
        text = reader.get("/metrics").text
    assert 'duizhang_check{check="chain",state="ok"} 1.0' in text
    assert "duizhang_claims_confirmed 3.0" in text
    assert 'duizhang_http_requests_total{method="GET",route="/metrics",status="200"}' in text
    assert str(server.party.home) not in text + health.text


def test_no_log_line_holds_a_key(server: Server, reader: httpx.Client) -> None:
    reader.get("/v1/catalogs/permits/records/A-424242")
    reader.get("/v1/catalogs/permits/records", params={"key": "A-424242"})
    log = server.log.read_text(encoding="utf-8")
    assert "/v1/catalogs/{id}/records/{key}" in log
    assert "424242" not in log
