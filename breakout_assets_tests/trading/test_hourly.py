"""An hour of trading, from frames to the record: order of hours, fills, refusals, repetition."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pytest

from breakout_assets.errors import DataError
from breakout_assets.store import parquet_bytes
from breakout_assets.tables import TRADE_ORDERS
from breakout_assets.trading.hourly import trade_hour
from breakout_assets.trading.money import plain
from breakout_assets.trading.outcome import HourResult
from breakout_assets.trading.paper import PaperBroker
from breakout_assets.validation import check_orders
from breakout_assets_tests.trading.support import FREE_OF_COST, MAIL, RULES, Account, at, dump, predictions, prices


@pytest.fixture
def account(tmp_path: Path) -> Account:
    """Pays no costs, so that a fill's price is the one of the snapshot."""
    return Account(tmp_path, FREE_OF_COST)


@pytest.fixture
def either(ledger_place: Path | str) -> Account:
    """The same, on SQLite and on PostgreSQL: for whatever depends on how amounts, times and order are kept."""
    return Account(ledger_place, FREE_OF_COST)


def statuses(result: HourResult) -> list[tuple[str, str, str]]:
    frame = result.orders_frame()
    assert check_orders(frame) == {}
    orders = frame[frame["status"] != "refused"]
    return list(zip(orders["token"], orders["side"], orders["status"], strict=True))


def refused(result: HourResult) -> list[tuple[str, str]]:
    return [(token, code) for token, code, _ in result.refused]


def bought(account: Account, at_hour: int = 0) -> HourResult:
    """A is decided in one hour at 10 and filled in the next at 10.4."""
    account.trade(at_hour, {"A": 0.8}, {"A": 10.0})
    return account.trade(at_hour + 1, {}, {"A": 10.4})


def test_an_order_is_filled_at_the_price_of_the_next_hour_and_never_at_the_one_that_made_it(
    ledger_place: Path | str,
) -> None:
    account = Account(ledger_place)
    first = account.trade(0, {"A": 0.8}, {"A": 10.0})
    assert statuses(first) == [("A", "buy", "submitted")]
    assert first.portfolio.cash == 10_000
    # 208 USD are a quarter of the largest order at this volume, and move the price by half of the slippage.
    second = account.trade(1, {}, {"A": (10.4, 832_000.0)})
    [row] = second.orders_frame().to_dict("records")
    assert Decimal(row["price"]) == Decimal("10.4312")  # 10.4 x (1 + 0.001 + 0.002)
    assert (row["quantity"], row["fee"]) == ("20.00000000", "0.52156000")
    assert (row["decided_hour"], row["filled_hour"], row["timestamp"]) == (at(0), at(1), at(1))
    assert second.portfolio.cash == 10_000 - Decimal("208.624") - Decimal("0.52156")


def test_the_hour_of_the_fill_matters(tmp_path: Path) -> None:
    early, late = Account(tmp_path / "early", FREE_OF_COST), Account(tmp_path / "late", FREE_OF_COST)
    for account in (early, late):
        account.trade(0, {"A": 0.8}, {"A": 10.0})
    early.trade(1, {}, {"A": 10.1})
    late.trade(1, {}, {})
    results = [account.trade(2, {}, {"A": 10.2}) for account in (early, late)]
    assert [result.portfolio.positions[0].entry_price for result in results] == [Decimal("10.1"), Decimal("10.2")]


def test_five_days_from_decision_to_decision(either: Account) -> None:
    bought(either)
    assert statuses(either.trade(119, {}, {"A": 12.0})) == []
    exit_hour = either.trade(120, {}, {"A": 12.0})
    assert statuses(exit_hour) == [("A", "sell", "submitted")]
    [held] = exit_hour.portfolio.positions
    assert exit_hour.portfolio.age(held) == timedelta(hours=120)
    closed = either.trade(121, {}, {"A": 13.0})
    assert statuses(closed) == [("A", "sell", "filled")]
    [row] = closed.orders_frame().to_dict("records")
    assert (Decimal(row["price"]), row["quantity"]) == (Decimal(13), "20.00000000")
    assert closed.portfolio.positions == ()
    assert at(121) not in [row[2] for row in dump(either.ledger)["marks"]]  # nothing is held, nothing is priced
    profit = (Decimal(13) - Decimal("10.4")) * 20
    assert closed.portfolio.realised_profit == profit
    assert closed.portfolio.equity == closed.portfolio.cash == 10_000 + profit


