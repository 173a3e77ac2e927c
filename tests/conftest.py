"""What the tests stand on: the simulator over TLS, one Azurite a session, a clock that moves by hand."""

import json
import logging
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from azure.core.pipeline.transport import HttpTransport
from azure.storage.blob import BlobServiceClient, ContainerClient

from dev.azurite import ACCOUNT, ACCOUNT_KEY, Azurite
from dev.simulator import Simulator, World
from shared.blobs import PATIENT, Container
from shared.clock import Clock
from shared.configuration import read_settings
from shared.errors import BlobConflictError
from shared.fleet import Fleet
from shared.fleet_blob import blob_name
from shared.held import Answer
from shared.settings import Settings, StorageConnection
from tests.clients import blob_container, blob_service
from tests.leaks import _closes_what_it_opens  # noqa: F401  # a fixture
from tests.seeds import pytest_configure, pytest_sessionstart  # noqa: F401  # hooks
from tests.storage_proxy import StorageProxy
from tests.terminal import Terminal, free_port
from tests.threads import begin_a_new_day

FIELD = Path(__file__).parent / "field"
"""Inputs made after public reports of people who do this job."""

_SLOW = [hypothesis.HealthCheck.too_slow]
# A busy machine is no defect, and what fails can be repeated by the blob that is printed.
hypothesis.settings.register_profile("steady", deadline=None, suppress_health_check=_SLOW, print_blob=True)
hypothesis.settings.load_profile("steady")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With -x, what needs no other process comes first: a mutant is mostly killed before there is one.

    pytest escapes a name by `ids` once more each time a process collects it; mutmut, which collects twice,
    would not find the test again, and count every mutant it looks at as killed.
    """
    for item in items:
        if "\\" in item.name and any("ids" in mark.kwargs for mark in item.iter_markers("parametrize")):
            raise pytest.UsageError(f"{item.nodeid}: a name by ids has no backslash")
    if config.getoption("maxfail"):
        items.sort(key=lambda item: {"azurite", "simulator"} & {*getattr(item, "fixturenames", ())} != set())


@dataclass
class ManualClock:
    """Time that passes only when somebody sleeps or a test says so."""

    # Begins now: Azurite's clock, and that on which MSAL checks what it signs, are the machine's.
    instant: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    slept: list[float] = field(default_factory=list)

    def clock(self) -> Clock:
        return Clock(lambda: self.instant, self._monotonic, self.sleep)

    def _monotonic(self) -> float:
        return self.instant.timestamp()

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.advance(seconds=seconds)

    def advance(self, **duration: float) -> None:
        self.instant += timedelta(**duration)


@pytest.fixture
def manual_clock() -> ManualClock:
    begin_a_new_day()
    return ManualClock()


_OF_THIS_MACHINE = {
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"),
}
_SETTINGS = ("AZURE_", "IDENTITY_", "MSI_", "PARTNER_CENTER_", "SNAPSHOT_", "USAGE_", "AzureWebJobsStorage")


@pytest.fixture(autouse=True)
def _nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_this_machine(monkeypatch)


def forget_this_machine(patch: pytest.MonkeyPatch) -> None:
    """Leave out of the environment what would change where a test's calls go; an installation needs it."""
    for name in os.environ:
        if name.upper() in _OF_THIS_MACHINE or name.startswith(_SETTINGS):
            patch.delenv(name)
    patch.setenv("NETRC", os.devnull)  # the one in the home directory


@pytest.fixture(scope="session")
def served() -> Iterator[Simulator]:
    with Simulator() as running:
        yield running


@pytest.fixture
def simulator(served: Simulator, monkeypatch: pytest.MonkeyPatch) -> Simulator:
    """A healthy world of its own for one test; the platform's identity endpoint is in the environment."""
    vars(served.world).update(vars(World()))
    for name in ("IDENTITY_ENDPOINT", "IDENTITY_HEADER"):
        monkeypatch.setenv(name, served.settings[name])
    return served


@pytest.fixture(scope="session")
def azurite() -> Iterator[Azurite]:
    with Azurite() as running:
        yield running


