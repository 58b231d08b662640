"""Bad input through the real graph: a clear error, nothing lost, and no order on data that are not believed."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from breakout_assets.clock import ReplayClock, SystemClock
from breakout_assets.defs.resources import build_resources
from breakout_assets_tests.defs.support import HOURLY, World, checks, failure, hour_keys
from breakout_assets_tests.samples import at, coin, put
from breakout_assets_tests.trading.mailserver import Inbox, serving

HOUR = at("2024-03-02 05:00")
KEY = "2024-03-02-05:00"


@pytest.fixture
def files(tmp_path: Path) -> World:
    """A world that fetches nothing."""
    return World.at(tmp_path, SOURCE="files")


def test_a_torn_file_fails_its_hour_by_path_and_the_other_hours_are_recorded(files: World) -> None:
    for hour in (4, 5, 6):
        put(files.store, HOUR.replace(hour=hour), [coin(1), coin(2)])
    torn = files.store.raw_path(HOUR, "csv")
    torn.write_bytes(torn.read_bytes()[:-10])
    result = files.run(["hourly_snapshots"], hour_keys(HOUR.replace(hour=4), HOUR.replace(hour=6)), must_succeed=False)
    assert not result.success
    assert "1 of 3 partitions" in failure(result)
    assert "2024/03/02/05/cmcdata.csv" in failure(result)
    import dagster as dg

    done = files.instance.get_materialized_partitions(dg.AssetKey("hourly_snapshots"))
    assert done == {"2024-03-02-04:00", "2024-03-02-06:00"}


@pytest.mark.parametrize("price", [0.0, -1.0, None])
def test_a_bad_price_fails_its_check_and_is_never_traded(files: World, price: float | None) -> None:
    put(files.store, HOUR, [coin(1), coin(2, price=price)])
    result = files.run(HOURLY, [KEY])
    assert not checks(result)["prices"]
    rows = files.store.read_table("predictions", [HOUR]).set_index("token")
    assert rows.loc["C2-2", "reason"] == "QUARANTINED"
    assert files.store.read_table("market_health", [HOUR])["state"].tolist() == ["HALTED"]


def test_a_coin_listed_twice_fails_its_check_and_counts_once(files: World) -> None:
    put(files.store, HOUR, [coin(n) for n in range(1, 21)] + [coin(7, price=1.0)])
    result = files.run(HOURLY, [KEY])
    failed = [found for found in result.get_asset_check_evaluations() if not found.passed]
    twice = [f"{found.asset_key.to_user_string()}: {found.check_name}" for found in failed]
    assert "hourly_snapshots: unique_keys" in twice
    assert not [name for name in twice if name.startswith(("predictions", "live_indicators", "trade_orders"))]
    assert files.store.read_table("predictions", [HOUR])["token"].value_counts().max() == 1
    live = files.store.read_table("live_indicators", [HOUR])
    assert live.loc[live["token"] == "C7-7", "quarantine"].fillna("").tolist() == ["", "DUPLICATE"]


def test_a_day_without_raw_files_is_refused_and_says_what_to_do(files: World) -> None:
    result = files.run(["daily_snapshots"], ["2024-03-02"], must_succeed=False)
    assert "import or collect the day" in failure(result)


def test_indicators_are_never_made_over_a_day_that_was_forgotten(files: World) -> None:
    for day in ("2024-03-01", "2024-03-02", "2024-03-07"):
        put(files.store, at(f"{day} 05:00"), [coin(1)])
    for day in ("2024-03-02", "2024-03-07"):
        files.run(["daily_snapshots"], [day])
    files.run(["labelled_dataset"], ["2024-03-02"])
    result = files.run(["indicator_features"], ["2024-03-02"], must_succeed=False)
    assert "daily_snapshots of 2024-03-01 is missing although" in failure(result)
    files.run(["daily_snapshots"], ["2024-03-01"])
    files.run(["indicator_features"], ["2024-03-02"])


def test_a_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "blocked").write_text("a file where the store should be")
    world = World.at(tmp_path, STORE=str(tmp_path / "blocked"), LEDGER=str(tmp_path / "ledger.sqlite"))
    result = world.run(["hourly_snapshots"], [KEY], must_succeed=False)
    assert not result.success
    assert "BREAKOUT_STORE" in failure(result)


def test_predictions_that_fail_their_checks_are_not_ordered_on(learned: World) -> None:
    hour = at("2024-04-16 05:00")
    learned.run(HOURLY[:-1], hour_keys(hour, hour))
    path = Path(str(learned.store.table_path("predictions", hour)))
    pd.read_parquet(path).assign(probability=1.5, decision="buy", threshold=0.6).to_parquet(path, index=False)
    result = learned.run(["trade_orders"], hour_keys(hour, hour), must_succeed=False)
    assert "nothing is ordered" in failure(result)
    assert not learned.ledger_file.exists()


def test_past_hours_never_trade_and_say_so(learned: World) -> None:
    hours = hour_keys(at("2024-04-16 01:00"), at("2024-04-16 06:00"))
    learned.run(HOURLY, hours, resources={"clock": SystemClock()})
    for hour in (at("2024-04-16 01:00"), at("2024-04-16 06:00")):
        orders = learned.store.read_table("trade_orders", [hour])
        assert orders["status"].tolist() == ["refused"]
        assert "past hours never trade" in orders["reason"].iloc[0]
    assert learned.store.read_table("predictions", [at("2024-04-16 06:00")])["probability"].notna().any()


@pytest.fixture
def mail_server() -> Iterator[tuple[Inbox, int]]:
    inbox = Inbox()
    with serving(inbox) as port:
        yield inbox, port


CLOCK = {"clock": ReplayClock()}  # a replay account mails nothing, so these hours are live ones


def mailing(world: World, port: int) -> World:
    variables = {"MAIL_HOST": "127.0.0.1", "MAIL_PORT": str(port), "MAIL_SECURITY": "none", "REPLAY": "false"}
    addresses = {"MAIL_FROM": "platform@example.com", "MAIL_TO": "me@example.com"}
    folder = Path(str(world.store.root)).parent
    return World.at(folder, world.instance, **variables, **addresses)


def hours_with_fills(world: World) -> list[str]:
    return hour_keys(at("2024-04-16 01:00"), at("2024-04-16 08:00"))


def test_what_happens_to_orders_is_one_mail_an_hour(learned: World, mail_server: tuple[Inbox, int]) -> None:
    inbox, port = mail_server
    world = mailing(learned, port)
    world.run(HOURLY, hours_with_fills(world), resources=CLOCK)
    rows = pd.concat(world.store.read_table("trade_orders", [at(f"2024-04-16 0{n}:00")]) for n in range(1, 9))
    assert (rows["status"] == "filled").any()
    hours = rows.loc[rows["order_id"].notna(), "timestamp"].nunique()
    assert len(inbox.received) == hours
    world.run(["trade_orders"], hours_with_fills(world), resources=CLOCK)
    assert len(inbox.received) == hours


def test_a_mail_server_that_is_down_fails_nothing_and_gets_the_mail_later(
    learned: World, mail_server: tuple[Inbox, int]
) -> None:
    from breakout_assets_tests.defs.processes import free_port

    inbox, port = mail_server
    down = mailing(learned, free_port())
    assert down.run(HOURLY, hours_with_fills(down), resources=CLOCK).success
    orders = down.bytes_of("trade_orders")
    up = mailing(learned, port)
    up.run(HOURLY, hour_keys(at("2024-04-16 09:00"), at("2024-04-16 09:00")), resources=CLOCK)
    assert inbox.received
    assert {name: data for name, data in up.bytes_of("trade_orders").items() if name in orders} == orders


def test_one_model_file_that_cannot_be_read_does_not_stop_the_others(learned: World) -> None:
    hour = at("2024-04-16 05:00")
    [damaged, *_] = sorted((Path(str(learned.store.root)) / "token_model" / "SIM001-900001").rglob("manifest.json"))
    damaged.write_text("{}")
    shutil.rmtree(str(learned.store.root / "serving"))  # as whoever touches a model file does
    assert learned.run(HOURLY, hour_keys(hour, hour)).success
    rows = learned.store.read_table("predictions", [hour]).set_index("token")
    assert rows.loc["SIM001-900001", "model_scope"] == "pooled"
    for manifest in (Path(str(learned.store.root)) / "token_model" / "ALL").rglob("manifest.json"):
        manifest.write_text("{}")
    shutil.rmtree(str(learned.store.root / "serving"))
    learned.run(["predictions"], hour_keys(hour, hour))
    rows = learned.store.read_table("predictions", [hour]).set_index("token")
    assert rows.loc["SIM001-900001", "reason"] == "MODEL_UNREADABLE"
    assert rows.loc["SIM002-900002", "model_scope"] == "token"


def test_a_replay_is_an_account_of_its_own_and_mails_nothing(tmp_path: Path) -> None:
    live = build_resources(mailing(World.at(tmp_path), 25).settings)["account"]
    replay = build_resources(mailing(World.at(tmp_path), 25).settings.model_copy(update={"replay": True}))["account"]
    assert (replay.name, replay.mail) == ("replay", None)
    assert live.name == "paper"
    assert live.mail is not None
