"""GET and HEAD /v1/usagesummary: parse the request, ask the app, respond."""

import logging
from typing import Any

import azure.functions as func
from werkzeug.datastructures import Headers

from shared.answers import Result
from shared.app import app
from shared.events import log_event
from shared.freshness import parse_request_directives
from shared.guids import is_guid, new_guid
from shared.http import Conditions, respond
from shared.problems import Response

_log = logging.getLogger(__name__)


class _Headers(Headers):
    """Headers that take no empty Content-Type: the library adds one to a response that has none."""

    def __setitem__(self, name: Any, value: Any) -> None:  # noqa: ANN401  # of any of its overloads
        if value:
            super().__setitem__(name, value)


class _HttpResponse(func.HttpResponse):
    """A response with the headers that it is given, and no others."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.body, status_code=response.status, mimetype="")
        self._headers = _Headers(response.headers)

    @property
    def headers(self) -> Headers:
        return self._headers


async def main(req: func.HttpRequest) -> func.HttpResponse:
    """The usage summary of all Azure customers in the current billing period, or a problem."""
    given = (_header(req, "ms-correlationid") or "").strip()
    correlation_id = given if is_guid(given) else new_guid()
    directives = parse_request_directives(_header(req, "cache-control"))
    result = await app.get_usage_summary(directives, correlation_id)
    response = respond(
        result,
        correlation_id,
        app.freshness.fresh,
        Conditions(_header(req, "if-match"), _header(req, "if-none-match")),
        is_head=req.method == "HEAD",
    )
    if not result.is_plain_hit:
        _log_outcome(response, result, correlation_id)
    return _HttpResponse(response)


def _header(req: func.HttpRequest, name: str) -> str | None:
    """A header; `get` of the library's mapping raises and catches for each that is absent."""
    return req.headers[name] if name in req.headers else None  # noqa: SIM401  # see above


def _log_outcome(response: Response, result: Result, correlation_id: str) -> None:
    log_event(
        _log,
        logging.INFO,
        "usage_summary.answered",
        status=response.status,
        cacheStatus=response.headers.get("Cache-Status"),
        staleSeconds=result.age - app.freshness.fresh if result.answer else None,
        error=type(result.error).__name__ if result.error else None,
        correlationId=correlation_id,
    )
