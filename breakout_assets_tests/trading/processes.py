"""What child processes of the tests run: real processes that race, or stop where they are to be killed."""

import os
import threading
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from sqlalchemy import event

from breakout_assets.trading.ledger import Ledger
from breakout_assets.trading.mails import MailSettings
from breakout_assets_tests.trading.support import FREE_OF_COST, MAIL, Account

BUYS = {"C": 0.9, "D": 0.8}
QUOTES = {"A": 12.0, "C": 3.0, "D": 2.0, "E": 1.0}
HOUR = 120

Place = Path | str


def account_at(place: Place) -> Account:
    return Account(place, FREE_OF_COST, mail=MAIL)


def prepare(place: Place) -> Account:
    """An account whose hour 120 fills an entry, cancels another, submits an exit and two entries, and writes a mail."""
    account = account_at(place)
    account.trade(0, {"A": 0.8}, QUOTES)
    account.trade(1, {}, QUOTES)
    account.trade(114, {"B": 0.8}, {**QUOTES, "B": 7.0})
    account.trade(119, {"E": 0.8}, QUOTES)
    return account


def trade(account: Account) -> Any:
    return account.trade(HOUR, BUYS, QUOTES)


def _may_connect(password: str) -> None:
    # The server that children are forked from was started before the test knew it.
    os.environ["PGPASSWORD"] = password


def race(
    places: Sequence[Place], password: str, buys: Mapping[str, float], barrier: Barrier, results: Connection
) -> None:
    """In each place, at the same moment as the other processes, trade the same two hours."""
    _may_connect(password)
    for place in places:
        account = account_at(place)
        barrier.wait()
        results.send([account.trade(hour, buys, QUOTES).orders_frame() for hour in (0, 1)])


def race_to_open(places: Sequence[Place], password: str, barrier: Barrier, results: Connection) -> None:
    """Open each ledger, which is new or old, at the same moment as the other processes."""
    _may_connect(password)
    for place in places:
        account = account_at(place)
        barrier.wait()
        with account.ledger.write("paper") as books:
            results.send(str(books.opening_cash()))


def race_to_deliver(path: Path, settings: MailSettings, barrier: Barrier, results: Connection) -> None:
    """Deliver at the same moment as the other processes."""
    from breakout_assets.trading.delivery import deliver

    ledger = Ledger(path)
    barrier.wait()
    results.send(deliver(ledger, settings))


def trade_until(place: Place, password: str, last: int, reached: Connection) -> None:
    """Trade hour 120 and stop for ever after the n-th statement that writes; says so, or that there were fewer."""
    _may_connect(password)
    account = account_at(place)
    count = 0

    def stop_here(connection: Any, cursor: Any, text: str, *_: Any) -> None:
        nonlocal count
        count += text.startswith(("INSERT", "UPDATE", "DELETE"))
        if count == last:
            reached.send("stopped")
            threading.Event().wait()

    account.ledger.pending_mails()  # the ledger's preparation is not what is counted
    event.listen(account.ledger.engine, "after_cursor_execute", stop_here)
    trade(account)
    reached.send("done")
    threading.Event().wait()


def finish(places: Sequence[Place], password: str, barrier: Barrier, results: Connection) -> None:
    """In each place trade hour 120, which another process has begun."""
    _may_connect(password)
    for place in places:
        account = account_at(place)
        barrier.wait()
        results.send(trade(account).orders_frame())


def deliver_until_killed(path: Path, settings: MailSettings) -> None:
    """Deliver to a server that will not answer."""
    from breakout_assets.trading.delivery import deliver

    deliver(Ledger(path), settings)
