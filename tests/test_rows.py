"""The history's rows: what is made of a snapshot, the history in both forms, its gaps and its manifest."""

import base64
import csv
import hashlib
import io
import json
import random
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simplejson import RawJSON

from shared import rows, snapshots
from shared.rows import COLUMNS, Row, Rows
from shared.snapshots import DamagedError
from shared.usage_summary import Json, dump, read_usage_summary
from tests.test_snapshots import BODY, CORRELATION_ID, DAY, FIRST, REQUEST_ID, REVISED, name_of, taken


def row(day: date = DAY, revision: str = "", **members: Json) -> Row:
    """The row of a snapshot of a day; a revision is a time such as 143000."""
    at = datetime.strptime(f"{day} {revision or '000502'} +0000", "%Y-%m-%d %H%M%S %z")
    name = snapshots.revision_name(at) if revision else snapshots.first_name(day)
    document = read_usage_summary(BODY).members | members
    return rows.row_of(name_of(name), snapshots.snapshot(document, at, REQUEST_ID, CORRELATION_ID))


def history(made: Iterable[Row]) -> list[Row]:
    """One row a key, the last of each, in the order of keys."""
    by_key: Rows = {rows.key_of(each): each for each in made}
    return [by_key[key] for key in sorted(by_key)]


def in_csv(made: list[Row]) -> list[dict[str, str]]:
    """The CSV as a spreadsheet reads it."""
    text = rows.csv_text(made).decode()
    header, *lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    assert tuple(header) == COLUMNS
    return [dict(zip(header, line, strict=True)) for line in lines]


def same(made: list[Row], others: list[Row]) -> bool:
    """Whether rows say the same with the same digits."""
    return list(map(dump, made)) == list(map(dump, others))


def test_a_row_has_the_promised_columns_in_order() -> None:
    assert dump(row()).decode() == (
        '{"snapshotDate":"2026-11-21","fetchedAt":"2026-11-21T00:05:02Z","billingStartDate":"2026-10-28",'
        '"billingEndDate":"2026-11-27","totalCost":120.5682999999995904716,"currencyCode":"DKK",'
        '"currencyLocale":"da-DK","customersOverBudget":2,"customersTrendingOver":5,'
        '"customersWithUsageBasedSubscription":37,"lastModifiedDate":"2026-11-20T22:41:07.1934527+00:00",'
        f'"resourceId":"5b0c","resourceName":"Ærø","schemaVersion":1,"sourceBlob":"{FIRST}"}}'
    )


def test_a_line_of_csv_ends_with_a_line_feed_alone() -> None:
    header, line = rows.csv_text([row()]).decode().splitlines(keepends=True)
    assert header == ",".join(COLUMNS) + "\n"
    assert line.endswith(f",1,{FIRST}\n")
    assert "\r" not in line


def test_what_is_no_snapshot_makes_no_row() -> None:
    with pytest.raises(DamagedError, match="schemaVersion"):
        rows.row_of(name_of(FIRST), b"{}")


def test_whom_to_notify_is_in_neither_form() -> None:
    nested = b'{"totalCost":1,"currencyCode":"DKK","a":[{"EMAILSTONOTIFY":["canary@personal.example"]}]}'
    for body in (BODY, nested):
        made = [rows.row_of(name_of(FIRST), taken(body=body))]
        for document in (rows.ndjson(made), rows.csv_text(made)):
            assert b"canary" not in document
            assert b"emailstonotify" not in document.lower()


@pytest.mark.parametrize(
    "number", ["120.5682999999995904716", "1.0", "1e5", "-0", "123456789012345678901234567890"]
)
def test_a_number_keeps_its_digits_all_the_way(number: str) -> None:
    one = row(totalCost=RawJSON(number), customersOverBudget=RawJSON(number))
    assert f'"totalCost":{number},'.encode() in rows.ndjson([one])
    assert same(rows.parse_ndjson(rows.ndjson([one])), [one])
    assert [in_csv([one])[0][column] for column in ("totalCost", "customersOverBudget")] == [number] * 2


