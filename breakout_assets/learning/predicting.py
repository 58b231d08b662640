"""Predictions of an hour: for each coin a probability and a decision, or the reason why there is none."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import numpy as np
import pandas as pd
from upath import UPath

from breakout_assets.dataset.labels import in_universe
from breakout_assets.errors import DataError
from breakout_assets.learning.model_files import generations, load
from breakout_assets.learning.recipes import Recipe
from breakout_assets.learning.training import FittedModel, feature_values
from breakout_assets.store import Store
from breakout_assets.tables import conform

POOLED: Final = "ALL"

# Why a coin has no probability in an hour.
REASONS: Final[dict[str, str]] = {
    "QUARANTINED": "the row must not be used; live_indicators says why",
    "OUTSIDE_UNIVERSE": "the row fails the filters that the labels were made with",
    "TOO_LITTLE_HISTORY": "an indicator has too few rows for its warm-up, or cannot be computed",
    "MODEL_UNREADABLE": "the model file is damaged or was made by other library versions; train again",
    "REFERENCE_ONLY": "the recipe is kept for comparison; its probabilities are shown and never traded on",
    "NO_MODEL": "neither the token nor the pool has a model that was trained before this hour",
}


@dataclass
class ModelShelf:
    """The models of a store; each file is read once while the shelf is in use."""

    store: Store
    _generations: dict[str, dict[datetime, UPath]] = field(default_factory=dict)
    _loaded: dict[UPath, FittedModel | None] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    """Token -> why its newest model could not be read."""

    def model_for(self, token: str, hour: datetime) -> FittedModel | None:
        """The newest model of a token (or of `POOLED`) that had seen no price after `hour`."""
        if token not in self._generations:
            self._generations[token] = generations(self.store.model_folder(token))
        known = [folder for until, folder in self._generations[token].items() if until <= hour]
        if not known:
            return None
        if known[-1] not in self._loaded:
            try:
                self._loaded[known[-1]] = load(known[-1])
            except DataError as error:  # one bad file must not keep all other coins from being judged
                self._loaded[known[-1]] = None
                self.unreadable[token] = str(error)
        return self._loaded[known[-1]]


def predict_hour(live: pd.DataFrame, shelf: ModelShelf, recipe: Recipe, hour: datetime) -> pd.DataFrame:
    """One row for each token of `live_indicators`, with the columns of `tables.PREDICTIONS`, by token.

    A coin that is listed twice has one believed row at most, and that one counts.
    A coin is judged by its own model, else by the pooled one. Models of another recipe than the one in use do not
    count: its threshold would mean something else.
    """
    rows = live.assign(doubtful=live["quarantine"].notna()).sort_values(["token", "doubtful"], kind="stable")
    rows = rows.drop_duplicates("token", ignore_index=True)
    rows = rows.assign(probability=np.nan, threshold=np.nan, decision="none", reason=_obstacles(rows, recipe))
    for column in ("model_hash", "model_scope"):
        rows[column] = pd.Series(None, index=rows.index, dtype="str")
    by_model: dict[str, tuple[FittedModel, list[int]]] = {}
    unserved = []
    for index in rows.index[rows["reason"].isna()]:
        model = _own_or_pooled(shelf, str(rows.at[index, "token"]), hour, recipe)
        if model is None:
            unserved.append(index)
        else:
            by_model.setdefault(model.name, (model, []))[1].append(index)
    for index in unserved:
        broken = {str(rows.at[index, "token"]), POOLED} & shelf.unreadable.keys()
        rows.at[index, "reason"] = "MODEL_UNREADABLE" if broken else "NO_MODEL"
    for model, served in by_model.values():
        rows.loc[served, "probability"] = model.probabilities(rows.loc[served])
        rows.loc[served, ["model_hash", "model_scope"]] = [model.model_hash, model.scope]
    predicted = rows["probability"].notna()
    rows.loc[predicted, "threshold"] = recipe.threshold
    rows.loc[predicted, "decision"] = np.where(rows.loc[predicted, "probability"] >= recipe.threshold, "buy", "pass")
    if recipe.reference_only:
        rows.loc[predicted, "decision"] = "none"
        rows.loc[predicted, "reason"] = "REFERENCE_ONLY"
    return conform(rows, "predictions")


def _own_or_pooled(shelf: ModelShelf, token: str, hour: datetime, recipe: Recipe) -> FittedModel | None:
    for name in (token, POOLED):
        model = shelf.model_for(name, hour)
        if model is not None and model.recipe.recipe_id == recipe.recipe_id:
            return model
    return None


def _obstacles(rows: pd.DataFrame, recipe: Recipe) -> pd.Series:
    """The first reason against each row that stands before any model is asked; null where there is none."""
    with np.errstate(over="ignore"):  # a forest's features are 32-bit floats
        finite = np.isfinite(feature_values(rows, recipe.features).astype(np.float32)).all(axis=1)
    checks = [rows["quarantine"].notna(), ~in_universe(rows), ~finite]
    names = ["QUARANTINED", "OUTSIDE_UNIVERSE", "TOO_LITTLE_HISTORY"]
    return pd.Series(np.select(checks, names, default=""), index=rows.index, dtype="str").replace("", None)
