import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from purgedcv import WalkForwardSplit
from sklearn.model_selection import train_test_split

from breakout_assets.errors import DataError
from breakout_assets.learning.splits import LABEL_DELAY, ordered_split, purged_walk_forward
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


starts, lengths, fold_counts = st.integers(-100, 700), st.integers(1, 200), st.integers(1, 5)


@given(panels, starts, lengths, fold_counts)
def test_every_fold_trains_only_on_what_was_known_when_its_test_part_begins(
    panel: list[tuple[int, int]], start: int, length: int, folds: int
) -> None:
    timestamp = hours([at for at, _ in panel])
    label_end = hours([at + lived for at, lived in panel])
    found = list(purged_walk_forward(timestamp, label_end, START + start * HOUR, length, folds))
    assert len(found) == folds
    for fold, split in enumerate(found):
        begin = START + (start + fold * length) * HOUR
        # All rows of the fold's hours are tested, and every row whose label was known is trained on: by hand.
        inside = [k for k, (at, _) in enumerate(panel) if 0 <= at - start - fold * length < length]
        known = [k for k, (at, lived) in enumerate(panel) if at + lived + 1 <= start + fold * length]
        assert sorted(split.test.tolist()) == inside
        assert sorted(split.train.tolist()) == known
        if len(split.train):
            assert label_end.iloc[split.train].max() + LABEL_DELAY <= begin
        assert not set(timestamp.iloc[split.train]) & set(timestamp.iloc[split.test])
        assert timestamp.iloc[split.train].is_monotonic_increasing
        assert timestamp.iloc[split.test].is_monotonic_increasing


@settings(max_examples=30)
@given(
    st.lists(st.lists(st.integers(1, 200), min_size=3, max_size=3), min_size=60, max_size=200),
    st.integers(1, 12),
    st.integers(1, 4),
)
def test_the_walk_forward_agrees_with_an_independent_purged_splitter(
    lived: list[list[int]], length: int, folds: int
) -> None:
    # The other one counts rows of a test part, so every hour has all three tokens.
    at = np.repeat(np.arange(len(lived)), 3)
    timestamp, label_end = hours(at.tolist()), hours((at + np.ravel(lived)).tolist())
    other = WalkForwardSplit(
        folds,
        3 * length,
        prediction_times=timestamp,
        evaluation_times=label_end,
        # To it a label that ends in the very moment in which the padded test part begins overlaps; here it is known.
        purge_horizon=LABEL_DELAY - pd.Timedelta(microseconds=1),
    )
    begin = timestamp.iloc[-1] + HOUR - folds * length * HOUR
    own = purged_walk_forward(timestamp, label_end, begin, length, folds)
    for split, (train, test) in zip(own, other.split(np.zeros((len(at), 1))), strict=True):
        np.testing.assert_array_equal(split.train, train)
        np.testing.assert_array_equal(split.test, test)


def test_without_a_purge_a_fold_trains_on_every_earlier_row() -> None:
    timestamp = hours(list(range(1000)))
    label_end = timestamp + 120 * HOUR
    purged, as_written = (
        next(iter(purged_walk_forward(timestamp, label_end, START + 800 * HOUR, 100, 1, purge=purge)))
        for purge in (True, False)
    )
    assert (purged.train[-1], as_written.train[-1]) == (800 - 121, 799)
    np.testing.assert_array_equal(purged.test, as_written.test)


def test_a_label_that_ends_before_its_hour_never_trains_beside_its_test_part() -> None:
    timestamp = hours([0, 10, 20])
    (split,) = purged_walk_forward(timestamp, hours([1, 2, 3]), START + 10 * HOUR, 11, 1)
    assert (split.train.tolist(), split.test.tolist()) == ([0], [1, 2])


@pytest.mark.parametrize(("length", "folds"), [(0, 4), (24, 0), (-1, 1)])
def test_test_parts_without_an_hour_are_refused(length: int, folds: int) -> None:
    with pytest.raises(DataError, match="test nothing"):
        list(purged_walk_forward(hours([0]), hours([120]), START, length, folds))
