"""Partner Center over HTTP: one call, retried inside a budget, its answers translated.

GET {base}/v1/usagesummary. Sources: learn.microsoft.com/partner-center/developer/get-a-partner-usage-summary,
…/developer/headers, …/developer/error-codes, …/developer/api-throttling-guidance.
"""

import json
import logging
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from random import uniform
from typing import TYPE_CHECKING, Protocol

import requests

from shared.clock import Clock
from shared.deadlines import CONNECT_TIMEOUT, retry_after, session_for
from shared.errors import (
    ConsentRequiredError,
    UpstreamInvalidError,
    UpstreamRefusedError,
    UpstreamReply,
    UpstreamTimeoutError,
    UpstreamUnavailableError,
    UsageSummaryError,
)
from shared.events import log_failure
from shared.guids import is_guid
from shared.hints import hint
from shared.settings import PartnerCenterSettings
from shared.usage_summary import SIZE_LIMIT, read_usage_summary

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken

ATTEMPT_TIME = timedelta(seconds=45)
"""For one attempt: an answer of 40 seconds still comes through."""

_ATTEMPTS = 4
_FORBIDDEN_TOKEN_KEPT = timedelta(minutes=1)  # Entra takes a storm of redemptions for a loop
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 5.0  # seconds; a longer Retry-After is left to the next refresh
_ERROR_BODY_LIMIT = 64 * 1024
_CHUNK = 64 * 1024

