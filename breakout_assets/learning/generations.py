"""Generations of models: where they lie, which of them serve, and what their manifests say.

    <token folder>/20240503T00-0a1b2c3d/manifest.json    its presence says that the generation is complete

A generation is named after the latest price that its model has seen and after its recipe. Nothing here opens a model:
the hourly run looks here and goes without the libraries that models are made with.
"""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from upath import UPath

from breakout_assets import objects
from breakout_assets.errors import DataError
from breakout_assets.learning.known_until import STAMP, hour_of, stamp
from breakout_assets.learning.recipes import Recipe

MANIFEST_FILE: Final = "manifest.json"
SCHEMA_VERSION: Final = 2
_RECIPE_DIGITS: Final = 8  # of the recipe's id: enough to keep recipes apart, short enough to read


def read_manifest(folder: UPath) -> dict[str, Any]:
    """The manifest of a generation, without loading its model.

    Raises:
        DataError: there is none, or it is no JSON of this schema version.
    """
    path = folder / MANIFEST_FILE
    try:
        return _parsed(objects.read(path), path)
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing: the generation is incomplete; train the token again") from error


def _parsed(data: bytes, path: UPath) -> dict[str, Any]:
    try:
        manifest = json.loads(data)
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}); train the token again") from error
    found = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if found != SCHEMA_VERSION:
        raise DataError(
            f"{path} has schema version {found}, this platform reads {SCHEMA_VERSION}; train the token again"
        )
    return dict(manifest)


def manifest_hash(folder: UPath) -> str:
    """SHA-256 of a generation's manifest."""
    return hashlib.sha256(objects.read(folder / MANIFEST_FILE)).hexdigest()


def generation_folder(token_folder: UPath, trained_until: datetime, recipe: Recipe) -> UPath:
    """Where a recipe's generation of this knowledge cut-off lies.

    Raises:
        DataError: the cut-off is not a whole hour; the folder's name would say less than the model has seen.
    """
    if trained_until != trained_until.replace(minute=0, second=0, microsecond=0):
        raise DataError(f"{token_folder}: a model's last label ends at {trained_until}, not at a whole hour")
    return token_folder / generation_name(trained_until, recipe)


def generation_name(trained_until: datetime, recipe: Recipe) -> str:
    """The name of a generation's folder."""
    return f"{stamp(trained_until)}-{recipe.recipe_id[:_RECIPE_DIGITS]}"


def generations(token_folder: UPath, recipe: Recipe) -> dict[datetime, UPath]:
    """The folders of a recipe's complete generations of a token by `trained_until`, oldest first.

    Folders whose name is no generation of the recipe are not looked at.
    """
    return _generations(token_folder.parent, recipe, [token_folder.name]).get(token_folder.name, {})


@dataclass(frozen=True)
class Generation:
    """A complete generation, before its model is read."""

    folder: UPath
    trained_until: datetime
    manifest_hash: str
    """SHA-256 of the manifest, which tells everything about the model but what it computes with, and that by a hash."""


def newest_serving(models: UPath, recipe: Recipe, tokens: Iterable[str] | None = None) -> dict[str, Generation]:
    """The newest generation of each token that serves, by token: of all tokens, or of some.

    Args:
        models: the folder that holds a folder for each token; it is listed once.
        recipe: whose generations.
        tokens: None for all.
    """
    left = _generations(models, recipe, tokens)
    found: dict[str, Generation] = {}
    while left:
        newest = {token: folders.popitem() for token, folders in left.items()}
        manifests = objects.read_many([folder / MANIFEST_FILE for _, folder in newest.values()])
        for (token, (until, folder)), data in zip(newest.items(), manifests, strict=True):
            try:
                serves = bool(_parsed(data, folder / MANIFEST_FILE)["serves"])
            except (DataError, KeyError):  # whoever reads the model is told why
                serves = True
            if serves:
                found[token] = Generation(folder, until, hashlib.sha256(data).hexdigest())
        left = {token: folders for token, folders in left.items() if token not in found and folders}
    return dict(sorted(found.items()))


def _generations(models: UPath, recipe: Recipe, tokens: Iterable[str] | None) -> dict[str, dict[datetime, UPath]]:
    pattern = re.compile(rf"([^/]+)/({STAMP})-{recipe.recipe_id[:_RECIPE_DIGITS]}/{re.escape(MANIFEST_FILE)}")
    found: dict[str, dict[datetime, UPath]] = defaultdict(dict)
    for folder in [models] if tokens is None else [models / token for token in tokens]:
        for path in (file.path for file in objects.found_under(folder)):
            match = pattern.fullmatch(objects.below(models, path))
            if match:
                found[match[1]][hour_of(match[2])] = path.parent
    return {token: dict(sorted(folders.items())) for token, folders in found.items()}
