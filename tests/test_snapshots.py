"""The record's documents: names, snapshots, rows, the history in both forms, and its manifest."""

import base64
import csv
import hashlib
import io
import json
import random
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simplejson import RawJSON

from shared import snapshots
from shared.snapshots import COLUMNS, Row, SnapshotName
from shared.usage_summary import Json, dump, parse, read_usage_summary

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
    '"lastModifiedDate":"2026-11-20T22:41:07.1934527+00:00","links":{"self":{"uri":"/usagesummary"}}}'
).encode()


def name_of(name: str) -> SnapshotName:
    found = snapshots.parse_name(name)
    assert found is not None
    return found


def taken(fetched_at: datetime = FETCHED_AT, body: bytes = BODY) -> bytes:
    return snapshots.snapshot(read_usage_summary(body).members, fetched_at, REQUEST_ID, CORRELATION_ID)


def row(day: date = DAY, revision: str = "", **members: Json) -> Row:
    """The row of a snapshot of a day; a revision is a time such as 143000."""
    at = datetime.strptime(f"{day} {revision or '000502'} +0000", "%Y-%m-%d %H%M%S %z")
    name = snapshots.revision_name(at) if revision else snapshots.first_name(day)
    document = read_usage_summary(BODY).members | members
    return snapshots.row_of(name_of(name), snapshots.snapshot(document, at, REQUEST_ID, CORRELATION_ID))


def in_csv(rows: list[Row]) -> list[dict[str, str]]:
    """The CSV as a spreadsheet reads it."""
    text = snapshots.csv_text(rows).decode()
    header, *lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    assert tuple(header) == COLUMNS
    return [dict(zip(header, line, strict=True)) for line in lines]


def same(rows: list[Row], others: list[Row]) -> bool:
    """Whether rows say the same with the same digits."""
    return list(map(dump, rows)) == list(map(dump, others))


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


def test_whom_to_notify_is_in_no_document_of_the_record() -> None:
    nested = b'{"totalCost":1,"currencyCode":"DKK","a":[{"EMAILSTONOTIFY":["canary@personal.example"]}]}'
    for body in (BODY, nested):
        content = taken(body=body)
        rows = [snapshots.row_of(name_of(FIRST), content)]
        for document in (content, snapshots.ndjson(rows), snapshots.csv_text(rows)):
            assert b"canary" not in document
            assert b"emailstonotify" not in document.lower()


@pytest.mark.parametrize(
    "number", ["120.5682999999995904716", "1.0", "1e5", "-0", "123456789012345678901234567890"]
)
def test_a_number_keeps_its_digits_all_the_way(number: str) -> None:
    one = row(totalCost=RawJSON(number), customersOverBudget=RawJSON(number))
    assert f'"totalCost":{number},'.encode() in snapshots.ndjson([one])
    assert same(snapshots.parse_ndjson(snapshots.ndjson([one])), [one])
    assert [in_csv([one])[0][column] for column in ("totalCost", "customersOverBudget")] == [number] * 2


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
    "file", ["", "usagesummary.1430Z.json", "usagesummary.Z.json", "a.json", "usagesummary.json\n"]
)
def test_another_file_of_a_day_is_no_snapshot(file: str) -> None:
    assert snapshots.parse_name(snapshots.day_prefix(DAY) + file) is None


def test_a_row_has_the_promised_columns_in_order() -> None:
    assert dump(row()).decode() == (
        '{"snapshotDate":"2026-11-21","fetchedAt":"2026-11-21T00:05:02Z","billingStartDate":"2026-10-28",'
        '"billingEndDate":"2026-11-27","totalCost":120.5682999999995904716,"currencyCode":"DKK",'
        '"currencyLocale":"da-DK","customersOverBudget":2,"customersTrendingOver":5,'
        '"customersWithUsageBasedSubscription":37,"lastModifiedDate":"2026-11-20T22:41:07.1934527+00:00",'
        f'"resourceId":"5b0c","resourceName":"Ærø","schemaVersion":1,"sourceBlob":"{FIRST}"}}'
    )


