"""Why an order exists: the chain from it to the bytes it came from, and its decision made once more."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd
from upath import UPath

from breakout_assets import objects
from breakout_assets.errors import DataError
from breakout_assets.learning.generations import read_manifest
from breakout_assets.learning.model_files import load
from breakout_assets.learning.recipes import POOLED
from breakout_assets.market.health import HealthState
from breakout_assets.market.snapshots import believed
from breakout_assets.store import Store
from breakout_assets.trading.books import Books, HourRecord, OrderEvent
from breakout_assets.trading.decide import decide, order_id, read_quotes, read_signals
from breakout_assets.trading.inputs import read_inputs
from breakout_assets.trading.ledger import Ledger
from breakout_assets.trading.lineage import Source, compare_sources
from breakout_assets.trading.orders import Fill, Order
from breakout_assets.trading.record import limits_from, rules_from

# Tables that a decision is made of. The raw snapshot is behind them, and may be gone without harm to the proof.
_NEEDED = ("predictions", "live_indicators")


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Everything that is known of an order."""

    order: Order
    entry: Order | None
    """The purchase that an exit closes."""
    events: tuple[OrderEvent, ...]
    fills: tuple[Fill, ...]
    sources: tuple[Source, ...]
    prediction: dict[str, Any] | None
    """The row that said buy; null for an exit, or where the file is gone."""
    model: dict[str, Any] | None
    """Manifest of the model that spoke; null for an exit, or where it is gone."""
    model_path: str | None
    same_score: bool | None
    """Whether the model gives the same score for the same indicators today; null where that cannot be tried."""
    same_decision: bool | None
    """Whether the decision, made once more from the same files, is the same; null where that cannot be tried."""
    differences: tuple[str, ...]
    """Why it is not the same, or cannot be tried."""


def find_order(ledger: Ledger, name: str) -> tuple[str, Order]:
    """Account and order of an id, or of its first characters.

    Raises:
        DataError: there is none, or more than one.
    """
    found = ledger.find_orders(name)
    if len(found) != 1:
        many = f"{len(found)} orders begin with it: give more of its characters" if found else "there is no such order"
        raise DataError(f"order {name!r}: {many}; trade_orders lists the ids of each hour")
    [(account, order)] = found
    return account, order


def explain(ledger: Ledger, store: Store, name: str) -> Explanation:
    """The chain of an order, and its decision made once more.

    Raises:
        DataError: there is no such order, or the ledger cannot be read.
    """
    account, order = find_order(ledger, name)
    with ledger.read(account) as books:
        record = books.record(order.hour)
        if record is None:
            raise DataError(f"the ledger has no decision of {order.hour}, although order {order.order_id} names it")
        events = tuple(books.events(order_id=order.order_id))
        fills = tuple(fill for fill in books.fills(max(e.hour for e in events)) if fill.order_id == order.order_id)
        entry = books.order(order.position) if order.position else None
        sources = tuple(compare_sources(store, json.loads(record.inputs or "{}")))
        prediction = _prediction(store, order)
        folder = _model_folder(store, order)
        differences = tuple(_differences(books, store, record, sources))
    return Explanation(
        order=order,
        entry=entry,
        events=events,
        fills=fills,
        sources=sources,
        prediction=prediction,
        model=read_manifest(folder) if folder else None,
        model_path=objects.below(store.root, folder) if folder else None,
        same_score=_same_score(store, order, folder, prediction),
        same_decision=None if _untried(store, record, sources) else not differences,
        differences=differences,
    )


def _untried(store: Store, record: HourRecord, sources: tuple[Source, ...]) -> str | None:
    """Why a decision cannot be made once more."""
    if record.rules is None or record.limits is None or record.event is None:
        return "the hour was decided before its rules were kept"
    there = {source.table: source.state for source in sources}
    wrong = []
    for table in _NEEDED:  # one that was missing then must be missing now
        state = there.get(table, "not recorded" if store.has_table(table, record.hour) else "unchanged")
        wrong += [f"{table} of the hour is {state}"] if state != "unchanged" else []
    return "; ".join(wrong) or None


def _differences(books: Books, store: Store, record: HourRecord, sources: tuple[Source, ...]) -> Iterator[str]:
    untried = _untried(store, record, sources)
    if untried:
        yield untried
        return
    hour, rules = record.hour, rules_from(record.rules or "")
    health = HealthState(record.health)
    inputs = read_inputs(store, hour)
    decision = decide(
        portfolio=books.portfolio(hour, rules.cash, record.event),
        signals=read_signals(inputs.predictions, hour),
        quotes={} if health is HealthState.HALTED else read_quotes(inputs.prices, hour),
        limits=limits_from(record.limits or ""),
        health=health,
        blocks=json.loads(record.blocks or "[]"),
        rules=rules,
        hour=hour,
    )
    again = {
        key: Order(order_id=key, **vars(each)) for each in decision.intents if (key := order_id(books.account, each))
    }
    kept = {order.order_id: order for order in books.orders(hour) if order.hour == hour}
    for key in sorted(again.keys() | kept.keys()):
        if again.get(key) != kept.get(key):
            yield f"{key}: the ledger has {_short(kept.get(key))}, made once more it is {_short(again.get(key))}"
    if sorted((each.token, str(each.code)) for each in decision.refusals) != [
        (token, code) for token, code, _ in books.refused(hour)
    ]:
        yield "other signals are refused than then"


def _short(order: Order | None) -> str:
    return "no such order" if order is None else f"{order.side} {order.quantity} {order.token} within {order.limit}"


def _prediction(store: Store, order: Order) -> dict[str, Any] | None:
    if order.purpose == "exit" or not store.has_table("predictions", order.hour):
        return None
    rows = store.read_table("predictions", [order.hour], tokens=[order.token])
    return None if rows.empty else {str(name): value for name, value in rows.iloc[0].items()}


def _model_folder(store: Store, order: Order) -> UPath | None:
    """The generation whose model file has the hash that the order names."""
    if order.model_hash is None:
        return None
    for token in (order.token, POOLED):
        for file in objects.found_under(store.model_folder(token)):
            if file.path.name == "manifest.json" and read_manifest(file.path.parent)["model_hash"] == order.model_hash:
                return file.path.parent
    return None


def _same_score(store: Store, order: Order, folder: UPath | None, prediction: dict[str, Any] | None) -> bool | None:
    if folder is None or prediction is None or not store.has_table("live_indicators", order.hour):
        return None
    rows = believed(store.read_table("live_indicators", [order.hour], tokens=[order.token]))
    if len(rows) != 1 or pd.isna(prediction["score"]):
        return None
    return bool(load(folder).scores(rows)[0] == prediction["score"])
