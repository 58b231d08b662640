"""What the snapshots of later hours execute of a paper order."""

from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_UP, Context, Decimal
from typing import Final

from breakout_assets.trading.brokers import Quote
from breakout_assets.trading.money import QUANTITY_STEP, fee_on, floor_to, paid, quantity_for, received, times
from breakout_assets.trading.orders import Execution, Order, Purpose, Side
from breakout_assets.trading.rules import ENTRY_PATIENCE, TradingRules

_HOURS_OF_VOLUME: Final = 24
# A law that was observed on small orders says nothing of huge ones. Half the price, with the half spread below the
# other half, keeps the price of a sale above zero.
_MOST_SLIPPAGE: Final = Decimal("0.5")
# Own digits and rounding, so that no setting of the process changes an amount. A square root never ends; twelve places
# are a millionth of a millionth of the price, and the price keeps fewer digits than are calculated with.
_EXACT: Final = Context(prec=40)
_SLIPPAGE_STEP: Final = Decimal("1E-12")


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What a venue must know of an order to execute it."""

    hour: datetime
    side: Side
    purpose: Purpose
    quantity: Decimal
    limit: Decimal


def match(
    order: Order | Terms, filled: Decimal, quote: Quote | None, hour: datetime, rules: TradingRules
) -> Execution | None:
    """What the snapshot of `hour` executes of a paper order; null for nothing.

    The price that made a decision is never the price of its fill: between a snapshot and the arrival of an order the
    market has moved on, and a fill in the same hour would earn what nobody could have earned. An entry is no longer
    executed once its patience is over, even if the hour that should have cancelled it was missed.

    Args:
        order: placed in the hour of its decision.
        filled: units that earlier hours executed.
        quote: the token's believed price and volume in that hour, null if there is none.
        hour: naive UTC; an order has at most one execution an hour, and `trade_id` names it.
        rules: fee, spread, slippage and participation.
    """
    if quote is None or hour <= order.hour or (order.purpose == "entry" and hour - order.hour > ENTRY_PATIENCE):
        return None
    quantity = _available(order.quantity - filled, quote, rules)
    if quantity <= 0:
        return None
    worse = _EXACT.add(_EXACT.divide(rules.spread, Decimal(2)), _slippage(quantity, quote, rules))
    if order.side == "buy":
        price = times(quote.price, _EXACT.add(Decimal(1), worse))
        within, value = price <= order.limit, paid(quantity, price)
    else:
        price = times(quote.price, _EXACT.subtract(Decimal(1), worse))
        within, value = price >= order.limit, received(quantity, price)
    if not within:
        return None
    return Execution(trade_id=f"{hour:%Y%m%dT%H}", price=price, quantity=quantity, fee=fee_on(value, rules.fee))


def _available(remaining: Decimal, quote: Quote, rules: TradingRules) -> Decimal:
    """What of the rest one snapshot can take; all of it where the volume is unknown."""
    if quote.volume is not None:
        share = times(rules.participation, quote.volume)
        remaining = min(remaining, quantity_for(share, times(quote.price, Decimal(_HOURS_OF_VOLUME))))
    return floor_to(remaining, QUANTITY_STEP)


def _slippage(quantity: Decimal, quote: Quote, rules: TradingRules) -> Decimal:
    """How far this quantity moves the price, as a share of it, rounded up."""
    if quote.volume is None:
        return min(rules.slippage, _MOST_SLIPPAGE)
    largest = times(rules.max_volume_share, quote.volume)
    root = _EXACT.sqrt(_EXACT.divide(times(quantity, quote.price), largest))
    return min(times(rules.slippage, root), _MOST_SLIPPAGE).quantize(_SLIPPAGE_STEP, ROUND_UP, _EXACT)
