import subprocess
import sys
from datetime import date, timedelta
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from breakout_assets import store as store_module
from breakout_assets.errors import DataError
from breakout_assets.store import Store, parquet_bytes
from breakout_assets.tables import ADDED, DAILY_SNAPSHOTS, MARKET_HEALTH, PREDICTIONS, conform
from breakout_assets_tests.samples import at, coin, put


def health(hour: str = "2024-03-01 05:00", state: str = "ACTIVE") -> pd.DataFrame:
    row = {"timestamp": at(hour), "state": state, "reasons": "", "rows": 3, "expected_rows": 3.0}
    counts = {"shared_symbols": 0, "look_back_hours": 720}
    return pd.DataFrame([{**row, "quarantined_share": 0.0, "stale_share": 0.0, **counts}])


def test_paths_are_the_public_contract(store: Store) -> None:
    hour = at("2024-03-01 05:00")
    root = str(store.root)
    assert str(store.raw_path(hour, "csv")) == f"{root}/cmc/latest/2024/03/01/05/cmcdata.csv"
    assert str(store.table_path("predictions", hour)) == f"{root}/predictions/2024/03/01/05.parquet"
    assert str(store.table_path("labelled_dataset", hour.date())) == f"{root}/labelled_dataset/2024/03/01.parquet"
    assert str(store.model_folder("SOL-5426")) == f"{root}/token_model/SOL-5426"


def test_a_table_comes_back_typed_and_the_same_rows_give_the_same_bytes(store: Store) -> None:
    hour = at("2024-03-01 05:00")
    path = Path(str(store.write_table("market_health", hour, health())))
    first = path.read_bytes()
    store.write_table("market_health", hour, health())
    assert path.read_bytes() == first
    back = store.read_table("market_health", [hour])
    assert {name: str(kind) for name, kind in back.dtypes.items()} == MARKET_HEALTH
    assert back["state"].tolist() == ["ACTIVE"]


def test_a_frame_without_a_column_of_the_contract_is_refused(store: Store) -> None:
    with pytest.raises(DataError, match="market_health lacks the columns reasons"):
        store.write_table("market_health", at("2024-03-01 05:00"), health().drop(columns="reasons"))


def test_a_part_of_a_frame_is_numbered_anew_and_the_frame_is_not() -> None:
    rows = market_day(DAYS[0])
    part = rows.iloc[3:7]
    assert conform(part, "daily_snapshots").index.tolist() == [0, 1, 2, 3]
    assert conform(part.astype({"cmc_rank": "float64"}), "daily_snapshots").index.tolist() == [0, 1, 2, 3]
    assert part.index.tolist() == [3, 4, 5, 6]


def test_a_missing_partition_and_a_torn_one_are_told_apart_and_named(store: Store) -> None:
    hours = [at("2024-03-01 05:00"), at("2024-03-01 06:00")]
    path = store.write_table("market_health", hours[0], health())
    with pytest.raises(DataError, match=r"missing for 1 of 2 partitions.*2024/03/01/06\.parquet"):
        store.read_table("market_health", hours)
    Path(str(path)).write_bytes(Path(str(path)).read_bytes()[:-20])
    with pytest.raises(DataError, match=r"torn or foreign.*2024/03/01/05\.parquet"):
        store.read_table("market_health", hours[:1])


def test_a_new_file_is_never_replaced_and_nothing_is_left_beside_it(store: Store) -> None:
    path = store.root / "x" / "a.bin"
    assert store.write_new(path, b"first")
    assert not store.write_new(path, b"second")
    assert path.read_bytes() == b"first"
    store.write(path, b"third")
    assert path.read_bytes() == b"third"
    assert [file.name for file in Path(str(path.parent)).iterdir()] == ["a.bin"]


def test_of_several_processes_one_writes_a_new_file(store: Store, tmp_path: Path) -> None:
    script = (
        "import sys; from breakout_assets.store import Store; "
        f"s = Store.at({str(store.root)!r}); sys.stdin.readline(); "
        "print(s.write_new(s.root / 'race' / 'a.bin', sys.argv[1].encode() * 100_000))"
    )
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(n)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(4)
    ]
    for racer in racers:
        assert racer.stdin
        racer.stdin.write("go\n")
        racer.stdin.flush()
    outcomes = [racer.communicate()[0].strip() for racer in racers]
    assert sorted(outcomes) == ["False", "False", "False", "True"]
    winner = str(outcomes.index("True")).encode()
    assert (store.root / "race" / "a.bin").read_bytes() == winner * 100_000


