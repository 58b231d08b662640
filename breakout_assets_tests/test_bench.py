"""The bench: its stages compute the same as the published way, and it gives no ratio where they do not."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench import processes, source_reading
from bench.__main__ import _older_reading, _prepare, _stage
from bench.cases import comparable, difference, unequal_files
from bench.market import generate
from bench.measure import Cost, timed
from bench.report import Growth, Row, middle, ratio, write
from bench.stages import STAGES, Stage
from bench.training import measure_training, train
from bench.world import World, build, days_before, shortened

pytestmark = pytest.mark.usefixtures("nothing_compiled")
NEAR = Stage("a stage", {}, exact=("price",), near={"RSI": 1e-9})
ROWS = pd.DataFrame(
    {
        "token": ["A-1", "B-2", "C-3"],
        "timestamp": pd.to_datetime(["2024-01-01"] * 3),
        "price": [1.0, np.nan, 3.0],
        "RSI": [50.0, 60.0, np.nan],
    }
)
SOURCE = Row("a stage", "source", Cost(10.0, 12.0, 100.0))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The fewest days that leave a coin 720 labelled hours: a week before the first label, five days after the last."""
    folder = tmp_path_factory.mktemp("bench")
    world = World(str(folder / "store"), tokens=12, days=43, measured=43, models=6)
    build(world)
    days = days_before(world.last_hour.date(), world.measured)[:-5]
    processes.backfill(world, folder / "home", days[0], days[-1])
    train(world)
    return world


@pytest.mark.slow
@pytest.mark.parametrize("name", STAGES)
def test_every_stage_gives_what_the_published_way_gives(world: World, name: str) -> None:
    stage = STAGES[name]
    found = {side: timed(case(world))[0] for side, case in stage.sides.items()}
    results = {side: comparable(stage, stage.compared(world, rows)) for side, rows in found.items()}
    source = results.pop("source")
    assert len(source) > 0
    assert {side: difference(stage, source, result) for side, result in results.items()} == dict.fromkeys(results)


@pytest.mark.slow
def test_with_less_history_the_same_hour_has_the_same_scores(world: World, tmp_path: Path) -> None:
    tick = STAGES["tick"].sides["platform"]
    short = shortened(world, 35, tmp_path / "short")
    assert short.last_hour == world.last_hour
    pd.testing.assert_frame_equal(tick(short)(), tick(world)())


@pytest.mark.slow
def test_sides_are_measured_and_compared_by_processes_of_their_own(world: World, tmp_path: Path) -> None:
    world.save(tmp_path / "world.json")
    theirs, ours = _stage("reading", world, tmp_path, rounds=1)
    assert ours.unequal is None
    assert 0 < ours.cost.cpu < theirs.cost.cpu
    spoilt = pd.read_parquet(tmp_path / "reading-daily-files.parquet").assign(price=1.0)
    spoilt.to_parquet(tmp_path / "spoilt.parquet")
    said = unequal_files("reading", tmp_path / "reading-source.parquet", tmp_path / "spoilt.parquet")
    assert "values of price differ" in str(said)


@pytest.mark.slow
def test_reading_is_also_measured_beside_the_published_way_in_another_python(world: World, tmp_path: Path) -> None:
    world.save(tmp_path / "world.json")
    theirs, ours = _older_reading(Path(sys.executable), world, tmp_path, rounds=1)
    assert theirs.stage == ours.stage == f"read the days, 10 columns, published in pandas {pd.__version__}"
    assert ours.unequal is None
    assert 0 < ours.cost.cpu < theirs.cost.cpu
    rows = pd.read_parquet(tmp_path / "older-reading-source.parquet")
    assert set(rows) == set(source_reading.COLUMNS)
    rows.iloc[1:].to_parquet(tmp_path / "short.parquet")
    said = unequal_files("reading", tmp_path / "short.parquet", tmp_path / "older-reading.parquet", 1e-12)
    assert f"{len(rows) - 1} rows against {len(rows)}" in str(said)


@pytest.mark.slow
def test_training_in_shards_gives_the_models_of_the_serial_loop(world: World, tmp_path: Path) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in Path(world.root).rglob("*") if path.is_file())
    serial, sharded = measure_training(world, tmp_path, rounds=1, most=2)
    assert before == sorted((path, path.stat().st_mtime_ns) for path in Path(world.root).rglob("*") if path.is_file())
    assert serial.cost.cpu > 0
    assert sharded.unequal is None


def test_the_market_is_awkward_in_every_way_that_matters() -> None:
    market = generate(tokens=60, hours=600)
    listed = ~np.isnan(market.price)
    assert (~listed[0] & listed[-1]).any(), "listed late"
    assert (listed[0] & ~listed[-1]).any(), "dead"
    assert (listed[0] & listed[-1] & ~listed.all(axis=0)).any(), "gaps"
    assert (market.volume == 0).any(), "hours without volume"
    assert len(set(market.symbols)) < len(market.symbols), "shared symbols"
    again = generate(tokens=60, hours=600)
    np.testing.assert_array_equal(market.price, again.price)
    assert [len(frame) for _, frame in market.hours(every=200)] == [int(listed[n].sum()) for n in (0, 200, 400)]


