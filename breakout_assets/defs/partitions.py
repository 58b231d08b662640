"""Partition sets. Their keys are a public contract: `2024-06-05-14:00`, `2024-06-05`, `SOL-5426`.

Changing a start date or an offset orphans what was materialised before.
"""

import warnings
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import Final

import dagster as dg

from breakout_assets.settings import load_settings

# Beta since 2024, and the only way to backfill a range in one run.
warnings.filterwarnings("ignore", category=dg.BetaWarning, message=".*backfill_policy.*")

# The one setting that is read when the code is imported: decorators need the partition sets.
START: Final = load_settings().start.isoformat()

HOUR_FORMAT: Final = "%Y-%m-%d-%H:%M"
DAY_FORMAT: Final = "%Y-%m-%d"
# The pooled model's partition. No token can be called that: every token name has a hyphen.
POOLED: Final = "ALL"

# The hour that has just begun is part of the set. Without the offset an hour would exist only when it is over, and
# every order would be an hour late.
HOURS: Final = dg.HourlyPartitionsDefinition(start_date=f"{START}-00:00", end_offset=1)
# Days that are over.
DAYS: Final = dg.DailyPartitionsDefinition(start_date=START)
# Days whose five-day future is over as well. Dagster cuts a mapping into the future without a word, so that a label
# could be made from a future that does not exist yet; a day that does not exist cannot be asked for.
LABEL_DAYS: Final = dg.DailyPartitionsDefinition(start_date=START, end_offset=-5)
# One partition a token with enough history, and POOLED. Added by `indicator_features`.
TOKENS_NAME: Final = "tokens"
TOKENS: Final = dg.DynamicPartitionsDefinition(name=TOKENS_NAME)

# A range is one run: a run a partition costs 75 times as much.
ONE_RUN: Final = dg.BackfillPolicy.single_run()

# Offsets count in units of the downstream side.
# An indicator of a day reads the 720 hours before each of its hours.
LOOK_BACK_DAYS: Final = dg.TimeWindowPartitionMapping(start_offset=-30)
# A label of a day needs the price five days later. All days between are declared, two are read: two separate
# dependencies on one asset are refused.
FUTURE_DAYS: Final = dg.TimeWindowPartitionMapping(end_offset=5)
LOOK_BACK_HOURS: Final = dg.TimeWindowPartitionMapping(start_offset=-719)
EVERYTHING: Final = dg.AllPartitionMapping()


def hour_of(key: str) -> datetime:
    """The hour (naive UTC) of a partition key."""
    return datetime.strptime(key, HOUR_FORMAT)  # noqa: DTZ007  naive UTC is the platform's own convention


def day_of(key: str) -> date:
    """The day of a partition key."""
    return date.fromisoformat(key)


def hour_key(hour: datetime) -> str:
    """The partition key of an hour."""
    return hour.strftime(HOUR_FORMAT)


def range_tags(keys: Iterable[str]) -> dict[str, str]:
    """Run tags that ask for all partitions from the first to the last of these keys in one run."""
    ordered = list(keys)
    return {"dagster/asset_partition_range_start": ordered[0], "dagster/asset_partition_range_end": ordered[-1]}


def days_between(first: date, last: date) -> list[date]:
    """Every day from `first` to `last`, both included."""
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]
