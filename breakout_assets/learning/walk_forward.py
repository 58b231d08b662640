"""What a recipe would have said: out-of-sample predictions of an expanding, purged walk through the past.

Each test block is predicted by models of `training.fit`, the function that trains what serves, from the rows whose
label was known when the block begins. All blocks together are the `out_of_sample` table, from which every metric,
picture and profit is computed, and from nothing else.

Beside the market itself the table holds placebo twins: the same coins with returns drawn anew in blocks, in which
nothing can be foreseen. What a recipe scores on them is what it scores by luck.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from sklearn.inspection import permutation_importance
from sklearn.pipeline import make_pipeline

from breakout_assets.dataset.features import with_indicators
from breakout_assets.dataset.labels import SEGMENT_COLUMNS, label_rows
from breakout_assets.errors import DataError
from breakout_assets.learning.placebo import twin_market
from breakout_assets.learning.published import published_rows
from breakout_assets.learning.recipes import POOLED, Recipe
from breakout_assets.learning.selection import feature_values
from breakout_assets.learning.splits import purged_walk_forward
from breakout_assets.learning.training import FittedModel, NotTrainable, fit
from breakout_assets.tables import conform

LEAST_FOLDS: Final = 4
# Days of a test block: less than two weeks hold under three independent labels, after a month a model is outdated.
LEAST_TEST_DAYS: Final = 14
MOST_TEST_DAYS: Final = 30
# Days that the first fold trains on: a month of rows and the purge.
LEAST_TRAIN_DAYS: Final = 35
# Twins are predicted at every sixth hour: neighbouring hours say nothing new, and twenty twins are twenty markets.
TWIN_HOUR_STEP: Final = 6
# Rows of the last block on which features are shuffled; more would say the same.
PERMUTED_ROWS: Final = 5000
PERMUTATIONS: Final = 5

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Plan:
    """The test blocks, one after the other: the first hour of each, and the hour after its last."""

    blocks: tuple[tuple[datetime, datetime], ...]


def plan_for(rows: pd.DataFrame) -> Plan:
    """Test blocks over the newer half of the days that have labels; never fewer than four.

    Days are counted back from the last labelled hour, and only those with a label count: the weeks of an outage would
    make blocks in which nothing is predicted.

    Raises:
        DataError: the history is too short for four blocks and something to train on before them.
    """
    hours = rows.loc[rows["label_status"] == "labelled", "timestamp"]
    needed = LEAST_FOLDS * LEAST_TEST_DAYS + LEAST_TRAIN_DAYS
    ages = np.unique((hours.max() - hours) // pd.Timedelta(days=1))
    if len(ages) < needed:
        raise DataError(
            f"{len(ages)} days have labels; {LEAST_FOLDS} test blocks and what is trained on before them need "
            f"{needed}. A figure from less would be luck; collect, or import, a longer history"
        )
    days = min(max(len(ages) // (2 * LEAST_FOLDS), LEAST_TEST_DAYS), MOST_TEST_DAYS)
    folds = max(LEAST_FOLDS, len(ages) // 2 // days)
    end = (hours.max() + pd.Timedelta(hours=1)).to_pydatetime()
    newest_first = [ages[days * number : days * (number + 1)] for number in range(folds)]
    return Plan(
        tuple(
            (end - timedelta(days=int(block[-1]) + 1), end - timedelta(days=int(block[0])))
            for block in reversed(newest_first)
        )
    )


def plan_of(table: pd.DataFrame) -> Plan:
    """The test blocks that an `out_of_sample` table was made by, as far as they hold predictions."""
    spans = table[table["twin"] == 0].groupby("fold")["timestamp"].agg(["min", "max"])
    ends = spans["max"] + pd.Timedelta(hours=1)
    return Plan(tuple(zip(spans["min"].dt.to_pydatetime(), ends.dt.to_pydatetime(), strict=True)))


def out_of_sample(
    rows: pd.DataFrame,
    market: pd.DataFrame,
    recipe: Recipe,
    twins: int,
    workers: int = 1,
    progress: Progress | None = None,
    plan: Plan | None = None,
) -> pd.DataFrame:
    """Every out-of-sample prediction of a recipe, and those of its placebo twins.

    Args:
        rows: `indicator_features` rows of the tokens to evaluate on.
        market: their believed market rows (`daily_snapshots`) over the same time and the look-back before, from which
            twins are made; ignored where there are none.
        recipe: what is evaluated.
        twins: number of placebo twins.
        workers: processes.
        progress: told how many of how many parts are done.
        plan: the test blocks; None takes those of `plan_for`.

    Returns:
        Columns of `tables.OUT_OF_SAMPLE`, sorted by twin, timestamp and token.

    Raises:
        DataError: the history is too short, or not one block could be trained for.
    """
    blocks = plan or plan_for(rows)
    wanted = published_rows(rows, recipe)
    regression = replace(recipe, name="logistic", estimator="logistic", scope="pooled", resample=False)
    folds = range(len(blocks.blocks))
    tasks = [delayed(_block)(wanted, each, blocks, fold) for each in (recipe, regression) for fold in folds]
    tasks += [delayed(_twin)(market, recipe, blocks, number) for number in range(1, twins + 1)]
    done = []
    for number, part in enumerate(_in_processes(tasks, workers), start=1):
        done.append(part)
        if progress:
            progress(number, len(tasks))
    own = pd.concat(done[: len(folds)])
    if own.empty:
        raise DataError(f"recipe {recipe.name} could not be trained before any test block: too few rows or rises")
    beside = pd.concat(done[len(folds) : 2 * len(folds)])[["token", "timestamp", "probability"]]
    beside = beside.drop_duplicates(["token", "timestamp"]).rename(columns={"probability": "logistic"})
    table = pd.concat(
        [own.drop(columns="logistic").merge(beside, on=["token", "timestamp"], how="left"), *done[2 * len(folds) :]]
    )
    table = table.assign(recipe_id=recipe.recipe_id).sort_values(["twin", "timestamp", "token"], kind="stable")
    return conform(table, "out_of_sample")


def _in_processes(tasks: Sequence[Any], workers: int) -> Iterator[pd.DataFrame]:
    # Processes: the fits hold the interpreter's lock. One thread each, or two processes would use four.
    if workers == 1:
        return (function(*args, **kwargs) for function, args, kwargs in tasks)
    done: Iterator[pd.DataFrame] = Parallel(n_jobs=workers, return_as="generator", inner_max_num_threads=1)(tasks)
    return done


def _block(rows: pd.DataFrame, recipe: Recipe, plan: Plan, fold: int, hour_step: int = 1) -> pd.DataFrame:
    """The predictions of one test block; empty where nothing could be trained before it."""
    known, test = _around(rows, recipe, plan, fold)
    test = test[test["timestamp"].dt.hour % hour_step == 0]
    parts = [_judged(model, some, fold) for model, some in _speakers(known, test, recipe)]
    return pd.concat([_judged(None, test.iloc[:0], fold), *parts])


def _around(rows: pd.DataFrame, recipe: Recipe, plan: Plan, fold: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows that may be trained on before a block, and the rows of it that can be judged."""
    first, end = plan.blocks[fold]
    test_hours = (end - first) // timedelta(hours=1)
    [split] = purged_walk_forward(rows["timestamp"], rows["label_end"], first, test_hours, folds=1, purge=recipe.purge)
    test = rows.iloc[split.test]
    test = test[test["label_status"] == "labelled"]
    finite = np.logical_and.reduce(np.isfinite(feature_values(test, recipe.features)), axis=1)
    # Where coins of one symbol are mixed, an hour has a row for the future of each; it is judged once.
    return rows.iloc[split.train], test[finite].drop_duplicates(["token", "timestamp"])


