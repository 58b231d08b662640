"""What a person decides about an account: to stop and resume entries, and to explain what the venue holds."""

from collections.abc import Sequence
from datetime import datetime

from breakout_assets.errors import DataError
from breakout_assets.trading.books import Adjustment, Books, Switch
from breakout_assets.trading.brokers import Broker
from breakout_assets.trading.ledger import Ledger
from breakout_assets.trading.mails import MailSettings, compose_switch
from breakout_assets.trading.reconcile import balance_differences, expected_balances


def halt_reason(switches: Sequence[Switch]) -> str | None:
    """Why a person, or a guard, has stopped all entries; null if nobody has, or it was lifted."""
    if not switches or switches[-1].action == "resume":
        return None
    last = switches[-1]
    return f"halted by {last.by} at {last.at:%Y-%m-%d %H:%M} UTC: {last.reason}"


def pull(books: Books, switch: Switch, mail: MailSettings | None) -> None:
    """Record a halt or a resume, and the mail that tells of it, in the caller's transaction."""
    books.pull(switch)
    if mail:
        books.post_once(compose_switch(books.account, switch.action, switch.at, switch.by, switch.reason, mail))


def halt(ledger: Ledger, account: str, by: str, reason: str, now: datetime, mail: MailSettings | None = None) -> Switch:
    """Stop all entries of an account, from the next decision on, until somebody resumes; exits go on.

    Entries that wait at the venue are cancelled in the next traded hour. A halt of a halted account is recorded too:
    it needs one resume.

    Raises:
        DataError: nobody is named, or no reason.
    """
    return _decided(ledger, account, Switch(action="halt", at=now, by=by.strip(), reason=reason.strip()), mail)


def resume(
    ledger: Ledger, account: str, by: str, reason: str, now: datetime, mail: MailSettings | None = None
) -> Switch:
    """Let entries go on. The drawdown guard counts from here: what was lost before is accepted.

    Raises:
        DataError: the account is not halted, nobody is named, or no reason.
    """
    with ledger.read(account) as books:
        if halt_reason(books.switches()) is None:
            raise DataError(f"the account {account} is not halted")
    return _decided(ledger, account, Switch(action="resume", at=now, by=by.strip(), reason=reason.strip()), mail)


def accept_differences(
    ledger: Ledger, broker: Broker, account: str, by: str, reason: str, now: datetime
) -> list[Adjustment]:
    """Take what venue and ledger differ in for not of this account: a deposit, a coin bought by hand.

    Returns:
        What was accepted; the next hour compares with it. Empty if venue and ledger agree.

    Raises:
        DataError: the account has not begun, an order of it is in flight, or nobody and no reason is given.
        TemporaryError: the venue cannot be read now.
    """
    if not by.strip() or not reason.strip():
        raise DataError("name the person who decides and give the reason in a sentence; the ledger keeps both")
    balances = broker.balances()
    with ledger.write(account) as books:
        newest = books.newest_hour()
        opening_cash = books.opening_cash()
        if newest is None or opening_cash is None:
            raise DataError(f"the account {account} has not traded yet; there is nothing to compare with")
        portfolio = books.portfolio(newest, opening_cash)
        if portfolio.open_orders:
            raise DataError(f"{len(portfolio.open_orders)} orders of {account} are open; accept once they have ended")
        expected = expected_balances(portfolio, books.adjustments())
        accepted = [
            Adjustment(item=item, amount=amount, at=now, by=by.strip(), reason=reason.strip())
            for item, amount in balance_differences(expected, balances).items()
        ]
        for adjustment in accepted:
            books.adjust(adjustment)
    return accepted


def _decided(ledger: Ledger, account: str, switch: Switch, mail: MailSettings | None) -> Switch:
    if not switch.by or not switch.reason:
        raise DataError("name the person who decides and give the reason in a sentence; the ledger keeps both")
    with ledger.write(account) as books:
        pull(books, switch, mail)
    return switch
