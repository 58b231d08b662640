"""Every indicator of the registry knows nothing of the future, of other tokens, of older rows, or of its units.

Each check takes the function under test and returns the names of the indicators that fail it, so that the planted
leaks below go through the very checks that the real function passes.
"""

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from breakout_assets.dataset.features import HISTORY_COLUMNS, with_indicators
from breakout_assets.dataset.indicators import INDICATOR_COLUMNS
from breakout_assets.dataset.registry import INDICATORS, Indicator
from breakout_assets.dataset.stationary import STATIONARY_COLUMNS
from breakout_assets.errors import DataError
from breakout_assets.market.snapshots import believed
from breakout_assets.tables import INDICATOR_FEATURES, LIVE_INDICATORS
from breakout_assets_tests.dataset.listings import market, of_day
from breakout_assets_tests.dataset.tokens import DAY, FIRST, LAST, TOKENS, at

Features = Callable[[pd.DataFrame, pd.DataFrame, datetime, datetime], pd.DataFrame]
KEYS = ["token", "timestamp"]
NAMES = list(INDICATORS)


def day_values(function: Features, rows: pd.DataFrame) -> pd.DataFrame:
    return function(of_day(rows), rows, *DAY).sort_values(KEYS, ignore_index=True)


def differing(one: pd.DataFrame, other: pd.DataFrame, names: Iterable[str] = NAMES) -> set[str]:
    """The indicators that are not the same to the last bit."""
    pd.testing.assert_frame_equal(one[KEYS].reset_index(drop=True), other[KEYS].reset_index(drop=True))
    return {name for name in names if one[name].to_numpy().tobytes() != other[name].to_numpy().tobytes()}


# --- checks: each returns the indicators that fail ------------------------------------------------------------------


def moved_by_later_rows(function: Features, rows: pd.DataFrame, hour: int, seed: int) -> set[str]:
    """Rows after the hour are made up anew, some quarantined, some left out; and then all are."""
    rng = np.random.default_rng(seed)
    later = rows["timestamp"] > at(hour)
    changed = rows.copy()
    for column in ("price", "volume", "cmc_rank", "num_market_pairs"):
        invented = pd.Series(np.ceil(np.exp(rng.normal(3, 2, len(rows)))), index=rows.index)
        changed[column] = rows[column].mask(later, invented.astype(rows[column].dtype))
    changed["quarantine"] = rows["quarantine"].mask(later & (rng.random(len(rows)) < 0.1), "SPLIT_SUSPECT")
    changed = changed[~later | (rng.random(len(rows)) < 0.8)]
    known = [
        frame[frame["timestamp"] <= at(hour)]
        for frame in (day_values(function, rows), day_values(function, changed), day_values(function, rows[~later]))
    ]
    return differing(known[0], known[1]) | differing(known[0], known[2])


def moved_by_rows_before_the_look_back(function: Features, rows: pd.DataFrame, hour: int) -> set[str]:
    """For each indicator all rows are left out that are older than it says that it reads."""
    of_hour = rows[rows["timestamp"] == at(hour)]
    whole = function(of_hour, rows, *DAY)
    moved = set()
    for look_back in {indicator.look_back_hours for indicator in INDICATORS.values()}:
        read = rows[rows["timestamp"] > at(hour - look_back)]
        alone = function(of_hour, read, at(hour), at(hour))
        names = [name for name in NAMES if INDICATORS[name].look_back_hours == look_back]
        moved |= differing(whole, alone, names)
    return moved


def moved_by_other_tokens(function: Features, rows: pd.DataFrame) -> set[str]:
    together = day_values(function, rows)
    moved = set()
    for token in rows["token"].unique():
        moved |= differing(together[together["token"] == token], day_values(function, rows[rows["token"] == token]))
    return moved


