"""Packed models answer what scikit-learn answers, to the last bit."""

from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.ensemble import RandomForestClassifier

from breakout_assets.errors import DataError
from breakout_assets.learning import packed as packed_module
from breakout_assets.learning.calibration import Platt
from breakout_assets.learning.packed import (
    _asked,
    _nodes,
    _not_above,
    _votes,
    file_bytes,
    flawed_row,
    opened,
    packed,
    packed_row,
)
from breakout_assets.learning.recipes import Recipe
from breakout_assets.learning.training import FittedModel, fit
from breakout_assets_tests.learning.examples import SMALL, feature_rows

FEATURES = SMALL.features
LOGISTIC = replace(SMALL, name="line", estimator="logistic", resample=False)


def fitted(seed: int, recipe: Recipe = SMALL, name: str | None = None) -> FittedModel:
    model = fit(feature_rows(seed=seed), recipe, "token", name or f"T{seed}-{seed}")
    return replace(model, name=name or f"T{seed}-{seed}", model_hash=f"{seed:064d}")


def by_scikit_learn(model: FittedModel, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The published way, which knows nothing of ours: one model, its own scaler, its own `predict_proba`."""
    shares: npt.NDArray[np.float64] = model.classifier.predict_proba(model.scaler.transform(values))
    ones = list(model.classifier.classes_)
    return shares[:, ones.index(1)] if 1 in ones else np.zeros(len(values))


def grown(seed: int, trees: int, rows: int = 600, **options: Any) -> FittedModel:
    """A forest grown to the last row, over features of very different sizes."""
    rng = np.random.default_rng(seed)
    size = np.exp(rng.normal(0, 6, len(FEATURES)))
    values = np.cumsum(rng.normal(size=(rows, len(FEATURES))), axis=0) * size
    y = (rng.random(rows) < 0.2).astype(np.int64)
    model = fitted(0)
    scaler = model.scaler.fit(values)
    forest = RandomForestClassifier(n_estimators=trees, random_state=seed, **options)
    return replace(model, name=f"G{seed}-{seed}", scaler=scaler, classifier=forest.fit(scaler.transform(values), y))


def questions(model: FittedModel, rows: int, seed: int) -> npt.NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    spread = rng.normal(size=(rows, len(FEATURES)))
    values: npt.NDArray[np.float64] = model.scaler.mean_ + spread * model.scaler.scale_
    return values


def test_forests_of_any_size_answer_as_scikit_learn_does_to_the_last_bit() -> None:
    models = [grown(seed, trees=3 + 7 * seed, max_depth=(None, 5)[seed % 2]) for seed in range(6)]
    pack = packed([packed_row(model) for model in models], SMALL.recipe_id)
    for seed, model in enumerate(models):
        row = pack.about.index.get_loc(model.name)
        values = questions(model, 200, seed)
        expected = np.round(by_scikit_learn(model, values), 9)
        assert (pack.scores(np.full(200, row), values) == expected).all()
        assert (
            model.scores(pd.DataFrame(values, columns=list(FEATURES)).assign(token="T", timestamp=0)) == expected
        ).all()
    asked = np.random.default_rng(1).integers(0, len(models), 300)
    values = np.array([questions(models[m], 1, n)[0] for n, m in enumerate(asked)])
    names = [models[m].name for m in asked]
    alone = [by_scikit_learn(models[m], values[n : n + 1])[0] for n, m in enumerate(asked)]
    assert (pack.scores(pack.about.index.get_indexer(pd.Index(names)), values) == np.round(alone, 9)).all()


def test_unrounded_votes_are_added_in_the_order_of_the_trees() -> None:
    model = grown(3, trees=60, min_samples_leaf=7)
    values = questions(model, 500, 2)
    single = model.scaler.transform(values).astype(np.float32)
    votes = _votes(packed([packed_row(model)], "r").table, np.zeros(500, dtype=np.int64), single)
    assert (votes == by_scikit_learn(model, values)).all()


def test_regressions_forests_and_calibrations_lie_side_by_side() -> None:
    models = [
        replace(fitted(1), calibration=Platt(0.5, -1.0)),
        fitted(2, LOGISTIC),
        replace(fitted(3, LOGISTIC), calibration=Platt(1.25, 0.5)),
        fitted(4),
    ]
    pack = packed([packed_row(model) for model in models], SMALL.recipe_id)
    for model in models:
        rows = feature_rows(hours=50, seed=9)
        which = np.full(len(rows), pack.about.index.get_loc(model.name))
        scores = pack.scores(which, rows[list(FEATURES)].to_numpy(dtype=np.float64))
        assert (scores == model.scores(rows)).all()
        assert (pack.probabilities(which, scores) == model.probabilities(rows)).all()


@pytest.mark.parametrize("only", [0, 1])
def test_a_forest_that_has_seen_one_class_says_nothing_else(only: int) -> None:
    model = grown(1, trees=4)
    values = questions(model, 20, 1)
    forest = model.classifier.fit(model.scaler.transform(values), np.full(20, only))
    pack = packed([packed_row(replace(model, classifier=forest))], "r")
    assert (pack.scores(np.zeros(20, dtype=np.int64), values) == only).all()


def test_a_constant_feature_changes_nothing() -> None:
    rows = feature_rows(seed=5).assign(volume=7.0)
    model = replace(fit(rows, SMALL, "token", "T0-0"), model_hash="")
    values = rows[list(FEATURES)].to_numpy(dtype=np.float64)
    pack = packed([packed_row(model)], "r")
    assert (
        pack.scores(np.zeros(len(rows), dtype=np.int64), values) == np.round(by_scikit_learn(model, values), 9)
    ).all()


@settings(max_examples=200, deadline=None)
@given(
    cuts=arrays(np.float64, 8, elements=st.floats(allow_nan=False, allow_infinity=False)),
    near=st.integers(-3, 3),
    other=st.floats(width=32, allow_nan=False, allow_infinity=False),
)
def test_a_cut_in_32_bits_separates_32_bit_features_as_it_did_in_64(
    cuts: npt.NDArray[np.float64], near: int, other: float
) -> None:
    with np.errstate(over="ignore"):
        features = np.nan_to_num(cuts.astype(np.float32), posinf=3e38, neginf=-3e38)
        for _ in range(abs(near)):
            features = np.nextafter(features, np.float32(np.copysign(np.inf, near)))
    for feature in (features, np.full(8, other, dtype=np.float32)):
        assert ((feature <= _not_above(cuts)) == (feature.astype(np.float64) <= cuts)).all()


@settings(max_examples=200, deadline=None)
@given(
    cut=arrays(np.float32, 5, elements=st.floats(width=32, allow_nan=False)),
    feature=arrays(np.int64, 5, elements=st.integers(0, 127)),
    step=arrays(np.int64, 5, elements=st.integers(0, 2**24 - 1)),
)
def test_a_node_is_one_number_of_which_nothing_is_lost(
    cut: npt.NDArray[np.float32], feature: npt.NDArray[np.int64], step: npt.NDArray[np.int64]
) -> None:
    found = _asked(_nodes(cut, feature, step))
    assert found[0].tobytes() == cut.tobytes()
    assert (found[1] == feature).all()
    assert (found[2] == step).all()


def test_features_that_no_model_can_judge_have_no_score() -> None:
    model = grown(2, trees=5)
    values = questions(model, 4, 3)
    values[1, 0], values[2, 3] = np.nan, 1e300
    scores = packed([packed_row(model)], "r").scores(np.zeros(4, dtype=np.int64), values)
    assert np.isnan(scores).tolist() == [False, True, True, False]


def test_equal_models_make_equal_bytes_in_whatever_order_they_come() -> None:
    rows = [packed_row(fitted(seed)) for seed in range(3)]
    packs = [packed(order, SMALL.recipe_id) for order in (rows, rows[::-1])]
    assert packs[0].digest == packs[1].digest
    assert packed(rows[:2], SMALL.recipe_id).digest != packs[0].digest
    read = opened(pa.py_buffer(file_bytes(packs[0].table)), packs[0].digest, SMALL.recipe_id, "here")
    assert read.digest == packs[0].digest
    assert read.table.equals(packs[0].table)


def test_what_a_person_asks_of_a_pack_is_a_frame() -> None:
    model = replace(fitted(1), admission=("TOO_FEW_ROWS", "TOO_FEW_WINDOWS"), own_threshold=None)
    flaw = flawed_row("X-1", SMALL, datetime.fromisoformat("2024-06-01"), "it is damaged")
    about = packed([packed_row(model), flaw], "r").about
    assert about["shortcoming"].dropna().to_dict() == {"T1-1": "TOO_FEW_ROWS"}
    assert about["expires_at"].dropna().to_dict() == {"T1-1": model.expires_at}
    assert about["trained_until"].to_dict()["T1-1"] == model.trained_until
    assert about["flaw"].dropna().to_dict() == {"X-1": "it is damaged"}
    assert about["threshold"].isna().all()


@pytest.mark.parametrize(
    "data", [b"", b"no file", file_bytes(pa.table({"name": ["A"]})), file_bytes(packed([], "another").table)]
)
def test_a_foreign_file_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(DataError, match="here holds"):
        opened(pa.py_buffer(data), blake3(data).hexdigest(), "r", "here")


def test_a_file_of_which_one_bit_is_another_is_refused_before_it_is_read() -> None:
    pack = packed([packed_row(fitted(1))], "r")
    data = file_bytes(pack.table)
    for place in np.random.default_rng(1).integers(0, len(data), 50):
        damaged = bytearray(data)
        damaged[place] ^= 1
        with pytest.raises(DataError, match="here does not have the BLAKE3 in its name"):
            opened(pa.py_buffer(bytes(damaged)), pack.digest, "r", "here")


def test_a_forest_whose_nodes_are_numbered_otherwise_is_refused() -> None:
    model = grown(1, trees=2, max_leaf_nodes=30)  # grown best first
    with pytest.raises(DataError, match="G1-1: the forest does not number a left child after its parent"):
        packed_row(model)


def test_a_tree_that_has_more_nodes_than_can_be_told_apart_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = grown(1, trees=2)
    largest = max(tree.tree_.children_right.max() for tree in model.classifier.estimators_)
    monkeypatch.setattr(packed_module, "_STEP_BITS", int(np.log2(largest)) - 1)
    with pytest.raises(DataError, match=r"G1-1: a tree has over .* nodes; train it with fewer rows"):
        packed_row(model)
