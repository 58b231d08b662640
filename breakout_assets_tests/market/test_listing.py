"""The parser of CoinMarketCap's answers, on invented and on recorded ones."""

import copy
import functools
import json
import math
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from breakout_assets.errors import DataError
from breakout_assets.market.listing import (
    COIN_FIELDS,
    QUOTE_FIELDS,
    new_fields,
    parse_listing,
    parse_past,
    parse_quotes,
    utc_time,
    whole,
)
from breakout_assets.market.schema import FLOAT_COLUMNS, INTEGER_COLUMNS, KINDS, RAW_COLUMNS, TEXT_COLUMNS, raw_frame
from breakout_assets_tests.market.listingserver import (
    HOUR,
    NOW,
    OLD_FILE,
    SHARED,
    V1_FILE,
    V3_FILE,
    coin,
    envelope,
    listing,
    past_coin,
    shared,
)

LACKING = ["volume_change_24h", "market_cap_dominance", "fully_diluted_market_cap"]
ON_TIME = "2025-07-01T18:04:16.000Z"


def assert_valid(frame: pd.DataFrame) -> None:
    assert tuple(frame.columns) == RAW_COLUMNS
    assert frame.dtypes.equals(raw_frame(pd.DataFrame(index=[0])).dtypes)
    assert frame[["id", "symbol", "origin"]].notna().all().all()
    assert frame["timestamp"].eq(pd.Timestamp(HOUR)).all()
    assert set(frame["kind"].dropna()) <= set(KINDS)
    assert not np.isinf(frame[list(FLOAT_COLUMNS)].to_numpy()).any()


# --- the listing ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["v1", "v3"])
def test_a_listing_becomes_a_raw_frame_with_the_dollar_quote(version: str) -> None:
    frame = parse_listing(listing(version=version), HOUR)
    assert_valid(frame)
    assert frame["id"].tolist() == [100, 200, 300]
    assert frame["symbol"].tolist() == ["C1", "C2", "C3"]
    assert frame["price"].tolist() == [1.25, 2.25, 3.25]
    assert frame["last_updated"].eq("2025-07-01T18:25:00.000Z").all()
    assert frame["origin"].eq("cmc").all()


@pytest.mark.parametrize("column", ["kind", "origin"])
def test_kind_and_origin_are_never_taken_from_the_answer(column: str) -> None:
    body = listing()
    body["data"][0][column] = body["data"][0]["quote"][1][column] = "simulated"
    frame = parse_listing(body, HOUR)
    assert "simulated" not in frame[column].tolist()
    assert new_fields(body["data"]) == [f"coin.{column}", f"quote.{column}"]


def test_the_parser_refuses_an_hour_that_is_not_whole() -> None:
    for parse in (parse_listing, functools.partial(parse_quotes, ids=[1]), functools.partial(parse_past, ids=[1])):
        with pytest.raises(DataError, match="whole hour"):
            parse(listing(), NOW)


def test_a_coin_listed_twice_keeps_both_rows() -> None:
    body = listing()
    body["data"].append(copy.deepcopy(body["data"][0]))
    assert parse_listing(body, HOUR)["id"].tolist() == [100, 200, 300, 100]


@pytest.mark.parametrize("field_name", [name for name in (*COIN_FIELDS, *QUOTE_FIELDS) if name not in ("id", "symbol")])
def test_null_and_absent_mean_the_same_for_a_single_coin(field_name: str) -> None:
    null, absent = listing(), listing()
    for body in (null, absent):
        holder = body["data"][1]["quote"][1] if field_name in QUOTE_FIELDS else body["data"][1]
        holder[field_name] = None
        if body is absent:
            del holder[field_name]
    frame = parse_listing(null, HOUR)
    pd.testing.assert_frame_equal(frame, parse_listing(absent, HOUR))
    assert frame[field_name].isna().tolist() == [False, True, False]


