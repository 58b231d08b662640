"""The one call that trades an hour."""

import json
import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import pandas as pd

from breakout_assets.errors import DataError, TemporaryError
from breakout_assets.market.health import HealthState
from breakout_assets.trading.books import Books, HourRecord, Switch
from breakout_assets.trading.brokers import Broker, Quote
from breakout_assets.trading.decide import (
    Signal,
    decide,
    drawdown_block,
    equity_at,
    order_id,
    outdated,
    read_quotes,
    read_signals,
)
from breakout_assets.trading.desk import Desk, Failure
from breakout_assets.trading.holdings import open_account
from breakout_assets.trading.ledger import Ledger
from breakout_assets.trading.mails import MailSettings
from breakout_assets.trading.orders import Order
from breakout_assets.trading.outcome import HourResult, recorded
from breakout_assets.trading.reconcile import differences, expected_balances
from breakout_assets.trading.record import limits_text, rules_text
from breakout_assets.trading.rules import HOUR, TradingRules
from breakout_assets.trading.switches import halt_reason, halts, pull

# An order within its limit is executed at once or not soon; so long is waited before the first look at it.
FIRST_LOOK_SECONDS: Final = 5
DRAWDOWN_GUARD: Final = "drawdown guard"


@dataclass(frozen=True)
class Market:
    """What an hour is decided on."""

    signals: Sequence[Signal]
    quotes: Mapping[str, Quote]
    health: HealthState
    inputs: Mapping[str, Any]
    """What these were read from: a path and SHA-256 for each table."""
    doubts: Sequence[str] = ()
    """Sentences why they are not to be bought on."""


def trade_hour(
    ledger: Ledger,
    hour: datetime,
    predictions: pd.DataFrame,
    prices: pd.DataFrame,
    health_state: str,
    rules: TradingRules,
    account: str,
    now: Callable[[], datetime],
    broker: Broker,
    *,
    mail: MailSettings | None = None,
    inputs: Mapping[str, Any] | None = None,
    doubts: Sequence[str] = (),
    wait: Callable[[float], None] = time.sleep,
) -> HourResult:
    """Trade an hour: book what became of earlier orders, compare with the venue, decide, and send.

    An hour is decided once: later calls finish what a crash left unfinished, as long as no later hour has been traded,
    and tell what was recorded, whatever they are given. A past hour, one that is older than the newest traded hour, or
    one that has not begun is refused, and nothing is written or sent.

    Args:
        ledger: where everything is recorded.
        hour: naive UTC, a whole hour.
        predictions: rows of the `predictions` table for that hour.
        prices: believed rows of that hour: `token`, `price`, `volume` (of 24 hours, USD).
        health_state: ACTIVE, REDUCE_ONLY or HALTED. In HALTED no price is believed.
        rules: sizes, costs and limits.
        account: whose hour it is; several accounts may share a ledger.
        now: tells the time, naive UTC.
        broker: the venue.
        mail: whom to tell; null writes no mail.
        inputs: what the frames were read from, kept with the decision.
        doubts: sentences why nothing may be bought on what is given, such as that predictions are missing.
        wait: waits so many seconds; venues are asked again after a while.

    Raises:
        DataError: an argument is malformed, the ledger cannot be used, or the venue needs a person.
        SettingsError: the account began with another amount of cash than the rules say, or the venue holds less.
        TemporaryError: another process trades the account, or something of the venue cannot be read now; whatever can
            be done without that has been done.
    """
    _check_arguments(hour, account, now())
    with ledger.sole(f"trading-{account}") as free:
        if not free:
            raise TemporaryError(f"another process is trading the account {account}; try again")
        with ledger.read(account) as books:
            decided = books.record(hour) is not None
            newest = books.newest_hour()
            refusal = _refusal(hour, newest, rules, now())
            if refusal and not decided:
                return HourResult(hour, "refused", refusal, (), (), (), books.portfolio(hour, rules.cash))
            if refusal or (decided and newest != hour):
                return recorded(books, hour, rules, repeated=True)

        desk = Desk(ledger, account, broker, rules, hour, now, wait, mail)
        health = _health(health_state, hour)
        if decided:
            _finish(desk, health, doubts)
        else:
            quotes = {} if health is HealthState.HALTED else read_quotes(prices, hour)
            _trade(desk, Market(read_signals(predictions, hour), quotes, health, inputs or {}, doubts))
        with ledger.read(account) as books:
            return recorded(books, hour, rules, repeated=decided)


