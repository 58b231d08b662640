from datetime import date, datetime, timedelta
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from breakout_assets import objects
from breakout_assets.market.coverage import (
    COLUMNS,
    MISSING_COLOUR,
    UNKNOWN_COLOUR,
    Gap,
    coverage_path,
    coverage_picture,
    coverage_table,
    first_hour,
    gaps,
    known_hours,
    stretches,
    write_coverage,
)
from breakout_assets.market.history import compact_day
from breakout_assets.market.schema import HOUR, hours_between
from breakout_assets.market.tokens import load_registry
from breakout_assets.store import Store, parquet_bytes
from breakout_assets_tests.s3server import wire_to
from breakout_assets_tests.samples import at, coin, put

ANYWHERE = pytest.mark.parametrize("where", ["store", "bucket_store"])
VIRIDIS_ZERO = (68, 1, 84)
VIRIDIS_ONE = (253, 231, 37)


@pytest.fixture
def any_store(where: str, request: pytest.FixtureRequest) -> Store:
    found: Store = request.getfixturevalue(where)
    return found


def compact(store: Store, day: date) -> None:
    store.write_table("daily_snapshots", day, compact_day(store, load_registry(store), day).rows)


def coins(hour: datetime, number: int, **changes: object) -> list[dict[str, object]]:
    """Coins whose prices move a little every hour, so that no gate has anything to say."""
    step = (hour - at("2024-03-01")) / HOUR
    return [coin(n, price=10.0 * n + step / 50, **changes) for n in range(1, number + 1)]


def fill(store: Store, first: str, last: str, number: int = 4, **changes: object) -> None:
    for hour in hours_between(at(first), at(last)):
        put(store, hour, coins(hour, number, **changes))


def rows_of(table: pd.DataFrame, *columns: str) -> list[tuple[object, ...]]:
    """The rows as tuples, nulls as None."""
    frame = table[list(columns)].astype("object")
    return list(frame.where(frame.notna(), None).itertuples(index=False, name=None))


@ANYWHERE
def test_a_row_an_hour_says_what_is_there_and_how_much_of_it_can_be_used(any_store: Store) -> None:
    fill(any_store, "2024-03-01 20:00", "2024-03-01 21:00")
    # 22:00 is missing. At 23:00 a coin is absent, and another one has no price.
    put(any_store, at("2024-03-01 23:00"), [*coins(at("2024-03-01 23:00"), 2), coin(3, price=-1.0)])
    compact(any_store, date(2024, 3, 1))
    fill(any_store, "2024-03-02 00:00", "2024-03-02 00:00", 5, origin="candles:kraken")
    table = coverage_table(any_store, at("2024-03-01 19:00"), at("2024-03-02 01:00"))
    assert dict(table.dtypes.astype(str)) == COLUMNS
    assert table["timestamp"].tolist() == [pd.Timestamp(f"2024-03-01 {h}:00") for h in range(19, 24)] + [
        pd.Timestamp("2024-03-02 00:00"),
        pd.Timestamp("2024-03-02 01:00"),
    ]
    assert rows_of(table, "state", "rows", "expected_rows", "share", "usable_share", "origin", "compacted") == [
        ("missing", 0, None, 0.0, 0.0, None, False),
        ("collected", 4, 4.0, 1.0, 1.0, "cmc", True),
        ("collected", 4, 4.0, 1.0, 1.0, "cmc", True),
        ("missing", 0, 4.0, 0.0, 0.0, None, False),
        ("collected", 3, 4.0, 0.75, 0.5, "cmc", True),
        ("collected", 5, 4.0, 1.0, 1.0, "candles:kraken", False),
        ("missing", 0, 4.0, 0.0, 0.0, None, False),
    ]


@ANYWHERE
def test_only_the_newest_two_days_are_read_from_raw_files(any_store: Store) -> None:
    fill(any_store, "2024-03-01 00:00", "2024-03-01 00:00")
    fill(any_store, "2024-03-02 23:00", "2024-03-03 00:00")
    any_store.write(any_store.raw_path(at("2024-03-01 01:00"), "csv"), b"")  # nobody opens it
    table = coverage_table(any_store, at("2024-03-01 00:00"), at("2024-03-03 00:00"))
    there = table[table["state"] == "collected"]
    shown = rows_of(there, "timestamp", "rows", "share", "usable_share")
    assert shown[0] == (pd.Timestamp("2024-03-01 00:00"), None, None, None)
    assert shown[-2:] == [
        (pd.Timestamp("2024-03-02 23:00"), 4, 1.0, 1.0),
        (pd.Timestamp("2024-03-03 00:00"), 4, 1.0, 1.0),
    ]
    assert len(table) == 49


