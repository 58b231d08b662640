"""Whether a venue holds what the ledger says, in both directions."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from decimal import Decimal
from typing import Final

from breakout_assets.trading.books import Adjustment
from breakout_assets.trading.money import plain
from breakout_assets.trading.orders import Balances, VenueOrder
from breakout_assets.trading.portfolio import Portfolio

USD: Final = "USD"
# One unit of the eighth place, the finest that venues keep: what they tell of a balance may be rounded there.
TOLERANCE: Final = Decimal("0.00000001")


def expected_balances(portfolio: Portfolio, adjustments: Iterable[Adjustment]) -> dict[str, Decimal]:
    """What the venue must hold, by token and `USD`."""
    expected: dict[str, Decimal] = defaultdict(Decimal)
    expected[USD] = portfolio.cash
    for token, amount in portfolio.units.items():
        expected[token] += amount
    for adjustment in adjustments:
        expected[adjustment.item] += adjustment.amount
    return dict(expected)


def balance_differences(expected: Mapping[str, Decimal], balances: Balances) -> dict[str, Decimal]:
    """How much more the venue holds than expected, by token and `USD`, beyond the tolerance."""
    held = {**balances.tokens, USD: balances.cash}
    items = sorted(expected.keys() | held.keys())
    differences = {item: held.get(item, Decimal(0)) - expected.get(item, Decimal(0)) for item in items}
    return {item: difference for item, difference in differences.items() if abs(difference) > TOLERANCE}


def differences(
    expected: Mapping[str, Decimal], balances: Balances, venue_orders: Iterable[VenueOrder], open_ids: Set[str]
) -> tuple[str, ...]:
    """Everything on which venue and ledger disagree, a sentence each.

    Args:
        expected: of `expected_balances`.
        balances: what the venue holds.
        venue_orders: the open orders at the venue.
        open_ids: client order ids that the ledger takes for open, as the venue spells them.
    """
    foreign = [
        f"the venue has an open order that this account does not know: {order.description} ({order.venue_id})"
        for order in venue_orders
        if order.order_id not in open_ids
    ]
    wrong = [
        f"the venue holds {plain(abs(more))} {item} {'more' if more > 0 else 'less'} than the ledger says"
        for item, more in balance_differences(expected, balances).items()
    ]
    return (*foreign, *wrong)
