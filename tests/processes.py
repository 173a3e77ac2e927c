"""The fleet as real processes on one storage, and what tests do to them; fleet_worker is their side."""

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from dev.azurite import Azurite
from dev.simulator import Exchange, Service, World
from shared.blob import Blob
from shared.blobs import PATIENT, Container
from shared.settings import StorageConnection
from tests.clients import blob_container
from tests.conftest import shared_name
from tests.fleet_worker import Reply
from tests.leaks import outliving_the_test
from tests.threads import PATIENCE

ROOT = Path(__file__).parent.parent


def eventually(condition: Callable[[], object]) -> None:
    """Wait until something holds."""
    ends = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < ends, "it never came true"
        time.sleep(0.02)


class Call(NamedTuple):
    """A call of Partner Center: made by which process, come at which monotonic second."""

    pid: int
    second: float


class Calls(list[Call]):
    """All calls of Partner Center; an observer of the world."""

    def __init__(self) -> None:
        super().__init__()
        self._answers = threading.Event()
        self._answers.set()

    def __call__(self, exchange: Exchange) -> None:
        if exchange.service is Service.PARTNER_CENTER:
            pid = int(exchange.headers["ms-correlationid"][:8], 16)
            self.append(Call(pid, time.monotonic()))
            self._answers.wait(PATIENCE)

    @contextmanager
    def unanswered(self) -> Iterator[None]:
        """The world answers nobody who has called Partner Center."""
        self._answers.clear()
        try:
            yield
        finally:
            self._answers.set()


