from collections import Counter
from datetime import datetime, timedelta
from functools import cache
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from breakout_assets.errors import DataError
from breakout_assets.market.faults import (
    DELAY_HOURS,
    FAULTS,
    REACH_HOURS,
    STRETCH_HOURS,
    Panel,
    coin_numbers,
    events,
    inject,
)
from breakout_assets.market.schema import HOUR, RAW_COLUMNS, hours_between
from breakout_assets.market.simulated import ORIGIN, SimulatedMarket

SEED, TOKENS = 9, 16  # more coins than the faults need together
NAMES = sorted(FAULTS)
FIRST = datetime.fromisoformat("2024-02-10T07:00")
LAST = FIRST + 36 * 24 * HOUR
PRICE_CHANGES = {
    "percent_change_1h": 1,
    "percent_change_24h": 24,
    "percent_change_7d": 168,
    "percent_change_30d": 720,
    "percent_change_60d": 1440,
    "percent_change_90d": 2160,
}
CHANGES = PRICE_CHANGES | {"volume_change_24h": 24}
COLLECTORS = ("missing_hours", "late_ingestion", "duplicate_rows")
# What a fault may change in rows that it does not hit.
SPILLING = (*CHANGES, "market_cap_dominance")
OWN = [c for c in RAW_COLUMNS if c not in SPILLING and c not in ("id", "timestamp")]
Cell = tuple[int, datetime]


def market(*faults: str, tokens: int = TOKENS) -> SimulatedMarket:
    return SimulatedMarket(seed=SEED, tokens=tokens, faults=frozenset(faults))


@cache
def listing(*faults: str) -> pd.DataFrame:
    """Every row from FIRST to LAST, hours and ranks in order."""
    return pd.concat([frame for _, frame in market(*faults).snapshots(FIRST, LAST)], ignore_index=True)


def only(rows: pd.DataFrame, coin: int) -> pd.DataFrame:
    """One coin's rows by hour."""
    return rows[rows["id"] == coin].set_index("timestamp")


def at(rows: pd.DataFrame, hour: datetime, column: str) -> float:
    """A value of the coin's row of an hour."""
    return float(rows[column][pd.Timestamp(hour)])


def log(fault: str, first: datetime = FIRST, last: datetime = LAST) -> list[tuple[int, datetime, datetime]]:
    """Coin (0: all), first and last hour of each event."""
    entries = market(fault).fault_log(first, last)
    assert set(entries["fault"]) <= {fault}
    coins = entries["id"].fillna(0).astype(int)
    firsts, lasts = (entries[column].dt.to_pydatetime() for column in ("first_hour", "last_hour"))
    return list(zip(coins, firsts, lasts, strict=True))


def whole_event(fault: str) -> tuple[int, datetime, datetime]:
    """The first event that begins in the range."""
    return next(event for event in log(fault) if event[1] >= FIRST)


def stretch(moment: datetime) -> int:
    return (moment - ORIGIN) // (STRETCH_HOURS * HOUR)


@cache
def logged_cells(fault: str, first: datetime = FIRST) -> frozenset[Cell]:
    """Every (coin, hour) of the log in which an undisturbed listing would show something else."""
    cells: set[Cell] = set()
    everything = set(listing()["id"].astype(int))
    entries = log(fault, first)
    if fault in ("symbol_collision", "wrapped_coin"):
        entries = entries[::2]  # each second one is the coin that is collided with or wrapped, and stays as it is
    for coin, begin, end in entries:
        if fault == "redenomination" and stretch(begin) % 2:
            continue  # from here on the zeros are back
        ids = {coin} if coin else everything
        cells |= {(id_, hour) for id_ in ids for hour in hours_between(max(begin, first), min(end, LAST))}
    return frozenset(cells)


@cache
def differences(*faults: str) -> pd.DataFrame:
    """Whether each value differs from the undisturbed listing, to the last bit; one row a coin, hour and copy."""
    clean, faulty = (
        rows.assign(copy=rows.groupby(["id", "timestamp"]).cumcount()).set_index(["id", "timestamp", "copy"])
        for rows in (listing(), listing(*faults))
    )
    every = clean.index.union(faulty.index)
    alone = ~(every.isin(clean.index) & every.isin(faulty.index))
    clean, faulty = clean.reindex(every), faulty.reindex(every)
    unequal = clean.ne(faulty).fillna(True).astype(bool) & ~(clean.isna() & faulty.isna())
    unequal.loc[alone] = True
    return unequal


