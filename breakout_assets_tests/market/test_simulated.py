import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from breakout_assets.errors import DataError, SettingsError
from breakout_assets.market.faults import FAULTS
from breakout_assets.market.schema import (
    FLOAT_COLUMNS,
    HOUR,
    INTEGER_COLUMNS,
    RAW_COLUMNS,
    TEXT_COLUMNS,
    hours_between,
    raw_frame,
)
from breakout_assets.market.simulated import HORIZON, ORIGIN, SimulatedMarket, oracle_probability

ALL_FAULTS = frozenset(FAULTS)
NEW_YEAR = datetime.fromisoformat("2024-01-01")
LAGS = {
    "percent_change_1h": 1,
    "percent_change_24h": 24,
    "percent_change_7d": 168,
    "percent_change_30d": 720,
    "percent_change_60d": 1440,
    "percent_change_90d": 2160,
}


def digest(frame: pd.DataFrame) -> str:
    """Of every value (floats in full), type and row label."""
    return sha256(f"{frame.dtypes.to_dict()}\n{frame.to_csv()}".encode()).hexdigest()


def hours(first: datetime, count: int) -> list[datetime]:
    return hours_between(first, first + (count - 1) * HOUR)


def grid(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """One column, hours by ids."""
    return rows.pivot_table(index="timestamp", columns="id", values=column)


def hourly_returns(truth: pd.DataFrame) -> np.ndarray:
    """Log returns, hours by coins."""
    return np.diff(np.log(grid(truth, "price").to_numpy()), axis=0)


@pytest.fixture(scope="module")
def quarter() -> pd.DataFrame:
    """Every row of 92 days of an undisturbed market of 12 coins."""
    market = SimulatedMarket(seed=3, tokens=12)
    return pd.concat([frame for _, frame in market.snapshots(NEW_YEAR, NEW_YEAR + 92 * 24 * HOUR)], ignore_index=True)


# --- the same bytes, always ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("faults", [frozenset(), ALL_FAULTS], ids=["undisturbed", "all_faults"])
def test_an_hour_has_the_same_bytes_alone_and_in_ranges_of_a_week_a_month_and_a_quarter(faults: frozenset[str]) -> None:
    market = SimulatedMarket(seed=7, tokens=10, faults=faults)
    hour = NEW_YEAR + 75 * 24 * HOUR + 5 * HOUR
    alone = digest(market.snapshot(hour))
    for before, after in [(0, 0), (7 * 24, 3), (24, 30 * 24), (75 * 24, 15 * 24)]:
        frames = dict(market.snapshots(hour - before * HOUR, hour + after * HOUR))
        assert digest(frames[hour]) == alone


def test_hours_asked_for_in_any_order_have_the_bytes_of_the_range() -> None:
    market = SimulatedMarket(seed=8, tokens=15, faults=ALL_FAULTS)
    first = NEW_YEAR + 3 * 24 * HOUR
    frames = dict(market.snapshots(first, first + 20 * 24 * HOUR))
    chosen = np.random.default_rng(0).permutation(len(frames))[:25]
    for index in chosen:
        hour = list(frames)[index]
        assert digest(market.snapshot(hour)) == digest(frames[hour])


SCRIPT = """
from datetime import datetime
from hashlib import sha256
import pandas as pd
from breakout_assets.market.faults import FAULTS
from breakout_assets.market.simulated import SimulatedMarket
market = SimulatedMarket(seed=11, tokens=25, faults=frozenset(FAULTS))
first, last = map(datetime.fromisoformat, ("2024-02-01", "2024-03-03"))
listing = pd.concat([frame for _, frame in market.snapshots(first, last)])
for frame in (listing, market.snapshot(last), market.truth(first, last), market.fault_log(first, last)):
    print(len(frame), sha256(frame.to_csv().encode()).hexdigest())
"""


def test_two_processes_agree_whatever_their_hash_seed() -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT],
            cwd=Path(__file__).resolve().parents[2],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for hash_seed in ("1", "2")
    ]
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert outputs[0] == outputs[1]
    assert len(outputs[0].splitlines()) == 4


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**40),
    hour=st.integers(0, 24 * 200),
    before=st.integers(0, 60),
    after=st.integers(0, 60),
    tokens=st.integers(4, 9),
    faults=st.frozensets(st.sampled_from(sorted(FAULTS))),
)
def test_any_range_gives_an_hour_its_own_bytes(
    seed: int, hour: int, before: int, after: int, tokens: int, faults: frozenset[str]
) -> None:
    market = SimulatedMarket(seed=seed, tokens=tokens, faults=faults)
    moment = ORIGIN + hour * HOUR
    first = max(moment - before * HOUR, ORIGIN)
    frames = dict(market.snapshots(first, moment + after * HOUR))
    if moment in frames:
        assert digest(market.snapshot(moment)) == digest(frames[moment])
        assert list(frames) == sorted(frames)
        assert (frames[moment]["timestamp"] == moment).all()
    else:
        with pytest.raises(DataError, match="missing_hours"):
            market.snapshot(moment)