def _check_arguments(hour: datetime, account: str, now: datetime) -> None:
    if hour.tzinfo or now.tzinfo:
        raise DataError(f"hour {hour} and now {now} must be naive UTC")
    if hour != hour.replace(minute=0, second=0, microsecond=0):
        raise DataError(f"{hour} is not a whole hour")
    # The name is part of order ids, and of a lock's file name.
    if not account or not account.isascii() or not account.replace("-", "").isalnum():
        raise DataError(f"{account!r} cannot name an account; use letters, digits and dashes")


def _refusal(hour: datetime, newest: datetime | None, rules: TradingRules, now: datetime) -> str | None:
    """Why an hour may not trade. The sentences do not change with time, so a refused hour can be told again."""
    if hour > now:
        return f"refused: the hour {hour} has not begun"
    if now - hour > rules.max_age or (newest is not None and hour < newest):
        return (
            f"refused: the hour {hour} is older than {rules.max_age // HOUR} hours, or a later one has been traded "
            "already; past hours never trade"
        )
    return None


def _health(state: str, hour: datetime) -> HealthState:
    try:
        return HealthState(state)
    except ValueError as error:
        raise DataError(f"market health of {hour} is {state!r}; known are {', '.join(HealthState)}") from error


def _finish(desk: Desk, health: HealthState, doubts: Sequence[str]) -> None:
    """Book what became of orders that are in flight, and send what was decided and is not at the venue."""
    failures, differing = _compare(desk)
    blocks = _blocks(desk, health, (*doubts, *map(str, failures), *differing))
    _raise_passing([*failures, *desk.send(desk.waiting(), blocks)])


def _trade(desk: Desk, market: Market) -> None:
    open_account(desk)
    desk.follow()  # what cannot be read now is asked again below
    failures: list[Failure] = []
    with desk.ledger.read(desk.account) as books:
        halted = halts(books)
    if halted:  # before this hour's prices can execute on paper what still waits to be bought
        failures += _cancel_outdated(desk, {}, halted)
    desk.broker.open_hour(desk.hour, market.quotes)
    unread, differing = _compare(desk)
    against = (*market.doubts, *map(str, unread), *differing)
    _guard(desk, market.quotes)
    blocks = _blocks(desk, market.health, against)
    failures += unread + _cancel_outdated(desk, market.quotes, blocks)
    failures += desk.send(desk.waiting(), blocks)  # what an interrupted run had decided
    failures += desk.send(_decide(desk, market, against))
    if desk.broker.immediate:
        desk.wait(FIRST_LOOK_SECONDS)
        failures += desk.follow()
    _raise_passing(failures)


def _raise_passing(failures: Sequence[Failure]) -> None:
    """Let the run be tried again for what may pass; what needs a person stands in the record of the hour."""
    for failure in failures:
        if isinstance(failure, TemporaryError):
            raise failure


def _blocks(desk: Desk, health: HealthState, against: Sequence[str]) -> list[str]:
    """Everything that stands against buying. While anything does, no purchase is decided, sent, or left to wait."""
    unhealthy = [] if health is HealthState.ACTIVE else [f"the market is {health}"]
    with desk.ledger.read(desk.account) as books:
        return [*unhealthy, *halts(books), *against]


def _cancel_outdated(desk: Desk, quotes: Mapping[str, Quote], blocks: Sequence[str]) -> list[Failure]:
    with desk.ledger.read(desk.account) as books:
        portfolio = books.portfolio(desk.hour, desk.rules.cash)
    ending = [(each, "asked again") for each in portfolio.open_orders if each.status == "cancelling"]
    ending += outdated(portfolio, quotes, desk.rules, desk.hour, blocks)
    return desk.cancel((each.order, reason) for each, reason in ending)


