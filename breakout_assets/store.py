"""Files of the platform: where each lies, how it is written so that nobody ever sees half of it, how many are read.

The same code serves a folder and an S3 bucket. Paths are a public contract:

    cmc/latest/YYYY/MM/DD/HH/cmcdata.csv     raw snapshots, as the older collector wrote them (or .parquet)
    <asset>/YYYY/MM/DD.parquet               one day of a derived table
    <asset>/YYYY/MM/DD/HH.parquet            one hour of a derived table
    token_model/<token>/...                  models
    tokens/NNNNNN.parquet                    which coin has which token name, append-only
"""

import os
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from io import BytesIO
from typing import Any, Final

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from breakout_assets.errors import DataError
from breakout_assets.tables import TABLES, conform

# Rows of a Parquet row group: small enough to skip most of a day when one token is read, large enough to compress.
ROW_GROUP: Final = 30_000
RAW_NAMES: Final = ("cmcdata.csv", "cmcdata.parquet")  # in order of preference where an hour has both
LOCAL: Final = ("", "file", "local")  # protocols of paths on this machine
# Arrow's integers would become floats in pandas as soon as one is null.
_PANDAS_TYPES: Final = {pa.int64(): pd.Int64Dtype(), pa.int8(): pd.Int8Dtype()}


@dataclass(frozen=True)
class RawFile:
    """A raw snapshot that lies in the store."""

    hour: datetime
    path: UPath
    version: str
    """Changes whenever the bytes are delivered again: ETag on S3, modification time and size in a folder."""


