"""How models are made and judged: frozen, validated descriptions, each with an id that follows from its content."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import Final, Literal

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
# Scale-free: a coin at a hundredth of a cent and one at a hundred dollars can learn from each other. The changes of
# rank and of market pairs are left out: candles know neither, and a model must be able to learn from candles.
STATIONARY_FEATURES: Final = (
    "RSI",
    "VWRSI",
    "log_price_sma_5",
    "log_price_sma_10",
    "log_price_sma_20",
    "macd_price",
    "macd_signal_price",
    "log_ema_9_21",
    "band_position",
    "band_width",
    "pvt_72",
    "obv_72",
    "volume_z_168",
    "log_volume_change_24",
    "log_volume_24_720",
    "log_return_24",
    "log_return_168",
    "volatility_72",
)

Scope = Literal["per_token", "pooled"]
# The name of the model over all tokens. No token can be called that: every token name has a hyphen.
POOLED: Final = "ALL"
# Half the label's horizon. Labels of neighbouring hours are nearly the same; a smaller leaf learns single episodes.
HALF_HORIZON: Final = 60


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how rows become a model and what it is trusted with; `recipe_id` follows from it.

    The label is the same for all: the price 120 hours later is more than 10 % higher; and so is the exit, at the price
    120 hours later. A probability therefore belongs to what is traded.

    Raises:
        DataError: a field has an impossible value; the message names recipe, field and value.
    """

    name: str
    features: tuple[str, ...]
    scope: Scope = "pooled"
    """A model for each token with the pooled one where a token has none, or the pooled one alone."""
    estimator: Literal["forest", "logistic"] = "forest"
    same_month_labels: bool = False
    """Defect: only labels whose hour and end lie in one calendar month."""
    by_symbol: bool = False
    """Defect: rows grouped by symbol, so that coins of one symbol are mixed."""
    indicators_after_join: bool = False
    """Defect: indicators computed over labelled rows only, cumulative ones from the first of them on."""
    resample: bool = False
    """Balance the training part with SMOTE, before scaling."""
    purge: bool = True
    """Train only on labels that had ended before the test part begins."""
    calibration: Literal["none", "platt"] = "none"
    """Turn scores into probabilities on rows that the estimator had not seen."""
    threshold_rule: Literal["fixed", "profit"] = "fixed"
    """Flag from `threshold` on, or from where the lower bound of the profit on unseen rows is best."""
    threshold: float = 0.60
    """The fixed one. It also serves where no other pays and trading without evidence is asked for."""
    cost: float = 0.015
    """Share of the money that a round trip costs: fee and slippage, twice, and the spread."""
    n_estimators: int = 60
    max_depth: int = 100
    min_samples_split: int = 5
    min_samples_leaf: int = 1
    seed: int | None = None
    """The forest's seed; None derives one from the recipe and the model's name."""
    hour_step: int = 1
    """Train on every n-th hour of the day."""
    test_share: float = 0.20
    """The newest share of the rows, held out once to score, calibrate and choose the threshold."""
    min_rows: int = 720
    """Labelled hours below which nothing is trained: one look-back of the indicators, 30 days."""
    max_rows: int = 30_000
    """Rows above which hours are left out evenly. Five-day labels of neighbouring hours are nearly the same row, and
    a forest on 100,000 rows takes half a minute, twice a fit."""
    expires_days: int = 14
    """Days after the last price a model has seen, after which it no longer speaks."""
    reference_only: bool = False
    """Kept for comparison with what was published; its figures are flattered. It never trades."""

    def __post_init__(self) -> None:
        self._check("name", bool(self.name), "must not be empty")
        self._check("features", bool(self.features), "must not be empty")
        self._check("features", len(set(self.features)) == len(self.features), "must not repeat")
        self._check("features", len(self.features) <= 127, "must be at most 127, which a packed model counts in 7 bits")
        self._check("scope", self.scope in ("per_token", "pooled"), "must be per_token or pooled")
        self._check("estimator", self.estimator in ("forest", "logistic"), "must be forest or logistic")
        self._check("calibration", self.calibration in ("none", "platt"), "must be none or platt")
        self._check("threshold_rule", self.threshold_rule in ("fixed", "profit"), "must be fixed or profit")
        self._check("by_symbol", self.indicators_after_join or not self.by_symbol, "needs indicators_after_join")
        self._check("test_share", 0 < self.test_share < 1, "must lie between 0 and 1")
        self._check("threshold", 0 < self.threshold < 1, "must lie between 0 and 1")
        self._check("cost", 0 <= self.cost < 1, "must lie in 0 to 1")
        self._check("n_estimators", self.n_estimators >= 1, "must be at least 1")
        self._check("max_depth", self.max_depth >= 1, "must be at least 1")
        self._check("min_samples_split", self.min_samples_split >= 2, "must be at least 2")
        self._check("min_samples_leaf", self.min_samples_leaf >= 1, "must be at least 1")
        self._check("seed", self.seed is None or 0 <= self.seed < 2**32, "must be a 32-bit number")
        self._check("hour_step", self.hour_step in (1, 2, 3, 4, 6, 8, 12, 24), "must divide a day")
        self._check("min_rows", self.min_rows >= 2, "must be at least 2: one row to train on, one to test with")
        self._check("max_rows", self.max_rows >= self.min_rows, "must not be below min_rows")
        self._check("expires_days", self.expires_days >= 1, "must be at least 1")

    def _check(self, field: str, fits: bool, rule: str) -> None:
        if not fits:
            raise DataError(f"recipe {self.name!r}: {field} {rule}, not {getattr(self, field)!r}")

    @property
    def recipe_id(self) -> str:
        """16 hexadecimal digits of the SHA-256 of all fields."""
        content = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @property
    def feature_set_hash(self) -> str:
        """16 hexadecimal digits of the SHA-256 of the features in their order."""
        return hashlib.sha256(json.dumps(self.features).encode()).hexdigest()[:16]

    def seed_for(self, model: str) -> int:
        """The seed of one model's random steps: the same in every process and whatever is trained before it."""
        return int.from_bytes(hashlib.sha256(f"{self.recipe_id}/{model}".encode()).digest()[:4], "big")