@pytest.fixture
def service(azurite: Azurite) -> Iterator[BlobServiceClient]:
    """Blob Storage past the app."""
    with blob_service(azurite.connection_string) as client:
        yield client


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blob Storage's SDK does not wait before its second try."""
    monkeypatch.setattr(HttpTransport, "sleep", lambda *_: None)


@pytest.fixture
def proxy(azurite: Azurite, at_once: None) -> Iterator[StorageProxy]:  # noqa: ARG001  # a fixture
    """Between the app and Azurite."""
    with StorageProxy(azurite) as running:
        yield running


@pytest.fixture
def environ(simulator: Simulator, azurite: Azurite) -> dict[str, str]:
    """All settings of an app in the simulated world, its containers its own."""
    begin_a_new_day()
    own = uuid.uuid4().hex[:12]
    return {
        **simulator.settings,
        "AzureWebJobsStorage": azurite.connection_string,
        "USAGE_CACHE_CONTAINER": f"cache-{own}",
        "USAGE_SNAPSHOT_CONTAINER": f"usage-{own}",
        "USAGE_HISTORY_CONTAINER": f"history-{own}",
    }


@pytest.fixture
def settings(environ: dict[str, str]) -> Settings:
    return read_settings(environ)


@pytest.fixture
def container(azurite: Azurite) -> Container:
    """An empty container that does not exist yet."""
    connection = StorageConnection(connection_string=azurite.connection_string)
    return Container(f"test-{uuid.uuid4().hex[:12]}", connection, PATIENT, None)


@contextmanager
def always_overtaken() -> Iterator[list[str]]:
    """Whoever writes a blob finds that another was faster; the names of the blobs, one each time."""
    refused: list[str] = []

    def refuse(_: Container, name: str, *__: object, **___: object) -> str:
        refused.append(name)
        raise BlobConflictError("412")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Container, "write", refuse)
        yield refused


@pytest.fixture
def terminal(
    simulator: Simulator, manual_clock: ManualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Terminal:
    """An operator who has signed in to Azure, in an empty directory; nothing else is in the environment."""
    simulator.install_az(tmp_path / "bin")
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "home")
    monkeypatch.setattr("ops.checks.Clock", manual_clock.clock)  # between attempts nobody waits
    monkeypatch.setattr("tqdm.tqdm.monitor_interval", 0)  # its thread, which looks after bars, never ends
    settings = {name: value for name, value in simulator.settings.items() if not name.startswith("IDENTITY_")}
    environ = {
        "PATH": str(tmp_path / "bin"),
        "HOME": str(tmp_path / "home"),
        "AZURE_TOKEN_CREDENTIALS": "dev",  # on a virtual machine of Azure there would be an identity
        **settings,
    }
    return Terminal(simulator, environ, tmp_path / "home", free_port())


def events(caplog: pytest.LogCaptureFixture, name: str) -> list[dict[str, Any]]:
    """The values of all log lines of one event."""
    lines = (_json(record) for record in caplog.records)
    return [line for line in lines if line.get("event") == name]


def _json(record: logging.LogRecord) -> dict[str, Any]:
    try:
        line = json.loads(record.getMessage())
    except ValueError:
        return {}
    return line if isinstance(line, dict) else {}


def beside(client: ContainerClient) -> Container:
    """The app's view of a container of Azurite."""
    endpoint = client.url.removesuffix(f"/{client.container_name}")
    text = f"AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};BlobEndpoint={endpoint}"
    return Container(client.container_name, StorageConnection(text), PATIENT, None)


def share(fleet: Fleet, answer: Answer) -> None:
    """The fleet has this answer."""
    claim = fleet.claim(fleet.read(), "before")
    assert claim is not None
    assert fleet.publish(claim, answer)


def delete_shared_answer(azurite: Azurite, environ: dict[str, str]) -> None:
    """Delete what the fleet shares."""
    with blob_container(azurite.connection_string, environ["USAGE_CACHE_CONTAINER"]) as container:
        container.delete_blob(shared_name(environ))


def shared_name(environ: dict[str, str]) -> str:
    """The name of the blob that the fleet shares."""
    return blob_name(partner_of(environ))


def partner_of(environ: dict[str, str]) -> str:
    return f"{environ['PARTNER_CENTER_BASE_URL']} {environ['PARTNER_CENTER_TENANT_ID']}"
