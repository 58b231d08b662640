"""What the published recipe scores on real hours of SOL, computed by this project's own `fit`.

The figures are known from an experiment on the same four months, 2024-01-08 to 2024-05-08. Its framing decides them:

- only prices inside the window exist: a row has a label where its +120 h price lies inside it too. With prices from
  beyond the window there are 2,870 rows instead of 2,750, and F1 falls from .45 to .04;
- indicators are computed after the label join, over the rows that have a label, as published. The first 33 rows lack
  the signal line of the MACD and are dropped, which leaves the known 2,270 and 2,750. Computed before the join, on
  rows without holes, the first case falls from F1 .66 to .60 and from AUC .83 to .79;
- "month ends lost" keeps a label only where both hours lie in one month, as the published join did;
- `percent_change_7d` and `volume_change_24h` up to 1,000; rank and pairs are constants of the panel.

SMOTE's seed alone moves F1 by .02 and AUC by .012 (month ends lost) and .026 (all hours; 40 seeds gave .62 to .73,
mean .673), one standard deviation each. The known figures are single draws from that spread, so the test takes a
dozen draws. A model's name decides SMOTE's seed, so it takes a dozen names.
"""

from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ta.momentum import RSIIndicator
from ta.trend import MACD, EMAIndicator
from ta.volatility import BollingerBands
from ta.volume import OnBalanceVolumeIndicator, VolumePriceTrendIndicator

from breakout_assets.learning.recipes import recipe
from breakout_assets.learning.training import fit

PANEL = Path(__file__).resolve().parents[3] / "shared" / "data" / "hourly_panel.parquet"
DRAWS = 12

pytestmark = pytest.mark.skipif(not PANEL.exists(), reason=f"{PANEL} is absent; it is optional")


@dataclass(frozen=True)
class Figures:
    accuracy: float
    precision: float
    recall: float
    f1: float
    auc: float


MONTH_ENDS_LOST = Figures(0.795, 0.571, 0.774, 0.657, 0.843)
ALL_HOURS = Figures(0.624, 0.348, 0.664, 0.457, 0.688)
# How far the mean of a dozen draws may lie from the known single one; precision and recall trade against each other.
TOLERANCE = Figures(accuracy=0.04, precision=0.05, recall=0.08, f1=0.04, auc=0.04)


def labelled(months_must_match: bool) -> pd.DataFrame:
    panel = pd.read_parquet(PANEL, filters=[("symbol", "==", "SOL")])
    inside = panel["timestamp"].between("2024-01-08", "2024-05-08", inclusive="left")
    rows = panel[inside].sort_values("timestamp").assign(token="SOL", volume=panel["volume_24h"].astype("float64"))
    rows["label_end"] = rows["timestamp"] + pd.Timedelta(hours=120)
    later = rows["label_end"].map(rows.set_index("timestamp")["price"])
    rows["y"] = (((later - rows["price"]) / rows["price"] * 100).round(9) > 10).astype("Int8")
    keep = later.notna() & (rows["percent_change_7d"] <= 1000) & (rows["volume_change_24h"] <= 1000)
    if months_must_match:
        keep &= rows["timestamp"].dt.month == rows["label_end"].dt.month
    return rows[keep].assign(label_status="labelled")


def with_indicators(rows: pd.DataFrame) -> pd.DataFrame:
    price, volume = rows["price"], rows["volume"]
    macd, bands = MACD(price), BollingerBands(price)
    flow = price.diff() * volume
    gain, loss = flow.clip(lower=0).fillna(0).rolling(14).mean(), (-flow.clip(upper=0)).fillna(0).rolling(14).mean()
    return rows.assign(
        RSI=RSIIndicator(price).rsi(),
        sma_5=price.rolling(5).mean(),
        sma_10=price.rolling(10).mean(),
        sma_20=price.rolling(20).mean(),
        pvt=(volume * price.pct_change(fill_method=None)).cumsum(),
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("months_must_match", "labels", "known"),
    [(True, 2270, MONTH_ENDS_LOST), (False, 2750, ALL_HOURS)],
    ids=["month ends lost", "all hours"],
)
def test_the_published_recipe_scores_what_is_known_of_it(months_must_match: bool, labels: int, known: Figures) -> None:
    rows = with_indicators(labelled(months_must_match))
    models = [fit(rows, recipe("blog_exact"), "token", f"SOL, draw {draw}") for draw in range(DRAWS)]
    assert {model.rows for model in models} == {labels}
    assert {model.dropped.not_finite for model in models} == {33}
    draws = np.array([[getattr(model.metrics, name) for name in Figures.__annotations__] for model in models])
    mean, spread = draws.mean(axis=0), draws.std(axis=0, ddof=1)
    assert (np.abs(mean - astuple(known)) <= astuple(TOLERANCE)).all(), dict(
        zip(Figures.__annotations__, mean, strict=True)
    )
    # The known draw could have been one of these.
    assert (np.abs(mean - astuple(known)) <= 3 * spread).all()


def test_always_no_is_more_accurate_than_the_published_recipe_once_all_hours_have_labels() -> None:
    metrics = fit(with_indicators(labelled(False)), recipe("blog_exact"), "token", "SOL, draw 0").metrics
    assert metrics.base_rate == pytest.approx(0.238, abs=0.001)
    assert metrics.accuracy < metrics.always_no_accuracy
