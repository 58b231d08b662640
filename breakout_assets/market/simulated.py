"""An invented CoinMarketCap-like listing: needs no account, never changes, and its hidden truth is known.

Each coin has a hidden state, an AR(1) process with a half-life of two days, that its volume shows and that pulls its
price: a rise of more than 10 % in five days can be foreseen as well as `signal` allows, and no better. Rank and market
pairs are random walks that mean nothing.

The same seed gives an hour the same bytes whatever else is asked for: every component of every coin has a random
stream of its own, drawn from the same first hour on, and only recurrences that look back. Another release of numpy
may draw other numbers.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import ClassVar, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import ndtr

from breakout_assets.errors import DataError, SettingsError
from breakout_assets.market.faults import (
    DELAY_HOURS,
    FAULTS,
    FIRST_EXTRA_NUMBER,
    REACH_HOURS,
    Component,
    FloatArray,
    IntArray,
    Panel,
    coin_numbers,
    events,
    inject,
    stream,
)
from breakout_assets.market.schema import CHANGES, HOUR, KINDS, ORIGIN_SIMULATED, is_whole_hour, raw_frame

ORIGIN: Final = datetime.fromisoformat("2023-09-01")
FIRST_ID: Final = 900_001  # far above the ids of real coins, so that nobody takes one for the other

# Hour 0 lies four stretches of faults before the origin, so that the first hours already have all they look back on.
_HOURS_BEFORE_ORIGIN: Final = 120 * 24
_HOUR_ZERO: Final = ORIGIN - _HOURS_BEFORE_ORIGIN * HOUR
_LOOK_BACK: Final = max(CHANGES.values()) + REACH_HOURS
# Hours of a range that are in memory at once. More would save redrawing (each piece draws from hour 0), less memory.
_PIECE: Final = 60 * 24

HORIZON: Final = 120  # hours from a price to the one that the label compares it with
_RISE: Final = 1.10
_SIGMA: Final = 0.0078  # of a log return in an hour: 8.5 % in five days, so that one window in eight rises by 10 %
_HALF_LIFE: Final = 48
_PHI: Final = 2 ** (-1 / _HALF_LIFE)
_BURN_IN: Final = 500  # hours; what is left of the start is 2^-10
_VOLUME_PHI: Final = 0.5
_VOLUME_SD: Final = 0.5
_VOLUME_LEVEL: Final = 16.0  # log USD: about nine million a day
_PAIRS_STEP: Final = 0.2
# Walks start in 0..1 and move by .08 in a week: four ranks among 50 coins.
_RANK_STEP: Final = 0.006
_EPOCH: Final = np.datetime64("2014-01-01")  # the first day on which a coin may have been added
_LAST_RANK: Final = 1000.0  # where no walk gets to: below all others


@dataclass(frozen=True)
class SimulatedMarket:
    """A market that does not exist, hour by hour from 2023-09-01 on.

    Attributes:
        seed: The market; another seed is another market.
        tokens: Number of coins, without those that faults add.
        signal: Drift that the hidden state adds to each hour's return, in standard deviations of the return; 0 makes
            prices unpredictable.
        market_factor: Correlation of each coin's returns with the whole market's.
        faults: Names of `faults.FAULTS` to inject.

    Raises:
        SettingsError: a value is impossible or a fault unknown.
    """

    name: ClassVar[str] = "simulated"
    simulated: ClassVar[bool] = True

    seed: int
    tokens: int
    signal: float = 0.15
    market_factor: float = 0.6
    faults: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise SettingsError(f"the simulated market's seed is {self.seed}; it must not be negative")
        if not 1 <= self.tokens <= FIRST_EXTRA_NUMBER:
            raise SettingsError(f"the simulated market has {self.tokens} tokens; it must be 1 to {FIRST_EXTRA_NUMBER}")
        if not 0 <= self.signal <= 1:
            raise SettingsError(f"the simulated market's signal is {self.signal}; it must lie in 0 to 1")
        if not 0 <= self.market_factor <= 1:
            raise SettingsError(f"the simulated market's market_factor is {self.market_factor}; it must lie in 0 to 1")
        if unknown := sorted(self.faults - FAULTS.keys()):
            raise SettingsError(
                f"the simulated market has no fault {', '.join(unknown)}; known are {', '.join(sorted(FAULTS))}"
            )
        if "symbol_collision" in self.faults and self.tokens < FAULTS["symbol_collision"].coins:
            raise SettingsError(f"the fault symbol_collision needs 4 tokens; the simulated market has {self.tokens}")

    def snapshot(self, hour: datetime) -> pd.DataFrame:
        """The raw frame of one hour (naive UTC), sorted by rank.

        Raises:
            DataError: not a whole naive hour, before the origin, or the fault `missing_hours` removed it.
        """
        number = _number(hour)
        frame = _day(self, number // 24).get(_time(number))
        if frame is None:
            raise DataError(
                f"the simulated collector was down at {hour:%Y-%m-%d %H:00} (fault missing_hours): that hour has no "
                "snapshot and never will have one"
            )
        return frame.copy()

    def snapshots(self, first: datetime, last: datetime) -> Iterator[tuple[datetime, pd.DataFrame]]:
        """Hour and raw frame of every hour from `first` to `last`, both included; without those that a fault removed.

        Raises:
            DataError: as `snapshot`, or `last` lies before `first`.
        """
        begin, end = _range(first, last)
        return _snapshots(self, begin, end)

    def truth(self, first: datetime, last: datetime) -> pd.DataFrame:
        """What is really so in each hour, without any fault and without the coins that faults add.

        Returns:
            One row a coin and hour, sorted by hour and id: `id`, `timestamp`, `price` (undisturbed, USD), `state`
            (hidden, unit variance), `oracle_probability` (that the price 120 h later is more than 10 % higher, given
            the state and nothing else: the best forecast there is).

        Raises:
            DataError: as `snapshots`.
        """
        begin, end = _range(first, last)
        factor = _normal(self.seed, Component.MARKET, 0, end + 1)
        shape = end - begin + 1, self.tokens
        price, state = np.empty(shape), np.empty(shape)
        for number, start in enumerate(_coins(self.seed, np.arange(self.tokens)).log_price.tolist()):
            states = _states(self.seed, number, end)
            state[:, number] = states[begin:]
            price[:, number] = np.exp(start + _log_moves(self, number, states, factor)[begin:])
        return pd.DataFrame(
            {
                "id": pd.array(np.tile(FIRST_ID + np.arange(self.tokens), shape[0]), dtype="Int64"),
                "timestamp": _times(np.repeat(np.arange(begin, end + 1), self.tokens)),
                "price": price.ravel(),
                "state": state.ravel(),
                "oracle_probability": oracle_probability(state.ravel(), self.signal),
            }
        )

    def fault_log(self, first: datetime, last: datetime) -> pd.DataFrame:
        """What was injected: every event with an hour in the range, with its own hours, uncut.

        Returns:
            `fault`, `id` (Int64; null: the whole market), `first_hour`, `last_hour` (both included). Collisions and
            wrapped coins name both coins, the changed or added one first.

        Raises:
            DataError: as `snapshots`.
        """
        begin, end = _range(first, last)
        numbers = coin_numbers(self.tokens, self.faults)
        rows: list[tuple[str, int | None, datetime, datetime]] = []
        for event in events(self.seed, self.tokens, self.faults, begin, end):
            serial = event.stretch + 1 if FAULTS[event.fault].renewed else 0
            coins: list[int | None] = [FIRST_ID + int(numbers[column]) + serial for column in event.columns]
            rows.extend((event.fault, coin, _time(event.first), _time(event.last)) for coin in coins or [None])
        log = pd.DataFrame(rows, columns=["fault", "id", "first_hour", "last_hour"])
        hours = "datetime64[us]"
        return log.astype({"fault": "str", "id": "Int64", "first_hour": hours, "last_hour": hours})


def oracle_probability(state: FloatArray, signal: float) -> FloatArray:
    """Probability that the price 120 h after a hidden state is more than 10 % higher, whatever the market factor.

    The log return of the window is normal. Its mean follows from the state, which decays by `_PHI` an hour; each of
    the state's later shocks moves it for the rest of the window.
    """
    decayed = (1 - _PHI ** np.arange(HORIZON, 0, -1)) / (
        1 - _PHI
    )  # sum of what is left of a shock in 120, 119, … hours
    drift = signal * _SIGMA
    mean = drift * decayed[0] * state - HORIZON * _SIGMA**2 / 2
    variance = HORIZON * _SIGMA**2 + drift**2 * (1 - _PHI**2) * float(np.sum(decayed[1:] ** 2))
    return np.asarray(ndtr((mean - np.log(_RISE)) / np.sqrt(variance)), dtype=np.float64)


@dataclass(frozen=True)
class _Coins:
    """What does not change about the coins; one value a column."""

    log_price: FloatArray
    log_volume: FloatArray
    rank_start: FloatArray
    pairs_start: FloatArray
    circulating: FloatArray
    total: FloatArray
    maximum: FloatArray
    added: IntArray


def _coins(seed: int, numbers: IntArray) -> _Coins:
    draws = np.array([stream(seed, Component.COIN, number).random(9) for number in numbers.tolist()]).T
    price, volume, rank, pairs, circulating, total, limited, maximum, added = draws
    log_price = np.log(10.0) * (-4 + 6 * price)
    supply = np.round(10 ** (7 + 3 * circulating) / np.exp(log_price))  # worth ten million to ten billion USD
    issued = np.round(supply * (1 + 0.5 * total))
    return _Coins(
        log_price=log_price,
        log_volume=_VOLUME_LEVEL - 1 + 2 * volume,
        rank_start=np.where(numbers < FIRST_EXTRA_NUMBER, rank, _LAST_RANK + numbers / FIRST_EXTRA_NUMBER),
        pairs_start=5 + 195 * pairs,
        circulating=supply,
        total=issued,
        # More than half of the coins of a real listing have no upper limit.
        maximum=np.where(limited < 0.45, np.round(issued * (1 + maximum)), np.nan),
        added=np.floor(3400 * added).astype(np.int64),
    )


def _normal(seed: int, component: Component, number: int, count: int) -> FloatArray:
    return stream(seed, component, number).standard_normal(count)


def _autoregression(shocks: FloatArray, persistence: float, sd: float) -> FloatArray:
    from scipy.signal import lfilter  # a third of the start of every process that never simulates

    filtered = lfilter([sd * np.sqrt(1 - persistence**2)], [1.0, -persistence], shocks)
    return np.asarray(filtered, dtype=np.float64)


def _states(seed: int, number: int, end: int) -> FloatArray:
    shocks = _normal(seed, Component.STATE, number, end + 1 + _BURN_IN)
    return _autoregression(shocks, _PHI, 1.0)[_BURN_IN:]


def _log_moves(market: SimulatedMarket, number: int, states: FloatArray, factor: FloatArray) -> FloatArray:
    """Log of each hour's price against the one before hour 0."""
    beta = market.market_factor
    own = _normal(market.seed, Component.NOISE, number, len(factor))
    returns = _SIGMA * (beta * factor + np.sqrt(1 - beta**2) * own) - _SIGMA**2 / 2
    returns[1:] += market.signal * _SIGMA * states[:-1]  # the state of an hour shows in the next hour's return
    return np.cumsum(returns)


