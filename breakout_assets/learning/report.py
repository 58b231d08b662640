"""What people read of a model: the page of one recipe.

The verdict comes first and in words. A figure never stands without what it must be compared with, and where there is
none, the page says why.
"""

from collections.abc import Iterator
from math import isnan
from typing import Any, Final

import pandas as pd

from breakout_assets.errors import DataError
from breakout_assets.learning import charts, pages
from breakout_assets.learning.evidence import PUBLISHED_THRESHOLD, STRIKING_AUC, Evaluation, Scores
from breakout_assets.learning.pages import Page
from breakout_assets.learning.recipes import Recipe
from breakout_assets.learning.thresholds import break_even_precision
from breakout_assets.learning.wording import (
    COVERAGE,
    NO_FLAG,
    NO_TRADE,
    NO_TWINS,
    NOT_ENOUGH,
    ONE_CLASS,
    UNKNOWN,
    against_logistic,
    bounds,
    break_even,
    f1,
    lift,
    net_per_trade,
    number,
    number_interval,
    precision,
    recall,
    share,
    share_interval,
    stakes,
    verdict_in_words,
    whole,
)


def model_page(evaluation: Evaluation, table: pd.DataFrame, recipe: Recipe, importances: pd.DataFrame) -> Page:
    """The report of one recipe.

    Args:
        evaluation: of `table`.
        table: `out_of_sample` rows, twins included.
        recipe: how the models were made.
        importances: feature, impurity (or weight), permutation, permutation_sd; no rows if none were computed.

    Raises:
        DataError: the three do not belong to one recipe.
    """
    found = sorted({evaluation.recipe_id, *table["recipe_id"].unique()})
    if found != [recipe.recipe_id]:
        raise DataError(
            f"a report on recipe {recipe.name} ({recipe.recipe_id}) was given figures of {', '.join(found)}; "
            "evaluate the recipe again"
        )
    market = table[table["twin"] == 0]
    pays_from = break_even_precision(market["change"].to_numpy(), market["y"].to_numpy(), recipe.cost)
    chosen = sorted(market["threshold"].dropna().unique())
    pictures = {
        "ranking": charts.ranking_chart(table),
        "placebo": charts.placebo_chart(evaluation.placebo.twins, evaluation.placebo.observed),
        "threshold": charts.threshold_chart(evaluation.curve, chosen, PUBLISHED_THRESHOLD, pays_from),
        "calibration": charts.calibration_chart(evaluation.calibration, table),
        **({"importances": charts.importances_chart(importances)} if len(importances) else {}),
        "tokens": charts.token_chart(table),
    }
    said = verdict_in_words(evaluation)
    parts = [
        pages.paragraph(_period(evaluation), soft=True),
        pages.verdict_box(said.headline, said.sentences, said.tone),
        *_headline(evaluation, recipe),
        *_evidence(evaluation),
        *_ranking(evaluation, pictures),
        *_decisions(evaluation, market, recipe, pictures),
        *_probabilities(evaluation, pictures),
        *_baselines(evaluation, recipe),
        *_importances(importances, recipe, pictures),
        *_tokens(evaluation, pictures),
        *_how_to_read(recipe),
    ]
    return Page(_summary(evaluation, recipe), pictures, pages.document(f"Model report: {recipe.name}", parts))


def _summary(evaluation: Evaluation, recipe: Recipe) -> str:
    said, own = verdict_in_words(evaluation), evaluation.own
    logistic = against_logistic(recipe.name, recipe, evaluation)
    return pages.short(
        [
            f"**{said.headline}.** {' '.join(said.sentences)}",
            "",
            (
                f"- Pooled AUC {number_interval(evaluation.auc, ONE_CLASS)}; logistic regression "
                f"{number(evaluation.logistic_auc.value, UNKNOWN)}, noise {number(evaluation.placebo.mean, UNKNOWN)}, "
                "coin toss 0.5"
            ),
            (
                f"- {whole(own.trades)} trades at its own threshold: precision {precision(own)}, break-even "
                f"{break_even(own)}, net per trade {net_per_trade(own)}"
            ),
            (
                f"- {whole(evaluation.rows)} rows of {evaluation.tokens} tokens, {evaluation.windows} separate "
                f"five-day windows; base rate {share(evaluation.base_rate.value, UNKNOWN)}"
            ),
            *([f"- {logistic}"] if logistic else []),
        ]
    )


