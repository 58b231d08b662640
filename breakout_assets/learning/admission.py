"""Whether there is enough independent evidence behind a model for it to speak about a token."""

from typing import Final

import pandas as pd

from breakout_assets.learning.statistics import episodes, hours_of, independent_windows

LEAST_HOURS: Final = 60 * 24
# Five-day labels of neighbouring hours are nearly the same: sixty days hold twelve that have nothing in common.
LEAST_WINDOWS: Final = 12
# Rises come in runs; four of them can be four accidents.
LEAST_EPISODES: Final = 5

SHORTCOMINGS: Final[dict[str, str]] = {
    "TOO_FEW_ROWS": f"it was trained on fewer than {LEAST_HOURS} hours, 60 days",
    "TOO_FEW_WINDOWS": f"its hours span fewer than {LEAST_WINDOWS} independent five-day windows",
    "TOO_FEW_POSITIVES": f"the rises it has seen are fewer than {LEAST_EPISODES} separate episodes",
}


def shortcomings(labelled: pd.DataFrame) -> tuple[str, ...]:
    """Why rows that can be trained on are too little to be trusted; empty if they are enough.

    Args:
        labelled: `token`, `timestamp` and `y` of labelled rows, every hour of them, of one token or of many.
    """
    hours = pd.Series(hours_of(labelled["timestamp"]), index=labelled.index)
    rises = sum(
        episodes(hours[part.index].to_numpy(), part["y"].to_numpy(dtype="int64"))
        for _, part in labelled.groupby("token", sort=False)
    )
    found = {
        "TOO_FEW_ROWS": labelled["timestamp"].nunique() < LEAST_HOURS,
        "TOO_FEW_WINDOWS": independent_windows(hours.to_numpy()) < LEAST_WINDOWS,
        "TOO_FEW_POSITIVES": rises < LEAST_EPISODES,
    }
    return tuple(code for code, short in found.items() if short)