def _panel(market: SimulatedMarket, first: int, last: int) -> tuple[Panel, _Coins]:
    """All that the snapshots of the hours `first` to `last` are made of, faults included."""
    numbers = coin_numbers(market.tokens, market.faults)
    coins = _coins(market.seed, numbers)
    hours = np.arange(first - _LOOK_BACK, last + DELAY_HOURS + 1)
    begin, end = int(hours[0]), int(hours[-1])
    shape = len(hours), len(numbers)
    price, volume, walk, pairs = (np.empty(shape) for _ in range(4))
    factor = _normal(market.seed, Component.MARKET, 0, end + 1)
    for column, number in enumerate(numbers.tolist()):
        states = _states(market.seed, number, end)
        drawn = {
            c: _normal(market.seed, c, number, end + 1) for c in (Component.VOLUME, Component.RANK, Component.PAIRS)
        }
        ripple = _autoregression(drawn[Component.VOLUME], _VOLUME_PHI, _VOLUME_SD)
        pairs_moves = np.cumsum(_PAIRS_STEP * drawn[Component.PAIRS])
        price[:, column] = coins.log_price[column] + _log_moves(market, number, states, factor)[begin:]
        volume[:, column] = coins.log_volume[column] + (states + ripple)[begin:]
        walk[:, column] = coins.rank_start[column] + np.cumsum(_RANK_STEP * drawn[Component.RANK])[begin:]
        pairs[:, column] = 1 + np.round(np.abs(coins.pairs_start[column] + pairs_moves[begin:]))
    columns = np.arange(len(numbers))
    panel = Panel(
        hours=hours,
        numbers=numbers,
        price=np.exp(price, out=price),
        volume=np.exp(volume, out=volume),
        walk=walk,
        pairs=pairs,
        supply=np.broadcast_to(1.0, shape),
        # In real listings most coins were refreshed within the last minute and nearly all within 100 seconds.
        age=20 + (37 * numbers + 17 * hours[:, None]) % 60,
        serial=np.broadcast_to(np.int64(0), shape),
        since=np.broadcast_to(np.int64(0), shape),
        listed=np.broadcast_to(numbers < FIRST_EXTRA_NUMBER, shape),
        symbol=np.broadcast_to(columns, shape),
        name=np.broadcast_to(columns, shape),
        kind=np.broadcast_to(np.int64(0), shape),
        base=np.broadcast_to(1.0, shape),
        copies=np.broadcast_to(np.bool_(False), shape),
        delay=np.zeros(len(hours), dtype=np.int64),
        collected=np.ones(len(hours), dtype=np.bool_),
    )
    return inject(panel, market.seed, market.tokens, market.faults), coins


