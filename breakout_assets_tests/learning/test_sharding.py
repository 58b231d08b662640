"""Training in shards and in processes: the same models whatever is trained beside them, and nothing left running."""

import hashlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from breakout_assets import objects
from breakout_assets.errors import DataError, TemporaryError
from breakout_assets.learning import model_files, sharding
from breakout_assets.learning.generations import MANIFEST_FILE, generation_folder
from breakout_assets.learning.packed import packed_row
from breakout_assets.learning.recipes import POOLED
from breakout_assets.learning.serving import serving_models
from breakout_assets.learning.sharding import Outcome, Trained, Training, Untrained, train_models
from breakout_assets.learning.training import FittedModel, NotTrainable
from breakout_assets.store import Store
from breakout_assets_tests.learning.examples import SMALL, START, feature_rows, store_features

TOKENS = [f"T{k}-{k}" for k in range(6)]
BRIEF = "B0-0"  # a token whose history is too short


def some_rows(hours: int = 400) -> pd.DataFrame:
    brief = feature_rows(hours=50, seed=1).assign(token=BRIEF)
    rows = pd.concat([feature_rows(tokens=len(TOKENS), hours=hours), brief], ignore_index=True)
    return rows.assign(origin="simulated")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("filled")
    store_features(Store.at(str(folder)), some_rows())
    return folder


def training_at(folder: Path, filled: Path) -> Training:
    """A training into a folder of its own, from the rows of another."""
    folder.mkdir(exist_ok=True)
    (folder / "indicator_features").symlink_to(filled / "indicator_features")
    return Training(Store.at(str(folder)), SMALL)


