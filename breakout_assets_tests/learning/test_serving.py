"""The file of serving models is what the archives say, whoever writes at once and whatever is lost on the way."""

import logging
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from upath import UPath

from breakout_assets import objects
from breakout_assets.learning import model_files
from breakout_assets.learning.model_files import load, save
from breakout_assets.learning.packed import file_bytes, packed, packed_row
from breakout_assets.learning.recipes import POOLED
from breakout_assets.learning.serving import publish, refresh, serving_models
from breakout_assets.learning.training import FittedModel
from breakout_assets.store import Store
from breakout_assets_tests.learning.test_predicting import HOUR, POOLING, RECIPE, trained

OLDER, NEWER = HOUR - timedelta(hours=5), HOUR


def files(store: Store, below: str = "*.arrow") -> list[str]:
    return sorted(path.name for path in (store.root / "serving").rglob(below))


@pytest.fixture
def archives_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the tokens whose archives were opened."""
    read: list[str] = []

    def noted(folder: UPath) -> FittedModel:
        read.append(folder.parent.name)
        return load(folder)

    monkeypatch.setattr(model_files, "load", noted)
    return read


def test_the_newest_generation_of_every_token_serves_and_is_read_at_once(
    store: Store, archives_read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, until in (("A-1", OLDER), ("A-1", NEWER), ("B-2", OLDER), (POOLED, NEWER)):
        publish(store, trained(name, until))
    made = serving_models(store, RECIPE)
    assert made.about["trained_until"].to_dict() == {"A-1": NEWER, "B-2": OLDER, POOLED: NEWER}
    assert sorted(archives_read) == ["A-1", POOLED, "B-2"]
    archives_read.clear()
    reads: list[str] = []
    monkeypatch.setattr(objects, "read", reads.append)
    found = serving_models(store, RECIPE)
    assert found.digest == made.digest
    assert archives_read == reads == []
    assert files(store) == [f"000001-{made.digest}.arrow"]


def test_a_generation_that_was_written_since_is_folded_in_and_only_that_one_is_opened(
    store: Store, archives_read: list[str]
) -> None:
    publish(store, trained("A-1", OLDER))
    publish(store, trained("B-2", OLDER))
    before = serving_models(store, RECIPE)
    archives_read.clear()
    publish(store, trained("B-2", NEWER))
    assert files(store, "changed/*") == ["B-2@20240601T05"]
    after = serving_models(store, RECIPE)
    assert archives_read == ["B-2"]
    assert after.about["trained_until"].to_dict() == {"A-1": OLDER, "B-2": NEWER}
    assert files(store) == [f"000001-{before.digest}.arrow", f"000002-{after.digest}.arrow"]
    assert files(store, "changed/*") == []


def test_models_that_have_just_been_trained_need_not_be_read_again(store: Store, archives_read: list[str]) -> None:
    model = trained("A-1")
    folder = publish(store, model)
    row = packed_row(replace(model, model_hash=load(folder).model_hash))
    archives_read.clear()
    made = refresh(store, RECIPE, {str(folder): row})
    assert archives_read == []
    shutil.rmtree(str(store.root / "serving"))
    assert refresh(store, RECIPE).digest == made.digest
    assert archives_read == ["A-1"]


def test_a_crash_between_archive_and_mark_is_mended_by_the_next_model(store: Store) -> None:
    publish(store, trained("A-1"))
    serving_models(store, RECIPE)
    save(trained("B-2"), store.model_folder("B-2"))
    assert list(serving_models(store, RECIPE).about.index) == ["A-1"]
    publish(store, trained("C-3"))
    assert list(serving_models(store, RECIPE).about.index) == ["A-1", "B-2", "C-3"]


def test_a_generation_that_does_not_serve_leaves_the_one_before_in_its_place(store: Store) -> None:
    publish(store, trained("A-1", OLDER))
    publish(store, replace(trained("A-1", NEWER), serves=False))
    assert serving_models(store, RECIPE).about["trained_until"].to_dict() == {"A-1": OLDER}


def test_a_model_that_was_trained_again_with_another_verdict_takes_its_own_place(store: Store) -> None:
    publish(store, trained("A-1"))
    assert serving_models(store, RECIPE).about["shortcoming"].isna().all()
    publish(store, trained("A-1", admission=("TOO_FEW_ROWS",)))
    assert serving_models(store, RECIPE).about["shortcoming"].tolist() == ["TOO_FEW_ROWS"]


def test_a_recipe_that_pools_serves_the_pool_alone(store: Store) -> None:
    for name in ("A-1", POOLED):
        publish(store, trained(name, recipe=POOLING))
    assert list(serving_models(store, POOLING).about.index) == [POOLED]
    assert list(serving_models(store, RECIPE).about.index) == []


def test_of_two_files_of_one_number_neither_is_believed(store: Store) -> None:
    """Two writers took it, and the second ended before it had looked again."""
    publish(store, trained("A-1"))
    made = serving_models(store, RECIPE)
    [path] = (store.root / "serving").rglob("*.arrow")
    others = (packed([packed_row(trained(f"X-{n}"))], RECIPE.recipe_id) for n in range(100))
    other = next(each for each in others if each.digest > made.digest)
    path.with_name(f"000001-{other.digest}.arrow").write_bytes(file_bytes(other.table))
    assert list(serving_models(store, RECIPE).about.index) == ["A-1"]
    assert files(store)[-1] == f"000002-{made.digest}.arrow"


@pytest.mark.parametrize("damage", [b"", b"damaged"])
def test_a_damaged_file_is_made_anew_and_said(store: Store, damage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    publish(store, trained("A-1"))
    made = serving_models(store, RECIPE)
    [path] = (store.root / "serving").rglob("*.arrow")
    content = Path(path.path).read_bytes()
    path.write_bytes(damage or content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    with caplog.at_level(logging.WARNING):
        assert serving_models(store, RECIPE).digest == made.digest
    assert path.name in caplog.text
    assert files(store)[-1] == f"000002-{made.digest}.arrow"


def test_a_file_that_differs_in_one_bit_of_a_number_is_not_asked(store: Store) -> None:
    publish(store, trained("A-1"))
    made = serving_models(store, RECIPE)
    [path] = (store.root / "serving").rglob("*.arrow")
    content = bytearray(Path(path.path).read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    assert serving_models(store, RECIPE).table.equals(made.table)


def test_old_files_go_and_the_one_before_stays_for_whoever_is_about_to_read_it(store: Store) -> None:
    for n in range(4):
        publish(store, trained("A-1", HOUR - timedelta(hours=9 - n)))
        serving_models(store, RECIPE)
    assert [name[:6] for name in files(store)] == ["000003", "000004"]


def test_two_writers_that_take_the_same_number_end_with_all_models(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(store, trained("A-1"))
    original = Store.write_new
    raced: list[UPath] = []

    def write_new(self: Store, path: UPath, data: bytes) -> bool:
        if not raced:  # another process publishes and refreshes between our listing and our writing
            raced.append(path)
            publish(self, trained("B-2"))
            refresh(self, RECIPE)
        return original(self, path, data)

    monkeypatch.setattr(Store, "write_new", write_new)
    assert list(refresh(store, RECIPE).about.index) == ["A-1", "B-2"]
    assert list(serving_models(store, RECIPE).about.index) == ["A-1", "B-2"]
    assert files(store, "changed/*") == []


def test_many_who_publish_and_read_at_once_lose_nothing(store: Store) -> None:
    names = [f"T{n}-{n}" for n in range(12)]
    models = {name: trained(name) for name in names[:1]}
    models |= {name: replace(models[names[0]], name=name) for name in names}

    def work(name: str) -> Any:
        publish(store, models[name])
        return serving_models(store, RECIPE).about.index

    with ThreadPoolExecutor(4) as pool:
        seen = dict(zip(names, pool.map(work, names), strict=True))
    assert all(name in found for name, found in seen.items())
    assert list(serving_models(store, RECIPE).about.index) == sorted(names)
    assert files(store, "changed/*") == []


def test_a_bucket_serves_likewise(bucket_store: Store) -> None:
    publish(bucket_store, trained("A-1", OLDER))
    made = serving_models(bucket_store, RECIPE)
    publish(bucket_store, trained("A-1", NEWER))
    assert serving_models(bucket_store, RECIPE).about["trained_until"].to_dict() == {"A-1": NEWER}
    assert serving_models(bucket_store, RECIPE).digest != made.digest
