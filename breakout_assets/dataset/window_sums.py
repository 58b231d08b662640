"""The indicators of a window that have no fading memory: its newest 20 rows, and sums over all of its rows.

A sum over a window is put together from the end of its first UTC day, the whole days between, and the beginning of its
last day, so that the order of the additions depends on the calendar and on the window's rows, and on nothing else.
Differences of running totals would keep the rounding errors of terms that the window has left behind.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

_Floats = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]

DAY: Final = 24
SMA_ROWS: Final = (5, 10, 20)
RECENT_ROWS: Final = max(SMA_ROWS)
VWRSI_ROWS: Final = 14
BAND_WIDTH: Final = 2.0  # standard deviations
_SIDE_BY_SIDE: Final = 8192  # rows whose sums stay in the processor's cache


def recent_values(price: _Floats, volume: _Floats, counts: _Ints) -> dict[str, _Floats]:
    """Averages, bands and VWRSI of each row, from it and at most 19 rows before it.

    `counts` are how many rows each row's window holds. Where they are fewer than an indicator needs, the rows before
    may be those of another token, and the value means nothing.
    """
    names = (*(f"sma_{rows}" for rows in SMA_ROWS), "bollinger_hband", "bollinger_lband", "VWRSI")
    values = {name: np.empty_like(price) for name in names}
    # Rows before the first stand in for what is not there.
    price, volume = (np.concatenate([np.full(RECENT_ROWS, column[0]), column]) for column in (price, volume))
    for first in range(0, len(counts), _SIDE_BY_SIDE):
        part = slice(first, first + _SIDE_BY_SIDE)
        with_earlier = slice(first, first + _SIDE_BY_SIDE + RECENT_ROWS)
        averages = _averages_and_bands(price[with_earlier])
        for name, column in zip(names, averages, strict=False):
            values[name][part] = column
        values["VWRSI"][part] = _vwrsi(price[with_earlier], volume[with_earlier], counts[part])
    return values


def _averages_and_bands(price: _Floats) -> Iterator[_Floats]:
    """The three averages, then upper and lower band, of all rows but the first 20."""
    newest = price[RECENT_ROWS:]
    # Sums of differences to the newest price: equal prices give exactly that price, and bands of no width.
    excess = np.zeros_like(newest)
    middle = newest
    for back in range(1, RECENT_ROWS):
        excess += price[RECENT_ROWS - back : len(price) - back] - newest
        if back + 1 in SMA_ROWS:
            middle = newest + excess / (back + 1)
            yield middle
    # A second pass over the deviations: sums of squares would cancel after a jump of the price.
    squares = np.zeros_like(newest)
    for back in range(RECENT_ROWS):
        distance = price[RECENT_ROWS - back : len(price) - back] - middle
        distance *= distance
        squares += distance
    deviation = np.sqrt(squares / RECENT_ROWS)
    yield middle + BAND_WIDTH * deviation
    yield middle - BAND_WIDTH * deviation


def _vwrsi(price: _Floats, volume: _Floats, counts: _Ints) -> _Floats:
    flow = or_zero((price[1:] - price[:-1]) * volume[1:])
    rises, falls = np.maximum(flow, 0.0), np.maximum(-flow, 0.0)
    gain, loss = np.zeros(len(counts)), np.zeros(len(counts))
    for back in range(VWRSI_ROWS):
        newest = slice(RECENT_ROWS - 1 - back, len(flow) - back)
        rise, fall = rises[newest], falls[newest]
        if back == VWRSI_ROWS - 1:
            # The window's first row has no row before it: its change is 0.
            rise, fall = (np.where(counts == VWRSI_ROWS, 0.0, side) for side in (rise, fall))
        gain += rise
        loss += fall
    ratio = np.full(len(counts), np.nan)
    np.divide(100 * gain, gain + loss, out=ratio, where=gain + loss > 0)
    return ratio


def window_sums(terms: _Floats, day: _Ints, hour: _Ints, own: _Floats, starts: _Ints, ends: _Ints) -> _Floats:
    """Sums of terms (kinds, rows) over the rows after `starts` up to `ends`, each added to its own first number.

    Args:
        terms: rows of one token after the other, in time order.
        day: a number for each token and UTC day, which never falls from row to row.
        hour: of the day.
        own: (kinds, windows) what the window's first row contributes.
        starts: the first row of each window.
        ends: its last row.
    """
    days = int(day[-1]) + 1
    opens = np.flatnonzero(np.diff(day, prepend=-1))
    hourly = np.zeros((len(terms), days, DAY + 1))
    hourly.reshape(len(terms), -1)[:, day * (DAY + 1) + hour] = terms
    # The first row of a day stands apart: where it begins the window, its term is no part of the sum.
    opening = np.zeros((len(terms), days))
    opening[:, day[opens]] = terms[:, opens]
    hourly[:, day[opens], hour[opens]] = 0.0
    since_opening = np.cumsum(hourly, axis=2)
    until_end = np.cumsum(hourly[..., ::-1], axis=2)[..., ::-1].reshape(len(terms), -1)
    whole = opening + since_opening[..., -1]
    since_opening = since_opening.reshape(len(terms), -1)

    first, last = day[starts], day[ends]
    newest = since_opening[:, last * (DAY + 1) + hour[ends]]
    one_day = own + newest
    newest += opening[:, last]
    several = own + until_end[:, first * (DAY + 1) + hour[starts] + 1]
    several += _between(whole, first, last)
    several += newest
    return np.where(first == last, one_day, several)


def _between(whole: _Floats, first: _Ints, last: _Ints) -> _Floats:
    """For each window the sum of the days after its first and before its last, oldest first."""
    new = (np.diff(first, prepend=-1) != 0) | (np.diff(last, prepend=-1) != 0)
    days = np.flatnonzero(new)
    days = days[np.argsort(first[days] - last[days], kind="stable")]  # those with most days first
    first_of, lengths = first[days], last[days] - first[days] - 1
    total = np.zeros((len(whole), len(days)))
    for number in range(int(lengths.max(initial=0))):
        left = int(np.searchsorted(-lengths, -number, side="left"))  # which have more days than this
        total[:, :left] += whole[:, first_of[:left] + 1 + number]
    order = np.argsort(days)
    return np.asarray(total[:, order][:, np.cumsum(new) - 1])


def or_zero(values: _Floats) -> _Floats:
    """The values with 0 for NaN."""
    return np.where(np.isnan(values), 0.0, values)
