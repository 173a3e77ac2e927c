import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit
from uuid import uuid4

import msal
import pytest
import requests
import trustme
from azure.core.credentials import AccessToken, TokenCredential
from azure.core.exceptions import (
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
)
from azure.identity import (
    AzureCliCredential,
    CredentialUnavailableError,
    DefaultAzureCredential,
    ManagedIdentityCredential,
)
from azure.keyvault.secrets import SecretClient
from cryptography.hazmat.primitives.serialization import NoEncryption, load_pem_private_key, pkcs12
from cryptography.x509 import load_pem_x509_certificate

from dev.simulator import SCENARIOS, Delivery, Fault, Refusal, Service, Simulator, World
from dev.simulator.authorize import matches
from dev.simulator.records import EVERY_USER, KEY_VAULT
from dev.simulator.world import BOM, DOCUMENT, PARTNER_CENTER, SECRET_NAME, now
from tests.clients import closing_transport, managed_identity
from tests.threads import PATIENCE, PATIENCE_WITH_A_PROCESS

SCOPES = [f"{PARTNER_CENTER}/user_impersonation"]
REDIRECT_URI = "http://localhost:8400"


@pytest.fixture(scope="module")
def served() -> Iterator[Simulator]:
    with Simulator() as simulator:
        yield simulator


@pytest.fixture
def simulator(served: Simulator, monkeypatch: pytest.MonkeyPatch) -> Simulator:
    for name in ("CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    vars(served.world).update(vars(World()))
    for name, value in served.settings.items():
        monkeypatch.setenv(name, value)
    return served


@pytest.fixture
def world(simulator: Simulator) -> World:
    return simulator.world


def refresh_token(world: World) -> str:
    return world.secrets[SECRET_NAME][-1].value


def application(
    simulator: Simulator, credential: Mapping[str, object] | None = None
) -> msal.ConfidentialClientApplication:
    world = simulator.world
    return msal.ConfidentialClientApplication(
        world.client_id,
        client_credential=credential or world.client_secret,
        authority=f"{simulator.url}/{world.tenant_id}",
        instance_discovery=False,
        http_client=requests,  # a session for each request, closed; MSAL never closes its own
    )


def redeem(simulator: Simulator, token: str | None = None, scopes: list[str] = SCOPES) -> dict[str, Any]:
    result = application(simulator).acquire_token_by_refresh_token(
        token or refresh_token(simulator.world), scopes
    )
    assert isinstance(result, dict)
    return result


def get(
    simulator: Simulator,
    token: str | None = None,
    timeout: float | tuple[float, float] = PATIENCE,
    **headers: str,
) -> requests.Response:
    sent = {
        "Authorization": f"Bearer {token or simulator.world.access_token()}",
        "Accept": "application/json",
        "MS-RequestId": str(uuid4()),
        "MS-CorrelationId": str(uuid4()),
        "MS-Contract-Version": "v1",
    } | {name.replace("_", "-"): value for name, value in headers.items()}
    address = f"{simulator.url}/v1/usagesummary"
    return requests.get(address, headers=sent, allow_redirects=False, timeout=timeout)


@contextmanager
def vault(simulator: Simulator, credential: TokenCredential | None = None) -> Iterator[SecretClient]:
    with closing_transport(simulator.ca_bundle) as transport:
        yield SecretClient(
            simulator.url,
            credential or ManagedIdentityCredential(transport=transport),
            transport=transport,
            verify_challenge_resource=False,
            retry_total=0,
        )


def test_a_healthy_world_answers_the_whole_way(simulator: Simulator, world: World) -> None:
    with vault(simulator) as client:
        token = client.get_secret(SECRET_NAME).value
    signed_in = redeem(simulator, token)
    answer = get(simulator, signed_in["access_token"])
    assert answer.status_code == 200
    assert answer.content == BOM + DOCUMENT
    crossed = [(exchange.service, exchange.method, exchange.status) for exchange in world.exchanges]
    challenge = (Service.KEY_VAULT, "GET", 401)  # asked for once a process: the SDK keeps it
    assert [each for each in crossed if each != challenge] == [
        (Service.IDENTITY, "GET", 200),
        (Service.KEY_VAULT, "GET", 200),
        (Service.ENTRA, "GET", 200),
        (Service.ENTRA, "POST", 200),
        (Service.PARTNER_CENTER, "GET", 200),
    ]
    assert world.exchanges[-2].form["refresh_token"] == token
    assert world.complaints == []


def test_the_document_has_22_digits_and_the_documented_fields() -> None:
    assert b'"totalCost":120.5682999999995904716,' in DOCUMENT
    assert json.loads(DOCUMENT)["attributes"] == {"objectType": "PartnerUsageSummary"}


def test_every_secret_holds_the_canary_as_plain_text(simulator: Simulator, world: World) -> None:
    signed_in = redeem(simulator)
    with managed_identity(simulator.ca_bundle) as platform:
        identity = platform.get_token("https://storage.azure.com/.default").token
    minted = {signed_in["access_token"], signed_in["refresh_token"], signed_in["id_token"], identity}
    assert minted | {world.client_secret, world.identity_header} < world.canaries()
    assert [secret for secret in world.canaries() if world.canary not in secret] == []


def test_each_redemption_returns_a_new_refresh_token_and_leaves_the_old_one_alone(
    simulator: Simulator, world: World
) -> None:
    world.refresh_in = timedelta(minutes=30)
    old = refresh_token(world)
    first, second = redeem(simulator, old), redeem(simulator, old)
    assert len({old, first["refresh_token"], second["refresh_token"]}) == 3
    assert 3600 <= first["expires_in"] <= 5400
    assert first["id_token_claims"]["preferred_username"] == world.user
    assert "refresh_on" in first


def test_a_refresh_token_lives_for_90_days(simulator: Simulator, world: World) -> None:
    token = refresh_token(world)
    world.clock = lambda: now() + timedelta(days=89)
    renewed = redeem(simulator, token)["refresh_token"]
    world.clock = lambda: now() + timedelta(days=91)
    assert redeem(simulator, token)["error_codes"] == [700082]
    assert "access_token" in redeem(simulator, renewed)


@pytest.mark.parametrize(
    ("scenario", "error", "code", "suberror"),
    [
        ("consent-revoked", "invalid_grant", 50173, None),
        ("consent-expired", "invalid_grant", 700082, "token_expired"),
        ("mfa-required", "interaction_required", 50076, "basic_action"),
        ("mfa-expired", "invalid_grant", 50078, "basic_action"),
        ("sign-in-frequency", "invalid_grant", 70043, "token_expired"),
        ("blocked", "invalid_grant", 53003, "message_only"),
        ("secret-expired", "invalid_client", 7000222, None),
    ],
)
def test_entra_refuses_in_its_own_shape(
    simulator: Simulator, world: World, scenario: str, error: str, code: int, suberror: str | None
) -> None:
    world.choose(scenario)
    refused = redeem(simulator)
    assert (refused["error"], refused.get("suberror")) == (error, suberror)
    assert refused["error_codes"] == [code]
    assert refused["error_description"].startswith(f"AADSTS{code}: ")
    assert {"timestamp", "trace_id", "correlation_id", "error_uri"} < refused.keys()
    assert world.exchanges[-1].status == (401 if error == "invalid_client" else 400)


def test_a_new_consent_heals_without_a_change_of_scenario(simulator: Simulator, world: World) -> None:
    world.refuse_consents(Refusal.REVOKED)
    assert "error" in redeem(simulator)
    assert "access_token" in redeem(simulator, world.consent())


def test_choosing_healthy_heals_what_a_scenario_broke(simulator: Simulator, world: World) -> None:
    for name in SCENARIOS:
        world.choose(name)
    world.choose("healthy")
    assert get(simulator, redeem(simulator)["access_token"]).status_code == 200


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"refresh_token": "1.unknown"}, 400, 70000),
        ({"client_id": "somebody-else"}, 400, 700016),
        ({"client_secret": "wrong"}, 401, 7000215),
        ({"client_secret": ""}, 401, 7000218),
        ({"scope": "https://graph.microsoft.com/.default"}, 400, 500011),
        ({"scope": "openid"}, 400, 70011),
        ({"resource": PARTNER_CENTER}, 400, 901002),
        ({"grant_type": "password"}, 400, 70003),
    ],
)
def test_the_token_endpoint_is_strict(
    simulator: Simulator, world: World, changes: dict[str, str], status: int, code: int
) -> None:
    form = {
        "grant_type": "refresh_token",
        "client_id": world.client_id,
        "client_secret": world.client_secret,
        "refresh_token": refresh_token(world),
        "scope": f"{PARTNER_CENTER}/.default",
    }
    address = f"{simulator.url}/{world.tenant_id}/oauth2/v2.0/token"
    assert requests.post(address, form, timeout=PATIENCE).status_code == 200
    answer = requests.post(address, form | changes, timeout=PATIENCE)
    assert (answer.status_code, answer.json()["error_codes"]) == (status, [code])


