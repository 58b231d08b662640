"""Models on disk and on S3: generations of a token's model, each a model file and a manifest.

    <token folder>/20240503T00/model.skops      scaler and forest
    <token folder>/20240503T00/manifest.json    everything else; its presence says that the generation is complete

A generation is named after the latest price that its model has seen. A prediction for a past hour takes the newest
generation from before that hour, so that it never comes from a model that knows how the story went on.
"""

import hashlib
import json
import math
import platform
import re
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import version
from typing import Any, Final

import pandas as pd
from upath import UPath

from breakout_assets.errors import DataError
from breakout_assets.learning.archive import Estimators, pack, unpack
from breakout_assets.learning.evaluation import Metrics
from breakout_assets.learning.recipes import Recipe
from breakout_assets.learning.training import Dropped, FittedModel
from breakout_assets.store import write_whole

MODEL_FILE: Final = "model.skops"
MANIFEST_FILE: Final = "manifest.json"
SCHEMA_VERSION: Final = 1
_GENERATION: Final = "%Y%m%dT%H"
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
    folder = generation_folder(token_folder, model.trained_until)
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
    if folder.name != f"{model['trained_until']:{_GENERATION}}":
        raise DataError(f"{path} says trained_until {model['trained_until']}, its folder {folder.name}; restore it")
    _check_versions(versions, path)
    estimators = _read_estimators(folder / MODEL_FILE, model["model_hash"])
    if not estimators.features == model["recipe"].features == features:
        raise DataError(f"{folder / MODEL_FILE} was trained on other features than its manifest lists; train it again")
    return FittedModel(**model, scaler=estimators.scaler, forest=estimators.forest)


def read_manifest(folder: UPath) -> dict[str, Any]:
    """The manifest of a generation, without loading its model.

    Raises:
        DataError: there is none, or it is no JSON of this schema version.
    """
    path = folder / MANIFEST_FILE
    try:
        manifest = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing: the generation is incomplete; train the token again") from error
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}); train the token again") from error
    found = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if found != SCHEMA_VERSION:
        raise DataError(
            f"{path} has schema version {found}, this platform reads {SCHEMA_VERSION}; train the token again"
        )
    return dict(manifest)


def generation_folder(token_folder: UPath, trained_until: datetime) -> UPath:
    """Where the generation of this knowledge cut-off lies.

    Raises:
        DataError: the cut-off is not a whole hour; the folder's name would say less than the model has seen.
    """
    if trained_until != trained_until.replace(minute=0, second=0, microsecond=0):
        raise DataError(f"{token_folder}: a model's last label ends at {trained_until}, not at a whole hour")
    return token_folder / f"{trained_until:{_GENERATION}}"


def generations(token_folder: UPath) -> dict[datetime, UPath]:
    """The folders of the complete generations of a token by `trained_until`, oldest first; empty if there is none.

    Folders whose name is no generation are not looked at. On S3, give a path without a listings cache, or what
    another process wrote stays unseen.
    """
    names = (manifest.parent for manifest in token_folder.glob(f"*/{MANIFEST_FILE}"))
    found = {datetime.strptime(n.name, _GENERATION): n for n in names if re.fullmatch(r"\d{8}T\d{2}", n.name)}  # noqa: DTZ007  hours are naive UTC
    return dict(sorted(found.items()))


def newest_before(token_folder: UPath, hour: datetime) -> UPath | None:
    """The folder of the newest generation that had seen no price after this hour (naive UTC); None if there is none."""
    known = [folder for until, folder in generations(token_folder).items() if until <= hour]
    return known[-1] if known else None


def _model_bytes(model: FittedModel) -> bytes:
    return pack(Estimators(model.recipe.features, model.scaler, model.forest))


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
        "seed": model.seed,
        "trained_from": model.trained_from.isoformat(),
        "trained_until": model.trained_until.isoformat(),
        "rows": model.rows,
        "positives": model.positives,
        "dropped": asdict(model.dropped) | {"later": 0},  # the store's content beyond the cut-off must not show here
        "metrics": metrics,
        "importances": model.importances.to_dict(),
        "versions": {"python": platform.python_version()} | {package: version(package) for package in _PACKAGES},
    }


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
        "trained_from": datetime.fromisoformat(manifest["trained_from"]),
        "trained_until": datetime.fromisoformat(manifest["trained_until"]),
        "rows": manifest["rows"],
        "positives": manifest["positives"],
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
        data = path.read_bytes()
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
        write_whole(path, data)
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror or error}); check the folder") from error
