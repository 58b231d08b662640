import gzip
import json

import pandas as pd
import pytest

from breakout_assets.market.files import read_raw
from breakout_assets.market.gates import REASONS
from breakout_assets.market.history import compact_day
from breakout_assets.market.snapshots import believed, judged, market_rows, segments
from breakout_assets.market.tokens import load_registry
from breakout_assets.store import Store
from breakout_assets_tests.samples import at, coin, listing, put, shared

HOUR = at("2024-03-01 05:00")


def market(store: Store, coins: list[dict[str, object]]) -> pd.DataFrame:
    rows = market_rows(store, load_registry(store), listing(HOUR, coins))
    return judged(rows, rows.iloc[:0])


@pytest.mark.parametrize(
    ("price", "reason"),
    [
        (0.0, "PRICE_NOT_POSITIVE"),
        (-1.0, "PRICE_NOT_POSITIVE"),
        (None, "PRICE_MISSING"),
        (float("nan"), "PRICE_MISSING"),
        (float("inf"), "PRICE_MISSING"),
    ],
)
def test_a_row_without_a_usable_price_is_kept_with_the_reason(store: Store, price: float | None, reason: str) -> None:
    put(store, HOUR, [coin(1), coin(2, price=price)])
    raw = read_raw(list(store.raw_files(HOUR.date()).values()))
    rows = market_rows(store, load_registry(store), raw)
    rows = judged(rows, rows.iloc[:0])
    assert rows["token"].tolist() == ["C1-1", "C2-2"]
    assert rows["quarantine"].fillna("").tolist() == ["", reason]
    assert believed(rows)["token"].tolist() == ["C1-1"]
    assert reason in REASONS


@pytest.mark.parametrize(
    ("volume", "reason"), [(-1.0, "VOLUME_IMPOSSIBLE"), (float("inf"), "VOLUME_IMPOSSIBLE"), (None, "")]
)
def test_an_impossible_volume_is_quarantined_and_an_absent_one_is_not(
    store: Store, volume: float | None, reason: str
) -> None:
    assert market(store, [coin(1, volume_24h=volume)])["quarantine"].fillna("").tolist() == [reason]


@pytest.mark.parametrize("column", ["name", "symbol"])
def test_a_row_without_symbol_or_name_is_kept_and_only_used_if_it_has_an_id(store: Store, column: str) -> None:
    rows = market(store, [coin(1, **{column: None}), coin(2, id=None, **{column: None})])
    assert sorted(rows["quarantine"].fillna("")) == ["", "IDENTITY_MISSING"]


def test_a_coin_listed_twice_counts_once_and_the_first_row_counts(store: Store) -> None:
    rows = market(store, [coin(1, price=1.0), coin(2), coin(1, price=2.0)])
    assert believed(rows)["price"].tolist() == [1.0, 20.0]
    assert rows["quarantine"].dropna().tolist() == ["DUPLICATE"]


def test_a_second_row_stands_in_for_a_first_without_a_price(store: Store) -> None:
    rows = market(store, [coin(1, price=0.0), coin(1, price=2.0)])
    assert believed(rows)["price"].tolist() == [2.0]


def test_rows_without_an_id_that_differ_are_two_coins_nobody_can_tell_apart(store: Store) -> None:
    twins = [coin(1, id=None, price=1.0), coin(1, id=None, price=2.0), coin(2, id=None), coin(2, id=None)]
    rows = market(store, twins)
    assert rows["quarantine"].fillna("").tolist() == ["AMBIGUOUS_IDENTITY", "AMBIGUOUS_IDENTITY", "", "DUPLICATE"]


def test_a_whole_real_listing_goes_through_to_daily_snapshots(store: Store) -> None:
    file = shared("cmc_listings_latest_2021-06-29_limit1000.json.gz")
    data = json.loads(gzip.decompress(file.read_bytes()))["data"]
    hour = at("2021-06-29 00:00")
    put(store, hour, [{**row, **row["quote"]["USD"]} for row in data])
    day = compact_day(store, load_registry(store), hour.date())
    store.write_table("daily_snapshots", hour.date(), day.rows)
    rows = store.read_table("daily_snapshots", [hour.date()])
    assert len(rows) == rows["token"].nunique() == 1000
    shared_symbols = rows["symbol"].value_counts()
    assert sorted(shared_symbols[shared_symbols == 2].index) == ["DG", "FCT", "ONE", "REV", "SCC", "USDX"]
    codes = rows["quarantine"].fillna("").str.split(";").explode().value_counts().to_dict()
    # "Wrapped NXM" and its like are known by their names: a file of the older collector says nothing of kinds.
    assert {code: n for code, n in codes.items() if code} == {"STALE_PRICE": 1, "ZERO_VOLUME": 24, "WRAPPED": 3}
    of_twins = rows[rows["symbol"].isin(["DG", "FCT", "ONE", "REV", "SCC", "USDX"])]
    assert set(of_twins["quarantine"].dropna()) <= {"ZERO_VOLUME"}


def test_six_shared_symbols_of_a_real_listing_stay_apart_without_ids(store: Store) -> None:
    file = shared("cmc_listings_latest_2021-06-29_limit1000.json.gz")
    data = json.loads(gzip.decompress(file.read_bytes()))["data"]
    rows = market(store, [{**row, **row["quote"]["USD"], "id": None} for row in data])
    assert rows["token"].nunique() == 1000
    assert not rows["quarantine"].fillna("").str.contains("DUPLICATE|AMBIGUOUS").any()


def test_segments_count_the_breaks_of_each_token_from_its_first_row_on() -> None:
    rows = pd.DataFrame(
        [
            ("B", 2, None, "cmc"),
            ("A", 1, "SPLIT_SUSPECT", None),
            ("A", 3, None, "candles:kraken"),
            ("B", 1, None, "candles:kraken"),
            ("A", 2, "GLITCH", "cmc:followed"),
            ("B", 3, "SPLIT_SUSPECT;ZERO_VOLUME", "cmc"),
            ("B", 4, None, "cmc"),
            ("C", 1, None, "cmc"),
        ],
        columns=["token", "timestamp", "quarantine", "origin"],
        index=[7, 3, 5, 1, 0, 2, 9, 8],
    ).astype({"quarantine": "str", "origin": "str"})
    assert segments(rows).to_dict() == {7: 1, 3: 1, 5: 2, 1: 0, 0: 1, 2: 2, 9: 2, 8: 0}
    assert segments(rows.iloc[[0, 7]]).tolist() == [0, 0]
    assert segments(rows.iloc[:0]).empty
