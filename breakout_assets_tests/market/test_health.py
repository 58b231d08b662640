from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from breakout_assets.errors import DataError
from breakout_assets.market.gates import EXCLUSIONS, judge
from breakout_assets.market.health import (
    LOOK_BACK_HOURS,
    Health,
    HealthState,
    assess,
    assess_hour,
    expected_rows,
    hour_figures,
)
from breakout_assets.market.schema import HOUR, hours_between
from breakout_assets.market.simulated import SimulatedMarket
from breakout_assets.market.snapshots import market_rows
from breakout_assets.market.tokens import TokenRegistry, load_registry
from breakout_assets.store import Store
from breakout_assets_tests.samples import at, coin, put

NOW = at("2024-03-01 05:00")


def rows_of(hour: datetime, count: int, codes: dict[int, str] | None = None) -> pd.DataFrame:
    """A market of so many coins; `codes` are the quarantine reasons of the coins with these numbers."""
    frame = pd.DataFrame({"token": [f"T-{n}" for n in range(count)], "symbol": [f"S{n}" for n in range(count)]})
    found = [(codes or {}).get(n) for n in range(count)]
    return frame.assign(timestamp=hour, origin="cmc", quarantine=pd.Series(found, dtype="str"))


def verdict(now: pd.DataFrame, *earlier: tuple[int, pd.DataFrame | None], look_back: int = LOOK_BACK_HOURS) -> Health:
    """The verdict on NOW after 27 sound hours of 100 coins, of which some are replaced or (None) missing."""
    before = {n: rows_of(NOW - n * HOUR, 100) for n in range(1, 28)} | dict(earlier)
    figures = hour_figures(pd.concat([now, *(rows for rows in before.values() if rows is not None)]))
    return assess(figures, NOW, look_back)


@pytest.mark.parametrize(
    ("count", "state"),
    [(100, "ACTIVE"), (95, "ACTIVE"), (94, "REDUCE_ONLY"), (50, "REDUCE_ONLY"), (49, "HALTED"), (1, "HALTED")],
)
def test_a_listing_that_shrinks_stops_trading(count: int, state: str) -> None:
    health = verdict(rows_of(NOW, count))
    assert health.state == state
    assert (not health.reasons) == (state == "ACTIVE")
    assert (health.rows, health.expected_rows) == (count, 100)


@pytest.mark.parametrize(("bad", "state"), [(5, "ACTIVE"), (6, "REDUCE_ONLY"), (20, "REDUCE_ONLY"), (21, "HALTED")])
@pytest.mark.parametrize("code", ["PRICE_NOT_POSITIVE", "STALE_PRICE", "GLITCH;ZERO_VOLUME"])
def test_faulty_rows_stop_trading(bad: int, state: str, code: str) -> None:
    health = verdict(rows_of(NOW, 100, dict.fromkeys(range(bad), code)))
    assert health.state == state
    assert health.quarantined_share == pytest.approx(bad / 100)
    assert health.stale_share == pytest.approx(bad / 100 if code == "STALE_PRICE" else 0)


def test_coins_that_nobody_trades_are_no_fault() -> None:
    codes = dict(enumerate([*EXCLUSIONS, ";".join(sorted(EXCLUSIONS))] * 20))
    health = verdict(rows_of(NOW, 100, codes))
    assert health.state is HealthState.ACTIVE
    assert health.quarantined_share == pytest.approx(0)


def test_coins_that_are_followed_after_they_dropped_out_are_not_counted() -> None:
    followed = rows_of(NOW, 60).assign(origin="cmc:followed", token=[f"F-{n}" for n in range(60)])
    assert verdict(pd.concat([rows_of(NOW, 49), followed])).state is HealthState.HALTED


def test_symbols_that_coins_share_are_counted_and_do_no_harm() -> None:
    rows = rows_of(NOW, 100)
    rows["symbol"] = ["TWICE", "TWICE", *rows["symbol"][2:]]
    assert (verdict(rows).state, verdict(rows).shared_symbols) == (HealthState.ACTIVE, 2)


@pytest.mark.parametrize("fault", ["missing", "faulty", "stale listing"])
def test_nothing_is_opened_until_three_hours_in_a_row_were_sound(fault: str) -> None:
    codes = {"faulty": "GLITCH", "stale listing": "STALE_PRICE"}
    for hours_ago, state in [(1, "REDUCE_ONLY"), (2, "REDUCE_ONLY"), (3, "REDUCE_ONLY"), (4, "ACTIVE")]:
        then = NOW - hours_ago * HOUR
        bad = None if fault == "missing" else rows_of(then, 100, dict.fromkeys(range(100), codes[fault]))
        health = verdict(rows_of(NOW, 100), (hours_ago, bad))
        assert health.state == state, hours_ago
        assert all(f"{then:%H:00} was not sound" in reason for reason in health.reasons)


