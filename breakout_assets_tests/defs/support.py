"""A small world for tests of the graph: the real definitions over a simulated market in a folder."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from breakout_assets import objects
from breakout_assets.definitions import build_definitions
from breakout_assets.defs.partitions import hour_key, range_tags
from breakout_assets.defs.resources import build_resources
from breakout_assets.market.collect import collect
from breakout_assets.market.schema import hours_between
from breakout_assets.settings import Settings, load_settings
from breakout_assets.store import Store

DATASET = ("labelled_dataset", "indicator_features")
# What a small world decides by: a model for each token, and a decision for each hour whatever the evidence says.
PUBLISHED_WAY = {"RECIPE": "blog_fixed", "TRADE_WITHOUT_EVIDENCE": "true"}
HOURLY = ("hourly_snapshots", "market_health", "live_indicators", "predictions", "trade_orders")


@dataclass
class World:
    """A store, an instance and the definitions for them."""

    settings: Settings
    instance: dg.DagsterInstance
    definitions: dg.Definitions

    @classmethod
    def at(cls, folder: Path, instance: dg.DagsterInstance | None = None, **variables: str) -> "World":
        """A world in a folder; `variables` are settings without their prefix."""
        given = (
            {"STORE": str(folder / "store"), "SIM_TOKENS": "5", "SIM_SEED": "7", "REPLAY": "true"}
            | PUBLISHED_WAY
            | variables
        )
        settings = load_settings({f"BREAKOUT_{name}": value for name, value in given.items()})
        return cls(settings, instance or dg.DagsterInstance.ephemeral(), build_definitions(settings))

    @property
    def store(self) -> Store:
        return Store.at(self.settings.store, self.settings.s3_endpoint)

    @property
    def ledger_file(self) -> Path:
        return Path(self.settings.ledger_place)

    def collect(self, first: datetime, last: datetime) -> None:
        """Write raw hours as another collector would, without an event for each."""
        source = build_resources(self.settings)["source"]
        for _ in collect(self.store, source, hours_between(first, last), "csv"):
            pass

    def run(
        self,
        assets: Sequence[str],
        keys: Iterable[str],
        config: Mapping[str, Any] | None = None,
        resources: Mapping[str, Any] | None = None,
        must_succeed: bool = True,
    ) -> dg.ExecuteInProcessResult:
        """Materialise a range of partitions of some assets in one run; assets without partitions take no keys."""
        keys = list(keys)
        definitions = build_definitions(self.settings, **resources) if resources else self.definitions
        job = definitions.resolve_implicit_global_asset_job_def()
        return job.execute_in_process(
            instance=self.instance,
            asset_selection=[dg.AssetKey(name) for name in assets],
            tags=range_tags(keys) if keys else {},
            run_config=dict(config or {}) | {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            raise_on_error=must_succeed,
        )

    def days(self, asset: str, first: date, last: date) -> dg.ExecuteInProcessResult:
        """Materialise days of one asset."""
        return self.run([asset], day_keys(first, last))

    def bytes_of(self, *assets: str) -> dict[str, bytes]:
        """Every stored file of these assets, by path."""
        root = self.store.root
        paths = [file.path for asset in assets for file in objects.found_under(root / asset)]
        names = [path.path.removeprefix(root.path).lstrip("/") for path in paths]
        return dict(zip(names, objects.read_many(paths), strict=True))


def day_keys(first: date, last: date) -> list[str]:
    """Partition keys of days."""
    return [(first + timedelta(days=n)).isoformat() for n in range((last - first).days + 1)]


def hour_keys(first: datetime, last: datetime) -> list[str]:
    """Partition keys of hours."""
    return [hour_key(hour) for hour in hours_between(first, last)]


def failure(result: dg.ExecuteInProcessResult) -> str:
    """What a failed run said."""
    [event] = [event for event in result.all_events if event.is_step_failure]
    error = event.step_failure_data.user_failure_data
    return str(error.description) if error else str(event.step_failure_data.error)


def checks(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    """Check name -> whether it passed."""
    return {found.check_name: found.passed for found in result.get_asset_check_evaluations()}
