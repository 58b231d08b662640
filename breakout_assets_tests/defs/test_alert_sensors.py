"""Sensors that mail: failed runs, expired models, and what is left over in the outbox."""

import logging
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from breakout_assets.defs import sensors
from breakout_assets.defs.partitions import hour_key
from breakout_assets.defs.resources import build_resources
from breakout_assets.errors import SettingsError
from breakout_assets.settings import load_settings
from breakout_assets.tables import PREDICTIONS, conform
from breakout_assets.trading.ledger import Ledger
from breakout_assets.trading.mails import Mail
from breakout_assets_tests.defs.processes import environment, home, instance_of, started, tool, wait_until
from breakout_assets_tests.defs.support import World
from breakout_assets_tests.trading.mailserver import PASSWORD as MAIL_PASSWORD
from breakout_assets_tests.trading.mailserver import USER, Inbox, drop, make_certificate, serving

UI = "https://dagster.example.com"
PASSWORD, API_KEY = "hunter2-mail", "hunter2-market"
NOBODY: Mapping[str, str] = {}
DAY = "2024-03-02"


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    (tmp_path / "instance").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "instance")) as found:
        yield found


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BREAKOUT_MAIL_PASSWORD", PASSWORD)
    monkeypatch.setenv("BREAKOUT_CMC_API_KEY", API_KEY)


@contextmanager
def mailing(tmp_path: Path, instance: dg.DagsterInstance, inbox: Inbox) -> Iterator[World]:
    """A world with a mail account at a real server."""
    with serving(inbox) as port:
        yield world_at(tmp_path, instance, {"MAIL_PORT": str(port)})


def world_at(tmp_path: Path, instance: dg.DagsterInstance, mail: Mapping[str, str]) -> World:
    account = {"MAIL_HOST": "127.0.0.1", "MAIL_SECURITY": "none", "MAIL_FROM": "bot@example.com"}
    variables = {**account, "MAIL_TO": "me@example.com", "UI_URL": UI, **mail} if mail else {}
    return World.at(tmp_path, instance, SOURCE="files", REPLAY="false", **variables)


def tick(world: World, sensor: dg.SensorDefinition, cursor: str | None = None) -> Any:
    # Without a repository in the context, runs of this process count as runs of the sensor's own code location.
    with dg.build_sensor_context(
        instance=world.instance, cursor=cursor, resources=build_resources(world.settings)
    ) as context:
        return sensor.evaluate_tick(context)


def failed_run(world: World) -> str:
    """A run that fails because there is nothing to compact; its id."""
    result = world.run(["daily_snapshots"], [DAY], must_succeed=False)
    assert not result.success
    return result.run_id


def failures_since(world: World, cursor: str | None) -> str | None:
    """Tick until every failed run has been told of."""
    while True:
        found = tick(world, sensors.run_failures, cursor)
        assert not [reaction.error for reaction in found.dagster_run_reactions or [] if reaction.error]
        if found.cursor == cursor:
            return cursor
        cursor = found.cursor


def body(message: EmailMessage, kind: str = "plain") -> str:
    found = message.get_body((kind,))
    assert found is not None
    return str(found.get_content())


def ledger_of(world: World) -> Ledger:
    ledger: Ledger = build_resources(world.settings)["account"].open_ledger()
    return ledger


def waiting(world: World) -> list[Mail]:
    return ledger_of(world).pending_mails()


def assert_no_secret(world: World, inbox: Inbox, *texts: str) -> None:
    """Neither in logs, mails and the ledger's bytes nor in these texts."""
    files = [file for file in world.ledger_file.parent.glob("*ledger*") if file.is_file()]
    written = b"".join(file.read_bytes() for file in files)
    for text in (*texts, *map(str, inbox.received), *(body(mail) + body(mail, "html") for mail in inbox.received)):
        assert "hunter2" not in text
    assert b"hunter2" not in written


# Failed runs -----------------------------------------------------------------------------------------------------


