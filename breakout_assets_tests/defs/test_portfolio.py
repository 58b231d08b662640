"""The portfolio asset in the graph: its tables, what the UI shows, and its schedule."""

from io import BytesIO
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from breakout_assets import objects
from breakout_assets.defs.partitions import EVERYTHING, HOURS
from breakout_assets.defs.portfolio import PORTFOLIO_SCHEDULE, portfolio, portfolio_job
from breakout_assets.store import Store
from breakout_assets.trading.account import Account
from breakout_assets_tests.defs.support import failure
from breakout_assets_tests.trading import support

TRADE_ORDERS = dg.AssetSpec("trade_orders", partitions_def=HOURS)


@pytest.fixture
def ledger(tmp_path: Path) -> support.Account:
    return support.Account(tmp_path)


def materialise(ledger: support.Account, store: Store) -> dg.ExecuteInProcessResult:
    place = ledger.ledger.path
    assert place
    with dg.DagsterInstance.ephemeral() as instance:
        return dg.materialize(
            [portfolio, TRADE_ORDERS],
            instance=instance,
            resources={"store": store, "account": Account(place, ledger.rules)},
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            raise_on_error=False,
        )


def told(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    assert result.success
    [event] = result.get_asset_materialization_events()
    return {name: value.value for name, value in event.materialization.metadata.items()}


def tables(store: Store) -> dict[str, bytes]:
    paths = [file.path for file in objects.found_under(store.root / "portfolio")]
    return dict(zip([path.name for path in paths], objects.read_many(paths), strict=True))


def test_it_stands_in_the_graph_behind_all_hours_of_orders() -> None:
    definitions = dg.Definitions(
        assets=[portfolio, TRADE_ORDERS],
        jobs=[portfolio_job],
        schedules=[PORTFOLIO_SCHEDULE],
        resources={"store": None, "account": None},
    )
    node = definitions.resolve_asset_graph().get(dg.AssetKey("portfolio"))
    assert (node.group_name, node.partitions_def) == ("trading", None)
    assert {key.to_user_string() for key in node.parent_keys} == {"trade_orders"}
    assert set(node.partition_mappings.values()) == {EVERYTHING}
    for table in ("positions", "equity", "trades"):
        assert f"`portfolio/{table}.parquet`" in " ".join((node.description or "").split())
    assert node.owners
    assert node.kinds
    schedule = definitions.resolve_schedule_def("portfolio_schedule")
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("20 0 * * *", "UTC")
    job = definitions.resolve_job_def("portfolio_job")
    assert job.tags["breakout/loop"] == "learning"


def test_tables_figures_and_pictures_tell_of_the_newest_hour(ledger: support.Account, store: Store) -> None:
    ledger.trade(0, {"A": 0.8, "B": 0.7}, {"A": 10.0, "B": 5.0})
    ledger.trade(1, {}, {"A": 10.0, "B": 5.0})
    ledger.trade(2, {"C": 0.9}, {"A": 12.0, "B": 5.0, "C": 1.0})
    metadata = told(materialise(ledger, store))
    assert (metadata["account"], metadata["hour"]) == ("paper", "2024-03-01 02:00")
    assert (metadata["open_positions"], metadata["open_orders"], metadata["trades_closed"]) == (2, 1, 0)
    assert "mean_return_per_trade" not in metadata
    frames = {name: pd.read_parquet(BytesIO(data)) for name, data in tables(store).items()}
    assert {name: len(frame) for name, frame in frames.items()} == {
        "positions.parquet": 2,
        "equity.parquet": 3,
        "trades.parquet": 0,
    }
    assert metadata["equity_usd"] == pytest.approx(float(frames["equity.parquet"]["equity"].iloc[-1]), abs=0.01)
    lines = metadata["positions"].split("\n")
    assert lines[0] == "token|value, USD|profit, USD|age, h|planned exit"
    assert [line.split("|")[0] for line in lines[2:]] == ["A", "B"]  # the largest first
    [a, b] = frames["positions.parquet"].to_dict("records")
    assert lines[2] == f"A|{float(a['value']):.2f}|{float(a['profit']):.2f}|2|2024-03-06 00:00"
    assert lines[3] == f"B|{float(b['value']):.2f}|{float(b['profit']):.2f}|2|2024-03-06 00:00"
    for name in ("equity", "returns"):
        assert "](data:image/png;base64," in metadata[name]
    for name in ("positions", "equity", "trades"):
        assert metadata[f"{name}_path"] == str(store.root / "portfolio" / f"{name}.parquet")


def test_the_same_ledger_gives_the_same_bytes(ledger: support.Account, store: Store) -> None:
    for hour in range(3):
        ledger.trade(hour, {"A": 0.8}, {"A": 10.0 + hour})
    first, before = told(materialise(ledger, store)), tables(store)
    again = told(materialise(ledger, store))
    assert before == tables(store)
    assert first == again


def test_many_positions_stay_within_what_the_ui_shows_without_a_click(ledger: support.Account, store: Store) -> None:
    tokens = [f"TOKEN{number:02}-{number}" for number in range(20)]
    ledger.trade(0, dict.fromkeys(tokens, 0.8), dict.fromkeys(tokens, 10.0))
    ledger.trade(1, {}, dict.fromkeys(tokens, 10.0))
    metadata = told(materialise(ledger, store))
    assert metadata["open_positions"] == 20
    assert len(metadata["positions"]) < 1000
    assert len(metadata["positions"].split("\n")) > 12


def test_nothing_is_written_before_the_first_hour(ledger: support.Account, store: Store) -> None:
    result = materialise(ledger, store)
    assert not result.success
    assert "has not traded yet; materialise trade_orders" in failure(result)
    assert tables(store) == {}
