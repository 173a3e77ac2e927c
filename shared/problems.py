"""What callers see of an error or of missing data: a problem document (RFC 9457)."""

import json
import math
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import NamedTuple

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

_SECOND = timedelta(seconds=1)


class Response(NamedTuple):
    """Status, headers and body as they go to the caller."""

    status: HTTPStatus
    headers: dict[str, str]
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Problem:
    """A kind of problem, as callers see it."""

    code: str
    status: HTTPStatus
    title: str
    detail: str
    waiting_helps: bool = True


NO_USAGE_DATA = Problem(
    "no-usage-data",
    HTTPStatus.NOT_FOUND,
    "No usage data",
    "Partner Center has no usage data for this partner in the current billing period.",
    waiting_helps=False,
)

PRECONDITION_FAILED = Problem(
    "precondition-failed",
    HTTPStatus.PRECONDITION_FAILED,
    "The precondition failed",
    "If-Match lists neither the current ETag nor *.",
    waiting_helps=False,
)

PROBLEMS: dict[type[UsageSummaryError], Problem] = {
    ConfigurationError: Problem(
        ConfigurationError.code,
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "The app is not configured",
        "The app's settings or its permissions are wrong; its log says which.",
        waiting_helps=False,
    ),
    ConsentRequiredError: Problem(
        ConsentRequiredError.code,
        HTTPStatus.BAD_GATEWAY,
        "Consent is required",
        "A person has to sign in to Partner Center with MFA again; the app's log says why.",
        waiting_helps=False,
    ),
    UpstreamRefusedError: Problem(
        UpstreamRefusedError.code,
        HTTPStatus.BAD_GATEWAY,
        "Partner Center refuses the request",
        "Partner Center refuses the request; the app's log says why.",
    ),
    UpstreamInvalidError: Problem(
        UpstreamInvalidError.code,
        HTTPStatus.BAD_GATEWAY,
        "Partner Center's answer is no usage summary",
        "Partner Center answered with something that is no usage summary.",
    ),
    UpstreamUnavailableError: Problem(
        UpstreamUnavailableError.code,
        HTTPStatus.SERVICE_UNAVAILABLE,
        "Partner Center is unavailable",
        "Partner Center, or the sign-in before it, is unavailable, and nothing usable is stored.",
    ),
    UpstreamTimeoutError: Problem(
        UpstreamTimeoutError.code,
        HTTPStatus.GATEWAY_TIMEOUT,
        "Partner Center did not answer in time",
        "Partner Center, or the sign-in before it, did not answer in time, and nothing usable is stored.",
    ),
    NotCachedError: Problem(
        NotCachedError.code,
        HTTPStatus.GATEWAY_TIMEOUT,
        "No stored answer meets the request",
        "The request has only-if-cached, and nothing is stored that it allows.",
        waiting_helps=False,
    ),
}
"""What callers see of each error; those of storage never reach one."""


def respond_problem(
    problem: Problem, correlation_id: str, reply: UpstreamReply | None, retry_after: timedelta | None
) -> Response:
    """The response that says a problem, with what Microsoft's support asks for."""
    members: dict[str, object] = {
        "type": f"urn:usage-summary:problem:{problem.code}",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "code": problem.code,
        "description": problem.detail,  # the name in Partner Center's errors, which its SDKs show
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
