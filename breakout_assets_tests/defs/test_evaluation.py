"""From stored days to evidence, and what predictions make of it, through the real graph."""

import json
from datetime import date, datetime, timedelta
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score

from breakout_assets.dataset.features import with_indicators
from breakout_assets.defs.partitions import POOLED, TOKENS_NAME, hour_key
from breakout_assets.learning.evaluation_files import evidence_at, newest_table, read_table
from breakout_assets.learning.promoting import promote_recipe
from breakout_assets.learning.recipes import RECIPES, recipe
from breakout_assets.learning.walk_forward import out_of_sample
from breakout_assets.market.simulated import SimulatedMarket
from breakout_assets_tests.defs.processes import environment, home, instance_of, webserver
from breakout_assets_tests.defs.support import World, checks, failure
from breakout_assets_tests.defs.test_ui import browsing, show
from breakout_assets_tests.learning.markets import FIRST, labelled_rows, market_rows

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

DAYS = 110
MARKET = SimulatedMarket(seed=4, tokens=6)
QUICK = {"twins": 2, "workers": 1}


def stored(world: World) -> World:
    """A world whose days are compacted and labelled, without having collected two thousand hours one by one."""
    market = market_rows(MARKET, DAYS)
    for day, rows in market.groupby(market["timestamp"].dt.date):
        assert isinstance(day, date)
        world.store.write_table("daily_snapshots", day, rows.sort_values(["token", "timestamp"]))
    labelled = labelled_rows(market)
    for day, rows in labelled.groupby(labelled["timestamp"].dt.date):
        assert isinstance(day, date)
        if day < FIRST.date() + timedelta(days=DAYS - 5):
            world.store.write_table("labelled_dataset", day, rows)
            world.store.write_table("indicator_features", day, rows)
    world.instance.add_dynamic_partitions(TOKENS_NAME, [POOLED, *sorted(set(labelled["token"]))])
    newest = market["timestamp"].max()
    live = with_indicators(market[market["timestamp"] == newest], market, newest, newest)
    world.store.write_table("live_indicators", newest.to_pydatetime(), live)
    return world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = stored(World.at(tmp_path_factory.mktemp("evaluated"), RECIPE="default", TRADE_WITHOUT_EVIDENCE="false"))
    assert all(checks(evaluate(world, "out_of_sample")).values())
    assert checks(evaluate(world, "model_report")) == {"edge_shown": False}
    return world


def evaluate(world: World, asset: str, **config: int) -> dg.ExecuteInProcessResult:
    return world.run([asset], [], {"ops": {asset: {"config": {**QUICK, **config}}}})


NEWEST: datetime = FIRST + timedelta(days=DAYS, hours=-1)


def test_every_figure_of_the_evidence_is_recomputed_from_the_stored_table(world: World) -> None:
    by = recipe("default")
    evidence = evidence_at(world.store, by)
    path = newest_table(world.store, by)
    assert evidence is not None
    assert path is not None
    table = read_table(path)
    real = table[table["twin"] == 0]
    y, p = real["y"].to_numpy(), real["probability"].to_numpy()
    figures = evidence.figures
    assert figures["auc"]["value"] == pytest.approx(roc_auc_score(y, p))
    assert figures["brier"] == pytest.approx(brier_score_loss(y, p))
    assert figures["base_rate"]["value"] == pytest.approx(y.mean())
    assert (figures["rows"], figures["tokens"], figures["positives"]) == (len(real), 6, int(y.sum()))
    flagged = real["probability"] >= real["threshold"]
    assert figures["own"]["flagged_share"] == pytest.approx(flagged.mean())
    hours = real["timestamp"].dt.hour % 6 == 0
    observed = roc_auc_score(y[hours], p[hours])
    twins = [roc_auc_score(part["y"], part["probability"]) for _, part in table[table["twin"] > 0].groupby("twin")]
    assert figures["placebo"]["observed"] == pytest.approx(observed)
    assert figures["placebo"]["twins"] == pytest.approx(twins)
    assert figures["placebo"]["p"] == pytest.approx((1 + sum(twin >= observed for twin in twins)) / (len(twins) + 1))
    assert evidence.evaluated_until == real["label_end"].max()
    assert not evidence.badge  # 110 days hold fewer than 15 independent test windows
    assert "TOO_FEW_WINDOWS" in evidence.reasons


def test_no_test_block_was_predicted_by_a_model_that_had_seen_its_prices(world: World) -> None:
    by = recipe("default")
    path = newest_table(world.store, by)
    assert path is not None
    table = read_table(path)
    # The same table from a store whose newest thirty days hold other prices: what was predicted before stays.
    changed = table["timestamp"].max() - pd.Timedelta(days=30)
    folds = table[table["twin"] == 0].groupby("fold")["timestamp"].agg(["min", "max"])
    untouched = folds[folds["max"] + pd.Timedelta(hours=121) <= changed]
    assert len(untouched) >= 1
    rows = world.store.read_table("indicator_features", world.store.days_of("indicator_features"))
    rng = np.random.default_rng(0)
    later = rows["label_end"] > changed
    flipped = rows["y"].mask(later, pd.Series(rng.integers(0, 2, len(rows)), index=rows.index, dtype="Int8"))
    again = out_of_sample(rows.assign(y=flipped), rows.iloc[:0], by, 0)
    key, kept = ["token", "timestamp", "raw", "probability", "threshold"], list(untouched.index)
    first = table[(table["twin"] == 0) & table["fold"].isin(kept)][key]
    pd.testing.assert_frame_equal(first.reset_index(drop=True), again[again["fold"].isin(kept)][key])


