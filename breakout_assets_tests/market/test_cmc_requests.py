"""Requests that fail, one row of CoinMarketCap's error table after the other: how often, how long, and what is said."""

import gzip
import itertools
import json
import logging
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breakout_assets.errors import DataError, TemporaryError
from breakout_assets.market.cmc_errors import REACTIONS, server_wait
from breakout_assets.market.cmc_requests import MAX_BODY_BYTES
from breakout_assets_tests.market.listingserver import (
    ERROR_FILE,
    HOUR,
    KEY,
    LISTING_PATH,
    NOW,
    FakeApi,
    FakeTime,
    error_body,
    listing,
    serving,
    shared,
)

# HTTP status, error code, kind of error, a word of what the reader is told, and the first waits without jitter.
NEVER: list[float] = []
MINUTES: list[float] = [60, 60, 60, 60]
ERRORS: list[tuple[int, int, type[Exception], str, list[float]]] = [
    (400, 400, DataError, "BREAKOUT_CMC_LIMIT", NEVER),
    (401, 1001, DataError, "Set BREAKOUT_CMC_API_KEY to a valid key", NEVER),
    (401, 1002, DataError, "Set BREAKOUT_CMC_API_KEY to your key, or choose BREAKOUT_CMC_KEYLESS", NEVER),
    (402, 1003, DataError, "account page", NEVER),
    (402, 1004, DataError, "Renew", NEVER),
    (403, 1005, DataError, "Set BREAKOUT_CMC_API_KEY", NEVER),
    (403, 1006, DataError, "plan that covers this endpoint", NEVER),
    (403, 1007, DataError, "support", NEVER),
    (404, 404, DataError, "BREAKOUT_CMC_VERSION", NEVER),
    (429, 1008, TemporaryError, "wait a minute", MINUTES),
    (429, 1009, DataError, "midnight UTC, 2025-07-02 00:00", NEVER),
    (429, 1010, DataError, "on the first, 2025-08-01 00:00 UTC", NEVER),
    (429, 1011, TemporaryError, "address", [60, 120]),
    (500, 500, TemporaryError, "CoinMarketCap's side", [1, 2, 4, 8, 16, 32, 64, 64, 64]),
]
LONG = timedelta(minutes=5)


@pytest.fixture(scope="module")
def api() -> Iterator[FakeApi]:
    with serving() as fake:
        yield fake


def expected_waits(waits: list[float], span: float = 300) -> list[float]:
    """As many of these waits as end within the span."""
    return [wait for place, wait in enumerate(waits) if sum(waits[: place + 1]) < span]


# --- the error table -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "code", "kind", "advice", "waits"), ERRORS)
@pytest.mark.parametrize("as_text", [False, True])
def test_every_documented_error_has_its_own_reaction(
    api: FakeApi, status: int, code: int, kind: type[Exception], advice: str, waits: list[float], as_text: bool
) -> None:
    api.plays(error_body(str(code) if as_text else code, "It can't be done."), status)
    message = api.failure(kind)
    assert f'HTTP {status}, error code {code}, "It can\'t be done."' in message
    assert advice in message
    assert api.time.waits == expected_waits(waits)
    assert len(api.requests) == len(api.time.waits) + 1
    assert (f"attempt {len(api.requests)}" in message) == bool(waits)


def test_every_published_error_body_is_understood(api: FakeApi) -> None:
    bodies = json.loads(shared(ERROR_FILE))
    assert len(bodies) == len(ERRORS) - 1, "all but the one for a wrong address"
    for status, code, kind, advice, waits in ERRORS:
        body = bodies.get(str(status) if status == code else f"{status}_{code}")
        if body is None:
            continue
        api.plays(body, status)
        message = api.failure(kind)
        assert body["status"]["error_message"] in message
        assert f"error code {code}" in message
        assert advice in message
        assert api.time.waits == expected_waits(waits)


def test_a_reset_at_the_end_of_a_year_is_in_the_next_one(api: FakeApi) -> None:
    hour = datetime.fromisoformat("2025-12-31T23:00")
    for code, reset in ((1009, "2026-01-01 00:00"), (1010, "2026-01-01 00:00 UTC")):
        api.plays(error_body(code), 429)
        with pytest.raises(DataError, match=reset):
            api.fetch(hour, hour)


