"""The CoinMarketCap client against a real HTTP server on loopback: what it asks, what it believes, what it says."""

import copy
import gzip
import json
import logging
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from breakout_assets.errors import DataError, SettingsError, TemporaryError
from breakout_assets.market.coinmarketcap import CoinMarketCap, Snapshot
from breakout_assets.market.schema import RAW_COLUMNS
from breakout_assets_tests.market.listingserver import (
    HOUR,
    INFO_PATH,
    KEY,
    LISTING_PATH,
    NOW,
    OLD_FILE,
    V1_FILE,
    V3_FILE,
    FakeApi,
    coin,
    envelope,
    error_body,
    key_info,
    listing,
    past_coin,
    serving,
    shared,
)
from breakout_assets_tests.market.test_listing import LACKING, assert_valid, mutated

ON_TIME = "2025-07-01T18:04:16.000Z"
CALLS: list[tuple[str, list[Any]]] = [("fetch", []), ("followed", [[100, 200]]), ("past", [[100, 200]])]
every_call = pytest.mark.parametrize(("call", "arguments"), CALLS, ids=[call for call, _ in CALLS])


@pytest.fixture(scope="module")
def api() -> Iterator[FakeApi]:
    with serving() as fake:
        yield fake


def good(call: str) -> dict[str, Any]:
    """An answer that a call believes."""
    return envelope([past_coin(1, ON_TIME), past_coin(2, ON_TIME)]) if call == "past" else listing()


# --- what is asked -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["v1", "v3"])
def test_the_request_names_limit_and_currency_and_carries_the_key_in_its_header_only(
    api: FakeApi, version: str
) -> None:
    api.plays(listing(777, version))
    api.fetch(api_version=version, limit=777)
    [request] = api.requests
    assert request.path == f"/{version}/cryptocurrency/listings/latest"
    assert request.query == {"limit": ["777"], "convert": ["USD"], "sort": ["market_cap"]}
    assert KEY not in request.line
    assert [name for name, value in request.headers.items() if KEY in value] == ["X-CMC_PRO_API_KEY"]
    assert request.headers["Accept"] == "application/json"


@every_call
def test_the_key_is_asked_for_once_in_a_call_and_never_shown(
    api: FakeApi, caplog: pytest.LogCaptureFixture, call: str, arguments: list[Any]
) -> None:
    asked = []

    def key(text: str) -> str:
        asked.append(text)
        return text

    caplog.set_level(logging.DEBUG)
    api.plays(error_body(500, f"busy, {KEY}"), 500)
    api.then(key_info(), at=INFO_PATH)
    api.then(good(call))
    client = api.client(key=partial(key, KEY), monthly_budget=1000)
    assert asked == []
    assert KEY not in repr(client) + str(client)
    last = {"fetch": (HOUR, NOW), "followed": (*arguments, HOUR, NOW), "past": (HOUR, *arguments, NOW + timedelta(1))}
    name = {"fetch": "fetch", "followed": "fetch_followed", "past": "fetch_past"}[call]
    snapshot = getattr(client, name)(*last[call])
    assert asked == [KEY]
    assert all(request.headers["X-CMC_PRO_API_KEY"] == KEY for request in api.requests)
    assert len(api.requests) == 3
    assert KEY not in repr(snapshot) + repr(snapshot.metadata)
    assert "attempt 1 failed: HTTP 500" in caplog.text
    assert "[key]" in caplog.text
    assert "urllib3" in caplog.text, "urllib3 logs its requests at this level"
    assert KEY not in caplog.text


@pytest.mark.parametrize("key", ["", "  \n", "two words", '"quoted"', "line\nbreak", "ключ"])
@every_call
def test_a_key_that_cannot_be_one_is_refused_before_anything_is_sent(
    api: FakeApi, key: str, call: str, arguments: list[Any]
) -> None:
    api.plays(listing())
    with pytest.raises(SettingsError, match="BREAKOUT_CMC_API_KEY") as caught:
        getattr(api, call)(*arguments, key=lambda: key)
    assert api.requests == []
    assert ("is not set" if not key.strip() else "contains characters") in str(caught.value)
    assert not key.strip() or key not in str(caught.value)


