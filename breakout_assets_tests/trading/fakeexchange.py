"""An exchange that answers as much of Binance's spot interface as a broker needs; `exchangeserver` serves it."""

import itertools
import json
import re
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, Literal

from breakout_assets.trading.money import MONEY_STEP, paid, received

_ALIVE: Final = ("NEW", "PARTIALLY_FILLED")
# Of a request's age and of its lead, ms: the exchange's own figures.
_WINDOW_MS: Final = 5000
_LEAD_MS: Final = 1000
# Executions in an answer: without a limit, and at most; the exchange's own figures.
_TRADES: Final = 500
_MOST_TRADES: Final = 1000


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one call.

    Attributes:
        status: Of the answer; 0 for a connection that is reset instead.
        body: The answer; None for the true one.
        done: Whether the call is carried out all the same.
        hang: Whether the answer never comes.
        cut: Whether only the first half of the answer comes, as if it were whole.
        seconds: Taken by it, half of them before the call is carried out and half after.
        headers: Further ones.
    """

    status: int = 200
    body: str | None = None
    done: bool = False
    hang: bool = False
    cut: bool = False
    seconds: float = 0.0
    headers: tuple[tuple[str, str], ...] = ()


def error(code: int, text: str, status: int = 400) -> Fault:
    """An error of the exchange, which has not carried out the call."""
    return Fault(status, json.dumps({"code": code, "msg": text}))


_HTML: Final = "<html><head><title>Attention</title></head><body>One moment, please</body></html>"
FAULTS: Final = {
    "insufficient": error(-2010, "Account has insufficient balance for requested action."),
    "duplicate": error(-2010, "Duplicate order sent."),
    "minimum": error(-1013, "Filter failure: NOTIONAL"),
    "bad symbol": error(-1121, "Invalid symbol."),
    "not found": error(-2013, "Order does not exist."),
    "bad key": error(-2015, "Invalid API-key, IP, or permissions for action."),
    "clock": error(-1021, "Timestamp for this request is outside of the recvWindow."),
    "status unknown": error(-1007, "Timeout waiting for response from backend server. Send status unknown."),
    "unmapped": error(-9999, "Something new."),
    "502": Fault(502, _HTML),
    "503": Fault(503, _HTML),
    "503 after": Fault(503, _HTML, done=True),
    "403": Fault(403, _HTML),
    "429": error(-1003, "Too much request weight used.", 429),
    "418": error(-1003, "Way too much request weight used; IP banned.", 418),
    "html": Fault(200, _HTML, done=True),
    "truncated": Fault(cut=True, done=True),
    "empty": Fault(200, "", done=True),
    "{}": Fault(200, "{}", done=True),
    "null": Fault(200, "null", done=True),
    "reset before": Fault(0),
    "reset after": Fault(0, done=True),
    "time-out before": Fault(hang=True),
    "time-out after": Fault(hang=True, done=True),
    "redirect": Fault(307, "", headers=(("Location", "/api/v3/order"),)),
    "slow": Fault(done=True, seconds=0.05),
}


@dataclass
class VenueTrade:
    """A trade of an order at the exchange."""

    trade_id: int
    price: Decimal
    quantity: Decimal
    commission: Decimal
    asset: str


@dataclass
class PlacedOrder:
    """An order at the exchange."""

    number: int
    client_id: str
    market: str
    side: str
    quantity: Decimal
    limit: Decimal
    status: str = "NEW"
    trades: list[VenueTrade] = field(default_factory=list)

    @property
    def filled(self) -> Decimal:
        return sum((trade.quantity for trade in self.trades), Decimal(0))

    @property
    def alive(self) -> bool:
        return self.status in _ALIVE


@dataclass
class VenueMarket:
    """A market and its rules."""

    base: str
    quote: str = "USDT"
    quantity_step: str = "0.001"
    price_step: str = "0.01"
    min_value: str = "5"
    status: str = "TRADING"


class Refused(Exception):  # noqa: N818  it is an answer
    """The exchange answers with an error."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.body = json.dumps({"code": code, "msg": text})


