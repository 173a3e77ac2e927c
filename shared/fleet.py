"""What all instances share about the usage summary: one blob, with the answer in it and the claim on it.

The body and some metadata are the answer. Two metadata say who may ask Partner Center next: `owner` has the
claim until `until`, or, where `failure` stands beside it, nobody asks before `until`. Every change is
conditional on the ETag that was read, so of several instances one wins, and a late one is refused.
All instants are the clock of the storage service.
"""

import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property

from shared import errors
from shared.blobs import Blob, Container
from shared.errors import BlobConflictError, UpstreamReply, UsageSummaryError

CLAIM_LIFE = timedelta(seconds=65)
"""Longer than any refresh: a living owner is never overtaken, a dead one is after this."""

LONGEST_REST = timedelta(hours=1, minutes=5)
"""Longer than any back-off: what lasts longer is damaged, and counts for nothing."""

_BLOB = "usagesummary"
_NO_BODY = b"{}"  # never an empty blob: the SDK reads one in two requests, between which it may change
_JSON = "application/json; charset=utf-8"


@dataclass(frozen=True)
class Answer:
    """What Partner Center said: a document, or that there is no usage data, and the call that fetched it.

    `fetched_at` is the instant at which the call was sent.
    """

    body: bytes = field(repr=False)
    fetched_at: datetime
    request_id: str
    correlation_id: str
    no_usage_data: UpstreamReply | None = None

    @cached_property
    def etag(self) -> str:
        """A strong entity tag: the same bytes have the same everywhere."""
        return f'"{_digest(self.body)}"'


@dataclass(frozen=True, slots=True)
class Shared:
    """The blob as read: the answer in it, and who asks next or why nobody does, until when."""

    etag: str | None
    at: datetime
    answer: Answer | None = None
    owner: str | None = None
    until: datetime | None = None
    failure: UsageSummaryError | None = None

    @property
    def is_claimed(self) -> bool:
        """Whether to keep away for now."""
        return self.left > timedelta()

    @property
    def left(self) -> timedelta:
        """How long to keep away."""
        left = self.until - self.at if self.until is not None else timedelta()
        return left if left < LONGEST_REST else timedelta()


class Fleet:
    """The blob; every method raises StorageError when Blob Storage fails."""

    def __init__(self, container: Container) -> None:
        self._container = container

    def read(self) -> Shared:
        """What is shared now; what is damaged or of another version counts as absent."""
        reading = self._container.read(_BLOB)
        if reading.blob is None:
            return Shared(None, reading.at)
        try:
            return _decode(reading.blob, reading.at)
        except (KeyError, ValueError, TypeError, AttributeError):
            return Shared(reading.blob.etag, reading.at)

    def claim(self, shared: Shared, owner: str) -> str | None:
        """Take the claim on what was read; the blob's new ETag, or None when another was faster."""
        return self._annotate(shared, {"owner": owner, "until": _text(shared.at + CLAIM_LIFE)})

    def back_off(self, shared: Shared, etag: str, error: UsageSummaryError, until: datetime) -> None:
        """Give the claim back, and tell all instances to keep away until then, and why."""
        claimed = Shared(etag, shared.at, shared.answer)
        self._annotate(claimed, {"until": _text(until), "failure": _encode_failure(error)})

    def publish(self, answer: Answer, etag: str) -> bool:
        """Replace answer and claim in one write; False when the claim was lost meanwhile."""
        try:
            body = answer.body or _NO_BODY
            self._container.write(_BLOB, body, _JSON, replacing=etag, metadata=_encode(answer))
        except BlobConflictError:
            found = self.read().answer  # the first write may have succeeded and its response been lost
            return found is not None and found.request_id == answer.request_id
        return True

    def _annotate(self, shared: Shared, claim: dict[str, str]) -> str | None:
        metadata = (_encode(shared.answer) if shared.answer else {}) | claim
        try:
            if shared.etag is None:
                return self._container.write(_BLOB, _NO_BODY, _JSON, replacing=None, metadata=metadata)
            return self._container.annotate(_BLOB, metadata, replacing=shared.etag)
        except BlobConflictError:
            found = self._container.read(_BLOB).blob  # as above
            return found.etag if found is not None and found.metadata == metadata else None


def _encode(answer: Answer) -> dict[str, str]:
    """An answer as metadata: lower-case keys, ASCII values."""
    metadata = {
        "fetched": _text(answer.fetched_at),
        "requestid": answer.request_id,
        "correlationid": answer.correlation_id,
        "digest": _digest(answer.body),
    }
    if answer.no_usage_data is not None:
        metadata["nousagedata"] = json.dumps([answer.no_usage_data.status, answer.no_usage_data.code])
    return metadata


def _decode(blob: Blob, at: datetime) -> Shared:
    metadata, answer = blob.metadata, None
    if "fetched" in metadata:
        reply = None
        if "nousagedata" in metadata:
            status, code = json.loads(metadata["nousagedata"])
            reply = UpstreamReply(int(status), code, metadata["requestid"])
        body = b"" if reply else blob.content
        if _digest(body) != metadata["digest"]:
            raise ValueError("not the body that was written")
        answer = Answer(
            body,
            _instant(metadata["fetched"]),
            metadata["requestid"],
            metadata["correlationid"],
            reply,
        )
    until = _instant(metadata["until"]) if "until" in metadata else None
    failure = _decode_failure(metadata["failure"]) if "failure" in metadata else None
    return Shared(blob.etag, at, answer, metadata.get("owner"), until, failure)


def _encode_failure(error: UsageSummaryError) -> str:
    reply = error.reply
    return json.dumps(
        [type(error).__name__, error.message[:1000], reply and [reply.status, reply.code, reply.request_id]]
    )


def _decode_failure(text: str) -> UsageSummaryError:
    name, message, reply = json.loads(text)
    kinds = {kind.__name__: kind for kind in vars(errors).values() if isinstance(kind, type)}
    kind: type[UsageSummaryError] = kinds[name]
    return kind(str(message), reply=UpstreamReply(*reply) if reply else None)


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:32]


def _text(instant: datetime) -> str:
    return instant.isoformat(timespec="milliseconds")


def _instant(text: str) -> datetime:
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError(text)
    return instant
