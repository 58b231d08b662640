import pickle
from dataclasses import replace
from typing import Literal

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier

from breakout_assets.errors import DataError
from breakout_assets.learning.model_files import model_hash
from breakout_assets.learning.recipes import PUBLISHED_FEATURES, recipe
from breakout_assets.learning.thresholds import choose_threshold
from breakout_assets.learning.training import NotTrainable, fit
from breakout_assets_tests.learning.examples import SMALL, START, feature_rows

HOUR = pd.Timedelta(hours=1)


def refused(rows: pd.DataFrame, code: str) -> NotTrainable:
    with pytest.raises(NotTrainable) as caught:
        fit(rows, SMALL, "token", "T0-0")
    assert caught.value.code == code
    assert str(caught.value).startswith("T0-0")
    assert code in str(caught.value)
    return caught.value


# The same model whatever the circumstances ---------------------------------------------------------------------


def test_row_order_index_and_types_do_not_reach_the_model() -> None:
    rows = feature_rows(tokens=2, hours=250)
    shuffled = rows.sample(frac=1, random_state=1)
    retyped = rows.astype({"timestamp": "datetime64[ns]", "cmc_rank": "float64", "y": "int64"}).set_index(
        "volume", drop=False
    )
    expected = model_hash(fit(rows, SMALL, "pooled", "ALL"))
    assert model_hash(fit(shuffled, SMALL, "pooled", "ALL")) == expected
    assert model_hash(fit(retyped, SMALL, "pooled", "ALL")) == expected


def test_name_and_recipe_decide_the_seed_but_the_published_forest_keeps_its_own() -> None:
    rows = feature_rows()
    first, second = (fit(rows, SMALL, "token", name) for name in ("T0-0", "T1-1"))
    assert first.seed != second.seed
    assert first.classifier.random_state == first.seed
    exact = fit(rows, replace(SMALL, seed=5), "token", "T0-0")
    assert exact.classifier.random_state == 5
    assert exact.seed != 5


# Nothing looks ahead -------------------------------------------------------------------------------------------


def test_what_lies_after_the_cut_off_changes_nothing() -> None:
    rows = feature_rows(tokens=2, hours=500)
    as_of = START + 450 * HOUR
    known = rows["label_end"] <= as_of
    rng = np.random.default_rng(5)
    randomised = rows.copy()
    randomised.loc[~known, "RSI"] = rng.normal(size=int((~known).sum()))
    randomised.loc[~known, "y"] = pd.array(rng.integers(0, 2, int((~known).sum())), dtype="Int8")
    censored = rows.copy()
    censored.loc[~known, "label_status"] = "censored"
    censored.loc[~known, ["y", "label_end"]] = None
    models = [
        fit(part, SMALL, "pooled", "ALL", as_of.to_pydatetime()) for part in (rows, randomised, censored, rows[known])
    ]
    assert len({model_hash(model) for model in models}) == 1
    assert {model.metrics for model in models} == {models[0].metrics}
    assert [model.dropped.later for model in models] == [338, 338, 338, 0]
    assert {replace(model.dropped, later=0) for model in models} == {models[0].dropped.__class__(0, 0, 0, 0)}
    assert models[0].trained_until == as_of


def test_a_label_that_ends_at_the_cut_off_is_used_and_one_hour_later_is_not() -> None:
    rows = feature_rows(hours=500)
    for hours, expected in ((420, 301), (421, 302)):
        assert fit(rows, SMALL, "token", "T0-0", (START + hours * HOUR).to_pydatetime()).rows == expected


def test_the_purged_test_part_is_scored_by_a_model_that_never_saw_its_labels() -> None:
    rows = feature_rows(hours=500)
    before = fit(rows, SMALL, "token", "T0-0").metrics
    assert (before.train_rows, before.rows) == (400 - 121 + 1, 100)
    # The rows in between may say anything: they are neither trained on nor tested with.
    between = rows["timestamp"].between(START + 280 * HOUR, START + 399 * HOUR)
    changed = rows.assign(y=rows["y"].where(~between, 1 - rows["y"]))
    assert fit(changed, SMALL, "token", "T0-0").metrics == before