def test_an_hour_that_came_after_its_day_was_compacted_is_counted_if_it_is_new(store: Store) -> None:
    fill(store, "2024-03-01 00:00", "2024-03-01 02:00")
    compact(store, date(2024, 3, 1))
    fill(store, "2024-03-01 03:00", "2024-03-01 03:00")
    for last, rows in (("2024-03-02 00:00", 4), ("2024-03-04 00:00", None)):
        table = coverage_table(store, at("2024-03-01 00:00"), at(last))
        assert rows_of(table.iloc[2:4], "state", "rows", "compacted") == [
            ("collected", 4, True),
            ("collected", rows, False),
        ]


def test_followed_and_repeated_rows_do_not_count_and_exclusions_are_usable(store: Store) -> None:
    hour = at("2024-03-01 05:00")
    rows = [
        *coins(hour, 3),
        coin(4, price=40.0, kind="stablecoin"),
        coin(5, price=50.0, volume_24h=0.0),
        coin(3, price=30.1),  # listed twice
        coin(6, price=60.0, origin="cmc:followed"),
        coin(7, price=70.0, origin="cmc:followed"),
    ]
    put(store, hour, rows)
    compact(store, hour.date())
    found = rows_of(coverage_table(store, hour, hour), "rows", "expected_rows", "usable_share", "origin")
    assert found == [(5, 5.0, 1.0, "cmc")]
    newest = rows_of(coverage_table(store, hour, hour + HOUR), "rows")
    assert newest == [(5,), (0,)]


def test_an_hour_with_followed_coins_only_has_no_coins_of_a_listing(store: Store) -> None:
    hour = at("2024-03-01 05:00")
    put(store, hour, coins(hour, 3, origin="cmc:followed"))
    found = rows_of(coverage_table(store, hour, hour), "state", "rows", "share")
    assert found == [("collected", 0, 0.0)]


def test_what_is_expected_is_the_median_of_the_hours_of_the_day_before_that_are_there(store: Store) -> None:
    for n, number in enumerate([2, 4, 4, 3]):
        hour = at("2024-03-01 20:00") + n * HOUR
        put(store, hour, coins(hour, number))
    put(store, at("2024-03-02 20:00"), coins(at("2024-03-02 20:00"), 2))
    put(store, at("2024-03-02 21:00"), coins(at("2024-03-02 21:00"), 2))
    for day in (1, 2):
        compact(store, date(2024, 3, day))
    table = coverage_table(store, at("2024-03-01 20:00"), at("2024-03-02 21:00"))
    expected = dict(zip(table["timestamp"], table["expected_rows"], strict=True))
    assert [expected[pd.Timestamp(f"2024-03-01 {h}:00")] for h in (20, 21, 22, 23)] == [2.0, 2.0, 3.0, 4.0]
    # Of 2, 4, 4 and 3 the first has passed out of the day at 21:00, and 2 has come.
    assert expected[pd.Timestamp("2024-03-02 20:00")] == pytest.approx(3.5)
    assert expected[pd.Timestamp("2024-03-02 21:00")] == pytest.approx(3.5)
    shares = table.set_index("timestamp")["share"]
    assert shares[pd.Timestamp("2024-03-02 21:00")] == pytest.approx(2 / 3.5)
    assert shares.max() <= 1


def test_the_most_common_origin_wins_and_a_tie_is_told_alike_every_time(store: Store) -> None:
    hour = at("2024-03-01 05:00")
    some = [
        coin(1, origin="cmc"),
        coin(2, origin="cmc:history"),
        coin(3, origin="candles:b"),
        coin(4, origin="candles:b"),
    ]
    put(store, hour, some)
    put(store, hour + HOUR, [coin(5, origin="simulated"), *some[:3]])
    compact(store, hour.date())
    assert coverage_table(store, hour, hour + HOUR)["origin"].tolist() == ["candles:b", "cmc"]


