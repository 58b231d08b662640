"""Which orders an hour calls for: pure functions of what is held, what is predicted and what it costs."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Final

import pandas as pd

from breakout_assets.errors import DataError
from breakout_assets.market.health import HealthState
from breakout_assets.trading.brokers import Quote
from breakout_assets.trading.money import (
    affordable,
    decimal_of,
    fee_on,
    floor_to,
    paid,
    plain,
    quantity_for,
    received,
    times,
    usd,
)
from breakout_assets.trading.orders import OrderIntent, OrderLimits
from breakout_assets.trading.portfolio import OpenOrder, Portfolio, Position
from breakout_assets.trading.rules import ENTRY_PATIENCE, HOUR, TradingRules

# A position must still be large enough for the venue to be sold after it lost a fifth of its price. Beyond that the
# rest is small money, and larger entries for its sake would be a larger loss.
ROOM_FOR_THE_EXIT: Final = Decimal("0.8")


class RefusalCode(StrEnum):
    """Why something was not ordered."""

    NO_ENTRIES = "no_entries"
    """The market, a person or a guard lets nothing be opened."""
    HELD = "held"
    """The token is held, or an order of it is open."""
    COOLDOWN = "cooldown"
    NO_PRICE = "no_price"
    NOT_TRADED = "not_traded"
    """The venue does not trade the token."""
    MAX_POSITIONS = "max_positions"
    CASH = "cash"
    VOLUME = "volume"
    BELOW_MINIMUM = "below_minimum"
    ENTRY_OPEN = "entry_open"
    """An exit waits until the rest of its entry has ended: the account would trade with itself."""


@dataclass(frozen=True)
class Refusal:
    """A buy signal that was not followed, or an exit that is due and cannot be ordered."""

    token: str
    code: RefusalCode
    reason: str


@dataclass(frozen=True)
class Decision:
    """The orders of an hour, exits first, then entries, best signal first; and what was not ordered."""

    intents: tuple[OrderIntent, ...]
    refusals: tuple[Refusal, ...]


@dataclass(frozen=True)
class _Scene:
    """What the decision on one token needs to know, whichever token it is."""

    quotes: Mapping[str, Quote]
    limits: Mapping[str, OrderLimits]
    rules: TradingRules
    hour: datetime


@dataclass(frozen=True)
class Signal:
    """A prediction that says buy."""

    token: str
    probability: float
    threshold: float | None
    model_hash: str | None


def order_id(account: str, intent: OrderIntent) -> str:
    """The identity of an order: 32 hex digits of what must be unique, and of nothing that a retraining changes."""
    # Fixed forms left and right of the token, and no `|` in account names, make the joined text unambiguous.
    key = "|".join((account, intent.hour.isoformat(), intent.token, intent.side, intent.purpose))
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def read_signals(predictions: pd.DataFrame, hour: datetime) -> list[Signal]:
    """The predictions that say buy, best first: by probability, then by token.

    Raises:
        DataError: the rows are of another hour, name a token twice, or say buy without a probability in [0, 1].
    """
    if not (predictions["timestamp"] == pd.Timestamp(hour)).all():
        raise DataError(f"the predictions given for {hour} are of another hour; materialise predictions of that hour")
    _refuse_duplicates(predictions, "predictions", hour)
    buys = predictions[predictions["decision"] == "buy"]
    wrong = buys[~buys["probability"].between(0, 1)]
    if not wrong.empty:
        raise DataError(f"predictions of {hour}: {wrong['token'].iloc[0]} says buy without a probability in [0, 1]")
    columns = (buys[name] for name in ("token", "probability", "threshold", "model_hash"))
    signals = [
        Signal(
            token=str(token),
            probability=float(probability),
            threshold=None if pd.isna(threshold) else float(threshold),
            model_hash=None if pd.isna(model_hash) else str(model_hash),
        )
        for token, probability, threshold, model_hash in zip(*columns, strict=True)
    ]
    return sorted(signals, key=lambda signal: (-signal.probability, signal.token))


def read_quotes(prices: pd.DataFrame, hour: datetime) -> dict[str, Quote]:
    """The believed prices of an hour by token, from the columns `token`, `price`, `volume`.

    Raises:
        DataError: a token appears twice, a price is not a positive number, or a volume is negative.
    """
    _refuse_duplicates(prices, "prices", hour)
    positive = (prices["price"] > 0) & (prices["price"] < float("inf"))
    known = prices["volume"].isna() | ((prices["volume"] >= 0) & (prices["volume"] < float("inf")))
    wrong = prices[~(positive & known)]
    if not wrong.empty:
        row = wrong.iloc[0]
        raise DataError(
            f"prices of {hour}: {row['token']} has price {row['price']} and volume {row['volume']}; only rows with "
            "a positive price and no negative volume may be traded on"
        )
    return {
        str(token): Quote(decimal_of(price), None if pd.isna(volume) else decimal_of(volume))
        for token, price, volume in zip(prices["token"], prices["price"], prices["volume"], strict=True)
    }


def drawdown_block(equity: Decimal, peak: Decimal, rules: TradingRules) -> str | None:
    """Why nothing may be opened at this equity, given its highest so far; null if nothing is in the way."""
    if rules.max_drawdown is None or equity > times(peak, 1 - rules.max_drawdown):
        return None
    return (
        f"equity of {usd(equity)} USD has fallen by {rules.max_drawdown:%} or more from its peak of {usd(peak)} USD: "
        "nothing is opened"
    )


def outdated(
    portfolio: Portfolio,
    quotes: Mapping[str, Quote],
    rules: TradingRules,
    hour: datetime,
    blocks: Sequence[str] = (),
) -> list[tuple[OpenOrder, str]]:
    """The open orders to be cancelled now, each with the reason.

    Only orders that the venue is known to have: of those whose sending is unproven, a cancellation would prove nothing,
    and those that are being cancelled already need no second reason.

    Args:
        portfolio: the account, with everything booked that the venue has executed until now.
        quotes: believed prices of the hour by token; empty where none is believed.
        rules: when an exit is due.
        hour: the hour to decide for.
        blocks: everything that stands against buying; an entry that still waits would buy.
    """
    held = {position.order_id: position for position in portfolio.positions}
    reasons = (
        (each, _why_outdated(each, held, quotes, rules, hour, blocks))
        for each in portfolio.open_orders
        if each.status == "accepted"
    )
    return [(each, reason) for each, reason in reasons if reason]


def _why_outdated(
    each: OpenOrder,
    held: Mapping[str, Position],
    quotes: Mapping[str, Quote],
    rules: TradingRules,
    hour: datetime,
    blocks: Sequence[str],
) -> str | None:
    order = each.order
    position = held.get(order.position or order.order_id)
    due = _due(position, quotes, rules, hour) if position else None
    if order.purpose == "entry":
        if hour - order.hour >= ENTRY_PATIENCE:
            return f"not filled within {ENTRY_PATIENCE // HOUR} hours of the decision"
        if due:  # the two orders of one token could trade with each other
            return f"what it bought so far is to be left: {due}"
        return "; ".join(blocks) or None
    if order.hour >= hour:
        return None
    if position is None:
        return "nothing that could be sold is left of the position"
    # A reason that was true for one hour only, like a stop-loss before a recovery, would not lead to a new order.
    # Such an exit stays as it was ordered, so that what was decided is carried through.
    if due and order.token in quotes:
        return f"not filled since {order.hour}; it is ordered anew at the price of {hour}"
    return None


def decide(
    portfolio: Portfolio,
    signals: Iterable[Signal],
    quotes: Mapping[str, Quote],
    limits: Mapping[str, OrderLimits],
    health: HealthState,
    blocks: Sequence[str],
    rules: TradingRules,
    hour: datetime,
) -> Decision:
    """The orders of an hour: exits first, then entries, best signal first.

    Exits are due in every state of the market; entries are made in ACTIVE only.

    Args:
        portfolio: the account, with everything booked that was executed until now, and marked at the prices of
            earlier hours. What is held counts at the price of the hour where there is one.
        signals: what says buy, best first, as `read_signals` gives them.
        quotes: believed prices of the hour by token; in HALTED none is.
        limits: what the venue allows, by token; a token that is missing is not traded there.
        health: state of the market.
        blocks: sentences why nothing may be opened: a kill switch, a drawdown, an unexplained difference.
        rules: sizes, costs and limits.
        hour: the hour to decide for.
    """
    scene = _Scene({} if health is HealthState.HALTED else quotes, limits, rules, hour)
    exits = _exits(portfolio, scene)
    reasons = [] if health is HealthState.ACTIVE else [f"the market is {health}"]
    reasons += blocks
    if reasons:
        refusals = [Refusal(each.token, RefusalCode.NO_ENTRIES, "; ".join(reasons)) for each in signals]
        return Decision(exits.intents, (*exits.refusals, *refusals))
    entries = _entries(portfolio, signals, scene)
    return Decision(exits.intents + entries.intents, exits.refusals + entries.refusals)


def _due(position: Position, quotes: Mapping[str, Quote], rules: TradingRules, hour: datetime) -> str | None:
    """Why a position is to be left now; null if it is not."""
    if hour >= position.decided_hour + rules.horizon:
        return f"exit {rules.horizon // HOUR} hours after the entry was decided at {position.decided_hour}"
    if position.token not in quotes:
        return None
    price = quotes[position.token].price
    compared = f"{plain(price)} USD against {plain(position.entry_price)} USD at the entry"
    if rules.stop_loss is not None and price <= times(position.entry_price, 1 - rules.stop_loss):
        return f"stop-loss at -{rules.stop_loss:%}: {compared}"
    if rules.take_profit is not None and price >= times(position.entry_price, 1 + rules.take_profit):
        return f"take-profit at +{rules.take_profit:%}: {compared}"
    if (position.unpriced + 1) * HOUR >= rules.vanished_after:  # this hour has one: those between were without
        return f"its price is back after {position.unpriced} hours without a believed one"
    return None


def _exits(portfolio: Portfolio, scene: _Scene) -> Decision:
    waiting = {each.order.token: each.order for each in portfolio.open_orders}
    intents: dict[str, OrderIntent] = {}
    refusals: list[Refusal] = []
    for position in portfolio.positions:
        due = _due(position, scene.quotes, scene.rules, scene.hour)
        # A token has one order an hour: a second position of it, once dust that rose again, is left in the next.
        if due is None or position.token in intents:
            continue
        if (order := waiting.get(position.token)) is not None:
            if order.purpose == "entry":
                reason = f"{due}; it waits until the rest of the entry of {order.hour} has ended"
                refusals.append(Refusal(position.token, RefusalCode.ENTRY_OPEN, reason))
            continue
        result = _exit(position, due, scene)
        if isinstance(result, Refusal):
            refusals.append(result)
        else:
            intents[position.token] = result
    return Decision(tuple(intents.values()), tuple(refusals))


def _exit(position: Position, due: str, scene: _Scene) -> OrderIntent | Refusal:
    limits, rules = scene.limits.get(position.token), scene.rules
    if limits is None:
        reason = f"{due}; the venue does not trade it, so that it cannot be sold there"
        return Refusal(position.token, RefusalCode.NOT_TRADED, reason)
    price = _price(position, scene.quotes)
    quantity = floor_to(position.quantity, limits.quantity_step)
    if not _sellable(quantity, price, limits, rules):
        reason = f"{due}; {plain(quantity)} units at {plain(price)} USD are less than the venue sells"
        return Refusal(position.token, RefusalCode.BELOW_MINIMUM, reason)
    return OrderIntent(
        hour=scene.hour,
        token=position.token,
        side="sell",
        purpose="exit",
        quantity=quantity,
        price=price,
        limit=_least(price, limits, rules),
        reason=due,
        position=position.order_id,
        model_hash=None,
        probability=None,
    )


def _least(price: Decimal, limits: OrderLimits, rules: TradingRules) -> Decimal:
    """The limit of a sale: down to the venue's step, for a lower one sells more surely; at least one step."""
    least = times(price, 1 - rules.max_price_move)
    step = limits.price_step
    return least if step is None else max(floor_to(least, step), step)


