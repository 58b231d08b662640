"""What an account holds: a fold over its orders and fills, never a stored balance."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

import pandas as pd

from breakout_assets.trading.adjustments import Adjustment, Explained, explained
from breakout_assets.trading.money import plain, received, share_of, times, unit_price
from breakout_assets.trading.orders import ENDED, Fill, Order, Status
from breakout_assets.trading.rules import HOUR

# What is left of a sale below this, USD, is dust: no venue sells so little, and a place must not be held for it.
DUST: Final = Decimal(1)

_POSITION_COLUMNS: Final[dict[str, str]] = {
    "token": "str",
    "quantity": "str",
    "entry_price": "str",
    "price": "str",
    "value": "str",
    "profit": "str",
    "age_hours": "int64",
    "decided_hour": "datetime64[us]",
    "planned_exit": "datetime64[us]",
    "priced_hour": "datetime64[us]",
    "order_id": "str",
}


@dataclass(frozen=True, kw_only=True)
class Mark:
    """The newest believed price of a token."""

    price: Decimal
    hour: datetime


@dataclass(frozen=True, kw_only=True)
class OpenOrder:
    """An order that may still be executed, as far as the ledger knows."""

    order: Order
    status: Status
    filled: Decimal = Decimal(0)
    """Units executed so far."""

    @property
    def remaining(self) -> Decimal:
        """Units that may still be executed; 0 if more was executed than was ordered."""
        return max(self.order.quantity - self.filled, Decimal(0))


@dataclass(frozen=True, kw_only=True)
class Position:
    """What is held of an entry's fills."""

    order_id: str
    """Of the entry."""
    token: str
    decided_hour: datetime
    entered_hour: datetime
    """Of the newest fill of the entry."""
    quantity: Decimal
    """Units held."""
    entry_price: Decimal
    """Mean price of the entry's fills, USD."""
    cost: Decimal
    """What the held units took, fees included, USD."""
    mark: Mark
    """Older than the portfolio's hour where the token had no believed price since."""
    unpriced: int = 0
    """Hours since then in which other tokens had believed prices: an outage of all of them does not count."""

    @property
    def value(self) -> Decimal:
        """USD at the newest believed price, without the costs of a sale."""
        return received(self.quantity, self.mark.price)

    @property
    def profit(self) -> Decimal:
        """Not yet realised, USD, after the costs of the purchase."""
        return self.value - self.cost


@dataclass(frozen=True, kw_only=True)
class Portfolio:
    """An account after everything that was booked up to and in `hour`. Amounts are USD."""

    account: str
    hour: datetime
    cash: Decimal
    positions: tuple[Position, ...]
    open_orders: tuple[OpenOrder, ...]
    realised_profit: Decimal
    """Of what was sold, after all costs."""
    fees: Decimal
    """Paid so far, for open and closed positions; without those that a venue took in tokens."""
    trades: int = 0
    """Executions so far."""
    units: Mapping[str, Decimal] = field(default_factory=dict)
    """Everything held by token, dust included."""
    beside: Mapping[str, Decimal] = field(default_factory=dict)
    """What the venue holds beside, by token and `USD`; it is not of the account."""
    by_hand: frozenset[str] = frozenset()
    """Ids of entries of which units went without an order of the account."""
    left: Mapping[str, datetime] = field(default_factory=dict)
    """Hour of the last sale of each token that was ever sold."""

    @property
    def equity(self) -> Decimal:
        """Cash and the value of the positions."""
        return self.cash + sum((position.value for position in self.positions), Decimal(0))

    def age(self, position: Position) -> timedelta:
        """Time since the decision to enter."""
        return self.hour - position.decided_hour

    def positions_frame(self, horizon: timedelta) -> pd.DataFrame:
        """One row a position, ordered by token; amounts are exact, as text; the hours are naive UTC."""
        rows = [
            {
                "token": position.token,
                "quantity": plain(position.quantity),
                "entry_price": plain(position.entry_price),
                "price": plain(position.mark.price),
                "value": plain(position.value),
                "profit": plain(position.profit),
                "age_hours": self.age(position) // HOUR,
                "decided_hour": position.decided_hour,
                "planned_exit": position.decided_hour + horizon,
                "priced_hour": position.mark.hour,
                "order_id": position.order_id,
            }
            for position in self.positions
        ]
        return pd.DataFrame(rows, columns=list(_POSITION_COLUMNS)).astype(_POSITION_COLUMNS)


def fold(
    account: str,
    hour: datetime,
    opening_cash: Decimal,
    orders: Iterable[Order],
    statuses: Mapping[str, Status],
    fills: Iterable[Fill],
    marks: Mapping[str, Mark],
    priced_hours: Sequence[datetime] = (),
    adjustments: Iterable[Adjustment] = (),
) -> Portfolio:
    """The portfolio at `hour` from everything booked up to it.

    Args:
        account: whose orders these are.
        hour: as of when.
        opening_cash: what the account began with, USD.
        orders: all orders decided up to the hour, oldest first.
        statuses: of each of them, by order id.
        fills: up to the hour, in the order in which they were booked.
        marks: newest believed prices by token. A position whose token has had none since it was bought counts at
            its own price.
        priced_hours: hours that were decided on believed prices.
        adjustments: what the venue held otherwise, up to the hour.
    """
    known = {order.order_id: order for order in orders}
    booked, others = list(fills), explained(adjustments)
    executed, sold = by_order_and_entry(known, booked)
    units, left = _units_and_last_sales(known, booked, others)
    cash = sum((fill.cash_flow for fill in booked), opening_cash)
    holdings = [
        _Holding(order, executed[order.order_id], sold.get(order.order_id, []))
        for order in known.values()
        if order.purpose == "entry" and order.order_id in executed
    ]
    held, by_hand = _positions(holdings, marks, priced_hours, others.missing)
    return Portfolio(
        account=account,
        hour=hour,
        cash=cash + others.cash,
        positions=tuple(sorted(held, key=lambda position: (position.token, position.decided_hour))),
        open_orders=_open_orders(known.values(), statuses, executed),
        realised_profit=cash - opening_cash + others.proceeds + sum((each.cost for each in held), Decimal(0)),
        fees=sum((fill.fee for fill in booked), Decimal(0)),
        trades=len(booked),
        units=units,
        beside=others.beside,
        by_hand=by_hand,
        left=left,
    )


