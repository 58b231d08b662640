"""Faults that real listings have, injected into the simulated one: which coins and hours each hits, and how.

Every fault happens once in each stretch of 30 days, in the same hours of the stretch and to the same coins (or to a
coin made for it), so that any month shows all of them. The day within the stretch is part of the registry below, the
hour of that day and the coins come from the seed. The short faults have days of their own and cannot cover each
other up.

Hours are counted from the beginning of the simulated prices; what a hour number means in time is for the market to
say.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from breakout_assets.market.schema import KINDS

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

STRETCH_HOURS: Final = 30 * 24
# A late collector comes two hours after its hour: past the 90 minutes from which on an hour counts as missed.
DELAY_HOURS: Final = 2
# Rows that a panel needs before the first one that is used: a price that froze in them must know what it froze at.
REACH_HOURS: Final = 24
# Coins that exist for a fault only are numbered from here on, far above those of the market itself.
FIRST_EXTRA_NUMBER: Final = 1_000_000

_REDENOMINATION: Final = 1000.0
# 8 = e^2.08: more than a factor of 3 in an hour, the size from which on a reverted move counts as a glitch.
_GLITCH: Final = 8.0
# Every price at once, well beyond the 25 % that half of a market never moves in an hour.
_MARKET_GLITCH: Final = 5.0
_COLLAPSE_HOURS: Final = 24
_COLLAPSE_PRICE: Final = 0.6  # an hour; 24 of them leave five millionths
_COLLAPSE_VOLUME: Final = 0.85
# Changes of a fifth against it are a quarter too high: far beyond rounding, and no jump that a price gate could see.
_WRONG_BASE: Final = 0.8
_PEG_WIDTH: Final = 0.002  # a dollar coin in quiet times stays within a fifth of a percent


class Component(IntEnum):
    """What a random stream is for. Every component of every coin has a stream of its own."""

    MARKET = 0
    STATE = 1
    NOISE = 2
    VOLUME = 3
    RANK = 4
    PAIRS = 5
    COIN = 6
    FAULT_HOUR = 7
    FAULT_COINS = 8


def stream(seed: int, component: Component, number: int) -> np.random.Generator:
    """The random stream of one component of one coin; drawing more from it only extends what was drawn before."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(int(component), number)))


@dataclass(frozen=True)
class Panel:
    """What the simulated service knows: hours (rows, consecutive) by coins (columns).

    Attributes:
        hours: Number of each row's hour.
        numbers: Number of each column's coin, before `serial` is added.
        price: USD; NaN where the service gives none.
        volume: Of 24 hours, USD.
        walk: The lower, the better the rank.
        pairs: Number of market pairs.
        supply: Factor on the coin's supplies.
        age: Seconds from `last_updated` to the hour.
        serial: Which of the coins that follow each other in the column; added to its number.
        since: Hour from which on this coin exists.
        listed: Whether the coin is in the listing.
        symbol: Column whose symbol the coin shows.
        name: Column whose name the coin shows.
        kind: Place in `KINDS` of what the coin is said to be.
        base: Factor on the earlier prices that the percentage changes are computed from.
        copies: Whether the collector got the coin's row of the hour before as well.
        delay: Hours by which the collector was late; one value a row.
        collected: Whether there is a snapshot; one value a row.
    """

    hours: IntArray
    numbers: IntArray
    price: FloatArray
    volume: FloatArray
    walk: FloatArray
    pairs: FloatArray
    supply: FloatArray
    age: IntArray
    serial: IntArray
    since: IntArray
    listed: BoolArray
    symbol: IntArray
    name: IntArray
    kind: IntArray
    base: FloatArray
    copies: BoolArray
    delay: IntArray
    collected: BoolArray


@dataclass(frozen=True)
class Event:
    """One occurrence of a fault: its hours, both ends included, and the columns it hits (none: the whole market).

    The column that a fault adds, if any, comes first.
    """

    fault: str
    stretch: int
    first: int
    last: int
    columns: tuple[int, ...]

    def rows(self, panel: Panel) -> slice:
        """The rows of the panel that lie in the event."""
        begin = int(panel.hours[0])
        return slice(max(self.first - begin, 0), max(self.last - begin + 1, 0))


