"""Who trades: a name, its rules, where its orders are recorded, which venue has them, and who is told."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from breakout_assets.trading.brokers import Broker
from breakout_assets.trading.ledger import Ledger
from breakout_assets.trading.mails import MailSettings
from breakout_assets.trading.paper import PaperBroker
from breakout_assets.trading.rules import TradingRules

if TYPE_CHECKING:
    from breakout_assets.trading.exchange_client import ExchangeSettings, Secrets

# Ids of orders are hashes of a text that begins with the account's name: no account can repeat the ids of another.
PAPER: Final = "paper"
# A replayed past never mixes with what was really traded hour by hour.
REPLAY: Final = "replay"


@dataclass(frozen=True)
class Venue:
    """An exchange that an account may reach."""

    settings: "Callable[[], ExchangeSettings]"
    """Reads the map of pairs."""
    secrets: "Callable[[], Secrets]" = field(repr=False)
    sends: bool
    """Whether orders are sent; else they are told, and executed on paper."""


@dataclass(frozen=True)
class Account:
    """An account; it trades on paper unless it has a venue, and sends nothing unless that says so."""

    ledger_place: Path | str
    """A file, or the URL of a PostgreSQL database."""
    rules: TradingRules
    mail: MailSettings | None = None
    """Without its password, which is read when a mail is sent; None mails nothing."""
    name: str = PAPER
    ledger_password: Callable[[], str] = field(default=str, repr=False)
    venue: Venue | None = None

    def open_ledger(self) -> Ledger:
        """The ledger; it is made when it is first used."""
        return Ledger(self.ledger_place, self.ledger_password)

    def open_broker(self, ledger: Ledger) -> Broker:
        """The broker of this account: without a venue, nothing that could reach one is built."""
        paper = PaperBroker(ledger, self.name, self.rules)
        if self.venue is None:
            return paper
        from breakout_assets.trading.dry_run import DryRun
        from breakout_assets.trading.exchange import ExchangeBroker

        exchange = ExchangeBroker(self.venue.settings(), self.venue.secrets)
        return exchange if self.venue.sends else DryRun(exchange, paper)