@pytest.mark.parametrize("quote", [None, [], {}, {"EUR": {"price": 1}}, {"USD": None}, [{"symbol": "EUR", "price": 1}]])
def test_a_single_coin_without_a_dollar_quote_has_nulls(quote: object) -> None:
    body = listing()
    body["data"][1]["quote"] = quote
    frame = parse_listing(body, HOUR)
    assert frame["price"].isna().tolist() == [False, True, False]
    assert frame["id"].tolist() == [100, 200, 300]


def test_symbols_that_look_like_numbers_or_nulls_stay_text() -> None:
    body = listing(5)
    symbols = ["TRUE", "NAN", "42", "ΤBTC", "FCT,FCT2"]
    for one, symbol in zip(body["data"], symbols, strict=True):
        one["symbol"] = symbol
    assert parse_listing(body, HOUR)["symbol"].tolist() == symbols


def test_fields_that_every_coin_lacks_are_named() -> None:
    body = listing()
    for one in body["data"]:
        del one["id"], one["cmc_rank"], one["quote"][1]["volume_change_24h"]
    with pytest.raises(DataError, match="none of the 3 coins has the fields id, cmc_rank, volume_change_24h;"):
        parse_listing(body, HOUR)


@pytest.mark.parametrize("data", [None, [], {}, {"1": {}}, "coins", 5])
def test_an_answer_without_a_list_of_coins_is_refused(data: object) -> None:
    with pytest.raises(DataError, match="`data` holds no list of coins"):
        parse_listing(envelope(data), HOUR)


@pytest.mark.parametrize("odd", [None, "BTC", [], 7])
def test_a_coin_that_is_not_an_object_is_refused(odd: object) -> None:
    body = listing()
    body["data"][1] = odd
    with pytest.raises(DataError, match=r"coin 2 .*instead of an object"):
        parse_listing(body, HOUR)
    with pytest.raises(DataError, match=r"coin 2 .*instead of an object"):
        parse_quotes(body, HOUR, [100])
    with pytest.raises(DataError, match=r"coin 2 .*instead of an object"):
        parse_past(envelope([past_coin(1, ON_TIME), odd]), HOUR, [100])


@pytest.mark.parametrize("quote", ["USD", 5, {"USD": 5}, [None], ["USD"], [{"symbol": "USD"}, {"symbol": "USD"}]])
def test_a_quote_that_is_ambiguous_or_no_object_is_refused(quote: object) -> None:
    body = listing()
    body["data"][1]["quote"] = quote
    with pytest.raises(DataError, match=r"coin 2 .*field quote"):
        parse_listing(body, HOUR)


@pytest.mark.parametrize(
    ("field_name", "value", "words"),
    [
        ("id", None, "field id is missing"),
        ("id", 0, "field id is missing or not positive"),
        ("id", "200", "field id is text"),
        ("id", 1.5, "field id is not a whole number"),
        ("id", 2**53 + 1, "field id is not a whole number that can be stored exactly"),
        ("symbol", None, "field symbol is missing"),
        ("symbol", " ", "field symbol is missing or blank"),
        ("symbol", 42, "field symbol is a number instead of text"),
        ("symbol", "\ud800", "field symbol holds half of a character"),
        ("name", ["x"], "field name is a list instead of text"),
        ("cmc_rank", 1.5, "field cmc_rank is not a whole number"),
        ("max_supply", {}, "field max_supply is an object instead of a number"),
        ("price", "1.5", "field price is text instead of a number"),
        ("price", True, "field price is true or false instead of a number"),
        ("price", math.nan, "field price is not a finite number"),
        ("volume_24h", math.inf, "field volume_24h is not a finite number"),
        ("market_cap", 10**400, "field market_cap is not a finite number"),
        ("last_updated", 1751394300, "field last_updated is a number instead of text"),
        ("tags", "stablecoin", "field tags is text instead of a list"),
        ("tags", ["pow", 5], "field tags holds a number instead of text or an object"),
    ],
)
@pytest.mark.parametrize("named", [False, True])
def test_a_value_that_cannot_be_believed_is_refused_naming_coin_and_field(
    field_name: str, value: object, words: str, named: bool
) -> None:
    body = listing()
    holder = body["data"][1]["quote"][1] if field_name in QUOTE_FIELDS else body["data"][1]
    holder[field_name] = value
    with pytest.raises(DataError) as caught:
        parse_quotes(body, HOUR, [200]) if named else parse_listing(body, HOUR)
    message = str(caught.value)
    assert words in message
    assert "coin 2 (id " in message
    assert field_name == "id" or "id 200, " in message
    assert field_name == "symbol" or "symbol 'C2'" in message