def test_equal_results_may_be_in_any_order_and_differ_in_rounding() -> None:
    ours = ROWS.assign(RSI=ROWS["RSI"] * (1 + 1e-12)).sample(frac=1, random_state=1)
    assert difference(NEAR, comparable(NEAR, ROWS), comparable(NEAR, ours)) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"price": [1.0, np.nan, 3.0000000001]}, "1 of 3 values of price differ"),
        ({"price": [1.0, 2.0, 3.0]}, "1 of 3 values of price differ"),
        ({"RSI": [50.0, 60.0001, np.nan]}, "1 of 3 values of RSI are more than 1e-09 apart"),
        ({"RSI": [50.0, 60.0, 1.0]}, "1 of 3 values of RSI are more than"),
        ({"token": ["A-1", "X-8", "Y-9"]}, "3 rows against 3, 1 of them in both"),
    ],
)
def test_unequal_results_are_told_and_have_no_ratio(change: dict[str, list[float]], said: str, tmp_path: Path) -> None:
    found = difference(NEAR, comparable(NEAR, ROWS), comparable(NEAR, ROWS.assign(**change)))
    assert found is not None
    assert found.startswith(said)
    row = Row("a stage", "ours", Cost(1.0, 2.0, 50.0), unequal=found)
    assert ratio(SOURCE, row) is None
    size = {"tokens": 1, "days": 1, "measured": 1, "models": 1, "rounds": 1}
    assert "none: " in write(tmp_path, size, [SOURCE, row], []).read_text()


def test_exact_columns_may_be_held_to_what_the_other_way_can_tell() -> None:
    exact = replace(NEAR, near={})
    theirs, ours = (comparable(exact, ROWS.assign(price=ROWS["price"] * factor)) for factor in (1.0, 1 + 1e-13))
    assert difference(exact, theirs, ours) is not None
    assert difference(exact, theirs, ours, within=1e-12) is None
    assert difference(exact, theirs, ours.assign(price=ours["price"] * (1 + 1e-11)), within=1e-12) is not None


def test_a_way_that_leaves_out_more_than_what_was_quarantined_is_unequal() -> None:
    many = pd.concat([ROWS.assign(token=ROWS["token"] + str(n)) for n in range(100)])
    assert difference(NEAR, comparable(NEAR, many), comparable(NEAR, many.iloc[5:])) is None
    gone = many[~many["token"].str.startswith("A")].assign(token=lambda rows: rows["token"] + "x")
    said = difference(NEAR, comparable(NEAR, many), comparable(NEAR, pd.concat([many.iloc[:200], gone])))
    assert said == "300 rows against 400, 200 of them in both"


def test_a_way_that_answers_for_few_is_unequal_although_they_are_right() -> None:
    many = pd.concat([ROWS.assign(token=ROWS["token"] + str(n)) for n in range(100)])
    assert difference(NEAR, comparable(NEAR, many), comparable(NEAR, many.iloc[:200])) is None
    assert difference(NEAR, comparable(NEAR, many), comparable(NEAR, many.iloc[:100])) is not None


def test_one_far_value_in_a_thousand_is_forgiven_to_nothing_but_scores() -> None:
    many = comparable(NEAR, pd.concat([ROWS.assign(token=ROWS["token"] + str(n)) for n in range(5000)]))
    far = many.assign(RSI=many["RSI"].where(many.index != 3, 99.0))
    assert difference(NEAR, many, far) is not None
    scores = replace(NEAR, exact=(), near={"score": 1e-9})
    theirs, ours = (rows.rename(columns={"RSI": "score"}) for rows in (many, far))
    assert difference(scores, theirs, ours) is None


def test_a_folder_that_is_not_the_bench_s_is_not_emptied(world: World, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(SystemExit, match="is no folder of the bench, and would be emptied"):
        _prepare(world, tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_a_missing_row_of_an_exact_stage_is_unequal() -> None:
    exact = replace(NEAR, near={})
    said = difference(exact, comparable(exact, ROWS), comparable(exact, ROWS.iloc[1:]))
    assert said == "3 rows against 2, 2 of them in both"


def test_a_ratio_is_of_medians_and_of_the_same_amount_of_work(tmp_path: Path) -> None:
    cost = middle([Cost(9.0, 1.0, 1.0), Cost(1.0, 3.0, 7.0), Cost(2.0, 2.0, 3.0)])
    assert cost == Cost(2.0, 2.0, 3.0)
    assert ratio(SOURCE, Row("a stage", "ours", cost)) == pytest.approx(5)
    assert ratio(SOURCE, Row("a stage", "ours", cost, units=10)) == pytest.approx(50)
    assert ratio(SOURCE, Row("a stage", "ours", cost, by_wall=True)) == pytest.approx(6)


def test_the_report_is_there_for_people_and_for_programs(tmp_path: Path) -> None:
    row = Row("a stage", "ours", Cost(2.0, 3.0, 50.0), least=4, note="It was cold.")
    growth = Growth("Ticking: days", [30, 90], [Cost(1.0, 1.0, 1.0), Cost(2.0, 1.0, 1.0)])
    size = {"tokens": 7, "days": 90, "measured": 30, "models": 5, "rounds": 3}
    text = write(tmp_path, size, [SOURCE, row], [growth]).read_text()
    assert "| a stage | ours | 2 | 3 | 50 | 5 | 4 |" in text
    assert "It was cold." in text
    assert (tmp_path / "ticking.png").read_bytes().startswith(b"\x89PNG")
    told = json.loads((tmp_path / "results.json").read_text())
    assert [found["ratio"] for found in told["rows"]] == [None, 5.0]
    assert told["machine"]["cores"] >= 1
