"""Every value is compared with the library `ta` run on that single window, then the invariances are held to the bit."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from breakout_assets.dataset.indicators import INDICATOR_COLUMNS, LOOKBACK, look_back_start, window_indicators
from breakout_assets.errors import DataError
from breakout_assets_tests.dataset.reference import (
    assert_equals_ta,
    by_ta,
    window_of,
)
from breakout_assets_tests.dataset.tokens import DAY, FIRST, LAST, TOKENS, at, market

Span = tuple[pd.Timestamp, pd.Timestamp]
Indicators = Callable[[pd.DataFrame, Span], pd.DataFrame]

PANEL = Path(__file__).resolve().parents[3] / "shared" / "data" / "hourly_panel.parquet"


@pytest.mark.parametrize("name", TOKENS)
def test_each_row_of_a_day_has_the_values_of_ta_on_its_own_window(name: str) -> None:
    rows = market(11, name)
    values = window_indicators(rows, DAY)
    assert list(values["timestamp"]) == [hour for hour in rows["timestamp"] if DAY[0] <= hour <= DAY[1]]
    assert len(values) > 0
    for _, row in values.iterrows():
        assert_equals_ta(rows, row)


def test_a_long_range_has_the_values_of_ta() -> None:
    rows = market(5, "walk", "gap of 300 hours", "frozen for 600 hours", "two rows in three")
    values = window_indicators(rows, (at(0), at(LAST)))
    assert len(values) == len(rows)
    for _, row in values.sample(120, random_state=5).iterrows():
        assert_equals_ta(rows, row)


def test_one_row_opens_obv_with_its_volume_and_has_nothing_else() -> None:
    rows = market(3, "one row")
    values = window_indicators(rows, DAY).iloc[0]
    assert values["OBV"] == pytest.approx(rows["volume"][0], rel=0, abs=0)
    assert values["VPT"] == pytest.approx(0, abs=0)
    assert values[list(set(INDICATOR_COLUMNS) - {"OBV", "VPT"})].isna().all()


def test_a_price_that_stood_still_gives_exact_limits() -> None:
    values = window_indicators(market(3, "frozen always"), DAY)
    prices = market(3, "frozen always")["price"].iloc[0]
    assert (values["RSI"] - 100).abs().max() <= 0
    assert values["MACD"].abs().max() <= 0
    assert (values["bollinger_hband"] - prices).abs().max() <= 0
    assert values["VWRSI"].isna().all()


@pytest.mark.skipif(not PANEL.exists(), reason=f"optional real data are absent: {PANEL}")
def test_real_hours_have_the_values_of_ta() -> None:
    columns = {"symbol": "token", "volume_24h": "volume"}
    panel = pd.read_parquet(PANEL, columns=["symbol", "timestamp", "price", "volume_24h"]).rename(columns=columns)
    rows = panel.astype({"timestamp": "datetime64[us]", "volume": "float64"})
    rng = np.random.default_rng(8)
    hours = np.sort(rows["timestamp"].unique())
    for day in rng.choice(len(hours) - 24, 25, replace=False):
        values = window_indicators(rows, (hours[day], hours[day + 23]))
        for _, row in values.sample(12, random_state=int(day)).iterrows():
            assert_equals_ta(rows, row)


# --- invariances ----------------------------------------------------------------------------------------------------
# Each takes the function under test, so that the planted leaks below can be shown to be caught.


def assert_same_bytes(one: pd.DataFrame, other: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(one, other, check_exact=True)
    numbers = list(INDICATOR_COLUMNS)
    assert one[numbers].to_numpy().tobytes() == other[numbers].to_numpy().tobytes()


def later_rows_change_nothing(function: Indicators, rows: pd.DataFrame, hour: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    later = rows["timestamp"] > at(hour)
    factor = pd.Series(np.exp(rng.normal(0, 2, len(rows)))).where(later, 1.0)
    changed = rows.assign(price=rows["price"] * factor, volume=(rows["volume"] * factor[::-1].to_numpy()).where(later))
    changed["volume"] = changed["volume"].where(later, rows["volume"])
    kept = ~later | pd.Series(rng.random(len(rows)) < 0.8)
    expected, got = function(rows, DAY), function(changed[kept].reset_index(drop=True), DAY)
    assert_same_bytes(
        expected[expected["timestamp"] <= at(hour)].reset_index(drop=True),
        got[got["timestamp"] <= at(hour)].reset_index(drop=True),
    )


def rows_before_the_window_change_nothing(function: Indicators, rows: pd.DataFrame, hour: int) -> None:
    inside = rows[(rows["timestamp"] > at(hour) - LOOKBACK) & (rows["timestamp"] <= at(hour))]
    alone = function(inside.reset_index(drop=True), (at(hour), at(hour)))
    of_day = function(rows, DAY)
    of_hour = of_day[of_day["timestamp"] == at(hour)]
    assert_same_bytes(of_hour.reset_index(drop=True), alone)
    read = rows[rows["timestamp"] >= look_back_start(DAY[0])].reset_index(drop=True)
    assert_same_bytes(of_day, function(read, DAY))


def other_tokens_change_nothing(function: Indicators, rows: pd.DataFrame) -> None:
    together = function(rows, DAY)
    for token in rows["token"].unique():
        alone = function(rows[rows["token"] == token].reset_index(drop=True), DAY)
        assert_same_bytes(together[together["token"] == token].reset_index(drop=True), alone)


def row_order_changes_nothing(function: Indicators, rows: pd.DataFrame, seed: int) -> None:
    assert_same_bytes(function(rows, DAY), function(rows.sample(frac=1, random_state=seed), DAY))


def the_asked_range_changes_nothing(function: Indicators, rows: pd.DataFrame, spans: list[tuple[int, int]]) -> None:
    whole = function(rows, (at(0), at(LAST)))
    for first, last in spans:
        asked = whole["timestamp"].between(at(first), at(last))
        assert_same_bytes(whole[asked].reset_index(drop=True), function(rows, (at(first), at(last))))


SEEDS = st.integers(0, 2**32 - 1)
MARKETS = st.builds(
    lambda seed, names: market(seed, *names), SEEDS, st.lists(st.sampled_from(sorted(TOKENS)), min_size=1, max_size=5)
)
HOURS = st.integers(FIRST, LAST)
modest = settings(max_examples=25, deadline=None, derandomize=True)


@modest
@given(MARKETS, HOURS, SEEDS)
def test_randomised_later_rows_change_not_one_bit(rows: pd.DataFrame, hour: int, seed: int) -> None:
    later_rows_change_nothing(window_indicators, rows, hour, seed)


@modest
@given(MARKETS, HOURS)
def test_dropped_older_rows_change_nothing(rows: pd.DataFrame, hour: int) -> None:
    rows_before_the_window_change_nothing(window_indicators, rows, hour)


@modest
@given(MARKETS)
def test_other_tokens_change_not_one_bit(rows: pd.DataFrame) -> None:
    other_tokens_change_nothing(window_indicators, rows)


@modest
@given(MARKETS, st.lists(st.tuples(st.integers(0, LAST), st.integers(0, 200)), min_size=1, max_size=4))
def test_the_asked_range_changes_not_one_bit(rows: pd.DataFrame, spans: list[tuple[int, int]]) -> None:
    the_asked_range_changes_nothing(window_indicators, rows, [(max(0, last - back), last) for last, back in spans])


@modest
@given(MARKETS, SEEDS)
def test_row_order_changes_not_one_bit(rows: pd.DataFrame, seed: int) -> None:
    row_order_changes_nothing(window_indicators, rows, seed)


def test_many_tokens_change_not_one_bit() -> None:
    """More tokens than are computed side by side: copies of five, each of which must be like its original."""
    rows = market(21, "walk", "stablecoin", "frozen for 600 hours", "gap of 300 hours", "null volumes")
    originals = window_indicators(rows, DAY)
    copies = pd.concat([rows.assign(token=rows["token"] + f"-{copy:03}") for copy in range(150)])
    assert copies["token"].nunique() * 743 > 2**19
    values = window_indicators(copies, DAY)
    for copy in range(150):
        of_copy = values[values["token"].str.endswith(f"-{copy:03}")].reset_index(drop=True)
        assert_same_bytes(of_copy.assign(token=of_copy["token"].str[:-4]), originals)


def test_the_same_call_gives_the_same_bytes() -> None:
    rows = market(9, *TOKENS)
    assert_same_bytes(window_indicators(rows, DAY), window_indicators(rows.copy(), DAY))


# --- planted leaks --------------------------------------------------------------------------------------------------


def with_sma(column: Callable[[pd.Series], pd.Series]) -> Indicators:
    """The function under test with sma_5 replaced by what `column` makes of a token's whole price history."""

    def function(rows: pd.DataFrame, hours: Span) -> pd.DataFrame:
        ordered = rows.sort_values(["token", "timestamp"]).reset_index(drop=True)
        ordered["sma_5"] = ordered.groupby("token")["price"].transform(column)
        values = window_indicators(rows, hours).drop(columns="sma_5")
        merged = values.merge(ordered[["token", "timestamp", "sma_5"]], on=["token", "timestamp"])
        return merged[["token", "timestamp", *INDICATOR_COLUMNS]]

    return function


