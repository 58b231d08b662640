"""The CoinMarketCap client against a real HTTP server on loopback, and its parser against recorded listings."""

import contextlib
import copy
import gzip
import json
import logging
import math
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from breakout_assets.errors import DataError, SettingsError, TemporaryError
from breakout_assets.market.coinmarketcap import (
    COIN_FIELDS,
    MAX_BODY_BYTES,
    QUOTE_FIELDS,
    CoinMarketCap,
    Snapshot,
    parse_listing,
)
from breakout_assets.market.schema import FLOAT_COLUMNS, INTEGER_COLUMNS, RAW_COLUMNS, TEXT_COLUMNS, raw_frame

KEY = "0a1B2c3d-feed-4e5f-8a9b-c0ffee123456"
HOUR = datetime.fromisoformat("2025-07-01T18:00")
NOW = datetime.fromisoformat("2025-07-01T18:26:30")
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
V1_FILE = "cmc_listings_latest_v1_2025-07-01_top100_rebuilt.json"
V3_FILE = "cmc_listings_latest_v3_2025-07-01_top100_rebuilt.json"
OLD_FILE = "cmc_listings_latest_2021-06-29_limit1000.json.gz"
ERROR_FILE = "cmc_error_bodies.json"

# HTTP status, error code, kind of error, and a word of what the reader is told to do.
ERRORS: list[tuple[int, int, type[Exception], str]] = [
    (400, 400, DataError, "BREAKOUT_CMC_LIMIT"),
    (401, 1001, DataError, "Set BREAKOUT_CMC_API_KEY to a valid key"),
    (401, 1002, DataError, "Set BREAKOUT_CMC_API_KEY to your key"),
    (402, 1003, DataError, "account page"),
    (402, 1004, DataError, "Renew"),
    (403, 1005, DataError, "BREAKOUT_CMC_API_KEY"),
    (403, 1006, DataError, "plan"),
    (403, 1007, DataError, "support"),
    (429, 1008, TemporaryError, "wait a minute"),
    (429, 1009, TemporaryError, "midnight UTC"),
    (429, 1010, DataError, "month"),
    (429, 1011, TemporaryError, "address"),
    (500, 500, TemporaryError, "CoinMarketCap's side"),
]


def shared(name: str) -> bytes:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is absent; it is optional")
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def listing(coins: int = 3, version: str = "v3") -> dict[str, Any]:
    """An invented listing in one of the two shapes."""
    data: list[dict[str, Any]] = []
    for n in range(1, coins + 1):
        quote: dict[str, Any] = dict.fromkeys(QUOTE_FIELDS, n + 0.25) | {"last_updated": "2025-07-01T18:25:00.000Z"}
        coin: dict[str, Any] = dict.fromkeys(COIN_FIELDS, 100 * n)
        coin |= {"name": f"Coin {n}", "symbol": f"C{n}", "date_added": "2020-01-01T00:00:00.000Z", "slug": f"c-{n}"}
        # The coin's own time must not be taken for the quote's, nor another currency's quote for the dollar's.
        coin["last_updated"] = "1999-01-01T00:00:00.000Z"
        euro = dict.fromkeys(QUOTE_FIELDS, -1)
        in_list = [{"id": 2790, "symbol": "EUR", **euro}, {"id": 2781, "symbol": "USD", **quote}]
        coin["quote"] = in_list if version == "v3" else {"EUR": euro, "USD": quote}
        data.append(coin)
    status = {"timestamp": "2025-07-01T18:26:29.000Z", "error_code": 0, "error_message": None, "credit_count": 1}
    return {"status": status | {"elapsed": 20, "notice": None}, "data": data}


def error_body(code: object, message: object = "Something went wrong.") -> dict[str, Any]:
    return {"status": {"error_code": code, "error_message": message, "credit_count": 0}}


