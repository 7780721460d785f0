"""The version of the database's schema, and its upgrade. Two programs must never upgrade one database at once.

The lock is the caller's: a transaction that only one may hold.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from worker.errors import ConfigurationError
from worker.ground.logs import get_logger

logger = get_logger(__name__)

VERSION = "0001"
"""The revision that this program needs: the newest of `worker/stores/migrations/versions`."""

VERSION_TABLE = "worker_schema"
"""The table with the database's revision; another name than Alembic's own, which another program may use."""


def version_of(connection: Connection) -> str | None:
    """The database's revision, or None if it has none."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found: str | None = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608
    return found


def upgrade(connection: Connection) -> None:
    """Brings the database to `VERSION`, in the transaction of this connection.

    Raises:
        ConfigurationError: A later version of this program has upgraded it.
    """
    before = version_of(connection)
    if before == VERSION:
        return
    # Alembic takes as long to load as the rest of a command, and is needed once in the life of a database.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, VERSION)
    except CommandError as error:
        raise ConfigurationError(
            f"WORKER_DATABASE_URL: the schema of the database is {before}, which this program does not know: "
            "start the version that upgraded it, or a later one"
        ) from error
    logger.info("the schema of the database was upgraded", before=before, now=VERSION)
