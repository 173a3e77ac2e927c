"""Every part of the world at its path, each exchange recorded."""

from collections.abc import Callable
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from dev.simulator import control, entra, identity, key_vault, partner_center
from dev.simulator.authorize import authorize
from dev.simulator.records import Exchange
from dev.simulator.wire import Delivery, Service, deliver
from dev.simulator.world import World

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


def application(world: World) -> Starlette:
    """Everything that the world serves, as an ASGI app."""

    def route(path: str, service: Service, answer: Answer, *methods: str) -> Route:
        return Route(path, _Endpoint(world, service, answer), methods=methods or None)

    return Starlette(
        routes=[
            *control.routes(world),
            route("/{tenant}/v2.0/.well-known/openid-configuration", Service.ENTRA, entra.discover, "GET"),
            route("/{tenant}/oauth2/v2.0/authorize", Service.ENTRA, authorize, "GET"),
            route("/{tenant}/oauth2/v2.0/token", Service.ENTRA, entra.redeem, "POST"),
            route("/identity/token", Service.IDENTITY, identity.token, "GET"),
            route("/secrets/{secret:path}", Service.KEY_VAULT, key_vault.secrets),
            route("/deletedsecrets/{secret:path}", Service.KEY_VAULT, key_vault.deleted_secrets),
            route("/v1/usagesummary", Service.PARTNER_CENTER, partner_center.usage_summary, "GET"),
            route("/{path:path}", Service.PARTNER_CENTER, partner_center.not_found),
        ]
    )
