"""Real processes: four that do the same hours at once, and one that is killed anywhere on its way."""

import multiprocessing
import os
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from aiosmtpd.smtp import SMTP
from sqlalchemy import event

from breakout_assets.trading.schema import REVISION
from breakout_assets_tests.postgresserver import PostgresServer
from breakout_assets_tests.trading.mailserver import Inbox, serving
from breakout_assets_tests.trading.oldledger import make_old_ledger
from breakout_assets_tests.trading.processes import (
    Place,
    account_at,
    deliver_until_killed,
    finish,
    prepare,
    race,
    race_to_deliver,
    race_to_open,
    trade,
    trade_until,
)
from breakout_assets_tests.trading.support import MAIL, dump

ROUNDS, MANY_ROUNDS = 2, 100
SAMPLE = 2  # kills on PostgreSQL; on SQLite there is one for every statement
PATIENCE = 120  # seconds to wait for a child before the test fails rather than hangs
# Each process was retrained meanwhile: it wants other tokens, with other probabilities.
WANTED = ({"A": 0.9, "C": 0.8}, {"C": 0.95, "D": 0.7, "E": 0.65}, {"E": 0.9}, {"A": 0.7, "C": 0.7, "D": 0.7, "E": 0.7})


@pytest.fixture(scope="module")
def context() -> ForkServerContext:
    """Children start from a server that has imported everything already: tens of milliseconds instead of seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["breakout_assets_tests.trading.processes"])
    return context


@pytest.fixture
def children() -> Iterator[list[Any]]:
    started: list[Any] = []
    yield started
    for child in started:
        child.kill()
        child.join()


def password() -> str:
    return os.environ.get("PGPASSWORD", "")


def answer(connection: Any) -> Any:
    assert connection.poll(PATIENCE), "the child process said nothing"
    return connection.recv()


def begin(context: ForkServerContext, children: list[Any], target: Callable[..., None], *arguments: Any) -> Any:
    """The end of a pipe through which a new child answers; the other end is its last argument."""
    receiver, sender = context.Pipe(duplex=False)
    children.append(context.Process(target=target, args=(*arguments, sender)))
    children[-1].start()
    sender.close()
    return receiver


@pytest.mark.parametrize("rounds", [ROUNDS, pytest.param(MANY_ROUNDS, marks=[pytest.mark.slow, pytest.mark.long])])
def test_four_processes_trading_the_same_hours_leave_one_set_of_orders(
    ledger_places: Callable[[], Place], context: ForkServerContext, children: list[Any], rounds: int
) -> None:
    places = [ledger_places() for _ in range(rounds)]
    barrier = context.Barrier(len(WANTED))
    pipes = [begin(context, children, race, places, password(), buys, barrier) for buys in WANTED]
    for place in places:
        told = [answer(pipe) for pipe in pipes]
        for first, second in told[1:]:
            pd.testing.assert_frame_equal(first, told[0][0])
            pd.testing.assert_frame_equal(second, told[0][1])
        tables = dump(account_at(place).ledger)
        rows = [dict(zip(("id", "account", "hour", "token"), row, strict=False)) for row in tables["orders"]]
        by_hour = [sorted(row["token"] for row in rows if row["hour"] == hour) for hour in hours_of(tables)]
        assert by_hour[0] in [sorted(buys) for buys in WANTED]
        # The second hour buys what one process wants and the first hour has not bought.
        assert by_hour[1] in [sorted(set(buys) - set(by_hour[0])) for buys in WANTED]
        states = [row[2] for row in tables["order_events"]]
        counted = {state: states.count(state) for state in ("intent", "sending", "accepted", "filled")}
        assert counted == {
            "intent": len(rows),
            "sending": len(rows),
            "accepted": len(rows),
            "filled": len(by_hour[0]),
        }
        assert len(tables["fills"]) == len(tables["paper_executions"]) == len(by_hour[0])
        assert len(tables["paper_orders"]) == len(rows)
        assert (len(tables["hours"]), len(tables["accounts"]), len(tables["mails"])) == (2, 1, 2)


def hours_of(tables: dict[str, list[tuple[Any, ...]]]) -> list[Any]:
    return sorted(row[1] for row in tables["hours"])


def test_four_processes_that_open_a_new_ledger_at_once_make_one(
    ledger_places: Callable[[], Place], context: ForkServerContext, children: list[Any]
) -> None:
    places = [ledger_places() for _ in range(ROUNDS)]
    barrier = context.Barrier(4)
    pipes = [begin(context, children, race_to_open, places, password(), barrier) for _ in range(4)]
    for place in places:
        assert [answer(pipe) for pipe in pipes] == ["None"] * 4
        assert [row for rows in dump(account_at(place).ledger).values() for row in rows] == [(REVISION,)]


def test_four_processes_that_open_an_old_ledger_at_once_bring_it_to_the_newest_schema_once(
    tmp_path: Path, context: ForkServerContext, children: list[Any]
) -> None:
    places: list[Place] = [tmp_path / str(number) for number in range(3)]
    for place in places:
        make_old_ledger(place)
    barrier = context.Barrier(4)
    pipes = [begin(context, children, race_to_open, places, "", barrier) for _ in range(4)]
    for place in places:
        assert [answer(pipe) for pipe in pipes] == ["10000"] * 4
        assert len(dump(account_at(place).ledger)["orders"]) == 6


# Killed -----------------------------------------------------------------------------------------------------------


def end_state(tables: dict[str, list[tuple[Any, ...]]]) -> dict[str, list[tuple[Any, ...]]]:
    """Every row, without the numbers of events and without the sends that are proven to have reached nobody."""
    events = [row[1:] for row in tables["order_events"] if row[2] not in ("sending", "missed", "absent")]
    fills = [row[:2] + row[3:] for row in tables["fills"]]
    hours = [row[:-1] for row in tables["hours"]]
    return {
        **{name: sorted(rows, key=repr) for name, rows in tables.items()},
        "order_events": sorted(events, key=repr),
        "fills": fills,
        "hours": hours,
    }


def statements_of(place: Place) -> tuple[int, Any, dict[str, list[tuple[Any, ...]]]]:
    """How many statements of hour 120 write, what it tells, and the state that it leaves."""
    account, written = account_at(place), []
    account.ledger.pending_mails()

    def count(connection: Any, cursor: Any, text: str, *_: Any) -> None:
        written.extend([text] if text.startswith(("INSERT", "UPDATE", "DELETE")) else [])

    event.listen(account.ledger.engine, "after_cursor_execute", count)
    result = trade(account)
    event.remove(account.ledger.engine, "after_cursor_execute", count)
    states = sorted((each.order.token, each.order.side, each.status) for each in result.outcomes)
    assert states == [
        ("A", "sell", "submitted"),
        ("B", "buy", "cancelled"),
        ("C", "buy", "submitted"),
        ("D", "buy", "submitted"),
        ("E", "buy", "filled"),
    ]
    return len(written), result, end_state(dump(account.ledger))


def killed_after(
    statement: int, place: Place, context: ForkServerContext, children: list[Any], whole: dict[str, Any], expected: Any
) -> str:
    receiver = begin(context, children, trade_until, place, password(), statement)
    state: str = answer(receiver)
    children[-1].kill()
    children[-1].join()
    account = account_at(place)
    assert trade(account) == expected, statement
    tables = dump(account.ledger)
    assert end_state(tables) == whole, statement
    sends = [row[1] for row in tables["order_events"] if row[2] == "sending"]
    assert all(sends.count(order_id) <= 2 for order_id in sends)
    return state


def test_a_process_killed_after_any_statement_that_wrote_loses_and_doubles_nothing(
    tmp_path: Path, context: ForkServerContext, children: list[Any]
) -> None:
    prepare(tmp_path / "template")
    shutil.copytree(tmp_path / "template", tmp_path / "whole")
    count, expected, whole = statements_of(tmp_path / "whole")
    for statement in range(1, count + 2):
        place = tmp_path / str(statement)
        shutil.copytree(tmp_path / "template", place)
        state = killed_after(statement, place, context, children, whole, expected)
        assert state == ("stopped" if statement <= count else "done")


def test_a_process_killed_while_it_writes_to_postgres_loses_and_doubles_nothing(
    postgres_url: str, postgres_server: PostgresServer, context: ForkServerContext, children: list[Any]
) -> None:
    prepare(postgres_url)
    with ExitStack() as stack:
        count, expected, whole = statements_of(stack.enter_context(postgres_server.database(postgres_url)))
        for statement in sorted(random.Random(5).sample(range(1, count + 1), SAMPLE)):  # noqa: S311  a sample
            place = stack.enter_context(postgres_server.database(postgres_url))
            assert killed_after(statement, place, context, children, whole, expected) == "stopped"


@pytest.mark.parametrize("rounds", [ROUNDS, pytest.param(MANY_ROUNDS, marks=[pytest.mark.slow, pytest.mark.long])])
def test_one_of_four_processes_on_an_hour_is_killed_and_the_others_leave_one_set_of_orders(
    ledger_places: Callable[[], Place], context: ForkServerContext, children: list[Any], rounds: int
) -> None:
    whole_place = ledger_places()
    prepare(whole_place)
    count, _, whole = statements_of(whole_place)
    places = [ledger_places() for _ in range(rounds)]
    for place in places:
        prepare(place)
    barrier = context.Barrier(4)
    pipes = [begin(context, children, finish, places, password(), barrier) for _ in range(3)]
    for number, place in enumerate(places):
        stopped = begin(context, children, trade_until, place, password(), 1 + number * 7 % count)
        victim = children[-1]
        assert answer(stopped) == "stopped"
        barrier.wait(PATIENCE)  # the others now wait for the lock that the victim holds
        victim.kill()
        victim.join()
        first, *others = [answer(pipe) for pipe in pipes]
        for other in others:
            pd.testing.assert_frame_equal(first, other)
        assert end_state(dump(account_at(place).ledger)) == whole, number


# Mails ------------------------------------------------------------------------------------------------------------


def test_two_processes_delivering_at_once_send_each_mail_once(
    tmp_path: Path, context: ForkServerContext, children: list[Any]
) -> None:
    pytest.importorskip("breakout_assets.trading.delivery")
    account = prepare(tmp_path)
    count = len(account.ledger.pending_mails())
    inbox = Inbox()
    barrier = context.Barrier(2)
    assert account.ledger.path is not None
    with serving(inbox) as port:
        arguments = (account.ledger.path, replace(MAIL, port=port), barrier)
        pipes = [begin(context, children, race_to_deliver, *arguments) for _ in range(2)]
        reports = [answer(pipe) for pipe in pipes]
    assert sorted(report.sent for report in reports) == [0, count]
    assert len(inbox.received) == len({message["Message-ID"] for message in inbox.received}) == count


def test_a_process_killed_while_the_server_thinks_leaves_the_mail_to_be_sent_again(
    tmp_path: Path, context: ForkServerContext, children: list[Any]
) -> None:
    deliver = pytest.importorskip("breakout_assets.trading.delivery").deliver
    account = account_at(tmp_path)
    account.trade(0, {"A": 0.8}, {"A": 10.0})
    [waiting] = account.ledger.pending_mails()
    killed = threading.Event()

    def wait_for_the_kill(server: SMTP) -> None:
        assert killed.wait(PATIENCE)

    inbox = Inbox(before_answer=wait_for_the_kill)
    assert account.ledger.path is not None
    with serving(inbox) as port:
        settings = replace(MAIL, port=port)
        child = context.Process(target=deliver_until_killed, args=(account.ledger.path, settings))
        children.append(child)
        child.start()
        assert inbox.arrived.wait(PATIENCE)
        child.kill()
        child.join()
        killed.set()
        assert account.ledger.pending_mails() == [waiting]
        assert deliver(account.ledger, settings).sent == 1
    first, second = inbox.received
    assert first["Message-ID"] == second["Message-ID"]
