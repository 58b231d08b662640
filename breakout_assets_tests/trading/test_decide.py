"""The pure decision: which orders, of what size, and what is refused as input."""

from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from breakout_assets.errors import DataError
from breakout_assets.market.health import HealthState
from breakout_assets.trading.decide import decide, order_id, read_quotes, read_signals
from breakout_assets.trading.money import times
from breakout_assets.trading.portfolio import Fill, Mark, Order, OrderIntent, Portfolio, Position
from breakout_assets.trading.rules import TradingRules
from breakout_assets_tests.trading.support import RULES, Prices, at, predictions, prices

NOW, LAST_HOUR = at(200), at(199)


def order(token: str, **fields: Any) -> Order:
    values: dict[str, Any] = {
        "order_id": f"id-{token}",
        "hour": LAST_HOUR,
        "token": token,
        "side": "buy",
        "purpose": "entry",
        "quantity": Decimal(10),
        "price": Decimal(20),
        "reason": "r",
        "position": None,
        "model_hash": None,
        "probability": 0.7,
    }
    return Order(**values | fields)


def position(token: str, decided: datetime = LAST_HOUR, quantity: int = 10, price: int = 20) -> Position:
    fill = Fill(
        order_id=f"id-{token}",
        side="buy",
        hour=decided,
        price=Decimal(price),
        quantity=Decimal(quantity),
        fee=Decimal(0),
    )
    mark = Mark(price=Decimal(price), hour=decided)
    return Position(order_id=f"id-{token}", token=token, decided_hour=decided, fill=fill, mark=mark)


def portfolio(
    cash: int = 10_000, positions: tuple[Position, ...] = (), open_orders: tuple[Order, ...] = ()
) -> Portfolio:
    return Portfolio(
        account="paper",
        hour=NOW,
        cash=Decimal(cash),
        positions=positions,
        open_orders=open_orders,
        realised_profit=Decimal(0),
        fees=Decimal(0),
    )


def decided(
    buys: dict[str, float],
    quotes: Prices,
    held: Portfolio | None = None,
    health: HealthState = HealthState.ACTIVE,
    rules: TradingRules = RULES,
) -> list[OrderIntent]:
    signals, believed = read_signals(predictions(NOW, buys), NOW), read_quotes(prices(quotes), NOW)
    return decide(held or portfolio(), signals, believed, health, rules, NOW)


def test_an_entry_is_a_share_of_equity_at_the_reference_price() -> None:
    [intent] = decided({"A": 0.7}, {"A": 4.0}, portfolio(9_000, (position("B", quantity=50),)))
    assert (intent.token, intent.side, intent.purpose) == ("A", "buy", "entry")
    assert intent.quantity == Decimal("0.02") * (9_000 + 50 * 20) / 4
    assert intent.price == 4
    assert (intent.probability, intent.model_hash, intent.position) == (0.7, "m1", None)
    assert intent.reason == "probability 0.7000 reaches the threshold 0.6000; 2% of equity"


def test_entries_come_best_first_and_ties_by_token() -> None:
    quotes = {"C": 1.0, "B": 1.0, "A": 1.0, "D": 1.0}
    intents = decided({"B": 0.7, "A": 0.7, "C": 0.9, "D": 0.61}, quotes)
    assert [intent.token for intent in intents] == ["C", "A", "B", "D"]


@pytest.mark.parametrize("health", [HealthState.REDUCE_ONLY, HealthState.HALTED])
def test_entries_are_made_in_an_active_market_only_and_exits_always(health: HealthState) -> None:
    held = portfolio(positions=(position("B", at(80)),))
    assert [i.side for i in decided({"A": 0.9}, {"A": 1.0, "B": 1.0}, held, HealthState.ACTIVE)] == ["sell", "buy"]
    assert [i.side for i in decided({"A": 0.9}, {"A": 1.0, "B": 1.0}, held, health)] == ["sell"]


def test_a_token_that_is_held_or_waits_is_not_bought_again() -> None:
    held = portfolio(positions=(position("A"),), open_orders=(order("B"),))
    intents = decided({"A": 0.9, "B": 0.8, "C": 0.7}, {"A": 1.0, "B": 1.0, "C": 1.0}, held)
    assert [intent.token for intent in intents] == ["C"]


def test_positions_and_waiting_entries_fill_the_places_and_a_waiting_exit_frees_none() -> None:
    rules = replace(RULES, max_positions=4)
    exit_of_a = order("A", side="sell", purpose="exit", position="id-A")
    held = portfolio(positions=(position("A"),), open_orders=(order("B"), exit_of_a))
    quotes = {"C": 1.0, "D": 1.0, "E": 1.0}
    assert [i.token for i in decided({"C": 0.9, "D": 0.8, "E": 0.7}, quotes, held, rules=rules)] == ["C", "D"]
    assert decided({"C": 0.9}, quotes, held, rules=replace(rules, max_positions=2)) == []


def test_an_entry_takes_at_most_a_thousandth_of_the_daily_volume() -> None:
    [intent] = decided({"A": 0.7}, {"A": (2.0, 50_000.0)})
    assert intent.quantity * 2 == 50
    assert "limited to 0.1% of the 24-hour volume" in intent.reason


