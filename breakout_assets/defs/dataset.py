"""Dataset assets: what models learn from, and the same for the hour that is traded on."""

from collections.abc import Iterator, Sequence
from typing import Final

import dagster as dg
import pandas as pd
from upath import UPath

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
from breakout_assets.defs.reporting import (
    WHEN_PASSING,
    Made,
    Metadata,
    checks_of,
    each_chunk,
    each_partition,
    preview,
    refusing,
)
from breakout_assets.learning.recipes import recipe
from breakout_assets.settings import Settings
from breakout_assets.store import Store
from breakout_assets.validation import CHECKS, check_indicators, check_labels

GROUP = "dataset"
OWNERS = ["team:research"]
# Days of a range that are read and computed together: their look-back is read once for all of them.
DAYS_AT_ONCE: Final = 15


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
    import duckdb

    from breakout_assets.dataset.labels import HORIZON, MARKET_COLUMNS, SEGMENT_COLUMNS, label_days
    from breakout_assets.market.history import read_days

    def make(keys: Sequence[str]) -> Iterator[tuple[str, Made]]:
        days = [day_of(key) for key in keys]
        between = read_days(store, days_between(days[0], days[-1] + HORIZON), SEGMENT_COLUMNS)
        market = read_days(store, sorted({*days, *(day + HORIZON for day in days)}), MARKET_COLUMNS)
        for day, rows in label_days(market, between, days, connection):
            path = store.write_table("labelled_dataset", day, rows)
            yield day.isoformat(), (_labels_metadata(rows, path), check_labels(rows))

    with duckdb.connect() as connection:
        return each_chunk(context, make, DAYS_AT_ONCE)


def _labels_metadata(rows: pd.DataFrame, path: UPath) -> Metadata:
    labelled = rows[rows["label_status"] == "labelled"]
    return {
        "rows": len(rows),
        "tokens": int(rows["token"].nunique()),
        "base_rate": round(float(labelled["y"].mean()), 4) if len(labelled) else 0.0,
        **_bounds(int(labelled["y"].sum()), len(labelled), len(rows)),
        "path": dg.MetadataValue.path(str(path)),
        "preview": preview(rows, ["token", "timestamp", "price", "cal_price_change", "y", "label_status"]),
    }


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
    from breakout_assets.dataset.compiling import load_compiled
    from breakout_assets.dataset.features import HISTORY_COLUMNS, days_of_look_back, with_indicators
    from breakout_assets.learning.training_set import tokens_with_history
    from breakout_assets.market.history import by_day, day_bounds, read_days

    def make(keys: Sequence[str]) -> Iterator[tuple[str, Made]]:
        days = [day_of(key) for key in keys]
        labelled = store.read_table("labelled_dataset", days)
        load_compiled(len(labelled) * len(context.partition_keys) // len(keys))  # one chunk alone may not repay it
        market = read_days(store, [*days_of_look_back(days[0]), *days[1:]], HISTORY_COLUMNS)
        features = with_indicators(labelled, market, day_bounds(days[0])[0], day_bounds(days[-1])[1])
        expected = labelled["timestamp"].dt.date.value_counts()
        for day, rows in by_day(features, days):
            path = store.write_table("indicator_features", day, rows)
            yield day.isoformat(), (_features_metadata(rows, path), check_indicators(rows, int(expected.get(day, 0))))

    result = each_chunk(context, make, DAYS_AT_ONCE)
    with refusing():
        tokens = tokens_with_history(store, recipe(settings.recipe).min_rows)
    context.instance.add_dynamic_partitions(TOKENS_NAME, [POOLED, *tokens])
    return result


def _features_metadata(rows: pd.DataFrame, path: UPath) -> Metadata:
    return {
        "rows": len(rows),
        "tokens": int(rows["token"].nunique()),
        "complete_rows": int(rows[["MACD_signal", "VWRSI"]].notna().all(axis=1).sum()),
        "path": dg.MetadataValue.path(str(path)),
        "preview": preview(rows, ["token", "timestamp", "price", "RSI", "MACD", "sma_20", "OBV", "y"]),
    }


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
        newest, market = read_newest(store, (hour - LOOKBACK + HOUR).date(), hour, HISTORY_COLUMNS)
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