def test_a_token_is_bought_again_a_day_after_its_sale_was_filled_and_not_before(account: Account) -> None:
    bought(account)
    selling = account.trade(120, {"A": 0.9}, {"A": 12.0})
    assert (statuses(selling), refused(selling)) == ([("A", "sell", "submitted")], [("A", "held")])
    sold = account.trade(121, {"A": 0.9}, {"A": 13.0})
    assert (statuses(sold), refused(sold)) == ([("A", "sell", "filled")], [("A", "cooldown")])
    assert refused(account.trade(144, {"A": 0.9}, {"A": 13.0})) == [("A", "cooldown")]
    assert statuses(account.trade(145, {"A": 0.9}, {"A": 13.0})) == [("A", "buy", "submitted")]
    # The second holding is not valued at a price from the first, even where its own hour gave none.
    assert account.trade(146, {}, {"A": 13.5}).portfolio.positions[0].mark.price == Decimal("13.5")


def test_missing_hours_delay_an_exit_and_lose_nothing(account: Account) -> None:
    bought(account)
    assert statuses(account.trade(300, {}, {"A": 12.0})) == [("A", "sell", "submitted")]


def test_an_entry_without_a_price_is_cancelled_after_six_hours_and_frees_its_token(account: Account) -> None:
    account.trade(0, {"A": 0.8}, {"A": 10.0})
    for hour in (1, 5):
        waiting = account.trade(hour, {"A": 0.8}, {})
        assert (statuses(waiting), refused(waiting)) == ([], [("A", "held")])
    last = account.trade(6, {"A": 0.8}, {"B": 1.0})
    assert (statuses(last), refused(last)) == ([("A", "buy", "cancelled")], [("A", "no_price")])
    row = last.orders_frame().to_dict("records")[0]
    assert pd.isna(row["filled_hour"])
    assert statuses(account.trade(7, {"A": 0.8}, {"A": 10.0})) == [("A", "buy", "submitted")]


def test_an_entry_is_still_filled_in_its_last_hour_and_no_longer_after_a_gap(tmp_path: Path) -> None:
    for hour, expected in ((6, "filled"), (7, "cancelled")):
        account = Account(tmp_path / expected, FREE_OF_COST)
        account.trade(0, {"A": 0.8}, {"A": 10.0})
        assert statuses(account.trade(hour, {}, {"A": 10.0})) == [("A", "buy", expected)]


def test_an_entry_waits_while_the_price_is_beyond_its_limit(account: Account) -> None:
    account.trade(0, {"A": 0.8}, {"A": 10.0})
    assert statuses(account.trade(1, {}, {"A": 10.5001})) == []
    assert statuses(account.trade(2, {}, {"A": 10.5})) == [("A", "buy", "filled")]


def test_an_exit_without_a_price_stays_open(account: Account) -> None:
    bought(account)
    account.trade(120, {}, {})
    for hour in (121, 130, 139):
        assert statuses(account.trade(hour, {}, {})) == []
    assert statuses(account.trade(140, {}, {"A": 10.0})) == [("A", "sell", "filled")]


def test_an_exit_that_the_market_has_left_behind_is_ordered_anew_at_its_new_price(account: Account) -> None:
    bought(account)
    account.trade(120, {}, {"A": 10.0})
    fallen = account.trade(121, {}, {"A": 9.0})
    assert statuses(fallen) == [("A", "sell", "cancelled"), ("A", "sell", "submitted")]
    assert fallen.portfolio.open_orders[0].order.limit == Decimal("8.55")
    assert statuses(account.trade(122, {}, {"A": 8.6})) == [("A", "sell", "filled")]


