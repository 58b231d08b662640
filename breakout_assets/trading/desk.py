"""The life of an order: recorded, sent, followed, booked; and what is done about an answer that proves nothing.

Every step is one short transaction, and no call to the venue is made inside one. Before a byte is sent, `sending` is
committed: an order in that state may or may not be at the venue, and only the venue can tell. Nothing is sent a second
time unless its absence is proven.
"""

from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Final, Literal, TypeVar

from breakout_assets.errors import DataError, TemporaryError
from breakout_assets.trading.books import MISSED, Books, OrderEvent
from breakout_assets.trading.brokers import Broker
from breakout_assets.trading.ledger import Ledger
from breakout_assets.trading.mails import MailSettings
from breakout_assets.trading.orders import (
    ENDED,
    IN_DOUBT,
    IN_FLIGHT,
    UNSENT,
    Accepted,
    Answer,
    NotSent,
    Order,
    Rejected,
    Report,
    Status,
    Unknown,
)
from breakout_assets.trading.outcome import post_hour_mail
from breakout_assets.trading.rules import HOUR, TradingRules
from breakout_assets.trading.switches import halts

# An order that was proven absent twice meets a venue that does not take it.
MOST_SENDS: Final = 2
# A venue may show an order long after it was taken for absent. What it executes then is booked all the same.
WATCH: Final = timedelta(days=1)
# The first hour that finds an order missing may meet a fault of the venue, which the next two would see mended.
FORGOTTEN: Final = timedelta(hours=2)
# An order that cannot be read says nothing of the others. After so many in a row, each of which takes most of a minute,
# the venue is asked for something else, to see whether it is down.
UNANSWERED: Final = 3

