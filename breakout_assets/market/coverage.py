"""Which hours the store has, and how much of each can be used: a table, its gaps, and a picture of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from io import BytesIO
from typing import TYPE_CHECKING, Final, NamedTuple

import duckdb
import numpy as np
import numpy.typing as npt
import pandas as pd
from upath import UPath

from breakout_assets.errors import DataError
from breakout_assets.market.files import read_raw
from breakout_assets.market.gates import EXCLUSIONS, context_hours
from breakout_assets.market.health import EXPECTATION_HOURS
from breakout_assets.market.schema import HOUR, ORIGIN_FOLLOWED, hours_between
from breakout_assets.market.snapshots import judged, market_rows, origin_class
from breakout_assets.market.tokens import load_registry
from breakout_assets.store import RawFile, Store, parquet_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLLECTED: Final = "collected"
MISSING: Final = "missing"
UNREADABLE: Final = "unreadable"  # a file is there and nobody can read it
COLUMNS: Final[dict[str, str]] = {
    "timestamp": "datetime64[us]",
    "state": "str",
    "rows": "Int64",
    "expected_rows": "float64",
    "share": "float64",
    "usable_share": "float64",
    "origin": "str",
    "compacted": "bool",
}
# Files of a bucket are held in memory while they are counted: two months of 1,250 coins are about 150 MB.
_DAYS_AT_ONCE: Final = 60
_COUNTED: Final = ["timestamp", "origin", "quarantine"]
# Today has no daily file, and yesterday's may have been compacted before its last hour arrived.
_RAW_DAYS: Final = 2


class Gap(NamedTuple):
    """A stretch of consecutive missing hours."""

    first: datetime
    last: datetime
    hours: int


@dataclass(frozen=True)
class KnownHours:
    """What a store has of a span of hours.

    Attributes:
        raw: The raw snapshots.
        counts: Rows in the daily files by `timestamp`, `origin` and `quarantine`; their number is `n`.
        torn: Days whose daily file cannot be read.
    """

    raw: dict[datetime, RawFile]
    counts: pd.DataFrame
    torn: frozenset[date]

    @property
    def compacted(self) -> set[datetime]:
        """The hours that lie in a daily file."""
        return set(self.counts["timestamp"].dt.to_pydatetime())


def first_hour(store: Store, earliest: datetime, last: datetime) -> datetime | None:
    """The first hour from `earliest` to `last` that the store knows of, raw or compacted; None if there is none."""
    found: list[datetime] = []
    start = earliest
    while start <= last and not found:  # a listing a month, and only until the first file
        end = min((start.replace(day=1, hour=0) + timedelta(days=32)).replace(day=1) - HOUR, last)
        found = list(store.raw_between(start, end))[:1]
        start = end + HOUR
    days = [day for day in store.days_of("daily_snapshots") if earliest.date() <= day <= last.date()]
    if days and (not found or days[0] < found[0].date()):
        counts, torn = _counted(store, days[:1])
        hours = [datetime.combine(days[0], datetime.min.time())] if torn else counts["timestamp"].dt.to_pydatetime()
        found += [hour for hour in hours if hour >= earliest]
    return min(found, default=None)


def newest_known(store: Store, first: datetime, last: datetime) -> datetime:
    """The newest raw hour from `first` to `last`; `first` if there is none."""
    end = last
    while end >= first:  # a listing a month, and only until the newest file
        start = max(end.replace(day=1, hour=0), first)
        found = store.raw_between(start, end)
        if found:
            return max(found)
        end = start - HOUR
    return first


def known_hours(store: Store, first: datetime, last: datetime) -> KnownHours:
    """What the store has of the hours from `first` to `last`; raw files are listed, daily files are counted."""
    days = [day for day in store.days_of("daily_snapshots") if first.date() <= day <= last.date()]
    counts, torn = _counted(store, days)
    inside = counts["timestamp"].between(first, last)
    return KnownHours(store.raw_between(first, last), counts[inside].reset_index(drop=True), frozenset(torn))


def _counted(store: Store, days: Sequence[date]) -> tuple[pd.DataFrame, list[date]]:
    """Rows in these daily files by hour, origin and quarantine, and the days whose file cannot be read."""
    parts = [pd.DataFrame({"timestamp": pd.Series(dtype="datetime64[us]"), "origin": "", "quarantine": "", "n": 0})]
    torn: list[date] = []
    for start in range(0, len(days), _DAYS_AT_ONCE):
        some = list(days[start : start + _DAYS_AT_ONCE])
        try:
            parts.append(_count(store, some))
        except (duckdb.Error, FileNotFoundError):
            if len(days) == 1:
                torn.append(some[0])
                continue
            for day in some:  # the error does not always name its file
                counts, unread = _counted(store, [day])
                parts.append(counts)
                torn += unread
    counts = pd.concat(parts, ignore_index=True)
    return counts.astype({"origin": "str", "quarantine": "str", "timestamp": "datetime64[us]", "n": "int64"}), torn


def _count(store: Store, days: Sequence[date]) -> pd.DataFrame:
    with store.opened([store.table_path("daily_snapshots", day) for day in days]) as (connection, files):
        return connection.execute(
            "SELECT timestamp, origin, quarantine, count(*) AS n FROM read_parquet($files) GROUP BY ALL ORDER BY ALL",
            {"files": files},
        ).df()


def coverage_table(store: Store, first: datetime, last: datetime) -> pd.DataFrame:
    """How much of each hour from `first` to `last` (whole hours, both included) is there and can be used.

    Returns:
        One row an hour, columns of `COLUMNS`. `state` is collected, missing or unreadable. `rows` are the coins in the
        listing, without those that are followed after they dropped out of it; null in a raw file of an older day that
        is not compacted, which is not opened for this. `expected_rows` is the median of the day before. `share` is
        rows / expected, at most 1, and `usable_share` the same of the rows without a fault; 0 in a missing hour.
        `origin` is the most common class of the rows' origins, `compacted` whether the hour is in its day's file.
    """
    known = known_hours(store, first, last)
    newest, unreadable = _newest_counts(store, known, last)
    figures = _figures(pd.concat([known.counts, newest], ignore_index=True))
    hours = pd.DatetimeIndex(hours_between(first, last)).as_unit("us")
    table = figures.reindex(hours)
    compacted = hours.isin(list(known.compacted))
    there = hours.isin([hour for hour in known.raw if hour not in unreadable]) | compacted
    torn = hours.isin(list(unreadable)) | hours.normalize().isin([pd.Timestamp(day) for day in known.torn])
    state = pd.Series(np.select([there, torn], [COLLECTED, UNREADABLE], MISSING), index=hours)
    # An hour that has no row count says nothing about what to expect, whether it is missing or not yet counted.
    before = table["rows"].rolling(f"{EXPECTATION_HOURS}h", closed="left", min_periods=1).median()
    expected = before.fillna(table["rows"])
    coins = table[["rows", "usable"]].copy()
    coins.loc[state != COLLECTED] = 0.0
    shares = coins.div(expected.where(expected > 0, 1.0), axis=0).clip(upper=1)
    columns = {
        "timestamp": hours,
        "state": state,
        "rows": coins["rows"],
        "expected_rows": expected,
        "share": shares["rows"],
        "usable_share": shares["usable"],
        "origin": table["origin"],
        "compacted": compacted,
    }
    return pd.DataFrame(columns)[list(COLUMNS)].astype(COLUMNS).reset_index(drop=True)


def _newest_counts(store: Store, known: KnownHours, last: datetime) -> tuple[pd.DataFrame, set[datetime]]:
    """The counts of the newest days' hours that are in no daily file yet, and those whose raw file is unreadable."""
    compacted, oldest = known.compacted, last.date() - timedelta(days=_RAW_DAYS - 1)
    files = [file for hour, file in known.raw.items() if hour.date() >= oldest and hour not in compacted]
    raw, unreadable = _readable(files)
    if raw.empty:
        return known.counts.iloc[:0], unreadable
    rows = market_rows(store, load_registry(store), raw)
    days = {hour.date() for hour in context_hours(rows["timestamp"].min(), rows["timestamp"].max())} - known.torn
    context = store.read_table("daily_snapshots", sorted(store.days_there("daily_snapshots", days)))
    rows = judged(rows, context)
    return rows.groupby(_COUNTED, dropna=False, as_index=False).size().rename(columns={"size": "n"}), unreadable


