"""The history on Azurite: whatever happened to runs and blobs, the files are those of a rebuild."""

import base64
import csv
import io
import json
import re
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import partial
from hashlib import sha256
from itertools import count
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from azure.storage.blob import BlobServiceClient, ContainerClient, ContentSettings
from requests.adapters import HTTPAdapter

from shared import snapshots
from shared.blob import md5
from shared.blobs import PATIENT, Container
from shared.drafts import CSV, LATEST, MANIFEST, NDJSON, Found, Updated, manifest_of
from shared.errors import ConfigurationError, RecordError, StorageError
from shared.held import Answer
from shared.hints import hint
from shared.history import History
from shared.record import Record, Taken
from shared.rows import generated_at
from shared.settings import StorageConnection
from shared.usage_summary import read_usage_summary
from tests.conftest import ManualClock, always_overtaken, beside, events
from tests.storage_proxy import Fault, StorageProxy, before, failing_writes
from tests.test_record import ID, dated, document, read

FILES = [NDJSON, CSV, LATEST, MANIFEST]


@dataclass
class Books:
    """Both containers of a record, and the hands of those who keep it."""

    service: BlobServiceClient
    clock: ManualClock = field(default_factory=lambda: ManualClock(datetime(2026, 11, 21, 8, tzinfo=UTC)))

    def __post_init__(self) -> None:
        self.usage, self.history = self.container("usage"), self.container("history")

    def copy(self) -> "Books":
        """The same in containers of its own."""
        other = Books(self.service, ManualClock(self.clock.instant))
        for here, there in ((self.usage, other.usage), (self.history, other.history)):
            there.create_container()
            for name in here.list_blob_names():
                there.get_blob_client(name).start_copy_from_url(here.get_blob_client(name).url)
        return other

    def container(self, name: str) -> ContainerClient:
        return self.service.get_container_client(f"{name}-{uuid.uuid4().hex}")

    def record(self) -> Record:
        return Record(beside(self.usage))

    def keeper(self) -> History:
        return History(self.record(), beside(self.history), self.clock.clock())

    def keeper_behind(self, proxy: StorageProxy) -> History:
        connection = StorageConnection(proxy.connection_string)
        names = self.usage.container_name, self.history.container_name
        usage, history = (Container(name, connection, PATIENT, None) for name in names)
        return History(Record(usage), history, self.clock.clock())

    def run(self, total: str | bytes = "1", *, at: str | None = None) -> tuple[Taken, Updated]:
        """A run at an instant of November 2026 with a new answer: a total, or a whole document."""
        if at is not None:
            self.clock.instant = instant(at)
        return self.take(total), self.keeper().bring_up_to_date()

    def take(self, total: str | bytes = "1") -> Taken:
        return self.record().take(Answer(document(total), self.clock.instant, ID, ID))

    def bring_in(self, total: str | bytes, at: datetime, *, revised: bool = False) -> str:
        """Write a snapshot whatever else is there, as a run that was overtaken does, or a person."""
        name = snapshots.revision_name(at) if revised else snapshots.first_name(at.date())
        members = read_usage_summary(document(total)).members
        self.usage.upload_blob(name, snapshots.snapshot(members, at, ID, ID))
        return name

    def rebuild(self, *dropped: date) -> Updated:
        return self.keeper().rebuild(lambda found, _: found, dropped)

    def is_as_rebuilt(self) -> bool:
        """Whether all files, the manifest among them, are those of a rebuild."""
        keeper = self.keeper()
        stored = {name: blob.content for name, blob in keeper.stored().items()}
        draft = keeper.draft(lambda found, _: found)
        files = keeper.files(draft)
        return stored == files | {MANIFEST: manifest_of(draft, files, generated_at(stored[MANIFEST]))}

    def rebuilt(self) -> dict[str, bytes]:
        """What a rebuild makes of the dated blobs, in a container of its own."""
        elsewhere = self.container("history")
        History(self.record(), beside(elsewhere), self.clock.clock()).rebuild(lambda found, _: found)
        return {name: read(elsewhere, name) for name in FILES[:3]}

    def files(self) -> dict[str, bytes]:
        return {name: self.file(name) for name in FILES[:3]}

    def file(self, name: str) -> bytes:
        return read(self.history, name)

    def rows(self) -> list[dict[str, Any]]:
        return [with_digits(line) for line in self.file(NDJSON).splitlines()]

    def etags(self) -> dict[str, str]:
        return {each.name: each.etag for client in (self.usage, self.history) for each in client.list_blobs()}


@pytest.fixture
def books(service: BlobServiceClient) -> Books:
    return Books(service)


