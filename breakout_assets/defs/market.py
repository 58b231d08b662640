"""Market assets: raw hours, the verdict on each hour, compacted days."""

from typing import Final

import dagster as dg

from breakout_assets.clock import Clock
from breakout_assets.defs.partitions import DAYS, HOURS, LOOK_BACK_HOURS, ONE_RUN, day_of, hour_of
from breakout_assets.defs.reporting import (
    WHEN_PASSING,
    Made,
    Metadata,
    checks_of,
    each_partition,
    log_progress,
    preview,
    refusing,
)
from breakout_assets.errors import TemporaryError
from breakout_assets.market.collect import CollectedHour, SnapshotSource, collect, usual_rows
from breakout_assets.settings import Settings
from breakout_assets.store import Store
from breakout_assets.validation import CHECKS, check_day, check_health, check_newest_hour, check_snapshot

GROUP = "market"
OWNERS = ["team:market-data"]
# Metadata by which schedules and the arrival sensor see that a raw file has changed since it was read.
VERSION: Final = "version"
SOURCES: Final = "sources"


@dg.asset(
    partitions_def=HOURS,
    backfill_policy=ONE_RUN,
    group_name=GROUP,
    owners=OWNERS,
    kinds={"csv"},
    check_specs=checks_of("hourly_snapshots", CHECKS["hourly_snapshots"]),
    retry_policy=WHEN_PASSING,
)
def hourly_snapshots(
    context: dg.AssetExecutionContext,
    store: dg.ResourceParam[Store],
    source: dg.ResourceParam[SnapshotSource],
    settings: dg.ResourceParam[Settings],
) -> dg.MaterializeResult:
    """The listing as it came at that hour.

    One row is one coin: the 22 columns of the source and `id`. Kept at `cmc/latest/YYYY/MM/DD/HH/cmcdata.csv` and
    written once: a file that lies there, from an import or another collector, is believed and never overwritten. An
    hour that is over cannot be fetched from a live listing.
    """
    from breakout_assets.market.health import expected_rows

    hours = [hour_of(key) for key in context.partition_keys]
    outcomes = {}
    with refusing():  # of the store, not of one hour
        for hour, outcome in collect(store, source, hours, settings.raw_format):
            outcomes[hour] = outcome
            log_progress(context, len(outcomes), len(hours))
    passing = [outcome for outcome in outcomes.values() if isinstance(outcome, TemporaryError)]
    if passing:
        raise passing[0]  # the retry finds the other hours in the store
    usual = usual_rows(outcomes.values()) if len(hours) > 1 else expected_rows(store, hours[0])

    def make(key: str) -> Made:
        outcome = outcomes[hour_of(key)]
        if not isinstance(outcome, CollectedHour):
            raise outcome
        return _hour_metadata(outcome, source), check_snapshot(outcome.market, usual)

    return each_partition(context, make)


def _hour_metadata(collected: CollectedHour, source: SnapshotSource) -> Metadata:
    from breakout_assets.market.candle_history import provenance
    from breakout_assets.market.snapshots import origin_class

    market = collected.market
    made_here = collected.file.path.suffix == ".parquet" and not collected.fetched
    return {
        "source": source.description if collected.fetched else "found in the store",
        "rows": len(market),
        "quarantined": int(market["quarantine"].notna().sum()),
        "path": dg.MetadataValue.path(str(collected.file.path)),
        VERSION: collected.file.version,
        "sha256": collected.sha256,
        "origins": {str(name): int(n) for name, n in origin_class(market["origin"]).value_counts().items()},
        # Of hours made from candles: which columns are real, derived or absent.
        **({f"made/{k}": v for k, v in provenance(collected.file.path).items()} if made_here else {}),
        "preview": preview(market, ["token", "name", "price", "volume", "cmc_rank", "percent_change_7d"]),
        **{f"fetch/{name}": value for name, value in collected.details.items()},
    }


@dg.asset_check(asset=hourly_snapshots, description="the hour that has just begun is in the store")
def newest_hour_present(store: dg.ResourceParam[Store], clock: dg.ResourceParam[Clock]) -> dg.AssetCheckResult:
    """A standing check: it asks the store and the clock, whatever was materialised last."""
    from breakout_assets.market.history import newest_hour

    now = clock.now(hour_of(HOURS.get_last_partition_key() or ""))
    found = check_newest_hour(newest_hour(store, now), now)
    return dg.AssetCheckResult(passed=not found, description="; ".join(found.values()) or None)


@dg.asset(
    partitions_def=HOURS,
    backfill_policy=ONE_RUN,
    group_name=GROUP,
    owners=OWNERS,
    kinds={"pandas", "parquet"},
    deps=[dg.AssetDep(hourly_snapshots, partition_mapping=LOOK_BACK_HOURS)],
    check_specs=checks_of("market_health", CHECKS["market_health"]),
    retry_policy=WHEN_PASSING,
)
def market_health(context: dg.AssetExecutionContext, store: dg.ResourceParam[Store]) -> dg.MaterializeResult:
    """Whether the hour may be traded on.

    One row is one hour: ACTIVE, REDUCE_ONLY (nothing is opened) or HALTED (no price is believed), with the reasons
    and the figures behind them: coins listed against the day before, shares of faulty rows and of prices that stand
    still, hours of the look-back that have a snapshot. After a fault or a missing hour nothing is opened until three
    hours in a row were sound.
    """
    from breakout_assets.market.health import assess_hour

    def make(key: str) -> Made:
        hour = hour_of(key)
        health = assess_hour(store, hour)
        frame = health.frame(hour)
        store.write_table("market_health", hour, frame)
        return {**vars(health), "state": str(health.state), "reasons": list(health.reasons)}, check_health(frame)

    return each_partition(context, make)


@dg.asset(
    partitions_def=DAYS,
    backfill_policy=ONE_RUN,
    group_name=GROUP,
    owners=OWNERS,
    kinds={"pandas", "parquet"},
    deps=[hourly_snapshots],
    check_specs=checks_of("daily_snapshots", CHECKS["daily_snapshots"]),
    retry_policy=WHEN_PASSING,
)
def daily_snapshots(context: dg.AssetExecutionContext, store: dg.ResourceParam[Store]) -> dg.MaterializeResult:
    """All hours of a day in one file, typed and keyed by token.

    One row is one coin at one hour. `quarantine` says why a row must not be used (null: it may be); such rows stay
    beside the others. Sorted by token and time.
    """
    from breakout_assets.market.history import compact_day
    from breakout_assets.market.tokens import load_registry

    with refusing():
        registry = load_registry(store)

    def make(key: str) -> Made:
        day = compact_day(store, registry, day_of(key))
        path = store.write_table("daily_snapshots", day_of(key), day.rows, day.made_from)
        metadata = {
            "rows": len(day.rows),
            "tokens": int(day.rows["token"].nunique()),
            "hours": len(day.hours),
            "quarantined": int(day.rows["quarantine"].notna().sum()),
            SOURCES: day.sources,
            "path": dg.MetadataValue.path(str(path)),
            "preview": preview(day.rows, ["token", "timestamp", "price", "volume", "cmc_rank", "quarantine"]),
        }
        return metadata, check_day(day.rows, day.hours)

    return each_partition(context, make)
