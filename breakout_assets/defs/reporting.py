"""What a run tells the UI: metadata of each partition, previews, check results, and failures that name their part."""

import base64
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import dagster as dg
import pandas as pd

from breakout_assets.errors import DataError, SettingsError, TemporaryError

Metadata = Mapping[str, Any]
PREVIEW_ROWS: Final = 5  # every event stores its preview, so it stays small
INLINE_CHARACTERS: Final = 1000  # longer Markdown is behind a click in the UI
MOST_LISTED: Final = 20
PROGRESS_EVERY: Final = 10
# The network, or the server of a bucket, may be down for a moment. Data errors are raised as failures that no retry
# repeats.
WHEN_PASSING: Final = dg.RetryPolicy(
    max_retries=3, delay=20, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS
)


Findings = Mapping[str, str]
Made = tuple[Metadata, Findings]
"""What the UI shows of a partition, and the checks that it fails: name -> what is wrong."""
MakeChunk = Callable[[Sequence[str]], Iterable[tuple[str, Made]]]


def each_partition(context: dg.AssetExecutionContext, make: Callable[[str], Made]) -> dg.MaterializeResult:
    """Make every partition of the run by its key, and report on each.

    A partition whose data are refused does not keep the others from being made.

    Raises:
        dg.Failure: a partition was refused. Those that were made are recorded before, since they are stored.
    """
    return each_chunk(context, lambda keys: ((key, make(key)) for key in keys), size=1)


def each_chunk(context: dg.AssetExecutionContext, make: MakeChunk, size: int) -> dg.MaterializeResult:
    """The same for partitions that share what is read: `make` is handed up to `size` keys that follow each other.

    It yields each partition once it is stored. If it refuses, those of the chunk that it has not made are made one by
    one, so that only those that are at fault are missing. Raises as `each_partition`.
    """
    made: dict[str, Made] = {}
    refused: dict[str, str] = {}
    keys = list(context.partition_keys)
    waiting = [keys[begin : begin + size] for begin in range(0, len(keys), size)]
    while waiting:
        chunk = waiting.pop(0)
        try:
            for key, found in make(chunk):
                made[key] = found
                log_progress(context, len(made) + len(refused), len(keys))
        except (DataError, SettingsError) as error:
            left = [key for key in chunk if key not in made]
            if len(chunk) > 1:
                waiting = [[key] for key in left] + waiting
                continue
            refused[left[0]] = str(error)
            context.log.error("%s: %s", left[0], error)
            log_progress(context, len(made) + len(refused), len(keys))
        except TemporaryError:
            _record(context, {key: metadata for key, (metadata, _) in made.items()})
            raise
    if refused:
        raise_refused(context, {key: metadata for key, (metadata, _) in made.items()}, refused)
    for key, (metadata, _) in made.items():
        context.add_asset_metadata(metadata, partition_key=key)
    return dg.MaterializeResult(check_results=check_results(context, {key: found for key, (_, found) in made.items()}))


@contextmanager
def refusing() -> Iterator[None]:
    """What is refused here concerns the whole run, and no retry repeats it."""
    try:
        yield
    except (DataError, SettingsError) as error:
        raise dg.Failure(str(error), allow_retries=False) from error


def log_progress(context: dg.AssetExecutionContext, done: int, total: int) -> None:
    """A line in the run's log every few partitions."""
    if done % PROGRESS_EVERY == 0 or done == total:
        context.log.info("%d of %d partitions", done, total)


def _record(context: dg.AssetExecutionContext, made: Mapping[str, Metadata]) -> None:
    """Partitions that are stored, of a run that is about to fail."""
    for key, metadata in made.items():
        context.log_event(dg.AssetMaterialization(context.asset_key, partition=key, metadata=metadata))


def raise_refused(context: dg.AssetExecutionContext, made: Mapping[str, Metadata], refused: Mapping[str, str]) -> None:
    """Record the partitions that were made and fail the run for those that were refused; nothing retries it."""
    _record(context, made)
    first = next(iter(refused))
    raise dg.Failure(
        f"{len(refused)} of {len(made) + len(refused)} partitions could not be made. {first}: {refused[first]}",
        metadata={"refused": dict(list(refused.items())[:MOST_LISTED])},
        allow_retries=False,
    )


def check_results(
    context: dg.AssetExecutionContext,
    findings: Mapping[str, Findings],
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
) -> list[dg.AssetCheckResult]:
    """One result for each check of the asset; a finding in any partition of the run fails it."""
    results = []
    for spec in context.assets_def.check_specs:
        found = {key: checks[spec.name] for key, checks in findings.items() if spec.name in checks}
        results.append(
            dg.AssetCheckResult(
                check_name=spec.name,
                asset_key=spec.asset_key,
                passed=not found,
                severity=severity,
                description="; ".join(f"{key}: {reason}" for key, reason in list(found.items())[:3]) or None,
                metadata={"partitions": len(findings), "findings": dict(list(found.items())[:MOST_LISTED])},
            )
        )
    return results


def preview(frame: pd.DataFrame, columns: Iterable[str], rows: int = PREVIEW_ROWS) -> dg.MarkdownMetadataValue:
    """The first rows as a Markdown table, as many as the UI shows without a click."""
    names = list(columns)
    shown = frame[names].head(rows)
    numeric = [pd.api.types.is_numeric_dtype(shown[name]) for name in names]
    lines = ["|".join(names), "|".join("--:" if number else "---" for number in numeric)]
    for row in shown.itertuples(index=False):
        line = "|".join(_cell(value) for value in row)
        if len("\n".join([*lines, line])) >= INLINE_CHARACTERS:
            break
        lines.append(line)
    return dg.MetadataValue.md("\n".join(lines) if len(shown) else "*no rows*")


def _cell(value: object) -> str:
    """A value as a cell: short, and text of a listing cannot break out of it."""
    if value is None or value is pd.NA or value is pd.NaT or value != value:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, pd.Timestamp):
        return f"{value:%Y-%m-%d %H:%M}"
    return re.sub(r"([\\`*_{}\[\]<>|!#])", r"\\\1", str(value).replace("\n", " "))


def bars(shares: "pd.Series[float]", rows: int = 8) -> dg.MarkdownMetadataValue:
    """The largest shares as a bar chart in characters, short enough that the UI shows it without a click."""
    largest = shares.sort_values(ascending=False).head(rows)
    lines = [
        f"{name}|{'█' * max(1, round(20 * share / largest.iloc[0]))} {share:.1%}" for name, share in largest.items()
    ]
    return dg.MetadataValue.md("\n".join(["feature|share of the forest's impurity reduction", "---|---", *lines]))


def picture(png: bytes, title: str) -> dg.MarkdownMetadataValue:
    """A PNG that the UI shows."""
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{base64.b64encode(png).decode()})")


def checks_of(asset: str, checks: Mapping[str, str]) -> list[dg.AssetCheckSpec]:
    """Check specs of an asset: name -> what it means."""
    return [dg.AssetCheckSpec(name, asset=asset, description=meaning) for name, meaning in checks.items()]
