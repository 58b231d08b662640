import json
import multiprocessing
import shutil
from dataclasses import replace
from datetime import datetime, timedelta
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from breakout_assets.errors import DataError
from breakout_assets.learning.evidence import Verdict
from breakout_assets.learning.promotion import (
    REASONS,
    Entry,
    Judgement,
    champion_at,
    journal,
    judge_challenger,
    promote,
    refresh_is_worse,
    rollback,
)
from breakout_assets.learning.recipes import Recipe, recipe
from breakout_assets.store import Store
from breakout_assets.tables import conform
from breakout_assets_tests.samples import at

COST = 0.015
BADGE = Verdict(badge=True, reasons=())
START = pd.Timestamp("2024-01-01")
NOON = at("2024-06-01 12:00")
LOGIT, MOMENTUM, DEFAULT = recipe("baseline_logit"), recipe("baseline_momentum"), recipe("default")
PATIENCE = 120  # seconds to wait for a child before the test fails rather than hangs


def table(knows: float, recipe_id: str = "a" * 16, days: int = 100, tokens: int = 6, hours: int = 6) -> pd.DataFrame:
    """What a recipe said out of sample; `knows` is how much of the future it sees.

    All recipes see one market, and a shorter table is the beginning of a longer one.
    """
    rng = np.random.default_rng(7)
    count = days * 24 // hours
    timestamp = START + pd.to_timedelta(np.repeat(np.arange(count) * hours, tokens), unit="h")
    change = rng.normal(0, 9, count * tokens)
    luck = np.random.default_rng(int(recipe_id[:4], 16)).normal(0, 9, count * tokens)
    probability = 1 / (1 + np.exp(1.5 - (knows * change + (1 - knows) * luck) / 9))
    frame = pd.DataFrame({"timestamp": timestamp, "token": np.tile([f"T{k}-{k}" for k in range(tokens)], count)})
    return conform(
        frame.assign(
            twin=0,
            fold=0,
            recipe_id=recipe_id,
            label_end=timestamp + pd.Timedelta(hours=120),
            y=change > 10,
            change=change,
            price=1.0,
            volume=1e6,
            momentum=0.0,
            raw=0.5,
            probability=probability,
            threshold=0.5,
            scope="pooled",
            logistic=0.5,
        ),
        "out_of_sample",
    )


def plain(candidate: Recipe, champion: Recipe | None = None) -> Judgement:
    """A judgement for a recipe, made at the end of May."""
    return Judgement(
        promote=True,
        reasons=(),
        difference=None,
        champion=None if champion is None else champion.recipe_id,
        challenger=candidate.recipe_id,
        evaluated_until=at("2024-05-31 00:00"),
    )


def promoted(store: Store, candidate: Recipe, champion: Recipe | None = None, hour: datetime = NOON) -> Entry:
    return promote(store, candidate, plain(candidate, champion), hour, "Ada", "it earns more", {"auc": 0.61})


# Judging ---------------------------------------------------------------------------------------------------------


def test_a_challenger_that_earns_clearly_more_may_take_over() -> None:
    found = judge_challenger(table(0.05), table(0.7, "b" * 16), COST, BADGE)
    assert (found.promote, found.reasons) == (True, ())
    assert (found.champion, found.challenger) == ("a" * 16, "b" * 16)
    assert found.difference is not None
    assert found.difference.low is not None
    assert found.difference.high is not None
    assert 0 < found.difference.low < found.difference.value < found.difference.high


def test_a_challenger_that_earns_less_or_the_same_may_not() -> None:
    worse = judge_challenger(table(0.7), table(0.05, "b" * 16), COST, BADGE)
    same = judge_challenger(table(0.7), table(0.7).assign(recipe_id="b" * 16), COST, BADGE)
    alike = judge_challenger(table(0.3), table(0.3, "b" * 16), COST, BADGE)
    for found in (worse, same, alike):
        assert (found.promote, found.reasons) == (False, ("NOT_BETTER",))
    assert same.difference is not None
    assert same.difference.value == pytest.approx(0)
    assert same.difference.low == pytest.approx(0)


