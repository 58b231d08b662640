"""Labels: what a coin's price did in the five days after each observed hour (the query itself is `labels.sql`)."""

from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from importlib.resources import files
from typing import Final

import duckdb
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from breakout_assets.coded_text import categories_of, text_of
from breakout_assets.market.history import day_bounds
from breakout_assets.market.schema import ORIGIN_CANDLES, ORIGIN_HISTORY
from breakout_assets.market.snapshots import segments
from breakout_assets.tables import DAILY_SNAPSHOTS, LABELLED_DATASET, conform

HORIZON: Final = timedelta(hours=120)
# The published filters: rows beyond them are neither labelled nor traded.
UNIVERSE: Final[dict[str, int]] = {"percent_change_7d": 1000, "volume_change_24h": 1000, "cmc_rank": 1000}
LABELS_SQL: Final = (files("breakout_assets.dataset") / "labels.sql").read_text()
# What decides where a series breaks.
SEGMENT_COLUMNS: Final = ("token", "timestamp", "quarantine", "origin")
# What stands of a market row in its labelled one.
_KEPT: Final = tuple(name for name in LABELLED_DATASET if name in DAILY_SNAPSHOTS)
# What is read of a market row.
MARKET_COLUMNS: Final = (*_KEPT, "quarantine")
# What the query asks of a row, and what it adds to it.
_ASKED: Final = ("timestamp", "price", "percent_change_7d", "volume_change_24h", "cmc_rank", "origin")
_STATUS: Final = "label_status"
_MADE: Final = tuple(name for name in LABELLED_DATASET if name not in DAILY_SNAPSHOTS and name != _STATUS)
# The status as one of two words, which are then written once and not once a row.
_QUERY: Final = f"""
SELECT row, {", ".join(_MADE)}, {_STATUS}::ENUM ('labelled', 'censored') AS {_STATUS}
FROM ({LABELS_SQL}) WHERE timestamp BETWEEN ? AND ?
"""  # noqa: S608  constant names


def label_rows(market: pd.DataFrame, between: pd.DataFrame, first: datetime, last: datetime) -> pd.DataFrame:
    """The labelled rows observed from `first` to `last` (whole hours, both included), by token and time.

    Args:
        market: Market rows (`MARKET_COLUMNS` at least) of these hours and of the hours five days after each;
            quarantined ones are neither labelled nor used as a future price.
        between: `SEGMENT_COLUMNS` of all hours from `first` to five days after `last`.
        first: First hour to label.
        last: Last hour to label.

    Returns:
        Columns of `tables.LABELLED_DATASET`.
    """
    with duckdb.connect() as connection:
        labels = _labels(market, between, first, last, connection)
    return _rows_of(market, labels, _order(labels["token"], labels["hour"]))