@dataclass
class FakeApi:
    """What the server answers next, and what it was asked."""

    url: str
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    hang: str = ""  # "" | "before headers" | "in body"
    raw: bytes = b""
    requests: list[tuple[str, list[tuple[str, str]]]] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)

    def plays(self, body: object, status: int = 200, **more: Any) -> None:
        self.status, self.headers, self.hang, self.raw = status, {}, "", b""
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.requests.clear()
        for name, value in more.items():
            setattr(self, name, value)

    def client(self, **more: Any) -> CoinMarketCap:
        return CoinMarketCap(**{"base_url": self.url, "key": lambda: KEY, "timeout": 10.0, **more})

    def fetch(self, **more: Any) -> Snapshot:
        return self.client(**more).fetch(HOUR, NOW)

    def failure(self, kind: type[Exception], **more: Any) -> str:
        """Message of the error that a fetch ends in, after a look for the key in everything that it shows."""
        with pytest.raises(kind) as caught:
            self.fetch(**more)
        assert caught.value.__context__ is None, "the first error, with the request's headers, is still attached"
        assert KEY.lower() not in "".join(traceback.format_exception(caught.value)).lower()
        message = str(caught.value)
        assert f"{self.url}/v3/cryptocurrency/listings/latest" in message
        assert "2025-07-01 18:00 UTC" in message
        return message


