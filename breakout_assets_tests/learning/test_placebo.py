import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from breakout_assets.errors import DataError
from breakout_assets.learning.placebo import placebo_p, twin_market
from breakout_assets.market.schema import CHANGES
from breakout_assets.tables import DAILY_SNAPSHOTS, conform
from breakout_assets_tests.learning.examples import START

CHANGED = {"price", "volume", "volume_change_24h", "market_cap", "fully_diluted_market_cap", *CHANGES}


def market(hours: int, tokens: int = 3, seed: int = 0, drift: float = 0.0, factor: float = 0.7) -> pd.DataFrame:
    """Rows of `daily_snapshots` with a common factor; volumes move with the size of returns."""
    rng = np.random.default_rng(seed)
    common, frames = rng.standard_normal(hours), []
    for token in range(tokens):
        moves = 0.01 * (factor * common + np.sqrt(1 - factor**2) * rng.standard_normal(hours)) + drift
        price = 10.0 ** (token - 1) * np.exp(np.cumsum(moves))
        volume = np.exp(16 + np.abs(moves) * 30 + rng.standard_normal(hours) / 10)
        frames.append(rows_of(f"T{token}-{token}", np.arange(hours), price, volume))
    return pd.concat(frames, ignore_index=True)


def rows_of(token: str, hours: np.ndarray, price: np.ndarray, volume: np.ndarray) -> pd.DataFrame:
    frame = pd.DataFrame(dict.fromkeys(DAILY_SNAPSHOTS), index=range(len(hours)))
    frame["token"], frame["name"], frame["symbol"] = token, token, token
    frame["timestamp"] = START + pd.to_timedelta(hours, unit="h")
    frame["price"], frame["volume"] = price, volume
    frame["cmc_rank"], frame["num_market_pairs"] = 7, 11
    frame["market_cap"], frame["fully_diluted_market_cap"] = price * 1000, price * 2000
    frame["volume_change_24h"] = 1.0
    for name in CHANGES:
        frame[name] = 1.0
    return conform(frame, "daily_snapshots")


def panel(rows: pd.DataFrame, column: str = "price") -> pd.DataFrame:
    return rows.pivot(index="timestamp", columns="token", values=column)


def returns(rows: pd.DataFrame) -> pd.DataFrame:
    return panel(rows).apply(np.log).diff().dropna()


def test_a_twin_keeps_hours_tokens_and_all_that_is_no_price_or_volume() -> None:
    original = market(400)
    twin = twin_market(original, seed=1)
    kept = [column for column in DAILY_SNAPSHOTS if column not in CHANGED]
    expected = original.sort_values(["timestamp", "token"], ignore_index=True)
    pd.testing.assert_frame_equal(twin[kept], expected[kept])
    assert list(twin) == list(original)
    assert twin.dtypes.to_dict() == original.dtypes.to_dict()
    assert twin["price"].min() > 0


def test_every_token_starts_at_its_own_first_price_and_goes_elsewhere() -> None:
    original = market(400)
    twin = twin_market(original, seed=1)
    np.testing.assert_allclose(panel(twin).iloc[0], panel(original).iloc[0])
    assert (abs(np.log(panel(twin).iloc[-1] / panel(original).iloc[-1])) > 1e-3).all()


def test_gaps_and_late_listings_keep_their_hours() -> None:
    original = market(600)
    hour = (original["timestamp"] - START) // pd.Timedelta(hours=1)
    late = (original["token"] == "T1-1") & (hour < 250)
    gone = (original["token"] == "T2-2") & hour.between(100, 140)
    original = original[~late & ~gone]
    twin = twin_market(original, seed=3)
    key = ["token", "timestamp"]
    expected = original.sort_values(["timestamp", "token"])[key].to_numpy()
    assert (twin[key].to_numpy() == expected).all()
    first = original.groupby("token")["price"].first()
    np.testing.assert_allclose(twin.groupby("token")["price"].first(), first)
    assert np.isfinite(twin["price"]).all()
    assert np.isfinite(twin["volume"]).all()


def test_the_same_seed_gives_the_same_twin_in_any_row_order_and_another_seed_another() -> None:
    original = market(300)
    twin = twin_market(original, seed=5)
    shuffled = original.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(twin_market(shuffled, seed=5), twin)
    assert not np.allclose(twin_market(original, seed=6)["price"], twin["price"])


def test_other_tokens_of_the_same_hours_change_nothing() -> None:
    original = market(300)
    one = original[original["token"] == "T1-1"]
    twin = twin_market(original, seed=5)
    pd.testing.assert_frame_equal(
        twin_market(one, seed=5), twin[twin["token"] == "T1-1"].reset_index(drop=True), rtol=1e-12
    )


def test_a_twin_has_no_drift_even_where_the_market_rose() -> None:
    original = market(1000, tokens=2, drift=0.004)
    assert returns(original).to_numpy().mean() > 0.003
    drifts = np.array([returns(twin_market(original, seed=seed)).to_numpy().mean() for seed in range(40)])
    assert abs(drifts.mean()) < 3 * drifts.std() / np.sqrt(40) + 1e-5
    assert drifts.std() < 0.001


def test_returns_come_from_the_market_itself_without_their_mean() -> None:
    original = market(500, drift=0.001)
    centred = returns(original) - returns(original).mean()
    drawn = returns(twin_market(original, seed=2))
    for token in original["token"].unique():
        distance = np.abs(drawn[token].to_numpy()[:, None] - centred[token].to_numpy()).min(axis=1)
        assert distance.max() < 1e-9


