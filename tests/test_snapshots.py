"""The dated blobs' names and documents: what is made, what is news, and what is refused when read back."""

import json
import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import snapshots
from shared.snapshots import DamagedError, SnapshotName
from shared.usage_summary import dump, parse, read_usage_summary

FETCHED_AT = datetime(2026, 11, 21, 0, 5, 2, 987_654, tzinfo=UTC)
DAY = FETCHED_AT.date()
FIRST = "usagesummary/v1/2026/11/21/usagesummary.json"
REVISED = "usagesummary/v1/2026/11/21/usagesummary.143000Z.json"
REQUEST_ID = "0f8fad5b-d9cb-469f-a165-70867728950e"
CORRELATION_ID = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
BODY = (
    '{"resourceId":"5b0c","id":"x","resourceName":"Ærø","customersOverBudget":2,"customersTrendingOver":5,'
    '"customersWithUsageBasedSubscription":37,"emailsToNotify":["canary@personal.example"],'
    '"billingStartDate":"2026-10-28T00:00:00-07:00","billingEndDate":"2026-11-27T00:00:00-08:00",'
    '"totalCost":120.5682999999995904716,"currencyLocale":"da-DK","currencyCode":"DKK",'
    '"lastModifiedDate":"2026-11-20T22:41:07.1934527+00:00","links":{"self":{"uri":"/usagesummary"}},'
    '"attributes":{"etag":"\\"d4f1\\"","objectType":"PartnerUsageSummary"}}'
).encode()
SECOND = timedelta(seconds=1)


def name_of(name: str) -> SnapshotName:
    found = snapshots.parse_name(name)
    assert found is not None
    return found


def taken(fetched_at: datetime = FETCHED_AT, body: bytes = BODY) -> bytes:
    return snapshots.snapshot(read_usage_summary(body).members, fetched_at, REQUEST_ID, CORRELATION_ID)


def test_a_snapshot_has_its_promised_members_in_order() -> None:
    content = taken()
    document = json.loads(content)
    assert list(document.items())[:5] == [
        ("schemaVersion", 1),
        ("snapshotDate", "2026-11-21"),
        ("fetchedAt", "2026-11-21T00:05:02Z"),
        ("requestId", REQUEST_ID),
        ("correlationId", CORRELATION_ID),
    ]
    expected = json.loads(BODY)
    del expected["emailsToNotify"]
    assert list(document) == [*list(document)[:5], "usageSummary"]
    assert document["usageSummary"] == expected
    assert b"120.5682999999995904716" in content


def test_whom_to_notify_is_in_no_snapshot() -> None:
    nested = b'{"totalCost":1,"currencyCode":"DKK","a":[{"EMAILSTONOTIFY":["canary@personal.example"]}]}'
    for body in (BODY, nested):
        content = taken(body=body)
        assert b"canary" not in content
        assert b"emailstonotify" not in content.lower()


def test_a_blob_is_named_by_its_day_and_a_later_one_by_its_time_too() -> None:
    assert snapshots.first_name(DAY) == FIRST
    assert snapshots.revision_name(FETCHED_AT.replace(hour=14, minute=30, second=0)) == REVISED
    assert FIRST.startswith(snapshots.day_prefix(DAY))
    names = [snapshots.first_name(DAY + timedelta(days=1)), REVISED, REVISED.replace("1430", "0930"), FIRST]
    in_order = sorted(map(name_of, names))
    assert [each.name for each in in_order] == names[::-1]


