"""Test blocks, what is trained on before them, and who judges their rows."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from breakout_assets.errors import DataError
from breakout_assets.learning.recipes import Recipe, recipe
from breakout_assets.learning.walk_forward import Plan, out_of_sample, permuted_importances, plan_for, plan_of
from breakout_assets.market.simulated import SimulatedMarket
from breakout_assets_tests.learning.examples import SMALL, START, feature_rows
from breakout_assets_tests.learning.markets import labelled_rows, market_rows

HOUR = pd.Timedelta(hours=1)
BY = replace(SMALL, name="quick", scope="pooled", resample=False, min_samples_leaf=20)
BLOCKS = [(START + 600 * HOUR, START + 700 * HOUR), (START + 700 * HOUR, START + 800 * HOUR)]
PLAN = Plan(tuple((first.to_pydatetime(), end.to_pydatetime()) for first, end in BLOCKS))


def rows_of(tokens: int = 3, hours: int = 800) -> pd.DataFrame:
    return feature_rows(tokens=tokens, hours=hours).assign(price=1.0, origin="cmc", symbol="X")


def walked(rows: pd.DataFrame, by: Recipe = BY, plan: Plan = PLAN) -> pd.DataFrame:
    return out_of_sample(rows, rows.iloc[:0], by, 0, plan=plan)


@pytest.mark.parametrize(
    ("days", "test_days", "folds"),
    [(91, 14, 4), (130, 16, 4), (175, 21, 4), (241, 30, 4), (365, 30, 6), (800, 30, 13)],
)
def test_blocks_cover_the_newer_half_and_end_with_the_last_label(days: int, test_days: int, folds: int) -> None:
    hours = pd.date_range(START, periods=24 * days, freq="h")
    blocks = plan_for(pd.DataFrame({"timestamp": hours, "label_status": "labelled"})).blocks
    assert [end - first for first, end in blocks] == [pd.Timedelta(days=test_days)] * folds
    assert [end for _, end in blocks[:-1]] == [first for first, _ in blocks[1:]]
    assert blocks[-1][1] == hours[-1] + HOUR
    assert blocks[0][0] - START >= pd.Timedelta(days=35)


def test_days_of_an_outage_make_no_block() -> None:
    hours = pd.date_range(START, periods=24 * 260, freq="h")
    hours = hours[(hours < START + 150 * 24 * HOUR) | (hours >= START + 210 * 24 * HOUR)]
    blocks = plan_for(pd.DataFrame({"timestamp": hours, "label_status": "labelled"})).blocks
    spans = [(pd.Timestamp(first), pd.Timestamp(end)) for first, end in blocks]
    assert [int(((hours >= first) & (hours < end)).sum()) for first, end in spans] == [24 * 25] * 4
    assert (blocks[1][1], blocks[2][0]) == (START + 150 * 24 * HOUR, START + 210 * 24 * HOUR)


def test_a_history_that_is_too_short_is_refused_with_what_is_needed() -> None:
    hours = pd.date_range(START, periods=24 * 90, freq="h")
    rows = pd.DataFrame({"timestamp": hours, "label_status": "labelled"})
    with pytest.raises(DataError, match=r"90 days have labels; 4 test blocks .* need 91"):
        plan_for(rows)
    with pytest.raises(DataError, match="0 days have labels"):
        plan_for(rows.assign(label_status="censored"))


def test_the_blocks_of_a_table_are_found_again() -> None:
    rows = rows_of(hours=24 * 95)
    plan = plan_for(rows)
    assert plan_of(walked(rows, plan=plan)) == plan


def test_labels_that_were_not_known_when_a_block_begins_change_nothing_in_it() -> None:
    rows = rows_of()
    first = walked(rows)
    # Labels of rows before the block that end in it, and of every row in it and after it.
    unknown = rows["label_end"] + HOUR > PLAN.blocks[0][0]
    flipped = rows.assign(y=rows["y"].mask(unknown, 1 - rows["y"]))
    key = ["token", "timestamp", "raw", "probability", "threshold"]
    for by, same in ((BY, True), (replace(BY, purge=False), False)):
        before, after = (walked(each, by).query("fold == 0")[key] for each in (rows, flipped))
        assert before.equals(after) is same
    assert set(first["fold"]) == {0, 1}
    assert first.query("fold == 0")["timestamp"].agg(["min", "max"]).tolist() == [
        START + 600 * HOUR,
        START + 699 * HOUR,
    ]


def test_a_label_that_was_known_just_in_time_is_learned_from() -> None:
    rows = rows_of()
    known = rows["label_end"] + HOUR == PLAN.blocks[0][0]
    assert known.sum() == 3
    flipped = rows.assign(y=rows["y"].mask(known, 1 - rows["y"]))
    assert not walked(rows).query("fold == 0")["raw"].equals(walked(flipped).query("fold == 0")["raw"])


def test_a_token_without_a_model_of_its_own_is_judged_by_the_pooled_one() -> None:
    rows = rows_of()
    young = rows[(rows["token"] != "T2-2") | (rows["timestamp"] >= START + 500 * HOUR)]
    table = walked(young, replace(BY, scope="per_token"))
    scopes = table.groupby("token")["scope"].unique().map(set).to_dict()
    assert scopes == {"T0-0": {"token"}, "T1-1": {"token"}, "T2-2": {"pooled"}}


def test_rows_without_a_label_or_with_a_feature_that_is_no_number_are_not_judged() -> None:
    rows = rows_of()
    block = rows.index[rows["timestamp"] == START + 650 * HOUR]
    rows.loc[block[0], "RSI"] = np.nan
    rows.loc[block[1], "label_status"] = "censored"
    table = walked(rows)
    assert table.loc[table["timestamp"] == START + 650 * HOUR, "token"].tolist() == ["T2-2"]


def test_nothing_that_could_be_trained_is_refused() -> None:
    with pytest.raises(DataError, match="could not be trained before any test block"):
        walked(rows_of().assign(y=pd.array([0] * 2400, dtype="Int8")))


def test_a_threshold_that_was_not_found_is_empty() -> None:
    rows = rows_of(tokens=2).assign(cal_price_change=-20.0)
    assert walked(rows, replace(BY, threshold_rule="profit"))["threshold"].isna().all()


@pytest.mark.slow
def test_twins_are_the_same_in_one_process_and_in_two() -> None:
    market = market_rows(SimulatedMarket(seed=2, tokens=4), 100)
    rows = labelled_rows(market)
    one, two = (out_of_sample(rows, market, recipe("default"), 2, workers) for workers in (1, 2))
    pd.testing.assert_frame_equal(one, two)
    assert set(one["twin"]) == {0, 1, 2}
    twins = one[one["twin"] > 0]
    assert set(twins["timestamp"].dt.hour) == {0, 6, 12, 18}
    assert twins["logistic"].isna().all()
    assert one.loc[one["twin"] == 0, "logistic"].notna().all()
    table = permuted_importances(rows, recipe("default"), plan_for(rows))
    assert set(table["feature"]) == set(recipe("default").features)
    assert table["impurity"].sum() == pytest.approx(1)
