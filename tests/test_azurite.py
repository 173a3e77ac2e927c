import socket
from collections.abc import Iterator

import pytest
from azure.core.exceptions import ResourceExistsError

from dev.azurite import Azurite
from dev.ports import PortError
from tests.clients import blob_service


@pytest.fixture(scope="module")
def azurite() -> Iterator[Azurite]:
    with Azurite() as running:
        yield running


def test_it_takes_calls_of_the_newest_azure_library_and_writes_a_blob_once(azurite: Azurite) -> None:
    with blob_service(azurite.connection_string) as account:
        container = account.create_container("usage")
        container.upload_blob("a", b"first", overwrite=False)
        with pytest.raises(ResourceExistsError):
            container.upload_blob("a", b"second", overwrite=False)
        assert container.download_blob("a").readall() == b"first"
        assert container.url == f"{azurite.url}/usage"


def test_a_second_one_has_a_port_and_blobs_of_its_own(azurite: Azurite) -> None:
    with Azurite() as other, blob_service(other.connection_string) as account:
        assert other.url != azurite.url
        assert list(account.list_containers()) == []


def test_its_port_is_free_after_it_ended() -> None:
    with Azurite() as running:
        port = int(running.url.split(":")[2].split("/")[0])
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_port_in_use_is_named_with_the_option_that_changes_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortError, match=f"port {port} is in use; choose another with --blob-port"):
            Azurite(port).__enter__()
