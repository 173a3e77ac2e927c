"""The usage summary as one process gives it: kept in memory, shared with the fleet, refreshed once at a time.

A caller is answered from memory on the event loop: no lock, no thread, no storage. What needs any of these
is a flight: one thread that reads the shared answer and, if that is not enough, asks Partner Center, alone
of all instances. Callers who must wait join the flight; their leaving does not end it. How it ended is a
value, not an exception, for hundreds may share it. Storage that fails costs freshness, never an answer.
"""

import asyncio
import logging
import threading
import traceback
import uuid
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, auto
from functools import cached_property
from pathlib import Path
from random import uniform
from typing import TYPE_CHECKING

from shared.clock import Clock
from shared.errors import (
    NotCachedError,
    OperatorError,
    StorageError,
    UpstreamTimeoutError,
    UpstreamUnavailableError,
    UsageSummaryError,
)
from shared.events import Line, keeping, log_event, log_kept
from shared.fleet import Answer, Fleet, Shared
from shared.freshness import NO_DIRECTIVES, Decision, RequestDirectives, decide, is_usable
from shared.settings import Freshness

if TYPE_CHECKING:
    from shared.client import PartnerCenterClient

LONGEST_WAIT = timedelta(seconds=62)
"""A caller's; a little longer than a refresh can take."""

_REFRESH_TIME = timedelta(seconds=50)  # from reading the shared answer to the end of the upstream call
_OVERDUE = timedelta(seconds=130)  # a flight older than waiting for a claim and a refresh can be
_REST = 10.0, 20.0  # seconds after a failure, from and to: jitter
_OPERATORS_REST = 50.0, 58.0  # the same where somebody must act, who sees it work within a minute
_LOOK_AGAIN = timedelta(seconds=5)  # for an answer of another instance, while at rest
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
class Result:
    """An answer and its age, or why there is none; both where a stored answer stands in for a failure."""

    decision: Decision
    source: Source = Source.STORED
    answer: Answer | None = None
    age: timedelta = timedelta()
    error: UsageSummaryError | None = None
    retry_after: timedelta | None = None

    @property
    def is_plain_hit(self) -> bool:
        """Whether a fresh answer was served from memory: nothing worth a log line."""
        return self.decision is Decision.SERVE and self.error is None


@dataclass(frozen=True, slots=True)
class _Held:
    """An answer, and the monotonic second at which its call was sent."""

    answer: Answer
    sent: float


@dataclass(frozen=True, slots=True)
class _Rest:
    """Why nobody in this process asks before a monotonic second."""

    until: float
    error: UsageSummaryError


@dataclass(frozen=True, slots=True)
class _Outcome:
    """How a flight ended; the answer, if any, is held."""

    source: Source
    error: UsageSummaryError | None = None


@dataclass(frozen=True, slots=True)
class _Flight:
    """A refresh under way, for which other callers' want may be more, and when it began."""

    outcome: Future[_Outcome]
    directives: RequestDirectives
    is_behind: bool
    correlation_id: str
    began: float


@dataclass(frozen=True, slots=True)
class _Claim:
    """The shared state on which this process has the claim, and when that was read."""

    shared: Shared
    etag: str
    read: float


