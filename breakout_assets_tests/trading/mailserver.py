"""Real SMTP servers on loopback, well-behaved and otherwise."""

import asyncio
import shlex
import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from breakout_assets.trading.mails import MailSettings

MAIL = MailSettings(
    host="127.0.0.1", port=25, security="none", sender="bot@example.com", recipients=("me@example.com",)
)
USER, PASSWORD = "robot", "correct horse battery staple"


@dataclass
class Inbox:
    """Handler of a server: keeps what it was given, and misbehaves as told."""

    refused_recipients: frozenset[str] = frozenset()
    first_answers: dict[str, list[str]] = field(default_factory=dict)
    """By recipient, what the server answers at first, one after another."""
    refused_words: frozenset[bytes] = frozenset()
    """Mails that hold one of these are refused."""
    before_answer: Callable[[SMTP], None] = lambda server: None
    at_goodbye: Callable[[SMTP], None] = lambda server: None
    asked_for: list[str] = field(default_factory=list)
    """Recipients, as often as a mail was to go to them."""
    received: list[EmailMessage] = field(default_factory=list)
    envelopes: list[Envelope] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)
    logins: list[bytes] = field(default_factory=list)
    arrived: threading.Event = field(default_factory=threading.Event)

    async def handle_RCPT(  # noqa: N802  aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        self.asked_for.append(address)
        if self.first_answers.get(address):
            return self.first_answers[address].pop(0)
        if address in self.refused_recipients:
            return "550 unknown here"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        content = envelope.content
        assert isinstance(content, bytes)
        if any(word in content for word in self.refused_words):
            return "554 your password is correct horse battery staple"
        message = message_from_bytes(content, policy=policy.default)
        assert isinstance(message, EmailMessage)
        self.received.append(message)
        self.envelopes.append(envelope)
        self.encrypted.append(session.ssl is not None)
        self.arrived.set()
        self.before_answer(server)
        return "250 accepted"

    async def handle_QUIT(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        self.at_goodbye(server)
        return "221 Bye"

    def authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: LoginPassword
    ) -> AuthResult:
        self.logins.append(data.login)
        return AuthResult(success=(data.login, data.password) == (USER.encode(), PASSWORD.encode()), handled=False)


@contextmanager
def serving(inbox: Inbox, implicit_tls: ssl.SSLContext | None = None, **options: Any) -> Iterator[int]:
    """Run a server for a handler; yields its port. `options` are those of aiosmtpd's `SMTP`."""
    loop = asyncio.new_event_loop()
    listening = loop.run_until_complete(
        loop.create_server(lambda: SMTP(inbox, loop=loop, **options), "127.0.0.1", 0, ssl=implicit_tls)
    )
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        loop.call_soon_threadsafe(listening.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        for task in asyncio.all_tasks(loop):
            task.cancel()
            loop.run_until_complete(asyncio.wait([task]))
        loop.close()


def drop(server: SMTP) -> None:
    """Cut the connection without a word."""
    assert server.transport is not None
    server.transport.abort()  # type: ignore[attr-defined]  # every transport of a socket has it


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that is its own authority, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed; it is optional, and only makes certificates for these tests")
    subprocess.run(
        shlex.split(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost "
            "-addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out certificate.pem"
        ),
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return folder / "certificate.pem", folder / "key.pem"
