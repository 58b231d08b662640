import itertools
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from breakout_assets.errors import DataError, SettingsError, TemporaryError
from breakout_assets.market.candle_download import (
    LONGEST_WAIT,
    WAITS,
    Progress,
    cached_candles,
    check_pairs,
    download,
    venue_client,
)
from breakout_assets.market.candle_history import (
    CandleReport,
    import_candle_files,
    import_from_venue,
    provenance,
    write_hours,
)
from breakout_assets.market.candles import ABSENT_COLUMNS, DERIVED_COLUMNS, Coin, snapshot_rows
from breakout_assets.market.collect import claim
from breakout_assets.market.files import read_raw
from breakout_assets.market.schema import raw_frame
from breakout_assets.store import Store
from breakout_assets_tests.market.test_candles import candles
from breakout_assets_tests.market.venueserver import HOUR_MS, Trouble, Venue, serving
from breakout_assets_tests.samples import at, coin, put, shared

FIRST = at("2024-03-01")
LATER = at("2030-01-01")
COINS = {"SOL/USDT": Coin(5426, "SOL", "Solana"), "BTC/USDT": Coin(1, "BTC", "Bitcoin")}
MAP = "pair,id,symbol,name\nSOL/USDT,5426,SOL,Solana\nBTC/USDT,1,BTC,Bitcoin\n"


@pytest.fixture
def map_file(tmp_path: Path) -> Path:
    file = tmp_path / "map.csv"
    file.write_text(MAP)
    return file


def candle_file(folder: Path, frame: pd.DataFrame, name: str = "candles.parquet") -> Path:
    frame.to_parquet(folder / name)
    return folder / name


def stored(store: Store, first: datetime, hours: int) -> pd.DataFrame:
    """What the reader of raw files makes of so many hours."""
    files = store.raw_between(first, first + timedelta(hours=hours - 1))
    return read_raw(list(files.values()))


def rows_of(hours: list[int], **changes: Any) -> pd.DataFrame:
    return snapshot_rows(candles(hours, **changes), COINS, "binance", LATER)


def write(store: Store, rows: pd.DataFrame, **more: Any) -> CandleReport:
    window = (rows["timestamp"].iloc[0].to_pydatetime(), rows["timestamp"].iloc[-1].to_pydatetime())
    return write_hours(store, [rows], COINS, window, **more)


# Writing hours -----------------------------------------------------------------------------------------------------


def test_every_hour_becomes_a_parquet_file_that_is_read_back_and_says_what_is_real(store: Store) -> None:
    rows = rows_of(list(range(50)))
    seen: list[tuple[str, int, int, str]] = []
    report = write(store, rows, progress=lambda *told: seen.append(told))
    assert (report.written, report.rows, report.already_there, report.kept_other) == (50, 50, 0, 0)
    assert (report.first, report.last) == (FIRST + timedelta(hours=1), FIRST + timedelta(hours=50))
    assert (report.holes, report.warnings) == ([], [])
    assert [told[:3] for told in seen] == [("write", n, 50) for n in range(1, 51)]
    assert seen[0][3] == "2024-03-01 01:00"
    pd.testing.assert_frame_equal(stored(store, FIRST, 60), rows)
    path = store.raw_path(FIRST + timedelta(hours=3), "parquet")
    told = provenance(path)
    assert told == {
        "origin": "candles:binance",
        "real": "price",
        "derived": ",".join(DERIVED_COLUMNS),
        "absent": ",".join(ABSENT_COLUMNS),
    }
    assert provenance(Path(str(path))) == provenance(Path(str(path)).read_bytes()) == told


def test_files_of_a_listing_say_nothing_of_where_they_come_from(store: Store, tmp_path: Path) -> None:
    assert provenance(put(store, FIRST, [coin(1)])) == {}
    assert provenance(put(store, FIRST, [coin(1)], "parquet")) == {}
    torn = tmp_path / "torn.parquet"
    torn.write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"torn\.parquet is no sound Parquet"):
        provenance(torn)
    with pytest.raises(DataError, match="the file is no sound Parquet"):
        provenance(b"PAR1 and no more")