def test_a_credit_is_a_line_of_csv_with_each_character_that_came() -> None:
    """A spreadsheet takes the name for a formula; a CSV is for programs, so no cell changes for its sake."""
    body = (Path(__file__).parent / "field" / "partner-center" / "summary-credit.json").read_bytes()
    one = rows.row_of(name_of(FIRST), taken(body=body))
    assert rows.csv_text([one]).decode().splitlines()[1] == (
        "2026-11-21,2026-11-21T00:05:02Z,2026-10-28,2026-11-27,-12.1100000000000000003,,fr-FR,0,0,11,"
        "2026-11-08T23:04:41.1930000+00:00,5b0c4c8e-7a0d-4a44-9f2e-0d8b5a1f7a10,=1+1 Société Été 東京,1,"
        f"{FIRST}"
    )
    line = rows.ndjson([one]).decode()
    assert '"totalCost":-12.1100000000000000003,' in line
    assert '"resourceName":"=1+1 Société Été 東京",' in line


def test_a_row_is_the_same_digit_by_digit_and_is_not_one_that_is_not_there() -> None:
    one, (read_back,) = row(), rows.parse_ndjson(rows.ndjson([row()]))
    assert rows.is_same(one, one)
    assert one["totalCost"] != read_back["totalCost"]  # numbers know no equality
    assert rows.is_same(one, read_back)
    assert not rows.is_same(row(totalCost=RawJSON("1.0")), row(totalCost=RawJSON("1.00")))
    assert not rows.is_same(one, row(revision="143000"))
    assert not rows.is_same(None, one)


def test_what_a_document_lacks_is_null_and_what_is_new_is_left_out() -> None:
    body = b'{"totalCost":1,"new":2,"sourceBlob":"x","fetchedAt":3}'
    one = rows.row_of(name_of(FIRST), taken(body=body))
    known = {"snapshotDate", "fetchedAt", "totalCost", "schemaVersion", "sourceBlob"}
    assert tuple(one) == COLUMNS
    assert {column for column, value in one.items() if value is None} == set(COLUMNS) - known
    assert (one["sourceBlob"], one["fetchedAt"]) == (FIRST, "2026-11-21T00:05:02Z")
    assert b'"currencyCode":null' in rows.ndjson([one])
    assert {column for column, text in in_csv([one])[0].items() if text == ""} == set(COLUMNS) - known


def test_what_is_no_scalar_is_null() -> None:
    one = row(currencyCode={"code": "DKK"}, resourceName=["Ærø"])
    assert (one["currencyCode"], one["resourceName"]) == (None, None)


@pytest.mark.parametrize(
    "text",
    ["2026-10-28", "2026-10-28T00:00:00-07:00", "2026-10-28T23:59:59.9999999+14:00", "2026-10-28T00:00:00Z"],
)
def test_a_billing_date_is_the_date_as_written(text: str) -> None:
    one = row(billingStartDate=text, billingEndDate=text)
    assert (one["billingStartDate"], one["billingEndDate"]) == ("2026-10-28", "2026-10-28")


@pytest.mark.parametrize("value", ["28-10-2026", "soon", "", RawJSON("20261028"), True, None])
def test_what_is_no_billing_date_is_null(value: Json) -> None:
    one = row(billingStartDate=value)
    assert one["billingStartDate"] is None
    assert rows.key_of(one) == ("2026-11-21", "")


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
    made = [row(resourceName=name), row(DAY + timedelta(days=1))]
    lines = rows.ndjson(made).split(b"\n")[:-1]
    assert [json.loads(line)["resourceName"] for line in lines] == [name, "Ærø"]
    assert [each["resourceName"] for each in in_csv(made)] == [name, "Ærø"]
    assert same(rows.parse_ndjson(rows.ndjson(made)), made)


def test_half_a_surrogate_pair_does_not_stop_the_history() -> None:
    made = [row(resourceName="\ud83c")]
    assert same(rows.parse_ndjson(rows.ndjson(made)), made)
    assert in_csv(made)[0]["resourceName"] == "?"


