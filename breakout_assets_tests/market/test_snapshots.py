import pandas as pd
import pytest

from breakout_assets.market.files import read_raw
from breakout_assets.market.snapshots import QUARANTINE_REASONS, believed, market_rows
from breakout_assets.market.tokens import load_registry
from breakout_assets.store import Store
from breakout_assets_tests.samples import SHARED_DATA, at, coin, listing, put, shared

HOUR = at("2024-03-01 05:00")


def market(store: Store, coins: list[dict[str, object]]) -> pd.DataFrame:
    return market_rows(store, load_registry(store), listing(HOUR, coins))


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
    rows = market_rows(store, load_registry(store), read_raw(store, list(store.raw_files(HOUR.date()).values())))
    assert rows["token"].tolist() == ["C1-1", "C2-2"]
    assert rows["quarantine"].fillna("").tolist() == ["", reason]
    assert believed(rows)["token"].tolist() == ["C1-1"]
    assert reason in QUARANTINE_REASONS


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


def test_every_reason_is_explained(store: Store) -> None:
    nameless = coin(5, id=None, name=None)
    rows = market(
        store, [coin(1), coin(1), coin(2, price=0.0), coin(3, price=None), coin(4, volume_24h=-1.0), nameless]
    )
    assert set(rows["quarantine"].dropna()) == {*QUARANTINE_REASONS} - {"AMBIGUOUS_IDENTITY"}


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


def test_six_shared_symbols_of_a_real_listing_stay_apart(store: Store) -> None:
    import gzip
    import json

    file = shared("cmc_listings_latest_2021-06-29_limit1000.json.gz")
    assert file.parent == SHARED_DATA
    data = json.loads(gzip.decompress(file.read_bytes()))["data"]
    coins = [{**row, **row["quote"]["USD"]} for row in data]
    rows = market(store, coins)
    assert len(believed(rows)) == 1000
    twice = rows["symbol"].value_counts()
    assert sorted(twice[twice == 2].index) == ["DG", "FCT", "ONE", "REV", "SCC", "USDX"]
    without_ids = market(Store.at(str(store.root) + "-2"), [{**row, "id": None} for row in coins])
    assert len(believed(without_ids)) == 1000
