"""Properties of whole trading histories: money is neither made nor lost by the bookkeeping."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from breakout_assets.trading.hourly import DRAWDOWN_GUARD
from breakout_assets.trading.money import MONEY_STEP, received, times
from breakout_assets.trading.orders import Fill, Order
from breakout_assets.trading.outcome import HourResult
from breakout_assets.trading.paper import PaperBroker
from breakout_assets.trading.reconcile import balance_differences, expected_balances
from breakout_assets.trading.rules import TradingRules
from breakout_assets_tests.postgresserver import PostgresServer
from breakout_assets_tests.trading.support import FREE_OF_COST, RULES, Account, at

MEMORY = Path("/dev/shm")  # noqa: S108  hundreds of hours, each of which waits for the disk many times
TOKENS = ("A", "B", "C", "D")
QUOTES = st.dictionaries(
    st.sampled_from(TOKENS),
    st.tuples(st.floats(1e-9, 1e5, allow_subnormal=False), st.sampled_from([None, 1e4, 1e6, 1e9])),
)
BUYS = st.dictionaries(st.sampled_from(TOKENS), st.floats(0.6, 1))
Hour = tuple[int, dict[str, float], dict[str, tuple[float, float | None]], str]
HOURS = st.tuples(
    st.integers(1, 3), BUYS, QUOTES, st.sampled_from(["ACTIVE", "ACTIVE", "ACTIVE", "REDUCE_ONLY", "HALTED"])
)
# Prices that move by some percent, so that limits are kept sometimes and broken sometimes, and small volumes.
NEAR = st.dictionaries(
    st.sampled_from(TOKENS), st.tuples(st.floats(0.93, 1.07), st.sampled_from([None, 2e6, 2e7, 1e9])), min_size=2
)
NEAR_HOURS = st.tuples(st.just(1), BUYS, NEAR, st.sampled_from(["ACTIVE", "ACTIVE", "ACTIVE", "REDUCE_ONLY", "HALTED"]))
HISTORIES = st.lists(HOURS, min_size=4, max_size=10) | st.lists(NEAR_HOURS, min_size=6, max_size=10)
# Short positions and large orders, so that a dozen hours see exits, lack of cash and full portfolios.
BUSY_RULES = replace(
    RULES,
    order_fraction=Decimal("0.45"),
    max_positions=3,
    horizon=timedelta(hours=4),
    cooldown=timedelta(0),
    max_volume_share=Decimal("0.01"),
)


@contextmanager
def new_file() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        yield Path(folder)


def play(place: Path | str, rules: TradingRules, hours: list[Hour]) -> list[HourResult]:
    """Trade these hours, each so many hours after the one before it, and at the end tell each again."""
    account, hour, results = Account(place, rules), 0, {}
    for step, buys, quotes, health in hours:
        hour += step
        results[hour] = account.trade(hour, buys, quotes, health)
        balances = PaperBroker(account.ledger, "paper", rules).balances()
        assert balance_differences(expected_balances(results[hour].portfolio), balances) == {}
        assert all(f"halted by {DRAWDOWN_GUARD}" in block for block in results[hour].blocks)
    assert {each: account.trade(each, dict.fromkeys(TOKENS, 1.0)) for each in results} == results
    return list(results.values())


def executed(result: HourResult) -> list[tuple[Order, Fill]]:
    return [(each.order, fill) for each in result.outcomes for fill in each.fills]


def everything_agrees(results: list[HourResult]) -> None:
    filled: list[tuple[Order, Fill]] = []
    cash = BUSY_RULES.cash
    for result in results:
        portfolio = result.portfolio
        now = executed(result)
        filled += now
        cash += sum((fill.cash_flow for _, fill in now), Decimal(0))
        assert portfolio.cash == cash >= 0
        assert portfolio.fees == sum((fill.fee for _, fill in filled), Decimal(0))
        assert portfolio.equity - BUSY_RULES.cash == portfolio.realised_profit + sum(
            (position.profit for position in portfolio.positions), Decimal(0)
        )
        assert all(amount >= 0 for amount in portfolio.units.values())
        entries = {each.order.order_id for each in portfolio.open_orders if each.order.side == "buy"}
        assert len(entries | {position.order_id for position in portfolio.positions}) <= BUSY_RULES.max_positions
        exits = [each.order.position for each in portfolio.open_orders if each.order.side == "sell"]
        assert len(exits) == len(set(exits))
        assert set(exits) <= {position.order_id for position in portfolio.positions}
        for order, fill in now:
            assert order.hour < fill.hour == result.hour
            assert fill.price <= order.limit if order.side == "buy" else fill.price >= order.limit
            total = sum((each.quantity for _, each in filled if each.order_id == order.order_id), Decimal(0))
            assert 0 < total <= order.quantity


@given(hours=HISTORIES)
@settings(max_examples=8)
def test_in_every_hour_of_any_history_cash_positions_and_profits_agree(hours: list[Hour]) -> None:
    with new_file() as place:
        everything_agrees(play(place, BUSY_RULES, hours))


def test_so_they_do_on_postgres(postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", postgres_server.password)

    @given(hours=st.lists(NEAR_HOURS, min_size=6, max_size=7))
    @settings(max_examples=1)
    def check(hours: list[Hour]) -> None:
        with postgres_server.database() as place:
            everything_agrees(play(place, BUSY_RULES, hours))

    check()


@given(
    hours=st.lists(st.tuples(st.just(1), BUYS, st.just({}), st.just("ACTIVE")), min_size=3, max_size=6),
    quotes=st.fixed_dictionaries({token: st.floats(1e-9, 1e5).map(lambda price: (price, 1e9)) for token in TOKENS}),
)
@settings(max_examples=3)
def test_at_constant_prices_closed_trades_lose_exactly_fees_spread_and_slippage(
    hours: list[Hour], quotes: dict[str, tuple[float, float | None]]
) -> None:
    # Six hours more close every position: four to the exit, one to its fill, one to spare.
    idle: list[Hour] = [(1, {}, quotes, "ACTIVE")] * 6
    with new_file() as place:
        results = play(place, BUSY_RULES, [(step, buys, quotes, health) for step, buys, _, health in hours] + idle)
    last = results[-1].portfolio
    assert (last.positions, last.open_orders) == ((), ())
    fills = [pair for result in results for pair in executed(result)]
    half = BUSY_RULES.spread / 2
    lost = Decimal(0)
    for order, fill in fills:
        worse = abs(fill.price - order.price)
        assert times(order.price, half) < worse <= times(order.price, half + BUSY_RULES.slippage)
        lost += times(fill.quantity, worse)
    change = last.equity - BUSY_RULES.cash
    assert change == last.realised_profit
    assert abs(change + last.fees + lost) <= len(fills) * MONEY_STEP  # a fill is rounded by less than one step


@given(
    hours=st.lists(BUYS, min_size=5, max_size=9),
    prices=st.lists(st.floats(0.7, 1.4), min_size=9, max_size=9),
)
@settings(max_examples=3)
def test_without_costs_equity_moves_only_with_prices(hours: list[dict[str, float]], prices: list[float]) -> None:
    rules = replace(
        BUSY_RULES,
        fee=FREE_OF_COST.fee,
        spread=FREE_OF_COST.spread,
        slippage=FREE_OF_COST.slippage,
        max_price_move=Decimal("0.99"),
        max_drawdown=None,
    )
    moved: list[Hour] = [
        (1, buys, dict.fromkeys(TOKENS, (price, 1e9)), "ACTIVE") for buys, price in zip(hours, prices, strict=False)
    ]
    with new_file() as place:
        results = play(place, rules, moved)
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


@given(hours=st.lists(st.tuples(st.integers(1, 8), st.just({}), QUOTES, st.just("ACTIVE")), min_size=1, max_size=6))
@settings(max_examples=3)
def test_no_signals_are_a_flat_line(hours: list[Hour]) -> None:
    with new_file() as place:
        assert {result.portfolio.equity for result in play(place, RULES, hours)} == {RULES.cash}
