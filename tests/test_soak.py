"""Minutes of everything at once: callers, snapshots, faults of all kinds, processes that die and begin."""

import os
import random
import signal
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Any

import pytest

from dev.azurite import Azurite
from dev.simulator import SCENARIOS, Simulator
from shared.app import open_record
from shared.clock import Clock
from shared.configuration import read_settings
from tests.processes import Calls, Fleet, Process
from tests.storage_proxy import Fault, Request, StorageProxy, no_faults

MINUTES = float(os.environ.get("SOAK_MINUTES", "10"))  # shorter by hand only
PROCESSES, CALLERS = 8, 2
ROUND = 3.0  # seconds
WARM_UP = 12  # rounds of a process: every library is loaded, every path gone once
FRESH, FLOOR, GRAIN = 3, 2, 1  # seconds
CALM = range(4)  # of six rounds
BUDGET = 60 + 6  # seconds: a refresh, and a few for a caller who has to wait for it
LONGEST = ROUND + BUDGET + 10  # a round of callers, with what a busy machine adds
GROWTH = 4 * 1024  # kilobytes: what an allocator may keep, or 140 bytes of each of 30,000 requests
STATUSES = {"200", "404", "500", "502", "503", "504"}
WANTED = ["", "", "no-cache", "max-age=1", "min-fresh=2", "max-stale=60", "only-if-cached"]
# What is over when it is over, and takes no longer than a round: the rest is the table of faults'.
SLOW = {"hanging", "dripping", "slow"}
HARMS = [name for name, scenario in SCENARIOS.items() if scenario.fault and name not in SLOW]


@dataclass
class Soak:
    """A fleet under load, and what it has said."""

    fleet: Fleet
    proxy: StorageProxy
    chance: random.Random
    bodies: set[str] = field(default_factory=set)
    seen: Counter[str] = field(default_factory=Counter)
    longest: float = 0.0
    taken: set[str] = field(default_factory=set)
    runs: Counter[str] = field(default_factory=Counter)
    killed: int = 0
    calm: list[tuple[float, float]] = field(default_factory=list)
    """When nothing was wrong, nor had been for a round."""
    held: defaultdict[int, list[dict[str, int]]] = field(default_factory=lambda: defaultdict(list))
    """What each process that lives held after each of its rounds, by its id."""

    def round(self, *, is_calm: bool) -> None:
        """Callers come to all processes but two, which take snapshots; one may be killed amid that."""
        world, chance = self.fleet.world, self.chance
        world.choose("healthy" if is_calm else chance.choice(HARMS))
        self.proxy.follow(no_faults if is_calm else self._plan)
        if not chance.randrange(3):
            self.bodies.add(self.fleet.new_document())
        *callers, timer, other = chance.sample(self.fleet.processes, len(self.fleet.processes))
        timers = [timer, other]
        for process in callers:
            process.tell("storm", callers=CALLERS, seconds=ROUND, cache_controls=chance.sample(WANTED, 4))
        for process in timers:
            process.tell("snapshot")
        victim = None if is_calm or chance.randrange(4) else chance.choice(callers + timers)
        if victim is not None:
            time.sleep(chance.uniform(0, ROUND))
            victim.send(signal.SIGKILL)
            self.fleet.bury(victim.pid)
            self.held.pop(victim.pid, None)
            (callers if victim in callers else timers).remove(victim)
            self.killed += 1
        for process in callers:
            storm = process.hear(LONGEST)
            self.seen.update(storm["seen"])
            self.longest = max(self.longest, storm["longest"])
        for process in timers:
            self._note(process.hear(LONGEST))
        if victim is not None:
            newcomer = Process()
            self.fleet.processes.append(newcomer)
            newcomer.ask("start", environ=self.fleet.environ)

    def _note(self, run: dict[str, Any]) -> None:
        self.runs[run.get("outcome") or run["error"]] += 1
        if run.get("outcome") in {"taken", "revised"}:
            self.taken.add(run["blob"])

    def _plan(self, _: Request, __: int) -> Fault:
        """Each tenth request of storage fails somehow."""
        kinds = [Fault.DROP, Fault.LOSE, Fault.ERROR_500, Fault.ERROR_503]
        return Fault.NONE if self.chance.randrange(10) else self.chance.choice(kinds)

    def measure(self) -> None:
        """Note what each process holds."""
        for process in self.fleet.processes:
            self.held[process.pid].append(process.ask("figures"))


