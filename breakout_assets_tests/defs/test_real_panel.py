"""The whole pipeline on half a year of real prices, where they lie beside the checkout."""

from datetime import date
from decimal import Decimal
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from breakout_assets.dataset.features import HISTORY_COLUMNS
from breakout_assets.dataset.indicators import INDICATOR_COLUMNS
from breakout_assets.defs.partitions import POOLED, TOKENS_NAME
from breakout_assets.learning.generations import generations
from breakout_assets.learning.model_files import load
from breakout_assets.learning.recipes import recipe
from breakout_assets.market.history import read_days
from breakout_assets.market.importing import import_panel
from breakout_assets.market.snapshots import believed
from breakout_assets_tests.dataset.reference import assert_equals_ta, assert_same_indicators, scales, window_of
from breakout_assets_tests.defs.support import DATASET, HOURLY, World, checks, day_keys, hour_keys
from breakout_assets_tests.samples import at, shared

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(1800)]

FIRST, LAST = date(2024, 1, 1), date(2024, 6, 30)
TRADED = (at("2024-06-29 00:00"), at("2024-06-30 23:00"))
AS_OF = "2024-06-28T23:00"


@pytest.fixture(scope="module")
def panel() -> pd.DataFrame:
    return pd.read_parquet(shared("hourly_panel.parquet"))


