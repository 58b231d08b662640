"""The pure decision: which orders, of what size, what is not ordered and why, and what is refused as input."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from breakout_assets.errors import DataError
from breakout_assets.market.health import HealthState
from breakout_assets.trading.brokers import Quote
from breakout_assets.trading.decide import (
    Decision,
    RefusalCode,
    Signal,
    decide,
    drawdown_block,
    order_id,
    outdated,
    read_quotes,
    read_signals,
)
from breakout_assets.trading.money import fee_on, paid, received, times
from breakout_assets.trading.orders import OrderIntent, OrderLimits, Status
from breakout_assets.trading.portfolio import Portfolio, Position
from breakout_assets.trading.rules import HOUR, TradingRules
from breakout_assets_tests.trading.builders import NOW, order, portfolio, position, sale, waiting
from breakout_assets_tests.trading.support import RULES, Prices, at, predictions, prices

ANY = OrderLimits()
TRADED = dict.fromkeys("ABCDEFGH", ANY)


def decision(
    buys: dict[str, float],
    quotes: Prices,
    held: Portfolio | None = None,
    health: HealthState = HealthState.ACTIVE,
    rules: TradingRules = RULES,
    limits: dict[str, OrderLimits] | None = None,
    blocks: Sequence[str] = (),
) -> Decision:
    signals, believed = read_signals(predictions(NOW, buys), NOW), read_quotes(prices(quotes), NOW)
    known = TRADED if limits is None else limits
    return decide(held or portfolio(), signals, believed, known, health, blocks, rules, NOW)


def decided(*arguments: Any, **options: Any) -> list[OrderIntent]:
    return list(decision(*arguments, **options).intents)


def refused(*arguments: Any, **options: Any) -> dict[str, RefusalCode]:
    return {each.token: each.code for each in decision(*arguments, **options).refusals}


# Entries


def test_an_entry_is_a_share_of_equity_at_the_reference_price() -> None:
    [intent] = decided({"A": 0.7}, {"A": 4.0}, portfolio(9_000, (position("B", quantity=50),)))
    assert (intent.token, intent.side, intent.purpose) == ("A", "buy", "entry")
    assert intent.quantity == Decimal("0.02") * (9_000 + 50 * 20) / 4
    assert (intent.price, intent.limit) == (Decimal(4), Decimal("4.2"))
    assert (intent.probability, intent.model_hash, intent.position) == (0.7, "m1", None)
    assert intent.reason == "probability 0.7000 reaches the threshold 0.6000; 2% of equity"


def test_equity_counts_what_is_held_at_the_price_of_the_hour() -> None:
    [intent] = decided({"A": 0.7}, {"A": 1.0, "B": 40.0}, portfolio(9_000, (position("B", quantity=50),)))
    assert intent.quantity == Decimal("0.02") * (9_000 + 50 * 40)


def test_entries_come_best_first_and_ties_by_token() -> None:
    quotes = {"C": 1.0, "B": 1.0, "A": 1.0, "D": 1.0}
    intents = decided({"B": 0.7, "A": 0.7, "C": 0.9, "D": 0.61}, quotes)
    assert [intent.token for intent in intents] == ["C", "A", "B", "D"]


@pytest.mark.parametrize("health", [HealthState.REDUCE_ONLY, HealthState.HALTED])
def test_entries_are_made_in_an_active_market_only_and_exits_always(health: HealthState) -> None:
    held = portfolio(positions=(position("B", at(80)),))
    quotes = {"A": 1.0, "B": 1.0}
    assert [i.side for i in decided({"A": 0.9}, quotes, held, HealthState.ACTIVE)] == ["sell", "buy"]
    result = decision({"A": 0.9}, quotes, held, health)
    assert [i.side for i in result.intents] == ["sell"]
    [refusal] = result.refusals
    assert (refusal.token, refusal.code) == ("A", RefusalCode.NO_ENTRIES)
    assert refusal.reason == f"the market is {health}"


def test_a_block_stops_entries_says_why_and_lets_exits_go_on() -> None:
    held = portfolio(positions=(position("B", at(80)),))
    blocks = ["halted by Ann: holidays", "the venue holds 3 B more"]
    result = decision({"A": 0.9, "C": 0.8}, {"A": 1.0, "B": 1.0, "C": 1.0}, held, blocks=blocks)
    assert [i.token for i in result.intents] == ["B"]
    assert {each.code for each in result.refusals} == {RefusalCode.NO_ENTRIES}
    assert [each.token for each in result.refusals] == ["A", "C"]
    assert result.refusals[0].reason == "halted by Ann: holidays; the venue holds 3 B more"


@pytest.mark.parametrize("status", ["intent", "sending", "unknown", "accepted", "cancelling"])
def test_a_token_that_is_held_or_has_an_open_order_is_not_bought_again(status: Status) -> None:
    held = portfolio(positions=(position("A"),), open_orders=(waiting(order("B"), status), waiting(sale("D"), status)))
    quotes = dict.fromkeys("ABCD", 1.0)
    buys = {"A": 0.9, "B": 0.8, "C": 0.7, "D": 0.65}
    assert [intent.token for intent in decided(buys, quotes, held)] == ["C"]
    assert refused(buys, quotes, held) == dict.fromkeys("ABD", RefusalCode.HELD)


@pytest.mark.parametrize(("hours", "buys"), [(0, False), (23, False), (24, True), (25, True)])
def test_a_token_cools_down_after_its_last_sale(hours: int, buys: bool) -> None:
    held = portfolio(left={"A": at(200 - hours), "B": at(0)})
    assert [i.token for i in decided({"A": 0.9}, {"A": 1.0}, held)] == ["A"] * buys
    assert refused({"A": 0.9}, {"A": 1.0}, held) == ({} if buys else {"A": RefusalCode.COOLDOWN})
    assert decided({"A": 0.9}, {"A": 1.0}, held, rules=replace(RULES, cooldown=timedelta(0)))


def test_positions_and_waiting_entries_fill_the_places_and_a_waiting_exit_frees_none() -> None:
    rules = replace(RULES, max_positions=4)
    held = portfolio(positions=(position("A"),), open_orders=(waiting(order("B")), waiting(sale("A"))))
    quotes, buys = {"C": 1.0, "D": 1.0, "E": 1.0}, {"C": 0.9, "D": 0.8, "E": 0.7}
    assert [i.token for i in decided(buys, quotes, held, rules=rules)] == ["C", "D"]
    assert refused(buys, quotes, held, rules=rules) == {"E": RefusalCode.MAX_POSITIONS}
    assert decided({"C": 0.9}, quotes, held, rules=replace(rules, max_positions=2)) == []


def test_an_entry_that_is_filled_in_part_takes_one_place() -> None:
    held = portfolio(positions=(position("A", quantity=4),), open_orders=(waiting(order("A"), filled=4),))
    quotes, buys = {"B": 1.0, "C": 1.0}, {"B": 0.9, "C": 0.8}
    assert [i.token for i in decided(buys, quotes, held, rules=replace(RULES, max_positions=2))] == ["B"]


def test_an_entry_takes_at_most_a_thousandth_of_the_daily_volume() -> None:
    [intent] = decided({"A": 0.7}, {"A": (2.0, 50_000.0)})
    assert intent.quantity * 2 == 50
    assert "limited to 0.1% of the 24-hour volume" in intent.reason


def test_an_unknown_volume_or_price_buys_nothing() -> None:
    assert decided({"A": 0.7}, {"A": (2.0, None)}) == []
    assert refused({"A": 0.7}, {"A": (2.0, None)}) == {"A": RefusalCode.VOLUME}
    assert decided({"A": 0.7}, {"B": 2.0}) == []
    assert refused({"A": 0.7}, {"B": 2.0}) == {"A": RefusalCode.NO_PRICE}


def test_a_token_that_the_venue_does_not_trade_is_not_bought() -> None:
    assert decided({"A": 0.7, "B": 0.6}, {"A": 1.0, "B": 1.0}, limits={"B": ANY})[0].token == "B"
    assert refused({"A": 0.7}, {"A": 1.0}, limits={}) == {"A": RefusalCode.NOT_TRADED}


def test_the_smallest_order_is_a_limit_from_both_sides_and_the_refusal_names_what_bound() -> None:
    assert refused({"A": 0.7}, {"A": (1.0, 9_999.0)}) == {"A": RefusalCode.VOLUME}
    assert len(decided({"A": 0.7}, {"A": (1.0, 10_000.0)})) == 1
    assert refused({"A": 0.7}, {"A": 1.0}, portfolio("10.5")) == {"A": RefusalCode.BELOW_MINIMUM}  # 2 % of it
    invested = portfolio("10.5", (position("B", quantity=500),))
    assert refused({"A": 0.7}, {"A": 1.0}, invested) == {"A": RefusalCode.CASH}  # 10.5 less 5 % and the fee
    assert len(decided({"A": 0.7}, {"A": 1.0}, replace(invested, cash=Decimal("10.53")))) == 1


def test_one_order_too_small_does_not_stop_the_next() -> None:
    assert [i.token for i in decided({"A": 0.9, "B": 0.8}, {"A": (1.0, 5.0), "B": 1.0})] == ["B"]


def test_free_cash_is_what_waiting_entries_leave_at_their_limits_with_their_fees() -> None:
    # 10 x 21 x 1.0025 = 210.525 are reserved; 89.475 are left, and the order's own costs come out of it.
    held = portfolio(300, (position("B", quantity=500),), (waiting(order("C"), "unknown"),))
    [intent] = decided({"A": 0.7}, {"A": 1.0}, held)
    assert "limited by the free cash" in intent.reason
    cost = intent.quantity * Decimal("1.05") * Decimal("1.0025")
    assert Decimal("89.474999") < cost <= Decimal("89.475")


def test_what_is_filled_of_an_entry_is_no_longer_reserved() -> None:
    # Four of ten are still to come: 4 x 21 x 1.0025 = 84.21 of 234.21 are reserved.
    held = portfolio("234.21", (position("B", quantity=500),), (waiting(order("C"), filled=6),))
    [intent] = decided({"A": 0.7}, {"A": 1.0}, held)
    cost = intent.quantity * Decimal("1.05") * Decimal("1.0025")
    assert Decimal("149.999999") < cost <= 150


def test_each_entry_of_an_hour_leaves_less_for_the_next() -> None:
    rules = replace(RULES, order_fraction=Decimal("0.4"))
    buys, quotes = {"A": 0.9, "B": 0.8, "C": 0.7, "D": 0.6}, dict.fromkeys("ABCD", 1.0)
    intents = decided(buys, quotes, rules=rules)
    assert [round(intent.quantity) for intent in intents] == [4000, 4000, 1500]
    total = sum(intent.quantity for intent in intents) * Decimal("1.05") * Decimal("1.0025")
    assert Decimal("9999.999") < total <= 10_000
    assert refused(buys, quotes, rules=rules) == {"D": RefusalCode.CASH}


def test_entries_leave_the_cash_floor() -> None:
    rules = replace(RULES, order_fraction=Decimal(1), cash_floor=Decimal("0.3"))
    [intent] = decided({"A": 0.7}, {"A": 1.0}, portfolio(6_000, (position("B", quantity=200),)), rules=rules)
    cost = intent.quantity * Decimal("1.05") * Decimal("1.0025")
    assert Decimal("2999.999") < cost <= 3_000  # 6,000 less 30 % of the equity of 10,000


def test_quantities_are_rounded_down_to_the_venues_step_and_limits_too() -> None:
    [intent] = decided({"A": 0.7}, {"A": 60_000.0})
    assert intent.quantity == Decimal("0.00333333")
    coarse = OrderLimits(quantity_step=Decimal("0.02"), price_step=Decimal("0.5"))
    [intent] = decided({"A": 0.7}, {"A": 33.0}, limits={"A": coarse})
    assert (intent.quantity, intent.limit) == (Decimal("6.06"), Decimal("34.5"))  # of 6.0606 and 34.65


def test_a_price_far_below_the_venues_step_is_not_ordered() -> None:
    limits = {"A": OrderLimits(price_step=Decimal(1))}
    assert refused({"A": 0.7}, {"A": 0.5}, limits=limits) == {"A": RefusalCode.BELOW_MINIMUM}


def test_an_entry_can_still_be_sold_after_its_price_fell_by_a_fifth() -> None:
    # An entry of 200: less the fee, a fifth and the 5 % of the exit's limit leave 151.62.
    for least, buys in (("151.62", 1), ("151.63", 0)):
        limits = {"A": OrderLimits(min_value=Decimal(least))}
        intents = decided({"A": 0.7}, {"A": 1.0}, limits=limits)
        assert len(intents) == buys
        for intent in intents:
            kept = intent.quantity * (1 - RULES.fee)
            held = portfolio(positions=(position("A", at(0), str(kept)),))
            assert [i.side for i in decided({}, {"A": 0.8}, held, limits=limits)] == ["sell"]
    for units, buys in (("199.5", 1), ("199.50000001", 0)):  # what a fee in the token leaves of 200
        assert len(decided({"A": 0.7}, {"A": 1.0}, limits={"A": OrderLimits(min_quantity=Decimal(units))})) == buys


# Exits


@pytest.mark.parametrize(("age", "leaves"), [(119, False), (120, True), (121, True)])
def test_an_exit_is_decided_exactly_five_days_after_the_entry(age: int, leaves: bool) -> None:
    intents = decided({}, {"A": 25.0}, portfolio(positions=(position("A", at(200 - age)),)))
    assert [intent.purpose for intent in intents] == ["exit"] * leaves
    for intent in intents:
        assert (intent.side, intent.quantity, intent.position) == ("sell", Decimal(10), "id-A")
        assert (intent.price, intent.limit) == (Decimal(25), Decimal("23.75"))
        assert intent.reason.startswith("exit 120 hours after the entry was decided at 2024-03-0")


def test_an_exit_without_a_price_refers_to_the_last_one_and_is_ordered_once() -> None:
    old = position("A", at(0))
    [intent] = decided({}, {}, portfolio(positions=(old,)))
    assert (intent.price, intent.limit) == (Decimal(20), Decimal(19))
    for status in ("intent", "sending", "unknown", "accepted", "cancelling"):
        held = portfolio(positions=(old,), open_orders=(waiting(sale("A"), status),))
        assert decision({}, {"A": 1.0}, held) == Decision((), ())


@pytest.mark.parametrize(
    ("price", "why"),
    [
        (17.99, "stop-loss at -10%: 17.99 USD against 20 USD at the entry"),
        (18.0, "stop-loss at -10%"),
        (18.01, None),
        (23.99, None),
        (24.0, "take-profit at +20%: 24.0 USD against 20 USD at the entry"),
        (30.0, "take-profit"),
    ],
)
def test_take_profit_and_stop_loss_leave_at_their_price(price: float, why: str | None) -> None:
    rules = replace(RULES, take_profit=Decimal("0.20"), stop_loss=Decimal("0.10"))
    held = portfolio(positions=(position("A"),))
    intents = decided({}, {"A": price}, held, rules=rules)
    assert len(intents) == (why is not None)
    assert all(intent.reason.startswith(str(why)) for intent in intents)
    assert decided({}, {"A": price}, held) == []  # both are off unless they are set
    assert decided({}, {"A": price}, held, HealthState.HALTED, rules) == []  # no price is believed


def test_a_halted_market_sells_what_is_due_at_the_last_believed_price() -> None:
    held = portfolio(positions=(position("A", at(0)), position("B", at(100))))
    [intent] = decided({}, {"A": 1.0, "B": 1.0}, held, HealthState.HALTED)
    assert (intent.token, intent.price) == ("A", Decimal(20))


@pytest.mark.parametrize(("hours", "leaves"), [(1, False), (23, False), (24, True), (60, True)])
def test_a_token_that_vanished_is_left_once_it_is_back(hours: int, leaves: bool) -> None:
    away = replace(position("A", at(130)), unpriced=hours - 1)
    held = portfolio(positions=(away,))
    intents = decided({}, {"A": 9.0}, held)
    assert [(i.purpose, i.price) for i in intents] == [("exit", Decimal(9))] * leaves
    assert all(f"after {hours - 1} hours without a believed one" in intent.reason for intent in intents)
    assert decided({}, {}, held) == []


def test_an_exit_sells_what_the_venue_can_sell() -> None:
    held = portfolio(positions=(position("A", at(0), "10.057"),))
    coarse = OrderLimits(quantity_step=Decimal("0.02"), price_step=Decimal("0.3"))
    [intent] = decided({}, {"A": 25.0}, held, limits={"A": coarse})
    assert (intent.quantity, intent.limit) == (Decimal("10.04"), Decimal("23.7"))  # of 23.75
    [intent] = decided({}, {"A": 0.5}, held, limits={"A": replace(coarse, price_step=Decimal("0.5"))})
    assert intent.limit == Decimal("0.5")  # a limit of 0 would be none


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ({"A": OrderLimits(min_value=Decimal(190))}, None),
        ({"A": OrderLimits(min_value=Decimal("190.01"))}, RefusalCode.BELOW_MINIMUM),
        ({"A": OrderLimits(min_quantity=Decimal(10))}, None),
        ({"A": OrderLimits(min_quantity=Decimal("10.01"))}, RefusalCode.BELOW_MINIMUM),
        ({"A": OrderLimits(quantity_step=Decimal(11))}, RefusalCode.BELOW_MINIMUM),
        ({}, RefusalCode.NOT_TRADED),
    ],
)
def test_an_exit_that_the_venue_cannot_take_is_refused_by_name(
    limits: dict[str, OrderLimits], code: RefusalCode | None
) -> None:
    result = decision({}, {"A": 20.0}, portfolio(positions=(position("A", at(0)),)), limits=limits)
    assert len(result.intents) == (code is None)
    assert [(each.token, each.code) for each in result.refusals] == ([("A", code)] if code else [])
    assert all(each.reason.startswith("exit 120 hours after") for each in result.refusals)


def test_an_exit_waits_until_the_rest_of_its_entry_has_ended() -> None:
    held = portfolio(positions=(position("A", at(0)),), open_orders=(waiting(order("A"), "unknown", filled=3),))
    assert decided({}, {"A": 20.0}, held) == []
    assert refused({}, {"A": 20.0}, held) == {"A": RefusalCode.ENTRY_OPEN}


def test_a_token_has_one_exit_an_hour_even_if_dust_became_a_position_again() -> None:
    dust = position("A", at(0), quantity=1, order_id="id-old")
    held = portfolio(positions=(dust, position("A", at(10))))
    assert [intent.position for intent in decided({}, {"A": 20.0}, held)] == ["id-old"]
    limits = {"A": OrderLimits(min_value=Decimal(50))}  # what cannot be sold does not stand in the way
    assert [intent.position for intent in decided({}, {"A": 20.0}, held, limits=limits)] == ["id-A"]


# Orders that are outdated


def ended(
    held: Portfolio, quotes: Prices, hour: datetime = NOW, rules: TradingRules = RULES, blocks: Sequence[str] = ()
) -> dict[str, str]:
    found = outdated(held, read_quotes(prices(quotes), hour), rules, hour, blocks)
    return {each.order.order_id: reason for each, reason in found}


@pytest.mark.parametrize(("hours", "ends"), [(0, False), (5, False), (6, True), (7, True)])
def test_an_entry_is_cancelled_when_it_has_waited_six_hours(hours: int, ends: bool) -> None:
    held = portfolio(open_orders=(waiting(order("A", hour=at(200 - hours))),))
    expected = {"id-A": "not filled within 6 hours of the decision"} if ends else {}
    assert ended(held, {"A": 20.0}) == ended(held, {}) == expected


def test_an_exit_of_an_earlier_hour_is_ordered_anew_when_its_token_has_a_price() -> None:
    held = portfolio(positions=(position("A", at(0)),), open_orders=(waiting(sale("A")),))
    reason = "not filled since 2024-03-09 07:00:00; it is ordered anew at the price of 2024-03-09 08:00:00"
    assert ended(held, {"A": 15.0}) == {"exit-A": reason}
    assert ended(held, {}) == {}
    assert ended(replace(held, open_orders=(waiting(sale("A", hour=NOW)),)), {"A": 15.0}) == {}
    [intent] = decided({}, {"A": 15.0}, replace(held, open_orders=()))
    assert intent.price == 15


def test_an_exit_whose_reason_has_passed_stays_as_it_was_ordered() -> None:
    rules = replace(RULES, stop_loss=Decimal("0.1"))
    held = portfolio(positions=(position("A"),), open_orders=(waiting(sale("A")),))
    assert ended(held, {"A": 17.0}, rules=rules).keys() == {"exit-A"}
    assert ended(held, {"A": 19.0}, rules=rules) == {}


def test_an_exit_with_nothing_left_to_sell_is_cancelled() -> None:
    held = portfolio(open_orders=(waiting(sale("A"), filled=9),))
    assert ended(held, {}) == {"exit-A": "nothing that could be sold is left of the position"}


def test_the_rest_of_an_entry_is_cancelled_when_its_position_is_to_be_left() -> None:
    rules = replace(RULES, stop_loss=Decimal("0.1"))
    held = portfolio(positions=(position("A"),), open_orders=(waiting(order("A"), filled=4),))
    assert ended(held, {"A": 20.0}, rules=rules) == {}
    assert ended(held, {"A": 17.0}, rules=rules)["id-A"].startswith("what it bought so far is to be left: stop-loss")


def test_a_block_cancels_waiting_entries_and_no_exit() -> None:
    held = portfolio(positions=(position("B"),), open_orders=(waiting(order("A")), waiting(sale("B"))))
    assert ended(held, {"A": 20.0, "B": 20.0}, blocks=["halted by Ann", "and by Bob"]) == {
        "id-A": "halted by Ann; and by Bob"
    }


@pytest.mark.parametrize("status", ["intent", "sending", "unknown", "cancelling"])
def test_an_order_that_the_venue_is_not_known_to_have_is_never_cancelled(status: Status) -> None:
    old = (waiting(order("A", hour=at(0)), status), waiting(sale("B", hour=at(0)), status))
    held = portfolio(positions=(position("B", at(0)),), open_orders=old)
    assert ended(held, {"A": 1.0, "B": 1.0}, blocks=["halted"]) == {}


# Guards and identities


@pytest.mark.parametrize(("equity", "blocks"), [("10000", False), ("7500.01", False), ("7500", True), ("0", True)])
def test_a_drawdown_blocks_from_its_limit_on(equity: str, blocks: bool) -> None:
    reason = drawdown_block(Decimal(equity), Decimal(10_000), RULES)
    assert (reason is not None) == blocks
    if reason is not None:
        assert "25% or more from its peak of 10,000.00 USD" in reason
    assert drawdown_block(Decimal(equity), Decimal(10_000), replace(RULES, max_drawdown=None)) is None


def test_the_identity_of_an_order_is_what_must_be_unique_and_nothing_else() -> None:
    base = order("A")
    same = [replace(base, quantity=Decimal(1)), replace(base, model_hash="m2"), replace(base, probability=0.1)]
    same += [replace(base, limit=Decimal(1)), replace(base, price=Decimal(1))]
    assert {order_id("paper", each) for each in [base, *same]} == {order_id("paper", base)}
    others = [replace(base, hour=at(1)), replace(base, token="B"), replace(base, side="sell", purpose="exit")]
    assert len({order_id("paper", each) for each in [base, *others]} | {order_id("real", base)}) == 5
    assert order_id("paper", replace(base, hour=at(0), token="SOL-5426")) == "68e053fdbfaa38282e36b63968d605ee"


# Input


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("timestamp", pd.Timestamp(at(199)), "another hour"),
        ("token", "PASS-0", "PASS-0 appears twice"),
        ("probability", float("nan"), "A says buy without a probability"),
        ("probability", 1.5, "A says buy without a probability"),
    ],
)
def test_faulty_predictions_are_refused(column: str, value: Any, message: str) -> None:
    frame = predictions(NOW, {"A": 0.7})
    frame.loc[0, column] = value
    with pytest.raises(DataError, match=message):
        read_signals(frame, NOW)


@pytest.mark.parametrize("price", [0.0, -1.0, float("nan"), float("inf")])
def test_a_price_that_is_no_positive_number_is_refused(price: float) -> None:
    with pytest.raises(DataError, match="B has price"):
        read_quotes(prices({"A": 1.0, "B": price}), NOW)


@pytest.mark.parametrize("volume", [-1.0, float("inf")])
def test_a_volume_that_is_no_amount_is_refused(volume: float) -> None:
    with pytest.raises(DataError, match=r"B has price 1\.0 and volume"):
        read_quotes(prices({"B": (1.0, volume)}), NOW)


def test_two_prices_of_one_token_are_refused() -> None:
    with pytest.raises(DataError, match="A appears twice"):
        read_quotes(pd.concat([prices({"A": 1.0}), prices({"A": 2.0})]), NOW)


# Properties

TOKENS = "ABCDEFGH"
amounts = st.decimals("0.01", 20_000, places=2)
hours = st.integers(0, 200)
steps = st.sampled_from(["0.00000001", "0.001", "1", "25"]).map(Decimal)
venue_limits = st.builds(
    OrderLimits,
    quantity_step=steps,
    price_step=st.none() | st.sampled_from(["0.000001", "0.01", "5"]).map(Decimal),
    min_quantity=st.sampled_from(["0", "0.5", "100"]).map(Decimal),
    min_value=st.sampled_from(["0", "5", "50"]).map(Decimal),
)
statuses: st.SearchStrategy[Status] = st.sampled_from(["intent", "sending", "unknown", "accepted", "cancelling"])


@st.composite
def positions(draw: st.DrawFn, token: str) -> Position:
    return position(
        token, at(draw(hours)), str(draw(amounts)), str(draw(st.decimals("0.01", 100, places=2))), at(draw(hours))
    )


@st.composite
def portfolios(draw: st.DrawFn) -> Portfolio:
    """Some tokens held, some with an open entry, partly filled or not, some being sold."""
    held, open_orders = [], []
    for token in TOKENS:
        kind = draw(st.sampled_from(["none", "none", "none", "held", "selling", "waiting", "part"]))
        status, age = draw(statuses), at(draw(hours))
        if kind in ("held", "selling", "part"):
            held.append(draw(positions(token)))
        if kind in ("waiting", "part"):
            open_orders.append(waiting(order(token, hour=age), status, filled=4 if kind == "part" else 0))
        if kind == "selling":
            open_orders.append(waiting(sale(token, hour=age), status))
    left = draw(st.dictionaries(st.sampled_from(TOKENS), hours.map(at), max_size=3))
    return portfolio(str(draw(amounts)), tuple(held), tuple(open_orders), left)


rule_sets = st.builds(
    lambda places, fraction, floor, early: replace(
        RULES, max_positions=places, order_fraction=fraction, cash_floor=floor, take_profit=early, stop_loss=early
    ),
    st.integers(1, 6),
    st.sampled_from(["0.02", "0.3", "1"]).map(Decimal),
    st.sampled_from(["0", "0.1", "0.9"]).map(Decimal),
    st.none() | st.just(Decimal("0.1")),
)
quotes_of_an_hour = st.builds(
    Quote,
    st.floats(1e-9, 1e5).map(lambda price: Decimal(repr(price))),
    st.floats(0, 1e9).map(lambda volume: Decimal(repr(volume))) | st.none(),
)
markets = st.dictionaries(st.sampled_from(TOKENS), quotes_of_an_hour, min_size=3)
signal_sets = st.permutations(TOKENS).flatmap(
    lambda tokens: st.integers(0, len(tokens)).map(lambda n: [Signal(token, 0.7, 0.6, "m1") for token in tokens[:n]])
)
limit_sets = st.dictionaries(st.sampled_from(TOKENS), venue_limits, min_size=5)
healths = st.sampled_from([HealthState.ACTIVE, HealthState.ACTIVE, HealthState.REDUCE_ONLY, HealthState.HALTED])


def cost(quantity: Decimal, limit: Decimal, rules: TradingRules) -> Decimal:
    return paid(quantity, limit) + fee_on(paid(quantity, limit), rules.fee)


@given(held=portfolios(), buys=signal_sets, quotes=markets, limits=limit_sets, rules=rule_sets)
def test_no_limit_is_ever_exceeded(
    held: Portfolio,
    buys: list[Signal],
    quotes: dict[str, Quote],
    limits: dict[str, OrderLimits],
    rules: TradingRules,
) -> None:
    result = decide(held, buys, quotes, limits, HealthState.ACTIVE, (), rules, NOW)
    entries = [intent for intent in result.intents if intent.purpose == "entry"]
    equity = held.cash + sum(
        received(each.quantity, quotes[each.token].price if each.token in quotes else each.mark.price)
        for each in held.positions
    )
    open_entries = [each for each in held.open_orders if each.order.side == "buy"]
    tokens = {each.token for each in held.positions} | {each.order.token for each in open_entries}
    assert not entries or len(tokens) + len(entries) <= rules.max_positions
    for intent in entries:
        known, volume = limits[intent.token], quotes[intent.token].volume
        value = times(intent.quantity, intent.price)
        assert volume is not None
        assert RULES.min_order <= value <= volume * rules.max_volume_share
        assert value <= equity * rules.order_fraction
        assert value >= known.min_value
        assert intent.quantity >= known.min_quantity
        assert intent.quantity % known.quantity_step == 0
        assert known.price_step is None or intent.limit % known.price_step == 0
        assert 0 < intent.limit <= times(intent.price, 1 + rules.max_price_move)
        assert intent.token not in held.left or held.left[intent.token] + rules.cooldown <= NOW
    reserved = sum(cost(each.remaining, each.order.limit, rules) for each in open_entries)
    left = held.cash - reserved - sum(cost(intent.quantity, intent.limit, rules) for intent in entries)
    assert not entries or left >= equity * rules.cash_floor


@given(held=portfolios(), buys=signal_sets, quotes=markets, limits=limit_sets, rules=rule_sets, health=healths)
def test_a_token_has_one_order_at_most_and_every_buy_signal_an_answer(
    held: Portfolio,
    buys: list[Signal],
    quotes: dict[str, Quote],
    limits: dict[str, OrderLimits],
    rules: TradingRules,
    health: HealthState,
) -> None:
    result = decide(held, buys, quotes, limits, health, (), rules, NOW)
    tokens = [intent.token for intent in result.intents]
    assert len(set(tokens)) == len(tokens)
    assert not set(tokens) & {each.order.token for each in held.open_orders}
    entered = {intent.token for intent in result.intents if intent.purpose == "entry"}
    assert not entered & {each.token for each in held.positions}
    of_exits = {each.token for each in held.positions}
    no_entry = (RefusalCode.HELD, RefusalCode.NO_ENTRIES)
    answers = [each.token for each in result.refusals if each.token not in of_exits or each.code in no_entry]
    assert sorted([*entered, *answers]) == sorted(signal.token for signal in buys)
    for intent in result.intents:
        if intent.purpose == "exit":
            [sold] = [each for each in held.positions if each.token == intent.token]
            step = limits[intent.token].quantity_step
            assert sold.quantity - step < intent.quantity <= sold.quantity
            assert intent.quantity % step == 0
            assert intent.limit > 0


@given(held=portfolios(), buys=signal_sets, quotes=markets, limits=limit_sets, rules=rule_sets, data=st.data())
def test_the_order_of_its_mappings_changes_no_decision(
    held: Portfolio,
    buys: list[Signal],
    quotes: dict[str, Quote],
    limits: dict[str, OrderLimits],
    rules: TradingRules,
    data: st.DataObject,
) -> None:
    def shuffled(mapping: Any) -> Any:
        return dict(data.draw(st.permutations(list(mapping.items()))))

    expected = decide(held, buys, quotes, limits, HealthState.ACTIVE, (), rules, NOW)
    again = replace(held, left=shuffled(held.left))
    assert decide(again, buys, shuffled(quotes), shuffled(limits), HealthState.ACTIVE, (), rules, NOW) == expected


@given(held=portfolios(), quotes=markets, rules=rule_sets)
def test_only_orders_that_the_venue_has_are_cancelled_and_each_once(
    held: Portfolio, quotes: dict[str, Quote], rules: TradingRules
) -> None:
    found = [each for each, _ in outdated(held, quotes, rules, NOW)]
    assert len({each.order.order_id for each in found}) == len(found)
    for each in held.open_orders:
        old_entry = each.order.purpose == "entry" and NOW - each.order.hour >= 6 * HOUR
        if each.status != "accepted":
            assert each not in found
        elif old_entry:
            assert each in found
