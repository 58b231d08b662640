"""Costs of whole Dagster runs, each a process as CI or a daemon starts it."""

import shutil
import sys
from datetime import date
from pathlib import Path
from typing import Final

from bench.measure import Cost, run_process
from bench.world import RECIPE, World

HOURLY: Final = ("hourly_snapshots", "market_health", "live_indicators", "predictions", "trade_orders")
DATASET: Final = ("labelled_dataset", "indicator_features")
_ROOT: Final = Path(__file__).parent.parent


def hourly_job(world: World, home: Path) -> Cost:
    """The trading loop of the newest hour, with as many models as the world has."""
    return _materialise(world, home, HOURLY, ("--partition", f"{world.last_hour:%Y-%m-%d-%H:%M}"))


def backfill(world: World, home: Path, first: date, last: date) -> Cost:
    """Labels and indicators of a range of days in one run."""
    return _materialise(world, home, DATASET, ("--partition-range", f"{first}...{last}"))


def _materialise(world: World, home: Path, assets: tuple[str, ...], partitions: tuple[str, ...]) -> Cost:
    home.mkdir(parents=True, exist_ok=True)
    shutil.copy(_ROOT / "dagster.yaml", home / "dagster.yaml")
    variables = {
        "DAGSTER_HOME": str(home),
        "BREAKOUT_STORE": world.root,
        "BREAKOUT_SOURCE": "files",
        "BREAKOUT_RECIPE": RECIPE,
        "BREAKOUT_REPLAY": "true",
        "BREAKOUT_LEDGER": str(home / "ledger.sqlite"),
        "BREAKOUT_TRADE_WITHOUT_EVIDENCE": "true",
        "PYTHONPATH": str(_ROOT),
    }
    command = [sys.executable, "-m", "dagster", "asset", "materialize", "-m", "breakout_assets.definitions"]
    selected = ["--select", ",".join(assets), *partitions]
    return run_process([*command, *selected], variables, home / f"{assets[0]}.log")