def test_the_truth_of_an_hour_is_the_same_in_any_range() -> None:
    market = SimulatedMarket(seed=5, tokens=6)
    alone = market.truth(NEW_YEAR, NEW_YEAR)
    within = market.truth(NEW_YEAR - 500 * HOUR, NEW_YEAR + 500 * HOUR)
    assert digest(within[within["timestamp"] == NEW_YEAR].reset_index(drop=True)) == digest(alone)


def test_another_seed_is_another_market() -> None:
    one, other = (SimulatedMarket(seed=seed, tokens=5).snapshot(NEW_YEAR) for seed in (1, 2))
    assert not np.intersect1d(one["price"], other["price"]).size


def test_more_coins_leave_the_others_as_they_were() -> None:
    few, many = (SimulatedMarket(seed=1, tokens=n).snapshot(NEW_YEAR).set_index("id") for n in (5, 30))
    unchanged = [c for c in few.columns if c not in ("cmc_rank", "market_cap_dominance")]
    pd.testing.assert_frame_equal(few[unchanged], many.loc[few.index, unchanged], check_exact=True)


def test_what_a_caller_does_to_a_snapshot_stays_his_own() -> None:
    market = SimulatedMarket(seed=1, tokens=3)
    expected = digest(market.snapshot(NEW_YEAR))
    for frame in (market.snapshot(NEW_YEAR), dict(market.snapshots(NEW_YEAR, NEW_YEAR))[NEW_YEAR]):
        frame.loc[:, "price"] = -1.0
    assert digest(market.snapshot(NEW_YEAR)) == expected


# --- what a snapshot holds ----------------------------------------------------------------------------------------


def test_a_snapshot_is_a_typed_raw_frame_sorted_by_rank() -> None:
    frame = SimulatedMarket(seed=1, tokens=40).snapshot(NEW_YEAR + HOUR)
    assert tuple(frame.columns) == RAW_COLUMNS
    assert all(frame[column].dtype == "str" for column in TEXT_COLUMNS)
    assert all(frame[column].dtype == "Int64" for column in INTEGER_COLUMNS)
    assert all(frame[column].dtype == "float64" for column in FLOAT_COLUMNS)
    assert frame["timestamp"].dtype == "datetime64[us]"
    pd.testing.assert_frame_equal(raw_frame(frame), frame)
    assert frame["cmc_rank"].tolist() == list(range(1, 41))
    assert frame.index.tolist() == list(range(40))


@pytest.mark.parametrize("hour", [ORIGIN, NEW_YEAR, datetime.fromisoformat("2026-07-01T13:00")])
def test_nothing_is_null_but_the_supply_limit_of_about_half_of_the_coins(hour: datetime) -> None:
    nulls = SimulatedMarket(seed=2, tokens=200).snapshot(hour).isna().mean()
    assert nulls.drop("max_supply").max() <= 0
    assert 0.45 < nulls["max_supply"] < 0.73


def test_money_and_supplies_fit_together() -> None:
    frame = SimulatedMarket(seed=2, tokens=100).snapshot(NEW_YEAR)
    np.testing.assert_allclose(frame["market_cap"], frame["price"] * frame["circulating_supply"], rtol=1e-12)
    np.testing.assert_allclose(
        frame["fully_diluted_market_cap"],
        frame["price"] * frame["max_supply"].fillna(frame["total_supply"]),
        rtol=1e-12,
    )
    np.testing.assert_allclose(
        frame["market_cap_dominance"], 100 * frame["market_cap"] / frame["market_cap"].sum(), rtol=1e-12
    )
    limited = frame.dropna(subset="max_supply")
    assert (frame["circulating_supply"] <= frame["total_supply"]).all()
    assert (limited["total_supply"] <= limited["max_supply"]).all()
    assert (frame[["price", "volume_24h", "num_market_pairs"]] > 0).all(axis=None)


