"""When a stored answer serves: the table at its boundaries, its rules for all ages, and what callers ask."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.freshness import (
    ANY_STALENESS,
    NO_DIRECTIVES,
    ZERO,
    Decision,
    RequestDirectives,
    decide,
    is_usable,
    parse_request_directives,
)
from shared.settings import Freshness

SERVE, SERVE_AND_REFRESH = Decision.SERVE, Decision.SERVE_AND_REFRESH
STALE, REQUESTED, REFUSE = Decision.FETCH_STALE, Decision.FETCH_REQUESTED, Decision.REFUSE
FETCHES = {Decision.FETCH_MISSING, STALE, REQUESTED}


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def policy(fresh: int, revalidate: int, on_error: int, floor: int) -> Freshness:
    return Freshness(*map(seconds, (fresh, revalidate, on_error, floor)))


POLICY = policy(1000, 300, 5000, 60)  # fresh to 1000, refreshed behind to 1300, usable to 6000


def asks(header: str) -> RequestDirectives:
    return parse_request_directives(header)


@pytest.mark.parametrize("text", ["0" * 300_000, "0" * 300_000 + "x", '"' + "0" * 300_000, "9" * 300_000])
def test_a_number_as_long_as_a_header_is_read_in_no_time(text: str) -> None:
    assert parse_request_directives(f"max-age={text}").max_age in {None, ZERO, seconds(2**31)}


@pytest.mark.parametrize(
    ("header", "age", "expected"),
    [
        ("", 0, SERVE),
        ("", 999, SERVE),
        ("", 1000, SERVE_AND_REFRESH),
        ("", 1001, SERVE_AND_REFRESH),
        ("", 1299, SERVE_AND_REFRESH),
        ("", 1300, STALE),
        ("", 5999, STALE),
        ("", 6000, STALE),
        ("", 10**9, STALE),
        ("no-cache", 59, SERVE),
        ("no-cache", 60, REQUESTED),
        ("no-cache", 61, REQUESTED),
        ("max-age=0", 59, SERVE),
        ("max-age=0", 60, REQUESTED),
        ("max-age=500", 499, SERVE),
        ("max-age=500", 500, SERVE),
        ("max-age=500", 500.9, SERVE),  # Age says 500
        ("max-age=500", 501, REQUESTED),
        ("max-age=1200", 1100, SERVE_AND_REFRESH),
        ("min-fresh=100", 899, SERVE),
        ("min-fresh=100", 900, SERVE),
        ("min-fresh=100", 901, REQUESTED),
        ("min-fresh=0", 999, SERVE),
        ("min-fresh=5000", 59, SERVE),
        ("min-fresh=5000", 60, REQUESTED),
        ("max-stale", 999, SERVE),
        ("max-stale", 5999, SERVE_AND_REFRESH),
        ("max-stale", 6000, STALE),
        ("max-stale=600", 1600, SERVE_AND_REFRESH),
        ("max-stale=600", 1601, STALE),
        ("max-stale=0", 1001, SERVE_AND_REFRESH),
        ("max-stale=9999", 6000, STALE),
        ("only-if-cached", 0, SERVE),
        ("only-if-cached", 5999, SERVE),
        ("only-if-cached", 6000, REFUSE),
        ("only-if-cached, no-cache", 0, REFUSE),
        ("only-if-cached, no-cache", 5999, REFUSE),
        ("only-if-cached, max-age=10", 10, SERVE),
        ("only-if-cached, max-age=10", 10.9, SERVE),
        ("only-if-cached, max-age=10", 11, REFUSE),
        ("only-if-cached, max-age=9999", 5999, SERVE),
        ("only-if-cached, max-age=9999", 6000, REFUSE),
        ("only-if-cached, min-fresh=950", 50, SERVE),
        ("only-if-cached, min-fresh=951", 50, REFUSE),
        ("only-if-cached, min-fresh=1", 999, SERVE),
        ("only-if-cached, min-fresh=1", 1000, REFUSE),
        ("only-if-cached, max-stale", 5999, SERVE),
        ("only-if-cached, max-stale=9999", 6000, REFUSE),
        ("only-if-cached, max-age=x", 5999, SERVE),
        ("no-cache, max-stale", 500, REQUESTED),
        ("no-cache, max-age=500", 400, REQUESTED),
        ("no-store", 500, SERVE),
    ],
)
def test_the_policy_at_its_boundaries(header: str, age: float, expected: Decision) -> None:
    assert decide(seconds(age), asks(header), POLICY) is expected


def test_without_a_stored_answer_there_is_a_fetch_or_a_refusal() -> None:
    assert decide(None, NO_DIRECTIVES, POLICY) is Decision.FETCH_MISSING
    assert decide(None, asks("max-stale"), POLICY) is Decision.FETCH_MISSING
    assert decide(None, asks("only-if-cached"), POLICY) is REFUSE
    assert decide(None, asks("only-if-cached, no-cache"), POLICY) is REFUSE


@pytest.mark.parametrize(
    ("header", "age", "expected"),
    [
        ("max-stale=5", 999, SERVE),
        ("max-stale=5", 1005, SERVE),
        ("max-stale=5", 1006, REFUSE),
        ("max-stale=0", 1000, SERVE),
        ("max-stale=0", 1001, REFUSE),
    ],
)
def test_beside_only_if_cached_a_max_stale_with_a_number_is_a_limit(
    header: str, age: int, expected: Decision
) -> None:
    assert decide(seconds(age), asks(f"only-if-cached, {header}"), POLICY) is expected


@pytest.mark.parametrize("age", [100, 999])
def test_a_caller_who_accepts_staleness_still_gets_the_age_asked_for(age: int) -> None:
    assert decide(seconds(age), asks("max-age=50, max-stale=600"), POLICY) in FETCHES


@pytest.mark.parametrize(
    ("stored_for", "age", "expected"),
    [
        (policy(100, 0, 50, 1), 99, SERVE),
        (policy(100, 0, 50, 1), 100, STALE),
        (policy(100, 50, 0, 1), 149, SERVE_AND_REFRESH),
        (policy(100, 50, 0, 1), 150, STALE),
        (policy(1, 0, 0, 60), 59, SERVE),  # the floor stands above freshness too
        (policy(1, 0, 0, 60), 60, STALE),
    ],
)
def test_unusual_settings_mean_what_they_say(stored_for: Freshness, age: int, expected: Decision) -> None:
    assert decide(seconds(age), NO_DIRECTIVES, stored_for) is expected


@pytest.mark.parametrize(("age", "expected"), [(0, True), (5999, True), (6000, False), (6001, False)])
def test_an_answer_is_usable_to_the_end_of_stale_if_error(age: int, *, expected: bool) -> None:
    assert is_usable(seconds(age), POLICY) is expected


ages = st.timedeltas(seconds(-(10**6)), seconds(10**6))
durations = st.integers(0, 10**5).map(seconds)
positive = st.integers(1, 10**5).map(seconds)
policies = st.builds(Freshness, positive, durations, durations, positive)
any_directives = st.builds(
    RequestDirectives,
    st.booleans(),
    st.booleans(),
    st.none() | durations,
    durations,
    st.none() | durations | st.just(ANY_STALENESS),
)


# From a bound down or up, so that no example is drawn in vain: a run that draws many such fails at random.
below = st.timedeltas(timedelta.resolution, seconds(10**5))
beyond = st.timedeltas(ZERO, seconds(10**5))


@given(below, any_directives, policies)
def test_below_the_floor_nobody_fetches_whatever_callers_send(
    less: timedelta, directives: RequestDirectives, stored_for: Freshness
) -> None:
    directives = replace(directives, only_if_cached=False)
    assert decide(stored_for.min_refresh - less, directives, stored_for) is SERVE


@given(st.none() | ages, any_directives, policies)
def test_only_if_cached_never_fetches(
    age: timedelta | None, directives: RequestDirectives, stored_for: Freshness
) -> None:
    assert decide(age, replace(directives, only_if_cached=True), stored_for) in {SERVE, REFUSE}


@given(beyond, any_directives, policies)
def test_only_if_cached_gets_what_all_other_directives_allow_below_the_floor_too(
    age: timedelta, directives: RequestDirectives, stored_for: Freshness
) -> None:
    left, shown = stored_for.fresh - age, timedelta(seconds=age // seconds(1))
    is_allowed = (
        not directives.no_cache
        and (directives.max_age is None or shown <= directives.max_age)
        and (directives.min_fresh == ZERO or left >= directives.min_fresh)
        and (directives.max_stale is None or -left <= directives.max_stale)
    )
    is_stored = is_usable(age, stored_for) or age < stored_for.min_refresh
    decision = decide(age, replace(directives, only_if_cached=True), stored_for)
    assert decision is (SERVE if is_allowed and is_stored else REFUSE)


@given(below, any_directives, policies)
def test_a_negative_age_counts_as_none_at_all(
    less: timedelta, directives: RequestDirectives, stored_for: Freshness
) -> None:
    assert decide(-less, directives, stored_for) is decide(ZERO, directives, stored_for)


@given(beyond, any_directives, policies)
def test_what_is_no_longer_usable_is_served_only_below_the_floor(
    more: timedelta, directives: RequestDirectives, stored_for: Freshness
) -> None:
    usable = stored_for.fresh + max(stored_for.stale_while_revalidate, stored_for.stale_if_error)
    age = max(usable, stored_for.min_refresh) + more
    assert decide(age, directives, stored_for) in {STALE, REFUSE, REQUESTED}


@given(below, policies)
def test_an_answer_within_fresh_plus_stale_if_error_is_usable(less: timedelta, stored_for: Freshness) -> None:
    assert is_usable(stored_for.fresh + stored_for.stale_if_error - less, stored_for)


@given(ages, ages, policies)
def test_an_older_answer_is_never_served_more_readily(
    age: timedelta, other: timedelta, stored_for: Freshness
) -> None:
    order = [SERVE, SERVE_AND_REFRESH, STALE]
    younger, older = (order.index(decide(each, NO_DIRECTIVES, stored_for)) for each in sorted((age, other)))
    assert younger <= older


@given(beyond, any_directives, policies)
def test_a_stale_answer_is_never_served_without_a_refresh_unless_the_caller_or_the_floor_forbids_one(
    more: timedelta, directives: RequestDirectives, stored_for: Freshness
) -> None:
    age = max(stored_for.fresh, stored_for.min_refresh) + more
    assert decide(age, replace(directives, only_if_cached=False), stored_for) is not SERVE


ABSENT = RequestDirectives()


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, ABSENT),
        ("", ABSENT),
        (" , ,, ", ABSENT),
        ("no-cache", RequestDirectives(no_cache=True)),
        ("No-Cache , ONLY-IF-CACHED", RequestDirectives(no_cache=True, only_if_cached=True)),
        ("max-age=5", RequestDirectives(max_age=seconds(5))),
        ("MAX-AGE=5", RequestDirectives(max_age=seconds(5))),
        ('max-age="5"', RequestDirectives(max_age=seconds(5))),
        ("max-age=005", RequestDirectives(max_age=seconds(5))),
        ("min-fresh=7,max-stale=8", RequestDirectives(min_fresh=seconds(7), max_stale=seconds(8))),
        ("max-stale", RequestDirectives(max_stale=ANY_STALENESS)),
        ("no-store, no-transform, stale-if-error=9, x=y", ABSENT),
        ('community="no-cache, max-age=1", no-cache', RequestDirectives(no_cache=True)),
        ("no-caches, xno-cache, no cache", ABSENT),
        ("max-age=50, max-age=5, max-age=500", RequestDirectives(max_age=seconds(5))),
        ("min-fresh=5, min-fresh=50", RequestDirectives(min_fresh=seconds(50))),
        ("max-stale=50, max-stale=5, max-stale", RequestDirectives(max_stale=seconds(5))),
        ("max-age=x, max-age=5", RequestDirectives(max_age=seconds(5))),
    ],
)
def test_request_directives_are_read(header: str | None, expected: RequestDirectives) -> None:
    assert parse_request_directives(header) == expected


@pytest.mark.parametrize("name", ["max-age", "min-fresh", "max-stale"])
@pytest.mark.parametrize(
    "argument",
    [
        "=",
        "=-1",
        "=+5",
        "=1.5",
        "=1e3",
        "=1_000",
        "=x",
        '=""',
        '="',
        "=²",
        "=\N{ARABIC-INDIC DIGIT FIVE}",
        "=0x1",
        "=5 6",
        "=5;6",
        "==5",
    ],
)
def test_a_malformed_number_makes_its_directive_void(name: str, argument: str) -> None:
    assert asks(name + argument) == ABSENT


@pytest.mark.parametrize("header", ["max-age", "min-fresh", "max-age, min-fresh"])
def test_a_directive_without_its_number_is_void(header: str) -> None:
    assert asks(header) == ABSENT


@pytest.mark.parametrize("digits", ["2147483648", "2147483649", "99999999999", "9" * 40, "9" * 20_000])
def test_a_giant_number_counts_as_the_largest(digits: str) -> None:
    expected = asks("max-age=2147483648, min-fresh=2147483648, max-stale=2147483648")
    assert expected.max_age == seconds(2**31)
    for zeros in ("", "0" * 30):
        number = zeros + digits
        assert asks(f"max-age={number}, min-fresh={number}, max-stale={number}") == expected
    assert decide(seconds(500), expected, POLICY) in set(Decision)


headers = st.text(max_size=200) | st.lists(
    st.tuples(
        st.sampled_from(["no-cache", "only-if-cached", "max-age", "min-fresh", "Max-Stale", "x", '"', "\\"]),
        st.sampled_from(
            ["", "=", '="', "=5", '="5"', "=²", "= 5", '=5"', "=99999999999999999999", '=",no-cache']
        ),
    ).map("".join),
    max_size=6,
).map(", ".join)


@given(headers, ages, policies)
def test_no_header_makes_an_error_or_a_fetch_below_the_floor(
    header: str, age: timedelta, stored_for: Freshness
) -> None:
    decision = decide(age, parse_request_directives(header), stored_for)
    assert decision in {SERVE, REFUSE} or age >= stored_for.min_refresh


@st.composite
def said(draw: st.DrawFn) -> tuple[RequestDirectives, str]:
    """Directives, and a header that says them in one of the ways in which it can be said."""
    directives = draw(any_directives)
    numbers = {
        "max-age": directives.max_age,
        "min-fresh": directives.min_fresh,
        "max-stale": directives.max_stale,
    }
    flags = {
        "no-cache": directives.no_cache,
        "only-if-cached": directives.only_if_cached,
        "max-stale": directives.max_stale == ANY_STALENESS,
    }
    forms = st.sampled_from(["{}={}", '{}="{}"', "{}=00{}"])
    items = [name for name, is_said in flags.items() if is_said] + [
        draw(forms).format(name, number // seconds(1))
        for name, number in numbers.items()
        if number not in {None, ANY_STALENESS}
    ]
    cased = [draw(st.sampled_from([item, item.upper(), item.title()])) for item in items]
    comma = draw(st.sampled_from([",", ", ", " ,\t", ", no-store, ,x=y,"]))
    return directives, comma.join(draw(st.permutations(cased)))


@given(said())
def test_directives_are_read_as_they_were_said(case: tuple[RequestDirectives, str]) -> None:
    directives, header = case
    assert parse_request_directives(header) == directives
