"""What costs nothing to know: rules that need no model, on the same rows and at the same costs."""

from collections.abc import Iterator
from typing import Final

import numpy as np
import pandas as pd

from breakout_assets.learning.statistics import HORIZON, Floats, Labels, WindowDraws, hours_of, pooled_auc
from breakout_assets.learning.thresholds import net_interval, trades_of

# Rules with a score flag as a whole what a rule without a threshold of its own can: its best tenth.
TOP_SHARE: Final = 0.10
RANDOM_RUNS: Final = 100

_COLUMNS: Final = ["name", "auc", "precision", "flagged_share", "trades", "net_per_trade", "low", "high"]
_Row = tuple[str, float, float, float, int, float, float, float]


def baselines(real: pd.DataFrame, *, own: pd.DataFrame, cost: float, draws: WindowDraws) -> pd.DataFrame:
    """Score every baseline.

    - `always no` and `always buy`: flag nothing and everything.
    - `momentum`, `inverse momentum`, `minus price`, `logistic`: flag the tenth with the highest score, which is the
      7-day change, its negative, how far the price is below the token's first one, and the logistic regression's
      probability. Absent where no row has the score. The tenth is known only afterwards, which flatters them a little.
    - `random entries`: 100 runs of as many trades as the method made, at its hours, in tokens drawn from that hour's
      rows; absent where it made none. `low` and `high` hold 95 % of the runs.
    - `buy and hold`: each token bought in its first hour and held to its last known price, one trade a token; `BTC`:
      the same for that token alone, absent where it is not there; `equal weight`: all tokens in equal parts, made
      equal again every 120 hours, as one trade. Each pays for one round trip. These returns are of the whole time.

    Args:
        real: the rows of the market itself, sorted by (timestamp, token).
        own: the method's trades among them.
        cost: of a round trip.
        draws: windows of these rows, also the seed of the random entries.

    Returns:
        `name`, `auc` (pooled; .5 where all rows have the same score, NaN where there is no score), `precision` of the
        flagged rows (NaN without), `flagged_share`, `trades`, `net_per_trade` and its interval `low`, `high`, NaN
        where there is none.
    """
    rows: list[_Row] = [
        ("always no", 0.5, np.nan, 0.0, 0, np.nan, np.nan, np.nan),
        _scored("always buy", real, np.zeros(len(real)), 1.0, cost, draws),
    ]
    rows.extend(
        _scored(name, real[np.isfinite(score)], score[np.isfinite(score)], TOP_SHARE, cost, draws)
        for name, score in _scores(real).items()
        if np.isfinite(score).any()
    )
    if len(own):
        rows.append(_random_entries(real, own, cost, draws))
    rows.extend(_held(real, cost))
    return pd.DataFrame(rows, columns=_COLUMNS)


def _scores(real: pd.DataFrame) -> dict[str, Floats]:
    momentum = real["momentum"].to_numpy(dtype=np.float64)
    return {
        "momentum": momentum,
        "inverse momentum": -momentum,
        "minus price": minus_price(real).to_numpy(dtype=np.float64),
        "logistic": real["logistic"].to_numpy(dtype=np.float64),
    }


def minus_price(real: pd.DataFrame) -> pd.Series:
    """Minus the price of each row, of rows in time order.

    Against the token's own first price: prices of different tokens do not compare, and the first one is known.
    """
    return -(real["price"] / real.groupby("token")["price"].transform("first"))


def _scored(name: str, real: pd.DataFrame, score: Floats, share: float, cost: float, draws: WindowDraws) -> _Row:
    threshold = float(np.quantile(score, 1 - share, method="higher"))
    flagged = score >= threshold
    trades = trades_of(real.assign(probability=score), threshold, cost)
    y: Labels = real["y"].to_numpy(dtype=np.int64)
    low, high = net_interval(trades, draws) or (np.nan, np.nan)
    precision, mean = float(y[flagged].mean()), float(trades["net"].mean())
    return name, pooled_auc(y, score), precision, float(flagged.mean()), len(trades), mean, low, high


def _random_entries(real: pd.DataFrame, own: pd.DataFrame, cost: float, draws: WindowDraws) -> _Row:
    hours, entries = hours_of(real["timestamp"]), hours_of(own["timestamp"])
    first, past = np.searchsorted(hours, entries), np.searchsorted(hours, entries, side="right")
    rng = np.random.default_rng(draws.seed)
    drawn = rng.integers(first, past, (RANDOM_RUNS, len(own)))
    runs = real["change"].to_numpy()[drawn].mean(axis=1) / 100 - cost
    low, high = np.percentile(runs, (2.5, 97.5))
    precision = float(real["y"].to_numpy(dtype=np.float64)[drawn].mean())
    share = len(own) / len(real)
    return "random entries", np.nan, precision, share, len(own), float(runs.mean()), float(low), float(high)


def _held(real: pd.DataFrame, cost: float) -> Iterator[_Row]:
    tokens = real.groupby("token")
    last = tokens.last()
    grown = last["price"] * (1 + last["change"] / 100) / tokens["price"].first() - 1 - cost
    yield _hold("buy and hold", len(grown), float(grown.mean()))
    bitcoin = grown[grown.index.str.rpartition("-").get_level_values(0) == "BTC"]
    if len(bitcoin):
        yield _hold("BTC", 1, float(bitcoin.iloc[0]))
    hours = hours_of(real["timestamp"])
    steps = real["change"][(hours - hours.min()) % HORIZON == 0].groupby(real["timestamp"]).mean()
    yield _hold("equal weight", 1, float((1 + steps / 100).prod()) - 1 - cost)


def _hold(name: str, trades: int, net: float) -> _Row:
    return name, np.nan, np.nan, np.nan, trades, net, np.nan, np.nan
