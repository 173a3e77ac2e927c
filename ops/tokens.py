"""The stored refresh token: how old it is, renewed at once, or brought from elsewhere. Never shown."""

from datetime import UTC, datetime, timedelta

from ops.access import (
    PATIENCE,
    partner_center_settings,
    read_secret,
    vault_of,
    with_client_secret,
)
from ops.checks import check, claims_of, has_mfa, store
from ops.report import Report
from shared.consent import WRITE_BACK_AGE
from shared.deadlines import session_for
from shared.entra import Entra
from shared.errors import ConfigurationError, ConsentRequiredError
from shared.hints import hint

_SOURCES = {
    "app": "written back by the app",
    "consent": "python3 -m ops consent",
    "rotate": "python3 -m ops token rotate",
    "import": "python3 -m ops token import",
}
_MFA = {"true": True, "false": False}
_DAY = timedelta(days=1)


def status(report: Report) -> None:
    """Report on the stored token. Raises ConsentRequiredError when there is none or its life is over."""
    settings = partner_center_settings()
    vault, address = vault_of(settings)
    with session_for(PATIENCE, settings.ca_bundle) as session:
        token = vault.read(session)
    now = datetime.now(UTC)
    source = token.tags.get("source", "")
    due = token.issued_at + WRITE_BACK_AGE
    age, left = (now - token.issued_at) / _DAY, (token.expires_on - now) / _DAY
    report.add("secret", "Refresh token", address)
    report.add("version", "Version", token.version)
    report.add("source", "Stored by", source or None, said=_SOURCES.get(source, "unknown"))
    report.add("lastUse", "Last use known", token.issued_at)
    report.add("ageInDays", "Age", round(age, 2), said=f"{age:.1f} days")
    report.add("expiresOn", "Expires", token.expires_on)
    report.add("daysLeft", "Left", round(left, 2), said=f"{left:.1f} days")
    mfa = _MFA.get(token.tags.get("mfa", ""))
    report.add("mfa", "With MFA", mfa, said="unknown" if mfa is None else None)
    when = "due: when the app next signs in" if due <= now else None
    report.add("nextWriteBack", "Next write-back", due, said=when)
    if left <= 0:
        raise ConsentRequiredError("the stored refresh token has expired", hint=hint("AADSTS700082"))


def rotate(report: Report) -> None:
    """Redeem the stored token once and store what comes of it."""
    settings = partner_center_settings()
    vault, address = vault_of(settings)
    settings = with_client_secret(settings)
    with session_for(PATIENCE, settings.ca_bundle) as session:
        token = vault.read(session)
        tokens = Entra(settings, session).redeem(token.value, f"{settings.cloud.resource}/.default")
    if tokens.refresh_token is None:
        raise ConfigurationError("Entra gave no refresh token")
    report.add("secret", "Refresh token", address)
    claims = claims_of(tokens.access_token)
    tags = {**token.tags, "source": "rotate"}
    mfa = has_mfa(claims)
    if mfa is not None:
        tags["mfa"] = str(mfa).lower()
    store(settings, vault, tokens.refresh_token, tags, report)
    report.add("mfa", "With MFA", _MFA.get(tags.get("mfa", "")))


def import_token(report: Report) -> None:
    """Redeem a token from standard input, try it at Partner Center, and store what comes of it."""
    settings = partner_center_settings()
    vault, address = vault_of(settings)
    given = read_secret("Refresh token")
    if not given:
        raise ConfigurationError("there is no refresh token on standard input")
    settings = with_client_secret(settings)
    with session_for(PATIENCE, settings.ca_bundle) as session:
        tokens = Entra(settings, session).redeem(given, f"{settings.cloud.resource}/.default")
    report.add("secret", "Refresh token", address)
    refresh_token, tags = check(settings, tokens, report)
    store(settings, vault, refresh_token, {**tags, "source": "import"}, report)
