import base64
import re
from dataclasses import replace
from html import unescape
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from breakout_assets.errors import DataError
from breakout_assets.learning.evidence import Interval, Placebo, evaluate_table
from breakout_assets.learning.pages import INLINE_CHARACTERS, Page
from breakout_assets.learning.recipes import recipe
from breakout_assets.learning.report import model_page
from breakout_assets_tests.learning.report_examples import (
    HOSTILE,
    NOTHING,
    RECIPE,
    evaluation,
    importances,
    out_of_sample,
    refused,
)

TABLE = out_of_sample(tokens=5, hours=480, twins=3)


def text_of(html: str) -> str:
    """What a reader sees of a page, without its pictures."""
    body = re.sub(r"<small>(.*?)</small>", r" (\1)", html.split("<body>")[1])
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", body)).split())


@pytest.fixture(scope="module")
def page() -> Page:
    return model_page(evaluation(), TABLE, RECIPE, importances())


def test_every_figure_is_on_the_page(page: Page) -> None:
    text = text_of(page.html)
    for said in (
        "8,179 predictions on 12 tokens, 2024-03-01 05:00 to 2024-06-28 22:00 UTC",
        "prices up to 2024-07-03 22:00 UTC",
        *("1,186", "143", "71.7", "separate five-day windows 24"),
        "AUC 0.664 (0.611 to 0.715)",
        "Logistic regression 0.612 95 %: 0.562 to 0.662",
        "0.502 ± 0.024, 20 markets, p = 0.048",
        "between 0.573 and 0.673, the middle one at 0.623",
        "base rate 14.5 % (10.3 % to 18.9 %)",
        "mean probability said 14.0 %",
        *("error before calibration 0.112", "error after calibration 0.024"),
        *("Brier score 0.115", "Brier skill 0.076"),
        "3 tokens have an AUC of 0.89 or more; 2.4 are expected from noise",
    ):
        assert said in text


def test_both_thresholds_stand_side_by_side_with_what_to_compare(page: Page) -> None:
    text = text_of(page.html)
    for said in (
        "rows flagged 4.3 % 1.2 %",
        "precision 41.2 % (30.1 % to 52.3 %) 53.3 % (35.2 % to 70.1 %)",
        "break-even precision 24.6 % 25.9 %",
        "recall 13.7 % 4.4 %",
        "F1 0.206 0.081",
        "accuracy 86.1 % 85.8 % accuracy of always saying no 85.5 % 85.5 %",
        "lift over the base rate 2.84 3.68",
        "trades 187 61",
        "net per trade +2.1 % (+0.4 % to +3.9 %) +3.3 % (-0.7 % to +7.2 %)",
        "net of all trades, in stakes +3.98 +2.03",
        "deepest fall, in stakes 1.27 0.88",
        "costs 1.5 % in all",
        "0.310 in the middle, 0.290 to 0.340; found in 3 of 4 test periods",
    ):
        assert said in text


def test_the_tables_hold_every_row(page: Page) -> None:
    text = text_of(page.html)
    for said in (
        "0.31 4.4 % 187 41.3 % +2.1 % +0.4 % to +3.9 %",
        "0.90 0.0 % 0 nothing flagged no trade no trade",
        "20 to 30 % 611 24.2 % 26.2 % 18.1 % to 33.2 %",
        "60 to 70 % 41 62.2 % 58.2 % not enough independent data",
        "this recipe (default) 0.664 41.2 % 4.3 % 187 +2.1 % +0.4 % to +3.9 %",
        "always no 0.500 nothing flagged 0.0 % 0 no trade no trade",
        "momentum 0.543 18.1 % 10.0 % 240 +0.1 % -1.2 % to +1.6 %",
        "buy and hold ranks nothing holds holds 12 +7.2 % not enough independent data",
        "SOL-5426 1,801 311 9 0.712 0.210 44.1 % 91",
        "BTC-1 1,802 87 4 0.605 0.430 nothing flagged 0",
        "DAI-4943 1,803 0 0 undefined, only one outcome unknown nothing flagged 0",
        "RSI +0.0317 ± 0.0041",
        *RECIPE.features,
    ):
        assert said in text


def test_how_to_read_it_is_said(page: Page) -> None:
    text = text_of(page.html)
    assert "nominal 95 %" in text
    assert "85 to 90 %" in text
    assert RECIPE.recipe_id in text


def test_the_verdict_comes_first(page: Page) -> None:
    text = text_of(page.html)
    assert text.index("Skill: better than luck") < text.index("Pooled AUC")
    assert page.markdown.startswith("**Skill: better than luck, and it paid.**")


def test_the_page_loads_nothing(page: Page) -> None:
    assert not re.search(
        r"https?:|//[a-z]|@import|url\(|<script|<link|<iframe", re.sub(r"base64,[^\"]*", "", page.html)
    )
    assert set(re.findall(r"(?:src|href)=\"?([^,\" ]*)", page.html)) == {"data:image/png;base64"}


