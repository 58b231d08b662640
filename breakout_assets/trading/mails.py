"""What is mailed: pure functions from what happened to a mail, as text and as HTML."""

import hashlib
import re
from base64 import b64encode
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from html import escape
from typing import Final, Literal
from urllib.parse import quote, quote_plus

from breakout_assets.errors import SettingsError
from breakout_assets.learning.expiry import Expiry
from breakout_assets.market.health import Condition
from breakout_assets.tables import OutcomeStatus
from breakout_assets.trading.money import plain, usd
from breakout_assets.trading.orders import Side

_ADDRESS: Final = re.compile(r"[!-~]+@[!-~]+")
# Greedy: a password that holds an @ or a slash itself goes whole.
_LOGIN_IN_URL: Final = re.compile(r"(?<=://)[^/\s]*:\S*(?=@)")
# For people; the other statuses are such words themselves.
_WORDS: Final[dict[OutcomeStatus, str]] = {"submitted": "waiting", "partial": "partly filled", "unknown": "in doubt"}
_COLUMNS: Final = ("what", "side", "token", "quantity", "price USD", "value USD", "fee USD", "decided", "why")
_NUMBERS: Final = range(3, 7)  # columns that are set to the right
# The order in which a subject counts.
_COUNTED: Final = (
    *("bought", "sold", "partly bought", "partly sold"),
    *("waiting", "in doubt", "cancelled", "rejected"),
)
# A subject fits one line of a mail program, and an error one screen of a telephone.
_SUBJECT_LENGTH: Final = 120
_ERROR_LENGTH: Final = 300
_MOST_STEPS: Final = 10  # of a failed run; the run's page shows the rest
_CELL: Final = "border-bottom:1px solid #ddd;padding:4px 8px"


@dataclass(frozen=True, kw_only=True)
class Mail:
    """A mail of the outbox."""

    message_id: str
    """With its angle brackets. A copy that is sent again has the same one."""
    hour: datetime
    """Of what it tells, naive UTC; the date of the mail."""
    recipients: tuple[str, ...]
    subject: str
    text_body: str
    html_body: str


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
    ui_url: str = ""
    """Where the UI is found, for links; empty: mails have none."""

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


@dataclass(frozen=True, kw_only=True)
class OrderLine:
    """What became of one order in an hour; what is not known, or does not apply, is null."""

    side: Side
    token: str
    status: OutcomeStatus
    """At the end of the hour."""
    quantity: Decimal
    """Units: executed in this hour, else ordered."""
    price: Decimal
    """USD a unit: of the execution, else the limit."""
    value: Decimal | None
    """USD, fee not included."""
    fee: Decimal | None
    """USD."""
    decided: datetime
    """The hour whose snapshot led to it."""
    why: str


def compose_hour(
    account: str,
    hour: datetime,
    lines: Sequence[OrderLine],
    portfolio_lines: Sequence[str],
    notices: Sequence[str],
    recipients: tuple[str, ...],
    link: str | None,
    part: int = 1,
) -> Mail:
    """The one mail of an hour: what became of orders, and what else a person should know.

    Args:
        account: whose hour it is.
        hour: naive UTC.
        lines: orders, in the order in which they shall be read.
        portfolio_lines: sentences about the account as it then is.
        notices: sentences about halts, guards, differences with the venue; the gravest first.
        recipients: who is told.
        link: to the hour in the UI.
        part: 1, or more if an earlier mail of this hour may have been sent already. The Message-ID depends on it, on
            account and hour, and on nothing else.
    """
    more = ["More happened in this hour after the last mail about it."] if part > 1 else []
    suffix = f" (part {part})" if part > 1 else ""
    return _mail(
        account=account,
        kind="hour",
        key=f"{hour.isoformat()}|{part}",
        hour=hour,
        recipients=recipients,
        title=f"{_headline(lines, notices)} at {_time(hour)}{suffix}",
        before=[*more, *notices],
        rows=[_cells(line) for line in lines],
        after=portfolio_lines,
        link=link,
    )