def differing(faults: list[str], columns: list[str]) -> frozenset[Cell]:
    found = differences(*faults)[columns].any(axis=1)
    hit = found.index[found]
    coins, hours = hit.get_level_values("id"), pd.DatetimeIndex(hit.get_level_values("timestamp"))
    return frozenset(zip(coins.astype(int).tolist(), hours.to_pydatetime(), strict=True))


# --- all of them --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", NAMES)
def test_a_fault_shows_exactly_where_the_log_says(fault: str) -> None:
    expected = logged_cells(fault)
    assert expected
    # Where only the base of the changes is wrong, nothing else can show it.
    assert differing([fault], [*PRICE_CHANGES] if fault == "rebased_change" else OWN) == expected


@pytest.mark.parametrize("fault", NAMES)
def test_beyond_its_cells_a_fault_shows_only_in_changes_against_them(fault: str) -> None:
    hit = logged_cells(fault, FIRST - max(CHANGES.values()) * HOUR)
    for column, lag in CHANGES.items():
        # The collector's faults are not the service's: it goes on computing from what it knows.
        later = set() if fault in COLLECTORS else {(coin, hour + lag * HOUR) for coin, hour in hit}
        assert differing([fault], [column]) <= hit | later


@pytest.mark.parametrize("fault", NAMES)
def test_dominance_of_the_others_changes_only_in_hours_of_the_fault(fault: str) -> None:
    clean, faulty = (rows.drop_duplicates(["id", "timestamp"]) for rows in (listing(), listing(fault)))
    both = clean.merge(faulty, on=["id", "timestamp"], suffixes=("", "_faulty"))
    changed = ~np.isclose(both["market_cap_dominance"], both["market_cap_dominance_faulty"], rtol=1e-9)
    hours = {hour for _, hour in logged_cells(fault)}
    assert set(both.loc[changed, "timestamp"].dt.to_pydatetime()) <= hours


def test_all_faults_together_show_where_their_logs_say() -> None:
    expected = frozenset().union(*(logged_cells(fault) for fault in NAMES if fault != "rebased_change"))
    # A coin that a fault adds shares the hours that are lost to all; they are listed for the market's coins.
    lost = {hour for _, hour in logged_cells("missing_hours")}
    expected = frozenset((coin, hour) for coin, hour in expected if coin <= 900_000 + TOKENS or hour not in lost)
    assert differing(NAMES, OWN) == expected
    assert tuple(listing(*NAMES).columns) == RAW_COLUMNS


def test_all_faults_together_have_the_logs_they_have_alone() -> None:
    together = market(*NAMES).fault_log(FIRST, LAST)
    alone = pd.concat([market(fault).fault_log(FIRST, LAST) for fault in FAULTS], ignore_index=True)
    pd.testing.assert_frame_equal(together, alone)


def test_no_coin_is_hit_by_two_faults_where_there_are_enough() -> None:
    entries = market(*NAMES).fault_log(FIRST, LAST).dropna(subset="id")
    assert (entries.groupby("id")["fault"].nunique() == 1).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), first=st.integers(0, 24 * 1200), tokens=st.integers(4, 60))
def test_any_thirty_days_show_every_fault(seed: int, first: int, tokens: int) -> None:
    begin = ORIGIN + first * HOUR
    entries = SimulatedMarket(seed=seed, tokens=tokens, faults=frozenset(FAULTS)).fault_log(
        begin, begin + (STRETCH_HOURS - 1) * HOUR
    )
    assert set(entries["fault"]) == set(FAULTS)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), tokens=st.integers(4, 60))
def test_the_same_coins_and_hours_are_hit_in_each_stretch(seed: int, tokens: int) -> None:
    first, second = (
        [
            (event.fault, event.first - shift, event.last - shift, event.columns)
            for event in events(seed, tokens, frozenset(FAULTS), 7200, 9000)
            if event.stretch == number
        ]
        for number, shift in ((10, 0), (11, STRETCH_HOURS))
    )
    assert len(first) == len(FAULTS)
    assert first == second


