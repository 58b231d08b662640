"""Mails: what they say, how they travel, and that nothing of it reaches trading."""

import logging
import smtplib
import socket
import ssl
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from breakout_assets.errors import SettingsError
from breakout_assets.trading.alerts import DeliveryReport, MailSettings, compose, deliver, explain
from breakout_assets.trading.ledger import Ledger, mails
from breakout_assets.trading.portfolio import Fill, Order
from breakout_assets_tests.trading.mailserver import PASSWORD, USER, Inbox, drop, make_certificate, serving
from breakout_assets_tests.trading.support import MAIL, Account, at, dump

NAUGHTY = "X<script>alert(1)</script>&\r\nBcc: thief@example.com\r\n\r\nbody"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def server_tls(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


@pytest.fixture
def trust(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate[0]))


@pytest.fixture
def account(tmp_path: Path) -> Account:
    """One filled order, and the mail about it in the outbox."""
    account = Account(tmp_path, mail=MAIL)
    account.trade(0, {"SOL-5426": 0.8}, {"SOL-5426": 10.0})
    account.trade(1, {}, {"SOL-5426": 11.0})
    return account


def another_mail(account: Account, hour: int) -> None:
    account.trade(hour, {f"T-{hour}": 0.8}, {f"T-{hour}": 10.0})
    account.trade(hour + 1, {}, {f"T-{hour}": 10.0})


def outbox(ledger: Ledger) -> list[tuple[bool, int, str | None]]:
    with ledger.read("any") as books:
        query = sa.select(mails.c.sent, mails.c.attempts, mails.c.last_error).order_by(mails.c.hour)
        return [(row.sent, row.attempts, row.last_error) for row in books.connection.execute(query)]


@contextmanager
def trading_unchanged(ledger: Ledger) -> Iterator[None]:
    before = {name: rows for name, rows in dump(ledger).items() if name != "mails"}
    yield
    assert {name: rows for name, rows in dump(ledger).items() if name != "mails"} == before


def test_a_plain_server_gets_the_mail_once(account: Account) -> None:
    inbox = Inbox()
    with serving(inbox) as port, trading_unchanged(account.ledger):
        settings = replace(MAIL, port=port, recipients=("someone.else@example.com",))
        assert deliver(account.ledger, settings) == DeliveryReport(sent=1, pending=0, errors=())
        assert deliver(account.ledger, settings) == DeliveryReport(sent=0, pending=0, errors=())
    [message], [envelope] = inbox.received, inbox.envelopes
    assert (envelope.mail_from, envelope.rcpt_tos) == ("bot@example.com", ["me@example.com"])
    assert (message["From"], message["To"]) == ("bot@example.com", "me@example.com")
    assert message["Subject"] == "paper: 1 order filled at 2024-03-01 01:00 UTC"
    assert message["Date"] == "Fri, 01 Mar 2024 01:00:00 +0000"
    assert message["Auto-Submitted"] == "auto-generated"
    text, html = message.get_body(("plain",)), message.get_body(("html",))
    assert text is not None
    assert html is not None
    for part in (text.get_content(), html.get_content()):
        for word in ("SOL-5426", "11.0550", "20.00000000", "221.10", "0.5528", "probability 0.8000"):
            assert word in part
    assert outbox(account.ledger) == [(True, 1, None)]


def test_starttls_and_a_login(account: Account, server_tls: ssl.SSLContext, trust: ssl.SSLContext) -> None:
    inbox = Inbox()
    secure: dict[str, Any] = {"tls_context": server_tls, "require_starttls": True, "auth_required": True}
    with serving(inbox, **secure, authenticator=inbox.authenticate) as port:
        settings = replace(MAIL, port=port, security="starttls", user=USER, password=PASSWORD)
        assert deliver(account.ledger, settings, trust).sent == 1
    assert (inbox.encrypted, inbox.logins) == ([True], [USER.encode()])


def test_tls_from_the_first_byte(account: Account, server_tls: ssl.SSLContext, trust: ssl.SSLContext) -> None:
    inbox = Inbox()
    with serving(inbox, implicit_tls=server_tls) as port:
        assert deliver(account.ledger, replace(MAIL, port=port, security="tls"), trust).sent == 1
    assert len(inbox.received) == 1


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_certificate_of_an_unknown_authority_gets_neither_mail_nor_password(
    account: Account, server_tls: ssl.SSLContext, security: Any
) -> None:
    inbox = Inbox()
    options: dict[str, Any] = {"implicit_tls": server_tls} if security == "tls" else {"tls_context": server_tls}
    with serving(inbox, **options, authenticator=inbox.authenticate) as port, trading_unchanged(account.ledger):
        settings = replace(MAIL, port=port, security=security, user=USER, password=PASSWORD)
        report = deliver(account.ledger, settings)
    assert (report.sent, report.pending) == (0, 1)
    assert "certificate is not trusted (self-signed certificate)" in report.errors[0]
    assert (inbox.received, inbox.logins) == ([], [])


