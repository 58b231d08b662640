"""Which exchanges can be traded at, how each is asked for orders and executions, and their markets' tokens."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from breakout_assets.errors import DataError, SettingsError
from breakout_assets.market.candles import Coin

_ORDER_ID: Final = re.compile(r"[0-9a-f]{32}")
# Taken for dollars, one for one: the ledger has one currency.
QUOTES: Final = ("USDT", "USDC", "USD")


@dataclass(frozen=True)
class LookUp:
    """One way to find an order by its client order id.

    Attributes:
        call: ccxt's method: `fetch_order`, or one that gives a list, which is searched for the id.
        parameter: Under which name the id travels; null for lists that cannot be asked for one order.
        more: Further parameters.
    """

    call: str
    parameter: str | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


_BY_ID: Final = LookUp("fetch_order", "clientOrderId")


@dataclass(frozen=True)
class NextPage:
    """What asks for the page of an order's executions that follows one.

    It is never a time, where there is another way: an order that takes a whole side of the book has hundreds of
    executions in one millisecond, most exchanges give the newest first, so that nothing is later than their first page,
    and Binance refuses a time beside the id of an order.

    Attributes:
        parameter: The name under which it travels.
        kind: One more than the `highest`, or the `lowest`, of a page's executions; the `number` of the page; or what
            the `answer` itself says.
        field: Of the exchange's own execution, or of the part of its answer that holds the page.
    """

    parameter: str
    kind: Literal["highest", "lowest", "number", "answer"]
    field: str = ""


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How an exchange is asked, through ccxt: its way with client order ids, executions and open orders.

    Each entry is guarded by a test of the requests that ccxt builds for it, so that an upgrade that breaks one is
    noticed. Whether the exchange honours what is sent was not tested.
    """

    look_ups: tuple[LookUp, ...]
    """Tried one after the other. Lists of open orders stand before lists of ended ones, so that an order that ends in
    between is in the second."""
    digits: int = 32
    """How many of an order id's 32 it can take."""
    prefix: str = ""
    """What ccxt puts before the id."""
    cancels_by_client_id: bool = True
    """Otherwise an order is looked up and cancelled by the exchange's own id."""
    trades: Literal["of order", "of account", "named by order"] = "of order"
    """How an order's executions are asked for."""
    id_name: str = "orderId"
    """Under which name its id travels where the account is asked."""
    page: int = 100
    """Executions of an order that one request can give at most."""
    next_pages: tuple[NextPage, ...] = ()
    """Tried one after the other, since kinds of accounts differ: the first that a page gives a value for is taken."""
    starts: tuple[Mapping[str, str], ...] = ({},)
    """What a first page is asked with; the second, if that page held the newest and there is only a way upwards."""
    fees_have_signs: bool = True
    """Whether a fee below zero is a rebate."""
    open_orders_by_pair: bool = False
    """Whether open orders can only be asked for pair by pair."""


# An id finds an order only for a while at most of them (okx: two hours after a cancellation, gate: until it ends), and
# an index by client ids may lag: the lists of the newest orders are a second way of their own.
VENUES: Final[Mapping[str, Dialect]] = {
    # Its first page holds the newest executions, says the manual, and ids can only be asked for upwards.
    "binance": Dialect(
        look_ups=(_BY_ID, LookUp("fetch_orders")),
        page=1000,
        next_pages=(NextPage("fromId", "highest", "id"),),
        starts=({}, {"fromId": "0"}),
    ),
    "okx": Dialect(
        look_ups=(
            _BY_ID,
            LookUp("fetch_open_orders"),
            LookUp("fetch_closed_orders"),
            LookUp("fetch_canceled_orders"),
        ),
        next_pages=(NextPage("after", "lowest", "billId"),),
    ),
    # ccxt sends no size of a page to classic accounts, whose default is 50. Only unified ones tell a last id.
    "kucoin": Dialect(
        look_ups=(_BY_ID, LookUp("fetch_open_orders"), LookUp("fetch_closed_orders")),
        page=50,
        next_pages=(NextPage("lastId", "answer", "lastId"), NextPage("currentPage", "number")),
    ),
    # ccxt 4.5.90 turns the sign of every fee, but only classic accounts' come with one; unified ones tell a cursor.
    "bitget": Dialect(
        look_ups=(_BY_ID, LookUp("fetch_open_orders"), LookUp("fetch_canceled_and_closed_orders")),
        trades="of account",
        fees_have_signs=False,
        next_pages=(NextPage("cursor", "answer", "cursor"), NextPage("idLessThan", "lowest", "tradeId")),
    ),
    # It has no other way than by time: an order with more executions than a page in one millisecond is not read whole.
    "mexc": Dialect(
        look_ups=(_BY_ID, LookUp("fetch_orders")),
        open_orders_by_pair=True,
        next_pages=(NextPage("endTime", "lowest", "time"),),
    ),
    # It has no pages: ccxt sends no size of one, but cuts the answer to it.
    "htx": Dialect(look_ups=(_BY_ID, LookUp("fetch_open_orders"), LookUp("fetch_orders")), page=10_000),
    # Its query of single orders knows no client id; the lists do. It takes the ids of 20 executions, but after each 20
    # ccxt asks once more for those that are left, even if none is, and that is refused.
    "kraken": Dialect(
        look_ups=(
            LookUp("fetch_open_orders", "clientOrderId", {"trades": True}),
            LookUp("fetch_closed_orders", "clientOrderId", {"trades": True}),
        ),
        trades="named by order",
        page=19,
    ),
    # ccxt's `fetch_order` refuses unified accounts; the lists take the exchange's own name of the id.
    "bybit": Dialect(
        look_ups=(
            LookUp("fetch_open_orders", "orderLinkId"),
            LookUp("fetch_canceled_and_closed_orders", "orderLinkId"),
        ),
        cancels_by_client_id=False,
        next_pages=(NextPage("cursor", "answer", "nextPageCursor"),),
    ),
    # ccxt's `fetch_order_trades` passes no number of a page on.
    "gate": Dialect(
        look_ups=(_BY_ID, LookUp("fetch_closed_orders")),
        digits=28,
        prefix="t-",
        cancels_by_client_id=False,
        trades="of account",
        id_name="order_id",
        page=1000,
        next_pages=(NextPage("page", "number"),),
    ),
}


