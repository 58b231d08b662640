import io
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from breakout_assets.errors import DataError
from breakout_assets.market.candle_files import check_candles, read_candles, read_map
from breakout_assets.market.candles import (
    ABSENT_COLUMNS,
    DERIVED_COLUMNS,
    IDENTITY_COLUMNS,
    REAL_COLUMNS,
    Coin,
    agreement,
    candle_frame,
    origin_of,
    snapshot_rows,
)
from breakout_assets.market.schema import CHANGES, RAW_COLUMNS
from breakout_assets_tests.samples import at, shared

FIRST = at("2024-03-01")
LATER = at("2030-01-01")
SOL = Coin(5426, "SOL", "Solana")
COINS = {"SOL/USDT": SOL, "BTC/USDT": Coin(1, "BTC", "Bitcoin")}


def candles(hours: list[int], pair: str = "SOL/USDT", close: Callable[[int], float] | None = None) -> pd.DataFrame:
    """Candles that open so many hours after the first."""
    price = close or (lambda hour: 100.0 + hour % 7)
    rows = [
        {"pair": pair, "open_time": FIRST + timedelta(hours=n), "close": price(n), "volume": 10.0 + n % 5}
        for n in hours
    ]
    return candle_frame(pd.DataFrame(rows))


def row_of(rows: pd.DataFrame, hours: int) -> pd.Series:
    """The row whose timestamp is so many hours after the first open."""
    return rows[rows["timestamp"] == pd.Timestamp(FIRST + timedelta(hours=hours))].iloc[0]


# Rows --------------------------------------------------------------------------------------------------------------


def test_every_column_of_a_snapshot_is_real_derived_absent_or_identity() -> None:
    parts = [*IDENTITY_COLUMNS, *REAL_COLUMNS, *DERIVED_COLUMNS, *ABSENT_COLUMNS]
    assert sorted(parts) == sorted(RAW_COLUMNS)
    assert REAL_COLUMNS == ("price",)
    assert {"cmc_rank", "num_market_pairs", "market_cap", "date_added", "last_updated", "kind"} <= {*ABSENT_COLUMNS}


def test_a_row_stands_at_the_end_of_its_candle_and_invents_nothing() -> None:
    rows = snapshot_rows(candles(list(range(60))), COINS, "binance", LATER)
    assert list(rows.columns) == list(RAW_COLUMNS)
    assert rows["timestamp"].tolist() == [pd.Timestamp(FIRST) + pd.Timedelta(hours=n + 1) for n in range(60)]
    row = row_of(rows, 50)
    assert row["price"] == pytest.approx(100 + 49 % 7)
    assert (row["id"], row["symbol"], row["name"], row["origin"]) == (5426, "SOL", "Solana", "candles:binance")
    day = sum((100.0 + n % 7) * (10.0 + n % 5) for n in range(26, 50))
    day_before = sum((100.0 + n % 7) * (10.0 + n % 5) for n in range(2, 26))
    assert row["volume_24h"] == pytest.approx(day)
    assert row["volume_change_24h"] == pytest.approx(100 * (day / day_before - 1))
    assert row["percent_change_24h"] == pytest.approx(100 * ((100 + 49 % 7) / (100 + 25 % 7) - 1))
    assert rows[list(ABSENT_COLUMNS)].isna().all(axis=None)


def test_the_first_hours_of_a_coin_are_null_where_they_look_back_too_far() -> None:
    rows = snapshot_rows(candles(list(range(24 * 92))), COINS, "binance", LATER)
    nulls = rows[list(DERIVED_COLUMNS)].isna().sum()
    assert nulls.to_dict() == {"volume_24h": 23, "volume_change_24h": 47, **CHANGES}
    assert rows["percent_change_1h"].notna().tolist() == [False] + [True] * (len(rows) - 1)


