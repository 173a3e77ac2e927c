import base64
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import md5
from pathlib import Path

import pytest
import trustme
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError
from azure.storage.blob import BlobBlock, ContainerClient, ContentSettings

from dev.azurite import ACCOUNT, ACCOUNT_KEY, Azurite
from dev.simulator import Delivery, Fault, Service, Simulator
from shared.blob import Reading
from shared.blobs import PATIENT, QUICK, Container
from shared.errors import (
    BlobConflictError,
    BlobUnreadableError,
    ConfigurationError,
    RecordError,
    StorageError,
    StorageRefusedError,
)
from shared.hints import hint
from shared.settings import Settings, StorageConnection
from tests.clients import blob_container, managed_identity
from tests.test_deadlines import Talk, peer, refusing, saying
from tests.threads import PATIENCE

NAME = "usagesummary/v1/2026/11/21/usagesummary.json"
JSON = "application/json"
ELSEWHERE = '"0x8DC000000000000"'


@pytest.fixture
def beside(container: Container, azurite: Azurite) -> Iterator[ContainerClient]:
    """The same container, there already, by the SDK alone."""
    with container._client() as client:  # noqa: SLF001  # only it knows the name
        client.create_container()
        name = client.container_name
    with blob_container(azurite.connection_string, name) as client:
        yield client


def is_now(instant: datetime) -> bool:
    return instant.tzinfo is not None and abs(datetime.now(UTC) - instant) < timedelta(seconds=PATIENCE)


def test_what_is_not_there_reads_as_nothing_at_the_clock_of_the_service(container: Container) -> None:
    without_container = container.read(NAME)
    assert without_container.blob is None
    assert is_now(without_container.at)
    assert container.list() == []
    container.write("another", b"{}", JSON, replacing=None)
    without_blob = container.read(NAME)
    assert without_blob.blob is None
    assert is_now(without_blob.at)


def test_the_first_write_creates_the_container_and_keeps_everything(container: Container) -> None:
    content, metadata = '{"name": "北光"}'.encode(), {"requestid": "7", "state": "held"}
    etag = container.write(NAME, content, JSON, replacing=None, metadata=metadata)
    reading = container.read(NAME)
    assert is_now(reading.at)
    assert reading.blob is not None
    assert (reading.blob.content, reading.blob.etag) == (content, etag)
    assert reading.blob.metadata == metadata
    assert reading.blob.md5 == md5(content, usedforsecurity=False).digest()
    with container._client() as client:  # noqa: SLF001  # the SDK's view of the same
        properties = client.get_blob_client(NAME).get_blob_properties()
    assert properties.content_settings.content_type == JSON


@pytest.mark.parametrize("size", [0, 1, 3 * 1024 * 1024])
def test_a_blob_of_any_size_comes_back_whole(container: Container, size: int) -> None:
    content = b"x" * size
    etag = container.write(NAME, content, JSON, replacing=None)
    reading = container.read(NAME)
    assert reading.blob is not None
    assert (len(reading.blob.content), reading.blob.etag) == (size, etag)
    assert is_now(reading.at)
    assert container.list()[0].md5 == md5(content, usedforsecurity=False).digest()


def test_a_name_is_written_once(container: Container) -> None:
    first = container.write(NAME, b"first", JSON, replacing=None)
    with pytest.raises(BlobConflictError):
        container.write(NAME, b"second", JSON, replacing=None)
    blob = container.read(NAME).blob
    assert blob is not None
    assert (blob.content, blob.etag) == (b"first", first)


def test_a_blob_is_replaced_by_who_knows_it_and_by_nobody_else(container: Container) -> None:
    first = container.write(NAME, b"first", JSON, replacing=None, metadata={"a": "1"})
    second = container.write(NAME, b"second", JSON, replacing=first)
    assert first != second
    for stale in (first, ELSEWHERE):
        with pytest.raises(BlobConflictError):
            container.write(NAME, b"third", JSON, replacing=stale)
    blob = container.read(NAME).blob
    assert blob is not None
    assert (blob.content, blob.etag, blob.metadata) == (b"second", second, {})


def test_a_blob_that_is_gone_is_not_replaced(container: Container, beside: ContainerClient) -> None:
    etag = container.write(NAME, b"first", JSON, replacing=None)
    beside.delete_blob(NAME)
    with pytest.raises(StorageError):
        container.write(NAME, b"second", JSON, replacing=etag)
    assert container.read(NAME).blob is None


