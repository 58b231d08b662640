"""Events of an order's life, several fills an order, guards, and a paper venue that keeps its own books.

Orders that were open are open at the paper venue afterwards; each fill becomes an execution there, so that the ledger
and the venue agree from the first hour on.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

# PostgreSQL keeps exact numbers as NUMERIC. No ledger of the revision before lived there, so nothing is converted.
_EXACT = sa.String().with_variant(sa.Numeric(), "postgresql")
_ENDED = sa.text("status IN ('filled', 'cancelled', 'rejected')")
_BEGUN = sa.text("status = 'intent'")


def upgrade() -> None:
    """Make the new tables and move what the old ones held."""
    db = op.get_bind()
    orders = db.execute(sa.text("SELECT * FROM orders ORDER BY hour, order_id")).mappings().all()
    events = db.execute(sa.text("SELECT * FROM order_events")).mappings().all()
    fills = db.execute(sa.text("SELECT * FROM fills")).mappings().all()
    op.drop_table("fills")
    op.drop_table("order_events")
    _widen()
    tables = _new_tables()
    order_table = sa.table("orders", sa.column("limit", _EXACT), sa.column("price", _EXACT))
    db.execute(order_table.update().values({"limit": order_table.c.price}))
    ends = {row["order_id"]: row for row in events if row["status"] != "submitted"}
    executed = {row["order_id"]: row for row in fills}
    for order in orders:
        _move(db, tables, order, ends.get(order["order_id"]), executed.get(order["order_id"]))
    accounts = db.execute(sa.text("SELECT account, hour FROM hours")).all()
    for account, hour in accounts:
        db.execute(tables["paper_hours"].insert().values(account=account, hour=_time(hour)))


def _time(value: Any) -> Any:
    # A query in plain text knows no types: SQLite then gives a time as it is stored, as text.
    from datetime import datetime

    return datetime.fromisoformat(value) if isinstance(value, str) else value


def _move(db: Any, tables: dict[str, sa.Table], order: Any, end: Any, fill: Any) -> None:
    """One order's events and fill, and what the paper venue knows of it."""
    name, hour = order["order_id"], _time(order["hour"])

    def event(status: str, at: Any, reason: str | None = None) -> int:
        row = {"order_id": name, "status": status, "hour": at, "at": at, "reason": reason, "venue_id": name}
        key = db.execute(tables["order_events"].insert().values(**row)).inserted_primary_key
        return int(key[0])

    event("intent", hour, order["reason"])
    event("accepted", hour)
    status = end["status"] if end else "open"
    paper = {key: order[key] for key in ("order_id", "account", "token", "side", "purpose", "quantity")}
    db.execute(
        tables["paper_orders"]
        .insert()
        .values(**paper, hour=hour, limit=order["price"], status="open" if end is None else status)
    )
    if end is None:
        return
    booked = event(status, _time(end["hour"]), end["reason"])
    if fill:
        trade = {key: fill[key] for key in ("order_id", "price", "quantity", "fee")}
        trade["trade_id"] = f"{_time(fill['hour']):%Y%m%dT%H}"
        db.execute(
            tables["fills"].insert().values(**trade, event=booked, hour=_time(fill["hour"]), fee_in_token="0")  # noqa: S106  not a secret
        )
        db.execute(tables["paper_executions"].insert().values(**trade))


def _widen() -> None:
    op.add_column("orders", sa.Column("limit", _EXACT, nullable=False, server_default="0"))
    for name, kind in (("equity", _EXACT), ("event", sa.Integer())):
        op.add_column("hours", sa.Column(name, kind))
    for name in ("blocks", "rules", "limits", "inputs"):
        op.add_column("hours", sa.Column(name, sa.String))
    if op.get_bind().dialect.name == "postgresql":
        for table, column in (
            ("accounts", "opening_cash"),
            ("orders", "quantity"),
            ("orders", "price"),
            ("marks", "price"),
        ):
            op.alter_column(table, column, type_=sa.Numeric(), postgresql_using=f"{column}::numeric")


