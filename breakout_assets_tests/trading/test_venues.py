"""How exchanges spell client order ids, in the requests that ccxt really builds, and which market is which token."""

import json
import re
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tenacity import wait_none

from breakout_assets.errors import DataError, SettingsError
from breakout_assets.market.candles import Coin
from breakout_assets.trading.exchange import ExchangeBroker
from breakout_assets.trading.exchange_answers import is_multiple, limits_of, step_of
from breakout_assets.trading.exchange_client import ExchangeSettings, Secrets
from breakout_assets.trading.orders import Execution, Order, OrderLimits, Report, Unknown
from breakout_assets.trading.venues import VENUES, Pair, check_pairs, traded_pairs, venue_spelling

ccxt = pytest.importorskip("ccxt", reason="ccxt is absent; it is optional (the extra `live`)")

ORDER = Order(
    order_id="f0123456789abcdef0123456789abcde",
    hour=datetime.fromisoformat("2026-01-01T12:00"),
    token="SOL-5426",
    side="buy",
    purpose="entry",
    quantity=Decimal("1.5"),
    price=Decimal(150),
    limit=Decimal("151.2"),
    reason="r",
    position=None,
    model_hash=None,
    probability=0.7,
)
MARKET_IDS = {"okx": "SOL-USDT", "kucoin": "SOL-USDT", "htx": "solusdt", "gate": "SOL_USDT"}
# What ccxt asks first of all at some exchanges: which kind of account it is.
PRELIMINARIES = {
    "/api/ua/v1/account/mode": {"code": "200000", "data": {"selfAccountMode": "CLASSIC"}},
    "/v1/account/accounts": {"status": "ok", "data": [{"id": 1, "type": "spot", "state": "working"}]},
    "/v5/user/query-api": {"retCode": 0, "result": {"unified": 0, "uta": 1}},
    "/v5/account/info": {"retCode": 0, "result": {"unifiedMarginStatus": 5}},
    "/api/v4/account/detail": {"key": {"mode": 1}, "user_id": 1},
    "/api/v3/account/settings": {"code": "00000", "data": {"accountMode": "hybrid"}},
}


class Wire:
    """Stands in for the network: remembers what would be sent and answers as told, else that there is no such order.

    An answer is JSON, or a function of address and body that gives it. There is one market, SOL/USDT.
    """

    def __init__(
        self,
        venue: str,
        answers: dict[str, Any] | None = None,
        pairs: tuple[Pair, ...] = (Pair("SOL-5426", "SOL/USDT"),),
    ) -> None:
        self.answers = PRELIMINARIES | (answers or {})
        settings = ExchangeSettings(venue=venue, pairs=pairs, sandbox=False)
        self.broker = ExchangeBroker(settings, lambda: Secrets("key", "c2VjcmV0", "phrase"), wait_none())
        client = self.broker._connection.client
        market_id = MARKET_IDS.get(venue, "SOLUSDT")
        numbers: dict[str, Any] = {"id": market_id, "symbol": "SOL/USDT", "base": "SOL", "quote": "USDT"}
        numbers |= {"baseId": "SOL", "quoteId": "USDT", "type": "spot", "spot": True, "active": True}
        numbers |= {"precision": {"amount": "0.001", "price": "0.01"}, "info": {"orderTypes": ["LIMIT"]}}
        client.set_markets([client.safe_market_structure(numbers)])
        client.fetch = self.fetch
        client.enableRateLimit = False
        self.sent: list[tuple[str, str, str]] = []
        self.asked: list[str] = []
        self.client = client

    def fetch(self, url: str, method: str = "GET", headers: Any = None, body: Any = None) -> Any:
        for path, answer in self.answers.items():
            if path in url:
                answer = answer(url, body) if callable(answer) else answer
                self.client.last_json_response = answer
                self.asked.append(url + str(body or ""))
                return answer
        self.sent.append((method, url, str(body or "")))
        self.client.last_json_response = {"error": "no such order"}
        raise ccxt.OrderNotFound("no such order")


@pytest.mark.parametrize("venue", VENUES)
def test_the_client_id_is_in_the_request_that_creates_an_order(venue: str) -> None:
    wire = Wire(venue)
    assert isinstance(wire.broker.place(ORDER), Unknown)
    [(method, url, body)] = wire.sent
    request = url + body
    assert method == "POST"
    assert wire.broker.spelling(ORDER.order_id) in request
    assert "1.5" in request
    assert "151.2" in request
    named = re.findall(r"(?i)(?:timeinforce|time_in_force|force)\W{1,4}([a-z]+)", request)
    assert {word.upper() for word in named} <= {"GTC"}


