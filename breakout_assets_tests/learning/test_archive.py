import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
import skops.io
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.tree._tree import Tree

from breakout_assets.errors import DataError
from breakout_assets.learning.archive import Estimators, pack, unpack
from breakout_assets.learning.calibration import Platt

FEATURES = ("a", "b", "c")


def estimators(seed: int = 0) -> Estimators:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(200, 3))
    y = (values[:, 0] + rng.normal(size=200) > 0).astype(np.int64)
    scaler = StandardScaler().fit(values)
    forest = RandomForestClassifier(n_estimators=3, random_state=1, n_jobs=1).fit(scaler.transform(values), y)
    return Estimators(FEATURES, scaler, forest, Platt(0.8, -0.3), 0.4)


def regression() -> Estimators:
    good = estimators()
    rng = np.random.default_rng(2)
    values = rng.normal(size=(200, 3))
    classifier = LogisticRegression().fit(good.scaler.transform(values), (values[:, 1] > 0).astype(np.int64))
    return replace(good, classifier=classifier)


def content_of(good: Estimators) -> dict[str, Any]:
    return {
        "features": list(good.features),
        "scaler": good.scaler,
        "classifier": good.classifier,
        "calibration": [0.8, -0.3],
        "threshold": [0.4],
    }


def refused(data: bytes) -> str:
    with pytest.raises(DataError) as caught:
        unpack(data, "store/model.skops")
    assert str(caught.value).startswith("store/model.skops ")
    return str(caught.value)


def test_what_comes_out_is_what_went_in() -> None:
    packed = estimators()
    read = unpack(pack(packed), "here")
    values = np.random.default_rng(1).normal(size=(50, 3))
    assert read.features == FEATURES
    np.testing.assert_array_equal(read.scaler.transform(values), packed.scaler.transform(values))
    np.testing.assert_array_equal(read.classifier.predict_proba(values), packed.classifier.predict_proba(values))
    assert (read.calibration, read.threshold) == (Platt(0.8, -0.3), 0.4)


def test_a_regression_and_the_absence_of_calibration_and_threshold_survive() -> None:
    packed = replace(regression(), calibration=None, threshold=None)
    read = unpack(pack(packed), "here")
    values = np.random.default_rng(1).normal(size=(50, 3))
    np.testing.assert_array_equal(read.classifier.predict_proba(values), packed.classifier.predict_proba(values))
    assert (read.calibration, read.threshold) == (None, None)
    assert pack(read) == pack(packed)


def test_equal_models_give_equal_bytes_and_others_do_not() -> None:
    assert pack(estimators()) == pack(estimators())
    assert pack(estimators()) != pack(estimators(seed=1))
    assert pack(replace(estimators(), features=("a", "b", "d"))) != pack(estimators())
    assert pack(replace(estimators(), calibration=None)) != pack(estimators())
    assert pack(replace(estimators(), threshold=0.41)) != pack(estimators())


def test_a_model_that_was_read_is_written_with_the_same_bytes() -> None:
    data = pack(estimators())
    # A reader leaves between the fields of a tree's records whatever lay there: several readings, several rubbishes.
    assert {pack(unpack(data, "here")) for _ in range(5)} == {data}


def test_no_address_and_no_clock_is_in_the_file() -> None:
    with ZipFile(BytesIO(pack(estimators()))) as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        numbers = [int(name.removesuffix(".npy")) for name in archive.namelist() if name.endswith(".npy")]
        assert numbers == list(range(1, len(numbers) + 1))
        schema = json.loads(archive.read("schema.json"))

    def ids(node: Any) -> list[int]:
        if isinstance(node, list):
            return [found for item in node for found in ids(item)]
        if isinstance(node, dict):
            return [node["__id__"] for _ in [0] if "__id__" in node] + ids(list(node.values()))
        return []

    assert max(ids(schema)) <= len(ids(schema))


def test_a_pickle_under_this_name_is_refused_and_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Trap:
        def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
            return Path(marker).write_text, ("it ran",)  # type: ignore[return-value]  # any callable will do

    assert "BadZipFile" in refused(pickle.dumps(Trap()))
    assert not marker.exists()


@pytest.mark.parametrize("data", [b"", b"<html>404</html>", pack(estimators())[:-400]])
def test_an_empty_a_foreign_and_a_torn_file_are_refused(data: bytes) -> None:
    refused(data)


class Foreign:
    """A type that no forest needs."""


