"""A real S3 server (SeaweedFS) on loopback, and a wire to it that can be slow, cut, or answer in its place."""

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

ACCESS_KEY = "test-access-key"
SECRET_KEY = "test-secret-key"
BUCKET = "bucket"


ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, also not on the port 10,000 above, where SeaweedFS opens its second one."""
    found: list[int] = []
    while len(found) < count:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port < 55_000 and port not in found:
            found.append(port)
    return found


@contextmanager
def seaweed(folder: Path) -> Iterator[str]:
    """The address of a SeaweedFS server whose data lie in a folder; it checks credentials and has one bucket."""
    folder.mkdir(parents=True, exist_ok=True)
    access = {"credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}], "name": "test", "actions": ["Admin"]}
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [access]}))
    s3, master, volume, filer, webdav, admin = free_ports(6)
    command = [
        str(Path(sys.executable).parent / "weed"),
        "mini",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-s3.port={s3}",
        f"-s3.config={config}",
        f"-master.port={master}",
        f"-volume.port={volume}",
        f"-filer.port={filer}",
        f"-webdav.port={webdav}",
        f"-admin.port={admin}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-admin.ui=false",
    ]
    log = folder / "weed.log"
    with log.open("wb") as output:
        server = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
    url = f"http://127.0.0.1:{s3}"
    try:
        client = s3_client(url)
        wait_for(lambda: server.poll() is not None or _makes_a_bucket(client), log)
        assert server.poll() is None, f"the S3 server did not start: {log.read_text()[-2000:]}"
        yield url
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def s3_client(url: str) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        region_name="us-east-1",
        config=Config(retries={"max_attempts": 0}, connect_timeout=2, read_timeout=5),
    )


def _makes_a_bucket(client: Any) -> bool:
    try:
        client.create_bucket(Bucket=BUCKET)
        client.put_object(Bucket=BUCKET, Key="ready", Body=b"")  # volumes come up after the door
        client.delete_object(Bucket=BUCKET, Key="ready")
    except Exception:  # every kind of not yet
        return False
    return True


def wait_for(ready: Callable[[], bool], log: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise AssertionError(f"the S3 server did not start: {log.read_text()[-2000:]}")
        time.sleep(0.1)


@dataclass
class Fault:
    """What the wire does to one request in the server's place."""

    status: int = 0
    code: str = ""
    """S3's own word for the error, in the body."""
    cut_after: int | None = None
    """Bytes of the body of the server's answer after which the connection is reset; -1: before its first header."""


@dataclass
class Wire:
    """A proxy in front of a server; `choose` sees method and path of each request and may return a fault."""

    url: str = ""
    delay: float = 0.0
    """Seconds before each answer: one round trip."""
    choose: Callable[[str, str], Fault | None] = lambda method, path: None
    requests: list[tuple[str, str]] = field(default_factory=list)
    most_at_once: int = 0
    _open: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def entered(self, method: str, path: str) -> None:
        with self._lock:
            self.requests.append((method, path))
            self._open += 1
            self.most_at_once = max(self.most_at_once, self._open)

    def left(self) -> None:
        with self._lock:
            self._open -= 1


class _WireHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wire: ClassVar[Wire]
    host: ClassVar[str]

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.wire.entered(self.command, self.path)
        try:
            time.sleep(self.wire.delay)
            self._answer(body, self.wire.choose(self.command, self.path))
        except OSError:
            self.close_connection = True
        finally:
            self.wire.left()

    def _answer(self, body: bytes, fault: Fault | None) -> None:
        if fault and fault.status:
            text = f"<Error><Code>{fault.code}</Code><Message>injected</Message></Error>".encode()
            self._send(fault.status, [("Content-Type", "application/xml")], text, None)
            return
        connection = HTTPConnection(self.host, timeout=30)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in ("expect", "connection")}
        connection.request(self.command, self.path, body, headers)  # the Host that was signed travels along
        answer = connection.getresponse()
        content = answer.read()
        kept = [(k, v) for k, v in answer.getheaders() if k.lower() not in ("transfer-encoding", "connection")]
        connection.close()
        self._send(answer.status, kept, content, fault.cut_after if fault else None)

    def _send(self, status: int, headers: list[tuple[str, str]], content: bytes, cut: int | None) -> None:
        if cut is not None and cut < 0:
            self._reset()
            return
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if not any(name.lower() == "content-length" for name, _ in headers):
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(content if cut is None else content[:cut])
        if cut is not None:
            self.wfile.flush()
            self._reset()

    def _reset(self) -> None:
        # Zero linger: the peer sees a reset, as from a broken line.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _any  # noqa: N815  names that the base class looks for

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  the base class's name
        pass


class _WireServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # cut connections are the point


@contextmanager
def wire_to(target: str) -> Iterator[Wire]:
    """A wire to the server at `target`."""
    wire = Wire()
    handler = type("Handler", (_WireHandler,), {"wire": wire, "host": urlsplit(target).netloc})
    server = _WireServer(("127.0.0.1", 0), handler)
    wire.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield wire
    finally:
        server.shutdown()
        server.server_close()
