"""Whether a venue holds what the ledger says, in both directions."""

from collections.abc import Iterable, Mapping, Set
from decimal import Decimal
from typing import Final

from breakout_assets.trading.money import USD, plain
from breakout_assets.trading.orders import Balances, VenueOrder
from breakout_assets.trading.portfolio import Portfolio

# One unit of the eighth place, the finest that venues keep. A venue may round there what it tells of a balance, and the
# cost of each execution otherwise than the ledger does.
TOLERANCE: Final = Decimal("0.00000001")


def expected_balances(portfolio: Portfolio) -> dict[str, Decimal]:
    """What the venue must hold, by token and `USD`."""
    own = {USD: portfolio.cash, **portfolio.units}
    items = own.keys() | portfolio.beside.keys()
    return {item: own.get(item, Decimal(0)) + portfolio.beside.get(item, Decimal(0)) for item in sorted(items)}


def balance_differences(expected: Mapping[str, Decimal], balances: Balances, trades: int = 0) -> dict[str, Decimal]:
    """How much more the venue holds than expected, by token and `USD`, beyond what so many trades may be rounded by."""
    held = {**balances.tokens, USD: balances.cash}
    items = sorted(expected.keys() | held.keys())
    differences = {item: held.get(item, Decimal(0)) - expected.get(item, Decimal(0)) for item in items}
    tolerance = TOLERANCE * (1 + trades)
    return {item: difference for item, difference in differences.items() if abs(difference) > tolerance}


def differences(
    expected: Mapping[str, Decimal],
    balances: Balances,
    venue_orders: Iterable[VenueOrder],
    open_ids: Set[str],
    trades: int = 0,
) -> tuple[str, ...]:
    """Everything on which venue and ledger disagree, a sentence each.

    Args:
        expected: of `expected_balances`.
        balances: what the venue holds.
        venue_orders: the open orders at the venue.
        open_ids: client order ids that the ledger takes for open, as the venue spells them.
        trades: executions of the account so far: each may have been rounded.
    """
    foreign = [
        f"the venue has an open order that this account does not know: {order.description} ({order.venue_id})"
        for order in venue_orders
        if order.order_id not in open_ids
    ]
    wrong = [
        f"the venue holds {plain(abs(more))} {item} {'more' if more > 0 else 'less'} than the ledger says"
        for item, more in balance_differences(expected, balances, trades).items()
    ]
    return (*foreign, *wrong)
