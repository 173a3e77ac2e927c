"""Refreshes in threads, one at a time in a process, and who waits for them.

A thread belongs to no invocation and may outlive all callers; its log lines are kept for the next invocation.
"""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import timedelta

from shared.clock import Clock
from shared.errors import UpstreamUnavailableError
from shared.events import Line, keeping
from shared.freshness import RequestDirectives
from shared.outcome import Outcome, Source, Wanted
from shared.refresh import Refresh

_OVERDUE = timedelta(seconds=130)  # a flight older than waiting for a claim and asking can be


@dataclass(frozen=True, slots=True)
class Flight:
    """A refresh under way, for which other callers' want may be more."""

    wanted: Wanted
    outcome: Future[Outcome]


class Flights:
    """The refresh under way, and the look at the shared answer, at most one of each."""

    def __init__(self, refresh: Refresh, clock: Clock) -> None:
        self.unsaid: deque[Line] = deque()
        """Log lines, for the next invocation to log."""
        self._refresh = refresh
        self._clock = clock
        self._flight: Flight | None = None
        self._look: Future[None] | None = None
        self._lock = threading.Lock()

    def launch(
        self, directives: RequestDirectives, correlation_id: str, *, is_behind: bool
    ) -> tuple[Flight, bool]:
        """The flight under way, or a new one, and whether it is new."""
        now = self._clock.monotonic()
        with self._lock:
            flight = self._flight
            if flight is not None and now - flight.wanted.began < _OVERDUE.total_seconds():
                return flight, False
            flight = Flight(Wanted(directives, is_behind, correlation_id, now), _running())
            if _is_started("refresh", self._fly, flight):
                self._flight = flight
            else:
                error = UpstreamUnavailableError("this process can start no thread")
                flight.outcome.set_result(Outcome(Source.STORED, error))
            return flight, True

    def look(self) -> "Future[None]":
        """A look at the shared answer, which is held if it is newer; one at a time for all callers."""
        with self._lock:
            look = self._look
            if look is None or look.done():
                look = self._look = _running()
                if not _is_started("look", self._look_at, look):
                    look.set_result(None)
            return look

    def _fly(self, flight: Flight) -> None:
        with keeping(self.unsaid):
            outcome = self._refresh.run(flight.wanted)
            with self._lock:
                if self._flight is flight:  # else it was overdue, and another has begun
                    self._flight = None
            flight.outcome.set_result(outcome)
            if outcome.source is Source.FETCHED:
                self._refresh.settle()

    def _look_at(self, look: "Future[None]") -> None:
        with keeping(self.unsaid):
            try:
                self._refresh.look()
            finally:
                look.set_result(None)


def _running[T]() -> Future[T]:
    """A future that no caller can cancel."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()
    return future


def _is_started[T](name: str, work: Callable[[T], None], argument: T) -> bool:
    try:
        threading.Thread(target=work, args=(argument,), name=name, daemon=True).start()
    except RuntimeError:
        return False
    return True