def test_a_hole_is_no_row_and_is_looked_over_by_time() -> None:
    rows = snapshot_rows(candles([n for n in range(80) if n != 40]), COINS, "binance", LATER)
    assert pd.Timestamp(FIRST + timedelta(hours=41)) not in set(rows["timestamp"])
    assert pd.isna(row_of(rows, 42)["percent_change_1h"])
    assert row_of(rows, 43)["percent_change_1h"] == pytest.approx(100 * ((100 + 42 % 7) / (100 + 41 % 7) - 1))
    assert pd.isna(row_of(rows, 65)["percent_change_24h"])
    assert rows.loc[rows["volume_24h"].isna(), "timestamp"].tolist() == [
        pd.Timestamp(FIRST + timedelta(hours=n)) for n in [*range(1, 24), *range(42, 65)]
    ]


def test_a_candle_that_is_not_over_is_no_row() -> None:
    frame = candles(list(range(5)))
    for now, rows in [("2024-03-01T04:59:59", 4), ("2024-03-01T05:00:00", 5), ("2024-03-01T00:59:00", 0)]:
        made = snapshot_rows(frame, COINS, "binance", at(now))
        assert len(made) == rows
        assert list(made.columns) == list(RAW_COLUMNS)


def test_the_volume_change_against_a_day_without_trades_is_null() -> None:
    frame = candles(list(range(72)))
    frame.loc[:23, "volume"] = 0.0
    rows = snapshot_rows(frame, COINS, "binance", LATER)
    assert row_of(rows, 24)["volume_24h"] == pytest.approx(0)
    assert pd.isna(row_of(rows, 48)["volume_change_24h"])
    assert row_of(rows, 49)["volume_change_24h"] > 0


def test_a_reported_quote_volume_counts_before_close_times_volume() -> None:
    frame = candles(list(range(24))).assign(quote_volume=[7.0] * 12 + [np.nan] * 12)
    rows = snapshot_rows(frame, COINS, "binance", LATER)
    rest = sum((100.0 + n % 7) * (10.0 + n % 5) for n in range(12, 24))
    assert rows["volume_24h"].iloc[-1] == pytest.approx(12 * 7 + rest)


def test_a_pair_of_thousands_is_priced_by_the_coin_and_its_volume_stays() -> None:
    frame = candles(list(range(30)), "1000SATS/USDT")
    thousands = snapshot_rows(frame, {"1000SATS/USDT": Coin(None, "SATS", "SATS", 1000)}, "binance", LATER)
    ones = snapshot_rows(frame, {"1000SATS/USDT": Coin(None, "SATS", "SATS")}, "binance", LATER)
    np.testing.assert_allclose(thousands["price"] * 1000, ones["price"])
    np.testing.assert_allclose(thousands["volume_24h"], ones["volume_24h"])
    assert thousands["id"].isna().all()


def test_pairs_do_not_look_into_each_other_and_lie_in_one_order() -> None:
    both = pd.concat([candles(list(range(30, 60)), "BTC/USDT", lambda n: 5.0), candles(list(range(60)))])
    rows = snapshot_rows(both.sample(frac=1, random_state=1), COINS, "binance", LATER)
    alone = snapshot_rows(candles(list(range(60))), COINS, "binance", LATER)
    pd.testing.assert_frame_equal(rows[rows["id"] == 5426].reset_index(drop=True), alone)
    assert rows.loc[rows["timestamp"] == pd.Timestamp("2024-03-02 10:00"), "symbol"].tolist() == ["BTC", "SOL"]


def test_all_pairs_that_are_not_in_the_map_are_named() -> None:
    frame = pd.concat([candles([0], pair) for pair in ("X/USDT", "SOL/USDT", "A/USDT")])
    with pytest.raises(DataError, match="2 pairs are not in the map: A/USDT, X/USDT; add them"):
        snapshot_rows(frame, COINS, "binance", LATER)


@pytest.mark.parametrize("venue", ["Binance", "", "a/b", "x:y"])
def test_an_exchange_has_a_plain_name(venue: str) -> None:
    with pytest.raises(DataError, match="no name of an exchange"):
        origin_of(venue)


