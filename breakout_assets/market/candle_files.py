"""The files that candles and their coins are read from: an exchange's archive or any table, and the map of pairs."""

import csv
import re
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Final

import duckdb
import numpy as np
import pandas as pd

from breakout_assets.errors import DataError
from breakout_assets.market.candles import Coin, candle_frame, hours_of

# The columns of an exchange's archive of klines, whose files have no header; the pair is in their names.
_KLINE: Final = (
    "open_time",
    "open",
    "high",
    "low",
    "close",
    "volume",
    "close_time",
    "quote_volume",
    "count",
    "taker_buy_volume",
    "taker_buy_quote_volume",
    "ignore",
)
# An epoch number tells its unit by its size: all times since 2001 have ten digits in seconds, thirteen in milliseconds.
_EPOCH_UNITS: Final = {"seconds": 10**0, "milliseconds": 10**3, "microseconds": 10**6}
_EPOCH_RANGE: Final = (1e9, 9e9)  # to the year 2255: nanoseconds of later times do not fit into 64 bits
_DAWN: Final = pd.Timestamp(2009, 1, 3)  # the first block of Bitcoin: no candle of a coin is older
# With fewer candles, the gaps of a pair that hardly trades could all be even by chance.
_ENOUGH_FOR_CADENCE: Final = 24


# The map of pairs ------------------------------------------------------------------------------------------------


def read_map(file: Path) -> dict[str, Coin]:
    """The coins by pair, from a CSV with the columns `pair,symbol,name` and, if wanted, `id` and `units`.

    Raises:
        DataError: a column is lacking or unknown, a field is empty or impossible, or a pair or a coin is there twice;
            the message names file and row (1 is the first below the header).
    """
    if not file.is_file():
        raise DataError(f"{file} is not there; it maps pairs to coins, as CSV with the columns pair,id,symbol,name")
    coins: dict[str, Coin] = {}
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            _check_map_columns(file, reader.fieldnames or [])
            for number, row in enumerate(reader, start=1):
                pair, coin = _mapped(f"{file}, row {number}", row)
                _check_unique(f"{file}, row {number}", pair, coin, coins)
                coins[pair] = coin
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read as CSV: {error}") from error
    if not coins:
        raise DataError(f"{file} maps no pair")
    return coins


def _check_map_columns(file: Path, columns: Sequence[str]) -> None:
    missing = [name for name in ("pair", "symbol", "name") if name not in columns]
    unknown = [name for name in columns if name not in ("pair", "id", "symbol", "name", "units")]
    if missing:
        raise DataError(f"{file} is no map of pairs: it lacks the columns {', '.join(missing)}")
    if unknown:  # a misspelt `units` would otherwise make prices wrong by a thousand
        raise DataError(f"{file} has the unknown columns {', '.join(unknown)}; known are pair, id, symbol, name, units")


def _mapped(where: str, row: Mapping[str | None, str | None]) -> tuple[str, Coin]:
    if None in row or None in row.values():
        raise DataError(f"{where} has not as many fields as the header")
    pair, symbol, name = (row[column] or "" for column in ("pair", "symbol", "name"))
    if not (pair and symbol and name):
        raise DataError(f"{where} lacks pair, symbol or name")
    identity, units = row.get("id") or "", row.get("units") or "1"
    if identity and not (identity.isascii() and identity.isdigit() and int(identity) > 0):
        raise DataError(
            f"{where} ({pair}): id is {identity!r}, not a whole number above zero; leave it empty if unknown"
        )
    try:
        number = float(units)
    except ValueError:
        number = 0.0
    if not (isfinite(number) and number > 0):
        raise DataError(f"{where} ({pair}): units is {units!r}, not a number above zero")
    return pair, Coin(int(identity) if identity else None, symbol, name, number)


def _check_unique(where: str, pair: str, coin: Coin, coins: Mapping[str, Coin]) -> None:
    if pair in coins:
        raise DataError(f"{where}: the pair {pair} is mapped twice")
    for other, known in coins.items():
        same = coin.id == known.id if coin.id and known.id else (coin.symbol, coin.name) == (known.symbol, known.name)
        if same:  # two prices of one coin in one hour: nobody could tell which counts
            raise DataError(
                f"{where}: {pair} and {other} are the same coin ({coin.symbol}, {coin.name}); keep one pair"
            )


# Candle files ----------------------------------------------------------------------------------------------------


