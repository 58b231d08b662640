"""How models are trained: frozen, validated descriptions, each with an id that follows from its content."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Final

from breakout_assets.errors import DataError, SettingsError

# The published order: it decides which columns a forest's randomness meets first, so it belongs to the method.
PUBLISHED_FEATURES: Final = (
    "VWRSI",
    "RSI",
    "cmc_rank",
    "num_market_pairs",
    "sma_5",
    "sma_10",
    "sma_20",
    "pvt",
    "volume",
    "volume_change_24h",
    "percent_change_7d",
    "MACD",
    "MACD_signal",
    "EMA_9",
    "EMA_21",
    "bollinger_hband",
    "bollinger_lband",
    "OBV",
    "VPT",
)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how rows become a model; `recipe_id` changes whenever one of the fields does.

    Raises:
        DataError: a field has an impossible value; the message names recipe, field and value.
    """

    name: str
    features: tuple[str, ...]
    resample: bool
    """Balance the training part with SMOTE."""
    purge: bool
    """Train only on labels that had ended before the test part begins."""
    test_share: float = 0.20
    threshold: float = 0.60
    """A probability from here on is flagged as a breakout."""
    n_estimators: int = 60
    max_depth: int = 100
    min_samples_split: int = 5
    seed: int | None = None
    """The forest's seed; None derives one from the recipe and the model's name."""
    min_rows: int = 720
    """Rows below which nothing is trained: one look-back of the indicators, 30 days."""
    max_rows: int = 30_000
    """Rows above which hours are left out evenly. Five-day labels of neighbouring hours are nearly the same row, and
    a forest on 100,000 rows takes half a minute, twice a fit."""
    reference_only: bool = False
    """Kept for comparison with what was published; its figures are flattered and it should not trade."""

    def __post_init__(self) -> None:
        self._check("name", bool(self.name), "must not be empty")
        self._check("features", bool(self.features), "must not be empty")
        self._check("features", len(set(self.features)) == len(self.features), "must not repeat")
        self._check("test_share", 0 < self.test_share < 1, "must lie between 0 and 1")
        self._check("threshold", 0 < self.threshold < 1, "must lie between 0 and 1")
        self._check("n_estimators", self.n_estimators >= 1, "must be at least 1")
        self._check("max_depth", self.max_depth >= 1, "must be at least 1")
        self._check("min_samples_split", self.min_samples_split >= 2, "must be at least 2")
        self._check("seed", self.seed is None or 0 <= self.seed < 2**32, "must be a 32-bit number")
        self._check("min_rows", self.min_rows >= 2, "must be at least 2: one row to train on, one to test with")
        self._check("max_rows", self.max_rows >= self.min_rows, "must not be below min_rows")

    def _check(self, field: str, fits: bool, rule: str) -> None:
        if not fits:
            raise DataError(f"recipe {self.name!r}: {field} {rule}, not {getattr(self, field)!r}")

    @property
    def recipe_id(self) -> str:
        """16 hexadecimal digits of the SHA-256 of all fields."""
        content = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def seed_for(self, model: str) -> int:
        """The seed of one model's random steps: the same in every process and whatever is trained before it."""
        return int.from_bytes(hashlib.sha256(f"{self.recipe_id}/{model}".encode()).digest()[:4], "big")


_RECIPES: Final = {
    shipped.name: shipped
    for shipped in (
        # The write-up's order of steps and its only seed. Labels straddle its split, hence for reference only.
        Recipe("blog_exact", PUBLISHED_FEATURES, resample=True, purge=False, seed=5, reference_only=True),
        Recipe("blog_fixed", PUBLISHED_FEATURES, resample=True, purge=True),
    )
}


def recipe(name: str) -> Recipe:
    """The shipped recipe of this name.

    Raises:
        SettingsError: there is none; the message lists those that exist.
    """
    if name not in _RECIPES:
        raise SettingsError(f"there is no recipe {name!r}; BREAKOUT_RECIPE may be {' or '.join(sorted(_RECIPES))}")
    return _RECIPES[name]
