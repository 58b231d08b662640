"""Which models serve, kept as one file: every hour reads it at once instead of a thousand archives.

    serving/<recipe>/000007-<blake3>.arrow       the newest serving generation of every token (`packed`)
    serving/<recipe>/changed/<token>@<until>     a generation that was written since; folded in by the next reader

The archives under `token_model/` stay what counts; everything here is derived from them and may be deleted at any time.
Whoever removes or replaces a model file by hand deletes `serving/` as well.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pyarrow as pa
from upath import UPath

from breakout_assets import objects
from breakout_assets.errors import DataError
from breakout_assets.learning.generations import Generation, newest_serving
from breakout_assets.learning.known_until import stamp
from breakout_assets.learning.packed import (
    PackedModels,
    file_bytes,
    flawed_row,
    opened,
    packed,
    packed_row,
    with_hashes,
)
from breakout_assets.learning.recipes import POOLED, Recipe
from breakout_assets.store import MODELS, Store

if TYPE_CHECKING:
    from breakout_assets.learning.training import FittedModel

_RECIPE_DIGITS: Final = 8  # as in the names of generations
_NAME: Final = re.compile(r"(\d{6})-([0-9a-f]{64})\.arrow")
_CHANGED: Final = "changed"
# A reader may be about to open the file that was the newest when it looked.
_KEPT: Final = 2
_TOLD_EVERY: Final = 100
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Shelf:
    """What lies in the folder of a recipe.

    Attributes:
        packs: files of packed models by (number, digest), oldest first.
        changed: marks of generations that were written since.
    """

    packs: dict[tuple[int, str], UPath]
    changed: list[UPath]

    @property
    def number(self) -> int:
        """The highest number; 0 if there is no file."""
        return max(self.packs, default=(0, ""))[0]

    @property
    def is_contested(self) -> bool:
        """Whether two writers have taken the highest number, each with other models."""
        return sum(number == self.number for number, _ in self.packs) > 1


def publish(store: Store, model: "FittedModel") -> UPath:
    """Write a model as a generation of its token, and let it serve; returns the generation's folder."""
    from breakout_assets.learning.model_files import save

    folder = save(model, store.model_folder(model.name))
    # Once it is complete: a mark that came first could be folded in, and removed, before there is anything to fold in.
    store.write(_folder(store, model.recipe) / _CHANGED / f"{model.name}@{stamp(model.trained_until)}", b"")
    return folder


def serving_models(store: Store, recipe: Recipe) -> PackedModels:
    """The newest serving generation of every token (of the pool alone where the recipe pools); one read."""
    found = _look(store, recipe)
    models = None if found.changed or found.is_contested else _open(found, recipe)
    return models or refresh(store, recipe)


def refresh(store: Store, recipe: Recipe, fresh: Mapping[str, pa.Table] | None = None) -> PackedModels:
    """Bring the file up to what lies under `token_model/`, and read it.

    Args:
        store: where both are.
        recipe: whose models.
        fresh: `packed_row` of models that need not be read from their archives, by the path of their generation.
    """
    while True:
        before = _look(store, recipe)
        known = _open(before, recipe)
        models = packed(_rows(store, recipe, known, fresh or {}), recipe.recipe_id)
        number = before.number
        if known is None or models.digest != known.digest or before.is_contested:
            number += 1
            path = _folder(store, recipe) / f"{number:06d}-{models.digest}.arrow"
            store.write_new(path, file_bytes(models.table))
        after = _look(store, recipe)
        # Another writer took the number as well, or the next one: each may know a generation that the other does not.
        if after.number > number or after.is_contested:
            continue
        objects.delete_many([*before.changed, *list(after.packs.values())[:-_KEPT]])
        return models


def _rows(
    store: Store, recipe: Recipe, known: PackedModels | None, fresh: Mapping[str, pa.Table]
) -> Iterator[pa.Table]:
    """The row of each token's newest serving generation."""
    manifests = [] if known is None else known.table["manifest_hash"].to_pylist()
    place = {manifest: row for row, manifest in enumerate(manifests) if manifest}
    names = [POOLED] if recipe.scope == "pooled" else None
    found = newest_serving(store.root / MODELS, recipe, names)
    for number, (token, generation) in enumerate(found.items(), start=1):
        if known is not None and generation.manifest_hash in place:
            yield known.table.slice(place[generation.manifest_hash], 1)
        else:
            yield _row(token, generation, recipe, fresh)
        if number % _TOLD_EVERY == 0:
            _log.info("%d of %d models are packed for serving", number, len(found))


def _row(token: str, generation: Generation, recipe: Recipe, fresh: Mapping[str, pa.Table]) -> pa.Table:
    # What opens archives takes a second to import; an hour does without it as long as no model is new.
    from breakout_assets.learning.model_files import load

    try:
        row = fresh.get(str(generation.folder))
        row = packed_row(load(generation.folder)) if row is None else row
        return with_hashes(row, manifest_hash=generation.manifest_hash)
    except DataError as error:  # one bad file must not keep all other coins from being judged
        return flawed_row(token, recipe, generation.trained_until, str(error))


def _folder(store: Store, recipe: Recipe) -> UPath:
    return store.root / "serving" / recipe.recipe_id[:_RECIPE_DIGITS]


def _look(store: Store, recipe: Recipe) -> _Shelf:
    packs, changed = {}, []
    for file in objects.found_under(_folder(store, recipe)):
        match = _NAME.fullmatch(file.path.name)
        if file.path.parent.name == _CHANGED:
            changed.append(file.path)
        elif match:
            packs[int(match[1]), match[2]] = file.path
    return _Shelf(dict(sorted(packs.items())), changed)


def _open(found: _Shelf, recipe: Recipe) -> PackedModels | None:
    """The newest file; None if there is none, or it is damaged and must be made anew."""
    if not found.packs:
        return None
    key = max(found.packs)
    path = found.packs[key]
    try:
        return opened(objects.read_mapped(path), key[1], recipe.recipe_id, str(path))
    except DataError as error:
        _log.warning("%s", error)
        return None
    except FileNotFoundError:  # deleted as superseded since the listing
        return None
