"""The settings, read from a mapping of names to values: defaults, alternatives, what excludes what."""

import re
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from urllib.parse import urlsplit

from shared.clouds import CLOUDS, Cloud
from shared.guids import is_guid
from shared.settings import (
    ClientAuthentication,
    ClientCertificate,
    ClientManagedIdentity,
    ClientSecret,
    Freshness,
    GivenRefreshToken,
    PartnerCenterSettings,
    RecordSettings,
    Settings,
    StorageConnection,
    VaultSecret,
)
from shared.values import Values

_DOMAIN = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+", re.IGNORECASE)
_SECRET_PATH = re.compile(r"/secrets/([0-9A-Za-z-]{1,127})/?")


def read_settings(environ: Mapping[str, str], exists: Callable[[str], bool] = bool) -> Settings:
    """The settings in a mapping of names to values; `exists` tells whether a path names a file.

    Raises ConfigurationError, which names every setting that is missing, wrong or contradictory.
    """
    values = Values(environ, exists)
    partner_center = _partner_center(values)
    record_storage, cache_storage = _storage(values)
    settings = Settings(
        **{each.name: getattr(partner_center, each.name) for each in fields(partner_center)},
        record=_record(values, record_storage),
        cache_storage=cache_storage,
        cache_container=values.container("USAGE_CACHE_CONTAINER", "usage-cache"),
        freshness=Freshness(
            fresh=values.seconds("USAGE_CACHE_FRESH_SECONDS", "3600", at_least=1),
            stale_while_revalidate=values.seconds("USAGE_CACHE_STALE_WHILE_REVALIDATE_SECONDS", "3600"),
            stale_if_error=values.seconds("USAGE_CACHE_STALE_IF_ERROR_SECONDS", "86400"),
            min_refresh=values.seconds("USAGE_CACHE_MIN_REFRESH_SECONDS", "60", at_least=1),
        ),
        snapshot_schedule=values.text("SNAPSHOT_SCHEDULE"),
    )
    values.raise_faults()
    return settings


def read_partner_center_settings(
    environ: Mapping[str, str], exists: Callable[[str], bool] = bool
) -> PartnerCenterSettings:
    """The same without storage and freshness, for those who only sign in."""
    values = Values(environ, exists)
    settings = _partner_center(values)
    values.raise_faults()
    return settings


def read_record_settings(environ: Mapping[str, str], exists: Callable[[str], bool] = bool) -> RecordSettings:
    """Where the record is kept, for those who only look after it. Raises ConfigurationError."""
    values = Values(environ, exists)
    settings = _record(values, _storage(values)[0])
    values.raise_faults()
    return settings


def _partner_center(values: Values) -> PartnerCenterSettings:
    values.file("PARTNER_CENTER_CLIENT_CERTIFICATE_PATH")
    return PartnerCenterSettings(
        cloud=_cloud(values),
        tenant_id=values.such(
            "PARTNER_CENTER_TENANT_ID",
            "the partner's tenant: a GUID or a domain name",
            lambda text: is_guid(text) or _DOMAIN.fullmatch(text),
        ),
        client_id=values.guid("PARTNER_CENTER_CLIENT_ID", "the app registration's id"),
        client_authentication=_client_authentication(values),
        refresh_token=_refresh_token(values),
        identity_client_id=values.text("AZURE_CLIENT_ID") or None,
        ca_bundle=values.ca_bundle,
    )


def _cloud(values: Values) -> Cloud:
    name = values.text("PARTNER_CENTER_CLOUD").lower() or "global"
    base_url, authority = "PARTNER_CENTER_BASE_URL", "PARTNER_CENTER_AUTHORITY"
    overrides = {}
    if values.text(base_url):
        overrides["base_url"] = values.address(base_url)
    if values.text(authority):
        overrides["authority"] = values.address(authority, plain_on_loopback=False)  # MSAL takes no other
    cloud = CLOUDS.get(name)
    if cloud is None:
        values.fault("PARTNER_CENTER_CLOUD", "global or usgov")
        return CLOUDS["global"]
    if cloud.refused and len(overrides) < 2:  # noqa: PLR2004  # both
        values.faults.append(
            f"PARTNER_CENTER_CLOUD {name} is refused: {cloud.refused}; use global or usgov, "
            f"or set both {base_url} and {authority}"
        )
    return replace(cloud, **overrides)


