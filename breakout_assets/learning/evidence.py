"""Everything a report says about a method, from its table of out-of-sample predictions and from nothing else.

A row of the table is a labelled row of a test part (`tables.OUT_OF_SAMPLE`); twin 0 is the market itself, the others
are placebo twins of it. Intervals are nominal 95 % from a bootstrap of calendar windows (`statistics`); there are none
where the table has too few independent windows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
import pandas as pd

from breakout_assets.errors import DataError
from breakout_assets.learning.baselines import baselines
from breakout_assets.learning.placebo import placebo_p
from breakout_assets.learning.statistics import (
    ENOUGH_WINDOWS,
    Floats,
    Hours,
    WindowDraws,
    benjamini_hochberg,
    bin_of,
    brier,
    brier_skill,
    draw_windows,
    episodes,
    expected_calibration_error,
    grouped_auc,
    hours_of,
    pooled_auc,
    uniqueness,
)
from breakout_assets.learning.thresholds import break_even_precision, net_interval, threshold_curve, trades_of

PUBLISHED_THRESHOLD: Final = 0.60
STRIKING_AUC: Final = 0.89  # the published figure of a single token
SIGNIFICANT: Final = 0.05
# An uncalibrated forest after oversampling misses by .20, a calibrated one by .03 to .05 in simulations. In between
# lies what the base rate itself moves by from one month to the next.
ECE_LIMIT: Final = 0.10
BINS: Final = 10

_NUMBERS: Final = ("change", "price", "raw", "probability")
_COLUMNS: Final = (
    *("twin", "fold", "recipe_id", "token", "timestamp", "label_end", "y", "momentum", "threshold", "logistic"),
    *_NUMBERS,
)


@dataclass(frozen=True)
class Interval:
    """A value and where it may really lie; None: not enough independent data to say."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Scores:
    """What flagging from a threshold on would have meant. Zeros where nothing is flagged, but for the accuracy."""

    threshold: float | None
    """Where folds or models have their own: the median over the rows; None where none of them found one that pays."""
    flagged_share: float
    precision: Interval
    recall: float
    f1: float
    accuracy: float
    lift: float
    """Precision over base rate."""
    trades: int
    """Flagged rows that are bought: a token is held once."""
    net_per_trade: Interval
    net_sum: float
    """In stakes: every trade has the same."""
    achieved_break_even: float
    """The precision at which buying the flagged rows would have earned nothing; NaN where all or none of them rose."""
    max_drawdown: float
    """The deepest fall of the running sum of trades below its highest, at the hours of their exits; in stakes."""


@dataclass(frozen=True)
class Placebo:
    """The pooled AUC on the market against that on its twins, on the hours that the twins hold."""

    twins: tuple[float, ...]
    """Without those whose labels are all the same, where it is undefined."""
    observed: float
    mean: float
    """NaN without twins, as `sd` with fewer than two."""
    sd: float
    p: float | None
    """None without twins or where `observed` is undefined."""


@dataclass(frozen=True)
class Verdict:
    """Whether there is evidence of a tradable signal, and every reason against it.

    TOO_FEW_WINDOWS: fewer than 15 independent windows. NO_TWINS: nothing to compare with. PLACEBO: noise does as well
    in 5 % of the cases or more. NOT_PROFITABLE: no interval of a trade's net result that lies above 0. CALIBRATION:
    probabilities miss by more than `ECE_LIMIT`. REFERENCE_ONLY: a recipe that is kept for comparison.
    """

    badge: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The evidence about one recipe."""

    recipe_id: str
    first_hour: datetime
    last_hour: datetime
    evaluated_until: datetime
    """The last price that was looked at."""
    rows: int
    tokens: int
    positives: int
    episodes: int
    """Separate rises, summed over tokens."""
    independent_labels: float
    """Sum of the labels' uniqueness within their tokens."""
    windows: int
    """Independent windows in calendar time; more tokens do not make more of them."""
    base_rate: Interval
    auc: Interval
    """Pooled over tokens and time."""
    logistic_auc: Interval
    auc_quartiles: tuple[float, float, float]
    """Of the tokens' AUCs; NaN where none is defined."""
    mean_probability: float
    brier: float
    brier_skill: float
    ece_raw: float
    ece: float
    own: Scores
    """At the thresholds of the folds' own models."""
    published: Scores
    """The estimator's own score at 0.60."""
    baselines: pd.DataFrame
    """`name, auc, precision, flagged_share, trades, net_per_trade, low, high`; see `baselines.baselines`."""
    per_token: pd.DataFrame
    """`token, rows, positives, episodes, auc, q_value, precision, flagged`, sorted by token; precision at the own
    threshold. The q-value compares with all tokens of all twins; NaN without twins."""
    curve: pd.DataFrame
    """`thresholds.threshold_curve` of the probability."""
    calibration: pd.DataFrame
    """`bin, rows, predicted, observed, low, high`, one row a bin of equal width that holds rows."""
    placebo: Placebo
    tokens_at_least_089: int
    """Tokens with an AUC of .89 or more; on the twins' hours where there are twins."""
    expected_at_least_089: float | None
    """The mean number of such tokens in a twin."""
    verdict: Verdict


