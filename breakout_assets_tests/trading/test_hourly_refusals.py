"""Hours that do not trade, and signals that are not followed: each says why, and leaves nothing behind."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from breakout_assets.errors import DataError, SettingsError
from breakout_assets.store import parquet_bytes
from breakout_assets.tables import TRADE_ORDERS
from breakout_assets.trading.hourly import trade_hour
from breakout_assets.trading.paper import PaperBroker
from breakout_assets.trading.rules import TradingRules
from breakout_assets.validation import check_orders
from breakout_assets_tests.trading.support import RULES, Account, at, dump, predictions, prices


@pytest.fixture
def account(tmp_path: Path) -> Account:
    return Account(tmp_path)


@pytest.mark.parametrize(
    ("late", "state"),
    [
        (timedelta(0), "traded"),
        (timedelta(hours=2), "traded"),
        (timedelta(hours=2, microseconds=1), "refused"),
        (timedelta(days=400), "refused"),
        (timedelta(microseconds=-1), "refused"),
    ],
)
def test_an_hour_trades_from_its_beginning_to_the_age_limit(account: Account, late: timedelta, state: str) -> None:
    result = account.trade(0, {"A": 0.8}, {"A": 10.0}, late=late)
    assert result.state == state
    rows = dump(account.ledger)
    traded = state == "traded"
    assert bool(rows["hours"]) == bool(rows["orders"]) == bool(rows["accounts"]) == bool(rows["paper_orders"]) == traded


def test_the_age_limit_is_the_one_of_the_rules(tmp_path: Path) -> None:
    account = Account(tmp_path, TradingRules(max_age=timedelta(hours=5)))
    assert account.trade(0, late=timedelta(hours=5)).state == "traded"
    assert account.trade(1, late=timedelta(hours=5, seconds=1)).state == "refused"


def test_a_refusal_is_one_row_with_a_reason_and_no_order(account: Account) -> None:
    account.trade(0, {"A": 0.8}, {"A": 10.0})
    account.trade(1, {}, {"A": 10.0})
    before = dump(account.ledger)
    result = account.trade(2, {"B": 0.9}, {"A": 10.0, "B": 10.0}, late=timedelta(hours=3))
    assert dump(account.ledger) == before
    frame = result.orders_frame()
    assert check_orders(frame) == {}
    [row] = frame.to_dict("records")
    assert row["reason"] == (
        "refused: the hour 2024-03-01 02:00:00 is older than 2 hours, or a later one has been traded already; "
        "past hours never trade"
    )
    assert (row["status"], row["timestamp"]) == ("refused", at(2))
    assert frame.drop(columns=["status", "reason", "timestamp"]).isna().all(axis=None)
    assert frame.dtypes.astype(str).to_dict() == TRADE_ORDERS
    assert [position.token for position in result.portfolio.positions] == ["A"]
    later = account.trade(2, {"B": 0.9}, {"A": 10.0, "B": 10.0}, late=timedelta(days=9))
    assert parquet_bytes(later.orders_frame()) == parquet_bytes(frame)


def test_a_signal_that_is_not_followed_is_a_row_with_its_reason(account: Account) -> None:
    result = account.trade(0, {"A": 0.9, "B": 0.8}, {"A": (10.0, 5.0)})
    frame = result.orders_frame()
    assert check_orders(frame) == {}
    rows = frame[["token", "status", "reason"]].to_dict("records")
    assert [(row["token"], row["status"], row["reason"].split(":")[0]) for row in rows] == [
        ("A", "refused", "volume"),
        ("B", "refused", "no_price"),
    ]


def test_an_hour_before_the_newest_one_is_refused_and_the_one_after_is_not(account: Account) -> None:
    account.trade(0, {"A": 0.8}, {"A": 10.0})
    account.trade(2, {}, {"A": 10.0})
    before = dump(account.ledger)
    late = account.trade(1, {"B": 0.8}, {"A": 10.0, "B": 10.0}, late=timedelta(hours=1, minutes=5))
    assert late.reason.startswith("refused: the hour 2024-03-01 01:00:00 is older than 2 hours, or a later one")
    assert dump(account.ledger) == before
    assert account.trade(3).state == "traded"


def test_a_hundred_past_hours_place_nothing(account: Account) -> None:
    results = [account.trade(hour, {"A": 0.8}, {"A": 10.0}, late=timedelta(days=9)) for hour in range(100)]
    assert {result.state for result in results} == {"refused"}
    assert not any(rows for table, rows in dump(account.ledger).items() if table != "alembic_version")


def test_an_account_cannot_change_what_it_began_with(account: Account) -> None:
    account.trade(0)
    account.rules = replace(RULES, cash=Decimal(9_999))
    with pytest.raises(SettingsError, match=r"began with 10000 USD, not with BREAKOUT_CASH=9999"):
        account.trade(1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hour": datetime.fromisoformat("2024-03-01T00:30")}, "not a whole hour"),
        ({"hour": datetime.fromisoformat("2024-03-01T00:00+00:00")}, "naive UTC"),
        ({"now": lambda: datetime.fromisoformat("2024-03-01T00:00+00:00")}, "naive UTC"),
        ({"account": ""}, "cannot name an account"),
        ({"account": "a|b"}, "cannot name an account"),
        ({"account": "a\nb"}, "cannot name an account"),
        ({"account": "../b"}, "cannot name an account"),
        ({"health_state": "FINE"}, "'FINE'; known are ACTIVE, REDUCE_ONLY, HALTED"),
        ({"predictions": predictions(at(1), {})}, "another hour"),
    ],
)
def test_malformed_arguments_are_refused_before_anything_is_written(
    account: Account, changes: dict[str, Any], message: str
) -> None:
    now: Callable[[], datetime] = lambda: at(0)  # noqa: E731
    arguments: dict[str, Any] = {
        "hour": at(0),
        "predictions": predictions(at(0), {}),
        "prices": prices({}),
        "health_state": "ACTIVE",
        "rules": RULES,
        "account": "paper",
        "now": now,
        "broker": PaperBroker(account.ledger, "paper", RULES),
    }
    with pytest.raises(DataError, match=message):
        trade_hour(account.ledger, **arguments | changes)
    assert not any(rows for table, rows in dump(account.ledger).items() if table != "alembic_version")
