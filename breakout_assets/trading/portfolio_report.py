"""What became of an account: its equity hour by hour, its closed trades, its figures, and pictures of them.

Everything is told from the ledger up to one hour, so the report of an hour is the same whenever it is made.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from io import BytesIO
from typing import TYPE_CHECKING, Final

import pandas as pd
from upath import UPath

from breakout_assets.errors import DataError
from breakout_assets.store import Store, parquet_bytes
from breakout_assets.trading.adjustments import explained
from breakout_assets.trading.books import Books
from breakout_assets.trading.money import plain
from breakout_assets.trading.orders import ENDED, Fill, Order
from breakout_assets.trading.portfolio import Portfolio, Position, by_order_and_entry, mean_price
from breakout_assets.trading.rules import HOUR, TradingRules

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Amounts are exact decimals, as text; shares are floats.
EQUITY_COLUMNS: Final[dict[str, str]] = {
    "timestamp": "datetime64[us]",
    "equity": "str",
    "cash": "str",
    "invested": "str",
    "drawdown": "float64",
}
TRADE_COLUMNS: Final[dict[str, str]] = {
    "token": "str",
    "decided_hour": "datetime64[us]",
    "entered_hour": "datetime64[us]",
    "left_hour": "datetime64[us]",
    "held_hours": "int64",
    "quantity": "str",
    "entry_price": "str",
    "exit_price": "str",
    "fees": "str",
    "profit": "str",
    "return": "float64",
    "reason": "str",
    "model_hash": "str",
    "probability": "float64",
    "order_id": "str",
}


@dataclass(frozen=True)
class PortfolioReport:
    """An account as of an hour."""

    portfolio: Portfolio
    positions: pd.DataFrame
    """As `Portfolio.positions_frame` tells them."""
    curve: pd.DataFrame
    """As `equity_curve` tells it."""
    trades: pd.DataFrame
    """As `closed_trades` tells them."""

    def figures(self) -> dict[str, int | float | str]:
        """What the report comes to, for people: USD in cents, shares of 1; without those that nothing stands behind."""
        portfolio, returns = self.portfolio, self.trades["return"]
        unrealised = sum((position.profit for position in portfolio.positions), Decimal(0))
        found: dict[str, int | float | str] = {
            "hour": f"{portfolio.hour:%Y-%m-%d %H:00}",
            "equity_usd": _cents(portfolio.equity),
            "cash_usd": _cents(portfolio.cash),
            "realised_profit_usd": _cents(portfolio.realised_profit),
            "unrealised_profit_usd": _cents(unrealised),
            "fees_usd": _cents(portfolio.fees),
            "open_positions": len(portfolio.positions),
            "open_orders": len(portfolio.open_orders),
            "trades_closed": len(returns),
        }
        if len(returns):
            found["share_of_trades_that_gained"] = round(float((returns > 0).mean()), 4)
            found["mean_return_per_trade"] = round(float(returns.mean()), 4)
        if len(self.curve):
            found["largest_drawdown"] = round(float(self.curve["drawdown"].max()), 4)
            found["since"] = f"{self.curve['timestamp'].iloc[0]:%Y-%m-%d %H:00}"
        return found


def portfolio_report(books: Books, rules: TradingRules) -> PortfolioReport:
    """The report on an account as of its newest decided hour.

    Raises:
        DataError: the account has not traded yet.
    """
    until = books.newest_hour()
    if until is None:
        raise DataError(
            f"the account {books.account} has not traded yet; materialise trade_orders for the hour that has just "
            "begun, as the hourly schedule does, or check that BREAKOUT_LEDGER names its ledger"
        )
    portfolio = books.portfolio(until, rules.cash)
    return PortfolioReport(
        portfolio, portfolio.positions_frame(rules.horizon), equity_curve(books, until), closed_trades(books, until)
    )


def equity_curve(books: Books, until: datetime) -> pd.DataFrame:
    """One row for each decided hour up to `until`, oldest first, columns of `EQUITY_COLUMNS`.

    `equity` is what the decision of the hour saw, `invested` is equity less cash, `drawdown` the share of its running
    peak that equity is below it. What an exchange executes after a decision, in the same hour, is in the cash of that
    hour and in the equity of the next. Hours of before equities were kept are left out.
    """
    cash = books.opening_cash() or Decimal(0)
    peak = Decimal(0)
    fills = iter(books.fills(until))
    fill = next(fills, None)
    flows = explained(books.adjustments(until)).flows
    rows = []
    for hour, equity in books.equities(until):
        while fill is not None and fill.hour <= hour:
            cash += fill.cash_flow
            fill = next(fills, None)
        peak = max(peak, equity)
        has = cash + sum((amount for before, amount in flows if before < hour), Decimal(0))
        rows.append((hour, plain(equity), plain(has), plain(equity - has), float((peak - equity) / peak)))
    return pd.DataFrame(rows, columns=list(EQUITY_COLUMNS)).astype(EQUITY_COLUMNS)


def closed_trades(books: Books, until: datetime) -> pd.DataFrame:
    """One row for each entry of which nothing, or dust, is left at `until`, in the order in which they were left.

    Columns of `TRADE_COLUMNS`: `held_hours` from the newest fill of the entry to the last sale, `quantity` the units
    bought, prices the means of the fills, `profit` and `fees` in USD, `return` the profit as a share of what the entry
    took, fees included, `reason` that of the last sale. An entry that may still buy more is not closed; one of which a
    part was sold by hand is left out, since nobody knows for what.
    """
    portfolio = books.portfolio(until, Decimal(0))
    held = {position.order_id for position in portfolio.positions} | portfolio.by_hand
    orders, statuses = books.orders(until), books.statuses(until)
    known = {order.order_id: order for order in orders}
    executed, sold = by_order_and_entry(known, books.fills(until))
    rows = [
        _trade(entry, executed[entry.order_id], sales, known[sales[-1].order_id].reason)
        for entry in orders
        if (sales := sold.get(entry.order_id)) and entry.order_id not in held and statuses[entry.order_id] in ENDED
    ]
    frame = pd.DataFrame(rows, columns=list(TRADE_COLUMNS)).astype(TRADE_COLUMNS)
    return frame.sort_values(["left_hour", "decided_hour", "token"], kind="stable", ignore_index=True)


def _trade(entry: Order, bought: Sequence[Fill], sold: Sequence[Fill], reason: str) -> dict[str, object]:
    took = -_total(fill.cash_flow for fill in bought)
    profit = _total(fill.cash_flow for fill in sold) - took
    return {
        "token": entry.token,
        "decided_hour": entry.hour,
        "entered_hour": bought[-1].hour,
        "left_hour": sold[-1].hour,
        "held_hours": (sold[-1].hour - bought[-1].hour) // HOUR,
        "quantity": plain(_total(fill.units for fill in bought)),
        "entry_price": plain(mean_price(bought)),
        "exit_price": plain(mean_price(sold)),
        "fees": plain(_total(fill.fee for fill in (*bought, *sold))),
        "profit": plain(profit),
        "return": float(profit / took),
        "reason": reason,
        "model_hash": entry.model_hash,
        "probability": entry.probability,
        "order_id": entry.order_id,
    }


def _total(amounts: Iterable[Decimal]) -> Decimal:
    return sum(amounts, Decimal(0))


def _cents(amount: Decimal) -> float:
    return round(float(amount), 2)


def write_report(store: Store, report: PortfolioReport) -> dict[str, UPath]:
    """Write the tables of a report to `portfolio/`; the same report gives the same bytes.

    Returns:
        Where `positions`, `equity` and `trades` lie.
    """
    frames = {"positions": report.positions, "equity": report.curve, "trades": report.trades}
    paths = {name: store.root / "portfolio" / f"{name}.parquet" for name in frames}
    for name, frame in frames.items():
        store.write(paths[name], parquet_bytes(frame))
    return paths


# Pictures ----------------------------------------------------------------------------------------------------------

_BLUE: Final = "#2a6f97"
_PALE_BLUE: Final = "#a9c5d5"
_RED: Final = "#b5432a"
_PALE_RED: Final = "#e9c7bf"
_PEAK: Final = "#9a9a9a"
_REFERENCE: Final = "#555555"
_CASH: Final = "#d3e4ee"
_INVESTED: Final = "#6ea3c1"
_COLOURS: Final = (_BLUE, _PALE_BLUE, _RED, _PALE_RED, _CASH, _INVESTED)
_EDGES: Final = 5  # shades of a colour, down to white, where it meets the ground
_MOST_BARS: Final = 25
_LONGEST_NAME: Final = 20
# Less than this never fills the height or width of a picture: noise of cents would look like a crash.
_LEAST_SPAN: Final = 0.01
# Columns beside the bars, and where each ends as a share of their width.
_HEADINGS: Final = {"return": 0.18, "USD": 0.40, "age": 0.58, "planned exit": 1.0}


def equity_picture(account: str, curve: pd.DataFrame) -> bytes:
    """A PNG of an equity curve: equity with its peak, how far it is below it, and how much of it is cash."""
    if curve.empty:
        return _note(f"{account}: no equity has been recorded yet")
    # An hour's row holds until the next one: as steps a single hour can be seen, and an outage invents no slope.
    rows = pd.concat([curve, curve.iloc[[-1]].assign(timestamp=curve["timestamp"].iloc[-1] + HOUR)])
    at, equity, cash = rows["timestamp"], rows["equity"].astype("float64"), rows["cash"].astype("float64")
    below = -100 * rows["drawdown"]
    figure, (top, middle, bottom) = _figure(7.6, 5.4, rows=3, heights=(3, 1.1, 1.4))
    top.axhline(equity.iloc[0], color=_REFERENCE, linestyle=":", linewidth=1, label="first hour")
    top.step(at, equity.cummax(), where="post", color=_PEAK, linewidth=1, label="peak so far")
    top.step(at, equity, where="post", color=_BLUE, linewidth=1.5, label="equity")
    span = max(equity.max() - equity.min(), _LEAST_SPAN * equity.max())
    centre = (equity.max() + equity.min()) / 2
    top.set_ylim(centre - 0.56 * span, centre + 0.56 * span)
    middle.fill_between(at, below, 0, step="post", color=_PALE_RED, linewidth=0)
    middle.step(at, below, where="post", color=_RED, linewidth=1)
    middle.set_ylim(1.12 * min(below.min(), -100 * _LEAST_SPAN), 0)
    bottom.fill_between(at, 0, cash, step="post", color=_CASH, linewidth=0, label="cash")
    bottom.fill_between(at, cash, equity, step="post", color=_INVESTED, linewidth=0, label="invested")
    bottom.set_ylim(0, 1.05 * max(equity.max(), cash.max()))
    _describe(top, f"{account}: equity until {curve['timestamp'].iloc[-1]:%Y-%m-%d %H:00} UTC", "USD")
    _describe(middle, f"Below its peak, at most {_percent(-below.min())}", "%")
    _describe(bottom, "How much of it is cash", "USD")
    for axes in (top, bottom):
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
        # Above the axes, where no line can run behind it.
        legend = axes.legend(fontsize=8, ncols=3, columnspacing=1.2, frameon=False, borderaxespad=0.1)
        legend.set_loc("lower right")
        legend.set_bbox_to_anchor((1, 1))
    _date_axis([top, middle, bottom], at.iloc[0], at.iloc[-1])
    return _png(figure)


def positions_picture(portfolio: Portfolio, horizon: timedelta) -> bytes:
    """A PNG of the open positions, the largest 25: a bar for each one's return so far, with age and planned exit."""
    until = f"{portfolio.hour:%Y-%m-%d %H:00} UTC"
    if not portfolio.positions:
        return _note(f"{portfolio.account}: no position is open at {until}")
    largest = sorted(portfolio.positions, key=lambda each: (-each.value, each.token))[:_MOST_BARS]
    shown = sorted(largest, key=lambda each: (_return(each), each.token))  # the best on top
    at, returns = range(len(shown)), [100 * _return(each) for each in shown]
    fresh = [each.mark.hour == portfolio.hour for each in shown]
    figure, (bars, words) = _figure(7.6, 1.15 + 0.24 * len(shown), columns=2, widths=(5, 4))
    colours = [_bar_colour(value >= 0, believed) for value, believed in zip(returns, fresh, strict=True)]
    bars.barh(at, returns, color=colours, height=0.7)
    bars.axvline(0, color=_REFERENCE, linewidth=0.8)
    # Room for bars of less than a percent, which would otherwise fill the width.
    bars.set_xlim(min(*returns, -1.0) * 1.05, max(*returns, 1.0) * 1.05)
    bars.set_yticks(at, [_short(each.token) for each in shown])
    count = len(portfolio.positions)
    some = f"the largest {len(shown)} of {count}" if count > len(shown) else f"{count}"
    figure.suptitle(f"{portfolio.account}: {some} open at {until}", fontsize=10, x=0.01, ha="left")
    _describe(bars, "", "")
    note = "" if all(fresh) else "; pale: no believed price in this hour"
    bars.set_xlabel(f"return so far, %{note}", fontsize=9)
    for axes in (bars, words):
        axes.set_ylim(-0.6, len(shown) - 0.4)
    words.set_axis_off()
    _write_columns(words, [_cells(portfolio, each, horizon) for each in shown])
    return _png(figure)


