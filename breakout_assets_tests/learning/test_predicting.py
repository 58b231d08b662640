"""Who answers for a coin, and why nobody does."""

import shutil
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from blake3 import blake3

from breakout_assets.errors import DataError
from breakout_assets.learning.admission import SHORTCOMINGS
from breakout_assets.learning.calibration import Platt
from breakout_assets.learning.predicting import REASONS, ModelShelf, predict_hour
from breakout_assets.learning.recipes import POOLED, Recipe
from breakout_assets.learning.serving import publish
from breakout_assets.learning.training import FittedModel, fit
from breakout_assets.store import Store
from breakout_assets.tables import LIVE_INDICATORS, conform
from breakout_assets_tests.samples import at

HOUR = at("2024-06-01 05:00")
FEATURES = ("RSI", "volume")
RECIPE = Recipe("quick", FEATURES, scope="per_token", n_estimators=5, min_rows=200)
POOLING = replace(RECIPE, scope="pooled")


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


def trained(name: str, until: datetime = HOUR, recipe: Recipe = RECIPE, admission: tuple[str, ...] = ()) -> FittedModel:
    model = fit(training_rows("A-1", until=until), recipe, "pooled" if name == POOLED else "token", name)
    return replace(model, admission=admission)


def live(**coins: dict[str, float | str | None]) -> pd.DataFrame:
    ordinary = {"price": 1.0, "volume": 1.5, "RSI": 90.0, "cmc_rank": 1, "volume_change_24h": 0, "percent_change_7d": 0}
    rows = [{**ordinary, **coin, "token": token.replace("_", "-"), "timestamp": HOUR} for token, coin in coins.items()]
    return conform(pd.DataFrame(rows).reindex(columns=list(LIVE_INDICATORS)), "live_indicators")


def predict(
    store: Store,
    rows: pd.DataFrame,
    hour: datetime = HOUR,
    recipe: Recipe = RECIPE,
    doubt: str | None = None,
    trusting: bool = False,
) -> pd.DataFrame:
    return predict_hour(rows, ModelShelf(store, recipe), hour, doubt, trusting=trusting).set_index("token")


def test_a_token_is_judged_by_its_own_model_and_the_others_by_the_pool(store: Store) -> None:
    for name in ("A-1", POOLED):
        publish(store, trained(name))
    found = predict(store, live(A_1={}, B_2={"RSI": 10.0}))
    assert found["model_scope"].tolist() == ["token", "pooled"]
    assert found["decision"].tolist() == ["buy", "pass"]
    assert (found["threshold"] == RECIPE.threshold).all()
    assert found["model_hash"].str.len().tolist() == [64, 64]
    assert found["model_hash"].nunique() == 2
    assert found["reason"].isna().all()
    assert found["fallback"].isna().tolist() == [True, False]
    assert found.loc["B-2", "fallback"] == "NO_OWN_MODEL"
    assert (found["score"] == found["probability"]).all()
    assert set(found["recipe_id"]) == {RECIPE.recipe_id}


def test_a_recipe_that_pools_asks_no_model_of_a_token(store: Store) -> None:
    for name in ("A-1", POOLED):
        publish(store, trained(name, recipe=POOLING))
    found = predict(store, live(A_1={}), recipe=POOLING)
    assert found[["model_scope", "fallback"]].to_numpy().tolist() == [["pooled", "POOLED_RECIPE"]]


def test_a_model_with_too_little_behind_it_leaves_its_token_to_the_pool_unless_it_is_trusted(store: Store) -> None:
    publish(store, trained("A-1", admission=("TOO_FEW_WINDOWS",)))
    alone = predict(store, live(A_1={}))
    assert alone[["reason", "fallback"]].to_numpy().tolist() == [["NO_MODEL", "TOO_FEW_WINDOWS"]]
    publish(store, trained(POOLED))
    found = predict(store, live(A_1={}))
    assert found[["model_scope", "fallback"]].to_numpy().tolist() == [["pooled", "TOO_FEW_WINDOWS"]]
    assert predict(store, live(A_1={}), trusting=True)["model_scope"].tolist() == ["token"]


