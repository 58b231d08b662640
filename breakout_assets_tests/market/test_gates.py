import gzip
import json
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from breakout_assets.market.faults import FAULTS
from breakout_assets.market.gates import EXCLUSIONS, REASONS, WEEK, context_hours, judge
from breakout_assets.market.schema import HOUR, hours_between
from breakout_assets.market.simulated import SimulatedMarket
from breakout_assets_tests.samples import at, shared

START = at("2024-03-01 00:00")
# Gates that look at the store, at the labels or at the registry, not at the rows.
ELSEWHERE = {"HOUR_MISSING", "CENSORED", "TOO_FEW_ROWS", "COLLISION"}
TEXTS = ("token", "name", "symbol", "last_updated", "kind")
FLOATS = ("price", "volume", "circulating_supply", "market_cap", "percent_change_7d")


def typed(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns that the gates look at, with the types of market rows."""
    types = {**dict.fromkeys(TEXTS, "str"), **dict.fromkeys(FLOATS, "float64"), "id": "Int64"}
    return frame[[*types, "timestamp"]].astype({**types, "timestamp": "datetime64[us]"})


def coin(prices: Sequence[float | None], label: str = "A", first: datetime = START, **columns: Any) -> pd.DataFrame:
    """Hourly rows of a coin; None: it is not in that hour. Lists in `columns` have a value an hour."""
    price = np.array(prices, dtype=np.float64)
    frame = {
        "token": label,
        "id": sum(map(ord, label)),
        "name": f"Coin {label}",
        "symbol": label,
        "timestamp": hours_between(first, first + (len(prices) - 1) * HOUR),
        "price": price,
        "volume": 1e6,
        "circulating_supply": 1e6,
        "market_cap": 1e6 * price,
        "percent_change_7d": None,
        "last_updated": None,
        "kind": "coin",
    }
    return typed(pd.DataFrame(frame | columns)[[value is not None for value in prices]])


def together(*frames: pd.DataFrame) -> pd.DataFrame:
    return pd.concat(frames, ignore_index=True)


def codes(rows: pd.DataFrame, name: str = "A") -> list[str]:
    """The verdicts on a coin's rows without any context, by hour; "" where a row is believed."""
    verdict = judge(rows, rows.iloc[:0])
    assert str(verdict.dtype) == "str"
    return verdict[rows["token"] == name].fillna("").tolist()


def wander(count: int, seed: int = 0, step: float = 0.01) -> list[float]:
    """Prices that never stand still and never jump."""
    steps = np.random.default_rng(seed).normal(0, step, count)
    return [float(price) for price in 10 * np.exp(np.cumsum(np.clip(steps, -3 * step, 3 * step)))]


def stamps(first: datetime, count: int, seconds: float = -30) -> list[str]:
    """A `last_updated` that many seconds after each hour."""
    moments = (first + n * HOUR + timedelta(seconds=seconds) for n in range(count))
    return [f"{moment:%Y-%m-%dT%H:%M:%S}.000Z" for moment in moments]


def places(verdicts: list[str], code: str) -> list[int]:
    """Hours with exactly this verdict; no other may occur."""
    assert set(verdicts) <= {"", code}
    return [hour for hour, verdict in enumerate(verdicts) if verdict]


# --- what is looked at --------------------------------------------------------------------------------------------


def test_an_hour_needs_the_day_before_it_and_the_hour_a_week_before() -> None:
    needed = context_hours(START, START)
    assert needed == [START - WEEK * HOUR, *hours_between(START - 24 * HOUR, START - HOUR)]


def test_a_range_needs_these_hours_of_each_of_its_hours_but_not_its_own() -> None:
    for length in (2, 24, 150, 168, 169, 500):
        last = START + (length - 1) * HOUR
        own = hours_between(START, last)
        each = {hour for moment in own for hour in context_hours(moment, moment)}
        assert context_hours(START, last) == sorted(each - set(own))
        assert len(context_hours(START, last)) <= WEEK


def test_every_code_is_explained_and_every_gate_of_a_fault_is_somewhere() -> None:
    assert set(REASONS) >= EXCLUSIONS
    assert {fault.gate for fault in FAULTS.values()} - set(REASONS) == ELSEWHERE
    for code, text in REASONS.items():
        assert code.replace("_", "").isupper()
        assert len(text) > 20


def test_nothing_is_said_of_nothing() -> None:
    empty = coin([1.0]).iloc[:0]
    assert judge(empty, coin([1.0])).empty
    assert str(judge(empty, empty).dtype) == "str"


def test_verdicts_have_the_index_of_their_rows() -> None:
    rows = coin([1.0, 2.0, 3.0], volume=[1.0, 0.0, 1.0]).set_axis([7, 7, 3])
    assert judge(rows, rows.iloc[:0]).index.tolist() == [7, 7, 3]
    assert judge(rows, rows.iloc[:0]).fillna("").tolist() == ["", "ZERO_VOLUME", ""]


# --- the row itself -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"price": 0.0}, "PRICE_NOT_POSITIVE"),
        ({"price": -1.0}, "PRICE_NOT_POSITIVE"),
        ({"price": np.nan}, "PRICE_MISSING"),
        ({"price": np.inf}, "PRICE_MISSING"),
        ({"volume": -1.0}, "VOLUME_IMPOSSIBLE"),
        ({"volume": np.inf}, "VOLUME_IMPOSSIBLE"),
        ({"volume": np.nan}, ""),
        ({"volume": 0.0}, "ZERO_VOLUME"),
        ({"id": pd.NA, "symbol": ""}, "IDENTITY_MISSING"),
        ({"id": pd.NA, "name": None}, "IDENTITY_MISSING"),
        ({"symbol": "", "name": None}, ""),
        ({"id": pd.NA}, ""),
        ({"kind": "stablecoin"}, "STABLECOIN"),
        ({"kind": "wrapped"}, "WRAPPED"),
        ({"kind": None, "name": "Wrapped Bitcoin"}, "WRAPPED"),
        ({"kind": None, "name": "Wrappedish"}, ""),
        ({"kind": "coin", "name": "Wrapped Up"}, ""),
    ],
)
def test_a_row_may_be_at_fault_by_itself(columns: dict[str, Any], expected: str) -> None:
    assert codes(coin([10.0]).assign(**columns).pipe(typed)) == [expected]


