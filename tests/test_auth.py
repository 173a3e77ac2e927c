import json
import logging
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates

from dev.simulator import Delivery, Fault, Refusal, Service, Simulator, World
from dev.simulator.world import DOCUMENT, PARTNER_CENTER, SECRET_NAME
from shared.auth import AppUserCredential
from shared.client import PartnerCenterClient
from shared.clock import Clock
from shared.configuration import read_settings
from shared.consent import Consent
from shared.entra import Tokens
from shared.errors import (
    ConfigurationError,
    ConsentRequiredError,
    UpstreamError,
    UpstreamTimeoutError,
    UpstreamUnavailableError,
    UsageSummaryError,
)
from shared.settings import (
    ClientAuthentication,
    ClientCertificate,
    ClientManagedIdentity,
    ClientSecret,
    GivenRefreshToken,
    Settings,
)
from tests.clients import managed_identity
from tests.conftest import ManualClock, events
from tests.threads import PATIENCE, unanswered

SCOPE = f"{PARTNER_CENTER}/.default"
ENTRA, VAULT, IDENTITY = Service.ENTRA, Service.KEY_VAULT, Service.IDENTITY
CHALLENGE = ("key-vault", "GET", 401)  # asked for once a process: the SDK keeps it
REDEMPTION = [("entra", "GET", 200), ("entra", "POST", 200)]
SIGN_IN = [("identity", "GET", 200), ("key-vault", "GET", 200), *REDEMPTION]


@pytest.fixture
def world(simulator: Simulator, manual_clock: ManualClock) -> World:
    """The world whose tokens live on the test's clock."""
    simulator.world.clock = lambda: manual_clock.instant
    simulator.world.consent()
    return simulator.world


@pytest.fixture
def credential(settings: Settings, manual_clock: ManualClock) -> AppUserCredential:
    return AppUserCredential(settings, manual_clock.clock())


def crossed(world: World) -> list[tuple[str, str, int | None]]:
    """What crossed the wire since the last look."""
    seen = [(each.service.value, each.method, each.status) for each in world.exchanges]
    world.exchanges.clear()
    return [each for each in seen if each != CHALLENGE]


def stored(world: World) -> str:
    return world.secrets[SECRET_NAME][-1].value


def refused(credential: AppUserCredential) -> UsageSummaryError:
    with pytest.raises(UsageSummaryError) as raised:
        credential.get_token(SCOPE)
    return raised.value


def constant(value: object) -> Callable[[World], bytes]:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return lambda _: body


