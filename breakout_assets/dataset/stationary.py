"""Indicators that have no unit, so that values of one token, or of one year, compare with those of another.

Multiplying all prices or all volumes of a token changes none of them. The first group divides window indicators by
the price of their row. The second is computed on a grid of hours and tokens, where a window counts hours: it has a
value while five sixths of its hours have one, so that one missing hour does not silence a token for 30 days.

Every sum on the grid adds whole hours of all tokens, newest first. Differences of running totals, or numpy
reductions, would let a value depend in its last bits on where the block begins and on which other tokens are there.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from breakout_assets.dataset.indicators import LOOKBACK

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
STATIONARY_COLUMNS: Final = _PRICE_COLUMNS + _GRID_COLUMNS

# How much older than 24 or 168 hours a row may be that stands for a missing one.
LATE_HOURS: Final = 3

_HOUR: Final = timedelta(hours=1) // timedelta(microseconds=1)
_WINDOW: Final = LOOKBACK // timedelta(hours=1)
_PASS: Final = 168  # hours on one grid beside the 719 before them; fewer would fill the same cells more often
_BATCH: Final = 512  # tokens on one grid: its working part stays in the processor's cache
_MARKET_COLUMNS: Final = ("price", "volume", "cmc_rank", "num_market_pairs")
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
        published: what `window_indicators` made of them, which has also refused rows that cannot be.

    Returns:
        `STATIONARY_COLUMNS` (float64) with the index of `published`; NaN where the history is too short or too full
        of holes, and where a series stands still that others would be measured by. Never infinite.
    """
    token, names = pd.factorize(published["token"])
    asked = _Cells.of(published["timestamp"], token.astype(np.int64))
    read = _Cells.of(rows["timestamp"], names.get_indexer(pd.Index(rows["token"])).astype(np.int64))
    market = {name: rows[name].to_numpy(dtype=np.float64, na_value=np.nan) for name in _MARKET_COLUMNS}
    price = np.full(len(published), np.nan)
    values = np.full((len(published), len(_GRID_COLUMNS)), np.nan)
    first, stop = (int(asked.hour[0]), int(asked.hour[-1]) + 1) if len(published) else (0, 0)
    for begin in range(first, stop, _PASS):
        hours = min(_PASS, stop - begin)
        for low in range(0, len(names), _BATCH):
            high = min(low + _BATCH, len(names))
            place, *at = asked.within(begin, begin + hours, low, high)
            source, *cell = read.within(begin - _WINDOW + 1, begin + hours, low, high)
            grids = {}
            for name, column in market.items():
                grids[name] = np.full((_WINDOW - 1 + hours, high - low), np.nan)
                grids[name][tuple(cell)] = np.where(column[source] > 0, column[source], np.nan)
            price[place] = grids["price"][-hours:][tuple(at)]
            for number, block in enumerate(_on_grid(hours=hours, **grids)):
                values[place, number] = block[tuple(at)]
    by_price = pd.DataFrame(_by_price(published, price), index=published.index, columns=list(_PRICE_COLUMNS))
    return by_price.join(pd.DataFrame(values, index=published.index, columns=list(_GRID_COLUMNS)))


@dataclass(frozen=True)
class _Cells:
    """Which hour (since 1970) and which token, by number, each row of a frame is of; ordered by hour."""

    place: _Ints
    hour: _Ints
    token: _Ints

    @classmethod
    def of(cls, timestamp: pd.Series, token: _Ints) -> "_Cells":
        hour = timestamp.to_numpy().astype("datetime64[us]").astype(np.int64) // _HOUR
        place = np.argsort(hour, kind="stable")
        return cls(place, hour[place], token[place])

    def within(self, first: int, stop: int, low: int, high: int) -> tuple[_Ints, _Ints, _Ints]:
        """Rows from hour `first` to before `stop` of tokens `low` to before `high`: place in frame, line, column."""
        begin, end = np.searchsorted(self.hour, [first, stop])
        token = self.token[begin:end]
        inside = np.flatnonzero((token >= low) & (token < high)) + begin
        return self.place[inside], self.hour[inside] - first, self.token[inside] - low