def test_all_codes_that_hold_are_given_in_the_order_of_the_registry() -> None:
    row = coin([0.0], volume=-1.0, id=None, name="", kind="stablecoin", last_updated="2024-02-01T00:00:00.000Z")
    assert codes(row) == ["IDENTITY_MISSING;PRICE_NOT_POSITIVE;VOLUME_IMPOSSIBLE;STALE_PRICE;STABLECOIN"]
    assert codes(coin([1.0], volume=0.0, kind="wrapped")) == ["ZERO_VOLUME;WRAPPED"]


def test_the_first_usable_row_of_a_coin_counts() -> None:
    assert codes(together(coin([1.0]), coin([2.0]), coin([1.0]))) == ["", "DUPLICATE", "DUPLICATE"]
    assert codes(together(coin([0.0]), coin([2.0]))) == ["PRICE_NOT_POSITIVE", ""]


def test_a_duplicate_is_neither_judged_by_the_past_nor_part_of_it() -> None:
    rows = together(coin(wander(30)), coin([900.0] * 7, first=START + 20 * HOUR))
    verdicts = judge(rows, rows.iloc[:0])
    assert verdicts.iloc[:30].isna().all()
    assert verdicts.iloc[30:].tolist() == ["DUPLICATE"] * 7


def test_the_fault_of_a_row_is_not_repeated_at_its_duplicates() -> None:
    rows = together(coin([*wander(20), 900.0]), coin([900.0], first=START + 20 * HOUR))
    assert codes(rows)[20:] == ["GLITCH", "DUPLICATE"]


def test_rows_without_an_id_that_differ_are_two_coins_nobody_can_tell_apart() -> None:
    anonymous = [coin([price], id=None) for price in (1.0, 2.0)]
    assert codes(together(*anonymous)) == ["AMBIGUOUS_IDENTITY"] * 2
    assert codes(together(anonymous[0], anonymous[0])) == ["", "DUPLICATE"]


@pytest.mark.parametrize("fault", [{"price": 0.0}, {"volume": -1.0}, {"id": pd.NA, "name": ""}])
def test_a_row_at_fault_is_no_price_to_compare_with(fault: dict[str, Any]) -> None:
    """As the only one before it would make a glitch of the next."""
    bad = coin([900.0]).assign(**fault).pipe(typed)
    assert codes(together(bad, coin([10.0, 10.1], first=START + HOUR)))[1:] == ["", ""]
    assert codes(together(coin([900.0]), coin([10.0, 10.1], first=START + HOUR)))[1:] == ["GLITCH", "GLITCH"]


# --- stale and late -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "expected"), [(-7201, "STALE_PRICE"), (-7199, ""), (5399, "")])
def test_a_stamp_of_more_than_two_hours_ago_is_stale(seconds: float, expected: str) -> None:
    assert codes(coin(wander(3), last_updated=stamps(START, 3, seconds))) == [expected] * 3


def test_a_price_is_stale_from_its_sixth_snapshot_on() -> None:
    rows = coin([*wander(10), *[11.0] * 8, *wander(5)])
    assert places(codes(rows), "STALE_PRICE") == [15, 16, 17]
    tiny = [11.0 * (1 + n * 1e-11) for n in range(8)]
    assert places(codes(coin([*wander(10), *tiny])), "STALE_PRICE") == []


def test_five_snapshots_or_six_with_a_hole_are_not_stale() -> None:
    assert places(codes(coin([*wander(10), *[11.0] * 5, *wander(5)])), "STALE_PRICE") == []
    hole: list[float | None] = [11.0, 11.0, 11.0, None, 11.0, 11.0, 11.0, 11.0, 11.0]
    assert places(codes(coin([*wander(10), *hole])), "STALE_PRICE") == []
    assert places(codes(coin([*wander(10), *hole, 11.0])), "STALE_PRICE") == [18]  # the hole has no row


