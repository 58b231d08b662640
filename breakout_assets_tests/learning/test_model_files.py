import hashlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from upath import UPath

from breakout_assets import objects
from breakout_assets.errors import DataError
from breakout_assets.learning.generations import generations, read_manifest
from breakout_assets.learning.model_files import load, model_hash, save
from breakout_assets.learning.training import FittedModel, fit
from breakout_assets.store import Store
from breakout_assets_tests.learning.examples import SMALL, START, feature_rows

GENERATION = f"20240322T15-{SMALL.recipe_id[:8]}"


@pytest.fixture(scope="module")
def model() -> FittedModel:
    return fit(feature_rows(), SMALL, "token", "T0-0")


@pytest.fixture(params=["folder", "object store"])
def token_folder(request: pytest.FixtureRequest, tmp_path: Path) -> UPath:
    if request.param == "folder":
        return UPath(tmp_path) / "token_model" / "T0-0"
    store: Store = request.getfixturevalue("bucket_store")
    return store.model_folder("T0-0")


def change(folder: UPath, edit: Callable[[dict[str, Any]], Any]) -> None:
    manifest = json.loads(objects.read(folder / "manifest.json"))
    edit(manifest)
    objects.write(folder / "manifest.json", json.dumps(manifest).encode())


def refused(folder: UPath) -> str:
    with pytest.raises(DataError) as caught:
        load(folder)
    assert str(folder) in str(caught.value)
    return str(caught.value)


# Saving and loading --------------------------------------------------------------------------------------------


def test_a_loaded_model_is_the_saved_one(model: FittedModel, token_folder: UPath) -> None:
    folder = save(model, token_folder)
    loaded = load(folder)
    rows = feature_rows(seed=1)
    np.testing.assert_array_equal(loaded.probabilities(rows), model.probabilities(rows))
    for field in ("name", "scope", "recipe", "seed", "trained_from", "trained_until", "rows", "positives", "metrics"):
        assert getattr(loaded, field) == getattr(model, field)
    pd.testing.assert_series_equal(loaded.importances, model.importances)
    assert loaded.dropped == replace(model.dropped, later=0)
    assert model.model_hash is None
    assert loaded.model_hash == model_hash(model)


def test_a_generation_is_named_after_the_latest_price_seen(model: FittedModel, token_folder: UPath) -> None:
    folder = save(model, token_folder)
    assert folder == token_folder / GENERATION
    assert sorted(file.path.name for file in objects.found_under(folder)) == ["manifest.json", "model.skops"]


def test_the_manifest_tells_everything_and_the_time_of_day_is_not_in_it(
    model: FittedModel, token_folder: UPath
) -> None:
    manifest = read_manifest(save(model, token_folder))
    data = objects.read(token_folder / GENERATION / "model.skops")
    assert manifest["model_hash"] == hashlib.sha256(data).hexdigest()
    assert manifest["recipe"] == asdict(SMALL) | {"features": list(SMALL.features)}
    assert manifest["recipe_id"] == SMALL.recipe_id
    assert manifest["features"] == list(SMALL.features)
    assert manifest["trained_from"] == "2024-03-01T00:00:00"
    assert manifest["trained_until"] == "2024-03-22T15:00:00"
    assert manifest["metrics"]["accuracy"] == pytest.approx(model.metrics.accuracy)
    assert set(manifest["versions"]) == {"python", "numpy", "scikit-learn", "imbalanced-learn", "skops"}
    assert set(manifest) == {
        *("schema_version", "name", "scope", "model_hash", "recipe_id", "recipe", "features", "seed", "trained_from"),
        *("trained_until", "rows", "positives", "dropped", "metrics", "importances", "versions", "feature_set_hash"),
        *("data_hash", "serves", "expires_at", "calibration", "own_threshold", "admission"),
    }


def test_an_undefined_area_survives_as_null(token_folder: UPath) -> None:
    rows = feature_rows()
    rows.loc[320:, "y"] = 0
    model = fit(rows, SMALL, "token", "T0-0")
    folder = save(model, token_folder)
    assert read_manifest(folder)["metrics"]["auc"] is None
    loaded = load(folder)
    assert math.isnan(loaded.metrics.auc)
    assert loaded.metrics.auc_reason == model.metrics.auc_reason


def test_saving_twice_and_saving_a_loaded_model_give_the_same_bytes(model: FittedModel, tmp_path: Path) -> None:
    first = save(model, UPath(tmp_path / "a"))
    for number, again in enumerate((model, load(first), fit(feature_rows(), SMALL, "token", "T0-0"))):
        second = save(again, UPath(tmp_path / f"b{number}"))
        for name in ("model.skops", "manifest.json"):
            assert objects.read(first / name) == objects.read(second / name)


