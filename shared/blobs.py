"""Blob Storage: conditional reads and writes of small blobs in one container.

Whatever the service or its SDK does, what comes out is a StorageError or one of its kind.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from shared.errors import BlobConflictError, StorageError
from shared.settings import Settings, StorageConnection

if TYPE_CHECKING:
    from azure.identity import ManagedIdentityCredential
    from azure.storage.blob import ContainerClient

# Both for one blob of some KiB. The shared answer must not keep a caller waiting; the record can wait.
QUICK = {"connection_timeout": 1, "read_timeout": 2, "retries": 1}
PATIENT = {"connection_timeout": 5, "read_timeout": 20, "retries": 3}

_CONFLICTS = {"BlobAlreadyExists", "ConditionNotMet", "BlobImmutableDueToPolicy"}


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob as read; the MD5 is the one that was stored with it."""

    content: bytes = field(repr=False)
    etag: str
    metadata: Mapping[str, str] = field(repr=False)
    md5: bytes | None


@dataclass(frozen=True, slots=True)
class Reading:
    """A blob, or that there is none, at an instant of the service's clock, which all instances share."""

    blob: Blob | None
    at: datetime


@dataclass(frozen=True, slots=True)
class ListedBlob:
    """What a listing tells of a blob."""

    name: str
    etag: str
    md5: bytes | None


class Container:
    """One container, created where it is missing and may be created."""

    def __init__(self, client: "ContainerClient") -> None:
        self._client = client

    def read(self, name: str) -> Reading:
        """A blob, or that there is none."""
        from azure.core.exceptions import ResourceNotFoundError

        dates: list[str] = []
        with _translated():
            try:
                download = self._client.download_blob(
                    name, raw_response_hook=lambda response: dates.append(_date(response))
                )
                content, properties = download.readall(), download.properties
            except ResourceNotFoundError:
                blob = None
            else:
                metadata = dict(properties.metadata or {})
                blob = Blob(content, _etag(properties.etag), metadata, _md5(properties))
            return Reading(blob, parsedate_to_datetime(dates[-1]))

    def write(
        self,
        name: str,
        content: bytes,
        content_type: str,
        *,
        replacing: str | None,
        metadata: Mapping[str, str] | None = None,
    ) -> str:
        """Write a blob in one request and return its ETag: the first of its name, or replacing an ETag.

        Raises BlobConflictError when another blob is there.
        """
        from azure.core import MatchConditions
        from azure.storage.blob import ContentSettings

        settings = ContentSettings(content_type, content_md5=bytearray(md5(content)))
        condition: dict[str, Any] = {"overwrite": False}
        if replacing is not None:
            condition = {
                "overwrite": True,
                "etag": replacing,
                "match_condition": MatchConditions.IfNotModified,
            }

        def put() -> str:
            blob = self._client.get_blob_client(name)
            written = blob.upload_blob(
                content, content_settings=settings, metadata=dict(metadata or {}), **condition
            )
            return _etag(str(written["etag"] or ""))

        return self._in_container(put)

    def annotate(self, name: str, metadata: Mapping[str, str], *, replacing: str) -> str:
        """Replace a blob's metadata, if it still has that ETag, and return the new one.

        Raises BlobConflictError when it has another.
        """
        from azure.core import MatchConditions

        with _translated():
            blob = self._client.get_blob_client(name)
            changed = blob.set_blob_metadata(
                dict(metadata), etag=replacing, match_condition=MatchConditions.IfNotModified
            )
            return _etag(str(changed["etag"] or ""))

    def list(self, prefix: str = "") -> list[ListedBlob]:
        """The blobs whose names begin so, by name."""
        from azure.core.exceptions import ResourceNotFoundError

        with _translated():
            try:
                found = list(self._client.list_blobs(name_starts_with=prefix))
            except ResourceNotFoundError:
                return []
            return [ListedBlob(str(each.name), _etag(each.etag), _md5(each)) for each in found]

    def _in_container(self, put: Any) -> str:  # noqa: ANN401
        from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError

        with _translated():
            try:
                return str(put())
            except ResourceNotFoundError:
                with suppress(ResourceExistsError):  # another instance was faster
                    self._client.create_container()
                return str(put())


def open_container(
    name: str, connection: StorageConnection, patience: Mapping[str, int], settings: Settings
) -> Container:
    """A container by connection string, or by address and the platform's identity.

    Raises StorageError where the SDK refuses the connection.
    """
    from azure.storage.blob import ContainerClient, LinearRetry

    options: dict[str, Any] = {
        "retry_policy": LinearRetry(
            backoff=patience["retries"] - 1, retry_total=patience["retries"], random_jitter_range=0
        ),
        "connection_timeout": patience["connection_timeout"],
        "read_timeout": patience["read_timeout"],
        "connection_verify": settings.ca_bundle or True,
    }
    with _translated():
        if connection.connection_string is not None:
            client = ContainerClient.from_connection_string(connection.connection_string, name, **options)
        else:
            uri, credential = connection.blob_service_uri or "", _identity(connection, settings)
            client = ContainerClient(uri, name, credential=credential, **options)
    return Container(client)


def md5(content: bytes) -> bytes:
    """The digest that Blob Storage keeps; a checksum, no signature."""
    return hashlib.md5(content, usedforsecurity=False).digest()


def _identity(connection: StorageConnection, settings: Settings) -> "ManagedIdentityCredential":
    from azure.identity import ManagedIdentityCredential

    return ManagedIdentityCredential(
        client_id=connection.client_id or settings.identity_client_id,
        retry_total=0,  # its retries would wait for as long as a Retry-After says
        connection_timeout=QUICK["connection_timeout"],
        read_timeout=PATIENT["connection_timeout"],
        connection_verify=settings.ca_bundle or True,
    )


@contextmanager
def _translated() -> Iterator[None]:
    from azure.core.exceptions import AzureError

    try:
        yield
    except StorageError:
        raise
    except AzureError as error:
        code = str(getattr(error, "error_code", None) or type(error).__name__)
        status = getattr(error, "status_code", None)
        kind = BlobConflictError if code in _CONFLICTS or status == 412 else StorageError  # noqa: PLR2004
        raise kind(f"Blob Storage answered {status or 'nothing'} ({code})") from error
    except Exception as error:  # a service that answers nonsense makes the SDK raise anything
        raise StorageError(f"Blob Storage failed ({type(error).__name__})") from error


def _date(response: Any) -> str:  # noqa: ANN401  # the SDK's pipeline response
    return str(response.http_response.headers["Date"])


def _etag(etag: str | None) -> str:
    """An ETag in its quotes, which a listing leaves out. Raises ValueError when there is none."""
    if not etag:
        raise ValueError("no ETag")
    return f'"{etag.strip(chr(34))}"'


def _md5(properties: Any) -> bytes | None:  # noqa: ANN401  # BlobProperties, which has no types
    digest = properties.content_settings.content_md5
    return bytes(digest) if digest else None
