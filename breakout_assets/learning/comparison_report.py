"""What people read of recipes side by side: the same rows, the same costs, and the published figures set apart."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, dataclass

import numpy as np
import pandas as pd

from breakout_assets.learning import charts, pages
from breakout_assets.learning.comparison import AS_PUBLISHED, PUBLISHED, CaseRow, Figures, Published
from breakout_assets.learning.evidence import PUBLISHED_THRESHOLD, Evaluation, Interval, Scores
from breakout_assets.learning.pages import Page
from breakout_assets.learning.recipes import Recipe
from breakout_assets.learning.wording import (
    COVERAGE,
    NO_TWINS,
    ONE_CLASS,
    UNKNOWN,
    against_logistic,
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


@dataclass(frozen=True, eq=False)
class Compared:
    """One recipe, or one step of the ladder, with what it scored or why it did not."""

    title: str
    recipe: Recipe
    evaluation: Evaluation | None
    reason: str | None = None
    """Why there is no evaluation."""


def comparison_page(
    rows: Sequence[Compared], ladder: Sequence[Compared], published_case: Sequence[CaseRow] | None
) -> Page:
    """The report that sets recipes side by side.

    Args:
        rows: the recipes, evaluated on the same snapshots, tokens and test times.
        ladder: the steps from the published method to the default one, each with the changes of those before it.
        published_case: the published example computed again; None if its hours are not in the store.
    """
    said = [_judged(row) for row in rows]
    no_gain = [
        sentence
        for row in rows
        if row.evaluation is not None and (sentence := against_logistic(row.title, row.recipe, row.evaluation))
    ]
    pictures = {"ladder": charts.ladder_chart(_steps(ladder))} if ladder else {}
    parts = [
        pages.paragraph("The same snapshots, tokens, test times and costs for every recipe.", soft=True),
        pages.verdict_box(_overall(rows), [*no_gain], "good" if _passed(rows) else "open"),
        pages.table(("recipe", "verdict", "why"), said),
        *_compared_tables(rows),
        *_ladder(ladder, pictures),
        *_case(published_case),
        pages.heading("Limits, and how to read this"),
        pages.bullets(
            [
                COVERAGE,
                (
                    f"Published figures are set in italics: {AS_PUBLISHED}. Their base rate is computed from the "
                    "other figures; they come without intervals, baselines or costs."
                ),
                (
                    "Differences smaller than an interval's width may be chance. The past of these tokens; not a "
                    "promise, and no financial advice."
                ),
            ]
        ),
    ]
    return Page(_comparison_summary(rows, no_gain), pictures, pages.document("Recipes compared", parts))


def _passed(rows: Sequence[Compared]) -> list[str]:
    return [row.title for row in rows if row.evaluation is not None and row.evaluation.verdict.badge]


def _overall(rows: Sequence[Compared]) -> str:
    passed = _passed(rows)
    if not passed:
        return "No recipe has shown skill that pays"
    return f"Better than luck, and paid after costs: {', '.join(passed)}"


def _missing(row: Compared) -> str:
    return row.reason or "not evaluated"


def _judged(row: Compared) -> tuple[str, str, str]:
    if row.evaluation is None:
        return row.title, "no figures", _missing(row)
    said = verdict_in_words(row.evaluation)
    return row.title, said.headline, " ".join(said.sentences)


def _comparison_summary(rows: Sequence[Compared], no_gain: Sequence[str]) -> str:
    lines = [
        f"**{_overall(rows)}.** {' '.join(no_gain)}",
        "",
        "recipe|pooled AUC|noise|net per trade",
        "---|---|---|---",
    ]
    for row in rows:
        title = pages.marked(row.title)
        if row.evaluation is None:
            lines.append(f"{title}|{pages.marked(_missing(row))}||")
            continue
        evaluation = row.evaluation
        lines.append(
            f"{title}|{number_interval(evaluation.auc, ONE_CLASS)}|{number(evaluation.placebo.mean, UNKNOWN)}"
            f"|{net_per_trade(evaluation.own)}"
        )
    return pages.short(lines)


def _compared_tables(rows: Sequence[Compared]) -> list[str]:
    aside = [_published_title(each) for each in PUBLISHED]
    named = (f"at {PUBLISHED_THRESHOLD:.2f} of the raw score", "at its own threshold")
    decided = ("recipe", "precision", "recall", "F1", "base rate", "lift", "accuracy", "always no")
    return [
        pages.heading("Ranking"),
        pages.table(
            ("recipe", "pooled AUC", "quartiles within tokens", "logistic regression", "noise", "p"),
            [
                *_lines(rows, _ranking_cells),
                *(
                    (_published_title(each), number(each.figures.auc, UNKNOWN), "nothing else published")
                    for each in PUBLISHED
                ),
            ],
            aside=aside,
        ),
        pages.heading("Decisions"),
        pages.table(
            decided,
            [*_lines(rows, lambda e: _decision_cells(e.published, e)), *map(_published_cells, PUBLISHED)],
            named[0],
            aside,
        ),
        pages.table(decided, _lines(rows, lambda e: _decision_cells(e.own, e)), named[1]),
        pages.heading("Probabilities"),
        pages.table(
            ("recipe", "mean said", "base rate", "Brier score", "Brier skill", "ECE before", "ECE after calibration"),
            _lines(rows, _probability_cells),
        ),
        pages.heading("Money, after costs"),
        pages.table(
            (
                "recipe",
                "trades",
                "precision",
                "break-even",
                "net per trade",
                "net, in stakes",
                "deepest fall, in stakes",
            ),
            _lines(rows, lambda e: _money_cells(e.own)),
            named[1],
        ),
    ]


def _lines(rows: Sequence[Compared], cells: Callable[[Evaluation], tuple[str, ...]]) -> list[tuple[str, ...]]:
    """A line a recipe; one without figures says why."""
    return [(row.title, *((_missing(row),) if row.evaluation is None else cells(row.evaluation))) for row in rows]


def _ranking_cells(evaluation: Evaluation) -> tuple[str, ...]:
    placebo = evaluation.placebo
    noise = f"{number(placebo.mean, UNKNOWN)} ± {number(placebo.sd, UNKNOWN)}" if placebo.twins else NO_TWINS
    return (
        number_interval(evaluation.auc, ONE_CLASS),
        " / ".join(number(quartile, UNKNOWN) for quartile in evaluation.auc_quartiles),
        number(evaluation.logistic_auc.value, UNKNOWN),
        noise,
        number(placebo.p, UNKNOWN),
    )


def _decision_cells(scores: Scores, evaluation: Evaluation) -> tuple[str, ...]:
    base_rate = evaluation.base_rate.value
    return (
        precision(scores),
        recall(scores, base_rate),
        f1(scores, base_rate),
        share(base_rate, UNKNOWN),
        lift(scores, base_rate),
        share(scores.accuracy, UNKNOWN),
        share(1 - base_rate, UNKNOWN),
    )


def _published_title(each: Published) -> str:
    return f"{each.title} ({AS_PUBLISHED})"


def _published_cells(each: Published) -> tuple[str, ...]:
    figures = each.figures
    base_rate = _implied_base_rate(figures)
    return (
        _published_title(each),
        share(figures.precision, UNKNOWN),
        share(figures.recall, UNKNOWN),
        number(figures.f1, UNKNOWN),
        f"about {share(base_rate, UNKNOWN)}",
        f"about {number(figures.precision / base_rate, UNKNOWN, 1)}",
        share(figures.accuracy, UNKNOWN),
        f"about {share(1 - base_rate, UNKNOWN)}",
    )


def _implied_base_rate(figures: Figures) -> float:
    """The share of positives that accuracy, precision and recall imply together.

    Of base rate b, recall r and precision p: b (1 - r) is missed, b r (1 - p) / p is flagged wrongly, and both together
    are 1 - accuracy.
    """
    return (1 - figures.accuracy) / (1 + figures.recall / figures.precision - 2 * figures.recall)


def _probability_cells(evaluation: Evaluation) -> tuple[str, ...]:
    return (
        share(evaluation.mean_probability, UNKNOWN),
        share_interval(evaluation.base_rate, UNKNOWN),
        number(evaluation.brier, UNKNOWN),
        number(evaluation.brier_skill, UNKNOWN),
        number(evaluation.ece_raw, UNKNOWN),
        number(evaluation.ece, UNKNOWN),
    )


def _money_cells(own: Scores) -> tuple[str, ...]:
    return (
        whole(own.trades),
        precision(own),
        break_even(own),
        net_per_trade(own),
        stakes(own.net_sum, own, signed=True),
        stakes(own.max_drawdown, own),
    )


def _ladder(ladder: Sequence[Compared], pictures: dict[str, bytes]) -> list[str]:
    title = pages.heading("From the published method to the default one, step by step")
    if not ladder:
        return [title, pages.paragraph("The ladder was not climbed for this report.")]
    rows = []
    previous: Compared | None = None
    for step in ladder:
        changed = "the start" if previous is None else changes(previous.recipe, step.recipe)
        evaluation = step.evaluation
        rows.append(
            (step.title, changed, _missing(step))
            if evaluation is None
            else (
                step.title,
                changed,
                number_interval(evaluation.auc, ONE_CLASS),
                number(evaluation.placebo.mean, NO_TWINS),
                number(evaluation.ece, UNKNOWN),
                net_per_trade(evaluation.own),
            )
        )
        previous = step
    head = ("step", "what it changes", "pooled AUC", "noise", "ECE", "net per trade")
    return [
        title,
        pages.paragraph(
            "Each step keeps the changes of those above it. Where a figure falls after a defect is "
            "mended, the higher one was not real. Every step pays the same cost, also the one that chose its "
            "threshold without it."
        ),
        pages.picture(pictures["ladder"], "Pooled AUC and net result of each step"),
        pages.table(head, rows),
    ]


def changes(before: Recipe, after: Recipe) -> str:
    """The fields in which two recipes differ, in words; their names do not count."""
    old, new = asdict(before), asdict(after)
    differing = [
        f"{len(old[field])} features → {len(new[field])}, {len(set(old[field]) & set(new[field]))} of them the same"
        if field == "features"
        else f"{field.replace('_', ' ')}: {_word(old[field])} → {_word(new[field])}"
        for field in old
        if field != "name" and old[field] != new[field]
    ]
    return "; ".join(differing) or "nothing"


def _word(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else "derived" if value is None else str(value)


def _steps(ladder: Sequence[Compared]) -> pd.DataFrame:
    """What the ladder's picture shows."""
    rows = []
    for step in ladder:
        row: dict[str, object] = {"title": step.title}
        for name in ("auc", "net"):
            row |= dict.fromkeys((name, f"{name}_low", f"{name}_high"), np.nan)
        if step.evaluation is not None:
            row |= _of(step.evaluation.auc, "auc")
            if step.evaluation.own.trades:
                row |= _of(step.evaluation.own.net_per_trade, "net")
        rows.append(row)
    return pd.DataFrame(rows)


