"""What predictions are worth as numbers, and how sure one may be of them.

Labels of neighbouring hours overlap and tokens move together. Rows therefore prove far less than their number
suggests: evidence is counted in windows of calendar time, and intervals come from drawing such windows with all tokens.
Hours are whole hours since 1970 (`hours_of`).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from breakout_assets.errors import DataError

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.integer]
Hours = npt.NDArray[np.int64]

HORIZON: Final = 120  # hours from a price to the one that its label compares it with
DRAWS: Final = 1000
LEVELS: Final = (2.5, 97.5)
# On noise the nominal 95 % intervals cover 58 % of the time with 4 windows and 84 to 90 % from 15 windows on.
ENOUGH_WINDOWS: Final = 15


def hours_of(timestamp: pd.Series) -> Hours:
    """Whole hours since 1970 of naive-UTC times."""
    return timestamp.to_numpy(dtype="datetime64[h]").astype(np.int64)


def uniqueness(ts: Hours, end: Hours) -> Floats:
    """How much of each label is its own: the mean of 1 / (labels alive) over the hours in which it is alive.

    The sum is the number of labels that would say as much if they did not overlap.

    Args:
        ts: hour of each row of one token.
        end: hour of the price that decided the label; the label lives in [ts, end).

    Raises:
        DataError: a label ends before it has begun.
    """
    if not len(ts):
        return np.empty(0)
    if (end <= ts).any():
        raise DataError("a label ends at or before its own hour; materialise labelled_dataset again")
    first = int(ts.min())
    born, dead = ts - first, end - first
    length = int(dead.max()) + 1
    alive = np.cumsum(np.bincount(born, minlength=length) - np.bincount(dead, minlength=length))
    share = np.divide(1.0, alive, out=np.zeros(length), where=alive > 0)
    until = np.concatenate([[0.0], np.cumsum(share)])  # sum of the hours before
    return np.asarray((until[dead] - until[born]) / (dead - born), dtype=np.float64)


def independent_windows(ts: Hours, horizon: int = HORIZON) -> int:
    """How many labels of these hours fit into calendar time without overlap, whatever the number of tokens."""
    different = np.unique(ts)
    following = np.searchsorted(different, different + horizon).tolist()
    windows = row = 0
    while row < len(following):
        windows, row = windows + 1, following[row]
    return windows


def episodes(ts: Hours, y: Labels, horizon: int = HORIZON) -> int:
    """Separate rises of one token: positive hours belong to one where less than a horizon lies between neighbours."""
    risen = np.sort(ts[y == 1])
    return int(len(risen) > 0) + int((np.diff(risen) >= horizon).sum())


@dataclass(frozen=True, eq=False)
class WindowDraws:
    """Bootstrap draws of whole calendar windows; one object serves all statistics of a table.

    Time is a ring: a window that begins near the end goes on at the beginning, so that every hour is drawn equally
    often. Rows of all tokens travel with their hour.
    """

    first: int
    """The first hour of the table."""
    span: int
    """Hours from the first to the last one, both included."""
    block: int
    """Hours of a window."""
    starts: Hours
    """A row a draw, a column a window: where it begins, in hours after the first."""
    windows: int
    """Independent windows that the table has."""
    seed: int

    def totals(self, hours: Hours, weights: Floats) -> Floats:
        """The sum of weights in each draw; the rows may be part of the table, e.g. its trades."""
        hourly = np.bincount(hours - self.first, weights=weights, minlength=self.span)
        until = np.concatenate([[0.0], np.cumsum(np.concatenate([hourly, hourly]))])
        return np.asarray((until[self.starts + self.block] - until[self.starts]).sum(axis=1), dtype=np.float64)

    def aucs(self, hours: Hours, y: Labels, p: Floats) -> Floats:
        """The pooled AUC of each draw; NaN where a draw has one class only. 1 ms a draw at 100,000 rows."""
        order = np.argsort(p, kind="stable")
        hour, positive = (hours - self.first)[order], (np.asarray(y) == 1)[order].astype(np.float64)
        ties = np.flatnonzero(np.diff(p[order], prepend=np.nan) != 0)  # where the score changes
        values = np.full(len(self.starts), np.nan)
        for number, starts in enumerate(self.starts):
            weight = self._times_drawn(starts)[hour]
            risen = weight * positive
            above, below = np.add.reduceat(risen, ties), np.add.reduceat(weight - risen, ties)
            pairs = above.sum() * below.sum()
            if pairs > 0:
                values[number] = above @ (np.cumsum(below) - below / 2) / pairs
        return values

    def _times_drawn(self, starts: Hours) -> Floats:
        """How often a draw has each hour of the span."""
        change = np.bincount(starts, minlength=2 * self.span + 1)
        change -= np.bincount(starts + self.block, minlength=2 * self.span + 1)
        ring = np.cumsum(change)
        return (ring[: self.span] + ring[self.span : -1]).astype(np.float64)

    def interval(self, values: Floats, levels: tuple[float, float] = LEVELS) -> tuple[float, float] | None:
        """Percentiles of a statistic's draws.

        None below `ENOUGH_WINDOWS`, and where more draws are undefined than the interval cuts off on a side: such a
        statistic rests on a few windows only.
        """
        undefined = float(np.isnan(values).mean())
        if self.windows < ENOUGH_WINDOWS or undefined > levels[0] / 100:
            return None
        low, high = np.nanpercentile(values, levels)
        return float(low), float(high)

    def ratio_interval(
        self, hours: Hours, numerator: Floats, denominator: Floats, levels: tuple[float, float] = LEVELS
    ) -> tuple[float, float] | None:
        """The interval of a ratio of two sums, the lower one of whole numbers; undefined in draws where it is 0."""
        below = self.totals(hours, denominator)
        above = self.totals(hours, numerator)
        ratio = np.divide(above, below, out=np.full(len(below), np.nan), where=below > 0)
        return self.interval(ratio, levels)


def draw_windows(ts: Hours, block: int = HORIZON, draws: int = DRAWS, seed: int = 0) -> WindowDraws:
    """Draw as many whole windows as the table's time has room for, `draws` times.

    Raises:
        DataError: no rows, the hours are no whole numbers, or a window shorter than a label.
    """
    if not np.issubdtype(ts.dtype, np.integer):
        raise DataError(f"a bootstrap needs whole hours, not {ts.dtype}; convert times with hours_of")
    if not len(ts):
        raise DataError("there are no rows to draw from")
    if block < HORIZON:
        raise DataError(f"a window of {block} h is shorter than a label's {HORIZON} h; its rows are not independent")
    first, span = int(ts.min()), int(ts.max() - ts.min()) + 1
    block = min(block, span)
    starts = np.random.default_rng(seed).integers(0, span, (draws, max(1, span // block)))
    return WindowDraws(first, span, block, starts, independent_windows(ts), seed)


def pooled_auc(y: Labels, p: Floats) -> float:
    """Area under the ROC curve over all rows at once; NaN where there is one class only."""
    auc = grouped_auc(pd.Series(np.zeros(len(p), dtype=np.int8)), y, p)
    return float(auc.iloc[0]) if len(auc) else float("nan")


def grouped_auc(groups: pd.Series, y: Labels, p: Floats) -> pd.Series:
    """The AUC within each group, e.g. each token, indexed by group; NaN where a group has one class only."""
    by = groups.to_numpy()
    rows = pd.DataFrame({"p": p, "positive": np.asarray(y) == 1})
    rows["rank"] = rows.groupby(by)["p"].rank()
    rows["rank"] *= rows["positive"]
    found = rows.groupby(by).agg(rank=("rank", "sum"), positives=("positive", "sum"), rows=("p", "size"))
    negatives = found["rows"] - found["positives"]
    pairs = (found["positives"] * negatives).astype("float64")
    return (found["rank"] - found["positives"] * (found["positives"] + 1) / 2) / pairs.where(pairs > 0)


def brier(y: Labels, p: Floats) -> float:
    """Mean squared difference of probability and outcome."""
    return float(np.mean((p - y) ** 2))


def brier_skill(y: Labels, p: Floats) -> float:
    """Share of the base rate's Brier score that the probabilities save; NaN where there is one class only."""
    base_rate = float(np.mean(y))
    reference = base_rate * (1 - base_rate)
    return 1 - brier(y, p) / reference if reference > 0 else float("nan")


def bin_of(p: Floats, bins: int = 10) -> npt.NDArray[np.intp]:
    """The bin of equal width that each probability falls into, 0 first; an edge belongs to the bin below it."""
    return np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], p)


def expected_calibration_error(y: Labels, p: Floats, bins: int = 10) -> float:
    """Mean distance of predicted and observed share over bins of equal width, weighted by rows."""
    miss = np.bincount(bin_of(p, bins), weights=p - y, minlength=bins)
    return float(np.abs(miss).sum() / len(p))


def benjamini_hochberg(p_values: Floats) -> Floats:
    """q-values: the share of false ones among all that are at least as striking; NaN stays NaN and does not count."""
    q_values = np.full(len(p_values), np.nan)
    known = ~np.isnan(p_values)
    if known.any():
        from scipy.stats import false_discovery_control  # slow to import, and no hour needs it

        q_values[known] = false_discovery_control(p_values[known])
    return q_values
