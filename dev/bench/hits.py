"""What a hit costs beside a function that does nothing, in the same process."""

import asyncio
import tempfile
from functools import partial
from pathlib import Path

from dev.azurite import Azurite
from dev.bench.figures import Spread, ratio, spread
from dev.bench.hosts import FUNCTION, NOOP, SAME, Host, host, make_app, settings_of
from dev.bench.load import Case, Done, ask, load, request, take_turns, title
from dev.bench.report import Section, Table
from dev.simulator import Simulator

CONNECTIONS = 1, 32
NOTHING, AS_LONG, HIT, NOT_MODIFIED = "no-op function", "no-op, same response", "hit", "304"

GOAL = 0.85
"""So much of what a function answers that does nothing, a hit and a 304 should at least."""

METHOD = """\
All cases are async functions in one process of the local host: one that returns `{}`, one that returns as \
many headers and bytes as a hit has, and the app's own, which answers from memory. The client keeps its \
connections."""


def measure(azurite: Azurite, *, quick: bool) -> Section:
    """The section on hits."""
    warming, rounds, seconds = (0, 1, 0.2) if quick else (1, 7, 1.2)
    tables, said = [], []
    done: Done = {}
    with (
        tempfile.TemporaryDirectory() as name,
        Simulator() as simulator,
        host(
            make_app(Path(name), ("shared", FUNCTION), (NOOP, SAME)), settings_of(azurite, simulator)
        ) as running,
    ):
        cases = _cases(running)
        for connections in CONNECTIONS[-1:] if quick else CONNECTIONS:
            done = take_turns(cases, connections, rounds, seconds, warming=warming)
            tables.append(Table([_row(case, done) for case in done], title(connections, rounds, seconds)))
            said += [
                f"{case} {'keeps' if _rate(case, done).median >= GOAL else 'misses'} it at {connections}"
                for case in (HIT, NOT_MODIFIED)
            ]
    reading = (
        f"The goal is {GOAL} of the requests that a function answers which does nothing: {', '.join(said)}."
        " The second ratio is to a function that returns as much as a hit."
    )
    return Section("What does a hit cost?", METHOD, tables, reading)


def _cases(running: Host) -> dict[str, Case]:
    head = asyncio.run(ask(running.hit))
    etag = head.partition(b"etag: ")[2].partition(b"\r\n")[0].decode()
    asked = {
        NOTHING: request(f"{running.url}/{NOOP}"),
        AS_LONG: request(f"{running.url}/{SAME}"),
        HIT: request(running.hit),
        NOT_MODIFIED: request(running.hit, f"If-None-Match: {etag}\r\n"),
    }
    return {case: partial(load, running.url, each) for case, each in asked.items()}


def _rate(case: str, done: Done, to: str = NOTHING) -> Spread:
    return ratio([each.rate for each in done[case]], [each.rate for each in done[to]])


def _row(case: str, done: Done) -> dict[str, str]:
    rounds = done[case]
    return {
        "case": case,
        "rate, times no-op's": f"{_rate(case, done):.2f}",
        "times that of the same response": f"{_rate(case, done, AS_LONG):.2f}",
        "requests/s": f"{spread(each.rate for each in rounds).median:.0f}",
        "p50 ms": f"{spread(1000 * each.p50 for each in rounds).median:.2f}",
        "p99 ms": f"{spread(1000 * each.p99 for each in rounds).median:.2f}",
    }
