"""Results as HTTP responses: headers, conditions, how an answer came about, and problems."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http import HTTPStatus
from typing import Any

import pytest
from httplint import HttpResponseLinter, levels
from hypothesis import given
from hypothesis import strategies as st

from shared.answers import Result
from shared.errors import (
    ConfigurationError,
    ConsentRequiredError,
    NotCachedError,
    UpstreamInvalidError,
    UpstreamRefusedError,
    UpstreamReply,
    UpstreamTimeoutError,
    UpstreamUnavailableError,
    UsageSummaryError,
)
from shared.freshness import Decision
from shared.held import Answer
from shared.http import Conditions, cache_status, is_listed, respond
from shared.outcome import Source
from shared.problems import PROBLEMS, Response

BODY = '{"totalCost":120.5682999999995904716,"resourceName":"Ærø · 北光"}'.encode()
REQUEST_ID = "0f8fad5b-d9cb-469f-a165-70867728950e"
CALLER = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
FETCHED_AT = datetime(2026, 11, 21, 8, tzinfo=UTC)
ANSWER = Answer(BODY, FETCHED_AT, REQUEST_ID, "1b4e28ba-2fa1-11d2-883f-0016d3cca427")
NO_DATA = Answer(b"", FETCHED_AT, REQUEST_ID, CALLER, UpstreamReply(404, "3000", REQUEST_ID))
HOUR = timedelta(hours=1)
CANARY = "canary-8Q~deadbeef"
BODYS_HEADERS = {"Content-Type", "Content-Length"}


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def served(age: timedelta = timedelta(), answer: Answer = ANSWER) -> Result:
    return Result(Decision.SERVE, answer=answer, age=age)


def failed(error: UsageSummaryError, retry_after: timedelta | None = None) -> Result:
    return Result(Decision.FETCH_MISSING, Source.FETCHED, error=error, retry_after=retry_after)


def complaints(status: int, headers: Mapping[str, str], body: bytes, *, is_head: bool) -> list[str]:
    """What REDbot's linter finds wrong with a response."""
    linter = HttpResponseLinter()
    linter.is_head_response = is_head
    linter.process_response_topline(b"HTTP/1.1", str(status).encode(), b"")
    linter.process_headers([(name.encode(), value.encode()) for name, value in headers.items()])
    linter.feed_content(body)
    linter.finish_content(complete=True)
    return [note.summary for note in linter.notes if note.level in {levels.BAD, levels.WARN}]


def get(
    result: Result, if_none_match: str | None = None, if_match: str | None = None, *, is_head: bool = False
) -> Response:
    return respond(result, CALLER, HOUR, Conditions(if_match, if_none_match), is_head=is_head)