@pytest.fixture
def heard(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """All that was logged since, by every logger at DEBUG, and all that was printed."""
    for name in [None, *logging.root.manager.loggerDict, "msal", "azure", "urllib3", "requests"]:
        caplog.set_level(logging.DEBUG, logger=name)

    return lambda: caplog.text + "".join(capfd.readouterr())


def test_the_refresh_token_is_redeemed_for_the_one_resource(
    settings: Settings, world: World, manual_clock: ManualClock
) -> None:
    settings = replace(settings, identity_client_id=world.managed_identity_client_id)
    token = AppUserCredential(settings, manual_clock.clock()).get_token(SCOPE).token
    assert (world.claims(token)["aud"], world.claims(token)["upn"]) == (PARTNER_CENTER, world.user)
    asked = {"resource": "https://vault.azure.net", "client_id": world.managed_identity_client_id}
    assert asked.items() <= next(each.query for each in world.exchanges if each.service is IDENTITY).items()
    assert world.exchanges[-1].form["refresh_token"] == stored(world)
    assert SCOPE in world.exchanges[-1].form["scope"].split()
    assert crossed(world) == SIGN_IN
    settings = replace(settings, refresh_token=GivenRefreshToken(stored(world)))
    AppUserCredential(settings, manual_clock.clock()).get_token(SCOPE)
    assert crossed(world) == REDEMPTION


def test_the_vault_is_used_as_the_operator_where_one_is_given(
    settings: Settings, world: World, simulator: Simulator, manual_clock: ManualClock
) -> None:
    settings = replace(settings, identity_client_id=str(uuid4()))  # nobody's
    assert "vault or the identity" in refused(AppUserCredential(settings, manual_clock.clock())).message
    with managed_identity(simulator.ca_bundle, world.managed_identity_client_id) as operator:
        assert AppUserCredential(settings, manual_clock.clock(), operator).get_token(SCOPE).token


def test_an_access_token_is_kept_until_five_minutes_before_it_expires(
    credential: AppUserCredential, world: World, manual_clock: ManualClock
) -> None:
    first = credential.get_token(SCOPE)
    assert first.expires_on == (manual_clock.instant + world.access_token_life).timestamp()
    world.exchanges.clear()
    manual_clock.instant += world.access_token_life - timedelta(minutes=5, seconds=1)
    assert credential.get_token(SCOPE) == first
    assert crossed(world) == []
    manual_clock.advance(seconds=1)
    assert credential.get_token(SCOPE).token != first.token
    assert crossed(world) == REDEMPTION


@pytest.mark.parametrize("off", [timedelta(days=1), timedelta(days=-1)])
def test_a_clock_that_is_set_right_later_neither_keeps_a_token_that_is_over_nor_a_refused_one(
    settings: Settings, world: World, manual_clock: ManualClock, off: timedelta
) -> None:
    wrong = [off]
    clock = replace(manual_clock.clock(), now=lambda: manual_clock.instant + wrong[0])
    credential = AppUserCredential(settings, clock)
    first = credential.get_token(SCOPE).token
    wrong[0] = timedelta()
    credential.forget("another", consent=False)
    assert credential.get_token(SCOPE).token == first
    manual_clock.instant += world.access_token_life - timedelta(minutes=4)
    second = credential.get_token(SCOPE).token
    assert second != first
    wrong[0] = -off
    credential.forget(second, consent=False)
    assert credential.get_token(SCOPE).token != second


def test_the_newest_refresh_token_is_used_next(
    credential: AppUserCredential, world: World, manual_clock: ManualClock
) -> None:
    for _ in range(3):
        newest = list(world.refresh_tokens)[-1]
        world.exchanges.clear()
        credential.get_token(SCOPE)
        assert [each.form["refresh_token"] for each in world.exchanges if each.form] == [newest]
        manual_clock.advance(days=80)  # past the life of the first in the end


def test_a_forgotten_token_is_renewed_unless_it_has_been_already(
    credential: AppUserCredential, world: World
) -> None:
    first = credential.get_token(SCOPE).token
    credential.forget(first, consent=False)
    second = credential.get_token(SCOPE).token
    credential.forget(first, consent=False)
    assert credential.get_token(SCOPE).token == second != first
    assert crossed(world) == [*SIGN_IN, *REDEMPTION]


def asked_at_once(credential: AppUserCredential, number: int) -> list[str | type[UsageSummaryError]]:
    """What each of so many threads gets that ask at the same moment: a token, or the class of its error."""
    barrier = threading.Barrier(number)

    def ask() -> str | type[UsageSummaryError]:
        barrier.wait()
        try:
            return credential.get_token(SCOPE).token
        except UsageSummaryError as error:
            return type(error)

    with ThreadPoolExecutor(number) as threads:
        return [each.result() for each in [threads.submit(ask) for _ in range(number)]]


def test_sixty_four_callers_at_once_cause_one_redemption_cold_and_on_an_expired_token(
    credential: AppUserCredential, world: World, manual_clock: ManualClock
) -> None:
    assert len(set(asked_at_once(credential, 64))) == 1
    assert crossed(world) == SIGN_IN
    manual_clock.instant += world.access_token_life
    tokens = asked_at_once(credential, 64)
    assert (len(tokens), len(set(tokens))) == (64, 1)
    assert crossed(world) == REDEMPTION


def test_those_who_wait_share_a_failure(credential: AppUserCredential, world: World) -> None:
    world.delay = 0.5
    world.faults[ENTRA] = Fault(ENTRA, 503, delivery=Delivery.LATE)
    assert asked_at_once(credential, 16) == [UpstreamUnavailableError] * 16
    assert crossed(world)[-1:] == [("entra", "GET", 503)]
    world.faults.clear()
    assert credential.get_token(SCOPE).token


def test_a_waiter_s_time_out_harms_nobody(credential: AppUserCredential, world: World) -> None:
    with ThreadPoolExecutor(2) as threads, unanswered(world, ENTRA) as asked:
        patient = threads.submit(credential.get_token, SCOPE)
        assert asked.wait(PATIENCE)
        with pytest.raises(UpstreamTimeoutError, match=r"^the sign-in did not end in time$") as raised:
            credential.get_token(SCOPE, time_allowed=timedelta(seconds=0.05))
        assert not raised.value.asked
        another = threads.submit(credential.get_token, SCOPE)
    assert another.result() == patient.result()
    assert crossed(world) == SIGN_IN


def test_a_waiter_who_has_more_time_than_who_asked_asks_itself(
    credential: AppUserCredential, world: World
) -> None:
    world.delay = 2
    world.faults[ENTRA] = Fault(ENTRA, delivery=Delivery.LATE, method="POST", times=1)
    with ThreadPoolExecutor(1) as thread:
        hasty = thread.submit(credential.get_token, SCOPE, time_allowed=timedelta(seconds=1))
        while not hasty.done() and not any(each.service is ENTRA for each in world.exchanges):
            threading.Event().wait(0.01)
        assert credential.get_token(SCOPE).token
        assert isinstance(hasty.exception(), UpstreamTimeoutError)


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize(("waited", "is_enough"), [(10, True), (10.1, False)])
def test_a_waiter_with_less_than_the_least_time_left_does_not_ask_itself(
    settings: Settings,
    manual_clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
    waited: float,
    is_enough: bool,  # noqa: FBT001  # a case
) -> None:
    monkeypatch.setattr("shared.auth._LEAST_TIME", timedelta(seconds=5))
    waiter, looks, redeem = threading.current_thread(), count(), Consent.redeem
    asked, waits = threading.Event(), threading.Event()

    def monotonic() -> float:
        """Time passes for the waiter between his second look, as he begins to wait, and his third."""
        look = next(looks) if threading.current_thread() is waiter else 0
        if look == 1:
            waits.set()
        return manual_clock.instant.timestamp() + (waited if look >= 2 else 0)

    def hasty(consent: Consent, scopes: tuple[str, ...], time_allowed: timedelta) -> Tokens:
        if threading.current_thread() is waiter:
            return redeem(consent, scopes, time_allowed)
        asked.set()
        waits.wait(PATIENCE)
        raise UpstreamTimeoutError("", asked=True)

    monkeypatch.setattr(Consent, "redeem", hasty)
    credential = AppUserCredential(settings, replace(manual_clock.clock(), monotonic=monotonic))
    with ThreadPoolExecutor(1) as thread:
        thread.submit(credential.get_token, SCOPE)
        assert asked.wait(PATIENCE)
        with nullcontext() if is_enough else pytest.raises(UpstreamTimeoutError):
            assert credential.get_token(SCOPE, time_allowed=timedelta(seconds=15)).token


def test_a_defect_reaches_who_asked_and_the_next_call_starts_anew(
    settings: Settings, world: World, manual_clock: ManualClock
) -> None:
    broken = [True]

    def now() -> datetime:
        if broken:
            raise LookupError("no clock")
        return manual_clock.instant

    credential = AppUserCredential(settings, replace(manual_clock.clock(), now=now))
    with pytest.raises(LookupError, match="no clock"):
        credential.get_token(SCOPE)
    broken.clear()
    assert credential.get_token(SCOPE).token
    assert crossed(world) == SIGN_IN


@pytest.mark.parametrize(
    ("answer", "life"), [({"expires_in": 0}, 0), ({"expires_in": -5}, 0), ({"expires_in": 10**12}, 86400)]
)
def test_an_absurd_life_of_a_token_is_none_and_no_defect(
    credential: AppUserCredential,
    world: World,
    manual_clock: ManualClock,
    answer: dict[str, int],
    life: int,
) -> None:
    world.faults[ENTRA] = Fault(ENTRA, 200, constant(GOOD | answer), method="POST")
    assert credential.get_token(SCOPE).expires_on == manual_clock.instant.timestamp() + life


@pytest.mark.parametrize("refresh_in", [0, -5, 10**9])
def test_an_absurd_time_of_renewal_causes_no_storm(
    credential: AppUserCredential, world: World, refresh_in: int
) -> None:
    world.faults[ENTRA] = Fault(ENTRA, 200, constant(GOOD | {"refresh_in": refresh_in}), method="POST")
    for _ in range(5):
        credential.get_token(SCOPE)
    assert len([each for each in crossed(world) if each[:2] == ("entra", "POST")]) == 1


@pytest.mark.parametrize(
    ("what", "span", "kept", "until"),
    [
        ("access_token_life", timedelta(minutes=6), timedelta(seconds=179), timedelta(seconds=180)),
        ("refresh_in", timedelta(minutes=30), timedelta(minutes=29), timedelta(minutes=31)),
    ],
)
def test_a_token_is_renewed_after_half_of_a_short_life_and_when_entra_says(
    credential: AppUserCredential,
    world: World,
    manual_clock: ManualClock,
    what: str,
    span: timedelta,
    kept: timedelta,
    until: timedelta,
) -> None:
    setattr(world, what, span)
    first = credential.get_token(SCOPE)
    manual_clock.instant += kept
    assert credential.get_token(SCOPE).token == first.token
    manual_clock.instant += until - kept
    assert credential.get_token(SCOPE).token != first.token


@pytest.mark.parametrize(("scenario", "wait"), [("entra-down", (24, 12)), ("secret-expired", (55, 5))])
def test_a_token_that_is_still_good_is_used_while_renewing_fails(
    credential: AppUserCredential,
    world: World,
    manual_clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
    scenario: str,
    wait: tuple[float, float],
) -> None:
    world.refresh_in = timedelta(minutes=30)
    first = credential.get_token(SCOPE).token
    world.choose(scenario)
    manual_clock.advance(minutes=31)
    crossed(world)
    assert {credential.get_token(SCOPE).token for _ in range(5)} == {first}
    assert len([each for each in crossed(world) if each[0] == "entra"]) <= 2
    (line,) = events(caplog, "sign_in.renewal_failed")
    assert ("hint" in line) == (scenario == "secret-expired")
    assert datetime.fromisoformat(line["tokenExpiresOn"]) > manual_clock.instant
    manual_clock.advance(seconds=wait[0])
    assert credential.get_token(SCOPE).token == first
    assert len(events(caplog, "sign_in.renewal_failed")) == 1
    manual_clock.advance(seconds=wait[1])
    assert credential.get_token(SCOPE).token == first
    assert len(events(caplog, "sign_in.renewal_failed")) == 2
    world.choose("healthy")
    manual_clock.advance(seconds=sum(wait))
    assert credential.get_token(SCOPE).token != first


@pytest.mark.parametrize(("jitter", "seconds"), [(min, 24), (max, 36)])
def test_renewals_that_fail_are_a_fifth_more_or_less_than_30_seconds_apart(
    credential: AppUserCredential,
    world: World,
    manual_clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    jitter: Callable[[float, float], float],
    seconds: int,
) -> None:
    monkeypatch.setattr("shared.auth.uniform", jitter)
    world.refresh_in = timedelta(minutes=30)
    credential.get_token(SCOPE)
    world.choose("entra-down")
    manual_clock.advance(minutes=31)
    for wait, failures in ((0, 1), (seconds - 1, 1), (1, 2)):
        manual_clock.advance(seconds=wait)
        credential.get_token(SCOPE)
        assert len(events(caplog, "sign_in.renewal_failed")) == failures


def test_a_renewal_that_fails_keeps_no_token_beyond_its_last_minute(
    credential: AppUserCredential, world: World, manual_clock: ManualClock
) -> None:
    first = credential.get_token(SCOPE).token
    world.choose("secret-expired")  # not tried again for a minute
    manual_clock.instant += world.access_token_life - timedelta(seconds=61)
    assert credential.get_token(SCOPE).token == first
    manual_clock.advance(seconds=1)
    assert isinstance(refused(credential), ConfigurationError)


def test_a_token_that_is_about_to_expire_is_used_no_more(
    credential: AppUserCredential, world: World, manual_clock: ManualClock
) -> None:
    credential.get_token(SCOPE)
    world.choose("entra-down")
    manual_clock.instant += world.access_token_life - timedelta(minutes=1, seconds=1)
    assert credential.get_token(SCOPE).token
    manual_clock.advance(seconds=61)
    assert isinstance(refused(credential), UpstreamUnavailableError)


def test_a_good_token_is_at_hand_while_another_caller_renews_it(
    credential: AppUserCredential, world: World, manual_clock: ManualClock
) -> None:
    world.refresh_in = timedelta(minutes=30)
    first = credential.get_token(SCOPE).token
    manual_clock.advance(minutes=31)
    with ThreadPoolExecutor(1) as thread, unanswered(world, ENTRA) as asked:
        renewing = thread.submit(credential.get_token, SCOPE)
        assert asked.wait(PATIENCE)
        assert asked_at_once(credential, 7) == [first] * 7
    assert renewing.result().token != first


def test_a_token_refused_during_its_renewal_does_not_come_back(
    credential: AppUserCredential, world: World, manual_clock: ManualClock
) -> None:
    world.refresh_in = timedelta(minutes=30)
    first = credential.get_token(SCOPE).token
    manual_clock.advance(minutes=31)
    world.faults[ENTRA] = Fault(ENTRA, 503)
    with ThreadPoolExecutor(1) as thread, unanswered(world, ENTRA) as asked:
        renewing = thread.submit(refused, credential)
        assert asked.wait(PATIENCE)
        credential.forget(first, consent=False)
    assert isinstance(renewing.result(), UpstreamUnavailableError)


def test_a_new_consent_is_used_without_a_restart(credential: AppUserCredential, world: World) -> None:
    first = credential.get_token(SCOPE).token
    world.refuse_consents(Refusal.REVOKED)
    credential.forget(first, consent=False)
    assert isinstance(refused(credential), ConsentRequiredError)
    world.store(SECRET_NAME, "")
    assert isinstance(refused(credential), ConsentRequiredError)
    world.exchanges.clear()
    world.consent()
    second = credential.get_token(SCOPE).token
    assert crossed(world) == SIGN_IN
    world.refuse_consents(Refusal.REVOKED)
    world.consent()
    credential.forget(second, consent=False)
    credential.get_token(SCOPE)  # without an error on the way
    assert crossed(world) == [("entra", "GET", 200), ("entra", "POST", 400), *SIGN_IN]


SCENARIOS: dict[str, tuple[type[UsageSummaryError], str]] = {
    "consent-revoked": (ConsentRequiredError, "invalid_grant AADSTS50173"),
    "consent-expired": (ConsentRequiredError, "invalid_grant AADSTS700082"),
    "mfa-required": (ConsentRequiredError, "interaction_required AADSTS50076"),
    "mfa-expired": (ConsentRequiredError, "invalid_grant AADSTS50078"),
    "sign-in-frequency": (ConsentRequiredError, "invalid_grant AADSTS70043"),
    "blocked": (ConsentRequiredError, "invalid_grant AADSTS53003"),
    "vault-deleted": (ConsentRequiredError, f"no secret {SECRET_NAME}"),
    "vault-empty": (ConsentRequiredError, f"no secret {SECRET_NAME}"),
    "secret-expired": (ConfigurationError, "invalid_client AADSTS7000222"),
    "vault-forbidden": (ConfigurationError, "403"),
    "entra-down": (UpstreamUnavailableError, "503"),
    "entra-throttled": (UpstreamUnavailableError, "429"),
    "vault-throttled": (UpstreamUnavailableError, "429"),
    "entra-garbage": (UpstreamUnavailableError, "no JSON object"),
    "vault-down": (UpstreamUnavailableError, "503"),
    "identity-down": (UpstreamUnavailableError, "identity failed"),
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_scenario_of_signing_in_is_the_error_of_the_table_and_passes_in_silence(
    credential: AppUserCredential, world: World, heard: Callable[[], str], scenario: str
) -> None:
    kind, said = SCENARIOS[scenario]
    world.choose(scenario)
    error = refused(credential)
    assert (type(error), said in error.message) == (kind, True)
    world.choose("healthy")
    assert credential.get_token(SCOPE).token
    assert world.canary not in heard() + error.message  # every secret holds it


REFUSALS: dict[type[UsageSummaryError], list[str]] = {
    ConsentRequiredError: ["login_required", "consent_required"],
    UpstreamUnavailableError: ["temporarily_unavailable", "server_error"],
    ConfigurationError: ["unauthorized_client", "invalid_scope", "an_error_of_tomorrow", "two\nlines"],
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_entra_refusals_go_by_the_oauth_error_whatever_the_rest(
    credential: AppUserCredential, world: World, kind: type[UsageSummaryError]
) -> None:
    body = {"error_codes": ["x\ny", stored(world)], "trace_id": {"a": "b"}, "suberror": 7}
    for word in REFUSALS[kind]:
        world.faults[ENTRA] = Fault(ENTRA, 400, constant(body | {"error": word}), method="POST")
        error = refused(credential)
        assert type(error) is kind
        assert "\n" not in error.message
        assert world.canary not in error.message


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"tenant_id": str(uuid4())}, ConfigurationError),
        ({"client_id": str(uuid4())}, ConfigurationError),
        ({"client_authentication": ClientSecret("wrong")}, ConfigurationError),
        ({"client_authentication": ClientManagedIdentity(str(uuid4()))}, UpstreamUnavailableError),
        ({"refresh_token": GivenRefreshToken("unknown")}, ConsentRequiredError),
    ],
)
def test_what_the_authority_does_not_know_is_refused(
    settings: Settings, world: World, change: dict[str, Any], kind: type[UsageSummaryError]
) -> None:
    assert type(refused(AppUserCredential(replace(settings, **change), Clock(world.clock)))) is kind