# --- what the tags say ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tags", "kind"),
    [
        (None, None),
        ([], "coin"),
        (["mineable", "pow", "hyperliquid-ecosystem", "staking", "restaking"], "coin"),
        (["stablecoin"], "stablecoin"),
        (["pow", "fiat-stablecoin"], "stablecoin"),
        (["stablecoin-algorithmically-stabilized"], "stablecoin"),
        (["wrapped-tokens"], "wrapped"),
        (["wrapped-tokens-of-somebody"], "coin"),
        (["liquid-staking"], "wrapped"),
        (["liquid-staking-derivatives"], "wrapped"),
        (["wrapped-tokens", "usd-stablecoin"], "stablecoin"),
        ([{"slug": "stablecoin", "name": "Stablecoin", "category": "OTHERS"}], "stablecoin"),
        ([{"slug": None, "name": "Wrapped Tokens"}], "wrapped"),
        ([{"name": "Liquid Staking Derivatives"}, "pow"], "wrapped"),
        ([{"slug": 5}, {}], "coin"),
    ],
)
def test_the_tags_say_what_a_coin_is(tags: object, kind: str | None) -> None:
    body = listing(1)
    body["data"][0]["tags"] = tags
    [found] = parse_listing(body, HOUR)["kind"]
    assert found == kind or (kind is None and pd.isna(found))


def test_a_coin_without_tags_is_of_unknown_kind() -> None:
    body = listing(1)
    del body["data"][0]["tags"]
    assert parse_listing(body, HOUR)["kind"].isna().all()


# --- fields that are new -------------------------------------------------------------------------------------------


def test_new_fields_are_named_and_otherwise_ignored() -> None:
    body, plain = listing(2), listing(2)
    body["data"][0]["moon_phase"] = 1
    body["data"][1]["quote"][1]["price_in_cheese"] = {"a": 1}
    body["data"][1]["quote"][0]["of_the_euro"] = 1
    assert new_fields(body["data"]) == ["coin.moon_phase", "quote.price_in_cheese"]
    pd.testing.assert_frame_equal(parse_listing(body, HOUR), parse_listing(plain, HOUR))


@pytest.mark.parametrize("name", [V1_FILE, V3_FILE, OLD_FILE])
def test_nothing_in_a_recorded_listing_is_new(name: str) -> None:
    assert new_fields(json.loads(shared(name))["data"]) == []


# --- quotes of named coins -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["v1", "v3"])
@pytest.mark.parametrize("shape", ["list", "map", "map of lists", "map without ids"])
def test_every_shape_of_latest_quotes_gives_the_same_rows(version: str, shape: str) -> None:
    coins = [coin(number, version) for number in (1, 2, 3)]
    data: object = coins
    if shape != "list":
        data = {str(one["id"]): [one] if shape == "map of lists" else dict(one) for one in coins}
    if shape == "map without ids":
        data = {key: {**one, "id": None} for key, one in data.items()} if isinstance(data, dict) else data
    frame = parse_quotes(envelope(data), HOUR, [300, 100])
    assert_valid(frame)
    assert frame["id"].tolist() == [100, 300], "a coin that was not asked for has no row"
    assert frame["price"].tolist() == [1.25, 3.25]
    assert frame["kind"].tolist() == ["coin", "coin"]
    assert frame["origin"].eq("cmc:followed").all()


