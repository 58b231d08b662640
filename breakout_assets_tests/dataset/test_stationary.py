"""Values are compared with plain pandas definitions, hour by hour; then the rules for holes, and the last bits."""

import time

import numpy as np
import pandas as pd
import pytest

from breakout_assets.dataset.indicators import window_indicators
from breakout_assets.dataset.stationary import STATIONARY_COLUMNS, stationary_indicators
from breakout_assets.market.snapshots import believed
from breakout_assets_tests.dataset.listings import market
from breakout_assets_tests.dataset.reference import by_exact_sums, by_ta, window_of
from breakout_assets_tests.dataset.tokens import DAY, FIRST, LAST, TOKENS, at

NAMES = list(STATIONARY_COLUMNS)
BY_PRICE, ON_GRID = NAMES[:8], NAMES[8:]
BY_VOLUME = {"pvt_72", "obv_72", "volume_z_168", "log_volume_change_24", "log_volume_24_720"}
CHANGES = {
    "log_volume_change_24": ("volume", 24),
    "log_return_24": ("price", 24),
    "log_return_168": ("price", 168),
    "log_rank_change_168": ("cmc_rank", 168),
    "log_pairs_change_168": ("num_market_pairs", 168),
}


def stationary(rows: pd.DataFrame, first: int = FIRST, last: int = LAST) -> pd.DataFrame:
    published = window_indicators(rows, (at(first), at(last)))
    return published[["token", "timestamp"]].join(stationary_indicators(rows, published))


def value(rows: pd.DataFrame, name: str, hour: int = LAST) -> float:
    return float(stationary(rows, hour, hour)[name].item())


def without(rows: pd.DataFrame, *hours: int) -> pd.DataFrame:
    return rows[~rows["timestamp"].isin([at(hour) for hour in hours])]


# --- values ---------------------------------------------------------------------------------------------------------


def by_definition(of_token: pd.DataFrame, hour: pd.Timestamp) -> dict[str, float]:
    """The grid columns of one token at one hour, each written down as what it means."""
    columns = ["price", "volume", "cmc_rank", "num_market_pairs"]
    hourly = of_token.set_index("timestamp")[columns].astype("float64").asfreq("h").loc[:hour]
    hourly = hourly.where(hourly > 0)
    log_return = np.log(hourly["price"]).diff()

    def recent(series: pd.Series, hours: int) -> pd.Series:
        """What is known of the last hours, empty where that is too little."""
        known = series[series.index > hour - pd.Timedelta(hours=hours)].dropna()
        return known if len(known) >= hours * 5 / 6 else known.iloc[:0]

    volume, log_volume = hourly["volume"], np.log(hourly["volume"])
    mean_72, week = recent(volume, 72).mean(), recent(log_volume, 168)
    week_deviation = week.std(ddof=0)
    expected = {
        "pvt_72": recent(log_return * volume, 72).sum(min_count=1) / mean_72,
        "obv_72": recent(np.sign(hourly["price"].diff()) * volume, 72).sum(min_count=1) / mean_72,
        "volume_z_168": (log_volume[hour] - week.mean()) / week_deviation if week_deviation > 1e-9 else np.nan,
        "log_volume_24_720": recent(log_volume, 24).mean() - recent(log_volume, 720).mean(),
        "volatility_72": recent(log_return, 72).std(ddof=0),
    }
    for name, (column, back) in CHANGES.items():
        point = hour - pd.Timedelta(hours=back)
        past = hourly[column][(hourly.index <= point) & (hourly.index >= point - pd.Timedelta(hours=3))].dropna()
        expected[name] = np.log(hourly[column][hour] / past.iloc[-1]) if len(past) else np.nan
    return expected


@pytest.mark.parametrize("name", TOKENS)
def test_grid_columns_are_what_they_are_defined_as(name: str) -> None:
    rows = believed(market(3, name, quarantined=0.01))
    found = stationary(rows)
    assert len(found) == int(rows["timestamp"].between(*DAY).sum()) > 0
    for got in found.to_dict("records"):
        expected = by_definition(rows, got["timestamp"])
        assert set(expected) == set(ON_GRID)
        for column, number in expected.items():
            np.testing.assert_allclose(got[column], number, rtol=1e-9, atol=1e-9, err_msg=f"{column} {got}")


@pytest.mark.parametrize("name", TOKENS)
def test_price_columns_are_the_indicators_of_ta_over_the_price(name: str) -> None:
    rows = market(3, name)
    for got in stationary(rows).iloc[::6].to_dict("records"):
        window = window_of(rows, got["token"], got["timestamp"])
        price, of = float(window["price"].iloc[-1]), {**by_ta(window), **by_exact_sums(window)}
        deviation = (of["bollinger_hband"] - of["bollinger_lband"]) / 4
        position = (price - of["sma_20"]) / (2 * deviation) if deviation > 1e-9 * of["sma_20"] else np.nan
        expected = {
            **{f"log_price_sma_{n}": np.log(price) - np.log(of[f"sma_{n}"]) for n in (5, 10, 20)},
            "macd_price": of["MACD"] / price,
            "macd_signal_price": of["MACD_signal"] / price,
            "log_ema_9_21": np.log(of["EMA_9"]) - np.log(of["EMA_21"]),
            "band_position": position,
            "band_width": deviation / of["sma_20"],
        }
        assert set(expected) == set(BY_PRICE)
        for column, number in expected.items():
            np.testing.assert_allclose(got[column], number, rtol=1e-9, atol=1e-9, err_msg=f"{column} {got}")


