"""Figures and verdicts in words: what is missing is said, never shown as 0."""

import math
from dataclasses import dataclass
from typing import Final

from breakout_assets.learning.evidence import ECE_LIMIT, SIGNIFICANT, Evaluation, Interval, Scores
from breakout_assets.learning.recipes import Recipe
from breakout_assets.learning.statistics import ENOUGH_WINDOWS

COVERAGE: Final = (
    "Intervals are nominal 95 %; coverage in simulation is 85 to 90 %, so the truth lies outside more often than "
    "one time in twenty."
)
NOT_ENOUGH: Final = "not enough independent data"
NO_FLAG: Final = "nothing flagged"
NO_TRADE: Final = "no trade"
NO_RISE: Final = "nothing rose"
ONE_CLASS: Final = "undefined, only one outcome"
NO_TWINS: Final = "no noise markets computed"
UNKNOWN: Final = "unknown"


def number(value: float | None, missing: str, digits: int = 3) -> str:
    """A figure, or in words why there is none."""
    return missing if value is None or math.isnan(value) else f"{value:.{digits}f}"


def share(value: float | None, missing: str, *, signed: bool = False) -> str:
    """A share in percent, or in words why there is none."""
    return missing if value is None or math.isnan(value) else f"{100 * value:{'+' if signed else ''}.1f} %"


def number_interval(interval: Interval, missing: str) -> str:
    """A figure with its interval, and in words what is missing of it."""
    return _with_bounds(interval, [number(value, "") for value in _values(interval)], missing)


def share_interval(interval: Interval, missing: str, *, signed: bool = False) -> str:
    """A share in percent with its interval, and in words what is missing of it."""
    return _with_bounds(interval, [share(value, "", signed=signed) for value in _values(interval)], missing)


def _values(interval: Interval) -> tuple[float | None, float | None, float | None]:
    return interval.value, interval.low, interval.high


def _with_bounds(interval: Interval, texts: list[str], missing: str) -> str:
    value, low, high = texts
    if not value:
        return missing
    return f"{value} ({low} to {high})" if low and high else f"{value} ({NOT_ENOUGH} for an interval)"


def bounds(interval: Interval, *, percent: bool = False) -> str:
    """The interval alone, or that there is none."""
    low, high = ((share(b, "", signed=True) if percent else number(b, "")) for b in (interval.low, interval.high))
    return f"95 %: {low} to {high}" if low and high else NOT_ENOUGH


def precision(scores: Scores) -> str:
    """How many of the flagged rows were right; without a flag, there is no such share."""
    return share_interval(scores.precision, NO_FLAG) if scores.flagged_share > 0 else NO_FLAG


def break_even(scores: Scores) -> str:
    """The precision at which the flagged rows would have earned nothing."""
    return share(scores.achieved_break_even, "all or none rose") if scores.flagged_share > 0 else NO_FLAG


def recall(scores: Scores, base_rate: float) -> str:
    """How many of the risers were flagged; without a riser, there is no such share."""
    return share(scores.recall, UNKNOWN) if base_rate > 0 else NO_RISE


def f1(scores: Scores, base_rate: float) -> str:
    """The harmonic mean of precision and recall, or which of them does not exist."""
    if base_rate <= 0:
        return NO_RISE
    return number(scores.f1, UNKNOWN) if scores.flagged_share > 0 else NO_FLAG


def lift(scores: Scores, base_rate: float) -> str:
    """How much more often right than flagging everything."""
    if base_rate <= 0:
        return NO_RISE
    return number(scores.lift, UNKNOWN, 2) if scores.flagged_share > 0 else NO_FLAG


def net_per_trade(scores: Scores) -> str:
    """What a trade brought; without a trade, nothing did."""
    return share_interval(scores.net_per_trade, NO_TRADE, signed=True) if scores.trades else NO_TRADE


def stakes(value: float, scores: Scores, *, signed: bool = False) -> str:
    """A sum of trades, each of which puts in one stake."""
    return f"{value:{'+' if signed else ''}.2f}" if scores.trades else NO_TRADE


