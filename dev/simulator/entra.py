"""Entra ID: OpenID discovery, and the token endpoint of a confidential client.

Source: learn.microsoft.com/entra/identity-platform/v2-oauth2-auth-code-flow.
"""

import base64
import json
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dev.simulator.client_authentication import authenticate
from dev.simulator.records import CODE_LIFE, PARTNER_CENTER, REFRESH_TOKEN_LIFE
from dev.simulator.refusals import EntraError, refused
from dev.simulator.scenarios import Refusal
from dev.simulator.world import World

OPENID_SCOPES = {"openid", "profile", "offline_access", "email"}
PERMISSIONS = {".default", "user_impersonation"}
AUTHENTICATIONS = ["client_secret_post", "private_key_jwt", "client_secret_basic"]


@dataclass(frozen=True)
class _Grant:
    """What the app may have tokens for: who signed in, whether with MFA, what else was asked."""

    user: str
    mfa: bool
    scopes: AbstractSet[str]
    nonce: str | None = None


def form_of(body: bytes) -> dict[str, str]:
    """The fields of a posted form."""
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))


def discover(world: World, request: Request, _body: bytes) -> Response:
    """The OpenID configuration, or Entra's answer for a tenant that it does not know."""
    tenant = request.path_params["tenant"]
    if tenant != world.tenant_id:
        return refused(world, request, 90002, "invalid_tenant")
    address = f"{request.base_url}{tenant}"
    return JSONResponse(
        {
            "issuer": f"{address}/v2.0",
            "authorization_endpoint": f"{address}/oauth2/v2.0/authorize",
            "token_endpoint": f"{address}/oauth2/v2.0/token",
            "jwks_uri": f"{address}/discovery/v2.0/keys",
            "token_endpoint_auth_methods_supported": AUTHENTICATIONS,
        }
    )


def redeem(world: World, request: Request, body: bytes) -> Response:
    """The token endpoint: new tokens, or an error in Entra's shape. The old refresh token stays good."""
    form = form_of(body)
    try:
        grant = _grant(world, request, form)
    except EntraError as error:
        return refused(world, request, error.code)
    answer = _tokens(world, grant, f"{request.base_url}{world.tenant_id}/v2.0", form)
    return JSONResponse(answer, headers={"cache-control": "no-store, no-cache", "pragma": "no-cache"})


def check_scope(scopes: AbstractSet[str]) -> None:
    """Permissions of Partner Center and of nothing else; a token is for one resource. Raises EntraError."""
    resource_scopes = scopes - OPENID_SCOPES
    if not resource_scopes:
        raise EntraError(70011)
    for scope in resource_scopes:
        resource, _, permission = scope.rpartition("/")
        if resource != PARTNER_CENTER:
            raise EntraError(500011)
        if permission not in PERMISSIONS:
            raise EntraError(70011)


def _grant(world: World, request: Request, form: dict[str, str]) -> _Grant:
    if request.path_params["tenant"] != world.tenant_id:
        raise EntraError(90002)
    authenticate(world, request, form)
    if "resource" in form:
        raise EntraError(901002)
    scopes = frozenset(form.get("scope", "").split())
    match form.get("grant_type"):
        case "refresh_token":
            check_scope(scopes)
            return _of_refresh_token(world, form.get("refresh_token", ""), scopes)
        case "authorization_code":
            if scopes:
                check_scope(scopes)
            return _of_code(world, form, scopes)
        case _:
            raise EntraError(70003)


def _of_refresh_token(world: World, text: str, scopes: AbstractSet[str]) -> _Grant:
    token = world.refresh_tokens.get(text)
    if token is None:
        raise EntraError(70000)
    refusal = world.refusal(token)
    if refusal:
        raise EntraError(refusal)
    if world.clock() >= token.issued + REFRESH_TOKEN_LIFE:
        raise EntraError(Refusal.EXPIRED)
    return _Grant(token.user, world.has_mfa(token), scopes)


def _of_code(world: World, form: dict[str, str], scopes: AbstractSet[str]) -> _Grant:
    code = world.codes.get(form.get("code", ""))
    if code is None:
        raise EntraError(70000)
    if code.redeemed:
        raise EntraError(54005)
    if world.clock() >= code.issued + CODE_LIFE:
        raise EntraError(70008)
    if "redirect_uri" not in form:
        raise EntraError(900144)
    if form["redirect_uri"] != code.redirect_uri:
        raise EntraError(500112)
    if not form.get("code_verifier"):
        raise EntraError(50148)
    if _base64url(sha256(form["code_verifier"].encode()).digest()) != code.challenge:
        raise EntraError(501481)
    code.redeemed = True
    return _Grant(code.user, code.mfa, scopes or code.scopes, code.nonce)


def _tokens(world: World, grant: _Grant, issuer: str, form: dict[str, str]) -> dict[str, Any]:
    life = int(world.access_token_life.total_seconds())
    who = {"uid": world.object_id(grant.user), "utid": world.tenant_id}
    answer = {
        "token_type": "Bearer",
        "scope": f"{PARTNER_CENTER}/user_impersonation",
        "expires_in": life,
        "ext_expires_in": life,
        "refresh_in": int(world.refresh_in.total_seconds()) if world.refresh_in else None,
        "access_token": world.access_token(mfa=grant.mfa, app_only=world.app_only, user=grant.user),
        "refresh_token": world.refresh_token(mfa=grant.mfa, user=grant.user)
        if "offline_access" in grant.scopes
        else None,
        "id_token": world.id_token(issuer, grant.user, grant.nonce) if "openid" in grant.scopes else None,
        "client_info": _base64url(json.dumps(who).encode()) if form.get("client_info") == "1" else None,
    }
    return {name: value for name, value in answer.items() if value is not None}


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