def hashes(training: Training) -> dict[str, str]:
    root = Path(str(training.store.root))
    files = sorted(path for path in (root / "token_model").rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def names_of(outcomes: Iterable[Outcome], kind: type[Outcome]) -> set[str]:
    return {outcome.name for outcome in outcomes if isinstance(outcome, kind)}


@pytest.fixture(scope="module")
def one_by_one(filled: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files of all models, trained by this process."""
    training = training_at(tmp_path_factory.mktemp("models"), filled)
    outcomes = list(train_models(training, [POOLED, *TOKENS, BRIEF], workers=1))
    assert names_of(outcomes, Trained) == {POOLED, *TOKENS}
    return hashes(training)


# The same models ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shard", [1, 4, 100])
def test_order_and_size_of_shards_do_not_reach_a_model(
    tmp_path: Path, filled: Path, one_by_one: dict[str, str], shard: int
) -> None:
    training = training_at(tmp_path / "other", filled)
    list(train_models(training, [*TOKENS[::-1], POOLED], workers=1, shard=shard))
    assert hashes(training) == one_by_one


def test_processes_give_the_same_models_and_tell_of_tokens_that_have_none(
    tmp_path: Path, filled: Path, one_by_one: dict[str, str]
) -> None:
    training = training_at(tmp_path / "other", filled)
    names = [BRIEF, *TOKENS, "NEVER-1", POOLED]
    outcomes = list(train_models(training, names, workers=2, shard=3))
    assert sorted(outcome.name for outcome in outcomes) == sorted(names)
    untrained = {outcome.name: outcome.error for outcome in outcomes if isinstance(outcome, Untrained)}
    assert untrained.keys() == {BRIEF, "NEVER-1"}
    assert all(isinstance(error, NotTrainable) and error.code == "TOO_FEW_ROWS" for error in untrained.values())
    assert hashes(training) == one_by_one
    assert multiprocessing.active_children() == []


def test_a_token_that_is_trained_alone_is_the_same(tmp_path: Path, filled: Path, one_by_one: dict[str, str]) -> None:
    training = training_at(tmp_path / "other", filled)
    [outcome] = train_models(training, [TOKENS[2]])
    assert isinstance(outcome, Trained)
    found = hashes(training)
    assert found == {name: sha for name, sha in one_by_one.items() if f"/{TOKENS[2]}/" in name}
    assert outcome.manifest["model_hash"] in found.values()
    assert outcome.origin == "simulated"


@pytest.mark.long
def test_processes_train_into_a_bucket(bucket_store: Store, one_by_one: dict[str, str]) -> None:
    store_features(bucket_store, some_rows())
    outcomes = list(train_models(Training(bucket_store, SMALL), [POOLED, *TOKENS], workers=2, shard=3))
    assert names_of(outcomes, Trained) == {POOLED, *TOKENS}
    files = [file.path for file in objects.found_under(bucket_store.root / "token_model")]
    found = {objects.below(bucket_store.root, file): objects.read(file) for file in files}
    assert {name: hashlib.sha256(data).hexdigest() for name, data in found.items()} == one_by_one


# What goes wrong ---------------------------------------------------------------------------------------------------


def test_a_defect_in_the_rows_of_one_token_leaves_the_others_their_models(tmp_path: Path) -> None:
    rows = some_rows()
    store = Store.at(str(tmp_path))
    store_features(store, pd.concat([rows, rows[rows["token"] == TOKENS[1]].iloc[[7]]]))
    outcomes = list(train_models(Training(store, SMALL), TOKENS[:3], workers=1))
    assert names_of(outcomes, Trained) == {TOKENS[0], TOKENS[2]}
    [refused] = [outcome for outcome in outcomes if isinstance(outcome, Untrained)]
    assert "T1-1 has the hour 2024-03-01 07:00:00 more than once" in str(refused.error)
    assert not isinstance(refused.error, NotTrainable)


def test_a_model_that_cannot_be_packed_is_not_published_and_leaves_the_others_theirs(
    tmp_path: Path, filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = training_at(tmp_path, filled)

    def packed_but_one(model: FittedModel) -> pa.Table:
        if model.name == TOKENS[1]:
            raise DataError("T1-1: a tree has over 16,777,216 nodes")
        return packed_row(model)

    monkeypatch.setattr(sharding, "packed_row", packed_but_one)
    outcomes = list(train_models(training, TOKENS[:3], workers=1))
    assert names_of(outcomes, Trained) == {TOKENS[0], TOKENS[2]}
    [refused] = [outcome for outcome in outcomes if isinstance(outcome, Untrained)]
    assert "over 16,777,216 nodes" in str(refused.error)
    assert set(serving_models(training.store, SMALL).about.index) == {TOKENS[0], TOKENS[2]}


def test_a_store_that_cannot_be_written_ends_the_training(tmp_path: Path, filled: Path) -> None:
    training = training_at(tmp_path / "other", filled)
    (tmp_path / "other" / "token_model").write_text("in the way")
    with pytest.raises(DataError, match="cannot be written"):
        list(train_models(training, TOKENS, workers=1))


def hold_up(training: Training, token: str) -> None:
    """Let whoever trains this token wait for ever: its older manifest is a pipe that nobody writes to."""
    folder = generation_folder(training.store.model_folder(token), START.to_pydatetime(), training.recipe)
    Path(str(folder)).mkdir(parents=True)
    os.mkfifo(str(folder / MANIFEST_FILE))


def test_a_process_that_is_killed_is_told_with_what_is_done_and_what_is_not(tmp_path: Path, filled: Path) -> None:
    training = training_at(tmp_path / "other", filled)
    hold_up(training, TOKENS[3])
    outcomes = train_models(training, TOKENS, workers=2, shard=1)
    done = [next(outcomes) for _ in TOKENS[1:]]
    process = multiprocessing.active_children()[0]
    assert process.pid
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(TemporaryError, match=r"ended from outside.* 5 of 6 models are done.*others are not: T3-3\. "):
        next(outcomes)
    assert names_of(done, Trained) == {*TOKENS} - {TOKENS[3]}
    assert multiprocessing.active_children() == []


TRAINS = """
import multiprocessing, sys
from breakout_assets.learning.sharding import Training, train_models
from breakout_assets.store import Store
from breakout_assets_tests.learning.examples import SMALL

if __name__ == "__main__":
    for outcome in train_models(Training(Store.at(sys.argv[1]), SMALL), sys.argv[2:], workers=2, shard=1):
        print(outcome.name, *(process.pid for process in multiprocessing.active_children()), flush=True)
"""


def is_running(pid: str) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # ended, but nobody has asked how


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are looked up in /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.long)])
def test_processes_end_with_the_one_that_started_them(tmp_path: Path, filled: Path, number: signal.Signals) -> None:
    training = training_at(tmp_path / "other", filled)
    hold_up(training, TOKENS[0])
    (tmp_path / "trains.py").write_text(TRAINS)
    command = [sys.executable, str(tmp_path / "trains.py"), str(training.store.root), *TOKENS[:2]]
    # Who is killed tidies nothing up: what it leaves behind lies in the test's own folder.
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        name, *pids = parent.stdout.readline().split()
        assert name == TOKENS[1]
        assert len(pids) == 2
        assert any(map(is_running, pids)), "one of them trains"
        parent.send_signal(number)
        deadline = time.monotonic() + 60
        while any(map(is_running, pids)) and time.monotonic() < deadline:
            time.sleep(0.05)
        left = [pid for pid in pids if is_running(pid)]
        for pid in left:
            os.kill(int(pid), signal.SIGKILL)
        assert not left
        assert parent.wait(60) != 0


# What serves -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_what_has_been_trained_serves_at_once_and_no_archive_is_opened_for_it(
    tmp_path: Path, filled: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    training = training_at(tmp_path / "served", filled)
    monkeypatch.setattr(model_files, "load", lambda folder: pytest.fail(f"{folder} was opened"))
    list(train_models(training, [POOLED, *TOKENS], workers=workers, shard=3))
    served = serving_models(training.store, training.recipe)
    assert set(served.about.index) == {POOLED, *TOKENS}
    monkeypatch.undo()
    shutil.rmtree(str(training.store.root / "serving"))
    assert serving_models(training.store, training.recipe).digest == served.digest


def test_models_of_a_training_that_was_ended_serve_as_far_as_they_are_there(tmp_path: Path, filled: Path) -> None:
    training = training_at(tmp_path / "ended", filled)
    outcomes = train_models(training, TOKENS, workers=1, shard=2)
    done = {next(outcomes).name, next(outcomes).name}
    outcomes.close()  # type: ignore[attr-defined]
    assert set(serving_models(training.store, training.recipe).about.index) == done
