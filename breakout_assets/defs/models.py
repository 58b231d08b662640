"""Model assets: one model a token, one over all of them, and what they say about each hour's coins."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import dagster as dg

from breakout_assets.defs.dataset import indicator_features, live_indicators
from breakout_assets.defs.evaluation import model_report
from breakout_assets.defs.partitions import (
    EVERYTHING,
    HOURS,
    ONE_RUN,
    POOLED,
    TOKENS,
    hour_of,
)
from breakout_assets.defs.reporting import (
    MOST_LISTED,
    WHEN_PASSING,
    Findings,
    Made,
    Metadata,
    bars,
    check_results,
    checks_of,
    each_partition,
    picture,
    preview,
    refusing,
)
from breakout_assets.errors import SettingsError
from breakout_assets.settings import Settings
from breakout_assets.store import Store
from breakout_assets.trading.account import Account
from breakout_assets.validation import CHECKS, check_model, check_predictions

GROUP = "models"
OWNERS = ["team:research"]
# Models of a run that are shown with a chart: each takes a tenth of a second and 30 kB of the event log, and of a
# thousand nobody looks at them.
MOST_DRAWN = 10
LOGGED_EVERY = 20


class TrainingConfig(dg.Config):
    """How a training is done."""

    recipe: str | None = None
    """The recipe to train by; empty: the one that speaks, which is the promoted one or else `BREAKOUT_RECIPE`."""
    as_of: str | None = None
    """Train as if it were this UTC time (`2024-06-01T00:00`): only labels that had ended by then are used. Empty: all
    labels in the store, every one of which has ended."""
    workers: int | None = None
    """Processes that train side by side, 0.4 GB each; empty: one for each core where there are many models."""


@dg.asset(
    partitions_def=TOKENS,
    backfill_policy=ONE_RUN,
    group_name=GROUP,
    owners=OWNERS,
    kinds={"scikitlearn"},
    output_required=False,  # a token without enough history has no model, and the others have theirs
    deps=[dg.AssetDep(indicator_features, partition_mapping=EVERYTHING)],
    check_specs=checks_of("token_model", CHECKS["token_model"]),
)
def token_model(
    context: dg.AssetExecutionContext,
    config: TrainingConfig,
    store: dg.ResourceParam[Store],
    settings: dg.ResourceParam[Settings],
) -> Iterator[dg.AssetMaterialization | dg.AssetCheckResult]:
    """The model that predicts one token; the partition `ALL` is the pooled one, over all tokens.

    One partition is one token's newest model, with its manifest. A recipe that pools trains `ALL` alone, and tokens
    that are asked for are left to it. The five metrics come from the newest fifth of the rows, which the scored model
    had not seen; what serves is fitted once more on all rows. A token with too little history is left to the pooled
    model and shows in the check `all_trained`.
    """
    from breakout_assets.learning.promoting import chosen_recipe
    from breakout_assets.learning.sharding import Trained, Training, train_models
    from breakout_assets.learning.training import NotTrainable

    as_of = _as_of(config)
    with refusing():
        by = chosen_recipe(store, config.recipe, settings.recipe, settings.round_trip_cost)
        if by.reference_only:
            raise SettingsError(f"recipe {by.name} is kept for comparison and cannot serve; see recipe_comparison")
    asked = list(context.partition_keys)
    names = [name for name in asked if name == POOLED] if by.scope == "pooled" else asked
    if len(names) < len(asked):
        context.log.info("recipe %s pools: %d tokens are left to %s", by.name, len(asked) - len(names), POOLED)
    findings: dict[str, Findings] = {}
    refused: dict[str, str] = {}
    with refusing():
        outcomes = train_models(Training(store, by, as_of), names, config.workers)
        for number, outcome in enumerate(outcomes, start=1):
            name = outcome.name
            if isinstance(outcome, Trained):
                drawn = name == POOLED or len(names) <= MOST_DRAWN
                metadata, findings[name] = _told(outcome, as_of, drawn=drawn)
                yield dg.AssetMaterialization("token_model", partition=name, metadata=metadata)
            elif isinstance(outcome.error, NotTrainable):
                findings[name] = {"all_trained": str(outcome.error)}
                context.log.warning("%s: %s", name, outcome.error)
            else:
                refused[name] = str(outcome.error)
                context.log.error("%s: %s", name, outcome.error)
            if number % LOGGED_EVERY == 0 or number == len(names):
                context.log.info("%d of %d models", number, len(names))
    yield from check_results(context, findings)
    if refused:
        raise _not_trained(refused, len(names))


def _not_trained(refused: Findings, asked: int) -> dg.Failure:
    first = next(iter(refused))
    return dg.Failure(
        f"{len(refused)} of {asked} models could not be trained, the others are. {first}: {refused[first]}",
        metadata={"refused": dict(list(refused.items())[:MOST_LISTED])},
        allow_retries=False,
    )


def _as_of(config: TrainingConfig) -> datetime | None:
    """The cut-off, naive UTC; a wrong one is refused before anything is trained."""
    if not config.as_of:
        return None
    try:
        moment = datetime.fromisoformat(config.as_of)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is not None:
        raise dg.Failure(
            f"as_of must be a UTC time like 2024-06-01T00:00, without a zone, not {config.as_of!r}", allow_retries=False
        )
    return moment


def _told(trained: Any, as_of: datetime | None, *, drawn: bool) -> Made:
    """What the UI shows of a model, out of its manifest; a `drawn` one with a chart, which is three times the rest."""
    from pandas import Series

    from breakout_assets.learning.evaluation import importance_chart

    manifest, metrics = trained.manifest, trained.manifest["metrics"]
    # Null: undefined.
    scores = {
        name: metrics[name] for name in ("accuracy", "precision", "recall", "f1", "auc") if metrics[name] is not None
    }
    importances = Series(manifest["importances"], dtype="float64")
    metadata: Metadata = {
        "rows": manifest["rows"],
        "positives": manifest["positives"],
        "trained_until": manifest["trained_until"],
        **{name: round(float(value), 4) for name, value in scores.items()},
        **({"auc_undefined_because": metrics["auc_reason"]} if metrics["auc_reason"] else {}),
        "test_rows": metrics["rows"],
        "test_base_rate": round(float(metrics["base_rate"]), 4),
        "always_no_accuracy": round(float(metrics["always_no_accuracy"]), 4),
        "recipe": f"{manifest['recipe']['name']} ({manifest['recipe_id']})",
        **(
            {"pays_from_probability": round(manifest["own_threshold"], 4)}
            if manifest["own_threshold"] is not None
            else {}
        ),
        **({"too_little": ", ".join(manifest["admission"])} if manifest["admission"] else {}),
        "expires_at": manifest["expires_at"],
        "model_hash": manifest["model_hash"],
        "path": dg.MetadataValue.path(trained.folder),
        "top_features": bars(importances),
        **({"feature_importances": picture(importance_chart(importances), "feature importances")} if drawn else {}),
        "trained_on": trained.origin,
        "takes_over": trained.verdict,
    }
    return metadata, check_model(scores, datetime.fromisoformat(manifest["trained_until"]), as_of)


@dg.asset(
    partitions_def=HOURS,
    backfill_policy=ONE_RUN,
    group_name=GROUP,
    owners=OWNERS,
    kinds={"scikitlearn", "parquet"},
    deps=[live_indicators, model_report, dg.AssetDep(token_model, partition_mapping=EVERYTHING)],
    check_specs=checks_of("predictions", CHECKS["predictions"]),
    retry_policy=WHEN_PASSING,
)
def predictions(
    context: dg.AssetExecutionContext,
    store: dg.ResourceParam[Store],
    settings: dg.ResourceParam[Settings],
    account: dg.ResourceParam[Account],
) -> dg.MaterializeResult:
    """How likely each coin is to be more than 10 % up in five days.

    One row is one coin at that hour: probability, threshold, decision (`buy`, `pass`) and the model behind them, its
    own or the pooled one (`fallback` says why); or `none` with the reason. Only models that had seen no price after
    the hour are asked, and only a recipe whose evaluation had shown an edge by then decides to buy.
    """
    from breakout_assets.learning.evaluation_files import doubt_at
    from breakout_assets.learning.predicting import ModelShelf, predict_hour
    from breakout_assets.learning.promoting import speaking_recipe

    shelves: dict[str, ModelShelf] = {}

    def make(key: str) -> Made:
        hour = hour_of(key)
        live = store.read_table("live_indicators", [hour])
        by = speaking_recipe(store, settings.recipe, settings.round_trip_cost, hour)
        shelf = shelves.setdefault(by.recipe_id, ModelShelf(store, by))
        doubt = doubt_at(store, by, hour)
        rows = predict_hour(live, shelf, hour, doubt, trusting=settings.trade_without_evidence)
        path = store.write_table("predictions", hour, rows)
        models = shelf.models_at(hour)
        unreadable = models.about["flaw"].dropna().to_dict()
        top = rows.sort_values(["probability", "token"], ascending=[False, True], na_position="last")
        metadata = {
            "recipe": f"{by.name} ({by.recipe_id})",
            "trusted": "without evidence" if settings.trade_without_evidence else doubt or "yes",
            "probability_of": f"a price more than 10 % up after 120 hours; positions are {account.rules.exit_rule}",
            "rows": len(rows),
            "predicted": int(rows["probability"].notna().sum()),
            "buy": int((rows["decision"] == "buy").sum()),
            "reasons": {str(reason): int(n) for reason, n in rows["reason"].value_counts().items()},
            "pack_hash": models.digest,
            "models": len(models.table),
            **({"unreadable_models": dict(list(unreadable.items())[:MOST_LISTED])} if len(unreadable) else {}),
            "path": dg.MetadataValue.path(str(path)),
            "top_ten": preview(top, ["token", "name", "price", "probability", "decision", "model_scope"], rows=10),
        }
        return metadata, check_predictions(rows, live["token"].nunique())

    return each_partition(context, make)