def mean_price(fills: Sequence[Fill]) -> Decimal:
    """USD that a unit took or brought over these fills, fees not included."""
    value = sum((times(fill.quantity, fill.price) for fill in fills), Decimal(0))
    return unit_price(value, sum((fill.quantity for fill in fills), Decimal(0)))


def by_order_and_entry(
    orders: Mapping[str, Order], fills: Iterable[Fill]
) -> tuple[dict[str, list[Fill]], dict[str, list[Fill]]]:
    """Fills by the id of their order, and the sales among them by the id of the entry that they close.

    Args:
        orders: by id, at least those of the fills.
        fills: in the order in which they were booked, which is kept.
    """
    executed: dict[str, list[Fill]] = defaultdict(list)
    sold: dict[str, list[Fill]] = defaultdict(list)
    for fill in fills:
        executed[fill.order_id].append(fill)
        entry = orders[fill.order_id].position
        if entry is not None:
            sold[entry].append(fill)
    return executed, sold


def _units_and_last_sales(
    orders: Mapping[str, Order], fills: Iterable[Fill], others: Explained
) -> tuple[dict[str, Decimal], dict[str, datetime]]:
    """Units held, and the hour of the last sale, also by hand, by token in alphabetical order."""
    units: dict[str, Decimal] = defaultdict(Decimal)
    left: dict[str, datetime] = {}
    for fill in fills:
        order = orders[fill.order_id]
        units[order.token] += fill.units
        if order.position is not None:
            left[order.token] = fill.hour
    for token, amount in others.missing.items():
        units[token] -= amount
        left[token] = max(left.get(token, others.missed[token]), others.missed[token])
    return {token: amount for token, amount in sorted(units.items()) if amount}, dict(sorted(left.items()))


def _open_orders(
    orders: Iterable[Order], statuses: Mapping[str, Status], executed: Mapping[str, list[Fill]]
) -> tuple[OpenOrder, ...]:
    """The orders that have not ended, the oldest first."""
    waiting = [
        OpenOrder(
            order=order,
            status=statuses[order.order_id],
            filled=sum((fill.quantity for fill in executed.get(order.order_id, ())), Decimal(0)),
        )
        for order in orders
        if statuses[order.order_id] not in ENDED
    ]
    return tuple(sorted(waiting, key=lambda each: (each.order.hour, each.order.token)))


@dataclass(frozen=True)
class _Holding:
    """An entry that was executed, at least in part."""

    entry: Order
    bought: Sequence[Fill]
    sold: Sequence[Fill]

    @property
    def gained(self) -> Decimal:
        return sum((fill.units for fill in self.bought), Decimal(0))

    @property
    def quantity(self) -> Decimal:
        """Units that neither were sold nor kept as a fee."""
        return self.gained + sum((fill.units for fill in self.sold), Decimal(0))


def _positions(
    holdings: Iterable[_Holding],
    marks: Mapping[str, Mark],
    priced_hours: Sequence[datetime],
    missing: Mapping[str, Decimal],
) -> tuple[list[Position], frozenset[str]]:
    """What is left of entries, the oldest first, and those that units are missing of: the oldest."""
    positions, gone, short = list[Position](), dict(missing), set[str]()
    for holding in holdings:
        token = holding.entry.token
        taken = min(gone.get(token, Decimal(0)), max(holding.quantity, Decimal(0)))
        gone[token] = gone.get(token, Decimal(0)) - taken
        short |= {holding.entry.order_id} if taken else set()
        position = _position(holding, holding.quantity - taken, marks.get(token), priced_hours)
        positions += [position] if position else []
    return positions, frozenset(short)


def _position(
    holding: _Holding, quantity: Decimal, mark: Mark | None, priced_hours: Sequence[datetime]
) -> Position | None:
    """What is left of an entry; null if nothing is, or dust."""
    bought, newest = holding.bought, holding.bought[-1]
    if mark is None or mark.hour < newest.hour:  # an older mark is of an earlier holding of the token
        mark = Mark(price=newest.price, hour=newest.hour)
    if quantity <= 0 or (quantity < holding.gained and received(quantity, mark.price) < DUST):
        return None
    paid_for = -sum((fill.cash_flow for fill in bought), Decimal(0))
    return Position(
        order_id=holding.entry.order_id,
        token=holding.entry.token,
        decided_hour=holding.entry.hour,
        entered_hour=newest.hour,
        quantity=quantity,
        entry_price=mean_price(bought),
        cost=share_of(paid_for, quantity, holding.gained),
        mark=mark,
        unpriced=sum(hour > mark.hour for hour in priced_hours),
    )
