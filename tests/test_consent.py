import asyncio
import random
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from unittest.mock import Mock

import pytest
from azure.core.credentials import AccessToken

from dev.simulator import Delivery, Exchange, Fault, Service, Simulator, World
from dev.simulator.world import PARTNER_CENTER, SECRET_NAME
from shared.app import App
from shared.auth import AppUserCredential
from shared.clock import Clock
from shared.consent import Consent
from shared.errors import (
    ConfigurationError,
    ConsentRequiredError,
    UpstreamTimeoutError,
    UpstreamUnavailableError,
)
from shared.freshness import NO_DIRECTIVES
from shared.settings import GivenRefreshToken, Settings
from tests.conftest import ManualClock, events
from tests.threads import PATIENCE

SCOPE = f"{PARTNER_CENTER}/.default"
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
VAULT = Service.KEY_VAULT


@pytest.fixture
def world(simulator: Simulator, manual_clock: ManualClock) -> World:
    """The world whose tokens live on the test's clock, with one consent, just given."""
    world = simulator.world
    world.clock = lambda: manual_clock.instant
    world.access_token_life = HOUR
    world.secrets.clear()
    world.consent()
    return world


@pytest.fixture
def instance(settings: Settings, manual_clock: ManualClock) -> Callable[[], AppUserCredential]:
    return lambda: AppUserCredential(settings, manual_clock.clock())


def sign_in(credential: AppUserCredential) -> str:
    """A token, and what can wait until a caller has it."""
    token = credential.get_token(SCOPE).token
    credential.write_back()
    return token


def versions(world: World) -> list[datetime]:
    """When each version of the secret was made."""
    return [datetime.fromtimestamp(each.created, UTC) for each in world.secrets[SECRET_NAME]]


def enabled(world: World) -> list[int]:
    """Which versions are enabled, counted from the newest."""
    return [
        number
        for number, each in enumerate(reversed(world.secrets[SECRET_NAME]))
        if each.attributes["enabled"]
    ]


def oldest_redeemed(world: World) -> timedelta:
    """The age of the oldest refresh token that was redeemed since the last look."""
    used = [each.form["refresh_token"] for each in world.exchanges if "refresh_token" in each.form]
    world.exchanges.clear()
    return max(world.clock() - world.refresh_tokens[token].issued for token in used)


HOURLY = [pytest.mark.nightly, pytest.mark.timeout(3600)]


@pytest.mark.parametrize(
    "step", [pytest.param(200 * HOUR, marks=pytest.mark.timeout(900)), pytest.param(HOUR, marks=HOURLY)]
)
def test_three_instances_live_for_400_days_on_at_most_one_version_a_day(
    instance: Callable[[], AppUserCredential], world: World, manual_clock: ManualClock, step: timedelta
) -> None:
    chance, began = random.Random(1), manual_clock.instant  # noqa: S311  # the same each time
    fleet = [instance(), instance(), instance()]
    oldest = timedelta()
    while (day := (manual_clock.instant - began).days) < 400:
        refuses_writing, is_down = 100 <= day < 130, 200 <= day < 230
        world.faults = {VAULT: Fault(VAULT, 503, method="PUT")} if refuses_writing else {}
        world.faults |= {VAULT: Fault(VAULT, 503)} if is_down else {}
        for number in range(3):
            if not is_down and chance.random() < step / (8 * HOUR):
                fleet[number] = instance()
            assert sign_in(fleet[number])
        oldest = max(oldest, oldest_redeemed(world))
        manual_clock.instant += step

    made = versions(world)
    assert min(later - earlier for earlier, later in pairwise(made)) >= DAY
    assert len(made) > min(200, 0.8 * (400 * DAY / step - 60 * DAY / step))
    assert enabled(world) == [0]
    assert 30 * DAY < oldest < 31 * DAY + 2 * step  # read while nothing could be written


def test_without_writing_back_signing_in_dies_on_day_90(
    instance: Callable[[], AppUserCredential],
    world: World,
    manual_clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Consent, "write_back", lambda _: None)
    for _ in range(90):
        assert sign_in(instance())
        manual_clock.instant += DAY
    with pytest.raises(ConsentRequiredError) as raised:
        instance().get_token(SCOPE)
    assert "AADSTS700082" in raised.value.message
    assert raised.value.hint is not None
    assert "python3 -m ops consent" in raised.value.hint
    assert len(versions(world)) == 1


