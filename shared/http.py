"""A result -> an HTTP response, by RFC 9110 (conditions), 9111 (age), 9211 (Cache-Status).

To its callers this app is an origin: it declares how fresh its answer is, and how old.
"""

import re
from dataclasses import replace
from datetime import timedelta
from http import HTTPStatus

from shared.answers import Result
from shared.freshness import Decision
from shared.held import Answer
from shared.outcome import Source
from shared.problems import NO_USAGE_DATA, PROBLEMS, Response, respond_problem

_ENTITY_TAG = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_ENTITY_TAGS = re.compile(rf"(?:{_ENTITY_TAG.pattern}|[,\s])*")
_SECOND = timedelta(seconds=1)

_FORWARD_REASONS = {
    Decision.FETCH_MISSING: "uri-miss",
    Decision.FETCH_STALE: "stale",
    Decision.FETCH_REQUESTED: "request",
}


def respond(
    result: Result, correlation_id: str, fresh: timedelta, *, if_none_match: str | None, is_head: bool
) -> Response:
    """The response to a GET, or to a HEAD, which is the same without a body."""
    if result.answer is None:
        if result.error is None:
            raise AssertionError("a result has an answer or an error")
        problem = PROBLEMS[type(result.error)]
        if result.error.hint:
            problem = replace(problem, detail=f"{problem.detail} {result.error.hint}")
        response = respond_problem(problem, correlation_id, result.error.reply, result.retry_after)
    elif result.answer.no_usage_data is not None:
        response = respond_problem(NO_USAGE_DATA, correlation_id, result.answer.no_usage_data, None)
    else:
        response = _representation(result, result.answer, correlation_id, fresh, if_none_match)
    if not is_head:
        return response
    length = {} if response.status is HTTPStatus.NOT_MODIFIED else {"Content-Length": str(len(response.body))}
    return Response(response.status, response.headers | length)


def is_match(if_none_match: str | None, etag: str) -> bool:
    """Whether If-None-Match lists an entity tag, by weak comparison (RFC 9110, 13.1.2)."""
    if if_none_match is None:
        return False
    value = if_none_match.strip()
    is_list = _ENTITY_TAGS.fullmatch(value) is not None
    return value == "*" or (is_list and etag in _ENTITY_TAG.findall(value))


def _representation(
    result: Result, answer: Answer, correlation_id: str, fresh: timedelta, if_none_match: str | None
) -> Response:
    max_age, age = fresh // _SECOND, result.age // _SECOND
    headers = {
        "ETag": answer.etag,
        "Cache-Control": f"private, max-age={max_age}",
        "Age": str(age),
        "Cache-Status": cache_status(result, max_age - age),
        "MS-CorrelationId": correlation_id,
        "MS-RequestId": answer.request_id,
        "X-Content-Type-Options": "nosniff",
    }
    if is_match(if_none_match, answer.etag):
        return Response(HTTPStatus.NOT_MODIFIED, headers)
    headers["Content-Type"] = "application/json; charset=utf-8"
    return Response(HTTPStatus.OK, headers, answer.body)


def cache_status(result: Result, left: int) -> str:
    """How an answer came about (RFC 9211), fresh for `left` seconds: `hit` and `fwd` exclude each other."""
    if result.source is Source.STORED:
        return f"usage-summary; hit; ttl={left}"
    ttl = [f"ttl={left}"]
    reason = f"fwd={_FORWARD_REASONS[result.decision]}"
    if result.error is not None:
        reply = result.error.reply
        how = [f"fwd-status={reply.status}"] if reply else []
    else:
        how = ["collapsed"] if result.source is Source.COLLAPSED else ["fwd-status=200", "stored"]
        ttl = ttl if left < 0 else []
    return "; ".join(["usage-summary", reason, *how, *ttl])
