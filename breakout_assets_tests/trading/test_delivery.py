"""How mails travel: to real servers on loopback, good and bad, and out of processes that are killed."""

import logging
import multiprocessing
import smtplib
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from multiprocessing.context import ForkServerContext
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from aiosmtpd.smtp import SMTP

from breakout_assets.trading import delivery
from breakout_assets.trading.delivery import DeliveryReport, deliver, in_words
from breakout_assets.trading.ledger import Ledger
from breakout_assets.trading.mails import Mail, MailSettings, OrderLine, compose_hour
from breakout_assets.trading.schema import mails
from breakout_assets_tests.samples import at
from breakout_assets_tests.trading.mailserver import MAIL, PASSWORD, USER, Inbox, drop, make_certificate, serving

PATIENCE = 120  # seconds to wait for a child before the test fails rather than hangs
SEVERAL = ("me@example.com", "busy@example.com", "gone@example.com")
GONE = frozenset({"gone@example.com"})
LINE = OrderLine(
    side="buy",
    token="SOL-5426",
    status="filled",
    quantity=Decimal("20.00000000"),
    price=Decimal("11.0550"),
    value=Decimal("221.10"),
    fee=Decimal("0.55275"),
    decided=at("2024-03-01 00:00"),
    why="probability 0.8000",
)


def hour_mail(hour: int, *tokens: str, part: int = 1, recipients: tuple[str, ...] = MAIL.recipients) -> Mail:
    lines = [replace(LINE, token=token) for token in tokens]
    moment = at(f"2024-03-01 {hour:02}:00")
    return compose_hour("paper", moment, lines, ["Equity 1 USD."], [], recipients, None, part)


def post(ledger: Ledger, *posted: Mail) -> None:
    with ledger.write("paper") as books:
        for mail in posted:
            books.post(mail)


def post_hour(ledger: Ledger, hour: int, *tokens: str) -> None:
    with ledger.write("paper") as books:
        books.post_hour(lambda part: hour_mail(hour, *tokens, part=part))


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
def several(tmp_path: Path) -> Ledger:
    """One mail in the outbox, for several recipients."""
    ledger = Ledger(tmp_path / "several.sqlite")
    post(ledger, hour_mail(1, "SOL-5426", recipients=SEVERAL))
    return ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """One mail in the outbox."""
    ledger = Ledger(tmp_path / "ledger.sqlite")
    post(ledger, hour_mail(1, "SOL-5426"))
    return ledger


def outbox(ledger: Ledger) -> list[tuple[bool, int, str | None]]:
    with ledger.read("any") as books:
        query = sa.select(mails.c.sent, mails.c.attempts, mails.c.last_error).order_by(mails.c.hour)
        return [(row.sent, row.attempts, row.last_error) for row in books.connection.execute(query)]


def bytes_of(ledger: Ledger) -> bytes:
    """Everything that the ledger has ever put on the disk."""
    path = file_of(ledger)
    return b"".join(file.read_bytes() for file in sorted(path.parent.glob(f"*{path.name}*")))


def file_of(ledger: Ledger) -> Path:
    assert ledger.path
    return ledger.path


# Servers ---------------------------------------------------------------------------------------------------------


def test_a_plain_server_gets_the_mail_once(ledger: Ledger) -> None:
    inbox = Inbox()
    with serving(inbox) as port:
        settings = replace(MAIL, port=port, recipients=("someone.else@example.com",))
        assert deliver(ledger, settings) == DeliveryReport(sent=1, pending=0, errors=())
        assert deliver(ledger, settings) == DeliveryReport(sent=0, pending=0, errors=())
    [message], [envelope] = inbox.received, inbox.envelopes
    assert (envelope.mail_from, envelope.rcpt_tos) == ("bot@example.com", ["me@example.com"])
    assert (message["From"], message["To"]) == ("bot@example.com", "me@example.com")
    assert message["Subject"] == "paper: 1 bought at 2024-03-01 01:00 UTC"
    assert message["Date"] == "Fri, 01 Mar 2024 01:00:00 +0000"
    assert message["Auto-Submitted"] == "auto-generated"
    text, html = message.get_body(("plain",)), message.get_body(("html",))
    assert text is not None
    assert html is not None
    for part in (text.get_content(), html.get_content()):
        for word in ("SOL-5426", "11.0550", "20.00000000", "221.10", "0.5528", "probability 0.8000"):
            assert word in part
    assert outbox(ledger) == [(True, 1, None)]


