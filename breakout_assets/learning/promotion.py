"""Which recipe speaks: a journal of promotions and rollbacks in the store, and what a challenger has to show.

    champion/NNNNNN.json        one decision each, written once and never changed

A prediction of a past hour asks which recipe was in force then (`champion_at`), so that no later promotion changes it.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final, Literal

import numpy as np
import pandas as pd
from upath import UPath

from breakout_assets import objects
from breakout_assets.errors import DataError
from breakout_assets.learning.evidence import Interval, Verdict
from breakout_assets.learning.recipes import Recipe
from breakout_assets.learning.splits import LABEL_DELAY
from breakout_assets.learning.statistics import Floats, WindowDraws, draw_windows, hours_of
from breakout_assets.learning.thresholds import trades_of
from breakout_assets.store import Store

SCHEDULE: Final = "schedule"
SCHEMA_VERSION: Final = 1

# Why a challenger is not promoted; the reasons of its own verdict stand beside these.
REASONS: Final[dict[str, str]] = {
    "NO_BADGE": "the evidence for the challenger does not carry it; the reasons after this one say why",
    "ROW_COUNTS": "the two were judged on row counts that differ by more than 20 %",
    "NO_COMMON_ROWS": "no row was judged by both",
    "TOO_FEW_WINDOWS": "the rows that both judged hold too few independent windows of five days for an interval",
    "NOT_BETTER": "the lower bound of the difference in net profit is not above 0",
}
_COUNTS_WITHIN: Final = 0.20
# A refresh of the same recipe has nothing to prove; it must only not be clearly worse.
_CLEARLY_WORSE: Final = 0.8
# Differences of running sums leave rounding dust, which is no loss.
_DUST: Final = 1e-9
# Who loses a race reads what won and decides again; more often than this no other process writes.
_ATTEMPTS: Final = 3
_KEY: Final = ["token", "timestamp"]


@dataclass(frozen=True)
class Entry:
    """One decision of the journal."""

    number: int
    recipe: str
    """Its name."""
    recipe_id: str
    effective_from: datetime
    """A whole hour, naive UTC: the first hour that this recipe predicts."""
    action: Literal["promote", "rollback"]
    by: str
    """A person's name, or `schedule`."""
    reason: str
    evidence: dict[str, float]
    previous: int | None
    """The entry that a rollback from here goes back to; None where there was no champion before."""


@dataclass(frozen=True)
class Judgement:
    """Whether a challenger may take the champion's place."""

    promote: bool
    reasons: tuple[str, ...]
    """Codes of everything that speaks against it, those of its verdict included; empty if it may."""
    difference: Interval | None
    """Net profit of the challenger's trades minus the champion's, in stakes of one trade, on the rows that both
    judged; None where there is no champion yet."""
    champion: str | None
    """The recipe_id compared with."""
    challenger: str
    evaluated_until: datetime
    """The latest price that the evidence knows."""


def judge_challenger(
    champion_table: pd.DataFrame | None,
    challenger_table: pd.DataFrame,
    cost: float,
    challenger_verdict: Verdict,
    seed: int = 0,
) -> Judgement:
    """Compare two recipes on the rows of the market itself that both have judged out of sample.

    Args:
        champion_table: columns of `tables.OUT_OF_SAMPLE`; None while there is no champion: the first one needs only
            the badge of its own evaluation.
        challenger_table: the same of the challenger.
        cost: share of the money that a round trip costs.
        challenger_verdict: of its evaluation.
        seed: of the block bootstrap.

    Raises:
        DataError: a table lacks a column, mixes recipes, repeats a row, has no rows of the market itself, or the two
            know different outcomes of one row.
    """
    challenger = _market_rows(challenger_table, "challenger")
    reasons = [] if challenger_verdict.badge else ["NO_BADGE", *challenger_verdict.reasons]
    champion_id, difference = None, None
    if champion_table is not None:
        champion = _market_rows(champion_table, "champion")
        champion_id = str(champion["recipe_id"].iloc[0])
        if min(len(champion), len(challenger)) < (1 - _COUNTS_WITHIN) * max(len(champion), len(challenger)):
            reasons.append("ROW_COUNTS")
        difference, against = _compared(champion, challenger, cost, seed)
        reasons += against
    return Judgement(
        promote=not reasons,
        reasons=tuple(dict.fromkeys(reasons)),
        difference=difference,
        champion=champion_id,
        challenger=str(challenger["recipe_id"].iloc[0]),
        evaluated_until=challenger["label_end"].max().to_pydatetime(),
    )


