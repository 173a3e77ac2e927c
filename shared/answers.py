"""The usage summary as one process gives it to a caller: from memory, or once a refresh has ended.

A caller is answered from memory on the event loop: no lock, no thread, no storage. Callers who must wait join
the refresh under way; their leaving does not end it.
"""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from shared.clock import Clock
from shared.errors import NotCachedError, UpstreamTimeoutError, UsageSummaryError
from shared.events import log_kept
from shared.fleet import Fleet
from shared.flights import Flights
from shared.freshness import FETCHES, NO_DIRECTIVES, Decision, RequestDirectives
from shared.held import Answer
from shared.known import Known
from shared.outcome import Outcome, Source
from shared.refresh import LONGEST_WAIT, Refresh
from shared.settings import Freshness

if TYPE_CHECKING:
    from shared.client import PartnerCenterClient

_PLAIN = {Decision.SERVE, Decision.SERVE_AND_REFRESH}
_NO_TIME = timedelta()
_LOOK_AGAIN = timedelta(seconds=5)  # for an answer of another instance, while at rest


class Result(NamedTuple):
    """An answer and its age, or why there is none; both where a stored answer stands in for a failure."""

    decision: Decision
    source: Source = Source.STORED
    answer: Answer | None = None
    age: timedelta = _NO_TIME
    error: UsageSummaryError | None = None
    retry_after: timedelta | None = None

    @property
    def is_plain_hit(self) -> bool:
        """Whether an answer was served from memory, since it would do: nothing worth a log line."""
        return self.decision in _PLAIN and self.error is None


class Answers:
    """The one answer of this process, the same in all instances."""

    def __init__(
        self, fleet: Fleet, open_client: Callable[[], "PartnerCenterClient"], policy: Freshness, clock: Clock
    ) -> None:
        self._known = Known(policy, clock)
        self._flights = Flights(Refresh(self._known, fleet, open_client, clock), clock)
        self._clock = clock

    async def get(self, directives: RequestDirectives, correlation_id: str) -> Result:
        """The answer for one caller; never raises an error of this app, and ends within LONGEST_WAIT.

        The correlation id is used for the upstream call that this caller causes, if any.
        """
        began = self._clock.monotonic()
        while True:
            log_kept(self._flights.unsaid)
            decision = self._known.decide(directives)
            if decision is Decision.REFUSE:
                return _refused(decision) if directives.no_cache else await self._look(directives)
            result = self._at_once(decision, correlation_id)
            if result is not None:
                return result
            flight, is_mine = self._flights.launch(directives, correlation_id, is_behind=False)
            left = LONGEST_WAIT.total_seconds() - (self._clock.monotonic() - began)
            done, _ = await asyncio.wait({asyncio.wrap_future(flight.outcome)}, timeout=left)
            log_kept(self._flights.unsaid)
            timeout = Outcome(Source.FETCHED, UpstreamTimeoutError("the refresh has not ended in time"))
            outcome = flight.outcome.result() if done else timeout
            if is_mine and outcome.decision in FETCHES:
                decision = outcome.decision
            if outcome.error is not None:
                return self._failed(decision, outcome.source, outcome.error)
            if outcome.source is not Source.STORED:
                return self._stored(decision, outcome.source if is_mine else Source.COLLAPSED)
            decision = self._known.decide_exactly(directives)
            is_enough = is_mine or decision is not Decision.FETCH_REQUESTED
            if decision is Decision.SERVE or (is_enough and self._known.has_usable()):
                return self._at_once(decision, correlation_id) or self._stored(decision)
            # A flight begun for another caller was content with what is not enough for this one.

    def _at_once(self, decision: Decision, correlation_id: str) -> Result | None:
        """What needs no waiting, if that will do; begins the refresh behind a stale answer."""
        if decision is Decision.SERVE:
            return self._stored(decision)
        rest, is_stale = self._known.rest, decision is Decision.SERVE_AND_REFRESH
        has_looked = self._clock.monotonic() - self._known.looked_at < _LOOK_AGAIN.total_seconds()
        is_served = is_stale or (rest is not None and self._known.has_usable())
        result: Result | None = None  # of what is held now: the refresh may hold another at once
        if is_stale:
            result = self._stored(decision)
        elif rest is not None and (is_served or has_looked):
            result = self._failed(decision, Source.STORED, rest.error)
        if is_served and not (rest and has_looked):  # at rest it only looks for what others have fetched
            self._flights.launch(NO_DIRECTIVES, correlation_id, is_behind=True)
        return result

    async def _look(self, directives: RequestDirectives) -> Result:
        """What there is without asking Partner Center, once the shared answer is adopted."""
        await asyncio.wait({asyncio.wrap_future(self._flights.look())}, timeout=LONGEST_WAIT.total_seconds())
        log_kept(self._flights.unsaid)
        decision = self._known.decide(directives)
        if decision is Decision.REFUSE:
            return _refused(decision)
        return self._stored(decision)

    def _stored(self, decision: Decision, source: Source = Source.STORED) -> Result:
        held = self._known.held
        if held is None:
            raise AssertionError("there is an answer whenever one may be served")
        return Result(decision, source, held.answer, self._known.age(held))

    def _failed(self, decision: Decision, source: Source, error: UsageSummaryError) -> Result:
        held, rest = self._known.held, self._known.rest
        if held is not None and self._known.has_usable():
            return Result(decision, source, held.answer, self._known.age(held), error)
        wait = timedelta(seconds=rest.until - self._clock.monotonic()) if rest else error.retry_after
        return Result(decision, source, error=error, retry_after=wait)


def _refused(decision: Decision) -> Result:
    return Result(decision, error=NotCachedError("nothing is stored that the request allows"))
