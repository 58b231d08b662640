"""What stops trading, and what ends a halt."""

import json
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from breakout_assets import objects
from breakout_assets.errors import DataError
from breakout_assets.learning.recipes import recipe
from breakout_assets.learning.watching import daily_table, halted_at, look
from breakout_assets.store import Store
from breakout_assets.tables import INDICATOR_FEATURES, LABELLED_DATASET, PREDICTIONS, conform
from breakout_assets_tests.samples import at

BY = recipe("default")
FIRST = at("2024-03-01 00:00")
DAYS = 40
TOKENS = [f"T{n}-{n}" for n in range(6)]


def written(store: Store, change: float, decision: str = "buy", reason: str | None = None, days: int = DAYS) -> None:
    """Days of predictions at midnight, and labels that say what each purchase brought (percent)."""
    for number in range(days):
        hour = FIRST + timedelta(days=number)
        rows = pd.DataFrame({"token": TOKENS}).assign(timestamp=hour, price=1.0, volume=1e6)
        said = rows.assign(
            probability=0.7, threshold=0.6, score=0.7, decision=decision, reason=reason, recipe_id=BY.recipe_id
        )
        store.write_table("predictions", hour, conform(said.reindex(columns=list(PREDICTIONS)), "predictions"))
        rng = np.random.default_rng(number)
        came = rows.assign(
            cal_price_change=change + rng.normal(0, 1, len(rows)),
            y=int(change > 10),
            label_end=hour + timedelta(hours=120),
            label_status="labelled",
        )
        came = came.reindex(columns=list(INDICATOR_FEATURES))
        store.write_table("labelled_dataset", hour.date(), conform(came[list(LABELLED_DATASET)], "labelled_dataset"))
        store.write_table("indicator_features", hour.date(), conform(came, "indicator_features"))


def newest(days: int = DAYS) -> datetime:
    """When the look is dated: the last label has ended and is known."""
    return FIRST + timedelta(days=days + 5)


def test_sixty_trades_that_lose_stop_the_recipe_from_then_on(store: Store) -> None:
    written(store, change=-5.0, days=60)
    seen = look(store, BY)
    assert seen.realised is not None
    assert seen.realised.halt
    assert json.loads(objects.read(seen.path))["reason"] == "REALISED_LOSS"
    assert not halted_at(store, BY, newest(60) - timedelta(hours=1))
    assert halted_at(store, BY, newest(60))
    assert list(daily_table(seen.realised)["day"]) == sorted(seen.realised.daily["day"], reverse=True)


def test_trades_that_earn_stop_nothing(store: Store) -> None:
    written(store, change=15.0, days=60)
    assert look(store, BY).realised is not None
    assert not halted_at(store, BY, newest(60))


def test_while_it_is_halted_a_recipe_is_judged_by_what_it_would_have_bought(store: Store) -> None:
    written(store, change=15.0, decision="none", reason="REALISED_LOSS", days=60)
    seen = look(store, BY)
    assert seen.realised is not None
    assert seen.realised.last_trades == 60
    assert not halted_at(store, BY, newest(60))
    written(store, change=15.0, decision="none", reason="NOT_PROVEN", days=60)
    again = look(store, BY)
    assert again.realised is not None
    assert again.realised.last_trades == 0


def test_flagging_far_more_than_the_evaluation_did_is_seen(store: Store) -> None:
    written(store, change=15.0, days=30)
    assert look(store, BY).flagged_share == pytest.approx(1.0)
    assert not look(store, BY).flags_shifted
    assert not look(store, BY, evaluated_share=0.5).flags_shifted
    assert look(store, BY, evaluated_share=0.2).flags_shifted
    written(store, change=15.0, decision="none", reason="NOT_PROVEN", days=30)
    undecided = look(store, BY, evaluated_share=0.2)
    assert (undecided.flagged_share, undecided.flags_shifted) == (None, False)


def test_predictions_of_another_recipe_say_nothing(store: Store) -> None:
    written(store, change=-5.0, days=60)
    assert look(store, recipe("baseline_logit")).realised is None
    assert not halted_at(store, recipe("baseline_logit"), newest(60))


def test_without_labels_there_is_nothing_to_look_at(store: Store) -> None:
    with pytest.raises(DataError, match="materialise labelled_dataset"):
        look(store, BY)
