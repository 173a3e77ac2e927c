import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from shared.errors import (
    ConfigurationError,
    ConsentRequiredError,
    UpstreamUnavailableError,
    UsageSummaryError,
)
from shared.problems import PROBLEMS
from shared.refusals import _ADVICE, _OF_A_PROOF, codes_of, refusal
from shared.settings import ClientAuthentication, ClientCertificate, ClientManagedIdentity, ClientSecret

CONSENT, CONFIGURATION, UNAVAILABLE = ConsentRequiredError, ConfigurationError, UpstreamUnavailableError
SECRET, CERTIFICATE = ClientSecret("secret"), ClientCertificate("app.pfx")
IDENTITY = ClientManagedIdentity(str(uuid4()))
OF_A_CERTIFICATE, OF_AN_IDENTITY = {50012, 700027}, {70021, 700211, 700212, 700213}
STATUSES = {CONSENT: 502, CONFIGURATION: 500, UNAVAILABLE: 503}

# (AADSTS number, OAuth error) as Entra sends them -> class, a word of the hint
REFUSED: list[tuple[int, str, type[UsageSummaryError], str]] = [
    (50053, "invalid_grant", CONSENT, "Unlock"),
    (50055, "invalid_grant", CONSENT, "password"),
    (50057, "invalid_grant", CONSENT, "Enable"),
    (50072, "interaction_required", CONSENT, "Register an MFA method"),
    (50074, "interaction_required", CONSENT, "MFA"),
    (50076, "interaction_required", CONSENT, "MFA"),
    (50076, "invalid_grant", CONSENT, "MFA"),
    (50078, "invalid_grant", CONSENT, "MFA"),
    (50079, "interaction_required", CONSENT, "MFA"),
    (50173, "invalid_grant", CONSENT, "password reset"),
    (53000, "interaction_required", CONSENT, "Conditional Access"),
    (53003, "invalid_grant", CONSENT, "outbound address"),
    (530032, "invalid_grant", CONSENT, "Conditional Access"),
    (530035, "interaction_required", CONSENT, "MFA"),
    (65001, "invalid_grant", CONSENT, "admin consent"),
    (65001, "consent_required", CONSENT, "admin consent"),
    (70000, "invalid_grant", CONSENT, "damaged"),
    (700007, "invalid_grant", CONSENT, "PARTNER_CENTER_CLIENT_ID"),
    (70008, "invalid_grant", CONSENT, "python3 -m ops consent"),
    (700082, "invalid_grant", CONSENT, "90 days"),
    (700084, "invalid_grant", CONSENT, "platform Web"),
    (70043, "invalid_grant", CONSENT, "sign-in frequency"),
    (50020, "invalid_grant", CONSENT, "guest"),
    (50034, "invalid_grant", CONSENT, "tenant"),
    (700082, "login_required", CONSENT, "90 days"),
    (50012, "invalid_client", CONFIGURATION, "certificate"),
    (650057, "invalid_resource", CONFIGURATION, "user_impersonation"),
    (500011, "invalid_resource", CONFIGURATION, "Microsoft Partner Center"),
    (700016, "unauthorized_client", CONFIGURATION, "PARTNER_CENTER_TENANT_ID"),
    (7000112, "unauthorized_client", CONFIGURATION, "Enable the app"),
    (90002, "invalid_request", CONFIGURATION, "PARTNER_CENTER_TENANT_ID"),
    (90038, "invalid_request", CONFIGURATION, "PARTNER_CENTER_CLOUD"),
    (900382, "invalid_request", CONFIGURATION, "PARTNER_CENTER_CLOUD"),
    (7000215, "invalid_client", CONFIGURATION, "not its id"),
    (7000218, "invalid_client", CONFIGURATION, "PARTNER_CENTER_CLIENT_SECRET"),
    (7000222, "invalid_client", CONFIGURATION, "expired"),
    (70021, "invalid_client", CONFIGURATION, "federated credential"),
    (700211, "invalid_client", CONFIGURATION, "issuer"),
    (700212, "invalid_client", CONFIGURATION, "audience"),
    (700213, "invalid_client", CONFIGURATION, "subject"),
    (700024, "invalid_client", CONFIGURATION, "clock"),
    (700027, "invalid_client", CONFIGURATION, "certificate"),
    (50196, "invalid_request", CONFIGURATION, "loop"),
    (901002, "invalid_request", CONFIGURATION, "scope"),
    (70011, "invalid_scope", CONFIGURATION, "scope"),
    (90033, "temporarily_unavailable", UNAVAILABLE, "Wait"),
    (90024, "server_error", UNAVAILABLE, "Wait"),
    # numbers of tomorrow: sorted by the OAuth error, which has a hint of its own
    (99999999, "invalid_grant", CONSENT, "python3 -m ops consent"),
    (99999999, "interaction_required", CONSENT, "python3 -m ops consent"),
    (99999999, "invalid_client", CONFIGURATION, "client secret"),
    (99999999, "temporarily_unavailable", UNAVAILABLE, "Wait"),
]


