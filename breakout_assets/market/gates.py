"""Which market rows must not be believed, and why.

The verdict on a row is a function of a bounded past: of the rows of its hour and of the `LOOK_BACK` before it, and of
the row a week earlier. It never depends on what came later, nor on an earlier verdict. So the row that is traded on
and the row that is trained on are judged alike, hour by hour or a year at once. Prices to compare with are all that
are possible in themselves, glitches among them; medians outvote those.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from breakout_assets.market.schema import HOUR, hours_between

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
_Cell = tuple[IntArray, IntArray]
_Cells = _Cell | slice

# Every code with what it means and how it is found, in the order in which a row's codes are joined.
REASONS: Final[dict[str, str]] = {
    "IDENTITY_MISSING": "the row has no id, and no symbol or no name either: nobody can tell which coin it is",
    "PRICE_MISSING": "the price is absent or not a finite number",
    "PRICE_NOT_POSITIVE": "the price is zero or negative",
    "VOLUME_IMPOSSIBLE": "the 24-hour volume is negative or infinite; an absent one is allowed",
    "DUPLICATE": "the coin is in the hour already; the row that came first counts",
    "AMBIGUOUS_IDENTITY": "rows without an id share symbol and name but not their values: two coins, or a faulty file",
    "LATE_SNAPSHOT": "the median `last_updated` of the hour's rows is more than 90 minutes after the hour: the "
    "snapshot was taken too late, so the hour counts as missing",
    "MARKET_GLITCH": "half of the coins jumped by more than 25 % against the price before and against the 7 hours "
    "before, or more than 2 dollar stablecoins are off 1 USD by more than 20 %: no price of the hour is believed",
    "GLITCH": "the price jumped by more than a factor of 3 against the median of the 7 hours before; a jump that "
    "holds for 4 hours is believed from then on, and so is a fall in smaller steps",
    "SPLIT_SUSPECT": "the price jumped by more than a factor of 5 while market cap stayed and supply changed the other "
    "way (where these are unknown: by nearly a power of ten): the first row in new units",
    "STALE_PRICE": "`last_updated` is more than 2 hours before the hour, or the price is the same in 6 hourly "
    "snapshots in a row",
    "CHANGE_DISAGREES": "the reported 7-day change and the one from our own prices, of snapshots a week apart, differ "
    "by more than 2 percentage points (of a price that rose: by more than 2 % of the growth)",
    "ZERO_VOLUME": "nothing was traded in 24 hours",
    "STABLECOIN": "the listing says so; where it says nothing, the price kept within 2 % of 1 USD for the day before "
    "(at least 12 hours of it) and the reported 7-day change is below 4 %",
    "WRAPPED": "the coin stands for another one: the listing says so, or where it says nothing, its name",
}
# With these nothing is wrong; the coin or the hour is just nothing to learn from or to trade.
EXCLUSIONS: Final = frozenset({"STABLECOIN", "WRAPPED", "ZERO_VOLUME"})

# Hours before a row that its verdict looks at, besides the one a week before.
LOOK_BACK: Final = 24
WEEK: Final = 168  # of percent_change_7d

# CoinMarketCap refreshes every minute; two hours without is a dead feed.
_STALE_MINUTES: Final = 120.0
_UNCHANGED_HOURS: Final = 5  # before this one; real hours repeat a price now and then, six times in a row hardly any
_UNCHANGED: Final = 1e-12
# A snapshot that is nearer to the next hour but one is not of this hour.
_LATE_MINUTES: Final = 90.0
# Of 7 earlier prices 4 are right if one was wrong for up to 3 hours, and 4 agree with a jump that has held for 4.
_GLITCH_LAGS: Final = 7
_GLITCH: Final = np.log(3.0)
_SPLIT: Final = np.log(5.0)
_SPLIT_KEPT: Final = np.log(1.3)  # what cap and price times supply may move in a split, as the market moves meanwhile
_SPLIT_TEN: Final = 0.1  # how near to a power of ten the ratio must be where supply or cap is unknown
# Half of a market never moves by that in an hour.
_MARKET_JUMP: Final = 0.25
# A median of fewer coins is one coin's story; a listing that is shorter than this must do with three.
_MARKET_COINS: Final = 10
_MARKET_COINS_OF_FEW: Final = 3
_PEG_USUAL: Final = 0.05
_PEG_LOST: Final = 0.2
_PEGS_LOST: Final = 2  # stablecoins do fail, but not three in one hour
_CHANGE: Final = 0.02
# A listing fetched later differs by what the market did in between.
_CHANGE_MINUTES: Final = 3.0
_PEG_UNSAID: Final = 0.02  # a coin that only passes a dollar stays that near for a day, but was elsewhere a week ago
_PEG_UNSAID_HOURS: Final = 12

# What a verdict looks at.
JUDGED_BY: Final = (
    "token",
    "id",
    "name",
    "symbol",
    "timestamp",
    "price",
    "volume",
    "circulating_supply",
    "market_cap",
    "percent_change_7d",
    "last_updated",
    "kind",
)


def context_hours(first: datetime, last: datetime) -> list[datetime]:
    """The earlier hours that `judge` looks at for rows of the hours `first` to `last`, oldest first."""
    week_before = hours_between(first - WEEK * HOUR, min(last - WEEK * HOUR, first - HOUR))
    return sorted({*week_before, *hours_between(first - LOOK_BACK * HOUR, first - HOUR)})


def judge(rows: pd.DataFrame, context: pd.DataFrame) -> pd.Series:
    """The reasons why each market row must not be used.

    Args:
        rows: Market rows (columns of `tables.DAILY_SNAPSHOTS` but for `quarantine`) of whole hours, all rows of each.
            Their order means nothing, except that of one token's rows of one hour.
        context: Market rows of the `context_hours`, as far as there are any; other hours change nothing.

    Returns:
        Codes of `REASONS` joined by `;` in its order, null where the row is believed; index of `rows`.
    """
    if rows.empty:
        return pd.Series(index=rows.index, dtype="str")
    earlier = [] if context.empty else [context.loc[~context["timestamp"].isin(rows["timestamp"]), list(JUDGED_BY)]]
    table = pd.concat([*earlier, rows[list(JUDGED_BY)]], ignore_index=True)
    asked = slice(len(table) - len(rows), None)
    first, last = rows["timestamp"].min(), rows["timestamp"].max()
    hour = (table["timestamp"] - (first - WEEK * HOUR)).to_numpy() // np.timedelta64(1, "h")
    token, tokens = pd.factorize(table["token"])
    unusable = _unusable(table, pd.Series(hour * len(tokens) + token))
    usable = ~np.logical_or.reduce([*unusable.values()])
    offset = _offset(table)
    shape = int((last - first) / HOUR) + 1 + WEEK, len(tokens)
    grid = _grid(table, usable, offset, (hour, token), shape)
    hour, token = hour[asked] - WEEK, token[asked]
    of_hours, of_cells = _judge_grid(grid)
    found = {code: mask[asked] for code, mask in unusable.items()}
    found |= {code: hit[hour] for code, hit in of_hours.items()}
    found |= {code: hit[hour, token] & usable[asked] for code, hit in of_cells.items()}
    found["LATE_SNAPSHOT"] = (pd.Series(offset[asked]).groupby(hour).transform("median") > _LATE_MINUTES).to_numpy()
    found["STALE_PRICE"] |= offset[asked] < -_STALE_MINUTES
    found["ZERO_VOLUME"] = np.abs(table["volume"].to_numpy()[asked]) <= 0
    kind, name = table["kind"][asked], table["name"][asked]
    said = kind.notna().to_numpy()
    found["STABLECOIN"] = np.where(said, kind == "stablecoin", found["STABLECOIN"])
    found["WRAPPED"] = np.where(said, kind == "wrapped", name.str.startswith("Wrapped ", na=False))
    return _joined(found, rows.index)


@dataclass(frozen=True)
class _Grid:
    """The usable rows by hour (first axis, consecutive, from a week before the first judged hour) and token.

    Attributes:
        price: Log USD; NaN where there is no usable row. So ratios are differences.
        supply: Log; NaN where it is unknown.
        cap: Log USD; NaN where it is unknown.
        reported: Price ratio over 7 days according to the listing.
        offset: Minutes from the hour to `last_updated`.
        stable: Whether the listing says that the coin is a stablecoin.
    """

    price: FloatArray
    supply: FloatArray
    cap: FloatArray
    reported: FloatArray
    offset: FloatArray
    stable: BoolArray

    def since(self, begin: int) -> "_Grid":
        """The hours from this one on."""
        return _Grid(*(cells[begin:] for cells in vars(self).values()))


def _unusable(rows: pd.DataFrame, key: pd.Series) -> dict[str, BoolArray]:
    """Which rows have each reason that lies in the row itself or in the other rows of its token and hour (`key`)."""
    price, volume = rows["price"].to_numpy(), rows["volume"].to_numpy()
    blank = (rows["symbol"].fillna("") == "") | (rows["name"].fillna("") == "")
    reasons: dict[str, BoolArray] = {
        "IDENTITY_MISSING": (rows["id"].isna() & blank).to_numpy(),
        "PRICE_MISSING": ~np.isfinite(price),
        "PRICE_NOT_POSITIVE": np.isfinite(price) & (price <= 0),
        "VOLUME_IMPOSSIBLE": (volume < 0) | np.isinf(volume),
    }
    priced = key[~np.logical_or.reduce([*reasons.values()])]
    # Copies of one row are one coin listed twice; different values under one name cannot be told apart.
    differing = priced.duplicated(keep=False) & rows["id"].isna()[priced.index]
    if differing.any():
        differing &= rows["price"][priced.index].groupby(priced).transform("nunique") > 1
    for code, hit in {"DUPLICATE": priced.duplicated() & ~differing, "AMBIGUOUS_IDENTITY": differing}.items():
        reasons[code] = hit.reindex(rows.index, fill_value=False).to_numpy()
    return reasons


def _offset(rows: pd.DataFrame) -> FloatArray:
    """Minutes from the hour to `last_updated`, NaN where there is no such stamp."""
    # Coins of an hour have few such stamps between them: each is parsed once.
    place, stamps = pd.factorize(rows["last_updated"])
    parsed = pd.to_datetime(stamps, utc=True, format="ISO8601", errors="coerce").tz_localize(None)
    updated = pd.Series(parsed).reindex(place).set_axis(rows.index)  # -1, where there is none, is no label of it
    return np.asarray((updated - rows["timestamp"]).dt.total_seconds() / 60, dtype=np.float64)


def _grid(rows: pd.DataFrame, usable: BoolArray, offset: FloatArray, where: _Cell, shape: tuple[int, int]) -> _Grid:
    """The usable rows, which are `where` (hour and token), as a grid."""
    hour, token = where
    placed = usable & (hour >= 0) & (hour < shape[0])
    at = hour[placed], token[placed]

    def cells(values: FloatArray) -> FloatArray:
        matrix = np.full(shape, np.nan)
        matrix[at] = values[placed]
        return matrix

    def logs(column: str) -> FloatArray:
        values = rows[column].to_numpy()
        return cells(np.log(values, out=np.full(len(values), np.nan), where=np.isfinite(values) & (values > 0)))

    stable = np.zeros(shape, dtype=np.bool_)
    stable[at] = (rows["kind"] == "stablecoin").to_numpy()[placed]
    reported = cells(1 + rows["percent_change_7d"].to_numpy() / 100)
    return _Grid(logs("price"), logs("circulating_supply"), logs("market_cap"), reported, cells(offset), stable)


def _judge_grid(grid: _Grid) -> tuple[dict[str, BoolArray], dict[str, BoolArray]]:
    """What holds for whole hours and what for single rows, of the judged hours only."""
    recent = grid.since(WEEK - LOOK_BACK)
    moves, without_splits = _moves(recent)
    jumped, apart = _market_jumps(recent.price, moves)
    glitch = np.asarray((jumped & apart) | _pegs_lost(recent))
    cells = {
        # What befell the whole market is not also each coin's own fault …
        "GLITCH": _glitches(without_splits) & ~glitch[:, None],
        # … and when half of it jumps, there or back, nobody has changed the units of one coin.
        "SPLIT_SUSPECT": _splits(recent) & ~jumped[:, None],
        "STALE_PRICE": np.asarray((np.abs(moves[:_UNCHANGED_HOURS]) <= _UNCHANGED).all(axis=0)),
        "STABLECOIN": _at_the_peg(recent),
    }
    judged = {code: hit[LOOK_BACK:] for code, hit in cells.items()}
    return {"MARKET_GLITCH": glitch[LOOK_BACK:]}, judged | {"CHANGE_DISAGREES": _disagreeing(grid)}


def _moves(grid: _Grid) -> tuple[FloatArray, FloatArray]:
    """Log price ratios to 1 to 7 hours before (first axis): as they are, and with changes of units taken out."""
    moves = np.stack([grid.price - _before(grid.price, lag) for lag in range(1, _GLITCH_LAGS + 1)])
    lag, hour, token = np.nonzero(np.abs(moves) > _SPLIT)
    now, then = (hour, token), (hour - lag - 1, token)
    split, supply = _split(grid, now, then), grid.supply[now] - grid.supply[then]
    move = moves[lag, hour, token]
    without_splits = moves.copy()
    without_splits[lag, hour, token] = np.where(split, np.where(np.isnan(supply), 0.0, move + supply), move)
    return moves, without_splits


def _split(grid: _Grid, now: _Cells, then: _Cells) -> BoolArray:
    """Whether the row of each cell in `now` looks like the one in `then` in other units."""
    price, supply, cap = (cells[now] - cells[then] for cells in (grid.price, grid.supply, grid.cap))
    known = ~np.isnan(supply) & ~np.isnan(cap)
    beside_ten = np.expm1(price - np.log(10) * np.rint(price / np.log(10)))
    contradicted = (np.abs(cap) >= _SPLIT_KEPT) | (np.abs(price + supply) >= _SPLIT_KEPT)  # by what is known
    return np.asarray((np.abs(price) > _SPLIT) & ~contradicted & (known | (np.abs(beside_ten) <= _SPLIT_TEN)))


def _splits(grid: _Grid) -> BoolArray:
    """Whether each row is in other units than the newest one before it."""
    hours = np.arange(len(grid.price))[:, None]
    seen = np.maximum.accumulate(np.where(np.isnan(grid.price), -1, hours), axis=0)
    newest = np.vstack([np.full_like(seen[:1], -1), seen[:-1]])
    hour, token = np.nonzero((newest >= 0) & (hours - newest <= LOOK_BACK))
    found = np.zeros(grid.price.shape, dtype=np.bool_)
    found[hour, token] = _split(grid, (hour, token), (newest[hour, token], token))
    return found


def _glitches(moves: FloatArray) -> BoolArray:
    """Whether each price stands apart from those before it, after one jump: a collapse takes many smaller steps."""
    jump = np.abs(_newest(moves)) > _GLITCH
    recently = jump.copy()
    for lag in range(1, _GLITCH_LAGS):
        recently[lag:] |= jump[:-lag]
    return np.asarray(recently & (np.abs(_median(moves)) > _GLITCH))


def _market_jumps(price: FloatArray, moves: FloatArray) -> tuple[BoolArray, BoolArray]:
    """Whether half of the coins jumped in each hour, and whether they also stand apart from the hours before it.

    In the hour after a glitch they jump back, to where they were.
    """
    step, apart = np.abs(_newest(moves)), np.abs(_median(moves))
    coins, listed = ((~np.isnan(cells)).sum(axis=1) for cells in (step, price))
    needed = np.where(listed < _MARKET_COINS, _MARKET_COINS_OF_FEW, _MARKET_COINS)
    return np.asarray((coins >= needed) & (_median(step.T) > _MARKET_JUMP)), np.asarray(_median(apart.T) > _MARKET_JUMP)


def _pegs_lost(grid: _Grid) -> BoolArray:
    """Whether too many coins that were worth a dollar are far from it, in each hour."""
    some = grid.stable.any(axis=0)
    price, stable = grid.price[:, some], grid.stable[:, some]
    usual = _median(np.stack([_before(price, lag) for lag in range(1, LOOK_BACK + 1)]))
    lost = stable & (np.abs(np.expm1(usual)) <= _PEG_USUAL) & (np.abs(np.expm1(price)) > _PEG_LOST)
    return np.asarray(lost.sum(axis=1) > _PEGS_LOST)


def _at_the_peg(grid: _Grid) -> BoolArray:
    """Whether the price and all those of the day before it were near a dollar, enough of them, and a week ago too."""
    there = ~np.isnan(grid.price)
    far = there & (np.abs(np.expm1(grid.price)) > _PEG_UNSAID)
    came = np.abs(grid.reported - 1) > 2 * _PEG_UNSAID
    return np.asarray(there & ~came & (_of_a_day(there) >= _PEG_UNSAID_HOURS) & (_of_a_day(far) == 0))


def _of_a_day(hits: BoolArray) -> IntArray:
    """How many of each hour and the day before it are hit."""
    count = np.cumsum(hits, axis=0, dtype=np.int64)
    count[LOOK_BACK + 1 :] = count[LOOK_BACK + 1 :] - count[: -LOOK_BACK - 1]
    return count


def _disagreeing(grid: _Grid) -> BoolArray:
    """Whether the listing reports another change over a week than its prices of then and now say."""
    now, then = slice(WEEK, None), slice(None, -WEEK)
    own, reported = np.exp(grid.price[now] - grid.price[then]), grid.reported[now]
    apart = grid.offset[now] - grid.offset[then]
    differ = np.abs(own - reported) > _CHANGE * np.maximum(1, np.maximum(own, reported))
    return np.asarray(differ & ~(np.abs(apart) > _CHANGE_MINUTES) & ~_split(grid, now, then))


def _before(cells: FloatArray, lag: int) -> FloatArray:
    """Each hour's values of `lag` hours before."""
    shifted = np.full_like(cells, np.nan)
    shifted[lag:] = cells[:-lag]
    return shifted


