from dataclasses import asdict, fields, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest

from breakout_assets.learning.comparison import PUBLISHED, case_rows, ladder, published_case
from breakout_assets.learning.recipes import recipe

TITLES = {
    "+ month fix": {"same_month_labels"},
    "+ token key": {"by_symbol"},
    "+ features on all rows": {"indicators_after_join"},
    "+ purge": {"purge"},
    "+ own seeds (blog_fixed)": {"seed", "reference_only"},
    "+ stationary": {"features"},
    "+ pooled": {"scope"},
    "- SMOTE": {"resample"},
    "+ leaf size and thinning": {"min_samples_leaf", "hour_step"},
    "+ calibration": {"calibration", "test_share"},
    "+ threshold (before costs)": {"threshold_rule", "cost"},
    "+ costs": {"cost"},
}
FIRST, END = pd.Timestamp("2024-01-08"), pd.Timestamp("2024-05-08")
HOURS_WITH_LABEL = (121 - 5) * 24


def test_the_ladder_leads_from_the_published_recipe_over_the_fixed_one_to_the_default() -> None:
    steps = dict(ladder())
    assert list(steps) == ["blog_exact", *TITLES]
    for title, name in (
        ("blog_exact", "blog_exact"),
        ("+ own seeds (blog_fixed)", "blog_fixed"),
        ("+ costs", "default"),
    ):
        assert replace(steps[title], name=name) == recipe(name)


def test_each_step_of_the_ladder_changes_what_its_title_says_and_nothing_else() -> None:
    steps = ladder()
    for (_, before), (title, after) in pairwise(steps):
        changed = {field.name for field in fields(after) if getattr(before, field.name) != getattr(after, field.name)}
        assert changed - {"name"} == TITLES[title], title


def test_the_steps_of_the_ladder_have_numbered_names_and_ids_of_their_own() -> None:
    steps = ladder()
    assert [by.name for _, by in steps] == [f"ladder {number}: {title}" for number, (title, _) in enumerate(steps)]
    assert len({by.recipe_id for _, by in steps}) == len(steps)


def test_the_users_cost_reaches_the_last_step_and_the_one_before_seeks_without_cost() -> None:
    *_, (_, before), (_, last) = ladder(0.03)
    assert replace(last, name="default") == recipe("default", 0.03)
    assert before.cost == pytest.approx(0.0)
    assert before.threshold_rule == "profit"


def test_the_published_figures_agree_with_each_other() -> None:
    assert [row.title for row in PUBLISHED] == ["many tokens", "SOL"]
    for figures in (row.figures for row in PUBLISHED):
        both = figures.precision + figures.recall
        assert figures.f1 == pytest.approx(2 * figures.precision * figures.recall / both, abs=0.006)
    assert [tuple(asdict(row.figures).values()) for row in PUBLISHED] == [
        (0.62, 0.20, 0.61, 0.30, 0.62),
        (0.91, 0.55, 0.87, 0.67, 0.89),
    ]


def sol(first: pd.Timestamp = FIRST, end: pd.Timestamp = END, **changes: Any) -> pd.DataFrame:
    """Labelled rows of an invented coin with this symbol, each hour from `first` to before `end`."""
    hours = pd.date_range(first, end + pd.Timedelta(hours=119), freq="h", unit="us")
    rng = np.random.default_rng(4)
    price = pd.Series(100 * np.exp(np.cumsum(rng.normal(0, 0.01, len(hours)))), index=hours)
    rows = pd.DataFrame({"timestamp": hours[:-120], "price": price.to_numpy()[:-120]})
    rise = (price.to_numpy()[120:] / rows["price"] - 1) * 100
    labelled = {
        "token": "SOL-5426",
        "symbol": "SOL",
        "volume": rng.lognormal(20, 0.5, len(rows)),
        "cmc_rank": pd.array([5] * len(rows), dtype="Int64"),
        "num_market_pairs": pd.array([700] * len(rows), dtype="Int64"),
        "volume_change_24h": rng.normal(0, 20, len(rows)),
        "percent_change_7d": rng.normal(0, 10, len(rows)),
        "y_percentage_change7d": 1.0,
        "cal_price_change": rise,
        "label_end": rows["timestamp"] + pd.Timedelta(hours=120),
        "y": (rise > 10).astype("Int8"),
        "label_status": "labelled",
    }
    return rows.assign(**{**labelled, **changes})