def _of(interval: Interval, name: str) -> dict[str, float]:
    low, high = (np.nan if bound is None else bound for bound in (interval.low, interval.high))
    return {name: interval.value, f"{name}_low": low, f"{name}_high": high}


def _case(case: Sequence[CaseRow] | None) -> list[str]:
    title = pages.heading("The published SOL example, computed again")
    if not case:
        return [title, pages.paragraph("The store does not hold the hours of that example.")]
    rows = [
        (
            row.title,
            "not published" if row.rows is None else whole(row.rows),
            f"about {share(_implied_base_rate(row.mean), UNKNOWN)}"
            if row.base_rate is None
            else share(row.base_rate, ""),
            *(
                number(value, ONE_CLASS) + (f" ± {spread:.3f}" if spread is not None else "")
                for value, spread in zip(
                    astuple(row.mean), [None] * 5 if row.spread is None else astuple(row.spread), strict=True
                )
            ),
        )
        for row in case
    ]
    head = ("", "rows", "base rate", "accuracy", "precision", "recall", "F1", "AUC")
    return [
        title,
        pages.table(head, rows, "Mean and standard deviation over draws of the oversampling's seed"),
        pages.paragraph(
            "One token and four months hold few separate rises: these figures show what the method's choices do, not "
            "whether it works.",
            soft=True,
        ),
    ]