def test_white_space_around_the_key_is_dropped(api: FakeApi) -> None:
    api.plays(listing())
    api.fetch(key=lambda: f" {KEY}\n")
    assert api.requests[0].headers["X-CMC_PRO_API_KEY"] == KEY


@pytest.mark.parametrize(
    "url",
    ["", "pro-api.coinmarketcap.com", "ftp://h", "https://me:pw@h", "https://h?key=pw", "https://h#pw", "http://["],
)
def test_an_address_that_is_none_or_may_hold_a_secret_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(SettingsError, match="BREAKOUT_CMC_URL") as caught:
        CoinMarketCap(base_url=url, key=lambda: KEY)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "name"),
    [("page_size", -1, "PAGE_SIZE"), ("page_size", 5001, "PAGE_SIZE"), ("monthly_budget", -1, "MONTHLY_BUDGET")],
)
def test_an_impossible_setting_is_refused(api: FakeApi, field: str, value: int, name: str) -> None:
    with pytest.raises(SettingsError, match=f"BREAKOUT_CMC_{name}"):
        api.client(**{field: value})


def test_defaults_and_constants() -> None:
    client = CoinMarketCap(key=lambda: KEY)
    assert client.endpoint == "https://pro-api.coinmarketcap.com/v3/cryptocurrency/listings/latest"
    assert (client.limit, client.timeout, client.name, client.simulated) == (1250, 30, "coinmarketcap", False)
    assert (client.keyless, client.page_size, client.monthly_budget) == (False, 0, 0)
    assert CoinMarketCap(base_url="https://x/", key=lambda: KEY).endpoint.startswith("https://x/v3/")


# --- without a key -------------------------------------------------------------------------------------------------


def no_key() -> str:
    raise AssertionError("the key was asked for")


@every_call
def test_keyless_asks_the_public_interface_and_sends_no_key(api: FakeApi, call: str, arguments: list[Any]) -> None:
    body = good(call)
    body["status"]["error_code"] = "0"
    api.plays(body)
    metadata = getattr(api, call)(*arguments, keyless=True, key=no_key, monthly_budget=1).metadata
    [request] = api.requests
    assert request.path.startswith("/public-api/v3/cryptocurrency/")
    assert not any("key" in name.lower() for name in request.headers)
    assert metadata["access"] == "keyless"
    assert metadata["endpoint"] == api.url + request.path
    assert "credits_budget" not in metadata


def test_the_endpoint_of_keyless_is_the_public_one(api: FakeApi) -> None:
    assert api.client(keyless=True, api_version="v1").endpoint == (
        f"{api.url}/public-api/v1/cryptocurrency/listings/latest"
    )


def test_a_key_that_fails_never_leads_to_the_public_interface(api: FakeApi) -> None:
    api.plays(error_body(1001), 401)
    api.then(listing(), at=f"/public-api{LISTING_PATH}")
    api.failure(DataError)
    assert api.paths() == [LISTING_PATH]


def test_a_keyless_error_tells_how_to_set_a_key(api: FakeApi) -> None:
    api.plays(error_body(1005), 403)
    assert "Set BREAKOUT_CMC_API_KEY" in api.failure(DataError, keyless=True, key=no_key)


# --- the hour ------------------------------------------------------------------------------------------------------


def test_the_current_hour_is_fetched_from_its_first_moment_on(api: FakeApi) -> None:
    api.plays(listing())
    assert api.fetch(now=HOUR).frame["timestamp"].eq(pd.Timestamp(HOUR)).all()


def test_the_last_moment_of_an_hour_is_not_refused_but_may_be_too_short_for_an_answer(api: FakeApi) -> None:
    api.plays(listing(), hang="before headers")
    assert "was not complete" in api.failure(TemporaryError, now=HOUR + timedelta(hours=1, microseconds=-1))


