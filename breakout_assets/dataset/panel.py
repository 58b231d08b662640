"""Market rows token by token and in time order, as indicators read them.

A history of the whole market does not fit the processor's cache, and bringing it into order as a whole would touch its
memory several times over, which costs more than what is computed. So only the order is made of all of it; values are
gathered for some tokens at a time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, NoReturn

import numpy as np
import numpy.typing as npt
import pandas as pd

from breakout_assets.coded_text import categories_of
from breakout_assets.errors import DataError

_HOUR: Final = timedelta(hours=1) // timedelta(microseconds=1)
_TOKENS: Final = 64  # whose rows are put in order together: of a month they stay in the processor's cache

_Floats = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]
_Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Rows:
    """Rows in the order of their tokens and, within one, of their hours.

    Attributes:
        token: number of the row's token.
        hour: hours since 1970.
        values: the columns asked for, NaN where they are null.
    """

    token: _Ints
    hour: _Ints
    values: Sequence[_Floats]

    def part(self, begin: int, end: int) -> "Rows":
        """Some that follow each other."""
        part = slice(begin, end)
        return Rows(self.token[part], self.hour[part], [column[part] for column in self.values])

    def begins(self) -> _Ints:
        """The first row of each token."""
        return np.flatnonzero(np.diff(self.token, prepend=-1))


@dataclass(frozen=True)
class Panel:
    """Rows of a market from one hour to another, with the order of their tokens and hours.

    Attributes:
        frame: the rows, in any order and among others.
        names: the tokens in the order of the alphabet; a token's number is its place.
        order: where in the frame the rows stand, by token and hour.
        bounds: where in `order` the rows of each token begin, and how many there are.
    """

    frame: pd.DataFrame
    names: pd.Index
    order: _Ints
    bounds: _Ints

    @classmethod
    def of(
        cls, frame: pd.DataFrame, columns: Sequence[str], first: int, last: int, kept: _Bools | None = None
    ) -> "Panel":
        """The rows of a frame from the hour `first` to the hour `last` (since 1970); of these, those that are `kept`.

        Args:
            frame: one row per token and hour, in any order, with `token`, `timestamp` (naive UTC) and `columns`.
            columns: what will be read of them.
            first: an hour.
            last: an hour, included.
            kept: which rows count; None for all.

        Raises:
            DataError: a column is missing or of the wrong type, a token or timestamp is null, a timestamp is no whole
                hour, or a token has two rows for one hour.
        """
        _check_columns(frame, columns)
        token, moment = categories_of(frame["token"]), _moments(frame)
        codes = token.cat.codes.to_numpy()
        for name, null in (("token", codes < 0), ("timestamp", frame["timestamp"].isna().to_numpy())):
            unknown = int((null if kept is None else null & kept).sum())
            if unknown:
                raise DataError(f"{unknown} rows have no {name}; leave them out beforehand.")
        # What lies within the last hour is no whole hour either, and is refused as one of it.
        read = (moment >= first * _HOUR) & (moment < (last + 1) * _HOUR)
        codes = np.where(read if kept is None else read & kept, codes, np.array(-1, dtype=codes.dtype))
        order = np.argsort(codes, kind="stable")
        begins = codes[order].searchsorted(np.arange(len(token.cat.categories), dtype=codes.dtype))
        bounds = np.append(begins, len(order))
        panel = cls(frame, token.cat.categories, order[bounds[0] :], bounds - bounds[0])
        for low, high in panel.batches(_TOKENS):
            panel._bring_in_order(low, high, moment)
        return panel

    def batches(self, tokens: int) -> Iterator[tuple[int, int]]:
        """All tokens, so many at a time: the number of the first, and that after the last."""
        return ((low, min(low + tokens, len(self.names))) for low in range(0, len(self.names), tokens))

    def count(self, first: int, last: int) -> int:
        """How many rows are of these hours."""
        moment = _moments(self.frame)
        return int(((moment >= first * _HOUR) & (moment <= last * _HOUR))[self.order].sum())

    def part(self, low: int, high: int, columns: Sequence[str], first: int, last: int) -> tuple[Rows, _Ints]:
        """The rows of some tokens, from number `low` up to but not with `high`, of the hours from `first` to `last`.

        And where in the frame each of them stands.
        """
        token, place = self._tokens(low, high), self._places(low, high)
        hour = _moments(self.frame)[place] // _HOUR
        inside = np.flatnonzero((hour >= first) & (hour <= last))
        if len(inside) < len(hour):
            token, place, hour = token[inside], place[inside], hour[inside]
        values = [self.frame[name].array.take(place).to_numpy(dtype=np.float64, na_value=np.nan) for name in columns]
        return Rows(token, hour, values), place

    def _places(self, low: int, high: int) -> _Ints:
        return self.order[self.bounds[low] : self.bounds[high]]

    def refuse(self, place: int, what: str) -> NoReturn:
        """Say what is wrong with the row that stands there."""
        row = self.frame.iloc[place]
        detail = ", ".join(f"{name} {row[name]}" for name in ("price", "volume") if name in row)
        raise DataError(f"Token {row['token']} at {row['timestamp']:%Y-%m-%d %H:%M} {what} ({detail}).")

    def _tokens(self, low: int, high: int) -> _Ints:
        return np.repeat(np.arange(low, high), np.diff(self.bounds[low : high + 1]))

    def _bring_in_order(self, low: int, high: int, moment: _Ints) -> None:
        """The rows of some tokens by their hours, as those of files that are read one after the other are already."""
        token, place = self._tokens(low, high), self._places(low, high)
        moment = moment[place]
        if not ((np.diff(moment) > 0) | (np.diff(token) > 0)).all():
            order = np.lexsort((moment, token))
            place[:], moment = place[order], moment[order]
        whole = moment % _HOUR == 0
        if not whole.all():
            self.refuse(place[np.argmin(whole)], "is not a whole hour; round the observation down to its hour")
        later = (np.diff(moment) > 0) | (np.diff(token) > 0)
        if not later.all():
            self.refuse(place[np.argmin(later) + 1], "has more than one row; keep one row a token and hour")


def _check_columns(frame: pd.DataFrame, columns: Sequence[str]) -> None:
    missing = [column for column in ("token", "timestamp", *columns) if column not in frame.columns]
    if missing:
        raise DataError(f"Indicators need the columns {', '.join(missing)}, which the rows do not have.")
    if not pd.api.types.is_datetime64_dtype(frame["timestamp"].dtype):
        raise DataError(f"The column timestamp is {frame['timestamp'].dtype}; indicators need naive UTC datetimes.")


def _moments(frame: pd.DataFrame) -> _Ints:
    return frame["timestamp"].to_numpy().astype("datetime64[us]", copy=False).view(np.int64)
