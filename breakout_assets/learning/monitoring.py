"""What predictions were worth, five days later, and when losses must stop trading."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
import pandas as pd

from breakout_assets.errors import DataError
from breakout_assets.learning.evidence import Interval
from breakout_assets.learning.splits import LABEL_DELAY
from breakout_assets.learning.statistics import (
    HORIZON,
    LEVELS,
    brier,
    draw_windows,
    expected_calibration_error,
    hours_of,
    independent_windows,
)
from breakout_assets.learning.thresholds import net_interval, trades_of

REALISED_LOSS: Final = "REALISED_LOSS"
# Fewer trades say more about their week than about the model.
LAST_TRADES: Final = 60
# Share of the money that a trade may lose, in the lower bound: less is within what costs and luck explain.
LOSS_LIMIT: Final = -0.02
_HORIZON: Final = pd.Timedelta(hours=HORIZON)
_KEY: Final = ["token", "timestamp"]


@dataclass(frozen=True, eq=False)
class Realised:
    """The predictions of a window whose five days were over, and what became of them.

    Intervals are None below 15 independent windows of five days; 30 days hold six.
    """

    until: datetime
    """Nothing that became known later is in any of these figures, naive UTC."""
    first_hour: datetime | None
    last_hour: datetime | None
    """The hours of the first and of the last prediction in the window; None without any."""
    rows: int
    """Predictions with a probability, whatever was decided, whose label was known."""
    windows: int
    """Windows of five days in calendar time that the rows fill without overlap."""
    base_rate: Interval
    flagged: int
    """Rows decided `buy`."""
    precision: Interval
    brier: float
    calibration_error: float
    trades: int
    """Purchases with a known result: one a token within five days."""
    unresolved: int
    """Purchases whose five days are over and whose later price is missing; they are in no profit figure."""
    net_per_trade: Interval
    """Share of the money, after costs."""
    last_trades: int
    """How many of the newest trades the halt looks at, `LAST_TRADES` at most, also from before the window."""
    last_net: Interval
    """Of these. With bounds even where few windows hold them: a loss must stop trading before it is well proven."""
    halt: bool
    reason: str | None
    """`REALISED_LOSS` where trading must stop."""
    daily: pd.DataFrame
    """One row a day of prediction: day, rows, flagged, precision (NaN without flagged rows), brier, net (sum)."""


def realised(
    predictions: pd.DataFrame,
    labelled: pd.DataFrame,
    until: datetime,
    cost: float,
    window_days: int = 30,
    seed: int = 0,
) -> Realised:
    """Join predictions with what became of them, for the newest `window_days` whose labels had ended by `until`.

    A prediction that was not to be traded on (decision `none`) counts for Brier score and calibration if it has a
    probability, and for no trade. Purchases are followed through all predictions given, so that one from before the
    window still holds its token.

    Args:
        predictions: columns of `tables.PREDICTIONS`, any hours, at least from five days before the window on. The
            halt needs the newest 60 trades: give more days where trades are rare.
        labelled: token, timestamp, y, cal_price_change (percent), label_end, label_status, of the same hours or more.
        until: naive UTC; a label counts if it ended an hour or more before.
        cost: share of the money that a round trip costs.
        window_days: length of the window.
        seed: of the intervals.

    Raises:
        DataError: a column is absent, a token has an hour twice, a purchase has no probability, or `until` is no
            naive time.
    """
    _check(predictions, labelled, until, window_days)
    known = _with_outcomes(predictions, labelled, until)
    last = pd.Timestamp(until) - LABEL_DELAY - _HORIZON
    after = last - pd.Timedelta(days=window_days)
    rows = known[known["probability"].notna() & known["y"].notna() & (known["timestamp"] > after)]
    purchases = trades_of(known[known["decision"].eq("buy") & (known["timestamp"] <= last)], 0.0, cost)
    resolved = purchases[purchases["net"].notna()]
    newest = resolved.sort_values(["timestamp", "token"], kind="stable").tail(LAST_TRADES)
    last_net = _bounded_net(newest, seed)
    halt = len(newest) == LAST_TRADES and last_net.low is not None and last_net.low < LOSS_LIMIT
    in_window = resolved[resolved["timestamp"] > after]
    base_rate, precision, net = _intervals(rows, in_window, seed)
    y, p = rows["y"].to_numpy(dtype=np.int64), rows["probability"].to_numpy(dtype=np.float64)
    return Realised(
        until=until,
        first_hour=rows["timestamp"].min().to_pydatetime() if len(rows) else None,
        last_hour=rows["timestamp"].max().to_pydatetime() if len(rows) else None,
        rows=len(rows),
        windows=independent_windows(hours_of(rows["timestamp"])),
        base_rate=base_rate,
        flagged=int(rows["decision"].eq("buy").sum()),
        precision=precision,
        brier=brier(y, p) if len(rows) else np.nan,
        calibration_error=expected_calibration_error(y, p) if len(rows) else np.nan,
        trades=len(in_window),
        unresolved=int((purchases["net"].isna() & (purchases["timestamp"] > after)).sum()),
        net_per_trade=net,
        last_trades=len(newest),
        last_net=last_net,
        halt=halt,
        reason=REALISED_LOSS if halt else None,
        daily=_daily(rows, in_window),
    )


def _check(predictions: pd.DataFrame, labelled: pd.DataFrame, until: datetime, window_days: int) -> None:
    wanted = {
        "predictions": (predictions, (*_KEY, "probability", "decision")),
        "labelled_dataset": (labelled, (*_KEY, "y", "cal_price_change", "label_end", "label_status")),
    }
    for table, (frame, columns) in wanted.items():
        missing = [column for column in columns if column not in frame]
        if missing:
            raise DataError(f"{table} lacks the columns {', '.join(missing)}; materialise it again")
        twice = frame[frame.duplicated(_KEY)]
        if len(twice):
            row = twice.iloc[0]
            raise DataError(f"{table}: {row['token']} has the hour {row['timestamp']} more than once; give it once")
    unfounded = predictions[predictions["decision"].eq("buy") & predictions["probability"].isna()]
    if len(unfounded):
        row = unfounded.iloc[0]
        raise DataError(
            f"predictions: {row['token']} at {row['timestamp']} is to be bought without a probability; "
            "materialise that hour again"
        )
    if until.tzinfo is not None:
        raise DataError(f"until is {until}; hours are naive UTC")
    if window_days < 1:
        raise DataError(f"a window of {window_days} days holds nothing; give a day or more")


def _with_outcomes(predictions: pd.DataFrame, labelled: pd.DataFrame, until: datetime) -> pd.DataFrame:
    """Each prediction with `y` and `change` as floats, NaN where the label was not known by `until`."""
    ended = labelled["label_status"].eq("labelled") & (labelled["label_end"] + LABEL_DELAY <= pd.Timestamp(until))
    outcomes = labelled.loc[ended, [*_KEY, "y"]].assign(change=labelled.loc[ended, "cal_price_change"])
    known = predictions[[*_KEY, "probability", "decision"]].merge(outcomes, on=_KEY, how="left", validate="1:1")
    return known.astype({"probability": "float64", "y": "float64", "change": "float64"})


def _intervals(rows: pd.DataFrame, trades: pd.DataFrame, seed: int) -> tuple[Interval, Interval, Interval]:
    """Base rate, precision of flagged rows, net of a trade; whole calendar windows are drawn."""
    if rows.empty:
        nothing = Interval(np.nan, None, None)
        return nothing, nothing, nothing
    draws = draw_windows(hours_of(rows["timestamp"]), seed=seed)
    flagged = rows[rows["decision"].eq("buy")]
    shares = [
        _interval(
            part["y"], draws.ratio_interval(hours_of(part["timestamp"]), part["y"].to_numpy(), np.ones(len(part)))
        )
        for part in (rows, flagged)
    ]
    return shares[0], shares[1], _interval(trades["net"], net_interval(trades, draws))


def _interval(values: pd.Series, bounds: tuple[float, float] | None) -> Interval:
    low, high = bounds if bounds is not None else (None, None)
    return Interval(float(values.mean()), low, high)


def _bounded_net(trades: pd.DataFrame, seed: int) -> Interval:
    """Mean net of these trades; the bounds are the mean itself where one window of five days holds them all."""
    if trades.empty:
        return Interval(np.nan, None, None)
    hours = hours_of(trades["timestamp"])
    draws = draw_windows(hours, seed=seed)
    count = draws.totals(hours, np.ones(len(trades)))
    total = draws.totals(hours, trades["net"].to_numpy(dtype=np.float64))
    mean = np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
    low, high = np.nanpercentile(mean, LEVELS)
    return Interval(float(trades["net"].mean()), float(low), float(high))


def _daily(rows: pd.DataFrame, trades: pd.DataFrame) -> pd.DataFrame:
    """A picture's series; a day without purchases has a net of 0."""
    flagged = rows["decision"].eq("buy")
    by_row = rows.assign(
        day=rows["timestamp"].dt.normalize(),
        flagged=flagged,
        hit=rows["y"].where(flagged),
        miss=(rows["probability"] - rows["y"]) ** 2,
    )
    daily = by_row.groupby("day").agg(
        rows=("y", "size"), flagged=("flagged", "sum"), precision=("hit", "mean"), brier=("miss", "mean")
    )
    net = trades.groupby(trades["timestamp"].dt.normalize())["net"].sum()
    return daily.assign(net=net.reindex(daily.index, fill_value=0.0)).reset_index()
