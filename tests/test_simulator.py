import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import msal
import pytest
import requests
import trustme
from azure.core.credentials import AccessToken, TokenCredential
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.identity import ManagedIdentityCredential
from azure.keyvault.secrets import SecretClient
from cryptography.hazmat.primitives.serialization import NoEncryption, load_pem_private_key, pkcs12
from cryptography.x509 import load_pem_x509_certificate

from dev.simulator import SCENARIOS, Delivery, Fault, Refusal, Service, Simulator, World
from dev.simulator.world import BOM, DOCUMENT, PARTNER_CENTER, SECRET_NAME, now

SCOPES = [f"{PARTNER_CENTER}/user_impersonation"]


@pytest.fixture(scope="module")
def served() -> Iterator[Simulator]:
    with Simulator() as simulator:
        yield simulator


@pytest.fixture
def simulator(served: Simulator, monkeypatch: pytest.MonkeyPatch) -> Simulator:
    for name in ("CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in served.settings.items():
        monkeypatch.setenv(name, value)
    world = served.world
    world.clock, world.document, world.certificate, world.refresh_in = now, DOCUMENT, None, None
    world.secrets.clear()
    world.exchanges.clear()
    world.complaints.clear()
    world.choose("healthy")
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
        timeout=10,
    )


def redeem(simulator: Simulator, token: str | None = None, scopes: list[str] = SCOPES) -> dict[str, Any]:
    result = application(simulator).acquire_token_by_refresh_token(
        token or refresh_token(simulator.world), scopes
    )
    assert isinstance(result, dict)
    return result