def test_another_tenant_is_not_found(simulator: Simulator) -> None:
    answer = requests.get(
        f"{simulator.url}/{uuid4()}/v2.0/.well-known/openid-configuration", timeout=PATIENCE
    )
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_tenant")


def test_the_client_may_sign_in_by_basic_authentication(simulator: Simulator, world: World) -> None:
    form = {
        "grant_type": "refresh_token",
        "refresh_token": refresh_token(world),
        "scope": f"{PARTNER_CENTER}/.default",
    }
    address = f"{simulator.url}/{world.tenant_id}/oauth2/v2.0/token"
    answer = requests.post(address, form, auth=(world.client_id, world.client_secret), timeout=PATIENCE)
    assert answer.status_code == 200
    assert "refresh_token" not in answer.json()


def certified(directory: Path, life: timedelta) -> tuple[dict[str, object], str]:
    """MSAL's credential with a new certificate, and the certificate for the app registration."""
    leaf = trustme.CA(key_type=trustme.KeyType.RSA).issue_cert(
        "app", key_type=trustme.KeyType.RSA, not_before=now() - timedelta(days=2), not_after=now() + life
    )
    pem = leaf.cert_chain_pems[0].bytes()
    key = load_pem_private_key(leaf.private_key_pem.bytes(), None)
    pfx = directory / "client.pfx"
    pfx.write_bytes(
        pkcs12.serialize_key_and_certificates(
            None,
            key,  # type: ignore[arg-type]
            load_pem_x509_certificate(pem),
            None,
            NoEncryption(),
        )
    )
    return {"private_key_pfx_path": str(pfx), "public_certificate": True}, pem.decode()


def test_the_client_may_sign_in_by_certificate(simulator: Simulator, world: World, tmp_path: Path) -> None:
    credential, pem = certified(tmp_path, timedelta(days=1))
    client = application(simulator, credential)
    refused = client.acquire_token_by_refresh_token(refresh_token(world), SCOPES)
    assert refused["error_codes"] == [700027]
    world.certificate = pem
    client = application(simulator, credential)
    assert "access_token" in client.acquire_token_by_refresh_token(refresh_token(world), SCOPES)


def test_an_expired_certificate_is_refused(simulator: Simulator, world: World, tmp_path: Path) -> None:
    credential, world.certificate = certified(tmp_path, timedelta(days=-1))
    client = application(simulator, credential)
    refused = client.acquire_token_by_refresh_token(refresh_token(world), SCOPES)
    assert refused["error_codes"] == [700027]


@pytest.mark.parametrize(
    ("resource", "user_assigned", "code"),
    [
        ("api://AzureADTokenExchange", True, None),
        ("api://AzureADTokenExchange", False, 700213),
        ("https://vault.azure.net", True, 700212),
    ],
)
def test_the_client_may_sign_in_by_its_federated_identity(
    simulator: Simulator, world: World, resource: str, code: int | None, *, user_assigned: bool
) -> None:
    client_id = world.managed_identity_client_id if user_assigned else None
    with managed_identity(simulator.ca_bundle, client_id) as identity:
        credential = {"client_assertion": lambda: identity.get_token(f"{resource}/.default").token}
        client = application(simulator, credential)
        result = client.acquire_token_by_refresh_token(refresh_token(world), SCOPES)
    assert result.get("error_codes") == (code and [code])


def exchangeable(world: World, life: timedelta = timedelta(hours=1), **claims: str) -> str:
    """A token of the managed identity for the exchange, with other claims."""
    whole = {
        "aud": world.token_exchange_audience,
        "iss": f"https://login.microsoftonline.com/{world.tenant_id}/v2.0",
        "sub": world.managed_identity_object_id,
    }
    return world.sign(whole | claims, now() + min(life, timedelta()), now() + life)


FEDERATED: dict[str, tuple[Callable[[World], str], int | None]] = {
    "good": (exchangeable, None),
    "of another cloud": (lambda world: exchangeable(world, aud="api://AzureADTokenExchangeUSGov"), 700212),
    "of another issuer": (lambda world: exchangeable(world, iss="https://sts.windows.net/"), 700211),
    "of another subject": (lambda world: exchangeable(world, sub=str(uuid4())), 700213),
    "expired": (lambda world: exchangeable(world, timedelta(seconds=-1)), 700024),
    "not yet valid": (lambda world: world.sign({}, now() + timedelta(days=1), now() + timedelta(2)), 700024),
    "forged": (lambda world: exchangeable(World(tenant_id=world.tenant_id)), 700027),
    "no token": (lambda _: "nonsense", 700027),
}


