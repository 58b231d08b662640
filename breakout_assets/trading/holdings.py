"""What lies at the venue beside an account's orders: when it begins, and when a person explains a difference."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal

from breakout_assets.errors import DataError, SettingsError, TemporaryError
from breakout_assets.trading.adjustments import Adjustment
from breakout_assets.trading.books import Books
from breakout_assets.trading.desk import WATCH, Desk, misses_of, named
from breakout_assets.trading.ledger import Ledger
from breakout_assets.trading.money import USD, plain
from breakout_assets.trading.orders import IN_DOUBT, Balances, Order
from breakout_assets.trading.reconcile import balance_differences, expected_balances
from breakout_assets.trading.rules import HOUR


def open_account(desk: Desk) -> None:
    """Begin an account, unless it has begun: what the venue holds beyond its cash is noted as not its own.

    Raises:
        SettingsError: the account began with another amount of cash, or the venue holds less.
        DataError: the venue holds coins that are traded, or has open orders. They may be this account's, from a ledger
            that was lost: only a person can tell.
    """
    cash = desk.rules.cash
    with desk.ledger.read(desk.account) as books:
        opening_cash = books.opening_cash()
    if opening_cash is None:
        balances = desk.broker.balances()
        there = [f"{plain(amount)} {token}" for token, amount in balances.tokens.items()]
        there += [order.description for order in desk.broker.open_orders()]
        if there:
            raise DataError(
                f"the ledger {desk.ledger.name} has no account {desk.account} yet, and the venue has {', '.join(there)}"
                ": if a ledger was lost, bring it back; if these are yours, cancel open orders, and let the account "
                "begin beside the rest: python -m breakout_assets accept --by ... --reason ..."
            )
        why = "what the venue held beyond BREAKOUT_CASH"
        word = Adjustment(item=USD, amount=Decimal(0), at=desk.now(), by="opening", reason=why)
        with desk.ledger.write(desk.account) as books:
            _begin(books, desk, balances, (), word)
    elif opening_cash != cash:
        raise SettingsError(
            f"the account {desk.account} began with {opening_cash} USD, not with BREAKOUT_CASH={cash}; set it back, or "
            "name another file in BREAKOUT_LEDGER to begin anew"
        )


def _begin(
    books: Books, desk: Desk, balances: Balances, forgotten: Iterable[Order], word: Adjustment
) -> list[Adjustment]:
    cash = desk.rules.cash
    if balances.cash < cash:
        raise SettingsError(
            f"the venue holds {balances.cash} USD, less than BREAKOUT_CASH={cash}; set it to what the account may use"
        )
    books.open_account(cash)
    return _record(books, word, balance_differences({USD: cash}, balances))


def _record(books: Books, word: Adjustment, amounts: Mapping[str, Decimal]) -> list[Adjustment]:
    made = [replace(word, item=item, amount=amount) for item, amount in amounts.items()]
    for adjustment in made:
        books.adjust(adjustment)
    return made


@dataclass(frozen=True)
class Acceptance:
    """What a person's word changes in the books."""

    ended: tuple[Order, ...]
    adjustments: tuple[Adjustment, ...]


def accept_differences(desk: Desk, by: str, reason: str, *, plan: bool = False) -> Acceptance:
    """Take what the venue holds for right, by a person's word; an account that has not begun begins with it.

    Everything that the venue tells of orders is booked first. Coins that are there beyond the ledger are not of this
    account, and it never sells them. What is missing is taken from those first, and then from the account: coins from
    its positions, dollars from its cash. Dollars that came are its own. Orders that the venue has forgotten are over.

    Args:
        desk: of the account; its hour is not used.
        by: the person who decides.
        reason: why, in a sentence.
        plan: only tell what would be accepted.

    Returns:
        What was accepted; the next hour compares with it. Empty if venue and ledger agree.

    Raises:
        DataError: an order is open, in doubt or unknown, or nobody or no reason is given.
        SettingsError: the account has not begun, and the venue holds less than its cash.
        TemporaryError: the account is being traded, or the venue cannot be read now.
    """
    word = Adjustment(item=USD, amount=Decimal(0), at=desk.now(), by=by.strip(), reason=reason.strip())
    if not word.by or not word.reason:
        raise DataError("name the person who decides and give the reason in a sentence; the ledger keeps both")
    with desk.ledger.sole(f"trading-{desk.account}") as free:
        if not free:
            raise TemporaryError(f"another process is trading the account {desk.account}; try again")
        with desk.ledger.read(desk.account) as books:
            begun, hour = books.opening_cash() is not None, books.begun_hour()
        desk = replace(desk, hour=hour or word.at.replace(minute=0, second=0, microsecond=0))
        forgotten = _forgotten(desk) if begun else ()
        open_there = desk.broker.open_orders()
        if open_there:
            told = ", ".join(each.description for each in open_there)
            raise DataError(f"the venue has open orders: {told}; cancel them first, or wait until they have ended")
        balances = desk.broker.balances()
        with desk.ledger.write(desk.account) as books:
            accept = _accept if begun else _begin
            made = accept(books, desk, balances, forgotten, word)
            if plan:
                books.roll_back()
    return Acceptance(forgotten, tuple(made))


def _forgotten(desk: Desk) -> tuple[Order, ...]:
    """The orders that a person's word ends: the venue has not known them for a while, or nothing can be read of them.

    Raises:
        DataError: an order is open, or in doubt for less than a day.
    """
    _, missing = desk.take_stock()
    gone = {order.order_id for order, _ in missing}
    with desk.ledger.read(desk.account) as books:
        unended = [(order, status, len(misses_of(books, order))) for order, status in books.unended()]
    ending, waiting = list[Order](), list[Order]()
    for order, status, misses in unended:
        missed = order.order_id in gone and status not in IN_DOUBT and misses >= desk.broker.absence.look_ups
        # After a day nothing is under way any more; its market or its key may be gone for good.
        old = desk.now() - order.hour >= WATCH
        (ending if missed or old else waiting).append(order)
    if waiting:
        told = ", ".join(named(order) for order in waiting)
        raise DataError(f"{told}: open or in doubt; accept once hourly runs have ended or missed it, or a day later")
    return tuple(ending)


def _accept(
    books: Books, desk: Desk, balances: Balances, forgotten: Iterable[Order], word: Adjustment
) -> list[Adjustment]:
    for order in forgotten:
        why = f"the venue knows it no more; {word.by}: {word.reason}"
        books.event(order.order_id, "cancelled", desk.hour, word.at, why)
    portfolio = books.portfolio(desk.hour, desk.rules.cash)
    amounts = balance_differences(expected_balances(portfolio), balances, portfolio.trades)
    # Of the last decision, since those of later hours knew it.
    return _record(books, replace(word, hour=books.newest_hour() or desk.hour - HOUR), amounts)


def is_busy(ledger: Ledger, account: str) -> bool:
    """Whether something is held, or an order has not ended."""
    with ledger.read(account) as books:
        newest, opening_cash = books.newest_hour(), books.opening_cash()
        if newest is None or opening_cash is None:
            return False
        portfolio = books.portfolio(newest, opening_cash)
    return bool(portfolio.positions or portfolio.open_orders)
