import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import lfilter

from breakout_assets.errors import DataError
from breakout_assets.learning.drift import ENOUGH_PAIRS, Drift, drift_report, flagged_share_drift, stability_index

FEATURES = tuple(f"f{k}" for k in range(18))
WEEK, TWO_MONTHS = 7 * 24, 60 * 24
START = pd.Timestamp("2024-01-01")
STEP = 6


def universe(seed: int, days: int = 150, tokens: int = 6) -> pd.DataFrame:
    """Features that never change their law, seen every sixth hour.

    As in a market, they have memories of half a day to three days, and most of each is common: to all tokens, and to
    features of one kind.
    """
    rng = np.random.default_rng(seed)
    hours = days * 24 // STEP
    market = rng.standard_normal((hours, 3))
    columns = {}
    for k, feature in enumerate(FEATURES):
        memory = 2 ** (-1 / (2, 4, 12)[k % 3])
        scale, recursion = [np.sqrt(1 - memory**2)], [1, -memory]
        common = lfilter(scale, recursion, market[:, k % 3])
        own = lfilter(scale, recursion, rng.standard_normal((hours, tokens)), axis=0)
        columns[feature] = (np.sqrt(0.6) * common[:, None] + np.sqrt(0.4) * own).ravel()
    timestamp = START + pd.to_timedelta(np.repeat(np.arange(hours) * STEP, tokens), unit="h")
    return pd.DataFrame({"token": np.tile([f"T{k}" for k in range(tokens)], hours), "timestamp": timestamp, **columns})


def last_week(rows: pd.DataFrame) -> pd.Series:
    return rows["timestamp"].gt(rows["timestamp"].max() - pd.Timedelta(hours=WEEK))


def shifted(rows: pd.DataFrame, features: tuple[str, ...], by: float) -> pd.DataFrame:
    rows = rows.copy()
    rows.loc[last_week(rows), list(features)] += by
    return rows


def report(rows: pd.DataFrame) -> Drift:
    return drift_report(rows, FEATURES, WEEK, TWO_MONTHS)


def test_markets_that_do_not_change_raise_no_alarm_where_the_usual_limit_would() -> None:
    reports = [report(universe(seed)) for seed in range(20)]
    assert all(found.enough for found in reports)
    assert sum(found.alarm for found in reports) <= 2
    beyond_convention = [(found.table["psi"] > 0.2).mean() for found in reports]
    assert np.mean(beyond_convention) > 0.5


def test_several_features_that_move_are_an_alarm() -> None:
    found = [report(shifted(universe(seed), FEATURES[:8], 2.5)) for seed in range(10)]
    assert sum(each.alarm for each in found) >= 9
    assert found[0].verdict.startswith("Drift: ")
    assert found[0].table.loc[found[0].table["drifted"], "feature"].isin(FEATURES[:8]).mean() > 0.7


def test_a_small_move_of_everything_is_an_alarm() -> None:
    found = [report(shifted(universe(seed), FEATURES, 1.5)) for seed in range(10)]
    assert sum(each.alarm for each in found) >= 9


def test_few_features_that_move_far_are_an_alarm_although_their_number_is_usual() -> None:
    found = report(shifted(universe(3), FEATURES[:4], 6.0))
    assert found.drifted_share <= max(found.usual_share, 0.25)
    assert found.far_share > found.usual_far_share
    assert found.alarm


def test_two_odd_features_of_eighteen_are_no_alarm() -> None:
    found = report(shifted(universe(1), FEATURES[:2], 50.0))
    assert found.usual_far_share < found.far_share < 0.15
    assert found.table["drifted"].to_list()[:2] == [True, True]
    assert not found.alarm
    assert found.verdict.startswith("No drift: ")


def test_what_the_market_has_done_before_is_no_alarm() -> None:
    rows = universe(2)
    for weeks in (0, 4):  # the same jump a month ago and now
        day = rows["timestamp"].max() - pd.Timedelta(weeks=weeks)
        there = (rows["timestamp"] > day - pd.Timedelta(weeks=1)) & (rows["timestamp"] <= day)
        rows.loc[there, list(FEATURES[:8])] += 2.5
    assert not report(rows).alarm


