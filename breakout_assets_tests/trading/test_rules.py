from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from breakout_assets.errors import SettingsError
from breakout_assets.trading.rules import TradingRules


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("cash", Decimal("0.01"), Decimal(0)),
        ("min_order", Decimal("0.01"), Decimal(0)),
        ("order_fraction", Decimal(1), Decimal("1.01")),
        ("order_fraction", Decimal("0.001"), Decimal(0)),
        ("max_volume_share", Decimal(1), Decimal("1.01")),
        ("max_volume_share", Decimal("0.001"), Decimal(0)),
        ("fee", Decimal(0), Decimal("-0.01")),
        ("fee", Decimal("0.99"), Decimal(1)),
        ("slippage", Decimal(0), Decimal("-0.01")),
        ("slippage", Decimal("0.99"), Decimal(1)),
        ("cash", Decimal(1), 1.0),
        ("fee", Decimal(0), Decimal("NaN")),
        ("cash", Decimal(1), Decimal("Infinity")),
        ("max_positions", 1, 0),
        ("max_age", timedelta(hours=1), timedelta(minutes=59)),
        ("horizon", timedelta(hours=1), timedelta(0)),
        ("horizon", timedelta(hours=24), timedelta(hours=24, minutes=30)),
    ],
)
def test_each_rule_has_limits_and_names_itself(field: str, good: Any, bad: Any) -> None:
    TradingRules(**{field: good})
    with pytest.raises(SettingsError, match=f"^{field} must"):
        TradingRules(**{field: bad})
