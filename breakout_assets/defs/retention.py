"""What the instance forgets, so that years of hours fit a disk: the logs of runs that ended long ago.

A run is a row, a log, and what it made. The row stays for ever: by it sensors know what they have asked for. So does
the newest materialisation of every partition, on which partition status, schedules and the arrival sensor rest, and the
newest result of every check. The log goes: its events, its file where the instance is in SQLite, the output of its
steps. So does what was superseded.

What is to go is looked up anew in each pass and deleted in small transactions: a pass can be stopped anywhere and the
next one goes on, and no running job waits for it longer than a moment.
"""

import sqlite3
from collections.abc import Callable, Iterator, Set
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, TypeVar

import dagster as dg
import sqlalchemy as sa
from dagster._core.storage.event_log import SqlEventLogStorage, SqlEventLogStorageTable
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable, AssetEventTagsTable
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage

from breakout_assets.defs.reporting import refusing
from breakout_assets.errors import DataError
from breakout_assets.settings import Settings

# Dagster has no call that deletes a log and leaves what the run made: after `delete_run` its partitions look missing,
# and schedules ask for them again. So rows are deleted here, from tables of the one schema this was written for.
SCHEMA: Final = "29b539ebc72a"
# A failure is looked into later than a success, and after an outage the sensor that mails it reads its steps.
FAILURES_LONGER: Final = 6
# Runs, or rows, of one transaction: some hundredths of a second in which no run can write its events.
AT_ONCE: Final = 200
# VACUUM copies the whole index, and meanwhile nobody else can write. It is worth that once, after the first pass over
# an instance that had grown; what later passes leave free is used again.
WORTH_VACUUM: Final = 64 * 2**20  # bytes

_MADE: Final = dg.DagsterEventType.ASSET_MATERIALIZATION.value
_PLANNED: Final = dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED.value
# What is told of an asset, or of its freshness, is no log. Results of checks are kept in a table of their own.
_LOG: Final = [
    each.value
    for each in dg.DagsterEventType
    if each.name.startswith("ASSET_CHECK_") or not each.name.startswith(("ASSET_", "FRESHNESS_"))
]
_FAILED_CHECK: Final = "FAILED"
_PLANNED_CHECK: Final = "PLANNED"
_SUCCESS, _FAILURE, _CANCELED = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED
_UNFINISHED: Final = [each for each in dg.DagsterRunStatus if each not in (_SUCCESS, _FAILURE, _CANCELED)]
_T = TypeVar("_T")


@dataclass(frozen=True)
class Freed:
    """What a pass has deleted.

    Attributes:
        runs: Runs that had a log.
        log_rows: Their events.
        superseded_rows: Materialisations and plans of partitions that were made again later.
        check_rows: Results of checks that are not the newest.
        file_bytes: Log files, where each run has one (SQLite).
    """

    runs: int = 0
    log_rows: int = 0
    superseded_rows: int = 0
    check_rows: int = 0
    file_bytes: int = 0


@dataclass(frozen=True)
class Ended:
    """Runs that ended long ago.

    Attributes:
        forgotten: Those whose log goes: longer ago than logs are kept or, if they failed, than failures are.
        ancient: Those that ended before failures are kept, however they ended.
    """

    forgotten: Set[str]
    ancient: Set[str]


def forget(instance: dg.DagsterInstance, days: int, now: datetime) -> Freed:
    """Delete the logs of runs that ended `days` before `now` (naive UTC), and what was superseded by then.

    Raises:
        DataError: the instance keeps its events elsewhere, or in another schema; nothing was deleted.
    """
    storage = _storage(instance)
    ended = _ended(instance, timedelta(days=days), now)
    runs = log_rows = file_bytes = 0
    for some in _batches(sorted(_with_log(storage) & ended.forgotten)):
        for run_id in some:
            instance.compute_log_manager.delete_logs(prefix=[run_id])
        log_rows += _delete_log(storage, some)
        # Last, since by its file a run is found that a pass stopped in the middle of.
        file_bytes += sum(_delete_file(storage, run_id) for run_id in some)
        runs += len(some)
    return Freed(
        runs=runs,
        log_rows=log_rows,
        superseded_rows=_delete_superseded(storage, ended),
        check_rows=_delete_old_checks(storage, ended),
        file_bytes=file_bytes,
    )


