"""The coverage asset in the graph: what it says of gaps, and its two checks."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from breakout_assets import objects
from breakout_assets.definitions import build_definitions
from breakout_assets.defs.coverage import COVERAGE_CHECKS
from breakout_assets.defs.partitions import EVERYTHING
from breakout_assets.market.coverage import coverage_path
from breakout_assets.market.schema import HOUR, hours_between
from breakout_assets.settings import load_settings
from breakout_assets_tests.defs.support import World, failure
from breakout_assets_tests.samples import at, coin, put

NOW = at("2024-03-12 05:05")


@pytest.fixture(autouse=True)
def at_that_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Partition sets look at Dagster's clock; it stands still, so that no hour begins in the middle of a test."""
    monkeypatch.setattr("dagster._time._mockable_get_current_datetime", lambda: NOW.replace(tzinfo=UTC))


@pytest.fixture(params=["folder", "bucket"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    """A world of files, in a folder and in a bucket."""
    if request.param == "folder":
        return World.at(tmp_path, SOURCE="files")
    location, url = request.getfixturevalue("s3_location"), request.getfixturevalue("s3_url")
    return World.at(tmp_path, SOURCE="files", STORE=location, S3_ENDPOINT=url, LEDGER=str(tmp_path / "ledger.sqlite"))


def fill(world: World, first: str, last: str, coins: int = 4) -> None:
    for hour in hours_between(at(first), at(last)):
        step = (hour - at("2024-01-01")) / HOUR
        put(world.store, hour, [coin(n, price=10.0 * n + step / 50) for n in range(1, coins + 1)])


def materialise(world: World, **resources: Any) -> dg.ExecuteInProcessResult:
    definitions = build_definitions(world.settings, **resources)
    return definitions.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=world.instance,
        asset_selection=[dg.AssetKey("coverage")],
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        raise_on_error=False,
    )


def told(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    assert result.success
    [event] = result.get_asset_materialization_events()
    return {name: value.value for name, value in event.materialization.metadata.items()}


def results(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {found.check_name: found for found in result.get_asset_check_evaluations()}


def test_it_stands_in_the_graph_beside_what_it_looks_at() -> None:
    graph = build_definitions(load_settings({})).resolve_asset_graph()
    node = graph.get(dg.AssetKey("coverage"))
    assert node.group_name == "market"
    assert node.partitions_def is None
    assert {key.to_user_string() for key in node.parent_keys} == {"hourly_snapshots", "daily_snapshots"}
    assert set(node.partition_mappings.values()) == {EVERYTHING}
    assert "One row is one hour" in (node.description or "")
    assert node.owners
    assert node.kinds
    assert {key.name for key in graph.asset_check_keys if key.asset_key.to_user_string() == "coverage"} == {
        *COVERAGE_CHECKS
    }


def test_the_table_its_gaps_and_a_picture_are_there_wherever_the_store_is(anywhere: World) -> None:
    world = anywhere
    fill(world, "2024-03-08 10:00", "2024-03-08 23:00")
    world.days("daily_snapshots", date(2024, 3, 8), date(2024, 3, 8))
    fill(world, "2024-03-10 00:00", "2024-03-12 05:00")
    objects.delete(world.store.raw_path(at("2024-03-11 07:00"), "csv"))
    result = materialise(world)
    metadata = told(result)
    assert metadata["hours"] == 14 + 24 + 54
    assert metadata["hours_missing"] == 25
    assert metadata["hours_not_compacted"] == 53
    assert metadata["share_collected"] == pytest.approx(67 / 92, abs=1e-4)
    assert metadata["mean_usable_share"] == pytest.approx(1.0)
    assert metadata["gaps"].split("\n") == [
        "from|to|hours|can be had|how",
        "---|---|--:|---|---",
        "2024-03-09 00:00|2024-03-09 23:00|24|no|import a file or candles",
        "2024-03-11 07:00|2024-03-11 07:00|1|no|import a file or candles",
    ]
    assert metadata["months"].split("\n")[2:] == ["2024-03|92|25|72.8%|100.0%"]
    assert metadata["outdated_days"] == 2
    assert metadata["outdated"] == "2024-03-10, 2024-03-11"
    assert metadata["picture"].startswith("![usable share of the expected coins, hour by hour](data:image/png;base64,")
    assert objects.exists(coverage_path(world.store))
    found = results(result)
    assert found["no_new_gaps"].severity == found["usable"].severity == dg.AssetCheckSeverity.WARN
    assert not found["no_new_gaps"].passed
    assert found["no_new_gaps"].description == "25 hours are missing, the newest is 2024-03-11 07:00"
    assert found["usable"].passed
    data = objects.read(coverage_path(world.store))
    told(materialise(world))
    assert objects.read(coverage_path(world.store)) == data


def test_an_old_gap_and_an_hour_that_is_not_due_yet_are_nothing_new(tmp_path: Path) -> None:
    world = World.at(tmp_path, SOURCE="files")
    fill(world, "2024-03-04 00:00", "2024-03-04 20:00")
    fill(world, "2024-03-05 05:00", "2024-03-12 04:00")  # at five past five
    result = materialise(world)
    assert told(result)["hours_missing"] == 8
    assert all(found.passed for found in results(result).values())
    objects.delete(world.store.raw_path(at("2024-03-05 05:00"), "csv"))  # the first of the last 7 days
    assert not results(materialise(world))["no_new_gaps"].passed


def test_a_gap_says_whether_and_how_it_can_be_closed(tmp_path: Path) -> None:
    world = World.at(tmp_path, SOURCE="coinmarketcap", REPLAY="false", CMC_HISTORY="true")
    fill(world, "2024-02-10 00:00", "2024-02-10 00:00")  # the past month begins at 05:00 of the next day
    fill(world, "2024-02-11 07:00", "2024-02-11 07:00")
    fill(world, "2024-03-12 04:00", "2024-03-12 04:00")
    metadata = told(materialise(world, clock=StandingClock()))
    repair = "`python -m breakout_assets repair`"
    assert metadata["gaps"].split("\n")[2:] == [
        f"2024-02-11 08:00|2024-03-12 03:00|716|yes|{repair}",
        f"2024-02-10 01:00|2024-02-11 06:00|30|2 of 30 hours|{repair}, for the rest import a file or candles",
    ]


class StandingClock:
    def now(self, hour: datetime) -> datetime:
        return NOW


def test_of_many_gaps_the_longest_are_listed(tmp_path: Path) -> None:
    world = World.at(tmp_path, SOURCE="files")
    for n in range(25):
        put(world.store, at("2024-03-12 04:00") - 2 * n * HOUR - (HOUR if n > 20 else timedelta(0)), [coin(1)])
    text = told(materialise(world))["gaps"]
    assert len(text.split("\n")) == 2 + 20 + 2
    assert text.split("\n")[2].startswith("2024-03-10 10:00|2024-03-10 11:00|2|")
    assert text.endswith("and 4 shorter ones")


def test_too_few_usable_coins_are_told(tmp_path: Path) -> None:
    world = World.at(tmp_path, SOURCE="files")
    fill(world, "2024-03-11 00:00", "2024-03-11 11:00", 10)
    for hour in hours_between(at("2024-03-11 12:00"), at("2024-03-12 05:00")):
        put(world.store, hour, [coin(n, price=-1.0) for n in range(1, 11)])
    result = materialise(world)
    found = results(result)
    assert not found["usable"].passed
    assert found["usable"].description == "40.0% of the expected coins are usable"
    assert found["no_new_gaps"].passed
    assert told(result)["mean_usable_share"] == pytest.approx(0.4)


def test_an_empty_store_is_refused_with_what_to_do(tmp_path: Path) -> None:
    world = World.at(tmp_path, SOURCE="files")
    result = materialise(world)
    assert not result.success
    assert "import or collect hours first" in failure(result)
    assert not objects.exists(coverage_path(world.store))


def test_hours_before_the_start_are_not_counted(tmp_path: Path) -> None:
    world = World.at(tmp_path, SOURCE="files")
    fill(world, "2023-12-31 20:00", "2024-01-01 01:00")
    assert told(materialise(world))["hours"] == (at("2024-03-12 04:00") - at("2024-01-01 00:00")) / HOUR + 1