def evaluate_table(table: pd.DataFrame, *, cost: float, reference_only: bool, seed: int = 0) -> Evaluation:
    """Evaluate a table of out-of-sample predictions.

    Args:
        table: columns of `tables.OUT_OF_SAMPLE`, in any order of rows.
        cost: of a round trip, share of the money.
        reference_only: the recipe is kept for comparison and gets no badge.
        seed: of the draws; the same seed gives the same evaluation.

    Raises:
        DataError: a column is absent, twin 0 is empty, a token has an hour twice in a twin, y is not 0 or 1, a label
            ends before its hour, recipes are mixed, or a number is missing that must be there.
    """
    _check(table)
    table = table.sort_values(["twin", "timestamp", "token"], ignore_index=True)
    real, twins = table[table["twin"] == 0], table[table["twin"] != 0]
    hours, y = hours_of(real["timestamp"]), real["y"].to_numpy(dtype=np.int64)
    probability, raw = real["probability"].to_numpy(), real["raw"].to_numpy()
    draws = draw_windows(hours, seed=seed)
    own = _scores(real, real["threshold"].to_numpy(dtype=np.float64), cost, draws)
    at_published = np.full(len(real), PUBLISHED_THRESHOLD)
    observed = real[real["timestamp"].isin(twins["timestamp"])] if len(twins) else real
    observed_aucs, twin_aucs = token_aucs(observed), token_aucs(twins)
    per_token = _per_token(real, observed_aucs, twin_aucs)
    placebo = _placebo(observed, twins)
    ece = expected_calibration_error(y, probability, BINS)
    return Evaluation(
        recipe_id=str(real["recipe_id"].iloc[0]),
        first_hour=real["timestamp"].min().to_pydatetime(),
        last_hour=real["timestamp"].max().to_pydatetime(),
        evaluated_until=real["label_end"].max().to_pydatetime(),
        rows=len(real),
        tokens=len(per_token),
        positives=int(y.sum()),
        episodes=int(per_token["episodes"].sum()),
        independent_labels=_independent_labels(real),
        windows=draws.windows,
        base_rate=_ratio(draws, hours, y.astype(np.float64), np.ones(len(y))),
        auc=_auc(draws, hours, y, probability),
        logistic_auc=_auc_where_known(draws, hours, y, real["logistic"].to_numpy(dtype=np.float64)),
        auc_quartiles=_quartiles(per_token["auc"].to_numpy()),
        mean_probability=float(probability.mean()),
        brier=brier(y, probability),
        brier_skill=brier_skill(y, probability),
        ece_raw=expected_calibration_error(y, raw, BINS),
        ece=ece,
        own=own,
        published=_scores(real.assign(probability=raw), at_published, cost, draws),
        baselines=baselines(real, own=trades_of(real, real["threshold"].to_numpy(), cost), cost=cost, draws=draws),
        per_token=per_token,
        curve=threshold_curve(real, cost, seed=seed),
        calibration=_calibration(hours, y, probability, draws),
        placebo=placebo,
        tokens_at_least_089=int((observed_aucs >= STRIKING_AUC).sum()),
        expected_at_least_089=float((twin_aucs >= STRIKING_AUC).sum()) / twins["twin"].nunique()
        if len(twins)
        else None,
        verdict=verdict(draws.windows, placebo, own, ece, reference_only=reference_only),
    )


def verdict(windows: int, placebo: Placebo, own: Scores, ece: float, *, reference_only: bool) -> Verdict:
    """The badge, or all reasons why there is none."""
    against = {
        "TOO_FEW_WINDOWS": windows < ENOUGH_WINDOWS,
        "NO_TWINS": not placebo.twins,
        "PLACEBO": bool(placebo.twins) and (placebo.p is None or placebo.p >= SIGNIFICANT),
        "NOT_PROFITABLE": own.net_per_trade.low is None or own.net_per_trade.low <= 0,
        "CALIBRATION": ece > ECE_LIMIT,
        "REFERENCE_ONLY": reference_only,
    }
    reasons = tuple(reason for reason, holds in against.items() if holds)
    return Verdict(not reasons, reasons)


