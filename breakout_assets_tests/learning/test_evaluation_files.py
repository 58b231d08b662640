"""What an hour knows of a recipe's evaluation: never more than there was."""

from dataclasses import replace
from datetime import datetime, timedelta

import pandas as pd
import pytest

from breakout_assets import objects
from breakout_assets.errors import DataError
from breakout_assets.learning.evaluation_files import (
    doubt_at,
    evidence_at,
    newest_table,
    read_table,
    save_report,
    save_table,
)
from breakout_assets.learning.recipes import recipe
from breakout_assets.store import Store
from breakout_assets_tests.samples import at

BY = recipe("default")
UNTIL = at("2024-06-01 00:00")
GOOD = {"verdict": {"badge": True, "reasons": []}}
BAD = {"verdict": {"badge": False, "reasons": ["PLACEBO"]}}


def table(until: datetime = UNTIL) -> pd.DataFrame:
    hours = pd.Series(pd.date_range(end=until - timedelta(hours=120), periods=3, freq="h", unit="us"))
    rows = pd.DataFrame({"timestamp": hours, "label_end": hours + pd.Timedelta(hours=120)})
    numbers = ("change", "price", "volume", "momentum", "raw", "probability", "threshold", "logistic")
    rows = rows.assign(twin=0, fold=0, y=0, token="A-1", scope="pooled", recipe_id=BY.recipe_id)
    return rows.assign(**dict.fromkeys(numbers, 0.5))


@pytest.fixture(params=["folder", "object store"])
def place(request: pytest.FixtureRequest, store: Store) -> Store:
    if request.param == "folder":
        return store
    found: Store = request.getfixturevalue("bucket_store")
    return found


def test_an_hour_knows_the_newest_evaluation_that_had_seen_no_later_price(place: Store) -> None:
    assert evidence_at(place, BY, UNTIL) is None
    save_report(place, BY, UNTIL, {"report.html": "<p>"}, GOOD)
    save_report(place, BY, UNTIL + timedelta(days=7), {}, BAD)
    before, first, second, newest = (
        evidence_at(place, BY, hour) for hour in (UNTIL - timedelta(hours=1), UNTIL, UNTIL + timedelta(days=7), None)
    )
    assert before is None
    assert first is not None
    assert (first.evaluated_until, first.badge, first.reasons) == (UNTIL, True, ())
    assert second == newest
    assert second is not None
    assert (second.badge, second.reasons) == (False, ("PLACEBO",))
    assert evidence_at(place, replace(BY, cost=0.02), None) is None


def test_tables_likewise(place: Store) -> None:
    assert newest_table(place, BY) is None
    paths = [save_table(place, BY, table(UNTIL + timedelta(days=n))) for n in (0, 7)]
    assert newest_table(place, BY, UNTIL - timedelta(hours=1)) is None
    assert newest_table(place, BY, UNTIL + timedelta(days=6)) == paths[0]
    assert newest_table(place, BY) == paths[1]
    found = read_table(paths[0])
    pd.testing.assert_frame_equal(found, table()[found.columns], check_dtype=False)


def test_files_of_other_names_are_not_looked_at(place: Store) -> None:
    path = save_table(place, BY, table())
    for name in (f"old-{path.name}", f"{path.name}.part"):
        place.write(path.parent / name, objects.read(path))
    assert newest_table(place, BY) == path


def test_each_doubt_has_its_code(store: Store) -> None:
    assert doubt_at(store, BY, UNTIL) == "NO_EVIDENCE"
    save_report(store, BY, UNTIL, {}, GOOD)
    assert doubt_at(store, BY, UNTIL - timedelta(hours=1)) == "NO_EVIDENCE"
    assert doubt_at(store, BY, UNTIL) is None
    assert doubt_at(store, BY, UNTIL + timedelta(days=35)) is None
    assert doubt_at(store, BY, UNTIL + timedelta(days=35, hours=1)) == "EVIDENCE_EXPIRED"
    look = store.root / "model_monitoring" / f"{UNTIL:%Y%m%dT%H}.json"
    store.write(look, f'{{"halt": true, "recipe_id": "{BY.recipe_id}"}}'.encode())
    assert doubt_at(store, BY, UNTIL) == "REALISED_LOSS"
    store.write(look, b'{"halt": true, "recipe_id": "another"}')
    assert doubt_at(store, BY, UNTIL) is None
    save_report(store, BY, UNTIL, {}, BAD)
    assert doubt_at(store, BY, UNTIL) == "NOT_PROVEN"


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"recipe_id": "x"}', f'{{"recipe_id": "{BY.recipe_id}", "verdict": {{}}}}'.encode()]
)
def test_torn_or_foreign_evidence_is_refused_by_its_path(store: Store, content: bytes) -> None:
    folder = save_report(store, BY, UNTIL, {}, GOOD)
    objects.write(folder / "evidence.json", content)
    with pytest.raises(DataError, match=r"evidence\.json is torn or foreign"):
        evidence_at(store, BY)


def test_a_torn_look_is_refused_and_stops_trading(store: Store) -> None:
    save_report(store, BY, UNTIL, {}, GOOD)
    store.write(store.root / "model_monitoring" / f"{UNTIL:%Y%m%dT%H}.json", b"torn")
    with pytest.raises(DataError, match="materialise model_monitoring again"):
        doubt_at(store, BY, UNTIL)


def test_a_torn_or_missing_table_is_refused_by_its_path(store: Store) -> None:
    path = save_table(store, BY, table())
    objects.write(path, b"torn")
    with pytest.raises(DataError, match=r"20240601T00\.parquet is torn or foreign"):
        read_table(path)
    objects.delete(path)
    with pytest.raises(DataError, match="is missing"):
        read_table(path)