@pytest.mark.parametrize(("seconds", "late"), [(5401, True), (5399, False)])
def test_an_hour_is_late_as_a_whole_by_the_median_of_its_stamps(seconds: float, late: bool) -> None:
    of_hour = [stamps(START, 1, seconds)] * 3 + [stamps(START, 1)] * 2
    rows = together(*(coin([10.0], token, last_updated=stamp) for token, stamp in zip("ABCDE", of_hour, strict=True)))
    unstamped = coin([0.0], "F")
    expected = (
        ["LATE_SNAPSHOT"] * 5 + ["PRICE_NOT_POSITIVE;LATE_SNAPSHOT"] if late else [""] * 5 + ["PRICE_NOT_POSITIVE"]
    )
    rows = together(rows, unstamped)
    assert judge(rows, rows.iloc[:0]).fillna("").tolist() == expected
    assert codes(rows.iloc[1:], "B") == [""]  # two of four: the median lies between


def test_without_stamps_no_hour_is_late() -> None:
    assert codes(coin(wander(3), last_updated="soon")) == [""] * 3


# --- one coin's jumps ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hours", [1, 2, 3])
@pytest.mark.parametrize("factor", [3.5, 1 / 3.5, 8.0, 1e6])
def test_a_wrong_price_of_up_to_three_hours_is_a_glitch_and_the_hours_after_it_are_not(
    hours: int, factor: float
) -> None:
    prices = wander(40)
    prices[20 : 20 + hours] = [factor * price for price in prices[20 : 20 + hours]]
    assert places(codes(coin(prices)), "GLITCH") == list(range(20, 20 + hours))


def test_a_jump_is_believed_once_it_has_held_for_four_hours() -> None:
    prices = wander(20) + [4 * price for price in wander(20, seed=1)]
    assert places(codes(coin(prices)), "GLITCH") == [20, 21, 22, 23]


def test_a_jump_below_a_factor_of_three_is_no_glitch() -> None:
    assert places(codes(coin([*wander(20, step=1e-3), 29.0])), "GLITCH") == []
    assert places(codes(coin([*wander(20, step=1e-3), 31.0])), "GLITCH") == [20]


def test_a_collapse_in_many_steps_is_no_glitch() -> None:
    prices = wander(20, step=1e-3) + [10 * 0.4**n for n in range(1, 20)]
    assert places(codes(coin(prices)), "GLITCH") == []


def test_a_price_of_seven_hours_ago_is_enough_to_compare_with_and_of_eight_too_old() -> None:
    assert places(codes(coin([10.0, *[None] * 6, 80.0])), "GLITCH") == [1]
    assert places(codes(coin([10.0, *[None] * 7, 80.0])), "GLITCH") == []


# --- units --------------------------------------------------------------------------------------------------------


def split(factor: float, supply: float | None, cap: float | None, hours: int = 20) -> pd.DataFrame:
    """A coin whose price is multiplied from hour 20 on; supply and cap factors, None: unknown on both sides."""
    prices = wander(20, step=1e-3) + [factor * price for price in wander(hours, seed=1, step=1e-3)]
    turns = [1.0] * 20 + [factor] * hours
    supplies = [np.nan if supply is None else 1e6 * (supply if turn != 1 else 1) for turn in turns]
    caps = [np.nan if cap is None else 1e7 * (cap if turn != 1 else 1) for turn in turns]
    return coin([*prices], circulating_supply=supplies, market_cap=caps)


@pytest.mark.parametrize(
    ("factor", "supply", "cap"),
    [
        (1000.0, 0.001, 1.0),
        (0.001, 1000.0, 1.0),
        (7.0, 1 / 7, 1.25),  # no power of ten is needed where everything is known
        (7.0, 1.2 / 7, 0.8),
        (100.0, None, None),
        (0.1, None, None),
        (10.9, None, 1.0),
        (1000.0, 0.001, None),
    ],
)
def test_the_first_row_in_new_units_is_marked_and_no_row_is_a_glitch(
    factor: float, supply: float | None, cap: float | None
) -> None:
    assert places(codes(split(factor, supply, cap)), "SPLIT_SUSPECT") == [20]


@pytest.mark.parametrize(
    ("factor", "supply", "cap"),
    [
        (1000.0, 1.0, 1000.0),  # the price alone
        (1000.0, 0.001, 1.5),  # cap moved
        (1000.0, 0.0005, 1.0),  # supply does not fit
        (20.0, None, None),  # no power of ten
        (1000.0, None, 1000.0),  # what is known says no
        (7.0, 1 / 7, None),  # half of it is known, and it is no power of ten
    ],
)
def test_a_jump_that_is_no_change_of_units_is_a_glitch(factor: float, supply: float | None, cap: float | None) -> None:
    assert places(codes(split(factor, supply, cap)), "GLITCH") == [20, 21, 22, 23]


def test_small_changes_of_units_go_unnoticed() -> None:
    assert places(codes(split(2.5, 1 / 2.5, 1.0)), "SPLIT_SUSPECT") == []


def test_a_supply_of_zero_is_an_unknown_one() -> None:
    rows = split(100.0, 1.0, 1.0).assign(circulating_supply=0.0, market_cap=0.0)
    assert places(codes(rows), "SPLIT_SUSPECT") == [20]


def test_a_supply_that_becomes_known_with_the_jump_says_nothing() -> None:
    rows = split(100.0, 1.0, 1.0)
    rows.loc[:19, ["circulating_supply", "market_cap"]] = 0.0
    assert places(codes(rows), "SPLIT_SUSPECT") == [20]


def test_one_row_before_new_units_is_enough() -> None:
    rows = coin([10.0, 10_100.0, 10_000.0], circulating_supply=[1e6, 1e3, 1e3], market_cap=1e7)
    assert codes(rows) == ["", "SPLIT_SUSPECT", ""]