def test_rows_after_the_cut_off_do_not_show_in_the_files(tmp_path: Path) -> None:
    rows = feature_rows(hours=500)
    as_of = (START + pd.Timedelta(hours=450)).to_pydatetime()
    more, less = (
        save(fit(part, SMALL, "token", "T0-0", as_of), UPath(tmp_path / str(len(part)))) for part in (rows, rows[:400])
    )
    for name in ("model.skops", "manifest.json"):
        assert objects.read(more / name) == objects.read(less / name)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({}, marks=pytest.mark.long),
        {"resample": False, "calibration": "platt", "threshold_rule": "profit", "min_samples_leaf": 10},
        pytest.param({"resample": False, "estimator": "logistic", "calibration": "platt"}, marks=pytest.mark.long),
    ],
)
def test_another_process_with_other_threads_and_row_order_writes_the_same_files(
    fields: dict[str, Any], tmp_path: Path
) -> None:
    by = replace(SMALL, **fields)
    here = save(fit(feature_rows(), by, "token", "T0-0"), UPath(tmp_path / "here"))
    code = (
        "import sys\n"
        "from upath import UPath\n"
        "from breakout_assets.learning.model_files import save\n"
        "from breakout_assets.learning.training import fit\n"
        "from breakout_assets_tests.learning.examples import SMALL, feature_rows\n"
        "from dataclasses import replace\n"
        "rows = feature_rows().sample(frac=1, random_state=3)\n"
        f"by = replace(SMALL, **{fields!r})\n"
        "fit(rows, by, 'token', 'another-1')\n"
        "print(save(fit(rows, by, 'token', 'T0-0'), UPath(sys.argv[1])))\n"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "2", "PYTHONHASHSEED": "11"}
    command = [sys.executable, "-c", code, str(tmp_path / "there")]
    there = UPath(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.strip())
    for name in ("model.skops", "manifest.json"):
        assert objects.read(here / name) == objects.read(there / name)


def test_several_writers_of_one_generation_leave_it_whole(model: FittedModel, tmp_path: Path) -> None:
    folder = UPath(tmp_path) / "T0-0"
    with ThreadPoolExecutor(8) as pool:
        saved = set(pool.map(lambda _: save(model, folder), range(16)))
    (generation,) = saved
    assert load(generation).model_hash == model_hash(model)
    assert sorted(file.path.name for file in objects.found_under(generation)) == ["manifest.json", "model.skops"]


def test_a_place_that_cannot_be_written_is_refused_by_name(model: FittedModel, tmp_path: Path) -> None:
    (tmp_path / "T0-0").write_text("a file where a folder should be")
    with pytest.raises(DataError, match=rf"T0-0/{GENERATION}/model\.skops cannot be written"):
        save(model, UPath(tmp_path / "T0-0"))


def test_a_cut_off_between_two_hours_is_refused(model: FittedModel, token_folder: UPath) -> None:
    late = replace(model, trained_until=model.trained_until.replace(minute=30))
    with pytest.raises(DataError, match="not at a whole hour"):
        save(late, token_folder)


# Generations ---------------------------------------------------------------------------------------------------


def test_generations_are_those_of_one_recipe(model: FittedModel, token_folder: UPath) -> None:
    times = [pd.Timestamp(day).to_pydatetime() for day in ("2024-03-10", "2024-03-03", "2023-12-31")]
    folders = {until: save(replace(model, trained_until=until), token_folder) for until in times}
    assert list(generations(token_folder, SMALL)) == sorted(times)
    assert generations(token_folder, SMALL) == folders
    assert generations(token_folder, replace(SMALL, cost=0.5)) == {}


def test_generations_come_oldest_first_however_a_folder_lists_them(tmp_path: Path) -> None:
    names = [f"202403{day:02}T{hour:02}-{SMALL.recipe_id[:8]}" for day in (17, 3, 29, 11, 8) for hour in (21, 4, 0, 13)]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").touch()
    assert [folder.name for folder in generations(UPath(tmp_path), SMALL).values()] == sorted(names)


def test_a_token_without_a_model_has_no_generation(token_folder: UPath) -> None:
    assert generations(token_folder, SMALL) == {}


def test_a_generation_without_a_manifest_is_not_there_yet(model: FittedModel, token_folder: UPath) -> None:
    folder = save(model, token_folder)
    objects.delete(folder / "manifest.json")
    assert generations(token_folder, SMALL) == {}
    assert "manifest.json is missing" in refused(folder)


@pytest.mark.parametrize("name", [f"{GENERATION}-old", f"old-{GENERATION}", GENERATION.replace("T", "-", 1)])
def test_folders_of_other_names_are_not_generations(model: FittedModel, tmp_path: Path, name: str) -> None:
    folder = save(model, UPath(tmp_path))
    folder.rename(folder.with_name(name))
    assert generations(UPath(tmp_path), SMALL) == {}


# Refusals ------------------------------------------------------------------------------------------------------