def dialect_of(venue: str) -> Dialect:
    """The entry of an exchange.

    Raises:
        SettingsError: it has none.
    """
    if venue not in VENUES:
        raise SettingsError(
            f"{venue!r} cannot be traded at: how it finds an order by its client id is not known here, and without "
            f"that a time-out could mean a lost or a second order; known are {', '.join(VENUES)}"
        )
    return VENUES[venue]


def sent_id(venue: str, order_id: str) -> str:
    """The client order id as it is handed to ccxt.

    Raises:
        DataError: `order_id` is not 32 hex digits.
    """
    if not _ORDER_ID.fullmatch(order_id):
        raise DataError(f"{order_id!r} is no order id: 32 hex digits in small letters")
    return order_id[: dialect_of(venue).digits]


def venue_spelling(venue: str, order_id: str) -> str:
    """The client order id as the exchange shows it."""
    return dialect_of(venue).prefix + sent_id(venue, order_id)


# Pairs and tokens ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """A token and its market at an exchange, as ccxt writes it: BASE/QUOTE."""

    token: str
    symbol: str

    @property
    def quote(self) -> str:
        """The currency that it is paid in."""
        return self.symbol.partition("/")[2]


def traded_pairs(coins: Mapping[str, Coin], tokens: Mapping[int, str]) -> tuple[Pair, ...]:
    """The pairs of a map (see `candle_files.read_map`), each with the token of its CoinMarketCap id.

    Args:
        coins: By pair.
        tokens: By id, as `TokenRegistry.by_id` has them. A coin that has never been listed has no token, and no order
            can name it: its pair is left out.

    Raises:
        DataError: a pair has no id or counts in other units; all such pairs are named.
    """
    nameless = sorted(pair for pair, coin in coins.items() if coin.id is None)
    if nameless:
        raise DataError(
            f"the map gives no CoinMarketCap id for {', '.join(nameless)}: a ticker is no coin, and money would buy "
            "whatever bears it; add the ids or take these pairs out of the map for trading"
        )
    scaled = sorted(pair for pair, coin in coins.items() if coin.units != 1)
    if scaled:
        raise DataError(
            f"the map counts {', '.join(scaled)} in other units than one coin; such pairs are not traded: take them "
            "out of the map for trading"
        )
    return tuple(Pair(tokens[coin.id], pair) for pair, coin in coins.items() if coin.id in tokens and coin.id)


def check_pairs(pairs: tuple[Pair, ...]) -> None:
    """Refuse pairs that leave a doubt.

    Raises:
        SettingsError: there is no pair, no currency that all are paid in, or a token or a market is there twice.
    """
    if not pairs:
        raise SettingsError("no pair can be traded: the map of pairs names no coin that has been listed")
    odd = sorted(pair.symbol for pair in pairs if not re.fullmatch(r"[^/:\s]+/[^/:\s]+", pair.symbol))
    if odd:
        raise SettingsError(f"{', '.join(odd)}: spot markets are written BASE/QUOTE, such as SOL/USDT")
    quotes = sorted({pair.quote for pair in pairs})
    if len(quotes) > 1 or quotes[0] not in QUOTES:
        raise SettingsError(
            f"the pairs are paid in {', '.join(quotes)}; all must be paid in one of {', '.join(QUOTES)}, which is "
            "taken for dollars"
        )
    for what, names in (("token", [pair.token for pair in pairs]), ("market", [pair.symbol for pair in pairs])):
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise SettingsError(f"the {what} {', '.join(twice)} is in two pairs; which one to trade, nobody could tell")