def test_a_listing_is_by_name_below_a_prefix_and_its_etags_are_good_for_writing(container: Container) -> None:
    names = ["usage/b", "usage/a/2", "usage/a/10", "elsewhere", "usage-not"]
    etags = {name: container.write(name, name.encode(), JSON, replacing=None) for name in names}
    assert [each.name for each in container.list()] == sorted(names)
    listed = container.list("usage/")
    assert [each.name for each in listed] == ["usage/a/10", "usage/a/2", "usage/b"]
    for each in listed:
        blob = container.read(each.name).blob
        assert blob is not None
        assert each.etag == blob.etag == etags[each.name]
        assert each.etag.startswith('"')
        assert each.md5 == blob.md5
        container.write(each.name, b"new", JSON, replacing=each.etag)
        with pytest.raises(BlobConflictError):
            container.write(each.name, b"newer", JSON, replacing=each.etag)
    assert container.list("nothing") == []


def test_a_blob_of_somebody_else_may_lack_its_md5(container: Container, beside: ContainerClient) -> None:
    client = beside.get_blob_client(NAME)
    block = base64.b64encode(b"1").decode()
    client.stage_block(block, b"content")
    client.commit_block_list([BlobBlock(block)])
    blob = container.read(NAME).blob
    assert blob is not None
    assert (blob.content, blob.md5, container.list()[0].md5) == (b"content", None, None)


def test_an_instance_whose_container_was_created_meanwhile_writes_too(
    container: Container, beside: ContainerClient
) -> None:
    beside.delete_container()
    assert container.read(NAME).blob is None
    beside.create_container()
    container.write(NAME, b"{}", JSON, replacing=None)
    assert [each.name for each in container.list()] == [NAME]


def opened(connection: StorageConnection, settings: Settings) -> Container:
    return Container("usage", connection, QUICK, settings.ca_bundle)


def at(address: str) -> StorageConnection:
    account = f"AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY}"
    return StorageConnection(
        f"DefaultEndpointsProtocol=http;{account};BlobEndpoint=http://{address}/{ACCOUNT};"
    )


def outcomes(container: Container) -> dict[str, object]:
    """What comes of each call."""
    calls: dict[str, Callable[[], object]] = {
        "read": lambda: container.read(NAME),
        "write": lambda: container.write(NAME, b"{}", JSON, replacing=None),
        "list": container.list,
    }
    found: dict[str, object] = {}
    said = []
    for name, call in calls.items():
        try:
            found[name] = call()
        except Exception as error:  # noqa: BLE001  # which it is, is the question
            found[name] = type(error)
            said.append(str(error))
    assert "html" not in "".join(said)
    return found


def http(head: bytes, body: bytes = b"") -> Talk:
    """Answers each request so, with the date of the day before."""
    length = len(body)

    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 %s\r\nConnection: close\r\nContent-Length: %d\r\n" % (head, length))
        connection.sendall(b"Date: Fri, 20 Nov 2026 08:00:00 GMT\r\n\r\n" + body)

    return talk


NONSENSE = {
    "speaks another protocol": saying(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "hangs up": lambda connection: connection.close(),
    "answers 200 with a page": http(b"200 OK\r\nContent-Type: text/html", b"<html>Sign in</html>"),
    "answers 200 with nothing": http(b"200 OK"),
    "answers 206 with a senseless range": http(b"206 Partial\r\nContent-Range: all", b"x"),
    "answers 201 without an etag": http(b"201 Created"),
    "answers 302": http(b"302 Found\r\nLocation: http://elsewhere.invalid/"),
    "answers 400 with a page": http(b"400 Bad Request", b"<html>"),
    "answers 500 with a page": http(b"500 Error", b"<html>"),
    "asks to come back in an hour": http(b"503 Busy\r\nRetry-After: 3600"),
    "breaks off": lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n<"),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_storage_fails_soon_when_the_service(settings: Settings, name: str) -> None:
    began = time.monotonic()
    with peer(NONSENSE[name]) as address:
        assert outcomes(opened(at(address), settings)) == dict.fromkeys(
            ("read", "write", "list"), StorageError
        )
    assert time.monotonic() - began < PATIENCE


def test_storage_fails_soon_when_nobody_listens(settings: Settings) -> None:
    began = time.monotonic()
    with refusing() as address:
        assert set(outcomes(opened(at(address), settings)).values()) == {StorageError}
    assert time.monotonic() - began < PATIENCE


def test_storage_is_asked_again_once(settings: Settings) -> None:
    answers = [http(b"503 Busy"), http(b"404 Not Found\r\nx-ms-error-code: BlobNotFound")]

    def in_turn(connection: socket.socket) -> None:
        answers.pop(0)(connection)

    with peer(in_turn) as address:
        reading = opened(at(address), settings).read(NAME)
    assert reading == Reading(None, datetime(2026, 11, 20, 8, tzinfo=UTC))


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "AccountName=x",
        f"AccountName={ACCOUNT};AccountKey=no base64;BlobEndpoint=http://127.0.0.1:1/",
    ],
)
def test_a_connection_that_is_none_is_an_error_of_storage(settings: Settings, text: str) -> None:
    with pytest.raises(StorageError):
        opened(StorageConnection(text), settings).read(NAME)


