"""CoinMarketCap as a source: an hour's listing, quotes of named coins, quotes of a past hour, or why there are none.

`market.listing` reads the answers, `market.cmc_requests` asks for them, `market.cmc_errors` knows what an error means.
The key travels in one header and nowhere else: no message, log line, metadata or representation contains it.
"""

import logging
import operator
import random
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache, partial
from typing import ClassVar, Final, Literal
from urllib.parse import urlsplit

import pandas as pd

from breakout_assets.errors import DataError, SettingsError, TemporaryError
from breakout_assets.market.cmc_credits import affordable, listing_cost, quotes_cost, read_usage
from breakout_assets.market.cmc_errors import RequestError, excerpt, status_of
from breakout_assets.market.cmc_requests import Caller
from breakout_assets.market.listing import (
    CURRENCY,
    HISTORY_WINDOW,
    LARGEST_EXACT,
    coins_by_id,
    new_fields,
    parse_listing,
    parse_past,
    parse_quotes,
    refuse_odd_hour,
    utc_time,
    whole,
)
from breakout_assets.market.schema import HOUR, RAW_COLUMNS, raw_frame

# These characters look the same in JSON, HTML, a URL and a repr, so a key made of them is found in any text that
# echoes it; CoinMarketCap's keys are hexadecimal digits and hyphens.
KEY_PATTERN: Final = re.compile(r"[A-Za-z0-9._~-]+")
LARGEST_PAGE: Final = 5000  # coins that one call of the listing returns at most
IDS_PER_CALL: Final = 100  # one credit's worth of quotes, and an address of a length that every proxy passes
# The listing is made anew each minute: just after the full hour the newest one may still be of the minute before.
SERVER_GRACE: Final = timedelta(minutes=2)
# A listing shorter than this share of what was asked is cut off. Some coins may lack: where pages are asked for one by
# one, a coin that moves up between two calls is skipped.
LEAST_PERCENT: Final = 90
NOT_FROM_HERE: Final = (
    "This hour cannot be had from this plan: its hourly history reaches back a limited time, a month on the smaller "
    "plans. Import the hour from a file, or make it from an exchange's candles."
)
# Answers to a question about the past that mean that the plan does not cover it.
BEYOND_PLAN: Final = dict.fromkeys((400, 403, 404, 1005, 1006), NOT_FROM_HERE)

Told = dict[str, str | int | float]
_Body = Mapping[str, object]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Snapshot:
    """One hour of the market as its source gave it.

    Attributes:
        frame: Raw frame (`schema.RAW_COLUMNS`), one row a coin, in the order of the source.
        metadata: Where it came from: `source`, `endpoint`, `access` (`key` or `keyless`), `coins`; of a listing
            `asked`, `pages` and `repeated` (coins that a later page showed again), of named coins `followed` or
            `asked`, and `lost` (coins without a quote); with a budget `credits_budget`, `credits_used_this_month`
            (before this call) and of a listing `credits_projected_month`; as far as the server told them `credits`
            (of all calls for this snapshot), `server_timestamp` (ISO text, of the last call) and `notice` (the
            server's warning).
    """

    frame: pd.DataFrame
    metadata: Told


