from datetime import timedelta

import pytest

from breakout_assets.errors import DataError
from breakout_assets.market.health import HealthState, assess_hour
from breakout_assets.store import Store
from breakout_assets_tests.samples import at, coin, put

HOUR = at("2024-03-01 05:00")


def assess(store: Store, coins: list[dict[str, object]], usual: int = 100) -> tuple[HealthState, str]:
    for back in range(1, 6):
        put(store, HOUR - timedelta(hours=back), [coin(n) for n in range(1, usual + 1)])
    put(store, HOUR, coins)
    health = assess_hour(store, HOUR)
    return health.state, "; ".join(health.reasons)


@pytest.mark.parametrize(
    ("rows", "state"),
    [(100, "ACTIVE"), (95, "ACTIVE"), (94, "REDUCE_ONLY"), (50, "REDUCE_ONLY"), (49, "HALTED"), (1, "HALTED")],
)
def test_a_listing_that_shrinks_stops_trading(store: Store, rows: int, state: str) -> None:
    found, reasons = assess(store, [coin(n) for n in range(1, rows + 1)])
    assert found == state
    assert (reasons == "") == (state == "ACTIVE")


@pytest.mark.parametrize(("bad", "state"), [(5, "ACTIVE"), (6, "REDUCE_ONLY"), (20, "REDUCE_ONLY"), (21, "HALTED")])
@pytest.mark.parametrize(
    "fault",
    [
        {"price": 0.0, "last_updated": "2024-03-01T04:59:00.000Z"},
        {"last_updated": "2024-03-01T02:59:00.000Z"},
    ],
)
def test_rows_without_a_price_and_stale_ones_stop_trading(
    store: Store, bad: int, state: str, fault: dict[str, object]
) -> None:
    fresh = "2024-03-01T03:01:00.000Z"  # 119 minutes old
    coins = [coin(n, **({"last_updated": fresh} | (fault if n <= bad else {}))) for n in range(1, 101)]
    assert assess(store, coins)[0] == state


def test_a_stamp_that_is_no_time_is_no_stamp(store: Store) -> None:
    assert assess(store, [coin(n, last_updated="n/a") for n in range(1, 101)])[0] is HealthState.ACTIVE


def test_the_first_hour_of_all_has_nothing_to_be_compared_with(store: Store) -> None:
    put(store, HOUR, [coin(1)])
    assert assess_hour(store, HOUR).state is HealthState.ACTIVE


def test_an_hour_without_a_snapshot_has_no_verdict(store: Store) -> None:
    with pytest.raises(DataError, match="no snapshot of 2024-03-01 05:00"):
        assess_hour(store, HOUR)
