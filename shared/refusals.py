"""What a refusal of Entra ID means: by OAuth's `error`; the numbers, which may change, choose the hint only.

Of several numbers Entra lists the general one first and the reason last, such as 70002, then 50012. So the
last one that has a hint gives it. 70002 says no more than the word beside it, and has none.
Source: learn.microsoft.com/entra/identity-platform/reference-error-codes.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from shared.errors import (
    ConfigurationError,
    ConsentRequiredError,
    UpstreamUnavailableError,
    UsageSummaryError,
)
from shared.guids import is_guid
from shared.hints import hint
from shared.settings import ClientAuthentication, ClientCertificate, ClientManagedIdentity, ClientSecret

_CONSENT_ERRORS = {"invalid_grant", "interaction_required", "consent_required", "login_required"}
_PASSING_ERRORS = {"temporarily_unavailable", "server_error"}

# Microsoft's page lacks 500133, 70021, 700211, 700212, 700213 and 700024: their texts are those that people
# quote in public.
_PROOFS: dict[type[ClientAuthentication], dict[str, str]] = {
    ClientSecret: {
        "AADSTS50012, AADSTS7000215, invalid_client": (
            "Use the client secret's value, not its id, or create a new one."
        ),
        "AADSTS7000222": (
            "Replace the expired client secret, and set PARTNER_CENTER_CLIENT_SECRET to the new value."
        ),
        "AADSTS500133, AADSTS700024": (
            "Correct the machine's clock and try again, and run python3 -m ops consent if that does not help."
        ),
    },
    ClientCertificate: {
        "AADSTS50012, AADSTS50027, AADSTS700027, AADSTS700030, invalid_client": (
            "Upload the certificate of PARTNER_CENTER_CLIENT_CERTIFICATE_PATH to the app registration, "
            "and renew it if it has expired."
        ),
        "AADSTS500133, AADSTS700024": (
            "Correct the machine's clock and try again, since the assertion that the certificate signs "
            "is out of its time."
        ),
    },
    ClientManagedIdentity: {
        "AADSTS50012, AADSTS50027, AADSTS700027, invalid_client": (
            "Check issuer, audience and subject of the federated credential for the managed identity."
        ),
        "AADSTS70021": (
            "Add a federated credential for the managed identity to the app registration, "
            "or wait a few minutes if it is new."
        ),
        "AADSTS700211": (
            "Correct the federated credential's issuer to the authority of the identity's tenant."
        ),
        "AADSTS700212": (
            "Correct the federated credential's audience to api://AzureADTokenExchange or its cloud's own."
        ),
        "AADSTS700213": (
            "Correct the federated credential's subject to the identity's object id, not its client id."
        ),
        "AADSTS500133, AADSTS700024": (
            "Wait a few minutes for another token of the managed identity, since the one that was sent "
            "is out of its time, and check the machine's clock."
        ),
    },
}
_ADVICE = {
    kind: {code: sentence for codes, sentence in table.items() for code in codes.split(", ")}
    for kind, table in _PROOFS.items()
}
_OF_A_PROOF = {code for advice in _ADVICE.values() for code in advice}


def refusal(result: Mapping[str, Any], authentication: ClientAuthentication | None) -> UsageSummaryError:
    """The error of an answer of Entra, sorted by its OAuth `error`; with its ids for support.

    The hint fits how the app proves that it is the app: None where it need not.
    """
    error, codes = _word(result.get("error")), codes_of(result)
    ids = [
        f"{name} {result[name]}" for name in ("trace_id", "correlation_id") if is_guid(str(result.get(name)))
    ]
    message = f"Entra answered {' '.join([error, *codes])}" + (f" ({', '.join(ids)})" if ids else "")
    advice = _advice([*reversed(codes), error], authentication)
    if error in _CONSENT_ERRORS:
        return ConsentRequiredError(message, hint=advice)
    if error in _PASSING_ERRORS:
        return UpstreamUnavailableError(message, hint=advice)
    return ConfigurationError(message, hint=advice)


def codes_of(answer: object) -> list[str]:
    """The AADSTS numbers of an answer: the token endpoint lists them, a redirect has them in its text."""
    if not isinstance(answer, Mapping):
        return []
    numbers, text = answer.get("error_codes"), answer.get("error_description")
    if not isinstance(numbers, list):
        numbers = re.findall(r"AADSTS(\d+):", text) if isinstance(text, str) else []
    return [f"AADSTS{number}" for number in numbers if re.fullmatch(r"\d{1,8}", str(number), re.ASCII)]


def _advice(codes: Sequence[str], authentication: ClientAuthentication | None) -> str | None:
    """The hint for the first of these codes that has one; another proof's code counts as invalid_client."""
    if authentication is None:
        return hint(*codes)
    own = _ADVICE[type(authentication)]
    hints = (own.get(each, own["invalid_client"]) if each in _OF_A_PROOF else hint(each) for each in codes)
    return next(filter(None, hints), None)


def _word(error: object) -> str:
    """An OAuth error as it may be shown: a foreign answer may hold anything in its place."""
    return error if isinstance(error, str) and re.fullmatch(r"[a-z_]{1,40}", error) else "(unreadable)"
