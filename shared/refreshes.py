"""Refreshes, one at a time in a process: a thread that reads the shared answer and, if need be, asks.

It asks Partner Center alone of all instances, under the claim; without storage it asks all the same. How a
refresh ended is a value, not an exception, for hundreds may share it. Storage that fails costs freshness,
never an answer.
"""

import logging
import threading
import traceback
import uuid
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import Enum, auto
from pathlib import Path
from random import uniform
from typing import TYPE_CHECKING

from shared.clock import Clock
from shared.errors import (
    OperatorError,
    StorageError,
    UpstreamUnavailableError,
    UsageSummaryError,
)
from shared.events import Line, keeping, log_event, log_failure
from shared.fleet import CLOCK_GRAIN, Answer, Fleet, Held, Shared
from shared.freshness import Decision, RequestDirectives, decide, is_usable
from shared.settings import Freshness

if TYPE_CHECKING:
    from shared.client import PartnerCenterClient

LONGEST_WAIT = timedelta(seconds=62)
"""A caller's, and a refresh's for another instance: a little longer than asking can take."""

_NO_TIME = timedelta()
_ASKING_TIME = timedelta(seconds=50)  # from reading the shared answer to the end of the upstream call
_OVERDUE = timedelta(seconds=130)  # a flight older than waiting for a claim and asking can be
_REST = 10.0, 18.0  # seconds after a failure, from and to: jitter
_OPERATORS_REST = 50.0, 57.0  # the same where somebody must act, who sees it work within a minute
_POLL = 0.05, 0.25  # seconds between two looks at another instance's claim
_LOST_CLAIMS = 5  # in a row, without anybody having won: that is storage failing

_log = logging.getLogger(__name__)


class Source(Enum):
    """Where a result comes from."""

    STORED = auto()
    FETCHED = auto()
    """This caller made the process ask Partner Center."""
    COLLAPSED = auto()
    """It waited for what another caller or another instance asked for."""


@dataclass(frozen=True, slots=True)
class Rest:
    """Why nobody in this process asks before a monotonic second."""

    until: float
    error: UsageSummaryError


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a flight ended; the answer, if any, is held."""

    source: Source
    error: UsageSummaryError | None = None
    decision: Decision | None = None
    """What made the process ask, once it had adopted what is shared."""


@dataclass(frozen=True, slots=True)
class Flight:
    """A refresh under way, for which other callers' want may be more, and when it began."""

    outcome: Future[Outcome]
    directives: RequestDirectives
    is_behind: bool
    correlation_id: str
    began: float


