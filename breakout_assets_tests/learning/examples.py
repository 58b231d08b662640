"""Small inputs for the tests of this room: rows as `indicator_features` holds them, and a recipe that trains fast."""

from dataclasses import replace

import numpy as np
import pandas as pd

from breakout_assets.learning.recipes import PUBLISHED_FEATURES, Recipe, recipe
from breakout_assets.store import Store
from breakout_assets.tables import INDICATOR_FEATURES

START = pd.Timestamp("2024-03-01")

SMALL: Recipe = replace(recipe("blog_fixed"), name="small", n_estimators=4, min_rows=300)


def feature_rows(tokens: int = 1, hours: int = 400, seed: int = 0) -> pd.DataFrame:
    """Labelled rows with random indicators, sorted by (timestamp, token); RSI tells a little about the label."""
    rng = np.random.default_rng(seed)
    n = tokens * hours
    frame = pd.DataFrame(
        {
            "token": [f"T{k}-{k}" for _ in range(hours) for k in range(tokens)],
            "timestamp": (START + pd.to_timedelta(np.repeat(np.arange(hours), tokens), unit="h")).as_unit("us"),
        }
    )
    frame["label_end"] = frame["timestamp"] + pd.Timedelta(hours=120)
    for feature in PUBLISHED_FEATURES:
        frame[feature] = rng.normal(size=n)
    frame["cmc_rank"] = pd.array(rng.integers(1, 1000, n), dtype="Int64")
    frame["num_market_pairs"] = pd.array(rng.integers(1, 300, n), dtype="Int64")
    frame["y"] = (frame["RSI"] + rng.normal(size=n) > 1).astype("Int8")
    frame["label_status"] = "labelled"
    frame["cal_price_change"] = np.where(frame["y"] == 1, 20.0, -10.0)
    return frame


def store_features(store: Store, rows: pd.DataFrame) -> None:
    """Store rows as `indicator_features`, a file a day."""
    whole = rows.assign(**{name: None for name in INDICATOR_FEATURES if name not in rows})
    for day, part in whole.groupby(whole["timestamp"].dt.date):
        store.write_table("indicator_features", day, part)
