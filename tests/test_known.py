"""What a process knows of the shared answer: which of two is newer, how old it is, until when it rests."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from shared.errors import UpstreamUnavailableError, UsageSummaryError
from shared.freshness import NO_DIRECTIVES, Decision, RequestDirectives
from shared.held import CLOCK_GRAIN, Answer, Held, Shared
from shared.known import Known
from shared.settings import Freshness
from tests.conftest import ManualClock

AT = datetime(2026, 11, 21, 8, tzinfo=UTC)
SECOND = timedelta(seconds=1)
ID = "0f8fad5b-d9cb-469f-a165-70867728950e"
ERROR = UpstreamUnavailableError("down")
POLICY = Freshness()
ONLY_IF_CACHED = RequestDirectives(only_if_cached=True)


def held(sent: float, fetched_at: datetime = AT, **more: bool) -> Held:
    return Held(Answer(b"{}", fetched_at, ID, ID), sent, **more)


def resting(known: Known) -> tuple[float, UsageSummaryError] | None:
    """Until when, and why."""
    rest = known.rest
    return None if rest is None else (rest.until, rest.error)


def shared(one: Held | None, **more: object) -> Shared:
    return replace(Shared(1000.0, AT, held=one), **more)  # type: ignore[arg-type]  # of several types


def test_a_reading_tells_its_instants_in_both_clocks() -> None:
    one = shared(None, until=1005.5)
    assert one.instant(1010.25) == AT + timedelta(seconds=10.25)
    assert one.instant(990) == AT - 10 * SECOND
    assert one.second(AT + timedelta(seconds=2.5)) == 1002.5
    assert one.keep_away == timedelta(seconds=5.5)
    assert shared(None, until=999.0).keep_away == shared(None).keep_away == timedelta()
    assert shared(None).answer is None
    assert shared(held(1)).answer == held(1).answer


def test_of_two_by_storages_clock_the_later_fetched_is_newer() -> None:
    mine = held(500, AT)
    assert shared(held(1, AT + SECOND)).is_newer_than(mine)
    assert not shared(held(999, AT)).is_newer_than(mine)
    assert not shared(held(999, AT - SECOND)).is_newer_than(mine)
    assert shared(mine).is_newer_than(None)
    assert not shared(None).is_newer_than(mine)
    assert not shared(None).is_newer_than(None)


def test_beside_one_that_storage_knows_nothing_of_a_shared_one_is_newer_beyond_the_grain() -> None:
    mine = held(500, AT + timedelta(days=1), is_exact=True, is_by_storage=False)
    grain = CLOCK_GRAIN.total_seconds()
    assert shared(held(500.001 + grain)).is_newer_than(mine)
    assert not shared(held(500 + grain)).is_newer_than(mine)
    assert not shared(held(500)).is_newer_than(mine)
    assert not shared(held(499)).is_newer_than(mine)


@pytest.fixture
def known(manual_clock: ManualClock) -> Known:
    return Known(POLICY, manual_clock.clock())


def now(manual_clock: ManualClock) -> float:
    return manual_clock.instant.timestamp()


def test_an_answer_is_as_old_as_its_call_and_never_younger_than_nothing(
    known: Known, manual_clock: ManualClock
) -> None:
    assert known.age(held(now(manual_clock))) == timedelta()
    assert known.age(held(now(manual_clock) + 5)) == timedelta()
    assert known.age(held(now(manual_clock) - 7.5)) == timedelta(seconds=7.5)


def test_without_an_answer_everything_is_missing(known: Known) -> None:
    assert known.looked_at < 0
    assert known.decide(NO_DIRECTIVES) is Decision.FETCH_MISSING
    assert known.decide(ONLY_IF_CACHED) is Decision.REFUSE
    assert known.decide_exactly(NO_DIRECTIVES) is Decision.FETCH_MISSING
    assert not known.has_usable()


def test_what_is_held_is_weighed_by_its_age(known: Known, manual_clock: ManualClock) -> None:
    one = held(now(manual_clock), is_exact=True)
    known.hold(one)
    for age, decision, is_usable in (
        (0, Decision.SERVE, True),
        (3599, Decision.SERVE, True),
        (3600, Decision.SERVE_AND_REFRESH, True),
        (7200, Decision.FETCH_STALE, True),
        (89_999, Decision.FETCH_STALE, True),
        (90_000, Decision.FETCH_STALE, False),
    ):
        manual_clock.advance(seconds=age)
        assert known.decide(NO_DIRECTIVES) is decision
        assert known.has_usable() is is_usable
        manual_clock.advance(seconds=-age)


@pytest.mark.parametrize(("is_exact", "floor"), [(True, 60), (False, 61)])
def test_before_anybody_asks_the_floor_holds_to_the_grain(
    known: Known, manual_clock: ManualClock, *, is_exact: bool, floor: int
) -> None:
    known.hold(held(now(manual_clock), is_exact=is_exact))
    no_cache = RequestDirectives(no_cache=True)
    manual_clock.advance(seconds=floor - 0.5)
    assert known.decide_exactly(no_cache) is Decision.SERVE
    manual_clock.advance(seconds=0.5)
    assert known.decide_exactly(no_cache) is Decision.FETCH_REQUESTED


def test_a_rest_ends_at_its_second(known: Known, manual_clock: ManualClock) -> None:
    assert resting(known) is None
    until = known.keep_away(10 * SECOND, ERROR)
    assert until == now(manual_clock) + 10
    manual_clock.advance(seconds=9.9)
    assert resting(known) == (until, ERROR)
    manual_clock.advance(seconds=0.1)
    assert resting(known) is None


def test_a_newer_answer_ends_the_rest_and_an_older_one_changes_nothing(
    known: Known, manual_clock: ManualClock
) -> None:
    known.hold(held(now(manual_clock), AT))
    known.keep_away(10 * SECOND, ERROR)
    known.adopt(shared(held(now(manual_clock), AT - SECOND)))
    known.hold(held(now(manual_clock) - 1))
    known.hold(held(now(manual_clock), AT + SECOND))
    assert known.held == held(now(manual_clock), AT)
    assert resting(known) is not None
    newer = held(now(manual_clock) - 1, AT + SECOND)
    known.adopt(shared(newer))
    assert (known.held, resting(known)) == (newer, None)
    known.keep_away(10 * SECOND, ERROR)
    newest = held(now(manual_clock), is_exact=True)
    known.hold(newest)
    assert (known.held, resting(known)) == (newest, None)


def test_all_keep_away_for_the_failure_that_is_shared_but_not_for_a_claim(
    known: Known, manual_clock: ManualClock
) -> None:
    until = now(manual_clock) + 30
    known.adopt(shared(None, read=now(manual_clock), until=until))
    assert resting(known) is None
    known.adopt(shared(None, read=now(manual_clock), until=until, failure=ERROR))
    assert resting(known) == (until, ERROR)
    other = UpstreamUnavailableError("another")
    known.adopt(shared(None, read=now(manual_clock), until=until + 9, failure=other))
    assert resting(known) == (until, ERROR)