def refresh_is_worse(
    old_probabilities: Floats,
    new_probabilities: Floats,
    rows: pd.DataFrame,
    old_threshold: float | None,
    new_threshold: float | None,
    cost: float,
    seed: int = 0,
) -> bool | None:
    """Whether a newly trained model of the same recipe is clearly worse than the one that serves.

    Args:
        old_probabilities: of the serving model, one a row.
        new_probabilities: of the new model.
        rows: token, timestamp, y, change (percent) of rows that neither model has seen.
        old_threshold: from which probability on the serving model buys; None: never.
        new_threshold: the same of the new one.
        cost: share of the money that a round trip costs.
        seed: of the block bootstrap.

    Returns:
        True if its net profit is lower in more than 80 % of the draws of whole calendar windows; None if the rows do
        not hold two independent windows.

    Raises:
        DataError: the numbers of probabilities and rows differ, or a row has no outcome.
    """
    if not len(old_probabilities) == len(new_probabilities) == len(rows):
        raise DataError(
            f"{len(old_probabilities)} and {len(new_probabilities)} probabilities for {len(rows)} rows; "
            "give one of each model for each row"
        )
    if rows.empty:
        return None
    _check_outcomes(rows, "the rows to compare two models on")
    draws = draw_windows(hours_of(rows["timestamp"]), seed=seed)
    if draws.windows < 2:
        return None
    totals = [
        _net_of_draws(rows.assign(probability=p, threshold=threshold), cost, draws)
        for p, threshold in ((old_probabilities, old_threshold), (new_probabilities, new_threshold))
    ]
    return bool((totals[1] - totals[0] < -_DUST).mean() > _CLEARLY_WORSE)


def journal(store: Store) -> list[Entry]:
    """All decisions, the first one first; empty if there is none.

    Raises:
        DataError: an entry is missing, torn or foreign, or contradicts those before it; the message names the file.
    """
    paths = [file.path for file in objects.found_under(store.root / "champion")]
    paths = sorted((path for path in paths if re.fullmatch(r"\d{6}\.json", path.name)), key=lambda path: path.name)
    entries: list[Entry] = []
    for path, data in zip(paths, objects.read_many(paths), strict=True):
        expected = _path(store, len(entries) + 1)
        if path.name != expected.name:
            raise DataError(f"{expected} is missing although {path.name} is there; restore it from a backup")
        entries.append(_read(path, data, entries))
    return entries


def champion_at(entries: Sequence[Entry], hour: datetime) -> Entry | None:
    """The entry in force at an hour: the newest that was effective by then; None before the first one."""
    in_force = [entry for entry in entries if entry.effective_from <= hour]
    return in_force[-1] if in_force else None


def promote(
    store: Store,
    candidate: Recipe,
    judgement: Judgement,
    hour: datetime,
    by: str,
    reason: str,
    evidence: Mapping[str, float],
) -> Entry:
    """Make a recipe the champion from an hour on.

    If another process decides at the same time, its decision counts and this one is looked at again on top of it: it
    is refused, because it was compared with a champion that is no longer the newest.

    Args:
        store: where the journal lies.
        candidate: the recipe.
        judgement: of the same recipe against the present champion.
        hour: a whole hour, naive UTC, not before the previous decision nor before the evidence was known.
        by: the person who decides.
        reason: why, in a sentence.
        evidence: figures to remember; plain finite numbers. The difference in net profit is added.

    Raises:
        DataError: the recipe may not trade, the judgement is against it or about others, nobody is named, or the hour
            or a figure is impossible; the message says which. Nothing has been written then.
    """
    _check_decision(hour, by, reason)
    _check_candidate(candidate, judgement, hour, by)
    figures = _figures(evidence, judgement)
    for _ in range(_ATTEMPTS):
        entries = journal(store)
        champion = entries[-1] if entries else None
        _check_compared(candidate, judgement, champion)
        entry = Entry(
            number=len(entries) + 1,
            recipe=candidate.name,
            recipe_id=candidate.recipe_id,
            effective_from=hour,
            action="promote",
            by=by.strip(),
            reason=reason.strip(),
            evidence=figures,
            previous=None if champion is None else champion.number,
        )
        if _append(store, entry, champion):
            return entry
    raise _in_the_way(store, entry)


def rollback(store: Store, hour: datetime, by: str, reason: str) -> Entry:
    """Put the recipe in force again that was before the newest decision; a second rollback goes one further back.

    If another process decides at the same time this one is refused: it would undo a decision that nobody has seen.

    Args:
        store: where the journal lies.
        hour: a whole hour, naive UTC, from which on; not before the newest decision.
        by: a person's name, or `schedule`.
        reason: why, in a sentence.

    Raises:
        DataError: there is nothing to go back to, nobody is named, or the hour is impossible. Nothing has been
            written then.
    """
    _check_decision(hour, by, reason)
    entries = journal(store)
    if not entries:
        raise DataError(f"{store.root}/champion holds no decision; there is nothing to go back to")
    present = entries[-1]
    if present.previous is None:
        raise DataError(f"before {_cited(present)} there was no champion; there is nothing to go back to")
    restored = entries[present.previous - 1]
    entry = Entry(
        number=present.number + 1,
        recipe=restored.recipe,
        recipe_id=restored.recipe_id,
        effective_from=hour,
        action="rollback",
        by=by.strip(),
        reason=reason.strip(),
        evidence=restored.evidence,
        previous=restored.previous,
    )
    if _append(store, entry, present):
        return entry
    newest = journal(store)[-1]
    if newest.number < entry.number:
        raise _in_the_way(store, entry)
    raise DataError(f"{_cited(newest)} was written at the same moment; look at it before you roll anything back")


