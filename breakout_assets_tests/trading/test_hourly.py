"""An hour of trading, from frames to the record: order of hours, fills, refusals, repetition."""

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from breakout_assets.errors import DataError, SettingsError
from breakout_assets.store import parquet_bytes
from breakout_assets.tables import TRADE_ORDERS
from breakout_assets.trading.hourly import HourResult, trade_hour
from breakout_assets.trading.rules import TradingRules
from breakout_assets.validation import check_orders
from breakout_assets_tests.trading.support import FREE_OF_COST, MAIL, RULES, Account, at, dump, predictions, prices


@pytest.fixture
def account(tmp_path: Path) -> Account:
    return Account(tmp_path)


def statuses(result: HourResult) -> list[tuple[str, str, str]]:
    frame = result.orders_frame()
    assert check_orders(frame) == {}
    return list(zip(frame["token"], frame["side"], frame["status"], strict=True))


def bought(account: Account, at_hour: int = 0) -> HourResult:
    """A is decided in one hour at 10 and filled in the next at 11."""
    account.trade(at_hour, {"A": 0.8}, {"A": 10.0})
    return account.trade(at_hour + 1, {}, {"A": 11.0})


def test_an_order_is_filled_at_the_price_of_the_next_hour_and_never_at_the_one_that_made_it(account: Account) -> None:
    first = account.trade(0, {"A": 0.8}, {"A": 10.0})
    assert statuses(first) == [("A", "buy", "submitted")]
    assert first.portfolio.cash == 10_000
    second = account.trade(1, {}, {"A": 11.0})
    [row] = second.orders_frame().to_dict("records")
    assert row["price"] == "11.0550"  # 11 x 1.005; at the price of the decision it would be 10.05
    assert (row["quantity"], row["fee"]) == ("20.00000000", "0.55275000")
    assert (row["decided_hour"], row["filled_hour"], row["timestamp"]) == (at(0), at(1), at(1))
    assert second.portfolio.cash == 10_000 - Decimal("221.1") - Decimal("0.55275")


def test_the_hour_of_the_fill_matters(tmp_path: Path) -> None:
    early, late = Account(tmp_path / "early"), Account(tmp_path / "late")
    for account in (early, late):
        account.trade(0, {"A": 0.8}, {"A": 10.0})
    early.trade(1, {}, {"A": 11.0})
    late.trade(1, {}, {})
    results = [account.trade(2, {}, {"A": 12.0}) for account in (early, late)]
    assert [result.portfolio.positions[0].fill.price for result in results] == [Decimal("11.055"), Decimal("12.06")]


def test_five_days_from_decision_to_decision(account: Account) -> None:
    bought(account)
    assert statuses(account.trade(119, {}, {"A": 12.0})) == []
    exit_hour = account.trade(120, {}, {"A": 12.0})
    assert statuses(exit_hour) == [("A", "sell", "submitted")]
    assert len(exit_hour.portfolio.positions) == 1
    assert exit_hour.portfolio.age(exit_hour.portfolio.positions[0]) == timedelta(hours=120)
    closed = account.trade(121, {}, {"A": 13.0})
    assert statuses(closed) == [("A", "sell", "filled")]
    [row] = closed.orders_frame().to_dict("records")
    assert row["price"] == "12.9350"
    assert closed.portfolio.positions == ()
    assert at(121) not in [
        hour for _, _, hour, _ in dump(account.ledger)["marks"]
    ]  # nothing is held, nothing is priced
    sale = Decimal("12.935") * 20
    profit = sale * (1 - RULES.fee) - Decimal("221.1") * (1 + RULES.fee)
    assert closed.portfolio.realised_profit == profit
    assert closed.portfolio.equity == closed.portfolio.cash == 10_000 + profit


def test_a_token_can_be_bought_again_in_the_hour_in_which_its_sale_is_filled(account: Account) -> None:
    bought(account)
    assert statuses(account.trade(120, {"A": 0.9}, {"A": 12.0})) == [("A", "sell", "submitted")]
    again = account.trade(121, {"A": 0.9}, {"A": 13.0})
    assert statuses(again) == [("A", "sell", "filled"), ("A", "buy", "submitted")]
    # The second holding is not valued at a price from the first, even where its own hour gave none.
    assert account.trade(122, {}, {"A": 14.0}).portfolio.positions[0].mark.price == 14


