from collections.abc import Mapping, Sequence
from datetime import timedelta
from decimal import Decimal

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from breakout_assets.dataset.labels import (
    HORIZON,
    LABELS_SQL,
    SEGMENT_COLUMNS,
    in_universe,
    label_days,
    label_rows,
)
from breakout_assets.market.history import day_bounds
from breakout_assets.market.snapshots import believed, segments
from breakout_assets.tables import DAILY_SNAPSHOTS, conform
from breakout_assets_tests.samples import at

FIRST = at("2024-03-29 00:00")


def market(prices: Mapping[str, Sequence[float | None]], **columns: float | None) -> pd.DataFrame:
    """Market rows from FIRST on, one price an hour; None leaves the hour out."""
    rows = [
        {"token": token, "timestamp": FIRST + timedelta(hours=n), "price": price}
        for token, series in prices.items()
        for n, price in enumerate(series)
        if price is not None
    ]
    frame = pd.DataFrame(rows)
    ordinary: dict[str, str | float | None] = {
        "name": "n",
        "symbol": "s",
        "volume": 1.0,
        "cmc_rank": 5,
        "num_market_pairs": 1,
    }
    unchanged = dict.fromkeys(("volume_change_24h", "percent_change_24h", "percent_change_7d"), 0.0)
    for column, value in {**ordinary, **unchanged, **columns}.items():
        frame[column] = value
    return conform(frame.reindex(columns=list(DAILY_SNAPSHOTS)), "daily_snapshots")


def labels(rows: pd.DataFrame, hours: int = 24) -> pd.DataFrame:
    return label_rows(rows, rows[list(SEGMENT_COLUMNS)], FIRST, FIRST + timedelta(hours=hours - 1))


def test_a_label_is_the_same_tokens_price_exactly_120_hours_later_also_across_a_months_end() -> None:
    a = [100.0] * 120 + [111.0, 110.0, 109.0]
    b = [1.0] * 123
    found = labels(market({"A-1": a, "B-2": b}), hours=3)
    assert found["token"].tolist() == ["A-1"] * 3 + ["B-2"] * 3
    assert found["y"].tolist() == [1, 0, 0, 0, 0, 0]
    assert found["cal_price_change"].round(6).tolist() == [11.0, 10.0, 9.0, 0.0, 0.0, 0.0]
    assert (found["label_end"] == found["timestamp"] + HORIZON).all()
    assert found["label_end"].iloc[0].month == 4


def test_a_row_without_a_future_stays_as_censored() -> None:
    found = labels(market({"A-1": [100.0] * 120 + [None, 120.0]}), hours=2)
    assert found["label_status"].tolist() == ["censored", "labelled"]
    assert found[["y", "label_end", "cal_price_change"]].iloc[0].isna().all()


def test_prices_before_and_after_a_change_of_units_are_not_compared() -> None:
    rows = market({"A-1": [1.0] * 60 + [1000.0] * 120, "B-2": [1.0] * 180})
    rows.loc[60, "quarantine"] = "GLITCH;SPLIT_SUSPECT"
    found = labels(rows, 180).set_index(["token", "timestamp"])["label_status"]
    of_a = found["A-1"].to_numpy()
    assert of_a[:59].tolist() == ["censored"] * 59
    assert found["B-2"].to_numpy()[:60].tolist() == ["labelled"] * 60
    later = market({"A-1": [1.0] * 60 + [1000.0] * 240})
    later.loc[60, "quarantine"] = "SPLIT_SUSPECT"
    assert labels(later, 180)["label_status"].tolist()[60:] == ["labelled"] * 119


def test_a_listing_and_candles_are_not_compared_and_two_kinds_of_listing_are() -> None:
    rows = market({"A-1": [1.0] * 240, "B-2": [1.0] * 240})
    rows["origin"] = ["candles:binance"] * 120 + ["cmc"] * 120 + [None] * 60 + ["cmc"] * 60 + ["cmc:followed"] * 120
    found = labels(rows, 120).groupby("token")["label_status"].unique()
    assert found["A-1"].tolist() == ["censored"]
    assert found["B-2"].tolist() == ["labelled"]


def test_quarantined_rows_are_neither_labelled_nor_a_future() -> None:
    rows = market({"A-1": [100.0] * 122})
    rows.loc[[1, 120], "quarantine"] = "PRICE_NOT_POSITIVE"
    found = labels(rows, hours=3)
    assert found["timestamp"].tolist() == [FIRST, FIRST + timedelta(hours=2)]
    assert found["label_status"].tolist() == ["censored", "censored"]


@pytest.mark.parametrize("column", ["percent_change_7d", "volume_change_24h", "cmc_rank"])
@pytest.mark.parametrize(("value", "kept"), [(1000, True), (1001, False), (None, False)])
def test_the_published_filters(column: str, value: int | None, kept: bool) -> None:
    rows = market({"A-1": [1.0] * 3}, **{column: value})
    assert len(labels(rows, hours=3)) == (3 if kept else 0)
    assert in_universe(rows).all() == kept


@given(st.integers(1, 10**6), st.integers(1, 16))
def test_a_price_that_rises_by_exactly_ten_percent_in_its_digits_is_no_breakout(digits: int, places: int) -> None:
    old = Decimal(digits * 10).scaleb(-places)
    new = old + Decimal(digits).scaleb(-places)
    found = labels(market({"A-1": [float(old), *[1.0] * 119, float(new)]}), hours=1)
    assert found["y"].tolist() == [0]


def test_a_price_just_above_ten_percent_is_one() -> None:
    assert labels(market({"A-1": [1.0, *[1.0] * 119, 1.1000001]}), hours=1)["y"].tolist() == [1]


