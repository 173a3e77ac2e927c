"""No test leaves anything open in its process: no file, socket or other descriptor, and no thread.

A look is cheap and exact: nothing is collected, so what waits for the collector counts as open. Fixtures of
more than one test begin before the look of the first, and what their servers accept is theirs.
"""

import errno
import gc
import os
import socket
import stat
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

PATIENCE = 10.0
"""Seconds for what another thread is just closing, on a machine that has much to do."""

_DESCRIPTORS = Path("/proc/self/fd")  # Linux's; elsewhere only threads are looked for
_OUTLIVING: set[tuple[int, int, int]] = set()


@pytest.fixture(autouse=True)
def _closes_what_it_opens() -> Iterator[None]:
    """A test that leaves something open fails itself, and not another that finds it."""
    with nothing_left_open(PATIENCE):
        yield


@contextmanager
def nothing_left_open(patience: float) -> Iterator[None]:
    """Fail, naming it, if anything has been opened within that is open after so many seconds."""
    before = _Open.now()
    yield
    if left := before.left(patience):
        with warnings.catch_warnings(action="ignore", category=ResourceWarning):
            gc.collect()  # no other test shall find it
        pytest.fail(f"left open: {', '.join(left)}", pytrace=False)


@contextmanager
def outliving_the_test() -> Iterator[None]:
    """What is opened within is for the tests that follow as well."""
    before = _Open.now()
    yield
    _OUTLIVING.update(_Open.now().descriptors - before.descriptors)


@dataclass(frozen=True, slots=True)
class _Open:
    """What is open at one instant; a descriptor by its number, device and inode."""

    descriptors: frozenset[tuple[int, int, int]]
    threads: frozenset[threading.Thread]

    @classmethod
    def now(cls) -> "_Open":
        found = set()
        if _DESCRIPTORS.exists():
            for name in os.listdir(_DESCRIPTORS):  # noqa: PTH208  # twice as fast, six thousand times
                with suppress(OSError):  # that of the listing itself
                    status = os.fstat(int(name))
                    found.add((int(name), status.st_dev, status.st_ino))
        return cls(frozenset(found), frozenset(threading.enumerate()))

    def left(self, patience: float) -> list[str]:
        """What has been opened since and stays open, in words."""
        ends = time.monotonic() + patience
        for thread in set(threading.enumerate()) - self.threads:
            with suppress(RuntimeError):  # another thread is just starting it
                thread.join(max(0.0, ends - time.monotonic()))
        while (found := self._since()) and time.monotonic() < ends:
            threading.Event().wait(0.002)
        return found

    def _since(self) -> list[str]:
        now = self.now()
        descriptors = now.descriptors - self.descriptors - _OUTLIVING
        threads = now.threads - self.threads
        if not descriptors and not threads:
            return []
        ports = {port for number, *_ in self.descriptors & now.descriptors if (port := _listens_on(number))}
        found = [said for number, *_ in descriptors if (said := _description(number, ports))]
        return sorted([*found, *(f"thread {thread.name}" for thread in threads)])


def _listens_on(number: int) -> int | None:
    """The port of a listening socket."""
    with suppress(OSError), _same_socket(number) as same:
        if same.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return _port(same.getsockname())
    return None


def _description(number: int, ports: set[int]) -> str:
    """A descriptor in words; empty where it has been closed, or a server on one of the ports accepted it."""
    said = ""
    with suppress(OSError):
        said = str((_DESCRIPTORS / str(number)).readlink())
        with _same_socket(number) as same:
            if _port(same.getsockname()) in ports:
                return ""
            said += f" of {same.getsockname()}"
            said += f" to {same.getpeername()}"
    return said


def _same_socket(number: int) -> socket.socket:
    """A second handle of a socket. Raises OSError where the descriptor is none."""
    if not stat.S_ISSOCK(os.fstat(number).st_mode):
        raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK))
    return socket.socket(fileno=os.dup(number))


def _port(address: object) -> int | None:
    return address[1] if isinstance(address, tuple) else None
