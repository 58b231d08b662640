"""What became of predictions, and whether the market still looks like the one that was learned from.

model_monitoring/20240601T00.json       one look, named after the hour up to which results were known
"""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import pandas as pd
from upath import UPath

from breakout_assets import objects
from breakout_assets.errors import DataError
from breakout_assets.learning.drift import Drift, drift_report, flagged_share_drift
from breakout_assets.learning.known_until import newest_known, stamp
from breakout_assets.learning.monitoring import Realised, realised
from breakout_assets.learning.recipes import Recipe
from breakout_assets.market.schema import hours_between
from breakout_assets.store import Store

# Long enough for the newest sixty trades of a recipe that trades twice a day.
DAYS_BACK: Final = 65
# The recent window of the drift report, the one before it, and eight past pairs of such windows.
DRIFT_DAYS: Final = 200
_DRIFT_HOUR_STEP: Final = 6


@dataclass(frozen=True, eq=False)
class Look:
    """What was seen."""

    realised: Realised | None
    """None while no prediction is older than five days."""
    drift: Drift | None
    """None without indicator rows."""
    flagged_share: float | None
    """Share of the decided rows that was flagged; None where nothing was decided."""
    flags_shifted: bool
    """Whether that is less than a third, or more than three times, of what the evaluation flagged."""
    path: UPath


def look(store: Store, recipe: Recipe, evaluated_share: float | None = None) -> Look:
    """Compare predictions with labels, and the newest indicators with those before them; store what stops trading.

    Args:
        store: where `predictions`, `labelled_dataset` and `indicator_features` are.
        recipe: whose predictions are looked at, with the user's cost of a round trip.
        evaluated_share: share of rows that its evaluation flagged; None if it has none that lets it buy.

    Raises:
        DataError: there are no labels at all.
    """
    days = store.days_of("labelled_dataset")
    if not days:
        raise DataError("no day has labels yet; materialise labelled_dataset")
    newest = datetime.combine(days[-1], datetime.min.time()) + timedelta(days=1)
    until = newest + timedelta(days=5)  # the end of the newest label, and an hour for it to be known
    said = _said(store, recipe, newest)
    found = None if said.empty else _realised(store, recipe, said, until)
    drift = _drift(store, recipe)
    decided = said[said["decision"].isin(["buy", "pass"])]
    flagged = float((decided["decision"] == "buy").mean()) if len(decided) else None
    shifted = flagged is not None and evaluated_share is not None and flagged_share_drift(evaluated_share, flagged)
    content: dict[str, Any] = {
        "recipe_id": recipe.recipe_id,
        "until": until.isoformat(),
        "halt": bool(found and found.halt),
        "reason": found.reason if found else None,
        "last_trades": found.last_trades if found else 0,
        "last_net_low": found.last_net.low if found else None,
        "drift_alarm": bool(drift and drift.alarm),
        "flagged_share": flagged,
        "flags_shifted": shifted,
    }
    path = store.root / "model_monitoring" / f"{stamp(until)}.json"
    store.write(path, f"{json.dumps(content, indent=2, allow_nan=False)}\n".encode())
    return Look(found, drift, flagged, shifted, path)


def _said(store: Store, recipe: Recipe, newest: datetime) -> pd.DataFrame:
    """What the recipe predicted in the last weeks before `newest`."""
    hours = store.hours_there("predictions", hours_between(newest - timedelta(days=DAYS_BACK), newest))
    columns = ["token", "timestamp", "probability", "threshold", "decision", "reason", "recipe_id"]
    said = store.read_table("predictions", hours, columns)
    said = said[said["recipe_id"] == recipe.recipe_id]
    # While it is halted a recipe is judged by what it would have bought; else nothing could ever end a halt.
    held_back = (said["reason"] == "REALISED_LOSS") & (said["probability"] >= said["threshold"])
    return said.assign(decision=said["decision"].mask(held_back, "buy"))


def _realised(store: Store, recipe: Recipe, said: pd.DataFrame, until: datetime) -> Realised:
    first = said["timestamp"].min().date()
    days = [day for day in store.days_of("labelled_dataset") if day >= first]
    wanted = ["token", "timestamp", "y", "cal_price_change", "label_end", "label_status"]
    return realised(said, store.read_table("labelled_dataset", days, wanted), until, recipe.cost)


def _drift(store: Store, recipe: Recipe) -> Drift | None:
    days = store.days_of("indicator_features")[-DRIFT_DAYS:]
    rows = store.read_table("indicator_features", days, ["token", "timestamp", *recipe.features])
    rows = rows[rows["timestamp"].dt.hour % _DRIFT_HOUR_STEP == 0]
    return drift_report(rows, recipe.features) if len(rows) else None


def halted_at(store: Store, recipe: Recipe, hour: datetime) -> bool:
    """Whether the newest look that was possible by an hour stopped the recipe from trading.

    Raises:
        DataError: the file is torn or foreign.
    """
    newest = newest_known(store.root / "model_monitoring", ".json", hour)
    if newest is None:
        return False
    _, path = newest
    try:
        content = json.loads(objects.read(path))
        return bool(content["halt"]) and content["recipe_id"] == recipe.recipe_id
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is torn or foreign; materialise model_monitoring again: {error}") from error


def daily_table(found: Realised) -> pd.DataFrame:
    """The newest days first, as a reader wants them."""
    return found.daily.sort_values("day", ascending=False, ignore_index=True)
