"""The window indicators of whole ranges once more, compiled: the same operations in the same order, token by token.

An optional extra (`fast`), of use where millions of rows repay the second that importing numba takes. Nothing here
defines a value: `averages` and `window_sums` do, and every value has their bits. So no fast maths, which would fuse
and reorder, and no logarithms, which are numpy's.
"""

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from breakout_assets.dataset import averages
from breakout_assets.dataset.window_sums import BAND_WIDTH

_Floats = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]

_State = tuple[float, float, float, float, float, float, float]
_Pair = tuple[float, float]

compiled: Final[Any] = njit(cache=True, nogil=True, error_model="numpy")

_DAY: Final = 24
_NEVER: Final = 2**62
_OLDER: Final = 19  # rows that an average of 20 reads before its own
_FLOWS: Final = 13  # and VWRSI, but for the oldest, which may be the window's first
# Places of the indicators among the lines of the values.
_RSI, _SMA_5, _SMA_10, _SMA_20, _PVT, _MACD, _SIGNAL, _EMA_9, _EMA_21, _HIGH, _LOW, _OBV, _VPT, _VWRSI = range(14)


class Terms(NamedTuple):
    """What decides values and is written down elsewhere. Handed over: compiled code keeps what it has read globally."""

    window: int
    nine: float
    more: float
    fast: float
    slow: float
    move: float
    signal: float
    signal_first_row: int
    band_width: float
    group: int
    memory: int
    prices_apart: float
    moves_apart: float


def terms(window: int) -> Terms:
    """Those of windows of so many hours."""
    nine, more, fast, slow, move, _ = (float(weight) for weight in averages.WEIGHTS)
    weights = (nine, more, fast, slow, move, averages.SIGNAL_WEIGHT)
    proof = (averages.GROUP, averages.MEMORY, averages.PRICES_APART, averages.MOVES_APART)
    return Terms(window, *weights, averages.SIGNAL_FIRST_ROW, BAND_WIDTH, *proof)


