"""One command that makes good what was missed: hours, days, labels and indicators, as far as they can be had.

It looks at what the store and the instance have, not at what went wrong, so it can be stopped and started again. It
makes data only; nothing here trades.
"""

import logging
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Final, TypeVar

import dagster as dg
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from breakout_assets import objects
from breakout_assets.dataset.features import days_of_look_back
from breakout_assets.definitions import build_definitions
from breakout_assets.defs.automation import outdated_days, outdated_labels
from breakout_assets.defs.coverage import ELSE, newest_hour_begun, span
from breakout_assets.defs.partitions import days_between, hour_key, range_tags
from breakout_assets.defs.reporting import MOST_LISTED
from breakout_assets.defs.resources import build_resources
from breakout_assets.errors import DataError, SettingsError
from breakout_assets.market.cmc_credits import quotes_cost
from breakout_assets.market.collect import HISTORY_REACH, CoinMarketCapSource, SnapshotSource
from breakout_assets.market.coverage import Gap, KnownHours, coverage_path, known_hours, stretches
from breakout_assets.market.files import read_raw
from breakout_assets.market.history import days_behind
from breakout_assets.market.schema import HOUR, hours_between
from breakout_assets.settings import Settings, load_settings
from breakout_assets.store import Store

DAY: Final = timedelta(days=1)
# A run that is killed has recorded nothing, and an hourly run holds all its hours in memory: ten days of hours, or a
# month of days, are the most that one run is given.
MOST_HOURS: Final = 240
MOST_DAYS: Final = 31
LABELS: Final = ("labelled_dataset", "indicator_features")
LABEL_FUTURE: Final = 5  # days
_Moment = TypeVar("_Moment", bound=date)


@dataclass(frozen=True)
class Plan:
    """What can be repaired, and what cannot.

    Attributes:
        hours: Hours without a raw file that can be had, oldest first.
        bought: How many of them cost credits.
        credits: Their estimated price.
        days: Days to compact, because they never were or because their raw files are others by now.
        labels: Days to label, likewise.
        coverage: Whether the coverage table is to be made.
        lost: Missing hours that cannot be had.
        kept: Days whose file has hours that no raw file has any more: compacted again it would lose them.
        compacted: The hours that the daily files have.
    """

    hours: tuple[datetime, ...] = ()
    bought: int = 0
    credits: int = 0
    days: tuple[date, ...] = ()
    labels: tuple[date, ...] = ()
    coverage: bool = False
    lost: tuple[Gap, ...] = ()
    kept: tuple[date, ...] = ()
    compacted: frozenset[datetime] = frozenset()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to repair."""
        return not (self.hours or self.days or self.labels or self.coverage)


@dataclass(frozen=True)
class Part:
    """Partitions of one kind that are to be made; no keys where the asset has no partitions."""

    what: str
    assets: tuple[str, ...]
    ranges: tuple[tuple[str, ...], ...]

    @property
    def total(self) -> int:
        """How many partitions."""
        return sum(max(1, len(keys)) for keys in self.ranges)


@dataclass(frozen=True)
class Outcome:
    """What became of a part: how many of its partitions were made, and why the others were not."""

    part: Part
    made: int
    reasons: tuple[str, ...]


def run_repair(console: Console, plan_only: bool = False) -> int:
    """Repair the store of the settings, against the instance that the UI uses; 1 if something could not be repaired.

    Raises:
        SettingsError, DataError, TemporaryError: the store, the instance or a setting is not as it must be.
    """
    with _instance() as instance:
        return repair(console, load_settings(), instance, plan_only)


def repair(console: Console, settings: Settings, instance: dg.DagsterInstance, plan_only: bool = False) -> int:
    """Print the plan and, unless it is all that was asked for, do what it says; 1 if a part of it failed."""
    resources = build_resources(settings)
    store, source = resources["store"], resources["source"]
    try:
        first, last = span(store, settings, resources["clock"])
    except DataError as error:
        console.print(f"Nothing to repair: {escape(str(error))}", soft_wrap=True)
        return 0
    with console.status("Looking at what is there …"):  # half a minute for two years of days
        plan = plan_repair(instance, store, source, first, last)
    _print_plan(console, plan, source)
    if plan.empty:
        console.print("Nothing to repair.")
        return 0
    return 0 if plan_only else _carry_out(console, settings, store, instance, plan)


# The plan ----------------------------------------------------------------------------------------------------------


def plan_repair(
    instance: dg.DagsterInstance, store: Store, source: SnapshotSource, first: datetime, last: datetime
) -> Plan:
    """What can be repaired of the hours from `first`, the store's first, to `last`, the newest that is due."""
    newest = newest_hour_begun()
    end = last if source.kind == "simulated" else newest  # what was never asked of an invented market is no gap
    known = known_hours(store, first, last)
    compacted = known.compacted
    there = known.raw.keys() | compacted
    # An hour that only its day's file has is not bought once more; where it costs nothing it is had back.
    wanted = [
        hour
        for hour in hours_between(first, end)
        if hour not in known.raw and not (hour in compacted and _is_bought(source, hour, newest))
    ]
    hours = [hour for hour in wanted if source.can_fetch(hour, newest)]
    bought = [hour for hour in hours if _is_bought(source, hour, newest)]
    raw = known.raw.keys() | set(hours)
    kept = {hour.date() for hour in compacted - raw}
    days = _days_to_compact(
        instance, store, known, hours, days_between(first.date(), min(newest.date() - DAY, end.date()))
    )
    days = [day for day in days if day not in kept]
    labels = _days_to_label(
        instance, store, days, days_between(first.date(), min(newest.date() - DAY, end.date()) - LABEL_FUTURE * DAY)
    )
    return Plan(
        hours=tuple(hours),
        bought=len(bought),
        credits=len(bought) * _cost_of_an_hour(store, known) if bought else 0,
        days=tuple(days),
        labels=tuple(labels),
        coverage=bool(hours or days or labels) or _coverage_outdated(instance, store),
        lost=tuple(stretches([hour for hour in hours_between(first, last) if hour not in there | set(hours)])),
        kept=tuple(sorted(kept)),
        compacted=frozenset(compacted),
    )


