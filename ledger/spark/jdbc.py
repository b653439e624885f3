"""A PostgreSQL table in parts, read by Spark's JDBC: every part in a transaction that has imported the snapshot of the driver's own.

Spark commits nothing and, told a fetch size, switches autocommit off before it runs `sessionInitStatement`; so that statement begins the very
transaction the rows are then read in. Whether it did is not taken on trust: each query asks its server which snapshot it sees, and gives no row
if that is another one; the count then does not come out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

from ledger.errors import InputError, SourceError
from ledger.kernel.chunk import Chunk
from ledger.source.postgres import PostgresSource, Reader
from ledger.source.values import selected
from ledger.spark.work import Batches

DRIVER = "org.postgresql.Driver"
FETCH_ROWS = 5000
MAX_BLOCKS = 1 << 16
"""Blocks of 8 KiB in one part at most."""

_REFUSED = (
    "options",
    "sslcert",
    "sslkey",
    "sslcrl",
    "sslcrldir",
    "krbsrvname",
    "gssencmode",
    "require_auth",
    "channel_binding",
)
"""What a URL may say to libpq that JDBC does otherwise or not at all."""
_PASSED = {"sslmode": "sslmode", "sslrootcert": "sslrootcert"}
_SESSION = (
    "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY",
    "SET TRANSACTION SNAPSHOT '{snapshot}'",
    "SET LOCAL datestyle = 'ISO, YMD'",
    "SET LOCAL timezone = 'UTC'",
    "SET LOCAL intervalstyle = 'postgres'",
    "SET LOCAL extra_float_digits = 1",
    "SET LOCAL bytea_output = 'hex'",
    "SET LOCAL row_security = off",
    "SET LOCAL synchronize_seqscans = off",
)
"""The session of `pgconnect`, within the snapshot; a scan begins at the first block, so that rows come in the order they have locally."""


@dataclass(frozen=True)
class JdbcSplits:
    """Ranges of a table's blocks. Rows are numbered from 1 in each."""

    reader: Reader
    names: tuple[str, ...]
    query: str
    predicates: tuple[str, ...]
    numbers: tuple[int, ...]
    total: int
    options: Mapping[str, str] = field(repr=False)
    global_numbers = False

    def __len__(self) -> int:
        return len(self.predicates)

    def __getstate__(self) -> dict[str, Any]:
        # Executors parse what they are given; Spark itself connects. The password need not travel twice.
        return {**self.__dict__, "options": {}}

    def only(self, wanted: list[int]) -> JdbcSplits:
        """Some of the parts."""
        return replace(
            self,
            predicates=tuple(self.predicates[it] for it in wanted),
            numbers=tuple(self.numbers[it] for it in wanted),
        )

    def frame(self, spark: Any) -> Any:
        """The rows as text, one task a range."""
        url, properties = self.options["url"], {k: v for k, v in self.options.items() if k != "url"}
        frame = spark.read.jdbc(url, self.query, predicates=list(self.predicates), properties=properties)
        return frame.select([f"c{at}" for at in range(len(selected(self.reader.layout, self.names)))])

    def chunks(self, split: int, batches: Batches) -> Iterator[Chunk]:
        """The rows of one range."""
        ordinal = 1
        for batch in batches:
            if batch.num_rows:
                yield self.reader.chunk(batch.columns, self.names, ordinal)
                ordinal += batch.num_rows


def jdbc_splits(source: PostgresSource, names: Sequence[str], parallel: int) -> JdbcSplits:
    """The table in parts for so many tasks at once; its consistent read is exported for them.

    InputError `spark.url` for a URL that JDBC cannot follow, SourceError `spark.encoding`.
    """
    connection, table, reader = source.connection, source.table, source.reader
    info = connection.info
    given = info.get_parameters()
    strange = sorted(set(_REFUSED) & {*given})
    if strange or info.host.startswith("/"):
        told = ", ".join(strange) or "unix socket"
        raise InputError(
            "spark.url",
            f"Spark 经 JDBC 读取，不支持 URL 中的 {told}；请用 TCP 主机名和端口",
            f"Spark reads by JDBC, which does not do {told} of the URL; name a host and a port",
            source.where,
        )
    if info.parameter_status("server_encoding") == "SQL_ASCII":
        raise SourceError(
            "spark.encoding",
            '数据库编码为 SQL_ASCII，JDBC 无法逐行判定；请用 [kernel] engine = "local"',
            'the database has no encoding (SQL_ASCII), of which JDBC cannot tell row by row what is text: use [kernel] engine = "local"',
            source.where,
        )
    row = connection.execute(
        "SELECT pg_catalog.pg_export_snapshot(), pg_catalog.pg_current_snapshot()::pg_catalog.text"
    ).fetchone()
    counted = connection.execute(f"SELECT pg_catalog.count(*) FROM {table.reference}").fetchone()  # noqa: S608
    if row is None or counted is None:
        raise AssertionError("a query without FROM has a row")
    snapshot, seen = row
    ranges = _ranges(source, parallel)
    wanted = selected(reader.layout, names)
    texts = [f"pg_catalog.format('%s', {reader.columns[name].as_text}) AS c{at}" for at, name in enumerate(wanted)]
    place = [] if ranges == [""] else ["ctid AS place"]
    # `format` writes a value as COPY does, by its type's own output, and null as nothing.
    query = f"(SELECT {', '.join([*texts, *place])} FROM {table.reference}) AS rows"  # noqa: S608
    same = f"pg_catalog.pg_current_snapshot()::pg_catalog.text = '{seen}'"
    predicates = tuple(f"{same} AND {it}" if it else same for it in ranges)
    options = {
        "url": f"jdbc:postgresql://{_host(info.host)}:{info.port}/{_percent(info.dbname)}",
        "user": info.user, "password": info.password, "driver": DRIVER, "fetchsize": str(FETCH_ROWS),
        "sessionInitStatement": "; ".join(_SESSION).format(snapshot=snapshot), "ApplicationName": "duizhang",
        **{ours: str(given[theirs]) for theirs, ours in _PASSED.items() if theirs in given},
    }  # fmt: skip
    return JdbcSplits(reader, tuple(names), query, predicates, tuple(range(len(predicates))), int(counted[0]), options)


def _ranges(source: PostgresSource, parallel: int) -> list[str]:
    """Conditions on `place` that part the table's rows, in the order of a scan; one without condition where rows have no place."""
    table = source.table
    if table.kind not in ("r", "p", "m"):
        return [""]
    row = source.connection.execute(
        "SELECT pg_catalog.max(pg_catalog.pg_relation_size(oid)) / pg_catalog.current_setting('block_size')::int8 FROM ("
        "SELECT %(oid)s::oid AS oid UNION ALL SELECT relid FROM pg_catalog.pg_partition_tree(%(oid)s::oid)"
        " UNION ALL SELECT inhrelid FROM pg_catalog.pg_inherits WHERE inhparent = %(oid)s::oid) parts",
        {"oid": table.oid},
    ).fetchone()
    size = int(row[0] or 0) if row is not None else 0
    step = max(1, min(MAX_BLOCKS, -(-size // (2 * parallel))))
    starts = list(range(0, size, step)) or [0]
    bounds = zip(starts, [*starts[1:], None], strict=True)
    # The last has no end, so that together they miss no row whatever the size told.
    return [
        f"place >= '({begin},0)'::tid" + ("" if end is None else f" AND place < '({end},0)'::tid")
        for begin, end in bounds
    ]


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _percent(name: str) -> str:
    return quote(name, safe="")
