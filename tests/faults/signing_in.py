"""Faults of what signs the app in: Entra, the vault, the identity endpoint."""

from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from uuid import UUID

from dev.simulator import Fault, World
from dev.simulator.world import SECRET_NAME
from shared.app import App
from shared.problems import Response
from tests.faults.acts import (
    ENTRA,
    HANGS,
    IDENTITY,
    RESETS,
    VAULT,
    Act,
    Scenario,
    answers,
    as_always,
    breaks,
    consents_again,
    delivers,
    hurried,
    refuses,
    together,
    world,
)
from tests.faults.case import (
    CONFIGURATION,
    CONSENT,
    FINE,
    REFUSED,
    TIMEOUT,
    UNAVAILABLE,
    Case,
    fails,
    told,
)
from tests.faults.scene import Scene

GATE = "PARTNER_CENTER_AUTHORITY"
WRITE_BACK = timedelta(seconds=5)  # as long as that, and no longer, storing the newest token may take
STRANGER = UUID(int=7)


def lives(**life: float) -> Act:
    """So long tokens live that Entra gives."""
    return world(lambda each: setattr(each, "access_token_life", timedelta(**life)))


def holds(value: str) -> Act:
    return world(lambda each: each.store(SECRET_NAME, value))


def is_disabled(each: World) -> None:
    each.secrets[SECRET_NAME][-1].attributes["enabled"] = False


def consented_two_days_ago(scene: Scene) -> None:
    """So that a newer refresh token is due to be stored."""
    scene.clock.advance(days=-2)
    scene.world.secrets.clear()
    scene.world.consent()
    scene.clock.advance(days=2)


def is_written_back(scene: Scene) -> None:
    former, *_, newest = scene.versions
    assert newest.tags["source"] == "app"
    assert newest.value != former.value


def somebody_consents_meanwhile(scene: Scene) -> None:
    consented_two_days_ago(scene)
    scene.during_the_call(lambda: len(scene.versions) > 1 or scene.world.consent())


def is_not_replaced(scene: Scene) -> None:
    assert len(scene.versions) == 2
    assert "source" not in scene.versions[-1].tags


def there_is_none(scene: Scene) -> None:
    """As on a machine that is not in Azure: a connection that is refused."""
    scene.patch.delenv("IDENTITY_ENDPOINT")
    scene.patch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", f"http://127.0.0.1:{scene.gate.port}")


def is_another(scene: Scene) -> None:
    scene.environ["AZURE_CLIENT_ID"] = str(STRANGER)


def is_assigned(scene: Scene) -> None:
    scene.world.managed_identity_client_id = str(STRANGER)


def has_two_reasons(scene: Scene) -> None:
    field = Path(__file__).parent.parent / "field" / "entra" / "invalid_grant-70002-500133.json"
    answers(ENTRA, 400, field.read_bytes(), "POST")(scene)


def told_the_special_one(scene: Scene, app: App) -> Response:
    """The advice, where a caller sees one."""
    response = scene.ask(app)
    assert response.status == HTTPStatus.OK or b"Correct the machine's clock" in response.body
    return response


DOWN, SLOW = fails(UNAVAILABLE), fails(TIMEOUT)
NO_TOKEN = b'{"token_type":"Bearer","expires_in":3600}'
FOREIGN = b'{"access_token":"x","expires_on":"9999999999","resource":"x","token_type":"Bearer"}'

