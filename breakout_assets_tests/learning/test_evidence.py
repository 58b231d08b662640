import json
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
from scipy.signal import lfilter
from sklearn.metrics import (
    accuracy_score,
    brier_score_loss,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)

from breakout_assets.errors import DataError
from breakout_assets.learning.evidence import (
    ECE_LIMIT,
    Evaluation,
    Interval,
    Placebo,
    Scores,
    Verdict,
    evaluate_table,
    evidence_json,
    read_verdict,
    verdict,
)
from breakout_assets.learning.statistics import hours_of
from breakout_assets_tests.learning.bootstrap import block_bootstrap
from breakout_assets_tests.learning.examples import START

COST = 0.015


def predictions(days: int = 100, tokens: int = 4, twins: int = 20, skill: float = 1.0, seed: int = 0) -> pd.DataFrame:
    """A table of out-of-sample predictions whose probabilities know the future as far as `skill` goes; twins know
    nothing."""
    return pd.concat(
        [_twin(twin, days, tokens, skill if twin == 0 else 0.0, seed) for twin in range(twins + 1)], ignore_index=True
    )


def _twin(twin: int, days: int, tokens: int, skill: float, seed: int) -> pd.DataFrame:
    rng, count = np.random.default_rng([seed, twin]), days * 24
    common, frames = rng.standard_normal(count + 120), []
    for token in range(tokens):
        moves = 0.0078 * (0.6 * common + 0.8 * rng.standard_normal(count + 120))
        price = np.cumsum(moves)
        change = 100 * np.expm1(price[120:] - price[:-120])
        other = lfilter([0.2], [1, -0.98], rng.standard_normal(count + 300))[300:]
        raw = 1 / (1 + np.exp(3 - 0.15 * skill * change - other))
        frames.append(
            pd.DataFrame(
                {
                    "twin": np.int32(twin),
                    "fold": (np.arange(count) // (count // 2)).astype(np.int32),
                    "recipe_id": "0123456789abcdef",
                    "token": ("BTC-1", "ETH-2", "SOL-3", "DOGE-4", "XRP-5")[token],
                    "timestamp": START + pd.to_timedelta(np.arange(count), unit="h").as_unit("us"),
                    "label_end": START + pd.to_timedelta(np.arange(count) + 120, unit="h").as_unit("us"),
                    "y": (change > 10).astype(np.int8),
                    "change": change,
                    "price": 100 * np.exp(price[:-120]),
                    "volume": 1e6,
                    "momentum": np.r_[np.full(168, np.nan), 100 * np.expm1(price[168:-120] - price[: -168 - 120])],
                    "raw": np.round(raw, 4),
                    "probability": np.round(0.8 * raw, 4),
                    "threshold": np.where(np.arange(count) < count // 2, 0.3, 0.4),
                    "scope": "pooled",
                    "logistic": np.round(raw**2, 4) if twin == 0 else np.nan,
                }
            )
        )
    table = pd.concat(frames, ignore_index=True)
    return table if twin == 0 else table[(table["timestamp"].dt.hour % 6 == 0).to_numpy()]


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return predictions()


@pytest.fixture(scope="module")
def evaluation(table: pd.DataFrame) -> Evaluation:
    return evaluate_table(table.sample(frac=1, random_state=0), cost=COST, reference_only=False, seed=3)


def real(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["twin"] == 0].sort_values(["timestamp", "token"], ignore_index=True)


def bought(rows: pd.DataFrame, flagged: pd.Series) -> pd.DataFrame:
    """The trades, one after the other by hand."""
    free: dict[str, int] = {}
    entries: list[int] = []
    tokens, hours = rows["token"].tolist(), hours_of(rows["timestamp"]).tolist()
    for position in np.flatnonzero(flagged).tolist():
        token, hour = tokens[position], hours[position]
        if hour >= free.get(token, 0):
            free[token] = hour + 120
            entries.append(position)
    trades = rows.iloc[entries]
    return trades.assign(net=trades["change"] / 100 - COST)


def bounds(rows: pd.DataFrame, values: pd.Series) -> tuple[float, float]:
    """Block-bootstrap bounds of a mean over the rows that have a value."""
    return block_bootstrap(hours_of(rows["timestamp"]), lambda at: float(values.iloc[at].mean()), seed=3)


def test_the_counts_are_those_of_the_market_itself(table: pd.DataFrame, evaluation: Evaluation) -> None:
    rows = real(table)
    assert evaluation.recipe_id == "0123456789abcdef"
    assert evaluation.first_hour == START
    assert evaluation.last_hour == START + pd.Timedelta(hours=2399)
    assert evaluation.evaluated_until == START + pd.Timedelta(hours=2519)
    assert (evaluation.rows, evaluation.tokens, evaluation.windows) == (9600, 4, 20)
    assert evaluation.positives == (rows["change"] > 10).sum()
    episodes = 0
    for _, of_token in rows[rows["y"] == 1].groupby("token"):
        gap = of_token["timestamp"].diff()
        episodes += int((gap.isna() | (gap >= pd.Timedelta(hours=120))).sum())
    assert evaluation.episodes == episodes
    # Inside a token 120 labels are alive at once but for the first and the last 119 hours, where it is 1, 2, … 119.
    alive = np.minimum(np.minimum(np.arange(1, 2520), np.arange(2519, 0, -1)), 120)
    once = sum((1 / alive[k : k + 120]).mean() for k in range(2400))
    assert evaluation.independent_labels == pytest.approx(4 * once)


def test_base_rate_and_aucs_come_with_their_intervals(table: pd.DataFrame, evaluation: Evaluation) -> None:
    rows = real(table)
    assert evaluation.base_rate.value == pytest.approx(rows["y"].mean())
    assert (evaluation.base_rate.low, evaluation.base_rate.high) == pytest.approx(
        bounds(rows, rows["y"].astype("float64"))
    )
    for column, auc in (("probability", evaluation.auc), ("logistic", evaluation.logistic_auc)):
        assert auc.value == pytest.approx(roc_auc_score(rows["y"], rows[column]))
        assert auc.low is not None
        assert auc.high is not None
        assert auc.low < auc.value < auc.high
    y, p = rows["y"].to_numpy(), rows["probability"].to_numpy()
    few = block_bootstrap(hours_of(rows["timestamp"]), lambda at: float(roc_auc_score(y[at], p[at])), draws=150, seed=3)
    assert (evaluation.auc.low, evaluation.auc.high) == pytest.approx(few, abs=0.02)


def test_probabilities_are_judged_calibrated_and_raw(table: pd.DataFrame, evaluation: Evaluation) -> None:
    rows = real(table)
    y, p = rows["y"], rows["probability"]
    assert evaluation.mean_probability == pytest.approx(p.mean())
    assert evaluation.brier == pytest.approx(brier_score_loss(y, p))
    assert evaluation.brier_skill == pytest.approx(1 - brier_score_loss(y, p) / (y.mean() * (1 - y.mean())))
    for column, found in (("probability", evaluation.ece), ("raw", evaluation.ece_raw)):
        cut = pd.cut(rows[column], np.linspace(0, 1, 11).tolist(), include_lowest=True)
        by = rows.groupby(cut, observed=True)
        assert found == pytest.approx(((by[column].mean() - by["y"].mean()).abs() * by.size()).sum() / len(rows))
    cut = pd.cut(p, np.linspace(0, 1, 11).tolist(), include_lowest=True)
    by = rows.groupby(cut, observed=True)
    bins = evaluation.calibration
    assert bins["rows"].tolist() == by.size().tolist()
    assert bins["bin"].tolist() == sorted(set(cut.cat.codes))
    assert bins["predicted"].tolist() == pytest.approx(by["probability"].mean().tolist())
    assert bins["observed"].tolist() == pytest.approx(by["y"].mean().tolist())
    first = rows["y"].astype("float64").where(cut.cat.codes == 0)
    assert (bins["low"].iloc[0], bins["high"].iloc[0]) == pytest.approx(bounds(rows, first))


@pytest.mark.parametrize("which", ["own", "published"])
def test_scores_are_those_of_scikit_learn_and_of_trades_by_hand(
    table: pd.DataFrame, evaluation: Evaluation, which: str
) -> None:
    rows = real(table)
    own = which == "own"
    flagged = rows["probability"] >= rows["threshold"] if own else rows["raw"] >= 0.6
    found: Scores = evaluation.own if own else evaluation.published
    y = rows["y"]
    assert found.threshold == pytest.approx(0.35 if own else 0.6)  # half of the rows has .3, the other .4
    assert found.flagged_share == pytest.approx(flagged.mean())
    assert found.precision.value == pytest.approx(precision_score(y, flagged))
    assert found.recall == pytest.approx(recall_score(y, flagged))
    assert found.f1 == pytest.approx(f1_score(y, flagged))
    assert found.accuracy == pytest.approx(accuracy_score(y, flagged))
    assert found.lift == pytest.approx(precision_score(y, flagged) / y.mean())
    trades = bought(rows, flagged)
    assert found.trades == len(trades)
    assert found.net_per_trade.value == pytest.approx(trades["net"].mean())
    assert found.net_sum == pytest.approx(trades["net"].sum())
    running = np.r_[0.0, trades.sort_values("label_end").groupby("label_end")["net"].sum().cumsum()]
    deepest = max(running[:k].max() - running[k] for k in range(1, len(running)))
    assert found.max_drawdown == pytest.approx(max(0.0, deepest))
    won, lost = (rows.loc[flagged & (y == k), "change"].mean() / 100 for k in (1, 0))
    assert found.achieved_break_even == pytest.approx((COST - lost) / (won - lost))
    # Above it, and only above it, the flagged rows earned money on average.
    earned = (rows.loc[flagged, "change"] / 100 - COST).mean() > 0
    assert (found.precision.value > found.achieved_break_even) == earned
    for interval, values in (
        (found.precision, y.astype("float64").where(flagged)),
        (found.net_per_trade, trades["net"].reindex(rows.index)),
    ):
        assert (interval.low, interval.high) == pytest.approx(bounds(rows, values))


def test_each_token_has_its_line(table: pd.DataFrame, evaluation: Evaluation) -> None:
    rows, lines = real(table), evaluation.per_token
    assert lines["token"].tolist() == ["BTC-1", "DOGE-4", "ETH-2", "SOL-3"]
    noise = [
        roc_auc_score(part["y"], part["probability"])
        for _, part in table[table["twin"] > 0].groupby(["twin", "token"])
        if part["y"].nunique() == 2
    ]
    p_values = []
    for line in lines.itertuples():
        part = rows[rows["token"] == line.token]
        flagged = part["probability"] >= part["threshold"]
        assert (line.rows, line.positives, line.flagged) == (2400, part["y"].sum(), flagged.sum())
        assert line.auc == pytest.approx(roc_auc_score(part["y"], part["probability"]))
        assert line.precision == pytest.approx(part.loc[flagged, "y"].mean())
        thinned = part[part["timestamp"].dt.hour % 6 == 0]
        here = roc_auc_score(thinned["y"], thinned["probability"])
        p_values.append((1 + sum(auc >= here for auc in noise)) / (len(noise) + 1))
    order = np.argsort(p_values)
    stepped = np.array(p_values)[order] * 4 / np.arange(1, 5)
    expected = np.empty(4)
    expected[order] = np.minimum.accumulate(stepped[::-1])[::-1]
    assert lines["q_value"].tolist() == pytest.approx(expected.tolist())
    assert lines["episodes"].sum() == evaluation.episodes
    assert evaluation.auc_quartiles == pytest.approx(tuple(np.quantile(lines["auc"], [0.25, 0.5, 0.75])))


def test_the_placebo_compares_on_the_hours_of_the_twins(table: pd.DataFrame, evaluation: Evaluation) -> None:
    rows = real(table)
    thinned = rows[rows["timestamp"].dt.hour % 6 == 0]
    aucs = [roc_auc_score(t["y"], t["probability"]) for _, t in table[table["twin"] > 0].groupby("twin")]
    found = evaluation.placebo
    assert found.observed == pytest.approx(roc_auc_score(thinned["y"], thinned["probability"]))
    assert list(found.twins) == pytest.approx(aucs)
    assert found.mean == pytest.approx(np.mean(aucs))
    assert found.sd == pytest.approx(np.std(aucs, ddof=1))
    assert found.p == pytest.approx(1 / 21)


def test_striking_tokens_are_counted_beside_those_expected_from_noise() -> None:
    table = predictions(days=30, skill=3.0, twins=6)
    lucky = (table["twin"] == 2) & table["token"].isin(["BTC-1", "SOL-3"])
    table["probability"] = table["probability"].where(~lucky, 0.1 + 0.8 * table["y"])
    found = evaluate_table(table, cost=COST, reference_only=False)
    striking = {
        key: roc_auc_score(part["y"], part["probability"]) >= 0.89
        for key, part in table[table["timestamp"].dt.hour % 6 == 0].groupby(["twin", "token"])
        if part["y"].nunique() == 2
    }
    assert found.tokens_at_least_089 == sum(hit for (twin, _), hit in striking.items() if twin == 0) > 0
    expected = sum(hit for (twin, _), hit in striking.items() if twin > 0) / 6
    assert found.expected_at_least_089 == pytest.approx(expected)
    assert expected >= 2 / 6


def test_a_real_signal_gets_the_badge(evaluation: Evaluation) -> None:
    assert evaluation.verdict == Verdict(True, ())


def test_the_curve_is_that_of_the_probability(table: pd.DataFrame, evaluation: Evaluation) -> None:
    rows = real(table)
    point = evaluation.curve[np.isclose(evaluation.curve["threshold"], 0.6)].iloc[0]
    flagged = rows["probability"] >= 0.6
    assert point["precision"] == pytest.approx(rows.loc[flagged, "y"].mean())
    assert point["trades"] == len(bought(rows, flagged))


def test_noise_gets_no_badge() -> None:
    for seed in range(2):
        found = evaluate_table(predictions(skill=0.0, seed=seed, tokens=3), cost=COST, reference_only=False)
        assert "PLACEBO" in found.verdict.reasons
        assert "NOT_PROFITABLE" in found.verdict.reasons


def test_a_short_table_has_no_interval_and_no_badge() -> None:
    found = evaluate_table(predictions(days=70), cost=COST, reference_only=False)  # 14 windows
    assert found.windows == 14
    for interval in (found.base_rate, found.auc, found.logistic_auc, found.own.precision, found.own.net_per_trade):
        assert (interval.low, interval.high) == (None, None)
    assert found.calibration[["low", "high"]].isna().all(axis=None)
    assert found.curve[["net_low", "net_high"]].isna().all(axis=None)
    assert found.verdict.reasons == ("TOO_FEW_WINDOWS", "NOT_PROFITABLE")


def test_without_twins_nothing_is_compared(table: pd.DataFrame) -> None:
    found = evaluate_table(table[table["twin"] == 0], cost=COST, reference_only=False)
    assert found.verdict.reasons == ("NO_TWINS",)
    assert (found.placebo.twins, found.placebo.p, found.expected_at_least_089) == ((), None, None)
    assert np.isnan([found.placebo.mean, found.placebo.sd]).all()
    assert found.per_token["q_value"].isna().all()
    assert found.placebo.observed == pytest.approx(found.auc.value)


def test_where_nothing_is_flagged_all_is_zero_but_the_accuracy() -> None:
    table = predictions(twins=1).assign(threshold=np.nan)
    found = evaluate_table(table, cost=COST, reference_only=False).own
    assert found.accuracy == pytest.approx(1 - real(table)["y"].mean())
    nothing = Interval(0.0, None, None)
    assert found == Scores(None, 0.0, nothing, 0.0, 0.0, found.accuracy, 0.0, 0, nothing, 0.0, 0.0, 0.0)


def test_one_class_leaves_undefined_what_is_undefined() -> None:
    table = predictions(twins=20).assign(y=np.int8(0))
    found = evaluate_table(table, cost=COST, reference_only=False)
    assert np.isnan([found.auc.value, found.brier_skill, *found.auc_quartiles]).all()
    assert found.per_token["auc"].isna().all()
    assert (found.positives, found.episodes, found.own.lift, found.placebo.p) == (0, 0, 0.0, None)
    assert np.isnan(found.own.achieved_break_even)
    # Twins without an AUC are no twins.
    assert found.placebo.twins == ()
    json.dumps(evidence_json(found), allow_nan=False)


def test_a_table_without_a_regression_has_no_figure_for_it(table: pd.DataFrame) -> None:
    found = evaluate_table(table.assign(logistic=np.nan), cost=COST, reference_only=False)
    assert np.isnan(found.logistic_auc.value)
    assert "logistic" not in set(found.baselines["name"])


def test_the_same_seed_gives_the_same_evaluation(table: pd.DataFrame, evaluation: Evaluation) -> None:
    again = evaluate_table(table, cost=COST, reference_only=False, seed=3)
    assert evidence_json(again) == evidence_json(evaluation)
    other = evaluate_table(table, cost=COST, reference_only=False, seed=4)
    assert other.auc.low != evaluation.auc.low


def test_evidence_survives_json_and_gives_its_verdict_back(evaluation: Evaluation) -> None:
    text = json.dumps(evidence_json(evaluation), allow_nan=False)
    read = json.loads(text)
    assert read_verdict(read) == evaluation.verdict
    assert read["first_hour"] == "2024-03-01T00:00:00"
    assert read["own"]["net_per_trade"] == asdict(evaluation.own.net_per_trade)
    assert read["per_token"][0]["token"] == "BTC-1"
    assert read["baselines"][0]["net_per_trade"] is None
    assert read["auc_quartiles"] == list(evaluation.auc_quartiles)
    assert set(read) == set(evaluation.__dataclass_fields__)


def test_reasons_come_back_too(evaluation: Evaluation) -> None:
    refused = replace(evaluation, verdict=Verdict(False, ("PLACEBO", "REFERENCE_ONLY")))
    assert read_verdict(evidence_json(refused)) == refused.verdict


@pytest.mark.parametrize(
    "evidence",
    [
        {},
        {"verdict": None},
        {"verdict": {"badge": True}},
    ],
)
def test_evidence_without_a_verdict_is_refused(evidence: dict[str, object]) -> None:
    with pytest.raises(DataError, match="holds no verdict"):
        read_verdict(evidence)


@pytest.mark.parametrize("found", [{"badge": True, "reasons": ["PLACEBO"]}, {"badge": False, "reasons": []}])
def test_a_badge_that_contradicts_its_reasons_is_refused(found: dict[str, object]) -> None:
    with pytest.raises(DataError, match="evaluate the recipe again"):
        read_verdict({"verdict": found})


GOOD_PLACEBO = Placebo((0.5,) * 20, 0.7, 0.5, 0.01, 1 / 21)
GOOD_SCORES = Scores(
    0.3, 0.1, Interval(0.5, 0.4, 0.6), 0.5, 0.5, 0.8, 2.0, 40, Interval(0.05, 0.01, 0.09), 2.0, 0.2, 0.1
)


def test_all_conditions_together_give_the_badge() -> None:
    assert verdict(15, GOOD_PLACEBO, GOOD_SCORES, ECE_LIMIT, reference_only=False) == Verdict(True, ())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"windows": 14}, "TOO_FEW_WINDOWS"),
        ({"placebo": Placebo((), 0.7, float("nan"), float("nan"), None)}, "NO_TWINS"),
        ({"placebo": replace(GOOD_PLACEBO, p=0.05)}, "PLACEBO"),
        ({"placebo": replace(GOOD_PLACEBO, observed=float("nan"), p=None)}, "PLACEBO"),
        ({"own": replace(GOOD_SCORES, net_per_trade=Interval(0.05, 0.0, 0.1))}, "NOT_PROFITABLE"),
        ({"own": replace(GOOD_SCORES, net_per_trade=Interval(0.05, None, None))}, "NOT_PROFITABLE"),
        ({"ece": ECE_LIMIT + 1e-6}, "CALIBRATION"),
        ({"reference_only": True}, "REFERENCE_ONLY"),
    ],
)
def test_each_condition_alone_takes_the_badge_away(change: dict[str, object], reason: str) -> None:
    good = {"windows": 15, "placebo": GOOD_PLACEBO, "own": GOOD_SCORES, "ece": 0.02, "reference_only": False}
    assert verdict(**(good | change)) == Verdict(False, (reason,))  # type: ignore[arg-type]  # a case is one of five types


