"""A person's consent as one process has it: the newest refresh token, and the vault's copy of it.

Each redemption gives a new refresh token, good for 90 days. The newest is kept in memory, and written back
when the stored one is a day old. The vault leads: a version that somebody else wrote, an operator after a new
sign-in or another instance, replaces what is in memory. So an old consent does not overwrite a new one, but
in the instant between reading and writing: Key Vault has no conditional write.
"""

import logging
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from shared.clock import Clock
from shared.deadlines import session_for
from shared.entra import Entra, Tokens
from shared.errors import ConsentRequiredError, UpstreamTimeoutError, UsageSummaryError
from shared.events import log_event, log_failure
from shared.identity import managed_identity
from shared.settings import GivenRefreshToken, PartnerCenterSettings, VaultSecret
from shared.vault import REFRESH_TOKEN_LIFE, StoredToken, Vault

if TYPE_CHECKING:
    import requests
    from azure.core.credentials import TokenCredential

WRITE_BACK_AGE = timedelta(days=1)
"""A stored token as old as this is replaced by the newest: 89 days are left for a write that fails."""

_WRITE_BACK_TIME = timedelta(seconds=5)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Newest:
    value: str = field(repr=False)
    issued_at: datetime


class Consent:
    """Redeems the refresh token and keeps what comes of it; one redemption or write-back at a time."""

    def __init__(
        self, settings: PartnerCenterSettings, clock: Clock, operator: "TokenCredential | None" = None
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._lock = threading.Lock()
        self._home = _home(settings, operator)
        self._newest: _Newest | None = None
        self._stored: StoredToken | None = None
        self._said = False

    def redeem(self, scopes: tuple[str, ...], time_allowed: timedelta) -> Tokens:
        """New tokens, by the newest refresh token known or, when that is refused, by the stored one.

        Raises ConsentRequiredError when a person has to sign in again, ConfigurationError when Entra or the
        vault refuses the app, UpstreamUnavailableError and UpstreamTimeoutError when either does not answer.
        """
        if not self._lock.acquire(timeout=time_allowed.total_seconds()):
            raise UpstreamTimeoutError("the vault did not answer in time", asked=False)  # another asked
        try:
            with session_for(time_allowed, self._settings.ca_bundle) as session:
                kept = self._newest
                if kept is None:
                    return self._redeem(session, self._read(session), scopes)
                try:
                    return self._redeem(session, kept.value, scopes)
                except ConsentRequiredError as error:
                    log_event(
                        _log, logging.WARNING, "refresh_token.refused", message=error.message, hint=error.hint
                    )
                    stored = self._read(session)
                    self._newest = None
                    if stored == kept.value:
                        raise
                return self._redeem(session, stored, scopes)
        finally:
            self._lock.release()

    def forget(self) -> None:
        """Redeem the stored token next: it may be of a new consent."""
        self._newest = None

    def write_back(self) -> None:
        """Store the newest refresh token if the stored one is due; a failure is a warning and no more."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            stored, newest, now = self._stored, self._newest, self._clock.now()
            vault = self._home
            if isinstance(vault, GivenRefreshToken) or stored is None or newest is None:
                return
            if now - stored.issued_at < WRITE_BACK_AGE:
                return
            try:
                self._write(vault, stored, newest)
            except UsageSummaryError as error:
                log_failure(
                    _log,
                    logging.WARNING,
                    "refresh_token.not_written_back",
                    error,
                    ageInDays=_days(now - stored.issued_at),
                    expiresOn=stored.expires_on,
                )
        finally:
            self._lock.release()

    def _write(self, vault: Vault, stored: StoredToken, newest: _Newest) -> None:
        ca_bundle = self._settings.ca_bundle
        with session_for(_WRITE_BACK_TIME, ca_bundle) as session:
            current = vault.read(session)
            if current.version != stored.version:
                self._stored, self._newest = current, _Newest(current.value, current.issued_at)
                log_event(_log, logging.INFO, "refresh_token.replaced", version=current.version)
                return
            written = vault.write(session, newest.value, newest.issued_at, {**stored.tags, "source": "app"})
        self._stored = written
        log_event(
            _log,
            logging.INFO,
            "refresh_token.written_back",
            version=written.version,
            ageInDays=_days(self._clock.now() - stored.issued_at),
        )
        with suppress(UsageSummaryError), session_for(_WRITE_BACK_TIME, ca_bundle) as session:
            vault.disable(session, stored.version)

    def _redeem(self, session: "requests.Session", refresh_token: str, scopes: tuple[str, ...]) -> Tokens:
        asked = self._clock.now()
        tokens = Entra(self._settings, session).redeem(refresh_token, *scopes)
        self._newest = _Newest(tokens.refresh_token or refresh_token, asked)
        return tokens

    def _read(self, session: "requests.Session") -> str:
        """The refresh token where it lives."""
        match self._home:
            case Vault() as vault:
                self._stored = vault.read(session)
                return self._stored.value
            case GivenRefreshToken(value):
                if not self._said:
                    log_event(
                        _log,
                        logging.WARNING,
                        "refresh_token.read_only",
                        message="PARTNER_CENTER_REFRESH_TOKEN is not renewed: it lives for 90 days",
                        expiresBefore=self._clock.now() + REFRESH_TOKEN_LIFE,
                    )
                    self._said = True
                return value


def stored_age_in_days(settings: PartnerCenterSettings, clock: Clock) -> float | None:
    """The age of the vault's refresh token; None where there is none, or the vault does not answer."""
    home = _home(settings, None)
    if isinstance(home, GivenRefreshToken):
        return None
    with suppress(UsageSummaryError), session_for(_WRITE_BACK_TIME, settings.ca_bundle) as session:
        return _days(clock.now() - home.read(session).issued_at)
    return None


def _home(settings: PartnerCenterSettings, operator: "TokenCredential | None") -> Vault | GivenRefreshToken:
    match settings.refresh_token:
        case VaultSecret() as secret:
            client_id = settings.identity_client_id
            return Vault(secret, lambda session: operator or managed_identity(client_id, session))
        case GivenRefreshToken() as given:
            return given


def _days(age: timedelta) -> float:
    return round(age / timedelta(days=1), 2)
