"""Turns a panel (one file, many hours) into the hourly raw files of the store."""

import csv
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Protocol

import duckdb
import pandas as pd

from breakout_assets import objects
from breakout_assets.errors import DataError
from breakout_assets.market.collect import claim
from breakout_assets.market.files import check_columns, hour_of, raw_bytes, read_raw, typed_column
from breakout_assets.market.schema import RAW_COLUMNS, is_whole_hour, raw_frame
from breakout_assets.store import RAW_NAMES, Store


class Progress(Protocol):
    """Told how far the import is."""

    def __call__(self, done: int, total: int, hour: datetime) -> None:
        """`done` of `total` hours are in the store, `hour` the newest of them."""


@dataclass
class ImportReport:
    """What an import did."""

    written: int = 0
    already_there: int = 0
    replaced: int = 0
    rows: int = 0
    absent_columns: list[str] = field(default_factory=list)
    """Columns of a snapshot that the panel does not have: null in every row."""
    suspicious: dict[str, int] = field(default_factory=dict)
    """Rows that were kept as they came and will be quarantined, by reason."""
    first: datetime | None = None
    last: datetime | None = None


def import_panel(
    file: Path, store: Store, *, extension: str = "csv", overwrite: bool = False, progress: Progress | None = None
) -> ImportReport:
    """Write every hour of a panel (`.csv` or `.parquet`, the source's column names) as a raw snapshot.

    Can be stopped and started again: hours that are there with the same content are passed over.

    Raises:
        DataError: the file is torn, lacks a required column or has times that are not whole hours; or an hour is in
            the store with other content and `overwrite` is off. Hours written before the refusal stay.
    """
    with duckdb.connect() as connection:
        report = ImportReport(absent_columns=_load(connection, file))
        _check_times(connection, file)
        claim(store, "real")
        hours = connection.execute("SELECT count(DISTINCT timestamp) FROM panel").fetchone()
        days = connection.execute("SELECT DISTINCT CAST(timestamp AS DATE) FROM panel ORDER BY 1").fetchall()
        total = int(hours[0]) if hours else 0
        for (day,) in days:
            rows = _rows_of_day(connection, day)
            for _, snapshot in rows.groupby("timestamp", sort=True):
                _write_hour(store, raw_frame(snapshot), extension, overwrite, report)
                if progress:
                    progress(report.written + report.already_there + report.replaced, total, hour_of(snapshot))
    return report


def _load(connection: duckdb.DuckDBPyConnection, file: Path) -> list[str]:
    """The panel as the table `panel` with the raw columns; the names of those that it does not have."""
    if not file.is_file():
        raise DataError(f"{file} is not there")
    if file.suffix not in (".csv", ".parquet"):
        raise DataError(f"{file} is neither .csv nor .parquet")
    try:
        connection.execute("SET TimeZone = 'UTC'")
        source = connection.read_parquet(str(file)) if file.suffix == ".parquet" else _csv(connection, file)
        check_columns(source.columns, str(file))
        columns = [typed_column(name, source.columns) for name in RAW_COLUMNS]
        source.project(", ".join([*columns, "row_number() OVER () AS position"])).create("panel")
    except duckdb.Error as error:
        raise DataError(f"{file} cannot be read as a panel: {str(error).strip()[:600]}") from error
    return [name for name in RAW_COLUMNS if name not in source.columns]


def _csv(connection: duckdb.DuckDBPyConnection, file: Path) -> duckdb.DuckDBPyRelation:
    """Every column as text: a sniffer would read the symbols TRUE, NAN and 42 as something else."""
    with file.open(newline="", encoding="utf-8-sig") as lines:
        header = next(csv.reader(lines), [])
    if not header:
        raise DataError(f"{file} is empty")
    check_columns(header, str(file))
    return connection.read_csv(
        str(file),
        header=True,
        auto_detect=False,
        delimiter=",",
        quotechar='"',
        escapechar='"',
        columns=dict.fromkeys(header, "VARCHAR"),
    )


def _check_times(connection: duckdb.DuckDBPyConnection, file: Path) -> None:
    if connection.execute("SELECT count(*) FROM panel").fetchone() == (0,):
        raise DataError(f"{file} holds no rows")
    bad = connection.execute(
        "SELECT count(*), min(position), any_value(timestamp) FROM panel "
        "WHERE timestamp IS NULL OR timestamp <> date_trunc('hour', timestamp)"
    ).fetchone()
    if bad and bad[0]:
        raise DataError(
            f"{file} has {bad[0]} rows whose timestamp is not a whole hour, the first in row {bad[1]} ({bad[2]}); "
            "round them to the hour at which they were known"
        )


def _rows_of_day(connection: duckdb.DuckDBPyConnection, day: date) -> pd.DataFrame:
    return connection.execute(
        "SELECT * EXCLUDE position FROM panel WHERE CAST(timestamp AS DATE) = $day ORDER BY timestamp, position",
        {"day": day},
    ).df()


def _write_hour(store: Store, frame: pd.DataFrame, extension: str, overwrite: bool, report: ImportReport) -> None:
    hour = hour_of(frame)
    if not is_whole_hour(hour):
        raise DataError(f"{hour} is not a whole hour")
    present = store.raw_file(hour)
    if present is None and store.write_new(store.raw_path(hour, extension), raw_bytes(frame, extension)):
        report.written += 1
    elif _same_content(store, hour, frame):
        report.already_there += 1
    elif overwrite:
        store.write(store.raw_path(hour, extension), raw_bytes(frame, extension))
        for name in RAW_NAMES:  # one file an hour: another format would otherwise be read first
            path = store.raw_path(hour, name.rsplit(".", 1)[1])
            if not name.endswith(extension):
                objects.delete(path)
        report.replaced += 1
    else:
        raise DataError(
            f"{hour:%Y-%m-%d %H:00} is in the store with other content ({store.raw_path(hour, extension).parent}); "
            "nothing was replaced. Import with --overwrite to replace such hours"
        )
    report.rows += len(frame)
    report.first, report.last = min(report.first or hour, hour), max(report.last or hour, hour)
    _note_suspicious(frame, report)


def _same_content(store: Store, hour: datetime, frame: pd.DataFrame) -> bool:
    present = store.raw_file(hour)
    if present is None:
        return False
    try:
        return raw_bytes(read_raw([present]), "csv") == raw_bytes(frame, "csv")
    except DataError:  # torn or foreign: other content, which --overwrite may replace
        return False


def _note_suspicious(frame: pd.DataFrame, report: ImportReport) -> None:
    key = ["id"] if frame["id"].notna().all() else ["id", "symbol", "name"]
    found = {
        "rows without a price": int(frame["price"].isna().sum()),
        "rows with a price of zero or below": int((frame["price"] <= 0).sum()),
        "rows of a coin that is in the hour already": int(frame.duplicated(key).sum()),
    }
    for reason, count in found.items():
        if count:
            report.suspicious[reason] = report.suspicious.get(reason, 0) + count
