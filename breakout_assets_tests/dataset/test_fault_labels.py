"""Faults of a listing that no single row shows: they are met where labels, features and hours are looked at."""

from datetime import datetime, timedelta

import pandas as pd
import pytest

from breakout_assets.dataset.features import with_indicators
from breakout_assets.dataset.labels import HORIZON, SEGMENT_COLUMNS, label_rows
from breakout_assets.market.gates import judge
from breakout_assets.market.health import LOOK_BACK_HOURS, HealthState, assess, hour_figures
from breakout_assets.market.schema import HOUR, hours_between
from breakout_assets.market.simulated import SimulatedMarket
from breakout_assets.market.snapshots import market_rows
from breakout_assets.market.tokens import load_registry
from breakout_assets.store import Store
from breakout_assets_tests.samples import at

FIRST, LAST = at("2024-02-01 00:00"), at("2024-03-31 23:00")


def faulty(fault: str, store: Store) -> tuple[SimulatedMarket, pd.DataFrame, pd.DataFrame]:
    """A market with one fault, its judged rows and its labels of all hours whose future is in the rows."""
    market = SimulatedMarket(5, 12, faults=frozenset({fault} if fault else set()))
    raw = pd.concat([frame for _, frame in market.snapshots(FIRST, LAST)], ignore_index=True)
    rows = market_rows(store, load_registry(store), raw)
    rows = rows.assign(quarantine=judge(rows, rows.iloc[:0]))
    return market, rows, label_rows(rows, rows[list(SEGMENT_COLUMNS)], FIRST, LAST - HORIZON)


def hours_of(frame: pd.DataFrame, coin: int) -> set[datetime]:
    return set(frame.loc[frame["id"] == coin, "timestamp"].dt.to_pydatetime())


@pytest.mark.parametrize("fault", ["dying_token", "rank_exit"])
def test_a_coin_that_leaves_the_listing_keeps_its_rows_as_censored(fault: str, store: Store) -> None:
    market, _, labels = faulty(fault, store)
    log = market.fault_log(FIRST, LAST)
    for coin in log["id"].unique():
        events = log[log["id"] == coin]
        gone: set[datetime] = set()
        for begin, end in zip(
            events["first_hour"].dt.to_pydatetime(), events["last_hour"].dt.to_pydatetime(), strict=True
        ):
            # Where the fault is a coin of its own, it is away after its time; else during it.
            away = (end + HOUR, LAST) if fault == "dying_token" else (begin, min(end, LAST))
            gone |= set(hours_between(*away)) if away[0] <= away[1] else set()
        listed = hours_of(labels, coin)
        expected = {hour for hour in listed if hour + HORIZON in gone}
        assert hours_of(labels[labels["label_status"] == "censored"], coin) == expected
        assert expected or fault == "dying_token"
    clean = faulty("", Store.at(f"{store.root}-clean"))[2]
    assert set(clean["label_status"]) == {"labelled"}


def test_a_coin_that_was_just_listed_has_no_label_for_a_week_and_no_slow_indicator(store: Store) -> None:
    market, rows, labels = faulty("late_listing", store)
    log = market.fault_log(FIRST, LAST)
    for coin, begin in zip(log["id"], log["first_hour"].dt.to_pydatetime(), strict=True):
        if not FIRST <= begin <= LAST - HORIZON - timedelta(days=8):
            continue
        assert min(hours_of(labels, coin)) == begin + timedelta(days=7)
        early = begin + 10 * HOUR
        of_hour = rows[rows["timestamp"] == early]
        found = with_indicators(of_hour, rows, early, early).set_index("id")
        assert pd.isna(found.loc[coin, "MACD_signal"])
        assert found.drop(index=coin)["MACD_signal"].notna().all()
        break
    else:
        pytest.fail("the market lists no coin in time for a label")


def test_coins_that_share_a_symbol_are_counted_and_stay_apart(store: Store) -> None:
    _, rows, _ = faulty("symbol_collision", store)
    _, clean, _ = faulty("", Store.at(f"{store.root}-clean"))
    figures, without = hour_figures(rows), hour_figures(clean)
    assert (figures["shared"] == 4).all()
    assert (without["shared"] == 0).all()
    assert rows.groupby("timestamp")["token"].nunique().eq(12).all()
    assert assess(figures, LAST, LOOK_BACK_HOURS).state is HealthState.ACTIVE


def test_missing_hours_are_holes_that_the_next_three_hours_remember(store: Store) -> None:
    market, rows, labels = faulty("missing_hours", store)
    log = market.fault_log(FIRST + timedelta(days=7) + HORIZON, LAST)
    begin, end = log["first_hour"].dt.to_pydatetime()[0], log["last_hour"].dt.to_pydatetime()[0]
    lost = hours_between(begin, end)
    assert not rows["timestamp"].isin(lost).any()
    hit = labels[labels["timestamp"].isin([hour - HORIZON for hour in lost])]
    assert set(hit["label_status"]) == {"censored"}
    figures = hour_figures(rows)
    after = [assess(figures, lost[-1] + n * HOUR, LOOK_BACK_HOURS).state for n in (1, 3, 4)]
    assert after == [HealthState.REDUCE_ONLY, HealthState.REDUCE_ONLY, HealthState.ACTIVE]
