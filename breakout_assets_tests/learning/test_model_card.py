import re
from typing import Any

import pytest

from breakout_assets.errors import DataError
from breakout_assets.learning.evidence import Interval, Placebo
from breakout_assets.learning.model_card import model_card
from breakout_assets.learning.recipes import recipe
from breakout_assets_tests.learning.report_examples import NOTHING, RECIPE, evaluation, refused

MANIFEST: dict[str, Any] = {
    "schema_version": 1,
    "name": "pooled",
    "scope": "pooled",
    "model_hash": "ab" * 32,
    "recipe_id": RECIPE.recipe_id,
    "data_hash": "0123456789abcdef",
    "seed": 4711,
    "trained_from": "2024-01-02T03:00:00",
    "trained_until": "2024-07-03T22:00:00",
    "expires_at": "2024-07-17T22:00:00",
    "rows": 26411,
    "positives": 3902,
    "versions": {"python": "3.11.9", "scikit-learn": "1.9.1"},
}
UNIVERSE = "the 1,250 largest coins of the hour, without stablecoins"
CARD = model_card(evaluation(), RECIPE, MANIFEST, UNIVERSE)


def test_the_card_says_what_the_model_is_for_and_made_of() -> None:
    for said in (
        "# Model card: pooled (default)",
        "**Skill: better than luck, and it paid.**",
        "- For: flagging coins",
        "- Not for:",
        UNIVERSE,
        "26,411 labelled hours, 3,902 of them positive, 2024-01-02 03:00 to 2024-07-03 22:00 UTC; one model for all",
        "1 if the price 120 hours later is more than 10 % higher",
        "- 18: RSI, VWRSI, ",
        "A round trip is taken to cost 1.5 %",
        "expires 2024-07-17 22:00 UTC",
        "Knows prices up to 2024-07-03 22:00 UTC",
        "ab" * 32,
        f"id {RECIPE.recipe_id}; feature set {RECIPE.feature_set_hash}",
        "Data hash: 0123456789abcdef; seed 4711",
        "python 3.11.9, scikit-learn 1.9.1",
    ):
        assert said in CARD


def test_figures_stand_with_intervals_and_what_to_compare() -> None:
    for said in (
        "8,179 predictions on 12 tokens, 2024-03-01 05:00 to 2024-06-28 22:00 UTC; 1,186 positive",
        "71.7 independent labels, 143 separate rises, 24 separate five-day windows",
        "coverage in simulation is 85 to 90 %",
        "| pooled AUC | 0.664 (0.611 to 0.715) | logistic regression 0.612; coin toss 0.5 |",
        "| the same on noise markets | 0.502 ± 0.024 over 20, p = 0.048 | market 0.659 |",
        "| precision, own threshold | 41.2 % (30.1 % to 52.3 %) | break-even 24.6 %; base rate 14.5 % |",
        "| precision, 0.60 | 53.3 % (35.2 % to 70.1 %) | break-even 25.9 % |",
        "| recall, own threshold | 13.7 % | F1 0.206 |",
        "| accuracy, own threshold | 86.1 % | always no 85.5 % |",
        "| net per trade | +2.1 % (+0.4 % to +3.9 %) | 187 trades |",
        "| deepest fall, in stakes | 1.27 | net +3.98 |",
        "| calibration error (ECE) | 0.024 | before calibration 0.112 |",
        "| mean probability | 14.0 % | base rate 14.5 % (10.3 % to 18.9 %) |",
        "| Brier score | 0.115 | skill 0.076 |",
        "| momentum | 0.543 | 240 | +0.1 % |",
        "| buy and hold | ranks nothing | 12 | +7.2 % |",
        "| always no | 0.500 | 0 | no trade |",
    ):
        assert said in CARD


def test_a_model_without_evidence_is_not_for_trading() -> None:
    card = model_card(refused("PLACEBO"), RECIPE, MANIFEST, UNIVERSE)
    assert "- For: studying the method." in card
    assert "For: flagging" not in card


def test_a_reference_recipe_never_trades() -> None:
    reference = recipe("blog_exact")
    manifest = MANIFEST | {"recipe_id": reference.recipe_id, "scope": "token", "name": "SOL-5426"}
    card = model_card(refused("REFERENCE_ONLY", recipe_id=reference.recipe_id), reference, manifest, UNIVERSE)
    assert "kept for comparison with published figures and never trades" in card
    assert "one token's own model" in card


def test_what_is_missing_is_said_in_words() -> None:
    nan = float("nan")
    empty = refused(
        *("TOO_FEW_WINDOWS", "NO_TWINS"),
        auc=Interval(nan, None, None),
        logistic_auc=Interval(nan, None, None),
        brier_skill=nan,
        own=NOTHING,
        placebo=Placebo((), nan, nan, nan, None),
    )
    card = model_card(empty, RECIPE, MANIFEST, UNIVERSE)
    assert not re.search(r"\b(nan|None)\b", card)
    assert "| pooled AUC | undefined, only one outcome |" in card
    assert "| the same on noise markets | no noise markets computed |" in card
    assert "| precision, own threshold | nothing flagged | break-even nothing flagged;" in card
    assert "| net per trade | no trade | 0 trades |" in card


def test_a_forest_without_value_is_told_so() -> None:
    card = model_card(evaluation(logistic_auc=Interval(0.7, None, None)), RECIPE, MANIFEST, UNIVERSE)
    assert "adds no value" in card
    assert "adds no value" not in CARD


def test_text_from_outside_is_only_text() -> None:
    card = model_card(evaluation(), RECIPE, MANIFEST | {"name": "<script>|x"}, "[a](http://b) <img>")
    assert "<script" not in card.replace("\\<script", "")
    assert "\\[a\\](http://b) \\<img\\>" in card


def test_a_recipe_without_a_trained_model_has_a_card_that_says_so() -> None:
    card = model_card(evaluation(), RECIPE, {}, UNIVERSE)
    assert "# Model card: no model yet (default)" in card
    assert "No model of this recipe has been trained yet" in card
    assert "No model file yet, hence no expiry and no hash." in card
    assert f"id {RECIPE.recipe_id}" in card
    assert "expires" not in card


@pytest.mark.parametrize(
    "field", ["name", "model_hash", "recipe_id", "data_hash", "expires_at", "trained_until", "versions"]
)
def test_an_incomplete_manifest_is_refused(field: str) -> None:
    rest = {name: value for name, value in MANIFEST.items() if name != field}
    with pytest.raises(DataError, match=f"lacks {field}; train the model again"):
        model_card(evaluation(), RECIPE, rest, UNIVERSE)


def test_a_card_never_mixes_recipes() -> None:
    with pytest.raises(DataError, match="the model of recipe 0000"):
        model_card(evaluation(), RECIPE, MANIFEST | {"recipe_id": "0000"}, UNIVERSE)
    with pytest.raises(DataError, match="the evaluation of recipe 1111"):
        model_card(evaluation(recipe_id="1111"), RECIPE, MANIFEST, UNIVERSE)


def test_the_same_inputs_give_the_same_card() -> None:
    assert model_card(evaluation(), RECIPE, MANIFEST, UNIVERSE) == CARD
