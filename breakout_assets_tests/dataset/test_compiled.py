"""Compiled indicators have the bits of the others, and are loaded only where that is repaid."""

import sys

import pandas as pd
import pytest

from breakout_assets.dataset import compiling
from breakout_assets.dataset.compiling import load_compiled
from breakout_assets.dataset.indicators import INDICATOR_COLUMNS, window_indicators
from breakout_assets.dataset.stationary import STATIONARY_COLUMNS, stationary_indicators
from breakout_assets.market.snapshots import believed
from breakout_assets_tests.conftest import COMPILED_MODULES
from breakout_assets_tests.dataset.listings import market
from breakout_assets_tests.dataset.tokens import FIRST, LAST, TOKENS, at

pytestmark = pytest.mark.usefixtures("nothing_compiled")


def indicators(rows: pd.DataFrame, first: int, last: int) -> pd.DataFrame:
    published = window_indicators(rows, (at(first), at(last)))
    return published.join(stationary_indicators(rows, published))


@pytest.mark.slow
@pytest.mark.parametrize(("first", "last"), [(FIRST, FIRST), (FIRST, LAST), (0, LAST)], ids=["hour", "day", "range"])
def test_compiled_indicators_have_the_same_bits(monkeypatch: pytest.MonkeyPatch, first: int, last: int) -> None:
    pytest.importorskip("numba", reason="the extra `fast` is not installed")
    rows = believed(market(17, *TOKENS, quarantined=0.01))
    expected = indicators(rows, first, last)
    assert COMPILED_MODULES[0] not in sys.modules
    monkeypatch.setattr(compiling, "_REPAID_FROM", 1)
    for module in ("indicators", "stationary"):  # or all of these few would be handed over at once
        monkeypatch.setattr(f"breakout_assets.dataset.{module}._TOKENS", 5)
    found = indicators(rows, first, last)
    assert set(COMPILED_MODULES) <= set(sys.modules)
    assert len(found) > 20
    pd.testing.assert_frame_equal(found, expected, check_exact=True)
    for name in INDICATOR_COLUMNS + STATIONARY_COLUMNS:
        assert found[name].to_numpy().tobytes() == expected[name].to_numpy().tobytes(), name


def test_an_hour_or_a_week_of_a_thousand_tokens_loads_nothing() -> None:
    assert not load_compiled(1250)
    assert not load_compiled(1250 * 24 * 7)
    assert not set(COMPILED_MODULES) & set(sys.modules)


def test_without_numba_the_same_values_come_from_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = believed(market(17, "walk", "two rows in three"))
    expected = indicators(rows, FIRST, LAST)
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.setattr(compiling, "_REPAID_FROM", 1)
    assert not load_compiled(10**9)
    pd.testing.assert_frame_equal(indicators(rows, FIRST, LAST), expected, check_exact=True)