HOURS = st.lists(st.integers(0, 2400), min_size=1, max_size=60, unique=True)


@given(hours=HOURS, dense=st.integers(0, 2300), seed=st.integers(0, 10**6))
@hypothesis_settings(max_examples=40)
def test_rows_are_what_a_simple_loop_over_the_hours_says(hours: list[int], dense: int, seed: int) -> None:
    opens = sorted({*hours, *range(dense, dense + 60), *range(dense + 24 * 7, dense + 24 * 7 + 30)} - {dense + 7})
    random = np.random.default_rng(seed)
    close = {n: float(random.uniform(1e-6, 1e5)) for n in opens}
    volume = {n: float(random.choice([0.0, random.uniform(0, 1e6)])) for n in opens}
    frame = candles(opens, close=lambda n: close[n]).assign(volume=list(volume.values()))
    rows = snapshot_rows(frame, COINS, "binance", LATER)
    assert len(rows) == len(opens)
    day: dict[int, float] = {}
    for n in opens:
        if all(m in close for m in range(n - 23, n + 1)):
            day[n] = sum(close[m] * volume[m] for m in range(n - 23, n + 1))
    for n, (_, row) in zip(opens, rows.iterrows(), strict=True):
        expected = {"price": close[n], "volume_24h": day.get(n, np.nan), "volume_change_24h": np.nan}
        if day.get(n - 24, 0) > 0 and n in day:
            expected["volume_change_24h"] = 100 * (day[n] / day[n - 24] - 1)
        for name, back in CHANGES.items():
            expected[name] = 100 * (close[n] / close[n - back] - 1) if n - back in close else np.nan
        for name, value in expected.items():
            np.testing.assert_allclose(row[name], value, rtol=1e-9, atol=1e-9, err_msg=f"{name} of hour {n}")


@given(hours=HOURS, cut=st.integers(0, 2400))
@hypothesis_settings(max_examples=30)
def test_what_comes_later_changes_no_row(hours: list[int], cut: int) -> None:
    opens = sorted({*hours, *range(max(0, cut - 60), cut + 30)})
    first = snapshot_rows(candles(opens), COINS, "binance", LATER)
    changed = candles([n for n in opens if n <= cut or n % 3], close=lambda n: 100.0 + n % 7 if n <= cut else 1e9 * n)
    second = snapshot_rows(changed, COINS, "binance", LATER)
    until = pd.Timestamp(FIRST + timedelta(hours=cut + 1))
    pd.testing.assert_frame_equal(first[first["timestamp"] <= until], second[second["timestamp"] <= until])


@given(hours=HOURS, since=st.integers(0, 2400), spare=st.integers(0, 500))
@hypothesis_settings(max_examples=30)
def test_rows_from_an_hour_on_are_the_same_bits_with_only_ninety_days_of_past(
    hours: list[int], since: int, spare: int
) -> None:
    opens = sorted({*hours, *range(since, since + 60)})
    prices = np.random.default_rng(7).uniform(1, 2, 3000)
    frame = candles(opens, close=lambda n: float(prices[n]))
    start = FIRST + timedelta(hours=since)
    whole = snapshot_rows(frame, COINS, "binance", LATER)
    near = frame[frame["open_time"] >= pd.Timestamp(start) - pd.Timedelta(hours=2160 + spare)]
    part = snapshot_rows(near, COINS, "binance", LATER, since=start)
    wanted = whole[whole["timestamp"] > pd.Timestamp(start)].reset_index(drop=True)
    pd.testing.assert_frame_equal(part, wanted, check_exact=True)


