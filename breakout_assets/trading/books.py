"""The rows of one account inside a transaction of the ledger: what is written, and what can be asked."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from breakout_assets.market.health import HealthState
from breakout_assets.trading.adjustments import Adjustment
from breakout_assets.trading.mails import Mail
from breakout_assets.trading.orders import ENDED, Fill, Order, Report, Status
from breakout_assets.trading.portfolio import Mark, Portfolio, fold
from breakout_assets.trading.rules import HOUR
from breakout_assets.trading.schema import (
    accounts,
    adjustments,
    fills,
    hours,
    mails,
    marks,
    order_events,
    orders,
    refusals,
    switches,
)

# Events that tell of an order without changing its status: trades of it, look-ups that did not find it, and the first
# that did again.
EXECUTED: Final = "executed"
MISSED: Final = "missed"
SEEN: Final = "seen"
NO_STATUS: Final = (EXECUTED, MISSED, SEEN)
_ORDER_COLUMNS: Final = [column for column in orders.c if column is not orders.c.account]
# Hours without a price are counted no further: a month is as good as for ever.
_UNPRICED_HOURS: Final = 720


@dataclass(frozen=True, kw_only=True)
class OrderEvent:
    """A step in the life of an order."""

    sequence: int
    order_id: str
    status: str
    hour: datetime
    """The hour that was traded when it was recorded."""
    at: datetime
    reason: str | None
    venue_id: str | None
    address: str | None
    """Where it was sent: venue, market and account."""


@dataclass(frozen=True, kw_only=True)
class Switch:
    """A pull of the kill switch."""

    action: Literal["halt", "resume"]
    at: datetime
    by: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class HourRecord:
    """The decision of an hour. The JSON texts are null for hours of before they were kept."""

    hour: datetime
    health: str
    outcome: str
    traded_at: datetime
    equity: Decimal | None = None
    blocks: str | None = None
    rules: str | None = None
    limits: str | None = None
    inputs: str | None = None
    event: int | None = None


@dataclass(frozen=True)
class Books:
    """The rows of one account, inside a transaction."""

    connection: Connection
    account: str

    # Writing ---------------------------------------------------------------------------------------------------

    def open_account(self, opening_cash: Decimal) -> None:
        """Begin the account."""
        self._insert(accounts, account=self.account, opening_cash=opening_cash)

    def submit(self, order: Order, at: datetime) -> None:
        """Record a new order, as an intent: nothing has been sent."""
        self._insert(orders, account=self.account, **vars(order))
        self.event(order.order_id, "intent", order.hour, at, order.reason)

    def event(
        self,
        order_id: str,
        status: str,
        hour: datetime,
        at: datetime,
        reason: str | None = None,
        venue_id: str | None = None,
        address: str | None = None,
    ) -> int:
        """Record a step of an order; its number in the sequence of all steps."""
        step = {"order_id": order_id, "status": status, "hour": hour, "at": at}
        told = {"reason": reason, "venue_id": venue_id, "address": address}
        key = self.connection.execute(order_events.insert().values(**step, **told)).inserted_primary_key
        assert key is not None  # noqa: S101  an insert of one row has one
        return int(key[0])

    def book(self, order: Order, report: Report, hour: datetime, at: datetime) -> bool:
        """Record what the venue tells of an order; false if it is known already.

        Each execution is booked once, however often it is told, also when the order had been taken for ended.
        """
        query = sa.select(fills.c.trade_id).where(fills.c.order_id == order.order_id)
        known = set(self.connection.scalars(query))
        new = [trade for trade in report.executions if trade.trade_id not in known]
        if new:
            event = self.event(order.order_id, EXECUTED, hour, at, report.note, report.venue_id)
            for trade in new:
                self._insert(fills, order_id=order.order_id, event=event, hour=hour, **vars(trade))
        status = self.status(order.order_id)
        told: Status = "accepted" if report.status == "open" else report.status
        pending = told == "accepted" and status == "cancelling"
        if status not in ENDED and told != status and not pending:
            note = report.note or (self._asked_why(order.order_id) if told == "cancelled" else None)
            self.event(order.order_id, told, hour, at, note, report.venue_id)
            return True
        if not new and self._was_missed(order.order_id):
            self.event(order.order_id, SEEN, hour, at, venue_id=report.venue_id)
        return bool(new)

    def _was_missed(self, order_id: str) -> bool:
        """Whether the newest look-up of an order did not find it."""
        query = sa.select(order_events.c.status).where(order_events.c.order_id == order_id)
        return self.connection.scalar(query.order_by(order_events.c.sequence.desc()).limit(1)) == MISSED

    def _asked_why(self, order_id: str) -> str | None:
        """Why the end of an order was asked for first."""
        asked = [event for event in self.events(order_id=order_id) if event.status == "cancelling"]
        return asked[0].reason if asked else None

    def refuse(self, hour: datetime, token: str, code: str, reason: str) -> None:
        """Record that a signal was not followed, or that an exit could not be ordered."""
        self._insert(refusals, account=self.account, hour=hour, token=token, code=code, reason=reason)

    def mark(self, hour: datetime, prices: Mapping[str, Decimal]) -> None:
        """Record the believed prices of tokens that are held."""
        for token, price in prices.items():
            self._insert(marks, account=self.account, token=token, hour=hour, price=price)

    def close_hour(self, record: HourRecord) -> None:
        """Record that an hour has been decided."""
        self._insert(hours, account=self.account, **vars(record))

    def pull(self, switch: Switch) -> None:
        """Halt or resume."""
        self._insert(switches, account=self.account, **vars(switch))

    def adjust(self, adjustment: Adjustment) -> None:
        """Record an amount that is of no order of the account."""
        self._insert(adjustments, account=self.account, **vars(adjustment))

    def post(self, mail: Mail) -> None:
        """Put a mail into the outbox."""
        self._insert(mails, **{**vars(mail), "recipients": ", ".join(mail.recipients)})

    def post_once(self, mail: Mail) -> None:
        """Put a mail into the outbox, unless it has ever been there."""
        if self._attempts(mail) is None:
            self.post(mail)

    def post_hour(self, mail_of_part: Callable[[int], Mail]) -> None:
        """Write the mail of an hour, or write it anew while it has not been sent to anybody.

        What happens after that goes into another part, which has a Message-ID of its own.
        """
        part = 1
        while attempts := self._attempts(mail := mail_of_part(part)):
            part += 1
        if attempts is None:
            self.post(mail)
        else:
            content = {name: getattr(mail, name) for name in ("subject", "text_body", "html_body")}
            self.connection.execute(sa.update(mails).where(mails.c.message_id == mail.message_id).values(**content))

    def _attempts(self, mail: Mail) -> int | None:
        query = sa.select(mails.c.attempts).where(mails.c.message_id == mail.message_id)
        found: int | None = self.connection.scalar(query)
        return found

    def roll_back(self) -> None:
        """Forget what this transaction has written, which then is over."""
        self.connection.rollback()

    def _insert(self, table: sa.Table, **values: Any) -> None:
        self.connection.execute(table.insert().values(**values))

    # Reading ---------------------------------------------------------------------------------------------------

    def opening_cash(self) -> Decimal | None:
        """What the account began with; null before its first hour."""
        query = sa.select(accounts.c.opening_cash).where(accounts.c.account == self.account)
        return self.connection.scalar(query)

    def record(self, hour: datetime) -> HourRecord | None:
        """The decision of an hour; null if there is none."""
        columns = [hours.c[name] for name in HourRecord.__dataclass_fields__]
        query = sa.select(*columns).where(hours.c.account == self.account, hours.c.hour == hour)
        row = self.connection.execute(query).mappings().one_or_none()
        return None if row is None else HourRecord(**row)

    def newest_hour(self) -> datetime | None:
        """The last hour that was decided."""
        query = sa.select(sa.func.max(hours.c.hour)).where(hours.c.account == self.account)
        newest: datetime | None = self.connection.scalar(query)
        return newest

    def begun_hour(self) -> datetime | None:
        """The last hour in which something happened to an order, or that was decided."""
        query = (
            sa.select(sa.func.max(order_events.c.hour))
            .join(orders, orders.c.order_id == order_events.c.order_id)
            .where(orders.c.account == self.account)
        )
        known = [hour for hour in (self.connection.scalar(query), self.newest_hour()) if hour is not None]
        return max(known, default=None)

    def hour_before(self, hour: datetime) -> datetime | None:
        """The last hour that was decided before this one."""
        query = sa.select(sa.func.max(hours.c.hour)).where(hours.c.account == self.account, hours.c.hour < hour)
        before: datetime | None = self.connection.scalar(query)
        return before

    def equities(self, until: datetime) -> list[tuple[datetime, Decimal]]:
        """Equity after each hour's decision, oldest first; hours of before it was kept are left out."""
        query = (
            sa.select(hours.c.hour, hours.c.equity)
            .where(hours.c.account == self.account, hours.c.hour <= until, hours.c.equity.is_not(None))
            .order_by(hours.c.hour)
        )
        return [(row.hour, row.equity) for row in self.connection.execute(query)]

    def order(self, order_id: str) -> Order | None:
        """One order of the account."""
        found = self._orders(orders.c.order_id == order_id)
        return found[0] if found else None

    def orders(self, until: datetime) -> list[Order]:
        """Orders decided up to an hour, oldest first."""
        return self._orders(orders.c.hour <= until)

    def unended(self) -> list[tuple[Order, Status]]:
        """Every order that has not ended, with its status, oldest first."""
        newest = (
            sa.select(sa.func.max(order_events.c.sequence))
            .join(orders, orders.c.order_id == order_events.c.order_id)
            .where(orders.c.account == self.account, order_events.c.status.not_in(NO_STATUS))
            .group_by(order_events.c.order_id)
        )
        query = (
            sa.select(*_ORDER_COLUMNS, order_events.c.status)
            .join(order_events, order_events.c.order_id == orders.c.order_id)
            .where(order_events.c.sequence.in_(newest), order_events.c.status.not_in(ENDED))
            .order_by(orders.c.hour, orders.c.order_id)
        )
        rows = [dict(row) for row in self.connection.execute(query).mappings()]
        return [(Order(**row), status) for row in rows for status in [row.pop("status")]]

    def doubted_since(self, moment: datetime) -> list[Order]:
        """Orders that were taken for refused, or for never arrived, at that time or later, whatever came after."""
        query = sa.select(order_events.c.order_id).where(
            order_events.c.status.in_(("rejected", "absent")), order_events.c.at >= moment
        )
        return self._orders(orders.c.order_id.in_(query))

    def _orders(self, condition: sa.ColumnElement[bool]) -> list[Order]:
        query = (
            sa.select(*_ORDER_COLUMNS)
            .where(orders.c.account == self.account, condition)
            .order_by(orders.c.hour, orders.c.order_id)
        )
        return [Order(**row) for row in self.connection.execute(query).mappings()]

    def status(self, order_id: str) -> Status:
        """The status of an order: its last event that changes it."""
        query = (
            sa.select(order_events.c.status)
            .where(order_events.c.order_id == order_id, order_events.c.status.not_in(NO_STATUS))
            .order_by(order_events.c.sequence.desc())
            .limit(1)
        )
        status: Status = self.connection.execute(query).scalar_one()
        return status

    def statuses(self, until: datetime, event: int | None = None) -> dict[str, Status]:
        """The status of each order as of an hour, or as of an event."""
        newest = (
            sa.select(sa.func.max(order_events.c.sequence))
            .join(orders, orders.c.order_id == order_events.c.order_id)
            .where(orders.c.account == self.account, order_events.c.status.not_in(NO_STATUS))
            .where(self._as_of(until, event))
            .group_by(order_events.c.order_id)
        )
        query = sa.select(order_events.c.order_id, order_events.c.status).where(order_events.c.sequence.in_(newest))
        return {row.order_id: row.status for row in self.connection.execute(query)}

    def events(self, hour: datetime | None = None, order_id: str | None = None) -> list[OrderEvent]:
        """The steps that were recorded in an hour, or those of an order, in their sequence."""
        query = (
            sa.select(order_events)
            .join(orders, orders.c.order_id == order_events.c.order_id)
            .where(orders.c.account == self.account)
            .order_by(order_events.c.sequence)
        )
        if hour is not None:
            query = query.where(order_events.c.hour == hour)
        if order_id is not None:
            query = query.where(order_events.c.order_id == order_id)
        return [OrderEvent(**row) for row in self.connection.execute(query).mappings()]

    def last_event(self) -> int:
        """The newest step of all orders of the account; 0 if there is none."""
        query = (
            sa.select(sa.func.max(order_events.c.sequence))
            .join(orders, orders.c.order_id == order_events.c.order_id)
            .where(orders.c.account == self.account)
        )
        return self.connection.scalar(query) or 0

    def fills(self, until: datetime, event: int | None = None) -> list[Fill]:
        """Fills up to an hour, or up to an event, in the order in which they were booked."""
        columns = [column for column in fills.c if column is not fills.c.event]
        query = (
            sa.select(*columns, orders.c.side)
            .join(orders, orders.c.order_id == fills.c.order_id)
            .join(order_events, order_events.c.sequence == fills.c.event)
            .where(orders.c.account == self.account, self._as_of(until, event))
            .order_by(fills.c.event, fills.c.trade_id)
        )
        return [Fill(**row) for row in self.connection.execute(query).mappings()]

    def _as_of(self, until: datetime, event: int | None) -> sa.ColumnElement[bool]:
        # By hour for what is told of a past hour; by event for what a decision knew, since an exchange may execute an
        # order in the hour in which it was decided.
        return order_events.c.hour <= until if event is None else order_events.c.sequence <= event

    def refused(self, hour: datetime) -> list[tuple[str, str, str]]:
        """Token, code and reason of what was not ordered in an hour: signals, and exits that could not be."""
        query = (
            sa.select(refusals.c.token, refusals.c.code, refusals.c.reason)
            .where(refusals.c.account == self.account, refusals.c.hour == hour)
            .order_by(refusals.c.token, refusals.c.code)
        )
        return [(row.token, row.code, row.reason) for row in self.connection.execute(query)]

    def marks(self, tokens: Sequence[str], until: datetime) -> dict[str, Mark]:
        """The newest price of each token up to an hour."""
        newest = (
            sa.select(marks.c.token, sa.func.max(marks.c.hour).label("hour"))
            .where(marks.c.account == self.account, marks.c.token.in_(tokens), marks.c.hour <= until)
            .group_by(marks.c.token)
            .subquery()
        )
        query = sa.select(marks.c.token, marks.c.price, marks.c.hour).join(
            newest, sa.and_(newest.c.token == marks.c.token, newest.c.hour == marks.c.hour)
        )
        found = self.connection.execute(query.where(marks.c.account == self.account))
        return {row.token: Mark(price=row.price, hour=row.hour) for row in found}

    def switches(self) -> list[Switch]:
        """Every pull of the kill switch, oldest first."""
        columns = [switches.c[name] for name in Switch.__dataclass_fields__]
        query = sa.select(*columns).where(switches.c.account == self.account).order_by(switches.c.sequence)
        return [Switch(**row) for row in self.connection.execute(query).mappings()]

    def adjustments(self, until: datetime) -> list[Adjustment]:
        """Amounts that are of no order of the account, up to what came after an hour, oldest first."""
        columns = [adjustments.c[name] for name in Adjustment.__dataclass_fields__]
        known = sa.or_(adjustments.c.hour.is_(None), adjustments.c.hour <= until)
        query = sa.select(*columns).where(adjustments.c.account == self.account, known).order_by(adjustments.c.sequence)
        return [Adjustment(**row) for row in self.connection.execute(query).mappings()]

    def portfolio(self, hour: datetime, opening_cash: Decimal, event: int | None = None) -> Portfolio:
        """The account as it was at the end of an hour; `opening_cash` holds if it has not begun yet.

        With `event`: as the decision of the hour saw it, before that hour's prices were marked.
        """
        until = hour if event is None else hour - HOUR
        known = self.orders(hour)
        statuses = self.statuses(hour, event)
        known = [order for order in known if order.order_id in statuses]
        return fold(
            account=self.account,
            hour=hour,
            opening_cash=self.opening_cash() or opening_cash,
            orders=known,
            statuses=statuses,
            fills=self.fills(hour, event),
            marks=self.marks(sorted({order.token for order in known}), until),
            priced_hours=self._priced_hours(until),
            adjustments=self.adjustments(until),
        )

    def _priced_hours(self, until: datetime) -> list[datetime]:
        query = sa.select(hours.c.hour).where(
            hours.c.account == self.account, hours.c.health != HealthState.HALTED, hours.c.hour <= until
        )
        return list(self.connection.scalars(query.order_by(hours.c.hour.desc()).limit(_UNPRICED_HOURS)))
