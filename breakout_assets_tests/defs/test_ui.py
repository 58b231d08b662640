"""The UI in a real browser: what a person sees of the graph, of a partition, of a model and its chart."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

from breakout_assets.defs.partitions import TOKENS_NAME
from breakout_assets_tests.defs.conftest import AS_OF
from breakout_assets_tests.defs.processes import REPOSITORY, environment, home, instance_of, webserver
from breakout_assets_tests.defs.support import DATASET, HOURLY, World, day_keys, hour_keys
from breakout_assets_tests.defs.test_definitions import GRAPH
from breakout_assets_tests.samples import at

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ARTEFACTS = REPOSITORY / "artefacts"
HOURS = (at("2024-04-16 01:00"), at("2024-04-16 08:00"))


def chromium() -> str:
    """Debian's chromium; installed where this may be done, else the test is skipped."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None and shutil.which("apt-get"):
        for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "chromium"]):
            subprocess.run(command, check=False, capture_output=True)
        found = shutil.which("chromium")
    if found is None:
        pytest.skip("no chromium is installed, and apt-get may not install it here")
    return found


@pytest.fixture(scope="module")
def ui(learned_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A webserver over a world in which everything has been materialised with events."""
    folder = tmp_path_factory.mktemp("ui")
    shutil.copytree(learned_folder / "store", folder / "store")
    with instance_of(folder / "home") as instance:
        world = World.at(folder, instance)
        world.days("daily_snapshots", at("2024-04-05").date(), at("2024-04-17").date())
        world.run(DATASET, day_keys(at("2024-04-05").date(), at("2024-04-10").date()))
        config = {"ops": {"token_model": {"config": {"as_of": AS_OF}}}}
        world.run(["token_model"], instance.get_dynamic_partitions(TOKENS_NAME), config)
        world.run(HOURLY, hour_keys(*HOURS))
        world.run(["portfolio"], [])
    variables = environment(home(folder / "home"), STORE=str(folder / "store"), SIM_TOKENS="5", SIM_SEED="7")
    with webserver(folder / "home", variables, folder / "webserver.log") as url:
        yield url


@contextmanager
def browsing(url: str) -> Iterator[Page]:
    """A page of a headless browser at a webserver."""
    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=flags)
        page = browser.new_page(viewport={"width": 1600, "height": 1100}, base_url=url)
        page.set_default_timeout(60_000)
        yield page
        browser.close()


@pytest.fixture(scope="module")
def page(ui: str) -> Iterator[Page]:
    with browsing(ui) as page:
        yield page


def show(page: Page, path: str, wait_for: str, name: str) -> None:
    """Open a page, wait for a text on it and keep a picture."""
    page.goto(path, wait_until="domcontentloaded")
    page.wait_for_selector(wait_for)
    page.wait_for_timeout(1500)  # pictures fade in
    ARTEFACTS.mkdir(exist_ok=True)
    page.screenshot(path=str(ARTEFACTS / f"{name}.png"))


def test_the_graph_shows_the_groups_and_says_that_the_market_is_simulated(page: Page) -> None:
    names = sorted({group for group, _, _ in GRAPH.values()})
    groups = "%2C".join(f"global%40global%3A{name}" for name in names)
    show(page, f"/asset-groups?expanded={groups}", "text=hourly_snapshots", "graph")
    for name in GRAPH:
        assert page.locator(f"text={name}").count(), name
    for name in names:
        assert page.locator(f"text={name}").count()
    show(page, "/assets/daily_snapshots", "text=SIMULATED MARKET", "asset")


def test_a_partition_of_predictions_shows_the_top_ten(page: Page) -> None:
    key = "2024-04-16-05%3A00"
    show(page, f"/assets/predictions?view=partitions&partition={key}", "text=top_ten", "predictions")
    assert page.locator("text=SIM00").count() >= 5
    assert page.locator("text=probability").count()


def test_a_partition_of_orders_shows_orders_and_portfolio(page: Page) -> None:
    show(page, "/assets/trade_orders?view=partitions&partition=2024-04-16-08%3A00", "text=equity_usd", "orders")
    assert page.locator("text=cash_usd").count()


def test_the_portfolio_shows_figures_positions_and_pictures(page: Page) -> None:
    show(page, "/assets/portfolio", "text=unrealised_profit_usd", "portfolio")
    assert page.locator("text=planned exit").count()
    page.locator("text=[Show Markdown]").first.click()
    picture = page.locator("img[src^='data:image/png']")
    picture.first.wait_for()
    page.wait_for_timeout(1000)
    assert picture.first.evaluate("image => image.naturalWidth") >= 600, "the picture is not shown"
    page.screenshot(path=str(ARTEFACTS / "portfolio_picture.png"))
    page.keyboard.press("Escape")


def test_a_model_shows_its_metrics_and_its_chart(page: Page) -> None:
    show(page, "/assets/token_model?view=partitions&partition=ALL", "text=trained_until", "model")
    for name in ("accuracy", "precision", "recall", "f1", "auc"):
        assert page.locator(f"text={name}").count()
    assert page.locator("text=impurity reduction").count()
    page.locator("text=[Show Markdown]").first.click()  # the UI keeps pictures behind a click
    chart = page.locator('img[alt="feature importances"]')
    chart.wait_for()
    page.wait_for_timeout(1000)
    assert chart.first.evaluate("image => image.naturalWidth") >= 600, "the chart is not shown"
    page.screenshot(path=str(ARTEFACTS / "model_chart.png"))


def test_checks_are_on_the_asset(page: Page) -> None:
    show(page, "/assets/predictions?view=checks", "text=probabilities", "checks")
