"""The live broker at an exchange on loopback, through the real ccxt: orders."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from breakout_assets.errors import DataError, TemporaryError
from breakout_assets.trading.exchange import ExchangeBroker
from breakout_assets.trading.exchange_client import Secrets
from breakout_assets.trading.orders import Accepted, Execution, NotSent, Rejected, Unknown
from breakout_assets.trading.venues import Pair
from breakout_assets_tests.trading.broker_contract import buy, found
from breakout_assets_tests.trading.exchangeserver import (
    PAIRS,
    broker_at,
    patience,
    serving,
    settings_at,
)
from breakout_assets_tests.trading.fakeexchange import FAULTS, FakeExchange, Fault, error
from breakout_assets_tests.trading.test_broker_contract import ExchangeHarness

SOL, SATS = (pair.token for pair in PAIRS)
# What may be wrong with the answer to an order, and what it proves.
REJECTED = ("insufficient", "minimum", "bad symbol", "bad key")
ACCEPTED = ("slow",)


@pytest.fixture
def exchange() -> Iterator[FakeExchange]:
    with serving(FakeExchange()) as served:
        yield served


def report_of(exchange: FakeExchange, order: Any = None) -> Any:
    return found(ExchangeHarness(exchange, broker_at(exchange)), order or buy())


# What an answer to an order proves -------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", FAULTS)
def test_an_order_is_sent_once_and_only_a_proof_makes_it_accepted_or_rejected(
    exchange: FakeExchange, fault: str
) -> None:
    broker = broker_at(exchange, timeout=patience(fault))
    broker.limits([SOL])  # so that the connection is one that is kept open: such ones are what HTTP clients retry on
    exchange.spoil("POST order", fault)
    answer = broker.place(buy())
    kind = Rejected if fault in REJECTED else Accepted if fault in ACCEPTED else Unknown
    assert isinstance(answer, kind), answer
    assert len(exchange.calls("POST order")) == 1
    there = FAULTS[fault].done
    assert len(exchange.alive(buy().order_id)) == there
    report = broker.look_up(buy())
    assert (report is not None) == there, "a look-up finds out what the answer did not tell"
    again = broker_at(exchange).place(buy(2))
    assert again == Accepted(str(exchange.order(buy(2).order_id).number)), "the next order is not harmed"


@pytest.mark.parametrize(
    "text",
    [
        "Duplicate order sent.",
        "Client order ID already exists.",
        "clOrdId repeated",
        "The order exists",
        "id not unique",
    ],
)
def test_a_rejection_that_hints_at_an_order_that_exists_proves_nothing(exchange: FakeExchange, text: str) -> None:
    exchange.spoil("POST order", error(-2010, text), error(-1013, text))
    assert isinstance(broker_at(exchange).place(buy()), Unknown)
    assert isinstance(broker_at(exchange).place(buy()), Unknown)


def test_a_symbol_that_does_not_exist_is_no_order_that_exists(exchange: FakeExchange) -> None:
    exchange.spoil("POST order", error(-1121, "The symbol does not exist"))
    assert isinstance(broker_at(exchange).place(buy()), Rejected)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ('{"orderId": 7, "symbol": "SOLUSDT", "clientOrderId": "another"}', "with the order another, which is another"),
        (json.dumps({"symbol": "SOLUSDT", "clientOrderId": buy().order_id}), "without an id of the order"),
        ("[]", ""),
        ('"ok"', ""),
    ],
)
def test_an_answer_that_does_not_name_the_order_proves_nothing(
    exchange: FakeExchange, body: str, sentence: str
) -> None:
    exchange.spoil("POST order", Fault(body=body))
    answer = broker_at(exchange).place(buy())
    assert isinstance(answer, Unknown)
    assert sentence in answer.reason


def test_placing_never_raises_even_if_nothing_can_be_sent(exchange: FakeExchange) -> None:
    exchange.spoil("GET exchangeInfo", *["503"] * 4)
    broker = broker_at(exchange)
    answer = broker.place(buy())
    assert isinstance(answer, NotSent)
    assert answer.reason.startswith("nothing was sent: binance could not be asked for the list of markets")
    keyless = ExchangeBroker(settings_at(exchange), lambda: Secrets("", ""))
    assert keyless.place(buy()) == NotSent("nothing was sent: binance needs a key and a secret, which is not set")
    odd = broker.place(replace(buy(), order_id="7"))
    assert odd == NotSent("nothing was sent: '7' is no order id: 32 hex digits in small letters")
    assert not exchange.calls("POST order")


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"quantity": Decimal("2.5001")}, "the quantity 2.5001 is no multiple of 0.001, the step of SOL-5426"),
        ({"limit": Decimal("151.205")}, "the limit 151.205 is no multiple of 0.01"),
        ({"quantity": Decimal(0)}, "a quantity of 0 cannot be ordered"),
        ({"limit": Decimal(-1)}, "a limit of -1 cannot be ordered"),
        ({"token": "NOSUCH-1"}, "the map of pairs names no market of NOSUCH-1 at binance"),
        ({"token": "GONE-7"}, "binance has no spot market GONE/USDT, which the map gives for GONE-7"),
        ({"token": "BTC-1"}, "binance has no spot market BTC/USDT, which the map gives for BTC-1"),
        ({"token": SATS}, "binance has closed SATS/USDT for now, so SATS-28194 is not traded"),
    ],
)
def test_what_cannot_be_ordered_is_not_sent_and_says_why(
    exchange: FakeExchange, fields: dict[str, Any], sentence: str
) -> None:
    exchange.markets["SATSUSDT"].status = "BREAK"
    broker = broker_at(exchange, pairs=(*PAIRS, Pair("GONE-7", "GONE/USDT"), Pair("BTC-1", "BTC/USDT")))
    broker._markets()["BTC/USDT"]["spot"] = False
    order = replace(buy(), **fields)
    assert broker.limits([SOL, order.token]).keys() == {SOL}
    answer = broker.place(order)
    assert isinstance(answer, NotSent)
    assert sentence in answer.reason
    assert answer.reason.endswith("nothing was sent")
    assert not exchange.calls("POST order")


def test_amounts_are_sent_and_read_to_their_last_digit(exchange: FakeExchange) -> None:
    order = buy(1, "12345678901.12345678", "0.0000000123", SATS)
    assert isinstance(broker_at(exchange).place(order), Accepted)
    [request] = exchange.calls("POST order")
    assert (request["quantity"], request["price"]) == ("12345678901.12345678", "0.0000000123")
    assert float(order.quantity) != order.quantity, "a float could not hold it"
    exchange.fill(order.order_id)
    [execution] = report_of(exchange, order).executions
    assert (execution.quantity, execution.price) == (order.quantity, order.limit)
    assert broker_at(exchange).balances().tokens == {SATS: order.quantity}


# Looking up ------------------------------------------------------------------------------------------------------


def test_executions_carry_the_ids_of_the_exchange_and_fees_of_both_kinds(exchange: FakeExchange) -> None:
    exchange.held["SOL"] = Decimal(1)
    order = buy(1, "1.1", "100.1")
    broker_at(exchange).place(order)
    first = exchange.fill(buy().order_id, Decimal("0.1"), Decimal("100.09"))
    exchange.fee_in = "base"
    second = exchange.fill(buy().order_id, Decimal(1))
    report = report_of(exchange, order)
    assert report.executions == (
        Execution(
            trade_id=str(first.trade_id), price=Decimal("100.09"), quantity=Decimal("0.1"), fee=Decimal("0.010009")
        ),
        Execution(
            trade_id=str(second.trade_id),
            price=Decimal("100.1"),
            quantity=Decimal(1),
            fee=Decimal(0),
            fee_in_token=Decimal("0.001"),
        ),
    )
    assert (report.status, report.note) == ("filled", None)


def test_trades_of_other_orders_are_not_booked(exchange: FakeExchange) -> None:
    broker = broker_at(exchange)
    broker.place(buy(1))
    broker.place(buy(2))
    own, others = exchange.fill(buy(1).order_id), exchange.fill(buy(2).order_id)
    exchange.spoil("GET myTrades", Fault(body=json.dumps(exchange.answer("GET myTrades", trades_of_all()))))
    report = broker.look_up(buy(1))
    assert report is not None
    assert [execution.trade_id for execution in report.executions] == [str(own.trade_id)] != [str(others.trade_id)]


def trades_of_all() -> dict[str, str]:
    return {"symbol": "SOLUSDT", "timestamp": str(int(time.time() * 1000))}


def test_a_fee_in_a_third_coin_is_told_and_not_booked(exchange: FakeExchange) -> None:
    exchange.held["BNB"], exchange.fee_in = Decimal(1), "BNB"
    broker_at(exchange).place(buy())
    trade = exchange.fill(buy().order_id)
    report = report_of(exchange)
    assert [(one.fee, one.fee_in_token) for one in report.executions] == [(0, 0)]
    assert report.note == f"trade {trade.trade_id} took a fee of 0.00001000 BNB, which is not booked"


def test_an_order_that_is_not_found_at_first_is_found_later(exchange: FakeExchange) -> None:
    broker = broker_at(exchange)
    exchange.fills_at["SOLUSDT"] = Decimal(150)
    broker.place(buy())
    exchange.hidden[buy().order_id] = 3
    assert [broker.look_up(buy()) is None for _ in range(4)] == [True, True, True, False]
    assert broker.absence.look_ups == 3
    assert broker.absence.span.total_seconds() == 120


def test_an_order_that_its_id_does_not_find_is_found_among_the_newest(exchange: FakeExchange) -> None:
    broker = broker_at(exchange)
    exchange.fills_at["SOLUSDT"] = Decimal(150)
    broker.place(buy())
    exchange.spoil("GET order", error(-2013, "Order does not exist."))
    report = broker.look_up(buy())
    assert report is not None
    assert report.status == "filled"
    assert exchange.calls("GET allOrders")


def test_another_order_than_the_one_asked_for_is_not_believed(exchange: FakeExchange) -> None:
    broker = broker_at(exchange)
    broker.place(buy(1))
    other = Fault(body='{"orderId": 7, "symbol": "SOLUSDT", "clientOrderId": "x", "status": "NEW", "executedQty": "0"}')
    exchange.spoil("GET order", *[other] * 4)
    with pytest.raises(TemporaryError, match=r"it was asked for 0{31}1 and answered x"):
        broker.look_up(buy())


@pytest.mark.parametrize("faults", [(Fault(body="[]"),), (Fault(cut=True, done=True), Fault(body="[]"))])
def test_an_order_that_ended_is_not_reported_before_all_its_executions_are_known(
    exchange: FakeExchange, faults: tuple[Fault, ...]
) -> None:
    broker = broker_at(exchange)
    broker.place(buy())
    exchange.fill(buy().order_id, Decimal("0.5"))
    exchange.fill(buy().order_id)
    exchange.spoil("GET myTrades", *faults)
    with pytest.raises(TemporaryError, match=r"has ended at binance with 2.5 filled, but .* add up to 0"):
        broker.look_up(buy())
    assert len(report_of(exchange).executions) == 2


@pytest.mark.parametrize(
    ("status", "reported", "note"),
    [
        ("EXPIRED", "cancelled", "binance calls it expired"),
        ("EXPIRED_IN_MATCH", "cancelled", "binance calls it expired"),
        ("REJECTED", "rejected", "binance calls it rejected"),
        ("CANCELED", "cancelled", None),
        ("PENDING_CANCEL", "open", None),
        ("FILLED", "cancelled", None),
    ],
)
def test_an_end_that_the_exchange_makes_is_reported_with_what_was_filled(
    exchange: FakeExchange, status: str, reported: str, note: str | None
) -> None:
    broker_at(exchange).place(buy())
    exchange.fill(buy().order_id, Decimal("0.5"))
    exchange.end(buy().order_id, status)
    report = report_of(exchange)
    assert (report.status, report.note) == (reported, note)
    assert [execution.quantity for execution in report.executions] == [Decimal("0.5")]


def test_a_status_that_nobody_knows_is_no_status(exchange: FakeExchange) -> None:
    broker_at(exchange).place(buy())
    exchange.end(buy().order_id, "SOMETHING_NEW")
    with pytest.raises(TemporaryError, match=r"an answer that cannot be read \(KeyError\)"):
        report_of(exchange)


def test_an_order_whose_pair_left_the_map_needs_a_person(exchange: FakeExchange) -> None:
    with pytest.raises(DataError, match=r"names no market of GONE-7, of which order 0+1 is: restore the pair"):
        broker_at(exchange).look_up(replace(buy(), token="GONE-7"))
