"""The bootstrap of calendar windows for any statistic, row by row: what the fast draws are held against."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from breakout_assets.learning.statistics import DRAWS, HORIZON, LEVELS, Hours, draw_windows


def block_bootstrap(
    ts: Hours,
    statistic: Callable[[npt.NDArray[np.intp]], float],
    block: int = HORIZON,
    draws: int = DRAWS,
    seed: int = 0,
    levels: tuple[float, float] = LEVELS,
) -> tuple[float, float]:
    """Percentiles of any statistic over draws of whole calendar windows, all tokens together.

    Slower than `WindowDraws.totals` and `.aucs`, which give the same draws. Nominal 95 % cover 84 to 90 % in
    simulations with 15 windows or more; with fewer than `ENOUGH_WINDOWS` do not show it.

    Args:
        ts: hour of each row (`hours_of`), any number of tokens.
        statistic: of the positions of the drawn rows, some of them several times; NaN where it is undefined.
        block: hours of a window, at least a label's 120.
        draws: how many.
        seed: the same seed gives the same interval.
        levels: the two percentiles.

    Returns:
        The two percentiles over the draws in which the statistic is defined; NaN where it never is.

    Raises:
        DataError: as `draw_windows`.
    """
    drawn = draw_windows(ts, block, draws, seed)
    order = np.argsort(ts, kind="stable")
    ring = np.concatenate([ts[order], ts[order] + drawn.span]) - drawn.first
    rows = np.concatenate([order, order])
    values = np.empty(draws)
    for number, starts in enumerate(drawn.starts):
        begin, end = np.searchsorted(ring, starts), np.searchsorted(ring, starts + drawn.block)
        values[number] = statistic(np.concatenate([rows[a:b] for a, b in zip(begin, end, strict=True)]))
    if np.isnan(values).all():
        return float("nan"), float("nan")
    low, high = np.nanpercentile(values, levels)
    return float(low), float(high)
