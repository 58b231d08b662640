"""Predictions of an hour: for each coin a probability and a decision, or the reason why there is none."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
from upath import UPath

from breakout_assets.dataset.labels import in_universe
from breakout_assets.errors import DataError
from breakout_assets.learning.generations import generations, manifest_hash
from breakout_assets.learning.packed import Floats, Ints, PackedModels, flawed_row, packed, packed_row, with_hashes
from breakout_assets.learning.recipes import POOLED, Recipe
from breakout_assets.learning.selection import feature_values
from breakout_assets.learning.serving import serving_models
from breakout_assets.store import Store
from breakout_assets.tables import conform

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
class _Read:
    """What is kept of an archive; the model itself would take many times the memory."""

    serves: bool
    row: pa.Table


@dataclass
class ModelShelf:
    """The models of one recipe; each file is read once while the shelf is in use."""

    store: Store
    recipe: Recipe
    _generations: dict[str, dict[datetime, UPath]] = field(default_factory=dict)
    _read: dict[UPath, _Read] = field(default_factory=dict)
    _serving: PackedModels | None = None
    _earlier: tuple[tuple[UPath | None, ...], PackedModels] | None = None  # the last one: hours are asked in order

    def models_at(self, hour: datetime) -> PackedModels:
        """The newest serving model of every token, and of the pool, that had seen no price after `hour`.

        Those that serve now are one file. Of tokens whose model has seen a later price, the archives are searched for
        an earlier one.
        """
        if self._serving is None:
            self._serving = serving_models(self.store, self.recipe)
        about = self._serving.about
        later = about.index[about["trained_until"] > hour]
        if later.empty:
            return self._serving
        folders = tuple(self._folder_at(str(token), hour) for token in later)
        if self._earlier is None or self._earlier[0] != folders:
            kept = self._serving.table.filter(pa.array(~about.index.isin(later)))
            rows = [self._read[folder].row for folder in folders if folder]
            self._earlier = folders, packed([kept, *rows], self.recipe.recipe_id)
        return self._earlier[1]

    def _folder_at(self, token: str, hour: datetime) -> UPath | None:
        if token not in self._generations:
            self._generations[token] = generations(self.store.model_folder(token), self.recipe)
        for until, folder in reversed(self._generations[token].items()):
            if until <= hour:
                if folder not in self._read:
                    self._read[folder] = self._look_into(token, until, folder)
                if self._read[folder].serves:
                    return folder
        return None

    def _look_into(self, token: str, until: datetime, folder: UPath) -> _Read:
        from breakout_assets.learning.model_files import load  # slow to import; what serves now is packed

        try:
            model = load(folder)
            # With its manifest, so that the same models make the same file whenever it is made.
            return _Read(model.serves, with_hashes(packed_row(model), manifest_hash=manifest_hash(folder)))
        except DataError as error:  # one bad file must not keep all other coins from being judged
            return _Read(serves=True, row=flawed_row(token, self.recipe, until, str(error)))


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

    Raises:
        DataError: a coin's indicators are no numbers that its model can judge; the message names it.
    """
    recipe = shelf.recipe
    rows = live.assign(doubtful=live["quarantine"].notna()).sort_values(["token", "doubtful"], kind="stable")
    rows = rows.drop_duplicates("token", ignore_index=True)
    models = shelf.models_at(hour)
    speakers = _speakers(rows["token"], models.about, recipe, hour, trusting=trusting)
    obstacle = _obstacles(rows, recipe)
    asked = (obstacle.isna() & (speakers["model"] >= 0)).to_numpy()
    which = speakers["model"].to_numpy()[asked]
    about = models.about.reset_index().take(which)
    scores = _scores(models, which, rows[asked], recipe)
    probability = models.probabilities(which, scores)
    threshold = about["threshold"].fillna(recipe.threshold) if trusting else about["threshold"]
    against = pd.Series(None if trusting else doubt, index=about.index, dtype="str")
    if not trusting:
        against = against.where(against.notna() | threshold.notna(), "NO_THRESHOLD")
    said = {
        "score": scores,
        "probability": probability,
        "threshold": threshold.to_numpy(),
        "model_hash": about["model_hash"].to_numpy(),
        "model_scope": about["scope"].to_numpy(),
        "pack_hash": models.digest,
        "reason": against.to_numpy(),
        "decision": np.where(against.notna(), "none", np.where(probability >= threshold, "buy", "pass")),
    }
    unasked = obstacle.isna()
    rows = rows.assign(
        **dict.fromkeys(("probability", "threshold", "score"), np.nan),
        **{name: pd.Series(None, index=rows.index, dtype="str") for name in ("model_hash", "model_scope", "pack_hash")},
        decision="none",
        reason=obstacle.where(~unasked, speakers["reason"]),
        fallback=speakers["fallback"].where(unasked),
        recipe_id=recipe.recipe_id,
    )
    rows.loc[asked, list(said)] = pd.DataFrame(said, index=rows.index[asked])
    return conform(rows, "predictions")


