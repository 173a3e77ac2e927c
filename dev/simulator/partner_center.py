"""Partner Center's GET /v1/usagesummary.

Headers, error bodies and the byte-order mark: learn.microsoft.com, partner-center/developer/headers and
error-codes; the recordings in microsoft/Partner-Center-PowerShell, test/PowerShell.UnitTests/SessionRecords.
"""

import base64
import json
import secrets
from uuid import UUID, uuid4

import jwt
from starlette.requests import Request
from starlette.responses import Response

from dev.simulator.records import BOM, PARTNER_CENTER
from dev.simulator.wire import JSON
from dev.simulator.world import World


def usage_summary(world: World, request: Request, _body: bytes) -> Response:
    """The document, or why this token does not get it."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    acceptable = scheme.lower() == "bearer" and not world.is_withdrawn(token)
    try:
        claims = world.claims(token if acceptable else "", world.clock().timestamp())
    except jwt.InvalidTokenError:
        return Response(status_code=401, headers={"www-authenticate": 'Bearer error="invalid_token"'})
    if claims["aud"] != PARTNER_CENTER:
        text = f"The audience '{claims['aud']}' in the token is invalid and is no longer supported."
        return _error(401, 900420, text)
    if "upn" not in claims:
        return _error(403, 900329, "This resource does not support application-only authentication.")
    mfa = "mfa" in claims["amr"]
    if not mfa:
        answer = _error(401, 900421, "The token has no claim of multi-factor authentication.")
    elif not world.has_partner_role:
        answer = _error(403, 900308, "Insufficient privileges to complete the operation.")
    else:
        answer = Response((BOM if world.bom else b"") + world.document, headers={"content-type": JSON})
    if request.headers.get("validatemfa", "").lower() == "true":
        answer.headers["isMfaCompliant"] = str(mfa).lower()
    return answer


def not_found(_world: World, _request: Request, _body: bytes) -> Response:
    """Whatever else somebody asks for."""
    return _error(404, 1000, "Not found")


def frame(world: World, request: Request, response: Response) -> None:
    """Note what the request's headers lack; give every answer, faults too, the headers it has in reality."""
    for name in ("MS-RequestId", "MS-CorrelationId"):
        response.headers[name] = _guid(world, name, request.headers.get(name))
    vector = base64.b64encode(secrets.token_bytes(12)).decode()
    response.headers.update({"MS-CV": f"{vector}.0", "MS-ServerId": "simulator"})
    if request.headers.get("ms-contract-version") != "v1":
        world.complain(f"MS-Contract-Version is not v1: {request.headers.get('ms-contract-version')!r}")
    if "application/json" not in request.headers.get("accept", ""):
        world.complain(f"Accept is not application/json: {request.headers.get('accept')!r}")


def _guid(world: World, name: str, value: str | None) -> str:
    try:
        return str(UUID(value or ""))
    except ValueError:
        world.complain(f"{name} is {'missing' if value is None else f'no GUID: {value!r}'}")
        return str(uuid4())


def _error(status: int, code: int, description: str) -> Response:
    body = {"code": code, "description": description, "data": [], "source": "PartnerFD"}
    return Response(json.dumps(body), status, headers={"content-type": JSON})
