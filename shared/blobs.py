"""Blob Storage: conditional reads and writes of small blobs in one container.

Whatever the service or its SDK does, what comes out is a StorageError or one of its kind, and within the
time allowed: each operation has a session of its own that ends then.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from shared.blob import Blob, ListedBlob, Reading, md5
from shared.errors import (
    BlobConflictError,
    BlobUnreadableError,
    OperatorError,
    StorageError,
    StorageRefusedError,
)
from shared.hints import hint
from shared.identity import StorageIdentity
from shared.settings import StorageConnection

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential
    from azure.storage.blob import ContainerClient

QUICK = timedelta(seconds=5)
"""For one operation on the shared answer, which must not keep a caller waiting."""

PATIENT = timedelta(seconds=60)
"""For one operation on the record, which can wait."""

_CONNECT_TIMEOUT = 2.0  # seconds
_REFUSALS = HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN
_CONFLICTS = {"BlobAlreadyExists", "ConditionNotMet", "BlobImmutableDueToPolicy"}
_UNREADABLE = {"BlobArchived", "BlobBeingRehydrated", "BlobUsesCustomerSpecifiedEncryption"}


class Container:
    """One container, created where it is missing and may be created.

    By connection string, or by address and an identity: the platform's, unless another is given. Every method
    raises StorageError. When a listing or a write finds no container, `missing` is called before anything is
    made, and may raise a StorageError of its own.
    """

    def __init__(  # noqa: PLR0913  # a container in full
        self,
        name: str,
        connection: StorageConnection,
        time_allowed: timedelta,
        ca_bundle: str | None,
        identity: "TokenCredential | None" = None,
        *,
        missing: Callable[[], None] = lambda: None,
    ) -> None:
        self._name = name
        self._connection = connection
        self._time_allowed = time_allowed
        self._ca_bundle = ca_bundle
        self._platform = StorageIdentity(connection.client_id)
        self._identity = identity
        self._missing = missing

    def read(self, name: str) -> Reading:
        """A blob, or that there is none."""
        from azure.core.exceptions import ResourceNotFoundError

        dates: list[str] = []
        # Not a hook of the one call: the SDK forgets that where the first try met no answer.
        with self._client(name, raw_response_hook=lambda got: dates.append(_date(got))) as client:
            try:
                download = client.download_blob(name, decompress=False)
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
        from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError
        from azure.storage.blob import ContentSettings

        options: dict[str, Any] = {
            "content_settings": ContentSettings(content_type, content_md5=bytearray(md5(content))),
            "metadata": dict(metadata or {}),
            "overwrite": replacing is not None,
        }
        if replacing is not None:
            options |= {"etag": replacing, "match_condition": MatchConditions.IfNotModified}
        with self._client(name) as client:
            blob = client.get_blob_client(name)
            try:
                written = blob.upload_blob(content, **options)
            except ResourceNotFoundError:
                self._missing()
                with suppress(ResourceExistsError):  # another instance was faster
                    client.create_container()
                written = blob.upload_blob(content, **options)
            return _etag(written["etag"])

    def list(self, prefix: str = "") -> list[ListedBlob]:
        """The blobs whose names begin so, by name."""
        from azure.core.exceptions import ResourceNotFoundError

        with self._client() as client:
            try:
                found = list(client.list_blobs(name_starts_with=prefix))
            except ResourceNotFoundError:
                self._missing()
                return []
            return [ListedBlob(str(each.name), _etag(each.etag), _md5(each)) for each in found]

    @contextmanager
    def _client(self, name: str = "", **more: Any) -> Iterator["ContainerClient"]:  # noqa: ANN401  # the SDK's
        """A client for one operation, on a blob or on the container, with more options.

        Raises StorageError for whatever goes wrong within.
        """
        from azure.core.exceptions import AzureError
        from azure.storage.blob import ContainerClient, LinearRetry

        from shared.deadlines import azure_transport, session_for

        try:
            with session_for(self._time_allowed, self._ca_bundle) as session:
                options: dict[str, Any] = {
                    "retry_policy": LinearRetry(backoff=0, retry_total=1, random_jitter_range=1),
                    "transport": azure_transport(session, _CONNECT_TIMEOUT),
                    "permit_redirects": False,
                    **more,
                }
                string, uri = self._connection.connection_string, self._connection.blob_service_uri
                if string is not None:
                    yield ContainerClient.from_connection_string(string, self._name, **options)
                else:
                    credential = self._identity or self._platform.within(session)
                    yield ContainerClient(uri or "", self._name, credential=credential, **options)
        except StorageError:  # of the identity
            raise
        except AzureError as error:
            code = getattr(error, "error_code", None) or type(error).__name__
            code = str(getattr(code, "value", code))  # an enumeration's member, where the SDK knows it
            status = getattr(error, "status_code", None)
            kind = StorageError
            if code in _CONFLICTS or status == HTTPStatus.PRECONDITION_FAILED:
                kind = BlobConflictError
            elif status in _REFUSALS:
                kind = StorageRefusedError
                self._platform.forget()
            elif code in _UNREADABLE:
                kind = BlobUnreadableError
            # Not chained: its text has the answer's body, and that may repeat a signature.
            place = f"{self._name}/{name}" if name else f"container {self._name}"
            message = f"Blob Storage answered {status or 'nothing'} ({code}) for {place}"
            raise kind(message, hint=hint(code)) from None
        except OperatorError as error:  # of an operator's identity
            raise StorageRefusedError(error.message, hint=error.hint) from None
        except Exception as error:  # noqa: BLE001  # nonsense makes the SDK raise anything
            raise StorageError(f"Blob Storage failed ({type(error).__name__})") from None


def _date(got: Any) -> str:  # noqa: ANN401  # the SDK's pipeline response
    return str(got.http_response.headers["Date"])


def _etag(etag: Any) -> str:  # noqa: ANN401  # the SDK types it loosely
    """An ETag in its quotes, which a listing leaves out. Raises ValueError when there is none."""
    if not etag:
        raise ValueError("no ETag")
    return f'"{str(etag).strip(chr(34))}"'


def _md5(properties: Any) -> bytes | None:  # noqa: ANN401  # BlobProperties, which has no types
    digest = properties.content_settings.content_md5
    return bytes(digest) if digest else None