def test_torn_files_are_told_and_keep_nothing_else_from_being_counted(store: Store) -> None:
    fill(store, "2024-03-01 22:00", "2024-03-02 01:00")
    fill(store, "2024-03-04 00:00", "2024-03-04 02:00")
    for day in (1, 2):
        compact(store, date(2024, 3, day))
    Path(str(store.table_path("daily_snapshots", date(2024, 3, 2)))).write_bytes(b"PAR1 torn")
    objects.delete(store.raw_path(at("2024-03-02 01:00"), "csv"))
    Path(str(store.raw_path(at("2024-03-04 01:00"), "csv"))).write_bytes(b"name,symbol\r\n")
    table = coverage_table(store, at("2024-03-01 22:00"), at("2024-03-04 02:00")).set_index("timestamp")
    seen = table.loc[table["state"] != "missing"]
    assert rows_of(seen.loc[:"2024-03-02 02:00"], "state", "rows", "compacted") == [
        ("collected", 4, True),
        ("collected", 4, True),
        ("collected", None, False),  # its raw file is there; an older day's is not opened
        ("unreadable", 0, False),
        ("unreadable", 0, False),
    ]
    newest = seen.loc["2024-03-04 00:00":]
    assert rows_of(newest, "state", "rows", "share") == [
        ("collected", 4, 1.0),
        ("unreadable", 0, 0.0),
        ("collected", 4, 1.0),
    ]
    # The newest raw hours are judged without the torn day, although they would be judged by it.
    put(store, at("2024-03-03 00:00"), coins(at("2024-03-03 00:00"), 4))
    newest = coverage_table(store, at("2024-03-02 00:00"), at("2024-03-04 00:00")).iloc[24:25]
    assert rows_of(newest, "state", "rows", "compacted") == [("collected", 4, False)]
    known = known_hours(store, at("2024-03-01 22:00"), at("2024-03-04 02:00"))
    assert known.torn == {date(2024, 3, 2)}
    assert known.compacted == {at("2024-03-01 22:00"), at("2024-03-01 23:00")}


@ANYWHERE
def test_the_first_hour_is_the_earliest_that_is_raw_or_compacted_and_not_before_the_start(any_store: Store) -> None:
    early, late = at("2024-01-01"), at("2024-04-01")
    assert first_hour(any_store, early, late) is None
    fill(any_store, "2024-02-10 07:00", "2024-02-10 09:00")
    assert first_hour(any_store, early, late) == at("2024-02-10 07:00")
    assert first_hour(any_store, at("2024-02-10 08:00"), late) == at("2024-02-10 08:00")
    assert first_hour(any_store, at("2024-02-10 10:00"), late) is None
    compact(any_store, date(2024, 2, 10))
    for hour in (7, 8, 9):
        objects.delete(any_store.raw_path(at(f"2024-02-10 0{hour}:00"), "csv"))
    assert first_hour(any_store, early, late) == at("2024-02-10 07:00")
    fill(any_store, "2024-02-20 00:00", "2024-02-20 00:00")
    assert first_hour(any_store, early, late) == at("2024-02-10 07:00")
    assert first_hour(any_store, at("2024-02-10 08:00"), late) == at("2024-02-10 08:00")


def test_gaps_are_the_stretches_of_missing_hours() -> None:
    hours = hours_between(at("2024-03-01 00:00"), at("2024-03-01 07:00"))
    states = ["missing", "missing", "collected", "missing", "unreadable", "missing", "missing", "missing"]
    found = gaps(pd.DataFrame({"timestamp": pd.DatetimeIndex(hours), "state": states}))
    assert found == [(hours[0], hours[1], 2), (hours[3], hours[3], 1), (hours[5], hours[7], 3)]
    assert found[0] == Gap(first=hours[0], last=hours[1], hours=2)
    assert gaps(pd.DataFrame({"timestamp": pd.DatetimeIndex(hours), "state": "collected"})) == []


@given(st.sets(st.integers(0, 60)))
def test_stretches_hold_exactly_the_hours_and_never_touch(numbers: set[int]) -> None:
    hours = [at("2024-03-01") + n * HOUR for n in sorted(numbers)]
    found = stretches(hours)
    assert [hour for gap in found for hour in hours_between(gap.first, gap.last)] == hours
    assert sum(gap.hours for gap in found) == len(hours)
    assert all(later.first - earlier.last > HOUR for earlier, later in pairwise(found))


@ANYWHERE
def test_the_table_is_kept_and_the_same_table_gives_the_same_bytes(any_store: Store) -> None:
    fill(any_store, "2024-03-01 22:00", "2024-03-02 01:00")
    compact(any_store, date(2024, 3, 1))
    first, last = at("2024-03-01 20:00"), at("2024-03-02 02:00")
    table = coverage_table(any_store, first, last)
    path = write_coverage(any_store, table)
    assert path == coverage_path(any_store)
    assert str(path).endswith("coverage/coverage.parquet")
    data = objects.read(path)
    write_coverage(any_store, coverage_table(any_store, first, last))
    assert objects.read(path) == data
    pd.testing.assert_frame_equal(pd.read_parquet(BytesIO(data)).astype(COLUMNS), table)


