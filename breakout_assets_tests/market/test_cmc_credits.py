"""What one more call may cost, from any answer about a key."""

from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breakout_assets.errors import DataError
from breakout_assets.market.cmc_credits import Usage, affordable, listing_cost, quotes_cost, read_usage
from breakout_assets_tests.market.listingserver import HOUR, envelope, key_info
from breakout_assets_tests.market.test_listing import ODD

RESET = datetime.fromisoformat("2025-07-15T06:30")
CALENDAR = datetime.fromisoformat("2025-08-01T00:00")


@pytest.mark.parametrize(("coins", "cost"), [(1, 1), (200, 1), (201, 2), (1000, 5), (1250, 7), (5000, 25)])
def test_a_credit_pays_two_hundred_coins_of_a_listing(coins: int, cost: int) -> None:
    assert listing_cost(coins) == cost
    assert quotes_cost(coins) == -(-coins // 100)


@pytest.mark.parametrize(
    ("plan", "month", "usage"),
    [
        ({"credit_limit_monthly": 10_000}, {"credits_used": 5}, Usage(5, 10_000, None)),
        ({"credit_limit_monthly": 1e4}, {"credits_used": "5"}, Usage(5, 10_000, None)),
        ({"credit_limit_monthly": 10_000}, {"credits_left": 9_000}, Usage(1_000, 10_000, None)),
        ({}, {"credits_used": 5, "credits_left": 95}, Usage(5, 100, None)),
        ({}, {"credits_left": 95}, Usage(None, None, None)),
        (None, None, Usage(None, None, None)),
        (
            {"credit_limit_monthly_reset_timestamp": "2025-07-15T08:30:00.000+02:00"},
            {"credits_used": 1},
            Usage(1, None, RESET),
        ),
        ({"credit_limit_monthly_reset_timestamp": "In 3 days"}, {"credits_used": 1}, Usage(1, None, None)),
    ],
)
def test_everything_in_the_answer_is_optional(plan: object, month: object, usage: Usage) -> None:
    assert read_usage(envelope({"plan": plan, "usage": {"current_month": month}})) == usage


@pytest.mark.parametrize("data", [None, [], "x", {}, {"plan": 5, "usage": []}])
def test_an_answer_without_any_of_it_tells_nothing(data: object) -> None:
    assert read_usage(envelope(data)) == Usage(None, None, None)


def test_the_smaller_of_budget_and_plan_counts() -> None:
    assert affordable(Usage(0, 50, None), 1, 100, HOUR, hourly=False)["credits_budget"] == 50
    assert affordable(Usage(0, 500, None), 1, 100, HOUR, hourly=False)["credits_budget"] == 100
    assert affordable(Usage(0, None, None), 1, 100, HOUR, hourly=False)["credits_budget"] == 100


def test_what_just_fits_is_allowed_and_one_more_is_not() -> None:
    usage = Usage(90, 100, RESET)
    assert affordable(usage, 10, 1000, HOUR, hourly=False) == {"credits_budget": 100, "credits_used_this_month": 90}
    with pytest.raises(DataError) as caught:
        affordable(usage, 11, 1000, HOUR, hourly=False)
    for words in ("90 are used", "costs 11", "100 are allowed", "MONTHLY_BUDGET 1000", "plan 100", "2025-07-15 06:30"):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("reset", "hours"),
    [
        (None, 726),  # to the end of the calendar month
        (CALENDAR, 726),
        (RESET, 325),  # 13 days, 12 hours and a part of one
        (HOUR, 726),  # a reset that lies behind or too far ahead is none
        (datetime.fromisoformat("2026-07-01T00:00"), 726),
    ],
)
def test_the_projection_adds_this_cost_for_each_hour_up_to_the_reset(reset: datetime | None, hours: int) -> None:
    told = affordable(Usage(10, None, reset), 7, 100, HOUR, hourly=True)
    assert told["credits_projected_month"] == 10 + 7 * hours


def test_the_last_hour_of_a_year_is_followed_by_january() -> None:
    hour = datetime.fromisoformat("2025-12-31T23:00")
    assert affordable(Usage(10, None, None), 7, 100, hour, hourly=True)["credits_projected_month"] == 17


@given(used=ODD, limit=ODD, reset=ODD, budget=st.integers(1, 1000))
def test_whatever_the_answer_holds_the_budget_is_kept(used: Any, limit: Any, reset: Any, budget: int) -> None:
    usage = read_usage(key_info(used, limit, reset))
    try:
        told = affordable(usage, 7, budget, HOUR, hourly=True)
    except DataError:
        assert usage.used is not None
        return
    assert int(told["credits_budget"]) <= budget
    assert usage.used is None or usage.used + 7 <= int(told["credits_budget"])
