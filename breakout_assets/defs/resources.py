"""What assets are given: the settings, the store, the source of snapshots, the clock, the account, the event queue.

Built from the settings when definitions are built; none of them touches network, clock or secret before it is used.
"""

from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from breakout_assets.clock import Clock, ReplayClock, SystemClock
from breakout_assets.market.coinmarketcap import CoinMarketCap
from breakout_assets.market.collect import CoinMarketCapSource, FilesOnly, SimulatedSource, SnapshotSource
from breakout_assets.market.events import EventQueue
from breakout_assets.market.simulated import SimulatedMarket
from breakout_assets.settings import MIN_ORDER, Settings, read_secret
from breakout_assets.store import Store
from breakout_assets.trading.account import PAPER, REPLAY, Account, Venue
from breakout_assets.trading.mails import MailSettings
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
    """The account of these settings: paper, unless an exchange is named; a dry run, unless orders shall be sent."""
    rules = TradingRules(
        cash=settings.cash,
        order_fraction=settings.order_fraction,
        max_positions=settings.max_positions,
        cash_floor=settings.cash_floor,
        fee=settings.fee,
        spread=settings.spread,
        slippage=settings.slippage,
        max_volume_share=settings.max_volume_share,
        max_price_move=settings.max_price_move,
        min_order=MIN_ORDER,
        max_age=timedelta(hours=settings.max_order_age),
        cooldown=timedelta(hours=settings.cooldown),
        # 0 switches off: an empty variable means that the default holds.
        take_profit=settings.take_profit or None,
        stop_loss=settings.stop_loss or None,
        max_drawdown=settings.max_drawdown or None,
    )
    name, mail = (REPLAY, None) if settings.replay else (PAPER, mail_account(settings))
    venue = None
    if settings.broker == "exchange":
        venue = Venue(partial(_exchange, settings), _venue_secrets, sends=bool(settings.live_orders))
        kind = "sandbox" if settings.sandbox else "live"
        name = f"{kind if venue.sends else 'dry'}-{settings.venue}"
    return Account(settings.ledger_place, rules, mail, name, partial(read_secret, "LEDGER_PASSWORD"), venue)


def _exchange(settings: Settings) -> Any:
    """Where to trade: read when a broker is opened, since the map of pairs is a file and tokens lie in the store."""
    from breakout_assets.market.candle_files import read_map
    from breakout_assets.market.tokens import load_registry
    from breakout_assets.trading.exchange_client import ExchangeSettings
    from breakout_assets.trading.venues import traded_pairs

    store = Store.at(settings.store, settings.s3_endpoint, settings.s3_region)
    pairs = traded_pairs(read_map(Path(settings.pairs)), load_registry(store).by_id)
    return ExchangeSettings(venue=settings.venue, pairs=pairs, sandbox=settings.sandbox)


def _venue_secrets() -> Any:
    from breakout_assets.trading.exchange_client import Secrets

    return Secrets(read_secret("VENUE_KEY"), read_secret("VENUE_SECRET"), read_secret("VENUE_PASSPHRASE") or None)


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
        ui_url=settings.ui_url,
    )
