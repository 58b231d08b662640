"""A venue that answers as it is told to, right or wrong, and goes on when the process that traded there is killed."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

from sqlalchemy import event
from sqlalchemy.engine import Engine

from breakout_assets.errors import TemporaryError
from breakout_assets.trading.books import Books
from breakout_assets.trading.brokers import AbsenceProof, Quote
from breakout_assets.trading.ledger import Ledger
from breakout_assets.trading.money import floor_to, paid, received
from breakout_assets.trading.orders import (
    Accepted,
    Answer,
    Balances,
    Execution,
    Order,
    OrderLimits,
    Rejected,
    Report,
    Unknown,
    VenueOrder,
)

STEP = Decimal("0.0001")


class Killed(BaseException):
    """The process ends here. No `except Exception` sees it, as none would see a SIGKILL."""


@dataclass
class Fate:
    """Counts the steps that change something, and kills after the one that is named."""

    kill_after: int | None = None
    steps: int = 0
    names: list[str] = field(default_factory=list)

    def step(self, name: str) -> None:
        self.steps += 1
        self.names.append(name)
        if self.steps == self.kill_after:
            raise Killed(name)


class SteppedLedger(Ledger):
    """A ledger in a file, or in PostgreSQL, whose every commit is a step.

    Those that are played one after the other can share an engine, which connects to the newest: statements are then
    compiled once for a test process, and not once for each of thousands of ledgers.
    """

    shared: ClassVar[Engine | None] = None
    newest: ClassVar[Path | None] = None

    def __init__(self, place: Path | str, fate: Fate, *, share: bool = False) -> None:
        super().__init__(place)
        self.fate = fate
        if self.path is None or not share:
            return
        SteppedLedger.newest = self.path
        if SteppedLedger.shared is None:
            SteppedLedger.shared = self.engine
            event.listen(self.engine, "do_connect", _connect_to_newest)
        self.engine = SteppedLedger.shared

    @contextmanager
    def write(self, account: str) -> Iterator[Books]:
        with super().write(account) as books:
            yield books
        self.fate.step("commit")


def _connect_to_newest(dialect: Any, record: Any, positional: list[Any], named: dict[str, Any]) -> None:
    positional[0] = str(SteppedLedger.newest)


@dataclass
class Time:
    """Goes on only when somebody waits, or an hour passes."""

    now: datetime

    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@dataclass
class Kept:
    """An order at the venue."""

    order: Order
    status: str = "open"
    executions: list[Execution] = field(default_factory=list)
    hidden: int = 0
    """Look-ups that do not find it yet."""

    @property
    def left(self) -> Decimal:
        return self.order.quantity - sum((each.quantity for each in self.executions), Decimal(0))


# What the venue makes of the first request to place an order of each side; later ones succeed.
PLACE = ("ok", "rejected", "timeout_done", "timeout_not_done", "duplicate", "refused_but_done", "late")
# When and how far orders are executed.
FILLS = ("at_once", "next_hour", "half", "never")
# The first look-ups of each of the first hours: before an order is sent, or of one that was.
LOOK_UP = ("ok", "fails_before", "fails_once", "fails_often")
# The first request to cancel.
CANCEL = ("ok", "timeout_done", "timeout_not_done", "too_late")


@dataclass
class FaultyVenue:
    """Implements the broker's protocol; what it holds outlives every process."""

    time: Time
    place_mode: str = "ok"
    fill_mode: str = "at_once"
    look_up_mode: str = "ok"
    cancel_mode: str = "ok"
    fate: Fate = field(default_factory=Fate)
    cash: Decimal = Decimal(10_000)
    rounding: Decimal = Decimal(0)
    """What an execution costs more here than where it is calculated otherwise, USD."""
    kept: dict[str, Kept] = field(default_factory=dict)
    created: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """How many live orders each client id has ever had."""
    sides_placed: set[str] = field(default_factory=set)
    sent: set[str] = field(default_factory=set)
    """Client ids of all requests, whatever became of them."""
    cancels: int = 0
    failures: dict[datetime, int] = field(default_factory=lambda: defaultdict(int))
    hides: int = 0
    """Look-ups that do not find the next order, whatever its answer."""
    hour: datetime | None = None
    market: str = "a market"
    opened: set[datetime] = field(default_factory=set)

    @property
    def absence(self) -> AbsenceProof:
        return AbsenceProof(look_ups=3, span=timedelta(minutes=2))

    @property
    def immediate(self) -> bool:
        return True

    def open_hour(self, hour: datetime, quotes: Mapping[str, Quote]) -> None:
        self.hour = hour
        if hour not in self.opened:
            self.opened.add(hour)
            for kept in self.kept.values():
                if kept.status == "open" and self.fill_mode == "next_hour":
                    self.execute(kept, kept.left)

    def limits(self, tokens: Iterable[str]) -> dict[str, OrderLimits]:
        return {token: OrderLimits(quantity_step=STEP, price_step=STEP, min_value=Decimal(5)) for token in tokens}

    def place(self, order: Order) -> Answer:
        mode = self.place_mode if order.side not in self.sides_placed else "ok"
        self.sides_placed.add(order.side)
        self.sent.add(order.order_id)
        if mode not in ("rejected", "timeout_not_done"):
            self.create(order, hidden=2 if mode == "late" else self.hides)
        self.fate.step(f"place {order.side}")
        if mode == "rejected":
            return Rejected("the venue does not want it")
        if mode in ("timeout_done", "timeout_not_done", "late"):
            raise TimeoutError("no answer in time")
        if mode == "refused_but_done":
            return Rejected("the venue says no, and has it")
        return Unknown("duplicate order") if mode == "duplicate" else Accepted(order.order_id)

    def create(self, order: Order, hidden: int) -> None:
        self.created[order.order_id] += 1
        assert order.order_id not in self.kept, "an order was sent twice"
        kept = self.kept[order.order_id] = Kept(order, hidden=hidden)
        # Sales are executed in full, or positions of the other modes would never end.
        if self.fill_mode == "at_once" or order.side == "sell":
            self.execute(kept, kept.left)
        elif self.fill_mode == "half":
            self.execute(kept, floor_to(kept.left / 2, STEP))

    def execute(self, kept: Kept, quantity: Decimal) -> None:
        order = kept.order
        value = paid(quantity, order.price) if order.side == "buy" else received(quantity, order.price)
        self.cash += (-value if order.side == "buy" else value) - self.rounding
        number = len(kept.executions) + 1
        # Purchases pay in the token, as many venues ask; sales in dollars.
        in_token = quantity / 1000 if order.side == "buy" else Decimal(0)
        fee = Decimal(0) if order.side == "buy" else Decimal("0.123")
        self.cash -= fee
        kept.executions.append(
            Execution(trade_id=f"t{number}", price=order.price, quantity=quantity, fee=fee, fee_in_token=in_token)
        )
        if kept.left == 0:
            kept.status = "filled"

    def look_up(self, order: Order) -> Report | None:
        self.fail(order)
        kept = self.kept.get(order.order_id)
        if kept is None:
            return None
        if kept.hidden:
            kept.hidden -= 1
            return None
        return Report(venue_id=order.order_id, status=kept.status, executions=tuple(kept.executions))  # type: ignore[arg-type]

    def fail(self, order: Order) -> None:
        limit = {"ok": 0, "fails_before": 1, "fails_once": 1, "fails_often": 4}[self.look_up_mode]
        meant = (order.order_id in self.sent) == (self.look_up_mode != "fails_before")
        first_hours = len(self.opened) <= 3
        if self.hour and first_hours and meant and self.failures[self.hour] < limit:
            self.failures[self.hour] += 1
            raise TemporaryError("the venue cannot be read")

    def cancel(self, order: Order) -> None:
        kept = self.kept.get(order.order_id)
        mode = self.cancel_mode if self.cancels == 0 else "ok"
        self.cancels += 1
        if kept and kept.status == "open":
            if mode == "too_late":
                self.execute(kept, kept.left)
            elif mode != "timeout_not_done":
                kept.status = "cancelled"
        self.fate.step("cancel")
        if mode.startswith("timeout"):
            raise TemporaryError("no answer to the cancellation")

    def address(self, order: Order) -> str:
        return self.market

    def spelling(self, order_id: str) -> str:
        return f"x-{order_id[:20]}"

    def open_orders(self) -> list[VenueOrder]:
        return [
            VenueOrder(venue_id=key, order_id=self.spelling(key), token=kept.order.token, description=f"order {key}")
            for key, kept in self.kept.items()
            if kept.status == "open"
        ]

    def balances(self) -> Balances:
        tokens: dict[str, Decimal] = defaultdict(Decimal)
        for kept in self.kept.values():
            for each in kept.executions:
                sign = 1 if kept.order.side == "buy" else -1
                tokens[kept.order.token] += sign * each.quantity - each.fee_in_token
        return Balances(self.cash, {token: amount for token, amount in tokens.items() if amount})
