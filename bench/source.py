"""The published way of each stage, written as a reader of the write-up would: the other side of every ratio.

Where the write-up's own result differs from what the platform computes, the difference is taken out here and not there,
always so that the published way has less to do: coins are told apart by their id instead of being mixed by symbol, the
join is not cut at the month's end, and indicators are computed over the 720 hours that the platform's windows reach.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import duckdb
import numpy as np
import numpy.typing as npt
import pandas as pd
from imblearn.over_sampling import SMOTE
from sklearn.ensemble import RandomForestClassifier
from sklearn.preprocessing import StandardScaler
from ta.momentum import RSIIndicator
from ta.trend import MACD, EMAIndicator, SMAIndicator
from ta.volatility import BollingerBands
from ta.volume import OnBalanceVolumeIndicator, VolumePriceTrendIndicator

from breakout_assets.learning.recipes import PUBLISHED_FEATURES

_LABELS: Final = """
SELECT DISTINCT c1.id, c1.symbol, c1.timestamp, c1.price, c1.volume_24h, c1.cmc_rank, c1.num_market_pairs,
    c1.volume_change_24h, c1.percent_change_24h, c1.percent_change_7d,
    c2.percent_change_7d AS y_percentage_change7d,
    (CAST(c2.price AS DECIMAL(30, 15)) - CAST(c1.price AS DECIMAL(30, 15)))
        / CAST(c1.price AS DECIMAL(30, 15)) * 100 AS cal_price_change,
    CASE WHEN (CAST(c2.price AS DECIMAL(30, 15)) - CAST(c1.price AS DECIMAL(30, 15)))
        / CAST(c1.price AS DECIMAL(30, 15)) * 100 <= 10 THEN 0 ELSE 1 END AS y
FROM snapshots c1 JOIN snapshots c2
    ON c1.id = c2.id AND c1.timestamp + INTERVAL '5' DAY = c2.timestamp
WHERE c1.percent_change_7d <= 1000 AND c1.volume_change_24h <= 1000 AND c1.cmc_rank <= 1000
"""
FEATURES: Final = PUBLISHED_FEATURES
Model = tuple[StandardScaler, RandomForestClassifier]


def label(snapshots: pd.DataFrame) -> pd.DataFrame:
    """The published query: a join of the table with itself, exact decimals, no row twice."""
    with duckdb.connect() as connection:
        connection.register("snapshots", snapshots)
        return connection.execute(_LABELS).df()


def indicators(rows: pd.DataFrame, key: str = "id") -> pd.DataFrame:
    """The 14 indicators of every row from all earlier rows of its coin."""
    ordered = rows.sort_values([key, "timestamp"], kind="stable")
    return ordered.groupby(key, group_keys=False)[[*ordered.columns]].apply(_with_indicators)


def _with_indicators(coin: pd.DataFrame) -> pd.DataFrame:
    price, volume = coin["price"], coin["volume_24h"]
    macd, bands, flow = MACD(price), BollingerBands(price), price.diff() * volume
    gain, loss = flow.where(flow > 0, 0).rolling(14).mean(), (-flow.where(flow < 0, 0)).rolling(14).mean()
    return coin.assign(
        RSI=RSIIndicator(price).rsi(),
        sma_5=SMAIndicator(price, 5).sma_indicator(),
        sma_10=SMAIndicator(price, 10).sma_indicator(),
        sma_20=SMAIndicator(price, 20).sma_indicator(),
        pvt=(price.pct_change(fill_method=None) * volume).cumsum(),
        MACD=macd.macd(),
        MACD_signal=macd.macd_signal(),
        EMA_9=EMAIndicator(price, 9).ema_indicator(),
        EMA_21=EMAIndicator(price, 21).ema_indicator(),
        bollinger_hband=bands.bollinger_hband(),
        bollinger_lband=bands.bollinger_lband(),
        OBV=OnBalanceVolumeIndicator(price, volume).on_balance_volume(),
        VPT=VolumePriceTrendIndicator(price, volume).volume_price_trend().fillna(0),
        VWRSI=100 - 100 / (1 + gain / loss),
    )


def train(rows: pd.DataFrame) -> Model:
    """SMOTE and a forest on the older four fifths of one coin's rows."""
    known = rows.dropna(subset=list(FEATURES))
    known = known.iloc[: int(len(known) * 0.8)]
    values, y = SMOTE(random_state=5).fit_resample(known[list(FEATURES)].to_numpy(dtype=np.float64), known["y"])
    scaler = StandardScaler().fit(values)
    forest = RandomForestClassifier(n_estimators=60, max_depth=100, min_samples_split=5, random_state=5)
    return scaler, forest.fit(scaler.transform(values), y)


def load(files: Mapping[str, Path]) -> dict[str, Model]:
    """One pickle a coin."""
    models = {}
    for token, file in files.items():
        with file.open("rb") as stream:
            models[token] = pickle.load(stream)  # noqa: S301  written by this very run
    return models


def predict(models: Mapping[str, Model], rows: Mapping[str, npt.NDArray[np.float64]]) -> dict[str, float]:
    """The probability of one row of each coin, model by model."""
    found: dict[str, float] = {}
    for token, (scaler, forest) in models.items():
        shares: Any = forest.predict_proba(scaler.transform(rows[token].reshape(1, -1)))
        found[token] = float(shares[0, list(forest.classes_).index(1)])
    return found
