"""Labels: what a coin's price did in the five days after each observed hour (the query itself is `labels.sql`)."""

from datetime import datetime, timedelta
from importlib.resources import files
from typing import Final

import duckdb
import pandas as pd

from breakout_assets.market.schema import ORIGIN_CANDLES, ORIGIN_HISTORY
from breakout_assets.market.snapshots import believed, segments
from breakout_assets.tables import conform

HORIZON: Final = timedelta(hours=120)
# The published filters: rows beyond them are neither labelled nor traded.
UNIVERSE: Final[dict[str, int]] = {"percent_change_7d": 1000, "volume_change_24h": 1000, "cmc_rank": 1000}
LABELS_SQL: Final = (files("breakout_assets.dataset") / "labels.sql").read_text()


# What decides where a series breaks.
SEGMENT_COLUMNS: Final = ("token", "timestamp", "quarantine", "origin")


def label_rows(market: pd.DataFrame, between: pd.DataFrame, first: datetime, last: datetime) -> pd.DataFrame:
    """The labelled rows observed from `first` to `last` (whole hours, both included), by token and time.

    Args:
        market: Market rows of at least these hours and of the hours five days after each; quarantined ones are
            neither labelled nor used as a future price.
        between: `SEGMENT_COLUMNS` of all hours from `first` to five days after `last`.
        first: First hour to label.
        last: Last hour to label.

    Returns:
        Columns of `tables.LABELLED_DATASET`.
    """
    breaks = between.assign(segment=segments(between)).drop_duplicates(["token", "timestamp"], keep="last")
    snapshots = believed(market).merge(breaks[["token", "timestamp", "segment"]], on=["token", "timestamp"])
    with duckdb.connect() as connection:
        connection.register("snapshots", snapshots)
        labelled = connection.execute(LABELS_SQL).df()
    return conform(labelled[labelled["timestamp"].between(first, last)], "labelled_dataset")


def in_universe(rows: pd.DataFrame) -> pd.Series:
    """Which rows pass the published filters, as in the query: a null fails, but for a rank that nobody can know."""
    origin = rows["origin"].fillna("")
    unranked = rows["cmc_rank"].isna() & ((origin == ORIGIN_HISTORY) | origin.str.startswith(ORIGIN_CANDLES))
    inside = pd.Series(data=True, index=rows.index)
    for column, limit in UNIVERSE.items():
        passes = rows[column].astype("float64") <= limit
        inside &= passes | unranked if column == "cmc_rank" else passes
    return inside