_DEFAULT: Final = Recipe(
    "default",
    STATIONARY_FEATURES,
    calibration="platt",
    threshold_rule="profit",
    min_samples_leaf=HALF_HORIZON,
    hour_step=6,
    # A fifth of half a year holds seven independent windows: too few to say from where on buying pays.
    test_share=0.40,
)
_RECIPES: Final = {
    shipped.name: shipped
    for shipped in (
        _DEFAULT,
        # The write-up's order of steps and its only seed, with every defect of its rows and of its split.
        Recipe(
            "blog_exact",
            PUBLISHED_FEATURES,
            scope="per_token",
            same_month_labels=True,
            by_symbol=True,
            indicators_after_join=True,
            resample=True,
            purge=False,
            seed=5,
            reference_only=True,
        ),
        Recipe("blog_fixed", PUBLISHED_FEATURES, scope="per_token", resample=True),
        replace(_DEFAULT, name="baseline_logit", estimator="logistic"),
        # What one number says by itself: how far the price has come in a week.
        replace(_DEFAULT, name="baseline_momentum", estimator="logistic", features=("log_return_168",)),
    )
}
RECIPES: Final = tuple(_RECIPES)


def recipe(name: str, cost: float | None = None) -> Recipe:
    """The shipped recipe of this name, with the user's own cost of a round trip if that is given.

    Raises:
        SettingsError: there is none; the message lists those that exist.
    """
    if name not in _RECIPES:
        raise SettingsError(f"there is no recipe {name!r}; BREAKOUT_RECIPE may be {' or '.join(sorted(_RECIPES))}")
    found = _RECIPES[name]
    return found if cost is None else replace(found, cost=cost)