def get(
    simulator: Simulator, token: str | None = None, timeout: float = 10, **headers: str
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


def vault(simulator: Simulator, credential: TokenCredential | None = None) -> SecretClient:
    return SecretClient(
        simulator.url,
        credential or ManagedIdentityCredential(),
        verify_challenge_resource=False,
        connection_verify=simulator.ca_bundle,
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
    identity = ManagedIdentityCredential().get_token("https://storage.azure.com/.default").token
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
    ("scenario", "error", "code"),
    [
        ("consent-revoked", "invalid_grant", 50173),
        ("consent-expired", "invalid_grant", 700082),
        ("mfa-required", "interaction_required", 50076),
        ("secret-expired", "invalid_client", 7000222),
    ],
)
def test_entra_refuses_in_its_own_shape(
    simulator: Simulator, world: World, scenario: str, error: str, code: int
) -> None:
    world.choose(scenario)
    refused = redeem(simulator)
    assert refused["error"] == error
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
    assert requests.post(address, form, timeout=10).status_code == 200
    answer = requests.post(address, form | changes, timeout=10)
    assert (answer.status_code, answer.json()["error_codes"]) == (status, [code])


def test_another_tenant_is_not_found(simulator: Simulator) -> None:
    answer = requests.get(f"{simulator.url}/{uuid4()}/v2.0/.well-known/openid-configuration", timeout=10)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_tenant")


def test_the_client_may_sign_in_by_basic_authentication(simulator: Simulator, world: World) -> None:
    form = {
        "grant_type": "refresh_token",
        "refresh_token": refresh_token(world),
        "scope": f"{PARTNER_CENTER}/.default",
    }
    address = f"{simulator.url}/{world.tenant_id}/oauth2/v2.0/token"
    answer = requests.post(address, form, auth=(world.client_id, world.client_secret), timeout=10)
    assert answer.status_code == 200
    assert "refresh_token" not in answer.json()


def test_the_client_may_sign_in_by_certificate(simulator: Simulator, world: World, tmp_path: Path) -> None:
    leaf = trustme.CA(key_type=trustme.KeyType.RSA).issue_cert("app", key_type=trustme.KeyType.RSA)
    pem = leaf.cert_chain_pems[0].bytes()
    key = load_pem_private_key(leaf.private_key_pem.bytes(), None)
    pfx = tmp_path / "client.pfx"
    pfx.write_bytes(
        pkcs12.serialize_key_and_certificates(
            None,
            key,  # type: ignore[arg-type]
            load_pem_x509_certificate(pem),
            None,
            NoEncryption(),
        )
    )
    credential = {"private_key_pfx_path": str(pfx), "public_certificate": True}
    client = application(simulator, credential)
    refused = client.acquire_token_by_refresh_token(refresh_token(world), SCOPES)
    assert refused["error_codes"] == [700027]
    world.certificate = pem.decode()
    client = application(simulator, credential)
    assert "access_token" in client.acquire_token_by_refresh_token(refresh_token(world), SCOPES)


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
    identity = ManagedIdentityCredential(
        client_id=world.managed_identity_client_id if user_assigned else None
    )
    credential = {"client_assertion": lambda: identity.get_token(f"{resource}/.default").token}
    client = application(simulator, credential)
    result = client.acquire_token_by_refresh_token(refresh_token(world), SCOPES)
    assert result.get("error_codes") == (code and [code])


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
    with pytest.raises(requests.ReadTimeout):
        get(simulator, timeout=0.2)
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
    with requests.get(f"{simulator.url}/v1/usagesummary", headers=headers, stream=True, timeout=10) as answer:
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
    body = requests.post(f"{simulator.url}/{world.tenant_id}/oauth2/v2.0/token", timeout=10).text
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
    answer = requests.get(f"{simulator.url}/secrets/{SECRET_NAME}?api-version=7.5", timeout=10)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == (
        f'Bearer authorization="{simulator.url}/{world.tenant_id}", resource="https://vault.azure.net"'
    )


def test_the_vault_takes_no_token_for_another_audience(simulator: Simulator, world: World) -> None:
    class Elsewhere:
        def get_token(self, *_scopes: str, **_: object) -> AccessToken:
            token = world.identity_token("https://storage.azure.com/", "system-assigned")
            return AccessToken(token, int(now().timestamp()) + 3600)

    with vault(simulator, Elsewhere()) as client, pytest.raises(HttpResponseError) as refused:
        client.get_secret(SECRET_NAME)
    assert refused.value.status_code == 401


def test_the_identity_endpoint_wants_its_header_and_a_known_identity(
    simulator: Simulator, world: World
) -> None:
    address = f"{simulator.url}/identity/token"
    query = {"resource": "https://storage.azure.com", "api-version": "2019-08-01"}
    headers = {"X-IDENTITY-HEADER": world.identity_header}
    answer = requests.get(address, query, headers=headers, timeout=10)
    claims = world.claims(answer.json()["access_token"])
    assert claims["aud"] == "https://storage.azure.com/"
    assert claims["iss"] == f"https://sts.windows.net/{world.tenant_id}/"
    assert answer.json()["expires_on"] == str(claims["exp"])
    assert requests.get(address, query, timeout=10).status_code == 401
    stranger = query | {"client_id": str(uuid4())}
    assert requests.get(address, stranger, headers=headers, timeout=10).status_code == 400
    world.choose("identity-down")
    assert requests.get(address, query, headers=headers, timeout=10).status_code == 503


def test_an_unknown_path_is_not_found_and_recorded(simulator: Simulator, world: World) -> None:
    assert requests.get(f"{simulator.url}/v1/customers", timeout=10).status_code == 404
    assert world.exchanges[-1].path == "/v1/customers"


def test_an_unknown_scenario_lists_the_known_ones(world: World) -> None:
    with pytest.raises(ValueError, match=r"no scenario 'nonsense'; there are healthy, .*identity-down"):
        world.choose("nonsense")


def test_another_process_can_steer_the_world(simulator: Simulator, world: World) -> None:
    control = f"{simulator.url}/simulator"
    assert set(requests.get(f"{control}/scenarios", timeout=10).json()) == set(SCENARIOS)
    assert requests.put(f"{control}/scenario/down", timeout=10).status_code == 204
    assert world.scenario == "down"
    assert requests.put(f"{control}/scenario/nonsense", timeout=10).status_code == 404
    assert requests.put(f"{control}/document", b'{"totalCost": 1}', timeout=10).status_code == 204
    assert world.document == b'{"totalCost": 1}'
    redeem(simulator)
    get(simulator, MS_RequestId="7")
    shown = requests.get(f"{control}/exchanges", timeout=10)
    assert [each["service"] for each in shown.json()] == ["entra", "entra", "partner-center"]
    assert world.canary not in shown.text
    assert len(requests.get(f"{control}/complaints", timeout=10).json()) == 1
    requests.delete(f"{control}/exchanges", timeout=10)
    assert world.exchanges == []


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
    world = World(delay=3600, drip=3600)
    arrived, failures = threading.Event(), []

    def ask(stopping: Simulator) -> None:
        try:
            get(stopping, timeout=60)
        except requests.RequestException as failure:
            failures.append(failure)

    with Simulator(world) as stopping:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", stopping.ca_bundle)
        world.faults[Service.PARTNER_CENTER] = Fault(Service.PARTNER_CENTER, delivery=delivery)
        world.observer = lambda _: arrived.set()
        thread = threading.Thread(target=ask, args=(stopping,))
        thread.start()
        assert arrived.wait(10)
        started = now()
    assert now() - started < timedelta(seconds=3)
    thread.join(10)
    assert len(failures) == 1


def test_a_person_can_start_it_and_see_what_is_asked_but_no_secret_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "dev.simulator", "--port", "0", "--scenario", "no-usage-data"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONWARNINGS": "error"},
    ) as process:
        assert process.stdout is not None
        settings: dict[str, str] = {}
        for line in process.stdout:
            name, _, value = line.strip().partition("=")
            settings[name] = value
            if line.startswith("curl "):
                break
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", settings["REQUESTS_CA_BUNDLE"])
        monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
        headers = {"X-IDENTITY-HEADER": settings["IDENTITY_HEADER"]}
        query = {"resource": "https://vault.azure.net", "api-version": "2019-08-01"}
        requests.get(settings["IDENTITY_ENDPOINT"], query, headers=headers, timeout=10)
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=10)
    assert rest.split() == ["identity", "GET", "/identity/token", "200"]
    assert process.returncode == 0
    assert not Path(settings["REQUESTS_CA_BUNDLE"]).exists()


def test_a_person_can_list_the_scenarios(capfd: pytest.CaptureFixture[str]) -> None:
    subprocess.run([sys.executable, "-m", "dev.simulator", "--list"], check=True, timeout=30)
    assert [line.split()[0] for line in capfd.readouterr().out.splitlines()] == list(SCENARIOS)