def honest_sma(price: pd.Series) -> pd.Series:
    return sum((price.shift(back) for back in range(1, 5)), price) / 5


def leaky_shift(price: pd.Series) -> pd.Series:
    return honest_sma(price).shift(-1)


def leaky_zscore(price: pd.Series) -> pd.Series:
    return (price - price.mean()) / price.std()


def leaky_bfill(price: pd.Series) -> pd.Series:
    return honest_sma(price).bfill()


def of_the_call(rows: pd.DataFrame, hours: Span) -> pd.DataFrame:
    """The sums since the first row of all that was handed over."""
    ordered = rows[rows["timestamp"] > hours[0] - LOOKBACK].sort_values(["token", "timestamp"])
    running = ordered["volume"].groupby(ordered["token"]).cumsum()
    values = window_indicators(rows, hours).drop(columns="OBV")
    merged = values.merge(ordered.assign(OBV=running)[["token", "timestamp", "OBV"]], on=["token", "timestamp"])
    return merged[["token", "timestamp", *INDICATOR_COLUMNS]]


LEAK_MARKET = market(4, "walk", "stablecoin", "listed within the day")


def test_the_invariances_pass_an_honest_replacement() -> None:
    later_rows_change_nothing(with_sma(honest_sma), LEAK_MARKET, 808, seed=1)
    rows_before_the_window_change_nothing(with_sma(honest_sma), LEAK_MARKET, 808)