GOOD = {"token_type": "Bearer", "expires_in": 3600, "access_token": "at", "refresh_token": "rt"}
WRONG: dict[str, list[object]] = {
    "access_token": [None, "", ["at"], "a\r\nX: b", "ключ"],
    "expires_in": [None, "soon"],
}
NO_OBJECTS: list[object] = [b"<html>", b"", b"\xff\xfe", [], "text", None]
NO_ANSWERS: list[object] = [*NO_OBJECTS, {}, {"authorization_endpoint": 1, "token_endpoint": 2}]
NONSENSE: list[tuple[Service, str, int, object]] = [
    *((ENTRA, "POST", 200, GOOD | {name: value}) for name, values in WRONG.items() for value in values),
    *((ENTRA, "POST", 200, GOOD | {name: "nonsense"}) for name in ("id_token", "client_info")),
    *((ENTRA, "POST", status, body) for status in (302, 400, 429, 500) for body in NO_ANSWERS),
    *((ENTRA, "GET", status, b"<html>") for status in (302, 429, 500)),
    *((ENTRA, method, 200, body) for method in ("GET", "POST") for body in NO_ANSWERS),
    *((VAULT, "GET", 200, body) for body in NO_OBJECTS),
    *((IDENTITY, "GET", 200, body) for body in [*NO_ANSWERS, {"access_token": 7}]),
    *((each, "GET", status, b"<html>") for each in (VAULT, IDENTITY) for status in (302, 400, 408, 429, 500)),
]