class Process:
    """One process, which does what it is told and answers in order."""

    def __init__(self) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "tests.fleet_worker"],
            cwd=ROOT,
            env={},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        self.pid = self._popen.pid
        self.owes = 0

    def tell(self, command: str, **arguments: object) -> None:
        assert self._popen.stdin
        self._popen.stdin.write(f"{json.dumps([command, arguments])}\n")
        self._popen.stdin.flush()
        self.owes += 1

    def hear(self, patience: float = PATIENCE) -> Any:  # noqa: ANN401  # JSON
        """The answer to the first command that has none yet."""
        assert self._popen.stdout
        ready, _, _ = select.select([self._popen.stdout], [], [], patience)
        assert ready, f"process {self.pid} does not answer"
        line = self._popen.stdout.readline()
        assert line, f"process {self.pid} has ended"
        self.owes -= 1
        return json.loads(line)

    def ask(self, command: str, **arguments: object) -> Any:  # noqa: ANN401  # JSON
        self.tell(command, **arguments)
        return self.hear()

    def send(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def wait_for_death(self) -> None:
        assert self._popen.wait(PATIENCE) == -signal.SIGKILL

    def end(self) -> None:
        self._popen.kill()  # which also ends one that is stopped
        with suppress(BrokenPipeError), self._popen:
            pass


class Idle(list[Process]):
    """Processes that have nothing to do; to start one takes a second."""

    def take(self, count: int) -> list[Process]:
        with outliving_the_test():
            self.extend(Process() for _ in range(count - len(self)))
        return [self.pop() for _ in range(count)]

    def take_back(self, processes: list[Process]) -> None:
        """Keep those that answered all they were told, once nothing goes on in them; end the others."""
        for process in processes:
            if process.owes:
                process.end()
        done = [process for process in processes if not process.owes]
        for process in done:
            process.tell("settle")
        for process in done:
            process.hear()
        self.extend(done)


@dataclass
class Fleet:
    """Processes that share one answer, and the world around them."""

    processes: list[Process]
    environ: dict[str, str]
    azurite: Azurite
    world: World
    everybodys_calls: Calls
    clocks_are_off_by: timedelta = timedelta()
    """Every other process's clock is so far ahead, the others' as far behind."""
    dead: set[int] = field(default_factory=set)

    @property
    def calls(self) -> list[Call]:
        """This fleet's calls of Partner Center."""
        pids = {process.pid for process in self.processes} | self.dead
        return [call for call in self.everybodys_calls if call.pid in pids]

    def first_caller(self) -> int:
        """The process that calls Partner Center first, once it does."""
        eventually(lambda: self.calls)
        return self.calls[0].pid

    def start(self, **options: object) -> None:
        """Start the app anew in every process; see Worker.start."""
        off_by = self.clocks_are_off_by.total_seconds()
        for process in self.processes:
            process.tell("start", environ=self.environ, clock_is_off_by=off_by, **options)
            off_by = -off_by
        self.hear()

    def tell(self, command: str, **arguments: object) -> None:
        for process in self.processes:
            process.tell(command, **arguments)

    def hear(self) -> list[Any]:
        return [process.hear() for process in self.processes]

    def ask(self, command: str, **arguments: object) -> list[Any]:
        self.tell(command, **arguments)
        return self.hear()

    def replies(self) -> list[Reply]:
        """To callers of whom all processes were told."""
        return [Reply(**reply) for replies in self.hear() for reply in replies]

    def get(self, callers: int = 4, cache_control: str = "") -> list[Reply]:
        """So many callers come to each process, all at once."""
        self.tell("get", callers=callers, cache_control=cache_control)
        return self.replies()

    def until_all_serve(self, body: str) -> list[Reply]:
        """Callers come until every process serves this from memory; what they saw."""
        seen: list[Reply] = []

        def do() -> bool:
            replies = self.get(1)
            seen.extend(replies)
            return all(reply.body == body and reply.is_hit for reply in replies)

        eventually(do)
        return seen

    def new_document(self) -> str:
        """What Partner Center says from now on."""
        body = f'{{"totalCost":{uuid.uuid4().int}}}'
        self.world.document = body.encode()
        return body

    def store(self, age: timedelta, **options: object) -> str:
        """An answer of some age lies on storage and, after a start, in the memory of all; its body."""
        body = self.new_document()
        first = self.processes[0]
        first.ask("start", environ=self.environ)
        assert [reply["status"] for reply in first.ask("get")] == [200]
        self.let_age(age)
        self.start(**options)
        assert {reply.body for reply in self.get(1, "only-if-cached")} == {body}
        self.everybodys_calls[:] = [call for call in self.everybodys_calls if call.pid != first.pid]
        return body

    def let_age(self, by: timedelta) -> None:
        """Make the shared answer older."""
        self._move("fetched", by)

    def end_claim(self) -> None:
        """Storage's clock has gone on until the claim, if there is one, keeps nobody away any longer.

        It tells whole seconds, and a claim outlives its answer by many: so two go by indeed.
        """
        name = shared_name(self.environ)
        began = self._container.read(name).at
        eventually(lambda: self._container.read(name).at > began + timedelta(seconds=1))
        if "until" in self.stored.metadata:
            self._move("until", timedelta(minutes=2))

    def end_back_off(self) -> None:
        """Storage's clock has gone on until asking is allowed again."""
        self._move("until", timedelta(minutes=2))

    @property
    def stored(self) -> Blob:
        """The shared answer."""
        blob = self._container.read(shared_name(self.environ)).blob
        assert blob is not None
        return blob

    def delete_container(self) -> None:
        name = self.environ["USAGE_CACHE_CONTAINER"]
        with blob_container(self.azurite.connection_string, name) as client:
            client.delete_container()

    def of(self, pid: int) -> Process:
        (process,) = (each for each in self.processes if each.pid == pid)
        return process

    def bury(self, pid: int) -> None:
        """Wait for the death of one process, and do without it."""
        process = self.of(pid)
        process.wait_for_death()
        process.end()
        self.processes.remove(process)
        self.dead.add(pid)

    def _move(self, name: str, by: timedelta) -> None:
        blob = self.stored
        instant = datetime.fromisoformat(blob.metadata[name]) - by
        self._container.write(
            shared_name(self.environ),
            blob.content,
            "application/json; charset=utf-8",
            replacing=blob.etag,
            metadata={**blob.metadata, name: instant.isoformat(timespec="milliseconds")},
        )

    @property
    def _container(self) -> Container:
        connection = StorageConnection(self.azurite.connection_string)
        return Container(self.environ["USAGE_CACHE_CONTAINER"], connection, PATIENT, None)
