"""One side of one stage, in a process of its own: `python -m bench.cases <stage> <side> <world> <result>`."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from bench.measure import keep, timed
from bench.stages import STAGES, Stage
from bench.world import World
from breakout_assets.learning.calibration import PROBABILITY_DIGITS

_KEY = ["token", "timestamp"]
_ALIGNED = {"score": 1e-4}  # share of values that may be far off: a tree's cut between two roundings
# Of the smaller result; the platform leaves out rows that it has quarantined, which the published way believes.
_SHARED = 0.99


def comparable(stage: Stage, rows: pd.DataFrame) -> pd.DataFrame:
    """A result in one order, with one name a column and plain numbers, whoever made it."""
    rows = rows.rename(columns={"volume_24h": "volume"}).reset_index(drop=True)
    if "id" in rows:  # which both ways know; token is the platform's word
        rows = rows.assign(token=rows["id"].astype("int64").astype("str"))
    columns = [*stage.exact, *stage.near]
    scales = [column for column in ("price", "volume") if column in rows and column not in columns]
    plain = rows[[*_KEY, *columns, *scales]].sort_values(_KEY, kind="stable", ignore_index=True)
    plain["timestamp"] = plain["timestamp"].astype("datetime64[us]")
    if "score" in plain:
        plain["score"] = plain["score"].round(PROBABILITY_DIGITS)
    return plain.astype({"token": "str", **dict.fromkeys([*columns, *scales], "float64")})


def difference(stage: Stage, source: pd.DataFrame, ours: pd.DataFrame, within: float = 0.0) -> str | None:
    """Why two results are not equal enough for a ratio; None if they are.

    Where one side computed rows that the other was not asked for, the rows of both are compared; all but a hundredth of
    the smaller result must be there, and half of the published way's. What the stage wants exact may be `within` so
    much of itself.
    """
    if len(source) != len(ours) or not source[_KEY].equals(ours[_KEY]):
        both = source[_KEY].merge(ours[_KEY], on=_KEY)
        enough = max(1, _SHARED * min(len(source), len(ours)), len(source) / 2)
        if (stage.exact and not stage.near) or len(both) < enough:
            return f"{len(source)} rows against {len(ours)}, {len(both)} of them in both"
        source, ours = (side.merge(both, on=_KEY).sort_values(_KEY, ignore_index=True) for side in (source, ours))
    for column in stage.exact:
        a, b = source[column].to_numpy(), ours[column].to_numpy()
        unlike = ~((a == b) | (np.abs(a - b) <= within * np.abs(b)) | (np.isnan(a) & np.isnan(b)))
        if unlike.any():
            n = int(np.argmax(unlike))
            return f"{unlike.sum()} of {len(a)} values of {column} differ, the first {a[n]!r} against {b[n]!r}"
    for column, allowed in stage.near.items():
        far = _far(column, source, ours, allowed)
        if far.mean() > _ALIGNED.get(column, 0):
            n = int(np.argmax(far))
            a, b = source[column].iloc[n], ours[column].iloc[n]
            return (
                f"{far.sum()} of {len(far)} values of {column} are more than {allowed:g} apart, first {a!r} and {b!r}"
            )
    return None


def unequal_files(stage: str, source: Path, ours: Path, within: float = 0.0) -> str | None:
    """`difference` of two results in files."""
    which = STAGES[stage]
    theirs, found = (comparable(which, pd.read_parquet(file)) for file in (source, ours))
    return difference(which, theirs, found, within)


def _far(
    column: str, source: pd.DataFrame, ours: pd.DataFrame, allowed: float
) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    a, b = source[column].to_numpy(), ours[column].to_numpy()
    scale = np.maximum(np.abs(a), np.abs(b))
    # A small difference of large numbers is as exact as these are.
    if column == "cal_price_change":  # percent, of prices that are hardly apart
        scale = np.maximum(scale, 1.0)
    elif column in ("MACD", "MACD_signal"):
        scale = ours["price"].to_numpy()
    elif column in ("OBV", "VPT", "pvt"):
        scale = np.maximum(scale, ours.groupby("token")["volume"].transform("max").to_numpy())
    apart = np.abs(a - b) > allowed * np.where(scale > 0, scale, 1.0)
    return np.asarray(apart | (np.isnan(a) != np.isnan(b)))


def main(stage_name: str, side: str, world: str, result: str) -> None:
    """Measure, and leave result and cost in files."""
    stage = STAGES[stage_name]
    market = World.read(Path(world))
    rows, cost = timed(stage.sides[side](market))
    keep(comparable(stage, stage.compared(market, rows)), cost, Path(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
