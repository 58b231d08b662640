"""Old logs go, and nobody notices: not the partitions, not the schedules and sensors, not a run that is under way."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.storage.event_log import SqlEventLogStorage, SqlEventLogStorageMetadata
from dagster._core.storage.event_log import SqlEventLogStorageTable as Events
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value

from breakout_assets.defs import automation, retention
from breakout_assets.defs.partitions import HOURS, hour_key
from breakout_assets.defs.retention import FAILURES_LONGER, Freed, forget
from breakout_assets.errors import DataError
from breakout_assets_tests.defs.support import HOURLY, World
from breakout_assets_tests.defs.test_automation import HOUR, NOW, TICK, keys, run_hour, sense, tick
from breakout_assets_tests.defs.years import PastRun, files_of, hours_of, size_of
from breakout_assets_tests.samples import at, coin, put

DAYS = 30
LATER = NOW + timedelta(days=DAYS + 1)
MUCH_LATER = NOW + timedelta(days=FAILURES_LONGER * DAYS + 1)
DAY = timedelta(days=1)
MIDNIGHT = NOW.replace(hour=0)
RUN_KEY = {"dagster/run_key": "asked for once"}
NOTHING = Freed()
ENDED = 6  # of the runs below


@contextmanager
def instance_in(folder: Path) -> Iterator[dg.DagsterInstance]:
    folder.mkdir(parents=True, exist_ok=True)
    with dg.DagsterInstance.local_temp(str(folder)) as instance:
        yield instance


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Runs of every fate: hours traded once and twice, one that failed, one under way, and a day that was compacted."""
    folder = tmp_path_factory.mktemp("lived")
    with instance_in(folder / "instance") as instance:
        world = World.at(folder, instance, SIM_TOKENS="2", REPLAY="false")
        run_hour(world, dg.RunRequest(partition_key=hour_key(NOW), tags=RUN_KEY))
        [traded] = instance.get_run_ids()
        for hours_ago in (2, 0):
            PastRun.of(instance, traded).repeat(hours_of(NOW - hours_ago * HOUR, 1))
        for ending in ("wal", "shm"):  # left there by a process that was killed
            files_of(instance, traded)[0].with_suffix(f".db-{ending}").touch()
        put(world.store, NOW - HOUR, [coin(1)]).write_bytes(b"")
        run_hour(world, dg.RunRequest(partition_key=hour_key(NOW - HOUR)), must_succeed=False)
        put(world.store, MIDNIGHT - DAY, [coin(1)])
        world.days("daily_snapshots", (MIDNIGHT - DAY).date(), (MIDNIGHT - DAY).date())
        for sound in (False, True):
            dg.materialize([page], instance=instance, resources={"sound": sound})
        job = world.definitions.resolve_job_def("hourly_job")
        under_way = instance.create_run_for_job(job, tags={"dagster/partition": hour_key(NOW - 3 * HOUR)})
        instance.report_engine_event("it is under way", under_way)
    return world


@dg.asset(check_specs=[dg.AssetCheckSpec("sound", asset="page")])
def page(sound: dg.ResourceParam[bool]) -> dg.MaterializeResult:  # type: ignore[type-arg]  # as Dagster reads it
    """An asset without partitions."""
    return dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=sound)])


def folder_of(world: World) -> Path:
    return Path(world.settings.store).parent / "instance"


@pytest.fixture
def lived(original: World, tmp_path: Path) -> Iterator[World]:
    """The same store and definitions, and a copy of the instance."""
    shutil.copytree(folder_of(original), tmp_path / "instance")
    with instance_in(tmp_path / "instance") as instance:
        yield World(original.settings, instance, original.definitions)


def run_of(world: World, status: str, hours_ago: int | None = None) -> list[str]:
    tags = {} if hours_ago is None else {"dagster/partition": hour_key(NOW - hours_ago * HOUR)}
    return list(world.instance.get_run_ids(dg.RunsFilter(statuses=[dg.DagsterRunStatus[status]], tags=tags)))


