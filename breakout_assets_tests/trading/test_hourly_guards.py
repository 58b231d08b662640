"""What stops an hour's entries, and what an interrupted hour leaves to the next call."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from breakout_assets.errors import DataError, SettingsError, TemporaryError
from breakout_assets.trading import ledger as ledger_module
from breakout_assets.trading.adjustments import Adjustment
from breakout_assets.trading.books import MISSED
from breakout_assets.trading.desk import Desk
from breakout_assets.trading.holdings import accept_differences
from breakout_assets.trading.hourly import DRAWDOWN_GUARD, trade_hour
from breakout_assets.trading.ledger import Ledger
from breakout_assets.trading.orders import Execution, Order, Report
from breakout_assets.trading.outcome import HourResult
from breakout_assets.trading.rules import TradingRules
from breakout_assets.trading.switches import halt, resume
from breakout_assets_tests.trading.builders import order
from breakout_assets_tests.trading.faultyvenue import Fate, FaultyVenue, Kept, Killed, SteppedLedger, Time
from breakout_assets_tests.trading.support import FREE_OF_COST, MAIL, Account, Prices, at, dump, predictions, prices

RULES = replace(FREE_OF_COST, horizon=timedelta(hours=4), cooldown=timedelta(0))


class Live:
    """An account at a venue that executes at once, if it is not told otherwise."""

    def __init__(self, place: Path, rules: TradingRules = RULES, fate: Fate | None = None, **modes: str) -> None:
        self.time = Time(at(0))
        self.venue = FaultyVenue(self.time, fate=fate or Fate(), **modes)  # type: ignore[arg-type]
        self.ledger = SteppedLedger(place / "ledger.sqlite", self.venue.fate)
        self.rules = rules

    def trade(
        self, hour: int, buys: Mapping[str, float] | None = None, quotes: Prices | None = None, health: str = "ACTIVE"
    ) -> HourResult:
        self.time.now = max(self.time.now, at(hour) + timedelta(minutes=5))
        frames = predictions(at(hour), buys or {}), prices(quotes or {})
        broker, now, wait = self.venue, lambda: self.time.now, self.time.wait
        return trade_hour(self.ledger, at(hour), *frames, health, self.rules, "live", now, broker, mail=MAIL, wait=wait)

    def accept(self, plan: bool = False) -> tuple[Adjustment, ...]:
        now = lambda: self.time.now  # noqa: E731
        desk = Desk(self.ledger, "live", self.venue, self.rules, at(0), now, self.time.wait, MAIL)
        return accept_differences(desk, "me", "it was me", plan=plan).adjustments


@pytest.fixture
def live(tmp_path: Path) -> Live:
    return Live(tmp_path)


def told(result: HourResult) -> list[tuple[str, str, str]]:
    return [(each.order.token, each.order.side, each.status) for each in result.outcomes]


def codes(result: HourResult) -> list[tuple[str, str]]:
    return [(token, code) for token, code, _ in result.refused]


# The kill switch --------------------------------------------------------------------------------------------------


def test_a_halt_blocks_entries_cancels_waiting_ones_and_lets_exits_go_on(ledger_place: Path | str) -> None:
    account = Account(ledger_place, RULES)
    account.trade(0, {"A": 0.8}, {"A": 1.0})
    account.trade(1, {"B": 0.8}, {"A": 1.0, "B": 1.0})
    halt(account.ledger, "paper", "me", "I am not sure", at(1) + timedelta(minutes=30))
    # B has no price and waits; another process trades the next hours.
    stopped = Account(ledger_place, RULES).trade(2, {"C": 0.9}, {"A": 1.0, "C": 1.0})
    assert (told(stopped), codes(stopped)) == ([("B", "buy", "cancelled")], [("C", "no_entries")])
    assert stopped.blocks == ("halted by me at 2024-03-01 01:30 UTC: I am not sure",)
    leaving = Account(ledger_place, RULES).trade(4, {"C": 0.9}, {"A": 1.0, "C": 1.0})
    assert (told(leaving), codes(leaving)) == ([("A", "sell", "submitted")], [("C", "no_entries")])
    resume(account.ledger, "paper", "me", "I am sure", at(4) + timedelta(minutes=30))
    after = Account(ledger_place, RULES).trade(5, {"C": 0.9}, {"A": 1.0, "C": 1.0})
    assert (told(after), after.blocks) == ([("A", "sell", "filled"), ("C", "buy", "submitted")], ())


def test_what_waits_to_be_bought_is_not_executed_in_the_first_hour_of_a_halt(tmp_path: Path) -> None:
    account = Account(tmp_path, RULES)
    account.trade(0, {"A": 0.8}, {"A": 1.0})
    halt(account.ledger, "paper", "me", "r", at(0) + timedelta(minutes=30))
    result = account.trade(1, {}, {"A": 1.0})
    assert told(result) == [("A", "buy", "cancelled")]
    assert result.portfolio.cash == RULES.cash


def test_a_halt_of_one_account_stops_no_other(tmp_path: Path) -> None:
    account = Account(tmp_path, RULES)
    halt(account.ledger, "paper", "me", "r", at(0))
    assert told(account.trade(0, {"A": 0.8}, {"A": 1.0})) == []
    assert told(account.trade(0, {"A": 0.8}, {"A": 1.0}, name="other")) == [("A", "buy", "submitted")]


def test_an_entry_that_the_market_executes_before_it_can_be_cancelled_is_held(tmp_path: Path) -> None:
    live = Live(tmp_path, fill_mode="never", cancel_mode="too_late")
    live.trade(0, {"A": 0.8}, {"A": 1.0})
    halt(live.ledger, "live", "me", "r", at(0) + timedelta(minutes=30))
    result = live.trade(1, {}, {"A": 1.0})
    assert told(result) == [("A", "buy", "filled")]
    assert [position.token for position in result.portfolio.positions] == ["A"]


# A fall of the equity ---------------------------------------------------------------------------------------------


@pytest.fixture
def falling(ledger_place: Path | str) -> Account:
    """Half of everything was bought at 10."""
    rules = replace(RULES, horizon=timedelta(hours=100), order_fraction=Decimal("0.5"), max_drawdown=Decimal("0.25"))
    account = Account(ledger_place, rules, mail=MAIL)
    account.trade(0, {"A": 0.8}, {"A": 10.0})
    account.trade(1, {}, {"A": 10.0})
    return account


def pulls(account: Account) -> list[tuple[str, str]]:
    with account.ledger.read("paper") as books:
        return [(switch.action, switch.by) for switch in books.switches()]


def test_a_drawdown_pulls_the_switch_once_and_a_resume_starts_a_new_peak(falling: Account) -> None:
    assert falling.trade(2, {}, {"A": 5.01}).blocks == ()
    fallen = falling.trade(3, {"B": 0.8}, {"A": 5.0, "B": 1.0})
    assert codes(fallen) == [("B", "no_entries")]
    assert fallen.blocks[0].startswith("halted by drawdown guard at 2024-03-01 03:05 UTC: equity of 7,500.00 USD has")
    # A recovery lifts nothing: only a person does.
    assert codes(falling.trade(4, {"B": 0.8}, {"A": 11.0, "B": 1.0})) == [("B", "no_entries")]
    assert falling.trade(5, {}, {"A": 5.0}).blocks == fallen.blocks
    assert pulls(falling) == [("halt", DRAWDOWN_GUARD)]
    assert sum("is halted" in mail.subject for mail in falling.ledger.pending_mails()) == 1
    resume(falling.ledger, "paper", "me", "it is only money", at(5) + timedelta(minutes=30))
    assert falling.trade(6, {}, {"A": 5.0}).blocks == ()
    assert falling.trade(7, {}, {"A": 1.26}).blocks == ()  # 5,630 of 7,500
    again = falling.trade(8, {}, {"A": 1.25})
    assert again.blocks[0].endswith("or more from its peak of 7,500.00 USD: nothing is opened")
    assert [action for action, _ in pulls(falling)] == ["halt", "resume", "halt"]


def test_a_drawdown_is_no_guard_where_it_is_switched_off(tmp_path: Path) -> None:
    account = Account(tmp_path, replace(RULES, order_fraction=Decimal("0.5"), max_drawdown=None))
    account.trade(0, {"A": 0.8}, {"A": 10.0})
    account.trade(1, {}, {"A": 10.0})
    assert (account.trade(2, {}, {"A": 0.1}).blocks, pulls(account)) == ((), [])


# Differences with the venue ---------------------------------------------------------------------------------------


def a_purchase_of(live: Live, token: str, status: str) -> Kept:
    bought = order(token, order_id="f" * 32, hour=at(0), quantity=Decimal(7), price=Decimal(1), reason="by hand")
    kept = live.venue.kept[bought.order_id] = Kept(bought, status=status)
    return kept


def test_cash_beyond_that_of_the_account_is_left_alone(live: Live) -> None:
    live.venue.cash = Decimal("12345.67")
    first = live.trade(0, {"A": 0.8}, {"A": 1.0})
    assert told(first) == [("A", "buy", "filled")]
    assert first.portfolio.cash == 10_000 - 200
    with live.ledger.read("live") as books:
        assert [(each.item, each.amount, each.by) for each in books.adjustments(at(99))] == [
            ("USD", Decimal("2345.67"), "opening")
        ]
    assert live.trade(1, {}, {"A": 1.0}).blocks == ()


@pytest.mark.parametrize("status", ["filled", "open"])
def test_a_ledger_that_was_lost_is_not_begun_anew_beside_what_it_bought(tmp_path: Path, status: str) -> None:
    lost = Live(tmp_path / "lost", fill_mode="at_once" if status == "filled" else "never")
    lost.trade(0, {"A": 0.8}, {"A": 1.0})
    anew = Live(tmp_path / "anew")
    anew.venue, anew.time = lost.venue, lost.time
    has = "199.8000 A" if status == "filled" else "order "
    with pytest.raises(DataError, match=f"has no account live yet, and the venue has .*{has}.*bring it back"):
        anew.trade(0, {"A": 0.8}, {"A": 1.0})
    assert list(lost.venue.created.values()) == [1]
    assert not any(rows for table, rows in dump(anew.ledger).items() if table != "alembic_version")


def test_an_account_begins_beside_what_the_venue_holds_by_a_persons_word(live: Live) -> None:
    live.venue.cash = Decimal("12345.67")
    before = a_purchase_of(live, "OLD", "open")
    before.executions.append(Execution(trade_id="1", price=Decimal(1), quantity=Decimal(3), fee=Decimal(0)))
    with pytest.raises(DataError, match=r"the venue has open orders: order f+; cancel them first"):
        live.accept()
    before.status = "cancelled"
    assert sorted((each.item, each.amount) for each in live.accept()) == [("OLD", 3), ("USD", Decimal("2345.67"))]
    assert live.accept() == ()
    first = live.trade(0, {"A": 0.8}, {"A": 1.0, "OLD": 1.0})
    assert (told(first), first.blocks) == ([("A", "buy", "filled")], ())
    assert first.portfolio.cash == 10_000 - 200


def test_an_hour_that_a_lost_ledger_had_decided_is_not_ordered_twice(tmp_path: Path) -> None:
    lost = Live(tmp_path / "lost")
    lost.trade(0, {"A": 0.8}, {"A": 1.0})
    anew = Live(tmp_path / "anew")
    anew.venue, anew.time = lost.venue, lost.time
    anew.venue.cash = Decimal(30_000)
    anew.accept()  # a person who does not know better
    again = anew.trade(0, {"A": 0.8}, {"A": 1.0})
    assert told(again) == [("A", "buy", "filled")]
    assert list(lost.venue.created.values()) == [1]


def test_an_account_does_not_begin_with_more_than_the_venue_holds(live: Live) -> None:
    live.venue.cash = Decimal("9999.99")
    with pytest.raises(SettingsError, match=r"holds 9999\.99 USD, less than BREAKOUT_CASH=10000"):
        live.trade(0, {"A": 0.8}, {"A": 1.0})
    assert not any(rows for table, rows in dump(live.ledger).items() if table != "alembic_version")


def less_cash(live: Live) -> str:
    live.venue.cash -= 5
    return "the venue holds 5.00000000 USD less than the ledger says"


def more_of_a_token(live: Live) -> str:
    kept = a_purchase_of(live, "Z", "filled")
    kept.executions.append(Execution(trade_id="1", price=Decimal(0), quantity=Decimal(7), fee=Decimal(0)))
    return "the venue holds 7 Z more than the ledger says"


def an_order_by_hand(live: Live) -> str:
    kept = a_purchase_of(live, "A", "open")
    order_id = kept.order.order_id
    return f"the venue has an open order that this account does not know: order {order_id} ({order_id})"


@pytest.mark.parametrize("disturb", [less_cash, more_of_a_token, an_order_by_hand])
def test_a_difference_with_the_venue_blocks_entries_and_allows_exits(live: Live, disturb: object) -> None:
    live.trade(0, {"A": 0.8}, {"A": 1.0})
    sentence = disturb(live)  # type: ignore[operator]
    blocked = live.trade(1, {"B": 0.9}, {"A": 1.0, "B": 1.0})
    assert (told(blocked), codes(blocked), blocked.blocks) == ([], [("B", "no_entries")], (sentence,))
    leaving = live.trade(4, {"B": 0.9}, {"A": 1.0, "B": 1.0})
    assert (told(leaving), codes(leaving)) == ([("A", "sell", "filled")], [("B", "no_entries")])
    assert sum(sentence in mail.text_body for mail in live.ledger.pending_mails()) == 2  # once new, once with the sale
    for kept in live.venue.kept.values():
        kept.status = "cancelled" if kept.status == "open" else kept.status
    live.accept()
    assert told(live.trade(5, {"B": 0.9}, {"A": 1.0, "B": 1.0})) == [("B", "buy", "filled")]


@pytest.mark.parametrize(("rounding", "blocks"), [("0.00000001", 0), ("0.00000003", 1)])
def test_a_venue_may_round_each_execution_otherwise(live: Live, rounding: str, blocks: int) -> None:
    live.venue.rounding = Decimal(rounding)
    live.trade(0, {"A": 0.9, "B": 0.8, "C": 0.7}, {"A": 1.0, "B": 1.0, "C": 1.0})
    assert len(live.trade(1).blocks) == blocks
    assert len(live.accept()) == blocks


def test_an_order_that_the_venue_has_forgotten_blocks_entries_for_two_hours(tmp_path: Path) -> None:
    live = Live(tmp_path, fill_mode="never")
    live.trade(0, {"A": 0.8}, {"A": 1.0})
    live.venue.kept.clear()
    for hour in (1, 2, 3):
        blocked = live.trade(hour, {"B": 0.9}, {"A": 1.0, "B": 1.0})
        assert codes(blocked) == [("B", "no_entries")]
        assert any("was accepted, and the venue no longer knows it" in block for block in blocked.blocks)
        assert [each.order.token for each in blocked.portfolio.open_orders] == ["A"]
    ended = live.trade(4, {}, {"A": 1.0, "B": 1.0})
    assert told(ended) == [("A", "buy", "cancelled")]
    assert "has not known it since 2024-03-01 01:05:05, and holds what it would" in ended.outcomes[0].reason
    assert told(live.trade(5, {"B": 0.9}, {"A": 1.0, "B": 1.0})) == [("B", "buy", "submitted")]


def test_a_forgotten_order_that_may_have_been_executed_ends_by_a_persons_word(tmp_path: Path) -> None:
    live = Live(tmp_path, fill_mode="never")
    live.trade(0, {"A": 0.8}, {"A": 1.0})
    live.venue.kept.clear()
    live.venue.cash -= 5
    for hour in range(1, 6):
        stuck = live.trade(hour, {}, {"A": 1.0})
    assert [each.order.token for each in stuck.portfolio.open_orders] == ["A"]
    assert [(each.item, each.amount) for each in live.accept()] == [("USD", Decimal(-5))]
    after = live.trade(6, {"B": 0.9}, {"B": 1.0})
    assert told(after) == [("B", "buy", "submitted")]
    assert after.portfolio.cash == 9_995


def test_a_position_that_was_sold_by_hand_is_not_sold_again(live: Live) -> None:
    live.trade(0, {"A": 0.8, "B": 0.7}, {"A": 1.0, "B": 1.0})
    kept = a_purchase_of(live, "A", "filled")
    kept.executions.append(Execution(trade_id="1", price=Decimal(1), quantity=Decimal("-199.8"), fee=Decimal(0)))
    live.venue.cash += 210
    blocked = live.trade(1, {}, {"A": 1.0, "B": 1.0})
    assert len(blocked.blocks) == 2
    assert sorted((each.item, each.amount) for each in live.accept()) == [("A", Decimal("-199.8")), ("USD", 210)]
    after = live.trade(2, {}, {"A": 1.0, "B": 1.0})
    assert (after.blocks, [position.token for position in after.portfolio.positions]) == ((), ["B"])
    assert after.portfolio.cash == live.venue.cash == 10_000 - 400 + 210
    assert after.portfolio.realised_profit == 10
    assert told(live.trade(4, {}, {"A": 1.0, "B": 1.0})) == [("B", "sell", "filled")]
    # What a past hour knew is told as it was.
    with live.ledger.read("live") as books:
        decided = books.portfolio(at(1), Decimal(0), books.record(at(1)).event)  # type: ignore[union-attr]
    assert [position.token for position in decided.positions] == ["A", "B"]


def test_what_would_be_accepted_can_be_seen_before(tmp_path: Path) -> None:
    live = Live(tmp_path, fill_mode="never")
    live.venue.cash += 5
    before = dump(live.ledger)
    assert [(each.item, each.amount) for each in live.accept(plan=True)] == [("USD", Decimal(5))]
    assert dump(live.ledger) == before
    live.trade(0, {"A": 0.8}, {"A": 1.0})
    live.venue.kept.clear()
    live.venue.cash -= 7
    for hour in (1, 2, 3):
        live.trade(hour)
    before = dump(live.ledger)
    assert [(each.item, each.amount) for each in live.accept(plan=True)] == [("USD", Decimal(-7))]
    assert dump(live.ledger) == before


def test_cash_that_was_taken_out_is_not_spent(tmp_path: Path) -> None:
    live = Live(tmp_path, replace(RULES, max_drawdown=None))
    live.trade(0)
    live.venue.cash -= 9_900
    live.trade(1)
    live.accept()
    bought = live.trade(2, {"A": 0.8}, {"A": 1.0})
    assert codes(bought) == [("A", "below_minimum")]  # 2 % of 100 USD


@pytest.mark.parametrize("place_mode", ["timeout_done", "timeout_not_done"])
def test_nothing_is_accepted_while_orders_are_open_or_in_doubt(tmp_path: Path, place_mode: str) -> None:
    live = Live(tmp_path, fill_mode="never", place_mode=place_mode, look_up_mode="fails_often")
    with pytest.raises(TemporaryError):
        live.trade(0, {"A": 0.8}, {"A": 1.0})
    live.venue.look_up_mode = "ok"
    live.venue.cash -= 5
    with live.ledger.write("live") as books:  # look-ups alone do not prove that it will not arrive
        [(order, _)] = books.unended()
        for _ in range(3):
            books.event(order.order_id, MISSED, at(0), live.time.now)
    with pytest.raises(DataError, match="open or in doubt; accept once hourly runs have ended or missed it, or a day"):
        live.accept()
    live.time.now += timedelta(days=1)
    if place_mode == "timeout_done":  # it is there
        with pytest.raises(DataError, match=r"the venue has open orders: order .*; cancel them first, or wait until"):
            live.accept()
    else:  # its key, or its market, may be gone for good
        assert [each.amount for each in live.accept()] == [Decimal(-5)]
        assert live.trade(25).blocks == ()


def test_an_order_that_an_index_misses_once_is_not_ended_by_an_acceptance(tmp_path: Path) -> None:
    live = Live(tmp_path, fill_mode="never")
    live.trade(0, {"A": 0.8}, {"A": 1.0})
    [kept] = live.venue.kept.values()
    kept.hidden = 1
    live.venue.cash -= 5
    with pytest.raises(DataError, match="open or in doubt"):
        live.accept()
    kept.hidden = 9
    for hour in (1, 2, 3, 4):
        live.trade(hour)
    kept.status, kept.hidden = "open", 1
    with pytest.raises(DataError, match="the venue has open orders"):
        live.accept()


def test_what_is_executed_between_the_hours_is_booked_before_it_is_accepted(tmp_path: Path) -> None:
    live = Live(tmp_path, place_mode="rejected")
    live.trade(0, {"A": 0.8}, {"A": 1.0})
    [order] = [each.order for each in live.trade(0).outcomes]
    live.venue.execute(live.venue.kept.setdefault(order.order_id, Kept(order)), order.quantity)
    assert live.accept() == ()
    after = live.trade(1, {}, {"A": 1.0})
    assert (after.blocks, [position.token for position in after.portfolio.positions]) == ((), ["A"])
    assert after.portfolio.realised_profit == 0


def test_what_lies_beside_goes_first_and_a_later_position_is_whole(live: Live) -> None:
    beside = a_purchase_of(live, "A", "filled")
    beside.executions.append(Execution(trade_id="1", price=Decimal(1), quantity=Decimal(300), fee=Decimal(0)))
    live.accept()
    live.trade(0)
    beside.executions.clear()  # its owner takes it away
    live.trade(1)
    live.accept()
    assert told(live.trade(2, {"A": 0.8}, {"A": 1.0})) == [("A", "buy", "filled")]
    held = live.trade(3, {}, {"A": 1.0})
    assert [position.quantity for position in held.portfolio.positions] == [Decimal("199.8")]
    assert told(live.trade(6, {}, {"A": 1.0})) == [("A", "sell", "filled")]


@pytest.mark.parametrize("count", [1, 3])
def test_what_is_due_is_sold_although_other_orders_cannot_be_read(live: Live, count: int) -> None:
    wanted = {"ABCD"[number]: 0.9 - number / 100 for number in range(count + 1)}
    prices_of = dict.fromkeys(wanted, 1.0)
    live.trade(0, {"A": 0.9}, prices_of)
    live.venue.fill_mode = "never"
    live.trade(1, {token: score for token, score in wanted.items() if token != "A"}, prices_of)
    broken = {key for key, kept in live.venue.kept.items() if kept.order.token != "A"}
    look_up = live.venue.look_up

    def failing(order: Order) -> Report | None:
        if order.order_id in broken:
            raise TemporaryError("its executions do not add up")
        return look_up(order)

    live.venue.look_up = failing  # type: ignore[method-assign]
    with pytest.raises(TemporaryError, match="do not add up"):
        live.trade(4, {}, prices_of)
    with live.ledger.read("live") as books:
        assert [position.token for position in books.portfolio(at(4), Decimal(0)).positions] == []
        assert "do not add up" in str(books.record(at(4)).blocks)  # type: ignore[union-attr]


def test_a_coin_that_was_sold_by_hand_rests_like_any_other(tmp_path: Path) -> None:
    live = Live(tmp_path, replace(RULES, cooldown=timedelta(hours=3)))
    live.trade(0, {"A": 0.8}, {"A": 1.0})
    kept = a_purchase_of(live, "A", "filled")
    kept.executions.append(Execution(trade_id="1", price=Decimal(1), quantity=Decimal("-199.8"), fee=Decimal(0)))
    live.accept()
    assert codes(live.trade(1, {"A": 0.8}, {"A": 1.0})) == [("A", "cooldown")]


def test_what_was_not_sent_is_not_sent_on_doubtful_data(tmp_path: Path) -> None:
    live = killed_before_it_was_sent(tmp_path)
    frames = predictions(at(0), {}), prices({})
    now = lambda: live.time.now  # noqa: E731
    doubts = ("predictions are missing",)
    trade_hour(
        live.ledger, at(0), *frames, "ACTIVE", RULES, "live", now, live.venue, doubts=doubts, wait=live.time.wait
    )
    assert live.venue.created == {}


def test_nothing_is_accepted_while_the_account_is_traded(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    live.trade(0)
    monkeypatch.setattr(ledger_module, "BUSY_SECONDS", 0 if live.ledger.path else 0.05)
    other = Ledger(live.ledger.path or live.ledger.name)
    with other.sole("trading-live"), pytest.raises(TemporaryError, match="is trading the"):
        live.accept()


# Interrupted hours ------------------------------------------------------------------------------------------------


def interrupted(folder: Path, hours: int) -> Iterator[tuple[int, Live]]:
    """A live account whose process died after its n-th step in the last of these hours, for each n."""
    counted = Live(folder / "counted")
    for hour in range(hours):
        before = counted.venue.fate.steps
        counted.trade(hour, {"A": 0.8, "B": 0.7} if hour == 0 else {}, {"A": 1.0, "B": 2.0})
    for step in range(before + 1, counted.venue.fate.steps + 1):
        live = Live(folder / str(step), fate=Fate(step))
        for hour in range(hours - 1):
            live.trade(hour, {"A": 0.8, "B": 0.7} if hour == 0 else {}, {"A": 1.0, "B": 2.0})
        with pytest.raises(Killed):
            live.trade(hours - 1, {"A": 0.8, "B": 0.7} if hours == 1 else {}, {"A": 1.0, "B": 2.0})
        yield step, live


def test_an_unfinished_hour_is_finished_by_the_next_call(tmp_path: Path) -> None:
    repeated = set()
    for step, live in interrupted(tmp_path, 1):
        again = live.trade(0, {"A": 0.8, "B": 0.7}, {"A": 1.0, "B": 2.0})
        repeated.add(again.repeated)
        # All is sent now, and once; an order that had to be sent again may be looked at in the next call only.
        assert list(live.venue.created.values()) == [1, 1], step
        assert {status for _, _, status in told(again)} <= {"filled", "submitted"}
        last = live.trade(0, {}, {})
        assert told(last) == [("A", "buy", "filled"), ("B", "buy", "filled")], step
        assert last.portfolio.cash == live.venue.cash == 9_600
        assert live.trade(1, {}, {"A": 1.0, "B": 2.0}).blocks == ()
    assert repeated == {False, True}


def killed_before_it_was_sent(folder: Path) -> Live:
    """Two entries are decided; nothing has been sent."""
    live = Live(folder, fate=Fate(2))  # the second step commits the decision
    with pytest.raises(Killed):
        live.trade(0, {"A": 0.8, "B": 0.7}, {"A": 1.0, "B": 2.0})
    with live.ledger.read("live") as books:
        assert list(books.statuses(at(0)).values()) == ["intent", "intent"]
    return live


def test_what_was_decided_and_not_sent_is_sent_in_the_next_hour(tmp_path: Path) -> None:
    live = killed_before_it_was_sent(tmp_path)
    result = live.trade(1, {}, {"A": 1.0, "B": 2.0})
    assert told(result) == [("A", "buy", "filled"), ("B", "buy", "filled")]
    assert [each.order.hour for each in result.outcomes] == [at(0), at(0)]
    assert result.blocks == ()


@pytest.mark.parametrize(("late", "expected"), [(timedelta(0), "filled"), (timedelta(microseconds=1), "cancelled")])
def test_what_was_not_sent_in_time_is_cancelled_unsent(tmp_path: Path, late: timedelta, expected: str) -> None:
    live = killed_before_it_was_sent(tmp_path)
    live.time.now = at(2) + late
    frames = predictions(at(2), {}), prices({"A": 1.0, "B": 2.0})
    now, wait = lambda: live.time.now, live.time.wait
    result = trade_hour(live.ledger, at(2), *frames, "ACTIVE", RULES, "live", now, live.venue, wait=wait)
    assert told(result) == [("A", "buy", expected), ("B", "buy", expected)]
    assert len(live.venue.created) == (2 if expected == "filled" else 0)
    if expected == "cancelled":
        assert {each.reason for each in result.outcomes} == {"not sent within 2 hours of the decision"}


@pytest.mark.parametrize("hour", [0, 1])
def test_an_entry_that_was_not_sent_before_a_halt_is_not_sent_after_it(tmp_path: Path, hour: int) -> None:
    live = killed_before_it_was_sent(tmp_path)
    halt(live.ledger, "live", "me", "stop", live.time.now)
    live.trade(hour, {}, {"A": 1.0, "B": 2.0})
    assert live.venue.created == {}


@pytest.mark.parametrize("health", ["REDUCE_ONLY", "HALTED"])
def test_an_entry_that_was_not_sent_is_not_sent_into_a_market_without_entries(tmp_path: Path, health: str) -> None:
    live = killed_before_it_was_sent(tmp_path)
    live.trade(1, {}, {"A": 1.0, "B": 2.0}, health)
    assert live.venue.created == {}


def test_an_entry_that_was_not_sent_is_not_sent_while_the_venue_differs(tmp_path: Path) -> None:
    live = killed_before_it_was_sent(tmp_path)
    live.venue.cash -= 5
    live.trade(1, {}, {"A": 1.0, "B": 2.0})
    assert live.venue.created == {}


def test_a_second_process_that_trades_the_account_is_told_to_try_again(
    ledger_place: Path | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = Account(ledger_place, RULES)
    account.trade(0)
    monkeypatch.setattr(ledger_module, "BUSY_SECONDS", 0 if account.ledger.path else 0.05)
    refused = pytest.raises(TemporaryError, match="another process is trading the account paper; try again")
    other = Ledger(account.ledger.path or account.ledger.name)
    with other.sole("trading-paper") as free, refused:
        assert free
        account.trade(1)
    with other.sole("trading-another"):
        assert account.trade(1).state == "traded"
