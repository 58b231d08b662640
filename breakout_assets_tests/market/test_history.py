import os
from datetime import date, timedelta
from pathlib import Path

import pandas as pd
import pytest

from breakout_assets.errors import DataError
from breakout_assets.market.history import (
    compact_day,
    day_bounds,
    hour_of_rows,
    newest_hour,
    read_days,
    read_newest,
    read_until,
)
from breakout_assets.market.tokens import load_registry
from breakout_assets.store import Store
from breakout_assets_tests.samples import at, coin, put

DAY = date(2024, 3, 1)


def fill(store: Store, first: str, hours: int, price: float = 1.0) -> None:
    for n in range(hours):
        # No price stands still, and none jumps: the gates have nothing to say.
        put(store, at(first) + timedelta(hours=n), [coin(1, price=price + n / 50), coin(2, price=20 + n / 50)])


def compact(store: Store, day: date) -> None:
    found = compact_day(store, load_registry(store), day)
    store.write_table("daily_snapshots", day, found.rows, found.made_from)


def test_a_day_is_compacted_by_token_and_time_whatever_hours_it_has(store: Store) -> None:
    fill(store, "2024-03-01 22:00", 4)
    day = compact_day(store, load_registry(store), DAY)
    assert [hour.hour for hour in day.hours] == [22, 23]
    assert day.rows["token"].tolist() == ["C1-1", "C1-1", "C2-2", "C2-2"]
    assert day.rows["price"].tolist() == [1.0, 1.02, 20.0, 20.02]


def test_the_sources_of_a_day_change_with_a_late_or_rewritten_file(store: Store) -> None:
    fill(store, "2024-03-01 22:00", 2)
    first = compact_day(store, load_registry(store), DAY)
    assert compact_day(store, load_registry(store), DAY).sources == first.sources
    fill(store, "2024-03-01 21:00", 1)
    assert compact_day(store, load_registry(store), DAY).sources != first.sources


def test_a_day_without_any_raw_file_is_refused(store: Store) -> None:
    with pytest.raises(DataError, match="no hour of 2024-03-01 has a raw snapshot"):
        compact_day(store, load_registry(store), DAY)


def test_a_day_that_could_have_been_compacted_is_never_passed_over(store: Store) -> None:
    fill(store, "2024-03-01 22:00", 4)
    compact(store, DAY)
    with pytest.raises(DataError, match="daily_snapshots of 2024-03-02 is missing although"):
        read_days(store, [DAY, DAY + timedelta(days=1)])
    hole = DAY - timedelta(days=9)
    assert len(read_days(store, [hole, DAY], ["token"])) == 4
    assert read_days(store, [hole]).empty


@pytest.mark.parametrize("days", [(0, 1, 2, 3), (0, 2), (1, 2, 4)])
def test_history_is_the_same_from_compacted_days_and_from_raw_hours(store: Store, days: tuple[int, ...]) -> None:
    fill(store, "2024-02-27 00:00", 24 * 5)
    for n in (*range(40, 51), *range(64, 75)):  # a price that stands still over midnight, twice
        put(store, at("2024-02-27 00:00") + timedelta(hours=n), [coin(1, price=1.7), coin(2, price=20 + n / 50)])
    first, last = at("2024-02-27 03:00"), at("2024-03-02 01:00")
    key = ["token", "timestamp"]
    raw = read_until(store, first, last).sort_values(key, ignore_index=True)
    for n in days:
        compact(store, date(2024, 2, 27) + timedelta(days=n))
    compacted = read_until(store, first, last).sort_values(key, ignore_index=True)
    pd.testing.assert_frame_equal(raw, compacted)
    assert (raw["timestamp"].min(), raw["timestamp"].max()) == (first, last)
    assert raw["quarantine"].value_counts().to_dict() == {"STALE_PRICE": 12}


