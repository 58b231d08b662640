"""What an hour did, told from the ledger's record up to that hour alone: as rows, and as a mail."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Final, Literal

import pandas as pd

from breakout_assets.tables import TRADE_ORDERS, OutcomeStatus, conform
from breakout_assets.trading.books import NO_STATUS, Books
from breakout_assets.trading.mails import Mail, MailSettings, OrderLine, compose_hour, partition_link
from breakout_assets.trading.money import plain, usd
from breakout_assets.trading.orders import Fill, Order, Status
from breakout_assets.trading.portfolio import Portfolio, mean_price
from breakout_assets.trading.rules import TradingRules

_OUTCOMES: Final[dict[Status, OutcomeStatus]] = {
    "intent": "submitted",
    "absent": "submitted",
    "accepted": "submitted",
    "cancelling": "submitted",
    "sending": "unknown",
    "unknown": "unknown",
    "filled": "filled",
    "cancelled": "cancelled",
    "rejected": "rejected",
}


@dataclass(frozen=True, kw_only=True)
class OrderOutcome:
    """An order that an hour decided, or that something happened to in it."""

    order: Order
    status: OutcomeStatus
    """At the end of the hour."""
    fills: tuple[Fill, ...]
    """Booked in this hour."""
    reason: str

    @property
    def quantity(self) -> Decimal:
        """Units executed in this hour; where there are none, the units ordered."""
        return sum((fill.quantity for fill in self.fills), Decimal(0)) or self.order.quantity

    @property
    def price(self) -> Decimal:
        """Mean price of this hour's fills, USD; where there are none, the price that the decision referred to."""
        if not self.fills:
            return self.order.price
        if len(self.fills) == 1:
            return self.fills[0].price  # with all its digits, as the venue told it
        return mean_price(self.fills)

    @property
    def fee(self) -> Decimal | None:
        """Of this hour's fills, USD; null where there are none."""
        return sum((fill.fee for fill in self.fills), Decimal(0)) if self.fills else None


@dataclass(frozen=True)
class HourResult:
    """What an hour did."""

    hour: datetime
    state: Literal["traded", "refused"]
    reason: str
    """Why it was refused, or what was done, in a sentence."""
    outcomes: tuple[OrderOutcome, ...]
    refused: tuple[tuple[str, str, str], ...]
    """Token, code and reason of each signal that was not followed, and of each exit that could not be ordered."""
    blocks: tuple[str, ...]
    """Why nothing could be opened."""
    portfolio: Portfolio
    """At the end of the hour."""
    repeated: bool = field(default=False, compare=False)
    """The hour had been decided before; only what was unfinished has been done now."""

    def of(self, *statuses: OutcomeStatus) -> tuple[OrderOutcome, ...]:
        """The orders in these states."""
        return tuple(each for each in self.outcomes if each.status in statuses)

    def orders_frame(self) -> pd.DataFrame:
        """The rows of the `trade_orders` table for this hour; a single one, without an order, for a refused hour."""
        rows = [_row(each) for each in self.outcomes]
        rows += [
            {"token": token, "status": "refused", "reason": f"{code}: {reason}"} for token, code, reason in self.refused
        ]
        if self.state == "refused":
            rows = [{"status": "refused", "reason": self.reason}]
        frame = pd.DataFrame(rows, columns=list(TRADE_ORDERS))
        return conform(frame.assign(timestamp=self.hour), "trade_orders")


def recorded(books: Books, hour: datetime, rules: TradingRules, *, repeated: bool = False) -> HourResult:
    """What the ledger says that an hour did."""
    statuses = books.statuses(hour)
    fills = [fill for fill in books.fills(hour) if fill.hour == hour]
    events = [event for event in books.events(hour=hour) if event.status not in NO_STATUS]
    reasons = {event.order_id: event.reason for event in events}
    touched = reasons.keys() | {fill.order_id for fill in fills}
    orders = [order for order in books.orders(hour) if order.order_id in touched or order.hour == hour]
    record = books.record(hour)
    return HourResult(
        hour=hour,
        state="traded",
        reason=record.outcome if record else "",
        outcomes=tuple(
            _outcome(
                order,
                statuses[order.order_id],
                tuple(fill for fill in fills if fill.order_id == order.order_id),
                reasons.get(order.order_id),
            )
            for order in sorted(orders, key=_rank)
        ),
        refused=tuple(books.refused(hour)),
        blocks=tuple(json.loads(record.blocks or "[]")) if record else (),
        portfolio=books.portfolio(hour, rules.cash),
        repeated=repeated,
    )


def post_hour_mail(books: Books, hour: datetime, rules: TradingRules, mail: MailSettings) -> None:
    """Put what an hour did into the outbox: one mail for all of it, as long as nothing of it has been sent."""
    result = recorded(books, hour, rules)
    if not result.outcomes and not result.blocks:
        return
    link = partition_link(mail.ui_url, "trade_orders", f"{hour:%Y-%m-%d-%H:%M}")

    def part(number: int) -> Mail:
        return compose_hour(
            books.account,
            hour,
            [_line(each) for each in result.outcomes],
            portfolio_lines(result.portfolio),
            result.blocks,
            mail.recipients,
            link,
            number,
        )

    books.post_hour(part)


def portfolio_lines(portfolio: Portfolio) -> Sequence[str]:
    """The account in sentences."""
    return (
        f"Equity {usd(portfolio.equity)} USD, of it cash {usd(portfolio.cash)} USD.",
        f"{len(portfolio.positions)} open positions, {len(portfolio.open_orders)} open orders.",
        f"Realised profit {usd(portfolio.realised_profit)} USD, fees paid {usd(portfolio.fees)} USD.",
    )


def _outcome(order: Order, status: Status, fills: tuple[Fill, ...], why: str | None) -> OrderOutcome:
    told = _OUTCOMES[status]
    if told == "submitted" and fills:
        told = "partial"
    ended_badly = told in ("cancelled", "rejected", "unknown")
    return OrderOutcome(
        order=order, status=told, fills=fills, reason=(why if ended_badly and why else None) or order.reason
    )


def _rank(order: Order) -> tuple[bool, datetime, float, str]:
    # Sales first, then as the orders were ranked when they were decided.
    return order.side == "buy", order.hour, -(order.probability or 0), order.token


def _row(outcome: OrderOutcome) -> dict[str, object]:
    order = outcome.order
    return {
        "order_id": order.order_id,
        "token": order.token,
        "side": order.side,
        "quantity": plain(outcome.quantity),
        "price": plain(outcome.price),
        "status": outcome.status,
        "reason": outcome.reason,
        "decided_hour": order.hour,
        "filled_hour": outcome.fills[-1].hour if outcome.fills else None,
        "fee": None if outcome.fee is None else plain(outcome.fee),
        "model_hash": order.model_hash,
        "probability": order.probability,
    }


def _line(outcome: OrderOutcome) -> OrderLine:
    return OrderLine(
        side=outcome.order.side,
        token=outcome.order.token,
        status=outcome.status,
        quantity=outcome.quantity,
        price=outcome.price if outcome.fills else outcome.order.limit,
        value=sum((fill.value for fill in outcome.fills), Decimal(0)) if outcome.fills else None,
        fee=outcome.fee,
        decided=outcome.order.hour,
        why=outcome.reason,
    )