def status_of(result: Result) -> str:
    """Cache-Status of an answer that is fresh for an hour."""
    return cache_status(result, (HOUR - result.age) // seconds(1))


def members(response: Response) -> dict[str, Any]:
    """A problem's, checked for what all problems have in common."""
    problem: dict[str, Any] = json.loads(response.body)
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["MS-CorrelationId"] == problem["correlationId"] == CALLER
    assert not {"ETag", "Age"} & response.headers.keys()
    assert problem["type"] == f"urn:usage-summary:problem:{problem['code']}"
    assert problem["status"] == response.status
    assert problem["title"]
    assert problem["detail"] == problem["description"] != ""
    assert None not in problem.values()
    return problem


def test_a_problem_says_what_the_operator_does_about_it() -> None:
    error = ConsentRequiredError("the log's words", hint="Run python3 -m ops consent.")
    detail = members(get(Result(Decision.FETCH_MISSING, error=error)))["detail"]
    assert detail.endswith("the app's log says why. Run python3 -m ops consent.")
    assert "the log's words" not in detail


def test_an_answer_has_exactly_the_promised_headers() -> None:
    response = get(served(seconds(12.9)))
    assert (response.status, response.body) == (HTTPStatus.OK, BODY)
    etag = response.headers.pop("ETag")
    assert etag.startswith('"')
    assert etag.endswith('"')
    assert response.headers == {
        "Content-Type": "application/json; charset=utf-8",
        "Cache-Control": "private, max-age=3600",
        "Age": "12",
        "Cache-Status": "usage-summary; hit; ttl=3588",
        "MS-CorrelationId": CALLER,
        "MS-RequestId": REQUEST_ID,
        "X-Content-Type-Options": "nosniff",
    }


def test_the_same_bytes_have_the_same_entity_tag_after_any_fetch() -> None:
    later = Answer(bytes(bytearray(BODY)), FETCHED_AT + HOUR, CALLER, REQUEST_ID)
    other = Answer(BODY + b" ", FETCHED_AT, REQUEST_ID, CALLER)
    assert later.etag == ANSWER.etag != other.etag


@given(st.timedeltas(timedelta(), timedelta(days=100)))
def test_max_age_less_age_is_what_is_left(age: timedelta) -> None:
    headers = get(served(age)).headers
    assert headers["Age"] == str(age // seconds(1))
    left = int(headers["Cache-Control"].removeprefix("private, max-age=")) - int(headers["Age"])
    assert headers["Cache-Status"].endswith(f"; ttl={left}")


@pytest.mark.parametrize("if_match", [None, '"other"', "*"])
@pytest.mark.parametrize("if_none_match", [None, '"other"', "*", ANSWER.etag])
@pytest.mark.parametrize("result", [served(), served(answer=NO_DATA), failed(NotCachedError(""))])
def test_a_head_is_a_get_without_a_body(
    result: Result, if_none_match: str | None, if_match: str | None
) -> None:
    got, head = (get(result, if_none_match, if_match, is_head=is_head) for is_head in (False, True))
    assert (head.status, head.body) == (got.status, b"")
    length = {} if got.status is HTTPStatus.NOT_MODIFIED else {"Content-Length": str(len(got.body))}
    assert head.headers == got.headers | length


@pytest.mark.parametrize("is_head", [False, True])
def test_a_304_has_the_headers_of_a_200_but_those_of_the_body(*, is_head: bool) -> None:
    response = get(served(seconds(5)), ANSWER.etag, is_head=is_head)
    assert (response.status, response.body) == (HTTPStatus.NOT_MODIFIED, b"")
    whole = get(served(seconds(5))).headers
    assert response.headers == {name: whole[name] for name in whole.keys() - BODYS_HEADERS}


WEAK = "weakly"
"""Matches in If-None-Match, which compares weakly, and not in If-Match, which compares strongly."""


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ('"tag,1"', True),
        ('W/"tag,1"', WEAK),
        ('W/"tag,1", "tag,1"', True),
        ('"tag,1", W/"tag,1"', True),
        ('w/"tag,1"', False),
        ("*", True),
        (" * ", True),
        ('"a", "tag,1", "b"', True),
        ('"a",W/"tag,1"', WEAK),
        ('"a,b" ,\t"tag,1"', True),
        (', "tag,1",,', True),
        ('"", "tag,1"', True),
        ('"ærø", "tag,1"', True),
        ("", False),
        ('""', False),
        ("tag,1", False),
        ("W/tag,1", False),
        ('"tag', False),
        ('"tag,1', False),
        ('tag,1"', False),
        ('"tag,"', False),
        ('"tag,11"', False),
        ('"TAG,1"', False),
        ('"x,tag,1"', False),
        ("'tag,1'", False),
        ('"*"', False),
        ('"a", "b"', False),
        ('"tag", "1"', False),
    ],
)
def test_a_condition_is_a_list_of_entity_tags(listed: str, expected: bool | str) -> None:  # noqa: FBT001
    assert is_listed('"tag,1"', listed, is_weak_enough=True) is bool(expected)
    assert is_listed('"tag,1"', listed, is_weak_enough=False) is (expected is True)


tags = st.text(st.characters(min_codepoint=0x23, max_codepoint=0x7E), max_size=9).map('"{}"'.format)


@given(st.lists(tags, max_size=4), tags, st.sampled_from([",", ", ", " ,\t"]), st.sampled_from(["", "W/"]))
def test_an_entity_tag_matches_only_where_it_is_listed(
    listed: list[str], tag: str, comma: str, weak: str
) -> None:
    without, last = (comma.join(weak + each for each in tags) for tags in (listed, [*listed, tag]))
    assert is_listed(tag, without, is_weak_enough=True) is (tag in listed)
    assert is_listed(tag, without, is_weak_enough=False) is (tag in listed and not weak)
    assert is_listed(tag, last, is_weak_enough=True)
    assert is_listed(tag, last, is_weak_enough=False) is not bool(weak)


@given(st.text(max_size=60), st.none() | st.text(max_size=60))
def test_no_condition_makes_an_error(if_none_match: str, if_match: str | None) -> None:
    expected = {200, 304} if if_match is None else {200, 304, 412}
    assert get(served(), if_none_match, if_match).status in expected


