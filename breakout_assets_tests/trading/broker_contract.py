"""What every broker must hold, whatever venue is behind it.

A broker joins with a harness in `test_broker_contract.py`; the rules below know nothing else of it.
"""

from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Protocol

import pytest

from breakout_assets.trading.brokers import Broker
from breakout_assets.trading.orders import Accepted, Balances, Execution, Fill, NotSent, Order, Rejected, Report

TOKEN = "SOL-5426"
UNKNOWN_TOKEN = "NOSUCH-1"
CASH = Decimal(10_000)
HOUR = datetime.fromisoformat("2026-01-05T12:00")


class Harness(Protocol):
    """A broker on a market that a test can move. The account begins with `CASH` and nothing else."""

    @property
    def broker(self) -> Broker:
        """The broker under test."""

    @property
    def fills_in_parts(self) -> bool:
        """Whether an order can be executed partly here."""

    @property
    def trades_everything(self) -> bool:
        """Whether there is a market for every token, as on paper."""

    def fill(self, order: Order, quantity: Decimal) -> None:
        """Let the market execute so much of an open order, at its limit or better."""

    def give(self, token: str, units: Decimal) -> None:
        """Put units into the account from outside."""


def buy(number: int = 1, quantity: str = "2.5", limit: str = "151.2", token: str = TOKEN) -> Order:
    """An entry whose id follows from its number."""
    return Order(
        order_id=f"{number:032x}",
        hour=HOUR,
        token=token,
        side="buy",
        purpose="entry",
        quantity=Decimal(quantity),
        price=Decimal(limit),
        limit=Decimal(limit),
        reason="contract",
        position=None,
        model_hash=None,
        probability=None,
    )


def sell(number: int, quantity: str = "2.5", limit: str = "149.5") -> Order:
    """An exit."""
    return replace(buy(number, quantity, limit), side="sell", purpose="exit", position=f"{1:032x}")


def found(harness: Harness, order: Order) -> Report:
    """The report of an order that must be there."""
    report = harness.broker.look_up(order)
    assert report is not None
    return report


def accepted(harness: Harness, order: Order) -> Accepted:
    """The answer to an order that must be accepted."""
    answer = harness.broker.place(order)
    assert isinstance(answer, Accepted), answer
    return answer


def executed(report: Report) -> Decimal:
    """Units of all executions."""
    return sum((execution.quantity for execution in report.executions), Decimal(0))


def after(order: Order, executions: tuple[Execution, ...], cash: Decimal, units: Decimal) -> Balances:
    """The account once these are booked as the ledger books them."""
    for one in executions:
        fields = {name: getattr(one, name) for name in ("trade_id", "price", "quantity", "fee", "fee_in_token")}
        fill = Fill(order_id=order.order_id, side=order.side, hour=HOUR, **fields)
        cash, units = cash + fill.cash_flow, units + fill.units
    return Balances(cash=cash, tokens={order.token: units} if units else {})


# The rules -------------------------------------------------------------------------------------------------------


def an_order_that_was_placed_is_found_under_its_id(harness: Harness) -> None:
    answer = accepted(harness, buy())
    report = found(harness, buy())
    assert (report.venue_id, report.status, report.executions) == (answer.venue_id, "open", ())


def an_order_that_was_never_placed_is_not_found(harness: Harness) -> None:
    assert harness.broker.look_up(buy()) is None
    accepted(harness, buy(1))
    assert harness.broker.look_up(buy(2)) is None


def an_order_placed_twice_is_one_order(harness: Harness) -> None:
    answer = accepted(harness, buy())
    again = harness.broker.place(buy())
    assert not isinstance(again, Rejected), "it is there: nothing may say that it is not"
    assert not isinstance(again, Accepted) or again.venue_id == answer.venue_id
    assert [order.venue_id for order in harness.broker.open_orders()] == [answer.venue_id]
    harness.fill(buy(), buy().quantity)
    assert executed(found(harness, buy())) == buy().quantity


def a_cancelled_order_has_ended_and_cancelling_twice_does_no_harm(harness: Harness) -> None:
    accepted(harness, buy())
    for _ in range(2):
        harness.broker.cancel(buy())
        report = found(harness, buy())
        assert (report.status, report.executions) == ("cancelled", ())
    assert harness.broker.open_orders() == []
    assert harness.broker.balances() == Balances(CASH, {})


def cancelling_what_is_not_there_or_has_been_filled_changes_nothing(harness: Harness) -> None:
    harness.broker.cancel(buy(2))
    assert harness.broker.look_up(buy(2)) is None
    accepted(harness, buy())
    harness.fill(buy(), buy().quantity)
    report = found(harness, buy())
    harness.broker.cancel(buy())
    assert found(harness, buy()) == report
    assert report.status == "filled"


