"""Entra ID: OpenID discovery, and the token endpoint for refresh tokens of a confidential client.

Sources, below learn.microsoft.com/entra/identity-platform: v2-oauth2-auth-code-flow, reference-error-codes,
certificate-credentials; and below entra/workload-id: workload-identity-federation.
"""

import base64
import json
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qsl, unquote_plus
from uuid import uuid4

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dev.simulator.scenarios import Refusal
from dev.simulator.world import PARTNER_CENTER, REFRESH_TOKEN_LIFE, TOKEN_EXCHANGE, RefreshToken, World, now

JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
OPENID_SCOPES = {"openid", "profile", "offline_access", "email"}
PERMISSIONS = {".default", "user_impersonation"}


# AADSTS number -> status, OAuth error, text
_REFUSED: dict[int, tuple[int, str, str]] = {
    Refusal.MFA_REQUIRED: (400, "interaction_required", "You must use multi-factor authentication."),
    Refusal.REVOKED: (400, "invalid_grant", "The provided grant has expired due to it being revoked."),
    Refusal.EXPIRED: (400, "invalid_grant", "The refresh token has expired due to inactivity."),
    70000: (400, "invalid_grant", "Provided grant is invalid or malformed."),
    70003: (400, "unsupported_grant_type", "The app requested an unsupported grant type."),
    70011: (400, "invalid_scope", "The provided value for the input parameter 'scope' is not valid."),
    90002: (400, "invalid_request", "Tenant not found. Check to make sure you have the correct tenant ID."),
    500011: (400, "invalid_resource", "The resource principal was not found in the tenant."),
    700016: (400, "unauthorized_client", "Application was not found in the directory."),
    700024: (401, "invalid_client", "Client assertion is not within its valid time range."),
    700027: (401, "invalid_client", "Client assertion failed signature validation."),
    700212: (401, "invalid_client", "No matching federated identity record found for assertion audience."),
    700213: (401, "invalid_client", "No matching federated identity record found for assertion subject."),
    901002: (400, "invalid_request", "The 'resource' request parameter is not supported."),
    7000215: (401, "invalid_client", "Invalid client secret provided."),
    7000218: (401, "invalid_client", "The request must contain 'client_assertion' or 'client_secret'."),
    7000222: (401, "invalid_client", "The provided client secret keys for app are expired."),
}


class _EntraError(Exception):
    """The number after AADSTS."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def form_of(body: bytes) -> dict[str, str]:
    """The fields of a posted form."""
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))


def discover(world: World, request: Request, _body: bytes) -> Response:
    """The OpenID configuration, or Entra's answer for a tenant that it does not know."""
    tenant = request.path_params["tenant"]
    if tenant != world.tenant_id:
        return _error(world, request, 90002, "invalid_tenant")
    origin = str(request.base_url).rstrip("/")
    return JSONResponse(
        {
            "issuer": f"{origin}/{tenant}/v2.0",
            "authorization_endpoint": f"{origin}/{tenant}/oauth2/v2.0/authorize",
            "token_endpoint": f"{origin}/{tenant}/oauth2/v2.0/token",
            "jwks_uri": f"{origin}/{tenant}/discovery/v2.0/keys",
            "token_endpoint_auth_methods_supported": [
                "client_secret_post",
                "private_key_jwt",
                "client_secret_basic",
            ],
        }
    )


def redeem(world: World, request: Request, body: bytes) -> Response:
    """The token endpoint: new tokens, or an error in Entra's shape. The old refresh token stays good."""
    try:
        answer = _tokens(world, request, form_of(body))
    except _EntraError as refused:
        return _error(world, request, refused.code)
    return JSONResponse(answer, headers={"cache-control": "no-store, no-cache", "pragma": "no-cache"})


def _tokens(world: World, request: Request, form: dict[str, str]) -> dict[str, Any]:
    tenant = request.path_params["tenant"]
    if tenant != world.tenant_id:
        raise _EntraError(90002)
    _authenticate(world, request, form)
    if "resource" in form:
        raise _EntraError(901002)
    if form.get("grant_type") != "refresh_token":
        raise _EntraError(70003)
    scopes = set(form.get("scope", "").split())
    _check_scope(scopes - OPENID_SCOPES)
    token = _live(world, form.get("refresh_token", ""))
    life = int(world.access_token_life.total_seconds())
    issuer = f"{request.base_url}{tenant}/v2.0"
    who = {"iss": issuer, "aud": world.client_id, "sub": token.user, "preferred_username": token.user}
    client_info = json.dumps({"uid": token.user, "utid": tenant}).encode()
    answer = {
        "token_type": "Bearer",
        "scope": f"{PARTNER_CENTER}/user_impersonation",
        "expires_in": life,
        "ext_expires_in": life,
        "refresh_in": int(world.refresh_in.total_seconds()) if world.refresh_in else None,
        "access_token": world.access_token(mfa=token.mfa, app_only=world.app_only, user=token.user),
        "refresh_token": world.refresh_token(mfa=token.mfa, user=token.user)
        if "offline_access" in scopes
        else None,
        "id_token": world.sign(who, now(), now() + world.access_token_life) if "openid" in scopes else None,
        "client_info": base64.urlsafe_b64encode(client_info).decode().rstrip("=")
        if form.get("client_info") == "1"
        else None,
    }
    return {name: value for name, value in answer.items() if value is not None}