@pytest.mark.parametrize("venue", VENUES)
def test_the_client_id_is_in_the_request_that_looks_an_order_up(venue: str) -> None:
    wire = Wire(venue)
    assert wire.broker.look_up(ORDER) is None
    carrying = [url + body for _, url, body in wire.sent if wire.broker.spelling(ORDER.order_id) in url + body]
    assert len(carrying) == (2 if venue in ("kraken", "bybit") else 1)
    assert len(wire.sent) == len(VENUES[venue].look_ups) > 1, "there is a second way"


def test_open_orders_are_asked_for_by_pair_where_there_is_no_other_way() -> None:
    for venue, named in (("mexc", True), ("binance", False)):
        wire = Wire(venue)
        with pytest.raises(DataError):
            wire.broker.open_orders()
        assert ("SOLUSDT" in wire.sent[0][1]) is named


def test_open_orders_are_asked_for_where_there_is_a_market_and_not_for_every_pair_of_the_map() -> None:
    wire = Wire("mexc", {"/openOrders": [OPEN_AT_MEXC]}, (Pair("GONE-7", "GONE/USDT"), Pair("SOL-5426", "SOL/USDT")))
    [order] = wire.broker.open_orders()
    assert (order.venue_id, order.token) == ("77", "SOL-5426")
    assert len(wire.asked) == 1
    wire.broker._markets()["SOL/USDT"]["spot"] = False
    assert wire.broker.open_orders() == [], "no market of the map is a spot market"
    assert len(wire.asked) == 1


OPEN_AT_MEXC = {"symbol": "SOLUSDT", "orderId": "77", "status": "NEW", "side": "BUY", "type": "LIMIT"}
OPEN_AT_MEXC |= {"origQty": "1.5", "executedQty": "0", "price": "151.2", "clientOrderId": "web_7"}


# Of an order of 1.5 that was cancelled after .7 had been executed at 151.1: the shapes that the exchanges document, by
# exchange and by a part of the address.
ANSWERS: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("venue_answers.json").read_text())


@pytest.mark.parametrize("name", ANSWERS)
def test_an_order_is_read_from_what_the_exchange_documents(name: str) -> None:
    venue, _, classic = name.partition(", ")
    wire = Wire(venue, ANSWERS[name])
    if classic:
        wire.client.options["uta"] = False
    in_quote = venue == "kraken"  # which takes its fee in what is paid
    assert wire.broker.look_up(ORDER) == Report(
        venue_id="77",
        status="cancelled",
        executions=(
            Execution(
                trade_id="9",
                price=Decimal("151.1"),
                quantity=Decimal("0.7"),
                fee=Decimal("0.105") if in_quote else Decimal(0),
                fee_in_token=Decimal(0) if in_quote else Decimal("0.0007"),
            ),
        ),
    )
    assert "77" in wire.asked[-1] or venue == "kraken", "the executions of this order are asked for"


def test_every_exchange_has_its_documented_answers_here() -> None:
    assert {name.partition(", ")[0] for name in ANSWERS} | {"binance"} == set(VENUES)


@pytest.mark.parametrize("venue", [name for name, entry in VENUES.items() if entry.cancels_by_client_id])
def test_the_client_id_is_in_the_request_that_cancels_an_order(venue: str) -> None:
    wire = Wire(venue)
    wire.broker.cancel(ORDER)
    [(method, url, body)] = wire.sent
    assert method in ("POST", "DELETE")
    assert wire.broker.spelling(ORDER.order_id) in url + body


@pytest.mark.parametrize("venue", [name for name, entry in VENUES.items() if not entry.cancels_by_client_id])
def test_an_order_that_cannot_be_cancelled_by_client_id_is_looked_up_first(venue: str) -> None:
    wire = Wire(venue)
    wire.broker.cancel(ORDER)
    assert {method for method, _, _ in wire.sent} == {"GET"}, "nothing was found, so nothing is cancelled"


@pytest.mark.parametrize("venue", VENUES)
def test_calls_are_never_repeated_by_ccxt_itself(venue: str) -> None:
    assert Wire(venue).client.options["maxRetriesOnFailure"] == 0


