"""Invented tokens for tests of indicators: ordinary ones and every awkward kind."""

from collections.abc import Callable

import numpy as np
import pandas as pd


def at(hour: int) -> pd.Timestamp:
    return pd.Timestamp("2024-01-01") + pd.Timedelta(hours=hour)


# The asked day. Its first window reads from hour 81 on, its last from hour 104: rows from 0 to 80 never matter, and
# rows from 81 to 103 are in the computed block without being in every window.
FIRST, LAST = 800, 823
DAY = (at(FIRST), at(LAST))


def walk(rng: np.random.Generator) -> pd.DataFrame:
    """A token with a row for each hour from 0 to LAST."""
    price = np.exp(np.cumsum(rng.normal(0, 0.01, LAST + 1)) + rng.normal(0, 3))
    volume = np.exp(rng.normal(12, 1, LAST + 1))
    hours = [at(hour) for hour in range(LAST + 1)]
    return pd.DataFrame({"timestamp": pd.Series(hours, dtype="datetime64[us]"), "price": price, "volume": volume})


def stablecoin(rng: np.random.Generator) -> pd.DataFrame:
    return walk(rng).assign(price=np.repeat(np.round(1 + rng.normal(0, 3e-4, LAST // 4 + 1), 4), 4)[: LAST + 1])


def frozen_from(hour: int) -> Callable[[np.random.Generator], pd.DataFrame]:
    """The price stands still from this hour on."""

    def token(rng: np.random.Generator) -> pd.DataFrame:
        rows = walk(rng)
        return rows.assign(price=rows["price"].where(rows.index < hour, rows["price"][hour]))

    return token


def nearly_frozen(rng: np.random.Generator) -> pd.DataFrame:
    """Two moves in 720 hours, which leave the windows of the day one after the other."""
    return walk(rng).assign(price=np.select([np.arange(LAST + 1) < 90, np.arange(LAST + 1) < 97], [1.0, 1.3], 1.1))


def still_across_a_gap(rng: np.random.Generator) -> pd.DataFrame:
    """The price stands still until 50 rows before the day ends: later windows begin as if nothing had been before."""
    rows = walk(rng)
    return rows.assign(price=rows["price"].where(rows.index > 770, rows["price"][770]))[
        (rows.index < 101) | (rows.index >= 770)
    ]


def only(*parts: tuple[int, int]) -> Callable[[np.random.Generator], pd.DataFrame]:
    """Rows in these spans of hours and no others."""

    def token(rng: np.random.Generator) -> pd.DataFrame:
        rows = walk(rng)
        kept = np.zeros(len(rows), dtype=bool)
        for first, last in parts:
            kept[first : last + 1] = True
        return rows[kept]

    return token


def share(part: float) -> Callable[[np.random.Generator], pd.DataFrame]:
    """Each hour has a row with this probability."""
    return lambda rng: walk(rng)[rng.random(LAST + 1) < part]


def priced(factor: float, first: int, last: int = LAST) -> Callable[[np.random.Generator], pd.DataFrame]:
    """The price is multiplied by a factor for a time."""

    def token(rng: np.random.Generator) -> pd.DataFrame:
        rows = walk(rng)
        return rows.assign(price=rows["price"] * np.where(rows.index.isin(range(first, last + 1)), factor, 1.0))

    return token


def traded(volume: float, first: int, last: int = LAST) -> Callable[[np.random.Generator], pd.DataFrame]:
    """The volume has one value for a time."""

    def token(rng: np.random.Generator) -> pd.DataFrame:
        rows = walk(rng)
        return rows.assign(volume=rows["volume"].mask(rows.index.isin(range(first, last + 1)), volume))

    return token


def null_volumes(rng: np.random.Generator) -> pd.DataFrame:
    rows = walk(rng)
    return rows.assign(volume=rows["volume"].mask(pd.Series(rng.random(LAST + 1) < 0.15)))


TOKENS: dict[str, Callable[[np.random.Generator], pd.DataFrame]] = {
    "walk": walk,
    "stablecoin": stablecoin,
    "frozen always": frozen_from(0),
    "frozen for all but the oldest windows": frozen_from(92),
    "frozen for 600 hours": frozen_from(200),
    "frozen for 500 hours": frozen_from(300),
    "frozen for 300 hours": frozen_from(500),
    "nearly frozen": nearly_frozen,
    "still across a gap": still_across_a_gap,
    "gap of 700 hours": only((0, 95), (796, LAST)),
    "gap of 300 hours": only((0, 300), (601, LAST)),
    "gap that no window bridges": only((0, 60), (805, LAST)),
    "only the oldest windows bridge the gap": only((0, 83), (801, LAST)),
    "one row in 30": share(1 / 30),
    "two rows in three": share(0.66),
    "nearly all rows": share(0.97),
    "listed 5 hours before the day": only((795, LAST)),
    "listed 12 hours before the day": only((788, LAST)),
    "listed within the day": only((807, LAST)),
    "one row": only((810, 810)),
    "one row a window": only((85, 85), (806, 806)),
    "jump of 1000 within the day": priced(1000.0, 811),
    "jump of 1000 as windows begin": priced(1000.0, 95),
    "fall to a billionth as windows begin": priced(1e-9, 100),
    "spike of a billion as windows begin": priced(1e9, 88, 88),
    "absurd volume as windows begin": traded(1e20, 88, 88),
    "no volume for long": traded(0.0, 150),
    "no volume within the day": traded(0.0, 790, 815),
    "null volumes": null_volumes,
    "null volume always": traded(np.nan, 0),
    "null volumes as windows begin": traded(np.nan, 78, 94),
}


def market(seed: int, *names: str) -> pd.DataFrame:
    """The named tokens, `<name>-<number>`, ordered by hour as snapshots are."""
    rng = np.random.default_rng(seed)
    tokens = [TOKENS[name](rng).assign(token=f"{name}-{number}") for number, name in enumerate(names)]
    return pd.concat(tokens).sort_values("timestamp", kind="stable").astype({"token": "str"}).reset_index(drop=True)
