"""Parsing of CoinMarketCap's answers: decoded JSON becomes a raw frame, or an error that names coin and field.

Three answers hold coins: the listing, the latest quotes of named coins, and quotes of the past. Nothing here knows
HTTP, settings or the clock.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

import pandas as pd

from breakout_assets.errors import DataError
from breakout_assets.market.schema import (
    INTEGER_COLUMNS,
    KIND_COLUMN,
    ORIGIN_COLUMN,
    ORIGIN_FOLLOWED,
    ORIGIN_HISTORY,
    ORIGIN_LISTING,
    RAW_COLUMNS,
    TEXT_COLUMNS,
    is_whole_hour,
    raw_frame,
)

CURRENCY: Final = "USD"
# Whole numbers pass through doubles on their way into a snapshot; above this bound they would change silently.
LARGEST_EXACT: Final = 2**53
LONGEST_SHOWN: Final = 60
# Quotes of the past are kept every five minutes, and the first of an hour is recorded some minutes into it; one step
# further would be another moment's price.
HISTORY_WINDOW: Final = timedelta(minutes=10)

SUPPLIES: Final = ("circulating_supply", "total_supply", "max_supply")
COIN_FIELDS: Final = ("id", "name", "symbol", *SUPPLIES, "date_added", "num_market_pairs", "cmc_rank")
# Columns that no answer has a field for.
DERIVED_COLUMNS: Final = ("timestamp", KIND_COLUMN, ORIGIN_COLUMN)
# A coin and its quote both have `last_updated`; the quote's is the age of the price.
QUOTE_FIELDS: Final = tuple(name for name in RAW_COLUMNS if name not in (*COIN_FIELDS, *DERIVED_COLUMNS))
# Fields that answers have beside those, so that a really new one is noticed.
OTHER_COIN_FIELDS: Final = frozenset(
    {
        "slug",
        "tags",
        "platform",
        "quote",
        "last_updated",
        "infinite_supply",
        "is_active",
        "is_fiat",
        "is_market_cap_included_in_calc",
        "tvl_ratio",
        "self_reported_circulating_supply",
        "self_reported_market_cap",
        "minted_market_cap",
        "unlocked_circulating_supply",
        "unlocked_market_cap",
    }
)
OTHER_QUOTE_FIELDS: Final = frozenset(
    {
        "id",
        "symbol",
        "tvl",
        "cex_volume_24h",
        "dex_volume_24h",
        "volume_24h_reported",
        "volume_7d",
        "volume_7d_reported",
        "volume_30d",
        "volume_30d_reported",
        "minted_market_cap",
        "market_cap_by_total_supply",
    }
)
JSON_KINDS: Final[dict[type, str]] = {
    type(None): "null",
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "an object",
}

_Row = dict[str, object]


def parse_listing(body: Mapping[str, object], hour: datetime) -> pd.DataFrame:
    """The coins of a decoded listing, in the shape of version 1 (quotes by currency) or 3 (a list of quotes).

    Rows keep the listing's order, and a coin that is listed twice keeps both. A field that is absent or null for some
    coins is null; unknown fields are ignored (`new_fields` names them).

    Args:
        body: The decoded answer; only `data` is read.
        hour: Whole hour, naive UTC; becomes `timestamp`.

    Returns:
        Raw frame (`schema.RAW_COLUMNS`), at least one row, `origin` the listing.

    Raises:
        DataError: No coins, a field that every coin lacks, or a coin with a value that cannot be believed.
    """
    refuse_odd_hour(hour)
    coins = body.get("data")
    if not isinstance(coins, list) or not coins:
        raise DataError(
            f"`data` holds no list of coins (it is {'empty' if coins == [] else kind_of(coins)}); nothing was stored."
        )
    fields = _for_each(coins, _fields)
    missing = [name for name in (*COIN_FIELDS, *QUOTE_FIELDS) if not any(name in one for one in fields)]
    if missing:
        raise DataError(
            f"none of the {len(coins)} coins has the fields {', '.join(missing)}; nothing was stored. "
            "Try the other BREAKOUT_CMC_VERSION; if it lacks them too, the format has changed."
        )
    return _frame(_for_each(coins, _values), hour, ORIGIN_LISTING)


def parse_quotes(body: Mapping[str, object], hour: datetime, ids: Sequence[int]) -> pd.DataFrame:
    """The latest quotes of named coins; `data` is a map by id or a list.

    A coin that the answer lacks, or whose dollar price is null or absent with its whole quote, has no row; a coin that
    was not asked for has none either.

    Args:
        body: The decoded answer; only `data` is read.
        hour: Whole hour, naive UTC; becomes `timestamp`.
        ids: The coins that were asked for.

    Returns:
        Raw frame, possibly empty, `origin` followed.

    Raises:
        DataError: `data` holds no quotes, or a coin has a value that cannot be believed.
    """
    refuse_odd_hour(hour)
    rows = _for_each(coins_by_id(body), _priced_values)
    return _frame(_wanted(rows, ids), hour, ORIGIN_FOLLOWED)


def parse_past(body: Mapping[str, object], hour: datetime, ids: Sequence[int]) -> pd.DataFrame:
    """The quotes of named coins at the beginning of a past hour.

    Of each coin the first quote counts that was recorded in the hour's first ten minutes (`HISTORY_WINDOW`); a coin
    without one has no row. What the history does not tell (rank, pairs, tags, some changes) is null.

    Args:
        body: The decoded answer; `data` is one coin with its `quotes`, a map of such coins by id, or a list of them.
        hour: Whole hour, naive UTC; becomes `timestamp`.
        ids: The coins that were asked for.

    Returns:
        Raw frame, possibly empty, `origin` history.

    Raises:
        DataError: `data` holds no coins, or one has a quote whose time or values cannot be believed.
    """
    refuse_odd_hour(hour)
    data = body.get("data")
    alone = isinstance(data, dict) and "quotes" in data
    rows = _for_each([data] if alone else coins_by_id(body), partial(_past_values, hour=hour))
    return _frame(_wanted(rows, ids), hour, ORIGIN_HISTORY)


def coins_by_id(body: Mapping[str, object]) -> list[object]:
    """The coins of `data`, whether it is a list or a map by id to a coin or to a list of coins.

    Raises:
        DataError: it is neither.
    """
    data = body.get("data")
    if isinstance(data, list):
        return data
    if not isinstance(data, dict):
        raise DataError(f"`data` holds no quotes (it is {kind_of(data)}); nothing was stored.")
    coins: list[object] = []
    for key, value in data.items():
        for coin in value if isinstance(value, list) else [value]:
            unnamed = isinstance(coin, dict) and coin.get("id") is None and whole(key) is not None
            coins.append({**coin, "id": whole(key)} if unnamed else coin)
    return coins


def new_fields(coins: object) -> list[str]:
    """Names of coin and quote fields that this parser has never heard of, sorted, as `coin.x` and `quote.x`."""
    found: set[str] = set()
    for coin in coins if isinstance(coins, list) else []:
        if isinstance(coin, dict):
            found |= {f"coin.{name}" for name in coin.keys() - OTHER_COIN_FIELDS - set(COIN_FIELDS)}
            quote = _dollar_quote(coin.get("quote"))
            found |= {f"quote.{name}" for name in quote.keys() - OTHER_QUOTE_FIELDS - set(QUOTE_FIELDS)}
    return sorted(found)


def refuse_odd_hour(hour: datetime) -> None:
    """Refuse what is not a whole hour in naive UTC."""
    if not is_whole_hour(hour) or hour.tzinfo is not None:
        raise DataError(f"{hour} is not a whole hour in naive UTC; name the hour by its beginning.")


def utc_time(value: object) -> datetime | None:
    """A time of an answer as naive UTC, None if it is none; one without a zone is UTC."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
        return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
    except (ValueError, OverflowError):
        return None


