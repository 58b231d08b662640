"""The live broker at an exchange on loopback, through the real ccxt: readings, the account, secrets."""

import logging
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from breakout_assets.errors import DataError, SettingsError, TemporaryError
from breakout_assets.trading.dry_run import DryRun
from breakout_assets.trading.exchange import ExchangeBroker
from breakout_assets.trading.exchange_client import Secrets
from breakout_assets.trading.money import plain
from breakout_assets.trading.orders import Accepted, NotSent, OrderLimits, Unknown
from breakout_assets.trading.venues import Pair
from breakout_assets_tests.trading.broker_contract import HOUR, buy, sell
from breakout_assets_tests.trading.exchangeserver import (
    KEY,
    PAIRS,
    SECRET,
    broker_at,
    patience,
    serving,
    settings_at,
)
from breakout_assets_tests.trading.fakeexchange import FAULTS, FakeExchange, Fault, VenueMarket, error

SOL, SATS = (pair.token for pair in PAIRS)


@pytest.fixture
def exchange() -> Iterator[FakeExchange]:
    with serving(FakeExchange()) as served:
        yield served


# Readings --------------------------------------------------------------------------------------------------------

READINGS: dict[str, tuple[str, Callable[[ExchangeBroker], Any]]] = {
    "look_up": ("GET order", lambda broker: broker.look_up(buy())),
    "executions": ("GET myTrades", lambda broker: broker.look_up(buy())),
    "cancel": ("DELETE order", lambda broker: broker.cancel(sell(2, "0.5"))),
    "open_orders": ("GET openOrders", lambda broker: broker.open_orders()),
    "balances": ("GET account", lambda broker: broker.balances()),
    "limits": ("GET exchangeInfo", lambda broker: broker.limits([SOL])),
    "open_hour": ("GET time", lambda broker: broker.open_hour(HOUR, {})),
}
PASSING = (
    "502",
    "503",
    "html",
    "truncated",
    "empty",
    "{}",
    "null",
    "reset before",
    "status unknown",
)


def traded(exchange: FakeExchange) -> ExchangeBroker:
    """A broker with one order filled and one open, whose own connection has asked nothing yet."""
    broker = broker_at(exchange)
    broker.place(buy())
    exchange.fill(buy().order_id)
    assert isinstance(broker.place(sell(2, "0.5")), Accepted)
    return broker_at(exchange)


@pytest.mark.parametrize("reading", READINGS)
def test_readings_are_repeated_while_the_failure_may_pass(exchange: FakeExchange, reading: str) -> None:
    call, ask = READINGS[reading]
    expected = ask(traded(exchange))
    for fault in PASSING:
        broker = broker_at(exchange, timeout=patience(fault))  # as the next run has one
        before = len(exchange.calls(call))
        exchange.spoil(call, fault, fault)
        assert ask(broker) == expected, fault
        assert len(exchange.calls(call)) == before + 3, fault


@pytest.mark.parametrize("reading", READINGS)
def test_readings_that_fail_again_and_again_are_given_up_for_now(exchange: FakeExchange, reading: str) -> None:
    call, ask = READINGS[reading]
    broker = traded(exchange)
    exchange.spoil(call, *["503"] * 4)
    before = len(exchange.calls(call))
    with pytest.raises(TemporaryError, match=r"^binance could not be asked for .* 503 .*; the next run asks again$"):
        ask(broker)
    assert len(exchange.calls(call)) == before + 4


@pytest.mark.parametrize(
    ("fault", "kind", "sentence"),
    [
        ("429", TemporaryError, "the next run asks again"),
        ("418", TemporaryError, "the next run asks again"),
        ("unmapped", TemporaryError, "the next run asks again"),
        ("redirect", TemporaryError, "the next run asks again"),
        ("clock", DataError, "set this machine's clock"),
        ("bad key", DataError, "check the key, its permissions and the addresses"),
        ("bad symbol", DataError, "look at the exchange's announcements and at the map of pairs"),
    ],
)
def test_readings_that_asking_again_does_not_help_are_asked_once(
    exchange: FakeExchange, fault: str, kind: type[Exception], sentence: str
) -> None:
    exchange.spoil("GET account", fault)
    with pytest.raises(kind, match=sentence):
        broker_at(exchange).balances()
    assert len(exchange.calls("GET account")) == 1


# The account -----------------------------------------------------------------------------------------------------


def test_open_orders_of_other_hands_and_markets_are_listed_too(exchange: FakeExchange) -> None:
    other = replace(buy(2, "0.001", "60000"), token="BTC-1")
    more = broker_at(exchange, pairs=(*PAIRS, Pair("BTC-1", "BTC/USDT")))
    for order in (buy(1), other):
        assert isinstance(more.place(order), Accepted)
    exchange.order(other.order_id).client_id = "web_7"
    listed = {order.token: order for order in broker_at(exchange).open_orders()}
    assert {SOL: buy().order_id, "BTC/USDT": "web_7"} == {token: order.order_id for token, order in listed.items()}
    assert listed[SOL].order_id == broker_at(exchange).spelling(buy().order_id)
    assert listed["BTC/USDT"].description == "buy 0.001 BTC/USDT at 60000, 0 of it filled"


