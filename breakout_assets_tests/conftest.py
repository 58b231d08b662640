"""Fixtures for all tests; every test has a store of its own and none of the caller's settings."""

import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import settings as hypothesis_settings

from breakout_assets.store import Store
from breakout_assets_tests.s3server import BUCKET, ENVIRONMENT, seaweed

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


@pytest.fixture(scope="session")
def s3_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real S3 server with an empty bucket, for all tests of a process."""
    with seaweed(tmp_path_factory.mktemp("seaweed")) as url:
        yield url


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """The S3 server's credentials where the usual AWS chain finds them."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def s3_location(aws: None) -> str:
    """A prefix in the bucket that no other test uses."""
    return f"s3://{BUCKET}/{uuid4().hex}"


@pytest.fixture
def bucket_store(s3_url: str, s3_location: str) -> Store:
    """An empty store in a bucket."""
    return Store.at(s3_location, s3_url)
