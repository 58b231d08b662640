"""Which bytes a decision was made of: the files of its hour, by path and SHA-256."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from upath import UPath

from breakout_assets import objects
from breakout_assets.store import Store

TABLES: Final = ("predictions", "live_indicators", "market_health")
RAW: Final = "hourly_snapshots"


@dataclass(frozen=True)
class Source:
    """A file that a decision rests on, and whether it is still the same."""

    table: str
    path: str
    """Below the store's root."""
    sha256: str
    """When the decision was made."""
    state: Literal["unchanged", "changed", "gone"]


def read_sources(store: Store, hour: datetime) -> dict[str, dict[str, str]]:
    """Path and SHA-256 of each file of an hour that its decision rests on, the raw snapshot among them."""
    paths = {table: store.table_path(table, hour) for table in TABLES if store.has_table(table, hour)}
    raw = store.raw_file(hour)
    if raw is not None:
        paths[RAW] = raw.path
    return {table: {"path": objects.below(store.root, path), "sha256": _sha256(path)} for table, path in paths.items()}


def compare_sources(store: Store, inputs: Mapping[str, Any]) -> list[Source]:
    """What `read_sources` told then, beside what is there now."""
    return [
        Source(table, told["path"], told["sha256"], _state(store.root / told["path"], told["sha256"]))
        for table, told in inputs.items()
    ]


def _state(path: UPath, sha256: str) -> Literal["unchanged", "changed", "gone"]:
    if not objects.exists(path):
        return "gone"
    return "unchanged" if _sha256(path) == sha256 else "changed"


def _sha256(path: UPath) -> str:
    return hashlib.sha256(objects.read(path)).hexdigest()
