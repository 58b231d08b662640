"""Every setting of the platform: one typed object, read from `BREAKOUT_*` variables and from `.env`.

Secrets are known by name here and read only at the moment they are used, so that neither this object nor anything
that prints it can hold one.
"""

import os
import re
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from dotenv import dotenv_values
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from breakout_assets.errors import SettingsError
from breakout_assets.learning.recipes import recipe

PREFIX: Final = "BREAKOUT_"
MIN_ORDER: Final = Decimal(10)  # USD; exchanges refuse less

# Variables whose value is never kept: name without prefix -> what it is.
SECRETS: Final[dict[str, str]] = {
    "CMC_API_KEY": "key of your CoinMarketCap account; sent in a header, only when a listing is fetched",
    "MAIL_PASSWORD": "password of the mail account",
    "LEDGER_PASSWORD": "password of the database that BREAKOUT_LEDGER names",
    "VENUE_KEY": "API key of the account at the exchange; allow trading, never withdrawals",
    "VENUE_SECRET": "its secret",
    "VENUE_PASSPHRASE": "its passphrase, where the exchange has one",
}


def _fault_names(text: str) -> str:
    from breakout_assets.market.faults import FAULTS  # imported late: it brings pandas, which --help can do without

    unknown = sorted(set(filter(None, map(str.strip, text.split(",")))) - set(FAULTS))
    if unknown:
        raise ValueError(f"unknown fault {', '.join(unknown)}; known are {', '.join(sorted(FAULTS))}")
    return text


def _recipe_name(text: str) -> str:
    try:
        found = recipe(text)
    except SettingsError as error:
        raise ValueError(str(error)) from None
    if found.reference_only:
        raise ValueError(f"{text} is kept for comparison and cannot serve; recipe_comparison evaluates it")
    return text


def _matches(pattern: str, meaning: str, text: str) -> str:
    if text and not re.fullmatch(pattern, text):
        raise ValueError(meaning)
    return text


_STORE = partial(_matches, r"s3://[^/]+(/.*)?|(?!\w+://).+", "must be a folder or s3://bucket/prefix")
_URL = partial(_matches, r"https?://\S+", "must begin with http:// or https://")
# It is mailed to everybody, and paths are put behind it.
_UI_URL = partial(
    _matches, r"https?://[^\s@?#]+", "must begin with http:// or https:// and have neither a login nor a query"
)
Share = Annotated[Decimal, Field(ge=0, lt=1)]


