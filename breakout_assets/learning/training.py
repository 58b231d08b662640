"""From labelled rows with indicators to a fitted model, or to the reason why there is none.

Training is deterministic: the same rows give the same model in any row order, in any process, whatever was trained
before. It knows nothing that was not known at its cut-off: later rows do not reach a single number of the model.
"""

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from imblearn.over_sampling import SMOTE
from sklearn.ensemble import RandomForestClassifier
from sklearn.preprocessing import StandardScaler

from breakout_assets.errors import DataError
from breakout_assets.learning.evaluation import Classes, Floats, Metrics, evaluate
from breakout_assets.learning.recipes import Recipe
from breakout_assets.learning.splits import ordered_split

Scope = Literal["token", "pooled"]
Reason = Literal["TOO_FEW_ROWS", "ONE_CLASS", "TOO_FEW_POSITIVES"]

# SMOTE places new rows between a row and its five nearest neighbours of the same class.
SMOTE_MINIMUM: Final = 6
# Sums over trees differ in the last bits between ways of adding them up; a threshold must not see that.
PROBABILITY_DIGITS: Final = 9


class NotTrainable(DataError):  # noqa: N818  it is an answer for a token, not a defect
    """These rows cannot make a model: `code` is for tables, the message is for people."""

    def __init__(self, code: Reason, sentence: str) -> None:
        super().__init__(code, sentence)  # both, or the error could not travel between processes
        self.code = code
        self.sentence = sentence

    def __str__(self) -> str:
        return f"{self.sentence} ({self.code})"


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
    """Left out evenly in time because there were more than the recipe's `max_rows`."""


@dataclass(frozen=True, eq=False)
class FittedModel:
    """What predicts, and how it came about. `metrics` belong to a twin fitted on the earlier rows only."""

    name: str
    """The token, or the pooled model's name."""
    scope: Scope
    recipe: Recipe
    scaler: StandardScaler
    forest: RandomForestClassifier
    seed: int
    """Of SMOTE, and of the forest where the recipe has none of its own."""
    trained_from: datetime
    """The first observed hour."""
    trained_until: datetime
    """The latest price the model has seen: the last label's end, five days after the last observed hour."""
    rows: int
    positives: int
    dropped: Dropped
    metrics: Metrics
    importances: pd.Series
    """Share of the forest's impurity reduction, by feature, largest first."""
    model_hash: str | None = None
    """SHA-256 of the model file, which predictions cite; None until the model has been loaded from one."""

    def probabilities(self, rows: pd.DataFrame) -> Floats:
        """The probability of a breakout for each row, rounded to 1e-9.

        Args:
            rows: the recipe's features, and `token` and `timestamp` for messages; any number of rows.

        Raises:
            DataError: a feature is absent, null, infinite or out of a float's range; the message names the first.
        """
        values = feature_values(rows, self.recipe.features)
        scaled = _scaled(self.scaler, values)
        if not np.isfinite(scaled).all():
            row, column = np.argwhere(~np.isfinite(scaled))[0]
            feature = self.recipe.features[column]
            raise DataError(
                f"{rows['token'].iloc[row]} at {rows['timestamp'].iloc[row]}: {feature} is {values[row, column]}, "
                "no number that a forest can judge; leave the row out"
            )
        return _forest_probability(self.forest, scaled)


