"""Requests to CoinMarketCap: one that fails is repeated as its error says, within the time that the hour leaves.

The key travels in one header and nowhere else: no message or log line made here contains it.
"""

import logging
import re
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Final, TypeVar

import requests
from tenacity import RetryCallState, Retrying, retry_if_exception
from urllib3.exceptions import HTTPError as TransportError

from breakout_assets.market.cmc_errors import AGAIN, CONNECTION, CUT_OFF, Reaction, RequestError, read_answer

KEY_HEADER: Final = "X-CMC_PRO_API_KEY"
# 5,000 coins, the most one call returns, are about 6 MB of text. The cap is on the unpacked size, so a small
# compressed answer cannot fill the memory either.
MAX_BODY_BYTES: Final = 50_000_000
CHUNK_BYTES: Final = 65_536
MAX_DOUBLINGS: Final = 6
# Programs that were told the same time to come back would otherwise all come back together.
SERVER_WAIT_SPREAD: Final = 5.0

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_Parameters = Mapping[str, str | int]


@dataclass(frozen=True)
class Caller:
    """Asks what one snapshot needs; all its requests, attempts and waits share one span of time.

    Attributes:
        base: Address of the API, without a slash at its end.
        key: The key, None to ask without one.
        label: Which hour this is about, for messages.
        now: Time of its making, naive UTC.
        span: Seconds from then on after which nothing is asked any more.
        timeout: Longest wait in seconds for the connection, and again for each part of an answer.
        deadline: Longest wait in seconds for one whole answer.
        sleep: Waits some seconds.
        monotonic: Seconds of a clock that is never set.
        jitter: A random number from 0 to 1.
    """

    base: str
    key: str | None = field(repr=False)
    label: str
    now: datetime
    span: float
    timeout: float
    deadline: float
    sleep: Callable[[float], None] = field(repr=False)
    monotonic: Callable[[], float] = field(repr=False)
    jitter: Callable[[], float] = field(repr=False)
    started: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "started", self.monotonic())

    def hide(self, text: str) -> str:
        """The text without the key."""
        return re.sub(re.escape(self.key), "[key]", text, flags=re.IGNORECASE) if self.key else text

    def get(self, path: str, parameters: _Parameters) -> Mapping[str, object]:
        """The decoded body of a successful answer.

        Raises:
            RequestError: the last attempt failed.
        """
        url = f"{self.base}{path}"
        where = f"GET {url} {self.label}"
        retrying = Retrying(
            retry=retry_if_exception(_may_be_repeated),
            wait=self._wait,
            stop=self._stop,
            sleep=self.sleep,
            before_sleep=partial(self._log_failure, where),
            reraise=True,
        )
        try:
            return retrying(self._attempt, url, parameters)
        except RequestError as failure:
            attempts = retrying.statistics["attempt_number"]
            _log.warning("%s: attempt %d failed: %s; it is the last", where, attempts, failure.what)
            tried = f" (attempt {attempts}, {self._elapsed():.0f} s after the first)" if attempts > 1 else ""
            failure.what = f"{where}: {failure.what}{tried}{self._asked_wait(failure)}"
            raise

    def _elapsed(self) -> float:
        return self.monotonic() - self.started

    def _attempt(self, url: str, parameters: _Parameters) -> Mapping[str, object]:
        left = self.span - self._elapsed()
        if left <= 0:
            raise RequestError("the time that was allowed is used up", Reaction(AGAIN, passing=True))
        started = self._elapsed()
        answer = _within(min(self.deadline, left), partial(self._download, url, parameters))
        body = read_answer(*answer, self.now + timedelta(seconds=self._elapsed()), self.hide)
        _log.info("GET %s %s: %d bytes in %.1f s", url, self.label, len(answer[2]), self._elapsed() - started)
        return body

    def _wait(self, state: RetryCallState) -> float:
        failure = _failure_of(state)
        doubled = 2.0 ** min(state.attempt_number - 1, MAX_DOUBLINGS)
        if failure.server_wait is not None:
            # A server that asks for no wait is not asked faster and faster for it.
            return max(failure.server_wait, doubled) + SERVER_WAIT_SPREAD * self.jitter()
        first = failure.reaction.first_wait or 0.0
        return first * (doubled if failure.reaction.growing else 1.0) * (1 + self.jitter() / 2)

    def _stop(self, state: RetryCallState) -> bool:
        spent = state.attempt_number >= _failure_of(state).reaction.attempts
        return spent or self._elapsed() + state.upcoming_sleep >= self.span

    def _log_failure(self, where: str, state: RetryCallState) -> None:
        _log.warning(
            "%s: attempt %d failed: %s; the next in %.1f s",
            where,
            state.attempt_number,
            _failure_of(state).what,
            state.upcoming_sleep,
        )

    def _asked_wait(self, failure: RequestError) -> str:
        if failure.server_wait is None:
            return ""
        back = self.now + timedelta(seconds=min(self._elapsed() + failure.server_wait, 1e9))
        return f"; the server asks to come back at {back:%Y-%m-%d %H:%M:%S} UTC"

    def _download(
        self, url: str, parameters: _Parameters, abandoned: threading.Event
    ) -> tuple[int, Mapping[str, str], bytes]:
        """HTTP status, headers and unpacked body of one request."""
        headers = {"Accept": "application/json"} | ({KEY_HEADER: self.key} if self.key else {})
        try:
            with requests.get(
                url,
                params=parameters,
                headers=headers,
                timeout=self.timeout,
                stream=True,
                allow_redirects=False,  # this header, unlike Authorization, would be carried along to any other host
            ) as response:
                if response.is_redirect:
                    raise RequestError(
                        self.hide(
                            f"HTTP {response.status_code}: it redirects to {response.headers.get('Location')!r}, and "
                            "the key is not sent on"
                        ),
                        Reaction("Set BREAKOUT_CMC_URL to the final address."),
                    )
                return response.status_code, response.headers, _body(response, abandoned)
        except requests.Timeout as error:
            reaction = CONNECTION if isinstance(error, requests.ConnectTimeout) else CUT_OFF
            raise RequestError(f"no answer within {self.timeout:g} s", reaction) from None
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
            what = self.hide(f"the address cannot be requested ({error})")
            raise RequestError(what, Reaction("Correct BREAKOUT_CMC_URL.")) from None
        except requests.RequestException as error:
            what = self.hide(f"the connection failed ({type(error).__name__}: {error})")
            raise RequestError(what, CONNECTION) from None
        except TransportError as error:  # from the body, which is read past requests
            what = self.hide(f"the connection broke off ({type(error).__name__}: {error})")
            raise RequestError(what, CUT_OFF) from None


