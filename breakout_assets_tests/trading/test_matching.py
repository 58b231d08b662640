"""What a later snapshot executes of a paper order."""

from dataclasses import replace
from decimal import Context, Decimal, localcontext
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breakout_assets.trading.brokers import Quote
from breakout_assets.trading.matching import match
from breakout_assets.trading.money import QUANTITY_STEP, fee_on, paid, received
from breakout_assets.trading.orders import Execution, Order
from breakout_assets.trading.rules import TradingRules
from breakout_assets_tests.trading import builders
from breakout_assets_tests.trading.support import RULES, at

NOTHING = Decimal(0)
ANY_BUY, ANY_SALE = Decimal(10**9), Decimal("1E-30")


def purchase(quantity: Decimal | int = 100, **fields: Any) -> Order:
    values: dict[str, Any] = {"hour": at(0), "quantity": Decimal(quantity), "limit": ANY_BUY}
    return builders.order("A", **values | fields)


def sale(quantity: Decimal | int = 100, **fields: Any) -> Order:
    values: dict[str, Any] = {"hour": at(0), "quantity": Decimal(quantity), "limit": ANY_SALE}
    return builders.sale("A", **values | fields)


def quote(price: str | int = 3, volume: str | int | None = None) -> Quote:
    return Quote(Decimal(price), None if volume is None else Decimal(volume))


def executed(
    order: Order, at_quote: Quote, filled: Decimal = NOTHING, hour: int = 1, rules: TradingRules = RULES
) -> Execution:
    execution = match(order, filled, at_quote, at(hour), rules)
    assert execution is not None
    return execution


def test_a_purchase_pays_half_the_spread_and_slippage_and_then_the_fee() -> None:
    execution = executed(purchase(), quote())
    assert (execution.price, execution.quantity) == (Decimal("3.015"), Decimal(100))
    assert (execution.fee, execution.fee_in_token) == (Decimal("0.75375"), Decimal(0))


def test_a_sale_loses_half_the_spread_and_slippage_and_then_the_fee() -> None:
    execution = executed(sale(), quote())
    assert (execution.price, execution.quantity, execution.fee) == (Decimal("2.985"), Decimal(100), Decimal("0.74625"))


@pytest.mark.parametrize(
    ("of_the_largest", "worse"),
    [("1", "0.005"), ("0.25", "0.003"), ("0.01", "0.0014"), ("4", "0.009")],
)
def test_an_order_moves_the_price_by_the_square_root_of_its_share_of_the_largest(
    of_the_largest: str, worse: str
) -> None:
    volume = Decimal(1_000_000)
    quantity = volume * RULES.max_volume_share * Decimal(of_the_largest)
    assert executed(purchase(quantity), quote(1, 1_000_000)).price == 1 + Decimal(worse)
    assert executed(sale(quantity), quote(1, 1_000_000)).price == 1 - Decimal(worse)


def test_the_slippage_of_an_oversized_order_ends_at_half_the_price() -> None:
    rules = replace(RULES, max_volume_share=Decimal("1E-9"))
    assert executed(sale(10**6), quote(1, 1_000_000), rules=rules).price == Decimal("0.499")
    rules = replace(RULES, slippage=Decimal("0.99"))
    assert executed(purchase(), quote(1), rules=rules).price == Decimal("1.501")


def test_nothing_is_executed_in_the_hour_of_the_decision_or_before_or_without_a_price() -> None:
    for order in (purchase(), sale()):
        assert match(order, NOTHING, quote(), at(-1), RULES) is None
        assert match(order, NOTHING, quote(), at(0), RULES) is None
        assert match(order, NOTHING, None, at(1), RULES) is None


def test_an_entry_waits_six_hours_for_a_price_and_an_exit_for_ever() -> None:
    assert match(purchase(), NOTHING, quote(), at(6), RULES) is not None
    assert match(purchase(), NOTHING, quote(), at(7), RULES) is None
    assert match(sale(), NOTHING, quote(), at(1000), RULES) is not None


def test_a_limit_is_met_exactly_and_missed_by_a_hair() -> None:
    hair = Decimal("0.000000001")
    assert match(purchase(limit=Decimal("3.015")), NOTHING, quote(), at(1), RULES) is not None
    assert match(purchase(limit=Decimal("3.015") - hair), NOTHING, quote(), at(1), RULES) is None
    assert match(sale(limit=Decimal("2.985")), NOTHING, quote(), at(1), RULES) is not None
    assert match(sale(limit=Decimal("2.985") + hair), NOTHING, quote(), at(1), RULES) is None


