"""The trading asset: what was ordered in each hour and what became of it."""

import sqlite3
from dataclasses import replace
from typing import Any

import dagster as dg

from breakout_assets.clock import Clock
from breakout_assets.defs.dataset import live_indicators
from breakout_assets.defs.market import market_health
from breakout_assets.defs.models import predictions
from breakout_assets.defs.partitions import HOURS, ONE_RUN, hour_of
from breakout_assets.defs.reporting import Made, Metadata, checks_of, each_partition, preview
from breakout_assets.errors import DataError, SettingsError, TemporaryError
from breakout_assets.settings import read_secret
from breakout_assets.store import Store
from breakout_assets.trading.account import Account
from breakout_assets.validation import CHECKS, check_orders, check_predictions

GROUP = "trading"
OWNERS = ["team:trading"]


@dg.asset(
    partitions_def=HOURS,
    backfill_policy=ONE_RUN,
    group_name=GROUP,
    owners=OWNERS,
    kinds={"sqlite", "parquet"},
    deps=[predictions, market_health, live_indicators],
    check_specs=checks_of("trade_orders", CHECKS["trade_orders"]),
)
def trade_orders(
    context: dg.AssetExecutionContext,
    store: dg.ResourceParam[Store],
    clock: dg.ResourceParam[Clock],
    account: dg.ResourceParam[Account],
) -> dg.MaterializeResult:
    """The orders of one hour, on paper: no order ever leaves this machine.

    One row is one order that was decided in this hour (`submitted`), or that an earlier hour decided and this hour's
    prices filled or cancelled; or one refusal, for an hour that is too old to trade on. Each hour trades once:
    materialising it again changes nothing. Positions are left after five days.
    """
    from breakout_assets.market.snapshots import believed
    from breakout_assets.trading.hourly import trade_hour

    ledger = account.open_ledger()

    def make(key: str) -> Made:
        hour = hour_of(key)
        predicted = store.read_table("predictions", [hour])
        coins = store.read_table("live_indicators", [hour])
        faults = check_predictions(predicted, coins["token"].nunique())
        if faults:  # a failed check in the UI stops nothing; this does
            raise DataError(f"predictions of {hour} are faulty, nothing is ordered: {faults}")
        result = trade_hour(
            ledger,
            hour,
            predicted,
            believed(coins)[["token", "price", "volume"]],
            str(store.read_table("market_health", [hour], ["state"])["state"].iloc[0]),
            account.rules,
            account.name,
            clock.now(hour),
            mail=account.mail,
        )
        frame = result.orders_frame()
        store.write_table("trade_orders", hour, frame)
        return _metadata(frame, result), check_orders(frame)

    try:
        return each_partition(context, make)
    finally:
        deliver_mail(context.log, account, ledger)


def _metadata(frame: Any, result: Any) -> Metadata:
    portfolio = result.portfolio
    return {
        "outcome": result.reason,
        "submitted": len(result.submitted),
        "filled": len(result.filled),
        "cancelled": len(result.cancelled),
        "equity_usd": round(float(portfolio.equity), 2),
        "cash_usd": round(float(portfolio.cash), 2),
        "realised_profit_usd": round(float(portfolio.realised_profit), 2),
        "fees_usd": round(float(portfolio.fees), 2),
        "open_positions": len(portfolio.positions),
        "orders": preview(frame, ["token", "side", "quantity", "price", "status", "reason"], rows=20),
        "portfolio": preview(
            portfolio.positions_frame(), ["token", "quantity", "entry_price", "value", "profit", "age_hours"], rows=20
        ),
    }


def deliver_mail(log: Any, account: Account, ledger: Any) -> None:
    """Send what waits in the outbox; whatever happens here changes no order and fails no run."""
    from breakout_assets.trading.alerts import deliver

    if account.mail is None:
        return
    try:
        report = deliver(ledger, replace(account.mail, password=read_secret("MAIL_PASSWORD")))
    except (SettingsError, DataError, TemporaryError, sqlite3.Error) as error:  # the orders are committed already
        log.warning("mails stay in the outbox: %s", error)
        return
    for problem in report.errors:
        log.warning("a mail stays in the outbox and is tried again next hour: %s", problem)
