"""The command line: `python -m breakout_assets COMMAND`. Everything else is done with `dagster`."""

import argparse
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from breakout_assets.errors import DataError, SettingsError, TemporaryError
from breakout_assets.settings import Settings, load_settings, settings_table


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 if it succeeded, 1 if not, with one sentence on standard error if it was refused."""
    options = _parser().parse_args(arguments)
    console = Console()
    try:
        if options.command == "settings":
            _print_settings(console)
        elif options.command == "import":
            _import(console, options.file, options.overwrite)
        elif options.command == "candles":
            _candles(console, options)
        elif options.command in ("promote", "rollback", "champion"):
            _champion(console, options)
        elif options.command in ("halt", "resume", "accept", "explain"):
            _trading(console, options)
        elif options.command == "repair":
            from breakout_assets.defs.repair import run_repair

            return run_repair(console, options.plan)
        else:
            from breakout_assets.defs.demo import run_demo

            run_demo(console)
    except (DataError, SettingsError, TemporaryError) as error:
        Console(stderr=True).print(f"[bold red]Refused.[/] {escape(str(error))}", soft_wrap=True)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m breakout_assets", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    importing = commands.add_parser("import", help="turn a panel of many hours into hourly raw files in the store")
    importing.add_argument("file", type=Path, help="CSV or Parquet with the source's column names")
    importing.add_argument("--overwrite", action="store_true", help="replace hours that are there with other content")
    repairing = commands.add_parser("repair", help="make good what was missed: hours, days, labels, as far as can be")
    repairing.add_argument("--plan", action="store_true", help="only print what would be done")
    candles = commands.add_parser("candles", help="make hours of the past from an exchange's hourly candles")
    candles.add_argument("files", type=Path, nargs="*", help="candle files (CSV, Parquet); without any, download them")
    candles.add_argument("--venue", required=True, help="the exchange, by ccxt's name, such as binance")
    candles.add_argument("--map", type=Path, required=True, help="CSV: pair, symbol, name and, if known, id, units")
    candles.add_argument("--first", type=_hour, help="first hour of a download, such as 2024-01-01T00")
    candles.add_argument("--last", type=_hour, help="last hour of a download")
    promoting = commands.add_parser("promote", help="let a recipe speak that the evidence carries")
    promoting.add_argument("recipe", help="its name, such as baseline_logit")
    rolling = commands.add_parser("rollback", help="let the recipe speak again that did before the newest decision")
    halting = commands.add_parser("halt", help="stop buying, from the next hour on, until somebody resumes")
    resuming = commands.add_parser("resume", help="buy again after a halt, by a person or by the drawdown guard")
    accepting = commands.add_parser(
        "accept", help="take what the venue holds for right where it differs from the ledger"
    )
    accepting.add_argument("--plan", action="store_true", help="only print what would be accepted")
    for deciding in (promoting, rolling, halting, resuming, accepting):
        deciding.add_argument("--by", required=True, help="the person who decides")
        deciding.add_argument("--reason", required=True, help="why, in a sentence")
    commands.add_parser("champion", help="which recipe speaks, and every decision that led there")
    explaining = commands.add_parser("explain", help="why an order exists, down to the raw file, and whether it holds")
    explaining.add_argument("order", help="its id, or the first characters of it")
    commands.add_parser("settings", help="list every setting with its default and meaning")
    commands.add_parser("demo", help="60 simulated days of 50 tokens, from raw hours to paper orders")
    return parser


def _hour(text: str) -> datetime:
    """A whole hour, naive UTC, of an argument."""
    hour = datetime.fromisoformat(text)
    if hour.tzinfo is not None or hour != hour.replace(minute=0, second=0, microsecond=0):
        raise ValueError(text)
    return hour


def _candles(console: Console, options: argparse.Namespace) -> None:
    from breakout_assets.market.candle_history import import_candle_files, import_from_venue
    from breakout_assets.market.candles import ABSENT_COLUMNS
    from breakout_assets.store import Store

    settings = load_settings()
    store = Store.at(settings.store, settings.s3_endpoint, settings.s3_region)
    if not options.files and not (options.first and options.last):
        raise SettingsError("give candle files, or --first and --last to download candles")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int, what: str) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done, total=total, description=f"{stage} {what}")

        now = datetime.now(UTC).replace(tzinfo=None)
        if options.files:
            report = import_candle_files(options.files, options.venue, options.map, store, now, show)
        else:
            report = import_from_venue(options.venue, options.map, options.first, options.last, store, now, show)
    console.print(
        f"{report.first} to {report.last}: {report.written} hours written, {report.already_there} were there already, "
        f"{report.kept_other} left as they were; {report.rows} rows, in {store.root}"
    )
    if report.holes:
        console.print(f"Hours without a candle of any pair: {len(report.holes)}, the first is {report.holes[0]}")
    console.print(f"Not in candles, and null in every row: {', '.join(ABSENT_COLUMNS)}")
    for warning in report.warnings:
        console.print(f"[yellow]{escape(warning)}[/]")
    _next_step(console, report.first, report.last, settings)


def _champion(console: Console, options: argparse.Namespace) -> None:
    from breakout_assets.learning.promoting import promote_recipe
    from breakout_assets.learning.promotion import journal, rollback
    from breakout_assets.learning.recipes import recipe
    from breakout_assets.store import Store

    settings = load_settings()
    store = Store.at(settings.store, settings.s3_endpoint, settings.s3_region)
    # The hour that has begun may have been decided already; a decision is for the next one on.
    hour = datetime.now(UTC).replace(tzinfo=None, minute=0, second=0, microsecond=0) + timedelta(hours=1)
    if options.command == "promote":
        challenger = recipe(options.recipe, settings.round_trip_cost)
        promote_recipe(store, challenger, hour, options.by, options.reason)
    elif options.command == "rollback":
        rollback(store, hour, options.by, options.reason)
    entries = journal(store)
    speaks = f"{entries[-1].recipe} ({entries[-1].recipe_id})" if entries else f"{settings.recipe}, by BREAKOUT_RECIPE"
    console.print(f"The recipe that speaks: [bold]{escape(speaks)}[/]")
    if entries:
        table = Table("decision", "from (UTC)", "recipe", "by", "reason")
        for entry in reversed(entries):
            cells = (entry.action, f"{entry.effective_from:%Y-%m-%d %H:00}", entry.recipe, entry.by, entry.reason)
            table.add_row(*(escape(cell) for cell in cells))
        console.print(table)


def _trading(console: Console, options: argparse.Namespace) -> None:
    from breakout_assets.defs.resources import account as account_of
    from breakout_assets.store import Store
    from breakout_assets.trading.console import print_accepted, print_explanation, print_switch
    from breakout_assets.trading.desk import Desk
    from breakout_assets.trading.explain import explain
    from breakout_assets.trading.holdings import accept_differences
    from breakout_assets.trading.switches import halt, resume

    settings = load_settings()
    account = account_of(settings)
    ledger = account.open_ledger()
    now = datetime.now(UTC).replace(tzinfo=None, microsecond=0)
    if options.command == "explain":
        store = Store.at(settings.store, settings.s3_endpoint, settings.s3_region)
        print_explanation(console, explain(ledger, store, options.order))
    elif options.command == "accept":
        broker = account.open_broker(ledger)
        desk = Desk(ledger, account.name, broker, account.rules, now, lambda: now, time.sleep, account.mail)
        accepted = accept_differences(desk, options.by, options.reason, plan=options.plan)
        print_accepted(console, account.name, accepted, options.plan)
    else:
        decide = halt if options.command == "halt" else resume
        switch = decide(ledger, account.name, options.by, options.reason, now, account.mail)
        print_switch(console, account.name, switch)


def _print_settings(console: Console) -> None:
    table = Table("variable", "default", "meaning")
    for variable, default, meaning in settings_table():
        table.add_row(variable, escape(default), escape(meaning))
    console.print(table)


def _import(console: Console, file: Path, overwrite: bool) -> None:
    from breakout_assets.market.importing import import_panel
    from breakout_assets.store import Store

    settings = load_settings()
    store = Store.at(settings.store, settings.s3_endpoint, settings.s3_region)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("hours", total=None)

        def show(done: int, total: int, hour: datetime) -> None:
            bar.update(task, completed=done, total=total, description=f"{hour:%Y-%m-%d %H:00}")

        report = import_panel(file, store, extension=settings.raw_format, overwrite=overwrite, progress=show)
    console.print(
        f"{report.first} to {report.last}: {report.written} hours written, {report.already_there} were there already, "
        f"{report.replaced} replaced; {report.rows} rows, in {store.root}"
    )
    if report.absent_columns:
        console.print(f"Not in the file, and null in every row: {', '.join(report.absent_columns)}")
    for reason, count in report.suspicious.items():
        console.print(f"[yellow]{count} {reason}[/]: kept as they came; daily_snapshots will quarantine them")
    _next_step(console, report.first, report.last, settings)


def _next_step(console: Console, first: datetime | None, last: datetime | None, settings: Settings) -> None:
    if first is None or last is None:
        return
    console.print(
        "Next: .venv/bin/dagster asset materialize -m breakout_assets.definitions --select daily_snapshots "
        f"--partition-range {first:%Y-%m-%d}...{last:%Y-%m-%d}",
        soft_wrap=True,
    )
    if first.date() < settings.start:
        console.print(f"[yellow]Partitions begin on {settings.start}[/]; set BREAKOUT_START={first:%Y-%m-%d}")


if __name__ == "__main__":
    sys.exit(main())
