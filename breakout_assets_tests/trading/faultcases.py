"""Every way in which an order's life can be disturbed, and what must be true at its end whatever happened."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path

import pandas as pd

from breakout_assets.errors import TemporaryError
from breakout_assets.trading.books import Switch
from breakout_assets.trading.hourly import trade_hour
from breakout_assets.trading.ledger import Ledger
from breakout_assets.trading.mails import Mail
from breakout_assets.trading.money import plain
from breakout_assets.trading.orders import ENDED
from breakout_assets.trading.reconcile import balance_differences, expected_balances
from breakout_assets_tests.trading.faultyvenue import (
    CANCEL,
    FILLS,
    LOOK_UP,
    PLACE,
    Fate,
    FaultyVenue,
    Killed,
    SteppedLedger,
    Time,
)
from breakout_assets_tests.trading.support import MAIL, RULES, at, predictions, prices

# Two hours between entry and exit: the life of an order is the same, and shorter to play through.
SHORT = replace(RULES, horizon=timedelta(hours=2), cooldown=timedelta(hours=24))
MOST_HOURS = 14
RETRIES = 6  # of an hour that failed for a passing reason
HALT = Switch(action="halt", at=at(0), by="a person", reason="the order waits")


@dataclass(frozen=True)
class Case:
    place: str
    fills: str
    look_up: str
    cancel: str


def cases() -> list[Case]:
    """Every combination; a cancellation is only asked for where an order is left open."""
    return [
        Case(place, fills, look_up, cancel)
        for place in PLACE
        for fills in FILLS
        for look_up in LOOK_UP
        for cancel in (CANCEL if fills in ("half", "never") else CANCEL[:1])
    ]


@dataclass
class Played:
    """A case that was played to its end."""

    venue: FaultyVenue
    ledger: Ledger
    steps: int
    kills: int
    mails: list[Mail] = field(default_factory=list)
    end: int = 0
    """Hours it took."""


def play(place: Path | str, case: Case, kill_after: int | None = None) -> Played:
    """One purchase and its sale, hour by hour, until nothing is left to be done.

    Args:
        place: of the ledger, which must be empty.
        case: what the venue does.
        kill_after: the step, counted over the whole case, after which the process dies; it is then started anew.
    """
    fate, time = Fate(kill_after), Time(at(0))
    venue = FaultyVenue(time, case.place, case.fills, case.look_up, case.cancel, fate)
    ledger = SteppedLedger(place, fate, share=True)
    played = Played(venue, ledger, 0, 0)
    for hour in range(MOST_HOURS):
        time.now = max(time.now, at(hour) + timedelta(minutes=5))
        if hour == 1 and case.fills == "never":
            with Ledger(place).write("live") as books:
                books.pull(HALT)
        for _ in range(RETRIES):
            try:
                _trade(ledger, venue, time, hour)
                break
            except Killed:
                played.kills += 1
            except TemporaryError:
                time.wait(60)
        played.mails += _delivered(played.ledger)
        played.end = hour
        if hour >= 3 and _is_quiet(played.ledger, hour):
            break
    played.steps = fate.steps
    return played


def _trade(ledger: Ledger, venue: FaultyVenue, time: Time, hour: int) -> None:
    trade_hour(
        ledger,
        at(hour),
        *_market(hour),
        "ACTIVE",
        SHORT,
        "live",
        lambda: time.now,
        venue,
        mail=MAIL,
        wait=time.wait,
    )


@cache
def _market(hour: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    return predictions(at(hour), {"A": 0.8} if hour == 0 else {}), prices({"A": 2.0 + hour / 100})


def _delivered(ledger: Ledger) -> list[Mail]:
    """What a mail server gets now; a mail that was begun can no longer change."""
    sent = []
    for mail in ledger.pending_mails():
        taken = ledger.begin_attempt(mail.message_id)
        assert taken is not None
        sent.append(taken.mail)
        ledger.end_attempt(replace(taken, settled=dict.fromkeys(mail.recipients, 250)), None)
    return sent


def _is_quiet(ledger: Ledger, hour: int) -> bool:
    with ledger.read("live") as books:
        portfolio = books.portfolio(at(hour), SHORT.cash)
    return not portfolio.positions and not portfolio.open_orders


def faults_of(played: Played) -> Iterator[str]:
    """What is wrong at the end of a case; nothing may be."""
    venue, hour = played.venue, at(MOST_HOURS)
    with played.ledger.read("live") as books:
        portfolio = books.portfolio(hour, SHORT.cash)
        orders = {order.order_id: order for order in books.orders(hour)}
        statuses = books.statuses(hour)
        fills = books.fills(hour)
        expected = expected_balances(portfolio)
    if venue.open_orders() or any(status not in ENDED for status in statuses.values()):
        yield f"orders are open: {venue.open_orders()}, {statuses}"
    if balance_differences(expected, venue.balances()):
        yield f"balances differ: {balance_differences(expected, venue.balances())}"
    if expected["USD"] != venue.cash:
        yield f"cash is {expected['USD']}, at the venue {venue.cash}"
    booked = {(fill.order_id, fill.trade_id, fill.quantity, fill.price, fill.fee) for fill in fills}
    told = {
        (key, each.trade_id, each.quantity, each.price, each.fee)
        for key, kept in venue.kept.items()
        for each in kept.executions
    }
    if booked != told or len(fills) != len(booked):
        yield f"fills differ: {booked ^ told}"
    if any(count > 1 for count in venue.created.values()) or venue.created.keys() - orders.keys():
        yield f"orders were doubled or are unknown: {dict(venue.created)}"
    entries = [order for order in orders.values() if order.side == "buy"]
    if len(entries) != 1 or any(portfolio.units.get(each.token, Decimal(0)) > each.quantity for each in entries):
        yield f"{len(entries)} entries, {dict(portfolio.units)} held"
    for moment in {fill.hour for fill in fills}:
        last = [mail.text_body for mail in played.mails if mail.hour == moment]
        for order_id in {fill.order_id for fill in fills if fill.hour == moment}:
            of_order = [fill.quantity for fill in fills if fill.hour == moment and fill.order_id == order_id]
            if not last or plain(sum(of_order, Decimal(0))) not in last[-1]:
                yield f"no mail tells of the fill of {order_id} in {moment}"
