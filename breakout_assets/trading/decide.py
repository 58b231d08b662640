"""Which orders an hour calls for: a pure function of what is held, what is predicted and what it costs."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

import pandas as pd

from breakout_assets.errors import DataError
from breakout_assets.market.health import HealthState
from breakout_assets.trading.money import affordable, decimal_of, fee_on, paid, quantity_for, received, times
from breakout_assets.trading.portfolio import OrderIntent, Portfolio
from breakout_assets.trading.rules import HOUR, TradingRules


@dataclass(frozen=True)
class Signal:
    """A prediction that says buy."""

    token: str
    probability: float
    threshold: float | None
    model_hash: str | None


@dataclass(frozen=True)
class Quote:
    """What a token costs in an hour, USD; `volume` is that of 24 hours, null where it is unknown."""

    price: Decimal
    volume: Decimal | None


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


def decide(
    portfolio: Portfolio,
    signals: Iterable[Signal],
    quotes: Mapping[str, Quote],
    health: HealthState,
    rules: TradingRules,
    hour: datetime,
) -> list[OrderIntent]:
    """The orders of an hour: exits first, then entries, best signal first.

    Exits are due in every state of the market; entries are made in ACTIVE only.

    Args:
        portfolio: the account, with this hour's fills booked.
        signals: what says buy, best first, as `read_signals` gives them.
        quotes: believed prices of the hour by token; empty where none is believed.
        health: state of the market.
        rules: sizes, costs and limits.
        hour: the hour to decide for.
    """
    intents = _exits(portfolio, quotes, rules, hour)
    if health is HealthState.ACTIVE:
        intents += _entries(portfolio, signals, quotes, rules, hour)
    return intents


def _exits(portfolio: Portfolio, quotes: Mapping[str, Quote], rules: TradingRules, hour: datetime) -> list[OrderIntent]:
    leaving = {order.position for order in portfolio.open_orders}
    return [
        OrderIntent(
            hour=hour,
            token=position.token,
            side="sell",
            purpose="exit",
            quantity=position.quantity,
            price=quotes[position.token].price if position.token in quotes else position.mark.price,
            reason=f"exit {rules.horizon // HOUR} hours after the entry was decided at {position.decided_hour}",
            position=position.order_id,
            model_hash=None,
            probability=None,
        )
        for position in portfolio.positions
        if hour >= position.decided_hour + rules.horizon and position.order_id not in leaving
    ]


def _entries(
    portfolio: Portfolio,
    signals: Iterable[Signal],
    quotes: Mapping[str, Quote],
    rules: TradingRules,
    hour: datetime,
) -> list[OrderIntent]:
    waiting = [order for order in portfolio.open_orders if order.side == "buy"]
    held = {position.token for position in portfolio.positions} | {order.token for order in portfolio.open_orders}
    # A position that is being sold holds its place until the sale is filled.
    places = rules.max_positions - len(portfolio.positions) - len(waiting)
    free = portfolio.cash - sum((_cost(order.quantity, order.price, rules) for order in waiting), Decimal(0))
    intents: list[OrderIntent] = []
    for signal in signals:
        if len(intents) >= places:
            break
        if signal.token in held or signal.token not in quotes:
            continue
        quote = quotes[signal.token]
        quantity, limit = _size(quote, portfolio.equity, free, rules)
        if received(quantity, quote.price) < rules.min_order:
            continue
        free -= _cost(quantity, quote.price, rules)
        intents.append(
            OrderIntent(
                hour=hour,
                token=signal.token,
                side="buy",
                purpose="entry",
                quantity=quantity,
                price=quote.price,
                reason=f"{_because(signal)}; {limit}",
                position=None,
                model_hash=signal.model_hash,
                probability=signal.probability,
            )
        )
    return intents


def _size(quote: Quote, equity: Decimal, free: Decimal, rules: TradingRules) -> tuple[Decimal, str]:
    """The quantity to buy, and which limit it came from."""
    sizes = (
        (quantity_for(rules.order_fraction * equity, quote.price), f"{rules.order_fraction:%} of equity"),
        (
            quantity_for(rules.max_volume_share * (quote.volume or Decimal(0)), quote.price),
            f"limited to {rules.max_volume_share:%} of the 24-hour volume",
        ),
        (affordable(free, times(quote.price, 1 + rules.slippage), rules.fee), "limited by the free cash"),
    )
    return min(sizes, key=lambda size: size[0])


def _cost(quantity: Decimal, price: Decimal, rules: TradingRules) -> Decimal:
    """What a purchase will take if the price stays: it is reserved until the order is filled or cancelled."""
    value = paid(quantity, times(price, 1 + rules.slippage))
    return value + fee_on(value, rules.fee)


def _because(signal: Signal) -> str:
    if signal.threshold is None:
        return f"probability {signal.probability:.4f}"
    return f"probability {signal.probability:.4f} reaches the threshold {signal.threshold:.4f}"


def _refuse_duplicates(frame: pd.DataFrame, what: str, hour: datetime) -> None:
    twice = frame.loc[frame["token"].duplicated(), "token"]
    if not twice.empty:
        raise DataError(f"{what} of {hour}: {twice.iloc[0]} appears twice; a token has one row an hour")