def moved_by_units(function: Features, rows: pd.DataFrame, prices: float, volumes: float) -> set[str]:
    """Those that another unit of prices, or of volumes, moves by more than rounding does."""
    one = day_values(function, rows)
    moved = set()
    for other in (rows.assign(price=rows["price"] * prices), rows.assign(volume=rows["volume"] * volumes)):
        two = day_values(function, other)
        moved |= {name for name in NAMES if not np.allclose(one[name], two[name], rtol=1e-8, atol=1e-8, equal_nan=True)}
    return moved


def moved_by_row_order(function: Features, rows: pd.DataFrame, seed: int) -> set[str]:
    return differing(day_values(function, rows), day_values(function, rows.sample(frac=1, random_state=seed)))


def infinite_or_lost(function: Features, rows: pd.DataFrame) -> set[str]:
    """Those with an infinite value, or with any on a quarantined row; the rows asked for must all come back."""
    found = day_values(function, rows)
    pd.testing.assert_frame_equal(found[KEYS], of_day(rows)[KEYS].sort_values(KEYS, ignore_index=True))
    refused = found["quarantine"].notna()
    return {name for name in NAMES if np.isinf(found[name]).any() or found.loc[refused, name].notna().any()}


# --- the registry ---------------------------------------------------------------------------------------------------


def test_the_registry_describes_exactly_the_columns_that_rows_get() -> None:
    rows = market(1, "walk")
    found = with_indicators(of_day(rows), rows, *DAY)
    assert [*rows.columns, *INDICATORS] == list(found.columns)
    assert (found[NAMES].dtypes == "float64").all()
    assert tuple(INDICATORS) == INDICATOR_COLUMNS + STATIONARY_COLUMNS
    assert all(name == indicator.name and indicator.meaning.endswith(".") for name, indicator in INDICATORS.items())


def test_the_tables_have_the_columns_of_the_registry_last() -> None:
    assert list(INDICATOR_FEATURES)[-len(NAMES) :] == list(LIVE_INDICATORS)[-len(NAMES) :] == NAMES


@pytest.mark.parametrize("hours", [0, 721])
def test_an_indicator_that_reads_more_than_it_is_given_is_refused(hours: int) -> None:
    with pytest.raises(DataError, match=f"slow reads {hours} hours; from 1, its own, to 720"):
        Indicator("slow", hours, scale_free=True, meaning="Too slow.")


def test_what_has_a_unit_follows_it() -> None:
    with_units = {name for name, indicator in INDICATORS.items() if not indicator.scale_free}
    assert moved_by_units(with_indicators, market(5, "walk"), 3.7, 0.01) == with_units


# --- properties -----------------------------------------------------------------------------------------------------

SEEDS = st.integers(0, 2**32 - 1)
MARKETS = st.builds(
    lambda seed, names, broken, hour, share: market(seed, *names, broken=broken, broken_at=hour, quarantined=share),
    SEEDS,
    st.lists(st.sampled_from(sorted(TOKENS)), min_size=1, max_size=3),
    st.sampled_from(["", "units", "source"]),
    st.integers(90, LAST),
    st.sampled_from([0.0, 0.02]),
)
HOURS = st.integers(FIRST, LAST)
FACTORS = st.floats(1e-6, 1e6)
modest = settings(max_examples=20, deadline=None, derandomize=True)


@modest
@given(MARKETS, HOURS, SEEDS)
def test_what_comes_later_changes_no_indicator(rows: pd.DataFrame, hour: int, seed: int) -> None:
    assert moved_by_later_rows(with_indicators, rows, hour, seed) == set()


@modest
@given(MARKETS, HOURS)
def test_what_was_before_its_look_back_changes_no_indicator(rows: pd.DataFrame, hour: int) -> None:
    assert moved_by_rows_before_the_look_back(with_indicators, rows, hour) == set()


@modest
@given(MARKETS)
def test_other_tokens_change_no_indicator(rows: pd.DataFrame) -> None:
    assert moved_by_other_tokens(with_indicators, rows) == set()