def test_a_wrong_price_before_the_first_right_one_in_new_units_makes_no_glitch_of_that() -> None:
    """Nor is it a change of units against the wrong one."""
    prices = [*wander(20, step=1e-3), 40_000.0, 10_000.0, 10_010.0]
    rows = coin(prices, circulating_supply=None, market_cap=None)
    assert {n: code for n, code in enumerate(codes(rows)) if code} == {20: "GLITCH"}


@pytest.mark.parametrize(("hole", "found"), [(23, [20]), (24, [])])
def test_new_units_are_found_after_a_hole_of_less_than_a_day(hole: int, found: list[int]) -> None:
    before, after = wander(20), [1000 * price for price in wander(10, seed=1)]
    supplies = [1e6] * (20 + hole) + [1e3] * 10
    rows = coin([*before, *[None] * hole, *after], circulating_supply=supplies, market_cap=1e7)
    assert places(codes(rows), "SPLIT_SUSPECT") == found


def test_a_glitch_after_new_units_is_still_one() -> None:
    rows = split(1000.0, 0.001, 1.0)
    rows.loc[23, ["price", "market_cap"]] *= 8
    assert {n: code for n, code in enumerate(codes(rows)) if code} == {20: "SPLIT_SUSPECT", 23: "GLITCH"}


# --- the market's jumps -------------------------------------------------------------------------------------------


def crowd(count: int, factor: float, hit: int, hours: int = 30, wrong: int = 1, **columns: Any) -> pd.DataFrame:
    """Coins of which the first `hit` are multiplied in the hours from 20 on, for `wrong` hours."""
    frames = []
    for number in range(count):
        prices = wander(hours, seed=number)
        if number < hit:
            prices[20 : 20 + wrong] = [factor * price for price in prices[20 : 20 + wrong]]
        frames.append(coin([*prices], f"T{number}", **columns))
    return together(*frames)