# Judging ---------------------------------------------------------------------------------------------------------


def _market_rows(table: pd.DataFrame, whose: str) -> pd.DataFrame:
    """The rows of the market itself, sorted by (token, timestamp)."""
    needed = [*_KEY, "twin", "recipe_id", "label_end", "probability", "threshold", "y", "change"]
    missing = [column for column in needed if column not in table]
    if missing:
        raise DataError(f"the {whose}'s table lacks the columns {', '.join(missing)}; evaluate the recipe again")
    rows = table[table["twin"].eq(0)].sort_values(_KEY, ignore_index=True)
    if rows.empty:
        raise DataError(f"the {whose}'s table has no row of the market itself; evaluate the recipe again")
    recipes = sorted(set(rows["recipe_id"]))
    if len(recipes) > 1:
        raise DataError(f"the {whose}'s table mixes the recipes {', '.join(recipes)}; give the table of one evaluation")
    twice = rows[rows.duplicated(_KEY)]
    if len(twice):
        row = twice.iloc[0]
        raise DataError(f"the {whose}'s table has {row['token']} at {row['timestamp']} more than once; evaluate again")
    _check_outcomes(rows, f"the {whose}'s table")
    return rows


def _check_outcomes(rows: pd.DataFrame, what: str) -> None:
    lacking = rows[~np.isfinite(rows["change"].to_numpy(dtype=np.float64, na_value=np.nan))]
    if len(lacking):
        row = lacking.iloc[0]
        raise DataError(f"{what}: {row['token']} at {row['timestamp']} has no outcome; leave rows without a label out")


def _compared(
    champion: pd.DataFrame, challenger: pd.DataFrame, cost: float, seed: int
) -> tuple[Interval, tuple[str, ...]]:
    """The difference in net profit on common rows, and what it says against the challenger."""
    common = champion[_KEY].merge(challenger[_KEY], on=_KEY, validate="1:1")
    if common.empty:
        return Interval(math.nan, None, None), ("NO_COMMON_ROWS",)
    sides = [common.merge(table, on=_KEY, validate="1:1") for table in (champion, challenger)]
    other = ~np.isclose(sides[0]["change"], sides[1]["change"])
    if other.any():
        row = common[other].iloc[0]
        raise DataError(
            f"the two tables know different outcomes of {row['token']} at {row['timestamp']}; evaluate both recipes "
            "on the same labels"
        )
    draws = draw_windows(hours_of(common["timestamp"]), seed=seed)
    champion_sums, challenger_sums = (_net_of_draws(side, cost, draws) for side in sides)
    bounds = draws.interval(challenger_sums - champion_sums)
    value = _net_sum(sides[1], cost) - _net_sum(sides[0], cost)
    if bounds is None:
        return Interval(value, None, None), ("TOO_FEW_WINDOWS",)
    return Interval(value, *bounds), () if bounds[0] > _DUST else ("NOT_BETTER",)


def _trades(table: pd.DataFrame, cost: float) -> pd.DataFrame:
    """Purchases at each row's own threshold; NaN buys nothing."""
    return trades_of(table, table["threshold"].to_numpy(dtype=np.float64), cost)


def _net_sum(table: pd.DataFrame, cost: float) -> float:
    return float(_trades(table, cost)["net"].sum())


def _net_of_draws(table: pd.DataFrame, cost: float, draws: WindowDraws) -> Floats:
    """Net profit in each draw of whole calendar windows; a trade belongs to the hour of its purchase."""
    trades = _trades(table, cost)
    return draws.totals(hours_of(trades["timestamp"]), trades["net"].to_numpy(dtype=np.float64))


# The journal -----------------------------------------------------------------------------------------------------


def _is_whole_hour(hour: datetime) -> bool:
    return hour.tzinfo is None and hour == hour.replace(minute=0, second=0, microsecond=0)


def _check_decision(hour: datetime, by: str, reason: str) -> None:
    if not _is_whole_hour(hour):
        raise DataError(f"a decision takes effect at a whole hour, naive UTC, not at {hour}")
    if not by.strip():
        raise DataError("name the person who decides; the journal must say whom to ask")
    if not reason.strip():
        raise DataError("give the reason in a sentence; the journal must say why")


