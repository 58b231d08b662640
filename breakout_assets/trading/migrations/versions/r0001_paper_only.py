"""The ledger that knew one fill an order and nothing but paper; databases of that time carry no revision."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "accounts",
        sa.Column("account", sa.String, primary_key=True),
        sa.Column("opening_cash", sa.String, nullable=False),
    )
    op.create_table(
        "hours",
        sa.Column("account", sa.String, sa.ForeignKey("accounts.account"), primary_key=True),
        sa.Column("hour", sa.DateTime, primary_key=True),
        sa.Column("health", sa.String, nullable=False),
        sa.Column("outcome", sa.String, nullable=False),
        sa.Column("traded_at", sa.DateTime, nullable=False),
    )
    op.create_table(
        "orders",
        sa.Column("order_id", sa.String, primary_key=True),
        sa.Column("account", sa.String, sa.ForeignKey("accounts.account"), nullable=False),
        sa.Column("hour", sa.DateTime, nullable=False),
        sa.Column("token", sa.String, nullable=False),
        sa.Column("side", sa.String, sa.CheckConstraint("side IN ('buy', 'sell')"), nullable=False),
        sa.Column("purpose", sa.String, nullable=False),
        sa.Column("quantity", sa.String, nullable=False),
        sa.Column("price", sa.String, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("position", sa.String, sa.ForeignKey("orders.order_id")),
        sa.Column("model_hash", sa.String),
        sa.Column("probability", sa.Float),
    )
    op.create_index("orders_by_hour", "orders", ["account", "hour"])
    op.create_table(
        "order_events",
        sa.Column("order_id", sa.String, sa.ForeignKey("orders.order_id"), primary_key=True),
        sa.Column("status", sa.String, primary_key=True),
        sa.Column("hour", sa.DateTime, nullable=False),
        sa.Column("reason", sa.String),
    )
    ended = sa.text("status IN ('filled', 'cancelled')")
    op.create_index(
        "an_order_ends_once", "order_events", ["order_id"], unique=True, sqlite_where=ended, postgresql_where=ended
    )
    op.create_table(
        "fills",
        sa.Column("order_id", sa.String, sa.ForeignKey("orders.order_id"), primary_key=True),
        sa.Column("hour", sa.DateTime, nullable=False),
        sa.Column("price", sa.String, nullable=False),
        sa.Column("quantity", sa.String, nullable=False),
        sa.Column("fee", sa.String, nullable=False),
        sa.Column("note", sa.String),
    )
    op.create_table(
        "marks",
        sa.Column("account", sa.String, sa.ForeignKey("accounts.account"), primary_key=True),
        sa.Column("token", sa.String, primary_key=True),
        sa.Column("hour", sa.DateTime, primary_key=True),
        sa.Column("price", sa.String, nullable=False),
    )
    op.create_table(
        "mails",
        sa.Column("message_id", sa.String, primary_key=True),
        sa.Column("hour", sa.DateTime, nullable=False),
        sa.Column("recipients", sa.String, nullable=False),
        sa.Column("subject", sa.String, nullable=False),
        sa.Column("text_body", sa.String, nullable=False),
        sa.Column("html_body", sa.String, nullable=False),
        sa.Column("sent", sa.Boolean, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("last_error", sa.String),
    )
