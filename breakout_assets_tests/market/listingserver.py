"""A server on loopback that plays CoinMarketCap as told, invented answers, and a clock that only sleeps move."""

import contextlib
import gzip
import json
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest

from breakout_assets.market.coinmarketcap import CoinMarketCap, Snapshot
from breakout_assets.market.listing import COIN_FIELDS, QUOTE_FIELDS

KEY = "0a1B2c3d-feed-4e5f-8a9b-c0ffee123456"
HOUR = datetime.fromisoformat("2025-07-01T18:00")
NOW = datetime.fromisoformat("2025-07-01T18:26:30")
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
V1_FILE = "cmc_listings_latest_v1_2025-07-01_top100_rebuilt.json"
V3_FILE = "cmc_listings_latest_v3_2025-07-01_top100_rebuilt.json"
OLD_FILE = "cmc_listings_latest_2021-06-29_limit1000.json.gz"
ERROR_FILE = "cmc_error_bodies.json"
LISTING_PATH = "/v3/cryptocurrency/listings/latest"
INFO_PATH = "/v1/key/info"


def shared(name: str) -> bytes:
    """A recorded answer, unpacked; skips the test where it is absent."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is absent; it is optional")
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def coin(number: int, version: str = "v3") -> dict[str, Any]:
    """An invented coin, id 100 times its number, price its number and a quarter, in one of the two shapes."""
    quote: dict[str, Any] = dict.fromkeys(QUOTE_FIELDS, number + 0.25) | {"last_updated": "2025-07-01T18:25:00.000Z"}
    made: dict[str, Any] = dict.fromkeys(COIN_FIELDS, 100 * number)
    made |= {"name": f"Coin {number}", "symbol": f"C{number}", "date_added": "2020-01-01T00:00:00.000Z"}
    made |= {"slug": f"c-{number}", "tags": ["mineable"]}
    # The coin's own time must not be taken for the quote's, nor another currency's quote for the dollar's.
    made["last_updated"] = "1999-01-01T00:00:00.000Z"
    euro = dict.fromkeys(QUOTE_FIELDS, -1)
    in_list = [{"id": 2790, "symbol": "EUR", **euro}, {"id": 2781, "symbol": "USD", **quote}]
    return made | {"quote": in_list if version == "v3" else {"EUR": euro, "USD": quote}}


def envelope(data: object, **status: object) -> dict[str, Any]:
    """A successful answer with this data."""
    usual = {"timestamp": "2025-07-01T18:26:29.000Z", "error_code": 0, "error_message": None, "credit_count": 1}
    return {"status": {**usual, "elapsed": 20, "notice": None, **status}, "data": data}


def listing(coins: int = 3, version: str = "v3", first: int = 1, **status: object) -> dict[str, Any]:
    """An invented listing in one of the two shapes."""
    return envelope([coin(number, version) for number in range(first, first + coins)], **status)


def past_coin(number: int, *stamps: str, version: str = "v3") -> dict[str, Any]:
    """An invented coin with quotes of the past at these times; prices are the number, and a tenth more each time."""
    quotes = []
    for place, stamp in enumerate(stamps):
        quote = {"price": number + place / 10, "volume_24h": 50 * number, "market_cap": 70 * number, "timestamp": stamp}
        quote |= {"circulating_supply": 11 * number, "total_supply": 12 * number, "percent_change_1h": 0.5}
        shape: object = {"USD": quote} if version == "v1" else [{"id": 2781, "symbol": "USD", **quote}]
        quotes.append({"timestamp": stamp, "quote": shape})
    return {"id": 100 * number, "name": f"Coin {number}", "symbol": f"C{number}", "is_active": 1, "quotes": quotes}


def error_body(code: object, message: object = "Something went wrong.") -> dict[str, Any]:
    """A reported error."""
    return {"status": {"error_code": code, "error_message": message, "credit_count": 0}}


def key_info(used: object = 100, limit: object = 10_000, reset: object = "2025-08-01T00:00:00.000Z") -> dict[str, Any]:
    """An answer about a key."""
    plan = {"credit_limit_monthly": limit, "credit_limit_monthly_reset_timestamp": reset, "rate_limit_minute": 30}
    return envelope({"plan": plan, "usage": {"current_month": {"credits_used": used}}}, credit_count=0)


@dataclass
class FakeTime:
    """A clock that stands still but for the sleeps, which it remembers."""

    spread: float = 0.0
    seconds: float = 1000.0
    waits: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.seconds += seconds

    def monotonic(self) -> float:
        return self.seconds

    def jitter(self) -> float:
        return self.spread


@dataclass
class Reply:
    """One answer.

    `hang` names where the server stops, to go on well after some seconds, or where it sends a byte at a time; so only a
    client that stops waiting reports an error.
    """

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    hang: str = ""  # "" | "before headers" | "in body" | "drip headers" | "drip body"
    raw: bytes = b""
    chunked: bool = False


@dataclass
class Request:
    """What the server was asked."""

    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    line: str


@dataclass
class FakeApi:
    """What the server answers next, and what it was asked.

    The replies are given one after the other, the last one for ever; a path may have its own.
    """

    url: str
    replies: dict[str, list[Reply]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)
    time: FakeTime = field(default_factory=FakeTime)

    def plays(self, body: object, status: int = 200, at: str = "", **more: Any) -> None:
        """Forget all that was, and answer this."""
        self.requests.clear()
        self.replies.clear()
        self.time = FakeTime()
        self.then(body, status, at, **more)

    def then(self, body: object, status: int = 200, at: str = "", **more: Any) -> None:
        """Answer this after what was told before."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.replies.setdefault(at, []).append(Reply(content, status, **more))

    def next_reply(self, path: str) -> Reply:
        queue = self.replies[path if path in self.replies else ""]
        return queue.pop(0) if len(queue) > 1 else queue[0]

    def paths(self) -> list[str]:
        return [request.path for request in self.requests]

    def client(self, **more: Any) -> CoinMarketCap:
        """A client whose time is the fake one."""
        clock = {"sleep": self.time.sleep, "monotonic": self.time.monotonic, "jitter": self.time.jitter}
        return CoinMarketCap(**{"base_url": self.url, "key": lambda: KEY, "timeout": 10.0, "limit": 3, **clock, **more})

    def fetch(self, hour: datetime = HOUR, now: datetime = NOW, **more: Any) -> Snapshot:
        return self.client(**more).fetch(hour, now)

    def followed(self, ids: list[int], **more: Any) -> Snapshot:
        return self.client(**more).fetch_followed(ids, HOUR, NOW)

    def past(self, ids: list[int], **more: Any) -> Snapshot:
        return self.client(**more).fetch_past(HOUR, ids, NOW + timedelta(days=1))

    def failure(self, kind: type[Exception], call: str = "fetch", *arguments: Any, **more: Any) -> str:
        """Message of the error that a call ends in, after a look for the key in everything that it shows."""
        with pytest.raises(kind) as caught:
            getattr(self, call)(*arguments, **more)
        assert caught.value.__context__ is None, "the first error, with the request's headers, is still attached"
        assert KEY.lower() not in "".join(traceback.format_exception(caught.value)).lower()
        message = str(caught.value)
        assert f"GET {self.url}" in message
        assert "2025-07-01 18:00 UTC" in message
        return message


