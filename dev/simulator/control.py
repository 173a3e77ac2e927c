"""What another process may ask of the world and change in it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dev.simulator.records import BOM, Exchange
from dev.simulator.scenarios import SCENARIOS
from dev.simulator.world import World

HIDDEN = {
    "access_token",
    "authorization",
    "client_assertion",
    "client_secret",
    "code",
    "code_verifier",
    "id_token",
    "id_token_hint",
    "refresh_token",
    "x-identity-header",
}


def routes(world: World) -> list[Route]:
    """The control API."""
    control = _Control(world)
    return [
        Route("/simulator/scenarios", control.scenarios),
        Route("/simulator/scenario/{name}", control.choose, methods=["PUT"]),
        Route("/simulator/exchanges", control.exchanges, methods=["GET", "DELETE"]),
        Route("/simulator/complaints", control.complaints),
        Route("/simulator/document", control.document, methods=["PUT"]),
        Route("/simulator/operator-token", control.operator_token, methods=["POST"]),
    ]


@dataclass(frozen=True)
class _Control:
    """Nothing secret is shown, but for the token that `az` is given."""

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

    async def operator_token(self, request: Request) -> Response:
        world, query = self.world, request.query_params
        if not query.get("resource"):
            return JSONResponse({"error": "the resource is missing"}, 400)
        if not world.operator_signed_in:
            return JSONResponse({"error": "Please run 'az login' to setup account."}, 401)
        token = world.operator_token(query["resource"], query.get("tenant"))
        claims = world.claims(token)
        return JSONResponse({"accessToken": token, "expires_on": claims["exp"], "tenant": claims["tid"]})


def _shown(exchange: Exchange) -> dict[str, object]:
    parts = {name: _without_secrets(getattr(exchange, name)) for name in ("query", "headers", "form")}
    return asdict(exchange) | parts


def _without_secrets(part: Mapping[str, str]) -> dict[str, str]:
    return {name: "(hidden)" if name in HIDDEN else value for name, value in part.items()}