def test_a_price_that_stands_still_has_no_position_and_no_volatility() -> None:
    rows = market(3, "frozen always")
    found = stationary(rows)
    assert found["band_position"].isna().all()
    for name in ("band_width", "volatility_72", "obv_72", "pvt_72", "log_return_168", "log_price_sma_20"):
        np.testing.assert_array_equal(found[name], 0.0)


def test_a_price_that_moves_by_less_than_rounding_matters_has_no_position() -> None:
    rows = market(3, "walk")
    assert np.isnan(value(rows.assign(price=np.where(rows.index % 2, 1.0, 1.0 + 1e-12)), "band_position"))
    assert np.isfinite(value(rows.assign(price=np.where(rows.index % 2, 1.0, 1.0 + 1e-6)), "band_position"))


def test_a_volume_that_stands_still_has_no_standard_score() -> None:
    rows = market(3, "walk").assign(volume=1234.5678)
    assert stationary(rows)["volume_z_168"].isna().all()
    np.testing.assert_allclose(stationary(rows)["log_volume_24_720"], 0.0, atol=1e-12)


@pytest.mark.parametrize("spread", [1e-6, 1e-2])
@pytest.mark.parametrize("level_before", [1.0, 1e9])
def test_a_narrow_spread_is_exact_whatever_the_level_and_whatever_was_before(
    spread: float, level_before: float
) -> None:
    """Sums of squares would cancel: the log of the volume is 14, and a week ago it was another by as much again."""
    rng = np.random.default_rng(12)
    rows = market(7, "walk")
    noise = np.exp(rng.normal(0, spread, len(rows)))
    level = np.where(rows["timestamp"] < at(FIRST - 60), level_before, 1.0)
    rows = rows.assign(volume=1e6 * level * noise, price=np.exp(np.cumsum(rng.normal(0.01, spread, len(rows)))))
    found = stationary(rows)
    hour = rows["timestamp"].to_numpy()
    for got in found.to_dict("records"):
        end = int(np.flatnonzero(hour == got["timestamp"])[0]) + 1
        week = np.log(rows["volume"].to_numpy()[end - 168 : end]).astype(np.longdouble)
        returns = np.log(rows["price"].to_numpy()[end - 72 : end] / rows["price"].to_numpy()[end - 73 : end - 1])
        deviation = np.sqrt(((week - week.mean()) ** 2).mean())
        exact = returns.astype(np.longdouble)
        assert got["volume_z_168"] == pytest.approx(float((week[-1] - week.mean()) / deviation), rel=1e-7, abs=1e-7)
        assert got["volatility_72"] == pytest.approx(float(np.sqrt(((exact - exact.mean()) ** 2).mean())), rel=1e-11)


# --- holes and short histories --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("pvt_72", 61),  # 60 returns, the oldest of which begins an hour earlier
        ("obv_72", 61),
        ("volatility_72", 61),
        ("volume_z_168", 140),
        ("log_volume_24_720", 600),
    ],
)
def test_five_sixths_of_a_window_are_enough_and_one_hour_less_is_not(name: str, least: int) -> None:
    rows = market(7, "walk")
    enough = rows[rows["timestamp"] > at(LAST - least)]
    assert np.isfinite(value(enough, name))
    assert np.isnan(value(enough[1:], name))


def test_the_last_day_must_be_known_too_for_its_mean() -> None:
    rows = market(7, "walk")
    assert np.isfinite(value(without(rows, *range(LAST - 12, LAST - 8)), "log_volume_24_720"))
    assert np.isnan(value(without(rows, *range(LAST - 12, LAST - 7)), "log_volume_24_720"))


@pytest.mark.parametrize(("name", "column", "back"), [(name, *what) for name, what in CHANGES.items()])
def test_the_newest_row_of_three_hours_stands_for_a_missing_one(name: str, column: str, back: int) -> None:
    rows = market(7, "walk")
    rows[["cmc_rank", "num_market_pairs"]] = rows[["cmc_rank", "num_market_pairs"]].ffill().bfill()
    point = LAST - back
    known = rows.set_index("timestamp")[column].astype("float64")
    for missing in range(4):
        kept = without(rows, *range(point - missing + 1, point + 1))
        assert value(kept, name) == pytest.approx(np.log(known[at(LAST)] / known[at(point - missing)]), abs=1e-12)
    assert np.isnan(value(without(rows, *range(point - 3, point + 1)), name))
    if column != "price":  # which is never null; another null counts as missing
        nulled = rows[column].mask((rows["timestamp"] > at(point - 2)) & (rows["timestamp"] <= at(point)))
        assert value(rows.assign(**{column: nulled}), name) == value(without(rows, point - 1, point), name)


