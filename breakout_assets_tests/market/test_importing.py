from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest

from breakout_assets.__main__ import main
from breakout_assets.errors import DataError
from breakout_assets.market.files import read_raw
from breakout_assets.market.importing import import_panel
from breakout_assets.store import Store
from breakout_assets_tests.samples import at, coin, listing

FIRST = at("2024-03-01 22:00")


def panel(hours: int = 5, **changes: object) -> pd.DataFrame:
    frames = [listing(FIRST + timedelta(hours=n), [coin(1, **changes), coin(2, symbol="NAN")]) for n in range(hours)]
    return pd.concat(frames, ignore_index=True).dropna(axis="columns", how="all")


def save(frame: pd.DataFrame, folder: Path, suffix: str = ".csv") -> Path:
    file = folder / f"panel{suffix}"
    if suffix == ".csv":
        frame.to_csv(file, index=False)
    else:
        frame.to_parquet(file, index=False)
    return file


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_every_hour_of_a_panel_becomes_a_raw_file(store: Store, tmp_path: Path, suffix: str) -> None:
    frame = panel().assign(meta_origin="extra")
    seen: list[int] = []
    report = import_panel(save(frame, tmp_path, suffix), store, progress=lambda done, total, hour: seen.append(done))
    assert (report.written, report.rows, report.first, report.last) == (5, 10, FIRST, FIRST + timedelta(hours=4))
    assert seen == [1, 2, 3, 4, 5]
    assert "max_supply" in report.absent_columns
    found = {**store.raw_files(FIRST.date()), **store.raw_files((FIRST + timedelta(hours=4)).date())}
    assert len(found) == 5
    rows = read_raw(list(found.values()))
    assert rows["symbol"].tolist() == ["C1", "NAN"] * 5
    assert rows["id"].tolist() == [1, 2] * 5


def test_an_import_that_was_stopped_goes_on_where_it_was(store: Store, tmp_path: Path) -> None:
    file = save(panel(), tmp_path)

    def stop(done: int, total: int, hour: object) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_panel(file, store, progress=stop)
    report = import_panel(file, store)
    assert (report.already_there, report.written) == (3, 2)


def test_an_hour_with_other_content_is_refused_unless_told_otherwise(store: Store, tmp_path: Path) -> None:
    import_panel(save(panel(), tmp_path), store, extension="parquet")
    other = save(panel(price=11.0), tmp_path)
    path = store.raw_path(FIRST, "parquet")
    before = path.read_bytes()
    with pytest.raises(DataError, match=r"2024-03-01 22:00 is in the store with other content.*--overwrite"):
        import_panel(other, store)
    assert path.read_bytes() == before
    report = import_panel(other, store, overwrite=True)
    assert report.replaced == 5
    assert read_raw([store.raw_files(FIRST.date())[FIRST]])["price"].tolist() == [11.0, 20.0]


def test_a_torn_hour_is_repaired_by_an_import_that_may_overwrite(store: Store, tmp_path: Path) -> None:
    file = save(panel(), tmp_path)
    import_panel(file, store)
    store.raw_path(FIRST, "csv").write_bytes(b"torn")
    with pytest.raises(DataError, match="--overwrite"):
        import_panel(file, store)
    report = import_panel(file, store, overwrite=True)
    assert (report.replaced, report.already_there) == (1, 4)


def test_the_same_content_in_another_format_is_the_same(store: Store, tmp_path: Path) -> None:
    import_panel(save(panel(), tmp_path), store, extension="parquet")
    assert import_panel(save(panel(), tmp_path), store, extension="csv").already_there == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns=["price", "cmc_rank"]), "lacks the columns cmc_rank, price"),
        (
            lambda f: f.assign(timestamp=f["timestamp"] + timedelta(minutes=30)),
            "10 rows whose timestamp is not a whole",
        ),
        (lambda f: f.assign(timestamp="yesterday"), "cannot be read as a panel"),
        (lambda f: f.assign(price="cheap"), "cannot be read as a panel.*cheap"),
    ],
)
def test_a_panel_that_cannot_be_right_is_refused_before_anything_is_written(
    store: Store, tmp_path: Path, change: object, message: str
) -> None:
    assert callable(change)
    with pytest.raises(DataError, match=message) as refusal:
        import_panel(save(change(panel()), tmp_path), store)
    assert "panel.csv" in str(refusal.value)
    assert not store.root.exists()


def test_a_time_with_an_offset_is_converted_and_never_taken_for_utc(store: Store, tmp_path: Path) -> None:
    text = panel(1)
    import_panel(save(text.assign(timestamp=text["timestamp"].astype("str") + "+02:00"), tmp_path), store)
    assert list(store.raw_files(FIRST.date())) == [FIRST - timedelta(hours=2)]
    import_panel(
        save(panel(1).assign(timestamp=panel(1)["timestamp"].dt.tz_localize("UTC")), tmp_path, ".parquet"), store
    )
    assert list(store.raw_files(FIRST.date())) == [FIRST - timedelta(hours=2), FIRST]


def test_a_csv_that_is_cut_or_empty_says_so(store: Store, tmp_path: Path) -> None:
    file = save(panel(), tmp_path)
    whole = file.read_bytes()
    for content, message in [
        (whole[:-40], "cannot be read as a panel"),
        (whole.splitlines()[0] + b"\n", "holds no rows"),
        (b"", "is empty"),
    ]:
        file.write_bytes(content)
        with pytest.raises(DataError, match=message):
            import_panel(file, store)
    assert not store.root.exists()


def test_a_torn_panel_is_refused(store: Store, tmp_path: Path) -> None:
    file = save(panel(), tmp_path, ".parquet")
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(DataError, match=r"panel\.parquet cannot be read"):
        import_panel(file, store)
    with pytest.raises(DataError, match=r"neither \.csv nor \.parquet"):
        import_panel(Path(__file__), store)
    with pytest.raises(DataError, match="is not there"):
        import_panel(tmp_path / "nowhere.csv", store)


def test_rows_that_will_be_quarantined_are_kept_and_counted(store: Store, tmp_path: Path) -> None:
    frame = pd.concat([panel(1), panel(1), panel(1, price=0.0), panel(1, price=None)], ignore_index=True)
    report = import_panel(save(frame, tmp_path), store)
    assert report.rows == 8
    assert report.suspicious == {
        "rows without a price": 1,
        "rows with a price of zero or below": 1,
        "rows of a coin that is in the hour already": 6,
    }


def test_the_command_line_imports_and_says_what_is_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BREAKOUT_STORE", str(tmp_path / "store"))
    assert main(["import", str(save(panel(), tmp_path))]) == 0
    out = capsys.readouterr().out
    assert "5 hours written" in out
    assert "--partition-range 2024-03-01...2024-03-02" in out
    assert main(["import", str(save(panel(price=3.0), tmp_path))]) == 1
    assert "other content" in capsys.readouterr().err
