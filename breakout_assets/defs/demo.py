"""The demonstration: two months of the simulated market through the real definitions, and what came of it."""

import logging
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import dagster as dg
import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from breakout_assets.definitions import build_definitions
from breakout_assets.defs.partitions import POOLED, TOKENS_NAME, hour_key, range_tags
from breakout_assets.defs.resources import simulated_market
from breakout_assets.errors import DataError, SettingsError
from breakout_assets.learning.recipes import recipe
from breakout_assets.market.schema import HOUR, hours_between
from breakout_assets.settings import Settings, load_settings
from breakout_assets.store import Store
from breakout_assets.trading.portfolio import Portfolio

DAYS_SHOWN: Final = 60
# Hours that are traded: enough that orders of the first are filled, and few enough to watch.
HOURS_TRADED: Final = 48
SCORES: Final = ("AUC", "AUC of the oracle", "precision", "base rate", "recall", "F1", "accuracy", "always-no accuracy")


@dataclass(frozen=True)
class Step:
    """One run of the demonstration."""

    title: str
    assets: tuple[str, ...]
    keys: tuple[str, ...]
    config: Mapping[str, Any]


def run_demo(console: Console) -> None:
    """Materialise everything for the last 60 days of the simulated market and print a summary.

    Raises:
        SettingsError: the source is not the simulated market.
        DataError: a run failed.
    """
    settings = load_settings()
    if settings.source != "simulated":
        raise SettingsError("BREAKOUT_SOURCE must be simulated for the demo, which invents its market; unset it.")
    # Sixty days hold too few independent windows to prove anything: on paper, for once, orders need no evidence.
    settings = settings.model_copy(update={"replay": True, "trade_without_evidence": True})
    newest = datetime.now(UTC).replace(tzinfo=None, minute=0, second=0, microsecond=0)
    console.print(
        f"[bold]Simulated market[/]: {settings.sim_tokens} invented tokens, {DAYS_SHOWN} days up to "
        f"{newest:%Y-%m-%d %H:00} UTC, kept in {settings.store}. No price in it is real."
    )
    text = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[part]}"), TimeElapsedColumn()
    bar = Progress(*text, console=console)
    definitions = dg.Definitions.merge(
        build_definitions(settings), dg.Definitions(loggers={"progress": _progress_logger(bar)})
    )
    job = definitions.resolve_implicit_global_asset_job_def()
    with _instance() as instance, bar:
        trading = hours_between(newest - (HOURS_TRADED - 1) * HOUR, newest)
        for step in _history(newest, trading[0]):
            _run(job, instance, bar, step)
        tokens = tuple(instance.get_dynamic_partitions(TOKENS_NAME))
        # Models may know nothing of the hours that they are about to predict.
        as_of = {"ops": {"token_model": {"config": {"as_of": (trading[0] - HOUR).isoformat()}}}}
        _run(job, instance, bar, Step("models", ("token_model",), tokens, as_of))
        loop = ("market_health", "live_indicators", "predictions", "trade_orders")
        _run(job, instance, bar, Step("predictions and orders", loop, _keys(trading), {}))
        _run(job, instance, bar, Step("portfolio", ("portfolio",), (), {}))
        store = Store.at(settings.store, settings.s3_endpoint)
    _summarise(console, settings, store, tokens, trading)


def _history(newest: datetime, first_traded: datetime) -> Iterable[Step]:
    today = newest.date()
    first = today - timedelta(days=DAYS_SHOWN)
    hours = hours_between(datetime.combine(first, datetime.min.time()), newest)
    labelled = _days(first, today - timedelta(days=6))  # the newest day whose five-day future is over
    yield Step("hourly snapshots", ("hourly_snapshots",), _keys(hours), {})
    yield Step("daily snapshots", ("daily_snapshots",), _days(first, today - timedelta(days=1)), {})
    yield Step("labels and indicators", ("labelled_dataset", "indicator_features"), labelled, {})


