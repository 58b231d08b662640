"""Files of the platform: where each lies, how many are read at once, and what it means when one is missing.

The same code serves a folder and an S3 bucket (`objects` knows the difference). Paths are a public contract:

    cmc/latest/YYYY/MM/DD/HH/cmcdata.csv     raw snapshots, as the older collector wrote them (or .parquet)
    <asset>/YYYY/MM/DD.parquet               one day of a derived table
    <asset>/YYYY/MM/DD/HH.parquet            one hour of a derived table
    token_model/<token>/...                  models
    serving/<recipe>/...                     the models that serve, in one file; derived from them
    tokens/NNNNNN.parquet                    which coin has which token name, append-only
    tokens/all/NNNNNN.parquet                the same of all files up to this number
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from io import BytesIO
from typing import Any, Final

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.memory import MemoryFileSystem
from upath import UPath

from breakout_assets import objects
from breakout_assets.errors import DataError
from breakout_assets.parquet import UnreadableFileError, read_files
from breakout_assets.tables import ADDED, TABLES, conform

# Rows of a Parquet row group: small enough to skip most of a day when one token is read, large enough to compress.
ROW_GROUP: Final = 30_000
MODELS: Final = "token_model"  # the folder of all tokens' models
RAW_NAMES: Final = ("cmcdata.csv", "cmcdata.parquet")  # in order of preference where an hour has both
# Files of a bucket that are fetched and counted together; a month of features of 1,250 coins is 220 MB.
_HELD_FILES: Final = 30
_MADE_FROM: Final = b"made_from"
_RAW_NAME: Final = re.compile(r"/(\d{4})/(\d{2})/(\d{2})/(\d{2})/cmcdata\.(?:csv|parquet)$")


@dataclass(frozen=True)
class RawFile:
    """A raw snapshot that lies in the store.

    Attributes:
        hour: The hour that its folder names.
        path: Where it lies.
        version: Changes whenever other bytes are delivered.
        modified: When it was written, naive UTC.
    """

    hour: datetime
    path: UPath
    version: str
    modified: datetime


@dataclass(frozen=True)
class Store:
    """Everything under one root."""

    root: UPath

    @classmethod
    def at(cls, location: str, s3_endpoint: str = "", s3_region: str = "") -> "Store":
        """The store at a folder or `s3://bucket/prefix`; nothing is touched until it is used."""
        if not location.startswith("s3://"):
            return cls(UPath(location).expanduser().absolute())
        options = {"endpoint_url": s3_endpoint, "region_name": s3_region}
        return cls(UPath(location.rstrip("/"), **{name: value for name, value in options.items() if value}))

    @property
    def is_local(self) -> bool:
        """Whether the root is a folder of this machine."""
        return objects.is_local(self.root)

    # Where things lie ------------------------------------------------------------------------------------------

    def raw_path(self, hour: datetime, extension: str) -> UPath:
        """The raw snapshot of an hour; `extension` is `csv` or `parquet`."""
        return self.root / "cmc" / "latest" / f"{hour:%Y/%m/%d/%H}" / f"cmcdata.{extension}"

    def table_path(self, table: str, key: datetime | date) -> UPath:
        """The file of one partition of a derived table: a `datetime` is an hour, a `date` a day."""
        form = "%Y/%m/%d/%H" if isinstance(key, datetime) else "%Y/%m/%d"
        return self.root / table / f"{key.strftime(form)}.parquet"

    def model_folder(self, token: str) -> UPath:
        """The folder of one token's models."""
        return self.root / MODELS / token

    # Raw snapshots ---------------------------------------------------------------------------------------------

    def raw_files(self, day: date) -> dict[datetime, RawFile]:
        """The raw snapshots that lie in the folders of a day, by hour, oldest first."""
        return self._raw_under(f"{day:%Y/%m/%d}")

    def raw_file(self, hour: datetime) -> RawFile | None:
        """The raw snapshot of one hour, if it is there."""
        return self.raw_files(hour.date()).get(hour)

    def raw_between(self, first: datetime, last: datetime) -> dict[datetime, RawFile]:
        """The raw snapshots of the hours from `first` to `last`, oldest first; two requests to a bucket a month."""
        found: dict[datetime, RawFile] = {}
        if self.is_local:  # where a listing costs what it finds, it is of no day more than asked for
            folders = [
                f"{first.date() + timedelta(days=n):%Y/%m/%d}" for n in range((last.date() - first.date()).days + 1)
            ]
        else:
            folders = [f"{month:%Y/%m}" for month in _months(first.date(), last.date())]
        for folder in folders:
            found |= self._raw_under(folder)
        return {hour: file for hour, file in found.items() if first <= hour <= last}

    def _raw_under(self, folder: str) -> dict[datetime, RawFile]:
        found: dict[datetime, RawFile] = {}
        for file in objects.found_under(self.root / "cmc" / "latest" / folder):
            hour = hour_of_raw(file.path.path)
            if hour is None or (hour in found and file.path.name != RAW_NAMES[0]):
                continue
            found[hour] = RawFile(hour, file.path, file.version, file.modified)
        return dict(sorted(found.items()))

    # Writing ---------------------------------------------------------------------------------------------------

    def write_new(self, path: UPath, data: bytes) -> bool:
        """Write a file that must not exist yet; False if it does. Of several writers one wins, nobody sees half."""
        with self._writing(path):
            return objects.write_new(path, data)

    def write(self, path: UPath, data: bytes) -> None:
        """Write or replace a file; a reader sees the old bytes or the new ones."""
        with self._writing(path):
            objects.write(path, data)

    @contextmanager
    def _writing(self, path: UPath) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DataError(
                f"{path} cannot be written ({error.strerror or error}); check BREAKOUT_STORE={self.root}, its "
                "permissions and the space that is left"
            ) from error

    def write_table(self, table: str, key: datetime | date, frame: pd.DataFrame, made_from: str = "") -> UPath:
        """Write one partition of a derived table, brought into its contract; the same rows give the same bytes.

        What its rows were `made_from` is kept in the file if it is said, for the method of that name.
        """
        path = self.table_path(table, key)
        self.write(path, parquet_bytes(conform(frame, table), made_from))
        return path

    # Reading ---------------------------------------------------------------------------------------------------

    def days_of(self, table: str) -> list[date]:
        """The days of a derived table that have been written, oldest first."""
        days = []
        for file in objects.found_under(self.root / table):
            parts = str(file.path).removesuffix(".parquet").split("/")[-3:]
            if file.path.suffix == ".parquet" and all(part.isdigit() for part in parts):
                days.append(date(int(parts[0]), int(parts[1]), int(parts[2])))
        return sorted(days)

    def has_table(self, table: str, key: datetime | date) -> bool:
        """Whether a partition of a derived table has been written."""
        return objects.exists(self.table_path(table, key))

    def made_from(self, table: str, key: datetime | date) -> str:
        """What a partition was made from, as it was written; empty if nobody said so, or it is not there or torn."""
        path = self.table_path(table, key)
        try:
            file = path.path if self.is_local else pa.BufferReader(objects.read_many([path])[0])
            said = pq.read_metadata(file).metadata or {}
        except (FileNotFoundError, pa.ArrowException):
            return ""
        return str(said.get(_MADE_FROM, b""), "utf-8")

    def hours_there(self, table: str, hours: Sequence[datetime]) -> list[datetime]:
        """Which of these hours of a derived table have been written; one listing a month."""
        wanted = {self.table_path(table, hour).path: hour for hour in hours}
        months = sorted({f"{hour:%Y/%m}" for hour in hours})
        found = {file.path.path for month in months for file in objects.found_under(self.root / table / month)}
        return [hour for path, hour in wanted.items() if path in found]

    def days_there(self, table: str, days: Iterable[date]) -> set[date]:
        """Which of these days of a derived table have been written; one request to a bucket a month."""
        wanted = {self.table_path(table, day).path: day for day in days}
        if self.is_local:
            return {day for day in wanted.values() if self.has_table(table, day)}
        months = sorted({f"{day:%Y/%m}" for day in wanted.values()})
        found = {file.path.path for month in months for file in objects.found_under(self.root / table / month)}
        return {day for path, day in wanted.items() if path in found}

    def read_table(
        self,
        table: str,
        keys: Sequence[datetime] | Sequence[date],
        columns: Iterable[str] | None = None,
        tokens: Sequence[str] | None = None,
        *,
        coded: bool = False,
        then: pd.DataFrame | None = None,
    ) -> pd.DataFrame:
        """The rows of these partitions, in the order of `keys`; all columns of the contract or some, likewise tokens.

        `coded` text comes as categories, in the order of the alphabet: a small number a row, which is read, compared
        and picked in a fraction of the time. `then` are rows of the same table that follow them.

        Raises:
            DataError: a partition has not been written, or its file is torn or foreign; the message names it.
        """
        contract = TABLES[table]
        types = {name: contract[name] for name in (contract if columns is None else columns)}
        if coded:
            types = {name: "category" if kind == "str" else kind for name, kind in types.items()}
        paths = [self.table_path(table, key) for key in keys]
        try:
            fetched = [None] * len(paths) if self.is_local else objects.read_many(paths)
            files = zip([path.path for path in paths], fetched, strict=True)
            return read_files(files, types, tokens, ADDED.get(table, ()), then)
        except (UnreadableFileError, FileNotFoundError) as error:
            raise _unreadable(table, paths, error) from error

    def count(self, table: str, keys: Sequence[datetime] | Sequence[date], by: Sequence[str]) -> pd.DataFrame:
        """How many rows of these partitions (`n`) have each combination of values of some columns, in their order.

        No row is held, and of a bucket few files at a time. Raises as `read_table`.
        """
        if not keys:
            return self.read_table(table, [], by).assign(n=pd.Series(dtype="int64"))
        if not self.is_local and len(keys) > _HELD_FILES:
            parts = [self.count(table, keys[n : n + _HELD_FILES], by) for n in range(0, len(keys), _HELD_FILES)]
            return pd.concat(parts).groupby(list(by), dropna=False, as_index=False).agg(n=("n", "sum"))
        paths = [self.table_path(table, key) for key in keys]
        names = ", ".join(f'"{name}"' for name in by)
        query = f"SELECT {names}, count(*) AS n FROM read_parquet($files) GROUP BY ALL ORDER BY ALL"  # noqa: S608
        try:
            with self.opened(paths) as (connection, files):
                found: pd.DataFrame = connection.execute(query, {"files": files}).df()
        except (duckdb.Error, FileNotFoundError) as error:
            raise _unreadable(table, paths, error) from error
        return found.astype({name: TABLES[table][name] for name in by})

    @contextmanager
    def opened(self, paths: Sequence[UPath]) -> Iterator[tuple[duckdb.DuckDBPyConnection, list[str]]]:
        """A DuckDB connection for these files of the store, and what it calls them.

        Files of a bucket are fetched whole and side by side, one request each. DuckDB's own S3 reader would be a
        download at run time, and a file system under it asks seven times a file, two files at once.
        """
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            if self.is_local:
                yield connection, [path.path for path in paths]
            else:
                fetched = zip(paths, objects.read_many(paths), strict=True)
                yield connection, hold(connection, {path.path: data for path, data in fetched})