@dataclass
class FakeExchange:
    """What an exchange holds, how it misbehaves and what it was asked. Amounts are exact."""

    markets: dict[str, VenueMarket] = field(
        default_factory=lambda: {
            "SOLUSDT": VenueMarket("SOL"),
            "SATSUSDT": VenueMarket("SATS", quantity_step="0.00000001", price_step="0.0000000001", min_value="1"),
            "BTCUSDT": VenueMarket("BTC", quantity_step="0.00001"),
        }
    )
    held: dict[str, Decimal] = field(default_factory=lambda: {"USDT": Decimal(10_000)})
    fee: Decimal = Decimal("0.001")
    fee_in: Literal["quote", "base", "received", "BNB"] = "quote"
    fills_at: dict[str, Decimal] = field(default_factory=dict)
    """Prices by market at which a new order that allows them is filled whole at once."""
    first_page: Literal["oldest", "newest"] = "newest"
    """Which executions an answer holds if there are more than its limit. The manual of the real one speaks of the
    newest, but leaves open whether that is meant for those of an order."""
    skew_ms: int = 0
    """How far its clock is ahead."""
    orders: list[PlacedOrder] = field(default_factory=list)
    faults: dict[str, deque[Fault]] = field(default_factory=lambda: defaultdict(deque))
    """By call, such as `POST order` or `GET account`: what the next ones meet, one each."""
    hidden: dict[str, int] = field(default_factory=dict)
    """By client id: how many look-ups do not find the order yet."""
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """Call and parameters of every request."""
    url: str = ""
    release: threading.Event = field(default_factory=threading.Event)
    """Ends what hangs."""
    lock: threading.RLock = field(default_factory=threading.RLock)
    _out_of_sight: set[str] = field(default_factory=set)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1000))

    def calls(self, name: str) -> list[dict[str, str]]:
        """The parameters of all requests of one call."""
        return [parameters for call, parameters in self.asked if call == name]

    def spoil(self, call: str, *faults: str | Fault) -> None:
        """Let the next requests of a call meet these."""
        self.faults[call].extend(FAULTS[fault] if isinstance(fault, str) else fault for fault in faults)

    def order(self, client_id: str) -> PlacedOrder:
        """The newest order with this client id."""
        return next(order for order in reversed(self.orders) if order.client_id == client_id)

    def alive(self, client_id: str | None = None) -> list[PlacedOrder]:
        """Open orders, of one client id or all."""
        return [order for order in self.orders if order.alive and client_id in (None, order.client_id)]

    # The market --------------------------------------------------------------------------------------------------

    def fill(self, client_id: str, quantity: Decimal | None = None, price: Decimal | None = None) -> VenueTrade:
        """Execute an open order, all that is left of it or so much, at its limit or at a better price."""
        with self.lock:
            order = self.alive(client_id)[0]
            return self._execute(order, quantity or order.quantity - order.filled, price or order.limit)

    def reach(self, market: str, price: Decimal) -> None:
        """Execute all open orders of a market that allow this price."""
        with self.lock:
            for order in self.alive():
                if order.market == market and _allows(order, price):
                    self._execute(order, order.quantity - order.filled, price)

    def end(self, client_id: str, status: str) -> None:
        """Let the exchange end an open order by itself."""
        with self.lock:
            self.alive(client_id)[0].status = status

    def _execute(self, order: PlacedOrder, quantity: Decimal, price: Decimal) -> VenueTrade:
        assert order.alive
        assert quantity <= order.quantity - order.filled
        assert _allows(order, price)
        market = self.markets[order.market]
        buys = order.side == "BUY"
        value = (paid if buys else received)(quantity, price)
        in_base = self.fee_in == "base" or (self.fee_in == "received" and buys)
        asset = "BNB" if self.fee_in == "BNB" else market.base if in_base else market.quote
        charged = {"BNB": Decimal("0.00001"), market.base: quantity * self.fee, market.quote: value * self.fee}
        trade = VenueTrade(next(self._numbers), price, quantity, charged[asset].quantize(MONEY_STEP), asset)
        order.trades.append(trade)
        order.status = "FILLED" if order.filled == order.quantity else "PARTIALLY_FILLED"
        self._move(market.base, quantity if buys else -quantity)
        self._move(market.quote, -value if buys else value)
        self._move(asset, -trade.commission)
        return trade

    def _move(self, asset: str, amount: Decimal) -> None:
        self.held[asset] = self.held.get(asset, Decimal(0)) + amount

    def reserved(self, asset: str) -> Decimal:
        """What open orders reserve."""
        total = Decimal(0)
        for order in self.alive():
            market, left = self.markets[order.market], order.quantity - order.filled
            if order.side == "BUY" and market.quote == asset:
                total += left * order.limit
            if order.side == "SELL" and market.base == asset:
                total += left
        return total

    # The calls ---------------------------------------------------------------------------------------------------

    def answer(self, call: str, query: dict[str, str]) -> Any:
        """What a sound exchange answers."""
        public = {"GET time": lambda: {"serverTime": self.now_ms()}, "GET exchangeInfo": self._exchange_info}
        private = {
            "POST order": self._create,
            "GET order": self._get,
            "DELETE order": self._cancel,
            "GET openOrders": self._open_orders,
            "GET allOrders": self._all_orders,
            "GET myTrades": self._my_trades,
            "GET account": self._account,
        }
        with self.lock:
            if call in public:
                return public[call]()
            self._check_time(query)
            return private[call](query) if call in private else []

    def now_ms(self) -> int:
        return int(time.time() * 1000) + self.skew_ms

    def _check_time(self, query: dict[str, str]) -> None:
        age = self.now_ms() - int(query["timestamp"])
        if not -_LEAD_MS <= age <= int(query.get("recvWindow", _WINDOW_MS)):
            raise Refused(-1021, "Timestamp for this request is outside of the recvWindow.")

    def _exchange_info(self) -> Any:
        return {"symbols": [_symbol_json(name, market) for name, market in self.markets.items()]}

    def _create(self, query: dict[str, str]) -> Any:
        market = self.markets.get(query["symbol"])
        if market is None:
            raise Refused(-1121, "Invalid symbol.")
        assert (query["type"], query["timeInForce"]) == ("LIMIT", "GTC")
        order = PlacedOrder(
            next(self._numbers),
            query["newClientOrderId"],
            query["symbol"],
            query["side"],
            Decimal(query["quantity"]),
            Decimal(query["price"]),
        )
        self._check(order, market)
        self.orders.append(order)
        price = self.fills_at.get(order.market)
        if price is not None and _allows(order, price):
            self._execute(order, order.quantity, price)
        return _order_json(order)

    def _check(self, order: PlacedOrder, market: VenueMarket) -> None:
        if not re.fullmatch(r"[a-zA-Z0-9_-]{1,36}", order.client_id):
            raise Refused(-1100, "Illegal characters found in parameter 'newClientOrderId'.")
        if order.quantity % Decimal(market.quantity_step):
            raise Refused(-1013, "Filter failure: LOT_SIZE")
        if order.limit % Decimal(market.price_step):
            raise Refused(-1013, "Filter failure: PRICE_FILTER")
        if order.quantity * order.limit < Decimal(market.min_value):
            raise Refused(-1013, "Filter failure: NOTIONAL")
        if self.alive(order.client_id):  # as at the real one, an id is free again when its order has ended
            raise Refused(-2010, "Duplicate order sent.")
        asset = market.quote if order.side == "BUY" else market.base
        needed = order.quantity * order.limit if order.side == "BUY" else order.quantity
        if needed > self.held.get(asset, Decimal(0)) - self.reserved(asset):
            raise Refused(-2010, "Account has insufficient balance for requested action.")

    def _named(self, query: dict[str, str], code: int, text: str, alive: bool = False) -> PlacedOrder:
        for order in reversed(self.orders):
            same = order.client_id == query.get("origClientOrderId") or str(order.number) == query.get("orderId")
            if same and order.market == query["symbol"] and (order.alive or not alive):
                return order
        raise Refused(code, text)

    def _get(self, query: dict[str, str]) -> Any:
        client_id = query.get("origClientOrderId", "")
        self._out_of_sight.discard(client_id)
        if self.hidden.get(client_id, 0) > 0:
            self.hidden[client_id] -= 1
            self._out_of_sight.add(client_id)
            raise Refused(-2013, "Order does not exist.")
        return _order_json(self._named(query, -2013, "Order does not exist."))

    def _cancel(self, query: dict[str, str]) -> Any:
        order = self._named(query, -2011, "Unknown order sent.", alive=True)
        order.status = "CANCELED"
        return {**_order_json(order), "origClientOrderId": order.client_id, "clientOrderId": "of-the-cancellation"}

    def _seen(self, query: dict[str, str]) -> list[PlacedOrder]:
        unseen = self._out_of_sight | {client_id for client_id, polls in self.hidden.items() if polls}
        of_market = [order for order in self.orders if query.get("symbol") in (None, order.market)]
        return [order for order in of_market if order.client_id not in unseen]

    def _open_orders(self, query: dict[str, str]) -> Any:
        return [_order_json(order) for order in self._seen(query) if order.alive]

    def _all_orders(self, query: dict[str, str]) -> Any:
        return [_order_json(order) for order in self._seen(query)]

    def _my_trades(self, query: dict[str, str]) -> Any:
        if query.keys() & {"orderId", "fromId"} and query.keys() & {"startTime", "endTime"}:
            raise Refused(-1128, "Combination of optional parameters invalid.")
        limit = min(int(query.get("limit", _TRADES)), _MOST_TRADES)
        found = [
            (order, trade)
            for order in self.orders
            if order.market == query["symbol"] and query.get("orderId") in (None, str(order.number))
            for trade in order.trades
            if trade.trade_id >= int(query.get("fromId", 0))
        ]
        found.sort(key=lambda pair: pair[1].trade_id)
        newest = "fromId" not in query and self.first_page == "newest"
        return [_trade_json(*pair) for pair in (found[-limit:] if newest else found[:limit])]

    def _account(self, query: dict[str, str]) -> Any:
        rows = [(asset, total, self.reserved(asset)) for asset, total in self.held.items()]
        balances = [{"asset": asset, "free": f"{all_ - part:f}", "locked": f"{part:f}"} for asset, all_, part in rows]
        return {"accountType": "SPOT", "canTrade": True, "updateTime": self.now_ms(), "balances": balances}