def test_the_difference_is_that_of_the_trades_on_common_rows() -> None:
    champion, challenger = table(0.2), table(0.7, "b" * 16).iloc[600:]
    found = judge_challenger(champion, challenger, COST, BADGE)
    expected = []
    for each in (challenger, champion.iloc[600:]):
        held: dict[str, pd.Timestamp] = {}
        net = 0.0
        for row in each.sort_values("timestamp").to_dict("records"):
            if row["probability"] >= row["threshold"] and row["timestamp"] >= held.get(row["token"], START):
                held[row["token"]] = row["timestamp"] + pd.Timedelta(hours=120)
                net += row["change"] / 100 - COST
        expected.append(net)
    assert found.difference is not None
    assert found.difference.value == pytest.approx(expected[0] - expected[1])


def test_rows_of_placebo_twins_do_not_count() -> None:
    champion, challenger = table(0.05), table(0.7, "b" * 16)
    twins = challenger.assign(twin=np.int32(1), change=-50.0)
    assert judge_challenger(champion, pd.concat([challenger, twins]), COST, BADGE) == judge_challenger(
        champion, challenger, COST, BADGE
    )


def test_a_threshold_that_was_not_found_buys_nothing() -> None:
    found = judge_challenger(table(0.7), table(0.7, "b" * 16).assign(threshold=np.nan), COST, BADGE)
    assert found.difference is not None
    assert found.difference.value < 0


def test_the_reasons_of_the_challengers_own_verdict_are_passed_on() -> None:
    verdict = Verdict(badge=False, reasons=("PLACEBO", "CALIBRATION"))
    found = judge_challenger(table(0.05), table(0.7, "b" * 16), COST, verdict)
    assert (found.promote, found.reasons) == (False, ("NO_BADGE", "PLACEBO", "CALIBRATION"))


def test_the_first_champion_needs_only_the_badge() -> None:
    assert judge_challenger(None, table(0.7), COST, BADGE) == Judgement(
        promote=True,
        reasons=(),
        difference=None,
        champion=None,
        challenger="a" * 16,
        evaluated_until=(START + pd.Timedelta(days=100, hours=-6 + 120)).to_pydatetime(),
    )
    refused = judge_challenger(None, table(0.7), COST, Verdict(badge=False, reasons=("NO_TWINS",)))
    assert (refused.promote, refused.reasons) == (False, ("NO_BADGE", "NO_TWINS"))


@pytest.mark.parametrize(("days", "fits"), [(81, True), (79, False), (124, True), (126, False)])
def test_row_counts_must_lie_within_a_fifth(days: int, fits: bool) -> None:
    champion, challenger = table(0.05), table(0.7, "b" * 16, days=days)
    assert ("ROW_COUNTS" not in judge_challenger(champion, challenger, COST, BADGE).reasons) is fits


def test_too_few_windows_prove_nothing() -> None:
    found = judge_challenger(table(0.05, days=70), table(0.9, "b" * 16, days=70), COST, BADGE)
    assert (found.promote, found.reasons) == (False, ("TOO_FEW_WINDOWS",))
    assert found.difference is not None
    assert (found.difference.value > 0, found.difference.low, found.difference.high) == (True, None, None)


def test_without_a_common_row_there_is_no_comparison() -> None:
    other = table(0.7, "b" * 16)
    found = judge_challenger(table(0.05), other.assign(token=other["token"] + "0"), COST, BADGE)
    assert (found.promote, found.reasons) == (False, ("NO_COMMON_ROWS",))


def test_every_reason_of_its_own_is_explained() -> None:
    assert set(REASONS) == {"NO_BADGE", "ROW_COUNTS", "NO_COMMON_ROWS", "TOO_FEW_WINDOWS", "NOT_BETTER"}


