"""The demonstration as a stranger runs it, with fewer tokens."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from breakout_assets_tests.defs.processes import REPOSITORY, environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def demo(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    clean = environment(folder, **variables)
    del clean["DAGSTER_HOME"]  # as it is for a stranger: the instance is that of the folder's dagster.yaml
    command = [sys.executable, "-m", "breakout_assets", "demo"]
    return subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True, check=False)


@pytest.mark.long
def test_the_demo_ends_with_a_summary_and_the_next_command(tmp_path: Path) -> None:
    shutil.copy(REPOSITORY / "dagster.yaml", tmp_path)
    found = demo(tmp_path, SIM_TOKENS="4")
    assert found.returncode == 0, found.stderr
    for text in ("No price in it is real", "one over all", "AUC of the oracle", "Paper orders of 48 hours", "equity"):
        assert text in found.stdout
    assert "make ui" in found.stdout
    assert "Traceback" not in found.stdout + found.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"dagster.yaml", ".dagster", "data"}


def test_the_demo_invents_nothing_into_a_real_store(tmp_path: Path) -> None:
    shutil.copy(REPOSITORY / "dagster.yaml", tmp_path)
    refused = demo(tmp_path, SOURCE="files")
    assert refused.returncode == 1
    assert "BREAKOUT_SOURCE must be simulated" in refused.stderr
    assert not (tmp_path / "data").exists()