def test_missing_hours_delay_an_exit_and_lose_nothing(account: Account) -> None:
    bought(account)
    assert statuses(account.trade(300, {}, {"A": 12.0})) == [("A", "sell", "submitted")]


def test_an_entry_without_a_price_is_cancelled_after_six_hours_and_frees_its_token(account: Account) -> None:
    account.trade(0, {"A": 0.8}, {"A": 10.0})
    for hour in range(1, 6):
        assert statuses(account.trade(hour, {"A": 0.8}, {})) == []
    last = account.trade(6, {"A": 0.8}, {"B": 1.0})
    assert statuses(last) == [("A", "buy", "cancelled")]
    [row] = last.orders_frame().to_dict("records")
    assert row["reason"] == "no believed price of A for 6 hours"
    assert pd.isna(row["filled_hour"])
    assert statuses(account.trade(7, {"A": 0.8}, {"A": 10.0})) == [("A", "buy", "submitted")]


def test_an_exit_without_a_price_stays_open(account: Account) -> None:
    bought(account)
    account.trade(120, {}, {})
    for hour in range(121, 140):
        assert statuses(account.trade(hour, {}, {})) == []
    assert statuses(account.trade(140, {}, {"A": 5.0})) == [("A", "sell", "filled")]


def test_in_a_halted_hour_no_price_is_believed(account: Account) -> None:
    bought(account)
    account.trade(119, {"B": 0.8}, {"A": 12.0, "B": 1.0})
    halted = account.trade(120, {"C": 0.8}, {"A": 99.0, "B": 1.0, "C": 1.0}, health="HALTED")
    # The exit is due and is submitted, at the last price that was believed; nothing is filled or entered.
    assert statuses(halted) == [("A", "sell", "submitted")]
    assert halted.orders_frame()["price"].tolist() == ["12.0"]
    assert halted.portfolio.positions[0].mark.price == 12
    assert halted.reason == "HALTED: 0 filled, 0 cancelled, 1 submitted"
    after = account.trade(121, {"C": 0.8}, {"A": 12.0, "B": 1.0, "C": 1.0})
    assert statuses(after) == [("A", "sell", "filled"), ("B", "buy", "filled"), ("C", "buy", "submitted")]


def test_a_halted_hour_asks_nothing_of_its_prices(account: Account) -> None:
    assert account.trade(0, {}, {"A": -1.0}, health="HALTED").state == "traded"
    with pytest.raises(DataError, match="A has price"):
        account.trade(1, {}, {"A": -1.0}, health="REDUCE_ONLY")


def test_reduce_only_fills_and_leaves_but_never_enters(account: Account) -> None:
    bought(account)
    account.trade(119, {"B": 0.8}, {"A": 12.0, "B": 1.0})
    reduced = account.trade(120, {"C": 0.8}, {"A": 12.0, "B": 1.0, "C": 1.0}, health="REDUCE_ONLY")
    assert statuses(reduced) == [("B", "buy", "filled"), ("A", "sell", "submitted")]


def test_a_purchase_that_cash_no_longer_covers_is_reduced_and_says_so(tmp_path: Path) -> None:
    account = Account(tmp_path, replace(RULES, order_fraction=Decimal("0.9")))
    account.trade(0, {"A": 0.8}, {"A": 10.0})
    result = account.trade(1, {}, {"A": 20.0})
    [row] = result.orders_frame().to_dict("records")
    assert row["reason"].startswith("reduced from 900.00000000: 10,000.00 USD of cash")
    assert Decimal(row["quantity"]) < 500
    assert 0 <= result.portfolio.cash < Decimal("0.0001")