def label_days(
    market: pd.DataFrame, between: pd.DataFrame, days: Sequence[date], connection: duckdb.DuckDBPyConnection
) -> Iterator[tuple[date, pd.DataFrame]]:
    """Each of these days, which are in order, with its `label_rows`; all of them are joined at once.

    The `connection`, in which nothing is left behind, keeps memory from one call for the next, which saves a third.
    """
    labels = _labels(market, between, day_bounds(days[0])[0], day_bounds(days[-1])[1], connection)
    order = _order(labels["hour"] // 24, labels["token"], labels["hour"])
    day = labels["hour"].to_numpy()[order] // 24
    for each in days:  # one by one, in memory that the day before has left
        number = np.datetime64(each, "D").astype(np.int64)
        begin, end = (int(np.searchsorted(day, number, side)) for side in ("left", "right"))
        yield each, _rows_of(market, labels, order[begin:end])


def _order(*by: pd.Series) -> npt.NDArray[np.int64]:
    """Where rows stand when they are sorted by whole numbers, the first of which counts most."""
    key = np.zeros(len(by[0]), dtype=np.int64)
    for column in by:
        # One number a row, and rows in long runs already: sorting by several numbers would take ten times as long.
        numbers = column.to_numpy()
        least = int(numbers.min(initial=0))
        key *= int(numbers.max(initial=0)) - least + 1
        key += numbers
        key -= least
    return np.argsort(key, kind="stable")


def _rows_of(market: pd.DataFrame, labels: pd.DataFrame, part: npt.NDArray[np.int64]) -> pd.DataFrame:
    row = labels["row"].to_numpy()[part]
    columns = {name: _picked(market[name], row) for name in _KEPT}
    columns |= {name: labels[name].array.take(part) for name in _MADE}
    status = labels[_STATUS].cat
    columns[_STATUS] = status.categories.array.take(status.codes.to_numpy()[part])
    return conform(pd.DataFrame({name: columns[name] for name in LABELLED_DATASET}, copy=False), "labelled_dataset")


def _picked(column: pd.Series, place: npt.NDArray[np.int64]) -> pd.api.extensions.ExtensionArray:
    if isinstance(column.array, pd.Categorical):
        return text_of(column.array, place)
    found: pd.api.extensions.ExtensionArray = column.array.take(place)
    return found


def _labels(
    market: pd.DataFrame,
    between: pd.DataFrame,
    first: datetime,
    last: datetime,
    connection: duckdb.DuckDBPyConnection,
) -> pd.DataFrame:
    """What the query adds, with each row's place in `market` (`row`), the rank of its token, and `hour` since 1970."""
    token = categories_of(market["token"]).cat.codes.to_numpy()
    segment = _segment_of(market, between)
    snapshots = pa.table(
        {
            # Names are nothing to join or to carry through a query: it gets their ranks, and the number of the row.
            "row": np.arange(len(market)),
            "token": token,
            "segment": segment,
            "believed": market["quarantine"].isna().to_numpy() & (segment >= 0),
            **{name: pa.array(market[name], from_pandas=True) for name in _ASKED},
        }
    )
    connection.register("market", snapshots)
    try:
        connection.execute("CREATE OR REPLACE TEMP VIEW snapshots AS SELECT * FROM market WHERE believed")
        found = connection.sql(_QUERY, params=[first, last]).to_arrow_table()
    finally:
        connection.execute("DROP VIEW IF EXISTS snapshots")
        connection.unregister("market")
    labels: pd.DataFrame = found.to_pandas(types_mapper={pa.int32(): pd.Int8Dtype()}.get)
    row = labels["row"].to_numpy()
    hour = market["timestamp"].to_numpy()[row].astype("datetime64[h]").astype(np.int64)
    return labels.assign(token=token[row], hour=hour)


def _segment_of(market: pd.DataFrame, between: pd.DataFrame) -> npt.NDArray[np.int32]:
    """The segment of each market row; -1 where it is not known."""
    number = segments(between)
    found = np.zeros(len(market), dtype=np.int32)
    if not number.any():
        return found
    broken = between["token"][number > 0].unique()
    breaks = between.assign(segment=number)[between["token"].isin(broken)]
    breaks = breaks.drop_duplicates(["token", "timestamp"], keep="last")[["token", "timestamp", "segment"]]
    hit = market["token"].isin(broken).to_numpy()
    joined = market.loc[hit, ["token", "timestamp"]].merge(breaks, on=["token", "timestamp"], how="left")
    found[hit] = joined["segment"].fillna(-1).to_numpy()
    return found


def in_universe(rows: pd.DataFrame) -> pd.Series:
    """Which rows pass the published filters, as in the query: a null fails, but for a rank that nobody can know."""
    origin = rows["origin"].fillna("")
    unranked = rows["cmc_rank"].isna() & ((origin == ORIGIN_HISTORY) | origin.str.startswith(ORIGIN_CANDLES))
    inside = pd.Series(data=True, index=rows.index)
    for column, limit in UNIVERSE.items():
        passes = rows[column].astype("float64") <= limit
        inside &= passes | unranked if column == "cmc_rank" else passes
    return inside
