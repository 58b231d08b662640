"""All recipes, and the ladder between them, evaluated on the same coins and test blocks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import pandas as pd
from upath import UPath

from breakout_assets.errors import DataError
from breakout_assets.learning.comparison import CASE_SYMBOL, ladder, published_case
from breakout_assets.learning.comparison_report import Compared, comparison_page
from breakout_assets.learning.evaluation_files import save_table
from breakout_assets.learning.evidence import evaluate_table
from breakout_assets.learning.known_until import stamp
from breakout_assets.learning.pages import Page
from breakout_assets.learning.recipes import Recipe
from breakout_assets.learning.training_set import evaluation_rows, rows_of_symbol
from breakout_assets.learning.walk_forward import out_of_sample, plan_for
from breakout_assets.store import Store

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Comparison:
    """A comparison that has been stored."""

    page: Page
    path: UPath
    until: datetime
    """The latest price in it."""
    rows: tuple[Compared, ...]
    ladder: tuple[Compared, ...]


def compare(
    store: Store,
    recipes: Sequence[Recipe],
    most_tokens: int,
    twins: int,
    workers: int,
    progress: Progress,
) -> Comparison:
    """Evaluate all recipes and all steps of the ladder, store their tables and the page.

    Placebo twins are made for recipes that pool: those with a model for each token would take hours. The steps of the
    ladder have none, since a step is judged by what it changes.

    Args:
        store: where rows come from and results go.
        recipes: to set side by side.
        most_tokens: at most so many tokens, those of `training_set.sampled`.
        twins: placebo twins of a recipe that pools.
        workers: processes.
        progress: told what is being evaluated and how many of how many evaluations are done.

    Raises:
        DataError: there are too few rows to evaluate anything on.
    """
    rows, market = evaluation_rows(store, most_tokens, max(each.min_rows for each in recipes))
    plan_for(rows)  # refused here, where nothing has been computed yet
    cost = recipes[0].cost
    steps = ladder(cost)
    total = len(recipes) + len(steps)
    done: dict[str, Compared] = {}

    def evaluated(title: str, each: Recipe, number_of_twins: int) -> Compared:
        progress(title, len(done), total)
        done[each.name] = _evaluated(store, rows, market, title, each, cost, number_of_twins, workers)
        return done[each.name]

    side_by_side = [evaluated(each.name, each, twins if each.scope == "pooled" else 0) for each in recipes]
    climbed = [evaluated(title, each, 0) for title, each in steps]
    progress("report", total, total)
    page = comparison_page(side_by_side, climbed, published_case(rows_of_symbol(store, CASE_SYMBOL)))
    until = rows["label_end"].max().to_pydatetime()
    path = store.root / "recipe_comparison" / stamp(until) / "report.html"
    store.write(path, page.html.encode())
    return Comparison(page, path, until, tuple(side_by_side), tuple(climbed))


def _evaluated(
    store: Store,
    rows: pd.DataFrame,
    market: pd.DataFrame,
    title: str,
    recipe: Recipe,
    cost: float,
    twins: int,
    workers: int,
) -> Compared:
    """One recipe; its trades cost what everybody's cost, also where its threshold was chosen without looking at it."""
    try:
        table = out_of_sample(rows, market, recipe, twins, workers)
    except DataError as error:
        return Compared(title, recipe, None, str(error))
    save_table(store, recipe, table)
    return Compared(title, recipe, evaluate_table(table, cost=cost, reference_only=recipe.reference_only))