def test_a_named_coin_without_rank_and_supplies_is_read() -> None:
    one = coin(1)
    for name in ("cmc_rank", "num_market_pairs", "max_supply", "circulating_supply"):
        del one[name]
    frame = parse_quotes(envelope([one]), HOUR, [100])
    assert frame[["cmc_rank", "num_market_pairs", "max_supply"]].isna().all().all()
    assert frame["price"].tolist() == [1.25]


@pytest.mark.parametrize("quote", [None, [], [{"symbol": "USD", "price": None}], {"USD": {"price": None}}])
def test_a_named_coin_without_a_price_is_lost(quote: object) -> None:
    frame = parse_quotes(envelope([{**coin(1), "quote": quote}, coin(2)]), HOUR, [100, 200])
    assert frame["id"].tolist() == [200]


def test_a_quote_without_the_field_price_is_another_format() -> None:
    odd = {**coin(1), "quote": [{"symbol": "USD", "last_price": 1.0}]}
    with pytest.raises(DataError, match=r"coin 1 \(id 100, symbol 'C1'\): field price is missing"):
        parse_quotes(envelope([odd]), HOUR, [100])


@pytest.mark.parametrize("data", [{}, []])
def test_an_answer_without_any_of_the_named_coins_is_an_empty_frame(data: object) -> None:
    for frame in (parse_quotes(envelope(data), HOUR, [100]), parse_past(envelope(data), HOUR, [100])):
        assert_valid(frame)
        assert frame.empty


@pytest.mark.parametrize("data", [None, "x", 5])
def test_an_answer_without_quotes_is_refused(data: object) -> None:
    with pytest.raises(DataError, match="`data` holds no quotes"):
        parse_quotes(envelope(data), HOUR, [100])
    with pytest.raises(DataError, match="`data` holds no quotes"):
        parse_past(envelope(data), HOUR, [100])


# --- quotes of the past --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["v1", "v3"])
@pytest.mark.parametrize("shape", ["alone", "map", "map of lists", "list"])
def test_every_shape_of_past_quotes_is_read(version: str, shape: str) -> None:
    one = past_coin(1, "2025-07-01T17:59:59.000Z", ON_TIME, "2025-07-01T18:09:00.000Z", version=version)
    data: object = {"alone": one, "map": {"100": one}, "map of lists": {"100": [one]}, "list": [one]}[shape]
    frame = parse_past(envelope(data), HOUR, [100])
    assert_valid(frame)
    [row] = frame.to_dict("records")
    assert (row["id"], row["name"], row["symbol"], row["origin"]) == (100, "Coin 1", "C1", "cmc:history")
    assert row["price"] == pytest.approx(1.1), "the first quote within the hour's first ten minutes"
    assert (row["volume_24h"], row["market_cap"]) == (50, 70)
    assert (row["circulating_supply"], row["total_supply"], row["percent_change_1h"]) == (11, 12, 0.5)
    assert row["last_updated"] == ON_TIME
    unknown = ["max_supply", "date_added", "num_market_pairs", "cmc_rank", "percent_change_7d", "kind"]
    assert frame[unknown].isna().all().all()


@pytest.mark.parametrize(
    ("stamp", "taken"),
    [
        ("2025-07-01T17:59:59.999Z", False),
        ("2025-07-01T18:00:00.000Z", True),
        ("2025-07-01T18:10:00.000Z", True),
        ("2025-07-01T18:10:00.001Z", False),
        ("2025-07-01T20:05:00.000+02:00", True),
        ("2025-07-01T18:05:00.000+02:00", False),
        ("2025-07-02T18:05:00.000Z", False),
    ],
)
def test_a_quote_of_another_moment_is_never_taken(stamp: str, taken: bool) -> None:
    frame = parse_past(envelope({"100": past_coin(1, stamp)}), HOUR, [100])
    assert len(frame) == taken