def rows_of_case(rows: pd.DataFrame) -> pd.DataFrame:
    found = case_rows(rows)
    assert found is not None
    return found


def test_the_sol_case_knows_only_prices_inside_its_months() -> None:
    found = rows_of_case(sol(FIRST - pd.Timedelta(days=20), END + pd.Timedelta(days=20)))
    assert len(found) == HOURS_WITH_LABEL
    assert found["timestamp"].min() == FIRST
    assert found["label_end"].max() == END - pd.Timedelta(hours=1)


def test_the_sol_case_leaves_out_rows_beyond_the_filters_without_a_label_and_of_other_coins() -> None:
    rows = sol()
    rows.loc[0, "percent_change_7d"] = 1001.0
    rows.loc[1, "volume_change_24h"] = 1001.0
    rows.loc[2, "volume_change_24h"] = np.nan
    rows.loc[3, "label_status"] = "censored"
    rows.loc[4, "percent_change_7d"] = 1000.0
    other = sol(symbol="SOLX", token="SOLX-1")
    shuffled = pd.concat([rows, other]).sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(
        rows_of_case(shuffled),
        rows_of_case(sol())[4:]
        .reset_index(drop=True)
        .assign(percent_change_7d=lambda kept: kept["percent_change_7d"].where(kept.index > 0, 1000.0)),
    )


def test_of_several_coins_with_the_symbol_the_one_that_is_traded_most_is_meant() -> None:
    small = sol(token="SOL-1", volume=5.0)
    assert set(rows_of_case(pd.concat([small, sol()]))["token"]) == {"SOL-5426"}


def test_rows_that_know_no_rank_count_as_if_all_had_one() -> None:
    nothing = pd.array([None] * len(sol()), dtype="Int64")
    found = rows_of_case(sol(cmc_rank=nothing, num_market_pairs=nothing))
    assert found["cmc_rank"].unique().tolist() == found["num_market_pairs"].unique().tolist() == [0]


@pytest.mark.parametrize(
    "rows",
    [
        sol(symbol="BTC"),
        sol().iloc[:0],
        sol(first=FIRST + pd.Timedelta(days=7)),
        sol(end=END - pd.Timedelta(days=12)),
        sol().iloc[::2],
        sol(label_status="censored"),
    ],
    ids=["another coin", "none", "begins late", "ends early", "every other hour", "no labels"],
)
def test_there_is_no_sol_case_without_its_months(rows: pd.DataFrame) -> None:
    assert case_rows(rows) is None
    assert published_case(rows) is None


def test_a_coin_of_that_symbol_that_never_rises_is_no_sol_case() -> None:
    assert published_case(sol(price=1.0, y=pd.array([0] * len(sol()), dtype="Int8"))) is None


def test_the_sol_case_shows_the_published_figures_beside_both_framings() -> None:
    rows = published_case(sol(), draws=2)
    assert rows is not None
    published, lost, every = rows
    assert [row.title for row in rows] == ["as published", "month ends lost", "all hours"]
    assert (published.mean, published.spread, published.rows, published.base_rate) == (
        PUBLISHED[1].figures,
        None,
        None,
        None,
    )
    # The slowest indicator has no value on the first 33 rows. Four ends of months lie inside, the last of them whole.
    assert every.rows == HOURS_WITH_LABEL - 33
    assert lost.rows == HOURS_WITH_LABEL - 33 - 4 * 120
    for row in (lost, every):
        assert row.base_rate is not None
        assert row.spread is not None
        assert 0 < row.base_rate < 1
        assert all(0 <= value <= 1 for value in asdict(row.mean).values())
        # Another draw is another model.
        assert row.spread.auc > 0
