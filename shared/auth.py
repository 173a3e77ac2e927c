"""The App+User credential: access tokens of the person who consented, renewed one redemption at a time.

No class of azure-identity redeems a refresh token, so this is one: an azure-core TokenCredential.
Source: learn.microsoft.com/partner-center/developer/partner-center-authentication, "App + User".
"""

import logging
import threading
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from random import uniform
from typing import TYPE_CHECKING, Any

from shared.clock import Clock
from shared.consent import Consent
from shared.errors import OperatorError, UpstreamTimeoutError, UsageSummaryError
from shared.events import log_failure
from shared.settings import PartnerCenterSettings

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken, TokenCredential

REDEMPTION_TIME = timedelta(seconds=20)
"""For one redemption with all its calls: vault, identity, discovery, token."""

# A token is renewed so long before it expires, if Entra says no earlier, and used until so long before, while
# renewing fails: none dies on its way.
_EXPIRY_MARGIN, _LAST_MARGIN = timedelta(minutes=5), timedelta(minutes=1)
_LEAST_TIME = timedelta(seconds=1)
_RETRY = timedelta(seconds=30)  # between renewals that fail; azure-identity's number
_OPERATORS_RETRY = timedelta(minutes=1)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, repr=False)
class _Token:
    """Instants are monotonic seconds: a wall clock may be put back; `expires_on` is for others."""

    value: str
    asked: float
    renew: float
    expires: float
    expires_on: datetime


class AppUserCredential:
    """Access tokens of the person who consented.

    Raises ConsentRequiredError when a person has to sign in again, ConfigurationError when Entra or the
    vault refuses the app, UpstreamUnavailableError and UpstreamTimeoutError when either does not answer.
    """

    def __init__(
        self, settings: PartnerCenterSettings, clock: Clock, operator: "TokenCredential | None" = None
    ) -> None:
        """The vault is used as the operator, if one is given, else as the platform's identity."""
        self._clock = clock
        self._consent = Consent(settings, clock, operator)
        self._lock = threading.Lock()
        self._flight: Future[_Token] | None = None
        self._token: _Token | None = None

    def get_token(self, *scopes: str, **options: Any) -> "AccessToken":  # noqa: ANN401  # the protocol's
        """A token that is good for 40 seconds at least; `time_allowed` (timedelta) may shorten the wait."""
        from azure.core.credentials import AccessToken

        token = self._current(scopes, options.get("time_allowed", REDEMPTION_TIME))
        return AccessToken(token.value, int(token.expires_on.timestamp()))

    def forget(self, refused: str, *, consent: bool, older_than: timedelta = timedelta()) -> None:
        """Renew a refused token at the next call, unless it has been replaced or is not as old as that.

        With `consent` the next one comes of the stored consent, which a person may have given anew.
        """
        with self._lock:
            token = self._token
            if token is None or token.value != refused:
                return
            if self._clock.monotonic() - token.asked < older_than.total_seconds():
                return
            self._token = None
            if consent:
                self._consent.forget()

    def write_back(self) -> None:
        """Store the newest refresh token if that is due: after callers have their answer, it can wait."""
        self._consent.write_back()

    def _current(self, scopes: tuple[str, ...], time_allowed: timedelta) -> _Token:
        token, now = self._token, self._clock.monotonic()
        if token is not None and now < token.renew:
            return token
        with self._lock:
            token, flight, is_mine = self._token, self._flight, False
            if token is not None and now < token.renew:
                return token
            if flight is None:
                flight = self._flight = Future()
                is_mine = True
        good = token if token is not None and now < token.expires - _LAST_MARGIN.total_seconds() else None
        if is_mine:
            return self._renew(flight, good, scopes, min(time_allowed, REDEMPTION_TIME))
        if good is not None:
            return good
        began = self._clock.monotonic()
        try:
            return flight.result(time_allowed.total_seconds())
        except TimeoutError:
            # Another caller has asked, and this one nobody.
            raise UpstreamTimeoutError("the sign-in did not end in time", asked=False) from None
        except UpstreamTimeoutError:  # whoever asked had less time
            left = time_allowed - timedelta(seconds=self._clock.monotonic() - began)
            if left < _LEAST_TIME:
                raise
        return self._current(scopes, left)

    def _renew(
        self, flight: Future[_Token], good: _Token | None, scopes: tuple[str, ...], time_allowed: timedelta
    ) -> _Token:
        """A new token or, while renewing fails, the one that is still good; for all who wait."""
        token: _Token | None = None
        failure: BaseException | None = None
        try:
            token = self._redeemed(scopes, time_allowed)
        except UsageSummaryError as error:
            failure = error
            token = None if good is None else self._kept(good, error)
        except BaseException as error:  # noqa: BLE001  # raised below
            failure = error
        with self._lock:
            self._flight = None
            if failure is not None and self._token is not good:  # it has been refused meanwhile
                token = None
            self._token = token
        if token is None:
            flight.set_exception(failure)
        else:
            flight.set_result(token)
        return flight.result()

    def _redeemed(self, scopes: tuple[str, ...], time_allowed: timedelta) -> _Token:
        asked, asked_at = self._clock.monotonic(), self._clock.now()
        tokens = self._consent.redeem(scopes, time_allowed)
        life, soonest = tokens.expires_in, min(tokens.expires_in / 2, _EXPIRY_MARGIN)
        renew_in = max(min(tokens.refresh_in or life, life - _EXPIRY_MARGIN), soonest)
        renew, expires = asked + renew_in.total_seconds(), asked + life.total_seconds()
        return _Token(tokens.access_token, asked, renew, expires, asked_at + life)

    def _kept(self, good: _Token, error: UsageSummaryError) -> _Token:
        log_failure(
            _log,
            logging.WARNING,
            "sign_in.renewal_failed",
            error,
            tokenExpiresOn=good.expires_on,
        )
        wait = _OPERATORS_RETRY if isinstance(error, OperatorError) else _RETRY * uniform(0.8, 1.2)  # noqa: S311  # jitter
        last = good.expires - _LAST_MARGIN.total_seconds()
        return replace(good, renew=min(self._clock.monotonic() + wait.total_seconds(), last))