@pytest.mark.parametrize(
    ("status", "code", "kind", "attempts"),
    [
        (200, 1001, DataError, 1),
        (200, "1008", TemporaryError, 5),
        (200, 500, TemporaryError, 10),
        (200, "1009", DataError, 1),
        (200, 4001, DataError, 1),
        (200, "no number", DataError, 1),
        (200, False, DataError, 1),
        (200, [0], DataError, 1),
        (200, -1, DataError, 1),
        (201, 0, DataError, 1),
        (404, None, DataError, 1),
        (408, None, TemporaryError, 4),
        (418, 4001, DataError, 1),
        (429, None, TemporaryError, 5),
        (429, 4001, TemporaryError, 5),
        (502, 0, TemporaryError, 10),
        (503, "no number", TemporaryError, 10),
        (520, 1009, DataError, 1),
    ],
)
def test_the_code_decides_where_it_is_known_and_else_the_http_status(
    api: FakeApi, status: int, code: object, kind: type[Exception], attempts: int
) -> None:
    api.plays(listing() | error_body(code), status)  # coins beside an error are no coins
    assert f"HTTP {status}, error code" in api.failure(kind)
    assert len(api.requests) == attempts


@pytest.mark.parametrize("message", [None, "", {"a": 1}])
def test_an_error_without_a_message_says_so(api: FakeApi, message: object) -> None:
    api.plays(error_body(1001, message), 401)
    assert '"no message"' in api.failure(DataError)


def test_every_reaction_tells_what_to_do() -> None:
    assert {code for _, code, _, _, _ in ERRORS} - {500} <= REACTIONS.keys()
    for reaction in REACTIONS.values():
        assert reaction.action.endswith(".")
        assert reaction.first_wait is None or reaction.passing


# --- recovery ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failures", [1, 2])
@pytest.mark.parametrize(
    ("status", "code", "waits"), [(429, 1008, [60, 60]), (503, None, [1, 2]), (429, 1011, [60, 120])]
)
def test_a_failure_that_passes_costs_a_wait_and_no_hour(
    api: FakeApi, failures: int, status: int, code: object, waits: list[float]
) -> None:
    api.plays(error_body(code), status)
    for _ in range(failures - 1):
        api.then(error_body(code), status)
    api.then(listing())
    assert len(api.fetch().frame) == 3
    assert len(api.requests) == failures + 1
    assert api.time.waits == waits[:failures]


def test_each_attempt_may_fail_in_its_own_way(api: FakeApi) -> None:
    whole = json.dumps(listing()).encode()
    api.plays(b"<html>busy", 503)
    api.then(whole[:100])
    api.then(error_body(1008), 429, headers={"Retry-After": "7"})
    api.then(whole)
    assert len(api.fetch().frame) == 3
    assert api.time.waits == [1, 2, 7]


def test_the_outcome_of_the_last_attempt_is_told(api: FakeApi) -> None:
    api.plays(error_body(500), 500)
    api.then(error_body(1001), 401)
    message = api.failure(DataError)
    assert "error code 1001" in message
    assert "error code 500" not in message
    assert "(attempt 2, 1 s after the first)" in message


@pytest.mark.parametrize(("spread", "waits"), [(0.0, [60, 7]), (1.0, [90, 12])])
def test_jitter_only_ever_adds_to_a_wait(api: FakeApi, spread: float, waits: list[float]) -> None:
    api.plays(error_body(1008), 429)
    api.then(error_body(1008), 429, headers={"Retry-After": "7"})
    api.then(listing())
    api.time.spread = spread
    api.fetch()
    assert api.time.waits == waits