def test_limits_are_the_95th_percentiles_of_the_past_pairs() -> None:
    rows = universe(1)
    found = report(rows)
    end = rows["timestamp"].max()
    psi = np.empty((found.pairs + 1, len(FEATURES)))
    for week in range(found.pairs + 1):
        until = end - week * pd.Timedelta(weeks=1)
        middle = until - pd.Timedelta(weeks=1)
        recent = rows[(rows["timestamp"] > middle) & (rows["timestamp"] <= until)]
        before = rows[(rows["timestamp"] > middle - pd.Timedelta(days=60)) & (rows["timestamp"] <= middle)]
        assert len(recent) == WEEK // STEP * 6
        for k, feature in enumerate(FEATURES):
            edges = [-np.inf, *np.quantile(before[feature], np.arange(1, 10) / 10), np.inf]
            there, now = (
                np.maximum(np.histogram(sample[feature], edges)[0] / len(sample), 1e-4) for sample in (before, recent)
            )
            psi[week, k] = ((now - there) * np.log(now / there)).sum()
    past = psi[1:]
    assert found.pairs == (150 * 24 - STEP + 1 - TWO_MONTHS) // WEEK - 1
    assert found.table["psi"].to_list() == pytest.approx(psi[0])
    assert found.table["limit"].to_list() == pytest.approx(np.percentile(past, 95, axis=0))
    assert found.drifted_share == pytest.approx((psi[0] > np.percentile(past, 95, axis=0)).mean())
    others = [np.percentile(np.delete(past, k, axis=0), 95, axis=0) for k in range(len(past))]
    for times, usual in ((1, found.usual_share), (3, found.usual_far_share)):
        shares = [(past[k] > times * others[k]).mean() for k in range(len(past))]
        assert usual == pytest.approx(max(shares))


def test_the_recent_window_does_not_move_its_own_limits() -> None:
    before, after = report(universe(4)), report(shifted(universe(4), FEATURES, 9.0))
    assert after.table["limit"].to_list() == before.table["limit"].to_list()
    assert (after.usual_share, after.usual_far_share) == (before.usual_share, before.usual_far_share)
    assert after.outside_limit == before.outside_limit


def test_the_order_of_rows_does_not_matter() -> None:
    rows = universe(5)
    pd.testing.assert_frame_equal(report(rows.sample(frac=1, random_state=1)).table, report(rows).table)


@pytest.mark.parametrize(("pairs", "enough"), [(ENOUGH_PAIRS - 1, False), (ENOUGH_PAIRS, True)])
def test_a_short_history_gives_no_verdict_whatever_happens(pairs: int, enough: bool) -> None:
    found = report(shifted(universe(6, days=60 + 7 * (pairs + 1) + 1), FEATURES, 5.0))
    assert (found.pairs, found.enough, found.alarm) == (pairs, enough, enough)
    assert found.table["limit"].notna().all() == enough
    assert found.table["psi"].notna().all()
    assert found.verdict.startswith("Drift: " if enough else "Not enough history: ")


@pytest.mark.parametrize("days", [0, 20, 66])
def test_a_history_without_two_windows_gives_no_verdict(days: int) -> None:
    found = report(universe(7, days=days))
    assert (found.pairs, found.enough, found.alarm, found.recent_from) == (0, False, False, None)
    assert found.table["psi"].isna().all()
    assert not found.table["drifted"].any()
    assert found.verdict.startswith("Not enough history: ")


@pytest.mark.parametrize(("hours", "fits"), [(71, False), (72, True)])
def test_two_windows_that_just_fit_are_compared(hours: int, fits: bool) -> None:
    rows = pd.DataFrame({"timestamp": START + pd.to_timedelta(np.arange(hours), unit="h"), "f0": np.arange(hours)})
    assert (drift_report(rows, ("f0",), 24, 48).recent_from is not None) is fits