def _speakers(known: pd.DataFrame, test: pd.DataFrame, recipe: Recipe) -> Iterator[tuple[FittedModel, pd.DataFrame]]:
    """Which model judges which rows: the token's own if the recipe has such, else the pooled one."""
    left = test
    if recipe.scope == "per_token":
        unserved = []
        of_token = dict(list(known.groupby("token", sort=False)))
        for token, some in test.groupby("token", sort=True):
            try:
                model = fit(of_token.get(token, known.iloc[:0]), recipe, "token", str(token))
            except NotTrainable:
                unserved.append(some)
            else:
                yield model, some
        left = pd.concat(unserved) if unserved else test.iloc[:0]
    if len(left):
        try:
            yield fit(known, recipe, "pooled", POOLED), left
        except NotTrainable:
            return


def _judged(model: FittedModel | None, rows: pd.DataFrame, fold: int) -> pd.DataFrame:
    found = pd.DataFrame(
        {
            "twin": 0,
            "fold": fold,
            "token": rows["token"],
            "timestamp": rows["timestamp"],
            "label_end": rows["label_end"],
            "y": rows["y"].astype("int8"),
            "change": rows["cal_price_change"],
            "price": rows["price"],
            "volume": rows["volume"],
            "momentum": rows["percent_change_7d"],
        }
    )
    nothing = np.full(len(rows), np.nan)
    return found.assign(
        raw=model.scores(rows) if model else nothing,
        probability=model.probabilities(rows) if model else nothing,
        threshold=math.nan if model is None or model.own_threshold is None else model.own_threshold,
        scope=model.scope if model else "pooled",
        logistic=math.nan,
    )