@pytest.mark.parametrize("nonsense", NONSENSE, ids=lambda each: ascii(each).replace("\\", ""))
def test_an_answer_that_makes_no_sense_is_unavailable(
    credential: AppUserCredential, world: World, nonsense: tuple[Service, str, int, object]
) -> None:
    service, method, status, body = nonsense
    world.faults[service] = Fault(service, status, constant(body), method=method)
    assert type(refused(credential)) is UpstreamUnavailableError
    world.faults.clear()
    assert world.claims(credential.get_token(SCOPE).token)["upn"] == world.user


@pytest.mark.parametrize("service", [ENTRA, VAULT, IDENTITY])
def test_no_secret_of_a_broken_answer_reaches_a_traceback_or_a_log(
    credential: AppUserCredential, world: World, heard: Callable[[], str], service: Service
) -> None:
    for form in (b'{"access_token": "%s', b'{"access_token": 7, "value": ["%s"]', b"%s", b'{"error": "%s"}'):
        for status in (200, 400):
            body = form.replace(b"%s", world.refresh_token().encode())
            world.faults[service] = Fault(service, status, constant(body))
            raised = "".join(traceback.format_exception(refused(credential)))
            # shared.app silences azure-identity and the identity's part of msal, which log such answers
            assert world.canary not in raised + (heard() if service is ENTRA else "")


