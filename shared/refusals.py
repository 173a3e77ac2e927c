"""What a refusal of Entra ID means: by OAuth's `error`; the numbers, which may change, choose the hint only.

Source: learn.microsoft.com/entra/identity-platform/reference-error-codes.
"""

import re
from collections.abc import Mapping
from typing import Any

from shared.errors import (
    ConfigurationError,
    ConsentRequiredError,
    UpstreamUnavailableError,
    UsageSummaryError,
)
from shared.guids import is_guid
from shared.hints import hint

_CONSENT_ERRORS = {"invalid_grant", "interaction_required", "consent_required", "login_required"}
_PASSING_ERRORS = {"temporarily_unavailable", "server_error"}


def refusal(result: Mapping[str, Any]) -> UsageSummaryError:
    """The error of an answer of Entra, sorted by its OAuth `error`; with its ids for support."""
    error, codes = _word(result.get("error")), codes_of(result)
    ids = [
        f"{name} {result[name]}" for name in ("trace_id", "correlation_id") if is_guid(str(result.get(name)))
    ]
    message = f"Entra answered {' '.join([error, *codes])}" + (f" ({', '.join(ids)})" if ids else "")
    advice = hint(*codes, error)
    if error in _CONSENT_ERRORS:
        return ConsentRequiredError(message, hint=advice)
    if error in _PASSING_ERRORS:
        return UpstreamUnavailableError(message, hint=advice)
    return ConfigurationError(message, hint=advice)


def codes_of(answer: object) -> list[str]:
    """The AADSTS numbers of an answer: the token endpoint lists them, a redirect has one in its text."""
    if not isinstance(answer, Mapping):
        return []
    numbers, text = answer.get("error_codes"), answer.get("error_description")
    if not isinstance(numbers, list):
        numbers = re.findall(r"AADSTS(\d+)", text)[:1] if isinstance(text, str) else []
    return [f"AADSTS{number}" for number in numbers if re.fullmatch(r"\d{1,8}", str(number), re.ASCII)]


def _word(error: object) -> str:
    """An OAuth error as it may be shown: a foreign answer may hold anything in its place."""
    return error if isinstance(error, str) and re.fullmatch(r"[a-z_]{1,40}", error) else "(unreadable)"
