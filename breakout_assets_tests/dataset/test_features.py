import sys
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from breakout_assets.dataset.compiling import load_compiled
from breakout_assets.dataset.features import days_of_look_back, with_indicators
from breakout_assets.dataset.indicators import INDICATOR_COLUMNS, LOOKBACK, window_indicators
from breakout_assets.dataset.stationary import STATIONARY_COLUMNS, stationary_indicators
from breakout_assets_tests.samples import at

HOUR = at("2024-03-05 10:00")
NAMES = [*INDICATOR_COLUMNS, *STATIONARY_COLUMNS]


def market() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    hours = [HOUR - timedelta(hours=n) for n in range(719, -1, -1)]
    unchanging = {"cmc_rank": 7, "num_market_pairs": 20, "quarantine": None, "origin": None}
    rows = [
        {"token": token, "timestamp": hour, "price": price, "volume": 1e6 * price, **unchanging}
        for token in ("A-1", "B-2")
        for hour, price in zip(hours, 10 * np.exp(np.cumsum(rng.normal(0, 0.01, len(hours)))), strict=True)
    ]
    return pd.DataFrame(rows).astype({"quarantine": "str", "origin": "str"})


def computed(rows: pd.DataFrame) -> pd.DataFrame:
    """The indicators of HOUR by token, from rows that are all believed and of one series a token."""
    published = window_indicators(rows, (HOUR, HOUR))
    return published.join(stationary_indicators(rows, published)).set_index("token")[NAMES]


def test_the_look_back_of_a_day_covers_720_hours_before_each_of_its_hours() -> None:
    days = list(days_of_look_back(date(2024, 3, 31)))
    assert (days[0], days[-1], len(days)) == (date(2024, 3, 1), date(2024, 3, 31), 31)
    assert timedelta(days=30) == LOOKBACK


def test_rows_get_the_indicators_of_their_own_token_and_hour() -> None:
    rows = market()
    asked = rows[rows["timestamp"] == HOUR].sample(frac=1, random_state=1)
    found = with_indicators(asked, rows, HOUR, HOUR)
    assert found["token"].tolist() == asked["token"].tolist()
    assert list(found.columns) == [*rows.columns, *NAMES]
    np.testing.assert_array_equal(found[NAMES].to_numpy(), computed(rows).loc[found["token"]].to_numpy())


def test_a_quarantined_row_has_no_indicators() -> None:
    rows = market()
    bad = (rows["token"] == "A-1") & (rows["timestamp"] >= HOUR - timedelta(hours=1))
    rows.loc[bad, "price"] = 0.0
    rows.loc[bad, "quarantine"] = "PRICE_NOT_POSITIVE"
    found = with_indicators(rows[rows["timestamp"] == HOUR], rows, HOUR, HOUR).set_index("token")
    assert found.loc["A-1", NAMES].isna().all()
    assert found.loc["B-2", NAMES].notna().all()


def test_a_quarantined_row_may_lack_its_token() -> None:
    rows = market()
    expected = computed(rows)
    nameless = rows[rows["timestamp"] == HOUR - timedelta(hours=2)].assign(token=None, quarantine="IDENTITY_MISSING")
    found = with_indicators(rows[rows["timestamp"] == HOUR], pd.concat([rows, nameless]), HOUR, HOUR).set_index("token")
    np.testing.assert_array_equal(found[NAMES].to_numpy(), expected.loc[found.index].to_numpy())


@pytest.mark.usefixtures("nothing_compiled")
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("categories", [["B-2", "A-1"], ["Z-9", "A-1", "0-0", "B-2"]])
def test_coded_tokens_may_have_any_order_and_names_that_no_row_has(categories: list[str], compiled: bool) -> None:
    if compiled:
        pytest.importorskip("numba", reason="the extra `fast` is not installed")
        assert load_compiled(sys.maxsize)
    rows = market()
    coded = rows.assign(token=pd.Categorical(rows["token"], categories=categories))
    asked = rows[rows["timestamp"] == HOUR]
    expected = with_indicators(asked, rows, HOUR, HOUR)
    pd.testing.assert_frame_equal(with_indicators(asked, coded, HOUR, HOUR), expected)
    at_hour = window_indicators(coded, (HOUR, HOUR))
    assert at_hour["token"].tolist() == ["A-1", "B-2"]


def test_a_quarantined_row_is_as_good_as_absent_to_later_ones() -> None:
    rows = market()
    bad = (rows["token"] == "A-1") & (rows["timestamp"] == HOUR - timedelta(hours=1))
    expected = computed(rows[~bad])
    rows.loc[bad, "price"] = 0.0
    rows.loc[bad, "quarantine"] = "PRICE_NOT_POSITIVE"
    found = with_indicators(rows[rows["timestamp"] == HOUR], rows, HOUR, HOUR).set_index("token")
    np.testing.assert_array_equal(found[NAMES].to_numpy(), expected.loc[found.index].to_numpy())


@pytest.mark.parametrize("broken_by", ["units", "source"])
def test_no_window_reaches_back_over_a_break_of_the_series(broken_by: str) -> None:
    rows = market()
    of_a, at_break = rows["token"] == "A-1", HOUR - timedelta(hours=30)
    if broken_by == "units":
        rows.loc[of_a & (rows["timestamp"] == at_break), "quarantine"] = "SPLIT_SUSPECT"
        after = rows[of_a & (rows["timestamp"] > at_break)]
    else:
        rows.loc[of_a & (rows["timestamp"] >= at_break), "origin"] = "candles:binance"
        after = rows[of_a & (rows["timestamp"] >= at_break)]
    found = with_indicators(rows[rows["timestamp"] == HOUR], rows, HOUR, HOUR).set_index("token")
    np.testing.assert_array_equal(found.loc[["A-1"], NAMES].to_numpy(), computed(after).to_numpy())
    np.testing.assert_array_equal(found.loc[["B-2"], NAMES].to_numpy(), computed(rows[~of_a]).to_numpy())
    unbroken = computed(rows).loc["A-1"]
    reaching = ["OBV", "pvt", "pvt_72", "volatility_72", "log_return_168", "log_volume_24_720", "log_rank_change_168"]
    assert found.loc["A-1", reaching[2:]].isna().all()
    assert unbroken[reaching].notna().all()
    assert not np.isclose(found.loc["A-1", reaching].astype("float64"), unbroken[reaching]).any()
