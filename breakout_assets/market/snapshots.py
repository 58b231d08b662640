"""From raw rows to market rows: typed, keyed by token, each with the reasons why it must not be used, if any."""

from typing import Final, Literal

import numpy as np
import pandas as pd

from breakout_assets.market.gates import judge
from breakout_assets.market.schema import ORIGIN_LISTING
from breakout_assets.market.tokens import TokenRegistry, assign_tokens
from breakout_assets.store import Store
from breakout_assets.tables import conform

SPLIT: Final = "SPLIT_SUSPECT"  # the gate's word for the first row in new units


def market_rows(store: Store, registry: TokenRegistry, raw: pd.DataFrame) -> pd.DataFrame:
    """The market rows of a raw frame of any hours, by hour and token, not judged yet: `quarantine` is null.

    Tokens that have not been seen before are added to the registry in the store.
    """
    rows = raw.rename(columns={"volume_24h": "volume"}).fillna({"symbol": "", "name": ""})
    rows["token"] = assign_tokens(store, registry, rows)
    rows["quarantine"] = None
    return conform(in_order(rows, "timestamp"), "daily_snapshots")


def in_order(rows: pd.DataFrame, by: Literal["token", "timestamp"]) -> pd.DataFrame:
    """Market rows by token and time, or by time and token; rows of one token and hour stay as they are."""
    token = pd.factorize(rows["token"], sort=True)[0]  # comparing 30,000 names would take ten times as long
    keys = [rows["timestamp"].to_numpy(), token]
    return rows.take(np.lexsort(keys if by == "token" else keys[::-1])).reset_index(drop=True)


def judged(rows: pd.DataFrame, context: pd.DataFrame) -> pd.DataFrame:
    """The market rows with their quarantine reasons; `context` holds the rows of `gates.context_hours`."""
    return conform(rows.assign(quarantine=judge(rows, context)), "daily_snapshots")


def believed(rows: pd.DataFrame) -> pd.DataFrame:
    """The market rows that may be used: one a token and hour."""
    return rows[rows["quarantine"].isna()]


def origin_class(origin: pd.Series) -> pd.Series:
    """What may stand in one series: all that CoinMarketCap said, each venue's candles, the simulated market.

    Files of the older collector do not say; they are listings.
    """
    codes, names = pd.factorize(origin, use_na_sentinel=False)  # there are few, whatever the number of rows
    named = pd.Series(names, dtype="str").fillna(ORIGIN_LISTING)
    classes = named.where(~named.str.startswith(f"{ORIGIN_LISTING}:"), ORIGIN_LISTING)
    return classes.take(codes).set_axis(origin.index)


def segments(rows: pd.DataFrame) -> pd.Series:
    """A number for each row that is higher than that of the token's earlier rows if these do not compare with it.

    A series breaks where its units change (SPLIT_SUSPECT) and where its rows begin to come from another source, whose
    volumes have another level. `rows` has token, timestamp, quarantine and origin, quarantined rows included.
    """
    doubted = np.flatnonzero(rows["quarantine"].notna())
    split = np.zeros(len(rows), dtype=bool)
    split[doubted] = rows["quarantine"].iloc[doubted].str.contains(SPLIT)
    codes, names = pd.factorize(rows["origin"], use_na_sentinel=False)
    classes, origins = pd.factorize(origin_class(pd.Series(names, dtype="str")))
    if not split.any() and len(origins) <= 1:
        return pd.Series(0, index=rows.index, dtype="int32")
    origin = classes[codes]
    token = pd.factorize(rows["token"])[0]
    order = np.lexsort((rows["timestamp"].to_numpy(), token))
    token, origin = token[order], origin[order]
    begins = np.diff(token, prepend=-1) != 0
    breaks = (split[order] | ((np.diff(origin, prepend=origin[:1]) != 0) & ~begins)).astype(np.int64)
    running = np.cumsum(breaks)
    number = np.empty(len(rows), dtype=np.int64)
    number[order] = running - (running - breaks)[begins][np.cumsum(begins) - 1]
    return pd.Series(number, index=rows.index, dtype="int32")
