"""Run by Alembic: revisions are applied on the connection, and in the transaction, of the ledger that is opened."""

from alembic import context

from breakout_assets.trading.schema import schema

context.configure(connection=context.config.attributes["connection"], target_metadata=schema)
context.run_migrations()
