"""The coverage asset: which hours are there, how much of each can be used, and what can be done about the rest."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any, Final

import dagster as dg
import pandas as pd

from breakout_assets.clock import Clock
from breakout_assets.defs.market import GROUP, OWNERS, daily_snapshots, hourly_snapshots
from breakout_assets.defs.partitions import EVERYTHING, HOURS, ONE_RUN, days_between, hour_of
from breakout_assets.defs.reporting import MOST_LISTED, Findings, checks_of, picture
from breakout_assets.errors import DataError
from breakout_assets.market.collect import SnapshotSource
from breakout_assets.market.coverage import (
    COLLECTED,
    MISSING,
    Gap,
    coverage_picture,
    coverage_table,
    first_hour,
    gaps,
    newest_known,
)
from breakout_assets.market.health import due_hour
from breakout_assets.market.schema import hours_between
from breakout_assets.settings import Settings
from breakout_assets.store import Store

COVERAGE_CHECKS: Final[dict[str, str]] = {
    "no_new_gaps": "no hour of the last 7 days is missing",
    "usable": "at least 90 % of the expected coins are usable, on average over the hours of the last 7 days that are "
    "there",
}
NEW: Final = timedelta(days=7)
USABLE_SHARE: Final = 0.9
REPAIR: Final = "`python -m breakout_assets repair`"
ELSE: Final = "import a file or candles"


@dg.asset(
    backfill_policy=ONE_RUN,
    group_name=GROUP,
    owners=OWNERS,
    kinds={"duckdb", "parquet"},
    deps=[
        dg.AssetDep(hourly_snapshots, partition_mapping=EVERYTHING),
        dg.AssetDep(daily_snapshots, partition_mapping=EVERYTHING),
    ],
    check_specs=checks_of("coverage", COVERAGE_CHECKS),
)
def coverage(
    context: dg.AssetExecutionContext,
    store: dg.ResourceParam[Store],
    settings: dg.ResourceParam[Settings],
    source: dg.ResourceParam[SnapshotSource],
    clock: dg.ResourceParam[Clock],
) -> dg.MaterializeResult:
    """Which hours are there, and how much of each can be used, from the first hour in the store to the newest.

    One row is one hour: collected, missing or unreadable, its coins against those that the day before usually had, how
    many of them have no fault, where they come from, and whether the hour is in its day's file. Kept at
    `coverage/coverage.parquet`. The gaps say whether `python -m breakout_assets repair` can close them.
    """
    from breakout_assets.defs.automation import outdated_days  # which schedules this asset
    from breakout_assets.market.coverage import write_coverage

    try:
        first, last = span(store, settings, clock)
        table = coverage_table(store, first, last)
    except DataError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    path = write_coverage(store, table)
    closed = days_between(first.date(), last.date() - timedelta(days=1))
    outdated = sorted(outdated_days(context.instance, store, closed)) if closed else []
    metadata = {
        **_figures(table),
        "gaps": dg.MetadataValue.md(_gap_lines(gaps(table), source, newest_hour_begun())),
        "months": dg.MetadataValue.md(_month_lines(table)),
        "outdated_days": len(outdated),
        "outdated": _named(outdated),
        "path": dg.MetadataValue.path(str(path)),
        "picture": picture(coverage_picture(table), "usable share of the expected coins, hour by hour"),
    }
    return dg.MaterializeResult(metadata=metadata, check_results=_results(table))


def newest_hour_begun() -> datetime:
    """The hour that has just begun.

    Raises:
        DataError: no hour of the partitions has begun.
    """
    key = HOURS.get_last_partition_key()
    if key is None:
        raise DataError("BREAKOUT_START lies in the future; no hour has begun yet")
    return hour_of(key)


def span(store: Store, settings: Settings, clock: Clock) -> tuple[datetime, datetime]:
    """The first hour that the store knows of, and the newest one that is there or due.

    An invented market has every hour until now and lacks none: of it, the newest hour that the store has is the last.

    Raises:
        DataError: the store has no hour.
    """
    newest = newest_hour_begun()
    # In its first minutes an hour is not missing yet.
    last = newest if store.raw_file(newest) else min(newest, due_hour(clock.now(newest)))
    first = first_hour(store, datetime.combine(settings.start, datetime.min.time()), last)
    if first is None:
        raise DataError(f"no snapshot since {settings.start} is in {store.root}; import or collect hours first")
    return first, newest_known(store, first, last) if settings.source == "simulated" else last


def check_coverage(table: pd.DataFrame) -> Findings:
    """What is wrong in the last days of a coverage table: check name -> what."""
    new = table[table["timestamp"] > table["timestamp"].max() - NEW]
    found = {}
    missing = new.loc[new["state"] == MISSING, "timestamp"]
    if len(missing):
        found["no_new_gaps"] = f"{len(missing)} hours are missing, the newest is {missing.max():%Y-%m-%d %H:00}"
    usable = new.loc[new["state"] != MISSING, "usable_share"].mean()
    if usable < USABLE_SHARE:
        found["usable"] = f"{usable:.1%} of the expected coins are usable"
    return found


def _results(table: pd.DataFrame) -> list[dg.AssetCheckResult]:
    found = check_coverage(table)
    return [
        dg.AssetCheckResult(
            check_name=name,
            asset_key="coverage",
            passed=name not in found,
            severity=dg.AssetCheckSeverity.WARN,  # a gap is to be repaired; every hour is judged by market_health
            description=found.get(name),
        )
        for name in COVERAGE_CHECKS
    ]


def _figures(table: pd.DataFrame) -> dict[str, Any]:
    known = table.loc[table["state"] != MISSING, "usable_share"].dropna()
    return {
        "hours": len(table),
        "hours_missing": int((table["state"] == MISSING).sum()),
        "hours_not_compacted": int(((table["state"] == COLLECTED) & ~table["compacted"]).sum()),
        "share_collected": round(float((table["state"] == COLLECTED).mean()), 4),
        "mean_usable_share": round(float(known.mean()), 4) if len(known) else 0.0,
    }


def _gap_lines(found: Sequence[Gap], source: SnapshotSource, newest: datetime) -> str:
    """The longest gaps as a Markdown table."""
    if not found:
        return "*no hour is missing*"
    lines = ["from|to|hours|can be had|how", "---|---|--:|---|---"]
    for gap in sorted(found, key=lambda gap: (-gap.hours, gap.first))[:MOST_LISTED]:
        had = sum(source.can_fetch(hour, newest) for hour in hours_between(gap.first, gap.last))
        answer = "yes" if had == gap.hours else f"{had} of {gap.hours} hours" if had else "no"
        how = REPAIR if had == gap.hours else f"{REPAIR}, for the rest {ELSE}" if had else ELSE
        lines.append(f"{gap.first:%Y-%m-%d %H:00}|{gap.last:%Y-%m-%d %H:00}|{gap.hours}|{answer}|{how}")
    left = len(found) - MOST_LISTED
    return "\n".join(lines) + (f"\n\nand {left} shorter ones" if left > 0 else "")


def _month_lines(table: pd.DataFrame) -> str:
    """Hours and shares of each month as a Markdown table, newest first."""
    lines = ["month|hours|missing|collected|usable of what is there", "---|--:|--:|--:|--:"]
    for month, rows in reversed(list(table.groupby(table["timestamp"].dt.strftime("%Y-%m")))):
        part = _figures(rows)
        usable = rows.loc[rows["state"] != MISSING, "usable_share"].mean()
        shown = "" if pd.isna(usable) else f"{usable:.1%}"
        lines.append(f"{month}|{len(rows)}|{part['hours_missing']}|{part['share_collected']:.1%}|{shown}")
    return "\n".join(lines)


def _named(days: Sequence[date]) -> str:
    text = ", ".join(day.isoformat() for day in days[:MOST_LISTED])
    return text + (f" and {len(days) - MOST_LISTED} more" if len(days) > MOST_LISTED else "") or "none"
