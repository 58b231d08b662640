"""Properties of whole trading histories: money is neither made nor lost by the bookkeeping."""

import tempfile
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from breakout_assets.trading.hourly import HourResult
from breakout_assets.trading.money import MONEY_STEP, received, times
from breakout_assets.trading.rules import TradingRules
from breakout_assets_tests.trading.support import FREE_OF_COST, RULES, Account, at

MEMORY = Path("/dev/shm")  # noqa: S108  thousands of hours, each of which waits for the disk twice
TOKENS = ("A", "B", "C", "D")
QUOTES = st.dictionaries(
    st.sampled_from(TOKENS),
    st.tuples(st.floats(1e-9, 1e5, allow_subnormal=False), st.sampled_from([None, 1e4, 1e6, 1e9])),
)
BUYS = st.dictionaries(st.sampled_from(TOKENS), st.floats(0.6, 1))
Hour = tuple[int, dict[str, float], dict[str, tuple[float, float | None]], str]
HOURS = st.tuples(
    st.integers(1, 8), BUYS, QUOTES, st.sampled_from(["ACTIVE", "ACTIVE", "ACTIVE", "REDUCE_ONLY", "HALTED"])
)
# Short positions and large orders, so that a dozen hours see exits, lack of cash and full portfolios.
BUSY_RULES = replace(RULES, order_fraction=Decimal("0.45"), max_positions=3, horizon=timedelta(hours=4))


def play(rules: TradingRules, hours: list[Hour]) -> list[HourResult]:
    """Trade these hours, each so many hours after the one before it, and at the end tell each again."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        account, hour, results = Account(Path(folder), rules), 0, {}
        for step, buys, quotes, health in hours:
            hour += step
            results[hour] = account.trade(hour, buys, quotes, health)
        assert {each: account.trade(each, dict.fromkeys(TOKENS, 1.0)) for each in results} == results
        return list(results.values())


@given(hours=st.lists(HOURS, min_size=4, max_size=12))
@settings(max_examples=15, deadline=None)
def test_in_every_hour_of_any_history_cash_positions_and_profits_agree(hours: list[Hour]) -> None:
    filled = []
    cash = BUSY_RULES.cash
    for result in play(BUSY_RULES, hours):
        portfolio = result.portfolio
        fills = [fill for _, fill in result.filled]
        filled += fills
        cash += sum((fill.cash_flow for fill in fills), Decimal(0))
        assert portfolio.cash == cash >= 0
        assert portfolio.fees == sum((fill.fee for fill in filled), Decimal(0))
        assert portfolio.equity - BUSY_RULES.cash == portfolio.realised_profit + sum(
            (position.profit for position in portfolio.positions), Decimal(0)
        )
        held = [position.token for position in portfolio.positions]
        waiting = [order.token for order in portfolio.open_orders if order.side == "buy"]
        assert len(held + waiting) == len(set(held + waiting)) <= BUSY_RULES.max_positions
        exits = [order.position for order in portfolio.open_orders if order.side == "sell"]
        assert len(exits) == len(set(exits))
        assert set(exits) <= {position.order_id for position in portfolio.positions}
        assert all(order.hour < fill.hour == result.hour for order, fill in result.filled)


@given(
    hours=st.lists(st.tuples(st.just(1), BUYS, st.just({}), st.just("ACTIVE")), min_size=4, max_size=12),
    quotes=st.fixed_dictionaries({token: st.floats(1e-9, 1e5).map(lambda price: (price, 1e9)) for token in TOKENS}),
)
@settings(max_examples=12, deadline=None)
def test_at_constant_prices_closed_trades_lose_exactly_fees_and_slippage(
    hours: list[Hour], quotes: dict[str, tuple[float, float | None]]
) -> None:
    # Seven hours more close every position: four to the exit, one to its fill, two to spare.
    idle: list[Hour] = [(1, {}, quotes, "ACTIVE")] * 7
    results = play(BUSY_RULES, [(step, buys, quotes, health) for step, buys, _, health in hours] + idle)
    last = results[-1].portfolio
    assert (last.positions, last.open_orders) == ((), ())
    fills = [pair for result in results for pair in result.filled]
    slippage = sum((times(times(fill.quantity, order.price), BUSY_RULES.slippage) for order, fill in fills), Decimal(0))
    change = last.equity - BUSY_RULES.cash
    assert change == last.realised_profit
    assert abs(change + last.fees + slippage) <= len(fills) * MONEY_STEP  # a fill is rounded by less than one step


@given(hours=st.lists(HOURS, min_size=4, max_size=12), prices=st.lists(st.floats(0.01, 100), min_size=20, max_size=20))
@settings(max_examples=8, deadline=None)
def test_without_costs_equity_moves_only_with_prices(hours: list[Hour], prices: list[float]) -> None:
    rules = replace(FREE_OF_COST, order_fraction=Decimal("0.45"), max_positions=3, horizon=timedelta(hours=4))
    moved: list[Hour] = [
        (1, buys, dict.fromkeys(TOKENS, (price, 1e9)), "ACTIVE")
        for (_, buys, _, _), price in zip(hours, prices, strict=False)
    ]
    results = play(rules, moved)
    for before, after in pairwise(results):
        gain = sum(
            (
                received(position.quantity, _price(after, position.token, moved)) - position.value
                for position in before.portfolio.positions
            ),
            Decimal(0),
        )
        assert abs(after.portfolio.equity - before.portfolio.equity - gain) <= 8 * MONEY_STEP


def _price(result: HourResult, token: str, moved: list[Hour]) -> Decimal:
    index = int((result.hour - at(1)) / timedelta(hours=1))
    return Decimal(repr(moved[index][2][token][0]))


@given(hours=st.lists(st.tuples(st.integers(1, 8), st.just({}), QUOTES, st.just("ACTIVE")), min_size=1, max_size=8))
@settings(max_examples=4, deadline=None)
def test_no_signals_are_a_flat_line(hours: list[Hour]) -> None:
    assert {result.portfolio.equity for result in play(RULES, hours)} == {RULES.cash}