def _twin(market: pd.DataFrame, recipe: Recipe, plan: Plan, number: int) -> pd.DataFrame:
    twin = twin_market(market, number)
    first, last = twin["timestamp"].min().to_pydatetime(), twin["timestamp"].max().to_pydatetime()
    rows = published_rows(dataset_rows(twin, first, last), recipe)
    parts = [_block(rows, recipe, plan, fold, TWIN_HOUR_STEP) for fold in range(len(plan.blocks))]
    return pd.concat(parts).assign(twin=number)


def dataset_rows(market: pd.DataFrame, first: datetime, last: datetime) -> pd.DataFrame:
    """Labelled rows with indicators straight from market rows: what `indicator_features` holds for these hours."""
    labelled = label_rows(market, market[list(SEGMENT_COLUMNS)], first, last)
    return with_indicators(labelled, market, first, last)


def permuted_importances(rows: pd.DataFrame, recipe: Recipe, plan: Plan) -> pd.DataFrame:
    """How much pooled AUC is lost on the last test block when a feature is shuffled, beside the share in training.

    Returns:
        `feature`, `impurity` (share in training), `permutation` and `permutation_sd` (AUC lost), the most useful first.

    Raises:
        NotTrainable: a pooled model cannot be trained before the block.
    """
    known, test = _around(published_rows(rows, recipe), recipe, plan, len(plan.blocks) - 1)
    model = fit(known, recipe, "pooled", POOLED)
    test = test.iloc[:: max(1, math.ceil(len(test) / PERMUTED_ROWS))]
    found = permutation_importance(
        make_pipeline(model.scaler, model.classifier),
        feature_values(test, recipe.features),
        test["y"].to_numpy(dtype=np.int64),
        scoring="roc_auc",
        n_repeats=PERMUTATIONS,
        random_state=recipe.seed_for("permutation"),
    )
    table = pd.DataFrame(
        {
            "feature": recipe.features,
            "impurity": model.importances.reindex(list(recipe.features)).to_numpy(),
            "permutation": found.importances_mean,
            "permutation_sd": found.importances_std,
        }
    )
    return table.sort_values("permutation", ascending=False, kind="stable", ignore_index=True)
