"""The identity endpoint of App Service (learn.microsoft.com, app-service/overview-managed-identity)."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dev.simulator.world import World

API_VERSION = "2019-08-01"


def token(world: World, request: Request, _body: bytes) -> Response:
    """A token of the managed identity for any resource; without client_id it is the system-assigned one's."""
    query = request.query_params
    if request.headers.get("x-identity-header") != world.identity_header:
        return JSONResponse({"statusCode": 401, "message": "The identity header is not this app's."}, 401)
    if query.get("api-version") != API_VERSION or not query.get("resource"):
        return JSONResponse({"statusCode": 400, "message": "api-version or resource is missing."}, 400)
    client_id = query.get("client_id", "system-assigned")
    if client_id not in {"system-assigned", world.managed_identity_client_id}:
        return JSONResponse({"statusCode": 400, "message": "No User Assigned identity has that id."}, 400)
    minted = world.identity_token(query["resource"], client_id)
    return JSONResponse(
        {
            "access_token": minted,
            "expires_on": str(world.claims(minted)["exp"]),
            "resource": query["resource"],
            "token_type": "Bearer",
            "client_id": client_id,
        }
    )