@pytest.mark.parametrize("tokens", [1, 2, 3])
def test_few_coins_can_bear_all_faults(tokens: int) -> None:
    names = [name for name in NAMES if name != "symbol_collision"]
    frames = dict(market(*names, tokens=tokens).snapshots(FIRST, FIRST + 32 * 24 * HOUR))
    assert len(frames) == 32 * 24 + 1 - 3
    assert min(len(frame) for frame in frames.values()) < tokens + 4


def test_short_faults_have_days_of_their_own() -> None:
    short = [fault for fault in FAULTS.values() if fault.hours < STRETCH_HOURS and fault.extra is None]
    # The hour of the day is the seed's, and a late hour shows the listing of two hours later.
    delays = {FAULTS["late_ingestion"].day: DELAY_HOURS}
    spans = sorted((24 * f.day, 24 * f.day + 23 + f.hours - 1 + delays.get(f.day, 0)) for f in short)
    assert all(end < begin for (_, end), (begin, _) in pairwise(spans))


def test_the_registry_describes_each_fault() -> None:
    for name, fault in FAULTS.items():
        assert name.isidentifier()
        assert len(fault.description) > 20
        assert fault.gate.isupper()
        assert 0 < fault.hours <= STRETCH_HOURS
        assert 0 <= fault.day < 30
    assert FAULTS["stale_price"].hours < REACH_HOURS  # or a panel could begin after the price that froze


def test_the_panel_that_a_fault_is_given_stays_as_it_is() -> None:
    faults, tokens, hours = frozenset(FAULTS), 20, np.arange(STRETCH_HOURS, 2 * STRETCH_HOURS)
    numbers = coin_numbers(tokens, faults)
    shape = len(hours), len(numbers)
    random = np.random.default_rng(0)
    price, volume, walk, pairs, supply = random.random((5, *shape))
    base = np.ones(shape)
    age, serial, since, symbol, name, kind = np.zeros((6, *shape), dtype=np.int64)
    listed, copies = np.zeros((2, *shape), dtype=np.bool_)
    delay, collected = np.zeros(len(hours), dtype=np.int64), np.ones(len(hours), dtype=np.bool_)
    panel = Panel(
        hours, numbers, price, volume, walk, pairs, supply, age, serial, since, listed, symbol, name, kind, base,
        copies, delay, collected,
    )  # fmt: skip
    before = {field: cells.copy() for field, cells in vars(panel).items()}
    after = vars(inject(panel, SEED, tokens, faults))
    for field, cells in vars(panel).items():
        np.testing.assert_array_equal(cells, before[field])
    changed = {field for field, cells in after.items() if not np.array_equal(cells, before[field])}
    assert changed == vars(panel).keys() - {"hours", "numbers", "walk", "pairs"}


def test_columns_of_added_coins_come_last() -> None:
    assert coin_numbers(3, frozenset({"late_listing"})).tolist() == [0, 1, 2, 2_000_000]
    assert coin_numbers(2, frozenset(FAULTS)).tolist() == [0, 1, 1_000_000, 2_000_000, 3_000_000, 4_000_000]


def test_faults_come_in_the_order_that_their_coins_and_hours_depend_on() -> None:
    assert list(FAULTS) == [
        "missing_hours", "late_ingestion", "duplicate_rows", "stale_price", "symbol_collision", "dying_token",
        "late_listing", "redenomination", "price_glitch", "market_glitch", "rank_exit", "zero_price", "missing_price",
        "rebased_change", "stablecoin", "wrapped_coin", "zero_volume",
    ]  # fmt: skip


# --- the log ------------------------------------------------------------------------------------------------------


def test_the_log_is_typed_even_if_it_is_empty() -> None:
    for entries in (market().fault_log(FIRST, LAST), market(*NAMES).fault_log(FIRST, LAST)):
        assert entries.columns.tolist() == ["fault", "id", "first_hour", "last_hour"]
        assert [str(kind) for kind in entries.dtypes] == ["str", "Int64", "datetime64[us]", "datetime64[us]"]
    assert market().fault_log(FIRST, LAST).empty


def test_the_log_gives_events_uncut() -> None:
    coin, first, last = whole_event("stale_price")
    middle = first + 4 * HOUR
    assert log("stale_price", middle, middle) == [(coin, first, last)]
    assert log("stale_price", first - HOUR, first) == [(coin, first, last)]
    assert log("stale_price", last, last + HOUR) == [(coin, first, last)]
    assert log("stale_price", last + HOUR, last + 2 * HOUR) == []
    assert log("stale_price", first - 2 * HOUR, first - HOUR) == []


