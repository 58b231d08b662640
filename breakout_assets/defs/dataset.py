"""Dataset assets: what models learn from, and the same for the hour that is traded on."""

import dagster as dg

from breakout_assets.defs.market import daily_snapshots, hourly_snapshots
from breakout_assets.defs.partitions import (
    FUTURE_DAYS,
    HOURS,
    LABEL_DAYS,
    LOOK_BACK_DAYS,
    LOOK_BACK_HOURS,
    ONE_RUN,
    POOLED,
    TOKENS_NAME,
    day_of,
    days_between,
    hour_of,
)
from breakout_assets.defs.reporting import WHEN_PASSING, Made, checks_of, each_partition, preview, refusing
from breakout_assets.learning.recipes import recipe
from breakout_assets.settings import Settings
from breakout_assets.store import Store
from breakout_assets.validation import CHECKS, check_indicators, check_labels

GROUP = "dataset"
OWNERS = ["team:research"]


@dg.asset(
    partitions_def=LABEL_DAYS,
    backfill_policy=ONE_RUN,
    group_name=GROUP,
    owners=OWNERS,
    kinds={"duckdb", "sql"},
    deps=[dg.AssetDep(daily_snapshots, partition_mapping=FUTURE_DAYS)],
    check_specs=checks_of("labelled_dataset", CHECKS["labelled_dataset"]),
    retry_policy=WHEN_PASSING,
)
def labelled_dataset(context: dg.AssetExecutionContext, store: dg.ResourceParam[Store]) -> dg.MaterializeResult:
    """What each coin's price did in the five days after each hour of a day.

    One row is one coin at one hour that passes the published filters. `cal_price_change` compares its price with its
    own price exactly 120 hours later, in percent; `y` is 1 where that is above 10. Rows without that later price stay,
    as `censored`. A day exists here once its five-day future is over.
    """
    from breakout_assets.dataset.labels import HORIZON, SEGMENT_COLUMNS, label_rows
    from breakout_assets.market.history import day_bounds, read_days

    def make(key: str) -> Made:
        day = day_of(key)
        between = read_days(store, days_between(day, day + HORIZON), SEGMENT_COLUMNS)
        rows = label_rows(read_days(store, [day, day + HORIZON]), between, *day_bounds(day))
        path = store.write_table("labelled_dataset", day, rows)
        labelled = rows[rows["label_status"] == "labelled"]
        metadata = {
            "rows": len(rows),
            "tokens": int(rows["token"].nunique()),
            "base_rate": round(float(labelled["y"].mean()), 4) if len(labelled) else 0.0,
            **_bounds(int(labelled["y"].sum()), len(labelled), len(rows)),
            "path": dg.MetadataValue.path(str(path)),
            "preview": preview(rows, ["token", "timestamp", "price", "cal_price_change", "y", "label_status"]),
        }
        return metadata, check_labels(rows)

    return each_partition(context, make)


def _bounds(rises: int, labelled: int, rows: int) -> dict[str, int | float]:
    """What the base rate would be if none, or all, of the rows without a later price had risen."""
    censored = rows - labelled
    low, high = (rises / rows, (rises + censored) / rows) if rows else (0.0, 0.0)
    return {"censored": censored, "base_rate_at_least": round(low, 4), "base_rate_at_most": round(high, 4)}


@dg.asset(
    partitions_def=LABEL_DAYS,
    backfill_policy=ONE_RUN,
    group_name=GROUP,
    owners=OWNERS,
    kinds={"pandas", "parquet"},
    deps=[labelled_dataset, dg.AssetDep(daily_snapshots, partition_mapping=LOOK_BACK_DAYS)],
    check_specs=checks_of("indicator_features", CHECKS["indicator_features"]),
    retry_policy=WHEN_PASSING,
)
def indicator_features(
    context: dg.AssetExecutionContext, store: dg.ResourceParam[Store], settings: dg.ResourceParam[Settings]
) -> dg.MaterializeResult:
    """The labelled rows with the published indicators and their scale-free forms.

    One row is one coin at one hour. Each indicator is computed from that coin's rows in the 720 hours that end at the
    row; cumulative ones begin anew in each such window. Null where the coin has too few rows for a warm-up. Tokens
    with a month of labelled hours become partitions of `token_model`.
    """
    from breakout_assets.dataset.features import HISTORY_COLUMNS, days_of_look_back, with_indicators
    from breakout_assets.learning.training_set import tokens_with_history
    from breakout_assets.market.history import day_bounds, read_days

    rows_needed = recipe(settings.recipe).min_rows

    def make(key: str) -> Made:
        day = day_of(key)
        labelled = store.read_table("labelled_dataset", [day])
        market = read_days(store, days_of_look_back(day), HISTORY_COLUMNS)
        rows = with_indicators(labelled, market, *day_bounds(day))
        path = store.write_table("indicator_features", day, rows)
        metadata = {
            "rows": len(rows),
            "tokens": int(rows["token"].nunique()),
            "complete_rows": len(rows.dropna(subset=["MACD_signal", "VWRSI"])),
            "path": dg.MetadataValue.path(str(path)),
            "preview": preview(rows, ["token", "timestamp", "price", "RSI", "MACD", "sma_20", "OBV", "y"]),
        }
        return metadata, check_indicators(rows, len(labelled))

    result = each_partition(context, make)
    with refusing():
        tokens = tokens_with_history(store, rows_needed)
    context.instance.add_dynamic_partitions(TOKENS_NAME, [POOLED, *tokens])
    return result


@dg.asset(
    partitions_def=HOURS,
    backfill_policy=ONE_RUN,
    group_name=GROUP,
    owners=OWNERS,
    kinds={"pandas", "parquet"},
    deps=[dg.AssetDep(hourly_snapshots, partition_mapping=LOOK_BACK_HOURS)],
    check_specs=checks_of("live_indicators", CHECKS["live_indicators"]),
    retry_policy=WHEN_PASSING,
)
def live_indicators(context: dg.AssetExecutionContext, store: dg.ResourceParam[Store]) -> dg.MaterializeResult:
    """The coins of one hour with the indicators that models were trained on, from the same function.

    One row is one coin at that hour, quarantined ones included, whose indicators are null. Reads the 720 hours that
    end at the hour: compacted days and the newest raw hours.
    """
    from breakout_assets.dataset.features import HISTORY_COLUMNS, with_indicators
    from breakout_assets.dataset.indicators import LOOKBACK
    from breakout_assets.market.history import hour_of_rows, read_newest
    from breakout_assets.market.schema import HOUR

    def make(key: str) -> Made:
        hour = hour_of(key)
        newest, market = read_newest(store, hour - LOOKBACK + HOUR, hour, HISTORY_COLUMNS)
        coins = hour_of_rows(newest, hour)
        rows = with_indicators(coins, market, hour, hour)
        store.write_table("live_indicators", hour, rows)
        metadata = {
            "rows": len(rows),
            "quarantined": int(rows["quarantine"].notna().sum()),
            "warmed_up": int(rows["MACD_signal"].notna().sum()),
            "preview": preview(rows, ["token", "price", "RSI", "MACD", "sma_20", "OBV", "quarantine"]),
        }
        return metadata, check_indicators(rows, len(coins))

    return each_partition(context, make)
