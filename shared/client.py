"""Partner Center over HTTP: one call, retried inside a budget, its answers translated.

GET {base}/v1/usagesummary. Sources: learn.microsoft.com/partner-center/developer/get-a-partner-usage-summary,
…/developer/headers, …/developer/error-codes, …/developer/api-throttling-guidance.
"""

import logging
import math
import uuid
from datetime import timedelta
from http import HTTPStatus
from random import uniform
from typing import TYPE_CHECKING, Protocol

import requests

from shared.clock import Clock
from shared.deadlines import CONNECT_TIMEOUT, session_for
from shared.errors import (
    UpstreamInvalidError,
    UpstreamTimeoutError,
    UpstreamUnavailableError,
    UsageSummaryError,
)
from shared.events import log_failure
from shared.replies import NO_MFA, Fetched, Response, broke_off, read_reply, reply_of
from shared.settings import PartnerCenterSettings
from shared.usage_summary import SIZE_LIMIT

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken

ATTEMPT_TIME = timedelta(seconds=45)
"""For one attempt: an answer of 40 seconds still comes through."""

_ATTEMPTS = 4
_FORBIDDEN_TOKEN_KEPT = timedelta(minutes=1)  # Entra takes a storm of redemptions for a loop
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 5.0  # seconds; a longer Retry-After is left to the next refresh
_CHUNK = 64 * 1024

_log = logging.getLogger(__name__)


class Credential(Protocol):
    """Where access tokens come from, such as AppUserCredential."""

    def get_token(self, *scopes: str, time_allowed: timedelta) -> "AccessToken":
        """A token that is good for some minutes."""

    def forget(self, refused: str, *, consent: bool, older_than: timedelta = ...) -> None:
        """Give another token next, if there is one; with `consent`, of what a person has consented anew."""

    def write_back(self) -> None:
        """Do what can wait until callers have their answer."""