def _is_bought(source: SnapshotSource, hour: datetime, newest: datetime) -> bool:
    """Whether an hour costs credits beyond the listing that is fetched every hour anyway."""
    return source.kind == "real" and hour < newest


def _cost_of_an_hour(store: Store, known: KnownHours) -> int:
    """Credits of a bought hour: as many coins are asked for as the newest hour has."""
    if not known.raw:
        return 0
    return quotes_cost(len(read_raw([known.raw[max(known.raw)]])))


def _days_to_compact(
    instance: dg.DagsterInstance, store: Store, known: KnownHours, hours: Sequence[datetime], closed: Sequence[date]
) -> list[date]:
    """Those of the days that are over whose file is missing, torn or outdated, or will be once these hours are had."""
    if not closed:
        return []
    fetched = {hour.date() for hour in hours}
    with_raw = {hour.date() for hour in known.raw} | fetched
    not_in_file = {hour.date() for hour in known.raw.keys() - known.compacted}
    outdated = outdated_days(instance, store, closed).keys() | not_in_file
    return [day for day in closed if day in with_raw and (day in outdated or fetched & {*days_behind(day)})]


def _days_to_label(
    instance: dg.DagsterInstance, store: Store, compacting: Sequence[date], over: Sequence[date]
) -> list[date]:
    """Those of the days whose future is over that have no labels or indicators, or will have outdated ones."""
    if not over:
        return []
    changed = set(compacting)
    daily = {*store.days_of("daily_snapshots")} | changed
    made = {*store.days_of(LABELS[0])} & {*store.days_of(LABELS[1])}
    outdated = outdated_labels(instance, store, over).keys()
    found = []
    for day in over:
        future = day + LABEL_FUTURE * DAY
        inputs = {*days_of_look_back(day), *days_between(day, future)}
        if {day, future} <= daily and (day in outdated or day not in made or inputs & changed):
            found.append(day)
    return found


def _coverage_outdated(instance: dg.DagsterInstance, store: Store) -> bool:
    """Whether days were compacted since the coverage table was made; every new hour would be too little a reason."""
    if not objects.exists(coverage_path(store)):
        return True
    made, compacted = (
        instance.fetch_materializations(dg.AssetKey(name), limit=1).records for name in ("coverage", "daily_snapshots")
    )
    return not made or bool(compacted and compacted[0].storage_id > made[0].storage_id)


def _print_plan(console: Console, plan: Plan, source: SnapshotSource) -> None:
    if not plan.empty:
        console.print("[bold]What can be repaired[/]")
        table = Table()
        for heading in ("what", "how many", "from", "to", "credits (estimated)"):
            table.add_column(heading, justify="right" if heading in ("how many", "credits (estimated)") else "left")
        rows = ("hours", plan.hours), ("days to compact", plan.days), ("days to label", plan.labels)
        for what, moments in rows:
            if moments:
                price = f"{plan.credits} for {plan.bought} hours" if plan.bought and what == "hours" else ""
                table.add_row(what, str(len(moments)), _shown(moments[0]), _shown(moments[-1]), price)
        if plan.coverage:
            table.add_row("coverage table", "1", "", "", "")
        console.print(table)
    if plan.kept:
        console.print(
            f"{len(plan.kept)} days keep their file ({_shown(plan.kept[0])} to {_shown(plan.kept[-1])}): raw files of "
            "hours in them are gone and cannot be had, and compacted again they would lose these hours.",
            soft_wrap=True,
        )
    if plan.lost:
        _print_lost(console, plan.lost, source)