@compiled
def fill_windows(
    by: Terms,
    hour: _Ints,
    price: _Floats,
    volume: _Floats,
    begins: _Ints,
    first: int,
    least: _Ints,
    out: _Floats,
    column: int,
) -> None:
    """Puts the indicators (14, asked rows) of all rows at or after the hour `first` into `out`, from a column on.

    The rows are those of one token after the other, in time order; `begins` are the first rows of the tokens, and the
    number of all rows. A window has an indicator from its `least` rows on.
    """
    longest = 0
    for token in range(len(begins) - 1):
        longest = max(longest, begins[token + 1] - begins[token])
    starts, met = np.empty(longest, dtype=np.int64), np.empty(longest // by.group + 2, dtype=np.int64)
    paths, sums = np.empty((longest, 7)), np.empty((8, longest + _OLDER))
    for token in range(len(begins) - 1):
        begin, end = begins[token], begins[token + 1]
        asked = begin
        while asked < end and hour[asked] < first:
            asked += 1
        if asked == end:
            continue
        hours, prices, volumes = hour[begin:end], price[begin:end], volume[begin:end]
        stop = column + end - asked
        values = out[:, column:stop]
        asked -= begin
        _find_starts(hours, by.window, starts)
        _recent(by.band_width, prices, asked, sums[0], out, column, stop)
        _weigh(prices, volumes, starts, asked, sums[0], sums[1], out[_VWRSI][column:stop])
        _averages(by, prices, starts, asked, paths, met, values)
        _cumulative(hours, prices, volumes, starts, asked, sums, values)
        _mask(starts, asked, least, values)
        column = stop


@compiled
def _find_starts(hour: _Ints, window: int, starts: _Ints) -> None:
    start = 0
    for row in range(len(hour)):
        while hour[start] <= hour[row] - window:
            start += 1
        starts[row] = start


@compiled
def _mask(starts: _Ints, asked: int, least: _Ints, values: _Floats) -> None:
    most = least.max()
    for place in range(values.shape[1]):
        rows = asked + place - starts[asked + place] + 1
        if rows < most:
            for line in range(len(least)):
                if rows < least[line]:
                    values[line, place] = np.nan


@compiled
def _recent(
    band_width: float, price: _Floats, asked: int, padded: _Floats, out: _Floats, begin: int, stop: int
) -> None:
    """The averages and bands of asked rows as `recent_values` has them.

    With inner loops of fixed length the processor takes several rows at once. The first price stands for what is not
    there, which is masked.
    """
    padded[:_OLDER] = price[0]
    padded[_OLDER : _OLDER + len(price)] = price
    older = padded[asked:]
    five, ten, twenty = out[_SMA_5][begin:stop], out[_SMA_10][begin:stop], out[_SMA_20][begin:stop]
    above, below = out[_HIGH][begin:stop], out[_LOW][begin:stop]
    for place in range(len(five)):
        newest = older[place + 19]
        excess = 0.0
        for back in range(4):
            excess += older[place + 18 - back] - newest
        five[place] = newest + excess / 5
        for back in range(4, 9):
            excess += older[place + 18 - back] - newest
        ten[place] = newest + excess / 10
        for back in range(9, 19):
            excess += older[place + 18 - back] - newest
        middle = newest + excess / 20
        squares = 0.0
        for back in range(20):
            distance = older[place + 19 - back] - middle
            squares += distance * distance
        width = band_width * np.sqrt(squares / 20)
        twenty[place], above[place], below[place] = middle, middle + width, middle - width


@compiled
def _weigh(
    price: _Floats, volume: _Floats, starts: _Ints, asked: int, rises: _Floats, falls: _Floats, out: _Floats
) -> None:
    """VWRSI of asked rows."""
    rises[: _FLOWS + 1] = 0.0
    falls[: _FLOWS + 1] = 0.0
    for row in range(1, len(price)):
        flow = (price[row] - price[row - 1]) * volume[row]
        if np.isnan(flow):
            flow = 0.0
        rises[_FLOWS + row], falls[_FLOWS + row] = max(flow, 0.0), max(-flow, 0.0)
    rises, falls, starts = rises[asked:], falls[asked:], starts[asked:]
    for place in range(len(out)):
        gain, loss = 0.0, 0.0
        for back in range(13):
            gain += rises[place + 13 - back]
            loss += falls[place + 13 - back]
        # A window's first row has no row before it, and no change.
        has_oldest = asked + place - _FLOWS > starts[place]
        gain += rises[place] if has_oldest else 0.0
        loss += falls[place] if has_oldest else 0.0
        both = gain + loss
        out[place] = 100 * gain / both if both > 0 else np.nan


@compiled
def _smooth(earlier: float, value: float, new: float) -> float:
    return earlier if earlier == value else earlier * (1.0 - new) + value * new


@compiled
def _first(price: float) -> _State:
    return price, price, price, price, 0.0, 0.0, np.nan


@compiled
def _next(by: Terms, row: int, price: float, before: float, state: _State) -> _State:
    """The averages, in the order of `averages`, at row number `row` of a window or of a run."""
    move = price - before
    fast, slow = _smooth(state[2], price, by.fast), _smooth(state[3], price, by.slow)
    if row > by.signal_first_row:
        signal = _smooth(state[6], fast - slow, by.signal)
    else:
        signal = fast - slow if row == by.signal_first_row else np.nan
    rise, fall = _smooth(state[4], max(move, 0.0), by.move), _smooth(state[5], max(-move, 0.0), by.move)
    return _smooth(state[0], price, by.nine), _smooth(state[1], price, by.more), fast, slow, rise, fall, signal


@compiled
def _averages(
    by: Terms, price: _Floats, starts: _Ints, asked: int, paths: _Floats, met: _Ints, values: _Floats
) -> None:
    greatest = np.empty((len(met), 3))
    state = _first(price[0])
    for row in range(len(price)):
        if row:
            state = _next(by, row, price[row], price[row - 1], state)
        path = paths[row]
        path[0], path[1], path[2], path[3], path[4], path[5], path[6] = state
        if row:
            # Groups of rows as in `averages`: those after a multiple of its size up to the next one.
            span = greatest[(row - 1) // by.group]
            if (row - 1) % by.group == 0:
                span[:] = 0.0
            span[0] = max(span[0], max(max(price[row], state[0]), max(max(state[1], state[2]), state[3])))
            span[1], span[2] = max(span[1], state[4]), max(span[2], state[5])
    met[:] = -1
    for row in range(asked, len(price)):
        start = starts[row]
        path = paths[row]
        state = (path[0], path[1], path[2], path[3], path[4], path[5], path[6])
        if start > 0:
            group = -(-start // by.group)
            if met[group] < 0:
                met[group] = _meeting_row(by, price, paths, greatest, group)
            if met[group] > row:
                state = _first(price[start])
                for step in range(1, row - start + 1):
                    state = _next(by, step, price[start + step], price[start + step - 1], state)
        place = row - asked
        values[_RSI, place] = 100.0 if state[5] == 0 else 100 - 100 / (1 + state[4] / state[5])
        values[_EMA_9, place], values[_EMA_21, place] = state[0], state[1]
        values[_MACD, place], values[_SIGNAL, place] = state[2] - state[3], state[6]


@compiled
def _meeting_row(by: Terms, price: _Floats, paths: _Floats, greatest: _Floats, group: int) -> int:
    """The row from which on windows of a group have the averages of the run, as `averages` proves it."""
    row = group * by.group + by.memory
    last = min(group * by.group + by.window - 1, len(price) - 1)
    if row > last:
        return _NEVER
    prices, rises, falls = 0.0, 0.0, 0.0
    for span in greatest[group - 1 : group + by.memory // by.group]:
        prices, rises, falls = max(prices, span[0]), max(rises, span[1]), max(falls, span[2])
    prices, rises, falls = prices * by.prices_apart, rises * by.moves_apart, falls * by.moves_apart
    path = paths[row]
    nine, more = (path[0] - prices, path[0] + prices), (path[1] - prices, path[1] + prices)
    fast, slow = (path[2] - prices, path[2] + prices), (path[3] - prices, path[3] + prices)
    rise, fall = (path[4] - rises, path[4] + rises), (path[5] - falls, path[5] + falls)
    signal = (path[6] - prices, path[6] + prices)
    while row < last:
        row += 1
        now, up, down = price[row], max(price[row] - price[row - 1], 0.0), max(price[row - 1] - price[row], 0.0)
        nine, more = _narrow(nine, (now, now), by.nine), _narrow(more, (now, now), by.more)
        fast, slow = _narrow(fast, (now, now), by.fast), _narrow(slow, (now, now), by.slow)
        rise, fall = _narrow(rise, (up, up), by.move), _narrow(fall, (down, down), by.move)
        signal = _narrow(signal, (fast[0] - slow[1], fast[1] - slow[0]), by.signal)
        if _met(rise) and _met(fall) and _met(signal) and _met(slow) and _met(fast) and _met(more) and _met(nine):
            return row
    return _NEVER


@compiled
def _met(path: _Pair) -> bool:
    return path[0] == path[1]


@compiled
def _narrow(path: _Pair, inputs: _Pair, new: float) -> _Pair:
    """The lower and the upper path, one row on."""
    low, high = path
    below, above = low * (1.0 - new) + inputs[0] * new, high * (1.0 - new) + inputs[1] * new
    if low <= inputs[1] and inputs[0] <= high:
        inner_low, inner_high = max(low, inputs[0]), min(high, inputs[1])
        if low == high and inputs[0] == inputs[1]:
            return inner_low, inner_high
        return min(below, inner_low), max(above, inner_high)
    return below, above


@compiled
def _cumulative(
    hour: _Ints, price: _Floats, volume: _Floats, starts: _Ints, asked: int, sums: _Floats, values: _Floats
) -> None:
    """OBV and pvt as `window_sums` adds them up.

    Each from four lines of `sums`: since the day's first row, after the row until the day's end, whole days, and what
    their first rows have apart.
    """
    rows = len(hour)
    days = np.empty(rows, dtype=np.int64)
    day, date = -1, -1
    for row in range(rows):
        flow, move = 0.0, 0.0
        if row > 0 and not np.isnan(volume[row]):
            flow = -volume[row] if price[row] < price[row - 1] else volume[row]
            move = (price[row] / price[row - 1] - 1) * volume[row]
        sums[1, row], sums[5, row] = flow, move
        today = hour[row] // _DAY
        if today != date:
            date = today
            day += 1
            sums[3, day], sums[7, day] = flow, move
            sums[0, row], sums[4, row] = 0.0, 0.0
        else:
            sums[0, row], sums[4, row] = sums[0, row - 1] + flow, sums[4, row - 1] + move
        sums[2, day], sums[6, day] = sums[3, day] + sums[0, row], sums[7, day] + sums[4, row]
        days[row] = day
    flow, move = 0.0, 0.0
    for row in range(rows - 1, -1, -1):
        of_flow, of_move = sums[1, row], sums[5, row]
        sums[1, row], sums[5, row] = flow, move
        same_day = row > 0 and days[row - 1] == days[row]
        flow, move = (flow + of_flow, move + of_move) if same_day else (0.0, 0.0)
    for kind in range(2):
        _window_sums(kind, volume, days, starts, asked, sums[4 * kind : 4 * kind + 4], values[_PVT if kind else _OBV])
    for place in range(values.shape[1]):
        pvt = values[_PVT, place]
        values[_VPT, place] = 0.0 if np.isnan(pvt) else pvt


@compiled
def _window_sums(
    kind: int, volume: _Floats, days: _Ints, starts: _Ints, asked: int, sums: _Floats, out: _Floats
) -> None:
    since, after, whole, opening = sums[0], sums[1], sums[2], sums[3]
    first, last, between = -1, -1, 0.0
    for row in range(asked, len(days)):
        start = starts[row]
        if days[start] != first or days[row] != last:
            first, last, between = days[start], days[row], 0.0
            for day in range(first + 1, last):
                between += whole[day]
        own = 0.0 if kind or np.isnan(volume[start]) else volume[start]
        if np.isnan(volume[row]):
            out[row - asked] = np.nan
        elif first == last:
            out[row - asked] = own + since[row]
        else:
            out[row - asked] = ((own + after[start]) + between) + (since[row] + opening[last])
