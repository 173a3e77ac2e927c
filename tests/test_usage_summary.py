"""What a usage summary is: its rules, its digits, and the personal data that is not recorded."""

import json
from bisect import bisect_left
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simplejson import RawJSON

from shared.errors import UpstreamInvalidError
from shared.rows import row_of
from shared.snapshots import SnapshotName, snapshot
from shared.usage_summary import SIZE_LIMIT, Json, dump, parse, read_usage_summary

BOM = b"\xef\xbb\xbf"
CANARY = "canary@personal.example"
NUMBERS = [
    "0",
    "-0",
    "1.0",
    "1e5",
    "1E+05",
    "22.861172",
    "120.5682999999995904716",
    "-0.10",
    "123456789012345678901234567890",
    "0.1000000000000000055511151231257827",
    "0." + "9" * 5000,
]

digits = st.text("0123456789", min_size=1, max_size=40)
integers = st.just("0") | st.tuples(st.sampled_from("123456789"), digits).map("".join)
fractions = st.just("") | digits.map(".{}".format)
exponents = st.just("") | st.builds(
    "{}{}{:02}".format, *map(st.sampled_from, ("eE", ["", "+", "-"], [0, 7, 250]))
)
numbers = st.builds("{}{}{}{}".format, st.sampled_from(["", "-"]), integers, fractions, exponents)
texts = st.text(st.characters(codec="utf-8"), max_size=20)
names = texts.filter(lambda name: name.casefold() != "emailstonotify")  # Hypothesis reads the source as well
documents: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | texts | numbers.map(RawJSON),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
)


def with_total(number: str) -> bytes:
    return f'{{"totalCost":{number}}}'.encode()


@pytest.mark.parametrize("number", NUMBERS)
def test_a_number_keeps_its_digits(number: str) -> None:
    summary = read_usage_summary(with_total(number))
    assert summary.body == with_total(number)
    assert dump(summary.members) == with_total(number)


@given(numbers)
def test_any_number_survives_reading_and_writing(number: str) -> None:
    document = f'[{number},{{"a":{number}}}]'.encode()
    assert dump(parse(document)) == document


@given(documents)
def test_what_is_written_says_the_same_as_what_was_read(document: Json) -> None:
    written = dump([document])
    assert dump(parse(written)) == written
    indented = dump([document], indent=2)
    assert indented.startswith(b"[\n  ")
    assert indented.decode().isascii() is written.decode().isascii()
    assert json.loads(indented, parse_float=Decimal) == json.loads(written, parse_float=Decimal)


@pytest.mark.parametrize(
    "body",
    [
        with_total("1"),
        b' \r\n{ "totalCost" : 1 }\n',
        '{"totalCost":1,"resourceName":"Ærø · Северное · 北光 · نور 🏔"}'.encode(),
        b'{"totalCost":1,"attributes":{"objectType":"PartnerUsageSummary","etag":"x"}}',
        b'{"totalCost":1,"attributes":{}}',
        b'{"totalCost":1,"somethingNew":{"totalCost":"x","list":[null,true]}}',
        b'{"totalCost":1,"currencyLocale":null}',
    ],
)
def test_a_usage_summary_goes_to_callers_as_it_came_with_or_without_bom(body: bytes) -> None:
    assert read_usage_summary(body).body == body
    assert read_usage_summary(BOM + body).body == body


def test_missing_and_unknown_members_are_taken_as_they_are() -> None:
    members = read_usage_summary(b'{"totalCost":1,"somethingNew":[{"a":null}]}').members
    assert dump(members) == b'{"totalCost":1,"somethingNew":[{"a":null}]}'


NO_SUMMARIES = {
    "empty": b"",
    "only a byte-order mark": BOM,
    "no JSON": b"<html>Bad gateway</html>",
    "cut off": b'{"totalCost":1',
    "followed by something": b'{"totalCost":1}{}',
    "not UTF-8": b'{"totalCost":1,"name":"\xe6"}',
    "UTF-16": '{"totalCost":1}'.encode("utf-16"),
    "a list": b'[{"totalCost":1}]',
    "a number": b"1",
    "null": b"null",
    "no totalCost": b'{"customersOverBudget":1}',
    "another letter case": b'{"TotalCost":1}',
    "totalCost further down": b'{"a":{"totalCost":1}}',
    "totalCost null": with_total("null"),
    "totalCost a text": with_total('"22.86"'),
    "totalCost a boolean": with_total("true"),
    "totalCost a list": with_total("[1]"),
    "totalCost no number": with_total("NaN"),
    "totalCost infinite": with_total("Infinity"),
    "totalCost negative infinite": with_total("-Infinity"),
    "totalCost beyond all doubles": with_total("1e999"),
    "no number of JSON": with_total("01"),
    "digits of another script": with_total("\N{FULLWIDTH DIGIT ONE}"),
    "a signed number": with_total("+1"),
    "a constant elsewhere": b'{"totalCost":1,"a":NaN}',
    "another object": b'{"totalCost":1,"attributes":{"objectType":"CustomerUsageSummary"}}',
    "another object's letter case": b'{"totalCost":1,"attributes":{"objectType":"partnerusagesummary"}}',
    "an object of no type": b'{"totalCost":1,"attributes":{"objectType":7}}',
    "a control character": b'{"totalCost":1,"a":"\x01"}',
    "nested absurdly": b'{"totalCost":1,"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "a mark in mojibake": "ï»¿".encode() + with_total("1"),
}


