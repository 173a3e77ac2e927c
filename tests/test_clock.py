"""Seconds that pass, on clocks that are moved by hand."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from shared.clock import Clock, PassedSeconds


@dataclass
class Machine:
    """The machine's clocks: one counts the time in which it runs or sleeps, the other hangs on the wall."""

    counted: float = 1_000.0
    wall: float = 1_800_000_000.0

    def seconds(self) -> PassedSeconds:
        return PassedSeconds(lambda: self.counted, lambda: self.wall)

    def passes(self, seconds: float) -> None:
        self.counted += seconds
        self.wall += seconds


def test_time_passes_as_it_is_counted() -> None:
    machine = Machine()
    seconds = machine.seconds()
    before = seconds()
    machine.passes(90)
    assert seconds() - before == 90


def test_time_in_which_the_machine_was_paused_counts_once_the_wall_clock_tells() -> None:
    machine = Machine()
    seconds = machine.seconds()
    before = seconds()
    machine.wall += 8 * 3600
    assert seconds() - before == 8 * 3600
    machine.passes(1)
    assert seconds() - before == 8 * 3600 + 1


def test_a_wall_clock_that_is_put_right_by_a_minute_or_less_changes_nothing() -> None:
    machine = Machine()
    seconds = machine.seconds()
    before = seconds()
    machine.wall += 60
    assert seconds() == before


def test_a_wall_clock_that_swings_to_and_fro_counts_once() -> None:
    machine = Machine()
    seconds = machine.seconds()
    before = seconds()
    for _ in range(5):
        machine.wall += 600
        seconds()
        machine.wall -= 600
        seconds()
    assert seconds() - before == 600


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(-1e9, 1e9))))
def test_seconds_never_go_back_whatever_the_wall_clock_does(steps: list[tuple[float, float]]) -> None:
    machine = Machine()
    seconds = machine.seconds()
    before = seconds()
    for passed, put in steps:
        machine.passes(passed)
        machine.wall += put
        now = seconds()
        assert now >= before
        before = now


def test_an_app_takes_its_seconds_from_the_clock_that_counts_sleep() -> None:
    assert isinstance(Clock().monotonic, PassedSeconds)
