"""The database's schema, one revision a file, as Alembic reads them. A revision that has landed never changes."""