def test_what_a_document_lacks_is_null_and_what_is_new_is_left_out() -> None:
    body = b'{"totalCost":1,"new":2,"sourceBlob":"x","fetchedAt":3}'
    one = snapshots.row_of(name_of(FIRST), taken(body=body))
    known = {"snapshotDate", "fetchedAt", "totalCost", "schemaVersion", "sourceBlob"}
    assert tuple(one) == COLUMNS
    assert {column for column, value in one.items() if value is None} == set(COLUMNS) - known
    assert (one["sourceBlob"], one["fetchedAt"]) == (FIRST, "2026-11-21T00:05:02Z")
    assert b'"currencyCode":null' in snapshots.ndjson([one])
    assert {column for column, text in in_csv([one])[0].items() if text == ""} == set(COLUMNS) - known


@pytest.mark.parametrize(
    "text",
    ["2026-10-28", "2026-10-28T00:00:00-07:00", "2026-10-28T23:59:59.9999999+14:00", "2026-10-28T00:00:00Z"],
)
def test_a_billing_date_is_the_date_as_written(text: str) -> None:
    one = row(billingStartDate=text, billingEndDate=text)
    assert (one["billingStartDate"], one["billingEndDate"]) == ("2026-10-28", "2026-10-28")


DAMAGED = {
    "cut off": taken()[:-9],
    "no object": b"[1]",
    "no members": b"{}",
    "another version": taken().replace(b'"schemaVersion":1', b'"schemaVersion":2'),
    "another day": taken(FETCHED_AT + timedelta(days=1)),
    "no document": taken().replace(b'"usageSummary"', b'"summary"'),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_what_is_no_snapshot_of_its_day_makes_no_row(content: bytes) -> None:
    with pytest.raises((ValueError, LookupError)):
        snapshots.row_of(name_of(FIRST), content)


NAMES = [
    "Ærø · Северное сияние · 北光雲端 · نور الشمال · 🏔",
    'of "quotes", and commas',
    '"',
    "'",
    ",",
    "a\tb\\n",
]
BREAKS = ["two\nlines", "a\rreturn", "both\r\n", "a line\u2028separator\u0085\x0b\x1c", " blanks "]


@pytest.mark.parametrize("name", NAMES + BREAKS)
def test_a_name_is_the_same_in_both_forms(name: str) -> None:
    rows = [row(resourceName=name), row(DAY + timedelta(days=1))]
    lines = snapshots.ndjson(rows).split(b"\n")[:-1]
    assert [json.loads(line)["resourceName"] for line in lines] == [name, "Ærø"]
    assert [each["resourceName"] for each in in_csv(rows)] == [name, "Ærø"]
    assert same(snapshots.parse_ndjson(snapshots.ndjson(rows)), rows)


def test_on_the_day_a_period_ends_there_are_two_rows_and_the_last_of_each_wins() -> None:
    old, new = "2026-10-28T00:00:00-07:00", "2026-11-28T00:00:00-08:00"
    day = date(2026, 11, 28)
    made = [
        row(day, "", billingStartDate=old, totalCost=RawJSON("1")),
        row(day, "060000", billingStartDate=old, totalCost=RawJSON("2")),
        row(day, "070000", billingStartDate=new, totalCost=RawJSON("3")),
        row(day, "080000", billingStartDate=new, totalCost=RawJSON("4")),
        row(day + timedelta(days=1), "", billingStartDate=new, totalCost=RawJSON("5")),
    ]
    expected = [made[1], made[3], made[4]]
    assert snapshots.merged([], made) == expected
    assert snapshots.merged(made[4:], made[:4]) == expected
    assert snapshots.merged([made[0], made[4]], made[1:4]) == expected
    assert len(in_csv(expected)) == 3


days = st.integers(0, 60).map(lambda number: date(2026, 12, 1) + timedelta(days=number))
starts = st.none() | st.sampled_from(["2026-10-28T00:00:00-07:00", "2026-11-28T00:00:00-08:00"])
texts = st.none() | st.text(st.characters(codec="utf-8"), max_size=20)
costs = st.decimals(-(10**12), 10**12, places=20).map("{:f}".format).map(RawJSON)
histories = st.lists(
    st.builds(row, days, billingStartDate=starts, resourceName=texts, currencyCode=texts, totalCost=costs),
    max_size=6,
).map(lambda rows: snapshots.merged(rows, ()))


@given(histories, st.randoms())
def test_a_history_is_the_same_bytes_whatever_the_order_and_is_read_back(
    rows: list[Row], order: random.Random
) -> None:
    content, shuffled = snapshots.ndjson(rows), list(rows)
    order.shuffle(shuffled)
    assert same(snapshots.parse_ndjson(content), rows)
    assert snapshots.ndjson(snapshots.merged((), shuffled)) == content
    keys = [(each["snapshotDate"], each["billingStartDate"] or "") for each in rows]
    assert keys == sorted(set(keys))
    assert [each["resourceName"] for each in in_csv(rows)] == [each["resourceName"] or "" for each in rows]


ROWS = [row(DAY + timedelta(days=number)) for number in range(3)]
LINES = snapshots.ndjson(ROWS).splitlines(keepends=True)
NO_HISTORIES = {
    "cut off": b"".join(LINES)[:-20],
    "without its last line end": b"".join(LINES)[:-1],
    "out of order": LINES[1] + LINES[0],
    "a line twice": LINES[0] * 2,
    "other line ends": b"".join(LINES).replace(b"\n", b"\r\n"),
    "with a byte-order mark": b"\xef\xbb\xbf" + LINES[0],
    "with blanks": LINES[0].replace(b":", b": "),
    "a list": b"[]\n",
    "a member less": LINES[0].replace(b'"currencyCode":"DKK",', b""),
    "a member more": LINES[0].replace(b"{", b'{"a":1,', 1),
    "of another day": LINES[0].replace(b'"snapshotDate":"2026-11-21"', b'"snapshotDate":"2026-11-22"'),
    "of no snapshot": LINES[0].replace(b"usagesummary.json", b"else.json"),
}


@pytest.mark.parametrize("content", NO_HISTORIES.values(), ids=NO_HISTORIES)
def test_a_damaged_history_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # any
        snapshots.parse_ndjson(content)


def test_missing_days_are_those_between_the_first_and_the_last() -> None:
    rows = [row(date(2027, 12, 30)), row(date(2028, 1, 2)), row(date(2028, 2, 28)), row(date(2028, 3, 1))]
    missing = snapshots.missing_days(rows)
    assert missing[:2] == [date(2027, 12, 31), date(2028, 1, 1)]
    assert missing[-1] == date(2028, 2, 29)
    assert len(missing) == (date(2028, 3, 1) - date(2027, 12, 30)).days + 1 - len(rows)
    assert not snapshots.missing_days(rows[:1])


def test_a_manifest_tells_what_the_history_holds() -> None:
    rows = [ROWS[0], ROWS[2]]
    content = snapshots.ndjson(rows)
    files = {"usagesummary.ndjson": (len(content), hashlib.md5(content, usedforsecurity=False).digest())}
    manifest = snapshots.manifest(rows, files, "2026-11-23T00:05:03Z")
    md5 = base64.b64encode(files["usagesummary.ndjson"][1]).decode()
    assert json.loads(manifest) == {
        "schemaVersion": 1,
        "dataset": "usagesummary",
        "generatedAt": "2026-11-23T00:05:03Z",
        "firstDate": "2026-11-21",
        "lastDate": "2026-11-23",
        "rows": 2,
        "missingDates": ["2026-11-22"],
        "files": [{"name": "usagesummary.ndjson", "size": len(content), "md5": md5}],
    }
    assert snapshots.manifest(rows, files, "2026-11-23T00:05:03Z") == manifest


def test_what_a_snapshot_says_is_the_same_however_it_is_written() -> None:
    at, document = snapshots.said_by(taken())
    later, other_form = snapshots.said_by(dump(parse(taken(FETCHED_AT + timedelta(hours=1))), indent=2))
    assert (at, later) == ("2026-11-21T00:05:02Z", "2026-11-21T01:05:02Z")
    assert document == other_form
    assert snapshots.said_by(taken(body=BODY.replace(b"904716", b"904717")))[1] != document