Failure = TemporaryError | DataError
T = TypeVar("T")


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

    def send(self, orders: Iterable[Order], blocks: Sequence[str] = ()) -> list[Failure]:
        """Send what is recorded and not at the venue; once more what is proven never to have arrived.

        What has become too old meanwhile ends here, and so does an entry if something stands against buying.

        Args:
            orders: in the order in which they are to be sent.
            blocks: sentences why nothing may be bought.

        Returns:
            Failures that concern single orders, whose fate is open until the next run. The others have been dealt with.

        Raises:
            TemporaryError: the venue cannot be read.
        """
        failures: list[Failure] = []
        waiting = list(orders)
        for _ in range(MOST_SENDS):
            failures += self._one_by_one(waiting, lambda order: self._send(order, blocks))
            failures += self._prove([order for order in waiting if self._status(order) in IN_DOUBT])
            waiting = [order for order in waiting if self._status(order) == "absent"]
        return failures

    def _status(self, order: Order) -> Status:
        with self.ledger.read(self.account) as books:
            return books.status(order.order_id)

    def _send(self, order: Order, blocks: Sequence[str]) -> None:
        # The same hour decided anew from a lost ledger makes the same ids: the venue may have them. What is too old is
        # not sent in any case, and must end even where it cannot be looked up.
        if self._status(order) not in UNSENT or (not self._is_late(order) and self._found(order)):
            return
        if self._begin(order, blocks):
            self._settle(order, self._place(order))

    def _is_late(self, order: Order) -> bool:
        return self.now() - order.hour > self.rules.max_age

    def _begin(self, order: Order, blocks: Sequence[str]) -> bool:
        """Commit that an order is about to be sent; false if it is not to be."""
        address = self.broker.address(order)
        with self.ledger.write(self.account) as books:
            if books.status(order.order_id) not in UNSENT:
                return False
            # A halt counts from the moment at which it is given: it is asked for in the transaction that sends.
            why_not = self._why_not(order, [*halts(books), *blocks])
            if why_not:
                books.event(order.order_id, "cancelled", self.hour, self.now(), why_not)
                self.tell(books)
            else:
                books.event(order.order_id, "sending", self.hour, self.now(), address=address)
            return why_not is None

    def _why_not(self, order: Order, blocks: Sequence[str]) -> str | None:
        """Why an order is not sent any more."""
        if self._is_late(order):
            return f"not sent within {self.rules.max_age // HOUR} hours of the decision"
        if blocks and order.purpose == "entry":
            return f"not sent: {'; '.join(dict.fromkeys(blocks))}"
        return None

    def _place(self, order: Order) -> Answer:
        try:
            return self.broker.place(order)
        except Exception as error:  # whatever a broker's library raises, the order may have left
            return Unknown(f"{type(error).__name__} while it was sent")

    def _settle(self, order: Order, answer: Answer) -> None:
        if isinstance(answer, Accepted):
            with self.ledger.write(self.account) as books:
                books.event(order.order_id, "accepted", self.hour, self.now(), venue_id=answer.venue_id)
        elif isinstance(answer, NotSent):
            self._end(order, "cancelled", answer.reason)  # unlike a refusal, nothing that had to be watched
        elif isinstance(answer, Rejected):
            # A refusal costs one more look: a duplicate can be refused although its twin lives.
            try:
                found = self._found(order)
            except (TemporaryError, DataError) as error:
                self._unknown(order, f"{answer.reason}; and it could not be looked up: {error}")
                return
            if not found:
                self._end(order, "rejected", answer.reason)
        else:
            self._unknown(order, answer.reason)

    def _unknown(self, order: Order, reason: str) -> None:
        with self.ledger.write(self.account) as books:
            books.event(order.order_id, "unknown", self.hour, self.now(), reason)
            self.tell(books)

    # Proving ---------------------------------------------------------------------------------------------------

    def _prove(self, orders: Iterable[Order]) -> list[Failure]:
        """Look orders up until each is found, or its absence is proven: then it waits to be sent again, or is over."""
        proof, failures, doubtful = self.broker.absence, list[Failure](), list(orders)
        while doubtful:
            left: list[Order] = []

            def look(order: Order, left: list[Order] = left) -> None:
                if not self._found(order) and not self._is_absent(order):
                    left.append(order)

            failures += self._one_by_one(doubtful, look)
            doubtful = left
            if doubtful:
                self.wait(proof.span.total_seconds() / proof.look_ups)
        return failures

    def _is_absent(self, order: Order) -> bool:
        """Count a look-up in vain; whether that proves that the order never arrived, which then is recorded."""
        misses, since, sent = self._miss(order)
        if misses < self.broker.absence.look_ups or self.now() - since < self.broker.absence.span:
            return False
        absence = f"it never arrived: {misses} look-ups since {since} did not find it"
        again = sent < MOST_SENDS and not self._is_late(order)
        self._end(order, "absent" if again else "rejected", absence)
        return True

    def _miss(self, order: Order) -> tuple[int, datetime, int]:
        """Record a look-up in vain: how many there were in a row, since when, and how often the order was sent.

        Raises:
            DataError: it was sent elsewhere than it is looked for now.
        """
        with self.ledger.write(self.account) as books:
            events = books.events(order_id=order.order_id)
            sends = [event for event in events if event.status == "sending"]
            self._check_address(order, sends)
            books.event(order.order_id, MISSED, self.hour, self.now())
            misses = misses_of(books, order)
        return len(misses), misses[-1].at, len(sends)

    def _check_address(self, order: Order, sends: Sequence[OrderEvent]) -> None:
        sent_to = sends[-1].address if sends else None
        address = self.broker.address(order)
        if sent_to is not None and sent_to != address:
            raise DataError(
                f"{named(order)} was sent to {sent_to} and is not found at {address}: restore the pair or the key "
                "until it has ended"
            )

    # Following -------------------------------------------------------------------------------------------------

    def follow(self) -> list[Failure]:
        """Ask the venue about every order that may be there, and book what it tells.

        Returns:
            Failures that concern single orders: one that cannot be read, or that the venue had and knows no more.

        Raises:
            TemporaryError: the venue cannot be read.
        """
        failures, missing = self.take_stock()
        in_doubt = [order for order, status in missing if status in IN_DOUBT]
        known = [order for order, status in missing if status not in IN_DOUBT]
        return failures + self._one_by_one(known, self._miss_accepted) + self._prove(in_doubt)

    def take_stock(self) -> tuple[list[Failure], list[tuple[Order, Status]]]:
        """Book what the venue tells of every order that may be there; failures, and those in flight that it has not.

        What is over in the ledger and still open at the venue, because it was taken for refused, is cancelled there.
        """
        with self.ledger.read(self.account) as books:
            in_flight = [(order, status) for order, status in books.unended() if status in IN_FLIGHT]
            # From the hour that was traded last: since then nobody has looked.
            doubted = books.doubted_since(min(self.now(), books.newest_hour() or self.now()) - WATCH)
        missing: list[tuple[Order, Status]] = []

        def look(each: tuple[Order, Status]) -> None:
            if not self._found(each[0]):
                missing.append(each)

        def watch(order: Order) -> None:
            report = self.broker.look_up(order)
            if report is not None and report.status == "open" and self._status(order) in ENDED:
                self.broker.cancel(order)
                report = self.broker.look_up(order)
            if report is not None:
                self.book([(order, report)])

        known = {order.order_id for order, _ in in_flight}
        failures = self._one_by_one(in_flight, look)
        failures += self._one_by_one([order for order in doubted if order.order_id not in known], watch)
        return failures, missing

    def _miss_accepted(self, order: Order) -> None:
        misses, since, _ = self._miss(order)
        told = f"{misses} look-ups since {since} did not find it"
        raise DataError(f"{named(order)} was accepted, and the venue no longer knows it: {told}")

    def end_forgotten(self, listed: Set[str]) -> None:
        """End what the venue accepted and has not known for long: to be called only while its balances agree.

        Args:
            listed: ids of its open orders, as it spells them: an index by id may fail for hours.


        Exchanges forget orders that ended without an execution, some within hours; one that was executed shows in the
        balances.
        """
        with self.ledger.read(self.account) as books:
            accepted = [order for order, status in books.unended() if status in ("accepted", "cancelling")]
            missed = [(order, misses_of(books, order)) for order in accepted]
        for order, misses in missed:
            if self.broker.spelling(order.order_id) in listed:
                continue
            if len(misses) >= self.broker.absence.look_ups and self.now() - misses[-1].at >= FORGOTTEN:
                reason = f"the venue has not known it since {misses[-1].at}, and holds what it would without it"
                self._end(order, "cancelled", reason)

    def cancel(self, orders: Iterable[tuple[Order, str]]) -> list[Failure]:
        """Ask the venue to end orders, each for a reason, and book what came of it; what was executed counts.

        Returns:
            Failures that concern single orders, which stay in flight.

        Raises:
            TemporaryError: the venue cannot be read.
        """
        return self._one_by_one(orders, self._cancel)

    def _cancel(self, ending: tuple[Order, str]) -> None:
        order, reason = ending
        with self.ledger.write(self.account) as books:
            if books.status(order.order_id) == "accepted":
                books.event(order.order_id, "cancelling", self.hour, self.now(), reason)
        self.broker.cancel(order)
        self._found(order)

    def _found(self, order: Order) -> bool:
        """Look an order up and book what the venue tells; false if it knows nothing of it now."""
        report = self.broker.look_up(order)
        if report is not None:
            self.book([(order, report)])
        return report is not None

    def _one_by_one(self, items: Iterable[T], act: Callable[[T], None]) -> list[Failure]:
        """Act on each, whatever happens with the others.

        Raises:
            TemporaryError: the venue tells nothing at all.
        """
        failures: list[Failure] = []
        unanswered = 0
        for item in items:
            try:
                act(item)
            except (TemporaryError, DataError) as failure:
                failures.append(failure)
                unanswered = unanswered + 1 if isinstance(failure, TemporaryError) else 0
                if unanswered == UNANSWERED:
                    self.broker.balances()
                    unanswered = 0
            else:
                unanswered = 0
        return failures

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


def misses_of(books: Books, order: Order) -> list[OrderEvent]:
    """The look-ups that did not find an order since it was last heard of, newest first."""
    return list(takewhile(lambda event: event.status == MISSED, reversed(books.events(order_id=order.order_id))))


def named(order: Order) -> str:
    """An order in words."""
    return f"the order to {order.side} {order.quantity} {order.token} of {order.hour:%Y-%m-%d %H:00} ({order.order_id})"