def _readable(files: Sequence[RawFile]) -> tuple[pd.DataFrame, set[datetime]]:
    """The rows of those of these files that can be read, and the hours of the others."""
    try:
        return read_raw(files), set()
    except DataError:
        if len(files) == 1:
            return read_raw([]), {files[0].hour}
    parts = [_readable([file]) for file in files]
    return pd.concat([rows for rows, _ in parts], ignore_index=True), set().union(*(hours for _, hours in parts))


def _figures(counts: pd.DataFrame) -> pd.DataFrame:
    """`rows`, `usable` and `origin` of each hour in these counts, by hour."""
    codes = {text: {*text.split(";")} for text in counts["quarantine"].dropna().unique()}
    again = counts["quarantine"].isin([text for text, found in codes.items() if "DUPLICATE" in found])
    faulty = counts["quarantine"].isin([text for text, found in codes.items() if not found <= EXCLUSIONS])
    listed = (counts["origin"].fillna("") != ORIGIN_FOLLOWED) & ~again
    hour = counts["timestamp"]
    classes = counts.assign(origin=origin_class(counts["origin"])).groupby(["timestamp", "origin"])["n"].sum()
    # By name where two classes have the same number of rows, so that the same files give the same table.
    common = classes.reset_index().sort_values(["timestamp", "n", "origin"], ascending=[True, False, True])
    return pd.DataFrame(
        {
            "rows": counts["n"].where(listed, 0).groupby(hour).sum().astype("float64"),
            "usable": counts["n"].where(listed & ~faulty, 0).groupby(hour).sum().astype("float64"),
            "origin": common.drop_duplicates("timestamp").set_index("timestamp")["origin"],
        }
    )