class PartnerCenterClient:
    """The usage summary of the partner whose App+User token the credential gives."""

    def __init__(
        self,
        settings: PartnerCenterSettings,
        credential: Credential,
        clock: Clock,
        *,
        validate_mfa: bool = False,
    ) -> None:
        self._url = f"{settings.cloud.base_url}/v1/usagesummary"
        self._scope = f"{settings.cloud.resource}/.default"
        self._ca_bundle = settings.ca_bundle
        self._credential = credential
        self._clock = clock
        self._token: str | None = None  # the last attempt's
        self._more_headers = {"ValidateMfa": "true"} if validate_mfa else {}

    def get_usage_summary(self, correlation_id: str, time_allowed: timedelta) -> Fetched:
        """The usage summary, or that there is none; sign-in, retries and waits end within the time allowed.

        Raises UpstreamRefusedError, UpstreamInvalidError, UpstreamUnavailableError, UpstreamTimeoutError,
        ConsentRequiredError for a token without MFA, and whatever the credential raises.
        """
        ends = self._clock.monotonic() + time_allowed.total_seconds()
        request_id, attempt, renewed, asked = str(uuid.uuid4()), 1, False, False
        while True:
            response, sent = None, None
            try:
                left = _time_for_an_attempt(ends - self._clock.monotonic())
                token = self._sign_in(left, attempt, correlation_id)
                asked, self._token = asked or token != self._token, token  # a new one: Entra was asked
                now = self._clock.monotonic()
                left, sent = _time_for_an_attempt(ends - now), now
                response = self._exchange(token, request_id, correlation_id, left)
                reply = reply_of(response, request_id)
                without_mfa = reply.code in NO_MFA
                if reply.status == HTTPStatus.UNAUTHORIZED:
                    self._credential.forget(token, consent=without_mfa)
                elif reply.status == HTTPStatus.FORBIDDEN:  # another person may consent, who has the role
                    self._credential.forget(token, consent=True, older_than=_FORBIDDEN_TOKEN_KEPT)
                if renewed or without_mfa or reply.status != HTTPStatus.UNAUTHORIZED:
                    return read_reply(response, reply, correlation_id, sent)
                renewed, asked, wait = True, True, 0.0
            except (UpstreamInvalidError, UpstreamUnavailableError, UpstreamTimeoutError) as error:
                wait = _wait(attempt, error, response)
                last = (
                    attempt == _ATTEMPTS or wait > _LONGEST_WAIT or self._clock.monotonic() + wait + 1 > ends
                )
                if sent is not None:
                    _log_failure(error, response, attempt, request_id, correlation_id)
                if last:
                    error.asked = asked or error.asked
                    raise
                attempt, asked = attempt + 1, asked or error.asked
            # MS-RequestId makes a call idempotent: the same after a time-out, a new one after any response.
            request_id = request_id if response is None else str(uuid.uuid4())
            self._clock.sleep(wait)

    def settle(self) -> None:
        """Do what can wait until callers have their answer: write the refresh token back if that is due."""
        self._credential.write_back()

    def _sign_in(self, time_allowed: timedelta, attempt: int, correlation_id: str) -> str:
        try:
            return self._credential.get_token(self._scope, time_allowed=time_allowed).token
        except (UpstreamUnavailableError, UpstreamTimeoutError) as error:
            values = {"attempt": attempt, "correlationId": correlation_id}
            log_failure(_log, logging.WARNING, "sign_in.failed", error, **values)
            raise

    def _exchange(
        self, token: str, request_id: str, correlation_id: str, time_allowed: timedelta
    ) -> Response:
        def authorize(request: requests.PreparedRequest) -> requests.PreparedRequest:
            request.headers["Authorization"] = f"Bearer {token}"
            return request

        headers = {
            "Accept": "application/json",
            "MS-Contract-Version": "v1",
            "MS-CorrelationId": correlation_id,
            "MS-PartnerCenter-Application": "partner-center-usage-summary",
            "MS-RequestId": request_id,
            **self._more_headers,
        }
        with (
            session_for(time_allowed, self._ca_bundle) as session,
            session.get(
                self._url,
                headers=headers,
                auth=authorize,  # not a header: a .netrc entry would replace it
                allow_redirects=False,
                stream=True,
                timeout=(CONNECT_TIMEOUT, None),  # the session's own deadline ends it
            ) as response,
        ):
            has_length = response.raw.chunked or response.raw.length_remaining is not None
            body, is_whole = bytearray(), has_length or None
            try:
                for chunk in response.iter_content(_CHUNK):
                    body += chunk
                    if len(body) > SIZE_LIMIT + _CHUNK:
                        break
            except requests.exceptions.ContentDecodingError:
                body.clear()  # a cut damages no gzip: it was sent like this, and is no document
            except requests.RequestException:
                is_whole = False
            return Response(response.status_code, response.headers, bytes(body), is_whole)


def _time_for_an_attempt(left: float) -> timedelta:
    if left <= 0:
        raise UpstreamTimeoutError("no time was left to ask Partner Center", asked=False)
    return min(ATTEMPT_TIME, timedelta(seconds=left))


def _wait(attempt: int, error: UsageSummaryError, response: Response | None) -> float:
    """Seconds until the next attempt: what the upstream asks for, else doubling, with jitter."""
    if isinstance(error, UpstreamInvalidError) and response is not None and not broke_off(response):
        return math.inf  # a whole answer that is no document would come again
    doubled = _FIRST_WAIT * 2.0 ** (attempt - 1)
    asked = error.retry_after.total_seconds() if error.retry_after else 0.0
    return max(uniform(doubled / 2, doubled), asked)  # noqa: S311  # jitter


def _log_failure(
    error: UsageSummaryError, response: Response | None, attempt: int, request_id: str, correlation_id: str
) -> None:
    headers = response.headers if response else {}
    log_failure(
        _log,
        logging.WARNING,
        "upstream.attempt_failed",
        error,
        attempt=attempt,
        requestId=request_id if error.asked else None,  # without a thread it was never sent
        correlationId=correlation_id,
        # what Microsoft's support asks for
        msCv=headers.get("MS-CV"),
        msServerId=headers.get("MS-ServerId"),
    )
