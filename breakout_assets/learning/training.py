"""From labelled rows with indicators to a fitted model, or to the reason why there is none.

One function trains what serves and what is validated. The newest fifth of the rows is held out: an estimator that has
not seen them scores them, and from these scores come the metrics, the calibration and the threshold. Then the estimator
is fitted once more on all rows, since the newest fifth of what is known would otherwise never be learned from.

Training is deterministic: the same rows give the same model in any row order, in any process, whatever was trained
before. It knows nothing that was not known at its cut-off: later rows do not reach a single number of the model.
"""

import hashlib
from dataclasses import dataclass
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
from breakout_assets.learning.selection import Dropped, Selection, feature_values, select
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
    return fit_selection(select(rows, recipe, as_of), recipe, scope, name)


def fit_selection(selection: Selection, recipe: Recipe, scope: Scope, name: str) -> FittedModel:
    """Train a model on rows that have been selected; arguments and errors as `fit`."""
    usable, every_hour = selection.rows, selection.every_hour
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
    # One thread: more add up in the order in which they finish, and processes side by side would contend for cores.
    with threadpool_limits(1):
        scores = _held_out_scores(values, y, split, recipe, name)
        scaler, classifier = _fit_classifier(values, y, recipe, seed)
    windows = independent_windows(hours_of(usable["timestamp"].iloc[split.test]))
    calibration = fit_platt(scores, y[split.test], windows) if recipe.calibration == "platt" else None
    held_out = _held_out(usable.iloc[split.test], scores if calibration is None else calibration.apply(scores))
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
        data_hash=_data_hash(usable, values),
        trained_from=usable["timestamp"].min().to_pydatetime(),
        trained_until=usable["label_end"].max().to_pydatetime(),
        rows=len(usable),
        positives=int(y.sum()),
        dropped=selection.dropped,
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


def _data_hash(usable: pd.DataFrame, values: Floats) -> str:
    """What a model was trained on: keys, labels and features, bit by bit."""
    digest = hashlib.sha256("\n".join(usable["token"]).encode())
    for column in ("timestamp", "label_end"):
        digest.update(usable[column].to_numpy(dtype="datetime64[us]").tobytes())
    digest.update(usable["y"].to_numpy(dtype=np.int8).tobytes())
    digest.update(values.tobytes())
    return digest.hexdigest()[:16]


def _importances(classifier: Classifier, recipe: Recipe) -> pd.Series:
    if isinstance(classifier, RandomForestClassifier):
        weight = classifier.feature_importances_
    else:
        size = np.abs(classifier.coef_[0])
        weight = size / size.sum() if size.sum() > 0 else size
    shares = pd.Series(weight, index=pd.Index(recipe.features), name="importance", dtype="float64")
    return shares.sort_values(ascending=False, kind="stable")


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
            n_jobs=1,
        )
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
