"""Collects the raw snapshot of an hour: believes the file that lies there, else asks the source and keeps its answer.

Written once: a fetch never replaces a file, whoever wrote it.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from statistics import median
from typing import ClassVar, Final, Literal, Protocol

import pandas as pd

from breakout_assets.clock import Clock, SystemClock
from breakout_assets.errors import DataError, SettingsError, TemporaryError
from breakout_assets.market.coinmarketcap import CoinMarketCap
from breakout_assets.market.files import raw_bytes, read_raw
from breakout_assets.market.simulated import SimulatedMarket
from breakout_assets.market.snapshots import market_rows
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
    if not path.exists():
        if kind == "simulated" and (store.root / "cmc").exists():
            raise DataError(
                f"{store.root} holds snapshots that this platform did not invent; set BREAKOUT_SOURCE=files or "
                "coinmarketcap, or BREAKOUT_STORE to another folder for a simulated market"
            )
        store.write_new(path, kind.encode())
    found = path.read_text().strip()
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

    def answers(self, hours: Sequence[datetime]) -> Iterator[tuple[datetime, Answer]]:
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

    def answers(self, hours: Sequence[datetime]) -> Iterator[tuple[datetime, Answer]]:
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


@dataclass(frozen=True)
class CoinMarketCapSource:
    """The live listing; knows the current hour only."""

    kind: ClassVar[Kind] = "real"
    client: CoinMarketCap
    clock: Clock = field(default_factory=SystemClock)
    """Real time, also while a recorded past is replayed: today's prices must never get under another hour."""

    @property
    def description(self) -> str:
        """Names the endpoint."""
        return f"CoinMarketCap {self.client.endpoint}"

    def can_fetch(self, hour: datetime, newest: datetime) -> bool:
        """A live listing has no past."""
        return hour == newest

    def answers(self, hours: Sequence[datetime]) -> Iterator[tuple[datetime, Answer]]:
        """One request an hour; the client refuses an hour that is over."""
        for hour in hours:
            try:
                snapshot = self.client.fetch(hour, self.clock.now(hour))
            except (DataError, TemporaryError) as error:
                yield hour, error
            except SettingsError as error:  # the key is missing: as permanent as anything
                yield hour, DataError(str(error))
            else:
                yield hour, (snapshot.frame, snapshot.metadata)


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

    def answers(self, hours: Sequence[datetime]) -> Iterator[tuple[datetime, Answer]]:
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
        for hour, answer in source.answers(missing):
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
        market = dict(list(market_rows(store, registry, read_raw(store, files)).groupby("timestamp")))
    except DataError as error:
        if len(files) == 1:
            yield files[0].hour, error
            return
        for file in files:
            yield from _read_back(store, registry, [file], fetched)
        return
    for file in files:
        digest = hashlib.sha256(file.path.read_bytes()).hexdigest()
        details = fetched.get(file.hour)
        yield (
            file.hour,
            CollectedHour(file, digest, details is not None, market[pd.Timestamp(file.hour)], details or {}),
        )
