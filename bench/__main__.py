"""`python -m bench`: build a market, measure every stage beside the published way, and write the report."""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from compileall import compile_dir
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from rich.console import Console

import breakout_assets
from bench import processes, source_reading
from bench.cases import unequal_files
from bench.measure import Cost, run_case, run_older
from bench.report import Growth, Row, middle, write
from bench.stages import STAGES
from bench.training import measure_training, train
from bench.world import HORIZON_DAYS, World, build, days_before, shortened

P = ParamSpec("P")
R = TypeVar("R")
_HISTORIES: Final = (30, 90, 365)
_BACKFILLS: Final = (30, 60, 90, 180)
# How far its `read_csv` is from the number in the file; pandas 3 reads what is there.
_READ_BY_PANDAS_2: Final = 1e-12
# The backfill is compared with a whole run.
_COMPARED = [name for name in STAGES if name != "backfill"]
console = Console(stderr=True)


def main() -> int:
    """Returns 1 if two results were unequal."""
    arguments = _arguments()
    world = World(
        root=str(arguments.work / "store"),
        tokens=arguments.tokens,
        days=arguments.days,
        measured=arguments.measured,
        models=arguments.models,
    )
    compile_dir(breakout_assets.__path__[0], quiet=1)  # as a first start leaves it
    _prepare(world, arguments.work)
    rows = [row for name in _COMPARED for row in _stage(name, world, arguments.work, arguments.rounds)]
    if arguments.older_pandas is not None:
        rows += _older_reading(arguments.older_pandas, world, arguments.work, arguments.rounds)
    rows += measure_training(world, arguments.work, arguments.rounds, arguments.trained)
    rows += _runs(world, arguments.work, arguments.rounds)
    size = {name: getattr(arguments, name) for name in ("tokens", "days", "measured", "models", "rounds")}
    write(arguments.out, size, rows, [])  # an hour's work, whatever becomes of the rest
    growths = [_tick_growth(world, arguments.work, arguments.rounds), _backfill_growth(world, arguments.work)]
    report = write(arguments.out, size, rows, growths)
    console.print(report.read_text())
    return int(any(row.unequal for row in rows))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--tokens", type=int, default=1250, help="coins in the market (1250)")
    parser.add_argument("--days", type=int, default=365, help="days of history (365)")
    parser.add_argument("--measured", type=int, default=90, help="the newest of them, for stages over a range (90)")
    parser.add_argument("--models", type=int, default=1000, help="models that serve (1000)")
    parser.add_argument("--trained", type=int, default=300, help="models of the measured training (300)")
    parser.add_argument("--rounds", type=int, default=3, help="fresh processes for each figure (3)")
    parser.add_argument(
        "--older-pandas", type=Path, help="a Python with pandas 2, to measure reading beside that as well"
    )
    parser.add_argument(
        "--work", type=Path, default=Path("bench-work"), help="folder of the market, kept for next time"
    )
    parser.add_argument("--out", type=Path, default=Path("bench-results"), help="folder of the report")
    found = parser.parse_args()
    if found.measured > found.days:
        parser.error("there are fewer days than shall be measured")
    return found


def _prepare(world: World, work: Path) -> None:
    """The market, its labels and indicators, and its models, unless they are there already."""
    ready = work / "world.json"
    if ready.exists() and World.read(ready) == world:
        return
    mark = work / "made-by-bench"  # so that one that was stopped half-way is known again
    if work.exists() and not ready.exists() and not mark.exists() and any(work.iterdir()):
        raise SystemExit(f"{work} is no folder of the bench, and would be emptied; name another, or delete it yourself")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    mark.touch()
    console.print(f"A market of {world.tokens} coins and {world.days} days ...")
    _elsewhere(build, world)
    console.print("Labels and indicators ...")
    first, last = _labelled_days(world, world.measured - HORIZON_DAYS)
    processes.backfill(world, work / "home", first, last)
    console.print("Models ...")
    _elsewhere(train, world)
    world.save(ready)


def _labelled_days(world: World, count: int) -> tuple[date, date]:
    """The first and the last of so many days whose five-day future is in the store."""
    days = days_before(world.last_hour.date(), count + HORIZON_DAYS)
    return days[0], days[count - 1]


