"""What is kept of a decision so that it can be made again: rules and limits as JSON text."""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

from breakout_assets.trading.orders import OrderLimits
from breakout_assets.trading.rules import TradingRules

# Kept as minutes, the finest that a rule is set to.
_MINUTE: Final = timedelta(minutes=1)
_SPANS: Final = {each.name for each in fields(TradingRules) if each.type is timedelta}
_COUNTS: Final = {each.name for each in fields(TradingRules) if each.type is int}


def rules_text(rules: TradingRules) -> str:
    """Decimals as text, spans in minutes."""
    return json.dumps({name: _plain(value) for name, value in asdict(rules).items()}, sort_keys=True)


def rules_from(text: str) -> TradingRules:
    """The rules that a text of `rules_text` holds."""
    return TradingRules(**{name: _rule(name, value) for name, value in json.loads(text).items()})


def limits_text(limits: Mapping[str, OrderLimits]) -> str:
    """By token, decimals as text."""
    rows = {token: {k: _plain(v) for k, v in asdict(each).items()} for token, each in sorted(limits.items())}
    return json.dumps(rows, sort_keys=True)


def limits_from(text: str) -> dict[str, OrderLimits]:
    """The limits that a text of `limits_text` holds."""
    return {token: OrderLimits(**_decimals(row)) for token, row in json.loads(text).items()}


def _decimals(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: None if value is None else Decimal(value) for name, value in row.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, timedelta):
        return value // _MINUTE
    return str(value) if isinstance(value, Decimal) else value


def _rule(name: str, value: Any) -> Any:
    if name in _SPANS:
        return value * _MINUTE
    return value if value is None or name in _COUNTS else Decimal(value)
