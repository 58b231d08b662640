import re
from dataclasses import replace

import pytest

from breakout_assets.learning.comparison import CaseRow, Figures, ladder
from breakout_assets.learning.comparison_report import Compared, changes, comparison_page
from breakout_assets.learning.evidence import Interval
from breakout_assets.learning.pages import INLINE_CHARACTERS, Page
from breakout_assets.learning.recipes import recipe
from breakout_assets_tests.learning.report_examples import NOTHING, OWN, RECIPE, evaluation, refused
from breakout_assets_tests.learning.test_report import text_of

ROWS = (
    Compared("blog_exact", recipe("blog_exact"), refused("REFERENCE_ONLY", auc=Interval(0.551, 0.501, 0.602))),
    Compared("blog_fixed", recipe("blog_fixed"), refused("TOO_FEW_WINDOWS", windows=9, own=NOTHING)),
    Compared("default", RECIPE, evaluation()),
    Compared("baseline_momentum", recipe("baseline_momentum"), None, "its feature is not <b>there</b>"),
)
STEPS = tuple(
    Compared(title, step, None, "too few rows")
    if number == 3
    else Compared(title, step, refused("PLACEBO", auc=Interval(0.5 + number / 1000, 0.4, None if number == 1 else 0.6)))
    for number, (title, step) in enumerate(ladder())
)
CASE = (
    CaseRow("as published", None, None, Figures(0.91, 0.55, 0.87, 0.67, 0.89), None),
    CaseRow(
        "all hours",
        2751,
        0.2471,
        Figures(0.6241, 0.3482, 0.6643, 0.4574, 0.6885),
        Figures(0.011, 0.012, 0.013, 0.014, 0.015),
    ),
)


@pytest.fixture(scope="module")
def page() -> Page:
    return comparison_page(ROWS, STEPS, CASE)


def test_one_row_a_recipe_with_every_figure(page: Page) -> None:
    text = text_of(page.html)
    for said in (
        "default 0.664 (0.611 to 0.715) 0.573 / 0.623 / 0.673 0.612 0.502 ± 0.024 0.048",
        "default 41.2 % (30.1 % to 52.3 %) 13.7 % 0.206 14.5 % 2.84 86.1 % 85.5 %",
        "default 53.3 % (35.2 % to 70.1 %) 4.4 % 0.081 14.5 % 3.68 85.8 % 85.5 %",
        "default 14.0 % 14.5 % (10.3 % to 18.9 %) 0.115 0.076 0.112 0.024",
        "default 187 41.2 % (30.1 % to 52.3 %) 24.6 % +2.1 % (+0.4 % to +3.9 %) +3.98 1.27",
        "blog_fixed nothing flagged 0.0 % nothing flagged 14.5 % nothing flagged",
        "blog_fixed 0 nothing flagged nothing flagged no trade no trade no trade",
    ):
        assert said in text


def test_a_recipe_without_figures_says_why_in_every_table(page: Page) -> None:
    assert text_of(page.html).count("baseline_momentum its feature is not <b>there</b>") == 5
    assert "<b>there" not in page.html
    assert text_of(comparison_page([Compared("x", RECIPE, None)], [], None).html).count("x not evaluated") == 5


def test_published_figures_are_set_apart(page: Page) -> None:
    text = text_of(page.html)
    mark = "(as published, another period, not comparable)"
    assert f"SOL {mark} 0.890 nothing else published" in text
    # The base rate and what follows from it are implied by the other three.
    assert f"many tokens {mark} 20.0 % 61.0 % 0.300 about 13.4 % about 1.5 62.0 % about 86.6 %" in text
    assert f"SOL {mark} 55.0 % 87.0 % 0.670 about 10.7 % about 5.1 91.0 % about 89.3 %" in text
    assert page.html.count("<tr class=aside>") == 4


def test_the_ladder_says_what_each_step_changed(page: Page) -> None:
    text = text_of(page.html)
    assert "blog_exact the start 0.500 " in text
    assert "+ month fix same month labels: yes → no 0.501 (not enough independent data for an interval)" in text
    assert "+ features on all rows indicators after join: yes → no too few rows" in text
    assert "+ costs cost: 0.0 → 0.015 0.512 (0.400 to 0.600) 0.502 0.024 +2.1 % (+0.4 % to +3.9 %)" in text
    assert list(page.pictures) == ["ladder"]


def test_changes_name_each_field_that_differs() -> None:
    assert changes(RECIPE, replace(RECIPE, name="other")) == "nothing"
    both = changes(recipe("blog_exact"), replace(recipe("blog_exact"), seed=None, purge=True))
    assert both == "purge: no → yes; seed: 5 → derived"
    features = changes(recipe("blog_fixed"), replace(recipe("blog_fixed"), features=RECIPE.features))
    assert features == "19 features → 18, 2 of them the same"


def test_the_example_is_shown_beside_what_was_published(page: Page) -> None:
    text = text_of(page.html)
    assert "as published not published about 10.7 % 0.910 0.550 0.870 0.670 0.890" in text
    assert "all hours 2,751 24.7 % 0.624 ± 0.011 0.348 ± 0.012 0.664 ± 0.013 0.457 ± 0.014 0.689 ± 0.015" in text


def test_the_verdict_is_the_best_that_was_shown(page: Page) -> None:
    assert page.markdown.startswith("**Better than luck, and paid after costs: default.**")
    assert "The forest of blog_exact adds no value" in text_of(page.html)
    none = comparison_page(ROWS[:2], [], None)
    assert none.markdown.startswith("**No recipe has shown skill that pays.**")
    assert 'class="verdict open"' in none.html


def test_without_ladder_and_example_the_page_says_so() -> None:
    bare = comparison_page(ROWS, [], None)
    text = text_of(bare.html)
    assert bare.pictures == {}
    assert "The ladder was not climbed" in text
    assert "The store does not hold the hours of that example" in text


def test_the_summary_is_a_short_table(page: Page) -> None:
    assert "default|0.664 (0.611 to 0.715)|0.502|+2.1 % (+0.4 % to +3.9 %)" in page.markdown
    assert "its feature is not \\<b\\>there\\</b\\>" in page.markdown
    assert len(comparison_page(ROWS * 9, [], None).markdown) < INLINE_CHARACTERS


def test_the_page_loads_nothing_and_shows_no_gap(page: Page) -> None:
    html = re.sub(r"base64,[^\"]*", "", page.html)
    assert not re.search(r"https?:|//[a-z]|<script|<link", html)
    assert not re.search(r"\b(nan|None|inf)\b", text_of(html))


def test_the_same_figures_give_the_same_page(page: Page) -> None:
    assert comparison_page(ROWS, STEPS, CASE) == page


def test_a_step_that_never_traded_has_no_point_at_zero() -> None:
    traded = comparison_page(
        [], [Compared("x", RECIPE, evaluation(own=replace(OWN, net_per_trade=Interval(0.0, None, None))))], None
    )
    never = comparison_page([], [Compared("x", RECIPE, evaluation(own=NOTHING))], None)
    assert traded.pictures["ladder"] != never.pictures["ladder"]