def test_a_store_that_cannot_be_written_says_so_and_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    store = Store.at(str(tmp_path / "file" / "store"))
    with pytest.raises(DataError, match=r"cannot be written.*BREAKOUT_STORE"):
        store.write_table("market_health", at("2024-03-01 05:00"), health())
    with pytest.raises(DataError, match=r"cannot be written.*BREAKOUT_STORE"):
        store.write_new(store.root / "x", b"")


def test_raw_files_of_a_day_are_found_with_a_version_that_follows_the_bytes(store: Store) -> None:
    day = date(2024, 3, 1)
    assert store.raw_files(day) == {}
    late, early = at("2024-03-01 09:00"), at("2024-03-01 03:00")
    put(store, late, [coin(1)])
    put(store, early, [coin(1)], "parquet")
    (Path(str(store.root)) / "cmc/latest/2024/03/01/03/notes.txt").write_text("foreign")
    found = store.raw_files(day)
    assert list(found) == [early, late]
    put(store, late, [coin(1), coin(2)])
    again = store.raw_files(day)
    assert again[early].version == found[early].version
    assert again[late].version != found[late].version
    assert store.raw_file(early + timedelta(hours=1)) is None


def test_days_of_a_table_are_listed(store: Store) -> None:
    assert store.days_of("market_health") == []
    for day in (date(2024, 3, 2), date(2024, 2, 29)):
        store.write_table("market_health", day, health())
    assert store.days_of("market_health") == [date(2024, 2, 29), date(2024, 3, 2)]


DAYS = [date(2024, 3, 1), date(2024, 3, 2), date(2024, 3, 3)]


