"""An invented market of any size, quick to make and awkward to process.

Not the simulated market of the platform: that one is faithful and slow, this one is broken in the ways that decide what
a stage costs and whether it is right. Of the coins, in fixed shares, some are listed late, some die, some have hours
without volume or without a row, some are stablecoins of four decimals, and some share their symbol with another coin.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

FIRST_HOUR: Final = datetime.fromisoformat("2024-01-01")
SEED: Final = 20240101
# Shares of the coins, as in a real listing of small ones: 20, 10, 60, 60 and 40 of 1,250.
_STABLE: Final = 0.016
_DEAD: Final = 0.008
_LATE: Final = 0.048
_GAPPED: Final = 0.048
_QUIET: Final = 0.032
_SHARED: Final = 0.016
_MISSING_HOURS: Final = 0.03  # of the hours of a coin that has gaps
_QUIET_STRETCH: Final = 200  # hours in a row without volume
_DEAD_STRETCH: Final = 100  # hours for which the last price of a dead coin stays listed
# Two hours of a market of this many coins differ by one per cent: a rise of 10 % in five days is common, not certain.
_SIGMA: Final = 0.01
_CHANGES: Final = {"1h": 1, "24h": 24, "7d": 168, "30d": 720, "60d": 1440, "90d": 2160}
_FIRST_ID: Final = 1_000

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Market:
    """Prices and volumes on a grid of hours and coins; a NaN price is a coin that is not listed in that hour."""

    price: _Floats
    volume: _Floats
    symbols: list[str]

    def hours(self, every: int = 1, first: int = 0) -> Iterator[tuple[datetime, pd.DataFrame]]:
        """Each hour, or every n-th from the one of this number on, with its listing: 22 columns and the id."""
        changes = {name: _percent_change(self.price, lag) for name, lag in _CHANGES.items()}
        volume_change = _percent_change(self.volume, 24)
        for number in range(first, len(self.price), every):
            listed = np.flatnonzero(~np.isnan(self.price[number]))
            moment = FIRST_HOUR + timedelta(hours=number)
            yield moment, self._listing(number, listed, moment, changes, volume_change)

    def _listing(
        self,
        number: int,
        listed: npt.NDArray[np.int64],
        moment: datetime,
        changes: dict[str, _Floats],
        volume_change: _Floats,
    ) -> pd.DataFrame:
        price, volume = self.price[number, listed], self.volume[number, listed]
        supply = 1e6 * (1.0 + listed)
        return pd.DataFrame(
            {
                "name": [f"Coin {coin}" for coin in listed],
                "symbol": [self.symbols[coin] for coin in listed],
                "circulating_supply": supply,
                "total_supply": supply * 1.5,
                "max_supply": np.where(listed % 3 == 0, supply * 2, np.nan),
                "date_added": "2014-01-01T00:00:00.000Z",
                "num_market_pairs": 10 + (listed * 7 + number // 500) % 90,
                "cmc_rank": 1 + (listed * 37 + number // 200) % 1000,
                "price": price,
                "volume_24h": volume,
                "volume_change_24h": volume_change[number, listed],
                **{f"percent_change_{name}": change[number, listed] for name, change in changes.items()},
                "market_cap": price * supply,
                "market_cap_dominance": 0.01,
                "fully_diluted_market_cap": price * supply * 1.5,
                "last_updated": f"{moment:%Y-%m-%dT%H}:04:00.000Z",
                "timestamp": moment,
                "id": _FIRST_ID + listed,
                "kind": "coin",
                "origin": "cmc",
            }
        )


def generate(tokens: int, hours: int) -> Market:
    """The market of so many coins and hours; the same arguments give the same market."""
    rng = np.random.default_rng(SEED)
    factor = rng.normal(0, _SIGMA / 2, (hours, 1))
    start = np.exp(rng.normal(-2, 3, tokens))
    price = start * np.exp(np.cumsum(factor + rng.normal(0, _SIGMA, (hours, tokens)), axis=0))
    volume = np.exp(rng.normal(13, 2, tokens) + rng.normal(0, 0.4, (hours, tokens)))
    coins = rng.permutation(tokens)
    stable, dead, late, gapped, quiet, shared = _groups(coins, tokens)
    price[:, stable] = np.round(1 + rng.normal(0, 0.0004, (hours, len(stable))), 4)
    for coin in late:
        price[: rng.integers(hours // 10, hours // 2 + 1), coin] = np.nan
    for coin in dead:
        end = int(rng.integers(hours // 2, hours))
        price[end : end + _DEAD_STRETCH, coin] = price[end - 1, coin]
        volume[end:, coin] = 0.0
        price[end + _DEAD_STRETCH :, coin] = np.nan
    for coin in gapped:
        price[rng.random(hours) < _MISSING_HOURS, coin] = np.nan
    for coin in quiet:
        begin = int(rng.integers(0, max(1, hours - _QUIET_STRETCH)))
        volume[begin : begin + _QUIET_STRETCH, coin] = 0.0
    symbols = [f"C{coin:04d}" for coin in range(tokens)]
    for first, second in zip(shared[::2], shared[1::2], strict=False):
        symbols[second] = symbols[first]
    return Market(price, np.where(np.isnan(price), np.nan, volume), symbols)


def _groups(coins: npt.NDArray[np.int64], tokens: int) -> Iterator[npt.NDArray[np.int64]]:
    """Disjoint groups of coins, at least two in each: small markets shall be awkward as well."""
    begin = 0
    for share in (_STABLE, _DEAD, _LATE, _GAPPED, _QUIET, _SHARED):
        count = max(2, round(share * tokens))
        yield coins[begin : begin + count]
        begin += count


def _percent_change(values: _Floats, hours: int) -> _Floats:
    change = np.full_like(values, np.nan)
    if len(values) > hours:
        with np.errstate(divide="ignore", invalid="ignore"):
            change[hours:] = (values[hours:] / values[:-hours] - 1) * 100
    change[np.isinf(change)] = np.nan
    return change