@pytest.mark.parametrize(
    ("if_match", "if_none_match", "status"),
    [
        (ANSWER.etag, None, 200),
        ("*", None, 200),
        (f'"other", {ANSWER.etag}', '"other"', 200),
        (ANSWER.etag, ANSWER.etag, 304),
        ("*", "*", 304),
        ('"other"', None, 412),
        (f"W/{ANSWER.etag}", None, 412),
        (ANSWER.etag.strip('"'), None, 412),
        (f"{ANSWER.etag} x", None, 412),
        ("", None, 412),
        ('"other"', ANSWER.etag, 412),
        ('"other"', "*", 412),
    ],
)
def test_if_match_comes_before_if_none_match(if_match: str, if_none_match: str | None, status: int) -> None:
    assert get(served(), if_none_match, if_match).status == status


@pytest.mark.parametrize("result", [served(seconds(5000)), Result(Decision.FETCH_STALE, answer=ANSWER)])
def test_a_failed_precondition_is_a_problem_and_tells_of_no_answer(result: Result) -> None:
    response = get(result, if_match='"other"')
    problem = members(response)
    assert (response.status, problem["code"]) == (412, "precondition-failed")
    assert problem.keys() == PLAIN_MEMBERS
    assert response.headers == PLAIN_HEADERS


@pytest.mark.parametrize("result", [served(answer=NO_DATA), failed(NotCachedError(""))])
def test_a_problem_stays_itself_whatever_the_preconditions(result: Result) -> None:
    assert get(result, "*", '"other"') == get(result)


UNAVAILABLE = UpstreamUnavailableError("", reply=UpstreamReply(503))
MISSING, STALE, REQUESTED = Decision.FETCH_MISSING, Decision.FETCH_STALE, Decision.FETCH_REQUESTED


@pytest.mark.parametrize(
    ("decision", "source", "age", "error", "expected"),
    [
        (Decision.SERVE, Source.STORED, 2988, None, "hit; ttl=612"),
        (Decision.SERVE_AND_REFRESH, Source.STORED, 3612, None, "hit; ttl=-12"),
        (MISSING, Source.FETCHED, 1, None, "fwd=uri-miss; fwd-status=200; stored"),
        (MISSING, Source.FETCHED, 3600, None, "fwd=uri-miss; fwd-status=200; stored"),
        (MISSING, Source.FETCHED, 3601, None, "fwd=uri-miss; fwd-status=200; stored; ttl=-1"),
        (MISSING, Source.COLLAPSED, 1, None, "fwd=uri-miss; collapsed"),
        (STALE, Source.FETCHED, 1, None, "fwd=stale; fwd-status=200; stored"),
        (REQUESTED, Source.FETCHED, 1, None, "fwd=request; fwd-status=200; stored"),
        (STALE, Source.FETCHED, 7600, UNAVAILABLE, "fwd=stale; fwd-status=503; ttl=-4000"),
        (STALE, Source.FETCHED, 7600, UpstreamTimeoutError(""), "fwd=stale; ttl=-4000"),
    ],
)
def test_cache_status_says_how_an_answer_came_about(
    decision: Decision, source: Source, age: int, error: UsageSummaryError | None, expected: str
) -> None:
    result = Result(decision, source, ANSWER, seconds(age), error)
    assert status_of(result) == f"usage-summary; {expected}"


ENDINGS = [(source, None) for source in Source] + [
    (source, error)
    for source in (Source.STORED, Source.FETCHED)
    for error in (UNAVAILABLE, ConfigurationError(""))
]


@pytest.mark.parametrize("decision", [MISSING, STALE, REQUESTED])
@pytest.mark.parametrize(("source", "error"), ENDINGS)
def test_whoever_waited_learns_either_of_a_hit_or_of_a_fetch(
    decision: Decision, source: Source, error: UsageSummaryError | None
) -> None:
    said = status_of(Result(decision, source, ANSWER, seconds(10), error))
    name, *parameters = said.split("; ")
    assert name == "usage-summary"
    assert ("hit" in parameters) is not any(each.startswith("fwd=") for each in parameters)


@pytest.mark.parametrize("decision", [MISSING, STALE, REQUESTED])
@pytest.mark.parametrize(("source", "error"), ENDINGS)
def test_a_stale_answer_shows_as_stale_or_with_a_negative_ttl(
    decision: Decision, source: Source, error: UsageSummaryError | None
) -> None:
    said = status_of(Result(decision, source, ANSWER, seconds(5000), error))
    assert "fwd=stale" in said or "ttl=-1400" in said


