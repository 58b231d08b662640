"""The 14 computed indicators of a row, each from its token's rows in the 720 hours that end at that row.

One function serves training, backtest and live prediction. What an indicator means is what the library `ta` 0.11
gives when it is handed the rows of that one window and nothing else: the first row of the window seeds the averages,
opens the cumulative sums, and starts the count of rows until an indicator has a value.

Calling `ta` for every window would do the same work 720 times. Here all hours of some tokens are computed at once, in
such a way that a row's values depend on the rows of its window and on nothing else, to the last bit: not on which
other hours are asked for, nor on which other tokens are there. Every sum is written out row by row, because a numpy
reduction may add in another order when the array has another shape.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from breakout_assets.dataset.averages import average_values
from breakout_assets.dataset.compiling import load_compiled
from breakout_assets.dataset.window_sums import DAY, MOST_ROWS, or_zero, recent_values, window_sums
from breakout_assets.errors import DataError

LOOKBACK: Final = timedelta(hours=720)

# Each indicator with the number of rows that a window must hold before it has a value.
_LEAST_ROWS: Final = {
    "RSI": 14,
    "sma_5": 5,
    "sma_10": 10,
    "sma_20": 20,
    "pvt": 2,
    "MACD": 26,
    "MACD_signal": 34,  # 9 values of the MACD, whose first is on row 26
    "EMA_9": 9,
    "EMA_21": 21,
    "bollinger_hband": 20,
    "bollinger_lband": 20,
    "OBV": 1,
    "VPT": 1,
    "VWRSI": 14,
}
INDICATOR_COLUMNS: Final = tuple(_LEAST_ROWS)

_WINDOW: Final = LOOKBACK // timedelta(hours=1)
_HOUR: Final = timedelta(hours=1) // timedelta(microseconds=1)
# Hours of all tokens that are computed together, there or not: so much memory is needed besides the rows and values,
# however long the range is. Fewer would repeat the calls that a row of all tokens costs more often.
_CELLS: Final = 2**19

_Floats = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]
_Bools = npt.NDArray[np.bool_]


def look_back_start(hour: datetime) -> datetime:
    """The first hour that the window of `hour` reads."""
    return hour - LOOKBACK + timedelta(hours=1)


def window_indicators(rows: pd.DataFrame, hours: Sequence[datetime] | pd.DatetimeIndex) -> pd.DataFrame:
    """The indicators of every row observed in the asked hours.

    Args:
        rows: believed market rows in any order, one per (token, timestamp), with `token`, `timestamp` (naive UTC),
            `price` (USD) and `volume` (USD, may be null); they should reach back to `look_back_start` of the first
            asked hour. Other columns, and rows that no asked window reads, are ignored.
        hours: the asked hours, or only the first and the last of them: all from the earliest to the latest count.

    Returns:
        `token`, `timestamp` and `INDICATOR_COLUMNS` (float64), one row for each row of `rows` in the asked hours,
        sorted by (token, timestamp). An indicator is NaN while its window holds too few rows; OBV and pvt also where
        the row's own volume is null (VPT is 0 wherever pvt is NaN), VWRSI where 14 rows saw no trade or no move.

    Raises:
        DataError: a column is missing or of the wrong type, a token or timestamp is null, a price is not a positive
            number, a volume is infinite, a timestamp is no whole hour, or a token has two rows for one hour.
    """
    first, last = _span(hours)
    read, place = _readable(rows, first, last)
    asked = read.hour >= first
    place = place[asked]
    keys = pd.DataFrame({name: rows[name].array.take(place) for name in ("token", "timestamp")}, copy=False)
    values = np.empty((len(INDICATOR_COLUMNS), len(keys)))
    if load_compiled(len(keys)):
        _fill_compiled(values, read, first)
    else:
        begun = 0
        for block in _token_batches(read):
            ends = np.flatnonzero(block.hour >= first)
            if len(ends):
                _fill(values[:, begun : begun + len(ends)], block, ends)
                begun += len(ends)
    columns = pd.DataFrame(values.T, columns=list(INDICATOR_COLUMNS), copy=False)
    return pd.concat([keys, columns], axis=1)


@dataclass(frozen=True)
class _Rows:
    """Rows sorted by (token, hour): the rank of the token's name, hours since 1970, USD, USD."""

    token: _Ints
    hour: _Ints
    price: _Floats
    volume: _Floats

    def part(self, begin: int, end: int) -> "_Rows":
        part = slice(begin, end)
        return _Rows(self.token[part], self.hour[part], self.price[part], self.volume[part])