def _stage(name: str, world: World, work: Path, rounds: int) -> Iterator[Row]:
    """Every side of a stage, the rounds of all sides interleaved, and each result held against the published way's."""
    stage = STAGES[name]
    where, unequal = work / "world.json", dict[str, str | None]()
    costs: dict[str, list[Cost]] = {side: [] for side in stage.sides}
    for number in range(rounds):
        for side in stage.sides:
            result = work / f"{name}-{side}.parquet".replace(" ", "-")
            costs[side].append(run_case(name, side, where, result))
            console.print(f"{stage.title}, {side}, round {number + 1} of {rounds}: {costs[side][-1].cpu:.2f} CPU s")
            if side != "source" and number == 0:
                unequal[side] = _elsewhere(unequal_files, name, work / f"{name}-source.parquet", result)
    units = stage.units(world)
    for side, measured in costs.items():
        yield Row(
            stage.title,
            side,
            middle(measured),
            units=units.get(side, units.get("", 1.0)),
            unequal=unequal.get(side),
            least=stage.least.get(side),
            note=stage.note,
        )


def _older_reading(python: Path, world: World, work: Path, rounds: int) -> Iterator[Row]:
    """Reading once more, the published way in another pandas: how a CSV file is read has changed more than ours has."""
    asked = [str(python), "-c", "import pandas; print('pandas', pandas.__version__)"]
    title = f"{STAGES['reading'].title}, published in {subprocess.check_output(asked, text=True).strip()}"  # noqa: S603
    files = work / "older-reading.txt"
    files.write_text("\n".join(map(str, source_reading.hours(Path(world.root), world.measured_hours))))
    theirs, ours = work / "older-reading-source.parquet", work / "older-reading.parquet"
    costs: dict[str, list[Cost]] = {"source": [], "daily files": []}
    for number in range(rounds):
        costs["source"].append(run_older(python, files, theirs))
        costs["daily files"].append(run_case("reading", "daily files", work / "world.json", ours))
        console.print(f"{title}, round {number + 1} of {rounds}: {costs['source'][-1].cpu:.2f} CPU s")
    yield Row(title, "source", middle(costs["source"]))
    unequal = _elsewhere(unequal_files, "reading", theirs, ours, _READ_BY_PANDAS_2)
    note = f"pandas 2 reads decimals only to {_READ_BY_PANDAS_2:g} of them."
    yield Row(title, "daily files", middle(costs["daily files"]), unequal=unequal, least=20, note=note)


def _elsewhere(work: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
    """What another process returns: this one has to stay small, since what it starts counts its memory as its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(work, *arguments, **named).result()


def _runs(world: World, work: Path, rounds: int) -> Iterator[Row]:
    """Whole Dagster runs: an hour, and the backfill of the measured days beside the published way day by day."""
    hours = [processes.hourly_job(world, _fresh(work / "hour")) for _ in range(rounds)]
    yield Row("a whole hourly run as a process", "platform", middle(hours), note="No other way to compare it with.")
    count = world.measured - HORIZON_DAYS
    days = _labelled_days(world, count)
    runs = [processes.backfill(world, _fresh(work / "backfill"), *days) for _ in range(rounds)]
    by_day = list(_stage("backfill", world, work, rounds))
    yield by_day[0]
    yield Row(
        by_day[0].stage,
        f"one run of {count} days",
        middle(runs),
        units=count,
        unequal=by_day[1].unequal,
        least=10,
    )


def _fresh(home: Path) -> Path:
    shutil.rmtree(home, ignore_errors=True)
    return home


def _tick_growth(world: World, work: Path, rounds: int) -> Growth:
    """The same hour with more and more history behind it."""
    sizes = [days for days in _HISTORIES if days < world.days] + [world.days]
    costs: dict[int, list[Cost]] = {days: [] for days in sizes}
    places = {}
    for days in sizes:
        root = work / f"with-{days}-days"
        shutil.rmtree(root, ignore_errors=True)
        short = world if days == world.days else shortened(world, days, root)
        places[days] = short.save(work / f"with-{days}-days.json")
    for _ in range(rounds):
        for days, place in places.items():
            costs[days].append(run_case("tick", "platform", place, work / "tick-growth.parquet"))
    return Growth("Hourly tick: days of history behind it", sizes, [middle(costs[days]) for days in sizes])


def _backfill_growth(world: World, work: Path) -> Growth:
    """Labels and indicators of more and more days, each in one run."""
    most = world.days - HORIZON_DAYS
    sizes = [days for days in _BACKFILLS if days <= most] or [most]
    # In a store of its own, or the next training would find more days than are measured.
    apart = shortened(world, world.days, _fresh(work / "growth-store"))
    costs = [processes.backfill(apart, _fresh(work / "growth"), *_labelled_days(apart, days)) for days in sizes]
    return Growth("Backfill: days of labels and indicators in one run", sizes, costs)


if __name__ == "__main__":
    sys.exit(main())