def test_a_price_of_another_moment_does_not_pass_under_the_name_of_its_interval() -> None:
    one = past_coin(1, ON_TIME)
    one["quotes"][0]["quote"][0]["timestamp"] = "2025-07-02T09:00:00.000Z"
    assert parse_past(envelope([one]), HOUR, [100]).empty


def test_the_time_of_the_price_counts_where_the_interval_has_none() -> None:
    one = past_coin(1, ON_TIME)
    del one["quotes"][0]["timestamp"]
    assert len(parse_past(envelope([one]), HOUR, [100])) == 1


def test_the_other_name_of_the_volume_is_understood() -> None:
    one = past_coin(1, ON_TIME, version="v1")
    quote = one["quotes"][0]["quote"]["USD"]
    quote["volume_24hr"] = quote.pop("volume_24h")
    assert parse_past(envelope([one]), HOUR, [100])["volume_24h"].tolist() == [50]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"quotes": "x"}, "field quotes is text instead of a list"),
        ({"quotes": [5]}, "field quotes holds a number instead of an object"),
        ({"quotes": [{"quote": {"USD": {"price": 1}}}]}, "field timestamp of a quote is missing or no time"),
        ({"quotes": [{"timestamp": "soon", "quote": None}]}, "field timestamp of a quote is missing or no time"),
        ({"quotes": [{"timestamp": ON_TIME, "quote": {"USD": {"price": "1"}}}]}, "field price is text"),
        ({"quotes": [{"timestamp": ON_TIME, "quote": {"USD": {"value": 1}}}]}, "field price is missing"),
        ({"id": None}, "field id is missing"),
        ({"symbol": None}, "field symbol is missing"),
    ],
)
def test_a_past_coin_that_cannot_be_believed_is_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(DataError, match="coin 1 ") as caught:
        parse_past(envelope([past_coin(1, ON_TIME) | change]), HOUR, [100])
    assert words in str(caught.value)


@pytest.mark.parametrize("quotes", [None, [], [{"timestamp": ON_TIME, "quote": None}]])
def test_a_past_coin_without_a_quote_is_absent(quotes: object) -> None:
    coins = [past_coin(1, ON_TIME) | {"quotes": quotes}, past_coin(2, ON_TIME)]
    assert parse_past(envelope(coins), HOUR, [100, 200])["id"].tolist() == [200]


# --- values --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "number"),
    [
        *((7, 7), (7.0, 7), ("7", 7), ("", None), ("7x", None), (True, None), (7.5, None), (math.nan, None)),
        *((2**53, 2**53), (2**53 + 1, None), (10**400, None), (math.inf, None), (None, None), ([], None), ("٣", None)),
    ],
)
def test_whole_numbers_may_be_text(value: object, number: int | None) -> None:
    assert whole(value) == number


@pytest.mark.parametrize(
    ("value", "time"),
    [
        ("2025-07-01T18:00:00.000Z", HOUR),
        ("2025-07-01T20:00:00+02:00", HOUR),
        ("2025-07-01T18:00:00", HOUR),
        ("0001-01-01T00:00:00+02:00", None),
        ("soon", None),
        ("", None),
        (1751392800, None),
        (None, None),
    ],
)
def test_times_are_read_as_utc(value: object, time: datetime | None) -> None:
    assert utc_time(value) == time


# --- recorded listings ---------------------------------------------------------------------------------------------


def completed(name: str) -> dict[str, Any]:
    """A recorded listing; the one of 2021 with the fields that it lacks as null."""
    body: dict[str, Any] = json.loads(shared(name))
    if name == OLD_FILE:
        for one in body["data"]:
            one["quote"]["USD"] |= dict.fromkeys(LACKING)
    return body


