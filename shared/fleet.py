"""What all instances share about the usage summary: one blob, with the answer in it and the claim on it.

The body and some metadata are the answer. Two metadata say who may ask Partner Center next: `owner` has the
claim until `until`, or, where `failure` stands beside it, nobody asks before `until`. Every change is one
Put Blob on condition of the ETag that was read, so of several instances one wins, and a late one is refused.
All instants in it are the storage service's; to this process it says everything in its own monotonic seconds.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property

from shared.blobs import Blob, Container
from shared.clock import Clock
from shared.errors import (
    BlobConflictError,
    ConfigurationError,
    ConsentRequiredError,
    UpstreamInvalidError,
    UpstreamRefusedError,
    UpstreamReply,
    UpstreamTimeoutError,
    UpstreamUnavailableError,
    UsageSummaryError,
)

CLAIM_LIFE = timedelta(seconds=65)
"""Longer than any refresh: a living owner is not overtaken, a dead one is after this."""

CLOCK_GRAIN = timedelta(seconds=1)
"""Storage's clock tells whole seconds: between two readings may be a second more or less than there was."""

_LONGEST_REST = timedelta(hours=1, minutes=5)  # longer than any back-off: what lasts longer is damaged
_CLOCK_STEP = timedelta(minutes=5)  # what is fetched later than this from now is damaged
_DAMAGED = KeyError, ValueError, TypeError, OverflowError
_NO_BODY = b"{}"  # never an empty blob: the SDK reads one in two requests, between which it may change
_JSON = "application/json; charset=utf-8"

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
class Held:
    """An answer, and the monotonic second at which its call was sent; within CLOCK_GRAIN, if not exact.

    The answer's own instant is by storage's clock, or by this process's where storage did not take part.
    """

    answer: Answer
    sent: float
    is_exact: bool = False
    is_by_storage: bool = True


@dataclass(frozen=True, slots=True)
class Shared:
    """The blob as read at a monotonic second, `at` by storage's clock; also the claim that was taken on it.

    Until the monotonic second `until` nobody but the owner of the claim asks Partner Center: because somebody
    has the claim, or because of `failure`.
    """

    read: float
    at: datetime
    etag: str | None = None
    held: Held | None = None
    until: float = float("-inf")
    failure: UsageSummaryError | None = None

    @property
    def answer(self) -> Answer | None:
        """The answer, if there is one."""
        return None if self.held is None else self.held.answer

    @property
    def keep_away(self) -> timedelta:
        """How long from the reading on nobody but the owner of the claim asks."""
        return timedelta(seconds=max(self.until - self.read, 0.0))

    def instant(self, second: float) -> datetime:
        """A monotonic second by storage's clock."""
        return self.at + timedelta(seconds=second - self.read)

    def is_newer_than(self, held: Held | None) -> bool:
        """Whether the answer is newer than one held."""
        if self.held is None or held is None:
            return self.held is not None
        if held.is_by_storage:
            return self.held.answer.fetched_at > held.answer.fetched_at
        return self.held.sent > held.sent + CLOCK_GRAIN.total_seconds()

    def second(self, instant: datetime) -> float:
        """An instant of storage's clock in monotonic seconds."""
        return self.read + (instant - self.at).total_seconds()


class Fleet:
    """The blob of one partner; every method raises StorageError when Blob Storage fails."""

    def __init__(
        self, container: Container, partner: str, clock: Clock, *, shares_failures: bool = True
    ) -> None:
        """An operator's failures are not shared: another secret or role is wrong than the app's."""
        self._shares_failures = shares_failures
        self._container = container
        self._name = blob_name(partner)
        self._clock = clock

    def read(self) -> Shared:
        """What is shared now; what is damaged counts as absent."""
        reading = self._container.read(self._name)
        shared = Shared(self._clock.monotonic(), reading.at)
        if reading.blob is None:
            return shared
        metadata, shared = reading.blob.metadata, replace(shared, etag=reading.blob.etag)
        with suppress(*_DAMAGED):
            shared = replace(shared, held=_decode_answer(reading.blob, shared))
        with suppress(*_DAMAGED):
            shared = replace(shared, until=_decode_until(metadata, shared))
        if shared.keep_away and "failure" in metadata:
            shared = replace(shared, failure=_decode_failure(metadata["failure"]))
        return shared

    def claim(self, shared: Shared, owner: str) -> Shared | None:
        """Take the claim on what was read; None when another was faster."""
        claim = {"owner": owner, "until": _text(shared.at + CLAIM_LIFE)}
        etag = self._put(shared.answer, claim, shared.etag)
        return None if etag is None else replace(shared, etag=etag)

    def back_off(self, claim: Shared, error: UsageSummaryError, until: float) -> bool:
        """Give the claim back, and tell all instances to keep away until a monotonic second, and why.

        False when the claim was lost meanwhile.
        """
        reply = error.reply
        said = [reply.status, reply.code, reply.request_id] if reply else None
        failure = json.dumps([type(error).__name__, error.message[:1000], said, error.hint])
        rest = {"until": _text(claim.instant(until) + CLOCK_GRAIN), "failure": failure}
        rest = rest if self._shares_failures else {}
        return self._put(claim.answer, rest, claim.etag) is not None

    def publish(self, claim: Shared, answer: Answer) -> bool:
        """Replace answer and claim in one write; False when the claim was lost meanwhile."""
        return self._put(answer, {}, claim.etag) is not None

    def _put(self, answer: Answer | None, claim: dict[str, str], replacing: str | None) -> str | None:
        """Write answer and claim; None when another was faster."""
        metadata = (_encode(answer) if answer else {}) | claim
        body = answer.body if answer and answer.body else _NO_BODY
        try:
            return self._container.write(self._name, body, _JSON, replacing=replacing, metadata=metadata)
        except BlobConflictError:
            # The write may have succeeded, its response been lost, and its repetition refused.
            found = self._container.read(self._name).blob
            return found.etag if found is not None and found.metadata == metadata else None


def blob_name(partner: str) -> str:
    """Where the answer of a partner lies; apps of several partners may have one storage account."""
    return f"usagesummary-{hashlib.sha256(partner.encode()).hexdigest()[:16]}"


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


def _decode_answer(blob: Blob, shared: Shared) -> Held | None:
    metadata = blob.metadata
    if "fetched" not in metadata:
        return None
    request_id, fetched_at = metadata["requestid"], _instant(metadata["fetched"])
    said = [*json.loads(metadata["nousagedata"]), request_id] if "nousagedata" in metadata else None
    body = blob.content if said is None else b""
    if _digest(body) != metadata["digest"] or fetched_at > shared.at + _CLOCK_STEP:
        raise ValueError("not what was written")
    answer = Answer(body, fetched_at, request_id, metadata["correlationid"], _reply(said))
    return Held(answer, shared.second(fetched_at))


def _decode_until(metadata: Mapping[str, str], shared: Shared) -> float:
    """The end of a claim or a back-off; one that is later than any can be is damaged."""
    until = _instant(metadata["until"])
    longest = _LONGEST_REST if "failure" in metadata else CLAIM_LIFE + CLOCK_GRAIN
    if until > shared.at + longest:
        raise ValueError("not what was written")
    return shared.second(until)


def _decode_failure(text: str) -> UsageSummaryError:
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


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:32]


def _text(instant: datetime) -> str:
    return instant.isoformat(timespec="milliseconds")


def _instant(text: str) -> datetime:
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError(text)
    return instant
