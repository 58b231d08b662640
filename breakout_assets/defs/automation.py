"""When what is made: jobs and schedules.

Schedules look at what is missing, not at what has just become due: after an outage each goes on where it stopped.
Orders are placed by the hourly job alone, never by a condition, which would fire again whenever a prediction is made
again.
"""

from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from itertools import groupby
from typing import Final

import dagster as dg

from breakout_assets.dataset.features import days_of_look_back
from breakout_assets.defs.coverage import coverage
from breakout_assets.defs.dataset import indicator_features, labelled_dataset, live_indicators
from breakout_assets.defs.evaluation import model_report, out_of_sample
from breakout_assets.defs.market import SOURCES, daily_snapshots, hourly_snapshots, market_health
from breakout_assets.defs.models import predictions, token_model
from breakout_assets.defs.monitoring import model_monitoring
from breakout_assets.defs.partitions import (
    DAYS,
    HOURS,
    LABEL_DAYS,
    TOKENS_NAME,
    days_between,
    hour_key,
    range_tags,
)
from breakout_assets.defs.portfolio import PORTFOLIO_SCHEDULE, portfolio_job
from breakout_assets.defs.retention import RETENTION_SCHEDULE
from breakout_assets.defs.trading import WITHOUT_DATA, trade_orders
from breakout_assets.market.collect import SnapshotSource
from breakout_assets.market.history import compacted_hours, day_bounds, days_behind, sources_of
from breakout_assets.market.schema import HOUR, hours_between
from breakout_assets.store import Store
from breakout_assets.trading.account import Account
from breakout_assets.trading.holdings import is_busy