@pytest.fixture(scope="module")
def api() -> Iterator[FakeApi]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            fake.requests.append((self.path, list(self.headers.items())))
            with contextlib.suppress(OSError):  # a client that has lost patience is gone
                self.answer()

        def answer(self) -> None:
            # A hanging server answers well in the end, so only a client that stops waiting reports an error.
            if fake.hang == "before headers":
                fake.release.wait(5)
            if fake.raw:
                self.wfile.write(fake.raw)
                return
            body = fake.body
            self.send_response(fake.status)
            for name, value in {"Content-Length": str(len(body)), **fake.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if fake.hang == "in body":
                self.wfile.write(body[:50])
                fake.release.wait(5)
                body = body[50:]
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    fake = FakeApi(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        yield fake
    fake.release.set()
    server.shutdown()
    thread.join()
    server.server_close()


# --- what is asked -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["v1", "v3"])
def test_the_request_names_limit_and_currency_and_carries_the_key_in_its_header_only(
    api: FakeApi, version: str
) -> None:
    api.plays(listing(version=version))
    api.fetch(api_version=version, limit=777)
    [(path, headers)] = api.requests
    assert urlsplit(path).path == f"/{version}/cryptocurrency/listings/latest"
    assert parse_qs(urlsplit(path).query) == {"limit": ["777"], "convert": ["USD"], "sort": ["market_cap"]}
    assert KEY not in path
    assert [name for name, value in headers if KEY in value] == ["X-CMC_PRO_API_KEY"]


def test_the_key_is_asked_for_once_in_a_fetch_and_never_shown(api: FakeApi, caplog: pytest.LogCaptureFixture) -> None:
    asked = []

    def key(text: str) -> str:
        asked.append(text)
        return text

    caplog.set_level(logging.DEBUG)
    api.plays(listing())
    client = api.client(key=partial(key, KEY))
    assert asked == []
    assert KEY not in repr(client) + str(client)
    snapshot = client.fetch(HOUR, NOW)
    assert asked == [KEY]
    assert KEY not in repr(snapshot) + repr(snapshot.metadata)
    assert caplog.records, "urllib3 logs its requests at this level"
    assert KEY not in caplog.text


@pytest.mark.parametrize("key", ["", "  \n", "two words", '"quoted"', "line\nbreak", "ключ"])
def test_a_key_that_cannot_be_one_is_refused_before_anything_is_sent(api: FakeApi, key: str) -> None:
    api.plays(listing())
    with pytest.raises(SettingsError, match="BREAKOUT_CMC_API_KEY") as caught:
        api.fetch(key=lambda: key)
    assert api.requests == []
    assert ("is not set" if not key.strip() else "contains characters") in str(caught.value)
    assert not key.strip() or key not in str(caught.value)


def test_white_space_around_the_key_is_dropped(api: FakeApi) -> None:
    api.plays(listing())
    api.fetch(key=lambda: f" {KEY}\n")
    assert dict(api.requests[0][1])["X-CMC_PRO_API_KEY"] == KEY


@pytest.mark.parametrize(
    "url",
    ["", "pro-api.coinmarketcap.com", "ftp://h", "https://me:pw@h", "https://h?key=pw", "https://h#pw", "http://["],
)
def test_an_address_that_is_none_or_may_hold_a_secret_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(SettingsError, match="BREAKOUT_CMC_URL") as caught:
        CoinMarketCap(base_url=url, key=lambda: KEY)
    assert "pw" not in str(caught.value)


def test_defaults_and_constants() -> None:
    client = CoinMarketCap(key=lambda: KEY)
    assert client.endpoint == "https://pro-api.coinmarketcap.com/v3/cryptocurrency/listings/latest"
    assert (client.limit, client.timeout, client.name, client.simulated) == (1250, 30, "coinmarketcap", False)
    assert CoinMarketCap(base_url="https://x/", key=lambda: KEY).endpoint.startswith("https://x/v3/")


# --- the hour ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("late", [timedelta(0), timedelta(minutes=59, seconds=59, microseconds=999999)])
def test_the_current_hour_is_fetched(api: FakeApi, late: timedelta) -> None:
    api.plays(listing())
    frame = api.client().fetch(HOUR, HOUR + late).frame
    assert frame["timestamp"].eq(pd.Timestamp(HOUR)).all()


@pytest.mark.parametrize(
    ("hour", "now", "words"),
    [
        (HOUR, HOUR + timedelta(hours=1), "from a file"),
        (HOUR, HOUR + timedelta(days=400), "from a file"),
        (HOUR, HOUR - timedelta(microseconds=1), "not begun"),
        (HOUR + timedelta(minutes=1), NOW, "whole hour"),
        (HOUR.astimezone(), NOW, "naive UTC"),
        (HOUR, NOW.astimezone(), "naive UTC"),
    ],
)
def test_any_other_hour_is_refused_before_the_key_is_asked_for(
    api: FakeApi, hour: datetime, now: datetime, words: str
) -> None:
    def key() -> str:
        raise AssertionError("the key was asked for")

    api.plays(listing())
    with pytest.raises(DataError, match=words):
        api.client(key=key).fetch(hour, now)
    assert api.requests == []


def test_the_parser_refuses_an_hour_that_is_not_whole() -> None:
    with pytest.raises(DataError, match="whole hour"):
        parse_listing(listing(), NOW)


# --- success -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["v1", "v3"])
def test_a_listing_becomes_a_raw_frame_with_the_dollar_quote(api: FakeApi, version: str) -> None:
    api.plays(listing(version=version))
    frame = api.fetch(api_version=version).frame
    assert_valid(frame)
    assert frame["id"].tolist() == [100, 200, 300]
    assert frame["symbol"].tolist() == ["C1", "C2", "C3"]
    assert frame["price"].tolist() == [1.25, 2.25, 3.25]
    assert frame["last_updated"].eq("2025-07-01T18:25:00.000Z").all()


def test_the_metadata_say_where_the_snapshot_came_from_and_invent_nothing(api: FakeApi) -> None:
    body = listing()
    body["status"] |= {"credit_count": 7, "notice": f"95 % of your credits\nare used, {KEY}"}
    api.plays(body)
    assert api.fetch().metadata == {
        "source": "coinmarketcap",
        "endpoint": f"{api.url}/v3/cryptocurrency/listings/latest",
        "coins": 3,
        "credits": 7,
        "server_timestamp": "2025-07-01T18:26:29.000Z",
        "notice": "95 % of your credits are used, [key]",
    }
    api.plays({"data": body["data"]})
    assert set(api.fetch().metadata) == {"source", "endpoint", "coins"}


@pytest.mark.parametrize("code", [0, "0", None])
def test_success_may_be_written_as_number_text_or_null(api: FakeApi, code: object) -> None:
    body = listing()
    body["status"]["error_code"] = code
    api.plays(body)
    assert len(api.fetch().frame) == 3


def test_a_compressed_answer_is_read(api: FakeApi) -> None:
    api.plays(gzip.compress(json.dumps(listing()).encode()), headers={"Content-Encoding": "gzip"})
    assert len(api.fetch().frame) == 3
    assert "gzip" in dict(api.requests[0][1])["Accept-Encoding"]


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
    for coin, symbol in zip(body["data"], symbols, strict=True):
        coin["symbol"] = symbol
    assert parse_listing(body, HOUR)["symbol"].tolist() == symbols


# --- refused listings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [None, [], {}, {"1": {}}, "coins", 5])
def test_an_answer_without_coins_is_refused(api: FakeApi, data: object) -> None:
    body = listing()
    body["data"] = data
    api.plays(body)
    message = api.failure(DataError)
    assert "HTTP 200, error code 0" in message
    assert "`data` holds no list of coins" in message


def test_fields_that_every_coin_lacks_are_named() -> None:
    body = listing()
    for coin in body["data"]:
        del coin["id"], coin["cmc_rank"], coin["quote"][1]["volume_change_24h"]
    with pytest.raises(DataError, match="none of the 3 coins has the fields id, cmc_rank, volume_change_24h;"):
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
    ],
)
def test_a_value_that_cannot_be_believed_is_refused_naming_coin_and_field(
    api: FakeApi, field_name: str, value: object, words: str
) -> None:
    body = listing()
    holder = body["data"][1]["quote"][1] if field_name in QUOTE_FIELDS else body["data"][1]
    holder[field_name] = value
    api.plays(body)
    message = api.failure(DataError)
    assert words in message
    assert "coin 2 (id " in message
    assert field_name == "id" or "id 200, " in message
    assert field_name == "symbol" or "symbol 'C2'" in message