def by_identity(simulator: Simulator) -> StorageConnection:
    client_id = simulator.world.managed_identity_client_id
    return StorageConnection(blob_service_uri=simulator.url, client_id=client_id)


def test_storage_by_identity_is_asked_with_its_token(simulator: Simulator, settings: Settings) -> None:
    world = simulator.world
    reading = opened(by_identity(simulator), settings).read(NAME)
    assert reading.blob is None  # the simulated world has no blobs
    asked, read = world.exchanges
    assert asked.query["resource"] == "https://storage.azure.com"
    assert asked.query["client_id"] == world.managed_identity_client_id
    assert read.path == f"/usage/{NAME}"
    token = read.headers["authorization"].removeprefix("Bearer ")
    assert world.claims(token)["aud"] == "https://storage.azure.com/"


def test_storage_follows_the_ca_bundle(simulator: Simulator, settings: Settings, tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "foreign.pem"))
    settings = replace(settings, ca_bundle=str(tmp_path / "foreign.pem"))
    with pytest.raises(StorageError):
        opened(by_identity(simulator), settings).read(NAME)
    assert simulator.world.exchanges == []


REFUSALS = [
    ("403 Forbidden", "AuthorizationPermissionMismatch", "Storage Blob Data Contributor"),
    ("403 Forbidden", "AuthorizationFailure", "networking"),
    ("403 Forbidden", "AuthenticationFailed", "key"),
    ("403 Forbidden", "KeyBasedAuthenticationNotPermitted", "USAGE_STORAGE__blobServiceUri"),
    ("403 Forbidden", "InsufficientAccountPermissions", None),
    ("401 Unauthorized", "InvalidAuthenticationInfo", None),
]


@pytest.mark.parametrize(("status", "code", "hinted"), REFUSALS)
def test_a_refusal_of_storage_is_one_with_a_hint_where_there_is_one(
    settings: Settings, status: str, code: str, hinted: str | None
) -> None:
    with peer(http(f"{status}\r\nx-ms-error-code: {code}".encode())) as address:
        container = opened(at(address), settings)
        assert set(outcomes(container).values()) == {StorageRefusedError}
        with pytest.raises(StorageRefusedError) as refused:
            container.read(NAME)
        with pytest.raises(StorageRefusedError) as of_all:
            container.list()
    said = f"Blob Storage answered {status[:3]} ({code}) for"
    assert (str(refused.value), str(of_all.value)) == (f"{said} usage/{NAME}", f"{said} container usage")
    assert refused.value.hint == of_all.value.hint
    assert (hinted is None) == (refused.value.hint is None)
    assert (hinted or "") in (refused.value.hint or "")


def test_a_blob_that_has_been_archived_is_named_with_what_to_do(
    container: Container, beside: ContainerClient
) -> None:
    container.write(NAME, b"{}", JSON, replacing=None)
    beside.get_blob_client(NAME).set_standard_blob_tier("Archive")
    with pytest.raises(StorageError) as refused:
        container.read(NAME)
    place = f"{beside.container_name}/{NAME}"
    assert type(refused.value) is BlobUnreadableError
    assert refused.value.message == f"Blob Storage answered 409 (BlobArchived) for {place}"
    assert refused.value.hint == hint("BlobArchived")
    assert [each.name for each in container.list()] == [NAME]