def test_starttls_and_a_login(ledger: Ledger, server_tls: ssl.SSLContext, trust: ssl.SSLContext) -> None:
    inbox = Inbox()
    secure: dict[str, Any] = {"tls_context": server_tls, "require_starttls": True, "auth_required": True}
    with serving(inbox, **secure, authenticator=inbox.authenticate) as port:
        settings = replace(MAIL, port=port, security="starttls", user=USER, password=PASSWORD)
        assert deliver(ledger, settings, trust).sent == 1
    assert (inbox.encrypted, inbox.logins) == ([True], [USER.encode()])


def test_tls_from_the_first_byte(ledger: Ledger, server_tls: ssl.SSLContext, trust: ssl.SSLContext) -> None:
    inbox = Inbox()
    with serving(inbox, implicit_tls=server_tls) as port:
        assert deliver(ledger, replace(MAIL, port=port, security="tls"), trust).sent == 1
    assert len(inbox.received) == 1


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_certificate_of_an_unknown_authority_gets_neither_mail_nor_password(
    ledger: Ledger, server_tls: ssl.SSLContext, security: Any
) -> None:
    inbox = Inbox()
    options: dict[str, Any] = {"implicit_tls": server_tls} if security == "tls" else {"tls_context": server_tls}
    with serving(inbox, **options, authenticator=inbox.authenticate) as port:
        settings = replace(MAIL, port=port, security=security, user=USER, password=PASSWORD)
        report = deliver(ledger, settings)
    assert (report.sent, report.pending) == (0, 1)
    assert "certificate is not trusted (self-signed certificate)" in report.errors[0]
    assert (inbox.received, inbox.logins) == ([], [])


def test_a_server_without_starttls_gets_no_plain_mail_instead(ledger: Ledger, trust: ssl.SSLContext) -> None:
    inbox = Inbox()
    with serving(inbox) as port:
        report = deliver(ledger, replace(MAIL, port=port, security="starttls"), trust)
    assert "check BREAKOUT_MAIL_SECURITY" in report.errors[0]
    assert inbox.received == []


def test_several_mails_travel_over_one_connection_oldest_first(ledger: Ledger) -> None:
    post(ledger, *(hour_mail(hour, "A-1") for hour in (4, 3, 2)))
    farewells: list[SMTP] = []
    inbox = Inbox(at_goodbye=farewells.append)
    with serving(inbox) as port:
        assert deliver(ledger, replace(MAIL, port=port)).sent == 4
    assert [str(message["Date"])[17:22] for message in inbox.received] == ["01:00", "02:00", "03:00", "04:00"]
    assert len(farewells) == 1


def test_a_long_outbox_is_sent_in_several_deliveries(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "MOST_AT_ONCE", 2)
    post(ledger, hour_mail(2, "A-1"), hour_mail(3, "A-1"))
    inbox = Inbox()
    with serving(inbox) as port:
        reports = [deliver(ledger, replace(MAIL, port=port)) for _ in range(3)]
    assert [(report.sent, report.pending) for report in reports] == [(2, 1), (1, 0), (0, 0)]


def test_an_empty_outbox_asks_no_server(tmp_path: Path) -> None:
    nowhere = replace(MAIL, host="no-such-host.invalid")
    assert deliver(Ledger(tmp_path / "l.sqlite"), nowhere) == DeliveryReport(sent=0, pending=0, errors=())


