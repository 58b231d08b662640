"""The command line: `python -m breakout_assets import|settings|demo`. Everything else is done with `dagster`."""

import argparse
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from breakout_assets.errors import DataError, SettingsError
from breakout_assets.settings import load_settings, settings_table


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 if it succeeded, 1 with one sentence on standard error if it was refused."""
    parser = argparse.ArgumentParser(prog="python -m breakout_assets", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    importing = commands.add_parser("import", help="turn a panel of many hours into hourly raw files in the store")
    importing.add_argument("file", type=Path, help="CSV or Parquet with the source's column names")
    importing.add_argument("--overwrite", action="store_true", help="replace hours that are there with other content")
    commands.add_parser("settings", help="list every setting with its default and meaning")
    commands.add_parser("demo", help="60 simulated days of 50 tokens, from raw hours to paper orders")
    options = parser.parse_args(arguments)
    console = Console()
    try:
        if options.command == "settings":
            _print_settings(console)
        elif options.command == "import":
            _import(console, options.file, options.overwrite)
        else:
            from breakout_assets.defs.demo import run_demo

            run_demo(console)
    except (DataError, SettingsError) as error:
        Console(stderr=True).print(f"[bold red]Refused.[/] {escape(str(error))}", soft_wrap=True)
        return 1
    return 0


def _print_settings(console: Console) -> None:
    table = Table("variable", "default", "meaning")
    for variable, default, meaning in settings_table():
        table.add_row(variable, escape(default), escape(meaning))
    console.print(table)


def _import(console: Console, file: Path, overwrite: bool) -> None:
    from breakout_assets.market.importing import import_panel
    from breakout_assets.store import Store

    settings = load_settings()
    store = Store.at(settings.store, settings.s3_endpoint)
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
    if report.first and report.last:
        days = f"{report.first:%Y-%m-%d}...{report.last:%Y-%m-%d}"
        console.print(
            "Next: .venv/bin/dagster asset materialize -m breakout_assets.definitions --select daily_snapshots "
            f"--partition-range {days}",
            soft_wrap=True,
        )
        if report.first.date() < settings.start:
            console.print(
                f"[yellow]Partitions begin on {settings.start}[/]; set BREAKOUT_START={report.first:%Y-%m-%d}"
            )


if __name__ == "__main__":
    sys.exit(main())
