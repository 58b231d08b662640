"""What the published figures are made of: the ladder from the published recipe to the default one, and the SOL case."""

from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any, Final

import numpy as np
import pandas as pd

from breakout_assets.dataset.labels import HORIZON, UNIVERSE
from breakout_assets.learning.published import published_rows
from breakout_assets.learning.recipes import Recipe, recipe
from breakout_assets.learning.training import NotTrainable, fit


@dataclass(frozen=True)
class Figures:
    """The five figures that the write-up gives of a test part."""

    accuracy: float
    precision: float
    recall: float
    f1: float
    auc: float


@dataclass(frozen=True)
class Published:
    """A row of the write-up."""

    title: str
    figures: Figures


AS_PUBLISHED: Final = "as published, another period, not comparable"
PUBLISHED: Final = (
    Published("many tokens", Figures(0.62, 0.20, 0.61, 0.30, 0.62)),
    Published("SOL", Figures(0.91, 0.55, 0.87, 0.67, 0.89)),
)

# The four months in which the published figures of SOL come about, and in which they were computed again.
CASE_SYMBOL: Final = "SOL"
CASE_FIRST: Final = datetime.fromisoformat("2024-01-08")
CASE_END: Final = datetime.fromisoformat("2024-05-08")
# A window with holes is another experiment.
_LEAST_COVERAGE: Final = 0.95
# SMOTE's seed alone moves F1 by .02: one draw says little.
DRAWS: Final = 12


@dataclass(frozen=True)
class CaseRow:
    """The five figures of the SOL case in one framing."""

    title: str
    rows: int | None
    """Labelled rows with all features; None as published."""
    base_rate: float | None
    """Share of positives in the test part; None as published."""
    mean: Figures
    """Over the draws; as published, the published figures."""
    spread: Figures | None
    """One standard deviation over the draws; None as published."""


def ladder(cost: float | None = None) -> list[tuple[str, Recipe]]:
    """The recipes from `blog_exact` to `default`, one defect mended a step, each with the step's title.

    Args:
        cost: the user's own share of the money that a round trip costs; None leaves the recipes' own. Only the last
            step knows of it, since only a threshold that is sought asks for costs, and the one before asks without.
    """
    target = recipe("default", cost)
    mended: tuple[tuple[str, dict[str, Any]], ...] = (
        ("+ month fix", {"same_month_labels": False}),
        ("+ token key", {"by_symbol": False}),
        ("+ features on all rows", {"indicators_after_join": False}),
        ("+ purge", {"purge": True}),
        # No defect, but all that is left between here and `blog_fixed`: what chance alone is worth.
        ("+ own seeds (blog_fixed)", {"seed": None, "reference_only": False}),
        ("+ stationary", {"features": target.features}),
        ("+ pooled", {"scope": target.scope}),
        ("- SMOTE", {"resample": False}),
        ("+ leaf size and thinning", {"min_samples_leaf": target.min_samples_leaf, "hour_step": target.hour_step}),
        # Calibration is as good as the windows it is fitted on: more is held out for it.
        ("+ calibration", {"calibration": target.calibration, "test_share": target.test_share}),
        ("+ threshold (before costs)", {"threshold_rule": target.threshold_rule, "cost": 0.0}),
        ("+ costs", {"cost": target.cost}),
    )
    step = replace(recipe("blog_exact", cost), name="ladder 0: blog_exact")
    steps = [("blog_exact", step)]
    for number, (title, values) in enumerate(mended, start=1):
        step = replace(step, name=f"ladder {number}: {title}", **values)
        steps.append((title, step))
    return steps


def case_rows(rows: pd.DataFrame) -> pd.DataFrame | None:
    """The labelled rows of SOL from which its published figures can be computed again, by time; None if they are few.

    Only prices inside the four months count: a row is labelled only if its label ends inside them too. With prices
    from beyond, the test part holds other weeks, and the figures collapse.

    Args:
        rows: `indicator_features` rows of any tokens and hours. Where several coins have the symbol, the one with the
            largest volume is meant. Rank and market pairs may be null, as they are in candles; then they are 0.
    """
    inside = rows[
        (rows["symbol"] == CASE_SYMBOL)
        & (rows["label_status"] == "labelled")
        & (rows["timestamp"] >= CASE_FIRST)
        & (rows["label_end"] < CASE_END)
        & (rows["percent_change_7d"] <= UNIVERSE["percent_change_7d"])
        & (rows["volume_change_24h"] <= UNIVERSE["volume_change_24h"])
    ]
    if inside.empty:
        return None
    inside = inside[inside["token"] == inside.groupby("token")["volume"].mean().idxmax()]
    if len(inside) < _LEAST_COVERAGE * ((CASE_END - CASE_FIRST - HORIZON) // pd.Timedelta(hours=1)):
        return None
    # A constant tells a model nothing, and the figures were known from constants.
    known = inside.fillna({"cmc_rank": 0, "num_market_pairs": 0})
    return known.sort_values("timestamp", ignore_index=True)


def published_case(rows: pd.DataFrame, draws: int = DRAWS) -> list[CaseRow] | None:
    """SOL's published figures beside what the published recipe gives on real hours, as published and on all hours.

    Args:
        rows: as `case_rows`.
        draws: seeds of SMOTE to average over, at least two.

    Returns:
        As published; with the labels across month ends lost, as the published join loses them; with all hours. None
        where the rows are not there, or are not the prices of a coin that can be learned from.
    """
    inside = case_rows(rows)
    if inside is None:
        return None
    (_, exact), (_, all_hours), *_ = ladder()
    try:
        return [
            CaseRow("as published", None, None, PUBLISHED[1].figures, None),
            _drawn("month ends lost", inside, exact, draws),
            _drawn("all hours", inside, all_hours, draws),
        ]
    except NotTrainable:
        return None


def _drawn(title: str, inside: pd.DataFrame, by: Recipe, draws: int) -> CaseRow:
    rows = published_rows(inside, by)
    # A model's name decides SMOTE's seed.
    models = [fit(rows, by, "token", f"{CASE_SYMBOL}, draw {draw}") for draw in range(draws)]
    names = [field.name for field in fields(Figures)]
    found = np.array([[getattr(model.metrics, name) for name in names] for model in models])
    return CaseRow(
        title=title,
        rows=models[0].rows,
        base_rate=models[0].metrics.base_rate,
        mean=Figures(*found.mean(axis=0).tolist()),
        spread=Figures(*found.std(axis=0, ddof=1).tolist()),
    )
