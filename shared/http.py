"""A result -> an HTTP response, by RFC 9110 (conditions), 9111 (age), 9211 (Cache-Status), 9457 (problems).

To its callers this app is an origin: it declares how fresh its answer is, and how old.
"""

import json
import math
import re
from dataclasses import dataclass, replace
from datetime import timedelta
from http import HTTPStatus
from typing import NamedTuple

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
from shared.outcome import Source

_ENTITY_TAG = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_ENTITY_TAGS = re.compile(rf"(?:{_ENTITY_TAG.pattern}|[,\s])*")
_SECOND = timedelta(seconds=1)

_FORWARD_REASONS = {
    Decision.FETCH_MISSING: "uri-miss",
    Decision.FETCH_STALE: "stale",
    Decision.FETCH_REQUESTED: "request",
}


class Response(NamedTuple):
    """Status, headers and body as they go to the caller."""

    status: HTTPStatus
    headers: dict[str, str]
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class _Problem:
    code: str
    status: HTTPStatus
    title: str
    detail: str
    waiting_helps: bool = True


_NO_USAGE_DATA = _Problem(
    "no-usage-data",
    HTTPStatus.NOT_FOUND,
    "No usage data",
    "Partner Center has no usage data for this partner in the current billing period.",
    waiting_helps=False,
)

PROBLEMS: dict[type[UsageSummaryError], _Problem] = {
    ConfigurationError: _Problem(
        "configuration",
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "The app is not configured",
        "The app's settings or its permissions are wrong; its log says which.",
        waiting_helps=False,
    ),
    ConsentRequiredError: _Problem(
        "consent-required",
        HTTPStatus.BAD_GATEWAY,
        "Consent is required",
        "A person has to sign in to Partner Center with MFA again; the app's log says why.",
        waiting_helps=False,
    ),
    UpstreamRefusedError: _Problem(
        "upstream-refused",
        HTTPStatus.BAD_GATEWAY,
        "Partner Center refuses the request",
        "Partner Center refuses the request; the app's log says why.",
    ),
    UpstreamInvalidError: _Problem(
        "upstream-invalid",
        HTTPStatus.BAD_GATEWAY,
        "Partner Center's answer is no usage summary",
        "Partner Center answered with something that is no usage summary.",
    ),
    UpstreamUnavailableError: _Problem(
        "upstream-unavailable",
        HTTPStatus.SERVICE_UNAVAILABLE,
        "Partner Center is unavailable",
        "Partner Center, or the sign-in before it, is unavailable, and nothing usable is stored.",
    ),
    UpstreamTimeoutError: _Problem(
        "upstream-timeout",
        HTTPStatus.GATEWAY_TIMEOUT,
        "Partner Center did not answer in time",
        "Partner Center, or the sign-in before it, did not answer in time, and nothing usable is stored.",
    ),
    NotCachedError: _Problem(
        "not-cached",
        HTTPStatus.GATEWAY_TIMEOUT,
        "Nothing usable is stored",
        "The request allows a stored answer only, and nothing usable is stored.",
        waiting_helps=False,
    ),
}
"""What callers see of each error; those of storage never reach one."""


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
        response = _problem(problem, correlation_id, result.error.reply, result.retry_after)
    elif result.answer.no_usage_data is not None:
        response = _problem(_NO_USAGE_DATA, correlation_id, result.answer.no_usage_data, None)
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


def _problem(
    problem: _Problem, correlation_id: str, reply: UpstreamReply | None, retry_after: timedelta | None
) -> Response:
    members: dict[str, object] = {
        "type": f"urn:usage-summary:problem:{problem.code}",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "code": problem.code,
        "correlationId": correlation_id,
        "upstreamStatus": reply and reply.status,
        "upstreamCode": reply and reply.code and int(reply.code),
        "requestId": reply and reply.request_id,
    }
    body = {name: value for name, value in members.items() if value is not None}
    headers = {
        "Content-Type": "application/problem+json",
        "Cache-Control": "no-store",
        "MS-CorrelationId": correlation_id,
        "X-Content-Type-Options": "nosniff",
    }
    if problem.waiting_helps:
        headers["Retry-After"] = str(max(1, math.ceil((retry_after or _SECOND).total_seconds())))
    return Response(problem.status, headers, json.dumps(body).encode())