def _allows(order: PlacedOrder, price: Decimal) -> bool:
    return price <= order.limit if order.side == "BUY" else price >= order.limit


def _symbol_json(name: str, market: VenueMarket) -> dict[str, Any]:
    return {
        "symbol": name,
        "status": market.status,
        "baseAsset": market.base,
        "quoteAsset": market.quote,
        "baseAssetPrecision": 8,
        "quotePrecision": 8,
        "orderTypes": ["LIMIT", "MARKET"],
        "isSpotTradingAllowed": True,
        "permissions": ["SPOT"],
        "filters": [
            {
                "filterType": "PRICE_FILTER",
                "minPrice": market.price_step,
                "maxPrice": "0",
                "tickSize": market.price_step,
            },
            {
                "filterType": "LOT_SIZE",
                "minQty": market.quantity_step,
                "maxQty": "99999999999999",
                "stepSize": market.quantity_step,
            },
            {"filterType": "NOTIONAL", "minNotional": market.min_value, "applyMinToMarket": True, "maxNotional": "0"},
        ],
    }


def _order_json(order: PlacedOrder) -> dict[str, Any]:
    value = sum((trade.price * trade.quantity for trade in order.trades), Decimal(0))
    return {
        "symbol": order.market,
        "orderId": order.number,
        "orderListId": -1,
        "clientOrderId": order.client_id,
        "price": f"{order.limit:f}",
        "origQty": f"{order.quantity:f}",
        "executedQty": f"{order.filled:f}",
        "cummulativeQuoteQty": f"{value:f}",
        "status": order.status,
        "timeInForce": "GTC",
        "type": "LIMIT",
        "side": order.side,
        "time": 1_700_000_000_000,
        "updateTime": 1_700_000_000_000,
        "transactTime": 1_700_000_000_000,
    }


def _trade_json(order: PlacedOrder, trade: VenueTrade) -> dict[str, Any]:
    return {
        "symbol": order.market,
        "id": trade.trade_id,
        "orderId": order.number,
        "price": f"{trade.price:f}",
        "qty": f"{trade.quantity:f}",
        "quoteQty": f"{trade.price * trade.quantity:f}",
        "commission": f"{trade.commission:f}",
        "commissionAsset": trade.asset,
        "time": 1_700_000_000_000,
        "isBuyer": order.side == "BUY",
        "isMaker": True,
        "isBestMatch": True,
    }
