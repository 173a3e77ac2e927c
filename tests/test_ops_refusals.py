"""python3 -m ops consent when something is in the way: what is said, the exit code, and nothing stored."""

import socket
from collections.abc import Callable

import pytest

from dev.simulator import Fault, Service, World
from dev.simulator.refusals import oauth_error
from tests.terminal import SIGN_IN, Done, Terminal


def untouched(terminal: Terminal, done: Done) -> None:
    """Nothing has been stored or disabled by a command that failed."""
    assert [(each.content_type, each.attributes) for each in terminal.versions] == [(None, {"enabled": True})]
    assert "Stored as version" not in done.out
    assert "PUT" not in [each.method for each in terminal.world.exchanges if each.status == 200]


def without_mfa(world: World) -> None:
    world.person_has_mfa = False


def without_a_role(world: World) -> None:
    world.has_partner_role = False


def declined(code: int) -> Callable[[World], None]:
    def effect(world: World) -> None:
        world.sign_in_error = (oauth_error(code), code)

    return effect


def scenario(name: str) -> Callable[[World], None]:
    return lambda world: world.choose(name)


AFTER_SIGNING_IN: dict[str, tuple[Callable[[World], None], int, str, str]] = {
    "no MFA": (without_mfa, 3, "consent-required", "sign in with MFA"),
    "no role": (without_a_role, 2, "upstream-refused", "Admin agent"),
    "declined": (declined(65004), 3, "AADSTS65004", "Accept what the app asks for"),
    "a guest": (declined(50020), 3, "AADSTS50020", "not with a guest"),
    "blocked": (scenario("blocked"), 3, "AADSTS53003", "Conditional Access"),
    "Partner Center down": (scenario("down"), 1, "upstream-unavailable", "503"),
    "Partner Center throttles": (scenario("throttled"), 1, "upstream-unavailable", "429"),
    "Partner Center nonsense": (scenario("html"), 1, "upstream-invalid", "not JSON"),
    "app-only token": (scenario("app-only"), 2, "upstream-refused", "no person"),
    "client refused": (scenario("secret-expired"), 2, "AADSTS7000222", "expired client secret"),
    "vault read-only": (scenario("vault-read-only"), 2, "ForbiddenByRbac", "Key Vault Secrets Officer"),
}


@pytest.mark.parametrize("trouble", AFTER_SIGNING_IN)
def test_nothing_is_stored_when_the_sign_in_is_of_no_use(terminal: Terminal, trouble: str) -> None:
    effect, code, *words = AFTER_SIGNING_IN[trouble]
    effect(terminal.world)

    done = terminal.consent()

    assert (done.code, [word for word in words if word not in done.err]) == (code, [])
    assert "Nothing has been stored." in done.out
    untouched(terminal, done)


def test_a_missing_role_is_reported_with_the_request_s_id(terminal: Terminal) -> None:
    without_a_role(terminal.world)

    done = terminal.consent()

    assert "Roles missing           Admin agent\n" in done.out
    assert "Partner Center's request id: " in done.err
    facts = terminal.consent("--json").facts
    assert facts["rolesMissing"] == ["Admin agent"]
    assert facts["requestId"]


def test_a_sign_in_without_mfa_is_reported_as_such(terminal: Terminal) -> None:
    without_mfa(terminal.world)

    assert "With MFA                no\n" in terminal.consent().out
    assert terminal.consent("--json").facts["mfa"] is False


def test_a_declined_sign_in_may_be_pasted_as_well(terminal: Terminal) -> None:
    declined(65004)(terminal.world)

    done = terminal.consent(browse=terminal.location)

    assert (done.code, "AADSTS65004" in done.err) == (3, True)
    untouched(terminal, done)


def signed_out(world: World) -> None:
    world.operator_signed_in = False


def without_the_vault_s_role(world: World) -> None:
    world.operator_has_role = False


BEFORE_SIGNING_IN: dict[str, tuple[Callable[[World], None], int, str]] = {
    "no role at the vault": (without_the_vault_s_role, 2, "Key Vault Secrets Officer"),
    "nobody signed in to Azure": (signed_out, 2, "az login"),
    "vault down": (scenario("vault-down"), 1, "503"),
    "Entra down": (scenario("entra-down"), 1, "503"),
    "tenant unknown": (lambda world: setattr(world, "tenant_id", world.client_id), 2, "TENANT_ID"),
}


