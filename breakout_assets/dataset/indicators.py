"""The 14 computed indicators of a row, each from its token's rows in the 720 hours that end at that row.

One function serves training, backtest and live prediction. What an indicator means is what the library `ta` 0.11
gives when it is handed the rows of that one window and nothing else: the first row of the window seeds the averages,
opens the cumulative sums, and starts the count of rows until an indicator has a value.

Calling `ta` for every window would do the same work 720 times. Here a block of hours is computed in one pass that
begins up to a week before a window does, and the few windows that can notice the difference are computed again alone.
Every sum is written out row by row: a numpy reduction may add in another order when the array has another shape, and
the values of a token would then depend, in their last bit, on which other tokens are there.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

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

_MICROSECOND: Final = timedelta(microseconds=1)
_WINDOW: Final = LOOKBACK // _MICROSECOND
_HOUR: Final = timedelta(hours=1) // _MICROSECOND
_PASS: Final = 168 * _HOUR  # computed at once; more hours would share more work, but must stay below _SETTLED_ROWS
_SPAN: Final = _WINDOW + _PASS  # wider than all hours of one pass, so that token * _SPAN + hour sorts by (token, hour)
_BATCH: Final = 512  # tokens, or single windows, side by side: their rows stay in the processor's cache

_SMA_ROWS: Final = (5, 10, 20)
_VWRSI_ROWS: Final = 14
_BAND_WIDTH: Final = 2.0  # standard deviations
_WILDER_WEIGHT: Final = 1 / 14
_MACD_FIRST_ROW: Final = 25  # rows 0-24 have no MACD; the signal line starts from the value on this one
# Rows after which the signal line has forgotten that it was seeded, on the 26th, with whatever the MACD was there.
# More than a pass has hours: so many rows reach back beyond the first asked hour, into what all its windows share.
_SETTLED_ROWS: Final = 300
# What a window may inherit from rows before it, relative to its own value: less than the arithmetic rounds off.
_NEGLIGIBLE: Final = 1e-15

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
    values = np.empty((int(asked.sum()), len(INDICATOR_COLUMNS)))
    line = np.cumsum(asked) - 1
    for pass_first in range(first, last + 1, _PASS):
        pass_last = min(pass_first + _PASS - 1, last)
        inside = np.flatnonzero((read.hour > pass_first - _WINDOW) & (read.hour <= pass_last))
        for part in _token_batches(inside, read.token):
            block = read.take(part)
            ends = np.flatnonzero(block.hour >= pass_first)
            if len(ends):
                values[line[part[ends]]] = _block_values(block, pass_first, ends)
    keys = rows[["token", "timestamp"]].iloc[place[asked]].reset_index(drop=True)
    return pd.concat([keys, pd.DataFrame(values, columns=list(INDICATOR_COLUMNS))], axis=1)


@dataclass(frozen=True)
class _Rows:
    """Rows sorted by (token, hour): the rank of the token's name, microseconds since 1970, USD, USD."""

    token: _Ints
    hour: _Ints
    price: _Floats
    volume: _Floats

    def take(self, which: _Ints) -> "_Rows":
        return _Rows(self.token[which], self.hour[which], self.price[which], self.volume[which])


def _span(hours: Sequence[datetime] | pd.DatetimeIndex) -> tuple[int, int]:
    asked = pd.DatetimeIndex(list(hours))
    if len(asked) == 0 or asked.hasnans:
        raise DataError("No hours to compute indicators for: give all of them, or the first and the last.")
    if asked.tz is not None:
        raise DataError(f"The asked hours have the time zone {asked.tz}; give naive UTC hours.")
    numbers = asked.to_numpy().astype("datetime64[us]").astype(np.int64)
    return int(numbers.min()), int(numbers.max())


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
    every_hour = rows["timestamp"].to_numpy().astype("datetime64[us]").astype(np.int64)
    # Older rows are dropped here, before anything is computed: the sums of a block must always begin at one place.
    kept = np.flatnonzero((every_hour > first - _WINDOW) & (every_hour <= last))
    near = rows[["token", "price", "volume"]].iloc[kept]
    token = pd.factorize(near["token"].astype("str"), sort=True)[0].astype(np.int64)
    order = np.lexsort((every_hour[kept], token))
    place = kept[order]
    price = near["price"].to_numpy(dtype=np.float64, na_value=np.nan)[order]
    volume = near["volume"].to_numpy(dtype=np.float64, na_value=np.nan)[order]
    read = _Rows(token[order], every_hour[place], price, volume)
    _refuse_impossible(rows, read, place)
    return read, place


