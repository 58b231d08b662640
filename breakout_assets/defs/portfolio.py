"""The portfolio asset: what the account holds, how its equity went, and what its closed trades brought."""

from typing import Final

import dagster as dg
import pandas as pd

from breakout_assets.defs.partitions import EVERYTHING, ONE_RUN
from breakout_assets.defs.reporting import WHEN_PASSING, picture, preview, refusing
from breakout_assets.store import Store
from breakout_assets.trading.account import Account

GROUP: Final = "trading"
OWNERS: Final = ["team:trading"]


@dg.asset(
    backfill_policy=ONE_RUN,
    group_name=GROUP,
    owners=OWNERS,
    kinds={"sqlalchemy", "parquet"},
    retry_policy=WHEN_PASSING,
    deps=[dg.AssetDep("trade_orders", partition_mapping=EVERYTHING)],
)
def portfolio(store: dg.ResourceParam[Store], account: dg.ResourceParam[Account]) -> dg.MaterializeResult:
    """What the account holds, how its equity went and what its trades brought, as of the newest hour that it traded.

    Three tables. One row is an open position in `portfolio/positions.parquet`: what is left of an entry, its value at
    the newest believed price, its profit after the costs of the purchase, its age, and the hour in which it is to be
    left. One row of `portfolio/equity.parquet` is an hour: equity, cash, what is invested, and how far equity is below
    its peak. One row of `portfolio/trades.parquet` is an entry that was left: when, why, at which prices, and what it
    brought after all costs, with the model and the probability that it was bought on. Amounts are USD, exact, as text;
    `python -m breakout_assets explain` takes any `order_id`.
    """
    from breakout_assets.trading.portfolio_report import (
        equity_picture,
        portfolio_report,
        positions_picture,
        write_report,
    )

    with refusing():
        with account.open_ledger().read(account.name) as books:
            report = portfolio_report(books, account.rules)
        paths = write_report(store, report)
    bars = positions_picture(report.portfolio, account.rules.horizon)
    metadata = {
        "account": account.name,
        **report.figures(),
        "positions": positions_preview(report.positions),
        "equity": picture(equity_picture(account.name, report.curve), "equity, how far it is below its peak, and cash"),
        "returns": picture(bars, "return so far of each open position, its age and planned exit"),
        **{f"{name}_path": dg.MetadataValue.path(str(path)) for name, path in paths.items()},
    }
    return dg.MaterializeResult(metadata=metadata)


def positions_preview(frame: pd.DataFrame) -> dg.MarkdownMetadataValue:
    """The open positions for people, the largest first: what the UI shows without a click."""
    amounts = frame[["value", "profit"]].astype("float64")
    shown = frame.assign(
        **{f"{name}, USD": amounts[name].map("{:,.2f}".format) for name in amounts},
        **{"age, h": frame["age_hours"], "planned exit": frame["planned_exit"]},
    )
    order = amounts["value"].sort_values(ascending=False, kind="stable").index
    columns = ["token", "value, USD", "profit, USD", "age, h", "planned exit"]
    return preview(shown.loc[order], columns, rows=len(shown))


portfolio_job = dg.define_asset_job(
    "portfolio_job",
    selection=[portfolio],
    description="Tells what the account holds and what became of it.",
    # It may wait behind a training, but must never keep an hour from being traded.
    tags={"breakout/loop": "learning"},
)
# Once a day, when the first hour of the day has been traded: every event keeps its pictures, and one with each hour
# would fill the event log.
PORTFOLIO_SCHEDULE: Final = dg.ScheduleDefinition(
    name="portfolio_schedule", job=portfolio_job, cron_schedule="20 0 * * *", execution_timezone="UTC"
)
