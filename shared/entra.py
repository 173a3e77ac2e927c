"""Entra ID's token endpoint for the app registration, by MSAL, with MSAL's traps handled.

A new MSAL application serves each exchange: one an hour is cheap, and neither MSAL's throttle, which replays
old errors, nor its token cache outlives it.
"""

import re
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.deadlines import CONNECT_TIMEOUT, retry_after, translated
from shared.errors import ConfigurationError, UpstreamUnavailableError
from shared.hints import hint
from shared.identity import managed_identity
from shared.refusals import codes_of, refusal
from shared.settings import ClientCertificate, ClientManagedIdentity, ClientSecret, PartnerCenterSettings

if TYPE_CHECKING:
    import msal
    import requests

_LONGEST_LIFE = 24 * 60 * 60  # seconds; Entra's longest is 28 hours, for others than this app


@dataclass(frozen=True, slots=True, repr=False)
class Tokens:
    """What Entra gives for a consent: lives are counted from when it was asked; claims of the id token."""

    access_token: str
    refresh_token: str | None
    expires_in: timedelta
    refresh_in: timedelta | None
    id_claims: Mapping[str, Any]


class Entra:
    """The app registration at its authority, in one session.

    Every method raises ConsentRequiredError when a person has to sign in again, ConfigurationError when Entra
    refuses the app, UpstreamUnavailableError and UpstreamTimeoutError when it does not answer.
    """

    def __init__(self, settings: PartnerCenterSettings, session: "requests.Session") -> None:
        self._settings = settings
        self._session = session

    def redeem(self, refresh_token: str, *scopes: str) -> Tokens:
        """New tokens for a refresh token, which stays good."""
        return self._tokens(lambda app: app.acquire_token_by_refresh_token(refresh_token, list(scopes)))

    def begin_sign_in(self, redirect_uri: str, response_mode: str, *scopes: str) -> dict[str, Any]:
        """An authorization code flow with PKCE; a person is to visit its `auth_uri`."""
        with translated("Entra"), warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", UserWarning
            )  # that a query is less secure than a form: PKCE mends it
            flow: dict[str, Any] = self._application().initiate_auth_code_flow(
                list(scopes), redirect_uri=redirect_uri, prompt="login", response_mode=response_mode
            )
        return flow

    def finish_sign_in(self, flow: dict[str, Any], answer: Mapping[str, str]) -> Tokens:
        """The tokens for what Entra sent to the redirect URI of a flow."""
        return self._tokens(lambda app: app.acquire_token_by_auth_code_flow(flow, dict(answer)))

    def _application(self) -> "msal.ConfidentialClientApplication":
        import msal

        return msal.ConfidentialClientApplication(
            self._settings.client_id,
            authority=f"{self._settings.cloud.authority}/{self._settings.tenant_id}",
            client_credential=self._client_credential(),
            http_client=_EntraHttp(self._session),
            instance_discovery=False,  # the authority is known; one outside dependency less
        )

    def _tokens(self, ask: "Callable[[msal.ConfidentialClientApplication], dict[str, Any]]") -> Tokens:
        with translated("Entra"):
            result = ask(self._application())
            if "error" in result:
                raise refusal(result, self._settings.client_authentication)
            newer, refresh_on = result.get("refresh_token"), result.get("refresh_on")
            return Tokens(
                _text(result["access_token"]),
                None if newer is None else _text(newer),
                timedelta(seconds=min(max(int(result["expires_in"]), 0), _LONGEST_LIFE)),
                # MSAL has made an instant of it, by the machine's clock
                None if refresh_on is None else timedelta(seconds=int(refresh_on) - time.time()),
                result.get("id_token_claims") or {},
            )

    def _client_credential(self) -> str | dict[str, Any]:
        match self._settings.client_authentication:
            case ClientSecret(value):
                return value
            case ClientCertificate(path):
                _check_certificate(path)
                return {"private_key_pfx_path": path, "public_certificate": True}
            case ClientManagedIdentity(client_id):
                identity = managed_identity(client_id, self._session)
                scope = f"{self._settings.cloud.token_exchange_audience}/.default"
                return {"client_assertion": lambda: identity.get_token(scope).token}


class _EntraHttp:
    """What MSAL calls; refuses what is no answer before MSAL sees it, since MSAL logs such bodies whole."""

    def __init__(self, session: "requests.Session") -> None:
        self._session = session

    def get(self, url: str, **kwargs: Any) -> "requests.Response":  # noqa: ANN401  # MSAL's
        return self._exchange("GET", url, kwargs)

    def post(self, url: str, **kwargs: Any) -> "requests.Response":  # noqa: ANN401  # MSAL's
        return self._exchange("POST", url, kwargs)

    def close(self) -> None:
        """The session is its opener's."""

    def _exchange(self, method: str, url: str, kwargs: dict[str, Any]) -> "requests.Response":
        kwargs |= {"timeout": (CONNECT_TIMEOUT, None), "auth": _no_netrc, "allow_redirects": False}
        response = self._session.request(method, url, **kwargs)
        status = response.status_code
        if status in (408, 429) or status >= 500:  # noqa: PLR2004  # HTTP's
            wait = retry_after(response.headers)
            raise UpstreamUnavailableError(f"Entra answered {status}", retry_after=wait)
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if method == "GET" and status >= 400:  # noqa: PLR2004  # HTTP's
            said = f": {refusal(answer, None).message}" if isinstance(answer, dict) else ""
            raise ConfigurationError(
                f"the authority does not know PARTNER_CENTER_TENANT_ID ({status}){said}",
                hint=hint(*reversed(codes_of(answer)), "AADSTS90002"),
            )
        if not isinstance(answer, dict):
            raise UpstreamUnavailableError(f"Entra answered {status} with something that is no JSON object")
        return response


def _no_netrc(request: "requests.PreparedRequest") -> "requests.PreparedRequest":
    """Keeps requests from adding an Authorization header of its own finding."""
    return request


def _check_certificate(path: str) -> None:
    """Raise ConfigurationError for what MSAL could not sign with."""
    from cryptography.hazmat.primitives.serialization.pkcs12 import load_key_and_certificates

    try:
        key, certificate, _ = load_key_and_certificates(Path(path).read_bytes(), None)
    except (OSError, ValueError):
        key, certificate = None, None
    if key is None or certificate is None:
        raise ConfigurationError(
            "PARTNER_CENTER_CLIENT_CERTIFICATE_PATH names no PFX file without a password"
        )


def _text(value: object) -> str:
    """A token, checked to be visible ASCII, as a header takes it. Raises ValueError."""
    if not isinstance(value, str) or not re.fullmatch(r"[\x21-\x7e]+", value):
        raise ValueError("no token")
    return value
