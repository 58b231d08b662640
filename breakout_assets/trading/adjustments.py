"""What a venue holds that is of no order of an account, and what that means for the account."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from breakout_assets.trading.money import USD


@dataclass(frozen=True, kw_only=True)
class Adjustment:
    """An amount at the venue that is of no order of the account.

    One of the time before the account began lies beside it, and so do coins that came later. What went is taken from
    there first; beyond that, coins are gone from its positions, and dollars from its cash. Dollars that came are its
    own.
    """

    item: str
    """A token, or USD."""
    amount: Decimal
    at: datetime
    by: str
    reason: str
    hour: datetime | None = None
    """The last hour that had been traded: decisions of later ones knew it. Null before the account began."""


@dataclass(frozen=True)
class Explained:
    """What the adjustments of an account mean together, one after the other.

    What is missing is first what lay beside the account, and its own only beyond that.
    """

    flows: tuple[tuple[datetime, Decimal], ...]
    """Dollars that came to the account or went, with the last hour that was decided before."""
    proceeds: Decimal
    """The part of them that came for coins of the account that went: of a sale by hand."""
    missing: Mapping[str, Decimal]
    """Units by token that are gone from the account."""
    missed: Mapping[str, datetime]
    """The hours of these, by token: the newest."""
    beside: Mapping[str, Decimal]
    """By token and `USD`: at the venue, and not of the account."""

    @property
    def cash(self) -> Decimal:
        """All flows together, USD."""
        return sum((amount for _, amount in self.flows), Decimal(0))


def explained(adjustments: Iterable[Adjustment]) -> Explained:
    """What adjustments mean, the oldest first."""
    beside: dict[str, Decimal] = defaultdict(Decimal)
    missing: dict[str, Decimal] = defaultdict(Decimal)
    missed: dict[str, datetime] = {}
    flows: list[tuple[datetime, datetime, Decimal]] = []
    sales: set[datetime] = set()
    for each in adjustments:
        if each.hour is None or (each.amount > 0 and each.item != USD):
            beside[each.item] += each.amount
            continue
        taken = min(max(-each.amount, Decimal(0)), max(beside[each.item], Decimal(0)))
        beside[each.item] -= taken
        own = each.amount + taken
        if each.item == USD:
            flows.append((each.at, each.hour, own))
        elif own:
            missing[each.item] -= own
            missed[each.item] = each.hour
            sales.add(each.at)
    return Explained(
        flows=tuple((hour, amount) for _, hour, amount in flows if amount),
        proceeds=sum((amount for at, _, amount in flows if at in sales), Decimal(0)),
        missing=dict(missing),
        missed=missed,
        beside={item: amount for item, amount in sorted(beside.items()) if amount},
    )