def _storage(instance: dg.DagsterInstance) -> SqlEventLogStorage:
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        raise DataError(f"Logs are kept in {type(storage).__name__}, which is not a database; nothing was deleted.")
    found = storage.alembic_version()
    if found is None or found[0] != SCHEMA:
        raise DataError(
            f"The event log has schema {found and found[0]}, and what may be deleted is known of {SCHEMA}. Nothing was "
            "deleted; after an upgrade of Dagster, run `dagster instance migrate` or bring breakout_assets up to date."
        )
    return storage


def _ended(instance: dg.DagsterInstance, age: timedelta, now: datetime) -> Ended:
    def before(moment: datetime, *statuses: dg.DagsterRunStatus) -> set[str]:
        found = dg.RunsFilter(statuses=list(statuses), updated_before=moment)
        return set(instance.get_run_ids(found))

    ancient = before(now - FAILURES_LONGER * age, _SUCCESS, _CANCELED, _FAILURE)
    return Ended(forgotten=before(now - age, _SUCCESS, _CANCELED) | ancient, ancient=ancient)


def _with_log(storage: SqlEventLogStorage) -> set[str]:
    """Runs of which there is a file or an event that may be deleted."""
    events = SqlEventLogStorageTable.c
    with storage.index_connection() as connection:
        found = connection.execute(sa.select(events.run_id).where(_is_log()).distinct()).scalars()
        runs = {run_id for run_id in found if run_id}
    return runs | set(storage.get_all_run_ids()) if isinstance(storage, SqliteEventLogStorage) else runs


def _is_log() -> sa.ColumnElement[bool]:
    events = SqlEventLogStorageTable.c
    # In SQLite the number of a deleted last row is given again, and sensors remember how far they have read by numbers.
    newest = sa.select(sa.func.max(events.id)).scalar_subquery()
    # Lines that a step logs have no type.
    return (events.dagster_event_type.in_(_LOG) | events.dagster_event_type.is_(None)) & (events.id < newest)


def _delete_log(storage: SqlEventLogStorage, runs: list[str]) -> int:
    rows = SqlEventLogStorageTable
    with storage.index_connection() as connection:
        return int(connection.execute(rows.delete().where(rows.c.run_id.in_(runs) & _is_log())).rowcount)


def _delete_file(storage: SqlEventLogStorage, run_id: str) -> int:
    """Delete the file of a run's own, if there is one; its bytes."""
    if not isinstance(storage, SqliteEventLogStorage):
        return 0
    path = Path(storage.path_for_shard(run_id))
    freed = 0
    # The database last: without it what lies beside it would never be found again.
    for file in (Path(f"{path}-shm"), Path(f"{path}-wal"), path):
        if file.exists():
            freed += file.stat().st_size
            file.unlink()
    return freed


def _delete_superseded(storage: SqlEventLogStorage, ended: Ended) -> int:
    """Materialisations and plans of ended runs for partitions that were made again since.

    An asset without partitions shows its history by them: it is left as long as failures are.
    """
    events = SqlEventLogStorageTable.c
    of_partition = (events.asset_key, events.partition)
    is_made = sa.case((events.dagster_event_type == _MADE, events.id))
    told = (
        sa.select(
            events.id,
            events.run_id,
            events.dagster_event_type.label("type"),
            events.partition,
            sa.func.max(events.id).over(partition_by=of_partition).label("newest"),
            sa.func.max(is_made).over(partition_by=of_partition).label("newest_made"),
        )
        .where(events.dagster_event_type.in_([_MADE, _PLANNED]) & events.asset_key.is_not(None))
        .subquery()
    )
    # A plan that nothing came of is how a partition shows as failed, until it is tried again.
    superseded_by = sa.case((told.c.type == _MADE, told.c.newest_made), else_=told.c.newest)
    query = sa.select(told.c.id, told.c.run_id, told.c.type, told.c.partition).where(told.c.id < superseded_by)
    rows, tags = SqlEventLogStorageTable, AssetEventTagsTable

    def may_go(row: sa.Row) -> bool:
        is_history = row.type == _MADE and row.partition is None
        return row.run_id in (ended.ancient if is_history else ended.forgotten)

    def delete(connection: sa.Connection, ids: list[int]) -> int:
        connection.execute(tags.delete().where(tags.c.event_id.in_(ids)))
        return int(connection.execute(rows.delete().where(rows.c.id.in_(ids))).rowcount)

    return _delete_rows(storage, query, may_go, delete)


