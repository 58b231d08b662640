"""The stationary indicators of whole ranges once more, compiled: see `compiled`, whose rules hold here.

The steps are those of `stationary`, for one token at a time, whose grids (hours, days) stay in the processor's cache;
inner loops run over days, several of which the processor takes at once.
"""

import numpy as np
import numpy.typing as npt

from breakout_assets.dataset.compiled import compiled

_Floats = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]

_DAY = 24
_PRICE, _VOLUME, _RANK, _PAIRS, _LOG_VOLUME, _LOG_RETURN = range(6)


@compiled
def fill_grid(
    hour: _Ints,
    market: _Floats,
    begins: _Ints,
    asked_hour: _Ints,
    asked_begins: _Ints,
    span: tuple[int, int, int],
    late_hours: int,
    still: float,
    out: _Floats,
) -> None:
    """Puts the price and the indicators of the grid (11, asked rows) into `out`; what to take the log of for changes.

    Args:
        hour: of each row, those of one token after the other.
        market: (6, rows) price, volume, rank and number of pairs, NaN what is not positive; then the log of the volume
            and the log return from the hour before.
        begins: the first row of each token, and the number of rows.
        asked_hour: of each asked row, those of one token after the other.
        asked_begins: the first asked row of each token, and their number.
        span: the first hour of the grid, its days, and how many of them, the last ones, are asked for.
        late_hours: how many hours older a row may be that stands for a missing one.
        still: what a spread must exceed.
        out: where the values go.
    """
    first, days, asked = span
    grids = np.empty((6, _DAY, days))
    found = np.empty((11, _DAY, asked))
    scratch, sums = np.empty((8, _DAY, days)), np.empty((3, _DAY, asked))
    for token in range(len(begins) - 1):
        grids[:] = np.nan
        for row in range(begins[token], begins[token + 1]):
            day, of_day = divmod(hour[row] - first, _DAY)
            for kind in range(6):
                grids[kind, of_day, day] = market[kind, row]
        _on_grid(grids, scratch, sums, late_hours, still, found)
        for row in range(asked_begins[token], asked_begins[token + 1]):
            day, of_day = divmod(asked_hour[row] - first, _DAY)
            for line in range(11):
                out[line, row] = found[line, of_day, day - days + asked]


@compiled
def _on_grid(grids: _Floats, scratch: _Floats, sums: _Floats, late_hours: int, still: float, found: _Floats) -> None:
    """What the function of this name in `stationary` does, with the price before it.

    Days are numbers of a given width: of plain ones each would be a type, and functions compiled anew for it.
    """
    known, values = scratch[0:2], scratch[2:4]
    usual, mean = sums[0], sums[1]
    price, volume, log_volume, log_return = grids[_PRICE], grids[_VOLUME], grids[_LOG_VOLUME], grids[_LOG_RETURN]
    found[0] = price[:, grids.shape[2] - found.shape[2] :]
    _sums(log_volume, scratch[4], known, values)
    _mean(known, values, np.int64(1), sums[2], found[5])
    _mean(known, values, np.int64(30), sums[2], mean)
    for hour in range(_DAY):
        for day in range(found.shape[2]):
            found[5, hour, day] -= mean[hour, day]
    _mean(known, values, np.int64(7), sums[2], mean)
    _deviation(log_volume, known, values, np.int64(7), mean, scratch, usual)
    _scores(log_volume, mean, usual, still, found[3])

    _sums(volume, scratch[4], known, values)
    _mean(known, values, np.int64(3), sums[2], usual)
    _product(log_return, volume, scratch[5])
    _sums(scratch[5], scratch[4], known, values)
    _share(known, values, sums[2], usual, found[1])
    _direct(price, volume, log_return, scratch[5])
    _sums(scratch[5], scratch[4], known, values)
    _share(known, values, sums[2], usual, found[2])

    _sums(log_return, scratch[4], known, values)
    _mean(known, values, np.int64(3), sums[2], mean)
    _deviation(log_return, known, values, np.int64(3), mean, scratch, found[8])
    for line, kind, back in ((4, _VOLUME, 24), (6, _PRICE, 24), (7, _PRICE, 168), (9, _RANK, 168), (10, _PAIRS, 168)):
        _ratio(grids[kind], back, late_hours, found[line])