@pytest.mark.parametrize("leak", [leaky_shift, leaky_zscore, leaky_bfill])
def test_a_planted_leak_of_later_rows_is_caught(leak: Callable[[pd.Series], pd.Series]) -> None:
    with pytest.raises(AssertionError, match="sma_5"):
        later_rows_change_nothing(with_sma(leak), LEAK_MARKET, 808, seed=1)


@pytest.mark.parametrize("leak", [leaky_shift, leaky_zscore, leaky_bfill])
def test_a_planted_leak_beyond_the_window_is_caught(leak: Callable[[pd.Series], pd.Series]) -> None:
    with pytest.raises(AssertionError, match="sma_5"):
        rows_before_the_window_change_nothing(with_sma(leak), LEAK_MARKET, 808)


def test_a_value_that_begins_where_the_call_begins_is_caught() -> None:
    the_asked_range_changes_nothing(with_sma(honest_sma), LEAK_MARKET, [(790, 810)])
    with pytest.raises(AssertionError, match="OBV"):
        the_asked_range_changes_nothing(of_the_call, LEAK_MARKET, [(790, 810)])


# --- arguments and refusals -----------------------------------------------------------------------------------------


def test_the_window_begins_719_hours_earlier() -> None:
    assert look_back_start(at(719)) == at(0)


def test_all_hours_or_the_first_and_last_mean_the_same() -> None:
    rows = market(2, "walk", "two rows in three")
    hours = pd.date_range(*DAY, freq="h")
    assert_same_bytes(window_indicators(rows, hours), window_indicators(rows, DAY))
    assert_same_bytes(window_indicators(rows, [hour.to_pydatetime() for hour in hours]), window_indicators(rows, DAY))


def test_hours_without_rows_give_an_empty_frame_of_the_same_types() -> None:
    rows = market(2, "walk")
    values = window_indicators(rows, (at(5000), at(5023)))
    assert len(values) == 0
    assert values.dtypes.equals(window_indicators(rows, DAY).dtypes)
    assert list(values.columns) == ["token", "timestamp", *INDICATOR_COLUMNS]


