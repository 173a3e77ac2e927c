"""What the record costs when it is old, and what it asks of a container that forbids changes."""

import json
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import batched
from typing import ClassVar

import pytest
from azure.storage.blob import BlobServiceClient, ContainerClient, ContentSettings

from dev.azurite import Azurite
from dev.simulator import Simulator
from shared.app import App, open_record
from shared.blob import Reading, md5
from shared.configuration import read_settings
from shared.drafts import CSV, LATEST, MANIFEST, NDJSON, Found
from shared.errors import ContainerMissingError, StorageError
from shared.held import Answer
from shared.history import History
from shared.record import Record
from shared.rows import row_of
from shared.settings import RecordSettings
from shared.snapshots import JSON_TYPE, SnapshotName, first_name, parse_name, snapshot
from shared.usage_summary import read_usage_summary
from tests.conftest import ManualClock, beside, events
from tests.memory import Memory
from tests.storage_proxy import Fault, Policy, Request, StorageProxy, failing_writes

FILES = [NDJSON, CSV, LATEST]
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
TODAY = datetime(2026, 11, 21, 8, 5, 2, tzinfo=UTC)  # no listing of these days needs a third month
ID = "5b0c4c8e-7f1d-4f0a-9a53-2d1c6b0e8a47"
TEN_YEARS = 3650  # days
UPLOADS = 16  # threads


@dataclass
class Stage:
    """A record of its own behind a proxy, an app, and a clock for all."""

    simulator: Simulator
    azurite: Azurite
    service: BlobServiceClient
    environ: dict[str, str]
    proxy: StorageProxy
    clock: ManualClock
    roles: dict[str, str] = field(default_factory=dict)
    """What the containers are for, by name."""

    def __post_init__(self) -> None:
        own = uuid.uuid4().hex[:12]
        for role in ("CACHE", "SNAPSHOT", "HISTORY"):
            name = self.environ[f"USAGE_{role}_CONTAINER"] = f"{role.lower()}-{own}"
            self.roles[name] = role
        self.environ["AzureWebJobsStorage"] = self.proxy.connection_string
        self.usage, self.history = (
            self.service.get_container_client(self.environ[f"USAGE_{role}_CONTAINER"])
            for role in ("SNAPSHOT", "HISTORY")
        )
        self.world = self.simulator.world
        self.world.clock = lambda: self.clock.instant
        self.world.consent()

    def start(self) -> App:
        return App(self.environ, self.clock.clock())

    @property
    def settings(self) -> RecordSettings:
        return read_settings(self.environ).record

    def requests(self) -> list[Request]:
        """Those since the last look."""
        since = list(self.proxy.requests)
        self.proxy.requests.clear()
        return since

    def files(self) -> dict[str, bytes]:
        return read_files(self.history)

    def rebuilt(self) -> dict[str, bytes]:
        """What a rebuild makes of the dated blobs, in a container of its own."""
        elsewhere = self.service.get_container_client(f"rebuilt-{uuid.uuid4().hex}")
        History(Record(beside(self.usage)), beside(elsewhere), self.clock.clock()).rebuild(unwatched)
        return read_files(elsewhere)


@pytest.fixture
def stage_of(
    simulator: Simulator,
    azurite: Azurite,
    service: BlobServiceClient,
    environ: dict[str, str],
    at_once: None,  # noqa: ARG001  # a fixture
) -> Iterator[Callable[[], Stage]]:
    with ExitStack() as stack:

        def make() -> Stage:
            clock = ManualClock(TODAY)
            proxy = stack.enter_context(StorageProxy(azurite, lambda: clock.instant))
            return Stage(simulator, azurite, service, dict(environ), proxy, clock)

        yield make


@pytest.fixture
def stage(stage_of: Callable[[], Stage]) -> Stage:
    return stage_of()


def unwatched(found: Iterator[Found], _: int) -> Iterable[Found]:
    return found


def read_files(container: ContainerClient) -> dict[str, bytes]:
    return {name: container.download_blob(name).readall() for name in FILES}