def test_a_year_in_a_bucket_costs_a_request_a_day_and_two_a_month(
    s3_url: str, s3_location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with wire_to(s3_url) as wire:
        bucket = Store.at(s3_location, wire.url)
        first = at("2024-01-01 00:00")
        data = parquet_bytes(
            pd.DataFrame({"timestamp": [pd.Timestamp(first)], "origin": "cmc", "quarantine": "", "token": "A-1"})
        )
        days = [first.date() + timedelta(days=n) for n in range(90)]
        for day in days:
            objects.write(bucket.table_path("daily_snapshots", day), data)
        wire.requests.clear()
        known_hours(bucket, first, at("2024-03-30 23:00"))
        # 90 daily files, one listing of them, one listing for each of the three months of raw files.
        assert len(wire.requests) == 90 + 1 + 3


# The picture -------------------------------------------------------------------------------------------------------


def table_of(days: int, first: str = "2023-03-05 07:00") -> pd.DataFrame:
    hours = pd.date_range(first, periods=24 * days, freq="h")
    rng = np.random.default_rng(3)
    share = np.clip(1 - rng.exponential(0.02, len(hours)), 0, 1)
    return pd.DataFrame({"timestamp": hours, "state": "collected", "usable_share": share})


TITLE, LEFT, BELOW = 44, 70, 80  # pixels around the hours, where text has greys of its own


def pixels(png: bytes) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.open(BytesIO(png)).convert("RGB"))[TITLE:-BELOW, LEFT:]


def count(png: bytes, colour: tuple[int, int, int]) -> int:
    return int((pixels(png) == colour).all(axis=2).sum())


def changed(table: pd.DataFrame, rows: slice, **values: str | float) -> pd.DataFrame:
    table = table.copy()
    for name, value in values.items():
        table.loc[table.index[rows], name] = value
    return table


@pytest.fixture(scope="module")
def plain() -> pd.DataFrame:
    return changed(table_of(10), slice(0, 240), usable_share=1.0)


def test_a_missing_hour_has_a_colour_of_its_own_unlike_an_hour_of_which_nothing_is_usable(plain: pd.DataFrame) -> None:
    cell = 40 * 8  # pixels of an hour in ten days
    whole = coverage_picture(plain)
    missing = coverage_picture(changed(plain, slice(30, 33), state="missing", usable_share=0.0))
    unusable = coverage_picture(changed(plain, slice(30, 33), usable_share=0.0))
    unknown = coverage_picture(changed(plain, slice(30, 33), usable_share=np.nan))
    for colour, picture in ((MISSING_COLOUR, missing), (VIRIDIS_ZERO, unusable), (UNKNOWN_COLOUR, unknown)):
        assert count(picture, colour) - count(whole, colour) == 3 * cell
        assert count(whole, VIRIDIS_ONE) - count(picture, VIRIDIS_ONE) == 3 * cell
    assert MISSING_COLOUR != VIRIDIS_ZERO
    assert count(missing, VIRIDIS_ZERO) == count(whole, VIRIDIS_ZERO)


def test_hours_run_down_and_days_across(plain: pd.DataFrame) -> None:
    picture = pixels(coverage_picture(changed(plain, slice(30, 31), state="missing")))  # 13:00 of the second day
    down, across = np.nonzero((picture != pixels(coverage_picture(plain))).any(axis=2))
    assert (across.min(), across.max()) == (40, 79)
    assert (down.min(), down.max()) == (13 * 8, 14 * 8 - 1)


@pytest.mark.parametrize("days", [1, 5, 31, 90, 365, 400, 401, 730, 2000])
def test_a_single_missing_hour_is_seen_and_the_picture_is_modest_whatever_the_span(days: int) -> None:
    table = table_of(days)
    png, gap = coverage_picture(table), coverage_picture(changed(table, slice(9, 10), state="missing"))
    assert len(png) < 60_000
    width, height = Image.open(BytesIO(png)).size
    assert 300 < width < 1000
    assert height < 1200
    assert count(gap, MISSING_COLOUR) - count(png, MISSING_COLOUR) >= 8
    assert png == coverage_picture(table)