def test_a_server_without_starttls_gets_no_plain_mail_instead(account: Account, trust: ssl.SSLContext) -> None:
    inbox = Inbox()
    with serving(inbox) as port:
        report = deliver(account.ledger, replace(MAIL, port=port, security="starttls"), trust)
    assert "check BREAKOUT_MAIL_SECURITY" in report.errors[0]
    assert inbox.received == []


def test_a_refused_login_is_reported_without_the_password(
    account: Account, server_tls: ssl.SSLContext, trust: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    inbox = Inbox()
    with (
        serving(inbox, tls_context=server_tls, authenticator=inbox.authenticate) as port,
        trading_unchanged(account.ledger),
    ):
        settings = replace(MAIL, port=port, security="starttls", user=USER, password="hunter2-wrong")
        report = deliver(account.ledger, settings, trust)
    assert (report.sent, report.pending) == (0, 1)
    assert "refused the login (535); check BREAKOUT_MAIL_USER and its password" in report.errors[0]
    own_records = [record.getMessage() for record in caplog.records if not record.name.startswith("mail.")]
    for text in (repr(settings), str(report), repr(dump(account.ledger)), *own_records):
        assert "hunter2" not in text
    assert "hunter2" not in explain(smtplib.SMTPDataError(554, b"no: hunter2"))


def test_a_server_that_is_down_is_tried_once_and_again_next_time(account: Account) -> None:
    another_mail(account, 2)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: nobody else can take the port meanwhile
        settings = replace(MAIL, port=unused.getsockname()[1])
        with trading_unchanged(account.ledger):
            report = deliver(account.ledger, settings)
    assert (report.sent, report.pending) == (0, 2)
    assert report.errors == ("mail of 2024-03-01 01:00:00: the mail server cannot be reached (Connection refused)",)
    assert [attempts for _, attempts, _ in outbox(account.ledger)] == [1, 0]
    inbox = Inbox()
    with serving(inbox) as port:
        assert deliver(account.ledger, replace(MAIL, port=port)).sent == 2
    assert outbox(account.ledger) == [(True, 2, None), (True, 1, None)]


def test_a_server_that_never_answers_is_given_up(account: Account) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        report = deliver(account.ledger, replace(MAIL, port=silent.getsockname()[1], timeout=0.05))
    assert "did not answer in time" in report.errors[0]


def test_a_host_that_cannot_exist_is_a_mail_problem_too(account: Account) -> None:
    report = deliver(account.ledger, replace(MAIL, host="a" * 70 + ".example"))
    assert (report.sent, report.pending, len(report.errors)) == (0, 1, 1)


def test_a_server_that_accepts_and_then_drops_has_accepted(account: Account) -> None:
    inbox = Inbox(at_goodbye=drop)
    with serving(inbox) as port:
        assert deliver(account.ledger, replace(MAIL, port=port)) == DeliveryReport(sent=1, pending=0, errors=())
        assert deliver(account.ledger, replace(MAIL, port=port)).sent == 0
    assert len(inbox.received) == 1


def test_a_server_that_drops_before_it_answers_gets_the_same_mail_again(account: Account) -> None:
    inbox = Inbox(before_answer=drop)
    with serving(inbox) as port, trading_unchanged(account.ledger):
        report = deliver(account.ledger, replace(MAIL, port=port))
        assert (report.sent, report.pending) == (0, 1)
        assert "closed the connection" in report.errors[0]
        inbox.before_answer = lambda server: None
        assert deliver(account.ledger, replace(MAIL, port=port)).sent == 1
    first, second = inbox.received
    assert first["Message-ID"] == second["Message-ID"]


def test_a_recipient_who_is_refused_does_not_keep_the_mail_from_the_others(tmp_path: Path) -> None:
    account = Account(tmp_path, mail=replace(MAIL, recipients=("me@example.com", "gone@example.com")))
    another_mail(account, 0)
    inbox = Inbox(refused_recipients=frozenset({"gone@example.com"}))
    with serving(inbox) as port:
        report = deliver(account.ledger, replace(MAIL, port=port))
        assert deliver(account.ledger, replace(MAIL, port=port)).sent == 0
    assert (report.sent, report.pending) == (1, 0)
    assert "accepted, but not for gone@example.com" in report.errors[0]
    assert [envelope.rcpt_tos for envelope in inbox.envelopes] == [["me@example.com"]]


def test_a_mail_that_is_refused_does_not_hold_up_the_next_one(account: Account) -> None:
    another_mail(account, 2)
    inbox = Inbox(refused_words=frozenset({b"SOL-5426"}))
    with serving(inbox) as port:
        report = deliver(account.ledger, replace(MAIL, port=port))
    assert (report.sent, report.pending) == (1, 1)
    assert report.errors == ("mail of 2024-03-01 01:00:00: the mail server answered 554 (SMTPDataError)",)
    assert [message["Subject"] for message in inbox.received] == ["paper: 1 order filled at 2024-03-01 03:00 UTC"]
    assert PASSWORD not in repr(dump(account.ledger))  # the server repeated it in its answer


def test_a_mail_on_which_the_server_dies_goes_behind_the_others(account: Account) -> None:
    another_mail(account, 2)

    def die_on_the_first(server: Any) -> None:
        if "SOL-5426" in str(inbox.received[-1]):
            drop(server)

    inbox = Inbox(before_answer=die_on_the_first)
    with serving(inbox) as port:
        settings = replace(MAIL, port=port)
        assert [deliver(account.ledger, settings).sent for _ in range(2)] == [0, 1]


def test_all_recipients_refused_is_an_error(account: Account) -> None:
    inbox = Inbox(refused_recipients=frozenset(MAIL.recipients))
    with serving(inbox) as port:
        report = deliver(account.ledger, replace(MAIL, port=port))
    assert (report.sent, report.pending) == (0, 1)
    assert "refused all recipients (550); check BREAKOUT_MAIL_TO" in report.errors[0]


def test_a_name_from_outside_can_neither_add_a_header_nor_a_tag(account: Account) -> None:
    portfolio = account.trade(1).portfolio
    order = Order(
        order_id="o",
        hour=at(0),
        token=NAUGHTY,
        side="buy",
        purpose="entry",
        quantity=Decimal(1),
        price=Decimal(1),
        reason="<b>why</b>",
        position=None,
        model_hash=None,
        probability=0.7,
    )
    fill = Fill(order_id="o", side="buy", hour=at(1), price=Decimal(1), quantity=Decimal(1), fee=Decimal(0))
    mail = compose("pa\r\nBcc: thief@example.com", at(5), [(order, fill)], portfolio, MAIL.recipients)
    with account.ledger.write("paper") as books:
        books.post(mail)
    inbox = Inbox()
    with serving(inbox) as port:
        assert deliver(account.ledger, replace(MAIL, port=port)).errors == ()
    message = inbox.received[-1]
    assert message["Bcc"] is None
    assert inbox.envelopes[-1].rcpt_tos == ["me@example.com"]
    html = message.get_body(("html",))
    assert html is not None
    assert "X&lt;script&gt;alert(1)&lt;/script&gt;&amp;  Bcc" in html.get_content()
    assert "<script>" not in html.get_content()
    assert "<b>" not in html.get_content()


def test_the_message_id_depends_on_account_and_hour_alone(account: Account) -> None:
    portfolio = account.trade(1).portfolio

    def message_id(name: str, hour: int, recipient: str) -> str:
        return compose(name, at(hour), [], portfolio, (recipient,)).message_id

    base = message_id("paper", 1, "a@example.com")
    assert base == message_id("paper", 1, "b@example.com") == account.ledger.pending_mails()[0].message_id
    assert len({base, message_id("real", 1, "a@example.com"), message_id("paper", 2, "a@example.com")}) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipients": ()}, "BREAKOUT_MAIL_TO"),
        ({"recipients": ("me",)}, "'me' is not a mail address"),
        ({"recipients": ("a@example.com, b@example.com",)}, "not a mail address"),
        ({"recipients": ("a@example.com,b@example.com",)}, "not a mail address"),
        ({"recipients": ("a@example.com\r\nBcc: b@example.com",)}, "not a mail address"),
        ({"sender": "bot <bot@example.com>"}, "not a mail address"),
        ({"sender": ""}, "not a mail address"),
        ({"user": USER, "password": "hunter2"}, "never sent unencrypted"),
        ({"security": "tls", "user": USER, "password": "hunter2-\u00e4"}, "must be ASCII"),
    ],
)
def test_impossible_mail_settings_are_refused_without_naming_the_password(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        replace(MAIL, **changes)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_the_password_is_not_shown() -> None:
    settings = MailSettings(
        host="h", port=1, security="tls", sender="a@b", recipients=("c@d",), user="u", password="hunter2"
    )
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in str(settings)


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (smtplib.SMTPConnectError(421, b"x"), "answered 421 (SMTPConnectError)"),
        (smtplib.SMTPException("secret"), "sending failed (SMTPException)"),
        (OSError("secret"), "sending failed (OSError)"),
    ],
)
def test_other_failures_are_told_by_their_kind(failure: Exception, words: str) -> None:
    assert explain(failure).endswith(words)
