"""What a consent is good for, tried before it is stored: who, where, with MFA or not, with which roles."""

import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import jwt

from ops.access import PATIENCE
from ops.report import Report
from shared.client import PartnerCenterClient
from shared.clock import Clock
from shared.deadlines import session_for
from shared.entra import Tokens
from shared.errors import (
    ConfigurationError,
    ConsentRequiredError,
    UpstreamRefusedError,
    UsageSummaryError,
)
from shared.hints import hint
from shared.replies import Fetched
from shared.settings import PartnerCenterSettings
from shared.vault import StoredToken, Vault

if TYPE_CHECKING:
    import requests
    from azure.core.credentials import AccessToken

# Source: learn.microsoft.com/entra/identity/role-based-access-control/permissions-reference, "Template ID".
_NO_ROLE = "900308"
_EVERYBODYS_ROLE = "b79fbf4d-3ef9-4689-8143-76b194e85509"
_ROLES = {
    "62e90394-69f5-4237-9190-012177145e10": "Global Administrator",
    "e8611ab8-c189-46e8-94e1-60213ab1f814": "Privileged Role Administrator",
    "7be44c8a-adaf-4e2a-84d6-ab2649e08a13": "Privileged Authentication Administrator",
    "9b895d92-2cd3-44c7-9d02-a6ac2d5ea5c3": "Application Administrator",
    "fe930be7-5e62-47db-91af-98c3a49a38b1": "User Administrator",
    "b0f54661-2d74-4c50-afa3-1ec803f12efe": "Billing Administrator",
}


@dataclass(frozen=True, slots=True, repr=False)
class OneToken:
    """A credential that has this one access token."""

    value: str

    def get_token(self, *_scopes: str, time_allowed: timedelta) -> "AccessToken":  # noqa: ARG002  # the protocol's
        """The token, however old."""
        from azure.core.credentials import AccessToken

        return AccessToken(self.value, 0)

    def forget(self, refused: str, *, consent: bool, older_than: timedelta = timedelta()) -> None:
        """There is no other."""

    def write_back(self) -> None:
        """Nothing is due."""


def usage_summary(settings: PartnerCenterSettings, tokens: Tokens, *, validate_mfa: bool = False) -> Fetched:
    """What Partner Center says to a token. Raises what the client raises."""
    credential = OneToken(tokens.access_token)
    client = PartnerCenterClient(settings, credential, Clock(), validate_mfa=validate_mfa)
    return client.get_usage_summary(str(uuid.uuid4()), PATIENCE)


def claims_of(access_token: str) -> Mapping[str, Any]:
    """What an access token says, unverified: it is Partner Center's to read, and may be opaque one day."""
    try:
        claims: Mapping[str, Any] = jwt.decode(access_token, options={"verify_signature": False})
    except jwt.InvalidTokenError:
        return {}
    return claims


def texts(claim: object) -> list[str]:
    """A claim that is a list of texts; any other is none."""
    return [each for each in claim if isinstance(each, str)] if isinstance(claim, list) else []


def has_mfa(claims: Mapping[str, Any]) -> bool | None:
    """Whether an access token says that it comes of a sign-in with MFA; None where it does not say."""
    return "mfa" in texts(claims["amr"]) if isinstance(claims.get("amr"), list) else None


def check(settings: PartnerCenterSettings, tokens: Tokens, report: Report) -> tuple[str, dict[str, str]]:
    """Try a consent at Partner Center, report who gave it and what it is good for; refresh token and tags.

    Raises ConsentRequiredError when it was given without MFA, and what the client raises.
    """
    claims = claims_of(tokens.access_token)
    report.add("user", "Signed in", tokens.id_claims.get("preferred_username") or claims.get("upn"))
    report.add("tenantId", "Tenant", tokens.id_claims.get("tid") or claims.get("tid"))
    mfa, missing = has_mfa(claims), list[str]()
    try:
        fetched = usage_summary(settings, tokens, validate_mfa=True)
        mfa = mfa if fetched.is_mfa_compliant is None else fetched.is_mfa_compliant
    except ConsentRequiredError:
        mfa = False
        raise
    except UpstreamRefusedError as error:
        missing = ["Admin agent"] if error.hint == hint(_NO_ROLE) else []
        raise
    finally:
        report.add("mfa", "With MFA", mfa)
        report.add("rolesMissing", "Roles missing", [*missing])
        spare = [_ROLES.get(each, each) for each in texts(claims.get("wids")) if each != _EVERYBODYS_ROLE]
        report.add("rolesNotNeeded", "Roles not needed", [*spare])
        scopes = str(claims.get("scp", "")).split()
        spare = [each for each in scopes if each != "user_impersonation"]
        report.add("permissionsNotNeeded", "Permissions not needed", [*spare])
    if mfa is False:
        raise ConsentRequiredError("the sign-in was without MFA", hint=hint("900421"))
    has_data = fetched.no_usage_data is None
    report.add(
        "usageData", "Partner Center", has_data, said="answers" if has_data else "answers: no usage data"
    )
    if tokens.refresh_token is None:
        raise ConfigurationError("Entra gave no refresh token")
    return tokens.refresh_token, {} if mfa is None else {"mfa": "true"}


def stored(vault: Vault, session: "requests.Session") -> StoredToken | None:
    """The stored token, if there is one. Raises what the vault raises for other reasons."""
    try:
        return vault.read(session)
    except ConsentRequiredError:
        return None


def store(
    settings: PartnerCenterSettings, vault: Vault, refresh_token: str, tags: Mapping[str, str], report: Report
) -> None:
    """Store a token just issued; recover a soft-deleted secret before, disable a former version after."""
    with session_for(PATIENCE, settings.ca_bundle) as session:
        former, is_recovered = stored(vault, session), False
        if former is None:
            with suppress(ConfigurationError):  # one who may not see deleted secrets; writing tells the rest
                is_recovered = vault.recover(session)
        written = vault.write(session, refresh_token, datetime.now(UTC), tags)
    if is_recovered:
        report.add("recovered", "Recovered", value=True, said="the secret had been deleted and is back")
    report.add("version", "Stored as version", written.version)
    report.add("expiresOn", "Good until", written.expires_on, said=f"{written.expires_on:%Y-%m-%d}")
    if former is not None:
        with suppress(UsageSummaryError), session_for(PATIENCE, settings.ca_bundle) as session:
            vault.disable(session, former.version)