@dataclass(frozen=True)
class CoinMarketCap:
    """CoinMarketCap's interface for prices of now and of past hours.

    Attributes:
        key: Returns the API key; called once in each fetch and never before, and never with `keyless`.
        base_url: Address of the API without the path. It is shown in errors and metadata.
        api_version: Version of the endpoints; `v1` stands for the older ones.
        limit: Number of coins to ask for, largest market cap first; one credit per 200.
        timeout: Longest wait in seconds for the connection, and again for each part of the answer.
        keyless: Ask the public interface, which needs no key. Never chosen because a key fails.
        page_size: Coins of one call of the listing; 0 for one call. Ranks move between calls, so one call is exact.
        budget: Longest time of a fetch with all its attempts and waits; it never goes past the end of the hour.
        deadline: Longest wait in seconds for one whole answer.
        monthly_budget: Credits that a month may cost; 0 for no limit but the plan's, which is then not asked for.
        sleep: Waits between two attempts.
        monotonic: Seconds of a clock that is never set.
        jitter: A random number from 0 to 1, which spreads the waits of several programs.
    """

    name: ClassVar[str] = "coinmarketcap"
    simulated: ClassVar[bool] = False

    key: Callable[[], str] = field(repr=False)  # the repr of a partial shows its arguments
    base_url: str = "https://pro-api.coinmarketcap.com"
    api_version: Literal["v1", "v3"] = "v3"
    limit: int = 1250
    timeout: float = 30.0
    keyless: bool = False
    page_size: int = 0
    budget: timedelta = timedelta(minutes=5)
    deadline: float = 90.0
    monthly_budget: int = 0
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)
    monotonic: Callable[[], float] = field(default=time.monotonic, repr=False)
    jitter: Callable[[], float] = field(default=random.random, repr=False)

    def __post_init__(self) -> None:
        try:
            url = urlsplit(self.base_url)
        except ValueError:
            url = urlsplit("")
        if url.scheme not in ("http", "https") or not url.hostname or "@" in url.netloc or url.query or url.fragment:
            raise SettingsError(
                "BREAKOUT_CMC_URL must be a plain http:// or https:// address, without user name, password or query."
            )
        if not 0 <= self.page_size <= LARGEST_PAGE:
            raise SettingsError(f"BREAKOUT_CMC_PAGE_SIZE must be 0 (one call) to {LARGEST_PAGE}.")
        if self.monthly_budget < 0:
            raise SettingsError("BREAKOUT_CMC_MONTHLY_BUDGET must be a number of credits, or 0 for none.")

    @property
    def endpoint(self) -> str:
        """Address of the listing, without parameters."""
        return self._base + self._listing_path

    def fetch(self, hour: datetime, now: datetime) -> Snapshot:
        """The market of now as the snapshot of this hour.

        Args:
            hour: Whole hour, naive UTC.
            now: Time of the call, naive UTC; must lie in the hour, because the endpoint knows no other time.

        Raises:
            DataError: The hour is not the current one, the credits do not suffice, or the request or its answer is
                wrong for good.
            SettingsError: The key is missing or cannot be one.
            TemporaryError: Rate limit, busy server, time-out, lost connection, or a listing that is cut off, at the
                last attempt that the hour or `budget` left time for.
        """
        _refuse_other_hours(hour, now)
        caller = self._caller(hour, now, hour + HOUR - now)
        return _finished(caller, self._listing_path, partial(self._listing, caller, hour))

    def fetch_followed(self, ids: Sequence[int], hour: datetime, now: datetime) -> Snapshot:
        """The quotes of now of these coins, for those that have dropped out of the listing.

        Coins that the answer lacks or that have no price are absent, and none may be left.

        Args:
            ids: CoinMarketCap's ids; without any nothing is asked.
            hour: Whole hour, naive UTC.
            now: Time of the call, naive UTC; must lie in the hour.

        Raises:
            DataError, SettingsError, TemporaryError: As `fetch`.
        """
        _refuse_other_hours(hour, now)
        wanted = _distinct(ids)
        if not wanted:
            return Snapshot(
                _joined([])[0], self._origin(self._quotes_path("latest")) | {"coins": 0, "followed": 0, "lost": 0}
            )
        caller = self._caller(hour, now, hour + HOUR - now)
        path = self._quotes_path("latest")
        return _finished(caller, path, partial(self._followed, caller, wanted, hour))

    def fetch_past(self, hour: datetime, ids: Sequence[int], now: datetime) -> Snapshot:
        """The quotes of these coins at the beginning of an hour that is over.

        Coins without a quote in its first ten minutes are absent; ranks, pairs and tags are not known and null.

        Args:
            hour: Whole hour, naive UTC.
            ids: CoinMarketCap's ids, at least one.
            now: Time of the call, naive UTC; the hour must be over.

        Raises:
            DataError: The hour is not over, the plan does not cover it, no coin has a quote, or as `fetch`.
            SettingsError: The key is missing or cannot be one.
            TemporaryError: As `fetch`.
        """
        _refuse_running_hours(hour, now)
        wanted = _distinct(ids)
        if not wanted:
            raise DataError(f"no coins were named for hour {hour:%Y-%m-%d %H:%M} UTC; name them by their ids.")
        caller = self._caller(hour, now, self.budget)
        path = self._quotes_path("historical")
        return _finished(caller, path, partial(self._past, caller, wanted, hour), BEYOND_PLAN)

    @property
    def _base(self) -> str:
        return self.base_url.rstrip("/") + ("/public-api" if self.keyless else "")

    @property
    def _listing_path(self) -> str:
        return f"/{self.api_version}/cryptocurrency/listings/latest"

    def _quotes_path(self, which: Literal["latest", "historical"]) -> str:
        # The older listing is version 1, the older quotes are version 2.
        return f"/{'v3' if self.api_version == 'v3' else 'v2'}/cryptocurrency/quotes/{which}"

    def _caller(self, hour: datetime, now: datetime, left: timedelta) -> Caller:
        return Caller(
            base=self._base,
            key=None if self.keyless else self._asked_key(),
            label=f"for hour {hour:%Y-%m-%d %H:%M} UTC",
            now=now,
            span=min(self.budget, left).total_seconds(),
            timeout=self.timeout,
            deadline=self.deadline,
            sleep=self.sleep,
            monotonic=self.monotonic,
            jitter=self.jitter,
        )

    def _asked_key(self) -> str:
        key = self.key().strip()
        if not key:
            raise SettingsError("BREAKOUT_CMC_API_KEY is not set; set it to the key of your CoinMarketCap account.")
        if not KEY_PATTERN.fullmatch(key):
            raise SettingsError(
                "BREAKOUT_CMC_API_KEY contains characters that no key has (a space or a quote?); copy it again."
            )
        return key

    def _listing(self, caller: Caller, hour: datetime) -> Snapshot:
        size = self.page_size or self.limit
        pages = [(start, min(size, self.limit - start + 1)) for start in range(1, self.limit + 1, size)]
        credit = self._credits(caller, sum(listing_cost(coins) for _, coins in pages), hour, hourly=True)
        asked = self.limit
        bodies: list[_Body] = []
        frames: list[pd.DataFrame] = []
        for start, coins in pages:
            if start > asked:
                break
            parameters: dict[str, str | int] = {"limit": coins, "sort": "market_cap", "convert": CURRENCY}
            body = caller.get(self._listing_path, parameters | ({"start": start} if self.page_size else {}))
            _refuse_other_times(body, hour)
            if frames and body.get("data") == []:
                break
            bodies.append(body)
            frames.append(_read(partial(parse_listing, body, hour)))
            _report_new_fields(body.get("data"), caller)
            asked = min(asked, whole(status_of(body).get("total_count")) or asked)
        frame, repeated = _joined(frames)
        _refuse_short_listing(frame["id"].nunique(), asked)
        counts: Told = {"coins": len(frame), "asked": asked, "pages": len(frames), "repeated": repeated}
        return Snapshot(frame, self._origin(self._listing_path) | counts | credit | _told(bodies, caller))

    def _followed(self, caller: Caller, ids: Sequence[int], hour: datetime) -> Snapshot:
        path = self._quotes_path("latest")
        credit = self._credits(caller, quotes_cost(len(ids)), hour, hourly=False)
        bodies, frames = [], []
        for chunk in _chunks(ids):
            body = caller.get(path, _named(chunk))
            _refuse_other_times(body, hour)
            bodies.append(body)
            frames.append(_read(partial(parse_quotes, body, hour, chunk)))
            _report_new_fields(coins_by_id(body), caller)
        frame, _ = _joined(frames)
        counts: Told = {"coins": len(frame), "followed": len(ids), "lost": len(ids) - frame["id"].nunique()}
        return Snapshot(frame, self._origin(path) | counts | credit | _told(bodies, caller))

    def _past(self, caller: Caller, ids: Sequence[int], hour: datetime) -> Snapshot:
        path = self._quotes_path("historical")
        credit = self._credits(caller, quotes_cost(len(ids)), hour, hourly=False)
        # A second early, so that a quote of the full hour is there whether or not the interval includes its beginning.
        span = {"time_start": _iso(hour - timedelta(seconds=1)), "time_end": _iso(hour + HISTORY_WINDOW)}
        bodies, frames = [], []
        for chunk in _chunks(ids):
            body = caller.get(path, _named(chunk) | {"interval": "hourly"} | span)
            bodies.append(body)
            frames.append(_read(partial(parse_past, body, hour, chunk)))
        frame, _ = _joined(frames)
        if frame.empty:
            raise DataError(f"none of the {len(ids)} coins has a quote of this hour. {NOT_FROM_HERE}")
        counts: Told = {"coins": len(frame), "asked": len(ids), "lost": len(ids) - frame["id"].nunique()}
        return Snapshot(frame, self._origin(path) | counts | credit | _told(bodies, caller))

    def _credits(self, caller: Caller, cost: int, hour: datetime, hourly: bool) -> Told:
        """What the credits allow, where a budget is set: the question itself costs none."""
        if self.keyless or not self.monthly_budget:
            return {}
        usage = read_usage(caller.get("/v1/key/info", {}))
        if usage.used is None:
            _log.warning("CoinMarketCap does not tell how many credits are used; the monthly budget is not checked")
        return affordable(usage, cost, self.monthly_budget, hour, hourly)

    def _origin(self, path: str) -> Told:
        return {
            "source": self.name,
            "endpoint": self._base + path,
            "access": "keyless" if self.keyless else "key",
        }


