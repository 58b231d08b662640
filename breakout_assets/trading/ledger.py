"""The durable record of an account: hours, orders, what became of them, prices of holdings, and mails to be sent.

Rows are added, never changed; only the delivery state of a mail is. Cash, positions and profit are folds over the
fills. One database may hold several accounts.
"""

import os
import sqlite3
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, Dialect, Engine

from breakout_assets.errors import DataError, TemporaryError
from breakout_assets.trading.money import plain
from breakout_assets.trading.portfolio import Cancellation, Fill, Mark, Order, Portfolio, fold, holdings

# Transactions take milliseconds; a writer that waits longer than this is waiting for one that hangs.
BUSY_SECONDS: Final = 30


class Exact(sa.types.TypeDecorator[Decimal]):
    """A decimal as text, since SQLite would keep it as a binary float."""

    impl = sa.String
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> str | None:
        """To the database."""
        return None if value is None else plain(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Decimal | None:
        """From the database."""
        return None if value is None else Decimal(value)


schema: Final = sa.MetaData()

accounts: Final = sa.Table(
    "accounts",
    schema,
    sa.Column("account", sa.String, primary_key=True),
    sa.Column("opening_cash", Exact, nullable=False),
)
hours: Final = sa.Table(
    "hours",
    schema,
    sa.Column("account", sa.ForeignKey("accounts.account"), primary_key=True),
    sa.Column("hour", sa.DateTime, primary_key=True),
    sa.Column("health", sa.String, nullable=False),
    sa.Column("outcome", sa.String, nullable=False),
    sa.Column("traded_at", sa.DateTime, nullable=False),
)
orders: Final = sa.Table(
    "orders",
    schema,
    sa.Column("order_id", sa.String, primary_key=True),
    sa.Column("account", sa.ForeignKey("accounts.account"), nullable=False),
    sa.Column("hour", sa.DateTime, nullable=False),
    sa.Column("token", sa.String, nullable=False),
    sa.Column("side", sa.String, sa.CheckConstraint("side IN ('buy', 'sell')"), nullable=False),
    sa.Column("purpose", sa.String, nullable=False),
    sa.Column("quantity", Exact, nullable=False),
    sa.Column("price", Exact, nullable=False),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("position", sa.ForeignKey("orders.order_id")),
    sa.Column("model_hash", sa.String),
    sa.Column("probability", sa.Float),
    sa.Index("orders_by_hour", "account", "hour"),
)
# An order's status is its last event; an order that has not ended is open.
order_events: Final = sa.Table(
    "order_events",
    schema,
    sa.Column("order_id", sa.ForeignKey("orders.order_id"), primary_key=True),
    sa.Column(
        "status", sa.String, sa.CheckConstraint("status IN ('submitted', 'filled', 'cancelled')"), primary_key=True
    ),
    sa.Column("hour", sa.DateTime, nullable=False),
    sa.Column("reason", sa.String),
    sa.Index(
        "an_order_ends_once",
        "order_id",
        unique=True,
        sqlite_where=sa.text("status IN ('filled', 'cancelled')"),
        postgresql_where=sa.text("status IN ('filled', 'cancelled')"),
    ),
)
fills: Final = sa.Table(
    "fills",
    schema,
    sa.Column("order_id", sa.ForeignKey("orders.order_id"), primary_key=True),
    sa.Column("hour", sa.DateTime, nullable=False),
    sa.Column("price", Exact, nullable=False),
    sa.Column("quantity", Exact, nullable=False),
    sa.Column("fee", Exact, nullable=False),
    sa.Column("note", sa.String),
)
# What holdings were worth in an hour: without it the equity of a past hour could not be told again.
marks: Final = sa.Table(
    "marks",
    schema,
    sa.Column("account", sa.ForeignKey("accounts.account"), primary_key=True),
    sa.Column("token", sa.String, primary_key=True),
    sa.Column("hour", sa.DateTime, primary_key=True),
    sa.Column("price", Exact, nullable=False),
)
mails: Final = sa.Table(
    "mails",
    schema,
    sa.Column("message_id", sa.String, primary_key=True),
    sa.Column("hour", sa.DateTime, nullable=False),
    sa.Column("recipients", sa.String, nullable=False),
    sa.Column("subject", sa.String, nullable=False),
    sa.Column("text_body", sa.String, nullable=False),
    sa.Column("html_body", sa.String, nullable=False),
    sa.Column("sent", sa.Boolean, nullable=False, default=False),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("last_error", sa.String),
)


@dataclass(frozen=True, kw_only=True)
class Mail:
    """A mail of the outbox."""

    message_id: str
    hour: datetime
    recipients: tuple[str, ...]
    subject: str
    text_body: str
    html_body: str


@dataclass(frozen=True)
class Books:
    """The rows of one account, inside a transaction."""

    connection: Connection
    account: str

    # Writing ---------------------------------------------------------------------------------------------------

    def open_account(self, opening_cash: Decimal) -> None:
        """Begin the account."""
        self._insert(accounts, account=self.account, opening_cash=opening_cash)

    def submit(self, order: Order) -> None:
        """Record a new order."""
        self._insert(orders, account=self.account, **vars(order))
        self._insert(order_events, order_id=order.order_id, status="submitted", hour=order.hour, reason=order.reason)

    def fill(self, fill: Fill) -> None:
        """Record the execution of an order."""
        row = {name: value for name, value in vars(fill).items() if name != "side"}  # it is the order's
        self._insert(fills, **row)
        self._insert(order_events, order_id=fill.order_id, status="filled", hour=fill.hour, reason=fill.note)

    def cancel(self, end: Cancellation) -> None:
        """Record that an order ended without a fill."""
        self._insert(order_events, status="cancelled", **vars(end))

    def mark(self, hour: datetime, prices: Mapping[str, Decimal]) -> None:
        """Record the believed prices of tokens that are held."""
        for token, price in prices.items():
            self._insert(marks, account=self.account, token=token, hour=hour, price=price)

    def close_hour(self, hour: datetime, health: str, outcome: str, now: datetime) -> None:
        """Record that an hour has been traded."""
        self._insert(hours, account=self.account, hour=hour, health=health, outcome=outcome, traded_at=now)

    def post(self, mail: Mail) -> None:
        """Put a mail into the outbox."""
        self._insert(mails, **{**vars(mail), "recipients": ", ".join(mail.recipients)})

    def post_once(self, mail: Mail) -> None:
        """Put a mail into the outbox, unless it has ever been there."""
        known = sa.select(mails.c.message_id).where(mails.c.message_id == mail.message_id)
        if self.connection.scalar(known) is None:
            self.post(mail)

    def _insert(self, table: sa.Table, **values: Any) -> None:
        self.connection.execute(table.insert().values(**values))

    # Reading ---------------------------------------------------------------------------------------------------

    def opening_cash(self) -> Decimal | None:
        """What the account began with; null before its first hour."""
        query = sa.select(accounts.c.opening_cash).where(accounts.c.account == self.account)
        return self.connection.scalar(query)

    def outcome(self, hour: datetime) -> str | None:
        """What was said when an hour was traded; null if it was not."""
        query = sa.select(hours.c.outcome).where(hours.c.account == self.account, hours.c.hour == hour)
        return self.connection.scalar(query)

    def newest_hour(self) -> datetime | None:
        """The last hour that was traded."""
        query = sa.select(sa.func.max(hours.c.hour)).where(hours.c.account == self.account)
        newest: datetime | None = self.connection.scalar(query)
        return newest

    def orders(self, until: datetime) -> list[Order]:
        """Orders decided up to an hour, oldest first."""
        query = (
            sa.select(*(column for column in orders.c if column is not orders.c.account))
            .where(orders.c.account == self.account, orders.c.hour <= until)
            .order_by(orders.c.hour, orders.c.order_id)
        )
        return [Order(**row) for row in self.connection.execute(query).mappings()]

    def fills(self, until: datetime) -> dict[str, Fill]:
        """Fills up to an hour, by order id."""
        query = (
            sa.select(fills, orders.c.side)
            .join(orders, orders.c.order_id == fills.c.order_id)
            .where(orders.c.account == self.account, fills.c.hour <= until)
        )
        return {row["order_id"]: Fill(**row) for row in self.connection.execute(query).mappings()}

    def cancellations(self, until: datetime) -> dict[str, Cancellation]:
        """Cancellations up to an hour, by order id."""
        query = (
            sa.select(order_events.c.order_id, order_events.c.hour, order_events.c.reason)
            .join(orders, orders.c.order_id == order_events.c.order_id)
            .where(
                orders.c.account == self.account,
                order_events.c.status == "cancelled",
                order_events.c.hour <= until,
            )
        )
        return {row["order_id"]: Cancellation(**row) for row in self.connection.execute(query).mappings()}

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

    def portfolio(self, hour: datetime, opening_cash: Decimal) -> Portfolio:
        """The account as it was at the end of an hour; `opening_cash` holds if it has not begun yet."""
        known, executed = self.orders(hour), self.fills(hour)
        return fold(
            account=self.account,
            hour=hour,
            opening_cash=self.opening_cash() or opening_cash,
            orders=known,
            fills=executed,
            cancelled=frozenset(self.cancellations(hour)),
            marks=self.marks(sorted(order.token for order in holdings(known, executed)), hour),
        )


class Ledger:
    """A ledger in an SQLite file, which is made when it is first used. Safe to share between processes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # Without a pool no connection outlives its transaction or is carried into another process by a fork.
        self.engine: Engine = sa.create_engine(sa.URL.create("sqlite", database=str(path)), poolclass=sa.NullPool)
        self._ready = False
        event.listen(self.engine, "connect", _configure)
        event.listen(self.engine, "begin", _begin)

    @contextmanager
    def write(self, account: str) -> Iterator[Books]:
        """One write transaction: all of it is kept or nothing. Other writers wait, readers do not.

        Raises:
            TemporaryError: another process has been writing for 30 s.
            DataError: the file cannot be opened or written, or is not a ledger.
        """
        with self._transaction(immediate=True) as connection:
            yield Books(connection, account)

    @contextmanager
    def read(self, account: str) -> Iterator[Books]:
        """One read transaction: a consistent view; raises what `write` raises."""
        with self._transaction(immediate=False) as connection:
            yield Books(connection, account)

    def pending_mails(self) -> list[Mail]:
        """Mails not accepted by a server yet: fewest attempts first, so that one bad mail never holds up the rest."""
        query = (
            sa.select(*(mails.c[name] for name in Mail.__dataclass_fields__))
            .where(mails.c.sent.is_(False))
            .order_by(mails.c.attempts, mails.c.hour, mails.c.message_id)
        )
        with self._transaction(immediate=False) as connection:
            rows = connection.execute(query).mappings().all()
        return [Mail(**{**row, "recipients": tuple(row["recipients"].split(", "))}) for row in rows]

    def record_attempt(self, message_id: str, sent: bool, error: str | None) -> None:
        """What became of an attempt to send a mail."""
        change = sa.update(mails).where(mails.c.message_id == message_id)
        with self._transaction(immediate=True) as connection:
            connection.execute(change.values(sent=sent, attempts=mails.c.attempts + 1, last_error=error))

    @contextmanager
    def sole_delivery(self) -> Iterator[bool]:
        """Whether this process may send mails: one at a time, and false if another has been sending for 30 s.

        The lock ends with the process that holds it, even with a killed one. A lock of the ledger itself would block
        trading for as long as a mail server keeps one waiting.
        """
        self._prepare()
        with closing(sqlite3.connect(f"{self.path}.delivery", timeout=BUSY_SECONDS, isolation_level=None)) as lock:
            try:
                lock.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError:
                free = False
            else:
                free = True
            yield free

    @contextmanager
    def _transaction(self, immediate: bool) -> Iterator[Connection]:
        self._prepare()
        with self._begun(immediate) as connection:
            yield connection

    def _prepare(self) -> None:
        if self._ready:
            return
        try:
            if not self.path.exists():
                self._create_file()
        except OSError as error:
            raise self._unusable(error) from error
        with self._begun(immediate=True) as connection:
            schema.create_all(connection)
        self._ready = True

    def _create_file(self) -> None:
        # The mode belongs to the file, and a process that sets it while another one uses the file fails at once
        # instead of waiting. So the file appears only when it has its mode; the first of several processes wins.
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex}.part")
        try:
            with closing(sqlite3.connect(part)) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
            with suppress(FileExistsError):
                os.link(part, self.path)  # unlike a rename, a link never replaces
        finally:
            part.unlink(missing_ok=True)

    @contextmanager
    def _begun(self, immediate: bool) -> Iterator[Connection]:
        try:
            with self.engine.connect() as plain_connection:
                connection = plain_connection.execution_options(immediate=immediate)
                with connection.begin():
                    yield connection
        except (sa.exc.IntegrityError, sa.exc.ProgrammingError, sa.exc.DataError):
            raise  # a broken rule of the schema is a fault of this program, not of the file
        except sa.exc.DatabaseError as error:
            if "locked" not in str(error.orig):
                raise self._unusable(error.orig) from error
            raise TemporaryError(
                f"the ledger {self.path} has been in use by another process for {BUSY_SECONDS} s; try again"
            ) from error

    def _unusable(self, cause: BaseException | None) -> DataError:
        return DataError(
            f"the ledger {self.path} cannot be used ({cause}); check BREAKOUT_LEDGER, disk and permissions"
        )


def _configure(connection: sqlite3.Connection, record: object) -> None:
    connection.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")  # what was committed survives a power cut


def _begin(connection: Connection) -> None:
    # Writers queue at the start. A transaction that read first and wrote later could neither wait nor go on.
    immediate = connection.get_execution_options().get("immediate", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
