"""One process of a fleet: a line of JSON in is a command, a line out its answer.

A command is the name of a method of Worker and its arguments. The process ends with its standard input.
"""

import asyncio
import functools
import gc
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from itertools import cycle
from typing import Any
from uuid import uuid4

import psutil

from shared.app import App
from shared.client import PartnerCenterClient
from shared.clock import Clock
from shared.errors import UsageSummaryError
from shared.fleet import Fleet
from shared.freshness import parse_request_directives
from shared.http import respond
from shared.replies import Fetched
from tests.threads import settle


@dataclass(frozen=True)
class Reply:
    """What a caller sees, and for how long it waited."""

    status: int
    body: str
    seconds: float
    age: int | None
    how: str
    cache_control: str
    retry_after: int | None

    @property
    def is_hit(self) -> bool:
        """Whether it came from memory, and fresh."""
        return self.how.startswith("usage-summary; hit; ttl=") and not self.is_stale

    @property
    def is_stale(self) -> bool:
        """Whether it came from memory, at once, and stale."""
        return self.how.startswith("usage-summary; hit; ttl=-")


@dataclass(frozen=True)
class Trap:
    """Where the first of all processes that comes there gets a signal, and leaves its process id behind."""

    step: str
    number: int
    mark: str

    def spring(self) -> None:
        try:
            with open(self.mark, "x", encoding="ascii") as mark:  # noqa: PTH123  # "x": one wins
                mark.write(f"{os.getpid()}\n")
        except FileExistsError:
            return
        os.kill(os.getpid(), self.number)


STEPS = {
    "claimed": (Fleet, "claim"),
    "fetched": (PartnerCenterClient, "get_usage_summary"),
    "published": (Fleet, "publish"),
}


def after(owner: type, name: str, then: Callable[[object], None]) -> None:
    """Do something with what a method returns, whenever it has succeeded."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*arguments: object, **options: object) -> object:
        result = original(*arguments, **options)
        if result:
            then(result)
        return result

    setattr(owner, name, wrapped)


class Worker:
    """An instance of the app, with a clock that is wrong and moves on when told to."""

    def __init__(self) -> None:
        self._app: App | None = None
        self._trap: Trap | None = None
        self._skipped = 0.0
        self._sent: list[float] = []
        for step, (owner, name) in STEPS.items():
            after(owner, name, functools.partial(self._step, step))

    def start(
        self,
        environ: dict[str, str],
        *,
        clock_is_off_by: float = 0.0,
        trap: dict[str, Any] | None = None,
    ) -> None:
        """Begin anew, as after a restart; times in seconds."""
        os.environ.clear()
        os.environ.update(environ)
        self._sent = []
        self._trap, self._skipped, wrong = (
            Trap(**trap) if trap else None,
            0.0,
            timedelta(seconds=clock_is_off_by),
        )
        self._app = App(
            os.environ,
            Clock(lambda: datetime.now(UTC) + wrong, lambda: time.monotonic() + self._skipped),
        )

    def skip(self, seconds: float) -> None:
        """Let time pass in this process."""
        self._skipped += seconds

    def sent(self) -> list[float]:
        """The monotonic seconds, which are the same in all processes, at which answered calls were sent."""
        return self._sent

    def snapshot(self) -> dict[str, Any]:
        """A run of the timer: its outcome and the day's blob, or the error that it raised."""
        assert self._app is not None
        try:
            done = self._app.take_snapshot()
        except UsageSummaryError as error:
            return {"error": type(error).__name__}
        return {name: done.get(name) for name in ("outcome", "blob")}

    def figures(self) -> dict[str, int]:
        """What the process holds, once nothing goes on in it: kilobytes, threads, and files with sockets."""
        settle()
        gc.collect()
        own = psutil.Process()
        return {
            "kilobytes": own.memory_info().rss // 1024,
            "threads": own.num_threads(),
            "files": own.num_fds(),
        }

    def settle(self) -> None:
        """Wait for refreshes under way."""
        settle()

    async def get(self, callers: int = 1, cache_control: str = "") -> list[dict[str, Any]]:
        """Callers who come at once."""
        replies = await asyncio.gather(*(self._ask(cache_control) for _ in range(callers)))
        return [asdict(reply) for reply in replies]

    async def storm(self, callers: int, seconds: float, cache_controls: list[str]) -> dict[str, Any]:
        """Callers who each come again and again for some time: what they saw, and the longest wait."""
        ends, seen, longest = time.monotonic() + seconds, Counter[str](), 0.0

        async def caller() -> None:
            nonlocal longest
            for cache_control in cycle(cache_controls):
                if time.monotonic() > ends:
                    return
                reply = await self._ask(cache_control)
                seen[f"{reply.status} {reply.body}"] += 1
                longest = max(longest, reply.seconds)
                await asyncio.sleep(0.02)

        await asyncio.gather(*(caller() for _ in range(callers)))
        return {"seen": seen, "longest": longest}

    async def _ask(self, cache_control: str) -> Reply:
        assert self._app is not None
        correlation_id = f"{os.getpid():08x}{str(uuid4())[8:]}"  # tells whose an upstream call is
        began = time.monotonic()
        result = await self._app.get_usage_summary(parse_request_directives(cache_control), correlation_id)
        fresh = self._app.freshness.fresh
        response = respond(result, correlation_id, fresh)
        seconds, headers = time.monotonic() - began, response.headers
        age, retry_after = headers.get("Age"), headers.get("Retry-After")
        return Reply(
            int(response.status),
            response.body.decode(),
            seconds,
            None if age is None else int(age),
            headers.get("Cache-Status", ""),
            headers["Cache-Control"],
            None if retry_after is None else int(retry_after),
        )

    def _step(self, step: str, result: object) -> None:
        if isinstance(result, Fetched):
            self._sent.append(result.sent)
        if self._trap and self._trap.step == step:
            self._trap.spring()


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the tests', who close the standard input
    worker = Worker()
    with asyncio.Runner() as runner:
        for line in sys.stdin:
            command, arguments = json.loads(line)
            result = getattr(worker, command)(**arguments)
            if asyncio.iscoroutine(result):
                result = runner.run(result)
            sys.stdout.write(f"{json.dumps(result)}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
