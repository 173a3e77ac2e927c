"""What callers notice who could be served from memory while Partner Center does not answer."""

import asyncio
import tempfile
from contextlib import ExitStack
from pathlib import Path

from dev.azurite import Azurite
from dev.bench.figures import Spread, ratio, spread
from dev.bench.hosts import FUNCTION, Host, host, make_app, settings_of
from dev.bench.load import Case, Done, Round, ask, load, request, take_turns, title
from dev.bench.report import Section, Table
from dev.bench.upstream import Calls, answer_after
from dev.simulator import Fault, Service, Simulator

CONNECTIONS = 1, 32
WAITING = 8
"""Callers who ask for a fresh answer and get none."""

GOAL = 1.5
"""So many times longer than at rest may a hit take."""

_MARGIN = 1.0  # seconds for which Partner Center hangs on when a round is over
REST, OTHERS_WAIT, BEHIND, REFUSED = (
    "fresh, and nothing else going on",
    f"fresh, {WAITING} callers wait for an answer that hangs",
    "stale, the refresh behind it hangs",
    "stale, Partner Center has refused the last refresh",
)

METHOD = f"""\
The same load on hits at rest and on hits while a call of Partner Center gets no answer for as long as the \
round lasts: a fresh answer while {WAITING} other callers wait because they sent `no-cache`, and a stale one \
that is being renewed. A stale hit takes more than a fresh one, hanging or not; so the last case has stale \
hits at which nothing hangs: Partner Center has refused with a Retry-After of an hour."""


class _Stage:
    """An app with a world of its own."""

    def __init__(self, stack: ExitStack, azurite: Azurite, **own: str) -> None:
        root = make_app(Path(stack.enter_context(tempfile.TemporaryDirectory())), ("shared", FUNCTION))
        simulator = stack.enter_context(Simulator())
        self.world, self.calls = simulator.world, Calls(simulator.world)
        least = {"USAGE_CACHE_MIN_REFRESH_SECONDS": "1"}
        self.host: Host = stack.enter_context(host(root, settings_of(azurite, simulator, **least, **own)))
        asyncio.run(ask(self.host.hit))

    async def load(self, connections: int, seconds: float) -> Round:
        """Hits, and nothing else."""
        return await load(self.host.url, request(self.host.hit), connections, seconds)

    async def load_while_others_wait(self, connections: int, seconds: float) -> Round:
        """Hits, while others wait for the upstream; raises RuntimeError if they did not all the time."""
        answer_after(self.world, seconds + _MARGIN)
        before = len(self.calls)
        waiting = [
            asyncio.create_task(ask(self.host.hit, "Cache-Control: no-cache\r\n")) for _ in range(WAITING)
        ]
        while len(self.calls) == before:  # noqa: ASYNC110  # another thread's
            await asyncio.sleep(0.01)
        done = await self.load(connections, seconds)
        if any(each.done() for each in waiting):
            raise RuntimeError("Partner Center has answered too early")
        await asyncio.gather(*waiting)
        return done

    async def load_while_it_renews(self, connections: int, seconds: float) -> Round:
        """Stale hits, while one refresh goes on; raises RuntimeError if it was not one all the time."""
        answer_after(self.world, seconds + _MARGIN)
        calls = await self.called()
        done = await self.load(connections, seconds)
        if len(self.calls) != calls:
            raise RuntimeError("Partner Center has answered too early")
        return done

    async def called(self) -> int:
        """Ask until the app has called Partner Center once more; how many calls that makes."""
        before = len(self.calls)
        while len(self.calls) == before:
            await ask(self.host.hit)
            await asyncio.sleep(0.05)
        return len(self.calls)


def measure(azurite: Azurite, *, quick: bool) -> Section:
    """The section on an upstream that hangs."""
    warming, rounds, seconds = (0, 1, 0.2) if quick else (1, 6, 1.2)
    tables, said = [], []
    found: dict[str, list[float]] = {OTHERS_WAIT: [], BEHIND: []}
    with ExitStack() as stack:
        cases = _cases(stack, azurite)
        for connections in CONNECTIONS[-1:] if quick else CONNECTIONS:
            done = take_turns(cases, connections, rounds, seconds, warming=warming)
            tables.append(Table([_row(case, done) for case in done], title(connections, rounds, seconds)))
            for case, times in found.items():
                times.append(_p99(case, done).median)
            said.append(f"{_p99(BEHIND, done, REFUSED).median:.2f} times at {connections}")
    fresh, stale = (_verdict(times) for times in found.values())
    reading = (
        f"Measured by a fresh hit at rest, the median p99 of a hit while a call hangs is at most {fresh}; of"
        f" a stale one, at most {stale}. Measured by stale hits at which nothing hangs, the latter is"
        f" {' and '.join(said)}."
    )
    return Section("Do hits notice that Partner Center hangs?", METHOD, tables, reading)


def _cases(stack: ExitStack, azurite: Azurite) -> dict[str, Case]:
    """Three apps: one whose answer stays fresh, one whose answer is stale, one that was refused."""
    fresh = _Stage(stack, azurite)
    stale, refused = (_Stage(stack, azurite, USAGE_CACHE_FRESH_SECONDS="1") for _ in range(2))
    throttled = Fault(Service.PARTNER_CENTER, 429, headers={"retry-after": "3600"})
    refused.world.faults[Service.PARTNER_CENTER] = throttled
    asyncio.run(refused.called())
    return {
        REST: fresh.load,
        OTHERS_WAIT: fresh.load_while_others_wait,
        BEHIND: stale.load_while_it_renews,
        REFUSED: refused.load,
    }


def _verdict(times: list[float]) -> str:
    return f"{max(times):.2f} times, which {'keeps' if max(times) <= GOAL else 'misses'} the goal of {GOAL}"


def _p50(case: str, done: Done) -> Spread:
    return ratio([each.p50 for each in done[case]], [each.p50 for each in done[REST]])


def _p99(case: str, done: Done, to: str = REST) -> Spread:
    return ratio([each.p99 for each in done[case]], [each.p99 for each in done[to]])


def _row(case: str, done: Done) -> dict[str, str]:
    rounds = done[case]
    return {
        "case": case,
        "p50, times at rest": f"{_p50(case, done):.2f}",
        "p99, times at rest": f"{_p99(case, done):.2f}",
        "p50 ms": f"{spread(1000 * each.p50 for each in rounds).median:.2f}",
        "p99 ms": f"{spread(1000 * each.p99 for each in rounds).median:.2f}",
    }
