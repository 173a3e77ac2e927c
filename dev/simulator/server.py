"""The world behind one TLS address, with a control API for other processes."""

import asyncio
import os
import ssl
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from socket import IPPROTO_TCP, TCP_NODELAY, create_server, socket
from typing import Self

import trustme
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from dev.simulator import entra, identity, key_vault, partner_center
from dev.simulator.scenarios import SCENARIOS
from dev.simulator.wire import Delivery, Service, deliver
from dev.simulator.world import BOM, SECRET_NAME, Exchange, World

TICK_SECONDS = 0.1
HIDDEN = {"authorization", "x-identity-header", "client_secret", "client_assertion", "refresh_token"}

type Answer = Callable[[World, Request, bytes], Response]


@dataclass(frozen=True)
class _Endpoint:
    """One path of a service: records the exchange, answers or fails, and delivers."""

    world: World
    service: Service
    answer: Answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            body = await request.body()
        except ClientDisconnect:
            return
        exchange = Exchange(
            self.service,
            request.method,
            request.url.path,
            dict(request.query_params),
            dict(request.headers),
            entra.form_of(body) if self.service is Service.ENTRA else {},
        )
        self.world.exchanges.append(exchange)
        fault = self.world.fault(self.service, request.method)
        if fault and fault.status:
            response = Response(fault.body(self.world), fault.status, headers=dict(fault.headers))
        else:
            response = self.answer(self.world, request, body)
        if self.service is Service.PARTNER_CENTER:
            partner_center.frame(self.world, request, response)
        delivery = fault.delivery if fault else Delivery.WHOLE
        if delivery not in {Delivery.NEVER, Delivery.RESET}:
            exchange.status = response.status_code
        self.world.observer(exchange)
        await deliver(response, delivery, self.world, (scope, receive, send))


@dataclass(frozen=True)
class _Control:
    """What another process may ask and change. Nothing secret is shown."""

    world: World

    async def scenarios(self, _request: Request) -> Response:
        return JSONResponse({name: scenario.sentence for name, scenario in SCENARIOS.items()})

    async def choose(self, request: Request) -> Response:
        try:
            self.world.choose(request.path_params["name"])
        except ValueError as error:
            return JSONResponse({"error": str(error)}, 404)
        return Response(status_code=204)

    async def exchanges(self, request: Request) -> Response:
        if request.method == "DELETE":
            self.world.exchanges.clear()
            return Response(status_code=204)
        return JSONResponse([_shown(exchange) for exchange in self.world.exchanges])

    async def complaints(self, _request: Request) -> Response:
        return JSONResponse(self.world.complaints)

    async def document(self, request: Request) -> Response:
        self.world.document = (await request.body()).removeprefix(BOM)
        return Response(status_code=204)


def _shown(exchange: Exchange) -> dict[str, object]:
    shown = asdict(exchange)
    for part in (shown["headers"], shown["form"]):
        part.update(dict.fromkeys(part.keys() & HIDDEN, "(hidden)"))
    return shown


def application(world: World) -> Starlette:
    """Everything that the world serves, as an ASGI app."""
    control = _Control(world)

    def route(path: str, service: Service, answer: Answer, *methods: str) -> Route:
        return Route(path, _Endpoint(world, service, answer), methods=methods or None)

    return Starlette(
        routes=[
            Route("/simulator/scenarios", control.scenarios),
            Route("/simulator/scenario/{name}", control.choose, methods=["PUT"]),
            Route("/simulator/exchanges", control.exchanges, methods=["GET", "DELETE"]),
            Route("/simulator/complaints", control.complaints),
            Route("/simulator/document", control.document, methods=["PUT"]),
            route("/{tenant}/v2.0/.well-known/openid-configuration", Service.ENTRA, entra.discover, "GET"),
            route("/{tenant}/oauth2/v2.0/token", Service.ENTRA, entra.redeem, "POST"),
            route("/identity/token", Service.IDENTITY, identity.token, "GET"),
            route("/secrets/{secret:path}", Service.KEY_VAULT, key_vault.secrets),
            route("/v1/usagesummary", Service.PARTNER_CENTER, partner_center.usage_summary, "GET"),
            route("/{path:path}", Service.PARTNER_CENTER, partner_center.not_found),
        ]
    )


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
                timeout_graceful_shutdown=5,
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
