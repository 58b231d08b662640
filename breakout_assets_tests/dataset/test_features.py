from datetime import date, timedelta

import numpy as np
import pandas as pd

from breakout_assets.dataset.features import days_of_look_back, with_indicators
from breakout_assets.dataset.indicators import INDICATOR_COLUMNS, LOOKBACK, window_indicators
from breakout_assets_tests.samples import at

HOUR = at("2024-03-05 10:00")


def market() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    hours = [HOUR - timedelta(hours=n) for n in range(60, -1, -1)]
    rows = [
        {"token": token, "timestamp": hour, "price": price, "volume": 1e6 * price, "quarantine": None}
        for token in ("A-1", "B-2")
        for hour, price in zip(hours, 10 * np.exp(np.cumsum(rng.normal(0, 0.01, len(hours)))), strict=True)
    ]
    return pd.DataFrame(rows).astype({"quarantine": "str"})


def test_the_look_back_of_a_day_covers_720_hours_before_each_of_its_hours() -> None:
    days = list(days_of_look_back(date(2024, 3, 31)))
    assert (days[0], days[-1], len(days)) == (date(2024, 3, 1), date(2024, 3, 31), 31)
    assert timedelta(days=30) == LOOKBACK


def test_rows_get_the_indicators_of_their_own_token_and_hour() -> None:
    rows = market()
    asked = rows[rows["timestamp"] == HOUR].sample(frac=1, random_state=1)
    found = with_indicators(asked, rows, HOUR, HOUR)
    assert found["token"].tolist() == asked["token"].tolist()
    expected = window_indicators(rows, (HOUR, HOUR)).set_index("token").loc[found["token"], list(INDICATOR_COLUMNS)]
    np.testing.assert_array_equal(found[list(INDICATOR_COLUMNS)].to_numpy(), expected.to_numpy())


def test_a_quarantined_row_has_no_indicators_and_is_in_nobodys_window() -> None:
    rows = market()
    bad = (rows["token"] == "A-1") & (rows["timestamp"] >= HOUR - timedelta(hours=1))
    rows.loc[bad, "price"] = 0.0
    rows.loc[bad, "quarantine"] = "PRICE_NOT_POSITIVE"
    found = with_indicators(rows[rows["timestamp"] == HOUR], rows, HOUR, HOUR).set_index("token")
    assert found.loc["A-1", list(INDICATOR_COLUMNS)].isna().all()
    assert found.loc["B-2", list(INDICATOR_COLUMNS)].notna().all()
