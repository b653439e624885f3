"""The dispute story over the API alone, on both sides, to its end."""

from __future__ import annotations

import csv
import io
import sqlite3

from tests.api.conftest import serving
from tests.conftest import FIELDS, permit
from tests.twoparty.conftest import Channel, channel

__all__ = ["channel"]

ROWS = [permit(n) for n in range(1, 16)]


def test_from_the_first_difference_to_the_reference_to_both_anchors(channel: Channel) -> None:
    channel.send("B1", ROWS)
    channel.land("B1", ROWS[2:])
    channel.receive("B1")
    with serving(channel.province, workers=1) as sender, serving(channel.city, workers=1) as receiver:
        province, city = sender.client("read", "admin"), receiver.client("read", "admin")
        where = "/v1/catalogs/permits/counterparts/guangdong"
        told = city.get(where).json()
        assert (told["verdict"], len(told["batches"][0]["findings"])) == ("differences", 2)
        statement = city.get(f"{where}/statement")
        assert statement.content == province.get("/v1/catalogs/permits/counterparts/guangzhou/statement").content
        for client, other in ((province, "guangzhou"), (city, "guangdong")):
            attested = client.post("/v1/catalogs/permits/attestations", json={"counterparty": other})
            assert attested.status_code == 200, attested.text
            assert attested.json()["statement"] == statement.headers["X-Statement-Hash"]
        assert attested.json()["signed_by_both"] is True
        assert len(city.get("/v1/attestations").json()["items"]) == 2
        wanted = {"catalog": "permits", "counterparty": "guangdong", "batch": "B1"}
        opened = city.post("/v1/disputes", json=wanted)
        assert (opened.status_code, opened.json()["id"]) == (201, 1)
        assert city.post("/v1/disputes", json=wanted).status_code == 409
        assert (
            city.post("/v1/disputes/1/answers", json={"answer": "concede"}).json()["code"] == "dispute.not_respondent"
        )
        assert province.post("/v1/disputes/9/answers", json={"answer": "concede"}).status_code == 404
        assert province.post("/v1/disputes/1/answers", json={"answer": "resend"}).status_code == 422
        answered = province.post("/v1/disputes/1/answers", json={"answer": "resend", "batch": "C1"})
        assert answered.status_code == 200, answered.text
        rows = list(csv.DictReader(io.StringIO(answered.json()["csv"])))
        assert sorted(row["no"] for row in rows) == ["A-1", "A-2"]
        channel.land("C1", [{name: row[name] for name in FIELDS} for row in rows])
        assert channel.receive("C1")[1]["verdict"] == "matched"
        closed = city.post("/v1/disputes/1/closing", json={"outcome": "settled", "batch": "C1"})
        assert closed.status_code == 200, closed.text
        assert closed.json()["closing"]["outcome"] == "settled"
        shown = province.get("/v1/disputes/1").json()
        assert set(shown["closing"]["anchors"]) == {"guangdong", "guangzhou"}
        assert province.get("/v1/disputes?closed=false").json()["items"] == []
        assert city.get(where).json()["verdict"] == "matched"
        reader = receiver.client("read")
        assert reader.post("/v1/disputes", json=wanted).status_code == 403
    with sqlite3.connect(channel.pair.database) as connection:
        assert connection.execute("SELECT count(*) FROM permits").fetchone() == (15,)
    connection.close()