def _period(evaluation: Evaluation) -> str:
    return (
        f"{whole(evaluation.rows)} predictions on {whole(evaluation.tokens)} tokens, "
        f"{evaluation.first_hour:%Y-%m-%d %H:%M} to {evaluation.last_hour:%Y-%m-%d %H:%M} UTC, judged by prices up to "
        f"{evaluation.evaluated_until:%Y-%m-%d %H:%M} UTC."
    )


def _headline(evaluation: Evaluation, recipe: Recipe) -> list[str]:
    placebo, own = evaluation.placebo, evaluation.own
    noise = f"± {number(placebo.sd, UNKNOWN)}, {len(placebo.twins)} markets, p = {number(placebo.p, UNKNOWN)}"
    figures = [
        ("Pooled AUC", number(evaluation.auc.value, ONE_CLASS), bounds(evaluation.auc)),
        ("The same on pure noise", number(placebo.mean, UNKNOWN), noise if placebo.twins else NO_TWINS),
        ("Logistic regression", number(evaluation.logistic_auc.value, UNKNOWN), bounds(evaluation.logistic_auc)),
        ("Base rate", share(evaluation.base_rate.value, UNKNOWN), "of the rows rose by more than 10 % in five days"),
        (
            "Precision of its flags",
            share(own.precision.value, NO_FLAG) if own.flagged_share > 0 else NO_FLAG,
            f"break-even {break_even(own)}",
        ),
        (
            "Net per trade",
            share(own.net_per_trade.value, NO_TRADE, signed=True) if own.trades else NO_TRADE,
            bounds(own.net_per_trade, percent=True) if own.trades else "at its own threshold",
        ),
    ]
    logistic = against_logistic(recipe.name, recipe, evaluation)
    return [
        pages.tiles(figures),
        pages.paragraph(f"Pooled AUC of simpler rules on the same rows: {_simple_aucs(evaluation)}.", soft=True),
        *([pages.paragraph(logistic)] if logistic else []),
    ]


def _simple_aucs(evaluation: Evaluation) -> str:
    ranked = evaluation.baselines.dropna(subset=["auc"])
    return ", ".join(f"{row.name} {number(row.auc, '')}" for row in _records(ranked)) or "none of them ranks anything"


def _evidence(evaluation: Evaluation) -> list[str]:
    rows = [
        ("predictions", whole(evaluation.rows), "one a token and hour; neighbours share nearly all of their five days"),
        ("of them rose by more than 10 %", whole(evaluation.positives), "one rise is counted every hour that it lasts"),
        ("separate rises", whole(evaluation.episodes), "runs of such hours in one token, at least five days apart"),
        ("independent labels", number(evaluation.independent_labels, UNKNOWN, 1), "what the overlap leaves of them"),
        (
            "separate five-day windows",
            whole(evaluation.windows),
            "of the calendar; tokens move together, so more tokens do not make more windows",
        ),
    ]
    return [pages.heading("How much evidence there is"), pages.table(("", "number", "what it is"), rows)]


def _ranking(evaluation: Evaluation, pictures: dict[str, bytes]) -> list[str]:
    lower, median, upper = (number(quartile, UNKNOWN) for quartile in evaluation.auc_quartiles)
    return [
        pages.heading("Does it rank risers above the rest?"),
        pages.paragraph(
            f"Over all tokens and hours together: AUC {number_interval(evaluation.auc, ONE_CLASS)}. Within single "
            f"tokens half of them lie between {lower} and {upper}, the middle one at {median}."
        ),
        pages.picture(pictures["ranking"], "ROC and precision-recall curves with baselines"),
        pages.picture(pictures["placebo"], "Pooled AUC beside that on noise markets"),
        pages.paragraph(
            "A noise market keeps each token's swings and volumes, cuts them into days and shuffles the days: nothing "
            "in it can be foreseen. What the recipe scores there is luck.",
            soft=True,
        ),
    ]