@pytest.mark.parametrize(
    "code", ["BlobArchived", "BlobBeingRehydrated", "BlobUsesCustomerSpecifiedEncryption"]
)
def test_what_is_one_blobs_own_fault_is_an_error_of_its_own_with_a_hint(
    settings: Settings, code: str
) -> None:
    answer = http(f"409 Conflict\r\nx-ms-error-code: {code}".encode())
    with peer(answer) as address, pytest.raises(BlobUnreadableError) as refused:
        opened(at(address), settings).read(NAME)
    assert refused.value.hint == hint(code) is not None


def test_a_container_that_is_being_deleted_is_no_conflict_and_not_taken_for_missing(
    settings: Settings,
) -> None:
    with peer(http(b"409 Conflict\r\nx-ms-error-code: ContainerBeingDeleted")) as address:
        assert outcomes(opened(at(address), settings)) == dict.fromkeys(
            ("read", "write", "list"), StorageError
        )


def test_where_a_missing_container_is_refused_nothing_lists_it_and_nothing_makes_it(azurite: Azurite) -> None:
    def refuse() -> None:
        raise RecordError("not this one")

    name, connection = f"test-{uuid.uuid4().hex[:12]}", StorageConnection(azurite.connection_string)
    container = Container(name, connection, PATIENT, None, missing=refuse)
    for work in (container.list, lambda: container.write(NAME, b"{}", JSON, replacing=None)):
        with pytest.raises(RecordError, match="not this one"):
            work()
    with blob_container(azurite.connection_string, name) as client:
        assert not client.exists()


def test_a_blob_is_read_as_it_is_stored_whatever_encoding_it_claims(
    container: Container, beside: ContainerClient
) -> None:
    beside.upload_blob(NAME, b"{}", content_settings=ContentSettings(content_encoding="gzip"))
    blob = container.read(NAME).blob
    assert blob is not None
    assert (blob.content, blob.md5) == (b"{}", md5(b"{}", usedforsecurity=False).digest())


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("412 Precondition Failed", "ConditionNotMet"),
        ("412 Precondition Failed", "LeaseIdMissing"),
        ("409 Conflict", "BlobAlreadyExists"),
        ("409 Conflict", "BlobImmutableDueToPolicy"),
    ],
)
def test_a_write_against_what_is_there_is_a_conflict(settings: Settings, status: str, code: str) -> None:
    with peer(http(f"{status}\r\nx-ms-error-code: {code}".encode())) as address:
        assert outcomes(opened(at(address), settings))["write"] is BlobConflictError