def test_the_published_split_lets_training_labels_reach_into_the_test_part() -> None:
    metrics = fit(feature_rows(hours=500), replace(SMALL, purge=False), "token", "T0-0").metrics
    assert (metrics.train_rows, metrics.rows) == (400, 100)


# Calibration and threshold ---------------------------------------------------------------------------------------


def test_calibration_and_threshold_come_from_rows_that_the_scored_estimator_had_not_seen() -> None:
    rows = feature_rows(tokens=24, hours=1000)
    paying = replace(SMALL, name="paying", calibration="platt", threshold_rule="profit", min_samples_leaf=20)
    model = fit(rows, paying, "pooled", "ALL")
    held_out = model.held_out
    assert held_out is not None
    assert held_out["timestamp"].min() == model.metrics.first_hour
    assert model.calibration is not None
    # Two independent windows are held out: their base rate, far below the resampled scores, moves these only halfway.
    assert model.calibration.slope > 0.75
    assert held_out["probability"].mean() > held_out["y"].mean() + 0.05
    assert model.own_threshold == choose_threshold(held_out, paying.cost, model.seed)
    assert model.own_threshold is not None
    np.testing.assert_array_equal(model.probabilities(rows[:50]), model.calibration.apply(model.scores(rows[:50])))
    # Twenty percent lost on each rise: nothing pays, and nothing is bought.
    losing = fit(rows.assign(cal_price_change=-20.0), paying, "pooled", "ALL")
    assert losing.own_threshold is None
    assert fit(rows, SMALL, "pooled", "ALL").own_threshold == SMALL.threshold


def test_a_threshold_that_pays_cannot_be_found_without_what_buying_brought() -> None:
    rows = feature_rows().drop(columns="cal_price_change")
    with pytest.raises(DataError, match="lack the columns cal_price_change"):
        fit(rows, replace(SMALL, threshold_rule="profit"), "token", "T0-0")


def test_the_data_hash_follows_from_every_row_and_feature_used() -> None:
    rows = feature_rows()
    first = fit(rows, SMALL, "token", "T0-0").data_hash
    assert fit(rows.sample(frac=1, random_state=1), SMALL, "token", "T0-0").data_hash == first
    changed = rows.assign(RSI=rows["RSI"].where(rows.index != 7, rows["RSI"] + 1e-12))
    assert fit(changed, SMALL, "token", "T0-0").data_hash != first


# What is used, and what is counted -----------------------------------------------------------------------------


def test_what_serves_has_seen_all_rows_and_what_is_scored_has_not() -> None:
    rows = feature_rows(hours=500)
    model = fit(rows, SMALL, "token", "T0-0")
    assert (model.rows, model.positives) == (500, int(rows["y"].sum()))
    assert model.metrics.rows == 100
    assert (model.trained_from, model.trained_until) == (START, START + 619 * HOUR)
    earlier = fit(rows[:400], SMALL, "token", "T0-0")
    assert model_hash(earlier) != model_hash(model)


def test_dropped_rows_are_counted_by_reason() -> None:
    rows = feature_rows(hours=500)
    rows.loc[10:14, "VWRSI"] = np.nan
    rows.loc[15:16, "pvt"] = np.inf
    rows.loc[17, "OBV"] = 1e300  # finite, but not in the forest's 32-bit floats
    rows.loc[18, "cmc_rank"] = pd.NA
    rows.loc[[30, 490, 499], "label_status"] = "censored"
    rows.loc[[30, 490, 499], ["y", "label_end"]] = None
    model = fit(rows, SMALL, "token", "T0-0")
    assert (model.dropped.not_finite, model.dropped.censored, model.dropped.later) == (9, 2, 1)
    assert model.rows + 9 + 2 + 1 == 500