def body(number: int, error: str) -> dict[str, Any]:
    """A token endpoint's refusal."""
    return {
        "error": error,
        "error_description": f"AADSTS{number}: What happened. Trace ID: … Correlation ID: … Timestamp: …",
        "error_codes": [number],
        "timestamp": "2026-11-21 10:00:00Z",
        "trace_id": str(uuid4()),
        "correlation_id": str(uuid4()),
    }


@pytest.mark.parametrize(("number", "error", "kind", "word"), REFUSED)
def test_a_refusal_is_sorted_by_its_oauth_error_and_hinted_by_its_number(
    number: int, error: str, kind: type[UsageSummaryError], word: str
) -> None:
    answer = body(number, error)
    proofs: list[ClientAuthentication] = [SECRET, CERTIFICATE, IDENTITY]
    proof = proofs[(number in OF_A_CERTIFICATE) + 2 * (number in OF_AN_IDENTITY)]
    refused = refusal(answer, proof)
    assert (type(refused), PROBLEMS[type(refused)].status) == (kind, STATUSES[kind])
    assert word in (refused.hint or "")
    ids = f"(trace_id {answer['trace_id']}, correlation_id {answer['correlation_id']})"
    assert refused.message == f"Entra answered {error} AADSTS{number} {ids}"
    assert type(refusal(body(number, "invalid_grant"), proof)) is CONSENT  # whatever the number


GENERAL_FIRST = [  # as people quote them in public
    ([70002, 50012], "invalid_client", "client secret"),
    ([70002, 50126], "invalid_grant", "password"),
    ([70002, 70008], "invalid_grant", "90 days"),
    ([70002, 54005], "invalid_grant", "without a pause"),
    ([70002, 16000], "invalid_grant", "own tenant"),
    ([70002, 500133], "invalid_grant", "clock"),
    # the last one that has a hint
    ([70002, 50076, 99999999], "invalid_grant", "MFA"),
    ([50076, 53003], "interaction_required", "Conditional Access"),
    # whatever its place, 70002 says no more than the word
    ([50126, 70002], "invalid_grant", "password"),
    ([70002], "invalid_client", "client secret"),
    ([70002], "invalid_grant", "no longer accepted"),
]


@pytest.mark.parametrize(("numbers", "error", "word"), GENERAL_FIRST)
def test_of_several_numbers_the_most_specific_has_the_hint(numbers: list[int], error: str, word: str) -> None:
    assert word in (refusal({"error": error, "error_codes": numbers}, SECRET).hint or "")
    text = " ".join(f"AADSTS{number}: What happened." for number in numbers)
    assert word in (refusal({"error": error, "error_description": text}, SECRET).hint or "")