def _may_be_repeated(error: BaseException) -> bool:
    return isinstance(error, RequestError) and error.reaction.first_wait is not None


def _failure_of(state: RetryCallState) -> RequestError:
    error = state.outcome.exception() if state.outcome else None
    if not isinstance(error, RequestError):
        raise RuntimeError("only a failure is waited for")
    return error


def _within(seconds: float, work: Callable[[threading.Event], _T]) -> _T:
    """What `work` returns, if it takes no longer than this; else it is left alone, with its event set.

    In a thread of its own, because the time-out of a socket begins anew with each byte: no other way ends a look-up of
    the name, a handshake and a header line that never stop arriving.
    """
    abandoned = threading.Event()
    outcome: Future[_T] = Future()

    def run() -> None:
        try:
            outcome.set_result(work(abandoned))
        except BaseException as error:  # raised again where the result is asked for
            outcome.set_exception(error)

    threading.Thread(target=run, name="coinmarketcap", daemon=True).start()
    try:
        return outcome.result(timeout=seconds)
    except TimeoutError:
        if outcome.done():
            raise
        abandoned.set()
    raise RequestError(f"the answer was not complete within {seconds:g} s", CUT_OFF)


def _body(response: requests.Response, abandoned: threading.Event) -> bytes:
    content = bytearray()
    # As it arrives, not in chunks of full size: those would wait for a server that sends a byte now and then.
    while not abandoned.is_set() and (part := response.raw.read1(CHUNK_BYTES, decode_content=True)):
        content += part
        if len(content) > MAX_BODY_BYTES:
            raise RequestError(
                f"HTTP {response.status_code}: the answer is longer than {MAX_BODY_BYTES // 10**6} MB, too long for a "
                "listing",
                Reaction("Check BREAKOUT_CMC_URL."),
            )
    return bytes(content)