def test_a_pool_above_the_limit_is_thinned_by_whole_hours() -> None:
    rows = feature_rows(tokens=3, hours=400)
    model = fit(rows, replace(SMALL, max_rows=500), "pooled", "ALL")
    assert model.rows <= 500
    assert model.rows + model.dropped.thinned == 1200
    every_third = rows[rows["timestamp"].isin(rows["timestamp"].unique()[::3])]
    whole = fit(every_third, replace(SMALL, max_rows=500), "pooled", "ALL")
    assert (whole.data_hash, whole.rows, whole.dropped.thinned) == (model.data_hash, model.rows, 0)


def test_a_recipe_may_train_on_every_sixth_hour_of_the_day() -> None:
    rows = feature_rows(tokens=2, hours=400)
    model = fit(rows, replace(SMALL, hour_step=6), "pooled", "ALL")
    sixth = rows[rows["timestamp"].dt.hour.isin([0, 6, 12, 18])]
    assert (model.rows, model.dropped.thinned) == (len(sixth), 800 - len(sixth))
    plain = fit(sixth, replace(SMALL, hour_step=6, min_rows=2), "pooled", "ALL")
    assert plain.data_hash == model.data_hash


def test_resampling_happens_in_the_training_part_and_can_be_left_out() -> None:
    rows = feature_rows(hours=500)
    resampled = fit(rows, SMALL, "token", "T0-0")
    plain = fit(rows, replace(SMALL, resample=False), "token", "T0-0")
    assert resampled.scaler.n_samples_seen_ == 2 * (500 - resampled.positives)
    assert plain.scaler.n_samples_seen_ == 500
    assert resampled.metrics.rows == plain.metrics.rows == 100


def test_importances_are_named_shares_in_falling_order() -> None:
    importances = fit(feature_rows(), SMALL, "token", "T0-0").importances
    assert set(importances.index) == set(PUBLISHED_FEATURES)
    assert importances.is_monotonic_decreasing
    assert importances.sum() == pytest.approx(1)
    assert importances.index[0] == "RSI"


# Refusals ------------------------------------------------------------------------------------------------------


def test_too_few_rows_are_refused() -> None:
    assert "299 usable" in refused(feature_rows(hours=299), "TOO_FEW_ROWS").sentence
    assert fit(feature_rows(hours=300), SMALL, "token", "T0-0").rows == 300


def test_no_rows_at_all_are_refused_the_same_way() -> None:
    refused(feature_rows().iloc[:0], "TOO_FEW_ROWS")
    refused(feature_rows().assign(label_status="censored"), "TOO_FEW_ROWS")


def test_rows_of_less_than_five_days_leave_nothing_to_train_on() -> None:
    with pytest.raises(NotTrainable, match="no label had ended before the test part") as caught:
        fit(feature_rows(tokens=10, hours=100), SMALL, "pooled", "ALL")
    assert caught.value.code == "TOO_FEW_ROWS"


@pytest.mark.parametrize("y", [0, 1])
def test_one_class_in_the_training_part_is_refused(y: int) -> None:
    rows = feature_rows()
    rows.loc[:319, "y"] = y
    refused(rows, "ONE_CLASS")


@pytest.mark.parametrize("rare", [0, 1])
def test_five_rows_of_the_rarer_class_are_too_few_to_resample_and_six_are_enough(rare: int) -> None:
    rows = feature_rows()
    rows["y"] = pd.array(np.full(len(rows), 1 - rare), dtype="Int8")
    rows.loc[50:54, "y"] = rare
    refused(rows, "TOO_FEW_POSITIVES")
    assert fit(rows, replace(SMALL, resample=False), "token", "T0-0").rows == 400
    rows.loc[55, "y"] = rare
    assert fit(rows, SMALL, "token", "T0-0").rows == 400


def test_a_refusal_survives_the_way_between_processes() -> None:
    error = refused(feature_rows(hours=299), "TOO_FEW_ROWS")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301  made in this line
    assert (copy.code, str(copy)) == (error.code, str(error))