@compiled
def _sums(series: _Floats, terms: _Floats, known: _Floats, values: _Floats) -> None:
    """How much of a series is known, and its sum, within each day: until and with each hour, and after it."""
    for hour in range(_DAY):
        for day in range(series.shape[1]):
            terms[hour, day] = 0.0 if np.isnan(series[hour, day]) else 1.0
    _until(terms, known[0])
    _after(terms, known[1])
    for hour in range(_DAY):
        for day in range(series.shape[1]):
            terms[hour, day] = 0.0 if np.isnan(series[hour, day]) else series[hour, day]
    _until(terms, values[0])
    _after(terms, values[1])


@compiled
def _until(terms: _Floats, out: _Floats) -> None:
    out[0] = terms[0]
    for hour in range(1, _DAY):
        _add(out[hour - 1], terms[hour], out[hour])


@compiled
def _after(terms: _Floats, out: _Floats) -> None:
    out[_DAY - 1] = 0.0
    for hour in range(_DAY - 1, 0, -1):
        _add(out[hour], terms[hour], out[hour - 1])


@compiled
def _add(one: _Floats, other: _Floats, out: _Floats) -> None:
    for day in range(len(out)):
        out[day] = one[day] + other[day]


@compiled
def _between(until: _Floats, days: int, out: _Floats) -> None:
    """What is in the whole days between the first and the last of each window."""
    whole = until[_DAY - 1]
    out[:] = 0.0
    for back in range(days - 1, 0, -1):
        _add(out, whole[len(whole) - len(out) - back :], out)


@compiled
def _total(sums: _Floats, days: int, out: _Floats) -> None:
    between = np.empty(out.shape[1])
    _between(sums[0], days, between)
    newest = sums.shape[2] - out.shape[1]
    for hour in range(_DAY):
        _add(sums[1, hour, newest - days :], between, out[hour])
        _add(out[hour], sums[0, hour, newest:], out[hour])


@compiled
def _mean(known: _Floats, values: _Floats, days: int, count: _Floats, out: _Floats) -> None:
    _total(known, days, count)
    _total(values, days, out)
    least = days * _DAY * 5 // 6
    for hour in range(_DAY):
        for day in range(out.shape[1]):
            mean = out[hour, day] / max(count[hour, day], 1.0)
            out[hour, day] = mean if count[hour, day] >= least else np.nan


@compiled
def _share(known: _Floats, values: _Floats, count: _Floats, usual: _Floats, out: _Floats) -> None:
    _total(known, np.int64(3), count)
    _total(values, np.int64(3), out)
    for hour in range(_DAY):
        for day in range(out.shape[1]):
            share = out[hour, day] / usual[hour, day]
            out[hour, day] = share if count[hour, day] >= 60 else np.nan


@compiled
def _product(one: _Floats, other: _Floats, out: _Floats) -> None:
    for hour in range(_DAY):
        for day in range(out.shape[1]):
            out[hour, day] = one[hour, day] * other[hour, day]


@compiled
def _direct(price: _Floats, volume: _Floats, log_return: _Floats, out: _Floats) -> None:
    """The volume, negative where the price fell; NaN where one of them or the hour before is not known."""
    for hour in range(_DAY):
        for day in range(out.shape[1]):
            out[hour, day] = np.nan
            if not np.isnan(log_return[hour, day]):
                earlier = price[hour - 1, day] if hour else price[_DAY - 1, day - 1]
                sign = 1.0 if price[hour, day] > earlier else (-1.0 if price[hour, day] < earlier else 0.0)
                out[hour, day] = sign * volume[hour, day]


