"""What the paper broker makes of an order."""

from decimal import Decimal
from typing import Any

import pytest

from breakout_assets.trading.brokers import PaperBroker
from breakout_assets.trading.portfolio import Cancellation, Fill, Order
from breakout_assets_tests.trading.support import RULES, at

BROKER = PaperBroker(RULES)
CASH = Decimal(10_000)


def order(**fields: Any) -> Order:
    values: dict[str, Any] = {
        "order_id": "o1",
        "hour": at(0),
        "token": "A",
        "side": "buy",
        "purpose": "entry",
        "quantity": Decimal(100),
        "price": Decimal(2),
        "reason": "r",
        "position": None,
        "model_hash": None,
        "probability": 0.7,
    }
    return Order(**values | fields)


SALE = order(side="sell", purpose="exit", position="o0")


def test_a_purchase_pays_slippage_and_then_the_fee() -> None:
    fill = BROKER.settle(order(), at(1), Decimal(3), CASH)
    assert isinstance(fill, Fill)
    assert (fill.price, fill.quantity, fill.hour) == (Decimal("3.015"), Decimal(100), at(1))
    assert fill.fee == Decimal("0.75375")
    assert fill.cash_flow == Decimal("-302.25375")
    assert fill.note is None


def test_a_sale_loses_slippage_and_then_the_fee() -> None:
    fill = BROKER.settle(SALE, at(1), Decimal(3), Decimal(0))
    assert isinstance(fill, Fill)
    assert (fill.price, fill.quantity) == (Decimal("2.985"), Decimal(100))
    assert fill.fee == Decimal("0.74625")
    assert fill.cash_flow == Decimal("297.75375")


@pytest.mark.parametrize(
    ("hours", "price", "end"),
    [
        (5, None, "open"),
        (6, None, "no believed price of A for 6 hours"),
        (6, Decimal(3), "filled"),
        (7, Decimal(3), "not filled within 6 hours of the decision"),
        (7, None, "not filled within 6 hours of the decision"),
    ],
)
def test_an_entry_waits_six_hours_for_a_price(hours: int, price: Decimal | None, end: str) -> None:
    result = BROKER.settle(order(), at(hours), price, CASH)
    if isinstance(result, Cancellation):
        assert result.reason == end
        assert result.hour == at(hours)
    else:
        assert ("filled" if result else "open") == end


def test_an_exit_waits_for_ever() -> None:
    assert BROKER.settle(SALE, at(1000), None, CASH) is None
    assert isinstance(BROKER.settle(SALE, at(1001), Decimal(1), CASH), Fill)


def test_a_purchase_that_cash_just_covers_is_filled_whole_and_a_hair_more_is_reduced() -> None:
    whole = BROKER.settle(order(), at(1), Decimal(3), Decimal("302.25375"))
    less = BROKER.settle(order(), at(1), Decimal(3), Decimal("302.25374999"))
    assert isinstance(whole, Fill)
    assert isinstance(less, Fill)
    assert (whole.quantity, whole.note) == (Decimal(100), None)
    assert Decimal("99.9999") < less.quantity < 100
    assert -less.cash_flow <= Decimal("302.25374999")
    assert less.note is not None
    assert less.note.startswith("reduced from 100: 302.25 USD of cash")


def test_a_purchase_that_cash_would_make_too_small_is_cancelled() -> None:
    enough = Decimal(10) * (1 + RULES.fee) + Decimal("0.001")
    assert isinstance(BROKER.settle(order(), at(1), Decimal(3), enough), Fill)
    end = BROKER.settle(order(), at(1), Decimal(3), Decimal(10))
    assert isinstance(end, Cancellation)
    assert end.reason == "10.00 USD of cash no longer cover it or the smallest order at 3.015"


def test_a_purchase_whose_price_fell_is_filled_whole() -> None:
    fill = BROKER.settle(order(), at(1), Decimal("0.01"), CASH)
    assert isinstance(fill, Fill)
    assert fill.quantity == 100
