"""Who answers for a coin, and why nobody does."""

from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from breakout_assets.learning.model_files import save
from breakout_assets.learning.predicting import POOLED, REASONS, ModelShelf, predict_hour
from breakout_assets.learning.recipes import Recipe
from breakout_assets.learning.training import FittedModel, fit
from breakout_assets.store import Store
from breakout_assets.tables import LIVE_INDICATORS, conform
from breakout_assets_tests.samples import at

HOUR = at("2024-06-01 05:00")
FEATURES = ("RSI", "volume")
RECIPE = Recipe("quick", FEATURES, resample=False, purge=True, n_estimators=5, min_rows=200)


def training_rows(token: str, hours: int = 400, until: datetime = HOUR) -> pd.DataFrame:
    """Rows whose RSI decides their label, ending so that the last label ends at `until`."""
    rng = np.random.default_rng(3)
    times = [until - timedelta(hours=120 + n) for n in range(hours)]
    rsi = rng.uniform(0, 100, hours)
    return pd.DataFrame(
        {
            "token": token,
            "timestamp": pd.Series(times, dtype="datetime64[us]"),
            "label_end": pd.Series([time + timedelta(hours=120) for time in times], dtype="datetime64[us]"),
            "label_status": "labelled",
            "y": pd.Series((rsi > 50).astype(int), dtype="Int8"),
            "RSI": rsi,
            "volume": rng.uniform(1, 2, hours),
        }
    )


def trained(name: str, until: datetime = HOUR, recipe: Recipe = RECIPE) -> FittedModel:
    return fit(training_rows("A-1", until=until), recipe, "pooled" if name == POOLED else "token", name)


def live(**coins: dict[str, float | str | None]) -> pd.DataFrame:
    ordinary = {"price": 1.0, "volume": 1.5, "RSI": 90.0, "cmc_rank": 1, "volume_change_24h": 0, "percent_change_7d": 0}
    rows = [{**ordinary, **coin, "token": token.replace("_", "-"), "timestamp": HOUR} for token, coin in coins.items()]
    return conform(pd.DataFrame(rows).reindex(columns=list(LIVE_INDICATORS)), "live_indicators")


def predict(store: Store, rows: pd.DataFrame, hour: datetime = HOUR) -> pd.DataFrame:
    return predict_hour(rows, ModelShelf(store), RECIPE, hour).set_index("token")


def test_a_token_is_judged_by_its_own_model_and_the_others_by_the_pool(store: Store) -> None:
    for name in ("A-1", POOLED):
        save(trained(name), store.model_folder(name))
    found = predict(store, live(A_1={}, B_2={"RSI": 10.0}))
    assert found["model_scope"].tolist() == ["token", "pooled"]
    assert found["decision"].tolist() == ["buy", "pass"]
    assert (found["threshold"] == RECIPE.threshold).all()
    assert found["model_hash"].str.len().tolist() == [64, 64]
    assert found["model_hash"].nunique() == 2
    assert found["reason"].isna().all()


def test_a_model_that_has_seen_a_later_price_is_not_asked(store: Store) -> None:
    save(trained("A-1", HOUR + timedelta(hours=1)), store.model_folder("A-1"))
    assert predict(store, live(A_1={}))["reason"].tolist() == ["NO_MODEL"]
    save(trained("A-1", HOUR), store.model_folder("A-1"))
    assert predict(store, live(A_1={}))["model_scope"].tolist() == ["token"]
    shelf = ModelShelf(store)
    asked = [shelf.model_for("A-1", HOUR + timedelta(hours=n)) for n in (-1, 0, 1, 2)]
    assert [model and model.trained_until for model in asked] == [
        None,
        HOUR,
        HOUR + timedelta(hours=1),
        HOUR + timedelta(hours=1),
    ]


def test_a_model_of_another_recipe_is_not_asked(store: Store) -> None:
    other = Recipe("other", FEATURES, resample=False, purge=True, n_estimators=5, min_rows=200, threshold=0.9)
    save(trained("A-1", recipe=other), store.model_folder("A-1"))
    assert predict(store, live(A_1={}))["reason"].tolist() == ["NO_MODEL"]


@pytest.mark.parametrize(
    ("coin", "reason"),
    [
        ({"quarantine": "PRICE_MISSING"}, "QUARANTINED"),
        ({"percent_change_7d": 1001.0}, "OUTSIDE_UNIVERSE"),
        ({"cmc_rank": None}, "OUTSIDE_UNIVERSE"),
        ({"RSI": None}, "TOO_LITTLE_HISTORY"),
        ({"RSI": float("inf")}, "TOO_LITTLE_HISTORY"),
        ({"volume": 1e300}, "TOO_LITTLE_HISTORY"),
    ],
)
def test_a_coin_that_cannot_be_judged_says_why_and_the_others_are(
    store: Store, coin: dict[str, float | str | None], reason: str
) -> None:
    save(trained(POOLED), store.model_folder(POOLED))
    found = predict(store, live(A_1={}, B_2=coin))
    assert found.loc["B-2", "reason"] == reason
    assert reason in REASONS
    assert found.loc["B-2", "decision"] == "none"
    assert found["probability"].isna().tolist() == [False, True]
    assert found.loc["A-1", "decision"] == "buy"


def test_a_coin_that_is_listed_twice_has_one_prediction(store: Store) -> None:
    save(trained(POOLED), store.model_folder(POOLED))
    rows = pd.concat([live(A_1={"quarantine": "DUPLICATE"}), live(A_1={}), live(B_2={"quarantine": "PRICE_MISSING"})])
    found = predict(store, rows)
    assert found.index.tolist() == ["A-1", "B-2"]
    assert found["decision"].tolist() == ["buy", "none"]


def test_an_hour_without_coins_gives_no_rows(store: Store) -> None:
    assert predict(store, live(A_1={}).iloc[:0]).empty