def test_sales_are_filled_before_purchases_that_need_their_money(tmp_path: Path) -> None:
    account = Account(tmp_path, replace(RULES, order_fraction=Decimal("0.5"), max_volume_share=Decimal(1)))
    account.trade(0, {"A": 0.8, "B": 0.7}, {"A": 1.0, "B": 1.0})
    account.trade(1, {}, {"A": 1.0, "B": 1.0})
    # A and B are sold at hour 121; the purchase of Z, decided at 121, is filled at 122 from what they brought.
    account.trade(120, {}, {"A": 1.0, "B": 1.0})
    both = account.trade(121, {"Z": 0.8}, {"A": 1.0, "Z": 1.0})
    assert statuses(both) == [("A", "sell", "filled"), ("Z", "buy", "submitted")]
    last = account.trade(122, {}, {"B": 1.0, "Z": 1.9})
    assert statuses(last) == [("B", "sell", "filled"), ("Z", "buy", "filled")]
    assert last.filled[1][1].note is None


def test_an_hour_trades_once_whatever_it_is_given_later(account: Account) -> None:
    bought(account)
    first = account.trade(2, {"B": 0.8}, {"A": 10.0, "B": 10.0})
    record = dump(account.ledger)
    retrained = predictions(at(2), {"B": 0.95, "C": 0.9}, model_hash="m2")
    rules = replace(RULES, cash=Decimal(5))
    again = trade_hour(
        account.ledger, at(2), retrained, prices({"B": 9.0, "C": 1.0}), "HALTED", rules, "paper", at(500), mail=MAIL
    )
    assert dump(account.ledger) == record
    assert again == first
    assert (first.repeated, again.repeated) == (False, True)
    assert parquet_bytes(again.orders_frame()) == parquet_bytes(first.orders_frame())


def test_an_hour_is_told_the_same_after_later_hours_have_traded(account: Account) -> None:
    results = [account.trade(0, {"A": 0.8, "B": 0.7}, {"A": 10.0, "B": 5.0})]
    results.append(account.trade(1, {"C": 0.7}, {"A": 11.0, "C": 2.0}))
    results += [account.trade(hour, {}, {"A": 12.0}) for hour in (2, 7, 119)]
    results.append(account.trade(120, {}, {"A": 11.0, "C": 3.0}))
    results.append(account.trade(121, {}, {"A": 14.0, "C": 3.0}))
    for hour, first in zip((0, 1, 2, 7, 119, 120, 121), results, strict=True):
        again = account.trade(hour)
        assert again == first
        assert parquet_bytes(again.orders_frame()) == parquet_bytes(first.orders_frame())
        pd.testing.assert_frame_equal(again.portfolio.positions_frame(), first.portfolio.positions_frame())


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
    assert bool(rows["hours"]) == bool(rows["orders"]) == bool(rows["accounts"]) == (state == "traded")


def test_the_age_limit_is_the_one_of_the_rules(tmp_path: Path) -> None:
    account = Account(tmp_path, TradingRules(max_age=timedelta(hours=5)))
    assert account.trade(0, late=timedelta(hours=5)).state == "traded"
    assert account.trade(1, late=timedelta(hours=5, seconds=1)).state == "refused"


def test_a_refusal_is_one_row_with_a_reason_and_no_order(account: Account) -> None:
    bought(account)
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


def test_an_hour_before_the_newest_one_is_refused_and_the_one_after_is_not(account: Account) -> None:
    account.trade(0, {"A": 0.8}, {"A": 10.0})
    account.trade(2, {}, {"A": 10.0})
    before = dump(account.ledger)
    refused = account.trade(1, {"B": 0.8}, {"A": 10.0, "B": 10.0}, late=timedelta(hours=1, minutes=5))
    assert refused.reason.startswith("refused: the hour 2024-03-01 01:00:00 is older than 2 hours, or a later one")
    assert dump(account.ledger) == before
    assert account.trade(3).state == "traded"


def test_an_hour_in_which_nothing_happens_is_an_empty_typed_frame(account: Account) -> None:
    frame = account.trade(0).orders_frame()
    assert frame.empty
    assert frame.dtypes.astype(str).to_dict() == TRADE_ORDERS
    positions = account.trade(0).portfolio.positions_frame()
    assert positions.empty
    assert positions.dtypes.astype(str)["age_hours"] == "int64"


