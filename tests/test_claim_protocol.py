"""The claim protocol of the fleet: processes that take turns at every step, with whatever may go wrong.

What runs is the app from Answers down to Fleet, its threads stopped at each call out (see gates); storage,
Partner Center and time are of fleet_model, which checks at each step what has to be true.

Among processes to which storage is honest (it does what it says; to lose an answer, to fail and to be asked
twice by the SDK is honest if the process that met it is left out), whatever the others meet:

- Nobody asks without the claim, and no call can outlast the claim under which it is made.
- At most one asks at a time. Who was stopped past its claim counts as dead, and so does who met dishonesty.
- After an answer that was shared nobody asks below the floor, less the time that a reading took.

Whatever storage does, lies and stale readings among it:

- One process by itself never asks below the floor of its own answers, nor while it rests after a failure
  (10 seconds, 50 where somebody must act, or what Retry-After says), unless a newer answer has been shared.
- A write never replaces the shared answer by an older one, nor by none.
- No caller gets an answer that is too old to be used, or is told a wrong age: to the grain of storage's
  clock and the time that the slowest reading took. Who sends no-cache gets a new one, or an error with it.
- What a process gives its callers never goes back in time.
- Every caller is answered within LONGEST_WAIT, with a status of the contract.
- only-if-cached causes no call, and no defect shows but that which was put there.

When faults end:

- A dead owner's claim keeps others away for CLAIM_LIFE and a grain, a failure for 20 seconds (60 where
  somebody must act, or Retry-After): then whoever wants a newer answer gets one.
- Once what they hold is stale, all processes get the same answer by one call, and the blob is whole again,
  whatever it was before: damaged, deleted, or written by a version that knows more.

With storage that lies about a write, two may ask at the same time: what is left is what holds of one process.
"""

import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as profile
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from shared.blob import Blob
from shared.freshness import NO_DIRECTIVES, RequestDirectives, parse_request_directives
from shared.settings import Freshness
from tests.fleet_model import Caller, Fate, Gate, Process, Reply, Step, World
from tests.gates import Strand
from tests.test_freshness import policy

COUNT = 4
NO_CACHE = RequestDirectives(no_cache=True)
NAP = 3.0  # seconds: who waits for another's claim does not look too often
MANY = 5000  # steps of all threads

POLICIES = st.sampled_from([policy(3600, 3600, 86400, 60), policy(20, 10, 60, 10), policy(300, 0, 0, 30)])
WHO = st.integers(0, COUNT - 1)
SKEWS = st.sampled_from([0, 0.4, -2, 45, -600, 600])
WANTED = [
    parse_request_directives(header)
    for header in ("", "", "", "no-cache", "max-age=0", "only-if-cached", "max-stale=99999")
]
PAUSES = st.sampled_from([0.3, 1, 1, 4.6, 9, 21, 30, 49, 61, 64, 66, 131, "fresh", "fresh", "usable"])
LATENCIES = [0, 0, 0, 0.01, 0.7, 1, 4.9]
CALLS = [0.2, 0.2, 3, 20, 44]
FATES = [*[Fate.DONE] * 6, *Fate]
REPLIES = [*[Reply.DOCUMENT] * 5, *Reply]
STOPS = [1, 9, 30, 49, 66, 131, 4000]
STOPPED = 0.02  # so often a process is stopped just after what it waited for has ended


@dataclass(frozen=True)
class Turns:
    """So many times one of the threads at work goes on to its next call out: all at random, by a seed."""

    count: int
    seed: int

    def __iter__(self) -> Iterator[Random]:
        chance = Random(self.seed)  # noqa: S311  # of a test
        return (chance for _ in range(self.count))


TURNS = st.builds(Turns, st.integers(2, 30), st.integers(0, 2**32))


def damaged(blob: Blob, how: str) -> tuple[bytes, dict[str, str]]:
    metadata = dict(blob.metadata)
    match how:
        case "cut":
            return blob.content[:-3], metadata
        case "page":
            return b"<html></html>", {}
        case "digest":
            return blob.content, metadata | {"digest": "of another"}
        case "soon":
            return blob.content, metadata | {"until": "soon", "fetched": "soon"}
        case "far":
            return blob.content, metadata | {"until": "2999-01-01T00:00:00.000+00:00"}
        case _:
            return blob.content, metadata | {"fetched": "2999-01-01T00:00:00.000+00:00"}


