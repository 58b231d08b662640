"""Reading and writing raw snapshot files: strictly enough that a wrong file is refused, never half believed.

pyarrow reads the rows, with an explicit schema and an explicit list of files: of an hour's CSV in a quarter of the time
that DuckDB needs, and with the same values. A header is not compared with what is asked for, and an empty file is no
error to it, so each file is looked at here first.
"""

import csv
import hashlib
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from io import BytesIO
from typing import Any, Final

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from breakout_assets import objects
from breakout_assets.errors import DataError
from breakout_assets.market.schema import FLOAT_COLUMNS, INTEGER_COLUMNS, RAW_COLUMNS, RAW_TYPES, raw_frame
from breakout_assets.store import RawFile, parquet_bytes

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
# More than a header of 25 names needs.
_HEAD: Final = 4096
# Ten days of hours of 1,250 coins are 60 MB of text in memory.
_FILES_AT_ONCE: Final = 240
_HOUR: Final = pa.timestamp("us")
_NUMBERS: Final = {*FLOAT_COLUMNS, *INTEGER_COLUMNS}
_SCHEMA: Final = pa.schema(
    [(name, pa.float64() if name in _NUMBERS else pa.large_string()) for name in RAW_COLUMNS if name != "timestamp"]
).insert(RAW_COLUMNS.index("timestamp"), pa.field("timestamp", _HOUR))
# An hour's rows say the same time: it is read once.
_CSV_TYPES: Final = {field.name: field.type for field in _SCHEMA} | {
    "timestamp": pa.dictionary(pa.int32(), pa.string())
}


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


def read_raw(files: Sequence[RawFile]) -> pd.DataFrame:
    """All rows of these raw snapshots as a raw frame, in the order of hours and, within one, of the file.

    Raises:
        DataError: a file is empty, torn or foreign, lacks a required column, or holds another hour than its folder
            says; the message names it and what to do.
    """
    return _read_all(files)


def read_raw_and_digests(files: Sequence[RawFile]) -> tuple[pd.DataFrame, dict[datetime, str]]:
    """The same, with the SHA-256 of each file's bytes by hour."""
    digests: dict[datetime, str] = {}
    return _read_all(files, digests), digests


def raw_digests(files: Sequence[RawFile]) -> dict[datetime, str]:
    """The SHA-256 of each file's bytes by hour, whatever is in it."""
    return {file.hour: _digest(data) for file, data in zip(files, _contents(files), strict=True)}


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _read_all(files: Sequence[RawFile], digests: dict[datetime, str] | None = None) -> pd.DataFrame:
    tables = []
    ordered = sorted(files, key=lambda file: file.hour)
    for start in range(0, len(ordered), _FILES_AT_ONCE):
        some = ordered[start : start + _FILES_AT_ONCE]
        for file, data in zip(some, _contents(some), strict=True):
            tables.append(_table(file, data))
            if digests is not None:
                digests[file.hour] = _digest(data)
    if not tables:
        return raw_frame(pd.DataFrame(columns=list(RAW_COLUMNS)))
    return raw_frame(pa.concat_tables(tables).to_pandas(use_threads=False))


def _contents(files: Sequence[RawFile]) -> list[bytes]:
    try:
        return objects.read_many([file.path for file in files])
    except OSError as error:
        unreadable = error.filename or str(error)
        raise DataError(
            f"{unreadable} cannot be read ({error.strerror or error}); restore it from its source or delete it"
        ) from error


def _table(file: RawFile, data: bytes) -> Any:
    """The rows of one file as an Arrow table of `_SCHEMA`."""
    names = _columns_of(file, data)
    try:
        read = _parquet(data) if file.path.suffix == ".parquet" else _csv(data, names)
        moments = [_moment(value) for value in read["timestamp"].unique().to_pylist()]
        arrays = [
            _typed(read[field.name], field.type) if field.name in names else pa.nulls(len(read), field.type)
            for field in _SCHEMA
            if field.name != "timestamp"
        ]
    except (pa.ArrowException, duckdb.Error, ValueError, KeyError) as error:
        raise DataError(f"{file.path} is torn or foreign; restore it or delete it: {str(error)[:400]}") from error
    _check_hours(file, moments)
    arrays.insert(_SCHEMA.get_field_index("timestamp"), pa.repeat(pa.scalar(file.hour, _HOUR), len(read)))
    return pa.table(arrays, schema=_SCHEMA)


