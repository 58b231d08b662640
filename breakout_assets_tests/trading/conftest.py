"""With TEST_LEDGERS=postgres, every ledger of these tests that would be a file is a database of a real PostgreSQL."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from breakout_assets.trading.ledger import Ledger
from breakout_assets_tests.postgresserver import PostgresServer


@pytest.fixture(autouse=True)
def ledgers_in_postgres(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if os.environ.get("TEST_LEDGERS") != "postgres":
        yield
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    monkeypatch.setenv("PGPASSWORD", server.password)
    real = Ledger.__init__
    databases: dict[str, str] = {}
    with ExitStack() as stack:

        def init(ledger: Ledger, place: Path | str, password: Callable[[], str] = str) -> None:
            if "://" not in str(place):
                if str(place) not in databases:
                    databases[str(place)] = stack.enter_context(server.database())
                place = databases[str(place)]
            real(ledger, place, password)

        monkeypatch.setattr(Ledger, "__init__", init)
        yield
