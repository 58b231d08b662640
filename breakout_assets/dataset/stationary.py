"""Indicators that have no unit, so that values of one token, or of one year, compare with those of another.

Multiplying all prices or all volumes of a token changes none of them. The first group divides window indicators by
the price of their row. The second is computed on a grid of hours of the day, UTC days and tokens, where a window
counts hours: it has a value while five sixths of its hours have one, so that one missing hour does not silence a token
for 30 days.

Windows are whole days long, so each is the end of one day, whole days, and the beginning of its last day, and its sum
is those three, each added up hour by hour. Differences of running totals, or numpy reductions, would let a value depend
in its last bits on where the block begins and on which other tokens are there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from breakout_assets.dataset.compiling import load_compiled
from breakout_assets.dataset.indicators import LOOKBACK
from breakout_assets.dataset.panel import Panel, Rows

_PRICE_COLUMNS: Final = (
    "log_price_sma_5",
    "log_price_sma_10",
    "log_price_sma_20",
    "macd_price",
    "macd_signal_price",
    "log_ema_9_21",
    "band_position",
    "band_width",
)
_GRID_COLUMNS: Final = (
    "pvt_72",
    "obv_72",
    "volume_z_168",
    "log_volume_change_24",
    "log_volume_24_720",
    "log_return_24",
    "log_return_168",
    "volatility_72",
    "log_rank_change_168",
    "log_pairs_change_168",
)
_LOG_CHANGES: Final = (
    "log_volume_change_24",
    "log_return_24",
    "log_return_168",
    "log_rank_change_168",
    "log_pairs_change_168",
)
STATIONARY_COLUMNS: Final = _PRICE_COLUMNS + _GRID_COLUMNS

# How much older than 24 or 168 hours a row may be that stands for a missing one.
LATE_HOURS: Final = 3

_DAY: Final = 24  # hours
_REACH: Final = LOOKBACK // timedelta(days=1)  # whole days before the first asked one that windows reach into
_CELLS: Final = 2**17  # hours of all tokens on one grid: its parts stay in the processor's cache
_TOKENS: Final = 128  # of which compiled code is handed the rows at once; more would only need more memory
_ROWS: Final = 2**15  # rows whose shares of the price are computed together, for the same reason
MARKET_COLUMNS: Final = ("price", "volume", "cmc_rank", "num_market_pairs")
# A spread below this is what rounding leaves of a series that stands still; nothing can be measured in units of it.
_STILL: Final = 1e-9

_Floats = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]


def stationary_indicators(rows: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """The stationary indicators of the rows that have published ones.

    Args:
        rows: the believed market rows that `published` was computed from, in any order, with `token`, `timestamp`
            (naive UTC hours), `price` (USD), `volume` (USD), `cmc_rank` and `num_market_pairs`; the last three may be
            null. They should reach back 720 hours. What is not positive counts as null.
        published: what `window_indicators` made of them, in its order; it has also refused rows that cannot be.

    Returns:
        `STATIONARY_COLUMNS` (float64) with the index of `published`; NaN where the history is too short or too full
        of holes, and where a series stands still that others would be measured by. Never infinite.
    """
    of = {str(name): column.to_numpy() for name, column in published.items()}
    token, hour = of.pop("token"), of.pop("timestamp").astype("datetime64[h]").astype(np.int64)
    panel = Panel.of(rows, MARKET_COLUMNS, *reach(int(hour.min(initial=0)), int(hour.max(initial=0))))
    codes, names = pd.factorize(token)
    values = stationary_values(panel, panel.names.get_indexer(pd.Index(names))[codes], hour, of)
    return pd.DataFrame(values.T, index=published.index, columns=list(STATIONARY_COLUMNS), copy=False)


def reach(first: int, last: int) -> tuple[int, int]:
    """The first and the last hour that the indicators of these hours, all since 1970, look at: whole days."""
    return (first // _DAY - _REACH) * _DAY, last // _DAY * _DAY + _DAY - 1


def stationary_values(panel: Panel, token: _Ints, hour: _Ints, published: Mapping[str, _Floats]) -> _Floats:
    """`STATIONARY_COLUMNS` (columns, rows) of some of the panel's rows, which are in order, from the published ones.

    As `stationary_indicators`.
    """
    values = np.full((len(STATIONARY_COLUMNS), len(hour)), np.nan)
    of_price, of_grid = values[: len(_PRICE_COLUMNS)], values[len(_PRICE_COLUMNS) :]
    if not len(hour):
        return values
    price = np.full(len(hour), np.nan)
    begin, end = reach(int(hour.min()), int(hour.max()))
    days = (end + 1 - begin) // _DAY
    compiled = load_compiled(len(hour))
    for low, high in panel.batches(_TOKENS if compiled else max(1, _CELLS // (days * _DAY))):
        mine = slice(*np.searchsorted(token, [low, high]))
        if mine.start == mine.stop:
            continue
        rows, _ = panel.part(low, high, MARKET_COLUMNS, begin, end)
        columns = [np.where(column > 0, column, np.nan) for column in rows.values]
        grid = _Grid(begin, days, low, high - low)
        fill = _fill_compiled if compiled else _fill
        fill(grid, Rows(rows.token, rows.hour, columns), token[mine], hour[mine], price[mine], of_grid[:, mine])
    for begin in range(0, len(hour), _ROWS):
        part = slice(begin, begin + _ROWS)
        _by_price({name: column[part] for name, column in published.items()}, price[part], of_price[:, part])
    return values


@dataclass(frozen=True)
class _Grid:
    """The hours and tokens of which something is computed: whole days, before the asked ones all that windows reach.

    Attributes:
        begin: its first hour since 1970.
        days: how many there are.
        token: number of the first token.
        tokens: how many there are.
    """

    begin: int
    days: int
    token: int
    tokens: int

    @property
    def asked(self) -> int:
        """How many days are asked for, the last ones."""
        return self.days - _REACH

    def cells(self, token: _Ints, hour: _Ints, skipped: int = 0) -> _Ints:
        """Where rows are in a flattened (hours of the day, days, tokens) without so many days at the beginning."""
        day, hour = np.divmod(hour - self.begin, _DAY)
        return np.asarray((hour * (self.days - skipped) + day - skipped) * self.tokens + token - self.token)


def _fill(grid: _Grid, rows: Rows, token: _Ints, hour: _Ints, price: _Floats, of_grid: _Floats) -> None:
    """The prices of asked rows and their `_GRID_COLUMNS`."""
    cell = grid.cells(rows.token, rows.hour)
    filled = []
    for column in rows.values:
        values = np.full((_DAY, grid.days, grid.tokens), np.nan)
        values.reshape(-1)[cell] = column
        filled.append(values)
    cell = grid.cells(token, hour, _REACH)
    price[:] = filled[0][:, _REACH:].ravel()[cell]
    for line, block in zip(of_grid, _on_grid(grid.asked, *filled), strict=True):
        line[:] = block.ravel()[cell]


def _fill_compiled(grid: _Grid, rows: Rows, token: _Ints, hour: _Ints, price: _Floats, of_grid: _Floats) -> None:
    """As `_fill`, with the same operations in the same order."""
    from breakout_assets.dataset.compiled_stationary import fill_grid

    tokens = np.arange(grid.token, grid.token + grid.tokens + 1)
    begins, asked_begins = np.searchsorted(rows.token, tokens), np.searchsorted(token, tokens)
    columns = _with_logs(rows.values, rows.hour, begins)
    found = np.empty((1 + len(_GRID_COLUMNS), len(hour)))
    span = (grid.begin, grid.days, grid.asked)
    fill_grid(rows.hour, columns, begins, hour, asked_begins, span, LATE_HOURS, _STILL, found)
    price[:] = found[0]
    for name, line, column in zip(_GRID_COLUMNS, of_grid, found[1:], strict=True):
        line[:] = np.log(column) if name in _LOG_CHANGES else column


def _with_logs(columns: Sequence[_Floats], hour: _Ints, begins: _Ints) -> _Floats:
    """The columns, then the log of the volume and that of the price over the one an hour before."""
    price, volume = columns[:2]
    of_next_hour = np.diff(hour, prepend=hour[:1]) == 1
    firsts = begins[:-1]
    of_next_hour[firsts[firsts < len(hour)]] = False  # the last tokens may have no row
    change = np.full(len(hour), np.nan)
    np.divide(price[1:], price[:-1], out=change[1:], where=of_next_hour[1:])
    return np.stack([*columns, np.log(volume), np.log(change)])


def _by_price(of: dict[str, _Floats], price: _Floats, out: _Floats) -> None:
    """The window indicators as shares of the price, or of each other, into `out` (`_PRICE_COLUMNS`, rows)."""
    middle = of["sma_20"]
    deviation = (of["bollinger_hband"] - of["bollinger_lband"]) / 4  # each band is 2 deviations from the middle
    moving = deviation > _STILL * middle
    for line, rows in zip(out, (5, 10, 20), strict=False):
        np.log(price / of[f"sma_{rows}"], out=line)
    macd, signal, between, position, width = out[3:]
    np.divide(of["MACD"], price, out=macd)
    np.divide(of["MACD_signal"], price, out=signal)
    np.log(of["EMA_9"] / of["EMA_21"], out=between)
    np.divide(price - middle, 2 * deviation, out=position, where=moving)
    np.divide(deviation, middle, out=width)


def _on_grid(
    asked: int, price: _Floats, volume: _Floats, cmc_rank: _Floats, num_market_pairs: _Floats
) -> tuple[_Floats, ...]:
    """`_GRID_COLUMNS` of the last `asked` days, each (hours, days, tokens), from grids that begin `_REACH` earlier."""
    log_volume = np.log(volume)
    # From one hour to the next and no further: two hours' change would weigh as much as it lasted.
    of_three_days = asked + 3
    before = _earlier(price, 1, of_three_days)
    log_return = np.log(price[:, -of_three_days:] / before)
    direction = np.sign(price[:, -of_three_days:] - before)
    near = volume[:, -of_three_days:]
    returns, volumes = _Sums.of(log_return, asked), _Sums.of(log_volume, asked)
    usual_volume = _Sums.of(near, asked).mean(3)
    volume_mean = volumes.mean(7)
    volume_deviation = _deviation(log_volume, volumes, volume_mean, 7)
    volume_deviation[~(volume_deviation > _STILL)] = np.nan
    return (
        _Sums.of(log_return * near, asked).total(3) / usual_volume,
        _Sums.of(direction * near, asked).total(3) / usual_volume,
        (log_volume[:, -asked:] - volume_mean) / volume_deviation,
        _log_change(volume, 24, asked),
        volumes.mean(1) - volumes.mean(_REACH),
        _log_change(price, 24, asked),
        _log_change(price, 168, asked),
        _deviation(log_return, returns, returns.mean(3), 3),
        _log_change(cmc_rank, 168, asked),
        _log_change(num_market_pairs, 168, asked),
    )


@dataclass(frozen=True)
class _Halves:
    """Sums of terms (hours, days, tokens) within each day: up to and with each hour, and after each hour."""

    until: _Floats
    after: _Floats
    asked: int
    """How many of the days, the last ones, are asked for."""

    @classmethod
    def of(cls, terms: _Floats, asked: int) -> "_Halves":
        until, after = np.empty_like(terms), np.empty_like(terms)
        until[0], after[-1] = terms[0], 0.0
        for hour in range(1, _DAY):
            np.add(until[hour - 1], terms[hour], out=until[hour])
            np.add(after[-hour], terms[-hour], out=after[-hour - 1])
        return cls(until, after, asked)

    def oldest(self, days: int) -> _Floats:
        """Of the windows of so many days that end at each asked hour: what is in the day that they begin in."""
        return _back(self.after, days, self.asked)

    def between(self, days: int) -> _Floats:
        """What is in the whole days between the first and the last of each window, (1, asked days, tokens)."""
        whole = self.until[-1:]
        total = np.zeros_like(_back(whole, 0, self.asked))
        for back in range(days - 1, 0, -1):
            total += _back(whole, back, self.asked)
        return total

    def newest(self) -> _Floats:
        return _back(self.until, 0, self.asked)

    def total(self, days: int) -> _Floats:
        return np.asarray(self.oldest(days) + self.between(days) + self.newest())


@dataclass(frozen=True)
class _Sums:
    """Sums of what is known of a series, and how much of it is."""

    known: _Halves
    values: _Halves

    @classmethod
    def of(cls, terms: _Floats, asked: int) -> "_Sums":
        known = ~np.isnan(terms)
        return cls(_Halves.of(known.astype(np.float64), asked), _Halves.of(np.where(known, terms, 0.0), asked))

    def total(self, days: int) -> _Floats:
        """What is known of the `days` that end at each asked hour, NaN where that is less than five sixths."""
        total = self.values.total(days)
        total[self.known.total(days) < days * _DAY * 5 // 6] = np.nan
        return total

    def mean(self, days: int) -> _Floats:
        return np.asarray(self.total(days) / np.maximum(self.known.total(days), 1.0))


def _deviation(terms: _Floats, sums: _Sums, mean: _Floats, days: int) -> _Floats:
    """The standard deviation (of the values, not an estimate for others) about the mean of the same windows.

    Squares are summed about a value of the day itself, so that they are never much larger than those about the mean,
    to which they are moved at the end.
    """
    asked = sums.known.asked
    terms = terms[:, -(asked + days) :]
    known = ~np.isnan(terms)
    count = _Halves.of(known.astype(np.float64), asked)
    first = _at(terms, np.argmax(known, axis=0))
    last = _at(terms, _DAY - 1 - np.argmax(known[::-1], axis=0))
    from_first, to_last = (np.where(known, terms - origin, 0.0) for origin in (first, last))
    linear, squares = _Halves.of(from_first, asked), _Halves.of(from_first * from_first, asked)
    middle = _between(_Moments(count.until, linear.until, squares.until, first), sums, days)
    newest = _Moments(count.newest(), linear.newest(), squares.newest(), _back(first, 0, asked))
    linear, squares = _Halves.of(to_last, asked), _Halves.of(to_last * to_last, asked)
    oldest = _Moments(count.oldest(days), linear.oldest(days), squares.oldest(days), _back(last, days, asked))
    total = oldest.about(mean) + middle.about(mean) + newest.about(mean)
    return np.asarray(np.sqrt(np.maximum(total, 0.0) / np.maximum(count.total(days), 1.0)))


@dataclass(frozen=True)
class _Moments:
    """How many values, and the sums of their differences to an origin and of the squares of these."""

    count: _Floats
    linear: _Floats
    squares: _Floats
    origin: _Floats

    def about(self, other: _Floats) -> _Floats:
        """The sum of the squares of their differences to another number."""
        shift = other - self.origin
        return np.asarray(self.squares - shift * (2 * self.linear - self.count * shift))


def _between(hourly: _Moments, sums: _Sums, days: int) -> _Moments:
    """The moments of the whole days between the first and the last of each window, about their own mean."""
    whole = [part[-1:] for part in (hourly.count, hourly.linear, hourly.squares, hourly.origin)]
    count, asked = sums.known.between(days), sums.known.asked
    mean = sums.values.between(days) / np.maximum(count, 1.0)
    squares = np.zeros_like(mean)
    for back in range(days - 1, 0, -1):
        squares += _Moments(*(_back(part, back, asked) for part in whole)).about(mean)
    return _Moments(count, np.zeros_like(mean), squares, mean)


def _back(grid: _Floats, days: int, asked: int) -> _Floats:
    """What is so many days before the last `asked` ones."""
    end = grid.shape[1] - days
    return grid[:, end - asked : end]


def _at(terms: _Floats, hour: _Ints) -> _Floats:
    """The value of each day at its hour, (1, days, tokens); 0 where it is not known."""
    value = np.take_along_axis(terms, hour[None], axis=0)
    return np.where(np.isnan(value), 0.0, value)


def _log_change(grid: _Floats, back: int, asked: int) -> _Floats:
    """The log change since `back` hours ago, or since the newest known value of the three hours before that."""
    past = _earlier(grid, back, asked)
    for late in range(1, LATE_HOURS + 1):
        past = np.where(np.isnan(past), _earlier(grid, back + late, asked), past)
    return np.asarray(np.log(grid[:, -asked:] / past))


def _earlier(grid: _Floats, hours: int, asked: int) -> _Floats:
    """What is so many hours before each hour of the last `asked` days."""
    days, rest = divmod(hours, _DAY)
    return np.concatenate([_back(grid, days + 1, asked)[_DAY - rest :], _back(grid, days, asked)[: _DAY - rest]])
