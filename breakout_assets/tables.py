"""The storage contract: the columns and types of every derived table.

Users script against these names. A frame is brought into its contract before it is written, so that an empty or
all-null column has the same type in every file.
"""

from typing import Final, Literal, get_args

import pandas as pd

from breakout_assets.coded_text import spelled_out
from breakout_assets.dataset.indicators import INDICATOR_COLUMNS
from breakout_assets.dataset.stationary import STATIONARY_COLUMNS
from breakout_assets.errors import DataError

_TOKEN: Final = {"token": "str", "id": "Int64", "name": "str", "symbol": "str", "timestamp": "datetime64[us]"}
_MARKET: Final = {**_TOKEN, "price": "float64", "volume": "float64"}
_INDICATORS: Final = dict.fromkeys((*INDICATOR_COLUMNS, *STATIONARY_COLUMNS), "float64")

DAILY_SNAPSHOTS: Final[dict[str, str]] = {
    **_MARKET,
    "cmc_rank": "Int64",
    "num_market_pairs": "Int64",
    "volume_change_24h": "float64",
    "percent_change_1h": "float64",
    "percent_change_24h": "float64",
    "percent_change_7d": "float64",
    "percent_change_30d": "float64",
    "percent_change_60d": "float64",
    "percent_change_90d": "float64",
    "circulating_supply": "float64",
    "total_supply": "float64",
    "max_supply": "float64",
    "market_cap": "float64",
    "market_cap_dominance": "float64",
    "fully_diluted_market_cap": "float64",
    "date_added": "str",
    "last_updated": "str",
    "kind": "str",
    "origin": "str",
    "quarantine": "str",
}
LABELLED_DATASET: Final[dict[str, str]] = {
    **_MARKET,
    "cmc_rank": "Int64",
    "num_market_pairs": "Int64",
    "volume_change_24h": "float64",
    "percent_change_24h": "float64",
    "percent_change_7d": "float64",
    "y_percentage_change7d": "float64",
    "cal_price_change": "float64",
    "label_end": "datetime64[us]",
    "y": "Int8",
    "label_status": "str",
    "origin": "str",
}
INDICATOR_FEATURES: Final[dict[str, str]] = {**LABELLED_DATASET, **_INDICATORS}
LIVE_INDICATORS: Final[dict[str, str]] = {**DAILY_SNAPSHOTS, **_INDICATORS}
MARKET_HEALTH: Final[dict[str, str]] = {
    "timestamp": "datetime64[us]",
    "state": "str",
    "reasons": "str",
    "rows": "int64",
    "expected_rows": "float64",
    "quarantined_share": "float64",
    "stale_share": "float64",
    "shared_symbols": "int64",
    "look_back_hours": "int64",
}
PREDICTIONS: Final[dict[str, str]] = {
    **_MARKET,
    "probability": "float64",
    "threshold": "float64",
    "decision": "str",
    "model_hash": "str",
    "model_scope": "str",
    "reason": "str",
    "score": "float64",  # the classifier's own, before calibration
    "recipe_id": "str",
    "fallback": "str",  # why the token's own model did not speak
    "pack_hash": "str",  # BLAKE3 of the file of packed models that was asked
}
# One row: a labelled row of a test block, predicted by a model that had not seen it. Twin 0 is the market itself.
OUT_OF_SAMPLE: Final[dict[str, str]] = {
    "twin": "int32",
    "fold": "int32",
    "recipe_id": "str",
    "token": "str",
    "timestamp": "datetime64[us]",
    "label_end": "datetime64[us]",
    "y": "int8",
    "change": "float64",
    "price": "float64",
    "volume": "float64",
    "momentum": "float64",
    "raw": "float64",
    "probability": "float64",
    "threshold": "float64",
    "scope": "str",
    "logistic": "float64",
}

TRADE_ORDERS: Final[dict[str, str]] = {
    "order_id": "str",
    "token": "str",
    "side": "str",
    "quantity": "str",  # exact decimals, as text
    "price": "str",
    "status": "str",
    "reason": "str",
    "decided_hour": "datetime64[us]",
    "filled_hour": "datetime64[us]",
    "fee": "str",
    "timestamp": "datetime64[us]",
    "model_hash": "str",
    "probability": "float64",
}
# What became of an order, in rows and mails: `submitted` waits, `partial` was executed in part and waits for the rest,
# of `unknown` the venue has not said whether it has it.
OutcomeStatus = Literal["submitted", "partial", "filled", "cancelled", "rejected", "unknown"]
# A signal that was not followed, and an hour that was not traded, are rows too.
ROW_STATUSES: Final = (*get_args(OutcomeStatus), "refused")
TABLES: Final[dict[str, dict[str, str]]] = {
    "daily_snapshots": DAILY_SNAPSHOTS,
    "labelled_dataset": LABELLED_DATASET,
    "indicator_features": INDICATOR_FEATURES,
    "live_indicators": LIVE_INDICATORS,
    "market_health": MARKET_HEALTH,
    "predictions": PREDICTIONS,
    "out_of_sample": OUT_OF_SAMPLE,
    "trade_orders": TRADE_ORDERS,
}

# Columns that files of earlier versions lack; they are read as null, so that old orders can still be explained.
ADDED: Final[dict[str, frozenset[str]]] = {"predictions": frozenset({"pack_hash"})}


def conform(frame: pd.DataFrame, table: str) -> pd.DataFrame:
    """The frame with exactly the table's columns, in order and typed.

    Raises:
        DataError: a column is missing or its values do not fit the type; the message names it.
    """
    columns = TABLES[table]
    missing = [name for name in columns if name not in frame]
    if missing:
        raise DataError(f"{table} lacks the columns {', '.join(missing)}")
    try:
        frame = frame if list(frame) == list(columns) else frame[list(columns)]
        types = dict(frame.dtypes)
        others = {name: kind for name, kind in columns.items() if types[name] != kind}
        # Even without others it would take a frame apart and put it together again.
        found = spelled_out(frame).astype(others) if others else frame.copy(deep=False)
        found.index = pd.RangeIndex(len(found))  # `reset_index` would copy the values
        return found
    except (TypeError, ValueError) as error:
        raise DataError(f"{table} has values of another type than its contract says: {error}") from error