def _cells(portfolio: Portfolio, position: Position, horizon: timedelta) -> tuple[str, str, str, str]:
    return (
        f"{100 * _return(position):+.1f} %".replace("-", "−"),
        f"{position.value:,.0f}",
        f"{portfolio.age(position) // HOUR} h",
        f"{position.decided_hour + horizon:%Y-%m-%d %H:00}",
    )


def _write_columns(axes: "Axes", rows: Sequence[tuple[str, str, str, str]]) -> None:
    """Text beside bars, set flush right below its headings."""
    axes.set_xlim(0, 1)
    for column, (name, right) in enumerate(_HEADINGS.items()):
        axes.text(right, 1, name, transform=axes.transAxes, ha="right", va="bottom", fontsize=8, color=_REFERENCE)
        for height, row in enumerate(rows):
            axes.text(right, height, row[column], ha="right", va="center", fontsize=8)


def _short(token: str) -> str:
    """A token named after a coin without an id may be long enough to push the bars out of the picture."""
    return token if len(token) <= _LONGEST_NAME else f"{token[: _LONGEST_NAME - 1]}…"


def _bar_colour(gained: bool, believed: bool) -> str:
    if gained:
        return _BLUE if believed else _PALE_BLUE
    return _RED if believed else _PALE_RED