def _check_candidate(candidate: Recipe, judgement: Judgement, hour: datetime, by: str) -> None:
    if candidate.reference_only:
        raise DataError(f"recipe {candidate.name} is kept for comparison only; it can never be promoted")
    if judgement.challenger != candidate.recipe_id:
        raise DataError(
            f"recipe {candidate.name} is {candidate.recipe_id}, the judgement is about {judgement.challenger}; "
            "evaluate the recipe that you want to promote"
        )
    if not judgement.promote:
        raise DataError(f"recipe {candidate.name} is not promoted: {', '.join(judgement.reasons)}")
    if by.strip() == SCHEDULE:
        raise DataError("a promotion needs a person's name; a schedule cannot promote")
    known = judgement.evaluated_until + LABEL_DELAY
    if hour < known:
        raise DataError(
            f"the evidence for {candidate.name} knows prices up to {judgement.evaluated_until}; it cannot speak for "
            f"{hour}: promote it from {known} on"
        )


def _check_compared(candidate: Recipe, judgement: Judgement, champion: Entry | None) -> None:
    if champion is not None and champion.recipe_id == candidate.recipe_id:
        raise DataError(f"recipe {candidate.name} is the champion already, by {_cited(champion)}")
    if judgement.champion != (None if champion is None else champion.recipe_id):
        raise DataError(
            f"recipe {candidate.name} was compared with {judgement.champion or 'no champion'}, but the newest decision "
            f"is {_cited(champion) if champion else 'none'}; compare it with that champion and decide again"
        )


def _figures(evidence: Mapping[str, float], judgement: Judgement) -> dict[str, float]:
    figures: dict[str, float] = {}
    difference = judgement.difference
    if difference is not None and difference.low is not None and difference.high is not None:
        figures |= {
            "net_difference": difference.value,
            "net_difference_low": difference.low,
            "net_difference_high": difference.high,
        }
    for name, figure in evidence.items():
        # A numpy number would do until it meets JSON; a truth value is no figure.
        if isinstance(figure, bool) or not isinstance(figure, int | float) or not math.isfinite(figure):
            raise DataError(f"the figure {name} is {figure!r}; evidence is plain finite numbers, leave others out")
        figures[name] = figure
    return figures


def _append(store: Store, entry: Entry, newest: Entry | None) -> bool:
    """Write an entry; False if another process was first."""
    if newest is not None and entry.effective_from < newest.effective_from:
        raise DataError(
            f"{entry.effective_from} lies before {_cited(newest)}; hours that it has decided cannot be decided again: "
            f"choose {newest.effective_from} or a later hour"
        )
    content = {"schema_version": SCHEMA_VERSION} | asdict(entry) | {"effective_from": entry.effective_from.isoformat()}
    data = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)
    return store.write_new(_path(store, entry.number), f"{data}\n".encode())


def _read(path: UPath, data: bytes, before: list[Entry]) -> Entry:
    try:
        content = json.loads(data)
        if content.pop("schema_version") != SCHEMA_VERSION:
            raise ValueError(f"its schema version is not {SCHEMA_VERSION}")
        entry = Entry(**content | {"effective_from": datetime.fromisoformat(content["effective_from"])})
        _check_entry(entry, before)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} is torn, changed or foreign ({error}); restore it from a backup, nobody knows which recipe speaks"
        ) from error
    return entry


def _check_entry(entry: Entry, before: list[Entry]) -> None:
    """What no writer of this module has written."""
    texts = (entry.recipe, entry.recipe_id, entry.by, entry.reason)
    if not all(isinstance(text, str) and text for text in texts) or entry.action not in ("promote", "rollback"):
        raise ValueError("recipe, recipe_id, by, reason or action is not filled in")
    if not isinstance(entry.evidence, dict):
        raise ValueError("evidence is no table of figures")
    if not _is_whole_hour(entry.effective_from):
        raise ValueError(f"it is effective from {entry.effective_from}, no whole hour in naive UTC")
    if entry.number != len(before) + 1:
        raise ValueError(f"it says that it is number {entry.number}")
    if entry.previous is not None and not 1 <= entry.previous <= len(before):
        raise ValueError(f"it follows entry {entry.previous}, which does not lie before it")
    if before and entry.effective_from < before[-1].effective_from:
        raise ValueError(f"it is effective from {entry.effective_from}, earlier than the entry before it")


def _path(store: Store, number: int) -> UPath:
    return store.root / "champion" / f"{number:06d}.json"


def _cited(entry: Entry) -> str:
    """An entry in a message."""
    return f"entry {entry.number} ({entry.action} {entry.recipe} from {entry.effective_from} by {entry.by})"


def _in_the_way(store: Store, entry: Entry) -> DataError:
    return DataError(
        f"{_path(store, entry.number)} exists and is no entry of the journal; look at what it is and remove it"
    )
