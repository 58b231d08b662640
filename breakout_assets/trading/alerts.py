"""Mails about filled orders: written in the transaction of the fills, sent afterwards, never in trading's way."""

import hashlib
import re
import smtplib
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from email.message import EmailMessage
from email.utils import format_datetime
from html import escape
from typing import Final, Literal

from breakout_assets.errors import SettingsError
from breakout_assets.market.health import Condition
from breakout_assets.trading.ledger import Ledger, Mail
from breakout_assets.trading.money import plain, usd
from breakout_assets.trading.portfolio import Fill, Order, Portfolio

_ADDRESS: Final = re.compile(r"[!-~]+@[!-~]+")
_COLUMNS: Final = ("side", "token", "quantity", "price USD", "value USD", "fee USD", "decided", "why")


@dataclass(frozen=True, kw_only=True)
class MailSettings:
    """An SMTP account and who is to be told.

    Raises:
        SettingsError: an address is malformed, nobody is to be told, or a password would travel unencrypted or
            cannot be sent; the message never holds the password.
    """

    host: str
    port: int
    security: Literal["none", "starttls", "tls"]
    sender: str
    recipients: tuple[str, ...]
    user: str = ""
    password: str = field(default="", repr=False)
    timeout: float = 20
    """Seconds that one answer of the server may take."""

    def __post_init__(self) -> None:
        if not self.recipients:
            raise SettingsError("mail is switched on without a recipient; set BREAKOUT_MAIL_TO")
        for address in (self.sender, *self.recipients):
            # No spaces, commas or line breaks: an address can then add neither a header nor a recipient.
            if not _ADDRESS.fullmatch(address) or set(address) & set(",;<>()\"'"):
                raise SettingsError(f"{address!r} is not a mail address; use the form name@example.com")
        if self.user and self.security == "none":
            raise SettingsError(
                "a mail password is never sent unencrypted; set BREAKOUT_MAIL_SECURITY to starttls or tls"
            )
        if not (self.user + self.password).isascii():
            raise SettingsError("the mail account's name and password must be ASCII; the login cannot carry more")


@dataclass(frozen=True)
class DeliveryReport:
    """What became of the outbox."""

    sent: int
    pending: int
    """Left for the next time."""
    errors: tuple[str, ...]
    """One sentence for each mail that was not sent, or not to everybody."""


def compose(
    account: str,
    hour: datetime,
    filled: Sequence[tuple[Order, Fill]],
    portfolio: Portfolio,
    recipients: tuple[str, ...],
) -> Mail:
    """The mail that tells of all orders filled in an hour, as text and as HTML.

    The Message-ID depends on account and hour alone: a copy that is sent again is recognised as one.
    """
    digest = hashlib.sha256(f"{account}|{hour.isoformat()}".encode()).hexdigest()[:32]
    count = "1 order" if len(filled) == 1 else f"{len(filled)} orders"
    title = _printable(f"{account}: {count} filled at {hour:%Y-%m-%d %H:%M} UTC")
    rows = [[_printable(cell) for cell in _cells(order, fill)] for order, fill in filled]
    summary = [
        f"Equity {usd(portfolio.equity)} USD, of it cash {usd(portfolio.cash)} USD.",
        f"{len(portfolio.positions)} open positions.",
        f"Realised profit {usd(portfolio.realised_profit)} USD, fees paid {usd(portfolio.fees)} USD.",
    ]
    blocks = ["\n".join(f"{name}: {cell}" for name, cell in zip(_COLUMNS, row, strict=True)) for row in rows]
    return Mail(
        message_id=f"<{digest}@breakout-assets.invalid>",
        hour=hour,
        recipients=recipients,
        subject=title,
        text_body="\n\n".join([title, *blocks, "\n".join(summary)]) + "\n",
        html_body=_html(title, rows, summary),
    )


def compose_condition(account: str, found: Condition, recipients: tuple[str, ...]) -> Mail:
    """The mail that tells that market data have become unfit for trading, or fit again."""
    digest = hashlib.sha256(f"{account}|{found.hour.isoformat()}|{found.state}".encode()).hexdigest()[:32]
    lines = [found.sentence, "Open positions are still left on time." if found.state == "REDUCE_ONLY" else ""]
    if found.state in ("HALTED", "MISSING"):
        lines[1] = "Nothing is bought or sold until there are prices that can be believed."
    body = [_printable(line) for line in lines if line]
    return Mail(
        message_id=f"<{digest}@breakout-assets.invalid>",
        hour=found.hour,
        recipients=recipients,
        subject=_printable(f"{account}: market data {found.state} at {found.hour:%Y-%m-%d %H:%M} UTC"),
        text_body="\n\n".join(body) + "\n",
        html_body=f"<html><body><p>{'</p><p>'.join(escape(line) for line in body)}</p></body></html>\n",
    )


def deliver(ledger: Ledger, settings: MailSettings, tls: ssl.SSLContext | None = None) -> DeliveryReport:
    """Send what waits in the outbox. No fault of a mail server is raised; it is recorded and tried again next time.

    A process that is killed between the server's answer and the record of it leaves the mail to be sent again, with
    the same Message-ID.

    Args:
        ledger: holds the outbox.
        settings: the SMTP account.
        tls: how the server's certificate is verified; by default against the system's authorities.

    Raises:
        DataError: the ledger cannot be used.
        TemporaryError: another process holds the ledger.
    """
    with ledger.sole_delivery() as free:
        if free:
            sent, errors = _deliver_all(ledger, settings, tls or ssl.create_default_context())
        else:
            sent, errors = 0, ["another process is sending the mails of this ledger"]
    return DeliveryReport(sent=sent, pending=len(ledger.pending_mails()), errors=tuple(errors))


