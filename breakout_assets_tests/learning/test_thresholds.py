import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import lfilter

from breakout_assets.errors import DataError
from breakout_assets.learning.statistics import hours_of
from breakout_assets.learning.thresholds import (
    CURVE,
    break_even_precision,
    choose_threshold,
    threshold_curve,
    trades_of,
)
from breakout_assets_tests.learning.bootstrap import block_bootstrap
from breakout_assets_tests.learning.examples import START

COST = 0.015


def table(rows: list[tuple[str, int, float, float]]) -> pd.DataFrame:
    """From (token, hour, probability, change)."""
    frame = pd.DataFrame(rows, columns=["token", "hour", "probability", "change"]).astype({"token": "str"})
    frame["timestamp"] = (START + pd.to_timedelta(frame.pop("hour"), unit="h")).astype("datetime64[us]")
    return frame.assign(y=(frame["change"] > 10).astype("int8"))


def market(seed: int, signal: float, tokens: int = 12, days: int = 36, rise: float = 0.0) -> pd.DataFrame:
    """A panel with a market factor whose probability shows the hidden state that pulls the price."""
    rng, hours, sigma = np.random.default_rng(seed), days * 24, 0.0078
    factor, decay = rng.standard_normal(hours + 120), 2 ** (-1 / 48)
    frames = []
    for token in range(tokens):
        state = lfilter([np.sqrt(1 - decay**2)], [1, -decay], rng.standard_normal(hours + 620))[500:]
        moves = sigma * (0.6 * factor + 0.8 * rng.standard_normal(hours + 120)) - sigma**2 / 2 + rise
        moves[1:] += signal * sigma * state[:-1]
        price = np.cumsum(moves)
        change = 100 * np.expm1(price[120:] - price[:-120])
        probability = np.round(1 / (1 + np.exp(2 - 0.5 * state[:hours])), 9)
        rows = zip([f"T{token}"] * hours, range(hours), probability.tolist(), change.tolist(), strict=True)
        frames.append(table(list(rows)))
    return pd.concat(frames, ignore_index=True)


flags = st.lists(
    st.tuples(st.sampled_from(["A", "B", "C"]), st.integers(0, 900), st.sampled_from([0.2, 0.7])),
    min_size=0,
    max_size=120,
    unique_by=lambda row: row[:2],
)


@given(flags)
def test_a_token_is_never_bought_twice_within_120_hours(rows: list[tuple[str, int, float]]) -> None:
    given_rows = table([(*row, 12.0) for row in rows])
    trades = trades_of(given_rows, 0.6, COST)
    expected = []
    for token in ("A", "B", "C"):
        free = 0
        for hour in sorted(at for name, at, p in rows if name == token and p >= 0.6):
            if hour >= free:
                expected.append((token, START + pd.Timedelta(hours=hour)))
                free = hour + 120
    assert list(zip(trades["token"], trades["timestamp"], strict=True)) == expected
    gaps = trades.groupby("token")["timestamp"].diff().dropna()
    assert (gaps >= pd.Timedelta(hours=120)).all()


def test_a_trade_carries_its_row_and_its_net_result() -> None:
    rows = table([("A", 0, 0.6, 12.0), ("A", 1, 0.9, 50.0), ("A", 120, 0.7, -4.0), ("B", 1, 0.59, 99.0)]).assign(own=7)
    trades = trades_of(rows, 0.6, 0.02)
    assert trades["net"].tolist() == pytest.approx([0.10, -0.06])
    assert trades.columns.tolist() == [*rows.columns, "net"]


def test_each_row_may_have_its_own_threshold_and_none_flags_nothing() -> None:
    rows = table([("A", 0, 0.5, 1.0), ("B", 0, 0.5, 1.0), ("C", 0, 0.5, 1.0)])
    assert trades_of(rows, np.array([0.5, 0.6, np.nan]), COST)["token"].tolist() == ["A"]
    assert trades_of(rows, float("nan"), COST).empty


def test_a_table_without_a_column_is_refused() -> None:
    with pytest.raises(DataError, match="lacks the columns y, change"):
        trades_of(table([]).drop(columns=["y", "change"]), 0.5, COST)


def bounds_of_mean(rows: pd.DataFrame, net: pd.Series) -> tuple[float, float]:
    return block_bootstrap(hours_of(rows["timestamp"]), lambda at: float(net.iloc[at].mean()), seed=5)


def test_the_curve_says_what_each_threshold_would_have_brought() -> None:
    rows = market(3, 0.15, tokens=4, days=90)
    curve = threshold_curve(rows, COST, thresholds=(0.1, 0.2, 0.999), seed=5)
    for number, threshold in enumerate((0.1, 0.2)):
        trades = trades_of(rows, threshold, COST)
        flagged, point = rows[rows["probability"] >= threshold], curve.iloc[number]
        assert point["threshold"] == pytest.approx(threshold)
        assert point["flagged_share"] == pytest.approx(len(flagged) / len(rows))
        assert point["trades"] == len(trades)
        assert point["precision"] == pytest.approx(flagged["y"].mean())
        assert point["net_mean"] == pytest.approx((trades["change"] / 100 - COST).mean())
        assert point["net_sum"] == pytest.approx((trades["change"] / 100 - COST).sum())
        net = pd.Series(np.nan, index=rows.index)
        net[trades.index] = trades["net"]
        assert (point["net_low"], point["net_high"]) == pytest.approx(bounds_of_mean(rows, net))
    empty = curve.iloc[2]
    assert (empty["trades"], empty["flagged_share"]) == (0, 0)
    assert np.isnan([empty["precision"], empty["net_mean"], empty["net_low"], empty["net_high"]]).all()


