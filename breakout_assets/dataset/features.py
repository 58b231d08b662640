"""Indicator columns beside rows of the market: the same function for what is trained on and what is traded on."""

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from breakout_assets.dataset.indicators import INDICATOR_COLUMNS, LOOKBACK, window_indicators
from breakout_assets.dataset.stationary import stationary_indicators
from breakout_assets.market.schema import HOUR
from breakout_assets.market.snapshots import believed, segments

# What indicators read of a market row.
HISTORY_COLUMNS: Final = (
    "token",
    "timestamp",
    "price",
    "volume",
    "cmc_rank",
    "num_market_pairs",
    "quarantine",
    "origin",
)

_BREAK: Final = "|"  # between a token and the number of a later series of it


def days_of_look_back(day: date) -> Iterable[date]:
    """The day itself and every earlier day that a window of it reaches into, oldest first."""
    reach = LOOKBACK // timedelta(days=1)
    return [day - timedelta(days=n) for n in range(reach, -1, -1)]


def with_indicators(rows: pd.DataFrame, market: pd.DataFrame, first: datetime, last: datetime) -> pd.DataFrame:
    """`rows` (observed from `first` to `last`) with the published and the stationary indicators after their columns.

    Quarantined rows have none. `registry.INDICATORS` says what each is.

    `market` holds the market rows (`HISTORY_COLUMNS` at least) of the hours asked for and of the look-back before. No
    window reaches back over a break of the token's series, where prices or volumes cease to compare.
    """
    columns = [name for name in HISTORY_COLUMNS if name != "origin"]
    series = believed(market[columns].assign(token=_series(market)))
    published = window_indicators(series, (first, last))
    stationary = stationary_indicators(series, published)
    place = _places(rows, published, first, last)
    values = _beside(place, published[list(INDICATOR_COLUMNS)])
    del series, published  # of 90 days of 1,250 tokens each table of indicators has hundreds of megabytes
    values |= _beside(place, stationary)
    return pd.concat([rows.reset_index(drop=True), pd.DataFrame(values, copy=False)], axis=1)


def _beside(place: npt.NDArray[np.int64], table: pd.DataFrame) -> dict[str, npt.NDArray[np.float64]]:
    """The columns of a table at these places, NaN where they are negative."""
    if table.empty:
        return {str(name): np.full(len(place), np.nan) for name in table}
    missing = np.flatnonzero(place < 0)
    found = {str(name): column.to_numpy().take(place, mode="clip") for name, column in table.items()}
    for column in found.values():
        column[missing] = np.nan
    return found


def _places(rows: pd.DataFrame, published: pd.DataFrame, first: datetime, last: datetime) -> npt.NDArray[np.int64]:
    """For each row where its token and hour are in `published`; -1 where they are not."""
    hours = int((last - first) / HOUR) + 1
    begin = np.datetime64(first, "us")
    series, names = pd.factorize(published["token"])
    token, known = pd.factorize(rows["token"])
    # Each hour of a token is in one of its series only.
    of_series = known.get_indexer(pd.Index([name.partition(_BREAK)[0] for name in names]))
    places = np.full((len(known) + 1, hours), -1)
    places[of_series[series], _hours_since(begin, published)] = np.arange(len(published))
    places[-1] = -1  # where those of tokens were put that are not asked for, and where rows without a token look
    hour = _hours_since(begin, rows)
    inside = (hour >= 0) & (hour < hours)
    return np.where(inside, places[token, np.where(inside, hour, 0)], -1)


def _hours_since(begin: np.datetime64, rows: pd.DataFrame) -> npt.NDArray[np.int64]:
    return np.asarray((rows["timestamp"].to_numpy() - begin) // np.timedelta64(1, "h"), dtype=np.int64)


def _series(market: pd.DataFrame) -> pd.Series:
    """The token of each row, and after each break of it another name; no token has a `|` in it."""
    number = segments(market)
    if not number.any():
        return market["token"]
    return market["token"].where(number == 0, market["token"] + _BREAK + number.astype("str"))
