"""Values of personal fields, and keys made of them, are nowhere but in the proof file."""

from __future__ import annotations

from tests.api.conftest import finished, serving
from tests.conftest import Pair, permit


def test_personal_fields_are_masked_everywhere(pair: Pair) -> None:
    for party in (pair.province, pair.city):
        path = party.home / "catalogs" / "permits.toml"
        text = path.read_text(encoding="utf-8")
        for name in ("no", "holder"):
            text = text.replace(f'name = "{name}"\n', f'name = "{name}"\npersonal = true\n')
        path.write_text(text, encoding="utf-8")
    pair.deliver("B1", [permit(31337, holder="张三丰"), permit(2)])
    pair.sql("UPDATE permits SET fee = '1.00' WHERE no = 'A-31337'")
    with serving(pair.city) as server, server.client("read", "reconcile") as client:
        record = client.get("/v1/catalogs/permits/records/A-31337", params={"values": "true"})
        version = record.json()["streams"][0]["versions"][0]
        assert record.json()["key"] == {"no": "***"}
        assert (version["values"]["holder"], version["values"]["no"], version["values"]["fee"]) == (
            "***",
            "***",
            "12.50",
        )
        run = finished(client, client.post("/v1/reconciliations", json={"catalog": "permits"}).json()["id"])
        assert run["counts"]["altered"] == 1
        proof = client.get("/v1/catalogs/permits/records/A-31337/proof")
        assert "张三丰" in proof.text
        told = [
            record,
            proof.headers["content-disposition"],
            client.get("/v1/catalogs/permits/records/A-9/proof"),
            client.get("/v1/findings"),
            client.get(f"/v1/reconciliations/{run['id']}/findings"),
            client.get(f"/v1/reconciliations/{run['id']}/events"),
            *(
                client.get(f"/v1/reconciliations/{run['id']}/findings/export", params={"format": kind})
                for kind in ("csv", "jsonl")
            ),
            server.log.read_text(encoding="utf-8"),
        ]
        for it in told:
            text = it if isinstance(it, str) else it.text
            assert "A-31337" not in text
            assert "张三丰" not in text