def _return(position: Position) -> float:
    return float(position.profit / position.cost)


def _percent(value: float) -> str:
    return f"{value:.1f} %"


def _figure(
    width: float,
    height: float,
    *,
    rows: int = 1,
    columns: int = 1,
    heights: Sequence[float] | None = None,
    widths: Sequence[float] | None = None,
) -> tuple["Figure", "list[Axes]"]:
    """An empty figure of this size in inches, 100 pixels each."""
    # Imported here: matplotlib takes a second to import, and only pictures need it. `Figure` instead of `pyplot`
    # because the latter keeps every figure alive and is not safe in threads.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, height_ratios=heights, width_ratios=widths)
    return figure, list(grid.ravel())


def _describe(axes: "Axes", title: str, y: str) -> None:
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_ylabel(y, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _date_axis(panels: Sequence["Axes"], first: datetime, last: datetime) -> None:
    """The same hours below each of these panels, named below the lowest."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    for axes in panels:
        axes.set_xlim(first, last)  # type: ignore[arg-type]  # matplotlib converts dates
        locator = AutoDateLocator(minticks=3, maxticks=9)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
        axes.tick_params(labelbottom=axes is panels[-1])


def _note(text: str) -> bytes:
    """A picture that says why there is nothing to draw."""
    figure, (axes,) = _figure(7.6, 0.8)
    axes.set_axis_off()
    axes.text(0, 0.5, text, transform=axes.transAxes, fontsize=10, va="center")
    return _png(figure)


def _png(figure: "Figure") -> bytes:
    from PIL import Image

    drawn, picture = BytesIO(), BytesIO()
    figure.savefig(drawn, format="png")
    # A palette makes it a quarter of the size in the UI's event log; one that is given keeps the colour of the smallest
    # bar. Saving anew also leaves out what matplotlib writes of itself, so that other versions do not mean other bytes.
    palette = Image.new("P", (1, 1))
    palette.putpalette(_palette())
    few = Image.open(drawn).convert("RGB").quantize(palette=palette, dither=Image.Dither.NONE)
    few.save(picture, "png", optimize=True)
    return picture.getvalue()


def _palette() -> list[int]:
    from matplotlib.colors import to_rgb

    greys = [(shade / 15,) * 3 for shade in range(16)]
    shades = [
        tuple(1 - (1 - part) * step / _EDGES for part in to_rgb(colour))
        for colour in _COLOURS
        for step in range(1, _EDGES + 1)
    ]
    return [round(255 * part) for colour in (*greys, *shades) for part in colour]
