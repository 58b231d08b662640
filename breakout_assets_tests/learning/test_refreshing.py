"""Whether a newly trained model takes over."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from breakout_assets.learning.model_files import save
from breakout_assets.learning.predicting import ModelShelf
from breakout_assets.learning.recipes import POOLED
from breakout_assets.learning.refreshing import fit_anew
from breakout_assets.learning.selection import select
from breakout_assets.learning.training import FittedModel
from breakout_assets.store import Store
from breakout_assets_tests.learning.examples import SMALL, START, feature_rows

BY = replace(SMALL, name="refreshed", test_share=0.4, threshold=0.5, min_samples_leaf=10)
HOUR = pd.Timedelta(hours=1)
KNOWN = START + 700 * HOUR  # when the model that serves was trained


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return feature_rows(tokens=14, hours=1500)


def fitted(store: Store, rows: pd.DataFrame, as_of: pd.Timestamp | None = None) -> tuple[FittedModel, str]:
    return fit_anew(store, select(rows, BY, as_of and as_of.to_pydatetime()), BY, "pooled", POOLED)


def serving(store: Store, rows: pd.DataFrame) -> None:
    model, verdict = fitted(store, rows, KNOWN)
    assert model.serves
    assert "first of its recipe" in verdict
    save(model, store.model_folder(POOLED))


def flipped(rows: pd.DataFrame, learned_from: pd.Series) -> pd.DataFrame:
    """What was true before says the opposite in these rows."""
    y = rows["y"].mask(learned_from, 1 - rows["y"])
    return rows.assign(y=y, cal_price_change=np.where(y == 1, 20.0, -10.0))


def test_a_refresh_that_is_no_worse_takes_over(store: Store, rows: pd.DataFrame) -> None:
    serving(store, rows)
    model, verdict = fitted(store, rows)
    assert model.serves
    assert "no worse" in verdict


def test_a_refresh_that_would_have_earned_less_is_kept_and_does_not_serve(store: Store, rows: pd.DataFrame) -> None:
    serving(store, rows)
    recent = rows[rows["timestamp"] >= START + 600 * HOUR].reset_index(drop=True)
    # The newest two fifths are held out; what lies before them misleads the new model.
    misleading = flipped(recent, recent["timestamp"] < START + 1140 * HOUR)
    model, verdict = fitted(store, misleading)
    assert not model.serves
    assert "does not serve" in verdict
    save(model, store.model_folder(POOLED))
    spoken = ModelShelf(store, BY).models_at(model.trained_until).about
    assert spoken["trained_until"].to_dict() == {POOLED: KNOWN}


def test_a_few_new_days_decide_nothing(store: Store, rows: pd.DataFrame) -> None:
    serving(store, rows)
    recent = rows[rows["timestamp"] < START + 740 * HOUR]
    model, verdict = fitted(store, recent)
    assert model.serves
    assert "too little is new" in verdict


def test_training_again_on_the_same_knowledge_replaces_the_generation(store: Store, rows: pd.DataFrame) -> None:
    serving(store, rows)
    model, verdict = fitted(store, rows, KNOWN)
    assert model.serves
    assert "same knowledge" in verdict


@pytest.mark.parametrize("name", ["manifest.json", "model.skops"])
def test_a_model_that_cannot_be_read_does_not_keep_a_new_one_from_serving(
    store: Store, rows: pd.DataFrame, name: str
) -> None:
    serving(store, rows)
    [file] = [path for path in store.model_folder(POOLED).rglob("*") if path.name == name]
    file.write_bytes(b"{}")
    recent = rows[rows["timestamp"] >= START + 600 * HOUR].reset_index(drop=True)
    model, verdict = fitted(store, flipped(recent, recent["timestamp"] < START + 1140 * HOUR))
    assert model.serves, "beside the damaged one it would not"
    assert "first of its recipe" in verdict


def test_a_refresh_that_does_not_serve_is_not_what_the_next_one_is_compared_with(
    store: Store, rows: pd.DataFrame
) -> None:
    serving(store, rows)
    later, _ = fitted(store, rows, START + 1500 * HOUR)
    save(replace(later, serves=False), store.model_folder(POOLED))
    model, verdict = fitted(store, rows)
    assert model.serves
    assert "no worse" in verdict, "than the first; beside the other there is too little that is new"
