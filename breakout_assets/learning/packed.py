"""Many fitted models as plain arrays: read at once, asked at once, bit-equal to scikit-learn.

A model archive is opened object by object, which takes 60 ms, and scikit-learn is asked one model at a time, which
takes 3 ms. Here one row of an Arrow table is one model; its trees are lists of nodes that lie one behind the other in
memory, and all trees of all models descend a level at a time.

Exact, not nearly: features are scaled in 64 bits and compared in 32 bits as scikit-learn does it, and the votes of a
forest's trees are added in the order of its trees.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from blake3 import blake3
from scipy.special import expit

from breakout_assets.errors import DataError
from breakout_assets.learning.calibration import PROBABILITY_DIGITS, Platt
from breakout_assets.learning.recipes import Recipe

if TYPE_CHECKING:  # scikit-learn takes a second to import, and an hour that predicts needs none of it
    from sklearn.ensemble import RandomForestClassifier

    from breakout_assets.learning.training import FittedModel

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# One row is one model. Lists of one row belong together: those of nodes have a value a node, `root` one a tree.
SCHEMA: Final = pa.schema(
    [
        ("name", pa.string()),
        ("scope", pa.string()),
        ("trained_until", pa.timestamp("us")),
        ("expires_at", pa.timestamp("us")),
        ("model_hash", pa.string()),  # of the archive; null where that cannot be read
        ("manifest_hash", pa.string()),  # which the row was made by; likewise
        ("shortcoming", pa.string()),  # why the model may not speak about its token, a code of `admission`
        ("flaw", pa.string()),  # why the archive cannot be read
        ("threshold", pa.float64()),  # the probability from which on buying paid
        ("slope", pa.float64()),  # of the calibration; null where there is none
        ("intercept", pa.float64()),
        ("mean", pa.list_(pa.float64())),
        ("scale", pa.list_(pa.float64())),
        ("weight", pa.list_(pa.float64())),  # of a regression: the intercept, then a weight a feature
        ("root", pa.list_(pa.int32())),  # each tree's first node, counted from the model's first
        ("node", pa.list_(pa.int64())),  # `_nodes`
        ("vote", pa.list_(pa.float64())),  # the different shares of y = 1 in the model's leaves
    ]
)
_RECIPE: Final = b"recipe_id"
# A node is one number, so that a visit fetches one line of memory and not three: in the low 32 bits the cut as a float,
# then 7 bits of the feature that is compared with it, then the step. Where the feature is at most the cut, the next
# node is visited, else the one that lies a step further on. In a leaf the step is the place of its vote in `vote`.
_CUT_BITS: Final = 32
_FEATURE_BITS: Final = 7
_STEP_BITS: Final = 24
_LEAF: Final = 2**_FEATURE_BITS - 1  # in the place of a feature
# Questions whose trees descend together: of more, each step's numbers would be memory touched for the first time.
_SIDE_BY_SIDE: Final = 256
_ABOUT: Final = sum(not pa.types.is_list(field.type) for field in SCHEMA)


@dataclass(frozen=True, eq=False)
class PackedModels:
    """Models of one recipe, a row a model, by name.

    Attributes:
        table: columns of `SCHEMA`.
        digest: BLAKE3 of the file that the table makes, 64 hexadecimal digits; predictions cite it.
    """

    table: pa.Table
    digest: str

    @property
    def about(self) -> pd.DataFrame:
        """Everything about the models but what they compute with: all columns but the lists, by name."""
        columns: pd.DataFrame = self.table.select(SCHEMA.names[:_ABOUT]).to_pandas()
        return columns.set_index("name")

    def scores(self, which: Ints, values: Floats) -> Floats:
        """What the model of row `which[i]` itself says of the features `values[i]`, as `FittedModel.scores`.

        Args:
            which: rows of the table; a model may be asked often.
            values: float64, a row a question and a column a feature of the recipe.

        Returns:
            The score of each question, before calibration; NaN where the scaled features are no numbers that a model
            can judge.
        """
        table = self.table  # of which no part is copied, however few are asked: it lies in a file
        mean, scale = (_matrix(table, column, values.shape[1])[which] for column in ("mean", "scale"))
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = (values - mean) / scale
            judged = np.isfinite(scaled.astype(np.float32)).all(axis=1)
        scaled[~judged] = 0.0
        forests = np.diff(_bounds(table, "root"))[which] > 0
        score = np.full(len(values), np.nan)
        score[forests] = _votes(table, which[forests], scaled[forests].astype(np.float32))
        score[~forests] = _regressions(table, which[~forests], scaled[~forests])
        score[~judged] = np.nan
        return np.round(score, PROBABILITY_DIGITS)

    def probabilities(self, which: Ints, scores: Floats) -> Floats:
        """The calibrated probability of each score of the model of row `which[i]`, rounded to 1e-9."""
        slope, intercept = (self.table[name].to_numpy()[which] for name in ("slope", "intercept"))
        return np.where(np.isnan(slope), scores, Platt(slope, intercept).apply(scores))


def packed(rows: Iterable[pa.Table], recipe_id: str) -> PackedModels:
    """Models from their rows (`packed_row`), by name."""
    table = pa.concat_tables([SCHEMA.empty_table(), *(part.replace_schema_metadata(None) for part in rows)])
    table = table.sort_by("name").combine_chunks().replace_schema_metadata({_RECIPE: recipe_id})
    return PackedModels(table, blake3(file_bytes(table)).hexdigest())


def file_bytes(table: pa.Table) -> bytes:
    """The table as an Arrow file; equal models give equal bytes."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        for batch in table.to_batches():
            writer.write_batch(batch)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def opened(data: pa.Buffer, digest: str, recipe_id: str, where: str) -> PackedModels:
    """The models of a file that has this digest.

    Raises:
        DataError: it has another, is no such file, or of another recipe; the message names it.
    """
    # First: what a damaged file makes of Arrow nobody can tell.
    if blake3(data).hexdigest() != digest:
        raise DataError(f"{where} does not have the BLAKE3 in its name; it is made anew")
    try:
        table = pa.ipc.open_file(data).read_all()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{where} holds no packed models ({error}); it is made anew") from error
    found = (table.schema.metadata or {}).get(_RECIPE, b"").decode(errors="replace")
    if not table.schema.equals(SCHEMA, check_metadata=False) or found != recipe_id:
        raise DataError(f"{where} holds packed models of another kind or recipe; it is made anew")
    return PackedModels(table.combine_chunks(), digest)


