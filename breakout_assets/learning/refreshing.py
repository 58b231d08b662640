"""Training anew: whether a new generation takes over from the one that serves."""

from dataclasses import replace
from datetime import datetime

import numpy as np
import pandas as pd

from breakout_assets.learning.predicting import ModelShelf
from breakout_assets.learning.promotion import refresh_is_worse
from breakout_assets.learning.recipes import Recipe
from breakout_assets.learning.splits import LABEL_DELAY
from breakout_assets.learning.training import FittedModel, Scope, feature_values, fit
from breakout_assets.store import Store


def fit_anew(
    store: Store, rows: pd.DataFrame, recipe: Recipe, scope: Scope, name: str, as_of: datetime | None = None
) -> tuple[FittedModel, str]:
    """A model of `training.fit`, and whether it takes over from the recipe's generation that serves by now.

    Both are asked about the rows that neither had seen: observed after the last price the older one knows, and held
    out by the newer one. Only a refresh that probably loses money against the older one does not serve; a few days
    decide nothing, and then knowing more is reason enough.

    Returns:
        The model, with `serves` set, and a sentence.

    Raises:
        NotTrainable, DataError: as `training.fit`.
    """
    model = fit(rows, recipe, scope, name, as_of)
    before = ModelShelf(store, recipe).model_for(name, model.trained_until)
    if before is None or before.trained_until == model.trained_until:
        return model, "it is the first of its recipe, or replaces one with the same knowledge"
    unseen = _unseen_by_both(rows, before, model)
    worse = None
    if len(unseen):
        older = before.probabilities(unseen)
        newer = unseen["probability"].to_numpy(dtype=np.float64)
        worse = refresh_is_worse(older, newer, unseen, before.own_threshold, model.own_threshold, recipe.cost)
    if worse:
        return replace(model, serves=False), (
            f"it does not serve: on {len(unseen)} rows that neither had seen it earns less than the generation of "
            f"{before.trained_until:%Y-%m-%d %H:00}, which stays until it expires"
        )
    return model, "it serves: " + (
        "too little is new to compare it with the generation before" if worse is None else "it is no worse than before"
    )


def _unseen_by_both(rows: pd.DataFrame, before: FittedModel, model: FittedModel) -> pd.DataFrame:
    held_out = model.held_out
    if held_out is None or "change" not in held_out:
        return rows.iloc[:0]
    unseen = held_out[held_out["timestamp"] >= before.trained_until + LABEL_DELAY]
    features = rows[["token", "timestamp", *before.recipe.features]]
    found = unseen.merge(features, on=["token", "timestamp"], how="left", validate="1:1")
    finite = np.isfinite(feature_values(found, before.recipe.features))
    return found[np.logical_and.reduce(finite, axis=1)]