def _most(price: Decimal, limits: OrderLimits, rules: TradingRules) -> Decimal:
    """The limit of a purchase, down to the venue's step; 0 if the price is far below one."""
    most = times(price, 1 + rules.max_price_move)
    return most if limits.price_step is None else floor_to(most, limits.price_step)


def _sellable(quantity: Decimal, price: Decimal, limits: OrderLimits, rules: TradingRules) -> bool:
    """Whether a sale decided at this price keeps the venue's minimums; venues value an order at its limit."""
    value = received(quantity, _least(price, limits, rules))
    return quantity > 0 and quantity >= limits.min_quantity and value >= limits.min_value


def _entries(portfolio: Portfolio, signals: Iterable[Signal], scene: _Scene) -> Decision:
    rules = scene.rules
    waiting = [each for each in portfolio.open_orders if each.order.side == "buy"]
    taken = {position.token for position in portfolio.positions} | {each.order.token for each in portfolio.open_orders}
    # An entry that is filled in part is one position. One that is being sold holds its place until the sale is filled.
    occupied = {position.order_id for position in portfolio.positions} | {each.order.order_id for each in waiting}
    places = rules.max_positions - len(occupied)
    equity = equity_at(portfolio, scene.quotes)
    free = portfolio.cash - times(rules.cash_floor, max(equity, Decimal(0)))
    free -= sum((_reserve(each.remaining, each.order.limit, rules) for each in waiting), Decimal(0))
    intents: list[OrderIntent] = []
    refusals: list[Refusal] = []
    for signal in signals:
        result = _obstacle(signal.token, portfolio, taken, scene)
        if result is None and len(intents) >= places:
            reason = f"all {rules.max_positions} places are taken"
            result = Refusal(signal.token, RefusalCode.MAX_POSITIONS, reason)
        if result is None:
            sized = _entry(signal, equity, free, scene)
            if isinstance(sized, OrderIntent):
                intents.append(sized)
                taken.add(sized.token)
                free -= _reserve(sized.quantity, sized.limit, rules)
                continue
            result = sized
        refusals.append(result)
    return Decision(tuple(intents), tuple(refusals))


