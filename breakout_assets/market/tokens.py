"""Which coin has which token name, for ever.

CoinMarketCap's id decides; symbol and name are attributes that change and that several coins may share. Files of the
older collector have no id: such a row is matched by its (symbol, name) where exactly one coin has been seen with that
pair, and otherwise has a name of its own. An assignment, once made, never changes, whatever is seen later: the rows
that were stored under it stay right.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from upath import UPath

from breakout_assets import objects
from breakout_assets.errors import DataError
from breakout_assets.parquet import UnreadableFileError, read_files
from breakout_assets.store import Store, parquet_bytes

Pair = tuple[str, str]
Assignment = tuple[int | None, str, str, str]
"""(id, symbol, name, token)"""

_COLUMNS: Final = {"id": "Int64", "symbol": "str", "name": "str", "token": "str"}
_ALL: Final = "all"
# A listing brings a new coin a day or so, and each is a file: after a year, an hour would begin with reading hundreds.
_COMPLETE_EVERY: Final = 50


@dataclass
class TokenRegistry:
    """The assignments made so far; `assign` adds to them, `load_registry` and `save` keep them in the store."""

    by_id: dict[int, str] = field(default_factory=dict)
    by_pair: dict[Pair, str] = field(default_factory=dict)
    """Tokens of rows without an id."""
    seen_with_id: dict[Pair, set[int]] = field(default_factory=dict)
    """Every id that a pair has been seen with."""
    files: int = 0
    added: list[Assignment] = field(default_factory=list)
    """What the store does not hold yet."""

    def everything(self) -> Iterator[Assignment]:
        """All assignments; applied in this order they make the same registry."""
        for pair, ids in self.seen_with_id.items():
            yield from ((coin_id, *pair, self.by_id[coin_id]) for coin_id in sorted(ids))
        yield from ((None, *pair, token) for pair, token in self.by_pair.items())

    def assign(self, coins: pd.DataFrame) -> pd.Series:
        """The token of each row; `coins` has id, symbol, name and timestamp. New coins are added hour by hour."""
        if coins.empty:
            return pd.Series(index=coins.index, dtype="str")
        # A listing repeats the same coins every hour: each is looked up once.
        codes, first = _distinct(coins)
        listed = coins.iloc[first]
        named = list(_identities(listed))
        if not all(self._knows(coin_id, pair) for coin_id, pair in named):
            for _, hour in listed.groupby("timestamp", sort=True):
                # All coins of that hour, since a pair that two of them share belongs to neither.
                self._add_ids(coins[coins["timestamp"] == hour["timestamp"].iloc[0]])
                for symbol, name in hour.loc[hour["id"].isna(), ["symbol", "name"]].itertuples(index=False):
                    self._token_of_pair((symbol, name))
        tokens = [self.by_pair[pair] if coin_id is None else self.by_id[coin_id] for coin_id, pair in named]
        return pd.Series(tokens, dtype="str").take(codes).set_axis(coins.index)

    def _knows(self, coin_id: int | None, pair: Pair) -> bool:
        return pair in self.by_pair if coin_id is None else coin_id in self.seen_with_id.get(pair, ())

    def _add_ids(self, coins: pd.DataFrame) -> None:
        with_id = coins[coins["id"].notna()]
        shared = with_id.groupby(["symbol", "name"])["id"].nunique()
        for coin_id, symbol, name in sorted(
            {*zip(with_id["id"].astype(int), with_id["symbol"], with_id["name"], strict=True)}
        ):
            pair = (symbol, name)
            if coin_id in self.seen_with_id.get(pair, ()):
                continue
            token = self.by_id.get(coin_id)
            if token is None:
                known = self.by_pair.get(pair)
                # Months of files without ids come first, then the ids: the series goes on under its old name, if no
                # other coin can claim it.
                free = known is not None and known not in self.by_id.values() and shared[pair] == 1
                token = known if free and known is not None else f"{_clean(symbol)}-{coin_id}"
            self._record(coin_id, pair, token)

    def _token_of_pair(self, pair: Pair) -> str:
        if pair not in self.by_pair:
            ids = self.seen_with_id.get(pair, set())
            token = (
                self.by_id[next(iter(ids))]
                if len(ids) == 1
                else _name_of_pair(pair, {*self.by_pair.values(), *self.by_id.values()})
            )
            self._record(None, pair, token)
        return self.by_pair[pair]

    def _record(self, coin_id: int | None, pair: Pair, token: str) -> None:
        self._apply(coin_id, pair, token)
        self.added.append((coin_id, *pair, token))

    def _apply(self, coin_id: int | None, pair: Pair, token: str) -> None:
        if coin_id is None:
            self.by_pair.setdefault(pair, token)
        else:
            self.by_id.setdefault(coin_id, token)
            self.seen_with_id.setdefault(pair, set()).add(coin_id)


def load_registry(store: Store) -> TokenRegistry:
    """The assignments that the store holds: the newest file of all of them, and those that came after it.

    Raises:
        DataError: a file is torn or foreign.
    """
    registry = TokenRegistry()
    numbered: dict[int, UPath] = {}
    complete: dict[int, UPath] = {}
    for file in objects.found_under(store.root / "tokens"):
        if file.path.suffix == ".parquet" and file.path.stem.isdigit():
            (complete if file.path.parent.name == _ALL else numbered)[int(file.path.stem)] = file.path
    newest = max(complete, default=0)
    later = [path for number, path in sorted(numbered.items()) if number > newest]
    paths = [complete[newest], *later] if newest else later
    fetched = [None] * len(paths) if store.is_local else objects.read_many(paths)
    try:
        rows = read_files(zip([path.path for path in paths], fetched, strict=True), _COLUMNS)
    except UnreadableFileError as error:
        raise DataError(f"the names of tokens cannot be read; restore the file from a copy: {error}") from error
    for (coin_id, pair), token in zip(_identities(rows), rows["token"].tolist(), strict=True):
        registry._apply(coin_id, pair, token)
    registry.files = len(numbered)
    return registry


def assign_tokens(store: Store, registry: TokenRegistry, coins: pd.DataFrame) -> pd.Series:
    """The token of each row of raw frames, after new assignments have been stored.

    Another process may store the same coins first; then its assignments count, and ours are made anew on top.
    """
    for _ in range(100):
        tokens = registry.assign(coins)
        if not registry.added:
            return tokens
        number = registry.files + 1
        if store.write_new(store.root / "tokens" / f"{number:06d}.parquet", _bytes(registry.added)):
            registry.files = number
            registry.added.clear()
            if number % _COMPLETE_EVERY == 0:
                store.write(store.root / "tokens" / _ALL / f"{number:06d}.parquet", _bytes(registry.everything()))
            return tokens
        vars(registry).update(vars(load_registry(store)))
    raise DataError(f"{store.root}/tokens changes faster than this process can follow; run fewer writers at once")


def _bytes(assignments: Iterable[Assignment]) -> bytes:
    rows = pd.DataFrame(list(assignments), columns=list(_COLUMNS))
    return parquet_bytes(rows.astype({"id": "Int64"}))


def _distinct(coins: pd.DataFrame) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """A number for each row, equal where id, symbol and name are, and the first row of each number."""
    combined = np.zeros(len(coins), dtype=np.int64)
    for column in ("id", "symbol", "name"):
        codes, values = pd.factorize(coins[column], use_na_sentinel=False)
        combined = pd.factorize(combined * len(values) + codes)[0].astype(np.int64)
    return combined, np.unique(combined, return_index=True)[1]


def _identities(coins: pd.DataFrame) -> Iterator[tuple[int | None, Pair]]:
    """Id and (symbol, name) of each row."""
    ids = [None if coin_id is pd.NA else int(coin_id) for coin_id in coins["id"].tolist()]
    return zip(ids, zip(coins["symbol"].tolist(), coins["name"].tolist(), strict=True), strict=True)


def _clean(symbol: str) -> str:
    """Letters and digits of a symbol: a token is a partition key, a folder and a word on the command line."""
    return re.sub(r"[^A-Za-z0-9]", "", symbol) or "X"


def _name_of_pair(pair: Pair, taken: set[str]) -> str:
    symbol, name = pair
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    token = f"{_clean(symbol)}-{re.sub(r'[^a-z0-9]+', '-', plain.lower()).strip('-') or 'x'}"
    if token in taken or re.fullmatch(r".*-\d+", token):  # a number at the end would read as a CoinMarketCap id
        token += "-" + hashlib.sha256("\0".join(pair).encode()).hexdigest()[:6]
    return token
