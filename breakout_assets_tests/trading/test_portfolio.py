"""The fold of orders and fills into what an account holds."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from breakout_assets.trading.adjustments import Adjustment
from breakout_assets.trading.orders import Fill, Order, Status
from breakout_assets.trading.portfolio import Mark, Portfolio, fold
from breakout_assets_tests.trading.support import at

ENTRY = Order(
    order_id="in",
    hour=at(0),
    token="A",
    side="buy",
    purpose="entry",
    quantity=Decimal(10),
    price=Decimal(3),
    limit=Decimal("3.15"),
    reason="r",
    position=None,
    model_hash=None,
    probability=0.7,
)
EXIT = replace(ENTRY, order_id="out", hour=at(120), side="sell", purpose="exit", position="in", probability=None)
BOUGHT = Fill(
    order_id="in",
    side="buy",
    hour=at(1),
    trade_id="t1",
    price=Decimal(4),
    quantity=Decimal(10),
    fee=Decimal("0.1"),
)
SOLD = replace(BOUGHT, order_id="out", side="sell", hour=at(121), price=Decimal(6), fee=Decimal("0.2"))


def folded(
    orders: list[Order], fills: list[Fill], mark: Mark | None = None, statuses: dict[str, Status] | None = None
) -> Portfolio:
    done: dict[str, Status] = {fill.order_id: "filled" for fill in fills}
    waiting: dict[str, Status] = {order.order_id: "accepted" for order in orders}
    marks = {"A": mark} if mark else {}
    return fold("paper", at(200), Decimal(100), orders, waiting | done | (statuses or {}), fills, marks)


@pytest.mark.parametrize("status", ["intent", "sending", "unknown", "accepted", "cancelling"])
def test_an_order_that_has_not_ended_is_open(status: Status) -> None:
    [waiting] = folded([ENTRY], [], statuses={"in": status}).open_orders
    assert (waiting.order, waiting.status, waiting.filled, waiting.remaining) == (
        ENTRY,
        status,
        Decimal(0),
        Decimal(10),
    )


@pytest.mark.parametrize("status", ["filled", "cancelled", "rejected"])
def test_an_order_that_has_ended_is_not(status: Status) -> None:
    portfolio = folded([ENTRY], [], statuses={"in": status})
    assert (portfolio.open_orders, portfolio.positions, portfolio.cash) == ((), (), Decimal(100))


def test_a_position_lasts_from_the_fill_of_its_entry_to_the_fill_of_its_exit() -> None:
    assert [position.order_id for position in folded([ENTRY, EXIT], [BOUGHT]).positions] == ["in"]
    closed = folded([ENTRY, EXIT], [BOUGHT, SOLD])
    assert closed.positions == ()
    assert closed.cash == closed.equity == Decimal("119.7")
    assert closed.realised_profit == Decimal("19.7")
    assert closed.fees == Decimal("0.3")
    assert closed.units == {}
    assert closed.left == {"A": at(121)}


@pytest.mark.parametrize(
    ("mark", "price"),
    [
        (None, 4),
        (Mark(price=Decimal(9), hour=at(0)), 4),  # of a holding before this one
        (Mark(price=Decimal(9), hour=at(1)), 9),
    ],
)
def test_a_position_counts_at_the_newest_price_since_it_was_bought(mark: Mark | None, price: int) -> None:
    portfolio = folded([ENTRY], [BOUGHT], mark)
    [position] = portfolio.positions
    assert position.value == 10 * price
    assert position.profit == 10 * price - Decimal("40.1")
    assert portfolio.equity == Decimal("59.9") + 10 * price


def test_an_entry_that_is_filled_in_parts_is_one_position_at_their_mean_price() -> None:
    parts = [
        replace(BOUGHT, quantity=Decimal(4), price=Decimal(3), fee=Decimal("0.03")),
        replace(BOUGHT, quantity=Decimal(2), price=Decimal(6), fee=Decimal("0.03"), trade_id="t2", hour=at(3)),
    ]
    portfolio = folded([ENTRY], parts, statuses={"in": "accepted"})
    [position] = portfolio.positions
    assert (position.quantity, position.entry_price, position.cost) == (Decimal(6), Decimal(4), Decimal("24.06"))
    assert (position.decided_hour, position.entered_hour, portfolio.age(position)) == (
        at(0),
        at(3),
        timedelta(hours=200),
    )
    [waiting] = portfolio.open_orders
    assert (waiting.filled, waiting.remaining) == (Decimal(6), Decimal(4))


def test_a_fee_that_was_kept_in_the_token_makes_the_position_smaller_and_not_cheaper() -> None:
    bought = replace(BOUGHT, fee=Decimal(0), fee_in_token=Decimal("0.025"))
    portfolio = folded([ENTRY], [bought])
    [position] = portfolio.positions
    assert position.quantity == Decimal("9.975")
    assert (position.cost, position.entry_price) == (Decimal(40), Decimal(4))
    assert portfolio.units == {"A": Decimal("9.975")}
    assert portfolio.fees == 0
    assert portfolio.realised_profit == 0
    assert position.profit == Decimal("-0.1")  # the fee, at the price that was paid


def test_each_of_several_sales_takes_its_share_of_the_cost() -> None:
    sales = [
        replace(SOLD, quantity=Decimal(3), fee=Decimal("0.06")),
        replace(SOLD, quantity=Decimal(4), fee=Decimal("0.08"), trade_id="t2", hour=at(122)),
    ]
    portfolio = folded([ENTRY, EXIT], [BOUGHT, *sales], statuses={"out": "cancelled"})
    [position] = portfolio.positions
    assert (position.quantity, position.cost) == (Decimal(3), Decimal("12.03"))
    assert portfolio.cash == 100 - Decimal("40.1") + 7 * 6 - Decimal("0.14")
    assert portfolio.realised_profit == 7 * 6 - Decimal("0.14") - Decimal("28.07")
    assert portfolio.left == {"A": at(122)}
    second = replace(EXIT, order_id="out2", hour=at(123), quantity=Decimal(3))
    rest = replace(SOLD, order_id="out2", quantity=Decimal(3), hour=at(124), fee=Decimal("0.06"))
    closed = folded([ENTRY, EXIT, second], [BOUGHT, *sales, rest])
    assert (closed.positions, closed.units) == ((), {})
    assert closed.realised_profit == closed.cash - 100 == Decimal("119.7") - 100


@pytest.mark.parametrize(("rest", "held"), [("0.16666666", False), ("0.16666667", True)])
def test_dust_of_a_sale_is_no_position_and_still_a_holding(rest: str, held: bool) -> None:
    sold = replace(SOLD, quantity=10 - Decimal(rest))
    portfolio = folded([ENTRY, EXIT], [BOUGHT, sold], Mark(price=Decimal(6), hour=at(121)))
    assert [position.quantity for position in portfolio.positions] == ([Decimal(rest)] if held else [])
    assert portfolio.units == {"A": Decimal(rest)}
    if not held:
        assert portfolio.realised_profit == portfolio.cash - 100


def test_a_small_entry_is_a_position_and_not_dust() -> None:
    small = replace(BOUGHT, quantity=Decimal("0.01"), fee=Decimal(0))
    assert [position.quantity for position in folded([ENTRY], [small]).positions] == [Decimal("0.01")]


def test_more_than_was_ordered_is_held_and_nothing_remains_of_the_order() -> None:
    more = replace(BOUGHT, trade_id="t2", quantity=Decimal(1), fee=Decimal(0))
    portfolio = folded([ENTRY], [BOUGHT, more], statuses={"in": "accepted"})
    assert [position.quantity for position in portfolio.positions] == [11]
    assert [each.remaining for each in portfolio.open_orders] == [0]


def test_more_than_was_held_is_sold_only_where_something_else_was_there() -> None:
    portfolio = folded([ENTRY, EXIT], [BOUGHT, replace(SOLD, quantity=Decimal(12))])
    assert portfolio.positions == ()
    assert portfolio.units == {"A": -2}
    assert portfolio.realised_profit == portfolio.cash - 100


def test_two_holdings_of_a_token_are_two_positions() -> None:
    second = replace(ENTRY, order_id="in2", hour=at(150))
    portfolio = folded([ENTRY, second], [BOUGHT, replace(BOUGHT, order_id="in2", hour=at(151))])
    assert [position.order_id for position in portfolio.positions] == ["in", "in2"]
    assert portfolio.units == {"A": 20}


# What a person explained ------------------------------------------------------------------------------------------


def explained(*amounts: tuple[str, str], minute: int = 0, before: bool = False) -> list[Adjustment]:
    """One acceptance in an hour after the purchase, or what was there before the account."""
    when = at(5) + timedelta(minutes=minute)
    hour = None if before else at(5)
    return [
        Adjustment(item=item, amount=Decimal(amount), at=when, by="me", reason="r", hour=hour)
        for item, amount in amounts
    ]


def after(adjustments: list[Adjustment]) -> Portfolio:
    done: dict[str, Status] = {"in": "filled"}
    return fold("live", at(200), Decimal(100), [ENTRY], done, [BOUGHT], {}, (), adjustments)


def test_what_was_there_before_the_account_stays_beside_it() -> None:
    plain = after([])
    with_before = after(explained(("USD", "5"), ("A", "7"), ("Z", "1"), before=True))
    assert replace(with_before, beside={}) == plain
    assert with_before.beside == {"USD": 5, "A": 7, "Z": 1}


def test_a_position_that_was_sold_by_hand_is_gone_and_what_it_brought_is_realised() -> None:
    sold = after(explained(("A", "-10"), ("USD", "43")))
    assert (sold.positions, sold.units, sold.beside) == ((), {}, {})
    assert sold.cash == after([]).cash + 43
    assert sold.realised_profit == 43 - Decimal("40.1")


def test_a_part_of_a_position_that_is_missing_takes_its_share_of_the_cost() -> None:
    [position] = after(explained(("A", "-4"))).positions
    assert (position.quantity, position.cost) == (Decimal(6), Decimal("24.06"))


@pytest.mark.parametrize("amount", ["50", "-50"])
def test_dollars_that_come_or_go_are_the_accounts_and_no_profit(amount: str) -> None:
    moved = after(explained(("USD", amount)))
    assert moved.cash == after([]).cash + Decimal(amount)
    assert (moved.realised_profit, moved.beside) == (after([]).realised_profit, {})


def test_what_went_is_taken_from_what_lay_beside_first() -> None:
    before = explained(("A", "4"), ("USD", "30"), before=True)
    gone = after(before + explained(("A", "-10"), ("USD", "-50"), minute=1))
    assert [(each.quantity, each.cost) for each in gone.positions] == [(Decimal(4), Decimal("16.04"))]
    assert (dict(gone.units), dict(gone.beside)) == ({"A": Decimal(4)}, {})
    assert gone.cash == after([]).cash - 20


def test_a_position_that_is_gone_does_not_rise_again_when_coins_come() -> None:
    sold = explained(("A", "-10"), ("USD", "43"))
    more = after(sold + explained(("A", "10"), minute=1))
    assert replace(more, beside={}) == after(sold)


def test_coins_that_were_bought_and_sold_by_hand_are_no_profit() -> None:
    traded = after(explained(("Z", "3"), ("USD", "-50")) + explained(("Z", "-3"), ("USD", "55"), minute=1))
    assert (traded.cash, traded.realised_profit) == (after([]).cash + 5, after([]).realised_profit)


def test_dollars_that_went_for_coins_by_hand_are_no_loss() -> None:
    bought = after(explained(("Z", "3"), ("USD", "-50")))
    assert (bought.cash, bought.realised_profit) == (after([]).cash - 50, after([]).realised_profit)


def test_coins_that_come_are_not_the_accounts_until_they_have_gone_again() -> None:
    came = after(explained(("A", "3"), ("Z", "2")))
    assert came.positions == after([]).positions
    assert (dict(came.units), dict(came.beside)) == ({"A": Decimal(10)}, {"A": Decimal(3), "Z": Decimal(2)})
    gone = after(explained(("A", "3")) + explained(("A", "-3"), minute=1))
    assert gone == after([])
    more = after(explained(("A", "3")) + explained(("A", "-5"), minute=1))
    assert [each.quantity for each in more.positions] == [8]
    assert (dict(more.units), dict(more.beside)) == ({"A": Decimal(8)}, {})


def test_missing_coins_are_taken_from_the_oldest_position() -> None:
    second = replace(ENTRY, order_id="in2", hour=at(2))
    fills = [BOUGHT, replace(BOUGHT, order_id="in2", hour=at(3))]
    done: dict[str, Status] = {"in": "filled", "in2": "filled"}
    left = fold("live", at(9), Decimal(100), [ENTRY, second], done, fills, {}, (), explained(("A", "-12")))
    assert [(each.order_id, each.quantity) for each in left.positions] == [("in2", Decimal(8))]
