"""Twins of a market in which nothing can be foreseen: what a method scores on them, it scores on noise."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from breakout_assets.errors import DataError
from breakout_assets.learning.statistics import Floats, Hours, hours_of
from breakout_assets.market.schema import CHANGES

# The twin's past before the token's first row, so that its first row already has the changes that a listing reports.
_PAST: Final = max(CHANGES.values())
# A factor of five between two neighbouring rows is a change of the token's unit; dealt out at random it would break the
# twin's price over and over.
_UNIT_CHANGE: Final = np.log(5.0)
# They move with the price and would otherwise contradict it.
_CAPITALS: Final = ("market_cap", "fully_diluted_market_cap")


def twin_market(market: pd.DataFrame, seed: int, block: int = 24) -> pd.DataFrame:
    """The same market with its hours dealt anew: prices without drift that nothing before them foretells.

    Log returns lose their mean and are drawn together with the volumes in blocks of hours. All tokens share the draw,
    so they move together as they did. What links hours within a block survives; longer dependence, and with it all
    that a method could forecast over days, does not. A token that was not listed in a drawn hour takes an hour of its
    own life instead.

    Args:
        market: rows of `daily_snapshots`, believed ones only, any number of tokens, in any order.
        seed: another seed is another twin.
        block: hours of a block.

    Returns:
        The same rows, sorted by (timestamp, token): `price` starts at the token's own first price, `volume`, capitals,
        `volume_change_24h` and the percent changes belong to it (null where they were null, or the volume was 0).
        Everything else is as it was.

    Raises:
        DataError: rows are quarantined, a token has an hour twice, a price is not above 0, or there are fewer hours
            than a block has.
    """
    _check(market, block)
    twin = market.sort_values(["timestamp", "token"], ignore_index=True)
    hours = hours_of(twin["timestamp"])
    # Blocks begin where the market's past begins; they are the same for every token and whatever tokens there are.
    first, last = int(hours.min()), int(hours.max())
    donors = _donors(first, last, seed, block)
    price, volume = twin["price"].to_numpy(dtype=np.float64), twin["volume"].to_numpy(dtype=np.float64)
    figures = {name: np.full(len(twin), np.nan) for name in ("price", "volume", "volume_change_24h", *CHANGES)}
    for rows in twin.groupby("token").indices.values():
        lived = _relived(hours[rows], price[rows], volume[rows], donors, first - _PAST)
        for name, values in lived.items():
            figures[name][rows] = values
    for name in ("volume_change_24h", *CHANGES):
        figures[name][twin[name].isna().to_numpy()] = np.nan
    for name in _CAPITALS:
        figures[name] = twin[name].to_numpy(dtype=np.float64) * figures["price"] / price
    return twin.assign(**figures)


def _check(market: pd.DataFrame, block: int) -> None:
    if market["quarantine"].notna().any():
        raise DataError("a twin is made of believed rows; leave the quarantined ones out")
    twice = market[market.duplicated(["token", "timestamp"])]
    if len(twice):
        row = twice.iloc[0]
        raise DataError(f"{row['token']} has the hour {row['timestamp']} more than once; remove the duplicates")
    wrong = market[~(market["price"] > 0)]
    if len(wrong):
        row = wrong.iloc[0]
        raise DataError(f"{row['token']} at {row['timestamp']} has the price {row['price']}, which has no return")
    if market["timestamp"].nunique() <= block:
        raise DataError(f"{market['timestamp'].nunique()} hours make no twin in blocks of {block} h; use more hours")


def _donors(first: int, last: int, seed: int, block: int) -> Hours:
    """The hour of the market whose moves each hour of the twin gets, from `_PAST` hours before the first row on."""
    length = last - first + 1 + _PAST
    # The first hour has no return of its own.
    starts = np.random.default_rng(seed).integers(first + 1, last - block + 2, -(-length // block))
    return np.asarray((starts[:, None] + np.arange(block)).ravel()[:length], dtype=np.int64)


def _relived(hours: Hours, price: Floats, volume: Floats, donors: Hours, begin: int) -> dict[str, Floats]:
    """One token's figures in the twin, a value a row.

    Args:
        hours: of the token's rows, ascending.
        price: of each row.
        volume: of each row.
        donors: the hour that gives its moves, for each hour from `begin` on.
        begin: the hour of the first donor.
    """
    born, life = int(hours[0]), int(hours[-1] - hours[0])
    at = hours - begin
    # A return over missing hours is spread over them.
    returns = np.diff(np.interp(np.arange(life + 1), hours - born, np.log(price)))
    steps = np.diff(np.log(price))
    returns[np.repeat(np.abs(steps) > _UNIT_CHANGE, np.diff(hours))] = 0.0
    latest = np.searchsorted(hours - born, np.arange(life + 1), side="right") - 1
    volumes = volume[latest]
    if not life:  # a single row moves nowhere
        returns = np.zeros(1)
        volumes = np.repeat(volumes, 2)
    drawn = (donors - born - 1) % len(returns)
    path = np.cumsum((returns - returns.mean())[drawn])
    path += np.log(price[0]) - path[at[0]]
    traded = volumes[1:][drawn]
    changes = {name: 100 * np.expm1(path[at] - path[at - back]) for name, back in CHANGES.items()}
    return {
        "price": np.exp(path[at]),
        "volume": traded[at],
        "volume_change_24h": _growth(traded[at], traded[at - CHANGES["percent_change_24h"]]),
        **changes,
    }


def _growth(after: Floats, before: Floats) -> Floats:
    """Percent; NaN where there is nothing to grow from."""
    grown: npt.NDArray[np.float64] = 100 * (after / np.where(before > 0, before, np.nan) - 1)
    return grown


def placebo_p(observed: float, twins: Sequence[float]) -> float:
    """How often noise does as well: (1 + number of twins that reach the observed value) / (twins + 1)."""
    return (1 + sum(twin >= observed for twin in twins)) / (len(twins) + 1)
