import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import pandas as pd
import pytest

from breakout_assets.errors import DataError
from breakout_assets.store import Store
from breakout_assets.tables import MARKET_HEALTH
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
