"""The database of the order ledger: SQLite in a file, or PostgreSQL by URL. Safe to share between processes."""

import os
import re
import sqlite3
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

from breakout_assets.errors import DataError, SettingsError, TemporaryError
from breakout_assets.trading.books import Books
from breakout_assets.trading.mails import Mail
from breakout_assets.trading.orders import Order
from breakout_assets.trading.schema import REVISION, mails, orders, schema, version

# Transactions take milliseconds; a writer that waits longer than this is waiting for one that hangs.
BUSY_SECONDS: Final = 30
# Locks of PostgreSQL are named by numbers. This one, "break" in letters' places, keeps clear of other programs' locks.
_LOCK_SPACE: Final = 0x62726561
_WRITER: Final = "writer"


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A mail on its way, and what its server has said so far."""

    mail: Mail
    settled: Mapping[str, int]
    """By recipient, the code of the answer that was the last word: 250, accepted, or 5xx, refused for good."""

    @property
    def waiting(self) -> list[str]:
        """Recipients that the mail is still to be sent to."""
        return [each for each in self.mail.recipients if each not in self.settled]


class Ledger:
    """A ledger; it is made, or brought to the newest schema, when it is first used."""

    def __init__(self, place: Path | str, password: Callable[[], str] = str) -> None:
        """Nothing is opened yet.

        Args:
            place: a file for SQLite, or `postgresql://user@host:port/database`.
            password: asked for whenever a connection to PostgreSQL is opened; empty leaves it to libpq (PGPASSWORD,
                ~/.pgpass).

        Raises:
            SettingsError: the URL holds a password, or the driver for PostgreSQL is not installed.
        """
        self.path = Path(place) if isinstance(place, Path) or "://" not in place else None
        self.name = str(place)
        self._ready = False
        # Without a pool no connection outlives its transaction or is carried into another process by a fork.
        if self.path:
            url = sa.URL.create("sqlite", database=str(self.path))
            self.engine: Engine = sa.create_engine(url, poolclass=sa.NullPool)
            event.listen(self.engine, "connect", _configure_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        else:
            self.engine = _postgres(str(place), password)

    @contextmanager
    def write(self, account: str) -> Iterator[Books]:
        """One write transaction: all of it is kept or nothing. Other writers wait, readers do not.

        Raises:
            TemporaryError: another process has been writing for 30 s, or the database cannot be reached now.
            DataError: the database cannot be used, or is not a ledger.
        """
        with self._transaction(immediate=True) as connection:
            yield Books(connection, account)

    @contextmanager
    def read(self, account: str) -> Iterator[Books]:
        """One read transaction: a consistent view; raises what `write` raises."""
        with self._transaction(immediate=False) as connection:
            yield Books(connection, account)

    def find_orders(self, beginning: str) -> list[tuple[str, Order]]:
        """Account and order of every id that begins so; two are enough to know that it is not one."""
        like = orders.c.order_id.startswith(beginning, autoescape=True)
        query = sa.select(orders.c.account, orders.c.order_id).where(like).order_by(orders.c.order_id).limit(2)
        with self._transaction(immediate=False) as connection:
            named = [(row.account, row.order_id) for row in connection.execute(query)]
            found = [(account, Books(connection, account).order(order_id)) for account, order_id in named]
        return [(account, order) for account, order in found if order is not None]

    # The outbox ------------------------------------------------------------------------------------------------

    def pending_mails(self) -> list[Mail]:
        """Mails that somebody still waits for: fewest attempts first, so that one bad mail never holds up the rest."""
        query = (
            sa.select(*_mail_columns())
            .where(mails.c.sent.is_(False))
            .order_by(mails.c.attempts, mails.c.hour, mails.c.message_id)
        )
        with self._transaction(immediate=False) as connection:
            return [_attempt(row).mail for row in connection.execute(query).mappings()]

    def begin_attempt(self, message_id: str) -> Attempt | None:
        """The mail as it is sent now; null if it was sent meanwhile. From here on its content stays as it is."""
        waiting = sa.and_(mails.c.message_id == message_id, mails.c.sent.is_(False))
        with self._transaction(immediate=True) as connection:
            connection.execute(sa.update(mails).where(waiting).values(attempts=mails.c.attempts + 1))
            row = connection.execute(sa.select(*_mail_columns()).where(waiting)).mappings().one_or_none()
        return None if row is None else _attempt(row)

    def end_attempt(self, attempt: Attempt, error: str | None) -> None:
        """What became of an attempt, `settled` as it now is: the mail is sent when nobody waits for it any more."""
        change = sa.update(mails).where(mails.c.message_id == attempt.mail.message_id)
        told = ", ".join(f"{each} {attempt.settled.get(each, '')}".rstrip() for each in attempt.mail.recipients)
        with self._transaction(immediate=True) as connection:
            connection.execute(change.values(recipients=told, sent=not attempt.waiting, last_error=error))

    # Locks -----------------------------------------------------------------------------------------------------

    @contextmanager
    def sole(self, name: str) -> Iterator[bool]:
        """Whether this process alone may do what `name` says: false if another has been doing it for 30 s.

        The lock ends with the process that holds it, even with a killed one. A lock of the ledger itself would block
        everybody for as long as a mail server or a venue keeps one waiting.
        """
        self._prepare()
        if self.path:
            lock, free = self._lock_file(f"{self.path}.{name}")
            with closing(lock):
                yield free
            return
        with self._reaching(), self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            try:
                _lock_postgres(connection, name, "pg_advisory_lock")
            except sa.exc.OperationalError as error:
                if not _is_busy(error):
                    raise
                free = False
            else:
                free = True
            yield free

    def _lock_file(self, path: str) -> tuple[sqlite3.Connection, bool]:
        """A file that is locked as long as the connection is open, and whether it could be had."""
        try:
            lock = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                return lock, False
            raise self._unusable(error) from error
        return lock, True

    # Transactions ----------------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self, immediate: bool) -> Iterator[Connection]:
        self._prepare()
        with self._begun(immediate) as connection:
            yield connection

    def _prepare(self) -> None:
        if self._ready:
            return
        try:
            if self.path and not self.path.exists():
                self._create_file(self.path)
        except OSError as error:
            raise self._unusable(error) from error
        with self._begun(immediate=False) as connection:
            current = _revision(connection)
        if current != REVISION:
            with self._begun(immediate=True) as connection:
                self._migrate(connection)
        self._ready = True

    def _migrate(self, connection: Connection) -> None:
        current = _revision(connection)  # another process may have been faster
        if current == REVISION:
            return
        if current is None:
            schema.create_all(connection)
            connection.execute(version.insert().values(version_num=REVISION))
        elif current > REVISION:
            raise DataError(
                f"the ledger {self.name} was written by a newer version of this program (schema {current}, this one "
                f"knows {REVISION}); update, and leave the ledger alone until then"
            )
        else:
            _upgrade(connection, current)

    def _create_file(self, path: Path) -> None:
        # The mode belongs to the file, and a process that sets it while another one uses the file fails at once
        # instead of waiting. So the file appears only when it has its mode; the first of several processes wins.
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
        try:
            with closing(sqlite3.connect(part)) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
            with suppress(FileExistsError):
                os.link(part, path)  # unlike a rename, a link never replaces
        finally:
            part.unlink(missing_ok=True)

    @contextmanager
    def _begun(self, immediate: bool) -> Iterator[Connection]:
        with self._reaching(), self.engine.connect() as plain_connection:
            if self.path:
                connection = plain_connection.execution_options(immediate=immediate)
            else:
                # A reader sees one moment; a writer, who is alone, what was committed before.
                level = "READ COMMITTED" if immediate else "REPEATABLE READ"
                connection = plain_connection.execution_options(isolation_level=level)
            with connection.begin():
                if immediate and not self.path:
                    _lock_postgres(connection, _WRITER, "pg_advisory_xact_lock")
                yield connection

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except (sa.exc.IntegrityError, sa.exc.ProgrammingError, sa.exc.DataError):
            raise  # a broken rule of the schema is a fault of this program, not of the database
        except sa.exc.DatabaseError as error:
            if _is_busy(error):
                raise TemporaryError(
                    f"the ledger {self.name} has been in use by another process for {BUSY_SECONDS} s; try again"
                ) from error
            if self.path is None and _is_passing(error):
                raise TemporaryError(f"the ledger {self.name} cannot be reached now; try again") from error
            raise self._unusable(error.orig) from error

    def _unusable(self, cause: BaseException | None) -> DataError:
        said = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
        place = "disk and permissions" if self.path else "server, database, user and BREAKOUT_LEDGER_PASSWORD"
        return DataError(f"the ledger {self.name} cannot be used ({said}); check BREAKOUT_LEDGER, {place}")


def _mail_columns() -> list[sa.Column[Any]]:
    return [mails.c[name] for name in Mail.__dataclass_fields__]


def _attempt(row: sa.RowMapping) -> Attempt:
    # An address has neither blank nor comma in it.
    codes = dict(each.partition(" ")[::2] for each in row["recipients"].split(", "))
    mail = Mail(**{**row, "recipients": tuple(codes)})
    return Attempt(mail=mail, settled={each: int(code) for each, code in codes.items() if code})


def _revision(connection: Connection) -> str | None:
    """The schema that a database has; null for an empty one."""
    tables = sa.inspect(connection).get_table_names()
    if version.name in tables:
        found: str | None = connection.scalar(sa.select(version.c.version_num))
        return found
    return "0001" if "order_events" in tables else None


def _upgrade(connection: Connection, current: str) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "breakout_assets.trading:migrations")
    config.attributes["connection"] = connection
    if version.name not in sa.inspect(connection).get_table_names():
        command.stamp(config, current)
    command.upgrade(config, "head")


def _is_busy(error: sa.exc.DatabaseError) -> bool:
    # SQLite says "database is locked"; PostgreSQL's code for a lock that was waited for too long is 55P03.
    return "locked" in str(error.orig) or getattr(error.orig, "sqlstate", None) == "55P03"


def _is_passing(error: sa.exc.DatabaseError) -> bool:
    """Whether a failure of PostgreSQL may pass by itself: no answer, rather than an answer that says no."""
    refused = re.search("authentication failed|does not exist|no password supplied|pg_hba", str(error.orig))
    return isinstance(error, sa.exc.OperationalError) and refused is None


def _configure_sqlite(connection: sqlite3.Connection, record: object) -> None:
    connection.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")  # what was committed survives a power cut


def _begin_sqlite(connection: Connection) -> None:
    # Writers queue at the start. A transaction that read first and wrote later could neither wait nor go on.
    immediate = connection.get_execution_options().get("immediate", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def _postgres(place: str, password: Callable[[], str]) -> Engine:
    url = sa.make_url(place)
    if url.password:
        raise SettingsError(
            "BREAKOUT_LEDGER must not hold a password, which logs would show; set BREAKOUT_LEDGER_PASSWORD"
        )
    try:
        engine = sa.create_engine(url.set(drivername="postgresql+psycopg"), poolclass=sa.NullPool)
    except ImportError:
        raise SettingsError(
            "a ledger in PostgreSQL needs its driver; install breakout_assets with the extra postgres"
        ) from None

    @event.listens_for(engine, "do_connect")
    def add_password(dialect: Any, record: Any, positional: Any, named: dict[str, Any]) -> None:
        if secret := password():
            named["password"] = secret

    return engine


def _lock_postgres(connection: Connection, name: str, function: str) -> None:
    connection.exec_driver_sql(f"SET lock_timeout = '{BUSY_SECONDS}s'")
    key = zlib.crc32(name.encode()) - 2**31  # a signed 32-bit number
    connection.exec_driver_sql(f"SELECT {function}({_LOCK_SPACE}, {key})")
