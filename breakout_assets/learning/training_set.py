"""The rows that models are trained on, out of the stored days of `indicator_features`."""

import hashlib
from collections.abc import Sequence

import pandas as pd

from breakout_assets.errors import DataError
from breakout_assets.market.snapshots import believed, origin_class
from breakout_assets.store import Store


def tokens_with_history(store: Store, rows_needed: int) -> list[str]:
    """The tokens that have at least this many labelled rows, by name."""
    days = store.days_of("indicator_features")
    if not days:
        return []
    rows = store.read_table("indicator_features", days, ["token", "label_status"])
    counts = rows.loc[rows["label_status"] == "labelled", "token"].value_counts()
    return sorted(str(token) for token in counts[counts >= rows_needed].index)


def training_rows(store: Store, tokens: Sequence[str] | None = None) -> pd.DataFrame:
    """All stored rows of `indicator_features`, of all tokens or of some, by token and time."""
    rows = store.read_table("indicator_features", store.days_of("indicator_features"), tokens=tokens)
    return rows.sort_values(["token", "timestamp"], kind="stable", ignore_index=True)


def evaluation_rows(
    store: Store, most_tokens: int, rows_needed: int, *, market: bool = True
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What recipes are evaluated on: `indicator_features` rows of some tokens, and their believed market rows.

    Args:
        store: where both are.
        most_tokens: at most so many tokens, those of `sampled`.
        rows_needed: labelled rows that a token must have.
        market: False leaves the market rows out.

    Raises:
        DataError: no token has enough rows.
    """
    tokens = sampled(tokens_with_history(store, rows_needed), most_tokens)
    if not tokens:
        raise DataError(f"no token has {rows_needed} labelled hours; materialise indicator_features of more days")
    rows, origin = of_one_origin(training_rows(store, tokens), rows_needed)
    if not market:
        return rows, rows.iloc[:0]
    prices = believed(store.read_table("daily_snapshots", store.days_of("daily_snapshots"), tokens=tokens))
    return rows, prices[origin_class(prices["origin"]) == origin].reset_index(drop=True)


def sampled(tokens: Sequence[str], most: int) -> list[str]:
    """At most so many of these tokens, the same ones whenever they are there: by the hash of their symbols.

    A choice by rank or volume would look ahead: it is known only today which coins became large. Coins that share a
    symbol are taken together, since mixing them is one of the defects to be measured.
    """
    by_hash = sorted(tokens, key=lambda token: (hashlib.sha256(token.rsplit("-", 1)[0].encode()).digest(), token))
    return sorted(by_hash[:most])


def rows_of_symbol(store: Store, symbol: str) -> pd.DataFrame:
    """All stored rows of `indicator_features` of the coins that have this symbol."""
    days = store.days_of("indicator_features")
    known = store.read_table("indicator_features", days, ["token", "symbol"]).drop_duplicates()
    return training_rows(store, sorted(set(known.loc[known["symbol"] == symbol, "token"])))


def of_one_origin(rows: pd.DataFrame, rows_needed: int) -> tuple[pd.DataFrame, str]:
    """The rows of one source, and which: a venue's volumes are on another level than the whole market's.

    The source of the newest row, which is the one that is predicted for, if it has as many labelled rows as a model
    needs; else the source with the most rows.
    """
    origins = origin_class(rows["origin"])
    if origins.nunique() <= 1:
        return rows, str(origins.iloc[0]) if len(rows) else ""
    labelled = origins[rows["label_status"] == "labelled"].value_counts()
    newest = str(origins.to_numpy()[rows["timestamp"].to_numpy().argmax()])
    chosen = newest if labelled.get(newest, 0) >= rows_needed else str(origins.value_counts().index[0])
    return rows[origins == chosen].reset_index(drop=True), chosen
