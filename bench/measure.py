"""What a piece of work costs, measured in a process of its own."""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, TypeVar

import pandas as pd

# Both sides use one thread where a library would take as many as there are cores: CPU seconds then compare.
# And both take memory by small pages. Where a virtual machine gives memory back that it does not use, it gives it back
# by huge pages, and pays for each that it takes again with more than what is measured here.
ALIKE: Final = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    "NUMPY_MADVISE_HUGEPAGE": "0",
}


T = TypeVar("T")


@dataclass(frozen=True)
class Cost:
    """CPU seconds (user and system, all threads and children), seconds that passed, and the most memory at once."""

    cpu: float
    wall: float
    peak_mb: float


def timed(work: Callable[[], T]) -> tuple[T, Cost]:
    """The result of some work and its cost; imports and what was read before are not part of it, but of the memory."""
    cpu, wall = _cpu_seconds(), time.perf_counter()
    result = work()
    cost = Cost(_cpu_seconds() - cpu, time.perf_counter() - wall, _peak_mb())
    return result, cost


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _peak_mb() -> float:
    # The larger of the two: a child that ran beside us held its memory as well as we did ours.
    used = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return max(used) / 1024


def run_process(command: Sequence[str], variables: Mapping[str, str], log: Path) -> Cost:
    """The cost of a whole process, start and imports included.

    Raises:
        RuntimeError: it failed; the end of what it said is in the message.
    """
    before = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(command, env={**os.environ, **ALIKE, **variables}, stdout=output, stderr=output)  # noqa: S603
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed with {process.returncode}:\n{log.read_text()[-3000:]}")
    return Cost(usage.ru_utime + usage.ru_stime, time.perf_counter() - before, usage.ru_maxrss / 1024)


def run_case(stage: str, side: str, world: Path, result: Path) -> Cost:
    """The cost of one side of a stage, measured by a fresh process that leaves its result in a file."""
    command = [sys.executable, "-m", "bench.cases", stage, side, str(world), str(result)]
    run_process(command, {}, result.with_suffix(".log"))
    return kept_cost(result)


def run_older(python: Path, files: Path, result: Path) -> Cost:
    """The cost of reading these files in the published way, measured by another Python."""
    command = [str(python), "-m", "bench.source_reading", str(files), str(result)]
    run_process(command, {}, result.with_suffix(".log"))
    return kept_cost(result)


def kept_cost(result: Path) -> Cost:
    """The cost beside a result."""
    return Cost(**json.loads(result.with_suffix(".json").read_text()))


def keep(result: pd.DataFrame, cost: Cost, path: Path) -> None:
    """What `run_case` reads."""
    result.to_parquet(path)
    path.with_suffix(".json").write_text(json.dumps(asdict(cost)))
