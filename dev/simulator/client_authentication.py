"""How the app proves to Entra that it is itself: by secret, by certificate, by its managed identity.

Sources, below learn.microsoft.com/entra: identity-platform/certificate-credentials,
workload-id/workload-identity-federation-config-app-trust-managed-identity.
"""

import base64
from hashlib import sha256
from typing import Any
from urllib.parse import unquote_plus

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from starlette.requests import Request

from dev.simulator.records import now
from dev.simulator.refusals import EntraError
from dev.simulator.world import World

JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
SKEW_SECONDS = 300


def authenticate(world: World, request: Request, form: dict[str, str]) -> None:
    """Let the app pass. Raises EntraError for anybody else."""
    client_id, secret = form.get("client_id"), form.get("client_secret")
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        client_id, secret = _basic(credentials)
    if client_id != world.client_id:
        raise EntraError(700016)
    if form.get("client_assertion_type") == JWT_BEARER and "client_assertion" in form:
        _check_assertion(world, str(request.url.replace(query="")), form["client_assertion"])
    elif not secret:
        raise EntraError(7000218)
    elif secret != world.client_secret:
        raise EntraError(7000215)
    elif world.secret_expired:
        raise EntraError(7000222)


def _basic(credentials: str) -> tuple[str, str]:
    try:
        user, _, password = base64.b64decode(credentials).decode().partition(":")
    except ValueError as error:
        raise EntraError(9002313) from error
    return unquote_plus(user), unquote_plus(password)


def _check_assertion(world: World, token_endpoint: str, assertion: str) -> None:
    try:
        header = jwt.get_unverified_header(assertion)
        if header.get("alg") == "PS256":
            _check_certificate_assertion(world, token_endpoint, assertion, header)
        else:
            _check_federated_assertion(world, world.claims(assertion))
    except (jwt.ExpiredSignatureError, jwt.ImmatureSignatureError) as error:
        raise EntraError(700024) from error
    except (jwt.InvalidTokenError, ValueError) as error:
        raise EntraError(700027) from error


def _check_certificate_assertion(
    world: World, token_endpoint: str, assertion: str, header: dict[str, Any]
) -> None:
    if world.certificate is None:
        raise EntraError(700027)
    certificate = x509.load_pem_x509_certificate(world.certificate.encode())
    if not certificate.not_valid_before_utc <= now() < certificate.not_valid_after_utc:
        raise EntraError(700027)
    der = certificate.public_bytes(Encoding.DER)
    key = certificate.public_key()
    thumbprint = base64.urlsafe_b64encode(sha256(der).digest()).decode().rstrip("=")
    chain = header.get("x5c") or [""]  # what subject name and issuer authentication needs
    if (
        not isinstance(key, RSAPublicKey)
        or str(header.get("x5t#S256")).rstrip("=") != thumbprint
        or not isinstance(chain, list)
        or base64.b64decode(chain[0]) != der
    ):
        raise EntraError(700027)
    claims = jwt.decode(
        assertion,
        key,
        algorithms=["PS256"],
        audience=token_endpoint,
        issuer=world.client_id,
        options={"require": ["exp", "aud", "iss", "sub", "jti"]},
        leeway=SKEW_SECONDS,
    )
    if claims["sub"] != world.client_id:
        raise EntraError(700027)


def _check_federated_assertion(world: World, claims: dict[str, Any]) -> None:
    if claims["nbf"] > now().timestamp() + SKEW_SECONDS:
        raise EntraError(700024)
    if claims.get("aud") != world.token_exchange_audience:
        raise EntraError(700212)
    if claims["iss"] != world.federation_issuer:
        raise EntraError(700211)
    if claims.get("sub") != world.managed_identity_object_id:
        raise EntraError(700213)