def _decisions(evaluation: Evaluation, market: pd.DataFrame, recipe: Recipe, pictures: dict[str, bytes]) -> list[str]:
    rows = [
        (name, *cells)
        for name, *cells in zip(
            _SCORE_NAMES,
            _score_cells(evaluation.own, evaluation.base_rate.value),
            _score_cells(evaluation.published, evaluation.base_rate.value),
            strict=True,
        )
    ]
    curve = [
        (
            number(row.threshold, UNKNOWN, 2),
            share(row.flagged_share, UNKNOWN),
            whole(row.trades),
            share(row.precision, NO_FLAG),
            share(row.net_mean, NO_TRADE, signed=True),
            _range(row.net_low, row.net_high, None if row.trades else NO_TRADE, signed=True),
        )
        for row in _records(evaluation.curve)
    ]
    head = ("threshold", "rows flagged", "trades", "precision", "net per trade", "its interval")
    return [
        pages.heading("What following it would have brought"),
        pages.paragraph(
            f"A trade buys at the price of the row, sells 120 hours later and costs {share(recipe.cost, UNKNOWN)} in "
            f"all; one position a token at a time. Its own threshold: {_own_threshold(market)}."
        ),
        pages.table(("", "at its own threshold", f"at {PUBLISHED_THRESHOLD:.2f} of the raw score"), rows),
        pages.picture(pictures["threshold"], "Trades, precision and net result for every threshold"),
        pages.folded("All thresholds in numbers", pages.table(head, curve)),
    ]


def _records(frame: pd.DataFrame) -> Iterator[Any]:
    """Rows with a column's value by its name, whose types only the frame knows."""
    return iter(frame.itertuples(index=False))


_SCORE_NAMES: Final = (
    "rows flagged",
    "precision",
    "break-even precision",
    "recall",
    "F1",
    "accuracy",
    "accuracy of always saying no",
    "lift over the base rate",
    "trades",
    "net per trade",
    "net of all trades, in stakes",
    "deepest fall, in stakes",
)


def _score_cells(scores: Scores, base_rate: float) -> tuple[str, ...]:
    return (
        share(scores.flagged_share, UNKNOWN),
        precision(scores),
        break_even(scores),
        recall(scores, base_rate),
        f1(scores, base_rate),
        share(scores.accuracy, UNKNOWN),
        share(1 - base_rate, UNKNOWN),
        lift(scores, base_rate),
        whole(scores.trades),
        net_per_trade(scores),
        stakes(scores.net_sum, scores, signed=True),
        stakes(scores.max_drawdown, scores),
    )


def _own_threshold(market: pd.DataFrame) -> str:
    """What the folds' models chose."""
    folds = market["fold"].nunique()
    paying = market.loc[market["threshold"].notna(), "fold"].nunique()
    if not paying:
        return f"in none of {folds} test periods had one paid on the data before, so it did not trade"
    chosen = market["threshold"].dropna()
    return (
        f"{chosen.median():.3f} in the middle, {chosen.min():.3f} to {chosen.max():.3f}; "
        f"found in {paying} of {folds} test periods"
    )


def _range(low: float | None, high: float | None, missing: str | None, *, signed: bool = False) -> str:
    """An interval of shares; `missing` says why there is nothing to give one for, None if there is something."""
    texts = share(low, "", signed=signed), share(high, "", signed=signed)
    return f"{texts[0]} to {texts[1]}" if all(texts) else missing or NOT_ENOUGH


def _probabilities(evaluation: Evaluation, pictures: dict[str, bytes]) -> list[str]:
    rows = [
        ("mean probability said", share(evaluation.mean_probability, UNKNOWN), "should equal the base rate"),
        ("base rate", share_interval(evaluation.base_rate, UNKNOWN), ""),
        ("error before calibration", number(evaluation.ece_raw, UNKNOWN), "ECE: mean gap between said and observed"),
        ("error after calibration", number(evaluation.ece, UNKNOWN), ""),
        ("Brier score", number(evaluation.brier, UNKNOWN), "mean squared error; smaller is better"),
        ("Brier skill", number(evaluation.brier_skill, UNKNOWN), "above 0: better than saying the base rate"),
    ]
    bins = [
        (
            f"{10 * row.bin} to {10 * (row.bin + 1)} %",
            whole(row.rows),
            share(row.predicted, "no row"),
            share(row.observed, "no row"),
            _range(row.low, row.high, None if row.rows else "no row"),
        )
        for row in _records(evaluation.calibration)
    ]
    head = ("bin", "rows", "said", "happened", "its interval")
    return [
        pages.heading("Can its probabilities be believed?"),
        pages.table(("", "value", "how to read it"), rows),
        pages.picture(pictures["calibration"], "Calibration before and after"),
        pages.folded("All bins in numbers", pages.table(head, bins)),
    ]


