"""The life of an order at a venue whose answers may be wrong, late or missing."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from breakout_assets.errors import DataError, TemporaryError
from breakout_assets.trading import ledger as ledger_module
from breakout_assets.trading.books import HourRecord
from breakout_assets.trading.desk import MOST_SENDS, WATCH, Desk
from breakout_assets.trading.ledger import Ledger
from breakout_assets.trading.orders import Answer, Balances, NotSent, Order, Report
from breakout_assets.trading.switches import halt
from breakout_assets_tests.trading.faultyvenue import FaultyVenue, Kept, Killed, Time
from breakout_assets_tests.trading.support import MAIL, RULES, at

ORDER = Order(
    order_id="a" * 32,
    hour=at(0),
    token="A",
    side="buy",
    purpose="entry",
    quantity=Decimal(10),
    price=Decimal(2),
    limit=Decimal("2.1"),
    reason="probability 0.8",
    position=None,
    model_hash=None,
    probability=0.8,
)


@dataclass
class Venue(FaultyVenue):
    """Counts what it is asked, and can fail to be read."""

    looked_up: list[datetime] = field(default_factory=list)
    placed: list[datetime] = field(default_factory=list)
    looked_up_before: list[int] = field(default_factory=list)
    """Look-ups before each placing."""
    unreadable: type[Exception] | None = None
    """From the first placing on."""
    down: bool = False
    asked_for_balances: int = 0
    odd: set[str] = field(default_factory=set)
    """The only orders that cannot be read then; if empty, all."""
    nowhere: bool = False
    """Every order is lost on its way."""

    def place(self, order: Order) -> Answer:
        self.placed.append(self.time.now)
        self.looked_up_before.append(len(self.looked_up))
        if self.nowhere:
            raise TimeoutError("no answer in time")
        return super().place(order)

    def look_up(self, order: Order) -> Report | None:
        self.looked_up.append(self.time.now)
        if self.unreadable and self.placed and (not self.odd or order.order_id in self.odd):
            raise self.unreadable("the venue cannot be read")
        return super().look_up(order)

    def balances(self) -> Balances:
        self.asked_for_balances += 1
        if self.down:
            raise TemporaryError("the venue is down")
        return super().balances()


class Room:
    """A ledger with one order that waits to be sent, and the venue."""

    def __init__(self, folder: Path, **modes: object) -> None:
        self.time = Time(at(0) + timedelta(minutes=5))
        self.venue = Venue(self.time, **({"fill_mode": "never"} | modes))  # type: ignore[arg-type]
        self.ledger = Ledger(folder / "ledger.sqlite")
        with self.ledger.write("live") as books:
            books.open_account(Decimal(10_000))
            books.submit(ORDER, at(0))

    def desk(self, hour: int = 0, wait: Callable[[float], None] | None = None) -> Desk:
        now = lambda: self.time.now  # noqa: E731
        return Desk(self.ledger, "live", self.venue, RULES, at(hour), now, wait or self.time.wait, MAIL)

    def steps(self) -> list[str]:
        with self.ledger.read("live") as books:
            return [event.status for event in books.events(order_id=ORDER.order_id)]

    def reasons(self) -> list[str | None]:
        with self.ledger.read("live") as books:
            return [event.reason for event in books.events(order_id=ORDER.order_id)]

    def fills(self) -> list[Decimal]:
        with self.ledger.read("live") as books:
            return [fill.quantity for fill in books.fills(at(99))]


FOUND = ["intent", "sending", "unknown", "accepted"]


def send_waiting(desk: Desk) -> None:
    assert desk.send(desk.waiting()) == []


@pytest.mark.parametrize(
    ("answer", "steps", "created"),
    [
        ("ok", ["intent", "sending", "accepted"], 1),
        ("rejected", ["intent", "sending", "rejected"], 0),
        ("refused_but_done", ["intent", "sending", "accepted"], 1),
        ("duplicate", FOUND, 1),
        ("timeout_done", FOUND, 1),
        ("late", [*FOUND[:3], "missed", "missed", "accepted"], 1),
        ("timeout_not_done", [*FOUND[:3], *["missed"] * 4, "absent", "sending", "accepted"], 1),
    ],
)
def test_each_answer_leads_to_its_steps(tmp_path: Path, answer: str, steps: list[str], created: int) -> None:
    room = Room(tmp_path, place_mode=answer)
    room.desk().send([ORDER])
    assert room.steps() == steps
    assert sum(room.venue.created.values()) == created
    room.desk(1).follow()
    assert room.steps() == steps


@pytest.mark.parametrize(("fills", "quantities", "last"), [("at_once", [10], "filled"), ("half", [5], "accepted")])
def test_what_is_executed_at_once_is_booked_at_the_first_look(
    tmp_path: Path, fills: str, quantities: list[int], last: str
) -> None:
    room = Room(tmp_path, fill_mode=fills)
    desk = room.desk()
    desk.send([ORDER])
    assert room.fills() == []
    desk.follow()
    desk.follow()
    assert room.fills() == quantities
    with room.ledger.read("live") as books:
        assert books.status(ORDER.order_id) == last
        assert books.portfolio(at(0), Decimal(1)).units["A"] == quantities[0] * Decimal("0.999")


def test_an_order_is_sent_once_however_often_it_is_asked(tmp_path: Path) -> None:
    room = Room(tmp_path)
    for _ in range(3):
        room.desk().send([ORDER])
        send_waiting(room.desk())
    assert len(room.venue.placed) == 1


def test_sending_is_recorded_before_anything_leaves(tmp_path: Path) -> None:
    room = Room(tmp_path)
    seen = []
    room.venue.place = lambda order: seen.append(room.steps()) or FaultyVenue.place(room.venue, order)  # type: ignore[method-assign, func-returns-value]
    room.desk().send([ORDER])
    assert seen == [["intent", "sending"]]


def test_whatever_a_library_raises_proves_nothing_and_its_words_are_not_kept(tmp_path: Path) -> None:
    room = Room(tmp_path)
    calls = []

    def fail(order: Order) -> Answer:
        calls.append(order)
        FaultyVenue.place(room.venue, order)
        raise KeyError("apiKey=hunter2")

    room.venue.place = fail  # type: ignore[method-assign]
    room.desk().send([ORDER])
    assert (room.steps(), len(calls)) == (FOUND, 1)
    assert "KeyError while it was sent" in room.reasons()
    assert not any("hunter2" in str(reason) for reason in room.reasons())
    assert not any("hunter2" in mail.text_body + mail.html_body for mail in room.ledger.pending_mails())


def test_a_person_is_told_of_an_order_in_doubt_in_the_transaction_that_records_it(tmp_path: Path) -> None:
    room = Room(tmp_path, place_mode="timeout_done", unreadable=TemporaryError)
    assert [str(each) for each in room.desk().send([ORDER])] == ["the venue cannot be read"]
    [mail] = room.ledger.pending_mails()
    assert "1 in doubt" in mail.subject


# Absence ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [20, 40, 600])
def test_absence_is_proven_by_look_ups_and_by_time(tmp_path: Path, seconds: int) -> None:
    room = Room(tmp_path, nowhere=True)
    room.desk(wait=lambda asked: room.time.wait(seconds)).send([ORDER])
    first, second = room.venue.placed
    look_ups = room.venue.looked_up_before[1] - 2  # each placing has one of its own before it
    assert look_ups >= 3
    assert second - first >= timedelta(minutes=2)
    # And no longer than both need.
    assert look_ups == 3 or second - first < timedelta(minutes=2, seconds=seconds)


def test_an_order_that_never_arrives_is_sent_twice_at_most_and_then_ended(tmp_path: Path) -> None:
    room = Room(tmp_path, nowhere=True)
    room.desk().send([ORDER])
    room.desk(1).follow()
    assert len(room.venue.placed) == room.steps().count("sending") == MOST_SENDS
    assert room.steps()[-1] == "rejected"
    assert str(room.reasons()[-1]).startswith("it never arrived: 4 look-ups since 2024-03-01 00:07:00 did not find it")


def test_an_order_whose_hour_has_passed_is_not_sent_again(tmp_path: Path) -> None:
    room = Room(tmp_path, nowhere=True)
    room.time.now = at(0) + RULES.max_age - timedelta(minutes=1)
    room.desk(1).send([ORDER])
    assert (len(room.venue.placed), room.steps()[-1]) == (1, "rejected")


def test_look_ups_that_a_dead_process_made_count_and_those_before_a_second_sending_do_not(tmp_path: Path) -> None:
    room = Room(tmp_path, nowhere=True)

    def die(seconds: float) -> None:
        raise Killed

    for _ in range(2):  # each makes one look-up in vain
        with pytest.raises(Killed):
            (room.desk(wait=die).follow if room.venue.placed else lambda: room.desk(wait=die).send([ORDER]))()
    room.time.wait(121)
    room.desk(wait=die).follow()
    with pytest.raises(Killed):
        send_waiting(room.desk(wait=die))
    assert room.steps() == [*FOUND[:3], *["missed"] * 3, "absent", "sending", "unknown", "missed"]


def test_an_order_that_cannot_be_looked_up_stays_in_flight(tmp_path: Path) -> None:
    room = Room(tmp_path, place_mode="timeout_not_done", unreadable=TemporaryError)
    assert [str(each) for each in room.desk().send([ORDER])] == ["the venue cannot be read"]
    assert [str(each) for each in room.desk(1).follow()] == ["the venue cannot be read"]
    assert room.steps() == FOUND[:3]
    room.venue.unreadable = None
    room.desk(1).follow()
    assert (room.steps()[-1], len(room.venue.placed)) == ("absent", 1)
    send_waiting(room.desk(1))
    assert (room.steps()[-1], len(room.venue.placed)) == ("accepted", 2)


@pytest.mark.parametrize("error", [TemporaryError, DataError])
def test_a_refusal_that_cannot_be_looked_up_is_in_doubt(tmp_path: Path, error: type[Exception]) -> None:
    room = Room(tmp_path, place_mode="refused_but_done", unreadable=error)
    room.desk().send([ORDER])
    assert room.steps() == FOUND[:3]
    room.venue.unreadable = None
    room.desk().follow()
    assert (room.steps(), len(room.venue.placed)) == (FOUND, 1)


def test_an_order_is_looked_up_before_it_is_sent_and_once_more_when_it_is_refused(tmp_path: Path) -> None:
    room = Room(tmp_path, place_mode="rejected")
    room.desk().send([ORDER])
    assert (room.venue.looked_up_before, len(room.venue.looked_up)) == ([1], 2)
    assert room.reasons()[-1] == "the venue does not want it"


# Afterwards -------------------------------------------------------------------------------------------------------


def test_what_an_ended_order_executes_after_all_is_booked_and_told(tmp_path: Path) -> None:
    room = Room(tmp_path, nowhere=True)
    room.desk().send([ORDER])
    kept = room.venue.kept[ORDER.order_id] = Kept(ORDER)
    room.venue.execute(kept, Decimal(10))
    room.desk(1).follow()
    room.desk(1).follow()
    assert room.fills() == [10]
    with room.ledger.read("live") as books:
        assert books.status(ORDER.order_id) == "rejected"
        assert [position.token for position in books.portfolio(at(1), Decimal(1)).positions] == ["A"]
    assert [mail.hour for mail in room.ledger.pending_mails()] == [at(0), at(1)]


def test_an_absent_order_that_is_not_sent_again_is_watched_too(tmp_path: Path) -> None:
    room = Room(tmp_path, place_mode="timeout_not_done", unreadable=TemporaryError)
    assert [str(each) for each in room.desk().send([ORDER])] == ["the venue cannot be read"]
    room.venue.unreadable = None
    desk = room.desk(1)
    desk.follow()
    desk.send(desk.waiting(), ["halted"])
    assert room.steps()[-2:] == ["absent", "cancelled"]
    kept = room.venue.kept[ORDER.order_id] = Kept(ORDER)
    room.venue.execute(kept, Decimal(10))
    room.desk(2).follow()
    assert room.fills() == [10]


def test_an_absent_order_that_shows_up_is_not_sent_again(tmp_path: Path) -> None:
    room = Room(tmp_path, place_mode="timeout_not_done", unreadable=TemporaryError)
    assert [str(each) for each in room.desk().send([ORDER])] == ["the venue cannot be read"]
    room.venue.unreadable = None
    room.desk(1).follow()
    room.venue.kept[ORDER.order_id] = Kept(ORDER)
    room.desk(1).follow()
    assert room.steps()[-2:] == ["absent", "accepted"]
    assert room.desk(1).waiting() == []


def test_an_order_that_was_taken_for_refused_and_is_open_is_cancelled_at_the_venue(tmp_path: Path) -> None:
    room = Room(tmp_path, place_mode="refused_but_done")
    room.venue.hides = 1  # the look-up after the refusal does not find it yet
    room.desk().send([ORDER])
    assert room.steps()[-1] == "rejected"
    room.venue.execute(room.venue.kept[ORDER.order_id], Decimal(4))
    room.desk(1).follow()
    assert (room.venue.open_orders(), room.fills()) == ([], [Decimal(4)])


def test_a_doubted_order_is_watched_from_the_hour_that_was_traded_last(tmp_path: Path) -> None:
    room = Room(tmp_path, nowhere=True)
    room.desk().send([ORDER])
    with room.ledger.write("live") as books:
        books.close_hour(HourRecord(hour=at(0), health="ACTIVE", outcome="", traded_at=at(0)))
    kept = room.venue.kept[ORDER.order_id] = Kept(ORDER)
    room.venue.execute(kept, Decimal(10))
    room.time.now = at(0) + 3 * WATCH  # the machine was off
    room.desk(72).follow()
    assert room.fills() == [Decimal(10)]


@pytest.mark.parametrize(("late", "looks"), [(timedelta(0), 1), (timedelta(microseconds=1), 0)])
def test_an_order_that_was_taken_for_absent_is_watched_for_a_day(tmp_path: Path, late: timedelta, looks: int) -> None:
    room = Room(tmp_path, nowhere=True)
    room.desk().send([ORDER])
    room.venue.looked_up.clear()
    room.time.now += WATCH + late
    room.desk(24).follow()
    assert len(room.venue.looked_up) == looks


def test_an_order_that_ended_at_the_venue_is_not_asked_about_again(tmp_path: Path) -> None:
    room = Room(tmp_path, fill_mode="at_once")
    room.desk().send([ORDER])
    room.desk().follow()
    room.venue.looked_up.clear()
    room.desk(1).follow()
    assert room.venue.looked_up == []


def test_an_accepted_order_that_the_venue_no_longer_knows_is_told_and_stays_open(tmp_path: Path) -> None:
    room = Room(tmp_path)
    room.desk().send([ORDER])
    room.venue.kept.clear()
    [failure] = room.desk(1).follow()
    assert str(failure) == (
        f"the order to buy 10 A of 2024-03-01 00:00 ({ORDER.order_id}) was accepted, and the venue no longer knows it: "
        "1 look-ups since 2024-03-01 00:05:00 did not find it"
    )
    with room.ledger.read("live") as books:
        assert books.status(ORDER.order_id) == "accepted"


def missing(room: Room, hour: int) -> None:
    """An hour in which the venue does not find the order."""
    kept, room.venue.kept = room.venue.kept, {}
    room.time.now = at(hour) + timedelta(minutes=5)
    room.desk(hour).follow()
    room.desk(hour).end_forgotten(set())
    room.venue.kept = kept


def test_an_order_that_is_missed_for_two_hours_and_three_look_ups_is_forgotten(tmp_path: Path) -> None:
    room = Room(tmp_path)
    room.desk().send([ORDER])
    for hour, last in ((1, "missed"), (4, "missed"), (5, "cancelled")):
        missing(room, hour)
        assert room.steps()[-1] == last
    room = Room(tmp_path / "late")
    room.desk().send([ORDER])
    for _ in range(4):  # look-ups of a few minutes prove nothing
        missing(room, 1)
    assert room.steps()[-1] == "missed"


def test_an_order_that_the_venue_shows_again_was_not_forgotten(tmp_path: Path) -> None:
    room = Room(tmp_path)
    room.desk().send([ORDER])
    missing(room, 1)
    missing(room, 2)
    room.desk(3).follow()
    room.desk(3).follow()
    assert room.steps()[-2:] == ["missed", "seen"]  # noted once
    missing(room, 4)
    missing(room, 5)
    assert room.steps()[-1] == "missed"


# One order and the others -----------------------------------------------------------------------------------------


def others(room: Room, count: int) -> list[Order]:
    orders = [replace(ORDER, order_id=f"{number:032x}", token=f"T{number}") for number in range(count)]
    with room.ledger.write("live") as books:
        for order in orders:
            books.submit(order, at(0))
    return orders


@pytest.mark.parametrize("failure", [TemporaryError, DataError])
def test_an_order_that_cannot_be_read_holds_up_no_other(tmp_path: Path, failure: type[Exception]) -> None:
    room = Room(tmp_path)
    orders = [*others(room, 3), ORDER]
    room.desk().send(orders)
    room.venue.odd, room.venue.unreadable = {orders[1].order_id}, failure
    assert len(room.desk().follow()) == 1
    assert len(room.desk().cancel([(order, "r") for order in orders])) == 1
    with room.ledger.read("live") as books:
        ends = [books.status(order.order_id) for order in orders]
    assert ends == ["cancelled", "cancelling", "cancelled", "cancelled"]


def test_a_venue_that_answers_nothing_is_not_asked_about_every_order(tmp_path: Path) -> None:
    room = Room(tmp_path)
    orders = others(room, 9)
    room.desk().send(orders)
    room.venue.unreadable, room.venue.down = TemporaryError, True
    room.venue.looked_up.clear()
    with pytest.raises(TemporaryError, match="the venue is down"):
        room.desk(1).follow()
    assert len(room.venue.looked_up) == 3


def test_several_orders_that_cannot_be_read_do_not_make_the_venue_down(tmp_path: Path) -> None:
    room = Room(tmp_path)
    orders = others(room, 7)
    room.desk().send(orders)
    room.venue.odd, room.venue.unreadable = {order.order_id for order in orders[:6]}, TemporaryError
    assert len(room.desk(1).follow()) == 6
    assert room.venue.asked_for_balances == 2


def test_orders_that_cannot_be_read_between_others_do_not_make_the_venue_down(tmp_path: Path) -> None:
    room = Room(tmp_path)
    orders = others(room, 7)
    room.desk().send(orders)
    room.venue.odd, room.venue.unreadable = {order.order_id for order in orders[::2]}, TemporaryError
    assert len(room.desk(1).follow()) == 4
    assert room.venue.asked_for_balances == 0


def test_an_order_that_the_venue_lists_was_not_forgotten(tmp_path: Path) -> None:
    room = Room(tmp_path)
    room.desk().send([ORDER])
    listed = {order.order_id for order in room.venue.open_orders() if order.order_id}
    for hour in (1, 3, 5, 7):
        kept, room.venue.kept = room.venue.kept, {}
        room.time.now = at(hour)
        room.desk(hour).follow()
        room.desk(hour).end_forgotten(listed)
        room.venue.kept = kept
    assert room.steps()[-1] == "missed"


def test_orders_in_doubt_are_waited_for_together(tmp_path: Path) -> None:
    room = Room(tmp_path, nowhere=True)
    room.desk().send(others(room, 9))
    assert room.time.now - at(0) < timedelta(minutes=15)  # two sendings of two minutes each; one by one it were 36


def test_the_address_of_the_newest_sending_counts(tmp_path: Path) -> None:
    room = Room(tmp_path, nowhere=True)
    look_up = room.venue.look_up

    def moved(order: Order) -> Report | None:
        if room.steps()[-1] == "absent":
            room.venue.market = "another market"
        return look_up(order)

    room.venue.look_up = moved  # type: ignore[method-assign]
    assert room.desk().send([ORDER]) == []
    assert room.steps()[-1] == "rejected"


# Why an order is not sent -----------------------------------------------------------------------------------------


def test_an_order_that_is_at_the_venue_already_is_booked_and_not_sent(tmp_path: Path) -> None:
    room = Room(tmp_path)
    kept = room.venue.kept[ORDER.order_id] = Kept(ORDER)
    room.venue.execute(kept, Decimal(4))
    room.desk().send([ORDER])
    assert room.steps() == ["intent", "executed", "accepted"]
    assert (room.fills(), len(room.venue.placed)) == ([Decimal(4)], 0)


def test_an_order_that_cannot_be_looked_up_is_not_sent(tmp_path: Path) -> None:
    room = Room(tmp_path)
    room.venue.odd, room.venue.unreadable = {ORDER.order_id}, TemporaryError
    room.venue.placed.append(at(0))  # so that it counts
    room.desk().send([ORDER])
    assert room.steps() == ["intent"]


def test_what_is_too_old_to_be_sent_ends_although_it_cannot_be_looked_up(tmp_path: Path) -> None:
    room = Room(tmp_path)
    room.venue.unreadable = DataError
    room.venue.placed.append(at(0))  # so that it counts
    room.time.now = at(0) + RULES.max_age + timedelta(seconds=1)
    assert room.desk(2).send(room.desk(2).waiting()) == []
    assert room.steps() == ["intent", "cancelled"]


def test_what_surely_was_not_sent_is_over_without_another_look(tmp_path: Path) -> None:
    room = Room(tmp_path)
    room.venue.place = lambda order: NotSent("the market has no such step")  # type: ignore[method-assign]
    room.desk().send([ORDER])
    assert (room.steps(), len(room.venue.looked_up)) == (["intent", "sending", "cancelled"], 1)
    assert room.reasons()[-1] == "the market has no such step"
    room.desk(1).follow()
    assert len(room.venue.looked_up) == 1


@pytest.mark.parametrize("purpose", ["entry", "exit"])
def test_a_halt_during_the_sending_of_an_hour_counts_from_the_next_purchase_on(tmp_path: Path, purpose: str) -> None:
    room = Room(tmp_path)
    orders = others(room, 3)
    if purpose == "exit":
        with room.ledger.write("live") as books:
            orders = [replace(each, order_id=f"e{each.order_id[1:]}", purpose="exit", side="sell") for each in orders]
            for order in orders:
                books.submit(order, at(0))

    def halting(order: Order) -> Answer:
        if len(room.venue.placed) == 1:
            halt(room.ledger, "live", "me", "stop", room.time.now)
        return Venue.place(room.venue, order)

    room.venue.place = halting  # type: ignore[method-assign]
    room.desk().send(orders)
    assert len(room.venue.placed) == (2 if purpose == "entry" else 3)
    with room.ledger.read("live") as books:
        last = books.events(order_id=orders[-1].order_id)[-1]
    assert (last.status, last.reason) == (
        ("cancelled", "not sent: halted by me at 2024-03-01 00:05 UTC: stop")
        if purpose == "entry"
        else ("accepted", None)
    )


def test_an_hour_that_gets_too_old_while_its_orders_are_sent_sends_no_more(tmp_path: Path) -> None:
    room = Room(tmp_path)

    def slow(order: Order) -> Answer:
        room.time.wait(3600)
        return Venue.place(room.venue, order)

    room.venue.place = slow  # type: ignore[method-assign]
    room.desk().send(others(room, 4))
    assert len(room.venue.placed) == 2  # at 00:05 and at 01:05; 02:05 is beyond the age of two hours


def test_an_order_that_was_sent_elsewhere_is_not_taken_for_absent(tmp_path: Path) -> None:
    room = Room(tmp_path, place_mode="timeout_done", unreadable=TemporaryError)
    room.desk().send([ORDER])
    room.venue.unreadable = None
    kept, room.venue.kept = room.venue.kept, {}
    room.venue.market = "another market"
    for _ in range(5):
        [failure] = room.desk().follow()
        room.time.wait(60)
    assert str(failure) == (
        f"the order to buy 10 A of 2024-03-01 00:00 ({ORDER.order_id}) was sent to a market and is not found at "
        "another market: restore the pair or the key until it has ended"
    )
    assert room.steps() == FOUND[:3]
    room.venue.kept = kept
    room.desk().follow()  # where it is found, it is
    assert room.steps() == FOUND


@pytest.mark.parametrize(
    ("answer", "fails", "steps"),
    [
        ("ok", False, ["cancelling", "cancelled"]),
        ("too_late", False, ["cancelling", "executed", "filled"]),
        ("timeout_done", True, ["cancelling", "cancelled"]),
        ("timeout_not_done", True, ["cancelling", "cancelled"]),
    ],
)
def test_a_cancellation_ends_as_the_venue_says(tmp_path: Path, answer: str, fails: bool, steps: list[str]) -> None:
    room = Room(tmp_path, cancel_mode=answer)
    room.desk().send([ORDER])
    if fails:
        [failure] = room.desk(6).cancel([(ORDER, "too old")])
        assert isinstance(failure, TemporaryError)
        assert room.steps()[3:] == ["cancelling"]
        room.desk(7).follow()
        room.desk(7).cancel([(ORDER, "asked again")])
    else:
        assert room.desk(6).cancel([(ORDER, "too old")]) == []
    assert room.steps()[3:] == steps
    assert room.reasons()[3] == "too old"


def test_no_call_to_the_venue_is_made_inside_a_transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "BUSY_SECONDS", 0)
    asked: list[str] = []

    def free(name: str) -> None:
        with Ledger(room.ledger.path or "").write("live"):  # would be refused while another one writes
            asked.append(name)

    class Watched(Venue):
        def place(self, order: Order) -> Answer:
            free("place")
            return super().place(order)

        def look_up(self, order: Order) -> Report | None:
            free("look_up")
            return super().look_up(order)

        def cancel(self, order: Order) -> None:
            free("cancel")
            super().cancel(order)

    room = Room(tmp_path)
    room.venue = Watched(room.time, place_mode="timeout_not_done", fill_mode="never")
    send_waiting(room.desk())
    room.desk().follow()
    room.desk().cancel([(ORDER, "r")])
    assert set(asked) == {"place", "look_up", "cancel"}
    assert room.steps()[-1] == "cancelled"


def test_what_waits_is_sent_up_to_the_age_limit_and_cancelled_beyond_it(tmp_path: Path) -> None:
    for late, last in ((timedelta(0), "accepted"), (timedelta(microseconds=1), "cancelled")):
        room = Room(tmp_path / last)
        room.time.now = at(0) + RULES.max_age + late
        send_waiting(room.desk(2))
        assert room.steps()[-1] == last
        assert len(room.venue.placed) == (last == "accepted")


def test_orders_of_other_accounts_are_left_alone(tmp_path: Path) -> None:
    room = Room(tmp_path)
    other = replace(room.desk(), account="other")
    send_waiting(other)
    other.follow()
    assert room.steps() == ["intent"]