def test_tables_that_cannot_be_compared_are_refused() -> None:
    good, other = table(0.5, days=20), table(0.5, "b" * 16, days=20)
    with pytest.raises(DataError, match="the challenger's table lacks the columns twin, change"):
        judge_challenger(good, other.drop(columns=["twin", "change"]), COST, BADGE)
    with pytest.raises(DataError, match="the champion's table has no row of the market itself"):
        judge_challenger(good.assign(twin=2), other, COST, BADGE)
    with pytest.raises(DataError, match=r"the challenger's table mixes the recipes a{16}, b{16}"):
        judge_challenger(good, pd.concat([good, other]), COST, BADGE)
    with pytest.raises(DataError, match="the champion's table has T0-0 at 2024-01-01 00:00:00 more than once"):
        judge_challenger(pd.concat([good, good.iloc[:1]]), other, COST, BADGE)
    with pytest.raises(DataError, match="the challenger's table: T0-0 at 2024-01-01 00:00:00 has no outcome"):
        judge_challenger(good, other.assign(change=np.nan), COST, BADGE)
    with pytest.raises(DataError, match="different outcomes of T0-0 at 2024-01-01 00:00:00"):
        judge_challenger(good, other.assign(change=other["change"] + 0.5), COST, BADGE)


# A refresh -------------------------------------------------------------------------------------------------------


def refreshed(
    old: float,
    new: float,
    days: int = 30,
    old_threshold: float | None = 0.5,
    new_threshold: float | None = 0.5,
) -> bool | None:
    before, after = table(old, days=days), table(new, "b" * 16, days=days)
    rows = before[["token", "timestamp", "y", "change"]]
    probabilities = before["probability"].to_numpy(), after["probability"].to_numpy()
    return refresh_is_worse(*probabilities, rows, old_threshold, new_threshold, COST)


def test_a_refresh_that_earns_clearly_less_is_worse() -> None:
    assert refreshed(0.8, 0.05) is True


def test_a_refresh_that_earns_as_much_or_more_is_not_worse() -> None:
    assert refreshed(0.05, 0.8) is False
    assert refreshed(0.5, 0.5) is False
    rows = table(0.5)[["token", "timestamp", "y", "change"]]
    same = table(0.5)["probability"].to_numpy()
    assert refresh_is_worse(same, same, rows, 0.5, 0.5, COST) is False


def test_a_model_without_a_threshold_earns_nothing() -> None:
    assert refreshed(0.8, 0.8, new_threshold=None) is True
    assert refreshed(0.8, 0.8, old_threshold=None) is False
    assert refreshed(0.8, 0.8, old_threshold=None, new_threshold=None) is False


def test_likely_but_not_clearly_worse_is_not_worse() -> None:
    """Days on which one earns and days on which the other does: the draws disagree."""
    rows = table(0.5, tokens=1, hours=120, days=50)[["token", "timestamp", "y", "change"]]
    rows["change"] = [10.0, -9.0] * 5
    always, never = np.ones(10), np.zeros(10)
    assert refresh_is_worse(always, never, rows, 0.5, 0.5, 0.0) is False
    rows["change"] = [10.0, 1.0] * 5
    assert refresh_is_worse(always, never, rows, 0.5, 0.5, 0.0) is True


@pytest.mark.parametrize(("days", "known"), [(0, False), (5, False), (6, True)])
def test_less_than_two_independent_windows_say_nothing(days: int, known: bool) -> None:
    assert (refreshed(0.9, 0.01, days=days) is not None) is known


def test_a_refresh_with_other_rows_or_without_outcomes_is_refused() -> None:
    rows = table(0.5, days=20)[["token", "timestamp", "y", "change"]]
    half = np.full(len(rows), 0.5)
    with pytest.raises(DataError, match="480 and 479 probabilities for 480 rows"):
        refresh_is_worse(half, half[1:], rows, 0.5, 0.5, COST)
    with pytest.raises(DataError, match="T0-0 at 2024-01-01 00:00:00 has no outcome"):
        refresh_is_worse(half, half, rows.assign(change=np.nan), 0.5, 0.5, COST)


