"""Whether the market data of an hour may be traded on."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from statistics import median
from typing import Final

import pandas as pd

from breakout_assets.market.history import read_hour, read_until
from breakout_assets.market.schema import HOUR
from breakout_assets.store import Store
from breakout_assets.tables import conform

# A listing that lost one coin in twenty since yesterday has changed too much to open new positions on.
REDUCED_ROWS: Final = 0.95
# Half a listing is not a listing.
HALTED_ROWS: Final = 0.5
REDUCED_SHARE: Final = 0.05  # quarantined or stale rows above which nothing is opened
HALTED_SHARE: Final = 0.2  # … and above which no price is believed
# Coins are refreshed every minute; two hours without a change of the source's own stamp is a dead feed.
STALE_AFTER: Final = timedelta(hours=2)
# Hours whose row counts say what to expect.
EXPECTATION_HOURS: Final = 24


class HealthState(StrEnum):
    """What may be done in an hour."""

    ACTIVE = "ACTIVE"
    REDUCE_ONLY = "REDUCE_ONLY"
    HALTED = "HALTED"


@dataclass(frozen=True)
class Health:
    """The verdict on one hour, with the figures it rests on."""

    state: HealthState
    reasons: tuple[str, ...]
    rows: int
    expected_rows: float
    quarantined_share: float
    stale_share: float

    def frame(self, hour: datetime) -> pd.DataFrame:
        """One row, as the `market_health` table keeps it."""
        row = vars(self) | {"timestamp": hour, "state": str(self.state), "reasons": "; ".join(self.reasons)}
        return conform(pd.DataFrame([row]), "market_health")


def expected_rows(store: Store, hour: datetime) -> float | None:
    """The usual number of coins in the day before an hour; None if no hour of it is there."""
    before = read_until(store, hour - EXPECTATION_HOURS * HOUR, hour - HOUR)
    return None if before.empty else float(median(before.groupby("timestamp").size()))


def assess_hour(store: Store, hour: datetime) -> Health:
    """The verdict on an hour, from its snapshot and from the number of coins in the day before it.

    Raises:
        DataError: the hour has no snapshot, or a faulty one.
    """
    return assess(read_hour(store, hour), expected_rows(store, hour))


def assess(market: pd.DataFrame, usual: float | None) -> Health:
    """The verdict on one hour's market rows; `usual` is the number of coins to expect, None if nothing is known."""
    rows = len(market)
    expected = float(rows) if usual is None else usual
    quarantined = float(market["quarantine"].notna().mean()) if rows else 1.0
    stale = _stale_share(market)
    state, reasons = HealthState.ACTIVE, []
    found = [
        (
            rows < HALTED_ROWS * expected,
            rows < REDUCED_ROWS * expected,
            f"{rows} coins listed, {expected:.0f} expected",
        ),
        (quarantined > HALTED_SHARE, quarantined > REDUCED_SHARE, f"{quarantined:.1%} of the rows are quarantined"),
        (stale > HALTED_SHARE, stale > REDUCED_SHARE, f"{stale:.1%} of the coins were not refreshed for two hours"),
    ]
    for halted, reduced, reason in found:
        if halted or reduced:
            reasons.append(reason)
        if halted:
            state = HealthState.HALTED
        elif reduced and state is HealthState.ACTIVE:
            state = HealthState.REDUCE_ONLY
    return Health(state, tuple(reasons), rows, expected, quarantined, stale)


def _stale_share(market: pd.DataFrame) -> float:
    """Share of the coins whose own stamp is old; files that lack the stamp cannot be judged by it."""
    updated = pd.to_datetime(market["last_updated"], utc=True, format="ISO8601", errors="coerce").dt.tz_localize(None)
    known = updated.notna()
    if not known.any():
        return 0.0
    return float((market["timestamp"] - updated > STALE_AFTER)[known].mean())
