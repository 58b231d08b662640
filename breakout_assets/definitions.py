"""The code location: every asset, check, job, schedule and sensor, with the resources of the settings given.

Loading it touches no network, no clock and no secret.
"""

from typing import Any, Final

import dagster as dg

from breakout_assets.defs import (
    automation,
    coverage,
    dataset,
    evaluation,
    kill_switch,
    market,
    models,
    monitoring,
    portfolio,
    retention,
    sensors,
    trading,
)
from breakout_assets.defs.resources import build_resources
from breakout_assets.settings import Settings, load_settings

MODULES: Final = (market, coverage, dataset, evaluation, models, monitoring, trading, portfolio)


def build_definitions(settings: Settings, **overrides: Any) -> dg.Definitions:
    """The whole graph for these settings; `overrides` replace resources by name, so that tests take the same graph."""
    assets = [item for item in dg.load_assets_from_modules(MODULES) if isinstance(item, dg.AssetsDefinition)]
    if settings.source == "simulated":
        assets = [asset.map_asset_specs(_marked_as_simulated) for asset in assets]
    return dg.Definitions(
        assets=assets,
        asset_checks=dg.load_asset_checks_from_modules(MODULES),
        jobs=[*automation.JOBS, *kill_switch.JOBS, *retention.JOBS],
        schedules=automation.SCHEDULES,
        sensors=[*sensors.SENSORS, *(sensors.EVENT_SENSORS if settings.sqs_url else [])],
        resources=build_resources(settings) | overrides,
        # A process for each step would cost five times the run: every start imports pandas and scikit-learn anew.
        executor=dg.in_process_executor,
    )


def _marked_as_simulated(spec: dg.AssetSpec) -> dg.AssetSpec:
    """Nobody shall take an invented price for a real one, on whichever page of the UI it is met."""
    return spec.replace_attributes(
        description=f"**SIMULATED MARKET: no price here is real.**\n\n{spec.description or ''}",
        tags={**spec.tags, "market": "simulated"},
    )


@dg.definitions
def defs() -> dg.Definitions:
    """What `dagster dev` and `dagster asset materialize -m breakout_assets.definitions` load."""
    return build_definitions(load_settings())
