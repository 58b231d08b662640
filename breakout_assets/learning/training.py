"""From labelled rows with indicators to a fitted model, or to the reason why there is none.

One function trains what serves and what is validated. The newest fifth of the rows is held out: an estimator that has
not seen them scores them, and from these scores come the metrics, the calibration and the threshold. Then the estimator
is fitted once more on all rows, since the newest fifth of what is known would otherwise never be learned from.

Training is deterministic: the same rows give the same model in any row order, in any process, whatever was trained
before. It knows nothing that was not known at its cut-off: later rows do not reach a single number of the model.
"""

import hashlib
import math
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Literal, TypeAlias

import numpy as np
import pandas as pd
from imblearn.over_sampling import SMOTE
from scipy.special import expit
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from breakout_assets.errors import DataError
from breakout_assets.learning.admission import shortcomings
from breakout_assets.learning.calibration import Platt, fit_platt
from breakout_assets.learning.evaluation import Classes, Floats, Metrics, evaluate
from breakout_assets.learning.recipes import Recipe
from breakout_assets.learning.splits import Split, ordered_split
from breakout_assets.learning.statistics import hours_of, independent_windows
from breakout_assets.learning.thresholds import choose_threshold

Scope = Literal["token", "pooled"]
Classifier: TypeAlias = RandomForestClassifier | LogisticRegression
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
    classifier: Classifier
    calibration: Platt | None
    """From the classifier's score to a probability; None leaves the score as it is."""
    own_threshold: float | None
    """The probability from which on buying paid on the held-out rows; None: from none on. The recipe's fixed one where
    its rule is `fixed`."""
    seed: int
    """Of SMOTE, and of the forest where the recipe has none of its own."""
    data_hash: str
    """16 hexadecimal digits of the SHA-256 of the rows trained on."""
    trained_from: datetime
    """The first observed hour."""
    trained_until: datetime
    """The latest price the model has seen: the last label's end, five days after the last observed hour."""
    rows: int
    positives: int
    dropped: Dropped
    metrics: Metrics
    importances: pd.Series
    """Share of a forest's impurity reduction, or of a regression's absolute coefficients, by feature, largest first."""
    admission: tuple[str, ...]
    """Codes of `admission.SHORTCOMINGS`: why there is too little behind the model for it to speak about its token."""
    model_hash: str | None = None
    """SHA-256 of the model file, which predictions cite; None until the model has been loaded from one."""
    held_out: pd.DataFrame | None = None
    """The newest fifth as the estimator saw it that had not been trained on it: `token`, `timestamp`, `y`, `change`
    (percent; where the rows had it) and `probability`. Not kept in files."""
    serves: bool = True
    """False for a refresh that was worse than the generation before it; it is kept to be looked at."""

    @property
    def expires_at(self) -> datetime:
        """From this hour on the model no longer speaks: markets have moved on from what it has seen."""
        return self.trained_until + timedelta(days=self.recipe.expires_days)

    def probabilities(self, rows: pd.DataFrame) -> Floats:
        """The probability of a breakout for each row, rounded to 1e-9; arguments and errors as `scores`."""
        scores = self.scores(rows)
        return scores if self.calibration is None else self.calibration.apply(scores)

    def scores(self, rows: pd.DataFrame) -> Floats:
        """What the classifier itself says of each row, before calibration.

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
                "no number that a model can judge; leave the row out"
            )
        return _score(self.classifier, scaled)


def fit(rows: pd.DataFrame, recipe: Recipe, scope: Scope, name: str, as_of: datetime | None = None) -> FittedModel:
    """Train a model by a recipe.

    Args:
        rows: `indicator_features` rows of one token (`scope` token) or of many (pooled), in any order. Where the
            recipe looks for the threshold that pays, with `cal_price_change`.
        recipe: how to train.
        scope: what `rows` are.
        name: the model's name; together with the recipe it decides the seed.
        as_of: the cut-off, naive UTC: only labels that had ended by then are used. None uses every label.

    Raises:
        NotTrainable: there are too few rows, classes or positives.
        DataError: rows contradict their contract: a column is absent, an hour is there twice, a label is null.
    """
    every_hour, dropped = usable_rows(rows, recipe, as_of)
    usable = _spread(every_hour, recipe)
    dropped = replace(dropped, thinned=len(every_hour) - len(usable))
    if scope == "token" and every_hour["token"].nunique() > 1:
        tokens = every_hour["token"].nunique()
        raise DataError(f"{name}: a model of one token was given rows of {tokens}; pool or separate")
    if len(every_hour) < recipe.min_rows:
        raise NotTrainable(
            "TOO_FEW_ROWS",
            f"{name} has {len(every_hour)} usable labelled rows; recipe {recipe.name} needs {recipe.min_rows}",
        )
    values, y = feature_values(usable, recipe.features), usable["y"].to_numpy(dtype=np.int64)
    seed = recipe.seed_for(name)
    split = ordered_split(usable["timestamp"], usable["label_end"], recipe.test_share, recipe.purge)
    scores = _held_out_scores(values, y, split, recipe, name)
    windows = independent_windows(hours_of(usable["timestamp"].iloc[split.test]))
    calibration = fit_platt(scores, y[split.test], windows) if recipe.calibration == "platt" else None
    held_out = _held_out(usable.iloc[split.test], scores if calibration is None else calibration.apply(scores))
    scaler, classifier = _fit_classifier(values, y, recipe, seed)
    return FittedModel(
        name=name,
        scope=scope,
        recipe=recipe,
        scaler=scaler,
        classifier=classifier,
        calibration=calibration,
        own_threshold=(
            recipe.threshold if recipe.threshold_rule == "fixed" else choose_threshold(held_out, recipe.cost, seed)
        ),
        seed=seed,
        data_hash=_data_hash(usable, recipe),
        trained_from=usable["timestamp"].min().to_pydatetime(),
        trained_until=usable["label_end"].max().to_pydatetime(),
        rows=len(usable),
        positives=int(y.sum()),
        dropped=dropped,
        metrics=evaluate(
            y[split.test], scores, usable["timestamp"].iloc[split.test], recipe.threshold, len(split.train)
        ),
        importances=_importances(classifier, recipe),
        admission=shortcomings(every_hour),
        held_out=held_out,
    )


def _held_out_scores(values: Floats, y: Classes, split: Split, recipe: Recipe, name: str) -> Floats:
    """Scores of the test part by a classifier that has not seen it."""
    _check_trainable(y[split.train], recipe, name)
    scaler, classifier = _fit_classifier(values[split.train], y[split.train], recipe, recipe.seed_for(name))
    return _score(classifier, _scaled(scaler, values[split.test]))


def _held_out(rows: pd.DataFrame, probability: Floats) -> pd.DataFrame:
    columns = ["token", "timestamp", "y", *(["cal_price_change"] if "cal_price_change" in rows else [])]
    table = rows[columns].rename(columns={"cal_price_change": "change"})
    return table.assign(probability=probability).reset_index(drop=True)


def _data_hash(usable: pd.DataFrame, recipe: Recipe) -> str:
    """What a model was trained on: keys, labels and features, bit by bit."""
    digest = hashlib.sha256("\n".join(usable["token"]).encode())
    for column in ("timestamp", "label_end"):
        digest.update(usable[column].to_numpy(dtype="datetime64[us]").tobytes())
    digest.update(usable["y"].to_numpy(dtype=np.int8).tobytes())
    digest.update(feature_values(usable, recipe.features).tobytes())
    return digest.hexdigest()[:16]


def _importances(classifier: Classifier, recipe: Recipe) -> pd.Series:
    if isinstance(classifier, RandomForestClassifier):
        weight = classifier.feature_importances_
    else:
        size = np.abs(classifier.coef_[0])
        weight = size / size.sum() if size.sum() > 0 else size
    shares = pd.Series(weight, index=pd.Index(recipe.features), name="importance", dtype="float64")
    return shares.sort_values(ascending=False, kind="stable")


def usable_rows(rows: pd.DataFrame, recipe: Recipe, as_of: datetime | None) -> tuple[pd.DataFrame, Dropped]:
    """The rows a recipe may learn from at a cut-off, sorted by (timestamp, token) and with fixed types.

    Raises:
        DataError: a column is absent, a labelled row has no label, or a token has an hour twice.
    """
    # What buying brought is required only where a threshold is to be found.
    extra = ("cal_price_change",) if recipe.threshold_rule == "profit" or "cal_price_change" in rows else ()
    columns = list(dict.fromkeys(("token", "timestamp", "label_end", "y", *extra, *recipe.features)))
    _require(rows, (*columns, "label_status"))
    known = rows["label_status"].eq("labelled").to_numpy(dtype=bool, na_value=False)
    if as_of is not None:
        known = known & rows["label_end"].le(as_of).to_numpy()
    last = rows["timestamp"][known].max()
    later = int((rows["timestamp"] > last).sum()) if known.any() else len(rows)
    # Copies with fixed types: bytes of a fit must not depend on what a reader made of a column.
    usable = rows[known][columns].astype({"token": "str", "timestamp": "datetime64[us]", "label_end": "datetime64[us]"})
    _check_labels(usable, unique=not recipe.by_symbol)
    with np.errstate(over="ignore"):
        single = feature_values(usable, recipe.features).astype(np.float32)
    finite = np.logical_and.reduce(np.isfinite(single), axis=1)
    return usable.loc[finite].sort_values(["timestamp", "token"], ignore_index=True), Dropped(
        later=later, censored=len(rows) - int(known.sum()) - later, not_finite=int((~finite).sum()), thinned=0
    )


def _spread(usable: pd.DataFrame, recipe: Recipe) -> pd.DataFrame:
    """The rows of every n-th hour of the day, and of fewer where these are still too many."""
    if recipe.hour_step > 1:
        usable = usable[usable["timestamp"].dt.hour % recipe.hour_step == 0].reset_index(drop=True)
    return _thinned(usable, recipe.max_rows)


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


def _fit_classifier(values: Floats, y: Classes, recipe: Recipe, seed: int) -> tuple[StandardScaler, Classifier]:
    if recipe.resample:
        # Before scaling, as published: the neighbours are those in the columns with the largest numbers.
        values, y = SMOTE(random_state=seed).fit_resample(values, y)
    scaler = StandardScaler().fit(values)
    classifier: Classifier
    if recipe.estimator == "logistic":
        classifier = LogisticRegression(max_iter=1000)
    else:
        classifier = RandomForestClassifier(
            n_estimators=recipe.n_estimators,
            max_depth=recipe.max_depth,
            min_samples_split=recipe.min_samples_split,
            min_samples_leaf=recipe.min_samples_leaf,
            random_state=seed if recipe.seed is None else recipe.seed,
            n_jobs=1,  # more threads add up the trees in the order in which they finish
        )
    with threadpool_limits(1):  # likewise the threads of the linear algebra below a regression
        return scaler, classifier.fit(scaler.transform(values), y)


def _scaled(scaler: StandardScaler, values: Floats) -> Floats:
    """Scaled features; infinite where the 32-bit floats of a forest cannot hold them."""
    with np.errstate(over="ignore", invalid="ignore"):
        scaled: Floats = (values - scaler.mean_) / scaler.scale_
        scaled[np.isinf(scaled.astype(np.float32))] = np.inf
    return scaled


def _score(classifier: Classifier, scaled: Floats) -> Floats:
    """P(y = 1), as `predict_proba` has it but without its checks, which take 15 times as long for one row."""
    if isinstance(classifier, LogisticRegression):
        # Column by column: a matrix product may add up in another order for another number of rows.
        logit = np.full(len(scaled), float(classifier.intercept_[0]))
        for column, weight in enumerate(classifier.coef_[0]):
            logit += weight * scaled[:, column]
        probability: Floats = expit(logit)
        return np.round(probability, PROBABILITY_DIGITS)
    total: Floats = np.zeros(len(scaled))
    if 1 not in classifier.classes_:
        return total
    breakout, single = list(classifier.classes_).index(1), scaled.astype(np.float32)
    for estimator in classifier.estimators_:
        total += estimator.tree_.predict(single)[:, breakout]
    return np.round(total / len(classifier.estimators_), PROBABILITY_DIGITS)
