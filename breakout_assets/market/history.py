"""Market rows of many hours: compacted days from their daily files, the newest hours from the raw ones."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Final

import pandas as pd

from breakout_assets.errors import DataError
from breakout_assets.market.files import read_raw
from breakout_assets.market.schema import HOUR
from breakout_assets.market.snapshots import market_rows
from breakout_assets.market.tokens import TokenRegistry, load_registry
from breakout_assets.store import RawFile, Store

# Today has no daily file, and yesterday's may have been compacted before its last hour arrived.
RAW_DAYS: Final = 2


@dataclass(frozen=True)
class CompactedDay:
    """The market rows of one day, by token and time, and the hours that had a raw file."""

    rows: pd.DataFrame
    hours: list[datetime]
    sources: str
    """Changes when a raw file of the day is added or delivered again."""


def sources_of(files: Iterable[RawFile]) -> str:
    """One short text for the versions of these raw files, to compare with what a day was made from."""
    return hashlib.sha256(",".join(f"{file.hour:%H}={file.version}" for file in files).encode()).hexdigest()[:16]


def compact_day(store: Store, registry: TokenRegistry, day: date) -> CompactedDay:
    """The market rows of all hours of a day.

    Raises:
        DataError: no hour of the day has a raw file, or one of them is torn or foreign.
    """
    files = store.raw_files(day)
    if not files:
        raise DataError(f"no hour of {day} has a raw snapshot in {store.root}/cmc/latest; import or collect the day")
    rows = _market_of(store, registry, list(files.values()))
    rows = rows.sort_values(["token", "timestamp"], kind="stable", ignore_index=True)
    return CompactedDay(rows, list(files), sources_of(files.values()))


def read_days(store: Store, days: Iterable[date], columns: Iterable[str] | None = None) -> pd.DataFrame:
    """The market rows of these days from their daily files; all columns, or some.

    A day that never had a raw file is a hole of the collector and has no rows. A day that has raw files but no daily
    file is refused: what is computed without it would change once it is there.
    """
    wanted = list(days)
    there = [day for day in wanted if store.has_table("daily_snapshots", day)]
    for day in sorted({*wanted} - {*there}):
        if store.raw_files(day):
            raise DataError(
                f"daily_snapshots of {day} is missing although the day has raw snapshots; materialise it first"
            )
    return store.read_table("daily_snapshots", there, columns)


def read_until(store: Store, first: datetime, last: datetime) -> pd.DataFrame:
    """The market rows from `first` to `last`, both whole hours and included, as they are known at `last`."""
    registry = load_registry(store)
    newest_day = last.date()
    days = list(_days(first.date(), newest_day))
    old_enough = [day for day in days if newest_day - day >= timedelta(days=RAW_DAYS)]
    compacted = [day for day in old_enough if store.has_table("daily_snapshots", day)]
    raw_days = sorted({*days} - {*compacted})
    files = [file for day in raw_days for file in store.raw_files(day).values() if first <= file.hour <= last]
    parts = [store.read_table("daily_snapshots", compacted), _market_of(store, registry, files)]
    rows = pd.concat(parts, ignore_index=True)
    return rows[rows["timestamp"].between(first, last)].reset_index(drop=True)


def read_hour(store: Store, hour: datetime) -> pd.DataFrame:
    """The market rows of one hour, by token.

    Raises:
        DataError: the hour has no raw snapshot, or a faulty one.
    """
    file = store.raw_file(hour)
    if file is None:
        raise DataError(f"no snapshot of {hour:%Y-%m-%d %H:00} is in the store; materialise hourly_snapshots first")
    return _market_of(store, load_registry(store), [file])


def newest_hour(store: Store, now: datetime) -> datetime | None:
    """The newest hour of today or yesterday that has a raw snapshot."""
    hours = [hour for day in _days(now.date() - timedelta(days=1), now.date()) for hour in store.raw_files(day)]
    return max((hour for hour in hours if hour <= now), default=None)


def _market_of(store: Store, registry: TokenRegistry, files: list[RawFile]) -> pd.DataFrame:
    if not files:
        return store.read_table("daily_snapshots", [])
    return market_rows(store, registry, read_raw(store, files))


def _days(first: date, last: date) -> Iterator[date]:
    return (first + timedelta(days=n) for n in range((last - first).days + 1))


def day_bounds(day: date) -> tuple[datetime, datetime]:
    """The first and the last hour of a day."""
    start = datetime.combine(day, time())
    return start, start + 23 * HOUR