def test_what_is_too_little_behind_the_pool_is_for_its_evaluation_to_say(store: Store) -> None:
    publish(store, trained(POOLED, admission=("TOO_FEW_WINDOWS",)))
    assert predict(store, live(A_1={}))["decision"].tolist() == ["buy"]


def test_what_a_few_weeks_can_show_is_too_little_and_says_so() -> None:
    model = fit(training_rows("A-1"), RECIPE, "token", "A-1")
    assert set(model.admission) == {"TOO_FEW_ROWS", "TOO_FEW_WINDOWS", "TOO_FEW_POSITIVES"}
    assert set(model.admission) <= set(SHORTCOMINGS)
    assert fit(training_rows("A-1", hours=60 * 24), RECIPE, "token", "A-1").admission == ("TOO_FEW_POSITIVES",)


def test_a_model_expires_two_weeks_after_the_last_price_it_has_seen(store: Store) -> None:
    publish(store, trained(POOLED, HOUR - timedelta(days=14)))
    assert predict(store, live(A_1={}))["reason"].tolist() == ["MODEL_EXPIRED"]
    publish(store, trained(POOLED, HOUR - timedelta(days=14, hours=-1)))
    assert predict(store, live(A_1={}))["decision"].tolist() == ["buy"]
    publish(store, trained("A-1", HOUR - timedelta(days=20)))
    assert predict(store, live(A_1={}))["fallback"].tolist() == ["MODEL_EXPIRED"]


def test_a_generation_that_does_not_serve_leaves_it_to_the_one_before(store: Store) -> None:
    publish(store, trained(POOLED, HOUR - timedelta(hours=5)))
    publish(store, replace(trained(POOLED, HOUR), serves=False))
    for _ in range(2):  # as it serves now, and in the hour of the past that it is later
        about = ModelShelf(store, RECIPE).models_at(HOUR).about
        assert about["trained_until"].to_dict() == {POOLED: HOUR - timedelta(hours=5)}
        publish(store, trained(POOLED, HOUR + timedelta(hours=9)))


@pytest.mark.parametrize("doubt", ["NO_EVIDENCE", "EVIDENCE_EXPIRED", "NOT_PROVEN", "REALISED_LOSS"])
def test_a_recipe_that_is_doubted_shows_its_probabilities_and_decides_nothing(store: Store, doubt: str) -> None:
    publish(store, trained(POOLED))
    found = predict(store, live(A_1={}), doubt=doubt)
    assert found[["decision", "reason"]].to_numpy().tolist() == [["none", doubt]]
    assert doubt in REASONS
    assert found["probability"].notna().all()
    assert predict(store, live(A_1={}), doubt=doubt, trusting=True)["decision"].tolist() == ["buy"]


def test_a_model_for_which_no_threshold_paid_buys_nothing_unless_it_is_trusted(store: Store) -> None:
    publish(store, replace(trained(POOLED), own_threshold=None))
    found = predict(store, live(A_1={}))
    assert found[["decision", "reason"]].to_numpy().tolist() == [["none", "NO_THRESHOLD"]]
    assert found["threshold"].isna().all()
    trusted = predict(store, live(A_1={}), trusting=True)
    assert trusted[["decision", "threshold"]].to_numpy().tolist() == [["buy", RECIPE.threshold]]


def test_the_calibrated_probability_decides_and_the_score_stays_beside_it(store: Store) -> None:
    publish(store, replace(trained(POOLED), calibration=Platt(1.0, -20.0)))
    found = predict(store, live(A_1={}))
    assert (found["score"] > RECIPE.threshold).all()
    assert (found["probability"] < 0.01).all()
    assert found["decision"].tolist() == ["pass"]


def test_an_unreadable_model_of_a_token_leaves_it_to_the_pool_and_says_so(store: Store) -> None:
    publish(store, trained(POOLED))
    (publish(store, trained("A-1")) / "model.skops").write_bytes(b"damaged")
    found = predict(store, live(A_1={}, B_2={}))
    assert found["fallback"].tolist() == ["MODEL_UNREADABLE", "NO_OWN_MODEL"]
    for file in store.model_folder(POOLED).rglob("model.skops"):
        file.write_bytes(b"damaged")
    shutil.rmtree(str(store.root / "serving"))
    assert predict(store, live(A_1={}, B_2={}))["reason"].tolist() == ["MODEL_UNREADABLE", "MODEL_UNREADABLE"]


