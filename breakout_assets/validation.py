"""What must hold of every table: the rules behind the asset checks, as functions that return what they found.

`CHECKS` says which checks an asset has; each `check_*` function returns {check: what is wrong} for those that fail.
The order step asks the same functions before it trades: a check in the UI guards nothing by itself.
"""

from datetime import datetime
from typing import Final

import pandas as pd

from breakout_assets.dataset.labels import HORIZON
from breakout_assets.market.health import REDUCED_ROWS, HealthState, due_hour
from breakout_assets.market.snapshots import believed
from breakout_assets.tables import ROW_STATUSES

Findings = dict[str, str]

_UNIQUE: Final = "no token appears twice in an hour"
CHECKS: Final[dict[str, dict[str, str]]] = {
    "hourly_snapshots": {
        "row_count": "at least 95 % of the coins that the day before, or the other hours of the run, usually had",
        "unique_keys": _UNIQUE,
        "prices": "every price is a positive number",
    },
    "market_health": {"state": "the state is ACTIVE, REDUCE_ONLY or HALTED, and any but ACTIVE has a reason"},
    "daily_snapshots": {
        "hours_complete": "all 24 hours of the day have a snapshot",
        "unique_keys": _UNIQUE,
        "nulls": "every row has token, name, symbol and hour, and is of this day",
        "prices": "every row that is not quarantined has a positive price",
    },
    "labelled_dataset": {
        "row_count": "the day has rows that pass the filters",
        "unique_keys": _UNIQUE,
        "label_horizon_closed": "every label uses the price exactly 120 hours later, and only censored rows have none",
        "label_values": "y is 1 where the price rose by more than 10 %, else 0",
        "censored": "at most a fifth of the rows is censored",
    },
    "indicator_features": {
        "row_count": "exactly the rows of labelled_dataset",
        "unique_keys": _UNIQUE,
        "nulls": "every row has the indicators that need no warm-up",
        "ranges": "RSI and VWRSI lie in 0 to 100, the lower band below the upper one",
    },
    "token_model": {
        "metrics": "all five metrics of the held-out part lie in [0, 1]",
        "label_horizon_closed": "no label that the model was trained on ended after the time it was trained for",
        "all_trained": "every token of the run has enough history for a model",
    },
    "live_indicators": {
        "row_count": "exactly the coins of the snapshot",
        "unique_keys": _UNIQUE,
        "nulls": "every believed row has the indicators that need no warm-up",
        "ranges": "RSI and VWRSI lie in 0 to 100, the lower band below the upper one",
    },
    "predictions": {
        "row_count": "exactly one row for each token of live_indicators",
        "unique_keys": _UNIQUE,
        "probabilities": "every probability lies in [0, 1]",
        "reasons": "every row has a probability or the reason why there is none",
    },
    "out_of_sample": {
        "unique_keys": "no token appears twice in an hour of one twin",
        "probabilities": "every probability lies in [0, 1]",
        "label_horizon_closed": "every label ends exactly 120 hours after its row",
    },
    "model_report": {"edge_shown": "the evaluation shows an edge beyond luck and costs; without one nothing is bought"},
    "model_monitoring": {
        "no_realised_loss": "the last sixty trades have not lost more than two percent each, by their lower bound",
        "no_drift": "the features of the last two weeks are spread like those before, by the universe's own history",
    },
    "trade_orders": {
        "unique_keys": "no order id appears twice",
        "amounts": "every order has a positive quantity and price",
        "statuses": "every status is known, and refusals say why",
    },
}
# The largest share of censored rows that listings of a top 1,250 explain: 1.6 % leave it within five days, 3.1 % on
# the worst day seen; a missing hour of the future censors 4.2 % of a day.
CENSORED_SHARE: Final = 0.2
ROUNDING: Final = 1e-9  # what floating point may add to a value at the end of its range