OTHER_HOURS = [
    (HOUR, HOUR + timedelta(hours=1), "from a file"),
    (HOUR, HOUR + timedelta(days=400), "from a file"),
    (HOUR, HOUR - timedelta(microseconds=1), "not begun"),
    (HOUR + timedelta(minutes=1), NOW, "whole hour"),
    (HOUR.astimezone(), NOW, "naive UTC"),
    (HOUR, NOW.astimezone(), "naive UTC"),
]


@pytest.mark.parametrize(("hour", "now", "words"), OTHER_HOURS)
def test_any_other_hour_is_refused_before_the_key_is_asked_for(
    api: FakeApi, hour: datetime, now: datetime, words: str
) -> None:
    api.plays(listing())
    with pytest.raises(DataError, match=words):
        api.client(key=no_key).fetch(hour, now)
    with pytest.raises(DataError, match=words):
        api.client(key=no_key).fetch_followed([], hour, now)
    assert api.requests == []


@pytest.mark.parametrize(
    ("hour", "now", "words"),
    [(HOUR, NOW, "not over"), (HOUR, HOUR + timedelta(minutes=59, seconds=59), "not over"), *OTHER_HOURS[3:]],
)
def test_a_past_hour_must_be_over(api: FakeApi, hour: datetime, now: datetime, words: str) -> None:
    api.plays(good("past"))
    with pytest.raises(DataError, match=words):
        api.client(key=no_key).fetch_past(hour, [100], now)
    assert api.requests == []
    assert len(api.client().fetch_past(HOUR, [100], HOUR + timedelta(hours=1)).frame) == 1


# --- when the server made its answer -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stamp", "believed"),
    [
        ("2025-07-01T17:57:59.999Z", False),
        ("2025-07-01T17:58:00.000Z", True),
        ("2025-07-01T18:59:59.999Z", True),
        ("2025-07-01T19:00:00.000Z", False),
        ("2024-07-01T18:26:00.000Z", False),
        ("2025-07-01T18:26:00.000+09:00", False),
        ("soon", True),
        (None, True),
        (5, True),
    ],
)
@pytest.mark.parametrize("call", ["fetch", "followed"])
def test_an_answer_that_was_made_in_another_hour_is_refused(
    api: FakeApi, call: str, stamp: object, believed: bool
) -> None:
    body = listing(timestamp=stamp)
    api.plays(body)
    arguments = [[100]] if call == "followed" else []
    if believed:
        assert len(getattr(api, call)(*arguments).frame) > 0
        return
    message = api.failure(DataError, call, *arguments)
    assert "was made at" in message
    assert "clock" in message
    assert "cache" in message
    assert len(api.requests) == 1


# --- success -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["v1", "v3"])
def test_a_listing_becomes_a_raw_frame(api: FakeApi, version: str) -> None:
    api.plays(listing(version=version))
    frame = api.fetch(api_version=version).frame
    assert_valid(frame)
    assert frame["price"].tolist() == [1.25, 2.25, 3.25]
    assert frame["origin"].eq("cmc").all()


def test_the_metadata_say_where_the_snapshot_came_from_and_invent_nothing(api: FakeApi) -> None:
    body = listing(credit_count=7, notice=f"95 % of your credits\nare used, {KEY}")
    api.plays(body)
    known = {
        "source": "coinmarketcap",
        "endpoint": f"{api.url}{LISTING_PATH}",
        "access": "key",
        "coins": 3,
        "asked": 3,
        "pages": 1,
        "repeated": 0,
    }
    assert api.fetch().metadata == known | {
        "credits": 7,
        "server_timestamp": "2025-07-01T18:26:29.000Z",
        "notice": "95 % of your credits are used, [key]",
    }
    api.plays({"data": body["data"]})
    assert api.fetch().metadata == known


@pytest.mark.parametrize("code", [0, "0", None])
def test_success_may_be_written_as_number_text_or_null(api: FakeApi, code: object) -> None:
    api.plays(listing(error_code=code))
    assert len(api.fetch().frame) == 3


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_a_compressed_or_chunked_answer_is_read(api: FakeApi, chunked: bool, packed: bool) -> None:
    body = json.dumps(listing()).encode()
    headers = {"Content-Encoding": "gzip"} if packed else {}
    api.plays(gzip.compress(body) if packed else body, headers=headers, chunked=chunked)
    assert len(api.fetch().frame) == 3
    assert "gzip" in api.requests[0].headers["Accept-Encoding"]


