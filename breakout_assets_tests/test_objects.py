"""Whole files in a folder and in a real bucket: the same behaviour, and what each fault of the wire is called."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from upath import UPath

from breakout_assets import objects
from breakout_assets.errors import DataError, SettingsError, TemporaryError
from breakout_assets.store import Store
from breakout_assets_tests.s3server import BUCKET, Fault, Wire, wire_to


@pytest.fixture(params=["folder", "bucket"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> UPath:
    if request.param == "folder":
        return UPath(str(tmp_path))
    store: Store = request.getfixturevalue("bucket_store")
    return store.root


@pytest.fixture
def wire(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")  # the second attempt waits a second at most
    with wire_to(s3_url) as found:
        yield found


@pytest.fixture
def wired(wire: Wire, s3_location: str) -> UPath:
    """The root of a bucket behind the wire."""
    return Store.at(s3_location, wire.url).root


def test_bytes_come_back_and_are_replaced_whole(root: UPath) -> None:
    path = root / "a" / "b c+ä.bin"
    assert not objects.exists(path)
    with pytest.raises(FileNotFoundError):
        objects.read(path)
    objects.write(path, b"first")
    objects.write(path, b"second")
    assert objects.exists(path)
    assert objects.read(path) == b"second"
    objects.delete(path)
    objects.delete(path)
    assert not objects.exists(path)


def test_many_files_come_in_the_order_asked_for(root: UPath) -> None:
    paths = [root / "many" / f"{n}.bin" for n in range(40)]
    for n, path in enumerate(paths):
        objects.write(path, bytes([n]))
    assert objects.read_many(paths[::-1]) == [bytes([n]) for n in range(39, -1, -1)]
    with pytest.raises(FileNotFoundError):
        objects.read_many([*paths, root / "many" / "41.bin"])
    assert objects.read_many([]) == []


def test_a_listing_names_everything_below_and_nothing_beside(root: UPath) -> None:
    for name in ("x/1.bin", "x/y/2.bin", "xy/3.bin"):
        objects.write(root / name, name.encode())
    before = objects.found_under(root / "x")
    assert [file.path.path for file in before] == [(root / name).path for name in ("x/1.bin", "x/y/2.bin")]
    assert objects.found_under(root / "nothing") == []
    objects.write(root / "x/1.bin", b"other bytes")
    after = objects.found_under(root / "x")
    assert after[0].version != before[0].version
    assert after[1] == before[1]
    assert after[0].modified >= before[0].modified
    assert objects.read(after[0].path) == b"other bytes"


def test_a_listing_goes_on_after_a_thousand_files(bucket_store: Store) -> None:
    paths = [bucket_store.root / "page" / f"{n:04}.bin" for n in range(1030)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda path: objects.write(path, b"x"), paths))
    assert [file.path.name for file in objects.found_under(bucket_store.root / "page")] == [p.name for p in paths]


def test_of_sixteen_writers_one_wins_and_its_bytes_stay(root: UPath) -> None:
    path = root / "race.bin"
    contents = [bytes([n]) * 50_000 for n in range(16)]
    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(lambda data: objects.write_new(path, data), contents))
    assert won.count(True) == 1
    assert objects.read(path) == contents[won.index(True)]
    assert [file.path.name for file in objects.found_under(root)] == ["race.bin"]


def test_a_write_whose_answer_was_lost_is_recognised_as_its_own(wire: Wire, wired: UPath) -> None:
    lost = iter([Fault(cut_after=-1)])
    wire.choose = lambda method, path: next(lost, None) if method == "PUT" else None
    assert objects.write_new(wired / "a.bin", b"mine")
    assert [method for method, _ in wire.requests].count("PUT") == 2
    assert not objects.write_new(wired / "a.bin", b"mine"), "a file that another call wrote is not ours"


PASSING = [
    Fault(500, "InternalError"),
    Fault(503, "SlowDown"),
    Fault(502, "BadGateway"),
    Fault(400, "ExpiredToken"),
    Fault(cut_after=1),
]
LASTING = [
    (Fault(403, "AccessDenied"), "access is denied"),
    (Fault(403, "SignatureDoesNotMatch"), "access is denied"),
    (Fault(404, "NoSuchBucket"), "the bucket does not exist"),
    (Fault(507, "InsufficientStorage"), "the storage is full"),
    (Fault(400, "InvalidRequest"), "400 InvalidRequest"),
]


@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: fault.code or "reset")
def test_what_may_pass_is_a_temporary_error_and_passes(wire: Wire, wired: UPath, fault: Fault) -> None:
    path = wired / "a.bin"
    objects.write(path, b"before")
    wire.choose = lambda method, path: fault
    for act in (lambda: objects.read(path), lambda: objects.found_under(wired), lambda: objects.read_many([path] * 3)):
        with pytest.raises(TemporaryError, match=r"was not (read|listed): .*"):
            act()
    wire.choose = lambda method, path: fault if method == "PUT" else None
    if fault.status:
        with pytest.raises(TemporaryError, match="was not written"):
            objects.write(path, b"after")
        assert objects.read(path) == b"before"
    wire.choose = lambda method, path: None
    objects.write(path, b"after")
    assert objects.read(path) == b"after"


@pytest.mark.parametrize(("fault", "words"), LASTING, ids=[fault.code for fault, _ in LASTING])
def test_what_a_person_must_mend_is_said_in_a_sentence_and_not_repeated(
    wire: Wire, wired: UPath, fault: Fault, words: str
) -> None:
    wire.choose = lambda method, path: fault
    for act in (
        lambda: objects.read(wired / "a.bin"),
        lambda: objects.found_under(wired),
        lambda: objects.write(wired / "a.bin", b""),
        lambda: objects.write_new(wired / "a.bin", b""),
    ):
        wire.requests.clear()
        with pytest.raises(DataError, match=words) as refused:
            act()
        assert str(wired) in str(refused.value)
        assert len(wire.requests) == 1


def test_one_fault_is_met_by_asking_again(wire: Wire, wired: UPath) -> None:
    objects.write(wired / "a.bin", b"x" * 100_000)
    for fault in (Fault(503, "SlowDown"), Fault(cut_after=40_000)):
        once = iter([fault])
        wire.choose = lambda method, path, once=once: next(once, None)  # type: ignore[misc]
        assert objects.read(wired / "a.bin") == b"x" * 100_000


def test_a_server_that_is_not_there_is_a_temporary_error(aws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    root = Store.at(f"s3://{BUCKET}/x", "http://127.0.0.1:9").root
    with pytest.raises(TemporaryError, match="the connection failed"):
        objects.read(root / "a.bin")


def test_wrong_and_absent_credentials_are_told_apart(
    s3_url: str, s3_location: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret-at-all")
    objects._client.cache_clear()  # credentials belong to a client, and a process has one for each server
    with pytest.raises(DataError, match="access is denied") as refused:
        objects.read(Store.at(s3_location, s3_url).root / "a.bin")
    assert "not-the-secret" not in str(refused.value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    objects._client.cache_clear()
    with pytest.raises(SettingsError, match="no AWS credentials"):
        objects.read(Store.at(s3_location, s3_url).root / "a.bin")
    objects._client.cache_clear()


def test_requests_run_side_by_side_over_a_pool(wire: Wire, wired: UPath) -> None:
    paths = [wired / f"{n}.bin" for n in range(48)]
    for path in paths:
        objects.write(path, b"x")
    wire.delay = 0.05
    wire.most_at_once = 0
    wire.requests.clear()
    objects.read_many(paths)
    assert len(wire.requests) == len(paths), "one request a file"
    assert 8 <= wire.most_at_once <= objects.POOL