def evidence_json(evaluation: Evaluation) -> dict[str, Any]:
    """The evaluation in JSON's own types: frames as lists of rows, times as ISO text, null for what is undefined."""
    return {field.name: _plain(getattr(evaluation, field.name)) for field in fields(evaluation)}


def read_verdict(evidence: Mapping[str, Any]) -> Verdict:
    """The verdict in what `evidence_json` made.

    Raises:
        DataError: there is none, or a badge contradicts its reasons.
    """
    try:
        found = evidence["verdict"]
        read = Verdict(bool(found["badge"]), tuple(str(reason) for reason in found["reasons"]))
    except (KeyError, TypeError) as error:
        raise DataError("the evidence holds no verdict; evaluate the recipe again") from error
    if read.badge == bool(read.reasons):
        raise DataError(f"the evidence has badge {read.badge} with reasons {read.reasons}; evaluate the recipe again")
    return read


def _plain(value: object) -> object:
    if isinstance(value, pd.DataFrame):
        return [{str(name): _plain(cell) for name, cell in row.items()} for row in value.to_dict("records")]
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, float):
        return float(value) if np.isfinite(value) else None
    return value


def _check(table: pd.DataFrame) -> None:
    missing = [column for column in _COLUMNS if column not in table]
    if missing:
        raise DataError(f"the table of predictions lacks the columns {', '.join(missing)}; validate the recipe again")
    if not (table["twin"] == 0).any():
        raise DataError("the table of predictions has no row of the market itself (twin 0); there is nothing to judge")
    if table["recipe_id"].nunique() != 1:
        raise DataError(f"the table mixes the recipes {', '.join(sorted(table['recipe_id'].unique()))}; one at a time")
    _refuse(table, ~table["y"].isin([0, 1]), "has a label that is neither 0 nor 1")
    _refuse(table, table.duplicated(["twin", "token", "timestamp"]), "is there more than once")
    _refuse(
        table, table["label_end"].isna() | (table["label_end"] <= table["timestamp"]), "has a label without a future"
    )
    for column in _NUMBERS:
        _refuse(table, ~np.isfinite(table[column]), f"has no {column}")
    for column in ("raw", "probability"):
        _refuse(table, ~table[column].between(0, 1), f"has a {column} outside 0 to 1")


def _refuse(table: pd.DataFrame, wrong: pd.Series, what: str) -> None:
    if wrong.any():
        row = table[wrong].iloc[0]
        raise DataError(
            f"the row of {row['token']} at {row['timestamp']} in twin {row['twin']} {what}; validate the recipe again"
        )


def _independent_labels(real: pd.DataFrame) -> float:
    starts, ends = hours_of(real["timestamp"]), hours_of(real["label_end"])
    tokens = real.groupby("token").indices.values()
    return float(sum(uniqueness(starts[rows], ends[rows]).sum() for rows in tokens))


def _interval(value: float, bounds: tuple[float, float] | None) -> Interval:
    return Interval(value, *(bounds or (None, None)))


def _ratio(draws: WindowDraws, hours: Hours, numerator: Floats, denominator: Floats) -> Interval:
    total = float(denominator.sum())
    if not total:
        return Interval(0.0, None, None)
    return _interval(float(numerator.sum()) / total, draws.ratio_interval(hours, numerator, denominator))


def _auc(draws: WindowDraws, hours: Hours, y: Hours, p: Floats) -> Interval:
    enough = draws.windows >= ENOUGH_WINDOWS  # the draws take a second, so not in vain
    return _interval(pooled_auc(y, p), draws.interval(draws.aucs(hours, y, p)) if enough else None)


def _auc_where_known(draws: WindowDraws, hours: Hours, y: Hours, p: Floats) -> Interval:
    known = np.isfinite(p)
    return _auc(draws, hours[known], y[known], p[known]) if known.any() else Interval(float("nan"), None, None)


def _quartiles(aucs: Floats) -> tuple[float, float, float]:
    if np.isnan(aucs).all():
        return (float("nan"),) * 3
    low, middle, high = np.nanquantile(aucs, [0.25, 0.5, 0.75])
    return float(low), float(middle), float(high)


