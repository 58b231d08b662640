"""A recorded week, traded as it happens, and replayed in one go."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from breakout_assets.clock import ReplayClock
from breakout_assets.trading.hourly import trade_hour
from breakout_assets.trading.ledger import Ledger
from breakout_assets.trading.paper import PaperBroker
from breakout_assets_tests.trading.support import RULES, at, predictions, prices

HOURS = 7 * 24
WEEK_RULES = replace(RULES, max_positions=5, take_profit=Decimal("0.2"), stop_loss=Decimal("0.15"))


def recorded_week() -> list[tuple[pd.DataFrame, pd.DataFrame, str]]:
    """Predictions, prices and health of each hour: thin volumes, missing prices, hours without entries or prices."""
    rng = np.random.default_rng(11)
    tokens = list("ABCDEFGH")
    # Some hardly move and are left after five days, others jump past limits and stops.
    scale = np.where(np.arange(len(tokens)) < 3, 0.002, 0.03)
    level = np.exp(np.cumsum(rng.normal(0, 1, (HOURS, len(tokens))) * scale, axis=0))
    week = []
    for hour in range(HOURS):
        quotes = {
            token: (float(level[hour, n]), None if rng.random() < 0.05 else float(rng.choice([2e4, 3e6])))
            for n, token in enumerate(tokens)
            if rng.random() > 0.1
        }
        buys = {token: float(rng.uniform(0.6, 0.9)) for token in tokens if rng.random() < 0.1}
        health = str(rng.choice(["ACTIVE", "REDUCE_ONLY", "HALTED"], p=[0.9, 0.06, 0.04]))
        week.append((predictions(at(hour), buys), prices(quotes), health))
    return week


@pytest.mark.slow
def test_a_week_on_paper_as_it_happens_equals_the_week_replayed_in_one_go(tmp_path: Path) -> None:
    week = recorded_week()
    live, replayed = [], []
    for hour, (predicted, quoted, health) in enumerate(week):
        # As it happens: each hour a process of its own, some minutes late, and sometimes twice.
        for late in (7, 22) if hour % 5 == 0 else (7,):
            ledger = Ledger(tmp_path / "live.sqlite")
            result = trade_hour(
                ledger,
                at(hour),
                predicted,
                quoted,
                health,
                WEEK_RULES,
                "paper",
                lambda hour=hour, late=late: at(hour) + timedelta(minutes=late),  # type: ignore[misc]
                PaperBroker(ledger, "paper", WEEK_RULES),
            )
        live.append(result.orders_frame())
    ledger = Ledger(tmp_path / "replay.sqlite")
    broker = PaperBroker(ledger, "replay", WEEK_RULES)
    for hour, (predicted, quoted, health) in enumerate(week):
        now = lambda hour=hour: ReplayClock().now(at(hour))  # noqa: E731
        result = trade_hour(ledger, at(hour), predicted, quoted, health, WEEK_RULES, "replay", now, broker)
        replayed.append(result.orders_frame())
    one, other = (pd.concat(frames, ignore_index=True).drop(columns="order_id") for frames in (live, replayed))
    pd.testing.assert_frame_equal(one, other)
    assert {"submitted", "filled", "partial", "cancelled", "refused"} <= set(one["status"])
    reasons = " ".join(one["reason"])
    for part in ("take-profit", "stop-loss", "120 hours after", "not filled since", "cooldown", "max_positions"):
        assert part in reasons, part
    with Ledger(tmp_path / "live.sqlite").read("paper") as mine, ledger.read("replay") as theirs:
        first, second = (books.portfolio(at(HOURS), WEEK_RULES.cash) for books in (mine, theirs))
    assert (first.cash, first.equity, first.units) == (second.cash, second.equity, second.units)
