"""A rehearsal of live trading: what would be sent to the exchange is told, and executed on paper instead."""

import logging
from collections.abc import Iterable, Mapping
from datetime import datetime

from breakout_assets.trading.brokers import AbsenceProof, Broker, Quote
from breakout_assets.trading.exchange import ExchangeBroker
from breakout_assets.trading.orders import Answer, Balances, Order, OrderLimits, Report, VenueOrder

_log = logging.getLogger(__name__)


class DryRun:
    """The protocol `brokers.Broker`: orders and account are the paper broker's, clock and limits the exchange's.

    The exchange is read, so that a wrong key, clock or pair shows before money is at stake, and never asked to place or
    cancel anything.
    """

    def __init__(self, exchange: ExchangeBroker, paper: Broker) -> None:
        self._exchange = exchange
        self._paper = paper
        self._requests: list[str] = []

    @property
    def absence(self) -> AbsenceProof:
        """The paper broker's."""
        return self._paper.absence

    @property
    def immediate(self) -> bool:
        """The paper broker's."""
        return self._paper.immediate

    def open_hour(self, hour: datetime, quotes: Mapping[str, Quote]) -> None:
        """Compare the exchange's clock, then begin the hour on paper."""
        self._exchange.open_hour(hour, quotes)
        self._paper.open_hour(hour, quotes)

    def limits(self, tokens: Iterable[str]) -> dict[str, OrderLimits]:
        """The exchange's, of tokens that can be traded on paper too."""
        on_paper = self._paper.limits(list(tokens))
        return self._exchange.limits(on_paper)

    def address(self, order: Order) -> str:
        """The paper broker's, which has the order."""
        return self._paper.address(order)

    def place(self, order: Order) -> Answer:
        """Tell what would be sent, then place the order on paper."""
        self._tell(f"would {self._exchange.describe(order)}")
        return self._paper.place(order)

    def look_up(self, order: Order) -> Report | None:
        """What became of it on paper."""
        return self._paper.look_up(order)

    def cancel(self, order: Order) -> None:
        """Tell what would be cancelled, then cancel it on paper."""
        self._tell(f"would cancel: {self._exchange.describe(order)}")
        self._paper.cancel(order)

    def spelling(self, order_id: str) -> str:
        """The paper broker's."""
        return self._paper.spelling(order_id)

    def open_orders(self) -> list[VenueOrder]:
        """Those on paper."""
        return self._paper.open_orders()

    def balances(self) -> Balances:
        """Those on paper."""
        return self._paper.balances()

    def take_requests(self) -> list[str]:
        """The requests since the last call in words, in the order in which they would be sent."""
        requests, self._requests = self._requests, []
        return requests

    def _tell(self, request: str) -> None:
        self._requests.append(request)
        _log.info("dry run: %s", request)
