"""Months of hourly history without having waited for them: candles are fetched or read, and become raw hours.

An hour that has a raw file is left alone, whoever wrote it: rows of a listing and rows
made from candles are never mixed in one file.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from breakout_assets import objects
from breakout_assets.errors import DataError
from breakout_assets.market.candle_download import (
    KEY,
    Exchange,
    Progress,
    Sleep,
    cached_candles,
    check_pairs,
    download,
    months_of,
    parquet_with,
    venue_client,
)
from breakout_assets.market.candle_files import read_candles, read_map
from breakout_assets.market.candles import (
    ABSENT_COLUMNS,
    AGREEMENT_LIMIT,
    DERIVED_COLUMNS,
    PAST,
    REAL_COLUMNS,
    Coin,
    agreement,
    check_mapped,
    origin_of,
    snapshot_rows,
)
from breakout_assets.market.collect import claim
from breakout_assets.market.files import read_raw
from breakout_assets.market.schema import HOUR, ORIGIN_CANDLES, hours_between, is_whole_hour
from breakout_assets.store import RawFile, Store

# A month and the longest look back from it, 90 days, lie in five calendar months.
_MONTHS_AT_HAND: Final = 5
_COMPARED: Final = ["timestamp", "id", "symbol", "name", "price"]

# An hour, its rows, and the bytes of its file.
_Hour = tuple[datetime, pd.DataFrame, bytes]


@dataclass
class CandleReport:
    """What became of candles."""

    written: int = 0
    """Hours."""
    rows: int = 0
    """In the hours that were written."""
    already_there: int = 0
    """Hours that had the same content."""
    kept: Counter[str] = field(default_factory=Counter)
    """Hours that were left as they were with other content, by the origin of their rows."""
    first: datetime | None = None
    last: datetime | None = None
    holes: list[datetime] = field(default_factory=list)
    """Hours between first and last in which no pair has a candle."""
    unfinished: int = 0
    """Candles of files that were passed over since their hour is not over."""
    agreement: pd.DataFrame = field(default_factory=pd.DataFrame)
    """Against the prices of listings in hours that were there, as `candles.agreement` makes it."""
    warnings: list[str] = field(default_factory=list)

    @property
    def kept_other(self) -> int:
        """Hours that were left as they were with other content."""
        return self.kept.total()


# The two ways in -------------------------------------------------------------------------------------------------


def import_candle_files(
    files: Sequence[Path], venue: str, map_file: Path, store: Store, now: datetime, progress: Progress | None = None
) -> CandleReport:
    """Write the hours of candle files (see `candles.read_candles`) of one exchange as raw snapshots.

    Can be stopped and started again.

    Raises:
        DataError: a file, the map or a pair is refused, before anything is written; or the store holds a simulated
            market.
    """
    coins = read_map(map_file)
    origin_of(venue)  # refuses what is no name, before anything is written
    candles = read_candles(files)
    check_mapped(list(candles["pair"].unique()), coins)
    complete = candles[candles["open_time"] + HOUR <= pd.Timestamp(now)]
    if complete.empty:
        raise DataError(f"the files hold no candle that is over at {now}; the first opens {candles['open_time'].min()}")
    opens = complete["open_time"]
    by_month = dict(list(complete.groupby(opens.dt.to_period("M"))))
    first, last = opens.iloc[0].to_pydatetime(), opens.iloc[-1].to_pydatetime()
    parts = _rows_by_month(
        lambda month: by_month.get(month, complete.iloc[:0]), months_of(first, last), coins, venue, now
    )
    report = write_hours(store, parts, coins, (first + HOUR, last + HOUR), progress)
    report.unfinished = len(candles) - len(complete)
    return report


def import_from_venue(
    venue: str,
    map_file: Path,
    first: datetime,
    last: datetime,
    store: Store,
    now: datetime,
    progress: Progress | None = None,
    *,
    exchange: Exchange | None = None,
    sleep: Sleep = time.sleep,
) -> CandleReport:
    """Download the candles of the map's pairs and write the hours `first` to `last` (naive UTC) as raw snapshots.

    The 90 days before are downloaded too, as far as the exchange has them: the rows of `first` look back on them, and
    so an hour has the same content whichever hours it was asked for with. Can be stopped and started again.

    Raises:
        DataError: map, exchange, a pair or the hours are refused, or the store holds a simulated market.
        SettingsError: ccxt is not installed.
        TemporaryError: the exchange did not answer in spite of patience; what was fetched stays.
    """
    coins = read_map(map_file)
    if not (is_whole_hour(first) and is_whole_hour(last) and first <= last <= now):
        raise DataError(
            f"{first} to {last} cannot be built: give whole hours, the first not after the last and the last not after "
            f"{now:%Y-%m-%d %H:%M}"
        )
    client = exchange or venue_client(venue)
    check_pairs(client, venue, list(coins), sleep)
    claim(store, "real")
    oldest, newest = first - HOUR - PAST, last - HOUR
    download(venue, list(coins), oldest, newest, store, now, progress, exchange=client, sleep=sleep)
    seen: set[str] = set()

    def load(month: pd.Period) -> pd.DataFrame:
        candles = cached_candles(store, venue, list(coins), month)
        seen.update(candles.loc[candles["open_time"].between(pd.Timestamp(first - HOUR), newest), "pair"])
        return candles

    parts = (
        rows[rows["timestamp"].between(pd.Timestamp(first), pd.Timestamp(last))]
        for rows in _rows_by_month(load, months_of(oldest, newest), coins, venue, now)
    )
    report = write_hours(store, parts, coins, (first, last), progress)
    silent = sorted({*coins} - seen)
    if silent:
        report.warnings.append(
            f"{venue} gave no candle of {', '.join(silent)} in these hours: not listed then, or the exchange keeps no "
            "older candles"
        )
    return report


def _rows_by_month(
    load: Callable[[pd.Period], pd.DataFrame],
    months: Sequence[pd.Period],
    coins: Mapping[str, Coin],
    venue: str,
    now: datetime,
) -> Iterator[pd.DataFrame]:
    """The rows of the candles that open in each month, with only the months in memory that they look back on."""
    at_hand: deque[pd.DataFrame] = deque(maxlen=_MONTHS_AT_HAND)
    for month in months:
        at_hand.append(load(month))
        yield snapshot_rows(pd.concat(at_hand, ignore_index=True), coins, venue, now, month.start_time.to_pydatetime())


# Writing hours ---------------------------------------------------------------------------------------------------


def write_hours(
    store: Store,
    parts: Iterable[pd.DataFrame],
    coins: Mapping[str, Coin],
    window: tuple[datetime, datetime],
    progress: Progress | None = None,
) -> CandleReport:
    """Write each hour of these raw frames as one Parquet file that says where its columns come from.

    Args:
        store: It is marked as holding a real market.
        parts: Raw frames as `snapshot_rows` makes them, each of whole hours and later than the one before.
        coins: The coins by pair, to name pairs in warnings.
        window: The hours that are expected, for the progress.
        progress: Told after each hour.
    """
    claim(store, "real")
    report = CandleReport()
    total = (window[1] - window[0]) // HOUR + 1

    def tell(hour: datetime) -> None:
        if progress:
            progress("write", (hour - window[0]) // HOUR + 1, total, f"{hour:%Y-%m-%d %H:00}")

    compared: list[tuple[pd.DataFrame, pd.DataFrame]] = []
    for part in parts:
        compared += _keep(store, _write_part(store, list(_hourly(part)), report, tell), report)
    if compared:
        ours, listed = (pd.concat(frames, ignore_index=True) for frames in zip(*compared, strict=True))
        report.agreement = agreement(ours, listed)
        report.warnings += _disagreements(report.agreement, ours, coins)
    return report


def _write_part(
    store: Store, hours: Sequence[_Hour], report: CandleReport, tell: Callable[[datetime], None]
) -> list[tuple[RawFile, pd.DataFrame]]:
    """Write the hours that have no file; of those that have one of other bytes, the file and our rows."""
    if not hours:
        return []
    files = store.raw_between(hours[0][0], hours[-1][0])
    there = [files[hour] for hour, _, _ in hours if hour in files]
    held = dict(zip([file.hour for file in there], objects.read_many([file.path for file in there]), strict=True))
    others = []
    for hour, rows, data in hours:
        _note(report, hour)
        if hour not in files and store.write_new(store.raw_path(hour, "parquet"), data):
            report.written, report.rows = report.written + 1, report.rows + len(rows)
        elif held.get(hour) == data:
            report.already_there += 1
        elif file := files.get(hour) or store.raw_file(hour):  # not found before: another process was first
            others.append((file, rows))
        tell(hour)
    return others


def _hourly(rows: pd.DataFrame) -> Iterator[_Hour]:
    """Each hour with its rows and the bytes of its file."""
    if rows.empty:
        return
    origin = rows["origin"].iloc[0]
    columns = {"real": REAL_COLUMNS, "derived": DERIVED_COLUMNS, "absent": ABSENT_COLUMNS}
    texts = {"origin": origin, **{key: ",".join(names) for key, names in columns.items()}}
    table = pa.Table.from_pandas(rows, preserve_index=False)
    starts = np.flatnonzero(rows["timestamp"].ne(rows["timestamp"].shift()))
    for start, end in zip(starts, [*starts[1:], len(rows)], strict=True):
        hour: datetime = rows["timestamp"].iloc[start].to_pydatetime()
        yield hour, rows.iloc[start:end], parquet_with(table.slice(start, end - start), texts)


def _note(report: CandleReport, hour: datetime) -> None:
    if report.last is not None:
        report.holes += hours_between(report.last, hour)[1:-1]
    report.first, report.last = report.first or hour, hour


def _keep(
    store: Store, others: Sequence[tuple[RawFile, pd.DataFrame]], report: CandleReport
) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """Count hours that have a file; of those that a listing wrote, our rows and its rows of coins that we may have."""
    found = _read_present([file for file, _ in others])
    for file, rows in others:
        present = found[file.hour]
        if present is None:
            report.kept["unreadable"] += 1
        elif present.equals(rows.reset_index(drop=True)):  # another version of the writer makes other bytes of it
            report.already_there += 1
        else:
            origins = sorted(present["origin"].dropna().unique())
            report.kept["+".join(origins) or "no origin"] += 1
            listing = present[~present["origin"].fillna("").str.startswith(ORIGIN_CANDLES)]
            known = listing["id"].isin(rows["id"].dropna()) | listing["symbol"].isin(rows["symbol"])
            if len(listing):
                yield rows[_COMPARED], listing.loc[known, _COMPARED]


def _read_present(files: Sequence[RawFile]) -> dict[datetime, pd.DataFrame | None]:
    """The rows of these hours in one read; None for a file that cannot be read."""
    if not files:
        return {}
    try:
        rows = read_raw(files)
    except DataError:
        if len(files) == 1:
            return {files[0].hour: None}
        return {hour: rows for file in files for hour, rows in _read_present([file]).items()}
    return {
        pd.Timestamp(hour).to_pydatetime(): group.reset_index(drop=True)  # type: ignore[arg-type]  # a key is a time
        for hour, group in rows.groupby("timestamp")
    }


def _disagreements(summary: pd.DataFrame, ours: pd.DataFrame, coins: Mapping[str, Coin]) -> list[str]:
    """What a person should know about pairs whose prices are not the listing's, or that no listing has."""
    pairs = {(coin.id, coin.symbol, coin.name): pair for pair, coin in coins.items()}

    def pair_of(coin: pd.Series) -> str:
        return pairs[None if pd.isna(coin["id"]) else int(coin["id"]), coin["symbol"], coin["name"]]

    warnings = [
        f"{pair_of(row)} is {row['median']:.3g} % away from the listing's {row['name']} in the median of "
        f"{row['hours']} hours, in {row['beyond']:.0%} of them by more than {AGREEMENT_LIMIT} %: another coin or units?"
        for _, row in summary[summary["median"] > AGREEMENT_LIMIT].iterrows()
    ]
    names = ["id", "symbol", "name"]
    coins_here = ours[names].drop_duplicates()
    unseen = coins_here[~pd.MultiIndex.from_frame(coins_here).isin(pd.MultiIndex.from_frame(summary[names]))]
    if len(unseen):
        pairs_unseen = ", ".join(sorted(pair_of(row) for _, row in unseen.iterrows()))
        warnings.append(
            f"the listing hours at hand have no price of {pairs_unseen}: too small for the listing, or another id, "
            "symbol or name there?"
        )
    return warnings


def provenance(file: Path | UPath | bytes) -> dict[str, str]:
    """What a raw file says about its columns: `origin`, and the names of `real`, `derived` and `absent` ones.

    Empty for a file that says nothing, as those of a listing.

    Raises:
        DataError: it is neither text nor sound Parquet.
    """
    if not isinstance(file, bytes) and file.suffix == ".csv":
        return {}
    data = file if isinstance(file, bytes) else objects.read(UPath(file))
    try:
        metadata = pq.read_schema(BytesIO(data)).metadata or {}
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        where = "the file" if isinstance(file, bytes) else str(file)
        raise DataError(f"{where} is no sound Parquet ({error}); restore it or delete it") from error
    texts = {key.decode(): value.decode() for key, value in metadata.items() if key.startswith(KEY.encode())}
    return {key.removeprefix(KEY): value for key, value in texts.items()}
