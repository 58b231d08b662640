"""Whole files at a path: the same calls for a folder and for a bucket, and errors that say who has to act.

A bucket is asked through boto3: one request an object, a pool of connections for many, and `If-None-Match` where a file
must not exist yet. A path carries what its server needs to be found (`endpoint_url`, `region_name`) and no secret:
credentials come from the usual AWS chain when the first request is made.
"""

import os
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ReadTimeoutError,
    ResponseStreamingError,
)
from botocore.exceptions import (
    ConnectionError as BotoConnectionError,
)
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential
from upath import UPath

from breakout_assets.errors import DataError, SettingsError, TemporaryError

LOCAL: Final = ("", "file", "local")  # protocols of paths on this machine
# A round trip to S3 takes 20 to 100 ms and hardly any work: 16 at once read a month of hours in seconds.
POOL: Final = 16
_BROKEN_BODY: Final = (IncompleteReadError, ResponseStreamingError, ReadTimeoutError, ConnectionClosedError)
_ABSENT: Final = frozenset({"404", "NoSuchKey", "NotFound"})
_EXISTS: Final = frozenset({"PreconditionFailed", "412"})
_RENEW: Final = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"})
_DENIED: Final = frozenset(
    {"AccessDenied", "403", "Forbidden", "AllAccessDisabled", "InvalidAccessKeyId", "SignatureDoesNotMatch"}
)
_FULL: Final = frozenset({"InsufficientStorage", "507", "QuotaExceeded", "XMinioStorageFull", "ServiceQuotaExceeded"})


@dataclass(frozen=True)
class FoundFile:
    """A file that a listing found.

    Attributes:
        path: Where it lies.
        version: Changes whenever other bytes are delivered: the ETag on S3, time and size in a folder.
        modified: When it was written or put here, naive UTC.
    """

    path: UPath
    version: str
    modified: datetime


def is_local(path: UPath) -> bool:
    """Whether a path lies on this machine."""
    return path.protocol in LOCAL


# Reading ---------------------------------------------------------------------------------------------------------


def below(folder: UPath, path: UPath) -> str:
    """The name of a path as seen from a folder above it, the same on a disk and in a bucket."""
    return path.path.removeprefix(folder.path).lstrip("/")


def read(path: UPath) -> bytes:
    """The bytes of a file.

    Raises:
        FileNotFoundError: it is not there.
        OSError: a local file cannot be read.
        DataError, SettingsError, TemporaryError: the bucket refused, or did not answer.
    """
    if is_local(path):
        return Path(path.path).read_bytes()
    with _asking(path, "read"):
        return _download(path)


def read_mapped(path: UPath) -> pa.Buffer:
    """The bytes of a file, raises as `read`; those of a local one are read only where they are looked at."""
    if is_local(path):
        return pa.memory_map(path.path).read_buffer()
    return pa.py_buffer(read(path))


# boto3 repeats a request that gets no answer, but not one whose answer breaks off in the middle.
@retry(
    retry=retry_if_exception_type(_BROKEN_BODY),
    stop=stop_after_attempt(3),
    wait=wait_random_exponential(multiplier=0.1, max=5),
    reraise=True,
)
def _download(path: UPath) -> bytes:
    bucket, key = _address(path)
    data: bytes = _client_of(path).get_object(Bucket=bucket, Key=key)["Body"].read()
    return data


def read_many(paths: Sequence[UPath]) -> list[bytes]:
    """The bytes of several files, in their order; from a bucket `POOL` at once. Raises as `read`."""
    if not paths or is_local(paths[0]):
        return [read(path) for path in paths]
    with ThreadPoolExecutor(POOL) as pool:
        return list(pool.map(read, paths))


def exists(path: UPath) -> bool:
    """Whether there is a file at a path."""
    if is_local(path):
        return Path(path.path).is_file()
    bucket, key = _address(path)
    try:
        with _asking(path, "looked up"):
            _client_of(path).head_object(Bucket=bucket, Key=key)
    except FileNotFoundError:
        return False
    return True


def found_under(folder: UPath) -> list[FoundFile]:
    """All files below a folder, by path; one request for each thousand of them, whatever lies between."""
    if is_local(folder):
        return sorted(_walk(folder), key=lambda file: str(file.path))
    bucket, prefix = _address(folder)
    root = UPath(f"s3://{bucket}", **folder.storage_options)
    pages = _client_of(folder).get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/".lstrip("/"))
    with _asking(folder, "listed"):
        objects = [entry for page in pages for entry in page.get("Contents", [])]
    return [
        FoundFile(
            root / entry["Key"],
            entry["ETag"].strip('"'),
            entry["LastModified"].astimezone(UTC).replace(tzinfo=None),
        )
        for entry in objects
        if not entry["Key"].endswith("/")  # what some tools put in the place of a folder
    ]


def _walk(folder: UPath) -> Iterator[FoundFile]:
    for name, _, files in os.walk(folder.path):
        for file in files:
            path = Path(name) / file
            try:
                status = path.stat()
            except FileNotFoundError:  # a part file that has just got its name
                continue
            # A copy may keep the time of its original; when it got here is in the other stamp.
            moment = max(status.st_mtime, status.st_ctime)
            modified = datetime.fromtimestamp(moment, UTC).replace(tzinfo=None)
            yield FoundFile(UPath(str(path)), f"{status.st_mtime}-{status.st_size}", modified)