def test_a_type_that_is_not_on_the_list_is_refused_by_name() -> None:
    good = estimators()
    data = skops.io.dumps(content_of(good) | {"scaler": Foreign()})
    assert f"{Foreign.__module__}.Foreign" in refused(data)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"extra": 1}, "does not hold features, a scaler, a classifier"),
        ({"features": "abc"}, "not a list of names"),
        ({"features": [1, 2, 3]}, "not a list of names"),
        ({"features": ["a", "b"]}, "scaler's mean_ is not 2 numbers"),
        ({"scaler": None}, "it holds a NoneType"),
        ({"scaler": StandardScaler()}, "scaler's mean_ is not 3 numbers"),
        ({"classifier": RandomForestClassifier()}, "classes are not 0 and 1"),
        ({"classifier": ExtraTreesClassifier()}, "and a ExtraTreesClassifier"),
        ({"classifier": LogisticRegression()}, "regression's classes are not 0 and 1"),
        ({"calibration": [1.0]}, "its calibration is not 2 numbers"),
        ({"calibration": [1.0, float("inf")]}, "its calibration is not 2 numbers"),
        ({"calibration": "ab"}, "its calibration is not 2 numbers"),
        ({"threshold": [float("nan")]}, "its threshold is not 1 numbers"),
        ({"threshold": 0.4}, "its threshold is not 1 numbers"),
    ],
)
def test_another_content_is_refused(change: dict[str, Any], said: str) -> None:
    good = estimators()
    assert said in refused(skops.io.dumps(content_of(good) | change))


@pytest.mark.parametrize(
    ("attribute", "values", "said"),
    [
        ("coef_", [[0.0, np.nan, 0.0]], "coef_ is not finite"),
        ("coef_", [[0.0, 1.0]], "coef_ is not 3 numbers"),
        ("coef_", [[0, 1, 2]], "coef_ is not 3 numbers"),
        ("intercept_", [np.inf], "intercept_ is not finite"),
        ("intercept_", [1.0, 2.0], "intercept_ is not 1 numbers"),
        ("classes_", [0, 2], "classes are not 0 and 1"),
    ],
)
def test_a_regression_that_is_no_line_over_the_features_is_refused(attribute: str, values: Any, said: str) -> None:
    bad = regression()
    setattr(bad.classifier, attribute, np.array(values))
    assert said in refused(pack(bad))


@pytest.mark.parametrize(
    ("attribute", "values", "said"),
    [
        ("mean_", [0, np.nan, 0], "mean_ is not finite"),
        ("scale_", [1, np.inf, 1], "scale_ is not finite"),
        ("scale_", [1, 0, 1], "scale_ is not positive"),
    ],
)
def test_a_scaler_that_would_blow_up_is_refused(attribute: str, values: list[float], said: str) -> None:
    bad = estimators()
    setattr(bad.scaler, attribute, np.array(values, dtype=np.float64))
    assert said in refused(pack(bad))


def test_a_forest_without_trees_or_with_other_classes_is_refused() -> None:
    bad = estimators()
    bad.classifier.classes_ = np.array([0, 2])
    assert "classes are not 0 and 1" in refused(pack(bad))
    bad = estimators()
    bad.classifier.estimators_ = []
    assert "no trees" in refused(pack(bad))
    bad = estimators()
    bad.classifier.estimators_ = [StandardScaler()]
    assert "tree 0: no decision tree" in refused(pack(bad))
    bad = estimators()
    del bad.classifier.estimators_[0].tree_
    assert "tree 0: it is no tree over 3 features" in refused(pack(bad))


def test_a_tree_over_more_features_than_there_are_is_refused() -> None:
    bad = estimators()
    assert "mean_ is not 2 numbers" in refused(pack(replace(bad, features=("a", "b"))))
    narrow = StandardScaler().fit(np.arange(6.0).reshape(3, 2))
    assert "tree 0: it is no tree over 2 features" in refused(pack(replace(bad, features=("a", "b"), scaler=narrow)))


def test_a_tree_of_more_classes_than_the_forest_is_refused() -> None:
    bad = estimators()
    bad.classifier.classes_ = np.array([1])
    assert "tree 0: its arrays do not have" in refused(pack(bad))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("left_child", 1_000_000, "child's number is out of bounds"),
        ("right_child", 1_000_000, "child's number is out of bounds"),
        ("left_child", 0, "child's number is out of bounds"),  # its own child: predicting would never end
        ("right_child", -7, "child's number is out of bounds"),
        ("left_child", -1, "one child"),
        ("right_child", -1, "one child"),
        ("feature", 3, "feature's number is out of bounds"),
        ("feature", -2, "feature's number is out of bounds"),
        ("threshold", np.nan, "not finite"),
        ("threshold", np.inf, "not finite"),
    ],
)
def test_a_tree_whose_nodes_lead_out_of_bounds_is_refused_before_it_predicts(
    field: str, value: float, said: str
) -> None:
    bad = estimators()
    bad.classifier.estimators_[1].tree_ = _changed(bad.classifier.estimators_[1].tree_, field, value)
    assert f"tree 1: a {said}" in refused(pack(bad)).replace("a node has one", "a one").replace(
        "a threshold or a value is not", "a not"
    )


def test_a_tree_with_a_value_that_is_no_number_is_refused() -> None:
    bad = estimators()
    bad.classifier.estimators_[2].tree_.value[0, 0, 0] = np.nan
    assert "tree 2: a threshold or a value is not finite" in refused(pack(bad))


def _changed(tree: Any, field: str, value: float) -> Any:
    state = tree.__getstate__()
    state["nodes"] = state["nodes"].copy()
    state["nodes"][field][0] = value
    changed = Tree(tree.n_features, tree.n_classes, tree.n_outputs)
    changed.__setstate__(state)
    return changed
