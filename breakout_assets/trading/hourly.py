"""The one call that trades an hour."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

import pandas as pd

from breakout_assets.errors import DataError, SettingsError
from breakout_assets.market.health import HealthState
from breakout_assets.tables import TRADE_ORDERS, conform
from breakout_assets.trading.alerts import MailSettings, compose
from breakout_assets.trading.brokers import Broker, PaperBroker
from breakout_assets.trading.decide import Quote, Signal, decide, order_id, read_quotes, read_signals
from breakout_assets.trading.ledger import Books, Ledger
from breakout_assets.trading.money import plain
from breakout_assets.trading.portfolio import Cancellation, Fill, Order, Portfolio
from breakout_assets.trading.rules import HOUR, TradingRules


@dataclass(frozen=True)
class HourResult:
    """What an hour did, told from the ledger's record up to that hour alone."""

    hour: datetime
    state: Literal["traded", "refused"]
    reason: str
    """Why it was refused, or what was done, in a sentence."""
    submitted: tuple[Order, ...]
    """Decided in this hour."""
    filled: tuple[tuple[Order, Fill], ...]
    """Decided earlier, filled in this hour."""
    cancelled: tuple[tuple[Order, Cancellation], ...]
    """Decided earlier, cancelled in this hour."""
    portfolio: Portfolio
    """At the end of the hour."""
    repeated: bool = field(default=False, compare=False)
    """The hour had been traded before, and nothing was done now."""

    def orders_frame(self) -> pd.DataFrame:
        """The rows of the `trade_orders` table for this hour; a single one, without an order, for a refused hour."""
        rows = [
            _row(order, "filled", fill.note or order.reason)
            | {"quantity": plain(fill.quantity), "price": plain(fill.price), "fee": plain(fill.fee)}
            | {"filled_hour": fill.hour}
            for order, fill in self.filled
        ]
        rows += [_row(order, "cancelled", end.reason) for order, end in self.cancelled]
        rows += [_row(order, "submitted", order.reason) for order in self.submitted]
        if self.state == "refused":
            rows = [{"status": "refused", "reason": self.reason}]
        frame = pd.DataFrame(rows, columns=list(TRADE_ORDERS))
        return conform(frame.assign(timestamp=self.hour), "trade_orders")


def trade_hour(
    ledger: Ledger,
    hour: datetime,
    predictions: pd.DataFrame,
    prices: pd.DataFrame,
    health_state: str,
    rules: TradingRules,
    account: str,
    now: datetime,
    *,
    mail: MailSettings | None = None,
    broker: Broker | None = None,
) -> HourResult:
    """Trade an hour: settle what earlier hours submitted at this hour's prices, then decide and submit.

    All of it is one transaction. An hour is traded once: later calls tell what was recorded, whatever they are given.
    A past hour, one that is older than the newest traded hour, or one that has not begun is refused, and nothing is
    written. In HALTED no price is believed, so nothing is filled.

    Args:
        ledger: where everything is recorded.
        hour: naive UTC, a whole hour.
        predictions: rows of the `predictions` table for that hour.
        prices: believed rows of that hour: `token`, `price`, `volume` (of 24 hours, USD).
        health_state: ACTIVE, REDUCE_ONLY or HALTED.
        rules: sizes, costs and limits.
        account: whose hour it is; several accounts may share a ledger.
        now: naive UTC.
        mail: whom to tell of fills; null writes no mail.
        broker: executes orders; the paper broker by default.

    Raises:
        DataError: an argument is malformed, or the ledger's file cannot be used.
        SettingsError: the account began with another amount of cash than the rules say.
        TemporaryError: another process holds the ledger.
    """
    _check_arguments(hour, account, now)
    with ledger.write(account) as books:
        if books.outcome(hour) is not None:
            return _recorded(books, hour, rules, repeated=True)
        refusal = _refusal(books, hour, rules, now)
        if refusal:
            return HourResult(hour, "refused", refusal, (), (), (), books.portfolio(hour, rules.cash))
        health = _health(health_state, hour)
        signals = read_signals(predictions, hour)
        quotes = {} if health is HealthState.HALTED else read_quotes(prices, hour)
        _open_account(books, rules)
        filled, cancelled = _settle(books, hour, quotes, rules, broker or PaperBroker(rules))
        submitted = _submit(books, hour, signals, quotes, health, rules)
        outcome = f"{health}: {filled} filled, {cancelled} cancelled, {submitted} submitted"
        books.close_hour(hour, health, outcome, now)
        result = _recorded(books, hour, rules, repeated=False)
        if mail and result.filled:
            books.post(compose(account, hour, result.filled, result.portfolio, mail.recipients))
        return result


