"""The world of one cell of the table: something is broken in it, and an app starts.

Storage, the world and the app have one clock, which begins at noon and moves when somebody waits, in the
product's own seconds. Where a socket has to be waited for, that takes a moment, and the clock moves by all.
"""

import asyncio
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
import pytest
import requests
import trustme
from azure.core.exceptions import ResourceExistsError
from azure.storage.blob import BlobClient, BlobServiceClient, ContainerClient, ContentSettings
from urllib3.util.connection import create_connection

from dev.azurite import Azurite
from dev.simulator import Exchange, Service, Simulator
from dev.simulator.world import DOCUMENT, SECRET_NAME, SecretVersion
from shared.app import App
from shared.deadlines import session_for
from shared.errors import UpstreamTimeoutError
from shared.freshness import NO_DIRECTIVES, RequestDirectives
from shared.http import respond
from shared.problems import Response
from tests.conftest import ManualClock, shared_name
from tests.faults.gate import Gate
from tests.storage_proxy import Fault, Request, StorageProxy
from tests.threads import settle

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
AGE = timedelta(hours=3)  # past fresh and stale-while-revalidate, within stale-if-error
TOTAL = b"120.5682999999995904716"
STORED, NEW, LATER = (DOCUMENT.replace(TOTAL, each) for each in (b"1.10", TOTAL, b"130.250"))

_MOMENT = timedelta(seconds=0.25)  # in place of a deadline
_GLANCE = 2.5  # seconds between two looks at another's claim, in place of a tenth: a hundred looks fewer


@dataclass(frozen=True)
class Copy:
    """A blob as an instance of before wrote it."""

    name: str
    content: bytes
    metadata: dict[str, str]
    settings: ContentSettings

    @classmethod
    def of(cls, container: ContainerClient) -> "Copy":
        """The only blob of a container."""
        (name,) = container.list_blob_names()
        download = container.download_blob(name)
        properties = download.properties
        return cls(name, download.readall(), dict(properties.metadata or {}), properties.content_settings)

    def lay(self, container: ContainerClient, name: str = "") -> None:
        """Put it into another container."""
        container.upload_blob(
            name or self.name, self.content, metadata=self.metadata, content_settings=self.settings
        )


@dataclass(frozen=True)
class Past:
    """Yesterday's snapshot, and the answer that has been stored for some hours."""

    snapshot: Copy
    shared: Copy


@dataclass(frozen=True)
class Certificates:
    """What a service may show; the bundle names the CA of the first, and the simulator's."""

    bundle: str
    good: trustme.LeafCert
    expired: trustme.LeafCert
    foreign: trustme.LeafCert


