"""The rows that models are trained on, out of the stored days of `indicator_features`."""

from collections.abc import Sequence

import pandas as pd

from breakout_assets.store import Store


def tokens_with_history(store: Store, rows_needed: int) -> list[str]:
    """The tokens that have at least this many labelled rows, by name."""
    days = store.days_of("indicator_features")
    if not days:
        return []
    rows = store.read_table("indicator_features", days, ["token", "label_status"])
    counts = rows.loc[rows["label_status"] == "labelled", "token"].value_counts()
    return sorted(str(token) for token in counts[counts >= rows_needed].index)


def training_rows(store: Store, tokens: Sequence[str] | None = None) -> pd.DataFrame:
    """All stored rows of `indicator_features`, of all tokens or of some, by token and time."""
    rows = store.read_table("indicator_features", store.days_of("indicator_features"))
    if tokens is not None:
        rows = rows[rows["token"].isin(tokens)]
    return rows.sort_values(["token", "timestamp"], kind="stable", ignore_index=True)
