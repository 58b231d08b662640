"""What is looked at all the time: files that other programs write, data, models, failed runs, and the outbox."""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import dagster as dg

from breakout_assets.clock import Clock
from breakout_assets.defs.automation import VERSION_TAG, hourly_job, newest_metadata
from breakout_assets.defs.mailing import deliver_mail, secrets, without_secrets
from breakout_assets.defs.market import VERSION
from breakout_assets.defs.partitions import HOURS, hour_key, hour_of
from breakout_assets.learning.expiry import IN_TIME, expiry
from breakout_assets.market.events import Arrival, EventQueue
from breakout_assets.market.health import condition, due_hour
from breakout_assets.store import Store
from breakout_assets.trading.account import Account
from breakout_assets.trading.mails import (
    Mail,
    MailSettings,
    compose_condition,
    compose_expired,
    compose_failed_run,
    partition_link,
    run_link,
)

# Files of hours that are older than the look-back of an indicator change nothing that is still to be made.
ARRIVALS_BACK: Final = timedelta(days=31)
# A bucket says when an object's upload began; it is listed when the upload has ended.
OVERLAP: Final = timedelta(minutes=10)
# Without a cursor nobody knows what was seen. Months of imported hours are no arrivals.
FIRST_LOOK: Final = timedelta(days=1)
# Runs that one tick asks for; what is left waits for the next.
MOST_RUNS: Final = 24
ALERTS_SECONDS: Final = 300


@dg.sensor(job=hourly_job, minimum_interval_seconds=60)
def snapshot_arrivals(
    context: dg.SensorEvaluationContext, store: dg.ResourceParam[Store]
) -> dg.SensorResult | dg.SkipReason:
    """One hourly run for each snapshot of the last month that another program wrote or rewrote.

    Files are taken by the time at which they were written, so that late hours and hours out of order are seen. In a
    bucket a tick costs at most four listings. The hour that this platform has fetched itself is known by its version
    and not run again; a late hour refreshes data, and the order step refuses to trade on it.
    """
    last_key = HOURS.get_last_partition_key()
    if last_key is None:
        return dg.SkipReason("BREAKOUT_START lies in the future")
    newest = hour_of(last_key)
    cursor: dict[str, Any] = json.loads(context.cursor or "{}")
    since = datetime.fromisoformat(cursor["written"]) if cursor else newest - FIRST_LOOK
    seen: dict[str, str] = dict(cursor.get("seen", {}))
    files = sorted(store.raw_between(newest - ARRIVALS_BACK, newest).values(), key=lambda file: file.modified)
    requests: list[dg.RunRequest] = []
    written = max([since, *(file.modified for file in files)])
    for file in files:
        key = hour_key(file.hour)
        if file.modified < since - OVERLAP or seen.get(key) == file.version or not HOURS.has_partition_key(key):
            continue
        if len(requests) == MOST_RUNS or _running(context.instance, key):  # that run may be reading this very file
            written = min(written, file.modified)
            continue
        requests += _request(context.instance, Arrival(file.hour, file.version))
        seen[key] = file.version
    recent = {hour_key(file.hour) for file in files if file.modified >= written - OVERLAP}
    cursor = {"written": written.isoformat(), "seen": {key: seen[key] for key in sorted(recent & seen.keys())}}
    return dg.SensorResult(run_requests=requests, cursor=json.dumps(cursor))


