"""The platform's managed identity, asked inside the deadline of a session.

Source: learn.microsoft.com/azure/app-service/overview-managed-identity.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shared.clock import passed_seconds
from shared.errors import StorageError
from shared.hints import hint

if TYPE_CHECKING:
    import requests
    from azure.core.credentials import AccessToken, TokenCredential

_MARGIN = 300.0  # seconds before a token expires at which another is asked for
_WORKLOAD = "AZURE_AUTHORITY_HOST", "AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE"
_ENDPOINTS = "IDENTITY_ENDPOINT", "MSI_ENDPOINT"


def managed_identity(client_id: str | None, session: "requests.Session") -> "TokenCredential":
    """The platform's identity of that client id, or the system-assigned one; remembers nothing."""
    from azure.identity import ManagedIdentityCredential

    from shared.deadlines import azure_transport
    from shared.identity_endpoint import EndpointTransport

    transport = azure_transport(session) if _is_workload() else EndpointTransport(session)
    return ManagedIdentityCredential(client_id=client_id, transport=transport, retry_total=0)


def _is_workload() -> bool:
    """Whether azure-identity asks Entra, as for a workload of Kubernetes, and no endpoint of the platform."""
    return all(map(os.environ.get, _WORKLOAD)) and not any(map(os.environ.get, _ENDPOINTS))


class StorageIdentity:
    """The platform's identity for Blob Storage; its token outlives the sessions, a refusal does not."""

    def __init__(self, client_id: str | None, seconds: Callable[[], float] = passed_seconds) -> None:
        self._client_id = client_id
        self._seconds = seconds
        self._kept: tuple[AccessToken, float] | None = None  # until a passed second; replaced whole

    def within(self, session: "requests.Session") -> "TokenCredential":
        """The same for one session. It raises StorageError when there is no token to be had."""
        return _Within(self, session)

    def forget(self) -> None:
        """Ask for another token next: storage has refused this one."""
        self._kept = None

    def token(self, session: "requests.Session", scopes: tuple[str, ...]) -> "AccessToken":
        """A token that is good for some minutes; of those who ask at the same time each gets one."""
        kept = self._kept
        if kept is not None and self._seconds() < kept[1]:
            return kept[0]
        try:
            token = managed_identity(self._client_id, session).get_token(*scopes)
        except Exception as error:  # noqa: BLE001  # nonsense makes azure-identity raise anything
            # Not chained: its text may have the answer's body.
            name = type(error).__name__
            raise StorageError(f"the managed identity gave no token ({name})", hint=hint(name)) from None
        left = token.expires_on - time.time()  # by the machine's clock; where that is wrong, storage refuses
        self._kept = token, self._seconds() + left - _MARGIN
        return token


@dataclass(frozen=True, slots=True)
class _Within:
    identity: StorageIdentity
    session: "requests.Session"

    def get_token(
        self,
        *scopes: str,
        tenant_id: str | None = None,
        **_: Any,  # noqa: ANN401  # the protocol's
    ) -> "AccessToken":
        if tenant_id is not None:  # the SDK tells of no tenant but in answer to a 401
            self.identity.forget()
        return self.identity.token(self.session, scopes)
