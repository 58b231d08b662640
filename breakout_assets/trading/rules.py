"""Sizes, costs and limits of an account."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Final

from breakout_assets.errors import SettingsError

HOUR: Final = timedelta(hours=1)

_Range = tuple[Callable[[Decimal], bool], str]
_POSITIVE: Final[_Range] = (lambda value: value > 0, "above 0")
_PART: Final[_Range] = (lambda value: 0 < value <= 1, "above 0 and at most 1")
_COST: Final[_Range] = (lambda value: 0 <= value < 1, "of at least 0 and below 1")
_RANGES: Final[dict[str, _Range]] = {
    "cash": _POSITIVE,
    "min_order": _POSITIVE,
    "order_fraction": _PART,
    "max_volume_share": _PART,
    "fee": _COST,
    "slippage": _COST,
}


@dataclass(frozen=True)
class TradingRules:
    """What an account may do. Shares are fractions of 1, amounts are USD.

    Raises:
        SettingsError: a value is impossible; the message names it.
    """

    cash: Decimal = Decimal(10_000)
    """What the account begins with."""
    order_fraction: Decimal = Decimal("0.02")
    """Value of one entry as a share of equity."""
    max_positions: int = 20
    fee: Decimal = Decimal("0.0025")
    """Share of the value, per side."""
    slippage: Decimal = Decimal("0.005")
    """Share by which each fill is worse than the snapshot's price."""
    max_volume_share: Decimal = Decimal("0.001")
    """Largest order as a share of the token's 24-hour volume: beyond it the order itself would move the price."""
    min_order: Decimal = Decimal(10)
    """Smallest value of an entry; venues refuse less."""
    max_age: timedelta = timedelta(hours=2)
    """An hour older than this no longer trades."""
    horizon: timedelta = timedelta(hours=120)
    """From the decision to enter to the decision to leave: the horizon of the label that the model predicts."""

    def __post_init__(self) -> None:
        for name, (allowed, range_text) in _RANGES.items():
            value = getattr(self, name)
            if not isinstance(value, Decimal) or not value.is_finite() or not allowed(value):
                raise SettingsError(f"{name} must be a Decimal {range_text}, not {value!r}")
        if self.max_positions < 1:
            raise SettingsError(f"max_positions must be at least 1, not {self.max_positions}")
        if self.max_age < HOUR:
            # An hour's snapshot arrives minutes after the hour began; with less, delays would stop all trading.
            raise SettingsError(f"max_age must be at least one hour, not {self.max_age}")
        if self.horizon < HOUR or self.horizon % HOUR:
            raise SettingsError(f"horizon must be a whole number of hours, at least one, not {self.horizon}")