def document(total: str, start: str = "2026-10-28", padding: int = 0) -> bytes:
    return (
        f'{{"totalCost":{total},"billingStartDate":"{start}T00:00:00-07:00","currencyCode":"DKK",'
        f'"emailsToNotify":["regnskab@nordlys.example"],"links":{{"padding":"{"x" * padding}"}}}}'
    ).encode()


def snapshots_before(instant: datetime, days: int, padding: int = 0) -> Iterator[tuple[SnapshotName, bytes]]:
    """A snapshot of each of so many days before this one."""
    for number in range(days, 0, -1):
        at = instant - number * DAY
        name = parse_name(first_name(at.date()))
        assert name is not None
        members = read_usage_summary(document(f"{number}.10", f"{at:%Y-%m-01}", padding)).members
        yield name, snapshot(members, at, ID, ID)


def seed(container: ContainerClient, blobs: Iterable[tuple[SnapshotName, bytes]]) -> None:
    """Write dated blobs, as many at once as Azurite takes."""
    if not container.exists():
        container.create_container()

    def write(some: Sequence[tuple[SnapshotName, bytes]]) -> None:
        for name, content in some:
            settings = ContentSettings(JSON_TYPE, content_md5=bytearray(md5(content)))
            container.upload_blob(name.name, content, content_settings=settings)

    with ThreadPoolExecutor(UPLOADS) as pool:
        list(pool.map(write, batched(blobs, 50, strict=False)))


class Remembered(Record):
    """A record that no storage has: for a history that is older than the dated blobs a test can write."""

    def __init__(self, blobs: dict[SnapshotName, bytes]) -> None:
        self._blobs = blobs

    def names(self, prefix: str = "") -> list[SnapshotName]:
        return sorted(name for name in self._blobs if name.name.startswith(prefix))

    def read(self, names: Sequence[SnapshotName]) -> Iterator[Found]:
        return (Found(name, row_of(name, self._blobs[name])) for name in names)

    def content(self, name: SnapshotName) -> bytes:
        return self._blobs[name]


def test_a_run_needs_as_many_requests_of_storage_after_ten_years_as_on_the_second_day(
    stage_of: Callable[[], Stage], record_property: Callable[[str, object], None]
) -> None:
    costs: dict[int, list[Counter[tuple[str, str, str]]]] = {}
    for days in (1, 2, TEN_YEARS):
        stage, costs[days] = stage_of(), []
        blobs = dict(snapshots_before(TODAY, days))
        seed(stage.usage, list(blobs.items())[-60:])  # no run looks at more
        History(Remembered(blobs), beside(stage.history), stage.clock.clock()).rebuild(unwatched)
        app = stage.start()
        for outcome, total in (("taken", "7"), ("revised", "8"), ("unchanged", "8")):
            stage.world.document = document(total)
            began = time.perf_counter()
            done = app.take_snapshot()
            record_property(f"seconds of a run: {outcome}, {days} days", time.perf_counter() - began)
            assert (done["outcome"], done["missingDates"]) == (outcome, 0)
            assert done["rows"] == days + 1
            kinds = ((each.method, stage.roles[each.container], each.comp) for each in stage.requests())
            costs[days].append(Counter(kinds))
            record_property(f"requests of a run: {outcome}, {days} days", costs[days][-1].total())
            stage.clock.advance(hours=1.5)
    assert costs[1] == costs[2] == costs[TEN_YEARS]
    assert [each.total() for each in costs[TEN_YEARS]] == [17, 16, 10]
    unchanged = costs[TEN_YEARS][-1]
    assert [kind for kind in unchanged if kind[0] != "GET" and kind[1] != "CACHE"] == []


NIGHTLY = pytest.mark.nightly, pytest.mark.timeout(900)


