"""What child processes of the tests run: real processes that race, or stop where they are to be killed."""

import threading
from collections.abc import Mapping
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from sqlalchemy import event

from breakout_assets.trading.alerts import MailSettings, deliver
from breakout_assets.trading.ledger import Ledger
from breakout_assets_tests.trading.support import MAIL, Account

BUYS = {"C": 0.9, "D": 0.8}
QUOTES = {"A": 12.0, "B": 7.0, "C": 3.0, "D": 2.0}


def prepare(folder: Path) -> Account:
    """An account whose hour 120 will fill a purchase, submit an exit, enter twice and write a mail."""
    account = Account(folder, mail=MAIL)
    account.trade(0, {"A": 0.8}, QUOTES)
    account.trade(1, {}, QUOTES)
    account.trade(119, {"B": 0.8}, QUOTES)
    return account


def race(folders: list[Path], buys: Mapping[str, float], barrier: Barrier, results: Connection) -> None:
    """In each folder, at the same moment as the other processes, trade the same two hours."""
    for folder in folders:
        account = Account(folder, mail=MAIL)
        barrier.wait()
        frames = [account.trade(hour, buys, QUOTES).orders_frame() for hour in (0, 1)]
        results.send(frames)


def race_to_deliver(path: Path, settings: MailSettings, barrier: Barrier, results: Connection) -> None:
    """Deliver at the same moment as the other processes."""
    ledger = Ledger(path)
    barrier.wait()
    results.send(deliver(ledger, settings))


def trade_until(folder: Path, row: int, reached: Connection) -> None:
    """Trade hour 120 and stop for ever after the n-th row that is written; says so, or that there were not so many."""
    account = Account(folder, mail=MAIL)
    count = 0

    def stop_here(connection: Any, cursor: Any, text: str, *_: Any) -> None:
        nonlocal count
        count += text.startswith("INSERT")
        if count == row:
            reached.send("stopped")
            threading.Event().wait()

    account.ledger.pending_mails()  # the file's preparation is not what is counted
    event.listen(account.ledger.engine, "after_cursor_execute", stop_here)
    account.trade(120, BUYS, QUOTES)
    reached.send("done")
    threading.Event().wait()


def deliver_until_killed(path: Path, settings: MailSettings) -> None:
    """Deliver to a server that will not answer."""
    deliver(Ledger(path), settings)
