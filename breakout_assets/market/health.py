"""Whether the market data of an hour may be traded on."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

import pandas as pd

from breakout_assets.errors import DataError
from breakout_assets.market.files import read_raw
from breakout_assets.market.gates import EXCLUSIONS
from breakout_assets.market.history import read_until
from breakout_assets.market.schema import HOUR, ORIGIN_FOLLOWED, hours_between
from breakout_assets.store import Store
from breakout_assets.tables import conform

# A listing that lost one coin in twenty since yesterday has changed too much to open new positions on.
REDUCED_ROWS: Final = 0.95
# Half a listing is not a listing.
HALTED_ROWS: Final = 0.5
REDUCED_SHARE: Final = 0.05  # faulty rows above which nothing is opened
HALTED_SHARE: Final = 0.2  # … and above which no price is believed
# Hours whose row counts say what to expect.
EXPECTATION_HOURS: Final = 24
# A fault often comes back in the next hour. Nothing is opened until so many hours were sound, one after the other.
SOUND_HOURS: Final = 3
# Indicators look back 720 hours. With one in ten missing (three days) they are other indicators than those that models
# have learnt from; after a long outage nothing is opened until the look-back has filled again.
LOOK_BACK_HOURS: Final = 720
LOOK_BACK_SHARE: Final = 0.9


class HealthState(StrEnum):
    """What may be done in an hour."""

    ACTIVE = "ACTIVE"
    REDUCE_ONLY = "REDUCE_ONLY"
    HALTED = "HALTED"


@dataclass(frozen=True)
class Health:
    """The verdict on one hour, with the figures it rests on.

    Attributes:
        state: What may be done.
        reasons: Why it is not ACTIVE.
        rows: Coins in the listing, without those that are followed after they dropped out of it.
        expected_rows: Usual number of them in the day before.
        quarantined_share: Share of the rows that a gate found faulty.
        stale_share: Share of the rows whose price stands still.
        shared_symbols: Rows whose symbol another coin of the hour has too.
        look_back_hours: Hours of the last 720 that have a snapshot.
    """

    state: HealthState
    reasons: tuple[str, ...]
    rows: int
    expected_rows: float
    quarantined_share: float
    stale_share: float
    shared_symbols: int
    look_back_hours: int

    def frame(self, hour: datetime) -> pd.DataFrame:
        """One row, as the `market_health` table keeps it."""
        row = vars(self) | {"timestamp": hour, "state": str(self.state), "reasons": "; ".join(self.reasons)}
        return conform(pd.DataFrame([row]), "market_health")


def expected_rows(store: Store, hour: datetime) -> float | None:
    """The usual number of coins in the day before an hour; None if no hour of it is there."""
    before = store.raw_between(hour - EXPECTATION_HOURS * HOUR, hour - HOUR)
    origins = read_raw(list(before.values()))[["timestamp", "origin"]]
    rows = origins[origins["origin"].fillna("") != ORIGIN_FOLLOWED].groupby("timestamp").size()
    return None if rows.empty else float(rows.median())


def assess_hour(store: Store, hour: datetime) -> Health:
    """The verdict on an hour, from its snapshot and those before it.

    Raises:
        DataError: the hour has no snapshot, or a faulty one.
    """
    rows = read_until(store, hour - (EXPECTATION_HOURS + SOUND_HOURS) * HOUR, hour, FIGURED_FROM)
    look_back = store.raw_between(hour - (LOOK_BACK_HOURS - 1) * HOUR, hour)
    return assess(hour_figures(rows), hour, len(look_back))


# What `hour_figures` reads of a market row.
FIGURED_FROM: Final = ("token", "symbol", "timestamp", "origin", "quarantine")


def hour_figures(rows: pd.DataFrame) -> pd.DataFrame:
    """What a verdict rests on, one row for each hour of these market rows: `rows`, `faulty`, `stale`, `shared`."""
    listed = rows[rows["origin"].fillna("") != ORIGIN_FOLLOWED]
    codes = listed["quarantine"].fillna("").astype("category")
    faulty = {code for code in codes.cat.categories if code and not {*code.split(";")} <= EXCLUSIONS}
    figures = pd.DataFrame(
        {
            "timestamp": listed["timestamp"],
            "faulty": codes.isin(faulty),
            "stale": codes.isin({code for code in codes.cat.categories if "STALE_PRICE" in code}),
            "shared": listed.duplicated(["timestamp", "symbol"], keep=False)
            & ~listed.duplicated(["timestamp", "token"], keep=False),
        }
    ).groupby("timestamp")
    return pd.DataFrame(
        {
            "rows": figures.size(),
            "faulty": figures["faulty"].mean(),
            "stale": figures["stale"].mean(),
            "shared": figures["shared"].sum(),
        }
    )


def assess(figures: pd.DataFrame, hour: datetime, look_back_hours: int) -> Health:
    """The verdict on an hour from `hour_figures` of it and of the day and the `SOUND_HOURS` before it.

    Raises:
        DataError: the hour has no snapshot.
    """
    if hour not in figures.index:
        raise DataError(f"no snapshot of {hour:%Y-%m-%d %H:00} is in the store; materialise hourly_snapshots first")
    state, reasons = _verdict(figures, hour)
    for earlier in reversed(hours_between(hour - SOUND_HOURS * HOUR, hour - HOUR)):
        if earlier in figures.index:
            before, why = _verdict(figures, earlier)
        else:
            before, why = HealthState.REDUCE_ONLY, ["it has no snapshot"]
        if before is not HealthState.ACTIVE:
            reasons.append(f"{earlier:%H:00} was not sound: {', '.join(why)}")
    if look_back_hours < LOOK_BACK_SHARE * LOOK_BACK_HOURS:
        reasons.append(f"only {look_back_hours} of the last {LOOK_BACK_HOURS} hours have a snapshot")
    if reasons and state is HealthState.ACTIVE:
        state = HealthState.REDUCE_ONLY
    found = figures.loc[[hour]].iloc[0].astype("float64").to_dict()
    usual = _usual(figures, hour)
    return Health(
        state=state,
        reasons=tuple(reasons),
        rows=int(found["rows"]),
        expected_rows=found["rows"] if usual is None else usual,
        quarantined_share=found["faulty"],
        stale_share=found["stale"],
        shared_symbols=int(found["shared"]),
        look_back_hours=look_back_hours,
    )


def _verdict(figures: pd.DataFrame, hour: datetime) -> tuple[HealthState, list[str]]:
    """What an hour is by itself, whatever was before."""
    rows, faulty, stale, _ = figures.loc[[hour]].to_numpy(dtype="float64")[0].tolist()
    usual = _usual(figures, hour)
    expected = rows if usual is None else usual
    found = [
        (rows < HALTED_ROWS * expected, rows < REDUCED_ROWS * expected, f"{rows:.0f} coins, {expected:.0f} expected"),
        (faulty > HALTED_SHARE, faulty > REDUCED_SHARE, f"{faulty:.1%} of the rows are faulty"),
        (stale > HALTED_SHARE, stale > REDUCED_SHARE, f"{stale:.1%} of the prices stand still"),
    ]
    reasons = [reason for halted, reduced, reason in found if halted or reduced]
    if any(halted for halted, _, _ in found):
        return HealthState.HALTED, reasons
    return (HealthState.REDUCE_ONLY if reasons else HealthState.ACTIVE), reasons


def _usual(figures: pd.DataFrame, hour: datetime) -> float | None:
    before = figures.loc[hour - EXPECTATION_HOURS * HOUR : hour - HOUR, "rows"]
    return None if before.empty else float(before.median())


@dataclass(frozen=True)
class Condition:
    """What a person should know of the market data right now.

    Attributes:
        hour: The hour that is due.
        state: A `HealthState`, or MISSING where the hour has no snapshot.
        sentence: The same in words.
    """

    hour: datetime
    state: str
    sentence: str


def due_hour(now: datetime) -> datetime:
    """The newest hour that must have a snapshot."""
    # The hourly schedule runs at five past; until a quarter past, the hour before is as new as it gets.
    return (now - timedelta(minutes=15)).replace(minute=0, second=0, microsecond=0)


def condition(store: Store, now: datetime) -> Condition | None:
    """The condition of the market data at a time; None while the due hour has not been judged."""
    hour = due_hour(now)
    if not store.raw_file(hour):
        return Condition(hour, "MISSING", f"No snapshot of {hour:%Y-%m-%d %H:00} UTC is in the store.")
    if not store.has_table("market_health", hour):
        return None
    found = store.read_table("market_health", [hour]).iloc[0]
    reasons = f": {found['reasons']}." if found["reasons"] else "."
    return Condition(
        hour, str(found["state"]), f"Market data of {hour:%Y-%m-%d %H:00} UTC are {found['state']}{reasons}"
    )
