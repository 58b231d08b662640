"""The connection to an exchange through ccxt: building it, reading with patience, and what an error proves.

Nothing that leaves this module holds a key, a secret, a signature or a signed address, in whatever text an exchange or
ccxt puts it; and no error has ccxt's own attached, whose trail does hold them.
"""

import hashlib
import logging
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from typing import Any, Final, TypeVar
from urllib.parse import quote_plus, urlsplit

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential
from tenacity.wait import wait_base

from breakout_assets.errors import DataError, SettingsError, TemporaryError
from breakout_assets.trading.orders import Rejected, Unknown
from breakout_assets.trading.venues import Pair, check_pairs, dialect_of

# Seconds, ccxt's own default: an order that takes longer is looked up.
TIMEOUT: Final = 10.0
# Readings and cancellations: a network that stumbles is forgiven, one that is down is left to the next run.
_ATTEMPTS: Final = 4
_WAIT: Final = wait_random_exponential(multiplier=0.5, max=8)
# Enough for an exchange's sentence, too little for a page of HTML.
_LONGEST_TEXT: Final = 300
# How exchanges say that they have this client order id already, whatever class ccxt makes of it.
_DUPLICATE: Final = re.compile(r"duplicat|already|repeat|\bexists\b|not unique", re.I)

_T = TypeVar("_T")


@dataclass(frozen=True)
class Secrets:
    """What signs requests. Nothing shows it."""

    key: str = field(repr=False)
    secret: str = field(repr=False)
    password: str | None = field(default=None, repr=False)
    """The passphrase, where the exchange has one."""


@dataclass(frozen=True, kw_only=True)
class ExchangeSettings:
    """Where and what to trade.

    Attributes:
        venue: The exchange by ccxt's name, one of `venues.VENUES`.
        pairs: The tokens that are traded and their markets, as `venues.traded_pairs` makes them.
        sandbox: Whether to trade at the exchange's test site.
        base_url: Scheme and host that stand in for the exchange's, for tests.
        timeout: Longest wait for an answer, seconds.
    """

    venue: str
    pairs: tuple[Pair, ...]
    sandbox: bool
    base_url: str | None = None
    timeout: float = TIMEOUT

    def __post_init__(self) -> None:
        dialect_of(self.venue)
        check_pairs(self.pairs)
        if self.timeout <= 0:
            raise SettingsError(f"a time-out of {self.timeout:g} s leaves no time for an answer")


def ccxt_module() -> Any:
    """ccxt, which is optional.

    Raises:
        SettingsError: it is not installed.
    """
    try:
        return import_module("ccxt")
    except ImportError:
        pass
    raise SettingsError(
        "exchanges are traded at through ccxt, which is not installed: pip install breakout_assets[live]"
    )


@dataclass(frozen=True)
class Connection:
    """A connection that is made, and its secrets read, when it is first used."""

    settings: ExchangeSettings
    secrets: Callable[[], Secrets] = field(repr=False)
    wait: wait_base = field(default=_WAIT, repr=False)
    """Between attempts of one reading."""

    @cached_property
    def _secrets(self) -> Secrets:
        return self.secrets()

    @property
    def fingerprint(self) -> str:
        """Eight hex digits of the API key's SHA-256: they tell one key, and so its account, from another.

        A key is long and random, so that it does not follow from them: they may be stored and shown.
        """
        return hashlib.sha256(self._secrets.key.encode()).hexdigest()[:8]

    @cached_property
    def client(self) -> Any:
        """The ccxt client, without a request so far.

        Raises:
            SettingsError: ccxt is not installed, a secret is lacking, or the exchange has no test site.
        """
        ccxt = ccxt_module()
        # urllib3 logs the address of every request at DEBUG, with signature and sometimes the key in it.
        logging.getLogger("urllib3.connectionpool").setLevel(logging.INFO)
        client = getattr(ccxt, self.settings.venue)(_configuration(self._secrets, self.settings.timeout))
        if self.settings.sandbox:
            _enter_sandbox(client, self.settings.venue)
        _check_secrets(client, self.settings.venue, self._secrets)
        _restrict(client)
        if self.settings.base_url:
            client.urls["api"] = _moved(client.urls["api"], self.settings.base_url)
        return client

    def read(self, what: str, ask: Callable[[Any], _T]) -> _T:
        """What `ask` gets from the client, asked again while the failure may pass by itself.

        Raises:
            TemporaryError: it cannot be had now.
            DataError: only a person can help.
        """
        ccxt, client = ccxt_module(), self.client
        retrying = Retrying(
            retry=retry_if_exception(_may_pass), stop=stop_after_attempt(_ATTEMPTS), wait=self.wait, reraise=True
        )
        try:
            answer: _T = retrying(_once, ccxt, client, ask)
            return answer
        except ccxt.BaseError as error:
            failure = self._reading_failed(ccxt, what, error)
        raise failure  # out here, so that the error, with its signed address, is not attached

    def _reading_failed(self, ccxt: Any, what: str, error: Exception) -> Exception:
        where = f"{self.settings.venue} could not be asked for {what}: {self.told(error)}"
        if isinstance(error, ccxt.InvalidNonce):
            return DataError(f"{where}; it refuses the time of the request: set this machine's clock (NTP)")
        if isinstance(error, ccxt.AuthenticationError):
            return DataError(f"{where}; check the key, its permissions and the addresses that it is bound to")
        # An error that ccxt cannot place may be anything, also one that passes.
        if isinstance(error, ccxt.OperationFailed) or type(error) is ccxt.ExchangeError:
            return TemporaryError(f"{where}; the next run asks again")
        return DataError(f"{where}; look at the exchange's announcements and at the map of pairs")

    def refusal(self, error: Exception) -> Rejected | Unknown:
        """What an error of the creation of an order proves of it.

        Only errors that the exchange gives instead of an order are a rejection, and none of them if it may mean that
        the order is there already.
        """
        ccxt = ccxt_module()
        text = self.told(error)
        proof = (
            ccxt.InsufficientFunds,
            ccxt.AuthenticationError,
            ccxt.BadSymbol,
            ccxt.InvalidOrder,
            ccxt.BadRequest,
        )
        # An order that is "not found" while it is created is no answer to the question.
        doubtful = isinstance(error, ccxt.DuplicateOrderId | ccxt.OrderNotFound) or _DUPLICATE.search(str(error))
        if isinstance(error, proof) and not doubtful:
            return Rejected(text)
        return Unknown(text)

    def told(self, error: Exception) -> str:
        """An error in words, without secrets."""
        text = re.sub(r"(https?://[^\s?]*)\?\S*", r"\1", str(error))
        text = re.sub(r"(?i)(signature|sign|passphrase)(\W{1,4})[\w%+/=.-]+", r"\1\2[hidden]", text)
        for secret in (self._secrets.key, self._secrets.secret, self._secrets.password):
            for spelling in {secret, quote_plus(secret)} if secret else ():
                text = re.sub(re.escape(spelling), "[hidden]", text, flags=re.IGNORECASE)
        return f"{type(error).__name__}: {' '.join(text.split())[:_LONGEST_TEXT]}"