def test_tokens_move_together_as_they_did() -> None:
    original = market(2000, factor=0.8)
    expected, found = returns(original).corr(), returns(twin_market(original, seed=4)).corr()
    np.testing.assert_allclose(found, expected, atol=0.05)
    assert expected.to_numpy().min() > 0.5


def test_volume_stays_with_its_return() -> None:
    original = market(1500, tokens=1)
    twin = twin_market(original, seed=4)
    for rows in (original, twin):
        moved = np.log(rows["price"]).diff().abs()
        assert moved.corr(np.log(rows["volume"])) > 0.8


def test_what_volume_foretold_a_day_and_more_ahead_is_gone() -> None:
    rng = np.random.default_rng(0)
    state = np.repeat(rng.standard_normal(60), 48)  # two days each
    moves = 0.002 * rng.standard_normal(len(state)) + 0.004 * np.r_[np.zeros(48), state[:-48]]
    original = rows_of("T0-0", np.arange(len(state)), np.exp(np.cumsum(moves)), np.exp(16 + state))

    def foretold(rows: pd.DataFrame) -> float:
        ahead = np.log(rows["price"]).shift(-96) - np.log(rows["price"]).shift(-48)
        return float(np.log(rows["volume"]).corr(ahead))

    assert foretold(original) > 0.5
    assert abs(np.mean([foretold(twin_market(original, seed=seed)) for seed in range(30)])) < 0.1


def test_changes_are_those_of_the_twin_and_known_from_the_first_row_on() -> None:
    original = market(24 * 100, tokens=2)
    twin = twin_market(original, seed=7)
    for name, back in CHANGES.items():
        expected = panel(twin).pct_change(back) * 100
        known = expected.notna().to_numpy()
        np.testing.assert_allclose(panel(twin, name).to_numpy()[known], expected.to_numpy()[known], rtol=1e-9)
        assert panel(twin, name).notna().all(axis=None)
    volume = panel(twin, "volume").pct_change(24) * 100
    np.testing.assert_allclose(panel(twin, "volume_change_24h").iloc[24:], volume.iloc[24:], rtol=1e-9)
    np.testing.assert_allclose(twin["market_cap"], twin["price"] * 1000)
    np.testing.assert_allclose(twin["fully_diluted_market_cap"], twin["price"] * 2000)


def test_a_change_that_was_unknown_stays_unknown() -> None:
    original = market(300)
    young = original["timestamp"] < START + pd.Timedelta(days=7)
    original.loc[young, "percent_change_7d"] = np.nan
    original["percent_change_90d"] = np.nan
    twin = twin_market(original, seed=0)
    young = twin["timestamp"] < START + pd.Timedelta(days=7)
    assert twin["percent_change_7d"].isna().tolist() == young.tolist()
    assert twin["percent_change_90d"].isna().all()


def test_a_change_of_the_unit_is_no_return() -> None:
    original = market(400, tokens=1)
    redenominated = original["timestamp"] >= START + pd.Timedelta(hours=200)
    original.loc[redenominated, "price"] *= 1000
    for seed in range(6):  # an hour is drawn into most twins, not into each
        assert returns(twin_market(original, seed=seed)).abs().max().item() < 0.1


def test_a_growth_from_nothing_is_unknown_and_a_single_row_stands_still() -> None:
    original = market(200, tokens=1)
    original["volume"] = np.where(original.index < 100, 0.0, 5.0)
    alone = rows_of("ONE-1", np.array([50]), np.array([2.0]), np.array([5.0]))
    twin = twin_market(pd.concat([original, alone], ignore_index=True), seed=0)
    growth = twin.loc[twin["token"] == "T0-0", "volume_change_24h"]
    assert growth.isna().any()
    assert growth.dropna().isin([0.0, -100.0]).all()
    row = twin[twin["token"] == "ONE-1"].iloc[0]
    assert (row["price"], row["volume"]) == pytest.approx((2.0, 5.0))
    assert row["percent_change_7d"] == pytest.approx(0)


def test_rows_that_make_no_twin_are_refused() -> None:
    original = market(100, tokens=1)
    with pytest.raises(DataError, match="24 hours make no twin"):
        twin_market(original.iloc[:24], seed=0)
    with pytest.raises(DataError, match="believed rows"):
        twin_market(original.assign(quarantine="STALE"), seed=0)
    with pytest.raises(DataError, match=r"T0-0 has the hour 2024-03-01 00:00:00 more than once"):
        twin_market(pd.concat([original, original.iloc[:1]]), seed=0)
    for price in (0.0, np.nan):
        with pytest.raises(DataError, match=r"T0-0 at 2024-03-01 00:00:00 has the price"):
            twin_market(original.assign(price=original["price"].where(original.index > 0, price)), seed=0)


@given(st.lists(st.floats(0, 1), max_size=30), st.floats(0, 1))
def test_p_counts_the_twins_that_do_as_well(twins: list[float], observed: float) -> None:
    p = placebo_p(observed, twins)
    assert p == pytest.approx((1 + sum(twin >= observed for twin in twins)) / (len(twins) + 1))
    assert 1 / (len(twins) + 1) <= p <= 1


def test_with_twenty_twins_the_smallest_p_is_just_below_5_percent() -> None:
    assert placebo_p(0.9, [0.5] * 20) == pytest.approx(1 / 21)
    assert placebo_p(0.5, [0.5] * 20) == pytest.approx(1)