def test_the_changes_of_a_real_panel_are_found_again() -> None:
    panel = pd.read_parquet(shared("hourly_panel.parquet"))
    panel = panel[panel["symbol"].isin(["SOL", "WIF", "1000SATS", "PEPE", "BTC"])]
    # The panel's volume is the sum over 24 hours; the hourly one is anything with that sum.
    frame = candle_frame(
        panel.assign(
            pair=panel["symbol"] + "/USDT",
            open_time=panel["timestamp"] - pd.Timedelta(hours=1),
            close=panel["price"],
            quote_volume=_hourly_volume(panel),
        )
    )
    coins = {f"{symbol}/USDT": Coin(None, symbol, symbol) for symbol in panel["symbol"].unique()}
    rows = snapshot_rows(frame, coins, "binance", LATER).set_index(["timestamp", "symbol"])
    reference = panel.astype({"timestamp": "datetime64[us]"}).set_index(["timestamp", "symbol"])
    assert len(rows) == len(reference)
    rows = rows.loc[reference.index]
    for name in ("price", "percent_change_1h", "percent_change_24h", "percent_change_7d"):
        np.testing.assert_allclose(rows[name], reference[name].astype("float64"), rtol=0, atol=1e-3, err_msg=name)
    for name in ("volume_24h", "volume_change_24h"):
        np.testing.assert_allclose(rows[name], reference[name].astype("float64"), rtol=1e-4, atol=1e-2, err_msg=name)


def _hourly_volume(panel: pd.DataFrame) -> pd.Series:
    """A volume of each hour that gives the panel's sums of 24 hours: the first 24 are equal, each next one follows."""

    def of_coin(sums: pd.Series) -> pd.Series:
        values = sums.to_numpy(dtype="float64")
        hourly = np.full(len(values), values[23] / 24)
        for n in range(24, len(values)):
            hourly[n] = values[n] - values[n - 1] + hourly[n - 24]
        return pd.Series(hourly, index=sums.index)

    return panel.groupby("symbol", group_keys=False)["volume_24h"].apply(of_coin)


# Files -------------------------------------------------------------------------------------------------------------


def save(folder: Path, text: str, name: str = "candles.csv") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


HEADER = "pair,open_time,close,volume,quote_volume\n"


@pytest.mark.parametrize(
    "time",
    [
        "2024-03-01T05:00:00",
        "2024-03-01 05:00",
        "2024-03-01T06:00:00+01:00",
        "1709269200",
        "1709269200000",
        "1709269200000000",
        "1709269200000.0",
    ],
)
def test_open_times_are_read_in_every_unit_and_zone(tmp_path: Path, time: str) -> None:
    frame = read_candles([save(tmp_path, f"{HEADER}SOL/USDT,{time},100.25,7,\n")])
    assert frame.to_dict("records") == [
        {
            "pair": "SOL/USDT",
            "open_time": pd.Timestamp("2024-03-01 05:00"),
            "close": 100.25,
            "volume": 7.0,
            "quote_volume": pytest.approx(float("nan"), nan_ok=True),
        }
    ]


@pytest.mark.parametrize("kind", ["datetime64[ns]", "datetime64[us, UTC]", "seconds", "text", "float"])
def test_parquet_is_read_with_times_of_any_type(tmp_path: Path, kind: str) -> None:
    frame = candles(list(range(30)))
    times = frame["open_time"]
    changed: dict[str, Callable[[], Any]] = {
        "datetime64[ns]": lambda: times.astype("datetime64[ns]"),
        "datetime64[us, UTC]": lambda: times.dt.tz_localize("UTC"),
        "seconds": lambda: times.astype("int64") // 10**6,
        "text": lambda: times.astype("str"),
        "float": lambda: times.astype("int64").astype("float64"),
    }
    file = tmp_path / "candles.parquet"
    frame.assign(open_time=changed[kind](), extra=1).drop(columns="quote_volume").to_parquet(file)
    pd.testing.assert_frame_equal(read_candles([file]), frame)


