"""Venue against ledger, in both directions."""

from dataclasses import replace
from decimal import Decimal

import pytest

from breakout_assets.trading.orders import Balances, VenueOrder
from breakout_assets.trading.portfolio import Portfolio
from breakout_assets.trading.reconcile import TOLERANCE, balance_differences, differences, expected_balances
from breakout_assets_tests.trading.support import at

PORTFOLIO = Portfolio(
    account="live",
    hour=at(0),
    cash=Decimal("100.10"),
    positions=(),
    open_orders=(),
    realised_profit=Decimal(0),
    fees=Decimal(0),
    units={"A": Decimal(2), "B": Decimal("0.5")},
)
EXPECTED = {"USD": Decimal("100.10"), "A": Decimal(2), "B": Decimal("0.5")}
AGREED = Balances(Decimal("100.10"), {"A": Decimal(2), "B": Decimal("0.5")})
OURS = VenueOrder(venue_id="v1", order_id="o1", token="A", description="sell 2 A at 3")


def test_the_venue_must_hold_the_cash_the_units_and_what_lies_beside() -> None:
    assert expected_balances(PORTFOLIO) == EXPECTED
    beside = {"USD": Decimal(5), "A": Decimal("0.75"), "Z": Decimal(7)}
    assert expected_balances(replace(PORTFOLIO, beside=beside)) == {
        "USD": Decimal("105.10"),
        "A": Decimal("2.75"),
        "B": Decimal("0.5"),
        "Z": 7,
    }


def test_what_agrees_has_no_differences() -> None:
    assert differences(EXPECTED, AGREED, [OURS], {"o1", "o2"}) == ()


@pytest.mark.parametrize(
    ("balances", "sentence"),
    [
        (replace(AGREED, cash=Decimal("100.11")), "the venue holds 0.01 USD more than the ledger says"),
        (replace(AGREED, cash=Decimal(100)), "the venue holds 0.10 USD less than the ledger says"),
        (
            replace(AGREED, tokens={**AGREED.tokens, "A": Decimal("1.5")}),
            "the venue holds 0.5 A less than the ledger says",
        ),
        (replace(AGREED, tokens={"A": Decimal(2)}), "the venue holds 0.5 B less than the ledger says"),
        (
            replace(AGREED, tokens={**AGREED.tokens, "Z": Decimal("0.0000001")}),
            "the venue holds 0.0000001 Z more than the ledger says",
        ),
    ],
)
def test_each_balance_that_differs_is_a_sentence_whichever_side_holds_more(balances: Balances, sentence: str) -> None:
    assert differences(EXPECTED, balances, [], set()) == (sentence,)


@pytest.mark.parametrize("sign", [1, -1])
def test_one_unit_of_the_eighth_place_is_no_difference_and_two_are(sign: int) -> None:
    for item in ("USD", "A", "Z"):
        for units in (1, 2):
            off = sign * units * TOLERANCE
            held = {**EXPECTED, item: EXPECTED.get(item, Decimal(0)) + off}
            balances = Balances(held.pop("USD"), held)
            assert balance_differences(EXPECTED, balances) == ({item: off} if units == 2 else {})


@pytest.mark.parametrize("order_id", [None, "somebody else's"])
def test_an_open_order_that_the_ledger_does_not_know_is_a_difference(order_id: str | None) -> None:
    foreign = replace(OURS, order_id=order_id, venue_id="v9")
    assert differences(EXPECTED, AGREED, [OURS, foreign], {"o1"}) == (
        "the venue has an open order that this account does not know: sell 2 A at 3 (v9)",
    )


def test_an_order_that_the_ledger_has_ended_and_the_venue_has_open_is_a_difference() -> None:
    [sentence] = differences(EXPECTED, AGREED, [OURS], set())
    assert "(v1)" in sentence


def test_orders_come_before_balances() -> None:
    told = differences(EXPECTED, Balances(Decimal(0)), [replace(OURS, order_id=None)], set())
    assert [sentence.split()[2] for sentence in told] == ["has", "holds", "holds", "holds"]


@pytest.mark.parametrize(("trades", "beyond"), [(0, 1), (9, 10)])
def test_each_trade_may_be_rounded_at_the_venue(trades: int, beyond: int) -> None:
    for amount, told in ((TOLERANCE * beyond, 0), (TOLERANCE * beyond + TOLERANCE / 2, 1)):
        held = replace(AGREED, cash=AGREED.cash - amount)
        assert len(balance_differences(EXPECTED, held, trades)) == told
        assert len(differences(EXPECTED, held, [], set(), trades)) == told