# Two days of hours cost a tick nothing; whoever is away for longer backfills.
HOURS_BACK: Final = 48
# Days in which a late raw file still leads to the day being compacted again: as far as an indicator looks back.
DAYS_BACK: Final = 31
# Runs that one partition may use up before it waits for a person.
ATTEMPTS: Final = 3
FAILED: Final = (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
# An hourly run takes seconds. One that still runs after half an hour is dead, and would block its hour.
# The instance lets one run of each loop go at a time (dagster.yaml), and takes the trading loop's first.
HOURLY_TAGS: Final = {"dagster/max_runtime": "1800", "dagster/priority": "10", "breakout/loop": "trading"}
LEARNING_TAGS: Final = {"breakout/loop": "learning"}
# The version of the data that a run is to read: after three failures on one version a new one is tried again.
VERSION_TAG: Final = "breakout/version"

hourly_job = dg.define_asset_job(
    "hourly_job",
    selection=[hourly_snapshots, market_health, live_indicators, predictions, trade_orders],
    description="The trading loop for one hour: snapshot, health, indicators, predictions, orders.",
    tags=HOURLY_TAGS,
)
exits_job = dg.define_asset_job(
    "exits_job",
    selection=[trade_orders],
    description="Orders of one hour although its data are missing or faulty: exits and cancellations, no purchase.",
    tags={**HOURLY_TAGS, WITHOUT_DATA: "true"},
)
daily_snapshots_job = dg.define_asset_job(
    "daily_snapshots_job",
    selection=[daily_snapshots],
    description="Compacts the hours of days that are over.",
    tags=LEARNING_TAGS,
)
dataset_job = dg.define_asset_job(
    "dataset_job",
    selection=[labelled_dataset, indicator_features],
    description="Labels and indicators of days whose five-day future is over.",
    tags=LEARNING_TAGS,
)
coverage_job = dg.define_asset_job(
    "coverage_job",
    selection=[coverage],
    description="Looks at which hours are there and what can be done about the rest.",
    tags=LEARNING_TAGS,
)
evaluation_job = dg.define_asset_job(
    "evaluation_job",
    selection=[out_of_sample, model_report],
    description="What the recipe that speaks would have said of the past, and whether it may go on buying.",
    tags=LEARNING_TAGS,
)
monitoring_job = dg.define_asset_job(
    "monitoring_job",
    selection=[model_monitoring],
    description="What became of the predictions of the last weeks.",
    tags=LEARNING_TAGS,
)
training_job = dg.define_asset_job(
    "training_job",
    selection=[token_model],
    description="Trains every token's model and the pooled one.",
    tags=LEARNING_TAGS,
)


def _request(context: dg.ScheduleEvaluationContext, job: str, key: str, version: str) -> Iterator[dg.RunRequest]:
    """A run for a partition; none while one is under way, or after too many have failed on the same data."""
    runs = context.instance.get_runs(dg.RunsFilter(job_name=job, tags={"dagster/partition": key}))
    if any(not run.is_finished for run in runs):
        return
    failed = sum(run.status in FAILED and run.tags.get(VERSION_TAG) == version for run in runs)
    if failed >= ATTEMPTS:
        context.log.warning("%s of %s has failed %d times on the same data and waits for a person", key, job, failed)
        return
    # A run key guards within one tick; the attempt makes it another key in the next.
    yield dg.RunRequest(run_key=f"{key}#{version}#{failed}", partition_key=key, tags={VERSION_TAG: version})


def _tick_time(context: dg.ScheduleEvaluationContext) -> datetime:
    return context.scheduled_execution_time.replace(tzinfo=None)


def missing_hours(
    context: dg.ScheduleEvaluationContext, store: Store, source: SnapshotSource, hours_back: int
) -> Iterator[dg.RunRequest]:
    """The hour that has just begun, and each of the hours before it that was not traded and can still be had."""
    newest = _tick_time(context).replace(minute=0, second=0, microsecond=0)
    hours = hours_between(newest - (hours_back - 1) * HOUR, newest)
    there = store.raw_between(hours[0], newest)
    # An hour that was only carried on with, without its data, is still to be collected.
    materialised = context.instance.get_materialized_partitions
    done = materialised(dg.AssetKey("trade_orders")) & materialised(dg.AssetKey("live_indicators"))
    for hour in hours:
        key = hour_key(hour)
        if key in done or not HOURS.has_partition_key(key):
            continue
        if hour not in there and not source.can_fetch(hour, newest):
            continue  # the sensor sees it if another program delivers it after all
        yield from _request(context, hourly_job.name, key, there[hour].version if hour in there else "")


# Five past: CoinMarketCap refreshes every minute, but a collector beside us may take a few to write the hour. Three
# more times within the hour, since a live listing can be fetched until the hour is over and not a minute longer.
@dg.schedule(job=hourly_job, cron_schedule="5,20,35,50 * * * *", execution_timezone="UTC")
def hourly_schedule(
    context: dg.ScheduleEvaluationContext, store: dg.ResourceParam[Store], source: dg.ResourceParam[SnapshotSource]
) -> Iterator[dg.RunRequest]:
    """The hour that has just begun, and every hour of the last two days that was missed and can still be had."""
    yield from missing_hours(context, store, source, HOURS_BACK)


# Seven minutes after the last attempt at the hour, which takes seconds, and before the next hour begins.
@dg.schedule(job=exits_job, cron_schedule="57 * * * *", execution_timezone="UTC")
def exits_schedule(
    context: dg.ScheduleEvaluationContext, account: dg.ResourceParam[Account]
) -> dg.RunRequest | dg.SkipReason:
    """The hour that ends, if it was not traded and something is held or ordered: exits must not wait for data."""
    hour = _tick_time(context).replace(minute=0, second=0, microsecond=0)
    key = hour_key(hour)
    if not HOURS.has_partition_key(key) or not is_busy(account.open_ledger(), account.name):
        return dg.SkipReason("nothing is held or ordered")
    if key in context.instance.get_materialized_partitions(dg.AssetKey("trade_orders")):
        return dg.SkipReason("the hour has been traded")
    runs = context.instance.get_runs(dg.RunsFilter(job_name=hourly_job.name, tags={"dagster/partition": key}))
    if any(not run.is_finished for run in runs):
        return dg.SkipReason("the hour is being traded")
    return dg.RunRequest(run_key=key, partition_key=key)


# Twenty past midnight for the day that has ended, and every hour after for what was late.
@dg.schedule(job=daily_snapshots_job, cron_schedule="20 * * * *", execution_timezone="UTC")
def daily_snapshots_schedule(
    context: dg.ScheduleEvaluationContext, store: dg.ResourceParam[Store]
) -> Iterator[dg.RunRequest]:
    """Days of the last month that are over and have not been compacted, or have got a raw file since."""
    today = _tick_time(context).date()
    days = days_between(today - timedelta(days=DAYS_BACK), today - timedelta(days=1))
    for day, sources in outdated_days(context.instance, store, days).items():
        yield from _request(context, daily_snapshots_job.name, day.isoformat(), sources)


def outdated_days(instance: dg.DagsterInstance, store: Store, days: Sequence[date]) -> dict[date, str]:
    """Those of these days whose raw files are not the ones that they were compacted from, and what these are now.

    Without the days whose file has hours that no raw file has any more: compacted again it would lose them.
    """
    files = store.raw_between(day_bounds(min(days_behind(days[0])))[0], day_bounds(days[-1])[1])
    by_day = {day: list(group) for day, group in groupby(files.values(), key=lambda file: file.hour.date())}
    found = {}
    for day in days:
        sources = sources_of(file for each in days_behind(day) for file in by_day.get(each, ()))
        if day not in by_day or not DAYS.has_partition_key(day.isoformat()):
            continue
        if newest_metadata(instance, "daily_snapshots", day.isoformat(), SOURCES) == sources:
            continue
        if not compacted_hours(store, day) - {file.hour for file in by_day[day]}:
            found[day] = sources
    return found


def newest_metadata(instance: dg.DagsterInstance, asset: str, key: str, name: str) -> object:
    """One value of a partition's newest materialisation; None if there is none."""
    record = _newest_record(instance, asset, [key])
    event = record.asset_materialization if record else None
    return event.metadata[name].value if event and name in event.metadata else None


def _newest_record(instance: dg.DagsterInstance, asset: str, keys: list[str]) -> dg.EventLogRecord | None:
    """The newest materialisation among these partitions; its storage id tells which of two came later."""
    found = instance.fetch_materializations(dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=keys), limit=1)
    return found.records[0] if found.records else None


