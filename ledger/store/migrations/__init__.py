"""Alembic migrations of the store, run by `upgrade`; no alembic.ini is read, so an installed wheel has all it needs."""
