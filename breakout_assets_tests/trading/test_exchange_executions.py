"""Orders with more executions than an exchange tells at once are read whole, in as few requests as it takes."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from breakout_assets.errors import TemporaryError
from breakout_assets.trading.exchange import ExchangeBroker
from breakout_assets.trading.exchange_answers import FoundOrder
from breakout_assets.trading.orders import Accepted, Report
from breakout_assets_tests.trading.broker_contract import buy, executed
from breakout_assets_tests.trading.exchangeserver import broker_at, serving
from breakout_assets_tests.trading.fakeexchange import FakeExchange, Fault
from breakout_assets_tests.trading.test_venues import ANSWERS, ORDER, Wire

# One order of 2.5 in 250 executions of one and the same millisecond, as one that takes a side of the book has them.
PIECE, PIECES = Decimal("0.01"), 250


@pytest.fixture
def exchange() -> Iterator[FakeExchange]:
    with serving(FakeExchange()) as served:
        yield served


def broker_in_pages(exchange: FakeExchange, page: int = 100) -> ExchangeBroker:
    broker = broker_at(exchange)
    broker._dialect = replace(broker._dialect, page=page)
    return broker


def placed(exchange: FakeExchange, pieces: int) -> ExchangeBroker:
    """A broker whose order has so many executions, among those of another order."""
    broker = broker_in_pages(exchange)
    for number in (1, 2):
        assert isinstance(broker.place(buy(number)), Accepted)
    for _ in range(pieces):
        exchange.fill(buy(1).order_id, PIECE)
        exchange.fill(buy(2).order_id, PIECE)
    return broker


def looked_up(broker: ExchangeBroker) -> Report:
    report = broker.look_up(buy())
    assert report is not None
    return report


def ids_of(report: Report) -> set[str]:
    return {execution.trade_id for execution in report.executions}


# Upwards from the first page; if that held the newest, there is nothing beyond it, and all is asked for from below.
@pytest.mark.parametrize(("first_page", "requests"), [("oldest", 3), ("newest", 5)])
def test_an_order_of_many_executions_is_read_whole_and_each_of_them_once(
    exchange: FakeExchange, first_page: Any, requests: int
) -> None:
    exchange.first_page = first_page
    report = looked_up(placed(exchange, PIECES))
    assert (report.status, executed(report)) == ("filled", buy().quantity)
    assert ids_of(report) == {str(trade.trade_id) for trade in exchange.order(buy().order_id).trades}
    assert len(report.executions) == PIECES
    asked = exchange.calls("GET myTrades")
    assert len(asked) == requests
    number = str(exchange.order(buy().order_id).number)
    assert {call["orderId"] for call in asked} == {number}, "others' executions are not asked for"


@pytest.mark.parametrize(("pieces", "requests"), [(99, 1), (100, 1), (101, 2), (200, 2)])
def test_no_more_is_asked_for_when_the_executions_add_up(exchange: FakeExchange, pieces: int, requests: int) -> None:
    exchange.first_page = "oldest"
    report = looked_up(placed(exchange, pieces))
    assert (report.status, executed(report)) == ("open", pieces * PIECE)
    assert len(exchange.calls("GET myTrades")) == requests


def told_so_far(exchange: FakeExchange, limit: int) -> Fault:
    """An answer that holds so many executions of the order, whatever is asked."""
    number = str(exchange.order(buy().order_id).number)
    query = {"symbol": "SOLUSDT", "orderId": number, "limit": str(limit), "timestamp": str(exchange.now_ms())}
    return Fault(body=json.dumps(exchange.answer("GET myTrades", query)))


@pytest.mark.parametrize(("told", "requests"), [(0, 1), (99, 1), (100, 4)])
def test_a_page_that_is_not_full_is_the_last_and_one_that_brings_nothing_new_ends_the_reading(
    exchange: FakeExchange, told: int, requests: int
) -> None:
    broker = placed(exchange, PIECES)
    exchange.spoil("GET myTrades", *[told_so_far(exchange, told) if told else Fault(body="[]")] * 9)
    sum_of_them = f"{told * PIECE:f}" if told else "0"
    with pytest.raises(TemporaryError, match=rf"with 2\.50 filled, but .* add up to {sum_of_them}; the next run"):
        broker.look_up(buy())
    assert len(exchange.calls("GET myTrades")) == requests, "at most twice from each end, and then no more"


def test_executions_that_come_late_are_all_there_in_the_next_run(exchange: FakeExchange) -> None:
    exchange.first_page = "oldest"
    broker = placed(exchange, PIECES)
    exchange.spoil("GET myTrades", Fault(done=True), Fault(body="[]"), Fault(body="[]"))
    with pytest.raises(TemporaryError, match=r"add up to 0; the next run"):
        broker.look_up(buy())
    assert executed(looked_up(broker)) == buy().quantity


# The other exchanges, as their manuals describe their pages ----------------------------------------------------


Query = dict[str, str]
Served = tuple[list[int], dict[str, Any]]
"""Numbers of the executions in an answer, and what the answer says beside them."""


def below(parameter: str, newest: list[int], query: Query) -> Served:
    return [number for number in newest if number < int(query.get(parameter, 10**9))][:100], {}


def by_cursor(newest: list[int], query: Query) -> Served:
    rest = newest[int(query.get("cursor", "0")) :]
    return rest[:100], {"cursor": str(len(newest) - len(rest[100:]))} if rest[100:] else {"cursor": None}


def at_bybit(newest: list[int], query: Query) -> Served:
    numbers, beside = by_cursor(newest, query)
    return numbers, {"nextPageCursor": beside["cursor"] or ""}


def until(newest: list[int], query: Query) -> Served:
    return [number for number in newest if number <= int(query.get("endTime", 10**9))][:100], {}


def paged(parameter: str, size: int, newest: list[int], query: Query) -> Served:
    first = (int(query.get(parameter, "1")) - 1) * size
    return newest[first : first + size], {}


def by_names(newest: list[int], query: Query) -> Served:
    names = query.get("txid", "").split(",")
    assert 0 < len(names) <= 20, "EGeneral:Invalid arguments"
    assert all(names), "EGeneral:Invalid arguments"
    return [number for number in newest if str(number) in names], {}


@dataclass(frozen=True)
class Manual:
    """How an exchange serves an order's executions; `venue_answers.json` has one of each."""

    path: str
    order: str
    """What a request names the order with."""
    serve: Callable[[list[int], Query], Served]
    ids: tuple[str, ...]
    """Fields of an execution that are another one each time."""
    quantity: str
    requests: int
    """That 250 executions take."""
    pieces: int = PIECES