def packed_row(model: "FittedModel") -> pa.Table:
    """One row of `SCHEMA`, without hashes that the model does not know yet.

    Raises:
        DataError: a forest numbers its nodes otherwise than scikit-learn does without a limit of leaves, or a tree has
            too many of them.
    """
    classifier, calibration = model.classifier, model.calibration
    if hasattr(classifier, "estimators_"):
        computing = _forest(classifier, model.name)
    else:
        computing = {"weight": np.append(classifier.intercept_, classifier.coef_[0])}
    return _row(
        model.name,
        model.recipe,
        scope=model.scope,
        trained_until=model.trained_until,
        expires_at=model.expires_at,
        model_hash=model.model_hash,
        shortcoming=next(iter(model.admission), None),
        threshold=model.own_threshold,
        slope=None if calibration is None else calibration.slope,
        intercept=None if calibration is None else calibration.intercept,
        mean=model.scaler.mean_,
        scale=model.scaler.scale_,
        **computing,
    )


def flawed_row(name: str, recipe: Recipe, trained_until: Any, flaw: str) -> pa.Table:
    """The row of a model whose archive cannot be read: it answers nothing, and says why."""
    return _row(name, recipe, trained_until=trained_until, flaw=flaw)


def with_hashes(row: pa.Table, **hashes: str) -> pa.Table:
    """The row with what is known only once its model has been written: `model_hash`, `manifest_hash`."""
    for name, value in hashes.items():
        place = SCHEMA.get_field_index(name)
        row = row.set_column(place, SCHEMA.field(place), pa.array([value], pa.string()))
    return row


def _row(name: str, recipe: Recipe, **known: Any) -> pa.Table:
    content = {"name": name, **known}
    empty: dict[str, Any] = {field.name: [] if pa.types.is_list(field.type) else None for field in SCHEMA}
    columns = [pa.array([content.get(field.name, empty[field.name])], field.type) for field in SCHEMA]
    return pa.table(columns, schema=SCHEMA)


def _forest(forest: "RandomForestClassifier", name: str) -> dict[str, Any]:
    trees = [estimator.tree_ for estimator in forest.estimators_]
    sizes = np.array([tree.node_count for tree in trees])
    root = np.cumsum(sizes) - sizes
    number = np.concatenate([np.arange(size) for size in sizes])
    left, right = (np.concatenate([getattr(tree, f"children_{side}") for tree in trees]) for side in ("left", "right"))
    leaf = left < 0
    if not (leaf | (left == number + 1)).all():
        raise DataError(f"{name}: the forest does not number a left child after its parent; train it again")
    ones = list(forest.classes_).index(1) if 1 in forest.classes_ else None
    votes = np.zeros(len(leaf)) if ones is None else np.concatenate([tree.value[:, 0, ones] for tree in trees])
    vote, place = np.unique(votes[leaf], return_inverse=True)
    step = right - number
    step[leaf] = place
    if step.max() >= 2**_STEP_BITS:
        most = f"{2**_STEP_BITS:,}"
        raise DataError(f"{name}: a tree has over {most} nodes; train it with fewer rows or a smaller max_depth")
    cut = np.where(leaf, 0.0, np.concatenate([tree.threshold for tree in trees]))
    feature = np.where(leaf, _LEAF, np.concatenate([tree.feature for tree in trees]))
    return {"root": root.astype(np.int32), "node": _nodes(_not_above(cut), feature, step), "vote": vote}


