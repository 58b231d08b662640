"""Evaluations in the store: the table they come from, the pages, and the evidence that predictions ask for.

    out_of_sample/<recipe>-<id>/20240601T00.parquet          every out-of-sample prediction
    model_report/<recipe>-<id>/20240601T00/report.html       the page; model_card.md beside it
    model_report/<recipe>-<id>/20240601T00/evidence.json     the verdict and its figures; written last

An evaluation is named after the latest price that it has seen. A prediction for a past hour asks for the newest
evaluation from before that hour.
"""

import json
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from io import BytesIO
from typing import Any, Final

import pandas as pd
from upath import UPath

from breakout_assets import objects
from breakout_assets.errors import DataError
from breakout_assets.learning.evidence import read_verdict
from breakout_assets.learning.known_until import newest_known, stamp
from breakout_assets.learning.recipes import Recipe
from breakout_assets.learning.watching import halted_at
from breakout_assets.store import Store, parquet_bytes
from breakout_assets.tables import OUT_OF_SAMPLE, conform

# Evaluated weekly: after a month without, nobody looks any more.
EVIDENCE_AGE: Final = timedelta(days=35)
_RECIPE_DIGITS: Final = 8


@dataclass(frozen=True)
class Evidence:
    """What an evaluation found."""

    evaluated_until: datetime
    badge: bool
    reasons: tuple[str, ...]
    figures: dict[str, Any]
    folder: UPath


def folder_name(recipe: Recipe) -> str:
    """Name and id of a recipe, as folders have it."""
    plain = re.sub(r"[^A-Za-z0-9_]+", "_", recipe.name).strip("_")
    return f"{plain}-{recipe.recipe_id[:_RECIPE_DIGITS]}"


def table_path(store: Store, recipe: Recipe, until: datetime) -> UPath:
    """Where the out-of-sample table of an evaluation lies."""
    return store.root / "out_of_sample" / folder_name(recipe) / f"{stamp(until)}.parquet"


def report_folder(store: Store, recipe: Recipe, until: datetime) -> UPath:
    """Where the pages and the evidence of an evaluation lie."""
    return store.root / "model_report" / folder_name(recipe) / stamp(until)


def save_table(store: Store, recipe: Recipe, table: pd.DataFrame) -> UPath:
    """Write an out-of-sample table; it is named after the latest price in it."""
    path = table_path(store, recipe, table["label_end"].max().to_pydatetime())
    store.write(path, parquet_bytes(conform(table, "out_of_sample")))
    return path


def newest_table(store: Store, recipe: Recipe, hour: datetime | None = None) -> UPath | None:
    """The newest out-of-sample table of a recipe that had seen no price after `hour`; None if there is none."""
    found = newest_known(store.root / "out_of_sample" / folder_name(recipe), ".parquet", hour)
    return found[1] if found else None


def read_table(path: UPath) -> pd.DataFrame:
    """An out-of-sample table.

    Raises:
        DataError: there is none, or it is torn or foreign.
    """
    try:
        frame = pd.read_parquet(BytesIO(objects.read(path)), columns=list(OUT_OF_SAMPLE))
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing; materialise out_of_sample") from error
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} is torn or foreign; materialise out_of_sample again: {error}") from error
    return conform(frame, "out_of_sample")


def save_report(
    store: Store, recipe: Recipe, until: datetime, pages: dict[str, str], evidence: dict[str, Any]
) -> UPath:
    """Write the pages of an evaluation by name and then its evidence; returns their folder."""
    folder = report_folder(store, recipe, until)
    for name, text in pages.items():
        store.write(folder / name, text.encode())
    content = {**evidence, "recipe": recipe.name, "recipe_id": recipe.recipe_id}
    store.write(folder / "evidence.json", f"{json.dumps(content, indent=2, allow_nan=False)}\n".encode())
    return folder


def evidence_at(store: Store, recipe: Recipe, hour: datetime | None = None) -> Evidence | None:
    """The newest evidence for a recipe that had seen no price after `hour`; None if there is none.

    Raises:
        DataError: the file is torn or foreign.
    """
    newest = newest_known(store.root / "model_report" / folder_name(recipe), "/evidence.json", hour)
    if newest is None:
        return None
    until, path = newest
    try:
        content = json.loads(objects.read(path))
        if content["recipe_id"] != recipe.recipe_id:
            raise ValueError(f"it is of recipe {content['recipe_id']}, not {recipe.recipe_id}")
        found = read_verdict(content)
        return Evidence(until, found.badge, found.reasons, dict(content), path.parent)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is torn or foreign; materialise model_report again: {error}") from error


def doubt_at(store: Store, recipe: Recipe, hour: datetime) -> str | None:
    """Why a recipe is not trusted with money at an hour, by what was known then; None if it is."""
    evidence = evidence_at(store, recipe, hour)
    if evidence is None:
        return "NO_EVIDENCE"
    if hour - evidence.evaluated_until > EVIDENCE_AGE:
        return "EVIDENCE_EXPIRED"
    if not evidence.badge:
        return "NOT_PROVEN"
    return "REALISED_LOSS" if halted_at(store, recipe, hour) else None