def _obstacle(token: str, portfolio: Portfolio, taken: set[str], scene: _Scene) -> Refusal | None:
    """What is in the way of buying a token, whatever the size."""
    cooldown = scene.rules.cooldown
    if token in taken:
        return Refusal(token, RefusalCode.HELD, "it is held, or an order of it is open")
    left = portfolio.left.get(token)
    if left is not None and scene.hour < left + cooldown:
        reason = f"it was sold at {left}; it may be bought again {cooldown // HOUR} hours later"
        return Refusal(token, RefusalCode.COOLDOWN, reason)
    if token not in scene.quotes:
        return Refusal(token, RefusalCode.NO_PRICE, f"it has no believed price at {scene.hour}")
    if token not in scene.limits:
        return Refusal(token, RefusalCode.NOT_TRADED, "the venue does not trade it")
    return None


def _entry(signal: Signal, equity: Decimal, free: Decimal, scene: _Scene) -> OrderIntent | Refusal:
    quote, limits, rules = scene.quotes[signal.token], scene.limits[signal.token], scene.rules
    limit = _most(quote.price, limits, rules)
    if limit <= 0:
        reason = f"its price of {plain(quote.price)} USD is below the venue's step of {limits.price_step} USD"
        return Refusal(signal.token, RefusalCode.BELOW_MINIMUM, reason)
    quantity, code, sized = _size(quote, limit, equity, free, rules)
    quantity = floor_to(quantity, limits.quantity_step)
    # Some venues keep their fee in what was bought, and a rest below a step cannot be sold.
    kept = floor_to(times(quantity, 1 - rules.fee), limits.quantity_step)
    fallen = times(quote.price, ROOM_FOR_THE_EXIT)
    if received(quantity, quote.price) < rules.min_order or not _sellable(kept, fallen, limits, rules):
        value = usd(received(quantity, quote.price))
        least = f"{usd(max(rules.min_order, limits.min_value))} USD or {plain(limits.min_quantity)} units"
        reason = f"{sized}: {value} USD, too little for an order of at least {least} and for its exit after a fall"
        return Refusal(signal.token, code, reason)
    return OrderIntent(
        hour=scene.hour,
        token=signal.token,
        side="buy",
        purpose="entry",
        quantity=quantity,
        price=quote.price,
        limit=limit,
        reason=f"{_because(signal)}; {sized}",
        position=None,
        model_hash=signal.model_hash,
        probability=signal.probability,
    )


