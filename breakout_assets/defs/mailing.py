"""Delivery of mails from assets and sensors: whatever happens to a mail is logged, and fails nothing."""

from dataclasses import replace
from typing import Any

from breakout_assets.settings import SECRETS, read_secret
from breakout_assets.trading.account import Account
from breakout_assets.trading.delivery import DeliveryReport, deliver
from breakout_assets.trading.mails import scrub


def deliver_mail(log: Any, account: Account, ledger: Any) -> DeliveryReport | None:
    """Send what waits in the outbox; whatever happens here changes no order and fails no run.

    Returns:
        None without a mail account, or if the outbox cannot be used now.
    """
    if account.mail is None:
        return None
    try:
        report = deliver(ledger, replace(account.mail, password=read_secret("MAIL_PASSWORD")))
    except Exception as error:  # what the mails tell of is committed; none of them may fail the run that did it
        log.warning("mails stay in the outbox: %s", without_secrets(error))
        return None
    for problem in report.errors:
        log.warning("mail: %s; what somebody still waits for stays in the outbox and is tried again", problem)
    return report


def without_secrets(error: Exception) -> str:
    """An error in words that may be logged."""
    return scrub(f"{type(error).__name__}: {error}", secrets())


def secrets() -> list[str]:
    """The values of all secrets that are set, now."""
    return [value for value in map(read_secret, SECRETS) if value]
