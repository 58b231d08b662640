"""The CoinMarketCap source over a store: coins that drop out are followed, missed hours are bought or refused."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import pandas as pd
import pytest

from breakout_assets.dataset.labels import SEGMENT_COLUMNS, label_rows
from breakout_assets.errors import DataError
from breakout_assets.market.collect import CoinMarketCapSource, CollectedHour, Outcome, collect
from breakout_assets.market.files import read_raw
from breakout_assets.market.history import compact_day, read_until
from breakout_assets.market.schema import ORIGIN_FOLLOWED, ORIGIN_HISTORY, ORIGIN_LISTING
from breakout_assets.market.tokens import load_registry
from breakout_assets.store import Store
from breakout_assets_tests.market.listingserver import (
    HOUR,
    LISTING_PATH,
    FakeApi,
    coin,
    envelope,
    error_body,
    listing,
    past_coin,
    serving,
)
from breakout_assets_tests.samples import coin as row
from breakout_assets_tests.samples import put

QUOTES, PAST = "/v3/cryptocurrency/quotes/latest", "/v3/cryptocurrency/quotes/historical"


@dataclass
class At:
    """A clock that stands still."""

    time: datetime

    def now(self, hour: datetime) -> datetime:
        return self.time


@pytest.fixture(scope="module")
def api() -> Iterator[FakeApi]:
    with serving() as fake:
        yield fake


def one(store: Store, api: FakeApi, hour: datetime = HOUR, now: datetime | None = None, **more: bool) -> Outcome:
    clock = At(now or hour + timedelta(minutes=26))
    source = CoinMarketCapSource(api.client(limit=2), clock=clock, **more)
    return dict(collect(store, source, [hour], "csv"))[hour]


def raw_of(store: Store, hour: datetime = HOUR) -> pd.DataFrame:
    file = store.raw_file(hour)
    assert file is not None
    return read_raw([file]).set_index("id")


def list_before(store: Store, *hours_ago: int, coins: int = 3) -> None:
    """Days in which the coins 100, 200, … were listed, compacted."""
    for hours in hours_ago:
        rows = [row(n, id=100 * n, price=n + hours / 1000, origin="cmc") for n in range(1, coins + 1)]
        put(store, HOUR - timedelta(hours=hours), rows)
    for day in sorted({(HOUR - timedelta(hours=hours)).date() for hours in hours_ago}):
        store.write_table("daily_snapshots", day, compact_day(store, load_registry(store), day).rows)


def test_a_coin_that_dropped_out_is_asked_for_by_id_and_marked(store: Store, api: FakeApi) -> None:
    list_before(store, 30)
    api.plays(listing(2))
    api.then(envelope({"300": coin(3)}), at=QUOTES)
    found = one(store, api, follow=True)
    assert isinstance(found, CollectedHour)
    rows = raw_of(store)
    assert rows["origin"].to_dict() == {100: ORIGIN_LISTING, 200: ORIGIN_LISTING, 300: ORIGIN_FOLLOWED}
    assert rows.loc[300, "price"] == pytest.approx(3.25)
    assert found.details["follow_followed"] == 1
    assert [request.query["id"] for request in api.requests if request.path == QUOTES] == [["300"]]


@pytest.mark.parametrize(("hours_ago", "asked"), [(119, True), (120, True), (121, False)])
def test_a_coin_is_followed_for_five_days(store: Store, api: FakeApi, hours_ago: int, asked: bool) -> None:
    list_before(store, hours_ago)
    api.plays(listing(2))
    api.then(envelope({"300": coin(3)}), at=QUOTES)
    one(store, api, follow=True)
    assert (QUOTES in api.paths()) == asked


def test_a_followed_coin_is_not_followed_for_ever(store: Store, api: FakeApi) -> None:
    """Its own followed rows do not count as a listing."""
    list_before(store, 121)
    put(store, HOUR - timedelta(hours=30), [row(3, id=300, origin=ORIGIN_FOLLOWED)])
    day = (HOUR - timedelta(hours=30)).date()
    store.write_table("daily_snapshots", day, compact_day(store, load_registry(store), day).rows)
    api.plays(listing(2))
    one(store, api, follow=True)
    assert api.paths() == [LISTING_PATH]


def test_the_label_of_a_coin_that_dropped_out_does_not_vanish(store: Store, api: FakeApi) -> None:
    list_before(store, 120)
    api.plays(listing(2))
    api.then(envelope({"300": coin(3)}), at=QUOTES)
    one(store, api, follow=True)
    market = read_until(store, HOUR - timedelta(hours=120), HOUR)
    then = HOUR - timedelta(hours=120)
    labels = label_rows(market, market[list(SEGMENT_COLUMNS)], then, then).set_index("id")
    assert labels["label_status"].to_dict() == {100: "labelled", 200: "labelled", 300: "labelled"}


def test_the_listing_is_kept_when_following_fails(store: Store, api: FakeApi) -> None:
    list_before(store, 30)
    api.plays(listing(2))
    api.then(error_body(1006), 403, at=QUOTES)
    found = one(store, api, follow=True)
    assert isinstance(found, CollectedHour)
    assert raw_of(store).index.tolist() == [100, 200]
    assert "1006" in str(found.details["follow_failed"])


def test_nothing_is_followed_unless_told_to(store: Store, api: FakeApi) -> None:
    list_before(store, 30)
    api.plays(listing(2))
    one(store, api)
    assert api.paths() == [LISTING_PATH]


def test_a_missed_hour_is_bought_for_the_coins_of_the_hour_before(store: Store, api: FakeApi) -> None:
    list_before(store, 2, coins=2)
    body = {"100": past_coin(1, "2025-07-01T18:00:10.000Z"), "200": past_coin(2, "2025-07-01T18:00:10.000Z")}
    api.plays(envelope(body), at=PAST)
    found = one(store, api, now=HOUR + timedelta(days=3), history=True)
    assert isinstance(found, CollectedHour)
    rows = raw_of(store)
    assert rows["origin"].unique().tolist() == [ORIGIN_HISTORY]
    assert rows["price"].to_dict() == {100: 1.0, 200: 2.0}
    assert rows["cmc_rank"].isna().all()
    assert api.paths() == [PAST]


@pytest.mark.parametrize(("history", "words"), [(True, "says which coins to buy"), (False, "is over")])
def test_a_missed_hour_that_cannot_be_had_fails_at_once(store: Store, api: FakeApi, history: bool, words: str) -> None:
    if not history:
        list_before(store, 2)  # it could be bought, and nobody said that it should be
    api.plays(listing(2))
    found = one(store, api, now=HOUR + timedelta(days=3), history=history)
    assert isinstance(found, DataError)
    assert words in str(found)
    assert api.requests == []
    assert store.raw_file(HOUR) is None


def test_a_plan_without_history_says_so_and_stores_nothing(store: Store, api: FakeApi) -> None:
    list_before(store, 2)
    api.plays(error_body(1006), 403)
    found = one(store, api, now=HOUR + timedelta(days=3), history=True)
    assert isinstance(found, DataError)
    assert "plan" in str(found)
    assert store.raw_file(HOUR) is None


def test_only_the_last_month_can_be_bought(api: FakeApi) -> None:
    source = CoinMarketCapSource(api.client(), history=True)
    hours = [HOUR, HOUR - timedelta(days=30), HOUR - timedelta(days=30, hours=1), HOUR + timedelta(hours=1)]
    assert [source.can_fetch(hour, HOUR) for hour in hours] == [True, True, False, False]
    assert "without a key" in CoinMarketCapSource(api.client(keyless=True)).description