@pytest.mark.parametrize("volume", [0.0, -5.0, np.nan])
def test_an_impossible_volume_silences_its_own_hour_only(volume: float) -> None:
    rows = market(7, "walk")
    rows[["cmc_rank", "num_market_pairs"]] = 5
    newest = stationary(rows.assign(volume=rows["volume"].mask(rows["timestamp"] == at(LAST), volume)))
    assert newest[NAMES].iloc[:-1].notna().all(axis=None)
    assert {name for name in NAMES if np.isnan(newest[name].iloc[-1])} == {"volume_z_168", "log_volume_change_24"}
    # In the past it is one term less of each sum.
    spoilt = rows.assign(volume=rows["volume"].mask(rows["timestamp"] == at(LAST - 40), volume))
    found, whole = stationary(spoilt, LAST, LAST).iloc[0], stationary(rows, LAST, LAST).iloc[0]
    assert {name for name in NAMES if found[name] != whole[name]} == BY_VOLUME - {"log_volume_change_24"}


def test_a_missing_hour_takes_two_returns_and_no_longer_one_takes_their_place() -> None:
    rows = market(7, "walk").assign(volume=100.0)
    rows["price"] = np.where(rows["timestamp"] < at(LAST - 20), 1.0, 2.0)  # one return that is not 0
    assert value(rows, "pvt_72") == pytest.approx(np.log(2))
    assert value(without(rows, LAST - 20), "pvt_72") == 0
    assert value(without(rows, LAST - 21), "obv_72") == 0
    assert value(without(rows, LAST - 19), "obv_72") == 1


def test_tokens_without_ranks_and_pairs_lack_nothing_else() -> None:
    rows = market(7, "walk")
    expected = stationary(rows)
    rows[["cmc_rank", "num_market_pairs"]] = pd.NA
    found = stationary(rows)
    lacking = ["log_rank_change_168", "log_pairs_change_168"]
    assert found[lacking].isna().all(axis=None)
    pd.testing.assert_frame_equal(found.drop(columns=lacking), expected.drop(columns=lacking), check_exact=True)


def test_a_token_without_any_market_pair_has_no_change_of_them() -> None:
    rows = market(7, "walk").assign(num_market_pairs=0)
    assert stationary(rows)["log_pairs_change_168"].isna().all()


def test_hours_without_rows_give_an_empty_frame_of_the_same_types() -> None:
    found = stationary(market(2, "walk"), 5000, 5023)
    assert len(found) == 0
    assert list(found.columns) == ["token", "timestamp", *NAMES]
    assert (found[NAMES].dtypes == "float64").all()


# --- last bits ------------------------------------------------------------------------------------------------------


def test_each_block_gives_the_same_bits() -> None:
    """Hours alone, a day, and more hours than are computed on one grid."""
    rows = market(8, "walk", "null volumes", "nearly all rows", "gap of 300 hours")
    whole = stationary(rows, 400, LAST)
    for first, last in ((FIRST, LAST), (400, 400), (431, 432), (567, 568), (569, 569), (613, 790), (LAST, LAST)):
        part = stationary(rows, first, last)
        same = whole[whole["timestamp"].between(at(first), at(last))].reset_index(drop=True)
        pd.testing.assert_frame_equal(part[["token", "timestamp"]], same[["token", "timestamp"]])
        assert part[NAMES].to_numpy().tobytes() == same[NAMES].to_numpy().tobytes()


def test_more_tokens_than_are_on_one_grid_have_the_same_bits() -> None:
    rows = market(21, "walk", "stablecoin", "frozen for 600 hours", "gap of 300 hours", "null volumes")
    original = stationary(rows)[NAMES].to_numpy().tobytes()
    copies = pd.concat([rows.assign(token=f"{copy:03}-" + rows["token"]) for copy in range(40)], ignore_index=True)
    found = stationary(copies)
    assert found["token"].nunique() * 31 * 24 > 2**17
    for _, of_copy in found.groupby(found["token"].str[:3]):
        assert of_copy[NAMES].to_numpy().tobytes() == original


# --- cost -----------------------------------------------------------------------------------------------------------


def test_a_day_costs_about_as_much_as_the_published_indicators() -> None:
    rows = market(1, *(["walk"] * 100))
    published = window_indicators(rows, DAY)
    stationary_indicators(rows, published)  # both have been loaded before the clock starts

    started = time.process_time()
    window_indicators(rows, DAY)
    of_published = time.process_time() - started
    started = time.process_time()
    stationary_indicators(rows, published)
    assert time.process_time() - started < 5 * of_published
