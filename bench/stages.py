"""The stages that are measured: what the published way does, what the platform does, and when the two are equal."""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from bench import source, source_reading
from bench.world import HORIZON_DAYS, World, pickled
from breakout_assets.dataset import compiling
from breakout_assets.dataset.features import HISTORY_COLUMNS, days_of_look_back, with_indicators
from breakout_assets.dataset.indicators import INDICATOR_COLUMNS, LOOKBACK, window_indicators
from breakout_assets.dataset.labels import HORIZON, MARKET_COLUMNS, SEGMENT_COLUMNS, label_days
from breakout_assets.learning.predicting import ModelShelf, predict_hour
from breakout_assets.learning.published import history_indicators
from breakout_assets.learning.serving import serving_models
from breakout_assets.market.history import hour_of_rows, read_days, read_newest

# What is timed; whatever comes before it is set up outside the clock.
Work = Callable[[], Any]
HOUR: Final = timedelta(hours=1)
_KEY: Final = ("token", "timestamp")
_MARKET: Final = ("price", "volume", *source_reading.COLUMNS[5:])
# Of a sum of money over a window, and of prices; how near the same value comes by another order of additions.
_ROUNDING: Final = 1e-9
_DECIMALS: Final = (
    1e-6  # the published query rounds prices to 15 decimals, and there are coins at a millionth of a cent
)
_EXACT_IN_WINDOWS: Final = ("RSI", "EMA_9", "EMA_21", "MACD", "MACD_signal")
# Bands as well, but `ta` keeps a running sum of squares whose errors grow with the prices that it has left behind.
_BANDS: Final = dict.fromkeys(("bollinger_hband", "bollinger_lband"), 1e-7)
_WINDOW_TOLERANCES: Final = {**dict.fromkeys(INDICATOR_COLUMNS, _ROUNDING), **_BANDS}
_SAMPLED_COINS: Final = 25  # windows of so many coins stand for all: one by one they would take hours


@dataclass(frozen=True)
class Stage:
    """One row of the report.

    Attributes:
        title: for people.
        sides: what is timed by name, the published way as `source`.
        exact: columns of the results that must be equal to the last bit.
        near: columns that may differ, with the largest difference relative to the value or to its scale.
        least: the ratio of CPU seconds that each side promises at 1,250 coins and 90 days.
        units: how much of the stage's work a side does, where that is not the same.
        compared: of what a side gives, the rows that must be the same on all sides.
        note: what a reader must know of the comparison.
    """

    title: str
    sides: Mapping[str, Callable[[World], Work]]
    exact: Sequence[str] = ()
    near: Mapping[str, float] = field(default_factory=dict)
    least: Mapping[str, float] = field(default_factory=dict)
    units: Callable[[World], Mapping[str, float]] = lambda _: {}
    compared: Callable[[World, Any], pd.DataFrame] = lambda _, rows: rows
    note: str = ""


# Reading -----------------------------------------------------------------------------------------------------------


def _read_source(world: World) -> Work:
    files = source_reading.hours(Path(world.root), world.measured_hours)
    return lambda: source_reading.read(files)


def _read(world: World) -> Work:
    store, columns = world.store, ["id", *source_reading.COLUMNS[1:3], *_MARKET]
    read_days(store, world.measured_days[:1], columns)  # imports what reads
    return lambda: read_days(store, world.measured_days, columns)


# Labels ------------------------------------------------------------------------------------------------------------


def _label_source(world: World) -> Work:
    rows = source_reading.read(source_reading.hours(Path(world.root), world.measured_hours))
    return lambda: source.label(rows)


def _label(world: World) -> Work:
    """So many days at a time as the asset joins; what is compared of each that it hands over to be written is kept."""
    from breakout_assets.defs.dataset import DAYS_AT_ONCE

    market = read_days(world.store, world.measured_days, MARKET_COLUMNS)
    days = world.measured_days[:-HORIZON_DAYS]
    day_of_row = market["timestamp"].to_numpy().astype("datetime64[D]")
    parts = [days[n : n + DAYS_AT_ONCE] for n in range(0, len(days), DAYS_AT_ONCE)]
    compared = ["id", "timestamp", "price", "cal_price_change", "y"]

    def work() -> list[pd.DataFrame]:
        found = []
        with duckdb.connect() as connection:
            for part in parts:
                first, last = np.array([part[0], part[-1] + HORIZON], "datetime64[D]")
                rows = market[np.searchsorted(day_of_row, first) : np.searchsorted(day_of_row, last, "right")]
                between = rows[list(SEGMENT_COLUMNS)]
                found += [labels[compared] for _, labels in label_days(rows, between, part, connection)]
        return found

    return work


def _labelled(_: World, found: pd.DataFrame | list[pd.DataFrame]) -> pd.DataFrame:
    rows = found if isinstance(found, pd.DataFrame) else pd.concat(found)
    return rows[rows["y"].notna()]


# Indicators --------------------------------------------------------------------------------------------------------


def _history(world: World) -> pd.DataFrame:
    rows = read_days(world.store, world.measured_days, HISTORY_COLUMNS)
    return rows.sort_values(list(_KEY), kind="stable", ignore_index=True)


