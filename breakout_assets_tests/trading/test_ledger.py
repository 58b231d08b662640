"""The ledger as a file: what it keeps exactly, what its constraints refuse, and what it says when it cannot be used."""

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
import sqlalchemy as sa

from breakout_assets.errors import DataError, TemporaryError
from breakout_assets.trading import ledger as ledger_module
from breakout_assets.trading.ledger import Books, Ledger
from breakout_assets.trading.portfolio import Cancellation, Fill, Order
from breakout_assets_tests.trading.support import at, dump

ENTRY = Order(
    order_id="o1",
    hour=at(0),
    token="A",
    side="buy",
    purpose="entry",
    quantity=Decimal("123456789012345678901234567890.12345678"),
    price=Decimal("0.000000000000000123456789"),
    reason="because",
    position=None,
    model_hash="m",
    probability=0.625,
)
FILL = Fill(
    order_id="o1", side="buy", hour=at(1), price=Decimal("0.1"), quantity=Decimal("0.30000000"), fee=Decimal("1E-8")
)
END = Cancellation(order_id="o1", hour=at(1), reason="over")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path / "new folder?" / "ledger.sqlite")
    with ledger.write("paper") as books:
        books.open_account(Decimal("10000.10"))
        books.submit(ENTRY)
    return ledger


def test_nothing_is_touched_before_the_first_use(tmp_path: Path) -> None:
    Ledger(tmp_path / "folder" / "ledger.sqlite")
    assert list(tmp_path.iterdir()) == []


def test_orders_fills_and_cash_come_back_exactly(ledger: Ledger) -> None:
    with ledger.write("paper") as books:
        books.fill(FILL)
    with ledger.read("paper") as books:
        assert books.orders(at(0)) == [ENTRY]
        assert books.fills(at(1)) == {"o1": FILL}
        assert str(books.opening_cash()) == "10000.10"
        assert str(books.fills(at(1))["o1"].quantity) == "0.30000000"
    assert list(ledger.path.parent.iterdir()) == [ledger.path]


def test_the_past_is_told_without_the_future(ledger: Ledger) -> None:
    with ledger.write("paper") as books:
        books.fill(FILL)
    with ledger.read("paper") as books:
        assert books.orders(at(-1)) == []
        assert books.fills(at(0)) == {}
        assert [order.order_id for order in books.portfolio(at(0), Decimal(1)).open_orders] == ["o1"]
        assert [position.token for position in books.portfolio(at(1), Decimal(1)).positions] == ["A"]


def test_accounts_do_not_see_each_other(ledger: Ledger) -> None:
    with ledger.write("other") as books:
        assert books.opening_cash() is None
        assert books.orders(at(9)) == []
        assert books.portfolio(at(9), Decimal(5)).cash == 5
        books.open_account(Decimal(7))
        books.mark(at(0), {"A": Decimal(3)})
        books.close_hour(at(0), "ACTIVE", "x", at(0))
    with ledger.read("paper") as books:
        assert books.newest_hour() is None
        assert books.outcome(at(0)) is None
        assert books.marks(["A"], at(9)) == {}


def test_the_newest_mark_up_to_an_hour_counts(ledger: Ledger) -> None:
    with ledger.write("paper") as books:
        for hour, price in ((1, 10), (2, 20), (3, 30)):
            books.mark(at(hour), {"A": Decimal(price), "B": Decimal(1)})
        assert {token: (mark.price, mark.hour) for token, mark in books.marks(["A"], at(2)).items()} == {
            "A": (Decimal(20), at(2))
        }


def submit_again(books: Books) -> None:
    books.submit(replace(ENTRY, hour=at(5)))


def fill_twice(books: Books) -> None:
    books.fill(FILL)
    books.fill(replace(FILL, hour=at(2)))


def fill_and_cancel(books: Books) -> None:
    books.fill(FILL)
    books.cancel(END)


def fill_nothing(books: Books) -> None:
    books.fill(replace(FILL, order_id="unknown"))


def close_nothing(books: Books) -> None:
    books.submit(replace(ENTRY, order_id="o2", side="sell", purpose="exit", position="unknown"))


def trade_an_hour_twice(books: Books) -> None:
    books.close_hour(at(0), "ACTIVE", "x", at(0))
    books.close_hour(at(0), "ACTIVE", "y", at(0))


@pytest.mark.parametrize(
    "act", [submit_again, fill_twice, fill_and_cancel, fill_nothing, close_nothing, trade_an_hour_twice]
)
def test_the_database_itself_refuses_what_must_not_happen(ledger: Ledger, act: Callable[[Books], None]) -> None:
    before = dump(ledger)
    with pytest.raises(sa.exc.IntegrityError), ledger.write("paper") as books:
        act(books)
    assert dump(ledger) == before


def fail_after_a_fill(books: Books) -> None:
    books.fill(FILL)
    raise ZeroDivisionError


def test_a_transaction_that_fails_leaves_nothing(ledger: Ledger) -> None:
    before = dump(ledger)
    with pytest.raises(ZeroDivisionError), ledger.write("paper") as books:
        fail_after_a_fill(books)
    assert dump(ledger) == before


def test_the_file_is_durable_and_lets_readers_read_while_one_writes(ledger: Ledger) -> None:
    with ledger.write("paper") as books, ledger.read("paper") as reader:
        books.fill(FILL)
        assert reader.fills(at(9)) == {}
        pragmas = {
            name: books.connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "foreign_keys", "synchronous", "busy_timeout")
        }
    assert pragmas == {"journal_mode": "wal", "foreign_keys": 1, "synchronous": 2, "busy_timeout": 30_000}


def test_a_second_writer_is_told_to_try_again(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "BUSY_SECONDS", 0)
    refused = pytest.raises(TemporaryError, match=r"ledger\.sqlite has been in use by another process.*try again")
    with ledger.write("paper"), refused, Ledger(ledger.path).write("paper"):
        pytest.fail("two writers at once")


def test_a_second_sender_of_mails_steps_back(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "BUSY_SECONDS", 0)
    with ledger.sole_delivery() as first, Ledger(ledger.path).sole_delivery() as second:
        assert (first, second) == (True, False)
    with ledger.sole_delivery() as third:
        assert third


def test_a_foreign_file_is_refused_by_name_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("this is not a ledger" * 100)
    with pytest.raises(DataError, match=r"notes\.txt cannot be used \(file is not a database\); check BREAKOUT_LEDGER"):
        Ledger(path).pending_mails()
    assert path.read_text() == "this is not a ledger" * 100


def test_a_place_that_cannot_hold_a_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file/ledger\.sqlite cannot be used"):
        Ledger(tmp_path / "file" / "ledger.sqlite").pending_mails()
    with pytest.raises(DataError, match="cannot be used"):
        Ledger(tmp_path).pending_mails()


def test_an_empty_file_becomes_a_ledger(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    sqlite3.connect(path).close()
    assert Ledger(path).pending_mails() == []
