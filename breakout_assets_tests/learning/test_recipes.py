import os
import subprocess
import sys
from dataclasses import fields, replace
from typing import Any

import pytest

from breakout_assets.dataset.registry import INDICATORS
from breakout_assets.dataset.stationary import STATIONARY_COLUMNS
from breakout_assets.errors import DataError, SettingsError
from breakout_assets.learning.recipes import PUBLISHED_FEATURES, Recipe, recipe


def test_the_published_recipe_is_the_published_one() -> None:
    exact = recipe("blog_exact")
    assert len(exact.features) == 19
    assert (exact.n_estimators, exact.max_depth, exact.min_samples_split, exact.seed) == (60, 100, 5, 5)
    assert (exact.test_share, exact.threshold, exact.resample, exact.purge) == (0.2, 0.6, True, False)
    assert exact.reference_only


def test_the_fixed_recipe_is_the_same_model_with_a_purge_and_may_trade() -> None:
    exact, fixed = recipe("blog_exact"), recipe("blog_fixed")
    assert fixed.purge
    assert not fixed.reference_only
    rows_mended: dict[str, Any] = {"same_month_labels": False, "by_symbol": False, "indicators_after_join": False}
    assert fixed == replace(exact, name="blog_fixed", seed=None, reference_only=False, purge=True, **rows_mended)


def test_the_default_recipe_trusts_nothing_that_has_a_scale_and_tries_to_pay() -> None:
    default = recipe("default")
    assert {name for name in default.features if not INDICATORS[name].scale_free} == set()
    unknown_to_candles = {"log_rank_change_168", "log_pairs_change_168"}
    assert set(default.features) == {"RSI", "VWRSI", *STATIONARY_COLUMNS} - unknown_to_candles
    assert (default.scope, default.resample, default.calibration) == ("pooled", False, "platt")
    assert (default.threshold_rule, default.min_samples_leaf) == ("profit", 60)
    assert recipe("default", cost=0.03) == replace(default, cost=0.03)
    assert replace(recipe("baseline_logit"), name="default", estimator="forest") == default


def test_an_unknown_recipe_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"no recipe 'blog'.*baseline_logit or .* or blog_fixed or default"):
        recipe("blog")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("features", ()),
        ("features", ("RSI", "RSI")),
        ("features", tuple(f"f{n}" for n in range(128))),
        ("test_share", 0.0),
        ("test_share", 1.0),
        ("threshold", float("nan")),
        ("threshold", 1.5),
        ("n_estimators", 0),
        ("max_depth", 0),
        ("min_samples_split", 1),
        ("seed", -1),
        ("seed", 2**32),
        ("min_rows", 1),
        ("max_rows", 719),
        ("scope", "galaxy"),
        ("estimator", "oracle"),
        ("calibration", "isotonic"),
        ("threshold_rule", "hope"),
        ("by_symbol", True),
        ("cost", 1.0),
        ("cost", -0.1),
        ("min_samples_leaf", 0),
        ("hour_step", 5),
        ("expires_days", 0),
    ],
)
def test_an_impossible_value_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(DataError, match=f"recipe .*: {field} "):
        replace(recipe("blog_fixed"), **{field: value})


def test_the_id_follows_from_every_field() -> None:
    other: dict[str, Any] = {
        "name": "x",
        "features": PUBLISHED_FEATURES[:-1],
        "resample": False,
        "purge": False,
        "test_share": 0.3,
        "threshold": 0.5,
        "n_estimators": 61,
        "max_depth": 99,
        "min_samples_split": 6,
        "seed": 6,
        "min_rows": 721,
        "max_rows": 99_999,
        "reference_only": True,
        "scope": "pooled",
        "estimator": "logistic",
        "same_month_labels": True,
        "indicators_after_join": True,
        "calibration": "platt",
        "threshold_rule": "profit",
        "cost": 0.02,
        "min_samples_leaf": 2,
        "hour_step": 2,
        "expires_days": 7,
    }
    assert set(other) == {field.name for field in fields(Recipe)} - {"by_symbol"}  # which needs another field
    base = recipe("blog_fixed")
    ids = {base.recipe_id, *(replace(base, **{name: value}).recipe_id for name, value in other.items())}
    assert len(ids) == 1 + len(other)


def test_ids_and_seeds_are_the_same_in_another_process() -> None:
    code = (
        "from breakout_assets.learning.recipes import recipe; r = recipe('blog_fixed'); "
        "print(r.recipe_id, r.seed_for('SOL-5426'))"
    )
    fixed = recipe("blog_fixed")
    for hash_seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        there = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
        ).stdout
        assert there.split() == [fixed.recipe_id, str(fixed.seed_for("SOL-5426"))]


def test_each_model_and_each_recipe_has_a_seed_of_its_own() -> None:
    fixed = recipe("blog_fixed")
    seeds = {fixed.seed_for("A-1"), fixed.seed_for("B-2"), recipe("blog_exact").seed_for("A-1")}
    assert len(seeds) == 3
    assert all(0 <= seed < 2**32 for seed in seeds)