def gaps(table: pd.DataFrame) -> list[Gap]:
    """The stretches of consecutive missing hours of a coverage table, oldest first."""
    return stretches(table.loc[table["state"] == MISSING, "timestamp"].dt.to_pydatetime())


def stretches(hours: Sequence[datetime] | npt.NDArray[np.object_]) -> list[Gap]:
    """The stretches of consecutive hours among these, which are in order."""
    found: list[Gap] = []
    for hour in hours:
        if found and hour - found[-1].last == HOUR:
            found[-1] = Gap(found[-1].first, hour, found[-1].hours + 1)
        else:
            found.append(Gap(hour, hour, 1))
    return found


def coverage_path(store: Store) -> UPath:
    """Where the coverage table of a store is kept."""
    return store.root / "coverage" / "coverage.parquet"


def write_coverage(store: Store, table: pd.DataFrame) -> UPath:
    """Write a coverage table where it is kept; the same table gives the same bytes."""
    path = coverage_path(store)
    store.write(path, parquet_bytes(table.astype(COLUMNS)[list(COLUMNS)]))
    return path


# The picture -------------------------------------------------------------------------------------------------------

Pixels = npt.NDArray[np.uint8]
# The share is drawn in viridis, dark to bright, which is read without colours too. A gap must not look like a share:
# viridis has no grey, and what is as bright as this grey in it is lime, which nobody takes for grey.
MISSING_COLOUR: Final = (165, 165, 165)
UNKNOWN_COLOUR: Final = (232, 232, 232)
_LEVELS: Final = 21  # steps of 5 %; more could not be told apart and would cost bytes
_WIDTH: Final = 760
_MOST_DAYS: Final = 400  # of one strip, at two pixels a day; longer spans are drawn year by year
_LEFT, _RIGHT, _TOP, _BELOW, _LEGEND = 70, 20, 44, 34, 46
_DPI: Final = 100
_LABEL: Final = 62  # pixels that a date needs


@dataclass(frozen=True)
class _Strip:
    """A row of days: the colours of its hours (24 by days by 3), its first day, and the pixels of a day and an hour."""

    cells: Pixels
    first: pd.Timestamp
    across: int
    down: int

    @property
    def days(self) -> int:
        return int(self.cells.shape[1])


def coverage_picture(table: pd.DataFrame) -> bytes:
    """A PNG of a coverage table: a column a day, 24 hours from top to bottom, in the colour of the usable share."""
    # Imported here: matplotlib takes a second to import, and only pictures need it.
    from matplotlib.figure import Figure
    from PIL import Image

    strips = _strips(table)
    width = max(_LEFT + max(strip.days * strip.across for strip in strips) + _RIGHT, 560)  # room for the legend
    height = _TOP + sum(24 * strip.down + _BELOW for strip in strips) + _LEGEND
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    top = _TOP
    for strip in strips:
        # Whole pixels: a single hour of two years must not vanish between two of them.
        axes = _axes(figure, (_LEFT, top, strip.days * strip.across, 24 * strip.down))
        axes.imshow(strip.cells.repeat(strip.down, axis=0).repeat(strip.across, axis=1), aspect="auto")
        _label(axes, strip, by_year=len(strips) > 1)
        top += 24 * strip.down + _BELOW
    _write_title(figure, table, height)
    _draw_legend(figure, top + 4)
    drawn, picture = BytesIO(), BytesIO()
    figure.savefig(drawn, format="png", dpi=_DPI)
    # The few colours that are drawn, and greys for the edges of letters: a quarter of the size in the UI's event log.
    greys = [(shade, shade, shade) for shade in range(0, 256, 17)]
    palette = Image.new("P", (1, 1))
    palette.putpalette([*_levels().ravel().tolist(), *MISSING_COLOUR, *UNKNOWN_COLOUR, *np.ravel(greys).tolist()])
    few = Image.open(drawn).convert("RGB").quantize(palette=palette, dither=Image.Dither.NONE)
    few.save(picture, "png", optimize=True)
    return picture.getvalue()


def _levels() -> Pixels:
    from matplotlib import colormaps

    shades = colormaps["viridis"](np.linspace(0, 1, _LEVELS))[:, :3]
    return np.asarray(np.rint(shades * 255), dtype=np.uint8)