def test_hours_that_are_there_with_the_same_content_are_counted_as_such(store: Store) -> None:
    rows = rows_of(list(range(30)))
    write(store, rows)
    path = store.raw_path(FIRST + timedelta(hours=2), "parquet")
    table = pq.read_table(BytesIO(path.read_bytes()))
    pq.write_table(table, str(path), compression="gzip")  # the same rows in other bytes
    before = path.read_bytes()
    report = write(store, rows)
    assert (report.written, report.rows, report.already_there, report.kept_other) == (0, 0, 30, 0)
    assert path.read_bytes() == before


@pytest.mark.parametrize("extension", ["csv", "parquet"])
def test_an_hour_of_the_listing_is_left_alone_and_never_mixed(store: Store, extension: str) -> None:
    taken = FIRST + timedelta(hours=5)
    path = put(store, taken, [coin(5426, symbol="SOL", name="Solana", price=104.0, origin="cmc")], extension)
    older = put(store, FIRST + timedelta(hours=6), [coin(7)], extension)
    before = path.read_bytes(), older.read_bytes()
    report = write(store, rows_of(list(range(10))))
    assert (report.written, report.already_there, report.kept_other) == (8, 0, 2)
    assert report.kept == {"cmc": 1, "no origin": 1}
    assert (path.read_bytes(), older.read_bytes()) == before
    assert len(list(path.parent.iterdir())) == 1
    assert stored(store, taken, 1)["origin"].tolist() == ["cmc"]


def test_hours_of_other_candles_and_torn_hours_are_left_alone_and_counted_apart(store: Store) -> None:
    rows = rows_of(list(range(10)))
    write(store, rows)
    other = snapshot_rows(candles(list(range(10)), close=lambda n: 50.0), COINS, "kraken", LATER)
    torn = store.raw_path(FIRST + timedelta(hours=4), "parquet")
    torn.write_bytes(b"torn")
    report = write(store, other)
    assert report.kept == {"candles:binance": 9, "unreadable": 1}
    assert report.agreement.empty  # candles are no listing
    assert torn.read_bytes() == b"torn"


def test_holes_are_the_hours_without_a_candle_of_any_pair(store: Store) -> None:
    both = pd.concat([candles([0, 1, 2, 5, 6, 9]), candles([3, 5], "BTC/USDT")])
    rows = snapshot_rows(both, COINS, "binance", LATER)
    parts = [rows[rows["timestamp"] <= pd.Timestamp(FIRST + timedelta(hours=6))], rows.iloc[:0]]
    parts.append(rows[rows["timestamp"] > pd.Timestamp(FIRST + timedelta(hours=6))])
    report = write_hours(store, parts, COINS, (FIRST, FIRST + timedelta(hours=10)))
    assert report.holes == [FIRST + timedelta(hours=n) for n in (5, 8, 9)]
    assert (report.written, report.rows) == (7, 8)


def test_an_hour_that_another_process_writes_meanwhile_is_its_own(store: Store) -> None:
    rows = rows_of(list(range(3)))
    late = FIRST + timedelta(hours=3)

    def meddle(stage: str, done: int, total: int, what: str) -> None:
        if done == 1:
            put(store, late, [coin(1, origin="cmc")], "parquet")

    report = write(store, rows, progress=meddle)
    assert (report.written, report.kept) == (2, {"cmc": 1})
    assert stored(store, late, 1)["origin"].tolist() == ["cmc"]


def test_nothing_is_written_into_a_simulated_market(store: Store, tmp_path: Path, map_file: Path) -> None:
    claim(store, "simulated")
    with pytest.raises(DataError, match="simulated market"):
        write(store, rows_of([0]))
    with pytest.raises(DataError, match="simulated market"):
        import_candle_files([candle_file(tmp_path, candles([0, 1]))], "binance", map_file, store, LATER)
    assert not (store.root / "cmc").exists()


# Agreement with listings at hand -------------------------------------------------------------------------------------


def listing_hours(store: Store, hours: range, price: Callable[[int], float], **changes: Any) -> None:
    for n in hours:
        row = coin(5426, symbol="SOL", name="Solana", price=price(n), **changes)
        put(store, FIRST + timedelta(hours=n), [row, coin(9)])


