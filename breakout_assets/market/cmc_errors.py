"""What CoinMarketCap's errors mean: which pass by themselves, how long to wait, and what the reader can do."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import requests

from breakout_assets.errors import DataError, TemporaryError
from breakout_assets.market.listing import shown, whole

EXCERPT_CHARACTERS: Final = 200
AGAIN: Final = "Run this hour again; the current one can only be had before it is over."


@dataclass(frozen=True)
class Reaction:
    """What follows a failure.

    Attributes:
        action: What a person can do; `{day}` and `{month}` stand for the next reset of the credits.
        passing: Whether it may pass by itself; else it fails again until somebody acts.
        first_wait: Seconds before the second attempt where the server names no time; None if there is none.
        growing: Whether each further wait is twice as long.
        attempts: Number of attempts at most.
    """

    action: str
    passing: bool = False
    first_wait: float | None = None
    growing: bool = True
    # Only a server that asks for no wait at all gets this far within a few minutes.
    attempts: int = 12


# Calls are counted by the minute, so a shorter wait than a whole one may meet the same minute.
_MINUTE: Final = 60.0
CONNECTION: Final = Reaction(f"Check BREAKOUT_CMC_URL and the network. {AGAIN}", passing=True, first_wait=1.0)
# The server may have answered in full, and then each attempt has cost its credits.
CUT_OFF: Final = Reaction(AGAIN, passing=True, first_wait=1.0, attempts=4)
SERVER_FAULT: Final = Reaction(f"The fault is on CoinMarketCap's side. {AGAIN}", passing=True, first_wait=1.0)
FOREIGN: Final = Reaction(
    "Something else answers in CoinMarketCap's place: check BREAKOUT_CMC_URL and any proxy on the way."
)
UNKNOWN: Final = Reaction("Look the answer up in CoinMarketCap's documentation; nothing was stored.")
# By CoinMarketCap's error code or by HTTP status; the two ranges do not overlap.
REACTIONS: Final[dict[int, Reaction]] = {
    400: Reaction("Correct the parameter it names; BREAKOUT_CMC_LIMIT must be 1 to 5000."),
    401: Reaction("Set BREAKOUT_CMC_API_KEY to a valid key."),
    402: Reaction("Check plan and payment on CoinMarketCap's account page."),
    403: Reaction("Check that the key's plan covers this endpoint and that no firewall or proxy answers in its place."),
    404: Reaction("Check BREAKOUT_CMC_URL and BREAKOUT_CMC_VERSION."),
    408: CUT_OFF,
    429: Reaction(f"Too many requests: wait a minute. {AGAIN}", True, _MINUTE, growing=False),
    1001: Reaction("Set BREAKOUT_CMC_API_KEY to a valid key."),
    1002: Reaction(
        "Set BREAKOUT_CMC_API_KEY to your key, or choose BREAKOUT_CMC_KEYLESS; if the key is set, a proxy on the way "
        "removes the header."
    ),
    1003: Reaction("Activate or pay the plan of this key on CoinMarketCap's account page."),
    1004: Reaction("Renew the subscription of this key on CoinMarketCap's account page."),
    1005: Reaction(
        "Set BREAKOUT_CMC_API_KEY and no BREAKOUT_CMC_KEYLESS; this endpoint does not answer without a key."
    ),
    1006: Reaction("Choose a plan that covers this endpoint, or another BREAKOUT_CMC_VERSION."),
    1007: Reaction("Ask CoinMarketCap's support, or set BREAKOUT_CMC_API_KEY to another key."),
    1008: Reaction(
        f"Calls of this minute are used up: wait a minute. {AGAIN}",
        True,
        _MINUTE,
        growing=False,
    ),
    1009: Reaction(
        "Credits of this day are used up; on a free plan they come back at midnight UTC, {day}. Fewer coins cost less: "
        "lower BREAKOUT_CMC_LIMIT."
    ),
    1010: Reaction(
        "Credits of this month are used up; on a free plan they come back on the first, {month} UTC, on a paid one on "
        "its billing day. Choose a larger plan, or ask for fewer coins: lower BREAKOUT_CMC_LIMIT."
    ),
    1011: Reaction(
        f"Too many requests from this address: stop other programs that share it, or wait. {AGAIN}",
        True,
        _MINUTE,
    ),
}


class RequestError(Exception):
    """One request that has failed. Its text contains no key.

    Attributes:
        what: What happened; where it happened is put before it once no further attempt is made.
        reaction: What follows.
        number: CoinMarketCap's code or the HTTP status that decided, 0 without either.
        server_wait: Seconds that the server asked to wait.
    """

    def __init__(self, what: str, reaction: Reaction, number: int = 0, server_wait: float | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.reaction = reaction
        self.number = number
        self.server_wait = server_wait

    def error(self, now: datetime, more: str = "") -> DataError | TemporaryError:
        """The error of this project that it ends in.

        Args:
            now: Time of the call, naive UTC; decides which reset of the credits is the next.
            more: A further sentence.
        """
        month = (now.replace(day=1) + timedelta(days=32)).replace(day=1)
        action = self.reaction.action.format(
            day=f"{now + timedelta(days=1):%Y-%m-%d} 00:00", month=f"{month:%Y-%m-%d} 00:00"
        )
        message = " ".join(part for part in (f"{self.what}.", action, more) if part)
        return TemporaryError(message) if self.reaction.passing else DataError(message)


def read_answer(
    http_status: int, headers: Mapping[str, str], content: bytes, now: datetime, hide: Callable[[str], str]
) -> Mapping[str, object]:
    """The decoded body of a successful answer.

    Args:
        http_status: Its HTTP status.
        headers: Its headers; two of them say how long to wait.
        content: Its unpacked body.
        now: Present time, naive UTC.
        hide: Takes secrets out of a text.

    Raises:
        RequestError: It reports an error, or is no answer of CoinMarketCap.
    """
    body = _decoded(http_status, headers, content, now, hide)
    code = error_code(body)
    if http_status == requests.codes.ok and code == 0:
        return body
    status = status_of(body)
    named = code if code is not None else excerpt(shown(status.get("error_code")), hide)
    said = status.get("error_message")
    message = excerpt(said, hide) if isinstance(said, str) and said.strip() else "no message"
    number, reaction = _verdict(http_status, code)
    what = f'HTTP {http_status}, error code {named}, "{message}"'
    raise RequestError(what, reaction, number, server_wait(headers, now))


def server_wait(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds that the server asks to wait, None if it names no time that lies ahead or names it unreadably."""
    after = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", after):
        return float(after)
    try:
        # As in `2025-07-01 18:27:00 +0000`.
        reset = datetime.strptime(headers.get("x-ratelimit-reset", "").strip(), "%Y-%m-%d %H:%M:%S %z")
        seconds = (reset.replace(tzinfo=None) - (reset.utcoffset() or timedelta(0)) - now).total_seconds()
    except (ValueError, OverflowError):
        return None
    return seconds if seconds > 0 else None