def _strips(table: pd.DataFrame) -> list[_Strip]:
    start, end = table["timestamp"].min().normalize(), table["timestamp"].max().normalize()
    days = (end - start).days + 1
    if days <= _MOST_DAYS:
        across = max(2, min(40, _WIDTH // days))
        return [_Strip(_cells(table, start, days), start, across, 8)]
    years = [pd.Timestamp(year, 1, 1) for year in range(start.year, end.year + 1)]
    return [_Strip(_cells(table, year, 365 + year.is_leap_year), year, 2, 4) for year in years]


def _cells(table: pd.DataFrame, first: pd.Timestamp, days: int) -> Pixels:
    """The colour of each hour (24 by days by 3); white where the table has none."""
    rows = table[table["timestamp"].between(first, first + pd.Timedelta(days=days) - HOUR)]
    share, missing = rows["usable_share"].to_numpy(), (rows["state"] == MISSING).to_numpy()
    level = np.rint(np.nan_to_num(share) * (_LEVELS - 1)).astype(np.int64)
    colours = _levels()[level]
    colours[np.isnan(share)] = UNKNOWN_COLOUR
    colours[missing] = MISSING_COLOUR
    cells = np.full((24, days, 3), 255, dtype=np.uint8)
    cells[rows["timestamp"].dt.hour, (rows["timestamp"].dt.normalize() - first).dt.days] = colours
    return cells


def _axes(figure: "Figure", box: tuple[int, int, int, int]) -> "Axes":
    """Axes that cover these pixels: left, top, width, height."""
    width, height = figure.get_size_inches() * _DPI
    left, top, across, down = box
    return figure.add_axes((left / width, 1 - (top + down) / height, across / width, down / height))


def _label(axes: "Axes", strip: _Strip, by_year: bool) -> None:
    days = pd.date_range(strip.first, periods=strip.days)
    step = next((step for step in (1, 2, 7, 14) if step * strip.across >= _LABEL), None)
    if step and not by_year:
        marked = [(n, f"{days[n]:%d %b}" + (f"\n{days[n]:%Y}" if n == 0 else "")) for n in range(0, strip.days, step)]
    else:
        months = [n for n, day in enumerate(days) if day.day == 1]
        with_year = {*months[:1], *(n for n in months if days[n].month == 1)} if not by_year else set()
        marked = [(n, f"{days[n]:%b}" + (f"\n{days[n]:%Y}" if n in with_year else "")) for n in months]
    # The mark of a day is in its middle, where days are wide, and at its edge where a month begins.
    shift = strip.across / 2 if step and not by_year else 0
    axes.set_xticks([n * strip.across + shift - 0.5 for n, _ in marked], [text for _, text in marked])
    hours = (0, 6, 12, 18)
    axes.set_yticks([hour * strip.down - 0.5 for hour in hours], [f"{hour:02}:00" for hour in hours])
    axes.tick_params(labelsize=7.5, length=3, colors="#444444")
    if by_year:
        axes.set_ylabel(f"{strip.first:%Y}", fontsize=9)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _write_title(figure: "Figure", table: pd.DataFrame, height: int) -> None:
    first, last = table["timestamp"].min(), table["timestamp"].max()
    there = (table["state"] == COLLECTED).mean()
    text = (
        f"Hours from {first:%Y-%m-%d %H:00} to {last:%Y-%m-%d %H:00} UTC: {np.floor(there * 1000) / 10:.1f} % are there"
    )
    figure.text(8 / (figure.get_size_inches()[0] * _DPI), 1 - 14 / height, text, fontsize=10, va="center")


def _draw_legend(figure: "Figure", top: int) -> None:
    bar = _axes(figure, (_LEFT, top + 14, 10 * _LEVELS, 10))
    bar.imshow(_levels()[None].repeat(10, axis=0).repeat(10, axis=1), aspect="auto")
    bar.set_xticks([0, 5 * _LEVELS, 10 * _LEVELS - 1], ["0 %", "50 %", "100 %"], fontsize=7.5)
    bar.set_title("usable share of the expected coins", fontsize=8, pad=3, loc="left")
    boxes = [_axes(figure, (_LEFT + 10 * _LEVELS + right, top + 14, 10, 10)) for right in (40, 120)]
    others = (MISSING_COLOUR, "missing"), (UNKNOWN_COLOUR, "there, not counted")
    for box, (colour, text) in zip(boxes, others, strict=True):
        box.imshow(np.full((10, 10, 3), colour, dtype=np.uint8), aspect="auto")
        box.set_xticks([])
        box.text(13, 4.5, text, fontsize=8, va="center")
        box.set_frame_on(False)
    for axes in (bar, *boxes):
        axes.set_yticks([])
        axes.tick_params(length=2, colors="#444444")