def test_a_fresh_answer_is_not_called_stale_when_the_fetch_that_a_caller_wanted_failed() -> None:
    result = Result(Decision.FETCH_REQUESTED, Source.FETCHED, ANSWER, seconds(100), UNAVAILABLE)
    assert "fwd=stale" not in status_of(result)


PLAIN_MEMBERS = {"type", "title", "status", "detail", "code", "description", "correlationId"}
PLAIN_HEADERS = {
    "Content-Type": "application/problem+json",
    "Cache-Control": "no-store",
    "MS-CorrelationId": CALLER,
    "X-Content-Type-Options": "nosniff",
}


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        (ConfigurationError, 500, "configuration"),
        (ConsentRequiredError, 502, "consent-required"),
        (UpstreamRefusedError, 502, "upstream-refused"),
        (UpstreamInvalidError, 502, "upstream-invalid"),
        (UpstreamUnavailableError, 503, "upstream-unavailable"),
        (UpstreamTimeoutError, 504, "upstream-timeout"),
        (NotCachedError, 504, "not-cached"),
    ],
)
def test_an_error_is_its_problem(kind: type[UsageSummaryError], status: int, code: str) -> None:
    response = get(failed(kind(CANARY)), "*")
    problem = members(response)
    assert (response.status, problem["code"]) == (status, code)
    assert problem.keys() == PLAIN_MEMBERS
    assert response.headers.pop("Retry-After", "1") == "1"
    assert response.headers == PLAIN_HEADERS
    assert CANARY not in f"{response.body!r} {response.headers}"


def test_that_there_is_no_usage_data_is_a_problem_whatever_the_condition() -> None:
    for if_none_match in (None, "*", NO_DATA.etag):
        response = get(served(answer=NO_DATA), if_none_match)
        problem = members(response)
        assert (response.status, problem["code"]) == (HTTPStatus.NOT_FOUND, "no-usage-data")
        assert (problem["upstreamStatus"], problem["upstreamCode"]) == (404, 3000)
        assert problem["requestId"] == REQUEST_ID


def test_a_problem_tells_of_the_upstream_answer_what_there_is() -> None:
    def told(reply: UpstreamReply) -> set[str]:
        problem = members(get(failed(UpstreamRefusedError("", reply=reply))))
        assert problem["upstreamStatus"] == 403
        return problem.keys() & {"upstreamStatus", "upstreamCode", "requestId"}

    assert told(UpstreamReply(403, "900420", REQUEST_ID)) == {"upstreamStatus", "upstreamCode", "requestId"}
    assert told(UpstreamReply(403, None, REQUEST_ID)) == {"upstreamStatus", "requestId"}
    assert told(UpstreamReply(403)) == {"upstreamStatus"}


@pytest.mark.parametrize(
    ("retry_after", "expected"),
    [(None, "1"), (-5, "1"), (0, "1"), (0.2, "1"), (1, "1"), (1.001, "2"), (19.5, "20"), (3600, "3600")],
)
@pytest.mark.parametrize("kind", [UpstreamUnavailableError, UpstreamTimeoutError])
def test_where_waiting_helps_retry_after_is_whole_seconds(
    kind: type[UsageSummaryError], retry_after: float | None, expected: str
) -> None:
    wait = None if retry_after is None else seconds(retry_after)
    assert get(failed(kind(""), wait)).headers["Retry-After"] == expected


@pytest.mark.parametrize("is_head", [False, True])
@pytest.mark.parametrize(("if_none_match", "if_match"), [(None, None), (ANSWER.etag, None), (None, '"x"')])
@pytest.mark.parametrize(
    "result",
    [
        served(seconds(12)),
        served(answer=NO_DATA),
        *(failed(kind("", reply=UpstreamReply(403, "900308", CALLER)), seconds(9.5)) for kind in PROBLEMS),
    ],
)
def test_a_linter_has_nothing_to_say_about_any_response(
    result: Result, if_none_match: str | None, if_match: str | None, *, is_head: bool
) -> None:
    response = get(result, if_none_match, if_match, is_head=is_head)
    headers = {"Date": format_datetime(FETCHED_AT, usegmt=True)} | response.headers  # as the host does
    assert complaints(response.status, headers, response.body, is_head=is_head) == []
