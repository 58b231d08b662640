"""The live broker: an account at an exchange's spot market, through ccxt."""

import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any, Final

from tenacity.wait import wait_base

from breakout_assets.errors import DataError, TemporaryError
from breakout_assets.trading.brokers import AbsenceProof, Quote
from breakout_assets.trading.exchange_answers import (
    Executions,
    FoundOrder,
    executions_of,
    found_order,
    is_multiple,
    limits_of,
    next_page,
    open_orders,
    totals,
)
from breakout_assets.trading.exchange_client import Connection, ExchangeSettings, Secrets, ccxt_module
from breakout_assets.trading.money import plain
from breakout_assets.trading.orders import (
    Accepted,
    Answer,
    Balances,
    NotSent,
    Order,
    OrderLimits,
    Report,
    Unknown,
    VenueOrder,
)
from breakout_assets.trading.venues import LookUp, dialect_of, sent_id, venue_spelling

# Exchanges refuse a request whose time lies further ahead than about a second, and one that is late by more than a
# window of 5 to 60 seconds: within a second, a request is refused for neither.
_LARGEST_SKEW_MS: Final = 1000
# A request that was sent may still be under way or in a queue, but most exchanges refuse it once it is older than its
# window, a minute at most; their indices by client id follow within seconds. Two minutes are beyond both, and three
# look-ups are not deceived by one replica that lags.
_ABSENCE: Final = AbsenceProof(3, timedelta(minutes=2))

_log = logging.getLogger(__name__)


