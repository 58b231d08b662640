"""Serves a fake exchange on loopback, with the answers spoilt as told."""

import hashlib
import hmac
import json
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Final
from urllib.parse import parse_qsl, urlsplit

import pytest
from tenacity import wait_none

from breakout_assets.trading.exchange import ExchangeBroker
from breakout_assets.trading.exchange_client import TIMEOUT, ExchangeSettings, Secrets
from breakout_assets.trading.venues import Pair
from breakout_assets_tests.trading.fakeexchange import FAULTS, FakeExchange, Fault, Refused

KEY: Final = "kEy0123456789abcdefKEY"
SECRET: Final = "sEcReT0123456789abcdefSECRET"
# SATS is a token of many digits: more than a float holds.
PAIRS: Final = (Pair("SOL-5426", "SOL/USDT"), Pair("SATS-28194", "SATS/USDT"))
# Seconds that a client waits whose answer never comes; others wait as long as in earnest, on however slow a machine.
IMPATIENT: Final = 0.3
# Longer than any client of the tests waits, so that a server whose test has ended does not hang.
_PATIENCE: Final = 20.0


class _Handler(BaseHTTPRequestHandler):
    exchange: ClassVar[FakeExchange]
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two writes, and the second would wait 40 ms

    def serve(self) -> None:
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        signed = body or url.query
        query = dict(parse_qsl(signed, keep_blank_values=True))
        call = f"{self.command} {url.path.rpartition('/')[2]}"
        with self.exchange.lock:
            self.exchange.asked.append((call, query))
            waiting = self.exchange.faults[call]
            fault = waiting.popleft() if waiting else Fault(done=True)
        status, text = 200, ""
        self.exchange.release.wait(fault.seconds / 2)
        if fault.done:
            status, text = self.answer_to(call, query, signed)
        with suppress(OSError):  # a client that has lost patience is gone
            self.deliver(fault, status, text)

    do_GET = do_POST = do_DELETE = serve  # noqa: N815  the names that the base class looks for

    def answer_to(self, call: str, query: dict[str, str], signed: str) -> tuple[int, str]:
        payload, _, signature = signed.partition("&signature=")
        expected = hmac.new(SECRET.encode(), payload.encode(), hashlib.sha256).hexdigest()
        public = call in ("GET time", "GET exchangeInfo")
        if not public and (signature != expected or self.headers.get("X-MBX-APIKEY") != KEY):
            return 401, json.dumps({"code": -2015, "msg": "Invalid API-key, IP, or permissions for action."})
        try:
            return 200, json.dumps(self.exchange.answer(call, query))
        except Refused as refused:
            return 400, refused.body

    def deliver(self, fault: Fault, status: int, text: str) -> None:
        self.exchange.release.wait(fault.seconds / 2)
        if fault.hang:
            self.exchange.release.wait(_PATIENCE)
        if fault.hang or not fault.status:
            self.close_connection = True
            # Closing at once, unread bytes or not, is what makes a reset of it.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return
        body = (text if fault.body is None else fault.body).encode()
        body = body[: len(body) // 2] if fault.cut else body
        self.send_response(status if fault.status == 200 else fault.status)
        html = body.startswith(b"<")
        self.send_header("Content-Type", "text/html" if html else "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in fault.headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the name that the class has
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is no news."""


@contextmanager
def serving(exchange: FakeExchange) -> Iterator[FakeExchange]:
    """The exchange at `exchange.url`, until the block ends; the test is skipped without ccxt."""
    pytest.importorskip("ccxt", reason="ccxt is absent; it is optional (the extra `live`)")
    server = _Server(("127.0.0.1", 0), type("Bound", (_Handler,), {"exchange": exchange}))
    exchange.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield exchange
    finally:
        exchange.release.set()
        server.shutdown()
        thread.join()
        server.server_close()


def patience(fault: str) -> float:
    """How long a client should wait in a test of this fault, seconds."""
    return IMPATIENT if FAULTS[fault].hang else TIMEOUT


def settings_at(exchange: FakeExchange, **more: Any) -> ExchangeSettings:
    """Settings of a broker there."""
    settings = ExchangeSettings(venue="binance", pairs=PAIRS, sandbox=False, base_url=exchange.url)
    return replace(settings, **more)


def broker_at(exchange: FakeExchange, **more: Any) -> ExchangeBroker:
    """A broker there that keeps to no rate and does not wait between attempts."""
    broker = ExchangeBroker(settings_at(exchange, **more), lambda: Secrets(KEY, SECRET), wait_none())
    broker._connection.client.enableRateLimit = False
    return broker