@dataclass
class Scene:
    """What a fault is made of, and what remains to be looked at afterwards."""

    environ: dict[str, str]
    simulator: Simulator
    service: BlobServiceClient
    azurite: Azurite
    past: Past
    certificates: Certificates
    gate: Gate
    clock: ManualClock = field(default_factory=lambda: ManualClock(NOON))
    patch: pytest.MonkeyPatch = field(default_factory=pytest.MonkeyPatch)
    """Of the fault: undone when all is healed."""
    off: timedelta = timedelta()
    """How wrong the clock on the wall of the app's process is."""
    storage_off: timedelta = timedelta()
    stood_still: float = 0.0
    """Seconds in which the process did nothing at all."""
    took: float = 0.0
    """Seconds of the clock that the last caller waited, without those of the machine, which may be busy."""

    def __post_init__(self) -> None:
        self.world = self.simulator.world
        self.proxy = self.another_proxy()
        self.world.clock = lambda: self.clock.instant
        self.world.delay = 0.2
        self.world.secrets.clear()
        self.world.consent()

    def another_proxy(self) -> StorageProxy:
        return StorageProxy(self.azurite, lambda: self.clock.instant + self.storage_off)

    def prepare(self, *, gate: str, is_stale: bool) -> None:
        """What there is before the fault; the service whose address a setting is, is behind the gate."""
        self.environ |= {
            "AzureWebJobsStorage": self.proxy.connection_string,
            "REQUESTS_CA_BUNDLE": self.certificates.bundle,
            "USAGE_CACHE_CONTAINER": "faults-cache",  # each world has a blob of its own
        }
        if gate:
            self.environ[gate] = self.gate.url
        with suppress(ResourceExistsError):
            self.container("USAGE_CACHE_CONTAINER").create_container()
        self.container("USAGE_SNAPSHOT_CONTAINER").create_container()
        self.past.snapshot.lay(self.container("USAGE_SNAPSHOT_CONTAINER"))
        if is_stale:
            self.past.shared.lay(self.container("USAGE_CACHE_CONTAINER"), shared_name(self.environ))

    def heal(self) -> None:
        """All is as it should be again."""
        self.patch.undo()
        self.world.choose("healthy")
        self.world.observer = lambda _: None
        self.proxy.follow()
        self.proxy.policies.clear()
        self.off = self.storage_off = timedelta()
        self.gate.open()

    def hurry(self, name: str, longest: timedelta) -> None:
        """Deadlines of this module that are no longer than that come at once, and the clock moves by them."""

        @contextmanager
        def hurried(duration: timedelta, ca_bundle: str | None) -> Iterator[requests.Session]:
            is_meant = duration <= longest
            try:
                with session_for(_MOMENT if is_meant else duration, ca_bundle) as session:
                    yield session
            except UpstreamTimeoutError:
                if is_meant:
                    self.clock.advance(seconds=duration.total_seconds())
                raise

        self.patch.setattr(name, hurried)

    def fail_connections(self, error: OSError, port: int | None = None) -> None:
        """No connection can be made, to one port or to any."""

        def connect(address: tuple[str, int], *more: Any, **options: Any) -> socket.socket:  # noqa: ANN401  # urllib3's
            if port in {None, address[1]}:
                raise error
            return create_connection(address, *more, **options)

        self.patch.setattr("urllib3.util.connection.create_connection", connect)

    def start(self, **changed: str) -> App:
        """An instance that knows nothing."""
        clock = replace(self.clock.clock(), now=lambda: self.clock.instant + self.off, sleep=self._wait)
        return App(self.environ | changed, clock)

    def _wait(self, seconds: float) -> None:
        self.clock.sleep(_GLANCE if 0 < seconds < 0.25 else seconds)

    def ask(self, app: App, directives: RequestDirectives = NO_DIRECTIVES) -> Response:
        """What a caller gets; whatever goes on behind has ended."""
        return self.waiting(lambda: asyncio.run(get(app, directives)))

    def waiting(self, ask: Callable[[], Response]) -> Response:
        instant = self.clock.instant
        response = ask()
        self.took = (self.clock.instant - instant).total_seconds()
        settle()
        return response

    def container(self, setting: str) -> ContainerClient:
        return self.service.get_container_client(self.environ[setting])

    @property
    def shared(self) -> BlobClient:
        """What all instances share."""
        return self.container("USAGE_CACHE_CONTAINER").get_blob_client(shared_name(self.environ))

    def share(self, content: bytes | None = None, **metadata: str) -> None:
        """Replace what is shared, or some of it."""
        if self.shared.exists():
            there = self.shared.download_blob()
            content = there.readall() if content is None else content
            metadata = {**(there.properties.metadata or {}), **metadata}
        self.shared.upload_blob(content or b"{}", metadata=metadata, overwrite=True)

    def fail(self, fault: Fault, containers: set[str], method: str = "", times: int = 10**6) -> None:
        """So many of storage's requests for these containers fare like that."""
        left = [times]

        def plan(request: Request, _: int) -> Fault:
            if request.container not in containers or method not in {"", request.method} or not left[0]:
                return Fault.NONE
            left[0] -= 1
            return fault

        self.proxy.follow(plan)

    def open_connections(self) -> list[object]:
        """Those of this process to the world, to storage and to the gate."""
        ports = {self.simulator.port, self.proxy.port, self.gate.port}
        found = psutil.Process().net_connections("tcp")
        return [each for each in found if each.raddr and each.raddr.port in ports]

    def during_the_call(self, then: Callable[[], object]) -> None:
        """Something happens while Partner Center is asked."""

        def observe(exchange: Exchange) -> None:
            if exchange.service is Service.PARTNER_CENTER:
                then()

        self.world.observer = observe

    def calls(self) -> list[Exchange]:
        return [each for each in self.world.exchanges if each.service is Service.PARTNER_CENTER]

    @property
    def versions(self) -> list[SecretVersion]:
        """Of the refresh token, in the vault."""
        return self.world.secrets[SECRET_NAME]


async def get(app: App, directives: RequestDirectives = NO_DIRECTIVES) -> Response:
    """What a caller gets."""
    correlation_id = str(uuid.uuid4())
    result = await app.get_usage_summary(directives, correlation_id)
    return respond(result, correlation_id, app.freshness.fresh)
