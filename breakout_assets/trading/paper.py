"""A venue that exists on paper: it keeps its own books and executes orders at the prices of later snapshots."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from breakout_assets.trading.books import Books
from breakout_assets.trading.brokers import AbsenceProof, Quote
from breakout_assets.trading.ledger import Ledger
from breakout_assets.trading.matching import Terms, match
from breakout_assets.trading.money import fee_on, paid, plain, received
from breakout_assets.trading.orders import (
    Accepted,
    Answer,
    Balances,
    Execution,
    Order,
    OrderLimits,
    Rejected,
    Report,
    Unknown,
    VenueOrder,
)
from breakout_assets.trading.rules import TradingRules
from breakout_assets.trading.schema import paper_executions, paper_hours, paper_orders

_TERMS: Final = tuple(Terms.__dataclass_fields__)


@dataclass(frozen=True)
class PaperBroker:
    """Executes an order at the prices of later snapshots, worsened by spread and slippage, within its limit.

    The price that made a decision is never the price of its fill: between a snapshot and the arrival of an order the
    market has moved on, and a fill in the same hour would earn what nobody could have earned.
    """

    ledger: Ledger
    account: str
    rules: TradingRules

    @property
    def absence(self) -> AbsenceProof:
        """The venue is a table: what it does not hold is not there."""
        return AbsenceProof(look_ups=1, span=timedelta(0))

    @property
    def immediate(self) -> bool:
        """No: the next snapshot comes first."""
        return False

    def open_hour(self, hour: datetime, quotes: Mapping[str, Quote]) -> None:
        """Execute what the prices of an hour allow; once for each hour, whatever prices are given later."""
        with self.ledger.write(self.account) as books:
            known = sa.select(paper_hours.c.hour).where(
                paper_hours.c.account == self.account, paper_hours.c.hour == hour
            )
            if books.connection.scalar(known) is not None:
                return
            books.connection.execute(paper_hours.insert().values(account=self.account, hour=hour))
            for row in self._rows(books.connection, paper_orders.c.status == "open"):
                self._execute(books.connection, row, hour, quotes.get(row["token"]))

    def _execute(self, connection: Connection, row: Any, hour: datetime, quote: Quote | None) -> None:
        before = _executions(connection, row["order_id"])
        filled = sum((trade.quantity for trade in before), Decimal(0))
        trade = match(Terms(**{name: row[name] for name in _TERMS}), filled, quote, hour, self.rules)
        if trade is None:
            return
        amounts = {name: getattr(trade, name) for name in ("trade_id", "price", "quantity", "fee")}
        connection.execute(paper_executions.insert().values(order_id=row["order_id"], **amounts))
        if filled + trade.quantity == row["quantity"]:
            _set_status(connection, row["order_id"], "filled")

    def limits(self, tokens: Iterable[str]) -> dict[str, OrderLimits]:
        """Every token is traded here, in quantities of eight places."""
        return {token: OrderLimits() for token in tokens}

    def address(self, order: Order) -> str:
        """The paper venue, which is one table with every market."""
        return "paper"

    def place(self, order: Order) -> Answer:
        """Take an order that cash or holdings cover; an id that is known already is not taken twice."""
        with self.ledger.write(self.account) as books:
            if self._find(books.connection, order) is not None:
                return Unknown("an order of this id is here already")
            missing = self._missing(books.connection, order)
            if missing:
                return Rejected(missing)
            terms = {name: getattr(order, name) for name in ("order_id", "token", *_TERMS)}
            books.connection.execute(paper_orders.insert().values(account=self.account, status="open", **terms))
        return Accepted(order.order_id)

    def look_up(self, order: Order) -> Report | None:
        """The order and its executions."""
        with self.ledger.read(self.account) as books:
            row = self._find(books.connection, order)
            if row is None:
                return None
            executions = tuple(_executions(books.connection, order.order_id))
            return Report(venue_id=order.order_id, status=row["status"], executions=executions)

    def cancel(self, order: Order) -> None:
        """End an open order; what was executed stays."""
        with self.ledger.write(self.account) as books:
            row = self._find(books.connection, order)
            if row is not None and row["status"] == "open":
                _set_status(books.connection, order.order_id, "cancelled")

    def spelling(self, order_id: str) -> str:
        """As it is."""
        return order_id

    def open_orders(self) -> list[VenueOrder]:
        """The open orders of this account."""
        with self.ledger.read(self.account) as books:
            return [
                VenueOrder(
                    venue_id=row["order_id"],
                    order_id=row["order_id"],
                    token=row["token"],
                    description=f"{row['side']} {plain(row['quantity'])} {row['token']}",
                )
                for row in self._rows(books.connection, paper_orders.c.status == "open")
            ]

    def balances(self) -> Balances:
        """Cash and holdings after all executions."""
        with self.ledger.read(self.account) as books:
            return self._balances(books.connection, books.opening_cash())

    # The venue's books -----------------------------------------------------------------------------------------

    def _balances(self, connection: Connection, opening_cash: Decimal | None) -> Balances:
        query = (
            sa.select(paper_executions, paper_orders.c.token, paper_orders.c.side)
            .join(paper_orders, paper_orders.c.order_id == paper_executions.c.order_id)
            .where(paper_orders.c.account == self.account)
        )
        cash = self.rules.cash if opening_cash is None else opening_cash
        tokens: dict[str, Decimal] = defaultdict(Decimal)
        for row in connection.execute(query):
            if row.side == "buy":
                cash -= paid(row.quantity, row.price) + row.fee
                tokens[row.token] += row.quantity
            else:
                cash += received(row.quantity, row.price) - row.fee
                tokens[row.token] -= row.quantity
        return Balances(cash, {token: amount for token, amount in sorted(tokens.items()) if amount})

    def _missing(self, connection: Connection, order: Order) -> str | None:
        """What an order needs and the account does not have, beside what other open orders reserve."""
        has = self._balances(connection, Books(connection, self.account).opening_cash())
        open_rows = self._rows(connection, paper_orders.c.status == "open")
        if order.side == "sell":
            sales = (row for row in open_rows if row["side"] == "sell" and row["token"] == order.token)
            reserved = (self._left(connection, row) for row in sales)
            free = has.tokens.get(order.token, Decimal(0)) - sum(reserved, Decimal(0))
            return (
                None if order.quantity <= free else f"{plain(free)} {order.token} are free, not {plain(order.quantity)}"
            )
        purchases = (row for row in open_rows if row["side"] == "buy")
        taken = (self._cost(self._left(connection, row), row["limit"]) for row in purchases)
        needed, free = self._cost(order.quantity, order.limit), has.cash - sum(taken, Decimal(0))
        return None if needed <= free else f"{plain(free)} USD are free, not {plain(needed)}"

    def _left(self, connection: Connection, row: Any) -> Decimal:
        done = sum((trade.quantity for trade in _executions(connection, row["order_id"])), Decimal(0))
        left: Decimal = row["quantity"] - done
        return left

    def _cost(self, quantity: Decimal, price: Decimal) -> Decimal:
        value = paid(quantity, price)
        return value + fee_on(value, self.rules.fee)

    def _find(self, connection: Connection, order: Order) -> Any:
        rows = self._rows(connection, paper_orders.c.order_id == order.order_id)
        return rows[0] if rows else None

    def _rows(self, connection: Connection, condition: sa.ColumnElement[bool]) -> list[Any]:
        query = (
            sa.select(paper_orders)
            .where(paper_orders.c.account == self.account, condition)
            .order_by(paper_orders.c.side.desc(), paper_orders.c.hour, paper_orders.c.order_id)
        )
        return list(connection.execute(query).mappings())


def _executions(connection: Connection, order_id: str) -> list[Execution]:
    query = (
        sa.select(*(column for column in paper_executions.c if column is not paper_executions.c.order_id))
        .where(paper_executions.c.order_id == order_id)
        .order_by(paper_executions.c.trade_id)
    )
    return [Execution(**row) for row in connection.execute(query).mappings()]


def _set_status(connection: Connection, order_id: str, status: str) -> None:
    connection.execute(sa.update(paper_orders).where(paper_orders.c.order_id == order_id).values(status=status))
