"""The paper venue as a venue: what it takes, what it refuses, and what it keeps."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from breakout_assets.trading.brokers import AbsenceProof, Broker, Quote
from breakout_assets.trading.orders import Accepted, Balances, Order, OrderLimits, Rejected, Unknown
from breakout_assets.trading.paper import PaperBroker
from breakout_assets_tests.trading.support import FREE_OF_COST, RULES, Account, at

BUY = Order(
    order_id="b" * 32,
    hour=at(0),
    token="A",
    side="buy",
    purpose="entry",
    quantity=Decimal(100),
    price=Decimal(2),
    limit=Decimal("2.1"),
    reason="r",
    position=None,
    model_hash=None,
    probability=0.7,
)
SELL = replace(BUY, order_id="5" * 32, hour=at(1), side="sell", purpose="exit", limit=Decimal("1.9"), position="b" * 32)


@pytest.fixture
def venue(ledger_place: Path | str) -> PaperBroker:
    return PaperBroker(Account(ledger_place).ledger, "paper", FREE_OF_COST)


def open_hour(venue: PaperBroker, hour: int, price: str | Mapping[str, str], volume: int | None = None) -> None:
    by_token = price if isinstance(price, Mapping) else {"A": price}
    known = None if volume is None else Decimal(volume)
    venue.open_hour(at(hour), {token: Quote(Decimal(value), known) for token, value in by_token.items()})


def status(venue: PaperBroker, order: Order) -> str | None:
    report = venue.look_up(order)
    return None if report is None else report.status


def test_it_is_a_venue_at_which_nothing_is_executed_at_once_and_absence_is_plain(venue: PaperBroker) -> None:
    broker: Broker = venue
    assert (broker.immediate, broker.absence) == (False, AbsenceProof(look_ups=1, span=timedelta(0)))
    assert broker.limits(["A", "B"]) == {"A": OrderLimits(), "B": OrderLimits()}
    assert broker.address(BUY) == "paper"
    assert (broker.look_up(BUY), broker.open_orders(), broker.balances()) == (None, [], Balances(Decimal(10_000), {}))


def test_an_order_is_taken_kept_and_filled_by_the_next_hour(venue: PaperBroker) -> None:
    open_hour(venue, 0, "2")
    assert venue.place(BUY) == Accepted(BUY.order_id)
    assert status(venue, BUY) == "open"
    assert [(each.order_id, each.token) for each in venue.open_orders()] == [(BUY.order_id, "A")]
    assert venue.balances().cash == 10_000
    open_hour(venue, 1, "2.05")
    report = venue.look_up(BUY)
    assert report is not None
    [trade] = report.executions
    assert (trade.price, trade.quantity, trade.fee) == (Decimal("2.05"), Decimal(100), Decimal(0))
    assert report.status == "filled"
    assert venue.open_orders() == []
    assert venue.balances() == Balances(Decimal(9_795), {"A": Decimal(100)})


def test_an_id_is_taken_once(venue: PaperBroker) -> None:
    venue.place(BUY)
    assert isinstance(venue.place(replace(BUY, quantity=Decimal(1))), Unknown)
    open_hour(venue, 1, "2")
    assert isinstance(venue.place(BUY), Unknown)  # nor after it has ended
    assert venue.balances() == Balances(Decimal(9_800), {"A": Decimal(100)})


def test_an_hour_is_used_once_whatever_prices_are_given_later(venue: PaperBroker) -> None:
    venue.place(BUY)
    open_hour(venue, 1, {"B": "1"})
    open_hour(venue, 1, "2")
    assert status(venue, BUY) == "open"
    open_hour(venue, 2, "2", volume=2400)
    before = venue.look_up(BUY)
    open_hour(venue, 2, "2", volume=2400)
    assert venue.look_up(BUY) == before
    assert [trade.quantity for trade in before.executions] == [5]  # type: ignore[union-attr]


def test_an_hour_does_not_fill_what_was_decided_in_it(venue: PaperBroker) -> None:
    venue.place(BUY)
    open_hour(venue, 0, "2")
    assert status(venue, BUY) == "open"


def test_parts_of_an_order_are_executions_of_their_hours(venue: PaperBroker) -> None:
    venue.place(BUY)
    for hour in (1, 2, 3):
        open_hour(venue, hour, "2", volume=19_200)
    report = venue.look_up(BUY)
    assert report is not None
    assert [(trade.trade_id, trade.quantity) for trade in report.executions] == [
        ("20240301T01", Decimal(40)),
        ("20240301T02", Decimal(40)),
        ("20240301T03", Decimal(20)),
    ]
    assert report.status == "filled"


@pytest.mark.parametrize(("beyond", "taken"), [("0", True), ("0.00000001", False)])
def test_a_purchase_is_refused_that_cash_does_not_cover_at_its_limit_with_its_fee(
    ledger_place: Path | str, beyond: str, taken: bool
) -> None:
    rules = replace(RULES, cash=Decimal("210.525") + Decimal("105.2625"))  # 100 and 50 x 2.1, and a fee of 0.25 %
    venue = PaperBroker(Account(ledger_place).ledger, "paper", rules)
    assert venue.place(BUY) == Accepted(BUY.order_id)
    second = replace(BUY, order_id="c" * 32, token="B", quantity=50 + Decimal(beyond))
    answer = venue.place(second)
    assert (answer == Accepted(second.order_id)) == taken
    if not taken:
        assert isinstance(answer, Rejected)
        assert answer.reason.startswith("105.26250000 USD are free")
        assert venue.look_up(second) is None
        venue.cancel(BUY)
        assert venue.place(second) == Accepted(second.order_id)  # what is reserved is free again


@pytest.mark.parametrize(("beyond", "taken"), [("0", True), ("0.00000001", False)])
def test_a_sale_is_refused_of_more_than_is_held_and_free(venue: PaperBroker, beyond: str, taken: bool) -> None:
    assert isinstance(venue.place(SELL), Rejected)
    venue.place(BUY)
    open_hour(venue, 1, "2")
    assert venue.place(replace(SELL, quantity=Decimal(60))) == Accepted(SELL.order_id)
    second = replace(SELL, order_id="6" * 32, quantity=40 + Decimal(beyond))
    answer = venue.place(second)
    assert answer == (Accepted(second.order_id) if taken else Rejected(f"40 A are free, not {second.quantity}"))


def test_a_cancelled_order_is_never_filled_and_cancelling_twice_does_no_harm(venue: PaperBroker) -> None:
    venue.cancel(BUY)
    assert venue.look_up(BUY) is None
    venue.place(BUY)
    open_hour(venue, 1, "2", volume=19_200)
    venue.cancel(BUY)
    venue.cancel(BUY)
    open_hour(venue, 2, "2")
    report = venue.look_up(BUY)
    assert report is not None
    assert report.status == "cancelled"
    assert [trade.quantity for trade in report.executions] == [40]


def test_a_filled_order_cannot_be_cancelled(venue: PaperBroker) -> None:
    venue.place(BUY)
    open_hour(venue, 1, "2")
    venue.cancel(BUY)
    assert status(venue, BUY) == "filled"


def test_sales_bring_their_money_less_the_fee(ledger_place: Path | str) -> None:
    venue = PaperBroker(Account(ledger_place).ledger, "paper", replace(FREE_OF_COST, fee=Decimal("0.01")))
    venue.place(BUY)
    open_hour(venue, 1, "2")
    venue.place(SELL)
    open_hour(venue, 2, "1.9")
    assert venue.balances() == Balances(10_000 - Decimal(202) + Decimal("188.1"), {})


def test_accounts_do_not_see_each_other(venue: PaperBroker) -> None:
    other = replace(venue, account="other")
    venue.place(BUY)
    open_hour(other, 1, "2")
    other.cancel(BUY)
    assert (other.look_up(BUY), other.open_orders()) == (None, [])
    assert other.balances().cash == 10_000
    assert status(venue, BUY) == "open"
    open_hour(venue, 1, "2")
    assert status(venue, BUY) == "filled"
    assert other.balances().cash == 10_000
