"""Fixtures for all tests; every test has a store of its own and none of the caller's settings."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import settings as hypothesis_settings

from breakout_assets.store import Store
from breakout_assets_tests.postgresserver import PostgresServer, postgres
from breakout_assets_tests.s3server import BUCKET, ENVIRONMENT, seaweed

COMPILED_MODULES = ("breakout_assets.dataset.compiled", "breakout_assets.dataset.compiled_stationary")

# Examples are the same in every run, and a slow machine is no failure.
hypothesis_settings.register_profile("steady", derandomize=True, deadline=None)
hypothesis_settings.load_profile("steady")


@pytest.fixture(autouse=True)
def _no_settings_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in list(os.environ):
        if variable.startswith("BREAKOUT_") or variable == "DAGSTER_HOME":
            monkeypatch.delenv(variable)


@pytest.fixture
def nothing_compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Indicators are not compiled before a test, nor after it, where other tests would compute with them."""
    for name in COMPILED_MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield
    for name in COMPILED_MODULES:
        sys.modules.pop(name, None)


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


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A real PostgreSQL, for all tests of a process."""
    with postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty database that no other test uses; its password is where libpq looks for it."""
    monkeypatch.setenv("PGPASSWORD", postgres_server.password)
    with postgres_server.database() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def ledger_places(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], Path | str]]:
    """Makes places for new ledgers: folders, and then databases of PostgreSQL."""
    with ExitStack() as stack:
        if request.param == "sqlite":
            yield lambda: tmp_path / uuid4().hex
            return
        server: PostgresServer = request.getfixturevalue("postgres_server")
        monkeypatch.setenv("PGPASSWORD", server.password)
        yield lambda: stack.enter_context(server.database())


@pytest.fixture
def ledger_place(ledger_places: Callable[[], Path | str]) -> Path | str:
    """A place for a new ledger."""
    return ledger_places()
