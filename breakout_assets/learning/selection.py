"""Which of the labelled rows a model is trained on.

Rows count only once their label was known at the cut-off, and only where a forest can take every feature. Of these a
recipe may leave out hours, always whole ones and evenly in time. What is left out still counts as evidence: whether a
model may speak is judged by every hour.
"""

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from breakout_assets.errors import DataError
from breakout_assets.learning.recipes import Recipe

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

# A column of rows whose reader has looked at their features already, so that rows without them can be chosen from.
FINITE: Final = "finite"
_KEYS: Final = ("token", "timestamp", "label_end", "y")
# What buying brought is required only where a threshold is to be found.
_CHANGE: Final = "cal_price_change"


@dataclass(frozen=True)
class Dropped:
    """How many of the rows given were not used, and why."""

    later: int
    """Observed after the last row whose label was known at the cut-off. 0 in a model that comes from a file: what
    the store happened to hold beyond the cut-off is no property of the model."""
    censored: int
    """Old enough, but the token's later price is missing or was not known at the cut-off."""
    not_finite: int
    """A feature is null, infinite or too large for the forest's 32-bit floats."""
    thinned: int
    """Left out evenly in time: the recipe takes some hours of the day only, or there were more than `max_rows`."""


@dataclass(frozen=True, eq=False)
class Selection:
    """What a model is trained on, and what is known of the rest."""

    rows: pd.DataFrame
    """Keys, labels and those features that were given, sorted by (timestamp, token) and with fixed types."""
    every_hour: pd.DataFrame
    """`token`, `timestamp` and `y` of all rows that could have been trained on, in the order given."""
    dropped: Dropped


def select(rows: pd.DataFrame, recipe: Recipe, as_of: datetime | None = None) -> Selection:
    """The rows that a recipe learns from at a cut-off.

    Args:
        rows: `indicator_features` rows in any order. Features may be absent where the column `finite` says whether
            all of a row's are numbers; the selection then lacks them, too.
        recipe: how to train.
        as_of: the cut-off, naive UTC: only labels that had ended by then are used. None uses every label.

    Raises:
        DataError: a column is absent, a labelled row has no label, or a token has an hour twice.
    """
    extra = (_CHANGE,) if recipe.threshold_rule == "profit" or _CHANGE in rows else ()
    features = [feature for feature in recipe.features if feature in rows] if FINITE in rows else recipe.features
    columns = list(dict.fromkeys((*_KEYS, *extra, *features)))
    require(rows, (*columns, "label_status"))
    known = rows["label_status"].eq("labelled").to_numpy(dtype=bool, na_value=False)
    if as_of is not None:
        known = known & rows["label_end"].le(as_of).to_numpy()
    _check_labels(rows.loc[known, list(_KEYS)], unique=not recipe.by_symbol)
    finite = rows[FINITE].to_numpy(dtype=bool) if FINITE in rows else finite_rows(rows, recipe.features)
    usable = known & finite
    kept = usable.copy()
    kept[usable] = _spread(rows.loc[usable, "timestamp"], recipe)
    later = int((rows["timestamp"] > rows["timestamp"][known].max()).sum()) if known.any() else len(rows)
    return Selection(
        rows=_typed(rows.loc[kept, columns]),
        every_hour=rows.loc[usable, ["token", "timestamp", "y"]],
        dropped=Dropped(
            later=later,
            censored=len(rows) - int(known.sum()) - later,
            not_finite=int(known.sum()) - int(usable.sum()),
            thinned=int(usable.sum()) - int(kept.sum()),
        ),
    )


def _typed(rows: pd.DataFrame) -> pd.DataFrame:
    """Copies with fixed types in a fixed order: bytes of a fit must not depend on what a reader made of a column."""
    typed = rows.astype({"token": "str", "timestamp": "datetime64[us]", "label_end": "datetime64[us]"})
    return typed.sort_values(["timestamp", "token"], ignore_index=True)


def finite_rows(rows: pd.DataFrame, features: tuple[str, ...]) -> Mask:
    """Which rows a forest can take: every feature is a number that 32 bits can hold.

    Raises:
        DataError: a feature is absent.
    """
    require(rows, features)
    finite: Mask = np.ones(len(rows), dtype=bool)
    with np.errstate(over="ignore"):
        for feature in features:  # one after the other: a matrix of all rows and features would double the memory
            values = rows[feature].to_numpy(dtype=np.float64, na_value=np.nan)
            finite &= np.isfinite(values.astype(np.float32))
    return finite


def require(rows: pd.DataFrame, columns: tuple[str, ...]) -> None:
    """Refuse rows that lack a column.

    Raises:
        DataError: with the names of those that are absent.
    """
    missing = [column for column in columns if column not in rows]
    if missing:
        raise DataError(f"the rows lack the columns {', '.join(missing)}; compute them before training or predicting")


def _check_labels(labelled: pd.DataFrame, *, unique: bool) -> None:
    wrong = labelled[~labelled["y"].isin([0, 1]).to_numpy() | labelled["label_end"].isna().to_numpy()]
    if len(wrong):
        row = wrong.iloc[0]
        raise DataError(
            f"{row['token']} at {row['timestamp']} is marked as labelled with y = {row['y']} and label_end = "
            f"{row['label_end']}; materialise labelled_dataset again"
        )
    # A row that is there twice would count twice, and nothing says which of the two comes first.
    twice = labelled[labelled.duplicated(["token", "timestamp"])]
    if unique and len(twice):
        row = twice.iloc[0]
        raise DataError(f"{row['token']} has the hour {row['timestamp']} more than once; remove the duplicates")


def _spread(hours: pd.Series, recipe: Recipe) -> Mask:
    """Which rows are kept: those of every n-th hour of the day, and of fewer where these are still too many.

    Every k-th hour with all its tokens, the smallest k that leaves at most `max_rows`; neighbours hardly differ.
    """
    kept: Mask = (hours.dt.hour % recipe.hour_step == 0).to_numpy(dtype=bool)
    rows_at = hours[kept].value_counts().sort_index()
    step = max(1, math.ceil(rows_at.sum() / recipe.max_rows))
    while rows_at.iloc[::step].sum() > recipe.max_rows and step < len(rows_at):
        step += 1
    chosen: Mask = hours.isin(rows_at.index[::step]).to_numpy(dtype=bool)
    return kept & chosen


def feature_values(rows: pd.DataFrame, features: tuple[str, ...]) -> Floats:
    """The features as a float64 array, a row a row and a column a feature; nulls are NaN.

    Raises:
        DataError: a feature is absent.
    """
    require(rows, features)
    values: Floats = rows[list(features)].to_numpy(dtype=np.float64, na_value=np.nan)
    return np.ascontiguousarray(values)
