"""What is looked at all the time: files that other programs write, and whether the data can be trusted."""

import json
from datetime import datetime, timedelta
from typing import Any, Final

import dagster as dg

from breakout_assets.clock import Clock
from breakout_assets.defs.automation import VERSION_TAG, hourly_job, newest_metadata
from breakout_assets.defs.market import VERSION
from breakout_assets.defs.partitions import HOURS, hour_key, hour_of
from breakout_assets.defs.trading import deliver_mail
from breakout_assets.market.events import Arrival, EventQueue
from breakout_assets.market.health import condition
from breakout_assets.store import Store
from breakout_assets.trading.account import Account

# Files of hours that are older than the look-back of an indicator change nothing that is still to be made.
ARRIVALS_BACK: Final = timedelta(days=31)
# A bucket says when an object's upload began; it is listed when the upload has ended.
OVERLAP: Final = timedelta(minutes=10)
# Without a cursor nobody knows what was seen. Months of imported hours are no arrivals.
FIRST_LOOK: Final = timedelta(days=1)
# Runs that one tick asks for; what is left waits for the next.
MOST_RUNS: Final = 24
DATA_ALERTS_SECONDS: Final = 300


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


@dg.sensor(minimum_interval_seconds=DATA_ALERTS_SECONDS)
def data_alerts(
    context: dg.SensorEvaluationContext,
    store: dg.ResourceParam[Store],
    clock: dg.ResourceParam[Clock],
    account: dg.ResourceParam[Account],
) -> dg.SkipReason:
    """Mails when market data cease to be fit for trading (an hour is missing, REDUCE_ONLY, HALTED), and when they are.

    One mail for each change, not for each hour. Without a mail account the change is in the sensor's log.
    """
    from breakout_assets.trading.alerts import compose_condition

    last_key = HOURS.get_last_partition_key()
    if last_key is None:
        return dg.SkipReason("BREAKOUT_START lies in the future")
    found = condition(store, clock.now(hour_of(last_key)))
    if found is None or found.state == (context.cursor or "ACTIVE"):
        return dg.SkipReason(found.sentence if found else "the newest hour has not been judged yet")
    context.log.warning("%s", found.sentence)
    if account.mail:
        ledger = account.open_ledger()
        mail = compose_condition(account.name, found, account.mail.recipients)
        with ledger.write(account.name) as books:
            books.post_once(mail)
        deliver_mail(context.log, account, ledger)
    context.update_cursor(found.state)
    return dg.SkipReason(found.sentence)


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


SENSORS: Final = [snapshot_arrivals, data_alerts]
EVENT_SENSORS: Final = [snapshot_events]
