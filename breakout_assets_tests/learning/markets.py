"""Simulated markets as rows, for tests that evaluate recipes; no store and no Dagster in between."""

from datetime import datetime, timedelta

import pandas as pd

from breakout_assets.learning.walk_forward import dataset_rows
from breakout_assets.market.simulated import SimulatedMarket
from breakout_assets.tables import DAILY_SNAPSHOTS, conform
from breakout_assets_tests.samples import at

FIRST = at("2024-01-01 00:00")


def market_rows(market: SimulatedMarket, days: int, first: datetime = FIRST) -> pd.DataFrame:
    """Believed market rows of so many days, as `daily_snapshots` holds them."""
    last = first + timedelta(hours=24 * days - 1)
    hours = [raw.assign(timestamp=hour) for hour, raw in market.snapshots(first, last)]
    rows = pd.concat(hours, ignore_index=True).rename(columns={"volume_24h": "volume"})
    rows = rows.assign(token=rows["symbol"] + "-" + rows["id"].astype("str"), quarantine=None)
    return conform(rows, "daily_snapshots")[list(DAILY_SNAPSHOTS)]


def labelled_rows(market: pd.DataFrame) -> pd.DataFrame:
    """Rows as `indicator_features` holds them, of all hours."""
    return dataset_rows(market, market["timestamp"].min(), market["timestamp"].max())


def oracle(market: SimulatedMarket, table: pd.DataFrame) -> pd.DataFrame:
    """The out-of-sample rows of the market itself with `oracle_probability`, the best forecast there is."""
    real = table[table["twin"] == 0]
    truth = market.truth(real["timestamp"].min().to_pydatetime(), real["timestamp"].max().to_pydatetime())
    ids = real["token"].str.rsplit("-", n=1).str[1].astype("Int64")
    return real.assign(id=ids).merge(truth[["id", "timestamp", "oracle_probability"]], on=["id", "timestamp"])
