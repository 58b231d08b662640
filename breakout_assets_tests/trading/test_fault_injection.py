"""Whatever a venue answers, and wherever the process dies: nothing is lost, nothing is doubled, and cash is exact."""

import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from breakout_assets.errors import TemporaryError
from breakout_assets.trading.hourly import trade_hour
from breakout_assets.trading.switches import halt, resume
from breakout_assets_tests.postgresserver import PostgresServer
from breakout_assets_tests.trading.faultcases import SHORT, Case, Played, cases, faults_of, play
from breakout_assets_tests.trading.faultyvenue import (
    CANCEL,
    FILLS,
    LOOK_UP,
    PLACE,
    Fate,
    FaultyVenue,
    Killed,
    SteppedLedger,
    Time,
)
from breakout_assets_tests.trading.support import MAIL, at, predictions, prices

# Memory, where there is some: thousands of ledgers are made, and none has to survive a power cut.
FAST = next((str(folder) for folder in (Path("/dev/shm"),) if folder.is_dir()), None)  # noqa: S108


# No case has fewer.
FEWEST_STEPS = 8
# Of the forty cases of an answer; the long tests play all of them.
SAMPLE = 8


@contextmanager
def new_place() -> Iterator[Path]:
    with TemporaryDirectory(dir=FAST) as folder:
        yield Path(folder) / "ledger.sqlite"


def played(case: Case, kill_after: int | None = None) -> Played:
    with new_place() as place:
        found = play(place, case, kill_after)
        assert list(faults_of(found)) == [], f"{case}, killed after step {kill_after}"
        return found


@pytest.mark.slow
@pytest.mark.parametrize("answer", PLACE)
def test_cases_end_well_although_the_process_dies_once(answer: str) -> None:
    rng = np.random.default_rng(zlib.crc32(answer.encode()))
    for case in rng.permutation(np.array([each for each in cases() if each.place == answer], dtype=object))[:SAMPLE]:
        assert played(case, int(rng.integers(1, FEWEST_STEPS))).kills == 1


@pytest.mark.parametrize("case", [Case("late", "half", "fails_once", "too_late")])
def test_a_death_after_any_step_changes_nothing_at_the_end(case: Case) -> None:
    steps = played(case).steps
    for step in range(1, steps + 1):
        assert played(case, step).kills == 1


def documented(answer: str) -> list[str]:
    """Cases, runs with a death, and runs that ended well, as the documents have them."""
    text = (Path(__file__).parents[2] / "docs" / "execution.md").read_text()
    row = re.search(rf"^\| `{answer}`[^|]*((?:\| *[\d,]+ *){{3}})\|", text, re.MULTILINE)
    assert row, f"docs/execution.md has no row of {answer}"
    return [cell.strip().replace(",", "") for cell in row[1].strip("| ").split("|")]


@pytest.mark.parametrize("answer", PLACE)
def test_the_documents_name_every_case(answer: str) -> None:
    found, runs, well = documented(answer)
    assert int(found) == sum(case.place == answer for case in cases())
    assert runs == well


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("answer", PLACE)
def test_every_death_in_every_case(answer: str) -> None:
    runs = 0
    for case in (each for each in cases() if each.place == answer):
        for step in range(1, played(case).steps + 1):
            assert played(case, step).kills == 1
            runs += 1
    assert documented(answer)[1] == str(runs)