@pytest.mark.parametrize("days", [100, pytest.param(TEN_YEARS, marks=NIGHTLY)])
def test_a_rebuild_of_years_is_what_the_runs_wrote_and_a_run_that_finds_no_history_makes_the_same(
    stage: Stage, record_property: Callable[[str, object], None], days: int
) -> None:
    seed(stage.usage, snapshots_before(TODAY, days))
    _, history = open_record(stage.settings, stage.clock.clock())
    began = time.perf_counter()
    assert history.rebuild(unwatched).rows == days
    record_property("seconds of a rebuild", time.perf_counter() - began)
    requests = stage.requests()
    record_property("requests of a rebuild", len(requests))
    kinds = Counter((each.method, stage.roles[each.container], each.comp) for each in requests)
    assert kinds["GET", "SNAPSHOT", ""] == days + 1  # the newest once more, for latest.json
    assert kinds.total() <= days + 12
    app = stage.start()
    assert app.take_snapshot()["outcome"] == "taken"
    written = stage.files()
    assert written == stage.rebuilt()
    manifest = json.loads(stage.history.download_blob(MANIFEST).readall())
    assert (manifest["rows"], manifest["missingDates"]) == (days + 1, [])
    for name in (*FILES, MANIFEST):
        stage.history.delete_blob(name)
    stage.clock.advance(minutes=30)
    began = time.perf_counter()
    done = app.take_snapshot()
    record_property("seconds of a run without a history", time.perf_counter() - began)
    assert (done["outcome"], done["rows"]) == ("repaired", days + 1)
    assert stage.files() == written


