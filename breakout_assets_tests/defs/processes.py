"""Dagster's own processes, started by a test and ended with it."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import requests

REPOSITORY = Path(__file__).resolve().parents[2]


def home(folder: Path) -> Path:
    """A DAGSTER_HOME with this project's own instance configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    text = (REPOSITORY / "dagster.yaml").read_text().replace(".dagster", str(folder / "instance"))
    (folder / "dagster.yaml").write_text(text)
    (folder / ".nux").mkdir(exist_ok=True)
    (folder / ".nux" / "nux.yaml").write_text("")  # else a window about the community covers each page
    return folder


def instance_of(folder: Path) -> dg.DagsterInstance:
    """The instance of a home, made whole by this one process before others use it."""
    return dg.DagsterInstance.from_config(str(home(folder)))


def wait_until(condition: Callable[[], bool], what: str, seconds: float) -> None:
    """Wait for a condition; fail with its name if it does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:.0f} s in vain for {what}")
        time.sleep(0.5)


def environment(folder: Path, **variables: str) -> dict[str, str]:
    """The environment of a process of this world."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("BREAKOUT_", "DAGSTER_"))}
    given = {f"BREAKOUT_{name}": value for name, value in variables.items()}
    return clean | given | {"DAGSTER_HOME": str(folder), "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}


@contextmanager
def started(
    command: list[str], variables: Mapping[str, str], folder: Path, log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own; the whole group is killed when the block is left."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, env=dict(variables), cwd=folder, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield process
    finally:
        kill_group(process)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL, without warning, to the process and all that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def tool(name: str) -> str:
    """A command of this virtual environment."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    assert found, f"{name} is not installed"
    return found


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def webserver(folder: Path, variables: Mapping[str, str], log: Path) -> Iterator[str]:
    """The Dagster UI of this project; gives its address."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [tool("dagster-webserver"), "-h", "127.0.0.1", "-p", str(port), "-m", "breakout_assets.definitions"]

    def answers() -> bool:
        try:
            return requests.get(f"{url}/server_info", timeout=5).ok
        except requests.ConnectionError:
            return False

    with started(command, variables, folder, log):
        wait_until(answers, "the webserver", 120)
        yield url