@modest
@given(MARKETS, FACTORS, FACTORS)
def test_units_change_no_scale_free_indicator(rows: pd.DataFrame, prices: float, volumes: float) -> None:
    moved = moved_by_units(with_indicators, rows, prices, volumes)
    assert {name for name in moved if INDICATORS[name].scale_free} == set()


@modest
@given(MARKETS, SEEDS)
def test_row_order_changes_no_indicator(rows: pd.DataFrame, seed: int) -> None:
    assert moved_by_row_order(with_indicators, rows, seed) == set()


@modest
@given(MARKETS, SEEDS, st.sampled_from([0.01, 0.2, 0.9]))
def test_missing_hours_give_a_value_or_none(rows: pd.DataFrame, seed: int, missing: float) -> None:
    kept = rows["timestamp"].map(
        pd.Series(np.random.default_rng(seed).random(LAST + 1) >= missing, [at(n) for n in range(LAST + 1)])
    )
    assert infinite_or_lost(with_indicators, rows[kept]) == set()


@modest
@given(MARKETS, SEEDS)
def test_a_token_that_is_twice_in_an_hour_is_refused(rows: pd.DataFrame, seed: int) -> None:
    read = believed(rows)[believed(rows)["timestamp"] >= at(FIRST - 719)]
    if read.empty:
        return
    twice = pd.concat([rows, read.sample(1, random_state=seed)], ignore_index=True)
    with pytest.raises(DataError, match="has more than one row"):
        with_indicators(of_day(rows), twice, *DAY)


def test_one_missing_hour_silences_no_indicator() -> None:
    rows = market(6, "walk")
    rows = rows.assign(cmc_rank=50, num_market_pairs=9)[rows["timestamp"] != at(FIRST - 30)]
    assert day_values(with_indicators, rows)[NAMES].notna().all(axis=None)


def test_a_look_back_is_no_shorter_and_no_longer_than_what_is_read() -> None:
    """Of those with windows in hours: where the three hours that a row may be late are all used up."""
    rows = market(6, "walk").assign(num_market_pairs=range(1, LAST + 2), cmc_rank=range(1, LAST + 2))
    missing = [at(LAST - back - late) for back in (24, 168) for late in range(3)]
    rows = rows[~rows["timestamp"].isin(missing)]
    newest = rows[rows["timestamp"] == at(LAST)]
    whole = with_indicators(newest, rows, at(LAST), at(LAST)).iloc[0]
    for name in STATIONARY_COLUMNS[STATIONARY_COLUMNS.index("pvt_72") :]:
        hours = INDICATORS[name].look_back_hours
        enough, short = (
            with_indicators(newest, rows[rows["timestamp"] > at(LAST - reach)], at(LAST), at(LAST)).iloc[0]
            for reach in (hours, hours - 1)
        )
        assert abs(enough[name] - whole[name]) < 1e-12, name
        assert not abs(short[name] - whole[name]) < 1e-12, name


# --- planted leaks --------------------------------------------------------------------------------------------------


def spoilt(change: Callable[[pd.Series], pd.Series]) -> Features:
    """The function under test, with each indicator replaced by what `change` makes of a token's whole history of it."""

    def function(rows: pd.DataFrame, market: pd.DataFrame, first: datetime, last: datetime) -> pd.DataFrame:
        del first, last
        history = with_indicators(market, market, market["timestamp"].min(), market["timestamp"].max())
        history = history.sort_values(KEYS, ignore_index=True)
        for name in NAMES:
            history[name] = history.groupby("token")[name].transform(change)
        return rows.merge(history[[*KEYS, *NAMES]], on=KEYS, how="left")

    return function


def shifted(history: pd.Series) -> pd.Series:
    return history.shift(-1)


def standardised(history: pd.Series) -> pd.Series:
    return (history - history.mean()) / history.std()


def filled_back(history: pd.Series) -> pd.Series:
    return history.bfill()


