"""The life of an order: recorded, sent, followed, booked; and what is done about an answer that proves nothing.

Every step is one short transaction, and no call to the venue is made inside one. Before a byte is sent, `sending` is
committed: an order in that state may or may not be at the venue, and only the venue can tell. Nothing is sent a second
time unless its absence is proven.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from breakout_assets.errors import DataError, TemporaryError
from breakout_assets.trading.books import MISSED, Books
from breakout_assets.trading.brokers import Broker
from breakout_assets.trading.ledger import Ledger
from breakout_assets.trading.mails import MailSettings
from breakout_assets.trading.orders import IN_FLIGHT, UNSENT, Accepted, Answer, Order, Rejected, Report, Unknown
from breakout_assets.trading.outcome import post_hour_mail
from breakout_assets.trading.rules import HOUR, TradingRules

# An order that was proven absent twice meets a venue that does not take it.
MOST_SENDS: Final = 2
# A venue may show an order long after it was taken for absent. What it executes then is booked all the same.
WATCH: Final = timedelta(days=1)


@dataclass(frozen=True)
class Desk:
    """Carries the orders of one account to its broker and books what becomes of them, in one traded hour."""

    ledger: Ledger
    account: str
    broker: Broker
    rules: TradingRules
    hour: datetime
    """The hour that is traded; everything is booked under it."""
    now: Callable[[], datetime]
    wait: Callable[[float], None]
    """Waits so many seconds."""
    mail: MailSettings | None
    """Whom to tell; null tells nobody."""

    def tell(self, books: Books) -> None:
        """Put what happened in the hour into the outbox, in the transaction in which it is booked."""
        if self.mail:
            post_hour_mail(books, self.hour, self.rules, self.mail)

    # Sending ---------------------------------------------------------------------------------------------------

    def waiting(self) -> list[Order]:
        """What was decided and is not at the venue: an earlier run was interrupted, or it never arrived."""
        with self.ledger.read(self.account) as books:
            orders = [order for order, status in books.unended() if status in UNSENT]
        return sorted(orders, key=lambda order: order.side == "buy")  # sales first: they lower what is at risk

    def send_waiting(self, orders: Iterable[Order], blocks: Sequence[str]) -> None:
        """Send these, unless they have become too old, or purchases are blocked by now: those end here."""
        for order in orders:
            if self.now() - order.hour > self.rules.max_age:
                self._end(order, "cancelled", f"not sent within {self.rules.max_age // HOUR} hours of the decision")
            elif blocks and order.purpose == "entry":
                self._end(order, "cancelled", f"not sent: {'; '.join(blocks)}")
            else:
                self.send(order)

    def send(self, order: Order) -> None:
        """Send an order whose intent is recorded; once, and once more if it is proven that it never arrived."""
        while self._begin(order):
            self._settle(order, self._place(order))

    def _begin(self, order: Order) -> bool:
        """Commit that an order is about to be sent; false if it is not to be."""
        with self.ledger.write(self.account) as books:
            if books.status(order.order_id) not in UNSENT:
                return False
            books.event(order.order_id, "sending", self.hour, self.now())
        return True

    def _place(self, order: Order) -> Answer:
        try:
            return self.broker.place(order)
        except Exception as error:  # whatever a broker's library raises, the order may have left
            return Unknown(f"{type(error).__name__} while it was sent")

    def _settle(self, order: Order, answer: Answer) -> None:
        if isinstance(answer, Accepted):
            with self.ledger.write(self.account) as books:
                books.event(order.order_id, "accepted", self.hour, self.now(), venue_id=answer.venue_id)
        elif isinstance(answer, Rejected):
            # A refusal costs one more look: a duplicate can be refused although its twin lives.
            try:
                report = self.broker.look_up(order)
            except (TemporaryError, DataError) as error:
                self._unknown(order, f"{answer.reason}; and it could not be looked up: {error}")
                return
            if report is None:
                self._end(order, "rejected", answer.reason)
            else:
                self.book([(order, report)])
        else:
            self._unknown(order, answer.reason)
            self._prove(order)

    def _unknown(self, order: Order, reason: str) -> None:
        with self.ledger.write(self.account) as books:
            books.event(order.order_id, "unknown", self.hour, self.now(), reason)
            self.tell(books)

    # Proving ---------------------------------------------------------------------------------------------------

    def _prove(self, order: Order) -> None:
        """Look an order up until it is found, or its absence is proven: then it waits to be sent again, or is over.

        Raises:
            TemporaryError: the venue cannot be read; the order stays in flight.
        """
        proof = self.broker.absence
        while True:
            report = self.broker.look_up(order)
            if report is not None:
                self.book([(order, report)])
                return
            sent, misses, since = self._miss(order)
            if misses >= proof.look_ups and self.now() - since >= proof.span:
                break
            self.wait(proof.span.total_seconds() / proof.look_ups)
        absence = f"it never arrived: {misses} look-ups since {since} did not find it"
        again = sent < MOST_SENDS and self.now() - order.hour <= self.rules.max_age
        self._end(order, "absent" if again else "rejected", absence)

    def _miss(self, order: Order) -> tuple[int, int, datetime]:
        """Record a look-up in vain; how often the order was sent, look-ups in vain since then, and when that was."""
        with self.ledger.write(self.account) as books:
            books.event(order.order_id, MISSED, self.hour, self.now())
            events = books.events(order_id=order.order_id)
        sends = [event for event in events if event.status == "sending"]
        misses = [event for event in events if event.status == MISSED and event.sequence > sends[-1].sequence]
        return len(sends), len(misses), sends[-1].at

    # Following -------------------------------------------------------------------------------------------------

    def follow(self) -> list[str]:
        """Ask the venue about every order that may be there, and book what it tells.

        Returns:
            A sentence for each order that the venue had and knows no more.

        Raises:
            TemporaryError, DataError: the venue cannot be read.
        """
        with self.ledger.read(self.account) as books:
            in_flight = [each for each in books.unended() if each[1] in IN_FLIGHT]
            asked = {order.order_id for order, _ in in_flight}
            doubted = books.doubted_since(self.now() - WATCH)
            watched = [order for order in doubted if order.order_id not in asked]
        found: list[tuple[Order, Report]] = []
        unproven, lost = [], []
        for order, status in in_flight:
            report = self.broker.look_up(order)
            if report is not None:
                found.append((order, report))
            elif status in ("sending", "unknown"):
                unproven.append(order)
            else:
                lost.append(f"{_named(order)} was accepted, and the venue no longer knows it")
        found += [(order, report) for order in watched if (report := self.broker.look_up(order)) is not None]
        self.book(found)
        for order in unproven:
            self._prove(order)
        return lost

    def cancel(self, order: Order, reason: str) -> None:
        """Ask the venue to end an order and book what came of it; what was executed meanwhile counts.

        Raises:
            TemporaryError, DataError: the venue cannot be read; the order stays in flight.
        """
        with self.ledger.write(self.account) as books:
            if books.status(order.order_id) == "accepted":
                books.event(order.order_id, "cancelling", self.hour, self.now(), reason)
        self.broker.cancel(order)
        report = self.broker.look_up(order)
        if report is not None:
            self.book([(order, report)])

    def book(self, reports: Iterable[tuple[Order, Report]]) -> None:
        """Book what the venue told of orders, in one transaction."""
        told = list(reports)
        if not told:
            return
        with self.ledger.write(self.account) as books:
            changed = [books.book(order, report, self.hour, self.now()) for order, report in told]
            if any(changed):
                self.tell(books)

    def _end(self, order: Order, status: Literal["absent", "cancelled", "rejected"], reason: str) -> None:
        with self.ledger.write(self.account) as books:
            if books.status(order.order_id) != status:
                books.event(order.order_id, status, self.hour, self.now(), reason)
                self.tell(books)


def _named(order: Order) -> str:
    return f"the order to {order.side} {order.quantity} {order.token} of {order.hour:%Y-%m-%d %H:00} ({order.order_id})"
