"""Alembic revisions of the order ledger; `ledger.Ledger` applies them when it opens an older one."""
