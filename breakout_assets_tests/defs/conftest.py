"""One learned world for all tests that need models; each test gets a copy of it."""

import shutil
from datetime import date
from pathlib import Path

import dagster as dg
import pytest

from breakout_assets.defs.partitions import TOKENS_NAME
from breakout_assets_tests.defs.support import DATASET, World, day_keys
from breakout_assets_tests.samples import at

FIRST, LAST = at("2024-03-01 00:00"), at("2024-04-17 23:00")
# Labels end with the raw data; the hours after AS_OF are for predictions.
LABELLED_UNTIL = date(2024, 4, 10)
AS_OF = "2024-04-16T00:00"


@pytest.fixture(scope="session")
def learned_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw hours, days, labels, indicators and models of five tokens over seven weeks."""
    folder = tmp_path_factory.mktemp("learned")
    world = World.at(folder)
    world.collect(FIRST, LAST)
    world.days("daily_snapshots", FIRST.date(), LAST.date())
    world.run(DATASET, day_keys(FIRST.date(), LABELLED_UNTIL))
    tokens = world.instance.get_dynamic_partitions(TOKENS_NAME)
    world.run(["token_model"], tokens, {"ops": {"token_model": {"config": {"as_of": AS_OF}}}})
    (folder / "tokens.txt").write_text("\n".join(tokens))
    return folder


@pytest.fixture
def learned(learned_folder: Path, tmp_path: Path) -> World:
    """A copy of the learned world with an instance of its own."""
    shutil.copytree(learned_folder, tmp_path / "world")
    world = World.at(tmp_path / "world", dg.DagsterInstance.ephemeral())
    world.instance.add_dynamic_partitions(TOKENS_NAME, (learned_folder / "tokens.txt").read_text().split("\n"))
    return world


@pytest.fixture
def world(tmp_path: Path) -> World:
    """An empty world."""
    return World.at(tmp_path)