def test_the_portfolio_is_told_in_full(account: Account) -> None:
    portfolio = bought(account).portfolio
    [row] = portfolio.positions_frame().to_dict("records")
    assert row == {
        "token": "A",
        "quantity": "20.00000000",
        "entry_price": "11.0550",
        "price": "11.0",
        "value": "220.00000000",
        "profit": "-1.65275000",
        "age_hours": 1,
        "decided_hour": pd.Timestamp(at(0)),
        "priced_hour": pd.Timestamp(at(1)),
    }
    assert portfolio.equity == 10_000 - Decimal("1.65275")
    assert portfolio.fees == Decimal("0.55275")
    assert portfolio.realised_profit == 0
    stale = account.trade(5).portfolio
    assert (stale.positions[0].mark.hour, stale.equity) == (at(1), portfolio.equity)


def test_an_order_keeps_the_model_and_the_probability_that_it_came_from(account: Account) -> None:
    account.trade(0, {"A": 0.8125}, {"A": 10.0})
    [row] = account.trade(1, {}, {"A": 11.0}).orders_frame().to_dict("records")
    assert (row["model_hash"], row["probability"]) == ("m1", 0.8125)
    assert row["reason"] == "probability 0.8125 reaches the threshold 0.6000; 2% of equity"


def test_an_account_cannot_change_what_it_began_with(account: Account) -> None:
    account.trade(0)
    account.rules = replace(RULES, cash=Decimal(9_999))
    with pytest.raises(SettingsError, match=r"began with 10000 USD, not with BREAKOUT_CASH=9999"):
        account.trade(1)


def test_accounts_in_one_ledger_trade_their_own_hours(account: Account) -> None:
    bought(account)
    other = trade_hour(
        account.ledger,
        at(1),
        predictions(at(1), {"A": 0.8}),
        prices({"A": 10.0}),
        "ACTIVE",
        FREE_OF_COST,
        "other",
        at(1),
    )
    assert statuses(other) == [("A", "buy", "submitted")]
    assert other.portfolio.positions == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hour": datetime.fromisoformat("2024-03-01T00:30")}, "not a whole hour"),
        ({"hour": datetime.fromisoformat("2024-03-01T00:00+00:00")}, "naive UTC"),
        ({"now": datetime.fromisoformat("2024-03-01T00:00+00:00")}, "naive UTC"),
        ({"account": ""}, "cannot name an account"),
        ({"account": "a|b"}, "cannot name an account"),
        ({"account": "a\nb"}, "cannot name an account"),
        ({"health_state": "FINE"}, "'FINE'; known are ACTIVE, REDUCE_ONLY, HALTED"),
        ({"predictions": predictions(at(1), {})}, "another hour"),
    ],
)
def test_malformed_arguments_are_refused_before_anything_is_written(
    account: Account, changes: dict[str, Any], message: str
) -> None:
    arguments: dict[str, Any] = {
        "hour": at(0),
        "predictions": predictions(at(0), {}),
        "prices": prices({}),
        "health_state": "ACTIVE",
        "rules": RULES,
        "account": "paper",
        "now": at(0),
    }
    with pytest.raises(DataError, match=message):
        trade_hour(account.ledger, **arguments | changes)
    assert not any(dump(account.ledger).values())


def test_one_mail_an_hour_tells_of_all_its_fills_and_none_is_written_without_fills_or_without_mail(
    tmp_path: Path,
) -> None:
    for folder, mail, expected in (("on", MAIL, 1), ("off", None, 0)):
        account = Account(tmp_path / folder, mail=mail)
        account.trade(0, {"A": 0.8, "B": 0.7}, {"A": 10.0, "B": 10.0})
        assert account.ledger.pending_mails() == []
        account.trade(1, {}, {"A": 10.0, "B": 10.0})
        account.trade(1, {}, {"A": 10.0, "B": 10.0})
        account.trade(2, {}, {"A": 10.0, "B": 10.0})
        mails = account.ledger.pending_mails()
        assert len(mails) == expected
        for mail_row in mails:
            assert mail_row.subject == "paper: 2 orders filled at 2024-03-01 01:00 UTC"
            assert all(f"token: {token}" in mail_row.text_body for token in "AB")
            assert all(f"<td>{token}</td>" in mail_row.html_body for token in "AB")