def test_a_listing_that_stands_still_is_halted_at_once() -> None:
    assert verdict(rows_of(NOW, 100, dict.fromkeys(range(100), "STALE_PRICE"))).state is HealthState.HALTED


@pytest.mark.parametrize(
    ("hours", "state"), [(720, "ACTIVE"), (648, "ACTIVE"), (647, "REDUCE_ONLY"), (1, "REDUCE_ONLY")]
)
def test_after_an_outage_nothing_is_opened_until_the_look_back_is_whole(hours: int, state: str) -> None:
    health = verdict(rows_of(NOW, 100), look_back=hours)
    assert health.state == state
    assert health.look_back_hours == hours


def test_the_first_hour_of_all_opens_nothing(store: Store) -> None:
    put(store, NOW, [coin(1)])
    health = assess_hour(store, NOW)
    assert health.state is HealthState.REDUCE_ONLY
    assert health.reasons[-1] == "only 1 of the last 720 hours have a snapshot"
    assert expected_rows(store, NOW) is None
    assert expected_rows(store, NOW + HOUR) == 1


def test_the_usual_number_of_coins_is_the_median_of_the_day_before_without_followed_ones(store: Store) -> None:
    for n, count in ((25, 9), (24, 1), (3, 5), (2, 2), (1, 3), (0, 9)):
        followed = [coin(90 + k, origin="cmc:followed") for k in range(2)]
        put(store, NOW - n * HOUR, [coin(k, origin=None if k % 2 else "cmc") for k in range(1, count + 1)] + followed)
    assert expected_rows(store, NOW) == 2.5
    assert assess_hour(store, NOW).expected_rows == 2.5


def test_an_hour_without_a_snapshot_has_no_verdict(store: Store) -> None:
    put(store, NOW - HOUR, [coin(1)])
    with pytest.raises(DataError, match="no snapshot of 2024-03-01 05:00"):
        assess_hour(store, NOW)


def test_the_frame_keeps_the_contract(store: Store) -> None:
    put(store, NOW, [coin(1)])
    row = assess_hour(store, NOW).frame(NOW).iloc[0]
    assert (row["state"], row["look_back_hours"], row["shared_symbols"]) == ("REDUCE_ONLY", 1, 0)


def market_of(market: SimulatedMarket, store: Store, first: datetime, last: datetime) -> pd.DataFrame:
    raw = pd.concat([frame for _, frame in market.snapshots(first, last)], ignore_index=True)
    registry: TokenRegistry = load_registry(store)
    rows = market_rows(store, registry, raw)
    return rows.assign(quarantine=judge(rows, rows.iloc[:0]))


def states(rows: pd.DataFrame, first: datetime, last: datetime) -> pd.Series:
    figures = hour_figures(rows)
    hours = [hour for hour in hours_between(first, last) if hour in figures.index]
    return pd.Series({hour: str(assess(figures, hour, LOOK_BACK_HOURS).state) for hour in hours})


@pytest.mark.slow
@pytest.mark.long
def test_a_clean_year_is_not_halted(store: Store) -> None:
    """False alarms over a year of 30 coins."""
    first, last = at("2024-01-01 00:00"), at("2024-12-31 23:00")
    rows = market_of(SimulatedMarket(1, 30), store, first - timedelta(days=2), last)
    found, alarms = states(rows, first, last).value_counts(), rows["quarantine"].dropna().value_counts()
    print(f"{found.to_dict()}, {len(rows)} rows, alarms {alarms.to_dict()}")  # noqa: T201  the figures are wanted
    assert found.get("HALTED", 0) <= 1
    assert found.get("REDUCE_ONLY", 0) <= 8784 * 0.001


def test_each_fault_of_the_whole_market_changes_the_state_in_its_hours(store: Store) -> None:
    first, last = at("2024-02-01 00:00"), at("2024-03-11 23:00")
    expected = {"missing_hours": "REDUCE_ONLY", "market_glitch": "HALTED", "late_ingestion": "HALTED"}
    for fault, state in expected.items():
        market = SimulatedMarket(5, 30, faults=frozenset({fault}))
        rows = market_of(market, Store.at(f"{store.root}-{fault}"), first - timedelta(days=2), last)
        found = states(rows, first, last)
        log = market.fault_log(first, last)
        touched: set[datetime] = set()
        for begin, end in zip(log["first_hour"].dt.to_pydatetime(), log["last_hour"].dt.to_pydatetime(), strict=True):
            touched |= set(hours_between(begin, end + 3 * HOUR))
            if state == "HALTED":
                assert found[begin] == "HALTED", fault
            assert found.reindex(hours_between(end + HOUR, end + 3 * HOUR)).dropna().eq("REDUCE_ONLY").all(), fault
        assert set(found.index[found != "ACTIVE"]) <= touched, fault
        assert np.isin("ACTIVE", found)
