"""The store that everything is measured on: raw hours, compacted days, labels, indicators and models of one market."""

import json
import pickle
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Final

from rich.progress import track

from bench.market import FIRST_HOUR, generate
from breakout_assets.dataset.labels import HORIZON
from breakout_assets.learning.generations import newest_serving
from breakout_assets.learning.model_files import load
from breakout_assets.learning.recipes import Recipe, recipe
from breakout_assets.market.files import raw_bytes
from breakout_assets.market.history import compact_day
from breakout_assets.market.tokens import load_registry
from breakout_assets.store import MODELS, Store

RECIPE: Final = "blog_fixed"
HORIZON_DAYS: Final = HORIZON // timedelta(days=1)
_WRITERS: Final = 2


@dataclass(frozen=True)
class World:
    """A market in a store.

    Attributes:
        root: folder of the store.
        tokens: coins in it.
        days: days of history.
        measured: the newest of them, which stages are measured on.
        models: models that serve the tick.
    """

    root: str
    tokens: int
    days: int
    measured: int
    models: int

    @property
    def store(self) -> Store:
        """Where it lies."""
        return Store.at(self.root)

    @property
    def recipe(self) -> Recipe:
        """What its models are trained by: the published recipe without its defects."""
        return recipe(RECIPE)

    @property
    def last_hour(self) -> datetime:
        """The newest hour, in the middle of the day after the last full one."""
        return FIRST_HOUR + timedelta(days=self.days, hours=12)

    @property
    def measured_days(self) -> list[date]:
        """The full days that stages are measured on, oldest first."""
        return days_before(self.last_hour.date(), self.measured)

    @property
    def measured_hours(self) -> list[datetime]:
        """Their hours."""
        first = datetime.combine(self.measured_days[0], datetime.min.time())
        return [first + timedelta(hours=n) for n in range(24 * self.measured)]

    def save(self, path: Path) -> Path:
        """Write it down for the processes that measure."""
        path.write_text(json.dumps(asdict(self)))
        return path

    @classmethod
    def read(cls, path: Path) -> "World":
        """What `save` wrote."""
        return cls(**json.loads(path.read_text()))


def days_before(day: date, count: int) -> list[date]:
    """So many days before a day, oldest first."""
    return [day - timedelta(days=n) for n in range(count, 0, -1)]


def build(world: World) -> None:
    """Raw hours of the whole history, and its full days compacted."""
    with ProcessPoolExecutor(_WRITERS) as pool:
        list(pool.map(_write_hours, [world] * _WRITERS, range(_WRITERS)))
    registry = load_registry(world.store)
    for day in track(days_before(world.last_hour.date(), world.days), "compacting days", transient=True):
        found = compact_day(world.store, registry, day)
        world.store.write_table("daily_snapshots", day, found.rows, found.made_from)


def _write_hours(world: World, part: int) -> None:
    """Every other hour of a market; the market itself is made by each writer, which is quicker than handing it over."""
    hours = generate(world.tokens, world.days * 24 + 13).hours(every=_WRITERS, first=part)
    for hour, listing in hours:
        world.store.write(world.store.raw_path(hour, "csv"), raw_bytes(listing, "csv"))


def pickled(world: World) -> Path:
    """The serving models once more as the published way keeps them, a pickle a coin."""
    folder = Path(world.root) / "pickles"
    if not folder.exists():
        part = folder.with_suffix(".part")
        part.mkdir(exist_ok=True)
        for token, generation in newest_serving(world.store.root / MODELS, world.recipe).items():
            model = load(generation.folder)
            with (part / f"{token}.pickle").open("wb") as stream:
                pickle.dump((model.scaler, model.classifier), stream)
        part.rename(folder)
    return folder


def shortened(world: World, days: int, root: Path) -> World:
    """The same world with less history behind it: its files are shared, not copied."""
    store = Store.at(str(root))
    for day in [*days_before(world.last_hour.date(), days), world.last_hour.date()]:
        for source in (Path(world.root) / f"cmc/latest/{day:%Y/%m/%d}", world.store.table_path("daily_snapshots", day)):
            target = root / Path(str(source)).relative_to(world.root)
            target.parent.mkdir(parents=True, exist_ok=True)
            if Path(str(source)).is_dir():
                shutil.copytree(str(source), target, copy_function=_link)
            elif Path(str(source)).exists():
                _link(str(source), str(target))
    for folder in ("tokens", "serving", MODELS):
        if (Path(world.root) / folder).exists():
            shutil.copytree(Path(world.root) / folder, root / folder, copy_function=_link)
    return World(str(store.root), world.tokens, world.days, min(days, world.measured), world.models)  # ends as it does


def untrained(world: World, root: Path) -> World:
    """The same world with the features of the measured days and no model: what is trained there stays there."""
    shutil.rmtree(root, ignore_errors=True)
    store = Store.at(str(root))
    for day in world.measured_days[:-HORIZON_DAYS]:
        target = Path(str(store.table_path("indicator_features", day)))
        target.parent.mkdir(parents=True, exist_ok=True)
        _link(str(world.store.table_path("indicator_features", day)), str(target))
    return replace(world, root=str(store.root))


def _link(source: str, target: str) -> None:
    Path(target).hardlink_to(source)