def known(world: World) -> dict[str, Any]:
    """All that partition status, schedules, sensors and the checks' pages ask the instance for."""
    instance = world.instance
    assets = sorted(instance.all_asset_keys())
    newest = {
        (asset.to_user_string(), key): record.storage_id
        for asset in assets
        for key in instance.get_materialized_partitions(asset)
        for record in instance.fetch_materializations(dg.AssetRecordsFilter(asset, asset_partitions=[key]), 1).records
    }
    checks = sorted(world.definitions.resolve_asset_graph().asset_check_keys, key=str)
    results = instance.event_log_storage.get_latest_asset_check_execution_by_key(checks)
    return {
        "newest": newest,
        "last": {asset.to_user_string(): instance.get_latest_materialization_event(asset) for asset in assets},
        "failed": failed_hours(instance),
        "checks": {str(key): (result.id, result.status) for key, result in results.items()},
        "hours": keys(tick(world, automation.hourly_schedule)),
        "days": keys(tick(world, automation.daily_snapshots_schedule)),
        "labels": keys(tick(world, automation.dataset_schedule)),
        "exits": keys(tick(world, automation.exits_schedule, TICK.replace(minute=57))),
        "arrivals": keys(sense(world, None)[0]),
        "run keys": [run.run_id for run in instance.get_runs(dg.RunsFilter(tags=RUN_KEY))],
    }


def failed_hours(instance: dg.DagsterInstance) -> list[str]:
    """What shows red, made from events and not from what was noted earlier."""
    asset = dg.AssetKey("market_health")
    instance.event_log_storage.wipe_asset_cached_status(asset)
    status = get_and_update_asset_status_cache_value(instance, asset, HOURS)
    assert status
    return sorted(status.deserialize_failed_partition_subsets(HOURS).get_partition_keys())


def test_what_was_made_stays_made_and_nothing_is_asked_for_again(lived: World) -> None:
    before = known(lived)
    assert hour_key(NOW) not in before["hours"]
    assert hour_key(NOW - 5 * HOUR) in before["hours"]
    assert hour_key(NOW) not in before["arrivals"]
    assert before["days"] == []
    assert before["run keys"]
    for moment in (LATER, MUCH_LATER):
        assert forget(lived.instance, DAYS, moment) != NOTHING
    assert known(lived) == before


def test_the_log_of_a_run_goes_with_its_files_and_those_of_failed_and_unfinished_runs_stay(lived: World) -> None:
    instance = lived.instance
    gone, failed, under_way = (run_of(lived, status) for status in ("SUCCESS", "FAILURE", "NOT_STARTED"))
    assert len(gone) == ENDED
    left = {run_id: (files_of(instance, run_id), instance.all_logs(run_id)) for run_id in (*failed, *under_way)}
    freed = forget(instance, DAYS, LATER)
    assert freed.runs == ENDED
    assert freed.file_bytes > ENDED * 100_000
    assert [file for run_id in gone for file in files_of(instance, run_id)] == []
    assert {run_id: (files_of(instance, run_id), instance.all_logs(run_id)) for run_id in left} == left
    assert all(len(instance.all_logs(run_id)) for run_id in left)
    assert {run.run_id for run in instance.get_runs()} == {*gone, *left}


def test_a_second_pass_finds_nothing_to_delete(lived: World) -> None:
    forget(lived.instance, DAYS, LATER)
    assert forget(lived.instance, DAYS, LATER) == NOTHING


def test_before_its_time_nothing_is_deleted(lived: World) -> None:
    assert forget(lived.instance, DAYS, NOW + timedelta(days=DAYS - 1)) == NOTHING


def test_a_failure_is_forgotten_later_and_its_partition_shows_it_still(lived: World) -> None:
    instance = lived.instance
    forget(instance, DAYS, LATER)
    [failed] = run_of(lived, "FAILURE")
    assert files_of(instance, failed)
    assert forget(instance, DAYS, MUCH_LATER).runs == 1
    assert files_of(instance, failed) == []
    assert instance.get_run_by_id(failed)
    assert failed_hours(instance) == [hour_key(NOW - HOUR)]


def test_an_earlier_materialisation_of_a_partition_goes_and_its_newest_stays(lived: World) -> None:
    twice = dg.AssetRecordsFilter(dg.AssetKey("predictions"), asset_partitions=[hour_key(NOW)])
    newest, _ = lived.instance.fetch_materializations(twice, limit=9).records
    forget(lived.instance, DAYS, LATER)
    assert lived.instance.fetch_materializations(twice, limit=9).records == [newest]


def test_an_asset_without_partitions_keeps_its_history_and_a_failed_check_as_long_as_failures(lived: World) -> None:
    instance, asset = lived.instance, dg.AssetKey("page")

    def told() -> tuple[int, list[bool]]:
        check = dg.AssetCheckKey(asset, "sound")
        results = instance.event_log_storage.get_asset_check_execution_history(check, limit=9)
        made = instance.fetch_materializations(asset, limit=9).records
        return len(made), [result.status.value == "SUCCEEDED" for result in results]

    forget(instance, DAYS, LATER)
    assert told() == (2, [True, False])
    forget(instance, DAYS, MUCH_LATER)
    assert told() == (1, [True])