def test_thirty_days_written_run_by_run_are_what_a_rebuild_makes_of_them(stage: Stage) -> None:
    record, history = open_record(stage.settings, stage.clock.clock())
    for number in range(30):
        start = f"2026-{11 + number // 15}-28"
        revisions = 1 + number % 3 % 2
        for revision in range(revisions):
            total = f"{number}.{revision}"
            record.take(Answer(document(total, start), stage.clock.instant, ID, ID))
            history.bring_up_to_date()
            stage.clock.advance(hours=2)
        stage.clock.advance(days=1 + number % 7 // 6, hours=-2 * revisions)
    assert stage.files() == stage.rebuilt()
    assert history.rebuild(unwatched).written == []


class Document(bytes):
    """What a container has read, counted while it lives."""

    living: ClassVar[set[int]] = set()
    counts: ClassVar[list[int]] = []
    """How many there were, each time that another came."""

    def __init__(self, *_: object) -> None:
        self.living.add(id(self))
        self.counts.append(len(self.living))

    def __del__(self) -> None:
        self.living.discard(id(self))


class Counting(Memory):
    """A container in memory whose contents are counted."""

    def read(self, name: str) -> Reading:
        reading = super().read(name)
        return replace(
            reading, blob=reading.blob and replace(reading.blob, content=Document(reading.blob.content))
        )


READERS = 16  # documents at once, whose rows are just being made: twice as many as there are threads


def test_a_rebuild_keeps_rows_in_memory_and_no_documents() -> None:
    usage, history = Counting(), Memory()
    for name, content in snapshots_before(TODAY, 200, padding=1000):
        usage.write(name.name, content, JSON_TYPE, replacing=None)
    rebuilding = History(Record(usage), history, ManualClock(TODAY).clock())
    assert rebuilding.rebuild(unwatched).rows == 200
    assert len(Document.counts) > 200
    assert max(Document.counts) <= READERS
    draft = rebuilding.draft(unwatched)
    assert max(Document.counts) <= READERS
    assert len(draft.rows) == 200
    assert "x" * 1000 not in repr(draft)


@pytest.mark.parametrize("policy", list(Policy))
def test_a_record_lives_where_blobs_may_only_be_created_and_read(stage: Stage, policy: Policy) -> None:
    history_name = str(stage.history.container_name)
    stage.usage.create_container()
    stage.proxy.policies[stage.usage.container_name] = policy
    app = stage.start()

    def run(total: str, start: str = "2026-10-28", **later: float) -> object:
        stage.clock.advance(**later)
        stage.world.document = document(total, start)
        return app.take_snapshot()["outcome"]

    assert run("999") == "taken"
    assert run("999", minutes=20) == "unchanged"
    assert run("1000", hours=2) == "revised"
    assert run("3", "2026-11-28", hours=2) == "revised"
    assert stage.files()[CSV].count(b"\n2026-11-21,") == 2
    assert run("4", "2026-11-28", days=1) == "taken"
    stage.proxy.follow(lambda asked, _: Fault.DIE if asked.kind == ("PUT", history_name, "") else Fault.NONE)
    with pytest.raises(StorageError):
        run("5", "2026-11-28", days=1)
    stage.proxy.follow()
    app = stage.start()
    assert run("5", "2026-11-28", minutes=30) == "repaired"
    stage.history.delete_blob(NDJSON)
    assert run("5", "2026-11-28", minutes=30) == "repaired"
    _, history = open_record(stage.settings, stage.clock.clock())
    assert history.rebuild(unwatched).written == []
    assert stage.files() == stage.rebuilt()

    asked = [each for each in stage.requests() if each.container == stage.usage.container_name]
    assert {each.kind for each in asked} == {
        (method, stage.usage.container_name, comp)
        for method, comp in (("GET", ""), ("GET", "list"), ("PUT", ""))
    }
    assert {each.answered for each in asked if each.method == "GET"} == {200, 206}
    puts = [each for each in asked if each.method == "PUT"]
    assert [each.answered for each in puts] == [201] * 5
    assert len({each.blob for each in puts}) == 5
    for each in puts:
        assert each.headers["if-none-match"] == "*"
        assert each.headers["x-ms-blob-content-type"] == JSON_TYPE
        assert each.headers["x-ms-blob-content-md5"]


def test_the_snapshot_of_a_killed_run_is_named_by_the_next_as_what_it_has_repaired(stage: Stage) -> None:
    app = stage.start()
    assert app.take_snapshot()["repairedBlobs"] is None
    for later, total in ((DAY, "7"), (HOUR * 2, "8")):
        stage.clock.instant += later
        stage.world.document = document(total)
        stage.proxy.follow(failing_writes(Fault.DIE, str(stage.history.container_name)))
        with pytest.raises(StorageError):
            app.take_snapshot()
        stage.proxy.follow()
        stage.clock.advance(minutes=20)
        done, names = stage.start().take_snapshot(), Record(beside(stage.usage)).names()
        assert (done["outcome"], done["blob"]) == ("repaired", names[-1].name)
        assert (done["repaired"], done["repairedBlobs"]) == (1, [names[-1].name])
    assert len(names) == 3


@pytest.mark.parametrize("policy", list(Policy))
@pytest.mark.parametrize("times", [1, 2])
def test_a_snapshot_whose_answer_was_lost_is_found_where_it_may_not_be_written_again(
    stage: Stage, policy: Policy, times: int
) -> None:
    stage.usage.create_container()
    stage.proxy.policies[stage.usage.container_name] = policy
    stage.proxy.follow(failing_writes(Fault.LOSE, stage.usage.container_name, times=times))
    app = stage.start()
    if times == 1:
        assert app.take_snapshot()["outcome"] == "taken"
    else:
        with pytest.raises(StorageError):
            app.take_snapshot()
    stage.clock.advance(hours=2)
    assert app.take_snapshot()["outcome"] == ("unchanged" if times == 1 else "repaired")
    assert stage.files() == stage.rebuilt()
    assert [each.name for each in stage.usage.list_blobs()] == [first_name(TODAY.date())]


def three_days(stage: Stage) -> dict[str, bytes]:
    """Runs of three days; their snapshots."""
    record, history = open_record(stage.settings, stage.clock.clock())
    for number in range(3):
        record.take(Answer(document(f"{number}.50"), stage.clock.instant, ID, ID))
        history.bring_up_to_date()
        stage.clock.advance(days=1)
    return {each.name: stage.usage.download_blob(each.name).readall() for each in stage.usage.list_blobs()}


def upload(container: ContainerClient, blobs: Mapping[str, bytes]) -> None:
    """What an undeletion brings back."""
    container.create_container()
    for name, content in blobs.items():
        container.upload_blob(name, content)


def test_a_deleted_container_is_not_made_anew_and_once_it_is_back_no_row_is_lost(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    deleted, app = three_days(stage), stage.start()
    before = stage.files()
    stage.usage.delete_container()
    for _ in range(2):
        with pytest.raises(ContainerMissingError):
            app.take_snapshot()
        assert (stage.usage.exists(), stage.files()) == (False, before)
        stage.clock.advance(days=1)
    failed = events(caplog, "snapshot.failed")
    assert [stage.usage.container_name in line["message"] for line in failed] == [True, True]
    assert [line["hint"].startswith(f"Undelete {stage.usage.container_name}") for line in failed] == [
        True,
        True,
    ]
    assert {record.levelname for record in caplog.records if "snapshot.failed" in record.message} == {"ERROR"}
    stage.clock.advance(days=-1, hours=2)
    upload(stage.usage, deleted)
    done = app.take_snapshot()
    assert (done["outcome"], done["rows"], done["missingDates"]) == ("taken", 4, 1)
    for name in (NDJSON, CSV):
        assert stage.files()[name].startswith(before[name])
    assert json.loads(read_file(stage.history, MANIFEST))["missingDates"] == ["2026-11-24"]
    after = stage.files()
    _, history = open_record(stage.settings, stage.clock.clock())
    assert history.rebuild(unwatched).written == []
    assert stage.files() == after == stage.rebuilt()


def test_an_empty_container_is_deleted_before_the_deleted_one_is_undeleted(stage: Stage) -> None:
    deleted, app = three_days(stage), stage.start()
    before = stage.files()
    stage.usage.delete_container()
    stage.usage.create_container()  # by hand, or by a provisioning
    done = app.take_snapshot()
    assert (done["outcome"], done["rows"]) == ("taken", 4)
    assert stage.files()[NDJSON].startswith(before[NDJSON])
    stage.usage.delete_container()
    upload(stage.usage, deleted)
    stage.clock.advance(hours=2)
    assert app.take_snapshot()["rows"] == 4
    _, history = open_record(stage.settings, stage.clock.clock())
    rebuilt = history.rebuild(unwatched)
    assert (rebuilt.written, rebuilt.kept) == ([], {})
    assert stage.files() == stage.rebuilt()


@pytest.mark.parametrize("left", FILES)
def test_any_file_of_a_history_keeps_a_missing_container_from_being_made_anew(
    stage: Stage, left: str
) -> None:
    three_days(stage)
    stage.usage.delete_container()
    for name in {NDJSON, CSV, LATEST, MANIFEST} - {left}:
        stage.history.delete_blob(name)
    stage.history.upload_blob(left, b"", overwrite=True)
    with pytest.raises(ContainerMissingError):
        stage.start().take_snapshot()
    assert not stage.usage.exists()


@pytest.mark.parametrize("is_there", [True, False], ids=["emptied", "deleted"])
def test_where_nothing_of_a_history_is_left_the_container_is_made_as_on_the_first_day(
    stage: Stage, *, is_there: bool
) -> None:
    three_days(stage)
    stage.usage.delete_container()
    for name in (NDJSON, CSV, LATEST, MANIFEST):
        stage.history.delete_blob(name)
    stage.history.upload_blob("readme.txt", b"of somebody else")
    if not is_there:
        stage.history.delete_container()
    done = stage.start().take_snapshot()
    assert (done["outcome"], done["rows"]) == ("taken", 1)


def test_a_container_deleted_between_the_listing_and_the_write_is_not_made_anew(stage: Stage) -> None:
    three_days(stage)
    stage.proxy.follow(
        lambda request, _: (
            Fault.NONE
            if request.method != "PUT" or request.container != stage.usage.container_name
            else deleting(stage.usage)
        )
    )
    with pytest.raises(ContainerMissingError):
        stage.start().take_snapshot()
    assert not stage.usage.exists()


def deleting(container: ContainerClient) -> Fault:
    """Just before the request is done, somebody deletes the container."""
    container.delete_container()
    return Fault.NONE


def read_file(container: ContainerClient, name: str) -> bytes:
    return container.download_blob(name).readall()
