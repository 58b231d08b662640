"""Each check of every asset, made to fail once."""

from collections.abc import Callable
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from breakout_assets.dataset.features import with_indicators
from breakout_assets.dataset.labels import SEGMENT_COLUMNS, label_rows
from breakout_assets.market.health import Health, HealthState
from breakout_assets.market.history import compact_day, day_bounds
from breakout_assets.market.tokens import load_registry
from breakout_assets.store import Store
from breakout_assets.tables import TRADE_ORDERS, conform
from breakout_assets.validation import (
    CHECKS,
    Findings,
    check_day,
    check_health,
    check_indicators,
    check_labels,
    check_model,
    check_newest_hour,
    check_orders,
    check_out_of_sample,
    check_predictions,
    check_snapshot,
)
from breakout_assets_tests.samples import at, coin, put

HOUR = at("2024-03-01 05:00")
Change = Callable[[pd.DataFrame], pd.DataFrame]


@pytest.fixture(scope="module")
def market_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Six days of a coin that hardly moves and one that rises."""
    store = Store.at(str(tmp_path_factory.mktemp("market")))
    for n in range(24 * 6):
        put(
            store,
            at("2024-03-01 00:00") + timedelta(hours=n),
            [coin(1, price=10 + n / 2000), coin(2, price=20 * 1.01**n)],
        )
    return store


@pytest.fixture
def day(market_store: Store) -> tuple[pd.DataFrame, list[datetime]]:
    found = compact_day(market_store, load_registry(market_store), HOUR.date())
    return found.rows, found.hours


@pytest.fixture
def labelled(market_store: Store) -> pd.DataFrame:
    registry = load_registry(market_store)
    rows = pd.concat(compact_day(market_store, registry, HOUR.date() + timedelta(days=n)).rows for n in (0, 5))
    return label_rows(rows, rows[list(SEGMENT_COLUMNS)], *day_bounds(HOUR.date()))


def at_row(column: str, value: str | float | datetime | None, row: int = 0) -> Change:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        changed = frame.copy()
        changed.loc[changed.index[row], column] = value
        return changed

    return change


def twice(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([frame, frame.iloc[:1]], ignore_index=True)


def test_a_good_snapshot_passes_and_each_check_of_it_can_fail(day: tuple[pd.DataFrame, list[datetime]]) -> None:
    rows, _ = day
    hour = rows[rows["timestamp"] == HOUR].reset_index(drop=True)
    assert check_snapshot(hour, 2.0) == {}
    assert check_snapshot(hour, None) == {}
    found = {
        **check_snapshot(hour, 3.0),
        **check_snapshot(at_row("quarantine", "DUPLICATE")(hour), None),
        **check_snapshot(at_row("quarantine", "PRICE_MISSING")(hour), None),
    }
    assert set(found) == set(CHECKS["hourly_snapshots"])
    assert "C1-1" in found["prices"]


def test_the_newest_hour_is_due_a_quarter_past() -> None:
    now = at("2024-03-01 05:14")
    assert check_newest_hour(at("2024-03-01 04:00"), now) == {}
    assert set(check_newest_hour(at("2024-03-01 04:00"), now + timedelta(minutes=1))) == {"newest_hour_present"}
    assert set(check_newest_hour(None, now)) == {"newest_hour_present"}


def test_health_needs_a_known_state_and_a_reason() -> None:
    good = Health(HealthState.ACTIVE, (), 3, 3.0, 0.0, 0.0, 0, 720).frame(HOUR)
    assert check_health(good) == {}
    assert set(check_health(good.assign(state="FINE"))) == {"state"} == set(CHECKS["market_health"])
    assert set(check_health(good.assign(state="HALTED"))) == {"state"}


@pytest.mark.parametrize(
    ("check", "change"),
    [
        ("unique_keys", twice),
        ("nulls", at_row("symbol", None)),
        ("nulls", at_row("timestamp", at("2024-03-02 00:00"))),
        ("prices", at_row("price", 0.0)),
        ("prices", at_row("price", np.nan)),
    ],
)
def test_each_check_of_a_day_can_fail(day: tuple[pd.DataFrame, list[datetime]], check: str, change: Change) -> None:
    rows, hours = day
    assert check_day(rows, hours) == {}
    assert set(check_day(change(rows), hours)) == {check}


def test_a_missing_hour_fails_its_check_by_name(day: tuple[pd.DataFrame, list[datetime]]) -> None:
    rows, hours = day
    assert check_day(rows, [hour for hour in hours if hour.hour != 7]) == {
        "hours_complete": "no snapshot of the hours 07"
    }
    assert set(CHECKS["daily_snapshots"]) == {"hours_complete", "unique_keys", "nulls", "prices"}


@pytest.mark.parametrize(
    ("check", "change"),
    [
        ("row_count", lambda frame: frame.iloc[:0]),
        ("unique_keys", twice),
        ("label_horizon_closed", at_row("label_end", HOUR + timedelta(hours=119))),
        ("label_horizon_closed", at_row("label_status", "censored")),
        ("label_values", at_row("y", 1)),
        ("label_values", at_row("y", 0, row=-1)),
        (
            "censored",
            lambda frame: frame.assign(label_status="censored", y=pd.NA, label_end=pd.NaT, cal_price_change=None),
        ),
    ],
)
def test_each_check_of_labels_can_fail(labelled: pd.DataFrame, check: str, change: Change) -> None:
    assert check_labels(labelled) == {}
    assert labelled["y"].nunique() == 2
    assert set(check_labels(change(labelled))) == {check}
    assert check in CHECKS["labelled_dataset"]


@pytest.mark.parametrize(
    ("check", "change"),
    [
        ("row_count", lambda frame: frame.iloc[1:]),
        ("unique_keys", lambda frame: pd.concat([frame.iloc[1:], frame.iloc[-1:]], ignore_index=True)),
        ("nulls", at_row("OBV", np.nan)),
        ("ranges", at_row("RSI", 100.5)),
        ("ranges", at_row("VWRSI", -0.5)),
        ("ranges", lambda frame: frame.assign(bollinger_lband=2.0, bollinger_hband=1.0)),
    ],
)
@pytest.mark.parametrize("asset", ["indicator_features", "live_indicators"])
def test_each_check_of_indicators_can_fail(
    day: tuple[pd.DataFrame, list[datetime]], asset: str, check: str, change: Change
) -> None:
    rows = with_indicators(day[0], day[0], *day_bounds(HOUR.date()))
    if asset == "indicator_features":
        rows = rows.drop(columns="quarantine")
    assert check_indicators(rows, len(day[0])) == {}
    assert set(check_indicators(change(rows), len(day[0]))) == {check}
    assert check in CHECKS[asset]


def test_each_check_of_a_model_can_fail() -> None:
    good = {"accuracy": 0.5, "auc": float("nan")}
    assert check_model(good, HOUR, HOUR) == check_model(good, HOUR, None) == {}
    assert set(check_model(good | {"auc": 1.5}, HOUR, HOUR)) == {"metrics"}
    assert set(check_model(good, HOUR + timedelta(hours=1), HOUR)) == {"label_horizon_closed"}


def predictions() -> pd.DataFrame:
    rows = [
        {"token": "A-1", "probability": 0.7, "threshold": 0.6, "decision": "buy", "model_hash": "h"},
        {"token": "B-2", "probability": 0.2, "threshold": 0.6, "decision": "pass", "model_hash": "h"},
        {"token": "C-3", "decision": "none", "reason": "NO_MODEL"},
    ]
    columns = ["id", "name", "symbol", "price", "volume", "model_scope", "score", "recipe_id", "fallback", "pack_hash"]
    frame = pd.DataFrame(rows).assign(timestamp=HOUR, **dict.fromkeys(columns))
    return conform(frame, "predictions")


def out_of_sample() -> pd.DataFrame:
    rows = pd.DataFrame({"token": ["A-1", "B-2", "A-1"], "twin": [0, 0, 1], "raw": 0.4, "probability": 0.3})
    rows = rows.assign(
        timestamp=HOUR, label_end=HOUR + timedelta(hours=120), y=0, fold=0, recipe_id="r", scope="pooled"
    )
    return conform(
        rows.assign(**dict.fromkeys(["change", "price", "volume", "momentum", "threshold", "logistic"], 1.0)),
        "out_of_sample",
    )


@pytest.mark.parametrize(
    ("check", "change"),
    [
        ("unique_keys", lambda frame: frame.assign(token="A-1")),
        ("probabilities", at_row("raw", 1.1)),
        ("probabilities", at_row("probability", float("nan"))),
        ("label_horizon_closed", at_row("label_end", HOUR + timedelta(hours=119))),
    ],
)
def test_each_check_of_an_out_of_sample_table_can_fail(check: str, change: Change) -> None:
    assert check_out_of_sample(out_of_sample()) == {}
    assert set(check_out_of_sample(change(out_of_sample()))) == {check}
    assert check in CHECKS["out_of_sample"]


@pytest.mark.parametrize(
    ("check", "change"),
    [
        ("row_count", lambda frame: frame.iloc[1:]),
        ("unique_keys", at_row("token", "B-2")),
        ("probabilities", at_row("probability", 1.01)),
        ("probabilities", at_row("probability", -0.01, row=1)),
        ("reasons", at_row("reason", None, row=2)),
        ("reasons", at_row("probability", 0.59)),
    ],
)
def test_each_check_of_predictions_can_fail(check: str, change: Change) -> None:
    assert check_predictions(predictions(), 3) == {}
    assert set(check_predictions(change(predictions()), 3)) == {check}
    assert check in CHECKS["predictions"]


def orders() -> pd.DataFrame:
    rows = [
        {"order_id": "a", "token": "A-1", "side": "buy", "quantity": "1.5", "price": "2", "status": "submitted"},
        {"order_id": "b", "token": "B-2", "side": "buy", "quantity": "1.5", "price": "2", "status": "filled"},
    ]
    return conform(pd.DataFrame(rows).reindex(columns=list(TRADE_ORDERS)), "trade_orders")


@pytest.mark.parametrize(
    ("check", "change"),
    [
        ("unique_keys", at_row("order_id", "b")),
        ("unique_keys", at_row("order_id", None)),
        ("amounts", at_row("quantity", "0")),
        ("amounts", at_row("price", None)),
        ("statuses", at_row("status", "lost")),
        ("statuses", at_row("status", "cancelled")),
    ],
)
def test_each_check_of_orders_can_fail(check: str, change: Change) -> None:
    assert check_orders(orders()) == {}
    assert check_orders(orders().iloc[:0]) == {}
    assert set(check_orders(change(orders()))) == {check}
    assert check in CHECKS["trade_orders"]


def test_a_refusal_needs_a_reason() -> None:
    refused = at_row("status", "refused")(orders().iloc[:1])
    assert set(check_orders(refused)) == {"statuses"}
    assert check_orders(refused.assign(order_id=None, quantity=None, price=None, reason="too old")) == {}


def test_findings_name_five_tokens_and_count_the_rest() -> None:
    frame = pd.concat([predictions().assign(token=f"T-{n}", probability=2.0) for n in range(3)])
    found: Findings = check_predictions(frame.assign(timestamp=range(len(frame))), len(frame))
    assert found["probabilities"] == "outside [0, 1]: T-0, T-1, T-2"
