"""The managed identity: asked past every proxy, and once more after a failure that passes."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from azure.core.credentials import AccessToken
from azure.core.exceptions import AzureError, ServiceResponseError
from azure.core.rest import HttpRequest
from azure.identity import DefaultAzureCredential
from urllib3.util.connection import create_connection

from dev.simulator import Delivery, Fault, Service, Simulator
from dev.simulator.world import DOCUMENT, SECRET_NAME
from ops.access import Operator
from shared.app import App
from shared.blobs import PATIENT, QUICK, Container
from shared.deadlines import Session, session_for
from shared.errors import StorageError, UsageSummaryError
from shared.identity import StorageIdentity, managed_identity
from shared.identity_endpoint import EndpointTransport
from shared.settings import StorageConnection
from tests.conftest import ManualClock
from tests.faults.gate import Gate
from tests.faults.scene import get
from tests.recorder import Recorder
from tests.terminal import Terminal
from tests.threads import settle

AMPLE = timedelta(seconds=30)
VAULT = "https://vault.azure.net/.default"
HEADER = "canary-identity-header"
VARIABLES = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"]
COVERS_HTTPS = {"HTTPS_PROXY", "ALL_PROXY", "https_proxy", "all_proxy"}
WORKLOAD = "AZURE_AUTHORITY_HOST", "AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_CLIENT_ID"
SOURCES = "MSI_ENDPOINT", "MSI_SECRET", "IMDS_ENDPOINT", "IDENTITY_SERVER_THUMBPRINT"


@pytest.fixture(autouse=True)
def _nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        *VARIABLES,
        "NO_PROXY",
        "no_proxy",
        *WORKLOAD,
        *SOURCES,
        "AZURE_POD_IDENTITY_AUTHORITY_HOST",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def proxy() -> Iterator[Recorder]:
    with Recorder() as running:
        yield running


def gives_a_token(_: BaseHTTPRequestHandler) -> tuple[int, bytes]:
    """In the words of every kind of endpoint."""
    life = {"expires_on": f"{int(time.time()) + 9000}", "expires_in": "9000", "resource": "r"}
    return 200, json.dumps({"access_token": "token", "token_type": "Bearer", **life}).encode()


@pytest.fixture
def endpoint() -> Iterator[Recorder]:
    with Recorder(gives_a_token) as running:
        yield running


def ask() -> str:
    """A token for the vault, of the platform's identity."""
    with session_for(AMPLE, None) as session:
        return managed_identity(None, session).get_token(VAULT).token


def everywhere(monkeypatch: pytest.MonkeyPatch, listener: Recorder, proxy: Recorder) -> None:
    """Whoever connects to any address but the proxy's meets this listener."""

    def connect(address: tuple[str, int], *more: Any, **options: Any) -> socket.socket:  # noqa: ANN401  # urllib3's
        port = address[1] if address[1] == proxy.port else listener.port
        return create_connection(("127.0.0.1", port), *more, **options)

    monkeypatch.setattr("urllib3.util.connection.create_connection", connect)


def use(monkeypatch: pytest.MonkeyPatch, proxy: Recorder, *names: str) -> None:
    for name in names or VARIABLES:
        monkeypatch.setenv(name, proxy.url)