def test_labels_equal_pandas_on_random_walks_with_gaps() -> None:
    rng = np.random.default_rng(3)
    series = {
        f"T-{k}": [
            None if rng.random() < 0.05 else float(price)
            for price in 10 * np.exp(np.cumsum(rng.normal(0, 0.01, 24 * 7)))
        ]
        for k in range(8)
    }
    rows = market(series)
    found = labels(rows, hours=48)
    wide = rows.pivot(index="timestamp", columns="token", values="price")
    later = wide.reindex(wide.index + HORIZON).set_axis(wide.index)
    expected = ((later - wide) / wide * 100).where(wide.notna()).stack(future_stack=True)
    lookup = found.set_index(["timestamp", "token"])["cal_price_change"]
    np.testing.assert_allclose(lookup.to_numpy(), expected.reindex(lookup.index).to_numpy(), rtol=1e-12)
    assert len(lookup) == int(wide.iloc[:48].notna().sum().sum())


@pytest.mark.parametrize(
    ("origin", "kept"),
    [("candles:binance", True), ("cmc:history", True), ("cmc", False), ("cmc:followed", False), (None, False)],
)
def test_a_rank_that_nobody_can_know_keeps_no_row_out(origin: str | None, kept: bool) -> None:
    rows = market({"A-1": [1.0] * 3}, cmc_rank=None)
    rows["origin"] = pd.Series([origin] * 3, dtype="str")
    assert len(labels(rows, hours=3)) == (3 if kept else 0)
    assert in_universe(rows).all() == kept
    outside = market({"A-1": [1.0] * 3}, cmc_rank=1001)
    outside["origin"] = rows["origin"]
    assert labels(outside, hours=3).empty
    assert not in_universe(outside).any()


def awkward_market(seed: int) -> pd.DataFrame:
    """Nine days of coins with gaps, changes of units and of source, quarantined and unranked rows, by day."""
    rng = np.random.default_rng(seed)
    walks = {f"T-{k}": (10 * np.exp(np.cumsum(rng.normal(0, 0.02, 24 * 9)))).tolist() for k in (3, 1, 2, 5, 4)}
    rows = market({token: [None if rng.random() < 0.05 else price for price in walk] for token, walk in walks.items()})
    chance = rng.random(len(rows))
    rows.loc[chance < 0.03, "quarantine"] = "GLITCH"
    rows.loc[chance < 0.003, "quarantine"] = "SPLIT_SUSPECT"
    rows.loc[rng.random(len(rows)) < 0.1, "origin"] = "cmc:followed"
    rows.loc[(rows["timestamp"] < FIRST + timedelta(days=4)) & (rows["token"] == "T-2"), "origin"] = "candles:kraken"
    rows["cmc_rank"] = rows["cmc_rank"].mask(pd.Series(rng.random(len(rows)) < 0.1))
    rows["percent_change_7d"] = rng.choice([1.0, 1000.0, 1000.1, np.nan, np.inf], len(rows))
    in_days = rows.assign(day=rows["timestamp"].dt.date).sort_values(["day", "token"], kind="stable", ignore_index=True)
    return in_days.drop(columns="day")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_days_that_are_labelled_together_are_labelled_like_each_alone(seed: int) -> None:
    rows = awkward_market(seed)
    days = [(FIRST + timedelta(days=n)).date() for n in range(4)]
    with duckdb.connect() as connection:
        list(label_days(rows.iloc[:5], rows.iloc[:5][list(SEGMENT_COLUMNS)], days, connection))  # leaves nothing behind
        together = dict(label_days(rows, rows[list(SEGMENT_COLUMNS)], days, connection))
        assert not connection.sql("SHOW ALL TABLES").fetchall()
    assert list(together) == days
    for day in days:
        first, last = day_bounds(day)
        near = rows[rows["timestamp"].between(first, last + HORIZON)]
        read = near[~near["timestamp"].between(last + timedelta(hours=1), first + HORIZON - timedelta(hours=1))]
        alone = label_rows(read.reset_index(drop=True), near[list(SEGMENT_COLUMNS)], first, last)
        pd.testing.assert_frame_equal(together[day], alone, check_exact=True)
    assert pd.concat(together.values())["label_status"].value_counts().min() > 30
    whole = label_rows(rows.sample(frac=1, random_state=1), rows[list(SEGMENT_COLUMNS)], FIRST, day_bounds(days[-1])[1])
    joined = pd.concat(together.values()).sort_values(["token", "timestamp"], ignore_index=True)
    pd.testing.assert_frame_equal(whole, joined, check_exact=True)


def test_a_day_without_rows_among_others_is_empty() -> None:
    rows = market({"A-1": [1.0] * 24 + [None] * 24 + [1.0] * 24})
    days = [(FIRST + timedelta(days=n)).date() for n in range(3)]
    found = dict(label_days(rows, rows[list(SEGMENT_COLUMNS)], days, duckdb.connect()))
    assert [len(found[day]) for day in days] == [24, 0, 24]
    assert found[days[1]].dtypes.to_dict() == found[days[0]].dtypes.to_dict()


def test_the_query_gives_the_same_to_whoever_runs_it_over_a_table_of_market_rows() -> None:
    rows = awkward_market(4)
    last = FIRST + timedelta(days=9)
    found = label_rows(rows, rows[list(SEGMENT_COLUMNS)], FIRST, last)
    snapshots = believed(rows.assign(segment=segments(rows)))
    with duckdb.connect() as connection:
        connection.register("snapshots", snapshots)
        by_hand = connection.execute(f"SELECT * FROM ({LABELS_SQL}) ORDER BY token, timestamp").df()  # noqa: S608
    pd.testing.assert_frame_equal(conform(by_hand, "labelled_dataset"), found, check_exact=True)
    assert {"quarantine", "segment"} <= set(by_hand.columns)
