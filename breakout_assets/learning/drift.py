"""Has the market moved away from what a model was trained on? Every limit comes from the market's own history.

Windows of a market differ even when nothing has changed: tokens move together and a five-day label's features hardly
change from one hour to the next, so that a window holds few independent observations. The usual limit for the
population stability index, .2, is passed by half of all features of a market without any drift. Here a pair of
windows is compared with the pairs of the same lengths that lie before it.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from breakout_assets.errors import DataError

Floats = npt.NDArray[np.float64]

# Below this the 95th percentile of the past is hardly more than the largest value of a handful.
ENOUGH_PAIRS: Final = 8
LIMIT_PERCENTILE: Final = 95.0
# With so few pairs one feature in seven passes its limit by chance; an alarm wants clearly more than that.
MANY: Final = 0.25
# Three times the limit is hardly ever met by chance; there an alarm only wants more than one or two odd features.
FAR: Final = 3.0
SEVERAL: Final = 0.15
# A model's flags become too many or too few when their share leaves a third to three times that of the validation.
SHARE_FACTOR: Final = 3.0
_ENVELOPE: Final = (0.001, 0.999)
_DECILES: Final = tuple(k / 10 for k in range(1, 10))
# The logarithm of an empty bin: one row in ten thousand stands for none.
_LEAST_BIN: Final = 1e-4
_HOUR: Final = np.timedelta64(1, "h")


@dataclass(frozen=True, eq=False)
class Drift:
    """What a recent window of the universe looks like beside the window before it."""

    table: pd.DataFrame
    """One row a feature, in the given order: feature, psi, limit (NaN where there is none), drifted."""
    drifted_share: float
    """Share of the features whose index is beyond their limit; 0 where limits are not to be had."""
    usual_share: float
    """The largest such share of any past pair, its limits taken from the other pairs."""
    far_share: float
    """Share of the features beyond three times their limit."""
    usual_far_share: float
    """The largest such share of any past pair, its limits taken from the other pairs."""
    outside_share: float
    """Share of the recent rows with any feature outside the reference's .1 to 99.9 % envelope."""
    outside_limit: float
    """The 95th percentile of that share over the past pairs; NaN where there are too few."""
    pairs: int
    """Past pairs of windows that the limits come from."""
    enough: bool
    alarm: bool
    recent_from: datetime | None
    """First hour of the recent window; None where the history does not hold the two windows."""
    recent_until: datetime | None
    verdict: str
    """One sentence for a reader."""


@dataclass(frozen=True, eq=False)
class _Pair:
    reference: slice
    recent: slice


def drift_report(
    rows: pd.DataFrame, features: tuple[str, ...], recent_hours: int = 14 * 24, reference_hours: int = 60 * 24
) -> Drift:
    """Compare the newest window of the universe with the window before it.

    A feature has drifted if its population stability index is beyond the 95th percentile of the index between past
    pairs of adjacent windows of the same lengths; the recent windows of those pairs do not overlap.

    Some features always exceed their 95th percentile, and since features are correlated they do so together; counting
    them as independent would raise alarms in ordinary weeks. A share of drifted features therefore has to be larger
    than that of every past pair judged by the limits of the others: if nothing changes, the newest of n + 1 like
    windows is the largest in one case of n + 1 at most. There is an alarm if that holds for the share beyond the
    limits, and it is at least `MANY` (much has moved), or for the share beyond three times the limits, and it is at
    least `SEVERAL` (a few features have moved far, which their mere number would hide).

    Args:
        rows: token, timestamp (whole hours) and the features, of all tokens, in any order. Hours may be thinned
            evenly: of a large universe every sixth hour says as much.
        features: the columns to compare.
        recent_hours: length of the recent window, the newest hours of `rows`.
        reference_hours: length of the window before it.

    Raises:
        DataError: a column is absent, no feature is named, or a window has no length.
    """
    _check(rows, features, recent_hours, reference_hours)
    ordered = rows.sort_values("timestamp", kind="stable")
    hours = ordered["timestamp"].to_numpy().astype("datetime64[h]").astype(np.int64)
    pairs = _window_pairs(hours, recent_hours, reference_hours)
    if not pairs or pairs[0] is None:
        return _without_windows(features, recent_hours, reference_hours)
    past = [pair for pair in pairs[1:] if pair is not None]
    values = ordered[list(features)].to_numpy(dtype=np.float64, na_value=np.nan)
    compared = [_compared(values, pair) for pair in (pairs[0], *past)]
    recent = hours[pairs[0].recent]
    return _report(
        features,
        np.array([psi for psi, _ in compared]),
        np.array([outside for _, outside in compared]),
        (_as_hour(recent[0]), _as_hour(recent[-1])),
    )


