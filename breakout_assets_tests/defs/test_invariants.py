"""What everything rests on, over the real graph: nothing looks ahead, everything can be made again."""

import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from breakout_assets.dataset.indicators import INDICATOR_COLUMNS
from breakout_assets.market.files import raw_bytes, read_raw
from breakout_assets_tests.defs.support import DATASET, HOURLY, World, day_keys, hour_keys
from breakout_assets_tests.samples import at

CUT = at("2024-04-16 05:00")
DERIVED = ("daily_snapshots", "labelled_dataset", "indicator_features", "token_model")
LIVE = ("market_health", "live_indicators", "predictions", "trade_orders")


def randomise_after(world: World, hour: pd.Timestamp, until: pd.Timestamp) -> int:
    """Replace every number of every raw snapshot after an hour by another one."""
    rng = np.random.default_rng(11)
    changed = 0
    for day in pd.date_range(hour.normalize(), until.normalize()):
        for file in world.store.raw_files(day.date()).values():
            if file.hour <= hour:
                continue
            frame = read_raw([file])
            numbers = frame.select_dtypes("float64").columns
            frame[numbers] = frame[numbers] * np.exp(rng.normal(0, 1, (len(frame), len(numbers))))
            world.store.write(file.path, raw_bytes(frame, "csv"))
            changed += 1
    return changed


def test_randomising_every_snapshot_after_an_hour_changes_no_byte_at_or_before_it(learned: World) -> None:
    world = learned
    hours = hour_keys(CUT - timedelta(hours=3), CUT)
    world.run(LIVE, hours)
    before = world.bytes_of(*DERIVED, *LIVE)
    assert randomise_after(world, pd.Timestamp(CUT), pd.Timestamp("2024-04-17")) == 18 + 24
    for asset in (*DERIVED, *LIVE):
        for file in (Path(str(world.store.root)) / asset).rglob("*.parquet"):
            file.unlink()
    world.ledger_file.unlink()
    world.days("daily_snapshots", date(2024, 3, 1), date(2024, 4, 17))
    # Labels of a day are closed five days later: those of 04-10 end at 04-15 23:00, before the cut.
    world.run(DATASET, day_keys(date(2024, 3, 1), date(2024, 4, 10)))
    tokens = world.instance.get_dynamic_partitions("tokens")
    world.run(["token_model"], tokens, {"ops": {"token_model": {"config": {"as_of": CUT.isoformat()}}}})
    world.run(LIVE, hours)
    after = world.bytes_of(*DERIVED, *LIVE)
    assert after.keys() == before.keys()
    differing = [name for name in before if before[name] != after[name]]
    # The day of the cut and the next hold hours after it.
    assert differing == ["daily_snapshots/2024/04/16.parquet", "daily_snapshots/2024/04/17.parquet"]
    rows = pd.read_parquet(Path(str(world.store.root)) / "predictions/2024/04/16/05.parquet")
    assert rows["probability"].notna().all()


def test_a_label_day_does_see_its_own_five_days(learned: World) -> None:
    """The counterpart of the test above: the harness would notice a future that matters."""
    before = learned.bytes_of("labelled_dataset")
    randomise_after(learned, pd.Timestamp("2024-04-14 12:00"), pd.Timestamp("2024-04-17"))
    learned.days("daily_snapshots", date(2024, 3, 1), date(2024, 4, 17))
    learned.run(DATASET, day_keys(date(2024, 3, 1), date(2024, 4, 10)))
    after = learned.bytes_of("labelled_dataset")
    assert [name for name in before if before[name] != after[name]] == [
        "labelled_dataset/2024/04/09.parquet",
        "labelled_dataset/2024/04/10.parquet",
    ]


@pytest.mark.parametrize("asset", DERIVED)
def test_a_partition_that_was_dropped_is_made_again_byte_for_byte(learned: World, asset: str) -> None:
    """Made alone, although the first time it was one of a range."""
    before = learned.bytes_of(asset)
    if asset == "token_model":
        keys = learned.instance.get_dynamic_partitions("tokens")[-1:]
        dropped = [name for name in before if f"/{keys[0]}/" in name]
    else:
        keys = ["2024-04-09"]
        dropped = [f"{asset}/2024/04/09.parquet"]
    assert dropped
    for name in dropped:
        (Path(str(learned.store.root)) / name).unlink()
    config = {"ops": {"token_model": {"config": {"as_of": "2024-04-16T00:00"}}}} if asset == "token_model" else None
    learned.run([asset], keys, config)
    assert learned.bytes_of(asset) == before


def test_a_raw_hour_that_was_dropped_is_collected_again_byte_for_byte(world: World) -> None:
    world.run(["hourly_snapshots"], hour_keys(CUT - timedelta(hours=3), CUT))
    before = world.bytes_of("cmc")
    assert len(before) == 4
    world.store.raw_path(CUT, "csv").unlink()
    world.run(["hourly_snapshots"], hour_keys(CUT, CUT))
    assert world.bytes_of("cmc") == before


def test_hours_are_made_again_byte_for_byte_and_trade_once(learned: World) -> None:
    keys = hour_keys(CUT, CUT + timedelta(hours=5))
    learned.run(HOURLY, keys)
    before = learned.bytes_of(*LIVE)
    orders = sum(len(pd.read_parquet(file)) for file in Path(str(learned.store.root)).glob("trade_orders/**/*.parquet"))
    assert orders > 0
    for name in before:
        (Path(str(learned.store.root)) / name).unlink()
    for key in keys:
        learned.run(LIVE, [key])
    assert learned.bytes_of(*LIVE) == before


def test_live_indicators_equal_the_training_rows_of_the_same_hour(learned: World) -> None:
    hours = [at("2024-03-02 07:00"), at("2024-04-03 00:00"), at("2024-04-10 23:00")]
    for hour in hours:
        learned.run(["live_indicators"], hour_keys(hour, hour))
        live = learned.store.read_table("live_indicators", [hour]).set_index("token")
        day = learned.store.read_table("indicator_features", [hour.date()])
        trained = day[day["timestamp"] == hour].set_index("token")
        assert len(trained) >= 3  # the others fail the published filters in that hour
        pd.testing.assert_frame_equal(
            live.loc[trained.index, list(INDICATOR_COLUMNS)],
            trained[list(INDICATOR_COLUMNS)],
            rtol=1e-9,
            atol=0,
        )


@pytest.mark.slow
def test_two_processes_on_the_same_hour_leave_one_consistent_result(learned: World, tmp_path: Path) -> None:
    hour = at("2024-04-16 07:00")
    path = learned.store.raw_path(hour, "csv")
    path.unlink()  # so that both want to write it
    script = (
        "import sys; from pathlib import Path; from breakout_assets_tests.defs.support import World, HOURLY; "
        f"w = World.at(Path({str(tmp_path / 'world')!r})); print('ready', flush=True); sys.stdin.readline(); "
        "r = w.run(HOURLY, ['2024-04-16-07:00'], must_succeed=False); print(r.success)"
    )
    racers = [
        subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for racer in racers:
        assert racer.stdout
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin
        racer.stdin.write("go\n")
        racer.stdin.flush()
    assert [racer.communicate()[0].strip() for racer in racers] == ["True", "True"]
    together = learned.bytes_of(*LIVE) | {"raw": path.read_bytes()}
    for name in learned.bytes_of(*LIVE):
        (Path(str(learned.store.root)) / name).unlink()
    learned.run(HOURLY, hour_keys(hour, hour))
    assert learned.bytes_of(*LIVE) | {"raw": path.read_bytes()} == together
    assert not list(Path(str(learned.store.root)).rglob("*.part"))
