"""Schedules and the sensor, tick by tick, on a real instance; the runs that they ask for are made for real."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from breakout_assets.defs import automation, sensors
from breakout_assets.defs.partitions import hour_key
from breakout_assets.defs.resources import account, build_resources
from breakout_assets.trading.books import HourRecord
from breakout_assets_tests.defs.support import HOURLY, World
from breakout_assets_tests.samples import coin, put
from breakout_assets_tests.trading.builders import order

# Partition sets look at the real clock; so the hours of these tests hang on it.
NOW = datetime.now(UTC).replace(tzinfo=None, minute=0, second=0, microsecond=0)
HOUR = timedelta(hours=1)
TICK = (NOW + timedelta(minutes=5)).replace(tzinfo=UTC)


@pytest.fixture
def live(tmp_path: Path) -> Iterator[World]:
    """A world with two coins, real time and an instance that keeps runs."""
    (tmp_path / "instance").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "instance")) as instance:
        yield World.at(tmp_path, instance, SIM_TOKENS="2", REPLAY="false")


def tick(world: World, schedule: dg.ScheduleDefinition, at: datetime = TICK) -> list[dg.RunRequest]:
    with dg.build_schedule_context(
        instance=world.instance,
        scheduled_execution_time=at,
        repository_def=world.definitions.get_repository_def(),
        resources=build_resources(world.settings),
    ) as context:
        return list(schedule.evaluate_tick(context).run_requests or [])


def sense(world: World, cursor: str | None) -> tuple[list[dg.RunRequest], str | None]:
    with dg.build_sensor_context(
        instance=world.instance,
        cursor=cursor,
        repository_def=world.definitions.get_repository_def(),
        resources=build_resources(world.settings),
    ) as context:
        result = sensors.snapshot_arrivals.evaluate_tick(context)
        return list(result.run_requests or []), result.cursor


def run_hour(world: World, request: dg.RunRequest, must_succeed: bool = True) -> None:
    job = world.definitions.resolve_job_def("hourly_job")
    job.execute_in_process(
        instance=world.instance,
        partition_key=request.partition_key,
        tags=dict(request.tags),
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        raise_on_error=must_succeed,
    )


def keys(requests: list[dg.RunRequest]) -> list[str | None]:
    return [request.partition_key for request in requests]


def test_the_schedule_asks_for_the_hour_that_has_begun_and_for_what_was_missed(live: World) -> None:
    first = tick(live, automation.hourly_schedule)
    expected = [hour_key(NOW - n * HOUR) for n in reversed(range(48))]
    assert keys(first) == expected
    assert [request.run_key for request in first] == [f"{key}##0" for key in expected]


def test_an_hour_that_was_traded_is_not_asked_for_again_and_an_older_one_refuses_to_trade(live: World) -> None:
    requests = tick(live, automation.hourly_schedule)
    run_hour(live, requests[-1])
    run_hour(live, requests[-10])
    assert keys(tick(live, automation.hourly_schedule)) == keys(requests[:-10]) + keys(requests[-9:-1])
    old = live.store.read_table("trade_orders", [NOW - 9 * HOUR])
    assert old["status"].tolist() == ["refused"]
    assert "older than 2 hours" in old["reason"].iloc[0]
    assert live.store.read_table("trade_orders", [NOW]).empty


def test_a_failed_hour_is_tried_three_times_and_then_waits_for_a_person(live: World) -> None:
    raw = put(live.store, NOW, [coin(1)])
    raw.write_bytes(b"")
    for attempt in range(3):
        [request] = [
            request for request in tick(live, automation.hourly_schedule) if request.partition_key == hour_key(NOW)
        ]
        assert str(request.run_key).endswith(f"#{attempt}")
        run_hour(live, request, must_succeed=False)
    assert hour_key(NOW) not in keys(tick(live, automation.hourly_schedule))
    assert raw.read_bytes() == b""
    put(live.store, NOW, [coin(1)])  # repaired: another version, and so another chance
    assert tick(live, automation.hourly_schedule)[-1].partition_key == hour_key(NOW)


def test_an_hour_without_data_is_traded_at_its_end_if_something_is_held_or_ordered(live: World) -> None:
    ending = TICK.replace(minute=57)
    assert tick(live, automation.exits_schedule, ending) == []  # nothing to carry on with
    owner = account(live.settings)
    hour = NOW - HOUR
    with owner.open_ledger().write(owner.name) as books:
        books.open_account(owner.rules.cash)
        books.submit(order("A", hour=hour), hour)
        books.close_hour(HourRecord(hour=hour, health="ACTIVE", outcome="", traded_at=hour))
    job = live.definitions.resolve_job_def("hourly_job")
    run = live.instance.create_run_for_job(job, tags={"dagster/partition": hour_key(NOW)})
    assert tick(live, automation.exits_schedule, ending) == []  # it is being traded
    live.instance.report_run_canceled(run)
    [request] = tick(live, automation.exits_schedule, ending)
    assert request.partition_key == hour_key(NOW)
    exits = live.definitions.resolve_job_def("exits_job")
    assert exits.execute_in_process(instance=live.instance, partition_key=request.partition_key).success
    [row] = live.store.read_table("trade_orders", [NOW]).to_dict("records")
    assert row["status"] == "cancelled"
    assert "are missing; exits_job buys nothing" in row["reason"]
    assert tick(live, automation.exits_schedule, ending) == []
    assert hour_key(NOW) in keys(tick(live, automation.hourly_schedule))  # its data are still to be collected


def test_a_running_hour_is_left_alone(live: World) -> None:
    job = live.definitions.resolve_job_def("hourly_job")
    run = live.instance.create_run_for_job(job, tags={"dagster/partition": hour_key(NOW)})
    assert hour_key(NOW) not in keys(tick(live, automation.hourly_schedule))
    live.instance.report_run_canceled(run)
    assert hour_key(NOW) in keys(tick(live, automation.hourly_schedule))


@pytest.mark.parametrize(
    ("source", "variables", "expected"),
    [
        ("files", {}, []),
        ("coinmarketcap", {}, [0]),
        ("simulated", {"SIM_TOKENS": "2"}, [2, 1, 0]),
    ],
)
def test_only_hours_that_can_still_be_had_are_asked_for(
    tmp_path: Path, source: str, variables: dict[str, str], expected: list[int]
) -> None:
    (tmp_path / "instance").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "instance")) as instance:
        world = World.at(tmp_path, instance, SOURCE=source, REPLAY="false", **variables)
        source_ = build_resources(world.settings)["source"]
        with dg.build_schedule_context(instance=instance, scheduled_execution_time=TICK) as context:
            missing = automation.missing_hours(context, world.store, source_, 3)
            assert keys(list(missing)) == [hour_key(NOW - n * HOUR) for n in expected]
            put(world.store, NOW - HOUR, [coin(1)])
            missing = automation.missing_hours(context, world.store, source_, 3)
            assert hour_key(NOW - HOUR) in keys(list(missing))


def test_the_sensor_sees_late_rewritten_and_returned_files_and_each_version_once(live: World) -> None:
    put(live.store, NOW, [coin(1)])
    requests, cursor = sense(live, None)
    assert keys(requests) == [hour_key(NOW)]
    assert sense(live, cursor) == ([], cursor)
    late = put(live.store, NOW - 3 * HOUR, [coin(1)])  # out of order
    requests, cursor = sense(live, cursor)
    assert keys(requests) == [hour_key(NOW - 3 * HOUR)]
    first_key = requests[0].run_key
    put(live.store, NOW - 3 * HOUR, [coin(1), coin(2)])  # rewritten
    requests, cursor = sense(live, cursor)
    assert keys(requests) == [hour_key(NOW - 3 * HOUR)]
    assert requests[0].run_key != first_key
    late.unlink()
    requests, cursor = sense(live, cursor)
    assert requests == []
    put(live.store, NOW - 3 * HOUR, [coin(1)])  # and back again
    requests, cursor = sense(live, cursor)
    assert keys(requests) == [hour_key(NOW - 3 * HOUR)]


def test_the_sensor_ignores_foreign_files_and_hours_that_have_not_begun(live: World) -> None:
    path = put(live.store, NOW, [coin(1)])
    path.rename(path.with_name("notes.csv"))
    put(live.store, NOW + HOUR, [coin(1)])
    assert sense(live, None)[0] == []


def test_the_sensor_does_not_ask_again_for_what_this_platform_has_read_itself(live: World) -> None:
    run_hour(live, dg.RunRequest(partition_key=hour_key(NOW)))
    requests, cursor = sense(live, None)
    assert requests == []
    os.utime(Path(str(live.store.raw_path(NOW, "csv"))), (1, 1))  # delivered again by another program
    assert keys(sense(live, cursor)[0]) == [hour_key(NOW)]


def test_the_sensor_waits_for_a_run_that_may_be_reading_the_file(live: World) -> None:
    put(live.store, NOW, [coin(1)])
    job = live.definitions.resolve_job_def("hourly_job")
    run = live.instance.create_run_for_job(job, tags={"dagster/partition": hour_key(NOW)})
    requests, cursor = sense(live, None)
    assert requests == []
    live.instance.report_run_canceled(run)
    assert keys(sense(live, cursor)[0]) == [hour_key(NOW)]


def test_a_redelivered_hour_refreshes_data_and_orders_nothing_again(live: World) -> None:
    run_hour(live, dg.RunRequest(partition_key=hour_key(NOW)))
    before = live.bytes_of("trade_orders")
    put(live.store, NOW, [coin(1), coin(2), coin(3)])
    [request] = sense(live, None)[0]
    run_hour(live, request)
    assert len(live.store.read_table("live_indicators", [NOW])) == 3
    assert live.bytes_of("trade_orders") == before


def test_days_are_compacted_once_and_again_after_a_late_file(live: World) -> None:
    yesterday = NOW.date() - timedelta(days=1)
    start = datetime.combine(yesterday, datetime.min.time())
    put(live.store, start, [coin(1)])
    put(live.store, NOW, [coin(1)])
    requests = tick(live, automation.daily_snapshots_schedule)
    assert keys(requests) == [yesterday.isoformat()]
    live.run(["daily_snapshots"], [yesterday.isoformat()])
    assert tick(live, automation.daily_snapshots_schedule) == []
    put(live.store, start + 5 * HOUR, [coin(1)])
    again = tick(live, automation.daily_snapshots_schedule)
    assert keys(again) == [yesterday.isoformat()]
    assert again[0].run_key != requests[0].run_key


def test_a_day_whose_raw_files_are_gone_keeps_the_hours_of_its_file(live: World) -> None:
    yesterday = NOW.date() - timedelta(days=1)
    start = datetime.combine(yesterday, datetime.min.time())
    lost = put(live.store, start, [coin(1)])
    put(live.store, start + HOUR, [coin(1)])
    put(live.store, NOW, [coin(1)])
    live.run(["daily_snapshots"], [yesterday.isoformat()])
    lost.unlink()
    assert tick(live, automation.daily_snapshots_schedule) == []
    put(live.store, start + 5 * HOUR, [coin(1)])  # a new hour is no reason to lose an old one
    assert tick(live, automation.daily_snapshots_schedule) == []
    put(live.store, start, [coin(1)])  # had back
    assert keys(tick(live, automation.daily_snapshots_schedule)) == [yesterday.isoformat()]
    live.store.table_path("daily_snapshots", yesterday).write_bytes(b"torn")
    lost.unlink()
    assert keys(tick(live, automation.daily_snapshots_schedule)) == [yesterday.isoformat()]


def test_labels_are_made_once_their_future_is_compacted(live: World) -> None:
    today = NOW.date()
    for days_ago in (6, 1):
        put(live.store, datetime.combine(today - timedelta(days=days_ago), datetime.min.time()), [coin(1)])
        assert tick(live, automation.dataset_schedule) == []
        live.run(["daily_snapshots"], [(today - timedelta(days=days_ago)).isoformat()])
    day = (today - timedelta(days=6)).isoformat()
    assert keys(tick(live, automation.dataset_schedule)) == [day]
    live.run(["labelled_dataset", "indicator_features"], [day])
    assert tick(live, automation.dataset_schedule) == []
    rows = live.store.read_table("labelled_dataset", [today - timedelta(days=6)])
    assert rows["label_status"].tolist() == ["labelled"]
    live.run(["daily_snapshots"], [(today - timedelta(days=3)).isoformat()], must_succeed=False)
    assert tick(live, automation.dataset_schedule) == []
    put(live.store, datetime.combine(today - timedelta(days=1), datetime.min.time()) + HOUR, [coin(1)])
    live.run(["daily_snapshots"], [(today - timedelta(days=1)).isoformat()])  # its future was compacted again
    assert keys(tick(live, automation.dataset_schedule)) == [day]


def test_the_weekly_training_takes_all_tokens_in_one_run(live: World) -> None:
    assert tick(live, automation.training_schedule) == []
    live.instance.add_dynamic_partitions("tokens", ["ALL", "A-1", "B-2"])
    [request] = tick(live, automation.training_schedule)
    assert request.tags["dagster/asset_partition_range_start"] == "ALL"
    assert request.tags["dagster/asset_partition_range_end"] == "B-2"


def test_the_hourly_job_is_the_trading_loop_and_nothing_else(live: World) -> None:
    job = live.definitions.resolve_job_def("hourly_job")
    selected = {key.to_user_string() for key in job.asset_layer.executable_asset_keys}
    assert selected == set(HOURLY)
