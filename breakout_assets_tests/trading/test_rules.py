from dataclasses import replace
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
        ("participation", Decimal(1), Decimal("1.01")),
        ("participation", Decimal("0.001"), Decimal(0)),
        ("fee", Decimal(0), Decimal("-0.01")),
        ("fee", Decimal("0.99"), Decimal(1)),
        ("spread", Decimal(0), Decimal("-0.01")),
        ("spread", Decimal("0.99"), Decimal(1)),
        ("slippage", Decimal(0), Decimal("-0.01")),
        ("slippage", Decimal("0.99"), Decimal(1)),
        ("cash_floor", Decimal(0), Decimal("-0.01")),
        ("cash_floor", Decimal("0.99"), Decimal(1)),
        ("max_price_move", Decimal("0.01"), Decimal(0)),
        ("max_price_move", Decimal("0.99"), Decimal(1)),
        ("take_profit", Decimal(2), Decimal(0)),
        ("take_profit", None, 0.1),
        ("stop_loss", Decimal("0.01"), Decimal(0)),
        ("stop_loss", Decimal("0.99"), Decimal(1)),
        ("stop_loss", None, Decimal("NaN")),
        ("max_drawdown", Decimal("0.01"), Decimal(0)),
        ("max_drawdown", Decimal("0.99"), Decimal(1)),
        ("max_drawdown", None, Decimal(-1)),
        ("cash", Decimal(1), 1.0),
        ("fee", Decimal(0), Decimal("NaN")),
        ("cash", Decimal(1), Decimal("Infinity")),
        ("max_positions", 1, 0),
        ("max_age", timedelta(hours=1), timedelta(minutes=59)),
        ("horizon", timedelta(hours=1), timedelta(0)),
        ("horizon", timedelta(hours=24), timedelta(hours=24, minutes=30)),
        ("cooldown", timedelta(0), timedelta(hours=-1)),
        ("cooldown", timedelta(hours=1), timedelta(minutes=90)),
        ("vanished_after", timedelta(hours=1), timedelta(0)),
        ("vanished_after", timedelta(hours=24), timedelta(minutes=90)),
    ],
)
def test_each_rule_has_limits_and_names_itself(field: str, good: Any, bad: Any) -> None:
    TradingRules(**{field: good})
    with pytest.raises(SettingsError, match=f"^{field} must"):
        TradingRules(**{field: bad})


def test_the_exit_rule_says_when_it_leaves_earlier_than_the_label() -> None:
    rules = TradingRules()
    assert rules.exit_rule == "left after 120 hours, as the label says"
    earlier = "earlier than what the probability is about"
    profit = replace(rules, take_profit=Decimal("0.2"))
    assert profit.exit_rule == f"left after 120 hours, or at +20%: {earlier}"
    assert replace(rules, stop_loss=Decimal("0.1")).exit_rule == f"left after 120 hours, or at -10%: {earlier}"
    assert replace(profit, stop_loss=Decimal("0.1")).exit_rule == f"left after 120 hours, or at +20%, -10%: {earlier}"
