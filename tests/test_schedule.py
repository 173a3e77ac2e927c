"""The timer's schedule: which instants it has, as the platform reads it."""

from datetime import UTC, datetime, timedelta

import pytest
from croniter import CroniterError
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dev.host import first_tick
from shared.schedule import has_tick

SATURDAY = datetime(2026, 11, 21, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MONDAY, FIRST = datetime(2026, 11, 23, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("schedule", "ticks"),
    [
        ("0 5 * * * *", []),
        ("0 0 0 * * *", [SATURDAY, MONDAY, FIRST]),
        ("0 0 0,12 * * *", [SATURDAY, MONDAY, FIRST]),
        ("0 0 * * * *", [SATURDAY, MONDAY, FIRST]),
        ("*/30 * * * * *", [SATURDAY, MONDAY, FIRST]),
        ("0 0 0 * * 1-5", [MONDAY, FIRST]),
        ("0 0 0 * * Mon-Fri", [MONDAY, FIRST]),
        ("0 0 0 * * fri-mon", [MONDAY, FIRST]),  # NCRONTAB turns a range round
        ("0 0 0 * * 5/1", [SATURDAY]),
        ("0 0 0 * * s", []),  # the first name that begins so: Sunday
        ("0 0 0 1 * *", [FIRST]),
        ("0 0 0 1 * 1", []),  # both days must fit
        ("0 0 0 * Novem *", [SATURDAY, MONDAY]),
        ("0 0 0 * 1-11/2,DEC *", [SATURDAY, MONDAY, FIRST]),
        ("0 0 * * *", [SATURDAY, MONDAY, FIRST]),
        ("0 5 * * *", []),
        ("  0  0 0 * * *\t", [SATURDAY, MONDAY, FIRST]),
        ("0 0 0 */0 * *", [SATURDAY, MONDAY, FIRST]),
    ],
)
def test_a_schedule_has_a_tick_where_all_its_fields_fit(schedule: str, ticks: list[datetime]) -> None:
    assert [each for each in (SATURDAY, MONDAY, FIRST) if has_tick(schedule, each)] == ticks


@pytest.mark.parametrize(
    "schedule",
    [
        "",
        "00:05:00",
        "@daily",
        "* * * *",
        "* * * * * * *",
        "0 0 0 * * ?",
        "0 0 0 * * 0-7",
        "0 0 0 32,* * *",
        "0 0 0 0-31 * *",
        "0 0 0 * 0-12 *",
        "0 0 0-24 * * *",
        "0-60 0 0 * * *",
        "0,x 0 0 * * *",
        "0 0 0 *, * *",
        "0 0 0 *-3 * *",
        "0 0 0 1- * *",
        "0 0 0 -31 * *",
        "0 0 0 */ * *",
        "0 0 0 mon * *",
        "@Microsoft.KeyVault(SecretUri=https://nordlys.example/secrets/schedule)",
    ],
)
def test_what_is_no_schedule_has_no_tick(schedule: str) -> None:
    assert not any(has_tick(schedule, each) for each in (SATURDAY, MONDAY, FIRST))


def fields(least: int, most: int) -> st.SearchStrategy[str]:
    """A field that NCRONTAB and croniter read alike."""
    numbers = st.integers(least, most)
    spans = st.lists(numbers, min_size=2, max_size=2, unique=True).map(sorted).map("{0[0]}-{0[1]}".format)
    steps = st.tuples(st.one_of(st.just("*"), spans), st.integers(1, most)).map("{0[0]}/{0[1]}".format)
    values = st.one_of(numbers.map(str), spans, steps)
    return st.one_of(st.just("*"), st.lists(values, min_size=1, max_size=3).map(",".join))


@settings(max_examples=50)  # croniter takes its time
@given(
    st.tuples(*(fields(*ends) for ends in ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 6)))),
    st.integers(0, 100_000_000).map(lambda seconds: SATURDAY + timedelta(seconds=seconds)),
)
def test_a_schedule_has_the_ticks_of_the_local_host(parts: tuple[str, ...], instant: datetime) -> None:
    schedule = " ".join(parts)
    try:
        tick = first_tick(schedule, instant)
    except CroniterError:
        assume(False)  # noqa: FBT003  # it never comes
    assert has_tick(schedule, tick)
    assert has_tick(schedule, tick - SECOND) == (first_tick(schedule, tick - 2 * SECOND) == tick - SECOND)
