"""The border to a venue: one protocol for paper and for exchanges."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Protocol

from breakout_assets.trading.orders import Answer, Balances, Order, OrderLimits, Report, VenueOrder


@dataclass(frozen=True)
class Quote:
    """What a token costs in an hour, USD; `volume` is that of 24 hours, null where it is unknown."""

    price: Decimal
    volume: Decimal | None


@dataclass(frozen=True)
class AbsenceProof:
    """When an order that a venue does not find has never arrived there: so many look-ups, over so long a time."""

    look_ups: int
    span: timedelta


class Broker(Protocol):
    """A venue at which one account trades.

    Only `place` and `cancel` change anything there. `place` is called at most once for an order unless its absence is
    proven, and never raises: what cannot be proven is `Unknown`, and only what failed before the first byte of the
    order left is `NotSent`. Everything else is a reading, may be retried inside, and raises TemporaryError if the venue
    cannot be read now, DataError if only a person can help.
    """

    @property
    def absence(self) -> AbsenceProof:
        """What proves that an order never arrived."""

    @property
    def immediate(self) -> bool:
        """Whether an order may be executed as soon as it is placed; on paper it waits for the next snapshot."""

    def open_hour(self, hour: datetime, quotes: Mapping[str, Quote]) -> None:
        """Begin an hour: on paper its prices fill what earlier hours placed. Repeating it changes nothing."""

    def limits(self, tokens: Iterable[str]) -> dict[str, OrderLimits]:
        """What may be ordered of these tokens; a token that is missing is not traded here."""

    def address(self, order: Order) -> str:
        """Where an order is sent: venue, market and account, in words that are the same as long as these are.

        They are kept with `sending` and compared later: an order that is not found in another market or in another
        account is not proven absent. No request is made, and a token without a market is no error.
        """

    def place(self, order: Order) -> Answer:
        """Send a limit order whose client order id is `order.order_id`.

        Accepted: the venue has it. Rejected: the venue was asked and has it not. NotSent: the venue was not asked, be
        it that the order cannot be sent at all or not now. Unknown: anything else.
        """

    def look_up(self, order: Order) -> Report | None:
        """What the venue knows of an order, found by `order.order_id`; null if it knows nothing of it now."""

    def cancel(self, order: Order) -> None:
        """Ask for the end of an order; what came of it, `look_up` tells. Cancelling twice does no harm."""

    def spelling(self, order_id: str) -> str:
        """The client order id as `open_orders` shows it: some exchanges shorten it."""

    def open_orders(self) -> list[VenueOrder]:
        """All open orders of the account at the venue, also those that it did not place itself."""

    def balances(self) -> Balances:
        """What the venue holds for the account."""
