"""Older ledgers are brought to the newest schema, and newer ones are left alone."""

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from breakout_assets.errors import DataError
from breakout_assets.trading.adjustments import Adjustment
from breakout_assets.trading.brokers import Quote
from breakout_assets.trading.ledger import Ledger
from breakout_assets.trading.paper import PaperBroker
from breakout_assets.trading.schema import REVISION, schema, version
from breakout_assets_tests.trading.oldledger import make_old_ledger, make_old_schema, old_engine
from breakout_assets_tests.trading.support import RULES, Account, at, dump

# Alembic gives a column that only refers to another one no type, and then makes no table of it.


@pytest.fixture
def old(tmp_path: Path) -> Path:
    make_old_ledger(tmp_path)
    return tmp_path


def test_the_newest_revision_is_the_one_that_the_program_knows() -> None:
    config = Config()
    config.set_main_option("script_location", "breakout_assets.trading:migrations")
    assert ScriptDirectory.from_config(config).get_heads() == [REVISION]


def test_an_older_ledger_says_the_same_of_the_account_as_before(old: Path) -> None:
    with Account(old).ledger.read("paper") as books:
        portfolio = books.portfolio(at(170), Decimal(1))
        assert books.connection.scalar(sa.select(version.c.version_num)) == REVISION
        statuses, opening = books.statuses(at(170)), books.opening_cash()
        told = {
            fill.order_id: (str(fill.price), str(fill.quantity), fill.fee, fill.hour) for fill in books.fills(at(170))
        }
        before = books.portfolio(at(120), Decimal(1))
        reasons = [event.reason for event in books.events(order_id="in-B")]
    assert opening == 10_000
    assert statuses == {
        "in-D": "filled",
        "in-A": "filled",
        "in-B": "cancelled",
        "out-D": "filled",
        "in-C": "accepted",
        "out-A": "accepted",
    }
    fee = Decimal("0.015")
    assert told == {
        "in-D": ("5.0250", "10.00000000", fee, at(1)),
        "in-A": ("3.0150", "10.00000000", fee, at(51)),
        "out-D": ("5.9700", "10.00000000", fee, at(121)),
    }
    assert portfolio.cash == 10_000 - Decimal("50.265") - Decimal("30.165") + Decimal("59.685")
    assert portfolio.realised_profit == Decimal("59.685") - Decimal("50.265")
    [held] = portfolio.positions
    assert (held.order_id, held.quantity, held.cost, held.mark.price) == (
        "in-A",
        Decimal(10),
        Decimal("30.165"),
        Decimal(4),
    )
    assert (held.decided_hour, held.entered_hour) == (at(50), at(51))
    assert [each.order.order_id for each in portfolio.open_orders] == ["in-C", "out-A"]
    assert all(each.order.limit == each.order.price and each.filled == 0 for each in portfolio.open_orders)
    assert portfolio.equity == portfolio.cash + 40
    assert portfolio.left == {"D": at(121)}
    assert [position.token for position in before.positions] == ["A", "D"]
    assert reasons[-1] == "it was cancelled"


def test_an_older_ledger_keeps_its_hours_and_mails(old: Path) -> None:
    ledger = Account(old).ledger
    assert [mail.subject for mail in ledger.pending_mails()] == ["s2"]
    with ledger.read("paper") as books:
        record = books.record(at(170))
        assert record is not None
        assert (record.outcome, record.equity, record.blocks, books.newest_hour()) == ("o", None, None, at(170))
    again = Account(old).trade(170, {"Z": 0.9}, {"Z": 1.0})
    assert (again.repeated, again.reason, again.blocks) == (True, "o", ())
    assert [each.order.order_id for each in again.outcomes] == ["out-A"]
    # The prices of hours that were traded then fill nothing a second time.
    venue = PaperBroker(ledger, "paper", RULES)
    venue.open_hour(at(170), {"C": Quote(Decimal("1.5"), None)})
    assert [each.order_id for each in venue.open_orders()] == ["out-A", "in-C"]


def test_the_next_hour_of_an_older_ledger_goes_on_with_it(old: Path) -> None:
    account = Account(old)
    result = account.trade(171, {"E": 0.8}, {"A": 4.5, "C": 1.8, "E": 1.0})
    # Its venue and its ledger agree, so that entries go on.
    assert (result.blocks, result.refused) == ((), ())
    assert {each.order.order_id: each.status for each in result.outcomes if each.order.token != "E"} == {
        "in-C": "filled",
        "out-A": "filled",
    }
    assert [each.status for each in result.outcomes if each.order.token == "E"] == ["submitted"]
    assert [position.token for position in result.portfolio.positions] == ["C"]
    before = 10_000 - Decimal("50.265") - Decimal("30.165") + Decimal("59.685")
    assert result.portfolio.cash == before + sum(fill.cash_flow for each in result.outcomes for fill in each.fills)
    later = account.trade(172, {}, {"E": 1.0})
    assert [each.status for each in later.outcomes] == ["filled"]
    assert later.blocks == ()


