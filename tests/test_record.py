"""The dated blobs on Azurite: each is written once, by whoever is first, and is read as what it is."""

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from azure.storage.blob import (
    ContainerClient,
    ContainerSasPermissions,
    ContentSettings,
    generate_container_sas,
)

from dev.azurite import ACCOUNT, ACCOUNT_KEY, Azurite
from shared.blob import md5
from shared.blobs import PATIENT, Container
from shared.errors import RecordError, StorageError, StorageRefusedError
from shared.held import Answer
from shared.hints import hint
from shared.record import Record, Taken
from shared.settings import StorageConnection
from tests.clients import blob_container
from tests.conftest import always_overtaken, beside
from tests.storage_proxy import Fault, StorageProxy, failing_writes

ID = "5b0c4c8e-7f1d-4f0a-9a53-2d1c6b0e8a47"


def answer(total: str | bytes = "1", *, at: str = "21T08:00") -> Answer:
    """An answer fetched at an instant of November 2026: a total, or a whole document."""
    return Answer(document(total), datetime.fromisoformat(f"2026-11-{at}+00:00"), ID, ID)


def document(total: str | bytes, start: str = "2026-10-28") -> bytes:
    if isinstance(total, bytes):
        return total
    return (
        f'{{"totalCost":{total},"billingStartDate":"{start}T00:00:00-07:00","currencyCode":"DKK",'
        '"emailsToNotify":["regnskab@nordlys.example"]}'
    ).encode()


def dated(day: int, time: str = "") -> str:
    return f"usagesummary/v1/2026/11/{day:02}/usagesummary{time and f'.{time}Z'}.json"


def read(client: ContainerClient, name: str) -> bytes:
    blob = beside(client).read(name).blob
    assert blob is not None, name
    return blob.content


@pytest.fixture
def usage(azurite: Azurite) -> Iterator[ContainerClient]:
    """A container that does not exist yet."""
    name = f"usage-{uuid.uuid4().hex}"
    with blob_container(azurite.connection_string, name) as client:
        yield client


@pytest.fixture
def record(usage: ContainerClient) -> Record:
    return Record(beside(usage))


def etags(client: ContainerClient) -> dict[str, str]:
    return {each.name: each.etag for each in client.list_blobs()}


def restricted(client: ContainerClient, permissions: str) -> Record:
    """The record for a role that may do that alone; the container is there."""
    client.create_container()
    signature = generate_container_sas(
        ACCOUNT,
        client.container_name,
        ACCOUNT_KEY,
        permission=ContainerSasPermissions.from_string(permissions),
        expiry=datetime.now(UTC) + timedelta(hours=1),
    )
    endpoint = client.url.removesuffix(f"/{client.container_name}")
    connection = StorageConnection(f"BlobEndpoint={endpoint};SharedAccessSignature={signature}")
    return Record(Container(client.container_name, connection, PATIENT, None))


