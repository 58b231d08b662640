"""The listing as an asset: what the UI is told of a fetch, and that the key is nowhere but in the request."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from breakout_assets.defs.partitions import hour_key
from breakout_assets_tests.defs.support import World, failure
from breakout_assets_tests.market.listingserver import INFO_PATH, KEY, FakeApi, error_body, key_info, listing, serving

# A live listing knows the real present only.
NOW = datetime.now(UTC).replace(tzinfo=None)
HOUR = NOW.replace(minute=0, second=0, microsecond=0)


@pytest.fixture(scope="module")
def api() -> Iterator[FakeApi]:
    with serving() as fake:
        yield fake


@pytest.fixture
def world(tmp_path: Path, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(dg.RetryPolicy, "calculate_delay", lambda self, attempt: 0.0)
    monkeypatch.setenv("BREAKOUT_CMC_API_KEY", KEY)
    (tmp_path / "instance").mkdir()
    variables = {"SOURCE": "coinmarketcap", "CMC_URL": api.url, "CMC_LIMIT": "3", "CMC_MONTHLY_BUDGET": "9000"}
    with dg.DagsterInstance.local_temp(str(tmp_path / "instance")) as instance:
        yield World.at(tmp_path, instance, REPLAY="false", CMC_FOLLOW="false", **variables)


def fresh(**status: Any) -> dict[str, Any]:
    stamp = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}.000Z"
    body = listing(3, timestamp=stamp, **status)
    for coin in body["data"]:
        coin["quote"][1]["last_updated"] = stamp
    return body


def collect(world: World, hour: datetime = HOUR) -> dg.ExecuteInProcessResult:
    return world.run(["hourly_snapshots"], [hour_key(hour)], must_succeed=False)


def assert_nowhere(key: str, folder: Path) -> None:
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert len(files) > 3
    for file in files:
        assert key.encode() not in file.read_bytes().lower(), f"{file} holds the key"


def skip_at_the_end_of_an_hour() -> None:
    if datetime.now(UTC).replace(tzinfo=None) >= HOUR + timedelta(hours=1):
        pytest.skip("the hour that this module began in is over; a live listing has no past")


def test_the_ui_is_told_credits_budget_and_source(world: World, api: FakeApi, tmp_path: Path) -> None:
    skip_at_the_end_of_an_hour()
    api.plays(fresh(credit_count=7, notice="almost spent"))
    api.then(key_info(used=100), at=INFO_PATH)
    result = collect(world)
    assert result.success
    record = world.instance.fetch_materializations(dg.AssetKey("hourly_snapshots"), limit=1).records[0]
    assert record.asset_materialization
    told = {name: value.value for name, value in record.asset_materialization.metadata.items()}
    assert told["fetch/credits"] == 7
    assert told["fetch/notice"] == "almost spent"
    assert told["fetch/credits_used_this_month"] == 100
    assert told["fetch/credits_budget"] == 9000
    assert told["fetch/access"] == "key"
    assert told["origins"] == {"cmc": 3}
    assert str(told["source"]).startswith("CoinMarketCap http://127.0.0.1")
    assert_nowhere(KEY.lower(), tmp_path)


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, error_body(1001, f"the key {KEY} is invalid"), "BREAKOUT_CMC_API_KEY"),
        (403, error_body(1006, f"{KEY}"), "plan"),
        (429, error_body(1010, f"{KEY.upper()} is over its limit"), "month"),
        (200, f"<html>{KEY}</html>".encode(), "JSON"),
    ],
)
def test_no_error_shows_the_key_and_no_hour_is_recorded(
    world: World, api: FakeApi, tmp_path: Path, status: int, body: Any, words: str
) -> None:
    skip_at_the_end_of_an_hour()
    api.plays(body, status)
    api.then(key_info(used=100), at=INFO_PATH)
    result = collect(world)
    assert not result.success
    [event] = [event for event in result.all_events if event.is_step_failure]
    assert words in failure(result)
    assert KEY.lower() not in str(event).lower()
    assert not world.instance.get_materialized_partitions(dg.AssetKey("hourly_snapshots"))
    assert world.store.raw_file(HOUR) is None
    assert_nowhere(KEY.lower(), tmp_path)


def test_the_budget_stops_before_the_month_is_spent(world: World, api: FakeApi) -> None:
    skip_at_the_end_of_an_hour()
    api.plays(fresh())
    api.then(key_info(used=9000), at=INFO_PATH)
    result = collect(world)
    assert not result.success
    assert "9000" in failure(result).replace(",", "")
    assert api.paths() == [INFO_PATH], "nothing was bought"


def test_a_past_hour_fails_at_once_and_says_so(world: World, api: FakeApi) -> None:
    api.plays(fresh())
    result = collect(world, HOUR - timedelta(hours=5))
    assert not result.success
    assert "is over" in failure(result)
    assert api.requests == []