def _configuration(secrets: Secrets, timeout: float) -> dict[str, Any]:
    return {
        "apiKey": secrets.key,
        "secret": secrets.secret,
        "password": secrets.password,
        "timeout": int(timeout * 1000),
        "enableRateLimit": True,
        # To tell an answer that is no JSON, of which ccxt makes empty results.
        "enableLastJsonResponse": True,
        "number": str,  # amounts stay the text that the exchange sent; a float has no room for all digits of large ones
        "logger": logging.Logger("silent", logging.CRITICAL),  # ccxt's writes headers and signed addresses at DEBUG
        "options": {
            "defaultType": "spot",
            "maxRetriesOnFailure": 0,  # it would send orders again, too
            "fetchMargins": False,  # lists of margin pairs would be fetched for nothing
            "warnOnFetchOpenOrdersWithoutSymbol": False,  # all of them are wanted, once a run
        },
    }


def _enter_sandbox(client: Any, venue: str) -> None:
    # ccxt says NotSupported or stumbles over the lacking address, depending on the exchange.
    with suppress(Exception):
        client.set_sandbox_mode(True)
    if client.isSandboxModeEnabled or client.options.get("sandboxMode"):
        return
    raise SettingsError(
        f"{venue} has no test site that ccxt knows, so the sandbox would trade with real money: choose another "
        "exchange, or a dry run"
    )


def _check_secrets(client: Any, venue: str, secrets: Secrets) -> None:
    given = {"apiKey": secrets.key, "secret": secrets.secret, "password": secrets.password}
    names = {"apiKey": "key", "secret": "secret", "password": "passphrase"}
    lacking = [names[name] for name, needed in client.requiredCredentials.items() if needed and not given.get(name)]
    if lacking:
        raise SettingsError(f"{venue} needs a {' and a '.join(lacking)}, which is not set")


def _restrict(client: Any) -> None:
    """Keep a client to what is needed: the spot markets, no list of currencies, no other address than the given."""
    client.has["fetchCurrencies"] = False
    kinds = client.options.get("fetchMarkets")
    types = kinds.get("types") if isinstance(kinds, dict) else None
    if isinstance(types, list):
        kinds["types"] = ["spot"]
    elif isinstance(types, dict):
        kinds["types"] = {"spot": True}
    client.session.max_redirects = 0  # an order would be sent again wherever it points, with the key


def _moved(urls: Any, base: str) -> Any:
    if isinstance(urls, Mapping):
        return {name: _moved(url, base) for name, url in urls.items()}
    return base.rstrip("/") + urlsplit(urls).path if isinstance(urls, str) else urls


def _once(ccxt: Any, client: Any, ask: Callable[[Any], _T]) -> _T:
    client.last_json_response = None
    try:
        answer = ask(client)
    except ccxt.BaseError:
        raise
    except Exception as error:  # an answer of another shape than ccxt expects
        what = f"an answer that cannot be read ({type(error).__name__})"
    else:
        if client.last_json_response not in (None, "", {}):
            return answer
        what = "an answer that is empty or no JSON"
    raise ccxt.BadResponse(what)


def _may_pass(error: BaseException) -> bool:
    ccxt = ccxt_module()
    # Asking again is what a limit punishes, and a wrong clock stays wrong.
    hopeless = (ccxt.DDoSProtection, ccxt.RateLimitExceeded, ccxt.InvalidNonce)
    return isinstance(error, ccxt.OperationFailed) and not isinstance(error, hopeless)