def test_a_value_that_cannot_be_believed_is_refused_naming_request_coin_and_field(api: FakeApi) -> None:
    api.plays(json.dumps(listing()).replace('"price": 2.25', '"price": 1e999').encode())
    message = api.failure(DataError)
    assert f"GET {api.url}{LISTING_PATH} for hour 2025-07-01 18:00 UTC: HTTP 200, error code 0" in message
    assert "coin 2 (id 200, symbol 'C2'): field price is not a finite number" in message
    api.plays(envelope([]))
    assert "`data` holds no list of coins" in api.failure(DataError)
    assert len(api.requests) == 1


def test_a_new_field_is_one_log_line_a_process_and_never_the_key(
    api: FakeApi, caplog: pytest.LogCaptureFixture
) -> None:
    body = listing()
    for one in body["data"]:
        one["field_of_this_test"] = 1
        one["quote"][1][f"echo_{KEY}"] = 1
    api.plays(body)
    api.fetch()
    api.fetch()
    api.followed([100])
    lines = [record.getMessage() for record in caplog.records if "is new here" in record.getMessage()]
    assert sum("coin.field_of_this_test" in line for line in lines) == 1
    assert sum("quote.echo_[key]" in line for line in lines) == 1
    assert KEY not in caplog.text


# --- pages ---------------------------------------------------------------------------------------------------------


def test_pages_are_asked_for_one_after_the_other_up_to_the_limit(api: FakeApi) -> None:
    api.plays(listing(2, first=1, credit_count=1))
    api.then(listing(2, first=3, credit_count=1, timestamp="2025-07-01T18:26:40.000Z"))
    api.then(listing(1, first=5, credit_count=1))
    snapshot = api.fetch(limit=5, page_size=2)
    assert [(request.query["start"], request.query["limit"]) for request in api.requests] == [
        (["1"], ["2"]),
        (["3"], ["2"]),
        (["5"], ["1"]),
    ]
    assert_valid(snapshot.frame)
    assert snapshot.frame["id"].tolist() == [100, 200, 300, 400, 500]
    assert snapshot.metadata["credits"] == 3
    assert (snapshot.metadata["pages"], snapshot.metadata["repeated"], snapshot.metadata["asked"]) == (3, 0, 5)


def test_a_coin_that_a_later_page_repeats_is_kept_once_as_it_was_first(api: FakeApi) -> None:
    moved = envelope([{**coin(10), "cmc_rank": 1}, *(coin(number) for number in range(11, 20))])
    api.plays(listing(10))
    api.then(moved)
    snapshot = api.fetch(limit=20, page_size=10)
    assert snapshot.frame["id"].tolist() == [100 * number for number in range(1, 20)]
    assert snapshot.frame.set_index("id").loc[1000, "cmc_rank"] == 1000
    counts = {name: snapshot.metadata[name] for name in ("coins", "asked", "pages", "repeated")}
    assert counts == {"coins": 19, "asked": 20, "pages": 2, "repeated": 1}


@pytest.mark.parametrize("total", [3, "3"])
def test_no_page_is_asked_for_beyond_the_total(api: FakeApi, total: object) -> None:
    api.plays(listing(2, total_count=total))
    api.then(listing(1, first=3, total_count=total))
    assert api.fetch(limit=10, page_size=2).metadata["asked"] == 3
    assert len(api.requests) == 2


def test_an_empty_page_is_the_end_of_the_list(api: FakeApi) -> None:
    api.plays(listing(10))
    api.then(envelope([]))
    assert len(api.fetch(limit=11, page_size=10).frame) == 10
    api.plays(envelope([]))
    assert "holds no list of coins (it is empty)" in api.failure(DataError, page_size=1)