LEAK_MARKET = market(4, "walk", "listed 5 hours before the day")


def test_the_checks_pass_what_only_copies_the_indicators() -> None:
    copied = spoilt(lambda history: history * 1.0)
    assert moved_by_later_rows(copied, LEAK_MARKET, 808, seed=1) == set()
    assert moved_by_rows_before_the_look_back(copied, LEAK_MARKET, 808) == set()


@pytest.mark.parametrize("leak", [shifted, standardised])
def test_a_leak_of_later_rows_is_found_in_each_indicator(leak: Callable[[pd.Series], pd.Series]) -> None:
    assert moved_by_later_rows(spoilt(leak), LEAK_MARKET, 808, seed=1) == set(NAMES)


def test_a_warm_up_that_is_filled_from_later_rows_is_found_where_it_ends_within_the_day() -> None:
    found = moved_by_later_rows(spoilt(filled_back), LEAK_MARKET, 808, seed=1)
    assert found == {
        *("sma_20", "MACD", "EMA_21", "bollinger_hband", "bollinger_lband"),
        *("log_price_sma_20", "macd_price", "log_ema_9_21", "band_position", "band_width"),
        *("log_volume_change_24", "log_return_24"),
    }


def test_a_standardisation_over_all_history_is_found_in_each_indicator_by_its_look_back() -> None:
    assert moved_by_rows_before_the_look_back(spoilt(standardised), LEAK_MARKET, 808) == set(NAMES)


def test_units_that_leak_into_a_scale_free_indicator_are_found() -> None:
    def function(rows: pd.DataFrame, market: pd.DataFrame, first: datetime, last: datetime) -> pd.DataFrame:
        found = with_indicators(rows, market, first, last)
        return found.assign(volatility_72=found["volatility_72"] * found["price"])

    assert "volatility_72" in moved_by_units(function, market(5, "walk"), 3.7, 1.0)


def test_a_value_that_ranks_tokens_against_each_other_is_found() -> None:
    def function(rows: pd.DataFrame, market: pd.DataFrame, first: datetime, last: datetime) -> pd.DataFrame:
        found = with_indicators(rows, market, first, last)
        return found.assign(RSI=found.groupby("timestamp")["RSI"].rank(pct=True))

    assert moved_by_other_tokens(function, market(5, "walk", "walk")) == {"RSI"}


def test_a_value_that_depends_on_row_order_is_found() -> None:
    def function(rows: pd.DataFrame, market: pd.DataFrame, first: datetime, last: datetime) -> pd.DataFrame:
        found = with_indicators(rows, market, first, last)
        return found.assign(log_return_24=np.log(found["price"] / found["price"].shift(24)))

    assert moved_by_row_order(function, market(5, "walk", "walk"), seed=1) == {"log_return_24"}


def test_an_infinite_value_or_one_on_a_quarantined_row_is_found() -> None:
    def function(rows: pd.DataFrame, market: pd.DataFrame, first: datetime, last: datetime) -> pd.DataFrame:
        found = with_indicators(rows, market, first, last)
        return found.assign(RSI=found["RSI"] / 0, OBV=found["OBV"].ffill())

    rows = market(5, "walk", quarantined=0.0)
    rows.loc[rows["timestamp"] == at(LAST), "quarantine"] = "STALE_PRICE"
    assert infinite_or_lost(with_indicators, rows) == set()
    assert infinite_or_lost(function, rows) == {"RSI", "OBV"}


def test_history_has_all_that_indicators_read() -> None:
    rows = market(5, "walk", "two rows in three", broken="source", broken_at=500)
    narrow = with_indicators(of_day(rows), rows[list(HISTORY_COLUMNS)], *DAY)
    assert differing(narrow, with_indicators(of_day(rows), rows, *DAY)) == set()
    assert timedelta(hours=max(indicator.look_back_hours for indicator in INDICATORS.values())) == timedelta(days=30)
