"""The way of a mail from the outbox to a server: at least once to each recipient, and never in trading's way."""

import smtplib
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Final

from breakout_assets.trading.ledger import Attempt, Ledger
from breakout_assets.trading.mails import Mail, MailSettings

# After an outage of days the outbox is long, and a sensor's tick has a minute. The next tick sends the next ones.
MOST_AT_ONCE: Final = 30
_ACCEPTED: Final = 250


@dataclass(frozen=True)
class DeliveryReport:
    """What became of the outbox."""

    sent: int
    """Mails that nobody waits for any more."""
    pending: int
    """Left for the next time."""
    errors: tuple[str, ...]
    """One sentence for each mail that was not sent, or not to everybody."""


def deliver(ledger: Ledger, settings: MailSettings, tls: ssl.SSLContext | None = None) -> DeliveryReport:
    """Send what waits in the outbox. No fault of a mail server is raised; it is recorded and tried again next time.

    An attempt is committed before a server is given a mail, and its end after the server's answer. A process that is
    killed in between leaves the mail to be sent again, as it was and with the same Message-ID. So does a server that
    cannot take it for a recipient now (4xx): he gets the same mail later, and nobody else does. A recipient whom the
    server refuses for good (5xx) is given up, unless it refuses all of them. While no server can be reached nothing is
    attempted, so that the mail of an hour can still take in what happens later in it.

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
        return 0, [in_words(failure)]
    with _left_in_the_end(server):
        for each in waiting:
            attempt = ledger.begin_attempt(each.message_id)
            if attempt is None:
                continue
            attempt, error, usable = _send(server, attempt, settings.sender)
            ledger.end_attempt(attempt, error)
            sent += not attempt.waiting
            if error:
                errors.append(f"mail of {each.hour}: {error}")
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


def _send(server: smtplib.SMTP, attempt: Attempt, sender: str) -> tuple[Attempt, str | None, bool]:
    """Hand over one mail: how it then stands, what went wrong, and whether the server may be given another."""
    try:
        refused = server.send_message(_message(attempt.mail, sender), sender, attempt.waiting)
    except smtplib.SMTPRecipientsRefused as refusal:
        # It names those who were answered. After a 421 the others were not asked, and nobody was given the mail.
        attempt = _settle(attempt, {each: code for each, (code, _) in refusal.recipients.items()})
        reached = _ACCEPTED in attempt.settled.values()
        return attempt, _shortfall(attempt) if reached else in_words(refusal), server.sock is not None
    except (smtplib.SMTPSenderRefused, smtplib.SMTPDataError) as refusal:
        # A refusal of this mail says nothing about the next one. A server that hangs up with it says so in its code.
        return attempt, in_words(refusal), server.sock is not None
    except (smtplib.SMTPException, OSError) as failure:
        return attempt, in_words(failure), False
    answers = dict.fromkeys(attempt.waiting, _ACCEPTED) | {each: code for each, (code, _) in refused.items()}
    attempt = _settle(attempt, answers)
    return attempt, _shortfall(attempt), True


def _settle(attempt: Attempt, answers: Mapping[str, int]) -> Attempt:
    """The attempt with those answers that are the last word: any other than these may be another one next time."""
    last_words = {each: code for each, code in answers.items() if code == _ACCEPTED or 500 <= code < 600}
    told = replace(attempt, settled={**attempt.settled, **last_words})
    if not told.waiting and _ACCEPTED not in told.settled.values():
        # What is refused for all is mostly the fault of the account or of the settings, and a person can mend it.
        return replace(attempt, settled={})
    return told


def _shortfall(attempt: Attempt) -> str | None:
    """Who of the recipients of an accepted mail does not have it."""
    never = [f"{each} ({code})" for each, code in sorted(attempt.settled.items()) if code != _ACCEPTED]
    told = [f"not for {', '.join(never)}"] if never else []
    told += [f"not yet for {', '.join(sorted(attempt.waiting))}"] if attempt.waiting else []
    return f"accepted, but {' and '.join(told)}" if told else None


def in_words(failure: Exception) -> str:
    """A failure in words that are safe to store: an answer's code, never its text, which may repeat what was sent."""
    if isinstance(failure, smtplib.SMTPAuthenticationError):
        return f"the mail server refused the login ({failure.smtp_code}); check BREAKOUT_MAIL_USER and its password"
    if isinstance(failure, smtplib.SMTPRecipientsRefused):
        codes = ", ".join(sorted({str(code) for code, _ in failure.recipients.values()}))
        if all(code < 500 for code, _ in failure.recipients.values()):
            return f"the mail server takes a mail for no recipient now ({codes})"
        return f"the mail server refused all recipients ({codes}); check BREAKOUT_MAIL_TO"
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
