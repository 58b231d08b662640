import pandas as pd
import pytest

from breakout_assets.learning.training_set import of_one_origin
from breakout_assets_tests.samples import at


def rows_from(*parts: tuple[str | None, int]) -> pd.DataFrame:
    origins = [origin for origin, count in parts for _ in range(count)]
    hours = pd.date_range(at("2024-03-01"), periods=len(origins), freq="h")
    return pd.DataFrame(
        {"timestamp": hours, "origin": pd.Series(origins, dtype="str"), "label_status": "labelled"},
    ).sample(frac=1, random_state=1, ignore_index=True)


@pytest.mark.parametrize(
    ("parts", "origin", "count"),
    [
        ([("cmc", 10)], "cmc", 10),
        ([(None, 4), ("cmc", 3), ("cmc:followed", 2)], "cmc", 9),
        ([("candles:binance", 20), ("cmc", 8)], "cmc", 8),
        ([("candles:binance", 20), ("cmc", 7)], "candles:binance", 20),
        ([("candles:binance", 5), ("candles:kraken", 6), ("cmc", 1)], "candles:kraken", 6),
    ],
)
def test_a_model_learns_from_one_source(parts: list[tuple[str | None, int]], origin: str, count: int) -> None:
    rows, chosen = of_one_origin(rows_from(*parts), 8)
    assert (chosen, len(rows)) == (origin, count)


def test_rows_without_a_label_do_not_count() -> None:
    rows = rows_from(("candles:binance", 20), ("cmc", 9))
    rows.loc[rows["origin"] == "cmc", "label_status"] = "censored"
    assert of_one_origin(rows, 8)[1] == "candles:binance"


def test_no_rows_have_no_source() -> None:
    assert of_one_origin(rows_from().reset_index(drop=True), 8)[1] == ""
