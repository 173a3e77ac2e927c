"""A command's settings, as whom it signs in to Azure, and what it reads from standard input."""

import getpass
import json
import os
import sys
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.app import open_record
from shared.clock import Clock
from shared.configuration import read_partner_center_settings, read_record_settings
from shared.errors import ConfigurationError
from shared.history import History
from shared.record import Record
from shared.settings import ClientManagedIdentity, ClientSecret, PartnerCenterSettings, VaultSecret
from shared.values import Values
from shared.vault import Vault

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken
    from azure.identity import DefaultAzureCredential

PATIENCE = timedelta(seconds=60)
"""For one errand at the vault or at Entra: az may need some seconds for a token."""

_SPARE_SECONDS = 300
_LOCAL_SETTINGS = Path("local.settings.json")


def environment() -> dict[str, str]:
    """The values of local.settings.json, if there is one, and the environment, which goes first.

    Raises ConfigurationError when the file cannot be read.
    """
    values: dict[str, str] = {}
    if _LOCAL_SETTINGS.exists():
        try:
            document = json.loads(_LOCAL_SETTINGS.read_text(encoding="utf-8-sig"))
            values = {name: str(value) for name, value in document["Values"].items() if value is not None}
            is_encrypted = document.get("IsEncrypted")
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            raise ConfigurationError(f"{_LOCAL_SETTINGS} is no JSON object with Values") from None
        if is_encrypted:
            raise ConfigurationError(f"{_LOCAL_SETTINGS} is encrypted", hint="Run func settings decrypt.")
    return values | os.environ


def ca_bundle() -> str | None:
    """The authorities to trust, where the settings name any. Raises ConfigurationError."""
    return setting_and_ca_bundle("REQUESTS_CA_BUNDLE")[1]


def setting_and_ca_bundle(name: str) -> tuple[str, str | None]:
    """A command's own setting, empty where it is not set, and the authorities to trust.

    Raises ConfigurationError.
    """
    values = Values(environment(), os.path.exists)
    text = values.text(name)
    values.raise_faults()
    return text, values.ca_bundle


def partner_center_settings() -> PartnerCenterSettings:
    """The settings for signing in. Raises ConfigurationError, which names all that are wrong."""
    return read_partner_center_settings(environment(), os.path.exists)


def record() -> tuple[Record, History]:
    """The record and its history for the person who runs this. Raises ConfigurationError."""
    return open_record(read_record_settings(environment(), os.path.exists), Clock(), Operator())


def with_client_secret[Kind: PartnerCenterSettings](settings: Kind) -> Kind:
    """The same where the app has a secret or certificate; else with a secret from standard input.

    A managed identity is not to be had here; and a refresh token belongs to the app, not to the credential
    that it was redeemed with. Raises ConfigurationError when standard input has none.
    """
    if not isinstance(settings.client_authentication, ClientManagedIdentity):
        return settings
    secret = read_secret("Client secret")
    if not secret:
        raise ConfigurationError(
            "standard input has no client secret, and the app's managed identity is not to be had here",
            hint="Pipe a short-lived client secret into this command; its --help shows how to make one.",
        )
    return replace(settings, client_authentication=ClientSecret(secret))


def read_secret(prompt: str) -> str:
    """A line of standard input; a person is asked for it and does not see it.

    Raises ConfigurationError when it is no text that a token or a key can be.
    """
    try:
        is_typed = sys.stdin is not None and sys.stdin.isatty()
        line = getpass.getpass(f"{prompt}: ") if is_typed else sys.stdin.readline() if sys.stdin else ""
    except UnicodeDecodeError:
        line = "\0"
    if not (line.strip().isascii() and line.strip().isprintable()):
        raise ConfigurationError(f"standard input is no text: {prompt.lower()} wanted")
    return line.strip()


def vault_of(settings: PartnerCenterSettings) -> tuple[Vault, str]:
    """The secret of the settings for the person who runs this, and its address.

    Raises ConfigurationError when the settings hold the token itself.
    """
    secret = settings.refresh_token
    if not isinstance(secret, VaultSecret):
        raise ConfigurationError(
            "PARTNER_CENTER_REFRESH_TOKEN is read only",
            hint="Set PARTNER_CENTER_REFRESH_TOKEN_SECRET to the address of a Key Vault secret instead.",
        )
    operator = Operator()
    return Vault(secret, lambda _: operator), f"{secret.vault_url}/secrets/{secret.name}"


class Operator:
    """The person who runs this, by `az login` and the like."""

    def __init__(self) -> None:
        self._tokens: dict[tuple[object, ...], AccessToken] = {}

    def get_token(self, *scopes: str, **kwargs: Any) -> "AccessToken":  # noqa: ANN401  # the protocol's
        """Raises ConfigurationError when nobody is signed in."""
        from azure.core.exceptions import ClientAuthenticationError

        wanted = (*scopes, kwargs.get("tenant_id"))
        kept = self._tokens.get(wanted)  # az keeps none, and takes seconds
        if kept is not None and kept.expires_on > time.time() + _SPARE_SECONDS:
            return kept
        try:
            with _default_credential() as credential:
                token = self._tokens[wanted] = credential.get_token(*scopes, **kwargs)
        except ClientAuthenticationError:
            raise ConfigurationError(
                "nobody is signed in to Azure here", hint="Run az login as one who may use the vault."
            ) from None
        return token


def _default_credential() -> "DefaultAzureCredential":
    """Azure's own chain of credentials, where a managed identity is asked past every proxy.

    The other credentials ask Entra, also that of a workload of Kubernetes: they take proxies from the
    environment.
    """
    from azure.identity import DefaultAzureCredential, ManagedIdentityCredential

    verify = {"connection_verify": ca_bundle() or True}
    chain = DefaultAzureCredential(**verify)
    if any(isinstance(each, ManagedIdentityCredential) for each in chain.credentials):
        direct = DefaultAzureCredential(
            **verify, use_env_settings=False, exclude_workload_identity_credential=True
        )
        (platform,) = (each for each in direct.credentials if isinstance(each, ManagedIdentityCredential))
        chain.credentials = tuple(
            platform if isinstance(each, ManagedIdentityCredential) else each for each in chain.credentials
        )
    return chain
