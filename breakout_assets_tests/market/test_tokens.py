from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from breakout_assets.errors import DataError
from breakout_assets.market.tokens import TokenRegistry, assign_tokens, load_registry
from breakout_assets.store import Store
from breakout_assets_tests.samples import at


def coins(*rows: tuple[int | None, str, str]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["id", "symbol", "name"]).astype({"id": "Int64", "symbol": "str", "name": "str"})
    return frame.assign(timestamp=at("2024-03-01 05:00"))


def tokens(registry: TokenRegistry, *rows: tuple[int | None, str, str]) -> list[str]:
    return registry.assign(coins(*rows)).tolist()


def test_the_id_decides_and_the_name_reads_well() -> None:
    registry = TokenRegistry()
    assert tokens(registry, (5426, "SOL", "Solana"), (1, "BTC", "Bitcoin")) == ["SOL-5426", "BTC-1"]
    assert tokens(registry, (5426, "SOL2", "Solana (new)")) == ["SOL-5426"]


def test_coins_that_share_a_symbol_or_even_a_name_stay_apart() -> None:
    registry = TokenRegistry()
    rows = [(3945, "ONE", "Harmony"), (5603, "ONE", "Menlo One"), (7, "ONE", "Harmony")]
    assert tokens(registry, *rows) == ["ONE-3945", "ONE-5603", "ONE-7"]


def test_symbols_that_no_path_could_bear_become_plain_words() -> None:
    registry = TokenRegistry()
    assert tokens(registry, (9, "☠", "Skull"), (8, "$AI/../x", "AI")) == ["X-9", "AIx-8"]


def test_a_row_without_an_id_is_matched_where_exactly_one_coin_fits() -> None:
    registry = TokenRegistry()
    tokens(registry, (5426, "SOL", "Solana"), (1, "ONE", "Same"), (2, "ONE", "Same"))
    assert tokens(registry, (None, "SOL", "Solana")) == ["SOL-5426"]
    assert tokens(registry, (None, "ONE", "Same")) == ["ONE-same"]
    assert tokens(registry, (None, "SOL", "Solarium")) == ["SOL-solarium"]


def test_months_without_ids_go_on_under_their_name_when_the_ids_come() -> None:
    registry = TokenRegistry()
    assert tokens(registry, (None, "SOL", "Solana")) == ["SOL-solana"]
    assert tokens(registry, (5426, "SOL", "Solana")) == ["SOL-solana"]
    # … but two coins with that pair in one hour cannot both be the series of before
    assert tokens(registry, (None, "ONE", "Same")) == ["ONE-same"]
    assert tokens(registry, (1, "ONE", "Same"), (2, "ONE", "Same")) == ["ONE-1", "ONE-2"]


def test_a_series_without_ids_is_claimed_by_one_coin_only() -> None:
    registry = TokenRegistry()
    assert tokens(registry, (None, "SOL", "Solana")) == ["SOL-solana"]
    assert tokens(registry, (1, "SOL", "Solana")) == ["SOL-solana"]
    assert tokens(registry, (2, "SOL", "Solana")) == ["SOL-2"]


def test_an_assignment_never_changes_whatever_comes_later() -> None:
    registry = TokenRegistry()
    tokens(registry, (1, "ONE", "Same"))
    before = tokens(registry, (None, "ONE", "Same"))
    tokens(registry, (2, "ONE", "Same"))
    assert tokens(registry, (None, "ONE", "Same")) == before == ["ONE-1"]


def test_names_without_an_id_never_look_like_an_id_and_never_meet() -> None:
    registry = TokenRegistry()
    made = tokens(registry, (None, "A", "42"), (None, "A", "b c"), (None, "A", "b-c"), (None, "A", "Ω"))
    assert len(set(made)) == 4
    assert made[0].startswith("A-42-")


