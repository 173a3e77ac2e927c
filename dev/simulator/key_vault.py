"""Key Vault's secrets: challenge, get, set, update, list of versions.

Shapes: learn.microsoft.com, rest/api/keyvault/secrets; the challenge: azure/key-vault/general,
authentication-requests-and-responses.
"""

import json
import re
from typing import Any

import jwt
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dev.simulator.world import KEY_VAULT, SecretVersion, World

NAME = re.compile(r"[0-9a-zA-Z-]{1,127}")
LONGEST = 25_000  # bytes of a secret


def secrets(world: World, request: Request, body: bytes) -> Response:
    """Everything below /secrets/."""
    if not _signed_in(world, request):
        tenant = f"{request.base_url}{world.tenant_id}"
        challenge = f'Bearer authorization="{tenant}", resource="{KEY_VAULT}"'
        answer = _error(401, "Unauthorized", "AKV10000: Request is missing a Bearer or PoP token.")
        answer.headers["WWW-Authenticate"] = challenge
        return answer
    if world.vault_forbidden:
        return _error(
            403, "Forbidden", "Caller is not authorized to perform action on resource.", "ForbiddenByRbac"
        )
    name, _, version = request.path_params["secret"].strip("/").partition("/")
    if "api-version" not in request.query_params or not NAME.fullmatch(name):
        return _error(
            400, "BadParameter", "api-version must be specified, and the name match [0-9a-zA-Z-]{1,127}"
        )
    if request.method == "PUT" and not version:
        return _set(world, request, name, body)
    return _existing(world, request, (name, version), body)


def _existing(world: World, request: Request, secret: tuple[str, str], body: bytes) -> Response:
    name, version = secret
    versions = world.secrets.get(name, [])
    if request.method == "GET" and version == "versions":
        return JSONResponse({"value": [_shown(request, name, each) for each in versions], "nextLink": None})
    found = [each for each in versions if version in {"", each.version}]
    if not found:
        return _error(
            404, "SecretNotFound", f"A secret with (name/id) {name} was not found in this key vault."
        )
    match request.method:
        case "PATCH" if version:
            _update(world, found[-1], json.loads(body))
            return JSONResponse(_shown(request, name, found[-1]))
        case "GET" if found[-1].attributes["enabled"]:
            return JSONResponse({"value": found[-1].value, **_shown(request, name, found[-1])})
        case "GET":
            return _error(
                403, "Forbidden", "Operation get is not allowed on a disabled secret.", "SecretDisabled"
            )
        case _:
            return _error(405, "MethodNotAllowed", "The method is not allowed.")


def _set(world: World, request: Request, name: str, body: bytes) -> Response:
    given = json.loads(body)
    if not isinstance(given.get("value"), str) or len(given["value"].encode()) > LONGEST:
        return _error(400, "BadParameter", "The secret value must be a string of at most 25 KB.")
    version = world.store(name, given["value"])
    _update(world, version, given)
    return JSONResponse({"value": version.value, **_shown(request, name, version)})


def _update(world: World, version: SecretVersion, given: dict[str, Any]) -> None:
    version.updated = int(world.clock().timestamp())
    version.content_type = given.get("contentType", version.content_type)
    version.tags = given.get("tags", version.tags)
    attributes = given.get("attributes") or {}
    version.attributes |= {key: attributes[key] for key in ("enabled", "exp", "nbf") if key in attributes}


def _shown(request: Request, name: str, version: SecretVersion) -> dict[str, Any]:
    times = {"created": version.created, "updated": version.updated}
    shown: dict[str, Any] = {
        "id": f"{request.base_url}secrets/{name}/{version.version}",
        "attributes": {**version.attributes, **times, "recoveryLevel": "Recoverable+Purgeable"},
        "tags": version.tags,
    }
    if version.content_type is not None:
        shown["contentType"] = version.content_type
    return shown


def _signed_in(world: World, request: Request) -> bool:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    try:
        return scheme.lower() == "bearer" and world.claims(token)["aud"] == KEY_VAULT
    except jwt.InvalidTokenError:
        return False


def _error(status: int, code: str, message: str, inner: str | None = None) -> Response:
    error: dict[str, Any] = {"code": code, "message": message}
    if inner:
        error["innererror"] = {"code": inner}
    return JSONResponse({"error": error}, status)
