"""What a refresh is for, and how it ended."""

from dataclasses import dataclass
from enum import Enum, auto

from shared.errors import UsageSummaryError
from shared.freshness import Decision, RequestDirectives


class Source(Enum):
    """Where a result comes from."""

    STORED = auto()
    FETCHED = auto()
    """This caller made the process ask Partner Center."""
    COLLAPSED = auto()
    """It waited for what another caller or another instance asked for."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a refresh ended; the answer, if any, is held."""

    source: Source
    error: UsageSummaryError | None = None
    decision: Decision | None = None
    """What made the process ask, once it had adopted what is shared."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a refresh is for, and the monotonic second at which it began."""

    directives: RequestDirectives
    is_behind: bool
    """Behind an answer that has been given: whoever else is asking need not be waited for."""
    correlation_id: str
    began: float
