"""Pictures of how good a model is: PNG bytes, the same for the same numbers, readable on a white ground.

Every chart shows what a bar or line must be compared with: baselines, the base rate, break-even, placebo twins.
"""

from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import precision_recall_curve, roc_curve

from breakout_assets.learning.baselines import minus_price
from breakout_assets.learning.evidence import STRIKING_AUC, token_aucs
from breakout_assets.learning.statistics import bin_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = npt.NDArray[np.float64]

_MODEL: Final = "#2a6f97"
_RAW: Final = "#9a9a9a"
_REFERENCE: Final = "#555555"
_ALARM: Final = "#b5432a"
_BAND: Final = "#d3e4ee"
_CHOSEN: Final = "#b56a12"
_BASELINES: Final = {"logistic regression": "#d98324", "7-day momentum": "#5f8d4e", "minus price": "#8a5a99"}
_CURVE_POINTS: Final = 400  # more than a line of 400 pixels can show; a panel's curve has a corner for every row


def ranking_chart(table: pd.DataFrame) -> bytes:
    """ROC and precision-recall curves of the model, the logistic regression, 7-day momentum and minus the price.

    Args:
        table: `out_of_sample` rows; twins are left out.
    """
    rows = table[table["twin"] == 0].sort_values(["timestamp", "token"])
    figure, (roc, pr) = _figure(8.4, 4.0, columns=2)
    # The model last, so that it lies on top.
    scores = {
        "minus price": minus_price(rows),
        "7-day momentum": rows["momentum"],
        "logistic regression": rows["logistic"],
        "model": rows["probability"],
    }
    highest = base_rate = float(rows["y"].mean())
    for name, score in scores.items():
        known = score.notna()
        y = rows.loc[known, "y"].to_numpy(dtype=np.int64)
        if not 0 < y.sum() < len(y):
            continue  # the legend then lacks it: a curve of one class does not exist
        color, width = _BASELINES.get(name, _MODEL), 2.0 if name == "model" else 1.1
        false, true, _ = roc_curve(y, score[known])
        roc.plot(*_thinned(false, true), color=color, linewidth=width, label=name)
        precision, recall, _ = precision_recall_curve(y, score[known])
        # The first share of all positives rests on a few rows and jumps between 0 and 1.
        shown = recall >= 0.01
        pr.plot(*_thinned(recall[shown], precision[shown]), color=color, linewidth=width)
        highest = max(highest, float(precision[shown].max()))
    roc.plot([0, 1], [0, 1], color=_REFERENCE, linestyle=":", linewidth=1, label="coin toss")
    pr.axhline(base_rate, color=_REFERENCE, linestyle=":", linewidth=1, label=f"base rate {100 * base_rate:.1f} %")
    _describe(roc, "ROC: does it rank risers above the rest?", "false positive rate", "true positive rate")
    _describe(pr, "How often right, the more it flags", "share of all risers flagged (recall)", "precision")
    pr.set_ylim(0, min(1.0, 1.1 * highest) or 1.0)  # nothing rose: no height to choose one from
    for axes in (roc, pr):
        axes.set_xlim(0, 1)
    roc.set_ylim(0, 1)
    roc.legend(fontsize=8, loc="lower right", frameon=False)
    pr.legend(fontsize=8, loc="upper right", frameon=False)
    return _png(figure)


def calibration_chart(bins: pd.DataFrame, table: pd.DataFrame) -> bytes:
    """What was said against what happened, before and after calibration, above a histogram of the probabilities.

    Args:
        bins: bin, rows, predicted, observed, low, high of the calibrated probabilities; low and high may be NaN.
        table: `out_of_sample` rows, of which `raw` and `probability` are used; twins are left out.
    """
    rows = table[table["twin"] == 0]
    raw = rows["raw"].to_numpy(dtype=np.float64)
    before = rows.groupby(bin_of(raw)).agg(said=("raw", "mean"), seen=("y", "mean"))
    after = bins[bins["rows"] > 0]
    figure, (plot, histogram) = _figure(7.0, 5.4, rows=2, heights=(3, 1))
    plot.plot([0, 1], [0, 1], color=_REFERENCE, linestyle=":", linewidth=1, label="said = happened")
    plot.plot(before["said"], before["seen"], "s--", color=_RAW, markersize=5, linewidth=1, label="before calibration")
    below = (after["observed"] - after["low"]).clip(lower=0).fillna(0)
    above = (after["high"] - after["observed"]).clip(lower=0).fillna(0)
    plot.errorbar(
        after["predicted"],
        after["observed"],
        yerr=np.vstack([below, above]),
        fmt="o-",
        color=_MODEL,
        capsize=3,
        linewidth=1.5,
        label="after calibration",
    )
    _describe(plot, "Did it happen as often as the model said?", "", "share that rose by more than 10 %")
    plot.set_ylim(0, 1)
    plot.legend(fontsize=8, loc="upper left", frameon=False)
    edges = np.linspace(0, 1, 41).tolist()
    histogram.hist(raw, bins=edges, color=_RAW, histtype="step", linestyle="--")
    histogram.hist(rows["probability"].to_numpy(), bins=edges, color=_MODEL, alpha=0.8)
    _describe(histogram, "", "probability said by the model", "rows")
    for axes in (plot, histogram):
        axes.set_xlim(0, 1)
    return _png(figure)


