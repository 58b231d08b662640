"""Small snapshots for tests, and where the optional real data lie."""

from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from breakout_assets.market.files import raw_bytes
from breakout_assets.market.schema import raw_frame
from breakout_assets.store import Store

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def shared(name: str) -> Path:
    """A file of real data beside the project; the test is skipped where it is absent."""
    file = SHARED_DATA / name
    if not file.exists():
        pytest.skip(f"the optional real data file {file} is absent")
    return file


def at(text: str) -> datetime:
    """A naive UTC time."""
    return datetime.fromisoformat(text)


def coin(number: int = 1, **changes: Any) -> dict[str, Any]:
    """One believable row of a listing, without its hour."""
    row = {
        "id": number,
        "name": f"Coin {number}",
        "symbol": f"C{number}",
        "circulating_supply": 1e6,
        "num_market_pairs": 50,
        "cmc_rank": number,
        "price": 10.0 * number,
        "volume_24h": 1e6,
        "volume_change_24h": 1.0,
        "percent_change_1h": 0.1,
        "percent_change_24h": 1.0,
        "percent_change_7d": 2.0,
        "market_cap": 1e7,
    }
    return {**row, **changes}


def listing(hour: datetime, coins: list[dict[str, Any]]) -> pd.DataFrame:
    """A raw frame of one hour."""
    return raw_frame(pd.DataFrame([{**row, "timestamp": hour} for row in coins]))


def put(store: Store, hour: datetime, coins: list[dict[str, Any]], extension: str = "csv") -> Path:
    """Write a raw snapshot as another collector would, replacing what lies there."""
    path = store.raw_path(hour, extension)
    store.write(path, raw_bytes(listing(hour, coins), extension))
    return Path(str(path))
