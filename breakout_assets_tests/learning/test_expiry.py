"""When models or their evaluation count as expired, and when nothing is known of them."""

from collections.abc import Sequence

import pandas as pd
import pytest

from breakout_assets.learning.expiry import OBSTACLES, expiry
from breakout_assets.learning.predicting import REASONS
from breakout_assets_tests.samples import at

HOUR = at("2024-03-01 05:00")
FINE, OWN_EXPIRED = (None, None), (None, "MODEL_EXPIRED")
EXPIRED, NO_EVIDENCE = ("MODEL_EXPIRED", "MODEL_EXPIRED"), ("EVIDENCE_EXPIRED", None)
UNFIT = ("QUARANTINED", None)


def state(*rows: tuple[str | None, str | None]) -> str | None:
    found = expiry(frame(rows), HOUR)
    return found.state if found else None


def frame(rows: Sequence[tuple[str | None, str | None]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["reason", "fallback"]).astype("str")


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([FINE, FINE], "IN_TIME"),
        ([EXPIRED, FINE], "MODEL_EXPIRED"),
        ([EXPIRED, FINE, FINE], "IN_TIME"),
        ([OWN_EXPIRED, OWN_EXPIRED, FINE], "MODEL_EXPIRED"),
        ([NO_EVIDENCE, NO_EVIDENCE], "EVIDENCE_EXPIRED"),
        ([("EVIDENCE_EXPIRED", "MODEL_EXPIRED")] * 2, "EVIDENCE_EXPIRED"),
        ([EXPIRED, NO_EVIDENCE, NO_EVIDENCE], "EVIDENCE_EXPIRED"),
        ([("NOT_PROVEN", None), ("NO_MODEL", "NO_OWN_MODEL")], "IN_TIME"),
        ([EXPIRED, UNFIT, UNFIT, UNFIT], "MODEL_EXPIRED"),
        ([UNFIT, ("TOO_LITTLE_HISTORY", None), ("OUTSIDE_UNIVERSE", None)], None),
        ([], None),
    ],
)
def test_half_of_the_coins_that_could_be_judged_decide(
    rows: list[tuple[str | None, str | None]], expected: str | None
) -> None:
    assert state(*rows) == expected


def test_the_sentence_says_how_many_and_what_to_do() -> None:
    found = expiry(frame([EXPIRED, EXPIRED, FINE]), HOUR)
    assert found is not None
    assert found.sentence.startswith("2 of 3 coins at 2024-03-01 05:00 UTC: ")
    assert found.sentence.endswith("run training_job.")


def test_the_codes_are_those_of_predictions() -> None:
    assert OBSTACLES | {"MODEL_EXPIRED", "EVIDENCE_EXPIRED"} <= REASONS.keys()
