"""Downloads the hourly candles of an exchange through ccxt, kept by month so that a stopped download goes on.

They lie in the store, `candles/<exchange>/<BASE-QUOTE>/<YYYY-MM>.parquet`.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from importlib import import_module
from io import BytesIO
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import quote

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from breakout_assets import objects
from breakout_assets.errors import DataError, SettingsError, TemporaryError
from breakout_assets.market.candle_files import check_candles
from breakout_assets.market.candles import (
    candle_frame,
    origin_of,
)
from breakout_assets.market.schema import HOUR
from breakout_assets.store import Store

# Seconds between attempts of one request: a network that is down for a minute or two is waited for.
WAITS: Final = (1.0, 2.0, 5.0, 15.0, 30.0, 60.0)
# An exchange that asks for more has banned this address for minutes to days: a person should know.
LONGEST_WAIT: Final = 120.0
# Of a page whose size the exchange does not say: few are smaller.
_SMALLEST_PAGE: Final = 100
# No exchange gives more at once that would be worth asking for; a month has 744 hours.
_LARGEST_PAGE: Final = 1000
# What this platform says in the metadata of a Parquet file begins with it.
KEY: Final = "breakout."
_FETCHED: Final = "fetched"

Answer = TypeVar("Answer")
Sleep = Callable[[float], None]


class Progress(Protocol):
    """Told how far the work is."""

    def __call__(self, stage: str, done: int, total: int, what: str) -> None:
        """`done` of `total` parts of `download` (months of pairs) or `write` (hours) are behind, `what` is the last."""


class Exchange(Protocol):
    """The part of a ccxt client, as `venue_client` makes it, that is used here."""

    features: Mapping[str, Any] | None
    last_response_headers: Mapping[str, str] | None
    last_json_response: object

    def load_markets(self) -> Mapping[str, Mapping[str, Any]]:
        """The markets by unified symbol."""

    def fetch_ohlcv(
        self, symbol: str, timeframe: str, since: int, limit: int
    ) -> Sequence[Sequence[int | float | None]]:
        """Candles as `open time in ms, open, high, low, close, base volume`."""


@dataclass(frozen=True)
class Download:
    """What a download did: requests for candles, months that were fetched and months that were there."""

    pages: int
    fetched: int
    cached: int


def venue_client(venue: str) -> Exchange:
    """A ccxt client of the spot market of an exchange, which keeps to the exchange's rate by itself.

    Raises:
        SettingsError: ccxt is not installed.
        DataError: ccxt does not know the exchange, or it has no hourly candles.
    """
    ccxt = _ccxt()
    if venue not in ccxt.exchanges:
        near = get_close_matches(venue, ccxt.exchanges, n=3)
        raise DataError(
            f"ccxt {ccxt.__version__} knows no exchange {venue!r}" + (f"; near: {', '.join(near)}" * bool(near))
        )
    client = getattr(ccxt, venue)(
        {"enableRateLimit": True, "enableLastJsonResponse": True, "options": {"defaultType": "spot"}}
    )
    if not client.has.get("fetchOHLCV") or "1h" not in (client.timeframes or {}):
        raise DataError(f"{venue} offers no hourly candles through ccxt {ccxt.__version__}")
    kinds = client.options.get("fetchMarkets")
    if isinstance(kinds, dict) and isinstance(kinds.get("types"), list):
        kinds["types"] = ["spot"]  # lists of futures would be fetched for nothing
    found: Exchange = client
    return found


def _ccxt() -> Any:
    try:
        return import_module("ccxt")
    except ImportError as error:
        raise SettingsError(
            "candles are downloaded with ccxt, which is not installed: pip install '.[candles]'"
        ) from error


def check_pairs(exchange: Exchange, venue: str, pairs: Sequence[str], sleep: Sleep = time.sleep) -> None:
    """Refuse pairs that are no spot market of the exchange, all by name.

    Raises:
        DataError: as said.
        TemporaryError: the exchange does not answer.
    """
    what = f"the markets of {venue}"
    markets = _patiently(lambda: _unless_empty(exchange.load_markets(), what), what, exchange, sleep)
    spot = [symbol for symbol, market in markets.items() if market.get("spot")]
    unknown = sorted({*pairs} - {*spot})
    if unknown:
        near = {name for pair in unknown for name in get_close_matches(pair, spot, n=1)}
        raise DataError(
            f"{venue} has no spot market {', '.join(unknown)}; pairs are written BASE/QUOTE"
            + (f", near: {', '.join(sorted(near))}" if near else "")
        )


def download(
    venue: str,
    pairs: Sequence[str],
    first: datetime,
    last: datetime,
    store: Store,
    now: datetime,
    progress: Progress | None = None,
    *,
    exchange: Exchange | None = None,
    sleep: Sleep = time.sleep,
) -> Download:
    """Fetch the hourly candles of these pairs into the store, whole months from that of `first` to that of `last`.

    Months that are over and there are not asked for again; the current one is, from its last candle on.

    Raises:
        DataError: the exchange does not know a pair, refuses, or answers with odd candles.
        SettingsError: ccxt is not installed.
        TemporaryError: it did not answer in spite of patience; finished months stay.
    """
    origin_of(venue)
    client = exchange or venue_client(venue)
    check_pairs(client, venue, pairs, sleep)
    months = months_of(first, last)
    pages = fetched = done = 0
    for pair in pairs:
        source = _Source(client, venue, pair, sleep)
        for month in months:
            before = source.pages
            fetched += _update_month(source, month, store, now)
            done += 1
            pages += source.pages - before
            if progress:
                progress("download", done, len(pairs) * len(months), f"{pair} {month}")
    return Download(pages, fetched, done - fetched)


def cached_candles(store: Store, venue: str, pairs: Sequence[str], month: pd.Period) -> pd.DataFrame:
    """The candles of these pairs that open in a month, as far as they have been downloaded.

    Raises:
        DataError: a file is torn; the message names it.
    """
    parts = [candle_frame(pd.DataFrame())]
    for pair in pairs:
        cached = _read_cached(_cache_path(store, venue, pair, month))
        if cached:
            parts.append(cached[0])
    return pd.concat(parts, ignore_index=True)


@dataclass
class _Source:
    """One pair of an exchange, with what was learnt about it while asking."""

    exchange: Exchange
    venue: str
    pair: str
    sleep: Sleep
    pages: int = 0
    nothing_before: pd.Timestamp = pd.Timestamp.min
    """The first candle that came when older ones were asked for: months before a coin was listed need no request."""

    def candles(self, start: pd.Timestamp, end: pd.Timestamp) -> pd.DataFrame:
        """The candles that open from `start` up to, not including, `end`."""
        features = (self.exchange.features or {}).get("spot") or {}
        largest = min((features.get("fetchOHLCV") or {}).get("limit") or _SMALLEST_PAGE, _LARGEST_PAGE)
        parts = [candle_frame(pd.DataFrame())]
        while start < end and end > self.nothing_before:
            limit = min(largest, (end - start) // HOUR)
            page = self._page(start, limit)
            self.pages += 1
            parts.append(page[page["open_time"] < end])
            if page.empty:  # some exchanges answer with candles of the asked span only, not with the next ones
                start += limit * HOUR
                continue
            if page["open_time"].iloc[0] >= end:
                self.nothing_before = page["open_time"].iloc[0]
            start = page["open_time"].iloc[-1] + HOUR
        return pd.concat(parts, ignore_index=True)

    def _page(self, start: pd.Timestamp, limit: int) -> pd.DataFrame:
        since = int(start.tz_localize("UTC").timestamp()) * 1000
        what = f"candles of {self.pair} from {start:%Y-%m-%d %H:00} of {self.venue}"

        def ask() -> Sequence[Sequence[int | float | None]]:
            self.exchange.last_json_response = None
            rows = self.exchange.fetch_ohlcv(self.pair, "1h", since, limit)
            # ccxt makes an empty list of an answer that is no JSON, and the month would be taken for empty.
            return rows if isinstance(self.exchange.last_json_response, list | dict) else _unless_empty(rows, what)

        answer = _patiently(ask, what, self.exchange, self.sleep)
        page = pd.DataFrame([(row[0], row[4], row[5]) for row in answer], columns=["time", "close", "volume"])
        page["open_time"] = pd.to_datetime(page["time"], unit="ms")
        candles = candle_frame(page.assign(pair=self.pair))
        check_candles(candles, what)
        candles = candles[candles["open_time"] >= start]
        return candles.sort_values("open_time", ignore_index=True)


def _update_month(source: _Source, month: pd.Period, store: Store, now: datetime) -> bool:
    """Bring a cached month up to `now`; False if nothing had to be asked."""
    path = _cache_path(store, source.venue, source.pair, month)
    start, end = month.start_time, (month + 1).start_time
    this_hour = pd.Timestamp(now).floor("h")
    cached = _read_cached(path)
    known = candle_frame(pd.DataFrame())
    if cached:
        known, fetched = cached
        # For an hour more: where a clock is ahead or an exchange late, the last candle was not what it became.
        if fetched >= min(end + HOUR, this_hour):
            return False
        if len(known):
            start, known = known["open_time"].iloc[-1], known.iloc[:-1]
    candles = pd.concat([known, source.candles(start, min(end, this_hour))], ignore_index=True)
    table = pa.Table.from_pandas(candles, preserve_index=False)
    store.write(path, parquet_with(table, {_FETCHED: now.isoformat()}))
    return True


def _cache_path(store: Store, venue: str, pair: str, month: pd.Period) -> UPath:
    # Coins' codes hold anything; escaped, none of them leaves its folder or falls on another's.
    base, _, quoted = pair.partition("/")
    folder = "-".join(quote(code, safe="").replace("-", "%2D") for code in (base, quoted))
    return store.root / "candles" / venue / folder / f"{month}.parquet"


def _read_cached(path: UPath) -> tuple[pd.DataFrame, pd.Timestamp] | None:
    """The candles of a cached month and when they were fetched; None if there is no such file."""
    try:
        table = pq.read_table(BytesIO(objects.read(path)))
        fetched = pd.Timestamp((table.schema.metadata or {})[(KEY + _FETCHED).encode()].decode())
        return candle_frame(table.to_pandas()), fetched
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} is torn or foreign ({error!r}); delete it, and the month is fetched again") from error


def _patiently(ask: Callable[[], Answer], what: str, exchange: Exchange, sleep: Sleep) -> Answer:
    """The answer to a request that is repeated with growing waits while the failure may pass by itself."""
    ccxt = _ccxt()
    for wait in (*WAITS, None):
        try:
            return ask()
        except ccxt.OperationFailed as error:
            asked = _asked_wait(exchange) if isinstance(error, ccxt.DDoSProtection | ccxt.RateLimitExceeded) else 0.0
            if wait is None or asked > LONGEST_WAIT:
                raise TemporaryError(
                    f"{what} could not be had: {type(error).__name__}: {str(error)[:300]}"
                    + (f" (wait {asked:.0f} s)" if asked else "")
                    + "; run it again later, it goes on where it was"
                ) from error
            sleep(max(wait, asked))
        except ccxt.BaseError as error:
            raise DataError(f"{what} were refused: {type(error).__name__}: {str(error)[:300]}") from error
    raise AssertionError("the last attempt returns or raises")


def _unless_empty(answer: Answer, what: str) -> Answer:
    """The answer; one that is empty is taken for broken."""
    if not answer:
        raise _ccxt().BadResponse(f"the answer to {what} is empty or no JSON")
    return answer


def _asked_wait(exchange: Exchange) -> float:
    """Seconds that the newest answer asks to wait; zero if it does not say."""
    text = (exchange.last_response_headers or {}).get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() else 0.0


def months_of(first: datetime, last: datetime) -> list[pd.Period]:
    """The calendar months from one time to another."""
    return list(pd.period_range(first, last, freq="M"))


def parquet_with(table: pa.Table, texts: Mapping[str, str]) -> bytes:
    """The table as zstd Parquet, with these texts in its metadata."""
    buffer = BytesIO()
    metadata = {**(table.schema.metadata or {}), **{KEY + key: text for key, text in texts.items()}}
    pq.write_table(table.replace_schema_metadata(metadata), buffer, compression="zstd")
    return buffer.getvalue()
