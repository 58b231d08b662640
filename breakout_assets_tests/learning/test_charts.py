from collections.abc import Callable
from functools import cache
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from breakout_assets.learning import charts
from breakout_assets.learning.evidence import token_aucs
from breakout_assets.learning.statistics import pooled_auc
from breakout_assets_tests.learning.report_examples import evaluation, importances, out_of_sample

TABLE = out_of_sample(tokens=5, hours=480, twins=4)
STEPS = pd.DataFrame(
    {
        "title": ["blog_exact", "+ purge", "$^_{$ is no formula"],
        "auc": [0.52, np.nan, 0.66],
        "auc_low": [0.46, np.nan, np.nan],
        "auc_high": [0.58, np.nan, np.nan],
        "net": [-0.01, np.nan, 0.02],
        "net_low": [-0.02, np.nan, 0.01],
        "net_high": [0.001, np.nan, 0.03],
    }
)

ALL: dict[str, Callable[[], bytes]] = {
    "ranking": lambda: charts.ranking_chart(TABLE),
    "calibration": lambda: charts.calibration_chart(evaluation().calibration, TABLE),
    "threshold": lambda: charts.threshold_chart(evaluation().curve, [0.29, 0.34], 0.6, 0.21),
    "token": lambda: charts.token_chart(TABLE),
    "placebo": lambda: charts.placebo_chart(evaluation().placebo.twins, 0.6588),
    "importances": lambda: charts.importances_chart(importances()),
    "ladder": lambda: charts.ladder_chart(STEPS),
}


@cache
def drawn(name: str) -> bytes:
    return ALL[name]()


def opened(png: bytes) -> Image.Image:
    with Image.open(BytesIO(png)) as image:
        image.load()
    return image


@pytest.mark.parametrize("name", ALL)
def test_a_chart_is_a_small_readable_png_that_shows_something(name: str) -> None:
    png = drawn(name)
    image = opened(png)
    assert image.format == "PNG"
    assert 600 <= image.width <= 900
    assert len(png) <= 40_000
    assert len(image.convert("RGB").getcolors() or []) > 4


@pytest.mark.parametrize("name", ALL)
def test_the_same_numbers_give_the_same_bytes_without_dates_or_versions(name: str) -> None:
    assert ALL[name]() == drawn(name)
    assert opened(drawn(name)).info == {}


def test_the_order_of_the_rows_does_not_matter() -> None:
    shuffled = TABLE.sample(frac=1, random_state=1)
    assert charts.ranking_chart(shuffled) == drawn("ranking")
    assert charts.calibration_chart(evaluation().calibration, shuffled) == drawn("calibration")
    assert charts.token_chart(shuffled) == drawn("token")


def test_twins_do_not_enter_curves_of_the_market() -> None:
    market = TABLE[TABLE["twin"] == 0]
    assert charts.ranking_chart(market) == drawn("ranking")
    assert charts.calibration_chart(evaluation().calibration, market) == drawn("calibration")
    assert charts.token_chart(market) != drawn("token")  # there they are the expectation


def test_other_numbers_give_another_picture() -> None:
    assert charts.placebo_chart(evaluation().placebo.twins, 0.53) != drawn("placebo")
    assert charts.threshold_chart(evaluation().curve, [], 0.6, 0.21) != drawn("threshold")
    assert charts.threshold_chart(evaluation().curve, [0.29, 0.34], 0.6, float("nan")) != drawn("threshold")


@pytest.mark.parametrize("y", [0, 1])
def test_one_outcome_only_is_drawn_without_curves(y: int) -> None:
    table = TABLE.assign(y=np.int8(y))
    assert opened(charts.ranking_chart(table)).format == "PNG"
    assert opened(charts.token_chart(table)).format == "PNG"


def test_missing_baselines_are_left_out() -> None:
    table = TABLE.assign(logistic=np.nan, momentum=np.nan)
    assert opened(charts.ranking_chart(table)).format == "PNG"


def test_no_trade_no_interval_and_no_twin_are_drawn() -> None:
    none = evaluation().curve.assign(trades=0, precision=np.nan, net_mean=np.nan, net_low=np.nan, net_high=np.nan)
    unsure = evaluation().curve.assign(net_low=np.nan, net_high=np.nan)
    bins = evaluation().calibration.assign(low=np.nan, high=np.nan)
    for png in (
        charts.threshold_chart(none, [], 0.6, float("nan")),
        charts.threshold_chart(unsure, [0.3], 0.6, 0.2),
        charts.calibration_chart(bins, TABLE),
        charts.placebo_chart([], 0.6),
        charts.placebo_chart([float("nan"), 0.5], float("nan")),
        charts.token_chart(TABLE[TABLE["twin"] == 0]),
    ):
        assert opened(png).format == "PNG"


def test_the_auc_of_a_token_is_that_of_its_rows_in_one_twin() -> None:
    aucs = token_aucs(TABLE)
    assert len(aucs) == 5 * TABLE["twin"].nunique()
    rows = TABLE[(TABLE["twin"] == 2) & (TABLE["token"] == "T3-3")]
    expected = pooled_auc(rows["y"].to_numpy(dtype=np.int64), rows["probability"].to_numpy())
    assert aucs[(2, "T3-3")] == pytest.approx(expected)


def test_a_token_with_one_outcome_has_no_auc() -> None:
    table = TABLE.assign(y=TABLE["y"].where(TABLE["token"] != "T0-0", 0))
    aucs = token_aucs(table)
    assert np.isnan(aucs[(0, "T0-0")])
    assert aucs.notna().any()