def test_the_same_on_postgresql(postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", postgres_server.password)
    rng = np.random.default_rng(5)
    for number in rng.choice(len(cases()), 3, replace=False):
        case = cases()[number]
        for kill_after in (None, int(rng.integers(1, FEWEST_STEPS))):
            with postgres_server.database() as url:
                found = play(url, case, kill_after)
                assert list(faults_of(found)) == [], f"{case}, killed after step {kill_after}"


class AnyLife(RuleBasedStateMachine):
    """Hours in any order of faults, deaths, halts and signals for several tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory(dir=FAST)
        self.hour = 0
        self.time = Time(at(0))
        self.venue = FaultyVenue(self.time)
        self.ledger = SteppedLedger(Path(self.folder.name) / "ledger.sqlite", self.venue.fate)
        self.terms = replace(SHORT, cooldown=timedelta(0))

    @rule(
        buys=st.dictionaries(st.sampled_from("ABC"), st.sampled_from([0.7, 0.8]), max_size=3),
        price=st.sampled_from([1.0, 2.0, 2.05]),
        health=st.sampled_from(["ACTIVE", "ACTIVE", "REDUCE_ONLY", "HALTED"]),
        place=st.sampled_from(PLACE),
        fills=st.sampled_from(FILLS),
        look_up=st.sampled_from(LOOK_UP),
        cancel=st.sampled_from(CANCEL),
        kill_after=st.none() | st.integers(1, 25),
    )
    def an_hour(
        self,
        buys: dict[str, float],
        price: float,
        health: str,
        place: str,
        fills: str,
        look_up: str,
        cancel: str,
        kill_after: int | None,
    ) -> None:
        venue = self.venue
        venue.place_mode, venue.fill_mode, venue.look_up_mode, venue.cancel_mode = place, fills, look_up, cancel
        venue.sides_placed.clear()
        venue.cancels = 0
        venue.fate.kill_after = None if kill_after is None else venue.fate.steps + kill_after
        self.trade(buys, price, health)

    @precondition(lambda self: self.hour > 0)
    @rule(pull=st.sampled_from([halt, resume]))
    def a_person(self, pull: object) -> None:
        self.venue.fate.kill_after = None
        halt(self.ledger, "live", "a person", "for a test", self.time.now)
        if pull is resume:
            resume(self.ledger, "live", "a person", "for a test", self.time.now)

    def trade(self, buys: dict[str, float], price: float, health: str) -> None:
        moment = at(self.hour)
        self.time.now = max(self.time.now, moment + timedelta(minutes=5))
        for _ in range(3):
            try:
                trade_hour(
                    self.ledger,
                    moment,
                    predictions(moment, buys),
                    prices(dict.fromkeys("ABC", price)),
                    health,
                    self.terms,
                    "live",
                    lambda: self.time.now,
                    self.venue,
                    mail=MAIL,
                    wait=self.time.wait,
                )
                break
            except (Killed, TemporaryError):
                self.time.wait(60)
        self.hour += 1

    @invariant()
    def no_intent_has_two_orders(self) -> None:
        assert all(count == 1 for count in self.venue.created.values())

    @invariant()
    def nothing_is_spent_twice(self) -> None:
        assert self.venue.cash >= 0
        assert all(amount >= 0 for amount in self.venue.balances().tokens.values())

    def teardown(self) -> None:
        venue = self.venue
        venue.fate = self.ledger.fate = Fate()
        venue.place_mode, venue.fill_mode, venue.look_up_mode, venue.cancel_mode = "ok", "at_once", "ok", "ok"
        for _ in range(8):
            for kept in venue.kept.values():
                if kept.status == "open" and kept.order.side == "sell":
                    venue.execute(kept, kept.left)
            self.trade({}, 2.0, "ACTIVE")
        end = Played(venue, self.ledger, 0, 0)
        wrong = [fault for fault in faults_of(end) if "mail" not in fault and "entries" not in fault]
        self.folder.cleanup()
        assert wrong == []


@pytest.mark.parametrize("examples", [pytest.param(8), pytest.param(300, marks=[pytest.mark.slow, pytest.mark.long])])
def test_any_life_ends_with_ledger_and_venue_agreed(examples: int) -> None:
    run_state_machine_as_test(
        AnyLife,
        settings=settings(
            max_examples=examples,
            stateful_step_count=8,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_venue_of_these_tests_notices_a_doubled_order() -> None:
    """The guard of the guard: an order that is sent twice does not go unseen."""
    with new_place() as place:
        found = play(place, Case("ok", "never", "ok", "ok"))
        [kept] = found.venue.kept.values()
        with pytest.raises(AssertionError, match="sent twice"):
            found.venue.create(kept.order, 0)
        found.venue.cash -= Decimal("0.00000002")
        assert any("cash is" in fault for fault in faults_of(found))