ADDRESSES = [
    "http://127.0.0.1:41741/msi/token",
    "http://localhost:8081/msi/token",
    "http://169.254.130.2:8081/msi/token",
    "http://[fd00::2]:8081/msi/token",
    "http://identity.example/msi/token",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_no_proxy_sees_the_identitys_header_whatever_the_endpoints_address(
    monkeypatch: pytest.MonkeyPatch, proxy: Recorder, endpoint: Recorder, address: str
) -> None:
    monkeypatch.setenv("IDENTITY_ENDPOINT", address)
    monkeypatch.setenv("IDENTITY_HEADER", HEADER)
    use(monkeypatch, proxy)
    everywhere(monkeypatch, endpoint, proxy)
    assert ask() == "token"
    assert proxy.heads == []
    (head,) = endpoint.heads
    assert HEADER in head
    assert f"host: {urlsplit(address).netloc}" in head.lower()


PLACES = {
    "a virtual machine": {},
    "Azure Arc": {"IDENTITY_ENDPOINT": "http://localhost:40342/t", "IMDS_ENDPOINT": "http://localhost:40342"},
    "Cloud Shell": {"MSI_ENDPOINT": "http://localhost:50342/oauth2/token"},
    "Azure Machine Learning": {"MSI_ENDPOINT": "http://localhost:46808/t", "MSI_SECRET": HEADER},
    "Kubernetes with pod identities": {"AZURE_POD_IDENTITY_AUTHORITY_HOST": "http://169.254.169.253"},
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("who", ["the app", "ops"])
def test_no_proxy_sees_the_identity_on(
    monkeypatch: pytest.MonkeyPatch, proxy: Recorder, endpoint: Recorder, place: str, who: str
) -> None:
    for name, value in PLACES[place].items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "prod")
    use(monkeypatch, proxy)
    everywhere(monkeypatch, endpoint, proxy)
    with suppress(AzureError, UsageSummaryError):  # Arc's endpoint would have asked for the content of a file
        Operator().get_token(VAULT) if who == "ops" else ask()
    assert endpoint.heads
    assert proxy.heads == []


def test_no_proxy_sees_the_identity_behind_tls(
    monkeypatch: pytest.MonkeyPatch, proxy: Recorder, simulator: Simulator
) -> None:
    use(monkeypatch, proxy)
    with session_for(AMPLE, simulator.ca_bundle) as session:
        assert managed_identity(None, session).get_token(VAULT).token
    assert proxy.heads == []


def test_no_proxy_sees_the_identity_of_service_fabric(
    monkeypatch: pytest.MonkeyPatch, proxy: Recorder, simulator: Simulator
) -> None:
    monkeypatch.setenv("IDENTITY_SERVER_THUMBPRINT", "0" * 40)
    use(monkeypatch, proxy)
    with pytest.raises(UsageSummaryError), session_for(AMPLE, simulator.ca_bundle) as session:
        managed_identity(None, session).get_token(VAULT)  # it shows another certificate
    assert proxy.heads == []


def test_no_proxy_of_the_platforms_settings_sees_the_identity(
    monkeypatch: pytest.MonkeyPatch, proxy: Recorder, endpoint: Recorder
) -> None:
    monkeypatch.setenv("IDENTITY_ENDPOINT", endpoint.url)
    monkeypatch.setenv("IDENTITY_HEADER", HEADER)
    monkeypatch.setattr("requests.utils.getproxies", lambda: {"http": proxy.url, "https": proxy.url})
    assert ask() == "token"
    assert (len(endpoint.heads), proxy.heads) == (1, [])


def test_netrc_adds_nothing_to_what_the_identity_endpoint_is_sent(
    monkeypatch: pytest.MonkeyPatch, endpoint: Recorder, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login someone password canary\n", "utf-8")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("IDENTITY_ENDPOINT", endpoint.url)
    monkeypatch.setenv("IDENTITY_HEADER", HEADER)
    assert ask() == "token"
    (head,) = endpoint.heads
    assert "authorization" not in head.lower()


@pytest.fixture
def workload(simulator: Simulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """What Kubernetes says to a workload with an identity."""
    for name in ("IDENTITY_ENDPOINT", "IDENTITY_HEADER"):
        monkeypatch.delenv(name)
    (tmp_path / "token").write_text("assertion", "utf-8")
    values = simulator.url, simulator.world.tenant_id, str(tmp_path / "token"), simulator.world.client_id
    for name, value in zip(WORKLOAD, values, strict=True):
        monkeypatch.setenv(name, value)
    return dict(zip(WORKLOAD, values, strict=True))


def test_a_workloads_identity_which_is_of_entra_goes_through_the_proxy(
    monkeypatch: pytest.MonkeyPatch, proxy: Recorder, simulator: Simulator, workload: dict[str, str]
) -> None:
    use(monkeypatch, proxy)
    with pytest.raises(AzureError), session_for(AMPLE, simulator.ca_bundle) as session:
        managed_identity(workload["AZURE_CLIENT_ID"], session).get_token(VAULT)  # no such assertion is known
    assert proxy.tunnels == [urlsplit(simulator.url).netloc]


def test_an_operators_other_credentials_go_through_the_proxy(
    monkeypatch: pytest.MonkeyPatch, proxy: Recorder, simulator: Simulator, workload: dict[str, str]
) -> None:
    assert workload
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "prod")
    monkeypatch.setenv("SSL_CERT_FILE", simulator.ca_bundle)
    use(monkeypatch, proxy)
    with pytest.raises(UsageSummaryError):
        Operator().get_token(VAULT)
    assert set(proxy.tunnels) == {urlsplit(simulator.url).netloc}


@pytest.mark.parametrize(
    "chosen",
    ["", "prod", "dev", "ManagedIdentityCredential", "WorkloadIdentityCredential", "AzureCliCredential"],
)
def test_an_operators_credentials_are_azures_own_in_their_order(
    monkeypatch: pytest.MonkeyPatch, chosen: str
) -> None:
    chains: list[list[type]] = []

    def get_token(chain: DefaultAzureCredential, *_: str, **__: object) -> AccessToken:
        chains.append([type(each) for each in chain.credentials])
        return AccessToken("token", 0)

    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", chosen)
    monkeypatch.setattr(DefaultAzureCredential, "get_token", get_token)
    Operator().get_token(VAULT)
    assert chains == [[type(each) for each in DefaultAzureCredential().credentials]]


@pytest.fixture
def places(simulator: Simulator) -> Iterator[dict[str, Gate]]:
    """Entra, vault, Partner Center and storage over TLS, each at an address of its own."""
    with ExitStack() as stack:
        gates = {
            name: stack.enter_context(Gate(simulator.port))
            for name in ("entra", "vault", "partner center", "storage")
        }
        for each in gates.values():
            each.open()
        yield gates


@pytest.fixture
def plain(simulator: Simulator) -> Iterator[Recorder]:
    """The world's identity endpoint over plain http, as App Service has it."""

    def forward(handler: BaseHTTPRequestHandler) -> tuple[int, bytes]:
        with requests.Session() as session:
            session.trust_env = False
            header = {"x-identity-header": handler.headers.get("X-IDENTITY-HEADER", "")}
            address = f"{simulator.url}/identity/token?{urlsplit(handler.path).query}"
            got = session.get(address, headers=header, verify=simulator.ca_bundle, timeout=10)
        return got.status_code, got.content

    with Recorder(forward) as running:
        yield running


@pytest.fixture
def spread(simulator: Simulator, places: dict[str, Gate], plain: Recorder) -> dict[str, str]:
    """Settings of an app that has no secret, and each service at its address."""
    return {
        **simulator.settings,
        "PARTNER_CENTER_AUTHORITY": places["entra"].url,
        "PARTNER_CENTER_BASE_URL": places["partner center"].url,
        "PARTNER_CENTER_REFRESH_TOKEN_SECRET": f"{places['vault'].url}/secrets/{SECRET_NAME}",
        "USAGE_STORAGE__blobServiceUri": places["storage"].url,
        "IDENTITY_ENDPOINT": f"{plain.url}/msi/token",
    }


def assert_no_proxy_is_told(proxy: Recorder, plain: Recorder, simulator: Simulator) -> None:
    assert len(plain.heads) > 1
    assert [head for head in proxy.heads if not head.startswith("CONNECT ")] == []
    assert f":{plain.port} " not in "".join(proxy.heads)
    said = "".join(proxy.heads).lower()
    assert ("x-identity-header" in said, simulator.world.canary in said) == (False, False)


def through(proxy: Recorder, places: dict[str, Gate]) -> set[str]:
    """What was asked for a tunnel to, by name."""
    names = {f"127.0.0.1:{gate.port}": name for name, gate in places.items()}
    return {names[each] for each in proxy.tunnels}


@pytest.mark.parametrize("variable", VARIABLES)
def test_the_app_asks_all_but_the_identity_endpoint_through(
    variable: str,
    spread: dict[str, str],
    places: dict[str, Gate],
    simulator: Simulator,
    plain: Recorder,
    proxy: Recorder,
    monkeypatch: pytest.MonkeyPatch,
    manual_clock: ManualClock,
    at_once: None,  # noqa: ARG001  # a fixture
) -> None:
    federated = {
        "PARTNER_CENTER_CLIENT_SECRET": "",
        "PARTNER_CENTER_CLIENT_MANAGED_IDENTITY": simulator.world.managed_identity_client_id,
    }
    monkeypatch.setenv("IDENTITY_ENDPOINT", spread["IDENTITY_ENDPOINT"])
    use(monkeypatch, proxy, variable)
    response = asyncio.run(get(App(spread | federated, manual_clock.clock())))
    settle()
    assert (response.status, response.body) == (200, DOCUMENT)
    assert_no_proxy_is_told(proxy, plain, simulator)
    assert through(proxy, places) == ({*places} if variable in COVERS_HTTPS else set())


@pytest.mark.parametrize("variable", VARIABLES)
def test_an_operator_with_a_managed_identity_asks_all_but_its_endpoint_through(
    variable: str,
    spread: dict[str, str],
    places: dict[str, Gate],
    simulator: Simulator,
    plain: Recorder,
    proxy: Recorder,
    terminal: Terminal,
    at_once: None,  # noqa: ARG001  # a fixture
) -> None:
    changed = {**spread, "AZURE_TOKEN_CREDENTIALS": "", variable: proxy.url}
    shown = terminal.run("show", changed=changed)
    assert (shown.code, shown.err) == (0, "")
    assert terminal.run("history", "show", changed=changed).code == 1  # the world has no blobs
    assert_no_proxy_is_told(proxy, plain, simulator)
    assert through(proxy, places) == ({*places} if variable in COVERS_HTTPS else set())


def by_identity(simulator: Simulator, time_allowed: timedelta = PATIENT) -> Container:
    connection = StorageConnection(blob_service_uri=simulator.url)
    return Container("usage", connection, time_allowed, simulator.ca_bundle)


PASSING = {
    "an error": Fault(Service.IDENTITY, 500),
    "no such place yet": Fault(Service.IDENTITY, 404),
    "an update": Fault(Service.IDENTITY, 410),
    "too many": Fault(Service.IDENTITY, 429),
    "too many for now": Fault(Service.IDENTITY, 429, headers={"retry-after": "1"}),
    "too many for some seconds": Fault(Service.IDENTITY, 429, headers={"retry-after": "10"}),
    "a gateway": Fault(Service.IDENTITY, 502, lambda _: b"<html>", {"content-type": "text/html"}),
    "a reset": Fault(Service.IDENTITY, delivery=Delivery.RESET),
    "half an answer": Fault(Service.IDENTITY, delivery=Delivery.HALF),
    "silence": Fault(Service.IDENTITY, delivery=Delivery.NEVER),
}


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What was waited for in seconds; nobody waits indeed."""
    found: list[float] = []
    monkeypatch.setattr(
        "azure.core.pipeline.transport.HttpTransport.sleep", lambda _, wait: found.append(wait)
    )
    return found


@pytest.mark.parametrize("failure", PASSING)
def test_an_operation_of_storage_by_identity_gets_over(
    simulator: Simulator, waits: list[float], failure: str
) -> None:
    fault = PASSING[failure]
    simulator.world.faults[Service.IDENTITY] = Fault(**(vars(fault) | {"times": 1}))
    is_silent = fault.delivery is Delivery.NEVER  # the first try lasts for three tenths of the errand's time
    assert by_identity(simulator, timedelta(seconds=10) if is_silent else PATIENT).read("a").blob is None
    assert [each.service for each in simulator.world.exchanges].count(Service.IDENTITY) == 2
    (wait,) = waits
    asked = float(fault.headers.get("retry-after", "0"))
    assert max(0.1, asked) <= wait <= max(0.4, asked)


def test_a_quick_operation_of_storage_does_not_wait_for_a_longer_retry_after(
    simulator: Simulator, waits: list[float]
) -> None:
    simulator.world.faults[Service.IDENTITY] = Fault(Service.IDENTITY, 429, headers={"retry-after": "2"})
    with pytest.raises(StorageError):
        by_identity(simulator, QUICK).read("a")
    assert waits == []


def test_an_operation_of_storage_by_identity_gets_over_a_refused_connection(
    simulator: Simulator, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = iter([ConnectionRefusedError()])

    def connect(*more: Any, **options: Any) -> socket.socket:  # noqa: ANN401  # urllib3's
        for each in refusals:
            raise each
        return create_connection(*more, **options)

    monkeypatch.setattr("urllib3.util.connection.create_connection", connect)
    assert by_identity(simulator).read("a").blob is None
    assert len(waits) == 1


def test_a_federated_sign_in_gets_over_a_failure_of_the_identity_endpoint(
    simulator: Simulator,
    environ: dict[str, str],
    manual_clock: ManualClock,
    at_once: None,  # noqa: ARG001  # a fixture
) -> None:
    changed = {
        "PARTNER_CENTER_CLIENT_SECRET": "",
        "PARTNER_CENTER_CLIENT_MANAGED_IDENTITY": simulator.world.managed_identity_client_id,
        "PARTNER_CENTER_REFRESH_TOKEN_SECRET": "",
        "PARTNER_CENTER_REFRESH_TOKEN": simulator.world.refresh_token(),
    }
    simulator.world.faults[Service.IDENTITY] = Fault(Service.IDENTITY, 500, times=1)
    response = asyncio.run(get(App(environ | changed, manual_clock.clock())))
    settle()
    assert (response.status, response.body) == (200, DOCUMENT)
    assert [each.service for each in simulator.world.exchanges].count(Service.PARTNER_CENTER) == 1
    assert [each.service for each in simulator.world.exchanges].count(Service.IDENTITY) == 2


REFUSALS = {
    "no such identity": (400, {}),
    "another header": (401, {}),
    "forbidden": (403, {}),
    "too many for a while": (429, {"retry-after": "30"}),
    "down for a while": (503, {"retry-after": "30"}),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_the_identity_endpoint_is_not_asked_again_after(
    simulator: Simulator, waits: list[float], refusal: str
) -> None:
    status, headers = REFUSALS[refusal]
    simulator.world.faults[Service.IDENTITY] = Fault(Service.IDENTITY, status, headers=headers)
    with pytest.raises(StorageError):
        by_identity(simulator).read("a")
    assert [each.service for each in simulator.world.exchanges] == [Service.IDENTITY]
    assert waits == []


def test_the_identity_endpoint_is_asked_twice_and_no_more(simulator: Simulator, waits: list[float]) -> None:
    simulator.world.faults[Service.IDENTITY] = Fault(Service.IDENTITY, 500)
    with pytest.raises(StorageError):
        by_identity(simulator).read("a")
    assert [each.service for each in simulator.world.exchanges] == [Service.IDENTITY] * 2
    assert len(waits) == 1


def test_the_second_try_ends_at_the_deadline_too(simulator: Simulator, waits: list[float]) -> None:
    simulator.world.faults[Service.IDENTITY] = Fault(Service.IDENTITY, delivery=Delivery.NEVER)
    with pytest.raises(StorageError):
        by_identity(simulator, timedelta(seconds=2)).read("a")
    assert len(waits) == 1


def test_a_first_try_in_silence_leaves_time_for_a_quick_operation(waits: list[float]) -> None:
    timeouts: list[tuple[float, float]] = []

    class Silent(Session):
        time_allowed = QUICK

        def request(self, *_: Any, **options: Any) -> requests.Response:  # noqa: ANN401  # as Session has it
            timeouts.append(options["timeout"])
            raise requests.ReadTimeout

    with Silent() as session, pytest.raises(ServiceResponseError):
        EndpointTransport(session).send(HttpRequest("GET", "http://127.0.0.1/msi/token"))
    first, second = timeouts
    assert sum(first) + waits[0] < QUICK.total_seconds()
    assert second > first


def test_a_token_for_storage_is_over_though_the_machine_slept_until_then(
    monkeypatch: pytest.MonkeyPatch, endpoint: Recorder
) -> None:
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{endpoint.url}/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", HEADER)
    passed = [0.0]
    identity = StorageIdentity(None, lambda: passed[0])
    asked = []
    with session_for(AMPLE, None) as session:
        for passed[0] in (0, 8_000, 8 * 3600):
            assert identity.token(session, ("https://storage.azure.com/.default",)).token == "token"
            asked.append(len(endpoint.heads))
    assert asked == [1, 1, 2]