MANUALS = {
    "okx": Manual(
        "/trade/fills-history", "ordId=77", lambda n, q: below("after", n, q), ("tradeId", "billId"), "fillSz", 3
    ),
    "kucoin": Manual("/fills?", "orderId=77", lambda n, q: paged("currentPage", 50, n, q), ("tradeId",), "size", 5),
    "bitget": Manual("/trade/fills", "orderId=77", by_cursor, ("execId",), "execQty", 3),
    "bitget, classic": Manual(
        "/trade/fills", "orderId=77", lambda n, q: below("idLessThan", n, q), ("tradeId",), "size", 3
    ),
    "mexc": Manual("/myTrades", "orderId=77", until, ("id", "time"), "qty", 3),
    "htx": Manual("/matchresults", "/orders/77/", lambda n, q: (n, {}), ("trade-id",), "filled-amount", 1),
    "kraken": Manual("/QueryTrades", "", by_names, (), "vol", 14),
    "bybit": Manual("/execution/list", "orderId=77", at_bybit, ("execId",), "execQty", 3),
    "gate": Manual(
        "/spot/my_trades", "order_id=77", lambda n, q: paged("page", 1000, n, q), ("id",), "amount", 3, 2500
    ),
}


def serving_pages(manual: Manual, documented: Any) -> Callable[[str, Any], Any]:
    """Answers requests for executions as the manual says, newest first."""
    text = json.dumps(documented)

    def rows(answer: Any) -> Any:
        """Where the executions lie in an answer."""
        inner = answer.get("result", answer.get("data")) if isinstance(answer, dict) else answer
        return inner.get("list", inner.get("items", inner)) if isinstance(inner, dict) else inner

    def answer(url: str, body: Any) -> Any:
        query = dict(parse_qsl(urlsplit(url).query or str(body or "")))
        numbers, beside = manual.serve(list(range(manual.pieces, 0, -1)), query)
        told = json.loads(text)
        held = rows(told)
        [one] = held.values() if isinstance(held, dict) else held
        quantities = dict.fromkeys(numbers, "0.0001")
        quantities |= {1: str(Decimal("0.7001") - manual.pieces * Decimal("0.0001"))}  # with the oldest it is 0.7
        made = [
            one | {field: str(number) for field in manual.ids} | {manual.quantity: quantities[number]}
            for number in numbers
        ]
        if isinstance(held, dict):
            held.clear()
            held.update(zip(map(str, numbers), made, strict=True))
        else:
            held[:] = made
        if beside:
            next(part for part in told.values() if isinstance(part, dict)).update(beside)
        return told

    return answer


