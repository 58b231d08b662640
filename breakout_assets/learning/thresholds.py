"""From which probability on buying pays, after costs.

All functions take a table with one row a token and hour: `token` str, `timestamp` naive UTC, `probability`, `y` 0 or 1
and `change`, the percent by which the price differs 120 hours later. Costs are shares of the money for a round trip.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from breakout_assets.errors import DataError
from breakout_assets.learning.statistics import HORIZON, Floats, Labels, WindowDraws, draw_windows, hours_of

# 24 / 40 is the published 0.60.
CURVE: Final = tuple(step / 40 for step in range(2, 39))
# Fewer trades say more about their weeks than about the threshold.
MINIMUM_TRADES: Final = 30
# The lower quartile instead of the mean: a threshold that paid in a few lucky weeks only must not win.
CAREFUL: Final = 25.0
# Candidates are the probabilities that flag these shares of the rows: calibrated probabilities may all lie close
# together, where a fixed grid would miss them. A rule that flags more than half of the market forecasts nothing.
FLAGGED_SHARES: Final = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.10, 0.15, 0.20, 0.30, 0.40, 0.50)

_COLUMNS: Final = ("token", "timestamp", "probability", "y", "change")


def trades_of(table: pd.DataFrame, threshold: float | Floats, cost: float) -> pd.DataFrame:
    """The flagged rows that would be bought: a token is held once, so a flag within 120 h of an entry buys nothing.

    Args:
        table: see above; further columns are passed through.
        threshold: rows with this probability or more are flagged; one for all or one a row. NaN flags nothing.
        cost: of a round trip.

    Returns:
        Rows of the table sorted by (token, timestamp), with `net` = change / 100 - cost.

    Raises:
        DataError: a column is absent.
    """
    missing = [column for column in _COLUMNS if column not in table]
    if missing:
        raise DataError(f"the table lacks the columns {', '.join(missing)}; a threshold cannot be judged without them")
    flagged = table[table["probability"].to_numpy() >= threshold]
    flagged = flagged.sort_values(["token", "timestamp"], kind="stable")
    bought = flagged.iloc[_entries(flagged)]
    return bought.assign(net=bought["change"] / 100 - cost)


def _entries(flagged: pd.DataFrame) -> npt.NDArray[np.intp]:
    """Positions of the entries in rows sorted by token and time."""
    if flagged.empty:
        return np.empty(0, dtype=np.intp)
    hours = hours_of(flagged["timestamp"])
    # One line of time for all tokens: each begins a horizon and more after the last hour of the one before.
    length = int(hours.max() - hours.min()) + HORIZON + 1
    token = np.cumsum(np.r_[0, flagged["token"].to_numpy()[1:] != flagged["token"].to_numpy()[:-1]])
    line = token * length + hours - hours.min()
    free_again = np.searchsorted(line, line + HORIZON).tolist()
    entries, row = [], 0
    while row < len(free_again):
        entries.append(row)
        row = free_again[row]
    return np.array(entries, dtype=np.intp)


def threshold_curve(
    table: pd.DataFrame, cost: float, thresholds: Sequence[float] = CURVE, seed: int = 0
) -> pd.DataFrame:
    """What each threshold would have brought.

    Returns:
        One row a threshold: `threshold`, `flagged_share` of the rows, `trades`, `precision` of the flagged rows
        (NaN without any), `net_mean` of a trade and its interval `net_low`, `net_high` (block bootstrap, nominal 95 %;
        NaN where there are too few independent windows), `net_sum` in stakes of one trade.

    Raises:
        DataError: a column is absent, or there are no rows.
    """
    draws = draw_windows(hours_of(table["timestamp"]), seed=seed)
    return pd.DataFrame([_curve_point(table, threshold, cost, draws) for threshold in thresholds])


def _curve_point(table: pd.DataFrame, threshold: float, cost: float, draws: WindowDraws) -> dict[str, float]:
    trades = trades_of(table, threshold, cost)
    flagged = (table["probability"] >= threshold).to_numpy()
    interval = net_interval(trades, draws) or (np.nan, np.nan)
    return {
        "threshold": threshold,
        "flagged_share": float(flagged.mean()),
        "trades": len(trades),
        "precision": float(table["y"].to_numpy()[flagged].mean()) if flagged.any() else np.nan,
        "net_mean": float(trades["net"].mean()),
        "net_low": interval[0],
        "net_high": interval[1],
        "net_sum": float(trades["net"].sum()),
    }


def net_interval(trades: pd.DataFrame, draws: WindowDraws) -> tuple[float, float] | None:
    """The interval of the mean `net` of a trade; None where too few windows hold any."""
    return draws.ratio_interval(hours_of(trades["timestamp"]), trades["net"].to_numpy(), np.ones(len(trades)))


def choose_threshold(table: pd.DataFrame, cost: float, seed: int = 0) -> float | None:
    """The probability from which on buying paid best on these rows, or None: nothing paid, do not trade.

    The best has the highest lower quartile of total net profit over draws of whole calendar windows. It must be above
    0, rest on 30 trades or more, no two of which overlap in a token, and remain above 0 when each trade is charged what
    the average row of a rising market won: else the market paid and not the forecast.

    Raises:
        DataError: a column is absent, or a probability or a change is no number.
    """
    if table.empty:
        return None
    probability = table["probability"].to_numpy(dtype=np.float64)
    if not np.isfinite(probability).all() or not np.isfinite(table["change"].to_numpy(dtype=np.float64)).all():
        raise DataError("a row to choose a threshold on lacks its probability or change; leave such rows out")
    draws = draw_windows(hours_of(table["timestamp"]), seed=seed)
    best, best_bound = None, 0.0
    # Of noise panels with common moves this leaves 1 in 11 with a threshold; without it, it would be 1 in 6.
    rise = max(0.0, float(table["change"].mean()) / 100 - cost)
    # From the highest on: of two that are equally good the one that trades less is taken.
    for candidate in _candidates(probability):
        trades = trades_of(table, candidate, cost)
        if len(trades) < MINIMUM_TRADES:
            continue
        hours, net = hours_of(trades["timestamp"]), trades["net"].to_numpy()
        bound = float(np.percentile(draws.totals(hours, net), CAREFUL))
        if bound > best_bound and np.percentile(draws.totals(hours, net - rise), CAREFUL) > 0:
            best, best_bound = candidate, bound
    return best


def _candidates(probability: Floats) -> list[float]:
    """Descending; many rows may share a probability, so what a candidate really flags is looked at again."""
    quantiles = np.quantile(probability, 1 - np.array(FLAGGED_SHARES), method="higher")
    return [float(value) for value in np.unique(quantiles)[::-1] if (probability >= value).mean() <= FLAGGED_SHARES[-1]]


def break_even_precision(change: Floats, y: Labels, cost: float) -> float:
    """The precision at which buying these rows neither wins nor loses: (cost - l) / (w - l).

    w and l are the mean return of winners (y = 1) and losers; NaN where one of them is not there.
    """
    won = np.asarray(y) == 1
    if won.all() or not won.any():
        return float("nan")
    winners, losers = float(change[won].mean()) / 100, float(change[~won].mean()) / 100
    return (cost - losers) / (winners - losers)
