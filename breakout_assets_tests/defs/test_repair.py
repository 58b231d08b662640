"""The repair command: what was lost comes back as if it had never been, and what cannot come back is told."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from io import StringIO
from pathlib import Path

import dagster as dg
import pytest
from rich.console import Console

from breakout_assets import objects
from breakout_assets.__main__ import main
from breakout_assets.defs.repair import repair
from breakout_assets.defs.resources import simulated_market
from breakout_assets.market.collect import claim
from breakout_assets.market.schema import HOUR, hours_between
from breakout_assets_tests.defs.processes import environment, home, started, wait_until
from breakout_assets_tests.defs.support import DATASET, World, day_keys
from breakout_assets_tests.samples import at, coin, put

NOW = at("2024-03-12 05:05")
FIRST, LAST = at("2024-03-02 00:00"), at("2024-03-12 05:00")
LOST = [at("2024-03-04 03:00"), at("2024-03-04 04:00"), at("2024-03-04 09:00")]
EVERYTHING = ("cmc", "tokens", "daily_snapshots", *DATASET, "coverage")


def set_time(patch: pytest.MonkeyPatch) -> None:
    """Partition sets look at Dagster's clock; it stands still, so that no hour begins in the middle of a test."""
    patch.setattr("dagster._time._mockable_get_current_datetime", lambda: NOW.replace(tzinfo=UTC))


@pytest.fixture
def at_that_time(monkeypatch: pytest.MonkeyPatch) -> None:
    set_time(monkeypatch)


def world_in(folder: Path, instance: dg.DagsterInstance, **variables: str) -> World:
    return World.at(folder, instance, **({"SIM_TOKENS": "3"} | variables))


@pytest.fixture(scope="module")
def whole_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store and an instance in which nothing is missing."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "instance").mkdir()
    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.local_temp(str(folder / "instance")) as instance:
        set_time(patch)
        world = world_in(folder, instance)
        world.collect(FIRST, LAST)
        world.days("daily_snapshots", FIRST.date(), date(2024, 3, 11))
        world.run(DATASET, day_keys(FIRST.date(), date(2024, 3, 6)))
        code, _ = repaired(world)
        assert code == 0
    return folder


@pytest.fixture
def whole(whole_folder: Path, tmp_path: Path, at_that_time: None) -> Iterator[World]:
    """A copy of it, with its events."""
    shutil.copytree(whole_folder, tmp_path / "whole")
    with dg.DagsterInstance.local_temp(str(tmp_path / "whole" / "instance")) as instance:
        yield world_in(tmp_path / "whole", instance)


def repaired(world: World, plan_only: bool = False) -> tuple[int, str]:
    """The exit code of a repair and what it printed."""
    console = Console(file=StringIO(), width=160)
    code = repair(console, world.settings, world.instance, plan_only)
    assert isinstance(console.file, StringIO)
    return code, console.file.getvalue()


def planned(text: str) -> list[list[str]]:
    """The rows of the printed plan."""
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]


def lose(world: World, *hours: datetime) -> None:
    for hour in hours:
        objects.delete(world.store.raw_path(hour, "csv"))


def runs(world: World) -> int:
    return world.instance.get_runs_count()


def made(world: World, asset: str) -> int:
    return len(world.instance.get_materialized_partitions(dg.AssetKey(asset)))


PLAN = [
    ["hours", "3", "2024-03-04 03:00", "2024-03-04 09:00", ""],
    ["days to compact", "3", "2024-03-04", "2024-03-11", ""],  # the day, the next one, and those a week later
    ["days to label", "5", "2024-03-02", "2024-03-06", ""],
    ["coverage table", "1", "", "", ""],
]


