"""Orders through the graph: past hours, replay, the kill switch, and the way from an order back to its bytes."""

import json
import shutil
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from breakout_assets.__main__ import main
from breakout_assets.defs.kill_switch import halt_trading, resume_trading
from breakout_assets.defs.partitions import hour_key
from breakout_assets.defs.resources import account
from breakout_assets.defs.trading import _rehearsed
from breakout_assets.market.schema import hours_between
from breakout_assets.trading.dry_run import DryRun
from breakout_assets.trading.exchange import ExchangeBroker
from breakout_assets.trading.exchange_client import ExchangeSettings, Secrets
from breakout_assets.trading.explain import explain
from breakout_assets.trading.ledger import Ledger
from breakout_assets.trading.paper import PaperBroker
from breakout_assets.trading.rules import TradingRules
from breakout_assets.trading.venues import Pair
from breakout_assets_tests.defs.support import World, hour_keys
from breakout_assets_tests.samples import at
from breakout_assets_tests.trading.broker_contract import buy

# The models know what was known on the 16th; before it there are none to decide by.
FIRST, LAST = at("2024-04-16 00:00"), at("2024-04-17 23:00")
HOURS = hours_between(FIRST, LAST)
DECIDING = ("market_health", "live_indicators", "predictions")
# Exits within two days: five are too many to predict for in a test.
EARLY_EXITS = {"TAKE_PROFIT": "0.01", "STOP_LOSS": "0.01", "COOLDOWN": "3"}