def _finished(
    caller: Caller, path: str, work: Callable[[], Snapshot], hints: Mapping[int, str] | None = None
) -> Snapshot:
    failure: DataError | TemporaryError
    try:
        return work()
    except RequestError as error:
        failure = error.error(caller.now, (hints or {}).get(error.number, ""))
    except (DataError, TemporaryError) as error:
        failure = type(error)(caller.hide(f"GET {caller.base}{path} {caller.label}: {error}"))
    # Raised outside the handler: inside, the first error would stay attached, and with it the request's headers.
    raise failure


def _refuse_other_hours(hour: datetime, now: datetime) -> None:
    _refuse_odd_times(hour, now)
    if now < hour:
        raise DataError(f"hour {hour:%Y-%m-%d %H:%M} UTC has not begun (it is {now:%Y-%m-%d %H:%M}); fetch it then.")
    if now >= hour + HOUR:
        raise DataError(
            f"hour {hour:%Y-%m-%d %H:%M} UTC is over (it is {now:%Y-%m-%d %H:%M}) and CoinMarketCap lists only the "
            "market of now: today's prices are never stored under a past hour. Import this hour from a file instead."
        )


def _refuse_running_hours(hour: datetime, now: datetime) -> None:
    _refuse_odd_times(hour, now)
    if now < hour + HOUR:
        raise DataError(
            f"hour {hour:%Y-%m-%d %H:%M} UTC is not over (it is {now:%Y-%m-%d %H:%M}); only past hours have a history."
        )


