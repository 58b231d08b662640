import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from breakout_assets.learning.baselines import RANDOM_RUNS, baselines
from breakout_assets.learning.statistics import draw_windows, hours_of
from breakout_assets.learning.thresholds import trades_of
from breakout_assets_tests.learning.test_evidence import COST, bought, bounds, predictions, real


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return real(predictions(twins=0))


@pytest.fixture(scope="module")
def own(rows: pd.DataFrame) -> pd.DataFrame:
    return trades_of(rows, rows["threshold"].to_numpy(), COST)


@pytest.fixture(scope="module")
def found(rows: pd.DataFrame, own: pd.DataFrame) -> pd.DataFrame:
    return baselines(rows, own=own, cost=COST, draws=draw_windows(hours_of(rows["timestamp"]), seed=3)).set_index(
        "name"
    )


def test_every_rule_without_a_model_is_there(found: pd.DataFrame) -> None:
    assert found.index.tolist() == [
        *("always no", "always buy", "momentum", "inverse momentum", "minus price", "logistic"),
        *("random entries", "buy and hold", "BTC", "equal weight"),
    ]
    assert found.columns.tolist() == ["auc", "precision", "flagged_share", "trades", "net_per_trade", "low", "high"]


def test_buying_nothing_and_buying_all(rows: pd.DataFrame, found: pd.DataFrame) -> None:
    nothing, everything = found.loc["always no"], found.loc["always buy"]
    assert (nothing["auc"], nothing["flagged_share"], nothing["trades"]) == (0.5, 0, 0)
    assert nothing[["precision", "net_per_trade", "low", "high"]].isna().all()
    assert (everything["auc"], everything["flagged_share"]) == (0.5, 1)
    assert everything["precision"] == pytest.approx(rows["y"].mean())
    trades = bought(rows, pd.Series(True, index=rows.index))
    assert everything["trades"] == len(trades) == 4 * 20
    assert everything["net_per_trade"] == pytest.approx(trades["net"].mean())
    assert (everything["low"], everything["high"]) == pytest.approx(bounds(rows, trades["net"].reindex(rows.index)))


@pytest.mark.parametrize("name", ["momentum", "inverse momentum", "minus price", "logistic"])
def test_a_rule_with_a_score_buys_its_best_tenth(rows: pd.DataFrame, found: pd.DataFrame, name: str) -> None:
    first = {token: part["price"].iloc[0] for token, part in rows.groupby("token")}
    score = {
        "momentum": rows["momentum"],
        "inverse momentum": -rows["momentum"],
        "minus price": -rows["price"] / rows["token"].map(first).astype("float64"),
        "logistic": rows["logistic"],
    }[name]
    known = rows[score.notna()]
    score = score.dropna()
    flagged = score >= np.sort(score)[int(np.ceil(0.9 * (len(score) - 1)))]
    line, trades = found.loc[name], bought(known, flagged)
    assert line["auc"] == pytest.approx(roc_auc_score(known["y"], score))
    assert line["precision"] == pytest.approx(known.loc[flagged, "y"].mean())
    assert line["flagged_share"] == pytest.approx(0.1, abs=0.01)
    assert line["trades"] == len(trades)
    assert line["net_per_trade"] == pytest.approx(trades["net"].mean())
    net = trades["net"].reindex(rows.index)
    assert (line["low"], line["high"]) == pytest.approx(bounds(rows, net), nan_ok=True)


def test_momentum_and_its_inverse_mirror_each_other(found: pd.DataFrame) -> None:
    assert found["auc"][["momentum", "inverse momentum"]].sum() == pytest.approx(1)


def test_random_entries_buy_as_often_and_at_the_same_hours(
    rows: pd.DataFrame, own: pd.DataFrame, found: pd.DataFrame
) -> None:
    line = found.loc["random entries"]
    assert line["trades"] == len(own)
    # Each hour of the method's trades, with what an average token of that hour did.
    expected = own["timestamp"].map(rows.groupby("timestamp")["change"].mean()) / 100 - COST
    spread = np.sqrt((own["timestamp"].map(rows.groupby("timestamp")["change"].var(ddof=0)) / 1e4).sum()) / len(own)
    assert line["net_per_trade"] == pytest.approx(expected.mean(), abs=4 * spread / np.sqrt(RANDOM_RUNS))
    assert line["high"] - line["low"] == pytest.approx(2 * 1.96 * spread, rel=0.4)
    assert line["low"] < line["net_per_trade"] < line["high"] < own["net"].mean()


def test_a_method_without_trades_has_no_random_entries(rows: pd.DataFrame, own: pd.DataFrame) -> None:
    lines = baselines(rows, own=own.iloc[:0], cost=COST, draws=draw_windows(hours_of(rows["timestamp"])))
    assert "random entries" not in set(lines["name"])


def test_holding_goes_from_the_first_price_to_the_last_known_one(rows: pd.DataFrame, found: pd.DataFrame) -> None:
    held = {}
    for token, part in rows.groupby("token"):
        last = part.iloc[-1]
        held[token] = last["price"] * (1 + last["change"] / 100) / part["price"].iloc[0] - 1 - COST
    assert found.loc["buy and hold", "net_per_trade"] == pytest.approx(np.mean(list(held.values())))
    assert found.loc["buy and hold", "trades"] == 4
    assert found.loc["BTC", "net_per_trade"] == pytest.approx(held["BTC-1"])
    worth = 1.0
    for hour in range(0, 2400, 120):
        worth *= (
            1 + rows.loc[rows["timestamp"] == rows["timestamp"].min() + pd.Timedelta(hours=hour), "change"].mean() / 100
        )
    assert found.loc["equal weight", "net_per_trade"] == pytest.approx(worth - 1 - COST)


def test_a_universe_without_bitcoin_has_no_line_for_it(rows: pd.DataFrame, own: pd.DataFrame) -> None:
    for name in ("WBTC-9", "BTC2-9"):
        renamed = rows.assign(token=rows["token"].replace("BTC-1", name))
        lines = baselines(renamed, own=own, cost=COST, draws=draw_windows(hours_of(rows["timestamp"])))
        assert "BTC" not in set(lines["name"])