def _new_tables() -> dict[str, sa.Table]:
    made = [
        op.create_table(
            "order_events",
            sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=True),
            sa.Column("order_id", sa.String, sa.ForeignKey("orders.order_id"), nullable=False),
            sa.Column("status", sa.String, nullable=False),
            sa.Column("hour", sa.DateTime, nullable=False),
            sa.Column("at", sa.DateTime, nullable=False),
            sa.Column("reason", sa.String),
            sa.Column("venue_id", sa.String),
        ),
        op.create_table(
            "fills",
            sa.Column("order_id", sa.String, sa.ForeignKey("orders.order_id"), primary_key=True),
            sa.Column("trade_id", sa.String, primary_key=True),
            sa.Column("event", sa.Integer, sa.ForeignKey("order_events.sequence"), nullable=False),
            sa.Column("hour", sa.DateTime, nullable=False),
            sa.Column("price", _EXACT, nullable=False),
            sa.Column("quantity", _EXACT, nullable=False),
            sa.Column("fee", _EXACT, nullable=False),
            sa.Column("fee_in_token", _EXACT, nullable=False),
        ),
        op.create_table(
            "refusals",
            sa.Column("account", sa.String, sa.ForeignKey("accounts.account"), primary_key=True),
            sa.Column("hour", sa.DateTime, primary_key=True),
            sa.Column("token", sa.String, primary_key=True),
            sa.Column("code", sa.String, primary_key=True),
            sa.Column("reason", sa.String, nullable=False),
        ),
        op.create_table(
            "switches",
            sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=True),
            sa.Column("account", sa.String, nullable=False),
            sa.Column("action", sa.String, sa.CheckConstraint("action IN ('halt', 'resume')"), nullable=False),
            sa.Column("at", sa.DateTime, nullable=False),
            sa.Column("by", sa.String, nullable=False),
            sa.Column("reason", sa.String, nullable=False),
        ),
        op.create_table(
            "adjustments",
            sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=True),
            sa.Column("account", sa.String, sa.ForeignKey("accounts.account"), nullable=False),
            sa.Column("item", sa.String, nullable=False),
            sa.Column("amount", _EXACT, nullable=False),
            sa.Column("at", sa.DateTime, nullable=False),
            sa.Column("by", sa.String, nullable=False),
            sa.Column("reason", sa.String, nullable=False),
        ),
        op.create_table(
            "paper_orders",
            sa.Column("order_id", sa.String, primary_key=True),
            sa.Column("account", sa.String, nullable=False),
            sa.Column("hour", sa.DateTime, nullable=False),
            sa.Column("token", sa.String, nullable=False),
            sa.Column("side", sa.String, nullable=False),
            sa.Column("purpose", sa.String, nullable=False),
            sa.Column("quantity", _EXACT, nullable=False),
            sa.Column("limit", _EXACT, nullable=False),
            sa.Column("status", sa.String, nullable=False),
        ),
        op.create_table(
            "paper_executions",
            sa.Column("order_id", sa.String, sa.ForeignKey("paper_orders.order_id"), primary_key=True),
            sa.Column("trade_id", sa.String, primary_key=True),
            sa.Column("price", _EXACT, nullable=False),
            sa.Column("quantity", _EXACT, nullable=False),
            sa.Column("fee", _EXACT, nullable=False),
        ),
        op.create_table(
            "paper_hours",
            sa.Column("account", sa.String, primary_key=True),
            sa.Column("hour", sa.DateTime, primary_key=True),
        ),
    ]
    op.create_index("events_by_order", "order_events", ["order_id", "sequence"])
    op.create_index("open_paper_orders", "paper_orders", ["account", "status"])
    for name, where in (("an_order_ends_once", _ENDED), ("an_order_begins_once", _BEGUN)):
        op.create_index(name, "order_events", ["order_id"], unique=True, sqlite_where=where, postgresql_where=where)
    return {table.name: table for table in made}
