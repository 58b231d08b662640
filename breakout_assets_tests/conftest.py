"""Fixtures for all tests; every test has a store of its own and none of the caller's settings."""

import os
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings

from breakout_assets.store import Store

# Examples are the same in every run, and a slow machine is no failure.
hypothesis_settings.register_profile("steady", derandomize=True, deadline=None)
hypothesis_settings.load_profile("steady")


@pytest.fixture(autouse=True)
def _no_settings_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in list(os.environ):
        if variable.startswith("BREAKOUT_") or variable == "DAGSTER_HOME":
            monkeypatch.delenv(variable)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store in a folder."""
    return Store.at(str(tmp_path / "store"))