@pytest.mark.parametrize("body", NO_SUMMARIES.values(), ids=NO_SUMMARIES)
def test_what_is_no_usage_summary_is_refused(body: bytes) -> None:
    with pytest.raises(UpstreamInvalidError):
        read_usage_summary(body)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (with_total("1").ljust(SIZE_LIMIT + 1), "the answer is larger than 1 MiB"),
        (b"[1]", "the answer is not a JSON object"),
        (b'{"totalCost":1', "the answer is not JSON in UTF-8"),
        (b"{}", "the answer has no finite number totalCost"),
        (
            b'{"totalCost":1,"attributes":{"objectType":"x"}}',
            "the answer's attributes.objectType is not PartnerUsageSummary",
        ),
    ],
)
def test_why_it_is_refused_is_said(body: bytes, reason: str) -> None:
    with pytest.raises(UpstreamInvalidError) as caught:
        read_usage_summary(body)
    assert caught.value.message == reason


def members_nested(depth: int, left: bytes, inmost: bytes, right: bytes) -> dict[str, Json] | None:
    """The members of a usage summary that nests so deeply; None where it is refused."""
    try:
        body = b'{"totalCost":1,"a":' + left * depth + inmost + right * depth + b"}"
        return read_usage_summary(body).members
    except UpstreamInvalidError:
        return None


@pytest.mark.parametrize("around", [(b"[", b"", b"]"), (b"[", b'{"a":1}', b"]"), (b'{"a":', b"1", b"}")])
def test_what_is_taken_can_be_recorded_however_deeply_it_nests(around: tuple[bytes, bytes, bytes]) -> None:
    depth = bisect_left(range(50_000), 1, key=lambda depth: members_nested(depth, *around) is None) - 5
    assert depth > 100
    while (members := members_nested(depth, *around)) is not None:  # bisect itself takes some of the depth
        depth += 1
        content = snapshot(members, datetime(2026, 11, 21, tzinfo=UTC), "", "")
        assert row_of(SnapshotName(date(2026, 11, 21), "", ""), content)


def test_no_second_byte_order_mark_reaches_callers() -> None:
    try:
        body = read_usage_summary(BOM + BOM + with_total("1")).body
    except UpstreamInvalidError:
        return
    assert body == with_total("1")


@pytest.mark.parametrize("mark", [b"", BOM])
def test_a_usage_summary_has_at_most_one_mebibyte(mark: bytes) -> None:
    assert SIZE_LIMIT == 1024 * 1024
    largest = with_total("1").ljust(SIZE_LIMIT)
    assert read_usage_summary(mark + largest).body == largest
    with pytest.raises(UpstreamInvalidError, match="1 MiB"):
        read_usage_summary(mark + largest + b" ")


@pytest.mark.parametrize(
    "name", ["emailsToNotify", "EmailsToNotify", "EMAILSTONOTIFY", r"\u0065mailsToNotify"]
)
@pytest.mark.parametrize(
    "document",
    [
        '{{"totalCost":1,"{name}":["{canary}"]}}',
        '{{"{name}":"{canary}","totalCost":1,"{name}":{{"a":"{canary}"}}}}',
        '{{"totalCost":1,"a":[{{"b":{{"{name}":["{canary}"],"c":1}}}}]}}',
        '{{"totalCost":1,"attributes":{{"objectType":"PartnerUsageSummary","{name}":null}}}}',
    ],
)
def test_whom_to_notify_is_never_among_the_members(name: str, document: str) -> None:
    body = document.format(name=name, canary=CANARY).encode()
    summary = read_usage_summary(body)
    assert summary.body == body
    recorded = dump(summary.members).decode()
    assert "emailstonotify" not in recorded.lower()
    assert CANARY not in recorded
    assert CANARY not in repr(summary)


@pytest.mark.parametrize("body", [CANARY.encode(), f'{{"totalCost":"{CANARY}"}}'.encode()])
def test_an_error_holds_nothing_of_the_body(body: bytes) -> None:
    with pytest.raises(UpstreamInvalidError) as caught:
        read_usage_summary(body)
    assert CANARY not in f"{caught.value!r} {caught.value} {caught.value.__cause__!r}"


@given(st.binary(max_size=60) | documents.map(lambda document: dump([document])))
def test_any_bytes_are_a_usage_summary_or_refused(body: bytes) -> None:
    try:
        summary = read_usage_summary(body)
    except UpstreamInvalidError:
        return
    assert "totalCost" in summary.members


@given(st.dictionaries(names, documents, max_size=5), numbers)
def test_any_object_with_a_total_cost_goes_through_byte_for_byte(
    others: dict[str, Json], number: str
) -> None:
    others.pop("attributes", None)
    body = dump(others | {"totalCost": RawJSON(number)})
    assert read_usage_summary(BOM + body).body == body


def test_half_a_surrogate_pair_is_indented_as_all_is() -> None:
    assert dump({"a": "\ud800"}, indent=2) == b'{\n  "a": "\\ud800"\n}'


def test_half_a_surrogate_pair_is_recorded_as_it_came() -> None:
    body = b'{"totalCost":1.0,"resourceName":"\\ud800 \\u00e6"}'
    summary = read_usage_summary(body)
    assert summary.body == body
    assert dump(summary.members) == body
