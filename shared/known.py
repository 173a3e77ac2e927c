"""What a process knows: the answer that it holds, until when nobody asks for another, and what that means."""

import threading
from dataclasses import dataclass, replace
from datetime import timedelta

from shared.clock import Clock
from shared.errors import UsageSummaryError
from shared.freshness import Decision, RequestDirectives, decide, is_usable
from shared.held import CLOCK_GRAIN, Held, Shared
from shared.settings import Freshness


@dataclass(frozen=True, slots=True)
class Rest:
    """Why nobody in this process asks before a monotonic second."""

    until: float
    error: UsageSummaryError


class Known:
    """Changes under a lock, and is read without one: each part of it is replaced whole."""

    def __init__(self, policy: Freshness, clock: Clock) -> None:
        self.held: Held | None = None
        self.looked_at = float("-inf")
        """The monotonic second of the last look at the shared answer."""
        self._rest: Rest | None = None
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

    def decide(self, directives: RequestDirectives) -> Decision:
        """What to do for a request, given the answer held."""
        return self._decide(directives, self._policy)

    def decide_exactly(self, directives: RequestDirectives) -> Decision:
        """What to do before anybody asks: the floor holds, though storage's clock is coarse."""
        held, policy = self.held, self._policy
        if held is not None and not held.is_exact:
            policy = replace(policy, min_refresh=policy.min_refresh + CLOCK_GRAIN)
        return self._decide(directives, policy)

    def has_usable(self) -> bool:
        """Whether the answer held may still be served, if only because nothing better is to be had."""
        held = self.held
        return held is not None and is_usable(self.age(held), self._policy)

    def adopt(self, shared: Shared) -> None:
        """Hold the shared answer if it is newer, and keep away if all do."""
        with self._lock:
            if shared.is_newer_than(self.held):
                self.held, self._rest = shared.held, None  # the rest was for want of it
            if self.rest is None and shared.failure is not None:
                self._rest = Rest(shared.until, shared.failure)

    def hold(self, held: Held) -> None:
        """Hold an answer that was fetched, unless a newer one is held."""
        with self._lock:
            if self.held is None or held.sent > self.held.sent:
                self.held, self._rest = held, None

    def keep_away(self, wait: timedelta, error: UsageSummaryError) -> float:
        """Rest so long; the monotonic second at which that ends."""
        until = self._clock.monotonic() + wait.total_seconds()
        self._rest = Rest(until, error)
        return until

    def _decide(self, directives: RequestDirectives, policy: Freshness) -> Decision:
        held = self.held
        return decide(None if held is None else self.age(held), directives, policy)