def test_a_server_that_is_down_is_tried_once_and_again_next_time(ledger: Ledger) -> None:
    post(ledger, hour_mail(2, "A-1"))
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: nobody else can take the port meanwhile
        report = deliver(ledger, replace(MAIL, port=unused.getsockname()[1]))
    assert (report.sent, report.pending) == (0, 2)
    assert report.errors == ("the mail server cannot be reached (Connection refused)",)
    assert [attempts for _, attempts, _ in outbox(ledger)] == [0, 0], "no mail was shown to anybody"
    inbox = Inbox()
    with serving(inbox) as port:
        assert deliver(ledger, replace(MAIL, port=port)).sent == 2
    assert outbox(ledger) == [(True, 1, None), (True, 1, None)]


def test_a_server_that_never_answers_is_given_up(ledger: Ledger) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        report = deliver(ledger, replace(MAIL, port=silent.getsockname()[1], timeout=0.05))
    assert "did not answer in time" in report.errors[0]


def test_a_server_that_is_slow_to_accept_gets_the_same_mail_again(ledger: Ledger) -> None:
    given_up = threading.Event()

    def wait(server: SMTP) -> None:
        assert given_up.wait(PATIENCE)

    inbox = Inbox(before_answer=wait)
    with serving(inbox) as port:
        while not inbox.arrived.is_set():  # on a loaded machine even the greeting may come too late
            report = deliver(ledger, replace(MAIL, port=port, timeout=0.5))
        given_up.set()
        assert (report.sent, report.pending) == (0, 1)
        assert "did not answer in time" in report.errors[0]
        assert deliver(ledger, replace(MAIL, port=port)).sent == 1
    assert len(inbox.received) >= 2
    assert len({message["Message-ID"] for message in inbox.received}) == 1


def test_a_host_that_cannot_exist_is_a_mail_problem_too(ledger: Ledger) -> None:
    report = deliver(ledger, replace(MAIL, host="a" * 70 + ".example"))
    assert (report.sent, report.pending, len(report.errors)) == (0, 1, 1)


def test_a_server_that_accepts_and_then_drops_has_accepted(ledger: Ledger) -> None:
    inbox = Inbox(at_goodbye=drop)
    with serving(inbox) as port:
        assert deliver(ledger, replace(MAIL, port=port)) == DeliveryReport(sent=1, pending=0, errors=())
        assert deliver(ledger, replace(MAIL, port=port)).sent == 0
    assert len(inbox.received) == 1


def test_a_server_that_drops_before_it_answers_gets_the_same_mail_again(ledger: Ledger) -> None:
    inbox = Inbox(before_answer=drop)
    with serving(inbox) as port:
        report = deliver(ledger, replace(MAIL, port=port))
        assert (report.sent, report.pending) == (0, 1)
        assert "closed the connection" in report.errors[0]
        inbox.before_answer = lambda server: None
        assert deliver(ledger, replace(MAIL, port=port)).sent == 1
    first, second = inbox.received
    assert first["Message-ID"] == second["Message-ID"]


