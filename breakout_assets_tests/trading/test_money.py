from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from breakout_assets.trading.money import (
    MONEY_STEP,
    affordable,
    decimal_of,
    fee_on,
    paid,
    plain,
    quantity_for,
    received,
)

PRICES = st.floats(1e-15, 1e6).map(decimal_of)
AMOUNTS = st.decimals(0, 10**9, places=8)
SHARES = st.decimals(0, Decimal("0.99"), places=4)


def test_a_float_becomes_the_decimal_that_people_read() -> None:
    assert plain(decimal_of(0.1)) == "0.1"
    assert plain(decimal_of(1.5e-12)) == "0.0000000000015"
    assert plain(decimal_of(3e22)) == "30000000000000000000000"


def test_amounts_are_rounded_against_the_account() -> None:
    third = Decimal(1) / Decimal(3)
    assert received(Decimal(1), third) == Decimal("0.33333333")
    assert paid(Decimal(1), third) == Decimal("0.33333334")
    assert fee_on(Decimal("0.00000001"), Decimal("0.0025")) == Decimal("0.00000001")
    assert quantity_for(Decimal(2), Decimal(3)) == Decimal("0.66666666")


@given(value=AMOUNTS, price=PRICES)
def test_a_quantity_is_never_worth_more_than_was_asked_for(value: Decimal, price: Decimal) -> None:
    quantity = quantity_for(value, price)
    assert quantity.as_tuple().exponent == -8
    assert received(quantity, price) <= value


@given(cash=AMOUNTS, price=PRICES, fee=SHARES)
def test_what_cash_affords_can_be_paid_and_a_little_more_cannot(cash: Decimal, price: Decimal, fee: Decimal) -> None:
    def cost(quantity: Decimal) -> Decimal:
        value = paid(quantity, price)
        return value + fee_on(value, fee)

    quantity = affordable(cash, price, fee)
    assert cost(quantity) <= max(cash, Decimal(0))
    more = quantity + Decimal("0.00000002") + 10 * MONEY_STEP / price
    assert cost(more) > cash
