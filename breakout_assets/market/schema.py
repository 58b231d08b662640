"""What a snapshot is: its columns, their types, and the words used for hours.

Nothing here reads or writes; `market.files` does.
"""

from datetime import datetime, timedelta
from typing import Final

import pandas as pd

HOUR: Final = timedelta(hours=1)

# The 22 columns of the older collector's file, in its order, with the type each is read as. Supplies and
# volumes are integers for some coins and floats for others in one and the same response, and whole numbers may
# be written as `50.0`: everything numeric is therefore read as a double and narrowed afterwards.
SNAPSHOT_COLUMNS: Final[dict[str, str]] = {
    "name": "VARCHAR",
    "symbol": "VARCHAR",
    "circulating_supply": "DOUBLE",
    "total_supply": "DOUBLE",
    "max_supply": "DOUBLE",
    "date_added": "VARCHAR",
    "num_market_pairs": "DOUBLE",
    "cmc_rank": "DOUBLE",
    "price": "DOUBLE",
    "volume_24h": "DOUBLE",
    "volume_change_24h": "DOUBLE",
    "percent_change_1h": "DOUBLE",
    "percent_change_24h": "DOUBLE",
    "percent_change_7d": "DOUBLE",
    "percent_change_30d": "DOUBLE",
    "percent_change_60d": "DOUBLE",
    "percent_change_90d": "DOUBLE",
    "market_cap": "DOUBLE",
    "market_cap_dominance": "DOUBLE",
    "fully_diluted_market_cap": "DOUBLE",
    "last_updated": "VARCHAR",
    "timestamp": "TIMESTAMP",
}
# CoinMarketCap's numeric coin id. The older collector did not write it; this platform appends it as column 23.
ID_COLUMN: Final = "id"
# What the listing's tags say the coin is (`KINDS`), and where its row comes from (`ORIGIN_*`); null in files of the
# older collector, which knew neither.
KIND_COLUMN: Final = "kind"
ORIGIN_COLUMN: Final = "origin"
RAW_TYPES: Final[dict[str, str]] = {
    **SNAPSHOT_COLUMNS,
    ID_COLUMN: "DOUBLE",
    KIND_COLUMN: "VARCHAR",
    ORIGIN_COLUMN: "VARCHAR",
}
RAW_COLUMNS: Final[tuple[str, ...]] = tuple(RAW_TYPES)
TEXT_COLUMNS: Final = tuple(name for name, kind in RAW_TYPES.items() if kind == "VARCHAR")
INTEGER_COLUMNS: Final = ("num_market_pairs", "cmc_rank", ID_COLUMN)
FLOAT_COLUMNS: Final = tuple(
    name for name, kind in RAW_TYPES.items() if kind == "DOUBLE" and name not in INTEGER_COLUMNS
)
# Percent changes of the price by the hours that they look back.
CHANGES: Final = {
    "percent_change_1h": 1,
    "percent_change_24h": 24,
    "percent_change_7d": 7 * 24,
    "percent_change_30d": 30 * 24,
    "percent_change_60d": 60 * 24,
    "percent_change_90d": 90 * 24,
}
KINDS: Final = ("coin", "stablecoin", "wrapped")
# `cmc` is the listing of that very hour, `cmc:followed` the quote of a coin that has dropped out of it, `cmc:history`
# bought afterwards, `candles:<venue>` made from an exchange's candles.
ORIGIN_LISTING: Final = "cmc"
ORIGIN_FOLLOWED: Final = "cmc:followed"
ORIGIN_HISTORY: Final = "cmc:history"
ORIGIN_CANDLES: Final = "candles:"  # and the name of the exchange
ORIGIN_SIMULATED: Final = "simulated"


_DTYPES: Final = {
    **dict.fromkeys(TEXT_COLUMNS, "str"),
    **dict.fromkeys(FLOAT_COLUMNS, "float64"),
    **dict.fromkeys(INTEGER_COLUMNS, "Int64"),
    "timestamp": "datetime64[us]",
}


def is_whole_hour(moment: datetime) -> bool:
    """Whether a time lies exactly on the hour."""
    return (moment.minute, moment.second, moment.microsecond) == (0, 0, 0)


def hours_between(first: datetime, last: datetime) -> list[datetime]:
    """Every whole hour from `first` to `last`, both included, oldest first."""
    return [first + n * HOUR for n in range(int((last - first) / HOUR) + 1)]


def raw_frame(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with exactly the raw columns, in order and typed; columns that are absent become null.

    Text is `str`, the integer columns are nullable `Int64`, `timestamp` is naive UTC in microseconds, all else is
    `float64`.
    """
    if list(rows.columns) == list(RAW_COLUMNS) and all(rows[name].dtype == kind for name, kind in _DTYPES.items()):
        return rows.reset_index(drop=True)
    frame = pd.DataFrame(index=rows.index)
    for column in RAW_COLUMNS:
        values = rows[column] if column in rows else pd.Series(pd.NA, index=rows.index, dtype="object")
        if column == "timestamp":
            frame[column] = pd.to_datetime(values).astype("datetime64[us]")
        elif column in TEXT_COLUMNS:
            frame[column] = values.astype("str")
        elif column in INTEGER_COLUMNS:
            frame[column] = pd.to_numeric(values).astype("Float64").round().astype("Int64")
        else:
            frame[column] = pd.to_numeric(values).astype("float64")
    return frame.reset_index(drop=True)
