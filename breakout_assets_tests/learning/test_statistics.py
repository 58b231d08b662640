import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, roc_auc_score

from breakout_assets.errors import DataError
from breakout_assets.learning.statistics import (
    ENOUGH_WINDOWS,
    benjamini_hochberg,
    brier,
    brier_skill,
    draw_windows,
    episodes,
    expected_calibration_error,
    grouped_auc,
    hours_of,
    independent_windows,
    pooled_auc,
    uniqueness,
)
from breakout_assets_tests.learning.bootstrap import block_bootstrap

hour_lists = st.lists(st.integers(0, 1500), min_size=1, max_size=80)


def test_hours_are_whole_hours_since_1970_in_any_unit() -> None:
    times = pd.Series(["1970-01-01T00:00", "1970-01-02T01:00", "2024-03-01T05:00"]).astype("datetime64[us]")
    expected = [0, 25, int(pd.Timestamp("2024-03-01T05:00").timestamp()) // 3600]
    assert hours_of(times).tolist() == expected
    assert hours_of(times.astype("datetime64[ns]")).tolist() == expected


def test_hourly_five_day_labels_of_three_months_are_nineteen_independent_ones() -> None:
    ts = np.arange(2160)
    found = uniqueness(ts, ts + 120)
    assert found.mean() == pytest.approx(0.0088, abs=5e-5)
    assert found.sum() == pytest.approx(19.0, abs=0.05)


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(1, 60)), min_size=1, max_size=40, unique_by=lambda x: x[0]))
def test_uniqueness_is_the_mean_of_one_over_the_labels_alive(labels: list[tuple[int, int]]) -> None:
    ts = np.array([begin for begin, _ in labels])
    end = ts + np.array([length for _, length in labels])
    alive = [int(((ts <= hour) & (end > hour)).sum()) for hour in range(300)]
    expected = [np.mean([1 / alive[hour] for hour in range(a, b)]) for a, b in zip(ts, end, strict=True)]
    np.testing.assert_allclose(uniqueness(ts, end), expected, atol=1e-12)


def test_a_label_without_a_future_has_no_uniqueness() -> None:
    with pytest.raises(DataError, match="ends at or before its own hour"):
        uniqueness(np.array([5, 6]), np.array([10, 6]))
    assert not len(uniqueness(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)))


def test_windows_are_counted_in_calendar_time_whatever_the_number_of_tokens() -> None:
    ts = np.arange(1800)
    assert independent_windows(ts) == 15
    assert independent_windows(np.tile(ts, 50)) == 15
    assert independent_windows(np.array([0, 119, 120, 100_000])) == 3
    assert independent_windows(np.empty(0, dtype=np.int64)) == 0


@given(hour_lists)
def test_no_more_labels_fit_without_overlap(hours: list[int]) -> None:
    best: dict[int, int] = {}  # most labels that fit when the last of them begins here
    for hour in sorted(set(hours)):
        best[hour] = 1 + max((count for other, count in best.items() if other + 120 <= hour), default=0)
    assert independent_windows(np.array(hours)) == max(best.values())


def test_positive_hours_less_than_a_horizon_apart_are_one_episode() -> None:
    ts = np.array([0, 1, 2, 121, 241, 500])
    assert episodes(ts, np.array([1, 1, 1, 1, 1, 1])) == 3  # 2 and 121 are 119 apart, 121 and 241 are not
    assert episodes(ts[::-1], np.array([1, 0, 0, 0, 0, 1])) == 2
    assert episodes(ts, np.zeros(6, dtype=np.int64)) == 0
    assert episodes(ts, np.array([0, 0, 1, 0, 0, 0])) == 1


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.5, 0.9]), st.integers(0, 1)), min_size=1, max_size=50),
)
def test_the_pooled_auc_is_that_of_scikit_learn_ties_included(rows: list[tuple[float, int]]) -> None:
    p, y = np.array([score for score, _ in rows]), np.array([label for _, label in rows])
    if len(set(y.tolist())) == 1:
        assert np.isnan(pooled_auc(y, p))
    else:
        assert pooled_auc(y, p) == pytest.approx(roc_auc_score(y, p), abs=1e-12)


