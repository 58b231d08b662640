"""Sensors over a bucket, over its event messages, and the mails about data that cannot be trusted."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import boto3
import dagster as dg
import pytest
from moto.server import ThreadedMotoServer

from breakout_assets.defs import sensors
from breakout_assets.defs.partitions import hour_key
from breakout_assets.defs.resources import build_resources
from breakout_assets.market.health import Health, HealthState
from breakout_assets_tests.defs.support import World
from breakout_assets_tests.s3server import Wire, wire_to
from breakout_assets_tests.samples import coin, put
from breakout_assets_tests.trading.mailserver import Inbox, serving

# Partition sets look at the real clock; so the hours of these tests hang on it.
NOW = datetime.now(UTC).replace(tzinfo=None, minute=0, second=0, microsecond=0)
HOUR = timedelta(hours=1)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    (tmp_path / "instance").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "instance")) as found:
        yield found


@pytest.fixture
def wire(s3_url: str) -> Iterator[Wire]:
    with wire_to(s3_url) as found:
        yield found


@pytest.fixture
def live(tmp_path: Path, instance: dg.DagsterInstance, wire: Wire, s3_location: str) -> World:
    """A world in a bucket that another collector writes into."""
    variables = {"STORE": s3_location, "S3_ENDPOINT": wire.url, "LEDGER": str(tmp_path / "ledger.sqlite")}
    return World.at(tmp_path, instance, SOURCE="files", REPLAY="false", **variables)


def sense(
    world: World, cursor: str | None, sensor: dg.SensorDefinition = sensors.snapshot_arrivals
) -> tuple[list[str], str | None]:
    """Partition keys that a tick asks for, and the cursor for the next tick."""
    with dg.build_sensor_context(
        instance=world.instance,
        cursor=cursor,
        repository_def=world.definitions.get_repository_def(),
        resources=build_resources(world.settings),
    ) as context:
        result = sensor.evaluate_tick(context)
        requests = result.run_requests or []
        assert all(request.run_key and request.partition_key for request in requests)
        return [str(request.partition_key) for request in requests], result.cursor


def deliver(world: World, hours_ago: int, coins: int = 1) -> str:
    put(world.store, NOW - hours_ago * HOUR, [coin(n + 1) for n in range(coins)])
    return hour_key(NOW - hours_ago * HOUR)


def test_late_out_of_order_and_rewritten_objects_are_each_seen_once(live: World) -> None:
    first = deliver(live, 0)
    keys, cursor = sense(live, None)
    assert keys == [first]
    late, older = deliver(live, 3), deliver(live, 29 * 24)
    keys, cursor = sense(live, cursor)
    assert sorted(keys) == sorted([late, older])
    assert sense(live, cursor)[0] == []
    deliver(live, 3, coins=2)
    keys, cursor = sense(live, cursor)
    assert keys == [late]
    assert sense(live, cursor)[0] == []


def test_a_tick_costs_four_listings_at_most_however_many_hours_there_are(live: World, wire: Wire) -> None:
    for hours_ago in range(60):
        deliver(live, hours_ago)
    _, cursor = sense(live, None)
    wire.requests.clear()
    sense(live, cursor)
    assert {method for method, _ in wire.requests} == {"GET"}
    assert 1 <= len(wire.requests) <= 4


def test_a_lost_cursor_asks_for_the_last_day_again_and_not_for_months(live: World) -> None:
    key = deliver(live, 700)
    _, cursor = sense(live, None)
    old = json.loads(cursor or "{}")
    assert set(old) == {"written", "seen"}
    # Whatever was read already is known by its version, though the cursor has gone.
    event = dg.AssetMaterialization(
        "hourly_snapshots", partition=key, metadata={"version": next(iter(old["seen"].values()))}
    )
    live.instance.report_runless_asset_event(event)
    assert sense(live, None)[0] == []


def test_files_from_before_the_first_look_are_no_arrivals(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    world = World.at(tmp_path, instance, SOURCE="files", REPLAY="false")
    deliver(world, 1)
    cursor = json.dumps({"written": (NOW + timedelta(days=1)).isoformat(), "seen": {}})
    keys, cursor_after = sense(world, cursor)
    assert keys == []
    assert json.loads(cursor_after or "{}")["written"] == json.loads(cursor)["written"]


def test_more_arrivals_than_a_tick_may_ask_for_come_in_the_next_ones(live: World) -> None:
    delivered = [deliver(live, hours_ago) for hours_ago in range(sensors.MOST_RUNS + 10)]
    first, cursor = sense(live, None)
    assert len(first) == sensors.MOST_RUNS
    second, cursor = sense(live, cursor)
    assert sorted(first + second) == sorted(delivered)
    assert sense(live, cursor)[0] == []


def test_a_file_that_had_to_wait_is_not_forgotten_when_newer_ones_come(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensors, "OVERLAP", timedelta(0))
    world = World.at(tmp_path, instance, SOURCE="files", REPLAY="false")
    waiting, newer = deliver(world, 1), deliver(world, 0)
    job = world.definitions.resolve_job_def("hourly_job")
    run = instance.create_run_for_job(job, tags={"dagster/partition": waiting})
    keys, cursor = sense(world, None)
    assert keys == [newer]
    instance.report_run_canceled(run)
    assert sense(world, cursor)[0] == [waiting]


# Event messages --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


def test_event_messages_ask_for_each_hour_once_and_are_deleted_in_the_next_tick(
    tmp_path: Path, instance: dg.DagsterInstance, moto: str, aws: None
) -> None:
    name = uuid4().hex
    s3 = boto3.client("s3", endpoint_url=moto, region_name="us-east-1")
    sqs = boto3.client("sqs", endpoint_url=moto, region_name="us-east-1")
    sqs.create_queue(QueueName=name)
    url = f"{moto}/123456789012/{name}"
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    s3.create_bucket(Bucket=name)
    notify = {"QueueConfigurations": [{"QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}]}
    s3.put_bucket_notification_configuration(Bucket=name, NotificationConfiguration=notify)
    variables = {"STORE": f"s3://{name}/p", "S3_ENDPOINT": moto, "LEDGER": str(tmp_path / "ledger.sqlite")}
    world = World.at(
        tmp_path, instance, SOURCE="files", REPLAY="false", SQS_URL=url, S3_REGION="us-east-1", **variables
    )
    assert "snapshot_events" in {sensor.name for sensor in world.definitions.get_repository_def().sensor_defs}
    delivered = [deliver(world, hours_ago) for hours_ago in (0, 5)]
    keys, cursor = sense(world, None, sensors.snapshot_events)
    assert sorted(keys) == sorted(delivered)
    hidden = ["ApproximateNumberOfMessagesNotVisible"]

    def in_flight() -> int:
        return int(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=hidden)["Attributes"][hidden[0]])

    assert in_flight() >= 2, "a message stays until its run has been asked for"
    assert sense(world, cursor, sensors.snapshot_events) == ([], "[]")
    assert in_flight() == 0


# Mails -----------------------------------------------------------------------------------------------------------


def judge(world: World, hour: datetime, state: str, *reasons: str) -> None:
    found = Health(HealthState(state), reasons, 1, 1.0, 0.0, 0.0, 0, 720)
    world.store.write_table("market_health", hour, found.frame(hour))


def test_each_change_of_the_datas_condition_is_mailed_once(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    inbox = Inbox()
    with serving(inbox) as port:
        mail = {"MAIL_HOST": "127.0.0.1", "MAIL_PORT": str(port), "MAIL_SECURITY": "none"}
        people = {"MAIL_FROM": "platform@example.com", "MAIL_TO": "me@example.com"}
        world = World.at(tmp_path, instance, SOURCE="files", REPLAY="false", **mail, **people)
        # A quarter past, the hour itself is due; before, the one ahead of it.
        due = (datetime.now(UTC).replace(tzinfo=None) - timedelta(minutes=15)).replace(
            minute=0, second=0, microsecond=0
        )

        def look(cursor: str | None) -> str | None:
            return sense(world, cursor, sensors.data_alerts)[1]

        cursor = look(None)
        assert cursor == "MISSING"
        assert look(cursor) == cursor
        put(world.store, due, [coin(1)])
        assert look(cursor) == cursor, "an hour that has not been judged changes nothing"
        judge(world, due, "HALTED", "all <prices> stand still")
        cursor = look(cursor)
        assert cursor == "HALTED"
        judge(world, due, "ACTIVE")
        cursor = look(cursor)
        assert look(cursor) == cursor == "ACTIVE"
        assert look(None) is None, "sound data are no news"
    subjects = [str(message["Subject"]) for message in inbox.received]
    at = f"{due:%Y-%m-%d %H:%M} UTC"
    assert subjects == [f"paper: market data {state} at {at}" for state in ("MISSING", "HALTED", "ACTIVE")]
    text = inbox.received[1].get_body(("plain",))
    html = inbox.received[1].get_body(("html",))
    assert text is not None and "all <prices> stand still" in text.get_content()  # noqa: PT018  for the type checker
    assert html is not None and "all &lt;prices&gt; stand still" in html.get_content()  # noqa: PT018
    assert len({message["Message-ID"] for message in inbox.received}) == 3


def test_a_dead_mail_server_holds_no_alert_back(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    mail = {"MAIL_HOST": "127.0.0.1", "MAIL_PORT": "9", "MAIL_SECURITY": "none"}
    people = {"MAIL_FROM": "platform@example.com", "MAIL_TO": "me@example.com"}
    world = World.at(tmp_path, instance, SOURCE="files", REPLAY="false", **mail, **people)
    for _ in range(2):  # the second time with the cursor lost
        assert sense(world, None, sensors.data_alerts)[1] == "MISSING"
    pending = build_resources(world.settings)["account"].open_ledger().pending_mails()
    assert [message.subject.split(" at ")[0] for message in pending] == ["paper: market data MISSING"]