@compiled
def _deviation(
    series: _Floats, known: _Floats, values: _Floats, days: int, mean: _Floats, scratch: _Floats, out: _Floats
) -> None:
    """The standard deviation about the mean of the same windows; `values` are used up."""
    asked = out.shape[1]
    newest = series.shape[1] - asked
    first, last = np.zeros(series.shape[1]), np.zeros(series.shape[1])
    for hour in range(_DAY):
        _know(series[hour], last)
        _know(series[_DAY - 1 - hour], first)
    linear, squares, late_linear, late_squares = scratch[4], scratch[5], scratch[6], scratch[7]
    count, middle, spread, nothing = np.empty(asked), np.empty(asked), np.zeros(asked), np.zeros(asked)
    _between(known[0], days, count)
    _between(values[0], days, middle)
    for day in range(asked):
        middle[day] = middle[day] / max(count[day], 1.0)
    _distances(series, last, values[0], values[1])
    _after(values[0], late_linear)
    _after(values[1], late_squares)
    _distances(series, first, values[0], values[1])
    _until(values[0], linear)
    _until(values[1], squares)
    for back in range(days - 1, 0, -1):
        day, hour = newest - back, _DAY - 1
        _add_about(known[0, hour, day:], linear[hour, day:], squares[hour, day:], first[day:], middle, spread)
    day = newest - days
    for hour in range(_DAY):
        total, about = out[hour], mean[hour]
        total[:] = 0.0
        _add_about(known[1, hour, day:], late_linear[hour, day:], late_squares[hour, day:], last[day:], about, total)
        _add_about(count, nothing, spread, middle, about, total)
        _add_about(known[0, hour, newest:], linear[hour, newest:], squares[hour, newest:], first[newest:], about, total)
        _root(known[1, hour, day:], count, known[0, hour, newest:], about, total)


@compiled
def _know(series: _Floats, origin: _Floats) -> None:
    for day in range(len(series)):
        origin[day] = origin[day] if np.isnan(series[day]) else series[day]


@compiled
def _distances(series: _Floats, origin: _Floats, linear: _Floats, squares: _Floats) -> None:
    for hour in range(_DAY):
        for day in range(len(origin)):
            value = series[hour, day]
            distance = 0.0 if np.isnan(value) else value - origin[day]
            linear[hour, day], squares[hour, day] = distance, distance * distance


@compiled
def _add_about(
    count: _Floats, linear: _Floats, squares: _Floats, origin: _Floats, other: _Floats, out: _Floats
) -> None:
    """Adds the squares of the differences to another number, from those to the origin."""
    for day in range(len(out)):
        shift = other[day] - origin[day]
        out[day] += squares[day] - shift * (2 * linear[day] - count[day] * shift)


@compiled
def _root(oldest: _Floats, between: _Floats, newest: _Floats, mean: _Floats, out: _Floats) -> None:
    for day in range(len(out)):
        count = oldest[day] + between[day] + newest[day]
        root = np.sqrt(max(out[day], 0.0) / max(count, 1.0))
        out[day] = np.nan if np.isnan(mean[day]) else root


@compiled
def _scores(series: _Floats, mean: _Floats, deviation: _Floats, still: float, out: _Floats) -> None:
    newest = series.shape[1] - out.shape[1]
    for hour in range(_DAY):
        now = series[hour, newest:]
        for day in range(out.shape[1]):
            score = (now[day] - mean[hour, day]) / deviation[hour, day]
            out[hour, day] = score if deviation[hour, day] > still else np.nan


@compiled
def _ratio(series: _Floats, back: int, late_hours: int, out: _Floats) -> None:
    """Each value over that of so many hours ago, or over the newest known one of the hours before that."""
    newest = series.shape[1] - out.shape[1]
    for hour in range(_DAY):
        past = out[hour]
        past[:] = np.nan
        for late in range(late_hours + 1):
            days, of_day = divmod(back + late - hour + _DAY - 1, _DAY)
            earlier = series[_DAY - 1 - of_day, newest - days :]
            for day in range(len(past)):
                past[day] = earlier[day] if np.isnan(past[day]) else past[day]
        now = series[hour, newest:]
        for day in range(len(past)):
            past[day] = now[day] / past[day]
