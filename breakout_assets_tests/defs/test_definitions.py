"""The graph as users script against it, and that loading it surprises nobody."""

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph

from breakout_assets.definitions import build_definitions, defs
from breakout_assets.defs.coverage import COVERAGE_CHECKS
from breakout_assets.defs.partitions import DAYS, HOURS, LABEL_DAYS, TOKENS
from breakout_assets.defs.resources import account
from breakout_assets.errors import SettingsError
from breakout_assets.market.tokens import assign_tokens, load_registry
from breakout_assets.settings import load_settings
from breakout_assets.store import Store
from breakout_assets.trading.dry_run import DryRun
from breakout_assets.trading.exchange import ExchangeBroker
from breakout_assets.trading.paper import PaperBroker
from breakout_assets.validation import CHECKS

# A public contract: name -> group, partitions, what it is made from.
GRAPH: dict[str, tuple[str, dg.PartitionsDefinition | None, set[str]]] = {
    "hourly_snapshots": ("market", HOURS, set()),
    "market_health": ("market", HOURS, {"hourly_snapshots"}),
    "daily_snapshots": ("market", DAYS, {"hourly_snapshots"}),
    "coverage": ("market", None, {"hourly_snapshots", "daily_snapshots"}),
    "labelled_dataset": ("dataset", LABEL_DAYS, {"daily_snapshots"}),
    "indicator_features": ("dataset", LABEL_DAYS, {"daily_snapshots", "labelled_dataset"}),
    "live_indicators": ("dataset", HOURS, {"hourly_snapshots"}),
    "token_model": ("models", TOKENS, {"indicator_features"}),
    "out_of_sample": ("evaluation", None, {"indicator_features", "daily_snapshots"}),
    "model_report": ("evaluation", None, {"out_of_sample", "indicator_features"}),
    "recipe_comparison": ("evaluation", None, {"indicator_features", "daily_snapshots"}),
    "predictions": ("models", HOURS, {"live_indicators", "token_model", "model_report"}),
    "model_monitoring": ("evaluation", None, {"predictions", "labelled_dataset", "indicator_features"}),
    "trade_orders": ("trading", HOURS, {"predictions", "market_health", "live_indicators"}),
    "portfolio": ("trading", None, {"trade_orders"}),
}


# What is no table: models and pages.
PAGES = ("token_model", "model_report", "recipe_comparison", "model_monitoring")


@pytest.fixture(scope="module")
def graph() -> AssetGraph:
    return build_definitions(load_settings({})).resolve_asset_graph()


def test_names_groups_partitions_and_lineage_are_the_contract(graph: AssetGraph) -> None:
    assert {key.to_user_string() for key in graph.get_all_asset_keys()} == set(GRAPH)
    for name, (group, partitions, parents) in GRAPH.items():
        node = graph.get(dg.AssetKey(name))
        assert node.group_name == group, name
        assert node.partitions_def == partitions, name
        assert {key.to_user_string() for key in node.parent_keys} == parents, name


def test_every_asset_says_what_a_row_is_who_owns_it_and_how_it_is_made(graph: AssetGraph) -> None:
    for name in GRAPH:
        node = graph.get(dg.AssetKey(name))
        assert "One row is" in (node.description or "") or name in PAGES, name
        assert node.owners
        assert node.kinds
        assert node.backfill_policy == dg.BackfillPolicy.single_run(), name


def test_the_simulated_market_says_so_on_every_asset_and_a_real_one_does_not(graph: AssetGraph) -> None:
    real = build_definitions(load_settings({"BREAKOUT_SOURCE": "files"})).resolve_asset_graph()
    for name in GRAPH:
        assert "SIMULATED MARKET" in (graph.get(dg.AssetKey(name)).description or "")
        assert "SIMULATED" not in (real.get(dg.AssetKey(name)).description or "")


def test_every_asset_has_its_checks(graph: AssetGraph) -> None:
    found: dict[str, set[str]] = {}
    for key in graph.asset_check_keys:
        found.setdefault(key.asset_key.to_user_string(), set()).add(key.name)
    expected = {name: set(checks) for name, checks in CHECKS.items()}
    expected["hourly_snapshots"].add("newest_hour_present")
    expected["coverage"] = set(COVERAGE_CHECKS)
    assert found == expected
    assert set(found) == set(GRAPH) - {"recipe_comparison", "portfolio"}  # they show and judge nothing


def test_jobs_schedules_and_sensors() -> None:
    repository = defs().get_repository_def()
    jobs = {name for name in repository.job_names if not name.startswith("__")}
    assert jobs == {
        *("hourly_job", "exits_job", "daily_snapshots_job", "dataset_job", "coverage_job", "training_job"),
        *("evaluation_job", "monitoring_job", "portfolio_job", "retention_job"),
        *("halt_trading", "resume_trading"),
    }
    assert {(s.name, s.cron_schedule, s.execution_timezone) for s in repository.schedule_defs} == {
        ("hourly_schedule", "5,20,35,50 * * * *", "UTC"),
        ("exits_schedule", "57 * * * *", "UTC"),
        ("daily_snapshots_schedule", "20 * * * *", "UTC"),
        ("dataset_schedule", "40 * * * *", "UTC"),
        ("coverage_schedule", "50 0 * * *", "UTC"),
        ("training_schedule", "0 3 * * 0", "UTC"),
        ("evaluation_schedule", "0 4 * * 0", "UTC"),
        ("portfolio_schedule", "20 0 * * *", "UTC"),
        ("monitoring_schedule", "10 1 * * *", "UTC"),
        ("retention_schedule", "10 2 * * *", "UTC"),
    }
    assert {sensor.name for sensor in repository.sensor_defs} == {
        "snapshot_arrivals",
        "data_alerts",
        "model_alerts",
        "run_failures",
        "mail_delivery",
    }


