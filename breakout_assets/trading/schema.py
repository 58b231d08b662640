"""The tables of the order ledger: one schema for SQLite and PostgreSQL.

Rows are added, never changed; only a mail is, until it is sent, and the state of an order at the paper venue.
`migrations/versions` brings older ledgers to this schema.
"""

from decimal import Decimal
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

from breakout_assets.trading.money import plain

# The newest revision in migrations/versions.
REVISION: Final = "0003"


class Exact(sa.types.TypeDecorator[Decimal]):
    """A decimal without rounding: NUMERIC in PostgreSQL, text in SQLite, which would keep it as a binary float."""

    impl = sa.String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> sa.types.TypeEngine[Any]:
        """The database's own type."""
        return dialect.type_descriptor(sa.Numeric() if dialect.name == "postgresql" else sa.String())

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> Any:
        """To the database."""
        return value if value is None or dialect.name == "postgresql" else plain(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        """From the database."""
        return None if value is None else Decimal(value)


def _ends_once() -> sa.Index:
    ended = sa.text("status IN ('filled', 'cancelled', 'rejected')")
    return sa.Index("an_order_ends_once", "order_id", unique=True, sqlite_where=ended, postgresql_where=ended)


def _begins_once() -> sa.Index:
    begun = sa.text("status = 'intent'")
    return sa.Index("an_order_begins_once", "order_id", unique=True, sqlite_where=begun, postgresql_where=begun)


schema: Final = sa.MetaData()

version: Final = sa.Table("alembic_version", schema, sa.Column("version_num", sa.String(32), primary_key=True))

accounts: Final = sa.Table(
    "accounts",
    schema,
    sa.Column("account", sa.String, primary_key=True),
    sa.Column("opening_cash", Exact, nullable=False),
)
# The decision of an hour, and everything that is needed to make it again.
hours: Final = sa.Table(
    "hours",
    schema,
    sa.Column("account", sa.ForeignKey("accounts.account"), primary_key=True),
    sa.Column("hour", sa.DateTime, primary_key=True),
    sa.Column("health", sa.String, nullable=False),
    sa.Column("outcome", sa.String, nullable=False),
    sa.Column("traded_at", sa.DateTime, nullable=False),
    sa.Column("equity", Exact),
    sa.Column("blocks", sa.String),  # JSON: why nothing could be opened
    sa.Column("rules", sa.String),  # JSON
    sa.Column("limits", sa.String),  # JSON: what the venue allowed for the tokens that said buy or were held
    sa.Column("inputs", sa.String),  # JSON: path and SHA-256 of each file that was read
    sa.Column("event", sa.Integer),  # the last of `order_events` that the decision knew
)
orders: Final = sa.Table(
    "orders",
    schema,
    sa.Column("order_id", sa.String, primary_key=True),
    sa.Column("account", sa.ForeignKey("accounts.account"), nullable=False),
    sa.Column("hour", sa.DateTime, nullable=False),
    sa.Column("token", sa.String, nullable=False),
    sa.Column("side", sa.String, sa.CheckConstraint("side IN ('buy', 'sell')"), nullable=False),
    sa.Column("purpose", sa.String, nullable=False),
    sa.Column("quantity", Exact, nullable=False),
    sa.Column("price", Exact, nullable=False),
    sa.Column("limit", Exact, nullable=False),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("position", sa.ForeignKey("orders.order_id")),
    sa.Column("model_hash", sa.String),
    sa.Column("probability", sa.Float),
    sa.Index("orders_by_hour", "account", "hour"),
)
# An order's status is its last event that is no mere observation (see `books`); one that has not ended is open.
order_events: Final = sa.Table(
    "order_events",
    schema,
    sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("order_id", sa.ForeignKey("orders.order_id"), nullable=False),
    sa.Column("status", sa.String, nullable=False),
    sa.Column("hour", sa.DateTime, nullable=False),
    sa.Column("at", sa.DateTime, nullable=False),
    sa.Column("reason", sa.String),
    sa.Column("venue_id", sa.String),
    sa.Column("address", sa.String),  # where it was sent: venue, market and account
    sa.Index("events_by_order", "order_id", "sequence"),
    _ends_once(),
    _begins_once(),
)
fills: Final = sa.Table(
    "fills",
    schema,
    sa.Column("order_id", sa.ForeignKey("orders.order_id"), primary_key=True),
    sa.Column("trade_id", sa.String, primary_key=True),
    sa.Column("event", sa.ForeignKey("order_events.sequence"), nullable=False),
    sa.Column("hour", sa.DateTime, nullable=False),
    sa.Column("price", Exact, nullable=False),
    sa.Column("quantity", Exact, nullable=False),
    sa.Column("fee", Exact, nullable=False),
    sa.Column("fee_in_token", Exact, nullable=False),
)
# Signals that were not followed, and exits that could not be ordered, and why.
refusals: Final = sa.Table(
    "refusals",
    schema,
    sa.Column("account", sa.ForeignKey("accounts.account"), primary_key=True),
    sa.Column("hour", sa.DateTime, primary_key=True),
    sa.Column("token", sa.String, primary_key=True),
    sa.Column("code", sa.String, primary_key=True),
    sa.Column("reason", sa.String, nullable=False),
)
# What holdings were worth in an hour: without it the equity of a past hour could not be told again.
marks: Final = sa.Table(
    "marks",
    schema,
    sa.Column("account", sa.ForeignKey("accounts.account"), primary_key=True),
    sa.Column("token", sa.String, primary_key=True),
    sa.Column("hour", sa.DateTime, primary_key=True),
    sa.Column("price", Exact, nullable=False),
)
# The kill switch: the last row of an account counts.
switches: Final = sa.Table(
    "switches",
    schema,
    sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("account", sa.String, nullable=False),
    sa.Column("action", sa.String, sa.CheckConstraint("action IN ('halt', 'resume')"), nullable=False),
    sa.Column("at", sa.DateTime, nullable=False),
    sa.Column("by", sa.String, nullable=False),
    sa.Column("reason", sa.String, nullable=False),
)
# What the venue holds otherwise than the account's orders say: what was there before, and what a person explained.
adjustments: Final = sa.Table(
    "adjustments",
    schema,
    sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("account", sa.ForeignKey("accounts.account"), nullable=False),
    sa.Column("item", sa.String, nullable=False),  # a token, or USD
    sa.Column("amount", Exact, nullable=False),
    sa.Column("at", sa.DateTime, nullable=False),
    sa.Column("by", sa.String, nullable=False),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("hour", sa.DateTime),  # the last that had been traded; null before the account began
)
mails: Final = sa.Table(
    "mails",
    schema,
    sa.Column("message_id", sa.String, primary_key=True),
    sa.Column("hour", sa.DateTime, nullable=False),
    # With ", " between them. Where the server has had its last word on one, its code is told: "me@example.com 250".
    sa.Column("recipients", sa.String, nullable=False),
    sa.Column("subject", sa.String, nullable=False),
    sa.Column("text_body", sa.String, nullable=False),
    sa.Column("html_body", sa.String, nullable=False),
    sa.Column("sent", sa.Boolean, nullable=False, default=False),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("last_error", sa.String),
)
# The paper venue: what an exchange would keep on its side.
paper_orders: Final = sa.Table(
    "paper_orders",
    schema,
    sa.Column("order_id", sa.String, primary_key=True),
    sa.Column("account", sa.String, nullable=False),
    sa.Column("hour", sa.DateTime, nullable=False),
    sa.Column("token", sa.String, nullable=False),
    sa.Column("side", sa.String, nullable=False),
    sa.Column("purpose", sa.String, nullable=False),
    sa.Column("quantity", Exact, nullable=False),
    sa.Column("limit", Exact, nullable=False),
    sa.Column("status", sa.String, nullable=False),
    sa.Index("open_paper_orders", "account", "status"),
)
paper_executions: Final = sa.Table(
    "paper_executions",
    schema,
    sa.Column("order_id", sa.ForeignKey("paper_orders.order_id"), primary_key=True),
    sa.Column("trade_id", sa.String, primary_key=True),
    sa.Column("price", Exact, nullable=False),
    sa.Column("quantity", Exact, nullable=False),
    sa.Column("fee", Exact, nullable=False),
)
# Hours whose prices the paper venue has used: no hour's prices fill twice.
paper_hours: Final = sa.Table(
    "paper_hours",
    schema,
    sa.Column("account", sa.String, primary_key=True),
    sa.Column("hour", sa.DateTime, primary_key=True),
)