def _delete_old_checks(storage: SqlEventLogStorage, ended: Ended) -> int:
    """Results of ended runs that are not a check's newest; a check that failed counts as a failure.

    Dagster plans a check for a partition and keeps its result without one, so the partition tells nothing.
    """
    checks = AssetCheckExecutionsTable.c
    is_result = sa.case((checks.execution_status != _PLANNED_CHECK, checks.id))
    newest = sa.func.max(is_result).over(partition_by=(checks.asset_key, checks.check_name)).label("newest")
    told = sa.select(checks.id, checks.run_id, checks.execution_status, newest).subquery()
    query = sa.select(told.c.id, told.c.run_id, told.c.execution_status).where(told.c.id < told.c.newest)
    rows = AssetCheckExecutionsTable

    def may_go(row: sa.Row) -> bool:
        return row.run_id in (ended.ancient if row.execution_status == _FAILED_CHECK else ended.forgotten)

    def delete(connection: sa.Connection, ids: list[int]) -> int:
        return int(connection.execute(rows.delete().where(rows.c.id.in_(ids))).rowcount)

    return _delete_rows(storage, query, may_go, delete)


def _delete_rows(
    storage: SqlEventLogStorage,
    query: sa.Select,
    may_go: Callable[[sa.Row], bool],
    delete: Callable[[sa.Connection, list[int]], int],
) -> int:
    with storage.index_connection() as connection:
        ids = [row.id for row in connection.execute(query) if may_go(row)]
    deleted = 0
    for some in _batches(ids):
        with storage.index_connection() as connection:
            deleted += delete(connection, some)
    return deleted


def _batches(items: list[_T]) -> Iterator[list[_T]]:
    return (items[n : n + AT_ONCE] for n in range(0, len(items), AT_ONCE))


def give_back(instance: dg.DagsterInstance) -> int:
    """Shrink the index of an SQLite instance if a quarter of it could be given back; the bytes that it shrank by."""
    storage = instance.event_log_storage
    if not isinstance(storage, SqliteEventLogStorage):
        return 0  # PostgreSQL looks after itself
    path = Path(storage.path_for_shard("index"))
    before = path.stat().st_size
    with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as connection:
        [pages], [free], [size] = (
            connection.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "freelist_count", "page_size")
        )
        if free * size < WORTH_VACUUM or free < pages / 4:
            return 0
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return before - path.stat().st_size


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


@dg.op
def delete_old_logs(context: dg.OpExecutionContext, settings: dg.ResourceParam[Settings]) -> None:
    """Delete what BREAKOUT_LOG_DAYS says, and tell what became free."""
    instance = context.instance
    with refusing():
        freed = forget(instance, settings.log_days, _now())
    busy = [run_id for run_id in instance.get_run_ids(dg.RunsFilter(statuses=_UNFINISHED)) if run_id != context.run_id]
    shrunk = 0 if busy else give_back(instance)
    context.log.info(
        "runs whose log was deleted: %d (%d events, %.1f MB of files); superseded events: %d; superseded results of "
        "checks: %d; the index shrank by %.1f MB",
        *(freed.runs, freed.log_rows, freed.file_bytes / 1e6, freed.superseded_rows, freed.check_rows, shrunk / 1e6),
    )
    context.add_output_metadata({**vars(freed), "index_shrank_by_bytes": shrunk})


@dg.job(
    description="Deletes the logs of runs that ended long ago (BREAKOUT_LOG_DAYS), and what was superseded since.",
    # It may wait behind a training, but must never keep an hour from being traded.
    tags={"breakout/loop": "learning"},
)
def retention_job() -> None:
    """Keep the instance small."""
    delete_old_logs()


# At a quiet hour of the night, and before the weekly training, behind which it would wait.
RETENTION_SCHEDULE: Final = dg.ScheduleDefinition(
    name="retention_schedule", job=retention_job, cron_schedule="10 2 * * *", execution_timezone="UTC"
)
JOBS: Final = [retention_job]
