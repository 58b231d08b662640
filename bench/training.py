"""Training by the published recipe: the same models one after the other, and in shards over processes."""

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from rich.progress import track

from bench.measure import Cost, keep, kept_cost, run_process, timed
from bench.report import Row, middle
from bench.world import World, untrained
from breakout_assets.learning.generations import newest_serving
from breakout_assets.learning.serving import refresh
from breakout_assets.learning.sharding import Trained, Training, train_models
from breakout_assets.learning.training_set import tokens_with_history
from breakout_assets.store import MODELS

_SIDES = {"source": 1, "sharded": None}
_TITLE = "training by the published recipe"


def tokens_to_train(world: World, most: int) -> list[str]:
    """At most so many tokens that have enough history."""
    return tokens_with_history(world.store, world.recipe.min_rows)[:most]


def train(world: World) -> None:
    """The models that serve in the other stages."""
    names = tokens_to_train(world, world.models)
    for _ in track(train_models(Training(world.store, world.recipe), names), "training", len(names), transient=True):
        pass
    refresh(world.store, world.recipe)


def measure_training(world: World, work: Path, rounds: int, most: int) -> Iterator[Row]:
    """Both ways; equal if every file of every model is."""
    costs: dict[str, list[Cost]] = {side: [] for side in _SIDES}
    results: dict[str, pd.DataFrame] = {}
    for _ in range(rounds):
        for side in _SIDES:
            result = work / f"training-{side}.parquet"
            # A side must not find the models of the other, nor serving models be exchanged for those of some coins.
            where = untrained(world, work / "training").save(work / "training.json")
            command = [sys.executable, "-m", "bench.training", side, str(where), str(most), str(result)]
            run_process(command, {}, result.with_suffix(".log"))
            costs[side].append(kept_cost(result))
            results[side] = pd.read_parquet(result)
    unequal = None if results["source"].equals(results["sharded"]) else "the models' files differ"
    for side in _SIDES:
        yield Row(
            f"{_TITLE}, {most} coins",
            side,
            middle(costs[side]),
            unequal=unequal if side != "source" else None,
            least=1.8 if side != "source" else None,
            by_wall=True,
            note="Both ways train the platform's models, which are fitted twice; `source` is the serial loop.",
        )


def main(side: str, place: str, most: str, result: str) -> None:
    """One side, in a process of its own."""
    world = World.read(Path(place))
    names = tokens_to_train(world, int(most))

    def work() -> pd.DataFrame:
        outcomes = list(train_models(Training(world.store, world.recipe), names, _SIDES[side]))
        return pd.DataFrame({"token": sorted(outcome.name for outcome in outcomes if isinstance(outcome, Trained))})

    trained, cost = timed(work)
    keep(trained.assign(files=[_digest(world, token) for token in trained["token"]]), cost, Path(result))


def _digest(world: World, token: str) -> str:
    """Of the files of a token's newest generation."""
    folder = newest_serving(world.store.root / MODELS, world.recipe, [token])[token].folder
    content = [Path(str(file)).read_bytes() for file in sorted(Path(str(folder)).iterdir())]
    return hashlib.sha256(b"".join(content)).hexdigest()


if __name__ == "__main__":
    main(*sys.argv[1:])