@pytest.mark.parametrize(
    "lost", ["before anything was made of them", pytest.param("afterwards", marks=pytest.mark.slow)]
)
def test_lost_hours_come_back_and_all_that_hangs_on_them_byte_for_byte(whole: World, lost: str) -> None:
    expected = whole.bytes_of(*EVERYTHING)
    lose(whole, *LOST)
    if lost.startswith("before"):
        whole.days("daily_snapshots", FIRST.date(), date(2024, 3, 11))
        whole.run(DATASET, day_keys(FIRST.date(), date(2024, 3, 6)))
        assert whole.bytes_of(*EVERYTHING) != expected
    before = runs(whole)
    code, text = repaired(whole)
    assert code == 0
    assert planned(text) == PLAN
    assert "hours: 3 of 3 repaired" in text
    assert "days to compact: 3 of 3 repaired" in text
    assert "days to label: 5 of 5 repaired" in text
    assert whole.bytes_of(*EVERYTHING) == expected
    # Two ranges of hours, two of days, one of labels, and the table.
    assert runs(whole) - before == 2 + 2 + 1 + 1
    assert repaired(whole) == (0, "Nothing to repair.\n")
    assert runs(whole) - before == 6
    for asset in ("market_health", "live_indicators", "predictions", "trade_orders", "token_model"):
        assert made(whole, asset) == 0, "nothing is traded, nor prepared for it"
    assert not whole.ledger_file.exists()


def test_a_store_in_a_bucket_is_repaired_alike(
    tmp_path: Path, s3_url: str, s3_location: str, at_that_time: None
) -> None:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        variables = {"STORE": s3_location, "S3_ENDPOINT": s3_url, "LEDGER": str(tmp_path / "ledger.sqlite")}
        bucket = world_in(tmp_path, instance, **variables)
        bucket.collect(at("2024-03-11 00:00"), LAST)
        lose(bucket, at("2024-03-11 07:00"), at("2024-03-12 02:00"))
        code, text = repaired(bucket)
        assert code == 0
        assert [row[:2] for row in planned(text)] == [["hours", "2"], ["days to compact", "1"], ["coverage table", "1"]]
        folder = world_in(tmp_path / "twin", dg.DagsterInstance.ephemeral())
        folder.collect(at("2024-03-11 00:00"), LAST)
        repaired(folder)
        assert bucket.bytes_of(*EVERYTHING) == folder.bytes_of(*EVERYTHING)
        assert repaired(bucket) == (0, "Nothing to repair.\n")