def wire_of(name: str, manual: Manual) -> Wire:
    venue, _, classic = name.partition(", ")
    answers = json.loads(json.dumps(ANSWERS[name]))
    if venue == "kraken":
        answers["/ClosedOrders"]["result"]["closed"]["77"]["trades"] = [str(n) for n in range(1, manual.pieces + 1)]
    wire = Wire(venue, answers | {manual.path: serving_pages(manual, ANSWERS[name][manual.path])})
    if classic:
        wire.client.options["uta"] = False
    return wire


@pytest.mark.parametrize("name", MANUALS)
def test_an_order_of_many_executions_is_read_whole_at_every_exchange(name: str) -> None:
    manual = MANUALS[name]
    wire = wire_of(name, manual)
    report = wire.broker.look_up(ORDER)
    assert report is not None
    assert executed(report) == Decimal("0.7")
    assert ids_of(report) == {str(number) for number in range(1, manual.pieces + 1)}
    assert len(report.executions) == manual.pieces
    asked = [url for url in wire.asked if manual.path in url]
    assert len(asked) == manual.requests
    assert all(manual.order in url for url in asked), "no other order's executions are asked for"


def test_every_exchange_has_its_manual_here() -> None:
    assert set(MANUALS) == set(ANSWERS)


@pytest.mark.parametrize("pieces", [19, 20, 38, 40])
def test_executions_are_named_without_asking_for_none_at_kraken(pieces: int) -> None:
    wire = wire_of("kraken", replace(MANUALS["kraken"], pieces=pieces))
    report = wire.broker.look_up(ORDER)
    assert report is not None
    assert len(report.executions) == pieces


def test_an_order_that_names_no_executions_yet_asks_for_none_and_waits() -> None:
    wire = wire_of("kraken", replace(MANUALS["kraken"], pieces=0))
    with pytest.raises(TemporaryError, match=r"with 0.7 filled, but .* add up to 0; the next run asks again"):
        wire.broker.look_up(ORDER)
    assert not [url for url in wire.asked if "/QueryTrades" in url]


def test_a_unified_account_at_kucoin_goes_on_from_the_last_id() -> None:
    def serve(newest: list[int], query: Query) -> Served:
        numbers = [number for number in newest if number < int(query.get("lastId", 10**9))][: int(query["pageSize"])]
        return numbers, {"lastId": numbers[-1]}

    manual = Manual("/order/execution", "orderId=77", serve, ("tradeId",), "size", 5)
    one = {"symbol": "SOL-USDT", "side": "BUY", "orderId": "77", "price": "151.1", "fee": "0", "feeCurrency": "SOL"}
    wire = Wire("kucoin", {manual.path: serving_pages(manual, {"code": "200000", "data": {"items": [one]}})})
    wire.client.options["uta"] = True
    found = FoundOrder(venue_id="77", status="filled", filled=Decimal("0.7"), ending=None, trade_ids=())
    told = wire.broker._executions(ORDER, "SOL/USDT", found)
    assert (told.quantity, len(told.all)) == (Decimal("0.7"), PIECES)
    assert len(wire.asked) == manual.requests


def test_what_one_millisecond_holds_beyond_a_page_is_not_guessed_at_mexc() -> None:
    wire = wire_of("mexc", replace(MANUALS["mexc"], ids=("id",)))
    with pytest.raises(
        TemporaryError, match=r"with 0.7 filled, but its executions so far add up to 0\.0100; the next run"
    ):
        wire.broker.look_up(ORDER)
