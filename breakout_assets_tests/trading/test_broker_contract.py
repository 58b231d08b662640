"""Every broker holds the rules of `broker_contract`."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import pytest

from breakout_assets.trading.brokers import Broker, Quote
from breakout_assets.trading.dry_run import DryRun
from breakout_assets.trading.ledger import Ledger
from breakout_assets.trading.orders import Order
from breakout_assets.trading.paper import PaperBroker
from breakout_assets.trading.rules import TradingRules
from breakout_assets.trading.schema import paper_executions, paper_orders
from breakout_assets_tests.trading.broker_contract import CASH, HOUR, RULES, Harness
from breakout_assets_tests.trading.exchangeserver import PAIRS, broker_at, serving
from breakout_assets_tests.trading.fakeexchange import FakeExchange


@dataclass(frozen=True)
class ExchangeHarness:
    """The live broker at the exchange on loopback."""

    exchange: FakeExchange
    broker: Broker
    fills_in_parts: bool = True
    trades_everything: bool = False

    def fill(self, order: Order, quantity: Decimal) -> None:
        self.exchange.fill(order.order_id, quantity)

    def give(self, token: str, units: Decimal) -> None:
        base = next(pair.symbol for pair in PAIRS if pair.token == token).split("/")[0]
        self.exchange.held[base] = self.exchange.held.get(base, Decimal(0)) + units


@dataclass
class PaperHarness:
    """The paper broker, free of costs, so that a price is executed as it is."""

    broker: PaperBroker
    hour: datetime = HOUR
    fills_in_parts: bool = True
    trades_everything: bool = True

    def fill(self, order: Order, quantity: Decimal) -> None:
        self.hour += timedelta(hours=1)
        # A tenth of an hour's volume is what a snapshot executes.
        volume = quantity * order.limit * 240
        self.broker.open_hour(self.hour, {order.token: Quote(order.limit, volume)})

    def give(self, token: str, units: Decimal) -> None:
        terms = {"hour": HOUR, "token": token, "side": "buy", "purpose": "entry", "quantity": units, "limit": units}
        with self.broker.ledger.write("paper") as books:
            given = {"order_id": "given", "account": "paper", "status": "filled", **terms}
            books.connection.execute(paper_orders.insert().values(**given))
            trade = {"order_id": "given", "trade_id": "1", "price": Decimal(0), "quantity": units, "fee": Decimal(0)}
            books.connection.execute(paper_executions.insert().values(**trade))


@contextmanager
def paper() -> Iterator[Harness]:
    """The paper venue in a new ledger."""
    free = TradingRules(cash=CASH, fee=Decimal(0), spread=Decimal(0), slippage=Decimal(0))
    with TemporaryDirectory() as folder:
        yield PaperHarness(PaperBroker(Ledger(Path(folder) / "ledger.sqlite"), "paper", free))


@contextmanager
def exchange(fee_in: Literal["quote", "base", "received", "BNB"]) -> Iterator[Harness]:
    """An exchange that takes its fees in this."""
    with serving(FakeExchange(held={"USDT": CASH, "BNB": Decimal(1)}, fee_in=fee_in)) as venue:
        yield ExchangeHarness(venue, broker_at(venue))


@contextmanager
def dry_run() -> Iterator[Harness]:
    """A dry run, which executes at another broker than the one whose limits it has."""
    with serving(FakeExchange()) as watched, serving(FakeExchange(held={"USDT": CASH})) as traded:
        yield ExchangeHarness(traded, DryRun(broker_at(watched), broker_at(traded)))
        assert not watched.orders
        assert not watched.calls("POST order") + watched.calls("DELETE order")


HARNESSES: dict[str, Callable[[], AbstractContextManager[Harness]]] = {
    "exchange": lambda: exchange("quote"),
    "exchange with fees in the token": lambda: exchange("base"),
    "exchange with fees in what is received": lambda: exchange("received"),
    "exchange with fees in BNB": lambda: exchange("BNB"),
    "dry run": dry_run,
    "paper": paper,
}


@pytest.mark.parametrize("name", HARNESSES)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_broker(name: str, rule: Callable[[Harness], None]) -> None:
    with HARNESSES[name]() as harness:
        rule(harness)