def test_each_failed_run_is_one_mail_with_its_steps_and_its_page(
    tmp_path: Path, instance: dg.DagsterInstance, capfd: pytest.CaptureFixture[str]
) -> None:
    inbox = Inbox()
    with mailing(tmp_path, instance, inbox) as world:
        failed_run(world)
        cursor = failures_since(world, None)
        assert inbox.received == [], "what failed before the sensor was switched on is not told"
        runs = [failed_run(world), failed_run(world)]
        last = failures_since(world, cursor)
        assert failures_since(world, last) == last
        assert failures_since(world, cursor) == last, "a lost tick tells nothing twice"
    assert "is not mailed" not in capfd.readouterr().err
    assert len(inbox.received) == 2
    for run_id, message in zip(runs, inbox.received, strict=True):
        assert message["Subject"] == f"paper: daily_snapshots of {DAY} failed"
        assert f"{UI}/runs/{run_id}" in body(message).splitlines()
        [step] = [line for line in body(message).splitlines() if line.startswith("daily_snapshots: ")]
        assert "1 of 1 partitions could not be made" in step
    assert len({message["Message-ID"] for message in inbox.received}) == 2
    ended = instance.get_run_record_by_id(runs[0])
    assert ended is not None
    assert ended.end_time is not None
    date = datetime.fromtimestamp(ended.end_time, UTC)
    assert inbox.received[0]["Date"] == f"{date:%a, %d %b %Y %H:%M:%S} +0000"


@dg.op
def blurt() -> None:
    raise RuntimeError(f"GET https://me:{API_KEY}@api.example.com/?key={API_KEY} " + "x" * 5000 + PASSWORD)


@dg.job
def blurting_job() -> None:
    blurt()


def test_a_run_whose_error_holds_secrets_is_told_without_them(
    tmp_path: Path, instance: dg.DagsterInstance, caplog: pytest.LogCaptureFixture
) -> None:
    inbox = Inbox()
    with mailing(tmp_path, instance, inbox) as world:
        cursor = failures_since(world, None)
        assert not blurting_job.execute_in_process(instance=instance, raise_on_error=False).success
        caplog.clear()
        caplog.set_level(logging.DEBUG)
        failures_since(world, cursor)
        [message] = inbox.received
        assert message["Subject"] == "paper: blurting_job failed"
        [step] = [line for line in body(message).splitlines() if line.startswith("blurt: ")]
        assert step.startswith("blurt: RuntimeError: GET https://***@api.example.com/?key=*** xxx")
        assert_no_secret(world, inbox, *(repr(vars(record)) for record in caplog.records))


