"""The fold of orders and fills into what an account holds."""

from decimal import Decimal

import pytest

from breakout_assets.trading.portfolio import Fill, Mark, Order, Portfolio, fold
from breakout_assets_tests.trading.support import at

ENTRY = Order(
    order_id="in",
    hour=at(0),
    token="A",
    side="buy",
    purpose="entry",
    quantity=Decimal(10),
    price=Decimal(3),
    reason="r",
    position=None,
    model_hash=None,
    probability=0.7,
)
EXIT = Order(
    order_id="out",
    hour=at(120),
    token="A",
    side="sell",
    purpose="exit",
    quantity=Decimal(10),
    price=Decimal(5),
    reason="r",
    position="in",
    model_hash=None,
    probability=None,
)
BOUGHT = Fill(order_id="in", side="buy", hour=at(1), price=Decimal(4), quantity=Decimal(10), fee=Decimal("0.1"))
SOLD = Fill(order_id="out", side="sell", hour=at(121), price=Decimal(6), quantity=Decimal(10), fee=Decimal("0.2"))


def folded(orders: list[Order], fills: list[Fill], mark: Mark | None = None, cancelled: str = "") -> Portfolio:
    return fold(
        "paper",
        at(200),
        Decimal(100),
        orders,
        {fill.order_id: fill for fill in fills},
        frozenset({cancelled}),
        {"A": mark} if mark else {},
    )


def test_an_order_is_open_until_it_is_filled_or_cancelled() -> None:
    assert folded([ENTRY], []).open_orders == (ENTRY,)
    assert folded([ENTRY], [BOUGHT]).open_orders == ()
    assert folded([ENTRY], [], cancelled="in").open_orders == ()
    assert folded([ENTRY], [], cancelled="in").cash == 100


def test_a_position_lasts_from_the_fill_of_its_entry_to_the_fill_of_its_exit() -> None:
    assert [position.order_id for position in folded([ENTRY, EXIT], [BOUGHT]).positions] == ["in"]
    closed = folded([ENTRY, EXIT], [BOUGHT, SOLD])
    assert closed.positions == ()
    assert closed.cash == closed.equity == Decimal("119.7")
    assert closed.realised_profit == Decimal("19.7")
    assert closed.fees == Decimal("0.3")


@pytest.mark.parametrize(
    ("mark", "price"),
    [
        (None, 4),
        (Mark(price=Decimal(9), hour=at(0)), 4),  # of a holding before this one
        (Mark(price=Decimal(9), hour=at(1)), 9),
    ],
)
def test_a_position_counts_at_the_newest_price_since_it_was_bought(mark: Mark | None, price: int) -> None:
    portfolio = folded([ENTRY], [BOUGHT], mark)
    [position] = portfolio.positions
    assert position.value == 10 * price
    assert position.profit == 10 * price - Decimal("40.1")
    assert portfolio.equity == Decimal("59.9") + 10 * price