def test_what_is_written_back_tells_its_age_and_its_end(
    instance: Callable[[], AppUserCredential],
    world: World,
    manual_clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    world.secrets[SECRET_NAME][-1].tags = {"mfa": "true", "source": "consent"}
    caplog.set_level("INFO")
    credential = instance()
    for _ in range(24):
        sign_in(credential)
        manual_clock.instant += HOUR
    assert len(versions(world)) == 1
    redeemed = manual_clock.instant
    sign_in(credential)
    former, newest = world.secrets[SECRET_NAME]
    assert newest.value == list(world.refresh_tokens)[-1]
    assert newest.content_type == "OAuth 2.0 refresh token"
    assert newest.tags == {"mfa": "true", "source": "app", "issued_at": redeemed.isoformat()}
    assert newest.attributes["exp"] == (redeemed + timedelta(days=90)).timestamp()
    assert (former.attributes["enabled"], newest.attributes["enabled"]) == (False, True)
    (line,) = events(caplog, "refresh_token.written_back")
    assert (line["version"], line["ageInDays"]) == (newest.version, 1.0)


@pytest.mark.parametrize(
    "tag",
    [
        "",
        "yesterday",
        "2026-11-21",
        "2126-01-01T00:00:00+00:00",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
    ],
)
def test_a_stored_token_without_a_sound_tag_is_as_old_as_its_version(
    instance: Callable[[], AppUserCredential], world: World, manual_clock: ManualClock, tag: str
) -> None:
    world.secrets[SECRET_NAME][-1].tags = {"issued_at": tag} if tag else {}
    manual_clock.instant += DAY
    sign_in(instance())
    assert len(versions(world)) == 2


@pytest.mark.parametrize("status", [403, 429, 503])
@pytest.mark.parametrize("method", ["PUT", "GET"])
def test_a_failed_write_back_is_a_warning_with_the_age_and_is_tried_again(
    instance: Callable[[], AppUserCredential],
    world: World,
    manual_clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
    method: str,
    status: int,
) -> None:
    credential = instance()
    sign_in(credential)
    world.faults[VAULT] = Fault(VAULT, status, method=method)
    for _ in range(2):
        manual_clock.instant += 36 * HOUR
        assert sign_in(credential)
    lines = events(caplog, "refresh_token.not_written_back")
    assert [line["ageInDays"] for line in lines] == [1.5, 3.0]
    assert {line["error"] for line in lines} == {
        (ConfigurationError if status == 403 else UpstreamUnavailableError).__name__
    }
    assert ("hint" in lines[0]) == (status == 403)
    world.faults.clear()
    manual_clock.instant += HOUR
    sign_in(credential)
    assert len(versions(world)) == 2


def test_a_write_back_without_a_thread_to_be_had_is_a_warning_too(
    instance: Callable[[], AppUserCredential],
    manual_clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    credential = instance()
    credential.get_token(SCOPE)
    manual_clock.instant += 36 * HOUR
    monkeypatch.setattr(threading.Timer, "start", Mock(side_effect=RuntimeError("can't start new thread")))
    credential.write_back()
    (line,) = events(caplog, "refresh_token.not_written_back")
    assert line["error"] == "UpstreamUnavailableError"


def test_a_redemption_that_waits_for_a_write_back_in_vain_asks_nobody(
    instance: Callable[[], AppUserCredential], world: World, manual_clock: ManualClock
) -> None:
    credential, begun, goes_on = instance(), threading.Event(), threading.Event()
    credential.get_token(SCOPE)
    manual_clock.instant += 36 * HOUR

    def hold(exchange: Exchange) -> None:
        if exchange.method == "PUT":
            begun.set()
            goes_on.wait(PATIENCE)

    world.observer = hold
    writing = threading.Thread(target=credential.write_back)
    writing.start()
    assert begun.wait(PATIENCE)
    asked = len(world.exchanges)
    with pytest.raises(UpstreamTimeoutError) as raised:
        credential.get_token(SCOPE, time_allowed=timedelta(seconds=0.05))
    assert (raised.value.asked, len(world.exchanges)) == (False, asked)
    goes_on.set()
    writing.join(PATIENCE)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_of_the_vault_is_followed_nowhere(
    instance: Callable[[], AppUserCredential], world: World, simulator: Simulator, status: int
) -> None:
    location = f"{simulator.url}/secrets/another"
    world.faults[VAULT] = Fault(VAULT, status, headers={"location": location}, method="GET")
    with pytest.raises(UpstreamUnavailableError):
        instance().get_token(SCOPE)
    paths = {each.path for each in world.exchanges if each.service is VAULT}
    assert all(path.startswith(f"/secrets/{SECRET_NAME}") for path in paths)


def test_a_former_version_that_cannot_be_disabled_is_nobody_s_trouble(
    instance: Callable[[], AppUserCredential],
    world: World,
    manual_clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    manual_clock.instant += DAY
    world.faults[VAULT] = Fault(VAULT, 403, method="PATCH")
    assert sign_in(instance())
    assert len(versions(world)) == 2
    assert enabled(world) == [0, 1]
    assert events(caplog, "refresh_token.not_written_back") == []


def test_the_vault_leads_so_an_old_consent_never_overwrites_a_new_one(
    instance: Callable[[], AppUserCredential], world: World, manual_clock: ManualClock
) -> None:
    old = instance()
    sign_in(old)
    manual_clock.instant += HOUR
    anew = world.refresh_token(user="another@nordlys.example")
    world.store(SECRET_NAME, anew)
    for _ in range(60):
        manual_clock.instant += HOUR
        token = sign_in(old)
    assert world.claims(token, manual_clock.instant.timestamp())["upn"] == "another@nordlys.example"
    assert world.refresh_tokens[world.secrets[SECRET_NAME][-1].value].user == "another@nordlys.example"


def test_a_token_in_the_settings_is_read_only_and_the_log_says_how_long_it_can_last(
    settings: Settings, world: World, manual_clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    given = GivenRefreshToken(world.refresh_token())
    ends = manual_clock.instant + timedelta(days=90)
    credential = AppUserCredential(replace(settings, refresh_token=given), manual_clock.clock())
    for _ in range(100):
        assert sign_in(credential)
        manual_clock.instant += DAY
    (line,) = events(caplog, "refresh_token.read_only")
    assert line["expiresBefore"] == ends.isoformat().replace("+00:00", "Z")
    assert len(versions(world)) == 1
    assert all(each.service is not VAULT for each in world.exchanges)


def test_a_refused_token_is_not_dropped_before_the_store_has_been_read(
    instance: Callable[[], AppUserCredential], world: World, manual_clock: ManualClock
) -> None:
    credential = instance()
    sign_in(credential)
    manual_clock.instant += HOUR
    world.faults[VAULT] = Fault(VAULT, 503)
    refusal = b'{"error": "invalid_grant"}'
    world.faults[Service.ENTRA] = Fault(Service.ENTRA, 400, lambda _: refusal, method="POST", times=1)
    with pytest.raises(UpstreamUnavailableError):
        sign_in(credential)
    assert sign_in(credential)


def test_a_disabled_version_is_no_consent(instance: Callable[[], AppUserCredential], world: World) -> None:
    world.secrets[SECRET_NAME][-1].attributes["enabled"] = False
    with pytest.raises(ConsentRequiredError) as raised:
        instance().get_token(SCOPE)
    assert "SecretDisabled" in raised.value.message
    assert raised.value.hint is not None
    assert "python3 -m ops consent" in raised.value.hint


def test_what_entra_refused_is_said_though_the_vault_is_down(
    instance: Callable[[], AppUserCredential],
    world: World,
    manual_clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    credential = instance()
    sign_in(credential)
    manual_clock.instant += HOUR
    world.choose("consent-revoked")
    world.faults[VAULT] = Fault(VAULT, 503)
    with pytest.raises(UpstreamUnavailableError):
        sign_in(credential)
    (line,) = events(caplog, "refresh_token.refused")
    assert "AADSTS50173" in line["message"]
    assert "password reset" in line["hint"]


class Stranger:
    """An operator who is not signed in."""

    def get_token(self, *_: str, **__: object) -> AccessToken:
        raise ConfigurationError("nobody is signed in")


def test_the_vault_is_used_as_the_operator_where_one_is_given(
    settings: Settings, manual_clock: ManualClock, world: World
) -> None:
    credential = AppUserCredential(settings, manual_clock.clock(), Stranger())
    with pytest.raises(ConfigurationError, match="nobody is signed in"):
        credential.get_token(SCOPE)
    assert {each.service for each in world.exchanges} <= {VAULT}  # which says whom it trusts


def test_a_write_back_keeps_no_caller_waiting(
    simulator: Simulator, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.consent._WRITE_BACK_TIME", timedelta(seconds=0.7))
    world, began = simulator.world, datetime.now(UTC)
    (stored,) = world.secrets[SECRET_NAME]
    stored.tags = {"issued_at": (began - 2 * DAY).isoformat()}
    world.faults[VAULT] = Fault(VAULT, delivery=Delivery.NEVER, method="PUT")
    result = asyncio.run(App(environ, Clock()).get_usage_summary(NO_DIRECTIVES, "an-id"))
    writing = [thread for thread in threading.enumerate() if thread.name == "refresh"]
    assert result.answer is not None
    assert len(writing) == 1
    writing[0].join(PATIENCE)
    assert [each.status for each in world.exchanges if each.method == "PUT"] == [None]