def compose_condition(account: str, found: Condition, recipients: tuple[str, ...], link: str | None = None) -> Mail:
    """The mail that tells that market data have become unfit for trading, or fit again."""
    meaning = {
        "REDUCE_ONLY": ["Open positions are still left on time."],
        "HALTED": ["Nothing is opened; what is due is left near its last believed price."],
        "MISSING": ["Nothing is bought or sold until there is an hour to trade on."],
    }
    return _mail(
        account=account,
        kind="data",
        key=f"{found.hour.isoformat()}|{found.state}",
        hour=found.hour,
        recipients=recipients,
        title=f"market data {found.state} at {_time(found.hour)}",
        before=[found.sentence, *meaning.get(found.state, [])],
        link=link,
    )


def compose_expired(account: str, found: Expiry, recipients: tuple[str, ...], link: str | None = None) -> Mail:
    """The mail that tells that models or their evaluation have expired, or are in time again."""
    return _mail(
        account=account,
        kind="models",
        key=f"{found.hour.isoformat()}|{found.state}",
        hour=found.hour,
        recipients=recipients,
        title=f"models {found.state} at {_time(found.hour)}",
        before=[found.sentence],
        link=link,
    )


def compose_switch(
    account: str, action: Literal["halt", "resume"], at: datetime, by: str, reason: str, mail: MailSettings
) -> Mail:
    """The mail that tells that buying was stopped, or goes on."""
    what = "buying is halted" if action == "halt" else "buying goes on"
    after = (
        ["Nothing is opened until somebody resumes; open positions are still left on time."]
        if action == "halt"
        else ["The drawdown guard counts from here."]
    )
    return _mail(
        account=account,
        kind="switch",
        key=f"{at.isoformat()}|{action}",
        hour=at,
        recipients=mail.recipients,
        title=f"{what}, by {by} at {_time(at)}",
        before=[f"{what[0].upper()}{what[1:]}, by {by}: {reason}", *after],
        rows=[],
        after=[],
        link=mail.ui_url or None,
    )


def compose_failed_run(
    account: str,
    job: str,
    run_id: str,
    partition: str | None,
    failed_at: datetime,
    error: str,
    steps: Sequence[tuple[str, str]],
    recipients: tuple[str, ...],
    link: str | None = None,
    secrets: Iterable[str] = (),
) -> Mail:
    """The mail about a run that failed.

    Args:
        account: named in the subject.
        job: its name.
        run_id: the mail's identity; a run has one mail.
        partition: what it was to make; null if it had none.
        failed_at: naive UTC.
        error: what the run says of its failure.
        steps: name and error of each step that failed.
        recipients: who is told.
        link: to the run in the UI.
        secrets: values that must not be mailed, whoever put them into an error.
    """
    hidden = tuple(secrets)
    of = f" of {partition}" if partition else ""
    # Scrubbed before it is cut, or half a secret would remain.
    told = [f"{name}: {_short(scrub(text, hidden), _ERROR_LENGTH)}" for name, text in steps[:_MOST_STEPS]]
    if len(steps) > _MOST_STEPS:
        told.append(f"… and {len(steps) - _MOST_STEPS} more steps.")
    return _mail(
        account=account,
        kind="run",
        key=run_id,
        hour=failed_at,
        recipients=recipients,
        title=scrub(f"{job}{of} failed", hidden),
        before=[_short(scrub(error, hidden), _ERROR_LENGTH), *told, f"Run {run_id}, {_time(failed_at)}."],
        link=link,
    )


def scrub(text: str, secrets: Iterable[str]) -> str:
    """The text without these values, as they are or as a URL, a repr or a login would spell them.

    Logins in URLs go too, whether or not they are known.
    """
    forms: set[str] = set()
    for secret in filter(None, secrets):
        forms |= {secret, quote(secret, safe=""), quote_plus(secret), repr(secret)[1:-1]}
        forms.add(b64encode(secret.encode()).decode())
    for form in sorted(forms, key=len, reverse=True):  # one secret may begin with another
        text = text.replace(form, "***")
    return _LOGIN_IN_URL.sub("***", text)


def partition_link(base: str, asset: str, key: str) -> str | None:
    """The page of an asset's partition in the UI; None without the UI's address."""
    if not base:
        return None
    return f"{base.rstrip('/')}/assets/{quote(asset, safe='')}?view=partitions&partition={quote(key, safe='')}"


