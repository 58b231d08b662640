"""The one place that knows what time it is. Naive UTC, as everywhere in the platform."""

from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Asked by the snapshot fetch, the age guard of orders, sensors, and whatever records when it happened."""

    def now(self, hour: datetime) -> datetime:
        """The time at which `hour` is being worked on."""


class SystemClock:
    """Real time."""

    def now(self, hour: datetime) -> datetime:
        """The time, whatever the hour."""
        return datetime.now(UTC).replace(tzinfo=None)


class ReplayClock:
    """Every hour is worked on five minutes after it began, as the hourly schedule would have done."""

    def now(self, hour: datetime) -> datetime:
        """Five minutes past `hour`."""
        return hour + timedelta(minutes=5)