def test_both_shapes_of_one_real_listing_give_equal_frames() -> None:
    first, third = parse_listing(completed(V1_FILE), HOUR), parse_listing(completed(V3_FILE), HOUR)
    pd.testing.assert_frame_equal(first, third)
    assert_valid(first)
    assert len(first) == 100
    assert first["max_supply"].isna().sum() == 54
    assert first["kind"].value_counts().to_dict() == {"coin": 91, "stablecoin": 7, "wrapped": 2}
    assert {"USDT", "USDC", "DAI"} <= set(first.loc[first["kind"] == "stablecoin", "symbol"])


def test_the_schema_of_2021_is_refused_naming_the_three_fields_it_lacks() -> None:
    with pytest.raises(DataError, match=f"1000 coins has the fields {', '.join(LACKING)};"):
        parse_listing(json.loads(shared(OLD_FILE)), HOUR)


def test_the_listing_of_2021_is_read_once_the_lacking_fields_are_there_as_null() -> None:
    frame = parse_listing(completed(OLD_FILE), HOUR)
    assert_valid(frame)
    assert len(frame) == 1000
    assert frame["volume_change_24h"].isna().all()
    assert frame["max_supply"].isna().sum() == 446
    twice = frame["symbol"].value_counts()
    assert set(twice[twice == 2].index) == {"ONE", "REV", "USDX", "DG", "FCT", "SCC"}
    assert {"TRUE", "vBNB", "ΤBTC"} <= set(frame["symbol"])
    assert (frame["volume_24h"] == 0).sum() == 24
    assert frame["kind"].value_counts().to_dict() == {"coin": 970, "stablecoin": 26, "wrapped": 4}


@pytest.mark.parametrize("version", [V1_FILE, V3_FILE])
def test_real_coins_asked_for_by_id_give_the_rows_of_the_listing(version: str) -> None:
    body = completed(version)
    rows = parse_listing(body, HOUR).iloc[10:20].reset_index(drop=True)
    by_id = envelope({str(one["id"]): one for one in body["data"]})
    followed = parse_quotes(by_id, HOUR, rows["id"].tolist())
    pd.testing.assert_frame_equal(followed, rows.assign(origin=pd.Series("cmc:followed", rows.index, dtype="str")))


# --- anything at all -----------------------------------------------------------------------------------------------

ODD: st.SearchStrategy[object] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, 0.0, -0.0, 2**53, 10**400, 1e308, math.nan, math.inf, "0", "1008", "1e5", "", "USD", "\ud800"]),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.none() | st.integers() | st.text(max_size=3), max_size=3),
    st.lists(st.sampled_from(["stablecoin", {"slug": "wrapped-tokens"}, {"name": None}, 5, None, [[]]]), max_size=3),
    st.dictionaries(st.sampled_from(["USD", "symbol", "price", "error_code", "id"]), st.integers() | st.none()),
)
CHANGES = st.sampled_from(["set", "delete", "copy"])


def mutate(draw: st.DrawFn, body: Any, most: int = 3) -> None:
    """Overwrite, remove or double a few places."""
    for _ in range(draw(st.integers(0, most))):
        holder = body
        while True:
            places = list(range(len(holder))) if isinstance(holder, list) else sorted(holder)
            if not places:
                break
            place = draw(st.sampled_from(places))
            if isinstance(holder[place], dict | list) and holder[place] and draw(st.integers(0, 5)):
                holder = holder[place]
                continue
            change = draw(CHANGES)
            if change == "delete":
                del holder[place]
            elif change == "copy" and isinstance(holder, list):
                holder.append(copy.deepcopy(holder[place]))
            else:
                holder[place] = draw(ODD)
            break


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    body = listing(2, draw(st.sampled_from(["v1", "v3"])))
    mutate(draw, body)
    return body


