import math
from dataclasses import replace

import pytest

from breakout_assets.learning import wording
from breakout_assets.learning.evidence import Interval, Placebo
from breakout_assets.learning.recipes import recipe
from breakout_assets_tests.learning.report_examples import NOTHING, OWN, RECIPE, evaluation, refused


@pytest.mark.parametrize("value", [None, float("nan")])
def test_a_missing_figure_is_said_in_words(value: float | None) -> None:
    assert wording.number(value, "no AUC") == "no AUC"
    assert wording.share(value, "no share") == "no share"
    assert wording.number_interval(Interval(float("nan"), None, None), "no AUC") == "no AUC"
    assert wording.share_interval(Interval(float("nan"), None, None), "no share") == "no share"


def test_figures_are_rounded_and_carry_their_units() -> None:
    assert wording.number(0.66449, "") == "0.664"
    assert wording.share(0.12349, "") == "12.3 %"
    assert wording.share(0.0213, "", signed=True) == "+2.1 %"
    assert wording.share(-0.0213, "", signed=True) == "-2.1 %"
    assert wording.whole(8179) == "8,179"


def test_an_interval_or_that_there_is_none() -> None:
    assert wording.number_interval(Interval(0.664, 0.611, 0.715), "") == "0.664 (0.611 to 0.715)"
    assert wording.share_interval(Interval(0.4, 0.3, 0.5), "") == "40.0 % (30.0 % to 50.0 %)"
    assert wording.bounds(Interval(0.664, 0.611, 0.715)) == "95 %: 0.611 to 0.715"
    for interval in (Interval(0.664, None, None), Interval(0.664, math.nan, math.nan)):
        assert wording.number_interval(interval, "") == "0.664 (not enough independent data for an interval)"
        assert wording.bounds(interval) == "not enough independent data"


def test_nothing_flagged_is_no_precision_of_zero() -> None:
    assert wording.precision(NOTHING) == wording.break_even(NOTHING) == "nothing flagged"
    assert wording.f1(NOTHING, 0.1) == wording.lift(NOTHING, 0.1) == "nothing flagged"
    assert wording.net_per_trade(NOTHING) == wording.stakes(0.0, NOTHING) == "no trade"
    assert wording.recall(NOTHING, 0.1) == "0.0 %"  # there were risers, and none was flagged


def test_without_a_riser_there_is_nothing_to_find() -> None:
    assert {wording.recall(OWN, 0.0), wording.f1(OWN, 0.0), wording.lift(OWN, 0.0)} == {"nothing rose"}


def test_break_even_is_unknown_where_all_flagged_rows_rose() -> None:
    assert wording.break_even(replace(OWN, achieved_break_even=float("nan"))) == "all or none rose"


def test_only_a_badge_is_called_skill() -> None:
    said = wording.verdict_in_words(evaluation())
    assert said.headline.startswith("Skill")
    assert said.tone == "good"


@pytest.mark.parametrize(
    ("reasons", "headline", "said"),
    [
        (
            ("TOO_FEW_WINDOWS", "PLACEBO"),
            "Not enough independent data",
            "covers 9 separate five-day windows; it takes 15",
        ),
        (("NO_TWINS", "NOT_PROFITABLE"), "Undecided", "No noise markets were computed"),
        (("PLACEBO", "NOT_PROFITABLE"), "Luck", "0.502 ± 0.024; 0.659 here is not clearly more (p = 0.048"),
        (
            ("NOT_PROFITABLE", "CALIBRATION"),
            "It ranks better than luck, but shows no profit",
            "an interval down to +0.4 %",
        ),
        (("CALIBRATION",), "It ranks better than luck, but its probabilities are off", "off by 2.4 % on average"),
        (("TOO_FEW_WINDOWS", "REFERENCE_ONLY"), "For reference only", "It never trades."),
        (("SOMETHING_NEW",), "Not passed", "Reason: SOMETHING_NEW."),
    ],
)
def test_each_reason_is_a_sentence_and_the_first_that_matters_the_headline(
    reasons: tuple[str, ...], headline: str, said: str
) -> None:
    verdict = wording.verdict_in_words(refused(*reasons, windows=9))
    assert verdict.headline.startswith(headline)
    assert said in " ".join(verdict.sentences)
    assert len(verdict.sentences) == len(reasons)
    assert verdict.tone != "good"


def test_why_there_is_no_profit() -> None:
    [none] = wording.verdict_in_words(refused("NOT_PROFITABLE", own=NOTHING)).sentences
    assert "made no trade" in none
    unsure = replace(OWN, net_per_trade=Interval(0.02, None, None))
    [sentence] = wording.verdict_in_words(refused("NOT_PROFITABLE", own=unsure)).sentences
    assert "+2.0 % after costs; not enough independent data for an interval" in sentence


def test_an_undefined_placebo_is_not_a_number() -> None:
    placebo = Placebo((0.5,), float("nan"), 0.5, float("nan"), None)
    [sentence] = wording.verdict_in_words(refused("PLACEBO", placebo=placebo)).sentences
    assert "nan" not in sentence
    assert "p = unknown" in sentence


def test_a_forest_that_does_not_beat_the_regression_is_told_so() -> None:
    equal = evaluation(logistic_auc=evaluation().auc)
    assert wording.against_logistic("default", RECIPE, evaluation()) is None
    assert "adds no value" in (wording.against_logistic("default", RECIPE, equal) or "")
    assert wording.against_logistic("x", recipe("baseline_logit"), equal) is None
    unknown = evaluation(logistic_auc=Interval(float("nan"), None, None))
    assert wording.against_logistic("default", RECIPE, unknown) is None