def test_a_cancelled_order_says_why_it_was_cancelled(account: Account) -> None:
    account.trade(0, {"A": 0.8}, {"A": 10.0})
    [row] = account.trade(6, {}, {}).orders_frame().to_dict("records")
    assert (row["status"], row["reason"]) == ("cancelled", "not filled within 6 hours of the decision")


def test_a_day_in_which_nobody_traded_is_no_reason_to_sell_everything(tmp_path: Path) -> None:
    account = Account(tmp_path, FREE_OF_COST)
    bought(account)
    assert statuses(account.trade(40, {}, {"A": 10.4})) == []


def test_a_token_that_vanished_for_a_day_is_sold_once_it_has_a_price_again(tmp_path: Path) -> None:
    account = Account(tmp_path, replace(FREE_OF_COST, vanished_after=timedelta(hours=3)))
    bought(account)
    assert statuses(account.trade(2, {}, {})) == statuses(account.trade(3, {}, {"A": 10.0})) == []
    for hour in (4, 5, 6):
        assert statuses(account.trade(hour, {}, {})) == []
    assert statuses(account.trade(7, {}, {"A": 10.0})) == [("A", "sell", "submitted")]


def test_in_a_halted_hour_no_price_is_believed(account: Account) -> None:
    bought(account)
    account.trade(119, {"B": 0.8}, {"A": 12.0, "B": 1.0})
    halted = account.trade(120, {"C": 0.8}, {"A": 99.0, "B": 1.0, "C": 1.0}, health="HALTED")
    # The exit is due and is submitted, at the last price that was believed; nothing is filled, entered or left to wait.
    assert statuses(halted) == [("A", "sell", "submitted"), ("B", "buy", "cancelled")]
    assert (halted.outcomes[1].reason, refused(halted)) == ("the market is HALTED", [("C", "no_entries")])
    assert halted.outcomes[0].price == 12
    assert halted.portfolio.positions[0].mark.price == 12
    assert halted.reason == "HALTED: 0 filled, 1 cancelled, 1 submitted, 1 refused"
    after = account.trade(121, {"C": 0.8}, {"A": 12.0, "B": 1.0, "C": 1.0})
    assert statuses(after) == [("A", "sell", "filled"), ("C", "buy", "submitted")]


def test_a_halted_hour_asks_nothing_of_its_prices(account: Account) -> None:
    assert account.trade(0, {}, {"A": -1.0}, health="HALTED").state == "traded"
    with pytest.raises(DataError, match="A has price"):
        account.trade(1, {}, {"A": -1.0}, health="REDUCE_ONLY")


def test_reduce_only_fills_and_leaves_but_never_enters(account: Account) -> None:
    bought(account)
    account.trade(119, {"B": 0.8}, {"A": 12.0, "B": 1.0})
    reduced = account.trade(120, {"C": 0.8}, {"A": 12.0, "B": 1.0, "C": 1.0}, health="REDUCE_ONLY")
    assert statuses(reduced) == [("A", "sell", "submitted"), ("B", "buy", "filled")]
    assert reduced.refused == (("C", "no_entries", "the market is REDUCE_ONLY"),)


def test_a_purchase_at_its_limit_with_all_costs_is_covered_by_cash(tmp_path: Path) -> None:
    account = Account(tmp_path, replace(RULES, order_fraction=Decimal(1), spread=Decimal(0), slippage=Decimal(0)))
    account.trade(0, {"A": 0.8}, {"A": 10.0})
    result = account.trade(1, {}, {"A": 10.5})
    assert statuses(result) == [("A", "buy", "filled")]
    assert 0 <= result.portfolio.cash < Decimal("0.0001")


def test_what_sales_bring_is_spent_in_the_hour_in_which_they_are_filled(tmp_path: Path) -> None:
    account = Account(tmp_path, replace(FREE_OF_COST, order_fraction=Decimal(1), max_volume_share=Decimal(1)))
    account.trade(0, {"A": 0.8}, {"A": 1.0})
    account.trade(1, {}, {"A": 1.05})
    waiting = account.trade(120, {"Z": 0.8}, {"A": 2.0, "Z": 1.0})
    assert (statuses(waiting), refused(waiting)) == ([("A", "sell", "submitted")], [("Z", "cash")])
    both = account.trade(121, {"Z": 0.8}, {"A": 2.0, "Z": 1.0})
    assert statuses(both) == [("A", "sell", "filled"), ("Z", "buy", "submitted")]
    assert both.outcomes[1].order.quantity > 18_000
    assert statuses(account.trade(122, {}, {"Z": 1.0})) == [("Z", "buy", "filled")]