@st.composite
def mutated_past(draw: st.DrawFn) -> dict[str, Any]:
    version = draw(st.sampled_from(["v1", "v3"]))
    coins = [past_coin(number, ON_TIME, "2025-07-01T19:00:00.000Z", version=version) for number in (1, 2)]
    shapes: list[object] = [coins, {str(one["id"]): one for one in coins}, coins[0]]
    body = envelope(draw(st.sampled_from(shapes)))
    mutate(draw, body)
    return body


@functools.cache
def recorded(name: str) -> list[dict[str, Any]]:
    coins: list[dict[str, Any]] = completed(name)["data"]
    return coins


@st.composite
def mutated_real(draw: st.DrawFn) -> dict[str, Any]:
    """Some coins of a recorded listing, mutated."""
    coins = recorded(draw(st.sampled_from([V1_FILE, V3_FILE, OLD_FILE])))
    first = draw(st.integers(0, len(coins) - 6))
    body = envelope(copy.deepcopy(coins[first : first + 6]))
    mutate(draw, body, 6)
    return body


def check(body: dict[str, Any]) -> None:
    """It ends in a frame, or in an error that names the coin and the field."""
    frame, message = None, ""
    try:
        frame = parse_listing(body, HOUR)
    except DataError as error:
        message = str(error)
    if frame is None:
        of_a_coin = "coin " in message and ("field " in message or "instead of an object" in message)
        assert of_a_coin or "`data` holds no list" in message or "coins has the fields " in message
        return
    assert_valid(frame)
    assert len(frame) == len(body["data"])
    assert all(isinstance(name, str) for name in new_fields(body["data"]))


@settings(max_examples=250, deadline=None)
@given(mutated())
def test_whatever_a_listing_holds_it_becomes_a_valid_frame_or_a_data_error(body: dict[str, Any]) -> None:
    check(body)


@pytest.mark.skipif(not (SHARED / V3_FILE).exists(), reason=f"{SHARED / V3_FILE} is absent; it is optional")
@settings(max_examples=200, deadline=None)
@given(mutated_real())
def test_whatever_becomes_of_a_recorded_listing_it_ends_in_a_valid_frame_or_a_data_error(body: dict[str, Any]) -> None:
    check(body)


@settings(max_examples=200, deadline=None)
@given(mutated())
def test_whatever_quotes_of_named_coins_hold_no_unpriced_or_unasked_row_comes_out(body: dict[str, Any]) -> None:
    try:
        frame = parse_quotes(body, HOUR, [100])
    except DataError:
        return
    assert_valid(frame)
    assert frame["price"].notna().all()
    assert set(frame["id"]) <= {100}


@settings(max_examples=200, deadline=None)
@given(mutated_past())
def test_whatever_a_history_holds_no_row_of_another_moment_comes_out(body: dict[str, Any]) -> None:
    try:
        frame = parse_past(body, HOUR, [100, 200])
    except DataError:
        return
    assert_valid(frame)
    assert frame["price"].notna().all()
    assert frame["cmc_rank"].isna().all()


@given(st.lists(st.integers(-3600, 7200), max_size=5))
def test_of_any_quotes_the_earliest_within_the_window_is_taken(offsets: list[int]) -> None:
    stamps = [f"{(HOUR + timedelta(seconds=offset)).isoformat()}Z" for offset in offsets]
    frame = parse_past(envelope([past_coin(1, *stamps)]), HOUR, [100])
    within = [(offset, 1 + place / 10) for place, offset in enumerate(offsets) if 0 <= offset <= 600]
    assert frame["price"].tolist() == [min(within)[1] for _ in within[:1]]


def test_the_columns_of_a_frame_are_those_that_are_read_or_derived() -> None:
    assert {*COIN_FIELDS, *QUOTE_FIELDS, "timestamp", "kind", "origin"} == set(RAW_COLUMNS)
    assert {"id", "num_market_pairs", "cmc_rank"} == set(INTEGER_COLUMNS)
    assert {"name", "symbol", "date_added", "last_updated", "kind", "origin"} == set(TEXT_COLUMNS)