def threshold_chart(curve: pd.DataFrame, own: Sequence[float], fixed: float, break_even: float) -> bytes:
    """Trades, precision and net result of a trade for every threshold.

    Args:
        curve: threshold, trades, precision, net_mean, net_low, net_high; NaN where nothing is flagged.
        own: thresholds the folds' models chose; empty if none pays.
        fixed: the published threshold.
        break_even: precision from which on a trade pays; NaN if unknown.
    """
    figure, (trades, precision, net) = _figure(7.0, 6.4, rows=3, heights=(2, 3, 3), share_x=True)
    at = curve["threshold"]
    trades.step(at, curve["trades"], where="mid", color=_MODEL)
    trades.set_yscale("symlog", linthresh=1)
    trades.set_ylim(bottom=0)
    trades.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    precision.plot(at, curve["precision"], color=_MODEL)
    precision.set_ylim(0, 1)
    if np.isfinite(break_even):
        precision.axhline(
            break_even,
            color=_ALARM,
            linestyle="--",
            linewidth=1,
            label=f"break-even of all rows {100 * break_even:.1f} %",
        )
        precision.legend(fontsize=8, loc="upper left", frameon=False)
    _draw_net(net, curve)
    _describe(trades, "What a higher threshold would have brought", "", "trades")
    _describe(precision, "", "", "precision")
    _describe(net, "", "probability from which on it buys", "net per trade, %")
    for axes in (trades, precision, net):
        axes.axvline(fixed, color=_REFERENCE, linestyle=":", linewidth=1.2)
        if len(own):
            axes.axvspan(min(own), max(own), color="#f1e3cf", zorder=0)
            axes.axvline(float(np.median(own)), color=_CHOSEN, linewidth=1.2)
    top = trades.get_ylim()[1]
    trades.text(fixed, top, f" {fixed:.2f}", fontsize=8, va="top", color=_REFERENCE)
    if len(own):
        trades.text(float(np.median(own)), top, " chosen", fontsize=8, va="top", color=_CHOSEN)
    return _png(figure)


def _draw_net(net: "Axes", curve: pd.DataFrame) -> None:
    net.axhline(0, color=_ALARM, linestyle="--", linewidth=1)
    if not curve["trades"].any():
        net.text(0.5, 0.8, "no trade at any threshold", transform=net.transAxes, ha="center", fontsize=9)
        return
    at = curve["threshold"]
    if curve[["net_low", "net_high"]].notna().all(axis=1).any():
        net.fill_between(at, 100 * curve["net_low"], 100 * curve["net_high"], color=_BAND, label="95 % interval")
    net.plot(at, 100 * curve["net_mean"], color=_MODEL, label="mean")
    net.legend(fontsize=8, loc="best", frameon=False)


def token_chart(table: pd.DataFrame) -> bytes:
    """Histogram of the AUC of single tokens, beside the number that placebo twins lead to expect.

    Args:
        table: `out_of_sample` rows, twins included.
    """
    twins = table[table["twin"] > 0]
    # Twins hold fewer hours, and an AUC of fewer rows scatters more: the market is taken on the same ones.
    aucs = token_aucs(table[table["timestamp"].isin(twins["timestamp"])] if len(twins) else table)
    twin = aucs.index.get_level_values("twin")
    observed, noise = aucs[twin == 0].dropna(), aucs[twin > 0].dropna()
    figure, (axes,) = _figure(7.0, 3.2)
    edges = np.linspace(0, 1, 21).tolist()
    axes.hist(observed, bins=edges, color=_MODEL, edgecolor="white", label=f"{len(observed)} tokens")
    if len(noise):
        expected = np.histogram(noise, bins=edges)[0] / twin[twin > 0].nunique()
        axes.stairs(expected, edges, color=_ALARM, linewidth=1.5, label="expected from noise")
    axes.axvline(STRIKING_AUC, color=_REFERENCE, linestyle=":", linewidth=1.2, label=f"{STRIKING_AUC:.2f}")
    _describe(axes, "AUC of single tokens: short histories scatter widely", "AUC within a token", "tokens")
    axes.set_xlim(0, 1)
    axes.legend(fontsize=8, loc="upper left", frameon=False)
    return _png(figure)


