"""Time as an argument: what a test moves by hand."""

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

_LEAP = 60.0  # seconds; a wall clock is put right by less, many times


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _seconds_with_sleep() -> float:
    """Seconds that never go back and go on while the machine sleeps.

    time.monotonic stops then on Linux and on macOS, whose CLOCK_MONOTONIC goes on (clock_gettime(3)).
    """
    if sys.platform == "win32":
        return time.monotonic()
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class PassedSeconds:
    """Seconds that never go back; time in which the machine slept or was paused counts.

    All clocks of a virtual machine stop while it is paused, and only the wall clock is put right afterwards.
    So a leap ahead of the wall clock counts as time that has passed. A person who puts the clock ahead makes
    the same leap: an answer is then fetched early, and nothing is lost. A clock put back changes nothing, but
    a pause that is no longer than that is not noticed.
    """

    def __init__(
        self,
        counted: Callable[[], float] = _seconds_with_sleep,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._counted = counted
        self._wall = wall
        self._lock = threading.Lock()
        self._ahead = wall() - counted()

    def __call__(self) -> float:
        """The seconds now; only differences mean something."""
        counted = self._counted()
        ahead = self._wall() - counted
        if ahead > self._ahead + _LEAP:
            with self._lock:
                self._ahead = max(self._ahead, ahead)
        return counted + self._ahead


passed_seconds = PassedSeconds()


@dataclass(frozen=True, slots=True)
class Clock:
    """The instant in UTC, seconds that never go back, and waiting."""

    now: Callable[[], datetime] = _utc_now
    monotonic: Callable[[], float] = passed_seconds
    sleep: Callable[[float], None] = time.sleep