# The journal -----------------------------------------------------------------------------------------------------


def test_a_store_without_decisions_has_no_champion(store: Store) -> None:
    assert journal(store) == []
    assert champion_at([], NOON) is None


def test_a_decision_is_kept_as_it_was_made(store: Store) -> None:
    entry = promote(store, LOGIT, plain(LOGIT), NOON, " Ada ", " first one ", {"auc": 0.61, "trades": 40})
    assert entry == Entry(
        number=1,
        recipe="baseline_logit",
        recipe_id=LOGIT.recipe_id,
        effective_from=NOON,
        action="promote",
        by="Ada",
        reason="first one",
        evidence={"auc": 0.61, "trades": 40},
        previous=None,
    )
    assert journal(store) == [entry]
    assert (Path(store.root.path) / "champion" / "000001.json").is_file()


def test_the_journal_is_the_same_in_a_bucket(bucket_store: Store) -> None:
    promoted(bucket_store, LOGIT)
    promoted(bucket_store, DEFAULT, LOGIT)
    rollback(bucket_store, NOON, "Ada", "it loses")
    assert [entry.recipe for entry in journal(bucket_store)] == ["baseline_logit", "default", "baseline_logit"]


def test_a_judgement_of_two_tables_leads_to_an_entry_with_its_figures(store: Store) -> None:
    promoted(store, LOGIT)
    judgement = judge_challenger(table(0.05, LOGIT.recipe_id), table(0.7, DEFAULT.recipe_id), COST, BADGE)
    entry = promote(store, DEFAULT, judgement, NOON, "Ada", "it earns more", {"auc": 0.7})
    assert judgement.difference is not None
    assert entry.evidence == {
        "net_difference": judgement.difference.value,
        "net_difference_low": judgement.difference.low,
        "net_difference_high": judgement.difference.high,
        "auc": 0.7,
    }
    assert journal(store)[-1] == entry


def test_an_hour_sees_only_what_was_in_force_then(store: Store) -> None:
    promoted(store, LOGIT)
    promoted(store, DEFAULT, LOGIT, NOON + timedelta(hours=5))
    rollback(store, NOON + timedelta(hours=9), "schedule", "REALISED_LOSS")
    entries = journal(store)
    numbers = {hours: champion_at(entries, NOON + timedelta(hours=hours)) for hours in (-1, 0, 4, 5, 8, 9, 1000)}
    assert {hours: entry and entry.number for hours, entry in numbers.items()} == {
        -1: None,
        0: 1,
        4: 1,
        5: 2,
        8: 2,
        9: 3,
        1000: 3,
    }
    for hours, entry in numbers.items():  # what was decided afterwards changes no earlier hour
        known = [each for each in entries if each.effective_from <= NOON + timedelta(hours=hours)]
        assert champion_at(known, NOON + timedelta(hours=hours)) == entry


def test_of_two_decisions_for_one_hour_the_newer_counts(store: Store) -> None:
    promoted(store, LOGIT)
    promoted(store, DEFAULT, LOGIT)
    found = champion_at(journal(store), NOON)
    assert found is not None
    assert found.recipe == "default"


def test_rolling_back_goes_one_further_back_each_time(store: Store) -> None:
    promoted(store, LOGIT)
    promoted(store, DEFAULT, LOGIT)
    promoted(store, MOMENTUM, DEFAULT)
    back = [rollback(store, NOON, "Ada", "it loses") for _ in range(2)]
    assert [(entry.recipe, entry.action, entry.number) for entry in back] == [
        ("default", "rollback", 4),
        ("baseline_logit", "rollback", 5),
    ]
    with pytest.raises(DataError, match=r"before entry 5 \(rollback baseline_logit .*nothing to go back to"):
        rollback(store, NOON, "Ada", "further")
    promoted(store, MOMENTUM, LOGIT)
    assert rollback(store, NOON, "Ada", "again").recipe == "baseline_logit"