def test_a_recipient_who_is_refused_does_not_keep_the_mail_from_the_others(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    post(ledger, hour_mail(1, "A-1", recipients=("me@example.com", "gone@example.com")))
    inbox = Inbox(refused_recipients=frozenset({"gone@example.com"}))
    with serving(inbox) as port:
        report = deliver(ledger, replace(MAIL, port=port))
        assert deliver(ledger, replace(MAIL, port=port)).sent == 0
    assert (report.sent, report.pending) == (1, 0)
    assert "accepted, but not for gone@example.com (550)" in report.errors[0]
    assert [envelope.rcpt_tos for envelope in inbox.envelopes] == [["me@example.com"]]


def test_a_recipient_who_is_greylisted_gets_the_same_mail_later_and_the_others_get_it_once(several: Ledger) -> None:
    inbox = Inbox(first_answers={"busy@example.com": ["450 greylisted", "451 still"]}, refused_recipients=GONE)
    with serving(inbox) as port:
        reports = [deliver(several, replace(MAIL, port=port)) for _ in range(4)]
    assert [(report.sent, report.pending) for report in reports] == [(0, 1), (0, 1), (1, 0), (0, 0)]
    assert [envelope.rcpt_tos for envelope in inbox.envelopes] == [["me@example.com"], ["busy@example.com"]]
    first, second = inbox.received
    for header in ("Message-ID", "Subject", "To", "Date"):
        assert first[header] == second[header]
    assert first["To"] == "me@example.com, busy@example.com, gone@example.com"
    not_yet = "accepted, but not for gone@example.com (550) and not yet for busy@example.com"
    assert [report.errors for report in reports[:2]] == [(f"mail of 2024-03-01 01:00:00: {not_yet}",)] * 2
    assert outbox(several) == [(True, 3, "accepted, but not for gone@example.com (550)")]


def test_a_recipient_who_is_refused_for_good_is_not_asked_for_again(several: Ledger) -> None:
    """Not even if at first nobody could be given the mail."""
    patience = {"me@example.com": ["450 later"], "busy@example.com": ["450 later", "550 after all"]}
    inbox = Inbox(first_answers=patience, refused_recipients=GONE)
    with serving(inbox) as port:
        reports = [deliver(several, replace(MAIL, port=port)) for _ in range(3)]
    assert [(report.sent, report.pending) for report in reports] == [(0, 1), (1, 0), (0, 0)]
    assert "refused all recipients (450, 550)" in reports[0].errors[0]
    assert [envelope.rcpt_tos for envelope in inbox.envelopes] == [["me@example.com"]]
    assert inbox.asked_for == [*SEVERAL, "me@example.com", "busy@example.com"]
    assert outbox(several)[0][2] == "accepted, but not for busy@example.com (550), gone@example.com (550)"


def test_a_mail_that_was_refused_for_all_in_turn_is_tried_again_for_all(several: Ledger) -> None:
    refusals = {"me@example.com": ["450 later", "550 no"], "busy@example.com": ["550 no"]}
    inbox = Inbox(first_answers=refusals, refused_recipients=GONE)
    with serving(inbox) as port:
        reports = [deliver(several, replace(MAIL, port=port)) for _ in range(3)]
    assert [(report.sent, report.pending) for report in reports] == [(0, 1), (0, 1), (1, 0)]
    assert "refused all recipients (550); check BREAKOUT_MAIL_TO" in reports[1].errors[0]
    assert [envelope.rcpt_tos for envelope in inbox.envelopes] == [["me@example.com", "busy@example.com"]]


def test_a_server_that_hangs_up_at_a_recipient_has_settled_the_mail_for_nobody(several: Ledger) -> None:
    inbox = Inbox(first_answers={"busy@example.com": ["421 overloaded"]})
    with serving(inbox) as port:
        reports = [deliver(several, replace(MAIL, port=port)) for _ in range(2)]
    assert [(report.sent, report.pending) for report in reports] == [(0, 1), (1, 0)]
    assert "takes a mail for no recipient now (421)" in reports[0].errors[0]
    assert [envelope.rcpt_tos for envelope in inbox.envelopes] == [list(SEVERAL)]


def test_a_mail_that_is_refused_does_not_hold_up_the_next_one(ledger: Ledger) -> None:
    post(ledger, hour_mail(3, "A-1"))
    inbox = Inbox(refused_words=frozenset({b"SOL-5426"}))
    with serving(inbox) as port:
        report = deliver(ledger, replace(MAIL, port=port))
    assert (report.sent, report.pending) == (1, 1)
    assert report.errors == ("mail of 2024-03-01 01:00:00: the mail server answered 554 (SMTPDataError)",)
    assert [message["Subject"] for message in inbox.received] == ["paper: 1 bought at 2024-03-01 03:00 UTC"]
    assert PASSWORD.encode() not in bytes_of(ledger)  # the server repeated it in its answer


def test_a_mail_on_which_the_server_dies_goes_behind_the_others(ledger: Ledger) -> None:
    post(ledger, hour_mail(3, "A-1"))

    def die_on_the_first(server: Any) -> None:
        if "SOL-5426" in str(inbox.received[-1]):
            drop(server)

    inbox = Inbox(before_answer=die_on_the_first)
    with serving(inbox) as port:
        settings = replace(MAIL, port=port)
        assert [deliver(ledger, settings).sent for _ in range(2)] == [0, 1]


def test_all_recipients_refused_is_an_error(ledger: Ledger) -> None:
    inbox = Inbox(refused_recipients=frozenset(MAIL.recipients))
    with serving(inbox) as port:
        report = deliver(ledger, replace(MAIL, port=port))
    assert (report.sent, report.pending) == (0, 1)
    assert "refused all recipients (550); check BREAKOUT_MAIL_TO" in report.errors[0]


def test_a_name_from_outside_can_neither_add_a_header_nor_a_recipient(tmp_path: Path) -> None:
    naughty = "X<script>\r\nBcc: thief@example.com\r\n\r\nbody\r\n.\r\nRCPT TO:<thief@example.com>"
    ledger = Ledger(tmp_path / "ledger.sqlite")
    line = replace(LINE, token=naughty, why=naughty)
    post(ledger, compose_hour(naughty, LINE.decided, [line], [naughty], [naughty], MAIL.recipients, None))
    inbox = Inbox()
    with serving(inbox) as port:
        assert deliver(ledger, replace(MAIL, port=port)).errors == ()
    [message], [envelope] = inbox.received, inbox.envelopes
    assert message["Bcc"] is None
    assert envelope.rcpt_tos == ["me@example.com"]
    html = message.get_body(("html",))
    assert html is not None
    assert "<script>" not in html.get_content()


# One mail for an hour --------------------------------------------------------------------------------------------


def test_a_busy_hour_is_one_mail_until_it_is_attempted_and_then_a_second_part(ledger: Ledger) -> None:
    for count in range(1, 51):
        post_hour(ledger, 5, *(f"T-{number}" for number in range(count)))
    assert len(outbox(ledger)) == 2
    inbox = Inbox()
    with serving(inbox) as port:
        settings = replace(MAIL, port=port)
        assert deliver(ledger, settings).sent == 2
        for extra in ("U-1", "U-2"):
            post_hour(ledger, 5, "T-0", extra)
        assert deliver(ledger, settings).sent == 1
    whole, later = inbox.received[1:]
    assert whole["Subject"] == "paper: 50 bought at 2024-03-01 05:00 UTC"
    assert later["Subject"] == "paper: 2 bought at 2024-03-01 05:00 UTC (part 2)"
    assert "U-2" in str(later)
    assert whole["Message-ID"] != later["Message-ID"]


def test_what_happens_while_no_server_can_be_reached_joins_the_mail_that_waits(ledger: Ledger) -> None:
    post_hour(ledger, 5, "A-1")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        deliver(ledger, replace(MAIL, port=unused.getsockname()[1]))
    post_hour(ledger, 5, "A-1", "B-2")
    assert [mail.subject for mail in ledger.pending_mails()][1:] == ["paper: 2 bought at 2024-03-01 05:00 UTC"]


def test_what_a_server_may_have_seen_is_not_rewritten(ledger: Ledger) -> None:
    post_hour(ledger, 5, "A-1")
    inbox = Inbox(before_answer=drop)
    with serving(inbox) as port:
        for _ in range(2):
            deliver(ledger, replace(MAIL, port=port))
        post_hour(ledger, 5, "A-1", "B-2")
        inbox.before_answer = lambda server: None
        deliver(ledger, replace(MAIL, port=port))
    by_id: dict[str, set[str]] = {}
    for message in inbox.received:
        by_id.setdefault(str(message["Message-ID"]), set()).add(message.get_content_subtype() + str(message["Subject"]))
    assert len(by_id) == 3
    assert all(len(subjects) == 1 for subjects in by_id.values())


def test_a_rewriting_that_comes_between_the_look_and_the_attempt_is_what_is_sent(ledger: Ledger) -> None:
    post_hour(ledger, 5, "A-1")

    def more_happens(server: SMTP) -> None:
        if len(inbox.received) == 1:
            post_hour(Ledger(file_of(ledger)), 5, "A-1", "B-2")

    inbox = Inbox(before_answer=more_happens)
    with serving(inbox) as port:
        assert deliver(ledger, replace(MAIL, port=port)) == DeliveryReport(sent=2, pending=0, errors=())
    assert inbox.received[1]["Subject"] == "paper: 2 bought at 2024-03-01 05:00 UTC"


# Processes -------------------------------------------------------------------------------------------------------


def deliver_in_a_child(path: Path, settings: MailSettings) -> None:
    deliver(Ledger(path), settings)


def race_to_deliver(path: Path, settings: MailSettings, barrier: Barrier, results: Any) -> None:
    ledger = Ledger(path)
    barrier.wait()
    results.send(deliver(ledger, settings))


@pytest.fixture(scope="module")
def context() -> ForkServerContext:
    """Children start from a server that has imported everything already: tens of milliseconds instead of seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["breakout_assets_tests.trading.test_delivery"])
    return context


@pytest.fixture
def children() -> Iterator[list[Any]]:
    started: list[Any] = []
    yield started
    for child in started:
        child.kill()
        child.join()


def test_a_process_killed_between_attempt_and_answer_leaves_the_same_mail_to_be_sent_again(
    ledger: Ledger, context: ForkServerContext, children: list[Any]
) -> None:
    killed = threading.Event()

    def wait_for_the_kill(server: SMTP) -> None:
        assert killed.wait(PATIENCE)

    inbox = Inbox(before_answer=wait_for_the_kill)
    with serving(inbox) as port:
        settings = replace(MAIL, port=port)
        children.append(context.Process(target=deliver_in_a_child, args=(ledger.path, settings)))
        children[-1].start()
        assert inbox.arrived.wait(PATIENCE)
        children[-1].kill()
        children[-1].join()
        killed.set()
        assert outbox(ledger) == [(False, 1, None)]
        post_hour(ledger, 1, "SOL-5426", "B-2")  # what happens meanwhile is told in another mail
        assert deliver(ledger, settings).sent == 2
    first, second, third = sorted(inbox.received, key=lambda message: "part 2" in str(message["Subject"]))
    assert first["Message-ID"] == second["Message-ID"] != third["Message-ID"]
    assert first["Subject"] == second["Subject"]
    assert [attempts for _, attempts, _ in outbox(ledger)] == [2, 1]


@pytest.mark.parametrize("killed_at", [1, 2])
def test_a_process_killed_at_either_part_of_a_mail_leaves_nobody_without_it(
    several: Ledger, context: ForkServerContext, children: list[Any], killed_at: int
) -> None:
    killed = threading.Event()

    def wait_for_the_kill(server: SMTP) -> None:
        if len(inbox.received) == killed_at:
            assert killed.wait(PATIENCE)

    inbox = Inbox(
        before_answer=wait_for_the_kill,
        first_answers={"busy@example.com": ["450 greylisted"]},
        refused_recipients=GONE,
    )
    with serving(inbox) as port:
        settings = replace(MAIL, port=port)
        for _ in range(1, killed_at):
            deliver(several, settings)
        inbox.arrived.clear()
        children.append(context.Process(target=deliver_in_a_child, args=(several.path, settings)))
        children[-1].start()
        assert inbox.arrived.wait(PATIENCE)
        children[-1].kill()
        children[-1].join()
        killed.set()
        assert deliver(several, settings).sent == 1
    copies = Counter(address for envelope in inbox.envelopes for address in envelope.rcpt_tos)
    assert copies == {"me@example.com": 3 - killed_at, "busy@example.com": killed_at}
    assert len({message["Message-ID"] for message in inbox.received}) == 1


def test_processes_that_deliver_at_once_send_each_mail_once(
    ledger: Ledger, context: ForkServerContext, children: list[Any]
) -> None:
    post(ledger, *(hour_mail(hour, "A-1") for hour in range(2, 12)))
    inbox, barrier, pipes = Inbox(), context.Barrier(4), []
    with serving(inbox) as port:
        for _ in range(4):
            receiver, sender = context.Pipe(duplex=False)
            arguments = (ledger.path, replace(MAIL, port=port), barrier, sender)
            children.append(context.Process(target=race_to_deliver, args=arguments))
            children[-1].start()
            pipes.append(receiver)
        assert all(pipe.poll(PATIENCE) for pipe in pipes)
        reports = [pipe.recv() for pipe in pipes]
    assert sorted(report.sent for report in reports) == [0, 0, 0, 11]
    assert len(inbox.received) == len({message["Message-ID"] for message in inbox.received}) == 11


def test_a_process_that_waited_in_vain_for_another_one_sends_nothing_and_says_so(ledger: Ledger) -> None:
    class Busy(Ledger):
        @contextmanager
        def sole(self, name: str) -> Iterator[bool]:
            yield name != "delivery"

    inbox = Inbox()
    with serving(inbox) as port:
        report = deliver(Busy(file_of(ledger)), replace(MAIL, port=port))
    assert report == DeliveryReport(0, 1, ("another process is sending the mails of this ledger",))
    assert inbox.received == []


# Secrets ---------------------------------------------------------------------------------------------------------


def test_a_refused_login_leaves_the_password_nowhere(
    ledger: Ledger,
    server_tls: ssl.SSLContext,
    trust: ssl.SSLContext,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    inbox = Inbox()
    with serving(inbox, tls_context=server_tls, authenticator=inbox.authenticate) as port:
        settings = replace(MAIL, port=port, security="starttls", user=USER, password="hunter2-wrong")
        report = deliver(ledger, settings, trust)
    assert (report.sent, report.pending) == (0, 1)
    assert report.errors == ("the mail server refused the login (535); check BREAKOUT_MAIL_USER and its password",)
    # The server of this test logs what it hears; it is not part of the platform.
    own_records = [repr(vars(record)) for record in caplog.records if not record.name.startswith("mail.")]
    for text in (repr(settings), str(report), repr(bytes_of(ledger)), *capfd.readouterr(), *own_records):
        assert "hunter2" not in text


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (smtplib.SMTPConnectError(421, b"hunter2"), "answered 421 (SMTPConnectError)"),
        (smtplib.SMTPDataError(554, b"no: hunter2"), "answered 554 (SMTPDataError)"),
        (smtplib.SMTPAuthenticationError(535, b"hunter2"), "check BREAKOUT_MAIL_USER and its password"),
        (smtplib.SMTPRecipientsRefused({"a": (550, b"hunter2")}), "check BREAKOUT_MAIL_TO"),
        (smtplib.SMTPRecipientsRefused({"a": (450, b"hunter2")}), "for no recipient now (450)"),
        (smtplib.SMTPException("hunter2"), "sending failed (SMTPException)"),
        (OSError("hunter2"), "sending failed (OSError)"),
    ],
)
def test_failures_are_told_by_their_kind_and_code_alone(failure: Exception, words: str) -> None:
    assert in_words(failure).endswith(words)
    assert "hunter2" not in in_words(failure)