def fit(rows: pd.DataFrame, recipe: Recipe, scope: Scope, name: str, as_of: datetime | None = None) -> FittedModel:
    """Train a model by a recipe.

    The recipe is first fitted on the earlier rows and scored on the later ones: those are the model's `metrics`.
    Then it is fitted once more on all usable rows, and that second fit is what serves: the newest fifth of what is
    known would otherwise never be learned from.

    Args:
        rows: `indicator_features` rows of one token (`scope` token) or of many (pooled), in any order.
        recipe: how to train.
        scope: what `rows` are.
        name: the model's name; together with the recipe it decides the seed.
        as_of: the cut-off, naive UTC: only labels that had ended by then are used. None uses every label.

    Raises:
        NotTrainable: there are too few rows, classes or positives.
        DataError: rows contradict their contract: a column is absent, an hour is there twice, a label is null.
    """
    usable, dropped = usable_rows(rows, recipe, as_of)
    if scope == "token" and usable["token"].nunique() > 1:
        raise DataError(f"{name}: a model of one token was given rows of {usable['token'].nunique()}; pool or separate")
    if len(usable) < recipe.min_rows:
        raise NotTrainable(
            "TOO_FEW_ROWS",
            f"{name} has {len(usable)} usable labelled rows; recipe {recipe.name} needs {recipe.min_rows}",
        )
    values, y = feature_values(usable, recipe.features), usable["y"].to_numpy(dtype=np.int64)
    metrics = _scored_on_later_rows(usable, values, y, recipe, name)
    scaler, forest = _fit_forest(values, y, recipe, recipe.seed_for(name))
    importances = pd.Series(
        forest.feature_importances_, index=pd.Index(recipe.features), name="importance", dtype="float64"
    )
    return FittedModel(
        name=name,
        scope=scope,
        recipe=recipe,
        scaler=scaler,
        forest=forest,
        seed=recipe.seed_for(name),
        trained_from=usable["timestamp"].min().to_pydatetime(),
        trained_until=usable["label_end"].max().to_pydatetime(),
        rows=len(usable),
        positives=int(y.sum()),
        dropped=dropped,
        metrics=metrics,
        importances=importances.sort_values(ascending=False, kind="stable"),
    )


def _scored_on_later_rows(usable: pd.DataFrame, values: Floats, y: Classes, recipe: Recipe, name: str) -> Metrics:
    split = ordered_split(usable["timestamp"], usable["label_end"], recipe.test_share, recipe.purge)
    _check_trainable(y[split.train], recipe, name)
    scaler, forest = _fit_forest(values[split.train], y[split.train], recipe, recipe.seed_for(name))
    return evaluate(
        y[split.test],
        _forest_probability(forest, _scaled(scaler, values[split.test])),
        usable["timestamp"].iloc[split.test],
        recipe.threshold,
        train_rows=len(split.train),
    )


def usable_rows(rows: pd.DataFrame, recipe: Recipe, as_of: datetime | None) -> tuple[pd.DataFrame, Dropped]:
    """The rows a recipe may learn from at a cut-off, sorted by (timestamp, token) and with fixed types.

    Raises:
        DataError: a column is absent, a labelled row has no label, or a token has an hour twice.
    """
    _require(rows, ("token", "timestamp", "label_end", "y", "label_status", *recipe.features))
    known = rows["label_status"].eq("labelled").to_numpy(dtype=bool, na_value=False)
    if as_of is not None:
        known = known & rows["label_end"].le(as_of).to_numpy()
    last = rows["timestamp"][known].max()
    later = int((rows["timestamp"] > last).sum()) if known.any() else len(rows)
    # Copies with fixed types: bytes of a fit must not depend on what a reader made of a column.
    usable = rows[known][["token", "timestamp", "label_end", "y", *recipe.features]].astype(
        {"token": "str", "timestamp": "datetime64[us]", "label_end": "datetime64[us]"}
    )
    _check_labels(usable)
    with np.errstate(over="ignore"):
        single = feature_values(usable, recipe.features).astype(np.float32)
    finite = np.logical_and.reduce(np.isfinite(single), axis=1)
    usable = usable.loc[finite].sort_values(["timestamp", "token"], ignore_index=True)
    kept = _thinned(usable, recipe.max_rows)
    return kept, Dropped(
        later=later,
        censored=len(rows) - int(known.sum()) - later,
        not_finite=int((~finite).sum()),
        thinned=len(usable) - len(kept),
    )


def feature_values(rows: pd.DataFrame, features: tuple[str, ...]) -> Floats:
    """The features as a float64 array, a row a row and a column a feature; nulls are NaN.

    Raises:
        DataError: a feature is absent.
    """
    _require(rows, features)
    values: Floats = rows[list(features)].to_numpy(dtype=np.float64, na_value=np.nan)
    return np.ascontiguousarray(values)


