"""Where the refresh token lives: a Key Vault secret, read, and written back as a new version.

The tag `issued_at` says when a version's token was issued, the version's expiry when that token dies, so that
Key Vault's own warnings of near expiry are right. Of several writers the last one wins, harmlessly: Entra
does not revoke a refresh token when it gives a new one.
Source: learn.microsoft.com/entra/identity-platform/refresh-tokens, "Token lifetime".
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING

from shared.deadlines import azure_transport, translated
from shared.errors import ConfigurationError, ConsentRequiredError
from shared.hints import hint
from shared.settings import VaultSecret, is_on_this_machine

if TYPE_CHECKING:
    import requests
    from azure.core.credentials import TokenCredential
    from azure.core.exceptions import HttpResponseError
    from azure.keyvault.secrets import KeyVaultSecret, SecretClient

REFRESH_TOKEN_LIFE = timedelta(days=90)
"""From its issue, unless it is revoked."""

_EARLIEST = datetime(2015, 1, 1, tzinfo=UTC)  # no refresh token of the v2.0 endpoint is older
_CONTENT_TYPE = "OAuth 2.0 refresh token"
_REFUSALS = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.CONFLICT)


@dataclass(frozen=True, slots=True)
class StoredToken:
    """A version of the secret, and when its token was issued."""

    value: str = field(repr=False)
    version: str
    issued_at: datetime
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def expires_on(self) -> datetime:
        """The end of the token's life, if it is not revoked before."""
        return self.issued_at + REFRESH_TOKEN_LIFE


class Vault:
    """One secret, for the identity that `identity` makes for a session.

    Every method raises ConfigurationError when the vault refuses that identity, UpstreamUnavailableError and
    UpstreamTimeoutError when it does not answer.
    """

    def __init__(
        self, secret: VaultSecret, identity: "Callable[[requests.Session], TokenCredential]"
    ) -> None:
        self._secret = secret
        self._identity = identity

    def read(self, session: "requests.Session") -> StoredToken:
        """The newest version. Raises ConsentRequiredError when there is none, or it is disabled."""
        from azure.core.exceptions import ResourceNotFoundError

        with self._client(session) as client:
            try:
                secret = client.get_secret(self._secret.name)
            except ResourceNotFoundError:
                secret = None
            if secret is None or not secret.value:
                raise ConsentRequiredError(
                    f"the vault has no secret {self._secret.name}: no consent is stored yet",
                    hint=hint("SecretNotFound"),
                )
            return _stored(secret)

    def write(
        self, session: "requests.Session", token: str, issued_at: datetime, tags: Mapping[str, str]
    ) -> StoredToken:
        """Store a token as a new version."""
        with self._client(session) as client:
            return _stored(
                client.set_secret(
                    self._secret.name,
                    token,
                    content_type=_CONTENT_TYPE,
                    tags={**tags, "issued_at": issued_at.isoformat(timespec="seconds")},
                    expires_on=issued_at + REFRESH_TOKEN_LIFE,
                )
            )

    def disable(self, session: "requests.Session", version: str) -> None:
        """Disable a version: Key Vault deletes none."""
        with self._client(session) as client:
            client.update_secret_properties(self._secret.name, version, enabled=False)

    def recover(self, session: "requests.Session") -> bool:
        """Recover the secret if it is soft-deleted; whether it was. Waits until it can be written."""
        from azure.core.exceptions import ResourceNotFoundError

        with self._client(session) as client:
            try:
                client.get_deleted_secret(self._secret.name)
            except ResourceNotFoundError:
                return False
            client.begin_recover_deleted_secret(self._secret.name).wait()
            return True

    @contextmanager
    def _client(self, session: "requests.Session") -> "Iterator[SecretClient]":
        from azure.core.exceptions import HttpResponseError
        from azure.keyvault.secrets import SecretClient

        with translated("the vault or the identity"):
            client = SecretClient(
                self._secret.vault_url,
                self._identity(session),
                transport=azure_transport(session),
                # A vault on this machine is a simulator: it cannot bear the domain that it asks a token for.
                verify_challenge_resource=not is_on_this_machine(self._secret.vault_url),
                retry_total=0,
                permit_redirects=False,
            )
            try:
                yield client
            except HttpResponseError as error:
                raise _refusal(error) from None


def _stored(secret: "KeyVaultSecret") -> StoredToken:
    properties = secret.properties
    if not isinstance(secret.value, str) or not properties.version or not properties.updated_on:
        raise ValueError("no version of a secret")
    tags = properties.tags or {}
    issued_at = updated = properties.updated_on.astimezone(UTC)
    with suppress(ValueError, TypeError):  # stored by other means, without the tag
        tagged = datetime.fromisoformat(tags.get("issued_at", ""))
        issued_at = tagged if _EARLIEST < tagged < updated else updated
    return StoredToken(secret.value, properties.version, issued_at, tags)


def _refusal(error: "HttpResponseError") -> Exception:
    """What an error of the vault or the identity means; the error itself where it is no refusal."""
    status, inner = error.status_code, getattr(error.error, "innererror", None)
    code = inner.get("code") if isinstance(inner, dict) else None
    reason = code if isinstance(code, str) and code.isascii() and code.isalnum() else None
    said = f"({status} {reason})" if reason else f"({status})"
    if reason == "SecretDisabled":
        return ConsentRequiredError(f"the stored consent is disabled {said}", hint=hint(reason))
    if status not in _REFUSALS:
        return error
    fallback = "ForbiddenByRbac" if status == HTTPStatus.FORBIDDEN else None
    return ConfigurationError(f"the vault or the identity refuses access {said}", hint=hint(reason, fallback))
