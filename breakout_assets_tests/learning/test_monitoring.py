from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from breakout_assets.errors import DataError
from breakout_assets.learning.monitoring import LAST_TRADES, REALISED_LOSS, Realised, realised
from breakout_assets.tables import LABELLED_DATASET, PREDICTIONS, conform
from breakout_assets_tests.samples import at

START = pd.Timestamp("2024-03-01")
HORIZON = pd.Timedelta(hours=120)
COST = 0.015
UNTIL = at("2024-06-01 00:00")


def market(tokens: int = 4, days: int = 100, step: int = 6, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predictions and labels of the same hours; the most probable tenth is bought."""
    rng = np.random.default_rng(seed)
    hours = np.repeat(np.arange(0, days * 24, step), tokens)
    keys = pd.DataFrame(
        {
            "token": np.tile([f"T{k}-{k}" for k in range(tokens)], len(hours) // tokens),
            "timestamp": START + pd.to_timedelta(hours, unit="h"),
        }
    )
    change = rng.normal(1, 9, len(keys))
    probability = np.round(1 / (1 + np.exp(1.5 - change / 9 - rng.normal(size=len(keys)))), 9)
    predictions = keys.assign(
        probability=probability, threshold=0.5, decision=np.where(probability >= 0.5, "buy", "pass")
    )
    labelled = keys.assign(
        cal_price_change=change,
        y=(change > 10).astype(int),
        label_end=keys["timestamp"] + HORIZON,
        label_status="labelled",
    )
    return filled(predictions, "predictions"), filled(labelled, "labelled_dataset")


def filled(frame: pd.DataFrame, table: str) -> pd.DataFrame:
    """The frame with the table's other columns, without values."""
    columns = {"predictions": PREDICTIONS, "labelled_dataset": LABELLED_DATASET}[table]
    empty = {name: pd.Series(pd.NA, index=frame.index, dtype=kind) for name, kind in columns.items() if kind == "Int64"}
    return conform(frame.assign(**{name: empty.get(name, np.nan) for name in columns if name not in frame}), table)


def row(token: str, hour: str, decision: str = "buy", probability: float = 0.7) -> dict[str, object]:
    return {"token": token, "timestamp": at(hour), "decision": decision, "probability": probability}


def outcome(token: str, hour: str, change: float | None) -> dict[str, object]:
    return {
        "token": token,
        "timestamp": at(hour),
        "cal_price_change": change,
        "y": None if change is None else int(change > 10),
        "label_end": pd.Timestamp(at(hour)) + HORIZON,
        "label_status": "censored" if change is None else "labelled",
    }


def judged(predictions: list[dict[str, object]], outcomes: list[dict[str, object]]) -> Realised:
    return realised(
        filled(pd.DataFrame(predictions), "predictions"),
        filled(pd.DataFrame(outcomes), "labelled_dataset"),
        UNTIL,
        COST,
    )


def figures(found: Realised) -> dict[str, object]:
    """Everything but the series, NaN equal to NaN."""
    return {name: repr(value) for name, value in vars(found).items() if name != "daily"}


def test_figures_are_those_of_the_rows_whose_five_days_are_over() -> None:
    predictions, labelled = market()
    found = realised(predictions, labelled, UNTIL, COST)
    last = pd.Timestamp(UNTIL) - pd.Timedelta(hours=121)
    rows = predictions.merge(labelled[["token", "timestamp", "y", "cal_price_change"]], on=["token", "timestamp"])
    rows = rows[(rows["timestamp"] > last - pd.Timedelta(days=30)) & (rows["timestamp"] <= last)]
    flagged = rows["decision"] == "buy"
    assert found.rows == len(rows) == 30 * 4 * 4
    assert (found.first_hour, found.last_hour) == (at("2024-04-27 00:00"), at("2024-05-26 18:00"))
    assert found.base_rate.value == pytest.approx(rows["y"].mean())
    assert found.flagged == flagged.sum()
    assert found.precision.value == pytest.approx(rows.loc[flagged, "y"].mean())
    assert found.brier == pytest.approx(((rows["probability"] - rows["y"]) ** 2).mean())
    assert 0 < found.calibration_error < 1
    assert 0 < found.trades < found.flagged
    assert found.unresolved == 0


@pytest.mark.parametrize("until", [UNTIL, at("2024-04-10 07:00"), at("2024-03-06 00:00")])
def test_what_was_not_known_by_then_changes_nothing(until: datetime) -> None:
    predictions, labelled = market()
    known = realised(predictions, labelled[labelled["label_end"] <= until - timedelta(hours=1)], until, COST)
    later = labelled["label_end"] > until - timedelta(hours=1)
    lies = labelled.copy()
    lies.loc[later, ["y", "cal_price_change"]] = [1, 500.0]
    for labels in (labelled, lies):
        found = realised(predictions, labels, until, COST)
        assert figures(found) == figures(known)
        pd.testing.assert_frame_equal(found.daily, known.daily)


def test_a_label_counts_one_hour_after_it_has_ended() -> None:
    predictions = [row("A", "2024-05-26 23:00"), row("A", "2024-05-01 00:00")]
    outcomes = [outcome("A", "2024-05-26 23:00", 20), outcome("A", "2024-05-01 00:00", -5)]
    assert judged(predictions, outcomes).rows == 2
    assert judged([row("A", "2024-05-27 00:00"), predictions[1]], [outcome("A", "2024-05-27 00:00", 20)]).rows == 0
    late = outcome("A", "2024-05-26 23:00", 20) | {"label_end": at("2024-06-01 00:00")}
    assert judged(predictions, [late, outcomes[1]]).rows == 1


def test_a_token_is_bought_once_in_five_days() -> None:
    hours = ["2024-05-01 00:00", "2024-05-02 00:00", "2024-05-05 23:00", "2024-05-06 00:00"]
    found = judged([row("A", hour) for hour in hours], [outcome("A", hour, 20 + k) for k, hour in enumerate(hours)])
    assert (found.flagged, found.trades) == (4, 2)
    assert found.net_per_trade.value == pytest.approx((0.20 + 0.23) / 2 - COST)


def test_a_purchase_from_before_the_window_still_holds_its_token() -> None:
    hours = ["2024-04-24 00:00", "2024-04-27 00:00", "2024-05-10 00:00"]
    found = judged([row("A", hour) for hour in hours], [outcome("A", hour, 20) for hour in hours])
    assert (found.first_hour, found.flagged, found.trades, found.last_trades) == (at("2024-04-27 00:00"), 2, 1, 2)


def test_an_hour_that_was_not_to_be_traded_counts_for_brier_alone() -> None:
    buy, none = row("A", "2024-05-01 00:00"), row("B", "2024-05-01 00:00", "none", 0.9)
    outcomes = [outcome("A", "2024-05-01 00:00", 20), outcome("B", "2024-05-01 00:00", -20)]
    found = judged([buy, none], outcomes)
    assert (found.rows, found.flagged, found.trades, found.precision.value) == (2, 1, 1, 1.0)
    assert found.brier == pytest.approx((0.3**2 + 0.9**2) / 2)


def test_a_prediction_without_a_probability_counts_for_nothing() -> None:
    found = judged([row("A", "2024-05-01 00:00", "none", float("nan"))], [outcome("A", "2024-05-01 00:00", 20)])
    assert (found.rows, found.trades, found.first_hour) == (0, 0, None)


def test_a_purchase_whose_later_price_is_missing_is_counted_apart_and_holds_its_token() -> None:
    hours = ["2024-05-01 00:00", "2024-05-02 00:00"]
    found = judged([row("A", hour) for hour in hours], [outcome("A", hours[0], None), outcome("A", hours[1], 30)])
    assert (found.rows, found.trades, found.unresolved) == (1, 0, 1)
    assert np.isnan(found.net_per_trade.value)


def test_a_censored_label_counts_for_nothing_whatever_stands_beside_it() -> None:
    doubtful = outcome("A", "2024-05-01 00:00", 20) | {"label_status": "censored"}
    found = judged([row("A", "2024-05-01 00:00")], [doubtful])
    assert (found.rows, found.trades, found.unresolved) == (0, 0, 1)


def test_thirty_days_are_too_few_for_an_interval_and_ninety_are_enough() -> None:
    predictions, labelled = market(days=120)
    until = at("2024-06-29 00:00")
    short, long = (realised(predictions, labelled, until, COST, days) for days in (30, 90))
    assert (short.windows, short.precision.low, short.base_rate.low, short.net_per_trade.low) == (6, None, None, None)
    assert long.windows == 18
    for interval in (long.precision, long.base_rate, long.net_per_trade):
        assert interval.low is not None
        assert interval.high is not None
        assert interval.low < interval.value < interval.high


def purchases(changes: list[float], tokens: int = 10) -> Realised:
    """One purchase of each of ten tokens every five days, the last of them just known."""
    rounds = -(-len(changes) // tokens)
    first = pd.Timestamp("2024-05-26 00:00") - (rounds - 1) * HORIZON
    keys = [(f"T{k % tokens}", str(first + k // tokens * HORIZON)) for k in range(len(changes))]
    outcomes = [outcome(*key, change) for key, change in zip(keys, changes, strict=True)]
    return judged([row(*key) for key in keys], outcomes)


def test_a_proven_loss_over_the_last_sixty_trades_halts() -> None:
    found = purchases([-8.0, -4.0, 1.0] * 20)
    assert (found.last_trades, found.halt, found.reason) == (LAST_TRADES, True, REALISED_LOSS)
    assert found.last_net.value == pytest.approx(-0.11 / 3 - COST)


def test_fewer_than_sixty_trades_give_no_verdict() -> None:
    found = purchases(([-8.0, -4.0, 1.0] * 20)[1:])
    assert (found.last_trades, found.halt, found.reason) == (LAST_TRADES - 1, False, None)


def test_profits_and_small_losses_do_not_halt() -> None:
    assert not purchases([4.0, 6.0, 8.0] * 20).halt
    found = purchases([1.0] * 60)
    assert found.last_net.value == pytest.approx(-0.005)
    assert not found.halt


def test_old_losses_are_forgotten_after_sixty_trades() -> None:
    assert purchases([5.0] * 60 + [-20.0] * 60).halt
    assert not purchases([-20.0] * 60 + [5.0] * 60).halt


def test_bad_weeks_among_good_ones_halt_by_the_lower_bound() -> None:
    weeks = [[-25.0] * 10 if k % 3 == 0 else [16.0] * 10 for k in range(6)]
    found = purchases([change for week in weeks for change in week])
    assert found.last_net.value > 0
    assert found.last_net.low is not None
    assert found.last_net.low < -0.02
    assert found.halt


def test_sixty_trades_of_one_hour_are_judged_by_their_mean() -> None:
    for change, halt in ((-10.0, True), (1.0, False)):
        found = purchases([change] * 60, tokens=60)
        assert found.last_net.low == pytest.approx(change / 100 - COST)
        assert found.halt is halt


def test_draws_of_windows_without_a_trade_have_no_mean() -> None:
    days = ("2024-04-28 00:00", "2024-05-26 00:00")
    with np.errstate(all="raise"):
        found = judged([row("A", day) for day in days], [outcome("A", day, 5.0) for day in days])
    assert found.last_net.low == pytest.approx(0.05 - COST)
    assert found.last_net.high == pytest.approx(0.05 - COST)


def test_the_series_adds_up_to_the_window() -> None:
    predictions, labelled = market()
    found = realised(predictions, labelled, UNTIL, COST)
    daily = found.daily
    assert list(daily) == ["day", "rows", "flagged", "precision", "brier", "net"]
    assert daily["day"].is_monotonic_increasing
    assert (daily["rows"].sum(), daily["flagged"].sum()) == (found.rows, found.flagged)
    assert daily["net"].sum() == pytest.approx(found.net_per_trade.value * found.trades)
    assert (daily["brier"] * daily["rows"]).sum() / found.rows == pytest.approx(found.brier)
    hits = (daily["precision"] * daily["flagged"]).sum()
    assert hits / found.flagged == pytest.approx(found.precision.value)
    assert daily.loc[daily["flagged"] == 0, "precision"].isna().all()


def test_nothing_to_look_at_is_an_answer() -> None:
    predictions, labelled = market()
    found = realised(predictions.iloc[:0], labelled, UNTIL, COST)
    assert (found.rows, found.trades, found.windows, found.halt, found.first_hour) == (0, 0, 0, False, None)
    assert np.isnan([found.brier, found.calibration_error, found.base_rate.value, found.precision.value]).all()
    assert list(found.daily) == ["day", "rows", "flagged", "precision", "brier", "net"]
    assert found.daily.empty


def test_the_order_of_rows_does_not_matter() -> None:
    predictions, labelled = market()
    mixed = realised(predictions.sample(frac=1, random_state=1), labelled.sample(frac=1, random_state=2), UNTIL, COST)
    expected = realised(predictions, labelled, UNTIL, COST)
    assert (mixed.trades, mixed.precision, mixed.halt) == (expected.trades, expected.precision, expected.halt)
    assert mixed.last_net == expected.last_net


def test_impossible_requests_are_refused() -> None:
    predictions, labelled = market(days=3)
    with pytest.raises(DataError, match=r"predictions lacks the columns decision\b"):
        realised(predictions.drop(columns="decision"), labelled, UNTIL, COST)
    with pytest.raises(DataError, match="labelled_dataset lacks the columns y, label_end"):
        realised(predictions, labelled.drop(columns=["y", "label_end"]), UNTIL, COST)
    with pytest.raises(DataError, match=r"predictions: T0-0 has the hour 2024-03-01 00:00:00 more than once"):
        realised(pd.concat([predictions, predictions.iloc[:1]]), labelled, UNTIL, COST)
    with pytest.raises(DataError, match=r"labelled_dataset: T1-1 has the hour 2024-03-01 00:00:00 more than once"):
        realised(predictions, pd.concat([labelled, labelled.iloc[1:2]]), UNTIL, COST)
    unfounded = predictions.assign(probability=np.nan, decision="buy")
    with pytest.raises(DataError, match="T0-0 at 2024-03-01 00:00:00 is to be bought without a probability"):
        realised(unfounded, labelled, UNTIL, COST)
    with pytest.raises(DataError, match="hours are naive UTC"):
        realised(predictions, labelled, at("2024-06-01T00:00+00:00"), COST)
    with pytest.raises(DataError, match="a window of 0 days"):
        realised(predictions, labelled, UNTIL, COST, 0)