def test_a_failure_on_a_later_page_loses_the_hour_but_not_the_pages_before(api: FakeApi) -> None:
    api.plays(listing(2))
    api.then(error_body(500), 500)
    api.then(listing(1, first=3))
    assert len(api.fetch(page_size=2).frame) == 3
    api.plays(listing(2))
    api.then(error_body(1010), 429)
    assert "error code 1010" in api.failure(DataError, page_size=2)


# --- a listing that is too short -----------------------------------------------------------------------------------


def test_a_listing_below_nine_tenths_of_what_was_asked_is_refused_naming_both_numbers(api: FakeApi) -> None:
    api.plays(listing(9))
    assert api.fetch(limit=10).metadata["asked"] == 10
    api.plays(listing(8))
    message = api.failure(TemporaryError, limit=10)
    assert "8 coins of 10" in message
    assert "BREAKOUT_CMC_LIMIT" in message
    assert len(api.requests) == 1, "an answer that has cost its credits is not asked for again at once"


@pytest.mark.parametrize(
    ("total", "fits"), [(8, True), ("8", True), (9, False), (0, False), (None, False), ("x", False)]
)
def test_the_total_counts_where_it_is_smaller_than_the_limit(api: FakeApi, total: object, fits: bool) -> None:
    api.plays(listing(8, total_count=total))
    if fits:
        assert api.fetch(limit=100).metadata["asked"] == 8
    else:
        api.failure(TemporaryError, limit=10)


def test_a_coin_listed_twice_counts_once(api: FakeApi) -> None:
    body = listing(8)
    body["data"] += copy.deepcopy(body["data"][:2])
    api.plays(body)
    assert "8 coins of 10" in api.failure(TemporaryError, limit=10)


# --- coins that dropped out of the listing -------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "path"), [("v1", "v2"), ("v3", "v3")])
def test_followed_coins_are_asked_for_by_id(api: FakeApi, version: str, path: str) -> None:
    api.plays(envelope({"100": coin(1, version), "300": [coin(3, version)]}))
    snapshot = api.followed([300, 100, 700, 300], api_version=version)
    [request] = api.requests
    assert request.path == f"/{path}/cryptocurrency/quotes/latest"
    assert request.query == {"id": ["300,100,700"], "convert": ["USD"], "skip_invalid": ["true"]}
    assert_valid(snapshot.frame)
    assert snapshot.frame["id"].tolist() == [100, 300]
    assert snapshot.frame["origin"].eq("cmc:followed").all()
    assert snapshot.metadata == {
        "source": "coinmarketcap",
        "endpoint": f"{api.url}{request.path}",
        "access": "key",
        "coins": 2,
        "followed": 3,
        "lost": 1,
        "credits": 1,
        "server_timestamp": "2025-07-01T18:26:29.000Z",
    }


def test_many_coins_are_asked_for_a_hundred_at_a_time(api: FakeApi) -> None:
    api.plays(envelope([coin(number) for number in range(1, 101)]))
    api.then(envelope([coin(number) for number in range(101, 120)]))
    snapshot = api.followed([100 * number for number in range(1, 121)])
    assert [request.query["id"][0].count(",") + 1 for request in api.requests] == [100, 20]
    assert (len(snapshot.frame), snapshot.metadata["lost"], snapshot.metadata["credits"]) == (119, 1, 2)


def test_nothing_is_asked_where_no_coin_is_followed(api: FakeApi) -> None:
    api.plays(listing())
    snapshot = api.followed([], key=no_key)
    assert api.requests == []
    assert tuple(snapshot.frame.columns) == RAW_COLUMNS
    assert (len(snapshot.frame), snapshot.metadata["followed"], snapshot.metadata["lost"]) == (0, 0, 0)


def test_all_followed_coins_may_be_lost(api: FakeApi) -> None:
    api.plays(envelope({}))
    snapshot = api.followed([100, 200])
    assert_valid(snapshot.frame)
    assert (len(snapshot.frame), snapshot.metadata["lost"]) == (0, 2)


@pytest.mark.parametrize("wrong", [0, -5, True, "100", 1.5, None, 2**53])
def test_what_is_no_id_is_refused(api: FakeApi, wrong: object) -> None:
    api.plays(listing())
    ids: list[Any] = [100, wrong]
    with pytest.raises(DataError, match="is no id of a coin"):
        api.followed(ids)
    with pytest.raises(DataError, match="is no id of a coin"):
        api.past(ids)
    assert api.requests == []


