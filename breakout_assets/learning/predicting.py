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

# Why a coin has no probability, or one that is not traded on.
REASONS: Final[dict[str, str]] = {
    "QUARANTINED": "the row must not be used; live_indicators says why",
    "OUTSIDE_UNIVERSE": "the row fails the filters that the labels were made with",
    "TOO_LITTLE_HISTORY": "an indicator has too few rows for its warm-up, or cannot be computed",
    "MODEL_UNREADABLE": "the model file is damaged or was made by other library versions; train again",
    "MODEL_EXPIRED": "the newest model has seen nothing of the last weeks; train again",
    "NO_MODEL": "neither the token nor the pool has a model that was trained before this hour",
    "NO_EVIDENCE": "the recipe has not been evaluated on what was known at this hour; materialise model_report",
    "EVIDENCE_EXPIRED": "the newest evaluation is too old; materialise model_report again",
    "NOT_PROVEN": "the evaluation found no edge beyond luck and costs; model_report says what is missing",
    "REALISED_LOSS": "what was predicted in the last weeks has lost money; model_monitoring shows it",
    "NO_THRESHOLD": "on the rows held out at training no threshold paid for its costs",
}
# Why the pooled model speaks about a coin, beside the shortcomings of `admission` and MODEL_EXPIRED.
POOLED_RECIPE: Final = "POOLED_RECIPE"
NO_OWN_MODEL: Final = "NO_OWN_MODEL"


@dataclass(frozen=True)
class Speaker:
    """Who judges a coin: a model, or the reason why none does."""

    model: FittedModel | None
    reason: str | None
    """A code of `REASONS` where there is no model."""
    fallback: str | None
    """Why the coin's own model does not speak; None where it does."""


@dataclass
class ModelShelf:
    """The models of one recipe; each file is read once while the shelf is in use."""

    store: Store
    recipe: Recipe
    _generations: dict[str, dict[datetime, UPath]] = field(default_factory=dict)
    _loaded: dict[UPath, FittedModel | None] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    """Token -> why its newest model could not be read."""

    def model_for(self, token: str, hour: datetime) -> FittedModel | None:
        """The newest serving model of a token (or of `POOLED`) that had seen no price after `hour`."""
        if token not in self._generations:
            self._generations[token] = generations(self.store.model_folder(token), self.recipe)
        for until, folder in reversed(self._generations[token].items()):
            if until <= hour:
                model = self._read(token, folder)
                if model is None or model.serves:
                    return model
        return None

    def _read(self, token: str, folder: UPath) -> FittedModel | None:
        if folder not in self._loaded:
            try:
                self._loaded[folder] = load(folder)
            except DataError as error:  # one bad file must not keep all other coins from being judged
                self._loaded[folder] = None
                self.unreadable[token] = str(error)
        return self._loaded[folder]

    def speaker(self, token: str, hour: datetime, *, trusting: bool) -> Speaker:
        """The coin's own model where the recipe has one that may speak, else the pooled one, else the reason.

        Args:
            token: the coin.
            hour: what is known.
            trusting: ask own models whatever `admission` says.
        """
        fallback: str | None = POOLED_RECIPE
        if self.recipe.scope == "per_token":
            own = self.model_for(token, hour)
            fallback = self._against(own, token, hour, trusting=trusting)
            if own is not None and fallback is None:
                return Speaker(own, None, None)
        pooled = self.model_for(POOLED, hour)
        reason = self._against(pooled, POOLED, hour, trusting=trusting)
        if pooled is None or reason is not None:
            unread = {token, POOLED} & self.unreadable.keys()
            known = "MODEL_UNREADABLE" if unread else "NO_MODEL" if pooled is None else str(reason)
            return Speaker(None, known, fallback)
        return Speaker(pooled, None, fallback)

    def _against(self, model: FittedModel | None, name: str, hour: datetime, *, trusting: bool) -> str | None:
        if model is None:
            return "MODEL_UNREADABLE" if name in self.unreadable else NO_OWN_MODEL
        if hour >= model.expires_at:
            return "MODEL_EXPIRED"
        # What is too little for one coin is judged at the pool by its evaluation.
        return None if trusting or name == POOLED else next(iter(model.admission), None)


def predict_hour(
    live: pd.DataFrame, shelf: ModelShelf, hour: datetime, doubt: str | None, *, trusting: bool
) -> pd.DataFrame:
    """One row for each token of `live_indicators`, with the columns of `tables.PREDICTIONS`, by token.

    A coin that is listed twice has one believed row at most, and that one counts.

    Args:
        live: rows of `live_indicators` of the hour.
        shelf: the models of the recipe that speaks.
        hour: naive UTC.
        doubt: why the recipe is not trusted with money at this hour (a code of `REASONS`); None if it is.
        trusting: decide whatever speaks against it, and from the recipe's fixed threshold on where none paid.
    """
    recipe = shelf.recipe
    rows = live.assign(doubtful=live["quarantine"].notna()).sort_values(["token", "doubtful"], kind="stable")
    rows = rows.drop_duplicates("token", ignore_index=True)
    nothing = dict.fromkeys(("probability", "threshold", "score"), np.nan)
    rows = rows.assign(**nothing, decision="none", reason=_obstacles(rows, recipe), recipe_id=recipe.recipe_id)
    for column in ("model_hash", "model_scope", "fallback"):
        rows[column] = pd.Series(None, index=rows.index, dtype="str")
    by_model: dict[str, tuple[FittedModel, list[int]]] = {}
    for index in rows.index[rows["reason"].isna()]:
        speaker = shelf.speaker(str(rows.at[index, "token"]), hour, trusting=trusting)
        rows.at[index, "reason"], rows.at[index, "fallback"] = speaker.reason, speaker.fallback
        if speaker.model is not None:
            by_model.setdefault(speaker.model.name, (speaker.model, []))[1].append(index)
    for model, served in by_model.values():
        rows.loc[served, "score"] = model.scores(rows.loc[served])
        rows.loc[served, "probability"] = model.probabilities(rows.loc[served])
        rows.loc[served, ["model_hash", "model_scope"]] = [model.model_hash, model.scope]
        threshold = recipe.threshold if model.own_threshold is None and trusting else model.own_threshold
        rows.loc[served, "threshold"] = np.nan if threshold is None else threshold
        against = None if trusting else doubt or ("NO_THRESHOLD" if threshold is None else None)
        if against is not None:
            rows.loc[served, "reason"] = against
            continue
        rows.loc[served, "decision"] = np.where(rows.loc[served, "probability"] >= threshold, "buy", "pass")
    return conform(rows, "predictions")


def _obstacles(rows: pd.DataFrame, recipe: Recipe) -> pd.Series:
    """The first reason against each row that stands before any model is asked; null where there is none."""
    with np.errstate(over="ignore"):  # a forest's features are 32-bit floats
        finite = np.isfinite(feature_values(rows, recipe.features).astype(np.float32)).all(axis=1)
    checks = [rows["quarantine"].notna(), ~in_universe(rows), ~finite]
    names = ["QUARANTINED", "OUTSIDE_UNIVERSE", "TOO_LITTLE_HISTORY"]
    return pd.Series(np.select(checks, names, default=""), index=rows.index, dtype="str").replace("", None)