# Writing ---------------------------------------------------------------------------------------------------------


def write(path: UPath, data: bytes) -> None:
    """Write or replace a file; a reader sees the old bytes or the new ones.

    Raises:
        OSError: a local file cannot be written; nothing is left behind.
        DataError, SettingsError, TemporaryError: the bucket refused, or did not answer.
    """
    if is_local(path):
        _write_part(Path(path.path), data).replace(path.path)
        return
    bucket, key = _address(path)
    with _asking(path, "written"):
        _client_of(path).put_object(Bucket=bucket, Key=key, Body=data)  # one PUT: the object appears whole


def write_new(path: UPath, data: bytes) -> bool:
    """Write a file that must not exist yet; False if it does. Of several writers one wins, nobody sees half.

    Raises as `write`.
    """
    if is_local(path):
        part = _write_part(Path(path.path), data)
        try:
            os.link(part, path.path)  # unlike a rename, a link never replaces
        except FileExistsError:
            return False
        finally:
            part.unlink()
        return True
    bucket, key = _address(path)
    try:
        with _asking(path, "written"):
            _client_of(path).put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")
    except FileExistsError as error:
        # A first attempt whose answer was lost is met by its own repetition.
        answer = error.__cause__.response if isinstance(error.__cause__, ClientError) else {}
        return answer.get("ResponseMetadata", {}).get("RetryAttempts", 0) > 0 and read(path) == data
    return True


def delete(path: UPath) -> None:
    """Remove a file, if it is there."""
    if is_local(path):
        Path(path.path).unlink(missing_ok=True)
        return
    bucket, key = _address(path)
    with _asking(path, "deleted"):
        _client_of(path).delete_object(Bucket=bucket, Key=key)


def delete_many(paths: Sequence[UPath]) -> None:
    """Remove several files, those that are there; in a bucket `POOL` at once."""
    if not paths or is_local(paths[0]):
        for path in paths:
            delete(path)
        return
    with ThreadPoolExecutor(POOL) as pool:
        list(pool.map(delete, paths))


def _write_part(path: Path, data: bytes) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:  # a file where a folder should be; not to be taken for a file that is there
        raise NotADirectoryError(error.errno, "a file is in the way of the folder", str(path.parent)) from error
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")  # unique: two processes may write at once
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # a name must not survive a power cut that its bytes did not
    except OSError:
        part.unlink(missing_ok=True)
        raise
    return part


# The bucket's side -----------------------------------------------------------------------------------------------


def _address(path: UPath) -> tuple[str, str]:
    bucket, _, key = path.path.partition("/")
    return bucket, key.strip("/")


def _client_of(path: UPath) -> Any:
    return _client(os.getpid(), path.storage_options.get("endpoint_url"), path.storage_options.get("region_name"))


@lru_cache(maxsize=4)
def _client(process: int, endpoint: str | None, region: str | None) -> Any:
    """The client of one server; made anew in a forked process, since connections cannot be shared with the parent."""
    # Checksums that servers other than AWS may not know are left out where another server is named.
    checksums = "when_required" if endpoint else "when_supported"
    config = Config(
        connect_timeout=10,
        read_timeout=60,
        max_pool_connections=POOL,
        retries={"mode": "standard"},  # how often is AWS_MAX_ATTEMPTS, 3 by default
        request_checksum_calculation=checksums,
        response_checksum_validation=checksums,
    )
    return Session().client("s3", endpoint_url=endpoint, region_name=region, config=config)


@contextmanager
def _asking(path: UPath, done: str) -> Iterator[None]:
    """Turn what boto3 raises into an error that says who has to act."""
    try:
        yield
    except ClientError as error:
        raise _meaning(path, done, error) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise SettingsError(
            f"{path} cannot be {done}: no AWS credentials are found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "a profile, or a role"
        ) from error
    except NoRegionError as error:
        raise SettingsError(f"{path} cannot be {done}: set BREAKOUT_S3_REGION or AWS_DEFAULT_REGION") from error
    except (BotoConnectionError, HTTPClientError, IncompleteReadError, ResponseStreamingError) as error:
        raise TemporaryError(
            f"{path} was not {done}: the connection failed or broke off ({error}); try again"
        ) from error
    except BotoCoreError as error:
        raise DataError(f"{path} cannot be {done}: {error}") from error


def _meaning(path: UPath, done: str, error: ClientError) -> Exception:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in _ABSENT:
        return FileNotFoundError(f"{path} is not there")
    if code in _EXISTS:
        return FileExistsError(f"{path} is there already")
    if code == "NoSuchBucket":
        return DataError(f"{path} cannot be {done}: the bucket does not exist; create it or correct BREAKOUT_STORE")
    if code in _RENEW:
        return TemporaryError(f"{path} was not {done}: the AWS credentials have expired; renew them ({code})")
    if code in _DENIED:
        return DataError(
            f"{path} cannot be {done}: access is denied ({code}); check the AWS credentials and the bucket's policy"
        )
    if code in _FULL:
        return DataError(f"{path} cannot be {done}: the storage is full ({code}); make room")
    if status >= 500 or status in (408, 409, 429) or code in ("SlowDown", "RequestTimeout", "Throttling"):
        return TemporaryError(f"{path} was not {done}: the server answered {status} {code}; try again later")
    return DataError(f"{path} cannot be {done}: the server answered {status} {code}")
