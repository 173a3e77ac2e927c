"""The app's settings: one frozen dataclass from a mapping, all faults reported at once.

An empty value is a missing one. A fault names the setting and what it allows, never the value given:
a secret may have been pasted into the wrong place.
"""

import re
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from ipaddress import ip_address
from urllib.parse import urlsplit

from shared.clouds import CLOUDS, Cloud
from shared.errors import ConfigurationError
from shared.guids import is_guid

_DOMAIN = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+", re.IGNORECASE)
_CONTAINER = re.compile(r"(?=.{3,63}$)[a-z0-9]+(-[a-z0-9]+)*")
_SECRET_PATH = re.compile(r"/secrets/([0-9A-Za-z-]{1,127})/?")
_DELTA_SECONDS_LIMIT = 2**31 - 1
"""HTTP's largest delta-seconds that everybody understands (RFC 9111, 1.2.2)."""


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
    """All settings, checked."""

    record: RecordSettings
    cache_storage: StorageConnection
    cache_container: str
    freshness: Freshness


def read_settings(environ: Mapping[str, str], exists: Callable[[str], bool] = bool) -> Settings:
    """The settings in a mapping of names to values; `exists` tells whether a path names a file.

    Raises ConfigurationError, which names every setting that is missing, wrong or contradictory.
    """
    reader = _Reader(environ, exists)
    partner_center = _partner_center(reader)
    record_storage, cache_storage = _storage(reader)
    settings = Settings(
        **{each.name: getattr(partner_center, each.name) for each in fields(partner_center)},
        record=_record(reader, record_storage),
        cache_storage=cache_storage,
        cache_container=reader.container("USAGE_CACHE_CONTAINER", "usage-cache"),
        freshness=Freshness(
            fresh=reader.seconds("USAGE_CACHE_FRESH_SECONDS", 3600, at_least=1),
            stale_while_revalidate=reader.seconds(
                "USAGE_CACHE_STALE_WHILE_REVALIDATE_SECONDS", 3600, at_least=0
            ),
            stale_if_error=reader.seconds("USAGE_CACHE_STALE_IF_ERROR_SECONDS", 86400, at_least=0),
            min_refresh=reader.seconds("USAGE_CACHE_MIN_REFRESH_SECONDS", 60, at_least=1),
        ),
    )
    reader.raise_faults()
    return settings


def read_partner_center_settings(
    environ: Mapping[str, str], exists: Callable[[str], bool] = bool
) -> PartnerCenterSettings:
    """The same without storage and freshness, for those who only sign in."""
    reader = _Reader(environ, exists)
    settings = _partner_center(reader)
    reader.raise_faults()
    return settings


def read_record_settings(environ: Mapping[str, str], exists: Callable[[str], bool] = bool) -> RecordSettings:
    """Where the record is kept, for those who only look after it. Raises ConfigurationError."""
    reader = _Reader(environ, exists)
    settings = _record(reader, _storage(reader)[0])
    reader.raise_faults()
    return settings


