"""When what is made: jobs, schedules, the arrival sensor.

Schedules look at what is missing, not at what has just become due: after an outage each goes on where it stopped.
Orders are placed by the hourly job alone, never by a condition, which would fire again whenever a prediction is made
again.
"""

import json
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import Final

import dagster as dg

from breakout_assets.defs.dataset import indicator_features, labelled_dataset, live_indicators
from breakout_assets.defs.market import SOURCES, VERSION, daily_snapshots, hourly_snapshots, market_health
from breakout_assets.defs.models import predictions, token_model
from breakout_assets.defs.partitions import DAYS, HOURS, LABEL_DAYS, TOKENS_NAME, days_between, hour_key, range_tags
from breakout_assets.defs.trading import trade_orders
from breakout_assets.market.collect import SnapshotSource
from breakout_assets.market.history import sources_of
from breakout_assets.market.schema import HOUR, hours_between
from breakout_assets.store import Store

# Two days of hours cost a tick nothing; whoever is away for longer backfills.
HOURS_BACK: Final = 48
# Days in which a late raw file still leads to the day being compacted again.
DAYS_BACK: Final = 8
# Runs that one partition may use up before it waits for a person.
ATTEMPTS: Final = 3
# An hourly run takes seconds. One that still runs after half an hour is dead, and would block its hour.
HOURLY_TAGS: Final = {"dagster/max_runtime": "1800"}

hourly_job = dg.define_asset_job(
    "hourly_job",
    selection=[hourly_snapshots, market_health, live_indicators, predictions, trade_orders],
    description="The trading loop for one hour: snapshot, health, indicators, predictions, orders.",
    tags=HOURLY_TAGS,
)
daily_snapshots_job = dg.define_asset_job(
    "daily_snapshots_job", selection=[daily_snapshots], description="Compacts the hours of days that are over."
)
dataset_job = dg.define_asset_job(
    "dataset_job",
    selection=[labelled_dataset, indicator_features],
    description="Labels and indicators of days whose five-day future is over.",
)
training_job = dg.define_asset_job(
    "training_job", selection=[token_model], description="Trains every token's model and the pooled one."
)


def _unfinished_or_exhausted(context: dg.ScheduleEvaluationContext, job: str, key: str) -> tuple[bool, int]:
    """Whether a partition must be left alone in this tick, and how many of its runs have failed."""
    runs = context.instance.get_runs(dg.RunsFilter(job_name=job, tags={"dagster/partition": key}))
    failed = sum(run.status in (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED) for run in runs)
    return any(not run.is_finished for run in runs) or failed >= ATTEMPTS, failed


def _tick_time(context: dg.ScheduleEvaluationContext) -> datetime:
    return context.scheduled_execution_time.replace(tzinfo=None)


def missing_hours(
    context: dg.ScheduleEvaluationContext, store: Store, source: SnapshotSource, hours_back: int
) -> Iterator[dg.RunRequest]:
    """The hour that has just begun, and each of the hours before it that was not traded and can still be had."""
    newest = _tick_time(context).replace(minute=0, second=0, microsecond=0)
    hours = hours_between(newest - (hours_back - 1) * HOUR, newest)
    there = {hour for day in days_between(hours[0].date(), newest.date()) for hour in store.raw_files(day)}
    done = context.instance.get_materialized_partitions(dg.AssetKey("trade_orders"))
    for hour in hours:
        key = hour_key(hour)
        if key in done or not HOURS.has_partition_key(key):
            continue
        if hour not in there and not source.can_fetch(hour, newest):
            continue  # the sensor sees it if another program delivers it after all
        leave, failed = _unfinished_or_exhausted(context, hourly_job.name, key)
        if not leave:
            # A run key guards within one tick; the attempt makes it another key in the next.
            yield dg.RunRequest(run_key=f"{key}#{failed}", partition_key=key)


# Five past: CoinMarketCap refreshes every minute, but a collector beside us may take a few to write the hour.
@dg.schedule(job=hourly_job, cron_schedule="5 * * * *", execution_timezone="UTC")
def hourly_schedule(
    context: dg.ScheduleEvaluationContext, store: dg.ResourceParam[Store], source: dg.ResourceParam[SnapshotSource]
) -> Iterator[dg.RunRequest]:
    """The hour that has just begun, and every hour of the last two days that was missed and can still be had."""
    yield from missing_hours(context, store, source, HOURS_BACK)


