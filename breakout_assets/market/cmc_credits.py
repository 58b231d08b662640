"""Credits of a CoinMarketCap key: what a month has used, and whether one more call fits into it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from breakout_assets.errors import DataError
from breakout_assets.market.listing import utc_time, whole
from breakout_assets.market.schema import HOUR

COINS_PER_CREDIT: Final = 200  # of a listing
QUOTES_PER_CREDIT: Final = 100  # of quotes by id, latest and past
# A billing month is never longer; a reset that lies further ahead is no monthly one.
_LONGEST_MONTH: Final = timedelta(days=32)


@dataclass(frozen=True)
class Usage:
    """What the answer about a key tells; None for what it leaves out.

    Attributes:
        used: Credits used in the running month of the plan.
        limit: Credits of a month.
        reset: When the month ends, naive UTC.
    """

    used: int | None
    limit: int | None
    reset: datetime | None


def listing_cost(coins: int) -> int:
    """Credits of one call for this many coins of a listing."""
    return math.ceil(coins / COINS_PER_CREDIT)


def quotes_cost(coins: int) -> int:
    """Credits of quotes of this many coins by id, one point of time each."""
    return math.ceil(coins / QUOTES_PER_CREDIT)


def read_usage(body: Mapping[str, object]) -> Usage:
    """The usage that a decoded answer about a key tells; everything in it is optional."""
    data = _part(body, "data")
    plan, month = _part(data, "plan"), _part(_part(data, "usage"), "current_month")
    used, left = whole(month.get("credits_used")), whole(month.get("credits_left"))
    limit = whole(plan.get("credit_limit_monthly"))
    if limit is None and used is not None and left is not None:
        limit = used + left
    if used is None and limit is not None and left is not None:
        used = limit - left
    return Usage(used, limit, utc_time(plan.get("credit_limit_monthly_reset_timestamp")))


def affordable(usage: Usage, cost: int, budget: int, hour: datetime, hourly: bool) -> dict[str, str | int | float]:
    """What the credits allow, as metadata.

    Args:
        usage: What is used.
        cost: Credits of what is about to be asked.
        budget: Credits that a month may cost; the plan's own limit holds beside it.
        hour: The hour that is asked for, naive UTC.
        hourly: Whether the same is asked in every further hour of the month, so that a projection makes sense.

    Returns:
        `credits_budget`, and where the usage is known `credits_used_this_month` and `credits_projected_month`.

    Raises:
        DataError: The cost exceeds what is left.
    """
    allowed = budget if usage.limit is None else min(budget, usage.limit)
    told: dict[str, str | int | float] = {"credits_budget": allowed}
    if usage.used is None:
        return told
    reset = usage.reset if usage.reset and hour < usage.reset <= hour + _LONGEST_MONTH else _next_month(hour)
    if usage.used + cost > allowed:
        plan = "unknown" if usage.limit is None else str(usage.limit)
        raise DataError(
            f"the credits of this month do not suffice: {usage.used} are used, this call costs {cost}, and {allowed} "
            f"are allowed (BREAKOUT_CMC_MONTHLY_BUDGET {budget}, plan {plan}). They come back at "
            f"{reset:%Y-%m-%d %H:%M} UTC. Nothing was asked; raise the budget or the plan, or ask for fewer coins: "
            "lower BREAKOUT_CMC_LIMIT."
        )
    told["credits_used_this_month"] = usage.used
    if hourly:
        told["credits_projected_month"] = usage.used + cost * math.ceil((reset - hour) / HOUR)
    return told


def _next_month(hour: datetime) -> datetime:
    first = hour.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (first + _LONGEST_MONTH).replace(day=1)


def _part(holder: Mapping[str, object], name: str) -> Mapping[str, object]:
    part = holder.get(name)
    return part if isinstance(part, dict) else {}
