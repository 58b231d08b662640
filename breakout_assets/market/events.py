"""S3's own messages about new objects, taken from an SQS queue: the arrival of a snapshot without listing a bucket."""

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote_plus

from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from breakout_assets.errors import TemporaryError
from breakout_assets.store import Store, hour_of_raw

MOST: Final = 10  # messages of one request, as many as SQS gives
# Requests of one look into the queue. A sensor may take a minute; a hundred messages are a few hundred milliseconds.
MOST_REQUESTS: Final = 10


@dataclass(frozen=True)
class Arrival:
    """A raw snapshot that was written, according to its bucket."""

    hour: datetime
    version: str
    """The object's ETag, as in a listing."""


@dataclass(frozen=True)
class Message:
    """One message of the queue; it comes again unless it is deleted.

    Attributes:
        receipt: What to delete it by.
        arrivals: Snapshots of this store that it tells of; none for test messages and foreign objects.
    """

    receipt: str
    arrivals: tuple[Arrival, ...]


@dataclass(frozen=True)
class EventQueue:
    """An SQS queue that a bucket's event notifications go to, directly or through SNS."""

    url: str
    region: str = ""

    def receive(self, store: Store) -> list[Message]:
        """The next messages, at most a hundred; nothing is waited for.

        Raises:
            TemporaryError: the queue did not answer, or refused.
        """
        found: list[Message] = []
        with self._asking():
            for _ in range(MOST_REQUESTS):
                answer = self._client().receive_message(QueueUrl=self.url, MaxNumberOfMessages=MOST)
                messages = answer.get("Messages", [])
                found += [Message(each["ReceiptHandle"], arrivals_in(each["Body"], store)) for each in messages]
                if len(messages) < MOST:
                    break
        return found

    def delete(self, receipts: Sequence[str]) -> None:
        """Delete messages that have been dealt with; one that has come again meanwhile is left to its next time."""
        with self._asking():
            for start in range(0, len(receipts), MOST):
                entries = [
                    {"Id": str(number), "ReceiptHandle": receipt}
                    for number, receipt in enumerate(receipts[start : start + MOST])
                ]
                self._client().delete_message_batch(QueueUrl=self.url, Entries=entries)

    def _client(self) -> Any:
        # The queue's address names its server, on AWS as well as elsewhere.
        return _client(os.getpid(), re.sub(r"(https?://[^/]+).*", r"\1", self.url), self.region or None)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except (BotoCoreError, ClientError) as error:
            raise TemporaryError(f"the queue {self.url} cannot be used ({error}); check BREAKOUT_SQS_URL") from error


def arrivals_in(body: str, store: Store) -> tuple[Arrival, ...]:
    """The raw snapshots of this store that a message tells of; whatever else may lie in a queue tells of none."""
    try:
        content = json.loads(body)
        if isinstance(content, dict) and isinstance(content.get("Message"), str):  # SNS puts it into an envelope
            content = json.loads(content["Message"])
        records = content.get("Records", []) if isinstance(content, dict) else []
        found = [_arrival(record, store) for record in records if isinstance(record, dict)]
    except (ValueError, KeyError, TypeError, AttributeError):
        return ()
    return tuple(arrival for arrival in found if arrival)


def _arrival(record: dict[str, Any], store: Store) -> Arrival | None:
    if not str(record["eventName"]).startswith("ObjectCreated"):
        return None
    # Keys come as in a web form: a space is a plus.
    name = f"{record['s3']['bucket']['name']}/{unquote_plus(record['s3']['object']['key'])}"
    hour = hour_of_raw(name)
    if hour is None or not name.startswith(f"{store.root.path}/cmc/latest/"):
        return None
    return Arrival(hour, str(record["s3"]["object"].get("eTag", "")).strip('"'))


@lru_cache(maxsize=2)
def _client(process: int, endpoint: str, region: str | None) -> Any:
    config = Config(connect_timeout=5, read_timeout=20, retries={"mode": "standard"})
    return Session().client("sqs", endpoint_url=endpoint, region_name=region, config=config)
