"""Which coin has which token name, for ever.

CoinMarketCap's id decides; symbol and name are attributes that change and that several coins may share. Files of the
older collector have no id: such a row is matched by its (symbol, name) where exactly one coin has been seen with that
pair, and otherwise has a name of its own. An assignment, once made, never changes, whatever is seen later: the rows
that were stored under it stay right.
"""

import hashlib
import re
import unicodedata
from dataclasses import dataclass, field
from io import BytesIO

import pandas as pd

from breakout_assets import objects
from breakout_assets.errors import DataError
from breakout_assets.store import Store, parquet_bytes

Pair = tuple[str, str]


@dataclass
class TokenRegistry:
    """The assignments made so far; `assign` adds to them, `load_registry` and `save` keep them in the store."""

    by_id: dict[int, str] = field(default_factory=dict)
    by_pair: dict[Pair, str] = field(default_factory=dict)
    """Tokens of rows without an id."""
    seen_with_id: dict[Pair, set[int]] = field(default_factory=dict)
    """Every id that a pair has been seen with."""
    files: int = 0
    added: list[tuple[int | None, str, str, str]] = field(default_factory=list)
    """(id, symbol, name, token) that the store does not hold yet."""

    def assign(self, coins: pd.DataFrame) -> pd.Series:
        """The token of each row; `coins` has id, symbol, name and timestamp. New coins are added hour by hour."""
        if coins.empty:
            return pd.Series(index=coins.index, dtype="str")
        # A listing repeats the same coins every hour: each is looked up once.
        codes, _ = pd.factorize(pd.MultiIndex.from_frame(coins[["id", "symbol", "name"]]))
        first = coins[~pd.Series(codes, index=coins.index).duplicated()]
        for _, hour in first.groupby("timestamp", sort=True):
            # All coins of that hour, since a pair that two of them share belongs to neither.
            self._add_ids(coins[coins["timestamp"] == hour["timestamp"].iloc[0]])
            for symbol, name in hour.loc[hour["id"].isna(), ["symbol", "name"]].itertuples(index=False):
                self._token_of_pair((symbol, name))
        tokens = [
            self.by_pair[symbol, name] if pd.isna(coin_id) else self.by_id[int(coin_id)]
            for coin_id, symbol, name in first[["id", "symbol", "name"]].itertuples(index=False)
        ]
        return pd.Series(tokens, dtype="str").take(codes).set_axis(coins.index)

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
    """The assignments that the store holds."""
    registry = TokenRegistry()
    folder = store.root / "tokens"
    paths = [file.path for file in objects.found_under(folder) if file.path.suffix == ".parquet"]
    for data in objects.read_many(paths):
        rows = pd.read_parquet(BytesIO(data))
        for coin_id, symbol, text, token in rows[["id", "symbol", "name", "token"]].itertuples(index=False):
            registry._apply(None if pd.isna(coin_id) else int(coin_id), (symbol, text), token)
        registry.files += 1
    return registry


def assign_tokens(store: Store, registry: TokenRegistry, coins: pd.DataFrame) -> pd.Series:
    """The token of each row of raw frames, after new assignments have been stored.

    Another process may store the same coins first; then its assignments count, and ours are made anew on top.
    """
    for _ in range(100):
        tokens = registry.assign(coins)
        if not registry.added:
            return tokens
        rows = pd.DataFrame(registry.added, columns=["id", "symbol", "name", "token"]).astype({"id": "Int64"})
        if store.write_new(store.root / "tokens" / f"{registry.files + 1:06d}.parquet", parquet_bytes(rows)):
            registry.files += 1
            registry.added.clear()
            return tokens
        vars(registry).update(vars(load_registry(store)))
    raise DataError(f"{store.root}/tokens changes faster than this process can follow; run fewer writers at once")


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
