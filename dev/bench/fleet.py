"""How often several processes that share a cache ask Partner Center, and how long their callers wait."""

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass

from dev.azurite import Azurite
from dev.bench.caller import (
    CACHE_CONTROL,
    CALLERS,
    CASES,
    LIBRARIES,
    NO_CACHE,
    OURS,
    PAUSE,
    REQUESTS_CACHE,
    Heard,
    World,
    session_of,
)
from dev.bench.figures import Spread, percentile, ratio, spread
from dev.bench.hosts import settings_of
from dev.bench.report import Section, Table
from dev.bench.upstream import Calls, answer_after
from dev.children import child
from dev.simulator import Simulator

DELAY = 0.5
"""Seconds that a call of Partner Center takes."""

_START = 0.2  # seconds from the order to the first caller

METHOD = f"""\
{{processes}} processes, {CALLERS} callers in each, who come again {PAUSE} seconds after their answer. An \
answer is fresh for {{fresh}} seconds, and a call of Partner Center takes {DELAY} seconds. The libraries \
call it with a token that they are given, each caller in a thread and with a session of its own; the app \
signs in itself. Neither has HTTP between it and its callers: a library is called in their process, and so \
is the app here, which in truth answers over HTTP, at what a hit costs above; so p50 compares a lookup in \
memory with one in a file. Freshness is so short here that some of a hundred requests meet an expiry; with \
an hour, the default, hardly one does, and p99 is a hit wherever there is a cache. The processes share: \
the app its blob in Azurite, with stale-while-revalidate as long as fresh; requests-cache SQLite in one \
file, with `wal`, `fast_save` and `stale_if_error`, without and with `stale_while_revalidate`; CacheControl \
a FileCache, with the heuristic ExpiresAfter, since Partner Center sends no header to go by. An \
expiry is a call and all that come within half the time of freshness after it; without a cache the calls \
in one time of freshness stand for it. Failures are exceptions that a library raised at its callers or \
behind them."""


@dataclass(frozen=True)
class _Seen:
    """What came of one case in one round: calls by expiry, callers' waits in seconds."""

    expiries: list[float]
    waits: list[float]
    failures: list[str]

    @property
    def p99(self) -> float:
        """Seconds within which 99 of a hundred callers had their answer."""
        return percentile(self.waits, 99)


type _Done = dict[str, list[_Seen]]


class _Fleet:
    """Processes with callers in them, and Partner Center."""

    def __init__(
        self, stack: ExitStack, azurite: Azurite, *, processes: int, fresh: int, lead: float
    ) -> None:
        simulator = stack.enter_context(Simulator())
        answer_after(simulator.world, DELAY)
        self._calls, self._fresh, self._lead = Calls(simulator.world), fresh, lead
        own = {
            "USAGE_CACHE_FRESH_SECONDS": str(fresh),
            "USAGE_CACHE_STALE_WHILE_REVALIDATE_SECONDS": str(fresh),
            "USAGE_CACHE_MIN_REFRESH_SECONDS": "1",
        }
        settings = settings_of(azurite, simulator, **own)
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        command = [sys.executable, "-c", "from dev.bench import caller; caller.main()"]
        self._processes = [stack.enter_context(child(command, settings)) for _ in range(processes)]
        world = World(settings, simulator.world.access_token(), directory, fresh)
        for case in LIBRARIES:
            session_of(case, world).close()  # SQLite locks out all others while it makes a database
        self._ask(asdict(world))

    def warm_up(self) -> None:
        """Let every process do everything once."""
        for case in CASES:
            begins = time.monotonic()
            self._ask([case, begins, begins + 2 * PAUSE])

    def run(self, case: str, seconds: float) -> _Seen:
        """What comes of a case in so many seconds, once callers have come for a while."""
        begins = time.monotonic() + _START
        first = begins + self._lead
        ends = first + seconds
        heard = self._ask([case, begins, ends])
        calls = [call for call in self._calls if begins <= call < ends]
        counted = sum(first <= call for call in calls)
        whole = [each for each in self._expiries(calls) if first <= each[0] < ends - self._fresh / 2]
        return _Seen(
            [counted * self._fresh / seconds] if case == NO_CACHE else [float(len(each)) for each in whole],
            [wait for each in heard for came, wait in each.waits if came >= first],
            [name for each in heard for name in each.failures],
        )

    def _expiries(self, calls: Iterable[float]) -> list[list[float]]:
        """The calls of each expiry."""
        expiries: list[list[float]] = []
        for call in calls:
            if expiries and call - expiries[-1][0] < self._fresh / 2:
                expiries[-1].append(call)
            else:
                expiries.append([call])
        return expiries

    def _ask(self, what: object) -> list[Heard]:
        """Tell all processes; what each of them answers."""
        for process in self._processes:
            if process.stdin:
                process.stdin.write(f"{json.dumps(what)}\n")
                process.stdin.flush()
        return [_heard(process) for process in self._processes]


def measure(azurite: Azurite, *, quick: bool) -> Section:
    """The section on several processes."""
    processes, fresh, rounds, seconds = (2, 1, 1, 1) if quick else (8, 3, 3, 8)
    done: _Done = {case: [] for case in CASES}
    with ExitStack() as stack:
        lead = 0 if quick else fresh + DELAY
        fleet = _Fleet(stack, azurite, processes=processes, fresh=fresh, lead=lead)
        if not quick:
            fleet.warm_up()
        for _ in range(rounds):
            for case, seen in done.items():
                seen.append(fleet.run(case, seconds))
    table = Table([_row(case, done) for case in CASES])
    most = {case: _expiries(done[case]).highest for case in CASES}
    ours, callers = done[OURS], processes * CALLERS
    reading = (
        f"{processes} processes with this app made at most {most[OURS]:.0f} call an expiry and kept 99 of a"
        f" hundred callers for at most {1000 * max(each.p99 for each in ours):.0f} ms. Of the {callers}"
        f" callers who share a library's cache as many as {most[REQUESTS_CACHE]:.0f} and"
        f" {most[CACHE_CONTROL]:.0f} called Partner Center at an expiry (requests-cache, CacheControl):"
        " neither makes one wait for another's call."
    )
    method = METHOD.format(processes=processes, fresh=fresh)
    return Section("How often do several instances ask Partner Center?", method, [table], reading)


def _expiries(rounds: Iterable[_Seen]) -> Spread:
    return spread([calls for each in rounds for calls in each.expiries] or [0.0])


def _counted(names: Iterable[str]) -> str:
    """How many failures, by their names."""
    counts = Counter(names)
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "0"


def _row(case: str, done: _Done) -> dict[str, str]:
    rounds = done[case]
    p99 = [each.p99 for each in rounds]
    return {
        "case": case,
        "calls an expiry": f"{_expiries(rounds):.0f}",
        "p99, times this app's": f"{ratio(p99, [each.p99 for each in done[OURS]]):.1f}",
        "p50 ms": f"{1000 * spread(percentile(each.waits, 50) for each in rounds).median:.2f}",
        "p99 ms": f"{1000 * spread(p99).median:.1f}",
        "failures": _counted(name for each in rounds for name in each.failures),
    }


def _heard(process: subprocess.Popen[str]) -> Heard:
    """A process's next answer; raises RuntimeError for anything else."""
    line = process.stdout.readline() if process.stdout else ""
    try:
        return Heard(**json.loads(line))
    except ValueError:
        process.kill()
        rest = process.stdout.read() if process.stdout else ""
        raise RuntimeError(f"a process with callers said: {line}{rest}") from None