def test_a_rollback_restores_the_recipe_and_its_evidence(store: Store) -> None:
    first = promoted(store, LOGIT)
    promoted(store, DEFAULT, LOGIT)
    entry = rollback(store, NOON, "schedule", "it loses")
    assert (entry.recipe_id, entry.evidence, entry.previous) == (first.recipe_id, first.evidence, None)
    assert (entry.by, entry.reason) == ("schedule", "it loses")


def test_a_rollback_of_nothing_is_refused(store: Store) -> None:
    with pytest.raises(DataError, match="holds no decision; there is nothing to go back to"):
        rollback(store, NOON, "Ada", "why not")
    promoted(store, LOGIT)
    with pytest.raises(DataError, match=r"before entry 1 \(promote baseline_logit .*nothing to go back to"):
        rollback(store, NOON, "Ada", "why not")
    assert len(journal(store)) == 1


def test_a_recipe_for_comparison_is_never_promoted(store: Store) -> None:
    published = recipe("blog_exact")
    with pytest.raises(DataError, match="recipe blog_exact is kept for comparison only"):
        promote(store, published, plain(published), NOON, "Ada", "it shines", {})


def test_a_judgement_against_or_about_another_is_refused(store: Store) -> None:
    against = replace(plain(LOGIT), promote=False, reasons=("NO_BADGE", "PLACEBO"))
    with pytest.raises(DataError, match="baseline_logit is not promoted: NO_BADGE, PLACEBO"):
        promote(store, LOGIT, against, NOON, "Ada", "hope", {})
    with pytest.raises(DataError, match=f"the judgement is about {DEFAULT.recipe_id}"):
        promote(store, LOGIT, plain(DEFAULT), NOON, "Ada", "a mistake", {})
    promoted(store, LOGIT)
    with pytest.raises(DataError, match="default was compared with no champion, but the newest decision is entry 1"):
        promote(store, DEFAULT, plain(DEFAULT), NOON, "Ada", "an old judgement", {})
    with pytest.raises(DataError, match=f"was compared with {MOMENTUM.recipe_id}, but the newest decision is entry 1"):
        promote(store, DEFAULT, plain(DEFAULT, MOMENTUM), NOON, "Ada", "an old judgement", {})
    with pytest.raises(DataError, match=r"baseline_logit is the champion already, by entry 1 \(promote"):
        promote(store, LOGIT, plain(LOGIT, LOGIT), NOON, "Ada", "again", {})
    assert len(journal(store)) == 1


def test_a_comparison_with_a_champion_that_was_never_promoted_is_refused(store: Store) -> None:
    with pytest.raises(DataError, match="but the newest decision is none"):
        promote(store, DEFAULT, plain(DEFAULT, LOGIT), NOON, "Ada", "first", {})


@pytest.mark.parametrize("by", ["", "  "])
def test_a_decision_without_a_name_or_a_reason_is_refused(store: Store, by: str) -> None:
    promoted(store, LOGIT)
    promoted(store, DEFAULT, LOGIT)
    for person, reason, expected in ((by, "it loses", "name the person"), ("Ada", by, "give the reason")):
        with pytest.raises(DataError, match=expected):
            rollback(store, NOON, person, reason)
        with pytest.raises(DataError, match=expected):
            promote(store, MOMENTUM, plain(MOMENTUM, DEFAULT), NOON, person, reason, {})
    assert len(journal(store)) == 2


def test_a_schedule_cannot_promote(store: Store) -> None:
    with pytest.raises(DataError, match="a promotion needs a person's name"):
        promote(store, LOGIT, plain(LOGIT), NOON, " schedule", "it is time", {})


@pytest.mark.parametrize("hour", [at("2024-06-01 12:30"), at("2024-06-01 12:00:00.5"), at("2024-06-01T12:00+00:00")])
def test_a_decision_takes_effect_at_a_whole_hour(store: Store, hour: datetime) -> None:
    with pytest.raises(DataError, match="takes effect at a whole hour, naive UTC"):
        promote(store, LOGIT, plain(LOGIT), hour, "Ada", "now", {})
    with pytest.raises(DataError, match="takes effect at a whole hour, naive UTC"):
        rollback(store, hour, "Ada", "now")


