"""The decision that a person takes: let a recipe speak, on the evidence that lies in the store."""

import math
from datetime import datetime

from breakout_assets.errors import DataError
from breakout_assets.learning.evaluation_files import evidence_at, newest_table, read_table
from breakout_assets.learning.evidence import read_verdict
from breakout_assets.learning.promotion import Entry, Judgement, champion_at, journal, judge_challenger, promote
from breakout_assets.learning.recipes import Recipe, recipe
from breakout_assets.store import Store


def speaking_recipe(store: Store, name: str, cost: float, hour: datetime | None = None) -> Recipe:
    """The recipe that predicts at an hour: the one promoted by then, else the one of the settings.

    Args:
        store: where the journal of decisions lies.
        name: of the settings' recipe.
        cost: the user's cost of a round trip.
        hour: naive UTC; None for the newest decision.
    """
    entries = journal(store)
    champion = champion_at(entries, hour) if hour else (entries[-1] if entries else None)
    return recipe(champion.recipe if champion else name, cost)


def chosen_recipe(store: Store, asked: str | None, name: str, cost: float) -> Recipe:
    """The recipe that is asked for by name, else the one that speaks."""
    return recipe(asked, cost) if asked else speaking_recipe(store, name, cost)


def judge(store: Store, challenger: Recipe, hour: datetime) -> Judgement:
    """How a recipe stands against the champion, by what was known at an hour.

    Raises:
        DataError: one of the two has not been evaluated; the message says what to materialise.
    """
    evidence = evidence_at(store, challenger, hour)
    path = newest_table(store, challenger, hour)
    if evidence is None or path is None:
        raise DataError(
            f"recipe {challenger.name} has no evaluation known at {hour:%Y-%m-%d %H:00}; materialise out_of_sample and "
            f"model_report with the recipe {challenger.name}"
        )
    entries = journal(store)
    against = None
    if entries:
        champion = recipe(entries[-1].recipe, challenger.cost)
        if champion.recipe_id != entries[-1].recipe_id:
            raise DataError(
                f"the champion {champion.name} was promoted as {entries[-1].recipe_id} and is {champion.recipe_id} by "
                "now: costs or recipe have changed. Roll back, or evaluate and promote it again"
            )
        champions = newest_table(store, champion, hour)
        if champions is None:
            raise DataError(f"the champion {champion.name} has no out_of_sample table; materialise it with this recipe")
        against = read_table(champions)
    return judge_challenger(against, read_table(path), challenger.cost, read_verdict(evidence.figures))


def promote_recipe(store: Store, challenger: Recipe, hour: datetime, by: str, reason: str) -> Entry:
    """Let a recipe speak from an hour on, if the evidence carries it.

    Raises:
        DataError: it does not, or as `judge` and `promotion.promote`.
    """
    evidence = evidence_at(store, challenger, hour)
    judgement = judge(store, challenger, hour)
    figures = evidence.figures if evidence else {}
    numbers = {
        name: float(value)
        for name, value in figures.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
    return promote(store, challenger, judgement, hour, by, reason, numbers)