class ExchangeBroker:
    """The protocol `brokers.Broker` at an exchange.

    Serves one run and one thread: the markets are loaded once.

    Args:
        settings: Where and what to trade.
        secrets: Called when the connection is made, which is at the first request.
        wait: Between attempts of one reading; tests do not wait.

    Raises:
        SettingsError: from whatever makes the connection, if ccxt, a secret or the exchange's test site is lacking.
    """

    def __init__(
        self, settings: ExchangeSettings, secrets: Callable[[], Secrets], wait: wait_base | None = None
    ) -> None:
        self._settings = settings
        self._dialect = dialect_of(settings.venue)
        self._connection = Connection(settings, secrets, wait) if wait else Connection(settings, secrets)
        self._symbols = {pair.token: pair.symbol for pair in settings.pairs}
        self._tokens = {pair.symbol: pair.token for pair in settings.pairs}
        self._quote = settings.pairs[0].quote

    @property
    def absence(self) -> AbsenceProof:
        """Three look-ups over two minutes."""
        return _ABSENCE

    @property
    def immediate(self) -> bool:
        """An order may be executed as soon as it is placed."""
        return True

    def open_hour(self, hour: datetime, quotes: Mapping[str, Quote]) -> None:
        """Compare the clock that signs requests with the exchange's.

        Raises:
            DataError: they differ by more than a second, so that orders would be refused, or accepted late.
        """

        def ask(client: Any) -> tuple[int, int, int]:
            before = client.milliseconds()
            there = int(client.fetch_time())
            return before, there, client.milliseconds()

        before, there, after = self._connection.read("the time", ask)
        ahead = max(before - there, 0) - max(there - after, 0)  # the answer was given at some time between the two
        if abs(ahead) > _LARGEST_SKEW_MS:
            raise DataError(
                f"the clock of this machine is {abs(ahead) / 1000:.1f} s {'ahead of' if ahead > 0 else 'behind'} that "
                f"of {self._settings.venue}, which then refuses orders: set it (NTP), nothing is sent until then"
            )

    # What can be traded ------------------------------------------------------------------------------------------

    def limits(self, tokens: Iterable[str]) -> dict[str, OrderLimits]:
        """What may be ordered of these tokens; one is missing if it has no market here, or a closed one."""
        markets = self._markets()
        found = {token: self._limits(token, markets) for token in tokens}
        return {token: limits for token, limits in found.items() if isinstance(limits, OrderLimits)}

    def _markets(self) -> Mapping[str, Any]:
        client = self._connection.client
        if not client.markets:
            self._connection.read("the list of markets", lambda client: client.load_markets())
        if not client.markets:
            raise TemporaryError(f"{self._settings.venue} gave an empty list of markets; the next run asks again")
        markets: Mapping[str, Any] = client.markets
        return markets

    def _limits(self, token: str, markets: Mapping[str, Any]) -> OrderLimits | str:
        venue = self._settings.venue
        symbol = self._symbols.get(token)
        if symbol is None:
            return f"the map of pairs names no market of {token} at {venue}"
        market = markets.get(symbol)
        if market is None or not market.get("spot"):
            return f"{venue} has no spot market {symbol}, which the map gives for {token}"
        if market.get("active") is False:
            return f"{venue} has closed {symbol} for now, so {token} is not traded"
        limits = limits_of(market, self._connection.client.precisionMode)
        return limits or f"{venue} tells no step of the quantity of {symbol}, so {token} is not traded"

    # Orders ------------------------------------------------------------------------------------------------------

    def spelling(self, order_id: str) -> str:
        """The client order id as `open_orders` shows it, to compare with: some exchanges shorten or prefix it."""
        return venue_spelling(self._settings.venue, order_id)

    def describe(self, order: Order) -> str:
        """The request in words."""
        bound = "at most" if order.side == "buy" else "at least"
        return (
            f"{order.side} {plain(order.quantity)} {self._market(order)} {bound} {plain(order.limit)} on {self._site} "
            f"(client id {self.spelling(order.order_id)})"
        )

    def address(self, order: Order) -> str:
        """Exchange, test site or not, market as the map of pairs has it now, and a fingerprint of the API key.

        An order that is not found in another market or with another account's key was not proven absent. A new key of
        the same account is another address, too: nothing here tells that it is the same account.
        """
        return f"{self._market(order)} on {self._site} with the key {self._connection.fingerprint}"

    def _market(self, order: Order) -> str:
        return self._symbols.get(order.token, f"{order.token} (no market is known for it)")

    @property
    def _site(self) -> str:
        return f"{self._settings.venue}{' (sandbox)' * self._settings.sandbox}"

    def place(self, order: Order) -> Answer:
        """Send a limit order, good till it is cancelled, once.

        Amounts that are no multiples of the market's steps, and tokens without a market, are not sent.
        """
        try:
            client_id = sent_id(self._settings.venue, order.order_id)
            refusal = self._refusal(order)
        except Exception as error:
            return NotSent(f"nothing was sent: {self._said(error)}")
        if refusal:
            return NotSent(f"{refusal}; nothing was sent")
        try:
            created = self._connection.client.create_order(
                self._symbols[order.token],
                "limit",
                order.side,
                plain(order.quantity),
                plain(order.limit),
                {"clientOrderId": client_id},
            )
            return self._answer(order, created)
        except Exception as error:
            return self._connection.refusal(error)

    def _answer(self, order: Order, created: Mapping[str, Any]) -> Answer:
        venue_id, shown = created.get("id"), created.get("clientOrderId")
        if not venue_id:  # what ccxt makes of an answer that is cut off, empty or another thing
            return Unknown(f"{self._settings.venue} answered without an id of the order")
        if shown and shown not in (self.spelling(order.order_id), sent_id(self._settings.venue, order.order_id)):
            return Unknown(f"{self._settings.venue} answered with the order {shown}, which is another one")
        return Accepted(str(venue_id))

    def _refusal(self, order: Order) -> str | None:
        """Why an order cannot be sent."""
        limits = self._limits(order.token, self._markets())
        if isinstance(limits, str):
            return limits
        for what, amount, step in (
            ("quantity", order.quantity, limits.quantity_step),
            ("limit", order.limit, limits.price_step),
        ):
            if amount <= 0:
                return f"a {what} of {plain(amount)} cannot be ordered"
            if step and not is_multiple(amount, step):
                return f"the {what} {plain(amount)} is no multiple of {plain(step)}, the step of {order.token}"
        return None

    def _said(self, error: Exception) -> str:
        ours = isinstance(error, DataError | TemporaryError | ValueError)
        return str(error) if ours else type(error).__name__

    def look_up(self, order: Order) -> Report | None:
        """What the exchange knows of an order, with its executions.

        A fee in the quote currency is a fee, one in the token is units; one in a third coin, such as BNB, is named in
        the note and booked as nothing: cash and position are right all the same, the cost shows in that coin alone.

        Raises:
            TemporaryError: also if the exchange does not yet tell all executions of an order that has ended.
        """
        symbol = self._symbol_of(order)
        found = self._find(order, symbol)
        if found is None:
            return None
        # The order was read first, so it has at least as many executions as it said.
        told = self._executions(order, symbol, found) if found.filled else Executions()
        if found.status != "open" and told.quantity < found.filled:
            raise TemporaryError(
                f"order {order.order_id} ({symbol}) has ended at {self._settings.venue} with {plain(found.filled)} "
                f"filled, but its executions so far add up to {plain(told.quantity)}; the next run asks again"
            )
        # Some exchanges close an order whose rest they give up.
        ended_early = found.status == "filled" and told.quantity < order.quantity
        notes = ([f"{self._settings.venue} calls it {found.ending}"] if found.ending else []) + list(told.notes)
        return Report(
            venue_id=found.venue_id,
            status="cancelled" if ended_early else found.status,
            executions=told.all,
            note="; ".join(notes) or None,
        )

    def _symbol_of(self, order: Order) -> str:
        if order.token not in self._symbols:
            raise DataError(
                f"the map of pairs names no market of {order.token}, of which order {order.order_id} is: restore "
                "the pair"
            )
        self._markets()
        return self._symbols[order.token]

    def _find(self, order: Order, symbol: str) -> FoundOrder | None:
        for way in self._dialect.look_ups:
            ask = partial(self._ask, way, order.order_id, symbol)
            found = self._connection.read(f"order {order.order_id} ({symbol})", ask)
            if found is not None:
                return found
        return None

    def _ask(self, way: LookUp, order_id: str, symbol: str, client: Any) -> FoundOrder | None:
        parameters = dict(way.more)
        if way.parameter:
            parameters[way.parameter] = sent_id(self._settings.venue, order_id)
        single = way.call == "fetch_order"
        try:
            if single:
                answers = [client.fetch_order("", symbol, parameters)]
            else:
                answers = getattr(client, way.call)(symbol, None, None, parameters)
        except ccxt_module().OrderNotFound:
            return None
        shown = self.spelling(order_id)
        for answer in answers:
            if answer.get("id") and answer.get("clientOrderId") == shown:
                return found_order(answer)
        if single and answers[0].get("id"):  # the question was ignored; nothing of another's order may be booked
            raise ccxt_module().BadResponse(f"it was asked for {shown} and answered {answers[0].get('clientOrderId')}")
        return None

    def _executions(self, order: Order, symbol: str, found: FoundOrder) -> Executions:
        """Those of an order, in as many requests as it takes until they add up to what is filled."""
        what = f"the executions of order {order.order_id} ({symbol})"
        told, page = Executions(), self._dialect.page
        if self._dialect.trades == "named by order":
            for first in range(0, len(found.trade_ids), page):
                ask = partial(self._named, symbol, found, found.trade_ids[first : first + page])
                told = told.joined(self._connection.read(what, ask))
            return told
        for start in self._dialect.starts:
            told = self._pages(what, symbol, found, start)
            if told.quantity >= found.filled or len(told.all) < page:
                break
        return told

    def _pages(self, what: str, symbol: str, found: FoundOrder, start: Mapping[str, str]) -> Executions:
        told, ask = Executions(), start
        while True:
            page, following = self._connection.read(what, partial(self._page, symbol, found, ask))
            before, told = len(told.all), told.joined(page)
            if following is None or told.quantity >= found.filled or len(told.all) == before:
                return told
            ask = following

    def _page(
        self, symbol: str, found: FoundOrder, ask: Mapping[str, str], client: Any
    ) -> tuple[Executions, Mapping[str, str] | None]:
        """One page, and what asks for the following one; null if this is the last."""
        dialect = self._dialect
        if dialect.trades == "of account":
            asked_for = {dialect.id_name: found.venue_id, **ask}
            trades = client.fetch_my_trades(symbol, None, dialect.page, asked_for)
        else:
            trades = client.fetch_order_trades(found.venue_id, symbol, None, dialect.page, dict(ask))
        following = None
        if len(trades) >= dialect.page:
            following = next_page(dialect.next_pages, trades, client.last_json_response, ask)
        return self._read_executions(trades, symbol, found), following

    def _named(self, symbol: str, found: FoundOrder, names: tuple[Any, ...], client: Any) -> Executions:
        trades = client.fetch_order_trades(found.venue_id, symbol, None, None, {"trades": list(names)})
        return self._read_executions(trades, symbol, found)

    def _read_executions(self, trades: Iterable[Mapping[str, Any]], symbol: str, found: FoundOrder) -> Executions:
        return executions_of(trades, found.venue_id, symbol, self._dialect.fees_have_signs)

    def cancel(self, order: Order) -> None:
        """Ask for the end of an order. One that has ended, or is not there, is no error."""
        symbol = self._symbol_of(order)
        venue_id, parameters = "", {"clientOrderId": sent_id(self._settings.venue, order.order_id)}
        if not self._dialect.cancels_by_client_id:
            found = self._find(order, symbol)
            if found is None:
                return
            venue_id, parameters = found.venue_id, {}

        def ask(client: Any) -> None:
            try:
                client.cancel_order(venue_id, symbol, parameters)
            except ccxt_module().InvalidOrder as error:  # among them that there is no such open order
                _log.info("order %s was not cancelled: %s", order.order_id, self._connection.told(error))

        self._connection.read(f"the cancellation of order {order.order_id}", ask)

    # The account -------------------------------------------------------------------------------------------------

    def open_orders(self) -> list[VenueOrder]:
        """All open orders of the account, also those that were placed by hand.

        `order_id` is the client order id as the exchange shows it: compare it with `spelling` of an order's id.
        """
        markets = self._markets()
        symbols: list[str | None] = [None]
        if self._dialect.open_orders_by_pair:  # of pairs without a market ccxt asks nothing, but raises
            symbols = [symbol for symbol in sorted(self._tokens) if markets.get(symbol, {}).get("spot")]
        found = [self._connection.read("the open orders", partial(open_orders, symbol)) for symbol in symbols]
        return [self._venue_order(order) for orders in found for order in orders]

    def _venue_order(self, order: Mapping[str, Any]) -> VenueOrder:
        symbol = str(order.get("symbol"))
        return VenueOrder(
            venue_id=str(order.get("id")),
            order_id=order.get("clientOrderId") or None,
            token=self._tokens.get(symbol, symbol),
            description=f"{order.get('side')} {order.get('amount')} {symbol} at {order.get('price')}, "
            f"{order.get('filled')} of it filled",
        )

    def balances(self) -> Balances:
        """Free and reserved amounts of the quote currency and of the tokens that have a pair; zeros are left out."""
        self._markets()
        held = self._connection.read("the balances", totals)
        units = {token: held.get(symbol.split("/")[0], Decimal(0)) for token, symbol in self._symbols.items()}
        return Balances(
            cash=held.get(self._quote, Decimal(0)),
            tokens={token: amount for token, amount in units.items() if amount},
        )
