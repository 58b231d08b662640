"""Orders and holdings for the tests of pure decisions, with everything filled in that a test is not about."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from breakout_assets.trading.orders import Order, Status
from breakout_assets.trading.portfolio import Mark, OpenOrder, Portfolio, Position
from breakout_assets_tests.trading.support import at

NOW, LAST_HOUR = at(200), at(199)


def order(token: str, **fields: Any) -> Order:
    """An entry of ten at 20, or what `fields` make of it; its limit allows any price that a test does not forbid."""
    values: dict[str, Any] = {
        "order_id": f"id-{token}",
        "hour": LAST_HOUR,
        "token": token,
        "side": "buy",
        "purpose": "entry",
        "quantity": Decimal(10),
        "price": Decimal(20),
        "limit": Decimal(21),
        "reason": "r",
        "position": None,
        "model_hash": None,
        "probability": 0.7,
    }
    return Order(**values | fields)


def sale(token: str, **fields: Any) -> Order:
    """An exit of the position that `order(token)` opened."""
    values: dict[str, Any] = {"order_id": f"exit-{token}", "side": "sell", "purpose": "exit", "limit": Decimal(19)}
    return order(token, **values | {"position": f"id-{token}", "probability": None} | fields)


def waiting(each: Order, status: Status = "accepted", filled: int = 0) -> OpenOrder:
    return OpenOrder(order=each, status=status, filled=Decimal(filled))


def position(
    token: str,
    decided: datetime = LAST_HOUR,
    quantity: int | str = 10,
    price: int | str = 20,
    priced: datetime = LAST_HOUR,
    **fields: Any,
) -> Position:
    values: dict[str, Any] = {
        "order_id": f"id-{token}",
        "token": token,
        "decided_hour": decided,
        "entered_hour": decided,
        "quantity": Decimal(quantity),
        "entry_price": Decimal(price),
        "cost": Decimal(quantity) * Decimal(price),
        "mark": Mark(price=Decimal(price), hour=priced),
    }
    return Position(**values | fields)


def portfolio(
    cash: int | str = 10_000,
    positions: tuple[Position, ...] = (),
    open_orders: tuple[OpenOrder, ...] = (),
    left: Mapping[str, datetime] | None = None,
) -> Portfolio:
    return Portfolio(
        account="paper",
        hour=NOW,
        cash=Decimal(cash),
        positions=positions,
        open_orders=open_orders,
        realised_profit=Decimal(0),
        fees=Decimal(0),
        left=left or {},
    )