def test_ids_of_a_frame_are_taken(api: FakeApi) -> None:
    api.plays(listing())
    assert api.followed(list(pd.Series([100, 200], dtype="Int64"))).metadata["coins"] == 2
    assert api.followed(list(pd.Series([100, 200]).to_numpy())).metadata["coins"] == 2


# --- hours that are over -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "path"), [("v1", "v2"), ("v3", "v3")])
def test_a_past_hour_is_asked_for_by_its_first_ten_minutes(api: FakeApi, version: str, path: str) -> None:
    coins = {str(100 * n): past_coin(n, ON_TIME, "2025-07-01T19:04:00.000Z", version=version) for n in (1, 2)}
    api.plays(envelope(coins, timestamp="2025-07-02T18:26:29.000Z"))
    snapshot = api.past([100, 200, 300], api_version=version)
    [request] = api.requests
    assert request.path == f"/{path}/cryptocurrency/quotes/historical"
    assert request.query == {
        "id": ["100,200,300"],
        "convert": ["USD"],
        "skip_invalid": ["true"],
        "interval": ["hourly"],
        "time_start": ["2025-07-01T17:59:59.000Z"],
        "time_end": ["2025-07-01T18:10:00.000Z"],
    }
    assert_valid(snapshot.frame)
    assert snapshot.frame["price"].tolist() == [1, 2]
    assert snapshot.frame["origin"].eq("cmc:history").all()
    assert snapshot.frame[["cmc_rank", "num_market_pairs", "kind"]].isna().all().all()
    assert {name: snapshot.metadata[name] for name in ("coins", "asked", "lost", "credits")} == {
        "coins": 2,
        "asked": 3,
        "lost": 1,
        "credits": 1,
    }


def test_a_single_coin_of_the_past_is_not_wrapped(api: FakeApi) -> None:
    api.plays(envelope(past_coin(1, ON_TIME)))
    assert api.past([100]).frame["price"].tolist() == [1]


def test_many_coins_of_the_past_are_asked_for_a_hundred_at_a_time(api: FakeApi) -> None:
    api.plays(envelope([past_coin(number, ON_TIME) for number in range(1, 101)]))
    api.then(envelope({}))
    assert api.past([100 * number for number in range(1, 151)]).metadata["lost"] == 50
    assert len(api.requests) == 2


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (403, error_body(1006)),
        (403, error_body(1005)),
        (403, b"<html>"),
        (400, error_body(400, 'Invalid value for "time_start"')),
        (200, envelope({})),
        (200, envelope([])),
        (200, envelope({"100": past_coin(1)})),
        (200, envelope({"100": past_coin(1, "2025-07-02T18:04:16.000Z")})),
    ],
)
def test_an_hour_that_the_plan_does_not_cover_names_the_alternatives(api: FakeApi, status: int, body: object) -> None:
    api.plays(body, status)
    message = api.failure(DataError, "past", [100, 200])
    assert "cannot be had from this plan" in message
    assert "Import the hour from a file" in message
    assert "candles" in message
    assert len(api.requests) == 1


def test_other_errors_of_the_past_do_not_blame_the_plan(api: FakeApi) -> None:
    api.plays(error_body(1001), 401)
    assert "cannot be had" not in api.failure(DataError, "past", [100])
    api.plays(error_body(500), 500)
    assert "cannot be had" not in api.failure(TemporaryError, "past", [100])


def test_a_past_hour_without_coins_is_refused(api: FakeApi) -> None:
    with pytest.raises(DataError, match="no coins were named for hour 2025-07-01 18:00 UTC"):
        api.past([])


def test_a_past_hour_may_take_longer_than_an_hour_has_left(api: FakeApi) -> None:
    api.plays(error_body(1008), 429)
    api.then(good("past"))
    assert len(api.past([100, 200]).frame) == 2
    assert api.time.waits == [60]