# --- one by one ---------------------------------------------------------------------------------------------------


def test_missing_hours_are_left_out_of_ranges_and_refused_alone() -> None:
    _, first, last = whole_event("missing_hours")
    lost = hours_between(first, last)
    assert len(lost) == 3
    found = [hour for hour, _ in market("missing_hours").snapshots(first - HOUR, last + HOUR)]
    assert found == [first - HOUR, last + HOUR]
    assert list(market("missing_hours").snapshots(first, last)) == []
    for hour in lost:
        with pytest.raises(DataError, match=rf"down at {hour:%Y-%m-%d %H:00} \(fault missing_hours\)"):
            market("missing_hours").snapshot(hour)


def test_a_late_hour_holds_the_listing_of_two_hours_later() -> None:
    _, hour, _ = whole_event("late_ingestion")
    late, later = market("late_ingestion").snapshot(hour), market().snapshot(hour + 2 * HOUR)
    assert (late["timestamp"] == hour).all()
    pd.testing.assert_frame_equal(late.drop(columns="timestamp"), later.drop(columns="timestamp"), check_exact=True)
    delay = pd.to_datetime(late["last_updated"].str.removesuffix("Z")) - late["timestamp"]
    assert delay.min() > timedelta(minutes=90)


def test_a_duplicate_follows_its_row_and_is_that_of_the_hour_before() -> None:
    coin, first, last = whole_event("duplicate_rows")
    for hour in hours_between(first, last):
        frame = market("duplicate_rows").snapshot(hour)
        assert len(frame) == TOKENS + 1
        first_row, second_row = frame.index[frame["id"] == coin]
        assert second_row == first_row + 1
        row, copy = frame.loc[first_row], frame.loc[second_row]
        assert copy["cmc_rank"] == row["cmc_rank"]
        assert copy["last_updated"] < row["last_updated"]
        before = only(market().snapshot(hour - HOUR), coin).iloc[0]
        for column in ("price", "volume_24h", "market_cap", "percent_change_24h", "last_updated"):
            assert copy[column] == before[column]
        assert frame["cmc_rank"].is_monotonic_increasing


def test_a_stale_price_and_its_stamp_stand_still_for_longer_than_any_gate_allows() -> None:
    coin, first, last = whole_event("stale_price")
    rows, clean = only(listing("stale_price"), coin), only(listing(), coin)
    frozen = rows.loc[first - HOUR : last]
    assert len(frozen) == 13
    assert frozen["price"].nunique() == 1
    assert frozen["last_updated"].nunique() == 1
    assert frozen["volume_24h"].nunique() == 13
    assert frozen["price"].iloc[0] == at(clean, first - HOUR, "price")
    assert at(rows, last + HOUR, "price") == at(clean, last + HOUR, "price")
    assert (frozen["percent_change_1h"].iloc[1:].abs() <= 0).all()


def test_collisions_share_a_symbol_and_once_also_the_name_at_all_times() -> None:
    entries = log("symbol_collision", FIRST, FIRST)
    one, its_symbol, other, its_name = (coin for coin, _, _ in entries)
    assert len({one, its_symbol, other, its_name}) == 4
    for hour in (ORIGIN, FIRST, LAST):
        rows = market("symbol_collision").snapshot(hour).set_index("id")
        symbol, name = rows["symbol"].to_dict(), rows["name"].to_dict()
        assert symbol[one] == symbol[its_symbol] == f"SIM{its_symbol - 900_000:03d}"
        assert name[one] != name[its_symbol]
        assert symbol[other] == symbol[its_name]
        assert name[other] == name[its_name] == f"Simulated {its_name - 900_000:03d}"
        assert rows["symbol"].nunique() == TOKENS - 2


def test_a_dying_coin_falls_to_nothing_leaves_and_never_comes_back() -> None:
    coin, first, last = whole_event("dying_token")
    wide = market("dying_token").snapshots(first - 24 * HOUR, last + 20 * 24 * HOUR)
    life = only(pd.concat([frame for _, frame in wide]), coin)
    assert life.index.tolist() == hours_between(first, last)
    assert life["price"].iloc[-1] < 1e-4 * life["price"].iloc[-25]
    assert life["volume_24h"].iloc[-1] < 0.3 * life["volume_24h"].iloc[-25]
    assert (life["price"].iloc[-24:].pct_change().dropna() < -0.3).all()
    assert life["price"].iloc[:-24].pct_change().abs().max() < 0.1
    assert (life["cmc_rank"] == TOKENS + 1).all()