def _refuse_impossible(rows: pd.DataFrame, read: _Rows, place: _Ints) -> None:
    twice = (np.diff(read.token, prepend=-1) == 0) & (np.diff(read.hour, prepend=-1) == 0)
    for bad, what in (
        (twice, "has more than one row; keep one row a token and hour"),
        (~(np.isfinite(read.price) & (read.price > 0)), "has no positive price; quarantine the row"),
        (read.hour % _HOUR != 0, "is not a whole hour; round the observation down to its hour"),
        (np.isinf(read.volume), "has an infinite volume; quarantine the row or make the volume null"),
    ):
        if bad.any():
            row = rows.iloc[place[int(np.argmax(bad))]]
            detail = f"price {row['price']}, volume {row['volume']}"
            raise DataError(f"Token {row['token']} at {row['timestamp']:%Y-%m-%d %H:%M} {what} ({detail}).")


def _token_batches(which: _Ints, token: _Ints) -> Iterator[_Ints]:
    """The row numbers `which`, cut between tokens into pieces of at most `_BATCH` tokens."""
    begins = np.flatnonzero(np.diff(token[which], prepend=-1))
    for number in range(0, len(begins), _BATCH):
        stop = begins[number + _BATCH] if number + _BATCH < len(begins) else len(which)
        yield which[begins[number] : stop]


def _block_values(rows: _Rows, first: int, ends: _Ints) -> _Floats:
    """The indicators (len(ends), 14) of the rows `ends`, which are all rows at or after the hour `first`."""
    key = rows.token * _SPAN + (rows.hour - (first - _WINDOW))
    starts = np.searchsorted(key, key[ends] - _WINDOW, side="right")
    begins = np.flatnonzero(np.diff(rows.token, prepend=-1))
    lengths = np.diff(begins, append=len(key))
    shared = np.searchsorted(key, rows.token[begins] * _SPAN + _WINDOW, side="right") - begins
    block = _walk(rows, begins, lengths, shared)
    column = np.searchsorted(begins, ends, side="right") - 1
    values = {**_recent_values(rows, starts, ends), **_running_values(rows, block, column, starts, ends)}
    alone = np.flatnonzero(_notices_older_rows(block, column, starts, ends))
    for part in (alone[i : i + _BATCH] for i in range(0, len(alone), _BATCH)):
        begin, end = starts[part], ends[part]
        windows = _walk(rows, begin, end - begin + 1, np.zeros_like(begin))
        for name, exact in _running_values(rows, windows, np.arange(len(part)), begin, end).items():
            values[name][part] = exact
    return _masked(values, ends - starts + 1)


def _masked(values: dict[str, _Floats], count: _Ints) -> _Floats:
    """The columns side by side, NaN where a window of `count` rows is too short."""
    for name, least in _LEAST_ROWS.items():
        if name != "VPT":
            values[name][count < least] = np.nan
    # The published method takes VPT from `ta`, where it is pvt under another name, and fills what it lacks with 0.
    values["VPT"] = _or_zero(values["pvt"])
    return np.column_stack([values[name] for name in INDICATOR_COLUMNS])