def spoilt(column: str, value: float | None) -> pd.DataFrame:
    """Three tokens, the second of which has this value at one hour within the look-back."""
    rows = market(2, "walk", "walk", "walk")
    rows.loc[(rows["token"] == "walk-1") & (rows["timestamp"] == at(400)), column] = value
    return rows


@pytest.mark.parametrize("price", [0.0, -1.0, np.nan, np.inf])
def test_an_impossible_price_is_refused_by_token_and_hour(price: float) -> None:
    with pytest.raises(DataError, match="walk-1 at 2024-01-17 16:00 has no positive price"):
        window_indicators(spoilt("price", price), DAY)


def test_an_infinite_volume_is_refused_by_token_and_hour() -> None:
    with pytest.raises(DataError, match="walk-1 at 2024-01-17 16:00 has an infinite volume"):
        window_indicators(spoilt("volume", -np.inf), DAY)


def test_a_timestamp_within_an_hour_is_refused() -> None:
    rows = market(2, "walk")
    rows.loc[400, "timestamp"] = at(400) + pd.Timedelta(minutes=5)
    with pytest.raises(DataError, match="walk-0 at 2024-01-17 16:05 is not a whole hour"):
        window_indicators(rows, DAY)


def test_a_second_row_for_an_hour_is_refused_and_the_first_one_named() -> None:
    rows = market(2, "walk", "walk", "walk")
    twice = rows[((rows["token"] == "walk-2") & (rows["timestamp"] == at(300))) | (rows["timestamp"] == at(400))]
    doubled = pd.concat([rows, twice[twice["token"] != "walk-0"]]).sample(frac=1, random_state=0)
    with pytest.raises(DataError, match="walk-1 at 2024-01-17 16:00 has more than one row"):
        window_indicators(doubled, DAY)


def test_what_no_window_reads_is_not_judged() -> None:
    rows = market(2, "walk")
    expected = window_indicators(rows, DAY)
    outside = pd.DataFrame(
        {"token": "walk-0", "timestamp": [at(80), at(80), *[at(LAST + 1)] * 2], "price": -1.0, "volume": 1.0}
    )
    rows = rows[rows["timestamp"] != at(80)]
    assert_same_bytes(window_indicators(pd.concat([rows, outside.astype(rows.dtypes)]), DAY), expected)


def test_a_missing_column_is_named() -> None:
    with pytest.raises(DataError, match="price, volume"):
        window_indicators(market(2, "walk")[["token", "timestamp"]], DAY)


@pytest.mark.parametrize("column", ["token", "timestamp"])
def test_rows_without_a_key_are_refused(column: str) -> None:
    with pytest.raises(DataError, match=f"1 rows have no {column}"):
        window_indicators(spoilt(column, None), DAY)


def test_timestamps_with_a_zone_are_refused() -> None:
    rows = market(2, "walk")
    with pytest.raises(DataError, match="naive UTC"):
        window_indicators(rows.assign(timestamp=rows["timestamp"].dt.tz_localize("UTC")), DAY)


@pytest.mark.parametrize("hours", [[], [pd.NaT, at(5)]])
def test_no_hours_are_refused(hours: list[pd.Timestamp]) -> None:
    with pytest.raises(DataError, match="No hours"):
        window_indicators(market(2, "walk"), hours)


def test_hours_with_a_zone_are_refused() -> None:
    with pytest.raises(DataError, match="time zone UTC"):
        window_indicators(market(2, "walk"), [at(FIRST).tz_localize("UTC")])


# --- cost -----------------------------------------------------------------------------------------------------------


def test_a_day_costs_a_fraction_of_ta_window_by_window() -> None:
    rows = market(1, *(["walk"] * 90 + ["stablecoin"] * 5 + ["frozen for 600 hours"] * 5))
    windows = [window_of(rows, "walk-7", at(hour)) for hour in range(FIRST, LAST + 1)]
    window_indicators(rows, DAY), by_ta(windows[0])  # both have been loaded before the clock starts
    started = time.process_time()
    values = window_indicators(rows, DAY)
    whole_day = time.process_time() - started
    started = time.process_time()
    for window in windows:
        by_ta(window)
    one_by_one = (time.process_time() - started) / len(windows) * len(values)
    assert whole_day * 5 < one_by_one