def test_days_that_were_never_compacted_and_labels_that_were_never_made_are_made(
    whole: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = whole.bytes_of(*EVERYTHING)
    objects.delete(whole.store.table_path("daily_snapshots", date(2024, 3, 9)))
    objects.delete(whole.store.table_path("indicator_features", date(2024, 3, 3)))
    path = Path(str(whole.store.table_path("daily_snapshots", date(2024, 3, 10))))
    path.write_bytes(path.read_bytes()[:-100])  # torn
    objects.delete(whole.store.root / "coverage" / "coverage.parquet")
    code, text = repaired(whole)
    assert code == 0
    assert [row[:4] for row in planned(text)] == [
        ["days to compact", "2", "2024-03-09", "2024-03-10"],
        ["days to label", "4", "2024-03-03", "2024-03-06"],  # the 2nd ends with the 7th
        ["coverage table", "1", "", ""],
    ]
    assert whole.bytes_of(*EVERYTHING) == expected
    objects.delete(whole.store.root / "coverage" / "coverage.parquet")
    _, text = repaired(whole, plan_only=True)
    assert [row[0] for row in planned(text)] == ["coverage table"]
    # The same store with the events of nobody: all is made again, and is the same.
    other = world_in(tmp_path / "whole", dg.DagsterInstance.ephemeral())
    monkeypatch.setattr("breakout_assets.defs.repair.MOST_DAYS", 4)
    code, text = repaired(other)
    assert (code, [row[1] for row in planned(text)]) == (0, ["10", "5", "1"])
    assert runs(other) == 3 + 2 + 1, "no run is given more than it may lose"
    assert whole.bytes_of(*EVERYTHING) == expected


def test_a_plan_changes_nothing(whole: World) -> None:
    lose(whole, *LOST)
    before, count = whole.bytes_of(""), runs(whole)
    code, text = repaired(whole, plan_only=True)
    assert code == 0
    assert planned(text) == PLAN
    assert "repaired" not in text.replace("What can be repaired", "")
    assert whole.bytes_of("") == before
    assert runs(whole) == count


def test_hours_that_cannot_be_had_are_told_with_what_else_can_be_done(whole: World, tmp_path: Path) -> None:
    lose(whole, *LOST)
    whole.days("daily_snapshots", LOST[0].date(), LOST[0].date())  # without the lost hours
    repaired(whole_with(whole, tmp_path, SOURCE="files"))
    before = whole.bytes_of(*EVERYTHING)
    code, text = repaired(whole_with(whole, tmp_path, SOURCE="files"))
    assert code == 0
    assert planned(text) == [
        ["2024-03-04 09:00", "2024-03-04 09:00", "1"],
        ["2024-03-04 03:00", "2024-03-04 04:00", "2"],
    ]
    assert "3 hours" in text
    assert "import a file or candles" in text
    assert text.endswith("Nothing to repair.\n")
    assert whole.bytes_of(*EVERYTHING) == before


def whole_with(world: World, folder: Path, **variables: str) -> World:
    return world_in(folder / "whole", world.instance, **variables)


def test_a_day_is_not_compacted_again_without_hours_that_only_its_file_still_has(whole: World, tmp_path: Path) -> None:
    before = whole.bytes_of("daily_snapshots", *DATASET)
    lose(whole, *LOST)
    put(whole.store, at("2024-03-04 05:00"), [coin(1)])  # another reason to compact the day
    code, text = repaired(whole_with(whole, tmp_path, SOURCE="files"))
    assert code == 0
    assert "1 days keep their file (2024-03-04 to 2024-03-04)" in text
    # The days that are judged by it are made again, from the same daily file.
    assert planned(text)[0] == ["days to compact", "2", "2024-03-05", "2024-03-11", ""]
    assert whole.bytes_of("daily_snapshots", *DATASET) == before
    code, text = repaired(whole_with(whole, tmp_path, SOURCE="files"))
    assert (code, planned(text)) == (0, [])
    assert text.endswith("Nothing to repair.\n")


def test_a_fetch_that_fails_costs_no_hour_of_a_day_and_the_rest_is_repaired(whole: World, tmp_path: Path) -> None:
    span = hours_between(FIRST + 24 * HOUR, at("2024-03-09 23:00"))
    faulty, gone = next(
        (world, refused[0])
        for seed in range(100)
        for world in [whole_with(whole, tmp_path, SIM_FAULTS="missing_hours", SIM_SEED=str(seed))]
        if (refused := refused_hours(world, span))
    )
    other = at("2024-03-11 12:00")
    lose(whole, gone, other)
    before = whole.store.read_table("daily_snapshots", [gone.date()])
    code, text = repaired(faulty)
    assert code == 1
    assert "hours: 1 of 2 repaired" in text
    assert "1 days were left as they are" in text
    assert f"{gone:%Y-%m-%d-%H:00}" in text
    assert whole.store.raw_file(other)
    assert not whole.store.raw_file(gone)
    after = whole.store.read_table("daily_snapshots", [gone.date()])
    assert after.equals(before)
    assert (after["timestamp"] == gone).any()


def refused_hours(world: World, span: list[datetime]) -> list[datetime]:
    there = {hour for hour, _ in simulated_market(world.settings).snapshots(span[0], span[-1])}
    return [hour for hour in span if hour not in there]


def test_what_fails_keeps_nothing_else_from_being_made(whole: World) -> None:
    expected = whole.bytes_of("daily_snapshots", *DATASET)
    torn = whole.store.raw_path(at("2024-03-10 05:00"), "csv")
    sound = objects.read(torn)
    whole.store.write(torn, b"name,symbol\r\n")
    for day in (3, 10, 11):
        objects.delete(whole.store.table_path("daily_snapshots", date(2024, 3, day)))
    for asset in DATASET:
        for day in range(2, 7):
            objects.delete(whole.store.table_path(asset, date(2024, 3, day)))
    code, text = repaired(whole)
    assert code == 1
    # The 11th is judged by the torn day before; the labels of the 5th and 6th look at these two days.
    assert "days to compact: 1 of 3 repaired" in text
    assert "2 of 2 partitions could not be made. 2024-03-10: " in text
    assert "days to label: 3 of 5 repaired" in text
    assert "not repaired: labelled_dataset: 2 of 5 partitions could not be made. 2024-03-05: " in text
    assert "coverage table: 1 of 1 repaired" in text
    made = {date(2024, 3, day) for day in (2, 3, 4)}
    assert {*whole.store.days_of("labelled_dataset")} == {*whole.store.days_of("indicator_features")} == made
    whole.store.write(torn, sound)
    code, text = repaired(whole)
    assert code == 0
    assert whole.bytes_of("daily_snapshots", *DATASET) == expected
    assert repaired(whole) == (0, "Nothing to repair.\n")


@pytest.mark.parametrize(
    ("variables", "hours", "price", "lost"),
    [
        # 250 coins of the newest hour are 3 credits an hour; the current hour is a listing that is fetched anyway.
        ({"CMC_HISTORY": "true"}, "4", "9 for 3 hours", []),
        ({}, "1", "", [["2024-03-10 07:00", "2024-03-10 09:00", "3"]]),
    ],
)
def test_what_bought_hours_would_cost_is_in_the_plan(
    tmp_path: Path, at_that_time: None, variables: dict[str, str], hours: str, price: str, lost: list[list[str]]
) -> None:
    world = World.at(tmp_path, None, SOURCE="coinmarketcap", REPLAY="false", **variables)
    claim(world.store, "real")
    for n, hour in enumerate(hours_between(at("2024-03-10 00:00"), LAST - HOUR)):
        coins = range(1, 251) if hour == LAST - HOUR else (1, 2)
        put(world.store, hour, [coin(number, price=number + n / 50) for number in coins])
    world.days("daily_snapshots", date(2024, 3, 11), date(2024, 3, 11))
    lose(world, at("2024-03-11 20:00"))  # only its day's file has it: it is not bought a second time
    lose(world, *hours_between(at("2024-03-10 07:00"), at("2024-03-10 09:00")))
    code, text = repaired(world, plan_only=True)
    rows = planned(text)
    assert code == 0
    assert [rows[0][0], rows[0][1], rows[0][4]] == ["hours", hours, price]
    assert [row for row in rows if len(row) == 3] == lost
    assert ("With BREAKOUT_CMC_HISTORY=true" in text) == bool(lost)
    assert "1 days keep their file (2024-03-11 to 2024-03-11)" in text


def test_an_empty_store_has_nothing_to_repair(tmp_path: Path, at_that_time: None) -> None:
    code, text = repaired(World.at(tmp_path, SOURCE="files"))
    assert code == 0
    assert text.startswith("Nothing to repair: no snapshot since 2024-01-01")


# The command -------------------------------------------------------------------------------------------------------


def test_without_an_instance_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["repair"]) == 1
    assert "this folder has no dagster.yaml" in capsys.readouterr().err


