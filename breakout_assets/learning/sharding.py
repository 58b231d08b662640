"""Many models side by side: one read of the rows, the tokens in shards, a process for each core.

Every model is the same whatever is trained beside it, in which order and by how many processes: seeds follow from
names, and a fit has one thread. A model is stored by the process that trained it, since it is larger than what is told
of it. No process outlives the run: not where it fails, not where it is terminated, not where it is killed.
"""

import gc
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any, Final

import joblib
import pandas as pd
import pyarrow as pa
from threadpoolctl import threadpool_limits

from breakout_assets.errors import DataError, TemporaryError
from breakout_assets.learning.generations import read_manifest
from breakout_assets.learning.packed import packed_row, with_hashes
from breakout_assets.learning.recipes import POOLED, Recipe
from breakout_assets.learning.refreshing import fit_anew
from breakout_assets.learning.selection import Selection, select
from breakout_assets.learning.serving import publish, refresh
from breakout_assets.learning.training import Scope
from breakout_assets.learning.training_set import of_one_origin, pooled_selection, write_shards
from breakout_assets.store import Store

# Models below which further processes are not worth their start: each imports pandas and scikit-learn for two seconds,
# in which two or three tokens are trained.
ENOUGH: Final = 50
# Tokens of a shard: so many that handing it over costs nothing, so few that processes end at about the same time, and
# that a crash loses seconds.
SHARD: Final = 20
_MOST_NAMED: Final = 5


@dataclass(frozen=True)
class Trained:
    """A model that has been trained and stored."""

    name: str
    folder: str
    manifest: dict[str, Any]
    origin: str
    """The source of its rows (`training_set.of_one_origin`)."""
    verdict: str
    """Whether it takes over from the generation before, as a sentence."""
    row: pa.Table
    """The model as it is served (`packed`)."""


@dataclass(frozen=True)
class Untrained:
    """A model that there is none of, and why: `NotTrainable` is an answer, any other a defect of it or its rows."""

    name: str
    error: DataError


Outcome = Trained | Untrained
_Task = Callable[[], Iterator[Outcome]]


@dataclass(frozen=True)
class Training:
    """What all models of a training have in common."""

    store: Store
    recipe: Recipe
    as_of: datetime | None = None
    """The cut-off, naive UTC: only labels that had ended by then are used. None uses every label."""


def train_models(
    training: Training, names: Sequence[str], workers: int | None = None, shard: int = SHARD
) -> Iterator[Outcome]:
    """Train and store models; each is told as soon as its shard is done, in no order.

    Args:
        training: how.
        names: tokens; `POOLED` is the model over all of them.
        workers: processes; None takes one for each core, and none beside this one for fewer than `ENOUGH` models.
        shard: tokens of a shard.

    Raises:
        TemporaryError: a process was ended from outside; what was told before is stored. Or the bucket does not answer.
        DataError: the rows cannot be read, or a model cannot be written.
    """
    tokens, pooled = [name for name in names if name != POOLED], POOLED in names
    shards = [tokens[first : first + shard] for first in range(0, len(tokens), shard)]
    with TemporaryDirectory(prefix="breakout-training-") as folder:
        files = write_shards(training.store, training.recipe.features, shards, Path(folder), others=pooled)
        tasks: dict[_Task, Sequence[str]] = {
            partial(_train_shard, training, some, file): some for some, file in zip(shards, files, strict=False)
        }
        if pooled:  # the longest task, and begun first
            tasks = {partial(_train_pooled, training, files): [POOLED], **tasks}
        if workers is None:
            workers = joblib.cpu_count() if len(names) >= ENOUGH else 1
        workers = min(workers, len(tasks))
        outcomes = _side_by_side(tasks, workers) if workers > 1 else (each for task in tasks for each in task())
        fresh: dict[str, pa.Table] = {}
        for outcome in outcomes:
            if isinstance(outcome, Trained):
                fresh[outcome.folder] = outcome.row
            yield outcome
        refresh(training.store, training.recipe, fresh)


def _train_shard(training: Training, tokens: Sequence[str], file: Path) -> Iterator[Outcome]:
    rows = pd.read_parquet(file)
    of_token = dict(list(rows.groupby("token", sort=False)))
    for token in tokens:
        yield _train(training, token, partial(_own_selection, training, of_token.get(token, rows.iloc[:0])))


def _own_selection(training: Training, rows: pd.DataFrame) -> tuple[Selection, str]:
    rows, origin = of_one_origin(rows, training.recipe.min_rows)
    return select(rows, training.recipe, training.as_of), origin


def _train_pooled(training: Training, files: Sequence[Path]) -> Iterator[Outcome]:
    yield _train(training, POOLED, partial(pooled_selection, files, training.recipe, training.as_of))


def _train(training: Training, name: str, selected: Callable[[], tuple[Selection, str]]) -> Outcome:
    scope: Scope = "pooled" if name == POOLED else "token"
    try:
        selection, origin = selected()
        model, verdict = fit_anew(training.store, selection, training.recipe, scope, name)
        row = packed_row(model)  # before it is published: what cannot be packed could not serve
    except DataError as error:  # in the rows of this model, or in itself; the others have theirs
        return Untrained(name, error)
    folder = publish(training.store, model)
    manifest = read_manifest(folder)
    row = with_hashes(row, model_hash=manifest["model_hash"])
    return Trained(name, str(folder), manifest, origin, verdict, row)


# Processes -------------------------------------------------------------------------------------------------------


def _side_by_side(tasks: dict[_Task, Sequence[str]], workers: int) -> Iterator[Outcome]:
    lost: list[str] = []
    with _processes(workers) as pool:
        waiting = {pool.submit(_outcomes, task): names for task, names in tasks.items()}
        for future in as_completed(waiting):
            if isinstance(future.exception(), BrokenProcessPool):
                lost += waiting[future]
            else:
                yield from future.result()
    if lost:
        total = sum(len(names) for names in tasks.values())
        raise TemporaryError(
            f"a process that trained models was ended from outside, as systems do where memory runs out; "
            f"{total - len(lost)} of {total} models are done and kept, the others are not: "
            f"{', '.join(lost[:_MOST_NAMED])}{', …' if len(lost) > _MOST_NAMED else ''}. Train them again, with fewer "
            "workers if memory is short"
        )


def _outcomes(task: _Task) -> list[Outcome]:
    return list(task())


@contextmanager
def _processes(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that end when the block is left in any way, or this process is killed: at once, if in an error."""
    # A copy of this process would inherit locks that threads of DuckDB, Arrow or Dagster hold at that moment.
    context = get_context("spawn")
    alive, held = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, context, _begin, (alive,))
    try:
        yield pool
        pool.shutdown()
    finally:
        held.close()
        alive.close()
        pool.shutdown(cancel_futures=True)


def _begin(alive: Connection) -> None:
    """Prepare a process that trains."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all of a terminal's processes; the run's ends these
    Thread(target=_end_with, args=(alive,), daemon=True).start()
    threadpool_limits(1)  # a core a process
    gc.freeze()  # what was imported stays; looking through it again and again is a twentieth of a fit


def _end_with(alive: Connection) -> None:
    """End this process when nobody holds the other end of the pipe any more, even in the middle of a fit."""
    try:
        alive.poll(None)
    finally:
        os._exit(1)