def _recent_values(rows: _Rows, starts: _Ints, ends: _Ints) -> dict[str, _Floats]:
    """Indicators of the last 20 rows at most: averages, bands, VWRSI. They read nothing but the window itself."""
    newest = rows.price[ends]
    values: dict[str, _Floats] = {}
    # Sums of differences to the newest price: equal prices give exactly that price, and bands of no width.
    excess = np.zeros_like(newest)
    for back in range(1, max(_SMA_ROWS)):
        excess += rows.price[np.maximum(ends - back, starts)] - newest
        if back + 1 in _SMA_ROWS:
            values[f"sma_{back + 1}"] = newest + excess / (back + 1)
    middle = values["sma_20"]
    # A second pass over the deviations: sums of squares would cancel after a jump of the price.
    squares = np.zeros_like(newest)
    for back in range(max(_SMA_ROWS)):
        squares += (rows.price[np.maximum(ends - back, starts)] - middle) ** 2
    deviation = np.sqrt(squares / max(_SMA_ROWS))
    values["bollinger_hband"] = middle + _BAND_WIDTH * deviation
    values["bollinger_lband"] = middle - _BAND_WIDTH * deviation
    values["VWRSI"] = _vwrsi(rows, starts, ends)
    return values


def _vwrsi(rows: _Rows, starts: _Ints, ends: _Ints) -> _Floats:
    gain, loss = np.zeros(len(ends)), np.zeros(len(ends))
    for back in range(_VWRSI_ROWS):
        # The window's first row has no row before it: both indices stop there, and its change is 0.
        newer, older = np.maximum(ends - back, starts), np.maximum(ends - back - 1, starts)
        flow = _or_zero((rows.price[newer] - rows.price[older]) * rows.volume[newer])
        gain += np.maximum(flow, 0.0)
        loss += np.maximum(-flow, 0.0)
    ratio = np.full(len(ends), np.nan)
    np.divide(100 * gain, gain + loss, out=ratio, where=gain + loss > 0)
    return ratio


@dataclass(frozen=True)
class _Walk:
    """What depends on all rows since a column's beginning: arrays (rows, columns), row k = its k-th observation.

    `begins` is the row of `_Rows` where a column begins. `behind[k]` are the sums of the terms from row k to the last
    shared row (the last one at or before the first asked hour, so in every long window of the block), `ahead[k]` from
    the row after it to row k. A window's sum is one of each: subtracting running totals would keep the rounding
    errors of terms that the window has left behind.
    """

    begins: _Ints
    ema_9: _Floats
    ema_21: _Floats
    macd: _Floats
    signal: _Floats
    rise: _Floats
    fall: _Floats
    obv_behind: _Floats
    obv_ahead: _Floats
    pvt_behind: _Floats
    pvt_ahead: _Floats


