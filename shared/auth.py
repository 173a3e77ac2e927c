"""The App+User credential: a person consented once, a rotating refresh token is what is left of that.

No class of azure-identity redeems a refresh token, so this is one: an azure-core TokenCredential over
msal's acquire_token_by_refresh_token. A new MSAL application and session serve each redemption: one an
hour is cheap, and neither MSAL's throttle, which replays old errors, nor its token cache outlives it.
Source: learn.microsoft.com/partner-center/developer/partner-center-authentication, "App + User".
"""

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.clock import Clock
from shared.deadlines import CONNECT_TIMEOUT, azure_transport, retry_after, session_for
from shared.errors import (
    ConfigurationError,
    ConsentRequiredError,
    UpstreamUnavailableError,
    UsageSummaryError,
)
from shared.settings import (
    ClientCertificate,
    ClientManagedIdentity,
    ClientSecret,
    GivenRefreshToken,
    Settings,
    VaultSecret,
    is_on_this_machine,
)

if TYPE_CHECKING:
    import requests
    from azure.core.credentials import AccessToken, AccessTokenInfo, TokenCredential, TokenRequestOptions

REDEMPTION_TIME = timedelta(seconds=20)
"""For one redemption with all its calls: vault, identity, discovery, token."""

EXPIRY_MARGIN = timedelta(minutes=5)
"""A token is due this long before it expires, so that none expires on its way."""

_CONSENT_ERRORS = {"invalid_grant", "interaction_required", "consent_required", "login_required"}
_PASSING_ERRORS = {"temporarily_unavailable", "server_error"}


@dataclass(frozen=True, slots=True, repr=False)
class _Token:
    value: str
    asked_at: datetime
    expires_on: datetime