def marked_hours(rows: pd.DataFrame, code: str) -> dict[int, int]:
    """How many rows of each hour have exactly this verdict; no other may occur."""
    verdict = judge(rows, rows.iloc[:0])
    assert set(verdict.dropna()) <= {code}
    hours = ((rows["timestamp"] - START) // HOUR)[verdict.notna()]
    return dict(Counter(hours.astype(int).tolist()))


@pytest.mark.parametrize("factor", [1.35, 0.7, 5.0])
def test_when_most_coins_jump_and_jump_back_the_whole_hour_is_lost_and_only_that_hour(factor: float) -> None:
    assert marked_hours(crowd(12, factor, hit=8), "MARKET_GLITCH") == {20: 12}


def test_half_of_the_coins_are_most_of_them_if_they_jump_far() -> None:
    """Of an even number the median is the mean of the two in the middle."""
    rows = crowd(12, 2.0, hit=6)
    assert marked_hours(rows, "MARKET_GLITCH") == {20: 12}


def test_a_market_moves_as_much_in_some_hours() -> None:
    assert marked_hours(crowd(12, 1.2, hit=12), "MARKET_GLITCH") == {}
    assert marked_hours(crowd(12, 1.35, hit=5), "MARKET_GLITCH") == {}


def test_a_level_of_the_market_that_holds_is_believed_from_its_second_hour_on() -> None:
    """Leaving it after that is a jump of its own."""
    assert marked_hours(crowd(12, 0.7, hit=12, hours=40, wrong=10), "MARKET_GLITCH") == {20: 12, 30: 12}


def test_the_few_coins_of_a_long_listing_that_have_a_past_do_not_speak_for_it() -> None:
    old = crowd(9, 2.0, hit=9)
    new = [coin([10.0], f"N{n}", first=START + 20 * HOUR) for n in range(3)]
    assert marked_hours(together(old, *new), "MARKET_GLITCH") == {}
    ten = crowd(10, 2.0, hit=10)
    assert marked_hours(together(ten, *new), "MARKET_GLITCH") == {20: 13}


@pytest.mark.parametrize(("coins", "found"), [(2, {}), (3, {20: 3}), (9, {20: 9})])
def test_in_a_short_listing_three_coins_are_enough(coins: int, found: dict[int, int]) -> None:
    assert marked_hours(crowd(coins, 2.0, hit=coins), "MARKET_GLITCH") == found


def test_what_befell_the_market_is_not_held_against_each_coin() -> None:
    """By a hundred, with unknown supplies: both ways it looks like new units of every coin."""
    rows = crowd(12, 100.0, hit=12, circulating_supply=0.0, market_cap=0.0)
    assert marked_hours(rows, "MARKET_GLITCH") == {20: 12}


@pytest.mark.parametrize(("lost", "found"), [(3, True), (2, False)])
@pytest.mark.parametrize("price", [0.75, 1.25])
def test_more_than_two_stablecoins_off_their_dollar_are_a_glitch_of_the_market(
    lost: int, found: bool, price: float
) -> None:
    pegs = [
        coin([*(1 + 1e-3 * (-1) ** n for n in range(20)), price if number < lost else 1.0], f"USD{number}", kind=kind)
        for number, kind in enumerate(["stablecoin"] * 5)
    ]
    rows = together(*pegs, coin([*wander(21)]))
    verdicts = codes(rows)
    assert verdicts == [""] * 20 + ["MARKET_GLITCH" if found else ""]
    assert codes(rows, "USD4")[20] == ("MARKET_GLITCH;STABLECOIN" if found else "STABLECOIN")


def test_stablecoins_of_other_currencies_and_coins_that_nobody_calls_stable_are_no_pegs() -> None:
    def pegs(level: float, kind: str | list[str]) -> pd.DataFrame:
        values = [*(level + 1e-3 * (-1) ** n for n in range(20)), 1.3 * level]
        return together(*[coin([*values], f"P{n}", kind=kind) for n in range(4)], *others)

    others = [coin([*wander(21, seed=n)], f"T{n}") for n in range(9)]
    assert codes(pegs(1.0, "stablecoin"), "T0")[20] == "MARKET_GLITCH"
    assert codes(pegs(1.06, "stablecoin"), "T0")[20] == ""
    assert codes(pegs(1.0, "coin"), "T0")[20] == ""
    assert codes(pegs(1.0, ["stablecoin"] * 20 + ["coin"]), "T0")[20] == ""
    assert codes(pegs(1.0, ["coin"] * 20 + ["stablecoin"]), "T0")[20] == "MARKET_GLITCH"


# --- the reported change ------------------------------------------------------------------------------------------


def week(own: float, reported: float | None, **columns: Any) -> pd.DataFrame:
    """A coin a week apart, with its own change and the one the listing reports, both in percent."""
    prices: list[float | None] = [10.0, *[None] * (WEEK - 1), 10 * (1 + own / 100)]
    changes: dict[str, Any] = {
        "percent_change_7d": [None] * WEEK + [reported],
        "market_cap": None,
        "circulating_supply": None,
    }
    return coin(prices, **(changes | columns))


@pytest.mark.parametrize(
    ("own", "reported", "expected"),
    [
        (5.0, 6.9, ""),
        (5.0, 7.2, "CHANGE_DISAGREES"),
        (-50.0, -51.9, ""),
        (-50.0, -47.9, "CHANGE_DISAGREES"),
        (100.0, 103.9, ""),  # two percent of the growth
        (100.0, 104.2, "CHANGE_DISAGREES"),
        (100.0, -50.0, "CHANGE_DISAGREES"),
        (100.0, None, ""),
    ],
)
def test_a_change_that_our_prices_do_not_show_is_not_believed(
    own: float, reported: float | None, expected: str
) -> None:
    assert codes(week(own, reported)) == ["", expected]


@pytest.mark.parametrize(
    ("seconds", "judged"), [(170, True), (-170, True), (190, False), (-190, False), (2400, False), (None, True)]
)
def test_changes_are_compared_only_between_snapshots_a_week_apart(seconds: float | None, judged: bool) -> None:
    then, now = START + timedelta(seconds=-30), START + WEEK * HOUR + timedelta(seconds=-30 + (seconds or 0))
    written = [f"{then:%Y-%m-%dT%H:%M:%S}Z"] + [""] * (WEEK - 1) + [f"{now:%Y-%m-%dT%H:%M:%S}Z" if seconds else ""]
    assert codes(week(5.0, 15.0, last_updated=written)) == ["", "CHANGE_DISAGREES" if judged else ""]


def test_a_change_across_new_units_is_not_compared() -> None:
    supplies = {"circulating_supply": [1e6] * WEEK + [1e3], "market_cap": [1e7] * WEEK + [1e7]}
    assert codes(week(99_900.0, 1.0, **supplies)) == ["", ""]
    assert codes(week(99_900.0, 1.0, **(supplies | {"circulating_supply": 1e6}))) == ["", "CHANGE_DISAGREES"]


def test_other_hours_than_the_one_a_week_ago_are_no_reference() -> None:
    rows = week(5.0, 15.0)
    rows["timestamp"] += pd.to_timedelta([1, 0], unit="h")
    assert codes(rows) == ["", ""]


# --- coins that stand for something else ----------------------------------------------------------------------------


def near_dollar(count: int, seed: int = 0) -> list[float]:
    return [float(price) for price in 1 + np.random.default_rng(seed).uniform(-0.015, 0.015, count)]


def test_a_coin_of_unknown_kind_that_kept_to_a_dollar_for_a_day_is_taken_for_a_stablecoin() -> None:
    verdicts = codes(coin([*near_dollar(40)], kind=None))
    assert places(verdicts, "STABLECOIN") == list(range(11, 40))  # from its twelfth hour on
    assert places(codes(coin([*near_dollar(40)], kind="coin")), "STABLECOIN") == []


def test_one_price_away_from_the_dollar_ends_it_for_a_day() -> None:
    prices = near_dollar(80)
    prices[30] = 1.03
    believed = sorted(set(range(80)) - set(places(codes(coin([*prices], kind=None)), "STABLECOIN")))
    assert believed == [*range(11), *range(30, 55)]


def test_twelve_hours_of_the_day_are_enough_and_eleven_are_not() -> None:
    for before, found in ((11, [11]), (10, [])):
        prices: list[float | None] = [*near_dollar(before), *[None] * (24 - before), 1.001]
        assert places(codes(coin(prices, kind=None)), "STABLECOIN") == found
    prices = [*near_dollar(11), *[None] * 14, 1.001]  # the first hour is no longer of the day
    assert places(codes(coin(prices, kind=None)), "STABLECOIN") == []


def test_a_coin_that_passes_a_dollar_is_none() -> None:
    for change, found in ((-4.5, 0), (3.5, 29)):
        rows = coin([*near_dollar(40)], kind=None, percent_change_7d=change)
        assert len(places(codes(rows), "STABLECOIN")) == found


# --- only the past, and only so much of it ----------------------------------------------------------------------------

HOURS = 9 * 24


def messy(seed: int) -> pd.DataFrame:
    """Nine days of 4 to 14 coins with holes and every fault there is, at random."""
    volumes = [0.0, -1.0, *[1e6] * 48]
    random = np.random.default_rng(seed)
    frames = []
    wild_hours = np.where(random.random(HOURS) < 0.03, random.choice([0.2, 1.4, 10.0], HOURS), 1.0)
    late_hours = random.random(HOURS) < 0.03
    for number in range(int(random.integers(4, 15))):
        near = number % 4 == 3
        steps = random.normal(0, 0.002 if near else 0.05, HOURS)
        units = np.cumprod(np.where(random.random(HOURS) < 0.01, random.choice([0.001, 10.0, 7.0], HOURS), 1.0))
        price = np.exp(steps if near else np.cumsum(steps)) * (1 if near else units) * wild_hours
        price = price * np.where(random.random(HOURS) < 0.03, random.choice([0.0, 4.0, 10.0, -1.0], HOURS), 1.0)
        frozen = random.random(HOURS) < 0.9 if number % 5 == 1 else np.zeros(HOURS, dtype=bool)
        price = np.asarray(pd.Series(np.where(frozen, np.nan, price)).ffill(), dtype=np.float64)
        supply = np.where(random.random(HOURS) < 0.1, np.nan, 1e6 / units)
        updated = np.where(late_hours, 7001, -60) - np.where(random.random(HOURS) < 0.02, 9000, 0)
        change = 100 * (price[WEEK:] / np.where(price[:-WEEK] == 0, np.nan, price[:-WEEK]) - 1)
        change = change + np.where(random.random(HOURS - WEEK) < 0.1, 30, 0)
        rows = coin(
            [*price], f"T{number}",
            circulating_supply=supply, market_cap=supply * price, volume=random.choice(volumes, HOURS),
            last_updated=[stamps(START + n * HOUR, 1, s)[0] if s % 7 else None for n, s in enumerate(updated.tolist())],
            percent_change_7d=[*[None] * WEEK, *change], kind=[None, "coin", "stablecoin", None][number % 4],
        )  # fmt: skip
        kept = random.random(HOURS) < (0.7 if number % 3 == 0 else 0.97)
        frames += [rows[kept], rows[random.random(HOURS) < 0.02]]
    lost = [START + n * HOUR for n in np.flatnonzero(random.random(HOURS) < 0.04).tolist()]
    rows = pd.concat(frames, ignore_index=True)
    return rows[~rows["timestamp"].isin(lost)].reset_index(drop=True)


def test_the_random_markets_have_every_code() -> None:
    found = set()
    for seed in range(12):
        rows = messy(seed)
        found |= {code for text in judge(rows, rows.iloc[:0]).dropna() for code in text.split(";")}
    assert found == set(REASONS) - {"IDENTITY_MISSING", "AMBIGUOUS_IDENTITY", "WRAPPED"}


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), hour=st.integers(1, HOURS - 2))
def test_nothing_later_changes_a_verdict(seed: int, hour: int) -> None:
    rows, others = messy(seed), messy(seed + 1)
    moment = START + hour * HOUR
    past, verdicts = rows[rows["timestamp"] <= moment], judge(rows, rows.iloc[:0])
    other_future = pd.concat([past, others[others["timestamp"] > moment]])
    expected = verdicts[past.index]
    pd.testing.assert_series_equal(judge(past, rows.iloc[:0]), expected)
    pd.testing.assert_series_equal(judge(other_future, rows.iloc[:0]).iloc[: len(past)], expected)
    # Nor does it if it is given as context.
    now = past[past["timestamp"] == moment]
    before = pd.concat([past[past["timestamp"] < moment], others[others["timestamp"] > moment]])
    pd.testing.assert_series_equal(judge(now, before), expected[now.index])


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_hour_by_hour_with_just_its_context_gives_the_verdicts_of_all_at_once(seed: int) -> None:
    rows = messy(seed)
    at_once = judge(rows, rows.iloc[:0])
    for hour in range(WEEK - 12, HOURS):
        moment = START + hour * HOUR
        now = rows[rows["timestamp"] == moment]
        context = rows[rows["timestamp"].isin(context_hours(moment, moment))]
        pd.testing.assert_series_equal(judge(now, context), at_once[now.index])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), first=st.integers(0, HOURS - 1), length=st.integers(1, HOURS))
