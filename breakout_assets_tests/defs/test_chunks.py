"""Ranges that are made some partitions at a time: what goes wrong with one of them concerns no other."""

from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path

import dagster as dg
import pytest

from breakout_assets.defs.reporting import Made, each_chunk
from breakout_assets.errors import DataError, TemporaryError
from breakout_assets_tests.defs.support import World, checks, day_keys, failure

DAYS = dg.DailyPartitionsDefinition("2024-03-01", end_date="2024-04-30")
KEYS = day_keys(date(2024, 3, 1), date(2024, 3, 7))


def run(
    faulty: Callable[[Sequence[str], str], Exception | None], keys: Sequence[str] = KEYS
) -> tuple[dg.ExecuteInProcessResult, list[list[str]], set[str]]:
    """Three at a time; `faulty` says what a chunk raises when it comes to a key. Result, chunks, recorded keys."""
    chunks: list[list[str]] = []

    @dg.asset(
        partitions_def=DAYS,
        backfill_policy=dg.BackfillPolicy.single_run(),
        check_specs=[dg.AssetCheckSpec("even", asset="thing")],
    )
    def thing(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]
        def make(some: Sequence[str]) -> Iterator[tuple[str, Made]]:
            chunks.append([key[-1] for key in some])
            for key in some:
                error = faulty(some, key)
                if error:
                    raise error
                yield key, ({"number": int(key[-1])}, {"even": "odd"} if key == KEYS[3] else {})

        return each_chunk(context, make, size=3)

    instance = dg.DagsterInstance.ephemeral()
    tags = {"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": keys[-1]}
    definitions = dg.Definitions([thing])
    result = definitions.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance,
        tags=tags,
        raise_on_error=False,
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )
    return result, chunks, instance.get_materialized_partitions(dg.AssetKey("thing"))


def test_partitions_are_made_some_at_a_time_and_reported_one_by_one() -> None:
    result, chunks, recorded = run(lambda chunk, key: None)
    assert chunks == [["1", "2", "3"], ["4", "5", "6"], ["7"]]
    assert recorded == set(KEYS)
    events = result.get_asset_materialization_events()
    numbers = [event.materialization.metadata["number"].value for event in events]
    assert numbers == [1, 2, 3, 4, 5, 6, 7]
    assert checks(result) == {"even": False}
    [found] = result.get_asset_check_evaluations()
    assert found.description == "2024-03-04: odd"


@pytest.mark.parametrize("before", [True, False])
def test_a_refused_partition_keeps_no_other_of_its_chunk_from_being_made(before: bool) -> None:
    """Whether the chunk is refused as it begins or as it comes to that partition."""
    result, chunks, recorded = run(
        lambda chunk, key: DataError(f"{KEYS[4]} is bad") if KEYS[4] in (chunk if before else [key]) else None
    )
    single = [["4"], ["5"], ["6"]] if before else [["5"], ["6"]]
    assert chunks == [["1", "2", "3"], ["4", "5", "6"], *single, ["7"]]
    assert recorded == set(KEYS) - {KEYS[4]}
    assert failure(result) == "1 of 7 partitions could not be made. 2024-03-05: 2024-03-05 is bad"


def test_what_was_made_before_the_network_failed_is_recorded() -> None:
    result, chunks, recorded = run(lambda chunk, key: TemporaryError("no answer") if key == KEYS[4] else None)
    assert not result.success
    assert chunks == [["1", "2", "3"], ["4", "5", "6"]]
    assert recorded == set(KEYS[:4])


def test_days_that_need_a_day_that_is_missing_are_refused_and_the_others_are_made_as_ever(learned: World) -> None:
    before = learned.bytes_of("labelled_dataset", "indicator_features")
    root = Path(str(learned.store.root))
    for name in before:
        (root / name).unlink()
    lost = root / "daily_snapshots/2024/03/30.parquet"
    kept = lost.read_bytes()
    lost.unlink()
    keys = day_keys(date(2024, 3, 1), date(2024, 4, 10))
    result = learned.run(["labelled_dataset"], keys, must_succeed=False)
    assert "6 of 41 partitions could not be made. 2024-03-25: daily_snapshots of 2024-03-30 is missing" in failure(
        result
    )
    refused = {f"labelled_dataset/2024/03/{day}.parquet" for day in range(25, 31)}
    labelled = {name: data for name, data in before.items() if name.startswith("labelled_dataset")}
    assert learned.bytes_of("labelled_dataset") == {n: data for n, data in labelled.items() if n not in refused}
    lost.write_bytes(kept)
    result = learned.run(["indicator_features"], keys, must_succeed=False)
    assert "6 of 41 partitions could not be made. 2024-03-25: labelled_dataset is missing for 1 of 1" in failure(result)
    done = learned.instance.get_materialized_partitions(dg.AssetKey("indicator_features"))
    assert done == set(keys) - set(day_keys(date(2024, 3, 25), date(2024, 3, 30)))
    learned.run(["labelled_dataset", "indicator_features"], day_keys(date(2024, 3, 25), date(2024, 3, 30)))
    assert learned.bytes_of("labelled_dataset", "indicator_features") == before
