"""The rows that the published method trains on, with its three defects, so that the price of each can be measured.

Each defect is a flag of the recipe. None of this serves: a recipe with such a flag is for comparison only.
"""

from typing import Final

import pandas as pd
from ta.momentum import RSIIndicator
from ta.trend import MACD, EMAIndicator, SMAIndicator
from ta.volatility import BollingerBands
from ta.volume import OnBalanceVolumeIndicator, VolumePriceTrendIndicator

from breakout_assets.dataset.indicators import INDICATOR_COLUMNS
from breakout_assets.dataset.labels import HORIZON
from breakout_assets.learning.recipes import Recipe

_VWRSI_ROWS: Final = 14


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
    parts = [_indicators(history) for _, history in labelled.groupby("token", sort=False)]
    computed = pd.concat([_indicators(labelled.iloc[:0]), *parts])
    return labelled.assign(**{column: computed[column] for column in INDICATOR_COLUMNS})


def _indicators(history: pd.DataFrame) -> pd.DataFrame:
    """The published indicators over a token's rows in time order: from `ta`, but pvt and VWRSI by the write-up."""
    price, volume = history["price"], history["volume"]
    macd, bands = MACD(price), BollingerBands(price)
    columns = {
        "RSI": RSIIndicator(price).rsi(),
        "sma_5": SMAIndicator(price, 5).sma_indicator(),
        "sma_10": SMAIndicator(price, 10).sma_indicator(),
        "sma_20": SMAIndicator(price, 20).sma_indicator(),
        "pvt": (price.pct_change(fill_method=None) * volume).cumsum(),
        "MACD": macd.macd(),
        "MACD_signal": macd.macd_signal(),
        "EMA_9": EMAIndicator(price, 9).ema_indicator(),
        "EMA_21": EMAIndicator(price, 21).ema_indicator(),
        "bollinger_hband": bands.bollinger_hband(),
        "bollinger_lband": bands.bollinger_lband(),
        "OBV": OnBalanceVolumeIndicator(price, volume).on_balance_volume(),
        "VPT": VolumePriceTrendIndicator(price, volume).volume_price_trend().fillna(0),  # as published
        "VWRSI": _vwrsi(price, volume),
    }
    return pd.DataFrame(columns, columns=list(INDICATOR_COLUMNS))


def _vwrsi(price: pd.Series, volume: pd.Series) -> pd.Series:
    """The write-up's own: a plain mean of 14 volume-weighted rises against that of the falls; NaN where both are 0."""
    flow = (price.diff() * volume).fillna(0.0)
    gain, loss = (side.clip(lower=0.0).rolling(_VWRSI_ROWS).mean() for side in (flow, -flow))
    return 100 - 100 / (1 + gain / loss)
