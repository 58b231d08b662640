"""What someone must know before they use a model, on one page of Markdown."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from breakout_assets.errors import DataError
from breakout_assets.learning.evidence import PUBLISHED_THRESHOLD, Evaluation
from breakout_assets.learning.pages import marked
from breakout_assets.learning.recipes import Recipe
from breakout_assets.learning.wording import (
    COVERAGE,
    NO_TRADE,
    NO_TWINS,
    ONE_CLASS,
    UNKNOWN,
    against_logistic,
    break_even,
    f1,
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

_REQUIRED: Final = (
    *("name", "scope", "model_hash", "recipe_id", "data_hash", "seed", "versions"),
    *("trained_from", "trained_until", "expires_at", "rows", "positives"),
)


def model_card(evaluation: Evaluation, recipe: Recipe, manifest: Mapping[str, Any], universe: str) -> str:
    """The card of one model file, in Markdown.

    Args:
        evaluation: of the model's recipe on rows that its models had not seen.
        recipe: how the model was made.
        manifest: as beside the model file; empty if none has been trained yet.
        universe: which coins, in words.

    Raises:
        DataError: the manifest lacks a field, or model, recipe and evaluation do not belong together.
    """
    missing = [field for field in _REQUIRED if field not in manifest] if manifest else []
    if missing:
        raise DataError(f"the manifest of the model lacks {', '.join(missing)}; train the model again")
    of_model = manifest.get("recipe_id", recipe.recipe_id)
    for whose, found in (("model", of_model), ("evaluation", evaluation.recipe_id)):
        if found != recipe.recipe_id:
            raise DataError(
                f"a card for recipe {recipe.name} ({recipe.recipe_id}) was given the {whose} of recipe {found}; "
                "train and evaluate by the same recipe"
            )
    sections: tuple[tuple[str, Iterator[str]], ...] = (
        ("Use", _use(evaluation, recipe)),
        ("Data and universe", _data(manifest, universe)),
        ("Label", _label()),
        ("Features", _features(recipe)),
        ("How much evidence there is", _evidence(evaluation)),
        ("What it scores on rows it had not seen", _scores(evaluation, recipe)),
        ("Costs", _costs(recipe)),
        ("Limits", _limits()),
        ("Expiry and identity", _identity(manifest, recipe)),
    )
    said = verdict_in_words(evaluation)
    head = [
        f"# Model card: {marked(str(manifest.get('name', 'no model yet')))} ({marked(recipe.name)})",
        f"**{said.headline}.** {' '.join(said.sentences)}",
    ]
    body = ["\n".join([f"## {title}", "", *lines]) for title, lines in sections]
    return "\n\n".join([*head, *body]) + "\n"


def _use(evaluation: Evaluation, recipe: Recipe) -> Iterator[str]:
    if evaluation.verdict.badge:
        yield "- For: flagging coins that may close more than 10 % higher five days later, for paper orders."
    else:
        yield "- For: studying the method. The evidence does not carry trading on it; the reasons stand above."
    if recipe.reference_only:
        yield "- The recipe is kept for comparison with published figures and never trades."
    yield "- Not for: money one cannot lose, other horizons or label sizes, coins outside the universe."


def _data(manifest: Mapping[str, Any], universe: str) -> Iterator[str]:
    yield f"- Universe: {marked(universe)}"
    yield "- Hourly listings: price, 24-hour volume, rank. No order book, no news, no high and low within an hour."
    if not manifest:
        yield "- No model of this recipe has been trained yet; the figures are those of the models of its test periods."
        return
    scope = "one model for all tokens" if manifest["scope"] == "pooled" else "one token's own model"
    yield (
        f"- Trained on {whole(manifest['rows'])} labelled hours, {whole(manifest['positives'])} of them positive, "
        f"{_hour(manifest['trained_from'])} to {_hour(manifest['trained_until'])} UTC; {scope}."
    )


def _label() -> Iterator[str]:
    yield "- 1 if the price 120 hours later is more than 10 % higher, else 0. The exit is at that price too."
    yield "- Rows whose later price is missing have no label and are left out; coins that vanish are among them."


def _features(recipe: Recipe) -> Iterator[str]:
    yield f"- {len(recipe.features)}: {marked(', '.join(recipe.features))}."


def _evidence(evaluation: Evaluation) -> Iterator[str]:
    yield (
        f"- {whole(evaluation.rows)} predictions on {whole(evaluation.tokens)} tokens, "
        f"{evaluation.first_hour:%Y-%m-%d %H:%M} to {evaluation.last_hour:%Y-%m-%d %H:%M} UTC; "
        f"{whole(evaluation.positives)} positive."
    )
    yield (
        f"- Five-day labels overlap: {number(evaluation.independent_labels, UNKNOWN, 1)} independent labels, "
        f"{whole(evaluation.episodes)} separate rises, {whole(evaluation.windows)} separate five-day windows."
    )
    yield f"- {COVERAGE}"


def _scores(evaluation: Evaluation, recipe: Recipe) -> Iterator[str]:
    own, published, base_rate = evaluation.own, evaluation.published, evaluation.base_rate.value
    yield from _table(
        ("", "model", "to compare with"),
        [
            (
                "pooled AUC",
                number_interval(evaluation.auc, ONE_CLASS),
                f"logistic regression {number(evaluation.logistic_auc.value, UNKNOWN)}; coin toss 0.5",
            ),
            (
                "the same on noise markets",
                _placebo(evaluation),
                f"market {number(evaluation.placebo.observed, ONE_CLASS)}",
            ),
            (
                "precision, own threshold",
                precision(own),
                f"break-even {break_even(own)}; base rate {share(base_rate, UNKNOWN)}",
            ),
            (f"precision, {PUBLISHED_THRESHOLD:.2f}", precision(published), f"break-even {break_even(published)}"),
            ("recall, own threshold", recall(own, base_rate), f"F1 {f1(own, base_rate)}"),
            ("accuracy, own threshold", share(own.accuracy, UNKNOWN), f"always no {share(1 - base_rate, UNKNOWN)}"),
            ("net per trade", net_per_trade(own), f"{whole(own.trades)} trades"),
            ("deepest fall, in stakes", stakes(own.max_drawdown, own), f"net {stakes(own.net_sum, own, signed=True)}"),
            (
                "calibration error (ECE)",
                number(evaluation.ece, UNKNOWN),
                f"before calibration {number(evaluation.ece_raw, UNKNOWN)}",
            ),
            (
                "mean probability",
                share(evaluation.mean_probability, UNKNOWN),
                f"base rate {share_interval(evaluation.base_rate, UNKNOWN)}",
            ),
            ("Brier score", number(evaluation.brier, UNKNOWN), f"skill {number(evaluation.brier_skill, UNKNOWN)}"),
        ],
    )
    yield ""
    yield from _table(
        ("baseline", "pooled AUC", "trades", "net per trade"),
        [
            (
                marked(str(row["name"])),
                number(row["auc"], "ranks nothing"),
                whole(row["trades"]),
                share(row["net_per_trade"], NO_TRADE, signed=True),
            )
            for row in evaluation.baselines.to_dict("records")
        ],
    )
    logistic = against_logistic(recipe.name, recipe, evaluation)
    if logistic:
        yield ""
        yield marked(logistic)


def _placebo(evaluation: Evaluation) -> str:
    placebo = evaluation.placebo
    if not placebo.twins:
        return NO_TWINS
    return (
        f"{number(placebo.mean, UNKNOWN)} ± {number(placebo.sd, UNKNOWN)} over {len(placebo.twins)}, "
        f"p = {number(placebo.p, UNKNOWN)}"
    )


def _costs(recipe: Recipe) -> Iterator[str]:
    cost = share(recipe.cost, UNKNOWN)
    yield f"- A round trip is taken to cost {cost} of the money: fee and slippage, twice, and the spread."


def _limits() -> Iterator[str]:
    yield "- The past of these tokens is no promise. With few separate windows even a good figure may be luck."
    yield "- Fills are taken at hourly prices; thin coins fill worse, and coins that stop trading cannot be sold."
    yield "- The figures belong to models of this recipe on earlier data; this file itself has seen all of it."


def _identity(manifest: Mapping[str, Any], recipe: Recipe) -> Iterator[str]:
    yield f"- Recipe {marked(recipe.name)}, id {recipe.recipe_id}; feature set {recipe.feature_set_hash}"
    if not manifest:
        yield "- No model file yet, hence no expiry and no hash."
        return
    yield (
        f"- Knows prices up to {_hour(manifest['trained_until'])} UTC, the last five days of them only as outcomes; "
        f"expires {_hour(manifest['expires_at'])} UTC and does not speak after that."
    )
    yield f"- Model file SHA-256: {marked(str(manifest['model_hash']))}"
    yield f"- Data hash: {marked(str(manifest['data_hash']))}; seed {manifest['seed']}"
    versions = ", ".join(f"{package} {version}" for package, version in manifest["versions"].items())
    yield f"- Made with {marked(versions)}"


def _hour(iso: str) -> str:
    return f"{datetime.fromisoformat(iso):%Y-%m-%d %H:%M}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for cells in (head, ["---"] * len(head), *rows):
        yield "| " + " | ".join(cells) + " |"
