"""What assets are given: the store, the source of snapshots, the clock, the ledger, the rules, the mail account.

Built from the settings when definitions are built; none of them touches network, clock or secret before it is used.
"""

from datetime import timedelta
from functools import partial
from typing import Any

from breakout_assets.clock import Clock, ReplayClock, SystemClock
from breakout_assets.market.coinmarketcap import CoinMarketCap
from breakout_assets.market.collect import CoinMarketCapSource, FilesOnly, SimulatedSource, SnapshotSource
from breakout_assets.market.events import EventQueue
from breakout_assets.market.simulated import SimulatedMarket
from breakout_assets.settings import MIN_ORDER, Settings, read_secret
from breakout_assets.store import Store
from breakout_assets.trading.account import REPLAY, Account
from breakout_assets.trading.alerts import MailSettings
from breakout_assets.trading.rules import TradingRules


def build_resources(settings: Settings) -> dict[str, Any]:
    """All resources for these settings, by the name that assets ask for."""
    return {
        "settings": settings,
        "store": Store.at(settings.store, settings.s3_endpoint, settings.s3_region),
        "source": snapshot_source(settings),
        "clock": clock(settings),
        "account": account(settings),
        "events": EventQueue(settings.sqs_url, settings.s3_region),
    }


def simulated_market(settings: Settings) -> SimulatedMarket:
    """The invented market of these settings."""
    return SimulatedMarket(
        seed=settings.sim_seed, tokens=settings.sim_tokens, signal=settings.sim_signal, faults=settings.faults
    )


def snapshot_source(settings: Settings) -> SnapshotSource:
    """Where new hours come from."""
    if settings.source == "simulated":
        return SimulatedSource(simulated_market(settings))
    if settings.source == "coinmarketcap":
        return CoinMarketCapSource(
            CoinMarketCap(
                key=partial(read_secret, "CMC_API_KEY"),
                base_url=settings.cmc_url,
                api_version=settings.cmc_version,
                limit=settings.cmc_limit,
                page_size=settings.cmc_page_size,
                keyless=settings.cmc_keyless,
                monthly_budget=settings.cmc_monthly_budget,
            ),
            follow=settings.cmc_follow,
            history=settings.cmc_history,
        )
    return FilesOnly()


def clock(settings: Settings) -> Clock:
    """Real time, or the time of each hour when a recorded past is replayed."""
    return ReplayClock() if settings.replay else SystemClock()


def account(settings: Settings) -> Account:
    """The paper account; there is no other kind, and nothing here could reach a venue."""
    rules = TradingRules(
        cash=settings.cash,
        order_fraction=settings.order_fraction,
        max_positions=settings.max_positions,
        fee=settings.fee,
        slippage=settings.slippage,
        max_volume_share=settings.max_volume_share,
        min_order=MIN_ORDER,
        max_age=timedelta(hours=settings.max_order_age),
    )
    if settings.replay:
        return Account(settings.ledger_file, rules, mail=None, name=REPLAY)
    return Account(settings.ledger_file, rules, mail_account(settings))


def mail_account(settings: Settings) -> MailSettings | None:
    """The mail account without its password; None if no host is set."""
    if not settings.mail_host:
        return None
    return MailSettings(
        host=settings.mail_host,
        port=settings.mail_port,
        security=settings.mail_security,
        sender=settings.mail_from,
        recipients=tuple(filter(None, map(str.strip, settings.mail_to.split(",")))),
        user=settings.mail_user,
    )