def test_balances_are_of_the_quote_and_of_mapped_tokens_reserved_or_not(exchange: FakeExchange) -> None:
    exchange.held |= {"SOL": Decimal("1.5"), "BTC": Decimal(7), "SATS": Decimal(0)}
    broker = broker_at(exchange)
    broker.place(buy(1, "2.5"))
    broker.place(sell(2, "1.2"))
    assert exchange.reserved("SOL") == Decimal("1.2")
    balances = broker.balances()
    assert (balances.cash, balances.tokens) == (Decimal(10_000), {SOL: Decimal("1.5")})


def test_limits_are_the_markets_own(exchange: FakeExchange) -> None:
    limits = broker_at(exchange).limits([SOL, SATS, "NOSUCH-1"])
    assert limits == {
        SOL: OrderLimits(
            quantity_step=Decimal("0.001"),
            price_step=Decimal("0.01"),
            min_quantity=Decimal("0.001"),
            min_value=Decimal(5),
        ),
        SATS: OrderLimits(
            quantity_step=Decimal("1e-8"),
            price_step=Decimal("1e-10"),
            min_quantity=Decimal("1e-8"),
            min_value=Decimal(1),
        ),
    }


@pytest.mark.parametrize(
    ("skew_ms", "sentence"),
    [(9000, r"is 9\.0 s behind that of binance"), (-9000, r"is 9\.0 s ahead of that of binance")],
)
def test_a_clock_that_is_off_is_refused(exchange: FakeExchange, skew_ms: int, sentence: str) -> None:
    exchange.skew_ms = skew_ms
    with pytest.raises(DataError, match=sentence):
        broker_at(exchange).open_hour(HOUR, {})


@pytest.mark.parametrize("skew_ms", [-900, 0, 900])
def test_a_clock_that_is_off_by_less_than_a_second_will_do(exchange: FakeExchange, skew_ms: int) -> None:
    exchange.skew_ms = skew_ms
    broker_at(exchange).open_hour(HOUR, {})


def test_a_slow_answer_about_the_time_is_no_wrong_clock(exchange: FakeExchange) -> None:
    exchange.spoil("GET time", Fault(done=True, seconds=2.2))
    broker_at(exchange).open_hour(HOUR, {})


# Secrets and settings --------------------------------------------------------------------------------------------


def failure_of(ask: Callable[[], Any]) -> Exception | None:
    try:
        ask()
    except (TemporaryError, DataError) as failure:
        return failure
    return None


