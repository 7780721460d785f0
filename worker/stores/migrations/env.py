"""Runs revisions on the connection that `worker.stores.schema` hands over. Alembic runs it; nobody imports it."""

from __future__ import annotations

from alembic import context

from worker.stores.schema import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
with context.begin_transaction():
    context.run_migrations()
