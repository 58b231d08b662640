"""An evaluation and its table by hand, so that every figure of a page is known in advance."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from breakout_assets.learning.evidence import Evaluation, Interval, Placebo, Scores, Verdict
from breakout_assets.learning.recipes import recipe

RECIPE = recipe("default")
HOSTILE = "<script>alert(1)</script>"  # a name that a listing may hold

OWN = Scores(
    threshold=0.31,
    flagged_share=0.0431,
    precision=Interval(0.412, 0.301, 0.523),
    recall=0.137,
    f1=0.2057,
    accuracy=0.8611,
    lift=2.84,
    trades=187,
    net_per_trade=Interval(0.0213, 0.0042, 0.0391),
    net_sum=3.98,
    achieved_break_even=0.246,
    max_drawdown=1.27,
)
PUBLISHED_SCORES = replace(
    OWN,
    threshold=0.60,
    flagged_share=0.0119,
    precision=Interval(0.533, 0.352, 0.701),
    recall=0.0441,
    f1=0.0814,
    accuracy=0.8577,
    lift=3.68,
    trades=61,
    net_per_trade=Interval(0.0333, -0.0071, 0.0719),
    net_sum=2.03,
    achieved_break_even=0.259,
    max_drawdown=0.88,
)
NOTHING = Scores(
    threshold=None,
    flagged_share=0.0,
    precision=Interval(0.0, None, None),
    recall=0.0,
    f1=0.0,
    accuracy=0.855,
    lift=0.0,
    trades=0,
    net_per_trade=Interval(0.0, None, None),
    net_sum=0.0,
    achieved_break_even=0.0,
    max_drawdown=0.0,
)


def out_of_sample(
    tokens: int = 12, hours: int = 960, twins: int = 20, signal: float = 0.9, seed: int = 0
) -> pd.DataFrame:
    """A table of out-of-sample predictions, every 6th hour; the twins' predictions know nothing."""
    rng = np.random.default_rng(seed)
    at = pd.date_range("2024-03-01", periods=hours // 6, freq="6h").as_unit("us")
    frames = []
    for twin in range(twins + 1):
        rows = len(at) * tokens
        hidden = rng.normal(size=rows)
        y = (rng.normal(size=rows) + (signal if twin == 0 else 0) * hidden > 1.3).astype("int8")
        raw = 1 / (1 + np.exp(1.1 - 0.9 * hidden))
        frames.append(
            pd.DataFrame(
                {
                    "twin": np.int32(twin),
                    "fold": np.repeat(np.arange(len(at)) * 4 // len(at), tokens).astype("int32"),
                    "recipe_id": RECIPE.recipe_id,
                    "token": [f"T{k}-{k}" for k in range(tokens)] * len(at),
                    "timestamp": np.repeat(at, tokens),
                    "y": y,
                    "change": np.where(y == 1, 18.0, -3.0) + rng.normal(size=rows),
                    "price": 100 + rng.normal(size=rows).cumsum(),
                    "volume": 1e7,
                    "momentum": rng.normal(size=rows) + 0.2 * hidden,
                    "raw": raw,
                    "probability": np.clip(0.6 * raw - 0.02, 0.0, 1.0),
                    "scope": "pooled",
                    "logistic": 1 / (1 + np.exp(1.8 - hidden - rng.normal(size=rows))) if twin == 0 else np.nan,
                }
            )
        )
    table = pd.concat(frames, ignore_index=True)
    table["label_end"] = table["timestamp"] + pd.Timedelta(hours=120)
    table["threshold"] = table["fold"].map({0: np.nan, 1: 0.29, 2: 0.31, 3: 0.34})
    return table


def evaluation(**changes: Any) -> Evaluation:
    """A hand-made evaluation that passed; its figures do not follow from `out_of_sample`."""
    curve = pd.DataFrame(
        {
            "threshold": [0.1, 0.2, 0.31, 0.45, 0.6, 0.9],
            "flagged_share": [0.81, 0.33, 0.0437, 0.021, 0.0121, 0.0],
            "trades": [811, 402, 187, 93, 61, 0],
            "precision": [0.157, 0.224, 0.4127, 0.47, 0.5331, np.nan],
            "net_mean": [-0.0061, 0.0009, 0.0214, 0.0261, 0.0334, np.nan],
            "net_low": [-0.0152, -0.0088, 0.0043, 0.0017, -0.0072, np.nan],
            "net_high": [0.0031, 0.0107, 0.0392, 0.0513, 0.0718, np.nan],
            "net_sum": [-4.9, 0.36, 4.0, 2.43, 2.04, 0.0],
        }
    )
    calibration = pd.DataFrame(
        {
            "bin": [0, 1, 2, 3, 6],
            "rows": [5211, 2113, 611, 203, 41],
            "predicted": [0.0612, 0.1414, 0.2416, 0.3418, 0.6222],
            "observed": [0.0513, 0.1515, 0.2617, 0.3919, 0.5823],
            "low": [0.0311, 0.1112, 0.1813, 0.2514, np.nan],
            "high": [0.0721, 0.1922, 0.3323, 0.5124, np.nan],
        }
    )
    baselines = pd.DataFrame(
        [
            ("always no", 0.5, np.nan, 0.0, 0, np.nan, np.nan, np.nan),
            ("always buy", 0.5, 0.1451, 1.0, 1102, -0.0093, -0.0211, 0.0027),
            ("momentum", 0.5432, 0.1811, 0.1003, 240, 0.0014, -0.0123, 0.0157),
            ("minus price", 0.5187, 0.1622, 0.1004, 233, -0.0034, -0.0154, 0.0093),
            ("logistic", 0.6117, 0.3313, 0.0544, 201, 0.0132, -0.0016, 0.0276),
            ("buy and hold", np.nan, np.nan, np.nan, 12, 0.0717, np.nan, np.nan),
        ],
        columns=["name", "auc", "precision", "flagged_share", "trades", "net_per_trade", "low", "high"],
    )
    per_token = pd.DataFrame(
        [
            ("SOL-5426", 1801, 311, 9, 0.7123, 0.2101, 0.4412, 91),
            ("BTC-1", 1802, 87, 4, 0.6045, 0.4302, np.nan, 0),
            (HOSTILE, 1800, 40, 3, 0.5214, 0.6401, 0.1, 10),
            ("DAI-4943", 1803, 0, 0, np.nan, np.nan, np.nan, 0),
        ],
        columns=["token", "rows", "positives", "episodes", "auc", "q_value", "precision", "flagged"],
    )
    made = Evaluation(
        recipe_id=RECIPE.recipe_id,
        first_hour=pd.Timestamp("2024-03-01 05:00").to_pydatetime(),
        last_hour=pd.Timestamp("2024-06-28 22:00").to_pydatetime(),
        evaluated_until=pd.Timestamp("2024-07-03 22:00").to_pydatetime(),
        rows=8179,
        tokens=12,
        positives=1186,
        episodes=143,
        independent_labels=71.7,
        windows=24,
        base_rate=Interval(0.1452, 0.1033, 0.1894),
        auc=Interval(0.6642, 0.6113, 0.7151),
        logistic_auc=Interval(0.6119, 0.5621, 0.6618),
        auc_quartiles=(0.5731, 0.6232, 0.6733),
        mean_probability=0.1398,
        brier=0.1147,
        brier_skill=0.0761,
        ece_raw=0.1123,
        ece=0.0237,
        own=OWN,
        published=PUBLISHED_SCORES,
        baselines=baselines,
        per_token=per_token,
        curve=curve,
        calibration=calibration,
        placebo=Placebo(
            twins=tuple(0.5 + 0.004 * k for k in range(-9, 11)), observed=0.6588, mean=0.5021, sd=0.0243, p=0.0476
        ),
        tokens_at_least_089=3,
        expected_at_least_089=2.4,
        verdict=Verdict(True, ()),
    )
    return replace(made, **changes)


def refused(*reasons: str, **changes: Any) -> Evaluation:
    """The same evaluation without a badge."""
    return evaluation(verdict=Verdict(False, reasons), **changes)


def importances() -> pd.DataFrame:
    """Made-up importances of the recipe's features."""
    count = len(RECIPE.features)
    return pd.DataFrame(
        {
            "feature": RECIPE.features,
            "impurity": np.linspace(0.11, 0.0011, count) / np.linspace(0.11, 0.0011, count).sum(),
            "permutation": np.linspace(0.0317, -0.0023, count),
            "permutation_sd": 0.0041,
        }
    )
