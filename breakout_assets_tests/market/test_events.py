"""Event messages of a bucket, through a real S3 and a real SQS interface (moto)."""

import json
from collections.abc import Iterator
from uuid import uuid4

import boto3
import pytest
from moto.server import ThreadedMotoServer

from breakout_assets.errors import TemporaryError
from breakout_assets.market.events import Arrival, EventQueue, arrivals_in
from breakout_assets.market.files import raw_bytes
from breakout_assets.store import Store
from breakout_assets_tests.samples import at, coin, listing

HOUR = at("2024-03-01 05:00")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def queue(server: str, aws: None) -> EventQueue:
    """A queue of this test that the bucket `events` sends its messages to."""
    name = uuid4().hex
    sqs = boto3.client("sqs", endpoint_url=server, region_name="us-east-1")
    s3 = boto3.client("s3", endpoint_url=server, region_name="us-east-1")
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    s3.create_bucket(Bucket="events")
    notify = {"QueueConfigurations": [{"QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}]}
    s3.put_bucket_notification_configuration(Bucket="events", NotificationConfiguration=notify)
    return EventQueue(f"{server}/123456789012/{name}", "us-east-1")


def test_a_snapshot_that_arrives_is_told_with_the_version_that_a_listing_gives(queue: EventQueue, server: str) -> None:
    store = Store.at("s3://events/a b", server, "us-east-1")
    store.write(store.raw_path(HOUR, "csv"), raw_bytes(listing(HOUR, [coin(1)]), "csv"))
    store.write(store.root / "predictions" / "2024/03/01/05.parquet", b"not a snapshot")
    messages = queue.receive(store)
    told = [arrival for message in messages for arrival in message.arrivals]
    file = store.raw_file(HOUR)
    assert file is not None
    assert told == [Arrival(HOUR, file.version)]
    assert not any(message.arrivals for message in queue.receive(Store.at("s3://events/other", server)))


def test_messages_come_until_they_are_deleted(queue: EventQueue, server: str) -> None:
    store = Store.at("s3://events/b", server, "us-east-1")
    for hour in range(24):
        store.write(store.raw_path(at(f"2024-03-02 {hour:02}:00"), "csv"), b"x")
    messages = queue.receive(store)
    assert len({arrival.hour for message in messages for arrival in message.arrivals}) == 24
    queue.delete([message.receipt for message in messages])
    sqs = boto3.client("sqs", endpoint_url=server, region_name="us-east-1")
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    left = sqs.get_queue_attributes(QueueUrl=queue.url, AttributeNames=names)["Attributes"]
    assert {int(left[name]) for name in names} == {0}
    queue.delete([])


@pytest.mark.parametrize(
    "body",
    [
        "",
        "no JSON",
        "[]",
        "7",
        '{"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "bucket"}',
        '{"Records": [{}]}',
        '{"Records": [7, null]}',
        '{"Records": [{"eventName": "ObjectRemoved:Delete", "s3": {}}]}',
        '{"Records": [{"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "b"}, "object": {"key": "x"}}}]}',
    ],
)
def test_whatever_else_lies_in_a_queue_is_no_arrival(body: str) -> None:
    assert arrivals_in(body, Store.at("s3://bucket/p")) == ()


def test_a_message_through_sns_is_unpacked_and_its_key_decoded() -> None:
    key = "my+own%2Bprefix/cmc/latest/2024/03/01/05/cmcdata.csv"
    s3 = {"bucket": {"name": "bucket"}, "object": {"key": key, "eTag": "abc"}}
    inner = json.dumps({"Records": [{"eventName": "ObjectCreated:Put", "s3": s3}]})
    store = Store.at("s3://bucket/my own+prefix")
    assert arrivals_in(json.dumps({"Type": "Notification", "Message": inner}), store) == (Arrival(HOUR, "abc"),)
    assert arrivals_in(inner, Store.at("s3://bucket/other")) == ()


def test_a_queue_that_cannot_be_asked_is_a_temporary_error(aws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    queue = EventQueue("http://127.0.0.1:9/123456789012/arrivals", "us-east-1")
    with pytest.raises(TemporaryError, match="BREAKOUT_SQS_URL"):
        queue.receive(Store.at("s3://bucket/p"))