def test_the_auc_of_nothing_is_undefined() -> None:
    assert np.isnan(pooled_auc(np.empty(0, dtype=np.int64), np.empty(0)))


def test_each_group_has_its_own_auc() -> None:
    rng = np.random.default_rng(0)
    groups = pd.Series(rng.choice(["b", "a", "c"], 300))
    y, p = rng.integers(0, 2, 300), np.round(rng.random(300), 1)
    y[groups == "c"] = 1
    found = grouped_auc(groups, y, p)
    assert found.index.tolist() == ["a", "b", "c"]
    for token in "ab":
        at = (groups == token).to_numpy()
        assert found[token] == pytest.approx(roc_auc_score(y[at], p[at]), abs=1e-12)
    assert np.isnan(found["c"])


def test_brier_skill_and_calibration_error_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    p = np.r_[rng.random(500), 0.0, 0.1, 0.5, 1.0]
    y = (rng.random(504) < p**2).astype(np.int64)
    assert brier(y, p) == pytest.approx(brier_score_loss(y, p))
    reference = brier_score_loss(y, np.full(504, y.mean()))
    assert brier_skill(y, p) == pytest.approx(1 - brier_score_loss(y, p) / reference)
    observed, predicted = calibration_curve(y, p, n_bins=10)
    rows = pd.Series(p).groupby(np.searchsorted(np.linspace(0, 1, 11)[1:-1], p)).size().to_numpy()
    expected = (rows * abs(observed - predicted)).sum() / 504
    assert expected_calibration_error(y, p) == pytest.approx(expected)


def test_the_base_rate_has_no_skill_and_no_calibration_error() -> None:
    y = np.repeat([0, 1], [30, 10])
    assert brier_skill(y, np.full(40, 0.25)) == pytest.approx(0)
    assert expected_calibration_error(y, np.full(40, 0.25)) == pytest.approx(0)
    assert np.isnan(brier_skill(np.zeros(4, dtype=np.int64), np.full(4, 0.25)))


def test_q_values_follow_their_closed_form_and_skip_what_is_missing() -> None:
    found = benjamini_hochberg(np.array([0.01, np.nan, 0.04, 0.03, 0.5]))
    np.testing.assert_allclose(found, [0.04, np.nan, 0.16 / 3, 0.16 / 3, 0.5])
    assert np.isnan(benjamini_hochberg(np.array([np.nan]))).all()
    assert not len(benjamini_hochberg(np.empty(0)))


