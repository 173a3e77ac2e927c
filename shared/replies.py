"""What an answer of Partner Center means: a usage summary, that there is none, or an error.

Source: learn.microsoft.com/partner-center/developer/error-codes.
"""

import json
import re
from codecs import BOM_UTF8
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus

from shared.deadlines import retry_after
from shared.errors import (
    ConsentRequiredError,
    UpstreamInvalidError,
    UpstreamRefusedError,
    UpstreamReply,
    UpstreamUnavailableError,
)
from shared.guids import is_guid
from shared.hints import hint
from shared.usage_summary import SIZE_LIMIT, parse, read_usage_summary

NO_MFA = {"900421", "10001"}
"""Codes of a token that comes of a sign-in without MFA."""

_NO_USAGE_DATA = "3000"
_ERROR_BODY_LIMIT = 64 * 1024
_THROTTLED = timedelta(minutes=1)  # after a 429 that names no time: Partner Center counts by the minute


@dataclass(frozen=True, slots=True)
class Response:
    """An answer: its status, its headers, and its body, as much of it as came.

    `is_whole` is None when the answer has no length: the end of the connection is its only end.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    is_whole: bool | None


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


def read_reply(response: Response, reply: UpstreamReply, correlation_id: str, sent: float) -> Fetched:
    """The usage summary of an answer, or that there is none.

    Raises UpstreamInvalidError, UpstreamRefusedError, UpstreamUnavailableError, and ConsentRequiredError for
    a token without MFA.
    """
    body, no_usage_data = _read(response, reply)
    compliant = response.headers.get("isMfaCompliant", "").lower()
    return Fetched(
        body,
        no_usage_data,
        reply.request_id or "",
        correlation_id,
        sent,
        compliant == "true" if compliant else None,
    )


def _read(response: Response, reply: UpstreamReply) -> tuple[bytes, UpstreamReply | None]:
    status, code = reply.status, reply.code
    said = f"Partner Center answered {status}" + (f" with code {code}" if code else "")
    if 200 <= status < 300:  # noqa: PLR2004  # HTTP's
        if response.is_whole is False:
            raise UpstreamInvalidError("the answer broke off", reply=reply)
        try:
            return read_usage_summary(response.body).body, None
        except UpstreamInvalidError as error:
            raise UpstreamInvalidError(error.message, reply=reply) from None
    if status in (400, 404) and code == _NO_USAGE_DATA:
        return b"", reply
    if status == 401 and code in NO_MFA:  # noqa: PLR2004  # HTTP's
        raise ConsentRequiredError(f"{said}: the consent was given without MFA", reply=reply, hint=hint(code))
    if status == HTTPStatus.TOO_MANY_REQUESTS or status >= 500:  # noqa: PLR2004  # HTTP's
        wait = retry_after(response.headers)
        if wait is None and status == HTTPStatus.TOO_MANY_REQUESTS:
            wait = _THROTTLED
        raise UpstreamUnavailableError(said, reply=reply, retry_after=wait)
    raise UpstreamRefusedError(said, reply=reply, hint=hint(code, f"HTTP {status}"))


def broke_off(response: Response) -> bool:
    """Whether an answer broke off; without a length a cut does not show, so what is no JSON counts as cut."""
    if response.is_whole is not None:
        return not response.is_whole
    if len(response.body) > SIZE_LIMIT:
        return False
    try:
        parse(response.body.removeprefix(BOM_UTF8))
    except (ValueError, RecursionError):
        return True
    return False


def reply_of(response: Response, request_id: str) -> UpstreamReply:
    """The ids of an answer, which Microsoft's support asks for."""
    echoed = response.headers.get("MS-RequestId", "")
    return UpstreamReply(response.status, _code(response), echoed if is_guid(echoed) else request_id)


def _code(response: Response) -> str | None:
    """Partner Center's error code; documented as a string, sent as a number."""
    if 200 <= response.status < 300 or len(response.body) > _ERROR_BODY_LIMIT:  # noqa: PLR2004  # HTTP's
        return None
    try:
        document = json.loads(response.body.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    code = document.get("code") if isinstance(document, dict) else None
    return str(code) if re.fullmatch(r"\d{1,10}", str(code), re.ASCII) else None