def _span(hours: Sequence[datetime] | pd.DatetimeIndex) -> tuple[int, int]:
    asked = pd.DatetimeIndex(list(hours))
    if len(asked) == 0 or asked.hasnans:
        raise DataError("No hours to compute indicators for: give all of them, or the first and the last.")
    if asked.tz is not None:
        raise DataError(f"The asked hours have the time zone {asked.tz}; give naive UTC hours.")
    numbers = asked.to_numpy().astype("datetime64[us]").astype(np.int64)
    # An hour that is not whole has the rows after the whole hour before it.
    return -(-int(numbers.min()) // _HOUR), int(numbers.max()) // _HOUR


def _readable(rows: pd.DataFrame, first: int, last: int) -> tuple[_Rows, _Ints]:
    """The rows that the asked windows read, sorted and checked, and where in `rows` each of them stands."""
    missing = [column for column in ("token", "timestamp", "price", "volume") if column not in rows.columns]
    if missing:
        raise DataError(f"Indicators need the columns {', '.join(missing)}, which the rows do not have.")
    if not pd.api.types.is_datetime64_dtype(rows["timestamp"].dtype):
        raise DataError(f"The column timestamp is {rows['timestamp'].dtype}; indicators need naive UTC datetimes.")
    for column in ("token", "timestamp"):
        if rows[column].isna().any():
            raise DataError(f"{int(rows[column].isna().sum())} rows have no {column}; leave them out beforehand.")
    moment = rows["timestamp"].to_numpy().astype("datetime64[us]", copy=False).view(np.int64)
    kept = np.flatnonzero((moment > (first - _WINDOW) * _HOUR) & (moment <= last * _HOUR))
    near = rows["token"] if len(kept) == len(rows) else rows["token"].iloc[kept]
    token = pd.factorize(near.astype("str"), sort=True)[0]
    moment = moment[kept]
    hour = moment // _HOUR
    key = token * (last - first + _WINDOW) + (hour - first)
    # Files are sorted already, each by itself: a stable sort merges them.
    order = np.argsort(key, kind="stable")
    place = kept[order]
    price = rows["price"].to_numpy(dtype=np.float64, na_value=np.nan)[place]
    volume = rows["volume"].to_numpy(dtype=np.float64, na_value=np.nan)[place]
    _refuse_impossible(rows, price, volume, key[order], (hour * _HOUR != moment)[order], place)
    return _Rows(token[order], hour[order], price, volume), place


def _refuse_impossible(
    rows: pd.DataFrame, price: _Floats, volume: _Floats, key: _Ints, within_an_hour: _Bools, place: _Ints
) -> None:
    for bad, what in (
        (within_an_hour, "is not a whole hour; round the observation down to its hour"),
        (np.diff(key, prepend=np.iinfo(np.int64).min) == 0, "has more than one row; keep one row a token and hour"),
        (~((price > 0) & (price < np.inf)), "has no positive price; quarantine the row"),
        (np.isinf(volume), "has an infinite volume; quarantine the row or make the volume null"),
    ):
        if bad.any():
            row = rows.iloc[place[int(np.argmax(bad))]]
            detail = f"price {row['price']}, volume {row['volume']}"
            raise DataError(f"Token {row['token']} at {row['timestamp']:%Y-%m-%d %H:%M} {what} ({detail}).")


def _fill_compiled(values: _Floats, rows: _Rows, first: int) -> None:
    from breakout_assets.dataset.compiled import fill_windows, terms

    begins = np.append(np.flatnonzero(np.diff(rows.token, prepend=-1)), len(rows.token))
    least = np.array(list(_LEAST_ROWS.values()))
    fill_windows(terms(_WINDOW), rows.hour, rows.price, rows.volume, begins, first, least, values)


def _token_batches(rows: _Rows) -> Iterator[_Rows]:
    """The rows in pieces of whole tokens, whose hours, there or not, are at most `_CELLS`."""
    if not len(rows.hour):
        return
    tokens = max(1, _CELLS // int(rows.hour.max() - rows.hour.min() + 1))
    begins = np.flatnonzero(np.diff(rows.token, prepend=-1))[::tokens]
    for begin, end in zip(begins, [*begins[1:], len(rows.hour)], strict=True):
        yield rows.part(int(begin), int(end))


def _fill(values: _Floats, rows: _Rows, ends: _Ints) -> None:
    """The indicators (14, len(ends)) of the rows `ends`: of each token all rows from the first asked hour on."""
    begins = np.flatnonzero(np.diff(rows.token, prepend=-1))
    starts = _starts(rows, ends)
    counts = ends - starts + 1
    found = {
        **_recent(rows, ends, counts),
        **average_values(rows.price, begins, starts, ends),
        **_cumulative(rows, starts, ends),
    }
    # The published method takes VPT from `ta`, where it is pvt under another name, and fills what it lacks with 0.
    found["VPT"] = or_zero(found["pvt"])
    short = np.flatnonzero(counts < max(_LEAST_ROWS.values()))
    for line, (name, least) in zip(values, _LEAST_ROWS.items(), strict=True):
        line[:] = found[name]
        line[short[counts[short] < least]] = np.nan


def _starts(rows: _Rows, ends: _Ints) -> _Ints:
    """The first row of each window."""
    token, hour = rows.token - rows.token[0], rows.hour - rows.hour.min()
    hours = int(hour.max()) + 1
    # How many rows there are before each hour of each token; hours before all others stand for those before them.
    before = np.zeros((int(token[-1]) + 1) * hours, dtype=np.int64)
    before[token * hours + hour] = 1
    before = np.cumsum(before) - before
    return np.asarray(before[token[ends] * hours + np.maximum(hour[ends] - _WINDOW + 1, 0)])


def _recent(rows: _Rows, ends: _Ints, counts: _Ints) -> dict[str, _Floats]:
    # Of tokens that are asked for, the asked rows and as many before them as they read.
    near = np.zeros(len(rows.token), dtype=bool)
    near[ends] = True
    for first in ends[np.flatnonzero(np.diff(rows.token[ends], prepend=-1))]:
        near[max(first - MOST_ROWS, 0) : first] = True
    place = np.cumsum(near) - 1
    counted = np.zeros(place[-1] + 1, dtype=np.int64)
    counted[place[ends]] = counts
    values = recent_values(rows.price[near], rows.volume[near], counted)
    return {name: column[place[ends]] for name, column in values.items()}


def _cumulative(rows: _Rows, starts: _Ints, ends: _Ints) -> dict[str, _Floats]:
    """OBV and pvt: NaN where the row's own volume is null; other null volumes are passed over."""
    price, volume = rows.price, rows.volume
    new_token = np.diff(rows.token, prepend=-1) != 0
    terms = np.zeros((2, len(price)))
    terms[0, 1:] = np.where(price[1:] < price[:-1], -volume[1:], volume[1:])
    terms[1, 1:] = (price[1:] / price[:-1] - 1) * volume[1:]
    terms[:, new_token] = 0.0  # which always begin their windows
    terms = or_zero(terms)
    day = np.cumsum((np.diff(rows.hour // DAY, prepend=0) != 0) | new_token) - 1
    own = np.stack([or_zero(volume[starts]), np.zeros(len(starts))])
    sums = window_sums(terms, day, rows.hour % DAY, own, starts, ends)
    sums[:, np.isnan(volume[ends])] = np.nan
    return {"OBV": sums[0], "pvt": sums[1]}