def test_a_late_listed_coin_has_no_past() -> None:
    coin, first, last = whole_event("late_listing")
    wide = market("late_listing").snapshots(first - 24 * HOUR, last + 24 * HOUR)
    life = only(pd.concat([frame for _, frame in wide]), coin)
    assert life.index.tolist() == hours_between(first, last)
    for column, lag in CHANGES.items():
        assert life[column].first_valid_index() == (life.index[lag] if lag < len(life) else None)
    assert (life["date_added"] == f"{first:%Y-%m-%d}T00:00:00.000Z").all()
    assert life["name"].iloc[0] == f"Simulated {coin - 900_000}"
    assert life["symbol"].iloc[0] == f"SIM{coin - 900_000}"


def test_each_added_coin_is_another_one() -> None:
    entries = market("dying_token", "late_listing").fault_log(ORIGIN, ORIGIN + 400 * 24 * HOUR)
    assert entries["id"].is_unique
    assert len(entries) > 26
    ids = Counter(id_ for _, frame in market("late_listing").snapshots(FIRST, FIRST + 40 * HOUR) for id_ in frame["id"])
    assert len(ids) == TOKENS + 1


def test_a_redenomination_multiplies_the_price_divides_the_supplies_and_keeps_the_worth() -> None:
    entries = log("redenomination", FIRST, FIRST + 80 * 24 * HOUR)
    jumps = sorted((begin for _, begin, _ in entries[1:3]), key=lambda moment: stretch(moment) % 2)
    for hour, factor in zip(jumps, (1000.0, 0.001), strict=True):
        before, after = (
            market("redenomination").snapshot(h).set_index("id").loc[entries[0][0]] for h in (hour - HOUR, hour)
        )
        assert after["price"] / before["price"] == pytest.approx(factor, rel=0.05)
        for column in ("circulating_supply", "total_supply"):
            assert after[column] / before[column] == pytest.approx(1 / factor)
        assert after["market_cap"] / before["market_cap"] == pytest.approx(1, rel=0.05)
        assert after["percent_change_1h"] == pytest.approx(100 * (after["price"] / before["price"] - 1))


def test_a_glitch_lasts_one_hour_and_shows_again_in_the_changes() -> None:
    coin, hour, last = whole_event("price_glitch")
    assert last == hour
    rows, clean = only(listing("price_glitch"), coin), only(listing(), coin)
    assert at(rows, hour, "price") == pytest.approx(8 * at(clean, hour, "price"))
    assert abs(np.log(at(rows, hour, "price") / at(rows, hour - HOUR, "price"))) > np.log(3)
    for column, lag in PRICE_CHANGES.items():
        if hour + lag * HOUR <= LAST:
            assert at(rows, hour + lag * HOUR, column) < -80
            assert at(clean, hour + lag * HOUR, column) > -80


def test_a_market_glitch_moves_all_prices_for_one_hour() -> None:
    _, hour, last = whole_event("market_glitch")
    assert last == hour
    faulty, clean = market("market_glitch").snapshot(hour), market().snapshot(hour)
    np.testing.assert_allclose(faulty["price"], 5 * clean["price"])
    np.testing.assert_allclose(faulty["market_cap_dominance"], clean["market_cap_dominance"])
    assert faulty["percent_change_1h"].min() > 100


def test_a_coin_that_leaves_the_list_comes_back_with_its_past() -> None:
    coin, first, last = whole_event("rank_exit")
    assert last - first == 95 * HOUR
    clean = only(listing(), coin)
    for hour in (first, last):
        frame = market("rank_exit").snapshot(hour)
        assert len(frame) == TOKENS - 1
        assert at(clean, hour, "cmc_rank") not in set(frame["cmc_rank"])
    back = only(market("rank_exit").snapshot(last + HOUR), coin).iloc[0]
    assert back["percent_change_1h"] == at(clean, last + HOUR, "percent_change_1h")