def _keys(hours: Iterable[datetime]) -> tuple[str, ...]:
    return tuple(hour_key(hour) for hour in hours)


def _days(first: date, last: date) -> tuple[str, ...]:
    return tuple((first + timedelta(days=n)).isoformat() for n in range((last - first).days + 1))


def _instance() -> dg.DagsterInstance:
    """The instance that `dagster dev` uses when it is started in this folder."""
    if os.environ.get("DAGSTER_HOME"):
        return dg.DagsterInstance.get()
    if not Path("dagster.yaml").is_file():
        raise SettingsError(
            "DAGSTER_HOME is not set and this folder has no dagster.yaml; run the demo in the checkout."
        )
    return dg.DagsterInstance.from_config(str(Path.cwd()))


def _run(job: dg.JobDefinition, instance: dg.DagsterInstance, bar: Progress, step: Step) -> None:
    total = max(len(step.keys), 1) * len(step.assets)
    task = bar.add_task(f"{step.title:<22}", total=total, part="starting")
    result = job.execute_in_process(
        instance=instance,
        asset_selection=[dg.AssetKey(name) for name in step.assets],
        tags=range_tags(step.keys) if step.keys else {},
        run_config={**step.config, "loggers": {"progress": {}}},
        raise_on_error=False,
    )
    if not result.success:
        raise DataError(f"{step.title} failed, run {result.run_id}: {' '.join(_reasons(result))[:800]}")
    bar.update(task, completed=total, part=f"{total} partitions")
    bar.stop_task(task)


def _reasons(result: dg.ExecuteInProcessResult) -> list[str]:
    reasons = []
    for event in result.all_events:
        if event.is_step_failure:
            said, error = event.step_failure_data.user_failure_data, event.step_failure_data.error
            reasons.append(str(said.description if said else error.message if error else event.message))
    return reasons


class _Mover(logging.Handler):
    """Moves the newest bar by the "n of m" lines that assets log."""

    def __init__(self, bar: Progress) -> None:
        super().__init__()
        self.bar = bar
        self.done: dict[tuple[TaskID, str], int] = {}

    def emit(self, record: logging.LogRecord) -> None:
        found = re.search(r"(\d+) of (\d+)", record.getMessage())
        if not found:
            return
        task = self.bar.task_ids[-1]
        step = str(getattr(record, "dagster_meta", {}).get("step_key"))
        self.done[task, step] = int(found[1])
        completed = sum(done for (of_task, _), done in self.done.items() if of_task == task)
        self.bar.update(task, completed=completed, part=f"{step} {found[0]}")


def _progress_logger(bar: Progress) -> dg.LoggerDefinition:
    def make(_: dg.InitLoggerContext) -> logging.Logger:
        logger = logging.Logger("progress", level=logging.INFO)
        logger.addHandler(_Mover(bar))
        return logger

    return dg.LoggerDefinition(make, description="shows progress in the terminal instead of log lines")


def _summarise(
    console: Console, settings: Settings, store: Store, tokens: tuple[str, ...], trading: list[datetime]
) -> None:
    rows = store.read_table("indicator_features", store.days_of("indicator_features"), ["token", "y", "label_status"])
    labelled = rows[rows["label_status"] == "labelled"]
    console.print(
        f"\n[bold]Data[/]  {len(rows)} rows of {rows['token'].nunique()} tokens with indicators, {len(labelled)} "
        f"labelled, {labelled['y'].mean():.1%} of them more than 10 % up after five days"
    )
    console.print(_model_table(settings, store, tokens))
    console.print(
        "The oracle knows each token's hidden state: over many tokens and months nothing beats it, on a few it can "
        "look worse than luck. An AUC of 0.50 is a coin. Outside this demo nothing is bought before model_report has "
        "shown an edge, which takes about 180 days: these paper orders were placed without evidence."
    )
    console.print(_orders_table(store, trading))
    _print_portfolio(console, settings, trading[-1])
    console.print("\nNext: [bold]make ui[/], then open http://127.0.0.1:3000 (Assets, or Lineage for the graph)")


