"""The 14 computed indicators of a row, each from its token's rows in the 720 hours that end at that row.

One function serves training, backtest and live prediction. What an indicator means is what the library `ta` 0.11
gives when it is handed the rows of that one window and nothing else: the first row of the window seeds the averages,
opens the cumulative sums, and starts the count of rows until an indicator has a value.

Calling `ta` for every window would do the same work 720 times. Here all hours of some tokens are computed at once, in
such a way that a row's values depend on the rows of its window and on nothing else, to the last bit: not on which
other hours are asked for, nor on which other tokens are there. Every sum is written out row by row, because a numpy
reduction may add in another order when the array has another shape.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from breakout_assets.dataset.averages import average_values
from breakout_assets.dataset.compiling import load_compiled
from breakout_assets.dataset.panel import Panel, Rows
from breakout_assets.dataset.window_sums import DAY, RECENT_ROWS, or_zero, recent_values, window_sums
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

_READ: Final = ("price", "volume")
_WINDOW: Final = LOOKBACK // timedelta(hours=1)
_HOUR: Final = timedelta(hours=1) // timedelta(microseconds=1)
# Hours of all tokens that are computed together, there or not: so much memory is needed besides the rows and values,
# however long the range is. Fewer would repeat the calls that a row of all tokens costs more often.
_CELLS: Final = 2**19
_PIECE: Final = 2**16  # rows of whole tokens that are summed up together: they stay in the processor's cache
_TOKENS: Final = 64  # that compiled code is handed at once: it needs no more, and fewer stay in the processor's cache

_Floats = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]


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
    panel = Panel.of(rows, _READ, first - _WINDOW + 1, last)
    asked, values = window_values(panel, first, last)
    keys = pd.DataFrame({name: rows[name].array.take(asked.place) for name in ("token", "timestamp")}, copy=False)
    return pd.concat([keys, pd.DataFrame(values.T, columns=list(INDICATOR_COLUMNS), copy=False)], axis=1)


@dataclass(frozen=True)
class Asked:
    """The rows that have indicators: number of the token, hour since 1970, and place in the panel's frame."""

    token: _Ints
    hour: _Ints
    place: _Ints