def test_prices_spread_over_realistic_magnitudes() -> None:
    price = SimulatedMarket(seed=2, tokens=300).snapshot(ORIGIN)["price"]
    assert 1e-5 < price.min() < 1e-3
    assert 10 < price.max() < 1000


def test_coins_cannot_be_taken_for_real_ones() -> None:
    frame = SimulatedMarket(seed=2, tokens=12).snapshot(NEW_YEAR).sort_values("id", ignore_index=True)
    assert frame["id"].tolist() == list(range(900_001, 900_013))
    assert frame["name"].tolist()[::11] == ["Simulated 001", "Simulated 012"]
    assert frame["symbol"].tolist()[::11] == ["SIM001", "SIM012"]
    assert SimulatedMarket.simulated is True
    assert SimulatedMarket.name == "simulated"


def test_stamps_are_written_as_in_the_listing_and_lie_shortly_before_the_hour(quarter: pd.DataFrame) -> None:
    sample = quarter.iloc[::37]
    assert sample["last_updated"].str.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.000Z").all()
    assert sample["date_added"].str.fullmatch(r"\d{4}-\d\d-\d\dT00:00:00\.000Z").all()
    age = sample["timestamp"] - pd.to_datetime(sample["last_updated"].str.removesuffix("Z"))
    assert timedelta(0) < age.min()
    assert age.max() < timedelta(seconds=100)
    assert (pd.to_datetime(sample["date_added"].str.removesuffix("Z")) < ORIGIN - timedelta(days=90)).all()


def test_changes_are_exactly_those_of_the_snapshots_own_prices_and_volumes(quarter: pd.DataFrame) -> None:
    price = grid(quarter, "price")
    volume = grid(quarter, "volume_24h")
    expected = {name: (price, lag) for name, lag in LAGS.items()} | {"volume_change_24h": (volume, 24)}
    for column, (values, lag) in expected.items():
        shown = grid(quarter, column)
        by_time = values.loc[values.index[lag:]]
        before = values.shift(freq=lag * HOUR).loc[by_time.index]
        assert len(by_time) > 0
        np.testing.assert_allclose(shown.loc[by_time.index], 100 * (by_time / before - 1), rtol=0, atol=1e-9)


def test_ranks_are_unique_and_move_as_do_market_pairs(quarter: pd.DataFrame) -> None:
    ranks = grid(quarter, "cmc_rank")
    assert (np.sort(ranks.to_numpy(), axis=1) == np.arange(1, 13)).all()
    assert (ranks.nunique() > 1).mean() > 0.5
    assert (quarter.groupby("id")["num_market_pairs"].nunique() > 5).all()


def test_a_coin_keeps_its_attributes(quarter: pd.DataFrame) -> None:
    constant = ["name", "symbol", "circulating_supply", "total_supply", "date_added"]
    assert (quarter.groupby("id")[constant].nunique() == 1).all(axis=None)
    assert (quarter.groupby("id")["max_supply"].nunique() <= 1).all()


def test_ranges_hold_every_hour_once_in_order() -> None:
    first = NEW_YEAR + 5 * HOUR  # neither a day's begin nor its end
    market = SimulatedMarket(seed=1, tokens=2)
    found = [hour for hour, _ in market.snapshots(first, first + 61 * 24 * HOUR)]
    assert found == hours(first, 61 * 24 + 1)
    assert all(later - earlier == HOUR for earlier, later in pairwise(found))
    assert [hour for hour, _ in market.snapshots(first, first)] == [first]


# --- refusals -----------------------------------------------------------------------------------------------------


def test_hours_before_the_first_one_are_refused() -> None:
    market = SimulatedMarket(seed=1, tokens=2)
    assert len(market.snapshot(ORIGIN)) == 2
    with pytest.raises(DataError, match=r"begins at 2023-09-01 00:00; 2023-08-31 23:00 lies before"):
        market.snapshot(ORIGIN - HOUR)
    with pytest.raises(DataError, match="lies before"):
        market.snapshots(ORIGIN - HOUR, ORIGIN)