def _model_table(settings: Settings, store: Store, tokens: tuple[str, ...]) -> Table:
    from breakout_assets.learning.generations import generations, read_manifest
    from breakout_assets.learning.training_set import training_rows

    by = recipe(settings.recipe, settings.round_trip_cost)
    rows = training_rows(store)
    rows = rows[rows["label_status"] == "labelled"]
    truth = simulated_market(settings).truth(rows["timestamp"].min(), rows["timestamp"].max())
    rows = rows.merge(truth[["id", "timestamp", "oracle_probability"]], on=["id", "timestamp"], validate="1:1")
    manifests = {}
    for token in tokens:
        found = list(generations(store.model_folder(token), by).values())
        if found:
            manifests[token] = read_manifest(found[-1])
    own = [_scores(manifest, rows[rows["token"] == token]) for token, manifest in manifests.items() if token != POOLED]
    pooled = [_scores(manifests[POOLED], rows)] if POOLED in manifests else []
    title = f"Recipe {by.name}, on the newest {by.test_share:.0%} of the rows, which the scored model had not seen"
    table = Table(title=title, title_justify="left")
    columns = {f"{len(own)} tokens, mean": own, "one over all": pooled}
    shown = {heading: _means(scores) for heading, scores in columns.items() if scores}
    table.add_column("")
    for heading in shown:
        table.add_column(heading, justify="right")
    for number, name in enumerate(SCORES):
        table.add_row(name, *(means[number] for means in shown.values()))
    return table


def _scores(manifest: Mapping[str, Any], rows: pd.DataFrame) -> list[float | None]:
    from sklearn.metrics import roc_auc_score

    metrics = manifest["metrics"]
    first, last = pd.Timestamp(metrics["first_hour"]), pd.Timestamp(metrics["last_hour"])
    test = rows[rows["timestamp"].between(first, last)]
    y = test["y"].to_numpy(dtype="int64")
    oracle = float(roc_auc_score(y, test["oracle_probability"])) if 0 < y.sum() < len(y) else None
    names = ("precision", "base_rate", "recall", "f1", "accuracy", "always_no_accuracy")
    return [metrics["auc"], oracle, *(metrics[name] for name in names)]


def _means(scores: list[list[float | None]]) -> list[str]:
    means = []
    for n in range(len(SCORES)):
        known = [value for row in scores if (value := row[n]) is not None]
        means.append(f"{fmean(known):.2f}" if known else "-")
    return means


def _orders_table(store: Store, trading: list[datetime]) -> Table:
    rows = store.read_table("trade_orders", trading)
    orders = rows[rows["order_id"].notna()]  # the others are signals that were not followed
    counts = orders["status"].value_counts()
    title = f"Paper orders of {len(trading)} hours: " + ", ".join(f"{n} {status}" for status, n in counts.items())
    title += f"; {len(rows) - len(orders)} signals were not followed"
    table = Table(title=f"{title}. The newest:", title_justify="left")
    for heading in ("hour", "side", "token", "price", "status"):
        table.add_column(heading)
    for row in orders.tail(8).itertuples():
        price = f"{float(row.price):.6g}" if isinstance(row.price, str) else ""
        table.add_row(f"{row.timestamp:%m-%d %H:00}", str(row.side), str(row.token), price, str(row.status))
    return table


def _print_portfolio(console: Console, settings: Settings, hour: datetime) -> None:
    from breakout_assets.defs.resources import account

    paper = account(settings)
    with paper.open_ledger().read(paper.name) as books:
        portfolio: Portfolio = books.portfolio(hour, paper.rules.cash)
    console.print(
        f"[bold]Portfolio[/]  equity {portfolio.equity:.2f} USD, of it cash {portfolio.cash:.2f}; "
        f"{len(portfolio.positions)} open positions, realised profit {portfolio.realised_profit:.2f}, "
        f"fees {portfolio.fees:.2f}"
    )
