import base64
import csv
import io
import json
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from azure.storage.blob import BlobServiceClient, ContainerClient, ContentSettings

from dev.azurite import Azurite
from shared.blobs import md5
from shared.errors import RecordError
from shared.fleet import Answer
from shared.history import CSV, LATEST, MANIFEST, NDJSON, Record, Taken, Updated
from tests.conftest import ManualClock, beside, events

FILES = [NDJSON, CSV, LATEST, MANIFEST]
ID = "5b0c4c8e-7f1d-4f0a-9a53-2d1c6b0e8a47"


@dataclass
class Books:
    """Both containers of a record, and the hands of those who keep it."""

    service: BlobServiceClient
    clock: ManualClock = field(default_factory=lambda: ManualClock(datetime(2026, 11, 21, 8, tzinfo=UTC)))

    def __post_init__(self) -> None:
        self.usage, self.history = self.container(), self.container()

    def container(self) -> ContainerClient:
        return self.service.get_container_client(f"record-{uuid.uuid4().hex}")

    def keeper(self) -> Record:
        return Record(beside(self.usage), beside(self.history), self.clock.clock())

    def run(self, total: str | bytes = "1", *, at: str | None = None) -> tuple[Taken, Updated]:
        """A run at an instant of November 2026 with a new answer: a total, or a whole document."""
        if at is not None:
            self.clock.instant = datetime.fromisoformat(f"2026-11-{at}+00:00")
        return self.take(total), self.keeper().bring_up_to_date()

    def take(self, total: str | bytes = "1") -> Taken:
        return self.keeper().take(Answer(document(total), self.clock.instant, ID, ID))

    def rebuilt(self) -> dict[str, bytes]:
        """What a rebuild makes of the dated blobs, in a container of its own."""
        elsewhere = self.container()
        record = Record(beside(self.usage), beside(elsewhere), self.clock.clock())
        record.bring_up_to_date(from_scratch=True)
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
def books(azurite: Azurite) -> Iterator[Books]:
    with BlobServiceClient.from_connection_string(azurite.connection_string) as service:
        yield Books(service)


def read(client: ContainerClient, name: str) -> bytes:
    blob = beside(client).read(name).blob
    assert blob is not None, name
    return blob.content


def with_digits(text: bytes) -> Any:  # noqa: ANN401  # any JSON
    return json.loads(text, parse_float=str, parse_int=str)


def document(total: str | bytes, start: str = "2026-10-28") -> bytes:
    if isinstance(total, bytes):
        return total
    return (
        f'{{"totalCost":{total},"billingStartDate":"{start}T00:00:00-07:00","currencyCode":"DKK",'
        '"emailsToNotify":["regnskab@nordlys.example"]}'
    ).encode()


def dated(day: int, time: str = "") -> str:
    return f"usagesummary/v1/2026/11/{day}/usagesummary{time and f'.{time}Z'}.json"


@contextmanager
def unwritable(client: ContainerClient, name: str) -> Iterator[None]:
    """While somebody has a lease on a blob, writes to it are refused."""
    lease = client.get_blob_client(name).acquire_lease()
    yield
    lease.release()


def test_the_first_run_of_a_day_writes_its_snapshot_and_the_history(books: Books) -> None:
    taken, updated = books.run("120.5682999999995904716", at="21T08:05:02.9")
    assert taken == Taken("taken", dated(21))
    assert updated == Updated(FILES, rows=1, missing=0)
    snapshot = (
        '{"schemaVersion":1,"snapshotDate":"2026-11-21","fetchedAt":"2026-11-21T08:05:02Z",'
        f'"requestId":"{ID}","correlationId":"{ID}","usageSummary":{{"totalCost":120.5682999999995904716,'
        '"billingStartDate":"2026-10-28T00:00:00-07:00","currencyCode":"DKK"}}'
    )
    row = (
        '{"snapshotDate":"2026-11-21","fetchedAt":"2026-11-21T08:05:02Z","billingStartDate":"2026-10-28",'
        '"billingEndDate":null,"totalCost":120.5682999999995904716,"currencyCode":"DKK",'
        '"currencyLocale":null,"customersOverBudget":null,"customersTrendingOver":null,'
        '"customersWithUsageBasedSubscription":null,"lastModifiedDate":null,"resourceId":null,'
        f'"resourceName":null,"schemaVersion":1,"sourceBlob":"{dated(21)}"}}\n'
    )
    assert read(books.usage, dated(21)) == books.file(LATEST) == snapshot.encode()
    assert books.file(NDJSON) == row.encode()