def test_on_the_day_a_period_ends_there_are_two_rows() -> None:
    old, new = "2026-10-28T00:00:00-07:00", "2026-11-28T00:00:00-08:00"
    day = date(2026, 11, 28)
    made = [
        row(day, "", billingStartDate=old, totalCost=RawJSON("1")),
        row(day, "060000", billingStartDate=old, totalCost=RawJSON("2")),
        row(day, "070000", billingStartDate=new, totalCost=RawJSON("3")),
        row(day, "080000", billingStartDate=new, totalCost=RawJSON("4")),
        row(day + timedelta(days=1), "", billingStartDate=new, totalCost=RawJSON("5")),
    ]
    assert [rows.key_of(each) for each in history(made)] == [
        ("2026-11-28", "2026-10-28"),
        ("2026-11-28", "2026-11-28"),
        ("2026-11-29", "2026-11-28"),
    ]
    assert len(in_csv(rows.parse_ndjson(rows.ndjson(history(made))))) == 3


days = st.integers(0, 60).map(lambda number: date(2026, 12, 1) + timedelta(days=number))
starts = st.none() | st.sampled_from(["2026-10-28T00:00:00-07:00", "2026-11-28T00:00:00-08:00"])
texts = st.none() | st.text(st.characters(codec="utf-8"), max_size=20)
costs = st.decimals(-(10**12), 10**12, places=20).map("{:f}".format).map(RawJSON)
histories = st.lists(
    st.builds(row, days, billingStartDate=starts, resourceName=texts, currencyCode=texts, totalCost=costs),
    max_size=6,
).map(history)


@given(histories, st.randoms())
def test_a_history_is_the_same_bytes_whatever_the_order_and_is_read_back(
    made: list[Row], order: random.Random
) -> None:
    content, shuffled = rows.ndjson(made), list(made)
    order.shuffle(shuffled)
    read_back = rows.parse_ndjson(content)
    assert same(read_back, made)
    assert all(map(rows.is_same, read_back, made))
    assert rows.ndjson(history(shuffled)) == content
    assert [each["resourceName"] for each in in_csv(made)] == [each["resourceName"] or "" for each in made]


ROWS = [row(DAY + timedelta(days=number)) for number in range(3)]
LINES = rows.ndjson(ROWS).splitlines(keepends=True)
NO_HISTORIES = {
    "cut off": b"".join(LINES)[:-20],
    "without its last line end": b"".join(LINES)[:-1],
    "out of order": LINES[1] + LINES[0],
    "a line twice": LINES[0] * 2,
    "other line ends": b"".join(LINES).replace(b"\n", b"\r\n"),
    "an empty line": LINES[0] + b"\n" + LINES[1],
    "with a byte-order mark": b"\xef\xbb\xbf" + LINES[0],
    "with blanks": LINES[0].replace(b":", b": "),
    "no Unicode": LINES[0].replace(b"DKK", b"\xff"),
    "a list": b"[]\n",
    "too deep": b"[" * 100_000,
    "a member less": LINES[0].replace(b'"currencyCode":"DKK",', b""),
    "a member more": LINES[0].replace(b"{", b'{"a":1,', 1),
    "of another day": LINES[0].replace(b'"snapshotDate":"2026-11-21"', b'"snapshotDate":"2026-11-22"'),
    "of no day": LINES[0].replace(b'"snapshotDate":"2026-11-21"', b'"snapshotDate":"2026-11-31"'),
    "of no snapshot": LINES[0].replace(b"usagesummary.json", b"else.json"),
}


@pytest.mark.parametrize("content", NO_HISTORIES.values(), ids=NO_HISTORIES)
def test_a_damaged_history_is_refused(content: bytes) -> None:
    with pytest.raises(DamagedError):
        rows.parse_ndjson(content)


@pytest.mark.parametrize("content", [NO_HISTORIES["a member less"], NO_HISTORIES["out of order"]])
def test_why_a_history_is_refused_is_said(content: bytes) -> None:
    with pytest.raises(DamagedError) as refused:
        rows.parse_ndjson(content)
    assert str(refused.value) == "it is not as a run writes it"