# --- credits -------------------------------------------------------------------------------------------------------


def test_the_credits_are_asked_for_before_a_listing_where_a_budget_is_set(api: FakeApi) -> None:
    api.plays(listing(450))
    api.then(key_info(used=100, limit=10_000), at=INFO_PATH)
    metadata = api.fetch(limit=450, monthly_budget=5000).metadata
    assert api.paths() == [INFO_PATH, LISTING_PATH]
    assert metadata["credits_used_this_month"] == 100
    assert metadata["credits_budget"] == 5000
    # From 18:00 on the first of July to the reset on the first of August are 726 hours of 3 credits.
    assert metadata["credits_projected_month"] == 100 + 726 * 3
    assert metadata["credits"] == 1, "of the listing alone"


@every_call
def test_without_a_budget_the_credits_are_not_asked_for(api: FakeApi, call: str, arguments: list[Any]) -> None:
    api.plays(good(call))
    metadata = getattr(api, call)(*arguments).metadata
    assert INFO_PATH not in api.paths()
    assert not any(name.startswith("credits_") for name in metadata)


@every_call
def test_a_call_that_the_budget_does_not_allow_is_refused_before_it_is_made(
    api: FakeApi, call: str, arguments: list[Any]
) -> None:
    api.plays(good(call))
    api.then(key_info(used=99, limit=10_000), at=INFO_PATH)
    assert getattr(api, call)(*arguments, monthly_budget=100).metadata["credits_used_this_month"] == 99
    api.requests.clear()
    message = api.failure(DataError, call, *arguments, monthly_budget=99)
    for words in ("99 are used", "this call costs 1", "99 are allowed", "2025-08-01 00:00 UTC"):
        assert words in message
    assert api.paths() == [INFO_PATH]


def test_pages_cost_what_they_cost_one_by_one(api: FakeApi) -> None:
    api.plays(listing())
    api.then(key_info(used=0, limit=1), at=INFO_PATH)
    assert "this call costs 3" in api.failure(DataError, limit=3, page_size=1, monthly_budget=10)


def test_an_answer_that_does_not_tell_the_usage_does_not_lose_the_hour(
    api: FakeApi, caplog: pytest.LogCaptureFixture
) -> None:
    api.plays(listing())
    api.then(envelope({"plan": None}), at=INFO_PATH)
    metadata = api.fetch(monthly_budget=100).metadata
    assert metadata["credits_budget"] == 100
    assert "credits_used_this_month" not in metadata
    assert "the monthly budget is not checked" in caplog.text


def test_credits_that_cannot_be_asked_for_are_not_spent(api: FakeApi) -> None:
    api.plays(listing())
    api.then(error_body(1001), 401, at=INFO_PATH)
    assert INFO_PATH in api.failure(DataError, monthly_budget=100)
    assert api.paths() == [INFO_PATH]


# --- the key in what the server says -------------------------------------------------------------------------------


@pytest.mark.parametrize("echo", [KEY, KEY.upper(), KEY.lower()])
@every_call
def test_a_key_that_the_server_echoes_is_taken_out_of_every_error(
    api: FakeApi, caplog: pytest.LogCaptureFixture, echo: str, call: str, arguments: list[Any]
) -> None:
    wrong = good(call)
    wrong["data"][1]["symbol"] = f"C-{echo}"
    wrong["data"][1]["name"] = 5
    escaped = "".join(f"\\u{ord(character):04x}" for character in echo)
    for status, body in (
        (401, error_body(1001, f"The key {echo} is invalid.")),
        (401, error_body(echo)),
        (401, b'{"status": {"error_code": 1001, "error_message": "' + escaped.encode() + b'"}}'),
        (403, f"<html>Your request: {echo}".encode()),
        (200, wrong),
    ):
        api.plays(body, status)
        assert "[key]" in api.failure(DataError, call, *arguments)
    assert KEY.lower() not in caplog.text.lower()