def _typed(column: Any, kind: Any) -> Any:
    # Most are of their type already, and even a cast to the same one costs as much as reading them.
    return column if column.type == kind else column.cast(kind, safe=False)


def _csv(data: bytes, names: Sequence[str]) -> Any:
    types = {name: _CSV_TYPES.get(name, pa.string()) for name in names}
    return pyarrow.csv.read_csv(
        pa.BufferReader(data),
        # In one block, so that a row with a line break in a name is never cut.
        pyarrow.csv.ReadOptions(use_threads=False, block_size=len(data), column_names=names, skip_rows=1),
        pyarrow.csv.ParseOptions(newlines_in_values=True),
        # A coin may be called NA or null: only an empty field is a null.
        pyarrow.csv.ConvertOptions(column_types=types, null_values=[""], strings_can_be_null=True),
    )


def _parquet(data: bytes) -> Any:
    file = pq.ParquetFile(pa.BufferReader(data))
    return file.read([name for name in RAW_COLUMNS if name in file.schema_arrow.names], use_threads=False)


def _columns_of(file: RawFile, data: bytes) -> tuple[str, ...]:
    """The columns of a file, as far as it can be one of a snapshot."""
    path = file.path
    try:
        if path.suffix == ".parquet":
            names = tuple(pq.read_schema(BytesIO(data)).names)
            check_columns(names, str(path))
            return names
        head = data[:_HEAD]
        first_line = head.decode("utf-8-sig", errors="ignore").splitlines()[0] if head.strip() else ""
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path} cannot be read ({error}); restore it from its source or delete it") from error
    if not first_line:
        raise DataError(f"{path} is empty; restore it from its source, or delete it and fetch or import the hour")
    names = tuple(next(csv.reader([first_line])))
    check_columns(names, str(path))
    if not data.endswith(b"\n"):  # cut within its last field it would still parse, with another id
        raise DataError(f"{path} is torn: its last line does not end; restore it from its source or delete it")
    return names


def _moment(value: Any) -> datetime | None:
    """What a cell of `timestamp` says, as naive UTC."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:  # written in another way, of which DuckDB knows many
            with duckdb.connect() as connection:
                connection.execute("SET TimeZone = 'UTC'")
                found = connection.execute("SELECT CAST(CAST($text AS TIMESTAMPTZ) AS TIMESTAMP)", {"text": value})
                value = (found.fetchone() or (None,))[0]
    if value is not None and not isinstance(value, datetime):
        raise ValueError(f"its timestamp {value!r} is no time")
    return value if value is None or value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)


def _check_hours(file: RawFile, moments: Collection[datetime | None]) -> None:
    if not moments:
        raise DataError(f"{file.path} holds no rows; restore it from its source, or delete it and import the hour")
    known = [moment for moment in moments if moment is not None]
    if len(known) < len(moments) or {*known} != {file.hour}:
        span = f"rows of {min(known)} to {max(known)}" if known else "rows"
        without = " and some without a time" if len(known) < len(moments) else ""
        raise DataError(
            f"{file.path} holds {span}{without}, its folder says {file.hour}: it was written under the wrong hour; "
            "`python -m breakout_assets import` files it by its timestamp column"
        )


def typed_column(name: str, present: Collection[str]) -> str:
    """SQL for one raw column of a source that has these columns; null where it is absent."""
    if name not in present:
        return f'CAST(NULL AS {RAW_TYPES[name]}) AS "{name}"'
    if name == "timestamp":  # through a type that knows zones: without it an offset would be dropped, not converted
        return 'CAST(CAST("timestamp" AS TIMESTAMPTZ) AS TIMESTAMP) AS "timestamp"'
    return f'CAST("{name}" AS {RAW_TYPES[name]}) AS "{name}"'


def hour_of(rows: pd.DataFrame) -> datetime:
    """The hour of a raw frame of one hour."""
    moment: datetime = rows["timestamp"].iloc[0].to_pydatetime()
    return moment