def _by_price(published: pd.DataFrame, price: _Floats) -> dict[str, _Floats]:
    """The window indicators as shares of the price, or of each other."""
    of = {str(name): column.to_numpy() for name, column in published.items()}
    middle = of["sma_20"]
    deviation = (of["bollinger_hband"] - of["bollinger_lband"]) / 4  # each band is 2 deviations from the middle
    moving = deviation > _STILL * middle
    position = np.full(len(price), np.nan)
    return {
        **{f"log_price_sma_{rows}": np.log(price / of[f"sma_{rows}"]) for rows in (5, 10, 20)},
        "macd_price": of["MACD"] / price,
        "macd_signal_price": of["MACD_signal"] / price,
        "log_ema_9_21": np.log(of["EMA_9"] / of["EMA_21"]),
        "band_position": np.divide(price - middle, 2 * deviation, out=position, where=moving),
        "band_width": deviation / middle,
    }


def _on_grid(
    hours: int, price: _Floats, volume: _Floats, cmc_rank: _Floats, num_market_pairs: _Floats
) -> tuple[_Floats, ...]:
    """`_GRID_COLUMNS` of the newest `hours` lines, each (hours, tokens), from grids that begin 719 lines earlier."""
    # From one hour to the next and no further: two hours' change would weigh as much as it lasted.
    log_return = np.log(price[1:] / price[:-1])
    direction = np.sign(price[1:] - price[:-1])
    log_volume = np.log(volume)
    usual_volume = _mean(volume, 72, hours)
    volume_mean = _mean(log_volume, 168, hours)
    volume_deviation = _deviation(log_volume, volume_mean, 168, hours)
    volume_deviation[~(volume_deviation > _STILL)] = np.nan
    return (
        _total(log_return * volume[1:], 72, hours) / usual_volume,
        _total(direction * volume[1:], 72, hours) / usual_volume,
        (log_volume[-hours:] - volume_mean) / volume_deviation,
        _log_change(volume, 24, hours),
        _mean(log_volume, 24, hours) - _mean(log_volume, _WINDOW, hours),
        _log_change(price, 24, hours),
        _log_change(price, 168, hours),
        _deviation(log_return, _mean(log_return, 72, hours), 72, hours),
        _log_change(cmc_rank, 168, hours),
        _log_change(num_market_pairs, 168, hours),
    )


def _total(terms: _Floats, window: int, hours: int) -> _Floats:
    """For each of the newest `hours` lines the sum of what is known in the `window` lines that end there."""
    terms = terms[-(hours + window - 1) :]
    known = ~np.isnan(terms)
    terms = np.where(known, terms, 0.0)
    total = np.zeros((hours, terms.shape[1]))
    for line in range(window - 1, -1, -1):
        total += terms[line : line + hours]
    total[_count(known, window, hours) < _least(window)] = np.nan
    return total


def _mean(terms: _Floats, window: int, hours: int) -> _Floats:
    known = ~np.isnan(terms[-(hours + window - 1) :])
    return np.asarray(_total(terms, window, hours) / np.maximum(_count(known, window, hours), 1))


def _deviation(terms: _Floats, mean: _Floats, window: int, hours: int) -> _Floats:
    """The standard deviation (of the values, not an estimate for others) about the mean of the same windows."""
    terms = terms[-(hours + window - 1) :]
    known = ~np.isnan(terms)
    squares = np.zeros_like(mean)
    for line in range(window - 1, -1, -1):
        distance = np.where(known[line : line + hours], terms[line : line + hours] - mean, 0.0)
        distance *= distance
        squares += distance
    squares[np.isnan(mean)] = np.nan
    return np.asarray(np.sqrt(squares / np.maximum(_count(known, window, hours), 1)))


def _count(known: npt.NDArray[np.bool_], window: int, hours: int) -> _Ints:
    """How many of each window's lines are known; whole numbers, so here running totals are exact."""
    running = np.cumsum(known, axis=0, dtype=np.int64)
    count = running[-hours:].copy()
    count[1:] -= running[: hours - 1]
    return count


def _least(window: int) -> int:
    """Known hours that a window needs: 20 of 24, 60 of 72, 140 of 168, 600 of 720."""
    return window * 5 // 6


def _log_change(grid: _Floats, back: int, hours: int) -> _Floats:
    """The log change since `back` hours ago, or since the newest known value of the three hours before that."""
    newest = len(grid) - hours
    past = grid[newest - back :][:hours]
    for late in range(1, LATE_HOURS + 1):
        past = np.where(np.isnan(past), grid[newest - back - late :][:hours], past)
    return np.asarray(np.log(grid[newest:] / past))
