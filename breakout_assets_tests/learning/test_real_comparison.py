"""The whole comparison on half a year of real prices, where they lie beside the checkout.

What it finds is printed as it is and is no target: a test asks only that the page says what must be said.
"""

import resource
from datetime import date, timedelta
from pathlib import Path

import pandas as pd
import pytest

from breakout_assets.learning.comparing import Comparison, compare
from breakout_assets.learning.comparison import CASE_SYMBOL, published_case
from breakout_assets.learning.evaluation_files import newest_table, read_table
from breakout_assets.learning.evidence import evaluate_table
from breakout_assets.learning.recipes import RECIPES, recipe
from breakout_assets.learning.training_set import rows_of_symbol
from breakout_assets.learning.walk_forward import dataset_rows
from breakout_assets.market.history import compact_day
from breakout_assets.market.importing import import_panel
from breakout_assets.market.snapshots import believed
from breakout_assets.market.tokens import load_registry
from breakout_assets.store import Store
from breakout_assets_tests.samples import shared

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(3600)]

FIRST, LAST = date(2024, 1, 1), date(2024, 6, 30)
# Most of a run of everything is this: forty tokens, half a year, five recipes, thirteen steps, sixty twins.
GIGABYTE = 1024**2  # in the units of getrusage


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("comparison")
    # Rank and pairs are one constant a token, for some a value of after the panel: across tokens they look ahead.
    frozen = pd.read_parquet(shared("hourly_panel.parquet")).assign(cmc_rank=500, num_market_pairs=50)
    frozen.to_parquet(folder / "panel.parquet")
    store = Store.at(str(folder / "store"))
    import_panel(folder / "panel.parquet", store)
    days = [FIRST + timedelta(days=n) for n in range((LAST - FIRST).days + 1)]
    registry = load_registry(store)
    for day in days:
        store.write_table("daily_snapshots", day, compact_day(store, registry, day).rows)
    market = believed(store.read_table("daily_snapshots", days))
    rows = dataset_rows(market, market["timestamp"].min(), market["timestamp"].max())
    for day, part in rows.groupby(rows["timestamp"].dt.date):
        assert isinstance(day, date)
        store.write_table("indicator_features", day, part)
    return store


@pytest.fixture(scope="module")
def compared(store: Store) -> Comparison:
    told: list[tuple[str, int, int]] = []
    recipes = [recipe(name) for name in RECIPES]
    found = compare(store, recipes, 40, 20, 2, lambda *progress: told.append(progress))
    assert [done for _, done, _ in told] == list(range(len(told)))
    return found


def test_every_recipe_and_every_step_is_on_the_page_with_its_figures(compared: Comparison) -> None:
    page = Path(str(compared.path)).read_text()
    for row in (*compared.rows, *compared.ladder):
        assert row.evaluation is not None, row.reason
        assert row.evaluation.tokens == 40
        assert row.evaluation.windows >= 15
        assert f"{row.evaluation.auc.value:.3f}" in page
    assert "as published" in page


def test_what_is_shown_is_recomputed_from_the_stored_tables(store: Store, compared: Comparison) -> None:
    for row in compared.rows:
        path = newest_table(store, row.recipe)
        assert path is not None
        again = evaluate_table(read_table(path), cost=0.015, reference_only=row.recipe.reference_only)
        assert row.evaluation is not None
        assert again.auc == row.evaluation.auc
        assert again.own == row.evaluation.own
        assert again.verdict == row.evaluation.verdict


def test_the_published_case_of_sol_is_what_is_known_of_it(store: Store) -> None:
    case = published_case(rows_of_symbol(store, CASE_SYMBOL))
    assert case is not None
    published, lost, everything = case
    assert published.mean.auc == pytest.approx(0.89)
    assert (lost.rows, everything.rows) == (2270, 2750)
    assert lost.mean.auc == pytest.approx(0.843, abs=0.04)
    assert lost.mean.f1 == pytest.approx(0.657, abs=0.04)
    assert everything.mean.auc == pytest.approx(0.688, abs=0.04)
    assert everything.mean.f1 == pytest.approx(0.457, abs=0.04)


def test_memory_stays_below_three_gigabytes(compared: Comparison) -> None:
    assert compared.rows
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    largest_worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert own + 2 * largest_worker < 3 * GIGABYTE
