"""The indicators with a fading memory: exponential averages of the price, of its moves, and of the MACD.

What a window gives is defined by `ta` on the rows of that window alone, to the last bit. The averages run once over
all rows of a token instead, and begin before most windows do. After some hundreds of rows two averages that began
differently are the same float: each step shrinks their distance, and at last they round alike. When that has happened
is not guessed. Rounding keeps order, so a lower and an upper path enclose whatever lies between them, and where they
have met, every window that began far enough back has the value of the one run. A window that is not covered by
such a proof (too few rows, a price that stands still) is computed alone.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

_Floats = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]
_Bools = npt.NDArray[np.bool_]

AVERAGE_COLUMNS: Final = ("RSI", "EMA_9", "EMA_21", "MACD", "MACD_signal")


def _pandas_weight(com: float) -> float:
    return 1.0 / (1.0 + com)


def _span_weight(span: int) -> float:
    return _pandas_weight((span - 1) / 2)


# New weights as pandas' `ewm` derives them; the old one is 1 less it, and the two add up to 1 exactly, so that its
# division by their sum changes nothing. Of prices: EMA_9, EMA_21, and the fast and slow ones of the MACD; of rises and
# falls: Wilder's 1/14, which pandas turns into a centre of mass first.
WILDER: Final = _pandas_weight((1 - 1 / 14) / (1 / 14))
WEIGHTS: Final = np.array([_span_weight(9), _span_weight(21), _span_weight(12), _span_weight(26), WILDER, WILDER])
SIGNAL_WEIGHT: Final = _span_weight(9)
_NEW: Final = WEIGHTS[:, None]
_OLD: Final = 1.0 - _NEW
_EMA_9, _EMA_21, _FAST, _SLOW, _RISE, _FALL, _SIGNAL = range(len(WEIGHTS) + 1)
SIGNAL_FIRST_ROW: Final = 25  # of a window: the first row with a MACD seeds its signal line

# Windows whose first rows are within so many rows of each other share a proof. Of 1,250 simulated tokens over 90 days,
# 3 in 100 of some tokens' hours missing, this leaves 40 of 1.6 million full windows to be computed alone, and none of
# those of 690 rows; twice as many to a group would leave 1,200 and 160, half as many cost twice the proofs.
GROUP: Final = 60
# Rows after the last of their first rows where the enclosing paths begin: earlier ones would run longer, later ones
# would gain nothing on the allowance for rounding.
MEMORY: Final = 420
MOST_ROWS: Final = 720  # that a window can hold at most
_CHECKED: Final = 8  # steps between looks at whether paths have met
_SIDE_BY_SIDE: Final = 8192  # proofs, or single windows: fewer would cost more calls, more would leave the cache
_NEVER: Final = np.iinfo(np.int64).max

# How far a window's average may be from the run's after MEMORY rows, in units of the greatest value that either has
# had: what is left of the distance at the window's first row, and twice the rounding errors of all steps. A step
# rounds two products and their sum, by less than 2.1 units of 2**-53; fading, they add up to at most 14 steps' worth.
_ROUNDING: Final = 2 * 2.1 * 14 * 2.0**-53
MOVES_APART: Final = (13 / 14) ** MEMORY + 1.5 * _ROUNDING
# The signal line takes over the distances of both averages of the MACD, 1.5 times in sum, and has its own.
PRICES_APART: Final = 4 * (25 / 27) ** MEMORY + 3 * _ROUNDING


def average_values(price: _Floats, begins: _Ints, starts: _Ints, ends: _Ints) -> dict[str, _Floats]:
    """`AVERAGE_COLUMNS` of the windows from `starts` to `ends` (rows of `price`), as if each had enough rows.

    `price` holds the rows of one token after the other, the first of which are `begins`.
    """
    if len(ends) <= len(begins):
        return _columns(_alone(price, starts, ends))  # a run would serve one window of each token
    run = _run(price, begins)
    column = np.repeat(np.arange(len(begins)), run.lengths)[ends]
    first = starts - begins[column]
    cell = column * run.price.shape[1] + ends - begins[column]
    paths = run.paths.reshape(len(run.paths), -1)[:, cell]
    alone = np.flatnonzero(~_proven(run, column, first, first + ends - starts))
    paths[:, alone] = _alone(price, starts[alone], ends[alone])
    return _columns(paths)


def _columns(paths: _Floats) -> dict[str, _Floats]:
    """`AVERAGE_COLUMNS` from the averages (7, windows)."""
    rise, fall = paths[_RISE], paths[_FALL]
    with np.errstate(divide="ignore", invalid="ignore"):
        strength = np.where(fall == 0, 100.0, 100 - 100 / (1 + rise / fall))
    values = (strength, paths[_EMA_9], paths[_EMA_21], paths[_FAST] - paths[_SLOW], paths[_SIGNAL])
    return dict(zip(AVERAGE_COLUMNS, values, strict=True))


@dataclass(frozen=True)
class _Run:
    """Averages over all rows of tokens, a line each, NaN after its last: price (tokens, rows), paths (7, ...)."""

    price: _Floats
    paths: _Floats
    lengths: _Ints


def _run(price: _Floats, begins: _Ints) -> _Run:
    lengths = np.diff(begins, append=len(price))
    # An odd width: columns that are a power of two apart would push each other out of the processor's cache.
    width = int(lengths.max()) | 1
    there = np.arange(width) < lengths[:, None]
    wide = np.full(there.shape, np.nan)
    wide[there] = price
    paths = np.full((len(WEIGHTS) + 1, *wide.shape), np.nan)
    earlier = wide[:, 0].copy()
    state = _first(earlier)
    paths[:, :, 0] = state
    for row in range(1, width):
        now = wide[:, row].copy()
        state = _next(state, row, now, earlier)
        paths[:, :, row] = state
        earlier = now
    return _Run(wide, paths, lengths)


def _first(price: _Floats) -> _Floats:
    """The averages at first rows: the price, no move, which `ta` counts as one of 0, and no signal line."""
    state = np.zeros((len(WEIGHTS) + 1, len(price)))
    state[:_RISE], state[_SIGNAL] = price, np.nan
    return state


def _next(state: _Floats, row: int, price: _Floats, earlier: _Floats) -> _Floats:
    """The averages (7, tokens) at row number `row` from those at the row before."""
    inputs = np.empty((len(WEIGHTS), len(price)))
    inputs[:_RISE] = price
    np.subtract(price, earlier, out=inputs[_RISE])
    np.negative(inputs[_RISE], out=inputs[_FALL])
    np.maximum(inputs[_RISE:], 0.0, out=inputs[_RISE:])
    out = np.empty_like(state)
    _smooth(state[:_SIGNAL], inputs, _NEW, out[:_SIGNAL])
    macd = out[_FAST] - out[_SLOW]
    if row <= SIGNAL_FIRST_ROW:
        out[_SIGNAL] = macd if row == SIGNAL_FIRST_ROW else np.nan
    else:
        _smooth(state[_SIGNAL], macd, SIGNAL_WEIGHT, out[_SIGNAL])
    return out


def _smooth(earlier: _Floats, inputs: _Floats, new: _Floats | float, out: _Floats) -> None:
    """One row of `ewm(adjust=False)`, in which an average that equals its input stays untouched by rounding."""
    np.multiply(earlier, 1.0 - new, out=out)
    same = earlier == inputs
    out += inputs * new
    if same.any():
        np.copyto(out, earlier, where=same)


def _proven(run: _Run, token: _Ints, first: _Ints, last: _Ints) -> _Bools:
    """Which windows, from row `first` to row `last` of a token, have the averages of the run, to the last bit."""
    group = -(-first // GROUP)
    wanted = np.zeros((len(run.lengths), int(group.max(initial=0)) + 1), dtype=bool)
    wanted[token, group] = True
    wanted[:, 0] = False  # windows that begin with their token are the run itself
    met = np.full(wanted.shape, _NEVER)
    met[:, 0] = 0
    tokens, groups = np.nonzero(wanted)
    inside = groups * GROUP + MEMORY < run.lengths[tokens]
    tokens, groups = tokens[inside], groups[inside]
    if len(groups):
        met[tokens, groups] = _meeting_rows(run, tokens, groups)
    return np.asarray(met[token, group] <= last)


def _meeting_rows(run: _Run, tokens: _Ints, groups: _Ints) -> _Ints:
    """For each token and group the row from which on its windows have the run's averages."""
    row = groups * GROUP + MEMORY
    # The last row that a window of the group can have, or that there is.
    last = np.minimum(groups * GROUP + MOST_ROWS - 1, run.lengths[tokens] - 1)
    place = tokens * run.price.shape[1] + np.array([row, last])
    prices, rises, falls = _apart(run)[:, tokens, groups - 1]
    met = np.maximum.reduce(
        [
            _enclosed(run, (_EMA_9, _EMA_21), prices, *place),
            _enclosed(run, (_RISE, _FALL), np.stack([rises, falls]), *place),
            _enclosed(run, (_FAST, _SLOW, _SIGNAL), prices, *place),
        ]
    )
    return np.where(met == _NEVER, _NEVER, met - place[0] + row)