def read_candles(files: Sequence[Path]) -> pd.DataFrame:
    """The candles of these files, by open time and pair.

    A file is `.csv` or `.parquet` with the columns `pair`, `open_time`, `close` and at least one of `volume` (base
    currency) and `quote_volume`; others are passed over. `open_time` is a time in UTC or with an offset, or an epoch
    number in seconds, milliseconds or microseconds, one kind a file. The pair may stand in the file's name instead
    (`BTCUSDT-1h-2024-01.csv`), and such a CSV may be one of the 12-column archives of klines that have no header.

    Raises:
        DataError: a file is torn or foreign, or a row odd, a duplicate or not on the hour; the message names file and
            row (1 is the first of the data).
    """
    if not files:
        raise DataError("no candle file was given")
    parts = []
    for file in files:
        rows = _read_file(file)
        check_candles(rows, str(file))
        parts.append(rows.assign(file=pd.Categorical([str(file)] * len(rows)), row=range(1, len(rows) + 1)))
    rows = pd.concat(parts, ignore_index=True)
    twice = rows.duplicated(["pair", "open_time"])
    if twice.any():
        again = rows[twice].iloc[0]
        raise DataError(
            f"{again['file']}, row {again['row']}: the candle of {again['pair']} at {again['open_time']} is in another "
            f"of the files already, as are {int(twice.sum())} rows in all; give each candle once"
        )
    rows = rows.sort_values(["open_time", "pair"], kind="stable", ignore_index=True)
    _check_cadence(rows)
    return candle_frame(rows)


def check_candles(candles: pd.DataFrame, where: str) -> None:
    """Refuse candles of one source of which one is odd, off the hour or there twice; `where` names the source."""
    opens = candles["open_time"]
    finite_or_null = {
        name: candles[name].isna() | (np.isfinite(candles[name]) & (candles[name] >= 0))
        for name in ("volume", "quote_volume")
    }
    for wrong, what in [
        (candles["pair"].isna() | (candles["pair"] == ""), "has no pair"),
        (opens.isna(), "has no open time that can be read"),
        (opens < _DAWN, "opens before there were coins: the unit of its open time is not what it seems"),
        (opens != opens.dt.floor("h"), "does not open on a whole hour; hourly candles are needed"),
        (~(np.isfinite(candles["close"]) & (candles["close"] > 0)), "has a close that is no number above zero"),
        (~finite_or_null["volume"], "has a volume that is no number of zero or more"),
        (~finite_or_null["quote_volume"], "has a quote volume that is no number of zero or more"),
        (candles["volume"].isna() & candles["quote_volume"].isna(), "has neither a volume nor a quote volume"),
        (candles.duplicated(["pair", "open_time"]), "is there twice"),
    ]:
        if wrong.any():
            first = int(np.flatnonzero(wrong)[0])
            raise DataError(
                f"{where}, row {first + 1}: the candle of {candles['pair'].iloc[first]} at {opens.iloc[first]} {what}; "
                f"{int(wrong.sum())} of {len(candles)} rows are so"
            )


def _check_cadence(candles: pd.DataFrame) -> None:
    """Refuse longer candles: a close of four hours would be taken for known three hours early."""
    for pair, opens in candles.groupby("pair")["open_time"]:
        step = np.gcd.reduce(np.diff(hours_of(opens))) if len(opens) >= _ENOUGH_FOR_CADENCE else 1
        if step > 1:
            raise DataError(f"the candles of {pair} are {step} hours apart throughout; give candles of one hour")


def _read_file(file: Path) -> pd.DataFrame:
    if not file.is_file():
        raise DataError(f"{file} is not there")
    if file.suffix not in (".csv", ".parquet"):
        raise DataError(f"{file} is neither .csv nor .parquet")
    try:
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            source = connection.read_parquet(str(file)) if file.suffix == ".parquet" else _csv(connection, file)
            columns = [_pair_column(file, source.columns), *_time_columns(source), *_number_columns(source.columns)]
            rows: pd.DataFrame = source.project(", ".join(columns)).df()
    except duckdb.Error as error:
        raise DataError(f"{file} is torn or foreign: {str(error).strip()[:600]}") from error
    if rows.empty:
        raise DataError(f"{file} holds no candles")
    rows["open_time"] = _open_times(rows, str(file))
    return candle_frame(rows)


