"""Market rows of many hours: compacted days from their daily files, the newest hours from the raw ones."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

import numpy as np
import pandas as pd

from breakout_assets.coded_text import spelled_out
from breakout_assets.errors import DataError
from breakout_assets.market.files import raw_digests, read_raw, read_raw_and_digests
from breakout_assets.market.gates import JUDGED_BY, context_hours
from breakout_assets.market.snapshots import in_order, judged, market_rows
from breakout_assets.market.tokens import TokenRegistry, load_registry
from breakout_assets.store import RawFile, Store
from breakout_assets.tables import DAILY_SNAPSHOTS


@dataclass(frozen=True)
class CompactedDay:
    """The market rows of one day, by token and time, and the hours that had a raw file."""

    rows: pd.DataFrame
    hours: list[datetime]
    sources: str
    """Changes when a raw file that the rows were made or judged from is added or delivered again."""
    made_from: str
    """Of the bytes of the raw files of the day: the same in every store, and after they were lost and fetched again."""


def days_behind(day: date) -> list[date]:
    """The days whose raw files decide what is stored of a day: its own, and those that its rows are judged by."""
    earlier = {hour.date() for hour in context_hours(*day_bounds(day))}
    return sorted({*earlier, day})


def sources_of(files: Iterable[RawFile]) -> str:
    """One short text for the versions of these raw files, to compare with what a day was made from."""
    return _digest_of((file.hour, file.version) for file in files)


def _digest_of(named: Iterable[tuple[datetime, str]]) -> str:
    return hashlib.sha256(",".join(f"{hour:%Y%m%d%H}={text}" for hour, text in named).encode()).hexdigest()[:16]


def compact_day(store: Store, registry: TokenRegistry, day: date) -> CompactedDay:
    """The market rows of all hours of a day.

    Raises:
        DataError: no hour of the day has a raw file, or one of them is torn or foreign.
    """
    behind = {each: store.raw_files(each) for each in days_behind(day)}
    files = behind[day]
    if not files:
        raise DataError(f"no hour of {day} has a raw snapshot in {store.root}/cmc/latest; import or collect the day")
    raw, digests = read_raw_and_digests(list(files.values()))
    rows = market_rows(store, registry, raw)
    rows = in_order(judged(rows, _context_of(store, registry, day_bounds(day))), "token")
    sources = sources_of(file for found in behind.values() for file in found.values())
    return CompactedDay(rows, list(files), sources, _digest_of(digests.items()))


def _context_of(store: Store, registry: TokenRegistry, hours: tuple[datetime, datetime]) -> pd.DataFrame:
    """The rows that those of the hours from the first to the last are judged by."""
    wanted = context_hours(*hours)
    days = sorted({hour.date() for hour in wanted})
    compacted = store.days_there("daily_snapshots", days)
    rows = store.read_table("daily_snapshots", sorted(compacted), JUDGED_BY)
    files = [file for day in days if day not in compacted for file in store.raw_files(day).values()]
    raw = _market_of(store, registry, [file for file in files if file.hour in set(wanted)])
    found = pd.concat([rows, raw[list(JUDGED_BY)]], ignore_index=True)
    return found[found["timestamp"].isin(wanted)]


def read_days(store: Store, days: Iterable[date], columns: Iterable[str] | None = None) -> pd.DataFrame:
    """The market rows of these days from their daily files; all columns, or some; text as categories.

    A day that never had a raw file is a hole of the collector and has no rows. A day that has raw files but no daily
    file is refused: what is computed without it would change once it is there.
    """
    wanted = list(days)
    found = store.days_there("daily_snapshots", wanted)
    there = [day for day in wanted if day in found]
    for day in sorted({*wanted} - {*there}):
        if store.raw_files(day):
            raise DataError(
                f"daily_snapshots of {day} is missing although the day has raw snapshots; materialise it first"
            )
    return store.read_table("daily_snapshots", there, columns, coded=True)


def read_until(store: Store, first: datetime, last: datetime, columns: Iterable[str] | None = None) -> pd.DataFrame:
    """The market rows from `first` to `last`, both whole hours and included, as they are known at `last`.

    All columns, or some.
    """
    names = list(DAILY_SNAPSHOTS if columns is None else columns)
    rows = read_newest(store, first.date(), last, [*dict.fromkeys([*names, "timestamp"])])[1]
    return spelled_out(rows.loc[rows["timestamp"] >= first, names].reset_index(drop=True))


def read_newest(
    store: Store, first: date, hour: datetime, columns: Iterable[str] | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All columns of an hour's market rows (`hour_of_rows` of them), and those from the `first` day to that hour.

    The latter have all columns or some, and text as categories. Daily files are read as far as there are any, that of
    the day before only if nothing has arrived for it since; all other days, and today, from raw hours.
    """
    days = list(_days(first, hour.date()))
    compacted = {*store.days_there("daily_snapshots", days[:-1])}
    yesterday = hour.date() - timedelta(days=1)
    if yesterday in compacted and not _up_to_date(store, yesterday):
        compacted.remove(yesterday)
    begin = min(day for day in days if day not in compacted)  # today is not; no folder before it is listed
    found = store.raw_between(day_bounds(begin)[0], hour).values()
    raw = _judged_of(store, load_registry(store), [file for file in found if file.hour.date() not in compacted])
    rows = store.read_table("daily_snapshots", sorted(compacted), columns, coded=True, then=raw)
    return raw[raw["timestamp"] == hour], rows