# Twenty minutes after the compaction that it needs; a day that was late is found in the next hour.
@dg.schedule(job=dataset_job, cron_schedule="40 * * * *", execution_timezone="UTC")
def dataset_schedule(context: dg.ScheduleEvaluationContext, store: dg.ResourceParam[Store]) -> Iterator[dg.RunRequest]:
    """Days whose future has been compacted and that have no labels or indicators, or older ones than their input."""
    today = _tick_time(context).date()
    days = days_between(today - timedelta(days=DAYS_BACK + 5), today - timedelta(days=6))
    for day, version in outdated_labels(context.instance, store, days).items():
        yield from _request(context, dataset_job.name, day.isoformat(), version)


def outdated_labels(instance: dg.DagsterInstance, store: Store, days: Sequence[date]) -> dict[date, str]:
    """Those of these days that can have labels and have none, or older ones than their input; with its version."""
    there = store.days_there("daily_snapshots", [*days, *days_between(days[-1], days[-1] + timedelta(days=5))])
    found = {}
    for day in days:
        future = days_between(day, day + timedelta(days=5))
        if not {future[0], future[-1]} <= there or not LABEL_DAYS.has_partition_key(day.isoformat()):
            continue
        inputs = [each.isoformat() for each in (*days_of_look_back(day), *future)]
        newest_input = _newest_record(instance, "daily_snapshots", inputs)
        made = _newest_record(instance, "indicator_features", [day.isoformat()])
        if not (made and newest_input and made.storage_id > newest_input.storage_id):
            found[day] = str(newest_input.storage_id) if newest_input else ""
    return found


# After the compaction of the day that has ended.
coverage_schedule = dg.ScheduleDefinition(
    name="coverage_schedule", job=coverage_job, cron_schedule="50 0 * * *", execution_timezone="UTC"
)


# Sunday night: the week's labels are in, and nobody watches the two cores.
@dg.schedule(job=training_job, cron_schedule="0 3 * * 0", execution_timezone="UTC")
def training_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """All tokens and the pool, in one run."""
    tokens = context.instance.get_dynamic_partitions(TOKENS_NAME)
    if not tokens:
        return dg.SkipReason("no token has enough history yet; materialise indicator_features")
    return dg.RunRequest(run_key=None, tags=range_tags(tokens))


# Sunday night, when the week's models are trained: evidence is renewed as often as models are.
evaluation_schedule = dg.ScheduleDefinition(
    name="evaluation_schedule", job=evaluation_job, cron_schedule="0 4 * * 0", execution_timezone="UTC"
)
# After the labels of the day whose five-day future has just ended.
monitoring_schedule = dg.ScheduleDefinition(
    name="monitoring_schedule", job=monitoring_job, cron_schedule="10 1 * * *", execution_timezone="UTC"
)

JOBS: Final = [
    hourly_job,
    exits_job,
    daily_snapshots_job,
    dataset_job,
    coverage_job,
    training_job,
    evaluation_job,
    monitoring_job,
    portfolio_job,
]
SCHEDULES: Final = [
    hourly_schedule,
    exits_schedule,
    daily_snapshots_schedule,
    dataset_schedule,
    coverage_schedule,
    training_schedule,
    evaluation_schedule,
    monitoring_schedule,
    PORTFOLIO_SCHEDULE,
    RETENTION_SCHEDULE,
]