@pytest.mark.parametrize("which", FEDERATED)
def test_a_federated_assertion_is_checked_in_earnest(simulator: Simulator, world: World, which: str) -> None:
    assertion, code = FEDERATED[which]
    client = application(simulator, {"client_assertion": lambda: assertion(world)})
    result = client.acquire_token_by_refresh_token(refresh_token(world), SCOPES)
    assert result.get("error_codes") == (code and [code])


def test_the_audience_of_the_exchange_depends_on_the_cloud(simulator: Simulator, world: World) -> None:
    world.token_exchange_audience = "api://AzureADTokenExchangeUSGov"
    for audience, code in ((world.token_exchange_audience, None), ("api://AzureADTokenExchange", [700212])):
        identity = world.identity_token(audience, world.managed_identity_client_id)
        client = application(simulator, {"client_assertion": lambda identity=identity: identity})
        result = client.acquire_token_by_refresh_token(refresh_token(world), SCOPES)
        assert result.get("error_codes") == code


class Form(HTMLParser):
    """Where a page's form goes, with which fields, and whether a script sends it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.action, self.fields = "", dict[str, str]()
        self.is_sent = "document.forms[0].submit()" in page
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.action = given["action"]
        if given.get("type") == "hidden":
            self.fields[given["name"]] = given["value"]


def ask(
    simulator: Simulator, changes: dict[str, str | None] | None = None, tenant: str | None = None
) -> requests.Response:
    """A person opens the sign-in page; a change to None leaves a parameter out."""
    query: dict[str, str | None] = {
        "client_id": simulator.world.client_id,
        "response_type": "code",
        "redirect_uri": REDIRECT_URI,
        "scope": " ".join([*SCOPES, "openid", "offline_access"]),
        "state": "a state",
        "code_challenge": "x" * 43,
        "code_challenge_method": "S256",
        **(changes or {}),
    }
    address = f"{simulator.url}/{tenant or simulator.world.tenant_id}/oauth2/v2.0/authorize"
    present = {name: value for name, value in query.items() if value is not None}
    return requests.get(address, present, allow_redirects=False, timeout=PATIENCE)


def answered(response: requests.Response) -> dict[str, str]:
    """What the app is told, by redirection or by form."""
    if response.status_code == 302:
        location = urlsplit(response.headers["location"])
        assert (location.scheme, location.netloc, location.path) == ("http", "localhost:8400", "/")
        return dict(parse_qsl(location.query))
    form = Form(response.text)
    assert (response.status_code, form.action, form.is_sent) == (200, REDIRECT_URI, True)
    return form.fields


def begin(
    simulator: Simulator, mode: str = "form_post"
) -> tuple[msal.ConfidentialClientApplication, dict[str, Any]]:
    client = application(simulator)
    return client, client.initiate_auth_code_flow(SCOPES, redirect_uri=REDIRECT_URI, response_mode=mode)


def signed_in(
    flow: Mapping[str, Any], more: dict[str, str] | None = None, *, mfa: bool = True
) -> dict[str, str]:
    query = urlencode((more or {}) | ({"amr_values": "mfa"} if mfa else {}))
    return answered(requests.get(f"{flow['auth_uri']}&{query}", allow_redirects=False, timeout=PATIENCE))


def sign_in(simulator: Simulator, *, mfa: bool = True) -> dict[str, Any]:
    client, flow = begin(simulator)
    result = client.acquire_token_by_auth_code_flow(flow, signed_in(flow, mfa=mfa))
    assert isinstance(result, dict)
    return result


@pytest.mark.filterwarnings("ignore:response_mode")  # MSAL would have form_post
@pytest.mark.parametrize("mode", ["query", "form_post"])
def test_a_person_signs_in_and_the_refresh_token_of_it_is_good(
    simulator: Simulator, world: World, mode: str
) -> None:
    world.user = "somebody@nordlys.example"
    client, flow = begin(simulator, mode)
    answer = signed_in(flow)
    result = client.acquire_token_by_auth_code_flow(flow, answer)
    claims = world.claims(result["access_token"])
    assert (claims["upn"], claims["amr"], claims["wids"]) == (world.user, ["pwd", "mfa"], [EVERY_USER])
    who = result["id_token_claims"]
    assert (who["preferred_username"], who["tid"], who["name"]) == (world.user, world.tenant_id, "somebody")
    assert who["iss"] == f"{simulator.url}/{world.tenant_id}/v2.0"
    assert (who["aud"], who["oid"]) == (world.client_id, claims["oid"])
    assert get(simulator, result["access_token"], ValidateMfa="true").headers["isMfaCompliant"] == "true"
    world.user = "another@nordlys.example"
    renewed = redeem(simulator, result["refresh_token"])
    assert world.claims(renewed["access_token"])["upn"] == "somebody@nordlys.example"
    assert {answer["code"], result["refresh_token"], result["id_token"]} < world.canaries()
    assert world.canary in answer["code"]


def test_an_id_token_lives_on_the_clock_of_the_machine(simulator: Simulator, world: World) -> None:
    world.clock = lambda: now() + timedelta(days=400)
    who = sign_in(simulator)["id_token_claims"]
    assert abs(who["iat"] - now().timestamp()) < 60
    assert who["exp"] - who["iat"] == 75 * 60


MFA_CLAIMS = json.dumps({"access_token": {"amr": {"essential": True, "values": ["mfa"]}}})


@pytest.mark.parametrize(
    ("asked", "has", "mfa"),
    [
        ({"amr_values": "mfa"}, True, True),
        ({"claims": MFA_CLAIMS}, True, True),
        ({"amr_values": "mfa"}, False, False),
        ({"claims": '{"id_token": {"acr": null}}'}, True, False),
        ({}, True, False),
    ],
)
def test_a_sign_in_has_mfa_if_it_is_asked_for_and_the_person_has_it(
    simulator: Simulator, world: World, asked: dict[str, str], *, has: bool, mfa: bool
) -> None:
    world.person_has_mfa = has
    client, flow = begin(simulator)
    result = client.acquire_token_by_auth_code_flow(flow, signed_in(flow, asked, mfa=False))
    for each in (result, redeem(simulator, result["refresh_token"])):
        answer = get(simulator, each["access_token"])
        assert (answer.status_code == 200) == mfa
        assert mfa or answer.json()["code"] == 900421


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"code": "0.unknown"}, 400, 70000),
        ({"redirect_uri": f"{REDIRECT_URI}/"}, 401, 500112),
        ({"redirect_uri": None}, 400, 900144),
        ({"code_verifier": "y" * 43}, 400, 501481),
        ({"code_verifier": None}, 400, 50148),
        ({"client_secret": "wrong"}, 401, 7000215),
        ({"client_id": "somebody-else"}, 400, 700016),
        ({"scope": "https://graph.microsoft.com/.default"}, 400, 500011),
    ],
)
def test_a_code_is_redeemed_once_and_only_by_who_asked_for_it(
    simulator: Simulator, world: World, changes: dict[str, str | None], status: int, code: int
) -> None:
    _, flow = begin(simulator)
    form = {
        "grant_type": "authorization_code",
        "client_id": world.client_id,
        "client_secret": world.client_secret,
        "redirect_uri": REDIRECT_URI,
        "code": signed_in(flow)["code"],
        "code_verifier": flow["code_verifier"],
    }
    address = f"{simulator.url}/{world.tenant_id}/oauth2/v2.0/token"
    changed = {name: value for name, value in {**form, **changes}.items() if value is not None}
    refused = requests.post(address, changed, timeout=PATIENCE)
    assert (refused.status_code, refused.json()["error_codes"]) == (status, [code])
    good = requests.post(address, form, timeout=PATIENCE)
    assert {"access_token", "refresh_token", "id_token"} < good.json().keys()
    again = requests.post(address, form, timeout=PATIENCE)
    assert (again.status_code, again.json()["error_codes"]) == (400, [54005])


def test_a_code_lives_for_ten_minutes(simulator: Simulator, world: World) -> None:
    client, flow = begin(simulator)
    answer = signed_in(flow)
    world.clock = lambda: now() + timedelta(minutes=10)
    assert client.acquire_token_by_auth_code_flow(flow, answer)["error_codes"] == [70008]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"client_id": str(uuid4())}, 700016),
        ({"redirect_uri": "http://localhost:8400/<script>"}, 50011),
        ({"redirect_uri": "https://evil.example"}, 50011),
        ({"redirect_uri": None}, 900144),
        ({"response_mode": "web_message"}, 70007),
        (None, 90002),
    ],
)
def test_who_is_not_the_app_is_shown_a_page_and_never_redirected(
    simulator: Simulator, change: dict[str, str | None] | None, code: int
) -> None:
    answer = ask(simulator, change, tenant=None if change else str(uuid4()))
    assert (answer.status_code, "location" in answer.headers) == (400, False)
    assert answer.headers["content-type"].startswith("text/html")
    assert f"AADSTS{code}: " in answer.text
    assert "script" not in answer.text


@pytest.mark.parametrize(
    ("registered", "asked", "same"),
    [
        ("http://localhost", "http://localhost:8400", True),
        ("http://localhost:1", "http://localhost:2", True),
        ("http://127.0.0.1/a", "http://127.0.0.1:2/a", True),
        ("http://localhost/a", "http://localhost:2/a", True),
        ("http://localhost", "http://localhost:8400/", False),
        ("http://localhost/a", "http://localhost:8400/A", False),
        ("http://localhost", "https://localhost:8400", False),
        ("http://localhost", "http://127.0.0.1:8400", False),
        ("http://localhost", "http://x@localhost:8400", False),
        ("http://localhost", "http://localhost:8400?a=b", False),
        ("http://localhost", "http://localhost:8400#a", False),
        ("http://localhost", "http://localhost:port", False),
        ("https://app.example/a", "https://app.example/a", True),
        ("https://app.example/a", "https://app.example:444/a", False),
    ],
)
def test_only_the_port_of_a_localhost_redirect_uri_is_free(
    registered: str, asked: str, *, same: bool
) -> None:
    assert matches(registered, asked) is same


@pytest.mark.parametrize("mode", ["query", "form_post"])
@pytest.mark.parametrize(
    ("change", "error", "code"),
    [
        ({"response_type": "code id_token"}, "unsupported_response_type", 70005),
        ({"response_type": None}, "invalid_request", 900144),
        ({"code_challenge": None}, "invalid_request", 9002325),
        ({"code_challenge": "short"}, "invalid_request", 501491),
        ({"code_challenge_method": "plain"}, "invalid_request", 50149),
        ({"code_challenge_method": None}, "invalid_request", 50149),
        ({"scope": "openid"}, "invalid_scope", 70011),
        ({"scope": "https://graph.microsoft.com/.default"}, "invalid_resource", 500011),
        ({"claims": "[]"}, "invalid_request", 9002313),
        ({"prompt": "none"}, "login_required", 50058),
    ],
)
def test_the_authorization_endpoint_is_strict(
    simulator: Simulator, world: World, change: dict[str, str | None], error: str, code: int, mode: str
) -> None:
    assert answered(ask(simulator, {"response_mode": mode})).keys() == {"code", "session_state", "state"}
    codes = len(world.codes)
    answer = answered(ask(simulator, {"response_mode": mode, **change}))
    assert answer.keys() == {"error", "error_description", "state"}
    assert (answer["error"], answer["state"]) == (error, "a state")
    assert answer["error_description"].startswith(f"AADSTS{code}: ")
    assert len(world.codes) == codes


@pytest.mark.filterwarnings("ignore:response_mode")  # MSAL would have form_post
@pytest.mark.parametrize("mode", ["query", "form_post"])
@pytest.mark.parametrize("code", [65004, 53003, 50020, 50105])
def test_a_refused_sign_in_is_told_to_the_app(
    simulator: Simulator, world: World, code: int, mode: str
) -> None:
    world.sign_in_error = ("access_denied", code)
    client, flow = begin(simulator, mode)
    result = client.acquire_token_by_auth_code_flow(flow, signed_in(flow))
    assert result["error"] == "access_denied"
    assert result["error_description"].startswith(f"AADSTS{code}: ")
    world.choose("healthy")
    assert "access_token" in sign_in(simulator)


def test_a_blocked_user_cannot_sign_in_anew(simulator: Simulator, world: World) -> None:
    world.choose("blocked")
    _, flow = begin(simulator)
    assert signed_in(flow)["error_description"].startswith("AADSTS53003: ")


@pytest.mark.parametrize("scenario", ["mfa-required", "mfa-expired", "sign-in-frequency", "mfa-missing"])
def test_a_new_sign_in_heals_what_the_old_one_suffered(
    simulator: Simulator, world: World, scenario: str
) -> None:
    world.choose(scenario)
    old = redeem(simulator)
    assert "error" in old or get(simulator, old["access_token"]).status_code == 401
    assert get(simulator, sign_in(simulator)["access_token"]).status_code == 200
    assert scenario == world.scenario


def test_roles_of_the_directory_and_of_partner_center_are_apart(simulator: Simulator, world: World) -> None:
    world.directory_roles.append("62e90394-69f5-4237-9190-012177145e10")
    world.has_partner_role = False
    token = redeem(simulator)["access_token"]
    assert world.claims(token)["wids"] == world.directory_roles
    answer = get(simulator, token)
    assert (answer.status_code, answer.json()["code"]) == (403, 900308)


def test_partner_center_echoes_ids_and_sends_no_validators(simulator: Simulator, world: World) -> None:
    request_id, correlation_id = str(uuid4()), str(uuid4())
    answer = get(simulator, MS_RequestId=request_id, MS_CorrelationId=correlation_id, ValidateMfa="true")
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert answer.headers["ms-requestid"] == request_id
    assert answer.headers["ms-correlationid"] == correlation_id
    assert answer.headers["isMfaCompliant"] == "true"
    assert {"ms-cv", "ms-serverid", "date"} <= {name.lower() for name in answer.headers}
    assert not {"etag", "cache-control", "server"} & {name.lower() for name in answer.headers}
    assert world.complaints == []


def test_missing_and_malformed_headers_are_noticed(simulator: Simulator, world: World) -> None:
    get(simulator, MS_RequestId="7", MS_CorrelationId="", MS_Contract_Version="v2", Accept="*/*")
    assert [complaint.split(" ")[0] for complaint in world.complaints] == [
        "MS-RequestId",
        "MS-CorrelationId",
        "MS-Contract-Version",
        "Accept",
    ]


@pytest.mark.parametrize(
    ("token", "status", "code"),
    [
        ({"audience": "https://graph.windows.net"}, 401, 900420),
        ({"mfa": False}, 401, 900421),
        ({"app_only": True}, 403, 900329),
        ({"life": timedelta(seconds=-1)}, 401, None),
    ],
)
def test_partner_center_takes_no_other_token(
    simulator: Simulator, world: World, token: dict[str, Any], status: int, code: int | None
) -> None:
    answer = get(simulator, world.access_token(**token))
    assert answer.status_code == status
    assert (answer.json()["code"] if answer.content else None) == code
    assert not answer.content.startswith(BOM)


def test_a_token_of_another_world_or_none_is_refused_without_a_body(simulator: Simulator) -> None:
    foreign = World(tenant_id=simulator.world.tenant_id).access_token()
    for answer in (get(simulator, foreign), get(simulator, Authorization=simulator.world.access_token())):
        assert (answer.status_code, answer.content) == (401, b"")
        assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    ("scenario", "status", "code"),
    [
        ("throttled", 429, None),
        ("down", 503, None),
        ("redirect", 302, None),
        ("html", 200, None),
        ("unauthorized", 401, None),
        ("forbidden", 403, 900308),
        ("not-found", 404, 1000),
        ("bad-request", 400, 2000),
        ("no-usage-data", 404, 3000),
        ("no-usage-data-400", 400, 3000),
        ("role-missing", 403, 900308),
    ],
)
def test_a_scenario_answers_what_its_sentence_says(
    simulator: Simulator, world: World, scenario: str, status: int, code: int | None
) -> None:
    world.choose(scenario)
    answer = get(simulator)
    assert answer.status_code == status
    if code:
        assert answer.json()["code"] == code
    assert answer.headers.get("retry-after") == ("20" if scenario == "throttled" else None)


@pytest.mark.parametrize(
    ("scenario", "status", "code"), [("mfa-missing", 401, 900421), ("app-only", 403, 900329)]
)
def test_a_scenario_of_signing_in_shows_at_once(
    simulator: Simulator, world: World, scenario: str, status: int, code: int
) -> None:
    before = redeem(simulator)["access_token"]
    world.choose(scenario)
    assert get(simulator, before).status_code == 401
    answer = get(simulator, redeem(simulator)["access_token"])
    assert (answer.status_code, answer.json()["code"]) == (status, code)


@pytest.mark.parametrize(("scenario", "status"), [("flaky", 503), ("unauthorized-once", 401)])
def test_a_passing_fault_passes_and_comes_again_when_chosen_again(
    simulator: Simulator, world: World, scenario: str, status: int
) -> None:
    for _ in range(2):
        world.choose(scenario)
        assert [get(simulator).status_code for _ in range(3)] == [status, 200, 200]


def test_documents_come_in_other_shapes(simulator: Simulator, world: World) -> None:
    world.choose("no-bom")
    assert get(simulator).content == DOCUMENT
    world.choose("wrong-object")
    assert json.loads(get(simulator).content)["attributes"]["objectType"] != "PartnerUsageSummary"
    world.choose("no-total")
    assert "totalCost" not in json.loads(get(simulator).content)
    world.choose("huge")
    assert len(get(simulator).content) > 2 * 1024 * 1024


def test_a_slow_answer_comes_late_and_whole(simulator: Simulator, world: World) -> None:
    world.choose("slow")
    world.delay = 0.05
    answer = get(simulator)
    assert answer.elapsed >= timedelta(seconds=0.05)
    assert answer.content == BOM + DOCUMENT


def test_a_hanging_answer_never_comes(simulator: Simulator, world: World) -> None:
    world.choose("hanging")
    while not world.exchanges:  # a busy server may see that the client has left before it reads the request
        with pytest.raises(requests.ReadTimeout):
            get(simulator, timeout=(PATIENCE, 0.2))
    assert world.exchanges[-1].status is None


def test_half_a_document_breaks_off_on_the_wire(simulator: Simulator, world: World) -> None:
    world.choose("half-document")
    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="IncompleteRead"):
        get(simulator)


def test_a_connection_is_reset_on_the_wire(simulator: Simulator, world: World) -> None:
    world.choose("connection-reset")
    with pytest.raises(requests.ConnectionError, match="reset by peer"):
        get(simulator)


def test_a_dripping_document_comes_byte_by_byte(simulator: Simulator, world: World) -> None:
    world.choose("dripping")
    world.drip, world.document = 0.01, b"{}"
    headers = {"Authorization": f"Bearer {world.access_token()}"}
    with requests.get(
        f"{simulator.url}/v1/usagesummary", headers=headers, stream=True, timeout=PATIENCE
    ) as answer:
        parts = list(answer.raw.stream(1))
    assert b"".join(parts) == BOM + b"{}"
    assert answer.headers["content-length"] == "5"


def test_entra_may_be_down_or_break_off_with_tokens_in_its_answer(simulator: Simulator, world: World) -> None:
    client = application(simulator)
    world.choose("entra-down")
    with pytest.raises(msal.exceptions.MsalServiceError):
        client.acquire_token_by_refresh_token(refresh_token(world), SCOPES)
    world.choose("entra-garbage")
    client = application(simulator)
    with pytest.raises(json.JSONDecodeError):
        client.acquire_token_by_refresh_token(refresh_token(world), SCOPES)
    body = requests.post(f"{simulator.url}/{world.tenant_id}/oauth2/v2.0/token", timeout=PATIENCE).text
    assert body.count(world.canary) == 2


def test_the_vault_keeps_versions_and_their_attributes(simulator: Simulator, world: World) -> None:
    old = refresh_token(world)
    expires = datetime(2027, 2, 19, tzinfo=UTC)
    with vault(simulator) as client:
        before = client.get_secret(SECRET_NAME)
        stored = client.set_secret(
            SECRET_NAME, "new", expires_on=expires, content_type="text/plain", tags={"a": "b"}
        )
        client.update_secret_properties(SECRET_NAME, before.properties.version, enabled=False)
        latest = client.get_secret(SECRET_NAME)
        assert (before.value, latest.value) == (old, "new")
        assert latest.properties.version == stored.properties.version
        assert latest.properties.expires_on == expires
        assert latest.properties.content_type == "text/plain"
        assert latest.properties.tags == {"a": "b"}
        assert latest.properties.vault_url == simulator.url
        assert latest.id == f"{simulator.url}/secrets/{SECRET_NAME}/{stored.properties.version}"
        listed = list(client.list_properties_of_secret_versions(SECRET_NAME))
        assert [each.enabled for each in listed] == [False, True]
        with pytest.raises(HttpResponseError, match="disabled secret"):
            client.get_secret(SECRET_NAME, before.properties.version)


def test_the_vault_may_be_empty_forbidden_or_down(simulator: Simulator, world: World) -> None:
    with vault(simulator) as client:
        world.choose("vault-empty")
        with pytest.raises(ResourceNotFoundError, match="SecretNotFound"):
            client.get_secret(SECRET_NAME)
        world.choose("vault-forbidden")
        with pytest.raises(HttpResponseError, match="Forbidden"):
            client.get_secret(SECRET_NAME)
        world.choose("vault-down")
        with pytest.raises(HttpResponseError) as down:
            client.get_secret(SECRET_NAME)
        assert down.value.status_code == 503
        world.choose("healthy")
        assert client.get_secret(SECRET_NAME).value == refresh_token(world)


def test_the_vault_challenges_a_call_without_a_token(simulator: Simulator, world: World) -> None:
    answer = requests.get(f"{simulator.url}/secrets/{SECRET_NAME}?api-version=7.5", timeout=PATIENCE)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == (
        f'Bearer authorization="{simulator.url}/{world.tenant_id}", resource="https://vault.azure.net"'
    )


def test_the_vault_takes_no_token_for_another_audience(simulator: Simulator, world: World) -> None:
    elsewhere = Bearer(world.identity_token("https://storage.azure.com/", "system-assigned"))
    with vault(simulator, elsewhere) as client, pytest.raises(HttpResponseError) as refused:
        client.get_secret(SECRET_NAME)
    assert refused.value.status_code == 401


def inner_code(error: HttpResponseError) -> object:
    inner = error.error.innererror if error.error else None
    return inner and inner["code"]


def test_a_deleted_secret_keeps_its_name_until_it_is_recovered(simulator: Simulator, world: World) -> None:
    expires = datetime(2027, 2, 19, tzinfo=UTC)
    token = refresh_token(world)
    with vault(simulator) as client:
        stored = client.set_secret(SECRET_NAME, token, expires_on=expires, tags={"a": "b"})
        with pytest.raises(ResourceNotFoundError):
            client.get_deleted_secret(SECRET_NAME)
        client.begin_delete_secret(SECRET_NAME).wait()
        deleted = client.get_deleted_secret(SECRET_NAME)
        assert deleted.recovery_id == f"{simulator.url}/deletedsecrets/{SECRET_NAME}"
        assert deleted.deleted_date is not None
        assert deleted.scheduled_purge_date == deleted.deleted_date + timedelta(days=90)
        for _ in range(2):
            with pytest.raises(ResourceExistsError) as conflict:
                client.set_secret(SECRET_NAME, "new")
            assert inner_code(conflict.value) == "ObjectIsDeletedButRecoverable"
            with pytest.raises(ResourceNotFoundError, match="SecretNotFound"):
                client.get_secret(SECRET_NAME)
        recovering = client.begin_recover_deleted_secret(SECRET_NAME)
        recovering.wait()
        assert recovering.result().version == stored.properties.version
        recovered = client.get_secret(SECRET_NAME)
        assert (recovered.value, recovered.properties.expires_on) == (token, expires)
        assert recovered.properties.tags == {"a": "b"}
        assert len(list(client.list_properties_of_secret_versions(SECRET_NAME))) == 2
        with pytest.raises(ResourceNotFoundError):
            client.begin_recover_deleted_secret(SECRET_NAME)
        client.set_secret(SECRET_NAME, "new")


def test_a_recovery_may_take_a_while(simulator: Simulator, world: World) -> None:
    world.choose("vault-deleted")
    world.recovery = 3
    with vault(simulator) as client:
        recovering = client.begin_recover_deleted_secret(SECRET_NAME, _polling_interval=0)
        with pytest.raises(ResourceExistsError) as conflict:
            client.set_secret(SECRET_NAME, "too early")
        assert inner_code(conflict.value) == "ObjectIsBeingRecovered"
        recovering.wait()
        client.set_secret(SECRET_NAME, "new")
    crossed = [(each.method, each.status) for each in world.exchanges if each.service is Service.KEY_VAULT]
    assert crossed[-6:] == [
        ("POST", 200),
        ("PUT", 409),
        ("GET", 404),
        ("GET", 404),
        ("GET", 200),
        ("PUT", 200),
    ]


@pytest.mark.parametrize("heal", [World.choose, World.consent])
def test_a_deleted_secret_comes_back_when_the_world_heals(
    simulator: Simulator, world: World, heal: Callable[..., object]
) -> None:
    world.choose("vault-deleted")
    with vault(simulator) as client:
        with pytest.raises(ResourceNotFoundError):
            client.get_secret(SECRET_NAME)
        heal(world, *(["healthy"] if heal is World.choose else []))
        assert client.get_secret(SECRET_NAME).value == refresh_token(world)
        client.set_secret(SECRET_NAME, "new")


def test_a_vault_may_let_read_and_not_write(simulator: Simulator, world: World) -> None:
    world.choose("vault-read-only")
    with vault(simulator) as client:
        version = client.get_secret(SECRET_NAME).properties.version
        refused: list[Callable[[], object]] = [
            lambda: client.set_secret(SECRET_NAME, "new"),
            lambda: client.update_secret_properties(SECRET_NAME, version, enabled=False),
            lambda: client.begin_delete_secret(SECRET_NAME),
            lambda: client.begin_recover_deleted_secret(SECRET_NAME),
        ]
        for call in refused:
            with pytest.raises(HttpResponseError) as error:
                call()
            assert (error.value.status_code, inner_code(error.value)) == (403, "ForbiddenByRbac")
        world.choose("healthy")
        client.set_secret(SECRET_NAME, "new")


class Bearer:
    """A credential of azure-core that has this token."""

    def __init__(self, token: str) -> None:
        self._token = AccessToken(token, int(now().timestamp()) + 3600)

    def get_token(self, *_scopes: str, **_: object) -> AccessToken:
        return self._token


CALLERS: dict[str, tuple[Callable[[World], str], int]] = {
    "the managed identity": (lambda w: w.identity_token(KEY_VAULT, w.managed_identity_client_id), 200),
    "an operator": (lambda w: w.operator_token(KEY_VAULT), 200),
    "another identity": (lambda w: w.identity_token(KEY_VAULT, str(uuid4())), 403),
    "the app and its user": (lambda w: w.access_token(audience=KEY_VAULT), 403),
    "a token of another tenant": (
        lambda w: w.sign({"aud": KEY_VAULT, "tid": str(uuid4())}, now(), now() + timedelta(hours=1)),
        401,
    ),
    "a token for another resource": (lambda w: w.operator_token("https://storage.azure.com"), 401),
}


@pytest.mark.parametrize("who", CALLERS)
def test_the_vault_is_open_to_the_identity_and_to_an_operator(
    simulator: Simulator, world: World, who: str
) -> None:
    token, status = CALLERS[who]
    with vault(simulator, Bearer(token(world))) as client:
        if status == 200:
            client.set_secret(SECRET_NAME, "new")
            assert client.get_secret(SECRET_NAME).value == "new"
        else:
            with pytest.raises(HttpResponseError) as refused:
                client.get_secret(SECRET_NAME)
            assert refused.value.status_code == status


def test_an_operator_may_lack_the_role_at_the_vault(simulator: Simulator, world: World) -> None:
    world.operator_has_role = False
    with vault(simulator, Bearer(world.operator_token(KEY_VAULT))) as client:
        with pytest.raises(HttpResponseError) as refused:
            client.get_secret(SECRET_NAME)
        assert inner_code(refused.value) == "ForbiddenByRbac"
        world.choose("healthy")
        assert client.get_secret(SECRET_NAME).value == refresh_token(world)
    with vault(simulator) as client:
        world.operator_has_role = False
        assert client.get_secret(SECRET_NAME).value == refresh_token(world)


def test_entra_may_throttle(simulator: Simulator, world: World) -> None:
    client = application(simulator)
    world.choose("entra-throttled")
    address = f"{simulator.url}/{world.tenant_id}/oauth2/v2.0/token"
    answer = requests.post(address, timeout=PATIENCE)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "20")
    assert answer.json()["error"] == "temporarily_unavailable"
    refused = client.acquire_token_by_refresh_token(refresh_token(world), SCOPES)
    assert refused["error"] == "temporarily_unavailable"


def test_the_vault_may_throttle(simulator: Simulator, world: World) -> None:
    world.choose("vault-throttled")
    with vault(simulator) as secrets, pytest.raises(HttpResponseError, match="Throttled") as throttled:
        secrets.get_secret(SECRET_NAME)
    assert throttled.value.status_code == 429


@pytest.fixture
def az(simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """On the PATH of a machine that has no managed identity."""
    simulator.install_az(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "AzureCliCredential")
    for name in ("IDENTITY_ENDPOINT", "IDENTITY_HEADER", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name)
    return tmp_path / "bin" / "az"


@pytest.mark.usefixtures("az")
@pytest.mark.parametrize("kind", [AzureCliCredential, DefaultAzureCredential])
def test_an_operator_comes_by_az_login(
    simulator: Simulator, world: World, kind: Callable[[], TokenCredential]
) -> None:
    with vault(simulator, kind()) as client:
        assert client.get_secret(SECRET_NAME).value == refresh_token(world)
    token = AzureCliCredential(tenant_id=world.tenant_id).get_token("https://storage.azure.com/.default")
    claims = world.claims(token.token)
    assert (claims["upn"], claims["aud"]) == (world.operator, "https://storage.azure.com/")
    assert token.expires_on == claims["exp"]
    assert token.token in world.canaries()
    assert world.canary in token.token


@pytest.mark.usefixtures("az")
def test_an_operator_may_have_signed_in_elsewhere_and_follows_the_challenge_home(
    simulator: Simulator, world: World
) -> None:
    home, world.tenant_id = world.tenant_id, str(uuid4())
    with vault(simulator, AzureCliCredential()) as client:
        assert client.get_secret(SECRET_NAME).value == refresh_token(world)
        world.tenant_id = home  # the SDK has kept the challenge, with the tenant of before
    with vault(simulator, AzureCliCredential()) as client:
        assert client.get_secret(SECRET_NAME).value == refresh_token(world)
    statuses = [each.status for each in world.exchanges if each.service is Service.KEY_VAULT]
    assert statuses[-2:] == [401, 200]


@pytest.mark.usefixtures("az")
def test_an_operator_may_not_have_signed_in(world: World) -> None:
    world.operator_signed_in = False
    with pytest.raises(CredentialUnavailableError, match="az login"):
        AzureCliCredential().get_token(f"{KEY_VAULT}/.default")


def test_az_is_a_program_of_one_command(az: Path, simulator: Simulator, world: World) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [az, *arguments], capture_output=True, text=True, timeout=PATIENCE_WITH_A_PROCESS, check=False
        )

    answer = json.loads(run("account", "get-access-token", "--scope", f"{KEY_VAULT}/.default").stdout)
    assert world.claims(answer["accessToken"])["aud"] == KEY_VAULT
    expires = datetime.strptime(answer["expiresOn"], "%Y-%m-%d %H:%M:%S.%f").astimezone()
    assert expires.timestamp() == answer["expires_on"]
    assert (answer["tenant"], answer["tokenType"]) == (world.tenant_id, "Bearer")
    assert run("keyvault", "list").returncode == 2
    address = f"{simulator.url}/simulator/operator-token"
    assert requests.post(address, timeout=PATIENCE, verify=simulator.ca_bundle).status_code == 400


def test_the_identity_endpoint_wants_its_header_and_a_known_identity(
    simulator: Simulator, world: World
) -> None:
    address = f"{simulator.url}/identity/token"
    query = {"resource": "https://storage.azure.com", "api-version": "2019-08-01"}
    headers = {"X-IDENTITY-HEADER": world.identity_header}
    answer = requests.get(address, query, headers=headers, timeout=PATIENCE)
    claims = world.claims(answer.json()["access_token"])
    assert claims["aud"] == "https://storage.azure.com/"
    assert claims["iss"] == f"https://sts.windows.net/{world.tenant_id}/"
    assert answer.json()["expires_on"] == str(claims["exp"])
    assert requests.get(address, query, timeout=PATIENCE).status_code == 401
    stranger = query | {"client_id": str(uuid4())}
    assert requests.get(address, stranger, headers=headers, timeout=PATIENCE).status_code == 400
    world.choose("identity-down")
    assert requests.get(address, query, headers=headers, timeout=PATIENCE).status_code == 503


def test_an_unknown_path_is_not_found_and_recorded(simulator: Simulator, world: World) -> None:
    assert requests.get(f"{simulator.url}/v1/customers", timeout=PATIENCE).status_code == 404
    assert world.exchanges[-1].path == "/v1/customers"


def test_an_unknown_scenario_lists_the_known_ones(world: World) -> None:
    with pytest.raises(ValueError, match=r"no scenario 'nonsense'; there are healthy, .*identity-down"):
        world.choose("nonsense")


def test_another_process_can_steer_the_world(simulator: Simulator, world: World) -> None:
    control = f"{simulator.url}/simulator"
    assert set(requests.get(f"{control}/scenarios", timeout=PATIENCE).json()) == set(SCENARIOS)
    assert requests.put(f"{control}/scenario/down", timeout=PATIENCE).status_code == 204
    assert world.scenario == "down"
    assert requests.put(f"{control}/scenario/nonsense", timeout=PATIENCE).status_code == 404
    assert requests.put(f"{control}/document", b'{"totalCost": 1}', timeout=PATIENCE).status_code == 204
    assert world.document == b'{"totalCost": 1}'
    redeem(simulator)
    get(simulator, MS_RequestId="7")
    shown = requests.get(f"{control}/exchanges", timeout=PATIENCE)
    assert [each["service"] for each in shown.json()] == ["entra", "entra", "partner-center"]
    assert world.canary not in shown.text
    assert len(requests.get(f"{control}/complaints", timeout=PATIENCE).json()) == 1
    requests.delete(f"{control}/exchanges", timeout=PATIENCE)
    assert world.exchanges == []


def test_no_code_nor_what_belongs_to_it_is_shown(simulator: Simulator, world: World) -> None:
    client, flow = begin(simulator)
    answer = signed_in(flow)
    assert "access_token" in client.acquire_token_by_auth_code_flow(flow, answer)
    requests.get(f"{simulator.url}/?code={answer['code']}", timeout=PATIENCE)
    with vault(simulator, Bearer(world.operator_token(KEY_VAULT))) as vaulted:
        vaulted.get_secret(SECRET_NAME)
    shown = requests.get(f"{simulator.url}/simulator/exchanges", timeout=PATIENCE)
    assert [each["path"].rpartition("/")[2] for each in shown.json()][1:4] == ["authorize", "token", ""]
    assert world.canary not in shown.text
    assert flow["code_verifier"] not in shown.text


def test_the_certificate_serves_localhost_too(simulator: Simulator) -> None:
    context = ssl.create_default_context(cafile=simulator.ca_bundle)
    with (
        socket.create_connection(("127.0.0.1", simulator.port), 10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        assert connection.version() is not None


def test_a_port_in_use_is_named(simulator: Simulator) -> None:
    with pytest.raises(OSError, match=f"port {simulator.port}"), Simulator(port=simulator.port):
        pass


@pytest.mark.parametrize("delivery", [Delivery.NEVER, Delivery.LATE, Delivery.DRIPPING])
def test_stopping_cuts_every_wait_short(monkeypatch: pytest.MonkeyPatch, delivery: Delivery) -> None:
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
    monkeypatch.setattr("dev.simulator.server.GRACE_SECONDS", 3600)
    world = World(delay=3600, drip=3600)
    arrived, failures = threading.Event(), []

    def ask(stopping: Simulator) -> None:
        try:
            get(stopping, timeout=3600)
        except requests.RequestException as failure:
            failures.append(failure)

    with Simulator(world) as stopping:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", stopping.ca_bundle)
        world.faults[Service.PARTNER_CENTER] = Fault(Service.PARTNER_CENTER, delivery=delivery)
        world.observer = lambda _: arrived.set()
        thread = threading.Thread(target=ask, args=(stopping,))
        thread.start()
        assert arrived.wait(PATIENCE)
    thread.join(PATIENCE)
    assert len(failures) == 1


def test_a_person_can_start_it_and_see_what_is_asked_but_no_secret_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "dev", "simulator", "--port", "0", "--scenario", "no-usage-data"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONWARNINGS": "error"},
    ) as process:
        assert process.stdout is not None
        settings: dict[str, str] = {}
        for line in process.stdout:
            name, _, value = line.strip().partition("=")
            settings[name.removeprefix("export ")] = value
            if line.startswith("curl "):
                break
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", settings["REQUESTS_CA_BUNDLE"])
        monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
        headers = {"X-IDENTITY-HEADER": settings["IDENTITY_HEADER"]}
        query = {"resource": "https://vault.azure.net", "api-version": "2019-08-01"}
        requests.get(settings["IDENTITY_ENDPOINT"], query, headers=headers, timeout=PATIENCE)
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=PATIENCE_WITH_A_PROCESS)
    assert rest.split() == ["identity", "GET", "/identity/token", "200"]
    assert process.returncode == 0
    assert not Path(settings["REQUESTS_CA_BUNDLE"]).exists()


def test_a_wrong_name_lists_the_scenarios(capfd: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-m", "dev", "simulator", "--scenario", "sunny"]
    assert subprocess.run(command, check=False, timeout=PATIENCE_WITH_A_PROCESS).returncode == 1
    assert [line.split()[0] for line in capfd.readouterr().err.splitlines()[1:]] == list(SCENARIOS)
