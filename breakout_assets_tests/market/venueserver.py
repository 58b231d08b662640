"""An exchange on loopback that speaks the two calls of Binance's spot interface that candles need."""

import json
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pandas as pd
import pytest

HOUR_MS = 3_600_000


@dataclass(frozen=True)
class Trouble:
    """An answer instead of candles: a status, with `Retry-After` if wanted, or a connection that is cut (0)."""

    status: int
    retry_after: str = ""
    body: str = '{"code":-1003,"msg":"Too much request weight used."}'


@dataclass
class Venue:
    """What the exchange holds, how it misbehaves, and what it was asked."""

    now: pd.Timestamp
    candles: dict[str, dict[int, tuple[float, float]]] = field(default_factory=dict)
    """By symbol, by open time in ms: close and base volume."""
    page: int = 1000
    """Candles that it gives at most at once, whatever is asked for."""
    next_only: bool = True
    """Whether a span without candles is answered with the next ones, or with nothing."""
    troubles: deque[Trouble] = field(default_factory=deque)
    asked: list[tuple[str, int, int]] = field(default_factory=list)
    """Symbol, start and limit of every request for candles that was answered with candles."""
    served: list[tuple[str, int]] = field(default_factory=list)
    """Symbol and open time of every candle that was given."""
    listed: int = 0
    """How often the list of markets was asked for."""

    def list_pair(self, pair: str, first: str, hours: int, holes: tuple[int, ...] = (), price: float = 100.0) -> None:
        """Add a pair with one candle an hour, whose price and volume follow from its hour, but for some."""
        start = int(pd.Timestamp(first, tz="UTC").timestamp()) * 1000
        self.candles[pair.replace("/", "")] = {
            start + n * HOUR_MS: (price * (1 + n % 37 / 100), 10.0 + n % 11) for n in range(hours) if n not in holes
        }

    def klines(self, symbol: str, start: int, limit: int) -> list[list[Any]]:
        """The candles from `start` on, among them one whose hour is not over."""
        self.asked.append((symbol, start, limit))
        newest = int(self.now.tz_localize("UTC").timestamp() * 1000)
        opens = sorted(time for time in self.candles[symbol] if start <= time <= newest)[: min(limit, self.page)]
        if not self.next_only:
            opens = [time for time in opens if time < start + min(limit, self.page) * HOUR_MS]
        self.served += [(symbol, time) for time in opens]
        return [_kline(time, *self.candles[symbol][time]) for time in opens]


def _kline(time: int, close: float, volume: float) -> list[Any]:
    price = repr(close)
    return [time, price, price, price, price, repr(volume), time + HOUR_MS - 1, repr(close * volume), 1, "0", "0", "0"]


def _market(symbol: str) -> dict[str, Any]:
    base = symbol.removesuffix("USDT")
    return {
        "symbol": symbol,
        "status": "TRADING",
        "baseAsset": base,
        "quoteAsset": "USDT",
        "baseAssetPrecision": 8,
        "quotePrecision": 8,
        "isSpotTradingAllowed": True,
        "permissions": ["SPOT"],
        "filters": [],
    }


@contextmanager
def serving(venue: Venue) -> Iterator[Any]:
    """A ccxt client of the exchange, which is served until the block ends; the test is skipped without ccxt."""
    pytest.importorskip("ccxt", reason="ccxt is absent; it is optional (the extra `candles`)")
    from breakout_assets.market.candle_download import venue_client

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(url.query).items()}
            if url.path.endswith("/exchangeInfo"):
                venue.listed += 1
                self.answer(200, json.dumps({"symbols": [_market(symbol) for symbol in venue.candles]}))
            elif venue.troubles:
                trouble = venue.troubles.popleft()
                if trouble.status:
                    headers = {"Retry-After": trouble.retry_after} if trouble.retry_after else {}
                    self.answer(trouble.status, trouble.body, headers)
                else:
                    self.close_connection = True  # without a word
            else:
                assert url.path.endswith("/klines")
                assert query["interval"] == "1h"
                found = venue.klines(query["symbol"], int(query["startTime"]), int(query["limit"]))
                self.answer(200, json.dumps(found))

        def answer(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the name that the class has
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    client: Any = venue_client("binance")
    client.urls["api"] = dict.fromkeys(client.urls["api"], f"http://127.0.0.1:{server.server_port}/api/v3")
    try:
        yield client
    finally:
        client.session.close()  # handlers of connections that are kept open would not end
        server.shutdown()
        thread.join()
        server.server_close()