def _speakers(
    tokens: pd.Series, about: pd.DataFrame, recipe: Recipe, hour: datetime, *, trusting: bool
) -> pd.DataFrame:
    """Who judges each coin: its own model where the recipe has one that may speak, else the pooled one.

    Returns:
        `model` (row of the model, -1 for none), `reason` (a code of `REASONS` where there is none) and `fallback` (why
        the coin's own model does not speak; null where it does), with the index of `tokens`.
    """
    objection = _objections(about, hour, trusting=trusting)
    unread = about["flaw"].notna()
    own = about.index.get_indexer(pd.Index(tokens)) if recipe.scope == "per_token" else np.full(len(tokens), -1)
    without = NO_OWN_MODEL if recipe.scope == "per_token" else POOLED_RECIPE
    fallback = objection.reindex(tokens).set_axis(tokens.index).where(own >= 0, without)
    own_unread = unread.reindex(tokens, fill_value=False).set_axis(tokens.index) & (own >= 0)
    pool = int(about.index.get_indexer(pd.Index([POOLED]))[0])
    against_pool = "NO_MODEL" if pool < 0 else objection.iloc[pool]
    alone = fallback.notna()
    if isinstance(against_pool, str):
        reason = pd.Series(against_pool, index=tokens.index).mask(own_unread, "MODEL_UNREADABLE").where(alone)
        return pd.DataFrame({"model": np.where(alone, -1, own), "reason": reason, "fallback": fallback})
    reason = pd.Series(None, index=tokens.index, dtype="str")
    return pd.DataFrame({"model": np.where(alone, pool, own), "reason": reason, "fallback": fallback})


def _objections(about: pd.DataFrame, hour: datetime, *, trusting: bool) -> pd.Series:
    """Why each model may not speak, null where it may."""
    # What is too little for one coin is judged at the pool by its evaluation.
    shortcoming = about["shortcoming"].mask((about.index == POOLED) | trusting)
    objection = shortcoming.mask(about["expires_at"] <= hour, "MODEL_EXPIRED")
    return objection.mask(about["flaw"].notna(), "MODEL_UNREADABLE").astype("str")


def _scores(models: PackedModels, which: Ints, rows: pd.DataFrame, recipe: Recipe) -> Floats:
    values = feature_values(rows, recipe.features)
    scores = models.scores(which, values)
    if np.isnan(scores).any():
        row = rows.iloc[int(np.flatnonzero(np.isnan(scores))[0])]
        raise DataError(
            f"{row['token']} at {row['timestamp']}: an indicator is no number that its model can judge "
            f"({row[list(recipe.features)].to_dict()}); quarantine the row"
        )
    return scores


def _obstacles(rows: pd.DataFrame, recipe: Recipe) -> pd.Series:
    """The first reason against each row that stands before any model is asked; null where there is none."""
    with np.errstate(over="ignore"):  # a forest's features are 32-bit floats
        finite = np.isfinite(feature_values(rows, recipe.features).astype(np.float32)).all(axis=1)
    checks = [rows["quarantine"].notna(), ~in_universe(rows), ~finite]
    names = ["QUARANTINED", "OUTSIDE_UNIVERSE", "TOO_LITTLE_HISTORY"]
    return pd.Series(np.select(checks, names, default=""), index=rows.index, dtype="str").replace("", None)
