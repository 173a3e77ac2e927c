"""Threads of the app that go on only when a test says so, each until its next call out, and time by hand."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any, ClassVar

_ROUNDS = 12  # of the event loop: what a caller does between two waits needs fewer


class Killed(BaseException):  # no error: the process of this thread is no more
    """Ends a thread where it waits, without a trace."""


class Broken(BaseException):  # the app takes an Exception for a defect of its own, and goes on
    """What must not be was seen on a thread of the app; ends it, and the test."""


class Strand(threading.Thread):
    """Stands in for Thread: begins, and passes each gate, when it is told to; so only one runs at a time."""

    born: ClassVar[list["Strand"]] = []
    """Those that have been started, and wait to begin."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401  # handed on
        super().__init__(*arguments, **options)
        self.gate: object = "begins"
        """Where it waits."""
        self._goes_on, self._waits = threading.Semaphore(0), threading.Semaphore(0)
        self._is_killed = False
        self._broken: Broken | None = None

    @classmethod
    def current(cls) -> "Strand":
        strand = threading.current_thread()
        assert isinstance(strand, Strand), "a call out on the event loop"
        return strand

    def start(self) -> None:
        super().start()
        self._waits.acquire()
        self.born.append(self)

    def run(self) -> None:
        try:
            self.wait_at("begins")
            super().run()
        except Killed:
            pass
        except Broken as broken:
            self._broken = broken
        finally:
            self.gate = None
            self._waits.release()

    def wait_at(self, gate: object) -> None:
        """Called by the thread itself."""
        self.gate = gate
        self._waits.release()
        self._goes_on.acquire()
        if self._is_killed:
            raise Killed

    def go_on(self) -> None:
        """To the next gate, or to the end."""
        assert self.gate is not None, "it has ended"
        self._goes_on.release()
        self._waits.acquire()
        if self.gate is None:
            self.join()
        if self._broken is not None:
            raise AssertionError(str(self._broken))

    def kill(self) -> None:
        self._is_killed = True
        while self.gate is not None:
            self.go_on()


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose time is somebody else's."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        super().__init__()

    def time(self) -> float:
        return self._seconds()

    def spin(self) -> None:
        """Do all that can be done now."""
        self.run_until_complete(_spin())


async def _spin() -> None:
    for _ in range(_ROUNDS):
        await asyncio.sleep(0)