def test_hours_that_are_decided_cannot_be_decided_again(store: Store) -> None:
    promoted(store, LOGIT)
    promoted(store, DEFAULT, LOGIT)
    before = NOON - timedelta(hours=1)
    with pytest.raises(DataError, match=r"11:00:00 lies before entry 2 .*choose 2024-06-01 12:00:00 or a later hour"):
        promote(store, MOMENTUM, plain(MOMENTUM, DEFAULT), before, "Ada", "earlier", {})
    with pytest.raises(DataError, match="11:00:00 lies before entry 2"):
        rollback(store, before, "Ada", "earlier")


def test_evidence_speaks_for_no_hour_before_it_was_known(store: Store) -> None:
    judgement = plain(LOGIT)
    with pytest.raises(DataError, match=r"promote it from 2024-05-31 01:00:00 on"):
        promote(store, LOGIT, judgement, judgement.evaluated_until, "Ada", "now", {})
    promote(store, LOGIT, judgement, judgement.evaluated_until + timedelta(hours=1), "Ada", "now", {})


@pytest.mark.parametrize("figure", [float("nan"), float("inf"), True, None, "0.6", np.int64(3)])
def test_evidence_that_is_no_plain_number_is_refused(store: Store, figure: Any) -> None:
    with pytest.raises(DataError, match="the figure auc is"):
        promote(store, LOGIT, plain(LOGIT), NOON, "Ada", "now", {"auc": figure})
    assert journal(store) == []


CHANGES: dict[str, dict[str, Any]] = {
    "schema version is not 1": {"schema_version": 2},
    "it says that it is number 7": {"number": 7},
    "it follows entry 2": {"previous": 2},
    "earlier than the entry before": {"effective_from": "2024-01-01T00:00:00"},
    "no whole hour": {"effective_from": "2024-06-01T12:30:00"},
    "no whole hour in naive": {"effective_from": "2024-06-01T12:00:00+00:00"},
    "action is not filled in": {"action": "depose"},
    "by, reason or action": {"by": ""},
    "recipe, recipe_id": {"recipe": None},
    "no table of figures": {"evidence": [1]},
    "unexpected keyword": {"surprise": 1},
}


@pytest.mark.parametrize("expected", CHANGES)
def test_an_entry_that_was_changed_is_refused_with_its_path(store: Store, expected: str) -> None:
    promoted(store, LOGIT)
    promoted(store, DEFAULT, LOGIT)
    path = Path(store.root.path) / "champion" / "000002.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | CHANGES[expected]))
    with pytest.raises(DataError, match=f"champion/000002.json is torn, changed or foreign .*{expected}"):
        journal(store)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'"text"', b"3", b"{}", b"\xff\xfe"])
def test_a_torn_entry_is_refused_with_its_path_and_stops_every_decision(store: Store, content: bytes) -> None:
    promoted(store, LOGIT)
    path = Path(store.root.path) / "champion" / "000001.json"
    path.write_bytes(content)
    for decide in (
        lambda: journal(store),
        lambda: promoted(store, DEFAULT, LOGIT),
        lambda: rollback(store, NOON, "Ada", "it is torn"),
    ):
        with pytest.raises(DataError, match=r"champion/000001.json is torn, changed or foreign .*restore it"):
            decide()


def test_an_entry_that_is_gone_is_missed(store: Store) -> None:
    promoted(store, LOGIT)
    promoted(store, DEFAULT, LOGIT)
    (Path(store.root.path) / "champion" / "000001.json").unlink()
    with pytest.raises(DataError, match=r"champion/000001.json is missing although 000002.json is there"):
        journal(store)