def test_a_store_that_does_not_answer_is_told_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], aws: None
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(home(tmp_path)))
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("BREAKOUT_STORE", "s3://bucket/prefix")
    monkeypatch.setenv("BREAKOUT_S3_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("BREAKOUT_LEDGER", str(tmp_path / "ledger.sqlite"))
    assert main(["repair", "--plan"]) == 1
    said = capsys.readouterr()
    assert "the connection failed" in said.err
    assert "Traceback" not in said.err + said.out


@pytest.mark.slow
def test_killed_between_two_steps_it_goes_on_where_it_stopped(tmp_path: Path) -> None:
    today = datetime.now(UTC).date()
    first = datetime.combine(today - timedelta(days=7), datetime.min.time())
    lost = [first + n * HOUR for n in (30, 31, 32)]
    variables = {"STORE": str(tmp_path / "store"), "SIM_TOKENS": "2", "SIM_SEED": "7"}
    world = World.at(tmp_path, None, REPLAY="false", **variables)
    world.collect(first, datetime.combine(today, datetime.min.time()))
    shutil.copytree(tmp_path / "store", tmp_path / "twin")
    lose(world, *lost)
    command = [sys.executable, "-m", "breakout_assets", "repair"]
    process = environment(home(tmp_path / "home"), **variables)
    log = tmp_path / "log.txt"
    with started(command, process, tmp_path, log):
        wait_until(lambda: all(world.store.raw_file(hour) for hour in lost), "the lost hours", 60)
    assert not world.store.days_of("indicator_features"), "it was killed too late for this test to say anything"
    again = subprocess.run(command, cwd=tmp_path, env=process, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "days to compact: 7 of 7 repaired" in again.stdout
    assert "Traceback" not in again.stdout + again.stderr
    twin = World.at(tmp_path, STORE=str(tmp_path / "twin"), SIM_TOKENS="2", REPLAY="false")
    repaired(twin)
    expected = twin.bytes_of("daily_snapshots", *DATASET)
    assert expected
    assert world.bytes_of("daily_snapshots", *DATASET) == expected