@given(st.datetimes(datetime(2000, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001  # the strategy adds the zone
def test_a_name_is_read_back_as_it_was_made(instant: datetime) -> None:
    first, later = snapshots.first_name(instant.date()), snapshots.revision_name(instant)
    assert name_of(first) == SnapshotName(instant.date(), "", first)
    assert name_of(later) == SnapshotName(instant.date(), f"{instant:%H%M%S}", later)


@pytest.mark.parametrize("day", ["2026/11/31", "0000/01/01", "٢٠٢٦/11/21", "2026/1/1", "2026"])
def test_what_is_below_no_day_is_no_snapshot(day: str) -> None:
    assert snapshots.parse_name(FIRST.replace("2026/11/21", day)) is None


@pytest.mark.parametrize(
    "file",
    [
        "",
        "usagesummary.1430Z.json",
        "usagesummary.Z.json",
        "a.json",
        "usagesummary.json\n",
        *(f"usagesummary.{time}Z.json" for time in ("240000", "236000", "235960", "999999", "٢٢٢٢٢٢")),
    ],
)
def test_another_file_of_a_day_is_no_snapshot(file: str) -> None:
    assert snapshots.parse_name(snapshots.day_prefix(DAY) + file) is None


def test_the_same_document_in_another_form_is_no_news() -> None:
    later = dump(parse(taken(FETCHED_AT + SECOND)), indent=2)
    assert not snapshots.is_news(later, taken())


def test_the_resources_etag_alone_is_no_news() -> None:
    later = FETCHED_AT + SECOND
    another = BODY.replace(b"d4f1", b"d4f2")
    none = BODY.replace(b'"etag":"\\"d4f1\\"",', b"")
    assert len({BODY, another, none}) == 3
    for body in (another, none):
        assert not snapshots.is_news(taken(later, body), taken())


CHANGES = {
    "another digit": (b"904716", b"904717"),
    "a zero more": (b"904716", b"9047160"),
    "another name": ("Ærø".encode(), b"Fur"),
    "a member less": (b'"currencyCode":"DKK",', b""),
    "a member more": (b'"totalCost"', b'"new":null,"totalCost"'),
    "null": (b'"DKK"', b"null"),
    "another attribute": (b'"objectType":', b'"a":1,"objectType":'),
    "no attributes": (b',"attributes":{"etag":"\\"d4f1\\"","objectType":"PartnerUsageSummary"}', b""),
    "an etag elsewhere": (b'"links":{', b'"links":{"etag":"1",'),
}


@pytest.mark.parametrize("change", CHANGES)
def test_any_other_change_is_news(change: str) -> None:
    changed = BODY.replace(*CHANGES[change])
    assert changed != BODY
    assert snapshots.is_news(taken(FETCHED_AT + SECOND, changed), taken())


def test_what_was_not_fetched_later_is_no_news() -> None:
    changed = BODY.replace(b"904716", b"904717")
    for earlier in (timedelta(), SECOND, timedelta(minutes=5)):
        assert not snapshots.is_news(taken(FETCHED_AT - earlier, changed), taken())


def test_after_a_damaged_snapshot_anything_is_news() -> None:
    for damaged in (b"", b"garbage", b"[1]", b"\xff", b"[" * 100_000, taken()[:-9]):
        assert snapshots.is_news(taken(), damaged)
    for member in (b"fetchedAt", b"usageSummary"):
        assert snapshots.is_news(taken(), taken().replace(member, b"somethingElse"))


def test_a_snapshot_is_read_as_the_instant_and_the_members() -> None:
    fetched_at, members = snapshots.read_snapshot(name_of(FIRST), taken())
    assert fetched_at == "2026-11-21T00:05:02Z"
    assert dump(members) == dump(read_usage_summary(BODY).members)


NO_OBJECTS = {
    "nothing": b"",
    "garbage": b"garbage",
    "a list": b"[1]",
    "null": b"null",
    "no UTF-8": b'{"a":"\xff"}',
    "cut off": taken()[:-9],
    "with a constant that is not JSON's": taken().replace(b":37", b":NaN"),
    "too deep": b"[" * 100_000,
}


def test_an_instant_is_told_in_utc_wherever_the_machine_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert snapshots.instant_text(datetime(2026, 11, 21, 8, tzinfo=UTC)) == "2026-11-21T08:00:00Z"
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("content", NO_OBJECTS.values(), ids=NO_OBJECTS)
def test_what_is_no_json_object_is_no_snapshot(content: bytes) -> None:
    with pytest.raises(DamagedError, match=r"^it is no JSON object in UTF-8$"):
        snapshots.read_snapshot(name_of(FIRST), content)


WHOM = '"emailsToNotify":["canary@personal.example"],'


@pytest.mark.parametrize("place", ['"id":"x"', '"self"', '"uri"', '"objectType"', '"schemaVersion"'])
@pytest.mark.parametrize(
    "whom",
    [
        WHOM,
        WHOM.upper(),
        WHOM.lower(),
        WHOM.replace(":", "\n\t: "),
        WHOM.replace("T", "\\u0054"),
        '"EmailsToNotify":null,',
    ],
)
def test_what_others_brought_in_with_whom_to_notify_is_no_snapshot(place: str, whom: str) -> None:
    content = taken().replace(place.encode(), f"{whom}{place}".encode(), 1)
    assert content != taken()
    with pytest.raises(DamagedError, match=r"^it holds personal data, emailsToNotify$"):
        snapshots.read_snapshot(name_of(FIRST), content)


def test_digits_beyond_what_python_reads_as_a_number_are_recorded() -> None:
    body = b'{"totalCost":1,"counter":%s}' % (b"9" * 5000)
    _, members = snapshots.read_snapshot(name_of(FIRST), taken(body=body))
    assert dump(members) == body


def test_a_name_that_speaks_of_whom_to_notify_is_no_damage() -> None:
    name = '"emailsToNotify": [], emailsToNotify'
    body = dump(read_usage_summary(BODY).members | {"resourceName": name, "id": "emailsToNotify"})
    _, members = snapshots.read_snapshot(name_of(FIRST), taken(body=body))
    assert (members["resourceName"], members["id"]) == (name, "emailsToNotify")


VERSION, DATE = "its schemaVersion is not 1", "its snapshotDate is not the date in its name"
INSTANT = "its fetchedAt is no instant of that day, in UTC and whole seconds"
COST = "its usageSummary has no finite number totalCost"
INSTANTS = [
    *("2026-11-20T23:59:59Z", "2026-11-22T00:00:00Z", "2026-11-21T00:05:02", "2026-11-21T00:05:02+00:00"),
    *("2026-11-21T01:05:02+01:00", "2026-11-21T00:05:02.5Z", "2026-11-21T00:05Z", "2026-11-21 00:05:02Z"),
    *("2026-11-21T00:05:61Z", "2026-11-21T00:05:02z", "2026-11-21", "20261121T000502Z", "soon", ""),
    *("9999-12-31T23:59:59-01:00", "0001-01-01T00:00:00+14:00"),
]
DAMAGES = [
    *((VERSION, '"schemaVersion":1', f'"schemaVersion":{text}') for text in ("2", '"1"', "1.0", "true")),
    (VERSION, "schemaVersion", "version"),
    *((DATE, '"2026-11-21",', text) for text in ('"2026-11-22",', '"2026-11-21T00:00:00Z",', "20261121,")),
    (DATE, "snapshotDate", "date"),
    *((INSTANT, '"2026-11-21T00:05:02Z"', f'"{text}"') for text in INSTANTS),
    (INSTANT, '"2026-11-21T00:05:02Z"', "1795219502"),
    (INSTANT, "fetchedAt", "at"),
    *((COST, "120.5682999999995904716", text) for text in ('"1"', "1e999", "null", "true", "[1]")),
    (COST, "totalCost", "total"),
    (COST, "usageSummary", "summary"),
]


@pytest.mark.parametrize(("reason", "before", "after"), DAMAGES)
def test_what_is_no_snapshot_of_its_day_is_refused_with_the_reason(
    reason: str, before: str, after: str
) -> None:
    damaged = taken().replace(before.encode(), after.encode())
    assert damaged != taken()
    with pytest.raises(DamagedError) as refused:
        snapshots.read_snapshot(name_of(FIRST), damaged)
    assert str(refused.value) == reason