class Answers:
    """The one answer of this process, the same in all instances."""

    def __init__(
        self, fleet: Fleet, open_client: Callable[[], "PartnerCenterClient"], policy: Freshness, clock: Clock
    ) -> None:
        self._fleet = fleet
        self._open_client = open_client
        self._policy = policy
        self._clock = clock
        self._lock = threading.Lock()
        self._held: _Held | None = None
        self._rest: _Rest | None = None
        self._flight: _Flight | None = None
        self._read_at = float("-inf")
        self._unsaid: deque[Line] = deque()

    async def get(self, directives: RequestDirectives, correlation_id: str) -> Result:
        """The answer for one caller; never raises an error of this app, and ends within LONGEST_WAIT.

        The correlation id is used for the upstream call that this caller causes, if any.
        """
        ends = self._clock.monotonic() + LONGEST_WAIT.total_seconds()
        while True:
            log_kept(self._unsaid)
            decision = self._decide(directives)
            if decision is Decision.REFUSE:
                return await self._look(directives)
            result = self._at_once(decision, correlation_id)
            if result is not None:
                return result
            flight, is_mine = self._launch(directives, correlation_id, is_behind=False)
            left = ends - self._clock.monotonic()
            done, _ = await asyncio.wait({asyncio.wrap_future(flight.outcome)}, timeout=left)
            log_kept(self._unsaid)
            timeout = _Outcome(Source.FETCHED, UpstreamTimeoutError("the refresh has not ended in time"))
            outcome = flight.outcome.result() if done else timeout
            if outcome.error is not None:
                return self._failed(decision, outcome.source, outcome.error)
            if outcome.source is not Source.STORED:
                return self._stored(decision, outcome.source if is_mine else Source.COLLAPSED)
            decision = self._decide(directives)
            if is_mine or decision is not Decision.FETCH_REQUESTED:
                return self._at_once(decision, correlation_id) or self._stored(decision)
            # A flight begun for another caller was content with what is not enough for this one.

    def _at_once(self, decision: Decision, correlation_id: str) -> Result | None:
        """What needs no waiting, if that will do; begins the refresh behind a stale answer."""
        if decision is Decision.SERVE:
            return self._stored(decision)
        rest = self._current_rest()
        if decision is Decision.SERVE_AND_REFRESH:
            if rest is None:
                self._launch(NO_DIRECTIVES, correlation_id, is_behind=True)
            return self._stored(decision)
        has_looked = self._clock.monotonic() - self._read_at < _LOOK_AGAIN.total_seconds()
        if rest is None or not (has_looked or self._has_usable()):
            return None
        return self._failed(decision, Source.STORED, rest.error)

    async def _look(self, directives: RequestDirectives) -> Result:
        """What there is without asking Partner Center, once the shared answer is adopted."""
        try:
            await asyncio.to_thread(self._read)
        except StorageError as error:
            self._say_not_shared(error)
        decision = self._decide(directives)
        if decision is Decision.REFUSE:
            return Result(decision, error=NotCachedError("nothing usable is stored"))
        return self._stored(decision)

    def _decide(self, directives: RequestDirectives) -> Decision:
        held = self._held
        return decide(None if held is None else self._age(held), directives, self._policy)

    def _age(self, held: _Held) -> timedelta:
        return timedelta(seconds=max(self._clock.monotonic() - held.sent, 0))

    def _has_usable(self) -> bool:
        held = self._held
        return held is not None and is_usable(self._age(held), self._policy)

    def _current_rest(self) -> _Rest | None:
        rest = self._rest
        return rest if rest is not None and self._clock.monotonic() < rest.until else None

    def _stored(self, decision: Decision, source: Source = Source.STORED) -> Result:
        held = self._held
        if held is None:
            raise AssertionError("there is an answer whenever one may be served")
        return Result(decision, source, held.answer, self._age(held))

    def _failed(self, decision: Decision, source: Source, error: UsageSummaryError) -> Result:
        held, rest = self._held, self._current_rest()
        if held is not None and is_usable(self._age(held), self._policy):
            return Result(decision, source, held.answer, self._age(held), error)
        wait = timedelta(seconds=rest.until - self._clock.monotonic()) if rest else error.retry_after
        return Result(decision, source, error=error, retry_after=wait)

    def _launch(
        self, directives: RequestDirectives, correlation_id: str, *, is_behind: bool
    ) -> tuple[_Flight, bool]:
        """The flight under way, or a new one, and whether it is new."""
        now = self._clock.monotonic()
        with self._lock:
            if self._flight is not None and now - self._flight.began < _OVERDUE.total_seconds():
                return self._flight, False
            flight = _Flight(Future(), directives, is_behind, correlation_id, now)
            flight.outcome.set_running_or_notify_cancel()  # from here on no caller can cancel it
            threading.Thread(target=self._fly, args=(flight,), name="refresh", daemon=True).start()
            self._flight = flight
            return flight, True

    def _fly(self, flight: _Flight) -> None:
        with keeping(self._unsaid):  # the thread belongs to no invocation, and may outlive all that wait
            try:
                outcome = self._refresh(flight)
            except Exception as error:  # noqa: BLE001  # a defect must not leave callers waiting
                frame = traceback.extract_tb(error.__traceback__)[-1]
                where = f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"
                outcome = self._give_up(UpstreamUnavailableError(f"a defect: {where}"), None)
        with self._lock:
            if self._flight is flight:  # else it was overdue, and another has begun
                self._flight = None
        flight.outcome.set_result(outcome)

    @cached_property
    def _client(self) -> "PartnerCenterClient":
        return self._open_client()

    def _refresh(self, flight: _Flight) -> _Outcome:
        """Adopt the shared answer if that is enough, else fetch under the claim, or without storage."""
        try:
            claim = self._claim(flight)
        except StorageError as error:
            self._say_not_shared(error)
            rest = self._current_rest()
            return self._fetch(flight, None) if rest is None else _Outcome(Source.STORED, rest.error)
        return claim if isinstance(claim, _Outcome) else self._fetch(flight, claim)

    def _claim(self, flight: _Flight) -> _Claim | _Outcome:
        """The claim, or an outcome that needs none; waits for another instance's fetch where it must."""
        waits_with, waits, lost = self._held, False, 0
        while True:
            shared, read = self._read()
            if waits and self._held is not waits_with:
                return _Outcome(Source.COLLAPSED)
            outcome = self._settled(flight, shared, read)
            if outcome is not None:
                return outcome
            if not shared.keep_away:
                etag = self._fleet.claim(shared, uuid.uuid4().hex)
                if etag is not None:
                    return _Claim(shared, etag, read)
                lost += 1
                if lost == _LOST_CLAIMS:
                    raise StorageError("the claim is neither to be had nor held by anybody")
            elif read - flight.began > LONGEST_WAIT.total_seconds():
                error = UpstreamUnavailableError("another instance is asking", retry_after=shared.keep_away)
                return _Outcome(Source.STORED, error)
            else:
                waits_with, waits, lost = waits_with if waits else self._held, True, 0
                self._clock.sleep(uniform(*_POLL))  # noqa: S311  # jitter

    def _settled(self, flight: _Flight, shared: Shared, read: float) -> _Outcome | None:
        """How a flight ends that needs no fetch of its own, now that the shared answer is adopted."""
        decision, rest = self._decide(flight.directives), self._current_rest()
        if decision is Decision.SERVE or (decision is Decision.SERVE_AND_REFRESH and not flight.is_behind):
            return _Outcome(Source.STORED)
        if rest is None and shared.keep_away and shared.failure is not None:
            rest = self._rest = _Rest(read + shared.keep_away.total_seconds(), shared.failure)
        if rest is not None:
            return _Outcome(Source.STORED, rest.error)
        is_enough = flight.is_behind or (decision is Decision.FETCH_STALE and self._has_usable())
        return _Outcome(Source.STORED) if shared.keep_away and is_enough else None

    def _read(self) -> tuple[Shared, float]:
        """What is shared, and when it was read; a newer answer than the one held is held from now on."""
        self._read_at = self._clock.monotonic()
        shared, read = self._fleet.read(), self._clock.monotonic()
        answer = shared.answer
        with self._lock:
            if answer and (self._held is None or answer.fetched_at > self._held.answer.fetched_at):
                self._held = _Held(answer, read - (shared.at - answer.fetched_at).total_seconds())
        return shared, read

    def _fetch(self, flight: _Flight, claim: _Claim | None) -> _Outcome:
        """Ask Partner Center, hold what it says and share it, as far as storage takes part."""
        began = self._clock.monotonic()
        passed = timedelta(seconds=began - (claim.read if claim else flight.began))
        try:
            fetched = self._client.get_usage_summary(flight.correlation_id, _REFRESH_TIME - passed)
        except UsageSummaryError as error:
            return self._give_up(error, claim)
        now = self._clock.monotonic()
        at, read = (claim.shared.at, claim.read) if claim else (self._clock.now(), now)
        answer = Answer(
            fetched.body,
            at + timedelta(seconds=fetched.sent - read),
            fetched.request_id,
            fetched.correlation_id,
            fetched.no_usage_data,
        )
        with self._lock:
            self._held, self._rest = _Held(answer, fetched.sent), None
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
            self._publish(answer, claim)
        return _Outcome(Source.FETCHED)

    def _publish(self, answer: Answer, claim: _Claim) -> None:
        try:
            if not self._fleet.publish(answer, claim.etag):
                log_event(_log, logging.WARNING, "usage_summary.claim_lost", requestId=answer.request_id)
                self._read()
        except StorageError as error:
            self._say_not_shared(error)

    def _give_up(self, error: UsageSummaryError, claim: _Claim | None) -> _Outcome:
        """Keep away for a while, in all instances where storage takes part."""
        rest = uniform(*(_OPERATORS_REST if isinstance(error, OperatorError) else _REST))  # noqa: S311  # jitter
        wait = max(timedelta(seconds=rest), error.retry_after or timedelta())
        now = self._clock.monotonic()
        self._rest = _Rest(now + wait.total_seconds(), error)
        reply = error.reply
        log_event(
            _log,
            logging.ERROR,
            "usage_summary.refresh_failed",
            error=type(error).__name__,
            message=error.message,
            hint=error.hint,
            upstreamStatus=reply and reply.status,
            upstreamCode=reply and reply.code,
            requestId=reply and reply.request_id,
            nextAttemptInSeconds=wait,
        )
        if claim is not None:
            until = claim.shared.at + timedelta(seconds=now - claim.read) + wait
            try:
                self._fleet.back_off(claim.shared, claim.etag, error, until)
            except StorageError as failure:
                self._say_not_shared(failure)
        return _Outcome(Source.FETCHED, error)

    def _say_not_shared(self, error: StorageError) -> None:
        log_event(_log, logging.WARNING, "usage_summary.not_shared", message=error.message)
