"""The results for people (Markdown and pictures) and for programs (JSON)."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Final

import matplotlib as mpl
from matplotlib.figure import Figure

from bench.measure import Cost

_PACKAGES: Final = ("pandas", "numpy", "pyarrow", "duckdb", "ta", "scikit-learn", "imbalanced-learn", "dagster")
mpl.use("Agg")


@dataclass(frozen=True)
class Row:
    """One side of one stage.

    Attributes:
        stage: title.
        side: name; `source` is what the others are measured by.
        cost: the median of the rounds, each figure by itself.
        units: how much of the work it did.
        unequal: why its result is not that of the published way; there is no ratio then.
        least: the ratio that it promises at the full size.
        by_wall: the ratio is that of seconds and not of CPU seconds.
        note: what to know of it.
    """

    stage: str
    side: str
    cost: Cost
    units: float = 1.0
    unequal: str | None = None
    least: float | None = None
    by_wall: bool = False
    note: str = ""


@dataclass(frozen=True)
class Growth:
    """How a cost grows: one point a size."""

    title: str
    sizes: Sequence[int]
    costs: Sequence[Cost]


def middle(costs: Sequence[Cost]) -> Cost:
    """The median of each figure."""
    return Cost(*(median(getattr(cost, name) for cost in costs) for name in ("cpu", "wall", "peak_mb")))


def ratio(source: Row, row: Row) -> float | None:
    """How many times less a side costs than the published way for the same work; None where results differ."""
    if row.unequal:
        return None
    name = "wall" if row.by_wall else "cpu"
    theirs, ours = (getattr(each.cost, name) / each.units for each in (source, row))
    return theirs / ours if ours > 0 else None


def machine() -> dict[str, str | int]:
    """What it was measured on."""
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "processor": _processor(),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{package: version(package) for package in _PACKAGES},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def write(folder: Path, size: Mapping[str, int], rows: Sequence[Row], growths: Sequence[Growth]) -> Path:
    """`results.md`, `results.json` and a picture for each growth; returns the first."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "size": dict(size),
        "machine": machine(),
        "rows": [asdict(row) | {"ratio": _ratio_of(row, rows)} for row in rows],
        "growth": [asdict(growth) for growth in growths],
    }
    (folder / "results.json").write_text(json.dumps(content, indent=2) + "\n")
    for growth in growths:
        _draw(growth, folder / _picture(growth))
    report = folder / "results.md"
    report.write_text("\n".join([*_head(size), *_table(rows), *_curves(growths)]) + "\n")
    return report


def _ratio_of(row: Row, rows: Sequence[Row]) -> float | None:
    source = next((each for each in rows if each.stage == row.stage and each.side == "source"), None)
    return None if source is None or row.side == "source" else ratio(source, row)


def _head(size: Mapping[str, int]) -> list[str]:
    where = machine()
    return [
        (
            f"{size['tokens']} coins, {size['measured']} days measured of {size['days']}, {size['models']} models; "
            f"median of {size['rounds']} fresh processes, interleaved."
        ),
        "",
        f"{where['cores']} cores ({where['processor']}), {where['memory_gb']} GB, Python {where['python']}, "
        + ", ".join(f"{package} {where[package]}" for package in _PACKAGES)
        + ".",
        "",
    ]


def _table(rows: Sequence[Row]) -> list[str]:
    lines = ["| stage | side | CPU s | seconds | peak MB | ratio | promised |", "|---|---|--:|--:|--:|--:|--:|"]
    for row in rows:
        found = _ratio_of(row, rows)
        said = "" if row.side == "source" or found is None else f"{found:.3g}" + (" (seconds)" if row.by_wall else "")
        said = f"none: {row.unequal}" if row.unequal else said
        promised = "" if row.least is None else f"{row.least:g}"
        figures = f"{row.cost.cpu:.3g} | {row.cost.wall:.3g} | {row.cost.peak_mb:.0f}"
        lines.append(f"| {row.stage} | {row.side} | {figures} | {said} | {promised} |")
    notes = dict.fromkeys(f"{row.stage}: {row.note}" for row in rows if row.note)
    return [*lines, "", *(f"- {note}" for note in notes), ""]


def _curves(growths: Sequence[Growth]) -> list[str]:
    lines = []
    for growth in growths:
        sizes, cpu = " | ".join(map(str, growth.sizes)), " | ".join(f"{cost.cpu:.3g}" for cost in growth.costs)
        peak = " | ".join(f"{cost.peak_mb:.0f}" for cost in growth.costs)
        lines += [f"![{growth.title}]({_picture(growth)})", "", f"| {growth.title}: days | {sizes} |"]
        lines += ["|---|" + "--:|" * len(growth.sizes), f"| CPU s | {cpu} |", f"| peak MB | {peak} |", ""]
    return lines


def _picture(growth: Growth) -> str:
    return f"{growth.title.split(':')[0].strip().lower().replace(' ', '-')}.png"


def _draw(growth: Growth, path: Path) -> None:
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, name, unit in ((left, "cpu", "CPU seconds"), (right, "peak_mb", "peak memory, MB")):
        values = [getattr(cost, name) for cost in growth.costs]
        axes.plot(growth.sizes, values, "o-", color="#1f6feb")
        room = 1.1  # or the highest point would be cut in half
        axes.set(xlabel="days", ylabel=unit, xlim=(0, room * max(growth.sizes)), ylim=(0, room * max(values)))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(growth.title, fontsize=11)
    figure.savefig(path, dpi=120)