class Refreshes:
    """What this process holds of the usage summary, and how it comes by something newer."""

    def __init__(
        self, fleet: Fleet, open_client: Callable[[], "PartnerCenterClient"], policy: Freshness, clock: Clock
    ) -> None:
        self.held: Held | None = None
        self.looked_at = float("-inf")
        """The monotonic second of the last look at the shared answer."""
        self.unsaid: deque[Line] = deque()
        """Log lines of refreshes, for the next invocation to log."""
        self._rest: Rest | None = None
        self._flight: Flight | None = None
        self._look: Future[None] | None = None
        self._fleet = fleet
        self._open_client = open_client
        self._opened: PartnerCenterClient | None = None
        self._policy = policy
        self._clock = clock
        self._lock = threading.Lock()

    @property
    def rest(self) -> Rest | None:
        """Why nobody asks now, if so."""
        rest = self._rest
        return rest if rest is not None and self._clock.monotonic() < rest.until else None

    def age(self, held: Held) -> timedelta:
        """How old an answer is."""
        return timedelta(seconds=max(self._clock.monotonic() - held.sent, 0))

    def weigh(self, directives: RequestDirectives) -> tuple[Decision, Held | None, timedelta]:
        """What to do for a request, given the answer held and its age."""
        held = self.held
        if held is None:
            return decide(None, directives, self._policy), None, _NO_TIME
        age = self.age(held)
        return decide(age, directives, self._policy), held, age

    def decide(self, directives: RequestDirectives) -> Decision:
        """What to do for a request, given the answer held."""
        return self.weigh(directives)[0]

    def decide_exactly(self, directives: RequestDirectives) -> Decision:
        """What to do before anybody asks: the floor holds, though storage's clock is coarse."""
        held, policy = self.held, self._policy
        if held is not None and not held.is_exact:
            policy = replace(policy, min_refresh=policy.min_refresh + CLOCK_GRAIN)
        return decide(None if held is None else self.age(held), directives, policy)

    def has_usable(self) -> bool:
        """Whether the answer held may still be served, if only because nothing better is to be had."""
        held = self.held
        return held is not None and is_usable(self.age(held), self._policy)

    def launch(
        self, directives: RequestDirectives, correlation_id: str, *, is_behind: bool
    ) -> tuple[Flight, bool]:
        """The flight under way, or a new one, and whether it is new."""
        now = self._clock.monotonic()
        with self._lock:
            if self._flight is not None and now - self._flight.began < _OVERDUE.total_seconds():
                return self._flight, False
            flight = Flight(Future(), directives, is_behind, correlation_id, now)
            flight.outcome.set_running_or_notify_cancel()  # from here on no caller can cancel it
            try:
                threading.Thread(target=self._fly, args=(flight,), name="refresh", daemon=True).start()
                self._flight = flight
            except RuntimeError:
                error = UpstreamUnavailableError("this process can start no thread")
                flight.outcome.set_result(Outcome(Source.STORED, error))
            return flight, True

    def look(self) -> "Future[None]":
        """A look at the shared answer, which is held if it is newer; one at a time for all callers."""
        with self._lock:
            look = self._look
            if look is None or look.done():
                look = self._look = Future()
                look.set_running_or_notify_cancel()
                try:
                    threading.Thread(target=self._look_at, args=(look,), name="look", daemon=True).start()
                except RuntimeError:
                    look.set_result(None)
            return look

    def _look_at(self, look: "Future[None]") -> None:
        with keeping(self.unsaid):
            try:
                self._read()
            except StorageError as error:
                self._say_not_shared(error)
            finally:
                look.set_result(None)

    def _fly(self, flight: Flight) -> None:
        with keeping(self.unsaid):  # the thread belongs to no invocation, and may outlive all that wait
            claim: Shared | Outcome | None = None
            try:
                claim = self._claim_or_not(flight)
                outcome = claim if isinstance(claim, Outcome) else self._fetch(flight, claim)
            except Exception as error:  # noqa: BLE001  # a defect must not leave callers waiting
                frame = traceback.extract_tb(error.__traceback__)[-1]
                where = f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"
                failure = UpstreamUnavailableError(f"a defect: {where}")
                outcome = self._give_up(failure, claim if isinstance(claim, Shared) else None)
            with self._lock:
                if self._flight is flight:  # else it was overdue, and another has begun
                    self._flight = None
            flight.outcome.set_result(outcome)
            if outcome.source is Source.FETCHED and self._opened is not None:
                self._opened.settle()

    def _claim_or_not(self, flight: Flight) -> Shared | Outcome | None:
        """The claim, or an outcome that needs none, or nothing where storage does not take part."""
        try:
            return self._claim(flight)
        except StorageError as error:
            self._say_not_shared(error)
            rest = self.rest
            return None if rest is None else Outcome(Source.STORED, rest.error)

    def _claim(self, flight: Flight) -> Shared | Outcome:
        """The claim, or an outcome that needs none; waits for another instance's fetch where it must."""
        waits_with, waits, lost = self.held, False, 0
        while True:
            shared = self._read()
            if waits and self.held is not waits_with:
                return Outcome(Source.COLLAPSED)
            outcome = self._settled(flight, shared)
            if outcome is not None:
                return outcome
            if not shared.keep_away:
                claim = self._fleet.claim(shared, uuid.uuid4().hex)
                if claim is not None and self._left(claim.read) > timedelta():
                    return claim
                lost += 1  # or this process has been stopped meanwhile
                if lost == _LOST_CLAIMS:
                    raise StorageError("the claim is neither to be had nor held by anybody")
            elif shared.read - flight.began > LONGEST_WAIT.total_seconds():
                error = UpstreamUnavailableError("another instance is asking", retry_after=shared.keep_away)
                return Outcome(Source.STORED, error)
            else:
                waits_with, waits, lost = waits_with if waits else self.held, True, 0
                self._clock.sleep(uniform(*_POLL))  # noqa: S311  # jitter

    def _settled(self, flight: Flight, shared: Shared) -> Outcome | None:
        """How a flight ends that needs no fetch of its own, now that the shared answer is adopted."""
        decision, rest = self.decide_exactly(flight.directives), self.rest
        if decision is Decision.SERVE or (decision is Decision.SERVE_AND_REFRESH and not flight.is_behind):
            return Outcome(Source.STORED)
        if rest is None and shared.keep_away and shared.failure is not None:
            rest = self._rest = Rest(shared.until, shared.failure)
        if rest is not None:
            return Outcome(Source.STORED, rest.error)
        is_enough = flight.is_behind or (decision is Decision.FETCH_STALE and self.has_usable())
        return Outcome(Source.STORED) if shared.keep_away and is_enough else None

    def _left(self, since: float) -> timedelta:
        """The time for asking that is left since a monotonic second."""
        return _ASKING_TIME - timedelta(seconds=self._clock.monotonic() - since)

    def _read(self) -> Shared:
        """What is shared; a newer answer than the one held is held from now on."""
        self.looked_at = self._clock.monotonic()
        shared = self._fleet.read()
        with self._lock:
            if shared.is_newer_than(self.held):
                self.held, self._rest = shared.held, None  # the rest was for want of it
        return shared

    def _fetch(self, flight: Flight, claim: Shared | None) -> Outcome:
        """Ask Partner Center, hold what it says and share it, as far as storage takes part."""
        began = self._clock.monotonic()
        decision = self.decide(flight.directives)
        try:
            self._opened = self._opened or self._open_client()
            left = self._left(claim.read if claim else flight.began)
            fetched = self._opened.get_usage_summary(flight.correlation_id, left)
        except UsageSummaryError as error:
            return replace(self._give_up(error, claim), decision=decision)
        now = self._clock.monotonic()
        by = claim or Shared(now, self._clock.now())
        answer = Answer(
            fetched.body,
            by.instant(fetched.sent),
            fetched.request_id,
            fetched.correlation_id,
            fetched.no_usage_data,
        )
        held = Held(answer, fetched.sent, is_exact=True, is_by_storage=claim is not None)
        with self._lock:
            if self.held is None or held.sent > self.held.sent:  # else this flight was overdue
                self.held, self._rest = held, None
        log_event(
            _log,
            logging.INFO,
            "usage_summary.refreshed",
            seconds=round(now - began, 3),
            noUsageData=fetched.no_usage_data is not None,
            requestId=fetched.request_id,
            correlationId=fetched.correlation_id,
        )
        if claim is not None:
            self._publish(claim, answer)
        return Outcome(Source.FETCHED, decision=decision)

    def _publish(self, claim: Shared, answer: Answer) -> None:
        try:
            if not self._fleet.publish(claim, answer):
                log_event(_log, logging.WARNING, "usage_summary.claim_lost", requestId=answer.request_id)
                self._read()
        except StorageError as error:
            self._say_not_shared(error)

    def _give_up(self, error: UsageSummaryError, claim: Shared | None) -> Outcome:
        """Keep away for a while, in all instances where storage takes part."""
        rest = uniform(*(_OPERATORS_REST if isinstance(error, OperatorError) else _REST))  # noqa: S311  # jitter
        wait = max(timedelta(seconds=rest), error.retry_after or timedelta())
        self._rest = Rest(self._clock.monotonic() + wait.total_seconds(), error)
        reply = error.reply
        log_failure(
            _log,
            logging.ERROR,
            "usage_summary.refresh_failed",
            error,
            upstreamStatus=reply and reply.status,
            upstreamCode=reply and reply.code,
            requestId=reply and reply.request_id,
            nextAttemptInSeconds=wait,
        )
        if claim is not None:
            try:
                if not self._fleet.back_off(claim, error, self._rest.until):
                    self._read()
            except StorageError as failure:
                self._say_not_shared(failure)
        return Outcome(Source.FETCHED, error)

    def _say_not_shared(self, error: StorageError) -> None:
        log_failure(_log, logging.WARNING, "usage_summary.not_shared", error)