def test_prices_near_the_listings_raise_no_alarm(store: Store) -> None:
    listing_hours(store, range(2, 8), lambda n: (100 + (n - 1) % 7) * (1.024 if n % 2 else 0.999))
    report = write(store, rows_of(list(range(10))))
    assert report.kept_other == 6
    assert report.warnings == []
    assert report.agreement["hours"].tolist() == [6]
    assert report.agreement["median"].iloc[0] < 2.5


@pytest.mark.parametrize(("factor", "median"), [(1.03, "2.91"), (1000.0, "99.9")])
def test_a_pair_of_another_coin_or_of_other_units_is_named(store: Store, factor: float, median: str) -> None:
    listing_hours(store, range(2, 8), lambda n: (100 + (n - 1) % 7) * factor)
    report = write(store, rows_of(list(range(10))))
    (warning,) = report.warnings
    assert warning == (
        f"SOL/USDT is {median} % away from the listing's Solana in the median of 6 hours, in 100% of them by more than "
        "2.5 %: another coin or units?"
    )


def test_a_pair_that_the_listing_does_not_have_is_named(store: Store) -> None:
    listing_hours(store, range(2, 4), lambda n: 100.0 + (n - 1) % 7)
    both = pd.concat([candles(list(range(5))), candles(list(range(5)), "BTC/USDT")])
    report = write(store, snapshot_rows(both, COINS, "binance", LATER))
    assert len(report.warnings) == 1
    assert "have no price of BTC/USDT: too small for the listing, or another id" in report.warnings[0]


def test_coins_without_an_id_are_compared_by_name(store: Store) -> None:
    coins = {"SOL/USDT": Coin(None, "SOL", "Solana")}
    rows = snapshot_rows(candles(list(range(5))), coins, "binance", LATER)
    listing_hours(store, range(2, 4), lambda n: 1.0)
    report = write_hours(store, [rows], coins, (FIRST, LATER))
    assert [warning.split(" is ")[0] for warning in report.warnings] == ["SOL/USDT"]


# Files to hours ------------------------------------------------------------------------------------------------------


def test_candle_files_become_hours_over_months_with_their_whole_past(
    store: Store, tmp_path: Path, map_file: Path
) -> None:
    end = 24 * 100
    hours = [*range(0, end - 100, 17), *range(end - 100, end)]
    frame = candles(hours, close=lambda n: 100.0 + n % 97)
    files = [
        candle_file(tmp_path, frame.iloc[100:], "b.parquet"),
        candle_file(tmp_path, frame.iloc[:100], "a.parquet"),
    ]
    now = FIRST + timedelta(hours=end - 1, minutes=30)  # the last candle is not over
    report = import_candle_files(files, "binance", map_file, store, now)
    whole = snapshot_rows(frame, COINS, "binance", now)
    assert report.unfinished == 1
    assert (report.written, report.first, report.last) == (
        len(whole),
        whole["timestamp"].iloc[0].to_pydatetime(),
        whole["timestamp"].iloc[-1].to_pydatetime(),
    )
    assert len(report.holes) == len({*range(end)} - {*hours})
    pd.testing.assert_frame_equal(stored(store, FIRST, end), whole, check_exact=True)


def test_an_import_of_files_that_was_killed_goes_on(store: Store, tmp_path: Path, map_file: Path) -> None:
    file = candle_file(tmp_path, candles(list(range(24 * 40, 24 * 40 + 60))))

    def kill(stage: str, done: int, total: int, what: str) -> None:
        if done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_candle_files([file], "binance", map_file, store, LATER, kill)
    report = import_candle_files([file], "binance", map_file, store, LATER)
    assert (report.already_there, report.written) == (20, 40)


