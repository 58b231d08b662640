"""The kill switch as jobs: a person can stop and resume buying in the UI, too."""

from datetime import UTC, datetime
from typing import Final

import dagster as dg

from breakout_assets.defs.mailing import deliver_mail
from breakout_assets.defs.reporting import refusing
from breakout_assets.trading.account import Account


class Decision(dg.Config):
    """Who decides, and why; the ledger keeps both."""

    by: str
    reason: str


@dg.op
def halt(context: dg.OpExecutionContext, config: Decision, account: dg.ResourceParam[Account]) -> None:
    """Stop buying from the next decision on, until somebody resumes. Waiting purchases are cancelled; exits go on."""
    from breakout_assets.trading.switches import halt as pull

    ledger = account.open_ledger()
    with refusing():
        switch = pull(ledger, account.name, config.by, config.reason, _now(), account.mail)
    context.log.warning("%s: halted by %s: %s", account.name, switch.by, switch.reason)
    deliver_mail(context.log, account, ledger)


@dg.op
def resume(context: dg.OpExecutionContext, config: Decision, account: dg.ResourceParam[Account]) -> None:
    """Buy again. The drawdown guard counts from here: what was lost before is accepted."""
    from breakout_assets.trading.switches import resume as pull

    ledger = account.open_ledger()
    with refusing():
        switch = pull(ledger, account.name, config.by, config.reason, _now(), account.mail)
    context.log.warning("%s: resumed by %s: %s", account.name, switch.by, switch.reason)
    deliver_mail(context.log, account, ledger)


def _now() -> datetime:
    # When a person decides is not a partition's time; a replayed past has no person in it.
    return datetime.now(UTC).replace(tzinfo=None, microsecond=0)


@dg.job(description="Stop buying until somebody resumes; exits go on. Config: by, reason.")
def halt_trading() -> None:
    """Stop buying."""
    halt()


@dg.job(description="Buy again after a halt, by a person or by the drawdown guard. Config: by, reason.")
def resume_trading() -> None:
    """Buy again."""
    resume()


JOBS: Final = [halt_trading, resume_trading]
