"""Who trades: a name, its rules, where its orders are recorded and who is told of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from breakout_assets.trading.alerts import MailSettings
from breakout_assets.trading.ledger import Ledger
from breakout_assets.trading.rules import TradingRules

# Ids of orders begin with it, so that a live account can never repeat the ids of this one.
PAPER: Final = "paper"
# A replayed past never mixes with what was really traded hour by hour.
REPLAY: Final = "replay"


@dataclass(frozen=True)
class Account:
    """An account that trades on paper."""

    ledger_file: Path
    rules: TradingRules
    mail: MailSettings | None = None
    """Without its password, which is read when a mail is sent; None mails nothing."""
    name: str = PAPER

    def open_ledger(self) -> Ledger:
        """The ledger; the file is made when it is first used."""
        return Ledger(self.ledger_file)