def _apart(run: _Run) -> _Floats:
    """How far paths of a group's windows may be from the run's where its proof begins: (3, tokens, groups).

    The three are averages of prices, of rises and of falls. Group 0 has no proof; that of group g spans the rows after
    (g - 1) * GROUP to g * GROUP + MEMORY.
    """
    prices = run.price
    for path in run.paths[:_RISE]:
        prices = np.maximum(prices, path)
    begins = np.arange(1, run.price.shape[1], GROUP)
    found = []
    for path, part in ((prices, PRICES_APART), (run.paths[_RISE], MOVES_APART), (run.paths[_FALL], MOVES_APART)):
        greatest = spans = np.maximum.reduceat(path, begins, axis=1)
        for later in range(1, MEMORY // GROUP + 1):
            greatest = np.maximum(greatest[:, :-1], spans[:, later:])
        found.append(greatest * part)
    return np.stack(found)


def _enclosed(run: _Run, which: tuple[int, ...], apart: _Floats, place: _Ints, last: _Ints) -> _Ints:
    """Where, not later than `last`, lower and upper paths of two averages have met that begin at `place`.

    They begin so far `apart` from the run. A third average is the signal line of the two. All are places in the
    flattened arrays of the run; `_NEVER` where they have not met.
    """
    price, met = run.price.ravel(), np.full(len(place), _NEVER)
    middle = np.stack([run.paths[average].ravel()[place] for average in which])
    begin = np.stack([middle - apart, middle + apart])
    which_of, at, paths, pending = place[:0], place[:0], begin[..., :0], 0
    while len(at) or pending < len(place):
        # Proofs end after few rows or many: others take the place of those that have.
        more = np.arange(pending, min(pending + _SIDE_BY_SIDE - len(at), len(place)))
        pending += len(more)
        which_of, at = np.append(which_of, more), np.append(at, place[more])
        paths = np.concatenate([paths, begin[..., more]], axis=2)
        until, now = last[which_of], price[at]
        for _ in range(_CHECKED):
            at = at + 1
            earlier, now = now, price[np.minimum(at, until)]
            paths = _narrower(paths, which, now, earlier)
        separate = (paths[0] != paths[1]).any(axis=0)
        met[which_of[~separate]] = at[~separate]
        going = separate & (at < until)
        which_of, at, paths = which_of[going], at[going], paths[..., going]
    return met


def _narrower(paths: _Floats, which: tuple[int, ...], price: _Floats, earlier: _Floats) -> _Floats:
    """Lower and upper paths (2, 2 or 3, places) of the averages `which`, one row on."""
    inputs = price[None, None]
    if which[0] == _RISE:
        move = price - earlier
        inputs = np.maximum(np.stack([move, -move]), 0.0)[None]
    out = np.empty_like(paths)
    _narrow(paths[:, :2], inputs, _NEW[list(which[:2])], out[:, :2])
    if which[-1] == _SIGNAL:
        macd = out[:, 0] - out[::-1, 1]  # the lowest less the highest, the highest less the lowest
        _narrow(paths[:, 2], macd, SIGNAL_WEIGHT, out[:, 2])
    return out


def _narrow(paths: _Floats, inputs: _Floats, new: _Floats | float, out: _Floats) -> None:
    """One row of lower and upper paths whose inputs are between a lower and an upper one, too, or are one."""
    np.multiply(paths, 1.0 - new, out=out)
    out += inputs * new
    # Between them an average may equal its input, and is then left as it is instead of rounded.
    touched = paths[0] <= inputs[-1]
    touched &= inputs[0] <= paths[1]
    if touched.any():
        low, high = np.maximum(paths[0], inputs[0]), np.minimum(paths[1], inputs[-1])
        one = touched & (paths[0] == paths[1]) & (inputs[0] == inputs[-1])
        out[0] = np.where(touched, np.where(one, low, np.minimum(out[0], low)), out[0])
        out[1] = np.where(touched, np.where(one, high, np.maximum(out[1], high)), out[1])


def _alone(price: _Floats, starts: _Ints, ends: _Ints) -> _Floats:
    """The averages (7, windows) of windows, each from its own first row."""
    found = np.empty((len(WEIGHTS) + 1, len(starts)))
    longest_first = np.argsort(starts - ends, kind="stable")
    for low in range(0, len(starts), _SIDE_BY_SIDE):
        which = longest_first[low : low + _SIDE_BY_SIDE]
        start, moves = starts[which], ends[which] - starts[which]
        earlier = price[start]
        state = _first(earlier)
        found[:, which] = state
        for row in range(1, int(moves[0]) + 1):
            left = int(np.searchsorted(-moves, -row, side="right"))  # windows that have so many rows
            now = price[start[:left] + row]
            state = _next(state[:, :left], row, now, earlier[:left])
            ended = int(np.searchsorted(-moves, -row, side="left"))
            found[:, which[ended:left]] = state[:, ended:]
            earlier = now
    return found
