"""GET and HEAD /v1/usagesummary: parse the request, ask the app, respond."""

import logging
import uuid

import azure.functions as func

from shared.app import app
from shared.events import log_event
from shared.freshness import parse_request_directives
from shared.guids import is_guid
from shared.http import Response, respond

_log = logging.getLogger(__name__)


async def main(req: func.HttpRequest) -> func.HttpResponse:
    """The usage summary of all Azure customers in the current billing period, or a problem."""
    given = req.headers.get("MS-CorrelationId", "").strip()
    correlation_id = given if is_guid(given) else str(uuid.uuid4())
    directives = parse_request_directives(req.headers.get("Cache-Control"))
    result = await app.get_usage_summary(directives, correlation_id)
    response = respond(
        result,
        correlation_id,
        app.freshness.fresh,
        if_none_match=req.headers.get("If-None-Match"),
        is_head=req.method == "HEAD",
    )
    if not result.is_plain_hit:
        _log_outcome(response, correlation_id)
    # An empty mimetype keeps the library from adding text/plain to a 304.
    return func.HttpResponse(
        response.body, status_code=response.status, headers=response.headers, mimetype=""
    )


def _log_outcome(response: Response, correlation_id: str) -> None:
    log_event(
        _log,
        logging.INFO,
        "usage_summary.answered",
        status=response.status,
        cacheStatus=response.headers.get("Cache-Status"),
        correlationId=correlation_id,
    )