def _refuse_odd_times(hour: datetime, now: datetime) -> None:
    refuse_odd_hour(hour)
    if now.tzinfo is not None:
        raise DataError(f"the time of the call, {now}, must be naive UTC.")


def _refuse_other_times(body: _Body, hour: datetime) -> None:
    """Refuse an answer that the server made in another hour; one that does not say when is believed."""
    made = utc_time(status_of(body).get("timestamp"))
    if made is not None and not hour - SERVER_GRACE <= made < hour + HOUR:
        raise DataError(
            f"HTTP 200, but the answer was made at {made:%Y-%m-%d %H:%M:%S} UTC, which is not in this hour; nothing "
            "was stored. Set the clock of this machine right, and let no cache on the way keep answers."
        )


def _refuse_short_listing(coins: int, asked: int) -> None:
    # It may pass: an hour cannot be had later, and a listing that is cut off on the server's side is whole again
    # within minutes. It is not repeated at once, because the answer was a success and has cost its credits.
    if 100 * coins < LEAST_PERCENT * asked:
        raise TemporaryError(
            f"HTTP 200, but the listing has {coins} coins of {asked} that were asked for, fewer than "
            f"{LEAST_PERCENT} %; nothing was stored. Run this hour again before it is over; if it stays so, lower "
            "BREAKOUT_CMC_LIMIT to what this access gives."
        )


def _read(parse: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    try:
        return parse()
    except DataError as error:
        raise DataError(f"HTTP 200, error code 0: {error}") from None


def _joined(frames: Iterable[pd.DataFrame]) -> tuple[pd.DataFrame, int]:
    """The rows of all frames but those of coins that an earlier frame has, and the number of these."""
    seen: set[int] = set()
    kept, repeated = [raw_frame(pd.DataFrame(columns=list(RAW_COLUMNS)))], 0
    for frame in frames:
        again = frame["id"].isin(seen)
        kept.append(frame[~again])
        repeated += int(again.sum())
        seen |= set(frame["id"])
    return raw_frame(pd.concat(kept, ignore_index=True)), repeated


def _told(bodies: Iterable[_Body], caller: Caller) -> Told:
    """What the status blocks say beside success; nothing is invented for what they leave out."""
    told: Told = {}
    for status in map(status_of, bodies):
        credits_used = whole(status.get("credit_count"))
        if credits_used is not None:
            told["credits"] = int(told.get("credits", 0)) + credits_used
        for name, source in (("server_timestamp", "timestamp"), ("notice", "notice")):
            value = status.get(source)
            if isinstance(value, str) and value.strip():
                told[name] = excerpt(value, caller.hide)
    return told


def _report_new_fields(coins: object, caller: Caller) -> None:
    for name in new_fields(coins):
        _report_new_field(excerpt(name, caller.hide))


@lru_cache(maxsize=1000)  # what makes it once a process; the size keeps a server of many names from filling the memory
def _report_new_field(name: str) -> None:
    _log.warning("CoinMarketCap's answers have a field that is new here, %s; it is ignored", name)


def _distinct(ids: Sequence[int]) -> list[int]:
    """The ids without repetition, in their order."""
    for one in ids:
        try:
            sound = not isinstance(one, bool) and 1 <= operator.index(one) < LARGEST_EXACT
        except TypeError:
            sound = False
        if not sound:
            raise DataError(f"{one!r} is no id of a coin; CoinMarketCap's ids are whole numbers from 1.")
    return list(dict.fromkeys(operator.index(one) for one in ids))


def _chunks(ids: Sequence[int]) -> list[Sequence[int]]:
    return [ids[start : start + IDS_PER_CALL] for start in range(0, len(ids), IDS_PER_CALL)]


def _named(ids: Sequence[int]) -> dict[str, str | int]:
    # Without the last parameter one id that CoinMarketCap has given up fails the whole call.
    return {"id": ",".join(map(str, ids)), "convert": CURRENCY, "skip_invalid": "true"}


def _iso(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S}.000Z"
