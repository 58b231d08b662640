"""Models on disk and on S3: generations of a token's model, each a model file and a manifest.

    <token folder>/20240503T00-0a1b2c3d/model.skops      scaler, classifier, calibration, threshold
    <token folder>/20240503T00-0a1b2c3d/manifest.json    everything else; its presence says that all is there

A prediction for a past hour takes the newest generation from before that hour, so that it never comes from a model that
knows how the story went on.
"""

import hashlib
import json
import math
import platform
from dataclasses import asdict
from datetime import datetime
from functools import cache
from importlib.metadata import version
from typing import Any, Final

import pandas as pd
from upath import UPath

from breakout_assets import objects
from breakout_assets.errors import DataError
from breakout_assets.learning.archive import Estimators, pack, unpack
from breakout_assets.learning.evaluation import Metrics
from breakout_assets.learning.generations import (
    MANIFEST_FILE,
    SCHEMA_VERSION,
    generation_folder,
    generation_name,
    read_manifest,
)
from breakout_assets.learning.recipes import Recipe
from breakout_assets.learning.selection import Dropped
from breakout_assets.learning.training import FittedModel

MODEL_FILE: Final = "model.skops"
_PACKAGES: Final = ("numpy", "scikit-learn", "imbalanced-learn", "skops")
# Their compiled trees and arrays change between minor releases; a patch release keeps them.
_MUST_MATCH: Final = ("numpy", "scikit-learn")


def model_hash(model: FittedModel) -> str:
    """SHA-256 of the model file that `save` writes for this model; predictions cite it."""
    return hashlib.sha256(_model_bytes(model)).hexdigest()


def save(model: FittedModel, token_folder: UPath) -> UPath:
    """Write a model as a generation of its token.

    The same model gives the same bytes, so that writing a generation again, or from two processes at once, is
    harmless. The manifest is written last; a reader never finds one whose model file is not there.

    Returns:
        The generation's folder.

    Raises:
        DataError: a file cannot be written; the message names it.
    """
    folder = generation_folder(token_folder, model.trained_until, model.recipe)
    data = _model_bytes(model)
    _write(folder / MODEL_FILE, data)
    manifest = json.dumps(_manifest(model, hashlib.sha256(data).hexdigest()), indent=2, allow_nan=False)
    _write(folder / MANIFEST_FILE, f"{manifest}\n".encode())
    return folder


def load(folder: UPath) -> FittedModel:
    """Read the model of a generation's folder.

    Raises:
        DataError: the generation is incomplete, damaged, foreign, malformed or made by other library versions; the
            message names the file.
    """
    manifest = read_manifest(folder)
    path = folder / MANIFEST_FILE
    try:
        model = _model_without_estimators(manifest)
        features, versions = tuple(manifest["features"]), dict(manifest["versions"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is not a manifest of this platform ({error!r}); train the token again") from error
    if folder.name != generation_name(model["trained_until"], model["recipe"]):
        raise DataError(
            f"{path} says trained_until {model['trained_until']} and recipe {model['recipe'].recipe_id}, its folder "
            f"{folder.name}; restore it"
        )
    _check_versions(versions, path)
    estimators = _read_estimators(folder / MODEL_FILE, model["model_hash"])
    if not estimators.features == model["recipe"].features == features:
        raise DataError(f"{folder / MODEL_FILE} was trained on other features than its manifest lists; train it again")
    return FittedModel(
        **model,
        scaler=estimators.scaler,
        classifier=estimators.classifier,
        calibration=estimators.calibration,
        own_threshold=estimators.threshold,
    )


def _model_bytes(model: FittedModel) -> bytes:
    return pack(
        Estimators(model.recipe.features, model.scaler, model.classifier, model.calibration, model.own_threshold)
    )


def _manifest(model: FittedModel, sha256: str) -> dict[str, Any]:
    metrics = asdict(model.metrics) | {
        "auc": None if math.isnan(model.metrics.auc) else model.metrics.auc,  # JSON has no NaN
        "first_hour": model.metrics.first_hour.isoformat(),
        "last_hour": model.metrics.last_hour.isoformat(),
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "name": model.name,
        "scope": model.scope,
        "model_hash": sha256,  # of the model file
        "recipe_id": model.recipe.recipe_id,
        "recipe": asdict(model.recipe),
        "features": list(model.recipe.features),
        "feature_set_hash": model.recipe.feature_set_hash,
        "data_hash": model.data_hash,
        "seed": model.seed,
        "serves": model.serves,
        "trained_from": model.trained_from.isoformat(),
        "trained_until": model.trained_until.isoformat(),
        "expires_at": model.expires_at.isoformat(),
        "calibration": None if model.calibration is None else asdict(model.calibration),
        "own_threshold": model.own_threshold,
        "rows": model.rows,
        "positives": model.positives,
        "admission": list(model.admission),
        "dropped": asdict(model.dropped) | {"later": 0},  # the store's content beyond the cut-off must not show here
        "metrics": metrics,
        "importances": model.importances.to_dict(),
        "versions": _versions(),
    }


@cache
def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {package: version(package) for package in _PACKAGES}


def _model_without_estimators(manifest: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `FittedModel` that a manifest holds."""
    recipe = Recipe(**manifest["recipe"] | {"features": tuple(manifest["recipe"]["features"])})
    if recipe.recipe_id != manifest["recipe_id"]:
        raise ValueError(f"its recipe has the id {recipe.recipe_id}, not {manifest['recipe_id']}")
    if manifest["scope"] not in ("token", "pooled"):
        raise ValueError(f"scope {manifest['scope']!r} is neither token nor pooled")
    metrics = manifest["metrics"]
    return {
        "name": manifest["name"],
        "scope": manifest["scope"],
        "recipe": recipe,
        "seed": manifest["seed"],
        "data_hash": manifest["data_hash"],
        "serves": bool(manifest["serves"]),
        "trained_from": datetime.fromisoformat(manifest["trained_from"]),
        "trained_until": datetime.fromisoformat(manifest["trained_until"]),
        "rows": manifest["rows"],
        "positives": manifest["positives"],
        "admission": tuple(manifest["admission"]),
        "dropped": Dropped(**manifest["dropped"]),
        "metrics": Metrics(
            **metrics
            | {
                "auc": math.nan if metrics["auc"] is None else metrics["auc"],
                "first_hour": datetime.fromisoformat(metrics["first_hour"]),
                "last_hour": datetime.fromisoformat(metrics["last_hour"]),
            }
        ),
        "importances": pd.Series(manifest["importances"], dtype="float64", name="importance"),
        "model_hash": manifest["model_hash"],
    }


def _check_versions(made_by: dict[str, str], path: UPath) -> None:
    for package in _MUST_MATCH:
        there, here = str(made_by.get(package)), version(package)
        if there.split(".")[:2] != here.split(".")[:2]:
            raise DataError(f"{path} was made with {package} {there}, here is {here}; install that or train again")


def _read_estimators(path: UPath, expected: str) -> Estimators:
    try:
        data = objects.read(path)
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing although its manifest is there; train the token again") from error
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != expected:
        raise DataError(
            f"{path} has the sha256 {sha256}, its manifest says {expected}: it is damaged or is being "
            "replaced; try again, then train the token again"
        )
    return unpack(data, str(path))


def _write(path: UPath, data: bytes) -> None:
    try:
        objects.write(path, data)
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror or error}); check the folder") from error