def _require(rows: pd.DataFrame, columns: tuple[str, ...]) -> None:
    missing = [column for column in columns if column not in rows]
    if missing:
        raise DataError(f"the rows lack the columns {', '.join(missing)}; compute them before training or predicting")


def _check_labels(labelled: pd.DataFrame) -> None:
    wrong = labelled[~labelled["y"].isin([0, 1]).to_numpy() | labelled["label_end"].isna().to_numpy()]
    if len(wrong):
        row = wrong.iloc[0]
        raise DataError(
            f"{row['token']} at {row['timestamp']} is marked as labelled with y = {row['y']} and label_end = "
            f"{row['label_end']}; materialise labelled_dataset again"
        )
    # A row that is there twice would count twice, and nothing says which of the two comes first.
    twice = labelled[labelled.duplicated(["token", "timestamp"])]
    if len(twice):
        row = twice.iloc[0]
        raise DataError(f"{row['token']} has the hour {row['timestamp']} more than once; remove the duplicates")


def _thinned(rows: pd.DataFrame, max_rows: int) -> pd.DataFrame:
    """Every k-th hour with all its tokens, the smallest k that leaves at most `max_rows`; neighbours hardly differ."""
    rows_at = rows["timestamp"].value_counts().sort_index()
    step = max(1, math.ceil(len(rows) / max_rows))
    while rows_at.iloc[::step].sum() > max_rows and step < len(rows_at):
        step += 1
    if step == 1:
        return rows
    return rows[rows["timestamp"].isin(rows_at.index[::step])].reset_index(drop=True)


def _check_trainable(y: Classes, recipe: Recipe, name: str) -> None:
    if not len(y):
        raise NotTrainable("TOO_FEW_ROWS", f"{name}: no label had ended before the test part begins")
    positives = int(y.sum())
    rarer = min(positives, len(y) - positives)
    if rarer == 0:
        raise NotTrainable("ONE_CLASS", f"{name}: all {len(y)} rows of the training part have y = {y[0]}")
    if recipe.resample and rarer < SMOTE_MINIMUM:
        raise NotTrainable(
            "TOO_FEW_POSITIVES",
            f"{name}: the rarer class has {rarer} of the {len(y)} rows of the training part; "
            f"resampling needs {SMOTE_MINIMUM}",
        )


def _fit_forest(values: Floats, y: Classes, recipe: Recipe, seed: int) -> tuple[StandardScaler, RandomForestClassifier]:
    if recipe.resample:
        # Before scaling, as published: the neighbours are those in the columns with the largest numbers.
        values, y = SMOTE(random_state=seed).fit_resample(values, y)
    scaler = StandardScaler().fit(values)
    forest = RandomForestClassifier(
        n_estimators=recipe.n_estimators,
        max_depth=recipe.max_depth,
        min_samples_split=recipe.min_samples_split,
        random_state=seed if recipe.seed is None else recipe.seed,
        n_jobs=1,  # more threads add up the trees in the order in which they finish
    )
    return scaler, forest.fit(scaler.transform(values), y)


def _scaled(scaler: StandardScaler, values: Floats) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows becomes infinite, which callers look for
        scaled: npt.NDArray[np.float32] = ((values - scaler.mean_) / scaler.scale_).astype(np.float32)
    return scaled


def _forest_probability(forest: RandomForestClassifier, scaled: npt.NDArray[np.float32]) -> Floats:
    """P(y = 1), as `predict_proba` adds it up but without its checks, which take 15 times as long for one row."""
    total = np.zeros(len(scaled))
    if 1 not in forest.classes_:
        return total
    breakout = list(forest.classes_).index(1)
    for estimator in forest.estimators_:
        total += estimator.tree_.predict(scaled)[:, breakout]
    return np.round(total / len(forest.estimators_), PROBABILITY_DIGITS)