class Settings(BaseModel):
    """All settings. A field `x` is the variable `BREAKOUT_X`; its description is the documentation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: Annotated[str, AfterValidator(_STORE)] = Field(
        "./data", description="where everything is kept: a folder, or `s3://bucket/prefix`"
    )
    s3_endpoint: Annotated[str, AfterValidator(_URL)] = Field(
        "", description="URL of an S3-compatible server; empty means AWS"
    )
    s3_region: str = Field("", description="its region; empty means what the AWS chain says")
    sqs_url: Annotated[str, AfterValidator(_URL)] = Field(
        "", description="SQS queue of the bucket's event messages, so that arrivals need no listing; empty means none"
    )
    start: date = Field(date(2024, 1, 1), description="first day of all partitions, UTC")
    raw_format: Literal["csv", "parquet"] = Field("csv", description="how new snapshots are written; both are read")
    source: Literal["simulated", "coinmarketcap", "files"] = Field(
        "simulated",
        description="where new hours come from: `simulated` (an invented market), `coinmarketcap` (needs a key), "
        "`files` (nothing is fetched: hours are imported, or another collector writes them)",
    )
    sim_seed: int = Field(1, ge=0, description="seed of the simulated market")
    sim_tokens: int = Field(50, ge=1, le=5000, description="number of simulated tokens")
    sim_signal: float = Field(0.15, ge=0, le=0.3, description="strength of the planted signal, 0 = pure noise")
    sim_faults: Annotated[str, AfterValidator(_fault_names)] = Field(
        "", description="comma-separated faults to inject into the simulated market, e.g. `stale_price,missing_hours`"
    )
    cmc_url: Annotated[str, AfterValidator(_URL)] = Field(
        "https://pro-api.coinmarketcap.com", description="address of the CoinMarketCap API"
    )
    cmc_version: Literal["v1", "v3"] = Field("v3", description="version of its listing endpoint")
    cmc_limit: int = Field(1250, ge=1, le=5000, description="coins asked for in each hour (1 credit per 200)")
    cmc_page_size: int = Field(
        0, ge=0, le=5000, description="coins of one call; 0 asks for all at once, which repeats and skips none"
    )
    cmc_keyless: bool = Field(False, description="ask without a key, for a trial; the key is then never read")
    cmc_monthly_budget: int = Field(
        0, ge=0, description="credits a month after which nothing more is fetched; 0 leaves it to the plan"
    )
    cmc_follow: bool = Field(
        True, description="ask five more days for coins that dropped out of the listing (1 credit per 100), for labels"
    )
    cmc_history: bool = Field(
        False, description="buy missed hours of the last month (1 credit per 100 coins); not in every plan"
    )
    recipe: Annotated[str, AfterValidator(_recipe_name)] = Field(
        "default",
        description="how models are trained until another recipe is promoted: `default`, `blog_fixed`, "
        "`baseline_logit` or `baseline_momentum`",
    )
    trade_without_evidence: bool = Field(
        False,
        description="decide whatever the evaluation says, but never with real money, from a fixed threshold on where "
        "none pays: the published way",
    )
    ledger: str = Field(
        "",
        description="where orders are recorded: a file (SQLite) or `postgresql://user@host/database`; empty means "
        "`ledger.sqlite` in the store folder",
    )
    broker: Literal["paper", "exchange"] = Field(
        "paper",
        description="where orders go: `paper`, or `exchange`, which is a dry run until BREAKOUT_LIVE_ORDERS is set",
    )
    venue: str = Field("", description="the exchange by ccxt's name, such as `binance`")
    pairs: str = Field("", description="CSV of the pairs that are traded there: `pair,id,symbol,name`")
    sandbox: bool = Field(False, description="trade at the exchange's test site, with its play money")
    live_orders: str = Field(
        "",
        description="the name of the exchange once more: orders are sent to it, with real money unless "
        "BREAKOUT_SANDBOX; empty sends none",
    )
    replay: bool = Field(
        False, description="treat every hour as if it had just begun, to paper-trade a recorded past; paper only"
    )
    cash: Decimal = Field(Decimal(10000), gt=0, description="cash that the account begins with and may use, USD")
    order_fraction: Annotated[Decimal, Field(gt=0, le=1)] = Field(
        Decimal("0.02"), description="size of one entry as a share of equity"
    )
    max_positions: int = Field(20, ge=1, description="most positions open at once")
    cash_floor: Share = Field(Decimal(0), description="share of equity that entries leave as cash")
    fee: Share = Field(Decimal("0.0025"), description="fee per side, share of the order's value")
    spread: Share = Field(
        Decimal("0.002"), description="between the best bid and ask, share of the price; each side pays half of it"
    )
    slippage: Share = Field(
        Decimal("0.004"),
        description="how far the largest order moves the price; others move it by the square root of their share of it",
    )
    max_volume_share: Annotated[Decimal, Field(gt=0, le=1)] = Field(
        Decimal("0.001"), description="largest order as a share of the token's 24-hour volume"
    )
    max_price_move: Annotated[Decimal, Field(gt=0, lt=1)] = Field(
        Decimal("0.05"), description="an order is executed no further than this from the price it was decided on"
    )
    cooldown: int = Field(24, ge=0, le=8760, description="hours after its last sale in which a token is not bought")
    take_profit: Annotated[Decimal, Field(ge=0, lt=1000)] = Field(
        Decimal(0), description="gain on the entry price at which a position is left early; 0 means never"
    )
    stop_loss: Share = Field(
        Decimal(0), description="loss on the entry price at which a position is left early; 0 means never"
    )
    max_drawdown: Share = Field(
        Decimal("0.25"),
        description="fall of equity from its peak at which buying is halted until somebody resumes; 0 switches it off",
    )
    max_order_age: int = Field(2, ge=1, le=24, description="hours after which an hour is too old to trade on")
    mail_host: str = Field("", description="SMTP server; empty means that nothing is mailed")
    mail_port: int = Field(587, ge=1, le=65535, description="its port")
    mail_security: Literal["starttls", "tls", "none"] = Field("starttls", description="encryption of the connection")
    mail_user: str = Field("", description="account name; empty means no login")
    mail_from: str = Field("", description="sender's address")
    mail_to: str = Field("", description="recipients' addresses, comma-separated")
    # A month is as far back as schedules and sensors look, and longer than anybody remembers what a run was about.
    log_days: int = Field(
        30,
        ge=1,
        le=3650,
        description="days after which the logs of runs are deleted; those of failed runs after six times as many",
    )
    ui_url: Annotated[str, AfterValidator(_UI_URL)] = Field(
        "", description="address of the Dagster UI, for links in mails; empty means no links"
    )

    def model_post_init(self, context: Any, /) -> None:
        """Refuse combinations that cannot work."""
        if self.store.startswith("s3://") and not self.ledger:
            raise ValueError("BREAKOUT_LEDGER must name a local file or a database when BREAKOUT_STORE is a bucket")
        if "://" in self.ledger and not self.ledger.startswith("postgresql://"):
            raise ValueError("BREAKOUT_LEDGER must be a local file, or begin with postgresql://")
        if self.cash * self.order_fraction < MIN_ORDER:
            raise ValueError(
                f"BREAKOUT_CASH={self.cash} times BREAKOUT_ORDER_FRACTION={self.order_fraction} is below the smallest "
                f"order, {MIN_ORDER} USD: nothing would ever be bought"
            )
        if self.cash * (1 - self.cash_floor) < MIN_ORDER:
            raise ValueError(
                f"BREAKOUT_CASH={self.cash} less BREAKOUT_CASH_FLOOR={self.cash_floor} of it is below the smallest "
                f"order, {MIN_ORDER} USD: nothing would ever be bought"
            )
        if self.spread / 2 + self.slippage > self.max_price_move:
            raise ValueError(
                f"BREAKOUT_MAX_PRICE_MOVE={self.max_price_move} is below half of BREAKOUT_SPREAD={self.spread} and "
                f"BREAKOUT_SLIPPAGE={self.slippage} together: an order of the largest size would never be executed"
            )
        if self.mail_user and self.mail_security == "none":
            raise ValueError("BREAKOUT_MAIL_SECURITY must be starttls or tls when BREAKOUT_MAIL_USER is set")
        if self.replay and self.source == "coinmarketcap":
            raise ValueError(
                "BREAKOUT_REPLAY=true needs BREAKOUT_SOURCE=files or simulated: a live listing has no past"
            )
        self._check_broker()
        if self.mail_host and not (self.mail_from and self.mail_to):
            raise ValueError("BREAKOUT_MAIL_FROM and BREAKOUT_MAIL_TO must be set when BREAKOUT_MAIL_HOST is set")

    def _check_broker(self) -> None:
        """Refuse what must not reach an exchange."""
        if self.broker == "paper":
            if self.live_orders:
                raise ValueError("BREAKOUT_LIVE_ORDERS is set, but BREAKOUT_BROKER is paper; set it to exchange")
            return
        if not (self.venue and self.pairs):
            raise ValueError("BREAKOUT_VENUE and BREAKOUT_PAIRS must be set when BREAKOUT_BROKER is exchange")
        if self.source == "simulated" or self.replay:
            raise ValueError(
                "BREAKOUT_BROKER=exchange needs real prices of now, neither a simulated market nor a replay"
            )
        if self.live_orders and self.live_orders != self.venue:
            raise ValueError(
                f"BREAKOUT_LIVE_ORDERS={self.live_orders} must be empty, for a dry run, or {self.venue} as in "
                "BREAKOUT_VENUE"
            )
        if self.live_orders and not self.sandbox and self.trade_without_evidence:
            raise ValueError(
                "BREAKOUT_TRADE_WITHOUT_EVIDENCE=true is for paper and test sites; real money needs evidence"
            )

    @property
    def faults(self) -> frozenset[str]:
        """The injected faults as a set."""
        return frozenset(filter(None, map(str.strip, self.sim_faults.split(","))))

    @property
    def round_trip_cost(self) -> float:
        """Share of the money that an order of the largest size costs: fee and slippage, twice, and the spread."""
        return float(2 * (self.fee + self.slippage) + self.spread)

    @property
    def ledger_place(self) -> Path | str:
        """The file that holds the order ledger, or the URL of its database."""
        if "://" in self.ledger:
            return self.ledger
        return (Path(self.ledger) if self.ledger else Path(self.store) / "ledger.sqlite").expanduser()


def environment(folder: Path | None = None) -> dict[str, str]:
    """The `BREAKOUT_*` variables: the process's own first, then those of `.env` in the working folder."""
    dotenv = dotenv_values((folder or Path.cwd()) / ".env")
    merged = {**{k: v for k, v in dotenv.items() if v is not None}, **os.environ}
    return {name: value for name, value in merged.items() if name.startswith(PREFIX)}