def test_an_hour_takes_a_tenth_of_its_volume_and_the_rest_waits() -> None:
    thin = quote(2, 48_000)  # 2,000 USD an hour: 100 units
    assert executed(sale(250), thin).quantity == 100
    assert executed(sale(250), thin, Decimal(100), 2).quantity == 100
    assert executed(sale(250), thin, Decimal(200), 3).quantity == 50
    assert match(sale(250), Decimal(250), thin, at(4), RULES) is None
    assert match(sale(250), Decimal(251), thin, at(4), RULES) is None  # more was executed than was ordered


def test_without_volume_nothing_is_executed_and_with_an_unknown_one_all_of_it() -> None:
    assert match(sale(), NOTHING, quote(3, 0), at(1), RULES) is None
    assert match(sale(), NOTHING, quote(3, "0.0000001"), at(1), RULES) is None
    assert executed(sale(10**9), quote()).quantity == 10**9


def test_an_order_has_one_execution_an_hour_and_the_hour_names_it() -> None:
    first, second = (executed(sale(), quote(), hour=hour) for hour in (1, 26))
    assert (first.trade_id, second.trade_id) == ("20240301T01", "20240302T02")
    assert executed(sale(), quote(), hour=1) == first


def test_the_precision_of_the_process_changes_no_amount() -> None:
    order, market = sale(Decimal("123456.78901234")), quote("0.0012345678901234567", "9876543.21")
    expected = executed(order, market)
    with localcontext(Context(prec=60)):
        assert executed(order, market) == expected


amounts = st.decimals("0.00000001", 10**9, places=8)
quotes = st.builds(
    Quote,
    st.floats(1e-9, 1e5).map(lambda price: Decimal(repr(price))),
    st.none() | st.floats(0, 1e10).map(lambda volume: Decimal(repr(volume))),
)
rule_sets = st.builds(
    lambda spread, slippage, share: replace(RULES, spread=spread, slippage=slippage, max_volume_share=share),
    st.decimals(0, "0.05", places=4) | st.just(Decimal("0.99")),
    st.decimals(0, "0.05", places=4) | st.just(Decimal("0.99")),
    st.decimals("0.000001", 1, places=6),
)


@given(buys=st.booleans(), ordered=amounts, share=st.decimals(0, "1.1", places=3), market=quotes, rules=rule_sets)
def test_no_execution_is_beyond_the_limit_the_rest_or_the_volume(
    buys: bool, ordered: Decimal, share: Decimal, market: Quote, rules: TradingRules
) -> None:
    order = purchase(ordered) if buys else sale(ordered)
    move = -rules.max_price_move if not buys else rules.max_price_move
    order = replace(order, limit=market.price * (1 + move))
    filled = ordered * share
    execution = match(order, filled, market, at(1), rules)
    if execution is None:
        return
    assert execution.price <= order.limit if buys else execution.price >= order.limit
    assert execution.price >= market.price if buys else 0 < execution.price <= market.price
    assert 0 < execution.quantity <= ordered - filled
    assert execution.quantity % QUANTITY_STEP == 0
    value = paid(execution.quantity, execution.price) if buys else received(execution.quantity, execution.price)
    assert execution.fee == fee_on(value, rules.fee)
    if market.volume is not None:
        assert execution.quantity * market.price * 240 <= market.volume * (1 + Decimal("1E-20"))


@given(buys=st.booleans(), sizes=st.tuples(amounts, amounts), market=quotes, rules=rule_sets)
def test_a_larger_order_never_costs_less(
    buys: bool, sizes: tuple[Decimal, Decimal], market: Quote, rules: TradingRules
) -> None:
    make = purchase if buys else sale
    small, large = (match(make(size), NOTHING, market, at(1), rules) for size in sorted(sizes))
    if small is None or large is None:
        assert small is None  # too small for a step, or no volume at all
        return
    costs = [abs(each.price - market.price) for each in (small, large)]
    assert costs == sorted(costs)
    assert small.quantity <= large.quantity
    assert small.fee <= large.fee if buys else True  # a sale that moves the price far brings less, and less fee