def flagged_share_drift(validation_share: float, recent_share: float) -> bool:
    """Whether a model flags less than a third or more than three times what it flagged when it was validated.

    Raises:
        DataError: a share does not lie in 0 to 1.
    """
    for share in (validation_share, recent_share):
        if not 0 <= share <= 1:
            raise DataError(f"a share of flagged rows lies in 0 to 1, not at {share}; count flagged rows over all rows")
    return not validation_share / SHARE_FACTOR <= recent_share <= validation_share * SHARE_FACTOR


def stability_index(reference: Floats, recent: Floats) -> float:
    """The population stability index over the deciles of the reference; missing values are a bin of their own.

    A feature that is suddenly null has drifted, and so the finite values alone would not do.
    """
    known = reference[np.isfinite(reference)]
    edges = np.unique(np.quantile(known, _DECILES)) if len(known) else np.empty(0)
    expected, found = (np.maximum(_bin_shares(sample, edges), _LEAST_BIN) for sample in (reference, recent))
    return float(((found - expected) * np.log(found / expected)).sum())


def _bin_shares(sample: Floats, edges: Floats) -> Floats:
    missing = len(edges) + 1
    bins = np.where(np.isfinite(sample), np.searchsorted(edges, sample, side="left"), missing)
    shares: Floats = np.bincount(bins, minlength=missing + 1) / len(sample)
    return shares


def _check(rows: pd.DataFrame, features: tuple[str, ...], recent_hours: int, reference_hours: int) -> None:
    missing = [column for column in ("timestamp", *features) if column not in rows]
    if missing:
        raise DataError(f"the rows lack the columns {', '.join(missing)}; compute them before looking for drift")
    if not features:
        raise DataError("no feature is named; drift is looked for in the features of a recipe")
    if recent_hours < 1 or reference_hours < 1:
        raise DataError(f"windows of {recent_hours} and {reference_hours} hours cannot be compared; both need an hour")


def _window_pairs(hours: npt.NDArray[np.int64], recent_hours: int, reference_hours: int) -> list[_Pair | None]:
    """The newest pair first; None where an outage left less than half of a window's hours."""
    if not len(hours):
        return []
    observed = np.unique(hours)
    first, last = observed[0], observed[-1] + 1
    least = 0.5 * len(observed) / (last - first)  # hours may be thinned; half of the usual density must be there

    def window(start: int, end: int) -> slice | None:
        there = np.searchsorted(observed, end) - np.searchsorted(observed, start)
        if there < least * (end - start):
            return None
        return slice(int(np.searchsorted(hours, start)), int(np.searchsorted(hours, end)))

    pairs: list[_Pair | None] = []
    for end in range(last, first + reference_hours + recent_hours - 1, -recent_hours):
        middle = end - recent_hours
        reference, recent = window(middle - reference_hours, middle), window(middle, end)
        pairs.append(None if reference is None or recent is None else _Pair(reference, recent))
    return pairs


