"""Evaluation assets: what recipes would have said, whether that was skill or luck, and what became of predictions."""

from typing import Any, Final

import dagster as dg
import pandas as pd

from breakout_assets.defs.dataset import indicator_features
from breakout_assets.defs.market import daily_snapshots
from breakout_assets.defs.partitions import ONE_RUN
from breakout_assets.defs.reporting import Findings, Metadata, check_results, checks_of, picture, refusing
from breakout_assets.errors import DataError
from breakout_assets.learning.recipes import RECIPES, Recipe, recipe
from breakout_assets.settings import Settings
from breakout_assets.store import Store
from breakout_assets.validation import CHECKS, check_out_of_sample

GROUP: Final = "evaluation"
OWNERS: Final = ["team:research"]
# The fewest with which a p below .05 can be seen: it is 1/21 at least.
TWINS: Final = 20


class EvaluationConfig(dg.Config):
    """What is evaluated, and how thoroughly."""

    recipe: str | None = None
    """The recipe to evaluate; empty: the one that speaks, which is the promoted one or else `BREAKOUT_RECIPE`."""
    twins: int = TWINS
    """Placebo twins. Fewer than 20 can prove nothing."""
    tokens: int = 100
    """The most tokens to evaluate on, chosen by the hash of their names."""
    workers: int = 2
    """Processes."""


class ComparisonConfig(dg.Config):
    """How thoroughly recipes are compared."""

    twins: int = TWINS
    """Placebo twins of each recipe that pools. A recipe with a model for each token gets none: it would take hours."""
    tokens: int = 100
    """The most tokens to compare on, chosen by the hash of their names."""
    workers: int = 2
    """Processes."""


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    backfill_policy=ONE_RUN,
    kinds={"scikitlearn", "parquet"},
    deps=[indicator_features, daily_snapshots],
    check_specs=checks_of("out_of_sample", CHECKS["out_of_sample"]),
)
def out_of_sample(
    context: dg.AssetExecutionContext,
    config: EvaluationConfig,
    store: dg.ResourceParam[Store],
    settings: dg.ResourceParam[Settings],
) -> dg.MaterializeResult:
    """What a recipe would have said of every hour of at least four test blocks, by models that had not seen them.

    One row is one coin at one hour of a test block: score, probability, the threshold of that block's model, and what
    the price did. `twin` 0 is the market; the others are placebo twins, in which nothing can be foreseen. Every
    figure of `model_report` is computed from this table. Kept at `out_of_sample/<recipe>-<id>/<until>.parquet`.
    """
    from breakout_assets.learning.evaluation_files import save_table
    from breakout_assets.learning.promoting import chosen_recipe
    from breakout_assets.learning.training_set import evaluation_rows
    from breakout_assets.learning.walk_forward import out_of_sample as walk

    with refusing():
        by = chosen_recipe(store, config.recipe, settings.recipe, settings.round_trip_cost)
        rows, market = evaluation_rows(store, config.tokens, by.min_rows)
        table = walk(rows, market, by, config.twins, config.workers, _progress(context, by.name))
        path = save_table(store, by, table)
    metadata: Metadata = {
        "recipe": f"{by.name} ({by.recipe_id})",
        "rows": int((table["twin"] == 0).sum()),
        "tokens": int(table["token"].nunique()),
        "folds": int(table["fold"].nunique()),
        "twins": int(table["twin"].max()),
        "first_hour": str(table["timestamp"].min()),
        "evaluated_until": str(table["label_end"].max()),
        "path": dg.MetadataValue.path(str(path)),
    }
    findings = {by.name: check_out_of_sample(table)}
    return dg.MaterializeResult(metadata=metadata, check_results=check_results(context, findings))