@pytest.mark.parametrize("service", [ENTRA, VAULT, IDENTITY])
@pytest.mark.parametrize("what", ["hangs", "drips", "says Retry-After"])
def test_signing_in_ends_within_its_time_when_somebody(
    credential: AppUserCredential, world: World, service: Service, what: str
) -> None:
    world.drip = 0.05
    world.faults[service] = {
        "hangs": Fault(service, delivery=Delivery.NEVER),
        "drips": Fault(service, delivery=Delivery.DRIPPING),
        "says Retry-After": Fault(service, 429, headers={"retry-after": "3600"}),
    }[what]
    began = time.monotonic()
    with pytest.raises(UpstreamError) as raised:
        credential.get_token(SCOPE, time_allowed=timedelta(seconds=0.2))
    assert time.monotonic() - began < PATIENCE
    assert what == "says Retry-After" or type(raised.value) is UpstreamTimeoutError


def pfx(*, key: bool = True, password: bytes | None = None) -> tuple[bytes, str]:
    """A PFX file, and its certificate as PEM."""
    private, name = rsa.generate_private_key(65537, 2048), x509.Name([])
    certificate = (
        x509.CertificateBuilder(name, name, private.public_key(), x509.random_serial_number())
        .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2126, 1, 1, tzinfo=UTC))
        .sign(private, hashes.SHA256())
    )
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    file = serialize_key_and_certificates(None, private if key else None, certificate, None, encryption)
    return file, certificate.public_bytes(Encoding.PEM).decode()


