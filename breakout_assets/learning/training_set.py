"""The rows that models are trained on, out of the stored days of `indicator_features`."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from breakout_assets.errors import DataError
from breakout_assets.learning.recipes import Recipe
from breakout_assets.learning.selection import FINITE, Selection, finite_rows, select
from breakout_assets.market.snapshots import believed, origin_class
from breakout_assets.store import Store

# What selections are made by, beside the features.
_KEYS: Final = ("token", "timestamp", "label_end", "y", "label_status", "origin", "cal_price_change")
# Days that are in memory at once while shards are written: a quarter of a GB with a thousand tokens, however long the
# history is.
DAYS_AT_ONCE: Final = 10


def tokens_with_history(store: Store, rows_needed: int) -> list[str]:
    """The tokens that have at least this many labelled rows, by name."""
    counts = store.count("indicator_features", store.days_of("indicator_features"), ["token", "label_status"])
    enough = (counts["label_status"] == "labelled") & (counts["n"] >= rows_needed)
    return sorted(counts.loc[enough, "token"].tolist())


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
    newest = rows.loc[rows["timestamp"] == rows["timestamp"].max(), "token"].astype("str")
    first = str(origins[newest.idxmin()])  # of several the first token's: the order of rows must not decide
    most = origins.value_counts().sort_index().sort_values(ascending=False, kind="stable")
    chosen = first if labelled.get(first, 0) >= rows_needed else str(most.index[0])
    return rows[origins == chosen].reset_index(drop=True), chosen


def write_shards(
    store: Store, features: tuple[str, ...], shards: Sequence[Sequence[str]], folder: Path, *, others: bool
) -> list[Path]:
    """Read `indicator_features` once, some days at a time, into files that hold some tokens each.

    Processes that train side by side each read their own, and no process ever holds the whole history.

    Args:
        store: where the rows are.
        features: those that models are trained on.
        shards: the tokens of each file.
        folder: for the files; about as many bytes as the columns have in the store.
        others: write a last file with the rows of all other tokens.

    Returns:
        A Parquet file a shard: keys, labels, features and `finite` (`selection.finite_rows`).
    """
    tokens = {token: number for number, some in enumerate(shards) for token in some}
    paths = [folder / f"{number}.parquet" for number in range(len(shards) + others)]
    with ExitStack() as stack:
        writers: list[pq.ParquetWriter] = []
        for rows in _some_days(store, features, None if others else list(tokens)):
            schema = pa.Schema.from_pandas(rows, preserve_index=False)
            writers = writers or [stack.enter_context(pq.ParquetWriter(path, schema)) for path in paths]
            number = rows["token"].map(tokens).fillna(len(shards)).astype("int64")
            for file, part in rows.groupby(number, sort=False):
                writers[file].write_table(pa.Table.from_pandas(part, schema, preserve_index=False))
    return paths


def _some_days(store: Store, features: tuple[str, ...], tokens: Sequence[str] | None) -> Iterator[pd.DataFrame]:
    days = store.days_of("indicator_features")
    for first in range(0, max(len(days), 1), DAYS_AT_ONCE):
        some = days[first : first + DAYS_AT_ONCE]
        rows = store.read_table("indicator_features", some, dict.fromkeys((*_KEYS, *features)), tokens)
        yield rows.assign(**{FINITE: finite_rows(rows, features)})


def pooled_selection(files: Sequence[Path], recipe: Recipe, as_of: datetime | None) -> tuple[Selection, str]:
    """What the pooled model is trained on, out of all files of `write_shards`, and its source (`of_one_origin`).

    Features are read of the hours alone that are trained on. Of a year of a thousand tokens these are one in three
    hundred, and all of it would take gigabytes.
    """
    keys, origin = of_one_origin(_keys_of(files), recipe.min_rows)
    selection = select(keys, recipe, as_of)
    rows = _rows_at(files, selection.rows["timestamp"].unique())
    rows = rows[origin_class(rows["origin"]) == origin]
    # The hours are whole ones: what is selected of them alone is what is selected of them among all.
    return replace(selection, rows=select(rows, recipe, as_of).rows), origin


def _keys_of(files: Sequence[Path]) -> pd.DataFrame:
    """All rows without their features; names that repeat are kept once, or they would be most of what is kept."""
    columns, repeated = [*_KEYS, FINITE], ["token", "label_status"]
    parts = [pq.read_table(file, columns=columns, read_dictionary=repeated) for file in files]
    keys: pd.DataFrame = pa.concat_tables(parts).unify_dictionaries().to_pandas(self_destruct=True)
    return keys


def _rows_at(files: Sequence[Path], hours: npt.NDArray[np.datetime64]) -> pd.DataFrame:
    """All columns of the rows of some hours; what else the files hold is dropped piece by piece."""
    wanted, found = pa.array(hours), []
    for file in files:
        with pq.ParquetFile(file) as parquet:
            schema = parquet.schema_arrow
            found += [rows.filter(pc.is_in(rows["timestamp"], wanted)) for rows in parquet.iter_batches()]
    frame: pd.DataFrame = pa.Table.from_batches(found, schema).to_pandas()
    return frame
