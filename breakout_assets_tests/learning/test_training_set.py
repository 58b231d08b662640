from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from breakout_assets.learning.model_files import model_hash
from breakout_assets.learning.selection import select
from breakout_assets.learning.training import fit_selection
from breakout_assets.learning.training_set import of_one_origin, pooled_selection, write_shards
from breakout_assets.store import Store
from breakout_assets_tests.learning.examples import SMALL, START, feature_rows, store_features
from breakout_assets_tests.samples import at


def rows_from(*parts: tuple[str | None, int]) -> pd.DataFrame:
    origins = [origin for origin, count in parts for _ in range(count)]
    hours = pd.date_range(at("2024-03-01"), periods=len(origins), freq="h")
    return pd.DataFrame(
        {
            "token": "A-1",
            "timestamp": hours,
            "origin": pd.Series(origins, dtype="str"),
            "label_status": "labelled",
        },
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


def test_the_order_of_rows_does_not_decide_between_two_sources_of_the_newest_hour() -> None:
    rows = pd.concat(
        [
            rows_from(("cmc", 9)).assign(token="B-2"),
            rows_from(("candles:binance", 9)).assign(token="A-1"),
            rows_from(("cmc", 3)).assign(token="C-3"),
        ],
        ignore_index=True,
    )
    for seed in range(5):
        assert of_one_origin(rows.sample(frac=1, random_state=seed), 8)[1] == "candles:binance"
    equal = rows[rows["token"] != "C-3"]
    for seed in range(5):
        assert of_one_origin(equal.sample(frac=1, random_state=seed), 99)[1] == "candles:binance"


# Shards --------------------------------------------------------------------------------------------------------------

TOKENS = [f"T{k}-{k}" for k in range(3)]


def test_each_shard_holds_its_tokens_and_the_last_one_all_others(store: Store, tmp_path: Path) -> None:
    rows = feature_rows(tokens=3).assign(origin="cmc")
    store_features(store, rows)
    files = write_shards(store, SMALL.features, [TOKENS[2:], TOKENS[:1]], tmp_path, others=True)
    held = [pd.read_parquet(file).sort_values("timestamp", ignore_index=True) for file in files]
    assert [part["token"].unique().tolist() for part in held] == [["T2-2"], ["T0-0"], ["T1-1"]]
    for part in held:
        own = rows[rows["token"] == part["token"].iloc[0]].reset_index(drop=True)
        pd.testing.assert_frame_equal(part[list(SMALL.features)], own[list(SMALL.features)], check_exact=True)
        assert part["finite"].all()
    assert len(write_shards(store, SMALL.features, [TOKENS[2:]], tmp_path, others=False)) == 1


def test_shards_of_a_store_without_rows_are_empty(store: Store, tmp_path: Path) -> None:
    [file, others] = write_shards(store, SMALL.features, [TOKENS], tmp_path, others=True)
    assert pd.read_parquet(file).empty
    selection, origin = pooled_selection([file, others], SMALL, None)
    assert (len(selection.rows), len(selection.every_hour), origin) == (0, 0, "")


@pytest.mark.parametrize("hour_step", [1, 6])
@pytest.mark.parametrize("as_of", [None, (START + pd.Timedelta(hours=450)).to_pydatetime()])
def test_the_pool_is_the_same_out_of_files_as_out_of_all_rows(
    store: Store, tmp_path: Path, hour_step: int, as_of: datetime | None
) -> None:
    rows = feature_rows(tokens=3, hours=500)
    venue = feature_rows(tokens=2, hours=490, seed=1).assign(origin="candles:binance")
    venue["token"] = venue["token"].str.replace("T", "V")
    rows = pd.concat([rows.assign(origin=np.where(rows.index % 2, "cmc", "cmc:followed")), venue], ignore_index=True)
    rows.loc[10:14, "VWRSI"] = np.nan
    rows.loc[20:22, "OBV"] = 1e300
    rows.loc[30:36, ["label_status", "y", "label_end"]] = ["censored", None, None]
    recipe = replace(SMALL, hour_step=hour_step, max_rows=310)
    store_features(store, rows)
    files = write_shards(store, recipe.features, [["T1-1"]], tmp_path, others=True)
    found, origin = pooled_selection(files, recipe, as_of)
    one_source, expected_origin = of_one_origin(rows, recipe.min_rows)
    expected = select(one_source, recipe, as_of)
    assert (origin, found.dropped) == (expected_origin, expected.dropped)
    assert found.dropped.not_finite == 8
    assert found.dropped.thinned > 0
    assert len(found.every_hour) == len(expected.every_hour) > len(found.rows)
    model, other = (fit_selection(each, recipe, "pooled", "ALL") for each in (found, expected))
    assert (model_hash(model), model.data_hash) == (model_hash(other), other.data_hash)
    assert model.admission == other.admission
