"""Hourly exchange candles as the rows of snapshots.

A candle knows price and volume of one exchange and nothing else of a coin: what it cannot give stays null.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from breakout_assets.errors import DataError
from breakout_assets.market.schema import CHANGES, HOUR, ORIGIN_CANDLES, RAW_COLUMNS, raw_frame

# Where a column of a snapshot made from candles comes from: the map of pairs and the clock, the candle itself,
# arithmetic on candles of this one exchange, or nowhere.
IDENTITY_COLUMNS: Final = ("id", "name", "symbol", "timestamp", "origin")
REAL_COLUMNS: Final = ("price",)
DERIVED_COLUMNS: Final = ("volume_24h", "volume_change_24h", *CHANGES)
ABSENT_COLUMNS: Final = tuple(
    name for name in RAW_COLUMNS if name not in (*IDENTITY_COLUMNS, *REAL_COLUMNS, *DERIVED_COLUMNS)
)
# How far back a row looks: its longest percent change.
PAST: Final = max(CHANGES.values()) * HOUR

CANDLE_TYPES: Final[dict[str, str]] = {
    "pair": "str",
    "open_time": "datetime64[us]",
    "close": "float64",
    "volume": "float64",
    "quote_volume": "float64",
}
# Of large coins at the same hour, the listing's price and one exchange's differ by .2 % in the median and never seen
# by more than 2.5: a median beyond it is another coin of the same ticker, or other units.
AGREEMENT_LIMIT: Final = 2.5

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Coin:
    """What a pair of an exchange trades.

    Attributes:
        id: CoinMarketCap's id; None for a coin that stands by its symbol and name.
        symbol: As the listing writes it, which may differ from the pair.
        name: As the listing writes it.
        units: Coins in one unit of the pair: 1000 for 1000SATS.
    """

    id: int | None
    symbol: str
    name: str
    units: float = 1.0


def candle_frame(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with exactly the columns of candles, typed; volumes that are absent become null.

    `pair`, `open_time` (naive UTC), `close` (quote currency per unit of the pair), `volume` (units of the pair
    that were traded in the hour), `quote_volume` (the same in the quote currency).
    """
    return rows.reindex(columns=list(CANDLE_TYPES)).astype(CANDLE_TYPES).reset_index(drop=True)


# Rows of snapshots -----------------------------------------------------------------------------------------------


def check_mapped(pairs: Sequence[str], coins: Mapping[str, Coin]) -> None:
    """Refuse pairs of which nobody said which coin they are, all by name."""
    missing = sorted({*pairs} - {*coins})
    if missing:
        raise DataError(
            f"{len(missing)} pairs are not in the map: {', '.join(missing)}; add them to it with id, symbol and name "
            "(a ticker is no coin: tickers are reused, and 1000SATS is 1000 coins)"
        )


def origin_of(venue: str) -> str:
    """What a row made from candles of this exchange says about where it comes from."""
    if not re.fullmatch(r"[a-z0-9_]+", venue):
        raise DataError(f"{venue!r} is no name of an exchange: small letters, digits and underscores, such as binance")
    return ORIGIN_CANDLES + venue


def snapshot_rows(
    candles: pd.DataFrame, coins: Mapping[str, Coin], venue: str, now: datetime, since: datetime | None = None
) -> pd.DataFrame:
    """A raw frame with one row for each candle that was over at `now`, by timestamp and pair.

    The row of a candle that opens at t has the timestamp t + 1 h, at which its close was known, and looks back from
    there by time: what would need an hour that has no candle is null. `volume_24h` sums this exchange's trades of 24
    hours in the quote currency, close times base volume where that is not reported.

    Args:
        candles: As `candle_frame` makes them, each pair and hour once, in any order.
        coins: The coin of each pair.
        venue: Name of the exchange, for the column `origin`.
        now: Naive UTC.
        since: Rows only of candles that open then or later; earlier ones are their past.

    Raises:
        DataError: a pair is not in the map.
    """
    check_mapped(list(candles["pair"].unique()), coins)
    origin = origin_of(venue)
    complete = candles[candles["open_time"] + HOUR <= pd.Timestamp(now)]
    parts = []
    for pair, group in complete.groupby("pair", sort=True):
        rows = _rows_of_pair(group.sort_values("open_time"), coins[str(pair)])
        parts.append(rows if since is None else rows[rows["timestamp"] >= pd.Timestamp(since) + HOUR])
    if not parts:
        return raw_frame(pd.DataFrame(columns=list(RAW_COLUMNS)))
    rows = pd.concat(parts, ignore_index=True).sort_values("timestamp", kind="stable", ignore_index=True)
    return raw_frame(rows.assign(origin=origin))


