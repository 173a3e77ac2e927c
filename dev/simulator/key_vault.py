"""Key Vault's secrets: challenge, get, set, update, list of versions, delete, recover.

Shapes: learn.microsoft.com, rest/api/keyvault/secrets; the challenge: azure/key-vault/general,
authentication-requests-and-responses; conflicts: azure/key-vault/general/common-error-codes.
"""

import json
import re
from datetime import UTC, datetime
from typing import Any

import jwt
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dev.simulator.issuer import AZURE_CLI
from dev.simulator.records import KEY_VAULT, RETENTION, DeletedSecret, SecretVersion
from dev.simulator.world import World

NAME = re.compile(r"[0-9a-zA-Z-]{1,127}")
LONGEST = 25_000  # bytes of a secret


def secrets(world: World, request: Request, body: bytes) -> Response:
    """Everything below /secrets/."""
    name, _, version = request.path_params["secret"].strip("/").partition("/")
    refused = _refused(world, request, name)
    if refused:
        return refused
    if _is_awaited(world, name):
        return _conflict(name, "ObjectIsBeingRecovered") if request.method == "PUT" else _not_found(name)
    if request.method == "PUT" and not version:
        return _set(world, request, name, body)
    return _existing(world, request, (name, version), body)


def deleted_secrets(world: World, request: Request, _body: bytes) -> Response:
    """Everything below /deletedsecrets/: what is deleted, and its recovery."""
    name, _, action = request.path_params["secret"].strip("/").partition("/")
    refused = _refused(world, request, name)
    if refused:
        return refused
    deleted = world.deleted_secrets.get(name)
    if deleted is None:
        return _error(404, "SecretNotFound", f"Deleted Secret not found: {name}")
    match request.method, action:
        case "GET", "":
            return JSONResponse(_shown_deleted(request, name, deleted))
        case "POST", "recover":
            return JSONResponse(_shown(request, name, world.recover_secret(name)))
        case _:
            return _error(405, "MethodNotAllowed", "The method is not allowed.")


def _refused(world: World, request: Request, name: str) -> Response | None:
    claims = _claims(world, request)
    if claims is None:
        tenant = f"{request.base_url}{world.tenant_id}"
        challenge = f'Bearer authorization="{tenant}", resource="{KEY_VAULT}"'
        answer = _error(401, "Unauthorized", "AKV10000: Request is missing a Bearer or PoP token.")
        answer.headers["WWW-Authenticate"] = challenge
        return answer
    if not _may(world, claims, request.method):
        return _error(
            403, "Forbidden", "Caller is not authorized to perform action on resource.", "ForbiddenByRbac"
        )
    if "api-version" not in request.query_params or not NAME.fullmatch(name):
        return _error(
            400, "BadParameter", "api-version must be specified, and the name match [0-9a-zA-Z-]{1,127}"
        )
    return None


def _claims(world: World, request: Request) -> dict[str, Any] | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    try:
        claims = world.claims(token if scheme.lower() == "bearer" else "")
    except jwt.InvalidTokenError:
        return None
    return claims if (claims["aud"], claims["tid"]) == (KEY_VAULT, world.tenant_id) else None


def _may(world: World, claims: dict[str, Any], method: str) -> bool:
    if world.vault_forbidden or (world.vault_read_only and method != "GET"):
        return False
    if claims.get("idtyp") == "app":
        return claims["appid"] in {world.managed_identity_client_id, "system-assigned"}
    is_operator = (claims["appid"], claims.get("upn")) == (AZURE_CLI, world.operator)
    return is_operator and world.operator_has_role


def _is_awaited(world: World, name: str) -> bool:
    """Whether the recovery of a secret still takes a while; each call brings its end nearer."""
    left = world.recovering.pop(name, 0)
    if left > 1:
        world.recovering[name] = left - 1
    return left > 0


def _existing(world: World, request: Request, secret: tuple[str, str], body: bytes) -> Response:
    name, version = secret
    versions = world.secrets.get(name, [])
    if request.method == "GET" and version == "versions":
        return JSONResponse({"value": [_shown(request, name, each) for each in versions], "nextLink": None})
    found = next((each for each in reversed(versions) if version in {"", each.version}), None)
    if found is None:
        return _not_found(name)
    match request.method:
        case "PATCH" if version:
            _update(world, found, json.loads(body))
            return JSONResponse(_shown(request, name, found))
        case "DELETE" if not version:
            return JSONResponse(_shown_deleted(request, name, world.delete_secret(name)))
        case "GET":
            return _got(request, name, found)
        case _:
            return _error(405, "MethodNotAllowed", "The method is not allowed.")


def _got(request: Request, name: str, version: SecretVersion) -> Response:
    if not version.attributes["enabled"]:
        message = "Operation get is not allowed on a disabled secret."
        return _error(403, "Forbidden", message, "SecretDisabled")
    return JSONResponse({"value": version.value, **_shown(request, name, version)})


def _set(world: World, request: Request, name: str, body: bytes) -> Response:
    if name in world.deleted_secrets:
        return _conflict(name, "ObjectIsDeletedButRecoverable")
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


def _shown_deleted(request: Request, name: str, deleted: DeletedSecret) -> dict[str, Any]:
    purge = datetime.fromtimestamp(deleted.deleted, UTC) + RETENTION
    return {
        "recoveryId": f"{request.base_url}deletedsecrets/{name}",
        "deletedDate": deleted.deleted,
        "scheduledPurgeDate": int(purge.timestamp()),
        **_shown(request, name, deleted.versions[-1]),
    }


def _not_found(name: str) -> Response:
    return _error(
        404,
        "SecretNotFound",
        f"A secret with (name/id) {name} was not found in this key vault. If you recently deleted "
        "this secret you may be able to recover it using the correct recovery command.",
    )


def _conflict(name: str, inner: str) -> Response:
    state = (
        f"Secret {name} is currently in a deleted but recoverable state, and its name cannot be reused; in "
        "this state, the secret can only be recovered or purged."
        if inner == "ObjectIsDeletedButRecoverable"
        else f"Secret {name} is currently being recovered."
    )
    return _error(409, "Conflict", state, inner)


def _error(status: int, code: str, message: str, inner: str | None = None) -> Response:
    error: dict[str, Any] = {"code": code, "message": message}
    if inner:
        error["innererror"] = {"code": inner}
    return JSONResponse({"error": error}, status)
