"""What a process holds at rest, and after very many requests."""

import asyncio
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil

from dev.azurite import Azurite
from dev.bench.hosts import FUNCTION, NOOP, Host, host, make_app, settings_of
from dev.bench.load import ask, load, request
from dev.bench.report import Section, Table
from dev.simulator import Simulator

CONNECTIONS = 32
FRESH = 2
"""Seconds: refreshes are to be among the requests."""

_PAUSE = 1.0  # seconds in which connections end and a refresh does

METHOD = f"""\
Two processes of the local host, one with the app and one with a function that does nothing, take turns: \
each is loaded over {CONNECTIONS} connections for a second at a time, always new ones. The app's \
answer is fresh for {FRESH} seconds, so that refreshes are among it. Looked at are resident memory, threads \
and sockets, the listening one included, when one request has been answered, after a tenth of all and after \
all; each time when nothing has been going on for {_PAUSE:.0f} second."""


@dataclass(frozen=True)
class _Held:
    """What a process holds: resident megabytes, threads, sockets."""

    megabytes: float
    threads: int
    sockets: int


@dataclass
class _Loaded:
    """A host, what is asked of it, and how often it has been."""

    running: Host
    url: str
    requests: int = 1

    def work(self, until: int, seconds: float) -> None:
        """Ask for some time, unless so many requests have been made."""
        if self.requests < until:
            done = asyncio.run(load(self.url, request(self.url), CONNECTIONS, seconds))
            self.requests += len(done.seconds)

    def look(self) -> _Held:
        process = psutil.Process(self.running.process.pid)
        sockets = len(process.net_connections("all"))
        return _Held(process.memory_info().rss / 1e6, process.num_threads(), sockets)


def measure(azurite: Azurite, *, quick: bool) -> Section:
    """The section on memory."""
    requests, seconds = (2_000, 0.2) if quick else (100_000, 1.0)
    tenth = requests // 10
    with ExitStack() as stack:
        hosts = _hosts(stack, azurite)
        held: dict[str, list[_Held]] = {name: [] for name in hosts}
        for until in (1, tenth, requests):
            while any(each.requests < until for each in hosts.values()):
                for each in hosts.values():
                    each.work(until, seconds)
            time.sleep(_PAUSE)
            for name, each in hosts.items():
                held[name].append(each.look())
    rows = [_row(name, found, hosts[name].requests) for name, found in held.items()]
    (_, middle, last), (_, bares_middle, bares_last) = held.values()
    reading = (
        f"From {tenth:,} to {hosts['app'].requests:,} requests the app's memory grew by"
        f" {last.megabytes - middle.megabytes:.1f} MB, that of the function which does nothing by"
        f" {bares_last.megabytes - bares_middle.megabytes:.1f} MB; the app's threads went from"
        f" {middle.threads} to {last.threads}, its sockets from {middle.sockets} to {last.sockets}."
    )
    return Section("Does a process grow?", METHOD, [Table(rows)], reading)


def _hosts(stack: ExitStack, azurite: Azurite) -> dict[str, _Loaded]:
    simulator = stack.enter_context(Simulator())
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    own = {"USAGE_CACHE_FRESH_SECONDS": str(FRESH), "USAGE_CACHE_MIN_REFRESH_SECONDS": "1"}
    settings = settings_of(azurite, simulator, **own)
    app = stack.enter_context(host(make_app(directory / "app", ("shared", FUNCTION), ()), settings))
    bare = stack.enter_context(host(make_app(directory / "bare"), settings))
    hosts = {"app": _Loaded(app, app.hit), "no-op function": _Loaded(bare, f"{bare.url}/{NOOP}")}
    for each in hosts.values():
        asyncio.run(ask(each.url))
    return hosts


def _row(name: str, held: list[_Held], requests: int) -> dict[str, str]:
    first, tenth, last = held
    return {
        "process": name,
        "memory, times at rest": f"{last.megabytes / first.megabytes:.2f}",
        "times after a tenth": f"{last.megabytes / tenth.megabytes:.2f}",
        "MB": " → ".join(f"{each.megabytes:.1f}" for each in held),
        "threads": " → ".join(str(each.threads) for each in held),
        "sockets": " → ".join(str(each.sockets) for each in held),
        "requests": f"{requests:,}",
    }
