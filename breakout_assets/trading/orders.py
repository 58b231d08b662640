"""What is ordered, what a venue says of it, and what was executed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Final, Literal

from breakout_assets.trading.money import QUANTITY_STEP, paid, received

Side = Literal["buy", "sell"]
Purpose = Literal["entry", "exit"]
Status = Literal["intent", "sending", "unknown", "absent", "accepted", "cancelling", "filled", "cancelled", "rejected"]
ENDED: Final[frozenset[Status]] = frozenset({"filled", "cancelled", "rejected"})
# Decided, and not at the venue: `absent` was sent, and it is proven that it never arrived.
UNSENT: Final[frozenset[Status]] = frozenset({"intent", "absent"})
# Sent, and only the venue can tell whether it arrived.
IN_DOUBT: Final[frozenset[Status]] = frozenset({"sending", "unknown"})
# An order in one of these may be at the venue, whether or not the venue has said so.
IN_FLIGHT: Final[frozenset[Status]] = frozenset({"sending", "unknown", "accepted", "cancelling"})


@dataclass(frozen=True, kw_only=True)
class OrderIntent:
    """An order as it was decided, before it has an identity in a ledger."""

    hour: datetime
    """The hour whose snapshot led to it."""
    token: str
    side: Side
    purpose: Purpose
    quantity: Decimal
    price: Decimal
    """Reference: the price known when it was decided. It is never the price of the fill."""
    limit: Decimal
    """The worst price per unit at which it may be executed."""
    reason: str
    position: str | None
    """Id of the entry order that an exit closes; null for entries."""
    model_hash: str | None
    probability: float | None


@dataclass(frozen=True, kw_only=True)
class Order(OrderIntent):
    """An order that a ledger holds. Its id is also the client order id at the venue: 32 hex digits."""

    order_id: str


@dataclass(frozen=True, kw_only=True)
class Execution:
    """A trade of an order as the venue tells of it."""

    trade_id: str
    """The venue's; unique within the order."""
    price: Decimal
    """Paid or received per unit, USD."""
    quantity: Decimal
    """Units that changed hands."""
    fee: Decimal
    """USD."""
    fee_in_token: Decimal = Decimal(0)
    """Units of the token that the venue kept: some take their fee in what is bought."""


@dataclass(frozen=True, kw_only=True)
class Fill(Execution):
    """An execution that is booked. An order may have several."""

    order_id: str
    side: Side
    hour: datetime
    """The hour in which it was booked; on paper, the one whose snapshot gave the price."""

    @property
    def value(self) -> Decimal:
        """USD, fee not included."""
        return paid(self.quantity, self.price) if self.side == "buy" else received(self.quantity, self.price)

    @property
    def cash_flow(self) -> Decimal:
        """Change of the cash, USD: negative for purchases."""
        return -self.value - self.fee if self.side == "buy" else self.value - self.fee

    @property
    def units(self) -> Decimal:
        """Change of the holding, units of the token: negative for sales."""
        return (self.quantity if self.side == "buy" else -self.quantity) - self.fee_in_token


@dataclass(frozen=True)
class Accepted:
    """The venue has the order."""

    venue_id: str


@dataclass(frozen=True)
class Rejected:
    """The venue does not have the order and says so beyond doubt."""

    reason: str


@dataclass(frozen=True)
class NotSent:
    """Nothing left this machine, for sure."""

    reason: str


@dataclass(frozen=True)
class Unknown:
    """Nothing is proven: a time-out, a broken or unreadable answer, an error that may come after the order."""

    reason: str


Answer = Accepted | Rejected | NotSent | Unknown


@dataclass(frozen=True, kw_only=True)
class Report:
    """What the venue knows of an order that it has, or has had."""

    venue_id: str
    status: Literal["open", "filled", "cancelled", "rejected"]
    executions: tuple[Execution, ...] = ()
    """All of them so far, in any order."""
    note: str | None = None
    """Why it ended, where the venue says so."""


@dataclass(frozen=True, kw_only=True)
class VenueOrder:
    """An open order at the venue, whoever placed it."""

    venue_id: str
    order_id: str | None
    """The client order id; null if it carries none."""
    token: str
    """Or the venue's own symbol where no token is known for it."""
    description: str


@dataclass(frozen=True)
class Balances:
    """What the venue holds for the account, whether or not open orders reserve it."""

    cash: Decimal
    """Of the quote currency, taken as USD."""
    tokens: Mapping[str, Decimal] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class OrderLimits:
    """What a venue allows for a token."""

    quantity_step: Decimal = QUANTITY_STEP
    price_step: Decimal | None = None
    """Null: any price."""
    min_quantity: Decimal = Decimal(0)
    min_value: Decimal = Decimal(0)
    """USD."""