def _listing(panel: Panel, coins: _Coins, first: int, last: int) -> pd.DataFrame:
    """The raw rows of a range of hours, sorted by hour and rank."""
    begin = int(panel.hours[0])
    block = slice(first - begin - 1, last - begin + DELAY_HOURS + 1)  # all rows that the collector may have looked at
    rank = 1 + np.argsort(np.argsort(panel.walk[block], axis=1, kind="stable"), axis=1)
    capital = np.where(panel.listed[block], panel.price[block] * panel.supply[block], 0.0) * coins.circulating
    total_capital = np.nansum(capital, axis=1)

    asked = np.arange(first - begin, last - begin + 1)
    seen = asked + panel.delay[asked]  # the row that the collector found when it came
    hour, column = np.nonzero(panel.listed[seen])
    again = np.flatnonzero(panel.copies[asked[hour], column])
    cell = np.concatenate([np.arange(len(hour)), again])
    is_copy = np.arange(len(cell)) >= len(hour)
    hour, column = hour[cell], column[cell]
    ranks = rank[seen[hour] - block.start, column]
    order = np.lexsort((is_copy, ranks, hour))
    hour, column, ranks = hour[order], column[order], ranks[order]
    source = seen[hour] - is_copy[order]  # a copy is the row of the hour before, but for its rank
    figures = _figures(panel, coins, source, column)
    with np.errstate(invalid="ignore"):  # nothing has a share of a market that is worth nothing
        figures["market_cap_dominance"] = 100 * figures["market_cap"] / total_capital[source - block.start]
    moments = {"cmc_rank": ranks, "timestamp": _times(panel.hours[asked[hour]])}
    return raw_frame(pd.DataFrame(_identity(panel, coins, source, column) | figures | moments))


