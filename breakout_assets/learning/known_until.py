"""Files that are named after the latest price they have seen, so that an hour asks only for what it could know."""

import re
from datetime import datetime
from typing import Final

from upath import UPath

from breakout_assets import objects

_FORM: Final = "%Y%m%dT%H"
STAMP: Final = r"\d{8}T\d{2}"


def stamp(until: datetime) -> str:
    """The name of an hour (naive UTC), such as 20240601T00."""
    return f"{until:{_FORM}}"


def hour_of(stamped: str) -> datetime:
    """The hour that a name says."""
    return datetime.strptime(stamped, _FORM)  # noqa: DTZ007  hours are naive UTC


def newest_known(folder: UPath, ending: str, hour: datetime | None) -> tuple[datetime, UPath] | None:
    """The newest file `<stamp><ending>` of a folder that had seen no price after an hour, and what it had seen.

    Args:
        folder: where the files lie; it need not exist.
        ending: what follows the stamp, such as `.json` or `/evidence.json`.
        hour: naive UTC; None for the newest of all.
    """
    pattern = re.compile(f"({STAMP}){re.escape(ending)}")
    found = {}
    for path in (file.path for file in objects.found_under(folder)):
        match = pattern.fullmatch(objects.below(folder, path))
        if match:
            found[hour_of(match[1])] = path
    known = [until for until in found if hour is None or until <= hour]
    return (max(known), found[max(known)]) if known else None
