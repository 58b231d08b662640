"""Commands as a person types them."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from breakout_assets.__main__ import main
from breakout_assets.learning.evaluation_files import save_report, save_table
from breakout_assets.learning.promoting import speaking_recipe
from breakout_assets.learning.recipes import Recipe, recipe
from breakout_assets.settings import load_settings
from breakout_assets.store import Store
from breakout_assets_tests.samples import at

FIRST = at("2024-03-01 00:00")


@pytest.fixture
def candles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Arguments that make two days of candles into hours of the store `store` in the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BREAKOUT_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("COLUMNS", "200")
    rng = np.random.default_rng(1)
    rows = pd.DataFrame(
        {
            "pair": "SOL/USDT",
            "open_time": [FIRST + timedelta(hours=n) for n in range(48) if n != 7],
            "close": 100 * np.exp(np.cumsum(rng.normal(0, 0.01, 47))),
            "volume": 1000.0,
        }
    )
    rows.to_parquet(tmp_path / "candles.parquet")
    (tmp_path / "map.csv").write_text("pair,id,symbol,name\nSOL/USDT,5426,SOL,Solana\n")
    return ["candles", "candles.parquet", "--venue", "binance", "--map", "map.csv"]


def test_candle_files_become_hours(candles: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(candles) == 0
    said = capsys.readouterr().out
    assert "2024-03-01 01:00:00 to 2024-03-03 00:00:00: 47 hours written" in said
    assert "Hours without a candle of any pair: 1, the first is 2024-03-01 08:00:00" in said
    assert "null in every row: circulating_supply" in said
    assert "--partition-range 2024-03-01...2024-03-03" in said
    assert len(Store.at(str(tmp_path / "store")).raw_files(FIRST.date())) == 22
    assert main(candles) == 0
    assert "0 hours written, 47 were there already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["candles", "--venue", "binance", "--map", "map.csv"], "give candle files, or --first and --last"),
        (["candles", "absent.csv", "--venue", "binance", "--map", "map.csv"], "absent.csv"),
        (["candles", "candles.parquet", "--venue", "Binance!", "--map", "map.csv"], "no name of an exchange"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence(
    candles: list[str], arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    assert words in capsys.readouterr().err


def test_an_hour_that_is_none_is_refused_by_its_argument(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["candles", "--venue", "binance", "--map", "map.csv", "--first", "2024-01-01T00:30"])
    assert "--first" in capsys.readouterr().err


# Which recipe speaks -----------------------------------------------------------------------------------------------


def promising(store: Store, name: str) -> Recipe:
    """A recipe whose evaluation in the store has a badge; what earned it is tested elsewhere."""
    by = recipe(name, load_settings({}).round_trip_cost)
    hours = pd.date_range("2024-01-01", periods=90 * 4, freq="6h", unit="us")
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, len(hours)).astype("int8")
    table = pd.DataFrame({"timestamp": hours, "label_end": hours + pd.Timedelta(hours=120), "y": y})
    table = table.assign(twin=0, fold=0, recipe_id=by.recipe_id, token="A-1", change=np.where(y == 1, 15.0, -3.0))
    table = table.assign(price=1.0, volume=1e6, momentum=0.0, raw=0.5 + 0.3 * y, probability=0.5 + 0.3 * y)
    save_table(store, by, table.assign(threshold=0.7, scope="pooled", logistic=0.5))
    until = table["label_end"].max().to_pydatetime()
    save_report(store, by, until, {}, {"verdict": {"badge": True, "reasons": []}, "windows": 18, "brier": 0.1})
    return by


@pytest.fixture
def decided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BREAKOUT_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("COLUMNS", "200")
    return Store.at(str(tmp_path / "store"))


WHO = ["--by", "a person", "--reason", "it pays"]


def test_a_recipe_is_promoted_shown_and_rolled_back(decided: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["champion"]) == 0
    assert "default, by BREAKOUT_RECIPE" in capsys.readouterr().out
    first = promising(decided, "default")
    assert main(["promote", "default", *WHO]) == 0
    said = capsys.readouterr().out
    assert f"default ({first.recipe_id})" in said
    assert "it pays" in said
    cost = load_settings({}).round_trip_cost
    assert speaking_recipe(decided, "blog_fixed", cost) == first
    assert speaking_recipe(decided, "blog_fixed", cost, at("2024-06-01 00:00")).name == "blog_fixed"
    assert main(["rollback", *WHO]) == 1
    assert "there is nothing to go back to" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["promote", "default", *WHO], "materialise out_of_sample"),
        (["promote", "nothing", *WHO], "there is no recipe 'nothing'"),
        (["rollback", *WHO], "there is nothing to go back to"),
    ],
)
def test_a_decision_without_evidence_is_refused(
    decided: Store, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    assert words in " ".join(capsys.readouterr().err.split())
    assert not decided.root.exists()


def test_a_challenger_that_earns_no_more_than_the_champion_is_refused(
    decided: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    promising(decided, "default")
    assert main(["promote", "default", *WHO]) == 0
    promising(decided, "baseline_logit")
    assert main(["promote", "baseline_logit", *WHO]) == 1
    assert "NOT_BETTER" in capsys.readouterr().err
