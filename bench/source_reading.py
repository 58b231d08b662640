"""The published way of reading. It needs no more than pandas, and so runs in any version of it.

`python -m bench.source_reading <files> <result>` times it; `files` is a text file with a path a line.
"""

import sys
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Final

import pandas as pd

from bench.measure import keep, timed

COLUMNS: Final = (
    "id",
    "symbol",
    "timestamp",
    "price",
    "volume_24h",
    "cmc_rank",
    "num_market_pairs",
    "volume_change_24h",
    "percent_change_24h",
    "percent_change_7d",
)


def hours(store: Path, moments: Iterable[datetime]) -> list[Path]:
    """The raw files of these hours."""
    return [store / f"cmc/latest/{moment:%Y/%m/%d/%H}/cmcdata.csv" for moment in moments]


def read(files: Iterable[Path]) -> pd.DataFrame:
    """All rows of these hourly CSV files, one file after the other."""
    rows = pd.concat([pd.read_csv(file, usecols=list(COLUMNS)) for file in files], ignore_index=True)
    return rows.assign(timestamp=pd.to_datetime(rows["timestamp"]))


def main(files: str, result: str) -> None:
    """Measure, and leave result and cost in files."""
    paths = [Path(line) for line in Path(files).read_text().splitlines()]
    rows, cost = timed(lambda: read(paths))
    keep(rows, cost, Path(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