def test_an_exchange_without_an_entry_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"'coinbase' cannot be traded at.*known are binance"):
        ExchangeSettings(venue="coinbase", pairs=(Pair("SOL-5426", "SOL/USDT"),), sandbox=False)


def test_a_spelling_is_a_function_of_the_order_id_alone() -> None:
    assert venue_spelling("binance", ORDER.order_id) == ORDER.order_id
    assert venue_spelling("gate", ORDER.order_id) == "t-" + ORDER.order_id[:28]
    with pytest.raises(DataError, match=r"'F012' is no order id"):
        venue_spelling("binance", "F012")


# Pairs -----------------------------------------------------------------------------------------------------------


def test_the_token_of_a_pair_follows_from_the_id_and_not_from_its_ticker() -> None:
    coins = {"SOL/USDT": Coin(5426, "SOL", "Solana"), "GMT/USDT": Coin(18069, "GMT", "GMT")}
    tokens = {5426: "SOL-5426", 16352: "SOL-16352", 7838: "GMT-7838"}
    assert traded_pairs(coins, tokens) == (Pair("SOL-5426", "SOL/USDT"),), "the other GMT is another coin"


@pytest.mark.parametrize(
    ("coin", "sentence"),
    [
        (Coin(None, "SOL", "Solana"), "gives no CoinMarketCap id for SOL/USDT"),
        (Coin(28194, "SATS", "SATS", 1000.0), "counts SOL/USDT in other units than one coin"),
    ],
)
def test_a_pair_that_is_no_single_coin_is_refused(coin: Coin, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        traded_pairs({"SOL/USDT": coin}, {28194: "SATS-28194"})


@pytest.mark.parametrize(
    ("pairs", "sentence"),
    [
        ([], "no pair can be traded"),
        ([("A-1", "A/USDT"), ("B-2", "A/USDT")], "the market A/USDT is in two pairs"),
        ([("A-1", "A/USDT"), ("A-1", "B/USDT")], "the token A-1 is in two pairs"),
        ([("A-1", "A/USDT"), ("B-2", "B/USDC")], "are paid in USDC, USDT; all must be paid in one"),
        ([("A-1", "A/BTC")], "are paid in BTC"),
        ([("A-1", "A/USDT:USDT")], "spot markets are written BASE/QUOTE"),
        ([("A-1", "AUSDT")], "AUSDT: spot markets are written BASE/QUOTE"),
    ],
)
def test_pairs_that_leave_a_doubt_are_refused(pairs: list[tuple[str, str]], sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        check_pairs(tuple(Pair(*pair) for pair in pairs))


# Steps -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("precision", "mode", "step"),
    [
        ("0.01", ccxt.TICK_SIZE, "0.01"),
        (0.1, ccxt.TICK_SIZE, "0.1"),
        (1e-8, ccxt.TICK_SIZE, "1E-8"),
        ("5", ccxt.TICK_SIZE, "5"),
        (2, ccxt.DECIMAL_PLACES, "0.01"),
        ("0", ccxt.DECIMAL_PLACES, "1"),
        (-2, ccxt.DECIMAL_PLACES, "100"),
        (4, ccxt.SIGNIFICANT_DIGITS, None),
        (None, ccxt.TICK_SIZE, None),
        ("0", ccxt.TICK_SIZE, None),
    ],
)
def test_precision_becomes_an_exact_step(precision: object, mode: int, step: str | None) -> None:
    assert step_of(precision, mode) == (None if step is None else Decimal(step))


def test_a_step_that_is_finer_than_the_ledger_books_is_the_ledgers() -> None:
    market = {"precision": {"amount": "1e-18", "price": None}, "limits": {"amount": {"min": None}, "cost": {}}}
    assert limits_of(market, ccxt.TICK_SIZE) == OrderLimits(quantity_step=Decimal("1e-8"))


@pytest.mark.parametrize(
    ("amount", "step", "fits"),
    [
        ("0.3", "0.1", True),
        ("0.35", "0.1", False),
        ("12345678901.12345678", "0.00000001", True),
        ("123456789012345678901234567890.00000001", "0.00000001", True),
        ("7.5", "2.5", True),
        ("7.6", "2.5", False),
    ],
)
def test_multiples_of_a_step_are_told_exactly(amount: str, step: str, fits: bool) -> None:
    assert is_multiple(Decimal(amount), Decimal(step)) is fits