@dataclass(frozen=True)
class Fault:
    """A kind of fault.

    Attributes:
        description: What it does.
        gate: Code of the check that should notice it.
        apply: The panel with an event in it; the panel that is given stays as it is.
        day: Day of the stretch, from 0, in which it begins.
        hours: How long it lasts, at most one stretch.
        coins: How many coins of the market it needs; 0 where it hits all of them or only a coin made for it.
        extra: Number of the column for the coins made for it, if it has one.
        renewed: Whether the coin made for it is another one in each stretch.
    """

    description: str
    gate: str
    apply: Callable[[Panel, Event], Panel]
    day: int
    hours: int
    coins: int = 0
    extra: int | None = None
    renewed: bool = False


def _with_cells(panel: Panel, event: Event, **values: float | FloatArray | IntArray) -> Panel:
    """The panel with new values in the event's cells."""
    rows = event.rows(panel)
    changed = {}
    for field, new in values.items():
        cells = getattr(panel, field).copy()
        if event.columns:
            cells[rows, list(event.columns)] = new
        else:
            cells[rows] = new
        changed[field] = cells
    return replace(panel, **changed)


def _missing_hours(panel: Panel, event: Event) -> Panel:
    return _with_cells(panel, event, collected=False)


def _late_ingestion(panel: Panel, event: Event) -> Panel:
    return _with_cells(panel, event, delay=DELAY_HOURS)


def _duplicate_rows(panel: Panel, event: Event) -> Panel:
    return _with_cells(panel, event, copies=True)


def _stale_price(panel: Panel, event: Event) -> Panel:
    rows, column = event.rows(panel), event.columns[0]
    frozen = max(rows.start - 1, 0)
    hours_since = panel.hours[rows] - panel.hours[frozen]
    age = panel.age[frozen, column] + 3600 * hours_since
    return _with_cells(panel, event, price=panel.price[frozen, column], age=age[:, None])


def _symbol_collision(panel: Panel, event: Event) -> Panel:
    first, its_symbol, second, its_name = event.columns
    symbol = _with_cells(panel, replace(event, columns=(first,)), symbol=its_symbol)
    return _with_cells(symbol, replace(event, columns=(second,)), symbol=its_name, name=its_name)


def _dying_token(panel: Panel, event: Event) -> Panel:
    rows = event.rows(panel)
    fallen = np.clip(panel.hours[rows] - (event.last - _COLLAPSE_HOURS), 0, None)[:, None]
    columns = list(event.columns)
    return _with_cells(
        _late_listing(panel, event),
        event,
        price=panel.price[rows][:, columns] * _COLLAPSE_PRICE**fallen,
        volume=panel.volume[rows][:, columns] * _COLLAPSE_VOLUME**fallen,
    )


def _late_listing(panel: Panel, event: Event) -> Panel:
    return _with_cells(panel, event, listed=True, serial=event.stretch + 1, since=event.first)


def _redenomination(panel: Panel, event: Event) -> Panel:
    if event.stretch % 2:  # every second one takes the zeros back, or the price would leave all bounds in a year
        return panel
    cells = event.rows(panel), list(event.columns)
    return _with_cells(
        panel, event, price=panel.price[cells] * _REDENOMINATION, supply=panel.supply[cells] / _REDENOMINATION
    )


def _price_glitch(panel: Panel, event: Event) -> Panel:
    return _with_cells(panel, event, price=panel.price[event.rows(panel), list(event.columns)] * _GLITCH)


def _market_glitch(panel: Panel, event: Event) -> Panel:
    return _with_cells(panel, event, price=panel.price[event.rows(panel)] * _MARKET_GLITCH)


def _rank_exit(panel: Panel, event: Event) -> Panel:
    return _with_cells(panel, event, listed=False)