def test_every_reason_is_told() -> None:
    lost = replace(GOOD_SCORES, net_per_trade=Interval(-0.01, -0.02, 0.0))
    found = verdict(3, Placebo((), 0.5, 0.0, 0.0, None), lost, 0.2, reference_only=True)
    assert found.reasons == ("TOO_FEW_WINDOWS", "NO_TWINS", "NOT_PROFITABLE", "CALIBRATION", "REFERENCE_ONLY")


def test_a_table_that_is_no_table_of_predictions_is_refused(table: pd.DataFrame) -> None:
    def refused(wrong: pd.DataFrame, match: str) -> None:
        with pytest.raises(DataError, match=match):
            evaluate_table(wrong, cost=COST, reference_only=False)

    row = table.index[table["twin"] == 2][7]
    where = r"the row of BTC-1 at 2024-03-02 18:00:00 in twin 2"
    refused(table.drop(columns=["raw", "label_end"]), "lacks the columns label_end, raw")
    refused(table[table["twin"] > 0], r"no row of the market itself \(twin 0\)")
    refused(table.iloc[:0], r"no row of the market itself \(twin 0\)")
    refused(table.assign(recipe_id=table["recipe_id"].where(table.index != row, "f" * 16)), "mixes the recipes")
    refused(table.assign(y=table["y"].where(table.index != row, 2)), f"{where} has a label that is neither")
    refused(pd.concat([table, table.loc[[row]]]), f"{where} is there more than once")
    ends = table["label_end"].where(table.index != row, table["timestamp"])
    refused(table.assign(label_end=ends), f"{where} has a label without a future")
    refused(table.assign(label_end=table["label_end"].where(table.index != row)), "has a label without a future")
    for column in ("change", "price", "raw", "probability"):
        refused(table.assign(**{column: table[column].where(table.index != row)}), f"{where} has no {column}")
    for column in ("raw", "probability"):
        refused(
            table.assign(**{column: table[column].where(table.index != row, 1.5)}), f"{where} has a {column} outside"
        )


def test_a_losing_method_among_twins_that_do_as_well() -> None:
    table = predictions(skill=0.0, days=90, tokens=3, twins=4)
    same = real(table)[lambda rows: rows["timestamp"].dt.hour % 6 == 0].assign(twin=np.int32(1))
    table = pd.concat([table[table["twin"] != 1], same], ignore_index=True)  # one twin does exactly as well
    found = evaluate_table(table, cost=0.2, reference_only=False)
    noise = [roc_auc_score(t["y"], t["probability"]) for _, t in table[table["twin"] > 0].groupby(["twin", "token"])]
    here = [roc_auc_score(t["y"], t["probability"]) for _, t in same.groupby("token")]
    p_values = sorted((1 + sum(auc >= own - 1e-12 for auc in noise)) / (len(noise) + 1) for own in here)
    expected = min(p * 3 / (k + 1) for k, p in enumerate(p_values))
    assert found.per_token["q_value"].min() == pytest.approx(expected)
    # At this cost every trade loses, so the fall is the whole of it, from the very first trade on.
    assert found.own.max_drawdown >= -found.own.net_sum - 1e-9
