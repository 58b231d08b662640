"""Where a ledger can lie, and what it says of places, passwords and servers that are wrong."""

import sqlite3
from decimal import Decimal
from pathlib import Path

import pytest

from breakout_assets.errors import DataError, SettingsError, TemporaryError
from breakout_assets.trading.ledger import Ledger
from breakout_assets_tests.postgresserver import PostgresServer
from breakout_assets_tests.s3server import free_ports
from breakout_assets_tests.trading.support import at, dump


def began(ledger: Ledger) -> Ledger:
    with ledger.write("paper") as books:
        books.open_account(Decimal(10_000))
    return ledger


def test_nothing_is_touched_before_the_first_use(tmp_path: Path) -> None:
    Ledger(tmp_path / "folder" / "ledger.sqlite")
    assert list(tmp_path.iterdir()) == []


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


def test_a_password_in_the_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(SettingsError, match="BREAKOUT_LEDGER_PASSWORD") as refused:
        Ledger("postgresql://me:hunter2@127.0.0.1/x")
    assert "hunter2" not in str(refused.value)


def test_the_password_is_asked_for_at_each_connection_and_shown_nowhere(postgres_server: PostgresServer) -> None:
    asked = []

    def password() -> str:
        asked.append(1)
        return postgres_server.password

    with postgres_server.database() as url:
        ledger = began(Ledger(url, password))
        assert len(asked) > 1
        assert postgres_server.password not in f"{ledger.name} {ledger.engine!r} {ledger.engine.url!r}"
        with pytest.raises(DataError, match=r"cannot be used \(.*password.*BREAKOUT_LEDGER_PASSWORD") as refused:
            Ledger(url, lambda: "hunter2").pending_mails()
        assert "hunter2" not in str(refused.value)


def test_a_database_that_is_not_there_is_refused_by_name(postgres_server: PostgresServer) -> None:
    with pytest.raises(DataError, match=r"no_such_database cannot be used .*check BREAKOUT_LEDGER, server"):
        Ledger(postgres_server.url("no_such_database"), lambda: postgres_server.password).pending_mails()


def test_a_server_that_does_not_answer_now_is_an_error_to_try_again_after() -> None:
    ledger = Ledger(f"postgresql://me@127.0.0.1:{free_ports(1)[0]}/x")
    with pytest.raises(TemporaryError, match="try again"):
        ledger.pending_mails()


def test_a_connection_that_breaks_off_is_an_error_to_try_again_after(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    ledger = began(Ledger(postgres_url))
    before = dump(ledger)
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"

    def break_off() -> None:
        with ledger.write("paper") as books:
            books.mark(at(1), {"A": Decimal(1)})
            with postgres_server.connect() as admin:
                admin.execute(cut, [postgres_url.rsplit("/", 1)[1]])
            books.newest_hour()

    with pytest.raises(TemporaryError, match="cannot be reached now; try again"):
        break_off()
    assert dump(ledger) == before
