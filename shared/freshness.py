"""Whether a stored answer serves a request: given its age, the request's directives and the settings.

Pure: no clock and no storage. Ages count from the instant at which the answer's upstream request was sent.
"""

import re
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, auto
from urllib.request import parse_http_list

from shared.settings import Freshness

_DELTA_SECONDS = re.compile(r'("?)([0-9]+)\1')
_DELTA_SECONDS_LIMIT = 2**31
_SECOND = timedelta(seconds=1)
ANY_STALENESS = timedelta.max
ZERO = timedelta()


class Decision(Enum):
    """What to do for one request."""

    SERVE = auto()
    """The stored answer, asking nobody."""
    SERVE_AND_REFRESH = auto()
    """The stored answer, while one refresh runs behind it."""
    FETCH_MISSING = auto()
    """Nothing is stored: a fetch, and its failure is the caller's."""
    FETCH_STALE = auto()
    """A fetch, since the stored answer is too old."""
    FETCH_REQUESTED = auto()
    """A fetch, since the request's directives want it."""
    REFUSE = auto()
    """`only-if-cached`, and nothing is stored that the request allows."""


FETCHES = {Decision.FETCH_MISSING, Decision.FETCH_STALE, Decision.FETCH_REQUESTED}


@dataclass(frozen=True, slots=True)
class RequestDirectives:
    """What a request's Cache-Control asks for (RFC 9111, 5.2.1); no-store is the caller's own affair."""

    no_cache: bool = False
    only_if_cached: bool = False
    max_age: timedelta | None = None
    min_fresh: timedelta = ZERO
    max_stale: timedelta | None = None


NO_DIRECTIVES = RequestDirectives()


def decide(  # noqa: PLR0911  # a table of decisions
    age: timedelta | None, directives: RequestDirectives, policy: Freshness
) -> Decision:
    """What to do for a request when the stored answer is `age` old, or None is stored.

    The floor spares Partner Center a call. `only-if-cached` causes none, so the floor excuses no answer that
    the other directives rule out (RFC 9111, 5.2.1.7).
    """
    if age is None:
        return Decision.REFUSE if directives.only_if_cached else Decision.FETCH_MISSING
    age = max(age, ZERO)
    staleness = age - policy.fresh
    is_floored = age < policy.min_refresh
    is_ruled_out = directives.no_cache or _is_too_old(age, directives) or _is_too_short(staleness, directives)
    if directives.only_if_cached:
        is_too_stale = directives.max_stale is not None and staleness > directives.max_stale
        is_allowed = not is_ruled_out and not is_too_stale and (is_floored or is_usable(age, policy))
        return Decision.SERVE if is_allowed else Decision.REFUSE
    if is_floored:
        return Decision.SERVE
    if not is_usable(age, policy):
        return Decision.FETCH_STALE
    if is_ruled_out:
        return Decision.FETCH_REQUESTED
    if staleness < ZERO:
        return Decision.SERVE
    is_accepted = directives.max_stale is not None and staleness <= directives.max_stale
    is_in_window = staleness < policy.stale_while_revalidate
    return Decision.SERVE_AND_REFRESH if is_accepted or is_in_window else Decision.FETCH_STALE


def is_usable(age: timedelta, policy: Freshness) -> bool:
    """Whether an answer of this age may still be served, if only because nothing better is to be had."""
    return age < policy.fresh + max(policy.stale_while_revalidate, policy.stale_if_error)


def parse_request_directives(header: str | None) -> RequestDirectives:
    """The directives of a request's Cache-Control; unknown and malformed ones count as absent.

    Of duplicates the strictest holds; a number beyond 2^31 counts as 2^31 (RFC 9111, 1.2.2).
    """
    if not header:
        return NO_DIRECTIVES
    flags: set[str] = set()
    seconds: dict[str, list[timedelta]] = {"max-age": [], "min-fresh": [], "max-stale": []}
    for item in parse_http_list(header):
        name, has_argument, argument = item.partition("=")
        name = name.strip().lower()
        if not has_argument:
            flags.add(name)
        elif name in seconds and (delta := _delta_seconds(argument.strip())) is not None:
            seconds[name].append(delta)
    any_staleness = ANY_STALENESS if "max-stale" in flags else None
    return RequestDirectives(
        no_cache="no-cache" in flags,
        only_if_cached="only-if-cached" in flags,
        max_age=min(seconds["max-age"], default=None),
        min_fresh=max(seconds["min-fresh"], default=ZERO),
        max_stale=min(seconds["max-stale"], default=any_staleness),
    )


def _is_too_old(age: timedelta, directives: RequestDirectives) -> bool:
    """Compared in the whole seconds that the Age header shows."""
    return directives.max_age is not None and age // _SECOND > directives.max_age / _SECOND


def _is_too_short(staleness: timedelta, directives: RequestDirectives) -> bool:
    return directives.min_fresh > ZERO and -staleness < directives.min_fresh


def _delta_seconds(argument: str) -> timedelta | None:
    match = _DELTA_SECONDS.fullmatch(argument)
    if match is None:
        return None
    digits = match[2].lstrip("0")[:11] or "0"
    return timedelta(seconds=min(int(digits), _DELTA_SECONDS_LIMIT))