@pytest.mark.parametrize(
    ("pairs", "venue", "now", "message"),
    [
        (["SOL/USDT", "X/USDT", "A/USDT"], "binance", LATER, "2 pairs are not in the map: A/USDT, X/USDT"),
        (["SOL/USDT"], "binance", FIRST, "no candle that is over at 2024-03-01 00:00:00; the first opens 2024-03-01"),
        (["SOL/USDT"], "My Exchange", LATER, "'My Exchange' is no name of an exchange"),
    ],
)
def test_files_that_cannot_be_imported_leave_the_store_untouched(
    store: Store, tmp_path: Path, map_file: Path, pairs: list[str], venue: str, now: datetime, message: str
) -> None:
    # The pairs without a coin come months later: nothing of the first month may have been written by then.
    frame = pd.concat([candles([n * 24 * 40, n * 24 * 40 + 1], pair) for n, pair in enumerate(pairs)])
    with pytest.raises(DataError, match=message):
        import_candle_files([candle_file(tmp_path, frame)], venue, map_file, store, now)
    assert not store.root.exists()


def test_real_candles_go_into_the_store_and_come_back(store: Store, tmp_path: Path) -> None:
    panel = pd.read_parquet(shared("hourly_panel.parquet"))
    panel = panel[panel["symbol"].isin(["SOL", "1000SATS"]) & (panel["timestamp"] < pd.Timestamp("2024-01-12"))]
    frame = pd.DataFrame(
        {"pair": panel["symbol"], "open_time": panel["timestamp"] - pd.Timedelta(hours=1), "close": panel["price"]}
    ).assign(volume=1.0)
    map_file = tmp_path / "map.csv"
    map_file.write_text("pair,id,symbol,name,units\nSOL,5426,SOL,Solana,\n1000SATS,,SATS,SATS,1000\n")
    report = import_candle_files([candle_file(tmp_path, frame)], "binance", map_file, store, LATER)
    assert (report.written, report.rows, report.holes) == (len(panel) // 2, len(panel), [])
    rows = stored(store, at("2024-01-01"), 24 * 12)
    for symbol, listed, units in [("SOL", "SOL", 1), ("SATS", "1000SATS", 1000)]:
        ours = rows[rows["symbol"] == symbol].reset_index(drop=True)
        theirs = panel[panel["symbol"] == listed].reset_index(drop=True)
        assert ours["price"].tolist() == pytest.approx((theirs["price"] / units).tolist(), rel=1e-12)
        difference = (ours["percent_change_7d"] - theirs["percent_change_7d"]).abs()
        assert difference.max() < 1e-3
        assert difference.isna().sum() == 168


# Download ------------------------------------------------------------------------------------------------------------

NOW = at("2024-03-20 12:34")


@pytest.fixture
def venue() -> Venue:
    """Two pairs: one of a year, one that was listed in the middle of a month."""
    market = Venue(pd.Timestamp(NOW))
    market.list_pair("SOL/USDT", "2023-06-01", 24 * 400, holes=(7, 8, 9, 24 * 45))
    market.list_pair("BTC/USDT", "2024-02-10 05:00", 24 * 100, price=1000.0)
    return market


def fetched_twice(venue: Venue) -> dict[tuple[str, int], int]:
    return {candle: count for candle, count in Counter(venue.served).items() if count > 1}


def never(seconds: float) -> None:
    raise AssertionError(f"waited {seconds} s")


def test_the_client_keeps_to_the_rate_of_the_exchange_and_asks_for_spot_only() -> None:
    pytest.importorskip("ccxt", reason="ccxt is absent; it is optional (the extra `candles`)")
    client: Any = venue_client("binance")
    assert client.enableRateLimit is True
    assert client.options["fetchMarkets"]["types"] == ["spot"]
    with pytest.raises(DataError, match=r"knows no exchange 'binanc'; near: .*binance"):
        venue_client("binanc")
    with pytest.raises(DataError, match=r"offers no hourly candles through ccxt"):
        venue_client("coinspot")


def test_without_ccxt_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    monkeypatch.setitem(sys.modules, "ccxt", None)
    with pytest.raises(SettingsError, match=r"pip install '\.\[candles\]'"):
        download("binance", ["SOL/USDT"], FIRST, FIRST, store, NOW)


def test_a_download_holds_whole_months_up_to_the_last_candle_that_is_over(store: Store, venue: Venue) -> None:
    seen: list[tuple[str, int, int, str]] = []
    with serving(venue) as client:
        done = download(
            "binance",
            ["SOL/USDT", "BTC/USDT"],
            at("2023-12-31 23:00"),
            at("2024-03-20"),
            store,
            NOW,
            lambda *told: seen.append(told),
            exchange=client,
            sleep=never,
        )
    assert (done.fetched, done.cached) == (8, 0)
    assert done.pages == len(venue.asked)
    assert [told[:3] for told in seen] == [("download", n, 8) for n in range(1, 9)]
    assert seen[-1][3] == "BTC/USDT 2024-03"
    march = cached_candles(store, "binance", ["SOL/USDT", "BTC/USDT"], pd.Period("2024-03", "M"))
    for pair, candles_of_pair in march.groupby("pair"):
        held = venue.candles[str(pair).replace("/", "")]
        opens = candles_of_pair["open_time"]
        assert opens.tolist() == list(pd.date_range("2024-03-01", "2024-03-20 11:00", freq="h"))
        expected = [held[int(time.tz_localize("UTC").timestamp() * 1000)] for time in opens]
        assert [*zip(candles_of_pair["close"], candles_of_pair["volume"], strict=True)] == expected
    assert cached_candles(store, "binance", ["BTC/USDT"], pd.Period("2024-01", "M")).empty
    assert (store.root / "candles" / "binance" / "SOL-USDT" / "2023-12.parquet").exists()


def test_holes_stay_holes_and_small_pages_are_put_together(store: Store, venue: Venue) -> None:
    venue.page = 100
    with serving(venue) as client:
        download("binance", ["SOL/USDT"], at("2023-06-01"), at("2023-07-31"), store, NOW, exchange=client, sleep=never)
    june = cached_candles(store, "binance", ["SOL/USDT"], pd.Period("2023-06", "M"))
    july = cached_candles(store, "binance", ["SOL/USDT"], pd.Period("2023-07", "M"))
    assert (len(june), len(july)) == (720 - 3, 744 - 1)
    assert fetched_twice(venue) == {}


def test_an_exchange_that_answers_an_empty_span_with_nothing_is_read_beyond_it(store: Store, venue: Venue) -> None:
    venue.next_only = False
    venue.list_pair("SOL/USDT", "2023-06-01", 24 * 61, holes=tuple(range(30, 500)))
    with serving(venue) as client:
        client.features["spot"]["fetchOHLCV"]["limit"] = 100
        download("binance", ["SOL/USDT"], at("2023-06-01"), at("2023-06-30"), store, NOW, exchange=client, sleep=never)
    june = cached_candles(store, "binance", ["SOL/USDT"], pd.Period("2023-06", "M"))
    assert len(june) == 720 - 470


def test_months_before_a_coin_was_listed_cost_one_request(store: Store, venue: Venue) -> None:
    with serving(venue) as client:
        download("binance", ["BTC/USDT"], at("2022-01-01"), at("2024-02-01"), store, NOW, exchange=client, sleep=never)
        assert len(venue.asked) == 2
        again = download(
            "binance", ["BTC/USDT"], at("2022-01-01"), at("2024-02-01"), store, NOW, exchange=client, sleep=never
        )
    assert (again.pages, again.fetched, again.cached) == (0, 0, 26)


def test_a_killed_download_goes_on_and_fetches_nothing_twice(store: Store, venue: Venue) -> None:
    def kill(stage: str, done: int, total: int, what: str) -> None:
        if done == 3:
            raise KeyboardInterrupt

    asked = ("binance", ["SOL/USDT"], at("2023-11-01"), at("2024-03-20"), store, NOW)
    with serving(venue) as client:
        with pytest.raises(KeyboardInterrupt):
            download(*asked, kill, exchange=client, sleep=never)
        first = len(venue.asked)
        rest = download(*asked, exchange=client, sleep=never)
    assert (first, rest.pages, rest.cached) == (3, 2, 3)
    assert fetched_twice(venue) == {}


def test_the_current_month_is_asked_for_again_from_its_last_candle_only(store: Store, venue: Venue) -> None:
    asked = ("binance", ["SOL/USDT"], at("2024-03-01"), at("2024-03-31"), store)
    later = NOW + timedelta(hours=30)
    with serving(venue) as client:
        download(*asked, NOW, exchange=client, sleep=never)
        same = download(*asked, NOW + timedelta(minutes=20), exchange=client, sleep=never)
        assert same.pages == 0
        venue.now = pd.Timestamp(later)
        last = max(time for _, time in venue.served if pd.Timestamp(time, unit="ms") + pd.Timedelta(hours=1) <= NOW)
        venue.candles["SOLUSDT"][last] = (77.0, 7.0)  # what was known of it at first was not all
        before = len(venue.asked)
        download(*asked, later, exchange=client, sleep=never)
    assert venue.asked[before:] == [("SOLUSDT", last, 31)]
    march = cached_candles(store, "binance", ["SOL/USDT"], pd.Period("2024-03", "M"))
    assert march["open_time"].tolist() == list(pd.date_range("2024-03-01", "2024-03-21 17:00", freq="h"))
    assert march.loc[march["open_time"] == pd.Timestamp("2024-03-20 11:00"), "close"].tolist() == [77.0]


def test_a_month_is_closed_an_hour_after_its_end(store: Store, venue: Venue) -> None:
    asked = ("binance", ["SOL/USDT"], at("2024-02-01"), at("2024-02-29"), store)
    pages = []
    with serving(venue) as client:
        for now in ("2024-03-01 00:00:05", "2024-03-01 02:00", "2024-03-05"):
            venue.now = pd.Timestamp(now)
            pages.append(download(*asked, at(now), exchange=client, sleep=never).pages)
    assert pages == [1, 1, 0]
    february = cached_candles(store, "binance", ["SOL/USDT"], pd.Period("2024-02", "M"))
    assert len(february) == 29 * 24


@pytest.mark.parametrize(
    ("troubles", "waits"),
    [
        ([Trouble(429, "3")], [3.0]),
        ([Trouble(429), Trouble(418, "90")], [WAITS[0], 90.0]),
        ([Trouble(0), Trouble(0), Trouble(503, body="<html>busy</html>")], list(WAITS[:3])),
        ([Trouble(200, body="[[1,"), Trouble(200, body="<html>maintenance</html>")], list(WAITS[:2])),
        ([Trouble(429, "soon")], [WAITS[0]]),
        ([Trouble(0)] * len(WAITS), list(WAITS)),
    ],
)
def test_an_exchange_that_is_busy_or_gone_for_a_while_is_waited_for(
    store: Store, venue: Venue, troubles: list[Trouble], waits: list[float]
) -> None:
    venue.troubles.extend(troubles)
    waited: list[float] = []
    with serving(venue) as client:
        download(
            "binance",
            ["SOL/USDT"],
            at("2024-01-01"),
            at("2024-01-31"),
            store,
            NOW,
            exchange=client,
            sleep=waited.append,
        )
    assert waited == waits
    assert len(cached_candles(store, "binance", ["SOL/USDT"], pd.Period("2024-01", "M"))) == 744


@pytest.mark.parametrize(
    ("trouble", "count", "message"),
    [
        (
            Trouble(0),
            len(WAITS) + 1,
            r"candles of SOL/USDT from 2024-02-01 00:00 of binance could not be had: NetworkE",
        ),
        (
            Trouble(418, str(int(LONGEST_WAIT) + 1)),
            1,
            r"DDoSProtection.*\(wait 121 s\); run it again later, it goes on",
        ),
    ],
)
def test_patience_ends_and_what_was_fetched_stays(
    store: Store, venue: Venue, trouble: Trouble, count: int, message: str
) -> None:
    def later(stage: str, done: int, total: int, what: str) -> None:
        if done == 1:
            venue.troubles.extend([trouble] * count)

    asked = ("binance", ["SOL/USDT"], at("2024-01-01"), at("2024-02-29"), store, NOW)
    with serving(venue) as client:
        with pytest.raises(TemporaryError, match=message):
            download(*asked, later, exchange=client, sleep=lambda seconds: None)
        assert not venue.troubles
        rest = download(*asked, exchange=client, sleep=never)
    assert (rest.pages, rest.cached) == (1, 1)


def test_a_refusal_of_the_exchange_is_final(store: Store, venue: Venue) -> None:
    venue.troubles.append(Trouble(400, body='{"code":-1121,"msg":"Invalid symbol."}'))
    with serving(venue) as client, pytest.raises(DataError, match=r"were refused: BadSymbol: .*Invalid symbol"):
        download("binance", ["SOL/USDT"], FIRST, FIRST, store, NOW, exchange=client, sleep=never)


def test_pairs_that_the_exchange_does_not_have_are_named_before_anything_is_fetched(store: Store, venue: Venue) -> None:
    with serving(venue) as client:
        with pytest.raises(DataError, match=r"binance has no spot market NOPE/USDT, SOLUSDT; .*near: .*SOL/USDT"):
            download("binance", ["SOLUSDT", "NOPE/USDT"], FIRST, FIRST, store, NOW, exchange=client, sleep=never)
        check_pairs(client, "binance", ["SOL/USDT"], never)
    assert venue.asked == []
    assert not store.root.exists()


def test_an_odd_candle_of_the_exchange_is_refused_and_not_kept(store: Store, venue: Venue) -> None:
    start = int(pd.Timestamp("2024-01-01", tz="UTC").timestamp()) * 1000
    for opened, price, message in [
        (start + HOUR_MS // 2, 5.0, "does not open on a whole hour"),
        (start, 0.0, "close that is no number above zero"),
    ]:
        held = dict(venue.candles["SOLUSDT"])
        venue.candles["SOLUSDT"][opened] = (price, 1.0)
        with serving(venue) as client, pytest.raises(DataError, match=rf"candles of SOL/USDT from .*{message}"):
            download(
                "binance", ["SOL/USDT"], at("2024-01-01"), at("2024-01-31"), store, NOW, exchange=client, sleep=never
            )
        venue.candles["SOLUSDT"] = held
    assert not (store.root / "candles").exists()


def test_a_cached_month_that_is_torn_says_what_to_do(store: Store, venue: Venue) -> None:
    path = store.root / "candles" / "binance" / "SOL-USDT" / "2024-01.parquet"
    store.write(path, b"PAR1 torn")
    asked = ("binance", ["SOL/USDT"], at("2024-01-01"), at("2024-01-31"), store, NOW)
    with serving(venue) as client:
        with pytest.raises(
            DataError, match=r"2024-01\.parquet is torn or foreign .*; delete it, and the month is fetch"
        ):
            download(*asked, exchange=client, sleep=never)
        store.write(path, raw_parquet())
        with pytest.raises(DataError, match="torn or foreign"):
            download(*asked, exchange=client, sleep=never)


def raw_parquet() -> bytes:
    buffer = BytesIO()
    raw_frame(pd.DataFrame()).to_parquet(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("pair", ["../X/USDT", "A-B/USDT", "币/USDT"])
def test_no_code_of_a_coin_leaves_its_folder_or_meets_another(store: Store, venue: Venue, pair: str) -> None:
    assert cached_candles(store, "binance", [pair], pd.Period("2024-01", "M")).empty

    class Anything:
        features: Mapping[str, Any] | None = None
        last_response_headers: Mapping[str, str] | None = None
        last_json_response: object = None

        def load_markets(self) -> dict[str, dict[str, Any]]:
            return {pair: {"spot": True}}

        def fetch_ohlcv(self, symbol: str, timeframe: str, since: int, limit: int) -> list[list[int | float | None]]:
            return [[since, 1.0, 1.0, 1.0, 1.0, 2.0]]

    pytest.importorskip("ccxt", reason="ccxt is absent; it is optional (the extra `candles`)")
    now = at("2024-01-01 01:30")
    download("binance", [pair], at("2024-01-01"), at("2024-01-01"), store, now, exchange=Anything(), sleep=never)
    assert len(cached_candles(store, "binance", [pair], pd.Period("2024-01", "M"))) == 1
    (folder,) = (store.root / "candles" / "binance").iterdir()
    assert folder.name.count("-") == 1
    assert [file.name for file in folder.iterdir()] == ["2024-01.parquet"]


# Exchange to hours ---------------------------------------------------------------------------------------------------


def test_hours_from_an_exchange_have_their_past_and_are_the_same_whichever_were_asked_for(
    tmp_path: Path, venue: Venue, map_file: Path
) -> None:
    first, last = at("2024-02-28 22:00"), at("2024-03-02 03:00")
    venue.list_pair("BTC/USDT", "2024-02-29 05:00", 24 * 100, price=1000.0)
    stores = [Store.at(str(tmp_path / name)) for name in ("whole", "pieces")]
    with serving(venue) as client:
        report = import_from_venue("binance", map_file, first, last, stores[0], NOW, exchange=client, sleep=never)
        cut = at("2024-03-01 10:00")
        for start, end in [(cut, last), (first, cut)]:
            import_from_venue("binance", map_file, start, end, stores[1], NOW, exchange=client, sleep=never)
    hours = int((last - first) / timedelta(hours=1)) + 1
    assert (report.written, report.first, report.last, report.holes) == (hours, first, last, [])
    assert report.warnings == []
    whole, pieces = (stored(store, first, hours) for store in stores)
    pd.testing.assert_frame_equal(whole, pieces, check_exact=True)
    sol = whole[whole["symbol"] == "SOL"]
    assert len(sol) == hours
    assert sol["percent_change_90d"].notna().all()
    assert sol["volume_change_24h"].notna().all()
    btc = whole[whole["symbol"] == "BTC"]
    assert btc["timestamp"].iloc[0] == pd.Timestamp("2024-02-29 06:00")
    assert btc["volume_24h"].isna().sum() == 23
    held = venue.candles["BTCUSDT"]
    assert btc["price"].tolist() == [close for close, _ in itertools.islice(held.values(), len(btc))]


def test_an_import_from_an_exchange_that_was_killed_fetches_and_writes_nothing_twice(
    store: Store, venue: Venue, map_file: Path
) -> None:
    asked = ("binance", map_file, at("2024-03-01"), at("2024-03-03"), store, NOW)

    def kill_at(place: tuple[str, int]) -> Progress:
        def kill(stage: str, done: int, total: int, what: str) -> None:
            if (stage, done) == place:
                raise KeyboardInterrupt

        return kill

    with serving(venue) as client:
        for place in [("download", 4), ("write", 10)]:
            with pytest.raises(KeyboardInterrupt):
                import_from_venue(*asked, kill_at(place), exchange=client, sleep=never)
        report = import_from_venue(*asked, exchange=client, sleep=never)
    assert (report.already_there, report.written) == (10, 39)
    assert len({*venue.asked}) == len(venue.asked)


def test_a_pair_without_a_candle_in_these_hours_is_named(store: Store, venue: Venue, map_file: Path) -> None:
    with serving(venue) as client:
        report = import_from_venue(
            "binance", map_file, at("2024-01-05"), at("2024-01-06"), store, NOW, exchange=client, sleep=never
        )
    assert (report.written, report.rows) == (25, 25)
    assert len(report.warnings) == 1
    assert report.warnings[0].startswith("binance gave no candle of BTC/USDT in these hours")


@pytest.mark.parametrize(
    ("first", "last"),
    [("2024-03-02", "2024-03-01"), ("2024-03-01 00:30", "2024-03-02"), ("2024-03-01", "2024-03-20 13:00")],
)
def test_hours_that_cannot_be_built_are_refused(store: Store, map_file: Path, first: str, last: str) -> None:
    with pytest.raises(DataError, match="cannot be built: give whole hours"):
        import_from_venue("binance", map_file, at(first), at(last), store, NOW)
    assert not store.root.exists()


def test_a_wrong_pair_does_not_make_the_store_a_real_market(store: Store, venue: Venue, tmp_path: Path) -> None:
    file = tmp_path / "map.csv"
    file.write_text("pair,symbol,name\nNOPE/USDT,NOPE,Nope\n")
    with serving(venue) as client, pytest.raises(DataError, match="no spot market NOPE/USDT"):
        import_from_venue("binance", file, FIRST, FIRST, store, NOW, exchange=client, sleep=never)
    assert not store.root.exists()
    claim(store, "simulated")
    with serving(venue) as client:
        file.write_text(MAP)
        with pytest.raises(DataError, match="simulated market"):
            import_from_venue("binance", file, FIRST, FIRST, store, NOW, exchange=client, sleep=never)
    assert venue.asked == []