def _indicate_source(world: World) -> Work:
    rows = _history(world).rename(columns={"volume": "volume_24h"})
    return lambda: source.indicators(rows, "token")


def _indicate_history(world: World) -> Work:
    rows = _history(world)
    return lambda: rows.assign(**history_indicators(rows))


def _indicate_range(world: World) -> Work:
    rows, hours = _history(world), world.measured_hours

    def work() -> pd.DataFrame:
        with patch.object(compiling, "_REPAID_FROM", math.inf):
            found = window_indicators(rows, [hours[0], hours[-1]])
        return found.assign(price=rows["price"], volume=rows["volume"])  # which are in the same order

    return work


def _indicate_range_compiled(world: World) -> Work:
    if not compiling.load_compiled(sys.maxsize):
        raise RuntimeError("There is no compiled code without the extra `fast`: pip install -e '.[fast]'.")
    hour = _history(world).head(1)
    window_indicators(hour, list(hour["timestamp"]))  # reads the machine code, as an import reads a module
    return _indicate_range(world)


def _with_whole_windows(world: World, rows: pd.DataFrame) -> pd.DataFrame:
    """Rows whose window is all the history that there is."""
    return rows[rows["timestamp"] < world.measured_hours[0] + LOOKBACK]


def _indicate_windows_source(world: World) -> Work:
    """`ta` over the 720 hours that end at an hour, for each hour of the newest day and some coins."""
    rows = _history(world).rename(columns={"volume": "volume_24h"})
    coins = rows["token"].unique()[:: max(1, rows["token"].nunique() // _SAMPLED_COINS)][:_SAMPLED_COINS]
    rows = rows[rows["token"].isin(coins)]
    hours = world.measured_hours[-24:]

    def work() -> pd.DataFrame:
        windows = [rows[rows["timestamp"].between(hour - LOOKBACK + HOUR, hour)] for hour in hours]
        made = [source.indicators(window, "token") for window in windows]
        return pd.concat([part[part["timestamp"] == hour] for part, hour in zip(made, hours, strict=True)])

    return work


def _windows(world: World) -> Mapping[str, float]:
    paths = [str(world.store.table_path("daily_snapshots", day)) for day in world.measured_days]
    rows = sum(pq.read_metadata(path).num_rows for path in paths)
    return {"source": 24 * min(_SAMPLED_COINS, world.tokens), "": rows}


# Models ------------------------------------------------------------------------------------------------------------


def _questions(world: World) -> pd.DataFrame:
    """One row of features for each model."""
    models = serving_models(world.store, world.recipe).about.index
    rng = np.random.default_rng(1)
    table = serving_models(world.store, world.recipe).table
    mean, scale = (np.array(table[column].to_pylist()) for column in ("mean", "scale"))
    values = mean + scale * rng.normal(size=mean.shape)
    return pd.DataFrame(values, columns=list(world.recipe.features)).assign(token=models, timestamp=world.last_hour)


def _serve_source(world: World) -> Work:
    files = {file.stem: file for file in sorted(pickled(world).glob("*.pickle"))}
    questions = _questions(world).set_index("token")[list(source.FEATURES)]
    rows = {str(token): values for token, values in zip(questions.index, questions.to_numpy(), strict=True)}

    def work() -> pd.DataFrame:
        found = source.predict(source.load(files), rows)
        return pd.DataFrame({"token": found.keys(), "score": found.values()}).assign(timestamp=world.last_hour)

    return work


def _serve(world: World) -> Work:
    questions = _questions(world)
    values = questions[list(world.recipe.features)].to_numpy()

    def work() -> pd.DataFrame:
        models = serving_models(world.store, world.recipe)
        return questions[[*_KEY]].assign(score=models.scores(np.arange(len(values)), values))

    return work


# The hourly tick ---------------------------------------------------------------------------------------------------


def _tick_source(world: World) -> Work:
    hour = world.last_hour
    files = source_reading.hours(Path(world.root), [hour - n * HOUR for n in reversed(range(LOOKBACK // HOUR))])
    pickles = {file.stem: file for file in sorted(pickled(world).glob("*.pickle"))}

    def work() -> pd.DataFrame:
        rows = source.indicators(source_reading.read(files))
        rows = rows[rows["timestamp"] == hour].rename(columns={"volume_24h": "volume"})
        rows = rows.dropna(subset=list(source.FEATURES))
        rows = _named(rows).set_index("token")
        values = dict(zip(rows.index, rows[list(source.FEATURES)].to_numpy(dtype=np.float64), strict=True))
        models = {token: model for token, model in source.load(pickles).items() if token in values}
        found = source.predict(models, values)
        return pd.DataFrame({"token": found.keys(), "score": found.values()}).assign(timestamp=hour)

    return work


def tick(world: World) -> Work:
    """What an hour computes, from the files of the market to a score for each coin."""
    hour = world.last_hour
    sound = _undoubted(world, hour.date())

    def work() -> pd.DataFrame:
        newest, market = read_newest(world.store, (hour - LOOKBACK + HOUR).date(), hour, HISTORY_COLUMNS)
        live = with_indicators(hour_of_rows(newest, hour), market, hour, hour)
        rows = predict_hour(live, ModelShelf(world.store, world.recipe), hour, None, trusting=True)
        return _among(sound, rows.loc[rows["model_scope"] == "token", [*_KEY, "score"]])

    return work


# A day in a backfill ------------------------------------------------------------------------------------------------


def _day(world: World) -> datetime:
    """The newest day that has labels."""
    return datetime.combine(world.measured_days[-1], datetime.min.time()) - HORIZON


def _backfill_source(world: World) -> Work:
    """One partition as the published way makes it: read what it needs, join, group, apply."""
    last = _day(world) + timedelta(hours=23)
    hours = [last - LOOKBACK + n * HOUR for n in range(1, (LOOKBACK + HORIZON) // HOUR + 1)]
    files = source_reading.hours(Path(world.root), hours)

    def work() -> pd.DataFrame:
        rows = source_reading.read(files)
        labels = source.label(rows[rows["timestamp"] >= _day(world)])
        labels = labels[labels["timestamp"] <= last]
        made = source.indicators(rows[rows["timestamp"] <= last])
        rows = labels.merge(made[["id", "timestamp", *INDICATOR_COLUMNS]], on=["id", "timestamp"])
        # Only in the day's last hour do the published way's windows begin where the platform's do.
        return _named(rows[rows["timestamp"] == last])

    return work


def _stored_day(world: World) -> Work:
    day = _day(world).date()
    return lambda: _labelled(world, world.store.read_table("indicator_features", [day]))


def _undoubted_labels(world: World, rows: pd.DataFrame) -> pd.DataFrame:
    return _among(_undoubted(world, _day(world).date()), rows)


def _undoubted(world: World, day: date) -> pd.Series:
    """Coins no row of which was quarantined from the look-back of a day to the future that its labels tell.

    The published way believes every row.
    """
    days = [each for each in (*days_of_look_back(day), day + HORIZON) if world.store.has_table("daily_snapshots", each)]
    rows = world.store.read_table("daily_snapshots", days, ["token", "quarantine"])
    doubted = rows["token"][rows["quarantine"].notna()].unique()
    return rows["token"][~rows["token"].isin(doubted)].drop_duplicates()


def _among(tokens: pd.Series, rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["token"].isin(tokens)]


def _named(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(token=rows["symbol"] + "-" + rows["id"].astype("int64").astype("str"))


STAGES: Final[Mapping[str, Stage]] = {
    "reading": Stage(
        "read the days, 10 columns",
        {"source": _read_source, "daily files": _read},
        exact=_MARKET,
        least={"daily files": 20},
    ),
    "labels": Stage(
        "labels",
        {"source": _label_source, "hash join": _label},
        exact=("price", "y"),
        near={"cal_price_change": _DECIMALS},
        least={"hash join": 2},
        compared=_labelled,
        note="The published query rounds prices to 15 decimals.",
    ),
    "history": Stage(
        "indicators over whole histories, as published",
        {"source": _indicate_source, "side by side": _indicate_history},
        exact=INDICATOR_COLUMNS,
        least={"side by side": 2.3},
    ),
    "range": Stage(
        "indicators of all rows, by windows",
        {"source": _indicate_source, "numpy": _indicate_range, "compiled": _indicate_range_compiled},
        exact=_EXACT_IN_WINDOWS,
        near={name: bound for name, bound in _WINDOW_TOLERANCES.items() if name not in _EXACT_IN_WINDOWS},
        least={"numpy": 2.3, "compiled": 20},
        compared=_with_whole_windows,
        note="The published way reads whole histories; compared are the rows whose history is a window: those of the "
        "first 720 hours. Loading the compiled code is outside the clock, as all imports are.",
    ),
    "windows": Stage(
        "indicators, every 720-hour window",
        {"source": _indicate_windows_source, "shared passes": _indicate_range},
        near=_WINDOW_TOLERANCES,
        units=_windows,
        note=f"The published way was sampled: {_SAMPLED_COINS} coins, the windows of one day.",
    ),
    "serving": Stage(
        "load all models and ask each about one row",
        {"source": _serve_source, "packed": _serve},
        exact=("score",),
        least={"packed": 100},
        note="Scores are rounded to nine digits on both sides, after the last bit has been computed.",
    ),
    "tick": Stage(
        "an hour: read, indicators, load, predict",
        {"source": _tick_source, "platform": tick},
        near={"score": 1e-6},
        least={"platform": 20},
        note="The published way reads 30 days here, not all.",
    ),
    "backfill": Stage(
        "labels and indicators, a day",
        {"source": _backfill_source, "stored": _stored_day},
        exact=("price", "y"),
        near={"cal_price_change": _DECIMALS, **_WINDOW_TOLERANCES},
        compared=_undoubted_labels,
        note="The published way makes a day by itself, since its indicators begin where its rows do; compared are the "
        "rows of the day's last hour. The platform's side is a whole Dagster run, start included.",
    ),
}