def _scores(rows: pd.DataFrame, threshold: Floats, cost: float, draws: WindowDraws) -> Scores:
    hours, y = hours_of(rows["timestamp"]), rows["y"].to_numpy(dtype=np.float64)
    flagged = (rows["probability"].to_numpy() >= threshold).astype(np.float64)
    hits, flags, positives = float((flagged * y).sum()), float(flagged.sum()), float(y.sum())
    precision = _ratio(draws, hours, flagged * y, flagged)
    trades = trades_of(rows, threshold, cost)
    net = (
        _interval(float(trades["net"].mean()), net_interval(trades, draws)) if len(trades) else Interval(0, None, None)
    )
    known = threshold[np.isfinite(threshold)]
    at = flagged > 0
    return Scores(
        threshold=float(np.median(known)) if len(known) else None,
        flagged_share=flags / len(y),
        precision=precision,
        recall=hits / positives if positives else 0.0,
        f1=2 * hits / (flags + positives) if hits else 0.0,
        accuracy=float((flagged == y).mean()),
        lift=precision.value / float(y.mean()) if positives else 0.0,
        trades=len(trades),
        net_per_trade=net,
        net_sum=float(trades["net"].sum()),
        achieved_break_even=break_even_precision(rows["change"].to_numpy()[at], y[at], cost) if flags else 0.0,
        max_drawdown=_max_drawdown(trades),
    )


def _max_drawdown(trades: pd.DataFrame) -> float:
    running = trades.groupby("label_end")["net"].sum().cumsum().to_numpy()
    if not len(running):
        return 0.0
    highest = np.maximum.accumulate(np.maximum(running, 0.0))
    return float((highest - running).max())


def token_aucs(rows: pd.DataFrame) -> pd.Series:
    """The AUC within each token of each twin, indexed by (twin, token); NaN where a token has one class only."""
    keys = rows.groupby(["twin", "token"])
    aucs = grouped_auc(keys.ngroup(), rows["y"].to_numpy(dtype=np.int64), rows["probability"].to_numpy())
    return aucs.set_axis(keys.size().index)


def _per_token(real: pd.DataFrame, observed: pd.Series, twins: pd.Series) -> pd.DataFrame:
    own = real["probability"] >= real["threshold"]
    rows = real.assign(own=own, hit=own & (real["y"] == 1))
    found = rows.groupby("token").agg(
        rows=("y", "size"), positives=("y", "sum"), flagged=("own", "sum"), hits=("hit", "sum")
    )
    hours, y = hours_of(real["timestamp"]), real["y"].to_numpy(dtype=np.int64)
    for token, at in real.groupby("token").indices.items():
        found.loc[token, "episodes"] = episodes(hours[at], y[at])
    found["auc"] = grouped_auc(real["token"], y, real["probability"].to_numpy())
    found["precision"] = found["hits"] / found["flagged"].where(found["flagged"] > 0)
    same_hours = observed.droplevel("twin").reindex(found.index)
    found["q_value"] = benjamini_hochberg(_token_p_values(same_hours.to_numpy(), twins.dropna().to_numpy()))
    found = found.astype({"positives": "int64", "episodes": "int64", "flagged": "int64"})
    columns = ["token", "rows", "positives", "episodes", "auc", "q_value", "precision", "flagged"]
    return found.rename_axis("token").reset_index()[columns]


def _token_p_values(aucs: Floats, noise: Floats) -> Floats:
    """How often a token of a twin does as well."""
    as_good = len(noise) - np.searchsorted(np.sort(noise), aucs, side="left")
    return np.where(np.isnan(aucs) | (len(noise) == 0), np.nan, (1 + as_good) / (len(noise) + 1))


def _placebo(observed: pd.DataFrame, twins: pd.DataFrame) -> Placebo:
    real = pooled_auc(observed["y"].to_numpy(dtype=np.int64), observed["probability"].to_numpy())
    found = grouped_auc(twins["twin"], twins["y"].to_numpy(dtype=np.int64), twins["probability"].to_numpy()).dropna()
    values = tuple(float(value) for value in found)
    defined = bool(values) and not np.isnan(real)
    return Placebo(
        twins=values,
        observed=real,
        mean=float(found.mean()),
        sd=float(found.std()),
        p=placebo_p(real, values) if defined else None,
    )


def _calibration(hours: Hours, y: Hours, probability: Floats, draws: WindowDraws) -> pd.DataFrame:
    which, rows = bin_of(probability, BINS), []
    for number in np.unique(which):
        at = which == number
        observed = _ratio(draws, hours[at], y[at].astype(np.float64), np.ones(int(at.sum())))
        rows.append((int(number), int(at.sum()), float(probability[at].mean()), observed.value, *_bounds(observed)))
    return pd.DataFrame(rows, columns=["bin", "rows", "predicted", "observed", "low", "high"])


def _bounds(interval: Interval) -> tuple[float, float]:
    low, high = interval.low, interval.high
    return (float("nan") if low is None else low), (float("nan") if high is None else high)