class _HeldFiles(MemoryFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Files in memory that one connection sees; fsspec's own class shares its files with the whole process."""

    cachable = False

    def __init__(self) -> None:
        super().__init__()
        self.store: dict[str, Any] = {}
        self.pseudo_dirs = [""]


def hold(connection: duckdb.DuckDBPyConnection, files: dict[str, bytes]) -> list[str]:
    """Let a connection read bytes as files; returns what it calls them, in order."""
    held = _HeldFiles()
    for name, data in files.items():
        held.pipe_file(f"/{name}", data)
    connection.register_filesystem(held)
    return [f"memory:///{name}" for name in files]


def _unreadable(table: str, paths: list[UPath], error: Exception) -> DataError:
    missing = [path for path in paths if not objects.exists(path)]
    if missing:
        return DataError(
            f"{table} is missing for {len(missing)} of {len(paths)} partitions, the first is {missing[0]}; "
            "materialise it before what is built on it"
        )
    return DataError(f"a file of {table} is torn or foreign; materialise it again: {error}")


def hour_of_raw(path: str) -> datetime | None:
    """The hour that the path of a raw snapshot names; None if it is no such path."""
    match = _RAW_NAME.search(path)
    if match is None:
        return None
    year, month, day, hour = (int(part) for part in match.groups())
    try:
        return datetime.combine(date(year, month, day), time(hour))
    except ValueError:  # a folder that looks like a day and is none
        return None


def _months(first: date, last: date) -> Iterator[date]:
    month = first.replace(day=1)
    while month <= last:
        yield month
        month = (month + timedelta(days=31)).replace(day=1)


def parquet_bytes(frame: pd.DataFrame, made_from: str = "") -> bytes:
    """The frame as zstd Parquet; the same rows, made from the same, give the same bytes."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    if made_from:
        table = table.replace_schema_metadata({**table.schema.metadata, _MADE_FROM: made_from})
    # Hardly any price occurs twice: a dictionary of them would be longer than they are and twice as slow to read.
    # With the bytes of a number in eight streams, the exponents lie side by side and compress.
    floats = [field.name for field in table.schema if pa.types.is_floating(field.type)]
    others = [field.name for field in table.schema if not pa.types.is_floating(field.type)]
    buffer = BytesIO()
    pq.write_table(
        table,
        buffer,
        compression="zstd",
        row_group_size=ROW_GROUP,
        use_dictionary=others,
        use_byte_stream_split=floats,
    )
    return buffer.getvalue()