def test_the_report_and_the_model_card_lie_in_the_store(world: World) -> None:
    evidence = evidence_at(world.store, recipe("default"))
    assert evidence is not None
    folder = Path(evidence.folder.path)
    assert {path.name for path in folder.iterdir()} == {"report.html", "model_card.md", "evidence.json"}
    assert "not enough independent data" in (folder / "report.html").read_text().lower()
    assert json.loads((folder / "evidence.json").read_text())["recipe"] == "default"


def test_a_recipe_without_a_badge_shows_its_probabilities_and_buys_nothing(world: World) -> None:
    world.run(["token_model"], [POOLED], {"ops": {"token_model": {"config": {"as_of": NEWEST.isoformat()}}}})
    world.run(["predictions"], [hour_key(NEWEST)])
    rows = world.store.read_table("predictions", [NEWEST])
    assert rows["probability"].notna().any()
    assert set(rows.loc[rows["probability"].notna(), "reason"]) == {"NOT_PROVEN"}
    assert set(rows["decision"]) == {"none"}
    assert set(rows.loc[rows["probability"].notna(), "fallback"]) == {"POOLED_RECIPE"}


def test_a_recipe_that_was_not_evaluated_has_no_evidence(world: World, tmp_path: Path) -> None:
    other = World.at(
        tmp_path, world.instance, STORE=str(world.store.root), RECIPE="baseline_logit", TRADE_WITHOUT_EVIDENCE="false"
    )
    other.run(["token_model"], [POOLED], {"ops": {"token_model": {"config": {"as_of": NEWEST.isoformat()}}}})
    other.run(["predictions"], [hour_key(NEWEST)])
    rows = world.store.read_table("predictions", [NEWEST])
    assert set(rows.loc[rows["probability"].notna(), "reason"]) == {"NO_EVIDENCE"}


def test_promotion_is_refused_without_a_badge_and_names_what_is_missing(world: World) -> None:
    with pytest.raises(ValueError, match="TOO_FEW_WINDOWS"):
        promote_recipe(world.store, recipe("default"), NEWEST + timedelta(hours=1), "a person", "it looks good")
    with pytest.raises(ValueError, match="materialise out_of_sample"):
        promote_recipe(world.store, recipe("blog_fixed"), NEWEST + timedelta(hours=1), "a person", "it looks good")


def test_monitoring_says_that_nothing_is_old_enough(world: World) -> None:
    assert checks(world.run(["model_monitoring"], [])) == {"no_realised_loss": True, "no_drift": True}
    [path] = Path(str(world.store.root), "model_monitoring").iterdir()
    assert json.loads(path.read_text())["halt"] is False


def test_a_short_history_is_refused_with_what_is_needed(tmp_path: Path) -> None:
    world = World.at(tmp_path, RECIPE="default")
    rows = labelled_rows(market_rows(SimulatedMarket(seed=4, tokens=3), 50))
    for day, part in rows.groupby(rows["timestamp"].dt.date):
        assert isinstance(day, date)
        world.store.write_table("indicator_features", day, part)
        world.store.write_table("daily_snapshots", day, market_rows(SimulatedMarket(seed=4, tokens=3), 1))
    result = world.run(["out_of_sample"], [], must_succeed=False)
    assert "need 91" in failure(result)


@pytest.mark.long
def test_all_recipes_and_the_ladder_stand_on_one_page(world: World) -> None:
    evaluate(world, "recipe_comparison", twins=1, tokens=2)
    [page] = Path(str(world.store.root), "recipe_comparison").rglob("report.html")
    text = page.read_text()
    for name in (*RECIPES, "+ month fix", "+ purge", "+ pooled", "+ costs"):
        assert name in text
    assert "as published" in text
    stored_tables = {
        path.parent.name.rsplit("-", 1)[0] for path in Path(str(world.store.root)).rglob("out_of_sample/*/*")
    }
    assert set(RECIPES) <= stored_tables


def test_the_report_opens_in_the_ui_with_its_verdict_and_pictures(tmp_path: Path) -> None:
    with instance_of(tmp_path / "home") as instance:
        world = stored(World.at(tmp_path, instance, RECIPE="default", TRADE_WITHOUT_EVIDENCE="false"))
        evaluate(world, "out_of_sample", twins=0)
        evaluate(world, "model_report", twins=0)
    variables = environment(home(tmp_path / "home"), STORE=str(tmp_path / "store"), SIM_TOKENS="5", SIM_SEED="7")
    with webserver(tmp_path / "home", variables, tmp_path / "webserver.log") as url, browsing(url) as page:
        show(page, "/assets/model_report", "text=verdict", "report")
        assert page.locator("text=not enough independent data").count()
        assert page.locator("text=picture/ranking").count()
        page.locator("text=[Show Markdown]").last.click()  # the UI keeps pictures behind a click
        page.locator("img[src^='data:image/png']").first.wait_for()