@pytest.fixture
def overtake(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Just before the next write somebody else does something."""
    write = Container.write

    def overtake(other: Callable[[], object]) -> None:
        others = [other]

        def overtaken(*args: object, **kwargs: object) -> str:
            if others:
                others.pop()()
            return write(*args, **kwargs)  # type: ignore[arg-type]  # handed on

        monkeypatch.setattr(Container, "write", overtaken)

    return overtake


def test_the_first_answer_of_a_day_is_written_as_it_came_without_personal_data(
    usage: ContainerClient, record: Record
) -> None:
    taken = record.take(answer("120.5682999999995904716", at="21T08:05:02.900000"))
    assert taken == Taken("taken", dated(21))
    assert read(usage, dated(21)).decode() == (
        '{"schemaVersion":1,"snapshotDate":"2026-11-21","fetchedAt":"2026-11-21T08:05:02Z",'
        f'"requestId":"{ID}","correlationId":"{ID}","usageSummary":{{"totalCost":120.5682999999995904716,'
        '"billingStartDate":"2026-10-28T00:00:00-07:00","currencyCode":"DKK"}}'
    )


def test_a_snapshot_has_its_content_type_its_md5_and_its_writers_mark(
    usage: ContainerClient, record: Record
) -> None:
    record.take(answer())
    (blob,) = usage.list_blobs(include=["metadata"])
    assert [(name, len(mark)) for name, mark in blob.metadata.items()] == [("write", 32)]
    assert blob.content_settings.content_type == "application/json; charset=utf-8"
    assert bytes(blob.content_settings.content_md5 or b"") == md5(read(usage, dated(21)))


def test_the_same_again_writes_nothing(usage: ContainerClient, record: Record) -> None:
    record.take(answer())
    before = etags(usage)
    assert record.take(answer(at="21T09:00")) == Taken("unchanged", dated(21))
    assert etags(usage) == before


def test_another_etag_of_the_resource_is_the_same_again(usage: ContainerClient, record: Record) -> None:
    text = '{{"totalCost":1,"attributes":{{"etag":"{}","objectType":"PartnerUsageSummary"}}}}'
    record.take(answer(text.format("a").encode()))
    assert record.take(answer(text.format("b").encode(), at="21T09:00")) == Taken("unchanged", dated(21))
    assert etags(usage).keys() == {dated(21)}


def test_a_changed_document_is_a_revision_and_the_first_stays_as_it_is(
    usage: ContainerClient, record: Record
) -> None:
    record.take(answer("1"))
    before = etags(usage)
    assert record.take(answer("2", at="21T14:30")) == Taken("revised", dated(21, "143000"))
    assert record.take(answer("2", at="21T14:31")) == Taken("unchanged", dated(21, "143000"))
    assert record.take(answer("1", at="21T15:30")) == Taken("revised", dated(21, "153000"))
    assert before.items() < etags(usage).items()


def test_an_answer_older_than_the_days_last_is_no_revision(usage: ContainerClient, record: Record) -> None:
    record.take(answer("1"))
    record.take(answer("2", at="21T09:00"))
    before = etags(usage)
    assert record.take(answer("3", at="21T08:30")) == Taken("unchanged", dated(21, "090000"))
    assert etags(usage) == before


def test_an_answer_is_recorded_under_the_day_on_which_it_was_fetched(record: Record) -> None:
    record.take(answer(at="21T08:00"))
    assert record.take(answer(at="20T23:59:59")) == Taken("taken", dated(20))


DAMAGES: dict[str, tuple[bytes, bytes]] = {
    "no JSON": (b"{", b"["),
    "another schema": (b'"schemaVersion":1', b'"schemaVersion":2'),
    "another day": (b'"snapshotDate":"2026-11-21"', b'"snapshotDate":"2026-11-20"'),
    "another year": (b'"fetchedAt":"2026', b'"fetchedAt":"2027'),
    "no total": (b'"totalCost":1', b'"totalCost":"1"'),
    "another MD5": (b"", b""),
}


def test_after_an_archived_snapshot_of_today_the_same_answer_is_a_revision_once(
    usage: ContainerClient, record: Record
) -> None:
    record.take(answer())
    usage.get_blob_client(dated(21)).set_standard_blob_tier("Archive")
    assert record.take(answer(at="21T09:00")) == Taken("revised", dated(21, "090000"))
    assert record.take(answer(at="21T10:00")) == Taken("unchanged", dated(21, "090000"))


@pytest.mark.parametrize("damage", DAMAGES)
def test_after_a_damaged_snapshot_of_today_the_same_answer_is_a_revision(
    usage: ContainerClient, record: Record, damage: str
) -> None:
    record.take(answer())
    damaged = read(usage, dated(21)).replace(*DAMAGES[damage])
    usage.upload_blob(dated(21), damaged, overwrite=True)
    if damage == "another MD5":
        usage.get_blob_client(dated(21)).set_http_headers(ContentSettings(content_md5=bytearray(16)))
    assert record.take(answer(at="21T09:00")) == Taken("revised", dated(21, "090000"))
    assert read(usage, dated(21)) == damaged
    assert record.take(answer(at="21T10:00")) == Taken("unchanged", dated(21, "090000"))


def test_an_answer_whose_own_snapshot_has_been_damaged_is_not_taken_again(
    usage: ContainerClient, record: Record
) -> None:
    record.take(answer("1"))
    record.take(answer("2", at="21T09:00"))
    usage.upload_blob(dated(21, "090000"), b"garbage", overwrite=True)
    assert record.take(answer("2", at="21T09:00")) == Taken("unchanged", dated(21))
    assert record.take(answer("2", at="21T09:00:01")) == Taken("revised", dated(21, "090001"))


@pytest.mark.parametrize("is_first", [True, False], ids=["alone", "after a sound one"])
def test_garbage_under_the_last_name_of_a_day_brings_no_revision_each_hour(
    usage: ContainerClient, record: Record, *, is_first: bool
) -> None:
    usage.create_container()
    if not is_first:
        record.take(answer("1"))
    usage.upload_blob(dated(21, "235959"), b"garbage")
    outcomes = [record.take(answer("1", at=f"21T{hour:02}:00")) for hour in range(9, 15)]
    mine = dated(21, "090000") if is_first else dated(21)
    assert outcomes[0] == Taken("revised" if is_first else "unchanged", mine)
    assert outcomes[1:] == [Taken("unchanged", mine)] * 5
    assert etags(usage).keys() == {mine, dated(21, "235959")}


def test_a_dry_run_tells_what_would_be_written_and_writes_nothing(
    usage: ContainerClient, record: Record
) -> None:
    assert record.take(answer("1"), dry_run=True) == Taken("taken", dated(21))
    assert not usage.exists()
    record.take(answer("1"))
    before = etags(usage)
    assert record.take(answer("2", at="21T09:00"), dry_run=True) == Taken("revised", dated(21, "090000"))
    assert record.take(answer("1", at="21T09:00"), dry_run=True) == Taken("unchanged", dated(21))
    assert etags(usage) == before


def test_of_two_at_the_same_moment_one_writes(usage: ContainerClient, record: Record) -> None:
    with ThreadPoolExecutor(2) as pool:
        taken = list(pool.map(record.take, [answer("1"), answer("1", at="21T08:00:01")]))
    assert sorted(each.outcome for each in taken) == ["taken", "unchanged"]
    assert etags(usage).keys() == {dated(21)}


@pytest.mark.parametrize("may", ["rcl", "rcwl"], ids=["create", "write"])
def test_who_is_overtaken_looks_again(
    usage: ContainerClient, overtake: Callable[[Callable[[], object]], None], may: str
) -> None:
    mine, others = restricted(usage, may), Record(beside(usage))
    overtake(lambda: others.take(answer("1")))
    assert mine.take(answer("1", at="21T08:00:01")) == Taken("unchanged", dated(21))
    overtake(lambda: others.take(answer("2", at="22T08:00")))
    assert mine.take(answer("3", at="22T08:00:01")) == Taken("revised", dated(22, "080001"))


def test_of_two_with_the_same_document_at_the_same_instant_one_says_that_it_is_his(
    usage: ContainerClient, record: Record, overtake: Callable[[Callable[[], object]], None]
) -> None:
    other, said = Record(beside(usage)), list[Taken]()
    overtake(lambda: said.append(other.take(answer("1"))))
    assert record.take(answer("1")) == Taken("unchanged", dated(21))
    overtake(lambda: said.append(other.take(answer("2", at="21T09:00"))))
    assert record.take(answer("2", at="21T09:00")) == Taken("unchanged", dated(21, "090000"))
    assert said == [Taken("taken", dated(21)), Taken("revised", dated(21, "090000"))]


def test_whoever_lost_the_answer_to_a_write_knows_what_is_his(
    usage: ContainerClient, proxy: StorageProxy
) -> None:
    connection = StorageConnection(proxy.connection_string)
    record = Record(Container(usage.container_name, connection, PATIENT, None))
    usage.create_container()
    for total, at, taken in [
        ("1", "21T08:00", Taken("taken", dated(21))),
        ("2", "21T09:00", Taken("revised", dated(21, "090000"))),
    ]:
        proxy.follow(failing_writes(Fault.LOSE, usage.container_name))
        assert record.take(answer(total, at=at)) == taken
    assert [(each.fault, each.answered) for each in proxy.requests if each.method == "PUT"] == [
        (Fault.LOSE, None),
        (Fault.NONE, 409),
    ] * 2


def test_who_is_overtaken_each_time_gives_up(record: Record) -> None:
    faster = "of 2026-11-21 could not be written: others were faster 5 times"
    with always_overtaken() as refused, pytest.raises(RecordError, match=faster):
        record.take(answer())
    assert refused == [dated(21)] * 5


def test_a_role_that_may_create_and_read_takes_snapshots(usage: ContainerClient) -> None:
    record = restricted(usage, "rcl")
    assert record.take(answer("1")) == Taken("taken", dated(21))
    assert record.take(answer("1", at="21T09:00")) == Taken("unchanged", dated(21))
    assert record.take(answer("2", at="21T10:00")) == Taken("revised", dated(21, "100000"))


def test_a_role_that_may_only_read_is_refused_with_a_hint(usage: ContainerClient) -> None:
    record = restricted(usage, "rl")
    with pytest.raises(StorageRefusedError) as refused:
        record.take(answer())
    assert "Storage Blob Data Contributor" in (refused.value.hint or "")
    assert not etags(usage)


def test_names_are_those_of_snapshots_in_the_order_in_which_they_were_written(
    usage: ContainerClient, record: Record
) -> None:
    assert record.names() == []
    names = [dated(9), dated(20, "000000"), dated(20, "235959"), dated(21), dated(21, "080000")]
    others = [
        "usagesummary/v1/readme.txt",
        "usagesummary/v2/2026/11/21/usagesummary.json",
        f"{dated(21)}.bak",
    ]
    usage.create_container()
    for name in names[::-1] + others:
        usage.upload_blob(name, b"{}")
    assert [each.name for each in record.names()] == names
    assert [each.name for each in record.names("usagesummary/v1/2026/11/20/")] == names[1:3]


def test_many_snapshots_are_read_in_the_order_asked_for(record: Record) -> None:
    for minute in range(40):
        record.take(answer(str(minute), at=f"21T08:{minute:02}"))
    names = record.names()[::-1]
    found = list(record.read(names))
    assert [each.name for each in found] == names
    assert [each.row and each.row["fetchedAt"] for each in found] == [
        f"2026-11-21T08:{minute:02}:00Z" for minute in reversed(range(40))
    ]


def test_what_cannot_be_read_is_found_with_the_reason(usage: ContainerClient, record: Record) -> None:
    for day in (16, 17, 18, 19, 20, 21):
        record.take(answer(at=f"{day}T08:00"))
    names = record.names()
    usage.get_blob_client(dated(16)).set_standard_blob_tier("Archive")
    usage.upload_blob(dated(17), b"", overwrite=True)
    usage.delete_blob(dated(18))
    usage.upload_blob(dated(19), b"garbage", overwrite=True)
    usage.get_blob_client(dated(20)).set_http_headers(ContentSettings(content_md5=bytearray(16)))
    assert [each.damage for each in record.read(names)] == [
        f"it cannot be read. {hint('BlobArchived')}",
        "it is no JSON object in UTF-8",
        "it is gone",
        "it is no JSON object in UTF-8",
        "its MD5 is another",
        "",
    ]
    assert [each.row is None for each in record.read(names)] == [True] * 5 + [False]
    assert [record.content(name) for name in names] == [None] * 5 + [read(usage, dated(21))]


@pytest.mark.parametrize("fault", [Fault.NO_KEY, Fault.ERROR_500, Fault.ERROR_503, Fault.DROP])
def test_an_error_that_strikes_other_blobs_too_is_no_damage_of_one(
    usage: ContainerClient, record: Record, proxy: StorageProxy, fault: Fault
) -> None:
    record.take(answer())
    behind = Record(
        Container(usage.container_name, StorageConnection(proxy.connection_string), PATIENT, None)
    )
    names = record.names()
    proxy.follow(lambda request, _: fault if request.blob else Fault.NONE)
    with pytest.raises(StorageError):
        list(behind.read(names))
    with pytest.raises(StorageError):
        behind.content(names[0])


def test_names_that_are_no_snapshots_are_those_that_are_ignored_in_the_whole_container(
    usage: ContainerClient, record: Record
) -> None:
    assert record.ignored() == []
    record.take(answer())
    odd = (Path(__file__).parent / "field" / "record" / "odd-names.txt").read_text(encoding="utf-8").split()
    for name in odd:
        usage.upload_blob(name, b"{}")
    *ignored, future = odd
    assert record.ignored() == sorted(ignored)
    assert [each.name for each in record.names()] == [dated(21), future]


def test_a_snapshot_without_an_md5_is_read(usage: ContainerClient, record: Record) -> None:
    record.take(answer())
    usage.get_blob_client(dated(21)).set_http_headers(ContentSettings(content_md5=None))
    (name,), blob = record.names(), beside(usage).read(dated(21)).blob
    assert blob is not None
    assert (blob.md5, record.content(name)) == (None, blob.content)