def check_snapshot(market: pd.DataFrame, expected_rows: float | None) -> Findings:
    """One hour's market rows; `expected_rows` is the usual number of coins, if it is known."""
    found: Findings = {}
    if expected_rows and len(market) < REDUCED_ROWS * expected_rows:
        found["row_count"] = f"{len(market)} coins, {expected_rows:.0f} expected"
    quarantine = market["quarantine"].fillna("")
    twice = quarantine.str.contains("DUPLICATE|AMBIGUOUS_IDENTITY", regex=True)
    bad_price = quarantine.str.contains("PRICE_")
    if twice.any():
        found["unique_keys"] = f"listed twice: {_named(market[twice])}"
    if bad_price.any():
        found["prices"] = f"no usable price: {_named(market[bad_price])}"
    return found


def check_health(frame: pd.DataFrame) -> Findings:
    """One hour's verdict."""
    state, reasons = str(frame["state"].iloc[0]), str(frame["reasons"].iloc[0])
    if state not in set(HealthState):
        return {"state": f"unknown state {state}"}
    if state != HealthState.ACTIVE and not reasons:
        return {"state": f"{state} without a reason"}
    return {}


def check_day(rows: pd.DataFrame, hours: list[datetime]) -> Findings:
    """One day's market rows and the hours that had a raw file."""
    found = _unique(believed(rows))
    if len(hours) < 24:
        present = {hour.hour for hour in hours}
        absent = ", ".join(f"{hour:02d}" for hour in range(24) if hour not in present)
        found["hours_complete"] = f"no snapshot of the hours {absent}"
    incomplete = rows[["token", "name", "symbol", "timestamp"]].isna().any(axis=1) | (rows["token"] == "")
    if incomplete.any() or rows["timestamp"].dt.date.nunique() > 1:
        found["nulls"] = f"{int(incomplete.sum())} rows lack a key, or the rows are of several days"
    if not (believed(rows)["price"] > 0).all():
        found["prices"] = f"no usable price: {_named(believed(rows)[~(believed(rows)['price'] > 0)])}"
    return found


def check_labels(rows: pd.DataFrame) -> Findings:
    """Labelled rows of one day."""
    found = _unique(rows)
    labelled = rows[rows["label_status"] == "labelled"]
    censored = rows[rows["label_status"] == "censored"]
    if rows.empty:
        found["row_count"] = "no row passes the filters; the first seven days of a listing have no seven-day change"
    closed = (labelled["label_end"] - labelled["timestamp"] == HORIZON).all()
    empty = censored[["label_end", "y", "cal_price_change"]].isna().all(axis=None)
    if not (closed and empty and len(labelled) + len(censored) == len(rows)):
        found["label_horizon_closed"] = "a label ends at another time than 120 hours after its row, or is half there"
    up = (labelled["cal_price_change"].round(9) > 10).astype("Int8")
    if not (up == labelled["y"]).all():
        found["label_values"] = (
            f"y contradicts the price change: {_named(labelled[(up != labelled['y']).fillna(True)])}"
        )
    if len(rows) and len(censored) > CENSORED_SHARE * len(rows):
        found["censored"] = f"{len(censored)} of {len(rows)} rows have no price five days later"
    return found


def check_indicators(rows: pd.DataFrame, expected_rows: int) -> Findings:
    """Rows with indicators; `expected_rows` is the number of rows that were to get them."""
    usable = believed(rows) if "quarantine" in rows else rows
    found = _unique(usable)
    if len(rows) != expected_rows:
        found["row_count"] = f"{len(rows)} rows, {expected_rows} expected"
    usable = usable[usable["volume"].notna()]  # without a volume there is nothing to accumulate
    if usable[["OBV", "VPT"]].isna().any(axis=None):
        found["nulls"] = f"no OBV or VPT: {_named(usable[usable[['OBV', 'VPT']].isna().any(axis=1)])}"
    oscillators = usable[["RSI", "VWRSI"]]
    outside = (oscillators < -ROUNDING) | (oscillators > 100 + ROUNDING)
    crossed = usable["bollinger_lband"] > usable["bollinger_hband"]
    if outside.any(axis=None) or crossed.any():
        found["ranges"] = f"outside its range: {_named(usable[outside.any(axis=1) | crossed])}"
    return found