def _baselines(evaluation: Evaluation, recipe: Recipe) -> list[str]:
    own = evaluation.own
    rows = [
        (
            f"this recipe ({recipe.name})",
            number(evaluation.auc.value, ONE_CLASS),
            share(own.precision.value, NO_FLAG) if own.flagged_share > 0 else NO_FLAG,
            share(own.flagged_share, UNKNOWN),
            whole(own.trades),
            share(own.net_per_trade.value, NO_TRADE, signed=True) if own.trades else NO_TRADE,
            _range(own.net_per_trade.low, own.net_per_trade.high, None if own.trades else NO_TRADE, signed=True),
        )
    ]
    rows += [
        (
            str(row.name),
            number(row.auc, "ranks nothing"),
            share(row.precision, "holds" if isnan(row.flagged_share) else NO_FLAG),
            share(row.flagged_share, "holds"),
            whole(row.trades),
            share(row.net_per_trade, NO_TRADE, signed=True),
            _range(row.low, row.high, None if row.trades else NO_TRADE, signed=True),
        )
        for row in _records(evaluation.baselines)
    ]
    head = ("rule", "pooled AUC", "precision", "rows flagged", "trades", "net per trade", "its interval")
    return [
        pages.heading("What simpler rules score"),
        pages.table(head, rows, "On the same rows, at the same costs"),
    ]


def _importances(importances: pd.DataFrame, recipe: Recipe, pictures: dict[str, bytes]) -> list[str]:
    title = pages.heading("What it looked at")
    if "importances" not in pictures:
        return [title, pages.paragraph("No importances were computed for this report.")]
    trained = "impurity share" if recipe.estimator == "forest" else "share of coefficients"
    rows = [
        (
            str(row.feature),
            f"{row.permutation:+.4f} ± {number(row.permutation_sd, UNKNOWN, 4)}",
            share(row.impurity, UNKNOWN),
        )
        for row in _records(importances.sort_values("permutation", ascending=False, kind="stable"))
    ]
    return [
        title,
        pages.picture(pictures["importances"], "Importances of the features"),
        pages.paragraph(
            "A loss of about 0 means that unseen rows are ranked as well without the feature, however much the "
            "training used it. Features that say the same thing share their loss.",
            soft=True,
        ),
        pages.folded("All features in numbers", pages.table(("feature", "loss of AUC when shuffled", trained), rows)),
    ]


def _tokens(evaluation: Evaluation, pictures: dict[str, bytes]) -> list[str]:
    expected = evaluation.expected_at_least_089
    noise = (
        f"{expected:.1f} are expected from noise"
        if expected is not None
        else f"{NO_TWINS}, so nobody knows how many noise gives"
    )
    ordered = evaluation.per_token.sort_values(["q_value", "token"], kind="stable", na_position="last")
    rows = [
        (
            str(row.token),
            whole(row.rows),
            whole(row.positives),
            whole(row.episodes),
            number(row.auc, ONE_CLASS),
            number(row.q_value, UNKNOWN),
            share(row.precision, NO_FLAG),
            whole(row.flagged),
        )
        for row in _records(ordered)
    ]
    head = ("token", "rows", "rose", "separate rises", "AUC", "q-value", "precision", "flagged")
    return [
        pages.heading("Single tokens"),
        pages.paragraph(
            f"{evaluation.tokens_at_least_089} tokens have an AUC of {STRIKING_AUC:.2f} or more; {noise}. A good "
            "figure of one token is no finding unless its q-value is small (below 0.05): that takes into account how "
            "many tokens were looked at."
        ),
        pages.picture(pictures["tokens"], "AUC of single tokens"),
        pages.folded(f"All {len(rows)} tokens", pages.table(head, rows)),
    ]


def _how_to_read(recipe: Recipe) -> list[str]:
    return [
        pages.heading("Limits, and how to read this"),
        pages.bullets(
            [
                COVERAGE + f" Below 15 separate five-day windows the page says “{NOT_ENOUGH}”.",
                (
                    "AUC: how often a row that rose stands above one that did not; 0.5 is a coin toss. Within single "
                    "tokens even noise is far from 0.5, which is why the noise markets are the yardstick."
                ),
                "Accuracy flatters: saying “no” always is right in most rows. Read it beside that figure only.",
                (
                    "Break-even precision: the share of right flags from which on the winners pay for losers and "
                    "costs. What counts is whether the lower end of the precision lies above it."
                ),
                (
                    "Prices are hourly snapshots: fills at worse prices, coins that cannot be sold and coins that "
                    "vanished from the listing are not in these figures."
                ),
                (
                    f"Recipe {recipe.name}, id {recipe.recipe_id}. The past of these tokens; not a promise, and no "
                    "financial advice."
                ),
            ]
        ),
    ]