def _print_lost(console: Console, lost: Sequence[Gap], source: SnapshotSource) -> None:
    hours = sum(gap.hours for gap in lost)
    console.print(f"[bold]Gaps that cannot be repaired from here[/]: {hours} hours. The newest:", soft_wrap=True)
    table = Table()
    for heading in ("from", "to", "hours"):
        table.add_column(heading, justify="right" if heading == "hours" else "left")
    for gap in reversed(lost[-MOST_LISTED:]):
        table.add_row(_shown(gap.first), _shown(gap.last), str(gap.hours))
    console.print(table)
    console.print(f"To close them, {ELSE}: `python -m breakout_assets import FILE` takes a file.", soft_wrap=True)
    if isinstance(source, CoinMarketCapSource) and not source.history:
        days = HISTORY_REACH.days
        console.print(f"With BREAKOUT_CMC_HISTORY=true those of the last {days} days would be bought.", soft_wrap=True)


def _shown(moment: date) -> str:
    return f"{moment:%Y-%m-%d %H:00}" if isinstance(moment, datetime) else f"{moment:%Y-%m-%d}"


# Carrying it out ---------------------------------------------------------------------------------------------------


def _carry_out(console: Console, settings: Settings, store: Store, instance: dg.DagsterInstance, plan: Plan) -> int:
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[part]}"), TimeElapsedColumn()
    bar = Progress(*columns, console=console)
    counter = _Counter(bar)
    loggers = dg.Definitions(loggers={"repair": _progress_logger(counter)})
    definitions = dg.Definitions.merge(build_definitions(settings), loggers)
    job = definitions.resolve_implicit_global_asset_job_def()

    def make(part: Part) -> Outcome:
        return _make(job, instance, counter, part)

    with bar:
        outcomes = [make(Part("hours", ("hourly_snapshots",), _ranges(plan.hours, HOUR, MOST_HOURS, hour_key)))]
        # A fetch that failed must not cost an hour that a day's file still has.
        there = store.raw_between(min(plan.compacted), max(plan.compacted)) if plan.compacted else {}
        lossy = {hour.date() for hour in plan.compacted - there.keys()}
        days = [day for day in plan.days if day not in lossy]
        compacted = make(Part("days to compact", ("daily_snapshots",), _ranges(days, DAY, MOST_DAYS, date.isoformat)))
        outcomes.append(_with_left_out(compacted, len(plan.days) - len(days)))
        outcomes.append(make(Part("days to label", LABELS, _ranges(plan.labels, DAY, MOST_DAYS, date.isoformat))))
        outcomes.append(make(Part("coverage table", ("coverage",), ((),) if plan.coverage else ())))
    return _print_outcomes(console, [outcome for outcome in outcomes if outcome.part.total or outcome.reasons])


def _with_left_out(outcome: Outcome, left_out: int) -> Outcome:
    if not left_out:
        return outcome
    reason = f"{left_out} days were left as they are: they have hours whose raw files are gone and were not had back"
    return Outcome(outcome.part, outcome.made, (*outcome.reasons, reason))


def _ranges(
    moments: Sequence[_Moment], step: timedelta, most: int, key: Callable[[_Moment], str]
) -> tuple[tuple[str, ...], ...]:
    """The keys of these moments, which are in order, in ranges of consecutive ones that a run each makes."""
    ranges: list[list[_Moment]] = []
    for moment in moments:
        if ranges and moment - ranges[-1][-1] == step and len(ranges[-1]) < most:
            ranges[-1].append(moment)
        else:
            ranges.append([moment])
    return tuple(tuple(key(moment) for moment in each) for each in ranges)


def _make(job: dg.JobDefinition, instance: dg.DagsterInstance, counter: "_Counter", part: Part) -> Outcome:
    """Make the ranges of a part, one run each; the next one is made whatever became of the one before."""
    if not part.ranges:
        return Outcome(part, 0, ())
    made, reasons = 0, []
    counter.start(part.what, part.total * len(part.assets))
    for keys in part.ranges:
        done, why = _run(job, instance, part.assets, keys)
        # One refused day must not keep a month of others from being finished.
        ready = [key for key in keys if key in done[part.assets[0]] and key not in done[part.assets[-1]]]
        for rest in _consecutive(keys, ready):
            again, more = _run(job, instance, part.assets[1:], rest)
            done[part.assets[-1]] |= again[part.assets[-1]]
            why += more
        made += len(done[part.assets[-1]])
        reasons += why
        counter.advance(max(1, len(keys)) * len(part.assets))
    counter.finish(f"{made} of {part.total}")
    return Outcome(part, made, tuple(reasons))


