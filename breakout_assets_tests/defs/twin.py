"""The platform with a schedule that ticks every minute instead of every hour, for tests with a real daemon."""

from collections.abc import Iterator

import dagster as dg

from breakout_assets.definitions import build_definitions
from breakout_assets.defs.automation import hourly_job, missing_hours
from breakout_assets.market.collect import SnapshotSource
from breakout_assets.settings import load_settings
from breakout_assets.store import Store

# Two: the hour that has just begun, and one that was missed.
HOURS_BACK = 2


@dg.schedule(
    job=hourly_job,
    cron_schedule="* * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
def every_minute(
    context: dg.ScheduleEvaluationContext, store: dg.ResourceParam[Store], source: dg.ResourceParam[SnapshotSource]
) -> Iterator[dg.RunRequest]:
    """What `hourly_schedule` asks for, sixty times as often."""
    yield from missing_hours(context, store, source, HOURS_BACK)


@dg.definitions
def defs() -> dg.Definitions:
    """The real graph, sensor and jobs, and the quick schedule."""
    return dg.Definitions.merge(build_definitions(load_settings()), dg.Definitions(schedules=[every_minute]))
