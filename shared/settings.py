"""What the app is set to: frozen dataclasses. `configuration` reads them."""

from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import ip_address
from urllib.parse import urlsplit

from shared.clouds import Cloud


@dataclass(frozen=True, slots=True)
class ClientSecret:
    """The app registration's secret."""

    value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A PFX file without a password."""

    path: str


@dataclass(frozen=True, slots=True)
class ClientManagedIdentity:
    """A managed identity that the app registration trusts (federated credential): no secret at all."""

    client_id: str


type ClientAuthentication = ClientSecret | ClientCertificate | ClientManagedIdentity


@dataclass(frozen=True, slots=True)
class VaultSecret:
    """A Key Vault secret, read and written back."""

    vault_url: str
    name: str


@dataclass(frozen=True, slots=True)
class GivenRefreshToken:
    """The refresh token itself, read only, for trials."""

    value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class StorageConnection:
    """A storage account: by connection string, or by address and the platform's identity."""

    connection_string: str | None = field(default=None, repr=False)
    blob_service_uri: str | None = None
    client_id: str | None = None


@dataclass(frozen=True, slots=True)
class Freshness:
    """How long an answer serves, counted from the instant its request was sent."""

    fresh: timedelta = timedelta(hours=1)
    stale_while_revalidate: timedelta = timedelta(hours=1)
    stale_if_error: timedelta = timedelta(days=1)
    min_refresh: timedelta = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class PartnerCenterSettings:
    """What a call of Partner Center needs; `identity_client_id` and `ca_bundle`: None is the platform's."""

    cloud: Cloud
    tenant_id: str
    client_id: str
    client_authentication: ClientAuthentication
    refresh_token: VaultSecret | GivenRefreshToken
    identity_client_id: str | None
    ca_bundle: str | None


@dataclass(frozen=True, slots=True)
class RecordSettings:
    """Where the record is kept."""

    storage: StorageConnection
    snapshot_container: str
    history_container: str
    ca_bundle: str | None


@dataclass(frozen=True, slots=True)
class Settings(PartnerCenterSettings):
    """All settings, checked; but for the schedule, which the platform judges."""

    record: RecordSettings
    cache_storage: StorageConnection
    cache_container: str
    freshness: Freshness
    snapshot_schedule: str


def is_on_this_machine(address: str) -> bool:
    """Whether an address is a loopback one, where nobody but this machine answers."""
    host = urlsplit(address).hostname
    try:
        return host == "localhost" or (host is not None and ip_address(host).is_loopback)
    except ValueError:
        return False