@pytest.mark.parametrize("moment", [NEW_YEAR + timedelta(minutes=30), NEW_YEAR.replace(tzinfo=UTC)])
def test_moments_that_are_not_naive_whole_hours_are_refused(moment: datetime) -> None:
    with pytest.raises(DataError, match="whole hours in naive UTC"):
        SimulatedMarket(seed=1, tokens=2).snapshot(moment)


def test_a_range_that_ends_before_it_begins_is_refused_by_all_that_take_one() -> None:
    market = SimulatedMarket(seed=1, tokens=2)
    for ask in (market.snapshots, market.truth, market.fault_log):
        with pytest.raises(DataError, match="before it begins"):
            ask(NEW_YEAR, NEW_YEAR - HOUR)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"seed": -1}, "seed is -1"),
        ({"tokens": 0}, "0 tokens"),
        ({"tokens": 1_000_001}, "1000001 tokens"),
        ({"signal": -0.1}, "signal is -0.1"),
        ({"signal": float("nan")}, "signal is nan"),
        ({"market_factor": 1.5}, "market_factor is 1.5"),
        ({"faults": frozenset({"stale_price", "stail_price"})}, "no fault stail_price; known are dup"),
        ({"tokens": 3, "faults": frozenset({"symbol_collision"})}, "symbol_collision needs 4 tokens"),
    ],
)
def test_impossible_markets_are_refused(values: dict[str, object], message: str) -> None:
    good: dict[str, object] = {"seed": 1, "tokens": 5}
    with pytest.raises(SettingsError, match=message):
        SimulatedMarket(**(good | values))  # type: ignore[arg-type]  # wrong values are the point


# --- the truth ----------------------------------------------------------------------------------------------------


def rises(truth: pd.DataFrame) -> pd.DataFrame:
    """The rows whose price 120 h later is known, with `rise`: whether that is more than 10 % higher."""
    price = grid(truth, "price")
    later = price.shift(freq=-HORIZON * HOUR).melt(ignore_index=False, value_name="later").reset_index()
    rows = truth.merge(later, on=["timestamp", "id"])
    return rows.assign(rise=rows["later"] > 1.1 * rows["price"])


@pytest.fixture(scope="module")
def planted() -> pd.DataFrame:
    """Three years of 30 coins with the default signal: 788,000 rows, a thousand independent windows a quarter."""
    market = SimulatedMarket(seed=21, tokens=30)
    return rises(market.truth(ORIGIN, ORIGIN + 3 * 365 * 24 * HOUR))


def test_the_oracle_is_calibrated_in_every_decile(planted: pd.DataFrame) -> None:
    decile = pd.qcut(planted["oracle_probability"], 10, labels=False)
    by_decile = planted.groupby(decile)[["oracle_probability", "rise"]].mean()
    assert by_decile["oracle_probability"].is_monotonic_increasing
    assert by_decile["rise"].is_monotonic_increasing
    np.testing.assert_allclose(by_decile["rise"], by_decile["oracle_probability"], atol=0.03)
    assert by_decile["oracle_probability"].iloc[-1] == pytest.approx(0.56, abs=0.02)


def test_the_default_signal_has_the_foreseeability_it_is_known_for(planted: pd.DataFrame) -> None:
    assert planted["rise"].mean() == pytest.approx(0.24, abs=0.02)
    assert roc_auc_score(planted["rise"], planted["oracle_probability"]) == pytest.approx(0.73, abs=0.02)


@pytest.mark.parametrize(("signal", "base", "auc"), [(0.05, 0.149, 0.623), (0.30, 0.343, 0.765)])
def test_other_signals_are_as_foreseeable_as_they_should_be(signal: float, base: float, auc: float) -> None:
    rows = rises(SimulatedMarket(seed=22, tokens=20, signal=signal).truth(ORIGIN, ORIGIN + 3 * 365 * 24 * HOUR))
    assert rows["rise"].mean() == pytest.approx(base, abs=0.03)
    assert roc_auc_score(rows["rise"], rows["oracle_probability"]) == pytest.approx(auc, abs=0.02)


