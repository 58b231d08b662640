"""Indicator columns beside rows of the market: the same function for what is trained on and what is traded on."""

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import Final

import pandas as pd

from breakout_assets.dataset.indicators import LOOKBACK, window_indicators
from breakout_assets.dataset.stationary import stationary_indicators
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
    series = believed(market.assign(series=_series(market)))
    names = series[["series", "token"]].drop_duplicates().set_index("series")["token"]
    series = series.assign(token=series["series"])
    published = window_indicators(series, (first, last))
    indicators = published.join(stationary_indicators(series, published))
    indicators["token"] = indicators["token"].map(names).astype("str")
    return rows.merge(indicators, on=["token", "timestamp"], how="left", validate="m:1")


def _series(market: pd.DataFrame) -> pd.Series:
    """The token of each row, and after each break of it another name; no token has a `|` in it."""
    number = segments(market)
    if not number.any():
        return market["token"]
    return market["token"].where(number == 0, market["token"] + "|" + number.astype("str"))