def _newest(moves: FloatArray) -> FloatArray:
    """The move of the smallest lag there is; NaN where there is none."""
    smallest = np.argmax(~np.isnan(moves), axis=0)[None]
    return np.asarray(np.take_along_axis(moves, smallest, axis=0)[0])


def _median(values: FloatArray) -> FloatArray:
    """Over the first axis, of those that are not NaN; NaN where all are."""
    ordered = np.sort(values, axis=0)  # NaNs come last
    count = (~np.isnan(values)).sum(axis=0)[None]
    low, high = (np.take_along_axis(ordered, place, axis=0)[0] for place in ((count - 1) // 2, count // 2))
    return np.asarray((low + high) / 2)


def _joined(found: dict[str, BoolArray], index: pd.Index) -> pd.Series:
    """The codes that hold for each row as one text."""
    bits = np.zeros(len(index), dtype=np.int64)
    for place, code in enumerate(REASONS):
        bits |= found[code].astype(np.int64) << place
    patterns, which = np.unique(bits, return_inverse=True)
    texts = [
        ";".join(code for place, code in enumerate(REASONS) if pattern >> place & 1) or None
        for pattern in patterns.tolist()
    ]
    return pd.Series(np.array(texts, dtype=np.object_)[which], index=index, dtype="str")
