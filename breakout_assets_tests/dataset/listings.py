"""Market rows of invented tokens, with all that indicators read: ranks, market pairs, quarantine and breaks too."""

import numpy as np
import pandas as pd

from breakout_assets_tests.dataset.tokens import DAY, at
from breakout_assets_tests.dataset.tokens import market as prices_of


def market(seed: int, *names: str, broken: str = "", broken_at: int = 0, quarantined: float = 0.0) -> pd.DataFrame:
    """Market rows of the named tokens (see `tokens.TOKENS`), a share of them quarantined.

    The first token's series breaks at the hour `broken_at` because its 'units' change or its 'source' does. Ranks and
    market pairs wander in whole numbers; one in a hundred is null.
    """
    rows = prices_of(seed, *names)
    rng = np.random.default_rng([seed, 1])
    for column, level in (("cmc_rank", 300.0), ("num_market_pairs", 60.0)):
        log_level = pd.Series(rng.normal(0, 0.02, len(rows))).groupby(rows["token"]).cumsum()
        values = pd.Series(np.ceil(level * np.exp(log_level)), index=rows.index)
        rows[column] = values.mask(pd.Series(rng.random(len(rows)) < 0.01)).astype("Int64")
    first = rows["token"] == rows["token"].iloc[0]
    source = first & (rows["timestamp"] >= at(broken_at)) & (broken == "source")
    units = first & (rows["timestamp"] == at(broken_at)) & (broken == "units")
    refused = pd.Series(rng.random(len(rows)) < quarantined)
    nothing = pd.Series(None, index=rows.index, dtype="str")
    rows["origin"] = nothing.mask(source, "candles:binance")
    rows["quarantine"] = nothing.mask(refused, "STALE_PRICE").mask(units, "SPLIT_SUSPECT")
    return rows


def of_day(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the day that tests ask for."""
    return rows[rows["timestamp"].between(*DAY)]