def panel(days: int, tokens: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hours, labels and scores whose labels overlap as five-day labels do, in all tokens at once."""
    rng = np.random.default_rng(seed)
    hours = days * 24
    moves = lfilter(np.ones(120), [1.0], rng.standard_normal(hours + 120))[120:] / np.sqrt(120)
    level = np.repeat(moves, tokens) + 0.3 * rng.standard_normal(hours * tokens)
    return (
        np.repeat(np.arange(hours), tokens) + 400_000,
        (level > 0.8).astype(np.int64),
        level + rng.standard_normal(hours * tokens),
    )


def test_sums_and_aucs_of_draws_are_those_of_the_drawn_rows() -> None:
    ts, y, p = panel(80, 3)
    rows = np.random.default_rng(5).permutation(len(ts))[:3000]  # gaps, any order
    ts, y, p = ts[rows], y[rows], np.round(p[rows], 1)
    draws = draw_windows(ts, draws=60, seed=4)
    assert block_bootstrap(ts, lambda at: float(y[at].mean()), draws=60, seed=4) == pytest.approx(
        draws.ratio_interval(ts, y.astype(np.float64), np.ones(len(y)))
    )
    assert block_bootstrap(ts, lambda at: roc_auc_score(y[at], p[at]), draws=60, seed=4) == pytest.approx(
        draws.interval(draws.aucs(ts, y, p))
    )


def test_every_hour_is_drawn_equally_often_and_windows_keep_all_tokens() -> None:
    ts = np.tile(np.arange(600), 2) + 1000
    token = np.repeat([0, 1], 600)
    drawn: list[np.ndarray] = []

    def keep(at: np.ndarray) -> float:
        drawn.append(at)
        return 0.0

    block_bootstrap(ts, keep, draws=2000)
    times = np.bincount(np.concatenate(drawn), minlength=1200)
    np.testing.assert_array_equal(times[:600], times[600:])
    assert times.min() / times.max() > 0.75
    for at in drawn[:50]:
        assert len(at) == 2 * 5 * 120  # five whole windows fit into 600 hours
        assert token[at].sum() == 600
        hours = np.sort(ts[at[token[at] == 0]])
        assert len(hours) == 600


def test_drawing_rows_would_be_far_too_sure_on_overlapping_labels() -> None:
    ts, y, p = panel(90, 3)
    low, high = np.percentile(draw_windows(ts).aucs(ts, y, p), [2.5, 97.5])
    rng = np.random.default_rng(0)
    single = [pooled_auc(y[at], p[at]) for at in rng.integers(0, len(ts), (100, len(ts)))]
    assert high - low > 3 * np.subtract(*np.percentile(single, [97.5, 2.5]))


def test_an_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(60):
        ts, y, _ = panel(120, 2, seed)
        low, high = draw_windows(ts, draws=200, seed=seed).ratio_interval(ts, y, np.ones(len(y))) or (1.0, 0.0)
        covered += low <= 0.2220 <= high  # P(N(0, 1.09) > .8)
    assert 45 <= covered <= 60


def test_a_draw_depends_on_the_seed_and_on_nothing_else() -> None:
    ts, y, _ = panel(90, 2)
    order = np.random.default_rng(0).permutation(len(ts))

    def mean(at: np.ndarray) -> float:
        return float(y[at].mean())

    one = block_bootstrap(ts, mean, draws=50, seed=1)
    assert one == block_bootstrap(ts, mean, draws=50, seed=1)
    assert one != block_bootstrap(ts, mean, draws=50, seed=2)
    shuffled = block_bootstrap(ts[order], lambda at: float(y[order][at].mean()), draws=50, seed=1)
    assert shuffled == pytest.approx(one)


def test_levels_are_the_percentiles_of_the_draws() -> None:
    ts, y, _ = panel(90, 2)
    draws = draw_windows(ts)
    values = draws.totals(ts, y.astype(np.float64))
    assert draws.interval(values, (25.0, 75.0)) == pytest.approx(tuple(np.percentile(values, [25, 75])))
    assert block_bootstrap(ts, lambda at: float(y[at].sum()), levels=(25.0, 75.0)) == pytest.approx(
        tuple(np.percentile(values, [25, 75]))
    )


def test_too_few_windows_have_no_interval() -> None:
    ts = np.arange(120 * ENOUGH_WINDOWS)
    assert draw_windows(ts).ratio_interval(ts, np.ones(len(ts)), np.ones(len(ts))) == pytest.approx((1, 1))
    short = ts[:-120]
    assert draw_windows(short).ratio_interval(short, np.ones(len(short)), np.ones(len(short))) is None


def test_what_happened_in_a_few_windows_only_has_no_interval() -> None:
    ts = np.arange(120 * 30)
    draws = draw_windows(ts)
    once, often = np.array([500, 510]), ts[::150]
    assert draws.ratio_interval(once, np.ones(2), np.ones(2)) is None
    assert draws.ratio_interval(often, np.ones(len(often)), np.ones(len(often))) == pytest.approx((1, 1))


def test_a_statistic_that_is_never_defined_has_no_percentiles() -> None:
    assert np.isnan(block_bootstrap(np.arange(300), lambda _: float("nan"), draws=5)).all()


@settings(max_examples=30)
@given(hour_lists)
def test_any_hours_can_be_drawn_from(hours: list[int]) -> None:
    ts = np.array(hours)
    low, high = block_bootstrap(ts, lambda at: float(len(at)), draws=5)
    assert 0 <= low <= high
    assert draw_windows(ts, draws=5).totals(ts, np.ones(len(ts))).min() >= -1e-9


def test_windows_that_no_bootstrap_should_draw_are_refused() -> None:
    with pytest.raises(DataError, match="shorter than a label"):
        draw_windows(np.arange(500), block=119)
    with pytest.raises(DataError, match="no rows"):
        draw_windows(np.empty(0, dtype=np.int64))
    with pytest.raises(DataError, match="convert times with hours_of"):
        block_bootstrap(np.array(["2024-01-01"], dtype="datetime64[us]"), lambda _: 0.0)
