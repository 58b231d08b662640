"""Labels: what a coin's price did in the five days after each observed hour (the query itself is `labels.sql`)."""

from datetime import datetime, timedelta
from importlib.resources import files
from typing import Final

import duckdb
import pandas as pd

from breakout_assets.market.snapshots import believed
from breakout_assets.tables import conform

HORIZON: Final = timedelta(hours=120)
# The published filters: rows beyond them are neither labelled nor traded.
UNIVERSE: Final[dict[str, int]] = {"percent_change_7d": 1000, "volume_change_24h": 1000, "cmc_rank": 1000}
LABELS_SQL: Final = (files("breakout_assets.dataset") / "labels.sql").read_text()


def label_rows(market: pd.DataFrame, first: datetime, last: datetime) -> pd.DataFrame:
    """The labelled rows observed from `first` to `last` (whole hours, both included), by token and time.

    `market` holds market rows of at least these hours and of the hours five days after each; quarantined ones are
    neither labelled nor used as a future price. Columns are those of `tables.LABELLED_DATASET`.
    """
    snapshots = believed(market)
    with duckdb.connect() as connection:
        connection.register("snapshots", snapshots)
        labelled = connection.execute(LABELS_SQL).df()
    return conform(labelled[labelled["timestamp"].between(first, last)], "labelled_dataset")


def in_universe(rows: pd.DataFrame) -> pd.Series:
    """Which rows pass the published filters; a null fails, as it does in the query."""
    inside = pd.Series(data=True, index=rows.index)
    for column, limit in UNIVERSE.items():
        inside &= rows[column].astype("float64") <= limit
    return inside