def _zero_price(panel: Panel, event: Event) -> Panel:
    return _with_cells(panel, event, price=0.0)


def _missing_price(panel: Panel, event: Event) -> Panel:
    return _with_cells(panel, event, price=np.nan)


def _rebased_change(panel: Panel, event: Event) -> Panel:
    return _with_cells(panel, event, base=_WRONG_BASE)


def _stablecoin(panel: Panel, event: Event) -> Panel:
    price = panel.price[event.rows(panel), list(event.columns)]
    return _with_cells(
        panel,
        event,
        listed=True,
        kind=KINDS.index("stablecoin"),
        # The wandering price of its column makes it tremble within the peg, so that it never stands still.
        price=1 + _PEG_WIDTH * np.sin(np.log(price)),
    )


def _wrapped_coin(panel: Panel, event: Event) -> Panel:
    wrapped, original = event.columns
    price = panel.price[event.rows(panel), [original]]
    return _with_cells(
        panel,
        replace(event, columns=(wrapped,)),
        listed=True,
        kind=KINDS.index("wrapped"),
        price=price,
    )


def _zero_volume(panel: Panel, event: Event) -> Panel:
    return _with_cells(panel, event, volume=0.0)


# Percentage changes are computed from the service's faulty prices, as a listing would: they show a price fault again
# 1 h, 24 h, 7, 30, 60 and 90 days later. A fault that changes a market cap changes every coin's dominance.
# New faults are added at the end, so that the others keep their coins and hours.
FAULTS: Final[dict[str, Fault]] = {
    "missing_hours": Fault(
        "the collector is down for 3 hours: they have no snapshot",
        gate="HOUR_MISSING",
        apply=_missing_hours,
        day=3,
        hours=3,
    ),
    "late_ingestion": Fault(
        "the collector comes 2 hours late for one hour: its snapshot is that of 2 hours later under its own timestamp",
        gate="LATE_SNAPSHOT",
        apply=_late_ingestion,
        day=15,
        hours=1,
    ),
    "duplicate_rows": Fault(
        "one coin is listed twice for 6 hours: below its row follows its row of the hour before, with the same rank",
        gate="DUPLICATE",
        apply=_duplicate_rows,
        day=5,
        hours=6,
        coins=1,
    ),
    "stale_price": Fault(
        "price and last_updated of one coin stand still for 12 hours; volume and the percentage changes go on",
        gate="STALE_PRICE",
        apply=_stale_price,
        day=7,
        hours=12,
        coins=1,
    ),
    "symbol_collision": Fault(
        "at all times one coin has the symbol of a second one, and a third coin symbol and name of a fourth",
        gate="COLLISION",
        apply=_symbol_collision,
        day=0,
        hours=STRETCH_HOURS,
        coins=4,
    ),
    "dying_token": Fault(
        "a further coin, each 30 days a new one below all others, loses nearly everything in its last 24 hours and "
        "leaves the listing for good after 21 days",
        gate="CENSORED",
        apply=_dying_token,
        day=1,
        hours=21 * 24,
        extra=FIRST_EXTRA_NUMBER,
        renewed=True,
    ),
    "late_listing": Fault(
        "a further coin, each 30 days a new one below all others, is listed for the first time and has no earlier "
        "prices to compare with; it makes room for the next one after 30 days",
        gate="TOO_FEW_ROWS",
        apply=_late_listing,
        day=23,
        hours=STRETCH_HOURS,
        extra=2 * FIRST_EXTRA_NUMBER,
        renewed=True,
    ),
    "redenomination": Fault(
        "the price of one coin is multiplied by 1000 and its supplies divided, after 30 days the other way round; "
        "the jump is at the first hour of each event",
        gate="SPLIT_SUSPECT",
        apply=_redenomination,
        day=22,
        hours=STRETCH_HOURS,
        coins=1,
    ),
    "price_glitch": Fault(
        "the price of one coin is eightfold for one hour",
        gate="GLITCH",
        apply=_price_glitch,
        day=10,
        hours=1,
        coins=1,
    ),
    "market_glitch": Fault(
        "all prices are fivefold for one hour", gate="MARKET_GLITCH", apply=_market_glitch, day=9, hours=1
    ),
    "rank_exit": Fault(
        "one coin is not in the listing for 4 days; its rank stays vacant and its price goes on unseen",
        gate="CENSORED",
        apply=_rank_exit,
        day=17,
        hours=96,
        coins=1,
    ),
    "zero_price": Fault(
        "the price of one coin is 0 for 2 hours; later changes against these hours are null",
        gate="PRICE_NOT_POSITIVE",
        apply=_zero_price,
        day=11,
        hours=2,
        coins=1,
    ),
    "missing_price": Fault(
        "the price of one coin is null for 2 hours, and so is all that is computed from it",
        gate="PRICE_MISSING",
        apply=_missing_price,
        day=13,
        hours=2,
        coins=1,
    ),
    "rebased_change": Fault(
        "for 12 hours the percentage price changes of one coin are computed from a base that is a fifth lower",
        gate="CHANGE_DISAGREES",
        apply=_rebased_change,
        day=25,
        hours=12,
        coins=1,
    ),
    "stablecoin": Fault(
        "at all times a further coin, below all others, keeps within 0.2 % of 1 USD and is said to be a stablecoin",
        gate="STABLECOIN",
        apply=_stablecoin,
        day=0,
        hours=STRETCH_HOURS,
        extra=3 * FIRST_EXTRA_NUMBER,
    ),
    "wrapped_coin": Fault(
        "at all times a further coin, below all others, has the price of one coin and is said to be a wrapped one",
        gate="WRAPPED",
        apply=_wrapped_coin,
        day=0,
        hours=STRETCH_HOURS,
        coins=1,
        extra=4 * FIRST_EXTRA_NUMBER,
    ),
    "zero_volume": Fault(
        "the volume of one coin is 0 for 6 hours; later changes against these hours are null",
        gate="ZERO_VOLUME",
        apply=_zero_volume,
        day=27,
        hours=6,
        coins=1,
    ),
}