@pytest.mark.parametrize("trouble", BEFORE_SIGNING_IN)
def test_nobody_is_sent_to_sign_in_when_that_would_be_in_vain(terminal: Terminal, trouble: str) -> None:
    effect, code, word = BEFORE_SIGNING_IN[trouble]
    effect(terminal.world)

    done = terminal.consent()

    assert (done.code, word in done.err) == (code, True), done
    assert not SIGN_IN.search(done.out + done.err)
    assert not any(each.path.endswith("/authorize") for each in terminal.world.exchanges)
    untouched(terminal, done)


def test_without_the_azure_cli_nobody_is_signed_in(terminal: Terminal) -> None:
    done = terminal.consent(changed={"PATH": "/nowhere"})

    assert (done.code, "az login" in done.err) == (2, True)
    untouched(terminal, done)


def test_a_port_in_use_is_said_before_anybody_signs_in(terminal: Terminal) -> None:
    with socket.create_server(("127.0.0.1", terminal.port)):
        done = terminal.consent()

    assert (done.code, f"port {terminal.port}" in done.err, "--port" in done.err) == (2, True, True)
    assert not SIGN_IN.search(done.out)
    untouched(terminal, done)


@pytest.mark.parametrize("command", ["consent", "token status", "token rotate", "token import"])
def test_a_token_in_the_settings_is_read_only(terminal: Terminal, command: str) -> None:
    done = terminal.run(
        *command.split(),
        changed={
            "PARTNER_CENTER_REFRESH_TOKEN_SECRET": "",
            "PARTNER_CENTER_REFRESH_TOKEN": terminal.world.refresh_token(),
        },
    )

    assert (done.code, done.out) == (2, "")
    assert "PARTNER_CENTER_REFRESH_TOKEN is read only" in done.err
    assert "PARTNER_CENTER_REFRESH_TOKEN_SECRET" in done.err
    assert terminal.world.exchanges == []


@pytest.mark.parametrize("command", ["consent", "token status", "token rotate", "token import", "show"])
def test_missing_settings_are_named_all_at_once(terminal: Terminal, command: str) -> None:
    names = [name for name in terminal.environ if name.startswith("PARTNER_CENTER_")]

    done = terminal.run(*command.split(), changed=dict.fromkeys(names, ""))

    assert (done.code, done.out) == (2, "")
    for name in (
        "PARTNER_CENTER_TENANT_ID",
        "PARTNER_CENTER_CLIENT_ID",
        "PARTNER_CENTER_CLIENT_SECRET",
        "PARTNER_CENTER_CLIENT_CERTIFICATE_PATH",
        "PARTNER_CENTER_CLIENT_MANAGED_IDENTITY",
        "PARTNER_CENTER_REFRESH_TOKEN_SECRET",
    ):
        assert name in done.err
    assert terminal.world.exchanges == []


@pytest.mark.parametrize("command", ["consent", "token rotate", "show", "token import"])
def test_an_app_with_a_managed_identity_needs_a_client_secret_on_standard_input(
    terminal: Terminal, command: str
) -> None:
    done = terminal.run(
        *command.split(),
        stdin=f"{terminal.world.refresh_token()}\n" if command == "token import" else "",
        changed=terminal.federated,
    )

    assert (done.code, "client secret" in done.err, "--help" in done.err) == (2, True, True)
    assert terminal.redemptions() == []


def test_a_vault_that_fails_at_the_last_moment_is_said_and_the_former_token_stays(terminal: Terminal) -> None:
    terminal.world.faults[Service.KEY_VAULT] = Fault(Service.KEY_VAULT, 503, method="PUT")

    done = terminal.consent()

    assert (done.code, "Nothing has been stored." in done.out) == (1, True)
    untouched(terminal, done)


def test_a_former_version_that_cannot_be_disabled_does_no_harm(terminal: Terminal) -> None:
    terminal.world.faults[Service.KEY_VAULT] = Fault(Service.KEY_VAULT, 403, method="PATCH")

    assert terminal.consent().code == 0
    assert [each.attributes["enabled"] for each in terminal.versions] == [True, True]
