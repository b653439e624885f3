"""Loaded by Alembic; takes the connection from `upgrade`, and leaves the transaction to whoever opened it."""

from __future__ import annotations

from alembic import context

from ledger.store.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
    # SQLite's DDL is transactional once the driver begins nothing by itself (store/db.py).
    transactional_ddl=True,
)
context.run_migrations()