SIGN_IN = [
    Case("the refresh token is revoked", Scenario("consent-revoked"), fails(CONSENT), consents_again),
    Case("the refresh token has expired", Scenario("consent-expired"), fails(CONSENT), consents_again),
    Case("MFA is demanded", Scenario("mfa-required"), fails(CONSENT), consents_again),
    Case("MFA was too long ago", Scenario("mfa-expired"), fails(CONSENT), consents_again),
    Case("the sign-in was too long ago", Scenario("sign-in-frequency"), fails(CONSENT), consents_again),
    Case("a policy blocks the person", Scenario("blocked"), fails(CONSENT)),
    Case("the client secret has expired", Scenario("secret-expired"), fails(CONFIGURATION)),
    Case("answers `invalid_client`", refuses("invalid_client", 7000215), fails(CONFIGURATION)),
    Case(
        "gives a general reason and a special one", has_two_reasons, fails(CONSENT), ask=told_the_special_one
    ),
    Case("answers an OAuth error that nobody knows", refuses("of_tomorrow"), fails(CONFIGURATION)),
    Case("does not know the tenant", answers(ENTRA, 400, b"{}", "GET"), fails(CONFIGURATION)),
    Case("answers `temporarily_unavailable`", refuses("temporarily_unavailable", 90024), DOWN),
    Case("answers 503", Scenario("entra-down"), DOWN),
    Case(
        "answers 429 with 20 s as Retry-After",
        Scenario("entra-throttled"),
        fails(UNAVAILABLE, recovery=told(20)),
    ),
    Case("breaks off amid the tokens", Scenario("entra-garbage"), DOWN),
    Case("gives no access token", answers(ENTRA, 200, NO_TOKEN, "POST"), DOWN),
    Case("fails at discovery alone", answers(ENTRA, 500, b"", "GET"), DOWN),
    Case("gives access tokens that have ended", lives(hours=0), fails(REFUSED, 401), lives(hours=1)),
    Case("never answers", hurried("consent", delivers(ENTRA, HANGS, "POST")), SLOW),
    Case("refuses the connection", as_always, DOWN, gate=GATE),
]

KEY_VAULT = [
    Case("answers 503", Scenario("vault-down"), DOWN),
    Case("answers 429", Scenario("vault-throttled"), DOWN),
    Case(
        "answers 429 with 40 s as Retry-After",
        answers(VAULT, 429, retry_after="40"),
        fails(UNAVAILABLE, recovery=told(40)),
    ),
    Case("refuses the app: 403", Scenario("vault-forbidden"), fails(CONFIGURATION)),
    Case("its secret is deleted", Scenario("vault-deleted"), fails(CONSENT)),
    Case("has no such secret", Scenario("vault-empty"), fails(CONSENT), consents_again),
    Case("its secret is disabled", world(is_disabled), fails(CONSENT), consents_again),
    Case("its secret is empty", holds(""), fails(CONSENT), consents_again),
    Case("its secret is no refresh token", holds("nonsense"), fails(CONSENT), consents_again),
    Case("never answers", hurried("consent", delivers(VAULT, HANGS)), SLOW),
    Case(
        "can be read, and not written",
        together(consented_two_days_ago, Scenario("vault-read-only")),
        FINE,
        proof=is_written_back,
    ),
    Case(
        "never answers a write",
        together(consented_two_days_ago, hurried("consent", delivers(VAULT, HANGS, "PUT"), WRITE_BACK)),
        FINE,
        proof=is_written_back,
    ),
    Case("somebody consents anew meanwhile", somebody_consents_meanwhile, FINE, proof=is_not_replaced),
]

ENDPOINT = [
    Case("answers 500 once", breaks(Fault(IDENTITY, 500, times=1)), FINE),
    Case("resets one connection", breaks(Fault(IDENTITY, delivery=RESETS, times=1)), FINE),
    Case("never answers one request", breaks(Fault(IDENTITY, delivery=HANGS, times=1)), FINE),
    Case("answers 503", Scenario("identity-down"), DOWN),
    Case("answers with a page", answers(IDENTITY, 200, b"<html>"), DOWN),
    Case("gives a token that the vault refuses", answers(IDENTITY, 200, FOREIGN), fails(CONFIGURATION)),
    Case("does not know the identity: 400", is_another, DOWN, is_assigned),
    Case("never answers", hurried("consent", delivers(IDENTITY, HANGS)), SLOW),
    Case("there is none", there_is_none, DOWN),
]
