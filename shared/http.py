"""A result -> an HTTP response, by RFC 9110 (conditions), 9111 (age), 9211 (Cache-Status).

To its callers this app is an origin: it declares how fresh its answer is, and how old.
"""

import re
from dataclasses import dataclass, replace
from datetime import timedelta
from http import HTTPStatus

from shared.answers import Result
from shared.freshness import Decision
from shared.held import Answer
from shared.outcome import Source
from shared.problems import NO_USAGE_DATA, PRECONDITION_FAILED, PROBLEMS, Response, respond_problem

_ENTITY_TAG = re.compile(r'(W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_ENTITY_TAGS = re.compile(rf"(?:{_ENTITY_TAG.pattern}|[,\s])*")
_SECOND = timedelta(seconds=1)

_FORWARD_REASONS = {
    Decision.FETCH_MISSING: "uri-miss",
    Decision.FETCH_STALE: "stale",
    Decision.FETCH_REQUESTED: "request",
}


@dataclass(frozen=True, slots=True)
class Conditions:
    """Those of a request, as its headers have them."""

    if_match: str | None = None
    if_none_match: str | None = None


UNCONDITIONAL = Conditions()


def respond(
    result: Result,
    correlation_id: str,
    fresh: timedelta,
    conditions: Conditions = UNCONDITIONAL,
    *,
    is_head: bool = False,
) -> Response:
    """The response to a GET, or to a HEAD, which is the same without a body.

    Conditions count where there is a document; a problem stays itself (RFC 9110, 13.2.1).
    """
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
        response = _representation(result, result.answer, correlation_id, fresh, conditions)
    if not is_head:
        return response
    length = {} if response.status is HTTPStatus.NOT_MODIFIED else {"Content-Length": str(len(response.body))}
    return Response(response.status, response.headers | length)


def is_listed(etag: str, condition: str, *, is_weak_enough: bool) -> bool:
    """Whether a condition lists a strong entity tag, or is `*`; text that is no list of tags lists none.

    If-None-Match compares weakly: a weak tag is enough. If-Match compares strongly: a weak tag never matches
    (RFC 9110, 8.8.3.2).
    """
    value = condition.strip()
    if value == "*":
        return True
    if _ENTITY_TAGS.fullmatch(value) is None:
        return False
    return any(tag == etag and (is_weak_enough or not weak) for weak, tag in _ENTITY_TAG.findall(value))


def _representation(
    result: Result, answer: Answer, correlation_id: str, fresh: timedelta, conditions: Conditions
) -> Response:
    if_match, if_none_match = conditions.if_match, conditions.if_none_match
    if if_match is not None and not is_listed(answer.etag, if_match, is_weak_enough=False):
        return respond_problem(PRECONDITION_FAILED, correlation_id, None, None)
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
    if if_none_match is not None and is_listed(answer.etag, if_none_match, is_weak_enough=True):
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