def test_the_store_remembers(store: Store) -> None:
    first = assign_tokens(store, load_registry(store), coins((None, "SOL", "Solana"), (1, "BTC", "Bitcoin")))
    second = assign_tokens(store, load_registry(store), coins((1, "BTC", "Bitcoin"), (2, "LTC", "Litecoin")))
    assert first.tolist() == ["SOL-solana", "BTC-1"]
    assert second.tolist() == ["BTC-1", "LTC-2"]
    assert load_registry(store).files == 2
    assign_tokens(store, load_registry(store), coins((1, "BTC", "Bitcoin")))
    assert load_registry(store).files == 2


def test_of_two_processes_the_first_decides(store: Store) -> None:
    mine, theirs = load_registry(store), load_registry(store)
    assign_tokens(store, theirs, coins((None, "SOL", "Solana")))
    assert assign_tokens(store, mine, coins((5426, "SOL", "Solana"))).tolist() == ["SOL-solana"]


def test_many_hours_at_once_give_what_one_after_the_other_gives() -> None:
    hours = [
        coins((None, "ONE", "Same"), (5426, "SOL", "Solana")),
        coins((1, "ONE", "Same"), (5426, "SOL", "Solana"), (None, "NEW", "New")),
        coins((1, "ONE", "Same"), (2, "ONE", "Same"), (7, "NEW", "New"), (8, "NEW", "New")),
    ]
    stamped = [hour.assign(timestamp=at(f"2024-03-01 0{n}:00")) for n, hour in enumerate(hours)]
    one_by_one, together = TokenRegistry(), TokenRegistry()
    expected = [token for hour in stamped for token in one_by_one.assign(hour)]
    assert together.assign(pd.concat(stamped, ignore_index=True)).tolist() == expected
    assert expected[-2:] == ["NEW-7", "NEW-8"]


NAMES = st.sampled_from(["a", "b", "B", "Ω", "1", "a b"])


@given(st.lists(st.lists(st.tuples(st.none() | st.integers(1, 6), NAMES, NAMES), min_size=1, max_size=6), max_size=6))
def test_one_coin_has_one_token_and_one_token_one_coin(hours: list[list[tuple[int | None, str, str]]]) -> None:
    registry = TokenRegistry()
    seen: dict[int, str] = {}
    for hour in hours:
        for (coin_id, _, _), token in zip(hour, tokens(registry, *hour), strict=True):
            assert token.replace("-", "").isalnum()
            if coin_id is not None:
                assert seen.setdefault(coin_id, token) == token
    assert len(set(seen.values())) == len(seen)


def test_a_long_history_of_names_is_not_read_again_file_by_file(store: Store) -> None:
    registry = load_registry(store)
    for number in range(1, 106):
        some = [(number, f"S{number}", "Same"), (None, f"N{number % 7}", f"Name {number % 11}")]
        assign_tokens(store, registry, coins(*some, (number, "RENAMED", "Same")))
    folder = Path(str(store.root)) / "tokens"
    assert sorted(file.name for file in (folder / "all").iterdir()) == ["000050.parquet", "000100.parquet"]
    names = [(registry.by_id, registry.by_pair, registry.seen_with_id, registry.files)]
    for number in (*range(1, 50), *range(51, 100)):  # what the newest complete file holds already is not looked at
        (folder / f"{number:06d}.parquet").write_bytes(b"")
    found = load_registry(store)
    assert [(found.by_id, found.by_pair, found.seen_with_id, found.files)] == names
    assert assign_tokens(store, found, coins((999, "NEW", "New"))).tolist() == ["NEW-999"]
    assert (folder / "000106.parquet").exists()


def test_a_torn_file_of_names_is_refused_by_its_path(store: Store) -> None:
    assign_tokens(store, load_registry(store), coins((1, "A", "A")))
    path = Path(str(store.root)) / "tokens/000001.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"tokens/000001\.parquet"):
        load_registry(store)


def test_ids_and_pairs_that_are_the_same_in_part_are_different_coins() -> None:
    registry = TokenRegistry()
    rows = [
        (1, "A", "B"),
        (2, "A", "B"),
        (1, "A", "C"),
        (1, "AB", ""),
        (None, "A", "C"),
        (None, "A", "B"),
        (1, "A", "B"),
    ]
    assert tokens(registry, *rows) == ["A-1", "A-2", "A-1", "A-1", "A-1", "A-b", "A-1"]
