"""The independent reference for indicators: the library `ta`, run on each single window of 720 hours."""

import platform
from collections.abc import Hashable, Mapping

import numpy as np
import pandas as pd
from ta.momentum import RSIIndicator
from ta.trend import MACD, EMAIndicator, SMAIndicator
from ta.volatility import BollingerBands
from ta.volume import OnBalanceVolumeIndicator, VolumePriceTrendIndicator

from breakout_assets.dataset.indicators import LOOKBACK

# To the last bit, where pandas' compiled averages round each product and each sum, as its builds for other processors
# need not.
BIT_EQUAL = ("RSI", "EMA_9", "EMA_21", "MACD", "MACD_signal") if platform.machine() in ("x86_64", "AMD64") else ()


def window_of(rows: pd.DataFrame, token: str, end: pd.Timestamp) -> pd.DataFrame:
    of_token = rows[(rows["token"] == token) & (rows["timestamp"] > end - LOOKBACK) & (rows["timestamp"] <= end)]
    return of_token.sort_values("timestamp").reset_index(drop=True)


def by_ta(window: pd.DataFrame) -> dict[str, float]:
    """The indicators of a window's last row."""
    return {name: float(column.iloc[-1]) for name, column in series_by_ta(window).items()}


def series_by_ta(window: pd.DataFrame) -> dict[str, pd.Series]:
    """The indicators of all rows of a token, from the library and, for pvt and VWRSI, from plain pandas."""
    price, volume = window["price"], window["volume"]
    macd, bands = MACD(price), BollingerBands(price)
    flow = price.diff() * volume
    gain, loss = flow.where(flow > 0, 0).rolling(14).mean(), (-flow.where(flow < 0, 0)).rolling(14).mean()
    return {
        "RSI": RSIIndicator(price).rsi(),
        "sma_5": SMAIndicator(price, 5).sma_indicator(),
        "sma_10": SMAIndicator(price, 10).sma_indicator(),
        "sma_20": SMAIndicator(price, 20).sma_indicator(),
        "pvt": (volume * price.pct_change(fill_method=None)).cumsum(),
        "MACD": macd.macd(),
        "MACD_signal": macd.macd_signal(),
        "EMA_9": EMAIndicator(price, 9).ema_indicator(),
        "EMA_21": EMAIndicator(price, 21).ema_indicator(),
        "bollinger_hband": bands.bollinger_hband(),
        "bollinger_lband": bands.bollinger_lband(),
        "OBV": OnBalanceVolumeIndicator(price, volume).on_balance_volume(),
        "VPT": VolumePriceTrendIndicator(price, volume).volume_price_trend().fillna(0),
        "VWRSI": 100 - 100 / (1 + gain / loss),
    }


def scales(window: pd.DataFrame) -> dict[str, float]:
    """What an error of each indicator is measured against: MACD may be 0, a sum may cross 0, where prices do not."""
    price, volume = window["price"], window["volume"]
    last = float(price.iloc[-1])
    moves = float((volume * price.pct_change(fill_method=None)).abs().sum())
    recent = float(price.tail(20).max())
    return {
        **dict.fromkeys(("sma_5", "sma_10", "sma_20", "bollinger_hband", "bollinger_lband"), recent),
        **dict.fromkeys(("MACD", "MACD_signal", "EMA_9", "EMA_21"), last),
        **dict.fromkeys(("RSI", "VWRSI"), 1.0),
        **dict.fromkeys(("pvt", "VPT"), moves),
        "OBV": float(volume.abs().sum()),
    }


def by_exact_sums(window: pd.DataFrame) -> dict[str, float]:
    """What reads 20 rows at most, in extended precision: pandas' running sums remember what has left them."""
    price = window["price"].tail(20).to_numpy().astype(np.longdouble)
    flow = (window["price"].diff() * window["volume"]).tail(14).to_numpy().astype(np.longdouble)
    values = {f"sma_{n}": float(price[-n:].mean()) if len(price) >= n else np.nan for n in (5, 10, 20)}
    width = 2 * np.sqrt(((price - price.mean()) ** 2).mean())
    values["bollinger_hband"] = float(price.mean() + width) if len(price) == 20 else np.nan
    values["bollinger_lband"] = float(price.mean() - width) if len(price) == 20 else np.nan
    gain, loss = flow[flow > 0].sum(), -flow[flow < 0].sum()
    values["VWRSI"] = float(100 * gain / (gain + loss)) if len(flow) == 14 and gain + loss > 0 else np.nan
    return values


def assert_same_indicators(
    got: Mapping[Hashable, float], expected: dict[str, float], scale: dict[str, float], tolerance: float, where: str
) -> None:
    for name, value in expected.items():
        assert np.isnan(got[name]) == np.isnan(value), f"{name} {where}: {got[name]}, expected {value}"
        if not np.isnan(value):
            assert abs(got[name] - value) <= tolerance * scale[name], f"{name} {where}: {got[name]}, expected {value}"


def assert_equals_ta(rows: pd.DataFrame, row: pd.Series) -> None:
    window = window_of(rows, row["token"], row["timestamp"])
    got = row.to_dict()
    expected, scale, where = by_ta(window), scales(window), f"of {row['token']} at {row['timestamp']}"
    exact = {name: expected.pop(name) for name in BIT_EQUAL}
    assert_same_indicators(got, exact, scale, 0.0, where)
    assert_same_indicators(got, by_exact_sums(window), scale, 1e-12, where)
    # pandas' running variance keeps a residue of about 1e-15 price squared, whose root is in the bands. Its other
    # running sums keep about 1e-16, too much only where the price has been a million times higher.
    ruined = window["price"].max() > 1e6 * window["price"].iloc[-1]
    running = {name: expected.pop(name) for name in ("sma_5", "sma_10", "sma_20", "VWRSI")}
    bands = {name: expected.pop(name) for name in ("bollinger_hband", "bollinger_lband")}
    assert_same_indicators(got, running, scale, 1e-3 if ruined else 1e-9, where)
    assert_same_indicators(got, bands, scale, 1e-7, where)
    assert_same_indicators(got, expected, scale, 1e-9, where)