def _client_authentication(values: Values) -> ClientAuthentication:
    secret, certificate = "PARTNER_CENTER_CLIENT_SECRET", "PARTNER_CENTER_CLIENT_CERTIFICATE_PATH"
    identity = "PARTNER_CENTER_CLIENT_MANAGED_IDENTITY"
    given = values.exactly_one(secret, certificate, identity)
    if given == certificate:
        return ClientCertificate(values.text(certificate))
    if given == identity:
        return ClientManagedIdentity(values.guid(identity, "an identity's client id"))
    return ClientSecret(values.text(secret))


def _refresh_token(values: Values) -> VaultSecret | GivenRefreshToken:
    secret, token = "PARTNER_CENTER_REFRESH_TOKEN_SECRET", "PARTNER_CENTER_REFRESH_TOKEN"  # names
    if values.exactly_one(secret, token) != secret:
        return GivenRefreshToken(values.text(token))
    address = urlsplit(values.address(secret, plain_on_loopback=False))
    path = _SECRET_PATH.fullmatch(address.path)
    if path is not None:
        return VaultSecret(f"https://{address.netloc}", path[1])
    if address.netloc:  # else that is said already
        values.fault(secret, "a secret's address without a version: https://<vault>/secrets/<name>")
    return VaultSecret("", "")


def _record(values: Values, storage: StorageConnection) -> RecordSettings:
    return RecordSettings(
        storage=storage,
        snapshot_container=values.container("USAGE_SNAPSHOT_CONTAINER", "usage"),
        history_container=values.container("USAGE_HISTORY_CONTAINER", "usage-history"),
        ca_bundle=values.ca_bundle,
    )


def _storage(values: Values) -> tuple[StorageConnection, StorageConnection]:
    """The record's account and the account of the shared answer."""
    record, host = _connection(values, "USAGE_STORAGE"), _connection(values, "AzureWebJobsStorage")
    if record is None and host is None:
        values.faults.append(
            "USAGE_STORAGE is missing: a connection string, or USAGE_STORAGE__blobServiceUri, or either of "
            "AzureWebJobsStorage"
        )
    nowhere = StorageConnection()
    return record or host or nowhere, host or record or nowhere


def _connection(values: Values, name: str) -> StorageConnection | None:
    """A storage connection by the platform's convention: a string, or `__` settings for an identity.

    Source: learn.microsoft.com/azure/azure-functions/functions-reference, "Connections".
    """
    account, own_identity = values.text(f"{name}__accountName"), values.text(f"{name}__clientId")
    uris = [each for each in (f"{name}__blobServiceUri", f"{name}__serviceUri") if values.text(each)]
    if values.text(name):
        if uris or account:
            values.faults.append(f"{name} and {name}__… exclude each other")
        allowed = "a storage connection string with an account and its key, or a signature"
        return StorageConnection(connection_string=values.such(name, allowed, _is_connection_string))
    if uris or account:
        uri = values.address(uris[0]) if uris else f"https://{account}.blob.core.windows.net"
        identity = own_identity or values.text("AZURE_CLIENT_ID") or None
        return StorageConnection(blob_service_uri=uri, client_id=identity)
    if own_identity:
        values.fault(f"{name}__blobServiceUri", "the account's address, which the identity is for")
    return None


def _is_connection_string(text: str) -> bool:
    """Whether the SDK can make an account and a credential of it."""
    pairs = dict(part.partition("=")[::2] for part in text.strip(";").split(";"))
    try:
        key = b64decode(pairs.get("AccountKey", ""), validate=True)
    except ValueError:
        key = b""
    has_key = "AccountName" in pairs and key
    has_signature = "SharedAccessSignature" in pairs and {"AccountName", "BlobEndpoint"} & pairs.keys()
    is_emulator = pairs.get("UseDevelopmentStorage") == "true"
    return all(pairs.values()) and bool(has_key or has_signature or is_emulator)