def test_some_columns_are_those_of_all_and_the_newest_hour_has_all(store: Store) -> None:
    fill(store, "2024-02-27 00:00", 24 * 5)
    for n in range(3):
        compact(store, date(2024, 2, 27) + timedelta(days=n))
    first, last = at("2024-02-27 03:00"), at("2024-03-02 01:00")
    whole, some = read_until(store, first, last), ["price", "timestamp", "quarantine"]
    newest, rows = read_newest(store, first.date(), last, some)
    assert rows["timestamp"].min() == at("2024-02-27 00:00")  # the whole of the first day
    rows = rows[rows["timestamp"] >= first].reset_index(drop=True)
    pd.testing.assert_frame_equal(rows.astype({"quarantine": "str"}), whole[some])
    pd.testing.assert_frame_equal(hour_of_rows(newest, last), hour_of_rows(whole, last))
    assert read_newest(store, first.date(), last + timedelta(days=3), ["price"])[0].empty


def test_what_an_hour_reads_does_not_grow_with_the_history_behind_it(store: Store) -> None:
    fill(store, "2024-02-20 00:00", 24 * 11)
    for n in range(9):
        compact(store, date(2024, 2, 20) + timedelta(days=n))
    first, last = at("2024-02-28 03:00"), at("2024-03-01 12:00")
    rows = read_until(store, first, last)
    # Nothing but the hours asked for and those that they are judged by is opened: the others may be anything.
    for n in range(11):
        day = date(2024, 2, 20) + timedelta(days=n)
        if day < date(2024, 2, 27) and day not in (date(2024, 2, 22), date(2024, 2, 23)):
            Path(str(store.table_path("daily_snapshots", day))).write_bytes(b"torn")
            for file in store.raw_files(day).values():
                Path(str(file.path)).write_bytes(b"torn")
        elif day <= date(2024, 2, 28):
            for file in store.raw_files(day).values():
                Path(str(file.path)).write_bytes(b"torn")
    pd.testing.assert_frame_equal(read_until(store, first, last), rows)


def test_history_ends_with_the_hour_it_is_asked_for(store: Store) -> None:
    fill(store, "2024-03-01 00:00", 24)
    compact(store, DAY)
    assert read_until(store, at("2024-03-01 00:00"), at("2024-03-01 05:00"))["timestamp"].max() == at(
        "2024-03-01 05:00"
    )


def test_a_late_hour_of_yesterday_is_seen_though_the_day_was_compacted_without_it(store: Store) -> None:
    fill(store, "2024-03-01 00:00", 20)
    compact(store, DAY)
    fill(store, "2024-03-01 20:00", 4)
    assert len(read_until(store, at("2024-03-01 00:00"), at("2024-03-02 00:00"))) == 48


def test_yesterday_is_read_from_its_daily_file_if_that_was_made_from_what_is_there(store: Store) -> None:
    fill(store, "2024-03-01 00:00", 24)
    compact(store, DAY)
    fill(store, "2024-03-02 00:00", 2)
    first, last = at("2024-03-01 05:00"), at("2024-03-02 01:00")
    rows = read_until(store, first, last)
    of_yesterday, made_from = store.read_table("daily_snapshots", [DAY]), store.made_from("daily_snapshots", DAY)
    told = of_yesterday.assign(volume=7.0)
    store.write_table("daily_snapshots", DAY, told, made_from)
    found = read_until(store, first, last)
    assert (found["volume"] == 7.0).tolist() == (found["timestamp"].dt.date == DAY).tolist()
    # Of a file that does not say what it was made from nobody knows whether all hours are in it.
    store.write_table("daily_snapshots", DAY, told)
    key = ["timestamp", "token"]
    raw = read_until(store, first, last).sort_values(key, ignore_index=True)
    pd.testing.assert_frame_equal(raw, rows.sort_values(key, ignore_index=True))


