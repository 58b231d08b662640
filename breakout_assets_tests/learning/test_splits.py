import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from breakout_assets.learning.splits import ordered_split
from breakout_assets_tests.learning.examples import START

HOUR = pd.Timedelta(hours=1)


def hours(values: list[int]) -> pd.Series:
    return pd.Series(START + pd.to_timedelta(np.array(values, dtype="int64"), unit="h"), dtype="datetime64[us]")


# (observed hour, hours until the price that decided the label): gaps, many tokens at one hour, labels of any length.
panels = st.lists(st.tuples(st.integers(0, 600), st.integers(1, 200)), min_size=1, max_size=300)
shares = st.floats(0.05, 0.95)


@given(panels, shares)
def test_a_purged_training_part_was_known_before_the_test_part_begins(
    panel: list[tuple[int, int]], share: float
) -> None:
    timestamp = hours([at for at, _ in panel])
    label_end = hours([at + length for at, length in panel])
    split = ordered_split(timestamp, label_end, share, purge=True)
    test_start = timestamp.iloc[split.test].min()
    if len(split.train):
        assert label_end.iloc[split.train].max() + HOUR <= test_start
    # No more is dropped than has to be, and no row is on both sides or counted twice.
    dropped = np.setdiff1d(np.arange(len(panel)), np.concatenate([split.train, split.test]))
    assert len(split.train) + len(split.test) + len(dropped) == len(panel)
    assert (label_end.iloc[dropped] + HOUR > test_start).all()
    assert (timestamp.iloc[dropped] < test_start).all()
    assert not set(timestamp.iloc[split.train]) & set(timestamp.iloc[split.test])


@given(panels, shares)
def test_a_purged_test_part_holds_the_last_rows_and_all_rows_of_its_first_hour(
    panel: list[tuple[int, int]], share: float
) -> None:
    timestamp = hours([at for at, _ in panel])
    split = ordered_split(timestamp, timestamp + HOUR, share, purge=True)
    assert len(split.test) >= len(panel) * share - 1e-9
    first = timestamp.iloc[split.test].min()
    assert (timestamp >= first).sum() == len(split.test)
    assert (timestamp > first).sum() < len(panel) * share + 1


@given(panels, shares, st.booleans())
def test_both_parts_are_in_time_order_and_nothing_is_shuffled(
    panel: list[tuple[int, int]], share: float, purge: bool
) -> None:
    timestamp = hours([at for at, _ in panel])
    split = ordered_split(timestamp, timestamp + HOUR, share, purge)
    assert timestamp.iloc[split.train].is_monotonic_increasing
    assert timestamp.iloc[split.test].is_monotonic_increasing
    if len(split.train):
        assert timestamp.iloc[split.train].max() <= timestamp.iloc[split.test].min()


@pytest.mark.parametrize("rows", [1, 5, 99, 720, 2270, 2271])
def test_without_a_purge_it_is_the_published_split(rows: int) -> None:
    timestamp = hours(list(range(rows)))
    split = ordered_split(timestamp, timestamp + 120 * HOUR, 0.2, purge=False)
    if rows == 1:
        assert (len(split.train), len(split.test)) == (0, 1)
        return
    train, test = train_test_split(np.arange(rows), test_size=0.2, shuffle=False)
    np.testing.assert_array_equal(split.train, train)
    np.testing.assert_array_equal(split.test, test)


def test_the_purge_is_one_hour_longer_than_the_label() -> None:
    timestamp = hours(list(range(1000)))
    split = ordered_split(timestamp, timestamp + 120 * HOUR, 0.2, purge=True)
    assert (split.train[-1], split.test[0]) == (800 - 121, 800)


def test_row_order_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    timestamp = hours(list(rng.permutation(500)))
    split = ordered_split(timestamp, timestamp + 120 * HOUR, 0.2, purge=True)
    assert timestamp.iloc[split.test].tolist() == hours(list(range(400, 500))).tolist()


def test_no_rows_give_two_empty_parts() -> None:
    split = ordered_split(hours([]), hours([]), 0.2, purge=True)
    assert (len(split.train), len(split.test)) == (0, 0)
