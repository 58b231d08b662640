"""From an estimator's score to a probability that can be taken at its word."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from breakout_assets.errors import DataError

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.integer]

# A forest says 0 and 1, whose logits are infinite.
CLIP: Final = 1e-6
# How far a forest with large leaves and without resampling, or a regression, is off by nature: on simulated markets its
# scores had an expected calibration error of .02 before any calibration, and .02 to .08 after an unrestrained one.
PRIOR_SD: Final = 0.2
# Rows of evidence that one window is worth: the log odds of a five-day window's base rate scatter by about 1, and so
# does their estimate from six independent rows at a base rate of .2.
ROWS_A_WINDOW: Final = 6
# Last bits differ with the order of summation; a threshold must not see that.
PROBABILITY_DIGITS: Final = 9


@dataclass(frozen=True)
class Platt:
    """Platt scaling: the logit of the calibrated probability is a straight line over the logit of the score."""

    slope: float
    """Never negative: calibration keeps the ranking. At 0 the scores say nothing and every row gets the base rate."""
    intercept: float

    def apply(self, p: Floats) -> Floats:
        """The calibrated probability of each score, rounded to 1e-9; NaN stays NaN."""
        calibrated: Floats = expit(self.slope * _logit(p) + self.intercept)
        return np.round(calibrated, PROBABILITY_DIGITS)


def fit_platt(p: Floats, y: Labels, windows: int | None = None) -> Platt | None:
    """Fit Platt scaling to scores of rows that the estimator has not seen.

    Args:
        p: score of each row, in 0 to 1.
        y: 0 or 1 a row.
        windows: how many independent windows of time the rows hold. The fewer, the closer the line stays to leaving
            scores as they are: the base rate of a few weeks says more about these weeks than about the scores. None
            takes every row for independent.

    Returns:
        None where only one class is there: nothing says how scores and outcomes go together.

    Raises:
        DataError: a score is no number in 0 to 1, or the two lengths differ.
    """
    if len(p) != len(y):
        raise DataError(f"{len(p)} scores and {len(y)} labels cannot be calibrated; give one label a score")
    if not ((p >= 0) & (p <= 1)).all():
        raise DataError("a score to calibrate with is no number from 0 to 1; leave rows without a score out")
    positives = int(np.sum(y))
    if positives in (0, len(y)):
        return None
    # Platt's targets stay off 0 and 1, or scores that separate the classes would ask for an infinite slope.
    target = np.where(np.asarray(y) == 1, (positives + 1) / (positives + 2), 1 / (len(y) - positives + 2))
    base_rate = Platt(0.0, float(logit(target.mean())))
    x = _logit(p)
    pull = 0.0 if windows is None else 1 / (PRIOR_SD**2 * ROWS_A_WINDOW * windows)
    slope, intercept = _most_likely(x, target, base_rate.intercept, pull)
    # The likelihood is concave: where the best slope is negative, 0 is the best of those allowed.
    return Platt(slope, intercept) if slope > 0 else base_rate


def _logit(p: Floats) -> Floats:
    line: Floats = logit(np.clip(p, CLIP, 1 - CLIP))
    return line


def _most_likely(x: Floats, target: Floats, intercept: float, pull: float) -> tuple[float, float]:
    """Slope and intercept of the logistic regression of soft targets on x, by Newton steps in a trust region.

    `pull` is the weight of a squared distance from slope 1 and intercept 0, in rows of evidence.
    """
    unchanged = np.array([1.0, 0.0])
    design = np.stack([x, np.ones_like(x)])

    def loss(line: Floats) -> float:
        z = line @ design
        return float(np.mean(np.logaddexp(0.0, z) - target * z) + pull * np.sum((line - unchanged) ** 2) / 2)

    def gradient(line: Floats) -> Floats:
        slope: Floats = design @ (expit(line @ design) - target) / len(x) + pull * (line - unchanged)
        return slope

    def curvature(line: Floats) -> Floats:
        q = expit(line @ design)
        matrix: Floats = (design * (q * (1 - q))) @ design.T / len(x) + pull * np.eye(2)
        return matrix

    from scipy.optimize import minimize  # only training needs it, and every hour would import it

    start = np.array([0.0, intercept])
    found = minimize(loss, start, jac=gradient, hess=curvature, method="trust-exact", options={"gtol": 1e-10})
    return float(found.x[0]), float(found.x[1])