def test_without_a_signal_nothing_can_be_foreseen() -> None:
    rows = rises(SimulatedMarket(seed=23, tokens=40, signal=0).truth(ORIGIN, ORIGIN + 2 * 365 * 24 * HOUR))
    assert rows["oracle_probability"].nunique() == 1
    assert rows["oracle_probability"].iloc[0] == pytest.approx(0.126, abs=0.005)
    assert rows["rise"].mean() == pytest.approx(0.126, abs=0.02)
    assert roc_auc_score(rows["rise"], rows["state"]) == pytest.approx(0.5, abs=0.02)


def test_the_oracle_agrees_with_windows_drawn_one_by_one() -> None:
    """The closed form against 200,000 windows that start in the same state."""
    random = np.random.default_rng(0)
    phi, sigma, signal, state = 2 ** (-1 / 48), 0.0078, 0.2, 0.7
    x, log_return = np.full(200_000, state), np.zeros(200_000)
    for _ in range(HORIZON):
        log_return += signal * sigma * x - sigma**2 / 2 + sigma * random.standard_normal(len(x))
        x = phi * x + np.sqrt(1 - phi**2) * random.standard_normal(len(x))
    expected = (log_return > np.log(1.1)).mean()
    assert oracle_probability(np.array([state]), signal)[0] == pytest.approx(expected, abs=0.005)


def test_the_state_has_unit_variance_and_a_half_life_of_two_days(planted: pd.DataFrame) -> None:
    state = grid(planted, "state").to_numpy()
    assert state.std() == pytest.approx(1, abs=0.05)
    assert np.corrcoef(state[:-48].ravel(), state[48:].ravel())[0, 1] == pytest.approx(0.5, abs=0.04)


def test_volume_shows_the_state_and_ranks_and_pairs_do_not(quarter: pd.DataFrame) -> None:
    truth = SimulatedMarket(seed=3, tokens=12).truth(NEW_YEAR, quarter["timestamp"].max())
    rows = truth.merge(quarter, on=["id", "timestamp"], suffixes=("_true", ""), validate="one_to_one")
    pd.testing.assert_series_equal(rows["price_true"], rows["price"], check_names=False, check_exact=True)
    state = grid(rows, "state")
    correlations = {
        column: np.array(
            [np.corrcoef(values[c], state[c])[0, 1] for c in state.columns if len(np.unique(values[c])) > 1]
        )
        for column, values in (
            ("volume", np.log(grid(rows, "volume_24h"))),
            ("rank", grid(rows, "cmc_rank")),
            ("pairs", grid(rows, "num_market_pairs")),
        )
    }
    assert correlations["volume"].min() > 0.8
    assert abs(correlations["rank"].mean()) < 0.2
    assert abs(correlations["pairs"].mean()) < 0.2


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0])
def test_coins_move_together_as_far_as_the_market_factor_says(factor: float) -> None:
    market = SimulatedMarket(seed=4, tokens=8, signal=0, market_factor=factor)
    returns = hourly_returns(market.truth(ORIGIN, ORIGIN + 6000 * HOUR))
    pairs = np.corrcoef(returns, rowvar=False)[np.triu_indices(8, 1)]
    np.testing.assert_allclose(pairs, factor**2, atol=0.05)
    assert returns.std() == pytest.approx(0.0078, rel=0.02)


def test_a_state_shows_in_the_next_hour_and_never_in_its_own() -> None:
    """A drift one hour too early would let the volume of an hour tell the return that has just been paid out."""
    market = SimulatedMarket(seed=8, tokens=40, signal=1.0, market_factor=0.0)
    truth = market.truth(ORIGIN, ORIGIN + 26_000 * HOUR)
    state = grid(truth, "state").to_numpy()
    returns = hourly_returns(truth) / 0.0078
    # With the drift of the hour before taken out, only noise is left; with any other hour's, something remains.
    residual = returns + 0.0078 / 2 - state[:-1]
    assert residual.std() == pytest.approx(1, abs=0.005)
    assert residual.mean() == pytest.approx(0, abs=0.002)  # a million draws: its own error is .001
    shock = state[1:] - 2 ** (-1 / 48) * state[:-1]
    assert np.corrcoef(residual.ravel(), shock.ravel())[0, 1] == pytest.approx(0, abs=0.01)
