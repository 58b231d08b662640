"""Frames, accounts and processes that the tests of this room share."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import sqlalchemy as sa

from breakout_assets.tables import conform
from breakout_assets.trading.brokers import Broker
from breakout_assets.trading.hourly import trade_hour
from breakout_assets.trading.ledger import Ledger
from breakout_assets.trading.mails import MailSettings
from breakout_assets.trading.outcome import HourResult
from breakout_assets.trading.paper import PaperBroker
from breakout_assets.trading.rules import HOUR, TradingRules
from breakout_assets.trading.schema import schema
from breakout_assets_tests.trading.mailserver import MAIL

__all__ = ["MAIL"]

START = datetime.fromisoformat("2024-03-01T00:00")
RULES = TradingRules()
FREE_OF_COST = replace(RULES, fee=Decimal(0), spread=Decimal(0), slippage=Decimal(0))
VOLUME = 1e9
Prices = Mapping[str, float | tuple[float, float | None]]


def at(hours: int) -> datetime:
    return START + hours * HOUR


def predictions(hour: datetime, buys: Mapping[str, float], model_hash: str = "m1") -> pd.DataFrame:
    """PREDICTION rows: these tokens say buy with this probability, and one more says pass."""
    rows: list[dict[str, Any]] = [
        {"token": token, "probability": probability, "decision": "buy"} for token, probability in buys.items()
    ]
    rows.append({"token": "PASS-0", "probability": 0.9, "decision": "pass"})
    frame = pd.DataFrame(rows).assign(
        id=1,
        name="x",
        symbol="x",
        timestamp=hour,
        price=1.0,
        volume=1.0,
        threshold=0.6,
        model_scope="token",
        reason=None,
        score=0.5,
        recipe_id="r",
        fallback=None,
        pack_hash=None,
    )
    return conform(frame.assign(model_hash=model_hash), "predictions")


def prices(quotes: Prices) -> pd.DataFrame:
    """Believed rows: token -> price, or (price, volume)."""
    rows = [(token, *(quote if isinstance(quote, tuple) else (quote, VOLUME))) for token, quote in quotes.items()]
    frame = pd.DataFrame(rows, columns=["token", "price", "volume"])
    return frame.astype({"token": "str", "price": "float64", "volume": "float64"})


class Account:
    """Trades hours, counted from `START`, a few minutes after each began; on paper unless it is given a broker."""

    def __init__(
        self,
        place: Path | str,
        rules: TradingRules = RULES,
        mail: MailSettings | None = None,
        broker: Broker | None = None,
    ) -> None:
        self.ledger = Ledger(place / "ledger.sqlite" if isinstance(place, Path) else place)
        self.rules = rules
        self.mail = mail
        self.broker = broker

    def trade(
        self,
        hour: int,
        buys: Mapping[str, float] | None = None,
        quotes: Prices | None = None,
        health: str = "ACTIVE",
        late: timedelta = timedelta(minutes=5),
        name: str = "paper",
        **options: Any,
    ) -> HourResult:
        return trade_hour(
            self.ledger,
            at(hour),
            predictions(at(hour), buys or {}),
            prices(quotes or {}),
            health,
            self.rules,
            name,
            lambda: at(hour) + late,
            self.broker or PaperBroker(self.ledger, name, self.rules),
            mail=self.mail,
            **options,
        )


def dump(ledger: Ledger) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table."""
    with ledger.read("any") as books:
        return {
            table.name: sorted(map(tuple, books.connection.execute(sa.select(table))), key=repr)
            for table in schema.sorted_tables
        }
