"""The world behind one TLS address."""

import asyncio
import os
import ssl
import tempfile
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from socket import IPPROTO_TCP, TCP_NODELAY, create_server, socket
from typing import Self

import trustme
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from dev.simulator import azure_cli
from dev.simulator.application import application
from dev.simulator.records import SECRET_NAME
from dev.simulator.world import World

TICK_SECONDS = 0.1
GRACE_SECONDS = 5
"""For answers under way when the simulator stops; it cuts them short, so nobody waits for that."""


class _Protocol(HttpToolsProtocol):
    """HTTP whose connection an answer may break."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {"simulator": {"transport": self.transport}}


class _Server(uvicorn.Server):
    """uvicorn that tells when it serves, and waits for nobody when it stops."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()
        self._stopped = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, sockets: list[socket] | None = None) -> None:
        try:
            super().run(sockets)
        finally:
            self.ready.set()

    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    async def main_loop(self) -> None:
        """As uvicorn's, which keeps the Date header, but without a last tick to wait for."""
        self._loop, counter = asyncio.get_running_loop(), 0
        while not self.should_exit:
            await self.on_tick(counter)
            counter += 1
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), TICK_SECONDS)

    def stop(self) -> None:
        """Stop from another thread."""
        self.should_exit = True
        if self._loop:
            self._loop.call_soon_threadsafe(self._stopped.set)

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        for server in self.servers:
            server.close()
            server.abort_clients()
        for _ in range(100):  # rounds of the event loop, where uvicorn would wait for tenths of seconds
            await asyncio.sleep(0)
        await super().shutdown(sockets)


class Simulator:
    """Serves a world over TLS on 127.0.0.1 from a thread, while the context lasts.

    port 0 takes any free one; OSError names the port that is in use. The certificate, for localhost and
    127.0.0.1, comes from a throw-away CA whose PEM ca_bundle names.
    """

    def __init__(self, world: World | None = None, *, port: int = 0) -> None:
        self.world = world or World()
        self.port = port
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            try:
                listener = stack.enter_context(create_server(("127.0.0.1", self.port)))
            except OSError as error:
                reason = os.strerror(error.errno or 0)
                text = f"the simulator cannot listen on port {self.port}: {reason}"
                raise OSError(error.errno, text) from error
            # asyncio sets it only where the protocol is named; without it each answer waits 40 ms for an ACK.
            listener.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
            self.port = listener.getsockname()[1]
            authority = trustme.CA()
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="simulator-")))
            self.ca_bundle = str(directory / "ca.pem")
            authority.cert_pem.write_to_path(self.ca_bundle)
            self._serve(stack, listener, authority.issue_cert("localhost", "127.0.0.1"))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _serve(self, stack: ExitStack, listener: socket, certificate: trustme.LeafCert) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        server = _Server(
            uvicorn.Config(
                application(self.world),
                http=_Protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=GRACE_SECONDS,
                ssl_context_factory=lambda *_: context,
            )
        )
        thread = threading.Thread(target=server.run, args=([listener],), name="simulator")

        def stop() -> None:
            server.stop()
            thread.join()

        thread.start()
        stack.callback(stop)
        server.ready.wait()
        if not server.started:
            raise RuntimeError("the simulator did not start")

    def install_az(self, directory: Path) -> None:
        """Write an executable `az` into the directory, for an operator who has signed in; for POSIX."""
        azure_cli.install(directory, self.url, self.ca_bundle)

    @property
    def url(self) -> str:
        """Where everything is served, without a slash at the end."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def settings(self) -> dict[str, str]:
        """The app's settings that point it here. They hold this world's secrets."""
        return {
            "PARTNER_CENTER_BASE_URL": self.url,
            "PARTNER_CENTER_AUTHORITY": self.url,
            "PARTNER_CENTER_TENANT_ID": self.world.tenant_id,
            "PARTNER_CENTER_CLIENT_ID": self.world.client_id,
            "PARTNER_CENTER_CLIENT_SECRET": self.world.client_secret,
            "PARTNER_CENTER_REFRESH_TOKEN_SECRET": f"{self.url}/secrets/{SECRET_NAME}",
            "IDENTITY_ENDPOINT": f"{self.url}/identity/token",
            "IDENTITY_HEADER": self.world.identity_header,
            "REQUESTS_CA_BUNDLE": self.ca_bundle,
        }