def _rows_of_pair(candles: pd.DataFrame, coin: Coin) -> pd.DataFrame:
    hours = hours_of(candles["open_time"])
    place = hours - hours[0]
    # Every hour has a place, so that a distance in places is a distance in time; hours without a candle stay NaN.
    price, turnover = np.full(place[-1] + 1, np.nan), np.full(place[-1] + 1, np.nan)
    price[place] = candles["close"] / coin.units
    # Close per unit times units traded: the quote currency, whatever the unit.
    turnover[place] = candles["quote_volume"].fillna(candles["close"] * candles["volume"])
    volume = turnover.copy()
    for hour in range(1, 24):  # added one by one: the same sum wherever the series begins, unlike a running one
        volume += _before(turnover, hour)
    columns = {"price": price, "volume_24h": volume, "volume_change_24h": _change(volume, 24)}
    columns |= {name: _change(price, hours_back) for name, hours_back in CHANGES.items()}
    return pd.DataFrame(
        {
            "id": pd.array([coin.id] * len(place), dtype="Int64"),
            "name": coin.name,
            "symbol": coin.symbol,
            "timestamp": candles["open_time"].to_numpy() + np.timedelta64(1, "h"),
            **{name: values[place] for name, values in columns.items()},
        }
    )


def hours_of(times: pd.Series) -> npt.NDArray[np.int64]:
    """Whole hours since 1970."""
    return times.to_numpy().astype("datetime64[h]").astype(np.int64)


def _before(values: Floats, hours: int) -> Floats:
    """The value so many hours earlier; NaN where there is none."""
    earlier = np.full(len(values), np.nan)
    earlier[hours:] = values[: max(0, len(values) - hours)]
    return earlier


def _change(values: Floats, hours: int) -> Floats:
    """Percent against so many hours earlier; NaN where one of the two is missing or the older one is zero."""
    older = _before(values, hours)
    older[older <= 0] = np.nan
    return 100 * (values / older - 1)


# Agreement with a listing ----------------------------------------------------------------------------------------


def agreement(candle_rows: pd.DataFrame, listing_rows: pd.DataFrame) -> pd.DataFrame:
    """How far the prices made from candles lie from a listing's, one row a coin, the worst first.

    Args:
        candle_rows: `timestamp, id, symbol, name, price`, as `snapshot_rows` makes them.
        listing_rows: The same columns of a listing, any coins and hours.

    Returns:
        `id, symbol, name`, `hours` that could be compared, `median` of the absolute difference in percent, and
        `beyond`, the share of hours in which it was more than 2.5 %. The id decides where both sides have one,
        otherwise symbol and name where one coin of the listing's hour has them.
    """
    ours = candle_rows[["timestamp", "id", "symbol", "name", "price"]].reset_index(names="ours")
    listed = listing_rows.loc[listing_rows["price"] > 0, ["timestamp", "id", "symbol", "name", "price"]]
    with_id = listed[listed["id"].notna()].drop_duplicates(["timestamp", "id"])
    single = listed[~listed.duplicated(["timestamp", "symbol", "name"], keep=False)]
    by_id = ours[ours["id"].notna()].merge(
        with_id[["timestamp", "id", "price"]], on=["timestamp", "id"], suffixes=("", "_listed")
    )
    by_name = ours.merge(single, on=["timestamp", "symbol", "name"], suffixes=("", "_listed"))
    by_name = by_name[by_name["id"].isna() | by_name["id_listed"].isna()]
    both = pd.concat([by_id, by_name], ignore_index=True).drop_duplicates("ours")
    difference = 100 * (both["price"] / both["price_listed"] - 1).abs()
    groups = both.assign(difference=difference, far=difference > AGREEMENT_LIMIT).groupby(
        ["id", "symbol", "name"], dropna=False
    )
    summary = groups.agg(hours=("difference", "size"), median=("difference", "median"), beyond=("far", "mean"))
    return summary.reset_index().sort_values(["median", "symbol"], ascending=[False, True], ignore_index=True)
