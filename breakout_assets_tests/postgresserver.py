"""A real PostgreSQL on loopback, started by the tests, with a password and a new database for each test."""

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest

from breakout_assets_tests.s3server import free_ports

USER: Final = "tester"
_MEMORY: Final = Path("/dev/shm")  # noqa: S108  a database a test: none of it must wait for a disk
# It refuses to be started by root, who may become somebody else first.
_UNPRIVILEGED: Final = ("postgres", "nobody")
# A server for tests need not survive a power cut.
_SETTINGS: Final = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "max_connections": "40",
    "shared_buffers": "16MB",
}
_START_SECONDS: Final = 60


@dataclass(frozen=True)
class PostgresServer:
    """A running server. Its password is never part of a URL."""

    port: int
    password: str = field(repr=False)

    def url(self, database: str) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def connect(self, database: str = "postgres") -> "psycopg.Connection[Any]":
        return psycopg.connect(self.url(database), password=self.password, autocommit=True, connect_timeout=10)

    @contextmanager
    def database(self, copy_of: str = "template1") -> Iterator[str]:
        """The URL of a new database, empty or a copy of another one, which is dropped at the end."""
        name, template = f"t{secrets.token_hex(8)}", copy_of.rsplit("/", 1)[-1]
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield self.url(name)
        finally:
            with self.connect() as connection:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def binaries() -> Path:
    """The folder of `initdb` and `postgres`; installed where this may be done, else the test is skipped."""
    found = _binaries()
    if found is None and shutil.which("apt-get"):
        for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "postgresql"]):
            subprocess.run(command, check=False, capture_output=True)
        found = _binaries()
    if found is None:
        pytest.skip("no PostgreSQL is installed, and apt-get may not install it here")
    return found


def _binaries() -> Path | None:
    on_path = shutil.which("initdb")
    folders = [Path(on_path).resolve().parent] if on_path else []
    # Debian keeps one folder a version, and none of them on the path.
    versions = [folder for folder in Path("/usr/lib/postgresql").glob("*/bin") if folder.parent.name.isdigit()]
    folders += sorted(versions, key=lambda folder: int(folder.parent.name), reverse=True)
    return next((each for each in folders if (each / "initdb").exists() and (each / "postgres").exists()), None)


def _identity() -> dict[str, Any]:
    """Arguments of `Popen` under which PostgreSQL may be started; empty for everybody but root."""
    if os.geteuid() != 0:
        return {}
    for name in _UNPRIVILEGED:
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    pytest.skip(f"PostgreSQL does not run as root, and there is no user {' or '.join(_UNPRIVILEGED)}")


@contextmanager
def postgres() -> Iterator[PostgresServer]:
    """A server whose data are deleted at the end."""
    programs, identity = binaries(), _identity()
    # The folders of pytest are closed to other users, so that a server of another user cannot live there.
    folder = Path(tempfile.mkdtemp(prefix="postgres-", dir=_MEMORY if _MEMORY.is_dir() else None))
    try:
        if identity:
            os.chown(folder, identity["user"], identity["group"])
        server = PostgresServer(free_ports(1)[0], secrets.token_urlsafe(16))
        _make_cluster(programs, folder, server.password, identity)
        with _running(programs, folder, server, identity):
            yield server
    finally:
        shutil.rmtree(folder)


def _make_cluster(programs: Path, folder: Path, password: str, identity: dict[str, Any]) -> None:
    secret = folder / "password"
    secret.touch(0o600)
    if identity:
        os.chown(secret, identity["user"], identity["group"])
    secret.write_text(password)
    command = [str(programs / "initdb"), "-D", str(folder / "data"), "-U", USER, f"--pwfile={secret}"]
    command += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]
    made = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=folder, env=_variables(), **identity
    )
    assert made.returncode == 0, f"initdb failed: {made.stderr[-2000:]}"
    secret.unlink()


@contextmanager
def _running(programs: Path, folder: Path, server: PostgresServer, identity: dict[str, Any]) -> Iterator[None]:
    settings = [f"--{name}={value}" for name, value in {**_SETTINGS, "port": str(server.port)}.items()]
    command = [str(programs / "postgres"), "-D", str(folder / "data"), *settings]
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, cwd=folder, env=_variables(), start_new_session=True, **identity
        )
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(server):
            said = log.read_text()[-2000:]
            assert process.poll() is None, f"PostgreSQL did not start: {said}"
            assert time.monotonic() < deadline, f"PostgreSQL does not answer: {said}"
            time.sleep(0.02)
        yield
    finally:
        process.send_signal(signal.SIGINT)  # its fast way to stop: connections are cut, nothing is left behind
        process.wait(_START_SECONDS)


def _answers(server: PostgresServer) -> bool:
    try:
        server.connect().close()
    except psycopg.OperationalError:
        return False
    return True


def _variables() -> dict[str, str]:
    # Nothing of the caller's: his PG variables would lead it elsewhere.
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
