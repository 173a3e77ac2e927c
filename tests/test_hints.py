"""Hints: a sentence a code, that says what the operator does."""

import re

import pytest

from shared.hints import _HINTS, _ROWS, hint
from shared.refusals import _ADVICE

OF_PROOFS = [sentence for advice in _ADVICE.values() for sentence in advice.values()]
SENTENCES = list(dict.fromkeys([*_HINTS.values(), *OF_PROOFS]))
VERBS = (
    "Accept|Add|Admit|Assign|Check|Correct|Create|Enable|Exempt|Give|Grant|Have|Reach|Read|Recover|Register"
    "|Rehydrate|Replace|Run|Set|Stop|Unlock|Upload|Use|Wait"
)


@pytest.mark.parametrize("sentence", SENTENCES)
def test_a_hint_is_one_short_plain_sentence(sentence: str) -> None:
    assert sentence.isascii()
    assert sentence.isprintable()  # which a line break is not
    assert sentence.index(".") == len(sentence) - 1
    assert sentence == " ".join(sentence.split())
    assert len(sentence) <= 200


@pytest.mark.parametrize("sentence", SENTENCES)
def test_a_hint_names_an_act(sentence: str) -> None:
    assert re.match(rf"({VERBS}) ", sentence)


@pytest.mark.parametrize("sentence", SENTENCES)
def test_a_hint_repeats_no_code(sentence: str) -> None:
    assert set(re.findall(r"\d{4,}", sentence)) <= {"8400"}
    assert "AADSTS" not in sentence


def test_no_code_stands_twice() -> None:
    codes = [code for code, _ in _ROWS]
    assert sorted(codes) == sorted(_HINTS)


@pytest.mark.parametrize("code", [*_HINTS, *sorted({code for advice in _ADVICE.values() for code in advice})])
def test_a_code_is_written_as_its_service_writes_it(code: str) -> None:
    assert re.fullmatch(r"AADSTS\d{5,7}|\d{3,6}|HTTP 4\d\d|[a-z]+(_[a-z]+)+|([A-Z][a-z]+){2,}", code)


def test_the_common_codes_are_covered() -> None:
    assert sum(bool(re.fullmatch(r"(AADSTS)?\d+", code)) for code in _HINTS) >= 50


def test_the_first_known_code_of_several_gives_the_hint() -> None:
    assert hint(None, "AADSTS1", "AADSTS50076", "invalid_grant") == hint("AADSTS50076")
    assert hint("invalid_grant", "AADSTS50076") == hint("invalid_grant")
    assert hint("AADSTS50076") != hint("invalid_grant")


def test_an_unknown_code_has_no_hint() -> None:
    assert hint() is None
    assert hint(None, "", "AADSTS1", "HTTP 418", "3000") is None


def test_a_number_means_what_its_service_means() -> None:
    assert hint("50076") is None
    assert hint("AADSTS900421") is None
    assert hint("401") is None


@pytest.mark.parametrize(
    ("codes", "word"),
    [
        ("AADSTS50074, AADSTS50076, AADSTS50078, 10001, 900421", "MFA"),
        ("AADSTS50072, AADSTS50079, AADSTS530035", "Register an MFA method"),
        ("AADSTS70043", "sign-in frequency"),
        ("AADSTS50173", "password reset"),
        ("AADSTS70008, AADSTS700082", "written back"),
        ("AADSTS70000, AADSTS700007", "PARTNER_CENTER_CLIENT_ID"),
        ("AADSTS50089, AADSTS54005, invalid_grant, interaction_required, login_required", "ops consent"),
        ("AADSTS53000, AADSTS53001, AADSTS53003, AADSTS530032, 900309", "Conditional Access"),
        ("AADSTS50105", "Assign"),
        ("AADSTS65001, AADSTS90094, consent_required", "admin consent"),
        ("AADSTS65004, access_denied", "Accept"),
        ("AADSTS65005, AADSTS650057", "user_impersonation"),
        ("AADSTS500011, AADSTS650052, invalid_resource", "Microsoft Partner Center"),
        ("AADSTS700016, AADSTS700011, unauthorized_client", "PARTNER_CENTER_CLIENT_ID"),
        ("AADSTS7000112, AADSTS70001", "Enable the app"),
        ("AADSTS50011, AADSTS500113, AADSTS700084", "redirect"),
        ("AADSTS90002, AADSTS900023, AADSTS50059", "PARTNER_CENTER_TENANT_ID"),
        ("AADSTS90038, AADSTS900382, AADSTS900432, 900420", "PARTNER_CENTER_CLOUD"),
        ("AADSTS50020, AADSTS50034, AADSTS50177, AADSTS90072", "guest"),
        ("AADSTS7000218", "PARTNER_CENTER_CLIENT_MANAGED_IDENTITY"),
        ("AADSTS50053, AADSTS50055, AADSTS50057, AADSTS50144", "service account"),
        ("AADSTS50126", "password"),
        ("AADSTS50196", "loop"),
        ("AADSTS90006, AADSTS90024, temporarily_unavailable, server_error, HTTP 429", "Wait"),
        ("AADSTS70011, AADSTS901002, invalid_scope", "scope"),
        ("AADSTS9002313, invalid_request, unsupported_grant_type", "report a defect"),
        ("2032, 900150, 900308, HTTP 403", "Admin agent"),
        ("HTTP 401", "App management"),
        ("HTTP 403", "indirect resellers"),
        ("HTTP 404, 60003", "PARTNER_CENTER_TENANT_ID"),
        ("900329", "app alone"),
        ("900124", "Microsoft Partner Agreement"),
        ("900149", "active"),
        ("90000", "sign-in log"),
        ("ForbiddenByRbac", "role"),
        ("ForbiddenByPolicy", "access policies"),
        ("ForbiddenByFirewall", "firewall"),
        ("ForbiddenByConnection", "private endpoint"),
        ("SecretDisabled", "Enable"),
        ("ObjectIsDeletedButRecoverable", "Recover"),
        ("AuthorizationPermissionMismatch", "Storage Blob Data Contributor"),
        ("AuthorizationFailure", "storage account's networking"),
        ("AuthenticationFailed", "connection string"),
        ("KeyBasedAuthenticationNotPermitted", "USAGE_STORAGE__blobServiceUri"),
        ("BlobArchived", "online tier"),
        ("ClientAuthenticationError, CredentialUnavailableError", "managed identity"),
    ],
)
def test_a_hint_speaks_of_what_is_wrong(codes: str, word: str) -> None:
    for code in codes.split(", "):
        assert word in (hint(code) or ""), code
