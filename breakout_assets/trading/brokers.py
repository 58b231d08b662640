"""What becomes of submitted orders. There is a paper broker and no other: nothing here can reach a venue."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, Protocol

from breakout_assets.trading.money import affordable, fee_on, paid, plain, received, times, usd
from breakout_assets.trading.portfolio import Cancellation, Fill, Order
from breakout_assets.trading.rules import HOUR, TradingRules

# The signal is a forecast from one hour's price on. After six hours without a fill a twentieth of the horizon has
# passed, and buying would be another trade than the one that was decided.
ENTRY_PATIENCE: Final = timedelta(hours=6)


class Broker(Protocol):
    """Executes orders that were submitted at an earlier hour."""

    def settle(self, order: Order, hour: datetime, price: Decimal | None, cash: Decimal) -> Fill | Cancellation | None:
        """What `hour` makes of an open order; null if it stays open.

        Args:
            order: submitted at an hour before `hour`.
            hour: the hour to settle.
            price: the token's believed price in that hour, null if there is none.
            cash: what a purchase may take at most, USD.
        """


@dataclass(frozen=True)
class PaperBroker:
    """Fills every order at the price of the first later snapshot that has one, made worse by slippage, plus the fee.

    The price that made a decision is never the price of its fill: between a snapshot and the arrival of an order the
    market has moved on, and a fill in the same hour would earn what nobody could have earned.
    """

    rules: TradingRules

    def settle(self, order: Order, hour: datetime, price: Decimal | None, cash: Decimal) -> Fill | Cancellation | None:
        """A fill where there is a price; an entry that waited too long is cancelled, an exit waits for ever."""
        if order.side == "sell":
            return None if price is None else self._sell(order, hour, price)
        waited = hour - order.hour
        if waited > ENTRY_PATIENCE:
            return Cancellation(
                order_id=order.order_id,
                hour=hour,
                reason=f"not filled within {ENTRY_PATIENCE // HOUR} hours of the decision",
            )
        if price is not None:
            return self._buy(order, hour, price, cash)
        if waited < ENTRY_PATIENCE:
            return None
        return Cancellation(
            order_id=order.order_id,
            hour=hour,
            reason=f"no believed price of {order.token} for {ENTRY_PATIENCE // HOUR} hours",
        )

    def _sell(self, order: Order, hour: datetime, price: Decimal) -> Fill:
        price = times(price, 1 - self.rules.slippage)
        fee = fee_on(received(order.quantity, price), self.rules.fee)
        return Fill(order_id=order.order_id, side="sell", hour=hour, price=price, quantity=order.quantity, fee=fee)

    def _buy(self, order: Order, hour: datetime, price: Decimal, cash: Decimal) -> Fill | Cancellation:
        price = times(price, 1 + self.rules.slippage)
        value = paid(order.quantity, price)
        quantity, note = order.quantity, None
        if value + fee_on(value, self.rules.fee) > cash:
            quantity = affordable(cash, price, self.rules.fee)
            note = f"reduced from {plain(order.quantity)}: {usd(cash)} USD of cash cover no more at {plain(price)}"
            if received(quantity, price) < self.rules.min_order:
                return Cancellation(
                    order_id=order.order_id,
                    hour=hour,
                    reason=f"{usd(cash)} USD of cash no longer cover it or the smallest order at {plain(price)}",
                )
        fee = fee_on(paid(quantity, price), self.rules.fee)
        return Fill(order_id=order.order_id, side="buy", hour=hour, price=price, quantity=quantity, fee=fee, note=note)