class _Reader:
    """Reads values and gathers faults; what it returns beside a fault is never used."""

    def __init__(self, environ: Mapping[str, str], exists: Callable[[str], bool]) -> None:
        self._environ = environ
        self._exists = exists
        self.faults: list[str] = []
        self.ca_bundle = self.file("REQUESTS_CA_BUNDLE") or self.file("SSL_CERT_FILE")

    def text(self, name: str) -> str:
        return self._environ.get(name, "").strip()

    def fault(self, name: str, allowed: str) -> None:
        self.faults.append(f"{name} {'is wrong' if self.text(name) else 'is missing'}: {allowed}")

    def raise_faults(self) -> None:
        if self.faults:
            raise ConfigurationError("; ".join(self.faults))

    def such(self, name: str, allowed: str, is_right: Callable[[str], object]) -> str:
        value = self.text(name)
        if not is_right(value):
            self.fault(name, allowed)
        return value

    def file(self, name: str) -> str | None:
        path = self.text(name) or None
        if path is not None and not self._exists(path):
            self.fault(name, "the path of a file that exists")
        return path

    def container(self, name: str, default: str) -> str:
        if not self.text(name):
            return default
        allowed = "a container's name: 3 to 63 lower-case letters, digits and single hyphens"
        return self.such(name, allowed, _CONTAINER.fullmatch)

    def seconds(self, name: str, default: int, *, at_least: int) -> timedelta:
        text = self.text(name) or str(default)
        if text.isascii() and text.isdigit():
            seconds = int((text.lstrip("0") or "0")[:11])  # enough to be too large
            if at_least <= seconds <= _DELTA_SECONDS_LIMIT:
                return timedelta(seconds=seconds)
        self.fault(name, f"whole seconds, from {at_least} to {_DELTA_SECONDS_LIMIT}")
        return timedelta(seconds=default)

    def address(self, name: str, *, plain_on_loopback: bool = True) -> str:
        """An https address without query; http is taken only where it cannot leave this machine."""
        value = self.text(name).rstrip("/")
        try:
            url = urlsplit(value)
            url.port  # noqa: B018  # raises where the port is no number
        except ValueError:
            url = urlsplit("")
        plain = plain_on_loopback and url.scheme == "http" and _is_loopback(url.hostname)
        whole = url.hostname and not (url.query or url.fragment or url.username or url.password)
        if not whole or not (url.scheme == "https" or plain):
            self.fault(name, "an https address without user, query or fragment")
            return ""
        return value

    def exactly_one(self, *names: str) -> str | None:
        given = [name for name in names if self.text(name)]
        if len(given) == 1:
            return given[0]
        problem = f"{' and '.join(given)} exclude each other" if given else "missing"
        self.faults.append(f"exactly one of {', '.join(names)} must be set: {problem}")
        return None


def is_on_this_machine(address: str) -> bool:
    """Whether an address is a loopback one, where nobody but this machine answers."""
    return _is_loopback(urlsplit(address).hostname)


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or (host is not None and ip_address(host).is_loopback)
    except ValueError:
        return False


def _partner_center(reader: _Reader) -> PartnerCenterSettings:
    reader.file("PARTNER_CENTER_CLIENT_CERTIFICATE_PATH")
    return PartnerCenterSettings(
        cloud=_cloud(reader),
        tenant_id=reader.such(
            "PARTNER_CENTER_TENANT_ID",
            "the partner's tenant: a GUID or a domain name",
            lambda text: is_guid(text) or _DOMAIN.fullmatch(text),
        ),
        client_id=reader.such("PARTNER_CENTER_CLIENT_ID", "the app registration's id: a GUID", is_guid),
        client_authentication=_client_authentication(reader),
        refresh_token=_refresh_token(reader),
        identity_client_id=reader.text("AZURE_CLIENT_ID") or None,
        ca_bundle=reader.ca_bundle,
    )


def _cloud(reader: _Reader) -> Cloud:
    name = reader.text("PARTNER_CENTER_CLOUD").lower() or "global"
    overrides = {
        key: reader.address(setting, plain_on_loopback=key == "base_url")  # MSAL takes no other authority
        for key, setting in (
            ("base_url", "PARTNER_CENTER_BASE_URL"),
            ("authority", "PARTNER_CENTER_AUTHORITY"),
        )
        if reader.text(setting)
    }
    cloud = CLOUDS.get(name)
    if cloud is None:
        reader.fault("PARTNER_CENTER_CLOUD", "global or usgov")
        return CLOUDS["global"]
    if cloud.refused and len(overrides) < 2:  # noqa: PLR2004  # both
        reader.faults.append(
            f"PARTNER_CENTER_CLOUD {name} is refused: {cloud.refused}; use global or usgov, "
            "or set both PARTNER_CENTER_BASE_URL and PARTNER_CENTER_AUTHORITY"
        )
    return replace(cloud, **overrides)