@dg.sensor(job=hourly_job, minimum_interval_seconds=30)
def snapshot_events(
    context: dg.SensorEvaluationContext, store: dg.ResourceParam[Store], events: dg.ResourceParam[EventQueue]
) -> dg.SensorResult | dg.SkipReason:
    """One hourly run for each snapshot that the bucket's own messages tell of (BREAKOUT_SQS_URL).

    A message is deleted in the tick after the one that asked for its run: if that tick is lost, the message comes
    again, and the run is known by its key.
    """
    last_key = HOURS.get_last_partition_key()
    if last_key is None:
        return dg.SkipReason("BREAKOUT_START lies in the future")
    events.delete(json.loads(context.cursor or "[]"))
    done, requests = [], []
    for message in events.receive(store):
        arrivals = [each for each in message.arrivals if HOURS.has_partition_key(hour_key(each.hour))]
        if any(_running(context.instance, hour_key(each.hour)) for each in arrivals):
            continue  # the message comes again
        for arrival in arrivals:
            requests += _request(context.instance, arrival)
        done.append(message.receipt)
    return dg.SensorResult(run_requests=requests, cursor=json.dumps(done))


@dg.sensor(minimum_interval_seconds=ALERTS_SECONDS)
def data_alerts(
    context: dg.SensorEvaluationContext,
    store: dg.ResourceParam[Store],
    clock: dg.ResourceParam[Clock],
    account: dg.ResourceParam[Account],
) -> dg.SkipReason:
    """Mails when market data cease to be fit for trading (an hour is missing, REDUCE_ONLY, HALTED), and when they are.

    One mail for each change, not for each hour. Without a mail account the change is in the sensor's log.
    """
    last_key = HOURS.get_last_partition_key()
    if last_key is None:
        return dg.SkipReason("BREAKOUT_START lies in the future")
    found = condition(store, clock.now(hour_of(last_key)))
    if found is None or found.state == (context.cursor or "ACTIVE"):
        return dg.SkipReason(found.sentence if found else "the newest hour has not been judged yet")
    context.log.warning("%s", found.sentence)
    asset = "hourly_snapshots" if found.state == "MISSING" else "market_health"

    def compose(mail: MailSettings) -> Mail:
        link = partition_link(mail.ui_url, asset, hour_key(found.hour))
        return compose_condition(account.name, found, mail.recipients, link)

    _tell(context.log, account, compose)
    context.update_cursor(found.state)
    return dg.SkipReason(found.sentence)


@dg.sensor(minimum_interval_seconds=ALERTS_SECONDS)
def model_alerts(
    context: dg.SensorEvaluationContext,
    store: dg.ResourceParam[Store],
    clock: dg.ResourceParam[Clock],
    account: dg.ResourceParam[Account],
) -> dg.SkipReason:
    """Mails when models or their evaluation have expired for most coins, and when they are in time again.

    One mail for each change, not for each hour. Without a mail account the change is in the sensor's log.
    """
    last_key = HOURS.get_last_partition_key()
    if last_key is None:
        return dg.SkipReason("BREAKOUT_START lies in the future")
    hour = due_hour(clock.now(hour_of(last_key)))
    if not store.has_table("predictions", hour):
        return dg.SkipReason(f"the hour {hour_key(hour)} has not been predicted yet")
    found = expiry(store.read_table("predictions", [hour], ["reason", "fallback"]), hour)
    if found is None or found.state == (context.cursor or IN_TIME):
        return dg.SkipReason(found.sentence if found else f"no coin could be judged at {hour_key(hour)}")
    context.log.warning("%s", found.sentence)

    def compose(mail: MailSettings) -> Mail:
        link = partition_link(mail.ui_url, "predictions", hour_key(hour))
        return compose_expired(account.name, found, mail.recipients, link)

    _tell(context.log, account, compose)
    context.update_cursor(found.state)
    return dg.SkipReason(found.sentence)


@dg.run_failure_sensor
def run_failures(context: dg.RunFailureSensorContext, account: dg.ResourceParam[Account]) -> None:
    """Mails each run of this code location that failed, whatever started it.

    Failures from before the sensor was switched on are not told. A tick tells of one run; the next ones follow in the
    next ticks.
    """
    run, hidden = context.dagster_run, secrets()
    steps = [(str(event.step_key), _cause(event)) for event in context.get_step_failure_events()]

    def compose(mail: MailSettings) -> Mail:
        return compose_failed_run(
            account=account.name,
            job=_name(run),
            run_id=run.run_id,
            partition=_partition(run.tags),
            failed_at=_failed_at(context.instance, run.run_id),
            error=context.failure_event.message or "The run says nothing of its failure.",
            steps=steps,
            recipients=mail.recipients,
            link=run_link(mail.ui_url, run.run_id),
            secrets=hidden,
        )

    try:
        _tell(context.log, account, compose)
    except Exception as error:  # raised here, it would count as a failure of this sensor and mend nothing
        context.log.error("the failed run %s is not mailed: %s", run.run_id, without_secrets(error))


