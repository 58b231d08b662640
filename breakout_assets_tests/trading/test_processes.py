"""Real processes: two that do the same hour at once, and one that is killed anywhere on its way."""

import multiprocessing
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from aiosmtpd.smtp import SMTP

from breakout_assets.trading.alerts import deliver
from breakout_assets_tests.trading.mailserver import Inbox, serving
from breakout_assets_tests.trading.processes import (
    BUYS,
    QUOTES,
    deliver_until_killed,
    prepare,
    race,
    race_to_deliver,
    trade_until,
)
from breakout_assets_tests.trading.support import MAIL, Account, dump

ROUNDS = 20
PATIENCE = 120  # seconds to wait for a child before the test fails rather than hangs


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


def answer(connection: Any) -> Any:
    assert connection.poll(PATIENCE), "the child process said nothing"
    return connection.recv()


def test_two_processes_trading_the_same_hours_leave_one_set_of_orders(
    tmp_path: Path, context: ForkServerContext, children: list[Any]
) -> None:
    folders = [tmp_path / str(number) for number in range(ROUNDS)]
    barrier = context.Barrier(2)
    pipes = []
    # The second one was retrained meanwhile: it wants other tokens, with other probabilities.
    for buys in ({"A": 0.9, "B": 0.8}, {"B": 0.95, "C": 0.7, "D": 0.65}):
        receiver, sender = context.Pipe(duplex=False)
        children.append(context.Process(target=race, args=(folders, buys, barrier, sender)))
        children[-1].start()
        pipes.append(receiver)
    for folder in folders:
        (first, second), (other_first, other_second) = (answer(pipe) for pipe in pipes)
        pd.testing.assert_frame_equal(first, other_first)
        pd.testing.assert_frame_equal(second, other_second)
        assert len(first) in (2, 3)
        tables = dump(Account(folder).ledger)
        submitted = second[second["status"] == "submitted"]
        filled = second[second["status"] == "filled"]
        assert len(filled) == len(first) == len(tables["fills"])
        assert len(tables["orders"]) == len(first) + len(submitted)
        assert (len(tables["hours"]), len(tables["accounts"]), len(tables["mails"])) == (2, 1, 1)


def test_two_processes_delivering_at_once_send_each_mail_once(
    tmp_path: Path, context: ForkServerContext, children: list[Any]
) -> None:
    account = prepare(tmp_path)
    account.trade(120, BUYS, QUOTES)
    inbox = Inbox()
    barrier = context.Barrier(2)
    with serving(inbox) as port:
        pipes = []
        for _ in range(2):
            receiver, sender = context.Pipe(duplex=False)
            arguments = (account.ledger.path, replace(MAIL, port=port), barrier, sender)
            children.append(context.Process(target=race_to_deliver, args=arguments))
            children[-1].start()
            pipes.append(receiver)
        reports = [answer(pipe) for pipe in pipes]
    assert sorted(report.sent for report in reports) == [0, 2]
    assert len(inbox.received) == len({message["Message-ID"] for message in inbox.received}) == 2


def test_a_process_killed_after_any_row_that_it_wrote_loses_and_doubles_nothing(
    tmp_path: Path, context: ForkServerContext, children: list[Any]
) -> None:
    template = prepare(tmp_path / "template")
    before = dump(template.ledger)
    shutil.copytree(tmp_path / "template", tmp_path / "whole")
    expected = Account(tmp_path / "whole", mail=MAIL).trade(120, BUYS, QUOTES)
    whole = dump(Account(tmp_path / "whole").ledger)
    assert {name: len(whole[name]) - len(before[name]) for name in before} == {
        "accounts": 0,
        "hours": 1,
        "orders": 3,
        "order_events": 4,
        "fills": 1,
        "marks": 2,
        "mails": 1,
    }
    for row in range(1, 100):
        folder = tmp_path / str(row)
        shutil.copytree(tmp_path / "template", folder)
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=trade_until, args=(folder, row, sender))
        children.append(child)
        child.start()
        state = answer(receiver)
        child.kill()
        child.join()
        account = Account(folder, mail=MAIL)
        assert dump(account.ledger) == (whole if state == "done" else before)
        again = account.trade(120, BUYS, QUOTES)
        assert again == expected
        assert again.repeated == (state == "done")
        assert dump(account.ledger) == whole
        if state == "done":
            break
    assert state == "done"
    assert row == 1 + sum(len(whole[name]) - len(before[name]) for name in before)


def test_a_process_killed_while_the_server_thinks_leaves_the_mail_to_be_sent_again(
    tmp_path: Path, context: ForkServerContext, children: list[Any]
) -> None:
    account = Account(tmp_path, mail=MAIL)
    account.trade(0, {"A": 0.8}, QUOTES)
    account.trade(1, {}, QUOTES)
    before = dump(account.ledger)
    killed = threading.Event()

    def wait_for_the_kill(server: SMTP) -> None:
        assert killed.wait(PATIENCE)

    inbox = Inbox(before_answer=wait_for_the_kill)
    with serving(inbox) as port:
        settings = replace(MAIL, port=port)
        child = context.Process(target=deliver_until_killed, args=(account.ledger.path, settings))
        children.append(child)
        child.start()
        assert inbox.arrived.wait(PATIENCE)
        child.kill()
        child.join()
        killed.set()
        assert dump(account.ledger) == before
        assert deliver(account.ledger, settings).sent == 1
    first, second = inbox.received
    assert first["Message-ID"] == second["Message-ID"]