@pytest.fixture
def soak(environ: dict[str, str], azurite: Azurite, simulator: Simulator, at_once: None) -> Iterator[Soak]:  # noqa: ARG001  # a fixture
    calls = Calls()
    simulator.world.observer = calls
    seed = int(os.environ.get("SOAK_SEED", uuid.uuid4().int % 10**6))
    print(f"SOAK_SEED={seed}")  # noqa: T201  # to do it again
    with StorageProxy(azurite) as proxy:
        settings = {
            "AzureWebJobsStorage": proxy.connection_string,
            "USAGE_CACHE_FRESH_SECONDS": str(FRESH),
            "USAGE_CACHE_STALE_WHILE_REVALIDATE_SECONDS": str(FRESH),
            "USAGE_CACHE_MIN_REFRESH_SECONDS": str(FLOOR),
        }
        processes = [Process() for _ in range(PROCESSES)]
        fleet = Fleet(processes, {**environ, **settings}, azurite, simulator.world, calls)
        fleet.start()
        made = Soak(fleet, proxy, random.Random(seed))  # noqa: S311  # no secret
        made.bodies |= {simulator.world.document.decode(), fleet.new_document()}
        yield made
        for process in fleet.processes:
            process.end()


@pytest.mark.nightly
@pytest.mark.timeout(MINUTES * 60 + 300)
def test_for_minutes_of_everything_nothing_is_lost_late_or_grows(soak: Soak) -> None:
    ends, number = time.monotonic() + MINUTES * 60, 0
    while time.monotonic() < ends:
        began, phase = time.monotonic(), number % 6
        soak.round(is_calm=phase in CALM)
        if phase in CALM[1:]:
            soak.calm.append((began, time.monotonic()))
        number += 1
        soak.measure()
    time.sleep(60)  # what keeps everybody away is over by then
    soak.fleet.world.choose("healthy")
    soak.proxy.follow(no_faults)
    soak.measure()

    assert_the_record_is_whole(soak)
    assert_every_caller_was_answered(soak)
    assert_nothing_has_grown(soak.held)
    assert_calls_kept_the_floor(soak)
    assert soak.killed or MINUTES < 5
    assert soak.runs["revised"]
    print(number, dict(soak.runs), soak.killed, sum(soak.seen.values()), round(soak.longest, 1))  # noqa: T201


def assert_the_record_is_whole(soak: Soak) -> None:
    """A last run finishes what others left; what was said to be taken is there; a rebuild changes nothing."""
    assert soak.fleet.processes[0].ask("snapshot")["outcome"] in {"taken", "revised", "repaired", "unchanged"}
    record, history = open_record(read_settings(soak.fleet.environ).record, Clock())
    names = {name.name for name in record.names()}
    assert soak.taken <= names
    assert all(found.row is not None for found in record.read(record.names()))
    assert history.rebuild(lambda found, _: found).written == []


def assert_every_caller_was_answered(soak: Soak) -> None:
    """Within the budget, with a document of the world's or a problem of the contract."""
    assert soak.longest <= BUDGET
    for answer in soak.seen:
        status, _, body = answer.partition(" ")
        assert status in STATUSES
        assert status != "200" or body in soak.bodies, answer


def assert_nothing_has_grown(held: dict[int, list[dict[str, int]]]) -> None:
    """In no process since its warm-up, in which each newcomer loads some 25 MB of libraries."""
    lives = [figures for figures in held.values() if len(figures) > 2 * WARM_UP]
    grown = [
        {name: late[name] - early[name] for name in late}
        for early, late in ((each[WARM_UP], each[-1]) for each in lives)
    ]
    assert grown
    growth = median(each["kilobytes"] for each in grown)
    print("median growth in kilobytes:", growth)  # noqa: T201  # to tell how near it comes
    assert growth < GROWTH, grown
    assert max(each["threads"] for each in grown) <= 1, grown
    assert max(each["files"] for each in grown) <= 2, grown


def assert_calls_kept_the_floor(soak: Soak) -> None:
    """No process gets two answers within the floor, whatever storage does; nor the fleet, if all is well.

    The fleet's calls are those that Partner Center has seen, so those of processes that died are among them.
    """
    calls = [call.second for call in soak.fleet.calls]
    spans = [[second for second in calls if began <= second < ended] for began, ended in soak.calm]
    assert any(spans)  # after a failure nobody asks for some rounds
    for seconds in (*soak.fleet.ask("sent"), *spans):
        assert all(later - earlier >= FLOOR - GRAIN for earlier, later in pairwise(seconds))
