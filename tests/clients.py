"""Clients past the app that close what they open.

urllib3 leaves the connections of a session that is closed to the collector, which an exception puts off.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import requests
from azure.core.pipeline.transport import RequestsTransport
from azure.identity import ManagedIdentityCredential
from azure.storage.blob import BlobServiceClient, ContainerClient
from requests.adapters import HTTPAdapter


class ClosingSession(requests.Session):
    """Closes its idle connections with itself."""

    def close(self) -> None:
        for adapter in self.adapters.values():
            assert isinstance(adapter, HTTPAdapter)
            pools = adapter.poolmanager.pools
            for key in pools.keys():  # noqa: SIM118  # it cannot be iterated
                pools[key].close()
        super().close()


@contextmanager
def closing_transport(ca_bundle: str | None = None) -> Iterator[RequestsTransport]:
    """The connections of one or more clients, all closed in the end."""
    with ClosingSession() as session:
        yield RequestsTransport(session=session, session_owner=False, connection_verify=ca_bundle or True)


@contextmanager
def blob_service(connection_string: str) -> Iterator[BlobServiceClient]:
    with closing_transport() as transport:
        yield BlobServiceClient.from_connection_string(connection_string, transport=transport)


@contextmanager
def blob_container(connection_string: str, name: str) -> Iterator[ContainerClient]:
    with closing_transport() as transport:
        yield ContainerClient.from_connection_string(connection_string, name, transport=transport)


@contextmanager
def managed_identity(ca_bundle: str, client_id: str | None = None) -> Iterator[ManagedIdentityCredential]:
    with closing_transport(ca_bundle) as transport:
        yield ManagedIdentityCredential(client_id=client_id, transport=transport)