def run_link(base: str, run_id: str) -> str | None:
    """The page of a run in the UI; None without the UI's address."""
    return f"{base.rstrip('/')}/runs/{quote(run_id, safe='')}" if base else None


def _headline(lines: Sequence[OrderLine], notices: Sequence[str]) -> str:
    counts = Counter(_counted(line) for line in lines)
    told = [f"{counts[word]} {word}" for word in _COUNTED if counts[word]]
    if told and notices:
        told.append("1 notice" if len(notices) == 1 else f"{len(notices)} notices")
    elif notices:
        told.append(_short(notices[0], _SUBJECT_LENGTH).rstrip("."))
        told += [f"{len(notices) - 1} more"] if len(notices) > 1 else []
    return ", ".join(told) or "nothing happened"


def _counted(line: OrderLine) -> str:
    if line.status not in ("filled", "partial"):
        return _WORDS.get(line.status, line.status)
    done = "bought" if line.side == "buy" else "sold"
    return done if line.status == "filled" else f"partly {done}"


def _cells(line: OrderLine) -> list[str]:
    value = "" if line.value is None else usd(line.value)
    fee = "" if line.fee is None else f"{line.fee:,.4f}"  # fees of small orders are fractions of a cent
    what, decided = _WORDS.get(line.status, line.status), f"{line.decided:%Y-%m-%d %H:%M}"
    return [what, line.side, line.token, plain(line.quantity), plain(line.price), value, fee, decided, line.why]


def _mail(
    *,
    account: str,
    kind: str,
    key: str,
    hour: datetime,
    recipients: tuple[str, ...],
    title: str,
    before: Sequence[str],
    rows: Sequence[Sequence[str]] = (),
    after: Sequence[str] = (),
    link: str | None,
) -> Mail:
    """A mail whose Message-ID depends on account, kind and key alone."""
    digest = hashlib.sha256(f"{account}|{kind}|{key}".encode()).hexdigest()[:32]
    title, link = _printable(f"{account}: {title}"), _printable(link or "")
    above, below = [_printable(line) for line in before], [_printable(line) for line in after]
    table = [[_printable(cell) for cell in row] for row in rows]
    orders = ["\n".join(f"{name}: {cell}" for name, cell in zip(_COLUMNS, row, strict=True) if cell) for row in table]
    text = [title, *above, *orders, "\n".join(below), link]
    return Mail(
        message_id=f"<{digest}@breakout-assets.invalid>",
        hour=hour,
        recipients=recipients,
        subject=_short(title, 2 * _SUBJECT_LENGTH),
        text_body="\n\n".join(filter(None, text)) + "\n",
        html_body=_html(title, above, table, below, link),
    )


def _html(title: str, above: Sequence[str], rows: Sequence[Sequence[str]], below: Sequence[str], link: str) -> str:
    blocks = [f"<h3>{escape(title)}</h3>", *(f"<p>{escape(line)}</p>" for line in above)]
    if rows:
        body = "\n".join(_html_row("td", row) for row in rows)
        head = _html_row("th", _COLUMNS)
        blocks.append(f'<table style="border-collapse:collapse;font-size:90%">\n{head}\n{body}\n</table>')
    if below:
        blocks.append("<p>" + "<br>\n".join(escape(line) for line in below) + "</p>")
    if link:
        blocks.append(f'<p><a href="{escape(link)}">{escape(link)}</a></p>')
    return '<html><body style="font-family:sans-serif">' + "\n".join(blocks) + "</body></html>\n"


def _html_row(tag: str, cells: Sequence[str]) -> str:
    aligned = ["right" if number in _NUMBERS else "left" for number in range(len(cells))]
    return (
        "<tr>"
        + "".join(
            f'<{tag} style="{_CELL};text-align:{side}">{escape(cell)}</{tag}>'
            for side, cell in zip(aligned, cells, strict=True)
        )
        + "</tr>"
    )


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _short(text: str, length: int) -> str:
    """The text on one line, cut where it is too long."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"


def _printable(text: str) -> str:
    """One line: names come from outside, and a line break in a subject would begin another header."""
    return "".join(char if char.isprintable() else " " for char in text)