class Protocol(RuleBasedStateMachine):
    """Some hours of a fleet."""

    @initialize(
        stored_for=POLICIES,
        skews=st.tuples(*[SKEWS] * COUNT),
        is_honest=st.booleans(),
        is_well=st.booleans(),
    )
    def begin(
        self, stored_for: Freshness, skews: tuple[float, ...], *, is_honest: bool, is_well: bool
    ) -> None:
        """Storage that does what it says, and a Partner Center that answers: in half of all lives."""
        Strand.born.clear()
        self.is_honest, self.is_well = is_honest, is_well
        self.world = World(stored_for)
        self.processes = [self.start(skew) for skew in skews]

    def start(self, skew: float) -> Process:
        self.booted = getattr(self, "booted", 0.0) + 1000.5
        return Process(self.world, skew, self.world.seconds - self.booted)

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            if sys.exception() is None:
                self.calm_down()
                self.agree(range(COUNT), self.world.fresh + 9)
        finally:
            for process in self.processes:
                process.die()
            self.world.loop.spin()
            self.world.close()

    def look(self) -> None:
        """Let the event loop do what it can, until nothing begins, and hear what callers were told."""
        self.world.loop.spin()
        while Strand.born:
            Strand.born.pop(0).go_on()
            self.world.loop.spin()
        for process in self.processes:
            process.hear()

    def at_work(self, chance: Random) -> tuple[Process, Strand]:
        """One of the threads at work; where there is none, callers come until there is one."""
        while True:
            busy = [(process, strand) for process in self.processes for strand in process.strands]
            if busy:
                return chance.choice(busy)
            for process in chance.sample(self.processes, chance.randint(1, COUNT)):
                self.ask(process, chance.choice(WANTED))
            self.let_pass(chance.choice([0, self.world.floor, self.world.fresh]))

    def go_on(self, turns: Turns) -> None:
        for chance in turns:
            process, strand = self.at_work(chance)
            fate, reply = chance.choice(FATES), chance.choice(REPLIES)
            takes = chance.choice(CALLS if strand.gate is Gate.CALLS else LATENCIES)
            if self.is_honest:
                fate = fate if fate is Fate.REPEATED else Fate.DONE
                takes = max(min(takes, self.world.steps[strand].due - self.world.seconds), 0)
            is_stopped = chance.random() < STOPPED
            self.let_pass(chance.choice(STOPS) if is_stopped else takes, strand)
            process.go_on(strand, Step(fate, Reply.DOCUMENT if self.is_well else reply, is_late=is_stopped))
            self.look()

    def let_pass(self, seconds: float, but: Strand | None = None) -> None:
        """Time passes; in an honest world all others get what they wait for before it is late."""
        for process in self.processes:
            for strand in [*process.strands] if self.is_honest else []:
                while strand is not but and self.world.steps[strand].due < self.world.seconds + seconds:
                    process.go_on(strand, Step())
                    self.look()
        self.world.seconds += seconds
        self.look()

    def ask(self, process: Process, directives: RequestDirectives = NO_DIRECTIVES) -> Caller:
        caller = process.come(directives)
        self.look()
        return caller

    def finish(self, processes: list[Process]) -> None:
        """All threads of these in turn, to their ends; nothing goes wrong, time passes while all sleep."""
        for _ in range(MANY):
            busy = [(process, strand) for process in processes for strand in process.strands]
            if not busy:
                return
            awake = [(process, strand) for process, strand in busy if strand.gate is not Gate.SLEEPS]
            for process, strand in awake or busy[:1]:
                self.world.seconds += 0 if awake else NAP
                process.go_on(strand, Step())
            self.look()
        raise AssertionError("it never ends")

    @rule(who=st.sets(WHO), directives=st.sampled_from(WANTED), turns=TURNS)
    def callers_come(self, who: set[int], directives: RequestDirectives, turns: Turns) -> None:
        for each in sorted(who):
            self.ask(self.processes[each], directives)
        self.go_on(turns)

    @rule(pause=PAUSES, turns=TURNS)
    def time_passes(self, pause: float | str, turns: Turns) -> None:
        lasts = {"fresh": self.world.fresh + 1, "usable": self.world.usable + 1}
        self.let_pass(lasts[pause] if isinstance(pause, str) else pause)
        self.go_on(turns)

    @rule(late=st.sampled_from([-0.5, 0, 0.02, 0.4, 0.9, 1.1]), turns=TURNS)
    def all_want_a_newer_one_at_the_floor(self, late: float, turns: Turns) -> None:
        self.finish(self.processes)
        last = max((call.sent for call in self.world.calls), default=0.0)
        self.let_pass(max(last + self.world.floor + late - self.world.seconds, 0.0))
        for process in self.processes:
            self.ask(process, NO_CACHE)
        self.go_on(turns)

    @rule(who=WHO, skew=SKEWS, turns=TURNS)
    def a_clock_steps_and_a_process_dies_and_is_replaced(self, who: int, skew: float, turns: Turns) -> None:
        self.processes[who].skew = skew
        other = (who + 1) % COUNT
        self.processes[other].die()
        self.processes[other] = self.start(-skew)
        self.look()
        self.go_on(turns)

    @rule(
        how=st.sampled_from(["delete", "cut", "page", "digest", "soon", "far", "tomorrow"]),
        before=TURNS,
        turns=TURNS,
    )
    def somebody_damages_the_blob(self, how: str, before: Turns, turns: Turns) -> None:
        self.go_on(before)
        blob = self.world.blob
        if blob is not None:
            self.world.harm(None if how == "delete" else self.world.new_blob(*damaged(blob, how)))
        self.go_on(turns)

    @rule(
        known=st.sampled_from(
            [{"colour": "green"}, {"failure": '["ANewError", "words", null, null, "more"]'}]
        ),
        turns=TURNS,
    )
    def another_version_writes_what_this_one_does_not_know(self, known: dict[str, str], turns: Turns) -> None:
        blob = self.world.blob
        if blob is not None and ("failure" in blob.metadata) >= ("failure" in known):
            self.world.put(self.world.new_blob(blob.content, {**blob.metadata, **known}))
        self.go_on(turns)

    @rule(who=WHO, turns=TURNS)
    def faults_end_and_somebody_asks(self, who: int, turns: Turns) -> None:
        self.calm_down(who)
        self.go_on(turns)

    @rule(order=st.permutations(range(COUNT)), later=st.sampled_from([9, 15, 40000, 100000]), turns=TURNS)
    def faults_end_and_all_agree(self, order: list[int], later: float, turns: Turns) -> None:
        self.calm_down()
        self.agree(order, self.world.fresh + later)
        self.go_on(turns)

    def calm_down(self, who: int = 0) -> None:
        """What is under way ends; when by the contract asking is allowed again, somebody does."""
        self.finish(self.processes)
        self.world.seconds = max(self.world.seconds, self.world.quiet_by + self.world.slowest)
        self.look()
        caller = self.ask(self.processes[who], NO_CACHE)
        self.finish(self.processes)
        result = caller.task.result()
        assert result.error is None, "somebody is still kept away"

    def agree(self, order: Sequence[int], later: float) -> None:
        """Once all they hold is stale, all get the same by one call."""
        self.world.seconds += later
        before = len(self.world.calls)
        for _ in "at once", "once more":  # who looked while another was asking has not got it yet
            for who in order:
                self.ask(self.processes[who])
            self.finish([self.processes[who] for who in order])
        callers = [self.ask(process) for process in self.processes]
        assert not any(process.strands for process in self.processes)
        results = [caller.task.result() for caller in callers]
        assert len(self.world.calls) == before + 1
        shared = self.world.shared
        assert {result.answer for result in results} == {shared.answer}
        assert not shared.keep_away
        assert shared.failure is None


HABITS = profile(
    max_examples=15,
    stateful_step_count=20,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
LONGER = profile(HABITS, max_examples=600, stateful_step_count=40, derandomize=False, print_blob=True)


@pytest.mark.parametrize(
    "habits",
    [
        pytest.param(HABITS, id="some", marks=pytest.mark.timeout(900)),
        pytest.param(LONGER, id="many", marks=[pytest.mark.nightly, pytest.mark.timeout(3600)]),
    ],
)
def test_whatever_happens_in_a_fleet_the_claim_protocol_keeps_its_promises(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, habits: profile
) -> None:
    caplog.set_level("CRITICAL", "shared")
    monkeypatch.setattr(threading, "Thread", Strand)
    run_state_machine_as_test(Protocol, settings=habits)
