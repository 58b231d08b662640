from pathlib import Path

import pandas as pd
import pytest

from breakout_assets.errors import DataError
from breakout_assets.market.files import raw_bytes, read_raw
from breakout_assets.market.schema import RAW_COLUMNS, SNAPSHOT_COLUMNS
from breakout_assets.store import RawFile, Store
from breakout_assets_tests.samples import at, coin, listing, put

HOUR = at("2024-03-01 05:00")


def read(store: Store) -> pd.DataFrame:
    return read_raw(list(store.raw_files(HOUR.date()).values()))


@pytest.mark.parametrize("extension", ["csv", "parquet"])
def test_a_snapshot_comes_back_as_it_was_written(store: Store, extension: str) -> None:
    coins = [coin(1, symbol="NA", name="TRUE"), coin(2, symbol="☠,ΤBTC", price=6.3e-8, id=None), coin(3, symbol="42")]
    put(store, HOUR, coins, extension)
    pd.testing.assert_frame_equal(read(store), listing(HOUR, coins))


def test_csv_looks_like_the_older_collectors_file_with_an_id_behind(store: Store) -> None:
    text = put(store, HOUR, [coin(1, max_supply=None)]).read_bytes().decode()
    header, row = text.split("\r\n")[:2]
    assert header == ",".join([*SNAPSHOT_COLUMNS, "id", "kind", "origin"])
    assert row.endswith(",2024-03-01T05:00:00,1,,")


def test_files_of_different_schemas_are_read_together_in_order_of_time(store: Store) -> None:
    old = listing(HOUR, [coin(1), coin(2)]).drop(columns=["id", "market_cap_dominance"])
    path = store.raw_path(HOUR, "csv")
    store.write(path, old.assign(timestamp="2024-03-01T05:00:00").to_csv(index=False).encode())
    put(store, at("2024-03-01 04:00"), [coin(3)], "parquet")
    put(store, at("2024-03-01 06:00"), [coin(4)])
    rows = read(store)
    assert list(rows.columns) == list(RAW_COLUMNS)
    assert rows["symbol"].tolist() == ["C3", "C1", "C2", "C4"]
    assert rows["id"].isna().tolist() == [False, True, True, False]


def test_another_collectors_parquet_may_have_narrower_numbers_and_each_name_once(store: Store) -> None:
    supply = 2**60 + 1  # which a float can only come near to
    rows = listing(HOUR, [coin(1, price=0.5, max_supply=float(supply)), coin(2, price=2.0, max_supply=1.0)])
    foreign = rows.astype({"price": "float32", "num_market_pairs": "int32", "symbol": "category"})
    foreign = foreign.assign(max_supply=[supply, 1])
    store.write(store.raw_path(HOUR, "parquet"), foreign.to_parquet(index=False))
    pd.testing.assert_frame_equal(read(store), rows)


def broken(kind: str, good: bytes) -> bytes:
    return {
        "missing column": good.replace(b",price,", b",cost,"),
        "empty": b"",
        "header only": good.split(b"\r\n")[0] + b"\r\n",
        "web page": b"<html><body>502 Bad Gateway</body></html>",
        "cut in a row": good[:-30],
        "cut in the last field": good[:-3],
        "text for a number": good.replace(b",20.0,", b",twenty,"),
        "another hour": good.replace(b"T05:00:00", b"T04:00:00"),
        "an offset": good.replace(b"T05:00:00", b"T05:00:00+02:00"),
        "an hour that is not whole": good.replace(b"T05:00:00", b"T05:30:00"),
        "a row without a time": good.replace(b"2024-03-01T05:00:00", b"", 1),
        "no time at all": good.replace(b"2024-03-01T05:00:00", b"soon"),
        "a field too many": good.replace(b"C2,", b"C2,C2,"),
        "no UTF-8": good.replace(b"Coin 2", b"C\xf6in 2"),
        "a column twice": good.replace(b"market_cap,", b"price,"),
    }[kind]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing column", "lacks the columns price"),
        ("empty", "is empty"),
        ("header only", "holds no rows"),
        ("web page", "is not a snapshot"),
        ("cut in a row", "is torn"),
        ("cut in the last field", "is torn"),
        ("text for a number", "torn or foreign"),
        ("another hour", "written under the wrong hour"),
        ("an offset", "written under the wrong hour"),
        ("an hour that is not whole", "written under the wrong hour"),
        ("a row without a time", "some without a time"),
        ("no time at all", "torn or foreign"),
        ("a field too many", "torn or foreign"),
        ("no UTF-8", "torn or foreign"),
        ("a column twice", "torn or foreign"),
    ],
)
def test_a_faulty_file_is_refused_by_its_path_and_stays_where_it_is(store: Store, kind: str, message: str) -> None:
    path = put(store, HOUR, [coin(1), coin(2)])
    faulty = broken(kind, path.read_bytes())
    path.write_bytes(faulty)
    put(store, at("2024-03-01 06:00"), [coin(1)])
    with pytest.raises(DataError, match=message) as refusal:
        read(store)
    assert "2024/03/01/05/cmcdata.csv" in str(refusal.value)
    assert path.read_bytes() == faulty


@pytest.mark.parametrize(
    "written",
    ["2024-03-01 05:00:00", "2024-03-01T05:00:00.000Z", "2024-03-01 07:00:00+02:00", "2024-03-01 05:00:00 UTC"],
)
def test_a_time_may_be_written_in_many_ways(store: Store, written: str) -> None:
    path = put(store, HOUR, [coin(1), coin(2)])
    path.write_bytes(path.read_bytes().replace(b"2024-03-01T05:00:00", written.encode()))
    assert read(store)["timestamp"].tolist() == [pd.Timestamp(HOUR)] * 2


def test_only_an_empty_field_is_a_null_and_a_name_may_hold_anything(store: Store) -> None:
    names = ["NA", "null", " x ", 'say "hi"', "two\nlines", "a,b", "nan", "None"]
    put(store, HOUR, [coin(n, name=name, symbol=None) for n, name in enumerate(names)])
    rows = read(store)
    assert rows["name"].tolist() == names
    assert rows["symbol"].isna().all()


def test_a_torn_parquet_file_is_refused(store: Store) -> None:
    path = put(store, HOUR, [coin(1)], "parquet")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError, match=r"05/cmcdata\.parquet cannot be read"):
        read(store)


def test_two_swapped_columns_are_read_by_name(store: Store) -> None:
    frame = listing(HOUR, [coin(1)])
    columns = list(frame.columns)
    a, b = columns.index("price"), columns.index("market_cap")
    columns[a], columns[b] = columns[b], columns[a]
    text = frame[columns].assign(timestamp="2024-03-01T05:00:00").to_csv(index=False)
    store.write(store.raw_path(HOUR, "csv"), text.encode())
    assert read(store)["price"].tolist() == [10.0]


def test_no_files_give_no_rows(store: Store) -> None:
    assert list(read_raw([]).columns) == list(RAW_COLUMNS)


def test_a_file_that_vanishes_is_an_error(store: Store, tmp_path: Path) -> None:
    file = RawFile(HOUR, store.raw_path(HOUR, "csv"), "v", HOUR)
    with pytest.raises(DataError, match="cannot be read"):
        read_raw([file])


def test_bytes_do_not_depend_on_how_a_frame_came_about() -> None:
    frame = listing(HOUR, [coin(1), coin(2)])
    assert raw_bytes(frame, "csv") == raw_bytes(frame.copy().sample(frac=1, random_state=1).sort_index(), "csv")
