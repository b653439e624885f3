"""Writing into PostgreSQL: one transaction nobody writes beside, read back before it counts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pytest

from ledger.catalog import Catalog, parse_catalog
from ledger.errors import LedgerError, NotBuiltError, SourceError
from ledger.kernel.chunk import Chunk
from ledger.kernel.entries import Kernel
from ledger.source.load import Loaded, Upsert, load_rows
from ledger.source.pgwrite import PostgresWriter
from ledger.source.write import Writer, open_writer
from tests.databases import PASSWORD, Database

CITY = """
id = "city"
version = 1
key = ["no"]
field = [
  { name = "no", type = "code" }, { name = "holder", type = "text", personal = true },
  { name = "fee", type = "decimal", scale = 2 }, { name = "decided", type = "date" },
  { name = "at", type = "datetime" }, { name = "state", type = "enum" }, { name = "count", type = "integer" },
]
"""
DEFAULT = {
    "no": "A-1", "holder": "甲", "fee": "2.50", "decided": "2024-01-01", "at": "2024-01-01T00:30:00.25Z", "state": "有效", "count": "7",
}  # fmt: skip
TYPED = "CREATE TABLE t (no varchar(20) PRIMARY KEY, holder text, fee numeric(12,2), decided date, at timestamp, state state, count int)"
STATE = "CREATE TYPE state AS ENUM ('有效', '失效')"


@pytest.fixture(scope="session")
def city() -> Catalog:
    return parse_catalog(CITY.encode(), "city.toml")


@pytest.fixture
def kernel(city: Catalog, kernel_of: Callable[[Catalog], Kernel]) -> Kernel:
    return kernel_of(city)


def upsert(kernel: Kernel, **cells: str | None) -> Upsert:
    values = DEFAULT | cells
    fields = {name: pa.array([values[name]], pa.string()) for name in DEFAULT}
    result = kernel.run(Chunk(fields, np.array([1])))
    assert not result.refused
    normal = {name: column[0].as_py() for name, column in result.values.items()}
    return Upsert(result.record_keys[0].as_py(), normal, result.entries[0].tobytes())


def gone(kernel: Kernel, no: str) -> Mapping[bytes, Mapping[str, str | None]]:
    return {upsert(kernel, no=no).record_key: {"no": no}}


def load(database: Database, kernel: Kernel, *upserts: Upsert, withdrawn: Any = None, **more: Any) -> Loaded:
    url = more.pop("url", database.url)
    return load_rows(url, more.pop("table", "t"), kernel, upserts=upserts, withdrawn=withdrawn or {}, **more)


def refusal(database: Database, kernel: Kernel, *upserts: Upsert, **more: Any) -> LedgerError:
    before = database.run("SELECT t::text FROM t ORDER BY 1")
    with pytest.raises(LedgerError) as caught:
        load(database, kernel, *upserts, **more)
    assert database.run("SELECT t::text FROM t ORDER BY 1") == before
    assert PASSWORD not in f"{caught.value.zh}{caught.value.en}{caught.value.where}"
    return caught.value


def test_rows_are_inserted_updated_deleted_in_their_columns_types(postgres: Database, kernel: Kernel) -> None:
    postgres.run(STATE, TYPED, "INSERT INTO t (no, fee) VALUES ('a-1', 9), ('A-3', 1), ('A-4', 1)")
    done = load(
        postgres, kernel, upsert(kernel), upsert(kernel, no="A-2", holder=None, at=None), withdrawn={**gone(kernel, "A-3"), **gone(kernel, "A-9")}
    )  # fmt: skip
    assert done == Loaded(inserted=1, updated=1, deleted=1, absent=1)
    assert postgres.run("SELECT t::text FROM t ORDER BY no") == [
        ('(A-1,甲,2.50,2024-01-01,"2024-01-01 08:30:00.25",有效,7)',), ("(A-2,,2.50,2024-01-01,,有效,7)",), ("(A-4,,1.00,,,,)",),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "ddl",
    [
        "no text, holder text, fee text, decided text, at text, state text, count text",
        "no text, holder text, fee numeric, decided timestamp, at timestamptz, state varchar(9), count int8",
        "no citext, holder char(3), fee numeric(5,3), decided date, at timestamp(3), state text, count numeric",
        "no text, holder text, fee text, decided text, at text, state text, count text, \"50%s\" text DEFAULT '%'",
    ],
)
def test_what_is_written_reads_back_equal(postgres18: Database, kernel: Kernel, ddl: str) -> None:
    postgres18.run("CREATE EXTENSION citext", f"CREATE TABLE t ({ddl})")
    load(postgres18, kernel, *(upsert(kernel, no=str(i)) for i in range(1, 4)))
    again = load(postgres18, kernel, upsert(kernel, no="2", fee="9", at=None), withdrawn=gone(kernel, "3"))
    assert again == Loaded(inserted=0, updated=1, deleted=1, absent=0)


def test_only_declared_columns_and_the_batch_are_written(postgres18: Database, kernel: Kernel) -> None:
    postgres18.run(
        STATE, "CREATE TABLE t (note text DEFAULT 'new', no text, who text, fee numeric, decided date, at timestamp, state state, count int,"
        ' "批%次" text)',
        "INSERT INTO t (note, no, who, \"批%次\") VALUES ('mine', 'A-1', 'old', 'B0')",
    )  # fmt: skip
    load(
        postgres18, kernel, upsert(kernel), upsert(kernel, no="A-2"), columns={"holder": "who"}, batch_column="批%次", batch="B1"
    )  # fmt: skip
    assert postgres18.run('SELECT note, no, who, "批%次" FROM t ORDER BY no') == [
        ("mine", "A-1", "甲", "B1"),
        ("new", "A-2", "甲", "B1"),
    ]


def test_partitions_are_written_and_rows_move_between_them(postgres: Database, kernel: Kernel) -> None:
    postgres.run(
        STATE, TYPED.replace("PRIMARY KEY", "") + " PARTITION BY LIST (state)", "CREATE TABLE t1 PARTITION OF t FOR VALUES IN ('有效')",
        "CREATE TABLE t2 PARTITION OF t DEFAULT",
    )  # fmt: skip
    load(postgres, kernel, upsert(kernel), upsert(kernel, no="A-2", state="失效"))
    assert load(postgres, kernel, upsert(kernel, state="失效"), upsert(kernel, no="A-2", fee="3")).updated == 2
    assert postgres.run("SELECT count(*) FROM t1") == [(1,)]
    assert load(postgres, kernel, withdrawn=gone(kernel, "A-2")).deleted == 1


@pytest.mark.parametrize(
    ("ddl", "column", "wrote", "came"),
    [
        ("fee numeric(12,1)", "fee", "'2.55'", "'2.6' (numeric(12,1))"),
        (
            "at timestamp(0)",
            "at",
            "'2024-01-01T00:30:00.25Z'",
            "'2024-01-01 08:30:00' (timestamp(0) without time zone)",
        ),
        ("at timestamptz(1)", "at", "'2024-01-01T00:30:00.25Z'", "(timestamp(1) with time zone)"),
    ],
)
def test_a_column_that_changes_what_is_written_rolls_everything_back(
    postgres18: Database, kernel: Kernel, ddl: str, column: str, wrote: str, came: str
) -> None:
    types = dict(
        line.split(" ", 1)
        for line in ("no text", "holder text", "fee text", "decided text", "at text", "state text", "count text", ddl)
    )
    postgres18.run(
        f"CREATE TABLE t ({', '.join(f'{name} {type}' for name, type in types.items())})",
        "INSERT INTO t (no) VALUES ('X')",
    )
    error = refusal(postgres18, kernel, upsert(kernel, no="A-9", fee="2.55"), upsert(kernel, fee="2.55"))
    assert error.code == "load.differs"
    for part in (f"column {column}", wrote, came):
        assert part in error.en


TRIGGERS = [
    ("BEFORE INSERT", "NEW.fee := 9; RETURN NEW;", "load.differs", "column fee"),
    ("AFTER INSERT", "IF pg_trigger_depth() = 1 THEN UPDATE t SET fee = 9 WHERE no = NEW.no; END IF; RETURN NULL;", "load.differs", "column fee"),
    ("AFTER INSERT", "DELETE FROM t WHERE no = NEW.no; RETURN NULL;", "load.vanished", "no=A-1"),
    ("AFTER INSERT", "IF pg_trigger_depth() = 1 THEN INSERT INTO t VALUES (lower(NEW.no), 'x', 1); END IF; RETURN NULL;", "load.key_repeated", "no=A-1"),
    ("BEFORE INSERT", "RETURN NULL;", "load.vanished", "no=A-1"),
    ("BEFORE INSERT", "RAISE EXCEPTION 'closed';", "source.failed", "closed"),
    ("BEFORE DELETE", "RETURN NULL;", "load.vanished", "no=A-2"),
    ("AFTER DELETE", "INSERT INTO t VALUES (OLD.no); RETURN NULL;", "load.still_there", "no=A-2"),
    ("BEFORE UPDATE", "RETURN NULL;", "load.vanished", "no=A-3"),
    ("BEFORE UPDATE", "NEW.state := '失效'; RETURN NEW;", "load.differs", "column state"),
    ("AFTER UPDATE", "IF pg_trigger_depth() = 1 THEN UPDATE t SET count = 8 WHERE no = NEW.no; END IF; RETURN NULL;", "load.differs", "column count"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("when", "body", "code", "named", "deferred"),
    # Only AFTER triggers can be put off until the commit.
    [(*trigger, late) for trigger in TRIGGERS for late in (False, True) if not late or trigger[0].startswith("AFTER")],
)
def test_whatever_a_trigger_does_is_seen_and_rolled_back(
    postgres18: Database, kernel: Kernel, when: str, body: str, code: str, named: str, deferred: bool
) -> None:
    kind = "CONSTRAINT TRIGGER" if deferred else "TRIGGER"
    late = "DEFERRABLE INITIALLY DEFERRED" if deferred else ""
    postgres18.run(
        STATE, TYPED, "INSERT INTO t (no) VALUES ('A-2'), ('A-3')",
        f"CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$",
        f"CREATE {kind} g {when} ON t {late} FOR EACH ROW EXECUTE FUNCTION f()",
    )  # fmt: skip
    error = refusal(postgres18, kernel, upsert(kernel), upsert(kernel, no="A-3"), withdrawn=gone(kernel, "A-2"))
    assert (error.code, named in error.en) == (code, True), error.en


def test_personal_values_are_masked_in_what_differs_or_is_refused(postgres18: Database, kernel: Kernel) -> None:
    postgres18.run(STATE, TYPED.replace("holder text", "holder varchar(3)"))
    error = refusal(postgres18, kernel, upsert(kernel, holder="alice"))
    assert error.code == "source.too_long"
    assert "alice" not in error.en + error.zh
    postgres18.run("ALTER TABLE t ALTER holder TYPE int USING 1")
    error = refusal(postgres18, kernel, upsert(kernel, holder="alice"))
    assert error.code == "source.failed"
    assert "alice" not in error.en + error.zh
    postgres18.run(
        "ALTER TABLE t ALTER holder TYPE text",
        "ALTER TABLE t ADD UNIQUE (holder)",
        "INSERT INTO t (no, holder) VALUES ('A-0', 'alice')",
    )
    error = refusal(postgres18, kernel, upsert(kernel, holder="alice"))
    assert error.code == "source.constraint"
    assert "t_holder_key" in error.en
    assert "alice" not in error.en + error.zh


def test_two_rows_of_one_key_are_refused_by_name(postgres18: Database, kernel: Kernel) -> None:
    postgres18.run(STATE, TYPED, "INSERT INTO t (no) VALUES ('a-1'), ('A-1')")
    assert refusal(postgres18, kernel, upsert(kernel)).code == "load.key_repeated"
    assert refusal(postgres18, kernel, withdrawn=gone(kernel, "A-1")).code == "load.key_repeated"


@pytest.mark.parametrize("kind", ["VIEW", "MATERIALIZED VIEW"])
def test_a_view_is_not_written(postgres18: Database, kernel: Kernel, kind: str) -> None:
    postgres18.run(STATE, TYPED, f"CREATE {kind} v AS SELECT * FROM t")
    assert refusal(postgres18, kernel, upsert(kernel), table="v").code == "load.view"


@pytest.mark.parametrize(
    ("held", "grant"),
    [
        ("", "GRANT SELECT, UPDATE ON TABLE"),
        ("SELECT", "GRANT UPDATE ON TABLE"),
        ("SELECT, UPDATE", "GRANT INSERT ON TABLE"),
        ("SELECT, UPDATE, INSERT", "GRANT DELETE ON TABLE"),
    ],
)
def test_a_right_that_lacks_is_named(postgres: Database, kernel: Kernel, held: str, grant: str) -> None:
    role = f"r{postgres.name}"
    postgres.run(
        STATE,
        TYPED,
        "INSERT INTO t (no) VALUES ('A-2')",
        f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'",
    )
    try:
        if held:
            postgres.run(f"GRANT {held} ON t TO {role}")
        error = refusal(postgres, kernel, upsert(kernel), withdrawn=gone(kernel, "A-2"), url=postgres.url_as(role))
        assert error.code == "source.permission"
        assert f'{grant} "public"."t" TO "{role}"' in error.en
        postgres.run(f"GRANT SELECT, INSERT, UPDATE, DELETE ON t TO {role}")
        assert (
            load(postgres, kernel, upsert(kernel), withdrawn=gone(kernel, "A-2"), url=postgres.url_as(role)).inserted
            == 1
        )
    finally:
        postgres.run(f"DROP OWNED BY {role}", f"DROP ROLE {role}")


def test_a_read_only_session_says_so(postgres18: Database, kernel: Kernel) -> None:
    postgres18.run(STATE, TYPED, f"ALTER DATABASE {postgres18.name} SET default_transaction_read_only = on")
    assert refusal(postgres18, kernel, upsert(kernel)).code == "source.read_only"


@contextmanager
def writer_of(database: Database, city: Catalog, **more: Any) -> Iterator[Writer]:
    with open_writer(database.url, "t", city, **more) as writer:
        yield writer


def test_others_read_but_do_not_write_while_a_writer_is_open(
    postgres18: Database, city: Catalog, kernel: Kernel
) -> None:
    postgres18.run(STATE, TYPED, "INSERT INTO t (no) VALUES ('A-1')")
    with writer_of(postgres18, city), closing(postgres18.connect()) as other:
        other.execute("SET lock_timeout = 50")
        assert other.execute("SELECT count(*) FROM t").fetchone() == (1,)
        for statement in (
            "INSERT INTO t (no) VALUES ('A-2')",
            "UPDATE t SET fee = 1",
            "DELETE FROM t",
        ):
            with pytest.raises(psycopg.errors.LockNotAvailable):
                other.execute(statement)
        assert refusal(postgres18, kernel, upsert(kernel), busy_seconds=0.05).code == "source.locked"


def test_what_another_session_changed_before_the_lock_is_seen(postgres18: Database, kernel: Kernel) -> None:
    postgres18.run(STATE, TYPED)
    with closing(postgres18.connect(autocommit=False)) as other:
        other.execute("INSERT INTO t (no) VALUES ('A-1')")
        done: list[Loaded] = []
        loading = threading.Thread(target=lambda: done.append(load(postgres18, kernel, upsert(kernel))))
        loading.start()
        while not postgres18.run("SELECT count(*) FROM pg_locks WHERE NOT granted")[0][0]:
            pass
        other.commit()
        loading.join()
    assert done == [Loaded(inserted=0, updated=1, deleted=0, absent=0)]


def test_an_exception_in_the_block_undoes_everything(postgres18: Database, city: Catalog) -> None:
    postgres18.run(STATE, TYPED, "INSERT INTO t (no, fee) VALUES ('A-1', 1)")

    def strike() -> None:
        with writer_of(postgres18, city) as writer:
            ((located, _),) = writer.rows(["no"])
            assert writer.update(located[0], {"fee": "2"}) is not None
            assert writer.insert({"no": "A-2"}) is not None
            raise RuntimeError("struck")

    with pytest.raises(RuntimeError, match="struck"):
        strike()
    assert postgres18.run("SELECT no, fee FROM t") == [("A-1", 1)]


def test_a_writer_changes_only_what_it_is_told_and_follows_its_row(postgres: Database, city: Catalog) -> None:
    postgres.run(
        STATE,
        TYPED,
        "INSERT INTO t (no, holder, fee, at) VALUES ('A-1', 'x', 1, '2024-01-01 08:00'), ('A-2', 'y', 2, NULL)",
    )
    with writer_of(postgres, city) as writer:
        found = {
            no: place
            for places, chunk in writer.rows(["no"])
            for place, no in zip(places, chunk.fields["no"].to_pylist(), strict=True)
        }
        first = found["A-1"]
        second = writer.update(first, {"fee": "3.25"})
        assert second is not None
        assert writer.read(first) is None
        assert writer.update(first, {"fee": "4"}) is None
        read = writer.read(second)
        assert read is not None
        assert (read["holder"], read["fee"], read["at"], read["decided"]) == ("x", "3.25", "2024-01-01 08:00:00", None)
        assert writer.kind("fee", "3.25") == "numeric(12,2)"
        new = writer.insert({"no": "A-3"})
        assert new is not None
        assert writer.delete(found["A-2"]) is True
        assert writer.delete(found["A-2"]) is False
        with pytest.raises(ValueError, match="nothing"):
            writer.update(new, {})
        with pytest.raises(ValueError, match="no batch column"):
            writer.update(new, {"fee": "1"}, batch="B")
        assert writer.update_sql(["fee"]).startswith('UPDATE "public"."t" SET "fee" = %s WHERE ')
        assert writer.insert_sql(["no", "fee"]) == 'INSERT INTO "public"."t" ("no", "fee") VALUES (%s, %s)'
    assert postgres.run("SELECT no, holder, fee FROM t ORDER BY no") == [
        ("A-1", "x", read_decimal("3.25")),
        ("A-3", None, None),
    ]


def read_decimal(text: str) -> Any:
    from decimal import Decimal

    return Decimal(text)


def test_columns_an_insert_must_fill_are_named(postgres18: Database, city: Catalog) -> None:
    postgres18.run(
        STATE, "CREATE DOMAIN must AS text NOT NULL", "CREATE DOMAIN filled AS text NOT NULL DEFAULT 'x'",
        "CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY, s serial, no text NOT NULL, holder text, fee numeric NOT NULL DEFAULT 0, decided date,"
        " at timestamp, state state, count int NOT NULL, g int NOT NULL GENERATED ALWAYS AS (1) STORED, m must, d filled)",
    )  # fmt: skip
    with writer_of(postgres18, city) as writer:
        assert writer.required() == ("no", "count", "m")


def test_a_connection_lost_while_committing_is_unknown(postgres18: Database, city: Catalog, kernel: Kernel) -> None:
    postgres18.run(
        STATE, TYPED, "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$",
        "CREATE CONSTRAINT TRIGGER g AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION f()",
    )  # fmt: skip
    with pytest.raises(SourceError) as caught, writer_of(postgres18, city) as writer:
        # Not settled: the trigger strikes in the commit.
        writer.insert({"no": "A-1"})
    assert caught.value.code == "source.commit_unknown"


def test_another_kind_of_database_is_not_written(city: Catalog) -> None:
    for url in ("mysql://u:secret@h/d", "oracle://u:secret@h/d"):
        with pytest.raises(NotBuiltError) as caught:
            open_writer(url, "t", city)
        assert "secret" not in caught.value.en


def test_the_writer_is_what_its_protocol_says() -> None:
    assert {name for name in vars(Writer) if not name.startswith("_")} <= {*dir(PostgresWriter), "where", "layout"}