def test_the_pictures_inside_are_those_beside(page: Page) -> None:
    inside = [base64.b64decode(found) for found in re.findall(r"base64,([^\"]*)\"", page.html)]
    assert inside == list(page.pictures.values())
    assert list(page.pictures) == ["ranking", "placebo", "threshold", "calibration", "importances", "tokens"]
    for png in inside:
        with Image.open(BytesIO(png)) as image:
            image.load()
            assert image.format == "PNG"


def test_the_same_figures_give_the_same_page(page: Page) -> None:
    again = model_page(evaluation(), TABLE.sample(frac=1, random_state=0), RECIPE, importances())
    assert again.html == page.html
    assert again.pictures == page.pictures
    assert again.markdown == page.markdown


def test_a_name_from_a_listing_is_only_text(page: Page) -> None:
    assert HOSTILE in set(evaluation().per_token["token"])
    assert "<script" not in page.html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page.html


NAN = float("nan")
EMPTY = {
    "windows": 3,
    "base_rate": Interval(0.0, None, None),
    "auc": Interval(NAN, None, None),
    "logistic_auc": Interval(NAN, None, None),
    "auc_quartiles": (NAN, NAN, NAN),
    "brier_skill": NAN,
    "own": NOTHING,
    "published": NOTHING,
    "placebo": Placebo((), NAN, NAN, NAN, None),
    "expected_at_least_089": None,
    "tokens_at_least_089": 0,
}
REASONS = ("TOO_FEW_WINDOWS", "NO_TWINS", "NOT_PROFITABLE", "CALIBRATION", "REFERENCE_ONLY")


@pytest.fixture(scope="module")
def empty_page() -> Page:
    market = TABLE[TABLE["twin"] == 0].assign(threshold=np.nan, y=np.int8(0), logistic=np.nan)
    return model_page(refused(*REASONS, **EMPTY), market, RECIPE, importances().head(0))


def test_what_is_missing_is_said_in_words(empty_page: Page) -> None:
    text = text_of(empty_page.html)
    assert not re.search(r"\b(nan|None|inf)\b", text)
    for said in (
        "Pooled AUC undefined, only one outcome not enough independent data",
        "The same on pure noise unknown no noise markets computed",
        "precision nothing flagged nothing flagged",
        "recall nothing rose nothing rose",
        "net per trade no trade no trade",
        "in none of 4 test periods had one paid on the data before, so it did not trade",
        "0 tokens have an AUC of 0.89 or more; no noise markets computed, so nobody knows how many noise gives",
        "No importances were computed",
    ):
        assert said in text


def test_the_summary_is_shown_without_a_click(page: Page, empty_page: Page) -> None:
    unsure = Interval(0.664, None, None)
    worst = refused(
        *("TOO_FEW_WINDOWS", "PLACEBO", "NOT_PROFITABLE", "CALIBRATION", "REFERENCE_ONLY"),
        auc=unsure,
        logistic_auc=unsure,
        own=replace(evaluation().own, precision=Interval(0.4, None, None), net_per_trade=Interval(0.02, None, None)),
    )
    longest = model_page(worst, TABLE, RECIPE, importances())
    for markdown in (page.markdown, empty_page.markdown, longest.markdown):
        assert "Pooled AUC" in markdown
        assert len(markdown) < INLINE_CHARACTERS
        assert "data:" not in markdown


def test_a_forest_without_value_is_told_so_on_the_page() -> None:
    page = model_page(evaluation(logistic_auc=Interval(0.7, 0.6, 0.8)), TABLE, RECIPE, importances())
    said = "The forest of default adds no value"
    assert said in text_of(page.html)
    assert said in page.markdown


def test_figures_of_another_recipe_are_refused() -> None:
    other = recipe("baseline_logit")
    with pytest.raises(DataError, match=f"baseline_logit .* was given figures of {RECIPE.recipe_id}"):
        model_page(evaluation(), TABLE, other, importances())
    with pytest.raises(DataError, match="evaluate the recipe again"):
        model_page(evaluation(), TABLE.assign(recipe_id="0" * 16), RECIPE, importances())


@pytest.mark.parametrize("hours", [240, 2400])
def test_a_computed_evaluation_has_a_page(hours: int) -> None:
    table = out_of_sample(tokens=4, hours=hours, twins=2, signal=0.5)
    found = evaluate_table(table, cost=RECIPE.cost, reference_only=False)
    text = text_of(model_page(found, table, RECIPE, importances()).html)
    assert f"AUC {found.auc.value:.3f}" in text
    assert f"separate five-day windows {found.windows}" in text
    assert not re.search(r"\b(nan|None)\b", text)
    assert ("not enough independent data for an interval" in text) == (hours == 240)
