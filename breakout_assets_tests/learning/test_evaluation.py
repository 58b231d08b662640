import math
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from breakout_assets.learning.evaluation import Metrics, evaluate, importance_chart
from breakout_assets.learning.recipes import PUBLISHED_FEATURES
from breakout_assets_tests.learning.examples import START


def score(y: list[int], probability: list[float]) -> Metrics:
    at = pd.Series(pd.date_range(START, periods=len(y), freq="h").as_unit("us"))
    return evaluate(np.array(y, dtype=np.int64), np.array(probability), at, threshold=0.6, train_rows=7)


def test_the_five_figures_of_a_small_case() -> None:
    metrics = score([1, 1, 1, 0, 0, 0, 0, 0], [0.9, 0.7, 0.1, 0.8, 0.2, 0.3, 0.0, 0.5])
    assert metrics.accuracy == pytest.approx(6 / 8)
    assert metrics.precision == pytest.approx(2 / 3)
    assert metrics.recall == pytest.approx(2 / 3)
    assert metrics.f1 == pytest.approx(2 / 3)
    assert metrics.auc == pytest.approx(10 / 15)  # of 3 x 5 pairs, ten are ranked right
    assert metrics.auc_reason is None


def test_what_is_needed_to_read_them() -> None:
    metrics = score([1, 0, 0, 0], [0.1, 0.9, 0.9, 0.2])
    assert (metrics.rows, metrics.positives, metrics.train_rows) == (4, 1, 7)
    assert metrics.base_rate == pytest.approx(0.25)
    assert metrics.always_no_accuracy == pytest.approx(0.75)
    assert metrics.flagged_share == pytest.approx(0.5)
    assert (metrics.first_hour, metrics.last_hour) == (START, START + pd.Timedelta(hours=3))


def test_a_probability_at_the_threshold_is_flagged() -> None:
    assert score([1, 0], [0.6, 0.599999999]).flagged_share == pytest.approx(0.5)


@pytest.mark.parametrize(("y", "said"), [([0, 0, 0], "no row"), ([1, 1, 1], "every row")])
def test_one_class_leaves_the_area_undefined_and_says_why(y: list[int], said: str) -> None:
    metrics = score(y, [0.1, 0.7, 0.2])
    assert math.isnan(metrics.auc)
    assert metrics.auc_reason is not None
    assert said in metrics.auc_reason


def test_nothing_flagged_scores_zero() -> None:
    metrics = score([1, 0], [0.1, 0.2])
    assert (metrics.precision, metrics.recall, metrics.f1) == (0, 0, 0)


def test_the_chart_is_a_small_png_of_readable_width() -> None:
    shares = np.random.default_rng(0).dirichlet(np.ones(len(PUBLISHED_FEATURES)))
    picture = importance_chart(pd.Series(shares, index=PUBLISHED_FEATURES))
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(picture) <= 40_000
    with Image.open(BytesIO(picture)) as image:
        image.load()
        assert image.width == 700
        assert len(image.convert("RGB").getcolors() or []) > 2


def test_the_same_importances_give_the_same_picture() -> None:
    importances = pd.Series([0.5, 0.3, 0.2], index=["a", "b", "c"])
    assert importance_chart(importances) == importance_chart(importances)
    assert importance_chart(importances) != importance_chart(importances[::-1].set_axis(["a", "b", "c"]))


def test_a_model_without_a_split_has_a_chart_too() -> None:
    assert importance_chart(pd.Series([0.0, 0.0], index=["a", "b"])).startswith(b"\x89PNG")