def _nodes(cut: npt.NDArray[np.float32], feature: Ints, step: Ints) -> Ints:
    """Each node as one number, of which `_asked` is the other way round."""
    return cut.view(np.uint32).astype(np.int64) | (feature | step << _FEATURE_BITS) << _CUT_BITS


def _asked(nodes: Ints) -> tuple[npt.NDArray[np.float32], Ints, Ints]:
    """Cut, feature and step of each node."""
    above = nodes >> _CUT_BITS
    return nodes.astype(np.uint32).view(np.float32), above & _LEAF, above >> _FEATURE_BITS


def _not_above(cut: Floats) -> npt.NDArray[np.float32]:
    """The largest 32-bit float that is not above each: a 32-bit feature is at most either of the two or neither."""
    with np.errstate(over="ignore"):
        single = cut.astype(np.float32)
    return np.where(single > cut, np.nextafter(single, np.float32(-np.inf)), single).astype(np.float32)


def _bounds(table: pa.Table, column: str) -> Ints:
    """Where the list of each row begins in `_values`, and where the last one ends."""
    offsets = np.asarray(_lists(table, column).offsets.to_numpy(), dtype=np.int64)
    return np.asarray(offsets - offsets[0])


def _values(table: pa.Table, column: str) -> npt.NDArray[Any]:
    values: npt.NDArray[Any] = _lists(table, column).flatten().to_numpy()
    return values


def _lists(table: pa.Table, column: str) -> pa.Array:
    chunks = table[column]
    return chunks.chunk(0) if chunks.num_chunks == 1 else chunks.combine_chunks()


def _matrix(table: pa.Table, column: str, width: int) -> Floats:
    """Lists of one length as lines; zeros and ones would hide a missing one, so that an empty list is NaN."""
    bounds, values = _bounds(table, column), _values(table, column)
    lines = np.full((len(table), width), np.nan)
    full = np.diff(bounds) == width
    lines[full] = values.reshape(-1, width) if full.all() else values[_within(bounds, full)].reshape(-1, width)
    return lines


def _within(bounds: Ints, chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    return np.repeat(chosen, np.diff(bounds))


def _votes(table: pa.Table, place: Ints, single: npt.NDArray[np.float32]) -> Floats:
    """The mean vote of the trees of model `place[i]` about the scaled features `single[i]`."""
    if not len(place):
        return np.zeros(0)
    if len(place) > _SIDE_BY_SIDE:
        parts = [slice(n, n + _SIDE_BY_SIDE) for n in range(0, len(place), _SIDE_BY_SIDE)]
        return np.concatenate([_votes(table, place[part], single[part]) for part in parts])
    nodes, first, roots = _values(table, "node"), _bounds(table, "node"), _bounds(table, "root")
    trees = np.diff(roots)[place]
    question = np.repeat(np.arange(len(place)), trees)
    tree = np.arange(len(question)) - np.repeat(np.cumsum(trees) - trees, trees)
    at = np.repeat(first[place], trees) + _values(table, "root")[np.repeat(roots[place], trees) + tree]
    last = np.empty_like(at)  # the node that each tree has come to
    live, answers = np.arange(len(at)), single.ravel()
    answer = question * single.shape[1]
    while len(live):
        node = nodes[at]
        last[live] = node
        inner = (node >> _CUT_BITS & _LEAF) != _LEAF
        live, at, answer, node = (each[inner] for each in (live, at, answer, node))
        cut, feature, step = _asked(node)
        at += np.where(answers[answer + feature] <= cut, 1, step)
    # Models with fewer trees than others have zeros for the rest.
    votes = np.zeros((len(place), int(trees.max())))
    votes[question, tree] = _values(table, "vote")[np.repeat(_bounds(table, "vote")[place], trees) + _asked(last)[2]]
    total = np.zeros(len(place))
    # Tree after tree: a sum over an axis would add up in another order than scikit-learn.
    for vote in votes.T:
        total += vote
    return total / trees


def _regressions(table: pa.Table, place: Ints, scaled: Floats) -> Floats:
    """The logistic regression of model `place[i]` for the scaled features `scaled[i]`, column by column."""
    if not len(place):
        return np.zeros(0)
    weight = _matrix(table, "weight", scaled.shape[1] + 1)[place]
    logit = weight[:, 0].copy()
    for column in range(scaled.shape[1]):
        logit += weight[:, column + 1] * scaled[:, column]
    return np.asarray(expit(logit))
