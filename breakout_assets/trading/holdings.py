"""What lies at the venue beside an account's orders: when it begins, and when a person explains a difference."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

from breakout_assets.errors import DataError, SettingsError, TemporaryError
from breakout_assets.trading.books import Books
from breakout_assets.trading.brokers import Broker
from breakout_assets.trading.ledger import Ledger
from breakout_assets.trading.money import USD, plain
from breakout_assets.trading.orders import Balances, Order, Status
from breakout_assets.trading.portfolio import Adjustment
from breakout_assets.trading.reconcile import balance_differences, expected_balances


def open_account(ledger: Ledger, account: str, broker: Broker, cash: Decimal, now: datetime) -> None:
    """Begin an account, unless it has begun: what the venue holds beyond its cash is noted as not its own.

    Raises:
        SettingsError: the account began with another amount of cash, or the venue holds less.
        DataError: the venue holds coins that are traded, or has open orders. They may be this account's, from a ledger
            that was lost: only a person can tell.
    """
    with ledger.read(account) as books:
        opening_cash = books.opening_cash()
    if opening_cash is None:
        balances = broker.balances()
        there = [f"{plain(amount)} {token}" for token, amount in balances.tokens.items()]
        there += [order.description for order in broker.open_orders()]
        if there:
            raise DataError(
                f"the ledger {ledger.name} has no account {account} yet, and the venue has {', '.join(there)}: if a "
                "ledger was lost, bring it back; if these are yours, cancel open orders, and let the account begin "
                "beside the rest: python -m breakout_assets accept --by ... --reason ..."
            )
        with ledger.write(account) as books:
            why = "what the venue held beyond BREAKOUT_CASH"
            _begin(books, balances, cash, Adjustment(item=USD, amount=Decimal(0), at=now, by="opening", reason=why))
    elif opening_cash != cash:
        raise SettingsError(
            f"the account {account} began with {opening_cash} USD, not with BREAKOUT_CASH={cash}; set it back, or name "
            "another file in BREAKOUT_LEDGER to begin anew"
        )


def _begin(books: Books, balances: Balances, cash: Decimal, word: Adjustment) -> list[Adjustment]:
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


def accept_differences(
    ledger: Ledger,
    broker: Broker,
    account: str,
    cash: Decimal,
    by: str,
    reason: str,
    now: datetime,
    *,
    plan: bool = False,
) -> list[Adjustment]:
    """Take what the venue holds for right, by a person's word; an account that has not begun begins with it.

    Coins that are there beyond the ledger are not of this account, and it never sells them. Missing ones are gone from
    its positions. Dollars that came or went are its own from now on. Orders that the venue knows no more are over.

    Args:
        ledger: of the account.
        broker: its venue.
        account: its name.
        cash: USD that it begins with.
        by: the person who decides.
        reason: why, in a sentence.
        now: naive UTC.
        plan: only tell what would be accepted.

    Returns:
        What was accepted; the next hour compares with it. Empty if venue and ledger agree.

    Raises:
        DataError: an order of the account is open or in doubt, or nobody or no reason is given.
        SettingsError: the account has not begun, and the venue holds less than its cash.
        TemporaryError: the account is being traded, or the venue cannot be read now.
    """
    word = Adjustment(item=USD, amount=Decimal(0), at=now, by=by.strip(), reason=reason.strip())
    if not word.by or not word.reason:
        raise DataError("name the person who decides and give the reason in a sentence; the ledger keeps both")
    with ledger.sole(f"trading-{account}") as free:
        if not free:
            raise TemporaryError(f"another process is trading the account {account}; try again")
        with ledger.read(account) as books:
            opening_cash, unended = books.opening_cash(), books.unended()
        strangers = broker.open_orders() if opening_cash is None else []
        if strangers:
            told = ", ".join(each.description for each in strangers)
            raise DataError(f"the venue has open orders: {told}; cancel them first")
        forgotten = [order for order, status in unended if _is_forgotten(broker, order, status)]
        balances = broker.balances()
        with ledger.write(account) as books:
            if opening_cash is None:
                accepted = _begin(books, balances, cash, word)
            else:
                accepted = _accept(books, forgotten, balances, opening_cash, word)
            if plan:
                books.roll_back()
    return accepted


def _accept(
    books: Books, forgotten: Iterable[Order], balances: Balances, opening_cash: Decimal, word: Adjustment
) -> list[Adjustment]:
    newest = books.newest_hour() or word.at.replace(minute=0, second=0, microsecond=0)
    for order in forgotten:
        why = f"the venue knows it no more; {word.by}: {word.reason}"
        books.event(order.order_id, "cancelled", newest, word.at, why)
    portfolio = books.portfolio(newest, opening_cash)
    if portfolio.open_orders:
        ids = ", ".join(each.order.order_id for each in portfolio.open_orders)
        raise DataError(f"orders of {books.account} are open or in doubt: {ids}; accept once they have ended")
    amounts = balance_differences(expected_balances(portfolio), balances, portfolio.trades)
    return _record(books, replace(word, hour=newest), amounts)


def _is_forgotten(broker: Broker, order: Order, status: Status) -> bool:
    """Whether a venue that had an order knows it no more. One whose sending is in doubt may still show up."""
    return status in ("accepted", "cancelling") and broker.look_up(order) is None


def is_busy(ledger: Ledger, account: str) -> bool:
    """Whether something is held, or an order has not ended."""
    with ledger.read(account) as books:
        newest, opening_cash = books.newest_hour(), books.opening_cash()
        if newest is None or opening_cash is None:
            return False
        portfolio = books.portfolio(newest, opening_cash)
    return bool(portfolio.positions or portfolio.open_orders)