def _compare(desk: Desk) -> tuple[list[Failure], tuple[str, ...]]:
    """Book what became of orders that are in flight; what cannot be read of them, and what the venue has otherwise."""
    failures = desk.follow()
    differing, listed = _disagreements(desk)
    if differing:  # a trade between two readings looks like a difference, once
        failures = desk.follow()
        differing, listed = _disagreements(desk)
    if not differing:
        desk.end_forgotten(listed)
    return failures, differing


def _disagreements(desk: Desk) -> tuple[tuple[str, ...], Set[str]]:
    """What venue and ledger disagree on now; and the client ids of the venue's open orders."""
    venue_orders, balances = desk.broker.open_orders(), desk.broker.balances()
    with desk.ledger.read(desk.account) as books:
        portfolio = books.portfolio(desk.hour, desk.rules.cash)
        expected = expected_balances(portfolio)
    open_ids = {desk.broker.spelling(each.order.order_id) for each in portfolio.open_orders}
    found = differences(expected, balances, venue_orders, open_ids, portfolio.trades)
    return found, {order.order_id for order in venue_orders if order.order_id}


def _guard(desk: Desk, quotes: Mapping[str, Quote]) -> None:
    """Pull the switch after a fall of the equity, unless it is pulled, so that only a person lets entries go on."""
    with desk.ledger.read(desk.account) as books:
        equity = equity_at(books.portfolio(desk.hour, desk.rules.cash), quotes)
        switches, equities = books.switches(), books.equities(desk.hour)
    if halt_reason(switches):
        return
    since = switches[-1].at if switches else None  # the last one lifted a halt: what was lost before is accepted
    peak = max([equity, *(then for hour, then in equities if since is None or hour >= since)])
    reason = drawdown_block(equity, peak, desk.rules)
    if reason:
        with desk.ledger.write(desk.account) as books:
            pull(books, Switch(action="halt", at=desk.now(), by=DRAWDOWN_GUARD, reason=reason), desk.mail)


def _decide(desk: Desk, market: Market, against: Sequence[str]) -> list[Order]:
    """Decide the hour and record it with everything it rests on, in one transaction; the orders that are to be sent."""
    rules, hour = desk.rules, desk.hour
    with desk.ledger.read(desk.account) as books:
        held = {position.token for position in books.portfolio(hour, rules.cash).positions}
    limits = desk.broker.limits(sorted(held | {signal.token for signal in market.signals}))
    with desk.ledger.write(desk.account) as books:
        portfolio = books.portfolio(hour, rules.cash)
        blocks = (*halts(books), *against)
        event = books.last_event()
        decision = decide(portfolio, market.signals, market.quotes, limits, market.health, blocks, rules, hour)
        orders = [Order(order_id=order_id(desk.account, intent), **vars(intent)) for intent in decision.intents]
        for order in orders:
            books.submit(order, desk.now())
        for refusal in decision.refusals:
            books.refuse(hour, refusal.token, refusal.code, refusal.reason)
        held = {position.token for position in portfolio.positions}
        books.mark(hour, {token: market.quotes[token].price for token in sorted(held) if token in market.quotes})
        before = recorded(books, hour, rules)
        books.close_hour(
            HourRecord(
                hour=hour,
                health=market.health,
                outcome=_summary(market.health, before, len(orders), len(decision.refusals)),
                traded_at=desk.now(),
                equity=before.portfolio.equity,
                blocks=json.dumps(blocks),
                rules=rules_text(rules),
                limits=limits_text(limits),
                inputs=json.dumps(market.inputs, sort_keys=True),
                event=event,
            )
        )
        if before.outcomes or blocks != _last_blocks(books, hour):
            desk.tell(books)
    return orders


def _summary(health: HealthState, result: HourResult, submitted: int, refused: int) -> str:
    filled, ended = len(result.of("filled", "partial")), len(result.of("cancelled", "rejected"))
    return f"{health}: {filled} filled, {ended} cancelled, {submitted} submitted, {refused} refused"


def _last_blocks(books: Books, hour: datetime) -> tuple[str, ...]:
    record = books.record(earlier) if (earlier := books.hour_before(hour)) else None
    return tuple(json.loads(record.blocks or "[]")) if record else ()
