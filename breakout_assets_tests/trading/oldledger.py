"""A ledger of the first revision, made by that revision's own statements, with an order of every kind."""

from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations

from breakout_assets_tests.trading.support import Account, at


def old_engine(place: Path | str) -> sa.Engine:
    """An engine on the place of a ledger that has not been made yet."""
    ledger = Account(place).ledger
    if ledger.path:
        ledger.path.parent.mkdir(parents=True, exist_ok=True)
    return ledger.engine


def make_old_schema(connection: sa.Connection) -> None:
    first = import_module("breakout_assets.trading.migrations.versions.r0001_paper_only")
    with Operations.context(MigrationContext.configure(connection)):
        first.upgrade()


def make_old_ledger(place: Path | str) -> None:
    """D was bought and sold, A is held, B was cancelled, an entry of C and an exit of A wait; a mail is left."""
    with old_engine(place).begin() as connection:
        make_old_schema(connection)
        tables = sa.MetaData()
        tables.reflect(connection)

        def insert(table: str, **values: Any) -> None:
            connection.execute(tables.tables[table].insert().values(**values))

        def order(token: str, hour: int, price: str, end: tuple[str, int, str] | None = None, **more: Any) -> None:
            entry = {"side": "buy", "purpose": "entry", "position": None, "model_hash": "m0", "probability": 0.7}
            row = {"order_id": f"in-{token}", "account": "paper", "hour": at(hour), "token": token, **entry}
            row |= {"quantity": "10.00000000", "price": price, "reason": "r", **more}
            insert("orders", **row)
            insert("order_events", order_id=row["order_id"], status="submitted", hour=at(hour), reason=None)
            if end is None:
                return
            status, ended, at_price = end
            insert("order_events", order_id=row["order_id"], status=status, hour=at(ended), reason=f"it was {status}")
            if status == "filled":
                fill = {"price": at_price, "quantity": "10.00000000", "fee": "0.01500000", "note": None}
                insert("fills", order_id=row["order_id"], hour=at(ended), **fill)

        insert("accounts", account="paper", opening_cash="10000")
        leave: dict[str, Any] = {"side": "sell", "purpose": "exit", "model_hash": None, "probability": None}
        order("D", 0, "5.0", ("filled", 1, "5.0250"))
        order("A", 50, "3.0", ("filled", 51, "3.0150"))
        order("B", 50, "7.0", ("cancelled", 56, ""))
        order("D", 120, "6.0", ("filled", 121, "5.9700"), order_id="out-D", position="in-D", **leave)
        order("C", 169, "2.0")
        order("A", 170, "4.0", order_id="out-A", position="in-A", **leave)
        for hour in (0, 1, 50, 51, 56, 120, 121, 169, 170):
            insert("hours", account="paper", hour=at(hour), health="ACTIVE", outcome="o", traded_at=_minutes_past(hour))
        insert("marks", account="paper", token="A", hour=at(51), price="3.0")
        insert("marks", account="paper", token="A", hour=at(170), price="4.0")
        for number, sent in ((1, True), (2, False)):
            texts = {"recipients": "me@example.com", "subject": f"s{number}", "text_body": "t", "html_body": "<p>"}
            more = {"sent": sent, "attempts": int(sent), "last_error": None}
            insert("mails", message_id=f"<{number}@x>", hour=at(number), **texts, **more)


def _minutes_past(hour: int) -> datetime:
    return at(hour).replace(minute=5)