def test_what_one_snapshot_does_not_take_is_left_for_the_next(either: Account) -> None:
    either.trade(0, {"A": 0.8}, {"A": 10.0})
    # A tenth of an hour's volume is 80 USD: eight units of twenty.
    parts = [either.trade(hour, {}, {"A": (10.0, 19_200.0)}) for hour in (1, 2, 3)]
    told = [(each.outcomes[0].status, str(each.outcomes[0].quantity)) for each in parts]
    assert told == [("partial", "8.00000000"), ("partial", "8.00000000"), ("filled", "4.00000000")]
    assert [each.portfolio.cash for each in parts] == [9920, 9840, 9800]
    assert [len(each.portfolio.positions) for each in parts] == [1, 1, 1]
    assert [each.remaining for each in parts[1].portfolio.open_orders] == [4]


def test_an_entry_that_is_filled_in_part_keeps_its_part_when_its_time_is_over(account: Account) -> None:
    account.trade(0, {"A": 0.8}, {"A": 10.0})
    account.trade(1, {}, {"A": (10.0, 19_200.0)})
    over = account.trade(7, {}, {"A": 10.0})
    assert statuses(over) == [("A", "buy", "cancelled")]
    assert [position.quantity for position in over.portfolio.positions] == [8]
    assert statuses(account.trade(120, {}, {"A": 10.0})) == [("A", "sell", "submitted")]


def test_a_part_of_an_order_passes_the_check_of_its_table(account: Account) -> None:
    account.trade(0, {"A": 0.8}, {"A": 10.0})
    assert check_orders(account.trade(1, {}, {"A": (10.0, 19_200.0)}).orders_frame()) == {}


def test_an_hour_trades_once_whatever_it_is_given_later(either: Account) -> None:
    bought(either)
    first = either.trade(2, {"B": 0.8}, {"A": 10.0, "B": 10.0})
    record = dump(either.ledger)
    retrained = predictions(at(2), {"B": 0.95, "C": 0.9}, model_hash="m2")
    for now in (at(2), at(500)):
        again = trade_hour(
            either.ledger,
            at(2),
            retrained,
            prices({"B": 9.0, "C": 1.0}),
            "HALTED",
            replace(RULES, cash=Decimal(5)),
            "paper",
            lambda now=now: now,  # type: ignore[misc]
            PaperBroker(either.ledger, "paper", RULES),
            mail=MAIL,
        )
        assert dump(either.ledger) == record
        assert again == first
        assert (first.repeated, again.repeated) == (False, True)
        assert parquet_bytes(again.orders_frame()) == parquet_bytes(first.orders_frame())


def test_an_hour_is_told_the_same_after_later_hours_have_traded(either: Account) -> None:
    results = [either.trade(0, {"A": 0.8, "B": 0.7, "D": 0.7}, {"A": 10.0, "B": 5.0})]
    results.append(either.trade(1, {"C": 0.7}, {"A": 10.4, "C": 2.0}))
    results.append(either.trade(7, {}, {"A": 12.0}))
    results.append(either.trade(120, {}, {"A": 11.0, "C": 3.0}))
    results.append(either.trade(121, {}, {"A": 14.0, "C": 3.0}))
    for hour, first in zip((0, 1, 7, 120, 121), results, strict=True):
        again = either.trade(hour)
        assert again == first
        assert parquet_bytes(again.orders_frame()) == parquet_bytes(first.orders_frame())
        horizon = RULES.horizon
        then, now = (each.portfolio.positions_frame(horizon) for each in (first, again))
        pd.testing.assert_frame_equal(then, now)