def test_every_blob_has_its_content_type_and_its_md5(books: Books) -> None:
    books.run()
    types = {NDJSON: "application/x-ndjson; charset=utf-8", CSV: "text/csv; charset=utf-8"}
    found = [(client, each) for client in (books.usage, books.history) for each in client.list_blobs()]
    assert {each.name for _, each in found} == {dated(21), *FILES}
    for client, each in found:
        assert each.content_settings.content_type == types.get(each.name, "application/json; charset=utf-8")
        assert bytes(each.content_settings.content_md5 or b"") == md5(read(client, each.name))


def test_the_same_again_writes_nothing(books: Books) -> None:
    books.run("1", at="20T08:05")
    books.run("1", at="21T08:05")
    before = books.etags()
    taken, updated = books.run("1", at="21T09:05")
    assert (taken, updated) == (Taken("unchanged", dated(21)), Updated([], rows=2, missing=0))
    assert books.etags() == before


def test_a_changed_document_is_a_revision_and_the_days_row_follows_it(books: Books) -> None:
    books.run("1", at="21T08:05")
    first = books.etags()[dated(21)]
    taken, updated = books.run("2", at="21T14:30")
    assert taken == Taken("revised", dated(21, "143000"))
    assert updated == Updated(FILES, rows=1, missing=0)
    assert books.etags()[dated(21)] == first
    assert [(row["totalCost"], row["sourceBlob"]) for row in books.rows()] == [("2", taken.name)]
    assert books.file(LATEST) == read(books.usage, taken.name)
    assert books.run("1", at="21T15:30")[0] == Taken("revised", dated(21, "153000"))


def test_an_answer_older_than_the_days_last_is_no_revision(books: Books) -> None:
    books.run("1", at="21T08:05")
    books.run("2", at="21T09:05")
    before = books.etags()
    assert books.run("1", at="21T08:35")[0] == Taken("unchanged", dated(21, "090500"))
    assert books.etags() == before


def test_two_runs_at_the_same_moment_write_one_snapshot_and_one_history(books: Books) -> None:
    books.run("1", at="20T08:05")
    books.clock.advance(days=1)
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(books.run, ["2", "2"]))
    assert sorted(taken.outcome for taken, _ in runs) == ["taken", "unchanged"]
    assert {row["snapshotDate"] for row in books.rows()} == {"2026-11-20", "2026-11-21"}
    assert books.files() == books.rebuilt()


@pytest.mark.parametrize("written", range(4))
def test_a_first_run_killed_after_some_of_its_writes_is_finished_by_the_next(
    books: Books, written: int
) -> None:
    books.run()
    for name in FILES[written:]:
        books.history.delete_blob(name)
    taken, updated = books.run()
    assert (taken.outcome, updated.written) == ("unchanged", FILES[written:])
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
    taken, updated = books.run("2", at="21T09:05")
    assert (taken.outcome, updated.written) == ("unchanged", FILES[at:])
    assert books.files() == books.rebuilt()


def test_days_that_killed_runs_left_in_an_earlier_month_come_into_the_history(books: Books) -> None:
    books.run("1", at="28T08:05")
    for _ in range(2):
        books.clock.advance(days=1)
        books.take("2")
    books.clock.advance(days=1)
    _, updated = books.run("3")
    assert updated == Updated(FILES, rows=4, missing=0)
    assert books.files() == books.rebuilt()


