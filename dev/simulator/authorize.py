"""Entra's authorization endpoint, with a person who signs in at once.

Sources, below learn.microsoft.com/entra/identity-platform: v2-oauth2-auth-code-flow; reply-url, which has the
port of a localhost redirect URI ignored, and one without a path returned with a slash in a query answer.
"""

import json
import re
from html import escape
from urllib.parse import urlencode, urlsplit
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from dev.simulator.entra import check_scope
from dev.simulator.records import AuthorizationCode
from dev.simulator.refusals import EntraError, description, oauth_error
from dev.simulator.world import World

LOOPBACK = {"localhost", "127.0.0.1"}
RESPONSE_MODES = {"query", "form_post"}
CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")  # the base64url of a SHA-256


def authorize(world: World, request: Request, _body: bytes) -> Response:
    """The redirection to the app with a code or an error; a page for what must not be redirected."""
    query = dict(request.query_params)
    try:
        _check_app(world, request.path_params["tenant"], query)
    except EntraError as error:
        return _page(world, error.code)
    try:
        sign_in = _sign_in(world, query)
        refusal = world.sign_in_error
    except EntraError as error:
        refusal = (oauth_error(error.code), error.code)
    if refusal:
        answer = {"error": refusal[0], "error_description": description(world, refusal[1])}
    else:
        answer = {"code": world.authorization_code(sign_in), "session_state": str(uuid4())}
    if "state" in query:
        answer["state"] = query["state"]
    if query.get("response_mode") == "form_post":
        return _form(query["redirect_uri"], answer)
    return _redirect(query["redirect_uri"], answer)


def matches(registered: str, redirect_uri: str) -> bool:
    """Whether an app that registered one redirect URI may be answered at the other."""
    try:
        known, asked = urlsplit(registered), urlsplit(redirect_uri)
        same_port = known.port == asked.port
    except ValueError:
        return False
    if known.hostname in LOOPBACK and known.scheme == "http":
        same_port = True
    return (
        same_port
        and "@" not in asked.netloc
        and "#" not in redirect_uri
        and (known.scheme, known.hostname, known.path, known.query)
        == (asked.scheme, asked.hostname, asked.path, asked.query)
    )


def _check_app(world: World, tenant: str, query: dict[str, str]) -> None:
    if tenant != world.tenant_id:
        raise EntraError(90002)
    if query.get("client_id") != world.client_id:
        raise EntraError(700016)
    if "redirect_uri" not in query:
        raise EntraError(900144)
    if not any(matches(each, query["redirect_uri"]) for each in world.redirect_uris):
        raise EntraError(50011)
    if query.get("response_mode", "query") not in RESPONSE_MODES:
        raise EntraError(70007)


def _sign_in(world: World, query: dict[str, str]) -> AuthorizationCode:
    if query.get("response_type") != "code":
        raise EntraError(70005 if "response_type" in query else 900144)
    if "code_challenge" not in query:
        raise EntraError(9002325)
    if query.get("code_challenge_method") != "S256":
        raise EntraError(50149)
    if not CHALLENGE.fullmatch(query["code_challenge"]):
        raise EntraError(501491)
    if query.get("prompt") == "none":
        raise EntraError(50058)
    scopes = frozenset(query.get("scope", "").split())
    check_scope(scopes)
    return AuthorizationCode(
        world.user,
        _wants_mfa(query) and world.person_has_mfa,
        world.clock(),
        query["redirect_uri"],
        query["code_challenge"],
        query.get("nonce"),
        scopes,
    )


def _wants_mfa(query: dict[str, str]) -> bool:
    """Whether the request asks for MFA: amr_values=mfa, or amr of any token in the claims parameter."""
    try:
        claims = json.loads(query.get("claims", "{}"))
        asked = [token.get("amr") or {} for token in claims.values()]
        values = [value for amr in asked for value in (amr.get("value"), *amr.get("values", []))]
    except (AttributeError, TypeError, ValueError) as error:
        raise EntraError(9002313) from error
    return "mfa" in [*values, *query.get("amr_values", "").split()]


def _redirect(redirect_uri: str, answer: dict[str, str]) -> Response:
    parts = urlsplit(redirect_uri)
    fields = "&".join(filter(None, (parts.query, urlencode(answer))))
    location = parts._replace(path=parts.path or "/", query=fields).geturl()
    return Response(status_code=302, headers={"location": location, "cache-control": "no-store, no-cache"})


def _form(redirect_uri: str, answer: dict[str, str]) -> Response:
    inputs = "".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">'
        for name, value in answer.items()
    )
    page = (
        f'<html><head><title>Working...</title></head><body><form method="POST" name="hiddenform" '
        f'action="{escape(redirect_uri)}">{inputs}<noscript><p>Script is disabled. Click Submit to continue.'
        '</p><input type="submit" value="Submit"></noscript></form>'
        "<script>document.forms[0].submit();</script></body></html>"
    )
    return HTMLResponse(page, headers={"cache-control": "no-store, no-cache"})


def _page(world: World, code: int) -> Response:
    page = (
        "<!DOCTYPE html><html><head><title>Sign in to your account</title></head><body>"
        f"<h1>Sorry, but we're having trouble signing you in.</h1><p>{escape(description(world, code))}</p>"
        "</body></html>"
    )
    return HTMLResponse(page, 400, headers={"cache-control": "no-store, no-cache"})