def test_a_number_too_large_for_a_double_is_refused_as_the_server_writes_it(api: FakeApi) -> None:
    api.plays(json.dumps(listing()).replace('"price": 2.25', '"price": 1e999').encode())
    assert "coin 2 (id 200, symbol 'C2'): field price is not a finite number" in api.failure(DataError)


@pytest.mark.parametrize("coin", [None, "BTC", [], 7])
def test_a_coin_that_is_not_an_object_is_refused(coin: object) -> None:
    body = listing()
    body["data"][1] = coin
    with pytest.raises(DataError, match=r"coin 2 .*instead of an object"):
        parse_listing(body, HOUR)


@pytest.mark.parametrize("quote", ["USD", 5, {"USD": 5}, [None], ["USD"], [{"symbol": "USD"}, {"symbol": "USD"}]])
def test_a_quote_that_is_ambiguous_or_no_object_is_refused(quote: object) -> None:
    body = listing()
    body["data"][1]["quote"] = quote
    with pytest.raises(DataError, match=r"coin 2 .*field quote"):
        parse_listing(body, HOUR)


# --- failed requests -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "code", "kind", "advice"), ERRORS)
@pytest.mark.parametrize("as_text", [False, True])
def test_every_documented_error_says_what_to_do(
    api: FakeApi, status: int, code: int, kind: type[Exception], advice: str, as_text: bool
) -> None:
    api.plays(error_body(str(code) if as_text else code, "It can't be done."), status)
    message = api.failure(kind)
    assert f'HTTP {status}, error code {code}, "It can\'t be done."' in message
    assert advice in message


def test_every_published_error_body_is_understood(api: FakeApi) -> None:
    bodies = json.loads(shared(ERROR_FILE))
    assert len(bodies) == len(ERRORS)
    for status, code, kind, advice in ERRORS:
        body = bodies[str(status) if status == code else f"{status}_{code}"]
        api.plays(body, status)
        message = api.failure(kind)
        assert body["status"]["error_message"] in message
        assert f"error code {code}" in message
        assert advice in message


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (200, 1001, DataError),
        (200, "1008", TemporaryError),
        (200, 500, TemporaryError),
        (200, 4001, DataError),
        (200, "no number", DataError),
        (200, False, DataError),
        (200, [0], DataError),
        (200, -1, DataError),
        (201, 0, DataError),
        (404, None, DataError),
        (408, None, TemporaryError),
        (418, 4001, DataError),
        (429, None, TemporaryError),
        (429, 4001, TemporaryError),
        (502, 0, TemporaryError),
        (503, "no number", TemporaryError),
    ],
)
def test_the_code_decides_where_it_is_known_and_else_the_http_status(
    api: FakeApi, status: int, code: object, kind: type[Exception]
) -> None:
    api.plays(listing() | error_body(code), status)  # coins beside an error are no coins
    assert f"HTTP {status}, error code" in api.failure(kind)


@pytest.mark.parametrize("message", [None, "", {"a": 1}])
def test_an_error_without_a_message_says_so(api: FakeApi, message: object) -> None:
    api.plays(error_body(1001, message), 401)
    assert '"no message"' in api.failure(DataError)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(200, TemporaryError), (403, DataError), (404, DataError), (429, TemporaryError), (503, TemporaryError)],
)
@pytest.mark.parametrize("body", [b"<html><h1>Just a moment</h1>" + b"x" * 500, b"", b"\xff\xfe\x00", b"[" * 100_000])
def test_a_body_that_is_not_json_is_shown_in_part(
    api: FakeApi, status: int, kind: type[Exception], body: bytes
) -> None:
    api.plays(body, status)
    message = api.failure(kind)
    assert f"HTTP {status}, and the body is not JSON or is cut off" in message
    assert body[:200].decode(errors="replace").replace("\x00", " ") in message
    assert len(message) < 700