def _client_authentication(reader: _Reader) -> ClientAuthentication:
    match reader.exactly_one(
        "PARTNER_CENTER_CLIENT_SECRET",
        "PARTNER_CENTER_CLIENT_CERTIFICATE_PATH",
        "PARTNER_CENTER_CLIENT_MANAGED_IDENTITY",
    ):
        case "PARTNER_CENTER_CLIENT_CERTIFICATE_PATH" as name:
            return ClientCertificate(reader.text(name))
        case "PARTNER_CENTER_CLIENT_MANAGED_IDENTITY" as name:
            return ClientManagedIdentity(reader.such(name, "an identity's client id: a GUID", is_guid))
        case _:
            return ClientSecret(reader.text("PARTNER_CENTER_CLIENT_SECRET"))


def _refresh_token(reader: _Reader) -> VaultSecret | GivenRefreshToken:
    name = reader.exactly_one("PARTNER_CENTER_REFRESH_TOKEN_SECRET", "PARTNER_CENTER_REFRESH_TOKEN")
    if name != "PARTNER_CENTER_REFRESH_TOKEN_SECRET":
        return GivenRefreshToken(reader.text("PARTNER_CENTER_REFRESH_TOKEN"))
    address = urlsplit(reader.address(name, plain_on_loopback=False))
    path = _SECRET_PATH.fullmatch(address.path)
    if path is None:
        if address.netloc:  # else that is said already
            reader.fault(name, "a secret's address without a version: https://<vault>/secrets/<name>")
        return VaultSecret("", "")
    return VaultSecret(f"https://{address.netloc}", path[1])


def _record(reader: _Reader, storage: StorageConnection) -> RecordSettings:
    return RecordSettings(
        storage=storage,
        snapshot_container=reader.container("USAGE_SNAPSHOT_CONTAINER", "usage"),
        history_container=reader.container("USAGE_HISTORY_CONTAINER", "usage-history"),
        ca_bundle=reader.ca_bundle,
    )


def _storage(reader: _Reader) -> tuple[StorageConnection, StorageConnection]:
    """The record's account and the account of the shared answer."""
    record, host = _connection(reader, "USAGE_STORAGE"), _connection(reader, "AzureWebJobsStorage")
    if record is None and host is None:
        reader.faults.append(
            "USAGE_STORAGE is missing: a connection string, or USAGE_STORAGE__blobServiceUri, or either of "
            "AzureWebJobsStorage"
        )
    nowhere = StorageConnection()
    return record or host or nowhere, host or record or nowhere


def _connection(reader: _Reader, name: str) -> StorageConnection | None:
    """A storage connection by the platform's convention: a string, or `__` settings for an identity.

    Source: learn.microsoft.com/azure/azure-functions/functions-reference, "Connections".
    """
    connection_string, account = reader.text(name), reader.text(f"{name}__accountName")
    uri_names = [each for each in (f"{name}__blobServiceUri", f"{name}__serviceUri") if reader.text(each)]
    if connection_string and (uri_names or account):
        reader.faults.append(f"{name} and {name}__… exclude each other")
    if connection_string:
        if not _is_connection_string(connection_string):
            reader.fault(name, "a storage connection string with an account and its key, or a signature")
        return StorageConnection(connection_string=connection_string)
    client_id = reader.text(f"{name}__clientId") or reader.text("AZURE_CLIENT_ID") or None
    if reader.text(f"{name}__clientId") and not (uri_names or account):
        reader.fault(f"{name}__blobServiceUri", "the account's address, which the identity is for")
    if uri_names:
        return StorageConnection(blob_service_uri=reader.address(uri_names[0]), client_id=client_id)
    if account:
        uri = f"https://{account}.blob.core.windows.net"
        return StorageConnection(blob_service_uri=uri, client_id=client_id)
    return None


def _is_connection_string(text: str) -> bool:
    """Whether the SDK can make an account and a credential of it."""
    parts = [part.partition("=") for part in text.strip(";").split(";")]
    pairs = {name: value for name, _, value in parts}
    try:
        has_key = bool(pairs.get("AccountName") and b64decode(pairs.get("AccountKey", ""), validate=True))
    except ValueError:
        has_key = False
    has_signature = "SharedAccessSignature" in pairs and bool({"AccountName", "BlobEndpoint"} & pairs.keys())
    return all(value for _, _, value in parts) and (
        has_key or has_signature or pairs.get("UseDevelopmentStorage") == "true"
    )
