"""Years of hourly operation in an instance, within seconds: what one real run left behind, again for other hours."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg
import sqlalchemy as sa
from dagster._core.storage.event_log import SqlEventLogStorageTable as Events
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable as Checks
from dagster._core.storage.event_log.schema import AssetEventTagsTable as Tags
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._core.storage.runs.schema import RunsTable, RunTagsTable
from dagster._core.storage.runs.sqlite.sqlite_run_storage import SqliteRunStorage
from dagster._serdes import deserialize_value

Row = dict[str, Any]
MADE = dg.DagsterEventType.ASSET_MATERIALIZATION.value
_RUN_TAKES = timedelta(seconds=10)


@dataclass(frozen=True)
class PastRun:
    """What one run left behind in an instance in SQLite, to be repeated for other partitions at other times."""

    instance: dg.DagsterInstance
    run_id: str
    partition: str
    run: Row
    run_tags: list[Row]
    events: list[Row]
    event_tags: list[Row]
    checks: list[Row]
    files: dict[str, bytes]

    @classmethod
    def of(cls, instance: dg.DagsterInstance, run_id: str) -> "PastRun":
        run = instance.get_run_by_id(run_id)
        assert run
        with _log(instance).index_connection() as connection:
            events = _rows(connection, sa.select(Events).where(Events.c.run_id == run_id).order_by(Events.c.id))
            ids = [event["id"] for event in events]
            tags = _rows(connection, sa.select(Tags).where(Tags.c.event_id.in_(ids)))
            checks = _rows(connection, sa.select(Checks).where(Checks.c.run_id == run_id).order_by(Checks.c.id))
        with _runs(instance).connect() as connection:
            [row] = _rows(connection, sa.select(RunsTable).where(RunsTable.c.run_id == run_id))
            run_tags = _rows(connection, sa.select(RunTagsTable).where(RunTagsTable.c.run_id == run_id))
        files = {str(file): file.read_bytes() for file in files_of(instance, run_id)}
        return cls(instance, run_id, run.tags["dagster/partition"], row, run_tags, events, tags, checks, files)

    def repeat(self, moments: Mapping[str, datetime], with_logs: bool = True) -> list[str]:
        """The run once more for each of these partitions, as if it had begun at that time (naive UTC); the run ids.

        Without logs only what the run made is there, as after a pass of retention.
        """
        ids = {key: str(uuid4()) for key in moments}
        with _runs(self.instance).connect() as connection:
            connection.execute(RunsTable.insert(), [self._run(key, ids[key], at) for key, at in moments.items()])
            tags = [self._renamed(tag, key, ids[key]) for key in moments for tag in self.run_tags]
            connection.execute(RunTagsTable.insert(), tags)
        if not with_logs:
            self._insert_events([each for each in self.events if each["dagster_event_type"] == MADE], moments, ids)
            return list(ids.values())
        self._insert_events(self.events, moments, ids)
        with _log(self.instance).index_connection() as connection:
            checks = [self._check(row, key, ids[key], at) for key, at in moments.items() for row in self.checks]
            connection.execute(Checks.insert(), checks)
        for run_id in ids.values():
            self._copy_files(run_id)
        return list(ids.values())

    def _insert_events(self, events: list[Row], moments: Mapping[str, datetime], ids: Mapping[str, str]) -> None:
        """Insert events and their tags, and note of each asset which materialisation is its newest."""
        tags_of: dict[int, list[Row]] = {}
        for tag in self.event_tags:
            tags_of.setdefault(tag["event_id"], []).append(tag)
        log = _log(self.instance)
        rows, tags, newest = [], [], {}
        with log.index_connection() as connection:
            number = connection.execute(sa.select(sa.func.max(Events.c.id))).scalar_one()
            for key, moment in moments.items():
                for event in events:
                    number += 1
                    rows.append({**self._event(event, key, ids[key], moment), "id": number})
                    tags += [
                        {**_without_id(tag), "event_id": number, "event_timestamp": moment}
                        for tag in tags_of.get(event["id"], [])
                    ]
                    if event["dagster_event_type"] == MADE:
                        newest[event["asset_key"]] = number, rows[-1]["event"]
            connection.execute(Events.insert(), rows)
            if tags:
                connection.execute(Tags.insert(), tags)
            for last, text in newest.values():
                log._store_asset_event(connection, deserialize_value(text, dg.EventLogEntry), last)

    def _run(self, key: str, run_id: str, moment: datetime) -> Row:
        began, ended = _seconds(moment), _seconds(moment + _RUN_TAKES)
        times = {"create_timestamp": moment, "update_timestamp": moment + _RUN_TAKES}
        return {**self._renamed(self.run, key, run_id), **times, "start_time": began, "end_time": ended}

    def _event(self, row: Row, key: str, run_id: str, moment: datetime) -> Row:
        found = self._renamed(row, key, run_id)
        return {**found, "event": _dated(found["event"], moment), "timestamp": moment}

    def _check(self, row: Row, key: str, run_id: str, moment: datetime) -> Row:
        found = self._renamed(row, key, run_id)
        return {**found, "evaluation_event_timestamp": moment, "create_timestamp": moment}

    def _renamed(self, row: Row, key: str, run_id: str) -> Row:
        """A row without its number, for another partition and run."""
        return {
            name: value.replace(self.run_id, run_id).replace(self.partition, key) if isinstance(value, str) else value
            for name, value in _without_id(row).items()
        }

    def _copy_files(self, run_id: str) -> None:
        for name, content in self.files.items():
            path = Path(name.replace(self.run_id, run_id))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def make_again(instance: dg.DagsterInstance, asset: str, like: str, moments: Mapping[str, datetime]) -> None:
    """The materialisation of the partition `like` once more for each of these partitions."""
    found = dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=[like])
    [record] = instance.fetch_materializations(found, limit=1).records
    with _log(instance).index_connection() as connection:
        events = _rows(connection, sa.select(Events).where(Events.c.id == record.storage_id))
        tags = _rows(connection, sa.select(Tags).where(Tags.c.event_id == record.storage_id))
    past = PastRun(instance, record.run_id, like, {}, [], events, tags, [], {})
    past._insert_events(events, moments, dict.fromkeys(moments, record.run_id))


def files_of(instance: dg.DagsterInstance, run_id: str) -> list[Path]:
    """The files of a run: its events, and the output of its steps."""
    events = Path(_log(instance).path_for_shard(run_id))
    beside = (Path(f"{events}-wal"), Path(f"{events}-shm"))
    output = Path(instance.compute_log_manager.get_captured_local_path([run_id, "x"], "out")).parent  # type: ignore[attr-defined]
    return [file for file in (events, *beside, *output.rglob("*")) if file.is_file()]


def hours_of(first: datetime, count: int) -> dict[str, datetime]:
    """Partition key -> when its run begins, five past."""
    hours = [first + timedelta(hours=n) for n in range(count)]
    return {f"{hour:%Y-%m-%d-%H:%M}": hour + timedelta(minutes=5) for hour in hours}


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder; of databases those in use, since free pages are filled again."""
    return sum(_used(file) for file in folder.rglob("*") if file.is_file())


def _used(file: Path) -> int:
    if file.suffix != ".db":
        return file.stat().st_size
    engine = sa.create_engine(f"sqlite:///{file}")
    with engine.connect() as connection:
        pages, free, size = (
            int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())
            for name in ("page_count", "freelist_count", "page_size")
        )
    engine.dispose()
    return (pages - free) * size


def _dated(event: str, moment: datetime) -> str:
    found = json.loads(event)
    found["timestamp"] = _seconds(moment)
    return json.dumps(found)


def _seconds(moment: datetime) -> float:
    return moment.replace(tzinfo=UTC).timestamp()


def _without_id(row: Row) -> Row:
    return {name: value for name, value in row.items() if name != "id"}


def _rows(connection: sa.Connection, query: sa.Select[Any]) -> list[Row]:
    return [dict(row) for row in connection.execute(query).mappings()]


def _log(instance: dg.DagsterInstance) -> SqliteEventLogStorage:
    assert isinstance(instance.event_log_storage, SqliteEventLogStorage)
    return instance.event_log_storage


def _runs(instance: dg.DagsterInstance) -> SqliteRunStorage:
    assert isinstance(instance.run_storage, SqliteRunStorage)
    return instance.run_storage