@dg.sensor(minimum_interval_seconds=60)
def mail_delivery(context: dg.SensorEvaluationContext, account: dg.ResourceParam[Account]) -> dg.SkipReason:
    """Sends mails that could not be sent when they were written."""
    if account.mail is None:
        return dg.SkipReason("no mail account is set (BREAKOUT_MAIL_HOST)")
    report = deliver_mail(context.log, account, account.open_ledger())
    if report is None:
        return dg.SkipReason("the outbox cannot be used now; this tick's log says why")
    return dg.SkipReason(
        "; ".join([f"mails sent: {report.sent}, left in the outbox: {report.pending}", *report.errors])
    )


def _tell(log: Any, account: Account, compose: Callable[[MailSettings], Mail]) -> None:
    """Put a mail into the outbox, unless it has ever been there, and try to deliver it."""
    if account.mail is None:
        return
    ledger, mail = account.open_ledger(), compose(account.mail)
    with ledger.write(account.name) as books:
        books.post_once(mail)
    deliver_mail(log, account, ledger)


def _name(run: dg.DagsterRun) -> str:
    """The job, or the assets where somebody materialised them by hand and the job is Dagster's own __ASSET_JOB."""
    assets = sorted(key.to_user_string() for key in run.asset_selection or ())
    return ", ".join(assets) if assets and run.job_name.startswith("__") else run.job_name


def _partition(tags: Mapping[str, str]) -> str | None:
    """What a run was to make; None if it had no partition."""
    first, last = (tags.get(f"dagster/asset_partition_range_{end}") for end in ("start", "end"))
    return tags.get("dagster/partition") or (first if first == last else f"{first} to {last}")


def _cause(event: dg.DagsterEvent) -> str:
    """What a failed step says of itself, without Dagster's own error around it."""
    data = event.step_failure_data
    if data.user_failure_data and data.user_failure_data.description:
        return data.user_failure_data.description
    error = data.error
    if error and error.cause and str(error.cls_name).startswith("Dagster"):
        error = error.cause
    return error.message if error else "no error is recorded"


def _failed_at(instance: dg.DagsterInstance, run_id: str) -> datetime:
    """When a run ended, naive UTC."""
    [record] = instance.get_run_records(dg.RunsFilter(run_ids=[run_id]))
    ended = datetime.fromtimestamp(record.end_time, UTC) if record.end_time else record.update_timestamp
    return ended.astimezone(UTC).replace(tzinfo=None, microsecond=0)


def _request(instance: dg.DagsterInstance, arrival: Arrival) -> list[dg.RunRequest]:
    key = hour_key(arrival.hour)
    if newest_metadata(instance, "hourly_snapshots", key, VERSION) == arrival.version:
        return []
    # Remembered for ever, so it carries the version: the same bytes again would be the same key.
    tags = {VERSION_TAG: arrival.version}
    return [dg.RunRequest(run_key=f"{key}@{arrival.version}", partition_key=key, tags=tags)]


def _running(instance: dg.DagsterInstance, key: str) -> bool:
    runs = instance.get_runs(dg.RunsFilter(job_name=hourly_job.name, tags={"dagster/partition": key}))
    return any(not run.is_finished for run in runs)


SENSORS: Final = [snapshot_arrivals, data_alerts, model_alerts, run_failures, mail_delivery]
EVENT_SENSORS: Final = [snapshot_events]