def _progress(context: dg.AssetExecutionContext, what: str) -> Any:
    def told(done: int, total: int) -> None:
        context.log.info("%s: %d of %d parts", what, done, total)

    return told


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    backfill_policy=ONE_RUN,
    kinds={"html", "matplotlib"},
    deps=[out_of_sample, indicator_features],
    check_specs=checks_of("model_report", CHECKS["model_report"]),
)
def model_report(
    context: dg.AssetExecutionContext,
    config: EvaluationConfig,
    store: dg.ResourceParam[Store],
    settings: dg.ResourceParam[Settings],
) -> dg.MaterializeResult:
    """Whether a recipe's newest out-of-sample predictions are skill, luck, or too little to tell.

    Its page opens here and, complete, as `report.html` in the store; `evidence.json` beside it is what `predictions`
    asks for: a recipe without a badge buys nothing.
    """
    from breakout_assets.learning.evaluation_files import newest_table, read_table, save_report
    from breakout_assets.learning.evidence import evaluate_table, evidence_json
    from breakout_assets.learning.model_card import model_card
    from breakout_assets.learning.promoting import chosen_recipe
    from breakout_assets.learning.report import model_page
    from breakout_assets.learning.training_set import evaluation_rows
    from breakout_assets.learning.walk_forward import permuted_importances, plan_of

    with refusing():
        by = chosen_recipe(store, config.recipe, settings.recipe, settings.round_trip_cost)
        path = newest_table(store, by)
        if path is None:
            raise DataError(f"recipe {by.name} has no out_of_sample table; materialise out_of_sample with this recipe")
        table = read_table(path)
        evaluation = evaluate_table(table, cost=by.cost, reference_only=by.reference_only)
        rows, _ = evaluation_rows(store, config.tokens, by.min_rows, market=False)
        page = model_page(evaluation, table, by, permuted_importances(rows, by, plan_of(table)))
        card = model_card(evaluation, by, _newest_manifest(store, by), _universe(table))
        pages = {"report.html": page.html, "model_card.md": card}
        folder = save_report(store, by, evaluation.evaluated_until, pages, evidence_json(evaluation))
    metadata: Metadata = {
        "recipe": f"{by.name} ({by.recipe_id})",
        "verdict": dg.MetadataValue.md(page.markdown),
        "badge": evaluation.verdict.badge,
        "reasons": ", ".join(evaluation.verdict.reasons) or "none",
        "pooled_auc": round(evaluation.auc.value, 4),
        "placebo_p": evaluation.placebo.p if evaluation.placebo.p is not None else "no twins",
        "independent_windows": evaluation.windows,
        "report": dg.MetadataValue.path(str(folder / "report.html")),
        "model_card": dg.MetadataValue.md(card),
        **{f"picture/{name}": picture(png, name.replace("_", " ")) for name, png in page.pictures.items()},
    }
    missing = ", ".join(evaluation.verdict.reasons)
    findings: dict[str, Findings] = {by.name: {} if evaluation.verdict.badge else {"edge_shown": missing}}
    judged = check_results(context, findings, dg.AssetCheckSeverity.WARN)
    return dg.MaterializeResult(metadata=metadata, check_results=judged)


def _universe(table: pd.DataFrame) -> str:
    return f"{table['token'].nunique()} tokens, chosen by the hash of their names among those with enough history"


def _newest_manifest(store: Store, by: Recipe) -> dict[str, Any]:
    """The manifest of the recipe's newest pooled model; empty if none has been trained."""
    from breakout_assets.defs.partitions import POOLED
    from breakout_assets.learning.generations import generations, read_manifest

    found = list(generations(store.model_folder(POOLED), by).values())
    return read_manifest(found[-1]) if found else {}


@dg.asset(
    group_name=GROUP,
    owners=OWNERS,
    backfill_policy=ONE_RUN,
    kinds={"html", "matplotlib"},
    deps=[indicator_features, daily_snapshots],
)
def recipe_comparison(
    context: dg.AssetExecutionContext,
    config: ComparisonConfig,
    store: dg.ResourceParam[Store],
    settings: dg.ResourceParam[Settings],
) -> dg.MaterializeResult:
    """All recipes on the same coins and test blocks, beside baselines, placebo and the published figures.

    The ladder below begins at the published method and mends one defect a step, so that what each is worth shows.
    Kept as one page, `recipe_comparison/<until>/report.html`; each recipe's predictions are kept in `out_of_sample`.
    """
    from breakout_assets.learning.comparing import compare

    def told(what: str, evaluated: int, total: int) -> None:
        context.log.info("%d of %d evaluations, next: %s", evaluated, total, what)

    with refusing():
        recipes = [recipe(name, settings.round_trip_cost) for name in RECIPES]
        done = compare(store, recipes, config.tokens, config.twins, config.workers, told)
    return dg.MaterializeResult(
        metadata={
            "summary": dg.MetadataValue.md(done.page.markdown),
            "report": dg.MetadataValue.path(str(done.path)),
            "evaluated_until": str(done.until),
            **{f"picture/{name}": picture(png, name.replace("_", " ")) for name, png in done.page.pictures.items()},
        }
    )
