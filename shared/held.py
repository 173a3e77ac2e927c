"""An answer as it is held: by whom, since when, and what is known of the one that all instances share."""

import hashlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property

from shared.errors import UpstreamReply, UsageSummaryError

CLOCK_GRAIN = timedelta(seconds=1)
"""Storage's clock tells whole seconds: between two readings may be a second more or less than there was."""


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
        return f'"{digest(self.body)}"'


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


def digest(body: bytes) -> str:
    """What tells one body from another."""
    return hashlib.sha256(body).hexdigest()[:32]
