"""The fleet's blob: the answer in it, and the claim or the back-off that may stand beside it.

The body and some metadata are the answer. Two metadata say who may ask Partner Center next: `owner` has the
claim until `until`, or, where `failure` stands beside it, nobody asks before `until`. All instants in it are
the storage service's; what is read is said in this process's own monotonic seconds.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta

from shared.blob import Blob, Reading
from shared.errors import (
    ConfigurationError,
    ConsentRequiredError,
    UpstreamInvalidError,
    UpstreamRefusedError,
    UpstreamReply,
    UpstreamTimeoutError,
    UpstreamUnavailableError,
    UsageSummaryError,
)
from shared.held import CLOCK_GRAIN, Answer, Held, Shared, digest

CLAIM_LIFE = timedelta(seconds=65)
"""Longer than any refresh: a living owner is not overtaken, a dead one is after this."""

_LONGEST_REST = timedelta(hours=1, minutes=5)  # longer than any back-off: what lasts longer is damaged
_CLOCK_STEP = timedelta(minutes=5)  # what is fetched later than this from now is damaged
_DAMAGED = KeyError, ValueError, TypeError, OverflowError
_NO_BODY = b"{}"  # never an empty blob: the SDK reads one in two requests, between which it may change

_FAILURES: dict[str, type[UsageSummaryError]] = {
    kind.__name__: kind
    for kind in (
        ConfigurationError,
        ConsentRequiredError,
        UpstreamInvalidError,
        UpstreamRefusedError,
        UpstreamTimeoutError,
        UpstreamUnavailableError,
    )
}


def blob_name(partner: str) -> str:
    """Where the answer of a partner lies; apps of several partners may have one storage account."""
    return f"usagesummary-{hashlib.sha256(partner.encode()).hexdigest()[:16]}"


def content_of(answer: Answer | None) -> tuple[bytes, dict[str, str]]:
    """The body and the metadata of an answer: lower-case keys, ASCII values."""
    if answer is None:
        return _NO_BODY, {}
    metadata = {
        "fetched": _text(answer.fetched_at),
        "requestid": answer.request_id,
        "correlationid": answer.correlation_id,
        "digest": digest(answer.body),
    }
    if answer.no_usage_data is not None:
        metadata["nousagedata"] = json.dumps([answer.no_usage_data.status, answer.no_usage_data.code])
    return answer.body or _NO_BODY, metadata


def claim_of(owner: str, shared: Shared) -> dict[str, str]:
    """The metadata of a claim on what was read."""
    return {"owner": owner, "until": _text(shared.at + CLAIM_LIFE)}


def back_off_of(error: UsageSummaryError, until: datetime) -> dict[str, str]:
    """The metadata of a back-off."""
    reply = error.reply
    said = [reply.status, reply.code, reply.request_id] if reply else None
    failure = json.dumps([type(error).__name__, error.message[:1000], said, error.hint])
    return {"until": _text(until + CLOCK_GRAIN), "failure": failure}


def read_shared(reading: Reading, second: float) -> Shared:
    """What is shared, as read at a monotonic second; what is damaged counts as absent."""
    shared, blob = Shared(second, reading.at), reading.blob
    if blob is None:
        return shared
    shared = replace(shared, etag=blob.etag)
    with suppress(*_DAMAGED):
        shared = replace(shared, held=_held(blob, shared))
    with suppress(*_DAMAGED):
        shared = replace(shared, until=_until(blob.metadata, shared))
    if shared.keep_away and "failure" in blob.metadata:
        shared = replace(shared, failure=_failure(blob.metadata["failure"]))
    return shared


def _held(blob: Blob, shared: Shared) -> Held | None:
    metadata = blob.metadata
    if "fetched" not in metadata:
        return None
    request_id, fetched_at = metadata["requestid"], _instant(metadata["fetched"])
    said = [*json.loads(metadata["nousagedata"]), request_id] if "nousagedata" in metadata else None
    body = blob.content if said is None else b""
    if digest(body) != metadata["digest"] or fetched_at > shared.at + _CLOCK_STEP:
        raise ValueError
    answer = Answer(body, fetched_at, request_id, metadata["correlationid"], _reply(said))
    return Held(answer, shared.second(fetched_at))


def _until(metadata: Mapping[str, str], shared: Shared) -> float:
    """The end of a claim or a back-off; one that is later than any can be is damaged."""
    until = _instant(metadata["until"])
    longest = _LONGEST_REST if "failure" in metadata else CLAIM_LIFE + CLOCK_GRAIN
    if until > shared.at + longest:
        raise ValueError
    return shared.second(until)


def _failure(text: str) -> UsageSummaryError:
    """Why everybody keeps away; a kind that only another version of the app knows counts as unavailable."""
    try:
        name, message, said, hint = json.loads(text)
        kind, reply = _FAILURES.get(name, UpstreamUnavailableError), _reply(said)
    except _DAMAGED:
        return UpstreamUnavailableError("another instance could not refresh")
    return kind(str(message), reply=reply, hint=hint and str(hint))


def _reply(said: list[str | None] | None) -> UpstreamReply | None:
    if said is None:
        return None
    status, code, request_id = said
    return UpstreamReply(int(status or ""), None if code is None else str(int(code)), request_id)


def _text(instant: datetime) -> str:
    return instant.isoformat(timespec="milliseconds")


def _instant(text: str) -> datetime:
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError
    return instant
