import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from breakout_assets.errors import DataError
from breakout_assets.learning.calibration import Platt, fit_platt


def scored(rows: int, slope: float, intercept: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores whose real probability is a line over their logit, and outcomes drawn with it."""
    rng = np.random.default_rng(seed)
    p = rng.uniform(0.02, 0.98, rows)
    return p, (rng.random(rows) < expit(slope * logit(p) + intercept)).astype(np.int64)


@pytest.mark.parametrize(("slope", "intercept"), [(0.5, -1.0), (1.0, 0.0), (2.0, 0.7)])
def test_the_line_that_made_the_outcomes_is_found(slope: float, intercept: float) -> None:
    found = fit_platt(*scored(40_000, slope, intercept))
    assert found is not None
    assert found.slope == pytest.approx(slope, rel=0.05)
    assert found.intercept == pytest.approx(intercept, abs=0.05)


def test_it_is_an_unpenalised_logistic_regression_on_the_logit() -> None:
    p, y = scored(20_000, 0.7, -0.4)
    found = fit_platt(p, y)
    reference = LogisticRegression(C=1e9, tol=1e-10, max_iter=1000).fit(logit(p)[:, None], y)
    assert found is not None
    np.testing.assert_allclose(found.apply(p), reference.predict_proba(logit(p)[:, None])[:, 1], atol=2e-4)


def test_the_mean_probability_is_the_base_rate() -> None:
    p, y = scored(5_000, 0.4, -1.5)
    found = fit_platt(p, y)
    assert found is not None
    assert found.apply(p).mean() == pytest.approx(y.mean(), abs=1e-3)


def test_a_model_that_ranks_the_wrong_way_round_gets_the_base_rate() -> None:
    p, y = scored(3_000, -1.0, -1.0)
    found = fit_platt(p, y)
    assert found is not None
    assert found.slope == pytest.approx(0, abs=0)
    np.testing.assert_allclose(found.apply(p), y.mean(), atol=1e-3)


def test_scores_that_are_all_the_same_get_the_base_rate() -> None:
    found = fit_platt(np.full(400, 0.3), np.repeat([0, 0, 0, 1], 100))
    assert found is not None
    np.testing.assert_allclose(found.apply(np.array([0.1, 0.9])), 0.25, atol=2e-3)


def test_a_few_windows_move_scores_little_and_many_as_far_as_rows_would() -> None:
    p, y = scored(20_000, 0.5, -1.0)
    lines = [fit_platt(p, y, windows) for windows in (1, 10, 100, 10_000)]
    slopes = [line.slope for line in lines if line]
    intercepts = [line.intercept for line in lines if line]
    assert slopes == sorted(slopes, reverse=True)
    assert intercepts == sorted(intercepts, reverse=True)
    assert slopes[0] > 0.9
    assert intercepts[0] > -0.2
    free = fit_platt(p, y)
    assert free is not None
    assert slopes[-1] == pytest.approx(free.slope, abs=0.02)
    assert intercepts[-1] == pytest.approx(free.intercept, abs=0.02)


def test_one_class_has_no_calibration() -> None:
    assert fit_platt(np.array([0.1, 0.9]), np.array([0, 0])) is None
    assert fit_platt(np.array([0.1, 0.9]), np.array([1, 1])) is None
    assert fit_platt(np.empty(0), np.empty(0, dtype=np.int64)) is None


def test_scores_that_separate_the_classes_give_finite_probabilities_off_0_and_1() -> None:
    found = fit_platt(np.array([0.0, 0.0, 1.0, 1.0]), np.array([0, 0, 1, 1]))
    assert found is not None
    np.testing.assert_allclose(found.apply(np.array([0.0, 1.0])), [0.25, 0.75], atol=1e-6)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=60), st.integers(0, 2**32 - 1))
def test_calibration_keeps_the_ranking_and_gives_probabilities(scores: list[float], seed: int) -> None:
    p = np.array(scores)
    y = np.random.default_rng(seed).integers(0, 2, len(p))
    found = fit_platt(p, y)
    if found is None:
        assert len(set(y.tolist())) == 1
        return
    calibrated = found.apply(np.sort(p))
    assert (np.diff(calibrated) >= 0).all()
    assert ((calibrated >= 0) & (calibrated <= 1)).all()


def test_row_order_does_not_reach_the_probabilities() -> None:
    p, y = scored(2_000, 0.8, -1.0)
    order = np.random.default_rng(1).permutation(len(p))
    one, other = fit_platt(p, y), fit_platt(p[order], y[order])
    assert one is not None
    assert other is not None
    np.testing.assert_allclose(one.apply(p), other.apply(p), atol=2e-9)


def test_probabilities_are_rounded_and_a_missing_score_stays_missing() -> None:
    calibrated = Platt(1.0, 0.0).apply(np.array([1 / 3, np.nan, 0.0, 1.0]))
    assert calibrated[0] == pytest.approx(0.333333333, abs=1e-15)
    assert np.isnan(calibrated[1])
    np.testing.assert_allclose(calibrated[2:], [1e-6, 1 - 1e-6], atol=1e-12)


@pytest.mark.parametrize("score", [-0.01, 1.01, np.nan, np.inf])
def test_a_score_that_is_no_probability_is_refused(score: float) -> None:
    with pytest.raises(DataError, match="no number from 0 to 1"):
        fit_platt(np.array([0.2, score]), np.array([0, 1]))


def test_different_lengths_are_refused() -> None:
    with pytest.raises(DataError, match="2 scores and 3 labels"):
        fit_platt(np.array([0.2, 0.4]), np.array([0, 1, 1]))