def a_partial_execution_leaves_the_order_open_until_the_rest_is_executed(harness: Harness) -> None:
    if not harness.fills_in_parts:
        pytest.skip("this broker executes an order whole or not at all")
    accepted(harness, buy())
    harness.fill(buy(), Decimal("0.7"))
    first = found(harness, buy())
    assert (first.status, executed(first)) == ("open", Decimal("0.7"))
    harness.fill(buy(), Decimal("1.8"))
    whole = found(harness, buy())
    assert (whole.status, executed(whole)) == ("filled", Decimal("2.5"))
    assert set(first.executions) < set(whole.executions), "what was told once stays as it was told"


def a_partly_executed_order_that_is_cancelled_keeps_its_executions(harness: Harness) -> None:
    if not harness.fills_in_parts:
        pytest.skip("this broker executes an order whole or not at all")
    accepted(harness, buy())
    harness.fill(buy(), Decimal("0.7"))
    harness.broker.cancel(buy())
    report = found(harness, buy())
    assert (report.status, executed(report)) == ("cancelled", Decimal("0.7"))
    assert harness.broker.balances() == after(buy(), report.executions, CASH, Decimal(0))


def executions_are_exact_and_the_same_each_time(harness: Harness) -> None:
    accepted(harness, buy())
    harness.fill(buy(), buy().quantity)
    report = found(harness, buy())
    assert executed(report) == buy().quantity
    assert all(0 < execution.price <= buy().limit for execution in report.executions)
    assert len({execution.trade_id for execution in report.executions}) == len(report.executions)
    for _ in range(3):
        assert found(harness, buy()) == report


def an_open_order_is_listed_until_it_ends(harness: Harness) -> None:
    answer = accepted(harness, buy())
    [listed] = harness.broker.open_orders()
    assert (listed.venue_id, listed.order_id, listed.token) == (answer.venue_id, buy().order_id, TOKEN)
    harness.fill(buy(), buy().quantity)
    assert harness.broker.open_orders() == []


def balances_move_by_exactly_what_the_executions_say(harness: Harness) -> None:
    assert harness.broker.balances() == Balances(CASH, {})
    accepted(harness, buy())
    assert harness.broker.balances() == Balances(CASH, {}), "what an order reserves is still held"
    harness.fill(buy(), buy().quantity)
    bought = after(buy(), found(harness, buy()).executions, CASH, Decimal(0))
    assert harness.broker.balances() == bought
    held = bought.tokens[TOKEN]
    sale = sell(2, "2")
    accepted(harness, sale)
    harness.fill(sale, sale.quantity)
    assert harness.broker.balances() == after(sale, found(harness, sale).executions, bought.cash, held)


def an_unknown_token_has_no_limits_and_cannot_be_ordered(harness: Harness) -> None:
    if harness.trades_everything:
        return
    limits = harness.broker.limits([TOKEN, UNKNOWN_TOKEN])
    assert set(limits) == {TOKEN}
    assert limits[TOKEN].quantity_step > 0
    assert isinstance(harness.broker.place(buy(token=UNKNOWN_TOKEN)), NotSent | Rejected)


def an_address_stays_the_same_and_is_there_for_every_token(harness: Harness) -> None:
    address = harness.broker.address(buy(1))
    assert address
    accepted(harness, buy(1))
    assert harness.broker.address(buy(1)) == harness.broker.address(buy(2)) == address
    assert harness.broker.address(buy(token=UNKNOWN_TOKEN))


def a_rejected_order_leaves_nothing(harness: Harness) -> None:
    answer = harness.broker.place(sell(1))
    assert isinstance(answer, Rejected), "nothing is held that could be sold"
    assert answer.reason
    report = harness.broker.look_up(sell(1))
    assert report is None or (report.status, report.executions) == ("rejected", ())
    assert harness.broker.open_orders() == []
    assert harness.broker.balances() == Balances(CASH, {})


def units_that_come_from_outside_are_seen(harness: Harness) -> None:
    harness.give(TOKEN, Decimal("0.25"))
    assert harness.broker.balances() == Balances(CASH, {TOKEN: Decimal("0.25")})


def opening_an_hour_twice_changes_nothing(harness: Harness) -> None:
    accepted(harness, buy())
    harness.broker.open_hour(HOUR, {})
    report = found(harness, buy())
    harness.broker.open_hour(HOUR, {})
    assert found(harness, buy()) == report


RULES = (
    an_order_that_was_placed_is_found_under_its_id,
    an_order_that_was_never_placed_is_not_found,
    an_order_placed_twice_is_one_order,
    a_cancelled_order_has_ended_and_cancelling_twice_does_no_harm,
    cancelling_what_is_not_there_or_has_been_filled_changes_nothing,
    a_partial_execution_leaves_the_order_open_until_the_rest_is_executed,
    a_partly_executed_order_that_is_cancelled_keeps_its_executions,
    executions_are_exact_and_the_same_each_time,
    an_open_order_is_listed_until_it_ends,
    balances_move_by_exactly_what_the_executions_say,
    an_unknown_token_has_no_limits_and_cannot_be_ordered,
    an_address_stays_the_same_and_is_there_for_every_token,
    a_rejected_order_leaves_nothing,
    units_that_come_from_outside_are_seen,
    opening_an_hour_twice_changes_nothing,
)
