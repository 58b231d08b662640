"""Indicator columns beside rows of the market: the same function for what is trained on and what is traded on."""

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import Final

import pandas as pd

from breakout_assets.dataset.indicators import INDICATOR_COLUMNS, LOOKBACK, window_indicators
from breakout_assets.market.snapshots import believed

# What indicators read of a market row.
HISTORY_COLUMNS: Final = ("token", "timestamp", "price", "volume", "quarantine")


def days_of_look_back(day: date) -> Iterable[date]:
    """The day itself and every earlier day that a window of it reaches into, oldest first."""
    reach = LOOKBACK // timedelta(days=1)
    return [day - timedelta(days=n) for n in range(reach, -1, -1)]


def with_indicators(rows: pd.DataFrame, market: pd.DataFrame, first: datetime, last: datetime) -> pd.DataFrame:
    """`rows` (observed from `first` to `last`) with the indicator columns, null for quarantined rows.

    `market` holds the market rows (`HISTORY_COLUMNS` at least) of the hours asked for and of the look-back before.
    """
    indicators = window_indicators(believed(market), (first, last))
    return rows.merge(
        indicators[["token", "timestamp", *INDICATOR_COLUMNS]], on=["token", "timestamp"], how="left", validate="m:1"
    )
