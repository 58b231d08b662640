"""What ccxt makes of an exchange's answers, in the ledger's terms.

Whatever is odd in an answer raises, and the connection takes that for a broken answer.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from typing import Any, Final, Literal

from breakout_assets.trading.money import QUANTITY_STEP, plain
from breakout_assets.trading.orders import Execution, OrderLimits
from breakout_assets.trading.venues import NextPage

# ccxt's numbers for what `precision` means.
_DECIMAL_PLACES: Final = 2
_TICK_SIZE: Final = 4
# More than any amount has in its finest step, so that no quotient overflows.
_DIGITS: Final = 80

OrderStatus = Literal["open", "filled", "cancelled", "rejected"]
_STATUSES: Final[Mapping[str, OrderStatus]] = {
    "open": "open",
    "canceling": "open",
    "closed": "filled",
    "canceled": "cancelled",
    "expired": "cancelled",
    "rejected": "rejected",
}


@dataclass(frozen=True)
class FoundOrder:
    """An order as the exchange has it."""

    venue_id: str
    status: OrderStatus
    filled: Decimal
    """Units."""
    ending: str | None
    """The exchange's word for an end that is neither a fill nor a cancellation."""
    trade_ids: tuple[Any, ...]
    """Of its executions, where the order names them."""


@dataclass(frozen=True)
class Executions:
    """Executions of one order, and what is to be said of them."""

    all: tuple[Execution, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def quantity(self) -> Decimal:
        """Units, all together."""
        return sum((execution.quantity for execution in self.all), Decimal(0))

    def joined(self, others: "Executions") -> "Executions":
        """With those of others that are not here yet, by the exchange's trade id."""
        known = {execution.trade_id for execution in self.all}
        new = tuple(execution for execution in others.all if execution.trade_id not in known)
        return Executions(self.all + new, tuple(dict.fromkeys(self.notes + others.notes)))


def found_order(answer: Mapping[str, Any]) -> FoundOrder:
    """An order of ccxt."""
    status = answer["status"]
    return FoundOrder(
        venue_id=str(answer["id"]),
        status=_STATUSES[status],
        filled=exact(answer["filled"]),
        ending=status if status in ("expired", "rejected") else None,
        trade_ids=tuple(answer.get("trades") or ()),
    )


def executions_of(
    trades: Iterable[Mapping[str, Any]], venue_id: str, symbol: str, fees_have_signs: bool = True
) -> Executions:
    """Those of ccxt's trades that belong to an order: an exchange that ignores the question gives others', too.

    Args:
        trades: In any order.
        venue_id: The order's.
        symbol: The market's, BASE/QUOTE.
        fees_have_signs: Whether a fee below zero is a rebate; otherwise its sign means nothing.
    """
    base, quote = symbol.split("/")
    own = [trade for trade in trades if trade.get("order") in (None, venue_id)]
    executions, notes = [], []
    for trade in own:
        fees = [(coin, cost if fees_have_signs else abs(cost)) for coin, cost in _fees(trade)]
        executions.append(_execution(trade, fees, base, quote))
        notes += [
            f"trade {trade['id']} took a fee of {plain(cost)} {coin}, which is not booked"
            for coin, cost in fees
            if cost and coin not in (base, quote)
        ]
    return Executions(tuple(executions), tuple(notes))


_Fees = list[tuple[str | None, Decimal]]


def _execution(trade: Mapping[str, Any], fees: _Fees, base: str, quote: str) -> Execution:
    if not trade.get("id"):
        raise ValueError("a trade without an id")
    return Execution(
        trade_id=str(trade["id"]),
        price=exact(trade["price"]),
        quantity=exact(trade["amount"]),
        fee=sum((cost for coin, cost in fees if coin == quote), Decimal(0)),
        fee_in_token=sum((cost for coin, cost in fees if coin == base), Decimal(0)),
    )


def _fees(trade: Mapping[str, Any]) -> _Fees:
    fees = trade.get("fees") or [trade.get("fee") or {}]
    return [(fee.get("currency"), exact(fee.get("cost") or "0")) for fee in fees]


def next_page(
    ways: Iterable[NextPage], trades: Sequence[Mapping[str, Any]], answer: object, asked: Mapping[str, str]
) -> Mapping[str, str] | None:
    """What asks for the page of executions after one; null if nothing is known that would.

    Args:
        ways: The exchange's.
        trades: The page, as ccxt has it.
        answer: The same in the exchange's own shape.
        asked: What asked for this page.
    """
    for way in ways:
        value = _next_value(way, [trade["info"] for trade in trades], answer, asked)
        if value:
            return {way.parameter: value}
    return None


def _next_value(way: NextPage, rows: list[Mapping[str, Any]], answer: object, asked: Mapping[str, str]) -> str | None:
    if way.kind == "number":
        return str(int(asked.get(way.parameter, "1")) + 1)
    if way.kind == "answer":
        parts = answer.values() if isinstance(answer, Mapping) else ()
        told = [part[way.field] for part in parts if isinstance(part, Mapping) and part.get(way.field)]
        return str(told[0]) if told else None
    numbers = [int(row[way.field]) for row in rows if way.field in row]
    if not numbers:
        return None
    return str(max(numbers) + 1 if way.kind == "highest" else min(numbers))


def open_orders(symbol: str | None, client: Any) -> list[Mapping[str, Any]]:
    """The open orders of a market, or of all."""
    return list(client.fetch_open_orders(symbol))


def totals(client: Any) -> dict[str, Decimal]:
    """Free and reserved units by currency."""
    return {code: exact(amount or "0") for code, amount in client.fetch_balance()["total"].items()}


# Steps -----------------------------------------------------------------------------------------------------------


def exact(number: object) -> Decimal:
    """A number of an answer, to its last digit: 0.1 is one tenth.

    Raises:
        ValueError: it is none, or not finite.
    """
    try:
        value = Decimal(number if isinstance(number, str) else repr(number))
    except ArithmeticError:
        raise ValueError(f"{number!r} is no number") from None
    if not value.is_finite():
        raise ValueError(f"{number!r} is no amount")
    return value


def step_of(precision: object, mode: int) -> Decimal | None:
    """The step that an exchange's `precision` means in ccxt's mode; null if there is no fixed one."""
    if precision is None:
        return None
    if mode == _TICK_SIZE:
        step = exact(precision)
        return step if step > 0 else None
    if mode == _DECIMAL_PLACES:
        return Decimal(1).scaleb(-int(exact(precision)))
    return None  # significant digits: the step depends on the amount; no exchange of the table has them


def is_multiple(amount: Decimal, step: Decimal) -> bool:
    """Whether an amount can be ordered in these steps."""
    return Context(prec=_DIGITS).remainder(amount, step) == 0


def limits_of(market: Mapping[str, Any], mode: int) -> OrderLimits | None:
    """What a market of ccxt allows; null if it tells no step of the quantity."""
    step = step_of(market["precision"]["amount"], mode)
    if step is None:
        return None
    smallest = {what: exact((market["limits"].get(what) or {}).get("min") or "0") for what in ("amount", "cost")}
    return OrderLimits(
        quantity_step=max(step, QUANTITY_STEP),  # a finer one could not be booked
        price_step=step_of(market["precision"]["price"], mode),
        min_quantity=smallest["amount"],
        min_value=smallest["cost"],
    )