def _up_to_date(store: Store, day: date) -> bool:
    """Whether the daily file was made from all raw hours of the day as they are there, or has hours that no more are.

    By their bytes: a file's time says nothing of what arrived while the day was being compacted. Hashing them takes a
    twentieth of what reading and judging them would.
    """
    made_from, files = store.made_from("daily_snapshots", day), store.raw_files(day)
    if made_from and made_from == _digest_of(raw_digests(list(files.values())).items()):
        return True
    return bool(compacted_hours(store, day) - {*files})


def _judged_of(store: Store, registry: TokenRegistry, files: Sequence[RawFile]) -> pd.DataFrame:
    """The judged rows of these raw files, which are in order; each stretch of days by the hours before it."""
    parts = [_market_of(store, registry, [])]
    for stretch in _stretches(files):
        rows = _market_of(store, registry, stretch)
        parts.append(judged(rows, _context_of(store, registry, (stretch[0].hour, stretch[-1].hour))))
    return pd.concat(parts, ignore_index=True) if len(parts) > 2 else parts[-1]


def _stretches(files: Sequence[RawFile]) -> Iterator[list[RawFile]]:
    """These files, cut where a day lies between two of them."""
    stretch: list[RawFile] = []
    for file in files:
        if stretch and file.hour.date() - stretch[-1].hour.date() > timedelta(days=1):
            yield stretch
            stretch = []
        stretch.append(file)
    if stretch:
        yield stretch


def by_day(rows: pd.DataFrame, days: Iterable[date]) -> Iterator[tuple[date, pd.DataFrame]]:
    """Each of these days with its rows, of rows that lie day by day; without a copy."""
    day = rows["timestamp"].to_numpy().astype("datetime64[D]")
    for each in days:
        begin, end = (int(np.searchsorted(day, np.datetime64(each), side)) for side in ("left", "right"))
        yield each, rows.iloc[begin:end].reset_index(drop=True)


def compacted_hours(store: Store, day: date) -> set[datetime]:
    """The hours in a day's file; none where there is no file or it cannot be read, which compacting again mends."""
    try:
        hours = store.read_table("daily_snapshots", [day], ["timestamp"])["timestamp"]
    except DataError:
        return set()
    return {hour.to_pydatetime() for hour in hours.drop_duplicates()}


def hour_of_rows(rows: pd.DataFrame, hour: datetime) -> pd.DataFrame:
    """The market rows of one hour, by token.

    Raises:
        DataError: there are none.
    """
    found = rows[rows["timestamp"] == hour]
    if found.empty:
        raise DataError(f"no snapshot of {hour:%Y-%m-%d %H:00} is in the store; materialise hourly_snapshots first")
    return found.sort_values("token", kind="stable", ignore_index=True)


def newest_hour(store: Store, now: datetime) -> datetime | None:
    """The newest hour of the last two days that has a raw snapshot."""
    return max(store.raw_between(now - timedelta(days=2), now), default=None)


def _market_of(store: Store, registry: TokenRegistry, files: list[RawFile]) -> pd.DataFrame:
    if not files:
        return store.read_table("daily_snapshots", [])
    return market_rows(store, registry, read_raw(files))


def _days(first: date, last: date) -> Iterator[date]:
    return (first + timedelta(days=n) for n in range((last - first).days + 1))


def day_bounds(day: date) -> tuple[datetime, datetime]:
    """The first and the last hour of a day."""
    start = datetime.combine(day, time())
    return start, start + timedelta(hours=23)
