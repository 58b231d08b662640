"""What each indicator is: how far back it reads, whether units matter to it, and what it says.

Tests go through this registry, so that no indicator exists without having shown that it knows nothing of the future.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from breakout_assets.dataset.indicators import LOOKBACK
from breakout_assets.dataset.stationary import LATE_HOURS
from breakout_assets.errors import DataError

_WINDOW: Final = LOOKBACK // timedelta(hours=1)


@dataclass(frozen=True)
class Indicator:
    """One column of `with_indicators`.

    Raises:
        DataError: it reads no hour, or more hours than are handed to it.
    """

    name: str
    look_back_hours: int
    """Hours that it reads, the row's own included."""
    scale_free: bool
    """Whether multiplying all prices, or all volumes, of a token leaves it as it is."""
    meaning: str

    def __post_init__(self) -> None:
        if not 1 <= self.look_back_hours <= _WINDOW:
            raise DataError(
                f"indicator {self.name} reads {self.look_back_hours} hours; from 1, its own, to {_WINDOW} are allowed"
            )


def _in_units(name: str, meaning: str) -> Indicator:
    # A window indicator counts rows, which may lie anywhere in the window; cumulative ones begin with it.
    return Indicator(name, _WINDOW, scale_free=False, meaning=meaning)


def _unitless(name: str, look_back_hours: int, meaning: str) -> Indicator:
    return Indicator(name, look_back_hours, scale_free=True, meaning=meaning)


# Returns within a window begin with the price of the hour before it.
_RETURNS_72: Final = 72 + 1
_DAY_AGO: Final = 24 + LATE_HOURS + 1
_WEEK_AGO: Final = 168 + LATE_HOURS + 1

INDICATORS: Final[Mapping[str, Indicator]] = {
    indicator.name: indicator
    for indicator in (
        _unitless("RSI", _WINDOW, "Rises as a share of all moves, smoothed over 14 rows, 0 to 100."),
        _in_units("sma_5", "Mean price of 5 rows, USD."),
        _in_units("sma_10", "Mean price of 10 rows, USD."),
        _in_units("sma_20", "Mean price of 20 rows, USD."),
        _in_units("pvt", "Sum of volume times relative price change since the window began, USD."),
        _in_units("MACD", "Smoothed price over 12 rows less that over 26, USD."),
        _in_units("MACD_signal", "MACD smoothed over 9 rows, USD."),
        _in_units("EMA_9", "Exponentially smoothed price over 9 rows, USD."),
        _in_units("EMA_21", "Exponentially smoothed price over 21 rows, USD."),
        _in_units("bollinger_hband", "Mean price of 20 rows plus 2 standard deviations, USD."),
        _in_units("bollinger_lband", "Mean price of 20 rows less 2 standard deviations, USD."),
        _in_units("OBV", "Sum of volume, negative where the price fell, since the window began, USD."),
        _in_units("VPT", "pvt with 0 where there is none, as the published method has it, USD."),
        _unitless("VWRSI", _WINDOW, "Rises as a share of all moves, weighted by volume, over 14 rows, 0 to 100."),
        _unitless("log_price_sma_5", _WINDOW, "Log of price over its mean of 5 rows."),
        _unitless("log_price_sma_10", _WINDOW, "Log of price over its mean of 10 rows."),
        _unitless("log_price_sma_20", _WINDOW, "Log of price over its mean of 20 rows."),
        _unitless("macd_price", _WINDOW, "MACD as a share of the price."),
        _unitless("macd_signal_price", _WINDOW, "MACD_signal as a share of the price."),
        _unitless("log_ema_9_21", _WINDOW, "Log of EMA_9 over EMA_21."),
        _unitless("band_position", _WINDOW, "Where the price is between the bands: -1 the lower, 1 the upper one."),
        _unitless("band_width", _WINDOW, "Standard deviation of 20 prices as a share of their mean."),
        _unitless("pvt_72", _RETURNS_72, "Sum of hourly log return times volume over 72 h, in mean volumes."),
        _unitless("obv_72", _RETURNS_72, "Volume of rising less that of falling hours over 72 h, in mean volumes."),
        _unitless("volume_z_168", 168, "Log volume in standard deviations from its mean of 168 h."),
        _unitless("log_volume_change_24", _DAY_AGO, "Log of volume over that of 24 h ago."),
        _unitless("log_volume_24_720", _WINDOW, "Mean log volume of 24 h less that of 720 h."),
        _unitless("log_return_24", _DAY_AGO, "Log of price over that of 24 h ago."),
        _unitless("log_return_168", _WEEK_AGO, "Log of price over that of 168 h ago."),
        _unitless("volatility_72", _RETURNS_72, "Standard deviation of hourly log returns over 72 h."),
        _unitless("log_rank_change_168", _WEEK_AGO, "Log of rank over that of 168 h ago; negative is a rise."),
        _unitless("log_pairs_change_168", _WEEK_AGO, "Log of the number of market pairs over that of 168 h ago."),
    )
}
