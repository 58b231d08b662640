"""Reading and writing raw snapshot files: strictly enough that a wrong file is refused, never half believed.

DuckDB reads the rows, with an explicit schema and an explicit list of files. It skips a header without comparing it
and takes an empty file for no rows, so each file's header is read and compared here first.
"""

import csv
import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from typing import Final

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from breakout_assets import objects
from breakout_assets.errors import DataError, TemporaryError
from breakout_assets.market.schema import RAW_COLUMNS, RAW_TYPES, raw_frame
from breakout_assets.store import RawFile, Store, hold, parquet_bytes

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
    return read_raw_and_digests(files)[0]


def read_raw_and_digests(files: Sequence[RawFile]) -> tuple[pd.DataFrame, dict[datetime, str]]:
    """The same, with the SHA-256 of each file's bytes by hour."""
    digests: dict[datetime, str] = {}
    parts = []
    for start in range(0, len(files), _FILES_AT_ONCE):
        contents = _contents(files[start : start + _FILES_AT_ONCE])
        digests |= {content.file.hour: hashlib.sha256(content.data).hexdigest() for content in contents}
        groups: dict[tuple[str, ...], list[_Content]] = defaultdict(list)
        for content in contents:
            groups[_columns_of(content)].append(content)
        parts += [_read_group(columns, group) for columns, group in groups.items()]
    if not parts:
        return raw_frame(pd.DataFrame(columns=list(RAW_COLUMNS))), {}
    rows = pd.concat(parts, ignore_index=True)
    rows = rows.sort_values(["timestamp", "position"], kind="stable", ignore_index=True)
    return raw_frame(rows), digests


@dataclass(frozen=True)
class _Content:
    file: RawFile
    data: bytes

    @property
    def name(self) -> str:
        """What DuckDB calls it; the hour and the kind of file, which no two files of a read share."""
        return f"{self.file.hour:%Y%m%d%H}{self.file.path.suffix}"


def _contents(files: Sequence[RawFile]) -> list[_Content]:
    try:
        data = objects.read_many([file.path for file in files])
    except OSError as error:
        unreadable = error.filename or str(error)
        raise DataError(
            f"{unreadable} cannot be read ({error.strerror or error}); restore it from its source or delete it"
        ) from error
    return [_Content(file, content) for file, content in zip(files, data, strict=True)]


def _columns_of(content: _Content) -> tuple[str, ...]:
    """The columns of a file, `parquet` before them where it is one."""
    path, data = content.file.path, content.data
    try:
        if path.suffix == ".parquet":
            names = tuple(pq.read_schema(BytesIO(data)).names)
            check_columns(names, str(path))
            return ("parquet", *sorted({*names} & {*RAW_COLUMNS}))
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
    return ("csv", *names)


def _read_group(columns: tuple[str, ...], contents: list[_Content]) -> pd.DataFrame:
    kind, *names = columns
    wanted = ", ".join(typed_column(name, names) for name in RAW_COLUMNS)
    parameters: dict[str, object] = {}
    if kind == "csv":
        source = (
            "read_csv($files, header = true, auto_detect = false, delim = ',', quote = '\"', escape = '\"', "
            "columns = $columns, filename = true)"
        )
        parameters["columns"] = {name: RAW_TYPES.get(name, "VARCHAR") for name in names} | {"timestamp": "VARCHAR"}
    else:
        source = "read_parquet($files, filename = true)"
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        parameters["files"] = hold(connection, {content.name: content.data for content in contents})
        try:
            connection.execute(f"SELECT {wanted}, filename FROM {source}", parameters)  # noqa: S608  constant names
            rows: pd.DataFrame = connection.df()
        except duckdb.Error as error:
            if "Traceback" in str(error):  # Python's own, raised while DuckDB asked for bytes: a run that is stopped
                raise TemporaryError(
                    f"reading raw hours was broken off: {str(error).strip().splitlines()[-1]}"
                ) from error
            if len(contents) > 1:  # the error does not always name its file
                for content in contents:
                    _read_group(columns, [content])
            path = contents[0].file.path
            raise DataError(f"{path} is torn or foreign; restore it or delete it: {_gist(error)}") from error
    _check_hours(rows, contents)
    return rows.assign(position=range(len(rows)))


def _gist(error: duckdb.Error) -> str:
    """The first lines of DuckDB's message, without its advice about options that this reader sets itself."""
    lines = [line.strip() for line in str(error).split("Possible")[0].splitlines() if line.strip()]
    return "; ".join(lines)[:400]


def _check_hours(rows: pd.DataFrame, contents: list[_Content]) -> None:
    hours = rows.groupby("filename")["timestamp"].agg(["min", "max"])
    for content in contents:
        file, name = content.file, f"memory:///{content.name}"
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
        return f'CAST(NULL AS {RAW_TYPES[name]}) AS "{name}"'
    if name == "timestamp":  # through a type that knows zones: without it an offset would be dropped, not converted
        return 'CAST(CAST("timestamp" AS TIMESTAMPTZ) AS TIMESTAMP) AS "timestamp"'
    return f'CAST("{name}" AS {RAW_TYPES[name]}) AS "{name}"'


def hour_of(rows: pd.DataFrame) -> datetime:
    """The hour of a raw frame of one hour."""
    moment: datetime = rows["timestamp"].iloc[0].to_pydatetime()
    return moment
