"""Runs the migrations on a connection whose transaction the caller owns."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

LOCATION = "ledger.store:migrations"  # found as package data, wherever the package is installed


def config() -> Config:
    """Alembic's settings, built in memory."""
    settings = Config()
    settings.set_main_option("script_location", LOCATION)
    settings.set_main_option("path_separator", "os")
    return settings


def upgrade(connection: Connection) -> None:
    """Bring the tables to the newest revision, inside the connection's transaction."""
    settings = config()
    settings.attributes["connection"] = connection
    command.upgrade(settings, "head")


def revisions() -> tuple[str, ...]:
    """All revisions, oldest first."""
    return tuple(script.revision for script in ScriptDirectory.from_config(config()).walk_revisions())[::-1]