def test_an_absent_column_is_refused_by_name() -> None:
    with pytest.raises(DataError, match="lack the columns MACD, OBV"):
        fit(feature_rows().drop(columns=["OBV", "MACD"]), SMALL, "token", "T0-0")
    with pytest.raises(DataError, match="lack the columns label_status"):
        fit(feature_rows().drop(columns="label_status"), SMALL, "token", "T0-0")


def test_an_hour_that_is_there_twice_is_refused() -> None:
    rows = feature_rows()
    with pytest.raises(DataError, match=r"T0-0 has the hour 2024-03-01 07:00:00 more than once"):
        fit(pd.concat([rows, rows.iloc[[7]]]), SMALL, "token", "T0-0")


@pytest.mark.parametrize(("column", "value"), [("y", None), ("y", 2), ("label_end", None)])
def test_a_labelled_row_without_a_label_is_refused(column: str, value: int | None) -> None:
    rows = feature_rows()
    rows.loc[7, column] = value
    with pytest.raises(DataError, match="T0-0 at 2024-03-01 07:00:00 is marked as labelled"):
        fit(rows, SMALL, "token", "T0-0")


def test_a_model_of_one_token_refuses_rows_of_two() -> None:
    with pytest.raises(DataError, match="was given rows of 2"):
        fit(feature_rows(tokens=2), SMALL, "token", "T0-0")


# Predicting ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ["forest", "logistic"])
def test_probabilities_are_what_scikit_learn_says(estimator: Literal["forest", "logistic"]) -> None:
    rows = feature_rows(hours=900)
    model = fit(rows, replace(recipe("blog_fixed"), estimator=estimator), "token", "T0-0")
    values = rows[list(PUBLISHED_FEATURES)].astype("float64").to_numpy()
    expected = model.classifier.predict_proba(model.scaler.transform(values))[:, 1].round(9)
    np.testing.assert_array_equal(model.probabilities(rows), expected)
    one_by_one = np.concatenate([model.probabilities(rows.iloc[[k]]) for k in range(50)])
    np.testing.assert_array_equal(one_by_one, expected[:50])
    assert model.probabilities(rows).dtype == np.float64
    assert expected.std() > 0.1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_a_feature_that_is_no_number_is_refused_by_token_hour_and_name(value: float) -> None:
    model = fit(feature_rows(), SMALL, "token", "T0-0")
    rows = feature_rows()[:10].copy()
    rows.loc[4, "MACD"] = value
    with pytest.raises(DataError, match=r"T0-0 at 2024-03-01 04:00:00: MACD is"):
        model.probabilities(rows)


def test_a_null_rank_is_refused_too() -> None:
    model = fit(feature_rows(), SMALL, "token", "T0-0")
    rows = feature_rows()[:10].copy()
    rows.loc[4, "cmc_rank"] = pd.NA
    with pytest.raises(DataError, match="cmc_rank is nan"):
        model.probabilities(rows)


def test_an_absent_feature_is_refused_by_name() -> None:
    model = fit(feature_rows(), SMALL, "token", "T0-0")
    with pytest.raises(DataError, match="lack the columns VPT"):
        model.probabilities(feature_rows().drop(columns="VPT"))


def test_no_rows_give_no_probabilities() -> None:
    assert fit(feature_rows(), SMALL, "token", "T0-0").probabilities(feature_rows().iloc[:0]).shape == (0,)


@pytest.mark.parametrize(("only", "expected"), [(0, 0.0), (1, 1.0)])
def test_a_forest_of_one_class_is_sure(only: int, expected: float) -> None:
    model = fit(feature_rows(), SMALL, "token", "T0-0")
    values = np.random.default_rng(0).normal(size=(30, 19))
    forest = RandomForestClassifier(n_estimators=3, random_state=0).fit(values, np.full(30, only))
    probabilities = replace(model, classifier=forest).probabilities(feature_rows()[:5])
    np.testing.assert_array_equal(probabilities, np.full(5, expected))