# --- how long the server asks to wait ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": " 7.5 "}, 7.5),
        ({"x-ratelimit-reset": "2025-07-01 18:27:00 +0000"}, 30),
        ({"X-RateLimit-Reset": "2025-07-01 14:27:00 -0400"}, 30),
        ({"Retry-After": "7", "x-ratelimit-reset": "2025-07-01 18:28:00 +0000"}, 7),
        ({"Retry-After": "soon", "x-ratelimit-reset": "2025-07-01 18:27:00 +0000"}, 30),
        ({"Retry-After": "-7"}, 60),
        ({"Retry-After": "nan"}, 60),
        ({"Retry-After": "1e3"}, 60),
        ({"Retry-After": "9" * 400}, 60),
        ({"Retry-After": "Tue, 01 Jul 2025 18:27:00 GMT"}, 60),
        ({"x-ratelimit-reset": "2025-07-01 18:26:00 +0000"}, 60),  # has passed
        ({"x-ratelimit-reset": "2025-07-01T18:27:00Z"}, 60),
        ({"x-ratelimit-reset": "0001-01-01 00:00:00 +2359"}, 60),
        ({"x-ratelimit-reset": "1751394420"}, 60),
        ({"Retry-After": "", "x-ratelimit-reset": ""}, 60),
    ],
)
def test_the_servers_own_waiting_time_is_kept_where_it_can_be_read(
    api: FakeApi, headers: dict[str, str], wait: float
) -> None:
    api.plays(error_body(1008), 429, headers=headers)
    api.then(listing())
    assert len(api.fetch().frame) == 3
    assert api.time.waits == [wait]


def test_the_time_that_has_passed_counts_when_the_server_names_a_time(api: FakeApi) -> None:
    api.plays(error_body(500), 500)
    api.then(error_body(1008), 429, headers={"x-ratelimit-reset": "2025-07-01 18:27:00 +0000"})
    api.then(listing())
    api.fetch()
    assert api.time.waits == [1, 29]


def test_a_busy_server_is_given_the_time_it_asks_for(api: FakeApi) -> None:
    api.plays(b"<html>", 503, headers={"Retry-After": "20"})
    api.then(listing())
    api.fetch()
    assert api.time.waits == [20]


def test_a_server_that_asks_for_no_wait_is_asked_ever_more_slowly(api: FakeApi) -> None:
    api.plays(error_body(1008), 429, headers={"Retry-After": "0"})
    api.failure(TemporaryError)
    assert api.time.waits == [1, 2, 4, 8, 16, 32, 64, 64, 64]


def test_a_number_of_attempts_is_never_exceeded(api: FakeApi) -> None:
    api.plays(error_body(500), 500)
    api.failure(TemporaryError, budget=timedelta(days=1), now=HOUR)
    assert len(api.requests) == 12


@given(st.dictionaries(st.sampled_from(["Retry-After", "x-ratelimit-reset"]), st.text(max_size=30)))
def test_no_header_is_too_odd(headers: dict[str, str]) -> None:
    wait = server_wait(headers, NOW)
    assert wait is None or wait >= 0


@given(st.datetimes(), st.integers(-1439, 1439))
def test_any_time_with_an_offset_is_read_or_ignored(moment: datetime, minutes: int) -> None:
    sign, rest = ("-" if minutes < 0 else "+"), abs(minutes)
    text = f"{moment.isoformat(' ', 'seconds')} {sign}{rest // 60:02}{rest % 60:02}"
    wait = server_wait({"x-ratelimit-reset": text}, NOW)
    assert wait is None or wait > 0


# --- the time that there is ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "budget", "waits"),
    [
        (HOUR, LONG, [60, 60, 60, 60]),
        (HOUR, timedelta(seconds=61), [60]),
        (HOUR, timedelta(seconds=60), []),
        (HOUR + timedelta(minutes=58), LONG, [60]),
        (HOUR + timedelta(minutes=59), LONG, []),
    ],
)
def test_no_wait_goes_past_the_budget_or_the_end_of_the_hour(
    api: FakeApi, now: datetime, budget: timedelta, waits: list[float]
) -> None:
    api.plays(error_body(1008), 429)
    assert "Run this hour again" in api.failure(TemporaryError, now=now, budget=budget)
    assert api.time.waits == waits
    assert len(api.requests) == len(waits) + 1


def test_a_wait_that_the_hour_leaves_no_time_for_is_told(api: FakeApi) -> None:
    api.plays(error_body(1008), 429, headers={"Retry-After": "3600"})
    assert "the server asks to come back at 2025-07-01 19:26:30 UTC" in api.failure(TemporaryError)
    assert len(api.requests) == 1
    api.plays(error_body(1009), 429, headers={"x-ratelimit-reset": "2025-07-02 00:00:00 +0000"})
    assert "the server asks to come back at 2025-07-02 00:00:00 UTC" in api.failure(DataError)
    api.plays(error_body(1009), 429, headers={"x-ratelimit-reset": "9999-12-31 23:59:59 +0000"})
    ticks = itertools.count(0, 2)  # two seconds later that time would be beyond the calendar
    assert "the server asks to come back at" in api.failure(DataError, monotonic=lambda: float(next(ticks)))