def whole(value: float) -> str:
    """A count with separators."""
    return f"{value:,.0f}"


@dataclass(frozen=True)
class Said:
    """A verdict in words."""

    headline: str
    sentences: tuple[str, ...]
    tone: str
    """`good`, `poor` or `open`: only a model that passed everything is good."""


def verdict_in_words(evaluation: Evaluation) -> Said:
    """Skill, luck, or not enough data; and each reason as a sentence."""
    codes = evaluation.verdict.reasons
    sentences = tuple(_sentence(code, evaluation) for code in codes)
    if evaluation.verdict.badge:
        passed = (
            "On rows it had not seen the model ranks better than on markets of pure noise, its probabilities match "
            "what happened, and its trades paid after costs, even at the lower end of the interval."
        )
        return Said("Skill: better than luck, and it paid", (passed,), "good")
    for code, headline, tone in _HEADLINES:
        if code in codes:
            return Said(headline, sentences, tone)
    return Said("Not passed", sentences, "open")


# The first that applies is the headline: with too little data, nothing else can be said of skill or of luck.
_HEADLINES: Final = (
    ("REFERENCE_ONLY", "For reference only", "open"),
    ("TOO_FEW_WINDOWS", "Not enough independent data to tell skill from luck", "open"),
    ("NO_TWINS", "Undecided: luck has not been ruled out", "open"),
    ("PLACEBO", "Luck: noise scores about as well", "poor"),
    ("NOT_PROFITABLE", "It ranks better than luck, but shows no profit after costs", "poor"),
    ("CALIBRATION", "It ranks better than luck, but its probabilities are off", "poor"),
)


def _sentence(code: str, evaluation: Evaluation) -> str:
    placebo = evaluation.placebo
    known = {
        "REFERENCE_ONLY": "The recipe repeats a published method, whose way of testing flatters it. It never trades.",
        "TOO_FEW_WINDOWS": (
            f"The test covers {evaluation.windows} separate five-day windows; it takes {ENOUGH_WINDOWS} to say "
            "more than a single figure."
        ),
        "NO_TWINS": "No noise markets were computed, so nobody knows what luck alone would have scored.",
        "PLACEBO": (
            f"On markets of pure noise the same recipe scores {number(placebo.mean, UNKNOWN)} "
            f"± {number(placebo.sd, UNKNOWN)}; {number(placebo.observed, ONE_CLASS)} here is not clearly more "
            f"(p = {number(placebo.p, UNKNOWN)}, needed is less than {SIGNIFICANT})."
        ),
        "NOT_PROFITABLE": _unprofitable(evaluation.own),
        "CALIBRATION": (
            f"Its probabilities are off by {share(evaluation.ece, UNKNOWN)} on average; the limit is "
            f"{share(ECE_LIMIT, UNKNOWN)}."
        ),
    }
    return known.get(code, f"Reason: {code}.")


def _unprofitable(own: Scores) -> str:
    if own.trades == 0:
        return "At its own threshold it made no trade, so there is no profit to show."
    net = own.net_per_trade
    brought = f"A trade at its own threshold brought {share(net.value, UNKNOWN, signed=True)} after costs"
    if net.low is None:
        return f"{brought}; {NOT_ENOUGH} for an interval."
    return f"{brought}, with an interval down to {share(net.low, UNKNOWN, signed=True)}."


def against_logistic(title: str, recipe: Recipe, evaluation: Evaluation) -> str | None:
    """A sentence if a forest does not rank better than a logistic regression; None if it does or is none itself."""
    forest, logistic = evaluation.auc.value, evaluation.logistic_auc.value
    if recipe.estimator != "forest" or not forest <= logistic:
        return None
    return (
        f"The forest of {title} adds no value: a plain logistic regression on the same features and rows ranks as "
        f"well or better (pooled AUC {logistic:.3f} against {forest:.3f})."
    )