def _check_arguments(hour: datetime, account: str, now: datetime) -> None:
    if hour.tzinfo or now.tzinfo:
        raise DataError(f"hour {hour} and now {now} must be naive UTC")
    if hour != hour.replace(minute=0, second=0, microsecond=0):
        raise DataError(f"{hour} is not a whole hour")
    if not account or "|" in account or not account.isprintable():
        raise DataError(f"{account!r} cannot name an account; use letters, digits and dashes")


def _refusal(books: Books, hour: datetime, rules: TradingRules, now: datetime) -> str | None:
    """Why an hour may not trade. The sentences do not change with time, so a refused hour can be told again."""
    if hour > now:
        return f"refused: the hour {hour} has not begun"
    newest = books.newest_hour()
    if now - hour > rules.max_age or (newest is not None and hour < newest):
        return (
            f"refused: the hour {hour} is older than {rules.max_age // HOUR} hours, or a later one has been traded "
            "already; past hours never trade"
        )
    return None


def _health(state: str, hour: datetime) -> HealthState:
    try:
        return HealthState(state)
    except ValueError as error:
        raise DataError(f"market health of {hour} is {state!r}; known are {', '.join(HealthState)}") from error


def _open_account(books: Books, rules: TradingRules) -> None:
    opening_cash = books.opening_cash()
    if opening_cash is None:
        books.open_account(rules.cash)
    elif opening_cash != rules.cash:
        raise SettingsError(
            f"the account {books.account} began with {opening_cash} USD, not with BREAKOUT_CASH={rules.cash}; set it "
            "back, or name another file in BREAKOUT_LEDGER to begin anew"
        )


def _settle(
    books: Books, hour: datetime, quotes: Mapping[str, Quote], rules: TradingRules, broker: Broker
) -> tuple[int, int]:
    """Book what this hour makes of the orders of earlier hours, and the prices of what is then held.

    Returns the numbers of orders filled and cancelled.
    """
    before = books.portfolio(hour, rules.cash)
    cash, filled, cancelled = before.cash, 0, 0
    held = {position.token for position in before.positions}
    # Sales first, for what they bring may pay for a purchase; then as the orders were ranked when they were decided.
    for order in sorted(before.open_orders, key=_rank):
        quote = quotes.get(order.token)
        end = broker.settle(order, hour, quote.price if quote else None, cash)
        if isinstance(end, Fill):
            books.fill(end)
            cash += end.cash_flow
            filled += 1
            held ^= {order.token}  # bought or sold; a token is held once or not at all
        elif isinstance(end, Cancellation):
            books.cancel(end)
            cancelled += 1
    books.mark(hour, {token: quotes[token].price for token in sorted(held) if token in quotes})
    return filled, cancelled


def _submit(
    books: Books,
    hour: datetime,
    signals: Sequence[Signal],
    quotes: Mapping[str, Quote],
    health: HealthState,
    rules: TradingRules,
) -> int:
    """Decide this hour's orders and record them; returns their number."""
    intents = decide(books.portfolio(hour, rules.cash), signals, quotes, health, rules, hour)
    for intent in intents:
        books.submit(Order(order_id=order_id(books.account, intent), **vars(intent)))
    return len(intents)


def _rank(order: Order) -> tuple[bool, datetime, float, str]:
    return order.side == "buy", order.hour, -(order.probability or 0), order.token


def _row(order: Order, status: str, reason: str) -> dict[str, object]:
    return {
        "order_id": order.order_id,
        "token": order.token,
        "side": order.side,
        "quantity": plain(order.quantity),
        "price": plain(order.price),
        "status": status,
        "reason": reason,
        "decided_hour": order.hour,
        "model_hash": order.model_hash,
        "probability": order.probability,
    }


def _recorded(books: Books, hour: datetime, rules: TradingRules, *, repeated: bool) -> HourResult:
    known = {order.order_id: order for order in books.orders(hour)}
    submitted = [order for order in known.values() if order.hour == hour]
    filled = [(known[fill.order_id], fill) for fill in books.fills(hour).values() if fill.hour == hour]
    ended = [(known[end.order_id], end) for end in books.cancellations(hour).values() if end.hour == hour]
    return HourResult(
        hour=hour,
        state="traded",
        reason=books.outcome(hour) or "",
        submitted=tuple(sorted(submitted, key=_rank)),
        filled=tuple(sorted(filled, key=lambda pair: _rank(pair[0]))),
        cancelled=tuple(sorted(ended, key=lambda pair: _rank(pair[0]))),
        portfolio=books.portfolio(hour, rules.cash),
        repeated=repeated,
    )