def _live(world: World, text: str) -> RefreshToken:
    token = world.refresh_tokens.get(text)
    if token is None:
        raise _EntraError(70000)
    if token.refused:
        raise _EntraError(token.refused)
    if world.clock() >= token.issued + REFRESH_TOKEN_LIFE:
        raise _EntraError(Refusal.EXPIRED)
    return token


def _check_scope(resource_scopes: set[str]) -> None:
    """Permissions of Partner Center and of nothing else; a token is for one resource."""
    if not resource_scopes:
        raise _EntraError(70011)
    for scope in resource_scopes:
        resource, _, permission = scope.rpartition("/")
        if resource != PARTNER_CENTER:
            raise _EntraError(500011)
        if permission not in PERMISSIONS:
            raise _EntraError(70011)


def _authenticate(world: World, request: Request, form: dict[str, str]) -> None:
    client_id, secret = form.get("client_id"), form.get("client_secret")
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        user, _, password = base64.b64decode(credentials).decode().partition(":")
        client_id, secret = unquote_plus(user), unquote_plus(password)
    if client_id != world.client_id:
        raise _EntraError(700016)
    if form.get("client_assertion_type") == JWT_BEARER and "client_assertion" in form:
        _check_assertion(world, str(request.url.replace(query="")), form["client_assertion"])
    elif not secret:
        raise _EntraError(7000218)
    elif secret != world.client_secret:
        raise _EntraError(7000215)
    elif world.secret_expired:
        raise _EntraError(7000222)


def _check_assertion(world: World, token_endpoint: str, assertion: str) -> None:
    try:
        if jwt.get_unverified_header(assertion)["alg"] == "PS256":
            _check_certificate_assertion(world, token_endpoint, assertion)
        else:
            _check_federated_assertion(world, assertion)
    except jwt.ExpiredSignatureError as error:
        raise _EntraError(700024) from error
    except (jwt.InvalidTokenError, ValueError) as error:
        raise _EntraError(700027) from error


def _check_certificate_assertion(world: World, token_endpoint: str, assertion: str) -> None:
    if world.certificate is None:
        raise _EntraError(700027)
    certificate = x509.load_pem_x509_certificate(world.certificate.encode())
    der = certificate.public_bytes(Encoding.DER)
    key = certificate.public_key()
    header = jwt.get_unverified_header(assertion)
    thumbprint = base64.urlsafe_b64encode(sha256(der).digest()).decode().rstrip("=")
    chain = header.get("x5c", [])
    if (
        not isinstance(key, RSAPublicKey)
        or header.get("x5t#S256", "").rstrip("=") != thumbprint
        or (chain and base64.b64decode(chain[0]) != der)
    ):
        raise _EntraError(700027)
    claims = jwt.decode(
        assertion,
        key,
        algorithms=["PS256"],
        audience=token_endpoint,
        issuer=world.client_id,
        options={"require": ["exp", "aud", "iss", "sub", "jti"]},
    )
    if claims["sub"] != world.client_id:
        raise _EntraError(700027)


def _check_federated_assertion(world: World, assertion: str) -> None:
    claims = world.claims(assertion)
    if claims["aud"] != TOKEN_EXCHANGE:
        raise _EntraError(700212)
    if claims.get("appid") != world.managed_identity_client_id:
        raise _EntraError(700213)


def _error(world: World, request: Request, code: int, name: str | None = None) -> Response:
    status, error, text = _REFUSED[code]
    trace, correlation = str(uuid4()), request.headers.get("client-request-id") or str(uuid4())
    timestamp = world.clock().strftime("%Y-%m-%d %H:%M:%SZ")
    body = {
        "error": name or error,
        "error_description": f"AADSTS{code:d}: {text} Trace ID: {trace} Correlation ID: {correlation} "
        f"Timestamp: {timestamp}",
        "error_codes": [int(code)],
        "timestamp": timestamp,
        "trace_id": trace,
        "correlation_id": correlation,
        "error_uri": f"https://login.microsoftonline.com/error?code={code:d}",
    }
    if code == Refusal.MFA_REQUIRED:
        body["suberror"] = "basic_action"
    return JSONResponse(
        body, status, headers={"cache-control": "no-store, no-cache", "x-ms-request-id": trace}
    )