def test_an_archive_without_header_is_read_with_its_pair_from_its_name(tmp_path: Path) -> None:
    line = "{},{},9,9,9,{},12,0,{},3,1,1,0\n"
    old = save(tmp_path, line.format(1735686000000, 8, 10, 121).replace("9,9,9,10", "9,9,10"), "SOLUSDT-1h-2024-12.csv")
    new = save(tmp_path, "1735689600000000,8,9,9,11,12,0,133,3,1,1,0\n", "SOLUSDT-1h-2025-01.csv")
    old.write_text("1735686000000,8,9,9,10,12,0,121,3,1,1,0\n")
    frame = read_candles([new, old])
    assert frame["pair"].tolist() == ["SOLUSDT"] * 2
    assert frame["open_time"].tolist() == [pd.Timestamp("2024-12-31 23:00"), pd.Timestamp("2025-01-01")]
    assert frame[["close", "volume", "quote_volume"]].to_numpy().tolist() == [[10, 12, 121], [11, 12, 133]]


GOOD = "SOL/USDT,2024-03-01T0{}:00:00,100,7,700\n"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([GOOD.format(0), "SOL/USDT,2024-03-01T01:30:00,100,7,1\n"], "row 2: .* does not open on a whole hour"),
        ([GOOD.format(0), GOOD.format(1), GOOD.format(0)], "row 3: .*SOL/USDT at 2024-03-01 00:00:00 is there twice"),
        ([GOOD.format(0), ",2024-03-01T01:00:00,100,7,1\n"], "row 2: .* has no pair"),
        ([GOOD.format(0), "SOL/USDT,2024-03-01T01:00:00,,7,1\n"], "row 2: .* close that is no number above zero"),
        ([GOOD.format(0), "SOL/USDT,2024-03-01T01:00:00,0,7,1\n"], "row 2: .* close that is no number above zero"),
        ([GOOD.format(0), "SOL/USDT,2024-03-01T01:00:00,inf,7,1\n"], "row 2: .* close that is no number above zero"),
        ([GOOD.format(0), "SOL/USDT,2024-03-01T01:00:00,cheap,7,1\n"], "row 2: .* close that is no number above zero"),
        ([GOOD.format(0), "SOL/USDT,2024-03-01T01:00:00,1,much,1\n"], "row 2: .* has a volume that is no number"),
        ([GOOD.format(0), "SOL/USDT,2024-03-01T01:00:00,1,1,-5\n"], "row 2: .* has a quote volume that is no number"),
        ([GOOD.format(0), "SOL/USDT,2024-03-01T01:00:00,1,,\n"], "row 2: .* has neither a volume nor a quote volume"),
        ([GOOD.format(0), "SOL/USDT,yesterday,1,1,1\n"], "row 2: .* has no open time that can be read"),
        (["SOL/USDT,,1,1,1\n"], "row 1: .* has no open time that can be read"),
        ([GOOD.format(0), "SOL/USDT,1709269200,1,1,1\n"], "row 2: the open time is epoch seconds, in row 1 a date"),
        (["SOL/USDT,17092692,1,1,1\n"], "row 1: the open time is an epoch number of no known unit"),
        (
            ["SOL/USDT,1735686000000,1,1,1\n", "SOL/USDT,1735689600000000,1,1,1\n"],
            "row 2: the open time is epoch microseconds, in row 1 epoch milliseconds; .* one kind a file",
        ),
        (["SOL/USDT,1970-01-20T18:00:00,1,1,1\n"], "row 1: .* opens before there were coins"),
        ([GOOD.format(0), "SOL/USDT,2024-03-01T01:00:00,1\n"], "candles.csv is torn or foreign"),
        ([GOOD.format(0), "SOL/USDT,2024-03-01T01:00:00,1,7,700,8\n"], "candles.csv is torn or foreign"),
        ([GOOD.format(0), GOOD.format(1)[:-2]], "candles.csv is torn: its last line does not end"),
        ([], "candles.csv holds no candles"),
    ],
)
def test_a_file_with_an_odd_row_is_refused_with_the_row(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message) as refusal:
        read_candles([save(tmp_path, HEADER + "".join(lines))])
    assert "candles.csv" in str(refusal.value)


