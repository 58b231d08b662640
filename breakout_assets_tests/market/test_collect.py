from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import ClassVar

import pytest

from breakout_assets.clock import ReplayClock, SystemClock
from breakout_assets.errors import DataError, TemporaryError
from breakout_assets.market.coinmarketcap import CoinMarketCap
from breakout_assets.market.collect import (
    Answer,
    CoinMarketCapSource,
    CollectedHour,
    FilesOnly,
    SimulatedSource,
    SnapshotSource,
    collect,
    usual_rows,
)
from breakout_assets.market.simulated import SimulatedMarket
from breakout_assets.store import Store
from breakout_assets_tests.samples import at, coin, listing, put

HOUR = at("2024-03-01 05:00")
HOURS = [HOUR + timedelta(hours=n) for n in range(3)]


@dataclass
class Scripted:
    """Answers as told, and remembers what it was asked."""

    script: dict[datetime, Answer]
    asked: list[datetime] = field(default_factory=list)
    description: str = "scripted"
    kind: ClassVar[None] = None

    def can_fetch(self, hour: datetime, newest: datetime) -> bool:
        return True

    def answers(self, store: Store, hours: Sequence[datetime]) -> Iterator[tuple[datetime, Answer]]:
        for hour in hours:
            self.asked.append(hour)
            yield hour, self.script[hour]


def run(store: Store, source: SnapshotSource, hours: list[datetime] = HOURS) -> dict[datetime, object]:
    return dict(collect(store, source, hours, "csv"))


def test_a_file_that_lies_there_is_believed_and_the_source_not_asked(store: Store) -> None:
    path = put(store, HOURS[0], [coin(1), coin(2)])
    before = path.read_bytes()
    source = Scripted({HOURS[1]: (listing(HOURS[1], [coin(1)]), {"credits": 7}), HOURS[2]: DataError("over")})
    found = run(store, source)
    assert source.asked == HOURS[1:]
    there, fetched = found[HOURS[0]], found[HOURS[1]]
    assert isinstance(there, CollectedHour)
    assert isinstance(fetched, CollectedHour)
    assert (there.fetched, len(there.market), path.read_bytes()) == (False, 2, before)
    assert (fetched.fetched, fetched.details) == (True, {"credits": 7})
    assert str(found[HOURS[2]]) == "over"
    assert run(store, Scripted({HOURS[2]: DataError("over")}))[HOURS[1]].sha256 == fetched.sha256  # type: ignore[attr-defined]


def test_another_process_that_writes_first_wins(store: Store) -> None:
    class Slow(Scripted):
        def answers(self, store: Store, hours: Sequence[datetime]) -> Iterator[tuple[datetime, Answer]]:
            put(store, HOUR, [coin(9)])
            yield from super().answers(store, hours)

    found = run(store, Slow({HOUR: (listing(HOUR, [coin(1)]), {})}), [HOUR])[HOUR]
    assert isinstance(found, CollectedHour)
    assert (found.fetched, found.market["token"].tolist()) == (False, ["C9-9"])


def test_one_torn_file_does_not_take_the_others_with_it(store: Store) -> None:
    for hour in HOURS:
        put(store, hour, [coin(1)])
    store.raw_path(HOURS[1], "csv").write_bytes(b"")
    found = run(store, FilesOnly())
    assert [isinstance(found[hour], CollectedHour) for hour in HOURS] == [True, False, True]
    assert "is empty" in str(found[HOURS[1]])


def test_without_a_source_a_missing_hour_says_what_to_do(store: Store) -> None:
    assert "import the hour" in str(run(store, FilesOnly(), [HOUR])[HOUR])
    assert not FilesOnly().can_fetch(HOUR, HOUR)


def test_a_temporary_error_comes_out_as_one(store: Store) -> None:
    assert isinstance(run(store, Scripted({HOUR: TemporaryError("busy")}), [HOUR])[HOUR], TemporaryError)


def test_the_live_source_never_puts_todays_prices_under_a_past_hour(store: Store) -> None:
    source = CoinMarketCapSource(CoinMarketCap(key=lambda: "key", base_url="http://127.0.0.1:9"))
    assert isinstance(source.clock, SystemClock)
    assert isinstance(run(store, source, [HOUR])[HOUR], DataError)
    assert not store.raw_files(HOUR.date())
    assert source.can_fetch(HOUR, HOUR)
    assert not source.can_fetch(HOUR - timedelta(hours=1), HOUR)


def test_a_missing_key_is_a_reason_and_no_crash(store: Store) -> None:
    source = CoinMarketCapSource(CoinMarketCap(key=lambda: "", base_url="http://127.0.0.1:9"), clock=ReplayClock())
    assert "BREAKOUT_CMC_API_KEY" in str(run(store, source, [HOUR])[HOUR])


def test_the_simulated_source_says_that_it_is_one_and_gives_any_hour(store: Store) -> None:
    source = SimulatedSource(SimulatedMarket(seed=1, tokens=3))
    assert "SIMULATED" in source.description
    found = run(store, source)
    assert [len(outcome.market) for outcome in found.values()] == [3, 3, 3]  # type: ignore[attr-defined]


def test_an_invented_market_and_a_real_one_are_never_mixed_in_a_store(store: Store) -> None:
    simulated = SimulatedSource(SimulatedMarket(seed=1, tokens=3))
    live = CoinMarketCapSource(CoinMarketCap(key=lambda: "key", base_url="http://127.0.0.1:9"))
    run(store, simulated, [HOUR])
    with pytest.raises(DataError, match="holds a simulated market"):
        run(store, live, HOURS)
    other = Store.at(str(store.root) + "-2")
    put(other, HOUR, [coin(1)])
    with pytest.raises(DataError, match="did not invent"):
        run(other, simulated, HOURS)
    run(other, live, HOURS)
    with pytest.raises(DataError, match="holds a real market"):
        run(other, simulated, HOURS)
    assert len(other.raw_files(HOUR.date())) == 1


def test_an_hour_that_a_fault_removed_is_a_reason(store: Store) -> None:
    market = SimulatedMarket(seed=1, tokens=3, faults=frozenset({"missing_hours"}))
    log = market.fault_log(HOUR, HOUR + timedelta(days=30))
    gone = datetime.fromisoformat(str(log["first_hour"].iloc[0]))
    found = run(store, SimulatedSource(market), [gone - timedelta(hours=1), gone])
    assert isinstance(found[gone], DataError)


@pytest.mark.parametrize(("counts", "usual"), [([], None), ([3], None), ([3, 5, 4], 4.0)])
def test_what_is_usual_needs_more_than_one_hour(store: Store, counts: list[int], usual: float | None) -> None:
    for hour, count in zip(HOURS, counts, strict=False):
        put(store, hour, [coin(n) for n in range(1, count + 1)])
    outcomes = [outcome for _, outcome in collect(store, FilesOnly(), HOURS[: len(counts)], "csv")]
    assert usual_rows(outcomes) == usual
