"""The kill switch of an account: a person, or a guard, stops entries, and a person lets them go on."""

from collections.abc import Sequence
from datetime import datetime

from breakout_assets.errors import DataError
from breakout_assets.trading.books import Books, Switch
from breakout_assets.trading.ledger import Ledger
from breakout_assets.trading.mails import MailSettings, compose_switch


def halt_reason(switches: Sequence[Switch]) -> str | None:
    """Why a person, or a guard, has stopped all entries; null if nobody has, or it was lifted."""
    if not switches or switches[-1].action == "resume":
        return None
    last = switches[-1]
    return f"halted by {last.by} at {last.at:%Y-%m-%d %H:%M} UTC: {last.reason}"


def halts(books: Books) -> list[str]:
    """What stands against buying by a person's or a guard's word, as one item of a list or none."""
    halted = halt_reason(books.switches())
    return [halted] if halted else []


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


def _decided(ledger: Ledger, account: str, switch: Switch, mail: MailSettings | None) -> Switch:
    if not switch.by or not switch.reason:
        raise DataError("name the person who decides and give the reason in a sentence; the ledger keeps both")
    with ledger.write(account) as books:
        pull(books, switch, mail)
    return switch