def test_the_row_is_right_in_a_long_file(tmp_path: Path) -> None:
    frame = candles(list(range(400_000)))
    frame.loc[350_000, "close"] = -1.0
    text = io.StringIO()
    frame.to_csv(text, index=False, lineterminator="\n")
    with pytest.raises(DataError, match=r"row 350001: .*; 1 of 400000 rows"):
        read_candles([save(tmp_path, text.getvalue())])


def test_a_candle_may_be_in_one_file_only(tmp_path: Path) -> None:
    files = [save(tmp_path, HEADER + GOOD.format(n) + GOOD.format(5), f"{n}.csv") for n in (0, 1)]
    with pytest.raises(DataError, match=r"1\.csv, row 2: the candle of SOL/USDT at 2024-03-01 05:00:00 is in another"):
        read_candles(files)


@pytest.mark.parametrize(("step", "hours"), [(4, 30), (24, 30)])
def test_candles_of_more_than_an_hour_are_refused(tmp_path: Path, step: int, hours: int) -> None:
    file = tmp_path / "candles.parquet"
    candles([n * step for n in range(hours)]).to_parquet(file)
    with pytest.raises(DataError, match=f"candles of SOL/USDT are {step} hours apart throughout"):
        read_candles([file])
    candles([n * step for n in range(10)]).to_parquet(file)  # too few to tell from hours without trades
    assert len(read_candles([file])) == 10


def test_files_that_are_no_candles_are_refused(tmp_path: Path) -> None:
    whole = tmp_path / "whole.parquet"
    candles([0, 1]).to_parquet(whole)
    torn = tmp_path / "torn.parquet"
    torn.write_bytes(whole.read_bytes()[:-20])
    for file, message in [
        (
            save(tmp_path, "open_time,price\n1,2\n", "a.csv"),
            "lacks pair, close, volume or quote_volume; it has open_ti",
        ),
        (save(tmp_path, "", "b.csv"), "is empty"),
        (torn, "torn.parquet is torn or foreign"),
        (tmp_path / "c.csv", "c.csv is not there"),
        (save(tmp_path, "", "d.txt"), r"neither \.csv nor \.parquet"),
    ]:
        with pytest.raises(DataError, match=message):
            read_candles([file])
    latin = tmp_path / "e.csv"
    latin.write_bytes(b"pair,open_time,close,volume\xff\n")
    with pytest.raises(DataError, match="cannot be read as CSV"):
        read_candles([latin])
    with pytest.raises(DataError, match="no candle file was given"):
        read_candles([])


def test_the_source_of_odd_candles_is_named() -> None:
    with pytest.raises(DataError, match=r"candles of SOL of binance, row 2: .* is there twice; 1 of 2 rows are so"):
        check_candles(candles([3, 3]), "candles of SOL of binance")


# The map -----------------------------------------------------------------------------------------------------------


