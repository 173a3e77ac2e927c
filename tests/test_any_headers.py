"""Whatever headers a caller sends, whatever is stored and whatever Partner Center says."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from types import ModuleType

import azure.functions as func
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.app import App
from shared.client import PartnerCenterClient
from shared.errors import NotCachedError, UpstreamReply, UsageSummaryError
from shared.fleet import Fleet
from shared.freshness import NO_DIRECTIVES, RequestDirectives, parse_request_directives
from shared.guids import is_guid
from shared.held import Answer
from shared.problems import PROBLEMS
from shared.replies import Fetched
from tests.conftest import ManualClock, partner_of, share
from tests.memory import Memory
from tests.test_functions import DIRECTIVES, TAGS, load, problem
from tests.test_http import complaints
from tests.threads import settle

ID = "5b0c4c8e-7f1d-4f0a-9a53-2d1c6b0e8a47"
OLD, NEW = b'{"totalCost":1}', b'{"totalCost":2}'
NO_DATA = UpstreamReply(404, "3000", ID)
ERRORS = [kind("", retry_after=timedelta(seconds=7)) for kind in PROBLEMS if kind is not NotCachedError]
BELOW_THE_FLOOR, FRESH, STALE, OLD_BUT_USABLE, EXPIRED = (
    timedelta(hours=hours) for hours in (0.01, 0.5, 1.5, 3, 240)
)

type Reply = bytes | UpstreamReply | UsageSummaryError


@dataclass(frozen=True)
class State:
    """How old what is stored is, if anything, and what Partner Center says."""

    age: timedelta | None
    reply: Reply

    @property
    def is_usable(self) -> bool:
        return self.age not in {None, EXPIRED}

    def statuses(self, directives: RequestDirectives) -> set[int]:
        """What the contract allows without If-Match."""
        if directives.only_if_cached:
            others = replace(directives, only_if_cached=False)
            return {504} if not self.is_usable else {200, 304} if others == NO_DIRECTIVES else {200, 304, 504}
        if self.is_usable and isinstance(self.reply, UsageSummaryError):
            return {200, 304}
        match self.reply:
            case UsageSummaryError():
                return {int(PROBLEMS[type(self.reply)].status)}
            case UpstreamReply():
                return {404, 200, 304} if self.is_usable else {404}
            case _:
                return {200, 304}


STATES = st.builds(
    State,
    st.sampled_from([None, BELOW_THE_FLOOR, FRESH, STALE, OLD_BUT_USABLE, EXPIRED]),
    st.sampled_from([NEW, NO_DATA, *ERRORS]),
)
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "cache-control": DIRECTIVES | st.text(max_size=40),
        "if-match": TAGS,
        "if-none-match": TAGS,
        "ms-correlationid": st.text(max_size=40) | st.uuids().map(str),
        "authorization": st.text(max_size=20),
        "range": st.sampled_from(["bytes=0-1", "bytes=-", ""]),
        "if-modified-since": st.text(max_size=20),
    },
)


class World:
    """The function before an app with storage in memory, whose Partner Center says what it is told."""

    def __init__(
        self, module: ModuleType, environ: dict[str, str], clock: ManualClock, cache: Memory
    ) -> None:
        self.calls: list[str] = []
        """Their correlation ids."""
        self._reply: Reply = NEW
        self._module = module
        self._environ = environ
        self._clock = clock
        self._cache = cache

    def begin(self, state: State) -> None:
        self._cache.blobs.clear()
        self.calls.clear()
        self._reply = state.reply
        if state.age is not None:
            fleet = Fleet(self._cache, partner_of(self._environ), self._clock.clock())
            share(fleet, Answer(OLD, self._clock.instant - state.age, ID, ID))
        vars(self._module)["app"] = App(self._environ, self._clock.clock())

    def call(self, correlation_id: str) -> Fetched:
        self.calls.append(correlation_id)
        if isinstance(self._reply, UsageSummaryError):
            raise self._reply
        sent = self._clock.instant.timestamp()
        if isinstance(self._reply, UpstreamReply):
            return Fetched(b"", self._reply, ID, correlation_id, sent)
        return Fetched(self._reply, None, ID, correlation_id, sent)

    def ask(self, method: str, headers: Mapping[str, str]) -> func.HttpResponse:
        request = func.HttpRequest(method, "http://localhost/v1/usagesummary", headers=headers, body=b"")
        response: func.HttpResponse = asyncio.run(self._module.main(request))
        settle()
        return response


@pytest.fixture
def world(environ: dict[str, str], manual_clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> World:
    cache = Memory(lambda: manual_clock.instant)
    made = World(load("GetUsageSummary", monkeypatch), environ, manual_clock, cache)
    call: Callable[..., Fetched] = lambda _, correlation_id, __: made.call(correlation_id)  # noqa: E731  # typed
    monkeypatch.setattr("shared.app.Container", lambda *_: cache)
    monkeypatch.setattr(PartnerCenterClient, "get_usage_summary", call)
    return made


def test_the_response_is_one_of_the_contract_and_well_formed(world: World) -> None:
    @settings(max_examples=150)
    @given(STATES, HEADERS, st.sampled_from(["GET", "HEAD"]))
    def ask(state: State, headers: dict[str, str], method: str) -> None:
        world.begin(state)

        response = world.ask(method, headers)

        directives = parse_request_directives(headers.get("cache-control"))
        status, body = response.status_code, response.get_body()
        statuses = state.statuses(directives)
        assert status in statuses | ({412} if "if-match" in headers and 200 in statuses else set())
        assert status != 304 or "if-none-match" in headers
        asks_nobody = directives.only_if_cached or state.age == BELOW_THE_FLOOR
        echoed, sent = response.headers["MS-CorrelationId"], headers.get("ms-correlationid", "").strip()
        assert is_guid(echoed)
        assert (echoed == sent) == is_guid(sent)
        assert world.calls in ([] if asks_nobody else [echoed], [])
        if method == "HEAD" or status == 304:
            assert body == b""
        elif status == 200:
            assert body in {OLD, NEW}
        else:
            problem(response)
        as_sent = {"Date": "Sat, 21 Nov 2026 08:00:00 GMT"} | dict(response.headers)  # the host adds the date
        assert complaints(status, as_sent, body, is_head=method == "HEAD") == []

    ask()