def coin_numbers(tokens: int, faults: frozenset[str]) -> IntArray:
    """The number of each column's coin: those of the market first, then the columns that faults add."""
    extra = [fault.extra for name, fault in FAULTS.items() if name in faults and fault.extra is not None]
    return np.array([*range(tokens), *extra], dtype=np.int64)


def events(seed: int, tokens: int, faults: frozenset[str], first: int, last: int) -> Iterator[Event]:
    """Every event with an hour in `first` to `last`, in the order in which they are applied.

    Each coin of the market is hit by one fault, unless there are fewer coins than the faults need together.
    """
    order = stream(seed, Component.FAULT_COINS, 0).permutation(tokens)
    numbers = coin_numbers(tokens, faults)
    place = 0
    for index, (name, fault) in enumerate(FAULTS.items()):
        if name in faults:
            columns = tuple(int(order[(place + n) % tokens]) for n in range(fault.coins))
            if fault.extra is not None:
                columns = (int(np.flatnonzero(numbers == fault.extra)[0]), *columns)
            offset = fault.day * 24 + int(stream(seed, Component.FAULT_HOUR, index).integers(0, 24))
            # An event may begin in the stretch before the first hour's and reach into it.
            for stretch in range(first // STRETCH_HOURS - 1, last // STRETCH_HOURS + 1):
                begin = stretch * STRETCH_HOURS + offset
                event = Event(name, stretch, begin, begin + fault.hours - 1, columns)
                if event.first <= last and event.last >= first:
                    yield event
        place += fault.coins


def inject(panel: Panel, seed: int, tokens: int, faults: frozenset[str]) -> Panel:
    """The panel with every event of these faults that it reaches."""
    for event in events(seed, tokens, faults, int(panel.hours[0]), int(panel.hours[-1])):
        panel = FAULTS[event.fault].apply(panel, event)
    return panel
