"""From raw rows to market rows: typed, keyed by token, each with the reason why it must not be used, if any.

A row is judged by its own hour alone, never by what came later, so that the row that was traded on and the row that
is trained on are the same.
"""

from typing import Final

import numpy as np
import pandas as pd

from breakout_assets.market.tokens import TokenRegistry, assign_tokens
from breakout_assets.store import Store
from breakout_assets.tables import conform

# Reasons to keep a row but never to use it, with what they mean.
QUARANTINE_REASONS: Final[dict[str, str]] = {
    "IDENTITY_MISSING": "the row has no id, and no symbol or no name either: nobody can tell which coin it is",
    "PRICE_MISSING": "the price is absent or not a finite number",
    "PRICE_NOT_POSITIVE": "the price is zero or negative",
    "VOLUME_IMPOSSIBLE": "the 24-hour volume is negative or infinite; an absent one is allowed",
    "DUPLICATE": "the coin is in the hour already; the row that came first counts",
    "AMBIGUOUS_IDENTITY": "rows without an id share symbol and name but not their values: two coins, or a faulty file",
}


def market_rows(store: Store, registry: TokenRegistry, raw: pd.DataFrame) -> pd.DataFrame:
    """The market rows of a raw frame of any hours, by hour and token; rows that must not be used carry their reasons.

    Tokens that have not been seen before are added to the registry in the store.
    """
    rows = raw.rename(columns={"volume_24h": "volume"}).fillna({"symbol": "", "name": ""})
    rows["token"] = assign_tokens(store, registry, rows)
    rows = rows.sort_values(["timestamp", "token"], kind="stable", ignore_index=True)
    rows["quarantine"] = _reasons(rows)
    return conform(rows, "daily_snapshots")


def believed(rows: pd.DataFrame) -> pd.DataFrame:
    """The market rows that may be used: one a token and hour."""
    return rows[rows["quarantine"].isna()]


def _reasons(rows: pd.DataFrame) -> pd.Series:
    price = rows["price"].to_numpy()
    volume = rows["volume"].to_numpy()
    impossible = (volume < 0) | np.isinf(volume)
    nameless = (rows["id"].isna() & ((rows["symbol"] == "") | (rows["name"] == ""))).to_numpy()
    usable = np.isfinite(price) & (price > 0) & ~impossible & ~nameless
    priced = rows[usable]
    key = ["timestamp", "token"]
    # Copies of one row are one coin listed twice; different values under one name cannot be told apart.
    without_id = priced["id"].isna() & priced.duplicated(key, keep=False)
    differing = pd.Series(data=False, index=priced.index)
    if without_id.any():
        differing = without_id & (priced.groupby(key)["price"].transform("nunique") > 1)
    duplicate = priced.duplicated(key) & ~differing
    # A row has at most one; the first that fits counts, in the order of QUARANTINE_REASONS.
    checks = [
        nameless,
        ~np.isfinite(price),
        np.isfinite(price) & (price <= 0),
        impossible,
        duplicate.reindex(rows.index, fill_value=False),
        differing.reindex(rows.index, fill_value=False),
    ]
    return pd.Series(np.select(checks, list(QUARANTINE_REASONS), default=""), index=rows.index, dtype="str").replace(
        "", None
    )