def whole(value: object) -> int | None:
    """A whole number that may be written as text, as the interface without a key does; None if it is not one."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST_EXACT:
        return None
    return int(value) if isinstance(value, int) or value.is_integer() else None


def kind_of(value: object) -> str:
    """What a JSON value is, for people."""
    return JSON_KINDS.get(type(value), type(value).__name__)


def shown(value: object) -> str:
    """A short value as it is. A long one is named by its kind and not cut: half a key could not be recognised."""
    if isinstance(value, str) and len(value) <= LONGEST_SHOWN:
        return repr(value)
    if isinstance(value, int | float) and abs(value) <= LARGEST_EXACT:
        return str(value)
    return kind_of(value)


def _frame(rows: Sequence[_Row], hour: datetime, origin: str) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=list(RAW_COLUMNS), dtype="object")
    return raw_frame(frame.assign(timestamp=pd.Timestamp(hour), origin=origin))


def _wanted(rows: Sequence[_Row], ids: Sequence[int]) -> list[_Row]:
    """Rows of the coins that were asked for and that have a price; ids are exact as floats (`LARGEST_EXACT`)."""
    wanted = {float(one) for one in ids}
    return [row for row in rows if row and row["id"] in wanted and row["price"] is not None]


def _for_each(coins: Sequence[object], read: Callable[[object], _Row]) -> list[_Row]:
    rows = []
    for position, coin in enumerate(coins, start=1):
        try:
            rows.append(read(coin))
        except DataError as error:
            known = coin if isinstance(coin, dict) else {}
            label = f"coin {position} (id {shown(known.get('id'))}, symbol {shown(known.get('symbol'))})"
            raise DataError(f"{label}: {error}; nothing was stored.") from None
    return rows


def _fields(coin: object) -> _Row:
    """The fields a snapshot needs, as far as the coin and its quote have them."""
    if not isinstance(coin, dict):
        raise DataError(f"it is {kind_of(coin)} instead of an object")
    quote = _dollar_quote(coin.get("quote"))
    return {name: coin[name] for name in COIN_FIELDS if name in coin} | {
        name: quote[name] for name in QUOTE_FIELDS if name in quote
    }


def _dollar_quote(quotes: object) -> Mapping[str, object]:
    """The quote in dollars, empty if there is none: a coin without a price is not worth losing the hour."""
    if quotes is None:
        return {}
    if isinstance(quotes, dict):
        found = [quotes[CURRENCY]] if quotes.get(CURRENCY) is not None else []
    elif isinstance(quotes, list):
        # By symbol, never by position: the order of the list is not promised.
        found = [entry for entry in quotes if not isinstance(entry, dict) or entry.get("symbol") == CURRENCY]
    else:
        found = [quotes]
    wrong = [entry for entry in found if not isinstance(entry, dict)]
    if wrong:
        raise DataError(f"field quote holds {kind_of(wrong[0])} instead of an object")
    if len(found) > 1:
        raise DataError(f"field quote has {len(found)} entries for {CURRENCY}, and which one holds is unknown")
    return found[0] if found else {}


def _values(coin: object) -> _Row:
    """The fields of one coin, checked, and its kind; numbers as floats."""
    given = _fields(coin)
    row: _Row = {}
    for name in (*COIN_FIELDS, *QUOTE_FIELDS):
        value = given.get(name)
        try:
            row[name] = _text(value) if name in TEXT_COLUMNS else _number(value, integer=name in INTEGER_COLUMNS)
        except DataError as error:
            raise DataError(f"field {name} {error}") from None
    identifier, symbol = row["id"], row["symbol"]
    if not isinstance(identifier, float) or identifier < 1:
        raise DataError("field id is missing or not positive, and without it the coin cannot be told from others")
    if not isinstance(symbol, str) or not symbol.strip():
        raise DataError("field symbol is missing or blank")
    row[KIND_COLUMN] = _kind(coin.get("tags")) if isinstance(coin, dict) else None
    return row


def _kind(tags: object) -> str | None:
    """What the tags say the coin is; null where there are none to read. A tag is text, or an object that names it."""
    if tags is None:
        return None
    if not isinstance(tags, list):
        raise DataError(f"field tags is {kind_of(tags)} instead of a list")
    words: list[str] = []
    for tag in tags:
        if not isinstance(tag, str | dict):
            raise DataError(f"field tags holds {kind_of(tag)} instead of text or an object")
        names = [tag] if isinstance(tag, str) else [tag.get("slug"), tag.get("name")]
        words += [name.strip().lower().replace(" ", "-") for name in names if isinstance(name, str)]
    if any("stablecoin" in word for word in words):
        return "stablecoin"
    if any(word == "wrapped-tokens" or "liquid-staking" in word for word in words):
        return "wrapped"
    return "coin"


def _priced_values(coin: object) -> _Row:
    """The values of a coin that was asked for by id: a null price is none, a quote without the field another format."""
    row = _values(coin)
    quote = _dollar_quote(coin.get("quote")) if isinstance(coin, dict) else {}
    if quote and "price" not in quote:
        raise DataError("field price is missing in its quote")
    return row


def _past_values(coin: object, hour: datetime) -> _Row:
    """The values of a coin at the beginning of an hour; empty if none was recorded then."""
    if not isinstance(coin, dict):
        raise DataError(f"it is {kind_of(coin)} instead of an object")
    quotes = coin.get("quotes")
    if not isinstance(quotes, list | None):
        raise DataError(f"field quotes is {kind_of(quotes)} instead of a list")
    points = [(moment, quote) for moment, quote in map(_point, quotes or []) if hour <= moment <= hour + HISTORY_WINDOW]
    if not points:
        return {}
    moment, quote = min(points, key=lambda point: point[0])
    named = {name: coin.get(name) for name in ("id", "name", "symbol")}
    supplies = {name: quote.get(name) for name in SUPPLIES}
    # The same number has two names in the documentation of this endpoint.
    renamed = {"volume_24h": quote["volume_24hr"]} if "volume_24hr" in quote else {}
    stamp = {"last_updated": f"{moment.isoformat(timespec='milliseconds')}Z"}
    return _priced_values({**named, **supplies, "quote": {CURRENCY: {**stamp, **renamed, **quote} if quote else {}}})


def _point(entry: object) -> tuple[datetime, Mapping[str, object]]:
    """When a quote of the past was recorded, and its values in dollars."""
    if not isinstance(entry, dict):
        raise DataError(f"field quotes holds {kind_of(entry)} instead of an object")
    quote = _dollar_quote(entry.get("quote"))
    stamps = [holder["timestamp"] for holder in (entry, quote) if holder.get("timestamp") is not None]
    moments = [moment for moment in map(utc_time, stamps) if moment is not None]
    if not stamps or len(moments) < len(stamps):
        raise DataError("field timestamp of a quote is missing or no time")
    # The later of the two counts: a price of another moment must not pass under the interval's name.
    return max(moments), quote


def _text(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise DataError(f"is {kind_of(value)} instead of text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise DataError("holds half of a character, which no file can store") from None
    return value


def _number(value: object, integer: bool) -> float | None:
    if value is None:
        return None
    # Text that looks like a number is refused too: a listing that begins to quote its prices has changed its format.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"is {kind_of(value)} instead of a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise DataError("is not a finite number")
    if integer and (not number.is_integer() or abs(number) >= LARGEST_EXACT):
        raise DataError("is not a whole number that can be stored exactly")
    return number