def window_values(panel: Panel, first: int, last: int) -> tuple[Asked, _Floats]:
    """The panel's rows from the hour `first` to the hour `last` and their indicators, (14, rows).

    As `window_indicators`; the panel may hold more than the windows of these hours.
    """
    asked = panel.count(first, last)
    found = Asked(*np.empty((3, asked), dtype=np.int64))
    values = np.empty((len(INDICATOR_COLUMNS), asked))
    compiled = load_compiled(asked)
    tokens = _TOKENS if compiled else max(1, _CELLS // (last - first + _WINDOW))
    begun = 0
    for low, high in panel.batches(tokens):
        rows, place = panel.part(low, high, _READ, first - _WINDOW + 1, last)
        _refuse_impossible(panel, rows, place)
        ends = np.flatnonzero(rows.hour >= first)
        mine = slice(begun, begun + len(ends))
        found.token[mine], found.hour[mine], found.place[mine] = rows.token[ends], rows.hour[ends], place[ends]
        if compiled:
            _fill_compiled(values, begun, rows, first)
        elif len(ends):
            _fill(values[:, mine], rows, ends)
        begun += len(ends)
    return found, values


def _span(hours: Sequence[datetime] | pd.DatetimeIndex) -> tuple[int, int]:
    asked = pd.DatetimeIndex(list(hours))
    if len(asked) == 0 or asked.hasnans:
        raise DataError("No hours to compute indicators for: give all of them, or the first and the last.")
    if asked.tz is not None:
        raise DataError(f"The asked hours have the time zone {asked.tz}; give naive UTC hours.")
    numbers = asked.to_numpy().astype("datetime64[us]").astype(np.int64)
    # An hour that is not whole has the rows after the whole hour before it.
    return -(-int(numbers.min()) // _HOUR), int(numbers.max()) // _HOUR


def _refuse_impossible(panel: Panel, rows: Rows, place: _Ints) -> None:
    price, volume = rows.values
    for bad, what in (
        (~((price > 0) & (price < np.inf)), "has no positive price; quarantine the row"),
        (np.isinf(volume), "has an infinite volume; quarantine the row or make the volume null"),
    ):
        if bad.any():
            panel.refuse(int(place[np.argmax(bad)]), what)


def _fill_compiled(values: _Floats, column: int, rows: Rows, first: int) -> None:
    from breakout_assets.dataset.compiled import fill_windows, terms

    begins = np.append(rows.begins(), len(rows.token))
    least = np.array(list(_LEAST_ROWS.values()))
    fill_windows(terms(_WINDOW), rows.hour, *rows.values, begins, first, least, values, column)


def _fill(values: _Floats, rows: Rows, ends: _Ints) -> None:
    """The indicators (14, len(ends)) of the rows `ends`: of each token all rows from the first asked hour on."""
    starts = _starts(rows, ends)
    counts = ends - starts + 1
    found = {
        **_recent(rows, ends, counts),
        **average_values(rows.values[0], rows.begins(), starts, ends),
        **_cumulative(rows, starts, ends),
    }
    # The published method takes VPT from `ta`, where it is pvt under another name, and fills what it lacks with 0.
    found["VPT"] = or_zero(found["pvt"])
    short = np.flatnonzero(counts < max(_LEAST_ROWS.values()))
    for line, (name, least) in zip(values, _LEAST_ROWS.items(), strict=True):
        line[:] = found[name]
        line[short[counts[short] < least]] = np.nan


def _starts(rows: Rows, ends: _Ints) -> _Ints:
    """The first row of each window."""
    token, hour = rows.token - rows.token[0], rows.hour - rows.hour.min()
    hours = int(hour.max()) + 1
    # How many rows there are before each hour of each token; hours before all others stand for those before them.
    before = np.zeros((int(token[-1]) + 1) * hours, dtype=np.int64)
    before[token * hours + hour] = 1
    before = np.cumsum(before) - before
    return np.asarray(before[token[ends] * hours + np.maximum(hour[ends] - _WINDOW + 1, 0)])


def _recent(rows: Rows, ends: _Ints, counts: _Ints) -> dict[str, _Floats]:
    # Of tokens that are asked for, the asked rows and as many before them as they read.
    near = np.zeros(len(rows.token), dtype=bool)
    near[ends] = True
    for first in ends[np.flatnonzero(np.diff(rows.token[ends], prepend=-1))]:
        near[max(first - RECENT_ROWS, 0) : first] = True
    place = np.cumsum(near) - 1
    counted = np.zeros(place[-1] + 1, dtype=np.int64)
    counted[place[ends]] = counts
    price, volume = rows.values
    values = recent_values(price[near], volume[near], counted)
    return {name: column[place[ends]] for name, column in values.items()}


def _cumulative(rows: Rows, starts: _Ints, ends: _Ints) -> dict[str, _Floats]:
    """OBV and pvt: NaN where the row's own volume is null; other null volumes are passed over."""
    sums = np.empty((2, len(ends)))
    begins = rows.begins()
    bounds = np.append(begins[np.unique(np.searchsorted(begins, np.arange(0, begins[-1] + 1, _PIECE)))], len(rows.hour))
    for begin, end in pairwise(bounds.tolist()):
        of = slice(*np.searchsorted(ends, [begin, end]))
        sums[:, of] = _sums_of(rows.part(begin, end), starts[of] - begin, ends[of] - begin)
    return {"OBV": sums[0], "pvt": sums[1]}


def _sums_of(rows: Rows, starts: _Ints, ends: _Ints) -> _Floats:
    price, volume = rows.values
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
    return sums
