"""Orders, fills, and what an account holds: a fold over both, never a stored balance."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, Literal

import pandas as pd

from breakout_assets.trading.money import paid, plain, received
from breakout_assets.trading.rules import HOUR

Side = Literal["buy", "sell"]
Purpose = Literal["entry", "exit"]

_POSITION_COLUMNS: Final[dict[str, str]] = {
    "token": "str",
    "quantity": "str",
    "entry_price": "str",
    "price": "str",
    "value": "str",
    "profit": "str",
    "age_hours": "int64",
    "decided_hour": "datetime64[us]",
    "priced_hour": "datetime64[us]",
}


@dataclass(frozen=True, kw_only=True)
class OrderIntent:
    """An order as it was decided, before it has an identity in a ledger."""

    hour: datetime
    """The hour whose snapshot led to it."""
    token: str
    side: Side
    purpose: Purpose
    quantity: Decimal
    price: Decimal
    """Reference: the price known when it was decided. It is never the price of the fill."""
    reason: str
    position: str | None
    """Id of the entry order that an exit closes; null for entries."""
    model_hash: str | None
    probability: float | None


@dataclass(frozen=True, kw_only=True)
class Order(OrderIntent):
    """An order that a ledger holds."""

    order_id: str


@dataclass(frozen=True, kw_only=True)
class Fill:
    """The execution of an order, in full: one order has at most one fill."""

    order_id: str
    side: Side
    hour: datetime
    """The hour whose snapshot gave the price."""
    price: Decimal
    """Paid or received per unit, slippage included."""
    quantity: Decimal
    fee: Decimal
    note: str | None = None
    """Why less was filled than was ordered."""

    @property
    def value(self) -> Decimal:
        """USD, fee not included."""
        return paid(self.quantity, self.price) if self.side == "buy" else received(self.quantity, self.price)

    @property
    def cash_flow(self) -> Decimal:
        """Change of the cash, USD: negative for purchases."""
        return -self.value - self.fee if self.side == "buy" else self.value - self.fee


@dataclass(frozen=True, kw_only=True)
class Cancellation:
    """The end of an order that was not filled."""

    order_id: str
    hour: datetime
    reason: str


@dataclass(frozen=True, kw_only=True)
class Mark:
    """The newest believed price of a token."""

    price: Decimal
    hour: datetime


@dataclass(frozen=True, kw_only=True)
class Position:
    """A holding: the fill of an entry whose exit has not been filled."""

    order_id: str
    """Of the entry."""
    token: str
    decided_hour: datetime
    fill: Fill
    mark: Mark
    """Older than the portfolio's hour where the token had no believed price since."""

    @property
    def quantity(self) -> Decimal:
        """Units held."""
        return self.fill.quantity

    @property
    def value(self) -> Decimal:
        """USD at the newest believed price, without the costs of a sale."""
        return received(self.quantity, self.mark.price)

    @property
    def profit(self) -> Decimal:
        """Not yet realised, USD, after the costs of the purchase."""
        return self.value + self.fill.cash_flow


@dataclass(frozen=True, kw_only=True)
class Portfolio:
    """An account after everything that happened up to and in `hour`. Amounts are USD."""

    account: str
    hour: datetime
    cash: Decimal
    positions: tuple[Position, ...]
    open_orders: tuple[Order, ...]
    realised_profit: Decimal
    """Of closed positions, after all costs."""
    fees: Decimal
    """Paid so far, for open and closed positions."""

    @property
    def equity(self) -> Decimal:
        """Cash and the value of the positions."""
        return self.cash + sum((position.value for position in self.positions), Decimal(0))

    def age(self, position: Position) -> timedelta:
        """Time since the decision to enter."""
        return self.hour - position.decided_hour

    def positions_frame(self) -> pd.DataFrame:
        """One row a position, ordered by token; amounts are exact, as text; the hours are naive UTC.

        Columns: token, quantity, entry_price, price, value, profit, age_hours, decided_hour, priced_hour.
        """
        rows = [
            {
                "token": position.token,
                "quantity": plain(position.quantity),
                "entry_price": plain(position.fill.price),
                "price": plain(position.mark.price),
                "value": plain(position.value),
                "profit": plain(position.profit),
                "age_hours": self.age(position) // HOUR,
                "decided_hour": position.decided_hour,
                "priced_hour": position.mark.hour,
            }
            for position in self.positions
        ]
        return pd.DataFrame(rows, columns=list(_POSITION_COLUMNS)).astype(_POSITION_COLUMNS)


def holdings(orders: Iterable[Order], fills: Mapping[str, Fill]) -> list[Order]:
    """The entries that were filled and whose exits were not."""
    done = [order for order in orders if order.order_id in fills]
    closed = {order.position for order in done}
    return [order for order in done if order.side == "buy" and order.order_id not in closed]


def fold(
    account: str,
    hour: datetime,
    opening_cash: Decimal,
    orders: Sequence[Order],
    fills: Mapping[str, Fill],
    cancelled: frozenset[str],
    marks: Mapping[str, Mark],
) -> Portfolio:
    """The portfolio at `hour` from everything recorded up to it.

    Args:
        account: whose orders these are.
        hour: as of when.
        opening_cash: what the account began with, USD.
        orders: all orders decided up to the hour.
        fills: by order id, up to the hour.
        cancelled: ids of the orders cancelled up to the hour.
        marks: newest believed prices by token. A position whose token has had none since it was bought counts at
            its own price.
    """
    positions = [_position(order, fills[order.order_id], marks.get(order.token)) for order in holdings(orders, fills)]
    total = sum((fill.cash_flow for fill in fills.values()), Decimal(0))
    waiting = (order for order in orders if order.order_id not in fills and order.order_id not in cancelled)
    return Portfolio(
        account=account,
        hour=hour,
        cash=opening_cash + total,
        positions=tuple(sorted(positions, key=lambda position: position.token)),
        open_orders=tuple(sorted(waiting, key=lambda order: (order.hour, order.token))),
        realised_profit=total - sum((position.fill.cash_flow for position in positions), Decimal(0)),
        fees=sum((fill.fee for fill in fills.values()), Decimal(0)),
    )


def _position(entry: Order, fill: Fill, mark: Mark | None) -> Position:
    if mark is None or mark.hour < fill.hour:  # an older mark is of an earlier holding of the token
        mark = Mark(price=fill.price, hour=fill.hour)
    return Position(order_id=entry.order_id, token=entry.token, decided_hour=entry.hour, fill=fill, mark=mark)