def market_day(day: date, rows: int = 40) -> pd.DataFrame:
    """A day of `daily_snapshots` with everything that is hard to keep: nulls of each type, and no value at all."""
    hours = pd.date_range(day, periods=rows // 2, freq="h", unit="us")
    numbers = np.random.default_rng(day.day).normal(size=rows)
    frame = pd.DataFrame({"token": ["A-1"] * (rows // 2) + ["Ä,-2"] * (rows // 2), "timestamp": [*hours, *hours]})
    frame = frame.assign(price=np.exp(numbers), volume=np.where(numbers > 0, numbers, np.nan), percent_change_7d=np.inf)
    frame["cmc_rank"] = pd.array(np.where(numbers > 0, 7.0, np.nan)).astype("Int64")
    frame["quarantine"] = pd.Series(["GLITCH", *[None] * (rows - 1)], dtype="str")
    return conform(frame.reindex(columns=list(DAILY_SNAPSHOTS)), "daily_snapshots")


def test_many_files_come_back_as_one_frame_in_the_order_of_their_keys(store: Store) -> None:
    written = {day: market_day(day) for day in DAYS}
    for day, frame in written.items():
        store.write_table("daily_snapshots", day, frame)
    for order in (DAYS, DAYS[::-1]):
        expected = pd.concat([written[day] for day in order], ignore_index=True)
        pd.testing.assert_frame_equal(store.read_table("daily_snapshots", order), expected)
    some = ["price", "token", "cmc_rank", "quarantine"]
    expected = pd.concat(written.values(), ignore_index=True)
    pd.testing.assert_frame_equal(store.read_table("daily_snapshots", DAYS, some), expected[some])
    pd.testing.assert_frame_equal(store.read_table("daily_snapshots", [], some), expected[some].iloc[:0])


def coded(rows: pd.DataFrame) -> pd.DataFrame:
    """With text as pandas itself makes categories of it."""
    return rows.astype({name: "category" for name, kind in DAILY_SNAPSHOTS.items() if kind == "str"})


def test_coded_text_has_each_value_once_in_the_order_of_the_alphabet(store: Store) -> None:
    written = [market_day(day) for day in DAYS]
    written[1]["token"] = written[1]["token"].replace({"A-1": "0-3", "Ä,-2": "Z-9"})
    for day, frame in zip(DAYS, written, strict=True):
        store.write_table("daily_snapshots", day, frame)
    rows = pd.concat(written, ignore_index=True)
    found = store.read_table("daily_snapshots", DAYS, coded=True)
    assert found["token"].cat.categories.tolist() == ["0-3", "A-1", "Z-9", "Ä,-2"]
    pd.testing.assert_frame_equal(found, coded(rows))
    found = store.read_table("daily_snapshots", DAYS, ["price", "token"], ["Z-9", "A-1"], coded=True)
    some = rows.loc[rows["token"].isin(["Z-9", "A-1"]), ["price", "token"]].reset_index(drop=True)
    pd.testing.assert_frame_equal(found.astype({"token": "str"}), some)
    assert store.read_table("daily_snapshots", [], coded=True)["token"].cat.categories.empty


@pytest.mark.parametrize("tokens", [100, 127, 128, 200, 33_000])
def test_a_category_is_found_again_however_many_there_are(store: Store, tokens: int) -> None:
    frame = market_day(DAYS[0], 2 * tokens).iloc[:tokens]
    frame["token"] = [f"T-{n}" for n in np.random.default_rng(1).permutation(tokens)]
    store.write_table("daily_snapshots", DAYS[0], frame)
    found = store.read_table("daily_snapshots", DAYS[:1], ["token", "quarantine"], coded=True)
    pd.testing.assert_frame_equal(found.astype("str"), frame[["token", "quarantine"]])


@pytest.mark.parametrize("files", [0, 2])
def test_rows_that_follow_those_of_files_are_read_with_them(store: Store, files: int) -> None:
    for day in DAYS[:2]:
        store.write_table("daily_snapshots", day, market_day(day))
    then = market_day(DAYS[2])
    for kept in (then, then.iloc[:0], then.iloc[::-1], then[then["quarantine"].isna()]):
        expected = pd.concat([*(market_day(day) for day in DAYS[:files]), kept], ignore_index=True)
        for columns in (list(DAILY_SNAPSHOTS), ["quarantine", "price", "cmc_rank"]):
            found = store.read_table("daily_snapshots", DAYS[:files], columns, then=kept)
            pd.testing.assert_frame_equal(found, expected[columns])
            found = store.read_table("daily_snapshots", DAYS[:files], columns, coded=True, then=kept)
            pd.testing.assert_frame_equal(found, coded(expected)[columns])


def test_a_file_says_what_it_was_made_from(store: Store, bucket_store: Store) -> None:
    for place in (store, bucket_store):
        path = place.write_table("daily_snapshots", DAYS[0], market_day(DAYS[0]), "abc")
        assert place.made_from("daily_snapshots", DAYS[0]) == "abc"
        pd.testing.assert_frame_equal(place.read_table("daily_snapshots", DAYS[:1]), market_day(DAYS[0]))
        place.write(path, b"torn")
        assert place.made_from("daily_snapshots", DAYS[0]) == ""
        assert place.made_from("daily_snapshots", DAYS[1]) == ""
        place.write_table("daily_snapshots", DAYS[0], market_day(DAYS[0]))
        assert place.made_from("daily_snapshots", DAYS[0]) == ""


def test_rows_of_some_tokens_are_read_without_the_others(store: Store) -> None:
    for day in DAYS:
        store.write_table("daily_snapshots", day, market_day(day))
    rows = store.read_table("daily_snapshots", DAYS)
    for tokens in (["Ä,-2"], ["A-1", "no such"], ["A-1", "Ä,-2"], []):
        expected = rows[rows["token"].isin(tokens)].reset_index(drop=True)
        pd.testing.assert_frame_equal(store.read_table("daily_snapshots", DAYS, tokens=tokens), expected)
        found = store.read_table("daily_snapshots", DAYS, ["price", "quarantine"], tokens)
        pd.testing.assert_frame_equal(found, expected[["price", "quarantine"]])


def test_files_of_earlier_versions_and_of_several_row_groups_are_read_like_new_ones(store: Store) -> None:
    rows = market_day(DAYS[0])
    path = store.table_path("daily_snapshots", DAYS[0])
    for options in (
        {"compression": "zstd", "row_group_size": 30_000},  # prices in dictionaries
        {"compression": "snappy", "row_group_size": 7},
        {"compression": "zstd", "use_dictionary": False, "coerce_timestamps": "ms"},
    ):
        buffer = BytesIO()
        pq.write_table(pa.Table.from_pandas(rows, preserve_index=False), buffer, **options)
        store.write(path, buffer.getvalue())
        pd.testing.assert_frame_equal(store.read_table("daily_snapshots", DAYS[:1]), rows)
        found = store.read_table("daily_snapshots", DAYS[:1], tokens=["Ä,-2"])
        pd.testing.assert_frame_equal(found, rows[rows["token"] == "Ä,-2"].reset_index(drop=True))


@pytest.mark.parametrize("fault", ["torn", "empty", "another file", "column", "text", "null"])
def test_the_one_file_of_many_that_cannot_be_read_is_named(store: Store, fault: str) -> None:
    hours = [at(f"2024-03-01 0{n}:00") for n in range(5)]
    for hour in hours:
        path = Path(str(store.write_table("market_health", hour, health())))
    path = path.with_name("03.parquet")
    if fault == "torn":  # within a page, not only at the end
        data = path.read_bytes()
        path.write_bytes(data[:40] + bytes(40) + data[80:])
    elif fault in ("empty", "another file"):
        path.write_bytes(b"" if fault == "empty" else b"<html><body>502 Bad Gateway</body></html>")
    else:
        wrong = {
            "column": health().drop(columns="rows"),
            "text": health().assign(rows="three"),
            "null": health().assign(rows=pd.array([None], dtype="Int64")),
        }
        wrong[fault].to_parquet(path)
    with pytest.raises(DataError, match=r"torn or foreign.*2024/03/01/03\.parquet"):
        store.read_table("market_health", hours)


def test_prices_are_not_kept_in_a_dictionary_and_words_are(store: Store) -> None:
    path = store.write_table("daily_snapshots", DAYS[0], market_day(DAYS[0]))
    group = pq.ParquetFile(str(path)).metadata.row_group(0)
    columns = {group.column(n).path_in_schema: group.column(n) for n in range(group.num_columns)}
    assert "BYTE_STREAM_SPLIT" in columns["price"].encodings
    assert not columns["price"].has_dictionary_page
    assert columns["token"].has_dictionary_page
    assert {column.compression for column in columns.values()} == {"ZSTD"}


def test_rows_are_counted_by_the_values_of_some_columns(store: Store) -> None:
    for day in DAYS:
        store.write_table("daily_snapshots", day, market_day(day))
    found = store.count("daily_snapshots", DAYS, ["token", "quarantine"])
    rows = store.read_table("daily_snapshots", DAYS)
    expected = rows.groupby(["token", "quarantine"], dropna=False).size().rename("n").reset_index()
    pd.testing.assert_frame_equal(found, expected)
    assert store.count("daily_snapshots", [], ["token"]).empty
    with pytest.raises(DataError, match=r"missing for 1 of 4 partitions.*2024/03/04\.parquet"):
        store.count("daily_snapshots", [*DAYS, date(2024, 3, 4)], ["token"])


def test_rows_in_a_bucket_are_counted_few_files_at_a_time(
    store: Store, bucket_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for day in DAYS:
        for each in (store, bucket_store):
            each.write_table("daily_snapshots", day, market_day(day))
    monkeypatch.setattr(store_module, "_HELD_FILES", 2)
    by = ["token", "quarantine"]
    found = bucket_store.count("daily_snapshots", DAYS, by)
    pd.testing.assert_frame_equal(found, store.count("daily_snapshots", DAYS, by))
    assert (found["n"] > 1).any()


def test_a_file_of_before_a_column_was_added_has_nulls_in_it(store: Store) -> None:
    columns = {name: kind for name, kind in PREDICTIONS.items() if name not in ADDED["predictions"]}
    empty = pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in columns.items()})
    old = pd.concat([empty, pd.DataFrame({"token": ["A-1"]})]).astype(columns)
    hours = [at("2024-03-01 05:00"), at("2024-03-01 06:00")]
    store.write(store.table_path("predictions", hours[0]), parquet_bytes(old))
    store.write_table("predictions", hours[1], old.assign(pack_hash="f" * 64))
    for tokens in (None, ["A-1"]):
        found = store.read_table("predictions", hours, tokens=tokens)
        assert found["pack_hash"].fillna("").tolist() == ["", "f" * 64]
