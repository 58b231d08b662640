"""The UI with two years of hours, as many runs and a thousand tokens behind it, in a real browser."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
from playwright.sync_api import Page

from breakout_assets.defs.partitions import POOLED, TOKENS_NAME, hour_key
from breakout_assets.defs.reporting import bars, picture
from breakout_assets.learning.evaluation import importance_chart
from breakout_assets_tests.defs.processes import environment, home, instance_of, webserver
from breakout_assets_tests.defs.support import World
from breakout_assets_tests.defs.test_automation import run_hour
from breakout_assets_tests.defs.test_ui import browsing, show
from breakout_assets_tests.defs.years import PastRun, hours_of, make_again

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(1800)]

NOW = datetime.now(UTC).replace(tzinfo=None, minute=0, second=0, microsecond=0)
DAYS = 730
FIRST = NOW.replace(hour=0) - timedelta(days=DAYS)
# Hours whose logs are still there.
WITH_LOGS = 120
TOKENS = [f"TOK{n:04d}-{n}" for n in range(1000)]
# A page of a busy machine; nothing here is held to a speed.
PATIENCE = 180_000  # ms


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An instance after two years of hourly operation."""
    folder = tmp_path_factory.mktemp("years")
    with instance_of(folder / "home") as instance:
        world = World.at(folder, instance)
        run_hour(world, dg.RunRequest(partition_key="2024-04-16-05:00"))
        [run_id] = instance.get_run_ids()
        hour = PastRun.of(instance, run_id)
        old = int((NOW - FIRST) / timedelta(hours=1)) - WITH_LOGS
        hour.repeat(hours_of(FIRST, old), with_logs=False)
        hour.repeat(hours_of(FIRST + timedelta(hours=old), WITH_LOGS + 1))
        days = {f"{FIRST + timedelta(days=n):%Y-%m-%d}": FIRST + timedelta(days=n + 1) for n in range(DAYS)}
        for asset in ("daily_snapshots", "labelled_dataset", "indicator_features"):
            _report(instance, asset, "2024-04-16", {"rows": 30_000})
            make_again(instance, asset, "2024-04-16", days)
        importances = pd.Series({f"indicator_{n}": 1.0 + n for n in range(30)})
        figures = {"auc": 0.61, "top": bars(importances), "chart": picture(importance_chart(importances), "chart")}
        _report(instance, "token_model", "A-1", figures)
        instance.add_dynamic_partitions(TOKENS_NAME, [POOLED, *TOKENS])
        make_again(instance, "token_model", "A-1", dict.fromkeys(TOKENS, NOW))
    return folder


def _report(instance: dg.DagsterInstance, asset: str, partition: str, metadata: dict[str, Any]) -> None:
    instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=partition, metadata=metadata))


@pytest.fixture(scope="module")
def page(folder: Path) -> Iterator[Page]:
    variables = environment(
        home(folder / "home"), STORE=str(folder / "store"), SIM_TOKENS="5", SIM_SEED="7", START=f"{FIRST:%Y-%m-%d}"
    )
    with webserver(folder / "home", variables, folder / "webserver.log") as url, browsing(url) as page:
        page.set_default_timeout(PATIENCE)
        yield page


def test_the_graph_and_the_catalogue_show_with_their_states(page: Page) -> None:
    groups = "%2C".join(
        f"global%40global%3A{name}" for name in ("dataset", "evaluation", "market", "models", "trading")
    )
    show(page, f"/asset-groups?expanded={groups}", "text=trade_orders", "years_graph")
    show(page, "/assets", r"text=/^17,5\d\d partitions$/", "years_catalogue")


@pytest.mark.parametrize("asset", ["hourly_snapshots", "predictions", "trade_orders"])
def test_hourly_assets_show_their_partitions_one_of_them_and_plots(page: Page, asset: str) -> None:
    show(page, f"/assets/{asset}?view=partitions", r"text=/^17,5\d\d Partitions Selected$/", f"years_{asset}")
    assert page.locator(r"text=/^Materialized \(17,?5\d\d\)$/").count() == 1
    key = hour_key(NOW - timedelta(days=400)).replace(":", "%3A")
    show(page, f"/assets/{asset}?view=partitions&partition={key}", "text=View all historical events", f"{asset}_hour")
    assert page.locator("text=/^(sha256|top_ten|equity_usd)$/").count()
    show(page, f"/assets/{asset}", "text=Plots", f"years_{asset}_overview")
    page.locator("text=Plots").first.click()
    page.locator("canvas").first.wait_for()


def test_a_thousand_models_show_and_one_of_them_its_chart(page: Page) -> None:
    show(page, "/assets/token_model?view=partitions", "text=1,001 Partitions Selected", "years_token_model")
    show(page, f"/assets/token_model?view=partitions&partition={TOKENS[500]}", "text=indicator_29", "years_model")
    page.locator("text=[Show Markdown]").first.click()
    chart = page.locator('img[alt="chart"]')
    chart.wait_for()
    page.wait_for_timeout(1000)
    assert chart.first.evaluate("image => image.naturalWidth") >= 600, "the chart is not shown"


def test_the_backfill_dialog_opens(page: Page) -> None:
    show(page, "/assets/hourly_snapshots?view=partitions", "text=Partitions Selected", "years_dialog")
    page.locator("text=/^Materialize/").first.click()
    page.locator("text=Launch runs to materialize hourly_snapshots").wait_for()


def test_runs_and_automation_show_and_so_does_a_run_whose_log_is_gone(page: Page, folder: Path) -> None:
    show(page, "/runs", "text=hourly_job", "years_runs")
    show(page, "/automation", "text=retention_schedule", "years_automation")
    with instance_of(folder / "home") as instance:
        tags = {"dagster/partition": hour_key(FIRST)}
        [old] = instance.get_run_ids(dg.RunsFilter(tags=tags))
        show(page, f"/runs/{old}", f"text={old[:8]}", "years_old_run")
        assert page.locator("text=Success").count()
        assert page.locator(f"text={hour_key(FIRST)}").count()
        # It alone has got a file again, an empty one, which the next pass deletes.
        with_file = instance.event_log_storage.get_all_run_ids()  # type: ignore[attr-defined]
    assert old in with_file
    assert len(with_file) == 1 + WITH_LOGS + 1 + 1