def test_a_model_that_has_seen_a_later_price_is_not_asked(store: Store) -> None:
    publish(store, trained("A-1", HOUR + timedelta(hours=1)))
    assert predict(store, live(A_1={}))["reason"].tolist() == ["NO_MODEL"]
    publish(store, trained("A-1", HOUR))
    assert predict(store, live(A_1={}))["model_scope"].tolist() == ["token"]
    shelf = ModelShelf(store, RECIPE)
    asked = [shelf.models_at(HOUR + timedelta(hours=n)).about["trained_until"].to_dict() for n in (-1, 0, 1, 2)]
    later = {"A-1": HOUR + timedelta(hours=1)}
    assert asked == [{}, {"A-1": HOUR}, later, later]


def test_a_model_of_another_recipe_is_not_asked(store: Store) -> None:
    other = replace(RECIPE, name="other")
    publish(store, trained("A-1", recipe=other))
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
    publish(store, trained(POOLED))
    found = predict(store, live(A_1={}, B_2=coin))
    assert found.loc["B-2", "reason"] == reason
    assert reason in REASONS
    assert found.loc["B-2", "decision"] == "none"
    assert found["probability"].isna().tolist() == [False, True]
    assert found.loc["A-1", "decision"] == "buy"


def test_a_coin_that_is_listed_twice_has_one_prediction(store: Store) -> None:
    publish(store, trained(POOLED))
    rows = pd.concat([live(A_1={"quarantine": "DUPLICATE"}), live(A_1={}), live(B_2={"quarantine": "PRICE_MISSING"})])
    found = predict(store, rows)
    assert found.index.tolist() == ["A-1", "B-2"]
    assert found["decision"].tolist() == ["buy", "none"]


def test_an_hour_without_coins_gives_no_rows(store: Store) -> None:
    assert predict(store, live(A_1={}).iloc[:0]).empty


def test_every_prediction_names_the_file_of_models_that_was_asked(store: Store) -> None:
    publish(store, trained("A-1"))
    found = predict(store, live(A_1={}, B_2={}))
    [file] = (store.root / "serving").rglob("*.arrow")
    digest = blake3(file.read_bytes()).hexdigest()
    assert found["pack_hash"].fillna("").tolist() == [digest, ""]


def test_an_hour_of_the_past_is_judged_as_it_was_then_although_newer_models_serve_now(store: Store) -> None:
    coins = live(A_1={"RSI": 40.0}, B_2={"RSI": 45.0}, C_3={"RSI": 55.0}, D_4={"RSI": 60.0})
    before, after = HOUR - timedelta(hours=3), HOUR + timedelta(hours=9)
    for name in ("A-1", "B-2", POOLED):
        publish(store, trained(name, before))
    then = predict(store, coins)
    for name in ("A-1", "C-3", POOLED):
        publish(store, trained(name, after))
    assert ModelShelf(store, RECIPE).models_at(after).about["trained_until"].to_dict() == {
        "A-1": after,
        "B-2": before,
        "C-3": after,
        POOLED: after,
    }
    shelf = ModelShelf(store, RECIPE)
    assert shelf.models_at(HOUR).about["trained_until"].to_dict() == {"A-1": before, "B-2": before, POOLED: before}
    assert shelf.models_at(HOUR) is shelf.models_at(HOUR + timedelta(hours=1))
    pd.testing.assert_frame_equal(predict(store, coins), then)


def test_a_coin_whose_scaled_indicators_are_no_numbers_stops_the_hour_by_name(store: Store) -> None:
    model = trained(POOLED)
    model.scaler.scale_ = np.array([1.0, 1e-38])
    publish(store, model)
    with pytest.raises(DataError, match="A-1 at 2024-06-01 05:00:00: an indicator is no number"):
        predict(store, live(A_1={"volume": 1e38}))
