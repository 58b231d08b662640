"""Training anew: whether a new generation takes over from the one that serves."""

from dataclasses import replace
from datetime import datetime
from typing import Final

import numpy as np
import pandas as pd
from upath import UPath

from breakout_assets.errors import DataError
from breakout_assets.learning.generations import generations, read_manifest
from breakout_assets.learning.model_files import load
from breakout_assets.learning.promotion import refresh_is_worse
from breakout_assets.learning.recipes import Recipe
from breakout_assets.learning.selection import Selection
from breakout_assets.learning.splits import LABEL_DELAY
from breakout_assets.learning.statistics import hours_of, independent_windows
from breakout_assets.learning.training import FittedModel, Scope, fit_selection
from breakout_assets.store import Store

# Fewer independent windows decide nothing (`promotion.refresh_is_worse`). They are counted before the older model is
# loaded, which takes a tenth of a training; of models that are trained every week they are always fewer.
_LEAST_WINDOWS: Final = 2
_FIRST: Final = "it is the first of its recipe, or replaces one with the same knowledge"


def fit_anew(store: Store, selection: Selection, recipe: Recipe, scope: Scope, name: str) -> tuple[FittedModel, str]:
    """A model of `training.fit_selection`, and whether it takes over from the recipe's generation that serves by now.

    Both are asked about the rows that neither had seen: observed after the last price the older one knows, and held
    out by the newer one. Only a refresh that probably loses money against the older one does not serve; a few days
    decide nothing, and then knowing more is reason enough.

    Returns:
        The model, with `serves` set, and a sentence.

    Raises:
        NotTrainable, DataError: as `training.fit`.
    """
    model = fit_selection(selection, recipe, scope, name)
    before = _serving(store, model)
    if before is None or before[0] == model.trained_until:
        return model, _FIRST
    until, folder = before
    unseen = _unseen_by_both(selection.rows, until, model)
    worse = None
    if independent_windows(hours_of(unseen["timestamp"])) >= _LEAST_WINDOWS:
        try:
            older = load(folder)
        except DataError:  # training again is what mends a damaged model
            return model, _FIRST
        said = older.probabilities(unseen), unseen["probability"].to_numpy(dtype=np.float64)
        worse = refresh_is_worse(*said, unseen, older.own_threshold, model.own_threshold, recipe.cost)
    if worse:
        return replace(model, serves=False), (
            f"it does not serve: on {len(unseen)} rows that neither had seen it earns less than the generation of "
            f"{until:%Y-%m-%d %H:00}, which stays until it expires"
        )
    return model, "it serves: " + (
        "too little is new to compare it with the generation before" if worse is None else "it is no worse than before"
    )


def _serving(store: Store, model: FittedModel) -> tuple[datetime, UPath] | None:
    """The newest generation that knows no more than the model and serves; none if it cannot be read."""
    folders = generations(store.model_folder(model.name), model.recipe)
    for until, folder in reversed(folders.items()):
        if until > model.trained_until:
            continue
        try:
            if read_manifest(folder)["serves"]:
                return until, folder
        except DataError:  # predictions do without it, too
            return None
    return None


def _unseen_by_both(rows: pd.DataFrame, until: datetime, model: FittedModel) -> pd.DataFrame:
    held_out = model.held_out
    if held_out is None or "change" not in held_out:
        return rows.iloc[:0]
    unseen = held_out[held_out["timestamp"] >= until + LABEL_DELAY]
    features = rows[["token", "timestamp", *model.recipe.features]]
    return unseen.merge(features, on=["token", "timestamp"], how="left", validate="1:1")