AUDIENCES = {"global": "api://AzureADTokenExchange", "usgov": "api://AzureADTokenExchangeUSGov"}


@pytest.mark.parametrize("cloud", ["global", "usgov"])
@pytest.mark.parametrize("way", ["secret", "certificate", "managed identity"])
def test_each_way_of_authentication_leads_to_the_document(
    environ: dict[str, str],
    world: World,
    manual_clock: ManualClock,
    tmp_path: Path,
    way: str,
    cloud: str,
) -> None:
    settings = read_settings(environ | {"PARTNER_CENTER_CLOUD": cloud})
    world.token_exchange_audience = AUDIENCES[cloud]
    file, world.certificate = pfx()
    (tmp_path / "client.pfx").write_bytes(file)
    ways: dict[str, ClientAuthentication] = {
        "secret": ClientSecret(world.client_secret),
        "certificate": ClientCertificate(str(tmp_path / "client.pfx")),
        "managed identity": ClientManagedIdentity(world.managed_identity_client_id),
    }
    settings = replace(settings, client_authentication=ways[way])
    credential = AppUserCredential(settings, manual_clock.clock())
    client = PartnerCenterClient(settings, credential, manual_clock.clock())
    fetched = client.get_usage_summary(str(uuid4()), timedelta(seconds=50))
    assert fetched.body == DOCUMENT
    form = next(each.form for each in world.exchanges if each.form)
    assert ("client_secret" in form, "client_assertion" in form) == (way == "secret", way != "secret")
    if way == "managed identity":
        assert world.canary not in str(asdict(settings))
        assert world.claims(form["client_assertion"])["aud"] == AUDIENCES[cloud]
    assert world.complaints == []


@pytest.mark.parametrize(
    "file", [None, b"", b"nonsense", pfx(key=False)[0], pfx(password=b"secret")[0], pfx()[1].encode()]
)
def test_a_certificate_file_that_is_of_no_use_is_a_wrong_setting(
    settings: Settings, manual_clock: ManualClock, tmp_path: Path, file: bytes | None
) -> None:
    if file is not None:
        (tmp_path / "client.pfx").write_bytes(file)
    settings = replace(settings, client_authentication=ClientCertificate(str(tmp_path / "client.pfx")))
    error = refused(AppUserCredential(settings, manual_clock.clock()))
    assert (type(error), "certificate" in error.message.lower()) == (ConfigurationError, True)
