"""The trading asset: what was ordered in each hour and what became of it."""

from datetime import datetime
from typing import Any, Final

import dagster as dg

from breakout_assets.clock import Clock
from breakout_assets.defs.dataset import live_indicators
from breakout_assets.defs.mailing import deliver_mail
from breakout_assets.defs.market import market_health
from breakout_assets.defs.models import predictions
from breakout_assets.defs.partitions import HOURS, ONE_RUN, hour_of
from breakout_assets.defs.portfolio import positions_preview
from breakout_assets.defs.reporting import Made, Metadata, checks_of, each_partition, preview, refusing
from breakout_assets.store import Store
from breakout_assets.trading.account import Account
from breakout_assets.trading.brokers import Broker
from breakout_assets.validation import CHECKS, check_orders

GROUP = "trading"
OWNERS = ["team:trading"]
# Of runs that carry on with what is held although the hour's data are missing or faulty.
WITHOUT_DATA: Final = "breakout/without_data"
NO_PURCHASE: Final = "exits_job buys nothing"


@dg.asset(
    partitions_def=HOURS,
    backfill_policy=ONE_RUN,
    group_name=GROUP,
    owners=OWNERS,
    kinds={"sqlalchemy", "parquet"},
    deps=[predictions, market_health, live_indicators],
    check_specs=checks_of("trade_orders", CHECKS["trade_orders"]),
)
def trade_orders(
    context: dg.AssetExecutionContext,
    store: dg.ResourceParam[Store],
    clock: dg.ResourceParam[Clock],
    account: dg.ResourceParam[Account],
) -> dg.MaterializeResult:
    """The orders of one hour. On paper, unless live trading has been switched on by several settings.

    One row is one order that was decided in this hour, or that something happened to in it (`submitted`, `partial`,
    `filled`, `cancelled`, `rejected`, `unknown`); or one refusal: a signal that was not followed, an exit that cannot
    be ordered, or the whole hour if it is too old to trade on. Each hour is decided once: materialising it again
    changes nothing. Positions are left after five days.
    """
    from breakout_assets.trading.hourly import trade_hour
    from breakout_assets.trading.inputs import read_inputs, refuse_doubts

    ledger = account.open_ledger()
    with refusing():
        broker = account.open_broker(ledger)

    def make(key: str) -> Made:
        hour = hour_of(key)
        inputs = read_inputs(store, hour)
        carry_on = WITHOUT_DATA in context.run.tags
        if not carry_on:  # a failed check in the UI stops nothing; this does
            refuse_doubts(inputs)
        result = trade_hour(
            ledger,
            hour,
            inputs.predictions,
            inputs.prices,
            inputs.health,
            account.rules,
            account.name,
            _now(clock, hour),
            broker,
            mail=account.mail,
            inputs=inputs.sources,
            doubts=(*inputs.doubts, *([NO_PURCHASE] if carry_on else [])),
        )
        frame = result.orders_frame()
        store.write_table("trade_orders", hour, frame)
        return {**_metadata(frame, result, account), **_rehearsed(broker)}, check_orders(frame)

    try:
        return each_partition(context, make)
    finally:
        deliver_mail(context.log, account, ledger)


def _rehearsed(broker: Broker) -> Metadata:
    """What a dry run would have sent in an hour."""
    from breakout_assets.trading.dry_run import DryRun

    requests = broker.take_requests() if isinstance(broker, DryRun) else []
    return {"would_send": dg.MetadataValue.md("\n".join(f"- {each}" for each in requests))} if requests else {}


def _now(clock: Clock, hour: datetime) -> Any:
    return lambda: clock.now(hour)


def _metadata(frame: Any, result: Any, account: Account) -> Metadata:
    portfolio = result.portfolio
    counts = {status: len(result.of(status)) for status in ("submitted", "filled", "cancelled")}
    rare = {status: len(result.of(status)) for status in ("partial", "rejected", "unknown") if result.of(status)}
    return {
        "outcome": result.reason,
        **counts,
        **rare,
        "refused": len(result.refused),
        **({"nothing_opened_because": "; ".join(result.blocks)} if result.blocks else {}),
        "account": account.name,
        "exit_rule": account.rules.exit_rule,
        "equity_usd": round(float(portfolio.equity), 2),
        "cash_usd": round(float(portfolio.cash), 2),
        "realised_profit_usd": round(float(portfolio.realised_profit), 2),
        "fees_usd": round(float(portfolio.fees), 2),
        "open_positions": len(portfolio.positions),
        "orders": preview(frame, ["token", "side", "quantity", "price", "status", "reason"], rows=20),
        "portfolio": positions_preview(portfolio.positions_frame(account.rules.horizon)),
    }
