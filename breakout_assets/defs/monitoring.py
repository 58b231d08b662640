"""The monitoring asset: what became of predictions, and whether the market is still the one that was learned from."""

from typing import Any

import dagster as dg

from breakout_assets.defs.dataset import indicator_features, labelled_dataset
from breakout_assets.defs.evaluation import GROUP, OWNERS
from breakout_assets.defs.models import predictions
from breakout_assets.defs.partitions import ONE_RUN
from breakout_assets.defs.reporting import check_results, checks_of, preview, refusing
from breakout_assets.settings import Settings
from breakout_assets.store import Store
from breakout_assets.validation import CHECKS


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    backfill_policy=ONE_RUN,
    kinds={"pandas"},
    deps=[predictions, labelled_dataset, indicator_features],
    check_specs=checks_of("model_monitoring", CHECKS["model_monitoring"]),
)
def model_monitoring(
    context: dg.AssetExecutionContext, store: dg.ResourceParam[Store], settings: dg.ResourceParam[Settings]
) -> dg.MaterializeResult:
    """What became of the predictions of the last weeks, five days late, and whether the market still looks the same.

    When the last sixty trades have lost more than two percent each, by the lower bound of their mean, `predictions`
    stops buying until a later look says otherwise. Drift alone stops nothing: it is a reason to train and to evaluate.
    """
    from breakout_assets.learning.evaluation_files import evidence_at
    from breakout_assets.learning.promoting import speaking_recipe
    from breakout_assets.learning.watching import daily_table, look

    with refusing():
        by = speaking_recipe(store, settings.recipe, settings.round_trip_cost)
        evidence = evidence_at(store, by)
        evaluated = evidence.figures["own"]["flagged_share"] if evidence and evidence.badge else None
        seen = look(store, by, evaluated)
    metadata: dict[str, Any] = {
        "recipe": f"{by.name} ({by.recipe_id})",
        "path": dg.MetadataValue.path(str(seen.path)),
    }
    findings: dict[str, str] = {}
    result = seen.realised
    if result is None:
        metadata["realised"] = "no prediction of this recipe is old enough"
    else:
        metadata |= {
            "until": str(result.until),
            "predictions": result.rows,
            "base_rate": _rounded(result.base_rate.value),
            "flagged": result.flagged,
            "precision": _rounded(result.precision.value),
            "brier": _rounded(result.brier),
            "calibration_error": _rounded(result.calibration_error),
            "trades": result.trades,
            "net_per_trade": _rounded(result.net_per_trade.value),
            "daily": preview(daily_table(result), result.daily.columns, rows=15),
        }
        if result.halt:
            findings["no_realised_loss"] = f"the last {result.last_trades} trades lose; nothing more is bought"
    if seen.flagged_share is not None:
        metadata["flagged_share"] = _rounded(seen.flagged_share)
    if seen.flags_shifted:
        findings["no_drift"] = (
            f"{seen.flagged_share:.1%} of the decided rows are flagged; its evaluation flagged {evaluated:.1%}"
        )
    if seen.drift is not None:
        shifted = seen.drift.table.sort_values("psi", ascending=False, kind="stable")
        metadata |= {
            "drift": seen.drift.verdict,
            "drift_by_feature": preview(shifted, ["feature", "psi", "limit", "drifted"], rows=20),
        }
        if seen.drift.alarm:
            findings["no_drift"] = seen.drift.verdict
    judged = check_results(context, {by.name: findings}, dg.AssetCheckSeverity.WARN)
    return dg.MaterializeResult(metadata=metadata, check_results=judged)


def _rounded(value: float) -> float | str:
    """A figure, or the word for one that nothing stands behind."""
    return round(float(value), 4) if value == value else "none yet"
