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
from breakout_assets.trading.alerts import MailSettings
from breakout_assets.trading.hourly import HourResult, trade_hour
from breakout_assets.trading.ledger import Ledger, schema
from breakout_assets.trading.rules import HOUR, TradingRules

START = datetime.fromisoformat("2024-03-01T00:00")
RULES = TradingRules()
FREE_OF_COST = replace(RULES, fee=Decimal(0), slippage=Decimal(0))
VOLUME = 1e9
MAIL = MailSettings(
    host="127.0.0.1", port=25, security="none", sender="bot@example.com", recipients=("me@example.com",)
)

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
    )
    return conform(frame.assign(model_hash=model_hash), "predictions")


def prices(quotes: Prices) -> pd.DataFrame:
    """Believed rows: token -> price, or (price, volume)."""
    rows = [(token, *(quote if isinstance(quote, tuple) else (quote, VOLUME))) for token, quote in quotes.items()]
    frame = pd.DataFrame(rows, columns=["token", "price", "volume"])
    return frame.astype({"token": "str", "price": "float64", "volume": "float64"})


class Account:
    """Trades hours, counted from `START`, a few minutes after each began."""

    def __init__(self, folder: Path, rules: TradingRules = RULES, mail: MailSettings | None = None) -> None:
        self.ledger = Ledger(folder / "ledger.sqlite")
        self.rules = rules
        self.mail = mail

    def trade(
        self,
        hour: int,
        buys: Mapping[str, float] | None = None,
        quotes: Prices | None = None,
        health: str = "ACTIVE",
        late: timedelta = timedelta(minutes=5),
        **options: Any,
    ) -> HourResult:
        return trade_hour(
            self.ledger,
            at(hour),
            predictions(at(hour), buys or {}),
            prices(quotes or {}),
            health,
            self.rules,
            "paper",
            at(hour) + late,
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