def _consecutive(keys: Sequence[str], some: Sequence[str]) -> list[list[str]]:
    """Some of these keys, in ranges without a key between that is not among them."""
    found: list[list[str]] = []
    for before, key in zip(("", *keys), keys, strict=False):
        if key in some:
            if found and found[-1][-1] == before:
                found[-1].append(key)
            else:
                found.append([key])
    return found


def _run(
    job: dg.JobDefinition, instance: dg.DagsterInstance, assets: Sequence[str], keys: Sequence[str]
) -> tuple[dict[str, set[str | None]], list[str]]:
    """One run: which partitions of each asset were made, and why others were not."""
    result = job.execute_in_process(
        instance=instance,
        asset_selection=[dg.AssetKey(name) for name in assets],
        tags=range_tags(keys) if keys else {},
        run_config={"loggers": {"repair": {}}},
        raise_on_error=False,
    )
    made: dict[str, set[str | None]] = {name: set() for name in assets}
    # From the instance: the result of a failed step leaves out the partitions that it recorded before.
    for entry in instance.all_logs(result.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION):
        if entry.dagster_event and entry.dagster_event.asset_key:
            made[entry.dagster_event.asset_key.to_user_string()].add(entry.dagster_event.partition)
    reasons = []
    for event in result.all_events:
        if event.is_step_failure:
            said, error = event.step_failure_data.user_failure_data, event.step_failure_data.error
            text = said.description if said and said.description else error.message if error else event.message
            reasons.append(f"{event.step_key}: {text}".strip())
    if not result.success and not reasons:
        reasons.append(f"run {result.run_id} failed; its log says why")
    return made, reasons


def _print_outcomes(console: Console, outcomes: Sequence[Outcome]) -> int:
    failed = [outcome for outcome in outcomes if outcome.reasons or outcome.made < outcome.part.total]
    for outcome in outcomes:
        colour = "red" if outcome in failed else "green"
        console.print(f"[{colour}]{outcome.part.what}[/]: {outcome.made} of {outcome.part.total} repaired")
        for reason in outcome.reasons[:MOST_LISTED]:
            console.print(f"  not repaired: {escape(reason[:800])}", soft_wrap=True)
    return 1 if failed else 0


def _instance() -> dg.DagsterInstance:
    """The instance that `dagster dev` uses when it is started in this folder."""
    if os.environ.get("DAGSTER_HOME"):
        return dg.DagsterInstance.get()
    if not Path("dagster.yaml").is_file():
        raise SettingsError("DAGSTER_HOME is not set and this folder has no dagster.yaml; repair in the checkout.")
    return dg.DagsterInstance.from_config(str(Path.cwd()))


class _Counter(logging.Handler):
    """Moves a part's bar by the "n of m" lines that assets log."""

    def __init__(self, bar: Progress) -> None:
        super().__init__()
        self.bar = bar
        self.task: TaskID | None = None
        self.before = 0
        self.done: dict[str, int] = {}

    def start(self, what: str, total: int) -> None:
        self.task = self.bar.add_task(f"{what:<16}", total=total, part="")
        self.before, self.done = 0, {}

    def advance(self, by: int) -> None:
        """A range is over, whether its assets said so or not."""
        self.before, self.done = self.before + by, {}
        self._show("")

    def finish(self, text: str) -> None:
        self._show(text)
        if self.task is not None:
            self.bar.stop_task(self.task)

    def emit(self, record: logging.LogRecord) -> None:
        found = re.search(r"(\d+) of (\d+)", record.getMessage())
        if found:
            step = str(getattr(record, "dagster_meta", {}).get("step_key"))
            self.done[step] = int(found[1])
            self._show(f"{step} {found[0]}")

    def _show(self, text: str) -> None:
        if self.task is not None:
            self.bar.update(self.task, completed=self.before + sum(self.done.values()), part=text)


def _progress_logger(counter: _Counter) -> dg.LoggerDefinition:
    def make(_: dg.InitLoggerContext) -> logging.Logger:
        logger = logging.Logger("repair", level=logging.INFO)
        logger.addHandler(counter)
        return logger

    return dg.LoggerDefinition(make, description="shows progress in the terminal instead of log lines")