@pytest.mark.parametrize("body", [[], None, "ok", 5, {"status": "ok"}, {"status": [0]}])
def test_json_without_the_envelope_is_refused(api: FakeApi, body: object) -> None:
    api.plays(body)
    assert "neither a listing nor an error report" in api.failure(DataError)
    api.plays(body, 502)
    assert "HTTP 502" in api.failure(TemporaryError)


def test_a_truncated_answer_may_pass(api: FakeApi) -> None:
    whole = json.dumps(listing()).encode()
    api.plays(whole[:500], headers={"Content-Length": str(len(whole))})
    assert "broke off" in api.failure(TemporaryError)
    api.plays(whole[:500])  # the length fits, the text is half
    assert "cut off" in api.failure(TemporaryError)
    api.plays(gzip.compress(whole)[:200], headers={"Content-Encoding": "gzip"})
    api.failure(TemporaryError)
    api.plays(b"no gzip", headers={"Content-Encoding": "gzip"})
    assert "broke off" in api.failure(TemporaryError)


@pytest.mark.parametrize("hang", ["before headers", "in body"])
def test_a_slow_answer_ends_after_the_time_out(api: FakeApi, hang: str) -> None:
    api.plays(listing(), hang=hang)
    message = api.failure(TemporaryError, timeout=0.2)
    assert "no answer within 0.2 s" in message or (hang == "in body" and "timed out" in message)
    assert "Run this hour again" in message


def test_a_server_that_is_away_or_speaks_no_http_may_pass(api: FakeApi) -> None:
    api.plays(b"", raw=b"\x00garbage\r\n\r\n")
    assert "BREAKOUT_CMC_URL" in api.failure(TemporaryError)
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        free = server.server_port
    with pytest.raises(TemporaryError, match="connection failed"):
        api.fetch(base_url=f"http://127.0.0.1:{free}")


def test_an_address_that_cannot_be_requested_is_permanent(api: FakeApi) -> None:
    with pytest.raises(DataError, match="Correct BREAKOUT_CMC_URL"):
        api.fetch(base_url="http://127.0.0.1:99999")


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed_so_the_key_goes_to_no_other_host(api: FakeApi, status: int) -> None:
    api.plays(b"", status, headers={"Location": f"{api.url}/elsewhere?key={KEY}"})
    message = api.failure(DataError)
    assert f"HTTP {status}" in message
    assert "/elsewhere" in message
    assert len(api.requests) == 1


def test_a_body_is_read_up_to_the_cap_and_not_beyond(api: FakeApi) -> None:
    whole = json.dumps(listing()).encode()
    packed = {"Content-Encoding": "gzip"}
    api.plays(gzip.compress(whole.ljust(MAX_BODY_BYTES), 1), headers=packed)
    assert len(api.fetch().frame) == 3
    api.plays(gzip.compress(whole.ljust(MAX_BODY_BYTES + 1), 1), headers=packed)
    assert "longer than 50 MB" in api.failure(DataError)


# --- the key in what the server says -------------------------------------------------------------------------------


@pytest.mark.parametrize("echo", [KEY, KEY.upper(), KEY.lower()])
def test_a_key_that_the_server_echoes_is_taken_out_of_every_error(api: FakeApi, echo: str) -> None:
    wrong_price = listing()
    wrong_price["data"][1]["symbol"] = f"C-{echo}"
    wrong_price["data"][1]["quote"][1]["price"] = echo
    escaped = "".join(f"\\u{ord(character):04x}" for character in echo)
    for status, body in (
        (401, error_body(1001, f"The key {echo} is invalid.")),
        (401, error_body(echo)),
        (401, b'{"status": {"error_code": 1001, "error_message": "' + escaped.encode() + b'"}}'),
        (403, f"<html>Your request: {echo}".encode()),
        (200, wrong_price),
    ):
        api.plays(body, status)
        assert "[key]" in api.failure(DataError)


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
    first = api.fetch(api_version="v1").frame
    api.plays(shared(V3_FILE))
    third = api.fetch(api_version="v3").frame
    pd.testing.assert_frame_equal(first, third)
    assert_valid(first)
    assert len(first) == 100
    assert first["max_supply"].isna().sum() == 54