def test_both_databases_tell_the_same_bytes(tmp_path: Path, postgres_url: str) -> None:
    def told(place: Path | str) -> list[bytes]:
        account = Account(place)
        frames = [account.trade(0, {"B": 0.7, "a": 0.7, "Z": 0.8}, {"a": 1e-9, "B": 12345.678}).orders_frame()]
        frames.append(account.trade(1, {"é": 0.9}, {"a": 1.01e-9, "B": (12345.0, 3e5)}).orders_frame())
        frames.append(account.trade(7, {"a": 0.9}, {"é": 1.0}).orders_frame())
        return [parquet_bytes(frame) for frame in frames]

    assert told(tmp_path) == told(postgres_url)


def test_an_hour_in_which_nothing_happens_is_an_empty_typed_frame(account: Account) -> None:
    frame = account.trade(0).orders_frame()
    assert frame.empty
    assert frame.dtypes.astype(str).to_dict() == TRADE_ORDERS
    positions = account.trade(0).portfolio.positions_frame(RULES.horizon)
    assert positions.empty
    assert positions.dtypes.astype(str)["age_hours"] == "int64"


def test_the_portfolio_is_told_in_full(either: Account) -> None:
    result = bought(either)
    portfolio = result.portfolio
    [row] = portfolio.positions_frame(RULES.horizon).to_dict("records")
    assert row | {"entry_price": plain(Decimal(row["entry_price"]).normalize())} == {
        "token": "A",
        "quantity": "20.00000000",
        "entry_price": "10.4",
        "price": "10.4",
        "value": "208.00000000",
        "profit": "0.00000000",
        "age_hours": 1,
        "decided_hour": pd.Timestamp(at(0)),
        "planned_exit": pd.Timestamp(at(120)),
        "priced_hour": pd.Timestamp(at(1)),
        "order_id": result.outcomes[0].order.order_id,
    }
    assert portfolio.equity == 10_000
    assert portfolio.fees == portfolio.realised_profit == 0
    stale = either.trade(5).portfolio
    assert (stale.positions[0].mark.hour, stale.equity) == (at(1), portfolio.equity)


def test_an_order_keeps_the_model_and_the_probability_that_it_came_from(account: Account) -> None:
    account.trade(0, {"A": 0.8125}, {"A": 10.0})
    [row] = account.trade(1, {}, {"A": 10.0}).orders_frame().to_dict("records")
    assert (row["model_hash"], row["probability"]) == ("m1", 0.8125)
    assert row["reason"] == "probability 0.8125 reaches the threshold 0.6000; 2% of equity"


def test_accounts_in_one_ledger_trade_their_own_hours(either: Account) -> None:
    bought(either)
    before = dump(either.ledger)
    other = either.trade(1, {"A": 0.8}, {"A": 10.0}, name="other")
    assert statuses(other) == [("A", "buy", "submitted")]
    assert other.portfolio.positions == ()
    after = dump(either.ledger)
    assert all(set(before[table]) <= set(after[table]) for table in before)
    assert other.outcomes[0].order.order_id not in {row[0] for row in before["orders"]}


def test_one_mail_an_hour_tells_of_all_that_happened_and_none_is_written_without_need(
    ledger_places: Callable[[], Path | str],
) -> None:
    for mail, expected in ((MAIL, 2), (None, 0)):
        account = Account(ledger_places(), FREE_OF_COST, mail=mail)
        for _ in range(2):
            account.trade(0, {"A": 0.8, "B": 0.7}, {"A": 10.0, "B": 10.0})
        for _ in range(2):
            account.trade(1, {}, {"A": 10.0, "B": 10.0})
        account.trade(2, {}, {"A": 10.0, "B": 10.0})
        mails = account.ledger.pending_mails()
        assert [each.subject for each in mails] == [
            "paper: 2 waiting at 2024-03-01 00:00 UTC",
            "paper: 2 bought at 2024-03-01 01:00 UTC",
        ][:expected]
        for each in mails:
            assert all(f"token: {token}" in each.text_body for token in "AB")
            assert all(f">{token}</td>" in each.html_body for token in "AB")