@pytest.fixture(scope="module")
def predicted_folder(learned_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predicted") / "world"
    shutil.copytree(learned_folder, folder)
    World.at(folder).run(DECIDING, hour_keys(FIRST, LAST))
    return folder


@pytest.fixture
def predicted(predicted_folder: Path, tmp_path: Path) -> World:
    """Two days that are predicted and not traded yet."""
    shutil.copytree(predicted_folder, tmp_path / "world")
    return World.at(tmp_path / "world", None, **EARLY_EXITS)


def as_it_happens(world: World) -> World:
    """The same world without replay: hours are traded when they are, and refused afterwards."""
    return World.at(Path(world.settings.store).parent, world.instance, REPLAY="false", **EARLY_EXITS)


@dataclass(frozen=True)
class At:
    """A clock that stands five minutes after an hour began."""

    hour: datetime

    def now(self, hour: datetime) -> datetime:
        return self.hour + timedelta(minutes=5)


def orders_of(world: World, hours: list[datetime]) -> pd.DataFrame:
    return world.store.read_table("trade_orders", hours)


def test_a_backfill_of_a_hundred_past_hours_places_nothing_and_says_why_in_each(predicted: World) -> None:
    keys = hour_keys(LAST - timedelta(hours=99), LAST)
    for hour in hours_between(LAST - timedelta(hours=99), FIRST - timedelta(hours=1)):
        for table in DECIDING:  # what another hour has serves: nothing of it is looked at
            rows = predicted.store.read_table(table, [FIRST])
            predicted.store.write_table(table, hour, rows.assign(timestamp=hour))
    real = as_it_happens(predicted)
    real.run(["trade_orders"], keys)
    rows = orders_of(real, hours_between(LAST - timedelta(hours=99), LAST))
    assert len(rows) == 100
    assert set(rows["status"]) == {"refused"}
    assert rows["order_id"].isna().all()
    assert rows["reason"].str.contains("older than 2 hours").all()
    with account(real.settings).open_ledger().read("paper") as books:
        assert books.orders(LAST) == []
        assert books.newest_hour() is None


def test_two_days_traded_hour_by_hour_equal_the_same_days_replayed_in_one_go(predicted: World) -> None:
    predicted.run(["trade_orders"], hour_keys(FIRST, LAST))
    replayed = orders_of(predicted, HOURS).drop(columns="order_id")  # ids begin with the account's name
    assert {"submitted", "filled"} <= set(replayed["status"])
    assert {"buy", "sell"} <= set(replayed["side"])
    live = as_it_happens(predicted)
    for hour in HOURS:
        live.run(["trade_orders"], hour_keys(hour, hour), resources={"clock": At(hour)})
    pd.testing.assert_frame_equal(orders_of(live, HOURS).drop(columns="order_id"), replayed)


def test_the_kill_switch_is_pulled_in_the_ui_and_on_the_command_line(
    predicted: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = HOURS[:24], HOURS[24:]
    resources = {"account": account(predicted.settings)}
    config = {"ops": {"halt": {"config": {"by": "Ann", "reason": "the exchange is down"}}}}
    assert halt_trading.execute_in_process(run_config=config, resources=resources, instance=predicted.instance).success
    predicted.run(["trade_orders"], hour_keys(first[0], first[-1]))
    rows = orders_of(predicted, first)
    assert len(rows) > 0
    assert rows["reason"].str.contains("halted by Ann at .*: the exchange is down").all()
    monkeypatch.setenv("BREAKOUT_STORE", predicted.settings.store)
    monkeypatch.setenv("BREAKOUT_REPLAY", "true")
    assert main(["resume", "--by", "Ben", "--reason", "it is up again"]) == 0
    assert "resume by Ben" in capsys.readouterr().out
    assert main(["resume", "--by", "Ben", "--reason", "once more"]) == 1
    assert "is not halted" in capsys.readouterr().err
    assert main(["accept", "--plan", "--by", "Ben", "--reason", "I look"]) == 0
    assert "venue and ledger agree" in capsys.readouterr().out
    refused = resume_trading.execute_in_process(
        run_config={"ops": {"resume": {"config": {"by": "Ben", "reason": "once more"}}}},
        resources=resources,
        instance=predicted.instance,
        raise_on_error=False,
    )
    assert not refused.success
    predicted.run(["trade_orders"], hour_keys(second[0], second[-1]))
    assert "submitted" in set(orders_of(predicted, second)["status"])


def test_an_order_leads_back_to_its_bytes_and_its_decision_can_be_made_again(
    predicted: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    predicted.run(["trade_orders"], hour_keys(FIRST, LAST))
    rows = orders_of(predicted, HOURS)
    order = rows[rows["status"] == "submitted"].iloc[0]
    monkeypatch.setenv("BREAKOUT_STORE", predicted.settings.store)
    monkeypatch.setenv("BREAKOUT_REPLAY", "true")
    monkeypatch.setenv("COLUMNS", "250")
    assert main(["explain", order["order_id"][:12]]) == 0
    said = capsys.readouterr().out
    raw = predicted.store.raw_file(order["timestamp"].to_pydatetime())
    assert raw is not None
    for part in (order["order_id"], order["model_hash"], raw.path.name, "unchanged"):
        assert part in said
    assert "The model gives the same score today: yes" in said
    assert "The decision, made once more, is the same: yes" in said
    # Predictions that were changed afterwards are noticed.
    path = Path(str(predicted.store.table_path("predictions", order["timestamp"].to_pydatetime())))
    frame = pd.read_parquet(path)
    frame.assign(probability=0.99).to_parquet(path)
    assert main(["explain", order["order_id"]]) == 0
    said = capsys.readouterr().out
    assert "changed" in said
    assert "The decision, made once more, is the same: cannot be tried" in said
    assert main(["explain", "zzz"]) == 1
    assert "there is no such order" in capsys.readouterr().err


def test_every_decision_can_be_made_again(predicted: World) -> None:
    predicted.run(["trade_orders"], hour_keys(FIRST, LAST))
    rows = orders_of(predicted, HOURS)
    ids = rows.loc[rows["status"] == "submitted", "order_id"]
    ledger = account(predicted.settings).open_ledger()
    found = [explain(ledger, predicted.store, each) for each in ids]
    assert {each.order.purpose for each in found} == {"entry", "exit"}
    assert [each.differences for each in found] == [()] * len(found)
    assert {each.same_score for each in found if each.order.purpose == "entry"} == {True}
    # Another rule would have decided otherwise: the proof is no tautology.
    with ledger.write("replay") as books:
        hours = books.connection.exec_driver_sql("SELECT hour, rules FROM hours").all()
        for hour, rules in hours:
            smaller = json.dumps(json.loads(rules) | {"order_fraction": "0.01"})
            books.connection.exec_driver_sql("UPDATE hours SET rules = ? WHERE hour = ?", (smaller, hour))
    changed = [explain(ledger, predicted.store, each.order.order_id) for each in found if each.order.purpose == "entry"]
    assert {each.same_decision for each in changed} == {False}


def test_a_run_that_fails_leaves_no_hour_half_traded(predicted: World) -> None:
    key = hour_keys(FIRST, FIRST)
    predictions = predicted.store.table_path("predictions", FIRST)
    frame = predicted.store.read_table("predictions", [FIRST])
    predicted.store.write_table("predictions", FIRST, pd.concat([frame, frame.iloc[:1]]))
    result = predicted.run(["trade_orders"], key, must_succeed=False)
    assert not result.success
    assert isinstance(result, dg.ExecuteInProcessResult)
    with account(predicted.settings).open_ledger().read("replay") as books:
        assert books.newest_hour() is None
    assert predictions.exists()


def test_the_job_for_exits_buys_nothing_whatever_data_there_are(predicted: World) -> None:
    predicted.run(["trade_orders"], hour_keys(FIRST, LAST))
    bought = orders_of(predicted, HOURS)
    hour = (
        bought.loc[(bought["status"] == "submitted") & (bought["side"] == "buy"), "timestamp"].iloc[0].to_pydatetime()
    )
    Path(f"{account(predicted.settings).ledger_place}").unlink()
    job = predicted.definitions.resolve_job_def("exits_job")
    assert job.execute_in_process(instance=predicted.instance, partition_key=hour_key(hour)).success
    rows = orders_of(predicted, [hour])
    assert set(rows["status"]) == {"refused"}
    assert rows["reason"].str.contains("exits_job buys nothing").all()


def test_what_a_dry_run_would_have_sent_is_shown_once_and_paper_shows_nothing(tmp_path: Path) -> None:
    paper = PaperBroker(Ledger(tmp_path / "ledger.sqlite"), "paper", TradingRules())
    settings = ExchangeSettings(venue="binance", pairs=(Pair(buy().token, "SOL/USDT"),), sandbox=False)
    dry = DryRun(ExchangeBroker(settings, lambda: Secrets("", "")), paper)
    for number in (1, 2):
        dry.place(buy(number))
    shown = _rehearsed(dry)["would_send"]
    assert isinstance(shown, dg.MarkdownMetadataValue)
    line = f"- would buy 2.5 SOL/USDT at most 151.2 on binance (client id {buy(1).order_id})"
    assert (shown.value or "").split("\n") == [line, line.replace(buy(1).order_id, buy(2).order_id)]
    assert _rehearsed(dry) == _rehearsed(paper) == {}


LONG = [pytest.mark.slow, pytest.mark.long]


@pytest.mark.parametrize(
    "fault", ["faulty", "nothing", pytest.param("missing", marks=LONG), pytest.param("no prices", marks=LONG)]
)
def test_what_is_held_is_sold_although_the_data_of_the_hour_are_missing_or_faulty(predicted: World, fault: str) -> None:
    def exits(hour: datetime) -> dg.ExecuteInProcessResult:
        job = predicted.definitions.resolve_job_def("exits_job")
        return job.execute_in_process(instance=predicted.instance, partition_key=hour_key(hour))

    predicted = World.at(Path(predicted.settings.store).parent, predicted.instance)  # without early exits
    predicted.run(["trade_orders"], hour_keys(FIRST, HOURS[23]))
    hour, ledger = HOURS[24], account(predicted.settings).open_ledger()
    with ledger.read("replay") as books:
        before = books.portfolio(HOURS[23], Decimal(0))
    assert before.positions
    path = predicted.store.table_path("predictions", hour)
    if fault == "faulty":
        frame = predicted.store.read_table("predictions", [hour])
        predicted.store.write_table("predictions", hour, pd.concat([frame, frame.iloc[:1]]))
    else:
        gone = {"missing": [path], "no prices": [predicted.store.table_path("live_indicators", hour)]}
        for each in gone.get(fault, [predicted.store.table_path(table, hour) for table in DECIDING]):
            each.unlink()
    assert not predicted.run(["trade_orders"], hour_keys(hour, hour), must_succeed=False).success
    # Five days on they are due, whatever is known.
    due = before.positions[0].decided_hour + timedelta(hours=120)
    for table in DECIDING:
        if (source := predicted.store.table_path(table, hour)).exists():
            predicted.store.write_table(table, due, predicted.store.read_table(table, [hour]).assign(timestamp=due))
            assert source.exists()
    assert exits(due).success
    rows = orders_of(predicted, [due])
    sold = rows[rows["status"] == "submitted"]
    assert set(sold["side"]) == {"sell"}
    assert before.positions[0].token in set(sold["token"])
    with ledger.read("replay") as books:
        record = books.record(due)
    assert record is not None
    assert record.health == ("ACTIVE" if fault in ("missing", "faulty") else "HALTED")
    assert ("are faulty" if fault == "faulty" else "are missing") in str(record.blocks)
    found = [explain(ledger, predicted.store, each) for each in sold["order_id"]]
    assert [each.differences for each in found] == [()] * len(found)
