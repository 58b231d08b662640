"""How good a model was on rows it had not seen, and what it looked at."""

from dataclasses import dataclass
from datetime import datetime
from io import BytesIO

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score, roc_auc_score

Floats = npt.NDArray[np.float64]
Classes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Metrics:
    """The five published figures of a test part, and what is needed to read them."""

    accuracy: float
    precision: float
    """0 where no row was flagged."""
    recall: float
    """0 where the test part has no positive."""
    f1: float
    auc: float
    """Area under the ROC curve; NaN where it is undefined."""
    auc_reason: str | None
    """Why `auc` is undefined, else None."""
    threshold: float
    train_rows: int
    """Rows trained on, before resampling and after the purge."""
    rows: int
    """Rows tested on."""
    positives: int
    base_rate: float
    """Share of positives: the precision of flagging everything."""
    always_no_accuracy: float
    """The accuracy of never flagging anything. A model below it is less accurate than silence."""
    flagged_share: float
    first_hour: datetime
    last_hour: datetime


def evaluate(y: Classes, probability: Floats, hours: pd.Series, threshold: float, train_rows: int) -> Metrics:
    """Score probabilities of a test part.

    Args:
        y: 0 or 1 a row; at least one row.
        probability: of 1, a row.
        hours: the observed hour of each row.
        threshold: rows with this probability or more are flagged.
        train_rows: how many rows the model was trained on; only passed through.
    """
    flagged = (probability >= threshold).astype(np.int64)
    positives = int(y.sum())
    both_classes = 0 < positives < len(y)
    base_rate = positives / len(y)
    only = "no row" if positives == 0 else "every row"
    return Metrics(
        accuracy=float(accuracy_score(y, flagged)),
        precision=float(precision_score(y, flagged, zero_division=0)),
        recall=float(recall_score(y, flagged, zero_division=0)),
        f1=float(f1_score(y, flagged, zero_division=0)),
        auc=float(roc_auc_score(y, probability)) if both_classes else float("nan"),
        auc_reason=None if both_classes else f"{only} of the test part rose by more than 10 %",
        threshold=threshold,
        train_rows=train_rows,
        rows=len(y),
        positives=positives,
        base_rate=base_rate,
        always_no_accuracy=1 - base_rate,
        flagged_share=float(flagged.mean()),
        first_hour=hours.min().to_pydatetime(),
        last_hour=hours.max().to_pydatetime(),
    )


def importance_chart(importances: pd.Series) -> bytes:
    """A PNG with one horizontal bar a feature, the most important on top.

    Args:
        importances: shares that sum to 1, indexed by feature.
    """
    # Imported here: matplotlib takes a second to import, and only charts need it. `Figure` instead of `pyplot`
    # because the latter keeps every figure alive and is not safe in threads.
    from matplotlib.figure import Figure
    from PIL import Image

    ascending = importances.sort_values(kind="stable")
    figure = Figure(figsize=(7, 1.0 + 0.25 * len(ascending)), dpi=100, layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(list(ascending.index), ascending.to_numpy(), color="#2a6f97", height=0.7)
    axes.bar_label(bars, labels=[f"{share:.1%}" for share in ascending], padding=3, fontsize=8)
    axes.set_xlim(0, 1.12 * max(float(ascending.max()), 1e-9))  # room for the labels; an all-zero model has no width
    axes.set_xlabel("share of the forest's impurity reduction", fontsize=9)
    axes.set_xticks([])  # each bar carries its number
    axes.tick_params(labelsize=9, left=False)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.margins(y=0.01)
    drawn, picture = BytesIO(), BytesIO()
    figure.savefig(drawn, format="png")
    # A chart has few colours: a palette makes it a quarter of the size inside the UI's event log.
    Image.open(drawn).convert("RGB").quantize(32).save(picture, "png", optimize=True)
    return picture.getvalue()