def test_the_pages_of_a_listing_share_one_budget(api: FakeApi) -> None:
    api.plays(error_body(1008), 429)
    api.then(listing(1))
    api.then(error_body(1008), 429)
    api.failure(TemporaryError, page_size=1, budget=timedelta(seconds=150))
    assert api.time.waits == [60, 60]


def test_nothing_is_asked_once_the_time_is_used_up(api: FakeApi) -> None:
    api.plays(listing(1))
    clock = FakeTime()
    ticks = iter([0.0, 0.0, 0.0, 0.0, 0.0])  # until the first answer is there; then it is late
    message = api.failure(TemporaryError, page_size=1, monotonic=lambda: next(ticks, 400.0), sleep=clock.sleep)
    assert "the time that was allowed is used up" in message
    assert clock.waits == []
    assert len(api.requests) == 1


# --- what is logged ------------------------------------------------------------------------------------------------


def test_each_attempt_is_a_log_line(api: FakeApi, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="breakout_assets")
    api.plays(error_body(1008, f"slow down, {KEY}"), 429)
    api.then(b"<html>", 502)
    api.then(listing())
    api.fetch()
    where = f"GET {api.url}{LISTING_PATH} for hour 2025-07-01 18:00 UTC: "
    [first, second, third] = [record for record in caplog.records if record.name.startswith("breakout_assets")]
    assert first.getMessage().startswith(f"{where}attempt 1 failed: HTTP 429, error code 1008")
    assert first.getMessage().endswith("the next in 60.0 s")
    assert second.getMessage().startswith(f"{where}attempt 2 failed: HTTP 502")
    assert (first.levelname, second.levelname, third.levelname) == ("WARNING", "WARNING", "INFO")
    assert KEY not in caplog.text


def test_the_last_failure_is_logged_as_the_last(api: FakeApi, caplog: pytest.LogCaptureFixture) -> None:
    api.plays(error_body(1001), 401)
    api.failure(DataError)
    [record] = [record for record in caplog.records if record.name.startswith("breakout_assets")]
    assert record.levelname == "WARNING"
    assert "attempt 1 failed" in record.getMessage()
    assert record.getMessage().endswith("it is the last")


# --- bodies that are no answer -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind", "attempts"),
    [
        (200, DataError, 1),
        (403, DataError, 1),
        (404, DataError, 1),
        (429, TemporaryError, 5),
        (503, TemporaryError, 10),
    ],
)
@pytest.mark.parametrize("body", [b"<html><h1>Just a moment</h1>" + b"x" * 500, b"", b"\xff\xfe\x00", b"[" * 100_000])
def test_a_body_of_another_kind_is_shown_in_part_and_asked_for_again_if_the_status_says_so(
    api: FakeApi, status: int, kind: type[Exception], attempts: int, body: bytes
) -> None:
    api.plays(body, status)
    message = api.failure(kind)
    assert f"HTTP {status}, and the body is not JSON or is cut off" in message
    assert body[:200].decode(errors="replace").replace("\x00", " ") in message
    assert len(message) < 700
    assert len(api.requests) == attempts


@pytest.mark.parametrize("body", [[], None, "ok", 5, {"status": "ok"}, {"status": [0]}])
def test_json_without_the_envelope_is_refused(api: FakeApi, body: object) -> None:
    api.plays(body)
    assert "neither a listing nor an error report" in api.failure(DataError)
    assert len(api.requests) == 1
    api.plays(body, 502)
    assert "HTTP 502" in api.failure(TemporaryError)


def broken() -> list[Any]:
    whole = json.dumps(listing()).encode()
    packed = {"Content-Encoding": "gzip"}
    return [
        pytest.param(whole[:500], {"Content-Length": str(len(whole))}, "broke off", id="shorter than its length"),
        pytest.param(whole[:500], {}, "cut off", id="half the text"),
        pytest.param(b"{" + b"9" * 5000, {}, "cut off", id="a number too long to read"),
        pytest.param(gzip.compress(whole)[:200], packed, "", id="half the gzip"),
        pytest.param(
            gzip.compress(whole)[:200],
            packed | {"Content-Length": "900"},
            "broke off",
            id="gzip shorter than its length",
        ),
        pytest.param(b"no gzip", packed, "broke off", id="no gzip"),
    ]