def _figures(panel: Panel, coins: _Coins, row: IntArray, column: IntArray) -> dict[str, FloatArray]:
    price, volume, supply = (cells[row, column] for cells in (panel.price, panel.volume, panel.supply))
    circulating, total = coins.circulating[column] * supply, coins.total[column] * supply
    maximum = coins.maximum[column] * supply
    base = panel.base[row, column]
    return {
        "circulating_supply": circulating,
        "total_supply": total,
        "max_supply": maximum,
        "num_market_pairs": panel.pairs[row, column],
        "price": price,
        "volume_24h": volume,
        "volume_change_24h": _change(panel, panel.volume, row, column, 24),
        **{name: _change(panel, panel.price, row, column, hours, base) for name, hours in CHANGES.items()},
        "market_cap": price * circulating,
        "fully_diluted_market_cap": price * np.where(np.isnan(maximum), total, maximum),
    }


def _change(
    panel: Panel, cells: FloatArray, row: IntArray, column: IntArray, hours: int, base: FloatArray | float = 1.0
) -> FloatArray:
    """Percent; null where the coin did not exist yet or the older value is no divisor."""
    before = base * cells[row - hours, column]
    known = (panel.hours[row - hours] >= panel.since[row, column]) & (before > 0)
    return np.asarray(100 * (cells[row, column] / np.where(known, before, np.nan) - 1), dtype=np.float64)