def test_a_zero_price_takes_worth_and_changes_with_it() -> None:
    coin, first, last = whole_event("zero_price")
    rows = only(listing("zero_price"), coin)
    hit = rows.loc[first:last]
    assert len(hit) == 2
    assert (hit[["price", "market_cap", "market_cap_dominance"]].abs() <= 0).all(axis=None)
    assert hit["percent_change_24h"].tolist() == [-100, -100]
    assert hit["percent_change_1h"].iloc[0] == -100
    assert np.isnan(hit["percent_change_1h"].iloc[1])
    assert np.isnan(at(rows, last + HOUR, "percent_change_1h"))


def test_a_missing_price_leaves_null_what_follows_from_it() -> None:
    coin, first, last = whole_event("missing_price")
    rows = only(listing("missing_price"), coin)
    priced = ["price", "market_cap", "fully_diluted_market_cap", "market_cap_dominance", *PRICE_CHANGES]
    hit = rows.loc[first:last]
    assert len(hit) == 2
    assert hit[priced].isna().all(axis=None)
    assert hit[["volume_24h", "volume_change_24h", "cmc_rank", "last_updated"]].notna().all(axis=None)
    assert np.isnan(at(rows, last + 24 * HOUR, "percent_change_24h"))
    others = market("missing_price").snapshot(first)["market_cap_dominance"].dropna()
    assert len(others) == TOKENS - 1
    assert others.sum() == pytest.approx(100)


def test_a_rebased_change_is_off_while_prices_are_right() -> None:
    coin, first, last = whole_event("rebased_change")
    assert last - first == 11 * HOUR
    hit, clean = (only(rows, coin).loc[first:last] for rows in (listing("rebased_change"), listing()))
    for column in PRICE_CHANGES:
        np.testing.assert_allclose(1 + hit[column] / 100, (1 + clean[column] / 100) / 0.8)
    same = ["price", "market_cap", "volume_change_24h", "last_updated"]
    pd.testing.assert_frame_equal(hit[same], clean[same], check_exact=True)


def test_a_stablecoin_trembles_about_a_dollar_at_all_times() -> None:
    coin = 3_900_001
    assert {entry[0] for entry in log("stablecoin")} == {coin}
    rows = only(listing("stablecoin"), coin)
    assert rows.index.tolist() == hours_between(FIRST, LAST)
    assert (rows["kind"] == "stablecoin").all()
    assert (rows["price"] - 1).abs().max() <= 0.002
    assert rows["price"].diff().iloc[1:].abs().min() > 0
    assert (rows["cmc_rank"] == TOKENS + 1).all()
    assert rows["percent_change_90d"].abs().max() < 0.5
    assert (listing("stablecoin")["kind"] == "coin").sum() == len(listing())


def test_a_wrapped_coin_has_the_price_of_another_one_at_all_times() -> None:
    wrapped, original = (entry[0] for entry in log("wrapped_coin", FIRST, FIRST)[:2])
    assert wrapped == 4_900_001
    rows, of_original = only(listing("wrapped_coin"), wrapped), only(listing("wrapped_coin"), original)
    assert rows.index.tolist() == hours_between(FIRST, LAST)
    assert (rows["kind"] == "wrapped").all()
    pd.testing.assert_series_equal(rows["price"], of_original["price"], check_exact=True)
    assert (listing("wrapped_coin")["kind"] == "coin").sum() == len(listing())


def test_a_coin_without_volume_keeps_its_price() -> None:
    coin, first, last = whole_event("zero_volume")
    assert last - first == 5 * HOUR
    rows, clean = only(listing("zero_volume"), coin), only(listing(), coin)
    assert (rows.loc[first:last, "volume_24h"].abs() <= 0).all()
    assert (rows.loc[first:last, "volume_change_24h"] == -100).all()
    assert np.isnan(at(rows, last + 24 * HOUR, "volume_change_24h"))
    pd.testing.assert_series_equal(rows["price"], clean["price"], check_exact=True)


def test_an_event_under_way_looks_the_same_to_whoever_begins_in_its_middle() -> None:
    for fault in NAMES:
        _, first, last = whole_event(fault)
        middle = first + min(last - first, 24 * HOUR) // (2 * HOUR) * HOUR
        if fault == "missing_hours":
            continue
        from_before = dict(market(fault).snapshots(first - 2 * HOUR, middle))
        for frames in ({middle: market(fault).snapshot(middle)}, dict(market(fault).snapshots(middle, middle))):
            pd.testing.assert_frame_equal(frames[middle], from_before[middle], check_exact=True)