def status_of(body: Mapping[str, object]) -> Mapping[str, object]:
    """The status block, empty if there is none."""
    status = body.get("status")
    return status if isinstance(status, dict) else {}


def error_code(body: Mapping[str, object]) -> int | None:
    """The error code: 0 for success, None for a code that is not a number."""
    code = status_of(body).get("error_code")
    return 0 if code is None else whole(code)


def excerpt(text: str, hide: Callable[[str], str]) -> str:
    """The beginning of a server's text as one printable line; secrets are taken out first, as a cut could halve one."""
    start = hide(text)[:EXCERPT_CHARACTERS]
    return "".join(character if character.isprintable() else " " for character in start)


def _verdict(http_status: int, code: int | None) -> tuple[int, Reaction]:
    """The number that decides and what follows from it: the code where it is known, else the HTTP status."""
    number = code if code is not None and (code in REACTIONS or code // 100 == 5) else http_status
    if number // 100 == 5:
        return number, SERVER_FAULT
    return number, REACTIONS.get(number, UNKNOWN)


def _decoded(
    http_status: int, headers: Mapping[str, str], content: bytes, now: datetime, hide: Callable[[str], str]
) -> Mapping[str, object]:
    number, reaction = _verdict(http_status, None)
    try:
        body = json.loads(content)
        if isinstance(body, dict) and isinstance(body.get("status"), dict | None):
            return body
        fault = "is neither a listing nor an error report"
    except (ValueError, RecursionError):
        fault = "is not JSON or is cut off"
        if http_status < requests.codes.multiple_choices:
            # An object that begins and does not end is half an answer; anything else is a proxy's page in its place.
            reaction = CUT_OFF if content.lstrip().startswith(b"{") else FOREIGN
    start = excerpt(content.decode("utf-8", errors="replace"), hide)
    what = f'HTTP {http_status}, and the body {fault}: "{start}"'
    raise RequestError(what, reaction, number, server_wait(headers, now))
