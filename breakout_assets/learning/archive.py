"""The bytes of a model file: a skops archive that is the same for the same model, and is checked before it predicts.

skops names objects by their memory address and stamps members with the wall clock, so two savings of one model never
agree. `pack` writes the same objects under names that follow from their content. `unpack` trusts nothing but the one
type that every forest needs, and looks at every node before the forest's compiled code walks over it.
"""

import json
import math
from dataclasses import astuple, dataclass
from io import BytesIO
from typing import Any, Final
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import numpy as np
import skops.io
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier
from sklearn.tree._tree import Tree

from breakout_assets.errors import DataError
from breakout_assets.learning.calibration import Platt

# What skops does not trust by itself in a forest. Never extend it to make a file load: ask where the file comes from.
TRUSTED_TYPES: Final = ["sklearn.tree._tree.Tree"]
_SCHEMA: Final = "schema.json"
_CONTENT: Final = {"features", "scaler", "classifier", "calibration", "threshold"}
# Objects of these two kinds are constants (numbers, texts, types); whether two equal ones are one object in memory
# is an accident of the interpreter.
_CONSTANTS: Final = ("JsonNode", "TypeNode")


@dataclass(frozen=True, eq=False)
class Estimators:
    """What a model file holds."""

    features: tuple[str, ...]
    scaler: StandardScaler
    classifier: RandomForestClassifier | LogisticRegression
    calibration: Platt | None
    threshold: float | None
    """The probability from which on buying paid on unseen rows; None: from none on."""


def pack(estimators: Estimators) -> bytes:
    """The model file; equal models give equal bytes in any process."""
    content = {
        "features": list(estimators.features),
        "scaler": estimators.scaler,
        "classifier": estimators.classifier,
        # What decides belongs under the hash that predictions cite.
        "calibration": [] if estimators.calibration is None else list(astuple(estimators.calibration)),
        "threshold": [] if estimators.threshold is None else [estimators.threshold],
    }
    with ZipFile(BytesIO(skops.io.dumps(content))) as archive:
        schema = json.loads(archive.read(_SCHEMA))
        members = {name: archive.read(name) for name in archive.namelist() if name != _SCHEMA}
    names: dict[bytes, str] = {}
    # Most arrays are there many times, such as the classes of each tree.
    clean = {data: _without_padding(data) for data in set(members.values())}
    _renumber(schema, {}, names, {name: clean[data] for name, data in members.items()})
    buffer = BytesIO()
    with ZipFile(buffer, "w") as archive:
        for data, name in names.items():
            _write_member(archive, name, data)
        _write_member(archive, _SCHEMA, json.dumps(schema, separators=(",", ":")).encode())
    return buffer.getvalue()


def _renumber(node: Any, ids: dict[Any, int], names: dict[bytes, str], members: dict[str, bytes]) -> None:
    """Replace addresses in a schema by numbers in order of appearance, and array files by equal content likewise."""
    if isinstance(node, list):
        for item in node:
            _renumber(item, ids, names, members)
    if not isinstance(node, dict):
        return
    if "__id__" in node:
        constant = node["__loader__"] in _CONSTANTS
        key = (node["__module__"], node["__class__"], node.get("content")) if constant else node["__id__"]
        node["__id__"] = ids.setdefault(key, len(ids) + 1)
    if "file" in node:
        node["file"] = names.setdefault(members[node["file"]], f"{len(names) + 1}.npy")
    for item in node.values():
        _renumber(item, ids, names, members)


def _without_padding(data: bytes) -> bytes:
    """An array file with zeros between the fields of its records, where a loaded forest has whatever lay there."""
    array = np.load(BytesIO(data), allow_pickle=False)
    if array.dtype.names is None:
        return data
    clean = np.zeros(array.shape, array.dtype)
    for field in array.dtype.names:
        clean[field] = array[field]
    buffer = BytesIO()
    np.save(buffer, clean, allow_pickle=False)
    return buffer.getvalue()


def _write_member(archive: ZipFile, name: str, data: bytes) -> None:
    member = ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))  # the earliest a zip can say: no clock in the bytes
    member.compress_type = ZIP_DEFLATED
    member.create_system = 3
    member.external_attr = 0o644 << 16
    archive.writestr(member, data)