@pytest.mark.parametrize("fault", FAULTS)
def test_no_text_log_or_trace_shows_a_secret(
    exchange: FakeExchange, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    broker = broker_at(exchange, timeout=patience(fault))
    exchange.spoil("POST order", fault)
    shown = [repr(broker), repr(vars(broker)), repr(broker.place(buy()))]
    exchange.spoil("GET account", *[fault] * 4)
    failure = failure_of(broker.balances)
    assert failure is None or failure.__context__ is None, "ccxt's error, with the signed address, is attached"
    shown.append("".join(traceback.format_exception(failure)) if failure else "")
    text = "\n".join([*shown, caplog.text]).lower()
    for secret in (KEY, SECRET, "signature="):
        assert secret.lower() not in text


def test_a_secret_that_the_exchange_repeats_is_hidden(exchange: FakeExchange) -> None:
    text = f"bad key {KEY}, signature=abc123 for https://api.example/v3/order?timestamp=1&signature=abc123"
    exchange.spoil("POST order", error(-9999, text))
    answer = broker_at(exchange).place(buy())
    assert isinstance(answer, Unknown)
    assert "bad key [hidden], signature=[hidden] for https://api.example/v3/order" in answer.reason
    assert "abc123" not in answer.reason


def test_secrets_are_read_when_they_are_needed_and_not_before(exchange: FakeExchange) -> None:
    read: list[str] = []

    def secrets() -> Secrets:
        read.append("now")
        return Secrets(KEY, SECRET)

    broker = ExchangeBroker(settings_at(exchange), secrets)
    assert broker.describe(buy())
    assert not read
    assert broker.limits([SOL])
    assert broker.limits([SATS])
    assert read == ["now"]
    assert repr(Secrets(KEY, SECRET, "p")) == "Secrets()"


@pytest.mark.parametrize(
    ("venue", "secrets", "sentence"),
    [
        ("binance", Secrets("", SECRET), "binance needs a key, which is not set"),
        ("okx", Secrets(KEY, SECRET), "okx needs a passphrase, which is not set"),
    ],
)
def test_a_secret_that_is_lacking_is_named(exchange: FakeExchange, venue: str, secrets: Secrets, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        ExchangeBroker(settings_at(exchange, venue=venue), lambda: secrets).balances()


@pytest.mark.parametrize("venue", ["kucoin", "mexc", "htx", "kraken"])
def test_a_sandbox_that_does_not_exist_is_refused(exchange: FakeExchange, venue: str) -> None:
    broker = ExchangeBroker(settings_at(exchange, venue=venue, sandbox=True), lambda: Secrets(KEY, SECRET))
    with pytest.raises(SettingsError, match=rf"{venue} has no test site that ccxt knows"):
        broker.balances()
    assert not exchange.asked


def test_the_sandbox_is_another_address(exchange: FakeExchange) -> None:
    settings = settings_at(exchange, sandbox=True, base_url=None)
    client = ExchangeBroker(settings, lambda: Secrets(KEY, SECRET))._connection.client
    assert client.urls["api"]["private"] == client.urls["test"]["private"]
    assert "testnet" in client.urls["api"]["private"]


def test_without_ccxt_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, exchange: FakeExchange) -> None:
    broker = ExchangeBroker(settings_at(exchange), lambda: Secrets(KEY, SECRET))
    monkeypatch.setitem(sys.modules, "ccxt", None)
    with pytest.raises(SettingsError, match=r"not installed: pip install breakout_assets\[live\]"):
        broker.balances()
    assert isinstance(broker.place(buy()), NotSent)


def test_a_time_out_of_nothing_is_refused(exchange: FakeExchange) -> None:
    with pytest.raises(SettingsError, match=r"a time-out of 0 s leaves no time for an answer"):
        settings_at(exchange, timeout=0)


# In words, and the dry run ---------------------------------------------------------------------------------------


def test_a_request_is_described_with_the_market_of_the_exchange(exchange: FakeExchange) -> None:
    broker = broker_at(exchange)
    assert broker.describe(buy(1, "12.5")) == (
        f"buy 12.5 SOL/USDT at most 151.2 on binance (client id {buy().order_id})"
    )
    assert broker.describe(sell(2)).startswith("sell 2.5 SOL/USDT at least 149.5 on binance (client id ")
    sandbox = ExchangeBroker(settings_at(exchange, sandbox=True, venue="gate"), lambda: Secrets(KEY, SECRET))
    assert "on gate (sandbox) (client id t-0000000000000000000000000000)" in sandbox.describe(buy())
    assert "NOSUCH-1 (no market is known for it)" in broker.describe(replace(buy(), token="NOSUCH-1"))
    assert plain(Decimal("1E-8")) in broker.describe(buy(1, "1E-8"))


def test_an_address_tells_exchange_site_market_and_key_and_asks_nothing(exchange: FakeExchange) -> None:
    def address(key: str = KEY, token: str = SOL, **more: Any) -> str:
        broker = ExchangeBroker(settings_at(exchange, **more), lambda: Secrets(key, SECRET))
        return broker.address(replace(buy(), token=token))

    assert address() == "SOL/USDT on binance with the key 921adb1a"
    assert address() == broker_at(exchange).address(sell(2, "0.5")), "the order itself is no part of it"
    others = [
        address(key=KEY + "2"),
        address(token=SATS),
        address(venue="okx"),
        address(sandbox=True),
        address(pairs=(Pair(SOL, "SOL/USDC"),)),
    ]
    assert len({address(), *others}) == 6, "each of them is another place"
    assert address(sandbox=True) == "SOL/USDT on binance (sandbox) with the key 921adb1a"
    assert address(token="NOSUCH-1") == "NOSUCH-1 (no market is known for it) on binance with the key 921adb1a"
    assert not exchange.asked
    assert all(secret not in text for secret in (KEY, SECRET) for text in [address(), *others])


def test_a_dry_run_tells_what_it_would_send_and_sends_nothing(
    exchange: FakeExchange, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    exchange.markets["SOLUSDT"] = VenueMarket("SOL", quantity_step="0.1")
    with serving(FakeExchange()) as elsewhere:
        live, paper = broker_at(exchange), broker_at(elsewhere)
        dry = DryRun(live, paper)
        dry.open_hour(HOUR, {})
        assert dry.limits([SOL])[SOL].quantity_step == Decimal("0.1"), "the exchange's, not the paper's"
        assert isinstance(dry.place(buy()), Accepted)
        dry.cancel(buy())
        request = f"buy 2.5 SOL/USDT at most 151.2 on binance (client id {buy().order_id})"
        assert dry.take_requests() == [f"would {request}", f"would cancel: {request}"]
        assert dry.take_requests() == [], "each is told once"
        assert dry.address(buy()) == paper.address(buy())
        assert f"dry run: would {request}" in caplog.text
        assert dry.look_up(buy()) == paper.look_up(buy())
        assert (dry.absence, dry.immediate, dry.balances()) == (paper.absence, paper.immediate, paper.balances())
    assert {call for call, _ in exchange.asked} == {"GET time", "GET exchangeInfo"}


def test_a_dry_run_shows_that_the_clock_would_stop_it(exchange: FakeExchange) -> None:
    exchange.skew_ms = 9000
    with serving(FakeExchange()) as elsewhere, pytest.raises(DataError, match=r"set it \(NTP\)"):
        DryRun(broker_at(exchange), broker_at(elsewhere)).open_hour(HOUR, {})