@pytest.mark.parametrize(
    ("proof", "word", "others"),
    [
        (SECRET, "ops consent", ["certificate", "identity"]),
        (CERTIFICATE, "certificate", ["secret", "identity"]),
        (IDENTITY, "managed identity", ["secret", "certificate"]),
    ],
)
def test_an_assertion_out_of_its_time_has_the_advice_for_the_client_authentication_in_use(
    proof: ClientAuthentication, word: str, others: list[str]
) -> None:
    field = Path(__file__).parent / "field" / "entra" / "invalid_grant-70002-500133.json"
    refused = refusal(json.loads(field.read_bytes()), proof)
    assert type(refused) is CONSENT
    assert refused.message.startswith("Entra answered invalid_grant AADSTS70002 AADSTS500133 (trace_id ")
    advice = refused.hint or ""
    assert "clock" in advice
    assert word in advice
    assert [other for other in others if other in advice] == []


@pytest.mark.parametrize("code", sorted(_OF_A_PROOF - {"invalid_client"}))
@pytest.mark.parametrize(
    ("proof", "foreign"),
    [
        (SECRET, ["certificate", "federated"]),
        (CERTIFICATE, ["secret", "SECRET", "federated", "identity"]),
        (IDENTITY, ["secret", "SECRET", "certificate", "CERTIFICATE"]),
    ],
)
def test_no_advice_speaks_of_a_client_authentication_that_is_not_in_use(
    code: str, proof: ClientAuthentication, foreign: list[str]
) -> None:
    advice = refusal({"error": "invalid_client", "error_codes": [code.removeprefix("AADSTS")]}, proof).hint
    assert advice
    assert [word for word in foreign if word in advice] == []
    if code not in _ADVICE[type(proof)]:
        assert advice == refusal({"error": "invalid_client"}, proof).hint


def test_a_client_that_need_not_authenticate_has_no_advice_on_that() -> None:
    assert refusal({"error": "invalid_client", "error_codes": [7000215]}, None).hint is None
    assert refusal({"error": "access_denied", "error_codes": [65004]}, None).hint is not None


def test_a_refusal_tells_all_its_numbers_and_of_a_text_those_that_head_a_sentence() -> None:
    assert refusal({"error": "invalid_grant", "error_codes": [50076, 50079]}, SECRET).message == (
        "Entra answered invalid_grant AADSTS50076 AADSTS50079"
    )
    assert codes_of({"error_description": "AADSTS70002: Error. AADSTS500133: As AADSTS1 is."}) == [
        "AADSTS70002",
        "AADSTS500133",
    ]
    text = "AADSTS50076: Because of AADSTS50079 and AADSTS\N{FULLWIDTH DIGIT ONE}"
    assert refusal({"error": "invalid_grant", "error_description": text}, SECRET).message == (
        "Entra answered invalid_grant AADSTS50076"
    )
    digits = {"error": "invalid_grant", "error_codes": ["\N{FULLWIDTH DIGIT ONE}", 123456789, 7]}
    assert refusal(digits, SECRET).message == "Entra answered invalid_grant AADSTS7"
    assert refusal({"error": "NOT SO"}, SECRET).message == "Entra answered (unreadable)"


def test_an_error_of_tomorrow_is_a_configuration_fault_without_a_hint() -> None:
    refused = refusal(body(99999999, "an_error_of_tomorrow"), SECRET)
    assert (type(refused), refused.hint) == (CONFIGURATION, None)


def test_a_redirect_has_its_number_in_the_text_only() -> None:
    refused = refusal(
        {"error": "access_denied", "error_description": "AADSTS65004: User declined to consent"}, SECRET
    )
    assert refused.message == "Entra answered access_denied AADSTS65004"
    assert refused.hint is not None


@pytest.mark.parametrize(
    "secret", ["1.AXkA0000.secret", "x" * 300, "two\nlines", "", None, 7.5, ["a"], {"a": "b"}]
)
def test_nothing_of_a_strange_refusal_is_repeated(secret: object) -> None:
    for name in ("error", "error_description", "trace_id", "correlation_id", "error_codes", "suberror"):
        answer = {"error": "invalid_grant", name: secret}
        message = refusal(answer, SECRET).message
        assert "secret" not in message
        assert json.dumps(secret) not in message
        assert "\n" not in message
    assert (
        refusal({"error": "invalid_grant", "error_codes": [secret]}, SECRET).message
        == "Entra answered invalid_grant"
    )