@pytest.mark.parametrize("lost", [5, 24])
def test_hours_of_yesterday_whose_raw_files_were_lost_come_from_its_daily_file(store: Store, lost: int) -> None:
    fill(store, "2024-03-01 00:00", 24)
    compact(store, DAY)
    fill(store, "2024-03-02 00:00", 2)
    first, last = at("2024-03-01 00:00"), at("2024-03-02 01:00")
    rows = read_until(store, first, last)
    for file in list(store.raw_files(DAY).values())[:lost]:
        Path(str(file.path)).unlink()
    pd.testing.assert_frame_equal(read_until(store, first, last), rows)


@pytest.mark.parametrize("kept", [True, False])
def test_an_hour_that_is_delivered_again_after_yesterday_was_compacted_is_seen(store: Store, kept: bool) -> None:
    """Even if the file has the time and the length that it had."""
    fill(store, "2024-03-01 00:00", 24)
    compact(store, DAY)
    fill(store, "2024-03-02 00:00", 2)
    path = Path(str(store.raw_files(DAY)[at("2024-03-01 07:00")].path))
    before = path.stat()
    path.write_bytes(path.read_bytes().replace(b"20.14", b"20.15"))
    if kept:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    found = read_until(store, at("2024-03-01 00:00"), at("2024-03-02 01:00"))
    assert found.loc[found["timestamp"] == at("2024-03-01 07:00"), "price"].tolist()[1] == 20.15


def test_a_day_was_made_from_the_same_whatever_the_time_of_its_files(store: Store, tmp_path: Path) -> None:
    other = Store.at(str(tmp_path / "other"))
    made_from = set()
    for place in (store, other):
        fill(place, "2024-03-01 22:00", 4)
        made_from.add(compact_day(place, load_registry(place), DAY).made_from)
    assert len(made_from) == 1
    fill(other, "2024-03-01 21:00", 1)
    assert compact_day(other, load_registry(other), DAY).made_from not in made_from


def test_one_hour_and_the_newest_hour(store: Store) -> None:
    fill(store, "2024-03-01 22:00", 3)
    rows = read_until(store, at("2024-03-01 22:00"), at("2024-03-02 01:00"))
    assert hour_of_rows(rows, at("2024-03-01 23:00"))["token"].tolist() == ["C1-1", "C2-2"]
    with pytest.raises(DataError, match="materialise hourly_snapshots first"):
        hour_of_rows(rows, at("2024-03-02 01:00"))
    assert newest_hour(store, at("2024-03-02 02:10")) == at("2024-03-02 00:00")
    assert newest_hour(store, at("2024-03-01 23:59")) == at("2024-03-01 23:00")
    assert newest_hour(store, at("2024-03-05 00:00")) is None
    assert day_bounds(DAY) == (at("2024-03-01 00:00"), at("2024-03-01 23:00"))


@pytest.mark.parametrize("compacted", [True, False])
def test_a_day_is_judged_by_the_hours_before_it(store: Store, compacted: bool) -> None:
    fill(store, "2024-03-01 12:00", 24)
    for n in range(22, 29):  # from ten in the evening until four in the morning the price stands still
        put(store, at("2024-03-01 00:00") + timedelta(hours=n), [coin(1, price=1.3), coin(2, price=20 + n / 50)])
    if compacted:
        compact(store, DAY)
    rows = compact_day(store, load_registry(store), DAY + timedelta(days=1)).rows
    stale = rows[rows["quarantine"].notna()]
    assert stale["quarantine"].tolist() == ["STALE_PRICE"] * 2
    assert [hour.hour for hour in stale["timestamp"]] == [3, 4]


def test_the_sources_of_a_day_change_with_the_days_that_it_is_judged_by(store: Store) -> None:
    fill(store, "2024-03-08 00:00", 2)
    found = {compact_day(store, load_registry(store), date(2024, 3, 8)).sources}
    for earlier in ("2024-03-07 10:00", "2024-03-01 00:00"):
        fill(store, earlier, 1)
        found.add(compact_day(store, load_registry(store), date(2024, 3, 8)).sources)
    assert len(found) == 3
    fill(store, "2024-03-04 10:00", 1)
    assert compact_day(store, load_registry(store), date(2024, 3, 8)).sources in found