def test_a_past_window_with_an_outage_makes_no_limit() -> None:
    rows = universe(8)
    end = rows["timestamp"].max() - pd.Timedelta(weeks=2)
    outage = (rows["timestamp"] > end - pd.Timedelta(days=5)) & (rows["timestamp"] <= end)
    assert report(rows[~outage]).pairs == report(rows).pairs - 1


def test_a_recent_window_with_an_outage_is_not_judged() -> None:
    rows = universe(9)
    last = rows["timestamp"].max()
    outage = (rows["timestamp"] > last - pd.Timedelta(days=5)) & (rows["timestamp"] < last)
    assert not report(rows[~outage]).enough


def test_the_recent_window_is_named() -> None:
    found = report(universe(10))
    last = universe(10)["timestamp"].max()
    assert found.recent_until == last.to_pydatetime()
    assert found.recent_from == (last - pd.Timedelta(hours=WEEK - STEP)).to_pydatetime()


def test_a_feature_that_is_suddenly_missing_has_drifted() -> None:
    rows = universe(11)
    rows.loc[last_week(rows), "f3"] = np.nan
    assert report(rows).table.set_index("feature").loc["f3", "drifted"]


def test_rows_outside_the_envelope_are_counted_once_each() -> None:
    rows = universe(12)
    usual = report(rows).outside_share
    recent = rows.index[last_week(rows)]
    rows.loc[recent[: len(recent) // 2], ["f0", "f1"]] = 100.0
    assert 0.5 <= report(rows).outside_share <= 0.5 + usual


def test_a_value_that_never_changes_has_no_drift() -> None:
    rows = universe(13).assign(f0=1.0)
    row = report(rows).table.set_index("feature").loc["f0"]
    assert (row["psi"], row["limit"], row["drifted"]) == (0.0, 0.0, False)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=40), st.lists(st.floats(-5, 5), min_size=1, max_size=40))
def test_the_index_is_never_negative_and_zero_for_the_same_sample(before: list[float], now: list[float]) -> None:
    reference, recent = np.array(before), np.array(now)
    assert stability_index(reference, recent) >= 0
    assert stability_index(reference, reference) < 1e-12


def test_a_reference_of_nulls_only_can_be_compared() -> None:
    nulls = np.full(5, np.nan)
    assert stability_index(nulls, nulls) < 1e-12
    assert stability_index(nulls, np.ones(5)) > 1


def test_impossible_requests_are_refused() -> None:
    rows = universe(14, days=3)
    with pytest.raises(DataError, match=r"lack the columns f1, f2\b"):
        drift_report(rows.drop(columns=["f1", "f2"]), FEATURES)
    with pytest.raises(DataError, match="no feature is named"):
        drift_report(rows, ())
    with pytest.raises(DataError, match="windows of 0 and 24 hours"):
        drift_report(rows, FEATURES, 0, 24)
    with pytest.raises(DataError, match="windows of 24 and 0 hours"):
        drift_report(rows, FEATURES, 24, 0)


@pytest.mark.parametrize(
    ("validated", "recent", "drifted"),
    [
        (0.06, 0.0201, False),
        (0.06, 0.0199, True),
        (0.06, 0.179, False),
        (0.06, 0.181, True),
        (0.0, 0.0, False),
        (0.0, 0.01, True),
        (0.06, 0.0, True),
    ],
)
def test_a_model_may_flag_a_third_to_three_times_what_it_flagged(
    validated: float, recent: float, drifted: bool
) -> None:
    assert flagged_share_drift(validated, recent) is drifted


@pytest.mark.parametrize("shares", [(1.2, 0.1), (0.1, -0.1), (float("nan"), 0.1)])
def test_a_share_that_is_none_is_refused(shares: tuple[float, float]) -> None:
    with pytest.raises(DataError, match="lies in 0 to 1"):
        flagged_share_drift(*shares)
