"""The ledger as a database: what it keeps exactly, what its constraints refuse, and who waits for whom."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
import sqlalchemy as sa

from breakout_assets.errors import DataError, TemporaryError
from breakout_assets.trading import ledger as ledger_module
from breakout_assets.trading.adjustments import Adjustment
from breakout_assets.trading.books import Books, HourRecord, Switch
from breakout_assets.trading.ledger import Attempt, Ledger
from breakout_assets.trading.mails import Mail
from breakout_assets.trading.orders import Execution, Order, Report
from breakout_assets_tests.trading.support import Account, at, dump

ENTRY = Order(
    order_id="o1",
    hour=at(0),
    token="A",
    side="buy",
    purpose="entry",
    quantity=Decimal("123456789012345678901234567890.12345678"),
    price=Decimal("0.000000000000000123456789"),
    limit=Decimal("0.00000000000000012345678900"),
    reason="because",
    position=None,
    model_hash="m",
    probability=0.625,
)
TRADE = Execution(trade_id="t1", price=Decimal("0.1"), quantity=Decimal("0.30000000"), fee=Decimal("1E-8"))
PART = Report(venue_id="v1", status="open", executions=(TRADE,))
WHOLE = Report(
    venue_id="v1",
    status="filled",
    executions=(replace(TRADE, trade_id="t2", fee_in_token=Decimal("0.0003")), TRADE),
    note="all of it",
)
RECORD = HourRecord(
    hour=at(0),
    health="ACTIVE",
    outcome="x",
    traded_at=at(0),
    equity=Decimal("1.10"),
    blocks="[]",
    rules="{}",
    limits="{}",
    inputs="{}",
    event=1,
)
MAIL = Mail(message_id="<1@x>", hour=at(0), recipients=("a@x", "b@x"), subject="s", text_body="t", html_body="<p>")


def began(ledger: Ledger) -> Ledger:
    with ledger.write("paper") as books:
        books.open_account(Decimal("10000.10"))
        books.submit(ENTRY, at(0))
    return ledger


@pytest.fixture
def ledger(ledger_place: Path | str) -> Ledger:
    return began(Account(ledger_place).ledger)


def again(ledger: Ledger) -> Ledger:
    """The same ledger, as another process would open it."""
    return Ledger(ledger.path or ledger.name)


def booked(ledger: Ledger, report: Report, hour: int = 1) -> bool:
    with ledger.write("paper") as books:
        return books.book(ENTRY, report, at(hour), at(hour))


def test_orders_fills_and_cash_come_back_exactly(ledger: Ledger) -> None:
    assert booked(ledger, PART)
    with ledger.read("paper") as books:
        assert books.orders(at(0)) == [ENTRY]
        assert books.order("o1") == ENTRY
        assert [str(order.limit) for order in books.orders(at(0))] == ["1.2345678900E-16"]  # with its last zeros
        [fill] = books.fills(at(1))
        assert Execution(**{name: getattr(fill, name) for name in Execution.__dataclass_fields__}) == TRADE
        assert (fill.order_id, fill.side, fill.hour) == ("o1", "buy", at(1))
        assert str(books.opening_cash()) == "10000.10"
        assert str(fill.quantity) == "0.30000000"


def test_an_execution_is_booked_once_however_often_it_is_told(ledger: Ledger) -> None:
    assert [booked(ledger, each, hour) for hour, each in enumerate((PART, PART, WHOLE, WHOLE, PART), 1)] == [
        True,
        False,
        True,
        False,
        False,
    ]
    with ledger.read("paper") as books:
        assert [(fill.trade_id, fill.hour) for fill in books.fills(at(9))] == [("t1", at(1)), ("t2", at(3))]
        steps = [(event.status, event.hour, event.reason) for event in books.events(order_id="o1")]
        assert {event.venue_id for event in books.events(order_id="o1")} == {None, "v1"}
    assert steps == [
        ("intent", at(0), "because"),
        ("executed", at(1), None),
        ("accepted", at(1), None),
        ("executed", at(3), "all of it"),
        ("filled", at(3), "all of it"),
    ]


def test_an_execution_of_an_ended_order_is_booked_and_the_order_stays_ended(ledger: Ledger) -> None:
    assert booked(ledger, Report(venue_id="v1", status="rejected"))
    assert booked(ledger, PART, 2)
    with ledger.read("paper") as books:
        assert books.status("o1") == "rejected"
        assert [fill.trade_id for fill in books.fills(at(2))] == ["t1"]


def test_an_order_that_is_being_cancelled_stays_so_while_the_venue_says_open(ledger: Ledger) -> None:
    with ledger.write("paper") as books:
        books.event("o1", "cancelling", at(1), at(1))
    assert not booked(ledger, Report(venue_id="v1", status="open"))
    with ledger.read("paper") as books:
        assert books.status("o1") == "cancelling"


def test_the_past_is_told_without_the_future(ledger: Ledger) -> None:
    booked(ledger, PART)
    booked(ledger, WHOLE, 2)
    with ledger.read("paper") as books:
        assert books.orders(at(-1)) == []
        assert books.fills(at(0)) == []
        assert [books.statuses(at(hour)) for hour in (-1, 0, 1, 2)] == [
            {},
            {"o1": "intent"},
            {"o1": "accepted"},
            {"o1": "filled"},
        ]
        assert books.portfolio(at(0), Decimal(1)).positions == ()
        [waiting] = books.portfolio(at(1), Decimal(1)).open_orders
        assert (waiting.order, waiting.status, waiting.filled) == (ENTRY, "accepted", TRADE.quantity)
        assert books.portfolio(at(2), Decimal(1)).open_orders == ()
        assert [position.token for position in books.portfolio(at(1), Decimal(1)).positions] == ["A"]


def test_a_decision_is_told_as_of_the_last_event_that_it_knew(ledger: Ledger) -> None:
    with ledger.read("paper") as books:
        knew = books.last_event()
    booked(ledger, PART, 0)
    with ledger.write("paper") as books:
        books.submit(replace(ENTRY, order_id="o2", token="B"), at(0))
        books.mark(at(0), {"A": Decimal(9)})
    with ledger.read("paper") as books:
        then, now = books.portfolio(at(0), Decimal(1), knew), books.portfolio(at(0), Decimal(1))
        assert books.last_event() > knew
    assert ([each.order.order_id for each in then.open_orders], then.positions) == (["o1"], ())
    assert [each.order.order_id for each in now.open_orders] == ["o1", "o2"]
    assert [position.mark.price for position in now.positions] == [9]


def test_accounts_do_not_see_each_other(ledger: Ledger) -> None:
    booked(ledger, PART)
    with ledger.write("other") as books:
        assert books.opening_cash() is None
        assert (books.orders(at(9)), books.fills(at(9)), books.statuses(at(9))) == ([], [], {})
        assert (books.events(), books.last_event(), books.order("o1")) == ([], 0, None)
        assert books.portfolio(at(9), Decimal(5)).cash == 5
        books.open_account(Decimal(7))
        books.mark(at(0), {"A": Decimal(3)})
        books.refuse(at(0), "A", "cash", "r")
        books.pull(Switch(action="halt", at=at(0), by="me", reason="r"))
        books.adjust(Adjustment(item="USD", amount=Decimal(1), at=at(0), by="me", reason="r"))
        books.close_hour(RECORD)
    with ledger.read("paper") as books:
        assert (books.newest_hour(), books.hour_before(at(9)), books.record(at(0))) == (None, None, None)
        assert (books.marks(["A"], at(9)), books.refused(at(0)), books.equities(at(9))) == ({}, [], [])
        assert (books.switches(), books.adjustments(at(0))) == ([], [])


def test_what_an_hour_rested_on_comes_back_as_it_was(ledger: Ledger) -> None:
    halt = Switch(action="halt", at=at(0) + timedelta(minutes=7, microseconds=3), by="me", reason="ä|;'\"")
    resume = replace(halt, action="resume", at=at(1))
    old = replace(RECORD, hour=at(2), equity=None, blocks=None, rules=None, limits=None, inputs=None, event=None)
    found = Adjustment(item="A", amount=Decimal("-0.00000001"), at=at(0), by="me", reason="r", hour=at(2))
    before = Adjustment(item="USD", amount=Decimal(1), at=at(0), by="me", reason="r")
    with ledger.write("paper") as books:
        books.close_hour(RECORD)
        books.close_hour(old)
        books.refuse(at(0), "B", "cash", "too little")
        books.refuse(at(0), "A", "held", "it is held")
        books.pull(halt)
        books.pull(resume)
        books.adjust(found)
        books.adjust(before)
    with again(ledger).read("paper") as books:
        assert (books.record(at(0)), books.record(at(1)), books.record(at(2))) == (RECORD, None, old)
        assert (books.newest_hour(), books.hour_before(at(2))) == (at(2), at(0))
        assert books.equities(at(2)) == [(at(0), Decimal("1.10"))]
        assert books.refused(at(0)) == [("A", "held", "it is held"), ("B", "cash", "too little")]
        assert books.switches() == [halt, resume]
        assert books.adjustments(at(2)) == [found, before]
        assert books.adjustments(at(1)) == [before]


def test_the_newest_mark_up_to_an_hour_counts(ledger: Ledger) -> None:
    with ledger.write("paper") as books:
        for hour, price in ((1, 10), (2, 20), (3, 30)):
            books.mark(at(hour), {"A": Decimal(price), "B": Decimal(1)})
        assert {token: (mark.price, mark.hour) for token, mark in books.marks(["A"], at(2)).items()} == {
            "A": (Decimal(20), at(2))
        }


def submit_again(books: Books) -> None:
    books.submit(replace(ENTRY, hour=at(5)), at(5))


def begin_again(books: Books) -> None:
    books.event("o1", "intent", at(1), at(1))


def fill_twice(books: Books) -> None:
    books.book(ENTRY, replace(PART, executions=(TRADE, TRADE)), at(1), at(1))


def end_twice(books: Books) -> None:
    for status in ("filled", "cancelled"):
        books.event("o1", status, at(1), at(1))


def tell_of_nothing(books: Books) -> None:
    books.event("unknown", "accepted", at(1), at(1))


def close_nothing(books: Books) -> None:
    books.submit(replace(ENTRY, order_id="o2", side="sell", purpose="exit", position="unknown"), at(0))


def open_again(books: Books) -> None:
    books.open_account(Decimal(5))


def trade_an_hour_twice(books: Books) -> None:
    books.close_hour(RECORD)
    books.close_hour(replace(RECORD, outcome="y"))


def trade_without_an_account(books: Books) -> None:
    Books(books.connection, "other").close_hour(RECORD)


def pull_something_else(books: Books) -> None:
    books.pull(Switch(action="pause", at=at(0), by="me", reason="r"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "act",
    [
        submit_again,
        begin_again,
        fill_twice,
        end_twice,
        tell_of_nothing,
        close_nothing,
        open_again,
        trade_an_hour_twice,
        trade_without_an_account,
        pull_something_else,
    ],
)
def test_the_database_itself_refuses_what_must_not_happen(ledger: Ledger, act: Callable[[Books], None]) -> None:
    before = dump(ledger)
    with pytest.raises(sa.exc.IntegrityError), ledger.write("paper") as books:
        act(books)
    assert dump(ledger) == before


def fail_after_a_fill(books: Books) -> None:
    books.book(ENTRY, WHOLE, at(1), at(1))
    raise ZeroDivisionError


def test_a_transaction_that_fails_leaves_nothing(ledger: Ledger) -> None:
    before = dump(ledger)
    with pytest.raises(ZeroDivisionError), ledger.write("paper") as books:
        fail_after_a_fill(books)
    assert dump(ledger) == before


def test_readers_read_one_moment_while_another_writes(ledger: Ledger) -> None:
    with ledger.read("paper") as reader:
        assert reader.fills(at(9)) == []
        booked(again(ledger), WHOLE)
        assert (reader.fills(at(9)), reader.status("o1")) == ([], "intent")
    with ledger.read("paper") as reader:
        assert len(reader.fills(at(9))) == 2


def test_the_file_is_durable(tmp_path: Path) -> None:
    with began(Ledger(tmp_path / "new folder?" / "ledger.sqlite")).write("paper") as books:
        pragmas = {
            name: books.connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "foreign_keys", "synchronous", "busy_timeout")
        }
    assert pragmas == {"journal_mode": "wal", "foreign_keys": 1, "synchronous": 2, "busy_timeout": 30_000}
    assert [path.name for path in (tmp_path / "new folder?").iterdir()] == ["ledger.sqlite"]


@pytest.fixture
def impatient(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    # PostgreSQL takes no time-out in parts of a millisecond, and 0 is none at all there.
    monkeypatch.setattr(ledger_module, "BUSY_SECONDS", 0 if ledger.path else 0.05)
    return ledger


def test_a_second_writer_is_told_to_try_again(impatient: Ledger) -> None:
    refused = pytest.raises(TemporaryError, match=r"the ledger .* has been in use by another process.*try again")
    with impatient.write("paper"), refused, again(impatient).write("paper"):
        pytest.fail("two writers at once")
    with again(impatient).write("paper") as books:
        assert books.status("o1") == "intent"


def test_only_one_process_does_what_must_be_done_alone(impatient: Ledger) -> None:
    with impatient.sole("mails") as first, again(impatient).sole("mails") as second:
        assert (first, second) == (True, False)
        with again(impatient).sole("trading-paper") as other, again(impatient).write("paper"):
            assert other  # neither other work nor the ledger itself waits for it
    with impatient.sole("mails") as third:
        assert third


def test_a_mail_is_sent_once_and_the_least_tried_first(ledger: Ledger) -> None:
    second = replace(MAIL, message_id="<2@x>")
    with ledger.write("paper") as books:
        books.post(MAIL)
        books.post_once(second)
        books.post_once(replace(second, subject="never"))
    assert ledger.pending_mails() == [MAIL, second]
    nobody_has_it = Attempt(mail=MAIL, settled={})
    assert ledger.begin_attempt(MAIL.message_id) == nobody_has_it
    ledger.end_attempt(nobody_has_it, "down")
    assert ledger.pending_mails() == [second, MAIL]
    assert ledger.begin_attempt(MAIL.message_id) == nobody_has_it
    ledger.end_attempt(replace(nobody_has_it, settled={"a@x": 250, "b@x": 250}), None)
    assert ledger.begin_attempt(MAIL.message_id) is None
    assert ledger.pending_mails() == [second]


def test_a_mail_waits_for_its_last_recipient_and_stays_as_it_was(ledger: Ledger) -> None:
    with ledger.write("paper") as books:
        books.post(MAIL)
    taken = ledger.begin_attempt(MAIL.message_id)
    assert taken is not None
    ledger.end_attempt(replace(taken, settled={"b@x": 550}), "not for b")
    assert ledger.pending_mails() == [MAIL]
    again = ledger.begin_attempt(MAIL.message_id)
    assert again == Attempt(mail=MAIL, settled={"b@x": 550})
    assert again.waiting == ["a@x"]


def test_the_mail_of_an_hour_is_rewritten_until_somebody_may_have_it(ledger: Ledger) -> None:
    def post(subject: str) -> None:
        with ledger.write("paper") as books:
            books.post_hour(lambda part: replace(MAIL, message_id=f"<{part}@x>", subject=f"{subject} {part}"))

    post("first")
    post("second")
    assert [mail.subject for mail in ledger.pending_mails()] == ["second 1"]
    ledger.begin_attempt("<1@x>")  # and then the process is killed: it may have been sent
    post("third")
    post("fourth")
    assert sorted(mail.subject for mail in ledger.pending_mails()) == ["fourth 2", "second 1"]


def test_a_lock_that_cannot_be_opened_is_told_in_a_sentence_and_not_as_busy(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    (tmp_path / "ledger.sqlite.trading-live").mkdir()
    with (
        pytest.raises(DataError, match=r"cannot be used \(unable to open database file\); check"),
        ledger.sole("trading-live"),
    ):
        pytest.fail("it has no lock")