@pytest.fixture
def requested(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Each request that crosses the wire, without what is random in its address."""
    lines: list[str] = []
    send = HTTPAdapter.send

    def note(self: HTTPAdapter, request: requests.PreparedRequest, **options: Any) -> requests.Response:  # noqa: ANN401  # handed on
        lines.append(re.sub(r"http.*/(usage|history)-\w{32}", r"\1", f"{request.method} {request.url}"))
        return send(self, request, **options)

    monkeypatch.setattr(HTTPAdapter, "send", note)
    return lines


def instant(at: str) -> datetime:
    return datetime.fromisoformat(f"2026-11-{at}+00:00")


def with_digits(text: bytes) -> Any:  # noqa: ANN401  # any JSON
    return json.loads(text, parse_float=str, parse_int=str)


def updated(
    written: list[str],
    added: list[str],
    *,
    rows: int,
    missing: tuple[int, ...] = (),
    dropped: tuple[str, ...] = (),
) -> Updated:
    """What an update comes to that finds no damage; missing are days of November 2026."""
    return Updated(written, added, [*dropped], {}, rows, [date(2026, 11, day) for day in missing])


@contextmanager
def unwritable(client: ContainerClient, name: str) -> Iterator[None]:
    """While somebody has a lease on a blob, writes to it are refused."""
    lease = client.get_blob_client(name).acquire_lease()
    yield
    lease.release()


def test_the_first_run_of_a_day_writes_its_snapshot_and_the_history(books: Books) -> None:
    taken, update = books.run("120.5682999999995904716", at="21T08:05:02.9")
    assert taken == Taken("taken", dated(21))
    assert update == updated(FILES, [dated(21)], rows=1)
    row = (
        '{"snapshotDate":"2026-11-21","fetchedAt":"2026-11-21T08:05:02Z","billingStartDate":"2026-10-28",'
        '"billingEndDate":null,"totalCost":120.5682999999995904716,"currencyCode":"DKK",'
        '"currencyLocale":null,"customersOverBudget":null,"customersTrendingOver":null,'
        '"customersWithUsageBasedSubscription":null,"lastModifiedDate":null,"resourceId":null,'
        f'"resourceName":null,"schemaVersion":1,"sourceBlob":"{dated(21)}"}}\n'
    )
    assert books.file(LATEST) == read(books.usage, dated(21))
    assert books.file(NDJSON) == row.encode()


def test_every_file_has_its_content_type_its_digests_and_the_rows_what_was_seen(books: Books) -> None:
    books.run()
    types = {NDJSON: "application/x-ndjson; charset=utf-8", CSV: "text/csv; charset=utf-8"}
    found = list(books.history.list_blobs(include=["metadata"]))
    assert {each.name for each in found} == set(FILES)
    for each in found:
        assert each.content_settings.content_type == types.get(each.name, "application/json; charset=utf-8")
        assert bytes(each.content_settings.content_md5 or b"") == md5(books.file(each.name))
        assert each.metadata["sha256"] == sha256(books.file(each.name)).hexdigest()
        assert set(each.metadata) == ({"sha256", "seen"} if each.name == NDJSON else {"sha256"})


def test_the_same_again_writes_nothing(books: Books) -> None:
    books.run("1", at="20T08:05")
    books.run("1", at="21T08:05")
    before = books.etags()
    assert books.run("1", at="21T09:05") == (Taken("unchanged", dated(21)), updated([], [], rows=2))
    assert books.etags() == before


def test_the_days_row_follows_a_revision(books: Books) -> None:
    books.run("1", at="21T08:05")
    taken, update = books.run("2", at="21T14:30")
    assert taken == Taken("revised", dated(21, "143000"))
    assert update == updated(FILES, [taken.name], rows=1)
    assert [(row["totalCost"], row["sourceBlob"]) for row in books.rows()] == [("2", taken.name)]
    assert books.file(LATEST) == read(books.usage, taken.name)


def test_two_runs_at_the_same_moment_write_one_snapshot_and_one_history(books: Books) -> None:
    books.run("1", at="20T08:05")
    books.clock.advance(days=1)
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(books.run, ["2", "2"]))
    assert sorted(taken.outcome for taken, _ in runs) == ["taken", "unchanged"]
    assert {row["snapshotDate"] for row in books.rows()} == {"2026-11-20", "2026-11-21"}
    assert books.files() == books.rebuilt()


def take_a_newer_one(books: Books) -> None:
    """A run of an hour later, which has news."""
    books.clock.advance(hours=1)
    books.bring_in("3", books.clock.instant, revised=True)
    assert books.keeper().bring_up_to_date().written == FILES


def adopt_an_older_one(books: Books) -> None:
    """A person brings in a snapshot of an earlier day, and rebuilds."""
    books.bring_in("7", instant("17T08:05"))
    assert len(books.rebuild().added) == 1


RUN, REBUILD = History.bring_up_to_date, lambda keeper: keeper.rebuild(lambda found, _: found)


@pytest.mark.parametrize(
    ("work", "has_news", "others"),
    [
        pytest.param(RUN, True, take_a_newer_one, id="a run beside a run"),
        pytest.param(REBUILD, True, take_a_newer_one, id="a rebuild beside a run"),
        pytest.param(RUN, False, adopt_an_older_one, id="a run beside a rebuild"),
    ],
)
def test_whatever_another_writer_does_between_two_requests_the_history_is_as_rebuilt(
    books: Books,
    proxy: StorageProxy,
    work: Callable[[History], Updated],
    others: Callable[[Books], None],
    *,
    has_news: bool,
) -> None:
    books.run("1", at="19T08:05")
    books.clock.instant = instant("21T08:05")
    if has_news:
        books.bring_in("2", books.clock.instant)
    for moment in count(1):
        here = books.copy()
        proxy.requests.clear()
        proxy.follow(before(moment, partial(others, here)))
        work(here.keeper_behind(proxy))
        assert here.is_as_rebuilt(), moment
        if len(proxy.requests) < moment:
            break
        overtaken = proxy.requests[moment - 1]
        assert overtaken.method == "GET" or overtaken.answered == 412
    assert moment > (10 if has_news else 5)


@pytest.mark.parametrize("written", range(4))
def test_a_first_run_killed_after_some_of_its_writes_is_finished_by_the_next(
    books: Books, written: int
) -> None:
    books.run()
    for name in FILES[written:]:
        books.history.delete_blob(name)
    taken, update = books.run()
    assert (taken.outcome, update.written) == ("unchanged", FILES[written:])
    assert books.files() == books.rebuilt()


@pytest.mark.parametrize("unwritten", FILES)
def test_a_run_that_cannot_write_a_file_writes_none_after_it_and_the_next_finishes(
    books: Books, unwritten: str
) -> None:
    books.run("1", at="20T08:05")
    before, at = books.etags(), FILES.index(unwritten)
    with unwritable(books.history, unwritten), pytest.raises(RecordError):
        books.run("2", at="21T08:05")
    after = books.etags()
    assert [name for name in FILES if after[name] != before[name]] == FILES[:at]
    taken, update = books.run("2", at="21T09:05")
    assert (taken.outcome, update.written) == ("unchanged", FILES[at:])
    assert update.added == ([] if at else [dated(21)])
    assert books.files() == books.rebuilt()


def test_a_run_that_is_overtaken_each_time_gives_up(books: Books) -> None:
    books.take()
    faster = "the history could not be written: others were faster 5 times"
    with always_overtaken() as refused, pytest.raises(RecordError, match=faster):
        books.keeper().bring_up_to_date()
    assert refused == [NDJSON] * 5


def test_days_that_killed_runs_left_in_an_earlier_month_come_into_the_history(books: Books) -> None:
    books.run("1", at="28T08:05")
    for _ in range(2):
        books.clock.advance(days=1)
        books.take("2")
    books.clock.advance(days=1)
    taken, update = books.run("3")
    assert update == updated(FILES, [dated(29), dated(30), taken.name], rows=4)
    assert books.files() == books.rebuilt()


def test_a_snapshot_of_a_month_that_the_process_has_not_reached_comes_into_the_history(books: Books) -> None:
    books.run("1", at="30T23:05")
    books.clock.instant = datetime(2026, 12, 1, 0, 3, tzinfo=UTC)  # storage's clock
    taken = books.take("2")
    books.clock.instant -= timedelta(minutes=8)  # the process's
    assert taken.name.startswith("usagesummary/v1/2026/12/01/")
    assert books.keeper().bring_up_to_date().rows == 2


def test_what_a_run_writes_late_on_the_last_day_of_the_month_before_comes_into_the_history(
    books: Books,
) -> None:
    books.clock.instant = datetime(2026, 10, 31, 8, 5, tzinfo=UTC)
    books.run("1")
    books.run("2", at="01T08:05")
    name = books.bring_in("9", datetime(2026, 10, 31, 23, 30, tzinfo=UTC), revised=True)
    assert books.keeper().bring_up_to_date() == updated([NDJSON, CSV, MANIFEST], [name], rows=2)
    assert books.files() == books.rebuilt()


@pytest.mark.parametrize(
    ("last", "now", "months"),
    [
        ("2026-11-29", "2026-11-29", ["2026/11"]),
        ("2026-11-30", "2026-11-30", ["2026/11", "2026/12"]),
        ("2026-12-01", "2026-12-01", ["2026/11", "2026/12"]),
        ("2026-12-02", "2026-12-01", ["2026/12"]),
        ("2026-11-28", "2027-01-31", ["2026/11", "2026/12", "2027/01", "2027/02"]),
    ],
)
def test_a_run_lists_the_months_from_the_day_before_the_last_snapshot_to_tomorrow(
    books: Books, requested: list[str], last: str, now: str, months: list[str]
) -> None:
    books.clock.instant = datetime.fromisoformat(f"{last}T08:05+00:00")
    books.run()
    books.clock.instant = datetime.fromisoformat(f"{now}T08:05+00:00")
    requested.clear()
    books.keeper().bring_up_to_date()
    prefixes = [parse_qs(urlsplit(line).query).get("prefix") for line in requested if "comp=list" in line]
    assert prefixes == [None, *([f"usagesummary/v1/{month}/"] for month in months)]


@pytest.mark.parametrize("late", ["20T23:30", "21T09:05"], ids=["the day before", "the same day"])
def test_what_an_overtaken_run_writes_late_among_earlier_names_comes_into_the_history(
    books: Books, late: str
) -> None:
    for at in ("19T08:05", "20T08:05", "21T08:05", "21T10:05"):
        books.run("1" if at < "21T10" else "2", at=at)
    name = books.bring_in(document("9", "2026-11-21"), instant(late), revised=True)
    update = books.keeper().bring_up_to_date()
    assert update == updated([NDJSON, CSV, MANIFEST], [name], rows=4)
    assert books.files() == books.rebuilt()
    assert books.keeper().bring_up_to_date() == updated([], [], rows=4)


def test_a_late_revision_that_a_later_one_outdoes_changes_no_row(books: Books) -> None:
    books.run("1", at="21T08:05")
    books.run("2", at="21T10:05")
    before = books.files()
    books.bring_in("9", instant("21T09:05"), revised=True)
    assert books.keeper().bring_up_to_date().added == []
    assert books.keeper().bring_up_to_date().written == []
    assert books.files() == books.rebuilt() == before


def test_snapshots_brought_in_by_hand_come_into_the_history_with_a_rebuild(books: Books) -> None:
    for day in ("10", "15", "20"):
        books.run("1", at=f"{day}T08:05")
    names = [books.bring_in("7", instant(f"{day}T12:00")) for day in ("05", "12", "13")]
    left = (16, 17, 18, 19)
    assert books.run("1", at="20T09:05")[1] == updated([], [], rows=3, missing=(11, 12, 13, 14, *left))
    missing = (6, 7, 8, 9, 11, 14, *left)
    assert books.rebuild() == updated([NDJSON, CSV, MANIFEST], names, rows=6, missing=missing)
    assert [row["sourceBlob"] for row in books.rows()][:2] == [dated(5), dated(10)]
    assert books.keeper().bring_up_to_date() == updated([], [], rows=6, missing=missing)


def test_a_rebuild_of_what_is_right_writes_nothing(books: Books) -> None:
    books.run("1", at="20T08:05")
    books.run("2", at="21T08:05")
    before = books.etags()
    assert books.rebuild() == updated([], [], rows=2)
    assert books.etags() == before


def test_a_rebuild_is_watched_over_all_snapshots_in_their_order(books: Books) -> None:
    for at in ("20T08:05", "21T08:05", "21T10:05"):
        books.run(at[:2] + at[-5:-3], at=at)
    seen: list[str] = []
    numbers: list[int] = []

    def progress(found: Iterator[Found], number: int) -> Iterator[Found]:
        numbers.append(number)
        for each in found:
            seen.append(each.name.name)
            yield each

    assert books.keeper().rebuild(progress).rows == 2
    assert (numbers, seen) == ([3], [dated(20), dated(21), dated(21, "100500")])


def test_a_draft_and_its_files_are_what_a_rebuild_would_make_and_write_nothing(books: Books) -> None:
    books.run("1", at="20T08:05")
    books.run("2", at="21T08:05")
    books.history.delete_blob(CSV)
    before, keeper = books.etags(), books.keeper()
    draft = keeper.draft(lambda found, _: found)
    assert keeper.files(draft) == books.rebuilt()
    assert ([name.name for name in draft.names], draft.damaged) == ([dated(20), dated(21)], {})
    assert {name: blob.content for name, blob in keeper.stored().items()} == {
        name: books.file(name) for name in (NDJSON, LATEST, MANIFEST)
    }
    assert books.etags() == before


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "garbage": lambda _: b"garbage",
    "nothing": lambda _: b"",
    "its end is missing": lambda text: text[:-20],
    "its last line is missing": lambda text: b"".join(text.splitlines(keepends=True)[:-1]),
    "its lines are swapped": lambda text: b"".join(reversed(text.splitlines(keepends=True))),
    "no Unicode": lambda text: text.replace(b"DKK", b"\xff\xfe"),
    "a day of an earlier month is missing": lambda text: b"".join(text.splitlines(keepends=True)[1:]),
    "another digit": lambda text: text.replace(b'"totalCost":1.0', b'"totalCost":7.0'),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_history_is_rebuilt_from_the_dated_blobs_byte_for_byte(
    books: Books, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    books.clock.instant = datetime(2026, 10, 30, 8, 5, tzinfo=UTC)
    books.run("1.0")
    books.run("2", at="20T08:05")
    books.run("3", at="21T08:05")
    before = books.files()
    books.history.upload_blob(NDJSON, DAMAGES[damage](before[NDJSON]), overwrite=True)
    books.run("3", at="21T09:05")
    assert books.files() == books.rebuilt() == before
    (line,) = events(caplog, "history.damaged")
    assert (line["blob"], line["message"]) == (NDJSON, "it is not what was written")


def test_a_history_in_a_form_that_no_run_writes_is_made_again_though_its_digest_is_true(books: Books) -> None:
    books.run("1", at="20T08:05")
    books.run("2", at="21T08:05")
    before = books.files()
    other = before[NDJSON].replace(b'"totalCost":', b'"totalCost": ')
    books.history.upload_blob(NDJSON, other, overwrite=True, metadata={"sha256": sha256(other).hexdigest()})
    assert books.run("2", at="21T09:05")[1].written == [NDJSON]
    assert books.files() == before


def garbled(text: bytes) -> bytes:
    """A history with a first line that is cut off."""
    return text[20:]


EDITS: dict[str, Callable[[bytes], bytes]] = {
    "other line ends": lambda text: text.replace(b"\n", b"\r\n"),
    "no line end at the end": lambda text: text[:-1],
    "blanks": lambda text: text.replace(b'":', b'": '),
    "another order": lambda text: b"".join(reversed(text.splitlines(keepends=True))),
    "a garbled line": garbled,
}


@pytest.mark.parametrize("work", ["run", "rebuild"])
@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_history_loses_no_row_without_a_snapshot_but_that_of_a_garbled_line(
    books: Books, caplog: pytest.LogCaptureFixture, edit: str, work: str
) -> None:
    for day in ("18", "19", "20", "21"):
        books.run(f"{day}.50", at=f"{day}T08:05")
    rows = books.rows()
    for gone in (18, 19):
        books.usage.delete_blob(dated(gone))
    books.history.upload_blob(NDJSON, EDITS[edit](books.file(NDJSON)), overwrite=True)
    update = books.rebuild() if work == "rebuild" else books.run("21.50", at="21T09:05")[1]
    lost = int(edit == "a garbled line")
    assert books.rows() == rows[lost:]
    assert update.kept == {dated(gone): "it is gone" for gone in (18, 19)[lost:]}
    assert update.lost == lost
    (line,) = events(caplog, "history.damaged")
    assert (line["message"], line.get("lostLines", 0)) == ("it is not what was written", lost)
    assert books.run("21.50", at="21T10:05")[1] == updated([], [], rows=4 - lost)


def with_a_row_of(day: date, books: Books) -> None:
    """Somebody adds a row of a day that has no snapshot, and keeps the metadata true."""
    blob = books.history.get_blob_client(NDJSON)
    text, metadata = books.file(NDJSON), blob.get_blob_properties().metadata
    last = text.splitlines(keepends=True)[-1]
    for separator in "-/":
        last = last.replace(
            f"2026{separator}11{separator}21".encode(), f"{day:%Y{separator}%m{separator}%d}".encode()
        )
    text += last
    blob.upload_blob(text, overwrite=True, metadata=metadata | {"sha256": sha256(text).hexdigest()})


@pytest.mark.parametrize("work", ["run", "rebuild"])
def test_a_row_of_a_day_yet_to_come_is_dropped_and_keeps_no_later_snapshot_out(
    books: Books, caplog: pytest.LogCaptureFixture, work: str
) -> None:
    books.run("1", at="20T08:05")
    books.run("2", at="21T08:05")
    with_a_row_of(date(2031, 1, 1), books)
    books.clock.instant = instant("22T08:05")
    name = books.take("3").name
    update = books.rebuild() if work == "rebuild" else books.keeper().bring_up_to_date()
    assert update == updated(FILES, [name], rows=3, dropped=("2031-01-01",))
    assert [line["message"] for line in events(caplog, "history.damaged")] == [
        "it has a row of a day yet to come"
    ]
    assert books.files() == books.rebuilt()


@pytest.mark.parametrize(("days", "is_kept"), [(1, True), (2, False)])
def test_a_row_of_tomorrow_is_kept_and_that_of_the_day_after_is_not(
    books: Books, days: int, *, is_kept: bool
) -> None:
    books.run("1", at="21T08:05")
    with_a_row_of(date(2026, 11, 21 + days), books)
    for update in (books.keeper().bring_up_to_date(), books.rebuild()):
        assert update.rows == 1 + is_kept


def test_a_history_that_was_uploaded_by_hand_unchanged_is_written_again_once(books: Books) -> None:
    books.run("1", at="20T08:05")
    books.run("2", at="21T08:05")
    before = books.files()
    books.history.upload_blob(NDJSON, before[NDJSON], overwrite=True)
    assert books.run("2", at="21T09:05")[1].written == [NDJSON]
    assert books.run("2", at="21T10:05")[1] == updated([], [], rows=2)
    assert books.files() == before


@pytest.mark.parametrize("name", [CSV, LATEST, MANIFEST])
def test_another_damaged_file_is_made_again(books: Books, name: str) -> None:
    books.run()
    before = books.file(name)
    books.history.upload_blob(name, b"garbage", overwrite=True)
    assert books.run()[1].written == [name]
    assert books.file(name) == before


SPOILS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "no JSON": ("it is no JSON object in UTF-8", lambda _: b"garbage"),
    "half of it": ("it is no JSON object in UTF-8", lambda text: text[:99]),
    "another schema": (
        "its schemaVersion is not 1",
        lambda text: text.replace(b'"schemaVersion":1', b'"schemaVersion":2'),
    ),
    "another day": (
        "its snapshotDate is not the date in its name",
        lambda text: text.replace(b'"snapshotDate":"2026-11-20"', b'"snapshotDate":"2026-11-19"'),
    ),
    "no document": (
        "its usageSummary has no finite number totalCost",
        lambda text: text.replace(b"usageSummary", b"somethingElse"),
    ),
    "another MD5": ("its MD5 is another", lambda text: text),
}


@pytest.mark.parametrize("spoil", SPOILS)
def test_a_damaged_dated_blob_is_named_and_skipped_and_never_touched(
    books: Books, caplog: pytest.LogCaptureFixture, spoil: str
) -> None:
    reason, spoilt = SPOILS[spoil]
    books.run("1", at="19T08:05")
    books.clock.advance(days=1)
    books.take("2")
    blob = books.usage.get_blob_client(dated(20))
    blob.upload_blob(spoilt(read(books.usage, dated(20))), overwrite=True)
    if spoil == "another MD5":
        blob.set_http_headers(ContentSettings(content_md5=bytearray(16)))
    before = books.etags()[dated(20)]
    _, update = books.run("3", at="21T08:05")
    assert update == Updated(FILES, [dated(21)], [], {dated(20): reason}, 2, [date(2026, 11, 20)])
    assert json.loads(books.file(MANIFEST))["missingDates"] == ["2026-11-20"]
    assert [(line["blob"], line["message"]) for line in events(caplog, "snapshot.damaged")] == [
        (dated(20), reason)
    ]
    assert books.etags()[dated(20)] == before


def test_a_snapshot_with_whom_to_notify_that_others_brought_in_comes_into_no_file(books: Books) -> None:
    books.run("1", at="20T08:05")
    members = read_usage_summary(document("2")).members | {"a": [{"EMAILSTONOTIFY": ["a@nordlys.example"]}]}
    content = snapshots.snapshot(members, instant("21T08:05"), ID, ID)
    beside(books.usage).write(dated(21), content, "application/json", replacing=None)
    books.clock.instant = instant("21T09:05")
    for update in (books.keeper().bring_up_to_date(), books.rebuild()):
        assert update.damaged == {dated(21): "it holds personal data, emailsToNotify"}
    assert books.file(LATEST) == read(books.usage, dated(20))
    assert [name for name in FILES if b"nordlys" in books.file(name)] == []


def test_of_the_newest_snapshot_damaged_later_the_row_stays_until_its_day_is_dropped(books: Books) -> None:
    books.run("1", at="20T08:05")
    books.run("2", at="21T08:05")
    rows = books.rows()
    books.usage.upload_blob(dated(21), b"garbage", overwrite=True)
    assert books.keeper().bring_up_to_date() == updated([LATEST, MANIFEST], [], rows=2)
    assert (books.rows(), books.file(LATEST)) == (rows, read(books.usage, dated(20)))
    assert books.keeper().bring_up_to_date() == updated([], [], rows=2)
    damaged = {dated(21): "it is no JSON object in UTF-8"}
    assert books.rebuild() == Updated([], [], [], damaged, 2, [], damaged)
    dropped = books.rebuild(date(2026, 11, 21))
    assert dropped == Updated([NDJSON, CSV, MANIFEST], [], ["2026-11-21"], damaged, 1, [])
    assert (books.rows(), books.file(LATEST)) == (rows[:1], read(books.usage, dated(20)))


def test_rows_of_deleted_snapshots_stay_byte_for_byte_until_their_days_are_named(books: Books) -> None:
    for day in ("17", "18", "19", "20", "21"):
        books.run(f"{day}.50", at=f"{day}T08:05")
    before, gone = books.files(), [dated(day) for day in (17, 18, 20)]
    contents = {name: read(books.usage, name) for name in gone}
    for name in gone:
        books.usage.delete_blob(name)
    kept = dict.fromkeys(gone, "it is gone")
    assert books.run("21.50", at="21T09:05")[1].added == []
    assert books.rebuild() == Updated([], [], [], {}, 5, [], kept)
    assert books.files() == before
    assert books.rebuild(date(2026, 11, 18), date(2026, 11, 20)) == Updated(
        [NDJSON, CSV, MANIFEST],
        [],
        ["2026-11-18", "2026-11-20"],
        {},
        3,
        [date(2026, 11, 18), date(2026, 11, 20)],
        {dated(17): "it is gone"},
    )
    for name, content in contents.items():
        beside(books.usage).write(name, content, "application/json", replacing=None)
    assert books.rebuild().added == [dated(18), dated(20)]
    assert books.files() == before == books.rebuilt()


@pytest.mark.parametrize(
    "days",
    [
        pytest.param([21], id="a day whose snapshot can be read"),
        pytest.param([18], id="a day without a row"),
        pytest.param([20, 21], id="beside one that could be"),
    ],
)
def test_a_day_to_be_dropped_that_has_no_kept_row_is_refused_and_nothing_is_written(
    books: Books, days: list[int]
) -> None:
    books.run("1", at="20T08:05")
    books.run("2", at="21T08:05")
    books.usage.delete_blob(dated(20))
    books.history.delete_blob(CSV)
    before = books.etags()
    with pytest.raises(ConfigurationError, match=f"no row is kept of 2026-11-{days[-1]}, so") as refused:
        books.rebuild(*(date(2026, 11, day) for day in days))
    assert "history verify" in (refused.value.hint or "")
    assert books.etags() == before


def test_a_rebuild_that_is_overtaken_after_it_has_dropped_a_day_goes_on(
    books: Books, proxy: StorageProxy
) -> None:
    for day in ("19", "20", "21"):
        books.run(day, at=f"{day}T08:05")
    books.usage.delete_blob(dated(20))
    proxy.follow(failing_writes(Fault.CHANGED, str(books.history.container_name), 2))
    update = books.keeper_behind(proxy).rebuild(lambda found, _: found, [date(2026, 11, 20)])
    assert (update.rows, update.written) == (2, [CSV, MANIFEST])
    assert update.dropped == ["2026-11-20"]
    assert books.is_as_rebuilt()


def test_a_row_that_another_snapshot_makes_now_is_not_kept_beside_it(books: Books) -> None:
    books.run(document("1", "2026-10-28"), at="20T08:05")
    books.run("2", at="21T08:05")
    members = read_usage_summary(document("1", "2026-11-20")).members
    content = snapshots.snapshot(members, instant("20T08:05"), ID, ID)
    books.usage.upload_blob(dated(20), content, overwrite=True)
    assert books.rebuild() == updated([NDJSON, CSV, MANIFEST], [dated(20)], rows=2, dropped=("2026-11-20",))
    assert books.files() == books.rebuilt()


@pytest.mark.parametrize("work", ["run", "rebuild"])
@pytest.mark.parametrize("is_damaged", [False, True], ids=["its row is there", "with a damaged history"])
def test_snapshots_that_cannot_be_read_cost_nothing_but_their_rows_and_all_are_told(
    books: Books, caplog: pytest.LogCaptureFixture, work: str, *, is_damaged: bool
) -> None:
    for day in ("16", "17", "18", "19", "20", "21"):
        books.run(day, at=f"{day}T08:05")
    before = books.files()
    for archived in (16, 19):
        books.usage.get_blob_client(dated(archived)).set_standard_blob_tier("Archive")
    books.usage.upload_blob(dated(17), b"", overwrite=True)
    books.usage.upload_blob(
        dated(18), b"{}", overwrite=True, content_settings=ContentSettings(content_encoding="gzip")
    )
    books.bring_in("15", instant("15T08:05"))
    if is_damaged:
        books.history.upload_blob(NDJSON, b"garbage", overwrite=True)
    else:
        books.history.delete_blob(MANIFEST)
    update = books.rebuild() if work == "rebuild" else books.run("21", at="21T09:05")[1]
    reads_all = is_damaged or work == "rebuild"
    damaged = {
        dated(16): f"it cannot be read. {hint('BlobArchived')}",
        dated(17): "it is no JSON object in UTF-8",
        dated(18): "its schemaVersion is not 1",
        dated(19): f"it cannot be read. {hint('BlobArchived')}",
    }
    assert update.damaged == (damaged if reads_all else {})
    assert [line["blob"] for line in events(caplog, "snapshot.damaged")] == [*update.damaged]
    days = {row["snapshotDate"][-2:] for row in books.rows()}
    assert days == {"20", "21"} | ({"15"} if reads_all else set()) | (
        set() if is_damaged else {"16", "17", "18", "19"}
    )
    assert json.loads(books.file(MANIFEST))["rows"] == len(books.rows())
    assert books.file(LATEST) == before[LATEST]


def test_a_row_of_a_history_written_by_hand_stays_where_no_snapshot_can_be_read(
    books: Books, caplog: pytest.LogCaptureFixture
) -> None:
    for day in ("19", "20", "21"):
        books.run(day, at=f"{day}T08:05")
    rows = books.rows()
    books.usage.delete_blob(dated(19))
    by_hand = books.file(NDJSON).replace(b'"totalCost":20', b'"totalCost":7')
    books.history.upload_blob(NDJSON, by_hand, overwrite=True)
    _, update = books.run("21", at="21T09:05")
    assert (update.written, update.kept) == ([NDJSON], {dated(19): "it is gone"})
    assert books.rows() == rows
    assert [line["message"] for line in events(caplog, "history.damaged")] == ["it is not what was written"]
    assert books.run("21", at="21T10:05")[1] == updated([], [], rows=3)


@pytest.mark.parametrize("is_gone", [True, False], ids=["deleted", "damaged"])
def test_no_older_snapshot_comes_into_a_later_ones_place_until_its_day_is_dropped(
    books: Books, *, is_gone: bool
) -> None:
    books.take("1")
    books.bring_in("2", instant("20T08:05"))
    last = books.bring_in("4", instant("21T10:05"), revised=True)
    assert books.rebuild().rows == 2
    rows = books.rows()
    books.usage.delete_blob(last)
    if not is_gone:
        books.usage.upload_blob(last, b"garbage")
    older = books.bring_in("3", instant("21T09:05"), revised=True)  # so that all of the day are read again
    assert books.keeper().bring_up_to_date().added == []
    assert books.keeper().bring_up_to_date().written == []
    assert books.rebuild().written == []
    assert books.rows() == rows
    assert books.rebuild(date(2026, 11, 21)).added == [older]
    assert [row["sourceBlob"] for row in books.rows()] == [dated(20), older]
    assert books.files() == books.rebuilt()


def test_where_the_only_rows_snapshot_is_damaged_an_earlier_sound_one_is_the_latest(books: Books) -> None:
    books.run("1", at="21T08:05")
    books.run("2", at="21T09:05")
    damaged = snapshots.revision_name(instant("21T09:05"))
    books.usage.upload_blob(damaged, b"{", overwrite=True)
    taken, updated = books.run("1", at="21T10:05")
    assert (taken.outcome, updated.written) == ("unchanged", [LATEST, MANIFEST])
    assert json.loads(books.file(LATEST))["usageSummary"]["totalCost"] == 1
    assert json.loads(books.file(NDJSON))["totalCost"] == 2
    assert books.run("1", at="21T11:05")[1].written == []


def test_where_all_snapshots_are_damaged_the_files_stay_as_they_are(books: Books) -> None:
    books.run()
    before = books.etags()
    books.usage.upload_blob(dated(21), b"garbage", overwrite=True)
    with pytest.raises(RecordError, match="there is no snapshot that can be read") as raised:
        books.rebuild()
    assert raised.value.hint == "Check USAGE_SNAPSHOT_CONTAINER, the container of the dated snapshots."
    assert {name: books.etags()[name] for name in FILES} == {name: before[name] for name in FILES}


def test_two_billing_periods_on_one_day_are_two_rows(books: Books) -> None:
    books.run(document("1000", "2026-10-21"), at="21T06:05")
    books.run(document("1001", "2026-10-21"), at="21T07:05")
    _, update = books.run(document("3", "2026-11-21"), at="21T08:05")
    assert update.rows == 2
    assert [(row["billingStartDate"], row["totalCost"], row["sourceBlob"]) for row in books.rows()] == [
        ("2026-10-21", "1001", dated(21, "070500")),
        ("2026-11-21", "3", dated(21, "080500")),
    ]
    assert books.files() == books.rebuilt()


def test_gaps_are_a_warning_of_the_first_run_of_a_day_alone(
    books: Books, caplog: pytest.LogCaptureFixture
) -> None:
    books.clock.instant = datetime(2026, 10, 10, 8, 5, tzinfo=UTC)
    books.run("1")
    assert not events(caplog, "history.gaps")
    for total, at in [("1", "20T08:05"), ("1", "20T09:05"), ("2", "20T10:05"), ("2", "21T08:05")]:
        before = len(events(caplog, "history.gaps"))
        books.run(total, at=at)
        assert len(events(caplog, "history.gaps")) - before == (at[3:] == "08:05")
    assert {record.levelname for record in caplog.records if "history.gaps" in record.message} == {"WARNING"}
    for line in events(caplog, "history.gaps"):
        assert line["missingDates"] == 40
        assert (len(line["newest"]), line["newest"][0], line["newest"][-1]) == (
            31,
            "2026-10-20",
            "2026-11-19",
        )


@pytest.mark.parametrize(
    ("fault", "write"),
    [(Fault.DIE, 3), (Fault.DIE, 4), (Fault.LOSE, 1), (Fault.LOSE, 4)],
)
def test_a_days_gaps_are_said_once_though_a_write_of_its_first_run_fails(
    books: Books, proxy: StorageProxy, caplog: pytest.LogCaptureFixture, fault: Fault, write: int
) -> None:
    books.run("1", at="10T08:05")
    books.clock.instant = instant("20T08:05")
    books.take("2")
    proxy.follow(failing_writes(fault, str(books.history.container_name), write))
    with pytest.raises(StorageError) if fault is Fault.DIE else nullcontext():
        books.keeper_behind(proxy).bring_up_to_date()
    books.run("2", at="20T09:05")
    books.run("3", at="20T10:05")
    assert [line["missingDates"] for line in events(caplog, "history.gaps")] == [9]
    books.run("3", at="21T08:05")
    assert [line["missingDates"] for line in events(caplog, "history.gaps")] == [9, 9]


def test_a_run_asks_storage_as_often_after_400_days_as_after_three(
    service: BlobServiceClient, requested: list[str]
) -> None:
    def asked(books: Books, days: int) -> list[list[str]]:
        """The requests of a run with a new snapshot, and of two that find nothing new."""
        books.usage.create_container()
        with ThreadPoolExecutor(8) as pool:
            instants = [instant("20T08:05") - timedelta(days=number) for number in range(days)]
            list(pool.map(books.bring_in, map(str, range(days)), instants))
        assert books.rebuild().rows == days
        found = []
        for at, outcome in [("21T08:05", "taken"), ("21T09:05", "unchanged"), ("21T10:05", "unchanged")]:
            requested.clear()
            assert books.run("7", at=at)[0].outcome == outcome
            found.append(list(requested))
        return found

    few, many = asked(Books(service), 3), asked(Books(service), 400)
    assert few == many
    assert [len(each) for each in few] == [12, 7, 7]
    assert not [line for line in few[1] + few[2] if not line.startswith("GET ")]


def test_the_manifest_tells_days_gaps_sizes_and_digests(books: Books) -> None:
    for day in ("17", "18", "21"):
        books.run(day, at=f"{day}T08:05:07")
    assert json.loads(books.file(MANIFEST)) == {
        "schemaVersion": 1,
        "dataset": "usagesummary",
        "generatedAt": "2026-11-21T08:05:07Z",
        "firstDate": "2026-11-17",
        "lastDate": "2026-11-21",
        "rows": 3,
        "missingDates": ["2026-11-19", "2026-11-20"],
        "files": [
            {"name": name, "size": len(text), "md5": base64.b64encode(md5(text)).decode()}
            for name, text in books.files().items()
        ],
    }


def test_text_and_digits_survive_and_personal_data_is_in_no_blob(books: Books) -> None:
    name = 'Æ "quoted", 北光\n雲端\r\nنور \u2028 \t=1+1'
    numbers = {"totalCost": "120.5682999999995904716", "customersOverBudget": "1.0"}
    numbers |= {"customersTrendingOver": "1e5", "customersWithUsageBasedSubscription": "1" + "0" * 29}
    members = "".join(f'"{key}":{value},' for key, value in numbers.items())
    mails = '["a@nordlys.example"]'
    books.run(
        f'{{{members}"resourceName":{json.dumps(name)},"currencyCode":null,"EmailsToNotify":{mails},'
        f'"unknown":{{"emailsToNotify":{mails},"n":1.50}}}}'.encode()
    )
    (row,) = csv.DictReader(io.StringIO(books.file(CSV).decode(), newline=""))
    (line,) = books.rows()
    kept = with_digits(read(books.usage, dated(21)))["usageSummary"]
    for key, digits in numbers.items():
        assert row[key] == line[key] == kept[key] == digits
    assert row["resourceName"] == line["resourceName"] == kept["resourceName"] == name
    assert (row["currencyCode"], line["currencyCode"], line["currencyLocale"]) == ("", None, None)
    assert (kept["currencyCode"], kept["unknown"]) == (None, {"n": "1.50"})
    assert "currencyLocale" not in kept
    for text in (*books.files().values(), books.file(MANIFEST), read(books.usage, dated(21))):
        assert b"nordlys.example" not in text
        assert b"emailstonotify" not in text.lower()


def test_a_snapshot_of_a_day_yet_to_come_is_damaged_and_keeps_no_later_one_out(
    books: Books, caplog: pytest.LogCaptureFixture
) -> None:
    books.run("1", at="21T08:05")
    name = "usagesummary/v1/2027/11/21/usagesummary.json"
    content = read(books.usage, dated(21)).replace(b"2026-11-21", b"2027-11-21")
    beside(books.usage).write(name, content, "application/json", replacing=None)
    garbage = name.replace("2027", "2031")
    books.usage.upload_blob(garbage, b"{}")
    rebuilt = books.rebuild()
    assert rebuilt.damaged == dict.fromkeys([name, garbage], "its day is yet to come")
    assert rebuilt.rows == 1
    assert events(caplog, "snapshot.damaged")
    assert books.run("2", at="22T08:05")[1].rows == 2


@pytest.mark.parametrize(("days", "rows"), [(1, 2), (2, 1)])
def test_a_snapshot_of_tomorrow_is_one_and_that_of_the_day_after_is_damaged(
    books: Books, days: int, rows: int
) -> None:
    books.run("1", at="21T23:59")
    name = books.bring_in("2", books.clock.instant + timedelta(days=days))
    update = books.rebuild()
    assert update.rows == rows
    assert update.damaged == ({name: "its day is yet to come"} if rows == 1 else {})