def test_any_range_with_its_context_or_with_more_gives_the_same_verdicts(seed: int, first: int, length: int) -> None:
    rows = messy(seed).assign(quarantine=None)
    begin, end = START + first * HOUR, START + (min(first + length, HOURS) - 1) * HOUR
    part = rows[rows["timestamp"].between(begin, end)]
    expected = judge(rows, rows.iloc[:0])[part.index]
    context = rows[rows["timestamp"].isin(context_hours(begin, end))]
    pd.testing.assert_series_equal(judge(part, context), expected)
    pd.testing.assert_series_equal(judge(part, rows), expected)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), order=st.integers(0, 2**32))
def test_rows_in_any_order_get_the_same_verdicts(seed: int, order: int) -> None:
    """But for rows of one coin and hour: of those the first one counts."""
    rows = messy(seed)
    group = rows.groupby(["timestamp", "token"]).ngroup()
    place = pd.Series(np.random.default_rng(order).permutation(group.nunique()))
    mixed = rows.loc[group.map(place).sort_values(kind="stable").index]
    half = rows["timestamp"] < START + 100 * HOUR
    pd.testing.assert_series_equal(judge(mixed, rows.iloc[:0])[rows.index], judge(rows, rows.iloc[:0]))
    later, earlier = mixed[~half[mixed.index]], mixed[half[mixed.index]]
    expected = judge(rows[~half], rows[half])
    pd.testing.assert_series_equal(judge(later, earlier)[expected.index], expected)