# Twenty past midnight for the day that has ended, and every hour after for what was late.
@dg.schedule(job=daily_snapshots_job, cron_schedule="20 * * * *", execution_timezone="UTC")
def daily_snapshots_schedule(
    context: dg.ScheduleEvaluationContext, store: dg.ResourceParam[Store]
) -> Iterator[dg.RunRequest]:
    """Days of the last week that are over and have not been compacted, or have got a raw file since."""
    today = _tick_time(context).date()
    for days_ago in range(DAYS_BACK, 0, -1):
        day = today - timedelta(days=days_ago)
        files = store.raw_files(day)
        sources = sources_of(files.values())
        if not files or not DAYS.has_partition_key(day.isoformat()) or _recorded(context, day) == sources:
            continue
        leave, failed = _unfinished_or_exhausted(context, daily_snapshots_job.name, day.isoformat())
        if not leave:
            yield dg.RunRequest(run_key=f"{day}#{failed}#{sources}", partition_key=day.isoformat())


def _recorded(context: dg.ScheduleEvaluationContext, day: date) -> object:
    """The sources that a day was compacted from, as its newest materialisation says."""
    return _newest_metadata(context.instance, "daily_snapshots", day.isoformat(), SOURCES)


def _newest_metadata(instance: dg.DagsterInstance, asset: str, key: str, name: str) -> object:
    found = instance.fetch_materializations(dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=[key]), limit=1)
    for record in found.records:
        event = record.asset_materialization
        if event is not None and name in event.metadata:
            return event.metadata[name].value
    return None


# Twenty minutes after the compaction that it needs; a day that was late is found in the next hour.
@dg.schedule(job=dataset_job, cron_schedule="40 * * * *", execution_timezone="UTC")
def dataset_schedule(context: dg.ScheduleEvaluationContext, store: dg.ResourceParam[Store]) -> Iterator[dg.RunRequest]:
    """Days whose five-day future has been compacted and that have no labels or indicators yet."""
    today = _tick_time(context).date()
    done = context.instance.get_materialized_partitions(dg.AssetKey("indicator_features"))
    for days_ago in range(DAYS_BACK + 5, 5, -1):
        day = today - timedelta(days=days_ago)
        key = day.isoformat()
        ready = store.has_table("daily_snapshots", day) and store.has_table("daily_snapshots", day + timedelta(days=5))
        if key in done or not ready or not LABEL_DAYS.has_partition_key(key):
            continue
        leave, failed = _unfinished_or_exhausted(context, dataset_job.name, key)
        if not leave:
            yield dg.RunRequest(run_key=f"{key}#{failed}", partition_key=key)


# Sunday night: the week's labels are in, and nobody watches the two cores.
@dg.schedule(job=training_job, cron_schedule="0 3 * * 0", execution_timezone="UTC")
def training_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """All tokens and the pool, in one run."""
    tokens = context.instance.get_dynamic_partitions(TOKENS_NAME)
    if not tokens:
        return dg.SkipReason("no token has enough history yet; materialise indicator_features")
    return dg.RunRequest(run_key=None, tags=range_tags(tokens))


@dg.sensor(job=hourly_job, minimum_interval_seconds=60)
def snapshot_arrivals(
    context: dg.SensorEvaluationContext, store: dg.ResourceParam[Store]
) -> dg.SensorResult | dg.SkipReason:
    """One hourly run for each snapshot of today or yesterday that another program wrote or rewrote.

    The cursor is the listing itself, so that nothing depends on the order of arrival or on clocks. The hour that this
    platform has just fetched itself is known by its version and not run again; a late hour refreshes data, and the
    order step refuses to trade on it.
    """
    newest = HOURS.time_window_for_partition_key(HOURS.get_partition_keys()[-1]).start.replace(tzinfo=None)
    days = [newest.date() - timedelta(days=1), newest.date()]
    files = [file for day in days for file in store.raw_files(day).values() if file.hour <= newest]
    seen: dict[str, str] = json.loads(context.cursor or "{}")
    found: dict[str, str] = {}
    requests = []
    for file in files:
        key = hour_key(file.hour)
        if not HOURS.has_partition_key(key):
            continue
        if seen.get(key) != file.version:
            if _running(context.instance, key):
                continue  # it may be reading this very file; the next tick knows
            if _newest_metadata(context.instance, "hourly_snapshots", key, VERSION) != file.version:
                # Remembered for ever, so it carries the version: the same bytes again would be the same key.
                requests.append(dg.RunRequest(run_key=f"{key}@{file.version}", partition_key=key))
        found[key] = file.version
    return dg.SensorResult(run_requests=requests, cursor=json.dumps(found))


def _running(instance: dg.DagsterInstance, key: str) -> bool:
    runs = instance.get_runs(dg.RunsFilter(job_name=hourly_job.name, tags={"dagster/partition": key}))
    return any(not run.is_finished for run in runs)


JOBS: Final = [hourly_job, daily_snapshots_job, dataset_job, training_job]
SCHEDULES: Final = [hourly_schedule, daily_snapshots_schedule, dataset_schedule, training_schedule]
SENSORS: Final = [snapshot_arrivals]