class AppUserCredential:
    """Access tokens of the person who consented, redeemed from a refresh token, one redemption at a time.

    Raises ConsentRequiredError when a person has to sign in again, ConfigurationError when Entra or the
    vault refuses the app, UpstreamUnavailableError and UpstreamTimeoutError when either does not answer.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._lock = threading.Lock()
        self._token: _Token | None = None
        self._refresh_token: str | None = None

    def get_token(
        self,
        *scopes: str,
        claims: str | None = None,  # noqa: ARG002  # the protocol's; Partner Center sends no claims challenge
        tenant_id: str | None = None,  # noqa: ARG002  # the protocol's; there is one tenant
        enable_cae: bool = False,  # noqa: ARG002  # the protocol's
        **kwargs: Any,  # noqa: ANN401  # the protocol's
    ) -> "AccessToken":
        """A token that is good for some minutes at least; `time_allowed` (timedelta) may shorten the wait."""
        from azure.core.credentials import AccessToken

        token = self._current(scopes, kwargs.get("time_allowed", REDEMPTION_TIME))
        return AccessToken(token.value, int(token.expires_on.timestamp()))

    def get_token_info(
        self,
        *scopes: str,
        options: "TokenRequestOptions | None" = None,  # noqa: ARG002  # the protocol's
    ) -> "AccessTokenInfo":
        """The same for clients that ask for more than a token."""
        from azure.core.credentials import AccessTokenInfo

        token = self._current(scopes, REDEMPTION_TIME)
        return AccessTokenInfo(token.value, int(token.expires_on.timestamp()))

    def forget(self, refused: str, *, consent: bool, older_than: timedelta = timedelta()) -> None:
        """Renew a refused token at the next call, unless it has been replaced or is not as old as that.

        With `consent` the next one comes of the stored consent, which a person may have given anew.
        """
        with self._lock:
            token = self._token
            if token and token.value == refused and self._clock.now() - token.asked_at >= older_than:
                self._token = None
                self._refresh_token = None if consent else self._refresh_token

    def _current(self, scopes: tuple[str, ...], time_allowed: timedelta) -> _Token:
        token = self._token
        if token is None or self._is_due(token):
            with self._lock:
                token = self._token
                if token is None or self._is_due(token):
                    self._token = token = self._redeemed(scopes, min(time_allowed, REDEMPTION_TIME))
        return token

    def _is_due(self, token: _Token) -> bool:
        return self._clock.now() >= token.expires_on - EXPIRY_MARGIN

    def _redeemed(self, scopes: tuple[str, ...], time_allowed: timedelta) -> _Token:
        """A new access token, by the newest refresh token known or, when that is refused, the stored one."""
        with session_for(time_allowed, self._settings.ca_bundle) as session:
            kept = self._refresh_token
            if kept is None:
                return self._redeem(session, self._stored(session), scopes)
            try:
                return self._redeem(session, kept, scopes)
            except ConsentRequiredError:
                self._refresh_token = None
                stored = self._stored(session)
                if stored == kept:
                    raise
            return self._redeem(session, stored, scopes)

    def _redeem(self, session: "requests.Session", refresh_token: str, scopes: tuple[str, ...]) -> _Token:
        import msal

        settings, asked = self._settings, self._clock.now()
        client_credential = self._client_credential(session)
        with _translated("Entra"):
            application = msal.ConfidentialClientApplication(
                settings.client_id,
                authority=f"{settings.cloud.authority}/{settings.tenant_id}",
                client_credential=client_credential,
                http_client=_EntraHttp(session),
                instance_discovery=False,  # the authority is known; one outside dependency less
            )
            result: dict[str, Any] = application.acquire_token_by_refresh_token(refresh_token, list(scopes))
            if "error" in result:
                raise _refusal(result)
            value, life = _text(result["access_token"]), timedelta(seconds=int(result["expires_in"]))
            token = _Token(value, asked, asked + life)
            self._refresh_token = _text(result.get("refresh_token", refresh_token))
        return token

    def _client_credential(self, session: "requests.Session") -> str | dict[str, Any]:
        match self._settings.client_authentication:
            case ClientSecret(value):
                return value
            case ClientCertificate(path):
                _check_certificate(path)
                return {"private_key_pfx_path": path, "public_certificate": True}
            case ClientManagedIdentity(client_id):
                identity = _managed_identity(client_id, session)
                scope = f"{self._settings.cloud.token_exchange_audience}/.default"
                return {"client_assertion": lambda: identity.get_token(scope).token}

    def _stored(self, session: "requests.Session") -> str:
        match self._settings.refresh_token:
            case GivenRefreshToken(value):
                return value
            case VaultSecret(vault_url, name):
                return self._read_vault(session, vault_url, name)

    def _read_vault(self, session: "requests.Session", vault_url: str, name: str) -> str:
        from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
        from azure.keyvault.secrets import SecretClient

        with _translated("the vault or the identity"):
            client = SecretClient(
                vault_url,
                _managed_identity(self._settings.identity_client_id, session),
                transport=azure_transport(session),
                # A vault on this machine is a simulator: it cannot bear the domain that it asks a token for.
                verify_challenge_resource=not is_on_this_machine(vault_url),
                retry_total=0,
            )
            try:
                value = client.get_secret(name).value
            except ResourceNotFoundError:
                value = ""
            except HttpResponseError as error:
                if error.status_code not in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
                    raise
                refused = f"the vault or the identity refuses the app ({error.status_code})"
                raise ConfigurationError(refused) from None
            if not value:
                raise ConsentRequiredError(f"the vault has no secret {name}: no consent is stored yet")
            return _text(value)


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
        if method == "GET" and status >= 400:  # noqa: PLR2004  # HTTP's
            raise ConfigurationError(f"the authority does not know PARTNER_CENTER_TENANT_ID ({status})")
        try:
            understood = isinstance(response.json(), dict)
        except ValueError:
            understood = False
        if not understood:
            raise UpstreamUnavailableError(f"Entra answered {status} with something that is no JSON object")
        return response


def _no_netrc(request: "requests.PreparedRequest") -> "requests.PreparedRequest":
    """Keeps requests from adding an Authorization header of its own finding."""
    return request


def _managed_identity(client_id: str | None, session: "requests.Session") -> "TokenCredential":
    from azure.identity import ManagedIdentityCredential

    return ManagedIdentityCredential(client_id=client_id, transport=azure_transport(session), retry_total=0)


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


@contextmanager
def _translated(who: str) -> Iterator[None]:
    """What MSAL and the SDK raise over answers that make no sense: anything.

    It is not chained: such an exception may hold the answer, and the answer a token.
    """
    import requests

    try:
        yield
    except (UsageSummaryError, requests.RequestException):
        raise
    except Exception as error:  # noqa: BLE001  # see above
        raise UpstreamUnavailableError(f"{who} failed or makes no sense ({_kind(error)})") from None


def _refusal(result: Mapping[str, Any]) -> UsageSummaryError:
    """The error of a token answer, sorted by its OAuth `error`: numbers may change, Microsoft says."""
    error = _word(result.get("error"))
    numbers = result.get("error_codes")
    codes = [f"AADSTS{number}" for number in numbers] if isinstance(numbers, list) else []
    ids = [f"{name} {_word(result.get(name))}" for name in ("trace_id", "correlation_id") if result.get(name)]
    message = f"Entra answered {' '.join([error, *map(_word, codes)])} ({', '.join(ids)})"
    if error in _CONSENT_ERRORS:
        return ConsentRequiredError(message)
    if error in _PASSING_ERRORS:
        return UpstreamUnavailableError(message)
    return ConfigurationError(message)


def _text(value: object) -> str:
    """A token, checked to be one. Raises ValueError."""
    if not isinstance(value, str) or not value:
        raise ValueError("no text")
    return value


def _word(value: object) -> str:
    """A code or an id of a foreign answer, or what shows that it is none."""
    text = str(value)
    return text if re.fullmatch(r"[\w.-]{1,64}", text) else "(unreadable)"


def _kind(error: Exception) -> str:
    """An exception without its text, which may hold anything."""
    return " ".join(map(str, filter(None, (type(error).__name__, getattr(error, "status_code", None)))))
