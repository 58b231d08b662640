"""Indicator columns beside rows of the market: the same function for what is trained on and what is traded on."""

from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from breakout_assets.dataset.indicators import INDICATOR_COLUMNS, LOOKBACK, Asked, window_values
from breakout_assets.dataset.panel import Panel
from breakout_assets.dataset.stationary import MARKET_COLUMNS, STATIONARY_COLUMNS, reach, stationary_values
from breakout_assets.market.schema import HOUR
from breakout_assets.market.snapshots import segments

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
    earlier = LOOKBACK // timedelta(days=1)
    return [day - timedelta(days=n) for n in range(earlier, -1, -1)]


def with_indicators(rows: pd.DataFrame, market: pd.DataFrame, first: datetime, last: datetime) -> pd.DataFrame:
    """`rows` (observed from `first` to `last`) with the published and the stationary indicators after their columns.

    Quarantined rows have none. `registry.INDICATORS` says what each is.

    `market` holds the market rows (`HISTORY_COLUMNS` at least) of the hours asked for and of the look-back before. No
    window reaches back over a break of the token's series, where prices or volumes cease to compare.
    """
    hours = int((last - first) / HOUR) + 1
    begin = int(np.datetime64(first, "h").astype(np.int64))
    end = begin + hours - 1
    series, kept = _series(market), market["quarantine"].isna().to_numpy()
    from_day, to_day = reach(begin, end)
    panel = Panel.of(series, MARKET_COLUMNS, from_day, to_day, kept)
    asked, published = window_values(panel, begin, end)
    stationary = stationary_values(panel, asked.token, asked.hour, dict(zip(INDICATOR_COLUMNS, published, strict=True)))
    place = _places(rows, panel.names, asked, begin, hours)
    del series, panel, asked  # of 90 days of 1,250 tokens each table of indicators has hundreds of megabytes
    values = _beside(place, INDICATOR_COLUMNS, published)
    del published
    values |= _beside(place, STATIONARY_COLUMNS, stationary)
    return pd.concat([rows.reset_index(drop=True), pd.DataFrame(values, copy=False)], axis=1)


def _series(market: pd.DataFrame) -> pd.DataFrame:
    """The market rows with a token for each stretch of a series without a break; no token's name has a `|` in it."""
    number = segments(market)
    if not number.any():
        return market
    name = market["token"].astype("str")
    return market.assign(token=name.where(number == 0, name + _BREAK + number.astype("str")))


def _beside(
    place: npt.NDArray[np.int64], names: Sequence[str], columns: npt.NDArray[np.float64]
) -> dict[str, npt.NDArray[np.float64]]:
    """The columns at these places, NaN where they are negative."""
    if not columns.shape[1]:
        return {name: np.full(len(place), np.nan) for name in names}
    missing = np.flatnonzero(place < 0)
    found = {name: column.take(place, mode="clip") for name, column in zip(names, columns, strict=True)}
    for column in found.values():
        column[missing] = np.nan
    return found


def _places(rows: pd.DataFrame, names: pd.Index, asked: Asked, begin: int, hours: int) -> npt.NDArray[np.int64]:
    """For each row where its token and hour are among the asked ones; -1 where they are not."""
    token, known = pd.factorize(rows["token"])
    # Each hour of a token is in one of its series only.
    of_series = known.get_indexer(pd.Index([name.partition(_BREAK)[0] for name in names]))
    places = np.full((len(known) + 1, hours), -1)
    places[of_series[asked.token], asked.hour - begin] = np.arange(len(asked.hour))
    places[-1] = -1  # where those of tokens were put that are not asked for, and where rows without a token look
    hour = rows["timestamp"].to_numpy().astype("datetime64[h]").astype(np.int64) - begin
    inside = (hour >= 0) & (hour < hours)
    return np.where(inside, places[token, np.where(inside, hour, 0)], -1)