# --- simulated markets ------------------------------------------------------------------------------------------------

FIRST = at("2024-01-29 00:00")  # where a stretch of faults begins; 60 days are two of them
LAST = FIRST + (60 * 24 - 1) * HOUR
TOKENS = 20  # more than all faults need together
Cell = tuple[int, datetime]


@cache
def simulated(*faults: str) -> pd.DataFrame:
    """Market rows of a simulated market with its verdicts."""
    market = SimulatedMarket(seed=5, tokens=TOKENS, faults=frozenset(faults))
    return judged(pd.concat([frame for _, frame in market.snapshots(FIRST, LAST)], ignore_index=True))


def judged(raw: pd.DataFrame) -> pd.DataFrame:
    rows = raw.rename(columns={"volume_24h": "volume"}).assign(token="SIM-" + raw["id"].astype("str"))
    return rows.assign(quarantine=judge(rows, rows.iloc[:0]))


def logged(fault: str) -> list[tuple[int | None, datetime, datetime]]:
    """Coin (None: all), first and last hour of each event, as far as they are hours of the market."""
    log = SimulatedMarket(seed=5, tokens=TOKENS, faults=frozenset({fault})).fault_log(FIRST, LAST)
    return [
        (None if pd.isna(coin_id) else int(coin_id), max(first.to_pydatetime(), FIRST), min(last.to_pydatetime(), LAST))
        for coin_id, first, last in log[["id", "first_hour", "last_hour"]].itertuples(index=False)
    ]


def marked(rows: pd.DataFrame) -> dict[Cell, str]:
    """The verdict of each coin and hour that has one; a second row of a coin in an hour must not have another."""
    found = rows[rows["quarantine"].notna()]
    cells = list(zip(found["id"].astype(int), found["timestamp"].dt.to_pydatetime(), strict=True))
    assert len(set(cells)) == len(cells)
    return dict(zip(cells, found["quarantine"], strict=True))


def expected_hours(fault: str, first: datetime, last: datetime) -> list[datetime]:
    """The hours of an event in which its gate must speak: all of them, but for two faults."""
    if fault == "stale_price":
        # The stamp that stands still is half a minute before the hour before the first one: it is more than two hours
        # old from the second hour on. The price alone would show it three hours later.
        return hours_between(first + HOUR, last)
    if fault == "redenomination":
        # Only its first row; where the market's hours begin with new units, there is nothing to compare with.
        return [first] if first > FIRST else []
    return hours_between(first, last)


def expected_cells(fault: str) -> dict[Cell, str]:
    entries = logged(fault)
    if fault == "wrapped_coin":
        entries = entries[::2]  # each second one is the coin that is wrapped, and is an ordinary one
    gate, listed = FAULTS[fault].gate, simulated(fault)["id"].astype(int).unique().tolist()
    hours = [(coin_id, hour) for coin_id, *span in entries for hour in expected_hours(fault, *span)]
    return {(one, hour): gate for coin_id, hour in hours for one in ([coin_id] if coin_id else listed)}


# How many rows each fault spoils in its two events: coins times hours.
ROW_FAULTS = {
    "late_ingestion": 2 * TOKENS,
    "duplicate_rows": 2 * 6,
    "stale_price": 2 * 11,
    "redenomination": 2,
    "price_glitch": 2,
    "market_glitch": 2 * TOKENS,
    "zero_price": 2 * 2,
    "missing_price": 2 * 2,
    "rebased_change": 2 * 12,
    "stablecoin": 60 * 24,
    "wrapped_coin": 60 * 24,
    "zero_volume": 2 * 6,
}


@pytest.mark.parametrize(("fault", "count"), ROW_FAULTS.items())
def test_a_fault_is_marked_where_the_log_says_and_nothing_else_is(fault: str, count: int) -> None:
    found = marked(simulated(fault))
    assert found == expected_cells(fault)
    assert len(found) == count


def test_every_fault_is_a_fault_of_rows_or_one_that_other_gates_find() -> None:
    assert {name for name, fault in FAULTS.items() if fault.gate in REASONS} == set(ROW_FAULTS)


@pytest.mark.parametrize("fault", [name for name in FAULTS if name not in ROW_FAULTS])
def test_faults_that_no_row_shows_mark_none(fault: str) -> None:
    assert logged(fault)
    assert marked(simulated(fault)) == {}


