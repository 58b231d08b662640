"""Sizes, costs and limits of an account."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Final

from breakout_assets.errors import SettingsError

HOUR: Final = timedelta(hours=1)
# The signal is a forecast from one hour's price on. After six hours without a fill a twentieth of the horizon has
# passed, and buying would be another trade than the one that was decided.
ENTRY_PATIENCE: Final = timedelta(hours=6)

_Range = tuple[Callable[[Decimal], bool], str]
_POSITIVE: Final[_Range] = (lambda value: value > 0, "above 0")
_PART: Final[_Range] = (lambda value: 0 < value <= 1, "above 0 and at most 1")
_COST: Final[_Range] = (lambda value: 0 <= value < 1, "of at least 0 and below 1")
_MOVE: Final[_Range] = (lambda value: 0 < value < 1, "above 0 and below 1")
_RANGES: Final[dict[str, _Range]] = {
    "cash": _POSITIVE,
    "min_order": _POSITIVE,
    "order_fraction": _PART,
    "max_volume_share": _PART,
    "participation": _PART,
    "fee": _COST,
    "spread": _COST,
    "slippage": _COST,
    "cash_floor": _COST,
    "max_price_move": _MOVE,
}
# These are off where they are null.
_OPTIONAL: Final[dict[str, _Range]] = {"take_profit": _POSITIVE, "stop_loss": _MOVE, "max_drawdown": _MOVE}


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
    cash_floor: Decimal = Decimal(0)
    """Share of equity that entries leave as cash."""
    fee: Decimal = Decimal("0.0025")
    """Share of the value, per side."""
    spread: Decimal = Decimal("0.002")
    """Between the best bid and the best ask, as a share of the price; each side pays half of it."""
    slippage: Decimal = Decimal("0.004")
    """How far an order of `max_volume_share` moves the price; others move it by the square root of their share of it,
    as trades of any size are observed to do."""
    max_volume_share: Decimal = Decimal("0.001")
    """Largest order as a share of the token's 24-hour volume: beyond it the order itself would move the price."""
    participation: Decimal = Decimal("0.1")
    """Share of an hour's volume that a paper order takes from one snapshot. The rest waits: others trade too."""
    max_price_move: Decimal = Decimal("0.05")
    """An order is executed no further than this from the price that it was decided on."""
    min_order: Decimal = Decimal(10)
    """Smallest value of an entry; venues refuse less."""
    max_age: timedelta = timedelta(hours=2)
    """An hour older than this no longer trades."""
    horizon: timedelta = timedelta(hours=120)
    """From the decision to enter to the decision to leave: the horizon of the label that the model predicts."""
    cooldown: timedelta = timedelta(hours=24)
    """A token is not bought again so soon after its last sale: what made it be sold would make it be sold again."""
    vanished_after: timedelta = timedelta(hours=24)
    """A held token without a believed price for so long is left once it has one again."""
    take_profit: Decimal | None = None
    """Gain on the entry price at which a position is left early; null is off, for the label knows no such exit."""
    stop_loss: Decimal | None = None
    """Loss on the entry price at which a position is left early; null is off, for the label knows no such exit."""
    max_drawdown: Decimal | None = Decimal("0.25")
    """Fall of equity from its peak at which buying is halted until somebody resumes; null is off."""

    def __post_init__(self) -> None:
        for name, allowed in _RANGES.items():
            _check(name, getattr(self, name), allowed)
        for name, allowed in _OPTIONAL.items():
            if getattr(self, name) is not None:
                _check(name, getattr(self, name), allowed)
        if self.max_positions < 1:
            raise SettingsError(f"max_positions must be at least 1, not {self.max_positions}")
        if self.max_age < HOUR:
            # An hour's snapshot arrives minutes after the hour began; with less, delays would stop all trading.
            raise SettingsError(f"max_age must be at least one hour, not {self.max_age}")
        for name, least in (("horizon", 1), ("vanished_after", 1), ("cooldown", 0)):
            span = getattr(self, name)
            if span < least * HOUR or span % HOUR:
                raise SettingsError(f"{name} must be a whole number of hours, at least {least}, not {span}")

    @property
    def exit_rule(self) -> str:
        """When a position is left, in a sentence that says whether the probability is about the same thing."""
        early = [f"+{self.take_profit:%}"] if self.take_profit is not None else []
        early += [f"-{self.stop_loss:%}"] if self.stop_loss is not None else []
        hours = f"left after {self.horizon // HOUR} hours"
        if not early:
            return f"{hours}, as the label says"
        return f"{hours}, or at {', '.join(early)}: earlier than what the probability is about"


def _check(name: str, value: object, allowed: _Range) -> None:
    holds, range_text = allowed
    if not isinstance(value, Decimal) or not value.is_finite() or not holds(value):
        raise SettingsError(f"{name} must be a Decimal {range_text}, not {value!r}")