def _identity(panel: Panel, coins: _Coins, row: IntArray, column: IntArray) -> dict[str, npt.NDArray[np.generic]]:
    serial = panel.serial[row, column]
    number = panel.numbers[column] + serial
    extra = panel.numbers[column] >= FIRST_EXTRA_NUMBER
    listed = np.where(extra, _times(panel.since[row, column]), _EPOCH + coins.added[column].astype("timedelta64[D]"))
    updated = _times(panel.hours[row]) - panel.age[row, column].astype("timedelta64[s]")
    return {
        "id": FIRST_ID + number,
        "name": _numbered("Simulated ", panel.numbers[panel.name[row, column]] + serial),
        "symbol": _numbered("SIM", panel.numbers[panel.symbol[row, column]] + serial),
        "date_added": _stamps(listed.astype("datetime64[D]")),
        "last_updated": _stamps(updated),
        "kind": np.array(KINDS, dtype=np.object_)[panel.kind[row, column]],
        "origin": np.full(len(row), ORIGIN_SIMULATED, dtype=np.object_),
    }


def _numbered(prefix: str, numbers: IntArray) -> npt.NDArray[np.object_]:
    different, which = np.unique(numbers, return_inverse=True)
    return np.array([f"{prefix}{number + 1:03d}" for number in different.tolist()], dtype=np.object_)[which]


def _stamps(times: npt.NDArray[np.datetime64]) -> npt.NDArray[np.object_]:
    """Text as the real listing writes it, `2024-01-01T00:00:00.000Z`."""
    different, which = np.unique(times.astype("datetime64[ms]"), return_inverse=True)
    return np.array([f"{text}Z" for text in np.datetime_as_string(different)], dtype=np.object_)[which]


def _snapshots(market: SimulatedMarket, first: int, last: int) -> Iterator[tuple[datetime, pd.DataFrame]]:
    for piece in range(first, last + 1, _PIECE):
        piece_end = min(piece + _PIECE - 1, last)
        panel, coins = _panel(market, piece, piece_end)
        for day in range(piece, piece_end + 1, 24):
            day_end = min(day + 23, piece_end)
            rows = _listing(panel, coins, day, day_end)
            bounds = np.searchsorted(rows["timestamp"].to_numpy(), _times(np.arange(day, day_end + 2)))
            for hour in range(day, day_end + 1):
                if panel.collected[hour - panel.hours[0]]:
                    yield _time(hour), rows.iloc[bounds[hour - day] : bounds[hour - day + 1]].reset_index(drop=True)


# An hour costs as much as its day, since both draw from hour 0; whoever asks hour by hour asks for the neighbours next.
@lru_cache(maxsize=2)
def _day(market: SimulatedMarket, day: int) -> dict[datetime, pd.DataFrame]:
    return dict(_snapshots(market, 24 * day, 24 * day + 23))


def _number(hour: datetime) -> int:
    if hour.tzinfo is not None or not is_whole_hour(hour):
        raise DataError(f"the simulated market has whole hours in naive UTC, not {hour}")
    if hour < ORIGIN:
        raise DataError(f"the simulated market begins at {ORIGIN:%Y-%m-%d %H:00}; {hour:%Y-%m-%d %H:00} lies before it")
    return (hour - _HOUR_ZERO) // HOUR


def _range(first: datetime, last: datetime) -> tuple[int, int]:
    begin, end = _number(first), _number(last)
    if end < begin:
        raise DataError(f"the range of simulated hours ends at {last} before it begins at {first}")
    return begin, end


def _time(number: int) -> datetime:
    return _HOUR_ZERO + number * HOUR


def _times(numbers: IntArray) -> npt.NDArray[np.datetime64]:
    return np.datetime64(_HOUR_ZERO, "us") + numbers.astype("timedelta64[h]")
