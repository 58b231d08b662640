"""The way of a mail from the outbox to a server: at least once, and never in trading's way."""

import smtplib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Final

from breakout_assets.trading.ledger import Ledger
from breakout_assets.trading.mails import Mail, MailSettings

# After an outage of days the outbox is long, and a sensor's tick has a minute. The next tick sends the next ones.
MOST_AT_ONCE: Final = 30


@dataclass(frozen=True)
class DeliveryReport:
    """What became of the outbox."""

    sent: int
    pending: int
    """Left for the next time."""
    errors: tuple[str, ...]
    """One sentence for each mail that was not sent, or not to everybody."""


def deliver(ledger: Ledger, settings: MailSettings, tls: ssl.SSLContext | None = None) -> DeliveryReport:
    """Send what waits in the outbox. No fault of a mail server is raised; it is recorded and tried again next time.

    An attempt is committed before a server is given a mail, and its end after the server's answer. A process that is
    killed in between leaves the mail to be sent again, as it was and with the same Message-ID. While no server can be
    reached nothing is attempted, so that the mail of an hour can still take in what happens later in it.

    Args:
        ledger: holds the outbox.
        settings: the SMTP account.
        tls: how the server's certificate is verified; by default against the system's authorities.

    Raises:
        DataError: the ledger cannot be used.
        TemporaryError: another process holds the ledger.
    """
    with ledger.sole("delivery") as free:
        waiting = ledger.pending_mails()[:MOST_AT_ONCE]
        sent, errors = 0, list[str]()
        if waiting and free:
            sent, errors = _deliver_all(ledger, waiting, settings, tls or ssl.create_default_context())
        elif waiting:
            errors = ["another process is sending the mails of this ledger"]
    return DeliveryReport(sent=sent, pending=len(ledger.pending_mails()), errors=tuple(errors))


def _deliver_all(
    ledger: Ledger, waiting: list[Mail], settings: MailSettings, tls: ssl.SSLContext
) -> tuple[int, list[str]]:
    """Returns how many were sent, and what went wrong."""
    sent, errors = 0, list[str]()
    try:
        server = _connect(settings, tls)
    except (smtplib.SMTPException, OSError, UnicodeError) as failure:  # the last one: an impossible host name
        return 0, [explain(failure)]
    with _left_in_the_end(server):
        for each in waiting:
            mail = ledger.begin_attempt(each.message_id)
            if mail is None:
                continue
            accepted, error, usable = _send(server, mail, settings.sender)
            ledger.end_attempt(mail.message_id, accepted, error)
            sent += accepted
            if error:
                errors.append(f"mail of {mail.hour}: {error}")
            if not usable:
                break
    return sent, errors


def _connect(settings: MailSettings, tls: ssl.SSLContext) -> smtplib.SMTP:
    """A connection that is encrypted and logged in as the settings say."""
    if settings.security == "tls":
        server: smtplib.SMTP = smtplib.SMTP_SSL(settings.host, settings.port, timeout=settings.timeout, context=tls)
    else:
        server = smtplib.SMTP(settings.host, settings.port, timeout=settings.timeout)
    try:
        if settings.security == "starttls":
            server.starttls(context=tls)  # raises where the server has none: there is no fallback to plain text
        if settings.user:
            server.login(settings.user, settings.password)
    except BaseException:
        server.close()
        raise
    return server


@contextmanager
def _left_in_the_end(server: smtplib.SMTP) -> Iterator[None]:
    try:
        yield
    except BaseException:
        server.close()
        raise
    try:
        server.quit()
    except (smtplib.SMTPException, OSError):
        server.close()  # what was accepted was accepted; how the server says goodbye changes nothing


def _send(server: smtplib.SMTP, mail: Mail, sender: str) -> tuple[bool, str | None, bool]:
    """Hand over one mail: whether it was accepted, what went wrong, and whether the server may be given another."""
    try:
        refused = server.send_message(_message(mail, sender), sender, mail.recipients)
    except (smtplib.SMTPRecipientsRefused, smtplib.SMTPSenderRefused, smtplib.SMTPDataError) as refusal:
        # A refusal of this mail says nothing about the next one. A server that hangs up with it says so in its code.
        return False, explain(refusal), server.sock is not None
    except (smtplib.SMTPException, OSError) as failure:
        return False, explain(failure), False
    return True, f"accepted, but not for {', '.join(sorted(refused))}" if refused else None, True


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
