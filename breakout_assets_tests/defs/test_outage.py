"""Ninety days without a collector, and its return: nothing after it is wrong, and nothing is bought too early."""

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

from breakout_assets.dataset.features import with_indicators
from breakout_assets.dataset.indicators import INDICATOR_COLUMNS
from breakout_assets.market.history import hour_of_rows, read_until
from breakout_assets.market.schema import HOUR, hours_between
from breakout_assets_tests.defs.support import DATASET, World, day_keys, hour_keys
from breakout_assets_tests.samples import at

FIRST, LOST = at("2024-01-02 00:00"), at("2024-02-10 00:00")
BACK, LAST = LOST + timedelta(days=90), LOST + timedelta(days=122)


@pytest.mark.slow
@pytest.mark.long
def test_after_ninety_days_nothing_is_wrong_and_nothing_is_bought_until_the_look_back_is_whole(tmp_path: Path) -> None:
    world = World.at(tmp_path, SIM_TOKENS="4")
    world.collect(FIRST, LOST - HOUR)
    world.collect(BACK, LAST)
    world.days("daily_snapshots", FIRST.date(), LOST.date() - timedelta(days=1))
    world.days("daily_snapshots", BACK.date(), LAST.date() - timedelta(days=1))
    store = world.store

    # Labels whose future fell into the outage are censored, those before are whole.
    lost = LOST.date()
    world.run(DATASET, day_keys(lost - timedelta(days=8), lost - timedelta(days=1)))
    status = {
        day: set(store.read_table("labelled_dataset", [day], ["label_status"])["label_status"])
        for day in (lost - timedelta(days=n) for n in range(1, 9))
    }
    assert {day: found for day, found in status.items() if day >= lost - timedelta(days=5)} == {
        lost - timedelta(days=n): {"censored"} for n in range(1, 6)
    }
    assert all(status[lost - timedelta(days=n)] == {"labelled"} for n in range(6, 9))

    # Indicators after the return know nothing of what was before the outage.
    hour = BACK + 40 * HOUR
    world.run(["live_indicators"], hour_keys(hour, hour))
    live = store.read_table("live_indicators", [hour])
    alone = with_indicators(
        hour_of_rows(read_until(store, BACK, hour), hour), read_until(store, BACK, hour), hour, hour
    )
    names = list(INDICATOR_COLUMNS)
    np.testing.assert_array_equal(live[names].to_numpy(), alone[names].to_numpy())
    assert live["MACD_signal"].notna().all()

    # Nothing is bought until nine tenths of the look-back are there again.
    whole = BACK + 647 * HOUR
    judged = [BACK, BACK + 10 * HOUR, BACK + timedelta(days=20), whole - HOUR, whole]
    for each in judged:
        world.run(["market_health"], hour_keys(each, each))
    states = [store.read_table("market_health", [each]).iloc[0] for each in judged]
    assert [row["state"] for row in states] == ["REDUCE_ONLY"] * 4 + ["ACTIVE"]
    assert states[1]["reasons"] == "only 11 of the last 720 hours have a snapshot"
    assert [int(row["look_back_hours"]) for row in states] == [1, 11, 481, 647, 648]


def test_labels_need_no_hour_between_and_holes_are_no_days(world: World) -> None:
    """A day in the middle that the collector missed blocks nothing; one that was not compacted does."""
    first = date(2024, 3, 1)
    for day in (1, 2, 6, 7):
        world.collect(at(f"2024-03-{day:02} 00:00"), at(f"2024-03-{day:02} 23:00"))
    for day in (1, 6, 7):
        world.days("daily_snapshots", date(2024, 3, day), date(2024, 3, day))
    refused = world.run(["labelled_dataset"], day_keys(first, first), must_succeed=False)
    assert not refused.success
    world.days("daily_snapshots", date(2024, 3, 2), date(2024, 3, 2))
    world.run(["labelled_dataset"], day_keys(first, first))
    rows = world.store.read_table("labelled_dataset", [first])
    assert set(rows["label_status"]) == {"labelled"}
    assert sorted(rows["timestamp"].unique()) == hours_between(at("2024-03-01 00:00"), at("2024-03-01 23:00"))