LOAD_WITHOUT_THE_WORLD = """
import socket

def refuse(*args, **kwargs):
    raise AssertionError("loading the definitions touches the network")

socket.socket.connect = refuse
socket.create_connection = refuse
socket.getaddrinfo = refuse

from breakout_assets import settings
def read_secret(name):
    raise AssertionError(f"loading the definitions reads the secret {name}")
settings.read_secret = read_secret
from breakout_assets.definitions import defs
assert defs().get_repository_def().job_names
print("loaded")
"""


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"BREAKOUT_SOURCE": "coinmarketcap", "BREAKOUT_CMC_API_KEY": "hush"},
        {"BREAKOUT_STORE": "s3://no-such-bucket/prefix", "BREAKOUT_LEDGER": "x.sqlite", "BREAKOUT_SOURCE": "files"},
        {
            "BREAKOUT_MAIL_HOST": "mail.invalid",
            "BREAKOUT_MAIL_FROM": "a@example.com",
            "BREAKOUT_MAIL_TO": "b@example.com",
            "BREAKOUT_MAIL_PASSWORD": "hush",
        },
    ],
)
def test_loading_touches_no_network_and_no_secret_and_writes_nothing(variables: dict[str, str], tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-c", LOAD_WITHOUT_THE_WORLD],
        env={**os.environ, **variables, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stdout.strip() == "loaded", found.stderr
    assert "hush" not in found.stderr + found.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_setting_stops_the_load_with_its_name(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-c", "from breakout_assets.definitions import defs; defs()"],
        env={**os.environ, "BREAKOUT_SIM_TOKENS": "none", "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "BREAKOUT_SIM_TOKENS='none' is not possible" in found.stderr


EXCHANGE = {"BROKER": "exchange", "VENUE": "binance", "PAIRS": "pairs.csv", "SOURCE": "files"}


def broker_of(folder: Path, **variables: str) -> tuple[str, object]:
    """Account and broker of these settings, with a map of one pair."""
    (folder / "pairs.csv").write_text("pair,id,symbol,name\nSOL/USDT,5426,SOL,Solana\n")
    store = Store.at(str(folder / "store"))
    listed = pd.DataFrame(
        {"id": [5426], "symbol": ["SOL"], "name": ["Solana"], "timestamp": [pd.Timestamp("2024-03-01")]}
    )
    assign_tokens(store, load_registry(store), listed.astype({"id": "Int64"}))
    given = {"STORE": str(folder / "store"), **variables}
    if "PAIRS" in given:
        given["PAIRS"] = str(folder / given["PAIRS"])
    trader = account(load_settings({f"BREAKOUT_{name}": value for name, value in given.items()}))
    return trader.name, trader.open_broker(trader.open_ledger())


def test_without_settings_that_say_otherwise_nothing_that_could_reach_a_venue_is_built(tmp_path: Path) -> None:
    name, broker = broker_of(tmp_path)
    assert (name, type(broker)) == ("paper", PaperBroker)
    name, broker = broker_of(tmp_path, REPLAY="true")
    assert (name, type(broker)) == ("replay", PaperBroker)


def test_an_exchange_is_a_dry_run_until_it_is_named_twice(tmp_path: Path) -> None:
    name, broker = broker_of(tmp_path, **EXCHANGE)
    assert (name, type(broker)) == ("dry-binance", DryRun)
    name, broker = broker_of(tmp_path, **EXCHANGE, LIVE_ORDERS="binance")
    assert (name, type(broker)) == ("live-binance", ExchangeBroker)
    name, broker = broker_of(tmp_path, **EXCHANGE, LIVE_ORDERS="binance", SANDBOX="true")
    assert (name, type(broker)) == ("sandbox-binance", ExchangeBroker)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"VENUE": ""}, "BREAKOUT_VENUE and BREAKOUT_PAIRS must be set"),
        ({"PAIRS": ""}, "BREAKOUT_VENUE and BREAKOUT_PAIRS must be set"),
        ({"SOURCE": "simulated"}, "needs real prices of now"),
        ({"REPLAY": "true"}, "needs real prices of now"),
        ({"LIVE_ORDERS": "true"}, "^BREAKOUT_LIVE_ORDERS=true must be empty, .* or binance as in BREAKOUT_VENUE"),
        ({"LIVE_ORDERS": "binance", "TRADE_WITHOUT_EVIDENCE": "true"}, "real money needs evidence"),
        ({"BROKER": "paper", "LIVE_ORDERS": "binance"}, "BREAKOUT_BROKER is paper"),
    ],
)
def test_what_must_not_reach_an_exchange_is_refused(changes: dict[str, str], said: str) -> None:
    given = {name: value for name, value in (EXCHANGE | changes).items() if value}
    with pytest.raises(SettingsError, match=said):
        load_settings({f"BREAKOUT_{name}": value for name, value in given.items()})


def test_workspace_names_the_code_location() -> None:
    text = (Path(__file__).resolve().parents[2] / "workspace.yaml").read_text()
    assert "breakout_assets.definitions" in text
