"""Whether what predictions rest on has expired: the models, or the evaluation that lets them decide."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import pandas as pd

IN_TIME: Final = "IN_TIME"
# Codes of `predicting.REASONS`: what a person must act on here …
_MEANING: Final[dict[str, str]] = {
    "MODEL_EXPIRED": "the newest models have seen nothing of the last weeks; run training_job",
    "EVIDENCE_EXPIRED": "the newest evaluation is too old, and nothing is bought without one; run evaluation_job",
}
# … and what says nothing of models, since it stands before any of them is asked.
OBSTACLES: Final = frozenset({"QUARANTINED", "OUTSIDE_UNIVERSE", "TOO_LITTLE_HISTORY"})
# All models are trained in one run and expire together. A token that can be trained no longer is not worth a mail.
_SHARE: Final = 0.5


@dataclass(frozen=True)
class Expiry:
    """What a person should know of the models in an hour.

    Attributes:
        hour: The hour that was predicted.
        state: MODEL_EXPIRED, EVIDENCE_EXPIRED or IN_TIME.
        sentence: The same in words.
    """

    hour: datetime
    state: str
    sentence: str


def expiry(predictions: pd.DataFrame, hour: datetime) -> Expiry | None:
    """Whether models or evidence have expired for at least half of the coins that could be judged.

    A coin counts too if the pooled model speaks for it because its own has expired.

    Args:
        predictions: rows of the `predictions` table of the hour.
        hour: naive UTC.

    Returns:
        None if no coin could be judged, so that nothing is known.
    """
    judged = predictions[~predictions["reason"].isin(OBSTACLES)]
    if judged.empty:
        return None
    codes = judged["reason"].where(judged["reason"].isin(_MEANING), judged["fallback"])
    counts = codes[codes.isin(_MEANING)].value_counts().sort_index()
    expired = int(counts.sum())
    if expired < _SHARE * len(judged):
        return Expiry(hour, IN_TIME, f"Models and their evaluation are in time at {hour:%Y-%m-%d %H:00} UTC.")
    state = str(counts.idxmax())
    sentence = f"{expired} of {len(judged)} coins at {hour:%Y-%m-%d %H:00} UTC: {_MEANING[state]}."
    return Expiry(hour, state, sentence)
