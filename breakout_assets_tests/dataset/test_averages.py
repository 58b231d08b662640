"""The averages of windows out of one run over all rows are those of pandas over each window, to the last bit.

What could go wrong is a window for which a proof is accepted that is none, so the prices are those on which paths
that began differently stay apart for long: coarse ticks, prices that stand still, jumps, a calm after a storm.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from breakout_assets.dataset import averages
from breakout_assets.dataset.averages import AVERAGE_COLUMNS, average_values
from breakout_assets_tests.dataset.reference import BIT_EQUAL, by_ta

ROWS, LONGEST = 1500, 720

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Prices = Callable[[np.random.Generator], Floats]


def walk(rng: np.random.Generator, deviation: float = 0.01) -> Floats:
    return np.exp(np.cumsum(rng.normal(0, deviation, ROWS)) + rng.normal(0, 3))


def moves_now_and_then(share: float) -> Prices:
    return lambda rng: np.exp(np.cumsum(rng.normal(0, 0.01, ROWS) * (rng.random(ROWS) < share)))


def times(factor: float, first: int, last: int) -> Prices:
    return lambda rng: walk(rng) * np.where((np.arange(ROWS) >= first) & (np.arange(ROWS) < last), factor, 1.0)


def returning(rng: np.random.Generator) -> Floats:
    """The price comes back to one value again and again, which its averages then may equal."""
    return np.where(np.arange(ROWS) % 300 < 200, 1.1, np.round(walk(rng, 0.001), 2))


PRICES: dict[str, Prices] = {
    "walk": walk,
    "coarse ticks": lambda rng: np.round(1 + np.cumsum(rng.normal(0, 1e-4, ROWS)), 4),
    "one move in ten": moves_now_and_then(0.1),
    "one move in a hundred": moves_now_and_then(0.01),
    "steady rise": lambda rng: 1 + 0.25 * np.arange(ROWS, dtype=np.float64),
    "still": lambda rng: np.full(ROWS, 0.1),
    "still from the middle": lambda rng: np.where(np.arange(ROWS) < 700, walk(rng), 0.3),
    "calm after a storm": lambda rng: np.exp(
        np.cumsum(rng.normal(0, np.where(np.arange(ROWS) < 750, 0.1, 1e-6), ROWS))
    ),
    "spike": times(1e6, 600, 601),
    "fall": times(1e-6, 700, ROWS),
    "returning": returning,
}


def windows(lengths: Ints, rng: np.random.Generator) -> tuple[Ints, Ints]:
    ends = np.sort(rng.integers(0, ROWS, len(lengths)))
    return np.maximum(ends - lengths + 1, 0), ends


@pytest.mark.skipif(not BIT_EQUAL, reason="pandas rounds its averages otherwise on this processor")
@pytest.mark.parametrize("name", PRICES)
def test_each_window_has_the_bits_that_pandas_gives_it_alone(name: str) -> None:
    rng = np.random.default_rng(3)
    price = PRICES[name](rng)
    full = np.full(30, LONGEST)
    starts, ends = windows(np.concatenate([full, rng.integers(600, LONGEST, 30), rng.integers(1, 600, 20)]), rng)
    values = average_values(price, np.array([0]), starts, ends)
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        expected = by_ta(pd.DataFrame({"price": price[start : end + 1], "volume": 1.0}))
        for column in AVERAGE_COLUMNS:
            # Where `ta` has no value yet, the caller masks this one.
            if not np.isnan(expected[column]):
                assert values[column][number] == expected[column], f"{column} of rows {start} to {end}"


@pytest.mark.parametrize("name", PRICES)
def test_windows_that_barely_have_a_proof_have_the_bits_that_they_have_as_tokens_of_their_own(name: str) -> None:
    """A window that begins with its token needs no proof; one of 430 to 600 rows within a longer token just has one."""
    rng = np.random.default_rng(5)
    price = PRICES[name](rng)
    lengths = np.repeat(np.arange(430, 600), 6)
    starts = rng.integers(1, ROWS - 600, len(lengths))
    shared = average_values(price, np.array([0]), starts, starts + lengths - 1)
    begins = np.cumsum(lengths) - lengths
    apart = np.concatenate([price[start : start + rows] for start, rows in zip(starts, lengths, strict=True)])
    ends = begins + lengths - 1
    alone = average_values(apart, begins, begins, ends)
    # With one window a token no run is made, with two there is.
    run = average_values(apart, begins, np.repeat(begins, 2), np.repeat(ends, 2))
    for column in AVERAGE_COLUMNS:
        assert shared[column].tobytes() == alone[column].tobytes() == run[column][::2].tobytes(), column


def test_the_run_serves_nearly_all_windows_though_one_row_in_thirty_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    alone: list[int] = []
    compute = averages._alone

    def counted(price: Floats, starts: Ints, ends: Ints) -> Floats:
        alone.append(len(ends))
        return compute(price, starts, ends)

    monkeypatch.setattr(averages, "_alone", counted)
    prices = [walk(rng) for _ in range(20)]
    begins = np.arange(20) * ROWS
    ends = np.concatenate([begin + np.arange(LONGEST, ROWS) for begin in begins])
    for rows, most in ((LONGEST, 2), (695, 20)):
        alone.clear()
        average_values(np.concatenate(prices), begins, ends - rows + 1, ends)
        assert sum(alone) <= most < len(ends) / 100
