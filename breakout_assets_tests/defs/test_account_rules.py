"""The settings of an account become its rules."""

from datetime import timedelta
from decimal import Decimal

from breakout_assets.defs.resources import account
from breakout_assets.settings import load_settings
from breakout_assets.trading.rules import TradingRules


def test_the_settings_default_to_the_rules_defaults() -> None:
    assert account(load_settings({})).rules == TradingRules()


def test_every_setting_of_an_account_reaches_its_rules() -> None:
    given = {
        "CASH": "5000",
        "ORDER_FRACTION": "0.03",
        "MAX_POSITIONS": "7",
        "CASH_FLOOR": "0.1",
        "FEE": "0.001",
        "SPREAD": "0.003",
        "SLIPPAGE": "0.006",
        "MAX_VOLUME_SHARE": "0.002",
        "MAX_PRICE_MOVE": "0.04",
        "MAX_ORDER_AGE": "3",
        "COOLDOWN": "48",
        "TAKE_PROFIT": "0.2",
        "STOP_LOSS": "0.1",
        "MAX_DRAWDOWN": "0.3",
    }
    expected = TradingRules(
        cash=Decimal(5000),
        order_fraction=Decimal("0.03"),
        max_positions=7,
        cash_floor=Decimal("0.1"),
        fee=Decimal("0.001"),
        spread=Decimal("0.003"),
        slippage=Decimal("0.006"),
        max_volume_share=Decimal("0.002"),
        max_price_move=Decimal("0.04"),
        max_age=timedelta(hours=3),
        cooldown=timedelta(hours=48),
        take_profit=Decimal("0.2"),
        stop_loss=Decimal("0.1"),
        max_drawdown=Decimal("0.3"),
    )
    assert account(load_settings({f"BREAKOUT_{name}": value for name, value in given.items()})).rules == expected


def test_zero_switches_the_optional_guards_off() -> None:
    off = {f"BREAKOUT_{name}": "0" for name in ("TAKE_PROFIT", "STOP_LOSS", "MAX_DRAWDOWN")}
    rules = account(load_settings(off)).rules
    assert (rules.take_profit, rules.stop_loss, rules.max_drawdown) == (None, None, None)
