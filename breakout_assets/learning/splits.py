"""Which rows a model learns from and which it is tested on: always the earlier ones and the later ones."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from breakout_assets.errors import DataError

Positions = npt.NDArray[np.intp]

# A price is known when its hourly snapshot has been collected and acted on: one snapshot interval after its hour.
LABEL_DELAY: Final = pd.Timedelta(hours=1)


@dataclass(frozen=True)
class Split:
    """Row positions of the training part and of the test part, each in time order."""

    train: Positions
    test: Positions


def ordered_split(timestamp: pd.Series, label_end: pd.Series, test_share: float, purge: bool) -> Split:
    """Split rows in time: the first ones train, the last `test_share` of them test.

    Without `purge` this is the published split: rows are counted, as `train_test_split(shuffle=False)` does. An hour
    may then lie on both sides, and labels of the training part end inside the test part. With `purge` the test part
    begins at a whole hour, for all tokens, and a training row stays only if its label was known by then:
    `label_end + LABEL_DELAY <= first test hour`. Times decide, not row counts: with a thousand tokens 120 rows are
    a few minutes.

    Args:
        timestamp: the observed hour of each row, any number of tokens, in any order.
        label_end: the hour of the price that decided each row's label.
        test_share: between 0 and 1.
        purge: see above.

    Returns:
        Positions in the given rows; the training part is empty where nothing may be trained on.
    """
    hours = timestamp.to_numpy()
    order = np.argsort(hours, kind="stable")
    train_rows = len(order) - math.ceil(len(order) * test_share)
    if not purge or not len(order):
        return Split(order[:train_rows], order[train_rows:])
    test_start = hours[order[train_rows]]
    known_at = (label_end + LABEL_DELAY).to_numpy()
    # A label cannot end before its own hour; the first condition keeps the sides apart even if a file says so.
    trains = (hours < test_start) & (known_at <= test_start)
    return Split(order[trains[order]], order[(hours >= test_start)[order]])


def purged_walk_forward(
    timestamp: pd.Series, label_end: pd.Series, test_start: datetime, test_hours: int, folds: int, purge: bool = True
) -> Iterator[Split]:
    """Test parts that follow one another in time, each with all the rows before it to train on.

    A test part is `test_hours` of calendar time with all tokens. With `purge` a row trains only if its label was known
    when the test part begins: `label_end + LABEL_DELAY <= first test hour`. Without it every earlier row trains.

    Args:
        timestamp: the observed hour of each row, any number of tokens, in any order.
        label_end: the hour of the price that decided each row's label.
        test_start: the first hour of the first test part, naive UTC.
        test_hours: length of a test part.
        folds: number of test parts.
        purge: see above.

    Yields:
        Positions in the given rows, of either part in time order; a part is empty where there are no rows for it.

    Raises:
        DataError: there is no fold, or a test part has no hour.
    """
    if test_hours < 1 or folds < 1:
        raise DataError(f"{folds} test parts of {test_hours} h test nothing; ask for one fold and one hour or more")
    hours = timestamp.to_numpy()
    order = np.argsort(hours, kind="stable")
    hours = hours[order]
    known_at = (label_end + LABEL_DELAY).to_numpy()[order]
    for fold in range(folds):
        begin = np.datetime64(test_start, "us") + np.timedelta64(fold * test_hours, "h")
        end = begin + np.timedelta64(test_hours, "h")
        trains = hours < begin
        if purge:
            trains &= known_at <= begin
        yield Split(order[trains], order[(hours >= begin) & (hours < end)])