@pytest.fixture(scope="module")
def real(panel: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Imported, backfilled, trained and traded for two days; each step is one run."""
    folder = tmp_path_factory.mktemp("real")
    world = World.at(folder, dg.DagsterInstance.ephemeral(), SOURCE="files")
    report = import_panel(shared("hourly_panel.parquet"), world.store)
    assert (report.written, report.rows) == (4367, len(panel))
    assert "max_supply" in report.absent_columns
    world.days("daily_snapshots", FIRST, LAST)
    world.run(DATASET, day_keys(FIRST, LAST))
    tokens = world.instance.get_dynamic_partitions(TOKENS_NAME)
    trained = world.run(["token_model"], tokens, {"ops": {"token_model": {"config": {"as_of": AS_OF}}}})
    assert checks(trained) == {"metrics": True, "label_horizon_closed": True, "all_trained": True}
    world.run(HOURLY, hour_keys(*TRADED))
    return world


def labels(world: World, columns: list[str] | None = None) -> pd.DataFrame:
    return world.store.read_table("labelled_dataset", world.store.days_of("labelled_dataset"), columns)


def test_labels_equal_an_independent_computation_row_for_row(real: World, panel: pd.DataFrame) -> None:
    days = real.store.days_of("daily_snapshots")
    marked = real.store.read_table("daily_snapshots", days, ["symbol", "timestamp", "quarantine"])
    refused = marked[marked["quarantine"].notna()]
    assert set(refused["quarantine"]) <= {"STALE_PRICE", "STABLECOIN"}
    assert len(refused) <= 10, "the panel is clean: the gates may find next to nothing in it"
    index = panel.set_index(["symbol", "timestamp"]).index
    panel = panel[~index.isin(refused.set_index(["symbol", "timestamp"]).index)]
    prices = panel.set_index(["symbol", "timestamp"])["price"]
    rows = panel[
        (panel["percent_change_7d"] <= 1000) & (panel["volume_change_24h"] <= 1000) & (panel["cmc_rank"] <= 1000)
    ]
    later = prices.reindex(pd.MultiIndex.from_arrays([rows["symbol"], rows["timestamp"] + pd.Timedelta(days=5)]))
    change = (later.to_numpy() - rows["price"].to_numpy()) / rows["price"].to_numpy() * 100
    expected = rows[["symbol", "timestamp"]].assign(change=change)
    up = change > 10
    for n in np.flatnonzero(np.abs(change - 10) < 1e-6):  # decided in the prices' own decimal digits
        up[n] = Decimal(str(later.iloc[n])) > Decimal(str(rows["price"].iloc[n])) * Decimal("1.1")
    expected["y"] = pd.Series(up.astype(int), index=rows.index, dtype="Int8").mask(np.isnan(change))
    found = labels(real).sort_values(["symbol", "timestamp"], ignore_index=True)
    expected = expected.sort_values(["symbol", "timestamp"], ignore_index=True)
    assert len(found) == len(expected) > 160_000
    assert (found["symbol"] == expected["symbol"]).all()
    assert (found["timestamp"] == expected["timestamp"]).all()
    np.testing.assert_allclose(found["cal_price_change"], expected["change"], rtol=1e-12)
    pd.testing.assert_series_equal(found["y"], expected["y"], check_names=False)
    # The last 120 hours of 40 tokens have no future in the panel, less those that the filters leave out.
    assert 4000 < int((found["label_status"] == "censored").sum()) == int(np.isnan(change).sum()) <= 4800


def test_all_indicators_equal_ta_on_the_same_window(real: World) -> None:
    rng = np.random.default_rng(4)
    for day in [date(2024, 1, 9), date(2024, 3, 6), date(2024, 5, 17), date(2024, 6, 30)]:
        rows = real.store.read_table("indicator_features", [day])
        window_days = [d.date() for d in pd.date_range(pd.Timestamp(day) - pd.Timedelta(days=30), day)]
        market = believed(read_days(real.store, [d for d in window_days if d >= FIRST], HISTORY_COLUMNS))
        for position in rng.choice(len(rows), 40, replace=False):
            row = rows.iloc[position]
            assert_equals_ta(market, row)
            assert (
                row["volume"]
                == market[(market["token"] == row["token"]) & (market["timestamp"] == row["timestamp"])][
                    "volume"
                ].item()
            )  # the six other features are columns of the snapshot


def test_warm_ups_are_null_as_they_are_in_ta(real: World) -> None:
    rows = read_days(real.store, [date(2024, 3, 5), date(2024, 3, 6), date(2024, 3, 7)])
    wif = rows[rows["symbol"] == "WIF"].sort_values("timestamp")
    assert wif["timestamp"].iloc[0] == at("2024-03-05 15:00")
    real.run(["live_indicators"], ["2024-03-05-20:00"])
    live = real.store.read_table("live_indicators", [at("2024-03-05 20:00")])
    assert_equals_ta(rows, live[live["symbol"] == "WIF"].iloc[0])
    assert live.loc[live["symbol"] == "WIF", "MACD"].isna().all()
    assert live.loc[live["symbol"] == "SOL", "MACD"].notna().all()


def test_live_indicators_equal_the_training_rows(real: World) -> None:
    for hour in (at("2024-01-10 00:00"), at("2024-04-21 13:00"), at("2024-06-30 23:00")):
        real.run(["live_indicators"], hour_keys(hour, hour))
        live = real.store.read_table("live_indicators", [hour]).set_index("token")
        day = real.store.read_table("indicator_features", [hour.date()])
        trained = day[day["timestamp"] == hour].set_index("token")
        window_days = [d.date() for d in pd.date_range(pd.Timestamp(hour.date()) - pd.Timedelta(days=30), hour)]
        market = believed(read_days(real.store, [d for d in window_days if d >= FIRST], HISTORY_COLUMNS))
        assert len(trained) >= 30
        for token, row in trained.iterrows():
            scale = scales(window_of(market, str(token), pd.Timestamp(hour)))
            expected = {name: float(row[name]) for name in INDICATOR_COLUMNS}
            assert_same_indicators(live.loc[str(token)].to_dict(), expected, scale, 1e-9, f"{token} at {hour}")


def test_every_token_and_the_pool_have_a_model_that_knows_nothing_later(real: World) -> None:
    tokens = real.instance.get_dynamic_partitions(TOKENS_NAME)
    assert len(tokens) == 41
    assert tokens[0] == POOLED
    for token in tokens:
        [(until, folder)] = generations(real.store.model_folder(token), recipe("blog_fixed")).items()
        model = load(folder)
        assert until == model.trained_until <= at(AS_OF)
        assert 0 <= model.metrics.accuracy <= 1


def test_two_days_of_predictions_and_orders(real: World) -> None:
    hours = pd.date_range(*TRADED, freq="h").to_pydatetime().tolist()
    predicted = real.store.read_table("predictions", hours)
    assert len(predicted) == 48 * 40
    inside = predicted["reason"].isna()
    assert inside.mean() > 0.95
    assert set(predicted.loc[~inside, "reason"]) <= {"OUTSIDE_UNIVERSE", "TOO_LITTLE_HISTORY"}
    assert set(predicted.loc[inside, "model_scope"]) == {"token"}
    orders = real.store.read_table("trade_orders", hours)
    bought = predicted[predicted["decision"] == "buy"]
    submitted = orders[(orders["status"] == "submitted") & (orders["side"] == "buy")]
    assert (len(submitted) > 0) == (len(bought) > 0)
    wanted = set(zip(bought["token"], bought["timestamp"], strict=True))
    assert set(zip(submitted["token"], submitted["timestamp"], strict=True)) <= wanted
    filled = orders[orders["status"] == "filled"]
    assert (filled["filled_hour"] - filled["decided_hour"] == pd.Timedelta(hours=1)).all()


def test_nothing_but_the_panel_was_needed(real: World) -> None:
    root = Path(str(real.store.root))
    assert {path.name for path in root.iterdir()} == {
        "MARKET",
        "cmc",
        "tokens",
        "daily_snapshots",
        *DATASET,
        "token_model",
        "market_health",
        "live_indicators",
        "predictions",
        "trade_orders",
        "ledger.sqlite",
        "ledger.sqlite.trading-replay",  # the lock of its account
    }
