"""A real daemon: schedule and sensor, killed without warning between ticks and started again."""

import subprocess
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa

from breakout_assets.defs.partitions import hour_key
from breakout_assets.defs.resources import build_resources
from breakout_assets.market.collect import collect
from breakout_assets.market.schema import HOUR
from breakout_assets.settings import load_settings
from breakout_assets.store import Store
from breakout_assets_tests.defs.processes import environment, home, instance_of, kill_group, started, tool, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TWIN = ["-m", "breakout_assets_tests.defs.twin"]
DAEMON = [tool("dagster-daemon"), "run", *TWIN]
# The sensor is off until somebody switches it on, here as a person would on the command line.
SENSOR_ON = [tool("dagster"), "sensor", "start", "snapshot_arrivals", *TWIN]


def traded(instance: dg.DagsterInstance) -> set[str]:
    return instance.get_materialized_partitions(dg.AssetKey("trade_orders"))


def runs_by_hour(instance: dg.DagsterInstance) -> Counter[str]:
    return Counter(run.tags["dagster/partition"] for run in instance.get_runs(dg.RunsFilter(job_name="hourly_job")))


def idle(instance: dg.DagsterInstance) -> bool:
    return all(run.is_finished for run in instance.get_runs())


@pytest.mark.long
def test_hours_are_traded_once_through_schedule_and_sensor_and_a_kill_in_between(tmp_path: Path) -> None:
    folder = home(tmp_path / "home")
    variables = {"STORE": str(tmp_path / "store"), "SIM_TOKENS": "3"}
    settings = load_settings({f"BREAKOUT_{name}": value for name, value in variables.items()})
    store = Store.at(settings.store)
    log = tmp_path / "daemon.log"
    began = datetime.now(UTC).replace(tzinfo=None, minute=0, second=0, microsecond=0)
    with instance_of(folder) as instance:
        subprocess.run(SENSOR_ON, env=environment(folder, **variables), cwd=tmp_path, check=True, capture_output=True)
        with started(DAEMON, environment(folder, **variables), tmp_path, log) as daemon:
            scheduled = {hour_key(began), hour_key(began - HOUR)}
            wait_until(lambda: scheduled <= traded(instance) and idle(instance), f"the schedule, see {log}", 240)
            kill_group(daemon)
        first = runs_by_hour(instance)
        # Meanwhile another collector delivers two hours, the later one first, and the clock goes on.
        late = [began - 4 * HOUR, began - 6 * HOUR]
        for hour in late:
            assert list(collect(store, build_resources(settings)["source"], [hour], "csv"))
        delivered = {hour_key(hour) for hour in late}
        with started(DAEMON, environment(folder, **variables), tmp_path, log):
            wait_until(lambda: delivered <= traded(instance) and idle(instance), f"the sensor, see {log}", 240)
            ticks = _ticks(instance)
            # Two more ticks of the schedule, which find nothing to do.
            wait_until(lambda: _ticks(instance) >= ticks + 2 and idle(instance), "two more ticks", 240)
        again = runs_by_hour(instance)
        assert {key: again[key] for key in first} == first, "an hour that was traded ran again after the kill"
        assert all(again[key] == 1 for key in delivered)
        assert all(run.status == dg.DagsterRunStatus.SUCCESS for run in instance.get_runs())
    _nothing_was_lost_or_doubled(Path(settings.ledger_place), store, began, late)


def _ticks(instance: dg.DagsterInstance) -> int:
    states = [state for state in instance.all_instigator_state() if state.name == "every_minute"]
    return sum(len(instance.get_ticks(state.instigator_origin_id, state.selector_id)) for state in states)


def _nothing_was_lost_or_doubled(ledger: Path, store: Store, began: datetime, late: list[datetime]) -> None:
    with sa.create_engine(f"sqlite:///{ledger}").connect() as connection:
        hours = Counter(row[0] for row in connection.execute(sa.text("SELECT hour FROM hours")))
    assert hours, "no hour was traded"
    assert set(hours.values()) == {1}
    for hour in late:  # data are refreshed, orders are refused
        assert len(store.read_table("live_indicators", [hour])) == 3
        assert store.read_table("trade_orders", [hour])["status"].tolist() == ["refused"]
    for hour in (began, began - timedelta(hours=1)):
        assert store.has_table("trade_orders", hour)