@every_call
def test_a_key_that_the_answer_about_it_echoes_is_taken_out_too(
    api: FakeApi, caplog: pytest.LogCaptureFixture, call: str, arguments: list[Any]
) -> None:
    api.plays(good(call))
    api.then(error_body(1007, f"{KEY} is disabled"), 403, at=INFO_PATH)
    assert "[key] is disabled" in api.failure(DataError, call, *arguments, monthly_budget=5)
    assert KEY not in caplog.text


@pytest.mark.parametrize("place", range(200 - len(KEY), 201, 7))
def test_a_key_that_lies_across_the_cut_is_not_shown_in_part(api: FakeApi, place: int) -> None:
    text = "." * place + KEY + "." * 100
    api.plays(text.encode(), 503)
    assert KEY[:4] not in api.failure(TemporaryError)
    api.plays(error_body(1001, text), 401)
    assert KEY[:4] not in api.failure(DataError)
    long_symbol = listing()
    long_symbol["data"][0] |= {"symbol": text, "name": 5}
    api.plays(long_symbol)
    message = api.failure(DataError)
    assert KEY[:4] not in message
    assert "symbol text): field name" in message


def test_control_characters_of_a_server_do_not_reach_the_message(api: FakeApi) -> None:
    api.plays(b"<html>\x1b[31m\r\nred", 503)
    assert '"<html> [31m  red"' in api.failure(TemporaryError)


# --- recorded listings ---------------------------------------------------------------------------------------------


def test_both_shapes_of_one_real_listing_give_equal_frames(api: FakeApi) -> None:
    api.plays(shared(V1_FILE))
    first = api.fetch(api_version="v1", limit=100)
    api.plays(shared(V3_FILE))
    third = api.fetch(api_version="v3", limit=100)
    pd.testing.assert_frame_equal(first.frame, third.frame)
    assert_valid(first.frame)
    assert first.metadata["asked"] == third.metadata["asked"] == 100


def test_the_recorded_answer_of_2021_is_believed_in_its_own_hour_only(api: FakeApi) -> None:
    body = json.loads(shared(OLD_FILE))
    hour = datetime.fromisoformat("2021-06-29T00:00")
    api.plays(body)
    with pytest.raises(DataError, match="volume_change_24h, market_cap_dominance, fully_diluted_market_cap;"):
        api.fetch(hour, hour, limit=1000)
    for one in body["data"]:
        one["quote"]["USD"] |= dict.fromkeys(LACKING)
    api.plays(body)
    snapshot = api.fetch(hour, hour, limit=1000)
    assert (len(snapshot.frame), snapshot.metadata["credits"]) == (1000, 5)
    assert "was made at 2021-06-29 00:23:45 UTC" in api.failure(DataError, limit=1000)


# --- anything at all -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def quick(api: FakeApi) -> Callable[..., Snapshot]:
    """A fetch that gives up after its first attempt."""
    return partial(api.fetch, limit=2, budget=timedelta(seconds=1))


@settings(max_examples=200, deadline=None)
@given(
    body=mutated(),
    status=st.sampled_from([200, 200, 200, 200, 204, 301, 304, 400, 401, 403, 429, 500, 503, 520]),
    cut=st.none() | st.integers(0, 2000),
    noise=st.none() | st.tuples(st.integers(0, 2000), st.binary(max_size=4)),
)
def test_whatever_the_server_answers_the_fetch_ends_in_a_valid_frame_or_a_named_error(
    api: FakeApi,
    quick: Callable[..., Snapshot],
    body: dict[str, Any],
    status: int,
    cut: int | None,
    noise: tuple[int, bytes] | None,
) -> None:
    content = json.dumps(body).encode()[:cut]
    if noise:
        content = content[: noise[0]] + noise[1] + content[noise[0] + len(noise[1]) :]
    api.plays(content, status)
    try:
        snapshot, message = quick(), ""
    except (DataError, TemporaryError) as error:
        snapshot, message = None, str(error)
    assert len(api.requests) == 1
    if snapshot is None:
        assert f"{api.url}{LISTING_PATH}" in message
        assert "HTTP" in message or "was made at" in message
    else:
        assert status == 200
        assert_valid(snapshot.frame)
        assert all(isinstance(value, str | int | float) for value in snapshot.metadata.values())
