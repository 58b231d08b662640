"""The listing of CoinMarketCap: one request becomes one hour's raw snapshot, or an error that says what to do.

`parse_listing` turns an answer into a frame and knows nothing of HTTP; `CoinMarketCap` asks for the answer. The key
travels in one header and nowhere else: no message, metadata or representation made here contains it.
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import ClassVar, Final, Literal
from urllib.parse import urlsplit

import pandas as pd
import requests
from urllib3.exceptions import HTTPError as TransportError

from breakout_assets.errors import DataError, SettingsError, TemporaryError
from breakout_assets.market.schema import HOUR, INTEGER_COLUMNS, RAW_COLUMNS, TEXT_COLUMNS, is_whole_hour, raw_frame

CURRENCY: Final = "USD"
KEY_HEADER: Final = "X-CMC_PRO_API_KEY"
# 5,000 coins, the most one call returns, are about 6 MB of text. The cap is on the unpacked size, so a small
# compressed answer cannot fill the memory either.
MAX_BODY_BYTES: Final = 50_000_000
EXCERPT_CHARACTERS: Final = 200
CHUNK_BYTES: Final = 65_536
# Whole numbers pass through doubles on their way into a snapshot; above this bound they would change silently.
LARGEST_EXACT: Final = 2**53
LONGEST_SHOWN: Final = 60
# These characters look the same in JSON, HTML, a URL and a repr, so a key made of them is found in any text that
# echoes it; CoinMarketCap's keys are hexadecimal digits and hyphens.
KEY_PATTERN: Final = re.compile(r"[A-Za-z0-9._~-]+")

SUPPLIES: Final = ("circulating_supply", "total_supply", "max_supply")
COIN_FIELDS: Final = ("id", "name", "symbol", *SUPPLIES, "date_added", "num_market_pairs", "cmc_rank")
# A coin and its quote both have `last_updated`; the quote's is the age of the price.
QUOTE_FIELDS: Final = tuple(name for name in RAW_COLUMNS if name not in (*COIN_FIELDS, "timestamp"))

AGAIN: Final = "Run this hour again before it is over."
# What a person can do, by CoinMarketCap's error code or by HTTP status; the two ranges do not overlap.
ACTIONS: Final[dict[int, str]] = {
    400: "Correct the parameter it names; BREAKOUT_CMC_LIMIT must be 1 to 5000.",
    401: "Set BREAKOUT_CMC_API_KEY to a valid key.",
    402: "Check plan and payment on CoinMarketCap's account page.",
    403: "Check that the key's plan covers this endpoint and that no firewall or proxy answers in its place.",
    404: "Check BREAKOUT_CMC_URL and BREAKOUT_CMC_VERSION.",
    408: AGAIN,
    429: "Too many requests: wait a minute, then run this hour again before it is over.",
    1001: "Set BREAKOUT_CMC_API_KEY to a valid key.",
    1002: "Set BREAKOUT_CMC_API_KEY to your key; if it is set, a proxy on the way removes the header.",
    1003: "Activate or pay the plan of this key on CoinMarketCap's account page.",
    1004: "Renew the subscription of this key on CoinMarketCap's account page.",
    1005: "Set BREAKOUT_CMC_API_KEY; this endpoint does not answer without a key.",
    1006: "Choose a plan that covers this endpoint, or another BREAKOUT_CMC_VERSION.",
    1007: "Ask CoinMarketCap's support, or set BREAKOUT_CMC_API_KEY to another key.",
    1008: "Calls of this minute are used up: wait a minute, then run this hour again before it is over.",
    1009: "Credits of this day are used up; a free plan resets at midnight UTC. Fewer coins cost less: lower "
    "BREAKOUT_CMC_LIMIT.",
    1010: "Credits of this month are used up; a free plan resets on the first, a paid one on its billing day. "
    "Choose a larger plan, or ask for fewer coins: lower BREAKOUT_CMC_LIMIT.",
    1011: "Too many requests from this address: stop other programs that share it, or wait, then run this hour again.",
}
PASSING: Final = frozenset({408, 429, 1008, 1009, 1011})
SERVER_FAULT: Final = "The fault is on CoinMarketCap's side: run this hour again before it is over."
UNKNOWN: Final = "Look the answer up in CoinMarketCap's documentation; nothing was stored."
KINDS: Final[dict[type, str]] = {
    type(None): "null",
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "an object",
}

_Failure = DataError | TemporaryError
_Quote = Callable[[str], str]


@dataclass(frozen=True, eq=False)
class Snapshot:
    """One hour of the market as its source gave it.

    Attributes:
        frame: Raw frame (`schema.RAW_COLUMNS`), one row a coin, in the order of the source.
        metadata: Where it came from: `source`, `endpoint`, `coins`, and as far as the server told them `credits` (of
            this call), `server_timestamp` (ISO text) and `notice` (the server's warning).
    """

    frame: pd.DataFrame
    metadata: dict[str, str | int | float]


@dataclass(frozen=True)
class CoinMarketCap:
    """CoinMarketCap's latest listing.

    Attributes:
        key: Returns the API key; called once in each fetch and never before.
        base_url: Address of the API without the path. It is shown in errors and metadata.
        api_version: Version of the listing endpoint.
        limit: Number of coins to ask for, largest market cap first; one credit per 200.
        timeout: Longest wait in seconds for the connection, and again for each part of the answer.
    """

    name: ClassVar[str] = "coinmarketcap"
    simulated: ClassVar[bool] = False

    key: Callable[[], str] = field(repr=False)  # the repr of a partial shows its arguments
    base_url: str = "https://pro-api.coinmarketcap.com"
    api_version: Literal["v1", "v3"] = "v3"
    limit: int = 1250
    timeout: float = 30.0

    def __post_init__(self) -> None:
        try:
            url = urlsplit(self.base_url)
        except ValueError:
            url = urlsplit("")
        if url.scheme not in ("http", "https") or not url.hostname or "@" in url.netloc or url.query or url.fragment:
            raise SettingsError(
                "BREAKOUT_CMC_URL must be a plain http:// or https:// address, without user name, password or query."
            )

    @property
    def endpoint(self) -> str:
        """Address of the listing, without parameters."""
        return f"{self.base_url.rstrip('/')}/{self.api_version}/cryptocurrency/listings/latest"

    def fetch(self, hour: datetime, now: datetime) -> Snapshot:
        """The market of now as the snapshot of this hour.

        Args:
            hour: Whole hour, naive UTC.
            now: Time of the call, naive UTC; must lie in the hour, because the endpoint knows no other time.

        Raises:
            DataError: The hour is not the current one, or the request or its answer is wrong for good.
            SettingsError: The key is missing or cannot be one.
            TemporaryError: Rate limit, busy server, time-out, lost connection, or an answer that is not JSON.
        """
        _refuse_other_hours(hour, now)
        key = self._asked_key()
        failure: _Failure
        try:
            http_status, content = self._download(key)
            return self._snapshot(http_status, content, hour, partial(_excerpt, key=key))
        except (DataError, TemporaryError) as error:
            failure = type(error)(_without(f"GET {self.endpoint} for hour {hour:%Y-%m-%d %H:%M} UTC: {error}", key))
        # Raised outside the handler: inside, the first error would stay attached, and with it the request's headers.
        raise failure

    def _asked_key(self) -> str:
        key = self.key().strip()
        if not key:
            raise SettingsError("BREAKOUT_CMC_API_KEY is not set; set it to the key of your CoinMarketCap account.")
        if not KEY_PATTERN.fullmatch(key):
            raise SettingsError(
                "BREAKOUT_CMC_API_KEY contains characters that no key has (a space or a quote?); copy it again."
            )
        return key

    def _download(self, key: str) -> tuple[int, bytes]:
        """HTTP status and unpacked body of one request."""
        parameters: dict[str, str | int] = {"limit": self.limit, "sort": "market_cap", "convert": CURRENCY}
        headers = {KEY_HEADER: key, "Accept": "application/json"}
        try:
            with requests.get(
                self.endpoint,
                params=parameters,
                headers=headers,
                timeout=self.timeout,
                stream=True,
                allow_redirects=False,  # this header, unlike Authorization, would be carried along to any other host
            ) as response:
                if response.is_redirect:
                    raise DataError(
                        f"HTTP {response.status_code}: it redirects to {response.headers.get('Location')!r}, and the "
                        "key is not sent on. Set BREAKOUT_CMC_URL to the final address."
                    )
                return response.status_code, _body(response)
        except requests.Timeout:
            raise TemporaryError(f"no answer within {self.timeout:g} s. {AGAIN}") from None
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
            raise DataError(f"the address cannot be requested ({error}). Correct BREAKOUT_CMC_URL.") from None
        except (requests.RequestException, TransportError) as error:  # requests lets some of urllib3's errors through
            raise TemporaryError(
                f"the connection failed or broke off ({type(error).__name__}: {error}). Check BREAKOUT_CMC_URL and the "
                f"network. {AGAIN}"
            ) from None

    def _snapshot(self, http_status: int, content: bytes, hour: datetime, quote: _Quote) -> Snapshot:
        body = _decoded(http_status, content, quote)
        _refuse_failure(http_status, body, quote)
        try:
            frame = parse_listing(body, hour)
        except DataError as error:
            raise DataError(f"HTTP {http_status}, error code {_error_code(body)}: {error}") from None
        told = _told(body, quote)
        return Snapshot(frame, {"source": self.name, "endpoint": self.endpoint, "coins": len(frame), **told})


def parse_listing(body: Mapping[str, object], hour: datetime) -> pd.DataFrame:
    """The coins of a decoded listing, in the shape of version 1 (quotes by currency) or 3 (a list of quotes).

    Rows keep the listing's order, and a coin that is listed twice keeps both. A field that is absent or null for some
    coins is null; unknown fields are ignored.

    Args:
        body: The decoded answer; only `data` is read.
        hour: Whole hour, naive UTC; becomes `timestamp`.

    Returns:
        Raw frame (`schema.RAW_COLUMNS`), at least one row.

    Raises:
        DataError: No coins, a field that every coin lacks, or a coin with a value that cannot be believed.
    """
    _refuse_odd_hour(hour)
    coins = body.get("data")
    if not isinstance(coins, list) or not coins:
        raise DataError(
            f"`data` holds no list of coins (it is {'empty' if coins == [] else _kind_of(coins)}); nothing was stored."
        )
    fields = _for_each(coins, _fields)
    missing = [name for name in (*COIN_FIELDS, *QUOTE_FIELDS) if not any(name in one for one in fields)]
    if missing:
        raise DataError(
            f"none of the {len(coins)} coins has the fields {', '.join(missing)}; nothing was stored. "
            "Try the other BREAKOUT_CMC_VERSION; if it lacks them too, the format has changed."
        )
    rows = pd.DataFrame(_for_each(coins, _values), dtype="object")
    rows["timestamp"] = pd.Timestamp(hour)
    return raw_frame(rows)


def _refuse_odd_hour(hour: datetime) -> None:
    if not is_whole_hour(hour) or hour.tzinfo is not None:
        raise DataError(f"{hour} is not a whole hour in naive UTC; name the hour by its beginning.")


def _refuse_other_hours(hour: datetime, now: datetime) -> None:
    _refuse_odd_hour(hour)
    if now.tzinfo is not None:
        raise DataError(f"the time of the call, {now}, must be naive UTC.")
    if now < hour:
        raise DataError(f"hour {hour:%Y-%m-%d %H:%M} UTC has not begun (it is {now:%Y-%m-%d %H:%M}); fetch it then.")
    if now >= hour + HOUR:
        raise DataError(
            f"hour {hour:%Y-%m-%d %H:%M} UTC is over (it is {now:%Y-%m-%d %H:%M}) and CoinMarketCap lists only the "
            "market of now: today's prices are never stored under a past hour. Import this hour from a file instead."
        )


def _without(text: str, key: str) -> str:
    return re.sub(re.escape(key), "[key]", text, flags=re.IGNORECASE)


def _excerpt(text: str, key: str) -> str:
    """The beginning of a server's text as one printable line; the key is taken out first, as a cut could halve it."""
    start = _without(text, key)[:EXCERPT_CHARACTERS]
    return "".join(character if character.isprintable() else " " for character in start)


def _body(response: requests.Response) -> bytes:
    content = bytearray()
    for chunk in response.iter_content(CHUNK_BYTES):
        content += chunk
        if len(content) > MAX_BODY_BYTES:
            raise DataError(
                f"HTTP {response.status_code}: the answer is longer than {MAX_BODY_BYTES // 10**6} MB, too long for a "
                "listing. Check BREAKOUT_CMC_URL."
            )
    return bytes(content)


def _decoded(http_status: int, content: bytes, quote: _Quote) -> Mapping[str, object]:
    kind, action = _verdict(http_status, 0)
    try:
        body = json.loads(content)
        if isinstance(body, dict) and isinstance(body.get("status"), dict | None):
            return body
        fault = "is neither a listing nor an error report"
    except (ValueError, RecursionError):
        fault = "is not JSON or is cut off"
        if http_status < requests.codes.multiple_choices:  # half an answer, or a proxy's page in its place
            kind, action = TemporaryError, AGAIN
    start = quote(content.decode("utf-8", errors="replace"))
    raise kind(f'HTTP {http_status}, and the body {fault}: "{start}". {action}')


def _status(body: Mapping[str, object]) -> Mapping[str, object]:
    status = body.get("status")
    return status if isinstance(status, dict) else {}


def _whole(value: object) -> int | None:
    """A whole number that may be written as text, as the interface without a key does; None if it is not one."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST_EXACT:
        return value
    return None


def _error_code(body: Mapping[str, object]) -> int | None:
    """0 for success, None for a code that is not a number."""
    code = _status(body).get("error_code")
    return 0 if code is None else _whole(code)


def _verdict(http_status: int, code: int | None) -> tuple[type[_Failure], str]:
    """Whether a failure may pass, and what to do. The code decides where it is known, else the HTTP status."""
    number = code if code is not None and (code in ACTIONS or code // 100 == 5) else http_status
    if number // 100 == 5:
        return TemporaryError, SERVER_FAULT
    return (TemporaryError if number in PASSING else DataError), ACTIONS.get(number, UNKNOWN)


def _refuse_failure(http_status: int, body: Mapping[str, object], quote: _Quote) -> None:
    code = _error_code(body)
    if http_status == requests.codes.ok and code == 0:
        return
    kind, action = _verdict(http_status, code)
    status = _status(body)
    shown = code if code is not None else quote(_shown(status.get("error_code")))
    said = status.get("error_message")
    message = quote(said) if isinstance(said, str) and said.strip() else "no message"
    raise kind(f'HTTP {http_status}, error code {shown}, "{message}". {action}')


def _told(body: Mapping[str, object], quote: _Quote) -> dict[str, str | int | float]:
    """What the status block says beside success; nothing is invented for what it leaves out."""
    status = _status(body)
    told: dict[str, str | int | float] = {}
    credits_used = _whole(status.get("credit_count"))
    if credits_used is not None:
        told["credits"] = credits_used
    for name, source in (("server_timestamp", "timestamp"), ("notice", "notice")):
        value = status.get(source)
        if isinstance(value, str) and value.strip():
            told[name] = quote(value)
    return told


def _for_each(coins: Sequence[object], read: Callable[[object], dict[str, object]]) -> list[dict[str, object]]:
    rows = []
    for position, coin in enumerate(coins, start=1):
        try:
            rows.append(read(coin))
        except DataError as error:
            known = coin if isinstance(coin, dict) else {}
            label = f"coin {position} (id {_shown(known.get('id'))}, symbol {_shown(known.get('symbol'))})"
            raise DataError(f"{label}: {error}; nothing was stored.") from None
    return rows


def _fields(coin: object) -> dict[str, object]:
    """The fields a snapshot needs, as far as the coin and its quote have them."""
    if not isinstance(coin, dict):
        raise DataError(f"it is {_kind_of(coin)} instead of an object")
    quote = _dollar_quote(coin.get("quote"))
    return {name: coin[name] for name in COIN_FIELDS if name in coin} | {
        name: quote[name] for name in QUOTE_FIELDS if name in quote
    }


def _dollar_quote(quotes: object) -> Mapping[str, object]:
    """The quote in dollars, empty if there is none: a coin without a price is not worth losing the hour."""
    if quotes is None:
        return {}
    if isinstance(quotes, dict):
        found = [quotes[CURRENCY]] if quotes.get(CURRENCY) is not None else []
    elif isinstance(quotes, list):
        # By symbol, never by position: the order of the list is not promised.
        found = [entry for entry in quotes if not isinstance(entry, dict) or entry.get("symbol") == CURRENCY]
    else:
        found = [quotes]
    wrong = [entry for entry in found if not isinstance(entry, dict)]
    if wrong:
        raise DataError(f"field quote holds {_kind_of(wrong[0])} instead of an object")
    if len(found) > 1:
        raise DataError(f"field quote has {len(found)} entries for {CURRENCY}, and which one holds is unknown")
    return found[0] if found else {}


def _values(coin: object) -> dict[str, object]:
    """The fields of one coin, checked; numbers as floats."""
    given = _fields(coin)
    row: dict[str, object] = {}
    for name in (*COIN_FIELDS, *QUOTE_FIELDS):
        value = given.get(name)
        try:
            row[name] = _text(value) if name in TEXT_COLUMNS else _number(value, whole=name in INTEGER_COLUMNS)
        except DataError as error:
            raise DataError(f"field {name} {error}") from None
    identifier, symbol = row["id"], row["symbol"]
    if not isinstance(identifier, float) or identifier < 1:
        raise DataError("field id is missing or not positive, and without it the coin cannot be told from others")
    if not isinstance(symbol, str) or not symbol.strip():
        raise DataError("field symbol is missing or blank")
    return row


def _text(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise DataError(f"is {_kind_of(value)} instead of text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise DataError("holds half of a character, which no file can store") from None
    return value


def _number(value: object, whole: bool) -> float | None:
    if value is None:
        return None
    # Text that looks like a number is refused too: a listing that begins to quote its prices has changed its format.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"is {_kind_of(value)} instead of a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise DataError("is not a finite number")
    if whole and (not number.is_integer() or abs(number) >= LARGEST_EXACT):
        raise DataError("is not a whole number that can be stored exactly")
    return number


def _kind_of(value: object) -> str:
    return KINDS.get(type(value), type(value).__name__)


def _shown(value: object) -> str:
    """A short value as it is. A long one is named by its kind and not cut: half a key could not be recognised."""
    if isinstance(value, str) and len(value) <= LONGEST_SHOWN:
        return repr(value)
    if isinstance(value, int | float) and abs(value) <= LARGEST_EXACT:
        return str(value)
    return _kind_of(value)
