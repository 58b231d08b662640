"""The whole graph over a bucket of a real S3 server: the bytes of a folder, and no more requests than needed."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
import yaml

from breakout_assets import objects
from breakout_assets.defs.retention import forget
from breakout_assets.market.files import raw_bytes, read_raw
from breakout_assets.market.schema import HOUR, hours_between
from breakout_assets.store import Store
from breakout_assets_tests.defs.conftest import AS_OF, FIRST, LABELLED_UNTIL, LAST
from breakout_assets_tests.defs.support import DATASET, HOURLY, World, day_keys, hour_keys
from breakout_assets_tests.s3server import Fault, Wire, wire_to
from breakout_assets_tests.samples import at, coin, listing

TRADED = hour_keys(at("2024-04-16 03:00"), at("2024-04-16 05:00"))
EVERYTHING = ("tokens", "daily_snapshots", "labelled_dataset", "indicator_features", "token_model")


@pytest.fixture
def on_s3(tmp_path: Path, s3_url: str, s3_location: str) -> World:
    """An empty world in a bucket."""
    return world_at(tmp_path, s3_location, s3_url)


@pytest.fixture
def wire(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with wire_to(s3_url) as found:
        yield found


def world_at(folder: Path, location: str, endpoint: str) -> World:
    return World.at(folder, STORE=location, S3_ENDPOINT=endpoint, LEDGER=str(folder / "ledger.sqlite"))


def copy(source: Store, target: Store, *folders: str) -> None:
    """Put files of one store into another one, under the same names."""
    files = [file.path for folder in folders for file in objects.found_under(source.root / folder)]
    with ThreadPoolExecutor(objects.POOL) as pool:
        names = [path.path.removeprefix(source.root.path).lstrip("/") for path in files]
        list(
            pool.map(
                lambda pair: objects.write(target.root / pair[0], objects.read(pair[1])), zip(names, files, strict=True)
            )
        )


@pytest.mark.slow
def test_the_whole_pipeline_in_a_bucket_makes_the_bytes_that_it_makes_in_a_folder(learned: World, on_s3: World) -> None:
    copy(learned.store, on_s3.store, "cmc")
    objects.write(on_s3.store.root / "MARKET", b"simulated")
    for hour in hours_between(at("2024-04-16 03:00"), LAST):
        objects.delete(on_s3.store.raw_path(hour, "csv"))
    on_s3.run(["hourly_snapshots"], hour_keys(at("2024-04-16 03:00"), LAST))
    assert on_s3.bytes_of("cmc") == learned.bytes_of("cmc")
    on_s3.days("daily_snapshots", FIRST.date(), LAST.date())
    on_s3.run(DATASET, day_keys(FIRST.date(), LABELLED_UNTIL))
    tokens = on_s3.instance.get_dynamic_partitions("tokens")
    on_s3.run(["token_model"], tokens, {"ops": {"token_model": {"config": {"as_of": AS_OF}}}})
    for world in (learned, on_s3):
        world.run(HOURLY, TRADED)
    folder, bucket = (world.bytes_of("cmc", *EVERYTHING, *HOURLY[1:]) for world in (learned, on_s3))
    assert folder.keys() == bucket.keys()
    assert [name for name in folder if folder[name] != bucket[name]] == []
    assert b"buy" in b"".join(data for name, data in bucket.items() if name.startswith("trade_orders"))


@pytest.mark.slow
def test_a_month_of_hours_is_read_in_twice_the_folders_time_and_that_of_its_requests(
    store: Store, s3_location: str, wire: Wire
) -> None:
    hours = hours_between(at("2024-03-01"), at("2024-03-01") + 719 * HOUR)
    # As many coins as are asked for by default: with fewer, the requests' own work would hide what is measured.
    rows = [coin(number, price=1.2345 * number) for number in range(1, 1251)]
    text = raw_bytes(listing(hours[0], rows), "csv")
    for hour in hours:
        data = text.replace(f"{hours[0]:%Y-%m-%dT%H}".encode(), f"{hour:%Y-%m-%dT%H}".encode())
        store.write(store.raw_path(hour, "csv"), data)
    bucket = Store.at(s3_location, wire.url)
    copy(store, bucket, "cmc")

    def seconds(where: Store, *, parsed: bool = True) -> float:
        files = list(where.raw_between(hours[0], hours[-1]).values())
        start = time.perf_counter()
        read = len(read_raw(files)) if parsed else len(objects.read_many([file.path for file in files])) * 1250
        assert read == 720 * 1250
        return time.perf_counter() - start

    wire.delay = 0.02
    wire.requests.clear()
    folders, requests, remotes = [], [], []
    for _ in range(5):  # side by side, and again: what else the machine does hits one of them more
        folders.append(seconds(store))
        requests.append(seconds(bucket, parsed=False))
        remotes.append(seconds(bucket))
        if len(remotes) > 1 and min(remotes) <= 2 * min(folders) + min(requests):
            break
    assert len(wire.requests) == 2 * len(remotes) * (1 + 720), "one listing of the month and one request a file"
    assert min(requests) < 720 * wire.delay, "one after the other, the round trips alone would take longer"
    assert min(remotes) <= 2 * min(folders) + min(requests), f"{folders=} s, {requests=} s, {remotes=} s"


HOUR_KEY = hour_keys(at("2024-04-17 05:00"), at("2024-04-17 05:00"))
FAULTS = [
    Fault(500, "InternalError"),
    Fault(503, "SlowDown"),
    Fault(cut_after=40),
    Fault(400, "ExpiredToken"),
    Fault(403, "AccessDenied"),
    Fault(507, "InsufficientStorage"),
]


@pytest.mark.parametrize("method", ["GET", "PUT"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.code or "reset")
def test_no_fault_of_the_wire_records_a_partition_that_is_not_whole_and_a_retry_mends_it(
    tmp_path: Path, s3_location: str, wire: Wire, fault: Fault, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Retries of an asset wait for minutes.
    monkeypatch.setattr(dg.RetryPolicy, "calculate_delay", lambda self, attempt: 0.0)
    world = world_at(tmp_path, s3_location, wire.url)
    world.collect(at("2024-04-17 00:00"), at("2024-04-17 04:00"))
    lost = Fault(cut_after=-1) if method == "PUT" and fault.cut_after is not None else fault
    # Faults begin in the middle: after the listings that a run begins with, or at the second object that is written.
    count = iter(range(10_000))
    wire.choose = lambda asked, path: lost if asked == method and next(count) >= (3 if method == "GET" else 1) else None
    keys = {"hourly_snapshots": HOUR_KEY, "daily_snapshots": ["2024-04-16", "2024-04-17"]}
    result = world.run(["hourly_snapshots"], keys["hourly_snapshots"], must_succeed=False)
    if result.success:  # the faults did not reach it
        result = world.run(["market_health"], HOUR_KEY, must_succeed=False)
    assert not result.success
    wire.choose = lambda asked, path: None
    for asset in ("hourly_snapshots", "market_health"):
        recorded = world.instance.get_materialized_partitions(dg.AssetKey(asset))
        for key in recorded:
            hour = at(f"{key[:10]} {key[11:]}")
            stored = (
                world.store.raw_path(hour, "csv")
                if asset == "hourly_snapshots"
                else world.store.table_path(asset, hour)
            )
            assert objects.exists(stored), f"{asset} of {key} is recorded and not there"
    world.run(["hourly_snapshots", "market_health"], HOUR_KEY)
    twin = World.at(tmp_path / "twin")
    twin.collect(at("2024-04-17 00:00"), at("2024-04-17 05:00"))
    twin.run(["market_health"], HOUR_KEY)
    assert world.bytes_of("cmc", "market_health") == twin.bytes_of("cmc", "market_health")


def test_compute_logs_go_to_the_bucket_with_the_readmes_lines_and_leave_it_when_they_are_old(
    tmp_path: Path, s3_url: str, s3_location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text()
    block = readme.split("```yaml\n")[1].split("```")[0]
    prefix = s3_location.rsplit("/", 1)[1]
    lines = block.replace("my-bucket", "bucket").replace("dagster-logs", prefix)
    config = yaml.safe_load(lines)
    config["compute_logs"]["config"]["endpoint_url"] = s3_url
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "dagster.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))

    @dg.op
    def speaks() -> None:
        print("said in a step", flush=True)  # noqa: T201  this is what a compute log catches

    @dg.job
    def speaking() -> None:
        speaks()

    with dg.DagsterInstance.get() as instance:
        speaking.execute_in_process(instance=instance)
        root = Store.at(s3_location, s3_url).root
        logs = [file.path for file in objects.found_under(root)]
        assert any(b"said in a step" in objects.read(path) for path in logs if path.suffix == ".out")
        ended = datetime.now(UTC).replace(tzinfo=None)
        assert forget(instance, days=30, now=ended + timedelta(days=29)).runs == 0
        assert len(list(objects.found_under(root))) == len(logs)
        assert forget(instance, days=30, now=ended + timedelta(days=31)).runs == 1
        assert not list(objects.found_under(root))


def test_an_older_collectors_bucket_is_read_as_it_is(on_s3: World) -> None:
    """No id, NaN, whole numbers among fractions, foreign letters, shared symbols, a hole, another line end."""
    header = "name,symbol,circulating_supply,num_market_pairs,cmc_rank,price,volume_24h,volume_change_24h,"
    header += "percent_change_1h,percent_change_24h,percent_change_7d,market_cap,last_updated,timestamp"
    for hour in (0, 1, 3):
        time_text = f"2024-03-01T{hour:02}:00:00"
        rows = [
            f"Bitcoin,BTC,19000000,100,1,{60000 + hour},1000000,1.5,0.1,1,2,1e12,2024-03-01T{hour:02}:00:05.000Z,",
            f"\u03a4okenBTC,\u03a4BTC,7.5,3,900.0,{1.5 + hour / 100},42,,0.1,1,2,NaN,,",
            f"Harmony,ONE,100,5,50,{0.02 + hour / 1e4},1000,1,0.1,1,2,5e7,,",
            f"BigONE Token,ONE,100,5,60,{0.4 + hour / 1e3},1000,1,0.1,1,2,5e7,,",
            "Not a number,NAN,100,5,61,,1000,1,0.1,1,2,5e7,,",
        ]
        end = "\r\n" if hour else "\n"
        text = end.join([header, *(row + time_text if row.endswith(",") else row for row in rows)]) + end
        objects.write(on_s3.store.raw_path(at(f"2024-03-01 {hour:02}:00"), "csv"), text.encode())
    on_s3.run(["daily_snapshots"], ["2024-03-01"])
    found = on_s3.store.read_table("daily_snapshots", [at("2024-03-01").date()])
    assert found["timestamp"].nunique() == 3
    assert sorted(found["token"].unique()) == [
        "BTC-bitcoin",
        "BTC-okenbtc",
        "NAN-not-a-number",
        "ONE-bigone-token",
        "ONE-harmony",
    ]
    bad = found[found["quarantine"].notna()]
    assert set(bad["token"]) == {"NAN-not-a-number"}
    assert found[found["symbol"] == "\u03a4BTC"]["cmc_rank"].tolist() == [900, 900, 900]
    assert found["origin"].isna().all()