@dataclass(frozen=True)
class Store:
    """Everything under one root."""

    root: UPath

    @classmethod
    def at(cls, location: str, s3_endpoint: str = "") -> "Store":
        """The store at a folder or `s3://bucket/prefix`; nothing is touched until it is used."""
        if not location.startswith("s3://"):
            return cls(UPath(location).expanduser().absolute())
        # s3fs would otherwise answer from a listing that it made before another process wrote.
        options: dict[str, Any] = {"use_listings_cache": False}
        if s3_endpoint:
            options["endpoint_url"] = s3_endpoint
        return cls(UPath(location, **options))

    @property
    def is_local(self) -> bool:
        """Whether the root is a folder of this machine."""
        return self.root.protocol in LOCAL

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
        return self.root / "token_model" / token

    # Raw snapshots ---------------------------------------------------------------------------------------------

    def raw_files(self, day: date) -> dict[datetime, RawFile]:
        """The raw snapshots that lie in the folders of a day, by hour, oldest first."""
        folder = self.root / "cmc" / "latest" / f"{day:%Y/%m/%d}"
        found: dict[datetime, RawFile] = {}
        for name, info in folder.fs.find(folder.path, detail=True).items():
            hour_name, file_name = str(name).split("/")[-2:]
            if file_name not in RAW_NAMES or not (hour_name.isdigit() and int(hour_name) < 24):
                continue
            hour = datetime.combine(day, datetime.min.time()) + timedelta(hours=int(hour_name))
            if hour in found and file_name != RAW_NAMES[0]:
                continue
            version = str(info.get("ETag") or f"{info['mtime']}-{info['size']}").strip('"')
            found[hour] = RawFile(hour, folder / hour_name / file_name, version)
        return dict(sorted(found.items()))

    def raw_file(self, hour: datetime) -> RawFile | None:
        """The raw snapshot of one hour, if it is there."""
        return self.raw_files(hour.date()).get(hour)

    # Writing ---------------------------------------------------------------------------------------------------

    def write_new(self, path: UPath, data: bytes) -> bool:
        """Write a file that must not exist yet; False if it does. Of several writers one wins, nobody sees half."""
        try:
            if not self.is_local:
                path.fs.pipe_file(path.path, data, mode="create")
                return True
            part = _write_part(path, data)
            try:
                os.link(str(part), path.path)  # unlike a rename, a link never replaces
            finally:
                part.unlink()
        except FileExistsError:
            return False
        except OSError as error:
            raise self._cannot_write(path, error) from error
        return True

    def write(self, path: UPath, data: bytes) -> None:
        """Write or replace a file; a reader sees the old bytes or the new ones."""
        try:
            write_whole(path, data)
        except OSError as error:
            raise self._cannot_write(path, error) from error

    def _cannot_write(self, path: UPath, error: OSError) -> DataError:
        reason = error.strerror or str(error)
        return DataError(f"{path} cannot be written ({reason}); check BREAKOUT_STORE={self.root} and its permissions")

    def write_table(self, table: str, key: datetime | date, frame: pd.DataFrame) -> UPath:
        """Write one partition of a derived table, brought into its contract; the same rows give the same bytes."""
        path = self.table_path(table, key)
        self.write(path, parquet_bytes(conform(frame, table)))
        return path

    # Reading ---------------------------------------------------------------------------------------------------

    def days_of(self, table: str) -> list[date]:
        """The days of a derived table that have been written, oldest first."""
        folder = self.root / table
        days = []
        for name in folder.fs.find(folder.path):
            parts = str(name).removesuffix(".parquet").split("/")[-3:]
            if str(name).endswith(".parquet") and all(part.isdigit() for part in parts):
                days.append(date(int(parts[0]), int(parts[1]), int(parts[2])))
        return sorted(days)

    def has_table(self, table: str, key: datetime | date) -> bool:
        """Whether a partition of a derived table has been written."""
        return self.table_path(table, key).exists()

    def read_table(
        self, table: str, keys: Sequence[datetime] | Sequence[date], columns: Iterable[str] | None = None
    ) -> pd.DataFrame:
        """The rows of these partitions, in the order of `keys`; all columns of the contract, or some.

        Raises:
            DataError: a partition has not been written, or its file is torn or foreign; the message names it.
        """
        contract = TABLES[table]
        wanted = list(contract if columns is None else columns)
        if not keys:
            return pd.DataFrame({name: pd.Series(dtype=contract[name]) for name in wanted})
        paths = [self.table_path(table, key) for key in keys]
        names = ", ".join(f'"{name}"' for name in wanted)
        with self.connect() as connection:
            try:
                found = connection.sql(
                    f"SELECT {names} FROM read_parquet($files)",  # noqa: S608  names come from the contract
                    params={"files": [self.duckdb_name(path) for path in paths]},
                ).to_arrow_table()
            except duckdb.Error as error:
                raise self._unreadable(table, paths, error) from error
        frame: pd.DataFrame = found.to_pandas(types_mapper=_PANDAS_TYPES.get)
        return frame.astype({name: contract[name] for name in wanted})

    @staticmethod
    def _unreadable(table: str, paths: list[UPath], error: duckdb.Error) -> DataError:
        missing = [path for path in paths if not path.exists()]
        if missing:
            return DataError(
                f"{table} is missing for {len(missing)} of {len(paths)} partitions, the first is {missing[0]}; "
                "materialise it before what is built on it"
            )
        return DataError(f"a file of {table} is torn or foreign; materialise it again: {error}")

    def connect(self) -> duckdb.DuckDBPyConnection:
        """A DuckDB connection that can read this store."""
        connection = duckdb.connect()
        connection.execute("SET TimeZone = 'UTC'")
        if not self.is_local:
            connection.register_filesystem(self.root.fs)  # DuckDB's own S3 reader would be a download at run time
        return connection

    def duckdb_name(self, path: UPath) -> str:
        """How DuckDB calls a file of this store."""
        return path.path if self.is_local else str(path)


def parquet_bytes(frame: pd.DataFrame) -> bytes:
    """The frame as zstd Parquet."""
    buffer = BytesIO()
    table = pa.Table.from_pandas(frame, preserve_index=False)
    pq.write_table(table, buffer, compression="zstd", row_group_size=ROW_GROUP)
    return buffer.getvalue()


def write_whole(path: UPath, data: bytes) -> None:
    """Write or replace a file; a reader sees the old bytes or the new ones.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    if path.protocol in LOCAL:
        _write_part(path, data).rename(path)
    else:
        path.fs.pipe_file(path.path, data)  # one PUT: the object appears whole


def _write_part(path: UPath, data: bytes) -> UPath:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:  # a file where a folder should be; not to be taken for a file that is there
        raise NotADirectoryError(error.errno, "a file is in the way of the folder", str(path.parent)) from error
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")  # unique: two processes may write at once
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # a name must not survive a power cut that its bytes did not
    except OSError:
        part.unlink(missing_ok=True)
        raise
    return part