@pytest.mark.parametrize(("body", "headers", "words"), broken())
def test_a_truncated_answer_is_asked_for_again(api: FakeApi, body: bytes, headers: dict[str, str], words: str) -> None:
    api.plays(body, headers=headers)
    assert words in api.failure(TemporaryError)
    assert api.time.waits == [1, 2, 4], "each may have cost its credits"
    api.plays(body, headers=headers)
    api.then(listing())
    assert len(api.fetch().frame) == 3
    assert api.time.waits == [1]


def test_a_body_is_read_up_to_the_cap_and_not_beyond(api: FakeApi) -> None:
    whole = json.dumps(listing()).encode()
    packed = {"Content-Encoding": "gzip"}
    api.plays(gzip.compress(whole.ljust(MAX_BODY_BYTES), 1), headers=packed)
    assert len(api.fetch().frame) == 3
    api.plays(gzip.compress(whole.ljust(MAX_BODY_BYTES + 1), 1), headers=packed)
    assert "longer than 50 MB" in api.failure(DataError)
    assert len(api.requests) == 1


# --- connections ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hang", ["before headers", "in body"])
def test_a_silent_server_ends_after_the_time_out(api: FakeApi, hang: str) -> None:
    api.plays(listing(), hang=hang)
    message = api.failure(TemporaryError, timeout=0.2, budget=timedelta(seconds=1))
    assert "no answer within 0.2 s" in message or (hang == "in body" and "timed out" in message)
    assert "Run this hour again" in message


@pytest.mark.parametrize("hang", ["drip headers", "drip body"])
def test_a_server_that_drips_ends_at_the_deadline(api: FakeApi, hang: str) -> None:
    api.plays(listing(), hang=hang)
    started = time.monotonic()
    message = api.failure(TemporaryError, deadline=0.3, budget=timedelta(seconds=1))
    assert "was not complete within 0.3 s" in message
    assert time.monotonic() - started < 5, "the server needs longer than that for its whole answer"
    api.plays(listing(), hang=hang)
    api.then(listing())
    assert len(api.fetch(deadline=0.3).frame) == 3


def test_an_answer_that_is_given_up_is_not_read_on(api: FakeApi) -> None:
    before = set(threading.enumerate())
    api.plays(listing(30), hang="drip body")
    api.failure(TemporaryError, deadline=0.2, budget=timedelta(seconds=1))
    readers = [one for one in threading.enumerate() if one not in before and one.name == "coinmarketcap"]
    for reader in readers:
        reader.join(10)
        assert not reader.is_alive(), "the server goes on for minutes"


def test_no_attempt_takes_longer_than_the_hour_lasts(api: FakeApi) -> None:
    api.plays(listing(), hang="drip body")
    now = HOUR + timedelta(minutes=59, seconds=59, milliseconds=700)
    assert "was not complete within 0.3 s" in api.failure(TemporaryError, now=now)


def test_a_server_that_is_away_or_speaks_no_http_may_come_back(api: FakeApi) -> None:
    api.plays(b"", raw=b"\x00garbage\r\n\r\n")
    assert "BREAKOUT_CMC_URL" in api.failure(TemporaryError)
    assert len(api.requests) == 10
    api.plays(b"", raw=b"\x00garbage\r\n\r\n")
    api.then(listing())
    assert len(api.fetch().frame) == 3
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        free = server.server_port
    with pytest.raises(TemporaryError, match="connection failed"):
        api.fetch(base_url=f"http://127.0.0.1:{free}")


def test_an_address_that_cannot_be_requested_is_permanent(api: FakeApi) -> None:
    api.plays(listing())
    with pytest.raises(DataError, match="Correct BREAKOUT_CMC_URL"):
        api.fetch(base_url="http://127.0.0.1:99999")
    assert api.time.waits == []


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed_so_the_key_goes_to_no_other_host(api: FakeApi, status: int) -> None:
    api.plays(b"", status, headers={"Location": f"{api.url}/elsewhere?key={KEY}"})
    message = api.failure(DataError)
    assert f"HTTP {status}" in message
    assert "/elsewhere" in message
    assert len(api.requests) == 1
