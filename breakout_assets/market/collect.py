"""Collects the raw snapshot of an hour: believes the file that lies there, else asks the source and keeps its answer.

Written once: a fetch never replaces a file, whoever wrote it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby
from statistics import median
from typing import ClassVar, Final, Literal, Protocol

import pandas as pd

from breakout_assets import objects
from breakout_assets.clock import Clock, SystemClock
from breakout_assets.errors import DataError, SettingsError, TemporaryError
from breakout_assets.market.coinmarketcap import CoinMarketCap
from breakout_assets.market.files import raw_bytes, read_raw, read_raw_and_digests
from breakout_assets.market.schema import HOUR, ORIGIN_LISTING
from breakout_assets.market.simulated import SimulatedMarket
from breakout_assets.market.snapshots import judged, market_rows
from breakout_assets.market.tokens import TokenRegistry, load_registry
from breakout_assets.store import RawFile, Store

# What a source gives for an hour: the raw frame with what is known about it, or why there is none.
Answer = tuple[pd.DataFrame, Mapping[str, str | int | float]] | DataError | TemporaryError


MARKET_FILE: Final = "MARKET"
Kind = Literal["simulated", "real"]


def claim(store: Store, kind: Kind) -> None:
    """Mark a store as holding a simulated or a real market, when the first snapshot is written into it.

    Raises:
        DataError: it holds the other kind. Models and positions of an invented market would otherwise go on in a
            real one.
    """
    path = store.root / MARKET_FILE
    if not objects.exists(path):
        if kind == "simulated" and objects.found_under(store.root / "cmc"):
            raise DataError(
                f"{store.root} holds snapshots that this platform did not invent; set BREAKOUT_SOURCE=files or "
                "coinmarketcap, or BREAKOUT_STORE to another folder for a simulated market"
            )
        store.write_new(path, kind.encode())
    found = objects.read(path).decode().strip()
    if found != kind:
        raise DataError(
            f"{store.root} holds a {found} market, into which no {kind} snapshots are mixed; set BREAKOUT_STORE to "
            "another folder"
        )


class SnapshotSource(Protocol):
    """Where hours come from that are not in the store yet."""

    @property
    def kind(self) -> Kind | None:
        """What its snapshots are; None if it has none of its own."""

    @property
    def description(self) -> str:
        """What the UI calls it."""

    def can_fetch(self, hour: datetime, newest: datetime) -> bool:
        """Whether an hour can still be had when `newest` has begun."""

    def answers(self, store: Store, hours: Sequence[datetime]) -> Iterator[tuple[datetime, Answer]]:
        """The answer for each of these hours, in their order."""


@dataclass(frozen=True)
class SimulatedSource:
    """An invented market: any hour, always the same."""

    market: SimulatedMarket
    kind: ClassVar[Kind] = "simulated"

    @property
    def description(self) -> str:
        """Says that nothing of it is real."""
        return f"SIMULATED market (seed {self.market.seed}, signal {self.market.signal}): no real prices"

    def can_fetch(self, hour: datetime, newest: datetime) -> bool:
        """Any hour is drawn from the seed."""
        return True

    def answers(self, store: Store, hours: Sequence[datetime]) -> Iterator[tuple[datetime, Answer]]:
        """Hours are drawn in one go; those that a fault removed are refused one by one."""
        if not hours:
            return
        made = dict(self.market.snapshots(min(hours), max(hours))) if len(hours) > 1 else {}
        for hour in hours:
            try:
                frame = made.pop(hour) if hour in made else self.market.snapshot(hour)
            except DataError as error:
                yield hour, error
            else:
                yield hour, (frame, {"source": "simulated"})


# The hourly quotes that the cheapest plans sell reach back a month.
HISTORY_REACH: Final = timedelta(days=30)
# A label needs the price of five days later, also of a coin that has dropped out of the listing since.
FOLLOWED: Final = timedelta(hours=120)
# A missed hour is bought for the coins that were listed in the newest hour before it, if that was in the last day.
NEIGHBOURS: Final = timedelta(hours=24)


@dataclass(frozen=True)
class CoinMarketCapSource:
    """The live listing, which knows the current hour only, and what can be had besides.

    Attributes:
        client: Asks CoinMarketCap.
        follow: Whether coins that dropped out of the listing are asked for by id for five more days.
        history: Whether hours that are over are bought from the historical quotes.
        clock: Real time, also while a recorded past is replayed: today's prices must never get under another hour.
    """

    kind: ClassVar[Kind] = "real"
    client: CoinMarketCap
    follow: bool = False
    history: bool = False
    clock: Clock = field(default_factory=SystemClock)

    @property
    def description(self) -> str:
        """Names the endpoint, and says if no key is used."""
        return f"CoinMarketCap {self.client.endpoint}" + (" (without a key)" if self.client.keyless else "")

    def can_fetch(self, hour: datetime, newest: datetime) -> bool:
        """A live listing has no past; historical quotes reach back a month."""
        return hour == newest or (self.history and newest - HISTORY_REACH <= hour < newest)

    def answers(self, store: Store, hours: Sequence[datetime]) -> Iterator[tuple[datetime, Answer]]:
        """One listing for the current hour, one purchase for each earlier one; all else is refused."""
        for hour in hours:
            try:
                now = self.clock.now(hour)
                if self.history and now >= hour + HOUR:
                    yield hour, self._bought(store, hour, now)
                else:
                    yield hour, self._listed(store, hour, now)
            except (DataError, TemporaryError) as error:
                yield hour, error
            except SettingsError as error:  # the key is missing: as permanent as anything
                yield hour, DataError(str(error))

    def _listed(self, store: Store, hour: datetime, now: datetime) -> Answer:
        snapshot = self.client.fetch(hour, now)
        if not self.follow:
            return snapshot.frame, snapshot.metadata
        dropped = _dropped_out(store, hour, snapshot.frame)
        try:
            followed = self.client.fetch_followed(dropped, hour, now)
        except (DataError, TemporaryError) as error:  # the listing is there and must not be lost for it
            return snapshot.frame, {**snapshot.metadata, "follow_failed": str(error)}
        told = {f"follow_{name}": followed.metadata[name] for name in ("followed", "lost") if name in followed.metadata}
        return pd.concat([snapshot.frame, followed.frame], ignore_index=True), {**snapshot.metadata, **told}

    def _bought(self, store: Store, hour: datetime, now: datetime) -> Answer:
        before = store.raw_between(hour - NEIGHBOURS, hour - HOUR)
        if not before:
            raise DataError(
                f"{hour:%Y-%m-%d %H:00} is over, and no snapshot of the day before it says which coins to buy; import "
                "the hour from a file, or make it from candles"
            )
        rows = read_raw([before[max(before)]])
        snapshot = self.client.fetch_past(hour, _ids(rows), now)
        return snapshot.frame, snapshot.metadata


def _dropped_out(store: Store, hour: datetime, listed: pd.DataFrame) -> list[int]:
    """Ids that were listed in the five days before an hour, as far as these days are compacted, and are no more."""
    days = [hour.date() - timedelta(days=n) for n in range(FOLLOWED.days + 1)]
    there = sorted(store.days_there("daily_snapshots", days))
    rows = store.read_table("daily_snapshots", there, ["id", "timestamp", "origin"])
    rows = rows[(rows["timestamp"] >= hour - FOLLOWED) & (rows["origin"].fillna(ORIGIN_LISTING) == ORIGIN_LISTING)]
    return sorted({*_ids(rows)} - {*_ids(listed)})


def _ids(rows: pd.DataFrame) -> list[int]:
    return sorted({int(coin_id) for coin_id in rows["id"].dropna()})


@dataclass(frozen=True)
class FilesOnly:
    """Nothing is fetched: hours are imported, or another collector writes them into the store."""

    kind: ClassVar[None] = None

    @property
    def description(self) -> str:
        """Says who writes."""
        return "files that are imported or that another collector writes"

    def can_fetch(self, hour: datetime, newest: datetime) -> bool:
        """Never."""
        return False

    def answers(self, store: Store, hours: Sequence[datetime]) -> Iterator[tuple[datetime, Answer]]:
        """Every hour is refused with what to do."""
        for hour in hours:
            yield (
                hour,
                DataError(
                    f"no snapshot of {hour:%Y-%m-%d %H:00} is in the store and BREAKOUT_SOURCE=files fetches none; "
                    "import the hour, or wait for the collector that writes it"
                ),
            )


@dataclass(frozen=True)
class CollectedHour:
    """One hour of raw data that is in the store and was read back without complaint.

    Attributes:
        file: Where it lies.
        sha256: Of its bytes.
        fetched: Whether this call fetched it; otherwise it lay there already.
        market: Its market rows.
        details: What the source said about the fetch.
    """

    file: RawFile
    sha256: str
    fetched: bool
    market: pd.DataFrame
    details: Mapping[str, str | int | float]


Outcome = CollectedHour | DataError | TemporaryError


def collect(
    store: Store, source: SnapshotSource, hours: Sequence[datetime], extension: str
) -> Iterator[tuple[datetime, Outcome]]:
    """Make sure that these hours are in the store and sound; each comes out collected, or with the reason why not."""
    registry = load_registry(store)
    for day, group in groupby(sorted(hours), key=datetime.date):
        wanted = list(group)
        present = store.raw_files(day)
        fetched: dict[datetime, Mapping[str, str | int | float]] = {}
        missing = [hour for hour in wanted if hour not in present]
        if missing and source.kind:
            claim(store, source.kind)
        for hour, answer in source.answers(store, missing):
            if isinstance(answer, Exception):
                yield hour, answer
                continue
            frame, details = answer
            if store.write_new(store.raw_path(hour, extension), raw_bytes(frame, extension)):
                fetched[hour] = details  # otherwise another process was first, and its file counts
        present = store.raw_files(day)
        yield from _read_back(store, registry, [present[hour] for hour in wanted if hour in present], fetched)


def usual_rows(outcomes: Iterable[Outcome]) -> float | None:
    """The number of coins that these hours usually hold; None where one hour says nothing about another."""
    counts = [len(outcome.market) for outcome in outcomes if isinstance(outcome, CollectedHour)]
    return float(median(counts)) if len(counts) > 1 else None


def _read_back(
    store: Store,
    registry: TokenRegistry,
    files: Sequence[RawFile],
    fetched: Mapping[datetime, Mapping[str, str | int | float]],
) -> Iterator[tuple[datetime, Outcome]]:
    """What the store now holds of each hour; in one read, unless a file is faulty and it must be found out which."""
    try:
        rows, digests = read_raw_and_digests(files)
        # Each hour by itself: what the hours around it say of its rows is for daily_snapshots to judge.
        hours = market_rows(store, registry, rows).groupby("timestamp")
        market = {hour: judged(of_hour, of_hour.iloc[:0]) for hour, of_hour in hours}
    except DataError as error:
        if len(files) == 1:
            yield files[0].hour, error
            return
        for file in files:
            yield from _read_back(store, registry, [file], fetched)
        return
    for file in files:
        details = fetched.get(file.hour)
        yield (
            file.hour,
            CollectedHour(
                file, digests[file.hour], details is not None, market[pd.Timestamp(file.hour)], details or {}
            ),
        )
