"""Models through the real graph: a run of many, what it tells of each, and what it says where some could not be."""

import dagster as dg
import pandas as pd
import pytest

from breakout_assets.defs import models
from breakout_assets.defs.partitions import POOLED, TOKENS_NAME
from breakout_assets_tests.defs.conftest import AS_OF
from breakout_assets_tests.defs.support import World, checks, failure

# Of a model's event, which the log keeps twice: a thousand models a week stay below 1 GB a year.
MOST_CHARACTERS = 8000


def trained(world: World, names: list[str], workers: int | None = None) -> dg.ExecuteInProcessResult:
    config = {"ops": {"token_model": {"config": {"as_of": AS_OF, "workers": workers}}}}
    return world.run(["token_model"], names, config, must_succeed=False)


def told_of(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetMaterialization]:
    events = result.asset_materializations_for_node("token_model")
    return {str(event.partition): event for event in events if isinstance(event, dg.AssetMaterialization)}


@pytest.fixture
def names(learned: World) -> list[str]:
    """The pooled model and two tokens."""
    return list(learned.instance.get_dynamic_partitions(TOKENS_NAME))[:3]


def test_a_run_over_processes_makes_the_same_models_and_records_each(learned: World, names: list[str]) -> None:
    before = learned.bytes_of("token_model")
    for name in before:
        if name.split("/")[1] in names:
            (learned.store.root / name).unlink()
    result = trained(learned, names, workers=2)
    assert result.success
    assert learned.bytes_of("token_model") == before
    assert told_of(result).keys() == set(names)
    assert learned.instance.get_materialized_partitions(dg.AssetKey("token_model")) == set(names)
    assert all(checks(result).values())


def test_a_chart_is_drawn_of_the_pool_and_of_a_few_models_but_not_of_many(
    learned: World, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "MOST_DRAWN", 1)
    [few] = told_of(trained(learned, names[1:2])).values()
    many = told_of(trained(learned, names[:2]))
    assert [name for name, event in many.items() if "feature_importances" in event.metadata] == [POOLED]
    assert few.metadata.keys() - many[names[1]].metadata.keys() == {"feature_importances"}
    assert many[names[1]].metadata.items() <= few.metadata.items()
    assert len(dg.serialize_value(many[names[1]])) < MOST_CHARACTERS < len(dg.serialize_value(few))


def test_rows_that_contradict_themselves_fail_the_run_by_token_and_the_others_are_recorded(
    learned: World, names: list[str]
) -> None:
    first = learned.store.days_of("indicator_features")[0]
    rows = learned.store.read_table("indicator_features", [first])
    [broken, other] = names[1:]
    twice = rows[(rows["token"] == broken) & (rows["label_status"] == "labelled")].head(1)
    learned.store.write_table("indicator_features", first, pd.concat([rows, twice]))
    result = trained(learned, [broken, other])
    assert not result.success
    assert "1 of 2 models could not be trained" in failure(result)
    assert f"{broken} has the hour" in failure(result)
    assert told_of(result).keys() == {other}
