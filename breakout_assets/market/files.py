"""Reading and writing raw snapshot files: strictly enough that a wrong file is refused, never half believed.

DuckDB reads the rows, with an explicit schema and an explicit list of files. It skips a header without comparing it
and takes an empty file for no rows, so each file's header is read and compared here first.
"""

import csv
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from io import BytesIO
from typing import Final

import duckdb
import pandas as pd
import pyarrow.parquet as pq

from breakout_assets.errors import DataError
from breakout_assets.market.schema import ID_COLUMN, RAW_COLUMNS, SNAPSHOT_COLUMNS, raw_frame
from breakout_assets.store import RawFile, Store, parquet_bytes

# Without these there is no label and no feature. The other columns are null where an older file lacks them: the
# listing has grown over the years.
REQUIRED_COLUMNS: Final = (
    "name",
    "symbol",
    "num_market_pairs",
    "cmc_rank",
    "price",
    "volume_24h",
    "volume_change_24h",
    "percent_change_24h",
    "percent_change_7d",
    "timestamp",
)
_TYPES: Final = {**SNAPSHOT_COLUMNS, ID_COLUMN: "DOUBLE"}
# More than a header of 23 names needs, and one block on any disk.
_HEAD: Final = 4096


def check_columns(columns: Iterable[str], where: str) -> None:
    """Refuse a table of a market that lacks a required column; extra columns are nobody's business."""
    missing = [name for name in REQUIRED_COLUMNS if name not in set(columns)]
    if missing:
        raise DataError(f"{where} is not a snapshot: it lacks the columns {', '.join(missing)}")


def raw_bytes(frame: pd.DataFrame, extension: str) -> bytes:
    """A raw frame as the bytes of a file, `csv` as the older collector wrote it (CRLF, empty for null) or `parquet`."""
    frame = raw_frame(frame)
    if extension == "parquet":
        return parquet_bytes(frame)
    text = frame.assign(timestamp=frame["timestamp"].dt.strftime("%Y-%m-%dT%H:%M:%S"))
    return text.to_csv(index=False, lineterminator="\r\n").encode()


def read_raw(store: Store, files: Sequence[RawFile]) -> pd.DataFrame:
    """All rows of these raw snapshots as a raw frame, in the order of hours and, within one, of the file.

    Raises:
        DataError: a file is empty, torn or foreign, lacks a required column, or holds another hour than its folder
            says; the message names it and what to do.
    """
    if not files:
        return raw_frame(pd.DataFrame(columns=list(RAW_COLUMNS)))
    groups: dict[tuple[str, ...], list[RawFile]] = defaultdict(list)
    for file in files:
        groups[_columns_of(store, file)].append(file)
    parts = [_read_group(store, columns, group) for columns, group in groups.items()]
    rows = pd.concat(parts, ignore_index=True)
    _check_hours(rows, {store.duckdb_name(file.path): file for file in files})
    rows = rows.sort_values(["timestamp", "position"], kind="stable", ignore_index=True)
    return raw_frame(rows)


def _columns_of(store: Store, file: RawFile) -> tuple[str, ...]:
    """The columns of a file, `parquet` before them where it is one."""
    try:
        if file.path.suffix == ".parquet":
            names = tuple(pq.read_schema(BytesIO(file.path.read_bytes())).names)
            check_columns(names, str(file.path))
            return ("parquet", *sorted({*names} & {*RAW_COLUMNS}))
        head = file.path.fs.cat_file(file.path.path, start=0, end=_HEAD)
        tail = file.path.fs.cat_file(file.path.path, start=-1)
        first_line = head.decode("utf-8-sig").splitlines()[0] if head.strip() else ""
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        raise DataError(f"{file.path} cannot be read ({error}); restore it from its source or delete it") from error
    if not first_line:
        raise DataError(f"{file.path} is empty; restore it from its source, or delete it and fetch or import the hour")
    names = tuple(next(csv.reader([first_line])))
    check_columns(names, str(file.path))
    if tail != b"\n":  # cut within its last field it would still parse, with another id
        raise DataError(f"{file.path} is torn: its last line does not end; restore it from its source or delete it")
    return ("csv", *names)


def _read_group(store: Store, columns: tuple[str, ...], files: list[RawFile]) -> pd.DataFrame:
    kind, *names = columns
    wanted = ", ".join(typed_column(name, names) for name in RAW_COLUMNS)
    parameters: dict[str, object] = {"files": [store.duckdb_name(file.path) for file in files]}
    if kind == "csv":
        source = (
            "read_csv($files, header = true, auto_detect = false, delim = ',', quote = '\"', escape = '\"', "
            "columns = $columns, filename = true)"
        )
        parameters["columns"] = {name: _TYPES.get(name, "VARCHAR") for name in names} | {"timestamp": "VARCHAR"}
    else:
        source = "read_parquet($files, filename = true, file_row_number = true)"
    with store.connect() as connection:
        try:
            connection.execute(f"SELECT {wanted}, filename FROM {source}", parameters)  # noqa: S608  constant names
            rows: pd.DataFrame = connection.df()
        except duckdb.Error as error:
            if len(files) > 1:  # the error does not always name its file
                for file in files:
                    _read_group(store, columns, [file])
            raise DataError(f"{files[0].path} is torn or foreign; restore it or delete it: {_gist(error)}") from error
    return rows.assign(position=range(len(rows)))


def _gist(error: duckdb.Error) -> str:
    """The first lines of DuckDB's message, without its advice about options that this reader sets itself."""
    lines = [line.strip() for line in str(error).split("Possible")[0].splitlines() if line.strip()]
    return "; ".join(lines)[:400]


def _check_hours(rows: pd.DataFrame, files: dict[str, RawFile]) -> None:
    hours = rows.groupby("filename")["timestamp"].agg(["min", "max"])
    for name, file in files.items():
        if name not in hours.index:
            raise DataError(f"{file.path} holds no rows; restore it from its source, or delete it and import the hour")
        low, high = hours.loc[name]
        if not low == high == pd.Timestamp(file.hour):
            raise DataError(
                f"{file.path} holds rows of {low} to {high}, its folder says {file.hour}: it was written under the "
                "wrong hour; `python -m breakout_assets import` files it by its timestamp column"
            )


def typed_column(name: str, present: Collection[str]) -> str:
    """SQL for one raw column of a source that has these columns; null where it is absent."""
    if name not in present:
        return f'CAST(NULL AS {_TYPES[name]}) AS "{name}"'
    if name == "timestamp":  # through a type that knows zones: without it an offset would be dropped, not converted
        return 'CAST(CAST("timestamp" AS TIMESTAMPTZ) AS TIMESTAMP) AS "timestamp"'
    return f'CAST("{name}" AS {_TYPES[name]}) AS "{name}"'


def hour_of(rows: pd.DataFrame) -> datetime:
    """The hour of a raw frame of one hour."""
    moment: datetime = rows["timestamp"].iloc[0].to_pydatetime()
    return moment