def test_a_run_that_failed_without_a_step_is_told_too(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    inbox = Inbox()
    with mailing(tmp_path, instance, inbox) as world:
        cursor = failures_since(world, None)
        run = instance.create_run_for_job(blurting_job)
        instance.report_run_failed(run, "The machine went away.")
        failures_since(world, cursor)
    [message] = inbox.received
    assert "The machine went away." in body(message)


@pytest.mark.parametrize("trouble", ["server down", "ledger unusable", "no mail account"])
def test_no_trouble_with_mail_fails_the_sensor(
    tmp_path: Path, instance: dg.DagsterInstance, trouble: str, capfd: pytest.CaptureFixture[str]
) -> None:
    world = world_at(tmp_path, instance, NOBODY if trouble == "no mail account" else {"MAIL_PORT": "9"})
    cursor = failures_since(world, None)
    run_id = failed_run(world)
    if trouble == "ledger unusable":
        world.ledger_file.mkdir(parents=True)
    assert failures_since(world, cursor) != cursor
    if trouble == "server down":
        assert [mail.subject for mail in waiting(world)] == [f"paper: daily_snapshots of {DAY} failed"]
    if trouble == "ledger unusable":
        assert f"the failed run {run_id} is not mailed: DataError: the ledger" in capfd.readouterr().err
    if trouble == "no mail account":
        assert not world.ledger_file.exists()


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_real_daemon_tells_of_a_run_that_it_launched_and_that_failed(tmp_path: Path) -> None:
    module = ["-m", "breakout_assets.definitions"]
    folder, inbox = home(tmp_path / "home"), Inbox()

    def dagster(*arguments: str) -> None:
        command = [tool("dagster"), *arguments, *module]
        subprocess.run(command, env=variables, cwd=tmp_path, check=True, capture_output=True)

    def ticked() -> bool:
        return any("run_failures" in str(state.name) and state_ticks(state) for state in found.all_instigator_state())

    def state_ticks(state: Any) -> bool:
        return bool(found.get_ticks(state.instigator_origin_id, state.selector_id, limit=1))

    with instance_of(folder) as found, serving(inbox) as port:
        mail = {"MAIL_HOST": "127.0.0.1", "MAIL_PORT": str(port), "MAIL_SECURITY": "none", "UI_URL": UI}
        people = {"MAIL_FROM": "bot@example.com", "MAIL_TO": "me@example.com"}
        variables = environment(folder, STORE=str(tmp_path / "store"), SOURCE="files", **mail, **people)
        log = tmp_path / "daemon.log"
        dagster("sensor", "start", "run_failures")
        with started([tool("dagster-daemon"), "run", *module], variables, tmp_path, log):
            wait_until(ticked, f"the first tick, see {log}", 240)
            dagster("job", "launch", "-j", "daily_snapshots_job", "--tags", f'{{"dagster/partition": "{DAY}"}}')
            wait_until(inbox.arrived.is_set, f"the mail, see {log}", 240)
    [message] = inbox.received
    assert message["Subject"] == f"paper: daily_snapshots_job of {DAY} failed"
    assert "daily_snapshots: " in body(message)


# The outbox ------------------------------------------------------------------------------------------------------


def left_over(world: World) -> None:
    """Leave a mail in the outbox because its server cannot be reached."""
    cursor = failures_since(world, None)
    failed_run(world)
    failures_since(world, cursor)
    assert len(waiting(world)) == 1


def test_what_is_left_over_is_delivered_by_the_sensor_once(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    left_over(world_at(tmp_path, instance, {"MAIL_PORT": "9"}))
    inbox = Inbox()
    with mailing(tmp_path, instance, inbox) as world:
        said = [tick(world, sensors.mail_delivery).skip_message for _ in range(2)]
    assert said == [f"mails sent: {number}, left in the outbox: 0" for number in (1, 0)]
    assert len(inbox.received) == 1


def test_a_server_that_drops_or_refuses_the_login_is_told_in_the_tick_without_a_secret(
    tmp_path: Path,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    certificate, key = make_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    left_over(world_at(tmp_path, instance, {"MAIL_PORT": "9"}))
    inbox = Inbox(before_answer=drop)
    with serving(inbox, tls_context=tls, authenticator=inbox.authenticate) as port:
        login = {"MAIL_PORT": str(port), "MAIL_SECURITY": "starttls", "MAIL_USER": USER}
        world = world_at(tmp_path, instance, login)
        refused = tick(world, sensors.mail_delivery).skip_message
        assert refused.endswith("refused the login (535); check BREAKOUT_MAIL_USER and its password")
        assert set(inbox.logins) == {USER.encode()}
        assert (inbox.received, len(waiting(world))) == ([], 1)
        monkeypatch.setenv("BREAKOUT_MAIL_PASSWORD", MAIL_PASSWORD)
        dropped = tick(world, sensors.mail_delivery).skip_message
        assert dropped.endswith("closed the connection; a wrong password can be the cause")
        inbox.before_answer = lambda server: None
        assert tick(world, sensors.mail_delivery).skip_message == "mails sent: 1, left in the outbox: 0"
        # The server of this test logs what it hears; it is not part of the platform.
        own = [repr(vars(record)) for record in caplog.records if not record.name.startswith("mail.")]
        assert own
        texts = (dropped, refused, *capfd.readouterr(), *own)
        assert_no_secret(world, inbox, *texts)
        assert not [text for text in texts if MAIL_PASSWORD in text]
    assert len({message["Message-ID"] for message in inbox.received}) == 1


def test_without_a_mail_account_nothing_is_touched(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    world = world_at(tmp_path, instance, NOBODY)
    assert "no mail account" in tick(world, sensors.mail_delivery).skip_message
    assert not world.ledger_file.exists()


def test_an_outbox_that_cannot_be_used_is_no_failed_tick(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    world = world_at(tmp_path, instance, {"MAIL_PORT": "9"})
    world.ledger_file.mkdir(parents=True)
    assert "cannot be used now" in tick(world, sensors.mail_delivery).skip_message


# Models ----------------------------------------------------------------------------------------------------------


def predict(world: World, hour: datetime, *reasons: str | None) -> None:
    frame = pd.DataFrame({"reason": reasons}).reindex(columns=list(PREDICTIONS))
    filled = {name: 1 for name, kind in PREDICTIONS.items() if kind.startswith("int")}
    frame = frame.assign(**filled, timestamp=hour, token="A-1", decision="none", fallback=None)
    world.store.write_table("predictions", hour, conform(frame, "predictions"))


def test_expired_models_are_mailed_when_it_begins_and_when_it_ends(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    # A quarter past, the hour itself is due; before, the one ahead of it.
    due = (datetime.now(UTC).replace(tzinfo=None) - timedelta(minutes=15)).replace(minute=0, second=0, microsecond=0)
    inbox = Inbox()
    with mailing(tmp_path, instance, inbox) as world:

        def look(cursor: str | None) -> str | None:
            found = tick(world, sensors.model_alerts, cursor)
            assert found.skip_message
            cursor_after: str | None = found.cursor
            return cursor_after

        assert look(None) is None, "an hour that has not been predicted says nothing"
        predict(world, due, None, None)
        assert look(None) is None, "models in time are no news"
        predict(world, due, "MODEL_EXPIRED", "MODEL_EXPIRED", None)
        cursor = look(None)
        assert cursor == look(cursor) == "MODEL_EXPIRED"
        predict(world, due, "QUARANTINED")
        assert look(cursor) == cursor, "an hour in which nothing could be judged changes nothing"
        predict(world, due, None)
        cursor = look(cursor)
        assert cursor == look(cursor) == "IN_TIME"
    text = f"{due:%Y-%m-%d %H:%M} UTC"
    assert [message["Subject"] for message in inbox.received] == [
        f"paper: models MODEL_EXPIRED at {text}",
        f"paper: models IN_TIME at {text}",
    ]
    key = hour_key(due).replace(":", "%3A")
    assert f"{UI}/assets/predictions?view=partitions&partition={key}" in body(inbox.received[0])


def test_a_change_of_the_data_leads_to_the_partition_that_is_missing(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    inbox = Inbox()
    with mailing(tmp_path, instance, inbox) as world:
        assert tick(world, sensors.data_alerts).cursor == "MISSING"
    assert f"{UI}/assets/hourly_snapshots?view=partitions&partition=" in body(inbox.received[0])


@pytest.mark.parametrize("url", ["dagster.example.com", "ftp://x", "https://me:pw@x", "https://x/?a=b", "https://x/#a"])
def test_an_address_of_the_ui_that_cannot_carry_a_link_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="BREAKOUT_UI_URL"):
        load_settings({"BREAKOUT_UI_URL": url})


def test_every_sensor_is_off_until_a_person_switches_it_on() -> None:
    assert {sensor.default_status for sensor in sensors.SENSORS} == {dg.DefaultSensorStatus.STOPPED}
    names = {sensor.name for sensor in sensors.SENSORS}
    assert names == {"snapshot_arrivals", "data_alerts", "model_alerts", "run_failures", "mail_delivery"}