def _deliver_all(ledger: Ledger, settings: MailSettings, tls: ssl.SSLContext) -> tuple[int, list[str]]:
    sent, errors = 0, []
    for mail in ledger.pending_mails():
        error, accepted, usable = None, False, True
        try:
            refused = _send(mail, settings, tls)
            accepted = True
            if refused:
                error = f"accepted, but not for {', '.join(sorted(refused))}"
        except (smtplib.SMTPException, OSError, UnicodeError) as failure:  # the last one: an impossible host name
            error = explain(failure)
            # A refusal of this mail says nothing about the next one; anything else does, and waiting for a dead
            # server once is enough.
            usable = isinstance(
                failure, smtplib.SMTPRecipientsRefused | smtplib.SMTPSenderRefused | smtplib.SMTPDataError
            )
        ledger.record_attempt(mail.message_id, sent=accepted, error=error)
        sent += accepted
        if error:
            errors.append(f"mail of {mail.hour}: {error}")
        if not usable:
            break
    return sent, errors


def _send(mail: Mail, settings: MailSettings, tls: ssl.SSLContext) -> set[str]:
    """Hand one mail to the server; the recipients that it refused although it accepted the mail."""
    if settings.security == "tls":
        server: smtplib.SMTP = smtplib.SMTP_SSL(settings.host, settings.port, timeout=settings.timeout, context=tls)
    else:
        server = smtplib.SMTP(settings.host, settings.port, timeout=settings.timeout)
    try:
        if settings.security == "starttls":
            server.starttls(context=tls)  # raises where the server has none: there is no fallback to plain text
        if settings.user:
            server.login(settings.user, settings.password)
        refused = server.send_message(_message(mail, settings.sender), settings.sender, mail.recipients)
    except BaseException:
        server.close()
        raise
    try:
        server.quit()
    except (smtplib.SMTPException, OSError):
        server.close()  # the mail was accepted; how the server says goodbye changes nothing
    return set(refused)


def explain(failure: Exception) -> str:
    """A failure in words that are safe to store: an answer's code, never its text, which may repeat what was sent."""
    if isinstance(failure, smtplib.SMTPAuthenticationError):
        return f"the mail server refused the login ({failure.smtp_code}); check BREAKOUT_MAIL_USER and its password"
    if isinstance(failure, smtplib.SMTPRecipientsRefused):
        codes = sorted({str(code) for code, _ in failure.recipients.values()})
        return f"the mail server refused all recipients ({', '.join(codes)}); check BREAKOUT_MAIL_TO"
    if isinstance(failure, smtplib.SMTPResponseException):
        return f"the mail server answered {failure.smtp_code} ({type(failure).__name__})"
    if isinstance(failure, smtplib.SMTPNotSupportedError):
        return "the mail server lacks an extension that is needed; check BREAKOUT_MAIL_SECURITY and the port"
    if isinstance(failure, TimeoutError) or isinstance(failure.__context__, TimeoutError):
        return "the mail server did not answer in time"  # smtplib wraps some of these as a closed connection
    if isinstance(failure, smtplib.SMTPServerDisconnected):
        return "the mail server closed the connection; a wrong password can be the cause"
    if isinstance(failure, ssl.SSLCertVerificationError):
        return f"the mail server's certificate is not trusted ({failure.verify_message})"
    if isinstance(failure, OSError) and failure.strerror:
        return f"the mail server cannot be reached ({failure.strerror})"
    return f"sending failed ({type(failure).__name__})"


def _message(mail: Mail, sender: str) -> EmailMessage:
    message = EmailMessage()
    message["From"] = sender
    message["To"] = ", ".join(mail.recipients)
    message["Subject"] = mail.subject
    message["Date"] = format_datetime(mail.hour.replace(tzinfo=UTC))
    message["Message-ID"] = mail.message_id
    message["Auto-Submitted"] = "auto-generated"  # keeps absence notes from answering
    message.set_content(mail.text_body)
    message.add_alternative(mail.html_body, subtype="html")
    return message


def _cells(order: Order, fill: Fill) -> tuple[str, ...]:
    why = order.reason if fill.note is None else f"{order.reason}; {fill.note}"
    decided = f"{order.hour:%Y-%m-%d %H:%M}"
    price, fee = plain(fill.price), _cents(fill.fee)
    return (order.side, order.token, plain(fill.quantity), price, usd(fill.value), fee, decided, why)


def _cents(amount: Decimal) -> str:
    return f"{amount:,.4f}"  # fees of small orders are fractions of a cent


def _html(title: str, rows: Sequence[Sequence[str]], summary: Sequence[str]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in _COLUMNS)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n" for row in rows)
    lines = "<br>\n".join(escape(line) for line in summary)
    return (
        f"<html><body><h3>{escape(title)}</h3>\n<table><tr>{head}</tr>\n{body}</table>\n<p>{lines}</p></body></html>\n"
    )


def _printable(text: str) -> str:
    """One line: names come from outside, and a line break in a subject would begin another header."""
    return "".join(char if char.isprintable() else " " for char in text)