class _Handler(BaseHTTPRequestHandler):
    fake: ClassVar[FakeApi]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.fake.requests.append(Request(parts.path, parse_qs(parts.query), dict(self.headers.items()), self.path))
        self.close_connection = True
        with contextlib.suppress(OSError):  # a client that has lost patience is gone
            self.answer(self.fake.next_reply(parts.path))

    def answer(self, reply: Reply) -> None:
        if reply.hang == "before headers":
            self.fake.release.wait(5)
        if reply.raw:
            self.wfile.write(reply.raw)
            return
        body = reply.body
        self.send_response(reply.status)
        length = {"Transfer-Encoding": "chunked"} if reply.chunked else {"Content-Length": str(len(body))}
        for name, value in {**length, "Connection": "close", **reply.headers}.items():
            self.send_header(name, value)
        if reply.hang == "drip headers":
            self.drip(b"X-Slow: " + b"x" * 500 + b"\r\n")
        self.end_headers()
        if reply.hang == "drip body":
            self.drip(body)
            return
        if reply.hang == "in body":
            self.wfile.write(body[:50])
            self.fake.release.wait(5)
            body = body[50:]
        if reply.chunked:
            body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:100], body[100:])) + b"0\r\n\r\n"
        self.wfile.write(body)

    def drip(self, content: bytes) -> None:
        """A byte now and then, each far within any time-out between two bytes."""
        self.flush_headers()
        for place in range(len(content)):
            self.wfile.write(content[place : place + 1])
            if self.fake.release.wait(0.01):
                return

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
        pass


@contextlib.contextmanager
def serving() -> Iterator[FakeApi]:
    """A server that plays CoinMarketCap for as long as this lasts."""
    fake = FakeApi("")
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"fake": fake}))
    fake.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        yield fake
    fake.release.set()
    server.shutdown()
    thread.join()
    server.server_close()