def placebo_chart(twins: Sequence[float], observed: float) -> bytes:
    """The pooled AUC on the market beside those on markets without any pattern.

    Args:
        twins: pooled AUC of each placebo twin; NaN ones are left out.
        observed: pooled AUC of the market on the twins' hours.
    """
    known = [auc for auc in twins if np.isfinite(auc)]
    figure, (axes,) = _figure(7.0, 2.9)
    everything = [*known, observed, 0.5]
    low, high = np.nanmin(everything) - 0.03, np.nanmax(everything) + 0.03
    if known:
        counts, _, _ = axes.hist(known, bins=np.linspace(low, high, 25).tolist(), color=_RAW, edgecolor="white")
        axes.set_yticks(range(int(np.max(counts)) + 2))
    axes.axvline(observed, color=_MODEL, linewidth=2.2)
    axes.axvline(0.5, color=_REFERENCE, linestyle=":", linewidth=1)
    beyond = sum(auc >= observed for auc in known)
    title = f"{beyond} of {len(known)} markets of pure noise score as high as the real one ({observed:.3f})"
    _describe(axes, title, "pooled AUC (grey: noise, blue: the market, dotted: coin toss)", "noise markets")
    axes.set_xlim(low, high)
    return _png(figure)


def importances_chart(importances: pd.DataFrame) -> bytes:
    """What the model looked at, and what it loses without it.

    Args:
        importances: feature, impurity (share that sums to 1), permutation (loss of AUC), permutation_sd.
    """
    ascending = importances.sort_values(["permutation", "impurity"], kind="stable")
    figure, (left, right) = _figure(8.4, 1.2 + 0.24 * len(ascending), columns=2, share_y=True)
    names, at = list(ascending["feature"].astype(str)), np.arange(len(ascending))
    left.barh(at, ascending["permutation"], xerr=ascending["permutation_sd"].fillna(0), color=_MODEL, height=0.7)
    left.axvline(0, color=_REFERENCE, linewidth=0.8)
    right.barh(at, 100 * ascending["impurity"], color=_RAW, height=0.7)
    left.set_yticks(at, [_plain(name) for name in names])
    left.margins(y=0.01)
    _describe(left, "What unseen rows lose when it is shuffled", "loss of AUC", "")
    _describe(right, "What training used", "weight in training, %", "")
    return _png(figure)


def ladder_chart(steps: pd.DataFrame) -> bytes:
    """Pooled AUC and net result of a trade, step by step from the published method to the default one.

    Args:
        steps: title, auc, auc_low, auc_high, net, net_low, net_high (shares); NaN where there is none.
    """
    figure, (left, right) = _figure(8.4, 1.3 + 0.34 * len(steps), columns=2, share_y=True)
    at = np.arange(len(steps))[::-1]  # the first step on top
    for axes, name, scale in ((left, "auc", 1.0), (right, "net", 100.0)):
        value, low, high = (scale * steps[column] for column in (name, f"{name}_low", f"{name}_high"))
        bounded = (low.notna() & high.notna()).to_numpy()
        axes.hlines(at[bounded], low[bounded], high[bounded], color=_MODEL, alpha=0.45, linewidth=4)
        axes.plot(value, at, "o", color=_MODEL, markersize=6)
        for height, missing in zip(at, value.isna(), strict=True):
            if missing:
                axes.text(0.02, height, "none", transform=axes.get_yaxis_transform(), fontsize=8, va="center")
        axes.grid(axis="y", color="#eeeeee")
    left.set_yticks(at, [_plain(str(title)) for title in steps["title"]])
    left.set_ylim(-0.6, len(steps) - 0.4)
    left.axvline(0.5, color=_REFERENCE, linestyle=":", linewidth=1)
    right.axvline(0, color=_ALARM, linestyle="--", linewidth=1)
    _describe(left, "Pooled AUC (dotted: coin toss)", "AUC", "")
    _describe(right, "At the step's own threshold, after costs", "net per trade, %", "")
    return _png(figure)


def _figure(
    width: float,
    height: float,
    *,
    rows: int = 1,
    columns: int = 1,
    heights: Sequence[float] | None = None,
    share_x: bool = False,
    share_y: bool = False,
) -> tuple["Figure", "list[Axes]"]:
    """An empty figure of this size in inches, 100 pixels each."""
    # Imported here: matplotlib takes a second to import, and only charts need it. `Figure` instead of `pyplot`
    # because the latter keeps every figure alive and is not safe in threads.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=share_x, sharey=share_y, height_ratios=heights)
    return figure, list(grid.ravel())


def _describe(axes: "Axes", title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _plain(text: str) -> str:
    """A dollar sign would start a formula, and a wrong formula ends the drawing."""
    return text.replace("$", r"\$")


def _thinned(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    kept = np.unique(np.linspace(0, len(x) - 1, min(len(x), _CURVE_POINTS)).astype(np.int64))
    return x[kept], y[kept]


def _png(figure: "Figure") -> bytes:
    from PIL import Image

    drawn, picture = BytesIO(), BytesIO()
    figure.savefig(drawn, format="png")
    # A chart has few colours: a palette makes it a quarter of the size inside a page or the UI's event log. Saving
    # anew also leaves out what matplotlib writes of itself, so that other versions do not mean other bytes.
    Image.open(drawn).convert("RGB").quantize(48).save(picture, "png", optimize=True)
    return picture.getvalue()