def test_an_upgrade_that_fails_leaves_the_ledger_as_it_was(old: Path) -> None:
    ledger = Account(old).ledger
    with ledger.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE orders SET hour = 'never' WHERE order_id = 'out-A'")
        before = _everything(connection)
    with pytest.raises(ValueError, match="never"):
        ledger.pending_mails()
    with ledger.engine.begin() as connection:
        assert _everything(connection) == before
        connection.exec_driver_sql("UPDATE orders SET hour = ? WHERE order_id = 'out-A'", (f"{at(170)}.000000",))
    assert len(ledger.pending_mails()) == 1


def _everything(connection: sa.Connection) -> dict[str, list[Any]]:
    tables = sa.inspect(connection).get_table_names()
    return {name: list(connection.exec_driver_sql(f'SELECT * FROM "{name}"')) for name in tables}  # noqa: S608


def test_an_upgraded_schema_is_the_one_of_a_new_ledger(ledger_places: Callable[[], Path | str]) -> None:
    upgraded, new = ledger_places(), ledger_places()
    with old_engine(upgraded).begin() as connection:
        make_old_schema(connection)
    shapes = []
    for place in (upgraded, new):
        ledger = Account(place).ledger
        assert ledger.pending_mails() == []
        with ledger.engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert compare_metadata(context, schema) == []
            shapes.append(_shape(connection))
    assert shapes[0] == shapes[1]


def test_a_ledger_of_the_revision_before_goes_on_with_what_was_explained(ledger_place: Path | str) -> None:
    account = Account(ledger_place)
    account.trade(0, {"A": 0.8}, {"A": 1.0})
    beside = Adjustment(item="USD", amount=Decimal(7), at=at(0), by="me", reason="r")
    with account.ledger.write("paper") as books:
        books.adjust(beside)
        for table, column in (("order_events", "address"), ("adjustments", "hour")):
            books.connection.exec_driver_sql(f"ALTER TABLE {table} DROP COLUMN {column}")
        books.connection.execute(version.update().values(version_num="0002"))
    again = Account(ledger_place)
    with again.ledger.read("paper") as books:
        assert books.adjustments(at(0)) == [beside]
        assert dict(books.portfolio(at(0), Decimal(0)).beside) == {"USD": Decimal(7)}
        assert {event.address for event in books.events()} == {None}
        assert compare_metadata(MigrationContext.configure(books.connection), schema) == []


def _shape(connection: sa.Connection) -> dict[str, Any]:
    """What alembic does not compare: primary keys, conditions of indexes, checks."""
    inspector = sa.inspect(connection)
    return {
        name: {
            "columns": sorted((c["name"], str(c["type"]), c["nullable"]) for c in inspector.get_columns(name)),
            "key": inspector.get_pk_constraint(name)["constrained_columns"],
            "references": sorted(
                (k["constrained_columns"], k["referred_table"]) for k in inspector.get_foreign_keys(name)
            ),
            "checks": sorted(c["sqltext"] for c in inspector.get_check_constraints(name)),
            "indexes": sorted(
                (i["name"], i["column_names"], bool(i["unique"]), sorted(map(str, i["dialect_options"].values())))
                for i in inspector.get_indexes(name)
            ),
        }
        for name in inspector.get_table_names()
    }


def test_a_ledger_of_a_newer_program_is_refused_by_name_and_left_as_it_is(ledger_place: Path | str) -> None:
    ledger = Account(ledger_place).ledger
    Account(ledger_place).trade(0, {"A": 0.8}, {"A": 1.0})
    with ledger.engine.begin() as connection:
        connection.execute(version.update().values(version_num="0999"))
        before = _everything(connection)
    with pytest.raises(
        DataError, match=rf"newer version of this program \(schema 0999, this one knows {REVISION}\)"
    ) as said:
        Ledger(ledger.path or ledger.name).pending_mails()
    assert ledger.name in str(said.value)
    with ledger.engine.begin() as connection:
        assert _everything(connection) == before


def test_a_ledger_that_is_up_to_date_is_opened_without_a_change(ledger_place: Path | str) -> None:
    account = Account(ledger_place)
    account.trade(0, {"A": 0.8}, {"A": 1.0})
    before = dump(account.ledger)
    assert dump(Account(ledger_place, RULES).ledger) == before
