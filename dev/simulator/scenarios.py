"""What can go wrong in the world, by name."""

import json
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from dev.simulator.records import BOM, SECRET_NAME
from dev.simulator.wire import JSON, Delivery, Fault, Service

if TYPE_CHECKING:
    from collections.abc import Callable

    from dev.simulator.world import World

HUGE = 2 * 1024 * 1024  # bytes


class Refusal(IntEnum):
    """Why Entra takes a refresh token no longer; the value is the number after AADSTS."""

    MFA_REQUIRED = 50076
    MFA_EXPIRED = 50078
    REVOKED = 50173
    BLOCKED = 53003
    SIGN_IN_FREQUENCY = 70043
    EXPIRED = 700082


class Scenario(NamedTuple):
    """A sentence for a person, and what happens: a fault of one service, a change of the world, or both."""

    sentence: str
    fault: Fault | None = None
    effect: "Callable[[World], None] | None" = None


def _constant(value: Any) -> "Callable[[World], bytes]":  # noqa: ANN401 any JSON
    body = json.dumps(value).encode()
    return lambda _: body


def _refused(status: int, code: int, description: str, **headers: str) -> Fault:
    """An error of Partner Center, in the shape of its published bodies (code an integer, no BOM)."""
    body = {"code": code, "description": description, "data": [], "source": "PartnerFD"}
    return Fault(Service.PARTNER_CENTER, status, _constant(body), {"content-type": JSON, **headers})


def _delivered(delivery: Delivery) -> Fault:
    return Fault(Service.PARTNER_CENTER, delivery=delivery)


def _document(**changes: Any) -> Fault:  # noqa: ANN401 any JSON; None removes the field
    def body(world: "World") -> bytes:
        document = {**json.loads(world.document), **changes}
        text = json.dumps({name: value for name, value in document.items() if value is not None})
        return (BOM if world.bom else b"") + text.encode()

    return Fault(Service.PARTNER_CENTER, 200, body)


def _garbage(world: "World") -> bytes:
    """A good answer of the token endpoint that breaks off, its tokens in it."""
    answer = {"token_type": "Bearer", "refresh_token": world.refresh_token(), "access_token": ""}
    return json.dumps({**answer, "access_token": world.access_token()}).encode()[:-2]


def _unavailable(service: Service, times: int | None = None) -> Fault:
    page = b"<html><body><h2>Our services aren't available right now</h2></body></html>"
    return Fault(service, 503, lambda _: page, {"content-type": "text/html"}, times=times)


def _unauthorized(times: int | None = None) -> Fault:
    headers = {"www-authenticate": 'Bearer error="invalid_token"'}
    return Fault(Service.PARTNER_CENTER, 401, headers=headers, times=times)


def _refuse(refusal: Refusal) -> "Callable[[World], None]":
    def effect(world: "World") -> None:
        world.refuse_consents(refusal)

    return effect


def _blocked(world: "World") -> None:
    """By a policy, which meets a new sign-in as well."""
    world.refuse_consents(Refusal.BLOCKED)
    world.sign_in_error = ("access_denied", Refusal.BLOCKED)


def _no_mfa(world: "World") -> None:
    world.forget_mfa()


def _app_only(world: "World") -> None:
    world.app_only = True
    world.withdraw_access_tokens()


def _secret_expired(world: "World") -> None:
    world.secret_expired = True
    world.withdraw_access_tokens()


def _vault_forbidden(world: "World") -> None:
    world.vault_forbidden = True


def _vault_read_only(world: "World") -> None:
    world.vault_read_only = True


def _vault_deleted(world: "World") -> None:
    world.delete_secret(SECRET_NAME)


def _role_missing(world: "World") -> None:
    world.has_partner_role = False


def _no_bom(world: "World") -> None:
    world.bom = False


_NO_DATA = "Customer does not have usage data."
_THROTTLED = {"statusCode": 429, "message": "Rate limit is exceeded. Try again in 20 seconds."}
_THROTTLED_HEADERS = {"content-type": JSON, "retry-after": "20"}
_ENTRA_THROTTLED = {
    "error": "temporarily_unavailable",
    "error_description": "AADSTS90024: A transient error has occurred. Please try again.",
    "error_codes": [90024],
}
_VAULT_THROTTLED = {
    "error": {
        "code": "Throttled",
        "message": "Request was not processed because too many requests were received.",
    }
}
_PAGE = b"<!DOCTYPE html><html><body>Sign in to your account</body></html>"

