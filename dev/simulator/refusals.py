"""How Entra says no: by number, and in the words that go with it.

Sources, below learn.microsoft.com/entra/identity-platform: reference-error-codes, v2-oauth2-auth-code-flow.
The OAuth error and suberror of a refused refresh token are those of published answers of the v2.0 endpoint:
50078 SocialiteProviders/Providers#998, 70043 microsoft/vscode-mssql#22364, 53003
OfficeDev/BotBuilder-MicrosoftTeams#284 and MartinIngesen/MSOLSpray#5.
"""

from uuid import uuid4

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dev.simulator.scenarios import Refusal
from dev.simulator.world import World

# AADSTS number -> status, OAuth error, text
_REFUSED: dict[int, tuple[int, str, str]] = {
    Refusal.MFA_REQUIRED: (400, "interaction_required", "You must use multi-factor authentication."),
    Refusal.MFA_EXPIRED: (400, "invalid_grant", "Presented multi-factor authentication has expired."),
    Refusal.REVOKED: (400, "invalid_grant", "The provided grant has expired due to it being revoked."),
    Refusal.BLOCKED: (400, "invalid_grant", "Access has been blocked by Conditional Access policies."),
    Refusal.SIGN_IN_FREQUENCY: (400, "invalid_grant", "The sign-in is too old for conditional access."),
    Refusal.EXPIRED: (400, "invalid_grant", "The refresh token has expired due to inactivity."),
    50011: (400, "invalid_request", "The redirect URI is none of those configured for the application."),
    50020: (400, "access_denied", "User account does not exist in the tenant."),
    50058: (400, "login_required", "A silent sign-in request was sent but no user is signed in."),
    50148: (400, "invalid_grant", "The code_verifier does not match the code_challenge for PKCE."),
    50149: (400, "invalid_request", "Invalid Code_Challenge_method parameter."),
    54005: (400, "invalid_grant", "OAuth2 Authorization code was already redeemed."),
    65004: (400, "access_denied", "User declined to consent to access the app."),
    70000: (400, "invalid_grant", "Provided grant is invalid or malformed."),
    70003: (400, "unsupported_grant_type", "The app requested an unsupported grant type."),
    70005: (400, "unsupported_response_type", "The app returned an unsupported response type."),
    70007: (400, "invalid_request", "The value is not supported for 'response_mode'."),
    70008: (400, "invalid_grant", "The provided authorization code has expired."),
    70011: (400, "invalid_scope", "The provided value for the input parameter 'scope' is not valid."),
    90002: (400, "invalid_request", "Tenant not found. Check to make sure you have the correct tenant ID."),
    500011: (400, "invalid_resource", "The resource principal was not found in the tenant."),
    500112: (401, "invalid_client", "The reply address does not match that of the code."),
    501481: (400, "invalid_grant", "The Code_Verifier does not match the code_challenge."),
    501491: (400, "invalid_request", "Invalid size of Code_Challenge parameter."),
    700016: (400, "unauthorized_client", "Application was not found in the directory."),
    700024: (401, "invalid_client", "Client assertion is not within its valid time range."),
    700027: (401, "invalid_client", "The client assertion's signature or certificate is not valid."),
    700211: (401, "invalid_client", "No matching federated identity record found for assertion issuer."),
    700212: (401, "invalid_client", "No matching federated identity record found for assertion audience."),
    700213: (401, "invalid_client", "No matching federated identity record found for assertion subject."),
    900144: (400, "invalid_request", "The request lacks a required parameter."),
    901002: (400, "invalid_request", "The 'resource' request parameter is not supported."),
    7000215: (401, "invalid_client", "Invalid client secret provided."),
    7000218: (401, "invalid_client", "The request must contain 'client_assertion' or 'client_secret'."),
    7000222: (401, "invalid_client", "The provided client secret keys for app are expired."),
    9002313: (400, "invalid_request", "Invalid request. Request is malformed or invalid."),
    9002325: (400, "invalid_request", "Proof Key for Code Exchange is required."),
}
_SUBERRORS: dict[int, str] = {
    Refusal.MFA_REQUIRED: "basic_action",
    Refusal.MFA_EXPIRED: "basic_action",
    Refusal.BLOCKED: "message_only",
    Refusal.SIGN_IN_FREQUENCY: "token_expired",
    Refusal.EXPIRED: "token_expired",
}


class EntraError(Exception):
    """The number after AADSTS."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def oauth_error(code: int) -> str:
    """OAuth's word for it."""
    return _REFUSED[code][1]


def description(world: World, code: int, trace: str | None = None, correlation: str | None = None) -> str:
    """Entra's sentence with its ids."""
    text = _REFUSED[code][2] if code in _REFUSED else "The sign-in was refused."
    return (
        f"AADSTS{code:d}: {text} Trace ID: {trace or uuid4()} Correlation ID: {correlation or uuid4()} "
        f"Timestamp: {_timestamp(world)}"
    )


def refused(world: World, request: Request, code: int, name: str | None = None) -> Response:
    """The token endpoint's answer; name replaces OAuth's word."""
    status, error, _ = _REFUSED[code]
    trace, correlation = str(uuid4()), request.headers.get("client-request-id") or str(uuid4())
    body = {
        "error": name or error,
        "error_description": description(world, code, trace, correlation),
        "error_codes": [int(code)],
        "timestamp": _timestamp(world),
        "trace_id": trace,
        "correlation_id": correlation,
        "error_uri": f"https://login.microsoftonline.com/error?code={code:d}",
    }
    if code in _SUBERRORS:
        body["suberror"] = _SUBERRORS[code]
    headers = {"cache-control": "no-store, no-cache", "x-ms-request-id": trace}
    return JSONResponse(body, status, headers=headers)


def _timestamp(world: World) -> str:
    return world.clock().strftime("%Y-%m-%d %H:%M:%SZ")