def test_a_damaged_model_file_is_refused(model: FittedModel, token_folder: UPath) -> None:
    folder = save(model, token_folder)
    data = bytearray(objects.read(folder / "model.skops"))
    data[len(data) // 2] ^= 1
    objects.write(folder / "model.skops", bytes(data))
    message = refused(folder)
    assert "model.skops has the sha256" in message
    assert model_hash(model) in message


def test_a_missing_model_file_is_refused(model: FittedModel, token_folder: UPath) -> None:
    folder = save(model, token_folder)
    objects.delete(folder / "model.skops")
    assert "model.skops is missing although its manifest is there" in refused(folder)


def test_a_pickle_with_the_right_sha256_is_refused(model: FittedModel, token_folder: UPath) -> None:
    folder = save(model, token_folder)
    pickled = b"\x80\x05]\x94."  # the pickle of an empty list
    objects.write(folder / "model.skops", pickled)
    change(folder, lambda manifest: manifest.update(model_hash=hashlib.sha256(pickled).hexdigest()))
    assert "model.skops is not a model file that can be trusted (BadZipFile" in refused(folder)


@pytest.mark.parametrize("package", ["numpy", "scikit-learn"])
@pytest.mark.parametrize("other", ["0.1.0", None])
def test_other_library_versions_are_refused(
    model: FittedModel, token_folder: UPath, package: str, other: str | None
) -> None:
    folder = save(model, token_folder)
    change(folder, lambda manifest: manifest["versions"].update({package: other}))
    assert f"was made with {package} {other}" in refused(folder)


def test_a_patch_release_of_a_library_and_another_python_are_accepted(model: FittedModel, token_folder: UPath) -> None:
    folder = save(model, token_folder)
    versions = read_manifest(folder)["versions"]
    patched = ".".join([*versions["scikit-learn"].split(".")[:2], "99"])
    change(folder, lambda manifest: manifest["versions"].update({"scikit-learn": patched, "python": "3.99.0"}))
    assert load(folder).name == "T0-0"


def test_a_manifest_that_lists_other_features_is_refused(model: FittedModel, token_folder: UPath) -> None:
    folder = save(model, token_folder)
    change(folder, lambda manifest: manifest["features"].reverse())
    assert "was trained on other features" in refused(folder)


def test_a_model_file_of_other_features_is_refused(model: FittedModel, token_folder: UPath) -> None:
    folder = save(model, token_folder)
    other = replace(SMALL, features=tuple(reversed(SMALL.features)))
    foreign = save(fit(feature_rows(), other, "token", "T0-0"), token_folder.parent / "other")
    data = objects.read(foreign / "model.skops")
    objects.write(folder / "model.skops", data)
    change(folder, lambda manifest: manifest.update(model_hash=hashlib.sha256(data).hexdigest()))
    assert "was trained on other features" in refused(folder)


def test_a_recipe_that_was_edited_is_refused(model: FittedModel, token_folder: UPath) -> None:
    folder = save(model, token_folder)
    change(folder, lambda manifest: manifest["recipe"].update(threshold=0.1))
    assert "its recipe has the id" in refused(folder)


def test_a_generation_that_was_moved_to_an_earlier_hour_is_refused(model: FittedModel, tmp_path: Path) -> None:
    folder = save(model, UPath(tmp_path))
    earlier = folder.rename(folder.with_name(GENERATION.replace("20240322", "20240101")))
    assert "says trained_until 2024-03-22 15:00:00 and recipe" in refused(earlier)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda manifest: manifest.pop("schema_version"), "schema version None"),
        (lambda manifest: manifest.update(schema_version=99), "schema version 99"),
        (lambda manifest: manifest.pop("recipe"), "KeyError('recipe')"),
        (lambda manifest: manifest.pop("model_hash"), "KeyError('model_hash')"),
        (lambda manifest: manifest.pop("versions"), "KeyError('versions')"),
        (lambda manifest: manifest["recipe"].update(colour="red"), "colour"),
        (lambda manifest: manifest["recipe"].update(threshold=7), "threshold must lie between 0 and 1"),
        (lambda manifest: manifest.update(trained_until="yesterday"), "yesterday"),
        (lambda manifest: manifest.update(scope="galaxy"), "neither token nor pooled"),
    ],
)
def test_a_manifest_that_contradicts_its_schema_is_refused(
    model: FittedModel, token_folder: UPath, edit: Callable[[dict[str, Any]], Any], said: str
) -> None:
    folder = save(model, token_folder)
    change(folder, edit)
    assert said in refused(folder)


@pytest.mark.parametrize(
    ("text", "said"), [("", "is not JSON"), ('{"name": "T0', "is not JSON"), ("[]", "schema version None")]
)
def test_a_torn_or_foreign_manifest_is_refused(model: FittedModel, token_folder: UPath, text: str, said: str) -> None:
    folder = save(model, token_folder)
    objects.write(folder / "manifest.json", text.encode())
    assert said in refused(folder)