class Identity:
    """One that gives no token, and why."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def get_token(self, *_: str, **__: object) -> AccessToken:
        raise self._error


def test_an_operator_who_gets_no_token_is_refused_by_storage(
    simulator: Simulator, settings: Settings
) -> None:
    error = ConfigurationError("nobody is signed in", hint="Run az login.")
    container = Container("usage", by_identity(simulator), QUICK, settings.ca_bundle, Identity(error))
    assert set(outcomes(container).values()) == {StorageRefusedError}
    with pytest.raises(StorageRefusedError, match="nobody is signed in") as refused:
        container.read(NAME)
    assert refused.value.hint == "Run az login."
    assert simulator.world.exchanges == []


@pytest.mark.parametrize("error", [ClientAuthenticationError("canary"), RuntimeError("canary")])
def test_an_identity_s_foreign_error_is_storages(
    simulator: Simulator, settings: Settings, error: Exception
) -> None:
    container = Container("usage", by_identity(simulator), QUICK, settings.ca_bundle, Identity(error))
    with pytest.raises(StorageError) as raised:
        container.read(NAME)
    assert "canary" not in str(raised.value)


def test_an_identity_that_is_given_is_asked_in_the_platforms_place(
    simulator: Simulator, settings: Settings
) -> None:
    elsewhere = StorageConnection(blob_service_uri=simulator.url, client_id="of no identity here")
    with managed_identity(simulator.ca_bundle, simulator.world.managed_identity_client_id) as operator:
        assert Container("usage", elsewhere, QUICK, settings.ca_bundle, operator).read(NAME).blob is None


@pytest.mark.parametrize("headers", [{}, {"retry-after": "3600"}])
def test_storage_fails_soon_when_the_identity_is_down(
    simulator: Simulator, settings: Settings, headers: dict[str, str]
) -> None:
    simulator.world.faults[Service.IDENTITY] = Fault(Service.IDENTITY, 503, headers=headers)
    began = time.monotonic()
    with pytest.raises(StorageError):
        opened(by_identity(simulator), settings).read(NAME)
    assert time.monotonic() - began < PATIENCE


@pytest.mark.parametrize("delivery", [Delivery.DRIPPING, Delivery.NEVER])
def test_storage_fails_within_its_time_when_the_identity_does_not_come_to_an_end(
    simulator: Simulator, settings: Settings, delivery: Delivery
) -> None:
    simulator.world.faults[Service.IDENTITY] = Fault(Service.IDENTITY, delivery=delivery)
    began = time.monotonic()
    with pytest.raises(StorageError):
        Container("usage", by_identity(simulator), 0.5 * QUICK, settings.ca_bundle).read(NAME)
    assert time.monotonic() - began < PATIENCE


@pytest.mark.parametrize(("status", "headers"), [(429, {"retry-after": "3600"}), (500, {}), (503, {})])
def test_what_the_identity_has_refused_is_asked_for_again_and_what_it_gave_is_kept(
    simulator: Simulator, settings: Settings, status: int, headers: dict[str, str]
) -> None:
    world, container = simulator.world, opened(by_identity(simulator), settings)
    world.faults[Service.IDENTITY] = Fault(Service.IDENTITY, status, headers=headers)
    with pytest.raises(StorageError, match=r"^the managed identity gave no token \("):
        container.read(NAME)
    del world.faults[Service.IDENTITY]
    world.exchanges.clear()
    for _ in range(3):
        assert container.read(NAME).blob is None
    assert [each.service for each in world.exchanges].count(Service.IDENTITY) == 1


def test_a_token_that_storage_challenges_is_replaced_at_once(
    simulator: Simulator, settings: Settings
) -> None:
    world, container = simulator.world, opened(by_identity(simulator), settings)
    container.read(NAME)
    storage = Service.PARTNER_CENTER  # whatever has no other service is its
    tenant = "https://login.microsoftonline.com/0f8fad5b-d9cb-469f-a165-70867728950e/oauth2/authorize"
    challenge = f"Bearer authorization_uri={tenant} resource_id=https://storage.azure.com"
    world.faults[storage] = Fault(storage, 401, headers={"www-authenticate": challenge}, times=1)
    for _ in range(2):
        assert container.read(NAME).blob is None
    identity = Service.IDENTITY
    assert [each.service for each in world.exchanges] == [
        identity, storage, storage, identity, storage, storage
    ]  # fmt: skip
    tokens = [each.headers["authorization"] for each in world.exchanges if each.service is storage]
    assert tokens[0] == tokens[1] != tokens[2] == tokens[3]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_of_storage_is_followed_nowhere(
    simulator: Simulator, settings: Settings, status: int
) -> None:
    storage = Service.PARTNER_CENTER
    location = f"{simulator.url}/usage/another.json"
    simulator.world.faults[storage] = Fault(storage, status, headers={"location": location})
    with pytest.raises(StorageError):
        opened(by_identity(simulator), settings).read(NAME)
    assert {each.path for each in simulator.world.exchanges if each.service is storage} == {f"/usage/{NAME}"}


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_that_storage_has_refused_is_not_used_again(
    simulator: Simulator, settings: Settings, status: int
) -> None:
    world, container = simulator.world, opened(by_identity(simulator), settings)
    container.read(NAME)
    elsewhere = Service.PARTNER_CENTER  # whatever has no other service is its
    said = {"x-ms-error-code": "AuthenticationFailed"}
    world.faults[elsewhere] = Fault(elsewhere, status, headers=said, times=1)
    with pytest.raises(StorageRefusedError):
        container.read(NAME)
    container.read(NAME)
    asked, read = Service.IDENTITY, elsewhere
    assert [each.service for each in world.exchanges] == [asked, read, read, asked, read]


@pytest.mark.parametrize(
    "start", [b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b"HTTP/1.1 200 OK\r\nX-"]
)
def test_storage_that_drips_fails_within_its_time(start: bytes) -> None:
    began = time.monotonic()
    with peer(saying(start, b"x")) as address, pytest.raises(StorageError):
        Container("usage", at(address), timedelta(seconds=0.5), None).read(NAME)
    assert time.monotonic() - began < PATIENCE