def _compared(values: Floats, pair: _Pair) -> tuple[list[float], float]:
    """The index of each feature, and the share of recent rows that leave the reference's envelope anywhere."""
    reference, recent = values[pair.reference], values[pair.recent]
    outside = np.zeros(len(recent), dtype=bool)
    indices = []
    for column in range(values.shape[1]):
        before, now = np.ascontiguousarray(reference[:, column]), np.ascontiguousarray(recent[:, column])
        indices.append(stability_index(before, now))
        known = before[np.isfinite(before)]
        if len(known):
            low, high = np.quantile(known, _ENVELOPE)
            outside |= (now < low) | (now > high)
    return indices, float(outside.mean())


def _report(features: tuple[str, ...], indices: Floats, outside: Floats, recent: tuple[datetime, datetime]) -> Drift:
    """From the index of each pair (row 0 the newest) and feature, and each pair's share of rows outside."""
    past = indices[1:]
    enough = len(past) >= ENOUGH_PAIRS
    limits = _limits(past) if enough else np.full(len(features), np.nan)
    drifted = indices[0] > limits
    share, far = float(drifted.mean()), float((indices[0] > FAR * limits).mean())
    usual, usual_far = (_largest_past_share(past, 1.0), _largest_past_share(past, FAR)) if enough else (0.0, 0.0)
    alarm = usual < share >= MANY or usual_far < far >= SEVERAL  # never without limits: then nothing has drifted
    return Drift(
        table=_table(features, indices[0], limits, drifted),
        drifted_share=share,
        usual_share=usual,
        far_share=far,
        usual_far_share=usual_far,
        outside_share=float(outside[0]),
        outside_limit=float(np.percentile(outside[1:], LIMIT_PERCENTILE)) if enough else np.nan,
        pairs=len(past),
        enough=enough,
        alarm=alarm,
        recent_from=recent[0],
        recent_until=recent[1],
        verdict=_verdict((share, usual), (far, usual_far), len(past), alarm),
    )


def _table(features: tuple[str, ...], index: Floats, limits: Floats, drifted: npt.NDArray[np.bool_]) -> pd.DataFrame:
    return pd.DataFrame(
        {"feature": pd.Series(features, dtype="str"), "psi": index, "limit": limits, "drifted": drifted}
    )


def _limits(past: Floats) -> Floats:
    limits: Floats = np.percentile(past, LIMIT_PERCENTILE, axis=0)
    return limits


def _largest_past_share(past: Floats, times: float) -> float:
    """The largest share of features of any past pair beyond so many times the limits of the other past pairs."""
    return max(float((past[k] > times * _limits(np.delete(past, k, axis=0))).mean()) for k in range(len(past)))


def _verdict(beyond: tuple[float, float], far: tuple[float, float], pairs: int, alarm: bool) -> str:
    """From the recent and the largest past share of features beyond their limits, and far beyond them."""
    if pairs < ENOUGH_PAIRS:
        return f"Not enough history: {pairs} past pairs of windows, {ENOUGH_PAIRS} are needed; no verdict."
    found = (
        f"{beyond[0]:.0%} of the features are beyond their limits and {far[0]:.0%} beyond three times the limit; "
        f"in {pairs} past windows it was {beyond[1]:.0%} and {far[1]:.0%} at most"
    )
    if alarm:
        return f"Drift: {found}. Train again, and look at the features before trusting the probabilities."
    return f"No drift: {found}."


def _without_windows(features: tuple[str, ...], recent_hours: int, reference_hours: int) -> Drift:
    nothing = np.full(len(features), np.nan)
    return Drift(
        table=_table(features, nothing, nothing, np.zeros(len(features), dtype=bool)),
        drifted_share=0.0,
        usual_share=0.0,
        far_share=0.0,
        usual_far_share=0.0,
        outside_share=0.0,
        outside_limit=np.nan,
        pairs=0,
        enough=False,
        alarm=False,
        recent_from=None,
        recent_until=None,
        verdict=f"Not enough history: the rows do not hold a window of {reference_hours} hours and one of "
        f"{recent_hours} after it without large gaps; no verdict.",
    )


def _as_hour(hours: np.int64) -> datetime:
    moment: datetime = pd.Timestamp(np.datetime64(0, "h") + hours * _HOUR).to_pydatetime()
    return moment