_NO_USAGE_DATA = "3000"
_NO_MFA = {"900421", "10001"}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer: a usage summary, or the reply which says that this partner has no usage data.

    `sent` is when the call that fetched it was sent, in monotonic seconds. Whether the token comes of a
    sign-in with MFA is known where that was asked.
    """

    body: bytes
    no_usage_data: UpstreamReply | None
    request_id: str
    correlation_id: str
    sent: float
    is_mfa_compliant: bool | None = None


class Credential(Protocol):
    """Where access tokens come from, such as AppUserCredential."""

    def get_token(self, *scopes: str, time_allowed: timedelta) -> "AccessToken":
        """A token that is good for some minutes."""

    def forget(self, refused: str, *, consent: bool, older_than: timedelta = ...) -> None:
        """Give another token next, if there is one; with `consent`, of what a person has consented anew."""

    def write_back(self) -> None:
        """Do what can wait until callers have their answer."""


@dataclass(frozen=True, slots=True)
class _Response:
    status: int
    headers: Mapping[str, str]
    body: bytes
    is_whole: bool


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
        self._more_headers = {"ValidateMfa": "true"} if validate_mfa else {}

    def get_usage_summary(self, correlation_id: str, time_allowed: timedelta) -> Fetched:
        """The usage summary, or that there is none; sign-in, retries and waits end within the time allowed.

        Raises UpstreamRefusedError, UpstreamInvalidError, UpstreamUnavailableError, UpstreamTimeoutError,
        ConsentRequiredError for a token without MFA, and whatever the credential raises.
        """
        ends = self._clock.monotonic() + time_allowed.total_seconds()
        request_id, attempt, renewed = str(uuid.uuid4()), 1, False
        while True:
            response = None
            try:
                token = self._credential.get_token(self._scope, time_allowed=self._left(ends)).token
                sent = self._clock.monotonic()
                response = self._exchange(token, request_id, correlation_id, self._left(ends))
                reply = _reply(response, request_id)
                without_mfa = reply.code in _NO_MFA
                if reply.status == HTTPStatus.UNAUTHORIZED:
                    self._credential.forget(token, consent=without_mfa)
                elif reply.status == HTTPStatus.FORBIDDEN:  # another person may consent, who has the role
                    self._credential.forget(token, consent=True, older_than=_FORBIDDEN_TOKEN_KEPT)
                if renewed or without_mfa or reply.status != HTTPStatus.UNAUTHORIZED:
                    body, no_usage_data = _read(response, reply)
                    compliant = response.headers.get("isMfaCompliant", "").lower()
                    return Fetched(
                        body,
                        no_usage_data,
                        reply.request_id or request_id,
                        correlation_id,
                        sent,
                        compliant == "true" if compliant else None,
                    )
                renewed, wait = True, 0.0
            except (UpstreamInvalidError, UpstreamUnavailableError, UpstreamTimeoutError) as error:
                wait = _wait(attempt, error)
                last = (
                    attempt == _ATTEMPTS or wait > _LONGEST_WAIT or self._clock.monotonic() + wait + 1 > ends
                )
                _log_failure(error, response, attempt, request_id, correlation_id)
                if last:
                    raise
                attempt += 1
            # MS-RequestId makes a call idempotent: the same after a time-out, a new one after any response.
            request_id = request_id if response is None else str(uuid.uuid4())
            self._clock.sleep(wait)

    def settle(self) -> None:
        """Do what can wait until callers have their answer: write the refresh token back if that is due."""
        self._credential.write_back()

    def _left(self, ends: float) -> timedelta:
        left = ends - self._clock.monotonic()
        if left <= 0:
            raise UpstreamTimeoutError("no time was left to ask Partner Center")
        return min(ATTEMPT_TIME, timedelta(seconds=left))

    def _exchange(
        self, token: str, request_id: str, correlation_id: str, time_allowed: timedelta
    ) -> _Response:
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
            body, is_whole = bytearray(), True
            try:
                for chunk in response.iter_content(_CHUNK):
                    body += chunk
                    if len(body) > SIZE_LIMIT + _CHUNK:
                        break
            except requests.RequestException:
                is_whole = False
            return _Response(response.status_code, response.headers, bytes(body), is_whole)


def _wait(attempt: int, error: UsageSummaryError) -> float:
    """Seconds until the next attempt: what the upstream asks for, else doubling, with jitter."""
    doubled = _FIRST_WAIT * 2.0 ** (attempt - 1)
    asked = error.retry_after.total_seconds() if error.retry_after else 0.0
    return max(uniform(doubled / 2, doubled), asked)  # noqa: S311  # jitter


def _read(response: _Response, reply: UpstreamReply) -> tuple[bytes, UpstreamReply | None]:
    """The usage summary's body, or the reply that says there is none; source: …/developer/error-codes."""
    status, code = reply.status, reply.code
    said = f"Partner Center answered {status}" + (f" with code {code}" if code else "")
    if 200 <= status < 300:  # noqa: PLR2004  # HTTP's
        if not response.is_whole:
            raise UpstreamInvalidError("the answer broke off", reply=reply)
        try:
            return read_usage_summary(response.body).body, None
        except UpstreamInvalidError as error:
            raise UpstreamInvalidError(error.message, reply=reply) from None
    if status in (400, 404) and code == _NO_USAGE_DATA:
        return b"", reply
    if status == 401 and code in _NO_MFA:  # noqa: PLR2004  # HTTP's
        raise ConsentRequiredError(f"{said}: the consent was given without MFA", reply=reply, hint=hint(code))
    if status == HTTPStatus.TOO_MANY_REQUESTS or status >= 500:  # noqa: PLR2004  # HTTP's
        raise UpstreamUnavailableError(said, reply=reply, retry_after=retry_after(response.headers))
    raise UpstreamRefusedError(said, reply=reply, hint=hint(code, f"HTTP {status}"))


def _reply(response: _Response, request_id: str) -> UpstreamReply:
    echoed = response.headers.get("MS-RequestId", "")
    return UpstreamReply(response.status, _code(response), echoed if is_guid(echoed) else request_id)


def _code(response: _Response) -> str | None:
    """Partner Center's error code; documented as a string, sent as a number."""
    if 200 <= response.status < 300 or len(response.body) > _ERROR_BODY_LIMIT:  # noqa: PLR2004  # HTTP's
        return None
    try:
        document = json.loads(response.body.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    code = document.get("code") if isinstance(document, dict) else None
    return str(code) if re.fullmatch(r"\d{1,10}", str(code), re.ASCII) else None


def _log_failure(
    error: UsageSummaryError, response: _Response | None, attempt: int, request_id: str, correlation_id: str
) -> None:
    headers = response.headers if response else {}
    log_failure(
        _log,
        logging.WARNING,
        "upstream.attempt_failed",
        error,
        attempt=attempt,
        requestId=request_id,
        correlationId=correlation_id,
        # what Microsoft's support asks for
        msCv=headers.get("MS-CV"),
        msServerId=headers.get("MS-ServerId"),
    )