def test_a_market_without_faults_has_nothing_marked() -> None:
    assert marked(simulated()) == {}


def test_all_faults_together_are_marked_as_each_alone() -> None:
    alone: dict[Cell, set[str]] = {}
    for fault in ROW_FAULTS:
        for cell, code in expected_cells(fault).items():
            alone.setdefault(cell, set()).add(code)
    rows = simulated(*FAULTS)
    # Those that hit all coins hit the coins that other faults add, too.
    for fault in ("late_ingestion", "market_glitch"):
        for _, first, last in logged(fault):
            for coin_id in rows.loc[rows["timestamp"].between(first, last), "id"].astype(int):
                alone.setdefault((coin_id, first), set()).add(FAULTS[fault].gate)
    present = set(zip(rows["id"].astype(int), rows["timestamp"].dt.to_pydatetime(), strict=True))
    assert {cell: set(text.split(";")) for cell, text in marked(rows).items()} == {
        cell: found for cell, found in alone.items() if cell in present
    }


def test_a_duplicate_is_the_second_row_and_the_first_is_believed() -> None:
    rows = simulated("duplicate_rows")
    copies = rows[rows["quarantine"].notna()]
    assert len(copies) == 12
    firsts = rows.drop(copies.index).merge(copies[["id", "timestamp"]], on=["id", "timestamp"], validate="one_to_one")
    assert len(firsts) == 12
    age = pd.Timedelta(hours=1)
    assert (pd.to_datetime(copies["last_updated"]).dt.tz_localize(None) < copies["timestamp"] - age).all()


def test_without_stamps_a_stale_price_shows_from_its_sixth_snapshot_on() -> None:
    """The first of them is the hour before the event, at whose price it stands still."""
    rows = simulated("stale_price").assign(last_updated=pd.Series(None, dtype="str"))
    verdict = judge(rows, rows.iloc[:0])
    expected = {
        (coin_id, hour): "STALE_PRICE"
        for coin_id, first, last in logged("stale_price")
        for hour in hours_between(first + 4 * HOUR, last)
    }
    assert marked(rows.assign(quarantine=verdict)) == expected


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_clean_year_has_no_false_alarm(seed: int) -> None:
    market = SimulatedMarket(seed=seed, tokens=20)
    raw = pd.concat([frame for _, frame in market.snapshots(FIRST, FIRST + 365 * 24 * HOUR)], ignore_index=True)
    rows = judged(raw)
    print(f"seed {seed}: {len(rows)} rows, false alarms {rows['quarantine'].value_counts().to_dict()}")  # noqa: T201
    assert rows["quarantine"].isna().all()


# --- real markets -----------------------------------------------------------------------------------------------------


def test_six_months_of_real_hourly_prices_are_nearly_all_believed() -> None:
    """Forty coins whose prices are those of an exchange; none of their jumps was an error."""
    panel = pd.read_parquet(shared("hourly_panel.parquet")).rename(columns={"volume_24h": "volume"})
    absent = dict.fromkeys(("id", "circulating_supply", "market_cap", "last_updated", "kind"))
    rows = typed(panel.assign(token=panel["symbol"], **absent))
    counts = judge(rows, rows.iloc[:0]).dropna().value_counts()
    print(len(rows), counts.to_dict())  # noqa: T201
    # A price may stand still where its smallest step is large, and a coin may linger at a dollar by chance.
    assert set(counts.index) <= {"STALE_PRICE", "STABLECOIN"}
    assert counts.sum() < 1e-4 * len(rows)


@pytest.fixture(scope="module")
def listing() -> pd.DataFrame:
    """A real response of 1,000 coins with their tags."""
    file = shared("cmc_listings_latest_2021-06-29_limit1000.json.gz")
    data = json.loads(gzip.decompress(file.read_bytes()))["data"]
    rows = pd.DataFrame([row["quote"]["USD"] | {key: row[key] for key in row if key != "quote"} for row in data])
    rows["last_updated"] = [row["quote"]["USD"]["last_updated"] for row in data]
    token = rows["symbol"] + "-" + rows["id"].astype("str")
    kind = ["stablecoin" if "stablecoin" in t else "wrapped" if "wrapped-tokens" in t else "coin" for t in rows["tags"]]
    rows = typed(
        rows.rename(columns={"volume_24h": "volume"}).assign(token=token, kind=kind, timestamp=at("2021-06-29 00:00"))
    )
    return rows.assign(quarantine=judge(rows, rows.iloc[:0]).fillna(""))


def test_a_real_listing_has_what_it_is_known_to_have(listing: pd.DataFrame) -> None:
    counts = listing["quarantine"].str.split(";").explode().value_counts()
    print(counts.to_dict())  # noqa: T201
    assert counts.drop("").to_dict() == {"STALE_PRICE": 1, "ZERO_VOLUME": 24, "STABLECOIN": 25, "WRAPPED": 4}


def test_coins_that_share_a_symbol_are_told_apart(listing: pd.DataFrame) -> None:
    twins = listing[listing["symbol"].isin(["ONE", "REV", "USDX", "DG", "FCT", "SCC"])]
    assert len(twins) == 12
    codes_of_twins = set(";".join(twins["quarantine"]).split(";")) - {""}
    assert codes_of_twins <= EXCLUSIONS