def _size(
    quote: Quote, limit: Decimal, equity: Decimal, free: Decimal, rules: TradingRules
) -> tuple[Decimal, RefusalCode, str]:
    """The quantity to buy, where it came from, and the code of the refusal if it is too little."""
    volume = quote.volume or Decimal(0)
    by_volume = f"limited to {rules.max_volume_share:%} of the 24-hour volume"
    sizes = (
        (
            quantity_for(rules.order_fraction * equity, quote.price),
            RefusalCode.BELOW_MINIMUM,
            f"{rules.order_fraction:%} of equity",
        ),
        (
            quantity_for(rules.max_volume_share * volume, quote.price),
            RefusalCode.VOLUME,
            by_volume if quote.volume is not None else f"{by_volume}, which is unknown",
        ),
        (affordable(free, limit, rules.fee), RefusalCode.CASH, "limited by the free cash"),
    )
    return min(sizes, key=lambda size: size[0])


def _price(position: Position, quotes: Mapping[str, Quote]) -> Decimal:
    """That of the hour, or the newest before it."""
    return quotes[position.token].price if position.token in quotes else position.mark.price


def equity_at(portfolio: Portfolio, quotes: Mapping[str, Quote]) -> Decimal:
    """Cash and what is held, USD, at the prices of the hour where there are any."""
    values = (received(position.quantity, _price(position, quotes)) for position in portfolio.positions)
    return portfolio.cash + sum(values, Decimal(0))


def _reserve(quantity: Decimal, limit: Decimal, rules: TradingRules) -> Decimal:
    """The most that a purchase can take: it is reserved until the order has ended."""
    value = paid(quantity, limit)
    return value + fee_on(value, rules.fee)


def _because(signal: Signal) -> str:
    if signal.threshold is None:
        return f"probability {signal.probability:.4f}"
    return f"probability {signal.probability:.4f} reaches the threshold {signal.threshold:.4f}"


def _refuse_duplicates(frame: pd.DataFrame, what: str, hour: datetime) -> None:
    twice = frame.loc[frame["token"].duplicated(), "token"]
    if not twice.empty:
        raise DataError(f"{what} of {hour}: {twice.iloc[0]} appears twice; a token has one row an hour")