def _csv(connection: duckdb.DuckDBPyConnection, file: Path) -> duckdb.DuckDBPyRelation:
    """Every column as text, so that no sniffer guesses at units or symbols."""
    with file.open("rb") as data:
        data.seek(max(0, file.stat().st_size - 1))
        if data.read() not in (b"\n", b""):  # cut within its last number it would still parse, with another value
            raise DataError(
                f"{file} is torn: its last line does not end; fetch it again, or end the line if it is whole"
            )
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            header = next(csv.reader(lines), [])
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read as CSV: {error}") from error
    if not header:
        raise DataError(f"{file} is empty")
    archive = len(header) == len(_KLINE) and header[0].isdigit()
    return connection.read_csv(
        str(file),
        header=not archive,
        auto_detect=False,
        delimiter=",",
        quotechar='"',
        escapechar='"',
        columns=dict.fromkeys(_KLINE if archive else header, "VARCHAR"),
    )


def _pair_column(file: Path, columns: Sequence[str]) -> str:
    named = re.match(r"([A-Za-z0-9]+)-1h-", file.name)
    missing = [name for name in ("open_time", "close") if name not in columns]
    if "pair" not in columns and not named:
        missing.insert(0, "pair")
    if "volume" not in columns and "quote_volume" not in columns:
        missing.append("volume or quote_volume")
    if missing:
        raise DataError(f"{file} is no file of candles: it lacks {', '.join(missing)}; it has {', '.join(columns)}")
    if "pair" in columns or named is None:
        return "CAST(pair AS VARCHAR) AS pair"
    return f"'{named.group(1)}' AS pair"


def _time_columns(source: duckdb.DuckDBPyRelation) -> list[str]:
    """The open time as `stamp` (naive UTC) or as `number`, whichever can be read."""
    first = source.project("typeof(open_time) AS kind").limit(1).df()
    kind = str(first["kind"].iloc[0]) if len(first) else "VARCHAR"
    through_zone = "TRY_CAST(TRY_CAST(open_time AS TIMESTAMPTZ) AS TIMESTAMP)"  # an offset is converted, not cut off
    if kind == "VARCHAR":
        return [f"{through_zone} AS stamp", "TRY_CAST(open_time AS DOUBLE) AS number"]
    if kind.startswith(("TIMESTAMP", "DATE")):
        return [f"{through_zone} AS stamp", "CAST(NULL AS DOUBLE) AS number"]
    return ["CAST(NULL AS TIMESTAMP) AS stamp", "TRY_CAST(open_time AS DOUBLE) AS number"]


def _number_columns(columns: Sequence[str]) -> list[str]:
    """Close and volumes as doubles: null where the field is empty, -1, which is refused, where it is no number."""
    numbers = []
    for name in ("close", "volume", "quote_volume"):
        if name in columns:
            absent = f"{name} IS NULL OR CAST({name} AS VARCHAR) = ''"
            number = f"coalesce(TRY_CAST({name} AS DOUBLE), -1)"
            numbers.append(f"CASE WHEN {absent} THEN NULL ELSE {number} END AS {name}")
    return numbers


def _open_times(rows: pd.DataFrame, where: str) -> pd.Series:
    stamps, numbers = rows["stamp"].astype("datetime64[us]"), rows["number"]
    if numbers.isna().all():
        return stamps
    factor = pd.Series(np.nan, index=rows.index)
    for scale in _EPOCH_UNITS.values():
        factor = factor.mask(numbers.between(_EPOCH_RANGE[0] * scale, _EPOCH_RANGE[1] * scale), scale)
    kind = factor.map({scale: f"epoch {unit}" for unit, scale in _EPOCH_UNITS.items()})
    kind = kind.mask(numbers.notna() & factor.isna(), "an epoch number of no known unit").mask(stamps.notna(), "a date")
    kind = kind.fillna("no time at all")
    odd = (kind != kind.iloc[0]) | (kind == "an epoch number of no known unit")
    if odd.any():
        first = int(np.flatnonzero(odd)[0])
        raise DataError(
            f"{where}, row {first + 1}: the open time is {kind.iloc[first]}, in row 1 {kind.iloc[0]}; give seconds, "
            "milliseconds, microseconds or dates, one kind a file (archives went from milliseconds to microseconds)"
        )
    return pd.Series(pd.to_datetime(numbers / factor, unit="s")).astype("datetime64[us]")