def test_other_files_in_the_folder_are_no_entries(store: Store) -> None:
    promoted(store, LOGIT)
    folder = Path(store.root.path) / "champion"
    for name in ("README.md", ".000002.json.abc.part", "2.json"):
        (folder / name).write_text("mine")
    assert len(journal(store)) == 1


def test_what_is_in_the_way_of_an_entry_is_named(store: Store) -> None:
    promoted(store, LOGIT)
    promoted(store, DEFAULT, LOGIT)
    (Path(store.root.path) / "champion" / "000003.json").mkdir()
    with pytest.raises(DataError, match=r"champion/000003.json exists and is no entry"):
        promoted(store, MOMENTUM, DEFAULT)
    with pytest.raises(DataError, match=r"champion/000003.json exists and is no entry"):
        rollback(store, NOON, "Ada", "it loses")


# Races -----------------------------------------------------------------------------------------------------------


def race(stores: list[str], candidate: str, barrier: Barrier, results: Connection) -> None:
    """In each store, at the same moment as the other processes, promote a recipe as the first champion."""
    for location in stores:
        store = Store.at(location)
        barrier.wait()
        try:
            results.send(promoted(store, recipe(candidate)).number)
        except DataError as error:
            results.send(str(error))


def test_of_processes_that_decide_at_once_one_wins_and_the_others_are_told(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["breakout_assets_tests.learning.test_promotion"])
    stores = [str(tmp_path / str(k)) for k in range(20)]
    names = ("baseline_logit", "baseline_momentum", "default")
    barrier = context.Barrier(len(names))
    children, pipes = [], []
    try:
        for name in names:
            receiver, sender = context.Pipe(duplex=False)
            child = context.Process(target=race, args=(stores, name, barrier, sender))
            child.start()
            children.append(child)
            pipes.append(receiver)
        for location in stores:
            assert all(pipe.poll(PATIENCE) for pipe in pipes), "a child process said nothing"
            answers = dict(zip(names, (pipe.recv() for pipe in pipes), strict=True))
            (entry,) = journal(Store.at(location))
            assert answers.pop(entry.recipe) == 1
            assert len(answers) == 2
            for name, told in answers.items():
                assert f"{name} was compared with no champion, but the newest decision is entry 1" in told
                assert entry.recipe in told
    finally:
        for child in children:
            child.kill()
            child.join()


class Overtaken(Store):
    """A store in which another process writes the same entry a moment earlier, from a copy made beforehand."""

    def write_new(self, path: Any, data: bytes) -> bool:
        source = Path(self.root.path).with_name("theirs") / "champion" / path.name
        if source.exists():
            shutil.move(source, path.path)
        return super().write_new(path, data)


def overtaken(store: Store, theirs: Store) -> Store:
    """The store, whose next entry `theirs` has written already."""
    shutil.move(theirs.root.path, Path(store.root.path).with_name("theirs"))
    return Overtaken(store.root)


def test_a_promotion_that_was_overtaken_is_decided_again_on_top_of_what_won(store: Store, tmp_path: Path) -> None:
    other = Store.at(str(tmp_path / "other"))
    for each in (store, other):
        promoted(each, LOGIT)
    promoted(other, MOMENTUM, LOGIT)
    with pytest.raises(DataError, match=r"default was compared with .* the newest decision is entry 2 .*momentum"):
        promoted(overtaken(store, other), DEFAULT, LOGIT)
    assert [entry.recipe for entry in journal(store)] == ["baseline_logit", "baseline_momentum"]


def test_a_rollback_that_was_overtaken_undoes_nothing(store: Store, tmp_path: Path) -> None:
    other = Store.at(str(tmp_path / "other"))
    for each in (store, other):
        promoted(each, LOGIT)
        promoted(each, DEFAULT, LOGIT)
    promoted(other, MOMENTUM, DEFAULT)
    with pytest.raises(DataError, match=r"entry 3 \(promote baseline_momentum .* written at the same moment"):
        rollback(overtaken(store, other), NOON, "Ada", "it loses")
    assert journal(store)[-1].recipe == "baseline_momentum"