def test_an_unknown_volume_or_price_buys_nothing() -> None:
    assert decided({"A": 0.7}, {"A": (2.0, None)}) == []
    assert decided({"A": 0.7}, {"B": 2.0}) == []


def test_the_smallest_order_is_a_limit_from_both_sides() -> None:
    assert decided({"A": 0.7}, {"A": (1.0, 9_999.0)}) == []
    assert len(decided({"A": 0.7}, {"A": (1.0, 10_000.0)})) == 1


def test_one_order_too_small_does_not_stop_the_next() -> None:
    assert [i.token for i in decided({"A": 0.9, "B": 0.8}, {"A": (1.0, 5.0), "B": 1.0})] == ["B"]


def test_free_cash_is_what_waiting_entries_leave_with_their_costs() -> None:
    # 10 x 20 x 1.005 x 1.0025 = 201.5025 are reserved; 98.4975 are left, and the order's own costs come out of it.
    [intent] = decided({"A": 0.7}, {"A": 1.0}, portfolio(300, (position("B", quantity=500),), (order("C"),)))
    assert "limited by the free cash" in intent.reason
    cost = intent.quantity * Decimal("1.005") * Decimal("1.0025")
    assert Decimal("98.497499") < cost <= Decimal("98.4975")


def test_each_entry_of_an_hour_leaves_less_for_the_next() -> None:
    rules = replace(RULES, order_fraction=Decimal("0.4"))
    intents = decided({"A": 0.9, "B": 0.8, "C": 0.7}, {"A": 1.0, "B": 1.0, "C": 1.0}, rules=rules)
    assert [round(intent.quantity) for intent in intents] == [4000, 4000, 1925]
    total = sum(intent.quantity for intent in intents) * Decimal("1.005") * Decimal("1.0025")
    assert Decimal("9999.999") < total <= 10_000


def test_quantities_are_rounded_down_to_eight_places() -> None:
    [intent] = decided({"A": 0.7}, {"A": 60_000.0})
    assert intent.quantity == Decimal("0.00333333")


@pytest.mark.parametrize(("age", "leaves"), [(119, False), (120, True), (121, True)])
def test_an_exit_is_decided_exactly_five_days_after_the_entry(age: int, leaves: bool) -> None:
    intents = decided({}, {"A": 25.0}, portfolio(positions=(position("A", at(200 - age)),)))
    assert [intent.purpose for intent in intents] == ["exit"] * leaves
    for intent in intents:
        assert (intent.side, intent.quantity, intent.position) == ("sell", Decimal(10), "id-A")
        assert intent.price == 25


def test_an_exit_without_a_price_refers_to_the_last_one_and_is_submitted_once() -> None:
    old = position("A", at(0))
    [intent] = decided({}, {}, portfolio(positions=(old,)))
    assert intent.price == 20
    waiting = order("A", side="sell", purpose="exit", position="id-A")
    assert decided({}, {}, portfolio(positions=(old,), open_orders=(waiting,))) == []


def test_the_identity_of_an_order_is_what_must_be_unique_and_nothing_else() -> None:
    base = order("A")
    same = [replace(base, quantity=Decimal(1)), replace(base, model_hash="m2"), replace(base, probability=0.1)]
    assert {order_id("paper", each) for each in [base, *same]} == {order_id("paper", base)}
    others = [replace(base, hour=at(1)), replace(base, token="B"), replace(base, side="sell", purpose="exit")]
    assert len({order_id("paper", each) for each in [base, *others]} | {order_id("real", base)}) == 5
    assert order_id("paper", replace(base, hour=at(0), token="SOL-5426")) == "68e053fdbfaa38282e36b63968d605ee"


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


@given(
    cash=st.integers(0, 20_000),
    quotes=st.dictionaries(
        st.sampled_from("ABCDEFGH"), st.tuples(st.floats(1e-9, 1e5), st.floats(0, 1e9) | st.none()), min_size=1
    ),
    probabilities=st.lists(st.floats(0.5, 1), min_size=8, max_size=8),
    places=st.integers(1, 5),
)
def test_no_limit_is_ever_exceeded(
    cash: int, quotes: dict[str, tuple[float, float | None]], probabilities: list[float], places: int
) -> None:
    buys = dict(zip("ABCDEFGH", probabilities, strict=True))
    rules = replace(RULES, max_positions=places, order_fraction=Decimal("0.3"))
    held = portfolio(cash, (position("H"),))
    intents = decided(buys, quotes, held, rules=rules)
    assert len(intents) <= max(places - 1, 0)
    assert len({intent.token for intent in intents} | {"H"}) == len(intents) + 1
    cost = Decimal(0)
    for intent in intents:
        volume = quotes[intent.token][1]
        assert volume is not None
        value = times(intent.quantity, intent.price)
        assert 10 <= value <= Decimal(volume) * rules.max_volume_share + Decimal("0.00000001")
        assert value <= held.equity * rules.order_fraction
        cost += value * (1 + rules.slippage) * (1 + rules.fee)
    assert cost <= cash