def test_the_map_gives_a_coin_for_each_pair(tmp_path: Path) -> None:
    text = "\ufeffpair,id,symbol,name,units\nSOL/USDT,5426,SOL,Solana,\n1000SATS/USDT,,SATS,SATS (Ordinals),1000\n"
    assert read_map(save(tmp_path, text)) == {
        "SOL/USDT": SOL,
        "1000SATS/USDT": Coin(None, "SATS", "SATS (Ordinals)", 1000.0),
    }
    plain = save(tmp_path, 'pair,symbol,name\nA/B,NAN,"A, B"\n')
    assert read_map(plain) == {"A/B": Coin(None, "NAN", "A, B")}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pair,symbol\n", "lacks the columns name"),
        ("pair,symbol,name,unit\n", "unknown columns unit; known are"),
        ("pair,symbol,name\n", "maps no pair"),
        ("pair,symbol,name\nA/B,A,\n", "row 1 lacks pair, symbol or name"),
        ("pair,symbol,name\nA/B,A\n", "row 1 has not as many fields as the header"),
        ("pair,symbol,name\nA/B,A,B,C\n", "row 1 has not as many fields as the header"),
        ("pair,id,symbol,name\nA/B,x1,A,A\n", r"row 1 \(A/B\): id is 'x1', not a whole number"),
        ("pair,id,symbol,name\nA/B,0,A,A\n", r"row 1 \(A/B\): id is '0', not a whole number"),
        ("pair,symbol,name,units\nA/B,A,A,many\n", "units is 'many', not a number above zero"),
        ("pair,symbol,name,units\nA/B,A,A,0\n", "units is '0', not a number above zero"),
        ("pair,symbol,name,units\nA/B,A,A,inf\n", "units is 'inf', not a number above zero"),
        ("pair,symbol,name\nA/B,A,A\nA/B,C,C\n", "row 2: the pair A/B is mapped twice"),
        ("pair,id,symbol,name\nA/B,1,A,A\nA/C,1,B,B\n", "row 2: A/C and A/B are the same coin"),
        ("pair,id,symbol,name\nA/B,1,A,A\nA/C,,A,A\n", "row 2: A/C and A/B are the same coin"),
    ],
)
def test_a_map_that_cannot_be_right_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = save(tmp_path, text, "map.csv")
    with pytest.raises(DataError, match=message) as refusal:
        read_map(file)
    assert "map.csv" in str(refusal.value)


def test_a_map_that_is_absent_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"map\.csv is not there; it maps pairs to coins"):
        read_map(tmp_path / "map.csv")
    (tmp_path / "map.csv").write_bytes(b"pair,symbol,name\nA/B,A,\xff\n")
    with pytest.raises(DataError, match=r"map\.csv cannot be read as CSV"):
        read_map(tmp_path / "map.csv")


def test_two_coins_may_share_symbol_and_name_if_their_ids_differ(tmp_path: Path) -> None:
    assert len(read_map(save(tmp_path, "pair,id,symbol,name\nA/B,1,A,A\nA/C,2,A,A\n"))) == 2


# Agreement ---------------------------------------------------------------------------------------------------------


def prices(rows: list[tuple[int, int | None, str, str, float | None]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["hour", "id", "symbol", "name", "price"])
    times = pd.Series([pd.Timestamp(FIRST) + pd.Timedelta(hours=n) for n in frame["hour"]], dtype="datetime64[us]")
    return frame.assign(timestamp=times, id=frame["id"].astype("Int64")).drop(columns="hour")


def test_prices_are_compared_by_id_and_else_by_symbol_and_name() -> None:
    ours = prices([(n, 5426, "SOL", "Solana", 100.0 + n) for n in range(4)] + [(0, None, "X", "Ex", 3.0)])
    listing = prices(
        [
            (0, 5426, "SOL", "Solana (renamed)", 100.0),
            (1, 5426, "SOL", "Solana", 100.0),
            (2, None, "SOL", "Solana", 51.0),  # a file without ids
            (3, 9, "SOL", "Solana", 1.0),  # another coin of the same name
            (0, 77, "X", "Ex", 3.3),
            (9, 5426, "SOL", "Solana", 1.0),
        ]
    )
    found = agreement(ours, listing)
    assert found["symbol"].tolist() == ["X", "SOL"]
    assert found["hours"].tolist() == [1, 3]
    assert found["median"].tolist() == pytest.approx([100 * (1 - 3 / 3.3), 1.0])
    assert found["beyond"].tolist() == pytest.approx([1.0, 1 / 3])


def test_prices_that_are_none_or_of_nobody_in_particular_are_not_compared() -> None:
    ours = prices([(0, None, "X", "Ex", 3.0), (1, 1, "A", "A", 3.0), (2, 1, "A", "A", 3.0)])
    listing = prices(
        [(0, 7, "X", "Ex", 3.0), (0, 8, "X", "Ex", 9.0), (1, 1, "A", "A", 0.0), (2, 1, "A", "A", None)],
    )
    found = agreement(ours, listing)
    assert found.empty
    assert list(found.columns) == ["id", "symbol", "name", "hours", "median", "beyond"]