def test_numbers_of_events_are_not_given_again(lived: World) -> None:
    [traded, *_] = run_of(lived, "SUCCESS", hours_ago=2)
    # The end of this one is the newest event that there is.
    last = PastRun.of(lived.instance, traded).repeat(hours_of(NOW - 9 * HOUR, 1))
    before = newest_number(lived)
    forget(lived.instance, DAYS, LATER)
    assert [each.run_id for each in lived.instance.get_runs()][:1] == last
    assert newest_number(lived) == before


def newest_number(world: World) -> int:
    with world.instance.event_log_storage.index_connection() as connection:  # type: ignore[attr-defined]
        return int(connection.execute(sa.select(sa.func.max(Events.c.id))).scalar_one())


def known_schema() -> tuple[str, str]:
    """What asking for takes longer than a pass, and is the same all the time."""
    return retention.SCHEMA, retention.SCHEMA


class Stopped(BaseException):
    """Killed."""


def stop_before(deletion: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Stop a pass before the n-th thing that it deletes; gives how many it came to."""
    count = 0

    def count_one(*_: object) -> None:
        nonlocal count
        count += 1
        if count == deletion:
            raise Stopped

    def on_statement(connection: object, cursor: object, statement: str, *_: object) -> None:
        if statement.lstrip().upper().startswith("DELETE"):
            count_one()

    def before(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            count_one()
            return call(*args, **kwargs)

        return counted

    sa.event.listen(sa.Engine, "before_cursor_execute", on_statement)
    monkeypatch.setattr(Path, "unlink", before(Path.unlink))
    monkeypatch.setattr(shutil, "rmtree", before(shutil.rmtree))

    def done() -> int:
        sa.event.remove(sa.Engine, "before_cursor_execute", on_statement)
        monkeypatch.undo()
        return count

    return done


def test_a_pass_that_is_stopped_anywhere_is_finished_by_the_next(
    original: World, lived: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = lived.instance
    storage = instance.event_log_storage
    monkeypatch.setattr(storage, "alembic_version", known_schema)

    def stopped_and_finished(deletion: int) -> tuple[int, set[int], set[str]]:
        shutil.rmtree(tmp_path / "instance")
        shutil.copytree(folder_of(original), tmp_path / "instance")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(retention, "AT_ONCE", 20)
            done = stop_before(deletion, patch)
            with suppress(Stopped):
                forget(instance, DAYS, LATER)
            count = done()
        forget(instance, DAYS, LATER)
        with storage.index_connection() as connection:  # type: ignore[attr-defined]
            rows = set(connection.execute(sa.select(Events.c.id)).scalars())
        return count, rows, {file.name for run_id in instance.get_run_ids() for file in files_of(instance, run_id)}

    deletions, *expected = stopped_and_finished(0)
    assert deletions > 20
    for deletion in range(1, deletions + 1):
        count, *found = stopped_and_finished(deletion)
        assert count == deletion
        assert found == expected, f"stopped before deletion {deletion}"


def test_another_schema_is_refused_and_nothing_is_deleted(lived: World, monkeypatch: pytest.MonkeyPatch) -> None:
    before = newest_number(lived)
    monkeypatch.setattr(lived.instance.event_log_storage, "alembic_version", lambda: ("0123456789ab", None))
    with pytest.raises(DataError, match=r"schema 0123456789ab, .* Nothing was deleted"):
        forget(lived.instance, DAYS, LATER)
    assert all(files_of(lived.instance, run_id) for run_id in lived.instance.get_run_ids())
    assert newest_number(lived) == before


def test_another_kind_of_storage_is_refused() -> None:
    with dg.DagsterInstance.ephemeral() as instance, pytest.raises(DataError, match="Nothing was deleted"):
        forget(instance, DAYS, LATER)


def test_the_job_tells_what_it_freed_and_an_instance_that_had_grown_shrinks(
    lived: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_now", lambda: LATER)
    monkeypatch.setattr(retention, "WORTH_VACUUM", 0)
    job = lived.definitions.resolve_job_def("retention_job")

    def told() -> dict[str, Any]:
        result = job.execute_in_process(instance=lived.instance)
        [output] = [event for event in result.all_events if event.is_successful_output]
        return {name: value.value for name, value in output.step_output_data.metadata.items()}

    before = told()
    assert before["runs"] == ENDED
    assert before["index_shrank_by_bytes"] == 0  # one of the runs is under way, and would have to wait
    [under_way] = lived.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.NOT_STARTED]))
    lived.instance.report_run_canceled(under_way)
    assert told()["index_shrank_by_bytes"] > 100_000
    assert known(lived)["newest"]


def test_weeks_of_hours_grow_by_what_was_made_and_not_by_logs(
    lived: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hours stand for each day; logs are kept for a week."""
    monkeypatch.setattr(lived.instance.event_log_storage, "alembic_version", known_schema)
    [run_id, *_] = run_of(lived, "SUCCESS", hours_ago=2)
    traded = PastRun.of(lived.instance, run_id)
    first = NOW - timedelta(weeks=7)
    sizes, files = [], []
    for day in range(0, 42, 7):
        traded.repeat({k: at for n in range(7) for k, at in hours_of(first + timedelta(days=day + n), 2).items()})
        forget(lived.instance, 7, first + timedelta(days=day + 7))
        sizes.append(size_of(tmp_path / "instance"))
        files.append(sum(len(files_of(lived.instance, run_id)) > 0 for run_id in lived.instance.get_run_ids()))
    grown = [after - before for before, after in pairwise(sizes)]
    logs = sizes[0]  # of one week
    assert files[2:] == [files[1]] * 4
    assert max(grown[2:]) < logs / 6, (sizes, grown)
    assert len(lived.instance.get_materialized_partitions(dg.AssetKey("trade_orders"))) == 6 * 14 + 2


class OnPostgres(SqlEventLogStorage):
    """What `dagster-postgres` keeps events in, as far as it is asked here: one table of all, and none a run."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    def index_connection(self) -> Any:
        return self.engine.connect()

    def alembic_version(self) -> tuple[str, str]:
        return retention.SCHEMA, retention.SCHEMA

    run_connection = upgrade = has_table = watch = end_watch = None  # type: ignore[assignment]


def test_an_instance_in_postgresql_forgets_the_same(lived: World, postgres_url: str) -> None:
    instance = lived.instance
    address = sa.make_url(postgres_url).set(drivername="postgresql+psycopg")
    engine = sa.create_engine(address, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    SqlEventLogStorageMetadata.create_all(engine)
    storage = instance.event_log_storage
    with storage.index_connection() as source, engine.connect() as target:  # type: ignore[attr-defined]
        for table in SqlEventLogStorageMetadata.sorted_tables:
            if rows := [dict(row) for row in source.execute(sa.select(table)).mappings()]:
                target.execute(table.insert(), rows)
        # Of PostgreSQL it is one table that has the lines that a run logs, which SQLite keeps with the run.
        lines = {"event": "{}", "dagster_event_type": None}
        numbers = {run_id: 100_000 + n for n, run_id in enumerate(instance.get_run_ids())}
        target.execute(Events.insert(), [{"id": n, "run_id": run_id, **lines} for run_id, n in numbers.items()])
        target.execute(Events.insert(), [{"id": 200_000, "run_id": "", **lines}])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(instance, "_event_storage", OnPostgres(engine))
        freed = forget(instance, DAYS, LATER)
        assert forget(instance, DAYS, LATER) == NOTHING
    in_sqlite = forget(instance, DAYS, LATER)
    assert replace(freed, log_rows=freed.log_rows - ENDED) == replace(in_sqlite, file_bytes=0)
    with storage.index_connection() as source, engine.connect() as target:  # type: ignore[attr-defined]
        left = set(target.execute(sa.select(Events.c.id)).scalars())
        assert {n for n in left if n < 100_000} == set(source.execute(sa.select(Events.c.id)).scalars())
    kept = {*run_of(lived, "FAILURE"), *run_of(lived, "NOT_STARTED")}
    assert {run_id for run_id, n in numbers.items() if n in left} == kept
    engine.dispose()


def test_an_hour_has_as_many_events_of_each_type_with_sixty_tokens_as_with_three(tmp_path: Path) -> None:
    hour = at("2024-04-16 05:00")
    counted = []
    for tokens in (3, 60):
        world = World.at(tmp_path / str(tokens), SIM_TOKENS=str(tokens))
        run_hour(world, dg.RunRequest(partition_key=hour_key(hour)))
        [run_id] = world.instance.get_run_ids()
        counted.append(Counter(str(entry.dagster_event_type) for entry in world.instance.all_logs(run_id)))
        assert len(world.store.read_table("predictions", [hour])) == tokens
    assert counted[0] == counted[1]
    assert counted[0][str(dg.DagsterEventType.ASSET_MATERIALIZATION)] == len(HOURLY)