def unpack(data: bytes, where: str) -> Estimators:
    """The estimators of a model file, sound enough to predict with.

    Args:
        data: the file's bytes.
        where: its path, for messages.

    Raises:
        DataError: the file is no skops archive, holds other types than a forest needs, or is malformed.
    """
    try:
        content = skops.io.loads(data, trusted=TRUSTED_TYPES)
    except Exception as error:  # a foreign archive makes skops, zipfile, numpy or scikit-learn raise anything
        raise DataError(
            f"{where} is not a model file that can be trusted ({type(error).__name__}: {error}); train the token again"
        ) from error
    flaw = _flaw(content)
    if flaw:
        raise DataError(f"{where} is malformed: {flaw}; train the token again")
    calibration, threshold = content["calibration"], content["threshold"]
    return Estimators(
        features=tuple(content["features"]),
        scaler=content["scaler"],
        classifier=content["classifier"],
        calibration=Platt(*calibration) if calibration else None,
        threshold=threshold[0] if threshold else None,
    )


def _flaw(content: Any) -> str | None:
    if type(content) is not dict or set(content) != _CONTENT:
        return "it does not hold features, a scaler, a classifier, a calibration and a threshold"
    features, scaler, classifier = content["features"], content["scaler"], content["classifier"]
    if type(features) is not list or not all(type(feature) is str for feature in features):
        return "its features are not a list of names"
    for name, lengths in (("calibration", (0, 2)), ("threshold", (0, 1))):
        numbers = content[name]
        if type(numbers) is not list or len(numbers) not in lengths or not all(_is_finite(n) for n in numbers):
            return f"its {name} is not {lengths[1]} numbers"
    if type(scaler) is not StandardScaler or type(classifier) not in (RandomForestClassifier, LogisticRegression):
        return f"it holds a {type(scaler).__name__} and a {type(classifier).__name__}"
    flaw = _scaler_flaw(scaler, len(features))
    if flaw or type(classifier) is RandomForestClassifier:
        return flaw or _forest_flaw(classifier, len(features))
    return _regression_flaw(classifier, len(features))


def _is_finite(number: object) -> bool:
    return type(number) is float and math.isfinite(number)


def _regression_flaw(regression: LogisticRegression, features: int) -> str | None:
    classes = getattr(regression, "classes_", None)
    if not isinstance(classes, np.ndarray) or classes.tolist() != [0, 1]:
        return "the regression's classes are not 0 and 1"
    for name, shape in (("coef_", (1, features)), ("intercept_", (1,))):
        values = getattr(regression, name, None)
        if not isinstance(values, np.ndarray) or values.dtype != np.float64 or values.shape != shape:
            return f"the regression's {name} is not {shape[-1]} numbers"
        if not np.isfinite(values).all():
            return f"the regression's {name} is not finite"
    return None


def _scaler_flaw(scaler: StandardScaler, features: int) -> str | None:
    for name in ("mean_", "scale_"):
        values = getattr(scaler, name, None)
        if not isinstance(values, np.ndarray) or values.dtype != np.float64 or values.shape != (features,):
            return f"the scaler's {name} is not {features} numbers"
        if not np.isfinite(values).all():
            return f"the scaler's {name} is not finite"
    return None if (scaler.scale_ > 0).all() else "the scaler's scale_ is not positive"


def _forest_flaw(forest: RandomForestClassifier, features: int) -> str | None:
    classes, trees = getattr(forest, "classes_", None), getattr(forest, "estimators_", None)
    if not isinstance(classes, np.ndarray) or classes.tolist() not in ([0], [1], [0, 1]):
        return "the forest's classes are not 0 and 1"
    if type(trees) is not list or not trees:
        return "the forest has no trees"
    for number, tree in enumerate(trees):
        flaw = _tree_flaw(tree, features, len(classes)) if type(tree) is DecisionTreeClassifier else "no decision tree"
        if flaw:
            return f"tree {number}: {flaw}"
    return None


def _tree_flaw(estimator: DecisionTreeClassifier, features: int, classes: int) -> str | None:
    """What would make scikit-learn's compiled code read outside the tree's arrays, or go round in circles."""
    tree: Any = getattr(estimator, "tree_", None)
    if type(tree) is not Tree or tree.node_count < 1 or tree.n_features != features:
        return f"it is no tree over {features} features"
    count, left, right = tree.node_count, tree.children_left, tree.children_right
    if len(left) != count or tree.value.shape != (count, 1, classes):
        return f"its arrays do not have {count} nodes and {classes} classes"
    inner = left != -1
    if ((right != -1) != inner).any():
        return "a node has one child"
    # scikit-learn numbers a child after its parent; a smaller number would lead back up.
    own = np.flatnonzero(inner)
    for child in (left[inner], right[inner]):
        if ((child <= own) | (child >= count)).any():
            return "a child's number is out of bounds"
    used = tree.feature[inner]
    if ((used < 0) | (used >= features)).any():
        return "a feature's number is out of bounds"
    if not (np.isfinite(tree.threshold[inner]).all() and np.isfinite(tree.value).all()):
        return "a threshold or a value is not finite"
    return None