def test_the_published_threshold_is_on_the_curve() -> None:
    assert 0.60 in CURVE
    assert threshold_curve(market(0, 0.0, tokens=2, days=10), COST)["threshold"].tolist() == list(CURVE)


def test_a_short_table_has_a_curve_without_intervals() -> None:
    curve = threshold_curve(market(0, 0.15, days=20), COST, thresholds=(0.1,))
    assert curve["trades"].iloc[0] > 0
    assert curve[["net_low", "net_high"]].isna().all(axis=None)


def test_a_planted_signal_gets_a_threshold_that_pays_on_another_market() -> None:
    for seed in range(4):
        chosen = choose_threshold(market(seed, 0.15), COST, seed)
        assert chosen is not None
        assert trades_of(market(100 + seed, 0.15), chosen, COST)["net"].mean() > 0


def test_noise_gets_no_threshold() -> None:
    chosen = [choose_threshold(market(seed, 0.0), COST, seed) for seed in range(12)]
    assert sum(threshold is not None for threshold in chosen) <= 1


def test_a_market_that_rises_by_itself_is_no_forecast() -> None:
    rising = [market(seed, 0.0, rise=0.0006) for seed in range(8)]
    assert all(trades_of(rows, 0.0, COST)["net"].mean() > 0 for rows in rising)
    assert sum(choose_threshold(rows, COST) is not None for rows in rising) <= 2


def test_fewer_than_thirty_trades_choose_nothing() -> None:
    # Six hours apart: every flag is one trade a token. The flagged tokens always win, the others always lose.
    def split(winners: int) -> pd.DataFrame:
        tokens = [(f"W{k}", 0.9, 20.0) for k in range(winners)] + [(f"L{k}", 0.1, -5.0) for k in range(90)]
        return table([(name, 6 * k, p, change) for k, (name, p, change) in enumerate(tokens)])

    assert choose_threshold(split(30), COST) == pytest.approx(0.9)
    assert choose_threshold(split(29), COST) is None


def test_a_model_that_says_the_same_of_every_row_chooses_nothing() -> None:
    rows = market(1, 0.0, rise=0.002)
    assert trades_of(rows, 0.0, COST)["net"].mean() > 0.1
    assert choose_threshold(rows.assign(probability=0.3, change=rows["change"] + 30), COST) is None


def test_the_choice_has_the_best_lower_quartile() -> None:
    rows = market(2, 0.15)
    chosen = choose_threshold(rows, COST, seed=9)
    assert chosen is not None

    def bound(threshold: float) -> float:
        net = pd.Series(0.0, index=rows.index)
        trades = trades_of(rows, threshold, COST)
        net[trades.index] = trades["net"]
        return block_bootstrap(
            hours_of(rows["timestamp"]), lambda at: float(net.iloc[at].sum()), seed=9, levels=(25.0, 75.0)
        )[0]

    others = np.quantile(rows["probability"], [0.5, 0.7, 0.8, 0.9, 0.95, 0.99], method="higher")
    assert bound(chosen) > 0
    assert all(
        bound(chosen) >= bound(other) - 1e-9 for other in others if len(trades_of(rows, float(other), COST)) >= 30
    )


def test_higher_costs_leave_nothing() -> None:
    assert choose_threshold(market(0, 0.15), 0.9) is None


def test_the_choice_is_the_same_in_any_row_order() -> None:
    rows = market(2, 0.15)
    assert choose_threshold(rows, COST) == choose_threshold(rows.sample(frac=1, random_state=0), COST)


def test_nothing_is_chosen_on_no_rows_and_gaps_are_refused() -> None:
    assert choose_threshold(table([]), COST) is None
    for column in ("probability", "change"):
        with pytest.raises(DataError, match="lacks its probability or change"):
            choose_threshold(market(0, 0.0, tokens=1, days=8).assign(**{column: np.nan}), COST)


@given(st.lists(st.floats(-90, 300), min_size=2, max_size=50), st.floats(0, 0.1))
def test_at_the_break_even_precision_nothing_is_won_or_lost(changes: list[float], cost: float) -> None:
    change = np.array(changes)
    y = (change > 10).astype(np.int64)
    needed = break_even_precision(change, y, cost)
    if y.all() or not y.any():
        assert np.isnan(needed)
        return
    won, lost = change[y == 1].mean() / 100, change[y == 0].mean() / 100
    assert needed * won + (1 - needed) * lost == pytest.approx(cost, abs=1e-9)


def test_the_break_even_precision_has_its_closed_form() -> None:
    found = break_even_precision(np.array([30.0, 10.0, -5.0, -15.0]), np.array([1, 1, 0, 0]), 0.02)
    assert found == pytest.approx((0.02 + 0.10) / (0.20 + 0.10))
