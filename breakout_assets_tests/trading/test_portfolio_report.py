"""What is told of an account: against its fills, against the portfolio, and the pictures."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from breakout_assets import objects
from breakout_assets.errors import DataError
from breakout_assets.store import Store
from breakout_assets.trading.adjustments import Adjustment
from breakout_assets.trading.portfolio import Mark, Portfolio, Position
from breakout_assets.trading.portfolio_report import (
    EQUITY_COLUMNS,
    PortfolioReport,
    closed_trades,
    equity_curve,
    equity_picture,
    portfolio_report,
    positions_picture,
    write_report,
)
from breakout_assets.trading.rules import HOUR
from breakout_assets.trading.schema import fills, orders
from breakout_assets_tests.trading.support import RULES, START, Account, Prices, at

SHORT = replace(RULES, horizon=3 * HOUR, cooldown=timedelta(0), max_drawdown=None)
TOKENS = ("A", "B", "C")


def report(account: Account) -> PortfolioReport:
    with account.ledger.read("paper") as books:
        return portfolio_report(books, account.rules)


@pytest.fixture
def account(tmp_path: Path) -> Account:
    return Account(tmp_path, SHORT)


def bought_and_sold(account: Account) -> None:
    """A is decided at 0, filled at 1 at 10, its exit is decided at 3 and filled at 4 at 12."""
    account.trade(0, {"A": 0.8}, {"A": 10.0})
    for hour, price in ((1, 10.0), (2, 11.0), (3, 12.0), (4, 12.0)):
        account.trade(hour, {}, {"A": price})


# Closed trades ---------------------------------------------------------------------------------------------------


def test_a_trade_is_told_when_it_is_over_and_not_before(account: Account) -> None:
    bought_and_sold(account)
    with account.ledger.read("paper") as books:
        assert closed_trades(books, at(3)).empty
    [trade] = report(account).trades.to_dict("records")
    hours = [trade[name] for name in ("decided_hour", "entered_hour", "left_hour")]
    assert hours == [at(0), at(1), at(4)]
    assert trade["held_hours"] == 3
    assert (trade["token"], trade["quantity"], trade["model_hash"], trade["probability"]) == (
        "A",
        "20.00000000",
        "m1",
        0.8,
    )
    with account.ledger.read("paper") as books:
        [entry, sale] = books.orders(at(4))
        [purchase, proceeds] = books.fills(at(4))
    assert (trade["order_id"], trade["reason"]) == (entry.order_id, sale.reason)
    assert float(trade["entry_price"]) == float(purchase.price)
    assert float(trade["exit_price"]) == float(proceeds.price)
    assert Decimal(trade["fees"]) == purchase.fee + proceeds.fee
    assert Decimal(trade["profit"]) == proceeds.value - purchase.value - purchase.fee - proceeds.fee
    assert trade["return"] == pytest.approx(float(Decimal(trade["profit"]) / (purchase.value + purchase.fee)))


def test_a_sale_in_parts_is_one_trade_and_over_when_dust_is_left(account: Account) -> None:
    account.trade(0, {"A": 0.8}, {"A": 10.0})
    for hour in (1, 2, 3):
        account.trade(hour, {}, {"A": 10.0})
    account.trade(4, {}, {"A": (10.0, 120 * 240.0)})  # a tenth of an hour's volume: 120 of the 200 USD
    assert report(account).trades.empty
    account.trade(5, {}, {"A": (10.0, 79.5 * 240.0)})  # half a dollar is left
    then = report(account)
    assert then.portfolio.positions == ()
    [trade] = then.trades.to_dict("records")
    assert (trade["left_hour"], trade["quantity"]) == (at(5), "20.00000000")
    assert Decimal(trade["profit"]) == then.portfolio.realised_profit
    with account.ledger.read("paper") as books:
        sales = [fill for fill in books.fills(at(5)) if fill.side == "sell"]
    assert [fill.quantity for fill in sales] == [12, Decimal("7.95")]
    mean = sum(float(fill.price) * float(fill.quantity) for fill in sales) / 19.95
    assert float(trade["exit_price"]) == pytest.approx(mean)
    # Dust that becomes worth selling is held again, and its sale belongs to the same trade.
    account.trade(6, {"A": 0.8}, {"A": 10.0})
    account.trade(7, {}, {"A": 10.0})
    account.trade(8, {}, {"A": 30.0})
    assert report(account).trades.empty
    for hour in (9, 10, 11):
        account.trade(hour, {}, {"A": 30.0})
    again = report(account)
    assert list(again.trades["decided_hour"]) == [at(0), at(6)]
    assert sum(again.trades["profit"].map(Decimal)) == again.portfolio.realised_profit
    assert Decimal("1.4") < Decimal(again.trades["profit"].iloc[0]) - Decimal(trade["profit"]) < Decimal("1.5")


def test_trades_are_those_that_the_fills_add_up_to(tmp_path: Path) -> None:
    account = Account(tmp_path, SHORT)
    moves = np.random.default_rng(5)
    price = dict.fromkeys(TOKENS, 10.0)
    for hour in range(20):
        price = {token: value * float(np.exp(moves.normal(0, 0.02))) for token, value in price.items()}
        volume = float(moves.choice([1e9, 40_000.0]))
        buys = {token: 0.7 for token in TOKENS if moves.random() < 0.4 and volume == 1e9}
        account.trade(hour, buys, {token: (value, volume) for token, value in price.items()})
    told = report(account)
    with account.ledger.read("paper") as books:
        query = sa.select(
            orders.c.order_id, orders.c.position, orders.c.token, orders.c.hour.label("decided"), fills.c.hour,
            fills.c.quantity, fills.c.price, fills.c.fee,
        ).join(orders, orders.c.order_id == fills.c.order_id)  # fmt: skip
        frame = pd.DataFrame([dict(row) for row in books.connection.execute(query).mappings()])
    frame = frame.astype({"quantity": "float64", "price": "float64", "fee": "float64"})
    buy = frame["position"].isna()
    frame["entry"] = frame["position"].fillna(frame["order_id"])
    frame["flow"] = frame["quantity"] * frame["price"] * np.where(buy, -1, 1) - frame["fee"]
    frame["left"] = frame["quantity"] * np.where(buy, 1, -1)
    sums = frame.groupby("entry")[["flow", "fee", "left"]].sum()
    sums["took"] = -frame[buy].groupby("entry")["flow"].sum()
    sums["out"] = frame[~buy].groupby("entry")["hour"].max()
    sums["in"] = frame[buy].groupby("entry")["hour"].max()
    closed = sums[sums["left"].abs() < 1e-7]
    trades = told.trades.set_index("order_id").loc[closed.index]
    assert len(closed) == len(told.trades) > 5
    assert frame[~buy].groupby("entry").size().max() > 1  # some were sold in parts
    np.testing.assert_allclose(trades["profit"].astype("float64"), closed["flow"], atol=1e-6)
    np.testing.assert_allclose(trades["fees"].astype("float64"), closed["fee"], atol=1e-6)
    np.testing.assert_allclose(trades["return"], closed["flow"] / closed["took"], atol=1e-6)
    np.testing.assert_array_equal(trades["held_hours"], (closed["out"] - closed["in"]).dt.total_seconds() // 3600)
    assert told.trades["left_hour"].is_monotonic_increasing
    cash = [10_000 + frame.loc[frame["hour"] <= hour, "flow"].sum() for hour in told.curve["timestamp"]]
    np.testing.assert_allclose(told.curve["cash"].astype("float64"), cash, atol=1e-6)
    figures = told.figures()
    assert figures["trades_closed"] == len(closed)
    assert figures["share_of_trades_that_gained"] == pytest.approx((closed["flow"] > 0).mean(), abs=1e-4)
    assert figures["mean_return_per_trade"] == pytest.approx((closed["flow"] / closed["took"]).mean(), abs=1e-4)
    assert figures["fees_usd"] == pytest.approx(frame["fee"].sum(), abs=0.01)
    assert figures["largest_drawdown"] == pytest.approx(told.curve["drawdown"].max(), abs=1e-4)
    assert figures["since"] == "2024-03-01 00:00"


def test_what_a_person_explained_is_in_the_cash_and_in_no_trade(account: Account) -> None:
    bought_and_sold(account)
    account.trade(5, {"B": 0.8}, {"B": 1.0})
    account.trade(6, {}, {"B": 1.0})
    with account.ledger.write("paper") as books:
        before = books.portfolio(at(6), Decimal(0)).cash
        for item, amount in (("B", "-50"), ("USD", "60")):
            books.adjust(
                Adjustment(item=item, amount=Decimal(amount), at=at(6), by="me", reason="sold by hand", hour=at(6))
            )
    for hour in (7, 8, 9, 10):
        account.trade(hour, {}, {"B": 1.0})
    told = report(account)
    assert [trade["token"] for trade in told.trades.to_dict("records")] == ["A"]
    cash = {row["timestamp"].to_pydatetime(): Decimal(row["cash"]) for row in told.curve.to_dict("records")}
    assert (cash[at(6)], cash[at(7)]) == (before, before + 60)
    assert cash[at(10)] == told.portfolio.cash


def test_an_entry_that_may_still_buy_more_is_not_over(account: Account) -> None:
    account.trade(0, {"A": 0.8}, {"A": 10.0})
    account.trade(1, {}, {"A": 10.0})
    account.trade(2, {}, {"A": 10.0})
    account.trade(3, {}, {"A": 10.0})
    account.trade(4, {}, {"A": 10.0})
    with account.ledger.write("paper") as books:
        assert len(closed_trades(books, at(4))) == 1
        [entry, _] = books.orders(at(4))
        books.connection.execute(
            sa.text("DELETE FROM order_events WHERE order_id = :id AND status = 'filled'"), {"id": entry.order_id}
        )
        assert closed_trades(books, at(4)).empty


# Histories -------------------------------------------------------------------------------------------------------

Step = tuple[int, Mapping[str, float], Mapping[str, tuple[float, float] | None]]


@st.composite
def histories(draw: st.DrawFn) -> list[Step]:
    """Hours with gaps between them, buy signals, prices that move or are missing, and volumes that fill in part."""
    hour, price = 0, dict.fromkeys(TOKENS, 10.0)
    steps: list[Step] = []
    for _ in range(draw(st.integers(1, 8))):
        price = {token: value * draw(st.sampled_from([0.8, 0.97, 1.0, 1.02, 1.3])) for token, value in price.items()}
        volume = draw(st.sampled_from([30_000.0, 1e9, 1e9]))
        missing = draw(st.sets(st.sampled_from(TOKENS), max_size=1))
        buys = draw(st.sets(st.sampled_from(TOKENS)))
        quotes = {token: None if token in missing else (value, volume) for token, value in price.items()}
        steps.append((hour, dict.fromkeys(sorted(buys), 0.7), quotes))
        hour += draw(st.sampled_from([1, 1, 1, 2, 9]))
    return steps


@settings(max_examples=5)
@given(histories())
def test_a_history_adds_up(steps: list[Step]) -> None:
    check_history(steps)


@pytest.mark.slow
@pytest.mark.long
@settings(max_examples=30)
@given(histories())
def test_many_histories_add_up(steps: list[Step]) -> None:
    check_history(steps)


def check_history(steps: list[Step]) -> None:
    with TemporaryDirectory() as folder:
        account = Account(Path(folder), SHORT)
        then: list[PortfolioReport] = []
        for hour, buys, quotes in steps:
            known: Prices = {token: quote for token, quote in quotes.items() if quote is not None}
            portfolio = account.trade(hour, buys, known).portfolio
            then.append(told := report(account))
            assert told.portfolio == portfolio
            assert Decimal(told.curve["equity"].iloc[-1]) == portfolio.equity
            assert Decimal(told.curve["cash"].iloc[-1]) == portfolio.cash
            assert realised(account, told) == portfolio.realised_profit
        assert list(told.curve["timestamp"]) == [at(hour) for hour, _, _ in steps]
        equity = told.curve["equity"].astype("float64")
        np.testing.assert_allclose(told.curve["drawdown"], 1 - equity / equity.cummax(), atol=1e-12)
        parts = told.curve["cash"].map(Decimal) + told.curve["invested"].map(Decimal)
        assert list(parts) == list(told.curve["equity"].map(Decimal))
        # With everything sold, nothing but closed trades is left to explain the profit.
        end = steps[-1][0]
        for hour in range(end + 7, end + 12):
            account.trade(hour, {}, dict.fromkeys(TOKENS, 10.0))
        last = report(account)
        assert last.portfolio.positions == ()
        assert sum(last.trades["profit"].map(Decimal), Decimal(0)) == last.portfolio.realised_profit
        middle = len(steps) // 2  # what was told of an hour does not change with what came later
        moment, earlier = at(steps[middle][0]), then[middle]
        with account.ledger.read("paper") as books:
            assert books.portfolio(moment, account.rules.cash) == earlier.portfolio
            pd.testing.assert_frame_equal(equity_curve(books, moment), earlier.curve)
            pd.testing.assert_frame_equal(closed_trades(books, moment), earlier.trades)


def realised(account: Account, told: PortfolioReport) -> Decimal:
    """Of closed trades, and of what was sold of open positions."""
    with account.ledger.read("paper") as books:
        known = {order.order_id: order for order in books.orders(told.portfolio.hour)}
        booked = books.fills(told.portfolio.hour)
    parts = sum(told.trades["profit"].map(Decimal), Decimal(0))
    for position in told.portfolio.positions:
        own = [each for each in booked if position.order_id in (each.order_id, known[each.order_id].position)]
        parts += position.cost + sum((each.cash_flow for each in own), Decimal(0))
    return parts


# Figures and tables ----------------------------------------------------------------------------------------------


def test_figures_that_nothing_stands_behind_are_left_out(account: Account) -> None:
    account.trade(0, {"A": 0.8}, {"A": 10.0})
    assert report(account).figures() == {
        "hour": "2024-03-01 00:00",
        "equity_usd": 10_000.0,
        "cash_usd": 10_000.0,
        "realised_profit_usd": 0.0,
        "unrealised_profit_usd": 0.0,
        "fees_usd": 0.0,
        "open_positions": 0,
        "open_orders": 1,
        "trades_closed": 0,
        "largest_drawdown": 0.0,
        "since": "2024-03-01 00:00",
    }
    with account.ledger.write("paper") as books:  # as in a ledger of before equities were kept
        books.connection.execute(sa.text("UPDATE hours SET equity = NULL"))
    assert not {"largest_drawdown", "since"} & report(account).figures().keys()
    assert list(report(account).curve.dtypes.astype(str)) == list(EQUITY_COLUMNS.values())


def test_an_account_that_never_traded_is_refused_with_what_to_do(account: Account) -> None:
    with pytest.raises(DataError, match="account paper has not traded yet; materialise trade_orders"):
        report(account)
    account.trade(0, {}, {"A": 10.0}, name="other")
    with pytest.raises(DataError, match="has not traded yet"):
        report(account)


def test_tables_lie_in_the_store_with_the_same_types_whether_or_not_they_have_rows(
    account: Account, store: Store
) -> None:
    account.trade(0, {}, {"A": 10.0})
    paths = write_report(store, report(account))
    assert [path.relative_to(store.root).as_posix() for path in paths.values()] == [
        "portfolio/positions.parquet",
        "portfolio/equity.parquet",
        "portfolio/trades.parquet",
    ]
    empty = {name: pd.read_parquet(BytesIO(objects.read(path))) for name, path in paths.items()}
    assert [len(frame) for frame in empty.values()] == [0, 1, 0]
    for hour in (1, 2, 3, 4, 5):
        account.trade(hour, {"B": 0.7} if hour == 4 else {"A": 0.8} if hour == 1 else {}, {"A": 10.0, "B": 10.0})
    account.trade(6, {}, {"A": 10.0, "B": 10.0})
    write_report(store, report(account))
    full = {name: pd.read_parquet(BytesIO(objects.read(path))) for name, path in paths.items()}
    assert [len(frame) for frame in full.values()] == [1, 7, 1]
    for name in full:
        assert list(full[name].dtypes) == list(empty[name].dtypes)


# Pictures --------------------------------------------------------------------------------------------------------


def curve(hours: int, fall: float = 0.0) -> pd.DataFrame:
    """Equity that moves up and down, and at the end falls by this share; cash is a third of it."""
    equity = 10_000 * (1 + 0.2 * np.sin(np.arange(hours) / 700))
    equity[hours // 2 :] *= 1 - fall
    frame = pd.DataFrame(
        {
            "timestamp": pd.date_range(START, periods=hours, freq="h"),
            "equity": [f"{each:.8f}" for each in equity],
            "cash": [f"{each / 3:.8f}" for each in equity],
            "invested": [f"{2 * each / 3:.8f}" for each in equity],
            "drawdown": 1 - equity / np.maximum.accumulate(equity),
        }
    )
    return frame.astype(EQUITY_COLUMNS)


def holding(returns: list[float], priced: datetime = START) -> Portfolio:
    positions = tuple(
        Position(
            order_id=f"{number:032x}",
            token=f"TOKEN{number}-with-a-name-that-nobody-would-want-to-read",
            decided_hour=START - number * HOUR,
            entered_hour=START,
            quantity=Decimal(1),
            entry_price=Decimal(200),
            cost=Decimal(200),
            mark=Mark(price=Decimal(200) * (1 + Decimal(str(gain))), hour=priced),
        )
        for number, gain in enumerate(returns)
    )
    return Portfolio(
        account="paper",
        hour=START,
        cash=Decimal(1),
        positions=positions,
        open_orders=(),
        realised_profit=Decimal(0),
        fees=Decimal(0),
    )


def opened(png: bytes) -> Image.Image:
    with Image.open(BytesIO(png)) as image:
        image.load()
    return image


def pixels(png: bytes, colour: str) -> int:
    wanted = tuple(bytes.fromhex(colour))
    found = opened(png).convert("RGB").getcolors(1000) or []
    return sum(number for number, each in found if each == wanted)


@pytest.mark.parametrize("hours", [0, 1, 8760])
def test_equity_is_a_small_picture_whether_an_hour_or_a_year_of_it_is_there(hours: int) -> None:
    png = equity_picture("paper", curve(hours))
    image = opened(png)
    assert (image.format, image.width, image.info) == ("PNG", 760, {})
    assert len(png) < 40_000
    assert (pixels(png, "2a6f97") > 500) == (hours > 0)  # even a single hour is a line


def test_equity_stays_as_it_was_through_hours_that_were_not_traded() -> None:
    frame = curve(100, fall=-0.1).iloc[[0, 99]].reset_index(drop=True)
    blue = (np.asarray(opened(equity_picture("paper", frame)).convert("RGB")) == (0x2A, 0x6F, 0x97)).all(axis=2)
    assert 136 < blue[:250].sum(axis=1).argmax() < 246  # the long stretch is low in the upper panel


def test_a_fall_is_seen_as_an_area() -> None:
    assert pixels(equity_picture("paper", curve(100)), "e9c7bf") < 20  # the edge of a line may look like it
    assert pixels(equity_picture("paper", curve(100, fall=0.1)), "e9c7bf") > 5000


def test_the_same_account_gives_the_same_bytes() -> None:
    assert equity_picture("paper", curve(50)) == equity_picture("paper", curve(50))
    assert positions_picture(holding([0.1]), RULES.horizon) == positions_picture(holding([0.1]), RULES.horizon)


def test_cash_and_what_is_invested_share_the_area() -> None:
    png = equity_picture("paper", curve(100))
    assert pixels(png, "6ea3c1") == pytest.approx(2 * pixels(png, "d3e4ee"), rel=0.1)


@pytest.mark.parametrize("count", [0, 1, 25, 60])
def test_positions_are_a_small_picture_of_at_most_25_bars(count: int) -> None:
    png = positions_picture(holding([0.01 * number - 0.1 for number in range(count)]), RULES.horizon)
    image = opened(png)
    assert (image.format, image.width, image.info) == ("PNG", 760, {})
    assert image.height == {0: 80, 1: 139, 25: 715, 60: 715}[count]
    assert len(png) < 45_000
    assert len(image.convert("RGB").getcolors(1000) or []) > 4


def test_a_bar_tells_a_gain_from_a_loss_and_a_believed_price_from_an_old_one() -> None:
    blue, pale_blue, red, pale_red = "2a6f97", "a9c5d5", "b5432a", "e9c7bf"
    for gain, priced, colour in (
        (0.2, START, blue),
        (-0.2, START, red),
        (0.2, START - HOUR, pale_blue),
        (-0.2, START - HOUR, pale_red),
    ):
        png = positions_picture(holding([gain], priced), RULES.horizon)
        found = {each: pixels(png, each) for each in (blue, red, pale_blue, pale_red)}
        assert found.pop(colour) > 1000
        assert max(found.values()) < 20


def test_a_long_name_leaves_room_for_its_bar() -> None:
    assert pixels(positions_picture(holding([0.2]), RULES.horizon), "2a6f97") > 7000


def test_of_many_positions_the_largest_are_drawn() -> None:
    png = positions_picture(holding([0.2] * 25 + [-0.2] * 10), RULES.horizon)
    assert pixels(png, "b5432a") == 0