def check_model(metrics: dict[str, float], trained_until: datetime, as_of: datetime | None) -> Findings:
    """A model's metrics (NaN where one class makes a metric undefined) and its knowledge cut-off."""
    found: Findings = {}
    bad = {name: value for name, value in metrics.items() if value < 0 or value > 1}
    if bad:
        found["metrics"] = f"outside [0, 1]: {bad}"
    if as_of is not None and trained_until > as_of:
        found["label_horizon_closed"] = f"trained until {trained_until}, asked for {as_of}"
    return found


def check_predictions(rows: pd.DataFrame, expected_rows: int) -> Findings:
    """Predictions of one hour."""
    found = _unique(rows)
    if len(rows) != expected_rows:
        found["row_count"] = f"{len(rows)} rows, {expected_rows} expected"
    known = rows["probability"].notna()
    if not rows.loc[known, "probability"].between(0, 1).all():
        found["probabilities"] = f"outside [0, 1]: {_named(rows[known & ~rows['probability'].between(0, 1)])}"
    silent = ~known & rows["reason"].isna()
    bought = (rows["decision"] == "buy") & ~(rows["probability"] >= rows["threshold"])
    if silent.any() or bought.any():
        found["reasons"] = (
            f"neither probability nor reason, or bought below the threshold: {_named(rows[silent | bought])}"
        )
    return found


def check_out_of_sample(rows: pd.DataFrame) -> Findings:
    """An out-of-sample table."""
    found: Findings = {}
    twice = rows.duplicated(["twin", "token", "timestamp"])
    if twice.any():
        found["unique_keys"] = f"twice in an hour: {_named(rows[twice])}"
    outside = ~rows[["raw", "probability"]].apply(lambda column: column.between(0, 1)).all(axis=1)
    if outside.any():
        found["probabilities"] = f"outside [0, 1]: {_named(rows[outside])}"
    if not (rows["label_end"] - rows["timestamp"] == HORIZON).all():
        found["label_horizon_closed"] = "a label ends at another time than 120 hours after its row"
    return found


def check_orders(rows: pd.DataFrame) -> Findings:
    """Orders of one hour."""
    found: Findings = {}
    orders = rows[rows["status"] != "refused"]
    if orders["order_id"].duplicated().any() or orders["order_id"].isna().any():
        found["unique_keys"] = f"{int(orders['order_id'].duplicated().sum())} order ids appear twice"
    amounts = orders[["quantity", "price"]].astype("float64")
    if not (amounts > 0).all(axis=None):
        found["amounts"] = f"quantity or price is not positive: {_named(orders[~(amounts > 0).all(axis=1)])}"
    unknown = ~rows["status"].isin(ROW_STATUSES)
    mute = rows["status"].isin(["refused", "cancelled"]) & rows["reason"].isna()
    if unknown.any() or mute.any():
        found["statuses"] = f"{int(unknown.sum())} unknown statuses, {int(mute.sum())} refusals without a reason"
    return found


def check_newest_hour(newest: datetime | None, now: datetime) -> Findings:
    """Whether the newest raw snapshot is of the hour that has begun, or of the one before in its first minutes."""
    due = due_hour(now)
    if newest is None:
        return {"newest_hour_present": "no snapshot of the last days is in the store"}
    if newest < due:
        return {"newest_hour_present": f"the newest snapshot is of {newest}, {due} is due"}
    return {}


def _unique(rows: pd.DataFrame) -> Findings:
    twice = rows.duplicated(["token", "timestamp"], keep=False)
    return {"unique_keys": f"twice in an hour: {_named(rows[twice])}"} if twice.any() else {}


def _named(rows: pd.DataFrame) -> str:
    tokens = sorted({str(token) for token in rows["token"]})
    return ", ".join(tokens[:5]) + (f" and {len(tokens) - 5} more" if len(tokens) > 5 else "")