def test_the_schema_of_2021_is_refused_naming_the_three_fields_it_lacks(api: FakeApi) -> None:
    api.plays(shared(OLD_FILE))
    message = api.failure(DataError)
    assert "1000 coins has the fields volume_change_24h, market_cap_dominance, fully_diluted_market_cap;" in message


def test_the_listing_of_2021_is_read_once_the_lacking_fields_are_there_as_null() -> None:
    body = json.loads(shared(OLD_FILE))
    for coin in body["data"]:
        coin["quote"]["USD"] |= dict.fromkeys(["volume_change_24h", "market_cap_dominance", "fully_diluted_market_cap"])
    frame = parse_listing(body, HOUR)
    assert_valid(frame)
    assert len(frame) == 1000
    assert frame["volume_change_24h"].isna().all()
    assert frame["max_supply"].isna().sum() == 446
    twice = frame["symbol"].value_counts()
    assert set(twice[twice == 2].index) == {"ONE", "REV", "USDX", "DG", "FCT", "SCC"}
    assert {"TRUE", "vBNB", "ΤBTC"} <= set(frame["symbol"])
    assert (frame["volume_24h"] == 0).sum() == 24


# --- anything at all -----------------------------------------------------------------------------------------------


def assert_valid(frame: pd.DataFrame) -> None:
    assert tuple(frame.columns) == RAW_COLUMNS
    assert frame.dtypes.equals(raw_frame(pd.DataFrame(index=[0])).dtypes)
    assert len(frame)
    assert frame[["id", "symbol"]].notna().all().all()
    assert frame["timestamp"].eq(pd.Timestamp(HOUR)).all()
    assert not np.isinf(frame[list(FLOAT_COLUMNS)].to_numpy()).any()


ODD: st.SearchStrategy[object] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, 0.0, -0.0, 2**53, 10**400, 1e308, math.nan, math.inf, "0", "1008", "1e5", "", "USD", "\ud800"]),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.none() | st.integers() | st.text(max_size=3), max_size=3),
    st.dictionaries(st.sampled_from(["USD", "symbol", "price", "error_code", "id"]), st.integers() | st.none()),
)
CHANGES = st.sampled_from(["set", "delete", "copy"])


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    """A good listing with a few places overwritten, removed or doubled."""
    body = listing(2, draw(st.sampled_from(["v1", "v3"])))
    for _ in range(draw(st.integers(0, 3))):
        holder: Any = body
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
    return body


@settings(max_examples=400, deadline=None)
@given(mutated())
def test_whatever_a_listing_holds_it_becomes_a_valid_frame_or_a_data_error(body: dict[str, Any]) -> None:
    try:
        frame = parse_listing(body, HOUR)
    except DataError:
        return
    assert_valid(frame)
    assert len(frame) == len(body["data"])


@settings(max_examples=200, deadline=None)
@given(
    body=mutated(),
    status=st.sampled_from([200, 200, 200, 200, 204, 301, 304, 400, 401, 403, 429, 500, 503, 520]),
    cut=st.none() | st.integers(0, 2000),
    noise=st.none() | st.tuples(st.integers(0, 2000), st.binary(max_size=4)),
)
def test_whatever_the_server_answers_the_fetch_ends_in_a_valid_frame_or_a_named_error(
    api: FakeApi, body: dict[str, Any], status: int, cut: int | None, noise: tuple[int, bytes] | None
) -> None:
    content = json.dumps(body).encode()[:cut]
    if noise:
        content = content[: noise[0]] + noise[1] + content[noise[0] + len(noise[1]) :]
    api.plays(content, status)
    try:
        snapshot, message = api.fetch(), ""
    except (DataError, TemporaryError) as error:
        snapshot, message = None, str(error)
    if snapshot is None:
        assert f"{api.url}/v3/cryptocurrency/listings/latest" in message
        assert "HTTP" in message
    else:
        assert status == 200
        assert_valid(snapshot.frame)
        assert all(isinstance(value, str | int | float) for value in snapshot.metadata.values())


def test_the_columns_of_a_frame_are_those_that_are_read() -> None:
    assert {*COIN_FIELDS, *QUOTE_FIELDS, "timestamp"} == set(RAW_COLUMNS)
    assert {"id", "num_market_pairs", "cmc_rank"} == set(INTEGER_COLUMNS)
    assert {"name", "symbol", "date_added", "last_updated"} == set(TEXT_COLUMNS)