def load_settings(variables: Mapping[str, str] | None = None) -> Settings:
    """The settings of these variables (default: of the environment).

    Raises:
        SettingsError: a variable is unknown or its value impossible; one sentence names it.
    """
    given = environment() if variables is None else variables
    values = {}
    for variable, value in given.items():
        name = variable.removeprefix(PREFIX)
        if name in SECRETS:
            continue
        if name.lower() not in Settings.model_fields or name != name.upper():
            raise SettingsError(f"{variable} is not a setting; `python -m breakout_assets settings` lists them.")
        if value.strip():  # an empty variable means "not set", as a line without a value in .env does
            values[name.lower()] = value.strip()
    try:
        return Settings(**values)  # type: ignore[arg-type]  # pydantic parses the text of each variable
    except ValidationError as error:
        raise SettingsError(_sentence(error)) from None


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    message = str(first["msg"]).removeprefix("Value error, ")
    if not first["loc"]:
        return f"{message}."
    field = str(first["loc"][0])
    return f"{PREFIX}{field.upper()}={first['input']!r} is not possible: {message}."


def read_secret(name: str) -> str:
    """The value of a secret, now; empty if it is not set. `name` is a key of `SECRETS`."""
    if name not in SECRETS:
        raise KeyError(name)
    return environment().get(PREFIX + name, "").strip()


def settings_table() -> list[tuple[str, str, str]]:
    """Variable, default and meaning of every setting and secret, in order."""
    rows = [
        (PREFIX + name.upper(), str(field.default), field.description or "")
        for name, field in Settings.model_fields.items()
    ]
    return rows + [(PREFIX + name, "", f"secret: {meaning}") for name, meaning in SECRETS.items()]