SCENARIOS: dict[str, Scenario] = {
    "healthy": Scenario("Everything answers."),
    "slow": Scenario("Partner Center answers after 3 seconds.", _delivered(Delivery.LATE)),
    "hanging": Scenario("Partner Center never answers.", _delivered(Delivery.NEVER)),
    "dripping": Scenario("Partner Center answers one byte at a time.", _delivered(Delivery.DRIPPING)),
    "throttled": Scenario(
        "Partner Center answers 429 with Retry-After 20.",
        Fault(Service.PARTNER_CENTER, 429, _constant(_THROTTLED), _THROTTLED_HEADERS),
    ),
    "down": Scenario("Partner Center answers 503.", _unavailable(Service.PARTNER_CENTER)),
    "flaky": Scenario("Partner Center answers 503 once, then well.", _unavailable(Service.PARTNER_CENTER, 1)),
    "connection-reset": Scenario("Partner Center resets the connection.", _delivered(Delivery.RESET)),
    "redirect": Scenario(
        "Partner Center redirects to another host.",
        Fault(Service.PARTNER_CENTER, 302, headers={"location": "https://elsewhere.invalid/v1/usagesummary"}),
    ),
    "html": Scenario(
        "Partner Center answers 200 with an HTML page.",
        Fault(Service.PARTNER_CENTER, 200, lambda _: _PAGE, {"content-type": "text/html"}),
    ),
    "half-document": Scenario("Partner Center breaks off in mid-document.", _delivered(Delivery.HALF)),
    "bom": Scenario("Partner Center's document starts with a byte-order mark, as it really does."),
    "no-bom": Scenario("Partner Center's document has no byte-order mark.", effect=_no_bom),
    "wrong-object": Scenario(
        "Partner Center answers 200 with an object of another type.",
        _document(attributes={"objectType": "CustomerUsageSummary"}),
    ),
    "no-total": Scenario("The usage summary has no totalCost.", _document(totalCost=None)),
    "huge": Scenario("The usage summary is 2 MiB.", _document(padding="x" * HUGE)),
    "no-usage-data": Scenario("No usage data, as 404 with code 3000.", _refused(404, 3000, _NO_DATA)),
    "no-usage-data-400": Scenario("No usage data, as 400 with code 3000.", _refused(400, 3000, _NO_DATA)),
    "unauthorized-once": Scenario("Partner Center refuses one access token, then none.", _unauthorized(1)),
    "unauthorized": Scenario("Partner Center refuses every access token.", _unauthorized()),
    "forbidden": Scenario("The user lacks the role: 403.", _refused(403, 900308, "Insufficient privileges")),
    "not-found": Scenario("Partner Center answers 404 with code 1000.", _refused(404, 1000, "Not found")),
    "bad-request": Scenario(
        "Partner Center answers 400 with code 2000.", _refused(400, 2000, "Invalid input")
    ),
    "mfa-missing": Scenario("The consent was given without MFA: 401 with code 900421.", effect=_no_mfa),
    "app-only": Scenario("Entra issues app-only tokens: 403 with code 900329.", effect=_app_only),
    "consent-revoked": Scenario("Every refresh token so far is revoked.", effect=_refuse(Refusal.REVOKED)),
    "consent-expired": Scenario(
        "Every refresh token so far lay 90 days unused.", effect=_refuse(Refusal.EXPIRED)
    ),
    "mfa-required": Scenario("Entra demands MFA of the user.", effect=_refuse(Refusal.MFA_REQUIRED)),
    "mfa-expired": Scenario(
        "The MFA of every consent so far is too old for a policy.", effect=_refuse(Refusal.MFA_EXPIRED)
    ),
    "sign-in-frequency": Scenario(
        "Every sign-in so far is too old for a policy.", effect=_refuse(Refusal.SIGN_IN_FREQUENCY)
    ),
    "blocked": Scenario("A policy blocks the user, a new sign-in too.", effect=_blocked),
    "role-missing": Scenario("The user has no role in Partner Center: 403.", effect=_role_missing),
    "secret-expired": Scenario("The client secret has expired.", effect=_secret_expired),
    "entra-down": Scenario("Entra answers 503.", _unavailable(Service.ENTRA)),
    "entra-throttled": Scenario(
        "Entra answers 429 with Retry-After 20.",
        Fault(Service.ENTRA, 429, _constant(_ENTRA_THROTTLED), _THROTTLED_HEADERS),
    ),
    "entra-garbage": Scenario(
        "Entra's token answer breaks off, tokens in it.",
        Fault(Service.ENTRA, 200, _garbage, method="POST"),
    ),
    "vault-down": Scenario("Key Vault answers 503.", _unavailable(Service.KEY_VAULT)),
    "vault-throttled": Scenario(
        "Key Vault answers 429.", Fault(Service.KEY_VAULT, 429, _constant(_VAULT_THROTTLED))
    ),
    "vault-forbidden": Scenario("Key Vault refuses the identity: 403.", effect=_vault_forbidden),
    "vault-read-only": Scenario("Key Vault lets read, but not write: 403.", effect=_vault_read_only),
    "vault-deleted": Scenario("The secret in Key Vault is soft-deleted.", effect=_vault_deleted),
    "vault-empty": Scenario("Key Vault has no such secret.", effect=lambda world: world.secrets.clear()),
    "identity-down": Scenario("The identity endpoint answers 503.", _unavailable(Service.IDENTITY)),
}