def test_a_snapshot_of_a_month_that_the_process_has_not_reached_comes_into_the_history(books: Books) -> None:
    books.run("1", at="30T23:05")
    books.clock.instant = datetime(2026, 12, 1, 0, 3, tzinfo=UTC)  # storage's clock
    taken = books.take("2")
    books.clock.instant -= timedelta(minutes=8)  # the process's
    assert taken.name.startswith("usagesummary/v1/2026/12/01/")
    assert books.keeper().bring_up_to_date().rows == 2


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
def test_a_damaged_history_is_rebuilt_from_the_dated_blobs_byte_for_byte(books: Books, damage: str) -> None:
    books.clock.instant = datetime(2026, 10, 30, 8, 5, tzinfo=UTC)
    books.run("1.0")
    books.run("2", at="20T08:05")
    books.run("3", at="21T08:05")
    before = books.files()
    books.history.upload_blob(NDJSON, DAMAGES[damage](before[NDJSON]), overwrite=True)
    books.run("3", at="21T09:05")
    assert books.files() == books.rebuilt() == before


@pytest.mark.parametrize("name", [CSV, LATEST, MANIFEST])
def test_another_damaged_file_is_made_again(books: Books, name: str) -> None:
    books.run()
    before = books.file(name)
    books.history.upload_blob(name, b"garbage", overwrite=True)
    assert books.run()[1].written == [name]
    assert books.file(name) == before


SPOILS: dict[str, Callable[[bytes], bytes]] = {
    "no JSON": lambda _: b"garbage",
    "half of it": lambda text: text[:99],
    "another schema": lambda text: text.replace(b'"schemaVersion":1', b'"schemaVersion":2'),
    "another day": lambda text: text.replace(b'"snapshotDate":"2026-11-20"', b'"snapshotDate":"2026-11-19"'),
    "no document": lambda text: text.replace(b"usageSummary", b"somethingElse"),
    "another MD5": lambda text: text,
}


@pytest.mark.parametrize("spoil", SPOILS)
def test_a_damaged_dated_blob_is_named_and_skipped_and_never_touched(
    books: Books, caplog: pytest.LogCaptureFixture, spoil: str
) -> None:
    books.run("1", at="19T08:05")
    books.clock.advance(days=1)
    books.take("2")
    blob = books.usage.get_blob_client(dated(20))
    blob.upload_blob(SPOILS[spoil](read(books.usage, dated(20))), overwrite=True)
    if spoil == "another MD5":
        blob.set_http_headers(ContentSettings(content_md5=bytearray(16)))
    before = books.etags()[dated(20)]
    _, updated = books.run("3", at="21T08:05")
    assert updated == Updated(FILES, rows=2, missing=1)
    assert json.loads(books.file(MANIFEST))["missingDates"] == ["2026-11-20"]
    assert {line["blob"] for line in events(caplog, "snapshot.damaged")} == {dated(20)}
    assert books.etags()[dated(20)] == before


def test_after_a_damaged_snapshot_of_today_the_same_answer_is_a_revision(books: Books) -> None:
    books.run()
    books.usage.upload_blob(dated(21), b"garbage", overwrite=True)
    taken, _ = books.run()
    assert taken == Taken("revised", dated(21, "080000"))
    assert books.file(LATEST) == read(books.usage, taken.name)


def test_two_billing_periods_on_one_day_are_two_rows(books: Books) -> None:
    books.run(document("1000", "2026-10-21"), at="21T06:05")
    books.run(document("1001", "2026-10-21"), at="21T07:05")
    _, updated = books.run(document("3", "2026-11-21"), at="21T08:05")
    assert updated.rows == 2
    assert [(row["billingStartDate"], row["totalCost"], row["sourceBlob"]) for row in books.rows()] == [
        ("2026-10-21", "1001", dated(21, "070500")),
        ("2026-11-21", "3", dated(21, "080500")),
    ]
    assert books.files() == books.rebuilt()


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