EDITED = {
    "without its last line end": b"".join(LINES)[:-1],
    "out of order": b"".join(reversed(LINES)),
    "a line twice": b"".join(LINES) + LINES[0],
    "other line ends": b"".join(LINES).replace(b"\n", b"\r\n"),
    "empty lines": b"\n \n".join(LINES) + b"\n",
    "with a byte-order mark": b"\xef\xbb\xbf" + b"".join(LINES),
    "with blanks": b"".join(LINES).replace(b'":', b'": '),
}


@pytest.mark.parametrize("content", EDITED.values(), ids=EDITED)
def test_a_history_saved_in_an_editor_has_all_of_its_rows(content: bytes) -> None:
    found, lost = rows.read_ndjson(content)
    assert lost == 0
    assert same([*found.values()], ROWS)
    assert [*found] == [rows.key_of(each) for each in ROWS]


@pytest.mark.parametrize("damage", sorted({*NO_HISTORIES} - {*EDITED, "an empty line"}))
def test_a_line_that_is_no_row_costs_no_other(damage: str) -> None:
    line = LINES[0][:-20] if damage == "cut off" else NO_HISTORIES[damage].rstrip(b"\n")
    found, lost = rows.read_ndjson(LINES[1] + line + b"\n" + LINES[2])
    assert (same([*found.values()], ROWS[1:]), lost) == (True, 1)


@pytest.mark.parametrize("day", ["20261121", "2026-W47-6", None])
def test_a_line_whose_day_is_written_otherwise_is_no_row(day: str | None) -> None:
    assert rows.read_ndjson(rows.ndjson([ROWS[0] | {"snapshotDate": day}])) == ({}, 1)


def test_of_two_lines_of_one_key_the_later_snapshots_is_the_row() -> None:
    first, last = row(), row(revision="143000", totalCost=RawJSON("7"))
    for lines in ([first, last], [last, first]):
        found, lost = rows.read_ndjson(rows.ndjson(lines))
        assert (same([*found.values()], [last]), lost) == (True, 0)


def test_a_row_tells_its_day_and_its_snapshot() -> None:
    one = row(revision="143000")
    assert (rows.day_of(one), rows.source_of(one)) == (DAY, name_of(REVISED))
    for wrong in (row() | {"snapshotDate": "soon"}, row() | {"snapshotDate": None}):
        with pytest.raises(DamagedError):
            rows.day_of(wrong)
    with pytest.raises(DamagedError):
        rows.source_of(row() | {"sourceBlob": "latest.json"})


def test_missing_days_are_those_between_the_first_and_the_last() -> None:
    made = [row(date(2027, 12, 30)), row(date(2028, 1, 2)), row(date(2028, 2, 28)), row(date(2028, 3, 1))]
    missing = rows.missing_days(made)
    assert missing[:2] == [date(2027, 12, 31), date(2028, 1, 1)]
    assert missing[-1] == date(2028, 2, 29)
    assert len(missing) == (date(2028, 3, 1) - date(2027, 12, 30)).days + 1 - len(made)
    assert not rows.missing_days(made[:1])


def test_a_manifest_tells_what_the_history_holds() -> None:
    made = [ROWS[0], ROWS[2]]
    content = rows.ndjson(made)
    files = {"usagesummary.ndjson": (len(content), hashlib.md5(content, usedforsecurity=False).digest())}
    manifest = rows.manifest(made, files, "2026-11-23T00:05:03Z")
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
    assert manifest.startswith(b'{\n  "schemaVersion": 1,\n  "dataset": "usagesummary",\n')
    assert manifest.endswith(b"}\n  ]\n}\n")
    assert rows.manifest(made, files, "2026-11-23T00:05:03Z") == manifest
    one = json.loads(rows.manifest(made[:1], {}, None))
    assert (one["firstDate"], one["lastDate"], one["missingDates"]) == ("2026-11-21", "2026-11-21", [])
    assert rows.generated_at(manifest) == "2026-11-23T00:05:03Z"
    assert rows.last_date(manifest) == "2026-11-23"


@pytest.mark.parametrize("manifest", [b"", b"garbage", b"[1]", b"{}"])
def test_a_manifest_may_not_say_when_it_was_made_nor_how_far_it_goes(manifest: bytes) -> None:
    assert rows.generated_at(manifest) is None
    assert rows.last_date(manifest) is None