def _walk(rows: _Rows, begins: _Ints, lengths: _Ints, shared: _Ints) -> _Walk:
    """One pass over columns of `lengths` rows from `begins`, the first `shared` of them shared; columns may overlap."""
    column = np.repeat(np.arange(len(begins)), lengths)
    row = np.arange(len(column)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    shape = (int(lengths.max()), len(begins))
    price, volume = np.full(shape, np.nan), np.full(shape, np.nan)
    price[row, column] = rows.price[begins[column] + row]
    volume[row, column] = rows.volume[begins[column] + row]

    change = np.zeros(shape)  # the first row has no change; it counts as one of 0
    change[1:] = price[1:] - price[:-1]
    macd = _smoothed(price, _span_weight(12)) - _smoothed(price, _span_weight(26))
    signal = np.full(shape, np.nan)
    signal[_MACD_FIRST_ROW:] = _smoothed(macd[_MACD_FIRST_ROW:], _span_weight(9))
    # Terms of the sums; that of a window's first row is added when the window is read. Null volumes are passed over.
    obv, pvt = np.zeros(shape), np.zeros(shape)
    obv[1:] = _or_zero(np.where(price[1:] < price[:-1], -volume[1:], volume[1:]))
    pvt[1:] = _or_zero((price[1:] / price[:-1] - 1) * volume[1:])
    return _Walk(
        begins,
        _smoothed(price, _span_weight(9)),
        _smoothed(price, _span_weight(21)),
        macd,
        signal,
        _smoothed(np.maximum(change, 0.0), _WILDER_WEIGHT),
        _smoothed(np.maximum(-change, 0.0), _WILDER_WEIGHT),
        *_two_sums(obv, shared),
        *_two_sums(pvt, shared),
    )


def _span_weight(span: int) -> float:
    return 2 / (span + 1)


def _smoothed(values: _Floats, weight: float) -> _Floats:
    """Exponential average down each column, seeded with its first row; a constant column stays exactly constant."""
    path = np.empty_like(values)
    path[:1] = values[:1]
    for row in range(1, len(values)):
        step = values[row] - path[row - 1]
        step *= weight
        np.add(path[row - 1], step, out=path[row])
    return path


def _two_sums(terms: _Floats, shared: _Ints) -> tuple[_Floats, _Floats]:
    """Sums from each row (and from below the last row) to the last shared row, and from the next one to each row."""
    is_shared = np.arange(len(terms))[:, None] < shared
    behind = np.zeros((len(terms) + 1, terms.shape[1]))
    behind[:-1] = np.cumsum(np.where(is_shared, terms, 0.0)[::-1], axis=0)[::-1]
    return behind, np.cumsum(np.where(is_shared, 0.0, terms), axis=0)


def _running_values(rows: _Rows, walk: _Walk, column: _Ints, starts: _Ints, ends: _Ints) -> dict[str, _Floats]:
    """The indicators with a memory, for windows from `starts` to `ends` (rows of `_Rows`) that lie in `column`."""
    after_start = (starts - walk.begins[column] + 1, column)
    at_end = (ends - walk.begins[column], column)
    rise, fall = walk.rise[at_end], walk.fall[at_end]
    has_volume = ~np.isnan(rows.volume[ends])
    obv = walk.obv_behind[after_start] + walk.obv_ahead[at_end] + _or_zero(rows.volume[starts])
    pvt = walk.pvt_behind[after_start] + walk.pvt_ahead[at_end]
    return {
        # No fall at all gives 100, also when there was no rise either.
        "RSI": np.divide(100 * rise, rise + fall, out=np.full(len(ends), 100.0), where=fall > 0),
        "EMA_9": walk.ema_9[at_end],
        "EMA_21": walk.ema_21[at_end],
        "MACD": walk.macd[at_end],
        "MACD_signal": walk.signal[at_end],
        "OBV": np.where(has_volume, obv, np.nan),
        "pvt": np.where(has_volume, pvt, np.nan),
    }


def _notices_older_rows(walk: _Walk, column: _Ints, starts: _Ints, ends: _Ints) -> _Bools:
    """Which windows would differ from their own computation because their column begins before them."""
    begin, end = starts - walk.begins[column], ends - walk.begins[column]
    # The part of an earlier value that is left after so many rows; running products, because a vectorised power may
    # depend in its last bit on the place in the array.
    memory = np.cumprod(np.append(1.0, np.full(len(walk.rise), 1 - _WILDER_WEIGHT)))[end - begin]
    inherited = (walk.rise[begin, column] + walk.fall[begin, column]) * memory
    # Usually 1e-23 of the present movement. After a long frozen price almost nothing else is left, and RSI is a ratio
    # of such remains. This covers the averages too: where a window begins, they differ from the price that seeds them
    # by less than 14 times the movement here, and even the slowest fades faster.
    frozen = inherited > _NEGLIGIBLE * (walk.rise[end, column] + walk.fall[end, column])
    short = end - begin < _SETTLED_ROWS
    return np.asarray((begin > 0) & (short | frozen))


def _or_zero(values: _Floats) -> _Floats:
    return np.where(np.isnan(values), 0.0, values)
