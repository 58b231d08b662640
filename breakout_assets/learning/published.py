"""The rows that the published method trains on, with its three defects, so that the price of each can be measured.

Each defect is a flag of the recipe. None of this serves: a recipe with such a flag is for comparison only.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from breakout_assets.dataset.indicators import INDICATOR_COLUMNS
from breakout_assets.dataset.labels import HORIZON
from breakout_assets.learning.recipes import Recipe

Floats = npt.NDArray[np.float64]

_VWRSI_ROWS: Final = 14
# Side by side: 2,000 hours of so many tokens, and the 14 columns made of them, are 80 MB.
_TOKENS_AT_ONCE: Final = 250


def published_rows(rows: pd.DataFrame, recipe: Recipe) -> pd.DataFrame:
    """The rows as the recipe's three published defects leave them; without any, the rows as they are.

    Args:
        rows: `indicator_features` rows of any number of tokens, labelled and censored, in any order, over the whole
            history.
        recipe: `by_symbol` puts the symbol in the place of the token and joins each row with the later price of every
            coin of that symbol, so that one (token, timestamp) may be there several times. `same_month_labels` drops
            labelled rows whose label ends in another calendar month. `indicators_after_join` drops the censored rows
            and computes the 14 published indicators anew over what is left of each token, from its first row on.

    Returns:
        The columns of `rows` (with the 14 indicators, if they were not there). The rows in the given order, or, where
        coins were mixed or indicators computed, by token and time.
    """
    if recipe.by_symbol:
        rows = _joined_on_symbol(rows)
    if recipe.same_month_labels:
        rows = _without_month_ends(rows)
    if recipe.indicators_after_join:
        rows = _with_indicators_of_labelled_rows(rows)
    return rows


def _joined_on_symbol(rows: pd.DataFrame) -> pd.DataFrame:
    coins = rows[["symbol", "token"]].drop_duplicates()
    shared = coins.loc[coins["symbol"].duplicated(), "symbol"]
    mixed = rows[rows["symbol"].isin(shared)]
    own = rows.assign(_coin=rows["token"], _later_coin=rows["token"])
    # Which coin's row, and whose price decided its label, also decide the order within an hour: indicators read it.
    every = pd.concat([own, _labels_by_other_coins(mixed)]).assign(token=lambda pairs: pairs["symbol"])
    every = every.sort_values(["token", "timestamp", "_coin", "_later_coin"], kind="stable", ignore_index=True)
    return every.drop(columns=["_coin", "_later_coin"])


def _labels_by_other_coins(mixed: pd.DataFrame) -> pd.DataFrame:
    """Each row once more for each other coin of its symbol that has a row five days later, labelled by that price."""
    later = mixed[["symbol", "token", "timestamp", "price", "percent_change_7d"]].rename(
        columns={
            "token": "_later_coin",
            "timestamp": "label_end",
            "price": "_later_price",
            "percent_change_7d": "y_percentage_change7d",
        }
    )
    now = mixed.drop(columns=["y_percentage_change7d"]).assign(
        _coin=mixed["token"], label_end=mixed["timestamp"] + HORIZON, label_status="labelled"
    )
    pairs = now.merge(later, on=["symbol", "label_end"])
    pairs = pairs[pairs["_coin"] != pairs["_later_coin"]]
    change = (pairs["_later_price"] - pairs["price"]) / pairs["price"] * 100
    # Rounded as in the label query: a rise by exactly 10 % is none.
    pairs = pairs.assign(cal_price_change=change, y=change.round(9) > 10).drop(columns="_later_price")
    types = mixed.dtypes
    return pairs.astype({column: types[column] for column in ("y", "label_end", "label_status")})


def _without_month_ends(rows: pd.DataFrame) -> pd.DataFrame:
    observed, ended = rows["timestamp"].dt, rows["label_end"].dt
    # The published join asks for an equal year and an equal month besides the five days between the two hours.
    one_month = (observed.year == ended.year) & (observed.month == ended.month)
    kept: pd.DataFrame = rows[(rows["label_status"] != "labelled") | one_month]
    return kept


def _with_indicators_of_labelled_rows(rows: pd.DataFrame) -> pd.DataFrame:
    labelled = rows[rows["label_status"] == "labelled"]
    # Stable, because coins that were mixed have an hour more than once, and its rows are in their order by now.
    labelled = labelled.sort_values(["token", "timestamp"], kind="stable", ignore_index=True)
    return labelled.assign(**history_indicators(labelled))


def history_indicators(rows: pd.DataFrame) -> dict[str, Floats]:
    """The published indicators of every row from all earlier rows of its token, bit-equal to `ta` 0.11.

    Tokens lie side by side as columns, each from its first row on: pandas runs the same loop down each column as down
    a series, and is called once for some hundred tokens instead of twenty times for each.

    Args:
        rows: `token`, `price` and `volume` (USD, may be null), the rows of a token together and in time order.

    Returns:
        `INDICATOR_COLUMNS`, a value a row.
    """
    begins = np.flatnonzero(rows["token"].ne(rows["token"].shift()).to_numpy())
    bounds = np.append(begins, len(rows))
    columns = {name: np.empty(len(rows)) for name in INDICATOR_COLUMNS}
    market = [rows[name].to_numpy(dtype=np.float64, na_value=np.nan) for name in ("price", "volume")]
    for first in range(0, len(begins), _TOKENS_AT_ONCE):
        part = bounds[first : first + _TOKENS_AT_ONCE + 1]
        lengths = np.diff(part)
        column = np.repeat(np.arange(len(lengths)), lengths)
        line = np.arange(part[-1] - part[0]) - np.repeat(part[:-1] - part[0], lengths)
        wide = [np.full((lengths.max(), len(lengths)), np.nan) for _ in market]
        for values, grid in zip(market, wide, strict=True):
            grid[line, column] = values[part[0] : part[-1]]
        for name, found in _indicators(*map(pd.DataFrame, wide)).items():
            columns[name][part[0] : part[-1]] = np.asarray(found)[line, column]
    return columns


def _indicators(price: pd.DataFrame, volume: pd.DataFrame) -> dict[str, pd.DataFrame | Floats]:
    """The formulas of `ta`, but pvt and VWRSI by the write-up; a column a token."""
    change = price.diff()
    rise = change.where(change > 0, 0.0).ewm(alpha=1 / 14, min_periods=14, adjust=False).mean()
    fall = (-change.where(change < 0, 0.0)).ewm(alpha=1 / 14, min_periods=14, adjust=False).mean()
    macd = _ema(price, 12) - _ema(price, 26)
    middle, deviation = price.rolling(20).mean(), price.rolling(20).std(ddof=0)
    pvt = (price.pct_change(fill_method=None) * volume).cumsum()
    flow = (change * volume).fillna(0.0)
    # The write-up's own: a plain mean of 14 volume-weighted rises against that of the falls; NaN where both are 0.
    gain, loss = (side.clip(lower=0.0).rolling(_VWRSI_ROWS).mean() for side in (flow, -flow))
    signed = volume.where(~(price < price.shift()), -volume)
    return {
        "RSI": np.where(fall == 0, 100, 100 - 100 / (1 + rise / fall)),
        "sma_5": price.rolling(5).mean(),
        "sma_10": price.rolling(10).mean(),
        "sma_20": middle,
        "pvt": pvt,
        "MACD": macd,
        "MACD_signal": _ema(macd, 9),
        "EMA_9": _ema(price, 9),
        "EMA_21": _ema(price, 21),
        "bollinger_hband": middle + 2 * deviation,
        "bollinger_lband": middle - 2 * deviation,
        "OBV": signed.cumsum(),
        "VPT": pvt.fillna(0),  # `ta`'s is pvt, and the write-up fills what it lacks
        "VWRSI": 100 - 100 / (1 + gain / loss),
    }


def _ema(values: pd.DataFrame, span: int) -> pd.DataFrame:
    return values.ewm(span=span, min_periods=span, adjust=False).mean()
