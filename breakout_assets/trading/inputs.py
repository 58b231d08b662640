"""What an hour is decided on, read from the store."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import pandas as pd

from breakout_assets.errors import DataError
from breakout_assets.market.health import HealthState
from breakout_assets.market.snapshots import believed
from breakout_assets.store import Store
from breakout_assets.trading.lineage import TABLES, read_sources
from breakout_assets.validation import check_predictions


@dataclass(frozen=True)
class Inputs:
    """What an hour is decided on."""

    predictions: pd.DataFrame
    """Rows of the `predictions` table; none if they are missing or faulty."""
    prices: pd.DataFrame
    """`token`, `price`, `volume` of believed rows; none if they are missing."""
    health: str
    sources: Mapping[str, Mapping[str, str]]
    """Path and SHA-256 of each file, by table."""
    doubts: tuple[str, ...]
    """Sentences: what is missing or faulty."""


def read_inputs(store: Store, hour: datetime) -> Inputs:
    """The tables of an hour. What is missing or faulty is told; without prices the hour counts as HALTED.

    Raises:
        DataError: a file is torn or foreign.
    """
    there = {table: store.has_table(table, hour) for table in TABLES}
    doubts = [f"{table} of {hour} are missing" for table in TABLES if not there[table]]
    coins = store.read_table("live_indicators", [hour] if there["live_indicators"] else [])
    predictions = store.read_table("predictions", [hour] if there["predictions"] else [])
    if there["predictions"] and there["live_indicators"]:
        faults = check_predictions(predictions, coins["token"].nunique())
        doubts += [f"predictions of {hour} are faulty: {what}" for what in faults.values()]
    health = str(HealthState.HALTED)
    if there["market_health"] and there["live_indicators"]:
        health = str(store.read_table("market_health", [hour], ["state"])["state"].iloc[0])
    return Inputs(
        predictions.iloc[: 0 if doubts else None],
        believed(coins)[["token", "price", "volume"]],
        health,
        read_sources(store, hour),
        tuple(doubts),
    )


def refuse_doubts(inputs: Inputs) -> None:
    """Raise for inputs that are missing or faulty.

    Raises:
        DataError: with all that is said against them.
    """
    if inputs.doubts:
        raise DataError(
            f"{'; '.join(inputs.doubts)}; nothing is ordered. Make them, or run exits_job to carry on without buying"
        )
